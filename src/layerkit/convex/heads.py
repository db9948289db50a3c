"""The best linear layer on a frozen backbone's features, under a task's loss."""

from collections.abc import Sequence

from torch import Tensor, no_grad

from layerkit.convex.choosing import Choice, Examples, choose, in_canonical_order, usual_penalties
from layerkit.convex.problems import principal_directions
from layerkit.errors import HeadError, NonFiniteError
from layerkit.features import FrozenHead
from layerkit.tasks import Binary, Multiclass, Multilabel, Regression, Task

_CONVEX = {kind.criterion for kind in (Regression, Binary, Multiclass, Multilabel)}


def is_convex(task: Task) -> bool:
    """Tell whether a task's loss is known to be convex and smooth in the logits; ``loss="mae"`` has a corner."""
    has_corner = isinstance(task, Regression) and task.loss_name == "mae"
    return type(task).criterion in _CONVEX and not has_corner


def solve(
    task: Task,
    head: FrozenHead,
    trained: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor] | None,
    penalties: Sequence[float] | None = None,
    folds: int = 5,
) -> Choice:
    """Choose the penalty along principal directions, and write the solution into the head.

    Parameters
    ----------
    task : Task
        Prepared, and in float64.
    head : FrozenHead
        One linear layer on standardized features, in float64.
    trained, held_out : pairs of features and checked targets
        Features in float64. Without `held_out` the penalty is chosen by cross-validation.
    penalties : sequence of float, optional
        Which to try; by default laid out by the features.
    folds : int
        In how many parts cross-validation divides the training pictures.

    Raises
    ------
    ValueError
        The features are the same for every picture, or there are too few for the folds.
    HeadError, NonFiniteError
        The layer answers at each position, or features are not finite.
    """
    train = _examples(head, *trained)
    valid = None if held_out is None else _examples(head, *held_out)
    if valid is None:
        _check_folds(folds, len(train))
    train = train.rows(in_canonical_order(train))
    directions = principal_directions(train.inputs)
    if not directions.shape[1]:
        raise ValueError(
            "The features are the same for every picture; expected some that vary. Look at what the loader and "
            "the backbone give."
        )
    train = train.along(directions)
    valid = None if valid is None else valid.along(directions)
    if penalties is None:
        penalties = usual_penalties(train.inputs, task.out_features)
    has_bias = head.first.bias is not None
    choice = choose(task, train, valid, penalties, folds=folds, has_bias=has_bias)
    weights = choice.coefficients[:, :-1] @ directions.T
    with no_grad():
        head.first.weight.copy_(weights.view_as(head.first.weight))
        if has_bias:
            head.first.bias.copy_(choice.coefficients[:, -1])
    return choice


def _examples(head: FrozenHead, features: Tensor, target: Tensor) -> Examples:
    inputs = head.standardize(features).flatten(1)
    if inputs.shape[1] != head.first.weight[0].numel():
        raise HeadError(
            f"The layer {head.path!r} gives an answer at each of {inputs[0].numel() // head.first.weight[0].numel()} "
            "positions; expected one for each picture, after pooling. Train it with fit() instead."
        )
    if not bool(inputs.isfinite().all()):
        raise NonFiniteError(
            "The backbone gives features that are NaN or infinite; expected finite numbers. Look at the pictures' "
            "values and the backbone's weights."
        )
    return Examples(inputs, target.double() if target.is_floating_point() else target)


def _check_folds(folds: int, pictures: int) -> None:
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= pictures:
        raise ValueError(
            f"`folds` is {folds!r} with {pictures} training pictures; expected a whole number from 2 to {pictures}. "
            "5 is usual; or pass a validation part, which needs no folds."
        )
