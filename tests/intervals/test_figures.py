"""Intervals computed all at once equal those of torchmetrics on one resample after another."""

import math
import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layerkit.errors import rounded
from layerkit.intervals import confidence_intervals, resampled_intervals
from layerkit.intervals.bootstrapping import wilson
from layerkit.intervals.figures import _figures
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression

N = 60


def case(name):
    """Give a prepared task, logits with ties among them, and checked targets."""
    torch.manual_seed(1)
    numbers, whole = torch.randn(N, 2) * 5 + 3, torch.randint(0, 4, (N,))
    task, target = {
        "regression": (Regression(2), numbers),
        "binary": (Binary(threshold=0.4, pos_weight=2.0), whole % 2),
        "multiclass": (Multiclass(5), whole),  # of which the fifth is in no target
        "weighted": (Multiclass(4, class_weight="balanced", label_smoothing=0.1), whole),
        "ignoring": (
            Multiclass(4, ignore_index=9, class_weight=[1.0, 2.0, 3.0, 4.0]),
            whole.where(whole != 3, 9),
        ),
        "multilabel": (Multilabel(3), torch.randint(0, 2, (N, 3))),
        "parts": (MultiTask({"a": Regression(2), "b": Binary()}), {"a": numbers, "b": whole % 2}),
    }[name]
    if task.needs_targets:
        task.prepare(target)
    logits = (torch.randn(N, task.out_features) * 2).round(decimals=1)
    return task, logits, task.check(target)


@pytest.mark.filterwarnings("ignore:No .* samples in targets")
@pytest.mark.parametrize(
    "name", ["regression", "binary", "multiclass", "weighted", "ignoring", "multilabel", "parts"]
)
def test_a_figure_of_counts_is_the_metric_of_the_resample(name):
    """Each figure on a row of counts is what torchmetrics gives for the samples repeated that often."""
    task, logits, target = case(name)
    counts = torch.stack(
        [torch.bincount(torch.randint(0, N, (N,)), minlength=N).float() for _ in range(5)] + [torch.ones(N)]
    )
    figures = {key: figure for key, figure in _figures(task, logits, target).items() if callable(figure)}
    metrics = task.metrics()
    accuracies = {key for key in metrics if "accuracy" in key}
    assert set(figures) | accuracies == set(metrics) | {"loss"}

    for key, figure in figures.items():
        values = figure(counts)
        for row, value in zip(counts, values, strict=True):
            index = torch.arange(N).repeat_interleave(row.long())
            chosen = {k: v[index] for k, v in target.items()} if isinstance(target, dict) else target[index]
            if key == "loss":
                expected = task.loss(logits[index], chosen)
            else:
                metrics.reset()
                metrics.update(*task.metric_inputs(logits[index], chosen))
                expected = metrics[key].compute()
            assert value.item() == pytest.approx(expected.item(), rel=2e-4, abs=1e-5), key


def test_the_interval_of_a_mean_is_the_textbooks():
    """The bootstrap's interval of a mean loss is about 1.96 standard errors to either side."""
    torch.manual_seed(0)
    task, logits, target = (
        Regression(standardize=False, loss="mae"),
        torch.randn(2000, 1),
        torch.zeros(2000, 1),
    )
    losses = logits.abs()
    error = 1.96 * losses.std().item() / math.sqrt(2000)

    low, high = confidence_intervals(task, logits, target)["loss"]

    assert low == pytest.approx(losses.mean().item() - error, abs=0.15 * error)
    assert high == pytest.approx(losses.mean().item() + error, abs=0.15 * error)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 100 data sets about 95 intervals of the AUROC hold its true value."""
    rng = torch.Generator().manual_seed(0)
    truth = 0.5 * (1 + math.erf(1.5 / 2))  # of two normal distributions 1.5 apart
    held = 0
    for _ in range(100):
        target = (torch.arange(120) % 2).float()
        logits = torch.randn(120, 1, generator=rng) + 1.5 * target[:, None]
        low, high = confidence_intervals(Binary(), logits, target)["auroc"]
        held += low <= truth <= high
    assert 88 <= held <= 100


def test_wilson_by_the_textbook():
    """8 of 10 is 0.490 to 0.943 (Brown, Cai and DasGupta 2001), and nothing leaves 0 to 1."""
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=5e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


def test_the_same_every_time_and_no_trace():
    """The seed is fixed, and neither torch's nor NumPy's global state moves; nor does the task."""
    task, logits, target = case("binary")
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (confidence_intervals(task, logits, target) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_what_cannot_be_computed_is_left_out():
    """One sample, pixels, and a loss that is no mean have no interval."""
    task = Multiclass(2)
    assert confidence_intervals(task, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)) == {}
    assert confidence_intervals(task, torch.zeros(4, 2, 3, 3), torch.zeros(4, 3, 3, dtype=torch.int64)) == {}

    class Elementwise(Regression):
        def criterion(self, logits, target):
            return F.mse_loss(logits, target, reduction="none")

    found = confidence_intervals(Elementwise(standardize=False), torch.randn(9, 1), torch.randn(9, 1))
    assert set(found) == {"mae", "rmse", "r2"}


def test_any_metric_can_be_resampled():
    """The percentiles of a metric of the user's own lie around its value; a loss comes with it."""
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassRecall

    task, logits, target = case("multiclass")
    metrics = MetricCollection({"recall": MulticlassRecall(5)})
    metrics.update(*task.metric_inputs(logits, target))
    value = metrics.compute()["recall"].item()

    found = resampled_intervals(task, metrics, logits, target)

    assert set(found) == {"loss", "recall"}
    assert found["recall"][0] < value < found["recall"][1]


@pytest.mark.slow
def test_ten_thousand_samples_take_no_time():
    """A thousand resamples of ten thousand samples are drawn and measured in a few seconds at most."""
    torch.manual_seed(0)
    started = time.perf_counter()
    confidence_intervals(Binary(), torch.randn(10_000, 1), torch.randint(0, 2, (10_000,)).float())
    assert time.perf_counter() - started < 5


def test_a_label_that_no_picture_has_counts_neither_in_the_interval_nor_in_the_figure():
    """Those of the two labels that occur, with one mistake, are the same without it."""
    task, target = Multilabel(3), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(10, 1)
    logits = target * 20 - 10
    logits[0] = -logits[0]
    metrics = task.metrics()
    metrics.update(*task.metric_inputs(logits, target))
    low, high = confidence_intervals(task, logits, target)["average_precision"]
    assert low < metrics.compute()["average_precision"] < high
    without = confidence_intervals(Multilabel(2), logits[:, :2], target[:, :2])
    assert (low, high) == pytest.approx(without["average_precision"])


@pytest.mark.parametrize("task", [Multiclass(2), Binary(), Multilabel(2)])
def test_right_answers_alone_have_an_interval_only_where_it_tells_something(task):
    """Resampling them tells nothing, so that 1 has no interval from 1 to 1; Wilson's for the accuracy does."""
    yes = torch.tensor([0, 1]).repeat(10)
    target = torch.stack([yes, 1 - yes], 1).float() if isinstance(task, Multilabel) else task.check(yes)
    logits = (
        torch.stack([1 - yes, yes], 1) if isinstance(task, Multiclass) else target.view(20, -1)
    ) * 20 - 10
    intervals = confidence_intervals(task, logits + torch.linspace(0, 1, 20).unsqueeze(1), target)
    assert set(intervals) <= {"loss", "accuracy"}
    if "accuracy" in intervals:
        assert intervals["accuracy"] == pytest.approx((0.8389, 1), abs=1e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.1235"),
        (12345.6, "12346"),
        (-999999.4, "-999999"),
        (1.5e7, "1.5e+07"),
        (1e-9, "1e-09"),
        (3.0, "3"),
    ],
)
def test_numbers_are_written_as_people_write_them(value, text):
    """With an exponent only where there would be many zeros."""
    assert rounded(value) == text
