"""Look at a folder of pictures before it is trained on."""

import os
from pathlib import Path
from typing import Literal, get_args

from layerkit.checking.copies import check_copies
from layerkit.checking.kinds import KINDS
from layerkit.checking.layout import read_layout
from layerkit.checking.pictures import check_pictures
from layerkit.checking.records import check_records
from layerkit.checking.report import Finding, FolderReport
from layerkit.checking.structure import check_structure
from layerkit.splitting.near import perceptual_hashes
from layerkit.splitting.request import check_choice, check_whole

Compared = Literal["together", "near", "ignore"]
_BROKEN = frozenset(("empty_file", "unreadable", "truncated", "no_permission"))
_ORDER = {kind: place for place, kind in enumerate(KINDS)}


def check_folder(
    root: str | os.PathLike[str],
    *,
    duplicates: Compared = "together",
    min_size: int = 16,
    num_workers: int | Literal["auto"] = "auto",
    progress: bool = True,
) -> FolderReport:
    """Find what is wrong with a folder of pictures before it is trained on; change nothing.

    Parameters
    ----------
    root : str or PathLike
        A folder with parts (``train``, ``valid`` or ``val`` or ``validation``, ``test``) that hold class
        folders, or a folder of class folders, or a flat folder of pictures. Which one it is, is seen from
        the names of its folders, and said in the report. Hidden files are passed over.
    duplicates : {"together", "near", "ignore"}
        As in `plan_split`: ``"together"`` finds files with the same bytes, ``"near"`` also pictures that
        look the same (it needs the extra ``near``), ``"ignore"`` compares nothing.
    min_size : int
        The shorter side, in pixels, below which a picture counts as tiny.
    num_workers : int or "auto"
        Threads that decode; ``"auto"`` for one a processor. The report is the same with any number.
    progress : bool
        Show a bar on stderr if it takes more than about a second.

    Returns
    -------
    FolderReport
        A table of what was found; ``report.ok`` tells whether it holds an error.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder.
    PermissionError
        If one of its folders may not be listed.
    ValueError, TypeError
        If an argument makes no sense.
    ImportError
        If ``duplicates="near"`` lacks its package.

    See Also
    --------
    split_folder : Writes folders that pass.

    Notes
    -----
    Each picture is decoded whole, by the same decoder as in training: what passes here can be trained on.
    Files are compared by their bytes only where they could be equal, as in `plan_split`.

    Where `split_folder` wrote the folder, the pictures are compared with its record too. `folder_loaders`
    makes that comparison each time, and reads no picture for it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for label, colour in (("cat", "black"), ("dog", "white")):
    ...     (folder / label).mkdir()
    ...     for n in range(2):
    ...         Image.new("RGB", (32 + n, 32), colour).save(folder / label / f"{n}.png")
    >>> _ = (folder / "dog" / "2.png").write_text("<html>404: not found</html>")
    >>> report = check_folder(folder)
    >>> report.rows[0].kind, report.rows[0].path
    ('unreadable', 'dog/2.png')
    """
    check_choice("duplicates", duplicates, get_args(Compared))
    threads = _threads(num_workers)
    if check_whole("min_size", min_size) < 0:
        raise ValueError(
            f"`min_size` is {min_size}; expected 0 or more pixels: pass 0 to report no tiny picture"
        )
    if duplicates == "near":
        perceptual_hashes([], str)  # a package that is missing is better missed now than in an hour
    layout = read_layout(Path(root))
    rows = [*check_structure(layout)]
    if layout.name == "parts":
        rows += check_records(layout.root, layout.pictures)
    rows += check_pictures(layout, min_size=min_size, num_workers=threads, progress=progress)
    if duplicates != "ignore":
        broken = [row.path for row in rows if row.kind in _BROKEN]
        rows += check_copies(layout, broken, near=duplicates == "near", progress=progress)
    rows.sort(key=_rank)
    return FolderReport(
        tuple(rows), layout.root, layout.name, len(layout.pictures), layout.parts, layout.classes
    )


def _rank(row: Finding) -> tuple[int, str]:
    return _ORDER[row.kind], row.path


def _threads(num_workers: int | str) -> int:
    if num_workers == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(num_workers, str) or check_whole("num_workers", num_workers) < 1:
        raise ValueError(
            f'`num_workers` is {num_workers!r}; expected a number of threads of at least 1, or "auto": leave '
            "it out for one a processor"
        )
    return num_workers
