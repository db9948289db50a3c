"""Which penalty: the path along which they are tried, and the held-out loss that decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerkit.convex.problems import Coefficients, logits_of, refine, solve_path
from layerkit.tasks import Task

_PER_DECADE = 3
_DECADES = 8

_GAIN = 1 - 1e-4
"""A smaller penalty must make the loss smaller by this: where the path is level, rounding errors do not decide."""

_WORSE_FOR = 0.03
"""Once the penalty is this share of the best so far, all in between having been worse, smaller ones are not tried:
they would fit the training pictures ever more closely, which also takes ever longer."""


@dataclass(frozen=True)
class Examples:
    """Inputs (N, features) and their checked targets, in float64."""

    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, chosen: Tensor) -> "Examples":
        """Give some of them."""
        return Examples(self.inputs[chosen], self.target[chosen])

    def along(self, directions: Tensor) -> "Examples":
        """Give them in other coordinates."""
        return Examples(self.inputs @ directions, self.target)

    def loss(self, task: Task, coefficients: Coefficients) -> float:
        """Give the mean loss, without the penalty."""
        return float(task.criterion(logits_of(self.inputs, coefficients), self.target))


@dataclass(frozen=True)
class Choice:
    """The best penalty's row, its coefficients, and the rows of all."""

    row: dict[str, float]
    coefficients: Coefficients
    path: list[dict[str, float]]


def usual_penalties(inputs: Tensor, outputs: int) -> list[float]:
    """Lay out a path from where the penalty rules every direction to where it rules next to none.

    It starts at the largest mean square in any direction, shared out among the outputs as the loss is.
    """
    largest = inputs.square().mean(0).max().item() / outputs
    return [largest * 10 ** (-step / _PER_DECADE) for step in range(_DECADES * _PER_DECADE + 1)]


def in_canonical_order(examples: Examples) -> Tensor:
    """Give an order that depends on the examples and not on the order they came in.

    A fixed projection of their inputs tells them apart, and a fixed shuffle hides it again: folds dealt out along
    a projection would be more alike than new pictures are. Last they are sorted by their first target.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(examples.inputs.shape[1], generator=generator, dtype=torch.float64)
    order = (examples.inputs @ direction.to(examples.inputs)).argsort()
    order = order[torch.randperm(len(order), generator=generator).to(order.device)]
    first = examples.target[order].reshape(len(order), -1)[:, 0]
    return order[first.argsort(stable=True)]


def choose(
    task: Task,
    train: Examples,
    valid: Examples | None,
    penalties: Sequence[float],
    *,
    folds: int,
    has_bias: bool,
) -> Choice:
    """Solve along the path, and take the penalty with the smallest held-out loss."""

    def solutions(examples: Examples) -> Iterator[Coefficients]:
        return solve_path(task, examples.inputs, examples.target, penalties, has_bias=has_bias)

    divided = [] if valid is not None else _divide(train, folds)
    crossed = [(left_out, solutions(kept)) for kept, left_out in divided]
    path: list[dict[str, float]] = []
    best: Choice | None = None
    for penalty, coefficients in zip(penalties, solutions(train), strict=True):
        if valid is not None:
            valid_loss = valid.loss(task, coefficients)
        else:
            losses = [left_out.loss(task, next(own)) * len(left_out) for left_out, own in crossed]
            valid_loss = sum(losses) / len(train)
        train_loss = train.loss(task, coefficients)
        path.append({"penalty": penalty, "train_loss": train_loss, "valid_loss": valid_loss})
        if best is None or valid_loss < _GAIN * best.row["valid_loss"]:
            best = Choice(path[-1], coefficients, path)
        elif penalty <= _WORSE_FOR * best.row["penalty"]:
            break
    assert best is not None
    refined = refine(
        task, train.inputs, train.target, best.row["penalty"], best.coefficients, has_bias=has_bias
    )
    best.row["train_loss"] = train.loss(task, refined)
    if valid is not None:
        best.row["valid_loss"] = valid.loss(task, refined)
    return Choice(best.row, refined, path)


def _divide(train: Examples, folds: int) -> list[tuple[Examples, Examples]]:
    """Give for each fold what is kept and what is left out.

    In the canonical order each gets its share of every class, or of small and large values.
    """
    fold_of = torch.arange(len(train), device=train.inputs.device) % folds
    return [(train.rows(fold_of != fold), train.rows(fold_of == fold)) for fold in range(folds)]
