"""Draw the pictures that the other scripts read: JPEGs with the spectrum of photographs, in two classes.

    python photos.py FOLDER [--train 512] [--valid 128] [--large 16]

Writes FOLDER/small/{train,valid}/{cold,warm} of 500 x 375 pixels, and FOLDER/large/... of 4000 x 3000. The same
numbers give the same pixels. The classes differ in colour, so that a network which learns anything tells them
apart.
"""

import argparse
import functools
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

Job = tuple[Path, int, tuple[int, int]]
TINT = {"cold": np.float32([-8, 0, 8]), "warm": np.float32([8, 0, -8])}


def draw(height: int, width: int, seed: int) -> np.ndarray:
    """Draw noise whose amplitudes fall with the frequency, and a few hard edges."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.float32)
    cell = longest = max(height, width)
    while cell >= 1:
        grid = rng.normal(0, 1, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        grid = 0.7 * grid[..., :1] + 0.3 * grid  # colours change less than brightness
        for channel in range(3):
            layer = Image.fromarray(grid[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            picture[..., channel] += np.asarray(layer) * 65 * (cell / longest) ** 0.5
        cell //= 2
    for _ in range(6):
        top, left = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
        picture[top : top + height // 5, left : left + width // 6] += rng.normal(0, 30, 3).astype(np.float32)
    return picture


def write(job: Job) -> int:
    """Write one picture; give its size in bytes."""
    file, seed, (height, width) = job
    picture = draw(height, width, seed) + TINT[file.parent.name]
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return file.stat().st_size


def jobs(root: Path, counts: dict[str, int], size: tuple[int, int]) -> Iterator[Job]:
    """Name the pictures of one size, each part's classes in turn."""
    seed = 0
    for part, count in counts.items():
        for number in range(count):
            yield root / part / ("cold", "warm")[number % 2] / f"{number:05}.jpg", seed, size
            seed += 1


def make(root: Path, train: int = 512, valid: int = 128, large: int = 16) -> Path:
    """Write all pictures and say how large they are."""
    small_size, large_size = (375, 500), (3000, 4000)
    with Pool() as pool:
        work = functools.partial(pool.map, write, chunksize=4)
        small = work(jobs(root / "small", {"train": train, "valid": valid}, small_size))
        big = work(jobs(root / "large", {"train": large, "valid": large}, large_size))
    for name, sizes in (("small", small), ("large", big)):
        print(f"{len(sizes)} {name} pictures of {sum(sizes) / max(1, len(sizes)) / 1000:,.0f} KB", flush=True)
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--valid", type=int, default=128)
    parser.add_argument("--large", type=int, default=16, help="for each of train and valid")
    options = vars(parser.parse_args())
    make(options.pop("folder"), **options)
