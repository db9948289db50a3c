"""What `fit` adds to a step of a loop written by hand, with the bar and the loss shown.

    python benchmarks/loop.py [--rounds 20] [--steps 400]

Both train the same small network on the same batches in memory, in turn, in one process; the time is that of
one epoch without validation. The bar is drawn on a terminal that the script makes for itself.
"""

import argparse
import os
import platform
import pty
import statistics
import sys
import threading
import time
from collections.abc import Callable

import torch
from torch import nn

from layerkit import Multiclass, fit


def make_model() -> nn.Module:
    """Make a network whose step takes about two milliseconds on one core."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip


def bare(data: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Train for one epoch as everybody writes it."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    total = 0.0
    for inputs, targets in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(inputs)


def with_fit(data: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Train for one epoch with layerkit."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fit(model, Multiclass(2), data, epochs=1, optimizer=optimizer, channels_last=False, device="cpu")


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Give the seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - clock, time.process_time() - processor


def draw_on_a_terminal() -> None:
    """Let stderr be a terminal that nobody looks at."""
    reader, writer = pty.openpty()
    threading.Thread(
        target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")], daemon=True
    ).start()
    sys.stderr = os.fdopen(writer, "w")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = [(torch.randn(16, 3, 64, 64), torch.arange(16) % 2) for _ in range(options.steps)]
    draw_on_a_terminal()
    added: list[tuple[float, float]] = []
    steps: list[float] = []
    for n in range(options.rounds + 1):
        pair = [bare, with_fit] if n % 2 else [with_fit, bare]
        times = {function: timed(lambda f=function: f(data)) for function in pair}
        if n:  # the first round warms up
            steps.append(times[bare][0] / options.steps)
            difference = [a - b for a, b in zip(times[with_fit], times[bare], strict=True)]
            added.append((difference[0] / options.steps * 1e6, difference[1] / options.steps * 1e6))
    clock, processor = (statistics.median(column) for column in zip(*added, strict=True))
    quartiles = statistics.quantiles([a for a, _ in added], n=4)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    print(
        f"a bare step {statistics.median(steps) * 1e3:.2f} ms; fit adds {clock:.0f} microseconds by the clock "
        f"(quartiles {quartiles[0]:.0f} to {quartiles[2]:.0f}) and {processor:.0f} of the processor's, over "
        f"{options.rounds} rounds of {options.steps} steps"
    )


if __name__ == "__main__":
    main()
