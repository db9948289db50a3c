"""Single pictures on the page: those that the model is most wrong about, and least sure of."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from layerkit.errors import rounded
from layerkit.predicting.answers import Prediction, answers
from layerkit.presets import Preset
from layerkit.reporting.html import Html, element
from layerkit.tasks import Binary, Multiclass, Multilabel, Regression, Task

NUMBER = 12
_SURE = 0.9
"""A probability from which on nobody would call an answer uncertain."""
_SIDE = 240
"""Pixels of a thumbnail's longer side: sharp on a phone at the width of half its screen."""


class Samples:
    """The pictures behind the answers, by the index of their answer.

    Parameters
    ----------
    dataset : sequence of (picture, target)
        In the order of the answers; a picture is normalised, as the model takes it.
    preset : Preset
        What they were normalised with.
    """

    def __init__(self, dataset: Any, preset: Preset) -> None:
        self.dataset = dataset
        self.preset = preset
        self._made: dict[int, str] = {}

    def name(self, index: int) -> str:
        """Give the file's path below the data set's folder, or the number where there is no file."""
        files = getattr(self.dataset, "files", None) or getattr(self.dataset, "paths", None)
        if files is None:
            return f"picture {index}"
        root = getattr(self.dataset, "root", None)
        path = Path(files[index])
        return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name

    def source(self, index: int) -> str:
        """Give the picture as the model sees it, as a data URI."""
        if index not in self._made:
            pixels = self.preset.undo(self.dataset[index][0])
            image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            image.thumbnail((_SIDE, _SIDE))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=85)
            self._made[index] = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        return self._made[index]


def worst(task: Task, logits: Tensor, target: Any) -> list[int]:
    """Give the wrong answers, those first that are surest, or of numbers the farthest off."""
    read, wanted = task.metric_inputs(logits, target)
    match task:
        case Multiclass():
            counted = wanted != (-1 if task.ignore_index is None else task.ignore_index)
            wrong = (task.decide(logits) != wanted) & counted
            badness = task.activate(logits).amax(1)
        case Binary():
            wrong = task.decide(logits) != wanted
            badness = (read - wanted).abs()
        case Multilabel():
            off = task.decide(logits) != wanted
            wrong, badness = off.any(1), ((read - wanted).abs() * off).amax(1)
        case Regression():
            errors = (read - wanted).reshape(len(logits), -1) / task.std
            wrong, badness = torch.ones(len(logits), dtype=torch.bool), errors.abs().amax(1)
        case _:
            return []
    order = torch.where(wrong, badness, -1).argsort(descending=True, stable=True)
    return [index for index in order[:NUMBER].tolist() if wrong[index]]


def least_certain(task: Task, logits: Tensor) -> list[int]:
    """Give the answers of the lowest probability or, where a threshold decides, the nearest to it; no sure ones."""
    match task:
        case Multiclass():
            margin = task.activate(logits).amax(1) - 0.5
        case Binary() | Multilabel():
            margin = (task.activate(logits) - task.threshold).abs().amin(1)
        case _:
            return []
    return [int(index) for index in margin.argsort(stable=True)[:NUMBER] if margin[index] < _SURE - 0.5]


def gallery(task: Task, logits: Tensor, target: Any, samples: Samples, indices: Sequence[int]) -> Html:
    """Show pictures with their answer, the truth, and the file."""
    names = [samples.name(index) for index in indices]
    given = answers(task, logits[list(indices)], names)
    items = []
    for index, name, answer in zip(indices, names, given, strict=True):
        said, truth = describe_answer(answer), describe_truth(task, target[index])
        caption = element(
            "figcaption",
            element("strong", said),
            element("br"),
            f"truth: {truth}",
            element("br"),
            element("code", name),
        )
        image = element(
            "img", src=samples.source(index), alt=f"{name}: answered {said}, truth {truth}", loading="lazy"
        )
        items.append(element("li", element("figure", image, caption)))
    return element("ul", *items, class_="pictures", role="list")


def describe_answer(answer: Prediction) -> str:
    """Put an answer into a few words."""
    if answer.values is not None:
        return _numbers(answer.values, answer.names)
    if isinstance(answer.label, tuple):
        chances = answer.probabilities or {}
        return ", ".join(f"{name} {chances[name]:.0%}" for name in answer.label) or "no label"
    return f"{answer.label} {answer.probability:.0%}"


def describe_truth(task: Task, target: Tensor) -> str:
    """Put a target into the words of an answer."""
    match task:
        case Multiclass():
            index = int(target.argmax() if target.ndim else target)
            return "no class" if index == task.ignore_index else task.classes[index]
        case Binary():
            return task.classes[int(target >= 0.5)]
        case Multilabel():
            chosen = [name for name, yes in zip(task.classes, target.tolist(), strict=True) if yes >= 0.5]
            return ", ".join(chosen) or "no label"
        case Regression():
            return _numbers(target.tolist(), task.names)
    return str(target.tolist())


def _numbers(values: Sequence[float], names: Sequence[str] | None) -> str:
    named = names or ("",) * len(values)
    return ", ".join(f"{name} {rounded(value)}".lstrip() for name, value in zip(named, values, strict=True))
