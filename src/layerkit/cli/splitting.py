"""``layerkit split``."""

import argparse
import sys
import warnings
from typing import Any, get_args

from layerkit.errors import LayerkitWarning
from layerkit.splitting import split_folder
from layerkit.splitting.folders import preview_split
from layerkit.splitting.request import Duplicates
from layerkit.splitting.table import Mode

_DESCRIPTION = """Write DEST/{train,valid,test}/<class>/... from the pictures of SOURCE.

The same command finishes one that was interrupted, changes nothing when all is
done, and places what has been added to SOURCE since.
"""
_EXAMPLES = r"""examples:
  layerkit split PetImages pets --valid 0.2 --test 500
  layerkit split train pets --label '(cat|dog)\.\d+\.jpg' --mode hardlink
"""


def add_split(commands: Any) -> None:
    """Add the command to the parser's."""
    split = commands.add_parser(
        "split",
        help="split a folder of pictures into training, validation and test folders",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    split.add_argument("source", help="the folder of pictures; it stays as it is, but for --mode move")
    split.add_argument("dest", help="the folder to write to, outside the source")
    for part, default in (("valid", 0.2), ("test", 0)):
        split.add_argument(
            f"--{part}",
            type=_amount,
            default=default,
            metavar="AMOUNT",
            help=f"a fraction such as 0.2, or a count such as 2000, for {part} (%(default)s)",
        )
    split.add_argument(
        "--label",
        default="folder",
        metavar="folder|REGEX",
        help="the first folder below SOURCE, or what a regular expression with one group finds in the file's "
        "name (%(default)s)",
    )
    split.add_argument(
        "--group",
        metavar="REGEX",
        help="what must stay on one side: a regular expression searched in the path below SOURCE",
    )
    split.add_argument(
        "--no-stratify",
        dest="stratify",
        action="store_false",
        help="do not keep the classes' shares in each part, as for regression",
    )
    split.add_argument(
        "--duplicates",
        choices=get_args(Duplicates),
        default="together",
        help="together: equal bytes stay on one side; near: also pictures that look the same; strict: refuse equal "
        "bytes under two labels; ignore: read no contents (%(default)s)",
    )
    split.add_argument("--seed", type=int, default=0, help="another seed, another split (%(default)s)")
    split.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="copy",
        help="how pictures get there; hard links take no room (%(default)s)",
    )
    split.add_argument("--dry-run", action="store_true", help="show the split, and write nothing")
    split.set_defaults(run=_split)


def _amount(text: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number; expected a fraction such as 0.2, or a count such as 2000"
        ) from None


def _split(given: argparse.Namespace) -> int:
    names = ("valid", "test", "label", "group", "stratify", "duplicates", "seed", "mode")
    options = {name: getattr(given, name) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)  # the table that is printed tells the same
        if given.dry_run:
            print(preview_split(given.source, given.dest, **options))
            print(f"dry run: nothing was written to {given.dest}", file=sys.stderr)
        else:
            print(split_folder(given.source, given.dest, **options))
            print(f"written to {given.dest}", file=sys.stderr)
    return 0
