"""Batch norm folded into convolutions while a backbone only answers."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torchvision.models import resnet18

from layerkit import freeze_backbone, replace_head
from layerkit.features import precompute_features


def with_statistics(model):
    """Give batch norms the statistics and the weights of a trained model: of no two channels the same."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias.data, module.running_mean):
                values.uniform_(-0.3, 0.3)
    return model.eval()


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, 32, 32, generator=generator), torch.zeros(4)) for _ in range(2)]


def count_norms(monkeypatch):
    """Count what batch norms do, by the size of the batches that they are given."""
    sizes, forward = [], nn.BatchNorm2d.forward

    def counted(self, inputs):
        sizes.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", counted)
    return sizes


def features_by_hand(model):
    """Gather what enters the head, batch norms and all."""
    caught = []
    hook = model.fc.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        for inputs, _ in batches():
            model(inputs)
    hook.remove()
    return torch.cat(caught)


def test_all_of_a_resnet_is_folded(monkeypatch):
    """Only the first two pictures meet a batch norm, and the features are what they would be."""
    model = with_statistics(replace_head(resnet18(weights=None), 3))
    expected = features_by_hand(model)
    sizes = count_norms(monkeypatch)
    features, _ = precompute_features(model, batches())
    assert set(sizes) == {2}
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_what_it_was():
    """The very modules and weights are back, also after an error in the middle."""
    model = with_statistics(replace_head(resnet18(weights=None), 3))
    modules, state = list(model.modules()), copy.deepcopy(model.state_dict())

    def broken():
        yield from batches()
        raise OSError("no such picture")

    precompute_features(model, batches())
    with pytest.raises(OSError, match="no such picture"):
        precompute_features(model, broken())
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class Reused(nn.Module):
    """Uses a convolution's output beside the batch norm that follows."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, inputs):
        between = self.conv(inputs)
        return self.fc((between + self.norm(between)).mean((2, 3)))


class Twice(nn.Module):
    """Runs one convolution twice, and a batch norm only after the first time."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.fc(self.conv(self.norm(self.conv(inputs))).mean((2, 3)))


def pruned(model):
    prune.l1_unstructured(model.layer1[0].conv1, "weight", 0.3)


@pytest.mark.parametrize("change", [pruned, freeze_backbone])
def test_a_changed_backbone_gives_its_own_features(change):
    """A pruned convolution makes its weight anew each time; a frozen backbone is like any other."""
    model = with_statistics(replace_head(resnet18(weights=None), 3))
    change(model)
    expected = features_by_hand(model)
    features, _ = precompute_features(model, batches())
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


class Counting:
    """A hook with something in it that cannot be copied."""

    def __init__(self):
        self.calls, self.lock = 0, threading.Lock()

    def __call__(self, *_):
        self.calls += 1


@pytest.mark.parametrize("name", ["conv1", "bn1"])
def test_what_somebody_watches_runs_itself(name):
    """A hook is called each time, and need not be one that can be copied."""
    model, hook = with_statistics(replace_head(resnet18(weights=None), 3)), Counting()
    model.layer1[0].get_submodule(name).register_forward_hook(hook)
    precompute_features(model, batches())
    assert hook.calls == 5  # to see whether the head is last, to fold, to prove it, and two batches


def test_a_norm_that_stays_in_training_mode_is_left_alone():
    """It uses the batch's own statistics, which no convolution can know beforehand."""
    model = with_statistics(replace_head(resnet18(weights=None), 3))
    norm = model.layer1[0].bn1.train()
    norm.train = lambda mode=True: norm
    features, _ = precompute_features(model, batches())
    assert features.isfinite().all()
    assert norm.num_batches_tracked == 5


def test_under_autocast_it_is_folded_too(monkeypatch):
    """Whether it may be is seen in float32, since bfloat16 rounds too much to tell."""
    model = with_statistics(replace_head(resnet18(weights=None), 3))
    sizes = count_norms(monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = precompute_features(model, batches())
    assert set(sizes) == {2}
    exact, _ = precompute_features(model, batches())
    torch.testing.assert_close(features.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item())


@pytest.mark.parametrize("kind", [Reused, Twice])
def test_what_cannot_be_folded_is_left(kind):
    """Where folding would change the features, nothing is folded."""
    torch.manual_seed(0)
    model = with_statistics(replace_head(kind(), 2, where="fc"))
    expected = features_by_hand(model)
    features, _ = precompute_features(model, batches())
    torch.testing.assert_close(features, expected)
