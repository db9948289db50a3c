"""A folder of class folders is read as ImageFolder reads it, and nothing is left out in silence."""

import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets import ImageFolder

from layerkit.decoding import decode
from layerkit.errors import LayerkitWarning
from layerkit.loading import FolderDataset
from layerkit.presets import Preset


def test_it_equals_imagefolder(folder: Path) -> None:
    """Classes, indices, samples, targets, length and pictures are ImageFolder's."""
    transform = Preset(32).eval()
    ours, theirs = FolderDataset(folder / "train", transform), ImageFolder(str(folder / "train"), transform)
    assert ours.classes == theirs.classes
    assert ours.class_to_idx == theirs.class_to_idx
    assert ours.samples == theirs.samples
    assert ours.targets == theirs.targets
    assert len(ours) == len(theirs)
    for (a, i), (b, j) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1 / 255 / 0.22, rtol=0)
        assert i == j


def test_without_a_transform_the_picture_comes_as_it_is(folder: Path) -> None:
    """uint8 (3, H, W), and any callable may follow."""
    file = folder / "train" / "cat" / "00.png"
    assert torch.equal(FolderDataset(folder / "train")[0][0], decode(file))
    halved = FolderDataset(folder / "train", lambda picture: picture / 2)
    assert torch.equal(halved[0][0], decode(file) / 2)


def test_hidden_files_are_passed_over(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    """They are no classes, no pictures and no reason for a warning."""
    train = folder / "train"
    (train / ".ipynb_checkpoints").mkdir()
    shutil.copy(train / "cat" / "00.png", train / ".ipynb_checkpoints" / "00-checkpoint.png")
    for name in (".DS_Store", "cat/Thumbs.db", "cat/._00.png"):
        (train / name).write_bytes(b"system")
    dataset = FolderDataset(train)
    assert dataset.classes == ["cat", "dog"]
    assert len(dataset) == 21


def test_pictures_deeper_down_belong_to_the_class(folder: Path) -> None:
    """A class folder may have folders of its own."""
    deep = folder / "train" / "dog" / "garden" / "summer"
    deep.mkdir(parents=True)
    shutil.copy(folder / "train" / "dog" / "00.png", deep / "x.PNG")
    dataset = FolderDataset(folder / "train")
    assert (str(deep / "x.PNG"), 1) in dataset.samples
    assert len(dataset) == 22


def test_files_left_out_are_named(folder: Path) -> None:
    """Pictures beside the class folders and files with another suffix are warned of."""
    shutil.copy(folder / "train" / "cat" / "00.png", folder / "train" / "stray.png")
    (folder / "train" / "cat" / "x.jfif").write_bytes(b"\xff\xd8\xff")
    with pytest.warns(LayerkitWarning, match=r"2 files of .* left out, such as cat/x\.jfif"):
        dataset = FolderDataset(folder / "train")
    assert len(dataset) == 21


def test_a_folder_without_pictures_is_an_error(tmp_path: Path, folder: Path) -> None:
    """A missing folder, an empty one, a flat one and an empty class each get their own sentence."""
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        FolderDataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no class folders.*split_folder"):
        FolderDataset(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no class folders"):
        FolderDataset(folder / "train" / "cat")
    (folder / "train" / "bird").mkdir()
    with pytest.raises(ValueError, match="has no picture in 'bird'"):
        FolderDataset(folder / "train")
