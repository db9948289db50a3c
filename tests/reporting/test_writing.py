"""The report says what is so, about every kind of task, whatever the names are."""

import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import squeezenet1_1

from layerkit.checking import check_folder
from layerkit.evaluating import evaluate
from layerkit.heads import replace_head
from layerkit.loading import folder_loaders, table_loaders
from layerkit.predicting import Predictor
from layerkit.presets import Preset
from layerkit.reporting import write_report
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression
from layerkit.training import fit

PRESET = Preset(16, resize_size=16)
HOSTILE = '<script>alert("x")</script> & \'$\\frac{'


class Page(HTMLParser):
    """Read a page as a browser and a screen reader would: elements in order, and what is wrong with them."""

    VOID = ("br", "img", "meta")

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.elements, self.open, self.words = [], [], []
        self.feed(self.text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def shown(self):
        return " ".join(" ".join(self.words).split())


def check_page(path):
    """Hold what holds for every page: nothing from outside, no script, and names for all that is seen."""
    page = Page(path)
    assert page.text.startswith("<!doctype html>\n<html lang=")
    assert not page.all("script")
    assert not page.all("link")
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/")), target
    assert "url(http" not in page.text
    assert "@import" not in page.text
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawing["aria-label"] for drawing in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    assert len(page.all("h1")) == 1
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    anchors = [link["href"].removeprefix("#") for link in page.all("a")]
    assert set(anchors) <= set(identities)
    assert "nan" not in re.split(r"\W+", page.shown)
    return page


def model_for(task):
    """Make a small model."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, task.out_features)
    )


def draw(folder, names, count=6):
    """Write pictures of random pixels, each class brighter than the one before."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 60 + 190 * index // len(names), (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Make a folder of three classes, one of which has a name that would be markup."""
    root = tmp_path_factory.mktemp("pets") / "a & b"
    for part in ("train", "valid"):
        draw(root / part, ["<b>cat", "dog", "x$^{"])
    return root


def test_a_whole_report(pets, tmp_path):
    """After a run: curves, the figures of `evaluate`, every section, and the folder's findings, escaped."""
    data = folder_loaders(pets, preset=PRESET, batch_size=4)
    task = Multiclass(data.classes)
    model = model_for(task)
    run = fit(model, task, data.train, data.valid, epochs=2, progress=False, device="cpu")
    predictor = Predictor(model, task, data.preset)

    write_report(run, predictor, data.valid, tmp_path / "report.html")

    page = check_page(tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    figures = evaluate(model, task, data.valid, device="cpu")
    for name, value in figures.items():
        assert f"{name.replace('_', ' ')} {value:.4g} {value.low:.4g} to {value.high:.4g}" in page.shown
    for heading in (
        "How good it is",
        "Training",
        "Which classes are taken for which",
        "Class by class",
        "How far the probabilities can be trusted",
        "Mistakes that the model is surest of",
        "Least certain answers",
        "What the folder check found",
        "To run it again",
    ):
        assert heading in page.shown
    assert run.reason in page.shown
    assert "&lt;b&gt;cat" in page.text
    assert "<b>" not in page.text
    assert "leak 18" in page.shown  # train and valid are drawn alike
    assert page.all("img")[0]["src"].startswith("data:image/jpeg;base64,")
    assert torch.__version__ in page.shown


def test_what_it_takes_to_run_it_again(tmp_path):
    """The builder, the folder and what fit() was asked for."""
    for part in ("train", "valid", "test"):
        draw(tmp_path / "pets" / part, ["cat", "dog"])
    data = folder_loaders(tmp_path / "pets", preset=Preset(32), batch_size=4)
    task = Multiclass(data.classes)
    model = replace_head(squeezenet1_1(), task)
    sgd = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    run = fit(
        model, task, data.train, data.valid, epochs=1, optimizer=sgd, seed=5, progress=False, device="cpu"
    )
    for loader, part in ((data.valid, "valid"), (data.test, "test")):
        write_report(run, Predictor(model, task, data.preset), loader, tmp_path / "r.html", check=False)
        shown = check_page(tmp_path / "r.html").shown
        assert f"Measured on 12 pictures of pets/{part}" in shown
        assert "model torchvision's squeezenet1_1, " in shown
        assert str(tmp_path / "pets" / part) in shown
        assert "optimizer=SGD(lr=0.001, momentum=0.9, " in shown
        assert "seed=5" in shown


@pytest.mark.filterwarnings("ignore:The held-out targets hold no")
def test_sure_answers_are_not_called_uncertain(tmp_path):
    """Where nothing is below 90%, the section is left out."""
    inputs = torch.rand(20, 3, 16, 16)
    for factor, there in ((1000.0, False), (0.001, True)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
        model[1].weight.data.mul_(factor)
        targets = (model(inputs) / factor).argmax(1)
        predictor = Predictor(model, Multiclass(2), PRESET)
        write_report(None, predictor, DataLoader(TensorDataset(inputs, targets), 10), tmp_path / "r.html")
        assert ("Least certain answers" in check_page(tmp_path / "r.html").shown) == there


@pytest.mark.filterwarnings("ignore:The held-out targets hold no")
@pytest.mark.parametrize("kind", ["regression", "several", "binary", "multilabel", "parts", "many"])
def test_every_task_has_its_sections(kind, tmp_path):
    """Numbers have errors and residuals, labels have curves, parts each their own; names are escaped."""
    torch.manual_seed(0)
    inputs, rows = torch.randn(40, 3, 16, 16), torch.arange(40)
    numbers = torch.randn(40, 2) * 1e3
    task, targets, headings = {
        "regression": (Regression(), numbers[:, 0], ["How far off the numbers are", "farthest off"]),
        "several": (Regression(2, names=[HOSTILE, "b"]), numbers, ["How far off the numbers are"]),
        "binary": (Binary([HOSTILE, "yes"]), rows % 2, ["taken for which", "expected calibration error"]),
        "multilabel": (
            Multilabel([HOSTILE, "q", "never"]),
            (rows[:, None] % torch.tensor([2, 3, 99]) == 1).int(),
            ["Label by label"],
        ),
        "parts": (
            MultiTask({"size": Regression(2), "kind": Multiclass([HOSTILE, "b"])}),
            {"size": numbers, "kind": rows % 2},
            ["size: How far off", "kind: Class by class", "kind: Least certain"],
        ),
        "many": (Multiclass([f"{HOSTILE}{n}" for n in range(35)]), rows % 33, ["All 35 in a table"]),
    }[kind]
    task.prepare(targets)
    predictor = Predictor(model_for(task), task, PRESET)

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            if isinstance(targets, dict):
                return inputs[index], {name: column[index] for name, column in targets.items()}
            return inputs[index], targets[index]

    write_report(None, predictor, DataLoader(Samples(), batch_size=16), tmp_path / "r.html", title=HOSTILE)

    page = check_page(tmp_path / "r.html")
    assert HOSTILE in unescape(page.shown)
    assert "alert" not in "".join(tag for tag, _ in page.elements)
    for heading in headings:
        assert heading in page.shown, heading
    assert "Training" not in page.shown
    assert page.all("img")
    assert page.all("svg")


def test_figures_follow_light_and_dark(tmp_path):
    """Text in figures has the page's own colour, and the page knows both."""
    inputs, targets = torch.randn(20, 3, 16, 16), torch.arange(20) % 2
    predictor = Predictor(model_for(Multiclass(2)), Multiclass(2), PRESET)
    write_report(None, predictor, DataLoader(TensorDataset(inputs, targets), 10), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "#010203" not in text
    assert not re.search(r"<text[^>]*#000000", text)


def test_the_check_can_be_given_and_left_out(pets, tmp_path):
    """A report of `check_folder` is shown as it is; False opens no picture of the training part."""
    data = folder_loaders(pets, preset=PRESET, batch_size=4)
    task = Multiclass(data.classes)
    predictor = Predictor(model_for(task), task, data.preset)
    write_report(None, predictor, data.valid, tmp_path / "r.html", check=False)
    assert "folder check" not in check_page(tmp_path / "r.html").shown

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "<i>.jpg").write_bytes(b"")
    found = check_folder(tmp_path / "other", progress=False)
    write_report(None, predictor, data.valid, tmp_path / "r.html", check=found)
    page = check_page(tmp_path / "r.html")
    assert "empty file" in page.shown
    assert "&lt;i&gt;.jpg" in page.text


def test_a_loader_that_shuffles(pets, tmp_path):
    """Of layerkit's training loader the pictures stand beside their own answers; of another none are shown."""
    data = folder_loaders(pets, preset=PRESET, batch_size=4)
    task = Multiclass(data.classes)
    predictor = Predictor(model_for(task), task, data.preset)
    write_report(None, predictor, data.train, tmp_path / "r.html", check=False)
    page = check_page(tmp_path / "r.html")
    for image in page.all("img"):
        name, _, words = image["alt"].partition(": answered ")
        answer = predictor(pets / "train" / name)
        assert words == f"{answer.label} {answer.probability:.0%}, truth {name.split('/')[0]}"

    shuffling = DataLoader(TensorDataset(torch.randn(9, 3, 16, 16), torch.arange(9) % 3), 4, shuffle=True)
    write_report(None, predictor, shuffling, tmp_path / "r.html")
    assert not check_page(tmp_path / "r.html").all("img")


def test_a_table_of_numbers(pets, tmp_path):
    """Loaders made from a table have files' names, and no folder to check."""
    files = sorted(path.relative_to(pets).as_posix() for path in pets.rglob("*.png"))
    table = {"path": files, "weight": [float(n) for n in range(len(files))]}
    table["part"] = [file.partition("/")[0] for file in files]
    data = table_loaders(
        table, pets, target="weight", part="part", preset=PRESET, batch_size=4, augment="none"
    )
    task = Regression(names=["weight"])
    task.prepare(data.train.dataset.targets)
    write_report(None, Predictor(model_for(task), task, PRESET), data.valid, tmp_path / "r.html")
    page = check_page(tmp_path / "r.html")
    assert "0.png" in page.shown or "1.png" in page.shown
    assert "folder check" not in page.shown


def test_a_segmentation_model_has_figures_only(tmp_path):
    """Answers for each pixel are measured, and the page says that it shows no more."""
    model = nn.Conv2d(3, 2, 1)
    pixels, targets = torch.randn(6, 3, 16, 16), torch.randint(0, 2, (6, 16, 16))
    predictor = Predictor(model, Multiclass(2), PRESET)
    write_report(None, predictor, [(pixels, targets)], tmp_path / "r.html")
    assert "the figures only" in check_page(tmp_path / "r.html").shown


def test_nothing_is_left_when_it_fails(tmp_path, monkeypatch):
    """An error while drawing leaves the old page, and the model in its mode."""
    path = tmp_path / "r.html"
    path.write_text("old")
    model = model_for(Multiclass(2)).train()
    predictor = Predictor(model, Multiclass(2), PRESET)
    data = [(torch.randn(6, 3, 16, 16), torch.arange(6) % 2)]
    monkeypatch.setattr("layerkit.reporting.writing.page", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(None, predictor, data, path)
    assert path.read_text() == "old"
    assert model.training
    with pytest.raises(ValueError, match="gave no batch"):
        write_report(None, predictor, [], path)


def test_a_report_is_html_by_name_too(tmp_path):
    """As a table or a picture it would open nowhere."""
    predictor = Predictor(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), Multiclass(2), PRESET)
    with pytest.raises(ValueError, match=r"r\.pdf'; expected a name that ends in \.html"):
        write_report(None, predictor, [], tmp_path / "r.pdf")
