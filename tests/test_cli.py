"""The command line: what it says, and with what status it ends."""

import argparse
import inspect
import os
import runpy
import shutil
import subprocess
import sys
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

from layerkit import Multilabel, Predictor, Preset, __version__, load_predictor, replace_head, split_folder
from layerkit.cli import main
from layerkit.cli.running import COMMANDS
from layerkit.demo.weights import squeezenet1_1_weights


def test_version_and_help(capsys):
    """Both end well; the help of a command shows an example."""
    for arguments, text in ((["--version"], __version__), (["demo", "--help"], "example: layerkit demo")):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        assert text in capsys.readouterr().out


def test_an_error_is_one_line_and_status_1(monkeypatch, capsys):
    """What goes wrong is said without a traceback."""
    monkeypatch.setattr("layerkit.demo.running.PICTURES", "no such folder")
    assert main(["demo"]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("layerkit demo: ")
    assert "no such folder" in captured
    assert "Traceback" not in captured


def test_ctrl_c_is_status_130(monkeypatch, capsys):
    """An interruption is no error with a traceback."""

    def interrupt(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("layerkit.demo.run_demo", interrupt)
    assert main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_module_is_the_command(monkeypatch, capsys):
    """``python -m layerkit`` is the same door."""
    monkeypatch.setattr(sys, "argv", ["layerkit", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("layerkit", run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.strip() == f"layerkit {__version__}"


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """Stand beside a folder of ten small pictures of each of two classes."""
    for label in ("cat", "dog"):
        (tmp_path / "PetImages" / label).mkdir(parents=True)
        for n in range(10):
            colour = (n * 20, 100, 10 if label == "cat" else 200)
            Image.new("RGB", (40, 32 + n), colour).save(tmp_path / "PetImages" / label / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [add.__name__.removeprefix("add_") for add in COMMANDS])
def test_help_shows_an_example(command, capsys):
    """The example begins with the command itself, and no line is wider than a terminal."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"layerkit {command} " in text[text.index("example") :]
    assert max(map(len, text.splitlines())) <= 80


def test_split_then_check(pets, capsys):
    """A folder is split with the options given, and the result passes the check."""
    assert main(["split", "PetImages", "pets", "--valid", "0.3", "--test", "2", "--mode", "hardlink"]) == 0
    captured = capsys.readouterr()
    assert "all" in captured.out
    assert "written to pets" in captured.err
    assert {part: len([*(pets / "pets" / part).rglob("*.png")]) for part in ("train", "valid", "test")} == {
        "train": 12,
        "valid": 6,
        "test": 2,
    }
    assert (pets / "pets/test/cat").exists()
    assert (pets / "PetImages/cat/0.png").stat().st_nlink == 2
    assert main(["check", "pets"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out


def test_split_takes_what_split_folder_takes(pets, monkeypatch):
    """Every option of the function has one on the command line, with the same default."""
    seen = {}
    monkeypatch.setattr("layerkit.cli.splitting.split_folder", lambda *paths, **options: seen.update(options))
    main(["split", "PetImages", "pets"])
    signature = inspect.signature(split_folder).parameters
    defaults = {name: p.default for name, p in signature.items() if p.kind is p.KEYWORD_ONLY}
    assert {**seen, "progress": True} == defaults
    amounts = ["--valid", "7", "--test", "0.5", "--seed", "3"]
    rules = ["--label", "(c|d)", "--group", "[0-9]", "--no-stratify", "--duplicates", "strict"]
    main(["split", "PetImages", "pets", *amounts, *rules, "--mode", "move"])
    assert seen == {
        "valid": 7,
        "test": 0.5,
        "label": "(c|d)",
        "group": "[0-9]",
        "stratify": False,
        "duplicates": "strict",
        "seed": 3,
        "mode": "move",
    }
    assert isinstance(seen["valid"], int)


def test_a_dry_run_writes_nothing(pets, capsys):
    """It shows the split that the same command writes then, and raises what that would raise."""
    assert main(["split", "PetImages", "pets", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "dry run: nothing was written" in shown.err
    assert not (pets / "pets").exists()
    assert main(["split", "PetImages", "pets"]) == 0
    assert capsys.readouterr().out == shown.out
    assert main(["split", "PetImages", "pets", "--dry-run", "--seed", "1"]) == 1
    assert "'pets' holds another split" in capsys.readouterr().err


def test_a_dry_run_shows_what_would_be_added(pets, capsys):
    """New pictures of the source are placed among the old ones, which stay."""
    main(["split", "PetImages", "pets"])
    before = sorted(path for path in (pets / "pets").rglob("*") if path.is_file())
    Image.new("RGB", (20, 20)).save(pets / "PetImages/cat/new.png")
    capsys.readouterr()
    assert main(["split", "PetImages", "pets", "--dry-run"]) == 0
    assert "Split of 21 pictures" in capsys.readouterr().out
    assert sorted(path for path in (pets / "pets").rglob("*") if path.is_file()) == before


def test_what_a_split_could_not_do_is_said_once(pets, capsys):
    """The table tells it; no warning repeats it."""
    shutil.copy(pets / "PetImages/cat/0.png", pets / "PetImages/dog/copy.png")
    assert main(["split", "PetImages", "pets"]) == 0
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("more than one label") == 1


def test_check_is_status_1_where_something_is_wrong(pets, capsys):
    """The summary names it, and the table holds it; warnings alone are status 0."""
    Image.new("RGB", (5, 5)).save(pets / "PetImages/cat/tiny.png")
    assert main(["check", "PetImages"]) == 0
    (pets / "PetImages/cat/broken.jpg").write_bytes(b"")
    assert main(["check", "PetImages", "--csv", "found.csv", "--min-size", "4", "--num-workers", "1"]) == 1
    assert "cat/broken.jpg" in capsys.readouterr().out
    lines = (pets / "found.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [["empty_file", "error", "cat/broken.jpg"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "nowhere", "pets"], "layerkit split: there is no folder 'nowhere'"),
        (["split", "PetImages", "PetImages/out"], "lies in the source"),
        (["split", "PetImages", "pets", "--valid", "1.5"], "`valid` is 1.5"),
        (["split", "PetImages", "pets", "--label", "("], "`label` is '('"),
        (["check", "nowhere"], "layerkit check: there is no folder 'nowhere'"),
        (["check", "PetImages", "--min-size", "-1"], "`min_size` is -1"),
    ],
)
def test_errors_have_a_status(pets, arguments, message, capsys):
    """Each is said on stderr without a traceback, and nothing was written; of a check, 1 would say that it found."""
    assert main(arguments) == (2 if arguments[0] == "check" else 1)
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert [path.name for path in pets.iterdir()] == ["PetImages"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "a", "b", "--valid", "some"], "'some' is no number; expected a fraction such as 0.2"),
        (["split", "a", "b", "--mode", "link"], "invalid choice: 'link'"),
        (["check"], "required: root"),
        (["check", "a", "--num-workers", "two"], "'two' is no number; expected auto"),
        (["tidy"], "invalid choice: 'tidy'"),
    ],
)
def test_what_cannot_be_parsed_is_status_2(arguments, message, capsys):
    """As every command of argparse."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_in_a_process_of_its_own(pets):
    """What is asked for goes to stdout, the rest to stderr; a name that the terminal cannot write stops nothing."""
    run = [sys.executable, "-m", "layerkit"]
    split = subprocess.run([*run, "split", "PetImages", "pets"], capture_output=True, text=True)
    assert (split.returncode, split.stderr) == (0, "written to pets\n")
    assert split.stdout.startswith("Split of 20 pictures")
    (pets / "pets/train/cat/猫.jpg").write_bytes(b"")
    check = subprocess.run(
        [*run, "check", "pets"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert check.returncode == 1
    assert r"train/cat/\u732b.jpg" in check.stdout
    assert check.stderr == ""


@pytest.fixture
def trained(pets, monkeypatch):
    """Stand beside the folder pets, split from those pictures, and a predictor that was trained on it."""
    split_folder(pets / "PetImages", "pets", valid=0.3, seed=0, progress=False)
    arguments = ["--model", "squeezenet1_1", "--weights", "none", "--epochs", "2", "--frozen-epochs", "1"]
    assert main(["train", "pets", *arguments, "--batch-size", "8", "--curves", "curves.png"]) == 0
    return pets


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*could not be read and have no answer")
def test_from_training_to_the_exported_program(trained, capsys):
    """Each command takes what the one before it left, and says what it did."""
    assert (trained / "curves.png").stat().st_size > 1000
    assert main(["evaluate", "predictor.safetensors", "pets"]) == 0
    assert main(["predict", "predictor.safetensors", "pets/valid/cat", "pets/valid/dog/*.png"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("6 pictures of pets/valid\n")
    assert "accuracy             " in printed
    assert sum(line.startswith("pets/valid") for line in printed.splitlines()) == 6
    (trained / "broken.png").write_bytes(b"words")
    capsys.readouterr()
    sources = ["pets/valid/cat", "broken.png"]
    assert main(["predict", "predictor.safetensors", *sources]) == 1
    assert main(["predict", "predictor.safetensors", *sources, "--errors", "skip"]) == 0
    captured = capsys.readouterr()
    assert "broken.png" in captured.err
    assert "broken.png" not in captured.out
    assert "pets/valid/cat" in captured.out
    assert main(["predict", "predictor.safetensors", "pets/valid/cat", "--csv", "answers.csv"]) == 0
    assert capsys.readouterr().out == "3 answers written to answers.csv\n"
    assert len((trained / "answers.csv").read_text().splitlines()) == 4
    assert main(["report", "predictor.safetensors", "pets", "--title", "Cats & dogs"]) == 0
    assert "<h1>Cats &amp; dogs</h1>" in (trained / "report.html").read_text(encoding="utf-8")
    assert main(["export", "predictor.safetensors", "pets.pt2"]) == 0
    assert (trained / "pets.pt2").exists()
    capsys.readouterr()
    assert main(["predict", "pets.pt2", "pets/valid/cat"]) == 1
    assert "is an exported program" in capsys.readouterr().err


def test_other_classes_than_the_predictors_are_refused(trained, capsys):
    """The message names both."""
    (trained / "pets" / "valid" / "cat").rename(trained / "pets" / "valid" / "bird")
    capsys.readouterr()
    assert main(["evaluate", "predictor.safetensors", "pets"]) == 1
    assert (
        "the class folders are bird, dog, and predictor.safetensors answers cat, dog"
        in capsys.readouterr().err
    )


def test_a_predictor_from_a_table_is_not_measured_on_folders(pets, capsys):
    """The message says what kind it is, and where such are measured."""
    task = Multilabel(["cat", "dog"])
    Predictor(replace_head(squeezenet1_1(), task), task, Preset(32)).save("labels.safetensors")
    for command in ("evaluate", "report"):
        assert main([command, "labels.safetensors", "PetImages"]) == 1
        said = capsys.readouterr().err
        assert "labels.safetensors answers a Multilabel, whose targets are in a table" in said
        assert "evaluate() and write_report() take the loaders of table_loaders()" in said


def test_weights_that_cannot_be_downloaded(pets, monkeypatch, capsys):
    """The message names their address, where the file could lie, and the way without."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    split_folder("PetImages", "pets", valid=0.3, progress=False)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", "empty")
    assert main(["train", "pets", "--model", "resnet18"]) == 1
    said = capsys.readouterr().err
    assert "could not be downloaded from https://download.pytorch.org/models/resnet18" in said
    assert "(no route to host)" in said
    assert "--weights none" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("given", "frozen"), [([], 0), (["--frozen-epochs", "1"], 1)])
def test_random_weights_are_not_frozen_unless_asked(pets, given, frozen, capsys):
    """A frozen backbone that has learnt nothing is no use."""
    split_folder("PetImages", "pets", valid=0.3, progress=False)
    arguments = ["--model", "squeezenet1_1", "--weights", "none", "--epochs", "1", "--crop-size", "32"]
    assert main(["train", "pets", *arguments, *given]) == 0
    assert ("frozen" in capsys.readouterr().err) == bool(frozen)
    assert load_predictor("predictor.safetensors").preset.crop == (32, 32)


def test_places_that_cannot_be_written_are_found_before_training(pets, monkeypatch, capsys):
    """Nothing is trained for a table that is a folder, or a plot of no format."""
    split_folder(pets / "PetImages", "pets", valid=0.3, seed=0, progress=False)
    monkeypatch.setattr("layerkit.training.fit", None)
    common = ["train", "pets", "--model", "squeezenet1_1", "--weights", "none"]
    for arguments, message in (
        (["--curves", "curves.foo"], "the suffix '.foo' is no format of pictures; expected one of"),
        (["--out", "pets"], "pets is a folder; expected the name of a file"),
    ):
        assert main([*common, *arguments]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("default:.*could not be read, and others took")
def test_a_remedy_is_named_as_the_command_has_it(pets, capsys):
    """A broken picture stops a training, which says how to go on without it, in the words of the command line."""
    split_folder(pets / "PetImages", "pets", valid=0.3, seed=0, progress=False)
    (pets / "pets/train/cat/broken.png").write_bytes(b"words")
    arguments = ["train", "pets", "--model", "squeezenet1_1", "--weights", "none", "--epochs", "1"]
    arguments += ["--crop-size", "32", "--precision", "bf16"]
    assert main(arguments) == 1
    assert "pass --errors skip" in capsys.readouterr().err
    assert not (pets / "predictor.safetensors").exists()
    assert main([*arguments, "--errors", "skip"]) == 0
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("pass mode=\"copy\" or mode='symlink'.", "pass --mode copy or --mode symlink."),
        (r'pass label=r"(cat|dog)\.\d+\.jpg".', r"pass --label '(cat|dog)\.\d+\.jpg'."),
        ("pass stratify=False, or k=3", "pass --no-stratify, or k=3"),
        ("pass min_size=0.", "pass --min-size 0."),
        ("mode=3/pets is no folder", "mode=3/pets is no folder"),
        ("pass mode=3/pets", "pass mode=3/pets"),
        ("call f(mode=mode), with mode='copy'", "call f(mode=mode), with --mode copy"),
    ],
)
def test_arguments_of_messages_become_flags(message, shown, monkeypatch, capsys):
    """But for those that the command does not have."""

    def run(given):
        raise ValueError(message)

    parser = argparse.ArgumentParser()
    parser.set_defaults(command="some", run=run, mode="move", stratify=True, min_size=1, label="folder")
    monkeypatch.setattr("layerkit.cli.running.make_parser", lambda: parser)
    assert main([]) == 1
    assert capsys.readouterr().err == f"layerkit some: {shown}\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a name holds no newline there")
def test_what_is_printed_is_one_line_a_picture(trained, capsys):
    """A newline in a name forges no answer, and a table replaces no picture."""
    odd = trained / "a\nb.png"
    shutil.copy(next((trained / "pets/valid/cat").iterdir()), odd)
    capsys.readouterr()
    assert main(["predict", "predictor.safetensors", str(odd)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "a\\nb.png\t" in line
    assert main(["predict", "predictor.safetensors", str(odd), "--csv", str(odd)]) == 1
    assert "is a picture by its name" in capsys.readouterr().err
    command = f"{sys.executable} -m layerkit predict predictor.safetensors pets/valid | head -0"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.slow
def test_training_goes_on_from_a_file(trained, capsys):
    """With the weights that were saved, for the same classes alone; a place of another kind is refused at once."""
    common = ["train", "pets", "--start", "predictor.safetensors", "--epochs", "1", "--lr", "1e-12"]
    assert main([*common, "--out", "more.safetensors"]) == 0
    assert "frozen" not in capsys.readouterr().err
    before, after = (load_predictor(f"{name}.safetensors").model for name in ("predictor", "more"))
    weights = zip(before.parameters(), after.parameters(), strict=True)
    assert all(torch.allclose(old, new, atol=1e-6) for old, new in weights)
    assert main([*common, "--binary"]) == 1
    assert "expected the same" in capsys.readouterr().err
    assert main([*common, "--out", "more.pt"]) == 1
    assert "expected a name such as 'more.safetensors'" in capsys.readouterr().err


def test_errors_of_torch_itself_have_no_traceback(pets, capsys):
    """A picture too small for the model."""
    split_folder(pets / "PetImages", "pets", valid=0.3, seed=0, progress=False)
    arguments = ["--model", "squeezenet1_1", "--weights", "none", "--crop-size", "3", "--epochs", "1"]
    assert main(["train", "pets", *arguments]) == 1
    assert "layerkit train: Given input size" in capsys.readouterr().err


@pytest.mark.slow
def test_the_packaged_weights_need_no_network(pets, monkeypatch, capsys):
    """They are those of one model, whose backbone is then frozen as any trained one."""
    split_folder("PetImages", "pets", valid=0.3, progress=False)
    monkeypatch.setattr("torch.hub.download_url_to_file", None)
    arguments = ["train", "pets", "--weights", "packaged", "--crop-size", "48", "--epochs", "1"]
    assert main([*arguments, "--model", "resnet18"]) == 1
    assert "--weights packaged is given for resnet18; expected squeezenet1_1" in capsys.readouterr().err
    assert main([*arguments, "--model", "squeezenet1_1"]) == 0
    trained = load_predictor("predictor.safetensors", device="cpu").model.features.state_dict()
    packaged = squeezenet1_1_weights()
    assert all(torch.equal(value, packaged[f"features.{name}"]) for name, value in trained.items())


def test_binary_of_more_classes_names_the_flag(pets, capsys):
    """And not the class of Python that would do."""
    for part in ("train", "valid"):
        for label in "abc":
            (pets / "three" / part / label).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(pets / "three" / part / label / "0.png")
    assert main(["train", "three", "--model", "squeezenet1_1", "--weights", "none", "--binary"]) == 1
    assert "--binary is given, and three holds 3 classes" in capsys.readouterr().err
