"""The same bits on every road, epoch by epoch, and no global generator touched."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layerkit.decoding import decode
from layerkit.errors import LayerkitWarning, PictureError
from layerkit.loading import FolderDataset, Loaders, PictureLoader, folder_loaders
from layerkit.presets import Preset

ROADS = ["auto", 0, 2]


def loaders(folder: Path, **options: Any) -> Loaders:
    return folder_loaders(folder, preset=Preset(32), **{"batch_size": 4, **options})


def epoch(loader: PictureLoader) -> list[tuple[Tensor, Tensor]]:
    return list(loader)


def same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def draw_everywhere(picture: Tensor) -> Tensor:
    """Change a picture with numbers from all three global generators."""
    shift = int(torch.randint(0, 50, ())) + random.randrange(50) + int(np.random.randint(50))
    return picture.roll(shift, dims=-1)


@pytest.fixture
def untouched_generators() -> Iterator[None]:
    """Hold that the global generators of this process stand where they stood."""
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    yield
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_state, strict=True))


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch spread over two processors, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("augment", ["none", "color", "light", "standard", "strong", draw_everywhere])
def test_every_road_gives_the_same_bits(folder: Path, augment: Any, untouched_generators: None) -> None:
    """Threads, the process itself and worker processes agree, for two epochs of training."""
    first, *others = (
        [epoch(data.train), epoch(data.train)]
        for data in (loaders(folder, augment=augment, num_workers=road) for road in ROADS)
    )
    for other in others:
        assert same(first[0], other[0])
        assert same(first[1], other[1])


def test_a_users_augment_runs_in_processes_where_they_need_no_guard(folder: Path) -> None:
    """Threads would share the global generators that it may draw from."""
    train = loaders(folder, augment=draw_everywhere).train
    assert train.threads == 0
    assert (train.num_workers > 0) == (sys.platform == "linux")
    assert loaders(folder).train.threads > 0


def test_each_iter_is_the_next_epoch(folder: Path) -> None:
    """Epochs differ in order and in changes, set_epoch brings one back, and iter() takes it at once."""
    data = loaders(folder)
    first, second = epoch(data.train), epoch(data.train)
    assert not same(first, second)
    data.train.set_epoch(0)
    assert same(epoch(data.train), first)
    iterator = iter(data.train)
    data.train.set_epoch(0)
    assert same(list(iterator), second)
    assert same(epoch(data.train), first)
    assert same(epoch(data.valid), epoch(data.valid))


def test_seeds_differ(folder: Path) -> None:
    """Another seed, other pictures; the validation part does not depend on it."""
    assert not same(epoch(loaders(folder, seed=0).train), epoch(loaders(folder, seed=1).train))
    assert same(epoch(loaders(folder, seed=0).valid), epoch(loaders(folder, seed=1).valid))


@pytest.mark.parametrize("augment", ["strong", draw_everywhere])
def test_a_sample_depends_on_seed_epoch_and_index_alone(folder: Path, augment: Any) -> None:
    """Batch size and order do not matter: picture 7 of epoch 3 is always the same, of epoch 4 another."""
    transform = Preset(32).train(augment)
    seen = []
    for batch_size, shuffle, number in ((1, False, 3), (5, True, 3), (21, True, 3), (21, True, 4)):
        dataset = FolderDataset(folder / "train", transform, seed=4)
        loader = PictureLoader(dataset, batch_size=batch_size, shuffle=shuffle, num_workers=0)
        loader.set_epoch(number)
        keys = [key.index for batch in loader.batch_sampler for key in batch]
        seen.append(torch.cat([pictures for pictures, _ in loader])[keys.index(7)])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])


def test_an_epoch_holds_each_sample_once(folder: Path) -> None:
    """Shuffled or not, and the order of the next epoch is another one."""
    train, orders = loaders(folder).train, []
    for number in range(2):
        train.set_epoch(number)
        orders.append([key.index for batch in train.batch_sampler for key in batch])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(21))
    assert orders[0] != orders[1] != sorted(orders[1])


@pytest.mark.parametrize(
    ("batch_size", "train", "valid"),
    [
        (4, [4, 4, 4, 4, 5], [4, 4]),
        (16, [21], [8]),
        (3, [3] * 7, [3, 3, 2]),
        (12, [12, 9], [8]),
        (13, [13, 8], [8]),
        (14, [21], [8]),
        (1, [1] * 21, [1] * 8),
        (50, [21], [8]),
    ],
)
def test_a_small_last_training_batch_is_joined(
    folder: Path, batch_size: int, train: list[int], valid: list[int]
) -> None:
    """Fewer than min(8, batch_size) join the batch before; validation never drops or joins."""
    data = loaders(folder, batch_size=batch_size)
    for loader, sizes in ((data.train, train), (data.valid, valid)):
        assert [len(targets) for _, targets in loader] == sizes
        assert len(loader) == len(sizes)


def test_leaving_an_epoch_early_is_safe(folder: Path) -> None:
    """After a break the next epoch is whole, and no reader thread stays behind."""
    for road in ROADS:
        train = loaders(folder, num_workers=road, batch_size=2).train
        for _ in train:
            break
        second = epoch(train)
        train.set_epoch(1)
        assert same(second, epoch(train))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("layerkit-read")]


def test_reading_leaves_torchs_thread_count_alone(folder: Path, two_threads: None) -> None:
    """Readers compute on one processor each; the process and its later threads keep what they had."""
    seen, counts = [], []

    def record(self: object, key: object) -> object:
        seen.append(torch.get_num_threads())
        return original(self, key)

    original = FolderDataset.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderDataset, "read", record)
        for _ in range(10):  # a race would not show every time
            epoch(loaders(folder).valid)
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert set(seen) == {1}
    assert counts == [torch.get_num_threads()] == [2]


def test_only_presets_transforms_are_taken(folder: Path) -> None:
    """Any other goes with torch's own DataLoader."""
    with pytest.raises(TypeError, match=r"expected one from preset\.train\(\).*torch's own DataLoader"):
        PictureLoader(FolderDataset(folder / "train"), batch_size=2, shuffle=False)


def test_unshuffled_gives_the_eval_transform_or_keeps_the_changes(folder: Path) -> None:
    """In order either way; the loader it came from stays as it was."""
    train = loaders(folder).train
    plain = train.unshuffled()
    assert torch.cat([targets for _, targets in plain]).tolist() == [0] * 11 + [1] * 10
    first = decode(train.dataset.paths[0])
    assert torch.equal(next(iter(plain))[0][0], Preset(32).eval()(first))
    changed = train.unshuffled(augmented=True)
    assert not same(epoch(changed), epoch(plain))
    assert train.dataset.transform.augment == "standard"


@pytest.mark.parametrize("road", ROADS)
def test_an_unreadable_picture_is_named(folder: Path, road: Any) -> None:
    """On every road the error names the file."""
    (folder / "train" / "dog" / "03.png").write_text("words")
    with pytest.raises(PictureError, match=r"03\.png"):
        epoch(loaders(folder, num_workers=road, batch_size=50).train)


@pytest.mark.parametrize("bad", [1, 3])
def test_skip_puts_the_same_other_picture_in_its_place(folder: Path, bad: int) -> None:
    """On every road and in every epoch, with its own target; said once, at the end, with names."""
    for n in range(bad):
        (folder / "valid" / "cat" / f"{n:02}.png").write_text("words")
    results = []
    for road in ROADS:
        valid = loaders(folder, errors="skip", num_workers=road).valid
        iterator = iter(valid)
        seen = [next(iterator), next(iterator)]
        with pytest.warns(
            LayerkitWarning, match=rf"{bad} of 8 pictures could not be read.*00\.png"
        ) as caught:
            assert next(iterator, None) is None
        assert caught[0].filename == __file__
        assert same(seen, epoch(valid))  # without another warning, which would be an error here
        results.append(seen)
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    pictures, targets = (torch.cat(column) for column in zip(*results[0], strict=True))
    sound = FolderDataset(folder / "valid", Preset(32).eval(), errors="raise")
    places = [next(i for i in range(bad, 8) if torch.equal(sound[i][0], picture)) for picture in pictures]
    assert places[bad:] == list(range(bad, 8))
    assert targets.tolist() == [sound.targets[place] for place in places]
    assert torch.equal(FolderDataset(folder / "valid", Preset(32).eval(), errors="skip")[0][0], pictures[0])


def test_no_worker_is_started_for_nothing(folder: Path) -> None:
    """There are no more of them than batches."""
    data = loaders(folder, num_workers=3, batch_size=11)
    assert (data.train.num_workers, data.valid.num_workers) == (2, 1)


def test_skip_with_nothing_left_is_an_error(folder: Path) -> None:
    """Where no picture can be read, none can take another's place."""
    for file in (folder / "valid").rglob("*.png"):
        file.write_text("words")
    with pytest.raises(PictureError, match="None of 8 pictures can be read"):
        epoch(loaders(folder, errors="skip").valid)


def test_a_vanished_file_is_an_error_even_with_skip(folder: Path) -> None:
    """The list of files is wrong then, not a picture."""
    data = loaders(folder, errors="skip")
    (folder / "valid" / "cat" / "00.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"00\.png"):
        epoch(data.valid)


SCRIPT = """
import hashlib, multiprocessing, sys
multiprocessing.set_start_method(sys.argv[2])
from layerkit import Preset, folder_loaders
print("started")
for augment in ("strong", lambda picture: picture.roll(3, dims=-1)):
    data = folder_loaders(sys.argv[1], preset=Preset(32), batch_size=4, augment=augment)
    print(hashlib.sha256(b"".join(x.numpy().tobytes() for x, _ in data.train)).hexdigest())
"""


@pytest.mark.slow
def test_scripts_without_a_guard_run_under_every_start_method(folder: Path, tmp_path: Path) -> None:
    """With fork and spawn, under two PYTHONHASHSEEDs, once each line, and with the same bits."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    methods = ["fork", "spawn"] if sys.platform == "linux" else ["spawn"]
    printed = set()
    for method, hash_seed in zip(methods, ("1", "2"), strict=False):
        done = subprocess.run(
            [sys.executable, str(script), str(folder), method],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        started, named, own = done.stdout.split()
        assert started == "started"
        assert named != own
        printed.add(done.stdout)
    assert len(printed) == 1


@pytest.mark.parametrize("road", ROADS)
def test_batches_can_be_read_inside_inference_mode(folder: Path, road: Any) -> None:
    """Whoever evaluates under ``torch.inference_mode()`` gets the pictures that everybody gets."""
    expected = epoch(loaders(folder, num_workers=road).valid)
    with torch.inference_mode():
        assert same(expected, epoch(loaders(folder, num_workers=road).valid))
