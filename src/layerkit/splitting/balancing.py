"""What units of several files leave undone is mended by moving and exchanging them."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

Shape = tuple[tuple[int, int], ...]  # (class, number of files) of a unit, sorted by class
Unit = tuple[int, Shape]  # its first file, and its shape
Score = tuple[int, int, int]

_MOST_CHANGES = 500
_MOST_TRIED = 40
_MOST_STATES = 50_000


class Goal(NamedTuple):
    """What is wanted of each part.

    `quotas` says how many files of each class each part should have; `asked` how many files of any class,
    or None for a part that takes what remains. No class should be missing from a part.
    """

    quotas: list[list[int]]
    asked: list[int | None]

    def score(self, part: int, counts: Sequence[int], sizes: Sequence[int]) -> Score:
        """Say how far a part is from what is wanted, in this order of weight.

        Missing classes, files too many or too few, and the squared differences from the classes' shares,
        in integers so that every machine agrees.
        """
        missing = sum(not n for n in counts)
        total = self.asked[part]
        if total is None:
            return missing, 0, 0
        whole = sum(sizes)
        uneven = sum((n * whole - size * total) ** 2 for n, size in zip(counts, sizes, strict=True))
        return missing, abs(sum(counts) - total), uneven


def balance(units: Sequence[Unit], part_of: list[int], goal: Goal, room: list[list[int]]) -> None:
    """Change `part_of` in place until the parts are as near to the goal as units can be brought.

    Parameters
    ----------
    units : sequence of (int, Shape)
        The units that may move, in random order.
    part_of : list of int
        The part of each unit's first file.
    goal : Goal
        What is wanted.
    room : list of lists of int
        For each part and class, how many files its quota still wants; negative where it has too many.

    Notes
    -----
    To meet such goals exactly is a form of the subset-sum problem, for which no fast method is known. Single
    moves and exchanges, the best first, settle nearly all real cases. Where they stop short and the units
    are few, all ways of distributing them are gone through. Units of one shape are interchangeable: only
    shapes are compared.
    """
    search = _Search(units, part_of, goal, room)
    while search.changes < _MOST_CHANGES and not search.is_done() and search.improve():
        pass
    if not search.is_done():
        search.try_everything(units)
    for part, shapes in enumerate(search.held):
        for firsts in shapes.values():
            for first in firsts:
                part_of[first] = part


class _Search:
    def __init__(
        self, units: Sequence[Unit], part_of: Sequence[int], goal: Goal, room: Sequence[Sequence[int]]
    ) -> None:
        self.goal = goal
        self.counts = [
            [q - r for q, r in zip(*pair, strict=True)] for pair in zip(goal.quotas, room, strict=True)
        ]
        self.sizes = [sum(column) for column in zip(*self.counts, strict=True)]
        self.held: list[dict[Shape, list[int]]] = [{} for _ in goal.quotas]
        for first, shape in units:
            self.held[part_of[first]].setdefault(shape, []).append(first)
        self.changes = 0

    def is_done(self) -> bool:
        """Tell whether totals are met, no class is missing, and each is within one file of its share."""
        whole = sum(self.sizes)
        for part, counts in enumerate(self.counts):
            total = self.goal.asked[part]
            if self.goal.score(part, counts, self.sizes)[:2] != (0, 0):
                return False
            if total is not None:
                pairs = zip(counts, self.sizes, strict=True)
                if any(abs(n * whole - size * total) > whole for n, size in pairs):
                    return False
        return True

    def improve(self) -> bool:
        """Make the best move or exchange; return False if none improves."""
        best: tuple[Score, int, int, Shape, Shape] | None = None
        for p, q in itertools.combinations(range(len(self.counts)), 2):
            before = self._score(p, q, (), ())
            there, back = self._promising(p, q), self._promising(q, p)
            for s, t in itertools.product([*there, ()], [*back, ()]):
                gain = _minus(self._score(p, q, s, t), before)
                if gain < (0, 0, 0) and (best is None or gain < best[0]):
                    best = gain, p, q, s, t
        if best is None:
            return False
        _, p, q, s, t = best
        self._carry(p, q, s)
        self._carry(q, p, t)
        self.changes += 1
        return True

    def try_everything(self, units: Sequence[Unit]) -> None:
        """Find the best of all distributions, unless they are too many."""
        free = [list(counts) for counts in self.counts]
        for part, shapes in enumerate(self.held):
            for shape, firsts in shapes.items():
                for c, n in shape:
                    free[part][c] -= n * len(firsts)
        start = tuple(map(tuple, free))
        layers: list[dict[tuple[tuple[int, ...], ...], tuple[tuple[tuple[int, ...], ...], int]]] = []
        states: Sequence[tuple[tuple[int, ...], ...]] = [start]
        for _, shape in units:
            layer: dict[tuple[tuple[int, ...], ...], tuple[tuple[tuple[int, ...], ...], int]] = {}
            for state in states:
                for part in range(len(free)):
                    layer.setdefault(_with(state, part, shape), (state, part))
            layers.append(layer)
            states = list(layer)
            if sum(map(len, layers)) > _MOST_STATES:
                return
        state = min(states, key=self._score_of_all)
        if self._score_of_all(state) >= self._score_of_all(self.counts):
            return
        self.held = [{} for _ in free]
        for (first, shape), layer in zip(reversed(units), reversed(layers), strict=True):
            state, part = layer[state]
            self.held[part].setdefault(shape, []).append(first)

    def _promising(self, p: int, q: int) -> list[Shape]:
        """Return the shapes that part p would best give to part q."""
        shapes = self.held[p]
        return sorted(shapes, key=lambda s: (self._score(p, q, s, ()), s))[:_MOST_TRIED]

    def _score(self, p: int, q: int, s: Shape, t: Shape) -> Score:
        """Score two parts as if p gave s to q and got t for it."""
        here, there = list(self.counts[p]), list(self.counts[q])
        for shape, sign in ((s, -1), (t, 1)):
            for c, n in shape:
                here[c] += sign * n
                there[c] -= sign * n
        return _plus(self.goal.score(p, here, self.sizes), self.goal.score(q, there, self.sizes))

    def _score_of_all(self, counts: Sequence[Sequence[int]]) -> Score:
        scores = (self.goal.score(part, row, self.sizes) for part, row in enumerate(counts))
        missing, off, uneven = zip(*scores, strict=True)
        return sum(missing), sum(off), sum(uneven)

    def _carry(self, p: int, q: int, shape: Shape) -> None:
        if not shape:
            return
        firsts = self.held[p][shape]
        self.held[q].setdefault(shape, []).append(firsts.pop())
        if not firsts:
            del self.held[p][shape]
        for c, n in shape:
            self.counts[p][c] -= n
            self.counts[q][c] += n


def _with(state: tuple[tuple[int, ...], ...], part: int, shape: Shape) -> tuple[tuple[int, ...], ...]:
    counts = list(state[part])
    for c, n in shape:
        counts[c] += n
    return (*state[:part], tuple(counts), *state[part + 1 :])


def _plus(a: Score, b: Score) -> Score:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _minus(a: Score, b: Score) -> Score:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]
