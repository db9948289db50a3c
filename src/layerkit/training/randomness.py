"""What is drawn from: the state of torch's generators, and back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

RandomState = dict[str, Tensor]


def random_state(device: torch.device) -> RandomState:
    """Give the state of the CPU's generator and of the device's own."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = _generator(device, "get_rng_state")()
    return state


def put_random_state(state: RandomState, device: torch.device) -> None:
    """Take back what `random_state` gave; a run that goes on elsewhere has no state of that device."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type != "cpu" and device.type in state:
        _generator(device, "set_rng_state")(state[device.type].cpu())


def _generator(device: torch.device, function: str) -> Callable[..., Any]:
    """Give torch's function for a device, which is the current one unless it is named; of MPS there is but one."""
    found: Callable[..., Any] = getattr(torch.get_device_module(device), function)
    return found if device.type == "mps" else partial(found, device=device)
