"""One epoch: the training step, and the pass over held-out data."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerkit.errors import NonFiniteError
from layerkit.tasks import Task
from layerkit.tasks.outputs import split_output
from layerkit.tasks.targets import map_targets
from layerkit.training.device import Hardware
from layerkit.training.mistakes import check_ending
from layerkit.training.progress import Progress
from layerkit.training.schedules import Stepper

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Batch = tuple[Tensor, Any]


@dataclass
class Trainer:
    """What a training step needs, and how it is done."""

    model: nn.Module
    task: Task
    optimizer: Optimizer
    hardware: Hardware
    accumulate: int = 1
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        self.scaler = self.hardware.scaler()
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._is_first_batch = True

    def train_epoch(
        self, batches: Iterable[Batch], schedule: Stepper, progress: Progress, label: str
    ) -> tuple[float, int]:
        """Train on every batch once; give the mean loss and the number of images."""
        self.model.train()
        total, images = 0.0, 0
        for number, group in enumerate(_groups(batches, self.accumulate)):
            size = sum(len(inputs) for inputs, _ in group)
            loss = self._step(group, size, f"{label}, batch {number}")
            schedule.after_batch()
            total += loss * size
            images += size
            progress.advance(size)
            if progress.wants_figures():
                progress.figures(label, float(loss))
        _check_not_empty(images)
        mean = float(total) / images
        _check_finite(mean, label)
        return mean, images

    def _step(self, group: list[Batch], size: int, where: str) -> Any:
        """Take one step of the optimizer; give the mean loss, a number on a CPU and a tensor elsewhere."""
        moved = [self._move(inputs, target) for inputs, target in group]

        def closure() -> Any:
            self.optimizer.zero_grad()
            loss = sum(self._backward(inputs, target, len(inputs) / size) for inputs, target in moved)
            return self._checked(loss, where)

        if self.scaler is None:
            return self.optimizer.step(closure)
        loss = closure()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _move(self, inputs: Tensor, target: Any) -> Batch:
        """Check a batch's targets on the host, where that waits for nothing, and bring it to the device."""
        target = self.task.check(target)
        return self.hardware.move(inputs), _to_device(target, self.hardware.device)

    def _backward(self, inputs: Tensor, target: Any, share: float) -> Any:
        with self.hardware.autocast():
            output = self.model(inputs)
            if self._is_first_batch:
                check_ending(self.task, output)
                self._is_first_batch = False
            loss = self.task.checked_loss(output, target)
        if share != 1:
            loss = loss * share
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        return loss.item() if loss.device.type == "cpu" else loss.detach()

    def _checked(self, loss: Any, where: str) -> Any:
        """Clip the gradient if asked and, where that waits for nothing, stop before a step that would spoil all."""
        if self.clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        if self.hardware.device.type == "cpu":
            _check_finite(loss, where)
            if self.clip_norm is None:
                norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
            _check_finite(norm.item(), where, "gradient")
        return loss


@torch.no_grad()
def validate(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    hardware: Hardware,
    metrics: "MetricCollection | None",
    progress: Progress | None = None,
) -> dict[str, float]:
    """Pass once over held-out data; give the mean loss and the metrics."""
    model.eval()
    if metrics is not None:
        metrics.reset()
    exact = torch.float32 if hardware.device.type == "mps" else torch.float64
    total, images = torch.zeros((), dtype=exact, device=hardware.device), 0
    for inputs, target in map(_pair, batches):
        target = _to_device(task.check(target), hardware.device)
        with hardware.autocast():
            output = model(hardware.move(inputs))
            loss = task.checked_loss(output, target)
        total += loss.to(exact) * len(inputs)
        images += len(inputs)
        logits, _ = split_output(output)
        if metrics is not None:
            metrics.update(*task.metric_inputs(logits.float(), target))
        if progress is not None:
            progress.advance(len(inputs))
    _check_not_empty(images)
    values = {} if metrics is None else metrics.compute()
    return {"loss": total.item() / images, **{name: float(value) for name, value in values.items()}}


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = (_pair(batch) for batch in batches)
    while group := list(islice(iterator, size)):
        yield group


def _pair(batch: Any) -> Batch:
    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[0], Tensor):
        return batch[0], batch[1]
    raise TypeError(
        f"The loader gave a {type(batch).__name__}{f' of {len(batch)}' if hasattr(batch, '__len__') else ''}; "
        "expected pairs of (inputs, targets), inputs being a tensor (N, ...). Change its dataset or collate_fn."
    )


def _check_not_empty(images: int) -> None:
    if not images:
        raise ValueError("The loader gave no batch; expected at least one picture. Check the folder.")


def _to_device(target: Any, device: torch.device) -> Any:
    return map_targets(lambda part: part.to(device, non_blocking=True), target)


def _check_finite(value: float, where: str, what: str = "loss") -> None:
    if not math.isfinite(value):
        raise NonFiniteError(
            f"The {what} is {value} in {where}; expected a finite number. Lower the learning rate, clip the "
            "gradient with clip_norm=1.0, or look at the pictures and targets of that batch. The weights of the "
            "best epoch are kept."
        )
