"""How a run's time and memory grow with the pictures, the epochs and the parameters.

    python benchmarks/growth.py [--most 100000] [--output runs/growth]

Trains a network of two linear layers from a folder of small JPEGs, each point in a process of its own, with one of
the three growing and the two others held. The pictures are hard links to a few hundred that are drawn with a seed.
Prints a table, and writes growth.svg. `seconds` counts from folder_loaders() to the end of fit(); `MB` is the most
memory that the process has held beyond its peak after a first, tiny run, which imports all that a run needs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALLEST = {"pictures": 1_000, "epochs": 1, "width": 32}
GROWING = {
    "pictures": [1_000, 3_162, 10_000, 31_623, 100_000],
    "epochs": [1, 3, 10, 32],
    "width": [32, 320, 3_200, 32_000],
}
TITLES = {"pictures": "pictures", "epochs": "epochs", "width": "parameters"}
SIDE = 32
DRAWN = 500


def parameters(width: int) -> int:
    """Count those of the network."""
    return (3 * SIDE * SIDE + 1) * width + (width + 1) * 2


def draw(folder: Path, pictures: int) -> None:
    """Fill folder/{train,valid}/{cold,warm}; a tenth as many are held out."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(DRAWN):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    for part, count in (("train", pictures), ("valid", pictures // 10)):
        for label in ("cold", "warm"):
            (folder / part / label).mkdir(parents=True)
        for number in range(count):
            label = ("cold", "warm")[number % 2]
            os.link(folder / f"{number % DRAWN}.jpg", folder / part / label / f"{number:06}.jpg")


def measure(folder: str, epochs: int, width: int) -> dict[str, float]:
    """Train once; give the time and the memory that it took."""
    import torch
    from torch import nn

    from layerkit import Multiclass, Preset, fit, folder_loaders

    torch.manual_seed(0)
    # The optimizer's first step imports more of torch, and the metrics torchmetrics: neither grows.
    small = nn.Linear(2, 2)
    some = [(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))]
    fit(small, Multiclass(2), some, some, epochs=1, progress=False)
    before, started = most_memory(), time.perf_counter()
    data = folder_loaders(folder, preset=Preset(SIDE), batch_size=100)
    task = Multiclass(data.classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, width), nn.ReLU(), nn.Linear(width, 2))
    fit(model, task, data.train, data.valid, epochs=epochs, device="cpu", progress=False)
    return {"seconds": time.perf_counter() - started, "MB": most_memory() - before}


def most_memory() -> float:
    """Give the peak of this process so far in MB."""
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024**2 if sys.platform == "darwin" else 1024
    )


def point(folder: Path, settings: dict[str, int]) -> dict[str, float]:
    """Measure in a process of its own."""
    pictures = folder / f"{settings['pictures']}"
    if not pictures.exists():
        draw(pictures, settings["pictures"])
    arguments = [str(pictures), str(settings["epochs"]), str(settings["width"])]
    command = [sys.executable, __file__, "--measure", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def plot(points: dict[str, list[tuple[int, dict[str, float]]]], path: Path) -> None:
    """Draw the seconds above and the memory below, one column for each of what grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, len(points), sharey="row", sharex="col")
    for column, (name, measured) in enumerate(points.items()):
        sizes = [size for size, _ in measured]
        for row, unit in enumerate(("seconds", "MB")):
            axis = axes[row][column]
            axis.plot(sizes, [figures[unit] for _, figures in measured], "o-", color="#0072B2", clip_on=False)
            axis.set(xscale="log", yscale="log" if unit == "seconds" else "linear")
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        axes[1][column].set_xlabel(TITLES[name])
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("MB")
    axes[1][0].set_ylim(bottom=0)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=100_000, help="pictures (default: 100000)")
    parser.add_argument("--output", type=Path, default=Path("runs/growth"))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, epochs, width = options.measure
        print(json.dumps(measure(folder, int(epochs), int(width))))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    points: dict[str, list[tuple[int, dict[str, float]]]] = {}
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    print("| what grows | size | seconds | MB |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory(dir=options.output) as folder:
        for name, sizes in GROWING.items():
            for size in sizes:
                if name == "pictures" and size > options.most:
                    continue
                figures = point(Path(folder), SMALLEST | {name: size})
                shown = parameters(size) if name == "width" else size
                points.setdefault(name, []).append((shown, figures))
                print(
                    f"| {TITLES[name]} | {shown:,} | {figures['seconds']:.2f} | {figures['MB']:.0f} |",
                    flush=True,
                )
    plot(points, options.output / "growth.svg")


if __name__ == "__main__":
    main()
