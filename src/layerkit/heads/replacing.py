"""Replace the head of a model in place, all of it or nothing."""

import operator
from contextlib import suppress
from typing import Protocol, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from layerkit.errors import HeadError, shown
from layerkit.heads.detectors import new_predictor, predictor_features
from layerkit.heads.families import FAMILIES, row_of
from layerkit.heads.finding import Head, Site, find_head, mark_own_head, plain_of, remember
from layerkit.heads.layers import HeadFactory, after_pooling, is_convolution, zero_start

ModelT = TypeVar("ModelT", bound=nn.Module)


class HasOutFeatures(Protocol):
    """A task, of which a head knows only the number of outputs."""

    @property
    def out_features(self) -> int:
        """How many outputs the head is to have."""


def replace_head(
    model: ModelT,
    task: HasOutFeatures | int,
    /,
    *,
    head: HeadFactory | None = None,
    where: str | None = None,
) -> ModelT:
    """Give a model a new head with as many outputs as a task asks for, in place.

    Parameters
    ----------
    model : torch.nn.Module
        A torchvision model, a timm model, or any other; it is changed.
    task : task or int
        The task to be learned, or a number of outputs.
        For detection a number only: torchvision's ``num_classes``, which counts the background.
    head : callable, optional
        A factory of (in_features, out_features), such as `MLPHead`, called once for each site,
        auxiliary ones included.
        ``torch.nn.Linear`` means a layer of the kind that the site has, with torch's own initialisation.
        By default it is that layer, started at zero.
    where : str, optional
        The path of the layer to be replaced, for models that layerkit does not know.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    HeadError
        If no head is found, or it cannot be replaced as asked.
    TypeError
        If `task` is neither a number nor has one as ``out_features``, or `head` makes no module.
    ValueError
        If the number of outputs is below 1.

    Notes
    -----
    A head at zero gives the same answer to everything, so the first steps move the head alone and do not
    shake a pretrained backbone.
    Detection keeps torchvision's own initialisation: a mask predictor at zero would never learn.

    The new layer keeps the old one's name, device, dtype, memory format and training flag, and the state dict
    has the keys and shapes of torchvision's own builder with that ``num_classes``.
    Hooks on the old layer go with it.
    SqueezeNet's last ReLU goes too: no output could be negative behind it.
    If anything fails, the model is as it was.

    References
    ----------
    Kolesnikov et al., Big Transfer (BiT): General Visual Representation Learning, 2020,
    https://arxiv.org/abs/1912.11370

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.heads import replace_head
    >>> replace_head(resnet18(), 3).fc
    Linear(in_features=512, out_features=3, bias=True)
    """
    if isinstance(task, nn.Module) and hasattr(model, "out_features") and not hasattr(task, "out_features"):
        raise TypeError(
            f"`model` is {shown(model)} and `task` {shown(task)}; expected the model first: replace_head(model, task)."
        )
    if isinstance(model, DistributedDataParallel):
        raise HeadError(
            "The model is wrapped in DistributedDataParallel, which would not synchronise a new head; "
            "expected the model itself. Replace the head first, then wrap the model."
        )
    out_features = _out_features(task)
    if isinstance(head, nn.Module):
        raise TypeError(
            f"`head` is the module {type(head).__name__}; expected a function of (in_features, out_features) "
            "that makes one, since each site needs its own. Pass head=lambda i, o: torch.nn.Sequential(...)."
        )
    found = find_head(model, where=where)
    if found.kind == "segmentation" and not getattr(task, "answers_pixels", True):
        raise HeadError(
            f"{found.family} answers for each pixel, and got the task {type(task).__name__}, which answers for a "
            "picture; expected Multiclass, Binary or a number of outputs. With a number, the loss is yours."
        )
    if found.kind == "detection":
        _check_detection(found, task, out_features, head)
    modules = [_new_module(found, site, out_features, head) for site in found.sites]

    for site, module in zip(found.sites, modules, strict=True):
        _set_submodule(model, site.path, module)
        _count_classes(model, site, out_features)
    _drop_activation(model, found)
    remember(model, found)
    return model


def _out_features(task: HasOutFeatures | int) -> int:
    number = getattr(task, "out_features", task)
    try:
        if isinstance(number, bool):
            raise TypeError
        number = operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"`task` is {shown(task)}; expected a task such as Multiclass(classes), or a whole number of outputs. "
            "For three outputs, pass 3."
        ) from None
    if number < 1:
        raise ValueError(
            f"`task` asks for {number} outputs; expected 1 or more. For one number or one yes-or-no, pass 1."
        )
    return number


def _check_detection(
    found: Head, task: HasOutFeatures | int, out_features: int, head: HeadFactory | None
) -> None:
    if hasattr(task, "out_features"):
        raise HeadError(
            f"{found.family} is a detector, and got the task {type(task).__name__}; expected a number, since "
            "a detector computes its own losses. Pass the number of classes with the background counted: "
            "2 for one kind of object."
        )
    if any(predictor_features(site.module) is None for site in found.sites):
        paths = ", ".join(repr(site.path) for site in found.sites)
        raise HeadError(
            f"The predictors of this {found.family} ({paths}) are not torchvision's; expected those, since "
            "layerkit knows how no others are built. Replace them by hand."
        )
    if head is not None:
        raise HeadError(
            f"{found.family} is a detector, and got head={head!r}; expected none, since its predictors are "
            "several layers that share one count of classes. Leave `head` out."
        )
    if out_features < 2:
        raise HeadError(
            f"{found.family} got {out_features} class; expected 2 or more, since torchvision counts the "
            "background as one. For one kind of object, pass 2."
        )


def _new_module(found: Head, site: Site, out_features: int, head: HeadFactory | None) -> nn.Module:
    like = next((p for p in site.module.parameters() if p.is_floating_point()), torch.empty(0))
    with torch.device(like.device):
        module = _build(found, site, out_features, head)
    module.to(device=like.device, dtype=like.dtype)
    _keep_memory_format(site.module, module)
    return module.train(site.module.training)


def _build(found: Head, site: Site, out_features: int, head: HeadFactory | None) -> nn.Module:
    if found.kind == "detection":
        return new_predictor(site.module, out_features)
    plain = plain_of(site.module)
    if head is None:
        return zero_start(plain(site.in_features, out_features))
    if head is nn.Linear:
        return plain(site.in_features, out_features)
    if is_convolution(plain) and not site.pools_after:
        raise HeadError(
            f"'{site.path}' is a convolution that answers at every position, and got head={head!r}; expected "
            "none, since a head of (N, features) cannot stand there. Leave `head` out, or pass "
            "head=torch.nn.Linear for torch's own initialisation."
        )
    module = head(site.in_features, out_features)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`head` made a {type(module).__name__}; expected a function of (in_features, out_features) that "
            "returns a torch.nn.Module. MLPHead() is one."
        )
    if is_convolution(plain):
        module = after_pooling(plain, module, out_features)
    mark_own_head(module, site, out_features)
    return module


def _keep_memory_format(old: nn.Module, new: nn.Module) -> None:
    # The last stride of a channels-last weight is its number of channels, also where a 1x1 kernel lets
    # `is_contiguous` say yes to both formats.
    weights = [p for p in old.parameters() if p.dim() in (4, 5) and p.stride(-1) != 1]
    if weights:
        four = weights[0].dim() == 4
        new.to(memory_format=torch.channels_last if four else torch.channels_last_3d)


def _set_submodule(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another, under every name that the other has in the model."""
    old = model.get_submodule(path)
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is old
    ]
    for parent, name in places:
        setattr(parent, name, module)


def _count_classes(model: nn.Module, site: Site, out_features: int) -> None:
    """Bring the ``num_classes`` of the modules around a site up to date; some forward passes read it."""
    parts = site.path.split(".")
    for length in range(len(parts)):
        ancestor = model.get_submodule(".".join(parts[:length]))
        if getattr(ancestor, "num_classes", None) == site.out_features:
            with suppress(AttributeError):  # a property without a setter computes it
                ancestor.num_classes = out_features  # type: ignore[assignment]


def _drop_activation(model: nn.Module, found: Head) -> None:
    row = FAMILIES.get(found.family)
    place = found.sites[0].path
    if row is None or not row.drop_activation or not f".{place}".endswith(f".{row.main[0]}"):
        return
    body = place.removesuffix(row.main[0])
    if row_of(model.get_submodule(body.rstrip("."))) is None:  # a foreign class of that name
        return
    path = body + row.drop_activation
    activation = model.get_submodule(path)
    if isinstance(activation, nn.ReLU):
        _set_submodule(model, path, nn.Identity().train(activation.training))
