"""What a model's output went through last: an activation that a loss applies itself must not be there."""

from typing import Any

from torch import Tensor

_ACTIVATIONS = {
    "Hardsigmoid": "sigmoid",
    "LogSigmoid": "sigmoid",
    "LogSoftmax": "log-softmax",
    "Relu": "ReLU",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}
"""By autograd's names, which modules and functions share."""

_BOUNDS = {"Clamp": "_saved_min", "ClampMin": "_saved_min", "Hardtanh": "_saved_min_val"}
"""Where autograd keeps the lower bound: at zero, these are a ReLU by another name."""

_TRANSPARENT = {
    "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AsStrided", "AvgPool2D", "Clone", "Div", "Expand", "Index",
    "IndexSelect", "Mean", "Mul", "Narrow", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "Squeeze", "T",
    "ToCopy",
    "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "UpsampleBilinear2D", "UpsampleNearest2D", "View", *_BOUNDS,
}  # fmt: skip
"""What only changes the shape, the precision, the scale or the range."""


def last_activations(output: Tensor) -> list[str | None]:
    """Name the activation at the end of each of the tensors that were put side by side to make an output.

    Parameters
    ----------
    output : Tensor
        With the history that autograd keeps of it.

    Returns
    -------
    list of (str or None)
        One for most models. ``None`` where there is no activation, or the history does not tell.

    Notes
    -----
    The history names functional activations too, which are no modules; its names are an inner matter of torch,
    so that a change there would only be missed here, and is held by a test.
    """
    return _activations_before(output.grad_fn)


def _activations_before(node: Any) -> list[str | None]:
    if node is None:
        return [None]
    name = node.name().partition("Backward")[0]
    if name in _ACTIVATIONS:
        return [_ACTIVATIONS[name]]
    before = [function for function, _ in node.next_functions if function is not None]
    if name in ("Cat", "Stack"):
        return [activation for function in before for activation in _activations_before(function)]
    if name not in _TRANSPARENT or len(before) != 1:  # what multiplies two outputs of layers is none of these
        return [None]
    return [found or _as_bound(node, name) for found in _activations_before(before[0])]


def _as_bound(node: Any, name: str) -> str | None:
    return "ReLU" if name in _BOUNDS and getattr(node, _BOUNDS[name]) == 0 else None
