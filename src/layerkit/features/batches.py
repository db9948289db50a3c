"""Features dealt out in batches."""

import math
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from layerkit.tasks.targets import map_targets


class FeatureBatches:
    """Features in memory, dealt out in batches; each ``iter()`` is the next epoch.

    With several views of the pictures each epoch takes the next one. The order depends on the seed and the
    epoch alone.
    """

    def __init__(
        self, views: list[Tensor], targets: Any, *, batch_size: int, shuffle: bool, seed: int = 0
    ) -> None:
        self.views, self.targets = views, targets
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.epoch = 0
        self.first_batch = 0

    def set_epoch(self, epoch: int, *, first_batch: int = 0) -> None:
        """Choose the epoch, and the batch in it, with which the next ``iter()`` begins."""
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def batches(self) -> int:
        """How many there are in an epoch."""
        return math.ceil(len(self) / self.batch_size)

    def __len__(self) -> int:
        return len(self.views[0])

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        epoch, first = self.epoch, self.first_batch
        self.epoch, self.first_batch = epoch + 1, 0
        features = self.views[epoch % len(self.views)]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator) if self.shuffle else torch.arange(len(self))
        for indices in torch.split(order.to(features.device), self.batch_size)[first:]:
            yield features[indices], map_targets(itemgetter(indices), self.targets)
