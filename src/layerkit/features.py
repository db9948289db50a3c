"""A frozen backbone run once: its features, and the head that is trained on them."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from layerkit.errors import HeadError
from layerkit.heads import Site, find_head
from layerkit.tasks.base import Task
from layerkit.tasks.outputs import split_output
from layerkit.tasks.targets import map_targets

_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Flatten, nn.Identity)


@torch.inference_mode()
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
        Called with each batch before it is used, to check and move it; by default nothing is done.

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
    """
    site = find_head(model).sites[0]
    caught: list[Tensor] = []
    hook = site.module.register_forward_pre_hook(lambda _, inputs: caught.append(_pooled(inputs[0], site)))
    features: list[Tensor] = []
    targets: list[Any] = []
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for inputs, target in batches:
            if each is not None:
                inputs, target = each(inputs, target)
            if not features:
                _check_head_is_last(model, site, inputs)
                caught.clear()
            model(inputs)
            features.append(caught.pop())
            targets.append(target)
    finally:
        hook.remove()
        for module, training in modes.items():
            module.training = training
    if not features:
        raise ValueError("The loader gave no batch; expected at least one picture. Check the folder.")
    return torch.cat(features), map_targets(lambda *parts: torch.cat(parts), *targets)


class FrozenHead(nn.Module):
    """A copy of a model's head that works on standardized features.

    On features as a backbone gives them, with means far from zero and scales that differ by orders of
    magnitude, an optimizer at its usual settings barely moves; on standardized ones the same settings do. The
    head is re-expressed in these coordinates without changing its outputs (the first layer's weights are
    multiplied by the standard deviations, its bias takes up the means), and `state_for_model` folds them back.
    Without a bias there is nothing to take up the means, and features are only scaled. A head whose first
    layer is not linear is left in the features' own coordinates.

    A Dropout that stands directly before the head acts on the standardized features: what it drops is set to
    the feature's mean rather than to zero.
    """

    def __init__(self, model: nn.Module, features: Tensor) -> None:
        super().__init__()
        site = find_head(model).sites[0]
        self.path = site.path
        self.dropout = copy.deepcopy(model.get_submodule(site.dropout)) if site.dropout else nn.Identity()
        self.layers = copy.deepcopy(site.module)
        self.requires_grad_(True)
        self.first = _first_linear(self.layers)
        self._mean, self._std = torch.zeros(1), torch.ones(1)
        if self.first is not None:
            self._std, self._mean = _statistics(features)  # float64, on the host
            if self.first.bias is None:
                self._mean.zero_()
            self._write(self._reexpressed(self.first, into=True))

    def standardize(self, features: Tensor) -> Tensor:
        """Give features in the coordinates that the head works in."""
        mean, std = (_along(1, features, value).to(features) for value in (self._mean, self._std))
        return (features - mean) / std

    def start_from(self, logits: Tensor) -> None:
        """Write constant logits into the last layer, if all of it is zero; else leave what was learnt."""
        last = _last_linear(self.layers)
        if last is None or last.bias is None or any(bool(p.any()) for p in last.parameters()):
            return
        with torch.no_grad():
            last.bias.copy_(logits)

    def state_for_model(self) -> dict[str, Tensor]:
        """Give the head's tensors under the model's own keys and in the features' own coordinates."""
        state = dict(self.layers.state_dict())
        if self.first is not None:
            prefix = next(name for name, module in self.layers.named_modules() if module is self.first)
            folded = self._reexpressed(self.first, into=False)
            state.update({f"{prefix}.{name}" if prefix else name: value for name, value in folded.items()})
        return {f"{self.path}.{name}": value.detach().clone() for name, value in state.items()}

    def forward(self, features: Tensor) -> Tensor:
        """Give logits (N, out_features) of standardized features."""
        logits: Tensor = self.layers(self.dropout(features))
        return logits.flatten(1)

    def _reexpressed(self, layer: Any, *, into: bool) -> dict[str, Tensor]:
        """Change the coordinates of a layer's inputs, in float64: into standardized ones, or back."""
        weight = layer.weight.detach().cpu().to(torch.float64)
        mean, std = (_along(1, weight, value) for value in (self._mean, self._std))
        changed = {"weight": weight * std if into else weight / std}
        if layer.bias is not None:
            raw = weight if into else changed["weight"]
            shift = (raw * mean).flatten(1).sum(1)
            bias = layer.bias.detach().cpu().to(torch.float64)
            changed["bias"] = bias + shift if into else bias - shift
        return {name: value.to(layer.weight) for name, value in changed.items()}

    def _write(self, values: dict[str, Tensor]) -> None:
        assert self.first is not None
        with torch.no_grad():
            for name, value in values.items():
                self.first.get_parameter(name).copy_(value)


class FeatureBatches:
    """Features in memory, dealt out in batches; each ``iter()`` is the next epoch.

    With several views of the pictures each epoch takes the next one. The order depends on the seed and the
    epoch alone.
    """

    def __init__(
        self, views: list[Tensor], targets: Any, *, batch_size: int, shuffle: bool, seed: int = 0
    ) -> None:
        self.views, self.targets = views, targets
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.epoch = 0
        self.first_batch = 0

    def set_epoch(self, epoch: int, *, first_batch: int = 0) -> None:
        """Choose the epoch, and the batch in it, with which the next ``iter()`` begins."""
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def batches(self) -> int:
        """How many there are in an epoch."""
        return math.ceil(len(self) / self.batch_size)

    def __len__(self) -> int:
        return len(self.views[0])

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        epoch, first = self.epoch, self.first_batch
        self.epoch, self.first_batch = epoch + 1, 0
        features = self.views[epoch % len(self.views)]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator) if self.shuffle else torch.arange(len(self))
        for indices in torch.split(order.to(features.device), self.batch_size)[first:]:
            yield features[indices], map_targets(itemgetter(indices), self.targets)


def is_one_linear_layer(head: nn.Module) -> bool:
    """Tell whether a head is a linear layer, or a 1x1 convolution, with nothing but pooling beside it."""
    first = _first_linear(head)
    return first is not None and first is _last_linear(head) and {"weight"} <= set(first._parameters)


def constant_logits(task: Any, targets: Any) -> Tensor | None:
    """Ask the task for the best constant answer; a plain loss has none."""
    return task.constant_logits(map_targets(Tensor.cpu, targets)) if isinstance(task, Task) else None


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Measure each feature's standard deviation and mean; one that never varies keeps its scale."""
    values = features.detach().cpu().to(torch.float64).transpose(0, 1).flatten(1)  # (C, N * positions)
    std, mean = torch.std_mean(values, dim=1, correction=0)
    return torch.where(std > 1e-6 * std.max(), std, 1.0), mean


def _along(dim: int, like: Tensor, values: Tensor) -> Tensor:
    """Shape one value a feature so that it multiplies that dimension of `like`."""
    shape = [1] * like.ndim
    shape[dim] = -1
    return values.reshape(shape)


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
        output, _ = split_output(model(inputs[:2]))
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


def _first_linear(head: nn.Module) -> Any:
    """Find the linear layer that the features enter first, or None."""
    if isinstance(head, nn.Sequential):
        parts = [part for part in head if not isinstance(part, _POOLS)]
        return _first_linear(parts[0]) if parts else None
    return head if isinstance(head, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) else None


def _last_linear(head: nn.Module) -> Any:
    if isinstance(head, nn.Sequential):
        parts = [part for part in head if not isinstance(part, (*_POOLS, nn.Unflatten))]
        return _last_linear(parts[-1]) if parts else None
    return head if isinstance(head, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) else None
