"""How good a trained model is on held-out pictures."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from layerkit.tasks import Task
from layerkit.training.device import Device, choose_hardware, move_model
from layerkit.training.loop import validate
from layerkit.training.losses import as_task

if TYPE_CHECKING:
    from torchmetrics import Metric


def evaluate(
    model: nn.Module,
    task: Task | Callable[[Tensor, Any], Tensor],
    loader: Iterable[Any],
    *,
    metrics: "Mapping[str, Metric] | None" = None,
    device: Device = "auto",
) -> dict[str, float]:
    """Measure loss and metrics on held-out data, the test part above all.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to the device, and run in evaluation mode and full precision; its mode is put back.
    task : Task or callable
        What it was trained for.
    loader : iterable of (inputs, targets)
        Read once.
    metrics : dict of str to torchmetrics.Metric, optional
        Instead of the task's own.
    device : str or torch.device
        ``"auto"`` takes the accelerator that torch finds, else the CPU.

    Returns
    -------
    dict of str to float
        ``loss`` (in the units of the loss) and each metric by its name (in the user's units).
    """
    from torchmetrics import MetricCollection

    task = as_task(task)
    hardware = choose_hardware(model, device, "fp32", channels_last=False)
    move_model(model, hardware)
    task.to(hardware.device)
    measures = task.metrics() if metrics is None else MetricCollection(dict(metrics), compute_groups=False)
    training = {module: module.training for module in model.modules()}
    try:
        return validate(model, task, loader, hardware, measures.to(hardware.device))
    finally:
        for module, mode in training.items():
            module.training = mode
