"""The page's own lines answer with an exported program, where layerkit is not installed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from layerkit.demo.running import PICTURES
from layerkit.heads import replace_head
from layerkit.predicting import Predictor
from layerkit.presets import Preset
from layerkit.tasks import Multiclass

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export-and-serve.md"
WITHOUT = "import sys\nfor name in {names}:\n    sys.modules[name] = None\n"


def lines_of(heading):
    """Give the code below a heading of the page."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")
    return re.search(r"```python\n(.*?)```", below, flags=re.DOTALL)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder with a program of both kinds, and five pictures of the demo, one in each orientation."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("alone")
    (folder / "pets/valid/Cat").mkdir(parents=True)
    for path in sorted(PICTURES.glob("*.jpg"))[::80]:
        (folder / "pets/valid/Cat" / path.name).write_bytes(path.read_bytes())
    predictor_of("bilinear").export(folder / "pets.onnx")
    predictor_of("bilinear").export(folder / "pets.pt2")
    return folder


def predictor_of(interpolation, resize_size=72):
    """Make a predictor of a real architecture."""
    torch.manual_seed(0)
    task = Multiclass(["cat", "dog", "cow"])
    model = replace_head(models.squeezenet1_1(), task, head=nn.Linear)
    return Predictor(model, task, Preset(64, resize_size=resize_size, interpolation=interpolation))


def run(folder, code, *without):
    """Run code in a fresh process that cannot import some packages; give what it printed."""
    code = WITHOUT.format(names=without) + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_onnxruntime_pillow_and_numpy(folder):
    """Without torch and layerkit, the lines give the predictor's labels and probabilities."""
    code = lines_of("Answer with onnxruntime, Pillow and NumPy")
    printed = run(folder, code, "torch", "torchvision", "layerkit").splitlines()
    answers = predictor_of("bilinear")(folder / "pets/valid")
    assert len(printed) == len(answers) == 5
    for line, answer in zip(printed, answers, strict=True):
        _, label, probability = line.rsplit(" ", 2)
        assert label == answer.label
        assert float(probability) == pytest.approx(answer.probability, abs=2e-3)


def test_with_torch_alone(folder):
    """Without torchvision and layerkit, the lines give the predictor's probabilities."""
    predictor = predictor_of("bilinear")
    pixels = torch.stack([predictor._pixels(path) for path in sorted((folder / "pets/valid/Cat").iterdir())])
    np.save(folder / "pixels.npy", pixels.numpy())
    code = 'import numpy\nbatch = numpy.load("pixels.npy")\n' + lines_of("Answer with torch alone")
    printed = run(folder, code, "torchvision", "layerkit", "onnxruntime", "PIL")
    answer = predictor(folder / "pets/valid")[0]
    assert json.loads(printed.replace("'", '"')) == pytest.approx(answer.probabilities, abs=1e-5)


@pytest.mark.parametrize("resize_size", [64, 72, (72, 90)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_pages_resizing_is_the_predictors(interpolation, resize_size):
    """On photographs, pixels are the predictor's to one level, of thousands hardly one by more."""
    names = {}
    code, _, _ = lines_of("Answer with onnxruntime, Pillow and NumPy").partition("paths = ")
    code = "\n".join(line for line in code.splitlines() if "session" not in line)
    exec(code, names)
    predictor = predictor_of(interpolation, resize_size)
    preset = {"crop_size": 64, "resize_size": resize_size, "interpolation": interpolation}
    for path in sorted(PICTURES.glob("*.jpg"))[::40]:
        ours, theirs = names["pixels_of"](path, preset), predictor._pixels(path).numpy()
        difference = np.abs(ours.astype(int) - theirs.astype(int))
        assert ours.shape == theirs.shape
        assert difference.max() <= 2
        assert (difference > 1).mean() < 1e-3
