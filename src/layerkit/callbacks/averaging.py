"""A running average of the weights, which is validated and kept in their place."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from layerkit.training.moments import State
from layerkit.training.weights import copy_of_weights, put_weights


class EMA:
    """Keep an exponential moving average of the weights; it is what is validated, saved and returned.

    Parameters
    ----------
    decay : float
        How much of the average is kept at each step. It rises to this from 0.1 over the first steps, so that
        short runs do not drag their start along.

    Notes
    -----
    It averages while the whole model is trained, batch norm's statistics too; a frozen phase before it is left
    alone. torch's `AveragedModel` does the work, and holds a second copy of the model.

    References
    ----------
    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging",
    https://doi.org/10.1137/0330046. The rise is that of TensorFlow's ``ExponentialMovingAverage(num_updates)``.

    Examples
    --------
    >>> average = EMA(decay=0.999)
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"`decay` is {decay}; expected a number between 0 and 1, such as 0.999.")
        self.decay = decay
        self._average: AveragedModel | None = None
        self._resumed: dict[str, Tensor] | None = None

    def on_fit_start(self, state: State) -> None:
        """Make room for the average."""
        self._average = AveragedModel(state.model, multi_avg_fn=self._blend, use_buffers=True)
        if self._resumed is not None:
            put_weights(self._average, self._resumed)
            self._resumed = None
        state.evaluated = self._average.module

    def on_batch_end(self, state: State) -> None:
        """Take the new weights into the average."""
        assert self._average is not None
        self._average.update_parameters(state.model)

    def state_dict(self) -> dict[str, Any]:
        """Give what must outlive a restart."""
        return {} if self._average is None else copy_of_weights(self._average)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back, as soon as there is a model."""
        self._resumed = state or None

    @torch.no_grad()
    def _blend(self, averages: Any, current: Any, count: Tensor | int) -> None:
        steps = int(count)
        kept = min(self.decay, (1 + steps) / (10 + steps))
        if averages[0].is_complex():
            for average, value in zip(averages, current, strict=True):
                average.lerp_(value, 1 - kept)
        elif averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - kept)
        else:  # a counter, such as batch norm's
            torch._foreach_copy_(averages, current)
