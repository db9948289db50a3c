"""What `fit` adds to a step of a loop written by hand, with the bar and the loss shown.

    python benchmarks/loop.py [--rounds 60] [--steps 120]

Both train the same small network on the same batches in memory, in one process and in turns too short for the
machine to change in between; a step is counted from one forward pass to the next, the first ones left out. The
bar is drawn on a terminal that the script makes for itself.
"""

import argparse
import os
import platform
import pty
import statistics
import sys
import threading
import time

import torch
from torch import nn

from layerkit import Multiclass, fit

WARM = 20
"""Steps at the beginning that do not count."""

Times = tuple[float, float]  # microseconds a step, by the clock and of the processor


class Timed(nn.Sequential):
    """A network whose step takes some milliseconds on one core, and which notes when one begins."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip
        self.began: list[Times] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.began.append((time.perf_counter(), time.process_time()))
        return super().forward(inputs)

    def step(self) -> Times:
        """Give the mean time of a step."""
        first, last, steps = self.began[WARM], self.began[-1], len(self.began) - 1 - WARM
        return (last[0] - first[0]) / steps * 1e6, (last[1] - first[1]) / steps * 1e6


def bare(data: list[tuple[torch.Tensor, torch.Tensor]]) -> Times:
    """Train for one epoch as everybody writes it."""
    model = Timed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    total = 0.0
    for inputs, targets in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(inputs)
    return model.step()


def with_fit(data: list[tuple[torch.Tensor, torch.Tensor]]) -> Times:
    """Train for one epoch with layerkit."""
    model = Timed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fit(model, Multiclass(2), data, epochs=1, optimizer=optimizer, channels_last=False, device="cpu")
    return model.step()


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
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = [(torch.randn(16, 3, 64, 64), torch.arange(16) % 2) for _ in range(options.steps)]
    draw_on_a_terminal()
    with_fit(data), bare(data)
    added: list[Times] = []
    steps: list[float] = []
    for n in range(options.rounds):
        pair = [bare, with_fit] if n % 2 else [with_fit, bare]
        times = {function: function(data) for function in pair}
        steps.append(times[bare][0])
        added.append((times[with_fit][0] - times[bare][0], times[with_fit][1] - times[bare][1]))
    clock, processor = (statistics.median(column) for column in zip(*added, strict=True))
    quartiles = statistics.quantiles([a for a, _ in added], n=4)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    print(
        f"a bare step {statistics.median(steps) / 1e3:.2f} ms; fit adds {clock:.0f} microseconds by the clock "
        f"(quartiles {quartiles[0]:.0f} to {quartiles[2]:.0f}) and {processor:.0f} of the processor's, over "
        f"{options.rounds} rounds of {options.steps} steps"
    )


if __name__ == "__main__":
    main()
