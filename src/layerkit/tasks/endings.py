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
    "ToCopy", "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "UpsampleBilinear2D", "UpsampleNearest2D", "View",
    *_BOUNDS,
}  # fmt: skip
"""What only changes the shape, the precision, the scale or the range."""

_SELECTING = {"Index", "IndexSelect", "Narrow", "Select", "Slice", "Split", "Unbind"}
"""Of these, what may leave out some of the tensors that were put side by side."""


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
    functions = [function for function, _ in node.next_functions]
    if name in ("Cat", "Stack"):
        return [activation for function in functions for activation in _activations_before(function)]
    before = [function for function in functions if function is not None]
    if name not in _TRANSPARENT or len(before) != 1 or (name in ("Mul", "Div") and not _is_scaled(node)):
        return [None]
    found = [activation or _as_bound(node, name) for activation in _activations_before(before[0])]
    return [None] if name in _SELECTING and len(set(found)) > 1 else found  # which piece was it?


def _is_scaled(node: Any) -> bool:
    """Tell a scale from a gate, that is one number from the outputs of other layers, which may be frozen."""
    try:
        other = node._saved_self if node.next_functions[0][0] is None else node._saved_other
    except RuntimeError:  # the graph was freed by a backward()
        return False
    return isinstance(other, Tensor) and other.shape in ((), (1,))


def _as_bound(node: Any, name: str) -> str | None:
    bound = getattr(node, _BOUNDS[name], None) if name in _BOUNDS else None
    return "ReLU" if isinstance(bound, int | float) and bound == 0 else None
