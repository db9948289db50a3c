"""Pictures on disk with their targets, one sample at a time."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from layerkit.decoding import PictureFile, decode
from layerkit.errors import PictureError
from layerkit.loading.caching import PictureCache
from layerkit.loading.generators import seeded_generators
from layerkit.presets import Transform

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
    paths : sequence of str or Path
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
    exact : bool
        Whether to decode every picture whole. By default a transform of a `Preset` reads a JPEG far larger
        than it needs at 1/2, 1/4 or 1/8 scale.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        targets: Targets,
        transform: Any = None,
        *,
        classes: Any = None,
        errors: OnError = "raise",
        seed: int = 0,
        exact: bool = False,
    ) -> None:
        if errors not in ("raise", "skip"):
            raise ValueError(
                f"`errors` is {errors!r}; expected 'raise' or 'skip'. With 'skip', another picture takes the "
                "place of one that cannot be read, which is named at the end of the epoch."
            )
        # As text: a Path takes five times the memory.
        names = map(str, paths)
        self.files = [name if os.path.normpath(name) == name else str(Path(name)) for name in names]
        self.targets = targets
        self.transform = transform
        self.classes = classes
        self.errors: OnError = errors
        self.seed = seed
        self.exact = exact
        self.cache: PictureCache | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def paths(self) -> list[Path]:
        """The files, one a sample: a list that is made anew each time. `files` has them as text."""
        return [Path(file) for file in self.files]

    def __getitem__(self, index: int | SampleKey) -> Any:
        """Give the transformed picture and its target; to a loader's `SampleKey`, a `Sample`."""
        if isinstance(index, SampleKey):
            return self.read(index)
        picture, taken, _ = self._first_readable(index, self._transformed)
        return picture, self.target(taken)

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
        seed = f"{self.seed}:{key.epoch}:{key.index}"

        def pixels(index: int) -> Tensor:
            with seeded_generators(seed) if callable(self.transform.augment) else nullcontext():
                return cast("Tensor", self.transform.pixels(self._picture(index), random.Random(seed)))

        return Sample(*self._first_readable(key.index, pixels))

    def _transformed(self, index: int) -> Any:
        if isinstance(self.transform, Transform):
            return self.transform(self._picture(index))
        picture = decode(self.files[index]) if self.cache is None else self.cache.read(index).clone()
        return picture if self.transform is None else self.transform(picture)

    def _picture(self, index: int) -> Tensor | PictureFile:
        """Give what the transform begins with: a file whose scale it may choose, or pixels."""
        if self.cache is not None:
            return self.cache.read(index)
        return PictureFile(self.files[index], exact=self.exact)

    def _first_readable(self, index: int, read: Callable[[int], Any]) -> tuple[Any, int, tuple[int, ...]]:
        """Read a picture or, with errors="skip", the one in its place: the same whoever asks, and when."""
        try:
            return read(index), index, ()
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
                return read(substitute), substitute, tuple(unreadable)
            except PictureError:
                unreadable.append(substitute)
        raise PictureError(
            f"None of {len(self)} pictures can be read, such as {self.files[index]}; expected whole picture "
            "files. Check the folder with layerkit.check_folder()."
        )


def _take(column: list[int] | Tensor, indices: int | Sequence[int]) -> Any:
    if isinstance(column, Tensor):
        return column[indices]
    return torch.tensor([column[i] for i in indices]) if isinstance(indices, Sequence) else column[indices]
