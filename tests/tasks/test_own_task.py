import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from layerkit.errors import TargetError
from layerkit.tasks import Binary, MultiTask, Task


class Count(Task):
    out_features = 1

    def check(self, target: object) -> Tensor:
        return super().check(target).reshape(-1, 1)  # type: ignore[no-any-return]

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(logits, target)


def test_a_task_of_ones_own_has_a_loss_a_check_and_answers() -> None:
    """Two members are enough; the rest has plain defaults."""
    task = Count()
    logits = torch.tensor([[0.0], [1.0]])
    assert task.loss(logits, [2.0, 3.0]).item() == pytest.approx(((1 - 0) + (torch.e - 3)) / 2, rel=1e-6)
    assert not task.needs_targets
    assert task.decide(logits).equal(logits)
    assert dict(task.metrics().items()) == {}
    assert task.constant_logits(torch.ones(2, 1)).tolist() == [0.0]
    assert type(task)(**task.settings()).out_features == 1


def test_its_targets_and_outputs_are_checked_too() -> None:
    """NaN and other shapes are found by what the base does."""
    with pytest.raises(TargetError, match="expected finite numbers"):
        Count().check([1.0, torch.nan])
    with pytest.raises(TargetError, match="gives 2 outputs a picture; expected 1 for Count"):
        Count().loss(torch.zeros(2, 2), [1.0, 2.0])
    with pytest.raises(TargetError, match=r"shape \(3, 1\) and the targets \(2, 1\)"):
        Count().loss(torch.zeros(3, 1), [1.0, 2.0])


def test_it_can_be_a_part_of_several() -> None:
    """MultiTask asks no more of its parts than fit of a task."""
    task = MultiTask({"people": Count(), "indoors": Binary()})
    logits, target = torch.zeros(2, 2), {"people": [1.0, 4.0], "indoors": [0, 1]}
    loss = task.loss(logits, target)
    assert loss.item() == pytest.approx(1 + 0.6931472, rel=1e-6)
    metrics = task.metrics()
    metrics.update(*task.metric_inputs(logits, task.check(target)))
    assert metrics.compute()["people_loss"] == 1
