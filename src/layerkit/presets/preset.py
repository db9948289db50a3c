"""The sizes, the interpolation and the normalisation that a backbone expects."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights, get_weight, list_models
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import InterpolationMode

from layerkit.augmenting import LEVELS, Augment
from layerkit.errors import suggestion
from layerkit.presets.statistics import Statistics, channel_statistics
from layerkit.presets.transforms import Transform

IMAGENET_MEAN: Statistics = (0.485, 0.456, 0.406)
IMAGENET_STD: Statistics = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preset:
    """Describe how pictures enter a backbone: size, interpolation and normalisation.

    Parameters
    ----------
    crop_size : int or (int, int)
        Height and width of what the backbone sees, in pixels; one number means a square.
    resize_size : int or (int, int), optional
        What a picture is resized to before the crop: one number is the length of its shorter side, a pair is
        height and width (as in lessons that squash everything to 256 x 256). By default the crop keeps 7/8 of
        the shorter side, as torchvision's 224 of 256 does.
    mean, std : three floats
        Per channel, for pixels between 0 and 1. By default those of ImageNet.
    interpolation : InterpolationMode or str
        `bilinear` or `bicubic`, always antialiased.

    Examples
    --------
    >>> from torchvision.models import ResNet18_Weights
    >>> preset = Preset.from_weights(ResNet18_Weights.DEFAULT)
    >>> preset.crop_size, preset.resize_size
    (224, 256)
    >>> picture = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    >>> preset.eval()(picture).shape
    torch.Size([3, 224, 224])
    """

    crop_size: int | tuple[int, int]
    resize_size: int | tuple[int, int] | None = None
    mean: Statistics = IMAGENET_MEAN
    std: Statistics = IMAGENET_STD
    interpolation: InterpolationMode | str = InterpolationMode.BILINEAR

    def __post_init__(self) -> None:
        _check_size("crop_size", self.crop_size)
        if self.resize_size is None:
            object.__setattr__(self, "resize_size", round(max(self.crop) / 0.875))
        _check_size("resize_size", self.resize_size)
        object.__setattr__(self, "interpolation", _read_interpolation(self.interpolation))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _read_statistics(name, getattr(self, name)))

    @property
    def crop(self) -> tuple[int, int]:
        """The height and width of what the backbone sees."""
        return self.crop_size if isinstance(self.crop_size, tuple) else (self.crop_size, self.crop_size)

    @classmethod
    def from_weights(cls, weights: WeightsEnum | str) -> "Preset":
        """Take over what torchvision's pretrained weights expect.

        Parameters
        ----------
        weights : WeightsEnum or str
            For example ``ResNet18_Weights.DEFAULT``, or its name as a string.

        Returns
        -------
        Preset

        Raises
        ------
        TypeError
            `weights` is neither an entry nor a name.
        ValueError
            The weights are not for classifying pictures (detection, segmentation, video, optical flow), or
            there are none of that name.
        """
        if isinstance(weights, str):
            weights = _find_weights(weights)
        if not isinstance(weights, WeightsEnum):
            raise TypeError(
                f"`weights` is {weights!r}; expected an entry of a torchvision weights enum, such as "
                "ResNet18_Weights.DEFAULT. For a backbone without pretrained weights, use Preset(224)."
            )
        expected = weights.transforms()
        if not isinstance(expected, ImageClassification):
            raise ValueError(
                f"{weights} expects {type(expected).__name__}, and a Preset describes pictures for "
                "classification only. Use the transforms that come with it: weights.transforms()."
            )
        return cls(
            crop_size=_from_list(expected.crop_size),
            resize_size=_from_list(expected.resize_size),
            mean=tuple(expected.mean),
            std=tuple(expected.std),
            interpolation=expected.interpolation,
        )

    @classmethod
    def from_model(cls, name: str) -> "Preset":
        """Take over what the default weights of a torchvision model expect, by the model's name.

        Parameters
        ----------
        name : str
            A name of torchvision's registry, such as ``"resnet18"``.

        Returns
        -------
        Preset

        Raises
        ------
        ValueError
            torchvision has no model of that name, or none with pretrained weights for classification.
        """
        if name not in list_models():
            raise ValueError(
                f"{name!r} is no model of torchvision; expected a name such as 'resnet18'."
                f"{suggestion(name, list_models())} torchvision.models.list_models() lists them all."
            )
        weights = get_model_weights(name)
        if not len(weights):
            raise ValueError(
                f"torchvision has no pretrained weights for {name!r}; expected a model that has some. "
                "Describe what it was trained with by hand: Preset(224)."
            )
        return cls.from_weights(weights.DEFAULT)

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        crop_size: int | tuple[int, int] = 224,
        *,
        resize_size: int | tuple[int, int] | None = None,
        interpolation: InterpolationMode | str = InterpolationMode.BILINEAR,
    ) -> "Preset":
        """Measure mean and standard deviation on a folder's own pictures.

        Parameters
        ----------
        root : str or Path
            A folder of pictures; where it holds a part named ``train``, only that is measured.
        crop_size, resize_size, interpolation : optional
            As in `Preset`.

        Returns
        -------
        Preset

        Raises
        ------
        FileNotFoundError
            There is no such folder.
        ValueError
            It holds no picture.

        Notes
        -----
        For a backbone that starts from random weights. A pretrained one wants the statistics that it was
        trained with: `from_weights`.
        """
        train = Path(root) / "train"
        mean, std = channel_statistics(train if train.is_dir() else root)
        return cls(crop_size, resize_size, mean, std, interpolation)

    def eval(self) -> Transform:
        """Make the transform for evaluation: resize, crop the middle, normalise.

        Returns
        -------
        Transform
            Takes a PIL picture or a tensor, gives float32 (3, H, W). It equals ``weights.transforms()`` for
            the weights that the preset was made from.
        """
        return Transform(self)

    def train(self, augment: Augment | Callable[[Tensor], Tensor] = "standard") -> Transform:
        """Make the transform for training: random changes, then normalise.

        Parameters
        ----------
        augment : {"none", "color", "light", "standard", "strong"} or callable
            - ``"none"``: as in evaluation.
            - ``"color"``: brightness, contrast and saturation; nothing moves, so coordinates stay true.
            - ``"light"``: a crop of at least half the area, and a mirror image every second time.
            - ``"standard"``: as ``"light"``, with crops down to a quarter of the area. (The 8% of torchvision's
              own recipe suit hundreds of epochs from scratch, not a few from pretrained weights.)
            - ``"strong"``: that, one more random operation (TrivialAugment) and random erasing.
            - a callable gets the eval crop as a uint8 tensor (3, H, W) and gives one back.

        Returns
        -------
        Transform
            Takes a PIL picture or a tensor, gives float32 (3, H, W).

        Raises
        ------
        ValueError
            There is no such level.
        """
        if not callable(augment) and augment not in LEVELS:
            raise ValueError(
                f"`augment` is {augment!r}; expected one of {', '.join(map(repr, LEVELS))}, or a callable on "
                f"a uint8 (3, H, W) tensor.{suggestion(str(augment), LEVELS)}"
            )
        return Transform(self, augment)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn pixels into what the backbone takes.

        Parameters
        ----------
        pixels : Tensor, shape (..., 3, H, W), uint8
            One picture or a batch, at the crop size.

        Returns
        -------
        Tensor of the same shape, float32
            ``(pixels / 255 - mean) / std``, with the same bits as ``weights.transforms()``.

        Raises
        ------
        ValueError
            The pixels are not uint8, or have not three channels.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim < 3 or pixels.shape[-3] != 3:
            raise ValueError(
                f"`pixels` has the dtype {pixels.dtype} and the shape {tuple(pixels.shape)}; expected uint8 "
                "(..., 3, H, W). For any other picture, use preset.eval()."
            )
        if pixels.device.type != "cpu":
            mean, std = self._columns(pixels.device)
            return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
        out = torch.empty(pixels.shape, dtype=torch.float32, device="cpu")
        self.normalize_into(out, pixels)
        return out

    def normalize_into(self, out: Tensor, pixels: Tensor) -> None:
        """Write what `normalize` gives into memory that is there already, on the CPU.

        Parameters
        ----------
        out : Tensor, shape (..., 3, H, W), float32
            Where to write; contiguous.
        pixels : Tensor of the same shape, uint8
            As in `normalize`.
        """
        # Picture by picture, each stays in the cache. NumPy does the same arithmetic without waking torch's
        # threads for every operation, for which a batch waits ten times as long where a model keeps them busy.
        mean, std = _as_columns(self.mean, self.std)
        rows, pictures = (x.reshape(-1, *pixels.shape[-3:]).numpy() for x in (out, pixels))
        for row, picture in zip(rows, pictures, strict=True):
            np.copyto(row, picture)
            row /= np.float32(255)
            row -= mean
            row /= std

    def undo(self, tensor: Tensor) -> Tensor:
        """Turn what the backbone takes back into a picture that can be shown.

        Parameters
        ----------
        tensor : Tensor, shape (3, H, W) or (N, 3, H, W), floating point
            Normalised pictures.

        Returns
        -------
        Tensor of the same shape, uint8
            ``plt.imshow(preset.undo(x).permute(1, 2, 0))`` shows it.

        Raises
        ------
        ValueError
            The tensor is no picture of floating-point numbers.
        """
        if tensor.ndim < 3 or tensor.shape[-3] != 3 or not tensor.is_floating_point():
            raise ValueError(
                f"`tensor` has the shape {tuple(tensor.shape)} and dtype {tensor.dtype}; expected normalised "
                "pictures, floating point (3, H, W) or (N, 3, H, W), as preset.eval() gives them."
            )
        mean, std = self._columns(tensor.device)
        return (tensor.detach().float() * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)

    def _columns(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = torch.tensor((self.mean, self.std), device=device)
        return mean.view(3, 1, 1), std.view(3, 1, 1)


@lru_cache
def _as_columns(mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[Any]:
    """Give them as they are taken from every pixel, float32 (2, 3, 1, 1)."""
    return np.array((mean, std), np.float32).reshape(2, 3, 1, 1)


def _find_weights(name: str) -> WeightsEnum:
    try:
        return get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        known = [str(weights) for model in list_models() for weights in get_model_weights(model)]
        raise ValueError(
            f"`weights` is {name!r}, which torchvision does not have; expected a name such as "
            f"'ResNet18_Weights.DEFAULT'.{suggestion(name, known)}"
        ) from error


def _from_list(size: list[int]) -> int | tuple[int, int]:
    return size[0] if len(size) == 1 else (size[0], size[1])


def _check_size(name: str, size: Any) -> None:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise ValueError(
            f"`{name}` is {size!r}; expected a whole number of pixels above zero, or a pair (height, width). "
            "torchvision's usual one is 224."
        )


def _read_interpolation(given: Any) -> InterpolationMode:
    modes = {mode.value: mode for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)}
    value = given.value if isinstance(given, InterpolationMode) else given
    if value not in modes:
        raise ValueError(
            f"`interpolation` is {given!r}; expected 'bilinear' or 'bicubic'.{suggestion(str(value), modes)}"
        )
    return modes[value]


def _read_statistics(name: str, given: Any) -> Statistics:
    try:
        red, green, blue = (float(value) for value in given)
        if not all(map(math.isfinite, (red, green, blue))) or (name == "std" and min(red, green, blue) <= 0):
            raise ValueError("a number that is not finite, or a standard deviation of zero")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` is {given!r}; expected three finite numbers{' above zero' if name == 'std' else ''}, one a "
            "channel, for pixels between 0 and 1. To measure them, use channel_statistics(folder)."
        ) from error
    return red, green, blue
