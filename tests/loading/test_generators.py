"""The global generators are seeded for a while, and put back."""

import random
from contextlib import suppress

import numpy as np
import torch

from layerkit.loading.generators import seeded_generators


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.rand())


def test_the_same_seed_gives_the_same_numbers_and_leaves_no_trace() -> None:
    """Inside they depend on the seed alone; outside they go on as if nothing had been."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = [draw(), draw()]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    first = draw()
    with seeded_generators("a"):
        inside = draw()
    with suppress(ZeroDivisionError), seeded_generators("a"):
        again = draw()
        _ = 1 / 0
    with seeded_generators("b"):
        other = draw()
    assert inside == again
    assert not set(inside) & set(other)
    assert [first, draw()] == expected
