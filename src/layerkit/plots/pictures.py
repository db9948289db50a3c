"""Pictures as they are, with what they are and what they were taken for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from layerkit.errors import rounded
from layerkit.plots.axes import ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from layerkit.presets import Preset


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
        title is orange.
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
    for name, others in (("targets", targets), ("predictions", predictions)):
        if not len(pictures) or (others is not None and len(others) != len(pictures)):
            raise ValueError(
                f"There are {len(pictures)} pictures{'' if others is None else f' and {len(others)} {name}'}; expected "
                "as many of each, and one at least. Pass a batch as the loader gives it; of several targets, one "
                "column: show((pictures, targets['place']), preset)."
            )
    columns = min(len(pictures), 8 if len(pictures) > 16 else 4)
    pixels = preset.undo(pictures.cpu())
    height, width = pixels.shape[-2:]
    titles = [_title(index, targets, predictions, classes) for index in range(len(pixels))]
    lines = 1 + max(title.count("\n") for title, _ in titles)
    gap = max(4, height * lines // 7)  # room for a title above each picture
    grid = make_grid(pixels, nrow=columns, padding=gap, pad_value=255).permute(1, 2, 0).numpy()
    across = 1.9 * columns
    axes = ax if ax is not None else new_axes((across, across * grid.shape[0] / grid.shape[1]))
    axes.imshow(grid)
    for index, (title, right) in enumerate(titles):
        row, column = divmod(index, columns)
        axes.text(
            gap + column * (width + gap) + width / 2,
            gap + row * (height + gap) - height * 0.025,
            title,
            ha="center",
            va="bottom",
            fontsize=9,
            color="black" if right else ORANGE,
        )
    axes.set_axis_off()
    return axes


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
    return f"{shown}\n(is {truth})", label is None and classes is None


def _name(value: Any, classes: Sequence[str] | None) -> str:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, int) and classes is not None:
        return str(classes[value])
    numbers = value if isinstance(value, list | tuple) else [value]
    return ", ".join(rounded(n, 3) if isinstance(n, float) else str(n) for n in numbers)
