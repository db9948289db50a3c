"""The range test: what it suggests, and that it leaves everything as it was."""

import pytest
import torch
from torch import nn

from layerkit import Multiclass, Regression, find_lr

torch.manual_seed(0)
INPUTS = torch.randn(64, 5)
DATA = list(zip(INPUTS.split(16), (INPUTS @ torch.tensor([1.0, -2, 3, 0, 1]) + 7).split(16), strict=True))


def test_the_suggestion_trains_and_a_much_higher_rate_does_not():
    """For SGD on a parabola the edge is known: 2 over the largest curvature."""
    found = find_lr(
        nn.Linear(5, 1), Regression(), DATA, optimizer=lambda p: torch.optim.SGD(p, lr=1), highest=100.0
    )
    curvature = 2 * torch.linalg.eigvalsh(torch.cov(INPUTS.T, correction=0)).max()
    edge = float(2 / curvature)
    assert edge / 100 < found.suggestion < edge
    assert found.rates[-1] < 100  # it ended where the loss ran away


def test_the_model_and_the_task_stay_as_they_were():
    """Weights, buffers, mode and the task's own buffers are put back."""
    model = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 1)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = Regression()
    find_lr(model, task, DATA, steps=20)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert task.needs_targets


def test_the_plot_shows_the_curve_and_the_suggestion():
    """The axes hold both, on a logarithmic scale."""
    found = find_lr(nn.Linear(5, 2), Multiclass(2), [(INPUTS, torch.arange(64) % 2)], steps=20)
    axes = found.plot()
    assert axes.get_xscale() == "log"
    assert list(axes.lines[0].get_ydata()) == found.losses
    assert f"{found.suggestion:.2g}" in axes.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "`lowest` is 1.0 and `highest` is 0.1"),
        ({"steps": 3}, "`steps` is 3"),
        ({"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)}, "a SGD that is made already"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    """Each with what was expected."""
    with pytest.raises((ValueError, TypeError), match=message):
        find_lr(nn.Linear(5, 1), Regression(), DATA, **change)
