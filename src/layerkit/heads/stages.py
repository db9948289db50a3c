"""Divide a backbone into stages, for gradual unfreezing and for smaller steps deeper down."""

from dataclasses import dataclass

from torch import nn

from layerkit.heads.finding import Head, find_head

_FEWEST_STAGES = 5  # as a ResNet has: its stem and four layers

_Part = tuple[str, nn.Module]


@dataclass(frozen=True)
class Stage:
    """A part of a backbone that is trained or frozen as one.

    Attributes
    ----------
    name : str
        The path of its first module.
    modules : tuple of str
        The paths of all its modules.
    """

    name: str
    modules: tuple[str, ...]


def backbone_stages(model: nn.Module, *, where: str | None = None) -> tuple[Stage, ...]:
    """Divide a backbone into stages, from the input to the head.

    Parameters
    ----------
    model : torch.nn.Module
        A model whose head `layerkit.find_head` finds.
    where : str, optional
        The path of the head, for models that layerkit does not know.

    Returns
    -------
    tuple of Stage
        The stages; the head is in none.

    Raises
    ------
    layerkit.HeadError
        If no head is found.

    Notes
    -----
    Modules are taken in the order in which they were registered, which is the order of the forward pass in
    every torchvision family.
    The largest container is opened until there are five stages or nothing is left to open: ``layer1`` to
    ``layer4`` of a ResNet, the blocks of a vision transformer.
    Plain layers in a row are one stage up to the next pooling (VGG), and a norm belongs to what it follows.
    What stands around a head, in a classifier or an auxiliary branch, is one stage, the last.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from layerkit.heads import backbone_stages
    >>> [stage.name for stage in backbone_stages(resnet18())]
    ['conv1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    return stages_before(find_head(model, where=where), model)


def stages_before(head: Head, model: nn.Module) -> tuple[Stage, ...]:
    """Divide a backbone into stages, as `backbone_stages` does, where the head is known."""
    heads = {site.path for site in head.sites}
    trunk, around = [], []
    for child in _children(_fork(("", model), heads)):
        if _holds(child, heads):
            around += _without(child, heads)
        else:
            trunk.append(child)

    while len(stages := _runs(trunk)) < _FEWEST_STAGES:
        containers = [part for part in trunk if _size(part) and not _is_leaf(part)]
        if not containers:
            break
        largest = max(containers, key=_size)
        at = trunk.index(largest)
        trunk[at : at + 1] = _children(largest)
    if around := [part for part in around if _size(part)]:
        _add(stages, around, new=not all(map(_is_norm, around)))
    return tuple(Stage(paths[0], tuple(paths)) for paths in stages)


def _fork(part: _Part, heads: set[str]) -> _Part:
    """Go down to the first module that has several parts: past wrappers."""
    inner = [child for child in _children(part) if _size(child)]
    if len(inner) == 1 and inner[0][0] not in heads:
        return _fork(inner[0], heads)
    return part


def _holds(part: _Part, heads: set[str]) -> bool:
    return any(f"{head}.".startswith(f"{part[0]}.") for head in heads)


def _without(part: _Part, heads: set[str]) -> list[_Part]:
    """Return the largest pieces of a part that hold no head."""
    if part[0] in heads:
        return []
    if not _holds(part, heads):
        return [part]
    return [piece for child in _children(part) for piece in _without(child, heads)]


def _runs(parts: list[_Part]) -> list[list[str]]:
    """Join parts to stages: plain layers up to the next pooling, and norms to what they follow."""
    stages: list[list[str]] = []
    run = None  # the container whose plain layers are being joined
    for part in parts:
        if "Pool" in type(part[1]).__name__:
            run = None
        if _size(part):
            same_run = _is_leaf(part) and _parent(part) == run
            _add(stages, [part], new=not same_run and not _is_norm(part))
            run = _parent(part) if _is_leaf(part) else None
    return stages


def _add(stages: list[list[str]], parts: list[_Part], *, new: bool) -> None:
    if new or not stages:
        stages.append([])
    stages[-1] += [path for path, _ in parts]


def _children(part: _Part) -> list[_Part]:
    return [(f"{part[0]}.{name}".removeprefix("."), child) for name, child in part[1].named_children()]


def _parent(part: _Part) -> str:
    return part[0].rpartition(".")[0]


def _is_leaf(part: _Part) -> bool:
    return not any(part[1].children())


def _is_norm(part: _Part) -> bool:
    return _is_leaf(part) and all(parameter.dim() <= 1 for parameter in part[1].parameters())


def _size(part: _Part) -> int:
    return sum(parameter.numel() for parameter in part[1].parameters())
