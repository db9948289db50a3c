"""Options that several commands have."""

from typing import Any, get_args

from layerkit.loading.datasets import OnError


def add_errors(parser: Any, what_skip_does: str) -> None:
    """Add what is done with a picture that cannot be read."""
    parser.add_argument(
        "--errors", choices=get_args(OnError), default="raise", help=f"skip: {what_skip_does} (%(default)s)"
    )
