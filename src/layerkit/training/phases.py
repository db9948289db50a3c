"""The two phases of a run: the head on a frozen backbone's features, then the whole model."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.convex import is_convex, solve
from layerkit.device import Hardware
from layerkit.errors import CheckpointError
from layerkit.features import (
    FeatureBatches,
    FrozenHead,
    constant_logits,
    is_one_linear_layer,
    precompute_features,
)
from layerkit.loading import PictureLoader
from layerkit.loading.loaders import length_of
from layerkit.tasks import Task
from layerkit.tasks.targets import map_targets
from layerkit.training.identity import plain_settings
from layerkit.training.loop import Batch, Trainer
from layerkit.training.mistakes import check_backbone
from layerkit.training.optimizers import (
    FROZEN_LR,
    SOLVED_LR,
    OptimizerLike,
    check_pairing,
    load_optimizer,
    make_optimizer,
)
from layerkit.training.progress import Progress
from layerkit.training.schedules import Schedule, Stepper, make_schedule
from layerkit.training.weights import copy_of_weights, put_weights

STEPS_PER_EPOCH = 32
"""What the frozen phase takes at least, by smaller batches where there are few pictures: its steps cost next to
nothing, and with the 10 that 300 pictures give, a handful of epochs would end far from the optimum."""

ALONE_WORK = 1_000_000
"""Pictures a step times parameters up to which the head is trained by one thread. A team is no faster at so little, and
where other processes want the processors too, its members wait for each other at every operation: on two busy ones an
epoch of the demo's head took 1 s by two threads and 0.05 s by one."""

SOLVED_WORK = 5_000_000
"""Pictures times features times outputs up to which the head starts from its exact optimum: that takes some seconds
at most. With more, an epoch has so many steps that it comes close by itself."""


@runtime_checkable
class HasEpochs(Protocol):
    """Something that can be told which epoch comes next."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next ``iter()`` gives."""


def begin_epoch(loader: Any, epoch: int, first_batch: int = 0) -> None:
    """Tell a loader, or else its sampler, which epoch comes next and where in it to begin."""
    if isinstance(loader, PictureLoader | FeatureBatches):
        loader.set_epoch(epoch, first_batch=first_batch)
    else:
        for part in (loader, getattr(loader, "sampler", None)):
            if isinstance(part, HasEpochs):
                part.set_epoch(epoch)


@dataclass
class Phase:
    """What differs between the phases; the loop is the same."""

    name: str
    epochs: range  # counted from 0 over the whole run
    trainer: Trainer
    schedule: Stepper
    train: Iterable[Batch]
    valid: Iterable[Batch] | None
    weights: Callable[[nn.Module], dict[str, Tensor]]  # under the model's own keys; what this phase changes
    can_begin_anywhere: bool  # in an epoch: another order of a foreign loader would mix the samples up
    by_one_thread: bool = False
    made: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # by a factory, whose settings nobody else sees

    @property
    def is_shared(self) -> bool:
        """Whether several processes take their parts of every batch."""
        return self.trainer.world > 1

    def state(self) -> dict[str, Any]:
        """Give all that must be restored to go on in this phase."""
        return {
            "name": self.name,
            "model": copy_of_weights(self.trainer.model),
            "made": self.made,
            "optimizer": self.trainer.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.trainer.scaler.state_dict() if self.trainer.scaler else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave.

        Raises
        ------
        CheckpointError
            Another optimizer or schedule was made this time, or for other parameters.
        """
        for name, now in self.made.items():
            before = state["made"].get(name, now)
            # Another version of torch may have more of them.
            changed = sorted(key for key in now.keys() & before.keys() if now[key] != before[key])
            if changed:
                differs = ", ".join(f"{key} was {before[key]!r} and is {now[key]!r}" for key in changed)
                raise CheckpointError(
                    f"The checkpoint holds another run: of the {name} that was made, {differs}; expected the same. Put "
                    "it back to go on with that run, or pass another folder as checkpoint=."
                )
        put_weights(self.trainer.model, state["model"])
        load_optimizer(self.trainer.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.trainer.scaler and state["scaler"]:
            self.trainer.scaler.load_state_dict(state["scaler"])


def full_phase(
    model: nn.Module,
    task: Task,
    train: Iterable[Batch],
    valid: Iterable[Batch] | None,
    hardware: Hardware,
    *,
    epochs: range,
    optimizer: OptimizerLike,
    schedule: Schedule,
    lr: float | None,
    lower_is_better: bool,
    accumulate: int,
    clip_norm: float | None,
    skips_nonfinite: bool,
    compiles: bool,
) -> Phase:
    """Train everything that requires a gradient."""
    made = make_optimizer(optimizer, model, task, lr, follows_frozen=epochs.start > 0)
    # It views every gradient as one row, which no other layout allows.
    if isinstance(made, torch.optim.LBFGS):
        model.to(memory_format=torch.contiguous_format)
    check_pairing(
        made,
        model,
        scaled=hardware.scaler() is not None,
        skips_nonfinite=skips_nonfinite,
        clips=clip_norm is not None,
    )
    length = length_of(train)
    batches = None if length is None else -(-length // accumulate)
    if optimizer is None and schedule is None:
        schedule = "one-cycle" if batches is not None else "constant"
    stepper = make_schedule(
        schedule, made, epochs=len(epochs), batches=batches, lower_is_better=lower_is_better
    )
    if valid is None and stepper.watches_metric:
        raise ValueError(
            "`schedule` waits for a plateau of what is monitored, and `valid` is None; expected a validation loader. "
            "Pass one, or another schedule."
        )
    trainer = Trainer(
        model, task, made, hardware, accumulate, clip_norm, skips_nonfinite, compiles, is_shared=True
    )
    anywhere = isinstance(train, PictureLoader)
    factories = {"optimizer": (optimizer, made), "schedule": (schedule, stepper.scheduler)}
    settings = {
        name: plain_settings(one)
        for name, (given, one) in factories.items()
        if callable(given) and not isinstance(given, type)
    }
    return Phase("full", epochs, trainer, stepper, train, valid, copy_of_weights, anywhere, made=settings)


def frozen_phase(
    model: nn.Module,
    task: Task,
    train: Iterable[Batch],
    valid: Iterable[Batch] | None,
    hardware: Hardware,
    *,
    epochs: range,
    views: int,
    is_last: bool,
    skips_nonfinite: bool,
    progress: Progress,
    between: Callable[[], None],
) -> Phase:
    """Run the backbone once over all pictures, and train the head on what it gave."""
    if distributed.is_writer():
        check_backbone(model)
    started = time.perf_counter()
    parts = [
        features_of(model, task, loader, hardware, progress, between)
        for loader in _views(train, views, progress)
    ]
    targets = parts[0][1]
    head = FrozenHead(model, parts[0][0]).to(hardware.device)
    prior = constant_logits(task, targets)
    if prior is not None:
        head.start_from(prior)
    size = len(parts[0][0])
    batch_size = min(_batch_size(train), max(8, size // STEPS_PER_EPOCH))
    batches = FeatureBatches(
        [head.standardize(features) for features, _ in parts],
        targets,
        batch_size=batch_size,
        shuffle=True,
        seed=_seed(train),
    )
    held_out, solved = None, False
    if valid is not None:
        features, valid_targets = features_of(model, task, valid, hardware, progress, between)
        size += len(features)
        held_out = FeatureBatches([head.standardize(features)], valid_targets, batch_size=1024, shuffle=False)
        # Fine-tuning begins better from a head that is less sure of itself than the optimum: on the demo's pictures
        # the first epoch of it raised the held-out loss to 0.84 from the optimum, and to 0.74 otherwise.
        solved = (
            is_last and views == 1 and start_from_optimum(head, task, parts[0], (features, valid_targets))
        )
    seconds = time.perf_counter() - started
    progress.say(
        f"the backbone ran once over {size:,} pictures in {seconds:.1f} s; now its head is trained alone"
        f"{', from its exact optimum' if solved else ''}"
    )
    parameters = [*head.parameters(), *task.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=SOLVED_LR if solved else FROZEN_LR, weight_decay=0.01)
    schedule = make_schedule(
        "one-cycle", optimizer, epochs=len(epochs), batches=batches.batches, lower_is_better=True
    )
    hardware = Hardware(hardware.device, torch.float32, False)
    trainer = Trainer(head, task, optimizer, hardware, skips_nonfinite=skips_nonfinite)
    work = batch_size * sum(parameter.numel() for parameter in parameters)
    return Phase(
        "frozen", epochs, trainer, schedule, batches, held_out, lambda _: head.state_for_model(),
        can_begin_anywhere=isinstance(train, PictureLoader), by_one_thread=work <= ALONE_WORK,
    )  # fmt: skip


def start_from_optimum(
    head: FrozenHead, task: Task, trained: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]
) -> bool:
    """Write the optimum at the best penalty into a small head; tell whether there is one."""
    features = trained[0]
    is_small = features.numel() * getattr(task, "out_features", math.inf) <= SOLVED_WORK
    varies = bool((features != features[:1]).any()) and bool(features.isfinite().all())
    if not (is_small and varies and is_convex(task) and is_one_linear_layer(head.layers)):
        return False
    if head.first.weight[0].numel() != features[0].numel():  # it answers at each position
        return False
    place = where_to_solve(features.device)
    exact, own = copy.deepcopy(head).to(place).double(), copy.deepcopy(task).to(place).double()
    train, valid = ((part.to(place).double(), target.to(place)) for part, target in (trained, held_out))
    solve(own, exact, train, valid)
    put_weights(head, exact.state_dict())
    return True


def where_to_solve(device: torch.device) -> torch.device:
    """Stay on CUDA; of the other accelerators some have no float64."""
    return device if device.type == "cuda" else torch.device("cpu")


def features_of(
    model: nn.Module,
    task: Task,
    loader: Iterable[Batch],
    hardware: Hardware,
    progress: Progress,
    between: Callable[[], None],
) -> tuple[Tensor, Any]:
    """Give the float32 features of all pictures, over all processes, and their checked targets, on the device."""

    def each(inputs: Tensor, target: Any) -> Batch:
        between()
        progress.advance(len(inputs) * distributed.world())
        return hardware.move(inputs), map_targets(lambda part: part.to(hardware.device), task.check(target))

    progress.open(count_images(loader), "features")
    with hardware.autocast():
        features, targets = precompute_features(model, loader, each=each)
    progress.close()
    return _of_all_processes(features.float(), loader), map_targets(
        lambda t: _of_all_processes(t, loader), targets
    )


def _of_all_processes(rows: Tensor, loader: Iterable[Batch]) -> Tensor:
    """Give every process all rows, in the order that one process would have read them in.

    Each then trains the same head on the same features: a layer is trained sooner than shared out.
    """
    whole = torch.cat(distributed.gather_rows(rows))
    if distributed.world() == 1 or not isinstance(loader, PictureLoader):
        return whole
    order = [
        position for rank in range(distributed.world()) for position in loader.batch_sampler.positions(rank)
    ]
    return whole[torch.tensor(order, device=whole.device).argsort()]


def _views(train: Iterable[Batch], views: int, progress: Progress) -> list[Iterable[Batch]]:
    """List what the backbone is run over: the pictures as in evaluation, or with other changes each time."""
    if not isinstance(train, PictureLoader):
        progress.say(
            "this loader is read once, as it is, for the frozen phase: its random changes stay the same"
        )
        return [train]
    if views == 1:
        return [train.unshuffled()]
    loaders = [train.unshuffled(augmented=True) for _ in range(views)]
    for view, loader in enumerate(loaders):
        loader.set_epoch(view)
    return list(loaders)


def count_images(loader: Any) -> int | None:
    """Count the samples behind a loader, if it tells."""
    dataset = loader if isinstance(loader, FeatureBatches) else getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None


def _batch_size(loader: Any) -> int:
    sampler = getattr(loader, "batch_sampler", None)
    return int(getattr(loader, "batch_size", None) or getattr(sampler, "batch_size", None) or 32)


def _seed(loader: Any) -> int:
    return int(loader.dataset.seed) if isinstance(loader, PictureLoader) else 0
