"""One class out of several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerkit.errors import TargetError
from layerkit.tasks.base import Task
from layerkit.tasks.classes import (
    ClassWeight,
    class_names,
    class_weights,
    describe_weights,
    names_of_absent,
    shorten,
)
from layerkit.tasks.targets import as_class_indices, as_distributions, as_tensor, squeeze_column

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Multiclass(Task):
    """Ask which of several classes it is: a logit each, softmax and cross-entropy.

    Parameters
    ----------
    classes : list of str, or int
        The names in the order of their indices, or how many there are.
    class_weight : None, "balanced", dict of name to weight, or sequence of float
        What an error on each class costs. ``"balanced"`` weighs classes inversely to their number of training
        pictures, ``N / (C * n_c)``, as scikit-learn does.
    label_smoothing : float
        How much of the target's probability is spread over all classes, 0 to below 1 (Szegedy et al. 2015,
        https://arxiv.org/abs/1512.00567).
    ignore_index : int, optional
        The target of what has no class and counts neither in the loss nor in the metrics; no index of a class.
        255 is usual in segmentation, for the borders of objects.

    Notes
    -----
    The loss is `torch.nn.functional.cross_entropy`, which applies the softmax itself. Targets are class
    indices (N,) of any whole-number dtype, or (N, H, W) for segmentation; or probabilities (N, C), as mixing
    gives them.

    With class weights torch divides by the targets' weights where they are indices, and by their number where
    they are probabilities. Balanced weights have a mean of 1 over the training set, so that both agree.

    Examples
    --------
    >>> task = Multiclass(["cat", "dog"])
    >>> task.out_features
    2
    >>> float(task.loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])))
    0.6931471824645996
    """

    classes: list[str]
    class_weight: Tensor | None  # (C,)

    def __init__(
        self,
        classes: int | Sequence[str],
        *,
        class_weight: ClassWeight | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.classes = class_names(classes, "Multiclass")
        self.out_features = len(self.classes)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` is {label_smoothing}; expected at least 0 and less than 1. 0.1 is usual."
            )
        self.label_smoothing = float(label_smoothing)
        if ignore_index is not None and ignore_index in range(self.out_features):
            raise ValueError(
                f"`ignore_index` is {ignore_index}, the index of the class {self.classes[ignore_index]!r}; "
                "expected a number that is no class's. 255 is usual; to leave a class out, leave it out of "
                "`classes`."
            )
        self.ignore_index = ignore_index
        self.balanced = isinstance(class_weight, str)
        self.register_buffer("class_weight", class_weights("class_weight", class_weight, self.classes))

    def extra_repr(self) -> str:
        """Name the classes."""
        return f"{len(self.classes)} classes: {shorten(self.classes)}"

    def settings(self) -> dict[str, Any]:
        """Give the constructor's arguments as JSON has them."""
        weights = None if self.class_weight is None else self.class_weight.tolist()
        return {
            "classes": self.classes,
            "class_weight": "balanced" if self.balanced else weights,
            "label_smoothing": self.label_smoothing,
            "ignore_index": self.ignore_index,
        }

    def prepare(self, targets: Any) -> str | None:
        """Compute balanced weights from the training targets."""
        if not self.balanced or self.class_weight is None:
            return None
        counts = self._counts(self.check(targets))
        if not counts.all():
            missing = [name for name, count in zip(self.classes, counts.tolist(), strict=True) if not count]
            raise TargetError(
                f"The training targets hold no {shorten(missing)}; expected every class, since balanced "
                "weights divide by their counts. Add pictures of them, or give class_weight as numbers."
            )
        self.class_weight.copy_(counts.sum() / (self.out_features * counts))
        return f"class weights {describe_weights(self.classes, self.class_weight)}"

    def absent(self, targets: Any) -> list[str]:
        """Name the classes that have no picture."""
        return names_of_absent(self.classes, self._counts(self.check(targets)) > 0)

    def check(self, target: Any) -> Tensor:
        """Take class indices as int64 (N,) or (N, H, W), or probabilities as float32 (N, C)."""
        target = squeeze_column(as_tensor(target, self))
        if target.ndim == 2 and target.shape[1] == self.out_features and target.is_floating_point():
            return as_distributions(target, self)
        if target.ndim not in (1, 3):
            raise TargetError(
                f"The targets have the shape {tuple(target.shape)}; expected class indices (N,), or (N, H, "
                f"W) for segmentation, or float probabilities (N, {self.out_features}), for {self}. Of "
                "one-hot rows, pass target.argmax(1); for several labels a picture, use Multilabel()."
            )
        return as_class_indices(target, self, self.out_features, ignore_index=self.ignore_index)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """Give the cross-entropy."""
        options: dict[str, Any] = {"weight": self.class_weight, "label_smoothing": self.label_smoothing}
        if self.ignore_index is None or target.is_floating_point():
            return F.cross_entropy(logits, target, **options)
        # torch's own mean over a batch in which nothing has a class is 0 / 0.
        options |= {"ignore_index": self.ignore_index, "reduction": "sum"}
        return F.cross_entropy(logits, target, **options) / self._sum_of_weights(target)

    @property
    def counts_evenly(self) -> bool:
        """Whether all classes weigh the same, and no target is without one."""
        return self.class_weight is None and self.ignore_index is None

    def weight_of(self, target: Tensor) -> Tensor:
        """Add up the weights of the targets' classes; mixed targets count by their number, as in torch."""
        if target.is_floating_point():
            return super().weight_of(target)
        return self._sum_of_weights(target)

    def activate(self, logits: Tensor) -> Tensor:
        """Give probabilities, softmax over dimension 1, of the logits' shape."""
        return logits.softmax(1)

    def decide(self, logits: Tensor) -> Tensor:
        """Give the index of the likeliest class, int64 (N,) or (N, H, W)."""
        return logits.argmax(1)

    def metrics(self) -> "MetricCollection":
        """Make ``accuracy`` and ``macro_f1``."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

        options: dict[str, Any] = {"ignore_index": self.ignore_index, "validate_args": False}
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(self.out_features, average="micro", **options),
                "macro_f1": MulticlassF1Score(self.out_features, average="macro", **options),
            },
            compute_groups=False,
        )

    def metric_inputs(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give probabilities (N, C) and class indices (N,)."""
        return self.activate(logits), target.argmax(1) if target.is_floating_point() else target

    def constant_logits(self, targets: Tensor) -> Tensor:
        """Give the logarithm of each class's share of the (weighted, smoothed) targets."""
        counts = self._counts(targets)
        shares = (1 - self.label_smoothing) * counts / counts.sum() + self.label_smoothing / self.out_features
        if self.class_weight is not None:
            shares = shares * self.class_weight.to(shares)
        return (shares / shares.sum()).clamp(min=1e-6).log().to(torch.float32)

    def _sum_of_weights(self, targets: Tensor) -> Tensor:
        """Sum the weights of all targets that have a class; where there are none, a number above zero."""
        counts = torch.ones_like(targets) if self.ignore_index is None else targets.ne(self.ignore_index)
        weight = counts.float()
        if self.class_weight is not None:
            weight = weight * self.class_weight[targets.where(counts.bool(), 0)]
        return weight.sum().clamp(min=torch.finfo(torch.float32).tiny)

    def _counts(self, targets: Tensor) -> Tensor:
        targets = targets.cpu()
        if targets.is_floating_point():
            return targets.sum(0, dtype=torch.float64)
        if self.ignore_index is not None:
            targets = targets[targets != self.ignore_index]
        return torch.bincount(targets.flatten(), minlength=self.out_features).to(torch.float64)
