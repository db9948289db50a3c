from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SqueezeNet

from layerkit import evaluate, fit, freeze, unfreeze
from layerkit.errors import LayerkitWarning
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task
from layerkit.training.losses import as_task
from layerkit.training.mistakes import check_ending, check_model

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
        (Multiclass(3), lambda x: torch.stack([x.sigmoid(), x.sigmoid()], 2)[:, :, 0], "sigmoid"),
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
        (Multiclass(3), lambda x: torch.stack([x.sigmoid(), x], 2)[:, :, 1]),
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


class Busy(nn.Module):
    """Changes its input and its buffers as it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.ReLU(inplace=True), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)
        )
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        inputs.sub_(inputs.mean())
        output: Tensor = self.layer(inputs)
        self.seen.mul_(0.9).add_(output.mean(0) * 0.1)  # type: ignore[operator]
        return output


def test_a_look_at_a_model_leaves_no_trace() -> None:
    """Modes, statistics, buffers, inputs and random numbers are as before, and a frozen part knows its mode."""
    model = Busy().train()
    freeze(model.layer[2])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, inputs = torch.get_rng_state(), INPUTS.clone()
    check_model(model, Multiclass(3), inputs)
    with torch.no_grad():
        evaluate(model, Multiclass(3), [(INPUTS.clone(), torch.tensor([0, 1, 2, 0]))])
    assert [module.training for module in model.layer] == [True, True, False, True, True]
    assert not model.seen.requires_grad
    before["seen"] = model.seen  # which evaluation itself moves
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(inputs, INPUTS)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert unfreeze(model.layer[2]).training


def test_a_model_that_cannot_be_looked_at_is_let_be() -> None:
    """One that takes no other number of pictures answers when it is asked itself."""
    model = nn.Sequential(nn.Unflatten(0, (2, 2)), nn.Flatten(0, 1), nn.Linear(5, 3))
    assert evaluate(model, Multiclass(3), [(INPUTS, torch.tensor([0, 1, 2, 0]))])["loss"] > 0


FROZEN = nn.Linear(5, 3).requires_grad_(False)


@pytest.mark.parametrize(
    "forward",
    [
        lambda layer: FROZEN(INPUTS) * layer(INPUTS).sigmoid(),
        lambda layer: FROZEN(INPUTS) * layer.bias.sigmoid(),
        lambda layer: FROZEN(INPUTS) / layer(INPUTS).relu().add(1),
        lambda layer: (FROZEN(INPUTS) * layer(INPUTS).softmax(1)).mean(1, keepdim=True).expand(4, 3),
        lambda layer: layer(INPUTS).clamp(torch.full((3,), -3.0), torch.full((3,), 3.0)),
        lambda layer: layer(INPUTS).clamp_min(torch.full((3,), 0.5)),
    ],
)
def test_a_gate_on_frozen_outputs_is_no_ending(forward: Any) -> None:
    """What is multiplied by it may be of any sign."""
    check_ending(Multilabel(3), forward(nn.Linear(5, 3)))


def test_a_part_with_bounds_may_be_made_of_several_pieces() -> None:
    """They cannot be told apart then, and only what no part takes is refused."""
    task = MultiTask({"box": Regression(4, standardize=False), "object": Binary()})
    pieces = [nn.Linear(5, size)(INPUTS) for size in (2, 2, 1)]
    check_ending(task, torch.cat([pieces[0].sigmoid(), pieces[1].sigmoid(), pieces[2]], 1))
    with pytest.raises(ValueError, match=r"Binary applies"):
        check_ending(task, torch.cat(pieces, 1).sigmoid())
    strict = MultiTask({"sign": Regression(4), "object": Binary()})
    crowded = MultiTask({"box": Regression(4, standardize=False), "a": Binary(), "b": Binary()})
    pieces = [nn.Linear(5, 2)(INPUTS) for _ in range(3)]
    check_ending(crowded, torch.cat([pieces[0].sigmoid(), pieces[1].sigmoid(), pieces[2]], 1))
    with pytest.raises(ValueError, match=r"ends in a sigmoid.*Regression\(standardize=False\)"):
        check_ending(strict, torch.cat([pieces[0].sigmoid(), pieces[1], pieces[2][:, :1]], 1))


def test_a_softmax_in_evaluation_alone_is_found_before_training() -> None:
    """It would spoil every figure of the validation."""

    class Polite(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            logits = super().forward(inputs)
            return logits if self.training else logits.softmax(1)

    with pytest.raises(ValueError, match="ends in a softmax"):
        fit(Polite(5, 3), Multiclass(3), [(INPUTS, torch.tensor([0, 1, 2, 0]))], epochs=1)


def test_a_scale_is_no_matter_after_backward() -> None:
    """What the graph held is gone then, and a loss may be computed all the same."""
    output = nn.Linear(5, 3)(INPUTS) / 2.0
    task, target = Multiclass(3), torch.tensor([0, 1, 2, 0])
    task.loss(output, target).backward()
    task.loss(output, target)


def test_a_replaced_forward_runs_only_when_asked() -> None:
    """A copy of the model would run it on the model itself."""
    model, calls = nn.Linear(5, 3), []
    original = model.forward
    model.forward = lambda inputs: calls.append(len(inputs)) or original(inputs)  # type: ignore[func-returns-value]
    fit(model, Multiclass(3), [(INPUTS, torch.tensor([0, 1, 2, 0]))], epochs=1, progress=False)
    assert calls == [4]


def test_hooks_see_only_what_was_asked_for() -> None:
    """Whoever collects features during an evaluation gets one row for each picture."""
    model, seen = nn.Linear(5, 3), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    evaluate(model, Multiclass(3), [(INPUTS, torch.tensor([0, 1, 2, 0]))])
    assert seen == [4]


def test_an_auxiliary_output_is_looked_at_too() -> None:
    """It has a loss of its own."""
    output = OrderedDict(out=nn.Conv2d(1, 2, 1)(torch.randn(1, 1, 3, 3)))
    output["aux"] = output["out"].softmax(1)
    with pytest.raises(ValueError, match="ends in a softmax"):
        check_ending(Multiclass(2), output)
