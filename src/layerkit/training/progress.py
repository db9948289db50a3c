"""What a run shows while it works: one bar for all of it, and one line an epoch."""

import sys
import time
from typing import Any

from layerkit.distributed import is_writer


class Progress:
    """Write to the progress stream (stderr): a bar where it is a terminal, lines everywhere."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown and is_writer()
        self._bar: Any = None
        self._next_figures = 0.0

    def open(self, total: int | None, label: str) -> None:
        """Start the bar of a phase, counted in images."""
        from tqdm import tqdm

        self.close()
        if self.shown:
            self._bar = tqdm(
                total=total,
                desc=label,
                unit=" images",
                leave=False,
                disable=None,
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def advance(self, images: int) -> None:
        """Count images that are done."""
        if self._bar is not None:
            self._bar.update(images)

    def wants_figures(self) -> bool:
        """Tell, at most twice a second, that it is time to show the loss: reading it may wait for the device."""
        if self._bar is None or self._bar.disable or time.monotonic() < self._next_figures:
            return False
        self._next_figures = time.monotonic() + 0.5
        return True

    def figures(self, label: str, loss: float) -> None:
        """Show where the run is."""
        self._bar.set_description(label, refresh=False)
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
