from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3
from torchvision.models.googlenet import GoogLeNetOutputs
from torchvision.models.inception import InceptionOutputs

from layerkit.errors import TargetError
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression, Task

MAIN, FIRST, SECOND = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0)).unbind()
CASES: list[tuple[Task, object]] = [
    (Binary(), torch.tensor([0, 1, 1, 0])),
    (Multiclass(3), torch.tensor([0, 1, 2, 0])),
    (Multilabel(3), torch.tensor([[0, 1, 1]] * 4)),
    (Regression(3, standardize=False), torch.zeros(4, 3)),
    (MultiTask({"a": Binary(), "b": Multiclass(2)}), {"a": [0] * 4, "b": [1] * 4}),
]


@pytest.mark.parametrize(("task", "target"), CASES, ids=lambda value: type(value).__name__)
def test_auxiliary_outputs_are_weighted_as_in_their_papers(task: Task, target: object) -> None:
    """0.4 for Inception's one and 0.3 for each of GoogLeNet's two, whatever the task."""
    outputs = [logits[:, : task.out_features] for logits in (MAIN, FIRST, SECOND)]
    main, first, second = (task.loss(logits, target) for logits in outputs)
    inception = task.loss(InceptionOutputs(outputs[0], outputs[1]), target)
    torch.testing.assert_close(inception, main + 0.4 * first)
    googlenet = task.loss(GoogLeNetOutputs(outputs[0], outputs[2], outputs[1]), target)
    torch.testing.assert_close(googlenet, main + 0.3 * first + 0.3 * second)
    torch.testing.assert_close(task.loss(InceptionOutputs(outputs[0], None), target), main)


@pytest.mark.parametrize(("task", "channels"), [(Multiclass(3), 3), (Binary(), 1)])
def test_the_auxiliary_output_of_segmentation_counts_half(task: Task, channels: int) -> None:
    """As in torchvision's training reference, with targets (N, H, W)."""
    out, aux = torch.randn(2, 2, channels, 5, 6, generator=torch.Generator().manual_seed(0)).unbind()
    mask = torch.randint(0, 2, (2, 5, 6), generator=torch.Generator().manual_seed(0))
    expected = task.loss(out, mask) + 0.5 * task.loss(aux, mask)
    torch.testing.assert_close(task.loss({"out": out, "aux": aux}, mask), expected)
    torch.testing.assert_close(task.loss({"out": out}, mask), task.loss(out, mask))


def test_auxiliary_outputs_are_left_out_in_evaluation() -> None:
    """Segmentation models give them there too, but without gradients they train nothing."""
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    out, aux = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 5.0)
    with torch.no_grad():
        assert Multiclass(3).loss({"out": out, "aux": aux}, target) == Multiclass(3).loss(out, target)


def test_an_auxiliary_head_left_at_its_old_size_is_an_error() -> None:
    """Cross-entropy over 1000 outputs would run and train it on nonsense."""
    with pytest.raises(TargetError, match=r"gives 1000 outputs a picture; expected 3 .* auxiliary ones"):
        Multiclass(3).loss(InceptionOutputs(MAIN, torch.zeros(4, 1000)), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("output", [[MAIN], (MAIN, FIRST), {"logits": MAIN}, None])
def test_other_outputs_are_refused(output: object) -> None:
    """What is no tensor and no torchvision model's output says so."""
    with pytest.raises(TypeError, match=r"The model returned a .*; expected a tensor .* Wrap the model"):
        Multiclass(3).loss(output, torch.tensor([0, 1, 2, 0]))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "size"), [(GoogLeNet, 64), (Inception3, 299)])
def test_real_models_are_trained_through_all_their_outputs(build: type[nn.Module], size: int) -> None:
    """In training every head gets a gradient; in evaluation the output is a plain tensor."""
    model = build(num_classes=3, init_weights=False)
    task, inputs, target = Multiclass(3), torch.randn(2, 3, size, size), torch.tensor([0, 2])
    task.loss(model.train()(inputs), target).backward()
    heads = [module for name, module in model.named_modules() if name.endswith(("fc", "fc2"))]
    assert all(head.weight.grad is not None for head in heads)
    assert len(heads) == (3 if build is GoogLeNet else 2)
    with torch.no_grad():
        output: Tensor = model.eval()(inputs)
    assert task.loss(output, target).isfinite()


def test_a_stranger_with_logits_is_not_taken_for_torchvisions() -> None:
    """What stands beside them may be anything, and is no auxiliary output."""
    output = namedtuple("Output", "logits features")(MAIN, FIRST)
    with pytest.raises(TypeError, match="returned a Output; expected a tensor of logits"):
        Multiclass(3).loss(output, [0, 1, 2, 0])


def test_a_model_that_squeezes_the_batch_away_is_told_how_not_to() -> None:
    """As it happens with the last batch."""
    with pytest.raises(TargetError, match=r"Write squeeze\(1\)"):
        Binary().loss(torch.zeros(1, 1).squeeze(), torch.tensor([1]))
