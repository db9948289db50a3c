"""A preset does what the weights' own transforms do, and undoes it."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import (
    ResNet18_Weights,
    WeightsEnum,
    get_model_weights,
    list_models,
)
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.models.optical_flow import Raft_Small_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights
from torchvision.models.video import R3D_18_Weights
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from layerkit.augmenting import LEVELS
from layerkit.errors import PictureError
from layerkit.presets import Preset, Transform, channel_statistics

ENTRIES = list(
    dict.fromkeys(
        entry
        for name in list_models()
        for entry in get_model_weights(name)
        if isinstance(entry.transforms(), ImageClassification)
    )
)
SIZES = [(240, 320), (300, 400), (400, 300), (256, 256), (97, 180), (640, 333)]  # height, width


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """Draw a picture with soft and hard edges, uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (3, 9, 11), dtype=torch.uint8, generator=generator)
    picture = F.resize(coarse, [height, width], antialias=True)
    picture[:, height // 3 : height // 2, width // 4 : width // 2] = 255
    return picture


PHOTOS = {size: photo(*size) for size in SIZES}


def test_all_classification_weights_are_found() -> None:
    """torchvision has at least 129 entries of this kind, and the tests below take them all."""
    assert len(ENTRIES) >= 129


@pytest.mark.parametrize("weights", ENTRIES, ids=str)
def test_eval_equals_the_weights_own_transforms(weights: WeightsEnum) -> None:
    """On PIL pictures to 1e-6, on uint8 tensors within one level of 255."""
    ours, theirs = Preset.from_weights(weights).eval(), weights.transforms()
    level = 1.001 / 255 / min(theirs.std)
    size = SIZES[ENTRIES.index(weights) % len(SIZES)]
    for height, width in {size, (240, 320)}:
        picture = PHOTOS[height, width]
        image = F.to_pil_image(picture)
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-6, rtol=0)
        torch.testing.assert_close(ours(picture), theirs(picture), atol=level, rtol=0)


def test_eval_takes_floats_batches_and_grey_pictures() -> None:
    """A float tensor, a batch and a grey picture come out as each alone in uint8 does."""
    transform = Preset(64).eval()
    picture = PHOTOS[300, 400]
    alone = transform(picture)
    torch.testing.assert_close(transform(picture / 255), alone, atol=1 / 255 / 0.22, rtol=0)
    assert torch.equal(transform(torch.stack([picture, picture.flip(-1)]))[0], alone)
    grey = picture[:1]
    assert torch.equal(transform(grey), transform(grey.repeat(3, 1, 1)))
    image = F.to_pil_image(grey)
    assert torch.equal(transform(image), transform(image.convert("RGB")))


@pytest.mark.parametrize("level", LEVELS)
def test_train_gives_normalised_crops(level: str) -> None:
    """Every level takes PIL and tensors, and gives float32 at the crop size."""
    torch.manual_seed(0)
    transform = Preset((48, 64)).train(level)
    for picture in (PHOTOS[300, 400], F.to_pil_image(PHOTOS[97, 180]), PHOTOS[97, 180] / 255):
        out = transform(picture)
        assert (out.shape, out.dtype) == ((3, 48, 64), torch.float32)
        assert -2.2 < out.min() <= out.max() < 2.7


def test_train_none_equals_eval() -> None:
    """Without augmentation training sees what evaluation sees, and draws nothing."""
    preset, state = Preset(64), torch.get_rng_state()
    assert torch.equal(preset.train("none")(PHOTOS[300, 400]), preset.eval()(PHOTOS[300, 400]))
    assert torch.equal(state, torch.get_rng_state())


def test_train_alone_draws_from_torchs_generator() -> None:
    """In a foreign data set the same torch seed gives the same picture, another seed another one."""
    transform = Preset(64).train("standard")
    torch.manual_seed(0)
    first = transform(PHOTOS[300, 400])
    second = transform(PHOTOS[300, 400])
    torch.manual_seed(0)
    assert torch.equal(transform(PHOTOS[300, 400]), first)
    assert not torch.equal(first, second)


def test_color_moves_nothing() -> None:
    """Pixels change by colour alone: the place of an edge stays."""
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)
    picture[:, :, 20:] = 200
    crop = Transform(Preset(64, resize_size=64), "color").pixels(picture, random.Random(3))
    assert (crop.float().std(dim=1) < 1e-3).all()
    assert (crop[:, :, 20:].float().mean() - crop[:, :, :20].float().mean()) > 100
    assert len(crop[:, :, 20:].unique()) == len(crop[:, :, :20].unique()) == 1


def test_a_callable_augment_gets_the_eval_crop() -> None:
    """A user's function sees uint8 (3, H, W) at the crop size, and gives the same back."""
    seen = []

    def invert(picture: Tensor) -> Tensor:
        seen.append((picture.dtype, tuple(picture.shape)))
        return 255 - picture

    preset = Preset(64)
    out = preset.train(invert)(PHOTOS[300, 400])
    assert seen == [(torch.uint8, (3, 64, 64))]
    assert torch.equal(preset.undo(out), 255 - preset.undo(preset.eval()(PHOTOS[300, 400])))
    for wrong in (lambda p: p.float(), lambda p: p[0], lambda p: None):
        with pytest.raises(ValueError, match=r"`augment` gave .*; expected a uint8 tensor \(3, H, W\)"):
            preset.train(wrong)(PHOTOS[300, 400])


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "none"])
def test_train_refuses_batches(level: str) -> None:
    """One change for a whole batch would be a mistake without a trace."""
    with pytest.raises(ValueError, match="Transform them one by one"):
        Preset(64).train(level)(torch.zeros(2, 3, 80, 80, dtype=torch.uint8))


@pytest.mark.parametrize("weights", ENTRIES[::10], ids=str)
def test_undo_gives_the_cropped_picture_back(weights: WeightsEnum) -> None:
    """Within one level of 255, for one picture and for a batch."""
    preset = Preset.from_weights(weights)
    image = F.to_pil_image(PHOTOS[300, 400])
    resized = F.resize(
        image,
        list(weights.transforms().resize_size),
        InterpolationMode(weights.transforms().interpolation),
        antialias=True,
    )
    cropped = F.pil_to_tensor(F.center_crop(resized, weights.transforms().crop_size))
    tensor = preset.eval()(image)
    assert (preset.undo(tensor).int() - cropped.int()).abs().max() <= 1
    assert torch.equal(preset.undo(torch.stack([tensor, tensor]))[1], preset.undo(tensor))


def test_undo_refuses_what_it_cannot_undo() -> None:
    """Integers and other shapes are no normalised pictures."""
    for wrong in (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4), torch.zeros(4, 4, 3)):
        with pytest.raises(ValueError, match=r"expected normalised pictures"):
            Preset(4).undo(wrong)


def test_normalize_of_a_batch_equals_each_picture() -> None:
    """In a batch or alone the bits are the same, they equal the formula, and the input stays as it was."""
    preset = Preset(32)
    batch = torch.randint(
        0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    before = batch.clone()
    out = preset.normalize(batch)
    assert torch.equal(out, torch.stack([preset.normalize(picture) for picture in batch]))
    assert torch.equal(out[:2], preset.normalize(batch[None, :2])[0])
    assert torch.equal(batch, before)
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (preset.mean, preset.std))
    np.testing.assert_allclose(out.numpy(), (batch.numpy() / 255 - mean) / std, atol=1e-6)
    for wrong in (batch.float(), batch[:, :1], batch[0, 0]):
        with pytest.raises(ValueError, match=r"expected uint8 \(\.\.\., 3, H, W\)"):
            preset.normalize(wrong)


def test_channel_statistics_equal_numpy(tmp_path: Path) -> None:
    """Over all pixels of pictures of different sizes, in any depth, hidden files aside."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((5, 7), (30, 20), (1, 1))]
    for index, picture in enumerate(pictures):
        folder = tmp_path / f"class{index}" / "deep"
        folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / "x.png")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures]).astype(np.float64) / 255
    mean, std = channel_statistics(tmp_path)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-10)


def test_channel_statistics_of_no_picture(tmp_path: Path) -> None:
    """An empty folder, a missing one and a picture that is text are clear errors."""
    with pytest.raises(ValueError, match="holds no picture; expected a folder of them"):
        channel_statistics(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        channel_statistics(tmp_path / "nowhere")
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(PictureError, match=r"words\.png"):
        channel_statistics(tmp_path)


def test_from_folder_measures_the_training_part_only(tmp_path: Path) -> None:
    """Where there is a part named train, the held-out pictures do not count."""
    for part, low in (("train", 0), ("valid", 200)):
        (tmp_path / part / "a").mkdir(parents=True)
        noise = np.random.default_rng(0).integers(low, low + 50, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / part / "a" / "x.png")
    preset = Preset.from_folder(tmp_path, 96, interpolation="bicubic")
    assert (preset.mean, preset.std) == channel_statistics(tmp_path / "train")
    assert max(preset.mean) < 0.2
    assert (preset.crop_size, preset.resize_size) == (96, 110)
    assert preset.interpolation is InterpolationMode.BICUBIC


def test_from_model_takes_the_default_weights() -> None:
    """A model's name stands for its default weights; an entry's name for itself."""
    assert Preset.from_model("resnet18") == Preset.from_weights(ResNet18_Weights.DEFAULT)
    assert Preset.from_weights("ResNet18_Weights.IMAGENET1K_V1") == Preset.from_weights(
        ResNet18_Weights.DEFAULT
    )


def test_unknown_names_come_with_a_suggestion() -> None:
    """A slip of the pen is answered with the likely intention."""
    with pytest.raises(ValueError, match=r"'resnet81' is no model of torchvision.*Did you mean 'resnet"):
        Preset.from_model("resnet81")
    with pytest.raises(
        ValueError, match=r"Did you mean 'ResNet18_Weights\.DEFAULT'|Did you mean 'ResNet18_Weights"
    ):
        Preset.from_weights("ResNet18_Weight.DEFAULT")
    with pytest.raises(ValueError, match=r"`weights` is 'imagenet', which torchvision does not have"):
        Preset.from_weights("imagenet")
    with pytest.raises(ValueError, match="Did you mean 'standard'"):
        Preset(8).train("standart")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean 'bicubic'"):
        Preset(8, interpolation="bicubc")


@pytest.mark.parametrize(
    "weights",
    [
        FCN_ResNet50_Weights.DEFAULT,
        RetinaNet_ResNet50_FPN_Weights.DEFAULT,
        R3D_18_Weights.DEFAULT,
        Raft_Small_Weights.DEFAULT,
    ],
    ids=str,
)
def test_other_kinds_are_pointed_to_their_own_transforms(weights: WeightsEnum) -> None:
    """Segmentation, detection, video and optical flow are refused."""
    with pytest.raises(ValueError, match=r"for classification only.*weights\.transforms\(\)"):
        Preset.from_weights(weights)


def test_from_weights_refuses_other_things() -> None:
    """A class of weights, True or None is not an entry."""
    for wrong in (ResNet18_Weights, True, None):
        with pytest.raises(TypeError, match=r"expected an entry of a torchvision weights enum"):
            Preset.from_weights(wrong)  # type: ignore[arg-type]


def test_a_model_without_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torchvision trained nothing, the preset is written by hand."""
    monkeypatch.setattr("layerkit.presets.preset.get_model_weights", lambda name: [])
    with pytest.raises(ValueError, match="no pretrained weights for 'resnet18'"):
        Preset.from_model("resnet18")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 0}, "`crop_size` is 0; expected a whole number of pixels"),
        ({"crop_size": 2.5}, "`crop_size` is 2.5"),
        ({"crop_size": True}, "`crop_size` is True"),
        ({"crop_size": (8, 8, 8)}, r"`crop_size` is \(8, 8, 8\)"),
        ({"crop_size": 8, "resize_size": -1}, "`resize_size` is -1"),
        ({"crop_size": 8, "mean": 0.5}, "`mean` is 0.5; expected three finite numbers"),
        ({"crop_size": 8, "mean": (1, 2)}, r"`mean` is \(1, 2\); expected three finite numbers"),
        (
            {"crop_size": 8, "std": (1, 1, 0)},
            r"`std` is \(1, 1, 0\); expected three finite numbers above zero",
        ),
        (
            {"crop_size": 8, "interpolation": "nearest"},
            "`interpolation` is 'nearest'; expected 'bilinear' or",
        ),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    """Each setting is checked, and the message holds its value."""
    with pytest.raises(ValueError, match=message):
        Preset(**settings)


def test_pairs_squash() -> None:
    """A pair as resize_size ignores the aspect ratio, as the classic lesson does."""
    out = Preset(256, resize_size=(256, 256)).eval()(F.to_pil_image(PHOTOS[300, 400]))
    image = F.to_pil_image(PHOTOS[300, 400]).resize((256, 256), Image.Resampling.BILINEAR)
    expected = (np.asarray(image) / 255 - Preset(8).mean) / Preset(8).std
    np.testing.assert_allclose(out.permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), TypeError, "is a ndarray; expected a PIL picture or a tensor"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), ValueError, r"shape \(8, 8, 3\).*channels first"),
        (torch.zeros(8, 8, dtype=torch.uint8), ValueError, r"shape \(8, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), ValueError, r"dtype is torch\.int64; expected uint8"),
        (torch.full((3, 8, 8), 200.0), ValueError, "holds 200; expected floating point between 0 and 1"),
    ],
)
def test_what_would_be_misread_is_refused(picture: object, error: type[Exception], message: str) -> None:
    """Arrays, channels last, other integers and floats up to 255 each get a sentence with the remedy."""
    for transform in (Preset(4).eval(), Preset(4).train("standard")):
        with pytest.raises(error, match=message):
            transform(picture)  # type: ignore[arg-type]
