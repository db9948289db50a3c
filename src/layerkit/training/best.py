"""Which epoch was the best, by which measure, and its weights."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from layerkit.errors import suggestion

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass
class Best:
    """The best epoch so far; of equals the first.

    Without a `monitor` (no validation part) the last epoch counts as the best.
    """

    monitor: str | None
    lower_is_better: bool
    epoch: int = 0
    value: float | None = None
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    task: dict[str, Tensor] = field(default_factory=dict, repr=False)  # what the task had learnt by then
    answers: dict[str, Any] = field(default_factory=dict, repr=False)  # its logits and targets in validation

    def beaten_by(self, value: float | None) -> bool:
        """Tell whether an epoch's value is better; NaN never is, once there is a number."""
        if self.monitor is None or self.value is None or value is None:
            return True
        if value != value:
            return False
        return self.value != self.value or (
            value < self.value if self.lower_is_better else value > self.value
        )

    def reason(self) -> str:
        """Say which epoch it is and why."""
        if self.monitor is None:
            return f"the last epoch, {self.epoch}, since there was nothing to validate on"
        return f"epoch {self.epoch}, which has the {'lowest' if self.lower_is_better else 'highest'} " + (
            f"{self.monitor}, {self.value:.4f}"
        )


def make_best(monitor: str, metrics: "MetricCollection | None") -> Best:
    """Find out whether high or low is good, from the metric itself; without metrics nothing is validated.

    Raises
    ------
    ValueError
        No such figure will be there, or the metric has no direction.
    """
    if metrics is None:
        if monitor != "valid_loss":
            raise ValueError(
                f"`monitor` is {monitor!r} and `valid` is None; expected a validation loader to monitor. Pass one."
            )
        return Best(None, lower_is_better=True)
    known: dict[str, Any] = {"valid_loss": False} | {
        f"valid_{name}": metric.higher_is_better for name, metric in metrics.items()
    }
    if monitor not in known:
        raise ValueError(
            f"`monitor` is {monitor!r}; expected one of {', '.join(map(repr, known))}.{suggestion(monitor, known)}"
        )
    if known[monitor] is None:
        raise ValueError(
            f"`monitor` is {monitor!r}, a metric that does not say whether high or low is good; expected one that "
            "does. Monitor 'valid_loss', or set higher_is_better on the metric's class."
        )
    return Best(monitor, lower_is_better=not known[monitor])
