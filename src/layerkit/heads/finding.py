"""Find the head of a model: the layers that know the number of outputs."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from layerkit.errors import HeadError, warn
from layerkit.heads.detectors import predictor_features
from layerkit.heads.families import Family, Kind, family_of, row_of
from layerkit.heads.layers import PlainLayer, is_convolution, plain_layer

# Plain attributes of modules: they are in no state dict, and deep copies and pickles keep them.
_PLACES = "_layerkit_places"  # on a model: the paths of a head that no table knows
_OWN_HEAD = "_layerkit_own_head"  # on a head: (in_features, out_features, the plain layer it stands for)

_WRAPPERS = {  # by name, since torch keeps the class of a compiled model private
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_QUANTIZED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.qat",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.intrinsic.qat",
)


@dataclass(frozen=True)
class Site:
    """One place of a head: a layer that `replace_head` would replace.

    Attributes
    ----------
    path : str
        Where the layer is, as ``model.get_submodule`` takes it.
    module : torch.nn.Module
        The layer itself.
    in_features : int
        How many features (or channels) enter it.
    out_features : int
        How many outputs it has now.
    auxiliary : bool
        Whether it feeds an auxiliary output, which only training uses.
    dropout : str or None
        The path of an ``nn.Dropout`` applied directly before it, which belongs to the head.
    pools_after : bool
        Whether it is a 1x1 convolution whose outputs are averaged over all positions, or one over a
        single position: the average may as well be taken before it.
    """

    path: str
    module: nn.Module = field(repr=False, compare=False)
    in_features: int
    out_features: int
    auxiliary: bool = False
    dropout: str | None = None
    pools_after: bool = False


@dataclass(frozen=True)
class Head:
    """What `find_head` found: the family of the model, and the sites, main ones first.

    Attributes
    ----------
    family : str
        The class of the model as torchvision names it, or the class of a foreign model.
    sites : tuple of Site
        The layers to be replaced: the main one first, auxiliary ones last.
    kind : {"classification", "video", "segmentation", "detection", "other"}
        What the model is for; "other" for models that layerkit does not know.
    """

    family: str
    sites: tuple[Site, ...]
    kind: Kind = "other"


def find_head(model: nn.Module, *, where: str | None = None) -> Head:
    """Find the layers of a model that know the number of outputs, and change nothing.

    Parameters
    ----------
    model : torch.nn.Module
        A torchvision model, a timm model, or any other.
    where : str, optional
        The path of the layer, as ``model.named_modules()`` names it.
        By default it is looked up: in the table of torchvision's families, in what timm says of the model,
        or, for any other, the last linear layer is taken and a warning names it.

    Returns
    -------
    Head
        The family and the sites, each with its path, module, and number of features.

    Raises
    ------
    HeadError
        If there is no such path, no head, or no way to tell how many features enter it.
    TypeError
        If `model` is no module.

    Warns
    -----
    LayerkitWarning
        If the head was guessed.

    Notes
    -----
    A torchvision model inside a module of yours has the head that the table gives it, auxiliary ones included.

    The guess takes the linear layer that was registered last. That is the head of nearly every classifier,
    since people write models from front to back, but nothing in a module's structure proves it.

    Examples
    --------
    >>> from torchvision.models import mobilenet_v3_small
    >>> from layerkit.heads import find_head
    >>> find_head(mobilenet_v3_small()).sites[0]
    Site(path='classifier.3', in_features=1024, out_features=1000, auxiliary=False, dropout='classifier.2', \
pools_after=False)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` is {model!r}; expected a torch.nn.Module. If it is a function that builds one, "
            "call it: resnet18(), not resnet18."
        )
    prefix, inner = unwrapped(model)
    _refuse_quantized(inner)
    row = family_of(inner)
    if where is not None:
        where = where.removeprefix(prefix)
        _check_path(inner, where)
    places = (where,) if where is not None else _remembered(inner)
    if row is not None and (not places or where in row[1].main):
        return _table_head(prefix, inner, *row)
    if row is None and not places and (timm_places := _timm_places(inner)):
        return _timm_head(prefix, inner, timm_places)
    places = places or (_guess(inner),)
    if row is not None:
        return _head_at(prefix, inner, places, row[1].kind)
    return _head_inside(prefix, inner, places)


def unwrapped(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the model inside ``torch.compile`` or a data-parallel wrapper, and the path that leads to it."""
    prefix = ""
    while (name := _WRAPPERS.get(type(model).__name__)) in model._modules:
        model, prefix = model.get_submodule(name), f"{prefix}{name}."
    return prefix, model


def _remembered(model: nn.Module) -> tuple[str, ...]:
    return tuple(path for path in getattr(model, _PLACES, ()) if _submodule(model, path) is not None)


def remember(model: nn.Module, head: Head) -> None:
    """Write the places of a head on the model, so that it is found again, unless they are known anyway."""
    prefix, inner = unwrapped(model)
    places = tuple(site.path.removeprefix(prefix) for site in head.sites)
    row = family_of(inner)
    known = _timm_places(inner) if row is None else (*row[1].main, *row[1].auxiliary)
    inner.__dict__.pop(_PLACES, None)
    if not set(places) <= set(known):
        setattr(inner, _PLACES, places)


def mark_own_head(module: nn.Module, site: Site, out_features: int) -> None:
    """Write on a head of the user's making what its site was, so that it can be replaced as a whole."""
    setattr(module, _OWN_HEAD, (site.in_features, out_features, plain_of(site.module)))


def plain_of(module: nn.Module) -> PlainLayer:
    """Return the factory of the plain layer that stands, or once stood, in the place of `module`."""
    if hasattr(module, _OWN_HEAD):
        return getattr(module, _OWN_HEAD)[2]  # type: ignore[no-any-return]
    layers = [plain for plain in map(plain_layer, module.modules()) if plain is not None]
    return layers[-1]


def _table_head(prefix: str, model: nn.Module, family: str, row: Family) -> Head:
    sites = []
    for path in (*row.main, *row.auxiliary):
        auxiliary = path in row.auxiliary
        module = _submodule(model, path)
        if module is None and auxiliary:
            continue
        if module is None:
            raise HeadError(
                f"This {family} has no '{path}', where torchvision keeps the head; expected torchvision's "
                "own structure. Say where the head is with where='path.to.layer'."
            )
        site = _site(model, prefix, path, module, row.dropout)
        sites.append(replace(site, auxiliary=auxiliary, pools_after=row.pools_after))
    return Head(family, tuple(sites), row.kind)


def _timm_head(prefix: str, model: nn.Module, places: tuple[str, ...]) -> Head:
    sites = []
    for path in places:
        module = model.get_submodule(path)
        # timm calls the dropout before a head head_drop, or drop inside a head that is a module of its own.
        dropout = "drop" if "." in path else "head_drop"
        # timm's convolutions that classify come after pooling, over a single position.
        site = _site(model, prefix, path, module, dropout)
        sites.append(replace(site, pools_after=is_convolution(plain_of(module))))
    return Head(type(model).__name__, tuple(sites), "classification")


def _head_at(prefix: str, model: nn.Module, places: tuple[str, ...], kind: Kind) -> Head:
    sites = tuple(_site(model, prefix, path, model.get_submodule(path)) for path in places)
    return Head(type(model).__name__, sites, kind)


def _site(model: nn.Module, prefix: str, path: str, module: nn.Module, dropout: str = "") -> Site:
    _refuse_lazy(path, module)
    in_features, out_features = _features(path, module)
    before = _dropout_before(model, path, dropout)
    return Site(
        path=prefix + path,
        module=module,
        in_features=in_features,
        out_features=out_features,
        dropout=None if before is None else prefix + before,
    )


def _features(path: str, module: nn.Module) -> tuple[int, int]:
    if hasattr(module, _OWN_HEAD):
        in_features, out_features, _ = getattr(module, _OWN_HEAD)
        return in_features, out_features
    if (sizes := predictor_features(module)) is not None:
        return sizes
    if not _has_plain_layer(module):
        raise HeadError(
            f"'{path}' is {type(module).__name__}; expected a linear layer or a convolution, which tells how "
            "many features enter it. Build the model with a head, put a layer of the right size there, or "
            "name another place with where='path.to.layer'."
        )
    layers = [m for m in module.modules() if plain_layer(m) is not None]
    return _sizes(layers[0])[0], _sizes(layers[-1])[1]


def _sizes(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels  # type: ignore[return-value]


def _dropout_before(model: nn.Module, path: str, sibling: str) -> str | None:
    """Find the dropout directly before a layer.

    In an ``nn.Sequential`` the order proves it; elsewhere only a known name can tell.
    A dropout that is applied as a function is no module, and stays unseen.
    """
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    names = list(dict(parent.named_children()))
    if isinstance(parent, nn.Sequential):
        sibling = (["", *names])[names.index(name)]
    if isinstance(getattr(parent, sibling, None), _DROPOUTS):
        return f"{parent_path}.{sibling}".removeprefix(".")
    return None


def _timm_places(model: nn.Module) -> tuple[str, ...]:
    """Read where timm keeps the classifiers: the names that it leaves out when it loads other weights."""
    config = getattr(model, "pretrained_cfg", None)
    names = config.get("classifier") if isinstance(config, dict) else None
    names = (names,) if isinstance(names, str) else tuple(names or ())
    names = tuple(name for name in names if _submodule(model, name) is not None)
    return (*names, *_twins(model, names)) if names else ()


def _twins(model: nn.Module, names: tuple[str, ...]) -> Iterator[str]:
    """Find the heads of a distilled model beside those that timm names: levit names but one of two."""
    classifiers: Any = getattr(model, "get_classifier", tuple)()
    if not isinstance(classifiers, tuple | list):
        return
    paths = {module: path for path, module in model.named_modules()}
    heads = [paths[classifier] for classifier in classifiers if classifier in paths]
    within = next(
        (names[0].removeprefix(head) for head in heads if f"{names[0]}.".startswith(f"{head}.")), ""
    )
    for head in heads:
        if not any(f"{name}.".startswith(f"{head}.") for name in names):
            yield head + within


def _head_inside(prefix: str, model: nn.Module, places: tuple[str, ...]) -> Head:
    """Read what torchvision's table or timm says of the model inside a foreign one to which a place belongs."""
    names = places[0].split(".")
    for length in range(1, len(names)):
        path = ".".join(names[:length])
        part, place = model.get_submodule(path), ".".join(names[length:])
        row = family_of(part)
        if row is not None and place in row[1].main:
            return _table_head(f"{prefix}{path}.", part, *row)
        if row is not None:
            return _head_at(prefix, model, places, row[1].kind)
        if place in (timm_places := _timm_places(part)):
            return _timm_head(f"{prefix}{path}.", part, timm_places)
    return _head_at(prefix, model, places, "other")


def _guess(model: nn.Module) -> str:
    inside = [
        (path, row[1].main)
        for path, module in model.named_modules()
        if (row := row_of(module)) is not None and all(_submodule(module, main) for main in row[1].main)
    ]
    heads = {f"{path}.{main}" for path, mains in inside for main in mains}
    bodies = tuple(f"{path}." for path, _ in inside)
    last: list[str] = [
        path
        for path, module in model.named_modules()
        if (path in heads and _has_plain_layer(module))
        or (_is_linear(module) and not path.startswith(bodies))
    ]
    if not last or last[-1] == "":
        raise HeadError(
            f"No linear layer was found inside {type(model).__name__}; expected one as the head. "
            "Say where the head is with where='path.to.layer'."
        )
    what = "the head of the torchvision model inside it" if last[-1] in heads else "its last linear layer"
    warn(
        f"{type(model).__name__} is in no table of layerkit; {what}, '{last[-1]}', was "
        f"taken for the head. If that is right, say so with where='{last[-1]}'; if not, name another."
    )
    return last[-1]


def _is_linear(module: nn.Module) -> bool:
    # The output projection inside an attention block is a linear layer too, but never a head.
    return isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)


def _has_plain_layer(module: nn.Module) -> bool:
    return any(plain_layer(layer) is not None for layer in module.modules())


def _check_path(model: nn.Module, where: str) -> None:
    layer = _submodule(model, where) if where else None
    if isinstance(layer, nn.ModuleDict | nn.ModuleList):
        raise HeadError(
            f"`where` is {where!r}, a {type(layer).__name__}, which holds layers and is none; expected the path of one "
            f"layer, such as '{where}.{next(iter(layer._modules), '0')}'. Replace them one after the other."
        )
    if layer is not None:
        return
    paths = [path for path, _ in model.named_modules() if path]
    near = difflib.get_close_matches(where, paths, n=1, cutoff=0.5)
    linear = [path for path, module in model.named_modules() if _is_linear(module)][-3:]
    hint = (
        f"Its last linear layers: {', '.join(map(repr, linear))}."
        if linear
        else "See them with print(model)."
    )
    if near:
        hint = f"Did you mean '{near[0]}'?"
    raise HeadError(
        f"`where` is {where!r}, and {type(model).__name__} has no such layer; expected the path of one that "
        f"it has. {hint}"
    )


def _refuse_quantized(model: nn.Module) -> None:
    for module in model.modules():
        home = type(module).__module__
        if (
            home.startswith(_QUANTIZED)
            # Of these, the one that a quantizable model has while it still computes in floating point.
            and type(module).__name__ != "FloatFunctional"
        ):
            raise HeadError(
                f"{type(model).__name__} is already quantized (it holds {home}.{type(module).__name__}); "
                "expected a model in floating point, since a quantized body passes no gradient. "
                "Build it with quantize=False, train it, and quantize it afterwards."
            )


def _refuse_lazy(path: str, module: nn.Module) -> None:
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        raise HeadError(
            f"'{path}' is a {type(module).__name__} that has seen no batch yet; expected a layer that knows "
            "how many features enter it. Run one batch through the model first."
        )


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
