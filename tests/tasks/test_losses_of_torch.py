"""Every loss of the table in the docs is reached, in its plain and in its two-dimensional form."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from layerkit.tasks import Binary, Multiclass, Multilabel, Regression, Task
from layerkit.training import fit

GENERATOR = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def indices(*shape: int) -> Tensor:
    return torch.randint(0, 3, shape, generator=GENERATOR)


def zeros_and_ones(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=GENERATOR).float()


def shares(*shape: int) -> Tensor:
    return numbers(*shape).softmax(1)


@pytest.mark.parametrize(
    ("task", "loss", "outputs", "target"),
    [
        (Regression(2, standardize=False), nn.MSELoss(), (6, 2), numbers(6, 2)),
        (Regression(2, loss="mae", standardize=False), nn.L1Loss(), (6, 2), numbers(6, 2)),
        (Regression(2, loss="huber", standardize=False), nn.HuberLoss(), (6, 2), 3 * numbers(6, 2)),
        (Binary(), nn.BCEWithLogitsLoss(), (6, 1), zeros_and_ones(6, 1)),
        (Multilabel(3), nn.BCEWithLogitsLoss(), (6, 3), zeros_and_ones(6, 3)),
        (Multilabel(3), nn.BCEWithLogitsLoss(), (6, 3), shares(6, 3)),
        (Multiclass(3), nn.CrossEntropyLoss(), (6, 3), indices(6)),
        (Multiclass(3), nn.CrossEntropyLoss(), (6, 3), shares(6, 3)),
        (Multiclass(3), nn.CrossEntropyLoss(), (2, 3, 4, 5), indices(2, 4, 5)),
        (Binary(), nn.BCEWithLogitsLoss(), (2, 1, 4, 5), zeros_and_ones(2, 1, 4, 5)),
    ],
)
def test_tasks_have_the_losses_of_torch(
    task: Task, loss: nn.Module, outputs: tuple[int, ...], target: Tensor
) -> None:
    """On targets in the shape that torch's own loss takes, a task gives that loss."""
    logits = numbers(*outputs)
    torch.testing.assert_close(task.loss(logits, target), loss(logits, target))


def test_soft_targets_have_the_gradient_of_the_kl_divergence() -> None:
    """Cross-entropy and KL divergence differ by the targets' own entropy, which no weight moves."""
    logits, target = numbers(6, 3).requires_grad_(), shares(6, 3)
    (ours,) = torch.autograd.grad(Multiclass(3).loss(logits, target), logits)
    divergence = nn.KLDivLoss(reduction="batchmean")(logits.log_softmax(1), target)
    (theirs,) = torch.autograd.grad(divergence, logits)
    torch.testing.assert_close(ours, theirs)


VECTORS, PICTURES = (16, 5), (16, 5, 4, 6)


@pytest.mark.parametrize(
    ("loss", "outputs", "ending", "target"),
    [
        (nn.L1Loss(), 2, nn.Identity(), lambda: numbers(16, 2)),
        (nn.MSELoss(), 2, nn.Identity(), lambda: numbers(16, 2)),
        (nn.HuberLoss(), 2, nn.Identity(), lambda: numbers(16, 2)),
        (nn.CrossEntropyLoss(), 3, nn.Identity(), lambda: indices(16)),
        (nn.NLLLoss(), 3, nn.LogSoftmax(1), lambda: indices(16)),
        (nn.BCEWithLogitsLoss(), 1, nn.Identity(), lambda: zeros_and_ones(16, 1)),
        (nn.BCELoss(), 1, nn.Sigmoid(), lambda: zeros_and_ones(16, 1)),
        (nn.KLDivLoss(reduction="batchmean"), 3, nn.LogSoftmax(1), lambda: shares(16, 3)),
        (nn.L1Loss(), 2, nn.Identity(), lambda: numbers(16, 2, 4, 6)),
        (nn.MSELoss(), 2, nn.Identity(), lambda: numbers(16, 2, 4, 6)),
        (nn.HuberLoss(), 2, nn.Identity(), lambda: numbers(16, 2, 4, 6)),
        (nn.CrossEntropyLoss(), 3, nn.Identity(), lambda: indices(16, 4, 6)),
        (nn.NLLLoss(), 3, nn.LogSoftmax(1), lambda: indices(16, 4, 6)),
        (nn.BCEWithLogitsLoss(), 1, nn.Identity(), lambda: zeros_and_ones(16, 1, 4, 6)),
        (nn.BCELoss(), 1, nn.Sigmoid(), lambda: zeros_and_ones(16, 1, 4, 6)),
        (nn.KLDivLoss(reduction="batchmean"), 3, nn.LogSoftmax(1), lambda: shares(16, 3, 4, 6)),
    ],
)
def test_any_loss_of_torch_can_be_trained(
    loss: nn.Module, outputs: int, ending: nn.Module, target: Callable[[], Tensor]
) -> None:
    """fit takes it in place of a task, and its loss is the one that torch gives."""
    torch.manual_seed(0)
    targets = target()
    flat = targets.ndim <= 2
    layer = nn.Linear(5, outputs) if flat else nn.Conv2d(5, outputs, 1)
    inputs = numbers(*(VECTORS if flat else PICTURES))
    model: Any = nn.Sequential(layer, copy.deepcopy(ending))
    with torch.no_grad():
        before = loss(model(inputs), targets).item()
    data = DataLoader(TensorDataset(inputs, targets), batch_size=16)
    run = fit(model, loss, data, data, epochs=1, progress=False, device="cpu", optimizer=torch.optim.SGD)

    with torch.no_grad():
        after = loss(model(inputs), targets).item()
    assert run.history[0]["train_loss"] == pytest.approx(before, rel=1e-4)
    assert run.history[0]["valid_loss"] == pytest.approx(after, rel=1e-4)
    assert after < before
