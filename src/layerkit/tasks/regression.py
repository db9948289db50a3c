"""One number a picture, or several."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from layerkit.errors import TargetError, rounded, suggestion
from layerkit.tasks.base import Task
from layerkit.tasks.targets import as_finite, as_tensor

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}

_SMALLEST_SPREAD = 1e-6
"""A standard deviation below this share of the mean is lost in float32's rounding."""


class Regression(Task):
    """Ask how much: one number a picture, or several.

    Parameters
    ----------
    num_targets : int
        How many numbers each picture has.
    names : list of str, optional
        What they are called.
    loss : {"mse", "mae", "huber"}
        Squared, absolute or Huber error (squared up to one standard deviation, absolute beyond).
    standardize : bool
        Learn in units of the training targets' mean and standard deviation, whatever the user's units are:
        the same learning rate then suits prices in millions and angles in radians. Answers and metrics are in
        the user's units all the same.

    Notes
    -----
    Targets are any real numbers, (N,) or (N, 1) for one, (N, num_targets) for several. The loss is
    `torch.nn.functional.mse_loss`, `l1_loss` or `huber_loss`, averaged over pictures and targets.

    Examples
    --------
    >>> task = Regression()
    >>> task.prepare(torch.tensor([10.0, 20.0, 30.0]))
    'targets: mean 20, standard deviation 8.16'
    >>> task.activate(torch.zeros(2, 1))
    tensor([[20.],
            [20.]])
    """

    mean: Tensor  # (num_targets,)
    std: Tensor  # (num_targets,)
    answers_pixels = False
    _ending_hint = " Targets with bounds may have such an end: Regression(standardize=False)."

    def __init__(
        self,
        num_targets: int = 1,
        *,
        names: Sequence[str] | None = None,
        loss: Literal["mse", "mae", "huber"] = "mse",
        standardize: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(num_targets, bool) or not isinstance(num_targets, int) or num_targets < 1:
            raise ValueError(
                f"`num_targets` is {num_targets!r}; expected a whole number of at least 1. Names go to "
                "names=."
            )
        if loss not in _LOSSES:
            raise ValueError(
                f"`loss` is {loss!r}; expected one of {', '.join(map(repr, _LOSSES))}."
                f"{suggestion(str(loss), _LOSSES)} For another loss, derive a task and write its criterion()."
            )
        if names is not None and (isinstance(names, str) or len(names) != num_targets):
            raise ValueError(
                f"`names` is {names!r}; expected a list of {num_targets}, one a target. Set num_targets to "
                "match."
            )
        self.out_features = num_targets
        self.names = None if names is None else [str(name) for name in names]
        self.loss_name = loss
        self.standardize = standardize
        if standardize:  # half of the standardized targets are below zero, which no ReLU reaches
            self.refused_endings = ("softmax", "log-softmax", "sigmoid", "ReLU")
        else:  # bounded or positive targets may well be met by such an ending
            self.refused_endings = ()
        self.register_buffer("mean", torch.full((num_targets,), torch.nan if standardize else 0.0))
        self.register_buffer("std", torch.full((num_targets,), torch.nan if standardize else 1.0))

    def extra_repr(self) -> str:
        """Show the number of targets and the loss."""
        return f"{self.out_features}, loss={self.loss_name!r}, standardize={self.standardize}"

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments as JSON has them."""
        return {
            "num_targets": self.out_features,
            "names": self.names,
            "loss": self.loss_name,
            "standardize": self.standardize,
        }

    def prepare(self, targets: Any) -> str | None:
        """Measure the training targets' mean and standard deviation."""
        if not self.standardize:
            return None
        mean, std = self._spread(targets)
        self.mean.copy_(mean)
        self.std.copy_(std)
        return f"targets: mean {_numbers(mean)}, standard deviation {_numbers(std)}"

    def examine(self, targets: Any) -> None:
        """Refuse a target that is the same in every picture."""
        self._spread(targets)

    def _spread(self, targets: Any) -> tuple[Tensor, Tensor]:
        targets = self.check(targets)
        if not len(targets):
            raise TargetError("There are no training targets; expected two at least. Check the dataset.")
        std, mean = torch.std_mean(targets.cpu().to(torch.float64), dim=0, correction=0)
        constant = ~(std > _SMALLEST_SPREAD * mean.abs())
        if constant.any():
            column = int(constant.nonzero()[0])
            name = repr(self.names[column]) if self.names else f"number {column}"
            raise TargetError(
                f"The training target {name} is {mean[column].item():g} in every picture, as far as float32 "
                "can tell; expected values that vary, since there is nothing to learn from a constant. Check "
                "the column, leave it out, or subtract a large offset from it."
            )
        return mean, std

    def check(self, target: Any) -> Tensor:
        """Take any real numbers as float32 (N, num_targets)."""
        target = as_tensor(target, self)
        if target.ndim == 1 and self.out_features == 1:
            target = target.unsqueeze(1)
        if target.ndim != 2 or target.shape[1] != self.out_features:
            raise TargetError(
                f"The targets have the shape {tuple(target.shape)}; expected (N, {self.out_features})"
                f"{' or (N,)' if self.out_features == 1 else ''} for {self}. Set num_targets to the number "
                "of values a picture."
            )
        return as_finite(target)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the error in standardized units, averaged over pictures and targets."""
        return _LOSSES[self.loss_name](logits, (target - self.mean) / self.std)

    def activate(self, logits: Tensor) -> Tensor:
        """Give the values in the user's units, (N, num_targets)."""
        return logits * self.std + self.mean

    def metrics(self) -> "MetricCollection":
        """Make ``mae``, ``rmse`` and ``r2``, in the user's units and averaged over the targets."""
        from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

        from layerkit.tasks.r2 import R2

        return MetricCollection(
            {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": R2()},
            compute_groups=False,
        )

    def metric_inputs(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give values and targets in the user's units, (N,) for one target."""
        return self.activate(logits).view_as(target).squeeze(1), target.squeeze(1)

    def constant_logits(self, targets: Tensor) -> Tensor:
        """Give the mean of the targets (the median for an absolute loss), in the loss's units."""
        values = (targets - self.mean.to(targets.device)) / self.std.to(targets.device)
        return values.median(0).values if self.loss_name == "mae" else values.mean(0)


def _numbers(values: Tensor) -> str:
    return ", ".join(rounded(value, 3) for value in values.tolist())
