"""The manifest: the file in a destination that says which split it holds."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerkit.errors import SplitError
from layerkit.splitting.table import PARTS, Mode, NearPair, Split, SplitRow, check_inside, check_labels

MANIFEST_NAME = ".layerkit-split.jsonl"
_VERSION = 1
_ROWS_A_LINE = 500


@dataclass(frozen=True)
class Manifest:
    """What a destination holds, and how and from where it came there."""

    split: Split
    mode: Mode
    source_from_dest: str | None


def read_manifest(dest: str | os.PathLike[str]) -> Split | None:
    """Read which split a folder holds.

    Parameters
    ----------
    dest : str or PathLike
        A folder that `split_folder` or `Split.materialize` may have written.

    Returns
    -------
    Split or None
        None where there is no manifest.

    Raises
    ------
    SplitError
        If the manifest is damaged, or was written by a newer version.
    """
    manifest = load_manifest(Path(dest))
    return manifest.split if manifest else None


def load_manifest(dest: Path) -> Manifest | None:
    """Read the manifest of a folder.

    Parameters
    ----------
    dest : Path
        The folder.

    Returns
    -------
    Manifest or None
        None where there is none.

    Raises
    ------
    SplitError
        If it is damaged, or was written by a newer version.
    """
    try:
        with (dest / MANIFEST_NAME).open(encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head["layerkit_split"] > _VERSION:
                raise SplitError(
                    f"{dest} was split by a newer layerkit (manifest version {head['layerkit_split']}); "
                    f"this one reads version {_VERSION}: upgrade layerkit"
                )
            return _parse(head, file, dest)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, SplitError):
            raise
        raise SplitError(
            f"the manifest {dest / MANIFEST_NAME} is damaged ({error}); expected the file that split_folder "
            "wrote: split into another folder"
        ) from error


def write_manifest(dest: Path, split: Split, mode: Mode) -> None:
    """Write the manifest of a folder, all at once.

    Parameters
    ----------
    dest : Path
        The folder.
    split : Split
        What it is to hold.
    mode : str
        How the pictures come there.
    """
    temporary = dest / f"{MANIFEST_NAME}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(_lines(split, mode, dest))
        if mode == "move":  # from now on the manifest is the only record of what was where
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(dest / MANIFEST_NAME)


def source_names(source: Path | None, dest: Path) -> tuple[str | None, str | None]:
    """Name a source in the two ways by which a later call may know it again.

    Parameters
    ----------
    source : Path or None
        The source.
    dest : Path
        The destination.

    Returns
    -------
    tuple of str
        Its absolute path, and its path from the destination: one of them stays the same when the source,
        the destination or their common parent are moved or mounted elsewhere.
    """
    if source is None:
        return None, None
    absolute = os.path.realpath(source)
    try:
        return absolute, Path(os.path.relpath(absolute, os.path.realpath(dest))).as_posix()
    except ValueError:  # on another drive
        return absolute, None


def _lines(split: Split, mode: Mode, dest: Path) -> Iterator[str]:
    source, source_from_dest = source_names(split.source, dest)
    head = {
        "layerkit_split": _VERSION,
        "files": len(split),
        "mode": mode,
        "source": source,
        "source_from_dest": source_from_dest,
        "request": split.request,
        "notes": split.notes,
        "near_duplicates": split.near_duplicates,
        "stamps": split.stamps,
    }
    yield json.dumps(head) + "\n"
    for n in range(0, len(split), _ROWS_A_LINE):
        yield json.dumps(split.rows[n : n + _ROWS_A_LINE]) + "\n"


def _parse(head: dict[str, Any], lines: Iterable[str], dest: Path) -> Manifest:
    rows = tuple(itertools.starmap(SplitRow, itertools.chain.from_iterable(map(json.loads, lines))))
    if len(rows) != head["files"]:
        raise ValueError(f"{len(rows)} rows instead of {head['files']}")
    for row in rows:
        check_inside(row.path)
    if odd := {row.part for row in rows} - set(PARTS):
        raise ValueError(f"there is no part {min(odd)!r}")
    check_labels({row.label for row in rows})
    split = Split(
        rows,
        None if head["source"] is None else Path(head["source"]),
        notes=tuple(head["notes"]),
        near_duplicates=tuple(map(NearPair._make, head["near_duplicates"])),
        request=head["request"],
        stamps={path: (size, time) for path, (size, time) in head["stamps"].items()},
    )
    return Manifest(split, head["mode"], head["source_from_dest"])
