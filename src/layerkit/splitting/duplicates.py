"""Which files hold the same bytes, found by reading as little as possible."""

import hashlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from layerkit.errors import PictureError
from layerkit.splitting.progress import Progress

_SAMPLE_BYTES = 64
_READ_BYTES = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_READERS = 16
_BATCH = 32
_SLOW_SECONDS = 0.0005

if sys.platform == "win32":

    def _read_at(descriptor: int, length: int, offset: int) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)
else:
    _read_at = os.pread

Item = TypeVar("Item")
Result = TypeVar("Result")
Locate = Callable[[str], str]


class Digest(NamedTuple):
    """The hash of a file's bytes, and the size and time that the file had then."""

    hash: str
    size: int
    modified_ns: int


def find_duplicates(
    pictures: Sequence[str],
    sizes: Sequence[int],
    locate: Locate,
    *,
    settled: Collection[int] = (),
    known: Mapping[str, Digest] | None = None,
    progress: Progress | None = None,
) -> dict[int, Digest]:
    """Hash the files that could be equal to another.

    Parameters
    ----------
    pictures : sequence of str
        The files.
    sizes : sequence of int
        The size of each, in bytes.
    locate : callable
        Turns a picture's path into a path that can be opened.
    settled : collection of int
        Files whose equality among themselves does not matter any more.
    known : mapping of str to Digest
        Hashes from an earlier time, by path; one is believed if size and time are still the same.
    progress : Progress, optional
        Told about each file that is read.

    Returns
    -------
    dict of int to Digest
        For each file that was hashed; files are equal if and only if their hashes are.

    Raises
    ------
    PictureError
        If a file cannot be read.

    Notes
    -----
    Only files of one size can be equal. Of those, 64 bytes from the middle are compared first: cameras
    write the same header into every file, but compressed pixels differ almost at once. What is still alike
    is read whole, 2**-128 being the chance that BLAKE2b then errs. Empty files count as different: there is
    nothing in them that could leak.
    """
    step = progress or Progress.silent()
    candidates = [i for group in _by_size(sizes) if not _all_in(group, settled) for i in group]
    earlier = known or {}

    def sample(i: int) -> bytes:
        return _sample(locate(pictures[i]), sizes[i])

    def digest(i: int) -> Digest:
        return _digest(locate(pictures[i]), earlier.get(pictures[i]))

    first_with: dict[bytes, int] = {}
    alike: dict[int, list[int]] = {}
    for i, middle in zip(candidates, _map(sample, candidates, step), strict=True):
        first = first_with.setdefault(middle, i)
        if first != i:
            alike.setdefault(first, [first]).append(i)
    doubtful = [i for group in alike.values() if not _all_in(group, settled) for i in group]
    return dict(zip(doubtful, _map(digest, doubtful, step), strict=True))


def _by_size(sizes: Sequence[int]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for i, size in enumerate(sizes):
        if size:
            groups.setdefault(size, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _all_in(group: Sequence[int], settled: Collection[int]) -> bool:
    return bool(settled) and all(i in settled for i in group)


def _sample(path: str, size: int) -> bytes:
    """Read the bytes in the middle of a file, and set its size before them."""
    try:
        descriptor = os.open(path, _READ_BYTES)
        try:
            return b"%d " % size + _read_at(descriptor, _SAMPLE_BYTES, max(0, size - _SAMPLE_BYTES) // 2)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error


def _digest(path: str, earlier: Digest | None) -> Digest:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if earlier and earlier[1:] == (status.st_size, status.st_mtime_ns):
                return earlier
            value = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            return Digest(value, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> PictureError:
    return PictureError(
        f"{path!r} cannot be read ({error.strerror}); expected a readable file: mend or remove it, or pass "
        'duplicates="ignore" to look at no contents'
    )


def _map(function: Callable[[Item], Result], items: Sequence[Item], progress: Progress) -> Iterator[Result]:
    """Map in this thread while the disk answers at once, in many threads where each file must be waited for.

    Files in memory take some microseconds each, and threads would spend longer than that on handing the
    interpreter's lock to each other; a file on a network disk or a spinning one takes milliseconds, and
    hashing a large one lets go of the lock.
    """

    def run(batch: Sequence[Item]) -> list[Result]:
        return [function(item) for item in batch]

    batches = (items[n : n + _BATCH] for n in range(0, len(items), _BATCH))
    started = time.perf_counter()
    first = run(next(batches, ()))
    is_slow = time.perf_counter() - started > _BATCH * _SLOW_SECONDS
    with ThreadPoolExecutor(_READERS) as pool:  # starts no thread before the first job
        for results in itertools.chain([first], (pool.map if is_slow else map)(run, batches)):
            progress.add(len(results))
            yield from results
