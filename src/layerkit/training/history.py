"""What happened in each epoch."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from layerkit.distributed import is_writer
from layerkit.plots import plot_curves, save_figure
from layerkit.saving import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]


class History(Sequence[Row]):
    """One row an epoch, in order; ``pandas.DataFrame(history)`` takes it as it is.

    A row has ``epoch`` (from 1), ``phase`` ("frozen" or "full"), ``train_loss``, ``valid_loss``, each metric
    as ``valid_<name>``, ``lr`` (the highest of the epoch, of the optimizer's first group: the backbone's, where
    layerkit chooses), ``seconds`` and ``images_per_second``.

    Parameters
    ----------
    rows : sequence of dict
        The rows to begin with.

    Attributes
    ----------
    monitor : str or None
        What decided which epoch is the best, once the run is done.
    best_epoch : int or None
        The epoch whose weights were kept, counted from 1.
    """

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows: list[Row] = list(rows)
        self.monitor: str | None = None
        self.best_epoch: int | None = None

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return "\n".join(format_row(row) for row in self._rows) or "History()"

    def append(self, row: Row) -> None:
        """Add the row of an epoch."""
        self._rows.append(row)

    def extend(self, rows: Sequence[Row]) -> None:
        """Add the rows of several."""
        self._rows.extend(rows)

    def plot(self, path: str | Path | None = None, *, ax: "Axes | None" = None) -> "Axes":
        """Draw the losses over the epochs and, on a second axis, what was monitored, else the first metric.

        A ring marks the epoch whose weights were kept.

        Parameters
        ----------
        path : str or Path, optional
            Where to save the picture, in the format of its suffix.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a figure of its own.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the losses.
        """
        axes = plot_curves(self._rows, monitor=self.monitor, best_epoch=self.best_epoch, ax=ax)
        if path is not None:
            save_figure(axes, path)
        return axes

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV, with a header."""
        if not is_writer():
            return
        text = io.StringIO(newline="")
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_path(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


def format_row(row: Row, *, epochs: int | None = None, best: bool = False) -> str:
    """Write an epoch on one line; a star marks the best so far."""
    of = f"/{epochs}" if epochs else ""
    parts = [f"epoch {row['epoch']:>{len(str(epochs or 1))}}{of}", f"{row['phase']:<6}"]
    shown = [key for key in row if key.startswith(("train_", "valid_"))]
    parts += [f"{key} {row[key]:.4f}" for key in shown]
    parts += [f"lr {row['lr']:.2g}", _duration(row["seconds"]), f"{row['images_per_second']:,.0f} images/s"]
    return "  ".join(parts) + ("  *" if best else "")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
