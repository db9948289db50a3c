"""A run that is killed and called again ends as one that was never killed."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from layerkit import Checkpoint, CheckpointError, Multiclass, fit
from layerkit.saving import read_tensors, write_tensors
from layerkit.training.checkpoint import Store

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork, and no such signals")

SCRIPT = """
import json, os, random, sys, time
import torch, torchmetrics
from torch import nn
from layerkit import Checkpoint, Multiclass, Preset, fit, folder_loaders
from layerkit.callbacks import EMA

root, folder, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if settings["background"]:
    from layerkit.training.checkpoint import Store
    init = Store.__init__
    Store.__init__ = lambda self, *given, in_background: init(self, *given, in_background=True)

def train(name):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = folder_loaders(root, preset=Preset(24), batch_size=8, seed=1, num_workers=settings["workers"])
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(32, 2),
    )
    task = Multiclass(data.classes, class_weight="balanced")
    run = fit(
        model, task, data.train, data.valid, epochs=9, frozen_epochs=settings["frozen"], seed=3,
        callbacks=[EMA(0.9)], checkpoint=Checkpoint(f"{folder}/{name}", every_seconds=0.01),
    )
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]
    torch.save({"model": model.state_dict(), "history": rows, "best": run.best_epoch}, f"{folder}/{name}.pt")

def child(name, signal=None, delay=0.0, state_first=False):
    # Forked, so that each kill costs no import of torch; it is a process like any other.
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            train(name)
            status = 0
        except KeyboardInterrupt:
            status = 130
        except SystemExit as end:
            status = end.code
        finally:
            os._exit(status)
    if signal is not None:
        while state_first and not os.path.exists(f"{folder}/{name}/last.safetensors"):
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(pid, signal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

started = time.perf_counter()
assert child("whole") == 0
seconds = time.perf_counter() - started
draw = random.Random(settings["frozen"])
# The first has a state to go on from, whatever else the processor is busy with; the others come at any moment.
ends = [child("killed", settings["signal"], draw.uniform(0.0, 0.3) * seconds, state_first=True)]
ends += [child("killed", settings["signal"], draw.uniform(0.1, 0.5) * seconds) for _ in range(settings["kills"] - 1)]
ends.append(child("killed"))
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Write a small folder that is split already."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    draw = random.Random(0)
    for part, count in (("train", 26), ("valid", 10)):
        for name, red in (("a", 60), ("b", 180)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                noise = Image.effect_noise((32, 30), 90)
                picture = Image.merge("RGB", (noise.point(lambda v, red=red: (v + red) // 2), noise, noise))
                picture.putpixel((0, 0), (draw.randrange(256), 0, 0))
                picture.save(root / part / name / f"{number}.png")
    return root


def killed_run(pictures: Path, folder: Path, *, background: bool = False, **settings: int) -> list[int]:
    """Train once undisturbed and once with signals; give the exit statuses of the second, ended by a last call."""
    settings["background"] = background
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(pictures), str(folder), json.dumps(settings)],
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    whole, killed = (torch.load(folder / f"{name}.pt") for name in ("whole", "killed"))
    assert killed["history"] == whole["history"]
    assert killed["best"] == whole["best"]
    for name, value in whole["model"].items():
        assert torch.equal(value, killed["model"][name]), name
    statuses: list[int] = json.loads(process.stdout)
    assert "goes on after epoch" in process.stderr
    return statuses


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("frozen", "workers", "background"), [(0, 2, False), (5, 0, False), (5, 0, True)])
def test_killed_runs_end_in_the_same_bits(frozen, workers, background, pictures, tmp_path):
    """SIGKILL at random moments, within epochs too, then the same call until it is done."""
    ends = killed_run(
        pictures,
        tmp_path,
        frozen=frozen,
        workers=workers,
        background=background,
        signal=signal.SIGKILL,
        kills=5,
    )
    assert -signal.SIGKILL in ends
    assert ends[-1] == 0


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_end_saves_first(number, status, pictures, tmp_path):
    """Ctrl-C and SIGTERM save in the middle of an epoch, and the same call goes on from there."""
    background = number == signal.SIGTERM  # as on an accelerator
    ends = killed_run(pictures, tmp_path, frozen=0, workers=0, background=background, signal=number, kills=3)
    assert status in ends
    assert set(ends) <= {status, 0, -number}  # the last where it came before fit had begun


def small_run(folder, **changes):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    data = [(torch.randn(8, 4), torch.arange(8) % 2)]
    settings = {"epochs": 2, "seed": 0, "progress": False, "lr": 0.1, "checkpoint": folder} | changes
    return model, fit(model, Multiclass(2), data, data, **settings)


def test_a_finished_run_returns_at_once(tmp_path):
    """The second call trains nothing and gives the same history and weights."""
    model, first = small_run(tmp_path)
    written = (tmp_path / "last.safetensors").stat().st_mtime_ns
    again, second = small_run(tmp_path)
    assert list(second.history) == list(first.history)
    assert torch.equal(model.weight, again.weight)
    assert second.best_epoch == first.best_epoch
    assert (tmp_path / "last.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, r"epochs was 2 and is 3.*new checkpoint= folder"),
        ({"lr": 0.2}, r"lr was 0\.1 and is 0\.2.*Put it back"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"schedule": "step"}, "schedule was None and is 'step'"),
    ],
)
def test_another_run_is_refused(change, message, tmp_path):
    """What identifies a run is named where it differs, with the remedy, and the file stays as it is."""
    small_run(tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=message):
        small_run(tmp_path, **change)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path):
    """A flipped bit is found by the checksum, and a cut file is no checkpoint."""
    small_run(tmp_path)
    path = tmp_path / "last.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="checksum"):
        small_run(tmp_path)
    path.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        small_run(tmp_path)


def test_in_the_background_the_same_is_written(tmp_path, monkeypatch):
    """The state is that of the moment of the save, the kept ones too, and all is on disk when fit returns."""
    small_run(Checkpoint(tmp_path / "now", keep=2))
    init = Store.__init__
    threads = set()

    def watched(self, *given, in_background):
        assert not in_background  # on a CPU
        init(self, *given, in_background=True)

    def write(path, tensors, header):
        time.sleep(0.2)  # training goes on, and changes the weights
        threads.add(threading.current_thread().name)
        write_tensors(path, tensors, header)

    monkeypatch.setattr(Store, "__init__", watched)
    monkeypatch.setattr("layerkit.training.checkpoint.write_tensors", write)
    small_run(Checkpoint(tmp_path / "later", keep=2))
    names = sorted(path.name for path in (tmp_path / "now").iterdir())
    assert sorted(path.name for path in (tmp_path / "later").iterdir()) == names
    for name in names:
        now, later = (read_tensors(tmp_path / folder / name)[0] for folder in ("now", "later"))
        assert now.keys() == later.keys()
        assert all(torch.equal(now[key], later[key]) for key in now)
    assert all(name.startswith("layerkit-save") for name in threads)


def test_a_write_that_fails_in_the_background_is_no_success(tmp_path, monkeypatch):
    """It is raised at the next save or at the end."""
    init = Store.__init__
    monkeypatch.setattr(
        Store, "__init__", lambda self, *given, in_background: init(self, *given, in_background=True)
    )

    def full(path, tensors, header):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("layerkit.training.checkpoint.write_tensors", full)
    with pytest.raises(CheckpointError, match=r"could not be written to .*No space left"):
        small_run(tmp_path)


def test_no_state_points_to_weights_that_could_not_be_written(tmp_path, monkeypatch):
    """Where the new best weights do not fit in, the state before stays, with its own, and the run goes on from it."""
    init = Store.__init__
    with monkeypatch.context() as patch:
        patch.setattr(
            Store, "__init__", lambda self, *given, in_background: init(self, *given, in_background=True)
        )

        def full(path, tensors, header):
            if path.name == "best-0002.safetensors":
                raise OSError(errno.ENOSPC, "No space left on device")
            write_tensors(path, tensors, header)

        patch.setattr("layerkit.training.checkpoint.write_tensors", full)
        with pytest.raises(CheckpointError, match="The state before is whole"):
            small_run(tmp_path / "run")
    assert (tmp_path / "run" / "best-0001.safetensors").exists()
    resumed, _ = small_run(tmp_path / "run")
    whole, _ = small_run(tmp_path / "whole")
    assert torch.equal(resumed.weight, whole.weight)


def test_no_temporary_file_is_left(tmp_path):
    """After a run the folder holds the checkpoint and nothing else."""
    small_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-0002.safetensors", "last.safetensors"]


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    """Another rank trains all the same and leaves the folder alone."""
    monkeypatch.setenv("RANK", "1")
    small_run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_under_each_others_names_are_refused(tmp_path):
    """Each knows what it holds."""
    small_run(tmp_path)
    best = next(tmp_path.glob("best-*"))
    best.rename(tmp_path / "other")
    (tmp_path / "last.safetensors").rename(best)
    (tmp_path / "other").rename(tmp_path / "last.safetensors")
    with pytest.raises(CheckpointError, match="holds the weights of a run; expected its state"):
        small_run(tmp_path)


def test_a_kept_state_that_could_not_be_written_is_a_checkpoint_error(tmp_path, monkeypatch):
    """A full disk, in words."""

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("layerkit.training.checkpoint.shutil.copyfile", full)
    with pytest.raises(CheckpointError, match=r"could not be written to .*epoch-0001.*No space left"):
        small_run(Checkpoint(tmp_path, keep=2))
