"""A split folder becomes loaders, or an error that says what is missing."""

import shutil
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights

from layerkit.errors import LayerkitWarning
from layerkit.loading import Loaders, folder_loaders
from layerkit.presets import Preset


def test_loaders_give_normalised_batches(folder: Path) -> None:
    """Float32 pictures on the CPU and int64 targets; the parts, the classes and the preset beside them."""
    data = folder_loaders(folder, preset=Preset(32), batch_size=4)
    assert isinstance(data, Loaders)
    pictures, targets = next(iter(data.train))
    assert (pictures.shape, pictures.dtype, pictures.device.type) == ((4, 3, 32, 32), torch.float32, "cpu")
    assert (targets.shape, targets.dtype) == ((4,), torch.int64)
    assert data.classes == ["cat", "dog"]
    assert data.preset == Preset(32)
    assert data.test is None
    assert repr(data.valid) == "PictureLoader(8 pictures in 2 batches, in order)"


def test_validation_sees_the_eval_transform(folder: Path) -> None:
    """Bit for bit what preset.eval() gives for each file, in order."""
    data = folder_loaders(folder, preset=Preset(32), batch_size=3)
    pictures = torch.cat([batch for batch, _ in data.valid])
    targets = torch.cat([batch for _, batch in data.valid])
    alone = [data.valid.dataset[index] for index in range(8)]
    assert torch.equal(pictures, torch.stack([picture for picture, _ in alone]))
    assert targets.tolist() == [target for _, target in alone] == [0] * 4 + [1] * 4


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_every_name_for_validation_is_read(folder: Path, name: str) -> None:
    """And a part named test is taken along."""
    shutil.copytree(folder / "valid", folder / "test")
    (folder / "valid").rename(folder / name)
    data = folder_loaders(folder, weights=ResNet18_Weights.DEFAULT)
    assert len(data.valid.dataset) == 8
    assert data.test is not None
    assert len(data.test.dataset) == 8
    assert data.preset == Preset.from_weights(ResNet18_Weights.DEFAULT)


def test_missing_parts_are_named(folder: Path, tmp_path: Path) -> None:
    """The folder itself, train or valid."""
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder.*split_folder"):
        folder_loaders(tmp_path / "nowhere", preset=Preset(32))
    with pytest.raises(FileNotFoundError, match="no part named train"):
        folder_loaders(folder / "train", preset=Preset(32))
    shutil.copytree(folder / "valid", folder / "val")
    with pytest.raises(ValueError, match="valid and val; expected one folder for validation"):
        folder_loaders(folder, preset=Preset(32))
    shutil.rmtree(folder / "val")
    shutil.rmtree(folder / "valid")
    with pytest.raises(FileNotFoundError, match="no part named valid"):
        folder_loaders(folder, preset=Preset(32))


def test_other_classes_in_a_part_are_named(folder: Path) -> None:
    """A class that is missing from a part, or extra, is named with the part."""
    (folder / "valid" / "dog").rename(folder / "valid" / "wolf")
    with pytest.raises(ValueError, match=r"The part valid lacks \['dog'\] and has \['wolf'\] besides"):
        folder_loaders(folder, preset=Preset(32))
    shutil.rmtree(folder / "valid" / "wolf")
    with pytest.raises(
        ValueError, match=r"The part valid lacks \['dog'\]; expected the classes of the training"
    ):
        folder_loaders(folder, preset=Preset(32))


def test_exactly_one_of_weights_and_preset(folder: Path) -> None:
    """Neither and both are refused."""
    with pytest.raises(ValueError, match="expected exactly one of them"):
        folder_loaders(folder)
    with pytest.raises(ValueError, match="expected exactly one of them"):
        folder_loaders(folder, preset=Preset(32), weights=ResNet18_Weights.DEFAULT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "`batch_size` is 2.5"),
        ({"num_workers": -1}, "`num_workers` is -1; expected a whole number of at least 0, or auto"),
        ({"num_workers": "all"}, "`num_workers` is 'all'"),
        ({"errors": "ignore"}, "`errors` is 'ignore'; expected 'raise' or 'skip'"),
        ({"augment": "heavy"}, "`augment` is 'heavy'; expected one of 'none'"),
    ],
)
def test_wrong_options_are_named(folder: Path, options: dict, message: str) -> None:
    """Each message holds the value and what was expected."""
    with pytest.raises(ValueError, match=message):
        folder_loaders(folder, preset=Preset(32), **options)


def test_files_left_out_of_a_part_are_said(folder: Path) -> None:
    """The warning of FolderDataset comes through."""
    (folder / "valid" / "notes.txt").write_text("two dogs are missing")
    with pytest.warns(LayerkitWarning, match=r"1 file of .*valid left out, such as notes\.txt"):
        folder_loaders(folder, preset=Preset(32))
