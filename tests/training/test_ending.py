from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SqueezeNet

from layerkit import evaluate, fit
from layerkit.errors import LayerkitWarning
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task
from layerkit.training.losses import as_task
from layerkit.training.mistakes import check_ending, run_as_written

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
        (Binary(), lambda x: x.sigmoid().clamp(1e-7, 1 - 1e-7), "sigmoid"),
        (Binary(), nn.ReLU6(), "ReLU"),
        (Regression(), lambda x: x.clamp(min=0), "ReLU"),
        (Regression(), lambda x: x.clamp(0, 1) * 5, "ReLU"),
        (Multilabel(3), nn.LogSoftmax(1), "log-softmax"),
        (Multilabel(3), lambda x: torch.cat([x[:, :2], x[:, 2:].sigmoid()], 1), "sigmoid"),
        (Multiclass(3), lambda x: 1.0 * x.softmax(1) / 2, "softmax"),
        (Multiclass(2), lambda x: torch.cat([x, x], 1).softmax(1)[:, :2], "softmax"),
        (Multiclass(3), lambda x: torch.stack([x.sigmoid(), x], 2)[:, :, 0], "sigmoid"),
        (
            MultiTask({"a": Binary(), "b": Multiclass(2)}),
            lambda x: torch.cat([x[:, :1], x[:, 1:].softmax(1)], 1),
            "softmax",
        ),
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
        (Binary(), lambda x: x.clamp(-30, 30)),
        (Binary(), lambda x: x * x.sigmoid()),  # of two outputs of layers the second is a gate
        (Multiclass(3), lambda x: torch.cat([x[:, :1], x[:, 1:]], 1)),
        (
            MultiTask({"a": Regression(standardize=False), "b": Binary()}),
            lambda x: torch.cat([x[:, :1].relu(), x[:, 1:]], 1),
        ),
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


@pytest.mark.parametrize("how", ["fit", "hand", "evaluate"])
@pytest.mark.parametrize(
    "wrap", [lambda model: model, lambda model: torch.compile(model, backend="aot_eager")]
)
def test_every_way_finds_it(how: str, wrap: Any) -> None:
    """Also where a compiled model hides what it did; a loop of one's own sees what autograd has seen."""
    model, task = wrap(Functional(3, nn.Softmax(1))), Multiclass(3)
    batches = [(INPUTS, torch.tensor([0, 1, 2, 0]))]
    if how == "hand":
        if isinstance(model, Functional):
            with pytest.raises(ValueError, match="ends in a softmax"):
                task.loss(model(INPUTS), batches[0][1])
        return
    with pytest.raises(ValueError, match="ends in a softmax"):
        fit(model, task, batches, epochs=1) if how == "fit" else evaluate(model, task, batches)


def test_fit_finds_it_in_what_it_compiles_itself() -> None:
    """The model is run once as it was written."""
    batches = [(INPUTS, torch.tensor([0.0, 1.0, 1.0, 0.0]))]
    with pytest.raises(ValueError, match="ends in a sigmoid"):
        fit(Functional(1, nn.Sigmoid()), Binary(), batches, epochs=1, compile=True)


def test_a_look_at_a_model_leaves_no_trace() -> None:
    """Modes, statistics and random numbers are as before."""
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    output = run_as_written(model, INPUTS)
    assert output.shape == (2, 3)
    assert output.grad_fn is not None
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_auxiliary_output_is_looked_at_too() -> None:
    """It has a loss of its own."""
    output = OrderedDict(out=nn.Conv2d(1, 2, 1)(torch.randn(1, 1, 3, 3)))
    output["aux"] = output["out"].softmax(1)
    with pytest.raises(ValueError, match="ends in a softmax"):
        check_ending(Multiclass(2), output)
