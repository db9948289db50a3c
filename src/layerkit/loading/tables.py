"""A table of pictures and targets becomes loaders: from a CSV file, a data frame or a saved split."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.models import WeightsEnum

from layerkit.augmenting import Augment
from layerkit.distributed import is_writer
from layerkit.loading.caching import Cache, check_cache
from layerkit.loading.columns import column, is_saved_split, read_table
from layerkit.loading.datasets import OnError, PictureDataset
from layerkit.loading.folders import VALID_NAMES, Loaders, add_caches, choose_preset, make_loaders
from layerkit.loading.loaders import Workers
from layerkit.loading.targets import Columns, read_targets, select
from layerkit.presets import Preset
from layerkit.splitting import Split
from layerkit.splitting.pictures import Listing
from layerkit.splitting.planning import plan, warn_of
from layerkit.splitting.request import Request


def table_loaders(
    table: Any,
    root: str | Path,
    *,
    path: str = "path",
    target: Columns | Mapping[str, Columns] = "label",
    part: str | None = None,
    group: str | None = None,
    sep: str | None = None,
    valid: float = 0.2,
    test: float = 0,
    weights: WeightsEnum | str | None = None,
    preset: Preset | None = None,
    batch_size: int = 32,
    num_workers: Workers = "auto",
    augment: Augment | Callable[[Tensor], Tensor] | None = None,
    errors: OnError = "raise",
    cache: Cache | None = None,
    exact: bool = False,
    seed: int = 0,
) -> Loaders:
    """Make loaders from a table with one row a picture: for numbers, several labels or several targets.

    Parameters
    ----------
    table : str, Path, data frame, mapping of columns, or Split
        A CSV file with a header, anything with columns such as a pandas data frame, or a split: one in memory
        or a file that `Split.to_csv` wrote. A split has the columns ``path``, ``label``, ``part`` and
        ``group``.
    root : str or Path
        The folder that the paths in the table are relative to.
    path : str
        The column of the paths.
    target : str, list of str, or dict of these
        The column of the targets: text becomes an index into the sorted class names, numbers stay numbers.
        Several columns are several numbers a picture, or several labels where all are 0 and 1. A dict names
        several targets.
    part : str, optional
        The column that says ``train``, ``valid`` (or ``val``, ``validation``) or ``test``; a split's own is
        used by itself. Without one the table is split as `plan_split` does.
    group : str, optional
        The column that names what must stay on one side: a patient, a video.
    sep : str, optional
        What separates several labels within a column of text, such as ``"|"``; they become 0/1 columns. A
        picture to which none applies has an empty value.
    valid, test : float or int
        How much to hold out, as in `plan_split`.
    weights : WeightsEnum or str, optional
        The pretrained weights of the backbone, whose preset is taken over.
    preset : Preset, optional
        Instead of `weights`.
    batch_size : int
        Samples a batch, over all processes together.
    num_workers : int or "auto"
        Worker processes; ``"auto"`` reads with threads, as in `folder_loaders`.
    augment : str or callable, optional
        The random changes in training, as in `Preset.train`. By default ``"standard"`` for classes and
        labels. For numbers it is ``"color"``, since moving a picture could falsify them (a coordinate, a
        count), and a line on stderr says so.
    errors : {"raise", "skip"}
        What to do with a picture that cannot be read, as in `folder_loaders`.
    cache : {"memory", "disk"}, optional
        Where to keep the decoded pictures, as in `folder_loaders`.
    exact : bool
        Whether to decode every picture whole, as in `folder_loaders`.
    seed : int
        Governs the split, the order and the random changes.

    Returns
    -------
    Loaders
        ``classes`` is a list of names, ``None`` for numbers, and a dict of these for several targets. The
        targets of a batch are int64 (N,) for classes and for a column of whole numbers, else float32 (N,)
        or (N, T), or a dict of these.

    Raises
    ------
    FileNotFoundError
        The table or a picture does not exist.
    ValueError
        A column is missing, a value is empty, or an argument is not as described.
    SplitError
        The table cannot be split as asked. It is a `ValueError` too.
    OSError, MemoryError
        There is no room for the cache, or its folder cannot be written to.

    Warns
    -----
    LayerkitWarning
        The split could not be made quite as asked.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from layerkit import Preset
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for n in range(10):
    ...     Image.new("RGB", (40, 40), (20 * n, 0, 0)).save(folder / f"{n}.png")
    >>> table = {"path": [f"{n}.png" for n in range(10)], "redness": [n / 10 for n in range(10)]}
    >>> data = table_loaders(table, folder, target="redness", preset=Preset(32), augment="none")
    >>> pictures, targets = next(iter(data.valid))
    >>> pictures.shape, targets.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2]))
    """
    preset = choose_preset(weights, preset)
    check_cache(cache)
    if is_saved_split(table):
        table = Split.read_csv(table)
    if isinstance(table, Split) and part is None:
        part = "part"
    columns = read_table(table, text={name for name in (path, part, group) if name})
    files = _find_files(column(columns, path), Path(root))
    read = read_targets(columns, target, sep)
    groups = [str(value) for value in column(columns, group)] if group else None
    if part is None:
        parts = _plan_parts(Path(root), list(files), read.strata, groups, (valid, test, seed))
    else:
        parts = _read_parts(column(columns, part), part)
    transforms = {"train": preset.train(_choose_augment(augment, read.numeric))}
    located = list(files.values())
    datasets = {
        name: PictureDataset(
            [located[row] for row in rows],
            select(read.targets, rows),
            transforms.get(name, preset.eval()),
            classes=read.classes,
            errors=errors,
            seed=seed,
            exact=exact,
        )
        for name, rows in parts.items()
    }
    if cache is not None:
        add_caches(datasets, cache, Path(root))
    return make_loaders(datasets, preset, batch_size=batch_size, num_workers=num_workers)


def _find_files(paths: list[Any], root: Path) -> dict[str, Path]:
    """Give each picture's file, by its path relative to the root, with ``/``."""
    located = [_locate(str(path), root) for path in paths]
    files = dict(located)
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} pictures in the table do not exist, such as {missing[0]}; "
            "expected paths relative to `root`. Check both."
        )
    if len(files) < len(paths):
        twice = Counter(name for name, _ in located).most_common(1)[0][0]
        raise ValueError(
            f"The table names {twice} more than once; expected one row a picture. Put its targets into one "
            "row, as several columns or with `sep`."
        )
    return files


def _locate(path: str, root: Path) -> tuple[str, Path]:
    file = root / path
    if "\\" in path and not file.is_file():  # written on Windows
        file = root / path.replace("\\", "/")
    if not file.is_relative_to(root) or ".." in file.relative_to(root).parts:
        raise ValueError(
            f"The path {path!r} leads out of {root}; expected paths below `root`. Pass a folder that "
            "holds all the pictures as `root`."
        )
    return file.relative_to(root).as_posix(), file


def _choose_augment(
    augment: Augment | Callable[[Tensor], Tensor] | None, numeric: bool
) -> Augment | Callable[[Tensor], Tensor]:
    if augment is not None:
        return augment
    if not numeric:
        return "standard"
    if is_writer():
        print(
            'augment="color": the targets are numbers, which moving a picture could falsify. Where they stay '
            'true of a cropped and mirrored one, pass augment="standard".',
            file=sys.stderr,
        )
    return "color"


def _plan_parts(
    root: Path,
    names: list[str],
    strata: list[str] | None,
    groups: list[str] | None,
    amounts: tuple[float, float, int],
) -> dict[str, list[int]]:
    row_of = {name: row for row, name in enumerate(names)}
    sizes = {name: (root / name).stat().st_size for name in names}
    valid, test, seed = amounts
    request = Request(
        valid,
        test,
        label=lambda name: strata[row_of[name]] if strata else "picture",
        group=(lambda name: groups[row_of[name]]) if groups else None,
        stratify=strata is not None,
        seed=seed,
    )
    split = plan(root, Listing(sorted(names), sizes, set(), []), request)
    warn_of(split.notes)
    return _rows_by_part([(row_of[row.path], row.part) for row in split.rows])


def _read_parts(values: list[Any], name: str) -> dict[str, list[int]]:
    known = {"train": "train", "test": "test"} | dict.fromkeys(VALID_NAMES, "valid")
    unknown = sorted({str(value) for value in values} - set(known))
    if unknown:
        raise ValueError(
            f"The column {name!r} holds {', '.join(map(repr, unknown))}; expected train, valid (or val, "
            "validation) and test. Rename them, or leave out `part` to have the table split."
        )
    return _rows_by_part([(row, known[str(value)]) for row, value in enumerate(values)])


def _rows_by_part(rows: list[tuple[int, str]]) -> dict[str, list[int]]:
    parts: dict[str, list[int]] = {}
    for row, name in sorted(rows):
        parts.setdefault(name, []).append(row)
    for name in ("train", "valid"):
        if name not in parts:
            raise ValueError(
                f"No row of the table belongs to {name}; expected some in train and in valid. Leave out "
                "`part` to have the table split, with `valid` above 0."
            )
    return parts
