"""Which of several processes this one is, under ``torchrun``."""

import os


def rank() -> int:
    """Give this process's number, 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def is_writer() -> bool:
    """Tell whether this process writes files and shows progress: only the first does."""
    return rank() == 0
