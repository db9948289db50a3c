"""Kill splits at random moments, and count what was lost or half-written: nothing, it should be.

    python benchmarks/kill_splits.py [--kills 200] [--files 400] [--folder /some/disk]

Each trial forks a process that splits, sends it SIGKILL after a random part of the time that a whole split
takes, checks every file byte by byte, calls the same split again and checks that it is complete.
"""

import argparse
import itertools
import multiprocessing
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from multiprocessing.context import ForkProcess
from pathlib import Path

from layerkit import split_folder

MODES = ("copy", "hardlink", "move")
fork = multiprocessing.get_context("fork")  # the imports are over before the clock starts


def make(root: Path, count: int) -> dict[str, bytes]:
    """Write random files of up to 200 KB, a few of them twice, and return their bytes."""
    rng = random.Random(0)
    contents = {f"{'ab'[i % 2]}/{i}.jpg": rng.randbytes(rng.randrange(200_000)) for i in range(count)}
    contents |= {f"a/copy{i}.jpg": contents[f"a/{2 * i}.jpg"] for i in range(count // 20)}
    for path, data in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return contents


def visible(root: Path) -> dict[str, bytes]:
    """Read all files but layerkit's own; in a destination, by their path below the part."""
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith(".layerkit-split"):
            found[name] = path.read_bytes()
    return found


def by_source_path(dest: Path) -> dict[str, bytes]:
    return {name.partition("/")[2]: data for name, data in visible(dest).items()} if dest.exists() else {}


def start(source: Path, dest: Path, mode: str) -> ForkProcess:
    process = fork.Process(target=split_folder, args=(source, dest), kwargs={"mode": mode, "progress": False})
    process.start()
    return process


def trial(folder: Path, contents: dict[str, bytes], mode: str, delay: float) -> str:
    """Kill one split after a delay; return what came of it."""
    source, dest = folder / "source", folder / "dest"
    shutil.copytree(folder.parent / "original", source)
    process = start(source, dest, mode)
    time.sleep(delay)
    process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    left, placed = visible(source), by_source_path(dest)
    if any(contents[path] != data for path, data in placed.items()):
        return "half-written"
    if {**left, **placed} != contents or (mode != "move" and left != contents):
        return "lost"
    split_folder(source, dest, mode=mode, progress=False)
    if by_source_path(dest) != contents or visible(source) != ({} if mode == "move" else contents):
        return "not finished"
    shutil.rmtree(folder)
    if not killed:
        return "was over before the kill"
    return "killed while writing" if 0 < len(placed) < len(contents) else "killed before or after writing"


def undisturbed(folder: Path, mode: str) -> float:
    """Return the seconds that a split takes here if nobody kills it."""
    shutil.copytree(folder / "original", folder / "warm" / "source")
    started = time.perf_counter()
    start(folder / "warm" / "source", folder / "warm" / "dest", mode).join()
    seconds = time.perf_counter() - started
    shutil.rmtree(folder / "warm")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    outcomes: dict[str, Counter[str]] = {mode: Counter() for mode in MODES}
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        folder = Path(root)
        contents = make(folder / "original", options.files)
        whole = {mode: min(undisturbed(folder, mode) for _ in range(3)) for mode in MODES}
        for n in itertools.count():
            killed = sum(c.total() - c["was over before the kill"] for c in outcomes.values())
            if killed >= options.kills:
                break
            mode = MODES[killed % len(MODES)]
            outcomes[mode][trial(folder / f"trial{n}", contents, mode, rng.uniform(0, whole[mode]))] += 1
    for mode, counted in outcomes.items():
        print(f"{mode:9s} {counted.total():4d} trials: {dict(counted)}")
    bad = sum(
        counted[what] for counted in outcomes.values() for what in ("half-written", "lost", "not finished")
    )
    print("nothing lost, nothing half-written, every split finished" if not bad else f"{bad} FAILURES")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
