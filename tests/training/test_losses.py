from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.inception import InceptionOutputs

from layerkit import fit
from layerkit.errors import TargetError
from layerkit.tasks import Multiclass
from layerkit.training.losses import as_task

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        (nn.CrossEntropyLoss(), LOGITS, torch.tensor([0, 1, 2, 0])),
        (nn.NLLLoss(), LOGITS.log_softmax(1), torch.tensor([0, 1, 2, 0])),
        (nn.KLDivLoss(reduction="batchmean"), LOGITS.log_softmax(1), LOGITS.flip(0).softmax(1)),
        (nn.BCELoss(), LOGITS.sigmoid(), torch.ones(4, 3)),
        (nn.CrossEntropyLoss(), torch.randn(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.int64)),
        (F.smooth_l1_loss, LOGITS, torch.ones(4, 3)),
        (lambda output, target: (output - target).abs().max(), LOGITS, torch.ones(4, 1)),
    ],
)
def test_any_callable_is_called_as_it_is(loss: object, output: torch.Tensor, target: torch.Tensor) -> None:
    """Torch's losses and a user's own see the model's output and the loader's targets."""
    assert as_task(loss).loss(output, target).equal(loss(output, target))  # type: ignore[arg-type, operator]


def test_auxiliary_outputs_count_as_for_tasks() -> None:
    """A plain loss is called on each of them."""
    loss, target = nn.CrossEntropyLoss(), torch.tensor([0, 1, 2, 0])
    expected = loss(LOGITS, target) + 0.4 * loss(-LOGITS, target)
    torch.testing.assert_close(as_task(loss).loss(InceptionOutputs(LOGITS, -LOGITS), target), expected)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), F.mse_loss, F.smooth_l1_loss])
def test_losses_that_would_broadcast_are_stopped(loss: object) -> None:
    """(N, 1) against (N,) would be compared N times N."""
    with pytest.raises(TargetError, match=r"shape \(4, 1\) and the targets \(4,\).*target\.unsqueeze\(1\)"):
        as_task(loss).loss(torch.zeros(4, 1), torch.zeros(4))  # type: ignore[arg-type]


def test_a_task_is_taken_as_it_is() -> None:
    """Only other callables are wrapped."""
    task = Multiclass(2)
    assert as_task(task) is task


@pytest.mark.parametrize("task", [nn.MSELoss, "mse", None, 3])
def test_what_is_no_loss_is_refused(task: object) -> None:
    """A class that was not called, and things that cannot be."""
    with pytest.raises(TypeError, match=r"`task` is .*; expected a task such as Multiclass"):
        as_task(task)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0])])
def test_a_batch_in_which_no_target_has_a_class_counts_for_nothing(smoothing: float, weight: Any) -> None:
    """Torch's mean over it is 0 / 0; with others in it, the value is torch's own."""
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
    task, logits = as_task(loss), LOGITS.clone().requires_grad_()
    some = torch.tensor([0, -100, 2, -100])
    assert task.loss(logits, some).equal(loss(logits, some))
    empty = task.loss(logits, torch.full((4,), -100))
    empty.backward()
    assert empty == 0
    assert not logits.grad.any()


def test_a_loss_that_adds_up_is_not_taken_in_pieces() -> None:
    """Its gradient would depend on them."""
    data = [(torch.zeros(4, 2), torch.zeros(4, 1))] * 2
    for loss in (nn.MSELoss(reduction="sum"), partial(F.mse_loss, reduction="sum")):
        with pytest.raises(ValueError, match="The loss has reduction='sum', and a step is taken in pieces"):
            fit(nn.Linear(2, 1), loss, data, epochs=1, accumulate=2, progress=False)
        fit(nn.Linear(2, 1), loss, data, epochs=1, progress=False)
