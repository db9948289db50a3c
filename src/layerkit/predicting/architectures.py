"""Which of torchvision's builders made a model: found by structure, proven by rebuilding it."""

import inspect
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import get_model_builder, get_model_weights, list_models

from layerkit.errors import suggestion
from layerkit.heads import find_head
from layerkit.heads.finding import mark_own_head
from layerkit.predicting.layers import Description, WithoutWeights, describe, differences, restore
from layerkit.tasks.outputs import split_output

_LOADS_WEIGHTS = ("weights", "pretrained")


@dataclass(frozen=True)
class Architecture:
    """A recipe for a model without its weights: a builder of torchvision, its arguments, and other layers.

    Attributes
    ----------
    builder : str
        A name of ``torchvision.models.list_models()``.
    arguments : dict
        What the builder is called with; the weights come from elsewhere.
    layers : dict of str to description
        The layers that stand in other places than the builder's: a head of several layers, for example.
    """

    builder: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Description] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.builder, str):
            raise TypeError(
                f"The architecture's builder is {self.builder!r}; expected the name of one, such as 'resnet18'."
            )
        if self.builder not in _builders():
            raise ValueError(
                f"{self.builder!r} is no classifier of torchvision; expected a name such as 'resnet18'."
                f"{suggestion(self.builder, _builders())} torchvision.models.list_models() lists them all."
            )
        if given := [name for name in _LOADS_WEIGHTS if name in self.arguments]:
            raise ValueError(
                f"The architecture is given with {given}; expected none, since the weights are those of the "
                "model itself. Leave them out."
            )

    def build(self, *, most_tensors: int | None = None) -> nn.Module:
        """Build the model with shapes but no values; `assign` gives it weights."""
        with WithoutWeights(most_tensors):
            model: nn.Module = get_model_builder(self.builder)(weights=None, **self.arguments)
            if self.layers:
                _place(model, self.layers)
        return model


def find_architecture(model: nn.Module) -> Architecture | None:
    """Find the builder of torchvision that makes a model of this structure; None if none does.

    Structure is the tree of modules with their classes and printed settings, and the settings that the model
    keeps as plain attributes (``transform_input``, ``image_size``). What neither shows is for `prove` to see.
    """
    home = type(model).__module__
    if not home.startswith("torchvision.models."):
        return None
    names = [name for name in _builders() if get_model_builder(name).__module__ == home]
    found: list[Architecture] = []
    for name in sorted(names, key=lambda name: _distance(name, model)):
        recipe = describe_as(name, model)
        if recipe is not None:
            found.append(recipe)
            if _only_the_head(recipe.layers, model):
                return recipe
    return min(found, key=lambda recipe: len(recipe.layers), default=None)


def describe_as(name: str, model: nn.Module, given: Mapping[str, Any] | None = None) -> Architecture | None:
    """Describe a model as a builder's, with the settings and layers that differ; None if it is not."""
    if given is not None:
        recipe = Architecture(name, given)
        return _with_layers(recipe, recipe.build(), model)
    # Initialising what is overwritten takes long, and two builders warn unless they are told.
    quiet = {"init_weights": False} if "init_weights" in _parameters(model) else {}
    plain = Architecture(name, {**quiet, "num_classes": find_head(model).sites[0].out_features})
    built = plain.build()
    settings = _settings(built, model)
    if not settings:
        return _with_layers(plain, built, model)
    recipe = Architecture(name, {**plain.arguments, **settings})
    try:
        return _with_layers(recipe, recipe.build(), model)
    except (TypeError, ValueError):  # a builder that sets one of these itself, so it is another one
        return None


def _with_layers(recipe: Architecture, built: nn.Module, model: nn.Module) -> Architecture | None:
    layers = {path: describe(layer) for path, layer in differences(built, model)}
    if "" in layers or None in layers.values():
        return None
    return Architecture(recipe.builder, recipe.arguments, layers)  # type: ignore[arg-type]


def assign(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Make tensors the weights of a model that `Architecture.build` built, without copying them.

    Raises
    ------
    RuntimeError
        Names or shapes do not fit.
    """
    load_weights(model, tensors, assign=True)
    left = [name for name, value in _values(model) if value.is_meta]
    if left:
        raise RuntimeError(f"{', '.join(left)} are in no state dict, so their values are lost")
    return model.eval()


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, assign: bool = False) -> None:
    """Load tensors that a model of this very class and version had, which MNASNet wants to be told."""
    state = OrderedDict(tensors)
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(state, assign=assign)


def prove(recipe: Architecture, model: nn.Module, inputs: Tensor) -> str | None:
    """Rebuild a model from its recipe and compare; give what is wrong in words, or None.

    A head that starts at zero answers the same whatever it sees, so what enters the head is compared too.
    """
    path = find_head(model).sites[0].path
    try:
        rebuilt = assign(recipe.build(), model.state_dict())
        pairs = zip(_trace(rebuilt, path, inputs), _trace(model, path, inputs), strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error).splitlines()[0]
    for ours, theirs in pairs:
        if not same_outputs(ours, theirs):
            return "it gives other outputs"
    return None


def same_outputs(ours: Tensor, theirs: Tensor) -> bool:
    """Compare outputs up to what devices, memory formats and versions of torch change in the last digits."""
    if ours.shape != theirs.shape:
        return False
    # Of 16 bits some digits are missing everywhere.
    coarse = 100 if min(ours.element_size(), theirs.element_size()) == 2 else 1
    ours, theirs = ours.float(), theirs.float().to(ours.device)
    scale = float(theirs.abs().max())
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * coarse * scale)


def fixed_pattern(size: tuple[int, int], like: Tensor) -> Tensor:
    """Make one normalised picture (1, 3, H, W) that is the same everywhere, whatever the random state."""
    height, width = size
    return torch.arange(3 * height * width).mul(0.37).sin().view(1, 3, height, width).to(like)


def _builders() -> list[str]:
    """List the classifiers of pictures. The others' builders would load weights for a backbone as well."""
    return [*list_models(module=models), *list_models(module=models.quantization)]


def _settings(built: nn.Module, model: nn.Module) -> dict[str, Any]:
    """Find the arguments that a model keeps as attributes, where they are not the builder's default."""
    values = {name: getattr(model, name, None) for name in _parameters(model) if name != "num_classes"}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | float | str) and value != getattr(built, name, None)
    }


def _parameters(model: nn.Module) -> list[str]:
    kinds = [kind for kind in type(model).__mro__ if kind.__module__.startswith("torchvision.models.")]
    return [name for kind in kinds for name in inspect.signature(kind).parameters]


def _place(model: nn.Module, layers: Mapping[str, Description]) -> None:
    """Put layers in their places, and write on heads what they stand for, as `replace_head` does."""
    sites = {site.path: site for site in find_head(model).sites}
    for path, description in layers.items():
        layer = restore(description)
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent).register_module(name, layer)
        if path in sites:
            mark_own_head(layer, sites[path], sites[path].out_features)


def _distance(name: str, model: nn.Module) -> int:
    """Guess how near a builder is, by its pretrained weights' number of parameters, without building it."""
    weights = next(iter(get_model_weights(name)), None)
    size = 0 if weights is None else weights.meta.get("num_params", 0)
    return abs(int(size) - sum(parameter.numel() for parameter in model.parameters()))


def _only_the_head(paths: Iterable[str], model: nn.Module) -> bool:
    """Tell whether all of these lie at the head, or beside it in the same block."""
    sites = [site.path for site in find_head(model).sites]
    blocks = {site.rpartition(".")[0] for site in sites} - {""}
    return all(path in sites or path.partition(".")[0] in blocks for path in paths)


def _trace(model: nn.Module, path: str, inputs: Tensor) -> list[Tensor]:
    """Give what entered the layer at `path`, and the output."""
    entered: list[Tensor] = []
    own = threading.get_ident()  # other threads may be asking the same model

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == own:
            entered.append(args[0])

    hook = model.get_submodule(path).register_forward_pre_hook(note)
    try:
        output, _ = split_output(model(inputs))
    finally:
        hook.remove()
    return [*entered, output]


def _values(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
