"""A bar for what takes longer than a second."""

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

_DELAY_SECONDS = 1.0


class Progress:
    """Count files on a bar on stderr, where that is a terminal, which appears only after a second.

    Parameters
    ----------
    title : str
        What is being done.
    total : int or None
        How many files there are.
    shown : bool
        Whether there is a bar at all.
    """

    def __init__(self, title: str, total: int | None = None, *, shown: bool = True) -> None:
        self._bar: tqdm[Any] = tqdm(
            desc=title,
            total=total,
            unit=" files",
            delay=_DELAY_SECONDS,
            disable=None if shown else True,
            leave=False,
        )
        self.add = self._bar.update

    @classmethod
    def silent(cls) -> Self:
        """Return a progress that shows nothing."""
        return cls("", shown=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
