"""Yes or no."""

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from layerkit.errors import TargetError
from layerkit.tasks.base import Task
from layerkit.tasks.classes import (
    class_names,
    class_weights,
    describe_weights,
    names_of_absent,
    negatives_per_positive,
)
from layerkit.tasks.targets import as_probabilities, as_tensor, squeeze_column

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Binary(Task):
    """Ask whether it is or isn't: one logit, sigmoid and binary cross-entropy.

    Parameters
    ----------
    classes : two names
        ``classes[1]`` is the positive one, whose probability is predicted; ``data.classes`` goes in as it is.
    pos_weight : None, "balanced" or float
        What an error on a positive costs, next to 1 on a negative. ``"balanced"``: negatives / positives
        among the training targets.
    threshold : float
        The probability above which the decision is the positive class, between 0 and 1.

    Notes
    -----
    The loss is `torch.nn.functional.binary_cross_entropy_with_logits`, which applies the sigmoid itself and
    stays finite where a sigmoid would saturate. Targets are 0 and 1 of any dtype, or probabilities between
    them as mixing gives them, (N,) or (N, 1); (N, H, W) for segmentation.

    Examples
    --------
    >>> task = Binary(["cat", "dog"])
    >>> task.activate(torch.tensor([[0.0], [2.0]])).shape
    torch.Size([2, 1])
    >>> task.decide(torch.tensor([[-1.0], [2.0]]))
    tensor([0, 1])
    """

    classes: list[str]
    pos_weight: Tensor | None  # (1,)
    # After a ReLU no probability is below one half, after a log-softmax none above.
    refused_endings = ("softmax", "log-softmax", "sigmoid", "ReLU")

    def __init__(
        self,
        classes: Sequence[str] = ("no", "yes"),
        *,
        pos_weight: float | Literal["balanced"] | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.classes = class_names(classes, "Binary")
        if len(self.classes) != 2:
            raise ValueError(
                f"`classes` has {len(self.classes)} names; expected two for Binary. For more use "
                "Multiclass(classes), or Multilabel(classes) if several apply at once."
            )
        self.out_features = 1
        self.threshold = check_threshold(threshold)
        self.balanced = pos_weight == "balanced"
        given = pos_weight if pos_weight is None or isinstance(pos_weight, str) else [pos_weight]
        self.register_buffer("pos_weight", class_weights("pos_weight", given, self.classes[1:]))

    def extra_repr(self) -> str:
        """Name the classes."""
        return f"negative {self.classes[0]}, positive {self.classes[1]}"

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments as JSON has them."""
        weight = None if self.pos_weight is None else self.pos_weight.item()
        return {
            "classes": self.classes,
            "pos_weight": "balanced" if self.balanced else weight,
            "threshold": self.threshold,
        }

    def prepare(self, targets: Any) -> str | None:
        """Compute the balanced weight from the training targets."""
        if not self.balanced or self.pos_weight is None:
            return None
        positive = self.classes[1:]
        self.pos_weight.copy_(negatives_per_positive(self.check(targets).reshape(-1, 1), positive))
        return f"weight of the positive class {describe_weights(positive, self.pos_weight)}"

    def absent(self, targets: Any) -> list[str]:
        """Name the class that no picture has."""
        positive = self.check(targets) >= 0.5
        return names_of_absent(self.classes, torch.stack([~positive.all(), positive.any()]))

    def check(self, target: Any) -> Tensor:
        """Take bool, 0 and 1 of any dtype, or probabilities, as float32 (N,) or (N, H, W)."""
        target = squeeze_column(as_tensor(target, self))
        if target.ndim not in (1, 3):
            raise TargetError(
                f"The targets have the shape {tuple(target.shape)}; expected one 0 or 1 a picture, (N,) or "
                "(N, 1). For several labels a picture, use Multilabel()."
            )
        return as_probabilities(target, self)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the binary cross-entropy."""
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), target, pos_weight=self.pos_weight)

    def activate(self, logits: Tensor) -> Tensor:
        """Give the probability of the positive class, of the logits' shape."""
        return logits.sigmoid()

    def decide(self, logits: Tensor) -> Tensor:
        """Give the class index, 0 or 1, int64 (N,) or (N, H, W)."""
        return (self._probability(logits) > self.threshold).to(torch.int64)

    def metrics(self) -> "MetricCollection":
        """Make ``accuracy`` and ``f1`` (at the threshold), and ``auroc``; of one class alone, these two may be NaN."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import BinaryAccuracy

        from layerkit.tasks.averages import AUROC, F1

        return MetricCollection(
            {
                "accuracy": BinaryAccuracy(threshold=self.threshold, validate_args=False),
                "auroc": AUROC(validate_args=False),
                "f1": F1(threshold=self.threshold, validate_args=False),
            },
            compute_groups=False,
        )

    def metric_inputs(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give probabilities (N,) and 0 or 1 (N,)."""
        return self._probability(logits), (target >= 0.5).to(torch.int64)

    def constant_logits(self, targets: Tensor) -> Tensor:
        """Give the log odds of the positive class among the (weighted) targets."""
        share = targets.mean()
        positive = share if self.pos_weight is None else share * self.pos_weight.to(share.device)
        return torch.logit(positive / (positive + 1 - share), eps=1e-6).reshape(1)

    def _probability(self, logits: Tensor) -> Tensor:
        return self.activate(logits.squeeze(1) if logits.ndim > 1 else logits)


def check_threshold(threshold: float) -> float:
    """Take a probability at which to decide."""
    if not isinstance(threshold, Real) or not 0 < threshold < 1:
        raise ValueError(
            f"`threshold` is {threshold!r}; expected a probability between 0 and 1, one for all labels. 0.5 decides "
            "for the likelier."
        )
    return float(threshold)
