"""Files that are whole or absent: safetensors with a JSON header and a checksum, and atomic writes.

Nothing is ever unpickled. Whatever is no tensor travels as JSON in the file's metadata.
"""

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def check_target(path: str | Path) -> Path:
    """Give the place where a file can be written; what a link leads to, not the link, is replaced.

    Raises
    ------
    OSError
        Something else than a file is there, or no file can be made there.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file. Add one: {place / 'name'}")
    if place.exists() and not place.is_file():
        raise OSError(
            f"{path} is a device or a pipe, which cannot be replaced; expected a file. Choose another name."
        )
    folder = next((parent for parent in place.parents if parent.exists()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{path} is on a drive that is not there; expected one that is. Choose another place."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{path} lies below {folder}, which is a file; expected a folder. Choose another place."
        )
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            f"{path} cannot be written, since {folder} is read-only; expected a folder of your own."
        )
    return place


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved onto it when the block ends well and removed otherwise."""
    named, path = Path(path), check_target(path)  # what is written may go by the suffix that was given
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cut, since a name may be as long as the system allows already.
    handle, name = tempfile.mkstemp(
        prefix=f".{named.stem[:40]}-", suffix=f".tmp{named.suffix}", dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, each into memory of its own, as they are now."""
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu").copy_(tensor.detach())
        for name, tensor in tensors.items()
    }


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write what `copies` gave and a JSON header, whole or not at all.

    Raises
    ------
    OSError
        It could not be written, such as where the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    text = json.dumps(header)
    metadata = {"layerkit": text, "checksum": checksum(tensors, text)}
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=metadata)
            _sync(temporary)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from error


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is cut short, changed, or was not written by layerkit. Nothing in it was executed.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        what = ", which is a folder" if path.is_dir() else ""
        raise FileNotFoundError(
            f"There is no file {path}{what}; expected one that layerkit saved. Check the path."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: as long as a tensor is a view of the file, whoever changes that changes the tensor, and
            # Windows lets nobody replace it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or a damaged one ({error}); expected one that layerkit saved: nothing "
            "in it was executed. Check the path, or take another copy."
        ) from error
    if "layerkit" not in metadata:
        raise ValueError(f"{path} holds tensors only; expected a file that layerkit saved. Check the path.")
    if metadata.get("checksum") != checksum(tensors, metadata["layerkit"]):
        raise ValueError(
            f"The checksum of {path} does not fit its contents; expected the file as it was saved. It was "
            "changed or damaged since: take another copy."
        )
    try:
        header: dict[str, Any] = json.loads(metadata["layerkit"])
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The header of {path} is no JSON ({error}); expected a file that layerkit saved. Take another copy."
        ) from error
    return tensors, header


def pack(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Turn nested state into JSON, with its tensors put aside under names that begin with `name`.

    Raises
    ------
    TypeError
        Something in it is neither a tensor nor plain data.
    """
    if isinstance(value, Tensor):
        if name in tensors:  # the keys 1 and "1" look alike, and a key may hold a slash
            name = f"{name}#{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        odd = [key for key in value if not (key is None or isinstance(key, bool | int | float | str))]
        if odd:
            raise TypeError(f"{name} has the key {odd[0]!r}; expected text and numbers as keys.")
        return {"dict": [[key, pack(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple | deque):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, tensors, f"{name}/{index}") for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; expected tensors, numbers, text, lists and dicts.")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def checksum(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Give a fingerprint of tensors on the CPU, with their names and dtypes, and of a text."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file is on the disk: after a power cut its new name could stand for half of it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
