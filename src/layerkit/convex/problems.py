"""The convex problem of a linear head: a task's mean loss plus half the penalty times the squared weights.

Everything is in float64. `Coefficients` are (outputs, features + 1), and their last column is the bias.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from layerkit.tasks import Regression, Task

Coefficients = Tensor

_BIAS_PENALTY = 1e-9
"""Keeps the bias of a class without pictures from running to minus infinity; elsewhere too small to be seen."""

_SMALLEST_SHARE = 1e-10
"""Directions with less of the largest one's variance are rounding errors."""


def principal_directions(inputs: Tensor) -> Tensor:
    """Find the orthogonal directions (features, rank) in which inputs (N, features) vary at all.

    The best weights lie in their span, and the penalty is the same in their coordinates. There the problem has
    no more unknowns than there are pictures, and its curvature is nearly diagonal.
    """
    is_wide = inputs.shape[1] > inputs.shape[0]
    squares, vectors = torch.linalg.eigh(inputs @ inputs.T if is_wide else inputs.T @ inputs)
    kept = squares > _SMALLEST_SHARE * squares[-1]
    directions: Tensor = vectors[:, kept]
    if is_wide:
        directions = inputs.T @ directions / squares[kept].sqrt()
    return directions


def logits_of(inputs: Tensor, coefficients: Coefficients) -> Tensor:
    """Give logits (N, outputs)."""
    # A product with a contiguous matrix is twice as fast.
    return functional.linear(inputs, coefficients[:, :-1].contiguous(), coefficients[:, -1])


def solve_path(
    task: Task, inputs: Tensor, target: Tensor, penalties: Sequence[float], *, has_bias: bool
) -> Iterator[Coefficients]:
    """Give the optimum at each penalty, in their order; from large to small is the fastest."""
    if isinstance(task, Regression) and _is_least_squares(task):
        return _ridge_path(inputs, (target - task.mean) / task.std, penalties, has_bias=has_bias)
    return _smooth_path(task, inputs, target, penalties, has_bias=has_bias)


def refine(
    task: Task, inputs: Tensor, target: Tensor, penalty: float, start: Coefficients, *, has_bias: bool
) -> Coefficients:
    """Take one solution of a path as far as float64 goes."""
    if _is_least_squares(task):
        return start
    return _minimize(task, inputs, target, penalty, start, has_bias=has_bias, tolerance=1e-7)


def _is_least_squares(task: Task) -> bool:
    return isinstance(task, Regression) and task.loss_name == "mse"


def _ridge_path(
    inputs: Tensor, values: Tensor, penalties: Sequence[float], *, has_bias: bool
) -> Iterator[Coefficients]:
    """Solve mean squares in closed form: one eigendecomposition serves all penalties."""
    center = inputs.mean(0) * has_bias
    offset = values.mean(0) * has_bias
    centered = inputs - center
    curvature = 2 / values.numel()
    eigenvalues, vectors = torch.linalg.eigh(curvature * centered.T @ centered)
    moments = curvature * (values - offset).T @ centered @ vectors  # (outputs, rank)
    for penalty in penalties:
        weights = moments / (eigenvalues.clamp(min=0) + penalty) @ vectors.T
        yield torch.cat([weights, (offset - weights @ center).unsqueeze(1)], dim=1)


def _smooth_path(
    task: Task, inputs: Tensor, target: Tensor, penalties: Sequence[float], *, has_bias: bool
) -> Iterator[Coefficients]:
    """Solve by L-BFGS, each penalty from the optimum at the one before."""
    bias = task.constant_logits(target.cpu()).to(inputs).unsqueeze(1) * has_bias
    coefficients = torch.cat([inputs.new_zeros(len(bias), inputs.shape[1]), bias], dim=1)
    for penalty in penalties:
        coefficients = _minimize(
            task, inputs, target, penalty, coefficients, has_bias=has_bias, tolerance=1e-4
        )
        yield coefficients


def _minimize(
    task: Task,
    inputs: Tensor,
    target: Tensor,
    penalty: float,
    start: Coefficients,
    *,
    has_bias: bool,
    tolerance: float,
) -> Coefficients:
    """Bring the gradient below the tolerance.

    L-BFGS begins as if all curvatures were one. Along principal directions they are nearly known (a sigmoid's is
    at most a quarter of the inputs' mean square), and in units of their roots they nearly are one.
    """
    curvature = inputs.square().mean(0) / (4 * task.out_features) + penalty
    units = torch.cat([curvature.rsqrt(), inputs.new_full((1,), 2.0 * has_bias)])
    penalties = inputs.new_full((len(units),), penalty)
    penalties[-1] = _BIAS_PENALTY
    unknowns = torch.where(units > 0, start / units, 0.0).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [unknowns], max_iter=2000, tolerance_grad=tolerance, tolerance_change=1e-14,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        coefficients = unknowns * units
        loss = task.criterion(logits_of(inputs, coefficients), target)
        objective = loss + (penalties * coefficients.square()).sum() / 2
        objective.backward()  # type: ignore[no-untyped-call]
        return objective

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (unknowns * units).detach()
