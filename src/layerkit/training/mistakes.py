"""Mistakes that show only when training begins."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter, is_lazy
from torchvision.datasets import DatasetFolder, ImageFolder

from layerkit.errors import shown, warn
from layerkit.heads import find_head
from layerkit.heads.finding import unwrapped
from layerkit.loading import Loaders
from layerkit.loading.datasets import PictureDataset
from layerkit.tasks import MultiTask, Regression, Task
from layerkit.tasks.classes import shorten
from layerkit.tasks.endings import last_activations
from layerkit.tasks.outputs import split_output

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


def check_roles(model: Any, **loaders: Any) -> None:
    """Find arguments in the places of others.

    Parameters
    ----------
    model : object
        What was passed as the model.
    loaders : object
        What was passed as loaders, by the names of the arguments.

    Raises
    ------
    TypeError
        The model is none, or a loader is a path or the `Loaders` of several parts.
    """
    if not isinstance(model, nn.Module) or isinstance(model, Task):
        raise TypeError(
            f"`model` is {shown(model)}; expected a torch.nn.Module that gives logits. It comes first, then the task."
        )
    for name, loader in loaders.items():
        if isinstance(loader, str | Path):
            raise TypeError(
                f"`{name}` is the path {str(loader)!r}; expected a loader of its pictures: that of a part, such as "
                "data.valid of data = folder_loaders(folder, weights=weights)."
            )
        if isinstance(loader, Loaders):
            raise TypeError(
                f"`{name}` is the Loaders of all parts; expected that of one. Pass data.train, data.valid or data.test."
            )


def check_backbone(model: nn.Module) -> None:
    """Find a backbone that is to be frozen and has not been trained.

    Parameters
    ----------
    model : torch.nn.Module
        With its weights as they will stay.

    Warns
    -----
    LayerkitWarning
        All its norm layers scale by one (or zero, as the last ones of a block often begin) and shift by zero; or it
        has none, and all its biases are zero. Nothing trained is like that. A model whose biases begin at random,
        as AlexNet's do, is not told from a trained one.
    """
    heads = tuple(f"{site.path}." for site in find_head(model).sites)
    body = [module for path, module in model.named_modules() if not f"{path}.".startswith(heads)]
    norms = [module for module in body if isinstance(module, _NORMS) and module.weight is not None]
    ones = [norm.weight for norm in norms]
    layers: Any = norms or [module for module in body if isinstance(module, nn.Conv2d | nn.Linear)]
    zeros = [layer.bias for layer in layers if layer.bias is not None]
    if zeros and not any(bool(bias.any()) for bias in zeros) and all(map(_is_as_made, ones)):
        warn(
            f"The backbone of {type(model).__name__} is to be frozen, and its weights are random: "
            f"{'no norm layer' if norms else 'no bias'} of it has been trained. Pass pretrained weights, such as "
            "resnet18(weights=ResNet18_Weights.DEFAULT); a model with random weights is trained as a whole, by fit() "
            "without `frozen_epochs`."
        )


def _is_as_made(scale: Tensor) -> bool:
    return bool((scale == 1).all() or (scale == 0).all())


def check_classes(task: Task, loader: Any) -> None:
    """Find a task whose classes are not those of the loader's folders: every answer would have a wrong name.

    Parameters
    ----------
    task : Task
        It may call the classes otherwise, as people do with folders named by codes, but not in another order.
    loader : object
        If it has no dataset that knows its classes, or one that changes its targets, nothing is found.

    Raises
    ------
    ValueError
        They have another order or, where they come from folders or a table, another number; or the task measures
        numbers, and the targets are places in a list of classes.
    """
    dataset = getattr(loader, "dataset", None)
    found = getattr(dataset, "classes", None)
    if getattr(dataset, "target_transform", None) is not None:
        return
    is_listed = isinstance(dataset, PictureDataset) or type(dataset) in (DatasetFolder, ImageFolder)
    if isinstance(dataset, PictureDataset):
        _check_numbers(task, dataset.targets, dataset.classes)
    pairs = [(task.classes, found)]
    if isinstance(task.classes, dict) and isinstance(found, dict):
        pairs = [(names, found.get(part)) for part, names in task.classes.items()]
    for ours, theirs in pairs:
        if not isinstance(ours, list) or not isinstance(theirs, list) or ours == list(map(str, theirs)):
            continue
        if sorted(ours) == sorted(map(str, theirs)) or (is_listed and len(ours) != len(theirs)):
            raise ValueError(
                f"The task's classes are {shorten(ours)}, and those of the pictures {shorten(theirs)}; expected the "
                f"same in the same order. Make the task from the data's own list: {type(task).__name__}(data.classes) "
                "of layerkit's loaders, dataset.classes of a dataset."
            )


def _check_numbers(task: nn.Module, targets: Any, classes: Any, whose: str = "") -> None:
    """Refuse to measure the distance between classes: their indices follow the alphabet."""
    if isinstance(task, MultiTask) and isinstance(targets, Mapping) and isinstance(classes, Mapping):
        for name, part in task.parts.items():
            _check_numbers(part, targets.get(name), classes.get(name), f"of {name!r} ")
    if isinstance(task, Regression) and isinstance(targets, list) and classes:
        raise ValueError(
            f"The targets {whose}are the classes {shorten(classes)}, and Regression measures numbers; expected a "
            "column of numbers. For classes, use Multiclass(data.classes); of a table, see that every value of the "
            "column is a number."
        )


def lazy_parameters(model: nn.Module) -> list[str]:
    """Name the parameters whose sizes a first batch is to tell."""
    return [name for name, value in model.named_parameters() if isinstance(value, UninitializedParameter)]


def check_initialized(model: nn.Module) -> None:
    """Refuse a model whose lazy layers do not know their sizes yet: there are no weights to keep or to put back.

    Raises
    ------
    ValueError
        Such a layer is there.
    """
    lazy = lazy_parameters(model)
    if lazy:
        raise ValueError(
            f"The layer of {lazy[0]} has no weights yet; expected a model that has seen a batch. Run it once: "
            "model(next(iter(train))[0])."
        )


def check_tensors(model: nn.Module, *, are_saved: bool) -> None:
    """Find tensors of a model that could not be put back, or not be saved, before anything is trained.

    Raises
    ------
    ValueError
        A buffer has no memory of its own.
    TypeError
        Files hold no tensors of this kind.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if is_lazy(tensor):
            continue
        is_plain = tensor.layout == torch.strided and not tensor.is_quantized
        if are_saved and not (is_plain and tensor.dtype != torch.complex128):
            raise TypeError(
                f"{name} has the layout {tensor.layout} and the dtype {tensor.dtype}, which no checkpoint can hold; "
                "expected a dense tensor of another dtype. Keep it as a plain attribute, or leave checkpoint= out."
            )
        if is_plain and any(
            n > 1 and not step for n, step in zip(tensor.shape, tensor.stride(), strict=True)
        ):
            raise ValueError(
                f"{name} is expanded: several of its elements are one in memory, so that no weights can be put back "
                "into it. Expected memory of its own: add .clone() where it is made."
            )


def check_inputs(inputs: Tensor) -> None:
    """Find pictures that were never normalised.

    Parameters
    ----------
    inputs : Tensor
        A batch as the loader gives it, on the host.

    Raises
    ------
    TypeError
        They are bytes.

    Warns
    -----
    LayerkitWarning
        They are floats as large as bytes.
    """
    how = "Take the transforms of a preset, such as Preset.from_weights(weights).eval(), in your dataset."
    if inputs.dtype == torch.uint8:
        raise TypeError(
            f"The loader gives pictures of dtype uint8; expected normalised floating-point ones. {how}"
        )
    if inputs.ndim == 4 and inputs.is_floating_point() and inputs.amax() > 50:
        warn(
            f"The pictures hold values up to {inputs.amax().item():.0f}, as bytes do; normalised ones stay below "
            f"about 3, and pretrained weights expect those. {how}"
        )


def check_ending(task: Task, output: Any) -> None:
    """Find an activation at the end of a model that the task's loss applies itself.

    Parameters
    ----------
    task : Task
        Says in ``refused_endings`` what it cannot take.
    output : Tensor, or the outputs of a torchvision model
        From the model, with its history.

    Raises
    ------
    ValueError
        The last operation was a softmax, a sigmoid or the like.

    Warns
    -----
    LayerkitWarning
        The history does not tell, and the outputs look like a softmax's.
    """
    task.check_ending(output)
    logits, _ = split_output(output)
    told = any(last_activations(logits))
    if not told and "softmax" in task.refused_endings and _looks_like_probabilities(logits.detach()):
        warn(
            f"Every row of the model's outputs lies between 0 and 1 and sums to 1, as after a softmax, which "
            f"{type(task).__name__} applies itself. If there is one in forward(), remove it."
        )


def check_model(model: nn.Module, task: Task, inputs: Tensor) -> None:
    """Find what `check_ending` finds where a model's output does not tell: compiled, or in evaluation.

    A copy of the model, with the same weights and without its hooks, answers for two pictures as it was written. A
    model that cannot be copied or run so is not looked at.

    Raises
    ------
    ValueError
        As `check_ending`.
    """
    output = _run_as_written(model, inputs[:2]) if task.refused_endings else None
    if output is not None:
        task.check_ending(output)


@torch.enable_grad()
def _run_as_written(model: nn.Module, inputs: Tensor) -> Any:
    model, inputs = unwrapped(model)[1], inputs.detach().clone()
    if any("forward" in module.__dict__ for module in model.modules()):
        return None  # somebody's replacement would run the model itself, not the copy
    if not any(parameter.requires_grad for parameter in model.parameters()) and inputs.is_floating_point():
        inputs = inputs.requires_grad_().clone()
    kind = inputs.device.type
    devices = [inputs.device] if kind in ("cuda", "xpu") else []
    try:
        copy = deepcopy(model, {id(parameter): parameter for parameter in model.parameters()}).eval()
        for module in copy.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        with (
            torch.random.fork_rng(devices, device_type=kind if devices else "cuda"),
            torch.compiler.set_stance("force_eager"),
        ):
            output = copy(inputs)
            split_output(output)
    except Exception:  # whatever is wrong shows where the model itself is run
        return None
    return output


def _looks_like_probabilities(logits: Tensor) -> bool:
    if logits.ndim < 2 or logits.shape[1] < 2 or not bool((logits >= 0).all()):
        return False
    sums = logits.float().sum(1)
    return bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-2))
