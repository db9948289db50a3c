"""What is wrong with each picture, seen by decoding it as training does."""

import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from layerkit.checking.layout import Layout
from layerkit.checking.report import Finding, finding
from layerkit.decoding import decode
from layerkit.errors import PictureError
from layerkit.splitting.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 16
_EXTREME_ASPECT = 5
_ORIENTATION = 0x0112
_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}


def check_pictures(layout: Layout, *, min_size: int, num_workers: int, progress: bool) -> list[Finding]:
    """Decode every picture in threads, and say what is wrong with each, in the order of the listing."""
    paths = layout.pictures
    batches = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
    rows: list[Finding] = []

    def check(batch: Sequence[str]) -> tuple[int, list[Finding]]:
        return len(batch), [
            finding(kind, path, detail)
            for path in batch
            for kind, detail in look_at(Path(layout.locate(path)), min_size)
        ]

    # Pillow warns of odd metadata and of large pictures. Filters belong to the process, not to a thread.
    with warnings.catch_warnings(), Progress("decoding", len(paths), shown=progress) as step:
        warnings.simplefilter("ignore")
        for count, found in _map_ahead(check, batches, num_workers):
            rows += found
            step.add(count)
    return rows


def _map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Map in threads, in order, a few items ahead: a job for each of a million would fill the memory."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, "layerkit-check")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def look_at(path: Path, min_size: int) -> list[tuple[str, str]]:
    """Decode one picture; give the kind of each damage, with its detail."""
    try:
        if path.stat().st_size == 0:
            return [("empty_file", "")]
        height, width = decode(path).shape[1:]
    except PictureError as error:
        return [_why_not_decoded(error, path)]
    except PermissionError:
        return [("no_permission", "")]
    except OSError as error:
        return [("unreadable", error.strerror or str(error))]
    return [*_shape_faults(height, width, min_size), *_format_faults(path)]


def _why_not_decoded(error: PictureError, path: Path) -> tuple[str, str]:
    """Tell a picture that is damaged from what is none, and from pictures that layerkit refuses."""
    what = str(error).partition("; expected")[0].removeprefix(f"{path}: ")
    what += ")" * (what.count("(") - what.count(")"))
    refused = (UnidentifiedImageError, ValueError, Image.DecompressionBombError)
    return ("unreadable" if isinstance(error.__cause__, refused) else "truncated"), what


def _shape_faults(height: int, width: int, min_size: int) -> Iterator[tuple[str, str]]:
    if min(height, width) < min_size:
        yield "tiny", f"{width} x {height}"
    if max(height, width) >= _EXTREME_ASPECT * min(height, width):
        yield "extreme_aspect", f"{width} x {height}"


def _format_faults(path: Path) -> Iterator[tuple[str, str]]:
    """Compare a picture that can be decoded with what its header says."""
    try:
        with Image.open(path) as image:
            faults = [*_extension_faults(image.format, path), *_mode_faults(image), *_frame_faults(image)]
    except UnidentifiedImageError:  # HEIC, which the decoder reads where Pillow does not
        faults = [*_extension_faults("HEIF", path)]
    except Exception:  # metadata that Pillow cannot parse does no harm: the picture was decoded
        faults = []
    yield from faults


def _extension_faults(found: str | None, path: Path) -> Iterator[tuple[str, str]]:
    found = "JPEG" if found == "MPO" else found  # JPEG with further pictures behind, as phones write it
    if found != _FORMATS[path.suffix.lower()]:
        yield "wrong_extension", f"it holds {found}"


def _mode_faults(image: Image.Image) -> Iterator[tuple[str, str]]:
    # Pillow opens 16-bit colours in an 8-bit mode; how they are stored stands among the arguments of its
    # decoder, as "RGB;16B". The "BGR;16" of BMP means 16 bits for all three.
    stored = str(getattr(image, "tile", ""))
    if image.mode.startswith("I") or re.search(r"(?<!BGR);16", stored):
        yield "sixteen_bit", ""
    if image.mode == "CMYK":
        yield "cmyk", ""
    if image.has_transparency_data:
        yield "transparent", ""


def _frame_faults(image: Image.Image) -> Iterator[tuple[str, str]]:
    if getattr(image, "is_animated", False) and image.format != "MPO":
        yield "animated", f"{getattr(image, 'n_frames', 'several')} frames"
    # Without EXIF before the pixels, Pillow would decode a PNG once more to look behind them.
    if image.format != "PNG" or "exif" in image.info:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation in range(2, 9):
            yield "rotated", f"orientation {orientation}"
