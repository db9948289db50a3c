"""The table of a split: which picture goes where."""

import csv
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from layerkit.errors import SplitError, count_of
from layerkit.splitting.pictures import Skipped

_MOST_PAIRS = 10
PARTS = ("train", "valid", "test")
PART_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
Mode = Literal["copy", "hardlink", "symlink", "move"]


class SplitRow(NamedTuple):
    """One picture of a split; `group` and `hash` are None where there is none."""

    path: str
    label: str
    part: str
    group: str | None = None
    hash: str | None = None


class NearPair(NamedTuple):
    """Two pictures that look alike, and the number of bits (of 64) in which their hashes differ."""

    first: str
    second: str
    distance: int


@dataclass(frozen=True, repr=False)
class Split:
    """Say which picture goes into which part.

    Two splits are equal if their rows are.

    Parameters
    ----------
    rows : tuple of SplitRow
        One row a picture, sorted by path: path relative to the source (with ``/``), label, part
        (``"train"``, ``"valid"`` or ``"test"``), group, and the BLAKE2b hash of its bytes where one was
        needed to tell duplicates.
    source : Path or None
        The folder that the paths are relative to.
    skipped : tuple of Skipped
        Files that were left out, each with the reason.
    notes : tuple of str
        What the split could not do as asked, in words.
    near_duplicates : tuple of NearPair
        With ``duplicates="near"``: the pairs that were kept together, for a person to look at.
    request : dict or None
        The options that the split was made with.
    stamps : dict of str to (int, int)
        Size and time of change (in ns) of each hashed file, so that no file is hashed again that is still
        the same.

    Examples
    --------
    >>> split = Split((SplitRow("a/1.png", "a", "train"), SplitRow("b/1.png", "b", "valid")))
    >>> split.classes
    ('a', 'b')
    >>> split.counts["valid"]
    {'a': 0, 'b': 1}
    >>> len(split)
    2
    """

    rows: tuple[SplitRow, ...]
    source: Path | None = field(default=None, compare=False)
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    near_duplicates: tuple[NearPair, ...] = field(default=(), compare=False)
    request: dict[str, Any] | None = field(default=None, compare=False)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({row.label for row in self.rows}))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts that hold a picture, in the order train, valid, test."""
        present = {row.part for row in self.rows}
        return tuple(part for part in PARTS if part in present)

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of pictures by part and class."""
        counted = Counter((row.part, row.label) for row in self.rows)
        return {part: {label: counted[part, label] for label in self.classes} for part in self.parts}

    def conflicts(self) -> list[tuple[SplitRow, ...]]:
        """List the pictures that stand under more than one label with the same bytes.

        Returns
        -------
        list of tuple of SplitRow
            The rows of each such picture; empty where contents were not compared.
        """
        rows: dict[str, list[SplitRow]] = {}
        for row in self.rows:
            if row.hash:
                rows.setdefault(row.hash, []).append(row)
        return [tuple(equal) for equal in rows.values() if len({row.label for row in equal}) > 1]

    def __repr__(self) -> str:
        sizes = Counter(row.label for row in self.rows)
        lines = [[f"Split of {len(self):,} pictures", *self.parts]]
        for label in self.classes:
            lines.append([label, *(_share(self.counts[p][label], sizes[label]) for p in self.parts)])
        if len(self.classes) > 1:
            totals = (sum(self.counts[part].values()) for part in self.parts)
            lines.append(["all", *(_share(total, len(self)) for total in totals)])
        text = _align(lines)
        if self.skipped:
            text += (
                f"\nleft out: {count_of(len(self.skipped), 'file')} ({some(s.path for s in self.skipped)})"
            )
        if self.near_duplicates:
            text += f"\nnear duplicates, kept together: {count_of(len(self.near_duplicates), 'pair')}"
            text += "".join(
                f"\n  {one!r} and {other!r}" for one, other, _ in self.near_duplicates[:_MOST_PAIRS]
            )
            text += "\n  ... (near_duplicates lists all)" if len(self.near_duplicates) > _MOST_PAIRS else ""
        return "\n".join([text, *self.notes])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table as a CSV file.

        Parameters
        ----------
        path : str or PathLike
            The file; one that is there already is replaced, all at once.
        """
        temporary = Path(f"{os.fspath(path)}.tmp{os.getpid()}")
        try:
            # surrogateescape: names that are not UTF-8 keep their own bytes.
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(SplitRow._fields)
                writer.writerows(self.rows)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None) -> Self:
        """Read a table written by `to_csv`, or any CSV file with the columns path, label and part.

        Parameters
        ----------
        path : str or PathLike
            The file.
        source : str, PathLike or None
            The folder that its paths are relative to, where the split is to be materialized.

        Returns
        -------
        Split

        Raises
        ------
        SplitError
            If a column is missing, a part is unknown, a path occurs twice or leads out of the source.
        """
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"path", "label", "part"} - set(reader.fieldnames or ())
            if missing:
                raise SplitError(
                    f"{str(path)!r} has no column {', '.join(sorted(missing))}; expected path, label, part "
                    "and, where wanted, group and hash: name the columns in its first line"
                )
            rows = sorted(_row(record, f"{path}, line {reader.line_num}") for record in reader)
        _refuse_repeated(rows, path)
        return cls(tuple(rows), None if source is None else Path(source))

    def materialize(
        self, dest: str | os.PathLike[str], *, mode: Mode = "copy", progress: bool = True
    ) -> "Split":
        """Write the pictures to ``dest/<part>/<class>/<path below the class>``.

        Parameters
        ----------
        dest : str or PathLike
            The folder to write to; made if missing.
        mode : {"copy", "hardlink", "symlink", "move"}
            How each picture gets there.
        progress : bool, default True
            Show a bar on stderr if it takes more than about a second.

        Returns
        -------
        Split
            The split that `dest` holds: this one.

        Raises
        ------
        SplitError
            If `dest` holds another split, or the pictures cannot be written there side by side.
        OSError
            If a file cannot be read or written. Calling again goes on where it stopped.

        See Also
        --------
        split_folder : Plans and writes in one call; tells what the writing guarantees.
        """
        from layerkit.splitting.folders import materialize

        return materialize(self, dest, mode=mode, progress=progress)


def destination_of(row: SplitRow) -> str:
    """Say where a row's picture goes, relative to the destination.

    Parameters
    ----------
    row : SplitRow
        The row.

    Returns
    -------
    str
        ``part/label/path below the class``: the path without its first folder if that is the label.
    """
    folder, slash, below = row.path.partition("/")
    return f"{row.part}/{row.label}/{below if slash and folder == row.label else row.path}"


def _row(record: dict[str, str], where: str) -> SplitRow:
    part = PART_NAMES.get(record["part"])
    if part is None:
        raise SplitError(f"{where}: the part is {record['part']!r}; expected one of {', '.join(PARTS)}")
    if not record["path"] or not record["label"]:
        raise SplitError(f"{where}: the path or the label is empty; expected both in every line")
    check_inside(record["path"])
    return SplitRow(
        record["path"], record["label"], part, record.get("group") or None, record.get("hash") or None
    )


def check_inside(path: str) -> None:
    """Raise if a row's path could lead out of the source.

    Parameters
    ----------
    path : str
        A path of a table that may come from anywhere.

    Raises
    ------
    SplitError
        If the path is absolute or goes through a parent.
    """
    pieces = path.split("/")
    # Elsewhere "c:" and a backslash are parts of a name like any other.
    leads_out = os.name == "nt" and ("\\" in path or ":" in path)
    if "" in pieces or "." in pieces or ".." in pieces or leads_out:
        raise SplitError(
            f"the path {path!r} could lead out of the source; expected a path relative to it, with '/' "
            "and without '..': correct the table"
        )


def check_labels(labels: Iterable[str]) -> None:
    """Raise if a label cannot be the name of a visible folder.

    Parameters
    ----------
    labels : iterable of str
        Of a split, or of a table that may come from anywhere.

    Raises
    ------
    SplitError
        A label is empty, begins with a dot, or holds a slash or what else this system forbids in names.
    """
    forbidden = set('/\\\0:*?"<>|' if os.name == "nt" else "/\0")
    for label in labels:
        if not label or label.startswith(".") or set(label) & forbidden:
            raise SplitError(
                f"the label {label!r} cannot be the name of a visible folder; expected one without slashes "
                "that does not begin with a dot: choose other labels"
            )


def _refuse_repeated(rows: Sequence[SplitRow], where: str | os.PathLike[str]) -> None:
    for row, following in itertools.pairwise(rows):
        if row.path == following.path:
            raise SplitError(f"{str(where)!r} names {row.path!r} twice; expected each picture in one line")


def _share(count: int, whole: int) -> str:
    return f"{count:,} ({count / whole:.1%})"


def _align(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def some(names: Iterable[str], most: int = 3) -> str:
    """Name the first few of many, for a message.

    Parameters
    ----------
    names : iterable of str
        The names.
    most : int, default 3
        How many are written out.

    Returns
    -------
    str
    """
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
