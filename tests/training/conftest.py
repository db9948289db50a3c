"""Small data and models for the training tests."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Blobs:
    """Two classes of points, far enough apart to be learnt in a few steps."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        targets = torch.arange(120) % 2
        inputs = torch.randn(120, 4, generator=generator) + 2.5 * targets.unsqueeze(1)
        self.train = DataLoader(TensorDataset(inputs[:80], targets[:80]), batch_size=16, shuffle=True)
        self.valid = DataLoader(TensorDataset(inputs[80:], targets[80:]), batch_size=16)


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(4, 2)
