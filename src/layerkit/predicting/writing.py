"""A predictor to its file: weights, task, preset, and the recipe of the architecture."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from layerkit import tasks
from layerkit._version import __version__
from layerkit.distributed import is_writer
from layerkit.errors import HeadError, warn
from layerkit.heads.finding import unwrapped
from layerkit.predicting.answers import as_rows
from layerkit.predicting.architectures import (
    Architecture,
    describe_as,
    find_architecture,
    fixed_pattern,
    prove,
)
from layerkit.predicting.programs import describe_outputs, describe_preset
from layerkit.presets import Preset
from layerkit.tasks import Regression, Task
from layerkit.tasks.outputs import split_output

_OTHERS_SUFFIXES = frozenset(
    (".pt", ".pth", ".pt2", ".onnx", ".ckpt", ".bin", ".pkl", ".pickle", ".h5", ".keras")
)

FORMAT = 1
KIND = "predictor"
_LARGEST_CROP = 2048
OUTPUTS = "outputs"
"""The tensor that holds the model's answer to `fixed_pattern`, to compare with after loading."""


def pack_predictor(
    model: nn.Module, task: Task, preset: Preset, given: Architecture | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give a file's tensors and header, the architecture proven; the model must be in evaluation mode."""
    _, model = unwrapped(model)
    refuse_unprepared(task)
    inputs = pattern_for(model, preset)
    with torch.no_grad():
        outputs, _ = split_output(model(inputs))
        if not as_rows(outputs, len(inputs), task).isfinite().all():
            raise ValueError(
                f"The model answers {outputs.flatten()[0].item()} to a plain pattern; expected finite numbers. Its "
                "weights are spoiled: save the model of an earlier time."
            )
        architecture = _architecture(model, given, inputs)
    header = {
        "kind": KIND,
        "format": FORMAT,
        "versions": versions(),
        "architecture": architecture,
        "task": {"class": type(task).__name__, "settings": _settings(task)},
        "classes": task.classes,
        "preset": describe_preset(preset),
    }
    return {OUTPUTS: outputs, **_named("model", model), **_named("task", task)}, header


def describe_program(task: Task, preset: Preset) -> dict[str, Any]:
    """Give what travels in the metadata of an exported program."""
    return {
        "versions": versions(),
        "task": {"class": type(task).__name__, "settings": task.settings()},
        "classes": task.classes,
        "outputs": describe_outputs(task),
        "preset": describe_preset(preset),
    }


def check_name(path: str | Path) -> None:
    """Refuse a name that says that something else is in the file."""
    suffix = Path(path).suffix.lower()
    if suffix in _OTHERS_SUFFIXES:
        program = (
            " To write a program that needs no layerkit, use export()." if suffix in (".pt2", ".onnx") else ""
        )
        raise ValueError(
            f"The predictor is to be saved as {str(path)!r}, whose suffix is that of another kind of file; expected "
            f"a name such as {str(Path(path).with_suffix('.safetensors'))!r}.{program}"
        )


def refuse_unprepared(task: Task) -> None:
    """Refuse a task that could only answer NaN: numbers have no unit yet. What losses need, answers do without."""
    if any(part.needs_targets for part in task.modules() if isinstance(part, Regression)):
        raise RuntimeError(
            f"{task} has not seen the training targets yet, so that its answers have no unit; expected the task "
            "that the model was trained with. fit() prepares it; by hand, call task.prepare(targets)."
        )


def check_crop(preset: Preset) -> None:
    """Refuse a crop so large that comparing outputs would take more memory than a stranger's file warrants."""
    if max(preset.crop) > _LARGEST_CROP:
        raise ValueError(
            f"The preset crops to {preset.crop}; expected at most {_LARGEST_CROP} pixels a side in a predictor that "
            "is saved. Choose a smaller crop_size."
        )


def pattern_for(model: nn.Module, preset: Preset) -> Tensor:
    """Make the fixed picture at the preset's size, where and in which precision the model is."""
    check_crop(preset)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return fixed_pattern(preset.crop, like)


def versions() -> dict[str, str]:
    """Tell which versions wrote a file."""
    return {"layerkit": __version__, "torch": torch.__version__, "torchvision": torchvision.__version__}


def _architecture(model: nn.Module, given: Architecture | None, inputs: Tensor) -> dict[str, Any]:
    if given is not None:
        return asdict(_proven(model, given, inputs))
    try:
        found = find_architecture(model)
    except HeadError:  # a head without any layer that tells its size
        found = None
    reason = "no builder of torchvision makes its structure" if found is None else prove(found, model, inputs)
    if found is not None and reason is None:
        return asdict(found)
    if is_writer():
        warn(
            f"The file does not hold the architecture of {type(model).__name__} ({reason}); its weights are "
            "saved all the same. To load it, build the model again, with its head, and pass it: "
            "load_predictor(path, model=model)."
        )
    return {"class": f"{type(model).__module__}.{type(model).__qualname__}"}


def _proven(model: nn.Module, given: Architecture, inputs: Tensor) -> Architecture:
    try:
        recipe = describe_as(given.builder, model, given.arguments)
    except TypeError as error:
        raise ValueError(
            f"`architecture` is {(given.builder, dict(given.arguments))}, which torchvision refuses "
            f"({error}); expected arguments of torchvision's {given.builder}. Correct them, or leave "
            "`architecture` out."
        ) from error
    reason = "its structure is another" if recipe is None else prove(recipe, model, inputs)
    if recipe is None or reason is not None:
        raise ValueError(
            f"`architecture` is {(given.builder, dict(given.arguments))}, and building that does not give "
            f"this {type(model).__name__} ({reason}); expected its own builder. Leave `architecture` out to "
            "have it found, or to save the weights alone."
        )
    return recipe


def _settings(task: Task) -> dict[str, Any]:
    parts = [part for part in task.modules() if isinstance(part, Task)]
    own = [part for part in parts if getattr(tasks, type(part).__name__, None) is not type(part)]
    if own:
        raise ValueError(
            f"The task is a {type(own[0]).__qualname__} of your own, which a file cannot hold without its "
            "code; expected one of layerkit's, such as Multiclass(classes). Save the model with "
            "safetensors.torch.save_model instead."
        )
    return task.settings()


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(
            f"The state dict of {type(module).__name__} holds {odd}, which are no tensors; expected tensors "
            "only: a file that can hold any object can run any code. Keep them out of get_extra_state()."
        )
    return {f"{prefix}.{name}": value for name, value in state.items()}
