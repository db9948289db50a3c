"""The mean and standard deviation of a folder's pictures."""

from pathlib import Path

import torch

from layerkit.decoding import decode
from layerkit.splitting import list_pictures

Statistics = tuple[float, float, float]


def channel_statistics(root: str | Path) -> tuple[Statistics, Statistics]:
    """Measure the mean and standard deviation of each channel over all pixels below a folder.

    Parameters
    ----------
    root : str or Path
        A folder of pictures, in any depth.

    Returns
    -------
    tuple of (mean, std)
        Each three floats (red, green, blue) for pixels between 0 and 1: what `Preset` takes. Every picture
        weighs as many as it has pixels.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        There is no picture below the folder.
    PictureError
        A picture cannot be read.
    """
    names = list_pictures(root)
    if not names:
        raise ValueError(f"{root} holds no picture; expected a folder of them. Check the path.")
    count = 0
    total, squares = torch.zeros(2, 3, dtype=torch.float64)
    for name in names:
        pixels = decode(Path(root) / name).flatten(1).to(torch.float64).div_(255)
        count += pixels.shape[1]
        total += pixels.sum(1)
        squares += pixels.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return _three(mean), _three(std)


def _three(values: torch.Tensor) -> Statistics:
    red, green, blue = values.tolist()
    return red, green, blue
