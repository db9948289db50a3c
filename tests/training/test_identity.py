"""What makes another run is refused under an old checkpoint, however it was changed."""

import csv
import functools

import pytest
import torch
from PIL import Image
from torch import nn

from layerkit import Checkpoint, CheckpointError, Multiclass, Preset, fit, table_loaders
from layerkit.callbacks import Unfreeze
from layerkit.training.identity import describe, describe_callbacks, describe_metrics

DATA = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)]


def groups(low, high):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    return torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": low}, {"params": model[1].parameters()}], lr=high
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(torch.optim.SGD, lr=0.1), functools.partial(torch.optim.SGD, lr=0.2)),
        (functools.partial(torch.optim.SGD, lr=0.1), functools.partial(torch.optim.AdamW, lr=0.1)),
        (groups(1e-5, 1e-3), groups(1e-4, 1e-3)),
        (
            torch.optim.lr_scheduler.StepLR(groups(1, 1), step_size=7),
            torch.optim.lr_scheduler.StepLR(groups(1, 1), step_size=3),
        ),
    ],
    ids=["rate", "optimizer", "groups", "schedule"],
)
def test_optimizers_and_schedules_differ_by_their_settings(one, other):
    """And are the same when nothing differs."""
    assert describe(one) != describe(other)
    assert describe(one) == describe(one)


def test_callbacks_and_metrics_differ_by_their_settings():
    """A tuple of epochs counts too."""
    assert describe_callbacks([Unfreeze(at=[3])]) != describe_callbacks([Unfreeze(at=[2, 5])])
    assert describe_metrics(None) != describe_metrics({"accuracy": nn.Identity()})


def test_a_loss_is_named(tmp_path):
    """One loss is not another."""

    def run(loss):
        target = [(DATA[0][0], torch.zeros(8, 4))]
        fit(nn.Linear(4, 4), loss, target, target, epochs=1, checkpoint=tmp_path, progress=False)

    run(nn.MSELoss())
    with pytest.raises(CheckpointError, match="task was 'MSELoss"):
        run(nn.L1Loss())


def test_other_targets_are_another_run(tmp_path):
    """The same pictures under other labels are not what was trained on."""
    for n in range(8):
        Image.new("RGB", (20, 20), (30 * n, 0, 0)).save(tmp_path / f"{n}.png")

    def run(labels):
        with (tmp_path / "table.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "part"])
            writer.writerows(
                [f"{n}.png", label, "valid" if n > 5 else "train"] for n, label in enumerate(labels)
            )
        data = table_loaders(
            tmp_path / "table.csv",
            tmp_path,
            path="path",
            target="label",
            part="part",
            preset=Preset(16),
            batch_size=4,
        )
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
        fit(
            model,
            Multiclass(data.classes),
            data.train,
            data.valid,
            epochs=1,
            checkpoint=tmp_path / "run",
            progress=False,
        )

    run("abababab")
    with pytest.raises(CheckpointError, match="train was"):
        run("babababa")


def test_an_older_state_can_be_gone_on_from(tmp_path):
    """With keep=2 the end of the epoch before is there, with the best weights that it needs."""

    def run():
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        checkpoint = Checkpoint(tmp_path, keep=2)
        result = fit(
            model, Multiclass(2), DATA, DATA, epochs=4, lr=0.1, seed=0, checkpoint=checkpoint, progress=False
        )
        return model.weight.detach().clone(), result

    weight, whole = run()
    kept = sorted(path.name for path in tmp_path.glob("epoch-*"))
    assert [name[:10] for name in kept] == ["epoch-0003", "epoch-0004"]
    (tmp_path / "last.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"or rename epoch-0004.* to last.safetensors"):
        run()
    (tmp_path / kept[0]).rename(tmp_path / "last.safetensors")
    again, result = run()
    assert torch.equal(weight, again)
    assert [row["valid_loss"] for row in result.history] == [row["valid_loss"] for row in whole.history]
