"""Every Python block of the README and the docs, and every docstring's example, is a test."""

import os
import signal
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

os.environ["MPLBACKEND"] = "Agg"  # draw without a display, in the processes that tests start too
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background of a script, where Ctrl-C is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)

OPTIONS = ELLIPSIS | NORMALIZE_WHITESPACE
pages = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=OPTIONS), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/_build/**"],
    fixtures=["reader_folder"],
)
docstrings = Sybil(
    parsers=[DocTestParser(optionflags=OPTIONS)],
    patterns=["src/layerkit/**/*.py"],
    document_types={".py": PythonDocStringDocument},
    fixtures=["empty_folder"],
)
pytest_collect_file = (pages + docstrings).pytest()


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder of its own, so that what an example writes stays out of the checkout."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def reader_folder(empty_folder: Path) -> Iterator[Path]:
    """Stand where a reader of the pages stands: beside a folder PetImages, with weights at hand."""
    from torchvision.models import WeightsEnum

    draw_pet_images(empty_folder / "PetImages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightsEnum, "get_state_dict", state_dict_at_hand)
        yield empty_folder


def draw_pet_images(folder: Path, count: int = 8) -> None:
    """Write two classes of small pictures that differ in brightness."""
    import torch
    from torchvision.transforms.v2.functional import to_pil_image

    generator = torch.Generator().manual_seed(0)
    for name, brightest in {"Cat": 120, "Dog": 255}.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = torch.randint(0, brightest, (3, 64, 64), dtype=torch.uint8, generator=generator)
            to_pil_image(picture).save(folder / name / f"{number}.jpg")


def state_dict_at_hand(weights: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Stand in for the download: SqueezeNet's packaged weights, the fresh ones of any other model."""
    from torchvision.models import get_model

    from layerkit.demo.weights import squeezenet1_1_weights

    name = type(weights).__name__.removesuffix("_Weights").lower()
    return squeezenet1_1_weights() if name == "squeezenet1_1" else get_model(name, weights=None).state_dict()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a page, a warning of layerkit's is what a reader would see too, and no error."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.filterwarnings("default::layerkit.LayerkitWarning"))
