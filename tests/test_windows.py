"""A window is what a resize of the whole box and a crop give; from a reduced JPEG almost so."""

import io
import random
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from layerkit import augmenting
from layerkit.decoding import PictureFile
from layerkit.presets import Preset
from layerkit.presets.windows import Window, resized_size

BOTH = [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC]


def noise(height: int, width: int) -> Tensor:
    """Draw the worst that can be resized: every pixel its own colour."""
    return torch.randint(
        0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@cache
def photograph(height: int, width: int, orientation: int = 1) -> PictureFile:
    """Encode a real photograph, enlarged: about as sharp at its pixels as what a camera's sensor gives."""
    image = Image.fromarray(load_sample_image("flower.jpg")).resize((width, height), Image.Resampling.BICUBIC)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(file, "JPEG", quality=90, exif=exif)
    return PictureFile(file.getvalue())


def by_pillow(file: PictureFile, window: Window, reduction: int = 1) -> Tensor:
    """Decode, cut and resize with Pillow, which takes a box between pixels."""
    with Image.open(io.BytesIO(file._encoded)) as image:
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        upright = ImageOps.exif_transpose(image)
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    box = tuple(side / reduction for side in box)
    resized = upright.resize(window.resized[::-1], Image.Resampling.BILINEAR, box=box)
    top, left = window.offset
    height, width = window.size
    return F.pil_to_tensor(resized)[:, top : top + height, left : left + width]


def mean_difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


@pytest.mark.parametrize("interpolation", BOTH, ids=str)
@pytest.mark.parametrize(
    "size", [(240, 320), (300, 400), (500, 375), (256, 256), (97, 180), (640, 333), (9, 500)]
)
@pytest.mark.parametrize("to", [256, 242, 232, 224, (256, 300), (240, 320)])
def test_the_middle_is_that_of_a_whole_resize(
    size: tuple[int, int], to: Any, interpolation: InterpolationMode
) -> None:
    """To within one level, on noise, whether the picture grows or shrinks, contiguous or as rows of pixels."""
    picture = noise(*size)
    resized = resized_size(size, to)
    whole = F.resize(picture.float(), list(resized), interpolation, antialias=True).round().clamp(0, 255)
    assert tuple(whole.shape[1:]) == resized
    expected = F.center_crop(whole, [224, 224])
    for source in (picture, picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        crop = (
            Preset(224, resize_size=to, interpolation=interpolation).eval().pixels(source, random.Random(0))
        )
        assert (crop.float() - expected).abs().max() <= 1


@pytest.mark.parametrize("interpolation", BOTH, ids=str)
def test_a_training_window_is_cut_and_resized_as_torchvision_does(interpolation: InterpolationMode) -> None:
    """Where nothing is reduced: the same random numbers, the same window, within one level."""
    picture, preset = noise(300, 400), Preset(64, interpolation=interpolation)
    for seed in range(8):
        top, left, height, width = augmenting.random_window(300, 400, 0.5, random.Random(seed))
        cut = picture[:, top : top + height, left : left + width].float()
        expected = F.resize(cut, [64, 64], interpolation, antialias=True).round().clamp(0, 255)
        rng = random.Random(seed)
        augmenting.random_window(300, 400, 0.5, rng)
        expected = expected.flip(-1) if rng.random() < 0.5 else expected
        crop = preset.train("light").pixels(picture, random.Random(seed))
        assert (crop.float() - expected).abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "orientation"), [((3000, 4000), 1), ((3000, 4000), 3), ((4000, 3008), 6), ((4001, 3003), 1)]
)
def test_a_reduced_eval_crop_is_close(size: tuple[int, int], orientation: int) -> None:
    """Less than 0.6 of 255 off on average what Pillow makes of the whole picture."""
    file = photograph(*size, orientation)
    resized = resized_size(file.size, 256)
    offset = ((resized[0] - 224) // 2, (resized[1] - 224) // 2)
    window = Window(0, 0, *file.size, resized, offset, (224, 224))
    reduction = file.reduction(resized)
    crop = window.read(file, InterpolationMode.BILINEAR)
    assert mean_difference(crop, by_pillow(file, window)) < 0.6
    assert reduction in (4, 8)
    assert mean_difference(crop, by_pillow(file, window, reduction)) < 0.1


def test_reduced_training_windows_stand_where_they_should() -> None:
    """Each of 12 random windows is where Pillow has it; on average they are less than 0.6 of 255 off."""
    file, preset = photograph(3000, 4000), Preset(224)
    differences = []
    for seed in range(12):
        rng = random.Random(seed)
        window = Window(*augmenting.random_window(*file.size, 0.25, rng), preset.crop, (0, 0), preset.crop)
        crop = preset.train("standard").pixels(file, random.Random(seed))
        crop = crop.flip(-1) if rng.random() < 0.5 else crop
        differences.append(mean_difference(crop, by_pillow(file, window)))
        reduction = file.reduction((3000 * 224 // window.height + 1, 4000 * 224 // window.width + 1))
        assert reduction in (4, 8)
        assert mean_difference(crop, by_pillow(file, window, reduction)) < 0.15
    print(differences)
    assert 0 < sum(differences) / len(differences) < 0.6


def test_the_scale_follows_from_the_window() -> None:
    """Never below the target: a small window of a large picture is read at a larger scale."""
    seen = []

    class Recording(PictureFile):
        def reduction(self, at_least: tuple[int, int]) -> int:
            seen.append(super().reduction(at_least))
            return seen[-1]

    file = Recording(photograph(1600, 1600)._encoded)
    for side in (1600, 799, 801, 400, 399, 100):
        Window(0, 0, side, side, (100, 100), (0, 0), (100, 100)).read(file, InterpolationMode.BILINEAR)
    assert seen == [8, 4, 8, 4, 2, 1]


def test_exact_reads_whole_pictures() -> None:
    """And gives what the transform makes of the decoded picture."""
    file = photograph(1200, 1600)
    exact = PictureFile(file._encoded, exact=True)
    for transform in (Preset(64).eval(), Preset(64).train()):
        crop = transform.pixels(exact, random.Random(1))
        assert torch.equal(crop, transform.pixels(file.decode(), random.Random(1)))
        assert not torch.equal(crop, transform.pixels(file, random.Random(1)))


def test_a_transform_takes_a_file() -> None:
    """Normalised, as it takes a tensor; what is small gives the same bits."""
    file = photograph(70, 90)
    transform = Preset(64).eval()
    assert torch.equal(transform(file), transform(file.decode()))
    torch.manual_seed(0)
    one = Preset(64).train()(file)
    torch.manual_seed(0)
    assert torch.equal(one, Preset(64).train()(file.decode()))


def test_the_result_shares_no_memory_with_the_picture() -> None:
    """Not even where nothing is resized, for the picture may be in a cache."""
    picture = noise(32, 32)
    for transform in (Preset(32, resize_size=32).eval(), Preset(16, resize_size=32).eval()):
        before = picture.clone()
        transform.pixels(picture, random.Random(0)).zero_()
        assert torch.equal(picture, before)
