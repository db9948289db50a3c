"""check_folder finds every damage by name, and nothing on what is healthy."""

import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import layerkit.decoding
from layerkit import check_folder, split_folder
from layerkit.checking.kinds import KINDS

Draw = Callable[..., Path]


def found(root: Path, **options: object) -> set[tuple[str, str]]:
    """Give the kinds and paths that a check finds."""
    return {(row.kind, row.path) for row in check_folder(root, progress=False, **options)}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_photographs_have_no_fault(healthy: Path) -> None:
    """Real pictures in two parts give an empty report."""
    report = check_folder(healthy, progress=False)
    assert report.rows == ()
    assert report.ok
    assert (report.layout, report.parts, report.classes) == (
        "parts",
        ("train", "valid"),
        ("fruit", "vehicle"),
    )
    assert report.num_pictures == 60


def break_it(root: Path, draw: Draw) -> set[tuple[str, str]]:
    """Break a folder in more ways than twenty; give what a check has to find."""
    fruits = sorted((root / "train" / "fruit").iterdir())
    vehicles = sorted((root / "train" / "vehicle").iterdir())
    cut(fruits[0])
    fruits[1].write_bytes(b"")
    fruits[2].write_text("<html>404: not found</html>")
    Image.fromarray(np.random.default_rng(0).random((32, 40), dtype=np.float32)).save(
        root / "train/fruit/float.tif"
    )
    draw(root / "train/fruit/suffix.jpg", 1, format="PNG")
    still = Image.open(fruits[3]).convert("P")
    still.save(
        root / "train/fruit/moves.gif", save_all=True, append_images=[Image.open(fruits[4]).convert("P")]
    )
    deep = np.random.default_rng(0).integers(0, 2**16, (32, 40), dtype=np.uint16)
    Image.fromarray(deep).save(root / "train/fruit/deep.png")
    draw(root / "train/fruit/inks.jpg", 2, mode="CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(root / "train/fruit/turned.jpg", 3, exif=exif)
    draw(root / "train/fruit/clear.png", 4, mode="RGBA")
    draw(root / "train/fruit/tiny.png", 5, size=(12, 15))
    draw(root / "train/fruit/long.png", 6, size=(400, 40))
    shutil.copyfile(vehicles[0], root / "valid/vehicle/leak.jpg")
    shutil.copyfile(vehicles[1], root / "train/fruit/also.jpg")
    shutil.copyfile(vehicles[2], root / "train/vehicle/vehicle.twice.jpg")
    draw(root / "valid/wolf/1.png", 7)
    draw(root / "train/fox/only.png", 8)
    (root / "train/owl").mkdir()
    (root / "valid/owl").mkdir()
    for n in range(2):
        draw(root / f"train/few/{n}.png", 9 + n)
        draw(root / f"valid/few/{n}.png", 19 + n)
    (root / "valid/vehicle/labels.csv").write_text("a,b")
    draw(root / "train/vehicle/camera.jfif", 30, format="JPEG")
    draw(root / "train/loose.png", 31)
    draw(root / "old/fruit/1.png", 32)
    return {
        ("truncated", f"train/fruit/{fruits[0].name}"),
        ("empty_file", f"train/fruit/{fruits[1].name}"),
        ("unreadable", f"train/fruit/{fruits[2].name}"),
        ("unreadable", "train/fruit/float.tif"),
        ("wrong_extension", "train/fruit/suffix.jpg"),
        ("animated", "train/fruit/moves.gif"),
        ("sixteen_bit", "train/fruit/deep.png"),
        ("cmyk", "train/fruit/inks.jpg"),
        ("rotated", "train/fruit/turned.jpg"),
        ("transparent", "train/fruit/clear.png"),
        ("tiny", "train/fruit/tiny.png"),
        ("extreme_aspect", "train/fruit/long.png"),
        ("leak", "valid/vehicle/leak.jpg"),
        ("two_labels", f"train/vehicle/{vehicles[1].name}"),
        ("duplicate", "train/vehicle/vehicle.twice.jpg"),
        ("extra_class", "valid/wolf"),
        ("missing_class", "valid/fox"),
        ("single_picture", "train/fox"),
        ("empty_class", "train/owl"),
        ("empty_class", "valid/owl"),
        ("imbalance", "train/few"),
        ("not_a_picture", "valid/vehicle/labels.csv"),
        ("unknown_suffix", "train/vehicle/camera.jfif"),
        ("loose", "train/loose.png"),
        ("loose", "old"),
    }


def test_every_damage_is_found_by_name(healthy: Path, draw: Draw) -> None:
    """A folder broken in more than twenty ways: each is named, and nothing else."""
    expected = break_it(healthy, draw)
    assert len({kind for kind, _ in expected}) > 20
    assert found(healthy) == expected


def test_the_number_of_threads_does_not_matter(healthy: Path, draw: Draw) -> None:
    """One thread finds what eight find, in the same order."""
    break_it(healthy, draw)
    reports = [check_folder(healthy, num_workers=n, progress=False) for n in (1, 8)]
    assert reports[0] == reports[1]
    assert reports[0].rows


def test_the_worst_comes_first(healthy: Path, draw: Draw) -> None:
    """Errors, then warnings, then notes; only errors make a folder not ok."""
    break_it(healthy, draw)
    report = check_folder(healthy, progress=False)
    severities = [row.severity for row in report]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert not report.ok
    assert all(row.remedy == KINDS[row.kind].remedy for row in report)


def test_warnings_leave_a_folder_ok(healthy: Path, draw: Draw) -> None:
    """What only needs a person's eye is no reason to stop."""
    draw(healthy / "train/fruit/tiny.png", size=(12, 15))
    report = check_folder(healthy, progress=False)
    assert report.ok
    assert report.counts == {"tiny": 1}
    assert found(healthy, min_size=10) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_broken_links_are_found(healthy: Path) -> None:
    """A link to nowhere is named with where it leads; a good one is an ordinary picture."""
    (healthy / "train/fruit/good.jpg").symlink_to(next((healthy / "train/fruit").iterdir()))
    (healthy / "train/fruit/lost.jpg").symlink_to("nowhere.jpg")
    report = check_folder(healthy, duplicates="ignore", progress=False)
    assert [(row.kind, row.path, row.detail) for row in report] == [
        ("broken_link", "train/fruit/lost.jpg", "to 'nowhere.jpg'")
    ]


def test_files_that_may_not_be_read_are_found(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One unreadable file is named, and stops neither the decoding nor the comparing of the others."""
    locked = sorted((healthy / "train/fruit").iterdir())[0]
    shutil.copyfile(locked, healthy / "valid/fruit/same-size.jpg")
    if os.name == "posix" and os.geteuid() != 0:
        locked.chmod(0)
    else:  # permissions do not bind root

        def refuse(path: Path | str) -> bytes:
            if Path(path) == locked:
                raise PermissionError(13, "Permission denied", str(path))
            return original(path)

        original = layerkit.decoding._read_bytes
        monkeypatch.setattr("layerkit.decoding._read_bytes", refuse)
    assert found(healthy) == {("no_permission", f"train/fruit/{locked.name}")}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there do not differ in case")
def test_names_that_differ_only_in_case_are_found(healthy: Path, draw: Draw) -> None:
    """Files and class folders alike; the same name in two folders is none."""
    draw(healthy / "train/fruit/A.png", 1)
    draw(healthy / "train/fruit/a.png", 2)
    draw(healthy / "train/vehicle/a.png", 3)
    for part in ("train", "valid"):
        for n in range(3):
            draw(healthy / part / f"Fruit/{n}.png", 10 * ord(part[0]) + n)
    assert found(healthy) == {
        ("same_name", "train/fruit/a.png"),
        ("same_name", "train/fruit"),
        ("same_name", "valid/fruit"),
    }


def test_near_duplicates_only_on_request(healthy: Path) -> None:
    """A smaller copy on the other side is found by its looks; an exact one is a leak, and not both."""
    pytest.importorskip("imagehash")
    small, same = sorted((healthy / "train/fruit").iterdir())[:2]
    with Image.open(small) as picture:
        picture.resize((picture.width // 2, picture.height // 2)).save(healthy / "valid/fruit/small.jpg")
    shutil.copyfile(same, healthy / "valid/fruit/same.jpg")
    assert found(healthy) == {("leak", "valid/fruit/same.jpg")}
    assert found(healthy, duplicates="ignore") == set()
    near = found(healthy, duplicates="near")
    assert {("leak", "valid/fruit/same.jpg"), ("near_leak", "valid/fruit/small.jpg")} <= near
    assert ("near_leak", "valid/fruit/same.jpg") not in near
    (healthy / "valid/fruit/small.jpg").rename(healthy / "train/fruit/small.jpg")
    assert ("near_duplicate", "train/fruit/small.jpg") in found(healthy, duplicates="near")


def test_a_missing_package_is_said_before_the_work(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without imagehash, no picture is decoded first."""
    monkeypatch.setitem(sys.modules, "imagehash", None)
    monkeypatch.setattr("layerkit.checking.pictures.decode", lambda path: pytest.fail("decoded"))
    with pytest.raises(ImportError, match=r"layerkit\[near\]"):
        check_folder(healthy, duplicates="near", progress=False)


def png_of_16_bits(width: int, height: int) -> bytes:
    """Write a black picture with 16 bits for each of three colours, which Pillow reads but does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + width * 6) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp_of_16_bits(width: int, height: int) -> bytes:
    """Write a black picture with 5, 6 and 5 bits for the three colours."""
    size = width * height * 2
    file = struct.pack("<2sIHHI", b"BM", 66 + size, 0, 0, 66)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, size, 2835, 2835, 0, 0)
    return file + header + struct.pack("<III", 0xF800, 0x07E0, 0x001F) + bytes(size)


def test_sixteen_bits_are_seen_in_every_format(tmp_path: Path) -> None:
    """In grey and in colour, PNG and TIFF; but not a BMP that has 16 bits for all three colours."""
    deep = np.random.default_rng(0).integers(0, 2**16, (32, 40), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "grey.tif")
    Image.fromarray(deep).save(tmp_path / "grey.png")
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "whole.tif")
    (tmp_path / "colour.png").write_bytes(png_of_16_bits(40, 32))
    (tmp_path / "colour.bmp").write_bytes(bmp_of_16_bits(40, 32))
    with Image.open(tmp_path / "colour.bmp") as picture:
        assert "BGR;16" in str(picture.tile)
    assert found(tmp_path) == {
        ("sixteen_bit", name) for name in ("colour.png", "grey.png", "grey.tif", "whole.tif")
    }


def test_a_phones_jpeg_with_a_second_picture_is_healthy(tmp_path: Path, draw: Draw) -> None:
    """MPO is JPEG with more pictures behind: neither animated nor with a wrong suffix."""
    first = Image.open(draw(tmp_path / "first.png", 1))
    second = Image.open(draw(tmp_path / "second.png", 2))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    assert found(tmp_path) == set()


def test_hidden_files_are_passed_over(healthy: Path) -> None:
    """What systems leave behind is no fault."""
    (healthy / ".DS_Store").write_text("x")
    (healthy / "train" / ".ipynb_checkpoints").mkdir()
    (healthy / "train" / "fruit" / "Thumbs.db").write_text("x")
    assert found(healthy) == set()


def test_a_split_is_healthy(healthy: Path, tmp_path: Path) -> None:
    """What split_folder writes passes, by every mode that leaves files."""
    split_folder(healthy / "train", tmp_path / "split", test=0.2, progress=False)
    report = check_folder(tmp_path / "split", progress=False)
    assert report.rows == ()
    assert report.parts == ("train", "valid", "test")


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 6), min_size=1, max_size=3),
    parts=st.sampled_from([("train", "valid"), ("train", "val", "test"), ("",)]),
    suffix=st.sampled_from(["jpg", "JPEG", "png", "webp", "bmp", "tiff", "ppm", "gif", "avif"]),
    mode=st.sampled_from(["RGB", "L"]),
    width=st.integers(16, 64),
)
def test_drawn_folders_have_no_fault(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Draw,
    sizes: list[int],
    parts: tuple[str, ...],
    suffix: str,
    mode: str,
    width: int,
) -> None:
    """No healthy folder has a fault, whatever its layout, formats and sizes."""
    root = tmp_path_factory.mktemp("drawn")
    seed = 0
    for part in parts:
        for label, count in enumerate(sizes):
            for n in range(count):
                seed += 1
                draw(root / part / f"class {label}" / f"{n}.{suffix}", seed, size=(width, 32), mode=mode)
    report = check_folder(root, progress=False)
    assert report.rows == ()
    assert report.num_pictures == seed


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"duplicates": "nearly"}, ValueError, "`duplicates` is 'nearly'.*did you mean 'near'"),
        ({"min_size": -1}, ValueError, "`min_size` is -1; expected 0 or more"),
        ({"min_size": 2.5}, TypeError, "`min_size` is 2.5; expected a whole number"),
        ({"num_workers": 0}, ValueError, "`num_workers` is 0; expected a number of threads of at least 1"),
        ({"num_workers": "all"}, ValueError, "`num_workers` is 'all'"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    """Each message holds the value and what was expected."""
    with pytest.raises(error, match=message):
        check_folder(tmp_path, progress=False, **options)


def test_no_folder(tmp_path: Path) -> None:
    """A path that is none is said."""
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_folder(tmp_path / "nowhere")
