"""How fast pictures are loaded to 224 px, next to the usual way.

The usual way is ``Image.open(path).convert("RGB")``, Resize(256) and CenterCrop(224) (in training
RandomResizedCrop and RandomHorizontalFlip), ToTensor and Normalize in a torch DataLoader. The pictures are
drawn from a seed, with the spectrum of photographs, and written as JPEGs of quality 90. The ways take turns
within a round, forwards and backwards; the files are in memory: what is measured is the work, not the disk.

    python benchmarks/loading.py --folder /some/disk [--small 400] [--large 24] [--rounds 5]
"""

import argparse
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from layerkit import Preset
from layerkit.loading import FolderDataset, PictureLoader
from layerkit.loading.caching import make_caches

PRESET = Preset(224)
NORMALIZE = [transforms.ToTensor(), transforms.Normalize(PRESET.mean, PRESET.std)]
USUAL = {
    "eval": transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *NORMALIZE]),
    "train": transforms.Compose(
        [transforms.RandomResizedCrop(224, (0.25, 1)), transforms.RandomHorizontalFlip(), *NORMALIZE]
    ),
}
LEVELS = torch.tensor(PRESET.std).view(3, 1, 1) * 255
Way = Callable[[], Any]


def draw(height: int, width: int, seed: int) -> Image.Image:
    """Draw a picture with the spectrum of photographs (amplitudes fall with the frequency) and hard edges."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.float32)
    cell = max(height, width)
    while cell >= 1:
        grid = rng.normal(0, 1, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        grid = 0.7 * grid[..., :1] + 0.3 * grid  # colours change less than brightness
        for channel in range(3):
            layer = Image.fromarray(grid[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            picture[..., channel] += np.asarray(layer) * 65 * (cell / max(height, width)) ** 0.5
        cell //= 2
    for _ in range(6):
        top, left = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
        picture[top : top + height // 5, left : left + width // 6] += rng.normal(0, 30, 3).astype(np.float32)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def make_folder(root: Path, count: int, height: int, width: int) -> Path:
    """Write pictures in two classes."""
    for n in range(count):
        file = root / ("even", "odd")[n % 2] / f"{n:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(height, width, n).save(file, quality=90)
    return root


def usual(root: Path, what: str, workers: int) -> Way:
    """Load a folder as most tutorials do."""
    loader = DataLoader(
        ImageFolder(str(root), USUAL[what]),
        32,
        num_workers=workers,
        shuffle=what == "train",
        persistent_workers=workers > 0,
    )
    return lambda: sum(len(pictures) for pictures, _ in loader)


def ours(root: Path, what: str, workers: int | str, *, cache: bool = False) -> Way:
    """Load a folder with layerkit; 0 is the process itself, "auto" threads."""
    transform = PRESET.train() if what == "train" else PRESET.eval()
    dataset = FolderDataset(root, transform)
    if cache:
        parts = {"all": (dataset.paths, transform)}
        dataset.cache = make_caches(parts, "disk", root.parent, exact=False)["all"]
    loader = PictureLoader(dataset, batch_size=32, shuffle=what == "train", num_workers=workers)  # type: ignore[arg-type]
    return lambda: sum(len(pictures) for pictures, _ in loader)


def alternate(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Time the ways in turn, each once in advance: workers have started and caches are warm."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for n in range(rounds):
        for name, way in list(ways.items())[:: 1 if n % 2 == 0 else -1]:
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def compare(title: str, root: Path, count: int, rounds: int) -> None:
    """Print the table of one folder."""
    for what in ("eval", "train"):
        alone = {
            "usual, one process": usual(root, what, 0),
            "layerkit, one process": ours(root, what, 0),
            "layerkit, one process, second epoch from the cache": ours(root, what, 0, cache=True),
        }
        two = {
            "usual, 2 workers": usual(root, what, 2),
            "layerkit, 2 workers": ours(root, what, 2),
            "layerkit, threads": ours(root, what, "auto"),
            "layerkit, threads, second epoch from the cache": ours(root, what, "auto", cache=True),
        }
        print(f"\n| {title}, {what} | pictures/s | of usual | least and most |\n|---|--:|--:|--:|")
        for ways in (alone, two):
            seconds = alternate(ways, rounds)
            base, *_ = seconds.values()
            for name, times in seconds.items():
                ratios = [a / b for a, b in zip(base, times, strict=True)]
                print(
                    f"| {name} | {count / statistics.median(times):,.0f} | {statistics.median(ratios):.2f} "
                    f"| {min(ratios):.2f} to {max(ratios):.2f} |",
                    flush=True,
                )


def differences(root: Path) -> None:
    """Print how far the pixels are from those of a whole decode, in levels of 255."""
    rows = {}
    pil = FolderDataset(root, PRESET.eval())
    wanted = [USUAL["eval"](Image.open(path).convert("RGB")) for path in pil.paths]
    rows["eval, from the usual way"] = [pil[n][0] - wanted[n] for n in range(len(pil))]
    for what, transform in (("eval", PRESET.eval()), ("train", PRESET.train())):
        reduced, whole = (_read(FolderDataset(root, transform, exact=exact)) for exact in (False, True))
        rows[f"{what}, from exact=True"] = [a - b for a, b in zip(reduced, whole, strict=True)]
    print("\n| mean difference, levels of 255 | all | worst picture |\n|---|--:|--:|")
    for name, found in rows.items():
        means = [(one * LEVELS).abs().mean().item() for one in found]
        print(f"| {name} | {statistics.mean(means):.3f} | {max(means):.3f} |")


def _read(dataset: FolderDataset) -> list[Tensor]:
    loader = PictureLoader(dataset, batch_size=1, shuffle=False, num_workers=0)
    return [pictures[0] for pictures, _ in loader]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where to write; emptied at the end")
    parser.add_argument("--small", type=int, default=400, help="pictures of 500 x 375; 0 for none")
    parser.add_argument("--large", type=int, default=24, help="pictures of 4000 x 3000; 0 for none")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder / f"loading{os.getpid()}"
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, layerkit "
        f"{version('layerkit')}, torch {torch.__version__}, Pillow {version('pillow')}, {time.strftime('%Y-%m-%d')}"
    )
    try:
        for name, count, height, width in (
            ("small", options.small, 375, 500),
            ("large", options.large, 3000, 4000),
        ):
            if count:
                root = make_folder(folder / name, count, height, width)
                mean = sum(file.stat().st_size for file in root.rglob("*.jpg")) / count / 1000
                compare(f"{count} JPEGs of {width} x {height}, {mean:,.0f} KB", root, count, options.rounds)
                differences(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
