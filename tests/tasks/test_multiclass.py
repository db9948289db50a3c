from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import CrossEntropyLoss

from layerkit.errors import TargetError
from layerkit.tasks import Multiclass

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 1.0, 1.0], [0.0, 4.0, -2.0]])
TARGET = torch.tensor([0, 2, 1, 1])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_loss_is_the_mean_negative_log_probability_of_the_right_class() -> None:
    """Without options the loss is the plain cross-entropy."""
    expected = -log_softmax(LOGITS.double().numpy())[range(4), TARGET].mean()
    assert Multiclass(3).loss(LOGITS, TARGET).item() == pytest.approx(expected, rel=1e-6)


def test_half_precision_outputs_are_compared_in_float32() -> None:
    """A loss in bfloat16 would have two or three digits."""
    logits = LOGITS.bfloat16()
    assert Multiclass(3).loss(logits, TARGET).equal(Multiclass(3).loss(logits.float(), TARGET))


def test_class_weights_and_smoothing_are_those_of_the_formula() -> None:
    """Weights count each sample by its class, and smoothing spreads its share over all classes."""
    weight, smoothing = np.array([1.0, 2.0, 4.0]), 0.1
    logs = log_softmax(LOGITS.double().numpy())
    hard = -(weight[TARGET] * logs[range(4), TARGET]).sum()
    spread = -(weight * logs).sum() / 3
    expected = ((1 - smoothing) * hard + smoothing * spread) / weight[TARGET].sum()
    task = Multiclass(3, class_weight=weight.tolist(), label_smoothing=smoothing)
    assert task.loss(LOGITS, TARGET).item() == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_equal_scikit_learns() -> None:
    """'balanced' is scikit-learn's formula on the training targets."""
    targets = torch.tensor([0] * 7 + [1] * 2 + [2])
    task = Multiclass(["cat", "dog", "owl"], class_weight="balanced")
    assert task.prepare(targets) == "class weights 0.476 (cat) to 3.33 (owl)"
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy())
    np.testing.assert_allclose(task.class_weight, expected, rtol=1e-6)


def test_class_weights_by_name_follow_the_order_of_the_classes() -> None:
    """A dict of weights is put into the classes' order, whatever its own."""
    task = Multiclass(["cat", "dog"], class_weight={"dog": 3.0, "cat": 1.0})
    assert task.class_weight.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.uint16,
        torch.int32,
        torch.uint32,
        torch.int64,
        torch.uint64,
        torch.float16,
        torch.float32,
        torch.float64,
    ],
)
def test_whole_numbers_of_any_dtype_are_class_indices(dtype: torch.dtype) -> None:
    """Where the values leave no doubt, the dtype does not matter."""
    checked = Multiclass(3).check(TARGET.to(dtype))
    assert checked.dtype == torch.int64
    assert checked.tolist() == [0, 2, 1, 1]


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_column_of_indices_is_taken_as_a_row(shape: tuple[int, ...]) -> None:
    """(N, 1) says the same as (N,)."""
    assert Multiclass(3).check(TARGET.reshape(shape)).shape == (4,)


def test_lists_and_bools_are_taken() -> None:
    """A plain list and, of two classes, a bool are class indices."""
    assert Multiclass(2).check([1, 0]).tolist() == [1, 0]
    assert Multiclass(2).check(torch.tensor([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([1, 2, 3]), r"hold the class 3; expected 0 to 2 .* subtract 1"),
        (torch.tensor([-1, 0]), r"hold the class -1; expected 0 to 2"),
        (torch.tensor([255, 0]), r"hold the class 255; .* if it marks what has no class, pass ignore_index"),
        (torch.tensor([0.0, 1.5]), r"hold 1\.5, which is no class index"),
        (torch.tensor([0.0, torch.nan]), r"hold the class nan"),
        (torch.tensor([0.0, torch.inf]), r"hold the class inf"),
        (torch.eye(3, dtype=torch.int64), r"shape \(3, 3\).* one-hot rows, pass target\.argmax\(1\)"),
        (torch.tensor([[0.7, 0.1, 0.1]]), r"row of the targets sums to 0\.9"),
        (torch.tensor([[1.5, -0.5, 0.0]]), r"hold -0\.5"),
        (torch.tensor([[0.5, 0.5]]), r"shape \(1, 2\); expected class indices \(N,\)"),
        (torch.tensor(1), r"shape \(\)"),
        (["cat", "dog"], r"are words \(cat, dog\); .* classes\.index\(word\)"),
        ([[0], [1, 2]], r"are a list that is no tensor"),
        ({"a": torch.tensor([1])}, r"a dict of targets needs MultiTask"),
        (None, r"are a NoneType that is no tensor"),
    ],
)
def test_targets_that_cannot_be_classes_are_refused(target: object, words: str) -> None:
    """Whatever is no class index says so, with the value and the remedy."""
    with pytest.raises(TargetError, match=words):
        Multiclass(3).check(target)


def test_targets_on_an_accelerator_are_not_looked_at() -> None:
    """The meta device stands for any from which a value cannot be had without waiting."""
    target = torch.empty(4, device="meta")
    assert Multiclass(3).check(target).dtype == torch.int64


def test_mixed_targets_give_the_mixed_loss() -> None:
    """Probabilities as mixup makes them weigh the losses of their classes."""
    one, other = torch.tensor([0, 2, 1, 1]), torch.tensor([1, 0, 0, 2])
    mixed = 0.3 * torch.eye(3)[one] + 0.7 * torch.eye(3)[other]
    task = Multiclass(3)
    expected = 0.3 * task.loss(LOGITS, one) + 0.7 * task.loss(LOGITS, other)
    torch.testing.assert_close(task.loss(LOGITS, mixed.double()), expected)


def test_pixels_are_classified_one_by_one() -> None:
    """Segmentation is the same loss over all pixels; masks (N, 1, H, W) are taken too."""
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    task = Multiclass(3)
    flat = task.loss(logits.permute(0, 2, 3, 1).reshape(-1, 3), mask.reshape(-1))
    torch.testing.assert_close(task.loss(logits, mask), flat)
    torch.testing.assert_close(task.loss(logits, mask.unsqueeze(1)), flat)
    assert task.decide(logits).shape == (2, 4, 5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.1]])
@pytest.mark.parametrize("shape", [(6,), (2, 4, 5)])
def test_what_has_no_class_counts_nowhere(
    shape: tuple[int, ...], weight: list[float] | None, smoothing: float
) -> None:
    """Loss, metrics and counts are those of the other targets alone."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape[0], 3, *shape[1:], generator=generator)
    target = torch.randint(0, 3, shape, generator=generator)
    target[0] = 255
    task = Multiclass(3, class_weight=weight, label_smoothing=smoothing, ignore_index=255)
    plain = Multiclass(3, class_weight=weight, label_smoothing=smoothing)

    torch.testing.assert_close(task.loss(logits, target.to(torch.uint8)), plain.loss(logits[1:], target[1:]))
    metrics, expected = task.metrics(), plain.metrics()
    metrics.update(*task.metric_inputs(logits, task.check(target)))
    expected.update(*plain.metric_inputs(logits[1:], plain.check(target[1:])))
    assert metrics.compute() == expected.compute()
    torch.testing.assert_close(task.constant_logits(target), plain.constant_logits(target[1:]))


def test_a_batch_in_which_nothing_has_a_class_teaches_nothing() -> None:
    """torch's own mean would be NaN, and every weight with it."""
    logits = LOGITS.clone().requires_grad_()
    loss = Multiclass(3, ignore_index=-100).loss(logits, torch.full((4,), -100))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.equal(torch.zeros(4, 3))


def test_the_index_without_a_class_is_among_the_settings() -> None:
    """A task that is saved and rebuilt leaves out what it left out before."""
    rebuilt = Multiclass(**Multiclass(3, ignore_index=255).settings())
    assert rebuilt.check([0, 255]).tolist() == [0, 255]


def test_balanced_weights_leave_out_what_has_no_class() -> None:
    """Pixels without a class are no part of the counts."""
    task = Multiclass(2, class_weight="balanced", ignore_index=255)
    task.prepare([0, 0, 0, 1, 255, 255])
    assert task.class_weight.tolist() == pytest.approx([4 / 6, 4 / 2])


@pytest.mark.parametrize("weight", [None, [1.0, 5.0, 0.5]])
def test_class_weights_count_in_mixed_targets_as_in_torch(weight: list[float] | None) -> None:
    """Each class's share of a target counts by its weight, and the mean is over samples."""
    mixed = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
    task = Multiclass(3, class_weight=weight)
    shares = (mixed if weight is None else mixed * torch.tensor(weight)).double().numpy()
    expected = -(shares * log_softmax(LOGITS.double().numpy())).sum() / 4
    assert task.loss(LOGITS, mixed).item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(task.loss(LOGITS, mixed), CrossEntropyLoss(task.class_weight)(LOGITS, mixed))


@pytest.mark.parametrize(
    ("logits", "target", "words"),
    [
        (torch.zeros(4, 1000), TARGET, r"gives 1000 outputs .*; expected 3 .*replace_head\(model, task\)"),
        (torch.zeros(3, 3), TARGET, r"shape \(3, 3\) and the targets \(4,\)"),
        (torch.zeros(4, 3, 8, 8), TARGET, r"shape \(4, 3, 8, 8\) and the targets \(4,\)"),
        (torch.zeros(4), TARGET, r"gives 1 outputs a picture; expected 3"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(logits: torch.Tensor, target: torch.Tensor, words: str) -> None:
    """Another number of outputs or samples never broadcasts."""
    with pytest.raises(TargetError, match=words):
        Multiclass(3).loss(logits, target)


def test_answers_are_probabilities_and_the_likeliest_class() -> None:
    """activate keeps the logits' shape, decide gives one index a picture."""
    task = Multiclass(3)
    expected = np.exp(log_softmax(LOGITS.numpy()))
    np.testing.assert_allclose(task.activate(LOGITS), expected, rtol=1e-5)
    assert task.decide(LOGITS).tolist() == [0, 2, 1, 1]


def test_metrics_equal_scikit_learns() -> None:
    """accuracy and macro_f1 over several batches are those of all samples at once."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(60, 4, generator=generator), torch.randint(0, 4, (60,), generator=generator)
    task = Multiclass(4)
    metrics = task.metrics()
    for part in range(0, 60, 16):
        metrics.update(*task.metric_inputs(logits[part : part + 16], task.check(target[part : part + 16])))
    values = {name: value.item() for name, value in metrics.compute().items()}
    answers = logits.argmax(1)
    assert values == {
        "accuracy": pytest.approx(accuracy_score(target, answers)),
        "macro_f1": pytest.approx(f1_score(target, answers, average="macro")),
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, [1.0, 5.0, 0.5]])
@pytest.mark.parametrize("soft", [False, True])
def test_no_other_constant_beats_the_constant_logits(
    smoothing: float, weight: list[float] | None, soft: bool
) -> None:
    """At the constant logits the gradient of the loss is zero, and the loss is convex."""
    task = Multiclass(3, class_weight=weight, label_smoothing=smoothing)
    target = torch.tensor([0] * 5 + [1] * 2 + [2] * 3)
    if soft:
        target = 0.8 * torch.eye(3)[target] + 0.2 / 3
    logits = task.constant_logits(task.check(target)).requires_grad_()
    task.loss(logits.expand(10, 3), target).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3), atol=1e-6, rtol=0)


def test_balanced_weights_must_be_computed_first() -> None:
    """A loss before prepare() is an error; after it, or with its state loaded, it is not."""
    task = Multiclass(2, class_weight="balanced")
    assert task.needs_targets
    with pytest.raises(RuntimeError, match=r"expected task\.prepare\(targets\) before the first loss"):
        task.loss(torch.zeros(2, 2), torch.tensor([0, 1]))
    task.prepare([0, 0, 1])
    assert not task.needs_targets
    loaded = Multiclass(2, class_weight="balanced")
    loaded.load_state_dict(task.state_dict())
    assert not loaded.needs_targets
    assert Multiclass(2).prepare([0, 0]) is None


def test_balanced_weights_need_every_class() -> None:
    """A class without a training picture is named."""
    with pytest.raises(TargetError, match=r"hold no owl; expected every class"):
        Multiclass(["cat", "owl"], class_weight="balanced").prepare([0, 0])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"classes": ["cat"]}, ValueError, r"expected at least two for Multiclass"),
        ({"classes": 1}, ValueError, r"`classes` is 1; expected at least two"),
        ({"classes": ["cat", "cat"]}, ValueError, r"names cat twice"),
        ({"classes": "cat"}, TypeError, r"`classes` is 'cat'; expected a list of names"),
        ({"classes": None}, TypeError, r"`classes` is None"),
        (
            {"classes": ["a", "b"], "ignore_index": 0},
            ValueError,
            r"`ignore_index` is 0, .* class 'a'; expected",
        ),
        ({"classes": 3, "label_smoothing": 1.0}, ValueError, r"`label_smoothing` is 1\.0"),
        ({"classes": 3, "class_weight": "balance"}, ValueError, r"Did you mean 'balanced'\?"),
        ({"classes": 3, "class_weight": [1, 2]}, ValueError, r"is 1, 2; expected 3 finite numbers"),
        ({"classes": 2, "class_weight": [1, torch.inf]}, ValueError, r"finite numbers above zero"),
        ({"classes": 2, "class_weight": [1, -1]}, ValueError, r"is 1, -1; expected 2"),
        ({"classes": ["a", "b"], "class_weight": {"a": 1}}, ValueError, r"names a; expected a number for"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    """Each says what was given, what was expected, and how to mend it."""
    with pytest.raises(error, match=words):
        Multiclass(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "target",
    [np.array(["cat", "dog"]), pd.Series(["cat", "dog"], index=[3, 9]), pd.DataFrame({"a": ["cat", "dog"]})],
)
def test_words_are_named_whatever_holds_them(target: Any) -> None:
    """Arrays, and columns and tables of pandas."""
    with pytest.raises(TargetError, match=r"The targets are words \(cat, dog\)"):
        Multiclass(["cat", "dog"]).check(target)


def test_a_column_of_pandas_is_as_good_as_a_list() -> None:
    """Also one of which rows were left out."""
    column = pd.Series([0, 1, 1, 0])[[1, 3]]
    assert Multiclass(2).check(column).tolist() == [1, 0]
    with pytest.raises(TargetError, match="a object that is no tensor"):
        Multiclass(2).check(object())
