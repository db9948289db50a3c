"""What a picture is, and which pictures a folder holds."""

# Strings, not Path, where a line runs once for each of perhaps a million files.
# ruff: noqa: PTH119

import os
from pathlib import Path
from typing import NamedTuple

# torchvision's IMG_EXTENSIONS (a test holds the two equal; importing them would cost an import of torch)
# and the formats that Pillow or torchcodec read beside them.
_TORCHVISION_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
PICTURE_EXTENSIONS = frozenset((*_TORCHVISION_EXTENSIONS, ".gif", ".avif", ".heic", ".heif"))
_HIDDEN_NAMES = frozenset(("thumbs.db", "desktop.ini"))


class Skipped(NamedTuple):
    """A file that was left out, and why."""

    path: str
    reason: str


class Listing(NamedTuple):
    """The pictures of a folder and the files that are none, both sorted by path.

    Paths are relative to the folder, with `/`. `sizes` are in bytes, of the pictures for which they were
    asked; `linked` are those that are symbolic links or lie behind one. (Columns, not a tuple for each
    picture: Python's garbage collector would walk through a million tuples again and again.)
    """

    pictures: list[str]
    sizes: dict[str, int]
    linked: set[str]
    skipped: list[Skipped]


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden: it starts with a dot, or a system put it there.

    Parameters
    ----------
    name : str
        The name alone, without its folder.

    Returns
    -------
    bool
    """
    return name.startswith(".") or name.lower() in _HIDDEN_NAMES


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Tell from its name whether a file counts as a picture.

    Parameters
    ----------
    name : str or PathLike
        A file's name or path; nothing is read from the disk.

    Returns
    -------
    bool
        True if the suffix, in any case, is one of torchvision's ``IMG_EXTENSIONS``, ``.gif``, ``.avif``,
        ``.heic`` or ``.heif``, and the name is not hidden.

    Examples
    --------
    >>> is_picture("cats/1.JPG"), is_picture("notes.txt"), is_picture("._1.jpg")
    (True, False, False)
    """
    base = os.path.basename(name)
    return base[base.rfind(".") :].lower() in PICTURE_EXTENSIONS and not is_hidden(base)


def list_pictures(root: str | os.PathLike[str]) -> list[str]:
    """List the pictures below a folder.

    Parameters
    ----------
    root : str or PathLike
        The folder. Links to folders are followed; hidden files and folders are passed over.

    Returns
    -------
    list of str
        Paths relative to `root`, with ``/`` on every system, sorted by code point.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    NotADirectoryError
        If `root` is a file.
    """
    return scan_folder(root, sizes=False).pictures


def scan_folder(root: str | os.PathLike[str], *, sizes: bool = True) -> Listing:
    """List the pictures below a folder, and the other files that it holds.

    Parameters
    ----------
    root : str or PathLike
        The folder. Links to folders are followed, as ImageFolder does, except where they lead back to one
        of their own parents; hidden files and folders are passed over without a word.
    sizes : bool, default True
        Whether the size of each file is wanted; without it listing takes half the time.

    Returns
    -------
    Listing
        Pictures and skipped files.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    NotADirectoryError
        If `root` is a file.
    """
    require_folder(root)
    found = Listing([], {}, set(), [])
    pictures, file_sizes, linked, skipped = found
    pending = [_Folder(os.fspath(root), "", False, ())]
    while pending:
        folder = pending.pop()
        with os.scandir(folder.place) as entries:
            for entry in entries:
                name = entry.name
                # `is_picture`, spelt out: a call for each of a million files takes as long as listing them.
                if (
                    name[name.rfind(".") :].lower() in PICTURE_EXTENSIONS
                    and name[0] != "."
                    and entry.is_file()
                ):
                    path = folder.prefix + name
                    pictures.append(path)
                    if sizes:
                        file_sizes[path] = entry.stat().st_size
                    if folder.linked or entry.is_symlink():
                        linked.add(path)
                elif not is_hidden(name):
                    if entry.is_dir():
                        pending.extend(folder.below(entry))
                    else:
                        skipped.append(Skipped(folder.prefix + name, _reason(entry)))
    pictures.sort()
    skipped.sort()
    return found


def require_folder(root: str | os.PathLike[str]) -> None:
    """Raise unless `root` is a folder.

    Parameters
    ----------
    root : str or PathLike
        The folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    NotADirectoryError
        If `root` is a file.
    """
    path = Path(root)
    if not path.exists():
        where = "" if path.is_absolute() else f" below the current folder {Path.cwd()}"
        raise FileNotFoundError(f"there is no folder {str(path)!r}{where}; expected a folder of pictures")
    if not path.is_dir():
        raise NotADirectoryError(f"{str(path)!r} is a file; expected a folder of pictures")


def _reason(entry: os.DirEntry[str]) -> str:
    if not is_picture(entry.name):
        return "not a picture"
    return "broken link" if entry.is_symlink() else "not a regular file"


class _Folder(NamedTuple):
    """A folder still to be listed; `links` are the real folders that links led through on the way."""

    place: str
    prefix: str
    linked: bool
    links: tuple[str, ...]

    def below(self, entry: os.DirEntry[str]) -> list["_Folder"]:
        prefix = f"{self.prefix}{entry.name}/"
        if not entry.is_symlink():
            return [_Folder(entry.path, prefix, self.linked, self.links)]
        real = os.path.realpath(entry.path)
        parents = (os.path.realpath(self.place), *self.links)
        if any(parent == real or parent.startswith(real + os.sep) for parent in parents):
            return []  # it leads back to where the listing came from, and would never end
        return [_Folder(entry.path, prefix, True, parents)]
