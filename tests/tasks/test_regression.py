import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from layerkit.errors import TargetError
from layerkit.tasks import Regression

TRAINING = torch.tensor([[1.0, 100.0], [2.0, -300.0], [6.0, 500.0]])
LOGITS = torch.tensor([[0.5, -2.0], [1.5, 0.1], [-0.2, 0.3]])


def by_hand(loss: str) -> float:
    training = TRAINING.double().numpy()
    error = LOGITS.double().numpy() - (training - training.mean(0)) / training.std(0)
    return float(
        {
            "mse": error**2,
            "mae": np.abs(error),
            "huber": np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5),
        }[loss].mean()
    )


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_loss_is_in_units_of_the_training_targets_standard_deviation(loss: str) -> None:
    """Each target counts alike, whatever its unit."""
    task = Regression(2, loss=loss)  # type: ignore[arg-type]
    assert task.prepare(TRAINING) == "targets: mean 3, 100, standard deviation 2.16, 327"
    assert task.loss(LOGITS, TRAINING).item() == pytest.approx(by_hand(loss), rel=1e-6)


def test_answers_are_in_the_users_units() -> None:
    """activate undoes the standardization, and decide gives the same."""
    task = Regression(2)
    task.prepare(TRAINING)
    standardized = (TRAINING - TRAINING.mean(0)) / TRAINING.std(0, correction=0)
    torch.testing.assert_close(task.activate(standardized), TRAINING)
    torch.testing.assert_close(task.decide(standardized), TRAINING)


def test_without_standardization_nothing_is_learned() -> None:
    """The loss is then in the user's units, at once."""
    task = Regression(standardize=False)
    assert not task.needs_targets
    assert task.prepare([5.0, 5.0]) is None
    assert task.loss(torch.tensor([[1.0]]), torch.tensor([4.0])).item() == 9.0


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("outputs", [(3,), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_nothing_broadcasts(shape: tuple[int, ...], outputs: tuple[int, ...], dtype: torch.dtype) -> None:
    """(N,) and (N, 1) give the loss of N pairs and never of N x N."""
    task = Regression(standardize=False)
    target = torch.tensor([1, 2, 3], dtype=dtype).reshape(shape)
    assert task.loss(torch.tensor([1.0, 2.0, 4.0]).reshape(outputs), target).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("num_targets", "target", "words"),
    [
        (2, torch.zeros(4), r"shape \(4,\); expected \(N, 2\) for Regression"),
        (1, torch.zeros(4, 2), r"shape \(4, 2\); expected \(N, 1\) or \(N,\)"),
        (1, torch.tensor([1.0, torch.nan]), r"sample 1 in the batch is \[nan\]"),
        (2, torch.tensor([[1.0, 2.0], [torch.inf, 0.0]]), r"sample 1 in the batch is \[inf, 0\.0\]"),
        (1, torch.tensor([0.0, 1e300], dtype=torch.float64), r"finite numbers that fit float32"),
        (1, ("far", "near"), r"are words \(far, near\); expected numbers .* float\(word\)"),
    ],
)
def test_targets_that_are_no_such_numbers_are_refused(num_targets: int, target: object, words: str) -> None:
    """Another number of columns, NaN and infinity say so, with the sample."""
    with pytest.raises(TargetError, match=words):
        Regression(num_targets).check(target)


def test_numbers_whose_sum_overflows_are_finite_all_the_same() -> None:
    """The quick look at the sum is followed by a proper one."""
    assert Regression().check(torch.tensor([3e38, 3e38])).shape == (2, 1)


def test_outputs_that_do_not_fit_are_refused() -> None:
    """Another number of outputs or samples never broadcasts."""
    task = Regression(standardize=False)
    with pytest.raises(TargetError, match=r"gives 3 outputs a picture; expected 1"):
        task.loss(torch.zeros(3, 3), torch.zeros(3))
    with pytest.raises(TargetError, match=r"shape \(1, 1\) and the targets \(3, 1\)"):
        task.loss(torch.zeros(1, 1), torch.zeros(3))


@pytest.mark.parametrize("value", [0.1, 0.0, -3e7])
def test_a_constant_column_is_named(value: float) -> None:
    """Nothing can be learnt from a constant, which would divide by zero."""
    targets = torch.stack([torch.arange(7.0), torch.full((7,), value)], dim=1)
    with pytest.raises(TargetError, match=r"training target 'y' is .* in every picture"):
        Regression(2, names=["x", "y"]).prepare(targets)
    with pytest.raises(TargetError, match=r"training target number 1 is"):
        Regression(2).prepare(targets)


def test_a_spread_that_float32_cannot_hold_counts_as_constant() -> None:
    """Of values around a million only sixteenths are left."""
    with pytest.raises(TargetError, match=r"subtract a large offset"):
        Regression().prepare(1e6 + torch.arange(10, dtype=torch.float64) / 10)


def test_a_loss_before_the_targets_were_seen_is_an_error() -> None:
    """Mean and standard deviation come from prepare(), or with a state dict."""
    task = Regression()
    with pytest.raises(RuntimeError, match=r"expected task\.prepare\(targets\)"):
        task.loss(torch.zeros(2, 1), torch.zeros(2))
    task.prepare([1.0, 2.0])
    loaded = Regression()
    assert loaded.needs_targets
    loaded.load_state_dict(task.state_dict())
    assert loaded.loss(torch.zeros(1, 1), torch.tensor([1.5])).item() == 0


@pytest.mark.parametrize("num_targets", [1, 2])
def test_metrics_equal_scikit_learns_in_the_users_units(num_targets: int) -> None:
    """mae, rmse and r2 over several batches are those of all samples at once."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, num_targets, generator=generator)
    target = 50 + 20 * torch.randn(30, num_targets, generator=generator)
    task = Regression(num_targets)
    task.prepare(target)
    metrics = task.metrics()
    for part in range(0, 30, 8):
        metrics.update(*task.metric_inputs(logits[part : part + 8], task.check(target[part : part + 8])))
    answers = task.activate(logits)
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "mae": pytest.approx(mean_absolute_error(target, answers), rel=1e-5),
        "rmse": pytest.approx(mean_squared_error(target, answers) ** 0.5, rel=1e-5),
        "r2": pytest.approx(r2_score(target, answers), rel=1e-4),
    }


def test_metrics_take_outputs_without_a_column() -> None:
    """A model that gives (N,) is measured like one that gives (N, 1)."""
    task = Regression(standardize=False)
    answers, targets = task.metric_inputs(torch.tensor([1.0, 2.0]), task.check([1.0, 3.0]))
    assert answers.shape == targets.shape == (2,)


@pytest.mark.parametrize(("loss", "statistic"), [("mse", np.mean), ("mae", np.median)])
def test_the_best_constant_answer_is_the_mean_or_the_median(loss: str, statistic: object) -> None:
    """The constant logits stand for it in standardized units."""
    task, targets = Regression(loss=loss), torch.tensor([1.0, 2.0, 9.0])  # type: ignore[arg-type]
    task.prepare(targets)
    answer = task.activate(task.constant_logits(task.check(targets)))
    assert answer.tolist() == [pytest.approx(statistic(targets.numpy()), rel=1e-5)]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_targets": 0}, r"`num_targets` is 0; expected a whole number of at least 1"),
        ({"num_targets": True}, r"`num_targets` is True"),
        ({"num_targets": ["x", "y"]}, r"Names go to names="),
        ({"loss": "hubr"}, r"Did you mean 'huber'\?"),
        ({"num_targets": 2, "names": ["x"]}, r"expected a list of 2"),
        ({"num_targets": 2, "names": "xy"}, r"`names` is 'xy'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], words: str) -> None:
    """Each says what was given, what was expected, and how to mend it."""
    with pytest.raises(ValueError, match=words):
        Regression(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("standardize", [True, False])
def test_a_constant_column_is_refused_however_it_is_learnt(standardize: bool) -> None:
    """Neither way is there anything to learn from it."""
    task = Regression(2, names=["age", "weight"], standardize=standardize)
    with pytest.raises(TargetError, match="'weight' is 3 in every picture"):
        task.examine(torch.tensor([[1.0, 3.0], [2.0, 3.0]]))
    task.examine(torch.tensor([[1.0, 3.0], [2.0, 4.0]]))


def test_what_is_no_target_at_all() -> None:
    """Complex numbers and empty batches have no loss."""
    task = Regression(standardize=False)
    with pytest.raises(TargetError, match="complex numbers"):
        task.check(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TargetError, match="batch is empty"):
        task.loss(torch.zeros(0, 1), torch.zeros(0))
