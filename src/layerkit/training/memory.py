"""What to do where a batch does not fit the device's memory: take it in pieces, with the same mean gradient."""

from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.errors import warn
from layerkit.tasks.targets import map_targets
from layerkit.training.randomness import RandomState, put_random_state, random_state


class Pieces:
    """In how many pieces each batch is run, and what must be put back before a batch is tried again.

    Parameters
    ----------
    model : torch.nn.Module
        Its buffers are noted before each step, and on an accelerator the random state too; a CPU does not run out
        of memory in a way that could be mended.
    device : torch.device
        Where it is.
    divides : bool
        Whether the loss is a mean, whose gradient is the mean of the pieces'.
    """

    def __init__(self, model: nn.Module, device: torch.device, *, divides: bool = True) -> None:
        self.count = 1
        self.divides = divides
        self.is_watching = device.type != "cpu"
        self._device = device
        self._owners = [module for module in model.modules() if module._buffers]
        self._noted: list[tuple[nn.Module, str, Tensor, Tensor]] = []
        self._random: RandomState = {}

    def note(self) -> None:
        """Note what a step that fails halfway would leave changed."""
        self._noted = [
            (module, name, buffer, buffer.clone())
            for module in self._owners
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        if self.is_watching:
            self._random = random_state(self._device)

    def put_back(self) -> None:
        """Undo what a batch that was no good has left in the buffers, such as batch norm's statistics."""
        for module, name, buffer, noted in self._noted:
            buffer.detach().copy_(noted)
            module._buffers[name] = buffer  # another may stand there by now

    def split(self, inputs: Tensor, target: Any) -> list[tuple[Tensor, Any]]:
        """Cut a batch into as many pieces as have proved to fit."""
        if self.count == 1:
            return [(inputs, target)]
        pieces, size = min(self.count, len(inputs)), len(inputs)
        cuts = [slice(n * size // pieces, (n + 1) * size // pieces) for n in range(pieces)]
        return [(inputs[cut], map_targets(itemgetter(cut), target)) for cut in cuts]

    def halve(self, error: torch.OutOfMemoryError, size: int) -> None:
        """Put everything back, and take half as much at once from now on.

        Raises
        ------
        torch.OutOfMemoryError
            There is nothing left to halve, or other processes wait for this one's part.
        """
        if distributed.world() > 1:
            raise torch.OutOfMemoryError(
                f"A batch of {size} pictures in this process does not fit its device's memory; expected one that "
                f"does, since the other processes wait. Try batch_size={max(1, size // 2) * distributed.world()}."
            ) from error
        if not self.is_watching or self.count >= size or not self.divides:
            raise error
        self.put_back()
        put_random_state(self._random, self._device)
        if self._device.type != "cpu":
            torch.get_device_module(self._device).empty_cache()
        self.count *= 2
        warn(
            f"A batch of {size} pictures does not fit the memory of {self._device}: it is taken in {self.count} "
            "pieces from now on, with the mean gradient of the whole. Batch norm sees the pieces. A smaller "
            "batch_size avoids this."
        )
