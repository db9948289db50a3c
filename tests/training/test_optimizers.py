"""Every optimizer of torch trains a model that it admits, and what cannot be is refused by name."""

import inspect

import pytest
import torch
from torch import nn

from layerkit import Multiclass, NonFiniteError, fit
from layerkit.callbacks import CSVLog
from layerkit.device import Hardware
from layerkit.training.optimizers import check_pairing

torch.manual_seed(0)
INPUTS = torch.randn(48, 6)
TARGETS = (INPUTS[:, 0] > 0).long()
DATA = list(zip(INPUTS.split(12), TARGETS.split(12), strict=True))

RATES = {
    "Adafactor": 0.3,
    "RAdam": 0.1,
    "Adadelta": 1.0,
    "Adagrad": 0.1,
    "ASGD": 0.1,
    "LBFGS": 0.5,
    "Muon": 0.02,
    "Rprop": 0.01,
    "SGD": 0.1,
}
NAMES = [
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]


def test_the_list_is_torchs():
    """Those that the design names are among what is tried here."""
    assert {
        "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "NAdam", "RAdam",
        "RMSprop", "Rprop", "SGD", "SparseAdam",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_trains(name):
    """On a model that it admits, the loss falls by a tenth at least."""
    torch.manual_seed(0)
    data, model = DATA, nn.Linear(6, 2)
    if name == "Muon":  # matrices only
        model = nn.Linear(6, 2, bias=False)
    if name == "SparseAdam":  # sparse gradients only
        model = nn.EmbeddingBag(2, 2, sparse=True)
        data = [((inputs[:, :1] > 0).long(), targets) for inputs, targets in DATA]
    run = fit(
        model, Multiclass(2), data, data, epochs=12, optimizer=getattr(torch.optim, name),
        lr=RATES.get(name, 0.01), progress=False, seed=0,
    )  # fmt: skip
    assert run.history[-1]["valid_loss"] < 0.9 * run.history[0]["valid_loss"] or run.best_value < 0.3


def test_an_optimizer_that_refuses_the_model_is_named():
    """Muon and a bias do not go together."""
    with pytest.raises(ValueError, match="Muon refuses this model's parameters"):
        fit(nn.Linear(6, 2), Multiclass(2), DATA, epochs=1, optimizer=torch.optim.Muon, progress=False)


def test_lbfgs_trains_convolutions():
    """In the layout that others train faster in, it could not read the gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    data = [(torch.randn(12, 3, 8, 8) + TARGETS[:12].view(-1, 1, 1, 1), TARGETS[:12])]
    run = fit(
        model, Multiclass(2), data, data, epochs=3, progress=False, channels_last=True,
        optimizer=lambda parameters: torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe"),
    )  # fmt: skip
    assert run.best_value < 0.3
    assert model[0].weight.is_contiguous()


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"lr": "1e-3"}, ValueError, "`lr` is '1e-3'; expected a number above zero"),
        ({"lr": float("inf")}, ValueError, "`lr` is inf"),
        ({"schedule": torch.optim.lr_scheduler.StepLR}, TypeError, r"class StepLR.*lambda optimizer: StepLR"),
        ({"callbacks": CSVLog("log.csv")}, TypeError, "expected a list of callbacks"),
    ],
)
def test_arguments_of_another_kind_are_named(settings, kind, message):
    """Before anything is trained."""
    model = nn.Linear(6, 2)
    before = model.weight.detach().clone()
    with pytest.raises(kind, match=message):
        fit(model, Multiclass(2), DATA, epochs=1, progress=False, **settings)
    assert torch.equal(model.weight, before)


def test_a_rate_beside_an_optimizer_names_its_class():
    """The remedy is one for the optimizer that was passed."""
    model = nn.Linear(6, 2)
    optimizer = torch.optim.RAdam(model.parameters())
    with pytest.raises(ValueError, match=r"pass the class instead: optimizer=torch\.optim\.RAdam"):
        fit(model, Multiclass(2), DATA, epochs=1, optimizer=optimizer, lr=0.1, progress=False)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("LBFGS", {"nonfinite": "skip"}, "LBFGS evaluates the loss several times a step and changes"),
        ("SparseAdam", {}, "SparseAdam takes sparse gradients only, and weight has dense ones"),
    ],
)
def test_impossible_pairings_are_refused_before_training(name, settings, message):
    """No weight has changed."""
    model = nn.Linear(6, 2)
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        fit(
            model, Multiclass(2), DATA, epochs=1, optimizer=getattr(torch.optim, name), progress=False, **settings
        )  # fmt: skip
    assert torch.equal(model.weight, before)


def test_closures_and_the_gradient_scaler_are_refused():
    """What would fail on an accelerator with fp16 is refused by name."""
    model = nn.Linear(6, 2)
    with pytest.raises(ValueError, match=r"LBFGS .* gradient scaler"):
        check_pairing(
            torch.optim.LBFGS(model.parameters()), model, scaled=True, skips_nonfinite=False, clips=False
        )
    assert Hardware(torch.device("cpu"), torch.float16, False).scaler() is not None


def test_a_step_that_is_not_finite_is_left_out(capsys):
    """The others are taken as if the bad batch had never been there, and it is named."""
    bad = (torch.full((12, 6), float("nan")), TARGETS[:12])
    ends = []
    for data in (DATA, [*DATA[:2], bad, *DATA[2:]]):
        torch.manual_seed(0)
        model = nn.Linear(6, 2)
        fit(model, Multiclass(2), data, DATA, epochs=2, optimizer=torch.optim.Adam, nonfinite="skip", seed=0)
        ends.append(model.weight.detach().clone())
    assert torch.equal(*ends)
    assert (
        "epoch 1/2: 1 step left out, whose loss or gradient was not finite, batch 2 first"
        in capsys.readouterr().err
    )


def test_an_epoch_without_one_finite_step_is_an_error():
    """Skipping everything is no training."""
    bad = (torch.full((12, 6), float("nan")), TARGETS[:12])
    with pytest.raises(NonFiniteError, match="Not one step of epoch 1/1"):
        fit(nn.Linear(6, 2), Multiclass(2), [bad], epochs=1, nonfinite="skip", progress=False)


def test_a_step_that_is_left_out_leaves_batch_norm_alone():
    """Its statistics are those of a run that never saw the bad batch, also where it stops the run."""
    bad = (torch.full((12, 6), float("nan")), TARGETS[:12])
    ends = []
    for data in (DATA, [*DATA[:2], bad, *DATA[2:]]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
        fit(
            model,
            Multiclass(2),
            data,
            DATA,
            epochs=1,
            lr=0.01,
            schedule="constant",
            nonfinite="skip",
            seed=0,
            progress=False,
        )
        ends.append(model[0].running_mean)
    assert torch.equal(*ends)
    with pytest.raises(NonFiniteError):
        fit(model, Multiclass(2), [bad], epochs=1, progress=False)
    assert model[0].running_mean.isfinite().all()
