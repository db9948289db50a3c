from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from layerkit.errors import TargetError
from layerkit.tasks import Multilabel

LOGITS = torch.tensor([[2.0, -1.0, 0.0], [-3.0, 1.0, 1.0]])
TARGET = torch.tensor([[1, 0, 1], [0, 0, 1]])


@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [3.0, 0.5, 2.0]])
def test_loss_is_the_binary_cross_entropy_of_every_label(weight: list[float]) -> None:
    """It is averaged over pictures and labels, each label's positives by their weight."""
    p, y = 1 / (1 + np.exp(-LOGITS.double().numpy())), TARGET.numpy()
    expected = -(np.array(weight) * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert Multilabel(3, pos_weight=weight).loss(LOGITS, TARGET).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_rows_of_any_dtype_are_taken(dtype: torch.dtype) -> None:
    """bool, integers and floats of 0 and 1 say the same."""
    torch.testing.assert_close(Multilabel(3).check(TARGET.to(dtype)), TARGET.float())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([0, 2]), r"shape \(2,\).* For one class index a picture, use Multiclass\(\)"),
        (torch.zeros(2, 4), r"shape \(2, 4\); expected .* \(N, 3\)"),
        (torch.tensor([[0, 1, 2]]), r"hold 2; expected 0 for no and 1 for yes"),
        (torch.tensor([[0, 1, torch.nan]]), r"hold nan"),
    ],
)
def test_targets_that_are_no_labels_are_refused(target: torch.Tensor, words: str) -> None:
    """Class indices, other shapes and values outside 0..1 say so."""
    with pytest.raises(TargetError, match=words):
        Multilabel(3).check(target)


def test_outputs_that_do_not_fit_are_refused() -> None:
    """Another number of outputs never broadcasts."""
    with pytest.raises(TargetError, match=r"gives 1 outputs a picture; expected 3"):
        Multilabel(3).loss(torch.zeros(2, 1), TARGET)
    with pytest.raises(TargetError, match=r"shape \(1, 3\) and the targets \(2, 3\)"):
        Multilabel(3).loss(torch.zeros(1, 3), TARGET)


def test_balanced_weights_are_negatives_by_positives() -> None:
    """Each label has its own, and one that always or never applies is named."""
    task = Multilabel(["dog", "snow"], pos_weight="balanced")
    assert task.prepare([[1, 0], [0, 0], [0, 0], [0, 1], [1, 0]]) == (
        "weights of the positives 1.5 (dog) to 4 (snow)"
    )
    assert task.pos_weight.tolist() == pytest.approx([1.5, 4.0])
    with pytest.raises(TargetError, match=r"None of the training targets are 'snow'"):
        task.prepare([[1, 0], [0, 0]])


def test_answers_are_a_row_of_labels() -> None:
    """activate gives probabilities and decide 0 or 1, both (N, C)."""
    task = Multilabel(3, threshold=0.6)
    torch.testing.assert_close(task.activate(LOGITS), torch.sigmoid(LOGITS))
    assert task.decide(LOGITS).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_metrics_equal_scikit_learns() -> None:
    """macro_f1 at the threshold and average_precision are averaged over labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 3, generator=generator)
    target = torch.randint(0, 2, (60, 3), generator=generator)
    task = Multilabel(3, threshold=0.6)
    metrics = task.metrics()
    for part in range(0, 60, 16):
        metrics.update(*task.metric_inputs(logits[part : part + 16], task.check(target[part : part + 16])))
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "macro_f1": pytest.approx(f1_score(target, task.decide(logits), average="macro")),
        "average_precision": pytest.approx(average_precision_score(target, logits, average="macro")),
    }


def test_no_other_constant_beats_the_constant_logits() -> None:
    """At the constant logits the gradient of the loss is zero."""
    task, target = Multilabel(2, pos_weight=[1.0, 6.0]), torch.tensor([[1, 0], [1, 0], [0, 1]])
    logits = task.constant_logits(task.check(target)).requires_grad_()
    task.loss(logits.expand(3, 2), target).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(2), atol=1e-6, rtol=0)


def test_labels_that_are_nowhere_are_left_out_of_averages() -> None:
    """The figures are those of the labels that are there, by torchmetrics; of none, they are not numbers."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=generator)
    target = torch.randint(0, 2, (40, 4), generator=generator)
    logits[:, 1], target[:, 1] = -5.0, 0
    target[:, 3] = 0  # answered, though: a false alarm has an F1 of 0
    metrics = Multilabel(4).metrics()
    metrics.update(*Multilabel(4).metric_inputs(logits, target))
    values = metrics.compute()
    scores = logits.sigmoid()
    f1 = multilabel_f1_score(scores[:, [0, 2, 3]], target[:, [0, 2, 3]], 3)
    precision = multilabel_average_precision(scores[:, [0, 2]], target[:, [0, 2]], 2)
    torch.testing.assert_close(values, {"macro_f1": f1, "average_precision": precision})
    metrics.reset()
    metrics.update(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64))
    assert all(value.isnan() for value in metrics.compute().values())
    assert Multilabel(["a", "b", "c", "d"]).absent(target) == ["'b'", "'d'"]


@pytest.mark.parametrize("threshold", [{"a": 0.2}, [0.2, 0.5], "half"])
def test_there_is_one_threshold_for_all_labels(threshold: Any) -> None:
    """Said as such, not by what Python compares."""
    with pytest.raises(ValueError, match="expected a probability between 0 and 1, one for all labels"):
        Multilabel(2, threshold=threshold)
