"""Learning-rate schedules: by name, by object or by factory, stepped by batch or by epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from layerkit.errors import suggestion

Name = Literal["one-cycle", "cosine", "step", "plateau", "constant"]
Factory = Callable[[Optimizer], LRScheduler]
Schedule = Name | LRScheduler | Factory | None
NAMES = ("one-cycle", "cosine", "step", "plateau", "constant")


@dataclass(frozen=True)
class PerBatch:
    """A factory whose scheduler is stepped after every batch."""

    factory: Factory

    def __call__(self, optimizer: Optimizer) -> LRScheduler:
        return _from_factory(self.factory, optimizer)


def per_batch(factory: Factory) -> PerBatch:
    """Have the scheduler that a factory makes stepped after every batch, not after every epoch.

    Parameters
    ----------
    factory : callable
        Gets the optimizer and returns a torch scheduler.

    Returns
    -------
    callable
        For ``fit(schedule=...)``.

    Raises
    ------
    TypeError
        It is no function of the optimizer.

    Examples
    --------
    >>> from functools import partial
    >>> from torch.optim.lr_scheduler import CosineAnnealingLR
    >>> schedule = per_batch(partial(CosineAnnealingLR, T_max=1000))
    """
    if not callable(factory) or isinstance(factory, LRScheduler):
        raise TypeError(
            f"`factory` is {factory!r}; expected a function of the optimizer that makes a scheduler, such as "
            "lambda optimizer: StepLR(optimizer, step_size=100). The names 'one-cycle' and 'cosine' go by batches "
            "already."
        )
    return PerBatch(factory)


class Stepper:
    """A scheduler that knows when its step is due."""

    def __init__(
        self,
        scheduler: LRScheduler | None,
        optimizer: Optimizer,
        *,
        by_batch: bool,
        lower_is_better: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self.optimizer = optimizer
        self.by_batch = by_batch
        self.highest_rate = 0.0  # of the steps of this epoch
        self.watches_metric = isinstance(scheduler, ReduceLROnPlateau)
        if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode != (
            "min" if lower_is_better else "max"
        ):
            raise ValueError(
                f"ReduceLROnPlateau has mode={scheduler.mode!r}; expected "
                f"{'min' if lower_is_better else 'max'!r} for what is monitored. Pass that mode, or another monitor."
            )

    def after_batch(self) -> None:
        """Note the rate that was used, and step a scheduler that goes by batches."""
        self.highest_rate = max(self.highest_rate, float(self.optimizer.param_groups[0]["lr"]))
        if self.scheduler is None or not self.by_batch:
            return
        try:
            self.scheduler.step()
        except ValueError as error:
            raise ValueError(
                f"The schedule is over before the epochs are ({error}); expected as many batches as it was laid out "
                "for. If the loader's len() is an estimate, let it be the most that may come, or pass schedule='step'."
            ) from error

    def after_epoch(self, value: float | None) -> None:
        """Step a scheduler that goes by epochs; one that waits for a plateau gets what was monitored."""
        if self.scheduler is None or self.by_batch:
            return
        if self.watches_metric:
            self.scheduler.step(value)  # type: ignore[arg-type]
        else:
            self.scheduler.step()

    def rate_of_epoch(self) -> float:
        """Give the highest rate since it was last asked for."""
        rate, self.highest_rate = self.highest_rate, 0.0
        return rate

    def state_dict(self) -> dict[str, Any]:
        """Give the scheduler's state."""
        return {
            "highest_rate": self.highest_rate,
            "scheduler": {} if self.scheduler is None else self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the scheduler's state back."""
        self.highest_rate = state["highest_rate"]
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])


def check_schedule(schedule: Any) -> None:
    """Refuse what can be no schedule, before there is an optimizer to make one for."""
    if isinstance(schedule, str) and schedule not in NAMES:
        raise ValueError(f"`schedule` is {schedule!r}; expected one of {NAMES}.{suggestion(schedule, NAMES)}")


def make_schedule(
    schedule: Schedule, optimizer: Optimizer, *, epochs: int, batches: int | None, lower_is_better: bool
) -> Stepper:
    """Make the stepper for what the user asked for.

    Raises
    ------
    TypeError, ValueError
        It is no schedule, or belongs to another optimizer, or needs a loader with a length.
    """
    by_batch = isinstance(schedule, PerBatch)
    if isinstance(schedule, str):
        scheduler = _by_name(schedule, optimizer, epochs, batches, lower_is_better)
        by_batch = schedule in ("one-cycle", "cosine")
    elif schedule is None or isinstance(schedule, LRScheduler):
        scheduler = schedule
    elif callable(schedule):
        scheduler = _from_factory(schedule, optimizer)
    if scheduler is not None and not isinstance(scheduler, LRScheduler):
        raise TypeError(
            f"`schedule` gave {scheduler!r}; expected a torch scheduler, a factory of one, or one of {NAMES}. "
            "A factory gets the optimizer: lambda optimizer: StepLR(optimizer, step_size=7)."
        )
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise ValueError(
            "`schedule` was made for another optimizer than the one in use; expected one for the same. Pass that "
            "optimizer as optimizer=, or pass a factory: lambda optimizer: StepLR(optimizer, step_size=7)."
        )
    by_batch = by_batch or isinstance(scheduler, OneCycleLR | CyclicLR)
    if by_batch and isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "`schedule` is a ReduceLROnPlateau that goes by batches; expected it to go by epochs, since what it waits "
            "for is measured once in each. Pass its factory without per_batch()."
        )
    return Stepper(scheduler, optimizer, by_batch=by_batch, lower_is_better=lower_is_better)


def _from_factory(factory: Factory, optimizer: Optimizer) -> LRScheduler:
    try:
        return factory(optimizer)
    except TypeError as error:
        if not isinstance(factory, type):
            raise
        raise TypeError(
            f"`schedule` is the class {factory.__name__}, which an optimizer alone does not make ({error}); expected a "
            f"factory with the rest in it: lambda optimizer: {factory.__name__}(optimizer, ...)."
        ) from error


def _by_name(
    name: str, optimizer: Optimizer, epochs: int, batches: int | None, lower_is_better: bool
) -> LRScheduler | None:
    if name == "constant":
        return None
    if name == "step":
        return StepLR(optimizer, step_size=max(1, epochs // 3), gamma=0.1)
    if name == "plateau":
        return ReduceLROnPlateau(optimizer, mode="min" if lower_is_better else "max", factor=0.1, patience=2)
    if batches is None:
        raise ValueError(
            f"`schedule` is {name!r} and the loader has no length; expected to know how many batches come. Use "
            "'step' or 'constant', or give the loader a __len__."
        )
    steps = max(1, epochs * batches)
    if name == "one-cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(
            optimizer, max_lr=rates, total_steps=max(2, steps), cycle_momentum=_has_momentum(optimizer)
        )
    warm_up = max(1, steps // 20)
    return SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_factor=0.01, total_iters=warm_up),
            CosineAnnealingLR(optimizer, T_max=max(1, steps - warm_up)),
        ],
        milestones=[warm_up],
    )


def _has_momentum(optimizer: Optimizer) -> bool:
    return "momentum" in optimizer.defaults or "betas" in optimizer.defaults
