"""The few errors and the one warning that a caller would name."""

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches

_NOT_THE_USER = ("layerkit.", "torch.", "contextlib.")


class LayerkitError(Exception):
    """The base of every error that layerkit defines; each also derives from the builtin that fits it."""


class PictureError(LayerkitError, OSError):
    """A picture cannot be read: it is missing, cut short, or no picture at all."""


class SplitError(LayerkitError, ValueError):
    """A folder cannot be split as asked, or the destination holds another split."""


class HeadError(LayerkitError, LookupError):
    """No head was found in a model, or the one that was found cannot be replaced as asked."""


class TargetError(LayerkitError, ValueError):
    """Targets do not fit the task: their number, their range or their kind."""


class CheckpointError(LayerkitError, RuntimeError):
    """A checkpoint is damaged, or belongs to another run."""


class PredictorFileError(LayerkitError, ValueError):
    """A saved predictor cannot be loaded: it is damaged, foreign, or from a newer version."""


class ExportError(LayerkitError, RuntimeError):
    """A model cannot be exported, or the exported program answers otherwise than the model."""


class NonFiniteError(LayerkitError, RuntimeError):
    """A loss or gradient is NaN or infinite."""


class LayerkitWarning(UserWarning):
    """Something needs the caller's attention; the message says what, and what to do."""


def shown(value: object) -> str:
    """Write a value that was passed by mistake: a module, whose repr fills screens, by its class alone."""
    if hasattr(value, "named_modules") and not isinstance(value, type):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def warn(message: str) -> None:
    """Give a `LayerkitWarning` at the user's line: the nearest one that is neither layerkit's nor torch's own."""
    frame, level = sys._getframe(1), 2
    while f"{frame.f_globals.get('__name__')}.".startswith(_NOT_THE_USER) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, LayerkitWarning, stacklevel=level)


def suggestion(given: str, known: Iterable[str]) -> str:
    """Give " Did you mean ...?" where one of the known words is close, else nothing."""
    close = get_close_matches(given, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def rounded(value: float, digits: int = 4) -> str:
    """Write a number for people: with an exponent only where it is very large or very small."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e6 else text


def count_of(number: int, noun: str) -> str:
    """Give a number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
