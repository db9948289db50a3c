"""A table becomes loaders: numbers, classes, several labels, several targets, split by part or by plan."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from layerkit.errors import LayerkitWarning, SplitError
from layerkit.loading import Loaders, table_loaders
from layerkit.presets import Preset
from layerkit.splitting import plan_split

NAMES = [f"photos/{n:02}.png" for n in range(20)]
KINDS = ["dog" if n % 2 else "cat" for n in range(20)]
PARTS = ["train"] * 12 + ["val"] * 6 + ["test"] * 2


@pytest.fixture
def root(tmp_path: Path, picture: Callable[[Path, int], Path]) -> Path:
    """Make 20 pictures."""
    for n, name in enumerate(NAMES):
        picture(tmp_path / "data" / name, n)
    return tmp_path / "data"


def table(**columns: list) -> dict[str, list]:
    return {"path": NAMES, **columns}


def loaders(columns: Any, root: Path, **options: Any) -> Loaders:
    return table_loaders(
        columns, root, **{"preset": Preset(16), "batch_size": 4, "augment": "none", **options}
    )


def targets_of(loader: Any) -> torch.Tensor:
    return torch.cat([targets for _, targets in loader])


def as_csv(columns: dict[str, list], file: Path, encoding: str = "utf-8") -> Path:
    with file.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


SOURCES: dict[str, Callable[[dict, Path], Any]] = {
    "mapping": lambda columns, folder: columns,
    "frame": lambda columns, folder: pd.DataFrame(columns),
    "csv": lambda columns, folder: as_csv(columns, folder / "table.csv"),
    "csv as str": lambda columns, folder: str(as_csv(columns, folder / "table.csv", "utf-8-sig")),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_text_becomes_classes(root: Path, tmp_path: Path, source: Callable) -> None:
    """Indices into the sorted names, the same from every kind of table."""
    data = loaders(source(table(label=KINDS, part=PARTS), tmp_path), root, part="part")
    assert data.classes == ["cat", "dog"]
    assert data.valid.dataset.paths == [root / name for name in NAMES[12:18]]
    assert targets_of(data.valid).tolist() == [0, 1] * 3
    assert targets_of(data.valid).dtype == torch.int64
    assert data.test is not None
    assert len(data.test.dataset) == 2


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_numbers_stay_numbers(root: Path, tmp_path: Path, source: Callable) -> None:
    """Fractions come as float32, whole numbers as int64."""
    columns = table(angle=[n / 4 for n in range(20)], count=list(range(20)), part=PARTS)
    data = loaders(source(columns, tmp_path), root, target="angle", part="part")
    assert data.classes is None
    assert torch.equal(targets_of(data.valid), torch.arange(12, 18) / 4)
    data = loaders(source(columns, tmp_path), root, target="count", part="part")
    assert torch.equal(targets_of(data.valid), torch.arange(12, 18))


def test_several_columns_are_several_numbers(root: Path) -> None:
    """(N, T) in the order that was asked for; 0 and 1 alone are labels."""
    columns = table(
        x=list(range(20)), y=[n / 2 for n in range(20)], hat=[0, 1] * 10, tie=[1] * 20, part=PARTS
    )
    data = loaders(columns, root, target=["y", "x"], part="part")
    assert torch.equal(targets_of(data.test), torch.tensor([[9.0, 18.0], [9.5, 19.0]]))
    assert data.classes is None
    data = loaders(columns, root, target=["hat", "tie"], part="part")
    assert torch.equal(targets_of(data.test), torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert data.classes == ["hat", "tie"]


def test_one_column_with_a_separator_is_several_labels(root: Path, tmp_path: Path) -> None:
    """Names are sorted and trimmed, and an empty value means that none applies."""
    tags = ["sea | sun", "sun", "", "sea"] * 5
    data = loaders(
        as_csv(table(tags=tags, part=PARTS), tmp_path / "t.csv"), root, target="tags", sep="|", part="part"
    )
    assert data.classes == ["sea", "sun"]
    assert targets_of(data.valid).tolist() == [[1, 1], [0, 1], [0, 0], [1, 0], [1, 1], [0, 1]]
    assert data.train.dataset.transform.augment == "none"


def test_a_dict_names_several_targets(root: Path) -> None:
    """Each has its own kind; classes is a dict too, and sep leaves numbers alone."""
    columns = table(x=[n / 2 for n in range(20)], y=[0.5] * 20, walks=[0, 1] * 10, kind=KINDS, part=PARTS)
    target = {"place": ["x", "y"], "pedestrian": "walks", "kind": "kind"}
    data = loaders(columns, root, target=target, part="part")
    assert data.classes == {"place": None, "pedestrian": None, "kind": ["cat", "dog"]}
    pictures, targets = next(iter(data.test))
    assert pictures.shape == (2, 3, 16, 16)
    assert {name: value.tolist() for name, value in targets.items()} == {
        "place": [[9.0, 0.5], [9.5, 0.5]],
        "pedestrian": [0, 1],
        "kind": [0, 1],
    }
    columns["kind"] = ["cat | small", "cat"] * 10
    data = loaders(columns, root, target={"walks": "walks", "kind": "kind"}, part="part", sep="|")
    assert data.classes == {"walks": None, "kind": ["cat", "small"]}


@pytest.mark.parametrize("tags", [["cat", "cat ", "dog", "dog"] * 5, ["Smith, John", "Roe, Jane"] * 10])
def test_labels_that_merely_hold_a_sign_are_left_alone(root, tags) -> None:
    """Neither blanks nor a comma within a name make several labels of one."""
    loaders(table(tags=tags, part=PARTS), root, target="tags", part="part")


@pytest.mark.parametrize(
    ("tags", "sep", "message"),
    [
        (
            ["sun|sea", "sun", "sea|sun|sail", "sail|sun", "sea"] * 4,
            None,
            r"pass sep='\|' and train with Multilabel",
        ),
        (["sun|sea", "sun", "", "sea"] * 5, ";", r"`sep` is ';', which no target holds, such as 'sun\|sea'"),
    ],
)
def test_a_separator_that_was_forgotten_or_is_another(root, tags, sep, message) -> None:
    """Combinations would become classes of their own, without a word."""
    with pytest.warns(LayerkitWarning, match=message):
        loaders(table(tags=tags, part=PARTS), root, target="tags", sep=sep, part="part")


@pytest.mark.parametrize(
    ("target", "augment", "said"),
    [
        ("kind", "standard", False),
        ("number", "color", True),
        ("walks", "standard", False),
        (["number", "walks"], "color", True),
        ({"a": "kind", "b": "number"}, "color", True),
        ({"a": "kind", "b": "walks"}, "standard", False),
    ],
)
def test_the_default_augment_for_numbers_moves_nothing(
    root: Path, target: Any, augment: str, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, on stderr; what is asked for by name is taken without a word."""
    columns = table(kind=KINDS, number=list(range(20)), walks=[0, 1] * 10, part=PARTS)
    data = loaders(columns, root, target=target, part="part", augment=None)
    assert data.train.dataset.transform.augment == augment
    assert data.valid.dataset.transform.augment == "none"
    captured = capsys.readouterr()
    assert captured.err.count('augment="color": the targets are numbers') == int(said)
    assert captured.out == ""
    loaders(columns, root, target=target, part="part", augment="strong")
    assert capsys.readouterr().err == ""


def test_without_part_it_splits_as_plan_split_does(
    tmp_path: Path, picture: Callable[[Path, int], Path]
) -> None:
    """The same files, the same labels and the same seed give the same sides."""
    for n in range(20):
        picture(tmp_path / KINDS[n] / f"{n}.png", n)
    names = [f"{KINDS[n]}/{n}.png" for n in range(20)]
    split = plan_split(tmp_path, valid=0.3, test=2, seed=3)
    data = loaders({"path": names, "label": KINDS}, tmp_path, valid=0.3, test=2, seed=3)
    for part in ("train", "valid", "test"):
        expected = {row.path for row in split.rows if row.part == part}
        found = {path.relative_to(tmp_path).as_posix() for path in getattr(data, part).dataset.paths}
        assert found == expected


def test_yes_and_no_are_stratified(root: Path) -> None:
    """A column of 0 and 1 keeps its shares, as classes do."""
    data = loaders(table(walks=[1] * 5 + [0] * 15), root, target="walks", valid=4)
    assert sorted(targets_of(data.valid).tolist()) == [0, 0, 0, 1]


def test_groups_stay_on_one_side(root: Path, tmp_path: Path) -> None:
    """No patient is in two parts, and names such as 01 and 1 are two of them."""
    patients = [("01", "1", "2", "3", "4")[n % 5] for n in range(20)]
    file = as_csv(table(angle=[n / 3 for n in range(20)], patient=patients), tmp_path / "t.csv")
    data = loaders(file, root, target="angle", group="patient", valid=0.4)
    sides = [
        {patients[NAMES.index(path.relative_to(root).as_posix())] for path in loader.dataset.paths}
        for loader in (data.train, data.valid)
    ]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {"01", "1", "2", "3", "4"}


def test_a_split_not_quite_as_asked_warns_at_the_callers_line(root: Path) -> None:
    """Groups of four cannot give three."""
    columns = table(label=KINDS, angle=[0.5] * 19 + [0.2], burst=[n // 4 for n in range(20)])
    with pytest.warns(LayerkitWarning, match="valid has 4 pictures where 3 were asked for") as caught:
        table_loaders(
            columns, root, target="angle", group="burst", valid=3, preset=Preset(16), augment="none"
        )
    assert caught[0].filename == __file__


@pytest.mark.parametrize("kinds", [["cat", "dog"], ["0", "1"]])
def test_a_saved_split_feeds_the_loaders(
    tmp_path: Path, picture: Callable[[Path, int], Path], kinds: list[str]
) -> None:
    """As an object and as the file that to_csv wrote, without naming a column; labels stay text."""
    for n in range(20):
        picture(tmp_path / "source" / kinds[n % 2] / f"{n}.png", n)
    split = plan_split(tmp_path / "source", valid=0.25, test=0.1)
    split.to_csv(tmp_path / "split.csv")
    for source in (split, tmp_path / "split.csv", str(tmp_path / "split.csv")):
        data = loaders(source, tmp_path / "source")
        assert data.classes == kinds
        assert data.valid.dataset.paths == [
            tmp_path / "source" / row.path for row in split.rows if row.part == "valid"
        ]
        assert data.test is not None


def test_paths_written_on_windows_and_absolute_ones_are_found(root: Path) -> None:
    """Backslashes are read as slashes; an absolute path below the root is as good."""
    names = [name.replace("/", "\\") for name in NAMES[:10]] + [str(root / name) for name in NAMES[10:]]
    data = loaders({"path": names, "label": KINDS}, root)
    assert len(data.train.dataset) + len(data.valid.dataset) == 20


def test_a_word_for_none_is_a_class_among_words(root: Path) -> None:
    """Where nothing shows that numbers were meant, it is what the table says."""
    data = loaders(table(defect=["none" if n % 2 else "crack 1" for n in range(20)]), root, target="defect")
    assert data.classes == ["crack 1", "none"]
    several = table(x=[("1|2", "2", "none")[n % 3] for n in range(20)])
    assert loaders(several, root, target="x", sep="|").classes == ["1", "2", "none"]


BAD: dict[str, tuple[dict[str, list], dict, type[Exception], str]] = {
    "unknown column": (table(labels=KINDS), {}, ValueError, r"no column 'label'.*Did you mean 'labels'\?"),
    "unknown path": (
        {"file": NAMES, "label": KINDS},
        {},
        ValueError,
        r"no column 'path'; it has 'file', 'label'",
    ),
    "unknown group": (table(label=KINDS), {"group": "patient"}, ValueError, "no column 'patient'"),
    "empty value": (
        table(label=[*KINDS[:19], None]),
        {},
        ValueError,
        "no value in 1 of 20 rows, row 20 first",
    ),
    "text among numbers": (
        table(x=[1] * 20, y=KINDS),
        {"target": ["x", "y"]},
        ValueError,
        "'y' holds 'cat' in row 1",
    ),
    "a word for none among numbers": (
        table(x=["N/A" if n in (3, 7) else str(n) for n in range(20)]),
        {"target": "x"},
        ValueError,
        r"'x' holds numbers, and 'N/A' in 2 of 20 rows, row 4 first.*Fill them in",
    ),
    "infinite": (table(x=[float("inf")] * 20), {"target": "x"}, ValueError, "'x' holds inf in row 1"),
    "other part": (
        table(label=KINDS, part=["fit"] * 20),
        {"part": "part"},
        ValueError,
        "'part' holds 'fit'; expected",
    ),
    "no valid part": (
        table(label=KINDS, part=["train"] * 20),
        {"part": "part"},
        ValueError,
        "No row of the table belongs to valid",
    ),
    "missing file": (
        {"path": [*NAMES[:19], "photos/99.png"], "label": KINDS},
        {},
        FileNotFoundError,
        r"1 of 20 pictures in the table do not exist, such as .*99\.png",
    ),
    "twice": (
        {"path": [*NAMES[:19], NAMES[4]], "label": KINDS},
        {},
        ValueError,
        r"names photos/04\.png more than once",
    ),
    "outside": (
        {"path": [*NAMES[:19], "../x.png"], "label": KINDS},
        {},
        ValueError,
        "leads out of|do not exist",
    ),
    "one class": (
        table(label=["cat"] * 20),
        {},
        SplitError,
        "have the label 'cat'; expected two classes or more",
    ),
    "fraction": (table(label=KINDS), {"valid": 1.2}, ValueError, "1.2"),
    "no rows": ({"path": [], "label": []}, {}, ValueError, "The table has no rows"),
    "empty dict": (table(label=KINDS), {"target": {}}, ValueError, "`target` is an empty dict"),
    "empty list": (table(label=KINDS), {"target": []}, ValueError, "`target` is an empty list"),
    "no preset": (table(label=KINDS), {"preset": None}, ValueError, "expected exactly one of them"),
}


@pytest.mark.parametrize(("columns", "options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_tables_are_named(
    root: Path, columns: dict, options: dict, error: type[Exception], message: str
) -> None:
    """Each with the column, the value or the row, and what was expected."""
    with pytest.raises(error, match=message):
        loaders(columns, root, **options)


def test_paths_out_of_the_root_are_refused(root: Path, picture: Callable[[Path, int], Path]) -> None:
    """Also where the file is there."""
    outside = picture(root.parent / "secret.png", 1)
    for path in ("../secret.png", str(outside)):
        with pytest.raises(ValueError, match="leads out of"):
            loaders({"path": [*NAMES[:19], path], "label": KINDS}, root)


def test_missing_values_of_a_frame_are_named(root: Path) -> None:
    """NaN, None and pandas.NA alike."""
    for missing in (float("nan"), None, pd.NA):
        frame = pd.DataFrame(table(x=[*range(19), missing]))
        with pytest.raises(ValueError, match="'x' has no value in 1 of 20 rows, row 20 first"):
            loaders(frame, root, target="x")


def test_damaged_csv_files_are_named(root: Path, tmp_path: Path) -> None:
    """A missing file, a ragged row, another encoding, an empty file and another object."""
    with pytest.raises(FileNotFoundError, match=r"There is no table .*nowhere\.csv"):
        loaders(tmp_path / "nowhere.csv", root)
    file = tmp_path / "t.csv"
    file.write_text("path,label\na.png,cat,grey\n")
    with pytest.raises(ValueError, match=r"line 2 has 3 fields; expected 2.*Put quotes around"):
        loaders(file, root)
    file.write_text("path;height\na.png;1,5\n")
    with pytest.raises(ValueError, match=r"pass pandas.read_csv\(path, sep=';'\), with decimal=','"):
        loaders(file, root)
    file.write_bytes("path,label\na.png,Käse\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not in UTF-8"):
        loaders(file, root)
    file.write_text("")
    with pytest.raises(ValueError, match="no column 'path'"):
        loaders(file, root)
    with pytest.raises(TypeError, match="`table` is a list; expected the path of a CSV file"):
        loaders([{"path": "a.png"}], root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"path;kind": ["a.png;x"]}, r"one column 'path;kind', whose parts are separated by ';'; .* sep=';'"),
        ({0: ["a.png"]}, "has no column 'path'"),
        (
            {"path": ["a.png", "b.png"], "kind": ["0,5", "3"]},
            r"holds '0,5', a number with a decimal comma; .*decimal=','",
        ),
    ],
)
def test_what_another_country_writes_is_named(table, message, tmp_path):
    """Semicolons between columns, and commas in numbers."""
    for name in "ab":
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(ValueError, match=message):
        table_loaders(table, tmp_path, path="path", target="kind", preset=Preset(8))
