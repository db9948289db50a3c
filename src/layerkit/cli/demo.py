"""``layerkit demo``."""

import argparse
from typing import Any


def add_demo(commands: Any) -> None:
    """Add the command to the parser's."""
    demo = commands.add_parser(
        "demo",
        help="train, save and show a model on pictures that the package carries",
        description="Do the whole job on 386 pictures that the package carries: split them, train, save, "
        "draw the answers and write a report. Nothing comes from the network; two cores take about a minute.",
        epilog="example: layerkit demo my-demo",
    )
    demo.add_argument("folder", nargs="?", default="layerkit-demo", help="where the results go (%(default)s)")
    demo.set_defaults(run=_demo)


def _demo(given: argparse.Namespace) -> int:
    from layerkit.demo import run_demo

    run_demo(given.folder)
    return 0
