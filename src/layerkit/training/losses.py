"""A plain loss function, taken as a task."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerkit.errors import TargetError, shown
from layerkit.tasks import Task

Loss = Callable[[Tensor, Any], Tensor]

_ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)
_ELEMENTWISE_FUNCTIONS = (F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss)
_OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_ON_LOGITS = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)
_ON_LOGITS_FUNCTIONS = (F.cross_entropy, F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss)


class LossTask(Task):
    """Use any callable on (logits, target) as a task; it checks no targets and brings no metrics."""

    out_features = 0  # any

    def __init__(self, function: Loss) -> None:
        super().__init__()
        self.function = function
        self.elementwise = isinstance(function, _ELEMENTWISE) or function in _ELEMENTWISE_FUNCTIONS
        if not (isinstance(function, _ON_LOGITS) or function in _ON_LOGITS_FUNCTIONS):
            self.refused_endings = ()  # what another loss expects is not known
        options = getattr(function, "keywords", None) or getattr(function, "__dict__", {})
        self.adds_up = options.get("reduction") == "sum"

    def check(self, target: Any) -> Any:
        """Take the targets as they are."""
        return target

    def criterion(self, logits: Tensor, target: Any) -> Tensor:
        """Call the function."""
        if self.elementwise and logits.shape != target.shape:
            raise TargetError(
                f"The model's outputs have the shape {tuple(logits.shape)} and the targets "
                f"{tuple(target.shape)}; expected the same, since this loss would compare each with each. "
                "Use Regression(), or give both one shape: target.unsqueeze(1) makes (N, 1) of (N,)."
            )
        loss = self.function(logits, target)
        if not self.counts_evenly and isinstance(target, Tensor) and not target.is_floating_point():
            # Torch's mean over a batch in which nothing has a class is 0 / 0, and its gradient is zero.
            loss = loss.where((target != getattr(self.function, "ignore_index", -100)).any(), 0.0)
        return loss

    @property
    def counts_evenly(self) -> bool:
        """Whether the function is not known to divide by the weights of classes, and to leave out some targets."""
        return not (isinstance(self.function, _OF_CLASSES) and self.function.reduction == "mean")

    def weight_of(self, target: Any) -> Tensor:
        """Add up the weights of the targets' classes, as torch does."""
        if not isinstance(self.function, _OF_CLASSES) or target.is_floating_point():
            return super().weight_of(target)
        counted = target[target != self.function.ignore_index]
        weight = torch.ones_like(counted) if self.function.weight is None else self.function.weight[counted]
        return weight.sum(dtype=torch.float32)

    def _compare(self, logits: Tensor, target: Any) -> Tensor:
        return self.criterion(logits, target)


def as_task(task: Task | Loss | nn.Module) -> Task:
    """Take a task as it is, and any other callable as a loss.

    Raises
    ------
    TypeError
        It is neither.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, type) or not callable(task):
        raise TypeError(
            f"`task` is {shown(task)}; expected a task such as Multiclass(data.classes), or a loss that is called "
            "with (logits, target), such as torch.nn.CrossEntropyLoss()."
        )
    return LossTask(task)
