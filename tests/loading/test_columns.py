"""Columns come out alike from every kind of table."""

from pathlib import Path

import pytest

from layerkit.loading.columns import column, is_saved_split, read_table
from layerkit.splitting import Split, SplitRow


def test_csv_columns_are_numbers_only_where_all_values_are(tmp_path: Path) -> None:
    """Named columns stay text, empty fields are None, blank lines are passed over."""
    file = tmp_path / "t.csv"
    file.write_text("id,whole,part,mixed,empty\n01,1,0.5,3,\n\n1,-2,1e3, 4-door ,\n", encoding="utf-8")
    table = read_table(file, text={"id"})
    assert table == {
        "id": ["01", "1"],
        "whole": [1, -2],
        "part": [0.5, 1000.0],
        "mixed": ["3", "4-door"],
        "empty": [None, None],
    }
    assert column(table, "empty", may_be_empty=True) == [None, None]
    with pytest.raises(ValueError, match="'empty' has no value in 2 of 2 rows, row 1 first"):
        column(table, "empty")


def test_saved_splits_are_known_by_their_first_line(tmp_path: Path) -> None:
    """A table of the user's own with the same columns and one more is no saved split."""
    split = Split((SplitRow("a/1.png", "a", "train"), SplitRow("b/1.png", "b", "valid")))
    split.to_csv(tmp_path / "split.csv")
    assert is_saved_split(tmp_path / "split.csv")
    assert read_table(split)["part"] == ["train", "valid"]
    (tmp_path / "own.csv").write_text("path,label,part,group,hash,age\n")
    assert not is_saved_split(tmp_path / "own.csv")
    assert not is_saved_split(tmp_path / "nowhere.csv")
    assert not is_saved_split({"path": []})
