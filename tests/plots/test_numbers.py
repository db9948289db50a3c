"""Residuals are answer minus truth."""

import numpy as np
import pytest
import torch

from layerkit.plots import plot_residuals
from layerkit.predicting import Prediction


def test_each_point_is_an_answer_and_its_error():
    """The points are (answer, answer - truth), for (N,) and (N, 1)."""
    targets, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[1.5], [2.0], [3.0]])
    axes = plot_residuals(targets, values, name="$ per kg")
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[1.5, 0.5], [2.0, 0.0], [3.0, -1.0]])
    assert axes.get_xlabel() == "answered $ per kg"
    axes.get_figure().canvas.draw()


def test_predictions_are_taken():
    """Those of a regression; others are named."""
    answers = [Prediction(values=(2.5,)), Prediction(values=(1.0,))]
    points = plot_residuals([2.0, 1.0], answers).collections[0].get_offsets()
    assert points.tolist() == [[2.5, 0.5], [1.0, 0.0]]
    numbers = plot_residuals([2.0, 1.0], [torch.tensor(2.5), torch.tensor(1.0)]).collections[0]
    assert numbers.get_offsets().tolist() == points.tolist()
    with pytest.raises(ValueError, match="predictions without values"):
        plot_residuals([1.0], [Prediction(label="cat")])


def test_another_number_of_answers_is_refused():
    """Several targets are drawn one by one."""
    with pytest.raises(ValueError, match=r"`targets` has 3 numbers and `values` 6"):
        plot_residuals(torch.zeros(3), torch.zeros(6))
    with pytest.raises(ValueError, match=r"`values` has the shape \(3, 2\); expected one number a picture"):
        plot_residuals(torch.zeros(3), torch.zeros(3, 2))
