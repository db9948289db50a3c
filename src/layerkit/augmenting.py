"""Random changes to a training picture, each drawn from a generator of its own.

Every function takes a uint8 picture (3, H, W) and the sample's own ``random.Random``. Torch's global
generator is never touched: threads and worker processes in any number therefore draw the same changes.
"""

import math
import random
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

Augment = Literal["none", "color", "light", "standard", "strong"]
LEVELS: tuple[Augment, ...] = get_args(Augment)

SMALLEST_CROP = {"light": 0.5, "standard": 0.25, "strong": 0.25}
"""The smallest share of the picture's area that a crop keeps; the levels left out keep the eval crop."""


def random_window(height: int, width: int, smallest: float, rng: random.Random) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a window with an aspect ratio between 3:4 and 4:3.

    References
    ----------
    Szegedy et al. 2014, "Going deeper with convolutions", https://arxiv.org/abs/1409.4842
    """
    for _ in range(10):
        area = height * width * rng.uniform(smallest, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    # A picture so long and thin that nothing fitted: the largest window of an allowed ratio, in the middle.
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def random_flip(picture: Tensor, rng: random.Random) -> Tensor:
    """Mirror every second picture, left to right."""
    return F.horizontal_flip(picture) if rng.random() < 0.5 else picture


def jitter_color(picture: Tensor, rng: random.Random) -> Tensor:
    """Change brightness, contrast and saturation by up to a fifth; nothing moves."""
    for adjust in (F.adjust_brightness, adjust_contrast, F.adjust_saturation):
        picture = adjust(picture, rng.uniform(0.8, 1.2))
    return picture


def adjust_contrast(picture: Tensor, factor: float) -> Tensor:
    """Draw the pixels away from their mean grey, as torchvision's function of that name does.

    Its float32 sum over a large picture has other bits with another number of threads; this one is exact.
    """
    mean = F.rgb_to_grayscale(picture).mean(dtype=torch.float64).item()
    return picture.float().mul_(factor).add_(mean * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def trivial_augment(picture: Tensor, rng: random.Random) -> Tensor:
    """Apply one operation, picked at random, at a random strength.

    References
    ----------
    Müller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
    https://arxiv.org/abs/2103.10158
    """
    operation = rng.choice(_OPERATIONS)
    return operation(picture, rng.uniform(-1.0, 1.0))


def random_erase(picture: Tensor, rng: random.Random) -> Tensor:
    """Paint a random window of every fourth picture in its mean colour.

    References
    ----------
    Zhong et al. 2020, "Random Erasing Data Augmentation", https://arxiv.org/abs/1708.04896
    """
    if rng.random() >= 0.25:
        return picture
    height, width = picture.shape[-2:]
    h, w = (max(1, round(side * rng.uniform(0.15, 0.5))) for side in (height, width))
    top, left = rng.randint(0, height - h), rng.randint(0, width - w)
    mean = picture.mean(dim=(-2, -1), keepdim=True, dtype=torch.float64).to(torch.uint8)
    erased: Tensor = F.erase(picture, top, left, h, w, mean)
    return erased


def _affine(
    picture: Tensor, *, angle: float = 0.0, move: tuple[int, int] = (0, 0), shear: float = 0.0
) -> Tensor:
    moved: Tensor = F.affine(
        picture,
        angle=angle,
        translate=list(move),
        scale=1.0,
        shear=[shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=[128.0],
    )
    return moved


# Each takes a strength between -1 and 1. The ranges are TrivialAugment's "wide" ones, but for the geometry,
# which is RandAugment's: a pretrained backbone that is tuned for a few epochs has no time for the wide one.
_OPERATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda picture, strength: picture,
    lambda picture, strength: _affine(picture, angle=30 * strength),
    lambda picture, strength: _affine(picture, shear=17 * strength),
    lambda picture, strength: _affine(picture, move=(round(picture.shape[-1] * 0.2 * strength), 0)),
    lambda picture, strength: _affine(picture, move=(0, round(picture.shape[-2] * 0.2 * strength))),
    lambda picture, strength: F.adjust_brightness(picture, 1 + 0.9 * strength),
    lambda picture, strength: adjust_contrast(picture, 1 + 0.9 * strength),
    lambda picture, strength: F.adjust_saturation(picture, 1 + 0.9 * strength),
    lambda picture, strength: F.adjust_sharpness(picture, 1 + 0.9 * strength),
    lambda picture, strength: F.posterize(picture, 8 - round(6 * abs(strength))),
    lambda picture, strength: F.solarize(picture, 255 * (1 - abs(strength))),
    lambda picture, strength: F.autocontrast(picture),
    lambda picture, strength: F.equalize(picture),
)
