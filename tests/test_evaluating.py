"""`evaluate` measures what an independent calculation measures."""

import math
import shutil

import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from layerkit import (
    Binary,
    LayerkitWarning,
    Multiclass,
    Multilabel,
    MultiTask,
    NonFiniteError,
    Preset,
    Regression,
    evaluate,
    fit,
    folder_loaders,
)


@pytest.fixture
def setup():
    torch.manual_seed(0)
    inputs, targets = torch.randn(50, 4), torch.randint(0, 3, (50,))
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))
    return model, inputs, targets, DataLoader(TensorDataset(inputs, targets), batch_size=16)


def test_figures_agree_with_scikit_learn(setup):
    """Loss, accuracy and macro F1 over batches of unequal size equal those over all at once."""
    model, inputs, targets, loader = setup
    figures = evaluate(model, Multiclass(3), loader)
    with torch.no_grad():
        probabilities = model.eval()(inputs).softmax(1).numpy()
    answers = probabilities.argmax(1)
    assert figures["loss"] == pytest.approx(log_loss(targets, probabilities), rel=1e-5)
    assert figures["accuracy"] == pytest.approx(accuracy_score(targets, answers))
    assert figures["macro_f1"] == pytest.approx(f1_score(targets, answers, average="macro"), rel=1e-5)


def test_weighted_losses_do_not_depend_on_how_the_batches_fall(setup):
    """Class weights divide by the weights of all pictures, as scikit-learn's sample weights do."""
    model, inputs, targets, loader = setup
    weights = torch.tensor([1.0, 5.0, 20.0])
    whole = evaluate(model, Multiclass(3, class_weight=weights), [(inputs, targets)])
    parts = evaluate(model, Multiclass(3, class_weight=weights), loader)
    with torch.no_grad():
        probabilities = model.eval()(inputs).softmax(1).numpy()
    expected = log_loss(targets, probabilities, sample_weight=weights[targets].numpy())
    assert whole["loss"] == pytest.approx(expected, rel=1e-5)
    assert parts["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_model_is_put_back(setup):
    """Training flags are as before; dropout was off while it was measured."""
    model, _, _, loader = setup
    model.train()
    first, second = (evaluate(model, Multiclass(3), loader) for _ in range(2))
    assert first == second
    assert model.training
    assert model[0].training


def test_own_metrics(setup):
    """A torchmetrics metric comes under the name that it was given."""
    model, _, _, loader = setup
    figures = evaluate(model, Multiclass(3), loader, metrics={"recall": MulticlassAccuracy(3)})
    assert list(figures) == ["loss", "recall"]


def test_every_figure_has_its_interval(setup):
    """Each float knows an interval around it, with the task's metrics and with the user's own."""
    model, _, _, loader = setup
    for metrics in (None, {"recall": MulticlassAccuracy(3)}):
        for value in evaluate(model, Multiclass(3), loader, metrics=metrics).values():
            assert value.low < value < value.high


def test_a_model_of_one_squeezed_output_and_a_plain_loss(setup):
    """Outputs (N,) are one column, and a callable's loss has an interval too."""
    _, inputs, targets, _ = setup
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    data = DataLoader(TensorDataset(inputs, (targets > 0).float()), batch_size=16)
    figures = evaluate(model, Binary(), data)
    assert figures["auroc"].low < figures["auroc"] < figures["auroc"].high
    figures = evaluate(nn.Linear(4, 3), nn.CrossEntropyLoss(), DataLoader(TensorDataset(inputs, targets), 16))
    assert figures["loss"].low < figures["loss"] < figures["loss"].high


def test_an_empty_loader_is_an_error(setup):
    """There is nothing to measure on no pictures."""
    with pytest.raises(ValueError, match="gave no batch"):
        evaluate(setup[0], Multiclass(3), [])


def test_a_single_picture_has_no_r2():
    """Its error is known, and its share of the variance is not a number; training goes on."""
    model, task = nn.Linear(4, 1), Regression(standardize=False)
    one = [(torch.ones(1, 4), torch.zeros(1))]
    figures = evaluate(model, task, one)
    assert math.isnan(figures["r2"])
    assert figures["mae"] == pytest.approx(abs(model(torch.ones(1, 4)).item()))
    fit(model, task, [(torch.randn(5, 4), torch.randn(5))], one, epochs=2, progress=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_precisions_are_measured_in_their_own(setup, dtype):
    """The inputs follow the weights, whatever the loader gives."""
    model, _, _, loader = setup
    expected = evaluate(model, Multiclass(3), loader)["loss"]
    assert evaluate(model.to(dtype), Multiclass(3), loader)["loss"] == pytest.approx(expected, rel=0.02)


def test_weights_that_are_spoiled_have_no_figures(setup):
    """An accuracy of answers that are no numbers would look like one."""
    model, _, _, loader = setup
    model[1].weight.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="are not all finite; expected finite numbers"):
        evaluate(model, Multiclass(3), loader)


def test_classes_in_another_order_are_refused(tmp_path):
    """Every answer would have the wrong name; other names for the same folders are the user's own business."""
    for name in ("cat", "dog"):
        for number in range(3):
            place = tmp_path / "train" / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (50 * number, 0, 0)).save(place)
    shutil.copytree(tmp_path / "train", tmp_path / "valid")
    data = folder_loaders(tmp_path, preset=Preset(16), batch_size=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    for task in (Multiclass(["dog", "cat"]), Binary(["dog", "cat"]), Multiclass(3)):
        with pytest.raises(
            ValueError, match=r"those of the pictures cat, dog; expected the same.*data.classes"
        ):
            evaluate(model, task, data.valid)
        with pytest.raises(ValueError, match="those of the pictures cat, dog"):
            fit(model, task, data.train, data.valid, epochs=1, progress=False)
    evaluate(model, Multiclass(["Katze", "Hund"]), data.valid)
    mapped = ImageFolder(
        tmp_path / "valid", v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32), v2.Resize(16)])
    )
    with pytest.raises(ValueError, match="those of the pictures cat, dog"):
        evaluate(model, Multiclass(["dog", "cat"]), DataLoader(mapped, 2))
    mapped.target_transform = lambda index: 1 - index  # which is how somebody puts them into another order
    evaluate(model, Multiclass(["dog", "cat"]), DataLoader(mapped, 2))


def test_intervals_of_weighted_losses_hold_their_value():
    """A plain weighted loss and a part of several tasks have the interval that the task itself has."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(200, 4, generator=generator), (torch.arange(200) % 10 == 0).long()
    model, weight = nn.Linear(4, 2), [1.0, 20.0]
    task = Multiclass(2, class_weight=weight)
    expected = evaluate(model, task, [(inputs, targets)])["loss"]
    assert expected.low < expected < expected.high
    plain = evaluate(model, nn.CrossEntropyLoss(torch.tensor(weight)), [(inputs, targets)])["loss"]
    several = evaluate(model, MultiTask({"a": task}), [(inputs, {"a": targets})])["loss"]
    for figure in (plain, several):
        assert [figure, figure.low, figure.high] == pytest.approx(
            [expected, expected.low, expected.high], rel=1e-4
        )


def test_a_label_that_is_not_held_out_is_named_and_left_out():
    """A perfect model is perfect, whatever it was not asked."""
    target = torch.tensor([[1.0, 0], [0, 0], [1, 0], [0, 0]])
    with pytest.warns(LayerkitWarning, match="The held-out targets hold no 'rare'; expected every class"):
        figures = evaluate(nn.Identity(), Multilabel(["often", "rare"]), [(target * 10 - 5, target)])
    assert figures["average_precision"] == figures["macro_f1"] == 1
