"""What a callback is: an object with some of a few named moments, each of which gets the state of the run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from layerkit.errors import suggestion
from layerkit.saving import pack
from layerkit.tasks import Task
from layerkit.training.history import History, Row

MOMENTS = (
    "on_fit_start",
    "on_epoch_start",
    "on_epoch_resume",
    "on_batch_start",
    "on_batch_end",
    "on_epoch_end",
    "on_fit_end",
)


@dataclass
class State:
    """What a run is doing; callbacks read it, and may change what is said to be theirs.

    Attributes
    ----------
    model, task
        What is trained.
    monitor : str or None
        What decides which epoch is the best.
    lower_is_better : bool
        Its direction.
    epochs : int
        How many there are in all.
    epoch : int
        The present one, counted from 1 as in the history.
    phase : str
        ``"frozen"`` or ``"full"``.
    is_last_phase : bool
        Whether the run ends with this phase.
    optimizer : torch.optim.Optimizer or None
        That of the phase.
    inputs, target
        In `on_batch_start`: the batch, checked and on its device. A callback may put others in their place.
    evaluated : torch.nn.Module or None
        What is validated, kept and returned in place of the model. A callback may set it.
    history : History
        The rows so far.
    row : dict
        In `on_epoch_end`: that of the epoch that has ended.
    stopped : str or None
        Why the run ends early; set it by `stop`.
    """

    model: nn.Module
    task: Task
    monitor: str | None
    lower_is_better: bool
    epochs: int
    history: History
    epoch: int = 0
    phase: str = ""
    is_last_phase: bool = False
    optimizer: Optimizer | None = None
    inputs: Tensor | None = None
    target: Any = None
    evaluated: nn.Module | None = None
    row: Row = field(default_factory=dict)
    stopped: str | None = None

    def stop(self, reason: str) -> None:
        """End the run after this epoch; the reason is said and kept."""
        self.stopped = reason


class Callbacks:
    """Those of a run, called in the order in which they were given.

    Parameters
    ----------
    callbacks : iterable of objects
        Each has some of the moments `on_fit_start`, `on_epoch_start`, `on_epoch_resume` (in its place, where a run
        goes on in the middle of an epoch), `on_batch_start`, `on_batch_end`, `on_epoch_end`, `on_fit_end`, all
        called with a `State`; and, if it must remember something over a restart, `state_dict` and `load_state_dict`.

    Raises
    ------
    TypeError
        An object has none of these moments, or one of another name, which would never be called.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        if not isinstance(callbacks, Iterable):
            raise TypeError(
                f"`callbacks` is {callbacks!r}; expected a list of callbacks: put it in brackets."
            )
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            _check(callback)
        self._called: dict[str, list[Callable[[State], None]]] = {
            moment: [getattr(one, moment) for one in self.callbacks if hasattr(one, moment)]
            for moment in MOMENTS
        }

    def has(self, moment: str) -> bool:
        """Tell whether anything happens at a moment."""
        return bool(self._called[moment])

    def call(self, moment: str, state: State) -> None:
        """Let each callback that has this moment do its work."""
        for hook in self._called[moment]:
            hook(state)

    def resume_epoch(self, state: State) -> None:
        """Take up an epoch in its middle: for who remembers nothing, it begins."""
        for one in self.callbacks:
            if hasattr(one, "on_epoch_resume"):
                one.on_epoch_resume(state)
            elif hasattr(one, "on_epoch_start") and not hasattr(one, "state_dict"):
                one.on_epoch_start(state)

    def state(self) -> list[Any]:
        """Give what each of them remembers.

        Raises
        ------
        TypeError
            It is more than tensors, numbers, text, and lists and dicts of these.
        """
        states = [one.state_dict() if hasattr(one, "state_dict") else None for one in self.callbacks]
        for one, state in zip(self.callbacks, states, strict=True):
            pack(state, {}, f"{type(one).__name__}.state_dict()")
        return states

    def load_state(self, states: list[Any]) -> None:
        """Take back what `state` gave."""
        for one, state in zip(self.callbacks, states, strict=True):
            if state is not None:
                one.load_state_dict(state)


def _check(callback: Any) -> None:
    names = [name for name in dir(callback) if name.startswith("on_")]
    unknown = [name for name in names if name not in MOMENTS]
    if isinstance(callback, type):
        raise TypeError(f"A callback is the class {callback.__name__}; expected an object: add parentheses.")
    if unknown or not names:
        what = f"has {unknown[0]!r}, which is never called" if unknown else "has none of the moments"
        raise TypeError(
            f"The callback {callback!r} {what}; expected methods named {', '.join(MOMENTS)}."
            f"{suggestion(unknown[0], MOMENTS) if unknown else ''}"
        )
    for has, lacks in (("state_dict", "load_state_dict"), ("load_state_dict", "state_dict")):
        if hasattr(callback, has) and not hasattr(callback, lacks):
            raise TypeError(
                f"The callback {callback!r} has {has}() and no {lacks}(); expected both, since a run that goes on "
                "gives it back what it remembered. Add the other, or rename the one."
            )
