"""A folder's layout is told from its folders, and what is wrong with it is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from layerkit import check_folder

Draw = Callable[..., Path]


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        (["train/a/1.png", "valid/a/1.png"], "parts"),
        (["train/a/1.png", "val/a/1.png", "test/a/1.png"], "parts"),
        (["train/a/1.png", "validation/a/1.png", "old/a/1.png"], "parts"),
        (["train/1.png", "valid/1.png"], "parts"),
        (["bus/1.png", "car/1.png", "train/1.png"], "classes"),
        (["cat/1.png", "dog/deeper/1.png"], "classes"),
        (["cat/1.png", "1.png"], "classes"),
        (["1.png", "2.png"], "flat"),
    ],
)
def test_layout_is_told_from_the_folders(tmp_path: Path, draw: Draw, files: list[str], layout: str) -> None:
    """Parts, class folders or neither; a class may be called train."""
    for seed, file in enumerate(files):
        draw(tmp_path / file, seed)
    report = check_folder(tmp_path, progress=False)
    assert report.layout == layout
    assert report.num_pictures == len([file for file in files if not file.startswith("old/")]) - (
        files == ["cat/1.png", "1.png"]
    )


def test_the_report_says_what_was_assumed(tmp_path: Path, draw: Draw) -> None:
    """The first line names the layout, with parts and classes."""
    draw(tmp_path / "1.png", 1)
    assert "1 picture in a flat folder, without classes" in repr(check_folder(tmp_path, progress=False))
    draw(tmp_path / "cat" / "1.png", 2)
    assert "1 picture in 1 class, not split into parts" in repr(check_folder(tmp_path, progress=False))
    draw(tmp_path / "set" / "valid" / "cat" / "1.png", 3)
    draw(tmp_path / "set" / "train" / "cat" / "1.png", 4)
    report = check_folder(tmp_path / "set", progress=False)
    assert "2 pictures in 1 class, split into train and valid" in repr(report)


def test_parts_without_class_folders_have_no_classes(tmp_path: Path, draw: Draw) -> None:
    """Where a table tells the targets, pictures lie in the parts directly, and may lie deeper."""
    for seed, file in enumerate(["train/1.png", "train/2.png", "valid/1.png"]):
        draw(tmp_path / file, seed)
    report = check_folder(tmp_path, progress=False)
    assert (report.rows, report.classes, report.num_pictures) == ((), (), 3)


def test_an_empty_folder_has_no_pictures(tmp_path: Path) -> None:
    """It is an error, and says what else there is."""
    (tmp_path / "notes.txt").write_text("x")
    report = check_folder(tmp_path, progress=False)
    assert [(row.kind, row.detail) for row in report] == [("no_pictures", "1 other file below it")]


def test_missing_and_doubled_parts_are_named(tmp_path: Path, draw: Draw) -> None:
    """Training needs train and one folder for validation."""
    for seed, file in enumerate(["val/a/1.png", "val/a/2.png", "validation/a/1.png"]):
        draw(tmp_path / file, seed)
    kinds = [(row.kind, row.path) for row in check_folder(tmp_path, progress=False)]
    assert kinds == [("missing_part", "train"), ("two_valid_parts", "validation")]
    draw(tmp_path / "alone" / "train" / "a" / "1.png", 4)
    assert check_folder(tmp_path / "alone", progress=False).counts == {
        "missing_part": 1,
        "single_picture": 1,
    }


def test_files_beside_the_folders_are_no_fault(tmp_path: Path, draw: Draw) -> None:
    """A table or a licence may lie at the top; what lies among the pictures is named."""
    for seed, file in enumerate(["a/1.png", "a/2.png", "b/1.png", "b/2.png"]):
        draw(tmp_path / file, seed)
    (tmp_path / "labels.csv").write_text("path,label")
    (tmp_path / "a" / "notes.txt").write_text("x")
    rows = check_folder(tmp_path, progress=False).rows
    assert [(row.kind, row.path) for row in rows] == [("not_a_picture", "a/notes.txt")]


@pytest.mark.parametrize(("few", "is_named"), [(2, True), (3, False)])
def test_a_tenth_is_an_imbalance(tmp_path: Path, draw: Draw, few: int, is_named: bool) -> None:
    """Two against twenty are named, three are not."""
    for n in range(20):
        draw(tmp_path / "many" / f"{n}.png", n)
    for n in range(few):
        draw(tmp_path / "few" / f"{n}.png", 100 + n)
    rows = check_folder(tmp_path, progress=False).rows
    assert [(row.kind, row.path, row.detail) for row in rows] == (
        [("imbalance", "few", "2 against 20 of 'many'")] if is_named else []
    )
