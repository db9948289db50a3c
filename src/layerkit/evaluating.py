"""How good a trained model is on held-out pictures."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from layerkit import distributed
from layerkit.device import Device, choose_hardware, move_model
from layerkit.errors import NonFiniteError
from layerkit.freezing import in_evaluation
from layerkit.intervals import Estimate, confidence_intervals, resampled_intervals, with_intervals
from layerkit.loading.loaders import PictureLoader
from layerkit.tasks import Task
from layerkit.tasks.classes import warn_of_unmeasured
from layerkit.tasks.targets import map_targets
from layerkit.training.loop import check_is_shared, validate
from layerkit.training.losses import as_task
from layerkit.training.mistakes import check_classes, check_model, check_roles

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True)
class Measured:
    """Figures, and the answers that they were measured on, in the order of the loader.

    Attributes
    ----------
    figures : dict of str to Estimate
        ``loss`` and each metric.
    logits : Tensor, shape (N, out_features), or None
        What the model gave, on the CPU; ``None`` where that is not one row a picture.
    target : Tensor or dict of these
        What was wanted, as `Task.check` gives it.
    """

    figures: dict[str, Estimate]
    logits: Tensor | None
    target: Any


def evaluate(
    model: nn.Module,
    task: Task | Callable[[Tensor, Any], Tensor],
    loader: Iterable[Any],
    *,
    metrics: "Mapping[str, Metric] | None" = None,
    device: Device = "auto",
) -> dict[str, Estimate]:
    """Measure loss and metrics on held-out data, the test part above all.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to the device, and run in evaluation mode in the precision of its first weights; its mode is put back.
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
        ``loss`` (in the units of the loss) and each metric by its name (in the user's units). Each is a float
        that knows its 95% confidence interval as ``.low`` and ``.high``, and shows it when printed; they are
        ``None`` where it cannot be computed, as for segmentation, or for a macro F1 of 1: resampling answers
        that are all right tells nothing.

    Raises
    ------
    ValueError
        The task's classes are not those of the loader.
    NonFiniteError
        The model's answers are not finite.

    Warns
    -----
    LayerkitWarning
        A class has no held-out picture: averages are those of the others, and the AUROC and F1 of a `Binary` with one
        class alone are NaN.

    Notes
    -----
    The intervals tell how much the figures would vary with other pictures of the same kind, if each picture
    was drawn by itself; bursts and several pictures of one patient make them too narrow. An accuracy has
    Wilson's interval, all else the percentiles of the bootstrap, with a fixed seed.

    Examples
    --------
    >>> import torch
    >>> from layerkit import Multiclass, evaluate
    >>> inputs = torch.arange(-10.0, 10.0).unsqueeze(1)
    >>> model = torch.nn.Linear(1, 2)
    >>> model.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.zeros(2)})
    <All keys matched successfully>
    >>> figures = evaluate(model, Multiclass(2), [(inputs, (inputs[:, 0] > 1).long())], device="cpu")
    >>> figures["accuracy"]
    0.9 (0.699 to 0.9721)
    """
    return measure(model, task, loader, metrics=metrics, device=device).figures


def measure(
    model: nn.Module,
    task: Task | Callable[[Tensor, Any], Tensor],
    loader: Iterable[Any],
    *,
    metrics: "Mapping[str, Metric] | None" = None,
    device: Device = "auto",
) -> Measured:
    """Do as `evaluate` does, and give the answers too."""
    from torchmetrics import MetricCollection

    check_roles(model, loader=loader)
    task = as_task(task)
    check_is_shared("loader", loader)
    check_classes(task, loader)
    hardware = choose_hardware(model, device, "fp32", channels_last=False)
    move_model(model, hardware)
    task.to(hardware.device)
    measures = task.metrics() if metrics is None else MetricCollection(dict(metrics), compute_groups=False)
    distributed.join_group(hardware.device)
    seen = _Seen()
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    batches = _prepared(loader, dtype, lambda inputs: check_model(model, task, hardware.move(inputs[:2])))
    with in_evaluation(model):
        figures = validate(model, task, batches, hardware, measures.to(hardware.device), keep=seen.keep)
    logits, target = seen.gathered(loader)
    if logits is not None and not logits.isfinite().all():
        raise NonFiniteError(
            "The model's answers on the held-out data are not all finite; expected finite numbers. Its weights are "
            "spoiled, its precision is too low, or pictures hold NaN: train it anew, or load it from a file that was "
            "saved before."
        )
    if target is not None and (logits is not None or distributed.world() == 1):  # else, of a part alone
        warn_of_unmeasured(task.absent(target))
    if logits is None:
        return Measured(with_intervals(figures, {}), None, target)
    if metrics is None:
        intervals = confidence_intervals(task, logits, target)
    else:
        intervals = resampled_intervals(task, measures.cpu(), logits, target)
    return Measured(with_intervals(figures, intervals), logits, target)


class _Seen:
    """What passes through `validate`: the model's logits and the targets."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.targets: list[Any] = []

    def keep(self, logits: Tensor, target: Any) -> None:
        """Keep a batch's logits, if they are one row a picture, and its targets."""
        if logits.ndim <= 2:
            self.logits.append(logits if logits.ndim == 2 else logits.unsqueeze(1))
        # Masks would fill a device.
        self.targets.append(target if logits.ndim <= 2 else map_targets(Tensor.cpu, target))

    def gathered(self, loader: Iterable[Any]) -> tuple[Tensor | None, Any]:
        """Give all logits, unless there are none, and all targets, over all processes."""
        join = partial(map_targets, lambda *parts: torch.cat(parts))
        logits = torch.cat(self.logits).cpu() if self.logits else None
        target = map_targets(Tensor.cpu, join(*self.targets)) if self.targets else None
        if distributed.world() > 1:  # some of which may have had no sample
            parts = [part for part in distributed.gather_objects((logits, target)) if part[0] is not None]
            if parts:
                logits, target = torch.cat([part[0] for part in parts]), join(*(part[1] for part in parts))
        if logits is None:
            return None, target
        if distributed.world() > 1 and isinstance(loader, PictureLoader):
            ranks = range(distributed.world())
            dealt = torch.tensor([p for rank in ranks for p in loader.batch_sampler.positions(rank)])
            logits, target = logits[dealt.argsort()], map_targets(lambda part: part[dealt.argsort()], target)
        return logits, target


def _prepared(batches: Iterable[Any], dtype: torch.dtype, check: Callable[[Tensor], None]) -> Iterator[Any]:
    """Pass batches on in the precision of the model, once the inputs of the first have been checked."""
    for number, batch in enumerate(batches):
        if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Tensor):
            inputs, *others = batch
            batch = [inputs.to(dtype) if inputs.is_floating_point() else inputs, *others]
            if number == 0:
                check(batch[0])
        yield batch
