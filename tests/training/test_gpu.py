"""What differs on an accelerator; ``pytest -m gpu`` where there is one."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from layerkit import LayerkitWarning, Multiclass, NonFiniteError, fit, replace_head

DEVICE = "cuda"
HAS_ONE = torch.cuda.is_available()
HAS_BF16 = HAS_ONE and torch.cuda.is_bf16_supported(including_emulation=False)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_ONE, reason="torch finds no CUDA device here"),
]


@pytest.fixture(autouse=True)
def exact_float32():
    """Keep TF32 out of figures that are compared."""
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    yield
    for kind, allowed in zip(kinds, before, strict=True):
        kind.allow_tf32 = allowed


def batches(count=6):
    """Pictures whose class shows in their colour, in pinned memory, from which copying waits for nothing."""
    generator = torch.Generator().manual_seed(0)
    given = []
    for _ in range(count):
        targets = torch.arange(8) % 2
        pictures = torch.randn(8, 3, 32, 32, generator=generator) + 2.0 * targets.view(-1, 1, 1, 1)
        given.append((pictures, targets))
    return (
        [(pictures.pin_memory(), targets.pin_memory()) for pictures, targets in given] if HAS_ONE else given
    )


def network():
    torch.manual_seed(0)
    return replace_head(resnet18(weights=None), 2, head=nn.Linear)


def sgd(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def train(model, **settings):
    settings = {
        "epochs": 1,
        "optimizer": sgd(1e-3),
        "seed": 0,
        "progress": False,
        "device": DEVICE,
    } | settings
    return fit(model, Multiclass(2), settings.pop("data", None) or batches(), **settings)


def losses(**settings):
    return [row["train_loss"] for row in train(network(), **settings).history]


def test_figures_are_those_of_the_cpu():
    """In fp32 the same run has the same loss, within what sums in another order grow to in six steps."""
    own, cpu = (losses(device=device, precision="fp32", channels_last=False) for device in (DEVICE, "cpu"))
    assert own == pytest.approx(cpu, rel=0.05)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_lower_precision_learns_as_well(precision):
    """Weights stay float32, and the loss comes down as far as in fp32."""
    if precision != "fp16" and not HAS_BF16:
        pytest.skip("this device has no bfloat16")
    model = network()
    run = train(model, precision=precision, epochs=4, optimizer=sgd(1e-2))
    exact = losses(precision="fp32", epochs=4, optimizer=sgd(1e-2))
    assert next(model.parameters()).dtype is torch.float32
    assert exact[-1] < 0.5 * exact[0]
    assert run.history[-1]["train_loss"] == pytest.approx(exact[-1], abs=0.1 * exact[0])


def test_a_compiled_run_gives_the_same_figures():
    """Compiling changes the time and nothing else."""
    compiled, plain = (losses(precision="fp32", compile=compiles) for compiles in (True, False))
    assert compiled == pytest.approx(plain, rel=0.05)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
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
        train(network(), callbacks=[strict])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert strict.steps == 6


class Spoils:
    """Makes the pictures of the second epoch NaN."""

    def on_batch_start(self, state):
        if state.epoch == 2:
            state.inputs = state.inputs * torch.nan


def test_a_loss_that_is_not_finite_is_found_and_spoils_nothing(tmp_path):
    """Though no step looks at it, the epoch ends with an error, with the best weights and a sound checkpoint."""
    settings = {"epochs": 3, "callbacks": [Spoils()], "checkpoint": tmp_path / "run"}
    sound, spoiled = network(), network()
    train(sound)
    for _ in range(2):  # the second call goes on from the sound state, and meets the same
        with pytest.raises(NonFiniteError, match="The loss is nan"):
            train(spoiled, **settings)
        assert all(value.isfinite().all() for value in spoiled.state_dict().values())
    torch.testing.assert_close(spoiled.fc.weight.cpu(), sound.fc.weight.cpu(), rtol=1e-3, atol=1e-5)


class Hungry(nn.Module):
    """Takes several times 64 MiB a picture."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(3, 2)

    def forward(self, inputs):
        large = inputs.mean((2, 3), keepdim=True).expand(-1, -1, 2048, 2720) * self.scale
        return self.head(large.sin().mean((2, 3)))


def test_what_does_not_fit_is_taken_in_pieces():
    """A batch too large for the memory is halved until it fits, with a warning and the same gradient."""
    whole, halved = Hungry(), Hungry()
    settings = {"data": batches(1), "precision": "fp32", "optimizer": sgd(0.1)}
    train(whole, **settings)
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_allocated() + 900 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.warns(LayerkitWarning, match="pieces from now on"):
            train(halved, **settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for one, other in zip(whole.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
