"""What a model returns: its logits, and the auxiliary ones that count in training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_WEIGHTS = {("logits", "aux_logits"): 0.4, ("logits", "aux_logits2", "aux_logits1"): 0.3}
"""By the fields of torchvision's named tuples: Inception's and GoogLeNet's."""


def split_output(output: Any) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """Separate a model's main logits from its weighted auxiliary ones.

    Auxiliary outputs are there to train: without gradients, in evaluation, none are given.

    References
    ----------
    GoogLeNet weights its two with 0.3 (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842), Inception v3
    its one with 0.4 and segmentation models theirs with 0.5 (torchvision's training references,
    https://github.com/pytorch/vision/tree/main/references).
    """
    if isinstance(output, Tensor):
        return output, []
    if isinstance(output, Mapping) and "out" in output:
        return output["out"], _counted(0.5, output.get("aux"))
    if (weight := _WEIGHTS.get(getattr(output, "_fields", ()))) is not None:
        return output[0], _counted(weight, *output[1:])
    raise TypeError(
        f"The model returned a {type(output).__name__}; expected a tensor of logits, or the outputs of a "
        "torchvision model. Wrap the model so that forward() gives a tensor."
    )


def _counted(weight: float, *outputs: Tensor | None) -> list[tuple[float, Tensor]]:
    if not torch.is_grad_enabled():
        return []
    return [(weight, output) for output in outputs if output is not None]
