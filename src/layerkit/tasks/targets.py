"""Targets as a loader gives them: as tensors, with values that can be what they are taken for."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from layerkit.errors import TargetError
from layerkit.tasks.classes import shorten

if TYPE_CHECKING:
    from layerkit.tasks.base import Task


def map_targets(function: Callable[..., Any], *targets: Any) -> Any:
    """Apply a function of tensors to targets or, where they are a dict, to each of its parts."""
    if isinstance(targets[0], Mapping):
        return {name: function(*(target[name] for target in targets)) for name in targets[0]}
    return function(*targets)


def as_tensor(target: Any, task: "Task") -> Tensor:
    """Take targets as a tensor, with a clear word where they are none."""
    if isinstance(target, Tensor):
        return _real(target, task)
    try:
        tensor = torch.as_tensor(target if isinstance(target, list | tuple) else np.asarray(target))
    except (TypeError, ValueError, RuntimeError) as error:
        values = target if isinstance(target, list | tuple) else np.asarray(target, dtype=object).flat
        words = [word for word in values if isinstance(word, str)]
        if words:
            raise TargetError(
                f"The targets are words ({shorten(words)}); expected numbers for {task}. Of a class pass the "
                "index, classes.index(word), as layerkit's loaders do; of a quantity, float(word)."
            ) from error
        raise TargetError(
            f"The targets are a {type(target).__name__} that is no tensor ({error}); expected a tensor of "
            f"numbers for {task}. Check what the loader gives beside the pictures; a dict of targets needs "
            "MultiTask()."
        ) from error
    return _real(tensor, task)


def _real(target: Tensor, task: "Task") -> Tensor:
    if target.is_complex():
        raise TargetError(
            f"The targets are complex numbers ({target.dtype}); expected real ones for {task}. Take their real and "
            "imaginary parts, or their size, as targets."
        )
    return target


def on_host(target: Tensor) -> bool:
    """Tell whether there are values that can be looked at without waiting for a device."""
    return target.device.type == "cpu" and target.numel() > 0


def squeeze_column(target: Tensor) -> Tensor:
    """Take (N, 1) for (N,), and (N, 1, H, W) for (N, H, W): it is clear what is meant."""
    return target.squeeze(1) if target.ndim in (2, 4) and target.shape[1] == 1 else target


def as_finite(target: Tensor) -> Tensor:
    """Give numbers as float32, or raise where one is NaN or infinite."""
    target = target.to(torch.float32)
    # A finite sum proves finite numbers in one pass; an infinite one may be an overflow and is looked into.
    if on_host(target) and not math.isfinite(target.sum().item()) and not bool(target.isfinite().all()):
        row = int((~target.isfinite()).nonzero()[0][0])
        raise TargetError(
            f"The target of sample {row} in the batch is {target[row].tolist()}; expected finite numbers "
            "that fit float32. Fill in or leave out the rows that lack a value."
        )
    return target


def as_probabilities(target: Tensor, task: "Task") -> Tensor:
    """Give 0 and 1 of any dtype, and what lies between, as float32."""
    target = target.to(torch.float32)
    if on_host(target):
        low, high = _bounds(target)
        if not (low >= 0 and high <= 1):  # NaN too
            raise TargetError(
                f"The targets hold {high if low >= 0 else low:g}; expected 0 for no and 1 for yes for "
                f"{task}. Recode them, or use Multiclass() for more classes and Regression() for numbers."
            )
    return target


def as_class_indices(
    target: Tensor, task: "Task", num_classes: int, *, ignore_index: int | None = None
) -> Tensor:
    """Give whole numbers from 0 to below `num_classes`, or `ignore_index`, of any dtype, as int64."""
    if target.dtype is not torch.int64 and not target.is_floating_point():
        target = target.to(torch.int64)  # at once: torch compares no uint16, uint32 and uint64
    classes = target if ignore_index is None else target.masked_fill(target == ignore_index, 0)
    if on_host(classes):
        low, high = _bounds(classes)
        if not (low >= 0 and high < num_classes):
            raise TargetError(
                f"The targets hold the class {high if low >= 0 else low:g}; expected 0 to {num_classes - 1} "
                f"for {task}. If they count from 1, subtract 1; if it marks what has no class, pass "
                "ignore_index; otherwise give the task all classes. For numbers to be measured, use Regression()."
            )
        if classes.is_floating_point() and not classes.equal(classes.round()):
            raise TargetError(
                f"The targets hold {classes[classes != classes.round()][0].item():g}, which is no class index; "
                f"expected whole numbers from 0 to {num_classes - 1} for {task}. For a quantity use "
                "Regression()."
            )
    return target if target.dtype is torch.int64 else target.to(torch.int64)


def as_distributions(target: Tensor, task: "Task") -> Tensor:
    """Give rows of probabilities that sum to 1, as mixing makes them, as float32."""
    target = as_probabilities(target, task)
    if on_host(target):
        low, high = _bounds(target.sum(1))
        if not (low > 0.99 and high < 1.01):
            raise TargetError(
                f"A row of the targets sums to {low if low <= 0.99 else high:g}; expected probabilities that "
                f"sum to 1 for {task}. For several labels a picture, use Multilabel()."
            )
    return target


def _bounds(target: Tensor) -> tuple[float, float]:
    # Of a batch's few classes Python finds them sooner.
    if target.ndim == 1 and target.numel() <= 1024 and not target.is_floating_point():
        values = target.tolist()
        return min(values), max(values)
    low, high = target.aminmax()
    return low.item(), high.item()
