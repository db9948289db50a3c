"""One picture file to one uint8 tensor."""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from layerkit.errors import PictureError

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


_REDUCTIONS = (8, 4, 2)  # what the DCT gives for less; 3/8 or 6/8 cost more than no reduction
_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height change places


def decode(source: str | Path | bytes, *, at_least: tuple[int, int] | None = None) -> Tensor:
    """Decode one picture to RGB, upright as its EXIF orientation says.

    Parameters
    ----------
    source : str, Path or bytes
        A picture file, or its contents.
    at_least : (int, int), optional
        The smallest height and width that will do. A JPEG of twice, four times or eight times that size is
        read at 1/2, 1/4 or 1/8 scale, which takes a fraction of the time. By default every picture comes out
        whole.

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

    A reduced JPEG is Pillow's too: libjpeg leaves out the high frequencies, which a resize would blur away.
    What is resized from it differs a little from what is resized from the whole picture.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("L", (4, 2), 200).save(file, "PNG")
    >>> decode(file.getvalue()).shape
    torch.Size([3, 2, 4])
    """
    picture = PictureFile(source)
    return picture.decode(1 if at_least is None else picture.reduction(at_least))


class PictureFile:
    """A picture in its encoded form: its size is asked first, and then how much of it is needed.

    Parameters
    ----------
    source : str, Path or bytes
        A picture file, or its contents.
    exact : bool
        Whether never to reduce it.
    """

    def __init__(self, source: str | Path | bytes, *, exact: bool = False) -> None:
        self._exact = exact
        self._name = f"the {len(source):,} bytes given" if isinstance(source, bytes) else str(source)
        self._encoded = source if isinstance(source, bytes) else _read_bytes(source)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture, upright."""
        return self._header.size if self._header else (self._whole.shape[-2], self._whole.shape[-1])

    @cached_property
    def _header(self) -> "_Header | None":
        """What a JPEG's header says; other kinds are read whole in any case."""
        return _read_header(self._encoded) if self._encoded.startswith(_JPEG) else None

    @cached_property
    def _whole(self) -> Tensor:
        with self._naming():
            _refuse_bomb(self._header.size if self._header else _png_size(self._encoded))
            picture = _decode(self._encoded)
            if self._header and self._header.size != picture.shape[-2:]:  # they differ over a malformed EXIF
                return _decode_with_pillow(self._encoded)
            return picture

    def reduction(self, at_least: tuple[int, int]) -> int:
        """Tell by how much the picture may be reduced so that it keeps a height and a width.

        Parameters
        ----------
        at_least : (int, int)
            The smallest height and width that will do.

        Returns
        -------
        int
            8, 4 or 2 where the picture is a JPEG and that large, else 1.
        """
        if self._exact or self._header is None:
            return 1
        height, width = self._header.size
        ratio = min(height // at_least[0], width // at_least[1])
        # The last block of a side that is no multiple stands over the edge. In a turned picture that edge may
        # come first, and everything would be moved.
        fitting = (n for n in _REDUCTIONS if not self._header.turned or height % n == width % n == 0)
        return next((reduction for reduction in fitting if ratio >= reduction), 1)

    def decode(self, reduction: int = 1) -> Tensor:
        """Decode the picture, in RGB and upright.

        Parameters
        ----------
        reduction : int
            From `reduction`.

        Returns
        -------
        Tensor, shape (3, H, W), uint8
            Height and width divided by the reduction, rounded up.

        Raises
        ------
        PictureError
            The file is no picture, or is cut short.
        """
        return self._whole if reduction == 1 else pil_to_tensor(self.reduced(reduction))

    def reduced(self, reduction: int) -> Image.Image:
        """Decode the picture at a fraction of its scale, to a picture of Pillow's in RGB and upright.

        Parameters
        ----------
        reduction : int
            8, 4 or 2, from `reduction`.

        Returns
        -------
        PIL.Image.Image

        Raises
        ------
        PictureError
            The file is cut short.
        """
        with self._naming(), _open(self._encoded) as image:
            image.draft(None, (image.width // reduction, image.height // reduction))
            upright = ImageOps.exif_transpose(image)
            return upright if upright.mode == "RGB" else upright.convert("RGB")

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the file in whatever goes wrong; each decoder has errors of its own."""
        try:
            yield
        except Exception as error:
            raise PictureError(
                f"{self._name}: cannot be decoded ({_reason(error)}); expected a whole picture file. "
                "Remove or replace it, or pass errors='skip' to the loaders."
            ) from error


def _read_bytes(path: str | Path) -> bytes:
    """Read a file without a Path, which would leave each name behind in Python's table of shared strings."""
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


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


def _png_size(encoded: bytes) -> tuple[int, int] | None:
    """Read height and width where they always stand in a PNG."""
    if not encoded.startswith(_PNG) or len(encoded) < 24:
        return None
    width, height = struct.unpack(">II", encoded[16:24])
    return height, width


def _refuse_bomb(size: tuple[int, int] | None) -> None:
    """Hold Pillow's limit for torchcodec too: a small file can be made to fill all memory."""
    limit = Image.MAX_IMAGE_PIXELS
    if size is not None and limit is not None and size[0] * size[1] > 2 * limit:
        raise ValueError(
            f"{size[1]} x {size[0]} pixels are more than {2 * limit:,}; for pictures of your own that are so large, "
            "raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def _decode(encoded: bytes) -> Tensor:
    if _is_heif(encoded):
        return _decode_heif(encoded)
    if _is_still(encoded) and _has_torchcodec():
        return _decode_with_torchcodec(encoded)
    return _decode_with_pillow(encoded)


def _is_still(encoded: bytes) -> bool:
    """Tell by the first bytes, since suffixes lie, whether torchcodec reads this and finds one frame only."""
    if encoded.startswith((_JPEG, _PNG)):
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


class _Header(NamedTuple):
    """What a JPEG says before its pixels."""

    size: tuple[int, int]  # height and width, upright
    turned: bool


def _read_header(encoded: bytes) -> _Header | None:
    size = _size_without_exif(encoded)
    if size is not None:
        return _Header(size, turned=False)
    try:
        with _open(encoded) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            size = image.size if orientation >= 5 else image.size[::-1]
            return _Header(size, turned=orientation != 1)
    except Exception:  # rare kinds that torchcodec may yet read; what is no picture it refuses itself
        return None


def _size_without_exif(encoded: bytes) -> tuple[int, int] | None:
    """Read height and width of an ordinary JPEG; Pillow's header takes as long as a tenth of a decode."""
    size, at = None, 2
    while encoded[at : at + 2] != b"\xff\xda":  # where the pixels begin
        marker, segment = encoded[at : at + 2], encoded[at + 2 : at + 9]
        if len(segment) < 7 or marker[0] != 0xFF or (marker[1] == 0xE1 and segment[2:] == b"Exif\0"):
            return None
        if marker[1] in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            size = (int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big"))
        at += 2 + int.from_bytes(segment[:2], "big")
    return size


def _open(encoded: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(encoded))
    if image.format == "JPEG":  # Pillow would follow an orientation in XMP, which torchcodec does not read
        image.info.pop("xmp", None)
    return image


def _decode_with_pillow(encoded: bytes) -> Tensor:
    with _open(encoded) as image:
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
