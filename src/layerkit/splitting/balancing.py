"""What units of several files leave undone is mended by moving and exchanging them."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from layerkit.splitting.enumerating import best_of_all_ways

Shape = tuple[tuple[int, int], ...]  # (class, number of files) of a unit, sorted by class
Unit = tuple[int, Shape]  # its first file, and its shape
Score = tuple[int, int, int]

_MOST_CHANGES = 2_000
_MOST_TRIED = 40
_MOST_PARTS = 3
_MOST_ORDERS = 32
_MOST_BITS = 100_000_000
"""Of a table of reachable sums, which takes 12 MB then."""


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
    To meet such goals exactly is a form of the subset-sum problem. Where all units of a class are of that class
    alone, it is solved for each class by a table of the sums that can be reached (dynamic programming; Martello
    and Toth 1990, Knapsack Problems, chapter 4). Units of several classes couple these problems, for which no fast
    method is known: single moves and exchanges, the best first, settle nearly all cases of many units. Where they
    stop short, the units are dealt anew (`best_of_all_ways`). Units of one shape are interchangeable: only shapes
    are compared.
    """
    _fill_exactly(units, part_of, room)
    search = _Search(units, part_of, goal, room)
    search.improve()
    if not search.is_done():
        search.deal_anew(units)
        search.improve()
    for part, shapes in enumerate(search.held):
        for firsts in shapes.values():
            for first in firsts:
                part_of[first] = part


def _fill_exactly(units: Sequence[Unit], part_of: list[int], room: list[list[int]]) -> None:
    """Meet the quotas of each class whose units are its own, or come within one file, where some choice does."""
    mixed = {c for _, shape in units if len(shape) > 1 for c, _ in shape}
    own: dict[int, list[tuple[int, int]]] = {}
    for first, shape in units:
        if len(shape) == 1 and shape[0][0] not in mixed:
            own.setdefault(shape[0][0], []).append((first, shape[0][1]))
    for c, members in own.items():
        wanted = [free[c] for free in room]
        if not any(wanted):
            continue
        for first, n in members:
            wanted[part_of[first]] += n
        dealt = _deal([n for _, n in members], wanted)
        if dealt is not None:
            for (first, n), part in zip(members, dealt, strict=True):
                part_of[first] = part
                wanted[part] -= n
            for free, rest in zip(room, wanted, strict=True):
                free[c] = rest


def _deal(sizes: Sequence[int], wanted: Sequence[int]) -> list[int] | None:
    """Deal units to parts so that their sizes sum to what each wants, or one more or less; None if that fails.

    One part after the other takes what it wants; the last takes what is left. What the first takes may be what
    the next one needs, so that some other orders are tried.
    """
    given = list(range(len(sizes)))
    turns = range(0, len(sizes), -(-len(sizes) // _MOST_ORDERS))
    orders = [given[turn:] + given[:turn] for turn in turns]
    around = (0, 1, -1) if len(wanted) <= _MOST_PARTS else (0,)
    steps = [step for step in itertools.product(around, repeat=len(wanted) - 1) if abs(sum(step)) <= 1]
    for step in sorted(steps, key=lambda step: sum(map(abs, step))):
        totals = [w + s for w, s in zip(wanted, (*step, 0), strict=True)]
        # What the first part wants can be reached in every order or in none.
        possible = [turn for turn in (1, -1) if _subset(sizes, totals[:-1][::turn][0]) is not None]
        for order, direction in itertools.product(orders, possible):
            dealt = _deal_in_turn(sizes, totals, order, direction)
            if dealt is not None:
                return dealt
    return None


def _deal_in_turn(
    sizes: Sequence[int], wanted: Sequence[int], order: Sequence[int], direction: int
) -> list[int] | None:
    dealt = [len(wanted) - 1] * len(sizes)
    left = list(order)
    for part in range(len(wanted) - 1)[::direction]:
        taken = _subset([sizes[i] for i in left], wanted[part])
        if taken is None:
            return None
        for place in taken:
            dealt[left[place]] = part
        left = [i for place, i in enumerate(left) if place not in taken]
    return dealt


def _subset(sizes: Sequence[int], total: int) -> set[int] | None:
    """Find some of the sizes that sum to a total."""
    if total < 0 or len(sizes) * total > _MOST_BITS:
        return None
    kept = (1 << (total + 1)) - 1
    reachable = [1]  # a bit for each sum that the sizes up to here can make
    for size in sizes:
        reachable.append((reachable[-1] | reachable[-1] << size) & kept)
    if not reachable[-1] >> total & 1:
        return None
    taken = set()
    for place in reversed(range(len(sizes))):
        if not reachable[place] >> total & 1:
            taken.add(place)
            total -= sizes[place]
    return taken


class _Search:
    def __init__(
        self, units: Sequence[Unit], part_of: Sequence[int], goal: Goal, room: Sequence[Sequence[int]]
    ) -> None:
        self.goal = goal
        self.counts = [
            [q - r for q, r in zip(*pair, strict=True)] for pair in zip(goal.quotas, room, strict=True)
        ]
        self.sizes = [sum(column) for column in zip(*self.counts, strict=True)]
        self.totals = [sum(counts) for counts in self.counts]
        self.whole = sum(self.sizes)
        self.held: list[dict[Shape, list[int]]] = [{} for _ in goal.quotas]
        for first, shape in units:
            self.held[part_of[first]].setdefault(shape, []).append(first)

    def is_done(self) -> bool:
        """Tell whether totals are met, no class is missing, and each is within one file of its share."""
        for part, counts in enumerate(self.counts):
            total = self.goal.asked[part]
            if self.goal.score(part, counts, self.sizes)[:2] != (0, 0):
                return False
            if total is not None:
                pairs = zip(counts, self.sizes, strict=True)
                if any(abs(n * self.whole - size * total) > self.whole for n, size in pairs):
                    return False
        return True

    def improve(self) -> None:
        """Make the best move or exchange, as long as one improves and something is left to be improved."""
        for _ in range(_MOST_CHANGES):
            if self.is_done() or not self._improve_once():
                return

    def _improve_once(self) -> bool:
        best: tuple[Score, int, int, Shape, Shape] | None = None
        for p, q in itertools.combinations(range(len(self.counts)), 2):
            there, back = self._promising(p, q), self._promising(q, p)
            for s, t in itertools.product([*there, ()], [*back, ()]):
                gain = self._gain(p, q, s, t)
                if gain < (0, 0, 0) and (best is None or gain < best[0]):
                    best = gain, p, q, s, t
        if best is None:
            return False
        _, p, q, s, t = best
        self._carry(p, q, s)
        self._carry(q, p, t)
        return True

    def deal_anew(self, units: Sequence[Unit]) -> None:
        """Take the best of all ways of distributing the units, if it is better and they are not too many."""
        settled = [list(counts) for counts in self.counts]
        for part, shapes in enumerate(self.held):
            for shape, firsts in shapes.items():
                for c, n in shape:
                    settled[part][c] -= n * len(firsts)
        part_of = best_of_all_ways([shape for _, shape in units], settled, self.goal.asked)
        if part_of is None:
            return
        counts = settled
        for (_, shape), part in zip(units, part_of, strict=True):
            for c, n in shape:
                counts[part][c] += n
        if self._score_of_all(counts) < self._score_of_all(self.counts):
            self.counts = counts
            self.totals = [sum(row) for row in counts]
            self.held = [{} for _ in counts]
            for (first, shape), part in zip(units, part_of, strict=True):
                self.held[part].setdefault(shape, []).append(first)

    def _promising(self, p: int, q: int) -> list[Shape]:
        """Return the shapes that part p would best give to part q."""
        shapes = self.held[p]
        return sorted(shapes, key=lambda s: (self._gain(p, q, s, ()), s))[:_MOST_TRIED]

    def _gain(self, p: int, q: int, s: Shape, t: Shape) -> Score:
        """Say how the score changes if p gives s to q and gets t for it; only the classes of these are looked at."""
        change: dict[int, int] = {}
        for shape, sign in ((s, -1), (t, 1)):
            for c, n in shape:
                change[c] = change.get(c, 0) + sign * n
        more = sum(change.values())
        missing = off = uneven = 0
        for part, sign in ((p, 1), (q, -1)):
            counts, total = self.counts[part], self.goal.asked[part]
            for c, n in change.items():
                missing += (not counts[c] + sign * n) - (not counts[c])
            if total is not None:
                off += abs(self.totals[part] + sign * more - total) - abs(self.totals[part] - total)
                for c, n in change.items():
                    behind = counts[c] * self.whole - self.sizes[c] * total
                    uneven += (behind + sign * n * self.whole) ** 2 - behind**2
        return missing, off, uneven

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
            self.totals[p] -= n
            self.totals[q] += n
