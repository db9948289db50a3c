"""The fifteen classic mistakes of fine-tuning: each stops, and says in one message how to go on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18, squeezenet1_1
from torchvision.models.inception import InceptionOutputs

from layerkit import FolderDataset, MultiTask, Preset, TargetError, fit, replace_head, table_loaders
from layerkit.tasks import Binary, Multiclass, Regression

THREE = ["cat", "dog", "owl"]
CLASS_INDICES = torch.tensor([0, 1, 2, 1] * 4)
NUMBERS = torch.arange(16.0)


def loader(targets: Tensor, *shape: int) -> DataLoader[Any]:
    inputs = torch.randn(len(targets), *(shape or (5,)), generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, targets), batch_size=8)


def train(model: nn.Module, task: Any, data: DataLoader[Any], **arguments: Any) -> None:
    fit(model, task, data, data, **{"epochs": 1, "progress": False, "device": "cpu"} | arguments)


@pytest.mark.parametrize("frozen_epochs", [0, 1])
def test_1_a_softmax_at_the_end_of_the_model(frozen_epochs: int) -> None:
    """Cross-entropy applies it; a second one flattens every gradient, in the frozen phase too."""
    model = resnet18()
    model.fc = nn.Sequential(nn.Linear(512, 3), nn.Softmax(dim=1))
    with pytest.raises(ValueError, match=r"ends in a softmax; expected raw outputs.* Remove the softmax"):
        train(model, Multiclass(THREE), loader(CLASS_INDICES, 3, 32, 32), frozen_epochs=frozen_epochs)


def test_2_a_sigmoid_before_a_loss_on_logits() -> None:
    """Written as a function in forward(), it is in no list of modules."""

    class Model(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(inputs))

    for task in (Binary(), nn.BCEWithLogitsLoss()):
        with pytest.raises(ValueError, match=r"ends in a sigmoid; .* Remove the sigmoid"):
            train(Model(5, 1), task, loader((NUMBERS > 5).float().unsqueeze(1)))


def test_3_a_head_that_was_not_replaced() -> None:
    """Cross-entropy over ImageNet's 1000 outputs runs without a word."""
    with pytest.raises(TargetError, match=r"gives 1000 outputs .*; expected 3 .*replace_head\(model, task\)"):
        train(resnet18(), Multiclass(THREE), loader(CLASS_INDICES, 3, 32, 32))


def test_4_an_optimizer_made_before_the_head_was_replaced() -> None:
    """It moves the old head, which is no longer in the model."""
    model = resnet18()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    task = Multiclass(THREE)
    replace_head(model, task)
    with pytest.raises(ValueError, match=r"probably made before replace_head\(\): make it afterwards"):
        train(model, task, loader(CLASS_INDICES, 3, 32, 32), optimizer=optimizer)


def test_5_an_auxiliary_head_left_at_1000_classes() -> None:
    """It would be trained on nonsense, and the backbone with it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.aux = nn.Linear(5, 3), nn.Linear(5, 1000)

        def forward(self, inputs: Tensor) -> InceptionOutputs:
            return InceptionOutputs(self.fc(inputs), self.aux(inputs))

    with pytest.raises(TargetError, match=r"gives 1000 outputs .* auxiliary ones included: replace_head"):
        train(Model(), Multiclass(THREE), loader(CLASS_INDICES))


@pytest.mark.parametrize("task", [Binary(), Regression()], ids=["binary", "regression"])
def test_6_the_relu_that_squeezenet_keeps(task: Any) -> None:
    """Behind it no number is negative and no probability below one half."""
    model = squeezenet1_1()
    model.classifier[1] = nn.Conv2d(512, 1, kernel_size=1)
    with pytest.raises(ValueError, match=r"ends in a ReLU; .* Remove the ReLU .* replace_head\("):
        train(model, task, loader((NUMBERS % 2), 3, 48, 48))


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        (
            Multiclass(THREE),
            CLASS_INDICES + 1,
            r"hold the class 3; expected 0 to 2 .* count from 1, subtract 1",
        ),
        (Binary(), 2 * (CLASS_INDICES > 0) - 1, r"hold -1; expected 0 for no and 1 for yes .* Recode them"),
    ],
    ids=["from one", "minus one and one"],
)
def test_7_classes_that_do_not_count_from_zero(task: Any, targets: Tensor, words: str) -> None:
    """On a GPU this is an assertion deep in a kernel, or a loss below zero."""
    with pytest.raises(TargetError, match=words):
        train(nn.Linear(5, task.out_features), task, loader(targets))


def test_8_a_quantity_taken_for_a_class() -> None:
    """Turned into whole numbers it would be cut off in silence."""
    with pytest.raises(TargetError, match=r"hold 0\.125, which is no class index; .* use Regression\(\)"):
        train(nn.Linear(5, 3), Multiclass(THREE), loader(NUMBERS / 8))


def test_9_a_column_compared_with_a_row() -> None:
    """(N, 1) minus (N,) is (N, N): the model learns the mean, and the loss looks sound."""
    with pytest.raises(TargetError, match=r"\(8, 1\) and the targets \(8,\); .* Use Regression\(\)"):
        train(nn.Linear(5, 1), nn.MSELoss(), loader(NUMBERS))
    train(nn.Linear(5, 1), Regression(), loader(NUMBERS))  # the remedy that is named


def test_10_several_labels_a_picture_taken_for_classes() -> None:
    """Rows of 0 and 1 are either one-hot or several labels, and each has its own remedy."""
    rows = torch.tensor([[1, 0, 1], [0, 0, 1]] * 8)
    with pytest.raises(TargetError, match=r"pass target\.argmax\(1\); for several labels .* Multilabel\(\)"):
        train(nn.Linear(5, 3), Multiclass(THREE), loader(rows))


def test_11_a_target_that_is_not_a_number() -> None:
    """One empty cell in a table makes every weight NaN after one step."""
    with pytest.raises(TargetError, match=r"sample 9 .* is \[nan\]; expected finite numbers.* Fill in"):
        train(nn.Linear(5, 1), Regression(), loader(NUMBERS.where(NUMBERS != 9, torch.nan)))


def test_12_a_target_that_is_always_the_same() -> None:
    """Dividing by its standard deviation would give infinity."""
    targets = torch.stack([NUMBERS, torch.full((16,), 7.0)], dim=1)
    with pytest.raises(TargetError, match=r"target 'y' is 7 in every picture.* Check the column"):
        train(nn.Linear(5, 2), Regression(2, names=["x", "y"]), loader(targets))


def test_13_nothing_left_to_learn() -> None:
    """Everything was frozen, the new head with it, and the loss would stand still."""
    model = replace_head(resnet18(), len(THREE)).requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"no trainable parameter; expected .* Use layerkit\.unfreeze\(model\)"
    ):
        train(model, Multiclass(THREE), loader(CLASS_INDICES, 3, 32, 32))


def test_14_names_in_the_place_of_indices() -> None:
    """A dataset of one's own gives what the file's name says."""
    data = DataLoader([(torch.randn(5), THREE[index]) for index in CLASS_INDICES], batch_size=8)
    with pytest.raises(TargetError, match=r"are words \(cat, dog, owl, .*\); .* classes\.index\(word\)"):
        train(nn.Linear(5, 3), Multiclass(THREE), data)


def test_15_one_class_only(tmp_path: Path) -> None:
    """One folder too high or too low, and every picture is of one class: accuracy 100%."""
    (tmp_path / "PetImages").mkdir()
    (tmp_path / "PetImages" / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\['PetImages'\]; expected at least two for Multiclass"):
        Multiclass(FolderDataset(tmp_path).classes)


def test_numbers_are_not_measured_on_the_places_of_classes(tmp_path):
    """An alphabet has no distances: a column of names, and folders, are refused for Regression, also within a part."""
    names = [f"{n}.png" for n in range(8)]
    for n, name in enumerate(names):
        Image.new("RGB", (16, 16), (n * 30, 0, 0)).save(tmp_path / name)
    table = {"path": names, "shape": ["disc", "square"] * 4, "size": [n / 2 for n in range(8)]}
    options = {"preset": Preset(16), "batch_size": 4, "augment": "none"}
    named = table_loaders(table, tmp_path, target="shape", **options)
    both = table_loaders(table, tmp_path, target={"size": "size", "shape": "shape"}, **options)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(ValueError, match="The targets are the classes disc, square, and Regression measures"):
        fit(model, Regression(), named.train, named.valid, epochs=1)
    task = MultiTask({"size": Regression(), "shape": Regression()})
    with pytest.raises(ValueError, match="The targets of 'shape' are the classes"):
        fit(model, task, both.train, both.valid, epochs=1)
    task = MultiTask({"size": Regression(), "shape": Binary()})
    fit(model, task, both.train, both.valid, epochs=1, progress=False)
