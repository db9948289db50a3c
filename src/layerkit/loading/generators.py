"""The global random generators, seeded for a while."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_generators(seed: str) -> Iterator[None]:
    """Seed what a user's own augmentation may draw from, and put it all back afterwards.

    Torch's generator for the CPU, `random` and ``numpy.random`` are covered; a generator that the user keeps
    for himself, ``numpy.random.default_rng()`` say, is his own to seed.

    Parameters
    ----------
    seed : str
        What the numbers drawn depend on.
    """
    number = random.Random(seed).getrandbits(32)
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        torch.default_generator.manual_seed(number)  # torch.manual_seed would seed accelerators too
        random.seed(number)
        np.random.seed(number)
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
