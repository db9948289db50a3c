"""What `import` costs over importing torch and torchvision, which is what `bare` stands for.

    python imports.py PEER

Compiled bytecode should be there: run each twice, and the first time does not count.
"""

import gc
import importlib
import time
from collections.abc import Callable

from measuring import Figures, measure, peak_mb

MODULES = {
    "bare": (),
    "layerkit": ("layerkit",),
    "accelerate": ("accelerate",),
    "fastai": ("fastai.vision.all",),
    "ignite": ("ignite.engine",),
    "keras": ("keras",),
    "lightning": ("lightning",),
    "poutyne": ("poutyne",),
    "pytorch_accelerated": ("pytorch_accelerated",),
    "skorch": ("skorch",),
    "split_folders": ("splitfolders",),
    "timm": ("timm",),
    "ultralytics": ("ultralytics", "ultralytics.models"),
}


def importing(peer: str) -> Callable[[], Figures]:
    """Make the function that measures one peer."""

    def importer() -> Figures:
        started = time.perf_counter(), time.process_time(), peak_mb() or 0
        for module in MODULES[peer] or ("torch", "torchvision"):
            importlib.import_module(module)
        return {
            "seconds": round(time.perf_counter() - started[0], 3),
            "processor_import_seconds": round(time.process_time() - started[1], 3),
            "added_mb": (peak_mb() or 0) - started[2],
        }

    def after_torch() -> Figures:
        for module in ("torch", "torchvision") if MODULES[peer] else ():
            importlib.import_module(module)
        gc.collect()  # a full collection, due by torch's objects, would be charged to whoever comes next
        return importer()

    after_torch.__name__ = peer
    return after_torch


if __name__ == "__main__":
    measure(*map(importing, MODULES))
