"""Train a model: `fit`, and the run that it gives back."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.device import Device, Hardware, Precision, choose_hardware
from layerkit.errors import warn
from layerkit.heads.families import family_of
from layerkit.intervals import Estimate
from layerkit.loading import PictureLoader
from layerkit.tasks import Task
from layerkit.tasks.classes import warn_of_unmeasured
from layerkit.tasks.targets import map_targets
from layerkit.training.best import make_best
from layerkit.training.checkpoint import Checkpoint
from layerkit.training.history import History
from layerkit.training.identity import (
    circumstances_of,
    describe,
    describe_callbacks,
    describe_metrics,
    identity_of,
    remembered,
    settings_of,
)
from layerkit.training.interrupting import Interruption
from layerkit.training.loop import check_is_shared
from layerkit.training.losses import as_task
from layerkit.training.mistakes import check_classes, check_initialized, check_roles, check_tensors
from layerkit.training.moments import Callbacks, State
from layerkit.training.optimizers import OptimizerLike, check_rate
from layerkit.training.outcome import measure_uncertainty
from layerkit.training.phases import frozen_phase, full_phase
from layerkit.training.progress import Progress
from layerkit.training.schedules import Schedule, check_schedule
from layerkit.training.session import Session, prepared

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection


@dataclass
class Run:
    """What `fit` did. The model itself holds the best weights.

    Attributes
    ----------
    history : History
        One row an epoch.
    best_epoch : int
        The epoch whose weights the model holds, counted from 1.
    best_value : float or None
        What was monitored, in that epoch.
    monitor : str or None
        What was monitored; ``None`` without a validation part.
    reason : str
        Which epoch is the best, and why, in words.
    device : str
        The device, precision and memory format.
    figures : dict of str to float
        What was measured in the best epoch, under the names of the history; each knows its 95% confidence
        interval as ``figure.low`` and ``figure.high``. Empty without a validation part, with a plain loss, and
        under several processes.
    settings : dict of str to str
        What `fit` was asked for, in words.
    """

    history: History = field(repr=False)
    best_epoch: int
    best_value: float | None
    monitor: str | None
    reason: str
    device: str
    figures: dict[str, Estimate] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict, repr=False)


def fit(
    model: nn.Module,
    task: Task | Callable[[Tensor, Any], Tensor],
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    epochs: int,
    frozen_epochs: int = 0,
    lr: float | None = None,
    optimizer: OptimizerLike = None,
    schedule: Schedule = None,
    callbacks: Sequence[Any] = (),
    metrics: "Mapping[str, Metric] | None" = None,
    monitor: str = "valid_loss",
    checkpoint: str | Path | Checkpoint | None = None,
    seed: int | None = None,
    progress: bool = True,
    views: int = 1,
    nonfinite: Literal["raise", "skip"] = "raise",
    device: Device = "auto",
    precision: Precision = "auto",
    channels_last: bool | Literal["auto"] = "auto",
    compile: bool = False,
    deterministic: bool = False,
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> Run:
    """Train a model in place; afterwards it holds the weights of its best epoch, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Gives raw logits. It is moved to the device, and its trainable parameters are changed.
    task : Task or callable
        For example ``Multiclass(data.classes)``, or any loss called with (logits, targets).
    train, valid : iterable of (inputs, targets)
        Loaders: those of `folder_loaders`, or any `DataLoader`. Without `valid` the last weights are kept.
    epochs : int
        How many in all, at least 1.
    frozen_epochs : int
        The first so many of `epochs` train the head alone: the backbone runs once over all pictures, in
        evaluation mode, and its output is used again in each of them. Where no others follow, a small linear head
        starts from its exact optimum, as `solve_head` finds it.
    lr : float, optional
        The learning rate of layerkit's optimizer, or of the class passed as `optimizer`.
    optimizer : torch.optim.Optimizer, class or factory, optional
        A class or factory gets a list of the trainable parameters. By default AdamW at 2e-4, ten times that
        for a head that starts at zero, as `replace_head` leaves it, and a one-cycle schedule.
    schedule : str, torch scheduler or factory, optional
        ``"one-cycle"``, ``"cosine"``, ``"step"``, ``"plateau"`` or ``"constant"``; a scheduler made for
        `optimizer`; or a callable that gets the optimizer. Torch's schedulers step by epoch, except
        `OneCycleLR` and `CyclicLR`; `per_batch` says otherwise. With an `optimizer` of yours the default is
        a constant rate.
    callbacks : sequence of objects
        Those of ``layerkit.callbacks``, or any objects with some of the same moments.
    metrics : dict of str to torchmetrics.Metric, optional
        Instead of the task's own.
    monitor : str
        What decides which epoch is the best: ``"valid_loss"`` or ``"valid_<metric>"``.
    checkpoint : str, Path or Checkpoint, optional
        A folder for the state of the run: before the first step, every five minutes and after each epoch. Killed
        at any moment, the same call goes on from there and, with layerkit's loaders, ends in the same bits; with
        others it goes on from the last whole epoch. When the run is done, it returns at once.
    seed : int, optional
        Governs what the model draws (dropout). Torch's global generator is put back afterwards. ``None`` draws
        from it as a loop of your own would.
    progress : bool
        Whether to show a bar and a line an epoch, on stderr.
    views : int
        How many differently augmented passes the frozen phase takes turns with; 1 is the eval transform.
    nonfinite : {"raise", "skip"}
        What to do where a loss or gradient is NaN or infinite: stop, or leave that step out and say so. On an
        accelerator ``"raise"`` looks before each save and at the end of an epoch, and ``"skip"`` at each step,
        which waits for the device.
    device : str or torch.device
        ``"auto"`` takes the accelerator that torch finds, else the CPU.
    precision : {"auto", "fp32", "bf16", "fp16"}
        ``"auto"`` is fp32 on a CPU, and bf16 or else fp16 on an accelerator.
    channels_last : bool or "auto"
        The memory format of convolutions; ``"auto"`` takes it where there are any, since it is faster, and all modules
        are torch's, torchvision's or timm's. One of your own may need ``reshape`` where it calls ``view``.
    compile : bool
        Whether to compile the training step (``torch.compile``): slow to start, and faster afterwards on a GPU.
    deterministic : bool
        Whether to take only algorithms that give the same bits each time; a CPU does so anyway. On a GPU this is
        slower, and raises where there is no such algorithm.
    accumulate : int
        How many batches make one step of the optimizer.
    clip_norm : float, optional
        The largest norm of the gradient over all parameters.

    Returns
    -------
    Run
        The history, and which epoch is the best and why.

    Raises
    ------
    ValueError, TypeError
        An argument is not as described, or stands in another's place; a loss with ``reduction="sum"`` meets
        `accumulate` or several processes; a tensor of the model cannot be put back or saved. Nothing was trained.
    NonFiniteError
        A loss or gradient is NaN or infinite; the model holds the best weights so far.
    CheckpointError
        The folder holds another run, its file is damaged, or it cannot be written.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, or SIGTERM (with 143): the step was finished, the state saved, and the model holds the best
        weights so far. A second Ctrl-C stops at once.

    Warns
    -----
    LayerkitWarning
        All epochs are frozen ones, and a setting was passed that governs the others; or a class has no picture in the
        training or in the held-out part.

    Notes
    -----
    Under ``torchrun`` the processes share the work: see the guide on several processes.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from layerkit import Multiclass, fit
    >>> _ = torch.manual_seed(0)
    >>> inputs = torch.randn(64, 2)
    >>> data = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=16)
    >>> run = fit(torch.nn.Linear(2, 2), Multiclass(2), data, data, epochs=20, lr=0.1, progress=False)
    >>> run.history[-1]["valid_accuracy"] > 0.9
    True
    """
    check_roles(model, train=train, valid=valid)
    _check_arguments(model, epochs, frozen_epochs, accumulate, views, clip_norm)
    epochs, frozen_epochs, accumulate, views = map(int, (epochs, frozen_epochs, accumulate, views))
    lr, seed = check_rate(lr), _check_seed(seed)
    clip_norm = None if clip_norm is None else float(clip_norm)
    check_schedule(schedule)
    skips_nonfinite = _skips(nonfinite)
    if checkpoint is not None:
        check_initialized(model)
    check_tensors(model, are_saved=checkpoint is not None)
    if frozen_epochs == epochs:
        _warn_of_idle(
            lr=lr, optimizer=optimizer, schedule=schedule, clip_norm=clip_norm,
            accumulate=None if accumulate == 1 else accumulate, compile=compile or None,
        )  # fmt: skip
    called = Callbacks(callbacks)
    task = as_task(task)
    _check_divisible(task, accumulate)
    for loader in (train, valid):
        check_classes(task, loader)
    hardware = choose_hardware(model, device, precision, channels_last)
    distributed.join_group(hardware.device)
    _check_shared(model, train, valid)
    measures = _make_metrics(task, metrics, hardware) if valid is not None else None
    best = make_best(monitor, measures)
    state = State(model, task, best.monitor, best.lower_is_better, epochs, History())
    lines = Progress(shown=progress)
    session = Session(model, task, hardware, measures, best, lines, called, state, Interruption())
    used = model, task, getattr(task, "function", None), optimizer, schedule, *called.callbacks
    with (
        remembered(*used),
        prepared(session, seed),
        _algorithms(deterministic=deterministic),
    ):
        lines.say(f"on {hardware}{_with_processes()}")
        if checkpoint is not None:
            session.open_checkpoint(
                checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint),
                identity_of(model, task, train, valid, seed, monitor)
                | {"epochs": epochs, "frozen_epochs": frozen_epochs, "views": views, "lr": lr}
                | {"accumulate": accumulate, "clip_norm": clip_norm, "nonfinite": nonfinite}
                | {"optimizer": describe(optimizer), "schedule": describe(schedule)}
                | {"callbacks": describe_callbacks(callbacks), "metrics": describe_metrics(metrics)},
                circumstances_of(hardware, compiled=compile),
            )
            if not isinstance(train, PictureLoader):
                lines.say("this loader cannot begin in the middle: a run goes on from its last whole epoch")
        prepare_task(task, train, lines)
        if isinstance(valid, PictureLoader):
            warn_of_unmeasured(task.absent(valid.dataset.targets))
        called.call("on_fit_start", state)
        # Made first, so that a mistake in its arguments is found before anything is trained.
        full = None if frozen_epochs == epochs else full_phase(
            model, task, train, valid, hardware,
            epochs=range(frozen_epochs, epochs), optimizer=optimizer, schedule=schedule, lr=lr,
            lower_is_better=best.lower_is_better, accumulate=accumulate, clip_norm=clip_norm,
            skips_nonfinite=skips_nonfinite, compiles=compile,
        )  # fmt: skip
        if session.done < frozen_epochs and not session.is_stopped:
            frozen = frozen_phase(
                model, task, train, valid, hardware,
                epochs=range(frozen_epochs), views=views, is_last=full is None, skips_nonfinite=skips_nonfinite,
                progress=lines, between=session.heed_alone,
            )  # fmt: skip
            session.run(frozen, is_last=full is None)
        if full is not None and session.done < epochs and not session.is_stopped:
            if session.done == frozen_epochs and not session.is_within(full):
                session.keep_all_of_best()
            session.run(full, is_last=True)
        if session.is_stopped:
            lines.say(f"stopped after epoch {session.done}: {state.stopped}")
        called.call("on_fit_end", state)
    session.history.monitor, session.history.best_epoch = best.monitor, best.epoch
    own_metrics = measures if metrics is not None else None
    figures = measure_uncertainty(best, task, session.history, own_metrics, lines)
    lines.say(f"the model holds the weights of {best.reason()}")
    settings = settings_of(
        epochs=epochs, frozen_epochs=frozen_epochs, lr=lr, optimizer=optimizer, schedule=schedule, seed=seed,
        callbacks=tuple(callbacks), metrics=metrics, views=views, accumulate=accumulate, clip_norm=clip_norm,
        nonfinite=nonfinite, compile=compile, deterministic=deterministic,
    )  # fmt: skip
    return Run(
        session.history, best.epoch, best.value, best.monitor, best.reason(), str(hardware), figures, settings
    )


def _warn_of_idle(**settings: Any) -> None:
    """Say which settings are those of the phase that this run does not have."""
    idle = [name for name, value in settings.items() if value is not None]
    if idle:
        warn(
            f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect where all epochs are frozen ones: "
            "these have an optimizer of their own; expected more `epochs` than `frozen_epochs`. Raise `epochs` to "
            "train the whole model afterwards, or leave it out."
        )


def _check_divisible(task: Task, accumulate: int) -> None:
    """Refuse a loss whose gradient depends on how a step is taken in pieces."""
    if task.adds_up and (accumulate > 1 or distributed.world() > 1):
        raise ValueError(
            "The loss has reduction='sum', and a step is taken in pieces; expected a mean, whose gradient does not "
            "depend on the pieces. Pass reduction='mean', or take each batch whole, in one process."
        )


def _skips(nonfinite: str) -> bool:
    if nonfinite not in ("raise", "skip"):
        raise ValueError(
            f"`nonfinite` is {nonfinite!r}; expected 'raise' or 'skip'. With 'skip', a step whose loss or gradient "
            "is not finite is left out and counted."
        )
    return nonfinite == "skip"


@contextmanager
def _algorithms(*, deterministic: bool) -> Iterator[None]:
    """Have torch take only algorithms that always give the same bits, if so wanted, and put that back."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    if deterministic:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _check_seed(seed: Any) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not -(2**63) <= int(seed) < 2**64:
        raise ValueError(
            f"`seed` is {seed!r}; expected a whole number that fits 64 bits, or None. 0 will do."
        )
    return int(seed)


def _with_processes() -> str:
    return f", {distributed.world()} processes" if distributed.world() > 1 else ""


def _check_shared(model: nn.Module, train: Iterable[Any], valid: Iterable[Any] | None) -> None:
    """Refuse what several processes could not share out among them."""
    if distributed.world() == 1:
        return
    for name, loader in (("train", train), ("valid", valid)):
        check_is_shared(name, loader)
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        raise TypeError(
            "The model's parameters are sharded among processes already; expected a plain model, which every "
            "process holds whole. fit() shares the batches out, not the model."
        )


def prepare_task(task: Task, train: Iterable[Any], progress: Progress) -> None:
    """Show the task all training targets once, if it needs them or the loader is layerkit's, which has them."""
    targets = getattr(getattr(train, "dataset", None), "targets", None)
    if isinstance(train, PictureLoader):
        task.examine(targets)
    if not task.needs_targets:
        return
    if targets is None:
        progress.say("reading the training loader once for its targets")
        targets = map_targets(lambda *parts: torch.cat(parts), *(target for _, target in train))
    found = task.prepare(targets)
    if found:
        progress.say(found)


def _make_metrics(
    task: Task, metrics: "Mapping[str, Metric] | None", hardware: Hardware
) -> "MetricCollection":
    from torchmetrics import Metric, MetricCollection

    if metrics is not None:
        is_named = isinstance(metrics, Mapping | MetricCollection)
        if not is_named or not all(isinstance(one, Metric) for one in metrics.values()):
            raise TypeError(
                f"`metrics` is {metrics!r}; expected torchmetrics' metrics by name, such as "
                "{'f1': MulticlassF1Score(num_classes=2)}."
            )
        if "loss" in metrics:
            raise ValueError(
                "A metric is called 'loss', as the loss itself is; expected another name: rename it."
            )
    made = task.metrics() if metrics is None else MetricCollection(dict(metrics), compute_groups=False)
    return made.to(hardware.device)


def _check_arguments(
    model: nn.Module, epochs: int, frozen_epochs: int, accumulate: int, views: int, clip_norm: float | None
) -> None:
    numbers: list[tuple[str, Any, int, str]] = [
        ("epochs", epochs, 1, "To evaluate without training, use evaluate(model, task, loader)."),
        ("frozen_epochs", frozen_epochs, 0, "0 trains the whole model from the start."),
        ("accumulate", accumulate, 1, "1 takes a step after each batch."),
        ("views", views, 1, "1 sees each picture as in evaluation."),
    ]
    for name, value, smallest, hint in numbers:
        if isinstance(value, bool) or not isinstance(value, Integral) or value < smallest:
            raise ValueError(f"`{name}` is {value!r}; expected a whole number of at least {smallest}. {hint}")
    if frozen_epochs > epochs:
        raise ValueError(
            f"`frozen_epochs` is {frozen_epochs} and `epochs` is {epochs}; expected at most that many, since they "
            f"are the first of them. To train the whole model afterwards, raise epochs above {frozen_epochs}."
        )
    if clip_norm is not None and not (isinstance(clip_norm, Real) and clip_norm > 0):
        raise ValueError(f"`clip_norm` is {clip_norm!r}; expected a number above zero, such as 1.0, or None.")
    known = family_of(model)
    if known is not None and known[1].kind == "detection":
        raise TypeError(
            f"{type(model).__name__} detects objects and computes its own losses; fit() expects a model from "
            "pictures to logits. Train it in a loop of your own: sum(model(images, targets).values()).backward()."
        )
