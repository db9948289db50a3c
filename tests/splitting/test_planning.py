import gc
import itertools
import os
import random
import tempfile
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerkit.errors import LayerkitWarning, SplitError
from layerkit.splitting import Split, k_fold, list_pictures, plan_split
from layerkit.splitting.assignment import join, shuffled
from layerkit.splitting.balancing import _deal
from layerkit.splitting.pictures import scan_folder
from layerkit.splitting.planning import plan
from layerkit.splitting.request import Request

calm = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def parts_of(split: Split) -> dict[str, str]:
    return {row.path: row.part for row in split.rows}


def plan_of(files: dict[str, str], **options) -> Split:
    """Plan a split of files given by path and text, without warnings."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)
        for path, text in files.items():
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return plan_split(folder, **options)


def test_counts_by_hand(source):
    """30 cats and 20 dogs, 20% and 5: totals are exact, shares are kept."""
    split = plan_split(source, valid=0.2, test=5)
    assert split.counts == {
        "train": {"cat": 21, "dog": 14},
        "valid": {"cat": 6, "dog": 4},
        "test": {"cat": 3, "dog": 2},
    }
    assert [row.path for row in split.rows] == list_pictures(source)
    assert split.source == source


@calm
@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=5),
    st.floats(0.15, 0.4),
    st.integers(0, 1),
    st.integers(-3, 3),
)
def test_disjoint_complete_exact_stratified_repeatable(sizes, valid, with_test, seed):
    """Whatever the folder: every file once, totals exact, shares within one file, and the same again."""
    files = {f"c{c}/{i}.png": f"{c} {i}" for c, size in enumerate(sizes) for i in range(size)}
    options = {"valid": valid, "test": 0.2 * with_test, "seed": seed}
    try:
        split = plan_of(files, **options)
    except SplitError as error:
        assert "would do" in str(error)  # noqa: PT017
        return
    assert [row.path for row in split.rows] == sorted(files)
    for part in split.parts[1:]:
        total = int(options[part] * len(files) + 0.5)
        assert sum(split.counts[part].values()) == total
        for c, size in enumerate(sizes):
            assert abs(split.counts[part][f"c{c}"] - size * total / len(files)) <= 1
            assert split.counts[part][f"c{c}"] >= 1
    assert plan_of(dict(reversed(files.items())), **options) == split


@calm
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), min_size=12, max_size=30), st.integers(0, 9)
)
def test_groups_stay_together(pictures, seed):
    """A group is never on two sides, even across classes; singles make the totals exact if they can."""
    files = {f"{c}/{i}_g{g}.png": str(i) for i, (c, g) in enumerate(pictures)}
    try:
        split = plan_of(files, valid=0.3, seed=seed, group=r"g\d+")
    except SplitError as error:
        assert any(word in str(error) for word in ("cannot be divided", "expected two", "has"))  # noqa: PT017
        return
    sides = Counter((row.group, row.part) for row in split.rows)
    assert len(sides) == len({row.group for row in split.rows})
    assert [row.path for row in split.rows] == sorted(files)


@calm
@given(
    st.lists(st.integers(1, 5), min_size=4, max_size=8), st.sampled_from([0.2, 0.3, 0.5]), st.integers(0, 5)
)
def test_groups_come_as_near_to_the_total_as_can_be(groups, valid, seed):
    """With groups of any sizes, no other distribution has a total nearer to the one asked for."""
    files = {f"{i}_g{g}.png": f"{g} {i}" for g, size in enumerate(groups) for i in range(size)}
    split = plan_of(files, valid=valid, seed=seed, group=r"g\d+", label=lambda path: "all", stratify=False)
    asked = int(valid * len(files) + 0.5)
    subsets = itertools.chain.from_iterable(itertools.combinations(groups, n) for n in range(1, len(groups)))
    nearest = min(abs(sum(subset) - asked) for subset in subsets)
    assert abs(sum(split.counts["valid"].values()) - asked) == nearest


@calm
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any), min_size=4, max_size=7),
    st.integers(0, 5),
)
def test_groups_across_classes_come_as_near_as_can_be(groups, seed):
    """With groups that hold two classes, the best of all distributions is found."""
    files = {
        f"{label}/{i}_g{g}.png": f"{g} {label} {i}"
        for g, counts in enumerate(groups)
        for label, n in zip("ab", counts, strict=True)
        for i in range(n)
    }
    sizes = [sum(column) for column in zip(*groups, strict=True)]
    asked = int(0.3 * len(files) + 0.5)

    def score(valid):
        held = [sum(groups[g][c] for g in valid) for c in (0, 1)]
        missing = sum(n == 0 for n in held) + sum(n == size for n, size in zip(held, sizes, strict=True))
        uneven = sum((n - size * asked / len(files)) ** 2 for n, size in zip(held, sizes, strict=True))
        return missing, abs(sum(held) - asked), uneven

    everything = range(len(groups))
    best = min(score(way) for n in range(len(groups) + 1) for way in itertools.combinations(everything, n))
    try:
        split = plan_of(files, valid=0.3, seed=seed, group=r"g\d+")
    except SplitError:
        assert min(sizes) < 2 or best[0] > 0 or asked < 2
        return
    ours = score({int(row.group[1:]) for row in split.rows if row.part == "valid"})
    assert ours[:2] == best[:2]
    worst = max(
        abs(split.counts["valid"][label] - n * asked / len(files))
        for label, n in zip("ab", sizes, strict=True)
    )
    assert worst <= 1 or ours[2] == pytest.approx(best[2])


def test_what_groups_forbid_is_said(tmp_path):
    """A total that groups do not allow is met as nearly as can be, and a warning says the difference."""
    for group, label in itertools.product(range(5), "ab"):
        for i in range(3):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{group}_{i}.png").write_text(f"{group}{label}{i}")
    with pytest.warns(
        LayerkitWarning, match=r"valid has 6 pictures where 8 were asked for.*cannot be divided"
    ):
        split = plan_split(tmp_path, valid=8, group=r"(\d)_")
    assert split.counts["valid"] == {"a": 3, "b": 3}
    assert "where 8 were asked for" in repr(split)


def test_a_class_in_one_group_is_an_error(make_folder):
    """A class that groups keep on one side is named."""
    with pytest.raises(
        SplitError, match=r"class 'dog' is missing from (valid|train).*groups and duplicates stay"
    ):
        plan_split(make_folder(cat=10, dog=4), group="dog")


def test_a_group_rule_that_matches_nothing_is_an_error(source):
    """An expression that finds no group at all was mistyped."""
    with pytest.raises(SplitError, match=r"finds a group for none of 50 pictures"):
        plan_split(source, group=r"patient(\d+)")


def test_groups_are_not_preferred_on_a_side(tmp_path):
    """Pairs are held out as often as singles: neither side is made of groups more than the other."""
    files = {f"{c}/{i}.png": f"{c}{i}" for c in "ab" for i in range(200)}
    held = Counter()
    for seed in range(5):
        split = plan_of(
            files,
            valid=0.25,
            seed=seed,
            duplicates="ignore",
            group=lambda path: (
                path.rpartition("/")[0] + str(int(path[2:-4]) // 2) if int(path[2:-4]) < 100 else None
            ),
        )
        held.update(row.group is not None for row in split.rows if row.part == "valid")
    assert held[True] / held.total() == pytest.approx(0.5, abs=0.06)


def test_listing_order_does_not_matter(source):
    """The same files listed in any other order give the same plan."""
    listing = scan_folder(source)
    expected = plan(source, listing, Request())
    shuffled_listing = listing._replace(pictures=random.Random(0).sample(listing.pictures, 50))
    shuffled_listing.pictures.sort()
    assert plan(source, shuffled_listing, Request()) == expected


def test_hash_seed_and_folder_name_do_not_matter(make_folder, run_alone):
    """Another PYTHONHASHSEED and another place on the disk give the same plan."""
    here, there = make_folder("here", cat=9, dog=9), make_folder("there", cat=9, dog=9)
    table = there.parent / "table.csv"
    code = "plan_split(sys.argv[2]).to_csv(sys.argv[3])"
    process = run_alone(code, there, table, env={**os.environ, "PYTHONHASHSEED": "12345"})
    assert process.wait() == 0
    assert Split.read_csv(table) == plan_split(here)


def test_the_plan_is_the_same_in_every_version():
    """These paths were drawn once; no change of layerkit, Python or system may draw others."""
    assert shuffled(["a/1.jpg", "a/2.jpg", "é.jpg", "b/1.jpg", "写.png"], 0) == [1, 4, 3, 0, 2]
    assert shuffled(["a/1.jpg", "a/2.jpg", "é.jpg", "b/1.jpg", "写.png"], 1) == [0, 2, 4, 3, 1]


def test_accents_draw_the_same_however_they_are_written():
    """macOS may decompose an accent in a file name: its draw stays the same."""
    names = [f"é{i}.jpg" for i in range(20)]
    assert shuffled([unicodedata.normalize("NFD", name) for name in names], 3) == shuffled(names, 3)


def test_seeds_differ(source):
    """Another seed is another split, and every picture is held out by some seed."""
    held = [
        {row.path for row in plan_split(source, seed=seed).rows if row.part == "valid"} for seed in range(40)
    ]
    assert len(set(map(frozenset, held))) == 40
    assert len(set.union(*held)) == 50


def test_same_bytes_stay_together(make_folder):
    """Copies under other names are on one side, and only files that could be equal are hashed."""
    source = make_folder(cat=20, dog=20)
    for i in range(6):
        (source / "cat" / f"copy{i}.jpg").write_bytes((source / "cat" / f"cat.{i}.jpg").read_bytes())
    for seed in range(5):
        split = plan_split(source, seed=seed)
        parts = parts_of(split)
        assert all(parts[f"cat/copy{i}.jpg"] == parts[f"cat/cat.{i}.jpg"] for i in range(6))
        assert {row.path for row in split.rows if row.hash} == {
            f"cat/{name}{i}.jpg" for name in ("copy", "cat.") for i in range(6)
        }
    apart = [parts_of(plan_split(source, seed=seed, duplicates="ignore")) for seed in range(9)]
    assert any(parts["cat/copy0.jpg"] != parts["cat/cat.0.jpg"] for parts in apart)


def test_same_bytes_under_two_labels(make_folder):
    """They are reported with both names, kept on one side, and refused on request."""
    source = make_folder(cat=9, dog=9)
    (source / "dog" / "twin.jpg").write_bytes((source / "cat" / "cat.3.jpg").read_bytes())
    with pytest.warns(LayerkitWarning, match=r"more than one label.*'cat/cat\.3\.jpg' and 'dog/twin\.jpg'"):
        split = plan_split(source)
    assert parts_of(split)["cat/cat.3.jpg"] == parts_of(split)["dog/twin.jpg"]
    [(cat, dog)] = split.conflicts()
    assert (cat.path, dog.path) == ("cat/cat.3.jpg", "dog/twin.jpg")
    with pytest.raises(SplitError, match=r'duplicates="strict" expects one label'):
        plan_split(source, duplicates="strict")


def test_join_is_transitive():
    """A picture in two groups joins them."""
    assert join("abcdef", [[0, 2], [4, 5], [2, 5]]) == [0, 1, 0, 3, 0, 0]


def grow(source: Path, **more: int) -> None:
    for label, n in more.items():
        for i in range(n):
            (source / label).mkdir(exist_ok=True)
            (source / label / f"new{i}.jpg").write_text(f"new {label} {i}")


@calm
@given(
    st.integers(3, 20),
    st.integers(3, 20),
    st.integers(0, 15),
    st.integers(0, 15),
    st.sampled_from([0.2, 0.34, 4]),
)
def test_growth_keeps_every_file_and_restores_the_fraction(cats, dogs, more_cats, more_dogs, valid):
    """Old files stay; a fraction is met again if it can be, and a count stays as it is."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)
        source = Path(folder)
        for label, n in (("cat", cats), ("dog", dogs)):
            (source / label).mkdir()
            for i in range(n):
                (source / label / f"{i}.jpg").write_text(f"{label} {i}")
        try:
            before = plan_split(source, valid=valid)
        except SplitError:
            return
        grow(source, cat=more_cats, dog=more_dogs)
        after = plan_split(source, valid=valid, previous=before)
    assert parts_of(before).items() <= parts_of(after).items()
    assert len(after) == len(before) + more_cats + more_dogs
    held = sum(before.counts["valid"].values())
    total = valid if isinstance(valid, int) else int(valid * len(after) + 0.5)
    assert sum(after.counts["valid"].values()) == min(max(total, held), held + more_cats + more_dogs)


def test_growth_by_table(source, tmp_path):
    """The earlier split may be given as the CSV file that holds it."""
    before = plan_split(source)
    before.to_csv(tmp_path / "split.csv")
    grow(source, cat=5, dog=5)
    after = plan_split(source, previous=tmp_path / "split.csv")
    assert parts_of(before).items() <= parts_of(after).items()
    assert after == plan_split(source, previous=before)
    assert after.counts["valid"] == {"cat": 7, "dog": 5}


def test_a_new_copy_of_an_old_picture_joins_it(source):
    """New files go to the side where their group or their duplicate is."""
    before = plan_split(source)
    for row in before.rows[::3]:
        (source / row.label / f"copy-{Path(row.path).name}").write_bytes((source / row.path).read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerkitWarning)  # the fraction may no longer be met exactly
        after = parts_of(plan_split(source, previous=before))
    assert all(after[f"{r.label}/copy-{Path(r.path).name}"] == r.part for r in before.rows[::3])


def test_growth_reports_what_has_gone_and_what_changed_its_label(source):
    """A picture that is gone leaves the split with a warning; another label is an error."""
    before = plan_split(source)
    (source / "cat" / "cat.0.jpg").unlink()
    with pytest.warns(
        LayerkitWarning, match=r"1 picture of the earlier split cannot be found.*'cat/cat\.0\.jpg'"
    ):
        assert len(plan_split(source, previous=before)) == 49
    with pytest.raises(SplitError, match=r"has the label '.*', but 'cat' in the earlier split"):
        plan_split(source, previous=before, label=r"(\d+)\.jpg")


def test_flat_folder(tmp_path):
    """Labels come from the names of a flat folder; what tells none is left out, counted and named."""
    for i in range(10):
        (tmp_path / f"cat.{i}.jpg").write_text(f"c{i}")
        (tmp_path / f"dog.{i}.jpg").write_text(f"d{i}")
    assert plan_split(tmp_path, label=r"(cat|dog)\.").counts["valid"] == {"cat": 2, "dog": 2}
    (tmp_path / "bird.jpg").write_text("b")
    with pytest.warns(LayerkitWarning, match=r"1 picture left out for want of a label: 'bird.jpg'"):
        split = plan_split(tmp_path, label=r"(cat|dog)\.")
    assert split.skipped == (("bird.jpg", "no label"),)
    with pytest.raises(SplitError, match=r"none of the 21 pictures .* label=r\"\(cat\|dog\)"):
        plan_split(tmp_path)


def test_nothing_to_split(tmp_path, make_folder):
    """Empty and missing folders, one class, one picture, a folder split already: each has its error."""
    with pytest.raises(FileNotFoundError, match="no folder"):
        plan_split(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SplitError, match=r"there is no picture in .*check the path"):
        plan_split(tmp_path / "empty")
    with pytest.raises(SplitError, match=r"all 5 pictures .* have the label 'cat'; expected two classes"):
        plan_split(make_folder("one", cat=5))
    with pytest.raises(SplitError, match="class 'dog' has 1 picture; expected at least 2"):
        plan_split(make_folder("single", cat=5, dog=1))
    with pytest.raises(SplitError, match="are train, val, as of a folder that is split already"):
        plan_split(make_folder("done", train=5, val=5))
    with pytest.raises(SplitError, match="expected at least one"):
        plan_split(make_folder("two", cat=50, dog=50), valid=0.001)
    with pytest.raises(SplitError, match="would do"):
        plan_split(make_folder("three", cat=50, dog=50), valid=100)


def test_without_stratifying_one_class_will_do(make_folder):
    """For regression the labels do not matter."""
    split = plan_split(make_folder(all=20), stratify=False, valid=0.25)
    assert split.counts == {"train": {"all": 15}, "valid": {"all": 5}}


def test_wrong_options(source):
    """Options that make no sense are refused by name."""
    with pytest.raises(ValueError, match="did you mean 'together'"):
        plan_split(source, duplicates="togethr")
    with pytest.raises(TypeError, match=r"`seed` is 1\.5; expected a whole number"):
        plan_split(source, seed=1.5)
    with pytest.raises(TypeError, match="`seed` is True"):
        plan_split(source, seed=True)
    with pytest.raises(TypeError, match="`stratify` is 'yes'"):
        plan_split(source, stratify="yes")


@calm
@given(st.lists(st.integers(3, 15), min_size=2, max_size=4), st.integers(2, 5), st.integers(0, 3))
def test_each_picture_is_held_out_once(sizes, k, seed):
    """The folds divide the pictures, and each has its share of every class within one."""
    files = {f"c{c}/{i}.png": f"{c} {i}" for c, size in enumerate(sizes) for i in range(size)}
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            Path(folder, path).parent.mkdir(exist_ok=True)
            Path(folder, path).write_text(text)
        try:
            folds = k_fold(folder, k, seed=seed)
        except SplitError:
            assert min(sizes) < k
            return
    held = Counter(row.path for fold in folds for row in fold.rows if row.part == "valid")
    assert held == Counter(list(files))
    for fold in folds:
        assert [row.path for row in fold.rows] == sorted(files)
        assert abs(sum(fold.counts["valid"].values()) - len(files) / k) < 1
        for c, size in enumerate(sizes):
            assert abs(fold.counts["valid"][f"c{c}"] - size / k) < 1


def test_folds_keep_groups_together(source):
    """In every fold a group is on one side, and ten groups of five make five folds of ten."""
    for fold in k_fold(source, 5, group=r"(\d)\.jpg"):
        sides = {(row.group, row.part) for row in fold.rows}
        assert len(sides) == len({row.group for row in fold.rows}) == 10
        assert sum(fold.counts["valid"].values()) == 10


def test_wrong_folds(source):
    """One fold, more folds than pictures, fewer groups than folds: each has its error."""
    with pytest.raises(ValueError, match="`k` is 1; expected at least 2"):
        k_fold(source, 1)
    with pytest.raises(TypeError, match=r"`k` is 2\.0"):
        k_fold(source, 2.0)
    with pytest.raises(SplitError, match=r"class 'dog' has 20 pictures for 21 folds.*k=20 at most"):
        k_fold(source, 21)
    with pytest.raises(SplitError, match=r"is missing from fold .* pass a smaller k"):
        k_fold(source, 5, group=lambda path: str(int(path.split(".")[1]) % 2))


def grouped(sizes: list[list[int]]) -> dict[str, str]:
    """Name files of classes c0, c1, ... with groups of the given sizes."""
    return {
        f"c{c}/g{g}_{i}.png": f"{c} {g} {i}"
        for c, groups in enumerate(sizes)
        for g, size in enumerate(groups)
        for i in range(size)
    }


@calm
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=4, max_size=9), min_size=2, max_size=4), st.integers(0, 3)
)
def test_groups_within_classes_meet_every_share_that_subset_sums_can(sizes, seed):
    """Where each class has groups that sum to its share of one part, the split has exactly that."""
    files = grouped(sizes)
    totals = [sum(groups) for groups in sizes]
    single = plan_of({path.replace("_", "/"): text for path, text in files.items()}, valid=0.3, seed=seed)
    shares = [single.counts["valid"][f"c{c}"] for c in range(len(sizes))]
    reachable = []
    for groups, share in zip(sizes, shares, strict=True):
        sums = {0}
        for group in groups:
            sums |= {s + group for s in sums}
        reachable.append(share in sums)
    if all(reachable):
        split = plan_of(files, valid=0.3, group=r"(c\d+/g\d+)_", seed=seed)
        assert [split.counts["valid"][f"c{c}"] for c in range(len(totals))] == shares
        assert split.notes == ()


def test_many_classes_of_groups_are_planned_soon():
    """A hundred classes with groups of up to nine: every class within one file of its share in each part."""
    draw = random.Random(0)
    sizes = []
    for _ in range(100):
        groups: list[int] = []
        while sum(groups) < 60:
            groups.append(min(draw.randint(1, 9), 60 - sum(groups)))
        sizes.append(groups)
    split = plan_of(grouped(sizes), valid=0.2, test=0.1, group=r"(c\d+/g\d+)_", duplicates="ignore")
    assert {split.counts["valid"][f"c{c}"] for c in range(100)} <= {11, 12, 13}
    assert {split.counts["test"][f"c{c}"] for c in range(100)} <= {5, 6, 7}


def test_folds_say_which_class_is_off():
    """Groups of five, three and two cannot be dealt to three folds evenly; equal totals do not hide that."""
    files = grouped([[5, 2, 2, 2], [2, 3, 2], [5, 5, 5, 3]])
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        with pytest.warns(LayerkitWarning, match=r"of 'c2' where its share is 6\.0.*cannot be divided"):
            folds = k_fold(folder, 3, group=r"(c\d+/g\d+)_", duplicates="ignore")
        with pytest.raises(
            SplitError, match=r"the folder has 36 pictures for 40 folds; expected.*pass k=36 at most"
        ):
            k_fold(folder, 40, stratify=False)
    assert all(fold.notes for fold in folds)


@calm
@given(st.integers(0, 5))
def test_groups_too_are_drawn_alike_where_a_system_decomposes_names(seed):
    """é in one code point or in two: the same pictures are held out."""
    names = [f"{c}/{x}{n}_{i}.png" for c in "ab" for x in "éez" for n in range(3) for i in range(3)]
    plans = []
    for form in ("NFC", "NFD"):
        files = {unicodedata.normalize(form, name): name for name in names}
        split = plan_of(files, valid=0.3, group=r"/(.+)_", duplicates="ignore", seed=seed)
        plans.append({unicodedata.normalize("NFC", row.path): row.part for row in split.rows})
    assert plans[0] == plans[1]


@calm
@given(st.lists(st.integers(1, 9), min_size=3, max_size=9), st.data())
def test_what_is_dealt_is_within_one_of_what_each_part_wants(sizes, data):
    """Whatever the sizes; and where nothing is dealt, no part may have had exactly what it wants by sums alone."""
    total = sum(sizes)
    first = data.draw(st.integers(0, total))
    second = data.draw(st.integers(0, total - first))
    wanted = [first, second, total - first - second]
    dealt = _deal(sizes, wanted)
    if dealt is None:
        states = {(0, 0)}
        for size in sizes:
            states |= {(a + size, b) for a, b in states} | {(a, b + size) for a, b in states}
        assert (first, second) not in states or len(sizes) > 6  # not all orders are tried
    else:
        got = [sum(size for size, part in zip(sizes, dealt, strict=True) if part == p) for p in range(3)]
        assert all(abs(g - w) <= 1 for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled):
    """It rests only while the rows are made."""
    try:
        if not enabled:
            gc.disable()
        plan_of({f"{label}/{n}.jpg": f"{label} {n}" for label in ("cat", "dog") for n in range(6)}, valid=2)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
