"""What differs on an accelerator; ``pytest -m gpu`` where there is one."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from layerkit import LayerkitWarning, Multiclass, NonFiniteError, fit, replace_head

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]


def batches(count=6, size=32):
    """Pictures whose class shows in their colour."""
    generator = torch.Generator().manual_seed(0)
    given = []
    for _ in range(count):
        targets = torch.arange(8) % 2
        pictures = torch.randn(8, 3, size, size, generator=generator) + 2.0 * targets.view(-1, 1, 1, 1)
        given.append((pictures.pin_memory(), targets.pin_memory()))
    return given


def network():
    torch.manual_seed(0)
    return replace_head(resnet18(weights=None), 2)


def train(model, data=None, **settings):
    settings = {"epochs": 2, "lr": 1e-3, "schedule": "constant", "seed": 0, "progress": False} | settings
    data = data or batches()
    return fit(model, Multiclass(2), data, data, **settings)


def test_figures_are_those_of_the_cpu():
    """In fp32 the same run gives the same losses, within what the order of sums changes."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = [train(network(), device=device, precision="fp32").history for device in ("cpu", "cuda")]
    for one, other in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=5e-3)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_lower_precision_learns_as_well(precision):
    """Weights stay float32, and the loss comes down as in fp32."""
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this device has no bfloat16")
    model = network()
    run = train(model, precision=precision, epochs=4)
    assert next(model.parameters()).dtype is torch.float32
    assert run.history[-1]["train_loss"] < 0.5 * run.history[0]["train_loss"]


def test_a_compiled_run_gives_the_same_figures():
    """Compiling changes the time and nothing else."""
    rows = [train(network(), precision="fp32", compile=compiles).history for compiles in (False, True)]
    for one, other in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=5e-3)


def test_a_step_waits_for_nothing():
    """Between a batch on the device and the end of its step nobody asks the device for a value."""

    class Strict:
        steps = 0

        def on_batch_start(self, state):
            torch.cuda.set_sync_debug_mode("error" if self.steps else "default")  # the first checks the model

        def on_batch_end(self, state):
            torch.cuda.set_sync_debug_mode("default")
            self.steps += 1

    strict = Strict()
    try:
        train(network(), callbacks=[strict], epochs=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert strict.steps == 6


def test_a_loss_that_is_not_finite_is_found_and_spoils_nothing(tmp_path):
    """Though no step looks at it, the epoch ends with the error, the best weights and a sound checkpoint."""
    model, data = network(), batches()
    train(model, data, epochs=1)
    before = copy.deepcopy(model.state_dict())

    class Spoils:
        def on_batch_start(self, state):
            if state.epoch == 2:
                state.inputs = state.inputs * torch.nan

    with pytest.raises(NonFiniteError):
        train(model, data, callbacks=[Spoils()], checkpoint=tmp_path / "run", epochs=3, lr=0.0)
    for name, value in model.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name]), name
    with pytest.raises(NonFiniteError):  # it goes on from the sound state, and meets the same
        train(model, data, callbacks=[Spoils()], checkpoint=tmp_path / "run", epochs=3, lr=0.0)


class Hungry(nn.Module):
    """Takes memory in proportion to the batch, 64 MiB a picture."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(3, 2)

    def forward(self, inputs):
        large = inputs.mean((2, 3), keepdim=True).expand(-1, -1, 2048, 2720) * self.scale
        return self.head(large.sin().mean((2, 3)))


def test_what_does_not_fit_is_taken_in_pieces():
    """A batch too large for the memory is halved until it fits, with a warning and the same gradient."""
    whole, halved = Hungry(), Hungry()
    halved.load_state_dict(whole.state_dict())
    data = batches(count=1)
    settings = {"epochs": 1, "precision": "fp32", "optimizer": torch.optim.SGD, "lr": 0.1}
    train(whole, data, **settings)
    torch.cuda.empty_cache()
    free = 900 * 2**20 + torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(free / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.warns(LayerkitWarning, match="pieces from now on"):
            train(halved, data, **settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for one, other in zip(whole.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
