"""Bring one picture to its place, so that a killed process leaves nothing half-written."""

# Strings, not Path, where a line runs once for each of perhaps a million files.
# ruff: noqa: PTH105, PTH104, PTH108, PTH116, PTH120, PTH211

import contextlib
import errno
import filecmp
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from layerkit.errors import SplitError
from layerkit.splitting.table import Mode

Place = Callable[[str, str, str], None]


def placer(mode: Mode) -> Place:
    """Return the function that brings a file to its place.

    Parameters
    ----------
    mode : {"copy", "hardlink", "symlink", "move"}
        How it gets there.

    Returns
    -------
    callable
        Takes the file, its place, and a free name on the same file system as its place.
    """
    return {"copy": _copy, "hardlink": _hardlink, "symlink": _symlink, "move": _move}[mode]


def is_left_over(source: str, place: str) -> bool:
    """Tell whether a picture is the original of a copy that a killed move has finished.

    Parameters
    ----------
    source, place : str
        Two paths that both lead to a file.

    Returns
    -------
    bool
        False if both lead to the very same file, as where the source has become a link to its new place.

    Raises
    ------
    SplitError
        If they hold different pictures.
    """
    if os.path.realpath(source) == os.path.realpath(place):
        return False
    status = os.stat(source)
    if os.path.samestat(status, os.stat(place)):
        return status.st_nlink > 1
    if not filecmp.cmp(source, place, shallow=False):
        raise SplitError(
            f"{source!r} cannot be moved to {place!r}, where another picture of that name was moved before; "
            "expected new pictures under new names: rename it and call again"
        )
    return True


def _copy(source: str, place: str, temporary: str) -> None:
    _copy_bytes(source, temporary)
    os.replace(temporary, place)


def _hardlink(source: str, place: str, temporary: str) -> None:
    os.link(source, place)


def _symlink(source: str, place: str, temporary: str) -> None:
    os.symlink(source, place)


def _move(source: str, place: str, temporary: str) -> None:
    try:
        os.rename(source, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_bytes(source, temporary)
        shutil.copystat(source, temporary)
        _sync(temporary)
        os.replace(temporary, place)
        _sync(os.path.dirname(place))
        os.unlink(source)


def _copy_bytes(source: str, temporary: str) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(_NotHere):
            _send(source, temporary)
            return
    shutil.copyfile(source, temporary)


class _NotHere(Exception):
    """The kernel cannot copy between these two file systems by itself."""


def _send(source: str, temporary: str) -> None:
    """Let the kernel copy: `shutil.copyfile` does so too, but asks for each file's kind: twice the time."""
    descriptor = os.open(source, os.O_RDONLY)
    try:
        copy = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            while os.sendfile(copy, descriptor, None, 1 << 30):
                pass
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise _NotHere from error
            raise
        finally:
            os.close(copy)
    finally:
        os.close(descriptor)


def _sync(path: str) -> None:
    if os.name == "nt" and Path(path).is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
