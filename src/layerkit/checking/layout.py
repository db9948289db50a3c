"""How a folder is laid out, and what is wrong with that."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from layerkit.checking.report import LayoutName
from layerkit.splitting import is_hidden
from layerkit.splitting.pictures import Listing, scan_folder
from layerkit.splitting.table import PART_NAMES


class Place(NamedTuple):
    """Where a picture stands; each is empty where the layout has none."""

    part: str
    label: str


@dataclass(frozen=True)
class Layout:
    """A folder that was listed, and what it was taken for.

    `class_folders` names the class folders of each part, empty ones included; without parts, those of "".
    A part may have none, where a table tells the targets.
    """

    root: Path
    name: LayoutName
    listing: Listing
    class_folders: Mapping[str, Sequence[str]]

    def place(self, path: str) -> Place | None:
        """Say where a path belongs; None if it lies in no class folder."""
        if self.name == "flat":
            return Place("", "")
        part, _, below = path.partition("/") if self.name == "parts" else ("", "", path)
        label, is_inside, _ = below.partition("/")
        if self.class_folders.get(part):
            return Place(part, label) if is_inside else None
        return Place(part, "") if part in self.class_folders and below else None

    def locate(self, path: str) -> str:
        """Turn a relative path into one that can be opened."""
        return f"{self.root}/{path}"

    @cached_property
    def pictures(self) -> list[str]:
        """The pictures that have a place, sorted."""
        return [path for path in self.listing.pictures if self.place(path)]

    @cached_property
    def counts(self) -> Counter[Place]:
        """The number of pictures in each place."""
        return Counter(place for path in self.pictures if (place := self.place(path)))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that there are, in the order train, valid, test."""
        return tuple(part for part in PART_NAMES if part in self.class_folders)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that there are in any part, sorted."""
        return tuple(sorted({label for labels in self.class_folders.values() for label in labels}))


def read_layout(root: Path) -> Layout:
    """List a folder, and tell from its folders what it is."""
    listing = scan_folder(root)
    folders = _folders(root)
    if _has_parts(folders):
        parts = {part: _folders(root / part) for part in folders if part in PART_NAMES}
        return Layout(root, "parts", listing, parts)
    if folders and (not listing.pictures or any("/" in path for path in listing.pictures)):
        return Layout(root, "classes", listing, {"": folders})
    return Layout(root, "flat", listing, {})


def _has_parts(folders: Sequence[str]) -> bool:
    """Tell parts from classes that happen to be named like one, such as a train beside buses and cars."""
    parts = [name for name in folders if name in PART_NAMES]
    return bool(parts) and (len(parts) == len(folders) or ("train" in parts and len(parts) > 1))


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))
