"""What a run that goes on must find again: bits, backbone, callbacks, and nothing that only looks the same."""

import math
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import LinearLR, SequentialLR, StepLR
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassF1Score
from torchvision.transforms import v2

from layerkit import (
    Binary,
    Checkpoint,
    CheckpointError,
    Multiclass,
    MultiTask,
    NonFiniteError,
    find_lr,
    fit,
    freeze,
    per_batch,
)
from layerkit.callbacks import EarlyStopping, Unfreeze
from layerkit.loading import FolderDataset
from layerkit.loading.loaders import PictureLoader
from layerkit.presets import Preset
from layerkit.saving import pack, unpack
from layerkit.training.identity import describe
from layerkit.training.moments import State

pytestmark = pytest.mark.filterwarnings("default:.*is in no table of layerkit")

INPUTS = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS.mean(dim=(1, 2, 3)) > 0).long()
DATA = list(zip(INPUTS.split(12), TARGETS.split(12), strict=True))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 2)
    )


class StopAt:
    """Press Ctrl-C after so many steps."""

    def __init__(self, step: int) -> None:
        self._left = step

    def on_batch_end(self, state) -> None:
        self._left -= 1
        if not self._left:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def pictures(tmp_path):
    """Make 20 pictures of two classes."""
    from PIL import Image

    for n in range(20):
        place = tmp_path / "pictures" / ("a" if n % 2 else "b") / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 40 + 5 * n).convert("RGB").save(place)
    return tmp_path / "pictures"


@pytest.fixture
def loader(pictures) -> PictureLoader:
    """Deal them out in batches of four."""
    return PictureLoader(FolderDataset(pictures, Preset(8).train("light")), batch_size=4, shuffle=True)


def run(folder, loader, stop=0, *, valid=None, model=None, **settings):
    """Train for three epochs; with `stop`, Ctrl-C comes after that step."""
    model = network() if model is None else model
    options = {"epochs": 3, "seed": 0, "lr": 0.05, "optimizer": torch.optim.SGD, "progress": False} | settings
    options["callbacks"] = [*options.get("callbacks", ()), StopAt(stop)]
    try:
        fit(model, Multiclass(2), loader, valid, checkpoint=folder, **options)
    except KeyboardInterrupt:
        assert stop
    return model.state_dict()


def assert_same(one, other) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("stop", [2, 7])
def test_fused_steps_go_on_in_the_same_bits(loader, stop, tmp_path):
    """Their kernels go by position in memory, so momenta come back laid out as the weights are."""
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)
    whole = run(tmp_path / "whole", loader, optimizer=optimizer, lr=None, channels_last=True)
    run(tmp_path / "stopped", loader, stop, optimizer=optimizer, lr=None, channels_last=True)
    assert_same(whole, run(tmp_path / "stopped", loader, optimizer=optimizer, lr=None, channels_last=True))


def test_one_loader_may_be_trained_and_validated_on(loader, tmp_path):
    """Validating does not move where training goes on in it."""
    whole = run(tmp_path / "whole", loader, valid=loader)
    run(tmp_path / "stopped", loader, 3, valid=loader)
    assert_same(whole, run(tmp_path / "stopped", loader, valid=loader))


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_stop_within_validation_moves_no_draw(loader, stop, tmp_path):
    """A validation begins again with what it had drawn from: a foreign loader draws whenever it is begun."""

    def train(folder, *, stops):
        model = nn.Sequential(nn.Dropout(0.5), *network())
        passed = iter(range(1, 1000))

        def press(module, args):
            if not module.training and next(passed) == stop and stops:
                signal.raise_signal(signal.SIGINT)

        model.register_forward_pre_hook(press)
        valid = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=12, shuffle=True)
        return run(tmp_path / folder, loader, 99 * stops, valid=valid, model=model)

    whole = train("whole", stops=False)
    train("stopped", stops=True)
    assert_same(whole, train("stopped", stops=False))


def test_once_the_backbone_learns_it_is_in_the_file(loader, tmp_path):
    """Then a run goes on with what was saved, whatever the model held."""
    settings = {"epochs": 4, "frozen_epochs": 2, "optimizer": None, "lr": None}
    whole = run(tmp_path / "whole", loader, **settings)
    run(tmp_path / "stopped", loader, 1, **settings)  # in the first step of the whole model
    assert_same(whole, run(tmp_path / "stopped", loader, model=network(1), **settings))


def test_a_head_with_a_second_name_is_no_backbone(loader, tmp_path):
    """The same call again is the same run."""
    model = network()
    model.register_module("also", nn.Identity())
    model.also.weight = model[4].weight
    for _ in range(2):
        run(tmp_path, loader, model=model, epochs=2, frozen_epochs=2, optimizer=None, lr=None)


def test_another_frozen_backbone_is_refused(loader, tmp_path):
    """Its weights are in no file as long as it is frozen, so that the head would stand on others."""
    settings = {"epochs": 2, "frozen_epochs": 2, "callbacks": [], "optimizer": None, "lr": None}
    run(tmp_path, loader, **settings)
    other = network(1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="with another frozen backbone"):
        run(tmp_path, loader, model=other, **settings)
    assert_same(before, other.state_dict())
    run(tmp_path, loader, **settings)


def test_a_run_stopped_in_an_epoch_that_was_cut_short_does_that_epoch(loader, tmp_path):
    """A callback says stop, then a signal comes: the epoch is taken up again and finished."""

    class Limit:
        def on_batch_end(self, state):
            if state.epoch == 1:
                state.stop("time is up")

    ends = [network(), network()]
    for stop in (3, 0):
        model = ends[0]
        run(tmp_path, loader, stop, valid=loader, callbacks=[Limit()], model=model)
    history = fit(
        ends[1], Multiclass(2), loader, loader, epochs=3, seed=0, lr=0.05, optimizer=torch.optim.SGD,
        callbacks=[Limit()], progress=False,
    ).history  # fmt: skip
    assert len(history) == 1
    assert_same(ends[0].state_dict(), ends[1].state_dict())


def test_a_callback_that_goes_on_keeps_what_it_has_of_the_epoch(loader, tmp_path):
    """`on_epoch_start` is called once an epoch; in the middle of one it is `on_epoch_resume`."""
    seen = []

    class Counts:
        def __init__(self):
            self._steps = 0

        def on_epoch_start(self, state):
            self._steps = 0

        def on_epoch_resume(self, state):
            seen.append("resumed")

        def on_batch_end(self, state):
            self._steps += 1

        def on_epoch_end(self, state):
            seen.append(self._steps)

        def state_dict(self):
            return {"steps": self._steps}

        def load_state_dict(self, state):
            self._steps = state["steps"]

    for stop in (7, 0):
        run(tmp_path, loader, stop, callbacks=[Counts()])
    assert seen == [5, "resumed", 5, 5]


def test_a_callback_that_remembers_nothing_begins_anew(loader, tmp_path):
    """What it makes at an epoch's start is there when a run goes on in the middle of one, as in the docs' example."""

    class Largest:
        def on_epoch_start(self, state):
            self.largest = 0.0

        def on_batch_end(self, state):
            self.largest = max(self.largest, 1.0)

    for stop in (7, 0):
        run(tmp_path, loader, stop, callbacks=[Largest()])


@pytest.mark.parametrize("stop", [2, 7])
def test_an_interrupted_cell_goes_on_with_the_same_objects(loader, stop, tmp_path):
    """Also with layerkit's own optimizer, whose rates go by whether the head is new."""
    model = network()
    nn.init.zeros_(model[4].weight)
    settings = {"optimizer": None, "lr": None}
    run(tmp_path, loader, stop, model=model, valid=loader, **settings)
    run(tmp_path, loader, model=model, valid=loader, **settings)
    fresh = network()
    nn.init.zeros_(fresh[4].weight)
    assert_same(run(tmp_path / "whole", loader, model=fresh, valid=loader, **settings), model.state_dict())


def test_unfreezing_goes_on_in_the_middle_of_an_epoch(loader, tmp_path):
    """With what was held in that epoch held again."""
    whole = run(tmp_path / "whole", loader, callbacks=[Unfreeze(at=[3])])
    run(tmp_path / "stopped", loader, 7, callbacks=[Unfreeze(at=[3])])
    assert_same(whole, run(tmp_path / "stopped", loader, callbacks=[Unfreeze(at=[3])]))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_what_the_task_learns_goes_on_within_the_epoch_after_the_frozen_phase(loader, stop, tmp_path):
    """It is not put back to the frozen phase's best, which is done once."""

    def train(folder, stop):
        task = MultiTask({"a": Multiclass(2), "b": Binary()}, loss_weights="uncertainty")
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
        )
        numbers = torch.arange(20)
        loader.dataset.targets = {"a": numbers % 2, "b": numbers % 3 == 0}
        try:
            fit(
                model, task, loader, epochs=2, frozen_epochs=1, seed=0, lr=0.01, progress=False,
                checkpoint=tmp_path / folder, callbacks=[StopAt(stop)],
            )  # fmt: skip
        except KeyboardInterrupt:
            assert stop
        return model.state_dict() | task.state_dict()

    whole = train("whole", 0)
    train("stopped", stop)
    assert_same(whole, train("stopped", 0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_optimizers_state_comes_back_in_its_own_dtype(loader, dtype, tmp_path):
    """Torch casts what it loads to that of the parameters; NAdam's product of momenta is float32 in any."""
    settings = {"optimizer": torch.optim.NAdam, "lr": 0.01}
    cast = DataLoader(TensorDataset(INPUTS.to(dtype), TARGETS), batch_size=12)
    whole = run(tmp_path / "whole", cast, model=network().to(dtype), **settings)
    run(tmp_path / "stopped", cast, 7, model=network().to(dtype), **settings)
    assert_same(whole, run(tmp_path / "stopped", cast, model=network().to(dtype), **settings))


class Focal(Multiclass):
    """A task of the user's own, with a setting of its own."""

    def __init__(self, classes, gamma=1.0):
        super().__init__(classes)
        self.gamma = gamma


class Made:
    """A factory that is an object."""

    def __init__(self, kind, **options):
        self.kind, self.options = kind, options

    def __call__(self, parameters):
        return self.kind(parameters, **self.options)


def in_turn(total):
    return lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, total_iters=total), StepLR(optimizer, 1)], milestones=[2]
    )


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            {"schedule": per_batch(lambda o: StepLR(o, 5))},
            {"schedule": per_batch(lambda o: StepLR(o, 2))},
            "step_size",
        ),
        ({"schedule": in_turn(5)}, {"schedule": in_turn(2)}, "_schedulers.0.total_iters was 5 and is 2"),
        (
            {"optimizer": Made(torch.optim.SGD, lr=0.1)},
            {"optimizer": Made(torch.optim.SGD, lr=0.2)},
            r"0\.lr was",
        ),
        ({"task": Focal(2)}, {"task": Focal(2, gamma=5.0)}, "task was"),
        (
            {"metrics": {"f1": MulticlassF1Score(2, average="micro")}},
            {"metrics": {"f1": MulticlassF1Score(2, average="macro")}},
            "metrics was",
        ),
        ({"frozen": 0}, {"frozen": 4}, "trainable was"),
        ({"dtype": torch.float32}, {"dtype": torch.float64}, "model was"),
    ],
    ids=["per batch", "nested schedule", "object", "own task", "metric", "other layer frozen", "dtype"],
)
def test_more_that_changed_is_refused(before, after, message, tmp_path):
    """Though every name and every shape is the same."""

    def call(stop, task=None, frozen=None, dtype=torch.float32, **settings):
        model = network().to(dtype)
        if frozen is not None:
            freeze(model[frozen])
        options = {"optimizer": torch.optim.SGD} | settings
        loader = DataLoader(TensorDataset(INPUTS.to(dtype), TARGETS), batch_size=12)
        fit(
            model, Multiclass(2) if task is None else task, loader, loader, epochs=2, checkpoint=tmp_path,
            callbacks=[StopAt(stop)], progress=False, **options,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        call(5, **before)
    with pytest.raises(CheckpointError, match=message):
        call(0, **after)
    call(0, **before)


class Rotating(v2.RandomRotation):
    """A transform of the user's own."""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            {"task": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0]))},
            {"task": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0]))},
            "task was 'CrossEntropyLoss",
        ),
        (
            {"task": nn.CrossEntropyLoss()},
            {"task": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0]))},
            "task was 'CrossEntropyLoss",
        ),
        (
            {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)},
            {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.001)},
            r"of the optimizer that was made, 0\.lr was 0\.1 and is 0\.001; expected",
        ),
        (
            {"schedule": lambda optimizer: StepLR(optimizer, 1)},
            {"schedule": lambda optimizer: StepLR(optimizer, 2)},
            "of the schedule that was made, step_size was 1 and is 2",
        ),
        ({}, {"frozen": True}, "trainable was '4 parameters .* and is '2 parameters "),
    ],
    ids=["loss weight", "loss weight added", "factory", "schedule factory", "freeze"],
)
def test_what_changed_is_refused(before, after, message, tmp_path):
    """Though name and shapes are the same; and the loss that was passed is not overwritten."""

    def call(stop, task=None, frozen=False, **settings):
        model, task = network(), Multiclass(2) if task is None else task
        if frozen:
            freeze(model[0])
        options = {"optimizer": torch.optim.SGD} | settings
        loader = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=12)
        fit(
            model, task, loader, epochs=2, checkpoint=tmp_path, callbacks=[StopAt(stop)], progress=False, **options
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        call(5, **before)
    with pytest.raises(CheckpointError, match=message):
        call(0, **after)
    if "task" in after:  # not overwritten by what was saved
        assert after["task"].weight.tolist() == [1.0, 9.0]
    call(0, **before)


def test_augmentations_and_functions_are_described_without_addresses():
    """By their settings, and alike in every process."""
    assert describe(v2.RandomRotation(5)) != describe(v2.RandomRotation(90))
    assert describe(v2.Compose([Rotating(5)])) != describe(v2.Compose([Rotating(6)]))
    code = (
        "from torch import nn; from functools import partial; from torchvision.transforms import v2;"
        "from layerkit.training.identity import describe;"
        "f = lambda x: x; g = type('Plain', (), {'__call__': f})();"
        "print(describe(v2.Compose([f, g])), describe(partial(f, f, names={'a', 'b', 'c', 'd'})))"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)
    }
    assert len(said) == 1


def test_the_same_objects_again_return_at_once(tmp_path):
    """As in a notebook, where a finished run has changed optimizer and callback."""

    class Largest:
        def on_batch_end(self, state):
            self.largest = max(getattr(self, "largest", 0.0), 1.0)

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(2))

        def forward(self, logits, target):
            self.centre.lerp_(logits.detach().mean(0), 0.1)
            return nn.functional.cross_entropy(logits - self.centre, target)

    model, callbacks, loss = (
        network(),
        [Largest(), SimpleNamespace(on_epoch_end=lambda state: None)],
        Centred(),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        again = fit(
            model, loss, DATA, DATA, epochs=2, optimizer=optimizer, schedule="one-cycle",
            callbacks=callbacks, checkpoint=tmp_path, progress=False,
        )  # fmt: skip
    assert len(again.history) == 2


def test_the_same_objects_changed_by_hand_are_refused(tmp_path):
    """What the run itself has changed in them is not."""
    model, loss = network(), nn.CrossEntropyLoss(weight=torch.ones(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def call():
        fit(
            model, loss, DATA, epochs=1, optimizer=optimizer, schedule="one-cycle",
            checkpoint=tmp_path, progress=False,
        )  # fmt: skip

    call()
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(CheckpointError, match=r"optimizer was .* and is .*lr=0\.5"):
        call()
    optimizer.param_groups[0]["lr"] = rate
    call()  # put back, it is the same run again
    loss.weight[1] = 9.0
    with pytest.raises(CheckpointError, match="task was"):
        call()


def test_weights_that_a_callback_spoils_within_an_epoch_are_not_saved(loader, tmp_path):
    """The call stops there and says so; the next goes on from the state before."""

    class Spoil:
        def on_batch_end(self, state):
            with torch.no_grad():
                state.model[0].weight.fill_(math.nan)

    settings = {"epochs": 1, "lr": 0.1, "progress": False}
    settings |= {"checkpoint": Checkpoint(tmp_path, every_seconds=1e-9)}
    with pytest.raises(NonFiniteError, match="Weights of the model are not finite in epoch 1") as caught:
        fit(network(), Multiclass(2), loader, callbacks=[Spoil()], **settings)
    assert "The step was on" not in str(caught.value)
    tensors = load_file(tmp_path / "last.safetensors")
    assert all(bool(value.isfinite().all()) for value in tensors.values())


def test_packed_keys_that_look_alike_stay_apart():
    """And one that JSON would change is refused before it is written."""
    one, other = torch.ones(2), torch.zeros(2)
    tensors = {}
    for state in ({1: one, "1": other}, {"a": {"b": one}, "a/b": other}):
        back = unpack(pack(state, tensors, "state"), tensors)
        assert list(back) == list(state)
        assert torch.equal(back["a/b"] if "a" in back else back["1"], other)
    with pytest.raises(TypeError, match=r"state has the key \(1, 2\)"):
        pack({(1, 2): one}, {}, "state")


def test_a_full_disk_is_a_checkpoint_error(tmp_path, monkeypatch):
    """Whatever the library that writes calls it."""
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        fit(network(), Multiclass(2), DATA, epochs=1, checkpoint=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_weights_that_another_process_tidied_away_are_written_again(tmp_path):
    """A job that was started twice leaves a whole checkpoint."""

    class Tidy:
        def on_epoch_end(self, state):
            for file in tmp_path.glob("best-*"):
                file.unlink()

    for _ in range(2):
        fit(network(), Multiclass(2), DATA, DATA, epochs=3, seed=0, callbacks=[Tidy()], checkpoint=tmp_path)


@pytest.mark.parametrize("valid", [None, DATA])
def test_weights_that_the_last_step_spoiled_are_no_success(valid):
    """The model holds those that it began with, where no epoch was better."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="not finite in epoch 1"):
        fit(
            model, Multiclass(2), [(INPUTS * 10, TARGETS)], valid, epochs=1, optimizer=torch.optim.SGD, lr=3e38,
            progress=False,
        )  # fmt: skip
    assert_same(before, model.state_dict())


def test_a_gradient_whose_sum_alone_is_too_large_is_taken():
    """Its numbers are finite, only their sum is not."""
    model = nn.Linear(3, 1, bias=False)
    task = lambda output, target: output.sum() * 1e38  # noqa: E731
    fit(model, task, [(torch.ones(3, 3), torch.ones(3, 1))], epochs=1, optimizer=torch.optim.SGD, lr=1e-40)
    assert model.weight.isfinite().all()


def test_early_stopping_recovers_from_a_first_nan():
    """The first number after it is better than none."""
    stopping = EarlyStopping(patience=2)
    state = State(nn.Linear(1, 1), Multiclass(2), "valid_x", False, 9, [], is_last_phase=True)
    for value in (float("nan"), 0.1, 0.2, 0.3, float("nan")):
        state.row = {"valid_x": value}
        stopping.on_epoch_end(state)
    assert state.stopped is None
    stopping = EarlyStopping(patience=2)
    for _ in range(2):
        state.row = {"valid_x": float("nan")}
        stopping.on_epoch_end(state)
    assert state.stopped is not None


class Endless(IterableDataset):
    """A stream that does not know how long it is."""

    def __iter__(self):
        return iter(zip(INPUTS, TARGETS, strict=True))


def test_a_stream_without_a_length_is_trained_on(tmp_path):
    """With a schedule that needs none; to go on, too."""
    stream = DataLoader(Endless(), batch_size=12)
    history = fit(
        network(), Multiclass(2), stream, stream, epochs=2, checkpoint=tmp_path, progress=False
    ).history
    assert len(history) == 2


def test_more_batches_than_a_loader_told_are_named():
    """A schedule that goes by batches cannot go on then."""

    class Fewer(list):
        def __len__(self):
            return 2

    with pytest.raises(ValueError, match="let it be the most that may come"):
        fit(network(), Multiclass(2), Fewer(DATA), epochs=1, progress=False)


class PerClass(Metric):
    """Two numbers."""

    higher_is_better = True

    def update(self, answers, target): ...

    def compute(self):
        return torch.tensor([0.5, 0.25])


class Fussy(MulticlassAccuracy):
    """A metric that does not like every sample."""

    def compute(self):
        if getattr(self, "computed", 0) >= 2:
            raise ValueError("only one class")
        self.computed = getattr(self, "computed", 0) + 1
        return super().compute()


@pytest.mark.parametrize(
    ("metrics", "kind", "message"),
    [
        ({"loss": MulticlassAccuracy(2)}, ValueError, "A metric is called 'loss'"),
        ([MulticlassAccuracy(2)], TypeError, "expected torchmetrics' metrics by name"),
        ({"each": PerClass()}, TypeError, "The metric 'each' gives of shape"),
    ],
)
def test_metrics_of_no_use_are_named(metrics, kind, message):
    """Most of them before anything is trained."""
    with pytest.raises(kind, match=message):
        fit(network(), Multiclass(2), DATA, DATA, epochs=1, metrics=metrics, progress=False)


@pytest.mark.filterwarnings("default:The confidence intervals could not be measured")
def test_a_metric_that_fails_in_an_interval_costs_the_interval_alone():
    """The run is over by then, and is given back."""
    with pytest.warns(UserWarning, match=r"could not be measured \(ValueError: only one class\)"):
        done = fit(
            network(), Multiclass(2), DATA, DATA, epochs=2, metrics={"fussy": Fussy(2)}, progress=False
        )
    assert len(done.history) == 2
    assert done.figures["valid_fussy"] == done.history[done.best_epoch - 1]["valid_fussy"]
    assert done.figures["valid_fussy"].low is None


@pytest.mark.parametrize("settings", [{"schedule": "cosin"}, {"nonfinite": "foo"}, {"lr": -1}, {"seed": 1.5}])
def test_a_refused_call_changes_nothing(settings):
    """Neither modes nor what is frozen, and no callback was called."""
    model = network().train()
    with pytest.raises(ValueError, match="expected"):
        fit(model, Multiclass(2), DATA, DATA, epochs=2, callbacks=[Unfreeze(at=[2])], **settings)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_find_lr_leaves_generators_and_gradients(loader):
    """A run after it is the one that it would have been."""
    model, state = network(), torch.get_rng_state()
    find_lr(model, Multiclass(2), loader, steps=12)
    assert torch.equal(torch.get_rng_state(), state)
    assert loader.batch_sampler.epoch == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_numbers_of_numpy_are_taken(tmp_path):
    """As Python's own, also where they are written down."""
    import numpy as np

    numbers = {"lr": np.float32(0.01), "seed": np.int64(3), "clip_norm": np.float32(1)}
    fit(network(), Multiclass(2), DATA, epochs=1, checkpoint=tmp_path, progress=False, **numbers)


def test_a_network_that_calls_view_is_trained_as_it_is_written():
    """Channels-last, `view` would fail; whoever asks for it is told nothing new, but by torch."""

    class Tutorial(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(216, 2)

        def forward(self, inputs):
            return self.fc(self.conv(inputs).relu().view(-1, 216))

    assert "channels-last" not in fit(Tutorial(), Multiclass(2), DATA, epochs=1, progress=False).device
    assert "channels-last" in fit(network(), Multiclass(2), DATA, epochs=1, progress=False).device
    with pytest.raises(RuntimeError, match="view"):
        fit(Tutorial(), Multiclass(2), DATA, epochs=1, channels_last=True, progress=False)


def test_lazy_layers_are_named_where_weights_must_be_kept(tmp_path):
    """They have none before the first batch."""
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"The layer of 1\.weight has no weights yet"):
        fit(model, Multiclass(2), DATA, epochs=1, checkpoint=tmp_path)


@dataclass(frozen=True)
class Noting:
    """A callback that can have no hash, since its list has none."""

    rows: list = field(default_factory=list)

    def on_epoch_end(self, state):
        self.rows.append(dict(state.row))


def test_any_object_may_be_a_callback_or_a_metric_and_be_passed_again(loader, tmp_path):
    """Without a hash, with keys that JSON has not, with states that a run fills."""

    class Keyed:
        def __init__(self, names):
            self.names = names

        def on_epoch_end(self, state):
            self.names[state.epoch, "b"] = 1.0

    callbacks, metrics = [Noting(), Keyed({("a", 1): 0.0})], {"auroc": BinaryAUROC()}

    def call(callbacks):
        model = nn.Sequential(network(), nn.Linear(2, 1))
        data = [(INPUTS, TARGETS.float().unsqueeze(1))]
        return fit(
            model, Binary(), data, data, epochs=1, seed=0, callbacks=callbacks, metrics=metrics, checkpoint=tmp_path,
            progress=False,
        )  # fmt: skip

    call(callbacks)
    assert len(call([Noting(), callbacks[1]]).history) == 1


def test_settings_of_callbacks_are_compared_by_value(loader, tmp_path):
    """Also tensors too long to be written out, and sets."""

    class Weighing:
        def __init__(self, weights, names):
            self.weights, self.names = weights, names

        def on_epoch_end(self, state):
            pass

    weights = torch.zeros(5000)
    run(tmp_path, loader, callbacks=[Weighing(weights, {"a", "b"})])
    run(tmp_path, loader, callbacks=[Weighing(weights.clone(), {"b", "a"})])
    weights[2500] = 1e-6
    with pytest.raises(CheckpointError, match="callbacks was"):
        run(tmp_path, loader, callbacks=[Weighing(weights, {"a", "b"})])
    with pytest.raises(CheckpointError, match="callbacks was"):
        run(tmp_path, loader, callbacks=[Weighing(torch.zeros(5000), {"a"})])
