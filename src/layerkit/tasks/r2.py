"""The coefficient of determination; imported when first needed, for torchmetrics' sake."""

import torch
from torch import Tensor
from torchmetrics import R2Score


class R2(R2Score):
    """Be not a number for a single picture, which has no variance, where torchmetrics raises."""

    total: Tensor

    def compute(self) -> Tensor:
        """Give the value over all batches."""
        if self.total < 2:
            return torch.full((), torch.nan, device=self.total.device)
        value: Tensor = super().compute()
        return value
