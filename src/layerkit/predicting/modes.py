"""One model, asked from several threads: in evaluation mode until the last of them has its answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from torch import nn

from layerkit.freezing import modes_of, put_modes


@dataclass
class _Asked:
    modes: dict[nn.Module, tuple[bool, bool | None]]
    by: int = 0


_asked: dict[int, _Asked] = {}
"""By the model's id, since several predictors may ask one model. An entry lives as long as somebody waits."""
_lock = Lock()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode; the last of those who ask puts it back as it was."""
    with _lock:
        if id(model) not in _asked:
            modes = modes_of(model)
            model.eval()
            _asked[id(model)] = _Asked(modes)
        asked = _asked[id(model)]
        asked.by += 1
    try:
        yield
    finally:
        with _lock:
            asked.by -= 1
            if not asked.by:
                del _asked[id(model)]
                put_modes(asked.modes)
