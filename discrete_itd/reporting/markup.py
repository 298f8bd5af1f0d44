"""HTML from text that anyone may have written, and pictures within it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from discrete_itd.reporting.figures import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VOID = ("meta", "link")  # elements without an end
PARTS = re.compile(r".+?[_/|]+(?=\w)|.+", re.DOTALL)
REFERENCE = re.compile(r"url\(#")
SALT = "discrete_itd"  # of matplotlib's ids, which are random without one


class Markup(str):
    """A string that is HTML, and is not escaped again."""

    __slots__ = ()


def tag(name: str, *children: object, attributes: Mapping[str, str] | None = None) -> Markup:
    """An HTML element; children that are no :class:`Markup` are text, and escaped.

    Examples
    --------
    >>> tag("p", "1 < 2 ", tag("b", "yes"), attributes={"class": "note"})
    '<p class="note">1 &lt; 2 <b>yes</b></p>'
    """
    head = "".join(f' {key}="{escape(value)}"' for key, value in (attributes or {}).items())
    if name in VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{join(children)}</{name}>")


def join(children: Sequence[object]) -> Markup:
    """Elements and text, one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(readable(c)) for c in children))


def breakable(text: str) -> Markup:
    """A text whose long names may break after their underscores and similar marks."""
    return Markup("<wbr>".join(escape(part) for part in PARTS.findall(text)))


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int]
) -> Markup:
    """A table whose first column names the rows; the columns at ``numbers`` are aligned as such."""

    def kind(i: int) -> dict[str, str]:
        return {"class": "number"} if i in numbers else {}

    top = [tag("th", h, attributes={"scope": "col", **kind(i)}) for i, h in enumerate(head)]
    body = [
        tag(
            "tr",
            tag("th", row[0], attributes={"scope": "row"}),
            *(tag("td", cell, attributes=kind(i)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    whole = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *top)), tag("tbody", *body)
    )
    # a wide table scrolls by itself, also by keyboard, and leaves the page as it is
    around = {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": caption}
    return tag("div", whole, attributes=around)


def picture(ax: Axes, name: str, label: str) -> Markup:
    """The figure of matplotlib axes as inline SVG, its words as text.

    Parameters
    ----------
    ax : Axes
    name : str
        Put before all ids within, so that those of several pictures on a page differ.
    label : str
        What the picture shows, for those who do not see it.
    """
    import matplotlib

    file = io.BytesIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": SALT}),
        warnings.catch_warnings(),
    ):
        # whether matplotlib's font has a letter does not matter: the reader's fonts show it
        warnings.filterwarnings("ignore", r"Glyph \d+")
        ax.get_figure(root=True).savefig(file, format="svg", transparent=True)  # pyright: ignore
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _plain(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _plain(element.tag)
        element.attrib = {
            _plain(k): _renamed(_plain(k), v, name) for k, v in element.attrib.items()
        }
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _plain(name: str) -> str:
    """A name without its namespace, which a page of HTML does not need."""
    return name.rpartition("}")[2]


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}"
    return REFERENCE.sub(f"url(#{name}-", value)
