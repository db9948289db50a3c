"""The head of a frozen backbone, trained on standardized features."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from layerkit.heads import find_head
from layerkit.tasks.base import Task
from layerkit.tasks.targets import map_targets

_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Flatten, nn.Identity)


_FEW = 10
"""Pictures, of eighty or more. A deviation that fewer make up says nothing of the others."""

_LEAST_SCALE = 0.1
"""Of the root mean square of all features' standard deviations: what a feature is scaled by that few pictures show."""


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


def is_one_linear_layer(head: nn.Module) -> bool:
    """Tell whether a head is a linear layer, or a 1x1 convolution, with nothing but pooling beside it."""
    first = _first_linear(head)
    return first is not None and first is _last_linear(head) and {"weight"} <= set(first._parameters)


def constant_logits(task: Any, targets: Any) -> Tensor | None:
    """Ask the task for the best constant answer; a plain loss has none."""
    return task.constant_logits(map_targets(Tensor.cpu, targets)) if isinstance(task, Task) else None


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Measure each feature's mean, and the standard deviation that it is scaled by.

    A feature that a few training pictures show, and faintly, has a tiny deviation. Scaled by that, it would be a
    hundred times larger in the first picture that shows it clearly, and the answer with it.
    """
    values = features.detach().cpu().to(torch.float64)
    values = values.flatten(2) if values.ndim > 2 else values.unsqueeze(2)  # (N, C, positions)
    std, mean = torch.std_mean(values, dim=(0, 2), correction=0)
    squares = (values - mean.unsqueeze(1)).square().sum(2)
    carriers = squares.sum(0).square() / squares.square().sum(0)  # how many pictures the variance rests on
    least = _LEAST_SCALE * std.square().mean().sqrt()
    few = min(_FEW, len(values) / 8)  # where most features are spread evenly, a third of all carry each
    is_known = (carriers >= few) & (std > 1e-6 * std.max())  # not NaN either, of a feature that never varies
    scale = torch.where(is_known, std, torch.maximum(std, least))
    return torch.where(scale > 0, scale, 1.0), mean


def _along(dim: int, like: Tensor, values: Tensor) -> Tensor:
    """Shape one value a feature so that it multiplies that dimension of `like`."""
    shape = [1] * like.ndim
    shape[dim] = -1
    return values.reshape(shape)


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
