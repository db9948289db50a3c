"""The metrics of one part of several tasks; imported when first needed, for torchmetrics' sake."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric


class PartMetric(WrapperMetric):
    """Feed a metric from one entry of the dicts that `MultiTask.metric_inputs` gives."""

    def __init__(self, metric: Metric, entry: str, *, higher_is_better: bool | None) -> None:
        super().__init__()
        self.metric = metric
        self.entry = entry
        self._higher_is_better = higher_is_better

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Whether a higher value is better; `None` where the metric does not say."""
        return self._higher_is_better

    def update(self, answers: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
        """Add a batch."""
        self.metric.update(answers[self.entry], targets[self.entry])

    def compute(self) -> Tensor:
        """Give the value over all batches."""
        value: Tensor = self.metric.compute()
        return value

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self.metric.reset()
