"""Training: `fit`, and what it is made of."""

from layerkit.training.checkpoint import Checkpoint
from layerkit.training.finding_lr import LearningRates, find_lr
from layerkit.training.fitting import Run, fit
from layerkit.training.history import History
from layerkit.training.schedules import per_batch

__all__ = ["Checkpoint", "History", "LearningRates", "Run", "find_lr", "fit", "per_batch"]
