"""A predictor from its file. Nothing in it is executed, and a file that cannot be trusted is refused."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerkit import tasks
from layerkit.device import Device, choose_device
from layerkit.errors import PredictorFileError
from layerkit.freezing import in_evaluation
from layerkit.heads.finding import unwrapped
from layerkit.predicting.architectures import Architecture, assign, load_weights, same_outputs
from layerkit.predicting.predictor import Predictor
from layerkit.predicting.writing import FORMAT, KIND, OUTPUTS, check_crop, pattern_for, versions
from layerkit.presets import Preset
from layerkit.saving import read_tensors
from layerkit.tasks import Task
from layerkit.tasks.outputs import split_output

_SPARE_TENSORS = 100
"""Made by a builder and kept in no file: a head that others replace, what weights are drawn with."""

_PROGRAMS = {".onnx": "onnxruntime", ".pt2": "torch.export.load"}

Tensors = dict[str, Tensor]
Header = Mapping[str, Any]


def load_predictor(path: str | Path, *, model: nn.Module | None = None, device: Device = "auto") -> Predictor:
    """Load what `Predictor.save` saved.

    Parameters
    ----------
    path : str or Path
        The file.
    model : torch.nn.Module, optional
        For an architecture that the file does not hold: the model with its head, whose weights are replaced
        in place by those of the file.
    device : str or torch.device
        ``"auto"`` takes the accelerator that torch finds, else the CPU.

    Returns
    -------
    Predictor
        It answers as the saved one did.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    PredictorFileError
        It is damaged, changed, of another kind (a pickle, tensors only), or from a newer layerkit; or the
        model that was passed is another one. No weight of that was changed.

    Notes
    -----
    Nothing is unpickled and nothing in the file is executed, so a file from a stranger can do no more than
    answer wrongly. The checksum finds accidents, not forgery.

    Examples
    --------
    >>> load_predictor("pets.safetensors")("rex.jpg")  # doctest: +SKIP
    Prediction('rex.jpg': dog 0.984)
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` is {model!r}; expected a torch.nn.Module with its head, whose weights the file replaces. For "
            "a model of torchvision, leave it out."
        )
    chosen = choose_device(device)
    try:
        tensors, header = read_tensors(path)
    except (ValueError, RecursionError) as error:
        if Path(path).suffix.lower() in _PROGRAMS:
            raise PredictorFileError(
                f"{path} is an exported program, which runs without layerkit; expected the file that Predictor.save() "
                f"wrote. Load that, or run the program with {_PROGRAMS[Path(path).suffix.lower()]}."
            ) from error
        raise PredictorFileError(str(error)) from error
    _check_kind(path, header)
    with _refusing(path, header):
        preset = _preset(header["preset"])
        check_crop(preset)
        numbers = sum(value.numel() for value in tensors.values())
        task = _task(header["task"], _part(tensors, "task"), numbers)
        weights = _part(tensors, "model")
        if model is None:
            model = _build(path, header["architecture"], weights)
        else:
            _fill(path, model, weights, preset, tensors[OUTPUTS])
    return Predictor(model.to(chosen), task.to(chosen), preset)


def _check_kind(path: str | Path, header: Header) -> None:
    kind, number = (header.get(key) if isinstance(header, Mapping) else None for key in ("kind", "format"))
    if kind != KIND or not isinstance(number, int):
        raise PredictorFileError(
            f"{path} holds no predictor; expected a file written by Predictor.save(). A checkpoint of fit() "
            "goes on with the same fit() call."
        )
    if number > FORMAT:
        raise PredictorFileError(
            f"{path} has the format {number}, from layerkit {_written_by(header)}; expected {FORMAT} or "
            f"lower, which layerkit {versions()['layerkit']} reads. Install a newer layerkit."
        )


@contextmanager
def _refusing(path: str | Path, header: Header) -> Iterator[None]:
    """Turn whatever a header of the wrong make raises on its way through the constructors into one error."""
    try:
        yield
    except PredictorFileError:
        raise
    except Exception as error:
        raise PredictorFileError(
            f"{path} cannot be made into a predictor here ({type(error).__name__}: {error}); expected what "
            f"Predictor.save() writes. It was written by layerkit {_written_by(header)}, and this is "
            f"{versions()}: use the same versions, or take another copy."
        ) from error


def _written_by(header: Header) -> Any:
    known = header.get("versions")
    return known.get("layerkit", "?") if isinstance(known, Mapping) else "?"


def _preset(saved: Header) -> Preset:
    return Preset(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    )


def _task(saved: Header, learned: Tensors, most: int) -> Task:
    kind = getattr(tasks, saved["class"])
    if saved["class"] not in tasks.__all__ or not issubclass(kind, Task):
        raise ValueError(f"{saved['class']} is no task")
    if (counted := _counts(saved["settings"])) > most:
        raise ValueError(f"the task counts {counted}, and the file holds {most} numbers")
    task: Task = kind(**saved["settings"])
    task.load_state_dict(learned)
    return task


def _counts(value: Any) -> int:
    """Add up all counts in a task's settings: no model has more outputs than the file has numbers."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return sum(map(_counts, value))
    return max(0, value) if isinstance(value, int) else 0


def _build(path: str | Path, saved: Header, weights: Tensors) -> nn.Module:
    if "builder" not in saved:
        raise PredictorFileError(
            f"{path} does not hold the architecture, which was {saved['class']}; expected the model beside "
            "it. Build it again, with its head, and pass it: load_predictor(path, model=model)."
        )
    architecture = Architecture(saved["builder"], saved["arguments"], saved["layers"])
    return assign(architecture.build(most_tensors=2 * len(weights) + _SPARE_TENSORS), weights)


def _fill(path: str | Path, model: nn.Module, weights: Tensors, preset: Preset, outputs: Tensor) -> None:
    """Give a model the weights of a file, once it has shown to answer with them as the saved one did."""
    _, inner = unwrapped(model)
    _check_fit(path, inner, weights)
    inputs = pattern_for(inner, preset)
    own = inner.state_dict()
    state = {name: value.to(own[name]) for name, value in weights.items()}
    with torch.no_grad(), in_evaluation(inner):
        called = torch.func.functional_call(inner, state, (inputs,), tie_weights=False)
        answered, _ = split_output(called)
    if not same_outputs(answered, outputs):
        raise PredictorFileError(
            f"The {type(inner).__name__} that was passed takes the weights of {path}, but answers otherwise "
            "than the saved model did; expected the same architecture with the same settings. No weight was "
            "changed."
        )
    load_weights(inner, weights)
    inner.eval()


def _check_fit(path: str | Path, model: nn.Module, weights: Tensors) -> None:
    has = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wants = {name: tuple(value.shape) for name, value in weights.items()}
    odd = [name for name in {**wants, **has} if has.get(name) != wants.get(name)]
    if odd:
        shown = "; ".join(
            f"{name} {wants.get(name, 'absent')}, not {has.get(name, 'absent')}" for name in odd[:3]
        )
        raise PredictorFileError(
            f"The {type(model).__name__} that was passed is not the model of {path}, which has {shown}"
            f"{f' and {len(odd) - 3} more' if len(odd) > 3 else ''}; expected one built the same way, with "
            "its head: replace_head(model, task). No weight was changed."
        )


def _part(tensors: Tensors, name: str) -> Tensors:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
