"""A run in progress: what both phases share, and what a checkpoint holds of it."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layerkit.tasks import Task
from layerkit.training.best import Best
from layerkit.training.checkpoint import Checkpoint
from layerkit.training.device import Hardware, move_model
from layerkit.training.history import History, Row, format_row
from layerkit.training.loop import validate
from layerkit.training.phases import HasEpochs, Phase, count_images
from layerkit.training.progress import Progress
from layerkit.training.weights import copy_of_weights, put_weights

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass
class Session:
    """A run in progress."""

    model: nn.Module
    task: Task
    train: Iterable[Any]
    valid: Iterable[Any] | None
    hardware: Hardware
    metrics: "MetricCollection | None"
    best: Best
    progress: Progress
    epochs: int
    history: History = field(default_factory=History)
    checkpoint: Checkpoint | None = None
    resumed: dict[str, Any] | None = None
    _saved_at: float = 0.0

    @property
    def done(self) -> int:
        """How many epochs are behind it."""
        return len(self.history)

    def run(self, phase: Phase) -> None:
        """Train through a phase, from where a checkpoint left it."""
        if self.resumed is not None and self.resumed["phase"]["name"] == phase.name:
            phase.load_state(self.resumed["phase"])
        left = [epoch for epoch in phase.epochs if epoch >= self.done]
        self.progress.open(_total_images(phase, len(left)), phase.name)
        if self.resumed is not None:
            torch.set_rng_state(self.resumed["rng"])  # last: preparing a phase may have drawn
            self.resumed = None
        for epoch in left:
            row = self._run_epoch(phase, epoch)
            self.history.append(row)
            value = row.get(self.best.monitor) if self.best.monitor else None
            is_best = self.best.beaten_by(value)
            if is_best:
                self.best.epoch, self.best.value = epoch + 1, value
                self.best.weights.update(phase.weights())
            self.progress.say(format_row(row, epochs=self.epochs, best=is_best))
            self._save(phase, last=epoch == phase.epochs[-1])
        self.progress.close()

    def _run_epoch(self, phase: Phase, epoch: int) -> Row:
        started = time.perf_counter()
        for loader in (phase.train, phase.valid):
            if isinstance(loader, HasEpochs):
                loader.set_epoch(epoch)
        row: Row = {"epoch": epoch + 1, "phase": phase.name}
        label = f"epoch {epoch + 1}/{self.epochs}"
        row["train_loss"], images = phase.trainer.train_epoch(
            phase.train, phase.schedule, self.progress, label
        )
        seconds = time.perf_counter() - started
        phase.schedule.after_training_epoch()
        if phase.valid is not None:
            figures = validate(
                phase.trainer.model, self.task, phase.valid, self.hardware, self.metrics, self.progress
            )
            row |= {f"valid_{name}": value for name, value in figures.items()}
            phase.schedule.after_validation(row[self.best.monitor or "valid_loss"])
        row |= {
            "lr": phase.schedule.last_rate,
            "seconds": time.perf_counter() - started,
            "images_per_second": images / seconds,
        }
        return row

    def keep_all_of_best(self) -> None:
        """Go on from the frozen phase's best head; the backbone, about to change, is part of that best too."""
        self.apply_best()
        if self.best.weights:
            self.best.weights = copy_of_weights(self.model)

    def apply_best(self) -> None:
        """Put the best weights into the model."""
        put_weights(self.model, self.best.weights)

    def open_checkpoint(self, folder: str | Path | None, identity: Mapping[str, Any]) -> None:
        """Take up a run that was begun in this folder."""
        if folder is None:
            return
        self.checkpoint = Checkpoint(folder, identity)
        state = self.checkpoint.load()
        if state is None:
            return
        self.resumed = state
        self.history = History(state["history"])
        self.best.epoch, self.best.value = state["best"]["epoch"], state["best"]["value"]
        self.best.weights = {
            name: value.to(self.hardware.device) for name, value in state["best"]["weights"].items()
        }
        self.task.load_state_dict(state["task"])
        finished = "is finished" if self.done >= self.epochs else f"goes on after epoch {self.done}"
        self.progress.say(f"the run in {folder} {finished}")

    def _save(self, phase: Phase, *, last: bool) -> None:
        """Save after an epoch; those of the frozen phase can be too short for a file each."""
        if self.checkpoint is None or not (last or time.monotonic() - self._saved_at > 1):
            return
        best = {"epoch": self.best.epoch, "value": self.best.value, "weights": self.best.weights}
        self.checkpoint.save(
            {
                "history": list(self.history),
                "best": best,
                "task": dict(self.task.state_dict()),
                "phase": phase.state(),
                "rng": torch.get_rng_state(),
            }
        )
        self._saved_at = time.monotonic()


@contextmanager
def prepared(session: Session, seed: int | None) -> Iterator[None]:
    """Set up the device and the random state; however it ends, leave the best weights and put the rest back."""
    model, hardware = session.model, session.hardware
    changed_format = move_model(model, hardware)
    session.task.to(hardware.device)
    devices = [hardware.device] if hardware.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        session.progress.close()
        session.apply_best()
        model.eval()
        if changed_format:
            model.to(memory_format=torch.contiguous_format)


def _total_images(phase: Phase, epochs: int) -> int | None:
    sizes = [count_images(loader) for loader in (phase.train, phase.valid) if loader is not None]
    return None if None in sizes else epochs * sum(size or 0 for size in sizes)
