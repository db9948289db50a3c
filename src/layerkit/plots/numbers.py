"""How far a regression's answers are from the truth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from layerkit.plots.axes import BLUE, GRAY, label, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY_POINTS = 2000


def plot_residuals(
    targets: Tensor | Sequence[float],
    values: Tensor | Sequence[Any],
    *,
    name: str = "value",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw each answer's error over the answer, and the line of no error.

    Parameters
    ----------
    targets, values : Tensor or sequence of float, shape (N,) or (N, 1)
        The truth and the answers, in the user's units. The answers may be what a `Predictor` gives.
    name : str
        What the number is.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    A good model leaves a cloud without shape around zero. A slope means that extremes are answered too
    mildly, a funnel that the error grows with the value, a bend that something is missing.

    Examples
    --------
    >>> axes = plot_residuals([1.0, 2.0, 3.0], [1.1, 1.9, 3.2], name="age")
    >>> axes.get_xlabel()
    'answered age'
    """
    if isinstance(values, Sequence):
        values = [value if isinstance(value, Tensor) else getattr(value, "values", value) for value in values]
        if any(value is None for value in values):
            raise ValueError(
                "`values` holds predictions without values; expected the answers of a Regression. Of a task of several "
                "parts, pass those of one part; for classes, use plot_confusion()."
            )
    wanted, answered = (torch.as_tensor(part, dtype=torch.float64).cpu() for part in (targets, values))
    for given, part in (("targets", wanted), ("values", answered)):
        if part.ndim > 1 and part.shape[1:] != (1,):
            raise ValueError(
                f"`{given}` has the shape {tuple(part.shape)}; expected one number a picture, (N,) or (N, 1): numbers "
                "of several kinds have no common axis. Draw them one by one: targets[:, 0], and "
                "[answer.values[0] for answer in answers]."
            )
    wanted, answered = wanted.flatten(), answered.flatten()
    if wanted.shape != answered.shape:
        raise ValueError(
            f"`targets` has {len(wanted)} numbers and `values` {len(answered)}; expected one answer for each "
            "target. Pass those of the same pictures."
        )
    axes = ax if ax is not None else new_axes((5, 4))
    many = len(wanted) > _MANY_POINTS
    axes.scatter(
        answered.numpy(),
        (answered - wanted).numpy(),
        s=6 if many else 18,
        color=BLUE,
        alpha=0.25 if many else 0.6,
        linewidths=0,
        rasterized=many,
    )
    axes.axhline(0, color=GRAY, linewidth=1)
    label(axes, xlabel=f"answered {name}", ylabel="answer - truth")
    return axes
