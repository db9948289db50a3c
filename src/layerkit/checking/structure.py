"""What is wrong with the folders and names, before any picture is opened."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from PIL import Image

from layerkit.checking.layout import Layout, Place
from layerkit.checking.report import Finding, finding
from layerkit.errors import count_of
from layerkit.splitting.pictures import Skipped
from layerkit.splitting.table import PART_NAMES

_IMBALANCE = 10
# TIFF is missing, for the raw files of many cameras begin like one.
_PROBED = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "GIF", "AVIF")


def check_structure(layout: Layout) -> Iterator[Finding]:
    """Check parts, classes and names."""
    if not layout.pictures:
        yield finding("no_pictures", ".", f"{count_of(len(layout.listing.skipped), 'other file')} below it")
    if layout.name == "parts":
        yield from _parts(layout)
        yield from _classes_agree(layout)
    yield from _class_sizes(layout)
    yield from _loose(layout)
    yield from _left_out(layout)
    yield from _same_names(layout.listing.pictures)


def _parts(layout: Layout) -> Iterator[Finding]:
    valid = [part for part in layout.parts if PART_NAMES[part] == "valid"]
    for part, found in (("train", "train" in layout.parts), ("valid", bool(valid))):
        if not found:
            yield finding("missing_part", part)
    if len(valid) > 1:
        yield finding("two_valid_parts", valid[1], f"beside {valid[0]}")


def _classes_agree(layout: Layout) -> Iterator[Finding]:
    expected = set(layout.class_folders.get("train", ()))
    for part in layout.parts:
        if part != "train" and expected:
            found = set(layout.class_folders[part])
            for label in sorted(expected - found):
                yield finding("missing_class", f"{part}/{label}")
            for label in sorted(found - expected):
                yield finding("extra_class", f"{part}/{label}")


def _class_sizes(layout: Layout) -> Iterator[Finding]:
    for part, labels in layout.class_folders.items():
        sizes = {label: layout.counts[Place(part, label)] for label in labels}
        folders = {label: f"{part}/{label}" if part else label for label in labels}
        largest = max(sizes, key=sizes.__getitem__, default="")
        for label, size in sizes.items():
            if size == 0:
                yield finding("empty_class", folders[label])
            elif part in ("train", "") and size == 1:
                yield finding("single_picture", folders[label])
            elif part in ("train", "") and size * _IMBALANCE <= sizes[largest]:
                yield finding(
                    "imbalance", folders[label], f"{size:,} against {sizes[largest]:,} of {largest!r}"
                )


def _loose(layout: Layout) -> Iterator[Finding]:
    """Name pictures that are not used: each one, but of a folder that is no part the folder alone."""
    outside: Counter[str] = Counter()
    for path in layout.listing.pictures:
        if layout.place(path) is None:
            folder, is_inside, _ = path.partition("/")
            if is_inside and folder not in layout.class_folders:
                outside[folder] += 1
            else:
                yield finding("loose", path)
    for folder, count in outside.items():
        yield finding("loose", folder, f"{count_of(count, 'picture')} in a folder that is no part")


def _left_out(layout: Layout) -> Iterator[Finding]:
    """Name files that are passed over: those in class folders or parts, and pictures anywhere."""
    for skipped in layout.listing.skipped:
        folder, is_inside, _ = skipped.path.partition("/")
        if layout.name == "parts" and is_inside and folder not in layout.class_folders:
            continue
        kind, detail = _why_left_out(layout, skipped)
        if kind != "not_a_picture" or (is_inside and layout.name != "flat"):
            yield finding(kind, skipped.path, detail)


def _why_left_out(layout: Layout, skipped: Skipped) -> tuple[str, str]:
    place = Path(layout.locate(skipped.path))
    if not place.exists() and place.is_symlink():
        return "broken_link", f"to {str(place.readlink())!r}"
    if not place.is_file():
        return "not_a_picture", skipped.reason
    try:
        with Image.open(place, formats=_PROBED) as image:
            return "unknown_suffix", f"it holds {image.format}"
    except Exception:  # whatever Pillow cannot make sense of is no picture
        return "not_a_picture", ""


def _same_names(paths: Sequence[str]) -> Iterator[Finding]:
    """Find names in one folder that differ only in case, or in how accents are coded."""
    first: dict[str, str] = {}
    for path in chain(_folders_of(paths), paths):
        folder, _, name = path.rpartition("/")
        other = first.setdefault(f"{folder}/{unicodedata.normalize('NFC', name).casefold()}", path)
        if other != path:
            yield finding("same_name", path, f"beside {other!r}")


def _folders_of(paths: Sequence[str]) -> list[str]:
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(folders)
