"""Write a split: all that could forbid it first, then the manifest, then each picture."""

# Strings, not Path, where a line runs once for each of perhaps a million files.
# ruff: noqa: PTH100, PTH103, PTH108

import contextlib
import errno
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layerkit.errors import PictureError, SplitError, count_of
from layerkit.splitting.lock import LOCK_NAME
from layerkit.splitting.manifest import Manifest, write_manifest
from layerkit.splitting.pictures import Listing
from layerkit.splitting.placing import is_left_over, placer
from layerkit.splitting.progress import Progress
from layerkit.splitting.table import PART_NAMES, Mode, Split, SplitRow, check_labels, destination_of, some

_TEMPORARY_NAME = ".layerkit-split.tmp"
_BATCH = 64
_COPIERS = 4
_TITLES = {"copy": "copying", "hardlink": "linking", "symlink": "linking", "move": "moving"}


def write(
    split: Split, dest: Path, held: Manifest | None, *, mode: Mode, listing: Listing, progress: bool
) -> None:
    """Bring every picture of a split to its place; whoever calls holds the destination's lock.

    Parameters
    ----------
    split : Split
        What the destination is to hold.
    dest : Path
        The destination.
    held : Manifest or None
        What it holds by its manifest; no picture of that may have another place in `split`.
    mode : {"copy", "hardlink", "symlink", "move"}
        How pictures get there.
    listing : Listing
        The source's pictures.
    progress : bool
        Show a bar, and say what was left out.

    Raises
    ------
    SplitError
        If the pictures cannot stand in the destination side by side, or not by this mode.
    OSError
        If a file cannot be read or written.
    """
    targets = list(map(destination_of, split.rows))
    present = present_in(dest)
    is_new = held is None or held.split.rows != split.rows
    todo = [row for row, target in zip(split.rows, targets, strict=True) if target not in present]
    if is_new:
        refuse_unwritable(split, targets, present, dest, held, mode=mode, listing=listing)
        with _workplace(dest) as free_name:
            _try(mode, split, todo, listing.linked, free_name)
    if mode == "move":
        _finish_moves(split, targets, present, listing, dest)
    if is_new:
        write_manifest(dest, split, mode)
        if progress and split.skipped:
            names = some(path for path, _ in split.skipped)
            print(f"left out {count_of(len(split.skipped), 'file')}: {names}", file=sys.stderr)
    if not todo:
        shutil.rmtree(dest / _TEMPORARY_NAME, ignore_errors=True)  # of a call that was killed at its very end
    else:
        with _workplace(dest) as free_name, Progress(_TITLES[mode], len(todo), shown=progress) as step:
            _place_all(todo, split, dest, mode, listing.linked, free_name, step)


def refuse_unwritable(
    split: Split,
    targets: Sequence[str],
    present: set[str],
    dest: Path,
    held: Manifest | None,
    *,
    mode: Mode,
    listing: Listing,
) -> None:
    """Raise if the pictures of a new or grown split cannot stand in the destination side by side.

    Parameters
    ----------
    split, dest, held, mode, listing
        As in `write`.
    targets : sequence of str
        Where each picture goes, as `destination_of` says.
    present : set of str
        What `present_in` found.

    Raises
    ------
    SplitError
        If so, or if they cannot come there by this mode.
    """
    check_labels(split.classes)
    _refuse_strays(split, held, targets, present, dest)
    _refuse_one_name(split, targets, dest)
    if mode == "move":
        pairs = zip(split.rows, targets, strict=True)
        _refuse_linked([row for row, target in pairs if target not in present], listing.linked)


def present_in(dest: Path) -> set[str]:
    """List what stands in the parts of a destination.

    Parameters
    ----------
    dest : Path
        The destination.

    Returns
    -------
    set of str
        Paths relative to it, with ``/``: of files, and of links even if they are broken.
    """
    found: set[str] = set()
    pending = [name for name in PART_NAMES if (dest / name).is_dir()]
    while pending:
        folder = pending.pop()
        with os.scandir(dest / folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{folder}/{entry.name}")
                else:
                    found.add(f"{folder}/{entry.name}")
    return found


def _place_all(
    todo: Sequence[SplitRow],
    split: Split,
    dest: Path,
    mode: Mode,
    linked: set[str],
    free_name: str,
    step: Progress,
) -> None:
    place = placer(mode)
    root = os.path.abspath(split.source or ".")
    made: set[str] = set()

    def run(start: int) -> int:
        batch, free = todo[start : start + _BATCH], f"{free_name}{start}"
        for row in batch:
            target = destination_of(row)
            folder = target[: target.rindex("/")]
            origin, goal = f"{root}/{row.path}", f"{dest}/{target}"
            try:
                if folder not in made:
                    os.makedirs(f"{dest}/{folder}", exist_ok=True)
                    made.add(folder)
                place(os.path.realpath(origin) if row.path in linked else origin, goal, free)
            except OSError as error:
                raise _explained(error, origin, goal) from error
        return len(batch)

    # Links and renames are over in microseconds, which threads would spend on waiting for each other.
    with ThreadPoolExecutor(_COPIERS) as pool:
        for done in (pool.map if mode == "copy" else map)(run, range(0, len(todo), _BATCH)):
            step.add(done)


def _explained(error: OSError, origin: str, goal: str) -> OSError:
    if not os.path.lexists(origin):
        return PictureError(
            f"{origin!r} has vanished since the folder was listed; expected it to stay until it is in its "
            "place. Calling again goes on without it"
        )
    return OSError(
        error.errno,
        f"{error.strerror}: {origin!r} could not be brought to {goal!r}. Nothing half-written is left; mend "
        "the cause and call again, which goes on from here",
    )


@contextlib.contextmanager
def _workplace(dest: Path) -> Iterator[str]:
    """Yield a free name on the destination's file system; what a killed process left there is removed."""
    folder = dest / _TEMPORARY_NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield os.fspath(folder / "file")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try(mode: Mode, split: Split, todo: Sequence[SplitRow], linked: set[str], free_name: str) -> None:
    """Make one link before anything is promised: not every pair of folders allows it."""
    if mode not in ("hardlink", "symlink") or not todo:
        return
    path = todo[0].path
    origin = os.path.abspath(f"{split.source}/{path}")
    try:
        placer(mode)(os.path.realpath(origin) if path in linked else origin, free_name, "")
    except OSError as error:
        reason = "they are on different file systems" if error.errno == errno.EXDEV else error.strerror
        raise OSError(
            error.errno,
            f"a {mode} from the destination to {origin!r} cannot be made ({reason}); expected folders that "
            'allow it: pass mode="copy"' + (' or mode="symlink"' if mode == "hardlink" else ""),
        ) from error


def _finish_moves(
    split: Split, targets: Sequence[str], present: set[str], listing: Listing, dest: Path
) -> None:
    """Remove originals whose copy to another file system was finished by a call that was then killed."""
    still_there = set(listing.pictures)
    pairs = [
        (f"{split.source}/{row.path}", f"{dest}/{target}")
        for row, target in zip(split.rows, targets, strict=True)
        if target in present and row.path in still_there
    ]
    for origin in [origin for origin, goal in pairs if is_left_over(origin, goal)]:
        os.unlink(origin)


def _refuse_strays(
    split: Split, held: Manifest | None, targets: Sequence[str], present: set[str], dest: Path
) -> None:
    if held is None:
        strays = present
    else:
        old = {row.path for row in held.split.rows}
        pairs = zip(split.rows, targets, strict=True)
        strays = {target for row, target in pairs if row.path not in old and target in present}
    if strays:
        raise SplitError(
            f"{str(dest)!r} already has {count_of(len(strays), 'file')} that no split has put there, such as "
            f"{some(sorted(strays), 1)}; expected an empty destination: choose another, or delete them first"
        )


def _refuse_one_name(split: Split, targets: Sequence[str], dest: Path) -> None:
    fold = _folded if _ignores_case(dest) else str
    first: dict[str, str] = {}
    for label in split.classes:
        if first.setdefault(fold(label), label) != label:
            raise SplitError(
                f"the labels {first[fold(label)]!r} and {label!r} differ only in case, which {str(dest)!r} "
                "does not tell apart; expected one folder for each label: rename one of them"
            )
    names = targets if fold is str else list(map(fold, targets))
    _refuse_file_for_folder(targets, names)
    if len(set(names)) == len(names):
        return
    first.clear()
    for row, name in zip(split.rows, names, strict=True):
        if first.setdefault(name, row.path) != row.path:
            raise SplitError(
                f"{first[name]!r} and {row.path!r} would both be written to {destination_of(row)!r}; "
                "expected one picture for each name there: rename one of them"
            )


def _refuse_file_for_folder(targets: Sequence[str], names: Sequence[str]) -> None:
    folders: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    both = [target for target, name in zip(targets, names, strict=True) if name in folders]
    if both:
        raise SplitError(
            f"{min(both)!r} would be a picture and a folder of pictures; expected one of them under that name: "
            "rename the other"
        )


def _ignores_case(dest: Path) -> bool:
    return (dest / LOCK_NAME.upper()).exists()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _refuse_linked(todo: Sequence[SplitRow], linked: set[str]) -> None:
    links = [row.path for row in todo if row.path in linked]
    if links:
        raise SplitError(
            f"{count_of(len(links), 'picture')} in the source are symbolic links, such as {links[0]!r}, and "
            'cannot be moved without touching other folders; expected files: pass mode="copy" or another'
        )
