"""Freeze parts of a model so that they hold still, and give deeper parts smaller steps."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from layerkit.heads import backbone_stages, find_head
from layerkit.heads.stages import stages_before

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_HELD = "_layerkit_held"  # on a module: the names of its own parameters that freezing switched off


class _StayInEval:
    """Stands in for the ``train`` of one frozen module, which stays in evaluation mode.

    As an attribute of the instance it goes before the method of the class, whoever calls: the user, ``fit``,
    or the ``train`` of a module further up. Neither the class nor the state dict changes.
    Deep copies and pickles rebuild it around the new module.
    The reference is weak, so that a frozen model is freed as soon as nobody holds it.
    """

    def __init__(self, module: nn.Module, mode: bool) -> None:
        self.module = weakref.ref(module)
        self.mode = mode  # what the module would be in if it were not frozen

    def __call__(self, mode: bool = True) -> nn.Module | None:
        self.mode = mode
        module = self.module()
        if module is not None:
            for child in module.children():  # a child may have been unfrozen, or be a new head
                child.train(mode)
        return module

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.module(), self.mode)


def freeze(module: ModuleT) -> ModuleT:
    """Freeze a module in place: no gradients, and evaluation mode whatever ``train()`` says.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or any part of one.

    Returns
    -------
    torch.nn.Module
        The same object.

    Notes
    -----
    ``requires_grad_(False)`` alone does not hold a module still: batch norm goes on moving its statistics,
    and dropout goes on dropping.
    Here both rest, also after ``model.train()`` on any module above, in deep copies, and in pickled models.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.freezing import freeze
    >>> model = resnet18()
    >>> _ = freeze(model.layer1)
    >>> _ = model.train()
    >>> model.layer1.training, model.layer2.training
    (False, True)
    """
    for part in module.modules():
        _hold_parameters(part)
        if not is_frozen(part):
            part.__dict__["train"] = _StayInEval(part, part.training)
            part.training = False
    return module


def unfreeze(module: ModuleT) -> ModuleT:
    """Undo `freeze` for a module and everything in it, in place.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or any part of one; parts that are not frozen stay as they are.

    Returns
    -------
    torch.nn.Module
        The same object.

    Notes
    -----
    Each parameter gets back the ``requires_grad`` that it had, and each module the mode that was asked of it
    in the meantime.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.freezing import freeze, unfreeze
    >>> model = freeze(resnet18())
    >>> _ = unfreeze(model.layer4)
    >>> sorted({name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad})
    ['layer4']
    """
    for part in module.modules():
        for name in part.__dict__.pop(_HELD, ()):
            if (parameter := part._parameters.get(name)) is not None:
                parameter.requires_grad_(True)
        if is_frozen(part):
            part.training = part.__dict__.pop("train").mode
    return module


def is_frozen(module: nn.Module) -> bool:
    """Tell whether `freeze` holds this module itself."""
    return isinstance(module.__dict__.get("train"), _StayInEval)


def modes_of(model: nn.Module) -> dict[nn.Module, tuple[bool, bool | None]]:
    """Note which modules are in training mode, and which of the frozen ones would be; for `put_modes`."""
    return {
        module: (module.training, module.__dict__["train"].mode if is_frozen(module) else None)
        for module in model.modules()
    }


def put_modes(modes: dict[nn.Module, tuple[bool, bool | None]]) -> None:
    """Put modules back in the modes that `modes_of` noted."""
    for module, (training, wanted) in modes.items():
        module.training = training
        if wanted is not None and is_frozen(module):
            module.__dict__["train"].mode = wanted


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, and put it back as it was when the block ends."""
    modes = modes_of(model)
    model.eval()
    try:
        yield
    finally:
        put_modes(modes)


def freeze_backbone(model: ModuleT, *, where: str | None = None) -> ModuleT:
    """Freeze everything but the head of a model, in place.

    Parameters
    ----------
    model : torch.nn.Module
        A model whose head `layerkit.find_head` finds, before or after `layerkit.replace_head`.
    where : str, optional
        The path of the head, for models that layerkit does not know.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    layerkit.HeadError
        If no head is found.

    Notes
    -----
    The head is the layers that would be replaced, auxiliary ones included, and a dropout directly before
    them.
    The modules around the head, and the model itself, follow ``train()`` as ever, since some compute losses
    or auxiliary outputs only in training; their own parameters (a class token) are frozen.
    What `freeze` froze in the head before is unfrozen.

    Examples
    --------
    >>> from torchvision.models import vgg11
    >>> from layerkit.freezing import freeze_backbone
    >>> model = freeze_backbone(vgg11())
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['classifier.6.weight', 'classifier.6.bias']
    """
    sites = find_head(model, where=where).sites
    kept = {site.path for site in sites} | {site.dropout for site in sites if site.dropout}
    unfreeze(model)
    _freeze_except(model, "", kept)
    return model


def unfreeze_backbone(model: ModuleT, *, stages: int | None = None, where: str | None = None) -> ModuleT:
    """Unfreeze the last stages of a backbone, those nearest the head, in place.

    Parameters
    ----------
    model : torch.nn.Module
        A model that `freeze_backbone` or `freeze` has frozen.
    stages : int, optional
        How many stages to unfreeze, as `backbone_stages` lists them; by default all.
    where : str, optional
        The path of the head, for models that layerkit does not know.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    ValueError
        If `stages` is negative.
    layerkit.HeadError
        If no head is found.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.freezing import freeze_backbone, unfreeze_backbone
    >>> model = unfreeze_backbone(freeze_backbone(resnet18()), stages=1)
    >>> sorted({name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad})
    ['fc', 'layer4']
    """
    if stages is not None and stages < 0:
        raise ValueError(
            f"`stages` is {stages}; expected how many stages to unfreeze, 0 or more. For all, leave it out."
        )
    found = backbone_stages(model, where=where)
    if stages is None or stages >= len(found):
        return unfreeze(model)
    for stage in found[len(found) - stages :]:
        for path in stage.modules:
            unfreeze(model.get_submodule(path))
    return model


def parameter_groups(
    model: nn.Module,
    lr: float,
    *,
    decay: float = 0.7,
    weight_decay: float | None = None,
    where: str | None = None,
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters for an optimizer, with smaller steps the deeper they lie.

    Parameters
    ----------
    model : torch.nn.Module
        A model whose head `layerkit.find_head` finds.
    lr : float
        The learning rate of the head.
    decay : float, default 0.7
        The factor from each stage to the one before it, above 0 and up to 1.
    weight_decay : float, optional
        The weight decay of everything but norms and biases, which get 0.
        By default it is left to the optimizer.
    where : str, optional
        The path of the head, for models that layerkit does not know.

    Returns
    -------
    list of dict
        Groups with the keys ``name``, ``params``, ``lr`` and, where it is set, ``weight_decay``, the head
        first.
        Each trainable parameter is in exactly one; frozen ones are in none.

    Raises
    ------
    ValueError
        If `lr`, `decay` or `weight_decay` is out of range.
    layerkit.HeadError
        If no head is found.

    Notes
    -----
    The first stages of a pretrained backbone hold what is general, edges and textures, and need the least
    change.
    With `decay` at 0.7, a ResNet's first layer takes a sixth of the head's step; for deep transformers, whose
    stages are blocks, 0.75 to 0.9 is usual.
    An optimizer's own ``lr`` and ``weight_decay`` do not touch groups that have theirs.

    References
    ----------
    Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018 (discriminative
    fine-tuning), https://arxiv.org/abs/1801.06146

    Bao et al., BEiT: BERT Pre-Training of Image Transformers, 2021 (layer-wise decay),
    https://arxiv.org/abs/2106.08254

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.freezing import parameter_groups
    >>> groups = parameter_groups(resnet18(), lr=0.1)
    >>> [(group["name"], round(group["lr"], 3)) for group in groups[:3]]
    [('fc', 0.1), ('fc, no weight decay', 0.1), ('layer4', 0.07)]
    """
    _check_rates(lr, decay, weight_decay)
    head = find_head(model, where=where)
    sites = tuple(site.path for site in head.sites)
    levels = [sites, *(stage.modules for stage in reversed(stages_before(head, model)))]
    level_of = {path: level for level, paths in enumerate(levels) for path in paths}

    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    placed: set[nn.Parameter] = set()
    for path, owner in model.named_modules():
        # What no stage holds stands in front of them all: class tokens and position embeddings.
        level = next((level_of[above] for above in _upwards(path) if above in level_of), len(levels) - 1)
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in placed:
                placed.add(parameter)
                members.setdefault((level, _decays(owner, name, parameter)), []).append(parameter)
    return [
        _group(levels[level][0], members[level, decays], lr * decay**level, decays, weight_decay)
        for level, decays in sorted(members, key=lambda key: (key[0], not key[1]))
    ]


def _group(
    name: str, params: list[nn.Parameter], lr: float, decays: bool, weight_decay: float | None
) -> dict[str, Any]:
    group = {"name": name if decays else f"{name}, no weight decay", "params": params, "lr": lr}
    if not decays:
        group["weight_decay"] = 0.0
    elif weight_decay is not None:
        group["weight_decay"] = weight_decay
    return group


def _decays(owner: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    # The learned parameters of every norm are vectors, save those of a LayerNorm over several dimensions.
    return parameter.dim() > 1 and "bias" not in name and not isinstance(owner, nn.LayerNorm)


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _check_rates(lr: float, decay: float, weight_decay: float | None) -> None:
    if not lr > 0:
        raise ValueError(f"`lr` is {lr}; expected a number above 0. To hold parts still, freeze them.")
    if not 0 < decay <= 1:
        raise ValueError(
            f"`decay` is {decay}; expected a factor above 0 and up to 1. "
            "For one learning rate everywhere, pass decay=1."
        )
    if weight_decay is not None and not weight_decay >= 0:
        raise ValueError(
            f"`weight_decay` is {weight_decay}; expected 0 or more. "
            "To leave it to the optimizer, leave it out."
        )


def _freeze_except(module: nn.Module, path: str, kept: set[str]) -> None:
    if path in kept:
        return
    if not any(f"{inner}.".startswith(f"{path}." if path else "") for inner in kept):
        freeze(module)
        return
    _hold_parameters(module)
    for name, child in module.named_children():
        _freeze_except(child, f"{path}.{name}".removeprefix("."), kept)


def _hold_parameters(module: nn.Module) -> None:
    held = [name for name, p in module.named_parameters(recurse=False) if p.requires_grad]
    if held:
        module.__dict__[_HELD] = (*module.__dict__.get(_HELD, ()), *held)
        for name in held:
            parameter = module.get_parameter(name).requires_grad_(False)
            parameter.grad = None  # an optimizer would step on what an earlier batch left
