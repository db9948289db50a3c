"""Run the jobs of this folder with each peer in turn, A B C ... C B A, and write tables and a plot.

    python run.py [JOB ...] [--quick] [--rounds N] [--peers bare layerkit ...] [--output FOLDER]

Each run is a process of its own, with a terminal (that nobody looks at) as its output, so that progress bars cost
what they cost a user. OUTPUT gets JOB.json with every single result, speed.md and speed.svg. Jobs that are not
named again keep their results of an earlier time. All jobs take an hour or two; ``--quick`` makes one round of
each on few pictures.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import photos
import report

HERE = Path(__file__).parent
PACKAGES = [
    "layerkit", "torch", "torchvision", "torchcodec", "pillow", "accelerate", "fastai", "keras", "lightning",
    "poutyne", "pytorch-accelerated", "pytorch-ignite", "skorch", "split-folders", "timm", "ultralytics",
]  # fmt: skip


@dataclass
class Job:
    """What one script is asked to do."""

    script: str
    peers: str
    rounds: int
    options: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    folder: tuple[str, str] | None = None
    """An option that takes a folder, and which one of those that are made here."""
    warm_up: bool = False
    """Whether a round goes before that does not count."""


JOBS = {
    "loop": Job(
        "loop", "bare layerkit accelerate fastai ignite keras lightning poutyne pytorch_accelerated skorch",
        rounds=7, options={"steps": 150, "turns": 4}, quick={"steps": 100, "turns": 2},
    ),
    "finetune": Job(
        "finetune", "bare layerkit layerkit_bf16 fastai keras lightning ultralytics",
        rounds=3, folder=("pictures", "small"),
    ),
    "frozen": Job(
        "frozen", "bare layerkit layerkit_bf16 fastai lightning",
        rounds=2, options={"measured": 2}, quick={"measured": 1}, folder=("pictures", "small"),
    ),
    "loading": Job(
        "loading", "bare layerkit layerkit_cache torchvision_v2 fastai timm ultralytics",
        rounds=5, options={"workers": 0}, folder=("pictures", "small"),
    ),
    "loading_workers": Job(
        "loading", "bare layerkit layerkit_cache torchvision_v2 fastai timm ultralytics",
        rounds=5, options={"workers": 2}, folder=("pictures", "small"),
    ),
    "loading_large": Job(
        "loading", "bare layerkit layerkit_cache torchvision_v2 fastai timm ultralytics",
        rounds=3, options={"workers": 0}, folder=("pictures", "large"),
    ),
    "splitting": Job(
        "splitting", "bare bare_link layerkit layerkit_link split_folders ultralytics",
        rounds=5, options={"files": 10_000}, quick={"files": 2_000}, folder=("folder", "files"),
    ),
    "imports": Job(
        "imports",
        "bare layerkit accelerate fastai ignite keras lightning poutyne pytorch_accelerated skorch "
        "split_folders timm ultralytics",
        rounds=5, warm_up=True,
    ),
}  # fmt: skip
QUICK = ["loop", "frozen"]
"""What --quick runs if no job is named."""


def main() -> None:
    asked = arguments()
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), asked)
        for name in asked.jobs:
            do(name, Path(folder), asked)
    print(report.write(asked.output))


def make_data(folder: Path, asked: argparse.Namespace) -> None:
    """Make what the jobs read."""
    (folder / "files").mkdir()
    wanted = {JOBS[name].folder[1] for name in asked.jobs if JOBS[name].folder}
    if wanted & {"small", "large"}:
        train, valid = (asked.train, max(16, asked.train // 4)) if "small" in wanted else (0, 0)
        photos.make(folder, train, valid, asked.large if "large" in wanted else 0)


def do(name: str, folder: Path, asked: argparse.Namespace) -> None:
    """Do one job with all its peers, and write down after each run everything that the table needs."""
    job = JOBS[name]
    options = job.options | (job.quick if asked.quick else {})
    settings = dict(options)
    if job.folder:
        option, part = job.folder
        options[option] = str(folder / part)
        settings |= {"pictures to train on": asked.train} if part == "small" else {}
    peers = [peer for peer in job.peers.split() if not asked.peers or peer in asked.peers]
    rounds = asked.rounds or (1 if asked.quick else job.rounds)
    results: list[dict[str, Any]] = []
    about = {"job": name, "settings": settings, "date": time.strftime("%Y-%m-%d")}
    about |= {"machine": machine(), "versions": versions(), "results": results}
    for number, peer in turns(peers, -1 if job.warm_up else 0, rounds):
        result = {"round": number} | run(job.script, peer, options)
        print(json.dumps(result), flush=True)
        if number >= 0:
            results.append(result)
        Path(asked.output, f"{name}.json").write_text(json.dumps(about, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"one round, by default of {', '.join(QUICK)}")
    parser.add_argument("--rounds", type=int, help="instead of each job's own number")
    parser.add_argument("--peers", nargs="+", help="only these")
    parser.add_argument("--train", type=int, help="pictures to train on (512; 32 with --quick)")
    parser.add_argument("--large", type=int, help="pictures of 4000 x 3000, twice (16; 2 with --quick)")
    parser.add_argument("--output", type=Path, help="(default: runs/bench or runs/bench-quick)")
    asked = parser.parse_args()
    if unknown := set(asked.jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(unknown)}; expected some of {', '.join(JOBS)}")
    asked.jobs = asked.jobs or (QUICK if asked.quick else list(JOBS))
    asked.train = asked.train or (32 if asked.quick else 512)
    asked.large = asked.large or (2 if asked.quick else 16)
    asked.output = asked.output or Path("runs/bench-quick" if asked.quick else "runs/bench")
    return asked


def turns(peers: list[str], first: int, rounds: int) -> Iterator[tuple[int, str]]:
    """Yield who comes next, each second round backwards, so that drift falls on all alike."""
    for number in range(first, rounds):
        for peer in peers if number % 2 == 0 else peers[::-1]:
            yield number, peer


def run(script: str, peer: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run one peer, and say which share of the processors others took meanwhile."""
    command = [sys.executable, str(HERE / f"{script}.py"), peer]
    command += [f"--{option}={value}" for option, value in options.items()]
    busy, started = busy_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        memory = MemoryWatch()
        said = output_on_a_terminal(command, folder, memory)
    passed = time.perf_counter() - started
    lines = [line for line in said.splitlines() if line.startswith('{"peer"')]
    if not lines:
        return {"peer": peer, "fail": said[-1500:]}
    result = json.loads(lines[-1]) | {"with_workers_mb": memory.most_mb}
    if busy is not None:
        others = busy_seconds() - busy - result["processor_seconds"]
        result["others"] = round(max(0, others) / passed / (os.cpu_count() or 1), 3)
    return result


def output_on_a_terminal(command: list[str], folder: str, memory: "MemoryWatch") -> str:
    """Give all that a command says; on Windows, which has no such terminals, through a pipe."""
    # Bytecode is written, as it is for everybody by default: without it imports take several times as long.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120"}
    options: dict[str, Any] = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL}
    try:
        import pty
    except ImportError:
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
        return subprocess.run(command, **options, **piped).stdout
    reader, writer = pty.openpty()
    said = bytearray()
    thread = threading.Thread(target=drain, args=(reader, said))
    thread.start()
    with subprocess.Popen(command, **options, stdout=writer, stderr=writer) as process:
        memory.watch(process)
    os.close(writer)
    thread.join(10)
    return said.decode(errors="replace")


def drain(reader: int, said: bytearray) -> None:
    """Read until nobody holds the other end any more."""
    with open(reader, "rb", buffering=0) as stream:
        try:
            while part := stream.read(65536):
                said.extend(part)
        except OSError:  # how Linux says that it is over
            pass


class MemoryWatch:
    """Look twice a second how much a process and its workers hold together, pages that they share counted once."""

    def __init__(self) -> None:
        self.most_mb: float | None = None

    def watch(self, process: subprocess.Popen) -> None:
        """Wait for the end of the process."""
        while True:
            try:
                process.wait(0.5)
                return
            except subprocess.TimeoutExpired:
                if Path("/proc/self/smaps_rollup").exists():
                    held = sum(map(self._held_kb, self._tree(process.pid))) / 1024
                    self.most_mb = max(self.most_mb or 0, round(held))

    def _tree(self, pid: int) -> Iterator[int]:
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in self._read(task).split():
                yield from self._tree(int(child))

    def _held_kb(self, pid: int) -> int:
        # Of a page that n processes share, the kernel counts the n-th part for each.
        found = re.search(r"^Pss:\s+(\d+) kB", self._read(Path(f"/proc/{pid}/smaps_rollup")), re.MULTILINE)
        return int(found[1]) if found else 0

    def _read(self, file: Path) -> str:
        try:
            return file.read_text()
        except OSError:  # it has ended meanwhile
            return ""


def busy_seconds() -> float | None:
    """Give how long the processors have worked since the start, for whomever; None where unknown."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return None
    user, nice, system, _, _, *interrupts = map(int, counters.read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """Describe the machine without naming it."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (model := re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)):
        name = model[1]
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
        memory = f", {size:.0f} GiB of memory"
    return f"{name}, {os.cpu_count()} cores{memory}, {platform.system()}, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Name the releases of what is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    main()
