"""The loss and the default metrics of each task, as functions of how often each sample counts."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from layerkit.intervals.bootstrapping import Resampled, bootstrap, wilson
from layerkit.intervals.estimates import Interval
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task
from layerkit.tasks.targets import map_targets

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Figures = dict[str, Interval | Resampled]


@torch.inference_mode()
def confidence_intervals(task: Task, logits: Tensor, target: Any) -> dict[str, Interval]:
    """Give 95% confidence intervals of the loss and of the task's own metrics.

    Parameters
    ----------
    task : Task
        What the model was trained for.
    logits : Tensor, shape (N, task.out_features)
        All of the model's answers.
    target : Tensor, or dict of these
        All targets, as `Task.check` gives them.

    Returns
    -------
    dict of str to (float, float)
        By the names that `Task.metrics` has, and ``loss``. What cannot be computed is left out: that is all
        for a single sample or for segmentation, whose pixels are no independent samples, and what no resample
        changes, such as the macro F1 of answers that are all right.

    Notes
    -----
    An accuracy has Wilson's interval; anything else the percentiles of the bootstrap over samples, drawn with
    a fixed seed. A resample is a row of counts, so that a thousand are computed at once.

    References
    ----------
    Wilson 1927, Probable Inference, https://doi.org/10.1080/01621459.1927.10502953; Efron and Tibshirani
    1993, An Introduction to the Bootstrap, chapter 13.
    """
    if logits.ndim != 2 or len(logits) < 2:
        return {}
    task = deepcopy(task).cpu()
    figures = _figures(task, logits.cpu().float(), map_targets(lambda part: part.cpu(), target))
    ready = {name: figure for name, figure in figures.items() if not callable(figure)}
    resampled = {name: figure for name, figure in figures.items() if callable(figure)}
    width = task.out_features if isinstance(task, Multilabel | MultiTask) else 1
    return ready | bootstrap(resampled, len(logits), width)


@torch.inference_mode()
def resampled_intervals(
    task: Task, metrics: "MetricCollection", logits: Tensor, target: Any
) -> dict[str, Interval]:
    """Give 95% confidence intervals of the loss and of any metrics, which are computed anew on resamples.

    Parameters
    ----------
    task : Task
        What the model was trained for.
    metrics : MetricCollection
        On the CPU; their state is lost.
    logits : Tensor, shape (N, task.out_features)
        All of the model's answers.
    target : Tensor, or dict of these
        All targets, as `Task.check` gives them.

    Returns
    -------
    dict of str to (float, float)
        As `confidence_intervals` gives them.
    """
    if logits.ndim != 2 or len(logits) < 2:
        return {}
    task = deepcopy(task).cpu()

    def figure(name: str, counts: Tensor) -> Tensor:
        values = []
        for row in counts:
            rows = torch.arange(len(row)).repeat_interleave(row.long())
            metrics[name].reset()
            metrics[name].update(
                *task.metric_inputs(
                    logits[rows], map_targets(partial(torch.index_select, dim=0, index=rows), target)
                )
            )
            values.append(metrics[name].compute())
        return torch.stack(values)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample may lack a class, of which a metric would warn each time
        figures = {str(name): partial(figure, str(name)) for name in metrics}
        return bootstrap(_loss(task, logits, target), len(logits)) | bootstrap(figures, len(logits), most=100)


def _figures(task: Task, logits: Tensor, target: Any) -> Figures:
    losses: Figures = {**_loss(task, logits, target)}
    if isinstance(task, MultiTask):
        return losses | _of_parts(task, logits, target)
    answers, wanted = task.metric_inputs(logits, target)
    match task:
        case Regression():
            return losses | _of_numbers(answers, wanted)
        case Binary():
            decided = task.decide(logits)
            f1 = _f1(decided.unsqueeze(1), wanted.unsqueeze(1))
            return losses | _accuracy(decided, wanted) | {"f1": f1, "auroc": _auroc(answers, wanted)}
        case Multiclass():
            decided = task.decide(logits)
            counted = _counted(task, wanted)
            macro_f1 = _macro_f1(decided, wanted.where(counted, decided), counted.float())
            return losses | _accuracy(decided[counted], wanted[counted]) | {"macro_f1": macro_f1}
        case Multilabel():
            precision = _average_precision(answers, wanted)
            return losses | {"macro_f1": _f1(task.decide(logits), wanted), "average_precision": precision}
    return losses


def _of_parts(task: MultiTask, logits: Tensor, target: Any) -> Figures:
    parts = dict(task.parts.items())
    sizes = [part.out_features for part in parts.values()]
    shares = torch.split(logits, sizes, dim=1)  # type: ignore[arg-type]
    return {
        f"{name}_{key}": figure
        for (name, part), share in zip(parts.items(), shares, strict=True)
        for key, figure in _figures(part, share, target[name]).items()  # type: ignore[arg-type]
    }


def sample_losses(task: Task, logits: Tensor, target: Any) -> Tensor:
    """Give each sample's loss (N,)."""
    return _of_each(lambda row, wanted: task.criterion(row.unsqueeze(0), _alone(wanted)), logits, target)


def _of_each(function: Callable[[Tensor, Any], Tensor], logits: Tensor, target: Any) -> Tensor:
    try:
        made: Tensor = torch.vmap(function)(logits, target)
        return made
    except RuntimeError:  # torch cannot vectorise every loss: not its own weighted and smoothed cross-entropy
        rows = range(len(logits))
        return torch.stack([function(logits[row], map_targets(itemgetter(row), target)) for row in rows])


def _alone(wanted: Any) -> Any:
    return map_targets(lambda part: part.unsqueeze(0), wanted)


def _loss(task: Task, logits: Tensor, target: Any) -> dict[str, Resampled]:
    """Resample each term of the loss by what it is divided by."""
    terms = _of_each(lambda row, wanted: task.terms(row.unsqueeze(0), _alone(wanted)), logits, target)
    if terms.shape not in ((len(logits),), (len(logits), task.num_terms)):  # of the user's own, and no mean
        return {}
    terms = terms.reshape(len(logits), -1)
    weights = torch.ones_like(terms)
    if not task.counts_evenly:
        weights = _of_each(lambda _, wanted: task.weight_of(_alone(wanted)), logits, target).reshape(
            terms.shape
        )
        terms = torch.where(weights > 0, terms, 0)  # of a target without a class, torch's mean is 0 / 0
    return {"loss": lambda counts: (counts @ (weights * terms) / (counts @ weights)).sum(-1)}


def _counted(task: Multiclass, wanted: Tensor) -> Tensor:
    """Tell which targets have a class."""
    return wanted != (-1 if task.ignore_index is None else task.ignore_index)


def _accuracy(decided: Tensor, wanted: Tensor) -> Figures:
    return {"accuracy": wilson(int((decided == wanted).sum()), len(wanted))} if len(wanted) else {}


def _of_numbers(values: Tensor, wanted: Tensor) -> Figures:
    values, wanted = (part.reshape(len(part), -1).double() for part in (values, wanted))
    errors, centred = (values - wanted).float(), (wanted - wanted.mean(0)).float()
    samples = len(wanted)

    def r2(counts: Tensor) -> Tensor:
        total = counts @ centred.square() - (counts @ centred).square() / samples
        return (1 - counts @ errors.square() / total).mean(1)

    return {
        "mae": lambda counts: counts @ errors.abs().mean(1) / samples,
        "rmse": lambda counts: (counts @ errors.square().mean(1) / samples).sqrt(),
        "r2": r2,
    }


def _f1(decided: Tensor, wanted: Tensor) -> Resampled:
    """Average F1 over the columns of 0 and 1 that hold a 1 or are answered with one."""
    both, either = (decided * wanted).float(), (decided + wanted).float()
    return lambda counts: (2 * (counts @ both) / (counts @ either)).nanmean(1)


def _macro_f1(decided: Tensor, wanted: Tensor, weights: Tensor) -> Resampled:
    """Average F1 over the classes that a resample holds or that are answered in it, as torchmetrics does."""
    present, columns = torch.unique(torch.cat([decided, wanted]), return_inverse=True)
    decided, wanted = torch.split(columns, len(wanted))
    right = (decided == wanted).float()

    def figure(counts: Tensor) -> Tensor:
        counts = counts * weights
        both = _per_class(counts * right, wanted, len(present))
        either = _per_class(counts, decided, len(present)) + _per_class(counts, wanted, len(present))
        return (2 * both / either).nanmean(1)

    return figure


def _auroc(scores: Tensor, wanted: Tensor) -> Resampled:
    """Count the pairs of a positive and a negative in the right order; a tie is half of one."""
    order, ends = _ordered(scores, descending=False)
    wanted = wanted[order].float()

    def figure(counts: Tensor) -> Tensor:
        counts = counts.index_select(1, order)
        positive, negative = (_cumulated(part, ends) for part in (counts * wanted, counts * (1 - wanted)))
        pairs = (_steps(positive) * (negative - _steps(negative) / 2)).sum(1)
        return pairs / (positive[:, -1] * negative[:, -1])

    return figure


def _average_precision(scores: Tensor, wanted: Tensor) -> Resampled:
    """Average over the labels that a resample holds."""
    orders = [_ordered(column, descending=True) for column in scores.T]

    def one(counts: Tensor, order: Tensor, ends: Tensor | None, column: Tensor) -> Tensor:
        counts = counts.index_select(1, order)
        found, shown = _cumulated(counts * column[order], ends), _cumulated(counts, ends)
        return (_steps(found) * found / shown.clamp(min=1)).sum(1) / found[:, -1]

    def figure(counts: Tensor) -> Tensor:
        labels = zip(orders, wanted.T.float(), strict=True)
        return torch.stack([one(counts, *order, column) for order, column in labels]).nanmean(0)

    return figure


def _ordered(scores: Tensor, *, descending: bool) -> tuple[Tensor, Tensor | None]:
    """Give the order of the scores and, if some are equal, where each group of equal ones ends."""
    ordered, order = scores.sort(descending=descending)
    is_end = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])
    return order, None if is_end.all() else is_end.nonzero().squeeze(1)


def _cumulated(counts: Tensor, ends: Tensor | None) -> Tensor:
    cumulated = counts.cumsum(1)
    return cumulated if ends is None else cumulated.index_select(1, ends)


def _steps(cumulated: Tensor) -> Tensor:
    return cumulated.diff(dim=1, prepend=cumulated.new_zeros(len(cumulated), 1))


def _per_class(counts: Tensor, classes: Tensor, number: int) -> Tensor:
    return counts.new_zeros(len(counts), number).index_add_(1, classes, counts)
