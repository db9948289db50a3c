"""Layers as plain data: described when a model is saved, built again when it is loaded."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Description = dict[str, Any]

# What people build heads of. A file can name nothing else, so it cannot have just any class called.
_LAYERS: dict[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity, nn.Flatten, nn.Unflatten),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d),
        *(nn.AvgPool2d, nn.MaxPool2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm),
        *(nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.LeakyReLU, nn.Mish, nn.PReLU, nn.ReLU),
        *(nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh),
    )
}
_ALLOCATIONS = frozenset((torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros))
_FILLINGS = frozenset(
    getattr(torch.Tensor, name)
    for name in ("normal_", "uniform_", "erfinv_", "fill_", "zero_", "mul_", "add_")
)


class WithoutWeights(TorchFunctionMode):
    """Build modules whose parameters have shapes but no values, in no time and no memory.

    Only what fills memory goes to the meta device. What a constructor computes stays real: RegNet reads its
    widths from tensors, and relative positions are wanted with their values.

    Parameters
    ----------
    most : int, optional
        How many tensors may be made: a stranger's file could ask for a billion layers.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ALLOCATIONS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise ValueError("the architecture has far more layers than the file has tensors")
        if func in _FILLINGS and args[0].is_meta:  # there is nothing to fill, and torch takes long over it
            return args[0]
        return func(*args, **kwargs)


def differences(built: nn.Module, model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Find the outermost modules of `model` that are not as in `built`, each with its path."""
    ours, theirs = dict(built.named_children()), dict(model.named_children())
    if _signature(built) != _signature(model) or ours.keys() != theirs.keys():
        yield path, model
        return
    for name, child in theirs.items():
        yield from differences(ours[name], child, f"{path}.{name}".removeprefix("."))


def describe(layer: nn.Module) -> Description | None:
    """Describe one of torch's own layers, or a Sequential of them; None for any other."""
    name = type(layer).__name__
    if type(layer) is nn.Sequential:
        children = {name: describe(child) for name, child in layer.named_children()}
        return None if None in children.values() else {"layer": "Sequential", "children": children}
    if _LAYERS.get(name) is not type(layer):
        return None
    arguments = {name: getattr(layer, name) for name in _parameters(type(layer))}
    if "bias" in arguments:  # the argument says whether, the attribute holds which
        arguments["bias"] = layer.bias is not None
    return {"layer": name, "arguments": arguments}


def restore(description: Description) -> nn.Module:
    """Build what `describe` described.

    Raises
    ------
    ValueError
        It names a layer that is not on the list.
    """
    name = description["layer"]
    if name == "Sequential":
        sequence = nn.Sequential()
        for child, inner in description["children"].items():
            sequence.add_module(child, restore(inner))
        return sequence
    if name not in _LAYERS:
        raise ValueError(f"the layer {name!r} is not one that layerkit saves")
    arguments = description["arguments"]
    return _LAYERS[name](
        **{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    )


def _parameters(layer: type[nn.Module]) -> list[str]:
    named = (parameter for parameter in inspect.signature(layer).parameters.values())
    plain = (p.name for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return [name for name in plain if name not in ("device", "dtype")]


def _signature(module: nn.Module) -> tuple[str, str]:
    # SyncBatchNorm answers as BatchNorm2d does: only training shares statistics, and never on a CPU.
    kind = nn.BatchNorm2d if type(module) is nn.SyncBatchNorm else type(module)
    return f"{kind.__module__}.{kind.__name__}", module.extra_repr()
