"""A table's columns, wherever the table comes from."""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from layerkit.errors import suggestion
from layerkit.splitting import Split, SplitRow

Table = Mapping[str, list[Any]]


def read_table(table: Any, *, text: Collection[str] = ()) -> Table:
    """Give a table's columns as lists, with None for an empty value.

    Parameters
    ----------
    table : str, Path, data frame, mapping of columns, or Split
        A string or Path is a CSV file with a header.
    text : collection of str
        The columns of a CSV file that stay text, though all their values be numbers: ``007`` is a name there.

    Returns
    -------
    mapping of str to list
    """
    if isinstance(table, Split):
        return {name: [getattr(row, name) for row in table.rows] for name in SplitRow._fields}
    if isinstance(table, str | Path):
        columns = _read_csv(Path(table))
        return {name: values if name in text else _parse(values) for name, values in columns.items()}
    if isinstance(table, Mapping) or hasattr(table, "columns"):
        names = list(table) if isinstance(table, Mapping) else list(table.columns)
        return {str(name): _plain(table[name]) for name in names}
    raise TypeError(
        f"`table` is a {type(table).__name__}; expected the path of a CSV file, a data frame, a mapping of "
        "columns, or a Split. Rows as a list of dicts go through pandas.DataFrame(rows)."
    )


def is_saved_split(table: Any) -> bool:
    """Tell whether this is a CSV file that `Split.to_csv` wrote, by its first line.

    Parameters
    ----------
    table : object
        What `table_loaders` was given.

    Returns
    -------
    bool
    """
    if not isinstance(table, str | Path) or not Path(table).is_file():
        return False
    with Path(table).open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(csv.reader(file), []) == list(SplitRow._fields)


def column(table: Table, name: str, *, may_be_empty: bool = False) -> list[Any]:
    """Look up a column.

    Parameters
    ----------
    table : mapping of str to list
        From `read_table`.
    name : str
        The column's name.
    may_be_empty : bool
        Whether values may be missing.

    Returns
    -------
    list

    Raises
    ------
    ValueError
        There is no such column, no row, or a value is missing.
    """
    if name not in table:
        only = str(next(iter(table), ""))
        mark = next((mark for mark in ";\t|" if mark in only), None) if len(table) == 1 else None
        if mark is not None:
            raise ValueError(
                f"The table has the one column {only!r}, whose parts are separated by {mark!r}; expected commas. Pass "
                f"pandas.read_csv(file, sep={mark!r}) instead of the file."
            )
        raise ValueError(
            f"The table has no column {name!r}; it has {', '.join(map(repr, table))}."
            f"{suggestion(name, table)} Name the one that is meant."
        )
    values = table[name]
    if not values:
        raise ValueError("The table has no rows; expected one a picture. Check the file.")
    empty = [row for row, value in enumerate(values) if value is None]
    if empty and not may_be_empty:
        raise ValueError(
            f"The column {name!r} has no value in {len(empty)} of {len(values)} rows, row {empty[0] + 1} first (not "
            "counting the header); expected one in each. Fill them in, or leave the rows out; where a picture may have "
            "several labels or none, pass sep='|'."
        )
    return values


_SEMICOLONS = (
    "Its fields seem to be separated by semicolons: pass pandas.read_csv(path, sep=';'), with decimal=',' where "
    "numbers have commas."
)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}; expected a CSV file. Check the path.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); expected a CSV file in UTF-8. "
            "Save it anew, or pass pandas.read_csv(path, encoding=...)."
        ) from error
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {line} has {len(row)} fields; expected {len(names)}, as in the first line. "
                f"{_SEMICOLONS if ';' in names[0] else 'Put quotes around a field that holds a comma.'}"
            )
    return {name: [row[place].strip() or None for _, row in rows] for place, name in enumerate(names)}


def _parse(values: list[str | None]) -> list[Any]:
    """Turn a column of a CSV file into numbers, where every value is one."""
    for kind in (int, float):
        try:
            return [None if value is None else kind(value) for value in values]
        except ValueError:
            continue
    return values


def _plain(values: Any) -> list[Any]:
    """Give a column of a data frame as Python's own objects."""
    present = values.notna().tolist() if hasattr(values, "notna") else [True] * len(values)
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    # A NaN is the one value that differs from itself.
    return [value if there and value == value else None for value, there in zip(plain, present, strict=True)]
