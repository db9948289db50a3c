"""A report is a table and a summary."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from layerkit import FolderReport
from layerkit.checking import Finding
from layerkit.checking.kinds import KINDS
from layerkit.checking.report import finding

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "checking.md"


def report_of(*rows: Finding) -> FolderReport:
    return FolderReport(rows, Path("pets"), "parts", 1234, ("train", "valid"), ("cat", "dog"))


def test_nothing_found_is_said() -> None:
    """An empty report is ok, and two lines long."""
    report = report_of()
    assert report.ok
    assert report.counts == {}
    assert repr(report).splitlines() == [
        "FolderReport of pets: 1,234 pictures in 2 classes, split into train and valid",
        "nothing wrong was found",
    ]


def test_the_summary_names_the_first_few_of_each_kind() -> None:
    """Three names a kind, how many more there are, and how to mend it."""
    rows = [finding("truncated", f"train/cat/{n}.jpg", "cut") for n in range(1004)]
    report = report_of(*rows, finding("tiny", "train/dog/1.jpg", "3 x 4"))
    lines = repr(report).splitlines()
    assert lines[1] == "1004 errors, 1 warning".replace("1004", "1,004")
    assert lines[3].startswith("error:   1,004 truncated - ")
    assert lines[4:8] == [
        "         train/cat/0.jpg: cut",
        "         train/cat/1.jpg: cut",
        "         train/cat/2.jpg: cut",
        "         and 1,001 more",
    ]
    assert lines[8].startswith("         to mend it: ")
    assert lines[10].startswith("warning: 1 tiny - ")
    assert not report.ok


def test_names_cannot_disturb_the_terminal() -> None:
    """A line break in a name, or bytes that are no text, are written out."""
    text = repr(report_of(finding("loose", "a\nb.jpg"), finding("loose", "\udcff.jpg")))
    assert r"'a\nb.jpg'" in text
    assert r"'\udcff.jpg'" in text


def test_pandas_takes_a_report() -> None:
    """As it is, with the columns' names."""
    table = pd.DataFrame(report_of(finding("tiny", "train/dog/1.jpg", "3 x 4")))
    assert list(table.columns) == ["kind", "severity", "path", "detail", "remedy"]
    assert table.loc[0, ["kind", "severity", "path", "detail"]].tolist() == [
        "tiny",
        "warning",
        "train/dog/1.jpg",
        "3 x 4",
    ]


@pytest.mark.parametrize("name", ["train/a,b.jpg", "train/\udcff.jpg", "train/a\nb.jpg", "train/猫.jpg"])
def test_csv_keeps_every_name(tmp_path: Path, name: str) -> None:
    """A header and one row for each thing that was found."""
    report = report_of(finding("tiny", name, "3 x 4"))
    report.to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [report.rows[0]._asdict()]


@pytest.mark.parametrize("name", KINDS)
def test_the_reference_lists_every_kind(name: str) -> None:
    """With its severity, its meaning and its remedy."""
    kind = KINDS[name]
    row = f"| `{name}` | {kind.severity} | {kind.meaning} | {kind.remedy} |"
    assert row in PAGE.read_text(encoding="utf-8").splitlines()
