"""How a file's name tells its label and its group."""

import difflib
import os
import re
from collections.abc import Callable
from typing import Any

Rule = str | re.Pattern[str] | Callable[[str], str | None]


def label_reader(label: Rule) -> Callable[[str], str | None]:
    """Build the function that reads a label from a relative path.

    Parameters
    ----------
    label : str, re.Pattern or callable
        ``"folder"`` for the first folder, a regular expression with one group that is searched in the
        file's name, or a function of the relative path.

    Returns
    -------
    callable
        Takes the relative path, gives the label, or None where there is none.

    Raises
    ------
    ValueError
        If the expression is none, or has not exactly one group.
    TypeError
        If `label` is of another type.
    """
    if label == "folder":
        return _first_folder
    if isinstance(label, str | re.Pattern):
        pattern = _compile("label", label)
        if pattern.groups != 1:
            raise ValueError(_wrong_groups(pattern))
        return lambda path: _captured(pattern.search(path.rpartition("/")[2]))
    if callable(label):
        return _checked("label", label)
    raise TypeError(f'`label` is {label!r}; expected "folder", a regular expression or a function')


def group_reader(group: Rule) -> Callable[[str], str | None]:
    """Build the function that reads a group from a relative path.

    Parameters
    ----------
    group : str, re.Pattern or callable
        A regular expression searched in the relative path, whose one group (or, without a group, whose
        whole match) is the name, or a function of that path.

    Returns
    -------
    callable
        Takes the relative path, gives the group, or None where there is none.

    Raises
    ------
    ValueError
        If the expression is none, or has more than one group.
    TypeError
        If `group` is of another type.
    """
    if isinstance(group, str | re.Pattern):
        pattern = _compile("group", group)
        if pattern.groups > 1:
            raise ValueError(
                f"`group` is {pattern.pattern!r}, which has {pattern.groups} groups; expected at most one: "
                'write the others as "(?:...)"'
            )
        return lambda path: _captured(pattern.search(path))
    if callable(group):
        return _checked("group", group)
    raise TypeError(f"`group` is {group!r}; expected a regular expression, a function or None")


def describe_rule(rule: Rule | None) -> Any:
    """Describe a rule in JSON's terms, so that a later call can be compared with it.

    Parameters
    ----------
    rule : str, re.Pattern, callable or None
        A label's or a group's rule.

    Returns
    -------
    str, dict or None
        Functions are all described alike: whether two of them agree is seen from what they answer.
    """
    if isinstance(rule, re.Pattern):
        plain = re.compile(rule.pattern)
        return rule.pattern if rule.flags == plain.flags else {"pattern": rule.pattern, "flags": rule.flags}
    return "a function" if callable(rule) else rule


def _first_folder(path: str) -> str | None:
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def _captured(match: re.Match[str] | None) -> str | None:
    return (match[match.re.groups] or None) if match else None


def _compile(name: str, rule: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(rule)
    except re.error as error:
        raise ValueError(
            f"`{name}` is {rule!r}, which is no regular expression ({error}); expected one such as "
            r'r"(cat|dog)\.\d+\.jpg"'
        ) from error


def _wrong_groups(pattern: re.Pattern[str]) -> str:
    near = difflib.get_close_matches(pattern.pattern, ["folder"])
    remedy = 'did you mean "folder"?' if near else r'put the label in brackets, as in r"(cat|dog)\.\d+\.jpg"'
    return (
        f'`label` is {pattern.pattern!r}; expected "folder" or a regular expression with one group: {remedy}'
    )


def _checked(name: str, function: Callable[[str], Any]) -> Callable[[str], str | None]:
    def read(path: str) -> str | None:
        value = function(path)
        if value is not None and not isinstance(value, str):
            raise TypeError(
                f"the function given as `{name}` answered {value!r} for {os.fspath(path)!r}; "
                "expected a string, or None for a file that has none"
            )
        return value or None

    return read
