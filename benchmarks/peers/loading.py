"""Reading JPEGs to normalized batches at 224 px: pictures a second for evaluation and for training.

    python photos.py FOLDER
    python loading.py PEER --pictures FOLDER/small [--workers 2]

With 0 workers everything happens in the process itself, on one thread. With 2, peers have two worker processes and
layerkit the threads that it takes by default. A pass over the pictures goes before, so workers run and files are
in memory. `eval` resizes to 256 and crops to 224; `train` takes a random window of at least a quarter of the area
and mirrors every second picture. fastai and ultralytics resize to 224 for `eval`, as they do by
default, and fastai starts its workers anew for each pass.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

from measuring import Figures, measure
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

BATCH = 16
SCALE = (0.25, 1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SECONDS = 2
"""The least that is measured; passes are made until then."""


def figures(valid: Iterable[Any], train: Iterable[Any]) -> Figures:
    return {"eval": rate(valid), "train": rate(train)}


def rate(loader: Iterable[Any]) -> float:
    """Count the pictures of whole passes; one goes before that does not count."""
    for _ in loader:
        pass
    seen, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < SECONDS:
        seen += sum(len(batch[0]) for batch in loader)
    return round(seen / passed, 1)


def folder_pair(pictures: str, workers: int, valid: Any, train: Any, **reading: Any) -> Figures:
    """Measure torch's own loaders with torchvision's own dataset."""
    options = {"batch_size": BATCH, "num_workers": workers, "persistent_workers": workers > 0}
    return figures(
        DataLoader(ImageFolder(f"{pictures}/valid", valid, **reading), **options),
        DataLoader(ImageFolder(f"{pictures}/train", train, **reading), shuffle=True, **options),
    )


def bare(pictures: str, workers: int) -> Figures:
    """Read as most tutorials do: Pillow, and torchvision's transforms."""
    end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    valid = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *end])
    train = transforms.Compose(
        [transforms.RandomResizedCrop(224, SCALE), transforms.RandomHorizontalFlip(), *end]
    )
    return folder_pair(pictures, workers, valid, train)


def torchvision_v2(pictures: str, workers: int) -> Figures:
    """Decode to tensors and change these with the second transforms, torchvision's fast way."""
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    valid = v2.Compose([v2.Resize(256), v2.CenterCrop(224), *end])
    train = v2.Compose([v2.RandomResizedCrop(224, SCALE), v2.RandomHorizontalFlip(), *end])

    def read(path: str) -> torch.Tensor:
        return decode_image(path, ImageReadMode.RGB)

    return folder_pair(pictures, workers, valid, train, loader=read)


def layerkit(pictures: str, workers: int) -> Figures:
    from layerkit import Preset, folder_loaders

    data = folder_loaders(
        pictures, preset=Preset(224), batch_size=BATCH, num_workers="auto" if workers else 0
    )
    return figures(data.valid, data.train)


def layerkit_cache(pictures: str, workers: int) -> Figures:
    """Measure the second epoch and later ones; the first fills the cache."""
    from layerkit import Preset, folder_loaders

    data = folder_loaders(
        pictures, preset=Preset(224), batch_size=BATCH, num_workers="auto" if workers else 0, cache="memory",
    )  # fmt: skip
    return figures(data.valid, data.train)


def fastai(pictures: str, workers: int) -> Figures:
    import torch
    from fastai.vision.all import FlipItem, ImageDataLoaders, Normalize, RandomResizedCrop

    data = ImageDataLoaders.from_folder(
        pictures, valid="valid", item_tfms=[RandomResizedCrop(224, min_scale=SCALE[0]), FlipItem()],
        batch_tfms=Normalize.from_stats(MEAN, STD), bs=BATCH, val_bs=BATCH, num_workers=workers,
        persistent_workers=workers > 0, device=torch.device("cpu"),
    )  # fmt: skip
    return figures(data.valid, data.train)


def timm(pictures: str, workers: int) -> Figures:
    from timm.data import ImageDataset, create_loader

    def load(part: str, **options: Any) -> Iterable[Any]:
        return create_loader(
            ImageDataset(f"{pictures}/{part}"), 224, BATCH, num_workers=workers, use_prefetcher=False,
            persistent_workers=workers > 0, **options,
        )  # fmt: skip

    train = load("train", is_training=True, scale=SCALE, color_jitter=0.0)
    return figures(load("valid", crop_pct=224 / 256), train)


def ultralytics(pictures: str, workers: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["YOLO_CONFIG_DIR"] = folder
        import cv2
        from PIL import Image
        from ultralytics.data.augment import classify_augmentations, classify_transforms

    cv2.setNumThreads(1)

    def read(path: str) -> Image.Image:
        return Image.fromarray(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB))

    valid = classify_transforms(224, mean=MEAN, std=STD)
    train = classify_augmentations(224, MEAN, STD, scale=SCALE, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
    return folder_pair(pictures, workers, valid, train, loader=read)


PEERS: tuple[Callable[..., Figures], ...] = (
    bare, layerkit, layerkit_cache, torchvision_v2, fastai, timm, ultralytics,
)  # fmt: skip

if __name__ == "__main__":
    measure(*PEERS, pictures="photos/small", workers=0)
