"""From a picture to what the backbone takes."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from layerkit import augmenting
from layerkit.augmenting import Augment
from layerkit.decoding import pil_to_tensor

if TYPE_CHECKING:
    from layerkit.presets.preset import Preset

Picture = Tensor | Image.Image


class Transform:
    """From a picture to what the backbone takes; made by `Preset.train` and `Preset.eval`.

    It takes a PIL picture, or a tensor (3, H, W) or (1, H, W), uint8 or floating point between 0 and 1, and
    gives float32 (3, crop height, crop width). In evaluation batches (N, 3, H, W) pass too. Used alone, as
    the ``transform`` of an `ImageFolder`, it draws from torch's global generator once a picture, unless
    nothing is random about it.

    Parameters
    ----------
    preset : Preset
        Sizes, interpolation and normalisation.
    augment : str or callable
        As in `Preset.train`.
    """

    def __init__(self, preset: "Preset", augment: Augment | Callable[[Tensor], Tensor] = "none") -> None:
        self.preset = preset
        self.augment = augment

    def __repr__(self) -> str:
        return f"Transform({self.preset}, augment={self.augment!r})"

    def __call__(self, picture: Picture) -> Tensor:
        """Give the normalised picture, float32."""
        if self.augment == "none":
            return self._normalize(_to_tensor(self._eval_crop(_checked(picture))))
        if isinstance(picture, Tensor) and picture.ndim > 3:
            raise ValueError(
                f"The pictures have the shape {tuple(picture.shape)}; expected one picture (3, H, W), since "
                "each is changed in its own way in training. Transform them one by one."
            )
        rng = random.Random(int(torch.randint(2**62, ())))
        uint8 = F.to_dtype(_to_tensor(_checked(picture)), torch.uint8, scale=True)
        return self.preset.normalize(self.pixels(uint8, rng))

    def pixels(self, picture: Tensor, rng: random.Random) -> Tensor:
        """Do all but the normalisation, uint8 to uint8, with the random choices drawn from `rng`.

        A callable `augment` draws from wherever it likes.
        """
        if callable(self.augment):
            return _checked_augmented(self.augment(_to_tensor(self._eval_crop(picture))))
        if self.augment not in augmenting.SMALLEST_CROP:
            crop = _to_tensor(self._eval_crop(picture))
            return crop if self.augment == "none" else augmenting.jitter_color(crop, rng)
        crop = augmenting.random_resized_crop(
            picture,
            self.preset.crop,
            augmenting.SMALLEST_CROP[self.augment],
            InterpolationMode(self.preset.interpolation),
            rng,
        )
        crop = augmenting.random_flip(crop, rng)
        if self.augment == "strong":
            crop = augmenting.random_erase(augmenting.trivial_augment(crop, rng), rng)
        return crop

    def _eval_crop(self, picture: Picture) -> Picture:
        resize = self.preset.resize_size
        size = list(resize) if isinstance(resize, tuple) else [resize]
        picture = _resize(picture, size, InterpolationMode(self.preset.interpolation))
        crop: Picture = F.center_crop(picture, list(self.preset.crop))
        return crop

    def _normalize(self, crop: Tensor) -> Tensor:
        if crop.dtype == torch.uint8:
            return self.preset.normalize(crop)
        normalized: Tensor = F.normalize(crop.float(), list(self.preset.mean), list(self.preset.std))
        return normalized


def _resize(picture: Picture, size: list[Any], interpolation: InterpolationMode) -> Picture:
    """Resize as torchvision's presets do, which go through floats.

    In uint8 the bicubic filter clips its overshoot after each of its two passes, and hard edges come out up
    to 12 levels off; the bilinear one has none, and is faster in uint8.
    """
    if (
        interpolation is InterpolationMode.BICUBIC
        and isinstance(picture, Tensor)
        and picture.dtype == torch.uint8
    ):
        resized: Tensor = F.resize(picture.float(), size, interpolation, antialias=True)
        return resized.round_().clamp_(0, 255).to(torch.uint8)
    result: Picture = F.resize(picture, size, interpolation, antialias=True)
    return result


def _checked(picture: Picture) -> Picture:
    """Give the picture in RGB; refuse what would be misread."""
    if isinstance(picture, Image.Image):
        return picture if picture.mode == "RGB" else F.to_pil_image(pil_to_tensor(picture))
    if not isinstance(picture, Tensor):
        raise TypeError(
            f"The picture is a {type(picture).__name__}; expected a PIL picture or a tensor (3, H, W). "
            "To read a file, use layerkit.decode(path)."
        )
    channels = picture.shape[-3] if picture.ndim in (3, 4) else None
    if channels not in (1, 3):
        raise ValueError(
            f"The picture has the shape {tuple(picture.shape)}; expected a tensor (3, H, W), channels first. "
            "For an array (H, W, 3), use torch.from_numpy(array).permute(2, 0, 1)."
        )
    if picture.dtype != torch.uint8 and not picture.is_floating_point():
        raise ValueError(
            f"The picture's dtype is {picture.dtype}; expected uint8, or floating point between 0 and 1. For "
            "whole numbers from 0 to 255, use picture.to(torch.uint8)."
        )
    if picture.is_floating_point() and picture.max() > 1.01:  # resizing overshoots by a little
        raise ValueError(
            f"The picture holds {picture.max().item():g}; expected floating point between 0 and 1, not yet "
            "normalised. For numbers from 0 to 255, use picture.to(torch.uint8)."
        )
    return picture if channels == 3 else picture.expand(*picture.shape[:-3], 3, -1, -1)


def _checked_augmented(pixels: Tensor) -> Tensor:
    if (
        isinstance(pixels, Tensor)
        and pixels.dtype == torch.uint8
        and pixels.ndim == 3
        and pixels.shape[0] == 3
    ):
        return pixels
    what = (
        f"{pixels.dtype} {tuple(pixels.shape)}"
        if isinstance(pixels, Tensor)
        else f"a {type(pixels).__name__}"
    )
    raise ValueError(
        f"`augment` gave {what}; expected a uint8 tensor (3, H, W). Leave converting and normalising to the "
        "preset."
    )


def _to_tensor(picture: Picture) -> Tensor:
    return picture if isinstance(picture, Tensor) else pil_to_tensor(picture)
