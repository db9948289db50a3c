import itertools
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerkit import plan_split
from layerkit.splitting import enumerating
from layerkit.splitting.balancing import Goal
from layerkit.splitting.enumerating import best_of_all_ways

PICTURES = st.dictionaries(st.integers(0, 2), st.integers(1, 9), min_size=1)


def counts_of(units, parts, settled):
    """Count what each part has of each class."""
    counts = [list(row) for row in settled]
    for unit, part in zip(units, parts, strict=True):
        for c, n in unit.items():
            counts[part][c] += n
    return counts


def score(counts, wanted):
    """Say how far all parts are from what is wanted, by the measure of moves and exchanges."""
    sizes = [sum(column) for column in zip(*counts, strict=True)]
    goal = Goal([], wanted)
    scores = [goal.score(part, row, sizes) for part, row in enumerate(counts)]
    return tuple(map(sum, zip(*scores, strict=True)))


def distribute(units, settled, wanted):
    """Distribute units that are mappings, and count."""
    parts = best_of_all_ways([tuple(sorted(unit.items())) for unit in units], settled, wanted)
    return counts_of(units, parts, settled)


@settings(max_examples=60, deadline=None)
@given(st.lists(PICTURES, min_size=1, max_size=6), st.integers(2, 3), st.data())
def test_no_other_way_is_better(units, parts, data):
    """Tried against all ways; the last part takes what remains, and some files stand there already."""
    settled = [[data.draw(st.integers(0, 3)) for _ in range(3)] for _ in range(parts)]
    total = sum(sum(unit.values()) for unit in units) + sum(map(sum, settled))
    wanted = [*(data.draw(st.integers(0, total // 2)) for _ in range(parts - 1)), None]
    ways = itertools.product(range(parts), repeat=len(units))
    best = min(score(counts_of(units, way, settled), wanted) for way in ways)
    assert score(distribute(units, settled, wanted), wanted) == best


def test_the_most_promising_of_many_ways_meet_totals_and_shares(monkeypatch):
    """Where only some ways can be kept, those are kept that lead to exact totals and even classes."""
    monkeypatch.setattr(enumerating, "_MOST_NUMBERS", 3_000_000)
    draw = random.Random(3)
    units = [{c: draw.randint(1, 30) for c in draw.sample(range(3), draw.randint(1, 3))} for _ in range(80)]
    sizes = [sum(unit.get(c, 0) for unit in units) for c in range(3)]
    wanted = [sum(sizes) // 5, sum(sizes) // 5, None]
    counts = distribute(units, [[0] * 3] * 3, wanted)
    assert [sum(row) for row in counts[:2]] == wanted[:2]
    for row in counts[:2]:
        assert all(abs(n - size / 5) < 10 for n, size in zip(row, sizes, strict=True))


def test_squares_of_huge_classes_do_not_overflow():
    """Millions of files in few units: the shares are still met."""
    units = [{0: 3_000_000, 1: 1_000_000}, {0: 7_000_000, 1: 9_000_000}, {0: 3_000_000, 1: 1_000_001}]
    counts = distribute(units, [[0, 0], [0, 0]], [4_000_000, None])
    assert counts[0] == [3_000_000, 1_000_000]


def test_too_many_units_are_not_tried():
    """The work is bounded: moves and exchanges are all there is for tens of thousands of units."""
    assert best_of_all_ways([((0, 1),)] * 20_000, [[0], [0]], [5_000, None]) is None


@pytest.mark.filterwarnings("ignore:.*cannot be divided:layerkit.LayerkitWarning")
@pytest.mark.parametrize("seed", range(3))
def test_patients_with_pictures_of_several_classes_are_divided_as_evenly_as_they_can_be(seed):
    """Fourteen patients: no other division meets the total with classes nearer to their shares."""
    draw = random.Random(seed)
    patients = [{c: draw.randint(1, 12) for c in draw.sample(range(3), 2)} for _ in range(14)]
    with tempfile.TemporaryDirectory() as folder:
        for p, patient in enumerate(patients):
            for c, n in patient.items():
                for i in range(n):
                    place = Path(folder, f"class{c}", f"patient{p}_{i}.png")
                    place.parent.mkdir(exist_ok=True)
                    place.write_text(f"{p} {c} {i}")
        split = plan_split(folder, valid=40, group=r"(patient\d+)_", duplicates="ignore")
    got = [[split.counts[part][f"class{c}"] for c in range(3)] for part in ("valid", "train")]
    assert sum(got[0]) == 40
    sizes = [sum(column) for column in zip(*got, strict=True)]
    if all(abs(n - size * 40 / sum(sizes)) <= 1 for n, size in zip(got[0], sizes, strict=True)):
        return
    ways = itertools.product(range(2), repeat=len(patients))
    best = min(score(counts_of(patients, way, [[0] * 3] * 2), [40, None]) for way in ways)
    assert score(got, [40, None]) == best


def test_few_units_of_many_classes_are_tried_all():
    """How many ways there are counts, not how many numbers each has."""
    units = [{c: 1 + (c + unit) % 3 for c in range(700)} for unit in range(5)]
    wanted = [sum(units[0].values()), sum(units[1].values()), None]
    counts = distribute(units, [[0] * 700] * 3, wanted)
    assert [sum(row) for row in counts[:2]] == wanted[:2]
