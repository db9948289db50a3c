"""From logits to what people read: one Prediction a picture."""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerkit.errors import rounded
from layerkit.predicting.ranks import write_once
from layerkit.saving import atomic_path
from layerkit.splitting import is_picture
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task


@dataclass(frozen=True, repr=False)
class Prediction:
    """The answer for one picture; what does not apply to the task is ``None``.

    Attributes
    ----------
    path : str or None
        The file, where the picture was one.
    label : str, tuple of str, or None
        The class that was decided for; for a `Multilabel` all that apply, perhaps none.
    probability : float or None
        The probability of the one label.
    probabilities : dict of str to float, or None
        The probability of every class, in the order of the classes.
    values : tuple of float, or None
        What a `Regression` answers, in the user's units.
    parts : dict of str to Prediction, or None
        The answers of a task of several parts, by their names.
    names : tuple of str, or None
        What the `values` are called, where the task was given names.
    """

    path: str | None = None
    label: str | tuple[str, ...] | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    values: tuple[float, ...] | None = None
    parts: "dict[str, Prediction] | None" = None
    names: tuple[str, ...] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        where = "" if self.path is None else f"{self.path!r}: "
        return f"Prediction({where}{self.text})"

    @property
    def text(self) -> str:
        """The answer in words, such as ``"cat 0.981"``."""
        if self.parts is not None:
            parts = self.parts.items()
            return "; ".join(
                part.text if part.names == (name,) else f"{name} {part.text}" for name, part in parts
            )
        if self.values is not None:
            names = self.names or ("",) * len(self.values)
            pairs = zip(names, self.values, strict=True)
            return ", ".join(f"{name} {rounded(value)}".lstrip() for name, value in pairs)
        if isinstance(self.label, tuple):
            shown = [f"{name} {(self.probabilities or {})[name]:.3f}" for name in self.label]
            return ", ".join(shown) or "no label"
        return f"{self.label} {self.probability:.3f}"

    def row(self) -> dict[str, Any]:
        """Flatten the answer to one row of a table.

        Returns
        -------
        dict
            ``path``, then ``label`` (several joined with ``|``), ``probability`` and one
            ``probability_<class>`` each; or ``value`` (several: their names, or ``value_0``, ``value_1``
            and so on); or the columns of each part, with its name before them, but of one value of that name.
        """
        columns = [("path", self.path), *self._columns()]
        row = dict(columns)
        if len(row) < len(columns):
            names = [name for name, _ in columns]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"Two columns of the table would be called {twice!r}; expected a name for each. Give the task's "
                "parts and values other names."
            )
        return row

    def _columns(self) -> list[tuple[str, Any]]:
        if self.parts is not None:
            parts = self.parts.items()
            return [
                (key if part.names == (name,) else f"{name}_{key}", value)
                for name, part in parts
                for key, value in part._columns()
            ]
        if self.values is not None:
            single = len(self.values) == 1
            names = self.names or (["value"] if single else [f"value_{i}" for i in range(len(self.values))])
            return list(zip(names, self.values, strict=True))
        each = [(f"probability_{name}", value) for name, value in (self.probabilities or {}).items()]
        if isinstance(self.label, tuple):
            return [("label", "|".join(self.label)), *each]
        return [("label", self.label), ("probability", self.probability), *each]


class Predictions(list[Prediction]):
    """A list of answers that also is a table: ``pandas.DataFrame(predictions.rows())``, or `to_csv`."""

    def rows(self) -> list[dict[str, Any]]:
        """Flatten every answer to one row, as `Prediction.row` does."""
        return [prediction.row() for prediction in self]

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV, with a header; under ``torchrun`` the first process does for all."""
        refuse_picture(path)
        rows = self.rows()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["path"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)
        write_once(path, partial(_write_text, path, text.getvalue()))


def _short(value: Any) -> Any:
    """Write a float32 with its own digits, without those that only float64 gives it."""
    return str(np.float32(value)) if isinstance(value, float) else value


def refuse_picture(path: str | Path) -> None:
    """Refuse to write a table over a picture: ``--csv *.jpg`` is soon typed."""
    if is_picture(os.fspath(path)):
        raise ValueError(
            f"The table is to be written to {os.fspath(path)!r}, which is a picture by its name; expected a name such "
            "as 'answers.csv'. Choose another."
        )


def as_rows(logits: Tensor, count: int, task: Task) -> Tensor:
    """Take a model's logits as (N, out_features), float32, or say that they do not fit the task."""
    if logits.ndim == 1:  # a model that squeezes its one output
        logits = logits.unsqueeze(1)
    if logits.ndim != 2 or logits.shape[1] != task.out_features:
        raise ValueError(
            f"The model's output has the shape {tuple(logits.shape)}; expected ({count}, {task.out_features}) for "
            f"{task}. Give it the right head: replace_head(model, task)."
        )
    return logits.float()


@torch.inference_mode()
def answers(task: Task, logits: Tensor, paths: Iterable[str | None]) -> list[Prediction]:
    """Turn a batch's logits (N, out_features) into predictions, in the order of the paths."""
    made = _answers(task, task.activate(logits), task.decide(logits))
    return [replace(answer, path=path) for answer, path in zip(made, paths, strict=True)]


def _answers(task: Task, read: Any, decided: Any) -> list[Prediction]:
    """Put what a task reads from the logits, and what it decides, into words."""
    match task:
        case Multiclass():
            pairs = zip(read.tolist(), decided.tolist(), strict=True)
            return [_one_of(task.classes, row, index) for row, index in pairs]
        case Binary():
            pairs = zip(read.flatten().tolist(), decided.tolist(), strict=True)
            return [_one_of(task.classes, [1 - positive, positive], index) for positive, index in pairs]
        case Multilabel():
            pairs = zip(read.tolist(), decided.tolist(), strict=True)
            return [_some_of(task.classes, row, applies) for row, applies in pairs]
        case Regression():
            names = None if task.names is None else tuple(task.names)
            return [Prediction(values=tuple(row), names=names) for row in read.tolist()]
        case MultiTask():
            columns = [_answers(part, read[name], decided[name]) for name, part in _parts(task)]
            rows = zip(*columns, strict=True)
            return [Prediction(parts=dict(zip(task.parts, row, strict=True))) for row in rows]
    # A task of the user's own: what it reads is all that is known of it.
    return [Prediction(values=tuple(row)) for row in read.flatten(1).tolist()]


def _one_of(classes: list[str], row: list[float], index: int) -> Prediction:
    return Prediction(
        label=classes[index], probability=row[index], probabilities=dict(zip(classes, row, strict=True))
    )


def _some_of(labels: list[str], row: list[float], applies: list[int]) -> Prediction:
    chosen = tuple(label for label, yes in zip(labels, applies, strict=True) if yes)
    return Prediction(label=chosen, probabilities=dict(zip(labels, row, strict=True)))


def _write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        # A file's name may be bytes that are no UTF-8; they are written as they are.
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def _parts(task: MultiTask) -> list[tuple[str, Task]]:
    return list(task.parts.items())  # type: ignore[arg-type]
