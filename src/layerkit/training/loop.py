"""One epoch: the training step, and the pass over held-out data."""

import cmath
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DistributedSampler

from layerkit import distributed
from layerkit.device import NO_CONTEXT, Hardware
from layerkit.errors import NonFiniteError
from layerkit.loading import PictureLoader
from layerkit.tasks import Task
from layerkit.tasks.outputs import split_output
from layerkit.tasks.targets import map_targets
from layerkit.training.memory import Pieces
from layerkit.training.mistakes import check_ending, check_inputs, check_model
from layerkit.training.moments import Callbacks, State
from layerkit.training.optimizers import needs_closure
from layerkit.training.progress import Progress
from layerkit.training.schedules import Stepper

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Batch = tuple[Tensor, Any]


class NonFiniteStepError(NonFiniteError):
    """It was one step's, whose batch is the one that the tally would count next."""


def nothing() -> None:
    """Do nothing, where a run is neither saved nor stopped between two batches."""


class Share(NamedTuple):
    """A batch, the number of its samples that count, and their number over all processes."""

    inputs: Tensor
    target: Any
    own: int
    whole: int


@dataclass
class Tally:
    """How far an epoch has come: with it, a run is taken up in the middle of one."""

    batch: int = 0
    loss: Any = 0.0  # summed over this process's images; a tensor on an accelerator
    images: int = 0
    seconds: float = 0.0
    skipped: list[int] = field(default_factory=list)  # batches whose loss or gradient was not finite


@dataclass
class Trainer:
    """What a training step needs, and how it is done."""

    model: nn.Module
    task: Task
    optimizer: Optimizer
    hardware: Hardware
    accumulate: int = 1
    clip_norm: float | None = None
    skips_nonfinite: bool = False
    compiles: bool = False
    is_shared: bool = False  # among processes, each with its slice of every batch

    def __post_init__(self) -> None:
        self.scaler = self.hardware.scaler()
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.world = distributed.world() if self.is_shared else 1
        self._is_first_batch = True
        self._needs_closure = needs_closure(self.optimizer)
        self._with_loss = _WithLoss(self.model, self.task)
        # A plain function where nobody needs a module: calling one costs as much as a small layer.
        plain = partial(_loss_and_output, self.model, self.task)
        self._forward: Any = torch.compile(self._with_loss) if self.compiles else plain
        self._shared: DistributedDataParallel | None = None
        self._pieces = Pieces(self.model, self.hardware.device, divides=not self.task.adds_up)
        self._trained: frozenset[int] = frozenset()

    def train_epoch(
        self,
        batches: Iterable[Batch],
        tally: Tally,
        state: State,
        *,
        callbacks: Callbacks,
        schedule: Stepper,
        progress: Progress,
        label: str,
        after_step: Callable[[], None],
    ) -> float:
        """Train on the batches that the tally has not counted yet; give the epoch's mean loss."""
        self._share_model()
        self.model.train()
        mixes = callbacks.has("on_batch_start")
        shares = shares_of(batches, self.world)
        while group := list(islice(shares, self.accumulate)):
            moved = [self._move(share) for share in group]
            if mixes:
                moved = [_as_callbacks_want(share, callbacks, state) for share in moved]
            whole = sum([share.whole for share in moved])
            loss = self._step(moved, whole, label, tally)
            tally.batch += len(group)
            if loss is not None:
                schedule.after_batch()
                callbacks.call("on_batch_end", state)
                tally.loss += loss * (whole / self.world)
                tally.images += sum([share.own for share in moved])
            progress.advance(whole, label, loss)
            after_step()
        mean = self._mean_loss(tally, label)
        _check_finite(mean, label)
        return mean

    def _step(self, group: list[Share], whole: int, label: str, tally: Tally) -> Any:
        """Take one step of the optimizer; give the mean loss, a number on a CPU and a tensor elsewhere.

        Of several processes each gives its own part of the loss, times their number.
        """

        def closure() -> Any:
            self._pieces.note()
            while True:
                try:
                    loss = self._gradient(group, whole)
                    break
                except torch.OutOfMemoryError as error:
                    self._pieces.halve(error, max(len(share.inputs) for share in group))
            self._clip()
            if self._needs_closure and self.world > 1:  # it goes by the loss, so each must see that of all
                loss = (
                    distributed.sum_over_all(torch.tensor(float(loss), device=self.hardware.device))
                    / self.world
                )
            return self._sound(loss, label, tally.batch)

        try:
            loss = self.optimizer.step(closure) if self._needs_closure else closure()
        except NonFiniteError:
            self._pieces.put_back()
            if not self.skips_nonfinite:
                raise
            self.optimizer.zero_grad()
            tally.skipped.append(tally.batch)
            return None
        if self._needs_closure:
            return loss
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss

    def try_step(self, share: Share) -> float:
        """Take one step on a batch, come of it what may; give the loss."""
        share = self._move(share)

        def closure() -> Any:
            self.optimizer.zero_grad()
            return self._backward(share.inputs, share.target, 1.0, is_last=True)

        return float(self.optimizer.step(closure))

    def _move(self, share: Share) -> Share:
        """Check a batch's targets on the host, where that waits for nothing, and bring it to the device."""
        if self._is_first_batch and share.inputs.device.type == "cpu":
            check_inputs(share.inputs)
        target = _to_device(self.task.check(share.target), self.hardware.device)
        return Share(self.hardware.move(share.inputs), target, share.own, share.whole)

    def _gradient(self, group: list[Share], whole: int) -> Any:
        """Compute the gradient of a step's mean loss, over its batches and their pieces; give that loss."""
        self.optimizer.zero_grad()
        pieces = [
            (inputs, target, share.own * self.world / whole * inputs.shape[0] / share.inputs.shape[0])
            for share in group
            for inputs, target in self._pieces.split(share.inputs, share.target)
        ]
        if (len(pieces) > 1 or self.world > 1) and not self.task.counts_evenly:
            pieces = self._weighted(pieces)
        last = len(pieces) - 1
        return sum([self._backward(*piece, is_last=n == last) for n, piece in enumerate(pieces)])

    def _weighted(self, pieces: list[tuple[Tensor, Any, Any]]) -> list[tuple[Tensor, Any, Any]]:
        """Have pieces count by the weights of their classes instead of by their numbers of samples."""
        # A process that has run short of samples borrows one, which counts for nothing.
        weights = [self.task.weight_of(target) * bool(share) for _, target, share in pieces]
        whole = torch.stack(weights).sum(0)
        if self.world > 1:
            distributed.sum_over_all(whole)
        return [
            (inputs, target, weight * self.world / whole)
            for weight, (inputs, target, _) in zip(weights, pieces, strict=True)
        ]

    def _backward(self, inputs: Tensor, target: Any, weight: float | Tensor, *, is_last: bool) -> Any:
        # The processes add their gradients up once a step, not once for each of its batches.
        with NO_CONTEXT if is_last or self._shared is None else self._shared.no_sync():
            shares = weight if isinstance(weight, Tensor) else None
            is_new = self._shared is not None and self._is_first_batch
            with self.hardware.autocast(), _without_word_of_unused() if is_new else NO_CONTEXT:
                loss, output = self._forward(inputs, target, shares)
            if self._is_first_batch:
                check_model(self.model, self.task, inputs)
                check_ending(self.task, output)
                self._is_first_batch = False
            if shares is None and weight != 1:
                loss = loss * weight
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return loss.item() if loss.device.type == "cpu" else loss.detach()

    def _clip(self) -> None:
        if self.clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    def _sound(self, loss: Any, label: str, batch: int) -> Any:
        """Where that waits for nothing, or where a step may be left out, stop before it spoils all."""
        on_host = self.hardware.device.type == "cpu"
        if not on_host and not self.skips_nonfinite:
            return loss
        gradients = [gradient for p in self.parameters if (gradient := p.grad) is not None]
        decides = self.world == 1  # otherwise the gradient, the same for all, decides for all
        if on_host:
            # A finite sum proves finite addends, and costs a third of a norm.
            total = sum([gradient.sum().item() for gradient in gradients])
            if cmath.isfinite(total) and (math.isfinite(loss) or not decides):
                return loss
            if all(bool(_dense(gradient).isfinite().all()) for gradient in gradients):
                total = 0.0  # only the sum was too large for its dtype
        else:
            total = nn.utils.get_total_norm([_dense(gradient) for gradient in gradients]).item()
        where = f"{label}, batch {batch}"
        if decides:
            _check_finite(float(loss), where, error=NonFiniteStepError)
        _check_finite(abs(total), where, "gradient", error=NonFiniteStepError)
        return loss

    def check_so_far(self, loss: float) -> None:
        """Raise if a loss of this epoch was not finite: on an accelerator nobody has looked until now."""
        _check_finite(loss, "this epoch, up to here")

    def gather(self, tally: Tally) -> tuple[float, int]:
        """Give the sums of all processes; the first, which saves, counts on from them, the others from nothing."""
        exact = torch.float32 if self.hardware.device.type == "mps" else torch.float64
        own = torch.tensor([float(tally.loss), tally.images], dtype=exact, device=self.hardware.device)
        loss, images = distributed.sum_over_all(own).tolist()
        tally.loss, tally.images = (loss, round(images)) if distributed.is_writer() else (0.0, 0)
        return loss, round(images)

    def _share_model(self) -> None:
        """Have the processes add up their gradients: of what is trained now, which a callback may change."""
        if self.world == 1:
            return
        trained = frozenset(id(p) for p in self._with_loss.parameters() if p.requires_grad)
        if trained != self._trained:
            self._trained = trained
            whole = torch.compile(self._with_loss) if self.compiles else self._with_loss
            self._forward = self._shared = DistributedDataParallel(whole, find_unused_parameters=True)

    def _mean_loss(self, tally: Tally, label: str) -> float:
        loss, images = self.gather(tally) if self.world > 1 else (float(tally.loss), tally.images)
        if not images and tally.skipped:
            raise NonFiniteError(
                f"Not one step of {label} had a finite loss and gradient; expected some. Lower the learning "
                'rate, or look at what nonfinite="raise" says of the first.'
            )
        _check_not_empty(images)
        return loss / images


@contextmanager
def _without_word_of_unused() -> Iterator[None]:
    """Where all parameters have a part in the first loss, torch says once that it has looked for others in vain."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified")
        yield


class _WithLoss(nn.Module):
    """A model and its task in one, so that what both of them learn is shared among processes."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, inputs: Tensor, target: Any, shares: Tensor | None = None) -> tuple[Tensor, Any]:
        """Give the loss, or the share that a piece has in it, and the model's raw output."""
        return _loss_and_output(self.model, self.task, inputs, target, shares)


def _loss_and_output(
    model: nn.Module, task: Task, inputs: Tensor, target: Any, shares: Tensor | None = None
) -> tuple[Tensor, Any]:
    output = model(inputs)
    return task.checked_loss(output, target, shares), output


@torch.no_grad()
def validate(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    hardware: Hardware,
    metrics: "MetricCollection | None",
    progress: Progress | None = None,
    *,
    is_shared: bool = True,
    between: Callable[[], None] = nothing,
    keep: Callable[[Tensor, Any], None] | None = None,
) -> dict[str, float]:
    """Pass once over held-out data; give the mean loss and the metrics, over all processes.

    `keep` gets each batch's logits and targets.
    """
    model.eval()
    world = distributed.world() if is_shared else 1
    if metrics is not None:
        metrics.reset()
        for metric in metrics.values():
            metric.sync_on_compute = is_shared
    exact = torch.float32 if hardware.device.type == "mps" else torch.float64
    total, weights = torch.zeros(2, task.num_terms, dtype=exact, device=hardware.device)
    images = 0
    for inputs, target in map(_pair, batches):
        target = _to_device(task.check(target), hardware.device)
        with hardware.autocast():
            output = model(hardware.move(inputs))
            terms = task.checked_terms(output, target)
        counted = len(inputs) if task.counts_evenly else task.weight_of(target).to(exact)
        total += terms.to(exact) * counted
        weights += counted
        images += len(inputs)
        logits, _ = split_output(output)
        if keep is not None:
            keep(logits.float(), target)
        if metrics is not None:
            metrics.update(*task.metric_inputs(logits.float(), target))
        if progress is not None:
            progress.advance(len(inputs) * world)
        between()
    if world > 1:
        counts = total.new_full(total.shape, images)
        total, weights, counts = distributed.sum_over_all(torch.stack([total, weights, counts]))
        images = round(counts[0].item())
    _check_not_empty(images)
    values = {} if metrics is None else metrics.compute()
    figures = {name: _one_number(name, value) for name, value in values.items()}
    return {"loss": (total / weights).sum().item(), **figures}


def _one_number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) and getattr(value, "numel", lambda: 0)() != 1:
        shape = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise TypeError(
            f"The metric {name!r} gives {shape}; expected one number. Give it average='macro', or pass a metric for "
            "each class."
        )
    return float(value)


def shares_of(batches: Iterable[Batch], world: int = 1) -> Iterator[Share]:
    """Say of each batch how much of it is this process's, without asking the others."""
    counts: Iterable[Any] = repeat(None)
    if isinstance(batches, PictureLoader) and world > 1:
        counts = batches.batch_sampler.shares()
    for batch, counted in zip(batches, counts, strict=False):
        inputs, target = _pair(batch)
        own, whole = counted or (size := inputs.shape[0], size * world)
        yield Share(inputs, target, own, whole)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def check_is_shared(name: str, loader: Any) -> None:
    """Refuse a loader that would give every one of several processes all samples.

    Raises
    ------
    ValueError
        It is none of layerkit's, and has no DistributedSampler.
    """
    sampler = getattr(loader, "sampler", None)
    if distributed.world() == 1 or loader is None or isinstance(loader, PictureLoader):
        return
    if not isinstance(sampler, DistributedSampler):
        raise ValueError(
            f"`{name}` is a {type(loader).__name__} that gives every one of {distributed.world()} processes all "
            "samples; expected each to get its part. Use folder_loaders() or table_loaders(), or give the "
            "DataLoader a torch.utils.data.DistributedSampler (an IterableDataset takes none)."
        )


def _as_callbacks_want(share: Share, callbacks: Callbacks, state: State) -> Share:
    state.inputs, state.target = share.inputs, share.target
    callbacks.call("on_batch_start", state)
    return share._replace(inputs=state.inputs, target=state.target)


def _pair(batch: Any) -> Batch:
    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[0], Tensor):
        return batch[0], batch[1]
    parts = (
        f" of {', '.join(type(part).__name__ for part in batch)}" if isinstance(batch, list | tuple) else ""
    )
    raise TypeError(
        f"The loader gave a {type(batch).__name__}{parts}; "
        "expected pairs of (inputs, targets), inputs being a tensor (N, ...). Change its dataset or collate_fn."
    )


def _check_not_empty(images: float) -> None:
    if not images:
        raise ValueError(
            "The loader gave no batch; expected at least one picture. Check the folder; a generator gives its batches "
            "only once: pass a list, or a DataLoader."
        )


def _to_device(target: Any, device: torch.device) -> Any:
    if isinstance(target, Tensor) and target.device == device:
        return target

    def moved(part: Tensor) -> Tensor:
        return part if part.device == device else part.to(device, non_blocking=True)

    return map_targets(moved, target)


def _check_finite(
    value: float, where: str, what: str = "loss", error: type[NonFiniteError] = NonFiniteError
) -> None:
    if not math.isfinite(value):
        raise error(
            f"The {what} is {value} in {where}; expected a finite number. Lower the learning rate, clip the "
            "gradient with clip_norm=1.0, or look at the pictures and targets of that batch. The model "
            "holds the best weights so far, or those that it began with."
        )
