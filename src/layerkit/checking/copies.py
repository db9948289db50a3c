"""Pictures that are there more than once: on two sides, under two labels, or twice on one side."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from layerkit.checking.layout import Layout, Place
from layerkit.checking.report import Finding, finding
from layerkit.splitting.assignment import join
from layerkit.splitting.duplicates import find_duplicates
from layerkit.splitting.near import near_pairs, perceptual_hashes
from layerkit.splitting.progress import Progress


def check_copies(layout: Layout, broken: Iterable[str], *, near: bool, progress: bool) -> Iterator[Finding]:
    """Compare the bytes of all pictures and, if asked for, their looks."""
    left_out = set(broken)
    paths = [path for path in layout.pictures if path not in left_out] if left_out else layout.pictures
    sizes = [layout.listing.sizes[path] for path in paths]
    with Progress("comparing bytes", shown=progress) as step:
        digests = find_duplicates(paths, sizes, layout.locate, progress=step)
    equal: dict[str, list[str]] = {}
    for i, digest in digests.items():
        equal.setdefault(digest.hash, []).append(paths[i])
    for copies in equal.values():
        yield from _equal_bytes(_in_order(copies, layout))
    if near:
        hashes = {paths[i]: digest.hash for i, digest in digests.items()}
        for alike in _alike(paths, layout, progress):
            yield from _equal_looks(_in_order(alike, layout), hashes)


def _in_order(paths: Sequence[str], layout: Layout) -> list[tuple[str, Place]]:
    """Set the one first that is rather to be kept: in training, and the first by name."""
    parts = layout.parts
    placed = [(path, place) for path in paths if (place := layout.place(path))]
    return sorted(placed, key=lambda item: (parts.index(item[1].part) if parts else 0, item[0]))


def _equal_bytes(copies: Sequence[tuple[str, Place]]) -> Iterator[Finding]:
    (first, kept), *others = copies
    for path, place in others:
        same = f"the same as {first!r}"
        if place.part != kept.part:
            yield finding("leak", path, same)
        if place.label != kept.label:
            yield finding("two_labels", path, same)
        if place == kept:
            yield finding("duplicate", path, same)


def _alike(paths: Sequence[str], layout: Layout, progress: bool) -> Iterator[list[str]]:
    with Progress("comparing looks", len(paths), shown=progress) as step:
        pairs = near_pairs(perceptual_hashes(paths, layout.locate, step))
    alike: dict[int, list[str]] = {}
    for i, leader in enumerate(join(paths, [[i, j] for i, j, _ in pairs])):
        alike.setdefault(leader, []).append(paths[i])
    yield from alike.values()


def _equal_looks(alike: Sequence[tuple[str, Place]], hashes: Mapping[str, str]) -> Iterator[Finding]:
    (first, kept), *others = alike
    for path, place in others:
        has_equal_bytes = path in hashes and hashes[path] == hashes.get(first)
        if not has_equal_bytes:
            kind = "near_duplicate" if place.part == kept.part else "near_leak"
            yield finding(kind, path, f"looks like {first!r}")
