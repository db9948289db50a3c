"""A thin door onto the functions, for the command line."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from layerkit._version import __version__
from layerkit.errors import LayerkitError, LayerkitWarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give 0 where it went well, 1 where it did not, and 130 after Ctrl-C."""
    given = _parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        given.run(given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (LayerkitError, ValueError, TypeError, OSError) as error:
        print(f"layerkit {given.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="layerkit", description="From a folder of pictures to a trained, saved, explained model."
    )
    parser.add_argument("--version", action="version", version=f"layerkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train, save and show a model on pictures that the package carries",
        description="Do the whole job on 386 pictures that the package carries: split them, train, save, and "
        "draw the answers. Nothing comes from the network; two cores take about a minute.",
        epilog="example: layerkit demo my-demo",
    )
    demo.add_argument("folder", nargs="?", default="layerkit-demo", help="where the results go (%(default)s)")
    demo.set_defaults(run=_demo)
    return parser


def _demo(given: argparse.Namespace) -> None:
    from layerkit.demo import run_demo

    run_demo(given.folder)


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
