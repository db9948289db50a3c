"""An estimate is a float that knows its interval."""

import copy
import json
import pickle

from layerkit.intervals import Estimate


def test_it_is_a_float_in_all_but_its_repr():
    """It compares, formats and serialises as the number, and survives copies with its interval."""
    made = Estimate(0.8, (0.7, 0.9))
    assert made == 0.8
    assert f"{made:.3f}" == "0.800"
    assert json.dumps(made) == "0.8"
    assert repr(made) == "0.8 (0.7 to 0.9)"
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (other, other.low, other.high) == (0.8, 0.7, 0.9)


def test_without_an_interval_the_ends_are_none():
    """Nothing is made up."""
    made = Estimate(2)
    assert (made.low, made.high) == (None, None)
    assert repr(made) == "2"
    assert pickle.loads(pickle.dumps(made)).low is None
