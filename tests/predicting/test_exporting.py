"""An exported program answers as the model does, without layerkit, or is not there."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from layerkit.demo.running import PICTURES
from layerkit.errors import ExportError
from layerkit.heads import replace_head
from layerkit.predicting import Predictor
from layerkit.predicting.exporting import draw_pictures
from layerkit.presets import Preset
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression

PRESET = Preset((24, 20), resize_size=30, mean=(0.5, 0.4, 0.3), interpolation="bicubic")
NUMBERS = torch.tensor([[1.0, 2e6], [3.0, 7e6], [4.0, 8e6]])
TASKS = {
    "regression": (Regression(2, names=["age", "price"]), NUMBERS),
    "binary": (Binary(["cat", "dog"], threshold=0.3), None),
    "multiclass": (Multiclass(["a", "b", "c"], label_smoothing=0.1), None),
    "multilabel": (Multilabel(["p", "q"]), None),
    "parts": (
        MultiTask({"size": Regression(2), "a kind": Binary(), "which": Multiclass(3)}),
        {"size": NUMBERS, "a kind": torch.tensor([0, 1, 1]), "which": torch.tensor([0, 1, 2])},
    ),
}


def tiny_predictor(task, preset=PRESET):
    """Make a predictor with dropout and batch norm, whose answers depend on the picture."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(32, task.out_features)),
    )
    return Predictor(model.train(), task, preset)


def run(path, pixels):
    """Run a program without layerkit; give its outputs and its metadata."""
    if path.suffix == ".pt2":
        files = {"layerkit.json": ""}
        answers = torch.export.load(path, extra_files=files).module()(pixels)
        return {name: value.detach() for name, value in answers.items()}, json.loads(files["layerkit.json"])
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"pixels": pixels.numpy()})
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["layerkit"])
    return dict(zip(names, map(torch.from_numpy, outputs), strict=True)), metadata


def expected(predictor, pixels):
    """Compute the answers by hand: scale, normalise, run in evaluation mode, activate."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (predictor.preset.mean, predictor.preset.std))
    with torch.no_grad():
        logits = predictor.model.eval()((pixels / 255 - mean) / std)
        answers = predictor.task.activate(logits)
    return answers if isinstance(answers, dict) else {"": answers}


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("name", TASKS)
def test_a_program_answers_as_the_model_does(name, suffix, tmp_path):
    """For every task, for batches of one and of several; the classes and the preset are in the metadata."""
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    task, targets = TASKS[name]
    if targets is not None:
        task.prepare(targets)
    predictor = tiny_predictor(task)
    path = tmp_path / f"x{suffix}"

    predictor.export(path)

    assert predictor.model.training
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    pixels = torch.randint(0, 256, (3, 3, 24, 20), dtype=torch.uint8)
    for batch in (pixels, pixels[:1]):
        answers, metadata = run(path, batch)
        wanted = expected(predictor, batch)
        kinds = {"regression": "values"}.get(name, "probabilities")
        ends = {"size": "values", "a kind": "probabilities", "which": "probabilities"}
        for part, values in wanted.items():
            key = f"{part}_{ends[part]}" if part else kinds
            torch.testing.assert_close(answers[key], values, rtol=1e-5, atol=1e-5)
    assert metadata["classes"] == task.classes
    assert metadata["task"] == {"class": type(task).__name__, "settings": task.settings()}
    assert metadata["preset"]["crop_size"] == [24, 20]
    assert metadata["versions"]["torch"] == torch.__version__
    assert set(metadata["outputs"]) == set(answers)


def test_the_outputs_columns_have_names(tmp_path):
    """Each output's columns are classes, or what values are called; of a yes or no, the positive class."""
    for name, columns in (
        ("binary", {"probabilities": ["dog"]}),
        ("regression", {"values": ["age", "price"]}),
        ("multilabel", {"probabilities": ["p", "q"]}),
    ):
        task, targets = TASKS[name]
        if targets is not None:
            task.prepare(targets)
        tiny_predictor(task).export(tmp_path / "x.pt2")
        _, metadata = run(tmp_path / "x.pt2", draw_pictures((24, 20)))
        assert metadata["outputs"] == columns


def test_half_precision_is_widened(tmp_path):
    """A bfloat16 model's program computes in float32, and the model itself is left as it is."""
    predictor = tiny_predictor(Multiclass(3))
    predictor.model.to(torch.bfloat16)
    predictor.export(tmp_path / "x.pt2")
    answers, _ = run(tmp_path / "x.pt2", draw_pictures((24, 20)))
    assert answers["probabilities"].dtype == torch.float32
    assert predictor.model[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "hint"), [("x.onxx", "Did you mean '.onnx'"), ("x.pt", "'.pt2'"), ("x", "ends in")]
)
def test_another_suffix_is_an_error(name, hint, tmp_path):
    """Nothing is written, and the message names the two."""
    with pytest.raises(ValueError, match=hint):
        tiny_predictor(Binary()).export(tmp_path / name)
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    """Depend on the pixels in a way that no graph can hold."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x.mean((2, 3)) if x.mean().item() > 0 else x.amax((2, 3)))


def test_a_model_that_cannot_be_exported_leaves_the_old_file(tmp_path):
    """The error says so, and what was there before is still there."""
    path = tmp_path / "x.pt2"
    path.write_bytes(b"old")
    with pytest.raises(ExportError, match=r"Branching cannot be exported to \.pt2"):
        Predictor(Branching(), Multiclass(2), PRESET).export(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt2"]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_program_that_answers_otherwise_is_not_kept(suffix, tmp_path, monkeypatch):
    """The check runs the file itself; where it differs by more than 1e-4, the picture is named."""
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    predictor = tiny_predictor(Multiclass(["a", "b", "c"]))
    read = predictor._read
    off = torch.tensor([0.0, 0.0, 3e-4])

    monkeypatch.setattr(
        predictor, "_read", lambda pixels: {name: value + off for name, value in read(pixels).items()}
    )
    with pytest.raises(ExportError, match=rf"exported to \{suffix} answers .*probabilities of picture \d"):
        predictor.export(tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())


def test_without_the_packages_onnx_says_what_to_install(tmp_path, monkeypatch):
    """The message names the extra, and the format that needs nothing."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'layerkit\[export\]'.*\.pt2"):
        tiny_predictor(Binary()).export(tmp_path / "x.onnx")


def test_real_pictures_are_taken_as_the_predictor_takes_them(tmp_path):
    """A folder, a file and a list can be given to compare on; what is no picture is an error."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    predictor = tiny_predictor(Binary())
    for pictures in (folder, folder / "0.png", [folder / "0.png", pixels]):
        predictor.export(tmp_path / "x.pt2", pictures=pictures)
    with pytest.raises(FileNotFoundError, match="no picture"):
        predictor.export(tmp_path / "y.pt2", pictures=tmp_path / "nothing")
    assert not (tmp_path / "y.pt2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_saved_loaded_exported_and_original_agree_on_the_demos_pictures(suffix, tmp_path):
    """On all pictures of the demo, a real model's program gives the predictor's probabilities to 1e-4."""
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = replace_head(models.squeezenet1_1(), Multiclass(7), head=nn.Linear)
    predictor = Predictor(model, Multiclass(7), Preset(64))

    predictor.export(tmp_path / f"x{suffix}", pictures=PICTURES)

    pixels = predictor._stack(sorted(PICTURES.glob("*.jpg"))[:40])
    answers, _ = run(tmp_path / f"x{suffix}", pixels)
    asked = predictor(sorted(PICTURES.glob("*.jpg"))[:40])
    wanted = torch.tensor([list(answer.probabilities.values()) for answer in asked])
    torch.testing.assert_close(answers["probabilities"], wanted, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "mobilenet_v3_small", "resnet18"])
def test_families_export(name, tmp_path):
    """One small model of several families exports to .pt2."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = replace_head(models.get_model(name, weights=None, **options), 3, head=nn.Linear)
    Predictor(model, Multiclass(3), Preset(64)).export(tmp_path / "x.pt2")
