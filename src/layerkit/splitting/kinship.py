"""Which pictures must stay together: a group's, and those that show the same."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from layerkit.errors import SplitError, count_of
from layerkit.splitting.duplicates import Digest, find_duplicates
from layerkit.splitting.near import near_pairs, perceptual_hashes
from layerkit.splitting.progress import Progress
from layerkit.splitting.request import Request
from layerkit.splitting.table import NearPair, SplitRow, some


class Draft(NamedTuple):
    """The pictures of a split to be, sorted by path, and what is known of each.

    `sizes` are in bytes, where contents matter; `old` holds the rows of those that an earlier split placed;
    `locate` turns a path into one to open.
    """

    pictures: Sequence[str]
    sizes: Mapping[str, int]
    labels: Sequence[str]
    groups: Sequence[str | None]
    old: Sequence[SplitRow | None]
    locate: Callable[[str], str]


class Kin(NamedTuple):
    """What must stay together, by index, and what was learned of each picture's contents."""

    clusters: list[list[int]]
    hashes: list[str | None]
    stamps: dict[str, tuple[int, int]]
    near: tuple[NearPair, ...]
    notes: list[str]


def find_kin(
    draft: Draft, request: Request, stamps: Mapping[str, tuple[int, int]], *, progress: bool = False
) -> Kin:
    """Find which pictures must stay together.

    Parameters
    ----------
    draft : Draft
        The pictures.
    request : Request
        What is asked for.
    stamps : mapping of str to (int, int)
        Size and time, at an earlier reading, of the files whose old row holds a hash.
    progress : bool, default False
        Show a bar while contents are read.

    Returns
    -------
    Kin

    Raises
    ------
    SplitError
        With ``duplicates="strict"``, if the same bytes have two labels.
    PictureError
        If a file cannot be read.
    """
    clusters = _members(draft.groups)
    hashes = [row and row.hash for row in draft.old]
    stamps = {row.path: stamps[row.path] for row in draft.old if row and row.path in stamps}
    near: list[NearPair] = []
    notes: list[str] = []
    if request.duplicates != "ignore":
        with Progress("reading", shown=progress) as step:
            digests = _digests(draft, stamps, step)
        for i, digest in digests.items():
            hashes[i] = digest.hash
            stamps[draft.pictures[i]] = digest[1:]
        equal = _members(hashes)
        clusters += equal
        notes += _two_labels(draft, equal, request)
    if request.duplicates == "near":
        pairs, unread = _near(draft, progress)
        clusters += [[i, j] for i, j, _ in pairs]
        near = [NearPair(draft.pictures[i], draft.pictures[j], bits) for i, j, bits in pairs]
        notes += unread
    return Kin(clusters, hashes, stamps, tuple(near), notes)


def _members(names: Sequence[str | None]) -> list[list[int]]:
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name is not None:
            members.setdefault(name, []).append(i)
    return [cluster for cluster in members.values() if len(cluster) > 1]


def _digests(draft: Draft, stamps: Mapping[str, tuple[int, int]], step: Progress) -> dict[int, Digest]:
    settled = {i for i, row in enumerate(draft.old) if row}
    known = {
        row.path: Digest(row.hash, *stamps[row.path])
        for row in draft.old
        if row and row.hash and row.path in stamps
    }
    sizes = [draft.sizes[path] for path in draft.pictures]
    return find_duplicates(draft.pictures, sizes, draft.locate, settled=settled, known=known, progress=step)


def _two_labels(draft: Draft, equal: Sequence[Sequence[int]], request: Request) -> list[str]:
    mixed = [
        cluster
        for cluster in equal
        if len({draft.labels[i] for i in cluster}) > 1 and not all(draft.old[i] for i in cluster)
    ]
    if not mixed:
        return []
    first, second = next(p for p in combinations(mixed[0], 2) if draft.labels[p[0]] != draft.labels[p[1]])
    message = (
        f"{count_of(len(mixed), 'picture')} stand under more than one label with the same bytes, such as "
        f"{draft.pictures[first]!r} and {draft.pictures[second]!r}"
    )
    if request.duplicates == "strict":
        raise SplitError(f'{message}; duplicates="strict" expects one label for each: remove the wrong ones')
    return [f"{message}: each is kept on one side; remove the wrong ones (Split.conflicts() lists all)"]


def _near(draft: Draft, progress: bool) -> tuple[list[tuple[int, int, int]], list[str]]:
    with Progress("comparing", len(draft.pictures), shown=progress) as step:
        looks = perceptual_hashes(draft.pictures, draft.locate, step)
    unread = [path for i, path in enumerate(draft.pictures) if i not in looks]
    if not unread:
        return near_pairs(looks), []
    return near_pairs(looks), [
        f"{count_of(len(unread), 'picture')} cannot be decoded and were compared by their bytes alone: "
        f"{some(unread)}; check_folder says what is wrong with each"
    ]
