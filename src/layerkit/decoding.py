"""One picture file to one uint8 tensor."""

import io
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from layerkit.errors import PictureError

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def decode(source: str | Path | bytes) -> Tensor:
    """Decode one picture to RGB, upright as its EXIF orientation says.

    Parameters
    ----------
    source : str, Path or bytes
        A picture file, or its contents.

    Returns
    -------
    Tensor, shape (3, H, W), uint8
        Grey, palette, CMYK and 16-bit pictures are converted to 8-bit RGB, an alpha channel is dropped
        (as ``Image.convert("RGB")`` does), and an animation gives its first frame.

    Raises
    ------
    PictureError
        The file is no picture, or is cut short. It is an `OSError` too.
    FileNotFoundError
        There is no such file.

    Notes
    -----
    JPEG, PNG, WebP, AVIF and HEIC go through torchcodec, which decodes straight into a tensor. Every other
    format goes through Pillow, and so do animations, of which torchcodec would decode all frames, and all
    pictures on a machine for which torchcodec has no wheel. Both give the same pixels.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("L", (4, 2), 200).save(file, "PNG")
    >>> decode(file.getvalue()).shape
    torch.Size([3, 2, 4])
    """
    name = f"the {len(source):,} bytes given" if isinstance(source, bytes) else str(source)
    encoded = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        return _decode(encoded)
    except Exception as error:  # each decoder has errors of its own
        raise PictureError(
            f"{name}: cannot be decoded ({_reason(error)}); expected a whole picture file. "
            "Remove or replace it, or pass errors='skip' to the loaders."
        ) from error


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Turn a PIL picture of any mode into an RGB uint8 tensor (3, H, W).

    Parameters
    ----------
    image : PIL.Image.Image
        The picture. One of 16 or 32 bits a pixel is taken to use the range of 16 bits.

    Returns
    -------
    Tensor, shape (3, H, W), uint8

    Raises
    ------
    ValueError
        The pixels are floating-point numbers.
    """
    if image.mode == "F":
        raise ValueError(
            "The picture has floating-point pixels, whose range is not known; expected whole numbers. "
            "Scale it to 0..255 and save it as PNG."
        )
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16 bits at 255
        grey = torch.from_numpy(np.array(image, dtype=np.float32)).div_(257).round_().clamp_(0, 255)
        return grey.to(torch.uint8).expand(3, -1, -1).contiguous()
    if image.mode == "P":  # the direct way warns where the palette has transparent colours
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _decode(encoded: bytes) -> Tensor:
    if _is_heif(encoded):
        return _decode_heif(encoded)
    if _is_still(encoded) and _has_torchcodec():
        return _decode_with_torchcodec(encoded)
    return _decode_with_pillow(encoded)


def _is_still(encoded: bytes) -> bool:
    """Tell by the first bytes, since suffixes lie, whether torchcodec reads this and finds one frame only."""
    if encoded.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return True
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return not (encoded[12:16] == b"VP8X" and encoded[20:21] and encoded[20] & 0b10)
    return encoded[4:12] == b"ftypavif"


def _is_heif(encoded: bytes) -> bool:
    return encoded[4:8] == b"ftyp" and encoded[8:12] in _HEIF_BRANDS


@cache
def _has_torchcodec() -> bool:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):  # no wheel here, or one made for another torch
        return False
    return True


def _decode_with_torchcodec(encoded: bytes) -> Tensor:
    from torchcodec.decoders import decode_image

    picture: Tensor = decode_image(encoded, mode="RGB")
    return picture if picture.ndim == 3 else picture[0]


def _decode_with_pillow(encoded: bytes) -> Tensor:
    with Image.open(io.BytesIO(encoded)) as image:
        return pil_to_tensor(ImageOps.exif_transpose(image))


def _decode_heif(encoded: bytes) -> Tensor:
    if _has_torchcodec():
        try:
            return _decode_with_torchcodec(encoded)
        except ImportError:  # the system has no libheif; the user may have registered a plugin of Pillow's
            pass
    try:
        return _decode_with_pillow(encoded)
    except UnidentifiedImageError as error:
        raise ValueError(
            "HEIC, for which this machine has no decoder: install the system's libheif, or install "
            "pillow-heif and call pillow_heif.register_heif_opener()"
        ) from error


def _reason(error: Exception) -> str:
    """Give the decoder's own words, without places in C++ sources and in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "its first bytes are of no known picture format"
    return re.sub(r"^.*\.cpp:\d+, ", "", str(error)).strip() or type(error).__name__
