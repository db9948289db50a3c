"""What a run shows while it works: one bar for all of it, and one line an epoch."""

import sys
import time
from typing import Any

from layerkit.distributed import is_writer

SECONDS_BETWEEN_DRAWINGS = 0.25


class Progress:
    """Write to the progress stream (stderr): a bar where it is a terminal, lines everywhere."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown and is_writer()
        self._bar: Any = None
        self._label = ""  # of what the whole bar counts
        self._waiting = 0  # images that are done and not drawn yet
        self._next_drawing = 0.0

    def open(self, total: int | None, label: str) -> None:
        """Start the bar of a phase, counted in images."""
        from tqdm import tqdm

        self.close()
        self._label = label
        if self.shown:
            self._bar = tqdm(
                total=total,
                desc=label,
                unit=" images",
                leave=False,
                disable=None,
                dynamic_ncols=True,
                smoothing=0.1,
                mininterval=0,  # `advance` itself draws seldom
            )
            if self._bar.disable:  # no terminal: lines alone
                self._bar = None

    def advance(self, images: int, label: str = "", loss: Any = None) -> None:
        """Count images that are done, and draw four times a second at most: reading the loss may wait."""
        self._waiting += images
        if self._bar is None or (now := time.monotonic()) < self._next_drawing:
            return
        self._next_drawing = now + SECONDS_BETWEEN_DRAWINGS
        if loss is not None:
            self._bar.set_description(f"{self._label}, {label}", refresh=False)
            self._bar.set_postfix_str(f"loss {float(loss):.4f}", refresh=False)
        self._bar.update(self._waiting)
        self._waiting = 0

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
        self._waiting = 0
