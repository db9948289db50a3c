"""Several labels, any number of which apply."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerkit.errors import TargetError
from layerkit.tasks.base import Task
from layerkit.tasks.binary import check_threshold
from layerkit.tasks.classes import (
    ClassWeight,
    class_names,
    class_weights,
    describe_weights,
    names_of_absent,
    negatives_per_positive,
    shorten,
)
from layerkit.tasks.targets import as_probabilities, as_tensor

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Multilabel(Task):
    """Ask which of several labels apply, any number of them: a logit each, sigmoid and binary cross-entropy.

    Parameters
    ----------
    classes : list of str, or int
        The labels in the order of the targets' columns, or how many there are.
    pos_weight : None, "balanced", dict of name to weight, or sequence of float
        What missing each label costs, next to 1 for a false alarm. ``"balanced"``: negatives / positives
        among the training targets.
    threshold : float
        The probability above which a label is taken to apply, between 0 and 1; one for all labels. For one of each,
        compare ``answer.probabilities`` with your own.

    Notes
    -----
    The loss is `torch.nn.functional.binary_cross_entropy_with_logits`, averaged over pictures and labels.
    Targets are rows of 0 and 1 of any dtype, (N, C), or probabilities between them.

    Examples
    --------
    >>> task = Multilabel(["beach", "dog", "snow"])
    >>> task.decide(torch.tensor([[3.0, 0.2, -4.0]]))
    tensor([[1, 1, 0]])
    """

    classes: list[str]
    pos_weight: Tensor | None  # (C,)
    # After a ReLU no probability is below one half, after a log-softmax none above.
    refused_endings = ("softmax", "log-softmax", "sigmoid", "ReLU")
    answers_pixels = False

    def __init__(
        self,
        classes: int | Sequence[str],
        *,
        pos_weight: ClassWeight | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.classes = class_names(classes, "Multilabel")
        self.out_features = len(self.classes)
        self.threshold = check_threshold(threshold)
        self.balanced = isinstance(pos_weight, str)
        self.register_buffer("pos_weight", class_weights("pos_weight", pos_weight, self.classes))

    def extra_repr(self) -> str:
        """Name the labels."""
        return f"{len(self.classes)} labels: {shorten(self.classes)}"

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments as JSON has them."""
        weights = None if self.pos_weight is None else self.pos_weight.tolist()
        return {
            "classes": self.classes,
            "pos_weight": "balanced" if self.balanced else weights,
            "threshold": self.threshold,
        }

    def prepare(self, targets: Any) -> str | None:
        """Compute balanced weights from the training targets."""
        if not self.balanced or self.pos_weight is None:
            return None
        self.pos_weight.copy_(negatives_per_positive(self.check(targets), self.classes))
        return f"weights of the positives {describe_weights(self.classes, self.pos_weight)}"

    def absent(self, targets: Any) -> list[str]:
        """Name the labels that apply to no picture."""
        return names_of_absent(self.classes, (self.check(targets) > 0).any(0))

    def check(self, target: Any) -> Tensor:
        """Take rows of bool, of 0 and 1 of any dtype, or of probabilities, as float32 (N, C)."""
        target = as_tensor(target, self)
        if target.ndim != 2 or target.shape[1] != self.out_features:
            raise TargetError(
                f"The targets have the shape {tuple(target.shape)}; expected a 0 or 1 for each label of a "
                f"picture, (N, {self.out_features}), for {self}. For one class index a picture, use "
                "Multiclass()."
            )
        return as_probabilities(target, self)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the binary cross-entropy, averaged over pictures and labels."""
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.pos_weight)

    def activate(self, logits: Tensor) -> Tensor:
        """Give each label's probability, (N, C)."""
        return logits.sigmoid()

    def decide(self, logits: Tensor) -> Tensor:
        """Give 1 for each label that applies and 0 for the others, int64 (N, C)."""
        return (self.activate(logits) > self.threshold).to(torch.int64)

    def metrics(self) -> "MetricCollection":
        """Make ``macro_f1`` (at the threshold) and ``average_precision``, averaged over the labels that are there."""
        from torchmetrics import MetricCollection

        from layerkit.tasks.averages import MacroF1, MeanAveragePrecision

        return MetricCollection(
            {
                "macro_f1": MacroF1(self.out_features, threshold=self.threshold, validate_args=False),
                "average_precision": MeanAveragePrecision(self.out_features, validate_args=False),
            },
            compute_groups=False,
        )

    def metric_inputs(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give probabilities (N, C) and 0 or 1 (N, C)."""
        return self.activate(logits), (target >= 0.5).to(torch.int64)

    def constant_logits(self, targets: Tensor) -> Tensor:
        """Give the log odds of each label among the (weighted) targets."""
        shares = targets.mean(0)
        positive = shares if self.pos_weight is None else shares * self.pos_weight.to(shares.device)
        return torch.logit(positive / (positive + 1 - shares), eps=1e-6)
