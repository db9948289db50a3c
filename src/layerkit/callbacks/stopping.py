"""Stop when nothing gets better any more."""

from typing import Any

from layerkit.training.moments import State


class EarlyStopping:
    """End a run when what it monitors has not improved for some epochs.

    Parameters
    ----------
    patience : int
        How many epochs without an improvement are allowed.
    min_delta : float
        How much better a value must be to count, in the units of what is monitored.

    Notes
    -----
    The epochs of a frozen phase are not counted if the whole model is trained after it. The model gets the
    weights of the best epoch in any case: stopping early saves time, and does not change which is the best. A
    schedule that was laid out for all epochs, such as one-cycle, is cut off in the middle.

    Examples
    --------
    >>> stopping = EarlyStopping(patience=3)
    """

    def __init__(self, patience: int = 5, *, min_delta: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(
                f"`patience` is {patience!r}; expected a whole number of epochs of at least 1. 5 is usual."
            )
        if not min_delta >= 0:
            raise ValueError(f"`min_delta` is {min_delta}; expected a number of at least 0, the default.")
        self.patience = patience
        self.min_delta = min_delta
        self._best: float | None = None
        self._waited = 0

    def on_fit_start(self, state: State) -> None:
        """Make sure that there is something to go by, and forget an earlier run."""
        if not state.history:
            self._best, self._waited = None, 0
        if state.monitor is None:
            raise ValueError(
                "EarlyStopping has nothing to go by, since `valid` is None; expected a validation loader. Pass "
                "one to fit(), or leave EarlyStopping out."
            )

    def on_epoch_end(self, state: State) -> None:
        """Count the epochs since the last improvement."""
        if not state.is_last_phase:
            return
        value = state.row[str(state.monitor)]
        is_first = self._best is None and value == value  # NaN is better than nothing in no sense
        gain = 0.0 if self._best is None else self._best - value
        if is_first or (gain if state.lower_is_better else -gain) > self.min_delta:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            state.stop(f"{state.monitor} has not improved for {self._waited} epochs")

    def state_dict(self) -> dict[str, Any]:
        """Give what must outlive a restart."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self._best, self._waited = state["best"], state["waited"]
