import csv
import os

import pytest

from layerkit.errors import SplitError
from layerkit.splitting import Split, SplitRow, plan_split
from layerkit.splitting.table import destination_of

ROWS = (
    SplitRow("a/1.jpg", "a", "train", "g", "00ff"),
    SplitRow("a/2.jpg", "a", "valid"),
    SplitRow("b/1.jpg", "b", "train"),
    SplitRow("b/2.jpg", "b", "valid"),
    SplitRow("b/3.jpg", "b", "test"),
)


def test_counts_and_classes():
    """The table counts by part and class."""
    split = Split(ROWS)
    assert split.classes == ("a", "b")
    assert split.parts == ("train", "valid", "test")
    assert split.counts == {"train": {"a": 1, "b": 1}, "valid": {"a": 1, "b": 1}, "test": {"a": 0, "b": 1}}
    assert len(split) == 5


def test_repr_shows_the_shares():
    """The share of each part is shown for each class and for all."""
    assert repr(Split(ROWS)).split("\n") == [
        "Split of 5 pictures      train      valid       test",
        "a                    1 (50.0%)  1 (50.0%)   0 (0.0%)",
        "b                    1 (33.3%)  1 (33.3%)  1 (33.3%)",
        "all                  2 (40.0%)  2 (40.0%)  1 (20.0%)",
    ]


def test_csv_is_what_others_read(tmp_path):
    """The file has one header line and a row for each picture."""
    Split(ROWS).to_csv(tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        records = list(csv.reader(file))
    assert records[:3] == [
        ["path", "label", "part", "group", "hash"],
        ["a/1.jpg", "a", "train", "g", "00ff"],
        ["a/2.jpg", "a", "valid", "", ""],
    ]
    assert Split.read_csv(tmp_path / "split.csv") == Split(ROWS)
    assert Split.read_csv(tmp_path / "split.csv", source=tmp_path).source == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["split.csv"]


def test_a_table_of_others_is_read(tmp_path):
    """Columns may stand in any order, group and hash may be missing, and val means valid."""
    (tmp_path / "t.csv").write_text(
        "\ufeffpart,path,label,x\nval,b.jpg,b,1\ntrain,a.jpg,a,2\n", encoding="utf-8"
    )
    assert Split.read_csv(tmp_path / "t.csv").rows == (
        SplitRow("a.jpg", "a", "train"),
        SplitRow("b.jpg", "b", "valid"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "has no column part"),
        ("path,label,part\na,b,dev\n", "line 2: the part is 'dev'; expected one of train, valid, test"),
        ("path,label,part\na,,train\n", "the path or the label is empty"),
        ("path,label,part\na,b\n", "line 2: the part is None"),
        ("path,label,part\na,b,train\na,b,valid\n", "names 'a' twice"),
        ("path,label,part\n../a,b,train\n", "could lead out of the source"),
        ("path,label,part\n/a,b,train\n", "could lead out of the source"),
        pytest.param(
            "path,label,part\nC:/a,b,train\n",
            "could lead out of the source",
            marks=pytest.mark.skipif(
                os.name != "nt", reason="a name like any other where there are no drives"
            ),
        ),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    """A table that cannot be right is refused with the line or the path."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SplitError, match=message):
        Split.read_csv(tmp_path / "t.csv")


def test_destinations():
    """The first folder is the class's own if it bears its name."""
    assert destination_of(SplitRow("a/x/1.jpg", "a", "valid")) == "valid/a/x/1.jpg"
    assert destination_of(SplitRow("x/1.jpg", "a", "test")) == "test/a/x/1.jpg"
    assert destination_of(SplitRow("a.1.jpg", "a", "train")) == "train/a/a.1.jpg"


def test_frames_take_the_rows(source):
    """Pandas makes a frame of the rows as they are."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(plan_split(source).rows)
    assert list(frame.columns) == ["path", "label", "part", "group", "hash"]
    assert len(frame) == 50
