"""Plots of classes show what an independent calculation finds."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from layerkit.plots import plot_calibration, plot_confusion, plot_precision_recall, plot_roc
from layerkit.plots.classes import calibration_error
from layerkit.predicting import Prediction


@pytest.fixture
def answered():
    """Give targets (200,) of four classes and probabilities (200, 4)."""
    torch.manual_seed(0)
    targets = torch.randint(0, 4, (200,))
    logits = torch.randn(200, 4) + 2 * torch.nn.functional.one_hot(targets, 4)
    return targets, logits.softmax(1)


def test_confusion_matrix_agrees_with_scikit_learn(answered):
    """The numbers and the colours are those of scikit-learn's matrix; zeros are left blank."""
    targets, probabilities = answered
    answers = probabilities.argmax(1)
    expected = confusion_matrix(targets, answers)

    axes = plot_confusion(targets, answers, ["a", "b", "c", "d"])

    written = [int(text.get_text()) for text in axes.texts]
    assert written == [count for count in expected.flatten() if count]
    shares = np.asarray(axes.collections[0].get_array()).reshape(4, 4)
    np.testing.assert_allclose(shares, expected / expected.sum(1, keepdims=True), rtol=1e-6)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "d"]


def test_names_and_predictions_are_looked_up():
    """What a folder and a predictor give is drawn as it is."""
    classes = ["cat", "dog"]
    answers = [Prediction(label="dog"), Prediction(label="cat"), Prediction(label="dog")]
    axes = plot_confusion(["dog", "cat", "cat"], answers, classes)
    assert [text.get_text() for text in axes.texts] == ["1", "1", "1"]
    for odd in ("Cat", Prediction(values=(1.0,)), Prediction(label=("cat", "dog"))):
        with pytest.raises(ValueError, match="which is none of the classes"):
            plot_confusion(["dog"], [odd], classes)


def test_many_classes_stay_readable():
    """Of two hundred classes no cell has a number, and not more than sixty have a name beside them."""
    indices = torch.arange(200)
    axes = plot_confusion(indices, indices, [f"class {index}" for index in range(200)])
    assert not axes.texts
    assert len(axes.get_xticklabels()) == 50
    assert max(axes.get_figure().get_size_inches()) <= 12


@pytest.mark.parametrize("plot", ["confusion", "roc"])
def test_a_name_is_text_whatever_is_in_it(plot, answered):
    """Dollars and backslashes are no formula, which would fail to draw."""
    names = [r"$\frac{", "a_b^c", "<script>", "x" * 60]
    targets, probabilities = answered
    axes = (
        plot_confusion(targets, targets, names)
        if plot == "confusion"
        else plot_roc(targets, probabilities, names)
    )
    axes.get_figure().canvas.draw()


def test_indices_that_do_not_fit_are_refused():
    """An index without a name, and another number of answers, are errors with the remedy."""
    with pytest.raises(ValueError, match=r"There is a class 2, and `classes` has 2 names"):
        plot_confusion([0, 2], [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match=r"`targets` has 2 indices and `answers` 3"):
        plot_confusion([0, 1], [0, 1, 1], ["a", "b"])


@pytest.mark.parametrize(
    ("plot", "expected"), [(plot_roc, roc_auc_score), (plot_precision_recall, average_precision_score)]
)
def test_curves_name_the_area_of_each_class(plot, expected, answered):
    """The legend holds scikit-learn's figures, also for one column of a yes or no, and for several labels."""
    targets, probabilities = answered
    legend = plot(targets, probabilities, ["a", "b", "c", "d"]).get_legend()
    wanted = [f"{n} {expected(targets == i, probabilities[:, i]):.2f}" for i, n in enumerate("abcd")]
    assert [text.get_text() for text in legend.get_texts()] == wanted

    yes = (targets == 1).long()
    legend = plot(yes, probabilities[:, 1:2], ["no", "yes"]).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        f"yes {expected(yes, probabilities[:, 1]):.2f}"
    ]

    labels = torch.stack([targets > 1, targets % 2 == 0], 1).long()
    legend = plot(labels, probabilities[:, :2], ["p", "q"]).get_legend()
    assert len(legend.get_texts()) == 2


def test_of_many_classes_the_worst_are_drawn():
    """Six curves, and the legend says of how many; a class without pictures has none."""
    torch.manual_seed(0)
    targets = torch.arange(160) % 8
    scores = (torch.randn(160, 9) + 3 * torch.nn.functional.one_hot(targets, 9)).softmax(1)
    scores[:, 7] = scores[:, 7].flip(0)

    axes = plot_roc(targets, scores, list("abcdefghi"))

    names = [text.get_text()[0] for text in axes.get_legend().get_texts()]
    assert len(names) == 6
    assert "h" in names
    assert "i" not in names
    assert axes.get_legend().get_title().get_text() == "area: the 6 worst of 9"


def test_calibration_error_by_hand():
    """Two answers at 0.9 of which one is right, two at 0.6 of which both are: 0.5 * 0.4 + 0.5 * 0.4."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    targets = torch.tensor([0, 1, 1, 1])

    axes = plot_calibration(targets, probabilities)

    assert calibration_error(targets, probabilities) == pytest.approx(0.4, abs=1e-6)
    assert axes.get_title() == "expected calibration error 0.400"
    x, y = axes.lines[-1].get_data()
    np.testing.assert_allclose(x, [0.6, 0.9], rtol=1e-6)
    np.testing.assert_allclose(y, [1.0, 0.5])


def test_axes_that_are_given_are_drawn_on(answered):
    """`ax` is returned, and no other figure is made."""
    from matplotlib.figure import Figure

    targets, probabilities = answered
    for plot in (plot_roc, plot_precision_recall):
        axes = Figure().add_subplot()
        assert plot(targets, probabilities, list("abcd"), ax=axes) is axes
    axes = Figure().add_subplot()
    assert plot_calibration(targets, probabilities, ax=axes) is axes
    assert plot_confusion(targets, targets, list("abcd"), ax=axes) is axes


def test_lists_are_taken_and_mistakes_are_named(answered):
    """Logits, other lengths, missing names and floating-point answers: one clear error each."""
    assert (
        plot_calibration([0, 1], [[0.2, 0.8], [0.3, 0.7]]).get_title() == "expected calibration error 0.550"
    )
    with pytest.raises(ValueError, match=r"runs from -1 to 8; expected numbers from 0 to 1. Of logits"):
        plot_calibration([0, 1], [[2.0, 8.0], [-1.0, 7.0]])
    with pytest.raises(ValueError, match="runs from nan to nan"):
        plot_roc([0, 1], [[0.2, torch.nan], [0.3, 0.7]], ["a", "b"])
    with pytest.raises(ValueError, match="`targets` has 3 rows and `probabilities` 2"):
        plot_precision_recall([0, 1, 1], [[0.2, 0.8], [0.3, 0.7]], ["a", "b"])
    with pytest.raises(ValueError, match="has 3 columns and `classes` 2 names"):
        plot_roc([0, 1], [[0.2, 0.8, 0.0], [0.3, 0.7, 0.0]], ["a", "b"])
    with pytest.raises(ValueError, match="floating-point numbers; expected class indices"):
        plot_confusion(torch.rand(3), [0, 1, 1], ["a", "b"])
    with pytest.raises(ValueError, match="There is a class -1"):
        plot_confusion([0, -1], [0, 1], ["a", "b"])


def test_predictions_are_drawn_as_their_probabilities_are():
    """In all three plots of them; a number's prediction has none."""
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    targets, names = torch.tensor([0, 1, 1, 1]), ["cat", "dog"]
    answers = [
        Prediction(label="cat", probabilities=dict(zip(names, row.tolist(), strict=True)))
        for row in probabilities
    ]
    for plot in (
        partial(plot_roc, classes=names),
        partial(plot_precision_recall, classes=names),
        plot_calibration,
    ):
        one, other = plot(targets, answers), plot(targets, probabilities)
        for line, like in zip(one.lines, other.lines, strict=True):
            assert line.get_xydata() == pytest.approx(like.get_xydata())
    with pytest.raises(ValueError, match=r"predictions without probabilities; .* use plot_residuals"):
        plot_calibration(targets, [Prediction(values=(1.0,))] * 4)
