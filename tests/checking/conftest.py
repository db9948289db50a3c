"""Folders of real and drawn pictures, healthy until a test breaks them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layerkit.demo

Draw = Callable[..., Path]
DEMO = Path(layerkit.demo.__file__).parent / "pictures"


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Give the function that writes a picture whose pixels depend on the seed."""

    def write(
        file: Path, seed: int = 0, *, size: tuple[int, int] = (40, 32), mode: str = "RGB", **how: Any
    ) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
        picture.save(file, **how)
        return file

    return write


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """Make a folder of 60 photographs from the demo: two classes, 20 for training and 10 for validation."""
    root = tmp_path / "animals"
    for label in ("fruit", "vehicle"):
        different = {picture.read_bytes(): picture for picture in sorted(DEMO.glob(f"{label}.*.jpg"))}
        for n, picture in enumerate([*different.values()][:30]):
            folder = root / ("train" if n < 20 else "valid") / label
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, folder / picture.name)
    return root
