"""Small pictures on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_picture(file: Path, seed: int) -> Path:
    """Write a picture whose pixels depend on the seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((50, 40), Image.Resampling.BICUBIC).save(file)
    return file


@pytest.fixture
def picture() -> Callable[[Path, int], Path]:
    """Give the function that writes one picture."""
    return write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of 21 training and 8 validation pictures in two classes."""
    root = tmp_path / "pets"
    for part, each in (("train", (11, 10)), ("valid", (4, 4))):
        for label, count in zip(("cat", "dog"), each, strict=True):
            for n in range(count):
                write_picture(root / part / label / f"{n:02}.png", hash_free(part, label, n))
    return root


def hash_free(part: str, label: str, n: int) -> int:
    """Number the pictures, so that no two are the same."""
    return 1000 * (part == "valid") + 100 * (label == "dog") + n
