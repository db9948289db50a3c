"""Pictures of data and results: axes in, axes out. Matplotlib is imported when first needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from layerkit.distributed import is_writer
from layerkit.saving import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from layerkit.presets import Preset


def plot_curves(rows: Sequence[dict[str, Any]], *, ax: "Axes | None" = None) -> "Axes":
    """Draw the losses over the epochs and, on a second axis, the first metric.

    Parameters
    ----------
    rows : sequence of dict
        As ``run.history`` gives them.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the losses.
    """
    from matplotlib.ticker import MaxNLocator

    axes = ax if ax is not None else _new_axes((7, 4))
    epochs = [row["epoch"] for row in rows]
    for key, color in (("train_loss", "tab:gray"), ("valid_loss", "tab:blue")):
        if rows and key in rows[0]:
            axes.plot(epochs, [row[key] for row in rows], color=color, marker=".", label=key)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    lines = list(axes.lines)
    metric = next(
        (key for key in (rows[0] if rows else {}) if key.startswith("valid_") and key != "valid_loss"), None
    )
    if metric is not None:
        other = axes.twinx()
        lines += other.plot(
            epochs, [row[metric] for row in rows], color="tab:orange", marker=".", label=metric
        )
        other.set_ylabel(metric)
    frozen = sum(row["phase"] == "frozen" for row in rows)
    if 0 < frozen < len(rows):
        axes.axvspan(epochs[0] - 0.5, frozen + 0.5, color="tab:blue", alpha=0.07, lw=0)
        axes.text(
            epochs[0] - 0.4,
            0.02,
            "frozen",
            transform=axes.get_xaxis_transform(),
            va="bottom",
            color="tab:gray",
        )
    axes.margins(x=0.02)
    if lines:
        axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, frameon=False)
    return axes


def show(
    batch_or_sample: Any,
    preset: "Preset",
    *,
    classes: Sequence[str] | None = None,
    predictions: Sequence[Any] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw normalised pictures with their labels and, if given, what was predicted.

    Parameters
    ----------
    batch_or_sample : Tensor, or pair of Tensor and targets
        Pictures (N, 3, H, W) or (3, H, W) as a loader or a dataset gives them, alone or with their targets.
    preset : Preset
        What they were normalised with.
    classes : list of str, optional
        The names behind the targets.
    predictions : sequence, optional
        One a picture: a `Prediction`, or a class index, name or number. Where it differs from the target, the
        title is red.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from torchvision.utils import make_grid

    pictures, targets = (
        batch_or_sample if isinstance(batch_or_sample, list | tuple) else (batch_or_sample, None)
    )
    if pictures.ndim == 3:
        pictures, targets = pictures[None], None if targets is None else [targets]
    columns = min(len(pictures), 8 if len(pictures) > 16 else 4)
    rows = -(-len(pictures) // columns)
    axes = ax if ax is not None else _new_axes((1.9 * columns, 2.2 * rows))
    pixels = preset.undo(pictures.cpu())
    height, width = pixels.shape[-2:]
    gap = max(4, height // 6)  # room for a title above each picture
    axes.imshow(make_grid(pixels, nrow=columns, padding=gap, pad_value=255).permute(1, 2, 0).numpy())
    for index in range(len(pixels)):
        title, right = _title(index, targets, predictions, classes)
        row, column = divmod(index, columns)
        axes.text(
            gap + column * (width + gap) + width / 2,
            gap + row * (height + gap) - gap * 0.15,
            title,
            ha="center",
            va="bottom",
            fontsize=9,
            color="black" if right else "tab:red",
        )
    axes.set_axis_off()
    return axes


def save_figure(axes: "Axes", path: str | Path) -> None:
    """Save the figure that axes belong to, whole or not at all."""
    if not is_writer():
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")


def _new_axes(size: tuple[float, float]) -> "Axes":
    # Without pyplot there is no global list of figures to grow, and no window system to choose.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _title(index: int, targets: Any, predictions: Any, classes: Sequence[str] | None) -> tuple[str, bool]:
    truth = None if targets is None else _name(targets[index], classes)
    if predictions is None:
        return truth or "", True
    prediction = predictions[index]
    label = getattr(prediction, "label", None)
    answer = label if label is not None else _name(getattr(prediction, "values", prediction), classes)
    probability = getattr(prediction, "probability", None)
    shown = answer if probability is None else f"{answer} {probability:.0%}"
    if truth is None or truth == answer:
        return shown, True
    return f"{shown}\n({truth})", label is None and classes is None


def _name(value: Any, classes: Sequence[str] | None) -> str:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, int) and classes is not None:
        return str(classes[value])
    numbers = value if isinstance(value, list | tuple) else [value]
    return ", ".join(f"{n:.3g}" if isinstance(n, float) else str(n) for n in numbers)
