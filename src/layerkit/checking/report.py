"""What a check has found, as a table and in words."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from layerkit.checking.kinds import KINDS, Severity
from layerkit.distributed import is_writer
from layerkit.errors import count_of
from layerkit.saving import atomic_path

LayoutName = Literal["parts", "classes", "flat"]
_SHOWN = 3
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Finding(NamedTuple):
    """One thing that was found: its kind, how bad it is, where, what exactly, and how to mend it."""

    kind: str
    severity: Severity
    path: str
    detail: str
    remedy: str


@dataclass(frozen=True, repr=False)
class FolderReport:
    """Say what is wrong with a folder of pictures; ``pandas.DataFrame(report)`` takes it as it is.

    Parameters
    ----------
    rows : tuple of Finding
        One row for each thing that was found: kind, severity (``"error"``, ``"warning"`` or ``"note"``),
        path relative to the folder (with ``/``), detail and remedy. The worst kinds come first.
    root : Path
        The folder.
    layout : {"parts", "classes", "flat"}
        What it was taken for: parts such as train and valid with class folders, class folders, or a flat
        folder of pictures.
    num_pictures : int
        How many pictures were looked at.
    parts, classes : tuple of str
        The parts and classes that it has.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from layerkit import check_folder
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "broken.jpg").write_bytes(b"")
    >>> report = check_folder(folder, progress=False)
    >>> report.ok, report.counts
    (False, {'empty_file': 1})
    """

    rows: tuple[Finding, ...]
    root: Path
    layout: LayoutName
    num_pictures: int
    parts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found that is an error; there may be warnings."""
        return all(row.severity != "error" for row in self.rows)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each kind was found, the worst first."""
        return dict(Counter(row.kind for row in self.rows))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.rows)

    def __repr__(self) -> str:
        lines = [f"FolderReport of {self._taken_for()}", self._summary()]
        for kind, count in self.counts.items():
            severity, meaning, remedy = KINDS[kind]
            lines += ["", f"{severity + ':':8} {count:,} {kind} - {meaning}"]
            named = [row for row in self.rows if row.kind == kind][:_SHOWN]
            lines += [f"         {_plain(row.path)}{row.detail and f': {row.detail}'}" for row in named]
            if count > _SHOWN:
                lines.append(f"         and {count - _SHOWN:,} more")
            lines.append(f"         to mend it: {remedy}")
        return "\n".join(lines)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as CSV, with a header.

        Parameters
        ----------
        path : str or PathLike
            The file; one that is there already is replaced, all at once.
        """
        if not is_writer():
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Finding._fields)
        writer.writerows(self.rows)
        with atomic_path(Path(path)) as temporary:
            # surrogateescape: names that are not UTF-8 keep their own bytes.
            temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))

    def _taken_for(self) -> str:
        number = len(self.classes)
        classes = f" in {number} {'class' if number == 1 else 'classes'}" if number else ""
        layout = {
            "parts": f", split into {' and '.join(self.parts)}",
            "classes": ", not split into parts",
            "flat": " in a flat folder, without classes",
        }
        return f"{_plain(str(self.root))}: {count_of(self.num_pictures, 'picture')}{classes}{layout[self.layout]}"

    def _summary(self) -> str:
        found = Counter(row.severity for row in self.rows)
        told = [count_of(found[severity], severity) for severity in _SEVERITIES if found[severity]]
        return ", ".join(told) or "nothing wrong was found"


def finding(kind: str, path: str, detail: str = "") -> Finding:
    """Fill a row with what holds for all of its kind."""
    return Finding(kind, KINDS[kind].severity, path, detail, KINDS[kind].remedy)


def _plain(name: str) -> str:
    """Write a name so that no terminal stumbles over line breaks or bytes that are no text."""
    return name if name.isprintable() else repr(name)
