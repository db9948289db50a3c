"""Averages over the labels that are there; imported when first needed, for torchmetrics' sake."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import multilabel_average_precision
from torchmetrics.utilities.data import dim_zero_cat


class MacroF1(MultilabelF1Score):
    """Leave labels out that are nowhere and answered nowhere, as torchmetrics does with classes alone."""

    def __init__(self, num_labels: int, **options: Any) -> None:
        super().__init__(num_labels, average="none", **options)

    def compute(self) -> Tensor:
        """Give the value over all batches; NaN where no label is anywhere."""
        values: Tensor = super().compute()
        found, false_alarms, _, missed = self._final_state()
        return values[found + false_alarms + missed > 0].mean()


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Leave labels out that no picture has: torchmetrics takes their average precision to be 0."""

    def compute(self) -> Tensor:  # type: ignore[override]
        """Give the value over all batches; NaN where no label is anywhere."""
        scores, wanted = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        present = wanted.any(0)
        if not present.any():
            return torch.full((), torch.nan, device=scores.device)
        value: Tensor = multilabel_average_precision(
            scores[:, present], wanted[:, present], int(present.sum()), validate_args=False
        )
        return value


class F1(BinaryF1Score):
    """Be not a number where nothing is positive nor answered so: torchmetrics takes it to be 0."""

    def compute(self) -> Tensor:
        """Give the value over all batches."""
        value: Tensor = super().compute()
        found, false_alarms, _, missed = self._final_state()
        return value.where(found + false_alarms + missed > 0, torch.nan)


class AUROC(BinaryAUROC):
    """Be not a number where all pictures are of one class: torchmetrics takes it to be 0."""

    def compute(self) -> Tensor:  # type: ignore[override]
        """Give the value over all batches."""
        wanted = dim_zero_cat(self.target)
        if wanted.min() == wanted.max():
            return torch.full((), torch.nan, device=wanted.device)
        value: Tensor = super().compute()
        return value
