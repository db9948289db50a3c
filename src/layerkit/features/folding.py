"""Batch norm folded into the convolutions before it, for as long as a backbone only answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def folded_batch_norm(model: nn.Module, answer: Callable[[], Tensor]) -> Iterator[None]:
    """Let convolutions do the work of the batch norms that follow them, within a block.

    In evaluation mode a batch norm multiplies and adds the same numbers each time, which the convolution before
    it can do on the way (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2). Other modules stand
    in for both; no weight is touched, and at the block's end the model is what it was.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    answer : callable
        Runs the model on a few inputs and gives what comes of it: twice, to see which modules follow each other
        and whether the answers stay the same. Where they don't, nothing at all is folded.

    Notes
    -----
    What somebody watches or changes by hooks, as pruning and the older weight norm do, is left alone. Both runs
    are in the weights' own precision, whose rounding tells more than that of an autocast.
    """
    device = next((p.device.type for p in model.parameters()), "cpu")
    with torch.autocast(device, enabled=False):
        before, pairs = _watch(model, answer)
    stand_ins: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs:
        stand_ins |= {conv: fuse_conv_bn_eval(conv, norm), norm: nn.Identity()}
    originals = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child in stand_ins
    ]
    try:
        for parent, name, child in originals:
            setattr(parent, name, stand_ins[child])
        with torch.autocast(device, enabled=False):
            is_right = not pairs or _agree(before, answer())
        if not is_right:
            _put_back(originals)
        yield
    finally:
        _put_back(originals)


def _watch(model: nn.Module, answer: Callable[[], Tensor]) -> tuple[Tensor, list[tuple[Any, Any]]]:
    """Run the model; list the convolutions whose output went straight into a batch norm."""
    given: dict[int, tuple[nn.Module, Tensor]] = {}  # holds each output, so that no other gets its id
    follows: dict[nn.Module, nn.Module] = {}

    def after_convolution(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        given[id(output)] = (module, output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in given:
            follows[given[id(inputs[0])][0]] = module

    hooks = [
        module.register_forward_hook(after_convolution)
        if type(module) in _CONVOLUTIONS
        else module.register_forward_pre_hook(before_norm)
        for module in filter(_is_plain, model.modules())
    ]
    try:
        output = answer()
    finally:
        for hook in hooks:
            hook.remove()
    return output, list(follows.items())


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a module is one of the two kinds, in evaluation mode, and nothing but that."""
    if module.training or module._forward_hooks or module._forward_pre_hooks:
        return False
    return type(module) in _CONVOLUTIONS or (type(module) in _NORMS and module.running_mean is not None)


def _agree(one: Tensor, other: Tensor) -> bool:
    """Tell whether two answers differ by no more than rounding does, TF32's included."""
    return bool((one - other).abs().max() < 5e-3 * one.abs().max())  # of zeros nothing is proved


def _put_back(originals: list[tuple[nn.Module, str, nn.Module]]) -> None:
    for parent, name, child in originals:
        setattr(parent, name, child)
