"""What makes a run this run and no other: a checkpoint that was begun with something else is refused."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from layerkit import distributed
from layerkit.loading import PictureLoader
from layerkit.tasks import Task
from layerkit.training.checkpoint import digest
from layerkit.training.device import Hardware


def identity_of(
    model: nn.Module,
    task: Task,
    train: Iterable[Any],
    valid: Iterable[Any] | None,
    seed: int | None,
    monitor: str,
) -> dict[str, Any]:
    """Say what makes a run this run and no other, as far as model, data and seed go."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {
        "model": f"{type(model).__name__} {digest(shapes)}",
        "task": f"{type(task).__name__} {digest(task.settings())}",
        "train": _describe_loader(train),
        "valid": _describe_loader(valid),
        "seed": seed,
        "monitor": monitor,
    }


def circumstances_of(hardware: Hardware, *, compiled: bool) -> dict[str, Any]:
    """Say what may change from one call to the next, at the price of other bits within tolerance."""
    return {
        "device": str(hardware),
        "compile": compiled,
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "torch": torch.__version__,
    }


def describe_callbacks(callbacks: Sequence[Any]) -> list[str]:
    """Name each callback and its settings."""
    return [
        f"{type(one).__name__} "
        + digest({k: v for k, v in vars(one).items() if k[0] != "_" and _is_plain(v)})
        for one in callbacks
    ]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float | str)


def _describe_loader(loader: Any) -> str | None:
    """Say what is read, without the folder that the data lie in, which may move."""
    if loader is None:
        return None
    if not isinstance(loader, PictureLoader):
        length = len(loader) if hasattr(loader, "__len__") else "unknown"
        return f"{type(loader).__name__} of {length} batches"
    dataset, sampler = loader.dataset, loader.batch_sampler
    # Memory or disk is all one: the bits depend on the working size.
    cached = None if dataset.cache is None else dataset.cache.working.to
    names = ["/".join(path.parts[-2:]) for path in dataset.paths]
    return (
        f"{len(names)} pictures ({digest(names)}), batch_size={sampler.batch_size}, seed={dataset.seed}, "
        f"{dataset.transform.preset}, augment={describe(dataset.transform.augment)}, "
        f"exact={dataset.exact}, cached at {cached}"
    )


def describe(value: Any) -> str | None:
    """Name an optimizer, a schedule or a function without the addresses and rates that change from run to run."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, torch.optim.Optimizer):
        return f"{type(value).__name__} {digest({k: v for k, v in value.defaults.items() if k != 'params'})}"
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        return type(value).__name__
    return str(getattr(value, "__qualname__", type(value).__name__))
