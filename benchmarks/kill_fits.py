"""Kill training runs at random moments, and compare how they end with runs that were never killed.

    python benchmarks/kill_fits.py [--kills 100] [--runs 12]

Each run trains a small network on drawn pictures, with a frozen phase or without, and with 0 or 2 workers or
with threads. It is killed (SIGKILL) after a random part of the time that it takes, called again, killed again,
and at last left alone. Weights, history and the best epoch must then be the same, bit by bit, as those of a run
that nobody disturbed. State is written after nearly every step, so that most kills fall on or beside a write.
"""

import argparse
import multiprocessing
import platform
import random
import signal
import tempfile
import time
from collections import Counter
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import torch
import torchmetrics  # noqa: F401  imported before the clock starts
from PIL import Image
from torch import nn

from layerkit import Checkpoint, Multiclass, Preset, fit, folder_loaders
from layerkit.callbacks import EMA

fork = multiprocessing.get_context("fork")  # the imports are over before the clock starts
SETTINGS = [
    {"frozen": frozen, "workers": workers, "seed": seed}
    for seed, (frozen, workers) in enumerate(product((0, 10), (0, 2, "auto")))
]


def draw_pictures(root: Path) -> Path:
    """Write two classes of noise that differ in colour, split already."""
    for part, count in (("train", 26), ("valid", 10)):
        for name, red in (("a", 60), ("b", 180)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                noise = Image.effect_noise((32, 30), 90)
                picture = Image.merge("RGB", (noise.point(lambda v, red=red: (v + red) // 2), noise, noise))
                picture.save(root / part / name / f"{number}.png")
    return root


def train(pictures: Path, folder: Path, name: str, frozen: int, workers: Any, seed: int) -> None:
    """Train, and write down how it ended."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = folder_loaders(pictures, preset=Preset(24), batch_size=8, seed=seed, num_workers=workers)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, 2),
    )
    run = fit(
        model,
        Multiclass(data.classes, class_weight="balanced"),
        data.train,
        data.valid,
        epochs=20,
        frozen_epochs=frozen,
        callbacks=[EMA(0.9)],
        checkpoint=Checkpoint(folder / name, every_seconds=0.01),
        seed=seed,
        progress=False,
    )
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history
    ]
    end = {"model": model.state_dict(), "history": rows, "best": run.best_epoch}
    torch.save(end, folder / f"{name}.pt")


def start(*arguments: Any) -> Any:
    process = fork.Process(target=train, args=arguments)
    process.start()
    return process


def same(folder: Path, names: tuple[str, str]) -> bool:
    one, other = (torch.load(folder / f"{name}.pt") for name in names)
    weights = all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    return weights and one["history"] == other["history"] and one["best"] == other["best"]


def trial(
    pictures: Path, folder: Path, settings: dict[str, Any], kills: int, draw: random.Random
) -> Counter[str]:
    """Train once undisturbed and once with so many kills; count what came of it."""
    started = time.perf_counter()
    start(pictures, folder, "whole", *settings.values()).join()
    seconds = time.perf_counter() - started
    found: Counter[str] = Counter()
    for _ in range(kills):
        process = start(pictures, folder, "killed", *settings.values())
        process.join(draw.uniform(0.02, 0.2) * seconds)
        if process.is_alive():
            process.kill()
        process.join()
        found["kills" if process.exitcode == -signal.SIGKILL else "came too late"] += 1
        if process.exitcode not in (0, -signal.SIGKILL):
            found["failed to go on"] += 1
    last = start(pictures, folder, "killed", *settings.values())
    last.join()
    found["failed to go on"] += last.exitcode != 0
    found["the same bits" if same(folder, ("whole", "killed")) else "OTHER BITS"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--runs", type=int, default=12)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(
        "\n| frozen epochs | workers | kills | came too late | failed to go on | runs that end in the same bits |"
    )
    print("|--:|--:|--:|--:|--:|--:|")
    draw = random.Random(0)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        pictures = draw_pictures(Path(place) / "pictures")
        for n, settings in enumerate(islice(cycle(SETTINGS), options.runs)):
            folder = Path(place) / f"run{n}"
            folder.mkdir()
            kills = options.kills // options.runs + (n < options.kills % options.runs)
            found = trial(pictures, folder, settings, kills, draw)
            total += found
            print(
                f"| {settings['frozen']} | {settings['workers']} | {found['kills']} | {found['came too late']} "
                f"| {found['failed to go on']} | {found['the same bits']} |",
                flush=True,
            )
    print(f"\n{dict(total)}")


if __name__ == "__main__":
    main()
