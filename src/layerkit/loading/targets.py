"""Columns of a table become targets: class indices, numbers, or several labels a picture."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from layerkit.errors import warn
from layerkit.loading.columns import Table, column
from layerkit.loading.datasets import Targets

SEPARATORS = ("|", ";", ",")
_NO_VALUE = frozenset(
    ("n/a", "na", "n.a.", "#n/a", "none", "null", "nil", "missing", "unknown", "-", "--", "?", ".")
)
Columns = str | Sequence[str]


class ReadTargets(NamedTuple):
    """The targets of a table, one a row."""

    targets: Targets
    classes: Any
    strata: list[str] | None  # what each part should hold in equal shares; None where that cannot be said
    numeric: bool  # whether some are numbers that moving a picture could falsify


def read_targets(table: Table, target: Columns | Mapping[str, Columns], sep: str | None) -> ReadTargets:
    """Read the target columns of a table.

    Parameters
    ----------
    table : mapping of str to list
        From `read_table`.
    target : str, list of str, or dict of these
        The column or columns; a dict names several targets.
    sep : str or None
        What separates several labels within a column of text.

    Returns
    -------
    ReadTargets
    """
    if sep is not None:
        _check_sep(table, target, sep)
    if not isinstance(target, Mapping):
        return _read_one(table, target, sep)
    parts = {name: _read_one(table, columns, sep) for name, columns in target.items()}
    if not parts:
        raise ValueError(
            "`target` is an empty dict; expected a name and a column for each target. Fill it in."
        )
    return ReadTargets(
        {name: part.targets for name, part in parts.items()},  # type: ignore[misc]
        {name: part.classes for name, part in parts.items()},
        None,
        any(part.numeric for part in parts.values()),
    )


def select(targets: Targets, rows: Sequence[int]) -> Targets:
    """Take the targets of some rows.

    Parameters
    ----------
    targets : list of int, Tensor, or dict of these
        One a row.
    rows : sequence of int
        Which.

    Returns
    -------
    list of int, Tensor, or dict of these
    """
    if isinstance(targets, Mapping):
        return {name: select(part, rows) for name, part in targets.items()}  # type: ignore[misc]
    return targets[rows] if isinstance(targets, Tensor) else [targets[row] for row in rows]


def _read_one(table: Table, columns: Columns, sep: str | None) -> ReadTargets:
    if not isinstance(columns, str):
        return _several_columns(table, list(columns))
    values = column(table, columns, may_be_empty=sep is not None)
    if sep is None:
        _check_for_gaps(values, columns)
        _check_for_commas(values, columns)
    if not any(isinstance(value, str) for value in values):
        return _numbers(column(table, columns), columns)
    return _classes(values, columns) if sep is None else _several_labels(values, sep)


def _check_sep(table: Table, target: Columns | Mapping[str, Columns], sep: str) -> None:
    """Warn of a sign that separates nothing."""
    columns = target.values() if isinstance(target, Mapping) else [target]
    texts = [value for name in columns if isinstance(name, str) for value in table.get(name, ()) if value]
    if texts and not any(sep in str(value) for value in texts):
        warn(
            f"`sep` is {sep!r}, which no target holds, such as {str(texts[0])!r}; expected what separates the labels "
            "of a picture. If each has one label at most, nothing is wrong."
        )


def _check_for_sep(classes: list[str], name: str) -> None:
    """Warn of classes that are combinations of fewer labels."""
    for sep in SEPARATORS:
        several = {part.strip() for label in classes for part in label.split(sep)}
        if len(several) < len({label.strip() for label in classes}):
            warn(
                f"The column {name!r} holds {len(classes)} classes, such as {max(classes, key=len)!r}, which {sep!r} "
                f"would part into {len(several)} labels. If several may apply to one picture, pass sep={sep!r} and "
                "train with Multilabel."
            )
            return


def _check_for_gaps(values: list[Any], name: str) -> None:
    """Refuse numbers among which a word stands for none: one ``n/a`` would make classes of them all."""
    words = {
        row: value for row, value in enumerate(values) if isinstance(value, str) and not _is_number(value)
    }
    numbers = sum(not isinstance(v, bool) for v in values if v is not None) - len(words)
    if words and numbers and all(value.strip().lower() in _NO_VALUE for value in words.values()):
        row, word = next(iter(words.items()))
        raise ValueError(
            f"The column {name!r} holds numbers, and {word!r} in {len(words)} of {len(values)} rows, row {row + 1} "
            "first (not counting the header); expected a number in each. Fill them in, or leave the rows out; if all "
            "are names of classes, give that one a word of its own, such as 'unknown class'."
        )


def _check_for_commas(values: list[Any], name: str) -> None:
    """Refuse numbers with decimal commas, each of which would be a class of its own."""
    texts = [value for value in values if isinstance(value, str)]
    odd = next((text for text in texts if "," in text), None)
    if odd is not None and all(_is_number(text.replace(",", ".", 1)) for text in texts):
        raise ValueError(
            f"The column {name!r} holds {odd!r}, a number with a decimal comma; "
            "expected decimal points. Pass pandas.read_csv(file, decimal=',') instead of the file, or thousands=',' "
            "where that is what it means; if these are several labels of a picture, pass sep=','."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(values: list[Any], name: str) -> ReadTargets:
    labels = [str(value) for value in values]
    classes = sorted(set(labels))
    _check_for_sep(classes, name)
    index = {label: place for place, label in enumerate(classes)}
    return ReadTargets([index[label] for label in labels], classes, labels, False)


def _several_labels(values: list[Any], sep: str) -> ReadTargets:
    """Read one 0/1 column a label; a picture to which none applies has an empty value."""
    sets = [{label.strip() for label in str(value or "").split(sep) if label.strip()} for value in values]
    classes = sorted(set().union(*sets))
    targets = torch.tensor([[float(label in labels) for label in classes] for labels in sets])
    return ReadTargets(targets, classes, None, False)


def _numbers(values: list[Any], name: str) -> ReadTargets:
    """Whole numbers stay so, since a task may take them for class indices; 0 and 1 alone are a yes or no."""
    numbers = _finite(values, name)
    binary = set(numbers) <= {0.0, 1.0}
    whole = all(isinstance(value, int) for value in values)
    targets = torch.tensor([int(n) for n in numbers]) if whole else torch.tensor(numbers, dtype=torch.float32)
    return ReadTargets(targets, None, [f"{name} {n:g}" for n in numbers] if binary else None, not binary)


def _several_columns(table: Table, names: list[str]) -> ReadTargets:
    if not names:
        raise ValueError("`target` is an empty list; expected the names of one or more columns. Fill it in.")
    columns = [_finite(column(table, name), name) for name in names]
    targets = torch.tensor(columns, dtype=torch.float32).T.contiguous()
    labels = bool(((targets == 0) | (targets == 1)).all())
    return ReadTargets(targets, names if labels else None, None, not labels)


def _finite(values: list[Any], name: str) -> list[float]:
    for row, value in enumerate(values):
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(
                f"The column {name!r} holds {value!r} in row {row + 1}; expected a finite number in each. "
                "Correct it; for classes, name one column of text alone."
            )
    return [float(value) for value in values]
