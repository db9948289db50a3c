import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerkit.errors import SplitError
from layerkit.splitting.quotas import (
    apportion,
    can_be_divided,
    check_amount,
    divide,
    fold_quotas,
    part_quotas,
    total_of,
)


@pytest.mark.parametrize("amount", [0, 0.0, 1, 5000, 0.2, 0.999, np.int64(3), np.float32(0.25)])
def test_amounts(amount):
    """Fractions below 1 and whole numbers are taken, NumPy's too."""
    assert check_amount("valid", amount) == amount


@pytest.mark.parametrize("amount", [1.2, 1.0, -1, -0.1, 2000.0, math.nan, math.inf])
def test_wrong_amounts(amount):
    """Anything else is refused with the value and the remedy."""
    with pytest.raises(
        ValueError, match=r"`valid` is .*; expected a fraction between 0 and 1 or a whole number"
    ):
        check_amount("valid", amount)


@pytest.mark.parametrize("amount", [True, "0.2", None, 1j])
def test_amounts_of_another_type(amount):
    """True is no count of 1."""
    with pytest.raises(TypeError, match="`test` is"):
        check_amount("test", amount)


def test_the_message_of_the_style_guide():
    """The message reads as the style guide has it."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_amount("valid", 1.2)
    assert str(caught.value) == (
        "`valid` is 1.2; expected a fraction between 0 and 1 or a whole number of files. "
        "To hold out 20% of the pictures, pass 0.2."
    )


@pytest.mark.parametrize(
    ("fraction", "count", "total"), [(0.2, 50, 10), (0.5, 5, 3), (0.1, 4, 0), (7, 50, 7)]
)
def test_totals(fraction, count, total):
    """Halves are rounded up, and a count stays a count."""
    assert total_of(fraction, count) == total


sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(sizes, st.data())
def test_apportion_is_the_nearest_of_all_ways(weights, data):
    """No other division within the bounds has a smaller sum of squared differences from the shares."""
    lower = [data.draw(st.integers(0, w)) for w in weights]
    upper = [data.draw(st.integers(low, w)) for low, w in zip(lower, weights, strict=True)]
    total = data.draw(st.integers(sum(lower), sum(upper)))
    shares = [w * total / sum(weights) for w in weights]
    ways = [
        way
        for way in itertools.product(*(range(low, up + 1) for low, up in zip(lower, upper, strict=True)))
        if sum(way) == total
    ]
    given_ = apportion(weights, total, lower, upper)
    assert tuple(given_) in ways

    def distance(way):
        return sum((n - share) ** 2 for n, share in zip(way, shares, strict=True))

    assert distance(given_) == pytest.approx(min(map(distance, ways)))


def divisions(weights, totals):
    """Yield every division of each total that keeps the promises, of all that there are."""
    whole = sum(weights)
    rows = [
        [
            row
            for row in itertools.product(*(range(1, w) for w in weights))
            if sum(row) == total
            and all(abs(n - w * total / whole) <= 1 + 1e-9 for n, w in zip(row, weights, strict=True))
        ]
        for total in totals
    ]
    for rows_ in itertools.product(*rows):
        if all(w > sum(column) for w, *column in zip(weights, *rows_, strict=True)):
            yield [list(row) for row in rows_]


@pytest.mark.parametrize("weights", [[4], [2, 2], [5, 3, 3], [3, 3, 3], [7, 2, 4]])
def test_a_division_is_found_wherever_there_is_one(weights):
    """All totals are tried against all divisions, of one part and of two that take from the same classes."""
    counts = range(sum(weights) + 1)
    for totals in [*itertools.product(counts), *itertools.product(counts, counts)]:
        ways = list(divisions(weights, totals))
        assert can_be_divided(weights, totals) == bool(ways), totals
        if ways:
            assert divide(weights, totals) in ways, totals


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(3, 40), min_size=2, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_what_is_divided_keeps_every_promise(weights, first, second):
    """Totals that only a joint division can meet are met: each class within one, and something left for train."""
    whole = sum(weights)
    most = whole - 2 * len(weights)
    valid = len(weights) + round(first * (most - len(weights)))
    test = len(weights) + round(second * (whole - len(weights) - valid - len(weights)))
    if not can_be_divided(weights, [valid, test]):
        return
    rows = divide(weights, [valid, test])
    assert [sum(row) for row in rows] == [valid, test]
    for w, *column in zip(weights, *rows, strict=True):
        assert sum(column) < w
        for n, total in zip(column, (valid, test), strict=True):
            assert n > 0
            assert abs(n - w * total / whole) <= 1 + 1e-9


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(3, 300), min_size=2, max_size=8), st.floats(0.1, 0.4), st.floats(0.1, 0.4))
@example([3, 3, 3, 3], 0.25, 0.11)  # one count alone would do, four
def test_part_quotas_are_exact_or_an_error_that_names_a_count_that_works(weights, valid, test):
    """Totals are exact, each class is within one of its share, or the message's own remedy works."""
    named = {f"class{i}": w for i, w in enumerate(weights)}
    asked = {"valid": valid, "test": test}
    for _ in range(2):
        try:
            quotas = part_quotas(named, asked, {})
            break
        except SplitError as error:
            for remedy in str(error).split(": ")[-1].split(" would do")[0].split(", "):
                part, count = remedy.split("=")
                asked[part] = int(count)
    else:
        pytest.fail("the remedies lead nowhere")
    whole = sum(weights)
    assert [sum(column) for column in zip(*quotas.values(), strict=True)] == weights
    for part, amount in asked.items():
        total = math.floor(amount * whole + 0.5) if isinstance(amount, float) else amount
        assert sum(quotas[part]) == total
        for n, w in zip(quotas[part], weights, strict=True):
            assert abs(n - w * total / whole) <= 1 + 1e-9
    assert all(n > 0 for quota in quotas.values() for n in quota)


def test_contradiction_says_which_count_would_do():
    """Ten small classes and a large one do not fit into ten pictures; the message says what does."""
    named = {f"c{i}": 5 for i in range(10)} | {"large": 50}
    with pytest.raises(
        SplitError, match=r"`valid` is 10, 10 pictures of 100, which cannot be .* valid=\d+ would do"
    ):
        part_quotas(named, {"valid": 10}, {})


def test_too_small_a_class_is_named():
    """A class with fewer pictures than sides is named with its size."""
    with pytest.raises(
        SplitError, match=r"class 'b' has 1 picture; expected at least 2, one for each of train, valid"
    ):
        part_quotas({"a": 9, "b": 1}, {"valid": 2}, {})


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(2, 7))
def test_folds_share_each_class_and_the_whole(weights, k):
    """Each fold has its share of each class and of all, rounded down or up."""
    quotas = fold_quotas(weights, k)
    assert [sum(column) for column in zip(*quotas, strict=True)] == weights
    for quota in quotas:
        assert sum(weights) // k <= sum(quota) <= -(-sum(weights) // k)
        assert all(w // k <= n <= -(-w // k) for n, w in zip(quota, weights, strict=True))


@pytest.mark.parametrize("asked", [{"valid": 10**6}, {"valid": 10**6, "test": 3}])
def test_a_count_larger_than_the_folder_has_a_count_that_would_do(asked):
    """The search begins where something is left for train."""
    with pytest.raises(SplitError, match=r"valid=99\d(, test=2)? would do"):
        part_quotas({"a": 500, "b": 500}, asked, {})
