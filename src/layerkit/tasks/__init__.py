"""What is asked of a picture: loss, check of targets, activation, decision and metrics in one piece."""

from layerkit.tasks.base import Task
from layerkit.tasks.binary import Binary
from layerkit.tasks.multi_task import MultiTask
from layerkit.tasks.multiclass import Multiclass
from layerkit.tasks.multilabel import Multilabel
from layerkit.tasks.regression import Regression

__all__ = ["Binary", "MultiTask", "Multiclass", "Multilabel", "Regression", "Task"]
