from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SqueezeNet

from layerkit.errors import LayerkitWarning
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task
from layerkit.training.losses import as_task
from layerkit.training.mistakes import check_ending

INPUTS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    def __init__(self, outputs: int, ending: Any) -> None:
        super().__init__()
        self.layer, self.ending = nn.Linear(5, outputs), ending

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.ending(self.layer(inputs))
        return output


@pytest.mark.parametrize(
    ("task", "ending", "name"),
    [
        (Multiclass(3), nn.Softmax(1), "softmax"),
        (Multiclass(3), nn.Sequential(nn.Softmax(1), nn.Dropout(0.0), nn.Flatten()), "softmax"),
        (Multiclass(3), lambda x: torch.softmax(x, 1).unsqueeze(2).squeeze(2).double(), "softmax"),
        (Multiclass(3), nn.Sigmoid(), "sigmoid"),
        (Binary(), torch.sigmoid, "sigmoid"),
        (Binary(), lambda x: torch.sigmoid(x).squeeze(1), "sigmoid"),
        (Binary(), nn.LogSigmoid(), "sigmoid"),
        (Binary(), nn.ReLU(inplace=True), "ReLU"),
        (Multilabel(3), nn.Hardsigmoid(), "sigmoid"),
        (Multilabel(3), nn.ReLU(), "ReLU"),
        (Regression(), nn.ReLU(), "ReLU"),
        (Regression(), nn.Softmax(1), "softmax"),
        (MultiTask({"a": Binary(), "b": Multiclass(2)}), nn.ReLU(), "ReLU"),
        (as_task(nn.CrossEntropyLoss()), nn.Softmax(1), "softmax"),
        (as_task(nn.functional.binary_cross_entropy_with_logits), nn.Sigmoid(), "sigmoid"),
    ],
)
def test_an_activation_at_the_end_is_found(task: Task, ending: Any, name: str) -> None:
    """Modules and functions alike, through what only changes the shape or the precision."""
    output = Functional(task.out_features or 3, ending)(INPUTS)
    with pytest.raises(ValueError, match=f"ends in a {name}; expected raw outputs.* Remove the {name}"):
        check_ending(task, output)


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        (Multiclass(3), nn.Identity()),
        (Multiclass(3), nn.ReLU()),  # torchvision's own SqueezeNet ends so
        (Multiclass(3), nn.LogSoftmax(1)),  # a second one changes nothing
        (Multiclass(3), nn.Sequential(nn.Softmax(1), nn.Linear(3, 3))),
        (Regression(standardize=False), nn.Sigmoid()),
        (Regression(), nn.Tanh()),
        (as_task(nn.NLLLoss()), nn.LogSoftmax(1)),
        (as_task(nn.BCELoss()), nn.Sigmoid()),
        (as_task(lambda output, target: output.sum()), nn.Softmax(1)),
    ],
)
def test_what_a_loss_can_take_is_left_alone(task: Task, ending: Any) -> None:
    """Nothing is raised and nothing warned."""
    check_ending(task, Functional(task.out_features or 3, ending)(INPUTS))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_relu_of_squeezenet_is_found_behind_its_pooling(memory_format: torch.memory_format) -> None:
    """Whoever replaces its last convolution by hand keeps it."""
    model = SqueezeNet("1_1", num_classes=1).to(memory_format=memory_format)
    inputs = torch.randn(2, 3, 48, 48).to(memory_format=memory_format)
    with pytest.raises(ValueError, match="ends in a ReLU"):
        check_ending(Regression(), model(inputs))


def test_the_main_output_of_several_is_looked_at() -> None:
    """Segmentation gives a dict."""
    output = OrderedDict(out=nn.Conv2d(1, 2, 1)(torch.randn(1, 1, 3, 3)).softmax(1))
    with pytest.raises(ValueError, match="ends in a softmax"):
        check_ending(Multiclass(2), output)


def test_values_that_look_like_probabilities_only_warn() -> None:
    """Where autograd's history does not tell, as without gradients or in a compiled model."""
    with pytest.warns(LayerkitWarning, match="sums to 1, as after a softmax"):
        check_ending(Multiclass(3), INPUTS.softmax(1))
    check_ending(Regression(5, standardize=False), INPUTS.softmax(1))
    check_ending(Multiclass(3), INPUTS)
    check_ending(Multiclass(3), torch.zeros(4, 3))  # a new head's
