"""Saved and loaded predictors answer alike, and no file does anything else."""

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from layerkit.errors import LayerkitWarning, PredictorFileError
from layerkit.freezing import freeze_backbone
from layerkit.heads import MLPHead, replace_head
from layerkit.predicting import Predictor, load_predictor
from layerkit.presets import Preset
from layerkit.saving import checksum, copies, read_tensors, write_tensors
from layerkit.tasks import Binary, Multiclass, Multilabel, MultiTask, Regression

PRESET = Preset((48, 40), resize_size=50, mean=(0.5, 0.4, 0.3), interpolation="bicubic")
BALANCED = Multiclass(["a", "b", "c"], class_weight="balanced", label_smoothing=0.1)
PARTS = MultiTask({"size": Regression(2), "kind": Binary()}, loss_weights="uncertainty")
TARGETS = {"size": torch.tensor([[1.0, 2.0], [3.0, 7.0]]), "kind": torch.tensor([0, 1])}


def pictures():
    """Give three pictures."""
    generator = torch.Generator().manual_seed(0)
    return list(torch.randint(0, 256, (3, 3, 60, 70), generator=generator, dtype=torch.uint8))


def figures(answers):
    """Flatten answers to numbers."""
    rows = [answer.row() for answer in answers]
    return torch.tensor([[v for v in row.values() if isinstance(v, float)] for row in rows])


def tiny_predictor(task=None):
    """Make a predictor of a few hundred bytes, of an architecture that no file holds."""
    torch.manual_seed(0)
    task = task or Multiclass(["cat", "dog"])
    model = nn.Sequential(nn.Conv2d(3, 2, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    return Predictor(model, task, PRESET)


@pytest.fixture
def tiny_file(tmp_path):
    """Save the tiny predictor."""
    path = tmp_path / "tiny.safetensors"
    with pytest.warns(LayerkitWarning):
        tiny_predictor().save(path)
    return path


@pytest.mark.parametrize(
    ("name", "task", "head"),
    [
        ("squeezenet1_1", Multiclass(["cat", "dog"]), None),
        ("squeezenet1_1", Binary(["no", "yes"], pos_weight=2.0, threshold=0.3), MLPHead((8,))),
        ("resnet18", Regression(2, names=["x", "y"], loss="huber"), None),
        ("mobilenet_v3_small", BALANCED, MLPHead((8, 4), "tanh")),
        ("shufflenet_v2_x0_5", Multilabel(["p", "q", "r"]), nn.Linear),
        ("shufflenet_v2_x0_5", PARTS, None),
        ("quantized_resnet18", Multiclass(["cat", "dog"]), None),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_loaded_predictor_answers_as_the_saved_one(name, task, head, tmp_path):
    """Answers agree to 1e-6, and the task, the preset, the classes and the weights come back as they were."""
    torch.manual_seed(0)
    if isinstance(task, MultiTask):
        task.prepare(TARGETS)
    elif task.needs_targets:
        task.prepare(torch.tensor([[1.0, 2.0], [3.0, 7.0]]) if isinstance(task, Regression) else [0, 1, 2, 2])
    model = replace_head(models.get_model(name, weights=None), task, head=head)
    for parameter in model.parameters():  # also of heads that start at zero
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.to(memory_format=torch.channels_last)
    freeze_backbone(model)
    predictor = Predictor(model, task, PRESET)
    expected = predictor(pictures())

    predictor.save(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors", device="cpu")

    answers = loaded(pictures())
    assert [a.label for a in answers] == [e.label for e in expected]
    torch.testing.assert_close(figures(answers), figures(expected), rtol=1e-5, atol=1e-6)
    assert loaded.preset == PRESET
    assert type(loaded.task) is type(task)
    assert loaded.task.settings() == task.settings()
    for mine, theirs in ((loaded.model, model), (loaded.task, task)):
        state = mine.state_dict()
        assert state.keys() == theirs.state_dict().keys()
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=0, atol=0, equal_nan=True)
            assert state[key].is_contiguous()
    assert not loaded.model.training


def test_weights_keep_their_dtype(tmp_path):
    """A model in bfloat16 is saved and loaded in bfloat16."""
    model = replace_head(models.squeezenet1_1(), 2).to(torch.bfloat16)
    Predictor(model, Multiclass(2), PRESET).save(tmp_path / "p.safetensors")

    loaded = load_predictor(tmp_path / "p.safetensors", device="cpu")

    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_a_loaded_model_no_longer_needs_its_file(tmp_path):
    """What happens to the file after loading changes no answer, and the model can be trained on."""
    path = tmp_path / "p.safetensors"
    Predictor(replace_head(models.squeezenet1_1(), 2), Multiclass(2), PRESET).save(path)
    loaded = load_predictor(path, device="cpu")
    before = loaded(pictures())
    with path.open("r+b") as file:
        file.truncate(100)

    assert loaded(pictures()) == before
    loaded.model.train()(torch.zeros(1, 3, 64, 64)).sum().backward()
    assert loaded.model.features[0].weight.grad is not None


def test_saving_leaves_model_and_random_state_alone(tmp_path):
    """Weights, modes and torch's global generator are as they were."""
    model = replace_head(models.squeezenet1_1(), 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()

    Predictor(model, Multiclass(2), PRESET).save(tmp_path / "p.safetensors")

    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_the_architecture_can_be_given(tmp_path):
    """A builder and its arguments are proven like those that are found, and refused where they are wrong."""
    model, task = replace_head(models.squeezenet1_1(), 2), Multiclass(2)
    path = tmp_path / "p.safetensors"
    with pytest.raises(ValueError, match=r"does not give this SqueezeNet \(its structure is another\)"):
        Predictor(model, task, PRESET, architecture=("squeezenet1_0", {})).save(path)
    with pytest.raises(ValueError, match=r"torchvision refuses .*squeezenet1_1"):
        Predictor(model, task, PRESET, architecture=("squeezenet1_1", {"depth": 3})).save(path)
    assert not path.exists()

    Predictor(model, task, PRESET, architecture=("squeezenet1_1", {"num_classes": 2})).save(path)

    assert read_tensors(path)[1]["architecture"]["arguments"] == {"num_classes": 2}
    load_predictor(path)


def test_a_changed_forward_is_not_taken_for_torchvisions(tmp_path):
    """Where the structure fits and the outputs do not, the file says that it needs the model."""
    model = replace_head(models.squeezenet1_1(), 2, head=nn.Linear)
    model.features.register_forward_hook(lambda module, args, output: output + 1)

    with pytest.warns(
        LayerkitWarning, match=r"it gives other outputs.*load_predictor\(path, model=model\)"
    ) as seen:
        Predictor(model, Multiclass(2), PRESET).save(tmp_path / "p.safetensors")

    assert seen[0].filename == __file__
    with pytest.raises(PredictorFileError, match=r"models\.squeezenet\.SqueezeNet.*model=model"):
        load_predictor(tmp_path / "p.safetensors")


def test_a_foreign_model_is_loaded_into_its_like(tiny_file):
    """`model=` takes the file's weights; without it the error says how."""
    with pytest.raises(PredictorFileError, match=r"Sequential; expected the model beside it.*model=model"):
        load_predictor(tiny_file)
    expected = tiny_predictor()
    fresh = tiny_predictor().model
    nn.init.zeros_(fresh[0].weight)

    loaded = load_predictor(tiny_file, model=fresh, device="cpu")

    assert loaded.model is fresh
    assert loaded(pictures()) == expected(pictures())


def test_a_model_that_is_not_its_like_keeps_its_weights(tiny_file):
    """Other shapes, and the same shapes that compute something else, are refused before anything changes."""
    other = nn.Sequential(nn.Conv2d(3, 2, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    otherwise = tiny_predictor().model
    otherwise[1] = nn.AdaptiveMaxPool2d(1)
    for model, message in (
        (other, r"3.weight \(2, 2\), not \(3, 2\).*with its head: replace_head"),
        (nn.Linear(2, 2), "0.weight .* not absent"),
        (otherwise, "answers otherwise than the saved model did.*No weight was changed"),
    ):
        nn.init.zeros_(next(model.parameters()))
        with pytest.raises(PredictorFileError, match=message):
            load_predictor(tiny_file, model=model, device="cpu")
        assert not next(model.parameters()).any()


def test_tasks_and_states_that_no_file_can_hold_are_refused(tmp_path):
    """A task with code of its own and a state that is no tensor are errors, and no file is left."""

    class Own(Binary):
        pass

    class Stateful(nn.Flatten):
        def get_extra_state(self):
            return {"x": 1}

        def set_extra_state(self, state):
            pass

    model = nn.Sequential(Stateful(), nn.Linear(3 * 48 * 40, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)
        with pytest.raises(ValueError, match="Own of your own"):
            Predictor(model, Own(), PRESET).save(tmp_path / "p.safetensors")
        with pytest.raises(ValueError, match=r"0._extra_state.*no tensors"):
            Predictor(model, Binary(), PRESET).save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


class Trap:
    """Make a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch.save", "zip-less torch.save", "pickle"])
def test_a_pickle_is_refused_and_not_executed(how, tmp_path):
    """A renamed pickle of any make gives the one clear error, and its code does not run."""
    path, sprung = tmp_path / "p.safetensors", tmp_path / "sprung"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save(Trap(sprung), path, _use_new_zipfile_serialization=how == "torch.save")

    with pytest.raises(PredictorFileError, match="nothing in it was executed"):
        load_predictor(path)

    assert not sprung.exists()


def test_a_missing_file_is_one(tmp_path):
    """A path that leads nowhere, or to a folder, is a FileNotFoundError."""
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            load_predictor(path)


def test_a_file_that_was_cut_anywhere_is_refused(tiny_file):
    """Every hundredth byte, and every one of the first hundred and the last, as the place of the cut."""
    whole = tiny_file.read_bytes()
    cuts = {*range(0, len(whole), 100), *range(100), *range(len(whole) - 100, len(whole))}
    assert len(whole) > 2000

    for cut in sorted(cuts):
        tiny_file.write_bytes(whole[:cut])
        with pytest.raises(PredictorFileError):
            load_predictor(tiny_file, model=tiny_predictor().model)


def test_a_file_with_flipped_bits_is_refused(tiny_file):
    """A bit of every third byte, in the length, the header or the weights, does not pass."""
    whole = tiny_file.read_bytes()
    model = tiny_predictor().model
    rng = random.Random(0)

    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        tiny_file.write_bytes(changed)
        with pytest.raises(PredictorFileError):
            load_predictor(tiny_file, model=model)


@pytest.mark.parametrize("length", [2**32, 2**62, 2**64 - 1, 10**8])
def test_a_header_that_claims_gigabytes_is_refused_at_once(length, tmp_path):
    """A claimed length takes no memory."""
    resource = pytest.importorskip("resource", reason="memory is measured on Unix only")
    path = tmp_path / "p.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"x":' + b" " * 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(PredictorFileError):
        load_predictor(path)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_tensor_that_claims_gigabytes_is_refused(tmp_path):
    """A shape that the file has no bytes for is not believed."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}).encode()
    path = tmp_path / "p.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)

    with pytest.raises(PredictorFileError):
        load_predictor(path)


def forge(path, **changes):
    """Change a header and give it the right checksum, as a forger would."""
    tensors, header = read_tensors(path)
    write_tensors(path, copies(tensors), {**header, **changes})


ENDLESS = {"inverted_residual_setting": [[1, 16, 10**9, 1]]}
MANY = {f"part{n}": {"task": "Multiclass", "classes": 400} for n in range(100)}
HUGE = {"layer": "Linear", "arguments": {"in_features": 9**9, "out_features": 9**9}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has the format 2, from layerkit .*Install a newer layerkit"),
        ({"kind": "checkpoint"}, "holds no predictor"),
        ({"kind": None}, "holds no predictor"),
        ({"task": {"class": "system", "settings": {}}}, "cannot be made into a predictor"),
        ({"task": {"class": "Task", "settings": {}}}, "cannot be made into a predictor"),
        ({"task": {"class": "base", "settings": {}}}, "cannot be made into a predictor"),
        ({"task": {"class": "Regression", "settings": {"num_targets": 10**12}}}, "the task counts 10000000"),
        ({"task": {"class": "Multilabel", "settings": {"classes": 10**12}}}, "the task counts 10000000"),
        ({"task": {"class": "Binary", "settings": {"klasses": 2}}}, "klasses"),
        ({"task": 3}, "cannot be made into a predictor"),
        ({"preset": {"crop_size": -1}}, "crop_size"),
        ({"preset": None}, "cannot be made into a predictor"),
        ({"versions": None, "preset": None}, "cannot be made into a predictor"),
        ({"architecture": {"builder": "os.system", "arguments": {}, "layers": {}}}, "no classifier"),
        ({"architecture": {"builder": "resnet18", "arguments": {"weights": 1}, "layers": {}}}, "weights"),
        (
            {"architecture": {"builder": "resnet18", "arguments": {"num_classes": 10**15}, "layers": {}}},
            "cannot be made into a predictor",
        ),
        (
            {"architecture": {"builder": "mobilenet_v2", "arguments": ENDLESS, "layers": {}}},
            "far more layers than the file has tensors",
        ),
        ({"task": {"class": "MultiTask", "settings": {"parts": MANY}}}, "the task counts 40000"),
        (
            {"architecture": {"builder": "resnet18", "arguments": {"norm_layer": "print"}, "layers": {}}},
            "cannot be made into a predictor",
        ),
        (
            {"architecture": {"builder": "resnet18", "arguments": {}, "layers": {"fc": HUGE}}},
            "cannot be made into a predictor",
        ),
    ],
)
def test_a_forged_header_does_nothing(changes, message, tiny_file):
    """A header with a right checksum can name neither code, nor a download, nor memory that is not its own."""
    forge(tiny_file, **changes)

    with pytest.raises(PredictorFileError, match=message):
        load_predictor(tiny_file)


def test_a_header_nested_too_deeply_is_refused(tmp_path):
    """Recursion ends in the one clear error."""
    path, text, tensors = tmp_path / "p.safetensors", "[" * 10**5 + "]" * 10**5, {"a": torch.zeros(2)}
    save_file(tensors, path, metadata={"layerkit": text, "checksum": checksum(tensors, text)})

    with pytest.raises(PredictorFileError):
        load_predictor(path)


def test_files_of_tensors_alone_and_a_header_that_is_no_object_are_refused(tmp_path):
    """Other people's safetensors files are told apart."""
    path = tmp_path / "p.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(PredictorFileError, match="holds tensors only"):
        load_predictor(path)
    write_tensors(path, {"a": torch.zeros(2)}, [1, 2])
    with pytest.raises(PredictorFileError, match="holds no predictor"):
        load_predictor(path)


def test_a_failed_save_keeps_the_file_that_was_there(tiny_file, monkeypatch):
    """An error in the middle of writing leaves the old file whole and nothing beside it."""
    before = tiny_file.read_bytes()

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.warns(LayerkitWarning), pytest.raises(OSError, match="No space"):
        tiny_predictor().save(tiny_file)

    assert tiny_file.read_bytes() == before
    assert [path.name for path in tiny_file.parent.iterdir()] == ["tiny.safetensors"]


SCRIPT = """
import os, sys, time, warnings
import torch
from layerkit.predicting import load_predictor, Predictor
from layerkit.presets import Preset
from layerkit.tasks import Binary
warnings.simplefilter("ignore")
path, rank = sys.argv[1], os.environ["RANK"]
if rank == "0":
    time.sleep(1)
for outputs in (1.0, 2.0):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1))
    torch.nn.init.constant_(model[1].bias, outputs if rank == "0" else 9.0)
    predictor = Predictor(model, Binary(), Preset(8))
    predictor.save(path)
    loaded = load_predictor(path, model=model, device="cpu")
    assert loaded.model[1].bias.item() in (outputs, 2.0)  # rank 0 waits for nobody, and may be further on
    if rank == "1":
        time.sleep(1)
try:
    predictor.save(os.path.join(path, "below", "a", "file"))
except (OSError, RuntimeError) as error:
    print(rank, isinstance(error, OSError), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's store needs libuv, which Windows wheels lack")
def test_under_torchrun_one_process_writes_and_all_find_the_file(tmp_path):
    """Neither a slow writer nor an old file misleads the others, and they hear of a failure."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"an old file")

    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, path],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stderr
    assert sorted(io.StringIO(done.stdout)) == ["0 True\n", "1 False\n"]


def test_other_threads_may_ask_while_it_is_saved(tmp_path):
    """Proving the architecture sees its own inputs only: the file holds it, without a warning."""
    task = Multiclass(["cat", "dog"])
    predictor = Predictor(replace_head(models.squeezenet1_1(), task), task, Preset(48))
    over = threading.Event()

    def ask():
        while not over.is_set():
            predictor(pictures()[0])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            predictor.save(tmp_path / "p.safetensors")
            assert load_predictor(tmp_path / "p.safetensors").model is not predictor.model
    finally:
        over.set()
        for thread in threads:
            thread.join()


class Tied(nn.Module):
    """Call one layer by two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3 * 48 * 40, 2)
        self.second = self.first

    def forward(self, inputs):
        return self.second(inputs.flatten(1))


@pytest.mark.filterwarnings("ignore:The file does not hold:layerkit.LayerkitWarning")
def test_weights_that_are_shared_are_loaded_again(tmp_path):
    """They have two names in the file, and one place in the model."""
    predictor = Predictor(Tied(), Multiclass(["cat", "dog"]), PRESET)
    predictor.save(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors", model=Tied())
    assert torch.equal(figures(loaded(pictures())), figures(predictor(pictures())))


@pytest.mark.filterwarnings("ignore:The file does not hold:layerkit.LayerkitWarning")
@pytest.mark.parametrize(("saved", "into"), [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_weights_go_into_a_model_of_another_precision(saved, into, tmp_path):
    """The model keeps its dtype, and answers alike as far as 16 bits do."""
    predictor = tiny_predictor()
    predictor.model.to(saved)
    predictor.save(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors", model=tiny_predictor().model.to(into))
    assert next(loaded.model.parameters()).dtype == into
    assert torch.allclose(figures(loaded(pictures())), figures(predictor(pictures())), atol=0.02)


def test_a_model_that_is_refused_keeps_its_mode(tiny_file):
    """It answers otherwise than the saved one, and stays in training mode."""
    other = nn.Sequential(
        nn.Conv2d(3, 2, 8, 8), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    ).train()
    with pytest.raises(PredictorFileError, match="answers otherwise"):
        load_predictor(tiny_file, model=other)
    assert all(module.training for module in other.modules())
    with pytest.raises(TypeError, match=r"`model` is 'resnet18'; expected a torch\.nn\.Module"):
        load_predictor(tiny_file, model="resnet18")


def test_what_could_not_answer_is_not_saved(tmp_path):
    """A head of another size, weights that are not finite, a task that has not seen its targets: no file."""
    path = tmp_path / "p.safetensors"
    model = tiny_predictor().model
    with pytest.raises(ValueError, match=r"output has the shape \(1, 2\); expected \(1, 3\)"):
        Predictor(model, Multiclass(3), PRESET).save(path)
    with pytest.raises(RuntimeError, match="has not seen the training targets yet"):
        Predictor(model, Regression(2), PRESET).save(path)
    model[0].weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="answers nan to a plain pattern; expected finite"):
        Predictor(model, Multiclass(2), PRESET).save(path)
    assert not path.exists()


def test_a_crop_that_would_take_all_memory_is_refused(tiny_file, tmp_path):
    """The pattern to compare with is as large as the crop, whatever the size of the file."""
    forge(tiny_file, preset={"crop_size": 12000})
    with pytest.raises(PredictorFileError, match=r"crops to .12000, 12000.; expected at most 2048"):
        load_predictor(tiny_file, model=tiny_predictor().model)
    with pytest.raises(ValueError, match=r"crops to .5000, 5000.; expected at most 2048"):
        Predictor(tiny_predictor().model, Multiclass(2), Preset(5000)).save(tmp_path / "p.safetensors")


@pytest.mark.parametrize(("name", "more"), [("pets.pt", ""), ("pets.ONNX", r".*use export\(\)")])
def test_a_name_of_another_kind_of_file_is_refused(name, more, tmp_path):
    """Whoever is sent a file goes by its name."""
    task = Multiclass(["cat", "dog"])
    predictor = Predictor(replace_head(models.squeezenet1_1(), task), task, Preset(32))
    with pytest.raises(ValueError, match=rf"expected a name such as .*pets\.safetensors'{more}"):
        predictor.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
