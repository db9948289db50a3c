"""Several processes under torchrun do together what one does alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerkit import Multiclass, Preset, fit, folder_loaders

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="gloo under torchrun is tried on Linux and macOS"
)

SCRIPT = """
import json, os, signal, sys
import torch
from torch import nn
from layerkit import Binary, Multiclass, MultiTask, Preset, evaluate, fit, folder_loaders, table_loaders

class Watch:
    def __init__(self, settings):
        self.asked, self.seen = settings, []
    def on_batch_start(self, state):
        self.seen.append(sorted(round(v, 4) for v in state.inputs.mean(dim=(1, 2, 3)).tolist()))
    def on_epoch_start(self, state):
        if self.asked.get("dies") and rank == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if state.epoch == 3:
                os._exit(17)
        if self.asked.get("is_told_to_stop") == "frozen" and rank == "1" and state.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
    def on_batch_end(self, state):
        if self.asked.get("is_told_to_stop") == "step" and rank == "1" and state.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.asked.get("is_interrupted") and len(self.seen) == 12:
            signal.raise_signal(signal.SIGINT)
        if self.asked.get("one_has_enough") and rank == "1" and state.epoch == 2:
            state.stop("one has enough")

def train(folder, settings):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6) if settings.get("norm") else nn.Identity()
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 3 if settings.get("several") else 2),
    )
    if settings.get("dropout"):
        model.insert(5, nn.Dropout(0.5))
    if settings.get("seed", 3) is None:
        torch.manual_seed(int(rank))
    options = {"preset": Preset(24), "batch_size": settings.get("batch_size", 10), "seed": 1}
    if settings.get("several"):
        data = table_loaders(
            settings["pictures"] + "/table.csv", settings["pictures"], path="path", part="part",
            target={"name": "name", "even": "even"}, augment="standard", **options
        )
    else:
        data = folder_loaders(settings["pictures"], **options)
    weights = settings.get("weights")
    if settings.get("several"):
        task = MultiTask(
            {"name": Multiclass(data.classes["name"], class_weight=weights), "even": Binary()},
            loss_weights="uncertainty",
        )
    elif settings.get("plain"):
        task = nn.CrossEntropyLoss(torch.tensor(weights))
    else:
        task = Multiclass(data.classes, class_weight=weights)
    watch = Watch(settings)
    if settings.get("is_told_to_stop") == "validation" and rank == "1":
        def tell(module, args):
            if not module.training and not torch.is_grad_enabled():
                os.kill(os.getpid(), signal.SIGTERM)
        model.register_forward_pre_hook(tell)
    again = 2 if settings.get("is_interrupted") else 1
    for call in range(again):
        try:
            run = fit(
                model, task, data.train, data.valid, epochs=4, seed=settings.get("seed", 3), lr=0.01,
                schedule="constant", callbacks=[watch], frozen_epochs=settings.get("frozen", 0),
                checkpoint=f"{folder}/run", progress=True,
            )
        except KeyboardInterrupt:
            assert call == 0
            torch.manual_seed(99)  # what has been drawn meanwhile is no matter
    held_out = evaluate(model, task, data.valid)
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]
    weights = {k: v.tolist() for k, v in model.state_dict().items()}
    with open(f"{folder}/{rank}of{world}.json", "w") as file:
        json.dump({"rows": rows, "seen": watch.seen, "weights": weights, "held_out": held_out}, file)

rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
torch.set_num_threads(1)
for folder, settings in json.loads(sys.argv[1]).items():
    train(folder, settings)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Write a small folder that is split already: 47 pictures to train on, so that batches end unevenly."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 23), ("valid", 9)):
        for label, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True)
            for number in range(count + label):
                Image.new("RGB", (30, 28), (5 * number + label, 90 * label, 200 - 3 * number)).save(
                    root / part / name / f"{number}.png"
                )
    rows = [
        f"{path.relative_to(root).as_posix()},{path.parts[-3]},{path.parts[-2]},{int(path.stem) % 2}"
        for path in sorted(root.rglob("*.png"))
    ]
    (root / "table.csv").write_text("\n".join(["path,part,name,even", *rows]))
    return root


@pytest.fixture(scope="module")
def few(pictures, tmp_path_factory) -> Path:
    """Write three pictures to train on, and three held out."""
    few = tmp_path_factory.mktemp("few")
    for part in ("train", "valid"):
        for name, count in (("a", 2), ("b", 1)):
            (few / part / name).mkdir(parents=True)
            for number in range(count):
                source = pictures / part / name / f"{number}.png"
                (few / part / name / source.name).write_bytes(source.read_bytes())
    return few


def start(folder, processes, *options, **runs):
    """Run the script in so many processes, one run after the other, and give what each process wrote of each."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    for name in runs:
        (folder / name).mkdir(exist_ok=True)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    command = [sys.executable] if processes == 1 else [*torchrun, *options]
    done = subprocess.run(
        [
            *command,
            str(script),
            json.dumps({str(folder / name): settings for name, settings in runs.items()}),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    if any(settings.get("is_told_to_stop") for settings in runs.values()):
        assert done.returncode != 0
        return {}, done.stderr
    assert done.returncode == 0, done.stderr
    written = {
        name: [json.loads((folder / name / f"{r}of{processes}.json").read_text()) for r in range(processes)]
        for name in runs
    }
    return written, done.stderr


@pytest.fixture(scope="module")
def alone(pictures, few, tmp_path_factory):
    """Give what one process does in each of the runs."""
    runs, _ = start(
        tmp_path_factory.mktemp("alone"),
        1,
        full={"pictures": str(pictures)},
        frozen={"pictures": str(pictures), "frozen": 2},
        smaller={"pictures": str(pictures), "batch_size": 8},
        few={"pictures": str(few), "batch_size": 4},
        weights={"pictures": str(pictures), "weights": [1.0, 9.0]},
        plain={"pictures": str(pictures), "weights": [1.0, 9.0], "plain": True},
        several={"pictures": str(pictures), "weights": [1.0, 9.0], "several": True},
    )
    return {name: only for name, (only,) in runs.items()}


@pytest.fixture(scope="module")
def two(pictures, tmp_path_factory):
    """Give what two processes do together, and what they say."""
    with_norm = {"pictures": str(pictures), "norm": True}
    weights = {"pictures": str(pictures), "weights": [1.0, 9.0]}
    draws = {
        "pictures": str(pictures),
        "dropout": True,
        "batch_size": 5,
    }  # of which one process has 3, the other 2
    return start(
        tmp_path_factory.mktemp("two"), 2, full={"pictures": str(pictures)}, norm=with_norm, weights=weights,
        plain={**weights, "plain": True}, several={**weights, "several": True},
        draws=draws, interrupted={**draws, "is_interrupted": True},
        enough={"pictures": str(pictures), "one_has_enough": True},
        own_seeds={"pictures": str(pictures), "dropout": True, "frozen": 4, "seed": None},
    )  # fmt: skip


@pytest.fixture(scope="module")
def four(pictures, few, tmp_path_factory):
    """Give what four processes do together, and what they say."""
    frozen = {"pictures": str(pictures), "frozen": 2}
    few_settings = {"pictures": str(few), "batch_size": 4}
    return start(tmp_path_factory.mktemp("four"), 4, frozen=frozen, few=few_settings)


def assert_close(one, other, tolerance=1e-4):
    for row, like in zip(one["rows"], other["rows"], strict=True):
        assert row.keys() == like.keys()
        for key, value in row.items():
            assert value == (
                like[key] if isinstance(value, str) else pytest.approx(like[key], abs=tolerance)
            ), key
    for name, value in one["weights"].items():
        assert torch.allclose(torch.tensor(value), torch.tensor(other["weights"][name]), atol=tolerance), name


@pytest.mark.slow
def test_each_process_goes_on_with_its_own_draws(two):
    """Slices of 3 and 2 pictures draw differently, and an interrupted run ends in the bits of one that was not."""
    for whole, stopped in zip(two[0]["draws"], two[0]["interrupted"], strict=True):
        assert stopped["weights"] == whole["weights"]
        assert stopped["rows"] == whole["rows"]


@pytest.mark.slow
def test_all_stop_where_one_has_enough(two):
    """After the same epoch, and none waits for another."""
    assert [len(each["rows"]) for each in two[0]["enough"]] == [2, 2]


@pytest.mark.slow
def test_a_frozen_phase_trains_one_head_whatever_each_process_draws_from(two):
    """Their generators were seeded apart."""
    one, other = two[0]["own_seeds"]
    assert one["weights"] == other["weights"]
    assert one["rows"] == other["rows"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "name"),
    [("two", "full"), ("two", "weights"), ("two", "plain"), ("two", "several"), ("four", "frozen")],
)
def test_several_processes_do_what_one_does(processes, name, alone, request):
    """The same global batches, the same figures and weights within float tolerance, the same in each process."""
    runs, said = request.getfixturevalue(processes)
    for each in runs[name]:
        assert_close(each, alone[name])
        assert each["held_out"]["loss"] == pytest.approx(alone[name]["held_out"]["loss"], abs=1e-5)
    for step, batch in enumerate(alone[name]["seen"]):
        shares = [value for each in runs[name] for value in each["seen"][step]]
        assert sorted(shares) == pytest.approx(batch, abs=1e-3)
    assert said.count("epoch 2/4") == len(runs)  # one of them shows progress


@pytest.mark.slow
def test_a_process_without_a_sample_hangs_and_spoils_nothing(alone, four):
    """Of three pictures one of four processes has none: in training it runs one at no weight."""
    runs, _ = four
    for each in runs["few"]:
        assert_close(each, alone["few"])


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(pictures, two, tmp_path):
    """With torchrun's own restarts the run goes on from its checkpoint, batch norm and all."""
    whole, _ = two
    settings = {"pictures": str(pictures), "norm": True, "dies": True}
    restarted, said = start(tmp_path, 2, "--max-restarts=1", norm=settings)
    assert "goes on after epoch 2" in said
    assert_close(restarted["norm"][0], whole["norm"][0], tolerance=1e-6)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(pictures, alone, tmp_path):
    """The state is saved within the epoch, whose loss counts what every process had done by then."""
    settings = {"pictures": str(pictures), "batch_size": 8}
    _, said = start(tmp_path, 2, shared={**settings, "is_told_to_stop": "step"})
    assert "interrupted; the same call goes on from" in said
    both, said = start(tmp_path, 2, shared=settings)
    assert "goes on after epoch 1 and 3 batches" in said
    for one in both["shared"]:
        assert_close(one, alone["smaller"])


@pytest.mark.slow
@pytest.mark.parametrize(("when", "where"), [("validation", "after epoch 1"), ("frozen", "after epoch 2")])
def test_a_signal_to_one_process_between_steps_stops_all_after_the_epoch(
    when, where, pictures, alone, tmp_path
):
    """Within a validation, or the frozen phase, in which the processes ask each other nothing."""
    settings = {"pictures": str(pictures), "frozen": 2} if when == "frozen" else {"pictures": str(pictures)}
    _, said = start(tmp_path, 2, shared={**settings, "is_told_to_stop": when})
    assert "interrupted; the same call goes on from" in said
    assert "exitcode  : 143" in said
    assert (
        "exitcode  : 1 " not in said
    )  # which an error would be; torchrun may end the other before it ends itself
    both, said = start(tmp_path, 2, shared=settings)
    assert f"goes on {where}" in said
    for one in both["shared"]:
        assert_close(one, alone["frozen" if when == "frozen" else "full"])


def test_more_processes_than_a_batch_holds_are_refused(pictures, monkeypatch):
    """The message names both numbers."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ValueError, match="`batch_size` is 4 and 8 processes"):
        folder_loaders(pictures, preset=Preset(24), batch_size=4)


def test_a_loader_that_gives_every_process_all_is_refused(monkeypatch):
    """A foreign loader needs a DistributedSampler."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("layerkit.distributed.join_group", lambda device: None)
    with pytest.raises(ValueError, match="gives every one of 2 processes all samples"):
        fit(torch.nn.Linear(2, 2), Multiclass(2), [(torch.zeros(2, 2), torch.tensor([0, 1]))], epochs=1)


APART = """
import json, os, sys
import torch
from torch import nn
from layerkit import Multiclass, Preset, fit, folder_loaders

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.spare = nn.Linear(2, 2)
        self.head = nn.Linear(24, 2)

    def forward(self, inputs):
        return self.head(self.body(inputs))

rank, settings = os.environ["RANK"], json.loads(sys.argv[2])
torch.manual_seed(int(rank))  # a script that sets no seed: each process draws weights of its own
torch.set_num_threads(1)
data = folder_loaders(sys.argv[1], preset=Preset(24), batch_size=10, seed=1)
model = Net()
optimizer = None
if settings["lbfgs"]:
    optimizer = lambda parameters: torch.optim.LBFGS(parameters, max_iter=5, line_search_fn="strong_wolfe")
run = fit(
    model, Multiclass(data.classes), data.train, data.valid, epochs=settings["epochs"], seed=3,
    frozen_epochs=settings["frozen"], optimizer=optimizer, progress=False,
)
rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]
with open(f"{rank}.json", "w") as file:
    json.dump([rows, {k: v.tolist() for k, v in model.state_dict().items()}], file)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"lbfgs": True, "epochs": 2, "frozen": 0},
        {"lbfgs": False, "epochs": 2, "frozen": 2},
        {"lbfgs": False, "epochs": 3, "frozen": 1},
    ],
    ids=["LBFGS", "frozen alone", "both phases"],
)
def test_processes_that_begin_apart_end_together(settings, pictures, tmp_path):
    """With other weights in each, a parameter that is never used, and an optimizer that goes by the loss."""
    (tmp_path / "script.py").write_text(APART)
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            "script.py", str(pictures), json.dumps(settings),
        ],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "find_unused_parameters" not in done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert len(first[0]) == settings["epochs"]
