import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from layerkit.errors import LayerkitWarning, TargetError
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression
from layerkit.training import fit

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 6, generator=GENERATOR)
TARGET = {
    "place": torch.randn(6, 2, generator=GENERATOR),
    "pedestrian": torch.tensor([1, 0, 1, 0, 0, 1]),
    "weather": torch.tensor([0, 1, 2, 2, 1, 0]),
}


def make(**arguments: Any) -> MultiTask:
    parts = {"place": Regression(2, standardize=False), "pedestrian": Binary(), "weather": Multiclass(3)}
    return MultiTask(parts, **arguments)


def part_losses() -> tuple[float, float, float]:
    return (
        nn.MSELoss()(LOGITS[:, :2], TARGET["place"]).item(),
        nn.BCEWithLogitsLoss()(LOGITS[:, 2], TARGET["pedestrian"].float()).item(),
        nn.CrossEntropyLoss()(LOGITS[:, 3:], TARGET["weather"]).item(),
    )


def test_the_outputs_follow_one_another() -> None:
    """One head has the outputs of all parts, and each loss is that of its slice."""
    assert make().out_features == 6
    assert make().loss(LOGITS, TARGET).item() == pytest.approx(sum(part_losses()), rel=1e-6)


def test_fixed_weights_multiply_the_losses() -> None:
    """A dict weighs each part, in whatever order it names them."""
    task = make(loss_weights={"weather": 3.0, "place": 0.5, "pedestrian": 1.0})
    place, pedestrian, weather = part_losses()
    expected = 0.5 * place + pedestrian + 3 * weather
    assert task.loss(LOGITS, TARGET).item() == pytest.approx(expected, rel=1e-6)
    assert not list(task.parameters())


def test_uncertainty_is_the_papers_formula() -> None:
    """exp(-s) L + s/2, for regression half of the first term, and s is learned by gradient."""
    task = make(loss_weights="uncertainty")
    s = torch.tensor([0.4, -0.3, 1.0])
    with torch.no_grad():
        task.log_variances.copy_(s)
    place, pedestrian, weather = part_losses()
    expected = sum(
        factor * math.exp(-v) * loss + v / 2
        for factor, v, loss in zip((0.5, 1, 1), s.tolist(), (place, pedestrian, weather), strict=True)
    )
    loss = task.loss(LOGITS, TARGET)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    gradient = [-0.5 * math.exp(-0.4) * place + 0.5, -math.exp(0.3) * pedestrian + 0.5]
    assert task.log_variances.grad[:2].tolist() == pytest.approx(gradient, rel=1e-5)


def test_answers_are_dicts_of_the_parts() -> None:
    """activate and decide give what each part alone would give for its slice."""
    answers = make().activate(LOGITS)
    assert {name: tuple(part.shape) for name, part in answers.items()} == {
        "place": (6, 2),
        "pedestrian": (6, 1),
        "weather": (6, 3),
    }
    decided = make().decide(LOGITS)
    assert decided["weather"].equal(LOGITS[:, 3:].argmax(1))
    assert decided["pedestrian"].equal((LOGITS[:, 2] > 0).long())


def test_each_parts_loss_and_metrics_are_named_after_it() -> None:
    """They equal what the part alone measures, over several batches, and can be reset."""
    task = make()
    metrics = task.metrics()
    metrics.update(*task.metric_inputs(-LOGITS, task.check(TARGET)))
    metrics.reset()
    for rows in (slice(0, 4), slice(4, 6)):
        batch = {name: part[rows] for name, part in TARGET.items()}
        metrics.update(*task.metric_inputs(LOGITS[rows], task.check(batch)))
    values = metrics.compute()
    assert set(values) == {
        *("place_loss", "place_mae", "place_rmse", "place_r2"),
        *("pedestrian_loss", "pedestrian_accuracy", "pedestrian_auroc", "pedestrian_f1"),
        *("weather_loss", "weather_accuracy", "weather_macro_f1"),
    }
    losses = [values[f"{name}_loss"].item() for name in TARGET]
    assert losses == pytest.approx(part_losses(), rel=1e-5)
    assert values["place_mae"].item() == pytest.approx((LOGITS[:, :2] - TARGET["place"]).abs().mean().item())
    alone = Multiclass(3).metrics()
    alone.update(LOGITS[:, 3:].softmax(1), TARGET["weather"])
    assert values["weather_macro_f1"] == alone.compute()["macro_f1"]


def test_metrics_say_whether_high_is_good() -> None:
    """fit can monitor any of them."""
    directions = {name: metric.higher_is_better for name, metric in make().metrics().items()}
    assert directions["place_loss"] is False
    assert directions["place_mae"] is False
    assert directions["weather_accuracy"] is True


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.zeros(6, 6), r"targets are no dict; expected a dict with place, pedestrian, weather"),
        ({"place": TARGET["place"]}, r"a dict of place; expected"),
        (TARGET | {"weather": TARGET["weather"] + 1}, r"In 'weather': The targets hold the class 3"),
        (TARGET | {"pedestrian": torch.zeros(6, 2)}, r"In 'pedestrian': The targets have the shape \(6, 2\)"),
    ],
)
def test_targets_that_do_not_fit_name_the_part(target: Any, words: str) -> None:
    """A missing or foreign part, and an error within one, is said by its name."""
    with pytest.raises(TargetError, match=words):
        make().check(target)


def test_outputs_that_do_not_fit_are_refused() -> None:
    """Another number of outputs, and parts of another length, never broadcast."""
    with pytest.raises(TargetError, match=r"gives 5 outputs a picture; expected 6"):
        make().loss(LOGITS[:, :5], TARGET)
    with pytest.raises(TargetError, match=r"shape \(6, 1\) and the targets \(1,\)"):
        make().loss(LOGITS, TARGET | {"pedestrian": torch.tensor([1])})


def test_parts_are_prepared_together() -> None:
    """Each learns from its own targets, and the state travels in one state dict."""
    task = MultiTask({"age": Regression(), "sex": Binary(pos_weight="balanced"), "kind": Multiclass(2)})
    assert task.needs_targets
    with pytest.raises(RuntimeError, match="has not seen the training targets"):
        task.loss(torch.zeros(2, 4), {"age": [1.0, 2.0], "sex": [0, 1], "kind": [0, 1]})
    found = task.prepare({"age": [10.0, 30.0, 20.0], "sex": [0, 0, 1], "kind": [0, 1, 1]})
    assert found == (
        "age: targets: mean 20, standard deviation 8.16; sex: weight of the positive class 2 (yes)"
    )
    assert not task.needs_targets
    again = MultiTask({"age": Regression(), "sex": Binary(pos_weight="balanced"), "kind": Multiclass(2)})
    again.load_state_dict(task.state_dict())
    assert not again.needs_targets


def test_constant_logits_follow_one_another() -> None:
    """The best constant answer of all is that of each."""
    task = make()
    together = task.constant_logits(task.check(TARGET))
    assert together.shape == (6,)
    torch.testing.assert_close(together[:2], TARGET["place"].mean(0))


def test_names_of_classes_are_a_dict() -> None:
    """As data.classes is for several targets."""
    assert make().classes == {"place": None, "pedestrian": ["no", "yes"], "weather": ["0", "1", "2"]}


@pytest.mark.parametrize(
    ("parts", "arguments", "error", "words"),
    [
        ({}, {}, TypeError, r"`parts` is \{\}; expected tasks by name"),
        ([Binary()], {}, TypeError, r"expected tasks by name"),
        ({"a": nn.MSELoss()}, {}, TypeError, r"part 'a' is MSELoss\(\); expected one of layerkit's tasks"),
        ({"a": MultiTask({"b": Binary()})}, {}, TypeError, r"no MultiTask within another"),
        ({"a.b": Binary()}, {}, ValueError, r"called 'a\.b'"),
        ({"keys": Binary()}, {}, ValueError, r"called 'keys'.* Rename it"),
        ({"a": Binary()}, {"loss_weights": "uncertain"}, ValueError, r"Did you mean 'uncertainty'\?"),
        ({"a": Binary()}, {"loss_weights": {"b": 1}}, ValueError, r"`loss_weights` names b; .* each of a"),
        ({"a": Binary()}, {"loss_weights": {"a": 0}}, ValueError, r"`loss_weights` is 0; expected"),
    ],
)
def test_bad_arguments_are_refused(
    parts: Any, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Each says what was given, what was expected, and how to mend it."""
    with pytest.raises(error, match=words):
        MultiTask(parts, **arguments)


@pytest.mark.parametrize(
    "task",
    [
        Regression(2, names=["x", "y"], loss="huber"),
        Binary(["cat", "dog"], pos_weight=0.3, threshold=0.7),
        Binary(pos_weight="balanced"),
        Multiclass(["cat", "dog"], class_weight=[0.1, 2.0], label_smoothing=0.1),
        Multiclass(3, class_weight="balanced", ignore_index=255),
        Multilabel(["a", "b"], pos_weight={"a": 1.0, "b": 2.5}),
        MultiTask(
            {"p": Regression(2), "q": Multilabel(2, pos_weight="balanced")}, loss_weights={"p": 2, "q": 1}
        ),
        MultiTask({"p": Regression(), "q": Binary()}, loss_weights="uncertainty"),
    ],
    ids=lambda task: type(task).__name__,
)
def test_settings_rebuild_any_task(task: Any) -> None:
    """After a way through JSON they make a task with the same settings, state and loss."""
    task = copy.deepcopy(task)
    targets = {"Binary": [0, 1, 1], "Multiclass": [0, 1, 2][: len(task.classes or "")] * 2}.get(
        type(task).__name__, torch.tensor([[0, 1], [1, 1], [1, 0]])
    )
    if isinstance(task, MultiTask):
        targets = {"p": torch.randn(3, task.parts["p"].out_features), "q": targets}
        if isinstance(task.parts["q"], Binary):
            targets["q"] = [0, 1, 1]
    task.prepare(targets)
    rebuilt = type(task)(**json.loads(json.dumps(task.settings())))
    rebuilt.load_state_dict(task.state_dict())
    assert rebuilt.settings() == task.settings()
    assert repr(rebuilt) == repr(task)
    size = len(task.check(targets)) if not isinstance(task, MultiTask) else 3
    logits = torch.randn(size, task.out_features)
    assert rebuilt.loss(logits, targets).equal(task.loss(logits, targets))


class Pictures(Dataset[Any]):
    """Vectors in place of pictures, with three targets that can be read off them."""

    def __init__(self) -> None:
        self.inputs = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.inputs[index]
        return x, {"place": 100 * x[:2], "pedestrian": x[2] > 0, "weather": x[3:].argmax()}


@pytest.mark.filterwarnings("ignore:.*was taken for the head")
@pytest.mark.parametrize("frozen_epochs", [0, 2, 6])
def test_fit_learns_all_parts(frozen_epochs: int) -> None:
    """Targets go through both phases, learned weights move, and the history has each part's figures."""
    parts = {"place": Regression(2), "pedestrian": Binary(), "weather": Multiclass(2)}
    task = MultiTask(parts, loss_weights="uncertainty")
    task.prepare({"place": 100 * Pictures().inputs[:, :2], "pedestrian": [0, 1], "weather": [0, 1]})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Linear(16, 5))
    data = DataLoader(Pictures(), batch_size=16)
    run = fit(
        model, task, data, data, epochs=6, frozen_epochs=frozen_epochs, lr=0.01 if frozen_epochs < 6 else None,
        progress=False, device="cpu", monitor="valid_weather_accuracy",
    )  # fmt: skip
    first, last = run.history[0], run.history[-1]
    assert last["train_loss"] < first["train_loss"]
    for name in ("place_loss", "place_mae", "pedestrian_loss", "weather_loss"):
        assert last[f"valid_{name}"] < first[f"valid_{name}"]
    assert task.log_variances.abs().min() > 0


def test_a_preparation_that_fails_changes_no_part():
    """The part that came before the constant one keeps what it had learnt."""
    task = MultiTask({"a": Regression(), "b": Regression()})
    task.prepare({"a": torch.arange(4.0), "b": torch.arange(4.0)})
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with pytest.raises(TargetError, match="in every picture"):
        task.prepare({"a": torch.arange(4.0) * 9, "b": torch.ones(4)})
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_parts_whose_names_look_like_metrics() -> None:
    """A part may be called as another's loss is."""
    for names in (("weight_loss", "weight"), ("weight", "weight_loss")):
        task = MultiTask({name: Regression(standardize=False) for name in names})
        logits, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), {name: torch.zeros(2) for name in names}
        metrics = task.metrics()
        metrics.update(*task.metric_inputs(logits, task.check(target)))
        figures = metrics.compute()
        assert [figures[f"{name}_loss"].item() for name in names] == [0.5, 4.5]
        assert [figures[f"{name}_mae"].item() for name in names] == [0.5, 1.5]


def test_all_parts_targets_are_examined() -> None:
    """The one that is constant is named."""
    task = MultiTask({"a": Regression(names=["age"], standardize=False), "b": Multiclass(["cat", "dog"])})
    with pytest.raises(TargetError, match="'age' is 1 in every"):
        task.examine({"a": torch.ones(3), "b": torch.tensor([0, 1, 1])})
    with pytest.warns(LayerkitWarning, match="hold no 'dog'"):
        task.examine({"a": torch.arange(3.0), "b": torch.tensor([0, 0, 0])})
