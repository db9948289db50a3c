"""Pictures of data and results: axes in, axes out. Matplotlib is imported when first needed."""

from layerkit.plots.axes import save_figure
from layerkit.plots.classes import plot_calibration, plot_confusion, plot_precision_recall, plot_roc
from layerkit.plots.curves import plot_curves, plot_rates
from layerkit.plots.numbers import plot_residuals
from layerkit.plots.pictures import show

__all__ = [
    "plot_calibration",
    "plot_confusion",
    "plot_curves",
    "plot_precision_recall",
    "plot_rates",
    "plot_residuals",
    "plot_roc",
    "save_figure",
    "show",
]
