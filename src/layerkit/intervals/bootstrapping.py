"""Resampling: the same figures from samples drawn again and again, all at once."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from layerkit.intervals.estimates import Interval

Resampled = Callable[[Tensor], Tensor]
"""From counts (R, N), float32, how often each resample holds each sample, to the figure of each (R,)."""

_RESAMPLES = 1000
_FEWEST = 200
_MOST_NUMBERS = 20_000_000
"""Of very many samples fewer resamples are drawn: their intervals are narrow, and need no third digit."""
_NUMBERS_AT_ONCE = 200_000
"""How many counts are held at once, about as many as a core has room for; further resamples are drawn in turns."""
_ROUNDING = 1e-6
_LOW, _HIGH = 0.025, 0.975
_Z = 1.959964  # the standard normal's 97.5% quantile


def bootstrap(
    figures: Mapping[str, Resampled], samples: int, width: int = 1, *, most: int = _RESAMPLES
) -> dict[str, Interval]:
    """Give the percentiles of figures over resamples of `samples` samples, the same ones for each.

    Parameters
    ----------
    figures : dict of str to callable
        What to compute on the counts of each resample.
    samples : int
        How many samples there are.
    width : int
        How many columns the dearest figure goes through.
    most : int
        How many resamples at most.

    Returns
    -------
    dict of str to (float, float)
        Resamples in which a figure is NaN, such as an AUROC without negatives, are left out, and so is a
        figure that no resample changes: of all right answers every resample is all right, which says nothing
        of how many wrong ones other samples would have.
    """
    resamples = min(most, max(_FEWEST, _MOST_NUMBERS // (samples * width)))
    at_once = max(1, _NUMBERS_AT_ONCE // samples)
    generator = np.random.default_rng(0)
    values: dict[str, list[Tensor]] = {name: [] for name in figures}
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(samples, size=(rows, samples), dtype=np.int32)
        counts = np.stack([np.bincount(row, minlength=samples) for row in drawn])
        for name, figure in figures.items():
            values[name].append(figure(torch.from_numpy(counts).float()))
    intervals = {name: _percentiles(torch.cat(parts)) for name, parts in values.items()}
    return {
        name: (low, high) for name, (low, high) in intervals.items() if high - low > _ROUNDING * abs(high)
    }


def wilson(successes: int, samples: int) -> Interval:
    """Give the interval of a share of successes."""
    share, spread = successes / samples, _Z**2 / samples
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low = 0.0 if successes == 0 else middle - half
    return low, 1.0 if successes == samples else middle + half


def _percentiles(values: Tensor) -> Interval:
    low, high = values.double().nanquantile(torch.tensor([_LOW, _HIGH], dtype=torch.float64)).tolist()
    return low, high
