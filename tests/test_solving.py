"""The head solved exactly: its optimum, the choice of the penalty, and what is refused."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model

from layerkit import (
    Binary,
    HeadError,
    LayerkitWarning,
    MLPHead,
    Multiclass,
    Multilabel,
    MultiTask,
    NonFiniteError,
    Regression,
    TargetError,
    evaluate,
    fit,
    replace_head,
    solve_head,
)

OUTPUTS = 3


class Data:
    """Features with unlike scales and far means, three noisy scores of them, and targets of every kind."""

    def __init__(self, count=120, width=10):
        generator = torch.Generator().manual_seed(0)
        scales = torch.logspace(-2, 2, width)
        standard = torch.randn(count, width, generator=generator)
        self.inputs = standard * scales + 5 * scales
        self.scores = standard @ torch.randn(width, OUTPUTS, generator=generator)
        self.scores += 2 * torch.randn(count, OUTPUTS, generator=generator)

    def targets(self, task):
        if isinstance(task, Multiclass):
            return self.scores.argmax(1)
        values = self.scores[:, 0] if task.out_features == 1 else self.scores
        return 10 * values + 50 if isinstance(task, Regression) else (values > 0.5).long()

    def loaders(self, task, count=80):
        pairs = self.inputs, self.targets(task)
        parts = [slice(None, count), slice(count, None)]
        return [DataLoader(TensorDataset(*(t[part] for t in pairs)), batch_size=16) for part in parts]

    def standardized(self, count=80):
        values = self.inputs.double()
        std, mean = torch.std_mean(values[:count], 0, correction=0)
        return (values - mean) / std


DATA = Data()


def model_for(task, width=10, bias=True):
    body = nn.Sequential(nn.Identity(), nn.Linear(width, 1, bias=bias))
    return replace_head(body, task, where="1")


def quietly(*args, **kwargs):
    return solve_head(*args, progress=False, device="cpu", **kwargs)


def standardized_weights(model, inputs, centered=True):
    """Re-express a solved layer, independently of the code under test."""
    layer = model[1]
    std, mean = torch.std_mean(inputs.double(), 0, correction=0)
    weight = layer.weight.detach().double() * std
    bias = layer.bias.detach().double() + layer.weight.detach().double() @ mean if centered else None
    return weight, bias


TASKS = {
    "mse": Regression(),
    "several mse": Regression(OUTPUTS),
    "raw mse": Regression(standardize=False),
    "huber": Regression(OUTPUTS, loss="huber"),
    "binary": Binary(),
    "weighted binary": Binary(pos_weight=3.0),
    "multiclass": Multiclass(OUTPUTS),
    "balanced multiclass": Multiclass(OUTPUTS, class_weight="balanced"),
    "weighted multiclass": Multiclass(OUTPUTS, class_weight=[1.0, 2.0, 5.0]),
    "smoothed multiclass": Multiclass(OUTPUTS, label_smoothing=0.1),
    "multilabel": Multilabel(OUTPUTS, pos_weight=[1.0, 2.0, 3.0]),
}


@pytest.fixture(params=TASKS)
def task(request):
    return copy.deepcopy(TASKS[request.param])


def test_gradient_at_the_solution_is_zero(task):
    """The penalised loss, written down again here, has no slope at the weights that were written."""
    train, valid = DATA.loaders(task)
    model = model_for(task)
    solved = quietly(model, task, train, valid, penalties=[0.1])
    assert solved.penalty == 0.1
    weight, bias = (t.requires_grad_() for t in standardized_weights(model, DATA.inputs[:80]))
    logits = F.linear(DATA.standardized()[:80], weight, bias)
    target = task.check(DATA.targets(task)[:80])
    loss = task.double().criterion(logits, target.double() if target.is_floating_point() else target)
    assert solved.train_loss == pytest.approx(loss.item(), rel=1e-5)
    (loss + 0.05 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 2e-5
    assert bias.grad.abs().max() < 2e-5


def test_no_other_head_is_better(task):
    """Small steps in any direction make the penalised loss larger."""
    train, valid = DATA.loaders(task)
    model = model_for(task)
    quietly(model, task, train, valid, penalties=[0.02])
    weight, bias = standardized_weights(model, DATA.inputs[:80])
    target = task.check(DATA.targets(task)[:80])
    target = target.double() if target.is_floating_point() else target
    task.double()

    def objective(weight, bias):
        logits = F.linear(DATA.standardized()[:80], weight, bias)
        return (task.criterion(logits, target) + 0.01 * weight.square().sum()).item()

    generator = torch.Generator().manual_seed(0)
    best = objective(weight, bias)
    for _ in range(20):
        step = [0.02 * torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (weight, bias)]
        assert objective(weight + step[0], bias + step[1]) > best


def test_ridge_is_scikit_learns():
    """On the same standardized features and standardized targets, scikit-learn's Ridge gives the same weights."""
    task = Regression(OUTPUTS)
    train, valid = DATA.loaders(task)
    model = model_for(task)
    quietly(model, task, train, valid, penalties=[0.3])
    targets = (DATA.targets(task)[:80] - task.mean) / task.std
    ridge = Ridge(alpha=0.3 * 80 * OUTPUTS / 2).fit(DATA.standardized()[:80].numpy(), targets.numpy())
    weight, bias = standardized_weights(model, DATA.inputs[:80])
    np.testing.assert_allclose(weight.numpy(), ridge.coef_, atol=1e-5)
    np.testing.assert_allclose(bias.numpy(), ridge.intercept_, atol=1e-4)


@pytest.mark.parametrize("balanced", [False, True])
def test_logistic_regression_is_scikit_learns(balanced):
    """scikit-learn's LogisticRegression gives the same weights, class weights included."""
    task = Multiclass(OUTPUTS, class_weight="balanced" if balanced else None)
    train, valid = DATA.loaders(task)
    model = model_for(task)
    quietly(model, task, train, valid, penalties=[0.05])
    logistic = LogisticRegression(
        C=1 / (0.05 * 80), class_weight="balanced" if balanced else None, tol=1e-10, max_iter=10_000
    ).fit(DATA.standardized()[:80].numpy(), DATA.targets(task)[:80].numpy())
    weight, bias = standardized_weights(model, DATA.inputs[:80])
    np.testing.assert_allclose(weight.numpy(), logistic.coef_, atol=2e-5)
    np.testing.assert_allclose(
        (bias - bias.mean()).numpy(), logistic.intercept_ - logistic.intercept_.mean(), atol=2e-4
    )


def test_labels_are_independent_questions():
    """Each label's weights are those of a binary question of its own, at its share of the penalty."""
    several = Multilabel(OUTPUTS)
    train, valid = DATA.loaders(several)
    model = model_for(several)
    quietly(model, several, train, valid, penalties=[0.01])
    one = Binary()
    for label in range(OUTPUTS):
        alone = [[(inputs, target[:, label]) for inputs, target in loader] for loader in (train, valid)]
        own = model_for(one)
        quietly(own, one, *alone, penalties=[0.01 * OUTPUTS])
        torch.testing.assert_close(model[1].weight[label], own[1].weight[0], rtol=1e-4, atol=1e-6)


def test_validation_loss_decides(task):
    """The penalty is that of the smallest validation loss, which the written head has when it is evaluated."""
    train, valid = DATA.loaders(task, count=60)
    model = model_for(task)
    solved = quietly(model, task, train, valid)
    losses = [row["valid_loss"] for row in solved.path]
    assert min(losses) <= solved.valid_loss < 1.001 * min(losses)
    assert solved.valid_loss in [row["valid_loss"] for row in solved.path if row["penalty"] == solved.penalty]
    assert solved.decided_by == "validation"
    whole = next(iter(DataLoader(valid.dataset, batch_size=1000)))
    assert evaluate(model, task, [whole], device="cpu")["loss"] == pytest.approx(solved.valid_loss, rel=1e-4)


def test_cross_validation_decides_without_a_validation_part():
    """Without `valid` the held-out loss is one that scikit-learn's cross-validation gives at the same penalty."""
    task = Multiclass(OUTPUTS)
    train, _ = DATA.loaders(task)
    model = model_for(task)
    solved = quietly(model, task, train)
    assert solved.decided_by == "5-fold cross-validation"
    logistic = LogisticRegression(C=1 / (solved.penalty * 80), max_iter=1000)
    features, targets = DATA.standardized()[:80].numpy(), DATA.targets(task)[:80].numpy()
    losses = [
        -cross_val_score(
            logistic,
            features,
            targets,
            scoring="neg_log_loss",
            cv=StratifiedKFold(5, shuffle=True, random_state=seed),
        ).mean()
        for seed in range(10)
    ]
    assert min(losses) * 0.97 < solved.valid_loss < max(losses) * 1.03


@pytest.mark.parametrize("with_valid", [True, False])
def test_order_of_the_pictures_plays_no_part(task, with_valid):
    """The same pictures in another order give the same choice and the same weights."""
    train, valid = DATA.loaders(task)
    shuffled = torch.Generator().manual_seed(1)
    other = DataLoader(train.dataset, batch_size=7, shuffle=True, generator=shuffled)
    solutions = []
    for loader in (train, other):
        own = copy.deepcopy(task)
        model = model_for(own)
        solved = quietly(model, own, loader, *([valid] if with_valid else []))
        solutions.append((solved.penalty, solved.valid_loss, model[1].weight))
    assert solutions[0][:2] == pytest.approx(solutions[1][:2], rel=1e-6)
    torch.testing.assert_close(solutions[0][2], solutions[1][2], rtol=1e-4, atol=1e-7)


def test_the_same_call_gives_the_same_bits(task):
    """Nothing is drawn: the second call writes the same bits as the first, whatever the global generator says."""
    train, valid = DATA.loaders(task)
    train, valid = [*train], [*valid]  # a DataLoader draws from the global generator
    models = [model_for(task) for _ in range(2)]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        quietly(model, copy.deepcopy(task), train, valid)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(models[0][1].weight, models[1][1].weight)


def test_head_without_bias_is_scaled_and_not_centred():
    """Without a bias the weights are scikit-learn's without an intercept, on features that are only scaled."""
    task = Regression()
    train, valid = DATA.loaders(task)
    model = model_for(task, bias=False)
    assert model[1].bias is None
    quietly(model, task, train, valid, penalties=[0.3])
    std = DATA.inputs[:80].double().std(0, correction=0)
    targets = (DATA.targets(task)[:80].unsqueeze(1) - task.mean) / task.std
    ridge = Ridge(alpha=0.3 * 80 / 2, fit_intercept=False).fit(
        (DATA.inputs[:80] / std).numpy(), targets.numpy()
    )
    weight, _ = standardized_weights(model, DATA.inputs[:80], centered=False)
    np.testing.assert_allclose(weight.numpy(), ridge.coef_.reshape(1, -1), atol=1e-5)


def test_more_features_than_pictures():
    """Where features outnumber the pictures, the solution is scikit-learn's too."""
    generator = torch.Generator().manual_seed(0)
    inputs, target = torch.randn(20, 60, generator=generator), torch.arange(20) % 2
    task = Binary()
    model = model_for(task, width=60)
    quietly(model, task, [(inputs, target)], [(inputs, target)], penalties=[0.5])
    values = inputs.double()
    values = (values - values.mean(0)) / values.std(0, correction=0)
    logistic = LogisticRegression(C=1 / (0.5 * 20), tol=1e-10, max_iter=10_000).fit(values, target)
    weight, _ = standardized_weights(model, inputs)
    np.testing.assert_allclose(weight.numpy(), logistic.coef_, atol=1e-5)


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "mobilenet_v3_small"])
def test_pictures_through_a_backbone(name):
    """The written head gives the whole model the loss that was found, and nothing else in it has changed."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(24) % 3
    inputs = torch.randn(24, 3, 64, 64, generator=generator) + target.view(-1, 1, 1, 1)
    data = DataLoader(TensorDataset(inputs, target), batch_size=8)
    task = Multiclass(3)
    torch.manual_seed(0)
    model = replace_head(get_model(name, weights=None), task).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    solved = quietly(model, task, data, data, penalties=[0.1])
    assert model.training
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert len(changed) == 2
    assert evaluate(model, task, data, device="cpu")["loss"] == pytest.approx(solved.valid_loss, rel=1e-4)


def test_a_class_without_pictures_gets_a_finite_bias():
    """A class that no training picture shows, or none of a fold, is unlikely and not impossible."""
    task = Multiclass(4)
    train, valid = DATA.loaders(Multiclass(OUTPUTS))
    model = model_for(task)
    quietly(model, task, train, valid)
    probability = model(DATA.inputs).softmax(1)[:, 3]
    assert 0 < probability.max() < 1e-4


def test_fit_goes_on_from_there():
    """The frozen phase keeps the solution that it finds, and its loss gets hardly worse in an epoch."""
    task = Multiclass(OUTPUTS)
    train, valid = DATA.loaders(task)
    model = model_for(task)
    solved = quietly(model, task, train, valid)
    run = fit(model, task, train, valid, epochs=1, frozen_epochs=1, progress=False, device="cpu")
    assert run.best_value < 1.05 * solved.valid_loss


def test_the_task_is_prepared():
    """What the task needs of the training targets is in it afterwards."""
    task = Regression()
    train, valid = DATA.loaders(task)
    quietly(model_for(task), task, train, valid)
    assert not task.needs_targets
    assert task.mean.item() == pytest.approx(DATA.targets(task)[:80].mean().item(), rel=1e-6)


def test_it_says_what_it_chose(capsys):
    """The result reads as a sentence, which is also shown."""
    task = Binary()
    train, valid = DATA.loaders(task)
    solved = solve_head(model_for(task), task, train, valid, device="cpu")
    assert repr(solved).startswith(f"SolvedHead(penalty {solved.penalty:.3g}, chosen from ")
    assert "by validation: loss " in repr(solved)
    assert str(solved) in capsys.readouterr().err


@pytest.mark.parametrize(("penalties", "end"), [([100, 10], "smallest"), ([1e-2, 1e-3], "largest")])
def test_a_penalty_at_the_end_is_said(penalties, end):
    """Where the best penalty is the first or the last, one beyond may be better, and a warning says so."""
    task = Regression()
    train, valid = DATA.loaders(task, count=20)
    with pytest.warns(LayerkitWarning, match=f"is the {end} of"):
        quietly(model_for(task), task, train, valid, penalties=penalties)


def test_the_path_ends_where_it_only_gets_worse():
    """Penalties far below the best are not tried, since they only fit the training pictures ever more closely."""
    task = Binary()
    train, valid = DATA.loaders(task, count=20)
    solved = quietly(model_for(task), task, train, valid)
    assert len(solved.path) < 25
    assert solved.path[-1]["penalty"] > 0.01 * solved.penalty


def relu_ending():
    return replace_head(nn.Sequential(nn.Linear(10, 1), nn.ReLU()), OUTPUTS, where="0")


def no_number(logits, target):
    return logits.sum()


class OwnLoss(Regression):
    def criterion(self, logits, target):
        return super().criterion(logits, target).sqrt()


MLP = MLPHead((4,))
REFUSED = {
    "MLPHead": (
        lambda: replace_head(model_for(1), 2, where="1", head=MLP),
        Multiclass(2),
        HeadError,
        "one linear",
    ),
    "size": (lambda: model_for(3), Multiclass(2), HeadError, "has 3 outputs; expected 2"),
    "ReLU": (relu_ending, Multiclass(OUTPUTS), HeadError, "is not the model's output"),
    "mae": (lambda: model_for(1), Regression(loss="mae"), ValueError, "corner at zero"),
    "loss": (lambda: model_for(2), nn.CrossEntropyLoss(), TypeError, "expected a task"),
    "class": (lambda: model_for(2), Multiclass, TypeError, "expected a task"),
    "own criterion": (lambda: model_for(1), OwnLoss(), TypeError, "criterion\\(\\) of its own"),
    "several tasks": (
        lambda: model_for(2),
        MultiTask({"a": Binary(), "b": Binary()}),
        TypeError,
        "a MultiTask",
    ),
    "targets": (lambda: model_for(2), Multiclass(2), TargetError, "hold the class 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_such_optimum_is_refused(case):
    """Each is refused with its reason, and neither the model nor the task has changed."""
    build, task, error, message = REFUSED[case]
    model = build()
    task = copy.deepcopy(task)
    before = copy.deepcopy(model.state_dict())
    train, valid = DATA.loaders(Multiclass(OUTPUTS))
    with pytest.raises(error, match=message):
        quietly(model, task, train, valid)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("name", ["fcn_resnet50", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_models_that_answer_at_each_position_are_refused(name):
    """Segmentation and detection are refused by name."""
    with torch.device("meta"), warnings.catch_warnings():
        model = get_model(name, weights=None, weights_backbone=None)
    with pytest.raises(HeadError, match="at each position"):
        quietly(model, Multiclass(2), [])


def test_features_that_are_no_numbers_are_refused():
    """NaN features stop it, and the message says where to look."""
    task = Multiclass(2)
    inputs = torch.randn(8, 10)
    inputs[3, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="features that are NaN"):
        quietly(model_for(task), task, [(inputs, torch.arange(8) % 2)])


def test_features_that_never_vary_are_refused():
    """Constant features tell nothing, which is said."""
    task = Multiclass(2)
    with pytest.raises(ValueError, match="the same for every picture"):
        quietly(model_for(task), task, [(torch.ones(8, 10), torch.arange(8) % 2)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"penalties": []}, "above zero"), ({"penalties": [0.0]}, "above zero"), ({"folds": 1}, "from 2 to 80")],
)
def test_settings_out_of_range_are_refused(settings, message):
    """An impossible path or number of folds is an error that says what is possible."""
    task = Binary()
    with pytest.raises(ValueError, match=message):
        quietly(model_for(task), task, DATA.loaders(task)[0], **settings)
