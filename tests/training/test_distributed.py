"""Several processes under torchrun do together what one does alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerkit import Multiclass, Preset, fit, folder_loaders

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="gloo under torchrun is tried on Linux and macOS"
)

SCRIPT = """
import json, os, signal, sys
import torch
from torch import nn
from layerkit import Multiclass, Preset, evaluate, fit, folder_loaders

root, folder, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
norm = nn.BatchNorm2d(6) if settings.get("norm") else nn.Identity()
model = nn.Sequential(
    nn.Conv2d(3, 6, 3, stride=2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 2)
)
data = folder_loaders(root, preset=Preset(24), batch_size=settings.get("batch_size", 10), seed=1)
task = Multiclass(data.classes)
seen = []

class Watch:
    def on_batch_start(self, state):
        seen.append(sorted(round(v, 4) for v in state.inputs.mean(dim=(1, 2, 3)).tolist()))
    def on_epoch_start(self, state):
        if settings.get("dies") and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if state.epoch == 3:
                os._exit(17)
    def on_batch_end(self, state):
        if settings.get("is_told_to_stop") and os.environ["RANK"] == "1" and state.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

run = fit(
    model, task, data.train, data.valid, epochs=4, seed=3, lr=0.01, schedule="constant", callbacks=[Watch()],
    frozen_epochs=settings.get("frozen", 0), checkpoint=f"{folder}/run", progress=True,
)
held_out = evaluate(model, task, data.valid)
rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]
rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
weights = {k: v.tolist() for k, v in model.state_dict().items()}
with open(f"{folder}/{rank}of{world}.json", "w") as file:
    json.dump({"rows": rows, "seen": seen, "weights": weights, "held_out": held_out}, file)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Write a small folder that is split already: 47 pictures to train on, so that batches end unevenly."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 23), ("valid", 9)):
        for label, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True)
            for number in range(count + label):
                Image.new("RGB", (30, 28), (5 * number + label, 90 * label, 200 - 3 * number)).save(
                    root / part / name / f"{number}.png"
                )
    return root


def start(pictures, folder, processes, *options, **settings):
    """Run the script in so many processes, and give what each wrote."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    command = [sys.executable] if processes == 1 else [*torchrun, *options]
    done = subprocess.run(
        [*command, str(script), str(pictures), str(folder), json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    if settings.get("is_told_to_stop"):
        assert done.returncode != 0
        return [], done.stderr
    assert done.returncode == 0, done.stderr
    return [
        json.loads((folder / f"{r}of{processes}.json").read_text()) for r in range(processes)
    ], done.stderr


def assert_close(one, other, tolerance=1e-4):
    for row, like in zip(one["rows"], other["rows"], strict=True):
        assert row.keys() == like.keys()
        for key, value in row.items():
            assert value == (
                like[key] if isinstance(value, str) else pytest.approx(like[key], abs=tolerance)
            ), key
    for name, value in one["weights"].items():
        assert torch.allclose(torch.tensor(value), torch.tensor(other["weights"][name]), atol=tolerance), name


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "frozen"), [(2, 0), (4, 2)])
def test_several_processes_do_what_one_does(processes, frozen, pictures, tmp_path):
    """The same global batches, the same figures and weights within float tolerance, the same in each process."""
    (alone,), _ = start(pictures, tmp_path / "alone", 1, frozen=frozen)
    together, said = start(pictures, tmp_path / "together", processes, frozen=frozen)
    for each in together:
        assert_close(each, alone)
        assert each["held_out"]["loss"] == pytest.approx(alone["held_out"]["loss"], abs=1e-5)
    for step, batch in enumerate(alone["seen"]):
        shares = [value for each in together for value in each["seen"][step]]
        assert sorted(shares) == pytest.approx(batch, abs=1e-3)
    assert said.count("epoch 2/4") == 1  # one of them shows progress


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(pictures, tmp_path):
    """With torchrun's own restarts the run goes on from its checkpoint, batch norm and all."""
    whole, _ = start(pictures, tmp_path / "whole", 2, norm=True)
    restarted, said = start(pictures, tmp_path / "restarted", 2, "--max-restarts=1", norm=True, dies=True)
    assert "goes on after epoch 2" in said
    assert_close(restarted[0], whole[0], tolerance=1e-6)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(pictures, tmp_path):
    """The state is saved within the epoch, whose loss counts what every process had done by then."""
    (alone,), _ = start(pictures, tmp_path / "alone", 1, batch_size=8)
    _, said = start(pictures, tmp_path / "shared", 2, batch_size=8, is_told_to_stop=True)
    assert "interrupted; the same call goes on from" in said
    both, said = start(pictures, tmp_path / "shared", 2, batch_size=8)
    assert "goes on after epoch 1 and 3 batches" in said
    for one in both:
        assert_close(one, alone)


def test_a_process_without_a_sample_hangs_and_spoils_nothing(pictures, tmp_path):
    """Of three pictures one of four processes has none: in training it runs one at no weight."""
    few = tmp_path / "few"
    for part in ("train", "valid"):
        for name, count in (("a", 2), ("b", 1)):
            (few / part / name).mkdir(parents=True)
            for number in range(count):
                source = pictures / part / name / f"{number}.png"
                (few / part / name / source.name).write_bytes(source.read_bytes())
    (alone,), _ = start(few, tmp_path / "alone", 1, batch_size=4)
    together, _ = start(few, tmp_path / "together", 4, batch_size=4)
    for each in together:
        assert_close(each, alone)


def test_more_processes_than_a_batch_holds_are_refused(pictures, monkeypatch):
    """The message names both numbers."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ValueError, match="`batch_size` is 4 and 8 processes"):
        folder_loaders(pictures, preset=Preset(24), batch_size=4)


def test_a_loader_that_gives_every_process_all_is_refused(monkeypatch):
    """A foreign loader needs a DistributedSampler."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("layerkit.distributed.join_group", lambda device: None)
    with pytest.raises(ValueError, match="gives every one of 2 processes all samples"):
        fit(torch.nn.Linear(2, 2), Multiclass(2), [(torch.zeros(2, 2), torch.tensor([0, 1]))], epochs=1)
