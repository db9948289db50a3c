"""The whole way from pixels to answers as one module, to be exported; and what travels beside it."""

from copy import deepcopy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from layerkit.heads.finding import unwrapped
from layerkit.presets import Preset
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task
from layerkit.tasks.outputs import split_output

INPUT = "pixels"


class Program(nn.Module):
    """Turn pixels (N, 3, H, W), uint8 at the crop size, into a dict of named answers.

    It is a copy of the model and the task, in float32 on the CPU.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, task: Task, preset: Preset) -> None:
        super().__init__()
        _, inner = unwrapped(model)
        self.model = deepcopy(inner).to("cpu", torch.float32).eval().requires_grad_(False)
        self.task = deepcopy(task).to("cpu").eval().requires_grad_(False)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preset, name), dtype=torch.float32, device="cpu")
            self.register_buffer(name, values.view(3, 1, 1))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Normalise, run the model, activate."""
        logits, _ = split_output(self.model((pixels.to(torch.float32) / 255 - self.mean) / self.std))
        if logits.ndim == 1:  # a model that squeezes its one output
            logits = logits.unsqueeze(1)
        return named_answers(self.task, self.task.activate(logits))


def named_answers(task: Task, read: Any) -> dict[str, Tensor]:
    """Name what `Task.activate` gives; the parts of a `MultiTask` have their own names before it."""
    if isinstance(task, MultiTask):
        return {output_name(part, name): read[name] for name, part in _parts(task)}
    return {output_name(task): read}


def output_name(task: Task, part: str = "") -> str:
    """Name an output by what it holds."""
    kind = "probabilities" if isinstance(task, Binary | Multiclass | Multilabel) else "values"
    return f"{part}_{kind}" if part else kind


def units_of(task: Task) -> dict[str, Tensor]:
    """Give what counts as 1 in each output, to judge a difference by."""
    parts = [(output_name(part, name), part) for name, part in _parts(task)]
    return {name: part.std if isinstance(part, Regression) else torch.ones(()) for name, part in parts}


def describe_preset(preset: Preset) -> dict[str, Any]:
    """Give a preset as JSON has it."""
    return {**asdict(preset), "interpolation": InterpolationMode(preset.interpolation).value}


def describe_outputs(task: Task) -> dict[str, list[str] | None]:
    """Name the columns of each output: classes, or what values are called."""
    return {output_name(part, name): _columns(part) for name, part in _parts(task)}


def _columns(task: Task) -> list[str] | None:
    match task:
        case Binary():
            return task.classes[1:]
        case Multiclass() | Multilabel():
            return task.classes
        case Regression():
            return task.names
    return None


def _parts(task: Task) -> list[tuple[str, Task]]:
    return list(task.parts.items()) if isinstance(task, MultiTask) else [("", task)]  # type: ignore[arg-type]
