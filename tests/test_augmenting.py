"""Random changes do what torchvision's do, from a generator of their own, whatever the number of threads."""

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from layerkit import augmenting


def photo(size: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return F.resize(
        torch.randint(0, 256, (3, 13, 17), dtype=torch.uint8, generator=generator),
        [size, size],
        antialias=True,
    )


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


CHANGES = {
    "flip": augmenting.random_flip,
    "color": augmenting.jitter_color,
    "trivial": augmenting.trivial_augment,
    "erase": augmenting.random_erase,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_depend_on_their_generator_alone(change: object, threads: None) -> None:
    """The same generator gives the same bits with 1 and 2 threads, and no global generator moves."""
    before = photo(320)
    picture, torch_state, python_state = before.clone(), torch.get_rng_state(), random.getstate()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append([change(picture, random.Random(seed)) for seed in range(12)])  # type: ignore[operator]
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    assert any(not torch.equal(result, results[0][0]) for result in results[0])
    assert all(result.dtype == torch.uint8 for result in results[0])
    assert torch.equal(picture, before)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert random.getstate() == python_state


def test_windows_lie_inside_and_keep_their_bounds() -> None:
    """Area and aspect ratio stay in the asked range, to within rounding."""
    rng = random.Random(0)
    shares = []
    for _ in range(2000):
        top, left, height, width = augmenting.random_window(300, 400, 0.25, rng)
        assert top >= 0 <= left
        assert top + height <= 300
        assert left + width <= 400
        assert 0.74 < width / height < 1.35
        shares.append(height * width / 120_000)
    assert 0.249 < min(shares) < 0.26
    assert max(shares) > 0.95


@pytest.mark.parametrize(
    ("size", "window"),
    [((1000, 10), (493, 0, 13, 10)), ((10, 1000), (0, 493, 10, 13)), ((1, 1), (0, 0, 1, 1))],
)
def test_long_thin_pictures_give_their_middle(
    size: tuple[int, int], window: tuple[int, int, int, int]
) -> None:
    """Where no window of the asked area fits, the largest of an allowed ratio is taken."""
    assert augmenting.random_window(*size, 0.9, random.Random(0)) == window


def test_flips_are_half_of_all() -> None:
    """A coin decides."""
    picture = photo()
    flipped = [
        torch.equal(augmenting.random_flip(picture, random.Random(seed)), picture.flip(-1))
        for seed in range(400)
    ]
    assert 160 < sum(flipped) < 240


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.8, 1.0, 1.2, 1.9])
def test_contrast_is_torchvisions(factor: float) -> None:
    """The exact mean changes no pixel by more than a level."""
    ours, theirs = augmenting.adjust_contrast(photo(), factor), F.adjust_contrast(photo(), factor)
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_erasing_paints_one_window_in_the_mean_colour() -> None:
    """About every fourth picture gets a window of one colour; the others stay."""
    picture = photo()
    mean = picture.double().mean(dim=(1, 2)).to(torch.uint8)
    erased = 0
    for seed in range(200):
        out = augmenting.random_erase(picture, random.Random(seed))
        changed = (out != picture).any(0)
        if not changed.any():
            continue
        erased += 1
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        window = out[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (window == mean.view(3, 1, 1)).all()
    assert 30 < erased < 70


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_every_operation_keeps_shape_and_dtype(strength: float) -> None:
    """At each end of its range an operation gives a picture of the same kind."""
    for operation in augmenting._OPERATIONS:
        out = operation(photo(), strength)
        assert (out.shape, out.dtype) == ((3, 96, 96), torch.uint8)
