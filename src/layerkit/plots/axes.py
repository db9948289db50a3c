"""Where plots are drawn, in which colours, and how they are saved."""

from pathlib import Path
from typing import TYPE_CHECKING

from layerkit.distributed import is_writer
from layerkit.saving import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, which people tell apart whatever their colour vision (https://jfly.uni-koeln.de/color/),
# without their yellow, which is lost on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
BLUE, ORANGE = COLORS[:2]
GRAY = "#808080"


def new_axes(size: tuple[float, float]) -> "Axes":
    """Make axes in a figure of its own, of so many inches."""
    # Without pyplot there is no global list of figures to grow, and no window system to choose.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def save_figure(axes: "Axes", path: str | Path) -> None:
    """Save the figure that axes belong to, whole or not at all."""
    if not is_writer():
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    check_plot_path(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")


def check_plot_path(path: str | Path) -> None:
    """Refuse a name whose suffix is no format of pictures."""
    from matplotlib.backend_bases import FigureCanvasBase

    suffix, known = Path(path).suffix, FigureCanvasBase.filetypes
    if suffix.lower().removeprefix(".") not in known:
        raise ValueError(
            f"The plot is to be written to {str(path)!r}, and the suffix {suffix!r} is no format of pictures; expected "
            f"one of .{', .'.join(sorted(known))}. For the web, take .svg or .png."
        )


def label(axes: "Axes", **texts: str) -> None:
    """Set texts that come from the user (``title``, ``xlabel``, ``ylabel``), in which ``$`` is a dollar."""
    for name, text in texts.items():
        getattr(axes, f"set_{name}")(text, parse_math=False)
