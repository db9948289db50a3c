"""What a model returns: its logits, and the auxiliary ones that count in training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


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
    if isinstance(output, tuple) and hasattr(output, "logits"):  # torchvision's named tuples
        weight = 0.4 if len(output) == 2 else 0.3
        return output.logits, _counted(weight, *output[1:])
    raise TypeError(
        f"The model returned a {type(output).__name__}; expected a tensor of logits, or the outputs of a "
        "torchvision model. Wrap the model so that forward() gives a tensor."
    )


def _counted(weight: float, *outputs: Tensor | None) -> list[tuple[float, Tensor]]:
    if not torch.is_grad_enabled():
        return []
    return [(weight, output) for output in outputs if output is not None]
