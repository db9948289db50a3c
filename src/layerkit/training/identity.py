"""What makes a run this run and no other: a checkpoint that was begun with something else is refused."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.device import Hardware
from layerkit.loading import PictureLoader
from layerkit.loading.loaders import length_of
from layerkit.saving import checksum, copies
from layerkit.tasks import Task
from layerkit.tasks.targets import map_targets
from layerkit.training.checkpoint import digest, without_address
from layerkit.training.losses import LossTask
from layerkit.training.schedules import PerBatch

Description = Callable[[Any], str]


@dataclass
class _Memory:
    """What descriptions of an object stand for: as a run left it, it is what it was when that began."""

    first: dict[tuple[Description, str], str] = field(default_factory=dict)
    begun: dict[Description, str] = field(default_factory=dict)  # the run in progress


_memories: WeakKeyDictionary[Any, _Memory] = WeakKeyDictionary()
"""Of objects that a run changes: in the same call again, as in a notebook, they are the same, unless somebody else has
changed them since."""


def identity_of(
    model: nn.Module,
    task: Task,
    train: Iterable[Any],
    valid: Iterable[Any] | None,
    seed: int | None,
    monitor: str,
) -> dict[str, Any]:
    """Say what makes a run this run and no other, as far as model, data and seed go."""
    shapes = {
        name: [*value.shape, str(value.dtype)]
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    return {
        "model": f"{type(model).__name__} {digest(shapes)}",
        "trainable": _as_at_first(model, _describe_trainable),
        "task": _describe_task(task),
        "train": _describe_loader(train),
        "valid": _describe_loader(valid),
        "seed": seed,
        "monitor": monitor,
    }


def describe_metrics(metrics: Mapping[str, Any] | None) -> list[str] | None:
    """Name the metrics that were given instead of the task's own."""
    if metrics is None:
        return None
    return [
        f"{name}: {type(one).__name__} {digest(_settings_of_metric(one))}" for name, one in metrics.items()
    ]


def _settings_of_metric(metric: Any) -> dict[str, Any]:
    """Leave out what is its own business, and what a run sets."""
    inner = {"sync_on_compute", *getattr(metric, "metric_state", ())}
    return {k: v for k, v in _plain_attributes(metric).items() if k[0] != "_" and k not in inner}


def circumstances_of(hardware: Hardware, *, compiled: bool) -> dict[str, Any]:
    """Say what may change from one call to the next, at the price of other bits within tolerance."""
    return {
        "device": str(hardware),
        "compile": compiled,
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "torch": torch.__version__,
    }


def settings_of(**given: Any) -> dict[str, str]:
    """Put into words what a run was asked for, as far as it was: for people, not to compare."""
    return {name: words for name, value in given.items() if value is not None and (words := _in_words(value))}


def _in_words(value: Any) -> str:
    if isinstance(value, torch.optim.Optimizer):
        plain = [name for name, setting in value.defaults.items() if isinstance(setting, int | float)]
        settings = {name: dict.fromkeys(str(group[name]) for group in value.param_groups) for name in plain}
        written = ", ".join(f"{name}={' or '.join(values)}" for name, values in settings.items())
        return f"{type(value).__name__}({written})"
    if isinstance(value, Mapping):
        return ", ".join(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(type(one).__name__ for one in value)
    return str(value if isinstance(value, int | float | str) else describe(value))


def describe_callbacks(callbacks: Sequence[Any]) -> list[str]:
    """Name each callback and its settings."""
    return [_as_at_first(one, _describe_callback) for one in callbacks]


def _describe_callback(callback: Any) -> str:
    """Take for settings what bears the name of a parameter that it was made with."""
    attributes = getattr(callback, "__dict__", {})
    try:
        parameters = inspect.signature(type(callback)).parameters
    except ValueError:  # a class that is not written in Python, such as SimpleNamespace
        return f"{type(callback).__name__} {digest({})}"
    asked = set(parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        asked |= {name for name in attributes if name[0] != "_"}
    settings = {name: value for name, value in attributes.items() if name in asked and _is_data(value)}
    return f"{type(callback).__name__} {digest(settings)}"


def plain_settings(made: Any) -> dict[str, Any]:
    """Give the settings of an optimizer or a scheduler that JSON holds, by group and name."""
    if isinstance(made, torch.optim.Optimizer):
        pairs = [
            (f"{n}.{name}", value)
            for n, group in enumerate(made.param_groups)
            for name, value in group.items()
        ]
    else:
        pairs = list(_flat("", made.state_dict()))
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in pairs if _is_plain(value)
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Look into dicts, and into lists of them, such as the schedulers in one that takes them in turn."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}".lstrip("."), item)
    elif isinstance(value, list | tuple) and not _is_plain(value):
        yield from _flat(name, dict(enumerate(value)))
    else:
        yield name, value


def _describe_task(task: Task) -> str:
    if isinstance(task, LossTask):  # any callable that was given as a loss
        if not isinstance(task.function, nn.Module):
            return f"{describe(task.function)} {digest(_plain_attributes(task.function))}"
        return _as_at_first(task.function, _describe_module)
    described = f"{type(task).__name__} {digest(task.settings())}"
    parts = [part for part in task.modules() if isinstance(part, Task)]
    are_ours = all(type(part).__module__.startswith("layerkit.") for part in parts)
    return described if are_ours else f"{described} {_as_at_first(task, _describe_own_task)}"


def _describe_own_task(task: Task) -> str:
    """Name the settings that a class of the user's own may have added; buffers are filled from the targets."""
    parts = [(name, part) for name, part in task.named_modules() if isinstance(part, Task)]
    settings = [
        [name, type(part).__name__, {k: v for k, v in _plain_attributes(part).items() if k[0] != "_"}]
        for name, part in parts
    ]
    return digest(settings)


def _describe_module(function: nn.Module) -> str:
    """Name a loss with its settings and its buffers, such as the weights of classes; what it learns is drawn anew."""
    settings = [[name, _plain_attributes(part)] for name, part in function.named_modules()]
    return f"{describe(function)} {digest([settings, checksum(copies(dict(function.named_buffers())))])}"


def _plain_attributes(value: Any) -> dict[str, Any]:
    return {k: v for k, v in getattr(value, "__dict__", {}).items() if k != "training" and _is_plain(v)}


def _is_data(value: Any) -> bool:
    """Tell whether a value is made of numbers and text alone, whose text is the same in every process."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_data(item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_data, value))
    return _is_plain(value) or isinstance(value, Tensor)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str)


def _describe_loader(loader: Any) -> str | None:
    """Say what is read, without the folder that the data lie in, which may move."""
    if loader is None:
        return None
    if not isinstance(loader, PictureLoader):
        length = length_of(loader)
        return f"{type(loader).__name__} of {'unknown' if length is None else length} batches"
    dataset, sampler = loader.dataset, loader.batch_sampler
    # Memory or disk is all one: the bits depend on the working size.
    cached = None if dataset.cache is None else dataset.cache.working.to
    top = os.path.commonpath({os.path.dirname(file) for file in dataset.files})  # noqa: PTH120
    names = [file[len(top) :].lstrip(os.sep).replace(os.sep, "/") for file in dataset.files]
    targets = map_targets(lambda column: torch.as_tensor(column).tolist(), dataset.targets)
    return (
        f"{len(names)} pictures ({digest([names, targets])}), batch_size={sampler.batch_size}, seed={dataset.seed}, "
        f"{dataset.transform.preset}, augment={describe(dataset.transform.augment)}, "
        f"exact={dataset.exact}, cached at {cached}"
    )


def describe(value: Any) -> str | None:
    """Name an optimizer, a schedule or a function, with its settings, without what changes from run to run."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
        return _as_at_first(value, _describe_made)
    if isinstance(value, PerBatch):
        return f"per_batch {describe(value.factory)}"
    if isinstance(value, functools.partial):
        return f"{describe(value.func)} {digest([value.args, value.keywords])}"
    if isinstance(value, nn.Module):  # such as a transform, whose settings stand in its repr
        return f"{type(value).__name__} {digest(without_address(value))}"
    return str(getattr(value, "__qualname__", type(value).__name__))


@contextmanager
def remembered(*used: Any) -> Iterator[None]:
    """Note how a run leaves the objects that it was given."""
    try:
        yield
    finally:
        for one in used:
            memory = _memory_of(one)
            for description, begun in memory.begun.items():
                memory.first[description, description(one)] = begun


def _as_at_first(value: Any, description: Description) -> str:
    now, memory = description(value), _memory_of(value)
    memory.begun[description] = memory.first.setdefault((description, now), now)
    return memory.begun[description]


def _memory_of(value: Any) -> _Memory:
    try:
        return _memories.setdefault(value, _Memory())
    except TypeError:  # no hash, or no weak references: nothing is remembered
        return _Memory()


def _describe_trainable(model: nn.Module) -> str:
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return f"{len(trained)} parameters {digest(trained)}"


def _describe_made(value: torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler) -> str:
    if isinstance(value, torch.optim.Optimizer):
        groups = [{k: v for k, v in group.items() if k != "params"} for group in value.param_groups]
        return f"{_in_words(value)} {digest(groups)}"
    return f"{type(value).__name__} {digest(value.state_dict())}"
