"""``layerkit check``."""

import argparse
from typing import Any, get_args

from layerkit.checking import check_folder
from layerkit.checking.folders import Compared


def add_check(commands: Any) -> None:
    """Add the command to the parser's."""
    check = commands.add_parser(
        "check",
        help="find what is wrong with a folder of pictures",
        description="Find broken pictures, pictures on two sides or under two labels, missing classes and more, "
        "before a folder is trained on. Nothing is changed. The status is 1 if an error is found, 0 if "
        "there are at most warnings and notes, and 2 if the folder could not be checked.",
        epilog="example: layerkit check pets --csv findings.csv",
    )
    check.add_argument(
        "root", help="a folder with parts such as train and valid, of class folders, or of pictures"
    )
    check.add_argument(
        "--duplicates",
        choices=get_args(Compared),
        default="together",
        help="together: find equal bytes; near: also pictures on two sides that look the same; ignore: compare "
        "nothing (%(default)s)",
    )
    check.add_argument(
        "--min-size",
        type=int,
        default=16,
        metavar="PIXELS",
        help="the shorter side below which a picture counts as tiny (%(default)s)",
    )
    check.add_argument(
        "--num-workers",
        type=_workers,
        default="auto",
        metavar="N",
        help="threads that decode (auto: one a processor)",
    )
    check.add_argument("--csv", metavar="FILE", help="write everything that was found to a table")
    check.set_defaults(run=_check, failure=2)  # 1 says that something was found, as with grep and diff


def _workers(text: str) -> str | int:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number; expected auto, or a count such as 2")
    return text if text == "auto" else int(text)


def _check(given: argparse.Namespace) -> int:
    report = check_folder(
        given.root, duplicates=given.duplicates, min_size=given.min_size, num_workers=given.num_workers
    )
    print(report)
    if given.csv:
        report.to_csv(given.csv)
    return 0 if report.ok else 1
