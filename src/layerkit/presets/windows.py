"""Cut a box out of a picture and resize it, without making pixels that nobody keeps."""

import math
import platform
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from layerkit.decoding import PictureFile, pil_to_tensor

_PILLOW = {
    InterpolationMode.BILINEAR: Image.Resampling.BILINEAR,
    InterpolationMode.BICUBIC: Image.Resampling.BICUBIC,
}


class Window(NamedTuple):
    """A box of the whole picture, what it is resized to, and which part of that is kept.

    Parameters
    ----------
    top, left, height, width : int
        The box, in pixels of the whole picture, upright.
    resized : (int, int)
        The height and width that it is resized to.
    offset : (int, int)
        Where the part that is kept begins in that.
    size : (int, int)
        Height and width of the part that is kept.
    """

    top: int
    left: int
    height: int
    width: int
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    def read(self, file: PictureFile, interpolation: InterpolationMode) -> Tensor:
        """Read the window of a file, reduced as far as no pixel need be invented for it."""
        height, width = file.size
        at_least = (
            math.ceil(height * self.resized[0] / self.height),
            math.ceil(width * self.resized[1] / self.width),
        )
        reduction = file.reduction(at_least)
        if reduction == 1:
            return self.of(file.decode(), interpolation)
        # Pillow has it already, and takes a box that begins between two pixels.
        image = file.reduced(reduction).resize(self.size[::-1], _PILLOW[interpolation], self._box(reduction))
        return pil_to_tensor(image)

    def of(self, picture: Tensor, interpolation: InterpolationMode) -> Tensor:
        """Cut the window out of a uint8 picture (..., 3, H, W) on a CPU; the result shares no memory with it."""
        rows = _Span.plan(
            self.top, self.height, self.resized[0], self.offset[0] + self.size[0], interpolation
        )
        columns = _Span.plan(
            self.left, self.width, self.resized[1], self.offset[1] + self.size[1], interpolation
        )
        source = picture[..., rows.first : rows.last, columns.first : columns.last]
        made = _resize(source, rows, columns, interpolation)
        top, left = self.offset
        return made[..., top : top + self.size[0], left : left + self.size[1]]

    def _box(self, reduction: int) -> tuple[float, float, float, float]:
        """Give left, top, right and bottom of what is kept, in pixels of the reduced picture."""
        down, across = self.height / self.resized[0] / reduction, self.width / self.resized[1] / reduction
        left = self.left / reduction + self.offset[1] * across
        top = self.top / reduction + self.offset[0] * down
        return left, top, left + self.size[1] * across, top + self.size[0] * down


def resized_size(size: tuple[int, int], to: int | tuple[int, int]) -> tuple[int, int]:
    """Give height and width after a resize of the shorter side, or to a pair, as torchvision rounds them."""
    if isinstance(to, tuple):
        return to
    height, width = size
    return (to, int(to * width / height)) if height <= width else (int(to * height / width), to)


class _Span(NamedTuple):
    """One axis of a window: which pixels are resized, and to how many.

    It begins with the box, so that every output stands where a resize of the whole box has it, and ends with
    the last pixel that the outputs kept look at.
    """

    first: int
    last: int
    ratio: float  # pixels read for one made
    made: int

    @classmethod
    def plan(
        cls, start: int, length: int, resized: int, needed: int, interpolation: InterpolationMode
    ) -> "_Span":
        """Leave out what lies beyond the outputs that are needed."""
        ratio = length / resized
        reach = (2 if interpolation is InterpolationMode.BICUBIC else 1) * max(1.0, ratio)
        read = min(length, math.ceil(needed * ratio + reach))
        # As many read as made would be no resize at all to torch, whatever the ratio.
        return cls(start, start + read, ratio, needed + (read == needed and ratio != 1))


def _resize(source: Tensor, rows: _Span, columns: _Span, interpolation: InterpolationMode) -> Tensor:
    """Resize as torchvision's `resize(antialias=True)` does, but by a ratio that is not that of the sizes.

    torchvision and `interpolate` have no argument for both. In uint8 the bicubic filter clips its overshoot
    after each of its two passes, and hard edges come out up to 12 levels off, so that it goes through floats;
    the bilinear one has no overshoot, and is faster in uint8 where the processor has instructions for it.
    """
    if rows.ratio == columns.ratio == 1:
        return source[..., : rows.made, : columns.made].clone()
    kernel = (
        torch.ops.aten._upsample_bicubic2d_aa
        if interpolation is InterpolationMode.BICUBIC
        else torch.ops.aten._upsample_bilinear2d_aa
    )
    batch = source if source.ndim == 4 else source.unsqueeze(0)
    native = interpolation is InterpolationMode.BILINEAR and _has_fast_uint8()
    out: Tensor = kernel(
        batch if native else batch.float(),
        (rows.made, columns.made),
        False,
        1 / rows.ratio,
        1 / columns.ratio,
    )
    out = out if source.ndim == 4 else out[0]
    return out if native else out.round_().clamp_(0, 255).to(torch.uint8)


def _has_fast_uint8() -> bool:
    """Tell whether torch resizes uint8 faster than floats here; torchvision asks the same."""
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return fast or platform.machine() in ("aarch64", "arm64")
