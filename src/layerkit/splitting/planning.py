"""Decide which picture goes where."""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from layerkit.errors import SplitError, count_of, warn
from layerkit.splitting.assignment import assign, join, shuffled
from layerkit.splitting.balancing import Goal
from layerkit.splitting.kinship import Draft, find_kin
from layerkit.splitting.labels import Rule, group_reader, label_reader
from layerkit.splitting.pictures import Listing, Skipped, scan_folder
from layerkit.splitting.quotas import part_quotas, total_of
from layerkit.splitting.request import Duplicates, Request
from layerkit.splitting.table import PARTS, Split, SplitRow, some

_SIDES = frozenset(("train", "valid", "val", "validation", "test"))


def plan_split(
    source: str | os.PathLike[str],
    *,
    valid: float = 0.2,
    test: float = 0,
    label: Rule = "folder",
    group: Rule | None = None,
    stratify: bool = True,
    duplicates: Duplicates = "together",
    seed: int = 0,
    previous: Split | str | os.PathLike[str] | None = None,
) -> Split:
    r"""Decide which pictures of a folder go into training, validation and test; write nothing.

    Parameters
    ----------
    source : str or PathLike
        The folder. Hidden files are passed over; files that are no pictures by their name are left out and
        named in the result.
    valid, test : float or int
        A fraction (``0.2``) or a count (``2000``); 0 for none. Fractions are of all pictures, rounded to
        whole ones, halves up. What remains is for training.
    label : "folder", str, re.Pattern or callable
        ``"folder"``: the first folder below `source`. Else a regular expression with one group, searched in
        the file's name, or a function of the relative path (with ``/``), which may answer None. Files
        without a label are left out, with a warning.
    group : str, re.Pattern, callable or None
        A regular expression searched in the relative path (its group, or the whole match, is the name), or
        a function of that path. Files of one group stay on one side: those of a patient, a burst, a video.
    stratify : bool, default True
        Keep the classes' shares in each part. Without it the labels do not matter, and there may be only
        one, as for regression.
    duplicates : {"together", "ignore", "near", "strict"}
        ``"together"`` keeps files with the same bytes on one side, ``"near"`` also pictures that look the
        same (it needs the extra ``near``), ``"ignore"`` reads no contents. ``"strict"`` is ``"together"``
        but refuses the same bytes under two labels, of which the others warn.
    seed : int
        Another seed, another split.
    previous : Split, str, PathLike or None
        An earlier split of this folder, or the CSV file that holds it: its files keep their part, only new
        ones are placed. A fraction is restored as well as they allow; a count that is met stays met.

    Returns
    -------
    Split
        The table.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    SplitError
        If there is no picture, no label, one class only, a class with too few files, or a total that
        cannot be met with every class on every side.
    PictureError
        If a file cannot be read.
    ValueError, TypeError
        If an argument makes no sense.

    Warns
    -----
    LayerkitWarning
        If files were left out for want of a label, if the same bytes have two labels, or if groups and
        duplicates do not allow what was asked.

    Notes
    -----
    The totals are met exactly, and each class is within one file of its share in each part (the
    largest-remainder method), unless groups or duplicates, which cannot be divided, forbid it.

    The plan depends on the seed, the relative names, the labels and the contents, and on nothing else: each
    file draws its place in the order from a hash of the seed and its name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for n in range(10):
    ...     for animal in ("cat", "dog"):
    ...         _ = (folder / f"{animal}.{n}.jpg").write_text(f"{animal} {n}")
    >>> split = plan_split(folder, valid=0.2, label=r"(cat|dog)\.\d+\.jpg")
    >>> split
    Split of 20 pictures       train      valid
    cat                    8 (80.0%)  2 (20.0%)
    dog                    8 (80.0%)  2 (20.0%)
    all                   16 (80.0%)  4 (20.0%)
    """
    request = Request(valid, test, label, group, stratify, duplicates, seed)
    if previous is not None and not isinstance(previous, Split):
        previous = Split.read_csv(previous)
    split = plan(Path(source), scan_folder(source, sizes=duplicates != "ignore"), request, previous)
    warn_of(split.notes)
    return split


def plan(
    source: Path,
    listing: Listing,
    request: Request,
    previous: Split | None = None,
    *,
    placed: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Split:
    """Decide which of the listed pictures goes where.

    Parameters
    ----------
    source : Path
        The folder that was listed.
    listing : Listing
        Its pictures.
    request : Request
        What is asked for.
    previous : Split, optional
        An earlier split, whose rows keep their part.
    placed : mapping of str to str, optional
        Where pictures of the earlier split are that may have gone from the source.
    progress : bool, default False
        Show a bar while contents are read.

    Returns
    -------
    Split
        Its notes say what could not be done as asked.
    """
    draft, skipped, notes = draft_of(source, listing, request, previous, placed)
    kin = find_kin(draft, request, previous.stamps if previous else {}, progress=progress)
    leader = join(draft.pictures, kin.clusters)
    parts, shortfalls = _distribute(draft, leader, request)
    with _garbage_uncollected():
        rows = tuple(map(SplitRow, draft.pictures, draft.labels, parts, draft.groups, kin.hashes))
    said = (*notes, *kin.notes, *shortfalls)
    return Split(rows, source.absolute(), skipped, said, kin.near, request.describe(), kin.stamps)


@contextmanager
def _garbage_uncollected() -> Iterator[None]:
    """Make many objects without Python's looking for cycles among them, which takes as long as linking the files."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def draft_of(
    source: Path,
    listing: Listing,
    request: Request,
    previous: Split | None = None,
    placed: Mapping[str, str] | None = None,
) -> tuple[Draft, tuple[Skipped, ...], list[str]]:
    """Read labels and groups from the names, and set beside each picture what an earlier split says of it.

    Parameters
    ----------
    source, listing, request, previous, placed
        As in `plan`.

    Returns
    -------
    tuple of Draft, tuple of Skipped, list of str
        The draft, the files left out, and notes.

    Raises
    ------
    SplitError
        If there is nothing to split, or a picture's label is no longer what it was.
    """
    old = {row.path: row for row in previous.rows} if previous else {}
    remaining, notes = _vanished(old, listing, placed or {})
    pictures = sorted([*listing.pictures, *remaining]) if remaining else listing.pictures
    labels = list(map(label_reader(request.label), pictures))
    unlabelled = [picture for picture, label in zip(pictures, labels, strict=True) if not label]
    if unlabelled:
        pictures = [picture for picture, label in zip(pictures, labels, strict=True) if label]
        notes.append(_unlabelled_note(unlabelled, request))
    skipped = tuple(sorted([*listing.skipped, *(Skipped(path, "no label") for path in unlabelled)]))
    known = [label for label in labels if label]
    _refuse_nothing_to_split(source, known, unlabelled, skipped, request)
    settled = [old.get(picture) for picture in pictures]
    _refuse_other_labels(settled, known)
    groups = _groups(pictures, request)
    sizes = {**listing.sizes, **{path: os.stat(place).st_size for path, place in remaining.items()}}  # noqa: PTH116
    locate = _locator(source, remaining)
    return Draft(pictures, sizes, known, groups, settled, locate), skipped, notes


def _vanished(
    old: Mapping[str, SplitRow], listing: Listing, placed: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Find the pictures of an earlier split that have gone from the source; some are where it put them."""
    if not old:
        return {}, []
    gone = sorted(old.keys() - set(listing.pictures))
    remaining = {path: placed[path] for path in gone if path in placed}
    lost = [path for path in gone if path not in placed]
    if not lost:
        return remaining, []
    return remaining, [
        f"{count_of(len(lost), 'picture')} of the earlier split cannot be found any more "
        f"and left it: {some(lost)}"
    ]


def _refuse_nothing_to_split(
    source: Path, labels: list[str], unlabelled: list[str], skipped: Sequence[Skipped], request: Request
) -> None:
    classes = set(labels)
    others = f" ({count_of(len(skipped), 'other file')}, such as {skipped[0].path!r})" if skipped else ""
    if not labels and not unlabelled:
        raise SplitError(
            f"there is no picture in {str(source)!r}{others}; expected files with suffixes "
            "such as .jpg or .png: check the path"
        )
    if not labels:
        raise SplitError(
            f"none of the {count_of(len(unlabelled), 'picture')} in {str(source)!r}, such as "
            f"{unlabelled[0]!r}, has a label by label={request.label!r}; {_label_remedy(request)}"
        )
    if request.stratify and len(classes) == 1:
        raise SplitError(
            f"all {count_of(len(labels), 'picture')} in {str(source)!r} have the label {labels[0]!r}; "
            "expected two classes or more, for there is nothing to tell apart: check `label`, or pass "
            "stratify=False where labels do not matter, as for regression"
        )
    if request.label == "folder" and classes <= _SIDES:
        raise SplitError(
            f"the folders of {str(source)!r} are {', '.join(sorted(classes))}, as of a folder that is "
            "split already; expected one folder for each class: use it as it is, or give the folder that it "
            "was made from"
        )


def _label_remedy(request: Request) -> str:
    if request.label == "folder":
        return (
            "expected one folder for each class; for a flat folder with names such as 'cat.12.jpg', pass "
            r'label=r"(cat|dog)\.\d+\.jpg"'
        )
    return "expected it to tell the label of each file's name: correct the expression or the function"


def _unlabelled_note(unlabelled: list[str], request: Request) -> str:
    why = "since they lie in no folder" if request.label == "folder" else "for want of a label"
    return (
        f"{count_of(len(unlabelled), 'picture')} left out {why}: {some(unlabelled)}; {_label_remedy(request)}"
    )


def _refuse_other_labels(settled: Sequence[SplitRow | None], labels: Sequence[str]) -> None:
    for row, label in zip(settled, labels, strict=True):
        if row and row.label != label:
            raise SplitError(
                f"{row.path!r} has the label {label!r}, but {row.label!r} in the earlier split; expected "
                "the same labels: use the same `label`, or split anew"
            )


def _groups(paths: Sequence[str], request: Request) -> list[str | None]:
    if request.group is None:
        return [None] * len(paths)
    groups = list(map(group_reader(request.group), paths))
    if not any(groups):
        raise SplitError(
            f"`group` is {request.group!r}, which finds a group for none of "
            f"{count_of(len(paths), 'picture')}, such as {paths[0]!r}; expected a rule that "
            "matches some of the relative paths: correct it"
        )
    return groups


def _locator(source: Path, elsewhere: Mapping[str, str]) -> Callable[[str], str]:
    root = os.fspath(source)
    return lambda path: elsewhere.get(path) or f"{root}/{path}"


def _distribute(draft: Draft, leader: Sequence[int], request: Request) -> tuple[list[str], list[str]]:
    """Give each picture its part; say what could not be met."""
    labels = draft.labels if request.stratify else [""] * len(draft.labels)
    sizes = dict(sorted(Counter(labels).items()))
    fixed, notes = _fixed(draft, leader)
    placed: dict[str, Counter[str]] = {}
    for i, part in fixed.items():
        placed.setdefault(part, Counter())[labels[i]] += 1
    quotas = part_quotas(sizes, request.asked, placed)
    parts = list(quotas)
    asked = [total_of(amount, len(labels)) for amount in request.asked.values()]
    class_of = dict(zip(sizes, range(len(sizes)), strict=True))
    given = assign(
        shuffled(draft.pictures, request.seed),
        [class_of[label] for label in labels],
        leader,
        Goal(list(quotas.values()), [*asked, None]),
        {i: parts.index(part) for i, part in fixed.items()},
    )
    counts = Counter(zip(given, labels, strict=True))
    table = {part: [counts[p, label] for label in sizes] for p, part in enumerate(parts)}
    notes += _shortfalls(table, sizes, dict(zip(request.asked, asked, strict=True)), bool(fixed))
    return [parts[p] for p in given], notes


def _fixed(draft: Draft, leader: Sequence[int]) -> tuple[dict[int, str], list[str]]:
    """Say which part is settled: that of old pictures, and of new ones that belong to them."""
    fixed = {i: row.part for i, row in enumerate(draft.old) if row}
    if not fixed:
        return {}, []
    parts_of: dict[int, Counter[str]] = {}
    for i, part in fixed.items():
        parts_of.setdefault(leader[i], Counter())[part] += 1
    torn = []
    for i, first in enumerate(leader):
        if i not in fixed and first in parts_of:
            fixed[i] = max(PARTS, key=lambda part: parts_of[first][part])
            if len(parts_of[first]) > 1:
                torn.append(draft.pictures[i])
    if not torn:
        return fixed, []
    return fixed, [
        f"{count_of(len(torn), 'new picture')} belong with old ones that stand on several sides, such as "
        f"{some(torn)}: what leaks there already stays; split anew to mend it"
    ]


def _shortfalls(
    table: Mapping[str, Sequence[int]], sizes: Mapping[str, int], asked: Mapping[str, int], grown: bool
) -> list[str]:
    """Say where the parts differ from what was asked; raise where a class is missing from one."""
    notes = []
    for part, counts in table.items():
        missing = [label for label, n in zip(sizes, counts, strict=True) if not n]
        if missing:
            what = f"class {missing[0]!r}" if missing[0] else "every picture"
            message = (
                f"{what} is missing from {part}: its {count_of(sizes[missing[0]], 'picture')} cannot be "
                "divided among the parts, since groups and duplicates stay together"
            )
            if not grown:
                raise SplitError(
                    f"{message}; expected at least one group for each part: make the groups smaller, or ask "
                    "for fewer parts"
                )
            notes.append(message)
    whole = sum(sizes.values())
    for part, total in asked.items():
        if sum(table[part]) != total:
            notes.append(f"{part} has {count_of(sum(table[part]), 'picture')} where {total:,} were asked for")
        if not grown and len(sizes) > 1:  # of one class, the total says it
            notes += off_share(part, table[part], {label: n * total / whole for label, n in sizes.items()})
    reason = "what was placed before stays" if grown else "groups and duplicates cannot be divided"
    return [f"{'; '.join(notes)}: {reason}"] if notes else []


def off_share(part: str, counts: Sequence[int], shares: Mapping[str, float]) -> list[str]:
    """Name the classes of which a part has more than one file too many or too few.

    Parameters
    ----------
    part : str
        Its name.
    counts : sequence of int
        How many it has of each class.
    shares : mapping of str to float
        How many it should have, by the classes' names.

    Returns
    -------
    list of str
    """
    return [
        f"{part} has {count} of {label!r} where its share is {share:.1f}"
        for (label, share), count in zip(shares.items(), counts, strict=True)
        if abs(count - share) > 1 + 1e-9
    ]


def warn_of(notes: Sequence[str]) -> None:
    """Warn of each note, at the line that called the public function.

    Parameters
    ----------
    notes : sequence of str
        What could not be done as asked.
    """
    for note in notes:
        warn(note)
