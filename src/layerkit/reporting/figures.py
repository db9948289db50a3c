"""Figures as part of the page: vector graphics in the page's own colours, light and dark."""

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from layerkit.plots.axes import BLUE, GRAY
from layerkit.reporting.html import Html, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#010203"
"""A colour that no plot uses: it stands for the page's own in what matplotlib writes."""
_IN_PAGE = {_INK: "currentColor", BLUE: "var(--figure-blue)", GRAY: "var(--figure-gray)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # the page's text is text, in the reader's fonts
    "font.family": "sans-serif",
    "axes.edgecolor": GRAY,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}


def figure(draw: Callable[[], "Axes"], alt: str, caption: str = "", *, wide: bool = False) -> Html:
    """Draw axes into the page.

    Parameters
    ----------
    draw : callable
        Gives axes in a figure of their own.
    alt : str
        What the figure shows, for those who do not see it.
    caption : str
        What stands beneath.
    wide : bool
        Whether it takes the whole width, and scrolls where that is too little.

    Returns
    -------
    Html
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": alt}), warnings.catch_warnings():
        # Names in any script: that matplotlib lacks a glyph does not matter where the reader's font has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawn = draw().get_figure(root=True)
        assert drawn is not None
        drawn.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return element(
        "figure",
        _inline(text.getvalue(), alt),
        *([element("figcaption", caption)] if caption else []),
        class_="wide" if wide else None,
    )


def figures(*children: Html) -> Html:
    """Put figures side by side where there is room."""
    return element("div", *children, class_="figures")


def _inline(svg: str, alt: str) -> Html:
    """Keep the drawing alone, with a name for screen readers, and the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = f'<svg role="img" aria-label="{escape(alt)}" {box[0]}>{svg[svg.index(">") + 1 :]}'
    for color, own in _IN_PAGE.items():
        svg = svg.replace(color, own)
    return Html(svg.replace("xlink:href", "href").strip())
