import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from layerkit.errors import TargetError
from layerkit.tasks import Binary

LOGITS = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
TARGET = torch.tensor([1, 1, 0, 0])


def by_hand(logits: torch.Tensor, target: torch.Tensor, weight: float = 1.0) -> float:
    p = 1 / (1 + np.exp(-logits.double().numpy().ravel()))
    y = target.double().numpy().ravel()
    return float(-(weight * y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


@pytest.mark.parametrize("weight", [None, 3.0])
def test_loss_is_the_binary_cross_entropy(weight: float | None) -> None:
    """The loss is the mean over pictures, with positives weighted."""
    loss = Binary(pos_weight=weight).loss(LOGITS, TARGET)
    assert loss.item() == pytest.approx(by_hand(LOGITS, TARGET, weight or 1.0), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("outputs", [(4,), (4, 1)])
def test_nothing_broadcasts(dtype: torch.dtype, shape: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    """(N,) and (N, 1), of any dtype, give the loss of N pairs and never of N x N."""
    loss = Binary().loss(LOGITS.reshape(outputs), TARGET.to(dtype).reshape(shape))
    assert loss.item() == pytest.approx(by_hand(LOGITS, TARGET), rel=1e-6)


def test_probabilities_are_targets_too() -> None:
    """Mixed targets between 0 and 1 weigh both losses."""
    target = torch.tensor([0.3, 0.3, 1.0, 0.0])
    assert Binary().loss(LOGITS, target).item() == pytest.approx(by_hand(LOGITS, target), rel=1e-6)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([1, 2]), r"hold 2; expected 0 for no and 1 for yes"),
        (torch.tensor([-1, 1]), r"hold -1"),
        (torch.tensor([0.0, torch.nan]), r"hold nan"),
        (torch.zeros(4, 2), r"shape \(4, 2\).* For several labels a picture, use Multilabel\(\)"),
    ],
)
def test_targets_that_are_no_yes_or_no_are_refused(target: torch.Tensor, words: str) -> None:
    """Values outside 0..1 and several columns say so."""
    with pytest.raises(TargetError, match=words):
        Binary().check(target)


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (torch.zeros(4, 2), r"gives 2 outputs a picture; expected 1"),
        (torch.zeros(5, 1), r"shape \(5, 1\) and the targets \(4,\)"),
        (torch.zeros(4, 1, 6, 6), r"shape \(4, 1, 6, 6\) and the targets \(4,\)"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(logits: torch.Tensor, words: str) -> None:
    """Another number of outputs or samples never broadcasts."""
    with pytest.raises(TargetError, match=words):
        Binary().loss(logits, TARGET)


def test_pixels_are_compared_one_by_one() -> None:
    """Segmentation takes masks (N, H, W) or (N, 1, H, W)."""
    logits = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 2, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    for target in (mask, mask.unsqueeze(1)):
        assert Binary().loss(logits, target).item() == pytest.approx(by_hand(logits, mask), rel=1e-6)
    assert Binary().decide(logits).shape == (2, 3, 3)


def test_answers_keep_the_shapes_that_are_promised() -> None:
    """activate gives the logits' shape, decide one index a picture, positive above the threshold."""
    task = Binary(threshold=0.8)
    assert task.activate(LOGITS).shape == (4, 1)
    assert task.decide(LOGITS).tolist() == [1, 0, 0, 0]
    assert Binary().decide(torch.zeros(1, 1)).tolist() == [0]  # as the metrics count it


def test_metrics_equal_scikit_learns() -> None:
    """accuracy and f1 are at the threshold, and decide agrees with them."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(60, 1, generator=generator), torch.randint(0, 2, (60,), generator=generator)
    task = Binary(threshold=0.6)
    metrics = task.metrics()
    for part in range(0, 60, 16):
        metrics.update(*task.metric_inputs(logits[part : part + 16], task.check(target[part : part + 16])))
    answers = task.decide(logits)
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "accuracy": pytest.approx(accuracy_score(target, answers)),
        "auroc": pytest.approx(roc_auc_score(target, logits[:, 0])),
        "f1": pytest.approx(f1_score(target, answers)),
    }


def test_balanced_weight_is_negatives_by_positives() -> None:
    """'balanced' makes both classes count alike."""
    task = Binary(["cat", "dog"], pos_weight="balanced")
    assert task.needs_targets
    assert task.prepare([0, 0, 0, 1]) == "weight of the positive class 3 (dog)"
    assert task.pos_weight.tolist() == [3.0]
    assert not task.needs_targets


@pytest.mark.parametrize(("targets", "words"), [([1, 1], "All of .* 'dog'"), ([0, 0], "None of .* 'dog'")])
def test_balanced_weight_needs_both_classes(targets: list[int], words: str) -> None:
    """A class without pictures has no weight."""
    with pytest.raises(TargetError, match=words):
        Binary(["cat", "dog"], pos_weight="balanced").prepare(targets)


@pytest.mark.parametrize("weight", [None, 4.0])
def test_no_other_constant_beats_the_constant_logits(weight: float | None) -> None:
    """At the constant logit the gradient of the loss is zero."""
    task, target = Binary(pos_weight=weight), torch.tensor([0, 0, 0, 1])
    logits = task.constant_logits(task.check(target)).requires_grad_()
    assert logits.shape == (1,)
    task.loss(logits.expand(4, 1), target).backward()
    assert logits.grad.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": ["a", "b", "c"]}, r"has 3 names; expected two .* use Multiclass\(classes\)"),
        ({"threshold": 1.0}, r"`threshold` is 1\.0; expected a probability between 0 and 1"),
        ({"threshold": 50}, r"`threshold` is 50"),
        ({"pos_weight": 0}, r"`pos_weight` is 0; expected 1 finite numbers above zero"),
        ({"pos_weight": torch.nan}, r"`pos_weight` is nan"),
        ({"pos_weight": "balance"}, r"Did you mean 'balanced'\?"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], words: str) -> None:
    """Each says what was given, what was expected, and how to mend it."""
    with pytest.raises(ValueError, match=words):
        Binary(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("positive", [0, 1])
def test_what_one_class_alone_cannot_tell_is_not_a_number(positive: int) -> None:
    """An area under a curve that has no ends, and an F1 of positives that are neither there nor answered."""
    task = Binary()
    target = torch.full((4,), positive)
    metrics = task.metrics()
    metrics.update(*task.metric_inputs(target.float().unsqueeze(1) * 10 - 5, target))
    values = metrics.compute()
    assert values["accuracy"] == 1
    assert values["auroc"].isnan()
    assert values["f1"].isnan() if positive == 0 else values["f1"] == 1
    assert task.absent(target) == [("'yes'", "'no'")[positive]]
