"""A folder with one folder a class."""

import os
from pathlib import Path
from typing import Any

from layerkit.errors import count_of, warn
from layerkit.loading.datasets import OnError, PictureDataset
from layerkit.splitting import is_hidden
from layerkit.splitting.pictures import scan_folder


class FolderDataset(PictureDataset):
    """The pictures of a folder with one folder a class, like torchvision's `ImageFolder`.

    Parameters
    ----------
    root : str or Path
        Holds one folder a class; pictures may lie deeper below it.
    transform : Transform or callable, optional
        From ``preset.train()`` or ``preset.eval()``, or any callable on a uint8 picture (3, H, W). ``None``
        gives the picture as it is.
    errors : {"raise", "skip"}
        What to do with a picture that cannot be decoded: raise `PictureError`, or put another picture of
        this folder in its place, the same one every time.
    seed : int
        Governs which picture takes another's place and, in a loader, the random changes.
    exact : bool
        Whether to decode every picture whole. By default a transform of a `Preset` reads a JPEG far larger
        than it needs at 1/2, 1/4 or 1/8 scale.

    Attributes
    ----------
    classes : list of str
        The class names, sorted.
    class_to_idx : dict of str to int
        The index of each class.
    samples : list of (str, int)
        Each file and its class index.
    targets : list of int
        The class indices alone.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        It has no class folders, or one of them is empty.

    Warns
    -----
    LayerkitWarning
        Files were left out: pictures outside the class folders, or files that are no pictures by their name.
        Hidden files are passed over without a word.
    """

    targets: list[int]

    def __init__(
        self,
        root: str | Path,
        transform: Any = None,
        *,
        errors: OnError = "raise",
        seed: int = 0,
        exact: bool = False,
    ) -> None:
        self.root = Path(root)
        names, left_out = _pictures_by_class(self.root)
        self.class_to_idx = {name: index for index, name in enumerate(names)}
        start = str(self.root / "x")[:-1]  # a Path for each file would take longer, and leave its name behind
        self.samples = [
            (start + path.replace("/", os.sep), self.class_to_idx[name])
            for name in names
            for path in names[name]
        ]
        if left_out:
            warn(
                f"{count_of(len(left_out), 'file')} of {root} left out, such as {left_out[0]}: no picture by the "
                "suffix, or in no class folder. Rename, move or remove what should not be there."
            )
        super().__init__(
            [path for path, _ in self.samples],
            [index for _, index in self.samples],
            transform,
            classes=list(names),
            errors=errors,
            seed=seed,
            exact=exact,
        )


def _pictures_by_class(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Give the pictures of each class, sorted, and the files that belong to none."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder; expected one that holds a folder of pictures for each class. Check the "
            "path."
        )
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    names: dict[str, list[str]] = {name: [] for name in folders}
    listing = scan_folder(root, sizes=False)
    left_out = [skipped.path for skipped in listing.skipped]
    for path in listing.pictures:
        folder, below, _ = path.partition("/")
        (names[folder] if below else left_out).append(path)
    empty = [name for name, pictures in names.items() if not pictures]
    if not names:
        raise ValueError(
            f"{root} has no class folders; expected pictures in a folder for each class. For a flat folder "
            "of pictures, use split_folder() with a regular expression as `label`."
        )
    if empty:
        raise ValueError(
            f"{root} has no picture in {', '.join(map(repr, empty))}; expected some in the folder of each "
            "class. Add them, or remove the folder."
        )
    return names, left_out
