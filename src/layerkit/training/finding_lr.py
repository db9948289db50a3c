"""Which learning rate to begin with: the range test."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.device import Device, choose_hardware, move_model
from layerkit.freezing import modes_of, put_modes
from layerkit.loading import PictureLoader
from layerkit.plots import plot_rates
from layerkit.tasks import Task
from layerkit.training.fitting import prepare_task
from layerkit.training.loop import Batch, Trainer, shares_of
from layerkit.training.losses import as_task
from layerkit.training.mistakes import check_initialized, check_roles
from layerkit.training.optimizers import OptimizerLike, make_optimizer
from layerkit.training.progress import Progress
from layerkit.training.weights import copy_of_weights, put_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMOOTHING = 0.9
_DIVERGED = 4.0


@dataclass(frozen=True)
class LearningRates:
    """The losses that rising learning rates gave.

    Attributes
    ----------
    rates : list of float
        The rates, rising by a constant factor.
    losses : list of float
        The loss at each, smoothed over the steps before.
    suggestion : float
        A tenth of the rate at which the loss was lowest.
    """

    rates: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    suggestion: float

    def plot(self, *, ax: "Axes | None" = None) -> "Axes":
        """Draw the loss over the rate, and the suggestion.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a figure of its own.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the losses.
        """
        return plot_rates(self.rates, self.losses, self.suggestion, ax=ax)


def find_lr(
    model: nn.Module,
    task: Task | Callable[[Tensor, Any], Tensor],
    train: Iterable[Any],
    *,
    optimizer: OptimizerLike = None,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    device: Device = "auto",
) -> LearningRates:
    """Train for some steps at ever higher rates to see which are good; the model is left as it was.

    Parameters
    ----------
    model : torch.nn.Module
        As for `fit`; its weights and its mode are put back.
    task : Task or callable
        As for `fit`.
    train : iterable of (inputs, targets)
        Read from its beginning as often as the steps need.
    optimizer : class or factory, optional
        As for `fit`; by default AdamW. An optimizer that is made already would be changed, and is refused.
    lowest, highest : float
        The first and the last rate.
    steps : int
        How many batches. It ends earlier where the loss is four times its lowest.
    device : str or torch.device
        ``"auto"`` takes the accelerator that torch finds, else the CPU.

    Returns
    -------
    LearningRates
        With a suggestion, and ``plot()``.

    Raises
    ------
    ValueError, TypeError
        An argument is not as described.

    References
    ----------
    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3,
    https://arxiv.org/abs/1506.01186. A tenth of the rate with the lowest loss is the rule of the fastai course.

    Examples
    --------
    >>> import torch
    >>> from layerkit import Multiclass, find_lr
    >>> _ = torch.manual_seed(0)
    >>> data = [(torch.randn(16, 4), torch.arange(16) % 2)]
    >>> found = find_lr(torch.nn.Linear(4, 2), Multiclass(2), data, steps=40)
    >>> 1e-7 < found.suggestion < 1
    True
    """
    check_roles(model, train=train)
    _check_range(lowest, highest, steps, optimizer)
    if distributed.world() > 1:
        raise RuntimeError(
            f"find_lr() runs in one process, and there are {distributed.world()}, which would find different rates; "
            "expected a start without torchrun. Find the rate first, and pass it to fit(lr=...)."
        )
    task = as_task(task)
    hardware = choose_hardware(model, device, "fp32", channels_last=False)
    check_initialized(model)
    before, modes = copy_of_weights(model), modes_of(model)
    gradients = [parameter.grad for parameter in model.parameters()]
    sampler = train.batch_sampler if isinstance(train, PictureLoader) else None
    epoch = 0 if sampler is None else sampler.epoch
    devices = [hardware.device] if hardware.device.type == "cuda" else []
    task = copy.deepcopy(task)
    move_model(model, hardware)
    task.to(hardware.device)
    try:
        with torch.random.fork_rng(devices=devices):
            prepare_task(task, train, Progress(shown=False))
            made = make_optimizer(optimizer, model, task, None)
            rates, losses = _rise(Trainer(model, task, made, hardware), train, lowest, highest, steps)
    finally:
        put_weights(model, before)
        put_modes(modes)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        if sampler is not None:
            sampler.epoch = epoch
    return LearningRates(rates, losses, rates[losses.index(min(losses))] / 10)


def _rise(
    trainer: Trainer, train: Iterable[Batch], lowest: float, highest: float, steps: int
) -> tuple[list[float], list[float]]:
    """Take one step at each rate; give the rates and the losses, smoothed as in Adam."""
    trainer.model.train()
    base = trainer.optimizer.defaults["lr"]  # a new head's is a multiple of it, and stays that
    scales = [group["lr"] / base for group in trainer.optimizer.param_groups]
    factor = (highest / lowest) ** (1 / (steps - 1))
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for step, share in zip(range(steps), shares_of(_endless(train)), strict=False):
        rate = lowest * factor**step
        for group, scale in zip(trainer.optimizer.param_groups, scales, strict=True):
            group["lr"] = rate * scale
        loss = trainer.try_step(share)
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smooth = average / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > _DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    if not losses:
        raise ValueError(
            f"The first loss, at the rate {lowest}, is not finite; expected a number. Look at the pictures and "
            "targets, and whether the model's outputs are finite."
        )
    return rates, losses


def _endless(train: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in train:
            empty = False
            yield batch
        if empty:
            raise ValueError("The loader gave no batch; expected at least one picture. Check the folder.")


def _check_range(lowest: float, highest: float, steps: int, optimizer: Any) -> None:
    if not 0 < lowest < highest:
        raise ValueError(
            f"`lowest` is {lowest} and `highest` is {highest}; expected two numbers above zero, the first the "
            "smaller. The defaults are 1e-7 and 1."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 10:
        raise ValueError(
            f"`steps` is {steps!r}; expected a whole number of at least 10, or there is no curve."
        )
    if isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"`optimizer` is a {type(optimizer).__name__} that is made already, whose rates and state this would "
            "change; expected its class or a factory: optimizer=torch.optim.SGD."
        )
