"""Solve the head of a model on its frozen backbone's features."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.convex import is_convex, solve
from layerkit.device import Device, choose_hardware, move_model
from layerkit.errors import HeadError, shown, warn
from layerkit.features import FrozenHead, is_one_linear_layer
from layerkit.heads import find_head
from layerkit.loading import PictureLoader
from layerkit.tasks import MultiTask, Regression, Task
from layerkit.training.loop import nothing
from layerkit.training.mistakes import check_backbone
from layerkit.training.phases import features_of, where_to_solve
from layerkit.training.progress import Progress
from layerkit.training.weights import copy_of_weights, put_weights

_LEVEL = 0.999
"""Where the last step changes the loss by less than a thousandth, one further would change next to nothing."""


@dataclass(frozen=True, repr=False)
class SolvedHead:
    """What `solve_head` chose. The model itself holds the solution.

    Attributes
    ----------
    penalty : float
        Half of it times the sum of the squared weights, in standardized coordinates, was added to the mean loss.
    train_loss : float
        The mean loss on the training pictures, without the penalty.
    valid_loss : float
        The held-out loss that decided.
    decided_by : str
        ``"validation"`` or ``"5-fold cross-validation"``.
    path : list of dict
        A row for each penalty tried: ``penalty``, ``train_loss``, ``valid_loss``.
    """

    penalty: float
    train_loss: float
    valid_loss: float
    decided_by: str
    path: list[dict[str, float]] = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"SolvedHead(penalty {self.penalty:.3g}, chosen from {len(self.path)} by {self.decided_by}: "
            f"loss {self.valid_loss:.4g}, {self.train_loss:.4g} on the training pictures)"
        )


def solve_head(
    model: nn.Module,
    task: Task,
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    penalties: Sequence[float] | None = None,
    folds: int = 5,
    progress: bool = True,
    device: Device = "auto",
) -> SolvedHead:
    """Write the best linear head, found exactly, into a model whose backbone stays as it is.

    Parameters
    ----------
    model : torch.nn.Module
        Ends in one linear layer, or a 1x1 convolution over pooled features, as `replace_head` gives it. It is
        moved to the device; only that layer's weights are changed. Its mode is put back.
    task : Task
        `Binary`, `Multiclass`, `Multilabel`, or `Regression` with ``loss="mse"`` or ``"huber"``. It is prepared
        where it needs the training targets.
    train, valid : iterable of (inputs, targets)
        Loaders. Each is read once: those of layerkit with the eval transform, others as they are. Without
        `valid` the penalty is chosen by cross-validation on the training features.
    penalties : sequence of float, optional
        Which penalties to try, above zero. By default 29 over seven decades, laid out by the features.
    folds : int
        In how many parts cross-validation divides the training pictures.
    progress : bool
        Whether to show a bar and what was found, on stderr.
    device : str or torch.device
        Where the backbone runs: ``"auto"`` takes the accelerator that torch finds, else the CPU.

    Returns
    -------
    SolvedHead
        The penalty that was chosen, its losses, and the whole path.

    Raises
    ------
    HeadError
        The head is not one linear layer, its output is not the model's, or its size is not the task's.
    TypeError, ValueError
        The loss has no such optimum, or an argument is not as described.
    NonFiniteError
        The backbone gives features that are NaN or infinite.

    Warns
    -----
    LayerkitWarning
        The chosen penalty lies at the end of the path, so that one beyond it may be better.

    Notes
    -----
    The head minimises the task's loss, averaged over the training pictures, plus half the penalty times the sum
    of the squared weights. The weights are those of standardized features (without a bias: scaled but not
    centred), so that one penalty suits them all; they are written into the layer in the features' own
    coordinates. The bias is not penalised. There is exactly one optimum, and so no learning rate, no number of
    epochs and no seed: the answer does not depend on the order of the pictures. Squares are solved in closed
    form, by one eigendecomposition for all penalties, the other losses by L-BFGS in float64. A Dropout before
    the head plays no part.

    Cross-validation gives every fold its share of each class, but does not know which pictures belong together:
    where there are several of one patient or burst, pass `valid`.

    References
    ----------
    Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    https://arxiv.org/abs/2202.10054, for fine-tuning from a head that is solved first.

    Examples
    --------
    >>> import torch
    >>> from layerkit import Regression, replace_head, solve_head
    >>> inputs = torch.arange(12.0).reshape(12, 1)
    >>> task = Regression()
    >>> model = replace_head(torch.nn.Sequential(torch.nn.Linear(1, 1)), task, where="0")
    >>> solved = solve_head(model, task, [(inputs, 3 * inputs + 5)], penalties=[1e-6], progress=False)
    >>> task.activate(model(torch.tensor([[20.0]]))).round()
    tensor([[65.]], grad_fn=<RoundBackward0>)
    """
    _check_task(task)
    _check_head(model, task)
    if penalties is not None:
        penalties = _check_penalties(penalties)
    hardware = choose_hardware(model, device, "fp32")
    distributed.join_group(hardware.device)
    lines = Progress(shown=progress)
    own = copy.deepcopy(task).cpu()
    place = where_to_solve(hardware.device)
    if distributed.is_writer():
        check_backbone(model)
    changed_format = move_model(model, hardware)

    def read(loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
        features, target = features_of(model, own, _as_evaluated(loader, lines), hardware, lines, nothing)
        return features.to(place).double(), target.to(place)

    try:
        trained = read(train)
        held_out = None if valid is None else read(valid)
    finally:
        lines.close()
        if changed_format:
            model.to(memory_format=torch.contiguous_format)
    found = own.prepare(trained[1].cpu()) if own.needs_targets else None
    prepared = copy_of_weights(own)
    own.to(place).double()
    head = FrozenHead(model, trained[0]).to(place).double()
    choice = solve(own, head, trained, held_out, penalties, folds)
    solved = SolvedHead(
        **choice.row,
        decided_by=f"{folds}-fold cross-validation" if valid is None else "validation",
        path=choice.path,
    )
    put_weights(task, prepared)
    put_weights(model, head.state_for_model())
    for line in (found, str(solved)):
        if line is not None:
            lines.say(line)
    _warn_at_an_end(solved.path, solved.penalty)
    return solved


def _as_evaluated(loader: Iterable[Any], progress: Progress) -> Iterable[Any]:
    if isinstance(loader, PictureLoader):
        return loader.unshuffled()
    progress.say("this loader is read once, as it is, with its random changes if it has some")
    return loader


def _check_task(task: Any) -> None:
    """Refuse a loss that is not convex and smooth in the logits, or not known to be."""
    if not isinstance(task, Task) or isinstance(task, type):
        raise TypeError(
            f"`task` is {shown(task)}; expected a task such as Multiclass(data.classes), whose loss is known to be "
            "convex. Train a loss of your own with fit()."
        )
    if isinstance(task, MultiTask):
        raise TypeError(
            "`task` is a MultiTask, whose parts would each want a penalty of their own; expected one task. Solve a "
            "head for each part, or train all of them with fit(..., frozen_epochs=5)."
        )
    if isinstance(task, Regression) and task.loss_name == "mae":
        raise ValueError(
            "`task` has the loss 'mae', which has a corner at zero, so that its optimum cannot be found by its "
            "gradient; expected 'mse' or 'huber'. Regression(loss='huber') is as calm about outliers; or train with "
            "fit(..., frozen_epochs=5)."
        )
    if not is_convex(task):
        raise TypeError(
            f"`task` is a {type(task).__name__} with a criterion() of its own; expected Binary, Multiclass, "
            "Multilabel or Regression, whose losses are known to be convex. Train it with fit()."
        )


def _check_head(model: nn.Module, task: Task) -> None:
    """Refuse what is not one linear layer of the task's size."""
    head = find_head(model)
    site = head.sites[0]
    if head.kind in ("segmentation", "detection"):
        raise HeadError(
            f"{head.family} is for {head.kind}, and its head answers at each position; expected a model that "
            "answers for each picture. Train it in a loop of its own."
        )
    if not is_one_linear_layer(site.module):
        raise HeadError(
            f"The head {site.path!r} is a {type(site.module).__name__} of several layers; expected one linear "
            "layer, since only then is there one optimum. replace_head(model, task) gives one; train yours with "
            "fit(..., frozen_epochs=5)."
        )
    if site.out_features != task.out_features:
        raise HeadError(
            f"The head {site.path!r} has {site.out_features} outputs; expected {task.out_features} for {task}. "
            "Give it the right one: replace_head(model, task)."
        )


def _check_penalties(penalties: Sequence[float]) -> list[float]:
    """Take them from large to small, which is also the fastest way along them."""
    numbers = sorted({float(penalty) for penalty in penalties}, reverse=True)
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(
            f"`penalties` is {penalties!r}; expected finite numbers above zero. Leave them out for a path that the "
            "features lay out, or pass a few such as [10, 1, 0.1]."
        )
    return numbers


def _warn_at_an_end(path: list[dict[str, float]], penalty: float) -> None:
    """Say where a penalty beyond the path may be better, unless the loss has levelled out."""
    for end, beside, size, hint in (
        (
            path[0],
            path[1:2],
            "largest",
            "If larger ones are best, the features tell little about the target.",
        ),
        (path[-1], path[-2:-1], "smallest", "If smaller ones are best, larger features may do better still."),
    ):
        if beside and penalty == end["penalty"] and end["valid_loss"] < _LEVEL * beside[0]["valid_loss"]:
            warn(
                f"The penalty that was chosen, {penalty:.3g}, is the {size} of {len(path)}, so that one beyond it "
                f"may be better. Try such with penalties=[...]. {hint}"
            )
