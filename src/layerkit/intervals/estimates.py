"""A figure that knows its confidence interval."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

from layerkit.errors import rounded

Interval = tuple[float, float]


class Estimate(float):
    """A figure with its 95% confidence interval; a plain float in all else.

    Parameters
    ----------
    value : float
        The figure.
    interval : pair of float, optional
        The lower and the upper end, `low` and `high`; ``None`` where they are not known.

    Examples
    --------
    >>> accuracy = Estimate(0.8, (0.71, 0.87))
    >>> accuracy
    0.8 (0.71 to 0.87)
    >>> accuracy.low, f"{accuracy:.2f}"
    (0.71, '0.80')
    """

    low: float | None
    high: float | None

    def __new__(cls, value: SupportsFloat, interval: Interval | None = None) -> "Estimate":
        """Make the float."""
        made = super().__new__(cls, value)
        made.low, made.high = (None, None) if interval is None else interval
        return made

    def __getnewargs__(self) -> Any:
        return float(self), None if self.low is None else (self.low, self.high)

    def __repr__(self) -> str:
        if self.low is None or self.high is None:
            return rounded(float(self))
        return f"{rounded(float(self))} ({rounded(self.low)} to {rounded(self.high)})"


def with_intervals(figures: Mapping[str, float], intervals: Mapping[str, Interval]) -> dict[str, Estimate]:
    """Give each figure its interval, where there is one."""
    return {name: Estimate(value, intervals.get(name)) for name, value in figures.items()}
