"""What every job shares: one peer in a process of its own, which prints one line of JSON."""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

Figures = dict[str, Any]

# Everybody stays on the processor and off the network, whatever a peer's default is.
os.environ |= {
    "ACCELERATE_USE_CPU": "true",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "KERAS_BACKEND": "torch",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "YOLO_OFFLINE": "true",
}
warnings.filterwarnings("ignore")


class Skip(Exception):
    """A peer that cannot do this job here; the message says why."""


def measure(*peers: Callable[..., Figures], **defaults: int | str) -> None:
    """Run the peer that the command line names, with the options that it gives, and print its figures."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("peer", choices=[peer.__name__ for peer in peers])
    for option, value in defaults.items():
        parser.add_argument(f"--{option}", type=type(value), default=value, help=f"(default: {value})")
    options = vars(parser.parse_args())
    name = options.pop("peer")
    figures: Figures = {"peer": name}
    try:
        figures |= next(peer for peer in peers if peer.__name__ == name)(**options)
    except ModuleNotFoundError as error:
        figures["skip"] = f"{error.name} is not installed"
    except Skip as reason:
        figures["skip"] = str(reason)
    figures |= {"processor_seconds": round(sum(os.times()[:4]), 2), "peak_mb": peak_mb()}
    print(f"\n{json.dumps(figures)}", flush=True)


def peak_mb() -> float | None:
    """Give the most memory that this process has held, its workers' not counted; None where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1024**2 if sys.platform == "darwin" else 1024))


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def __call__(self) -> float:
        return round(time.perf_counter() - self.started, 4)
