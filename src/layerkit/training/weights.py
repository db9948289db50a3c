"""Copies of a model's weights, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    """Clone every parameter and buffer of a model, by its key in the state dict."""
    return {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model, in place; keys that are not given stay as they are.

    ``load_state_dict`` would want the versions that `MNASNet` and others write beside their tensors.
    """
    state = model.state_dict()
    for name, value in weights.items():
        state[name].copy_(value)
