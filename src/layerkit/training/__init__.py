"""Training: `fit`, and what it is made of."""

from layerkit.training.fitting import Run, fit
from layerkit.training.history import History
from layerkit.training.schedules import per_batch

__all__ = ["History", "Run", "fit", "per_batch"]
