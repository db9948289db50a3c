"""Pictures on disk with their targets, one sample at a time."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from layerkit.decoding import decode
from layerkit.errors import PictureError
from layerkit.loading.generators import seeded_generators

OnError = Literal["raise", "skip"]
Targets = list[int] | Tensor | dict[str, list[int] | Tensor]
"""What a dataset keeps: class indices as a list, numbers as a tensor, several targets as a dict of these."""


@dataclass(frozen=True)
class SampleKey:
    """Which sample to read, and in which epoch: what its random changes depend on, besides the seed."""

    epoch: int
    index: int


@dataclass
class Sample:
    """One picture on its way to a batch."""

    pixels: Tensor  # (3, H, W), uint8
    index: int  # of the picture that was asked for or, if that could not be read, of the one in its place
    unreadable: tuple[int, ...] = ()


class PictureDataset(Dataset[tuple[Any, Any]]):
    """Picture files, each with a target.

    Parameters
    ----------
    paths : sequence of Path
        One file a sample.
    targets : list of int, Tensor, or dict of these
        One target a sample: class indices, numbers (N,) or (N, T), or several named ones.
    transform : Transform or callable, optional
        From ``preset.train()`` or ``preset.eval()``, or any callable on a uint8 picture (3, H, W). ``None``
        gives the picture as it is.
    classes : list of str, or dict of these, optional
        The names behind class indices.
    errors : {"raise", "skip"}
        What to do with a picture that cannot be decoded: raise `PictureError`, or put another picture of
        this dataset in its place, the same one every time. A file that has gone is an error either way.
    seed : int
        Governs the random changes in a `PictureLoader`, together with the epoch and the index, and which
        picture takes another's place.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Targets,
        transform: Any = None,
        *,
        classes: Any = None,
        errors: OnError = "raise",
        seed: int = 0,
    ) -> None:
        if errors not in ("raise", "skip"):
            raise ValueError(
                f"`errors` is {errors!r}; expected 'raise' or 'skip'. With 'skip', another picture takes the "
                "place of one that cannot be read, which is named at the end of the epoch."
            )
        self.paths = list(paths)
        self.targets = targets
        self.transform = transform
        self.classes = classes
        self.errors: OnError = errors
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int | SampleKey) -> Any:
        """Give the transformed picture and its target; to a loader's `SampleKey`, a `Sample`."""
        if isinstance(index, SampleKey):
            return self.read(index)
        picture, taken, _ = self._first_readable(index)
        return (picture if self.transform is None else self.transform(picture)), self.target(taken)

    def target(self, indices: int | Sequence[int]) -> Any:
        """Look up the target of one index, or the batch of targets of several.

        Parameters
        ----------
        indices : int or sequence of int
            Which.

        Returns
        -------
        int, Tensor, or dict of these
            The target, or a tensor of targets.
        """
        if isinstance(self.targets, Mapping):
            return {name: _take(column, indices) for name, column in self.targets.items()}
        return _take(self.targets, indices)

    def read(self, key: SampleKey) -> Sample:
        """Read one picture and change it as training wants, but leave it in uint8.

        Parameters
        ----------
        key : SampleKey
            Which, and in which epoch.

        Returns
        -------
        Sample
        """
        picture, taken, unreadable = self._first_readable(key.index)
        seed = f"{self.seed}:{key.epoch}:{key.index}"
        if callable(self.transform.augment):
            with seeded_generators(seed):
                pixels = self.transform.pixels(picture, random.Random(seed))
        else:
            pixels = self.transform.pixels(picture, random.Random(seed))
        return Sample(pixels, taken, unreadable)

    def _first_readable(self, index: int) -> tuple[Tensor, int, tuple[int, ...]]:
        """Read a picture or, with errors="skip", the one in its place: the same whoever asks, and when."""
        try:
            return decode(self.paths[index]), index, ()
        except PictureError:
            if self.errors == "raise":
                raise
        unreadable = [index]
        start = random.Random(f"{self.seed}:instead of:{index}").randrange(len(self))
        for step in range(len(self)):
            substitute = (start + step) % len(self)
            if substitute == index:
                continue
            try:
                return decode(self.paths[substitute]), substitute, tuple(unreadable)
            except PictureError:
                unreadable.append(substitute)
        raise PictureError(
            f"None of {len(self)} pictures can be read, such as {self.paths[index]}; expected whole picture "
            "files. Check the folder with layerkit.check_folder()."
        )


def _take(column: list[int] | Tensor, indices: int | Sequence[int]) -> Any:
    if isinstance(column, Tensor):
        return column[indices]
    return torch.tensor([column[i] for i in indices]) if isinstance(indices, Sequence) else column[indices]
