"""How many pictures of each class each part gets."""

import heapq
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence

from layerkit.errors import SplitError, count_of
from layerkit.splitting.table import PARTS

_MOST_WORK = 300_000
"""Classes times counts that are tried for a message; some seconds."""


def check_amount(name: str, amount: float) -> float:
    """Return a fraction or a count, or raise an error that tells what was meant.

    Parameters
    ----------
    name : {"valid", "test"}
        The argument's name, for the message.
    amount : float or int
        A fraction of the pictures (0 <= fraction < 1) or a whole number of them.

    Returns
    -------
    float or int

    Raises
    ------
    TypeError
        If `amount` is a bool, or no number.
    ValueError
        If it is negative, not finite, or a fraction of 1 or more.
    """
    wrong = f"`{name}` is {amount!r}; expected a fraction between 0 and 1 or a whole number of files. "
    if isinstance(amount, bool) or not isinstance(amount, numbers.Real):
        raise TypeError(wrong + "To hold out 20% of the pictures, pass 0.2; to hold out none, pass 0.")
    if isinstance(amount, numbers.Integral) and amount >= 0:
        return int(amount)
    if not 0 <= amount < 1:
        raise ValueError(wrong + "To hold out 20% of the pictures, pass 0.2.")
    return float(amount)


def total_of(amount: float, count: int) -> int:
    """Turn a fraction or a count into a number of files, halves rounded up.

    Parameters
    ----------
    amount : float or int
        As `check_amount` returns it.
    count : int
        How many files there are.

    Returns
    -------
    int
    """
    return amount if isinstance(amount, int) else math.floor(amount * count + 0.5)


def apportion(
    weights: Sequence[int], total: int, lower: Sequence[int], upper: Sequence[int]
) -> list[int] | None:
    """Divide `total` among classes as nearly in proportion to `weights` as whole numbers and bounds allow.

    Parameters
    ----------
    weights : sequence of int
        The size of each class.
    total : int
        What is divided.
    lower, upper : sequence of int
        The least and the most that each class may get.

    Returns
    -------
    list of int or None
        What each class gets, or None where the bounds do not let the total be met.

    Notes
    -----
    This is the largest-remainder method, with bounds: from the shares rounded down, one file at a time is
    given to the class furthest below its share (or taken from the one furthest above it), which minimises
    the sum of squared differences. Where no bound interferes, each class ends within one file of its share.
    Shares are compared as integers (multiplied by the sum of weights), so that every machine agrees.
    """
    if not sum(lower) <= total <= sum(upper):
        return None
    whole = sum(weights)
    shares = [weight * total for weight in weights]
    given = [min(max(s // whole, low), up) for s, low, up in zip(shares, lower, upper, strict=True)]
    step = 1 if sum(given) < total else -1
    bound = upper if step == 1 else lower
    # Among equals, the larger class gives and takes first: one file is the smaller part of it.
    heap = [
        (step * (given[c] * whole - shares[c]), -weights[c], c)
        for c in range(len(weights))
        if given[c] != bound[c]
    ]
    heapq.heapify(heap)
    for _ in range(abs(total - sum(given))):
        excess, order, c = heapq.heappop(heap)
        given[c] += step
        if given[c] != bound[c]:
            heapq.heappush(heap, (excess + whole, order, c))
    return given


def within_one(given: Sequence[int], weights: Sequence[int], total: int) -> bool:
    """Tell whether each class is within one file of its share of `total`.

    Parameters
    ----------
    given, weights : sequence of int
        What each class got, and its size.
    total : int
        What was divided.

    Returns
    -------
    bool
    """
    whole = sum(weights)
    return all(abs(x * whole - weight * total) <= whole for x, weight in zip(given, weights, strict=True))


def part_quotas(
    sizes: Mapping[str, int], asked: Mapping[str, float], placed: Mapping[str, Mapping[str, int]]
) -> dict[str, list[int]]:
    """Say how many files of each class each part is to have.

    Parameters
    ----------
    sizes : mapping of str to int
        The size of each class, in order.
    asked : mapping of str to float
        The fraction or count of each held-out part.
    placed : mapping of str to mapping of str to int
        For each part, how many files of each class are settled there; empty for a split made afresh.

    Returns
    -------
    dict of str to list of int
        For each held-out part and, last, for train, the number of each class.

    Raises
    ------
    SplitError
        If a class has too few files, or the asked totals leave one without a file on some side, or further
        from its share than one file. Where files are settled, the quotas are then the nearest that can be.
    """
    parts = [*asked, "train"]
    _refuse_small_classes(sizes, parts)
    weights = list(sizes.values())
    quotas = {part: [placed.get(part, {}).get(label, 0) for label in sizes] for part in parts}
    for part, amount in asked.items():
        others = [quotas[other] for other in parts if other != part]
        reserved = [sum(max(1, n) for n in column) for column in zip(*others, strict=True)]
        lower = [max(1, n) for n in quotas[part]]
        upper = [size - kept for size, kept in zip(weights, reserved, strict=True)]
        total = total_of(amount, sum(weights))
        if placed:
            lower = [min(low, max(n, up)) for low, n, up in zip(lower, quotas[part], upper, strict=True)]
            upper = [max(low, up) for low, up in zip(lower, upper, strict=True)]
            total = min(max(total, sum(lower)), sum(upper))
        quota = apportion(weights, total, lower, upper)
        if quota is None or not (placed or within_one(quota, weights, total)):
            raise SplitError(_contradiction(part, amount, total, weights, lower, upper))
        quotas[part] = quota
    quotas["train"] = [size - sum(quotas[part][c] for part in asked) for c, size in enumerate(weights)]
    return quotas


def _refuse_small_classes(sizes: Mapping[str, int], parts: Sequence[str]) -> None:
    small = {label: size for label, size in sizes.items() if size < len(parts)}
    if small:
        label, size = next(iter(small.items()))
        more = f" (and {len(small) - 1} more classes have too few)" if len(small) > 1 else ""
        raise SplitError(
            f"class {label!r} has {count_of(size, 'picture')}{more}; expected at least {len(parts)}, one for "
            f"each of {', '.join(sorted(parts, key=PARTS.index))}: add pictures to it, or take it out of the "
            "folder"
        )


def _contradiction(
    part: str, amount: float, total: int, weights: list[int], lower: list[int], upper: list[int]
) -> str:
    def works(count: int) -> bool:
        quota = apportion(weights, count, lower, upper)
        return quota is not None and within_one(quota, weights, count)

    # Above what was asked if there is one; in a large folder one that is far away is not worth a long search.
    above = range(max(total + 1, sum(lower)), sum(upper) + 1)
    below = range(min(total - 1, sum(upper)), sum(lower) - 1, -1)
    most = max(1, _MOST_WORK // len(weights))
    better = next(filter(works, itertools.chain(above[:most], below[:most])), None)
    remedy = (
        f"{part}={better} would do"
        if better
        else "no count near it would do: ask for less, here or in the other part"
    )
    return (
        f"`{part}` is {amount!r}, {count_of(total, 'picture')} of {sum(weights)}, which cannot be divided "
        f"among {len(weights)} classes; expected at least one picture of each class on every side, and each "
        f"class within one picture of its share: {remedy}, or pass stratify=False"
    )


def fold_quotas(sizes: Sequence[int], k: int) -> list[list[int]]:
    """Say how many files of each class each of k folds is to have.

    Parameters
    ----------
    sizes : sequence of int
        The size of each class.
    k : int
        The number of folds.

    Returns
    -------
    list of lists of int
        By fold and class. Dealing the classes out one after the other like cards, each fold gets its share
        of every class within one file, and of the whole too.
    """
    starts = itertools.accumulate(sizes, initial=0)
    dealt = [[(start + size - fold + k - 1) // k - (start - fold + k - 1) // k for fold in range(k)]
             for start, size in zip(starts, sizes, strict=False)]  # fmt: skip
    return [list(column) for column in zip(*dealt, strict=True)]
