"""A run that is killed and called again ends as one that was never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from layerkit import CheckpointError, Multiclass, fit

SCRIPT = """
import sys, torch
from torch import nn
from layerkit import Multiclass, Preset, fit, folder_loaders
root, checkpoint, out, frozen = sys.argv[1:]
torch.set_num_threads(1)
torch.manual_seed(0)
data = folder_loaders(root, preset=Preset(24), batch_size=8, seed=1)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    nn.Dropout(0.2), nn.Linear(32, 2),
)
task = Multiclass(data.classes, class_weight="balanced")
run = fit(model, task, data.train, data.valid, epochs=9, frozen_epochs=int(frozen), checkpoint=checkpoint, seed=3)
figures = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]
torch.save({"model": model.state_dict(), "history": figures, "best": run.best_epoch}, out)
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


def start(pictures: Path, folder: Path, frozen: int) -> subprocess.Popen:
    arguments = [str(pictures), str(folder / "run"), str(folder / "end.pt"), str(frozen)]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 5])
def test_killed_runs_end_in_the_same_bits(frozen, pictures, tmp_path):
    """SIGKILL twice, at moments that a seed picks, then the same call until it is done."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    finish(start(pictures, tmp_path / "whole", frozen))
    draw = random.Random(frozen)
    kills = 0
    for _ in range(2):
        process = start(pictures, tmp_path / "killed", frozen)
        seen = (tmp_path / "killed" / "run" / "last.safetensors").exists()
        for line in process.stderr:
            if line.startswith("epoch") and (seen or " 1/9" not in line):
                break
        time.sleep(draw.random() * 0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stderr.close()
    finish(start(pictures, tmp_path / "killed", frozen))
    assert kills
    whole, killed = (torch.load(tmp_path / name / "end.pt") for name in ("whole", "killed"))
    assert killed["history"] == whole["history"]
    assert killed["best"] == whole["best"]
    for name, value in whole["model"].items():
        assert torch.equal(value, killed["model"][name]), name


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
    with pytest.raises(CheckpointError, match="cannot be read"):
        small_run(tmp_path)


def test_no_temporary_file_is_left(tmp_path):
    """After a run the folder holds the checkpoint and nothing else."""
    small_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    """Another rank trains all the same and leaves the folder alone."""
    monkeypatch.setenv("RANK", "1")
    small_run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
