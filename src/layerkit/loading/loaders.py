"""Samples to batches: in which order, by whom they are read, and how they come out."""

import os
import random
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from threading import Barrier
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from layerkit import distributed
from layerkit.errors import warn
from layerkit.loading.datasets import PictureDataset, Sample, SampleKey
from layerkit.presets import Transform

Workers = int | Literal["auto"]
Batch = tuple[Tensor, list[Sample]]

SMALLEST_LAST_BATCH = 8
"""A smaller last training batch joins the one before: batch norm's statistics of a few samples are noise."""

_MOST_AT_ONCE = 4
"""Pictures that a thread takes at once: to hand one out costs a tenth of reading it from a cache."""

_BATCHES_AHEAD = 1
"""Read while the model works on the one before."""


class EpochBatches(Sampler[list[SampleKey]]):
    """Deal out the samples of the epoch that `epoch` says, in batches of keys, from `first_batch` on.

    The order depends on the seed and the epoch alone. Of several processes each gets a slice of every batch.
    """

    def __init__(
        self, length: int, batch_size: int, *, shuffle: bool, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = 0
        self.first_batch = 0

    def _bounds(self) -> list[tuple[int, int]]:
        starts = list(range(0, self.length, self.batch_size))
        if (
            self.shuffle
            and len(starts) > 1
            and self.length - starts[-1] < min(SMALLEST_LAST_BATCH, self.batch_size)
        ):
            starts.pop()
        return list(zip(starts, [*starts[1:], self.length], strict=True))

    def __len__(self) -> int:
        return len(self._bounds())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._batches(self.epoch, self.first_batch)

    def order(self, epoch: int) -> list[int]:
        """Give the samples in the order of an epoch."""
        order = list(range(self.length))
        if self.shuffle:
            random.Random(f"{self.seed}:order of:{epoch}").shuffle(order)
        return order

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Give the samples of one batch of an epoch, over all processes."""
        start, end = self._bounds()[batch]
        return self.order(epoch)[start:end]

    def shares(self) -> list[tuple[int, int]]:
        """Give for each batch from `first_batch` on how many samples count here, and over all processes."""
        bounds = self._bounds()[self.first_batch :]
        shares = [(len(self._slice(start, end)), end - start) for start, end in bounds]
        return [share for share in shares if share[0] or self.shuffle]

    def positions(self, rank: int) -> list[int]:
        """Give the positions in an epoch's order of the samples that are a process's own."""
        return [p for bounds in self._bounds() for p in self._slice(*bounds, rank)]

    def _slice(self, start: int, end: int, rank: int | None = None) -> range:
        size = end - start
        rank = self.rank if rank is None else rank
        return range(start + rank * size // self.world, start + (rank + 1) * size // self.world)

    def _batches(self, epoch: int, first: int) -> Iterator[list[SampleKey]]:
        order = self.order(epoch)
        for start, end in self._bounds()[first:]:
            own = self._slice(start, end)
            # In training every process takes every step: one without a sample of its own borrows one.
            if not own and self.shuffle:
                own = range(start, start + 1)
            if own:
                yield [SampleKey(epoch, order[position]) for position in own]


class PictureLoader(DataLoader[Any]):
    """A `DataLoader` that gives normalised float32 pictures (N, 3, H, W) and their targets.

    Made by `folder_loaders` and `table_loaders`. Each ``iter(loader)`` is the next epoch; `set_epoch` chooses
    one. The same seed, epoch and index give the same picture, whoever reads it.

    Parameters
    ----------
    dataset : PictureDataset
        Its transform must come from a `Preset`.
    batch_size : int
        Samples a batch, over all processes together.
    shuffle : bool
        For training: another order in each epoch, and a last batch of fewer than ``min(8, batch_size)``
        joined to the one before. Otherwise every batch comes as it falls.
    num_workers : int or "auto"
        Worker processes, as in torch, but no more than batches; 0 reads in the process itself. ``"auto"``
        takes threads, which need no start-up, no copies and no ``__main__`` guard, since decoding lets go of
        the interpreter lock. Only with an augmentation of the user's own, which may draw from global
        generators, it takes processes (on Linux) or none.
    """

    dataset: PictureDataset
    batch_sampler: EpochBatches

    def __init__(
        self, dataset: PictureDataset, *, batch_size: int, shuffle: bool, num_workers: Workers = "auto"
    ) -> None:
        _check_number("batch_size", batch_size, smallest=1)
        if distributed.world() > batch_size:
            raise ValueError(
                f"`batch_size` is {batch_size} and {distributed.world()} processes share each batch; expected at "
                "least one picture for each. Pass a larger batch_size, which is the number over all processes, "
                "or start fewer processes."
            )
        if num_workers != "auto":
            _check_number("num_workers", num_workers, smallest=0)
        if not isinstance(dataset.transform, Transform):
            raise TypeError(
                f"The dataset's transform is {dataset.transform!r}; expected one from preset.train() or "
                "preset.eval(). For any other, use torch's own DataLoader."
            )
        self.requested_workers = num_workers
        self.threads, processes = _choose_road(num_workers, foreign=callable(dataset.transform.augment))
        self._unreadable: set[int] = set()
        self._reported = False
        batches = EpochBatches(
            len(dataset),
            batch_size,
            shuffle=shuffle,
            seed=dataset.seed,
            rank=distributed.rank(),
            world=distributed.world(),
        )
        # A worker that had no batch starts the thread of its queue only when it is told to end. If the garbage
        # collector tells it, both close the queue's file. (One that begins late in an epoch may still be such.)
        processes = min(processes, len(batches))
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=processes,
            collate_fn=list,
            worker_init_fn=_leave_signals_to_main,
            generator=torch.Generator(),  # or every iter() would draw from the global one
            persistent_workers=processes > 0,
            # Python 3.14 starts workers afresh, which runs a script without a __main__ guard again.
            multiprocessing_context="fork" if processes and sys.platform == "linux" else None,
        )

    def __repr__(self) -> str:
        batches = self.batch_sampler
        order = "shuffled" if batches.shuffle else "in order"
        return f"PictureLoader({len(self.dataset)} pictures in {len(batches)} batches, {order})"

    def set_epoch(self, epoch: int, *, first_batch: int = 0) -> None:
        """Choose the epoch that the next ``iter()`` gives.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        first_batch : int
            Where in that epoch it begins, for a run that was interrupted. What comes before is not read.
        """
        self.batch_sampler.epoch = epoch
        self.batch_sampler.first_batch = first_batch

    def files(self, epoch: int, batch: int) -> list[str]:
        """Name the pictures of one batch of an epoch.

        Parameters
        ----------
        epoch, batch : int
            Counted from 0.

        Returns
        -------
        list of str
            Their paths, over all processes.
        """
        return [self.dataset.files[index] for index in self.batch_sampler.indices(epoch, batch)]

    def unshuffled(self, *, augmented: bool = False) -> "PictureLoader":
        """Make a loader of the same pictures that does not shuffle.

        Parameters
        ----------
        augmented : bool
            Whether to keep the random changes; by default it takes the eval transform.

        Returns
        -------
        PictureLoader
        """
        dataset = copy(self.dataset)
        if not augmented:
            dataset.transform = dataset.transform.preset.eval()
        return PictureLoader(
            dataset,
            batch_size=self.batch_sampler.batch_size,
            shuffle=False,
            num_workers=self.requested_workers,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:  # type: ignore[override]
        # The epoch is taken here, not when the first batch is asked for, and counted here, not in the
        # sampler: torch calls its iter() twice when it starts workers.
        if self.threads:
            batches = self._read_by_threads(iter(self.batch_sampler))
        elif self.num_workers:
            batches = self._normalized(super().__iter__())
        else:
            batches = self._read_here(iter(self.batch_sampler))
        self.batch_sampler.epoch += 1
        self.batch_sampler.first_batch = 0
        return self._finished(batches)

    def _finished(self, batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Any]]:
        for pixels, samples in batches:
            for sample in samples:
                self._unreadable.update(sample.unreadable)
            yield pixels, self.dataset.target([sample.index for sample in samples])
        self._report_unreadable()

    def _normalized(self, read: Iterator[list[Sample]]) -> Iterator[Batch]:
        """Normalise here what worker processes send: in uint8, a quarter of the bytes."""
        for samples in read:
            pixels = torch.stack([sample.pixels for sample in samples])
            yield self.dataset.transform.preset.normalize(pixels), samples

    def _read_here(self, keys: Iterator[list[SampleKey]]) -> Iterator[Batch]:
        for batch in keys:
            pixels = self._empty(len(batch))
            yield pixels, self._read_into(pixels, batch)

    def _read_by_threads(self, keys: Iterator[list[SampleKey]]) -> Iterator[Batch]:
        pool = _start_readers(self.threads)
        waiting: deque[tuple[Tensor, list[Future[list[Sample]]]]] = deque()
        try:
            for batch in keys:
                with torch.inference_mode(False):  # the readers, other threads, could not write into it
                    pixels = self._empty(len(batch))
                size = max(1, min(_MOST_AT_ONCE, len(batch) // (2 * self.threads)))
                pieces = [slice(start, start + size) for start in range(0, len(batch), size)]
                reading = [pool.submit(self._read_into, pixels[piece], batch[piece]) for piece in pieces]
                waiting.append((pixels, reading))
                if len(waiting) > _BATCHES_AHEAD:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _empty(self, size: int) -> Tensor:
        shape = (size, 3, *self.dataset.transform.preset.crop)
        return torch.empty(shape, dtype=torch.float32, device="cpu")

    def _read_into(self, pixels: Tensor, keys: list[SampleKey]) -> list[Sample]:
        """Read pictures and normalise each at once: no thread has to do it later, and its pixels are still at hand."""
        samples = []
        for row, key in zip(pixels, keys, strict=True):
            samples.append(self.dataset.read(key))
            self.dataset.transform.preset.normalize_into(row, samples[-1].pixels)
        return samples

    def _report_unreadable(self) -> None:
        """Say it once: later epochs meet the same pictures again."""
        if self._reported or not self._unreadable:
            return
        self._reported = True
        names = [self.dataset.files[index] for index in sorted(self._unreadable)]
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        warn(
            f"{len(names)} of {len(self.dataset)} pictures could not be read, and others took their places: "
            f"{shown}. Remove or replace them."
        )


def length_of(loader: Any) -> int | None:
    """Count a loader's batches, if it tells: every `DataLoader` has a ``__len__``, which may raise."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def _result(pixels: Tensor, reading: list[Future[list[Sample]]]) -> Batch:
    return pixels, [sample for future in reading for sample in future.result()]


def _choose_road(num_workers: Workers, *, foreign: bool) -> tuple[int, int]:
    """Give the number of reader threads and of worker processes; with neither, the process reads itself."""
    if num_workers != "auto":
        return 0, num_workers
    if not foreign:
        return _cores(), 0
    return 0, min(_cores(), 8) if sys.platform == "linux" else 0


def _start_readers(threads: int) -> ThreadPoolExecutor:
    """Start threads in which torch's operations do not spread over the processors.

    Each reader would otherwise have a team of its own, and wait for it while the model computes. What a
    thread sets for itself also becomes the default of threads started later, so it is put back once all run.
    """
    own = torch.get_num_threads()
    started = Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "layerkit-read", initializer=_compute_alone)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(own)
    return pool


def _compute_alone() -> None:
    """Keep this thread's operations on one processor."""
    torch.get_num_threads()  # or the thread's first operation would take over the default of the process
    torch.set_num_threads(1)


def _leave_signals_to_main(worker: int) -> None:
    """Let the main process decide what Ctrl-C means, and SIGTERM end this one as it would any other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _cores() -> int:
    """Count the processors that are this process's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // distributed.local_world())


def _check_number(name: str, value: Any, *, smallest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(
            f"`{name}` is {value!r}; expected a whole number of at least {smallest}"
            f"{', or auto' if name == 'num_workers' else ''}. Leave it out for the default."
        )
