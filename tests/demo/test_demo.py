"""The demo runs the README's ten lines, within its promises."""

import re
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights, SqueezeNet1_1_Weights, WeightsEnum, squeezenet1_1

from layerkit import LayerkitWarning, load_predictor
from layerkit.demo import lines, run_demo
from layerkit.demo.running import PICTURES
from layerkit.demo.weights import packaged_weights

README = Path(__file__).parents[2] / "README.md"


def statements(text):
    """Give the lines from the call of split_folder to the saving of the predictor, without indentation."""
    rows = [
        row.strip()
        for row in text.splitlines()
        if row.strip() and not row.strip().startswith(("from", "import"))
    ]
    first = next(n for n, row in enumerate(rows) if row.startswith("split_folder("))
    last = next(n for n, row in enumerate(rows) if row.startswith("Predictor("))
    return rows[first : last + 1]


def test_the_demo_runs_the_ten_lines():
    """Only the folders, the label's expression and the backbone differ from the README's."""
    readme = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL).group(1)
    demo = Path(lines.__file__).read_text(encoding="utf-8")
    demo = demo.replace("SqueezeNet1_1_Weights", "ResNet18_Weights").replace("squeezenet1_1", "resnet18")
    demo = demo.replace(", label=LABEL", "").replace("split_folder(pictures", 'split_folder("PetImages"')
    demo = re.sub(r'folder / "([^"]+)"', r'"\1"', demo).replace(
        '"predictor.safetensors"', '"pets.safetensors"'
    )
    assert statements(demo) == statements(readme)
    assert len(statements(readme)) == 8


def test_the_package_carries_all_pictures_and_their_sources():
    """Each of the 386 pictures has a row that names its original."""
    names = {path.name for path in PICTURES.glob("*.jpg")}
    rows = (PICTURES.parent / "sources.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(names) == 386
    assert {row.split(",")[0] for row in rows} == names
    assert "MIT License" in (PICTURES.parent / "LICENSE.squeezenet1_1").read_text(encoding="utf-8")


def test_weights_are_found_in_the_package_only_within_the_block(monkeypatch):
    """Other weights still go to torchvision's own download, also within the block."""
    asked = []
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda weights, *a, **k: asked.append(weights))
    before = WeightsEnum.get_state_dict
    with packaged_weights():
        model = squeezenet1_1(weights=SqueezeNet1_1_Weights.DEFAULT)
        ResNet18_Weights.DEFAULT.get_state_dict()
    assert WeightsEnum.get_state_dict is before
    assert asked == [ResNet18_Weights.DEFAULT]
    assert model.features[0].weight.std() > 0.1  # a fresh one has half of that


@pytest.mark.slow
def test_the_demo(tmp_path, capsys):
    """It leaves its four files, reaches 0.80, beats random weights, and the loaded predictor answers."""
    before = torch.get_rng_state()
    with pytest.warns(LayerkitWarning, match="3 pictures stand under more than one label"):  # they do
        run = run_demo(tmp_path / "demo")
    assert torch.equal(torch.get_rng_state(), before)
    said = capsys.readouterr().err
    random_weights, frozen, tuned = (float(n) for n in re.findall(r"^  (\d\.\d\d)  ", said, re.MULTILINE))
    assert run.history[run.best_epoch - 1]["valid_accuracy"] > 0.80
    assert random_weights < frozen
    assert random_weights < tuned
    for name in ("curves.png", "predictions.png"):
        assert (tmp_path / "demo" / name).read_bytes().startswith(b"\x89PNG")
    assert "confusion" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8").lower()
    answers = load_predictor(tmp_path / "demo" / "predictor.safetensors")(
        tmp_path / "demo" / "pets" / "valid"
    )
    right = sum(answer.label == Path(answer.path).parent.name for answer in answers)
    assert right / len(answers) == pytest.approx(run.history[run.best_epoch - 1]["valid_accuracy"], abs=0.02)
    assert str((tmp_path / "demo").resolve()) in said
