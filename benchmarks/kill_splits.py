"""Kill splits at random moments, and count what was lost or half-written: nothing, it should be.

    python benchmarks/kill_splits.py [--kills 200] [--files 400] [--folder /some/disk] [--elsewhere /another/disk]

Each trial forks a process that splits, sends it SIGKILL, checks every file byte by byte, calls the same split
again and checks that it is complete. Every second kill comes at a random moment of a whole split, the others at one
of its writing, which is short where pictures are linked or renamed. With --elsewhere, a folder on another disk,
pictures are moved there too, which copies them and then removes the originals.
"""

import argparse
import functools
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
ELSEWHERE = "move to another disk"
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


def wait_for_writing(dest: Path, process: ForkProcess) -> None:
    """Wait for the manifest, which comes right before the first picture."""
    while process.is_alive() and not (dest / ".layerkit-split.jsonl").exists():
        time.sleep(0.0002)


def trial(
    folder: Path, dest: Path, contents: dict[str, bytes], mode: str, delay: float, *, writing: bool
) -> str:
    """Kill one split after a delay, counted from its start or from its writing; return what came of it."""
    source = folder / "source"
    shutil.copytree(folder.parent / "original", source)
    process = start(source, dest, mode)
    if writing:
        wait_for_writing(dest, process)
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
    shutil.rmtree(dest, ignore_errors=True)
    if not killed:
        return "was over before the kill"
    return "killed while writing" if 0 < len(placed) < len(contents) else "killed before or after writing"


def undisturbed(folder: Path, dest: Path, mode: str) -> tuple[float, float]:
    """Return the seconds that a split, and its writing, take here if nobody kills it."""
    shutil.copytree(folder / "original", folder / "warm" / "source")
    started = time.perf_counter()
    process = start(folder / "warm" / "source", dest, mode)
    wait_for_writing(dest, process)
    began = time.perf_counter()
    process.join()
    ended = time.perf_counter()
    shutil.rmtree(folder / "warm")
    shutil.rmtree(dest)
    return ended - started, ended - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--elsewhere", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    modes = (*MODES, ELSEWHERE) if options.elsewhere else MODES
    outcomes: dict[str, Counter[str]] = {mode: Counter() for mode in modes}
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        folder = Path(root)
        contents = make(folder / "original", options.files)
        other = Path(tempfile.mkdtemp(dir=options.elsewhere)) if options.elsewhere else folder
        place = {mode: (other if mode == ELSEWHERE else folder) / "dest" for mode in modes}
        plain = {mode: mode.partition(" ")[0] for mode in modes}
        whole = {mode: min(undisturbed(folder, place[mode], plain[mode]) for _ in range(3)) for mode in modes}
        for n in itertools.count():
            killed = sum(c.total() - c["was over before the kill"] for c in outcomes.values())
            if killed >= options.kills:
                break
            mode, writing = modes[killed % len(modes)], n % 2 == 1
            kill = functools.partial(trial, folder / f"trial{n}", place[mode], contents, plain[mode])
            outcomes[mode][kill(rng.uniform(0, whole[mode][writing]), writing=writing)] += 1
    for mode, counted in outcomes.items():
        print(f"{mode:20s} {counted.total():4d} trials: {dict(counted)}")
    bad = sum(
        counted[what] for counted in outcomes.values() for what in ("half-written", "lost", "not finished")
    )
    print("nothing lost, nothing half-written, every split finished" if not bad else f"{bad} FAILURES")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
