"""Bad input gets one clear error, says how to mend it, and changes nothing on disk."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from layerkit import (
    LayerkitError,
    Multiclass,
    PictureError,
    Preset,
    decode,
    fit,
    folder_loaders,
    load_predictor,
    split_folder,
)
from layerkit.demo import weights


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Write ten small pictures of each of two classes."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            color = (number * 20, 100, 10 if name == "cat" else 200)
            Image.new("RGB", (40, 40), color).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


def listing(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def split(pets: Path) -> None:
    split_folder(pets, pets.parent / "split", progress=False)


def empty_folder(pets: Path) -> None:
    (pets.parent / "empty").mkdir(exist_ok=True)
    split_folder(pets.parent / "empty", pets.parent / "split")


def missing_folder(pets: Path) -> None:
    split_folder(pets.parent / "missing", pets.parent / "split")


def one_class(pets: Path) -> None:
    split_folder(pets / "cat", pets.parent / "split", label=lambda path: "cat")


def fraction(pets: Path) -> None:
    split_folder(pets, pets.parent / "split", valid=1.2)


def class_of_one(pets: Path) -> None:
    split_folder(pets, pets.parent / "split", label=lambda path: "odd" if path == "cat/0.png" else path[:3])


def unknown_backbone(pets: Path) -> None:
    Preset.from_model("resnet19")


def missing_predictor(pets: Path) -> None:
    load_predictor(pets / "missing.safetensors")


def no_parts(pets: Path) -> None:
    folder_loaders(pets, preset=Preset(32))


def no_epochs(pets: Path) -> None:
    fit(nn.Linear(2, 2), Multiclass(2), [(torch.ones(2, 2), torch.tensor([0, 1]))], epochs=0)


CASES = [
    (empty_folder, ValueError, "there is no picture in .*check the path"),
    (missing_folder, FileNotFoundError, "there is no folder .*expected a folder of pictures"),
    (one_class, ValueError, "nothing to tell apart"),
    (fraction, ValueError, r"`valid` is 1\.2; expected a fraction between 0 and 1 .* pass 0\.2"),
    (class_of_one, ValueError, "odd"),
    (unknown_backbone, ValueError, "Did you mean 'resnet1"),
    (missing_predictor, FileNotFoundError, "missing.safetensors"),
    (no_parts, FileNotFoundError, "has no part named train.*Split a folder of pictures first"),
    (no_epochs, ValueError, r"`epochs` is 0; expected a whole number of at least 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[case[0].__name__ for case in CASES])
def test_one_clear_error_and_nothing_changes(call, error, message, pets, capsys):
    """The error is of the kind that fits, says what to do, and the folder around it is as before."""
    if call is empty_folder:
        (pets.parent / "empty").mkdir()
    before = listing(pets.parent)
    with pytest.raises(error, match=message):
        call(pets)
    assert listing(pets.parent) == before
    assert not (pets.parent / "split").exists()


def test_a_picture_that_is_text_is_named(pets):
    """Reading it, and training on it, name the file; it is an OSError and a layerkit error."""
    (pets / "cat" / "notes.png").write_text("this is no picture")
    for kind in (PictureError, LayerkitError, OSError):
        with pytest.raises(kind, match=r"notes\.png"):
            decode(pets / "cat" / "notes.png")
    split(pets)
    data = folder_loaders(pets.parent / "split", preset=Preset(32), batch_size=4)
    with pytest.raises(PictureError, match=r"notes\.png"):
        list(chain(data.train, data.valid))


def test_missing_packaged_weights_are_named(monkeypatch, tmp_path):
    """A broken installation is told what is missing."""
    monkeypatch.setattr(weights, "FILE", tmp_path / "squeezenet.safetensors")
    with pytest.raises(FileNotFoundError, match=r"squeezenet\.safetensors.*Install layerkit again"):
        weights.squeezenet1_1_weights()
