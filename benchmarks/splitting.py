"""How fast folders are split, next to split-folders and to bare loops.

Two tables: 25,000 files of different sizes in two classes, each way several times in turn; and how time
and memory grow from 10,000 to 1,000,000 tiny files, planned and hard-linked. Each way writes to a fresh
folder and nothing is deleted before the end: on ext4, names made soon after others were freed cost several
times more. The source is in memory each time: what is measured is the work, not the disk.

    python benchmarks/splitting.py --folder /some/disk [--files 25000] [--rounds 5] [--scale 1000000]
"""

# The bare loops stand as others write them.
# ruff: noqa: PTH118

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SHARES = (("train", 0.8), ("valid", 0.2))


def make_pictures(root: Path, count: int) -> Path:
    """Write random files of 16 to 24 KB in two classes, like small photographs in size."""
    rng = random.Random(0)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i in range(count // 2):
            (root / label / f"{label}.{i}.jpg").write_bytes(rng.randbytes(rng.randrange(16_000, 24_000)))
    return root


def make_tiny(root: Path, count: int) -> Path:
    """Write files of 8 to 40 bytes in ten classes, in folders of 10,000 at most."""
    for i in range(count):
        folder = root / f"class{i % 10}" / f"{i // 100_000}"
        if i % 100_000 < 10:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(b"%d" % i * (i % 7 + 2))
    return root


def bare_loop(operation: Callable[[str, str], object], source: Path, dest: Path) -> None:
    """Shuffle and call one operation for each file: the least that a script would do."""
    rng = random.Random(0)
    for label in ("cat", "dog"):
        names = sorted(entry.name for entry in os.scandir(source / label))
        rng.shuffle(names)
        cut = int(len(names) * 0.8)
        for part, chosen in (("train", names[:cut]), ("valid", names[cut:])):
            folder = dest / part / label
            folder.mkdir(parents=True)
            for name in chosen:
                operation(os.path.join(source, label, name), os.path.join(folder, name))


def ways(source: Path) -> dict[str, Callable[[Path], object]]:
    """Name each way of splitting; each takes the folder to write to."""
    from layerkit import split_folder

    options = {"valid": 0.2, "seed": 1, "progress": False}
    found: dict[str, Callable[[Path], object]] = {
        "os.link loop": lambda dest: bare_loop(os.link, source, dest),
        "layerkit hardlink": lambda dest: split_folder(source, dest, mode="hardlink", **options),
        "layerkit hardlink, duplicates ignored": lambda dest: split_folder(
            source, dest, mode="hardlink", duplicates="ignore", **options
        ),
        "shutil.copyfile loop": lambda dest: bare_loop(shutil.copyfile, source, dest),
        "layerkit copy": lambda dest: split_folder(source, dest, **options),
    }
    try:
        import splitfolders
    except ImportError:
        print("split-folders is not installed and left out", file=sys.stderr)
    else:
        found["split-folders copy"] = lambda dest: splitfolders.ratio(
            str(source), output=str(dest), seed=1, ratio=(0.8, 0.2)
        )
    return found


def warm(source: Path) -> None:
    """Read every picture, so that each way finds the source in memory, whatever the one before pushed out."""
    for path in source.rglob("*.jpg"):
        path.read_bytes()


def compare(folder: Path, count: int, rounds: int) -> None:
    """Print the table of the ways, in turn forwards and backwards."""
    source = make_pictures(folder / "pictures", count)
    seconds: dict[str, list[float]] = {}
    todo = list(ways(source).items())
    for n in range(rounds):
        for k, (name, way) in enumerate(todo if n % 2 == 0 else todo[::-1]):
            os.sync()
            warm(source)
            started = time.perf_counter()
            way(folder / f"out{n}-{k if n % 2 == 0 else len(todo) - 1 - k}")
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    rates = {name: count / statistics.median(times) for name, times in seconds.items()}
    print(f"\n| {count:,} files, 16 to 24 KB | files/s | of os.link | of copyfile | of split-folders |")
    print("|---|--:|--:|--:|--:|")
    for name, rate in rates.items():
        others = ("os.link loop", "shutil.copyfile loop", "split-folders copy")
        ratios = " | ".join(f"{rate / rates[other]:.2f}" if other in rates else "" for other in others)
        print(f"| {name} | {rate:,.0f} | {ratios} |")


def sizes_up_to(most: int) -> Iterator[int]:
    """Yield 10,000 and each tenfold of it up to the most."""
    size = 10_000
    while size <= most:
        yield size
        size *= 10


def scale(folder: Path, most: int) -> None:
    """Print how time and memory grow, each size in a process of its own."""
    print("\n| tiny files | make, s | plan and hard-link, s | files/s | memory, bytes a file |")
    print("|--:|--:|--:|--:|--:|")
    for count in sizes_up_to(most):
        started = time.perf_counter()
        source = make_tiny(folder / f"tiny{count}", count)
        made = time.perf_counter() - started
        command = [sys.executable, __file__, "--measure", str(source), str(folder / f"tiny{count}-split")]
        seconds, memory = map(
            float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        )
        print(
            f"| {count:,} | {made:.1f} | {seconds:.1f} | {count / seconds:,.0f} | {memory / count:,.0f} |",
            flush=True,
        )


def measure(source: str, dest: str) -> None:
    """Print the seconds that one split takes, and by how many bytes the process grew at its peak."""
    import resource

    from layerkit import split_folder

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    split_folder(source, dest, mode="hardlink", progress=False)
    seconds = time.perf_counter() - started
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)


def describe() -> str:
    """Name the machine and the versions."""
    try:
        peer = version("split-folders")
    except PackageNotFoundError:
        peer = "none"
    return (
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"layerkit {version('layerkit')}, split-folders {peer}, {time.strftime('%Y-%m-%d')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where to write; emptied at the end")
    parser.add_argument("--files", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=int, default=100_000, help="the most tiny files; 0 for none")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    if options.folder is None:
        parser.error("--folder is needed: the disk that is to be measured")
    folder = options.folder / f"splitting{os.getpid()}"
    folder.mkdir(parents=True)
    print(describe())
    try:
        if options.rounds:
            compare(folder, options.files, options.rounds)
        scale(folder, options.scale)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
