"""What `fit` adds to a step of a loop written by hand, with the bar and the loss shown.

    python benchmarks/loop.py [--rounds 60] [--steps 120]

The two take turns step by step, so that the machine does not change in between: the batches that `fit` asks for
come from a generator that first takes a step by hand on another small network of the same kind. The first steps of
a round are left out. The bar is drawn on a terminal that the script makes for itself.
"""

import argparse
import os
import platform
import pty
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from typing import IO

import torch
from torch import Tensor, nn

from layerkit import Multiclass, fit

WARM = 20
"""Steps at the beginning of a round that do not count."""

Batch = tuple[Tensor, Tensor]


def network() -> nn.Module:
    """Make one whose step takes some milliseconds on one core."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


@dataclass
class Turns:
    """Batches for `fit`, each given after a step by hand; seconds of the clock and of the processor of both."""

    data: list[Batch]
    bare: list[tuple[float, float]] = field(default_factory=list)
    fitted: list[tuple[float, float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Batch]:
        model = network().train()
        optimizer = sgd(model)
        total = 0.0
        for inputs, targets in self.data:
            began = now()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(inputs)
            between = now()
            yield inputs, targets
            ended = now()
            self.bare.append((between[0] - began[0], between[1] - began[1]))
            self.fitted.append((ended[0] - between[0], ended[1] - between[1]))

    def means(self) -> list[float]:
        """Give microseconds of a bare step and of one of `fit`, and the same of the processor."""
        return [
            statistics.mean(step[which] for step in steps[WARM:]) * 1e6
            for which in (0, 1)
            for steps in (self.bare, self.fitted)
        ]


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def one_round(data: list[Batch]) -> list[float]:
    """Train for one epoch, by hand and with layerkit in turns."""
    turns, model = Turns(data), network()
    fit(model, Multiclass(2), turns, epochs=1, optimizer=sgd(model), channels_last=False, device="cpu")
    return turns.means()


def terminal() -> IO[str]:
    """Make a terminal that nobody looks at, to write to."""
    reader, writer = pty.openpty()
    threading.Thread(
        target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")], daemon=True
    ).start()
    return os.fdopen(writer, "w")


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
    with redirect_stderr(terminal()):
        one_round(data)
        rounds = [one_round(data) for _ in range(options.rounds)]
    step = statistics.median(bare for bare, *_ in rounds)
    clock = [fitted - bare for bare, fitted, *_ in rounds]
    processor = [fitted - bare for *_, bare, fitted in rounds]
    low, _, high = statistics.quantiles(clock, n=4)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    print(
        f"a bare step {step / 1e3:.2f} ms; fit adds {statistics.median(clock):.0f} microseconds by the clock "
        f"(quartiles {low:.0f} to {high:.0f}), {statistics.median(clock) / step:.1%}, and "
        f"{statistics.median(processor):.0f} of the processor's, over {options.rounds} rounds of "
        f"{options.steps} steps"
    )


if __name__ == "__main__":
    main()
