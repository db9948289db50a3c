"""What the page says about one question that the model answers, by the kind of the task."""

from typing import Any

import torch
from torch import Tensor

from layerkit.errors import rounded
from layerkit.intervals.bootstrapping import wilson
from layerkit.plots import plot_calibration, plot_confusion, plot_precision_recall, plot_residuals, plot_roc
from layerkit.plots.classes import calibration_error, count_confusion
from layerkit.reporting.figures import figure, figures
from layerkit.reporting.html import Html, details, element, table
from layerkit.reporting.samples import Samples, gallery, least_certain, worst
from layerkit.tasks import Binary, Multiclass, Multilabel, Regression, Task

Sections = list[tuple[str, list[Html]]]

_MOST_ROWS = 30
"""A longer table is folded."""
_WIDE = 12
"""A confusion matrix of more classes takes the whole width."""
_MOST_TARGETS = 12


def sections_of(task: Task, logits: Tensor, target: Any, samples: Samples | None, name: str = "") -> Sections:
    """Give the sections for one task, with the part's name before their headings."""
    made: Sections = []
    match task:
        case Binary() | Multiclass():
            made += _of_classes(task, logits, target)
        case Multilabel():
            made += _of_labels(task, logits, target)
        case Regression():
            made += _of_numbers(task, logits, target)
    made += _pictures(task, logits, target, samples)
    return [(f"{name}: {heading}" if name else heading, content) for heading, content in made]


def _of_classes(task: Binary | Multiclass, logits: Tensor, target: Tensor) -> Sections:
    read, wanted = task.metric_inputs(logits, target)
    if isinstance(task, Multiclass) and task.ignore_index is not None:
        counted = wanted != task.ignore_index
        logits, read, wanted = logits[counted], read[counted], wanted[counted]
    decided = task.decide(logits)
    counts = count_confusion(wanted, decided, len(task.classes))
    matrix = figure(
        lambda: plot_confusion(wanted, decided, task.classes),
        f"Confusion matrix of {len(task.classes)} classes; the tables below hold its figures.",
        "Rows are true classes, columns answers; the colour is the share of the row.",
        wide=len(task.classes) > _WIDE,
    )
    return [
        ("Which classes are taken for which", [figures(matrix, _confusions(task.classes, counts))]),
        ("Class by class", [_per_class(task.classes, counts), _curves(task, read, wanted)]),
        ("How far the probabilities can be trusted", [_calibration(read, wanted)]),
    ]


def _of_labels(task: Multilabel, logits: Tensor, target: Tensor) -> Sections:
    read, wanted = task.metric_inputs(logits, target)
    return [
        ("Label by label", [_per_label(task, logits, read, wanted), _curves(task, read, wanted)]),
        ("How far the probabilities can be trusted", [_calibration(read, wanted)]),
    ]


def _of_numbers(task: Regression, logits: Tensor, target: Tensor) -> Sections:
    values = task.activate(logits)
    names = task.names or (
        ["value"] if task.out_features == 1 else [f"value {index}" for index in range(task.out_features)]
    )
    errors = values - target
    rows = [
        (
            name,
            rounded(float(off.abs().mean())),
            rounded(float(off.square().mean().sqrt())),
            f"{off.mean():+.4g}",
            f"{off.abs().quantile(0.95):.4g}",
            f"{rounded(float(true.min()))} to {rounded(float(true.max()))}",
        )
        for name, off, true in zip(names, errors.T, target.T, strict=True)
    ]
    columns = ("target", "mean absolute error", "root mean square", "mean error", "95% are below", "truth")
    drawn = [
        figure(
            lambda index=index, name=name: plot_residuals(target[:, index], values[:, index], name=name),  # type: ignore[misc]
            f"Errors of {name} over its answers; the table above holds their size.",
        )
        for index, name in enumerate(names[:_MOST_TARGETS])
    ]
    return [
        ("How far off the numbers are", [table("Errors, answer minus truth", columns, rows), figures(*drawn)])
    ]


def _confusions(classes: list[str], counts: Tensor) -> Html:
    """List the most frequent mistakes."""
    mistakes = counts - counts.diag().diag()
    order = mistakes.flatten().argsort(descending=True, stable=True)[:10].tolist()
    pairs = [divmod(place, len(classes)) for place in order]
    rows = [
        (
            classes[true],
            classes[answered],
            int(mistakes[true, answered]),
            f"{mistakes[true, answered] / counts[true].sum():.0%}",
        )
        for true, answered in pairs
        if mistakes[true, answered]
    ]
    if not rows:
        return element("p", "No picture was answered wrongly.")
    return table(
        "The most frequent mistakes", ("truth", "taken for", "pictures", "of the class"), rows, words=2
    )


def _per_class(classes: list[str], counts: Tensor) -> Html:
    rows = []
    for name, right, true, answered in zip(
        classes, counts.diag().tolist(), counts.sum(1).tolist(), counts.sum(0).tolist(), strict=True
    ):
        low, high = wilson(right, true) if true else (0.0, 1.0)
        found = f"{right / true:.2f} ({low:.2f} to {high:.2f})" if true else "-"
        rows.append((name, true, found, _ratio(right, answered), _ratio(2 * right, true + answered)))
    columns = ("class", "pictures", "found (recall)", "right among answers (precision)", "F1")
    return _folded(
        table("Each class, with the 95% confidence interval of its recall", columns, rows), len(rows)
    )


def _per_label(task: Multilabel, logits: Tensor, read: Tensor, wanted: Tensor) -> Html:
    from torchmetrics.functional.classification import binary_average_precision

    decided = task.decide(logits)
    rows = []
    for name, scores, answer, true in zip(task.classes, read.T, decided.T, wanted.T, strict=True):
        both, number, answered = int((answer * true).sum()), int(true.sum()), int(answer.sum())
        low, high = wilson(both, number) if number else (0.0, 1.0)
        found = f"{both / number:.2f} ({low:.2f} to {high:.2f})" if number else "-"
        average = f"{binary_average_precision(scores, true):.2f}" if number else "-"
        rows.append(
            (name, number, found, _ratio(both, answered), _ratio(2 * both, number + answered), average)
        )
    columns = (
        "label",
        "pictures",
        "found (recall)",
        "right among answers (precision)",
        "F1",
        "average precision",
    )
    return _folded(
        table("Each label, with the 95% confidence interval of its recall", columns, rows), len(rows)
    )


def _folded(made: Html, rows: int) -> Html:
    return made if rows <= _MOST_ROWS else details(f"All {rows} in a table", made)


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f}" if whole else "-"


def _curves(task: Binary | Multiclass | Multilabel, read: Tensor, wanted: Tensor) -> Html:
    if torch.unique(wanted).numel() < 2:
        return element("p", "All pictures have the same truth, so there is no curve to draw.")
    roc = figure(
        lambda: plot_roc(wanted, read.reshape(len(read), -1), task.classes),
        "Receiver operating characteristic: found positives over false alarms; the legend holds the areas.",
        "Each class against the others: how many are found at the price of how many false alarms.",
    )
    recall = figure(
        lambda: plot_precision_recall(wanted, read.reshape(len(read), -1), task.classes),
        "Precision over recall; the legend holds the average precisions.",
        "How many answers are right, as more of a class are found.",
    )
    return figures(roc, recall)


def _calibration(read: Tensor, wanted: Tensor) -> Html:
    error = calibration_error(wanted, read)
    drawn = figure(
        lambda: plot_calibration(wanted, read),
        f"Reliability diagram; the expected calibration error is {error:.3f}.",
        "On the dotted line, what is said to be probable comes true as often as that. The bars count answers.",
    )
    said = (
        f"The expected calibration error is {error:.3f}: that far apart are, on average, how probable an answer "
        "is said to be and how often it is right. It counts upwards from 0, and few pictures alone make it larger."
    )
    return figures(drawn, element("p", said))


def _pictures(task: Task, logits: Tensor, target: Any, samples: Samples | None) -> Sections:
    if samples is None:
        return []
    mistakes, unsure = worst(task, logits, target), least_certain(task, logits)
    made: Sections = []
    if mistakes:
        regression = isinstance(task, Regression)
        heading = "Pictures that are farthest off" if regression else "Mistakes that the model is surest of"
        said = "Look at them first: a wrong label is among them more often than anywhere else."
        made.append((heading, [element("p", said), gallery(task, logits, target, samples, mistakes)]))
    if unsure:
        said = "Here a little would change the answer. More pictures like these teach the most."
        made.append(
            ("Least certain answers", [element("p", said), gallery(task, logits, target, samples, unsure)])
        )
    return made
