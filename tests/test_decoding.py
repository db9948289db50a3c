"""Any picture file comes out as an upright RGB tensor, the same on both roads, or as an error that names it."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageFilter, ImageOps, UnidentifiedImageError
from torch import Tensor

from layerkit import decoding
from layerkit.decoding import PictureFile, decode, pil_to_tensor
from layerkit.errors import PictureError

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(3))
ALPHA = Image.fromarray(RNG.integers(0, 256, (40, 60), dtype=np.uint8))
DEPTH_16 = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27


@pytest.fixture(params=["torchcodec", "Pillow"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take each road in turn; the first is for the formats that torchcodec reads."""
    if request.param == "torchcodec":
        pytest.importorskip("torchcodec")
    else:
        monkeypatch.setattr(decoding, "_has_torchcodec", lambda: False)
    return str(request.param)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgba() -> Image.Image:
    image = PHOTO.convert("RGBA")
    image.putalpha(ALPHA)
    return image


def expected(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


MODES: dict[str, Callable[[], Image.Image]] = {
    "RGB": lambda: PHOTO,
    "L": lambda: PHOTO.convert("L"),
    "1": lambda: PHOTO.convert("1"),
    "P": lambda: PHOTO.convert("P"),
    "LA": lambda: PHOTO.convert("LA"),
    "RGBA": rgba,
    "CMYK": lambda: PHOTO.convert("CMYK"),
}
FORMATS = {
    "PNG": ["RGB", "L", "1", "P", "LA", "RGBA"],
    "TIFF": ["RGB", "L", "1", "P", "RGBA", "CMYK"],
    "BMP": ["RGB", "L", "1", "P"],
    "PPM": ["RGB", "L", "1"],
    "GIF": ["L", "P"],
    "WEBP": ["RGB", "RGBA"],
}


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in FORMATS.items() for mode in modes]
)
def test_lossless_formats_give_the_pixels_back(road: str, kind: str, mode: str) -> None:
    """Every mode of a lossless format comes out as its RGB pixels, alpha dropped."""
    image = MODES[mode]()
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert torch.equal(decode(encoded(image, kind, **options)), expected(image))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("AVIF", "RGB"), ("AVIF", "L")],
)
def test_lossy_formats_come_close(road: str, kind: str, mode: str) -> None:
    """A lossy file is read to within its own loss."""
    image = MODES[mode]()
    difference = decode(encoded(image, kind, quality=95)).float() - expected(image).float()
    assert difference.abs().mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG"])
def test_both_roads_give_the_same_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without torchcodec the bits are the same."""
    pytest.importorskip("torchcodec")
    data = encoded(PHOTO, kind)
    fast = decode(data)
    monkeypatch.setattr(decoding, "_has_torchcodec", lambda: False)
    assert torch.equal(fast, decode(data))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_range(road: str, kind: str) -> None:
    """A 16-bit grey picture is scaled to 8 bits, not clipped at 255."""
    grey = torch.from_numpy((DEPTH_16 / 257).round().astype(np.uint8))
    picture = decode(encoded(Image.fromarray(DEPTH_16), kind))
    assert picture.shape == (3, 40, 60)
    assert (picture.int() - grey.int()).abs().max() <= 1


def test_16_bit_colour_keeps_its_range(road: str) -> None:
    """So is a 16-bit PNG in colour, which Pillow cannot write."""
    deep = RNG.integers(0, 65536, (5, 4, 3), dtype=np.uint16)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0)
    file = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    wanted = torch.from_numpy(deep.astype(np.float32) / 257).permute(2, 0, 1)
    assert (decode(file).float() - wanted).abs().max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(road: str, kind: str) -> None:
    """Of several frames the first is taken."""
    first = PHOTO.convert("P") if kind == "GIF" else PHOTO
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[ImageOps.invert(PHOTO)], **options)
    assert torch.equal(decode(data), expected(first))


def test_an_animation_cut_in_its_second_frame_still_has_its_first(road: str) -> None:
    """Only the first frame of a GIF is read, on every machine."""
    first = PHOTO.convert("P")
    data = encoded(first, "GIF", save_all=True, append_images=[ImageOps.invert(PHOTO)])
    assert torch.equal(decode(data[:-500]), expected(first))


@pytest.mark.parametrize("options", [{"transparency": 0}, {"transparency": bytes(range(256))}])
def test_transparent_palettes_raise_no_warning(road: str, options: dict[str, Any]) -> None:
    """A palette with transparent colours is read without Pillow's warning."""
    image = PHOTO.convert("P")
    assert torch.equal(decode(encoded(image, "PNG", **options)), expected(image))


# What undoes each EXIF orientation, written as numpy operations on (H, W, 3).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_honoured_once(road: str, kind: str, orientation: int) -> None:
    """A rotated or mirrored picture comes out upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    plain = decode(encoded(PHOTO, kind, **options)).permute(1, 2, 0).numpy()
    upright = torch.from_numpy(UPRIGHT[orientation](plain).copy()).permute(2, 0, 1)
    assert torch.equal(decode(encoded(PHOTO, kind, exif=exif, **options)), upright)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, of a cut TIFF
def test_truncated_files_are_errors_that_name_them(road: str, kind: str, kept: float, tmp_path: Path) -> None:
    """No road fills in what is missing."""
    data = encoded(PHOTO, kind)
    file = tmp_path / "cut.jpg"
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(PictureError, match=r"cut\.jpg: cannot be decoded .*; expected a whole picture file"):
        decode(file)


@pytest.mark.parametrize(
    "content", [b"", b"these are words", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF"]
)
def test_files_that_are_no_pictures_are_errors_that_name_them(
    road: str, content: bytes, tmp_path: Path
) -> None:
    """Text, an empty file and a bare signature are refused, in words and without addresses in memory."""
    file = tmp_path / "words.jpg"
    file.write_bytes(content)
    with pytest.raises(PictureError, match=r"words\.jpg: cannot be decoded") as caught:
        decode(str(file))
    assert "0x" not in str(caught.value)
    assert ".cpp" not in str(caught.value)
    assert isinstance(caught.value, OSError)


def test_bytes_are_described_by_their_number() -> None:
    """Contents without a file are told apart by their size."""
    with pytest.raises(PictureError, match="the 15 bytes given"):
        decode(b"these are words")


def test_a_missing_file_is_the_usual_error(tmp_path: Path) -> None:
    """A path that leads nowhere is no damaged picture."""
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        decode(tmp_path / "nowhere.jpg")


def test_floating_point_pixels_are_refused() -> None:
    """A TIFF of floats has no range that anyone could know."""
    image = Image.fromarray(np.ones((3, 4), dtype=np.float32))
    with pytest.raises(PictureError, match="floating-point pixels"):
        decode(encoded(image, "TIFF"))
    with pytest.raises(ValueError, match=r"Scale it to 0\.\.255"):
        pil_to_tensor(image)


HEIC = struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0mif1heic" + b"\0" * 100


def test_heic_without_a_decoder_says_what_to_install(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither libheif nor a plugin is there, the error names both."""

    def without_libheif(encoded: bytes) -> Tensor:
        raise ImportError("no libheif")

    monkeypatch.setattr(decoding, "_decode_with_torchcodec", without_libheif)
    with pytest.raises(PictureError, match=r"install the system's libheif, or install pillow-heif"):
        decode(HEIC)


def test_heic_takes_a_plugin_of_pillow(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered Pillow plugin reads HEIC where torchcodec cannot."""

    def without_libheif(encoded: bytes) -> Tensor:
        raise ImportError("no libheif")

    def with_plugin(encoded: bytes) -> Tensor:
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    monkeypatch.setattr(decoding, "_decode_with_torchcodec", without_libheif)
    monkeypatch.setattr(decoding, "_decode_with_pillow", with_plugin)
    assert decode(HEIC).shape == (3, 2, 2)


def test_pillow_alone_does_not_know_the_fake_heic() -> None:
    """The bytes that stand for HEIC here are unknown to Pillow without a plugin."""
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(HEIC))


LARGE = PHOTO.resize((480, 320), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("at_least", "size"),
    [
        ((320, 480), 1),
        ((161, 240), 1),
        ((160, 240), 2),
        ((80, 121), 2),
        ((80, 120), 4),
        ((40, 60), 8),
        ((1, 1), 8),
    ],
)
def test_large_jpegs_are_read_at_a_smaller_scale(at_least: tuple[int, int], size: int) -> None:
    """Never below what is asked for, and close to the mean of the pixels that are left out."""
    data = encoded(LARGE, "JPEG", quality=95)
    picture = decode(data, at_least=at_least)
    assert picture.shape == (3, 320 // size, 480 // size)
    means = decode(data).double().unfold(1, size, size).unfold(2, size, size).mean((-2, -1))
    assert (picture - means).abs().mean() < 0.6


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_reduced_jpegs_come_out_in_rgb(mode: str) -> None:
    """Grey and CMYK too."""
    picture = decode(encoded(LARGE.convert(mode), "JPEG"), at_least=(40, 60))
    whole = decode(encoded(LARGE.convert(mode), "JPEG")).double()
    assert picture.shape == (3, 40, 60)
    assert (picture - whole.unfold(1, 8, 8).unfold(2, 8, 8).mean((-2, -1))).abs().mean() < 1.5


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_read_whole(kind: str) -> None:
    """Only a JPEG has smaller scales inside."""
    data = encoded(LARGE, kind)
    assert torch.equal(decode(data, at_least=(10, 10)), decode(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(480, 320), (477, 323)])
def test_reduced_jpegs_are_upright_and_in_their_place(orientation: int, size: tuple[int, int]) -> None:
    """Width and height change places before they are compared; what would move in turning is read whole."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PHOTO.resize(size, Image.Resampling.BICUBIC), "JPEG", exif=exif)
    whole = decode(data)
    assert PictureFile(data).size == whole.shape[1:]
    reduced = decode(data, at_least=(whole.shape[1] // 4, whole.shape[2] // 4))
    if orientation > 1 and size[0] % 4:
        assert torch.equal(reduced, whole)
        return
    assert reduced.shape[1:] == tuple(-(-side // 4) for side in whole.shape[1:])
    means = whole[:, :316, :316].double().unfold(1, 4, 4).unfold(2, 4, 4).mean((-2, -1))
    assert (reduced[:, :79, :79] - means).abs().mean() < 0.6


def test_an_orientation_in_xmp_alone_is_not_followed(road: str) -> None:
    """As torchcodec has it, on every road, whole or reduced."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(LARGE, "JPEG", xmp=xmp)
    assert decode(data).shape == (3, 320, 480)
    assert decode(data, at_least=(40, 60)).shape == (3, 40, 60)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, 0.99])
def test_truncated_files_are_errors_when_reduced_too(kept: float, tmp_path: Path) -> None:
    """Nothing is filled in with grey, and nobody's global setting is changed."""
    data = encoded(LARGE, "JPEG")
    file = tmp_path / "cut.jpg"
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(PictureError, match=r"cut\.jpg: cannot be decoded .*; expected a whole picture file"):
        decode(file, at_least=(40, 60))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": b"words" * 20}, {"icc_profile": b"x" * 900}]
)
def test_the_size_in_the_header_is_that_of_the_picture(options: dict[str, Any]) -> None:
    """Whatever stands before it, and without Pillow."""
    data = encoded(LARGE, "JPEG", **options)
    assert decoding._size_without_exif(data) == (320, 480)
    assert PictureFile(data).size == (320, 480)
    for cut in range(0, 700, 7):  # a header cut anywhere has no size, or the right one
        assert decoding._size_without_exif(data[:cut]) in (None, (320, 480))
    assert decoding._size_without_exif(encoded(LARGE, "JPEG", exif=Image.Exif())) in (None, (320, 480))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_small_file_that_would_fill_all_memory_is_refused(kind, monkeypatch):
    """Pillow's own limit holds on every road, and the message says how to raise it."""
    file = io.BytesIO()
    Image.new("RGB", (60, 50)).save(file, kind)
    decode(file.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(
        PictureError, match=r"60 x 50 pixels are more than 2,000.*raise PIL.Image.MAX_IMAGE_PIXELS"
    ):
        decode(file.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(file.getvalue()).shape == (3, 50, 60)
