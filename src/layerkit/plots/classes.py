"""How well classes are told apart, and how far their probabilities can be trusted."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from layerkit.plots.axes import BLUE, COLORS, GRAY, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_MOST_WITH_NUMBERS = 20
"""Of more classes the cells are too small for numbers."""
_MOST_WITH_NAMES = 60
"""Of more classes not each has its name beside it."""
_MOST_CURVES = len(COLORS)


def plot_confusion(
    targets: Tensor | Sequence[Any],
    answers: Tensor | Sequence[Any],
    classes: Sequence[str],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how often each class was taken for each.

    Parameters
    ----------
    targets, answers : Tensor or sequence of int, shape (N,), or sequence of str or Prediction
        True and answered classes: indices, such as ``task.decide(logits)``, names, or what a `Predictor` answers.
    classes : list of str
        The names behind them.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own, which grows with the number of classes.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    A row is a true class; its colours are shares of that row, so that rare classes are seen as well as
    frequent ones. Up to 20 classes have their counts written in the cells, where there are any; of more, the
    colours are those of the shares' square roots, so that single mistakes are seen too.

    Examples
    --------
    >>> axes = plot_confusion([0, 0, 1], [0, 1, 1], ["cat", "dog"])
    >>> [text.get_text() for text in axes.texts]
    ['1', '1', '1']
    """
    number = len(classes)
    counts = count_confusion(_as_indices(targets, classes), _as_indices(answers, classes), number)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = min(max(3.6, 0.5 * number + 1.6), 12)
    axes = ax if ax is not None else new_axes((side, side))
    shown = shares if number <= _MOST_WITH_NUMBERS else shares.sqrt()
    axes.pcolormesh(shown.numpy(), cmap=_transparent_to_blue(), vmin=0, vmax=1, rasterized=number > 40)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    if number <= _MOST_WITH_NUMBERS:
        for row, column in counts.nonzero().tolist():
            written = str(int(counts[row, column]))
            text = axes.text(column + 0.5, row + 0.5, written, ha="center", va="center", fontsize=9)
            if shares[row, column] > 0.5:
                text.set_color("white")
    step = -(-number // _MOST_WITH_NAMES)
    places = [index + 0.5 for index in range(0, number, step)]
    size = 9 if number <= _MOST_WITH_NUMBERS else 7
    names = [_shortened(name) for name in classes[::step]]
    rotation = 90 if number > 6 or max(map(len, names), default=0) > 8 else 0
    axes.set_xticks(places, names, rotation=rotation, fontsize=size, parse_math=False)
    axes.set_yticks(places, names, fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    return axes


def _as_indices(answers: Any, classes: Sequence[str]) -> Any:
    """Look up names, and the labels of predictions; leave indices as they are."""
    if not isinstance(answers, Sequence):
        return answers
    labels: list[Any] = [getattr(answer, "label", answer) for answer in answers]
    if not any(label is None or isinstance(label, str | tuple) for label in labels):
        return labels
    odd = [label for label in labels if label not in classes]
    if odd:
        raise ValueError(
            f"`targets` or `answers` holds {odd[0]!r}, which is none of the classes; expected indices, names from "
            "`classes`, or predictions with one label each. Of a task of several parts, pass those of one part."
        )
    places = {label: index for index, label in enumerate(classes)}
    return [places[label] for label in labels]


def count_confusion(targets: Any, answers: Any, number: int) -> Tensor:
    """Count how often each class (row) was taken for each (column), int64 (C, C)."""
    wanted, answered = (torch.as_tensor(part).cpu().flatten() for part in (targets, answers))
    if any(part.is_floating_point() and len(part) for part in (wanted, answered)):
        raise ValueError(
            "`targets` or `answers` holds floating-point numbers; expected class indices. Of probabilities, pass "
            "probabilities.argmax(1)."
        )
    wanted, answered = wanted.long(), answered.long()
    if wanted.shape != answered.shape:
        raise ValueError(
            f"`targets` has {len(wanted)} indices and `answers` {len(answered)}; expected one answer for each "
            "target. Of probabilities, pass task.decide(logits)."
        )
    smallest, largest = torch.cat([wanted, answered, wanted.new_zeros(1)]).aminmax()
    if smallest < 0 or largest >= number:
        odd = int(smallest if smallest < 0 else largest)
        raise ValueError(
            f"There is a class {odd}, and `classes` has {number} names; expected a name for each. Pass "
            "the classes of the task: task.classes."
        )
    return torch.bincount(wanted * number + answered, minlength=number**2).view(number, number)


def plot_roc(
    targets: Tensor, probabilities: Tensor, classes: Sequence[str], *, ax: "Axes | None" = None
) -> "Axes":
    """Draw the share of positives found over the share of false alarms, for every threshold.

    Parameters
    ----------
    targets : Tensor, shape (N,) of class indices or (N, C) of 0 and 1
        The truth.
    probabilities : Tensor, shape (N, C), or sequence of Prediction
        A column a class, or one column for that of ``classes[-1]``; or what a `Predictor` answers.
    classes : list of str
        The names of the columns.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    Each class stands against all others. Of more than six, those six are drawn that have the smallest area
    under their curves, and the legend says so.
    """
    from torchmetrics.functional.classification import binary_auroc, binary_roc

    axes = ax if ax is not None else new_axes((5, 5.4))
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    for color, (name, scores, wanted, area) in _curves(targets, probabilities, classes, binary_auroc):
        alarms, found, _ = binary_roc(scores, wanted)
        axes.plot(alarms.numpy(), found.numpy(), color=color, label=f"{_shortened(name)} {area:.2f}")
    return _finished(axes, "false alarms among the others", "found", "area", len(classes))


def plot_precision_recall(
    targets: Tensor, probabilities: Tensor, classes: Sequence[str], *, ax: "Axes | None" = None
) -> "Axes":
    """Draw the share of right answers over the share of positives found, for every threshold.

    Parameters
    ----------
    targets : Tensor, shape (N,) of class indices or (N, C) of 0 and 1
        The truth.
    probabilities : Tensor, shape (N, C), or sequence of Prediction
        A column a class, or one column for that of ``classes[-1]``; or what a `Predictor` answers.
    classes : list of str
        The names of the columns.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    Each class stands against all others. Of more than six, those six are drawn that have the smallest average
    precision, and the legend says so.
    """
    from torchmetrics.functional.classification import binary_average_precision, binary_precision_recall_curve

    axes = ax if ax is not None else new_axes((5, 5.4))
    curves = _curves(targets, probabilities, classes, binary_average_precision)
    for color, (name, scores, wanted, area) in curves:
        precision, recall, _ = binary_precision_recall_curve(scores, wanted)
        axes.step(
            recall.numpy(),
            precision.numpy(),
            where="post",
            color=color,
            label=f"{_shortened(name)} {area:.2f}",
        )
    return _finished(
        axes, "found (recall)", "right among the answers (precision)", "average precision", len(classes)
    )


def plot_calibration(
    targets: Tensor, probabilities: Tensor, *, bins: int = 10, ax: "Axes | None" = None
) -> "Axes":
    """Draw how often answers are right over how sure they are, with the expected calibration error.

    Parameters
    ----------
    targets : Tensor, shape (N,) of class indices, or the shape of the probabilities
        The truth; 0 and 1 where the probabilities have no column for each class.
    probabilities : Tensor, shape (N, C), or (N,) and (N, 1) of one class, or sequence of Prediction
        What the model takes to be likely. Of several columns, whose rows sum to 1, the likeliest counts.
    bins : int
        How many bins of equal width the probabilities are sorted into.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    Below the diagonal the model is surer than it may be, above it less sure. The bars beneath show how many
    answers stand behind each point. The error is the mean distance from the diagonal, weighted by these.

    References
    ----------
    Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """
    targets, probabilities = _as_tensors(targets, probabilities)
    sure, right = confidences(targets, probabilities)
    bin_of = (sure * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(bin_of, minlength=bins)
    filled = counts > 0
    mean_sure, mean_right = (
        (torch.bincount(bin_of, part.double(), minlength=bins) / counts)[filled] for part in (sure, right)
    )
    error = calibration_error(targets, probabilities, bins=bins)
    axes = ax if ax is not None else new_axes((5, 4.4))
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
    middles, heights = (torch.arange(bins) + 0.5) / bins, 0.25 * counts / counts.max()
    axes.bar(middles.numpy(), heights.numpy(), width=1 / bins, color=GRAY, alpha=0.3, edgecolor="none")
    axes.plot(mean_sure.numpy(), mean_right.numpy(), color=BLUE, marker="o", markersize=5, clip_on=False)
    chosen = probabilities.ndim == 2 and probabilities.shape[1] > 1 and targets.ndim == 1
    xlabel, ylabel = ("of the answer", "that is right") if chosen else ("of yes", "that is yes")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"probability {xlabel}", ylabel=f"share {ylabel}")
    axes.set_title(f"expected calibration error {error:.3f}", fontsize=10)
    return axes


def calibration_error(targets: Tensor, probabilities: Tensor, *, bins: int = 10) -> float:
    """Give the mean distance between how sure answers are and how often they are right."""
    from torchmetrics.functional.classification import binary_calibration_error

    sure, right = confidences(targets, probabilities)
    return float(binary_calibration_error(sure, right, n_bins=bins))


def confidences(targets: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Give how sure each answer is (M,), and whether it is right, 0 or 1 (M,)."""
    targets, probabilities = _as_tensors(targets, probabilities)
    if probabilities.ndim == 2 and targets.ndim == 1 and probabilities.shape[1] > 1:
        sure, answer = probabilities.max(1)
        return sure, (answer == targets).long()
    return probabilities.flatten(), targets.flatten().long()


def _as_tensors(targets: Any, probabilities: Any) -> tuple[Tensor, Tensor]:
    if isinstance(probabilities, Sequence):
        probabilities = [_probabilities_of(answer) for answer in probabilities]
    targets, probabilities = torch.as_tensor(targets).cpu(), torch.as_tensor(probabilities).cpu()
    if len(targets) != len(probabilities) or not len(targets):
        raise ValueError(
            f"`targets` has {len(targets)} rows and `probabilities` {len(probabilities)}; expected as many, and one at "
            "least. Pass those of the same pictures."
        )
    low, high = probabilities.aminmax()
    if not 0 <= low <= high <= 1 + 1e-6:  # which NaN is not either
        raise ValueError(
            f"`probabilities` runs from {low:g} to {high:g}; expected numbers from 0 to 1. Of logits, pass "
            "task.activate(logits)."
        )
    return targets, probabilities


def _probabilities_of(answer: Any) -> Any:
    """Give those of a prediction, in the order of its classes; leave numbers as they are."""
    if isinstance(answer, Tensor) or not hasattr(answer, "probabilities"):
        return answer
    if answer.probabilities is None:
        raise ValueError(
            "`probabilities` holds predictions without probabilities; expected the answers of a task of classes. Of a "
            "task of several parts, pass those of one part; for numbers, use plot_residuals()."
        )
    return list(answer.probabilities.values())


def _curves(
    targets: Tensor, probabilities: Tensor, classes: Sequence[str], area_of: Callable[..., Tensor]
) -> Iterator[tuple[str, tuple[str, Tensor, Tensor, float]]]:
    """Give the classes with the smallest areas: a colour, and name, scores, truth and area."""
    targets, probabilities = _as_tensors(targets, probabilities)
    probabilities = probabilities.reshape(len(targets), -1)
    names = classes[-probabilities.shape[1] :]
    if len(names) != probabilities.shape[1]:
        raise ValueError(
            f"`probabilities` has {probabilities.shape[1]} columns and `classes` {len(names)} names; expected a name "
            "for each column. Pass the classes of the task: task.classes."
        )
    if targets.ndim == 1 and probabilities.shape[1] > 1:
        targets = torch.nn.functional.one_hot(targets.long(), len(names))
    columns = zip(names, probabilities.T, targets.reshape(probabilities.shape).long().T, strict=True)
    # A class that is everywhere or nowhere has no curve.
    drawn = [(name, scores, wanted) for name, scores, wanted in columns if 0 < wanted.sum() < len(wanted)]
    measured = [(*column, float(area_of(column[1], column[2]))) for column in drawn]
    worst = sorted(measured, key=lambda column: column[3])[:_MOST_CURVES]
    yield from zip(
        COLORS, [column for column in measured if any(column is one for one in worst)], strict=False
    )


def _finished(axes: "Axes", xlabel: str, ylabel: str, title: str, number: int) -> "Axes":
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel)
    if number > _MOST_CURVES:
        title = f"{title}: the {_MOST_CURVES} worst of {number}"
    # Below, since curves may run anywhere, and without a frame, which would be white on a dark page.
    legend = axes.legend(
        title=title, frameon=False, fontsize=9, title_fontsize=9, ncols=2, loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return axes


def _transparent_to_blue() -> "Colormap":
    """Make colours that lie over any background, light or dark."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("share", [to_rgba(BLUE, 0.0), to_rgba(BLUE, 1.0)])


def _shortened(name: str, most: int = 24) -> str:
    """Leave out the middle: names that begin alike are told apart by their ends."""
    half = (most - 3) // 2
    return name if len(name) <= most else f"{name[:half]}...{name[-half:]}"
