"""A run in progress: what both phases share, and what a checkpoint holds of it."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from layerkit import distributed
from layerkit.device import Hardware, move_model
from layerkit.errors import CheckpointError, LayerkitError, NonFiniteError, count_of
from layerkit.loading import PictureLoader
from layerkit.saving import checksum, copies
from layerkit.tasks import Task
from layerkit.tasks.targets import map_targets
from layerkit.training.best import Best
from layerkit.training.checkpoint import Checkpoint, Store
from layerkit.training.history import History, Row, format_row
from layerkit.training.interrupting import Interruption
from layerkit.training.loop import NonFiniteStepError, Tally, validate
from layerkit.training.mistakes import lazy_parameters
from layerkit.training.moments import Callbacks, State
from layerkit.training.phases import Phase, begin_epoch, count_images
from layerkit.training.progress import Progress
from layerkit.training.randomness import RandomState, put_random_state, random_state
from layerkit.training.weights import copy_of_weights, put_weights

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

_SHORT_SECONDS = 1.0

_STEPS_BETWEEN_WORDS = 8
"""After so many steps several processes ask each other whether to save or stop: each step would be a wait."""


@dataclass
class Session:
    """A run in progress."""

    model: nn.Module
    task: Task
    hardware: Hardware
    metrics: "MetricCollection | None"
    best: Best
    progress: Progress
    callbacks: Callbacks
    state: State
    interruption: Interruption
    store: Store | None = None
    every_seconds: float = 0.0
    resumed: dict[str, Any] | None = None
    tally: Tally = field(default_factory=Tally)
    has_begun: bool = False
    _saved_at: float | None = None
    _epoch_began: float = 0.0
    _steps: int = 0  # taken in this process
    _world: int = field(default_factory=distributed.world)
    _backbone: dict[str, Any] | None = None  # as long as it is frozen
    _began_with: dict[str, Tensor] = field(default_factory=dict)  # until there is a best epoch
    _before_validating: list[RandomState] = field(default_factory=list)  # what a validation begins with
    _answers: list[tuple[Tensor, Any]] = field(default_factory=list)

    @property
    def history(self) -> History:
        """The rows so far."""
        return self.state.history

    @property
    def done(self) -> int:
        """How many epochs are behind it."""
        return len(self.history)

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has ended the run, and the epoch in which that was is done."""
        tally = self.resumed["tally"] if self.resumed is not None else vars(self.tally)
        return bool(self.state.stopped) and self.done > 0 and not tally["batch"]

    def is_within(self, phase: Phase) -> bool:
        """Tell whether a run that goes on had begun a phase."""
        return self.resumed is not None and self.resumed["phase"]["name"] == phase.name

    def run(self, phase: Phase, *, is_last: bool) -> None:
        """Train through a phase, from where a checkpoint left it."""
        state, device = self.state, self.hardware.device
        self.has_begun = True
        state.phase, state.is_last_phase, state.optimizer = phase.name, is_last, phase.trainer.optimizer
        left = [epoch for epoch in phase.epochs if epoch >= self.done]
        if phase.name == "frozen" and self.store is not None and self._backbone is None:
            self._backbone = backbone_of(self.model, heads=phase.weights(self.model))
        if phase.name == "full" and not self.best.weights and not lazy_parameters(self.model):
            self._began_with = copy_of_weights(self.model)
        self._take_up(phase)
        if not phase.is_shared:  # each process trains the same head, and draws the same for it
            put_random_state(distributed.gather_objects(random_state(device))[0], device)
        self.progress.open(_total_images(phase, len(left)), f"{phase.name} phase")
        self.progress.advance(self.tally.images)
        if self._saved_at is None:
            self._save(phase)
        with _one_thread() if phase.by_one_thread else nullcontext(), self._explained():
            for epoch in left:
                self._end_epoch(phase, self._run_epoch(phase, epoch))
                if state.stopped:
                    break
            if not phase.is_shared:  # the same but for what a device rounds
                distributed.copy_from_first([*self.best.weights.values(), *self.best.task.values()])
        if self.store is not None:
            self.store.finish()
        self.progress.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Put what ends a phase into words, and leave no spoiled weights behind."""
        try:
            yield
        except NonFiniteError:
            put_weights(self.model, self._began_with)
            raise
        except RuntimeError as error:
            if not isinstance(error, LayerkitError):
                self.interruption.heed()  # Ctrl-C also ends a foreign loader's workers, which it reports first
            if self.store is not None and distributed.is_loss_of_another(error):
                self.progress.say(
                    f"another process has ended; the same call goes on from {self.store.folder}"
                )
            raise

    def _take_up(self, phase: Phase) -> None:
        if self.resumed is None:
            return
        if self.is_within(phase):
            phase.load_state(self.resumed["phase"])
            self.tally = Tally(**self.resumed["tally"])
            self.tally.loss = float(self.tally.loss)
            if not distributed.is_writer():  # what was saved is the first process's part
                self.tally.loss, self.tally.images = 0.0, 0
        # Last: preparing a phase may have drawn. Other processes than before share the states that there are.
        states = self.resumed["random"]
        put_random_state(states[distributed.rank() % len(states)], self.hardware.device)
        self.resumed = None
        self._saved_at = time.monotonic()

    def _run_epoch(self, phase: Phase, epoch: int) -> Row:
        started = self._epoch_began = time.perf_counter() - self.tally.seconds
        self.state.epoch = epoch + 1
        begin_epoch(phase.train, epoch, self.tally.batch)
        if self.tally.batch:
            self.callbacks.resume_epoch(self.state)
        else:
            self.callbacks.call("on_epoch_start", self.state)
        row: Row = {"epoch": epoch + 1, "phase": phase.name}

        row["train_loss"] = self._train(phase, epoch, partial(self._after_step, phase))
        seconds = time.perf_counter() - started
        self._check_weights(phase)
        if phase.valid is not None:
            begin_epoch(phase.valid, epoch)  # only now: it may be the loader that is trained on
            self._before_validating = self._random_states(phase) if self._may_save_within(phase) else []
            figures = self._validate(phase, partial(self._between_held_out, phase))
            self._before_validating = []
            row |= {f"valid_{name}": value for name, value in figures.items()}
        phase.schedule.after_epoch(row.get(self.best.monitor or "valid_loss"))
        images = count_images(phase.train) or self.tally.images
        return row | {
            "lr": phase.schedule.rate_of_epoch(),
            "seconds": time.perf_counter() - started,
            "images_per_second": images / seconds,
        }

    def _check_weights(self, phase: Phase) -> None:
        """Look whether the last step, whose loss was finite still, or a callback has spoiled the weights."""
        weights = [weight for weight in phase.trainer.parameters if weight.requires_grad]
        norms = [module for module in phase.trainer.model.modules() if isinstance(module, _BatchNorm)]
        weights += [
            part for norm in norms for part in (norm.running_mean, norm.running_var) if part is not None
        ]
        is_spoiled = not all(bool(weight.isfinite().all()) for weight in weights)
        if phase.is_shared:  # batch norm has seen other pictures in each process
            is_spoiled = bool(
                distributed.largest_of_all(torch.tensor(is_spoiled, device=weights[0].device).int())
            )
        if not is_spoiled:
            return
        raise NonFiniteError(
            f"Weights of the model are not finite in epoch {self.done + 1}; expected finite numbers. Lower the "
            "learning rate, or clip the gradient with clip_norm=1.0. The model holds the best weights so far, or those "
            "that it began with."
        )

    def _train(self, phase: Phase, epoch: int, between: Callable[[], None]) -> float:
        label = f"epoch {epoch + 1}/{self.state.epochs}"
        try:
            loss = phase.trainer.train_epoch(
                phase.train, self.tally, self.state,
                callbacks=self.callbacks if phase.name == "full" else Callbacks(()),
                schedule=phase.schedule, progress=self.progress, label=label, after_step=between,
            )  # fmt: skip
        except NonFiniteStepError as error:
            files = _files(phase.train, epoch, self.tally.batch, phase.trainer.accumulate)
            raise NonFiniteError(f"{error}{files}") from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"The loader gave a batch of a single picture, of which batch norm can tell no spread ({error}); "
                "expected two at least. Pass drop_last=True to your DataLoader, or use folder_loaders(), which "
                "joins such a batch to the one before."
            ) from error
        if self.tally.skipped:
            first = self.tally.skipped[0]
            self.progress.say(
                f"{label}: {count_of(len(self.tally.skipped), 'step')} left out, whose loss or gradient was not "
                f"finite, batch {first} first.{_files(phase.train, epoch, first, phase.trainer.accumulate)}"
            )
        return loss

    def _validate(self, phase: Phase, between: Callable[[], None]) -> dict[str, float]:
        is_shared = phase.trainer.is_shared
        evaluated = self._evaluated(phase)
        self._answers.clear()
        if is_shared:  # batch norm has seen another slice in each process
            distributed.copy_from_first(list(evaluated.buffers()))
        assert phase.valid is not None
        return validate(
            evaluated, self.task, phase.valid, self.hardware, self.metrics, self.progress,
            is_shared=is_shared, between=between, keep=self._keep_answers,
        )  # fmt: skip

    def _keep_answers(self, logits: Tensor, target: Any) -> None:
        """Keep what was answered, one row a picture, until it is known whether this epoch is the best."""
        if logits.ndim <= 2 and distributed.world() == 1:
            self._answers.append((logits, target))

    def _evaluated(self, phase: Phase) -> nn.Module:
        own = self.state.evaluated if phase.name == "full" else None
        return phase.trainer.model if own is None else own

    def _end_epoch(self, phase: Phase, row: Row) -> None:
        self.history.append(row)
        self.state.row = row
        self.tally = Tally()
        value = row.get(self.best.monitor) if self.best.monitor else None
        is_best = self.best.beaten_by(value)
        if is_best:
            self._began_with = {}
            self.best.epoch, self.best.value = row["epoch"], value
            self.best.weights.update(phase.weights(self._evaluated(phase)))
            self.best.task = copy.deepcopy(dict(self.task.state_dict()))
            self.best.answers = {}
            if self._answers:
                logits, target = zip(*self._answers, strict=True)
                joined = map_targets(lambda *parts: torch.cat(parts), *target)
                self.best.answers = {"logits": torch.cat(logits), "target": joined}
        self.progress.say(format_row(row, epochs=self.state.epochs, best=is_best))
        self.callbacks.call("on_epoch_end", self.state)
        signal = self._agree()
        is_end = row["epoch"] == phase.epochs[-1] + 1 or bool(self.state.stopped)
        # An epoch of the frozen phase can be too short for a file of its own.
        is_long = phase.name == "full" or self._seconds_since_saving() > _SHORT_SECONDS
        if is_end or is_long or signal:
            self._save(phase)
            if self.store is not None:
                self.store.keep_epoch(row["epoch"])
        self._heed(signal)

    def _after_step(self, phase: Phase) -> None:
        """Save or stop where it is time to; several processes do so after the same step."""
        if not self._is_wanted_by_any(phase, self._is_due or self.interruption.is_asked_for):
            return
        loss = phase.trainer.gather(self.tally)[0] if phase.is_shared else float(self.tally.loss)
        if phase.can_begin_anywhere:
            phase.trainer.check_so_far(loss)
            self._check_weights(phase)
        self._save_here(phase, self._agree())

    def _is_wanted_by_any(self, phase: Phase, is_wanted: bool) -> bool:
        if self._world == 1:
            return is_wanted
        self._steps += 1
        if not phase.is_shared or self._steps % _STEPS_BETWEEN_WORDS:
            return False
        return bool(distributed.largest_of_all(torch.tensor(int(is_wanted), device=self.hardware.device)))

    def _between_held_out(self, phase: Phase) -> None:
        """Do so within a validation, at whose end several processes stop: others would wait for one that has gone."""
        signal = self.interruption.signal if self._world == 1 else None
        if self._is_due or signal:
            self._save_here(phase, signal)

    def _agree(self) -> int | None:
        """Let the wish to stop be that of all processes; give the signal that any of them has got."""
        pairs = distributed.gather_objects((self.interruption.signal, self.state.stopped))
        self.state.stopped = next((reason for _, reason in pairs if reason), None)
        return max((signal for signal, _ in pairs if signal), default=None)

    @property
    def _is_due(self) -> bool:
        return self.store is not None and self._seconds_since_saving() >= self.every_seconds

    def _save_here(self, phase: Phase, signal: int | None) -> None:
        if phase.can_begin_anywhere:
            self.tally.seconds = time.perf_counter() - self._epoch_began
            self._save(phase)
        self._heed(signal)

    def heed_alone(self) -> None:
        """Stop here if that was asked for and no other process would wait; several stop after an epoch."""
        if self._world == 1:
            self.interruption.heed()

    def _heed(self, signal: int | None) -> None:
        if signal is None:
            return
        if self.store is not None:
            self.store.finish()
            self.progress.say(f"interrupted; the same call goes on from {self.store.folder}")
        self.interruption.signal = signal
        self.interruption.heed()

    def _seconds_since_saving(self) -> float:
        return 0.0 if self._saved_at is None else time.monotonic() - self._saved_at

    def _save(self, phase: Phase) -> None:
        self._saved_at = time.monotonic()
        if self.store is None:
            return
        state = {
            "history": list(self.history),
            "best_value": self.best.value,
            "best_answers": self.best.answers,
            "best_task": self.best.task,
            "task": dict(self.task.state_dict()),
            "phase": phase.state(),
            "tally": vars(self.tally),
            "callbacks": self.callbacks.state(),
            "stopped": self.state.stopped,
            "backbone": self._backbone if phase.name == "frozen" else None,
            "random": self._before_validating or self._random_states(phase),
        }
        self.store.save(state, self.best.epoch, self.best.weights)

    def _random_states(self, phase: Phase) -> list[RandomState]:
        """Give what each process goes on to draw from; those that do not share a phase draw the same."""
        own = random_state(self.hardware.device)
        return distributed.gather_objects(own) if phase.is_shared else [own]

    def _may_save_within(self, phase: Phase) -> bool:
        return self.store is not None and phase.can_begin_anywhere

    def keep_all_of_best(self) -> None:
        """Go on from the frozen phase's best head; the backbone, about to change, is part of that best too."""
        self.apply_best()
        if self.best.weights:
            self.best.weights = copy_of_weights(self.model)
            if self.store is not None:
                self.store.forget_best()

    def apply_best(self) -> None:
        """Put the best weights into the model, and what the task had learnt by then into the task."""
        put_weights(self.model, self.best.weights)
        if self.best.task:
            self.task.load_state_dict(self.best.task)

    def open_checkpoint(
        self, checkpoint: Checkpoint, identity: Mapping[str, Any], circumstances: Mapping[str, Any]
    ) -> None:
        """Take up a run that was begun in this folder."""
        on_host = self.hardware.device.type == "cpu"
        self.store = Store(checkpoint, identity, circumstances, in_background=not on_host)
        self.every_seconds = checkpoint.every_seconds
        loaded = self.store.load()
        distributed.wait_for_all()  # or the first would write before another has looked
        if loaded is None:
            return
        self.resumed, weights = loaded
        before = self.resumed["backbone"]
        if before is not None and backbone_of(self.model, before["heads"]) != before:
            raise CheckpointError(
                f"{checkpoint.path} holds a run with another frozen backbone: the weights of "
                f"{type(self.model).__name__} beside its head are not those that it began with; expected the same. "
                "Load the same pretrained weights (or call torch.manual_seed() before the model is built), or pass "
                "another folder as checkpoint=."
            )
        self._backbone = before
        self.state.history.extend(self.resumed["history"])
        self.state.stopped = self.resumed["stopped"]
        self.best.epoch, self.best.value = self.resumed["best_epoch"], self.resumed["best_value"]
        device, task = self.hardware.device, self.resumed["best_task"]
        self.best.answers = self.resumed["best_answers"]
        self.best.weights = {name: value.to(device) for name, value in weights.items()}
        self.best.task = {name: value.to(device) for name, value in task.items()}
        self.task.load_state_dict(self.resumed["task"])
        self.callbacks.load_state(self.resumed["callbacks"])
        self._say_where_it_goes_on(checkpoint)

    def _say_where_it_goes_on(self, checkpoint: Checkpoint) -> None:
        assert self.store is not None
        assert self.resumed is not None
        batch = self.resumed["tally"]["batch"]
        where = f"goes on after epoch {self.done}" + (f" and {batch} batches" if batch else "")
        is_over = self.done >= self.state.epochs or self.is_stopped
        self.progress.say(f"the run in {checkpoint.path} {'is finished' if is_over else where}")
        if self.store.changes and not is_over:
            self.progress.say(
                f"{'; '.join(self.store.changes)}: it ends within tolerance of an undisturbed run, "
                "not in the same bits"
            )


def backbone_of(model: nn.Module, heads: Iterable[str]) -> dict[str, Any]:
    """Give a fingerprint of the weights beside the heads', which stand under these keys."""
    heads, state = sorted(heads), model.state_dict()
    places = {state[name].data_ptr() for name in heads}  # a head may have a second name
    others = {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor) and value.data_ptr() not in places
    }
    return {"heads": heads, "checksum": checksum(copies(others))}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch's operations on this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def prepared(session: Session, seed: int | None) -> Iterator[None]:
    """Set up the device and the random state; however it ends, leave the best weights and put the rest back."""
    model, hardware = session.model, session.hardware
    changed_format = move_model(model, hardware)
    session.task.to(hardware.device)
    # Several processes may have drawn other weights, and the frozen phase shares nothing later.
    distributed.copy_from_first([*model.parameters(), *model.buffers(), *session.task.parameters()])
    devices = [hardware.device] if hardware.device.type == "cuda" else []
    try:
        with session.interruption, torch.random.fork_rng(devices=devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield
            session.has_begun = True  # or there was nothing left to do
    finally:
        session.progress.close()
        if session.store is not None:
            session.store.close()
        session.apply_best()
        if session.has_begun:
            model.eval()
        if changed_format:
            model.to(memory_format=torch.contiguous_format)


def _files(loader: Any, epoch: int, batch: int, batches: int) -> str:
    """Name the pictures of a step, whose batches begin with this one."""
    if not isinstance(loader, PictureLoader) or batch >= len(loader):
        return ""
    files = [name for n in range(batch, min(batch + batches, len(loader))) for name in loader.files(epoch, n)]
    return (
        f" The step was on {', '.join(files[:8])}{f' and {len(files) - 8} more' if len(files) > 8 else ''}."
    )


def _total_images(phase: Phase, epochs: int) -> int | None:
    sizes = [count_images(loader) for loader in (phase.train, phase.valid) if loader is not None]
    return None if None in sizes else epochs * sum(size or 0 for size in sizes)
