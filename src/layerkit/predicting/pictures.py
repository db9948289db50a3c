"""What a predictor takes: paths, bytes, pictures and arrays, one or many."""

import glob
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from layerkit.decoding import PictureFile, pil_to_tensor
from layerkit.errors import PictureError
from layerkit.presets import Transform
from layerkit.splitting import is_picture, list_pictures

Picture = str | Path | bytes | Image.Image | np.ndarray[Any, Any] | Tensor


def collect(source: Any) -> list[Any] | None:
    """List the pictures that a list, a folder or a glob stands for; None where `source` is one picture.

    Raises
    ------
    FileNotFoundError
        The path is neither a file, a folder, nor a glob that finds a picture.
    ValueError
        The folder holds no picture.
    """
    if isinstance(source, list | tuple):
        return list(source)
    if not isinstance(source, str | Path) or Path(source).is_file():
        return None
    if Path(source).is_dir():
        found = [str(Path(source) / name) for name in list_pictures(source)]
        if not found:
            raise ValueError(f"{source} holds no picture; expected a folder of them. Check the path.")
        return found
    matches = glob.glob(str(source), recursive=True)  # noqa: PTH207, a pattern may begin anywhere
    found = sorted(name for name in matches if is_picture(name))
    if not found:
        raise FileNotFoundError(
            f"There is no picture {source}; expected a file, a folder, or a pattern such as 'pets/**/*.jpg'. "
            f"The current folder is {Path.cwd()}."
        )
    return found


def read_pixels(source: Any, transform: Transform) -> Tensor:
    """Turn one picture of any kind into what a preset's eval transform makes of it, in uint8.

    Files are always read whole, so that an exported program that gets the same pixels gives the same answers.

    Raises
    ------
    TypeError, ValueError
        It is no kind of picture, or an array of another shape or dtype.
    PictureError
        A file or its contents cannot be decoded.
    """
    rng = random.Random(0)  # which evaluation never asks
    try:
        encoded = isinstance(source, str | Path | bytes)
        return transform.pixels(PictureFile(source, exact=True) if encoded else _as_tensor(source), rng)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"There is no file {os.fspath(source)!r}; expected picture files in a list. Check the path; a folder or a "
            "pattern is passed by itself."
        ) from error
    except PictureError as error:  # its second remedy is for those who train
        raise PictureError(
            str(error).replace(", or pass errors='skip' to the loaders", "")
        ) from error.__cause__


def _as_tensor(source: Any) -> Tensor:
    if isinstance(source, Image.Image):
        try:
            return pil_to_tensor(ImageOps.exif_transpose(source))  # as `decode` does with the same file
        except (OSError, ValueError) as error:  # Pillow decodes when it is first asked for pixels
            raise PictureError(
                f"{source!r} cannot be decoded ({error}); expected a whole picture. Remove or replace it."
            ) from error
    if isinstance(source, np.ndarray):
        _check(source, source.dtype == np.uint8, source.ndim == 3 and source.shape[2] == 3, "array (H, W, 3)")
        return torch.from_numpy(np.ascontiguousarray(source)).permute(2, 0, 1)
    if isinstance(source, Tensor):
        _check(
            source, source.dtype == torch.uint8, source.ndim == 3 and source.shape[0] == 3, "tensor (3, H, W)"
        )
        return source.cpu()
    raise TypeError(
        f"The picture is a {type(source).__name__}; expected a path, bytes, a PIL picture, a uint8 array "
        "(H, W, 3), a uint8 tensor (3, H, W), or a list of these."
    )


def path_of(source: Any) -> str | None:
    """Give the path of a picture that is a file."""
    return str(source) if isinstance(source, str | Path) else None


def _check(source: Any, dtype: bool, shape: bool, expected: str) -> None:
    if dtype and shape and 0 not in source.shape:
        return
    remedy = (
        "For a batch, pass list(batch)." if source.ndim == 4 else "It is normalised by the predictor itself."
    )
    raise ValueError(
        f"The picture has the shape {tuple(source.shape)} and dtype {source.dtype}; expected a uint8 "
        f"{expected}, 0 to 255, RGB. {remedy}"
    )
