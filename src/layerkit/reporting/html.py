"""HTML that is safe by its making: text is escaped, and only what was built here is markup."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = Path(__file__).parent / "style.css"
_VOID = frozenset(("br", "img", "meta"))


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: str | None) -> Html:
    """Make an element; an underscore at the end of an attribute's name is left out."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    written = "".join(f' {name}="{escape(value)}"' for name, value in named.items() if value is not None)
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[Any]) -> Html:
    """Put markup and text one after another, the text escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, words: int = 1) -> Html:
    """Make a table in a box that scrolls where it is too wide; the first column names its rows.

    Parameters
    ----------
    caption : str
        What the table holds.
    columns : sequence of str
        Their headings.
    rows : iterable of sequences
        The cells.
    words : int
        How many columns, from the left, hold words; the others are set as numbers.

    Returns
    -------
    Html
    """
    kinds = [None if index < words else "number" for index in range(len(columns))]
    head = [
        element("th", column, scope="col", class_=kind) for column, kind in zip(columns, kinds, strict=True)
    ]
    body = []
    for first, *rest in rows:
        cells = [element("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    # Who has no mouse scrolls by keys, which needs the focus.
    return element("div", made, class_="scrolled", tabindex="0", role="region", aria_label=caption)


def details(summary: str, *children: Any) -> Html:
    """Fold away what not everybody wants to read."""
    return element("details", element("summary", summary), *children)


def page(title: str, intro: Sequence[Any], sections: Sequence[tuple[str, Sequence[Any]]]) -> str:
    """Make the whole page: a heading, a list of links, and the sections under their headings."""
    links = [
        element("li", element("a", heading, href=f"#section-{number}"))
        for number, (heading, _) in enumerate(sections, 1)
    ]
    body = [
        element("section", element("h2", heading, id=f"section-{number}"), *content)
        for number, (heading, content) in enumerate(sections, 1)
    ]
    header = element("header", element("h1", title), *intro)
    navigation = element("nav", element("ul", *links), aria_label="Sections")
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE.read_text(encoding="utf-8"))),
    ]
    whole = element(
        "html", element("head", *head), element("body", header, navigation, element("main", *body)), lang="en"
    )
    return f"<!doctype html>\n{whole}\n"
