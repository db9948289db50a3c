"""One process at a time in a destination."""

import contextlib
import errno
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_NAME = ".layerkit-split.lock"
_PATIENCE_SECONDS = 1.0
_ATTEMPTS = 20

if sys.platform == "win32":
    import msvcrt

    def _try_to_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_to_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def folder_lock(folder: Path, *, keep: Path, announce: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, making the folder if it is missing.

    Parameters
    ----------
    folder : Path
        The folder; a second process that asks for its lock waits.
    keep : Path
        If this file is missing when the block fails, nothing has been written: the lock, and every folder
        made for it, goes again.
    announce : bool, default True
        Say on stderr what is waited for, once it takes longer than a second.

    Yields
    ------
    None

    Notes
    -----
    The system lets go of the lock when its process ends, however it ends: none is ever stale.
    """
    for attempt in itertools.count(1):
        made: list[Path] = []
        try:
            made = _make_folders(folder)
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and keep.exists():
                yield  # nobody can write here, so nobody needs to wait
                return
            _unmake(folder, made)
            if isinstance(error, FileNotFoundError) and attempt < _ATTEMPTS:
                continue  # a call that failed has just taken away the folder that it had made
            raise
        try:
            _wait(descriptor, folder, announce)
            if not _is_current(descriptor, folder / LOCK_NAME):  # its last holder failed and removed it
                continue
            try:
                yield
            except BaseException:
                if not keep.exists():
                    _unmake(folder, made)
                raise
            return
        finally:
            os.close(descriptor)


def _wait(descriptor: int, folder: Path, announce: bool) -> None:
    started = time.monotonic()
    pause = 0.005
    while not _try_to_lock(descriptor):
        if announce and time.monotonic() - started > _PATIENCE_SECONDS:
            print(f"waiting for another process that is splitting into {folder}", file=sys.stderr)
            announce = False
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were missing, the innermost first."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _unmake(folder: Path, made: list[Path]) -> None:
    with contextlib.suppress(OSError):  # on Windows an open file cannot be removed: the empty lock stays
        (folder / LOCK_NAME).unlink(missing_ok=True)
        for path in made:
            path.rmdir()
