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


def apportion(weights: Sequence[int], total: int, lower: Sequence[int], upper: Sequence[int]) -> list[int]:
    """Divide `total` among classes as nearly in proportion to `weights` as whole numbers and bounds allow.

    Parameters
    ----------
    weights : sequence of int
        The size of each class.
    total : int
        What is divided; not less than the sum of `lower`, not more than that of `upper`.
    lower, upper : sequence of int
        The least and the most that each class may get.

    Returns
    -------
    list of int
        What each class gets.

    Notes
    -----
    This is the largest-remainder method, with bounds: from the shares rounded down, one file at a time is
    given to the class furthest below its share (or taken from the one furthest above it), which minimises
    the sum of squared differences. Where no bound interferes, each class ends within one file of its share.
    Shares are compared as integers (multiplied by the sum of weights), so that every machine agrees.
    """
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
    _refuse_small_classes(sizes, [*asked, "train"])
    weights = list(sizes.values())
    totals = [total_of(amount, sum(weights)) for amount in asked.values()]
    if placed:
        held = [[placed.get(part, {}).get(label, 0) for label in sizes] for part in (*asked, "train")]
        quotas = _top_up(weights, totals, held)
    elif can_be_divided(weights, totals):
        quotas = divide(weights, totals)
    else:
        raise SplitError(_contradiction(asked, weights, totals))
    train = [size - sum(held_out) for size, *held_out in zip(weights, *quotas, strict=True)]
    return dict(zip((*asked, "train"), (*quotas, train), strict=True))


def _top_up(weights: list[int], totals: list[int], held: list[list[int]]) -> list[list[int]]:
    """Add to what each part holds already, the last one being train; come as near to the totals as that allows."""
    quotas = [row[:] for row in held]
    for part, wanted in enumerate(totals):
        others = quotas[:part] + quotas[part + 1 :]
        reserved = [sum(max(1, n) for n in column) for column in zip(*others, strict=True)]
        free = [size - kept for size, kept in zip(weights, reserved, strict=True)]
        lower = [min(max(1, n), max(n, up)) for n, up in zip(quotas[part], free, strict=True)]
        upper = [max(low, up) for low, up in zip(lower, free, strict=True)]
        total = min(max(wanted, sum(lower)), sum(upper))
        quotas[part] = apportion(weights, total, lower, upper)
    return quotas[:-1]


def can_be_divided(weights: Sequence[int], totals: Sequence[int]) -> bool:
    """Tell whether each part can have its total, with every class within one file of its share, and on every side.

    Parameters
    ----------
    weights : sequence of int
        The size of each class.
    totals : sequence of int
        The total of each held-out part, of which there are at most two.

    Returns
    -------
    bool

    Notes
    -----
    Within a class, what two parts may have is a box with one corner cut off, where they would leave train nothing.
    Such sets are integral generalized polymatroids, whose sum is found bound by bound (Frank 2011, Connections in
    Combinatorial Optimization, chapter 14): three comparisons decide for all classes.
    """
    least, most = _bounds(weights, totals)
    for total, lows, ups in zip(totals, least, most, strict=True):
        if not sum(lows) <= total <= sum(ups) or any(low > up for low, up in zip(lows, ups, strict=True)):
            return False
    together: int = sum(min(size - 1, sum(ups)) for size, *ups in zip(weights, *most, strict=True))
    return sum(totals) <= together


def _bounds(weights: Sequence[int], totals: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Say, by part and class, how few and how many files are within one of the share and leave the others some."""
    whole = sum(weights)
    shares = [[weight * total for weight in weights] for total in totals]
    least = [[max(1, -(-share // whole) - 1) for share in row] for row in shares]
    free = [size - 1 - sum(lows) for size, *lows in zip(weights, *least, strict=True)]
    most = [
        [min(share // whole + 1, low + more) for share, low, more in zip(row, lows, free, strict=True)]
        for row, lows in zip(shares, least, strict=True)
    ]
    return least, most


def divide(weights: Sequence[int], totals: Sequence[int]) -> list[list[int]]:
    """Give each part its total, where `can_be_divided` says that it is possible.

    Parameters
    ----------
    weights, totals : sequence of int
        As in `can_be_divided`.

    Returns
    -------
    list of lists of int
        By part and class. Each part has the division nearest to the shares, unless two parts together would leave
        train nothing of some class: then a part exchanges a file of it for one of a class that has more.
    """
    least, most = _bounds(weights, totals)
    quotas = [
        apportion(weights, total, lows, ups) for total, lows, ups in zip(totals, least, most, strict=True)
    ]
    left = [size - 1 - sum(column) for size, *column in zip(weights, *quotas, strict=True)]
    for c in range(len(weights)):
        while left[c] < 0:
            path = _exchanges(c, quotas, least, most, left)
            for part, taken, given in path:
                quotas[part][taken] -= 1
                quotas[part][given] += 1
            left[c] += 1
            left[path[-1][2]] -= 1
    return quotas


def _exchanges(
    start: int, quotas: list[list[int]], least: list[list[int]], most: list[list[int]], left: list[int]
) -> list[tuple[int, int, int]]:
    """Find the fewest exchanges (part, class less one, class more one) from a class to one that has a file left.

    They are an augmenting path, searched breadth first (Edmonds and Karp 1972).
    """
    came: dict[int, tuple[int, int, int]] = {}
    queue = [start]
    for taken in queue:  # which grows
        for part, quota in enumerate(quotas):
            if quota[taken] == least[part][taken]:
                continue
            for given in range(len(left)):
                if given == start or given in came or quota[given] == most[part][given]:
                    continue
                came[given] = part, taken, given
                if left[given] > 0:
                    path = [came[given]]
                    while path[0][1] != start:
                        path.insert(0, came[path[0][1]])
                    return path
                queue.append(given)
    raise AssertionError("no division was found where there is one")


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


def _contradiction(asked: Mapping[str, float], weights: list[int], totals: list[int]) -> str:
    whole = sum(weights)
    better = _nearest_divisible(weights, totals)
    changed = [
        f"{part}={count}" for part, count, total in zip(asked, better, totals, strict=False) if count != total
    ]
    what = " and ".join(
        f"`{part}` is {amount!r}, {count_of(total, 'picture')} of {whole}"
        for (part, amount), total in zip(asked.items(), totals, strict=True)
        if not can_be_divided(weights, [total])
    )
    if not what:
        what = " and ".join(f"`{part}` is {amount!r}" for part, amount in asked.items())
        what += f", together {count_of(sum(totals), 'picture')} of {whole}"
    remedy = (
        f"{', '.join(changed)} would do"
        if len(better) == len(totals)
        else "no count near it would do: ask for less, here or in the other part"
    )
    return (
        f"{what}, which cannot be divided among {len(weights)} classes; expected at least one picture of each "
        f"class on every side, and each class within one picture of its share: {remedy}, or pass stratify=False"
    )


def _nearest_divisible(weights: list[int], totals: list[int]) -> list[int]:
    """Find totals that can be divided, part by part, larger ones before smaller ones; stop where there is none near.

    In a large folder a count that is far away is not worth a long search.
    """
    better: list[int] = []
    most_tried = max(1, _MOST_WORK // len(weights))
    for total in totals:
        # Train, and each part that comes after, has one of each class at the least.
        most = sum(weights) - len(weights) * (len(totals) - len(better))
        start = min(max(total, len(weights)), most)
        above = range(start, most + 1)[:most_tried]
        below = range(start - 1, 0, -1)[:most_tried]
        counts = itertools.chain(above, below)
        found = next((count for count in counts if can_be_divided(weights, [*better, count])), None)
        if found is None:
            break
        better.append(found)
    return better


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
