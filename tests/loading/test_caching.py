"""Cached pictures are decoded once, give the same bits cold and warm, and are never read half-written."""

import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from layerkit import decoding
from layerkit.errors import LayerkitWarning, PictureError
from layerkit.loading import Loaders, caching, folder_loaders, table_loaders
from layerkit.loading.caching import FOLDER, PictureCache, WorkingSize
from layerkit.presets import Preset

ROADS = ["auto", 0, 2]
KINDS = ["memory", "disk"]


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the decoded pictures of this process."""
    seen: list[int] = []
    for owner, name in ((decoding, "_decode"), (decoding.PictureFile, "reduced")):
        original = getattr(owner, name)

        def counting(*args: Any, original: Any = original) -> Any:
            seen.append(1)
            return original(*args)

        monkeypatch.setattr(owner, name, counting)
    return seen


def loaders(folder: Path, **options: Any) -> Loaders:
    return folder_loaders(folder, preset=Preset(16), **{"batch_size": 4, **options})


def epochs(data: Loaders, count: int = 2) -> list[Tensor]:
    return [pictures for _ in range(count) for pictures, _ in itertools.chain(data.train, data.valid)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def pixel_files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.pixels"))


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_second_epoch_nothing_is_decoded(folder: Path, kind: Any, decodes: list[int]) -> None:
    """The first epoch decodes each of 29 pictures once, later ones none, nor does the unshuffled loader."""
    data = loaders(folder, cache=kind)
    assert not decodes
    epochs(data, 1)
    assert len(decodes) == 29
    epochs(data, 2)
    list(data.train.unshuffled())
    assert len(decodes) == 29


def test_a_disk_cache_serves_later_runs(folder: Path, decodes: list[int]) -> None:
    """A second run decodes nothing and sees the bits of the first, cold run, which memory gives too."""
    cold = epochs(loaders(folder, cache="disk"))
    before = len(decodes)
    assert same(cold, epochs(loaders(folder, cache="disk")))
    assert len(decodes) == before
    assert same(cold, epochs(loaders(folder, cache="memory")))


@pytest.mark.parametrize("kind", KINDS)
def test_every_road_gives_the_same_bits(folder: Path, kind: Any) -> None:
    """Threads, the process itself and worker processes agree with a cache as without."""
    first, *others = (epochs(loaders(folder, cache=kind, num_workers=road)) for road in ROADS)
    assert all(same(first, other) for other in others)


def test_worker_processes_fill_the_cache_for_all(folder: Path, decodes: list[int]) -> None:
    """What a worker decoded, the main process need not."""
    for kind in KINDS:
        train = loaders(folder, cache=kind, num_workers=2).train
        list(train)
        for index in range(len(train.dataset)):
            assert train.dataset.cache is not None
            train.dataset.cache.read(index)
        assert not decodes


def test_evaluation_sees_what_it_sees_without_a_cache(folder: Path) -> None:
    """The working size is the resize itself, so the crop is the same; in training small pictures stay whole."""
    plain, cached = loaders(folder), loaders(folder, cache="memory")
    for a, b in zip(plain.valid, cached.valid, strict=True):
        assert torch.equal(a[0], b[0])
    large = [folder_loaders(folder, preset=Preset(64), cache=cache) for cache in (None, "memory")]
    assert same(*map(epochs, large))


def test_the_working_size_serves_the_smallest_crop() -> None:
    """In evaluation the resize; in training so much that a quarter of the area fills the crop."""
    preset = Preset(224)
    assert preset.eval().working_size == preset.train("color").working_size == 256
    assert preset.train("standard").working_size == 448
    assert preset.train("light").working_size == 317
    assert Preset(224, resize_size=(256, 300)).eval().working_size == (256, 300)


@pytest.mark.parametrize(
    ("to", "size", "kept"),
    [
        (100, (200, 400), (100, 200)),
        (100, (400, 200), (200, 100)),
        (100, (80, 400), (80, 400)),
        ((50, 60), (200, 400), (50, 60)),
        ((50, 60), (40, 400), (40, 400)),
    ],
)
def test_pictures_are_never_enlarged_for_the_cache(
    to: Any, size: tuple[int, int], kept: tuple[int, int]
) -> None:
    """A picture that is small already stays as it is."""
    working = WorkingSize(to, InterpolationMode.BILINEAR, exact=True)
    assert working.of(size) == kept
    assert working.most_bytes(size) >= 3 * kept[0] * kept[1]


def test_rotated_and_misnamed_pictures_fit_their_slots(folder: Path, decodes: list[int]) -> None:
    """EXIF turns a picture, and suffixes lie; each is kept, upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "valid/cat/00.png").save(folder / "valid/cat/00.jpg", "JPEG", exif=exif)
    Image.open(folder / "valid/cat/01.png").save(folder / "valid/cat/01.png", "JPEG", exif=exif)
    data = loaders(folder, cache="memory")
    cold = epochs(data)
    seen = len(decodes)
    assert data.valid.dataset.cache is not None
    height, width = data.valid.dataset.cache.read(0).shape[1:]
    assert height > width
    assert same(cold[-3:], [pictures for pictures, _ in data.valid])
    assert len(decodes) == seen == 30


@pytest.mark.parametrize("damage", ["pixels", "table", "lost"])
def test_a_picture_that_is_not_whole_is_decoded_anew(folder: Path, damage: str, decodes: list[int]) -> None:
    """Lost pixels, a torn row of the table and a file cut short never reach a batch."""
    cold = epochs(loaders(folder, cache="disk"))
    seen = len(decodes)
    for file in pixel_files(folder):
        if damage == "lost":
            with file.open("r+b") as cut:
                cut.truncate(1000)
            continue
        store = np.memmap(file, np.uint8, "r+")
        if damage == "pixels":
            store[len(store) // 2 :] = 0
        else:
            store[:40] = 7
        store.flush()
    assert same(cold, epochs(loaders(folder, cache="disk")))
    assert seen < len(decodes) <= seen + 29


def test_changed_files_and_settings_have_caches_of_their_own(folder: Path) -> None:
    """Another picture under the old name is seen; so is exact=True, and another preset."""
    loaders(folder, cache="disk")
    assert len(pixel_files(folder)) == 2
    loaders(folder, cache="disk", exact=True)
    folder_loaders(folder, preset=Preset(17), cache="disk")
    assert len(pixel_files(folder)) == 6
    before = epochs(loaders(folder, cache="disk"))
    Image.new("RGB", (50, 40), "red").save(folder / "valid/cat/00.png")
    after = epochs(loaders(folder, cache="disk"))
    assert not same(before, after)
    assert same(after, epochs(loaders(folder, cache="memory")))
    files = len(pixel_files(folder))
    os.utime(folder / "valid/cat/00.png", (1, 1))
    loaders(folder, cache="disk")
    assert len(pixel_files(folder)) == files + 1


def test_large_jpegs_are_reduced_once(folder: Path, decodes: list[int]) -> None:
    """A cache is filled from reduced pictures too; exact=True fills it from whole ones."""
    for n in range(4):
        large = Image.open(folder / f"valid/cat/{n:02}.png").resize((500, 400), Image.Resampling.BICUBIC)
        large.save(folder / f"valid/cat/{n:02}.png", "JPEG")
    plain, kept, exact = (
        [pictures for pictures, _ in loaders(folder, **options).valid]
        for options in ({}, {"cache": "disk"}, {"cache": "disk", "exact": True})
    )
    assert len(decodes) == 3 * 8
    assert (plain[0] - kept[0]).abs().max() < 2.01 / 255 / 0.22
    assert not torch.equal(kept[0], exact[0])
    assert torch.equal(kept[1], exact[1])


def test_a_moved_folder_keeps_its_cache(folder: Path, decodes: list[int]) -> None:
    """Files are known by their names below the root."""
    cold = epochs(loaders(folder, cache="disk"))
    seen = len(decodes)
    moved = folder.rename(folder.with_name("elsewhere"))
    assert same(cold, epochs(loaders(moved, cache="disk")))
    assert len(decodes) == seen


@pytest.mark.parametrize("kind", KINDS)
def test_skip_works_with_a_cache(folder: Path, kind: Any) -> None:
    """The same picture takes the place of a broken one as without; the broken one is named."""
    (folder / "valid" / "cat" / "01.png").write_text("words")
    expected = []
    for cache in (None, kind):
        valid = loaders(folder, cache=cache, errors="skip").valid
        with pytest.warns(LayerkitWarning, match=r"1 of 8 pictures could not be read.*01\.png"):
            expected.append([pictures for pictures, _ in valid])
        assert same(expected[0], [pictures for pictures, _ in valid])
    assert same(*expected)
    with pytest.raises(PictureError, match=r"01\.png"):
        epochs(loaders(folder, cache=kind))


def test_a_users_augment_cannot_change_what_is_kept(folder: Path) -> None:
    """Whoever writes into the picture writes into a copy."""

    def blacken(picture: Tensor) -> Tensor:
        return picture.zero_()

    data = folder_loaders(
        folder, preset=Preset(16, resize_size=16), augment=blacken, cache="memory", num_workers=0
    )
    list(data.train)
    assert data.train.dataset.cache is not None
    assert all(data.train.dataset.cache.read(index).any() for index in range(21))
    dataset = data.valid.dataset
    dataset.transform = blacken
    dataset[0]
    assert dataset.cache is not None
    assert dataset.cache.read(0).any()


def test_the_need_is_said_and_lies_in_a_hidden_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once before it is made; a warm cache needs nothing. The folder is no class."""
    loaders(folder, cache="disk")
    assert "cache='disk': 29 pictures take 0.00 GB in " in capsys.readouterr().err
    need = sum(file.stat().st_size for file in pixel_files(folder))
    # 21 pictures of 40 x 50 cut to 32 x 40, and 8 to 18 x 22, with 12 bytes each beside.
    assert need == 21 * 32 * 40 * 3 + 8 * 18 * 22 * 3 + 29 * 12
    loaders(folder, cache="disk")
    assert capsys.readouterr().err == ""
    loaders(folder, cache="memory")
    assert "29 pictures take 0.00 GB of memory." in capsys.readouterr().err
    assert loaders(folder).classes == ["cat", "dog"]


def test_lack_of_room_is_an_error_beforehand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the disk nor the memory is filled to the brim."""
    monkeypatch.setattr(caching, "_physical_memory", lambda: 1000.0)
    with pytest.raises(
        MemoryError, match=r"29 pictures takes 0\.0 GB of memory; expected no more.*cache='disk'"
    ):
        loaders(folder, cache="memory")
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(
        OSError, match=r"29 pictures takes .*expected no more than the 0\.0 GB.*cache='memory'"
    ):
        loaders(folder, cache="disk")
    assert not pixel_files(folder)


def test_a_folder_that_cannot_be_written_to_is_named(folder: Path) -> None:
    """With the way out."""
    (folder / FOLDER).write_text("in the way")
    with pytest.raises(OSError, match=r"cannot be written to .*layerkit-cache.*pass cache='memory'"):
        loaders(folder, cache="disk")


def test_unknown_kinds_are_refused(folder: Path) -> None:
    """Before anything is read."""
    with pytest.raises(ValueError, match=r"`cache` is 'dsk'; expected None, 'memory' or 'disk'.*'disk'"):
        loaders(folder, cache="dsk")
    with pytest.raises(ValueError, match="`cache` is True"):
        table_loaders({}, folder, preset=Preset(16), cache=True)  # type: ignore[arg-type]


def test_tables_take_a_cache(folder: Path, decodes: list[int]) -> None:
    """As folders do."""
    names = [f"train/{label}/{n:02}.png" for label in ("cat", "dog") for n in range(10)]
    table = {"path": names, "label": [name.split("/")[1] for name in names]}
    data = table_loaders(table, folder, preset=Preset(16), cache="disk")
    cold = epochs(data)
    assert len(decodes) == 20
    assert same(cold, epochs(table_loaders(table, folder, preset=Preset(16), cache="disk")))
    assert len(decodes) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_can_be_sent_to_a_spawned_worker(folder: Path, kind: Any, decodes: list[int]) -> None:
    """A pickled data set finds the pictures that are kept."""
    data = loaders(folder, cache=kind)
    list(data.valid)
    seen = len(decodes)
    packed = pickle.dumps(data.valid.dataset)
    assert kind == "memory" or len(packed) < data.valid.dataset.cache.bytes  # type: ignore[union-attr]
    sent = pickle.loads(packed)
    assert torch.equal(sent[3][0], data.valid.dataset[3][0])
    assert len(decodes) == seen


def test_a_picture_larger_than_its_header_said_is_still_read(folder: Path) -> None:
    """It is decoded each time, and nobody else's slot is touched."""
    paths = sorted((folder / "valid" / "cat").glob("*.png"))
    working = WorkingSize(20, InterpolationMode.BILINEAR, exact=False)
    room = [working.most_bytes((40, 50))] * 4
    room[1] = 100
    cache = PictureCache(paths, working, room, None)
    for index in (2, 1, 1, 2, 0, 3):
        assert torch.equal(cache.read(index), working.read(paths[index]))
