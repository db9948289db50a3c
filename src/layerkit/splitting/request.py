"""What was asked of a split, checked before anything is read or written."""

import difflib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from layerkit.splitting.labels import Rule, describe_rule, group_reader, label_reader
from layerkit.splitting.quotas import check_amount

Duplicates = Literal["together", "ignore", "near", "strict"]


@dataclass(frozen=True)
class Request:
    """The options of `plan_split`, each checked.

    Parameters
    ----------
    valid, test, label, group, stratify, duplicates, seed
        As in `plan_split`.
    """

    valid: float = 0.2
    test: float = 0
    label: Rule = "folder"
    group: Rule | None = None
    stratify: bool = True
    duplicates: Duplicates = "together"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "valid", check_amount("valid", self.valid))
        object.__setattr__(self, "test", check_amount("test", self.test))
        object.__setattr__(self, "seed", check_whole("seed", self.seed))
        if not isinstance(self.stratify, bool):
            raise TypeError(f"`stratify` is {self.stratify!r}; expected True or False")
        check_choice("duplicates", self.duplicates, get_args(Duplicates))
        label_reader(self.label)
        if self.group is not None:
            group_reader(self.group)

    @property
    def asked(self) -> dict[str, float]:
        """The held-out parts that were asked for, each with its fraction or count."""
        amounts = {"valid": self.valid, "test": self.test}
        return {part: amount for part, amount in amounts.items() if amount != 0}

    def describe(self) -> dict[str, Any]:
        """Return the request in JSON's terms."""
        return {**vars(self), "label": describe_rule(self.label), "group": describe_rule(self.group)}


def check_whole(name: str, value: int) -> int:
    """Return a whole number, or raise.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : int
        Its value; bool is refused.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If it is none.
    """
    try:
        if isinstance(value, bool):
            raise TypeError("bool")
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"`{name}` is {value!r}; expected a whole number") from error


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless a value is among the choices.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        Its value.
    choices : sequence of str
        What it may be.

    Raises
    ------
    ValueError
        If it is another.
    """
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` is {value!r}; expected one of {', '.join(map(repr, choices))}{hint}")
