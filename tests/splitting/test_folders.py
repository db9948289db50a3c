import errno
import os
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from layerkit.errors import LayerkitWarning, PictureError, SplitError
from layerkit.splitting import Split, placing, plan_split, read_manifest, split_folder, writing
from layerkit.splitting.folders import preview_split
from layerkit.splitting.table import destination_of

MODES = ["copy", "hardlink", "symlink", "move"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows makes links only for administrators")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "some" / "dest"


def everything(root: Path) -> list[tuple[str, float]]:
    """All names below a folder, with their times: what must not change when a call fails."""
    return sorted((str(path), path.lstat().st_mtime) for path in root.rglob("*"))


@pytest.mark.parametrize("mode", MODES)
def test_every_picture_is_where_the_table_says(source, dest, contents, mode):
    """Each mode writes dest/part/class/name with the right contents, and no other file."""
    before = contents(source)
    split = split_folder(source, dest, valid=0.2, test=5, mode=mode, progress=False)
    assert split.counts["test"] == {"cat": 3, "dog": 2}
    assert contents(dest) == {f"{row.part}/{row.path}": before[row.path] for row in split.rows}
    assert contents(source) == ({} if mode == "move" else before)
    assert {path.name for path in dest.iterdir()} == {
        "train", "valid", "test", ".layerkit-split.jsonl", ".layerkit-split.lock"
    }  # fmt: skip
    assert read_manifest(dest) == split


def test_modes_do_what_they_say(source, tmp_path):
    """Hard links share the file, symbolic links point to it, copies are independent."""
    picture = source / "cat" / "cat.0.jpg"
    for mode in MODES[:3]:
        [written] = [
            tmp_path / mode / destination_of(row)
            for row in split_folder(source, tmp_path / mode, mode=mode, progress=False).rows
            if row.path == "cat/cat.0.jpg"
        ]
        assert written.is_symlink() == (mode == "symlink")
        assert written.samefile(picture) == (mode != "copy")


def test_flat_and_nested_folders(tmp_path, contents):
    """Below the class stands the path below the class; a flat name stays as it is."""
    for i in range(6):
        for label in ("cat", "dog"):
            (tmp_path / "flat").mkdir(exist_ok=True)
            (tmp_path / "flat" / f"{label}.{i}.jpg").write_text(f"{label}{i}")
            (tmp_path / "deep" / label / f"day{i}").mkdir(parents=True)
            (tmp_path / "deep" / label / f"day{i}" / "1.jpg").write_text(f"{label}{i}")
    split_folder(tmp_path / "flat", tmp_path / "a", label=r"(cat|dog)\.", progress=False)
    split_folder(tmp_path / "deep", tmp_path / "b", progress=False)
    assert {path.partition("/")[2] for path in contents(tmp_path / "a")} == {
        f"{label}/{label}.{i}.jpg" for label in ("cat", "dog") for i in range(6)
    }
    assert {path.partition("/")[2] for path in contents(tmp_path / "b")} == {
        f"{label}/day{i}/1.jpg" for label in ("cat", "dog") for i in range(6)
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_second_call_changes_nothing(source, dest, mode, monkeypatch):
    """The same call again writes no file and reads no picture, and returns the same split."""
    first = split_folder(source, dest, mode=mode, progress=False)
    before = everything(dest)
    monkeypatch.setattr(writing, "placer", None)
    monkeypatch.setattr("layerkit.splitting.kinship.find_duplicates", None)
    assert split_folder(source, dest, mode=mode, progress=False) == first
    assert everything(dest) == before


def test_a_moved_split_outlives_its_source(source, dest):
    """After a move the source may be deleted: the same call still returns the split."""
    first = split_folder(source, dest, mode="move", progress=False)
    shutil.rmtree(source)
    assert split_folder(source, dest, mode="move", progress=False) == first


def test_the_common_parent_may_move(source, tmp_path):
    """Where source and destination were moved together, the call still knows them."""
    first = split_folder(source, tmp_path / "dest", progress=False)
    (tmp_path / "elsewhere").mkdir()
    for name in ("source", "dest"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    again = split_folder(tmp_path / "elsewhere" / "source", tmp_path / "elsewhere" / "dest", progress=False)
    assert again == first
    assert again.source == tmp_path / "elsewhere" / "source"


@pytest.mark.parametrize(
    "change",
    [
        {"valid": 0.3},
        {"test": 3},
        {"seed": 1},
        {"mode": "hardlink"},
        {"duplicates": "ignore"},
        {"stratify": False},
        {"label": "(cat|dog)"},
        {"label": lambda path: path[:1]},
        {"group": r"\d"},
    ],
)
def test_another_split_is_refused(source, dest, change):
    """Another option is refused, with what the folder holds and what differs; nothing changes."""
    split_folder(source, dest, progress=False)
    before = everything(dest)
    [name] = change
    with pytest.raises(
        SplitError, match=rf"holds another split: 50 pictures of .*valid=0\.2.*asked for: .*{name}"
    ):
        split_folder(source, dest, progress=False, **change)
    assert everything(dest) == before


def test_another_source_is_refused(source, make_folder, dest):
    """The pictures of two folders are never mixed."""
    split_folder(source, dest, progress=False)
    with pytest.raises(SplitError, match=r"holds another split.*asked for: source="):
        split_folder(make_folder("other", cat=5, dog=5), dest, progress=False)


def test_functions_are_compared_by_their_answers(source, dest):
    """Two functions that label alike are the same request; others are not."""
    split_folder(source, dest, label=lambda path: path.split("/")[0], progress=False)
    split_folder(source, dest, label=lambda path: path[:3], progress=False)
    with pytest.raises(SplitError, match="a label function with other answers"):
        split_folder(source, dest, label=lambda path: path[:2], progress=False)


@pytest.mark.parametrize("mode", MODES)
def test_a_grown_source_places_only_new_pictures(source, dest, contents, mode):
    """New pictures are added and no old one moves; with move, new copies of old ones join them."""
    first = split_folder(source, dest, mode=mode, progress=False)
    before = contents(dest)
    for i in range(10):
        (source / "cat" / f"new{i}.jpg").write_text(f"new {i}")
    (source / "dog" / "again.jpg").write_text("dog 3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)
        second = split_folder(source, dest, mode=mode, progress=False)
    parts = {row.path: row.part for row in second.rows}
    assert {row.path: row.part for row in first.rows}.items() <= parts.items()
    assert before.items() <= contents(dest).items()
    assert len(contents(dest)) == len(second) == 61
    assert sum(second.counts["valid"].values()) == 12
    assert parts["dog/again.jpg"] == parts["dog/dog.3.jpg"]
    assert contents(source) == {} if mode == "move" else len(contents(source)) == 61


def test_hashes_are_kept_and_used_again(source, dest, monkeypatch):
    """What was hashed once is not read again while its size and time are the same."""
    (source / "dog" / "again.jpg").write_text("dog 3")
    split_folder(source, dest, progress=False)
    (source / "dog" / "third.jpg").write_text("dog 3")
    hashed = []
    real = __import__("hashlib").file_digest
    monkeypatch.setattr(
        "hashlib.file_digest", lambda file, kind: hashed.append(file.name) or real(file, kind)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)
        split_folder(source, dest, progress=False)
    assert [Path(name).name for name in hashed] == ["third.jpg"]


def test_a_picture_gone_from_the_source_stays_in_the_destination(source, dest, contents):
    """What was copied is not lost when the original is; growing afterwards keeps it too."""
    split_folder(source, dest, progress=False)
    (source / "cat" / "cat.0.jpg").unlink()
    (source / "cat" / "new.jpg").write_text("new")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)
        assert len(split_folder(source, dest, progress=False)) == 51
    assert len(contents(dest)) == 51


def test_a_picture_in_neither_place_is_named_and_leaves(source, dest):
    """A picture deleted on both sides leaves the split with a warning, once."""
    split_folder(source, dest, mode="move", progress=False)
    [lost] = dest.glob("*/cat/cat.7.jpg")
    lost.unlink()
    with pytest.warns(
        LayerkitWarning, match=r"1 picture of the earlier split cannot be found.*'cat/cat\.7\.jpg'"
    ):
        assert len(split_folder(source, dest, mode="move", progress=False)) == 49
    assert len(split_folder(source, dest, mode="move", progress=False)) == 49


def test_a_deleted_copy_is_put_back(source, dest, contents):
    """The manifest rules: what is missing from the destination is brought again."""
    split_folder(source, dest, progress=False)
    before = contents(dest)
    shutil.rmtree(dest / "valid")
    split_folder(source, dest, progress=False)
    assert contents(dest) == before


def test_pictures_of_unknown_origin_are_refused(source, dest):
    """A destination that holds other files is left alone, a folder named val too."""
    (dest / "val" / "cat").mkdir(parents=True)
    (dest / "val" / "cat" / "mine.jpg").write_text("mine")
    before = everything(dest)
    with pytest.raises(
        SplitError, match=r"already has 1 file that no split has put there, such as 'val/cat/mine"
    ):
        split_folder(source, dest, progress=False)
    assert everything(dest) == before


def test_a_stray_under_a_new_pictures_name_is_not_overwritten(source, dest):
    """A file that somebody put into the destination is never replaced."""
    split_folder(source, dest, progress=False)
    (source / "cat" / "new.jpg").write_text("new")
    for part in ("train", "valid"):
        (dest / part / "cat" / "new.jpg").write_text("stray")
    with pytest.raises(SplitError, match="already has 1 file that no split has put there"):
        split_folder(source, dest, progress=False)
    assert (dest / "train" / "cat" / "new.jpg").read_text() == "stray"
    assert len(read_manifest(dest)) == 50


@pytest.mark.parametrize(
    ("files", "options", "error"),
    [
        ({}, {}, SplitError),
        ({"a/1.jpg": "1", "a/2.jpg": "2"}, {}, SplitError),
        ({"a/1.jpg": "1", "a/2.jpg": "2", "b/1.jpg": "3"}, {}, SplitError),
        ({"a/1.jpg": "1", "a/2.jpg": "2", "b/1.jpg": "3", "b/2.jpg": "4"}, {"valid": 1.2}, ValueError),
        ({"a/1.jpg": "1", "a/2.jpg": "2", "b/1.jpg": "3", "b/2.jpg": "4"}, {"valid": 1}, SplitError),
        ({"a/1.jpg": "1", "a/2.jpg": "2", "b/1.jpg": "3", "b/2.jpg": "4"}, {"mode": "cp"}, ValueError),
        ({"a/1.jpg": "1", "b/1.jpg": "1"}, {"duplicates": "strict"}, SplitError),
    ],
)
def test_a_call_that_fails_leaves_nothing(tmp_path, files, options, error):
    """After an error no file and no folder is there that was not there before."""
    (tmp_path / "source").mkdir()
    for path, text in files.items():
        (tmp_path / "source" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "source" / path).write_text(text)
    before = everything(tmp_path)
    with pytest.raises(error):
        split_folder(tmp_path / "source", tmp_path / "new" / "dest", progress=False, **options)
    assert everything(tmp_path) == before
    with pytest.raises(FileNotFoundError, match="no folder"):
        split_folder(tmp_path / "nowhere", tmp_path / "dest", progress=False)
    assert everything(tmp_path) == before


def test_destination_inside_the_source(source):
    """It is refused, also through a link or as the source itself."""
    for dest in (source, source / "split", source / "cat" / ".." / "x"):
        with pytest.raises(
            SplitError, match=r"lies in the source .*expected a folder outside it, such as '.*source-"
        ):
            split_folder(source, dest, progress=False)
    assert not (source / "split").exists()


def test_names_with_newlines_and_other_scripts(tmp_path, contents):
    """Odd names reach their place, the manifest and a CSV file unchanged."""
    names = ['größe, "1".jpg', "写真.jpg", "e\u0301.jpg", "é.jpg", " .jpg", "[x],[y].jpg"]
    if sys.platform == "linux":
        names += ["a\nb.jpg", "a\r.jpg", os.fsdecode(b"latin-\xe9.jpg"), "back\\slash.jpg"]
    for label in ("ja ja", "nein,nein"):
        (tmp_path / "source" / label).mkdir(parents=True)
        for name in names:
            (tmp_path / "source" / label / name).write_text(label + ascii(name))
    split = split_folder(tmp_path / "source", tmp_path / "dest", valid=0.5, progress=False)
    before, after = contents(tmp_path / "source"), contents(tmp_path / "dest")
    assert {path.partition("/")[2]: text for path, text in after.items()} == before
    assert read_manifest(tmp_path / "dest") == split
    split.to_csv(tmp_path / "table.csv")
    assert Split.read_csv(tmp_path / "table.csv") == split


def test_names_that_differ_only_in_case(tmp_path, monkeypatch, contents):
    """They live side by side where the file system tells them apart, and are refused where it does not."""
    labels = {"1.jpg": "a", "2.jpg": "b", "3.jpg": "a", "4.jpg": "b", "X.jpg": "a", "x.jpg": "a"}
    (tmp_path / "source").mkdir()
    for name in labels:
        (tmp_path / "source" / name).write_text(name)
    if len(contents(tmp_path / "source")) < 6:
        pytest.skip("this file system does not tell case apart")
    for seed in range(20):  # until both are on one side
        dest = tmp_path / f"dest{seed}"
        parts = {
            row.path: row.part
            for row in plan_split(tmp_path / "source", label=labels.get, seed=seed, valid=2).rows
        }
        if parts["X.jpg"] == parts["x.jpg"]:
            break
    monkeypatch.setattr(writing, "_ignores_case", lambda dest: True)
    with pytest.raises(SplitError, match=r"'X\.jpg' and 'x\.jpg' would both be written to"):
        split_folder(tmp_path / "source", dest, label=labels.get, seed=seed, valid=2, progress=False)
    cased = {name: label.upper() if name < "3" else label for name, label in labels.items()}
    with pytest.raises(SplitError, match="the labels 'A' and 'a' differ only in case"):
        split_folder(tmp_path / "source", dest, label=cased.get, stratify=False, progress=False)
    assert not dest.exists()
    monkeypatch.undo()
    split_folder(tmp_path / "source", dest, label=labels.get, seed=seed, valid=2, progress=False)
    assert sorted(contents(dest).values()) == sorted(labels)


def test_two_pictures_for_one_name(tmp_path):
    """A label function may send two pictures to one name: neither is overwritten, nothing is written."""
    for name in ("cat/1.jpg", "1.jpg", "dog/2.jpg", "dog/3.jpg"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(name)
    label = {"cat/1.jpg": "cat", "1.jpg": "cat"}
    with pytest.raises(
        SplitError, match=r"'1\.jpg' and 'cat/1\.jpg' would both be written to 'train/cat/1\.jpg'"
    ):
        split_folder(
            tmp_path / "source",
            tmp_path / "dest",
            valid=0,
            label=lambda path: label.get(path, "dog"),
            progress=False,
        )
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("label", ["../up", ".hidden", "a/b"])
def test_labels_that_are_no_folder_names(source, dest, label):
    """A label never leads out of the destination or into a hidden folder."""
    with pytest.raises(SplitError, match="cannot be the name of a visible folder"):
        split_folder(source, dest, label=lambda path: label if path < "d" else "dog", progress=False)
    assert not dest.exists()


@posix
def test_links_that_leave_the_source(tmp_path, source, contents):
    """They are read through by every mode but move, which would have to touch another folder."""
    (tmp_path / "outside.jpg").write_text("outside")
    (source / "cat" / "link.jpg").symlink_to("../../outside.jpg")
    for mode in ("copy", "hardlink", "symlink"):
        split_folder(source, tmp_path / mode, mode=mode, progress=False)
        [text] = [text for path, text in contents(tmp_path / mode).items() if path.endswith("link.jpg")]
        assert text == "outside"
    with pytest.raises(
        SplitError, match=r"1 picture in the source are symbolic links, such as 'cat/link\.jpg'"
    ):
        split_folder(source, tmp_path / "move", mode="move", progress=False)
    assert not (tmp_path / "move").exists()
    assert len(contents(source)) == 51


def failing(number: int, fail_at: int = 7):
    """Return a stand-in for a file operation that fails at its n-th call, having done a part of the work."""
    calls = []

    def operation(source, place, *rest):
        calls.append(source)
        if len(calls) >= fail_at:
            Path(place).write_text("half")
            raise OSError(number, os.strerror(number))
        return shutil.copyfile(source, place)

    return operation


def test_a_full_disk(source, dest, contents, monkeypatch):
    """The error names both files, nothing half-written has a final name, and calling again finishes."""
    before = contents(source)
    monkeypatch.setattr(placing, "_copy_bytes", failing(errno.ENOSPC))
    with pytest.raises(
        OSError, match=r"No space left.*'.*jpg' could not be brought to.*call again"
    ) as caught:
        split_folder(source, dest, progress=False)
    assert caught.value.errno == errno.ENOSPC
    assert all(before[path.partition("/")[2]] == text for path, text in contents(dest).items())
    assert len(contents(dest)) == 6
    monkeypatch.undo()
    split_folder(source, dest, progress=False)
    assert sorted(contents(dest).values()) == sorted(before.values())


def test_a_read_only_destination(source, dest, monkeypatch):
    """A complete split can be used where nobody may write; any other says why it cannot be written."""
    split = split_folder(source, dest, progress=False)
    real = os.open

    def refuse(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert split_folder(source, dest, progress=False) == split
    with pytest.raises(OSError, match="Read-only"):
        split_folder(source, dest.with_name("new"), progress=False)
    monkeypatch.undo()
    assert not dest.with_name("new").exists()


def test_a_picture_that_vanishes(source, dest, monkeypatch, contents):
    """It is named; calling again goes on without it and says so."""
    real = writing.write_manifest

    def vanish(*arguments):
        real(*arguments)
        (source / "cat" / "cat.9.jpg").unlink()

    monkeypatch.setattr(writing, "write_manifest", vanish)
    with pytest.raises(PictureError, match=r"cat\.9\.jpg' has vanished since the folder was listed"):
        split_folder(source, dest, progress=False)
    monkeypatch.undo()
    with pytest.warns(LayerkitWarning, match="cannot be found any more"):
        split_folder(source, dest, progress=False)
    assert len(contents(dest)) == 49


def other_file_system(*arguments, **options):
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_hard_links_across_file_systems(source, dest, monkeypatch):
    """They are refused with the modes that would do, before anything is written."""
    monkeypatch.setattr(os, "link", other_file_system)
    with pytest.raises(OSError, match=r'different file systems.*pass mode="copy" or mode="symlink"'):
        split_folder(source, dest, mode="hardlink", progress=False)
    assert not dest.exists()


def test_move_across_file_systems(source, dest, contents, monkeypatch):
    """Each copy is synced before its original goes, and times are kept."""
    before = contents(source)
    times = {path.name: path.stat().st_mtime for path in source.rglob("*.jpg")}
    events = []
    monkeypatch.setattr(os, "rename", other_file_system)
    monkeypatch.setattr(placing, "_sync", lambda path: events.append(("sync", Path(path).is_dir())))
    real = os.unlink
    monkeypatch.setattr(
        os,
        "unlink",
        lambda path, **more: events.append(("unlink", Path(path).exists())) or real(path, **more),
    )
    split_folder(source, dest, mode="move", progress=False)
    monkeypatch.undo()
    assert events[:3] == [("sync", False), ("sync", True), ("unlink", True)]
    assert events == events[:3] * 50 + events[150:]
    assert contents(source) == {}
    assert sorted(contents(dest).values()) == sorted(before.values())
    assert {path.name: path.stat().st_mtime for path in dest.rglob("*.jpg")} == times


def test_move_killed_between_copy_and_removal(source, dest, contents):
    """The original of a finished copy is removed by the next call; another picture of that name stays."""
    before = contents(source)
    split = split_folder(source, dest, mode="move", progress=False)
    (source / "cat" / "cat.1.jpg").write_text(before["cat/cat.1.jpg"])
    split_folder(source, dest, mode="move", progress=False)
    assert contents(source) == {}
    (source / "cat" / "cat.1.jpg").write_text("another")
    with pytest.raises(SplitError, match=r"cannot be moved to .* where another picture of that name"):
        split_folder(source, dest, mode="move", progress=False)
    assert contents(source) == {"cat/cat.1.jpg": "another"}
    assert len(contents(dest)) == len(split)


@posix
def test_a_link_from_the_old_place_to_the_new_loses_nothing(make_folder, dest, contents):
    """Where an emptied folder was replaced by a link to what was moved, the same call removes nothing."""
    source = make_folder(cat=6, dog=6)
    split_folder(source, dest, valid=0, mode="move", progress=False)
    before = contents(dest)
    (source / "cat").rmdir()
    (source / "cat").symlink_to(dest / "train" / "cat")
    split_folder(source, dest, valid=0, mode="move", progress=False)
    assert contents(dest) == before


def test_a_file_as_destination(source, tmp_path):
    """It is told apart from a folder, and stays."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
        split_folder(source, tmp_path / "file", progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_materialize_and_split_folder_agree(source, tmp_path, contents):
    """A plan written later is the same split, from its table too, and may grow."""
    split = plan_split(source, seed=3)
    split.materialize(tmp_path / "a", progress=False)
    assert split_folder(source, tmp_path / "a", seed=3, progress=False) == split
    split.to_csv(tmp_path / "table.csv")
    table = Split.read_csv(tmp_path / "table.csv", source=source)
    table.materialize(tmp_path / "b", mode="hardlink", progress=False)
    table.materialize(tmp_path / "b", mode="hardlink", progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    (source / "cat" / "new.jpg").write_text("new")
    plan_split(source, seed=3, previous=table).materialize(tmp_path / "b", mode="hardlink", progress=False)
    assert len(contents(tmp_path / "b")) == 51
    with pytest.raises(SplitError, match=r"holds another split of 51 pictures, where 'cat/"):
        plan_split(source, seed=4).materialize(tmp_path / "b", mode="hardlink", progress=False)
    with pytest.raises(SplitError, match=r"written with mode='hardlink'"):
        plan_split(source, seed=3, previous=table).materialize(tmp_path / "b", progress=False)


def test_materialize_needs_its_files(source, tmp_path):
    """Without a source, or with files missing, nothing is written."""
    split = plan_split(source)
    split.to_csv(tmp_path / "table.csv")
    with pytest.raises(SplitError, match=r'Split\.read_csv\(path, source="folder"\)'):
        Split.read_csv(tmp_path / "table.csv").materialize(tmp_path / "dest")
    (source / "cat" / "cat.0.jpg").unlink()
    with pytest.raises(PictureError, match=r"1 picture of the split are not in .*'cat/cat\.0\.jpg'"):
        split.materialize(tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_damaged_and_newer_manifests(source, dest):
    """They are refused by name, and the destination stays as it is."""
    split_folder(source, dest, progress=False)
    manifest = dest / ".layerkit-split.jsonl"
    text = manifest.read_text()
    for damaged in (
        text[: len(text) // 2],
        text.splitlines()[0],
        "",
        "{}\n",
        text.replace('"cat/', '"../', 1),
    ):
        manifest.write_text(damaged)
        with pytest.raises(SplitError, match=r"damaged|lead out of the source"):
            read_manifest(dest)
    manifest.write_text(text.replace('"layerkit_split": 1', '"layerkit_split": 99'))
    with pytest.raises(SplitError, match=r"newer layerkit.*upgrade"):
        split_folder(source, dest, progress=False)
    assert read_manifest(dest.parent) is None


def test_left_out_files_are_named(source, dest, capsys):
    """What was left out is said on stderr and kept in the result; without progress nothing is printed."""
    (source / "cat" / "notes.txt").write_text("x")
    assert split_folder(source, dest, progress=True).skipped == (("cat/notes.txt", "not a picture"),)
    assert "left out 1 file: 'cat/notes.txt'" in capsys.readouterr().err
    split_folder(source, dest.with_name("quiet"), progress=False)
    assert capsys.readouterr() == ("", "")


def test_after_a_move_nobody_is_told_to_delete_the_only_pictures(source, dest):
    """The refusal says that they are there only; with copies it may be deleted."""
    split = split_folder(source, dest, mode="move", progress=False)
    with pytest.raises(SplitError, match="may hold the only ones") as refused:
        split_folder(source, dest, mode="move", seed=3, progress=False)
    assert "delete" not in str(refused.value)
    rest = replace(split, rows=split.rows[:20])
    with pytest.raises(SplitError, match=r"only ones; .* read_manifest\(dest\) reads") as refused:
        rest.materialize(dest, mode="move", progress=False)
    assert "delete" not in str(refused.value)
    assert read_manifest(dest).materialize(dest, mode="move", progress=False) == read_manifest(dest)


@pytest.mark.parametrize(
    ("old", "new"), [('"valid"', '"../evil"'), ('"cat"', '"../../evil"'), ('"cat"', '".cat"')]
)
def test_a_manifest_from_a_stranger_leads_nowhere_else(source, dest, old, new):
    """Neither a part nor a label of it can name a place outside the destination's own folders."""
    split_folder(source, dest, progress=False)
    manifest = dest / ".layerkit-split.jsonl"
    head, _, rows = manifest.read_text().partition("\n")
    manifest.write_text(f"{head}\n{rows.replace(old, new)}")
    shutil.rmtree(dest / "valid")
    before = everything(dest.parent)
    with pytest.raises(SplitError, match=r"damaged|cannot be the name"):
        split_folder(source, dest, progress=False)
    assert everything(dest.parent) == before


@pytest.mark.skipif(os.name == "nt", reason="there a colon ends the name of a drive")
def test_names_with_a_colon_are_names_like_any_other(make_folder, dest):
    """What was split once can be split again, and written to a table."""
    folder = make_folder(**{"x:": 6, "y:": 6})
    split = split_folder(folder, dest, progress=False)
    assert split_folder(folder, dest, progress=False) == split
    split.to_csv(dest.parent / "t.csv")
    assert Split.read_csv(dest.parent / "t.csv").rows == split.rows


def test_a_preview_refuses_what_writing_would(source, dest):
    """A stray file in the destination is found, and nothing is written."""
    (dest / "train/cat").mkdir(parents=True)
    (dest / "train/cat/stray.jpg").write_text("stray")
    before = everything(dest)
    with pytest.raises(SplitError, match="1 file that no split has put there"):
        preview_split(source, dest)
    assert everything(dest) == before


def test_a_picture_and_a_folder_of_one_name(make_folder, dest):
    """They would need one place, and are refused before anything is written."""
    folder = make_folder(cat=6, dog=6)
    (folder / "dog/dog.x.jpg/deep").mkdir(parents=True)
    (folder / "dog/dog.x.jpg/deep/deep.jpg").write_text("deep")
    (folder / "dog.x.jpg").write_text("flat")
    label = {"dog.x.jpg": "dog"}
    with pytest.raises(SplitError, match="would be a picture and a folder of pictures"):
        split_folder(
            folder, dest, valid=0, label=lambda path: label.get(path, path.partition("/")[0]), progress=False
        )
    assert not any(path.is_file() and path.suffix == ".jpg" for path in dest.rglob("*"))


def test_what_a_kill_at_the_very_end_left_is_removed(source, dest):
    """The workplace of a call that had placed everything goes with the next call."""
    split_folder(source, dest, progress=False)
    (dest / ".layerkit-split.tmp").mkdir()
    split_folder(source, dest, progress=False)
    assert not (dest / ".layerkit-split.tmp").exists()


@pytest.mark.parametrize("mode", ["copy", "hardlink"])
def test_what_was_taken_out_of_the_source_is_said_until_it_is_taken_out_here_too(source, tmp_path, mode):
    """A picture that check_folder found broken stays in the split until it is deleted there."""
    dest = tmp_path / "split"
    split = split_folder(source, dest, mode=mode, progress=False)
    gone = split.rows[3]
    (source / gone.path).unlink()
    with pytest.warns(
        LayerkitWarning,
        match=rf"1 picture of .*split' is no longer in the source, and stays there: .{gone.path}",
    ):
        again = split_folder(source, dest, mode=mode, progress=False)
    assert again.rows == split.rows
    (dest / destination_of(gone)).unlink()
    with pytest.warns(LayerkitWarning, match="cannot be found any more and left it"):
        without = split_folder(source, dest, mode=mode, progress=False)
    assert [row for row in split.rows if row != gone] == list(without.rows)
    assert split_folder(source, dest, mode=mode, progress=False).rows == without.rows
