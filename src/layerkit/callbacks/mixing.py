"""Batches in which each picture is blended with another, and so is its target."""

from typing import Any

import torch
from torchvision.transforms import v2

from layerkit.tasks import Binary, Multiclass, Multilabel, Task
from layerkit.training.moments import State


class _Mixing:
    """What both ways have in common; they wait while the backbone is frozen."""

    _transform: type[Any]

    def __init__(self, alpha: float) -> None:
        if not alpha > 0:
            raise ValueError(f"`alpha` is {alpha}; expected a number above zero. 0.2 mixes little, 1 much.")
        self.alpha = alpha
        self._mix: Any = None

    def on_fit_start(self, state: State) -> None:
        """Make sure that the task takes soft targets."""
        if not isinstance(state.task, Binary | Multiclass | Multilabel):
            raise TypeError(
                f"{type(self).__name__} blends the targets of two pictures, and {type(state.task).__name__} has "
                "none that can be: expected Binary, Multiclass or Multilabel. Leave it out."
            )
        self._mix = self._transform(alpha=self.alpha, num_classes=_index_classes(state.task))

    def on_batch_start(self, state: State) -> None:
        """Blend the batch with itself, moved on by one."""
        if state.target.ndim > 2:
            raise ValueError(
                f"{type(self).__name__} got targets of the shape {tuple(state.target.shape)}; expected one row a "
                "picture. It cannot blend the maps of a segmentation: leave it out."
            )
        with torch.no_grad():
            if isinstance(state.task, Binary):
                state.inputs, target = self._mix(state.inputs, state.target.unsqueeze(1))
                state.target = target.squeeze(1)
            else:
                state.inputs, state.target = self._mix(state.inputs, state.target)


class MixUp(_Mixing):
    """Blend each picture of a batch with another, and their targets in the same proportion.

    Parameters
    ----------
    alpha : float
        The share is drawn from Beta(alpha, alpha): 0.2 blends little, 1 any share alike.

    Notes
    -----
    torchvision's `MixUp`, on the device, while the whole model is trained. For Binary, Multiclass and Multilabel.

    References
    ----------
    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Examples
    --------
    >>> mixing = MixUp(alpha=0.2)
    """

    _transform = v2.MixUp

    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__(alpha)


class CutMix(_Mixing):
    """Put a window of another picture into each picture of a batch, and blend their targets by its area.

    Parameters
    ----------
    alpha : float
        The share of the area is drawn from Beta(alpha, alpha).

    Notes
    -----
    torchvision's `CutMix`, on the device, while the whole model is trained. For Binary, Multiclass and
    Multilabel.

    References
    ----------
    Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
    https://arxiv.org/abs/1905.04899

    Examples
    --------
    >>> mixing = CutMix()
    """

    _transform = v2.CutMix

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha)


def _index_classes(task: Task) -> int | None:
    """Say how many classes an index may name; targets that are numbers already need none."""
    return task.out_features if isinstance(task, Multiclass) else None
