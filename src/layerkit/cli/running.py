"""What all commands have in common: the parser, warnings, errors, and the status at the end."""

import argparse
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from layerkit._version import __version__
from layerkit.cli.answering import add_evaluate, add_export, add_predict, add_report
from layerkit.cli.checking import add_check
from layerkit.cli.demo import add_demo
from layerkit.cli.splitting import add_split
from layerkit.cli.training import add_train
from layerkit.errors import LayerkitError, LayerkitWarning

# Each adds one command: its arguments, and the function that takes them and gives the status.
COMMANDS = (
    add_demo, add_split, add_check, add_train, add_evaluate, add_predict, add_report, add_export
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give 0 where it went well, 1 (of `check` 2) where it did not, and 130 after Ctrl-C."""
    given = make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be what no terminal can write
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status: int = given.run(given)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # whoever reads has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (LayerkitError, ImportError, ValueError, TypeError, OSError, RuntimeError) as error:
            print(f"layerkit {given.command}: {_with_flags(str(error), given)}", file=sys.stderr)
            return getattr(given, "failure", 1)
    return status


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="layerkit", description="From a folder of pictures to a trained, saved, explained model."
    )
    parser.add_argument("--version", action="version", version=f"layerkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser


def _with_flags(message: str, given: argparse.Namespace) -> str:
    """Name the arguments of a function's message as the command has them: ``mode="copy"`` is ``--mode copy``."""

    def flag(found: re.Match[str]) -> str:
        before, name, value = found[1], found[2], found[4] or found[5]
        if name not in given or name in ("run", "command", "failure"):
            return found[0]
        dashed = name.replace("_", "-")
        return f"{before} --no-{dashed}" if value == "False" else f"{before} --{dashed} {value}"

    # A remedy alone: elsewhere it may be part of a path, or of a line of Python.
    pattern = r"\b([Pp]ass|[Ww]ith|or) ([a-z_]+)=(?:(['\"])([\w.-]+)\3|(\d+(?:\.\d+)?|False))(?![\w/(])"
    message = re.sub(pattern, flag, message)
    if "label" not in given:
        return message
    return re.sub(r"\blabel=r(['\"])(.+?)\1", lambda found: f"--label {shlex.quote(found[2])}", message)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show layerkit's own warnings as what they are: words to a person, not a line of code."""
    if issubclass(category, LayerkitWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno), end="", file=sys.stderr)
