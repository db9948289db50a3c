"""A figure that knows its confidence interval."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

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
        if self.low is None:
            return f"{float(self):.4g}"
        return f"{float(self):.4g} ({self.low:.4g} to {self.high:.4g})"


def with_intervals(figures: Mapping[str, float], intervals: Mapping[str, Interval]) -> dict[str, Estimate]:
    """Give each figure its interval, where there is one."""
    return {name: Estimate(value, intervals.get(name)) for name, value in figures.items()}
