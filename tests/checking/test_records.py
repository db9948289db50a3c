"""Pictures are compared with the record that split_folder left."""

import shutil
from pathlib import Path

import pytest

from layerkit import LayerkitError, Preset, SplitError, check_folder, folder_loaders, split_folder
from layerkit.splitting import Split, read_manifest
from layerkit.splitting.manifest import MANIFEST_NAME


@pytest.fixture
def split(healthy: Path, tmp_path: Path) -> Path:
    """Split the photographs of one part once more."""
    split_folder(healthy / "train", tmp_path / "split", valid=0.25, progress=False)
    return tmp_path / "split"


def first(folder: Path) -> Path:
    return min(folder.iterdir())


def found(root: Path) -> list[tuple[str, str]]:
    return [(row.kind, row.path) for row in check_folder(root, progress=False)]


def test_a_picture_on_another_side_is_named(split: Path) -> None:
    """Moved by hand, it changes sides; the loaders refuse it, and say what to do."""
    picture = first(split / "train/fruit")
    picture.rename(split / "valid/fruit" / picture.name)
    assert found(split) == [("other_side", f"valid/fruit/{picture.name}")]
    with pytest.raises(
        SplitError, match=rf"such as 'valid/fruit/{picture.name}', put at 'train/fruit/.*check_folder"
    ):
        folder_loaders(split, preset=Preset(32))
    (split / "valid/fruit" / picture.name).rename(picture)
    folder_loaders(split, preset=Preset(32))


def test_a_picture_on_two_sides_is_named(split: Path) -> None:
    """Copied by hand, it leaks; the loaders see it without opening a picture."""
    picture = first(split / "valid/fruit")
    shutil.copy(picture, split / "train/fruit")
    assert found(split) == [
        ("leak", f"valid/fruit/{picture.name}"),
        ("other_side", f"train/fruit/{picture.name}"),
    ]
    with pytest.raises(LayerkitError, match=r"1 picture of .* another side than split_folder put"):
        folder_loaders(split, preset=Preset(32))


def test_equal_bytes_on_two_sides_by_the_record_are_refused(split: Path, tmp_path: Path) -> None:
    """A table of one's own may leak; once one of the two is gone, there is nothing to refuse."""
    held = read_manifest(split)
    assert held is not None
    rows = list(held.rows)
    a = next(n for n, row in enumerate(rows) if row.part == "train")
    b = next(n for n, row in enumerate(rows) if row.part == "valid")
    rows[a], rows[b] = rows[a]._replace(hash="h"), rows[b]._replace(hash="h")
    Split(tuple(rows), held.source).materialize(tmp_path / "own", progress=False)
    with pytest.raises(SplitError, match="on two sides with the same bytes, such as 'valid/"):
        folder_loaders(tmp_path / "own", preset=Preset(32))
    (tmp_path / "own" / "train" / rows[a].path).unlink()
    folder_loaders(tmp_path / "own", preset=Preset(32))


def test_missing_and_unrecorded_pictures_are_warnings(split: Path, healthy: Path) -> None:
    """Somebody may have removed or added them on purpose."""
    gone = first(split / "train/fruit")
    gone.unlink()
    shutil.copyfile(first(healthy / "valid/fruit"), split / "train/fruit/new.jpg")
    report = check_folder(split, progress=False)
    assert [(row.kind, row.path) for row in report] == [
        ("missing_file", f"train/fruit/{gone.name}"),
        ("unrecorded", "train/fruit/new.jpg"),
    ]
    assert report.ok
    folder_loaders(split, preset=Preset(32))


def test_another_name_for_validation_changes_nothing(split: Path) -> None:
    """The record says valid; a folder that was renamed to val holds the same pictures."""
    (split / "valid").rename(split / "val")
    assert found(split) == []
    folder_loaders(split, preset=Preset(32))


def test_a_damaged_record_is_named(split: Path) -> None:
    """It is a fault of its own, and hides no other."""
    (split / MANIFEST_NAME).write_text("{}")
    first(split / "valid/fruit").write_bytes(b"")
    assert [kind for kind, _ in found(split)] == ["empty_file", "damaged_manifest"]


def test_relative_folders_are_compared_too(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From within the folder, as from outside."""
    monkeypatch.chdir(split)
    folder_loaders(".", preset=Preset(32))
    picture = first(split / "train/fruit")
    picture.rename(split / "valid/fruit" / picture.name)
    with pytest.raises(SplitError, match="such as 'valid/fruit/"):
        folder_loaders(".", preset=Preset(32))
