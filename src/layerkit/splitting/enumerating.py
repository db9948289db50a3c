"""All ways of distributing a few units, or the most promising of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_MOST_NUMBERS = 30_000_000
"""Counts that are written down in all; a few seconds."""

_FEWEST_WAYS = 1_000
"""Where not even so many could be kept after each unit, the search would seldom find anything."""


class _Measure(NamedTuple):
    """How far counts by way, part and class are from what is wanted; in whole numbers, the same on every machine."""

    wanted: Integers  # by part; -1 for a part that takes what remains
    sizes: Integers  # by class
    shift: int  # what keeps squares within 64 bits

    def of(self, counts: Integers, rest: Integers) -> tuple[Integers, Integers]:
        """Give lower bounds of how bad each way ends, if the classes of `rest` are still to be distributed.

        The first number is for classes missing and files too many or too few, the second for uneven classes.
        """
        asked = self.wanted >= 0
        missing = ((counts == 0) & (rest == 0)).sum(axis=(1, 2))
        totals = counts.sum(axis=2)[:, asked]
        wanted = self.wanted[asked]
        off = np.maximum(totals - wanted, wanted - rest.sum() - totals).clip(0).sum(axis=1)
        uneven = self.unevenness(counts, self.sizes, rest)
        return missing * (2 * self.sizes.sum() + 1) + off, uneven

    def unevenness(self, counts: Integers, sizes: Integers, rest: Integers) -> Integers:
        """Sum the squared differences from the shares of `sizes`, as far as `rest` cannot make them good."""
        asked = self.wanted >= 0
        whole = self.sizes.sum()
        behind = sizes * self.wanted[asked][:, None] - counts[:, asked] * whole
        differences = np.maximum(-behind, behind - rest * whole).clip(0) >> self.shift
        squares: Integers = (differences**2).sum(axis=(1, 2))
        return squares


def best_of_all_ways(
    shapes: Sequence[Sequence[tuple[int, int]]],
    settled: Sequence[Sequence[int]],
    wanted: Sequence[int | None],
) -> list[int] | None:
    """Distribute units so that no class is missing, totals are met, and classes are even, in this order of weight.

    Parameters
    ----------
    shapes : sequence of sequences of (int, int)
        For each unit, how many files it has of each class: pairs of class and number.
    settled : sequence of sequences of int
        By part and class, the files that are there already.
    wanted : sequence of int or None
        By part, how many files it should have; None for what remains.

    Returns
    -------
    list of int or None
        The part of each unit; None where they are too many.

    Notes
    -----
    The units are dealt one after the other, the largest first. Ways that lead to the same counts are one. While
    there are few of them, all are kept and the result is the best that can be; else those whose counts are nearest
    to the parts' shares of what was dealt (a beam search: Reddy 1977), which is nearly always as good.
    """
    units = np.zeros((len(shapes), len(settled[0])), np.int64)
    for unit, shape in enumerate(shapes):
        for c, n in shape:
            units[unit, c] = n
    counts = np.array([settled], np.int64)
    width = _MOST_NUMBERS // (len(shapes) * counts.size * len(settled) or 1)
    if width < min(_FEWEST_WAYS, len(settled) ** min(len(shapes), 40)):
        return None
    measure = _measure(counts[0], units, wanted)
    hashing = _odd_numbers(counts[0].size)
    rest = units.sum(axis=0)
    dealt: list[tuple[Integers, Integers]] = []  # for each unit, the way that it continued, and its part
    order = np.argsort(-units.sum(axis=1), kind="stable")
    for unit in order:
        rest = rest - units[unit]
        counts, came, part = _deal(counts, units[unit], hashing)
        if len(counts) > width:
            kept = _promising(counts, rest, measure, width)
            counts, came, part = counts[kept], came[kept], part[kept]
        dealt.append((came, part))
    bad, uneven = measure.of(counts, rest)
    way = np.lexsort((uneven, bad))[0]
    parts = [0] * len(shapes)
    for unit, (came, part) in zip(order[::-1], reversed(dealt), strict=True):
        parts[unit] = int(part[way])
        way = came[way]
    return parts


def _measure(settled: Integers, units: Integers, wanted: Sequence[int | None]) -> _Measure:
    sizes = settled.sum(axis=0) + units.sum(axis=0)
    room = (63 - settled.size.bit_length()) // 2
    shift = max(0, 2 * int(sizes.sum()).bit_length() - room)
    return _Measure(np.array([-1 if n is None else n for n in wanted]), sizes, shift)


def _odd_numbers(count: int) -> Integers:
    """Make multipliers whose sums of products tell counts apart: all pairs but one in 2 ** 63."""
    return np.random.RandomState(0).randint(-(2**62), 2**62, count, np.int64) * 2 + 1


def _deal(counts: Integers, unit: Integers, hashing: Integers) -> tuple[Integers, Integers, Integers]:
    """Give the unit to each part in turn; return the different counts, and which way and part led to each."""
    parts = counts.shape[1]
    after = np.repeat(counts[None], parts, axis=0)
    for part in range(parts):
        after[part, :, part] += unit
    after = after.reshape(-1, *counts.shape[1:])
    _, firsts = np.unique(after.reshape(len(after), -1) @ hashing, return_index=True)
    firsts.sort()
    part, came = np.divmod(firsts, len(counts))
    return after[firsts], came, part


def _promising(counts: Integers, rest: Integers, measure: _Measure, width: int) -> Integers:
    bad, _ = measure.of(counts, rest)
    uneven = measure.unevenness(counts, measure.sizes - rest, np.zeros_like(rest))
    return np.sort(np.lexsort((uneven, bad))[:width])
