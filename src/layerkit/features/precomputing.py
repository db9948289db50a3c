"""A frozen backbone run once, and what entered its head kept."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerkit.device import choose_hardware
from layerkit.errors import HeadError
from layerkit.features.folding import folded_batch_norm
from layerkit.freezing import in_evaluation
from layerkit.heads import Site, find_head
from layerkit.tasks.outputs import split_output
from layerkit.tasks.targets import map_targets


@torch.no_grad()  # not inference_mode(): what a model keeps for itself could not be trained with afterwards
def precompute_features(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Any]],
    *,
    each: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None,
) -> tuple[Tensor, Any]:
    """Run a backbone once over a loader and keep what enters its head.

    Parameters
    ----------
    model : torch.nn.Module
        Any model in which `find_head` finds one main layer. It is run in evaluation mode, and put back.
    batches : iterable of (inputs, target)
        A loader. It is read once, in its own order.
    each : callable, optional
        Called with each batch before it is used, to check and move it. By default the inputs are brought to the
        model's device, channels-last where convolutions are faster so.

    Returns
    -------
    features : Tensor, shape (N, in_features), or (N, in_features, 1, 1) before a convolution
        What enters the head's main layer (before a Dropout that stands directly in front of it). Where a
        1x1 convolution's outputs are averaged over all positions (SqueezeNet, S3D), the features are averaged
        instead, since the two commute.
    targets : Tensor, or dict of these
        The targets, concatenated.

    Raises
    ------
    HeadError
        The model's output is not its head's output, so that training the head alone would train something
        else.

    Notes
    -----
    While it runs, batch norms that directly follow a convolution are folded into it, which changes features by
    rounding alone and saves some of the time; where a few pictures prove otherwise, they are left as they are.
    """
    each = each or _mover(model)
    site = find_head(model).sites[0]
    caught: list[Tensor] = []
    hook = site.module.register_forward_pre_hook(lambda _, inputs: caught.append(_pooled(inputs[0], site)))
    features: list[Tensor] = []
    targets: list[Any] = []

    def run(inputs: Tensor) -> Tensor:
        caught.clear()
        model(inputs)
        return caught.pop()

    try:
        with in_evaluation(model), ExitStack() as folding:
            for inputs, target in batches:
                inputs, target = each(inputs, target)
                if not features:
                    _check_head_is_last(model, site, inputs[:2])
                    folding.enter_context(folded_batch_norm(model, partial(run, inputs[:2])))
                features.append(run(inputs))
                targets.append(target)
    finally:
        hook.remove()
    if not features:
        raise ValueError("The loader gave no batch; expected at least one picture. Check the folder.")
    return torch.cat(features), map_targets(lambda *parts: torch.cat(parts), *targets)


def _mover(model: nn.Module) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    hardware = choose_hardware(model, device, "fp32")
    return lambda inputs, target: (hardware.move(inputs), target)


def _pooled(inputs: Tensor, site: Site) -> Tensor:
    return inputs.mean(dim=tuple(range(2, inputs.ndim)), keepdim=True) if site.pools_after else inputs.clone()


def _check_head_is_last(model: nn.Module, site: Site, inputs: Tensor) -> None:
    """Prove that the head's output is the model's: give other outputs in its place and see them come out."""
    given: list[Tensor] = []

    def replace(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        values = torch.linspace(-1, 1, output.numel(), dtype=torch.float32, device=output.device)
        given.append(values.view(output.shape).to(output.dtype))
        return given[-1]

    hook = site.module.register_forward_hook(replace)
    try:
        output, _ = split_output(model(inputs))
    finally:
        hook.remove()
    if len(given) == 1:
        expected = (_pooled(given[0], site) if site.pools_after else given[0]).flatten(1)
        if expected.shape == output.flatten(1).shape and torch.allclose(
            expected, output.flatten(1), atol=1e-2
        ):
            return
    raise HeadError(
        f"The output of the layer {site.path!r} is not the model's output; expected nothing but the head after "
        "the frozen part, since the backbone runs only once. Remove what stands after it in forward(), such as a "
        "softmax, which the task applies itself; or use frozen_epochs=0 and freeze_backbone(model)."
    )
