"""Split a folder on disk, so that calling again finishes, keeps or extends what is there."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from layerkit.errors import PictureError, SplitError, count_of
from layerkit.splitting.labels import Rule, group_reader, label_reader
from layerkit.splitting.lock import folder_lock
from layerkit.splitting.manifest import MANIFEST_NAME, Manifest, load_manifest, source_names
from layerkit.splitting.pictures import Listing, require_folder, scan_folder
from layerkit.splitting.planning import plan, warn_of
from layerkit.splitting.request import Duplicates, Request, check_choice
from layerkit.splitting.table import Mode, Split, destination_of, some
from layerkit.splitting.writing import present_in, refuse_unwritable, write


def split_folder(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    valid: float = 0.2,
    test: float = 0,
    label: Rule = "folder",
    group: Rule | None = None,
    stratify: bool = True,
    duplicates: Duplicates = "together",
    seed: int = 0,
    mode: Mode = "copy",
    progress: bool = True,
) -> Split:
    r"""Split a folder of pictures into training, validation and test folders.

    Parameters
    ----------
    source : str or PathLike
        The folder; see `plan_split`.
    dest : str or PathLike
        The folder to write to, outside `source`; made if missing. Pictures go to
        ``dest/{train,valid,test}/<class>/<path below the class>``.
    valid, test, label, group, stratify, duplicates, seed
        As in `plan_split`.
    mode : {"copy", "hardlink", "symlink", "move"}, default "copy"
        How each picture gets there. Hard links take no room, and show each change of either name in both.
        Symbolic links hold the absolute path.
    progress : bool, default True
        Show a bar on stderr if it takes more than about a second, and say which files were left out.

    Returns
    -------
    Split
        The split that `dest` holds.

    Raises
    ------
    SplitError
        As in `plan_split`; if `dest` lies in `source`, holds another split or pictures of unknown origin;
        if two pictures would get one name; if a link was to be moved.
    FileNotFoundError, PictureError, OSError
        If a folder or file is missing, or cannot be read or written. Calling again goes on from there.
    ValueError, TypeError
        If an argument makes no sense.

    Warns
    -----
    LayerkitWarning
        As in `plan_split`.

    Notes
    -----
    Before the first picture, a manifest is written to `dest`, and it rules every later call. A call that was
    killed at any moment leaves no half-written picture under a final name, and the same call finishes it.
    Called once more it changes nothing. If the source has grown, the same call places the new pictures and
    leaves all others where they are. Other options are refused while `dest` holds this split.

    Two calls at once are safe: the second waits for the first, and finds the work done.

    All this holds against killed processes. A power cut may also cost what the system had not yet written
    to disk: pictures of the last seconds may then be empty or missing. Remove them and call again. With
    ``"move"``, within one file system each picture is renamed and never in two places or in none; between
    file systems the copy is synced to disk before the original goes.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "all").mkdir()
    >>> for n in range(10):
    ...     for animal in ("cat", "dog"):
    ...         _ = (folder / "all" / f"{animal}.{n}.jpg").write_text(f"{animal} {n}")
    >>> split = split_folder(folder / "all", folder / "pets", valid=0.2, label=r"(cat|dog)\.\d+\.jpg")
    >>> len(list((folder / "pets" / "valid" / "cat").iterdir()))
    2
    """
    request = Request(valid, test, label, group, stratify, duplicates, seed)
    check_choice("mode", mode, get_args(Mode))
    source, dest = Path(source), Path(dest)
    _refuse_place(source, dest)
    if load_manifest(dest) is None:  # a split that was moved here may have outlived its source
        require_folder(source)
    with folder_lock(dest, keep=dest / MANIFEST_NAME, announce=progress):
        held = load_manifest(dest)
        if held:
            _refuse_other_request(held, request, mode, source, dest)
        split, listing, notes = _settle(source, dest, request, held, progress)
        write(split, dest, held, mode=mode, listing=listing, progress=progress)
    warn_of(notes)
    return split


def preview_split(
    source: str | os.PathLike[str], dest: str | os.PathLike[str], *, mode: Mode = "copy", **options: Any
) -> Split:
    """Give the split that `split_folder` would write, or raise as it would; write nothing.

    Parameters
    ----------
    source, dest, mode, **options
        As in `split_folder`.

    Returns
    -------
    Split

    Raises
    ------
    SplitError, OSError, ValueError, TypeError
        As in `split_folder`, but for what only writing can find out.
    """
    request = Request(**options)
    source, dest = Path(source), Path(dest)
    _refuse_place(source, dest)
    held = load_manifest(dest)
    if held:
        _refuse_other_request(held, request, mode, source, dest)
    else:
        require_folder(source)
    split, listing, _ = _settle(source, dest, request, held, progress=True)
    if held is None or held.split.rows != split.rows:
        targets = list(map(destination_of, split.rows))
        refuse_unwritable(split, targets, present_in(dest), dest, held, mode=mode, listing=listing)
    return split


def materialize(split: Split, dest: str | os.PathLike[str], *, mode: Mode, progress: bool) -> Split:
    """Write a planned split to disk; see `Split.materialize`.

    Parameters
    ----------
    split, dest, mode, progress
        As in `Split.materialize`.

    Returns
    -------
    Split

    Raises
    ------
    SplitError, OSError
        As in `Split.materialize`.
    """
    check_choice("mode", mode, get_args(Mode))
    if split.source is None:
        raise SplitError(
            "this split does not know which folder its paths belong to; expected a source: read it with "
            'Split.read_csv(path, source="folder")'
        )
    dest = Path(dest)
    _refuse_place(split.source, dest)
    with folder_lock(dest, keep=dest / MANIFEST_NAME, announce=progress):
        held = load_manifest(dest)
        if held:
            _refuse_other_table(held, split, mode, dest)
        listing = _listing(split.source, sizes=False)
        _refuse_missing(split, listing, dest)
        write(split, dest, held, mode=mode, listing=listing, progress=progress)
    return split


def _settle(
    source: Path, dest: Path, request: Request, held: Manifest | None, progress: bool
) -> tuple[Split, Listing, tuple[str, ...]]:
    """Return the split that the destination is to hold, the source's listing, and what is new to be said."""
    sizes = request.duplicates != "ignore"
    if held is None:
        listing = scan_folder(source, sizes=sizes)
        split = plan(source, listing, request, progress=progress)
        return split, listing, split.notes
    listing = _listing(source, sizes=False)
    placed = _placed(held.split, dest)
    if not _has_changed(held.split, listing, placed, request):
        split = replace(held.split, source=source, skipped=tuple(listing.skipped))
        return split, listing, _gone(split, listing, dest, held.mode)
    require_folder(source)  # with the whole source gone, nothing can be finished
    listing = scan_folder(source, sizes=sizes)
    split = plan(source, listing, request, held.split, placed=placed, progress=progress)
    return split, listing, (*split.notes, *_gone(split, listing, dest, held.mode))


def _gone(split: Split, listing: Listing, dest: Path, mode: Mode) -> tuple[str, ...]:
    """Say which pictures were taken out of the source since, and stay where they were written."""
    if mode == "move" or not listing.pictures:  # a source that is empty as a whole has done its service
        return ()
    gone = sorted({row.path for row in split.rows} - set(listing.pictures))
    if not gone:
        return ()
    links = "; their links lead nowhere" if mode == "symlink" else ""
    return (
        f"{count_of(len(gone), 'picture')} of {str(dest)!r} {'is' if len(gone) == 1 else 'are'} no longer in the "
        f"source, and {'stays' if len(gone) == 1 else 'stay'} there: {some(gone)}{links}. To take them out, delete "
        "them there too, and call again",
    )


def _listing(source: Path, *, sizes: bool) -> Listing:
    return scan_folder(source, sizes=sizes) if source.exists() else Listing([], {}, set(), [])


def _placed(split: Split, dest: Path) -> dict[str, str]:
    """Say where the pictures are that have been placed already."""
    present = present_in(dest)
    return {row.path: f"{dest}/{target}" for row in split.rows if (target := destination_of(row)) in present}


def _has_changed(split: Split, listing: Listing, placed: Mapping[str, str], request: Request) -> bool:
    """Tell whether there are pictures that the split does not know, or that are in neither place."""
    read_label = label_reader(request.label)
    known = {row.path for row in split.rows}
    found = set(listing.pictures)
    return any(map(read_label, found - known)) or not known <= found | placed.keys()


def _refuse_place(source: Path, dest: Path) -> None:
    if dest.exists() and not dest.is_dir():
        raise NotADirectoryError(
            f"the destination {str(dest)!r} is a file; expected a folder, or a free name"
        )
    outer, inner = os.path.realpath(source), os.path.realpath(dest)
    if inner == outer or inner.startswith(outer + os.sep):
        raise SplitError(
            f"the destination {str(dest)!r} lies in the source {str(source)!r}, and its pictures would "
            "be split again with the others; expected a folder outside it, such as "
            f"{str(source.with_name(source.name + '-split'))!r}"
        )


def _refuse_other_request(held: Manifest, request: Request, mode: Mode, source: Path, dest: Path) -> None:
    asked = {**request.describe(), "mode": mode}
    holds = {**(held.split.request or {}), "mode": held.mode}
    other = [f"{name}={asked[name]!r}" for name in asked if holds.get(name, asked) != asked[name]]
    absolute, relative = source_names(source, dest)
    if absolute != str(held.split.source) and relative != held.source_from_dest:
        other.insert(0, f"source={str(source)!r}")
    other += _other_answers(held.split, request)
    if other:
        options = ", ".join(f"{name}={value!r}" for name, value in holds.items())
        raise SplitError(
            f"{str(dest)!r} holds another split: {count_of(len(held.split), 'picture')} of "
            f"{str(held.split.source)!r} with {options}; now asked for: {', '.join(other)}. Expected the "
            f"same options: use them, or choose another destination{_or_delete(held)}"
        )


def _or_delete(held: Manifest) -> str:
    """Say that a destination may be deleted only where the pictures are elsewhere too."""
    if held.mode == "move":
        return ". The pictures were moved there, so that it may hold the only ones"
    return ", or delete this one first"


def _other_answers(split: Split, request: Request) -> list[str]:
    """Compare functions by what they answer, for they have no other identity that would last."""
    if callable(request.label):
        read = label_reader(request.label)
        if any(read(row.path) != row.label for row in split.rows):
            return ["a label function with other answers"]
    if callable(request.group):
        read = group_reader(request.group)
        if any(read(row.path) != row.group for row in split.rows):
            return ["a group function with other answers"]
    return []


def _refuse_other_table(held: Manifest, split: Split, mode: Mode, dest: Path) -> None:
    wanted = {row.path: row[:3] for row in split.rows}
    differ = [row.path for row in held.split.rows if wanted.get(row.path) != row[:3]]
    if differ or held.mode != mode:
        how = f"where {some(differ)} have another place" if differ else f"written with mode={held.mode!r}"
        finish = "; a move that was interrupted is finished by materializing the split that it began with, "
        finish += "which read_manifest(dest) reads"
        raise SplitError(
            f"{str(dest)!r} holds another split of {count_of(len(held.split), 'picture')}, {how}; expected "
            f"this one, or an earlier state of it: choose another destination{_or_delete(held)}"
            f"{finish if held.mode == mode == 'move' else ''}"
        )


def _refuse_missing(split: Split, listing: Listing, dest: Path) -> None:
    unseen = {row.path for row in split.rows} - set(listing.pictures)
    placed = _placed(split, dest) if unseen else {}
    missing = sorted(p for p in unseen if p not in placed and not os.path.lexists(f"{split.source}/{p}"))
    if missing:
        raise PictureError(
            f"{count_of(len(missing), 'picture')} of the split are not in {str(split.source)!r}: "
            f"{some(missing)}; expected all of them: put them back, or plan anew"
        )
