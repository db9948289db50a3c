"""From a picture to what the backbone takes."""

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from layerkit import augmenting
from layerkit.augmenting import Augment
from layerkit.decoding import PictureFile, pil_to_tensor
from layerkit.presets.windows import Window, resized_size

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

    def __call__(self, picture: Picture | PictureFile) -> Tensor:
        """Give the normalised picture, float32."""
        if self.augment == "none" and not isinstance(picture, PictureFile):
            return self._normalize(_to_tensor(self._eval_crop(_checked(picture))))
        if isinstance(picture, Tensor) and picture.ndim > 3:
            raise ValueError(
                f"The pictures have the shape {tuple(picture.shape)}; expected one picture (3, H, W), since "
                "each is changed in its own way in training. Transform them one by one."
            )
        rng = random.Random(0 if self.augment == "none" else int(torch.randint(2**62, ())))
        if isinstance(picture, PictureFile):
            return self.preset.normalize(self.pixels(picture, rng))
        uint8 = F.to_dtype(_to_tensor(_checked(picture)), torch.uint8, scale=True)
        return self.preset.normalize(self.pixels(uint8, rng))

    def pixels(self, picture: Tensor | PictureFile, rng: random.Random) -> Tensor:
        """Do all but the normalisation, with the random choices drawn from `rng`.

        A callable `augment` draws from wherever it likes. The result shares no memory with the picture.

        Parameters
        ----------
        picture : Tensor, shape (3, H, W), uint8, or PictureFile
            A picture, or a file, which is then read at the scale that is needed and no larger.
        rng : random.Random
            The sample's own generator.

        Returns
        -------
        Tensor, shape (3, crop height, crop width), uint8
        """
        size = picture.size if isinstance(picture, PictureFile) else (picture.shape[-2], picture.shape[-1])
        smallest = augmenting.SMALLEST_CROP.get(cast("Augment", self.augment))
        if smallest is None:
            crop = self._middle(picture, size)
            if callable(self.augment):
                return _checked_augmented(self.augment(crop))
            return crop if self.augment == "none" else augmenting.jitter_color(crop, rng)
        window = Window(
            *augmenting.random_window(*size, smallest, rng), self.preset.crop, (0, 0), self.preset.crop
        )
        crop = augmenting.random_flip(self._read(window, picture), rng)
        if self.augment == "strong":
            crop = augmenting.random_erase(augmenting.trivial_augment(crop, rng), rng)
        return crop

    @property
    def working_size(self) -> int | tuple[int, int]:
        """What a picture may be resized to once and for all: its shorter side, or height and width.

        In evaluation that is the preset's `resize_size`; in training the shorter side that leaves the
        smallest random crop as large as the backbone wants it.
        """
        smallest = augmenting.SMALLEST_CROP.get(cast("Augment", self.augment))
        if smallest is None:
            return cast("int | tuple[int, int]", self.preset.resize_size)
        return math.ceil(max(self.preset.crop) / math.sqrt(smallest))

    def _read(self, window: Window, picture: Tensor | PictureFile) -> Tensor:
        interpolation = InterpolationMode(self.preset.interpolation)
        if isinstance(picture, PictureFile):
            return window.read(picture, interpolation)
        return window.of(picture, interpolation)

    def _middle(self, picture: Tensor | PictureFile, size: tuple[int, int]) -> Tensor:
        """Make the eval crop of a uint8 picture."""
        resized = resized_size(size, cast("int | tuple[int, int]", self.preset.resize_size))
        height, width = (min(whole, part) for whole, part in zip(resized, self.preset.crop, strict=True))
        # Rounded as torchvision's center_crop does it, halves to the even number.
        offset = (round((resized[0] - height) / 2), round((resized[1] - width) / 2))
        crop = self._read(Window(0, 0, *size, resized, offset, (height, width)), picture)
        padded: Tensor = (
            crop if (height, width) == self.preset.crop else F.center_crop(crop, list(self.preset.crop))
        )
        return padded

    def _eval_crop(self, picture: Picture) -> Picture:
        """Make the eval crop of anything that torchvision takes."""
        if isinstance(picture, Tensor) and picture.dtype == torch.uint8 and picture.device.type == "cpu":
            return self._middle(picture, (picture.shape[-2], picture.shape[-1]))
        resize = self.preset.resize_size
        size = list(resize) if isinstance(resize, tuple) else [resize]
        picture = F.resize(picture, size, InterpolationMode(self.preset.interpolation), antialias=True)
        crop: Picture = F.center_crop(picture, list(self.preset.crop))
        return crop

    def _normalize(self, crop: Tensor) -> Tensor:
        if crop.dtype == torch.uint8:
            return self.preset.normalize(crop)
        normalized: Tensor = F.normalize(crop.float(), list(self.preset.mean), list(self.preset.std))
        return normalized


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
