"""What happened over the epochs, and over rising learning rates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerkit.plots.axes import BLUE, GRAY, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_SPAN = 0.2


def plot_curves(
    rows: Sequence[dict[str, Any]],
    *,
    monitor: str | None = None,
    best_epoch: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the losses over the epochs and, on a second axis, a metric.

    Parameters
    ----------
    rows : sequence of dict
        As ``run.history`` gives them.
    monitor : str, optional
        What decided which epoch is the best. A metric is the one that is drawn; otherwise that is the first.
    best_epoch : int, optional
        The epoch whose weights were kept, counted from 1; a ring marks it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the losses.
    """
    from matplotlib.ticker import MaxNLocator

    axes = ax if ax is not None else new_axes((7, 4))
    epochs = [row["epoch"] for row in rows]
    keys = list(rows[0]) if rows else []
    drawn = [(key, axes, color) for key, color in (("train_loss", GRAY), ("valid_loss", BLUE)) if key in keys]
    metrics = [key for key in keys if key.startswith("valid_") and key != "valid_loss"]
    if metrics:
        told = [
            key for key in metrics if not key.endswith("_loss")
        ]  # a part's loss tells less than its accuracy
        metric = monitor if monitor in metrics else (told or metrics)[0]
        right = axes.twinx()
        drawn.append((metric, right, ORANGE))
        right.set_ylabel(metric)
    lines = []
    for key, on, color in drawn:
        lines += on.plot(epochs, [row[key] for row in rows], color=color, marker=".", label=key)
    for key, on, color in drawn:
        kept = [row for row in rows if key == monitor and row["epoch"] == best_epoch]
        for row in kept:
            lines += on.plot(row["epoch"], row[key], "o", ms=10, mfc="none", color=color, label="kept")
    if metrics:
        _widen(right)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    frozen = sum(row["phase"] == "frozen" for row in rows)
    if 0 < frozen < len(rows):
        axes.axvspan(epochs[0] - 0.5, frozen + 0.5, color=BLUE, alpha=0.07, lw=0)
        axes.text(
            epochs[0] - 0.5,
            1.01,  # above the lines, which may run anywhere
            "frozen",
            transform=axes.get_xaxis_transform(),
            va="bottom",
            color=GRAY,
        )
    axes.margins(x=0.02)
    if lines:
        axes.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.05), ncols=4, frameon=False)
    return axes


def _widen(axes: "Axes") -> None:
    """Let the axis span a fifth of its values at least: a change of one picture is no peak."""
    low, high = axes.get_ylim()
    missing = _LEAST_SPAN * max(abs(low), abs(high)) - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


def plot_rates(
    rates: Sequence[float], losses: Sequence[float], suggestion: float, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw the loss over a rising learning rate, and the rate to begin with.

    Parameters
    ----------
    rates, losses : sequence of float
        As `layerkit.find_lr` gives them.
    suggestion : float
        Marked by a line.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = ax if ax is not None else new_axes((7, 4))
    axes.plot(rates, losses, color=BLUE)
    axes.axvline(suggestion, color=ORANGE, linestyle="--", label=f"suggestion {suggestion:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss (smoothed)")
    axes.legend(frameon=False)
    return axes
