"""One process writes, and all go on when it has."""

import os
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from torch import distributed
from torch.distributed.rendezvous import rendezvous

from layerkit.distributed import is_writer

_WAIT = timedelta(minutes=30)
_writes: Counter[str] = Counter()


def write_once(path: str | Path, write: Callable[[], None]) -> None:
    """Let the first process write a file; under ``torchrun`` the others wait until it has.

    Raises
    ------
    RuntimeError
        On the others, if the first could not write.
    TimeoutError
        On the others, if it has not come that far after half an hour.

    Notes
    -----
    The processes meet at the key-value store that ``torchrun`` itself keeps, since there may be no process
    group, and the file alone does not tell whether it is from this run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        write()
        return
    _writes[str(path)] += 1
    key = f"layerkit/{path}/{_writes[str(path)]}"
    if is_writer():
        _write_and_tell(key, write)
    else:
        _wait(key, path)


def _write_and_tell(key: str, write: Callable[[], None]) -> None:
    try:
        write()
    except BaseException as error:
        _store().set(key, str(error) or type(error).__name__)
        raise
    _store().set(key, "")


def _wait(key: str, path: str | Path) -> None:
    try:
        problem = _store().get(key).decode()
    except distributed.DistError as error:
        raise TimeoutError(
            f"Rank 0 has not written {path} within {_WAIT} ({error}); expected every process to make the "
            "same calls. Call this on all ranks, or on rank 0 alone."
        ) from error
    if problem:
        raise RuntimeError(f"Rank 0 could not write {path}: {problem}")


@cache
def _store() -> Any:
    return next(iter(rendezvous("env://", timeout=_WAIT)))[0]
