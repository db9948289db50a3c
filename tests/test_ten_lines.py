"""The README's ten lines run as they stand: without a guard, under every start method, and under torchrun."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerkit import load_predictor
from layerkit.splitting import list_pictures

LINES = re.search(
    r"```python\n(.*?)```",
    Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8"),
    re.DOTALL,
).group(1)

# Only the download is replaced, in one place; the rest is the README's.
BEFORE = """
import multiprocessing, sys, torch
from torchvision.models import WeightsEnum, get_model
if sys.argv[1:]:
    multiprocessing.set_start_method(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)
WeightsEnum.get_state_dict = lambda weights, *args, **kwargs: get_model("resnet18", weights=None).state_dict()
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Write a small PetImages, and the ten lines as a script beside it."""
    from PIL import Image

    for name, color in (("Cat", (200, 90, 40)), ("Dog", (40, 90, 200))):
        (tmp_path / "PetImages" / name).mkdir(parents=True)
        for number in range(6):
            picture = Image.effect_noise((64, 64), 60 + number).convert("RGB")
            Image.blend(picture, Image.new("RGB", (64, 64), color), 0.6).save(
                tmp_path / "PetImages" / name / f"{number}.jpg"
            )
    (tmp_path / "script.py").write_text(BEFORE + LINES, encoding="utf-8")
    return tmp_path


def check(folder: Path) -> None:
    """All files are there, whole, and the predictor answers; nothing temporary is left."""
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    best, last = sorted(path.name for path in (folder / "runs" / "pets").iterdir())
    assert (best[:5], last) == ("best-", "last.safetensors")
    assert len(list_pictures(folder / "pets")) == 12
    predictor = load_predictor(folder / "pets.safetensors")
    assert predictor(folder / "PetImages" / "Cat" / "0.jpg").label in ("Cat", "Dog")
    names = {path.name for path in folder.iterdir()}
    assert names == {"PetImages", "curves.png", "pets", "pets.safetensors", "runs", "script.py"}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_as_a_script_without_a_guard(method, folder):
    """The script runs once, from top to bottom, whatever starts worker processes."""
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    done = run([sys.executable, "script.py", method], folder)
    assert done.stderr.count("the model holds the weights of") == 1
    check(folder)


@pytest.mark.slow
def test_under_torchrun(folder):
    """Two processes spoil no file of each other's, and only the first one speaks."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "script.py",
    ]
    done = run(command, folder)
    assert done.stderr.count("the model holds the weights of") == 1
    check(folder)
