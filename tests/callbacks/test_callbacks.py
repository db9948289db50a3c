"""What callbacks do to a run, against independent calculations."""

import csv
import signal

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from layerkit import Binary, Multiclass, Regression, fit
from layerkit.callbacks import EMA, CSVLog, CutMix, EarlyStopping, MixUp, State, TensorBoard, Unfreeze

DATA = [(torch.linspace(-1, 1, 32).reshape(8, 4), torch.arange(8) % 2)] * 3


def run(*callbacks, model=None, data=DATA, task=None, **changes):
    torch.manual_seed(0)
    model = nn.Linear(4, 2) if model is None else model
    settings = {"epochs": 4, "seed": 0, "progress": False, "lr": 0.1} | changes
    return model, fit(model, task or Multiclass(2), data, data, callbacks=callbacks, **settings)


class Recorder:
    """Notes each moment."""

    def __init__(self):
        self.seen = []

    def on_fit_start(self, state):
        self.seen.append("start")

    def on_batch_start(self, state):
        assert state.inputs.shape == (8, 4)
        self.seen.append("batch")

    def on_epoch_end(self, state: State):
        self.seen.append(f"epoch {state.epoch} of {state.epochs}: {sorted(state.row)[0]}")

    def on_fit_end(self, state):
        self.seen.append("end")


def test_moments_come_in_order():
    """A callback needs only the moments that it wants, and sees the run at each of them."""
    recorder = Recorder()
    run(recorder, epochs=2)
    epoch = ["batch"] * 3
    assert recorder.seen == [
        "start", *epoch, "epoch 1 of 2: epoch", *epoch, "epoch 2 of 2: epoch", "end",
    ]  # fmt: skip


def test_what_remembers_must_be_able_to_recall(tmp_path):
    """Half of a memory is refused before training, not when a run is to go on; so is what no file can hold."""

    class Forgetful:
        def on_epoch_end(self, state): ...

        def state_dict(self):
            return {"seen": object()}

    with pytest.raises(TypeError, match=r"has state_dict\(\) and no load_state_dict\(\); expected both"):
        run(Forgetful())
    Forgetful.load_state_dict = lambda self, state: None
    with pytest.raises(TypeError, match=r"Forgetful\.state_dict\(\)/seen is a object"):
        run(Forgetful(), checkpoint=tmp_path)


def test_a_misspelt_moment_is_refused():
    """A method that would never be called is an error, not a silence."""

    class Misspelt:
        def on_epoch_ends(self, state): ...

    with pytest.raises(
        TypeError, match=r"'on_epoch_ends', which is never called.*Did you mean 'on_epoch_end'"
    ):
        run(Misspelt())
    with pytest.raises(TypeError, match="has none of the moments"):
        run(object())
    with pytest.raises(TypeError, match="the class EarlyStopping; expected an object"):
        run(EarlyStopping)


def test_early_stopping_stops_when_it_should():
    """With a rate of next to nothing the third epoch without an improvement is the last."""
    _, result = run(EarlyStopping(patience=3, min_delta=1e-3), epochs=20, lr=1e-9)
    assert len(result.history) == 4
    assert result.best_epoch in (1, 2, 3, 4)
    _, whole = run(EarlyStopping(patience=3), epochs=6)
    assert len(whole.history) == 6


def test_early_stopping_follows_the_direction_of_the_metric():
    """An accuracy is better when it is higher."""
    stopping = EarlyStopping(patience=1)
    state = State(None, None, "valid_accuracy", False, 9, [], is_last_phase=True)
    for value, stops in ((0.5, False), (0.6, False), (0.55, True)):
        state.row = {"valid_accuracy": value}
        stopping.on_epoch_end(state)
        assert bool(state.stopped) == stops


def test_a_run_that_stopped_early_is_finished(tmp_path):
    """The same call afterwards trains no more."""
    settings = {"epochs": 20, "lr": 1e-9, "checkpoint": tmp_path}
    _, first = run(EarlyStopping(patience=2, min_delta=1e-3), **settings)
    _, second = run(EarlyStopping(patience=2, min_delta=1e-3), **settings)
    assert list(first.history) == list(second.history)
    assert len(second.history) == 3


def test_ema_is_the_average_that_a_loop_would_keep():
    """What fit returns is the average of the weights after each step, with the rise at the start."""
    seen = []

    class Watch:
        def on_batch_end(self, state):
            seen.append(state.model.weight.detach().clone())

    model, result = run(EMA(decay=0.9), Watch(), epochs=3, schedule="constant")
    average, best = None, {}
    for step, weight in enumerate(seen):
        kept = min(0.9, (1 + step) / (10 + step))
        average = weight.clone() if average is None else average * kept + weight * (1 - kept)
        best[step // 3 + 1] = average.clone()
    assert torch.allclose(model.weight, best[result.best_epoch], atol=1e-6)
    assert not torch.allclose(model.weight, seen[-1], atol=1e-4)


@pytest.mark.parametrize("mixing", [MixUp(1.0), CutMix(1.0)], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("task", [Multiclass(2), Binary()], ids=["multiclass", "binary"])
def test_mixing_blends_pictures_and_targets_alike(mixing, task):
    """Where the pictures are constant, a picture's blend tells its target's."""

    class Watch:
        def on_batch_start(self, state):
            share = state.inputs.mean(dim=(1, 2, 3))  # class 1 is white, class 0 black
            soft = state.target if isinstance(task, Binary) else state.target[:, 1]
            assert torch.allclose(share, soft, atol=1e-5)
            blends.update(soft.tolist())

    blends = set()
    target = torch.tensor([0, 1, 1, 0])
    pictures = target.float().reshape(4, 1, 1, 1).expand(4, 3, 8, 8).clone()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, task.out_features))
    run(mixing, Watch(), model=model, data=[(pictures, target)], task=task)
    assert any(0 < blend < 1 for blend in blends)


def test_mixing_is_refused_where_it_makes_no_sense():
    """Numbers cannot be blended as classes are."""
    with pytest.raises(TypeError, match=r"MixUp blends the targets.*Regression"):
        run(MixUp(), model=nn.Linear(4, 1), data=[(DATA[0][0], torch.rand(8))], task=Regression())


def test_stages_open_one_after_another():
    """In each of the epochs that were named, one more stage moves."""
    torch.manual_seed(0)
    model = resnet18(num_classes=2)
    moved = []

    class Watch:
        def on_epoch_start(self, state):
            self.before = {name: p.detach().clone() for name, p in state.model.named_parameters()}

        def on_epoch_end(self, state):
            parts = {
                n.split(".")[0]
                for n, p in state.model.named_parameters()
                if not torch.equal(p, self.before[n])
            }
            moved.append(parts)

    data = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))]
    run(Unfreeze(at=[2, 3]), Watch(), model=model, data=data, epochs=3, lr=1e-3, schedule="constant")
    assert moved == [{"fc"}, {"fc", "layer4"}, {"fc", "layer4", "layer3"}]


def test_the_log_holds_the_rows(tmp_path):
    """After each epoch the file is what the history is."""
    _, result = run(CSVLog(tmp_path / "log.csv"))
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["valid_loss"]) for row in rows] == [row["valid_loss"] for row in result.history]


def test_tensorboard_gets_every_figure(tmp_path):
    """The events that TensorBoard reads are the history's figures."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, result = run(TensorBoard(tmp_path))
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    losses = [event.value for event in events.Scalars("valid_loss")]
    assert losses == pytest.approx([row["valid_loss"] for row in result.history])


def test_what_callbacks_remember_survives_a_restart(tmp_path):
    """A run that stops after each epoch, and is called again, ends as one that never stopped."""

    class Stop(Exception):
        pass

    class Fail:
        def __init__(self, at):
            self._at = at

        def on_epoch_start(self, state):
            if state.epoch == self._at:
                raise Stop
            started.append(state.epoch)

    started = []
    settings = {"epochs": 9, "lr": 1e-4, "schedule": "constant"}
    patient = {"patience": 4, "min_delta": 0.01}
    whole, expected = run(EMA(0.8), EarlyStopping(**patient), Fail(0), **settings)
    assert len(expected.history) == 5  # four epochs after the first
    started.clear()
    for epoch in (2, 3, 5):
        with pytest.raises(Stop):
            run(EMA(0.8), EarlyStopping(**patient), Fail(epoch), checkpoint=tmp_path, **settings)
    model, result = run(EMA(0.8), EarlyStopping(**patient), Fail(0), checkpoint=tmp_path, **settings)
    assert started == [1, 2, 3, 4, 5]
    assert torch.equal(model.weight, whole.weight)
    assert [row["valid_loss"] for row in result.history] == [row["valid_loss"] for row in expected.history]


def test_a_callback_that_is_used_again_begins_anew():
    """As in the loop over the folds of a cross-validation."""
    stopping = EarlyStopping(patience=2, min_delta=1e-3)
    lengths = [len(run(stopping, epochs=9, lr=1e-9)[1].history) for _ in range(2)]
    assert lengths == [3, 3]


def test_a_late_signal_is_not_swallowed():
    """Ctrl-C after the last batch still ends the script."""

    class Late:
        def on_fit_end(self, state):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(Late(), epochs=1)
