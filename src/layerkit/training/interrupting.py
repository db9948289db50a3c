"""Ctrl-C and SIGTERM: asked for at any moment, heeded where nothing is half done."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Note a wish to stop instead of stopping in the middle of a step; a second Ctrl-C stops at once.

    Handlers are set in the main thread only, where Python allows it, and put back afterwards.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                # Whoever ignores a signal (nohup) or handles it outside Python goes on doing so.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if error is None:
            self.heed()  # what came after the last moment at which it was looked for

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self.signal is not None

    def heed(self) -> None:
        """Stop here if that was asked for.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C.
        SystemExit
            After SIGTERM, with 143, as a shell reports it.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
