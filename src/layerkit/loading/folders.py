"""A folder that is split into parts becomes loaders."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.models import WeightsEnum

from layerkit.augmenting import Augment
from layerkit.checking import refuse_misplaced
from layerkit.loading.caching import Cache, check_cache, make_caches
from layerkit.loading.classes import FolderDataset
from layerkit.loading.datasets import OnError, PictureDataset
from layerkit.loading.loaders import PictureLoader, Workers
from layerkit.presets import Preset

VALID_NAMES = ("valid", "val", "validation")


@dataclass(frozen=True)
class Loaders:
    """The loaders of a data set's parts, and what they have in common.

    Parameters
    ----------
    train : PictureLoader
        Shuffled, with random changes.
    valid : PictureLoader
        In order, with the eval transform: it steers training.
    test : PictureLoader or None
        Likewise, for the end; ``None`` where there is no such part.
    classes : list of str, None, or dict of these
        The class names in the order of their indices; ``None`` for numbers; a dict for several targets.
    preset : Preset
        The transforms that were used.
    """

    train: PictureLoader
    valid: PictureLoader
    test: PictureLoader | None
    classes: Any
    preset: Preset


def folder_loaders(
    root: str | Path,
    *,
    weights: WeightsEnum | str | None = None,
    preset: Preset | None = None,
    batch_size: int = 32,
    num_workers: Workers = "auto",
    augment: Augment | Callable[[Tensor], Tensor] = "standard",
    errors: OnError = "raise",
    cache: Cache | None = None,
    exact: bool = False,
    seed: int = 0,
) -> Loaders:
    """Make loaders of the parts of a folder that `split_folder` wrote, or one laid out like it.

    Parameters
    ----------
    root : str or Path
        Holds ``train`` and ``valid`` (or ``val``, ``validation``), perhaps ``test``, each with one folder a
        class.
    weights : WeightsEnum or str, optional
        The pretrained weights of the backbone, whose preset is taken over.
    preset : Preset, optional
        Instead of `weights`.
    batch_size : int
        Samples a batch, over all processes together.
    num_workers : int or "auto"
        Worker processes; ``"auto"`` reads with threads, as `PictureLoader` says.
    augment : str or callable
        The random changes in training, as in `Preset.train`.
    errors : {"raise", "skip"}
        What to do with a picture that cannot be read, as in `PictureDataset`.
    cache : {"memory", "disk"}, optional
        Where to keep the decoded pictures, so that from the second epoch on none is decoded: in memory, or in
        a hidden folder ``.layerkit-cache`` below `root`. Every epoch, the first included, then begins with
        the kept picture, whose shorter side is the preset's `resize_size` in evaluation and, in training,
        what leaves the smallest random crop as large as the backbone wants it. How much that takes is said
        on stderr.
    exact : bool
        Whether to decode every picture whole. By default a JPEG far larger than the crop needs is read at
        1/2, 1/4 or 1/8 scale, several times faster, with pixels that differ by less than 1 of 255 on average.
    seed : int
        Governs the order and the random changes of the pictures; nothing else.

    Returns
    -------
    Loaders
        ``train``, ``valid``, ``test``, ``classes`` and ``preset``. Each loader gives float32 pictures
        (N, 3, H, W) and int64 class indices (N,).

    Raises
    ------
    FileNotFoundError
        The folder or one of its parts does not exist.
    ValueError
        The parts have different classes, a class is empty, or an argument is not as described.
    SplitError
        By the record that `split_folder` left in the folder, a picture is on another side than it was put
        on, or on two. It is a `ValueError` too.
    OSError, MemoryError
        There is no room for the cache, or its folder cannot be written to.

    Warns
    -----
    LayerkitWarning
        Files were left out, as `FolderDataset` says.

    Notes
    -----
    A sample's random changes depend on the seed, the epoch and its index alone: any number of threads or
    worker processes gives the same bits.

    No picture is opened here; `check_folder` does that, and finds what is wrong with each.
    """
    preset = choose_preset(weights, preset)
    check_cache(cache)
    transforms = {"train": preset.train(augment), "valid": preset.eval(), "test": preset.eval()}
    folders = _find_parts(Path(root))
    datasets = {
        part: FolderDataset(folder, transforms[part], errors=errors, seed=seed, exact=exact)
        for part, folder in folders.items()
    }
    _check_classes(datasets)
    refuse_misplaced(Path(root), _names(Path(root), datasets))
    if cache is not None:
        add_caches(datasets, cache, Path(root))
    return make_loaders(datasets, preset, batch_size=batch_size, num_workers=num_workers)


def add_caches(datasets: Mapping[str, PictureDataset], cache: Cache, root: Path) -> None:
    """Let each part keep its decoded pictures."""
    exact = any(dataset.exact for dataset in datasets.values())
    parts = {part: (dataset.paths, dataset.transform) for part, dataset in datasets.items()}
    for part, made in make_caches(parts, cache, root, exact=exact).items():
        datasets[part].cache = made


def make_loaders(
    datasets: dict[str, Any], preset: Preset, *, batch_size: int, num_workers: Workers
) -> Loaders:
    """Give each part its loader; only training is shuffled."""
    loaders = {
        part: PictureLoader(dataset, batch_size=batch_size, shuffle=part == "train", num_workers=num_workers)
        for part, dataset in datasets.items()
    }
    return Loaders(
        loaders["train"], loaders["valid"], loaders.get("test"), loaders["train"].dataset.classes, preset
    )


def choose_preset(weights: WeightsEnum | str | None, preset: Preset | None) -> Preset:
    """Take the one that was given."""
    if (weights is None) == (preset is None):
        raise ValueError(
            f"`weights` is {weights!r} and `preset` is {preset!r}; expected exactly one of them. Pass the "
            "backbone's pretrained weights, or preset=Preset(224) for a backbone without."
        )
    return preset if weights is None else Preset.from_weights(weights)  # type: ignore[return-value]


def _find_parts(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder; expected one with the parts train and valid. Make it with "
            f"layerkit.split_folder(source, {str(root)!r}), or `layerkit split SOURCE {root}` in a terminal."
        )
    valid = [root / name for name in VALID_NAMES if (root / name).is_dir()]
    if len(valid) > 1:
        raise ValueError(
            f"{root} holds {' and '.join(folder.name for folder in valid)}; expected one folder for "
            "validation. Remove or rename the other."
        )
    if not (root / "train").is_dir() or not valid:
        raise FileNotFoundError(
            f"{root} has no part named {'valid' if (root / 'train').is_dir() else 'train'}; expected train "
            "and valid, each with one folder a class. Split a folder of pictures first: "
            "layerkit.split_folder(source, dest), or `layerkit split SOURCE DEST` in a terminal."
        )
    parts = {"train": root / "train", "valid": valid[0]}
    return parts | ({"test": root / "test"} if (root / "test").is_dir() else {})


def _names(root: Path, datasets: Mapping[str, FolderDataset]) -> Iterator[str]:
    """Give the pictures' paths below the folder, with "/"; cut off, for Path would take seconds a million."""
    start = len(str(root / "x")) - 1
    return (path[start:].replace(os.sep, "/") for data in datasets.values() for path, _ in data.samples)


def _check_classes(datasets: dict[str, FolderDataset]) -> None:
    expected = set(datasets["train"].classes)
    for part, dataset in datasets.items():
        missing, extra = expected - set(dataset.classes), set(dataset.classes) - expected
        if missing or extra:
            what = [f"lacks {sorted(missing)}"] if missing else []
            what += [f"has {sorted(extra)} besides"] if extra else []
            raise ValueError(
                f"The part {part} {' and '.join(what)}; expected the classes of the training part in every "
                "part. Add pictures for them, or remove the folders."
            )
