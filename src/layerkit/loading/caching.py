"""Decoded pictures at a working size, kept for all later epochs by all workers and processes.

The store is one row of bytes: a table with height, width and checksum of each picture, and a slot for each
picture's pixels. All zeros is an empty store, so that a file is valid from the moment it is made, and a
picture that a killed process left half-written, or the disk lost, has the wrong checksum and is decoded anew.
"""

import hashlib
import mmap
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from layerkit.decoding import PictureFile
from layerkit.distributed import is_writer
from layerkit.errors import PictureError, suggestion
from layerkit.presets import Transform
from layerkit.presets.windows import Window, resized_size
from layerkit.saving import atomic_path

Cache = Literal["memory", "disk"]

FOLDER = ".layerkit-cache"
"""Below the data's root; hidden, so that nobody takes it for a class. It may be deleted at any time."""

_FORMAT = 1
_ROW = np.dtype([("height", "u4"), ("width", "u4"), ("checksum", "u4")])


@dataclass(frozen=True)
class WorkingSize:
    """What pictures are reduced to before they are kept; one that is smaller already stays as it is.

    Parameters
    ----------
    to : int or (int, int)
        The shorter side, or height and width.
    interpolation : InterpolationMode
        How they are resized.
    exact : bool
        Whether they are decoded whole.
    """

    to: int | tuple[int, int]
    interpolation: InterpolationMode
    exact: bool

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Give the height and width at which a picture of that size is kept."""
        height, width = resized_size(size, self.to)
        return (height, width) if height <= size[0] and width <= size[1] else size

    def read(self, path: Path) -> Tensor:
        """Decode a picture at its working size: (3, H, W), laid out as rows of pixels."""
        file = PictureFile(path, exact=self.exact)
        size = self.of(file.size)
        picture = Window(0, 0, *file.size, size, (0, 0), size).read(file, self.interpolation)
        return picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)

    def most_bytes(self, size: tuple[int, int]) -> int:
        """Give the bytes that a picture takes, whichever way it is turned."""
        return 3 * max(height * width for height, width in (self.of(size), self.of(size[::-1])))


class PictureCache:
    """The pictures of one data set at a working size, each decoded when it is first asked for.

    Parameters
    ----------
    paths : sequence of Path
        The pictures.
    working : WorkingSize
        At what size they are kept.
    room : sequence of int
        The bytes that each may take.
    file : Path or None
        Where they are kept; ``None`` for memory.
    """

    def __init__(
        self, paths: Sequence[Path], working: WorkingSize, room: Sequence[int], file: Path | None
    ) -> None:
        self._paths = list(paths)
        self.working = working
        self._starts = list(accumulate(room, initial=len(room) * _ROW.itemsize))
        self._file = file
        self._sound = bytearray(len(room))  # whose checksum this process has seen
        self._open(_map_memory(self.bytes) if file is None else _map_file(file, self.bytes))

    @property
    def bytes(self) -> int:
        """How large the store is."""
        return self._starts[-1]

    def read(self, index: int) -> Tensor:
        """Give a picture at its working size: (3, H, W), uint8. It may be the store's own memory.

        Raises
        ------
        PictureError
            It cannot be decoded.
        """
        return self._look_up(index) if self._holds(index) else self._add(index)

    def _open(self, store: Tensor) -> None:
        self._store = store
        self._table: npt.NDArray[Any] = store[: len(self._paths) * _ROW.itemsize].numpy().view(_ROW)

    def _slot(self, index: int, size: int) -> Tensor:
        return self._store[self._starts[index] : self._starts[index] + size]

    def _look_up(self, index: int) -> Tensor:
        height, width, _ = self._table[index].tolist()
        return self._slot(index, 3 * height * width).view(height, width, 3).permute(2, 0, 1)

    def _holds(self, index: int) -> bool:
        """Tell whether a picture is there, and whole: that is looked at once in each process."""
        if not self._sound[index]:
            height, width, checksum = self._table[index].tolist()
            size = 3 * height * width
            if not 0 < size <= self._starts[index + 1] - self._starts[index]:
                return False
            if _checksum(self._slot(index, size), height, width) != checksum:
                return False
            self._sound[index] = True
        return True

    def _add(self, index: int) -> Tensor:
        """Decode a picture and keep it. Whoever does the same at the same time writes the same bytes."""
        picture = self.working.read(self._paths[index])
        pixels = picture.permute(1, 2, 0).reshape(-1)
        if len(pixels) <= self._starts[index + 1] - self._starts[index]:  # or the header lied
            height, width = picture.shape[1:]
            self._slot(index, len(pixels)).copy_(pixels)
            self._table[index] = (height, width, _checksum(pixels, height, width))
            self._sound[index] = True
        return picture

    def __getstate__(self) -> dict[str, Any]:
        """Leave the file's memory out of what a spawned worker is sent: it maps the file itself."""
        return self.__dict__ | {"_table": None} | ({} if self._file is None else {"_store": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(self._store if self._file is None else _map_file(self._file, self.bytes))


def check_cache(cache: Any) -> None:
    """Refuse what is no kind of cache."""
    if cache is not None and cache not in get_args(Cache):
        raise ValueError(
            f"`cache` is {cache!r}; expected None, 'memory' or 'disk'.{suggestion(str(cache), get_args(Cache))} "
            "Leave it out to decode the pictures in every epoch."
        )


def make_caches(
    parts: Mapping[str, tuple[Sequence[Path], Transform]], kind: Cache, root: Path, *, exact: bool
) -> dict[str, PictureCache]:
    """Make a cache for each part, once it is known that there is room for all; say how much they take.

    Parameters
    ----------
    parts : mapping of str to (sequence of Path, Transform)
        The pictures of each part, and what they are read for.
    kind : {"memory", "disk"}
        Where they are kept.
    root : Path
        The folder that the pictures lie in; the cache lies in a hidden folder there.
    exact : bool
        Whether pictures are decoded whole.

    Returns
    -------
    dict of str to PictureCache

    Raises
    ------
    MemoryError
        The machine has less memory.
    OSError
        The disk has less room, or the folder cannot be written to.
    """
    plans = {}
    for name, (paths, transform) in parts.items():
        interpolation = InterpolationMode(transform.preset.interpolation)
        working = WorkingSize(transform.working_size, interpolation, exact)
        file = root / FOLDER / f"{_digest(paths, root, working)}.pixels" if kind == "disk" else None
        plans[name] = (paths, working, _find_room(paths, working, file), file)
    needed = {
        name: sum(room) + len(room) * _ROW.itemsize - (file.stat().st_size if file and file.is_file() else 0)
        for name, (_, _, room, file) in plans.items()
    }
    if any(size > 0 for size in needed.values()):
        pictures = sum(len(paths) for paths, *_ in plans.values())
        _check_room(max(0, sum(needed.values())), pictures, root / FOLDER if kind == "disk" else None)
    return {name: PictureCache(*plan) for name, plan in plans.items()}


def _digest(paths: Sequence[Path], root: Path, working: WorkingSize) -> str:
    """Name what the pixels depend on: the files, the working size, and who decodes and resizes."""
    digest = hashlib.blake2b(digest_size=16)
    makers = [_version(name) for name in ("torch", "torchvision", "torchcodec", "pillow")]
    digest.update(repr((_FORMAT, working, makers)).encode())
    for path in paths:
        status = path.stat()
        name = path.relative_to(root).as_posix()
        digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _find_room(paths: Sequence[Path], working: WorkingSize, file: Path | None) -> list[int]:
    """Look at the headers of all pictures; what they say is kept beside a file of pixels."""
    kept = file.with_suffix(".sizes") if file else None
    if kept and kept.is_file():
        with suppress(ValueError, OSError):
            room: list[int] = np.frombuffer(kept.read_bytes(), np.uint64).tolist()
            if len(room) == len(paths):
                return room
    with ThreadPoolExecutor(thread_name_prefix="layerkit-sizes") as pool:
        room = list(pool.map(lambda path: _room_of(path, working), paths))
    if kept:
        with _explaining(kept.parent), atomic_path(kept) as temporary:
            temporary.write_bytes(np.array(room, np.uint64).tobytes())
    return room


def _room_of(path: Path, working: WorkingSize) -> int:
    # Pillow may not know the kind, or refuse its size.
    with suppress(Exception), Image.open(path) as image:
        return working.most_bytes((image.height, image.width))
    try:
        return working.most_bytes(PictureFile(path).size)
    except PictureError:  # which is for whoever reads it to raise, or to skip
        return 0


def _check_room(needed: int, pictures: int, folder: Path | None) -> None:
    """Say how much the caches take, or refuse to make them."""
    where = "of memory" if folder is None else f"in {folder}"
    free = _physical_memory() if folder is None else shutil.disk_usage(folder).free
    if needed > free:
        raise (MemoryError if folder is None else OSError)(
            f"The cache of {pictures:,} pictures takes {needed / 1e9:,.1f} GB {where}; expected no more than the "
            f"{free / 1e9:,.1f} GB that there are. Pass "
            + ("cache='disk'" if folder is None else "cache='memory'")
            + ", a preset with a smaller crop, or no cache."
        )
    if is_writer():
        others = 0 if folder is None else sum(file.stat().st_size for file in folder.glob("*.pixels"))
        beside = f", beside {others / 1e9:,.1f} GB of earlier caches" if others else ""
        kind = "memory" if folder is None else "disk"
        print(
            f"cache={kind!r}: {pictures:,} pictures take {needed / 1e9:,.2f} GB {where}{beside}.",
            file=sys.stderr,
        )


def _physical_memory() -> float:
    """Give the machine's memory in bytes, or no bound where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError):
        return float("inf")


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    """Say what to do where the folder of a cache cannot be written to."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The cache cannot be written to {folder} ({error}); expected a folder that may be written to, with "
            "room on its disk. Change that, or pass cache='memory'."
        ) from error


def _map_memory(size: int) -> Tensor:
    """Give zeros that worker processes share: forked on Linux, sent a handle elsewhere."""
    if sys.platform == "linux":  # not torch's way, whose /dev/shm is small in containers
        return torch.from_numpy(np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8))
    return torch.zeros(size, dtype=torch.uint8).share_memory_()


def _map_file(file: Path, size: int) -> Tensor:
    with _explaining(file.parent):
        _reserve(file, size)
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(size,)))


def _reserve(file: Path, size: int) -> None:
    """Lengthen the file with zeros that have a place on the disk: writing to a mapped one that has none kills.

    It only ever grows, so that several processes may do this at the same time, and be killed in it.
    """
    with file.open("ab") as grown:
        missing = size - grown.tell()
        if missing <= 0:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(grown.fileno(), 0, size)
        elif sys.platform == "win32":
            grown.truncate(size)
        else:
            zeros = bytes(1 << 24)
            for _ in range(0, missing, len(zeros)):
                grown.write(zeros)


def _checksum(pixels: Tensor, height: int, width: int) -> int:
    return zlib.crc32(pixels.numpy().data, (height << 16 ^ width) & 0xFFFFFFFF)
