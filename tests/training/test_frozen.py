"""The frozen phase: the backbone runs once, and its head is trained as in the slow way."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model, squeezenet1_1

from layerkit import (
    Binary,
    HeadError,
    LayerkitWarning,
    MLPHead,
    Multiclass,
    Regression,
    evaluate,
    find_head,
    fit,
    replace_head,
    solve_head,
)
from layerkit.features import FrozenHead, precompute_features
from layerkit.training.optimizers import make_optimizer


def pictures(count=24, size=64, classes=3):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % classes
    inputs = torch.randn(count, 3, size, size, generator=generator) * 0.3
    inputs += (targets[:, None, None, None] - 1.0) * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    return DataLoader(TensorDataset(inputs, targets), batch_size=8)


def some_model(name, task, head=None, **settings):
    torch.manual_seed(0)
    return replace_head(get_model(name, weights=None, **settings), task, head=head).eval()


def linear_model(outputs, head=None):
    return replace_head(nn.Sequential(nn.Linear(4, 1)), outputs, where="0", head=head)


SMALL = [
    "resnet18",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "efficientnet_b0",
]


@pytest.mark.parametrize("name", SMALL)
def test_the_phase_does_what_the_slow_way_does(name):
    """The figures of the frozen phase are those of the whole model with the returned weights, in eval mode."""
    data, task = pictures(), Multiclass(3)
    model = some_model(name, task)
    backbone = {key: value.clone() for key, value in model.state_dict().items()}
    run = fit(model, task, data, data, epochs=4, frozen_epochs=4, seed=0, progress=False)
    assert [row["phase"] for row in run.history] == ["frozen"] * 4
    whole = evaluate(model, task, data)
    row = run.history[run.best_epoch - 1]
    assert row["valid_loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert row["valid_accuracy"] == whole["accuracy"]
    head = find_head(model).sites[0].path
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, backbone[key])}
    assert changed == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("head", [nn.Linear, MLPHead((16,), dropout=0.0), None])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_re_expressing_a_head_changes_no_output(name, head):
    """Standardized features through the re-expressed head, and the folded head on the features, agree."""
    task = Multiclass(3)
    model = some_model(name, task, head)
    features, _ = precompute_features(model, pictures())
    frozen = FrozenHead(model, features.clone()).eval()
    inputs = next(iter(pictures()))[0]
    with torch.no_grad():
        expected = model(inputs)
        standardized = frozen.standardize(features.clone())
        torch.testing.assert_close(frozen(standardized[:8]), expected, rtol=1e-4, atol=1e-5)
        for parameter in frozen.parameters():
            parameter.add_(0.01)
        moved = frozen(standardized[:8])
        model.load_state_dict(frozen.state_for_model(), strict=False)
        torch.testing.assert_close(model(inputs), moved, rtol=1e-3, atol=1e-4)
    flat = standardized.transpose(0, 1).flatten(1)
    varying = flat.std(1) > 0.5
    torch.testing.assert_close(flat.mean(1)[varying], torch.zeros(int(varying.sum())), atol=1e-4, rtol=0)


def test_a_head_without_bias_is_scaled_only():
    """With nothing to take up the means, features keep them (as in maxvit_t)."""
    model = replace_head(
        nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2, bias=False)), 2, where="1", head=nn.Linear
    )
    features = torch.randn(50, 8) * 3 + 7
    frozen = FrozenHead(model, features)
    standardized = frozen.standardize(features)
    torch.testing.assert_close(standardized.std(0, correction=0), torch.ones(8))
    assert standardized.mean().abs() > 1
    torch.testing.assert_close(frozen.layers(standardized), model[1](features), rtol=1e-4, atol=1e-4)


def test_a_feature_that_few_pictures_show_is_not_blown_up():
    """In training it hardly varies; in the first picture that shows it, it is no larger than others may be."""
    features = torch.randn(100, 4)
    features[:, 1] = 0.0
    features[0, 1] = 0.01
    frozen = FrozenHead(linear_model(3, head=nn.Linear), features)
    seen = frozen.standardize(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    common = features.std(0, correction=0).square().mean().sqrt()
    assert seen[0, 1].item() == pytest.approx(10 / common.item(), rel=1e-3)
    others = frozen.standardize(features)[:, [0, 2, 3]]
    torch.testing.assert_close(others.std(0, correction=0), torch.ones(3))


def test_positions_of_one_picture_are_not_so_many_pictures():
    """A head that answers at positions: what one picture shows at all of them is still one picture's."""
    features = torch.randn(100, 4, 7, 7)
    features[:, 1] = 0.0
    features[0, 1] = 0.01 * torch.rand(7, 7)
    model = replace_head(nn.Sequential(nn.Conv2d(4, 2, 1)), 3, where="0", head=nn.Linear)
    seen = FrozenHead(model, features).standardize(torch.ones(1, 4, 7, 7))
    assert seen[0, 1].max() < 20


def test_a_feature_that_never_varies_does_no_harm():
    """A dead feature stays zero, and nothing becomes infinite, nor where all are dead."""
    assert bool(
        FrozenHead(linear_model(3), torch.zeros(20, 4)).standardize(torch.ones(1, 4)).isfinite().all()
    )
    features = torch.randn(20, 4)
    features[:, 2] = 0.0
    frozen = FrozenHead(linear_model(3, head=nn.Linear), features)
    assert bool(frozen.standardize(features).isfinite().all())
    assert all(bool(value.isfinite().all()) for value in frozen.state_for_model().values())


def test_the_prior_is_written_only_into_an_all_zero_layer():
    """A fresh head starts from the classes' shares; one that learnt something keeps it."""
    targets = torch.tensor([0] * 30 + [1] * 10)
    features = torch.randn(40, 4)
    expected = torch.tensor([0.75, 0.25]).log()
    fresh = FrozenHead(linear_model(2), features)
    fresh.start_from(Multiclass(2).constant_logits(targets))
    logits = fresh(fresh.standardize(features))
    torch.testing.assert_close(logits.log_softmax(1), expected.expand(40, 2))
    learnt = FrozenHead(linear_model(2, head=nn.Linear), features)
    before = copy.deepcopy(learnt.state_dict())
    learnt.start_from(expected)
    assert all(torch.equal(value, before[key]) for key, value in learnt.state_dict().items())


def test_fine_tuning_starts_from_the_best_frozen_epoch():
    """The best is taken over both phases: when fine-tuning ruins the model, the frozen phase's best is back."""
    data, task = pictures(), Multiclass(3)
    model = some_model("resnet18", task)
    run = fit(
        model, task, data, data, epochs=6, frozen_epochs=4, seed=0, progress=False,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e4), clip_norm=1e3,
    )  # fmt: skip
    assert [row["phase"] for row in run.history] == ["frozen"] * 4 + ["full"] * 2
    assert run.best_epoch <= 4
    assert evaluate(model, task, data)["loss"] == pytest.approx(run.best_value, rel=1e-4)


def test_fine_tuning_goes_on_from_the_frozen_head():
    """With a rate of nearly zero the full phase evaluates as the best frozen epoch did."""
    data, task = pictures(), Multiclass(3)
    model = some_model("resnet18", task)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    run = fit(
        model, task, data, data, epochs=5, frozen_epochs=4, seed=0, progress=False,
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-9),
    )  # fmt: skip
    best = min(row["valid_loss"] for row in run.history[:4])
    assert run.history[4]["valid_loss"] == pytest.approx(best, abs=1e-5)


def test_dropout_before_the_head_belongs_to_it():
    """It acts on the features in training: two passes in train mode differ, in eval mode they do not."""
    model = some_model("squeezenet1_1", Multiclass(3), nn.Linear)
    features, _ = precompute_features(model, pictures())
    frozen = FrozenHead(model, features.clone())
    standardized = frozen.standardize(features.clone())
    frozen.train()
    assert not torch.equal(frozen(standardized), frozen(standardized))
    frozen.eval()
    assert torch.equal(frozen(standardized), frozen(standardized))


@pytest.mark.parametrize("task", [Binary(), Regression()], ids=["binary", "regression"])
def test_other_tasks_learn_on_features(task):
    """Loss falls below that of the best constant answer, which is where the phase starts."""
    loader = pictures(classes=2)
    model = some_model("squeezenet1_1", task)
    run = fit(model, task, loader, loader, epochs=10, frozen_epochs=10, seed=0, progress=False)
    constant = 0.6931 if isinstance(task, Binary) else 1.0
    assert run.best_value < 0.8 * constant


def test_features_are_what_enters_the_head():
    """For a plain convolutional network they are the output of everything before `fc`."""
    torch.manual_seed(0)
    model = get_model("resnet18", weights=None).eval()
    data = pictures(8)
    features, targets = precompute_features(model, data)
    without = copy.deepcopy(model)
    without.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(features, without(next(iter(data))[0]))
    assert torch.equal(targets, torch.arange(8) % 3)


def test_squeezenet_features_are_pooled():
    """Averaging before the 1x1 convolution gives what the model gives by averaging after it."""
    torch.manual_seed(0)
    model = replace_head(squeezenet1_1(weights=None), 5, head=nn.Linear).eval()
    features, _ = precompute_features(model, pictures(8))
    assert features.shape == (8, 512, 1, 1)
    with torch.no_grad():
        expected = model(next(iter(pictures(8)))[0])
        torch.testing.assert_close(model.classifier[1](features).flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_precomputing_leaves_the_model_as_it_was():
    """Training flags, hooks and batch-norm statistics are as before, also after an error."""
    model = some_model("resnet18", 3)
    model.train()
    model.layer1.eval()
    flags = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    precompute_features(model, pictures(8))
    with pytest.raises(ValueError, match="gave no batch"):
        precompute_features(model, [])
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not model.fc._forward_pre_hooks


def test_a_head_that_is_not_last_is_refused():
    """Where something follows the head, its features alone would train something else."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, inputs):
            return self.head(self.body(inputs)) * 2

    data = [(torch.randn(4, 4), torch.tensor([0, 1, 0, 1]))]
    model = replace_head(Scaled(), 2, where="head")
    with pytest.raises(HeadError, match="'head' is not the model's output"):
        fit(model, Multiclass(2), data, data, epochs=1, frozen_epochs=1, progress=False)


def test_mistakes_in_the_second_phase_are_found_before_the_first():
    """An optimizer of another model is refused before the backbone has run."""
    model = some_model("resnet18", 3)
    before = copy.deepcopy(model.state_dict())
    foreign = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="not the model's"):
        fit(model, Multiclass(3), pictures(), pictures(), epochs=3, frozen_epochs=2, optimizer=foreign)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_settings_of_a_phase_that_does_not_come_are_not_ignored_in_silence():
    """Where all epochs are frozen ones, the whole model's optimizer and its settings would do nothing."""
    inputs = torch.randn(8, 4)
    data = [(inputs, (inputs[:, 0] > 0).long())]
    with pytest.warns(LayerkitWarning, match="lr, clip_norm have no effect.*Raise `epochs`"):
        fit(
            linear_model(2),
            Multiclass(2),
            data,
            epochs=1,
            frozen_epochs=1,
            lr=0.1,
            clip_norm=1.0,
            progress=False,
        )


def test_a_head_that_was_solved_or_trained_is_not_hurried():
    """Only a head at zero gets the higher rate, and the groups are the same, so that a run can go on."""
    task = Multiclass(2)
    fresh = replace_head(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)), task, where="1")
    rates = [group["lr"] for group in make_optimizer(None, fresh, task, 1e-3).param_groups]
    assert rates == [1e-3, 1e-2]
    nn.init.ones_(fresh[1].weight)
    rates = [group["lr"] for group in make_optimizer(None, fresh, task, 1e-3).param_groups]
    assert rates == [1e-3, 1e-3]


def test_a_small_head_starts_from_its_optimum(capsys):
    """Where nothing follows the frozen phase, its first epoch is as good on held-out pictures as the solved head."""
    torch.manual_seed(0)
    inputs = torch.randn(240, 6) * torch.tensor([1.0, 1, 1, 1e-2, 1e-2, 1e-2])
    values = inputs @ torch.tensor([[1.0], [2], [3], [400], [500], [600]]) + torch.randn(240, 1)
    parts = (inputs[:180], values[:180]), (inputs[180:], values[180:])
    rows = [DataLoader(TensorDataset(*part), batch_size=60) for part in parts]
    task = Regression()
    model = replace_head(nn.Sequential(nn.Identity(), nn.Linear(6, 1)), task, where="1")
    solved = solve_head(copy.deepcopy(model), task, *rows, progress=False)
    run = fit(model, task, *rows, epochs=2, frozen_epochs=2)
    assert "from its exact optimum" in capsys.readouterr().err
    assert run.history[0]["valid_loss"] < 1.05 * solved.valid_loss
    assert solved.valid_loss < 0.2


def test_a_loss_with_a_corner_has_no_optimum_to_start_from(capsys):
    """Absolute errors have no gradient at their optimum, and are trained as before."""
    inputs = torch.randn(24, 4)
    data = DataLoader(TensorDataset(inputs, inputs[:, :1]), batch_size=8)
    fit(linear_model(1), Regression(loss="mae"), data, data, epochs=1, frozen_epochs=1)
    assert "from its exact optimum" not in capsys.readouterr().err


@pytest.mark.parametrize(("head", "threads"), [(None, 1), (MLPHead((1024,)), 2)])
def test_a_small_head_is_trained_by_one_thread(head, threads):
    """A team would wait for its members at each operation; a larger head has it, and so has the whole model."""
    seen = []

    class Watch:
        def on_epoch_end(self, state):
            seen.append((state.phase, torch.get_num_threads()))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        task = Multiclass(3)
        data = pictures()
        model = some_model("squeezenet1_1", task, head)
        fit(model, task, data, data, epochs=2, frozen_epochs=1, seed=0, callbacks=[Watch()], progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [("frozen", threads), ("full", 2)]
