"""The names of classes, and what each of them weighs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from layerkit.distributed import is_writer
from layerkit.errors import TargetError, suggestion, warn

ClassWeight = Literal["balanced"] | Mapping[str, float] | Sequence[float] | Tensor


def class_names(classes: int | Sequence[str], task: str) -> list[str]:
    """Take names or a count, at least two."""
    if isinstance(classes, int) and not isinstance(classes, bool):
        names = [str(index) for index in range(classes)]
    elif isinstance(classes, Sequence) and not isinstance(classes, str):
        names = [str(name) for name in classes]
    else:
        raise TypeError(
            f"`classes` is {classes!r}; expected a list of names or their number for {task}. data.classes of "
            "pictures sorted by class goes in as it is."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"`classes` names {', '.join(twice)} twice; expected different names. Leave one out."
        )
    if len(names) < 2:
        raise ValueError(
            f"`classes` is {classes!r}; expected at least two for {task}. With one class there is nothing to "
            "tell apart; for a yes or no use Binary(), for a number Regression()."
        )
    return names


def shorten(names: Sequence[str]) -> str:
    """Name the first few."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def class_weights(argument: str, given: ClassWeight | None, names: Sequence[str]) -> Tensor | None:
    """Take a weight for each class; ``"balanced"`` gives NaN, until `Task.prepare` has seen the targets."""
    if given is None:
        return None
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(
                f"`{argument}` is {given!r}; expected 'balanced', numbers, or None."
                f"{suggestion(given, ['balanced'])} 'balanced' computes them from the training targets."
            )
        return torch.full((len(names),), torch.nan)
    return torch.tensor(positive_numbers(argument, given, names), dtype=torch.float32)


def positive_numbers(
    argument: str, given: Mapping[str, float] | Sequence[float] | Tensor, names: Sequence[str]
) -> list[float]:
    """Take a positive number for each name, in the order of the names."""
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(
                f"`{argument}` names {shorten(sorted(map(str, given)))}; expected a number for each of "
                f"{shorten(names)}. Write them as in {{{names[0]!r}: 1.0, ...}}."
            )
        given = [given[name] for name in names]
    numbers = [float(number) for number in given]
    if len(numbers) != len(names) or not all(0 < number < torch.inf for number in numbers):
        raise ValueError(
            f"`{argument}` is {shorten([f'{number:g}' for number in numbers])}; expected {len(names)} finite "
            f"numbers above zero, for {shorten(names)}. Give one each."
        )
    return numbers


def negatives_per_positive(targets: Tensor, names: Sequence[str]) -> Tensor:
    """Count negatives / positives in each column of 0/1 targets (N, C)."""
    shares = targets.cpu().mean(0, dtype=torch.float64)
    for name, share in zip(names, shares.tolist(), strict=True):
        if not 0 < share < 1:
            raise TargetError(
                f"{'All' if share else 'None'} of the training targets are {name!r}; expected both, since "
                "the balanced weight divides by their counts. Add pictures of the others, or give pos_weight "
                "as numbers."
            )
    return (1 - shares) / shares


def names_of_absent(names: Sequence[str], present: Tensor) -> list[str]:
    """Name the classes that no picture has."""
    return [repr(name) for name, there in zip(names, present.tolist(), strict=True) if not there]


def warn_of_untrained(absent: Sequence[str]) -> None:
    """Warn of classes that no training picture has."""
    if absent and is_writer():
        warn(
            f"The training targets hold no {shorten(absent)}; expected every class, since one without pictures is "
            "never learnt. Add pictures, or leave out what cannot occur."
        )


def warn_of_unmeasured(absent: Sequence[str]) -> None:
    """Warn of classes that no held-out picture has."""
    if absent and is_writer():
        warn(
            f"The held-out targets hold no {shorten(absent)}; expected every class, since nothing can be measured of "
            "one without pictures: averages are those of the others. Hold some of its pictures out too, in a table "
            "with the column part=."
        )


def describe_weights(names: Sequence[str], weights: Tensor) -> str:
    """Say the smallest and the largest weight."""
    pairs = sorted(zip(weights.tolist(), names, strict=True))
    (low, lightest), (high, heaviest) = pairs[0], pairs[-1]
    return (
        f"{low:.3g} ({lightest})" if len(pairs) == 1 else f"{low:.3g} ({lightest}) to {high:.3g} ({heaviest})"
    )
