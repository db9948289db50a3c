"""Copies of a model's weights, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    """Clone every tensor of a model's state dict, by its key, and the buffers that are not in it, by their names."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    unsaved = {name: buffer for name, buffer in model.named_buffers() if name not in state}
    return {name: value.detach().clone() for name, value in {**unsaved, **state}.items()}


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model, in place; keys that are not given stay as they are.

    A state dict may hold copies, where somebody's hook makes them, and keys of its own; and ``load_state_dict`` would
    want the versions that `MNASNet` and others write beside their tensors. It gets only what modules take as extra.
    """
    state = model.state_dict()
    own: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    own |= dict(model.named_buffers(remove_duplicate=False))
    for name, value in weights.items():
        if name not in own and name.endswith("_extra_state"):
            model.load_state_dict({name: value}, strict=False)
        # What is in no state dict may have grown meanwhile.
        elif name in state or own[name].shape == value.shape:
            own.get(name, state.get(name)).detach().copy_(value)  # type: ignore[union-attr]
