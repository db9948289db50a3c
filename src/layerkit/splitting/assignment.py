"""Who goes where: units of files onto parts, in random order."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from layerkit.splitting.balancing import Goal, Shape, balance


def shuffled(names: Sequence[str], seed: int) -> list[int]:
    """Order names at random, so that each one's place depends on the seed and on that name alone.

    Parameters
    ----------
    names : sequence of str
        The names.
    seed : int
        The seed.

    Returns
    -------
    list of int
        Indices into `names`.

    Notes
    -----
    The order is that of a keyed BLAKE2b hash (RFC 7693): the same on every system and Python version, and
    undisturbed by names that come later, where a shuffle by a generator would change altogether.
    """
    keyed = hashlib.blake2b(key=str(seed).encode()[:64], digest_size=8)

    def draw(name: str) -> bytes:
        one = keyed.copy()
        # Some systems decompose accents in file names: é must draw the same number everywhere.
        text = name if name.isascii() else unicodedata.normalize("NFC", name)
        one.update(text.encode("utf-8", "surrogatepass"))
        return one.digest()

    draws = list(map(draw, names))
    return sorted(range(len(names)), key=draws.__getitem__)


def join(names: Sequence[str], clusters: Iterable[Sequence[int]]) -> list[int]:
    """Join files into units that stay together.

    Parameters
    ----------
    names : sequence of str
        The files' names, sorted.
    clusters : iterable of sequences of int
        Files that belong together; clusters that share a file become one.

    Returns
    -------
    list of int
        For each file the first file of its unit.
    """
    leader = list(range(len(names)))
    rank = leader[:]
    if not all(map(str.isascii, names)):  # é sorts elsewhere on a system that decomposes it
        composed = [unicodedata.normalize("NFC", name) for name in names]
        for place, i in enumerate(sorted(leader, key=composed.__getitem__)):
            rank[i] = place

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for cluster in clusters:
        first = find(cluster[0])
        for other in cluster[1:]:
            second = find(other)
            if rank[second] < rank[first]:
                first, second = second, first
            leader[second] = first
    return [find(i) for i in range(len(names))]


def assign(
    order: Sequence[int],
    classes: Sequence[int],
    leader: Sequence[int],
    goal: Goal,
    fixed: Mapping[int, int],
) -> list[int]:
    """Put each unit into the first part that has room for all of it.

    Parameters
    ----------
    order : sequence of int
        All files, in random order; a unit's turn comes with its first file.
    classes : sequence of int
        The class of each file.
    leader : sequence of int
        The first file of each file's unit, as `join` returns it.
    goal : Goal
        How many files of each class each part should have.
    fixed : mapping of int to int
        The part of each file of the units whose part is settled.

    Returns
    -------
    list of int
        The part of each file.

    Notes
    -----
    Where every unit is one file, the quotas are met exactly. Units of several files take their turn among
    the others, not before them, so that no part is made of groups more than the rest. What they leave
    undone, `balance` mends by moving and exchanging units.
    """
    room = [list(quota) for quota in goal.quotas]
    part_of = [-1] * len(classes)
    for i, part in fixed.items():
        part_of[i] = part
        room[part][classes[i]] -= 1
    single = [((c, 1),) for c in range(len(goal.quotas[0]))]
    shapes = _shapes_of_several(classes, leader)
    for i in order:
        if leader[i] == i and part_of[i] < 0:
            part_of[i] = _first_fit(shapes.get(i) or single[classes[i]], room)
    if shapes and any(map(any, room)):
        units = [(i, shapes.get(i) or single[classes[i]]) for i in order if leader[i] == i and i not in fixed]
        balance(units, part_of, goal, room)
    if shapes:
        for i, first in enumerate(leader):
            if i not in fixed:
                part_of[i] = part_of[first]
    return part_of


def _first_fit(shape: Shape, room: list[list[int]]) -> int:
    """Take room for a unit in the first part that has it, or else in the one where least is wanting."""
    if len(shape) == 1:  # nearly all units are of one class, and this is their way
        ((c, n),) = shape
        for part, free in enumerate(room):
            if free[c] >= n:
                free[c] -= n
                return part
    wanting = [sum(max(0, n - free[c]) for c, n in shape) for free in room]
    part = wanting.index(min(wanting))
    for c, n in shape:
        room[part][c] -= n
    return part


def _shapes_of_several(classes: Sequence[int], leader: Sequence[int]) -> dict[int, Shape]:
    """Count the files of each class in each unit of several files, by the unit's first file."""
    members: dict[int, Counter[int]] = {}
    for i, first in enumerate(leader):
        if first != i:
            members.setdefault(first, Counter({classes[first]: 1}))[classes[i]] += 1
    return {first: tuple(sorted(counter.items())) for first, counter in members.items()}
