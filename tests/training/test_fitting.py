"""What `fit` promises besides parity: the best weights, its settings, and its errors."""

import math

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from layerkit import (
    Binary,
    LayerkitWarning,
    Loaders,
    Multiclass,
    MultiTask,
    NonFiniteError,
    Predictor,
    Preset,
    Regression,
    evaluate,
    fit,
    replace_head,
    table_loaders,
)
from layerkit.callbacks import EMA
from layerkit.training.schedules import per_batch


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_model_holds_the_best_epoch(blobs, linear):
    """With a rate that ruins later epochs, the model evaluates exactly as the best epoch's row says."""
    run = fit(
        linear,
        Multiclass(2),
        blobs.train,
        blobs.valid,
        epochs=6,
        optimizer=torch.optim.SGD(linear.parameters(), lr=0.1),
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=1000.0),
        progress=False,
    )
    losses = [row["valid_loss"] for row in run.history]
    assert run.best_epoch == 1 + losses.index(min(losses)) < 6
    assert evaluate(linear, Multiclass(2), blobs.valid)["loss"] == min(losses) == run.best_value
    assert "lowest valid_loss" in run.reason


def test_of_equal_epochs_the_first_is_kept(blobs, linear):
    """When nothing changes after the first epoch, the first is the best."""
    run = fit(
        linear,
        Multiclass(2),
        blobs.train,
        blobs.valid,
        epochs=3,
        monitor="valid_accuracy",
        optimizer=torch.optim.SGD(linear.parameters(), lr=1e-12),
        progress=False,
    )
    assert len({row["valid_accuracy"] for row in run.history}) == 1
    assert run.best_epoch == 1


def test_without_validation_the_last_weights_are_kept(blobs, linear):
    """Nothing is validated, the reason says so, and the weights are those after the last step."""
    torch.manual_seed(0)
    run = fit(linear, Multiclass(2), blobs.train, epochs=2, progress=False)
    assert run.best_epoch == 2
    assert "nothing to validate on" in run.reason
    assert "valid_loss" not in run.history[0]


def test_history_rows(blobs, linear, tmp_path):
    """A row has the documented columns in order, pandas takes it, and CSV gives it back."""
    pandas = pytest.importorskip("pandas")
    run = fit(linear, Multiclass(2), blobs.train, blobs.valid, epochs=2, progress=False)
    columns = ["epoch", "phase", "train_loss", "valid_loss", "valid_accuracy", "valid_macro_f1"]
    columns += ["lr", "seconds", "images_per_second"]
    assert list(run.history[0]) == columns
    frame = pandas.DataFrame(run.history)
    assert list(frame.columns) == columns
    run.history.to_csv(tmp_path / "history.csv")
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "history.csv"), frame)


def test_curves_are_drawn_and_saved(blobs, linear, tmp_path):
    """`history.plot` saves a picture, returns its axes, and draws into axes that it is given."""
    from matplotlib.figure import Figure

    run = fit(linear, Multiclass(2), blobs.train, blobs.valid, epochs=3, progress=False)
    assert (run.history.monitor, run.history.best_epoch) == ("valid_loss", run.best_epoch)
    axes = run.history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [line.get_label() for line in axes.lines] == ["train_loss", "valid_loss", "kept"]
    assert list(axes.lines[2].get_xdata()) == [run.best_epoch]
    assert list(axes.lines[1].get_ydata()) == [row["valid_loss"] for row in run.history]
    own = Figure().add_subplot()
    assert run.history.plot(ax=own) is own


def test_one_line_an_epoch(blobs, linear, capsys):
    """The progress stream gets one line an epoch and says which weights the model holds."""
    fit(linear, Multiclass(2), blobs.train, blobs.valid, epochs=3)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert "the model holds the weights of epoch" in lines[-1]
    fit(linear, Multiclass(2), blobs.train, blobs.valid, epochs=1, progress=False)
    assert capsys.readouterr().err == ""


def test_seed_repeats_a_run_and_leaves_the_global_generator_alone(blobs):
    """Two runs with one seed end in the same bits, and the global generator does not notice."""
    ends = []
    for _ in range(2):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        before = torch.get_rng_state()
        fit(model, Multiclass(2), blobs.train, blobs.valid, epochs=2, seed=7, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(snapshot(model))
        torch.rand(100)
    assert same(*ends)


WEIGHTED = {
    "plain": {},
    "weighted": {"class_weight": [1.0, 7.0]},
    "balanced": {"class_weight": "balanced"},
    "ignoring": {"ignore_index": 9},
    "both": {"class_weight": [3.0, 1.0], "ignore_index": 9},
}


def uneven_targets(n, ignoring):
    targets = (torch.arange(n) % 5 == 0).long()
    return torch.where(torch.arange(n) % 4 == 1, 9, targets) if ignoring else targets


@pytest.mark.parametrize("options", WEIGHTED.values(), ids=WEIGHTED)
def test_accumulation_weighs_a_short_last_group(linear, options):
    """Batches of 8, 8 and 4 accumulated in twos step as batches of 16 and 4 do, whatever a class weighs."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 4, generator=generator)
    data = TensorDataset(inputs, uneven_targets(20, "ignore_index" in options))
    ends = []
    for size, accumulate in ((16, 1), (8, 2)):
        model = nn.Linear(4, 2)
        model.load_state_dict(linear.state_dict())
        loader = DataLoader(data, batch_size=size)
        run = fit(
            model, Multiclass(2, **options), loader, epochs=2, accumulate=accumulate,
            optimizer=torch.optim.SGD, lr=0.5, progress=False,
        )  # fmt: skip
        ends.append((model.weight.detach().clone(), run.history[-1]["train_loss"]))
    torch.testing.assert_close(ends[0][0], ends[1][0])
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-5)


def several(**options):
    """Make a task of three parts, each of which divides its loss by something else."""
    parts = {
        "shape": Multiclass(2, class_weight=[1.0, 7.0]),
        "kind": Multiclass(2, ignore_index=9),
        "on": Binary(),
    }
    return MultiTask(parts, **options)


def several_targets(n):
    return {
        "shape": uneven_targets(n, False),
        "kind": uneven_targets(n, True),
        "on": torch.arange(n) % 3 == 0,
    }


@pytest.mark.parametrize(
    "make",
    [
        several,
        lambda: several(loss_weights={"shape": 1.0, "kind": 3.0, "on": 0.5}),
        lambda: several(loss_weights="uncertainty"),
        lambda: nn.CrossEntropyLoss(weight=torch.tensor([1.0, 7.0])),
        lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 7.0]), ignore_index=9, label_smoothing=0.1),
    ],
    ids=["sum", "weighted sum", "learned sum", "plain", "plain, ignoring"],
)
def test_accumulation_weighs_each_part_and_a_plain_loss_too(make):
    """Batches accumulated in twos, and evaluated in pieces, come to what torch makes of the whole at once."""
    inputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    is_plain = isinstance(make(), nn.CrossEntropyLoss)
    targets = uneven_targets(20, make().ignore_index == 9) if is_plain else several_targets(20)

    def batches(size):
        pieces = [slice(start, start + size) for start in range(0, 20, size)]
        return [
            (inputs[p], targets[p] if is_plain else {name: column[p] for name, column in targets.items()})
            for p in pieces
        ]

    ends = []
    for size, accumulate in ((20, 1), (8, 3)):
        torch.manual_seed(0)
        model, task = nn.Linear(4, 2 if is_plain else 5), make()
        run = fit(
            model, task, batches(size), batches(size), epochs=2, accumulate=accumulate,
            optimizer=torch.optim.SGD, lr=0.5, metrics={}, progress=False,
        )  # fmt: skip
        measured = float(evaluate(model, task, batches(size), metrics={})["loss"])
        learned = [p.detach().clone() for p in task.parameters()]
        ends.append((model.weight.detach().clone(), learned, run.history[1]["train_loss"], measured))
        with torch.no_grad():
            whole = task(model(inputs), targets) if is_plain else task.loss(model(inputs), targets)
        assert measured == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(ends[0], ends[1])


def test_the_loss_of_a_part_is_that_of_all_its_pictures():
    """`<part>_loss` over batches of unequal weight equals the part's loss of all at once."""
    inputs, targets = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), several_targets(20)
    batches = [(inputs[p], {k: v[p] for k, v in targets.items()}) for p in (slice(0, 8), slice(8, 20))]
    model, task = nn.Linear(4, 5), several()
    figures = evaluate(model, task, batches)
    with torch.no_grad():
        whole = task.part_losses(model(inputs), task.check(targets))
    assert [figures[f"{name}_loss"] for name in whole] == pytest.approx(
        [loss.item() for loss in whole.values()]
    )


def test_clip_norm_bounds_the_step(blobs, linear):
    """One SGD step at rate 1 is no longer than the largest norm."""
    before = torch.cat([p.detach().flatten().clone() for p in linear.parameters()])
    one_batch = [next(iter(blobs.train))]
    fit(
        linear,
        Multiclass(2),
        one_batch,
        epochs=1,
        optimizer=torch.optim.SGD,
        lr=1.0,
        clip_norm=1e-3,
        progress=False,
    )
    after = torch.cat([p.detach().flatten() for p in linear.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_per_batch_and_per_epoch_schedules(blobs, linear):
    """StepLR steps by epoch, per_batch(StepLR) by batch, OneCycleLR by batch by itself; rows have the highest."""
    steps = len(blobs.train)

    def rates(schedule):
        run = fit(
            linear, Multiclass(2), blobs.train, epochs=2,
            optimizer=torch.optim.SGD(linear.parameters(), lr=1e-3), schedule=schedule, progress=False,
        )  # fmt: skip
        return [row["lr"] for row in run.history]

    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def one_cycle(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=2 * steps)

    assert rates(halve) == pytest.approx([1e-3, 5e-4])
    assert rates(per_batch(halve)) == pytest.approx([1e-3, 1e-3 * 0.5**steps])
    assert rates(one_cycle)[0] == pytest.approx(1e-3, rel=0.1)
    assert rates("constant") == rates(None) == [1e-3, 1e-3]


@pytest.mark.parametrize("name", ["one-cycle", "cosine", "step", "plateau", "constant"])
@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD, torch.optim.Adagrad])
def test_named_schedules_run_through(name, optimizer, blobs, linear):
    """Every schedule by name runs with layerkit's optimizer and with classes, momentum or none."""
    run = fit(
        linear, Multiclass(2), blobs.train, blobs.valid, epochs=3, schedule=name,
        optimizer=optimizer, lr=0.01, progress=False,
    )  # fmt: skip
    assert all(math.isfinite(row["valid_loss"]) for row in run.history)


def test_own_metrics_replace_the_default_ones(blobs, linear):
    """A torchmetrics metric by any name is shown and can be monitored."""
    run = fit(
        linear, Multiclass(2), blobs.train, blobs.valid, epochs=1,
        metrics={"top": MulticlassAccuracy(2)}, monitor="valid_top", progress=False,
    )  # fmt: skip
    assert run.best_value == run.history[0]["valid_top"]
    assert "valid_accuracy" not in run.history[0]


def test_regression_learns_in_the_users_units(linear):
    """Targets in the thousands are learnt at the default rate, and the metrics are in thousands."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4, generator=generator)
    targets = 5000 + 1000 * inputs[:, 0]
    loader = DataLoader(TensorDataset(inputs, targets.double()), batch_size=20)
    model, task = nn.Linear(4, 1), Regression()
    run = fit(model, task, loader, loader, epochs=30, lr=0.03, progress=False)
    assert run.history[-1]["valid_rmse"] < 50
    assert run.history[-1]["valid_r2"] > 0.99
    assert task.activate(model(torch.zeros(1, 4))).item() == pytest.approx(5000, abs=50)


def test_a_loss_that_is_not_finite_stops_before_the_step(linear):
    """The batch is named, and the weights are those that the batches before it left."""
    good, bad = torch.ones(4, 4), torch.full((4, 4), torch.inf)
    loader = [(good, torch.zeros(4).long()), (bad, torch.zeros(4).long())]
    with pytest.raises(NonFiniteError, match=r"epoch 1/1, batch 1; expected a finite number"):
        fit(linear, Multiclass(2), loader, epochs=1, progress=False)
    assert all(bool(p.isfinite().all()) for p in linear.parameters())


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    """A finite loss with an infinite gradient (the square root at zero) is found too."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, inputs):
            return torch.sqrt(self.scale.abs()) * inputs

    model = Root()
    with pytest.raises(NonFiniteError, match="gradient is"):
        fit(
            model,
            nn.CrossEntropyLoss(),
            [(torch.rand(4, 2), torch.zeros(4).long())],
            epochs=1,
            progress=False,
        )
    assert model.scale.item() == 0


def test_an_interruption_leaves_the_best_weights(blobs, linear):
    """Ctrl-C in the third epoch is raised again, and the model holds the best of the first two."""

    class Interrupted:
        dataset = blobs.train.dataset
        epochs = 0

        def __iter__(self):
            self.epochs += 1
            batches = iter(blobs.train)
            yield next(batches)
            if self.epochs == 3:
                raise KeyboardInterrupt
            yield from batches

    rows = []

    class Watch(MulticlassAccuracy):
        def compute(self):
            value = super().compute()
            rows.append((float(value), snapshot(linear)))
            return value

    with pytest.raises(KeyboardInterrupt):
        fit(
            linear, Multiclass(2), Interrupted(), blobs.valid, epochs=5, metrics={"watched": Watch(2)},
            monitor="valid_watched", optimizer=torch.optim.SGD, lr=1e-4, progress=False,
        )  # fmt: skip
    assert len(rows) == 2
    assert same(snapshot(linear), max(rows, key=lambda row: row[0])[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, r"`epochs` is 0; expected a whole number of at least 1\. To evaluate"),
        ({"epochs": 2.5}, r"`epochs` is 2\.5"),
        ({"epochs": True}, r"`epochs` is True"),
        ({"epochs": 2, "frozen_epochs": 3}, r"`frozen_epochs` is 3 and `epochs` is 2"),
        ({"epochs": 1, "accumulate": 0}, "`accumulate` is 0"),
        ({"epochs": 1, "clip_norm": -1.0}, r"`clip_norm` is -1\.0"),
        ({"epochs": 1, "lr": -0.1}, r"`lr` is -0\.1"),
        ({"epochs": 1, "monitor": "valid_acuracy"}, "Did you mean 'valid_accuracy'"),
        ({"epochs": 1, "device": "cuda:99"}, "cannot be used here"),
        ({"epochs": 1, "precision": "bf32"}, "`precision` is 'bf32'"),
        ({"epochs": 1, "precision": "fp16", "device": "cpu"}, "'fp16' on a CPU"),
        ({"epochs": 1, "schedule": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_wrong_arguments_change_nothing(arguments, message, blobs, linear):
    """Each is one ValueError that names the value, and the weights stay as they were."""
    before = snapshot(linear)
    with pytest.raises(ValueError, match=message):
        fit(linear, Multiclass(2), blobs.train, blobs.valid, **arguments)
    assert same(before, snapshot(linear))


def test_monitor_needs_a_validation_part_and_a_direction(blobs, linear):
    """Both are said before training."""
    with pytest.raises(ValueError, match="`valid` is None"):
        fit(linear, Multiclass(2), blobs.train, epochs=1, monitor="valid_accuracy")
    with pytest.raises(ValueError, match="does not say whether high or low"):
        fit(
            linear, Multiclass(2), blobs.train, blobs.valid, epochs=1,
            metrics={"confusion": MulticlassConfusionMatrix(2)}, monitor="valid_confusion",
        )  # fmt: skip


def test_optimizers_that_do_not_fit_are_refused(blobs, linear):
    """One that was made for another model, one that lacks parameters, and a rate given twice."""
    foreign = torch.optim.SGD(nn.Linear(4, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"made before replace_head\(\)"):
        fit(linear, Multiclass(2), blobs.train, epochs=1, optimizer=foreign)
    with pytest.raises(ValueError, match="expected one of the two"):
        fit(
            linear,
            Multiclass(2),
            blobs.train,
            epochs=1,
            lr=1.0,
            optimizer=torch.optim.SGD(linear.parameters()),
        )
    with pytest.warns(LayerkitWarning, match="lacks 1 trainable parameters of the model, bias"):
        fit(
            linear, Multiclass(2), blobs.train, epochs=1, progress=False,
            optimizer=torch.optim.SGD([linear.weight], lr=0.1),
        )  # fmt: skip
    with pytest.raises(TypeError, match="expected a torch optimizer"):
        fit(linear, Multiclass(2), blobs.train, epochs=1, optimizer=lambda parameters: None)
    linear.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        fit(linear, Multiclass(2), blobs.train, epochs=1)


def test_schedules_that_do_not_fit_are_refused(blobs, linear):
    """One that belongs to another optimizer, and something that is no schedule."""
    own = torch.optim.SGD(linear.parameters(), lr=0.1)
    other = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(linear.parameters(), lr=0.1), 1)
    with pytest.raises(ValueError, match="made for another optimizer"):
        fit(linear, Multiclass(2), blobs.train, epochs=1, optimizer=own, schedule=other)
    with pytest.raises(TypeError, match="expected a torch scheduler"):
        fit(linear, Multiclass(2), blobs.train, epochs=1, optimizer=own, schedule=lambda optimizer: 3)


def test_loaders_that_do_not_fit_are_refused(linear):
    """A batch that is no pair, and a loader without a batch."""
    with pytest.raises(TypeError, match="expected pairs of"):
        fit(linear, Multiclass(2), [torch.ones(2, 4)], epochs=1, progress=False)
    with pytest.raises(ValueError, match="gave no batch"):
        fit(linear, Multiclass(2), [], epochs=1, progress=False)


def test_detection_is_refused():
    """A detector computes its own losses, and the message says how to train it."""
    detector = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    with pytest.raises(TypeError, match="detects objects"):
        fit(detector, Multiclass(2), [], epochs=1)


def test_a_channels_last_model_comes_back_as_it_was():
    """The memory format is a matter of speed: afterwards it is as the user left it."""
    data = [(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))]
    for format_ in (torch.contiguous_format, torch.channels_last):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        model.to(memory_format=format_)
        run = fit(model, Multiclass(2), data, data, epochs=1, progress=False)
        assert "channels-last" in run.device
        assert model[0].weight.is_contiguous(memory_format=format_)


def test_bf16_on_a_cpu_is_near_fp32(blobs):
    """The forward pass in bf16 gives nearly the loss of fp32, with weights that stay fp32."""
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        model = nn.Linear(4, 2)
        torch.manual_seed(2)
        run = fit(model, Multiclass(2), blobs.train, epochs=1, precision=precision, progress=False)
        losses.append(run.history[0]["train_loss"])
        assert model.weight.dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_bytes_are_refused_and_large_floats_warned_of():
    """Pictures that nobody has normalised are found in the first batch."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    pictures, targets = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8), torch.arange(4) % 2
    with pytest.raises(TypeError, match="pictures of dtype uint8; expected normalised"):
        fit(model, Multiclass(2), [(pictures, targets)], epochs=1, progress=False)
    with pytest.warns(LayerkitWarning, match=r"values up to 2.., as bytes do"):
        fit(model, Multiclass(2), [(pictures.float(), targets)], epochs=1, progress=False)


def test_a_batch_of_one_is_explained_where_batch_norm_fails():
    """torch's own message does not say what to do."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"a batch of a single picture.*drop_last=True"):
        fit(model, Multiclass(2), [(torch.randn(1, 3), torch.tensor([1]))], epochs=1, progress=False)


def test_the_best_epochs_figures_know_their_intervals():
    """The figures are the history's, whose rows stay plain numbers."""
    torch.manual_seed(0)
    inputs = torch.randn(60, 4)
    data = [(inputs, (inputs[:, 0] + torch.randn(60) > 0).long())]
    run = fit(nn.Linear(4, 2), Multiclass(2), data, data, epochs=3, lr=0.1, progress=False)
    row = run.history[run.best_epoch - 1]
    accuracy = run.figures["valid_accuracy"]
    assert accuracy == row["valid_accuracy"]
    assert accuracy.low < accuracy < accuracy.high
    assert all(type(value) in (int, str, float) for value in row.values())


class Penalised(MultiTask):
    """Add a price to the sum, as a task of one's own may."""

    def criterion(self, logits, target):
        return super().criterion(logits, target) + 100


def test_a_criterion_of_ones_own_is_called():
    """Whatever the task that it derives from sums."""
    inputs, targets = torch.randn(8, 4), {"a": torch.arange(8) % 2}
    task = Penalised({"a": Multiclass(2, class_weight=[1.0, 2.0])})
    model = nn.Linear(4, 2)
    loss = task.loss(model(inputs), targets)
    assert loss.item() > 100
    assert evaluate(model, task, [(inputs, targets)])["loss"] == pytest.approx(loss.item(), rel=1e-5)
    fit(model, task, [(inputs, targets)], [(inputs, targets)], epochs=1, accumulate=2, progress=False)


def test_a_loss_that_is_not_one_number_is_refused(blobs, linear):
    """It would be summed silently; the message names the shape."""
    before = snapshot(linear)
    with pytest.raises(ValueError, match=r"The loss has the shape \(\d+,\); expected one number, the mean"):
        fit(linear, nn.CrossEntropyLoss(reduction="none"), blobs.train, blobs.valid, epochs=1, progress=False)
    assert same(before, linear.state_dict())


def test_complex_parameters_are_trained_as_by_hand(blobs):
    """And averaged, if that is asked for."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 2, dtype=torch.complex64))

        def forward(self, inputs):
            return (inputs.to(torch.complex64) @ self.weight).abs()

    model, by_hand = Turned(), Turned()
    data = list(blobs.train)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for inputs, target in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(inputs), target).backward()
        optimizer.step()
    fit(model, nn.CrossEntropyLoss(), data, epochs=1, optimizer=torch.optim.SGD, lr=0.1, progress=False)
    assert model.weight.equal(by_hand.weight)
    averaged, optimizer = Turned(), torch.optim.SGD
    fit(
        averaged, nn.CrossEntropyLoss(), data[:1], data, epochs=1, optimizer=optimizer, lr=0.1, callbacks=[EMA(0.9)],
        progress=False,
    )  # fmt: skip
    one_step = Turned()
    fit(one_step, nn.CrossEntropyLoss(), data[:1], epochs=1, optimizer=optimizer, lr=0.1, progress=False)
    assert averaged.weight.equal(one_step.weight)  # the average begins with the first step's weights


def test_a_model_whose_state_dict_is_made_of_copies_gets_its_best_weights_back(blobs):
    """And a buffer that is in no state dict, too."""
    model = nn.Linear(4, 2)
    model.register_buffer("seen", torch.zeros(1), persistent=False)

    def count(module, args):
        module.seen.add_(float(module.training))

    model.register_forward_pre_hook(count)

    def copied(module, state, prefix, metadata):
        state.update({name: value.clone() for name, value in state.items()})

    model.register_state_dict_post_hook(copied)
    run = fit(
        model, Multiclass(2), blobs.train, blobs.valid, epochs=4, lr=0.5, optimizer=torch.optim.SGD, progress=False,
        callbacks=[Worsen(after=2)],
    )  # fmt: skip
    assert run.best_epoch == 2
    assert evaluate(model, Multiclass(2), blobs.valid)["loss"] == pytest.approx(run.best_value, abs=1e-6)
    assert model.seen == 2 * len(blobs.train)


class Worsen:
    """Turn the weights around from some epoch on."""

    def __init__(self, after, layer=lambda state: state.model):
        self.after, self.layer = after, layer

    def on_batch_end(self, state):
        if state.epoch > self.after:
            with torch.no_grad():
                self.layer(state).weight.neg_()


def test_what_a_forward_pass_keeps_can_be_trained_with_after_the_frozen_phase(blobs):
    """As rotary embeddings keep their positions."""

    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.kept = nn.Linear(4, 4), nn.Linear(4, 2), None

        def forward(self, inputs):
            if self.kept is None:
                self.kept = torch.linspace(0.5, 1.5, 4)
            return self.head(self.body(inputs) * self.kept)

    with pytest.warns(LayerkitWarning, match="is in no table"):
        run = fit(
            Keeping(), Multiclass(2), blobs.train, blobs.valid, epochs=2, frozen_epochs=1, progress=False
        )
    assert len(run.history) == 2


def test_a_buffer_that_is_assigned_anew_is_put_back_where_a_step_is_left_out(blobs):
    """Its old tensor is no part of the model any more."""

    class Averaging(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, inputs):
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
            return self.layer(inputs - self.mean)

    model, data = Averaging(), list(blobs.train)
    data[1] = (torch.full_like(data[1][0], torch.nan), data[1][1])
    fit(model, Multiclass(2), data, epochs=1, nonfinite="skip", progress=False)
    assert model.mean.isfinite().all()


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (lambda m, t, d: fit(t, m, d, epochs=1), r"`model` is a Multiclass; expected a torch\.nn\.Module"),
        (lambda m, t, d: evaluate(t, m, d), "`model` is a Multiclass"),
        (lambda m, t, d: evaluate(m, t, "pets/test"), "`loader` is the path 'pets/test'; expected a loader"),
        (
            lambda m, t, d: fit(m, t, Loaders(d, d, None, [], None), epochs=1),
            "`train` is the Loaders of all parts; expected that of one",
        ),
        (
            lambda m, t, d: replace_head(t, nn.Sequential(m)),
            r"`model` is a Multiclass and `task` a Sequential; expected the model first",
        ),
        (lambda m, t, d: Predictor(t, m, d), "`model` is a Multiclass; expected"),
    ],
)
def test_arguments_in_the_places_of_others_are_named(swap, message, blobs, linear):
    """In words, not by what Python stumbles on."""
    with pytest.raises(TypeError, match=message):
        swap(linear, Multiclass(2), blobs.train)


@pytest.mark.parametrize(
    "factory", ["cosine", torch.optim.lr_scheduler.StepLR, torch.optim.lr_scheduler.ReduceLROnPlateau]
)
def test_what_cannot_go_by_batches_is_refused_before_training(factory, blobs, linear):
    """Of a name, a class that wants more, and one that waits for a figure of the epoch."""
    before = linear.weight.clone()
    with pytest.raises(TypeError, match="expected"):
        fit(
            linear,
            Multiclass(2),
            blobs.train,
            blobs.valid,
            epochs=1,
            schedule=per_batch(factory),
            optimizer=torch.optim.SGD,
        )
    assert linear.weight.equal(before)


def test_tensors_that_could_not_be_put_back_or_saved_are_refused_at_once(blobs, tmp_path):
    """Not after the training, or at the first save."""
    model = nn.Linear(4, 2)
    model.register_buffer("wide", torch.zeros(1).expand(3))
    with pytest.raises(ValueError, match="wide is expanded"):
        fit(model, Multiclass(2), blobs.train, epochs=1, progress=False)
    model = nn.Linear(4, 2)
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    fit(model, Multiclass(2), blobs.train, epochs=1, progress=False)
    with pytest.raises(TypeError, match=r"sparse has the layout torch\.sparse_coo"):
        fit(model, Multiclass(2), blobs.train, epochs=1, checkpoint=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_loss_no_better_than_a_constant_answers_is_said(blobs, linear, capsys):
    """And one that is better is not."""
    with torch.no_grad():
        linear.weight.mul_(100.0)
    fit(linear, Multiclass(2), blobs.train, blobs.valid, epochs=1, lr=1e-9, schedule="constant")
    assert "no valid_loss is below the 0.6931 of always giving the same answer" in capsys.readouterr().err
    nn.init.zeros_(linear.weight)
    fit(linear, Multiclass(2), blobs.train, blobs.valid, epochs=3, lr=0.1)
    assert "always giving" not in capsys.readouterr().err


def test_a_model_whose_state_dict_has_keys_of_its_own_gets_its_best_weights_back(blobs):
    """Under a prefix that a hook takes away."""
    model = nn.Sequential(nn.Linear(4, 2))

    def renamed(module, state, prefix, metadata):
        for name in list(state):
            state[name.removeprefix("0.")] = state.pop(name)

    model.register_state_dict_post_hook(renamed)
    callback = Worsen(after=2, layer=lambda state: state.model[0])
    run = fit(
        model, Multiclass(2), blobs.train, blobs.valid, epochs=4, lr=0.5, optimizer=torch.optim.SGD, progress=False,
        callbacks=[callback],
    )  # fmt: skip
    assert run.best_epoch == 2
    assert evaluate(model, Multiclass(2), blobs.valid)["loss"] == pytest.approx(run.best_value, abs=1e-6)


def test_held_out_classes_that_are_missing_are_named(tmp_path):
    """In the data of layerkit's loaders before training."""
    table = [{"path": f"{n}.png", "kind": "ab"[n % 2], "part": "train"} for n in range(8)]
    table += [{"path": f"{n}.png", "kind": "a", "part": "valid"} for n in range(8, 12)]
    for n in range(12):
        Image.new("RGB", (12, 12), (20 * n, 0, 0)).save(tmp_path / f"{n}.png")
    columns = {name: [row[name] for row in table] for name in table[0]}
    data = table_loaders(
        columns,
        tmp_path,
        path="path",
        target="kind",
        part="part",
        preset=Preset(8),
        batch_size=4,
        num_workers=0,
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    with pytest.warns(LayerkitWarning, match="The held-out targets hold no 'b'"):
        run = fit(model, Binary(data.classes), data.train, data.valid, epochs=1, progress=False)
    assert math.isnan(run.history[0]["valid_auroc"])
