"""What a finished run is worth: the figures of its best epoch, and how much of them is chance."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from layerkit.errors import count_of, warn
from layerkit.features import constant_logits
from layerkit.intervals import Estimate, confidence_intervals, resampled_intervals
from layerkit.tasks import Task
from layerkit.tasks.targets import map_targets
from layerkit.training.best import Best
from layerkit.training.history import History
from layerkit.training.losses import LossTask
from layerkit.training.progress import Progress

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def measure_uncertainty(
    best: Best, task: Task, history: History, own_metrics: "MetricCollection | None", progress: Progress
) -> dict[str, Estimate]:
    """Give the best epoch's figures with their confidence intervals, and say whether they could be chance."""
    if not best.answers or isinstance(task, LossTask):
        return {}
    task = copy.deepcopy(task).cpu()
    logits, target = best.answers["logits"].cpu(), map_targets(Tensor.cpu, best.answers["target"])
    _say_if_worthless(task, history, logits, target, progress)
    intervals = {}
    try:
        if own_metrics is None:
            intervals = confidence_intervals(task, logits, target)
        else:
            intervals = resampled_intervals(task, copy.deepcopy(own_metrics).cpu(), logits, target)
    except Exception as error:  # of the user's own metric, over a sample that it does not like
        if own_metrics is None:
            raise
        warn(
            f"The confidence intervals could not be measured ({type(error).__name__}: {error}); expected metrics that "
            "take any sample of the pictures. The figures themselves stand."
        )
    row = history[best.epoch - 1]
    names = [key.removeprefix("valid_") for key in row if key.startswith("valid_")]
    figures = {f"valid_{name}": Estimate(row[f"valid_{name}"], intervals.get(name)) for name in names}
    _say_how_sure(figures[str(best.monitor)], str(best.monitor), history, progress)
    return figures


def _say_how_sure(monitored: Estimate, name: str, history: History, progress: Progress) -> None:
    if monitored.low is None or monitored.high is None:
        return
    alike = sum(monitored.low <= row[name] <= monitored.high for row in history) - 1
    within = (
        f"; {count_of(alike, 'other epoch')} {'lies' if alike == 1 else 'lie'} within that: which is the best is "
        "partly chance"
    )
    progress.say(f"{name} {monitored} with 95% confidence{within if alike else ''}")


def _say_if_worthless(task: Task, history: History, logits: Tensor, target: Any, progress: Progress) -> None:
    """Say it where no epoch had a lower loss than the same answer to every picture has."""
    constant = constant_logits(task, target)
    if constant is None or logits.ndim != 2:
        return
    with torch.no_grad():
        always = task.checked_loss(constant.expand_as(logits), target).item()
    lowest = min(row["valid_loss"] for row in history)
    if lowest > always:
        progress.say(
            f"no valid_loss is below the {always:.4f} of always giving the same answer: lower the learning rate, train "
            "longer, or see whether targets belong to their pictures"
        )
