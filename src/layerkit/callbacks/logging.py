"""Write the history while a run goes on."""

from pathlib import Path
from typing import Any

from layerkit.distributed import is_writer
from layerkit.training.moments import State


class CSVLog:
    """Write the history as CSV after each epoch.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced each time, whole.

    Examples
    --------
    >>> log = CSVLog("runs/pets.csv")
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path

    def on_epoch_end(self, state: State) -> None:
        """Write all rows so far."""
        state.history.to_csv(self._path)


class TensorBoard:
    """Write each figure of the history for TensorBoard.

    Parameters
    ----------
    folder : str or Path
        The log's folder; TensorBoard compares the runs of the folders in one.

    Notes
    -----
    It needs the package tensorboard: ``pip install "layerkit[tensorboard]"``.

    Examples
    --------
    >>> log = TensorBoard("logs/pets")
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def on_fit_start(self, state: State) -> None:
        """Open the log; what a killed run wrote of epochs that are done again is replaced."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard() needs the package tensorboard, which is not installed; install it with "
                'pip install "layerkit[tensorboard]", or use CSVLog(path).'
            ) from error
        if is_writer():
            self._writer = SummaryWriter(self._folder, purge_step=len(state.history) + 1)

    def on_epoch_end(self, state: State) -> None:
        """Write the epoch's figures."""
        if self._writer is not None:
            for name, value in state.row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, state.epoch)
            self._writer.flush()

    def on_fit_end(self, state: State) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
