"""Matplotlib figures as inline SVG, whose text stays text."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

REFERENCE = re.compile(r"url\(#")
SALT = "discrete_itd"  # for matplotlib's ids, which are random without one


def svg(ax: Axes, name: str, label: str) -> Markup:
    """The figure of matplotlib axes as an ``<svg>`` element.

    Parameters
    ----------
    ax : Axes
    name : str
        Prefix of all ids in the figure, so that several figures fit on one page.
    label : str
        What the figure shows, for screen readers.
    """
    import matplotlib
    from markupsafe import Markup

    file = io.BytesIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": SALT}),
        warnings.catch_warnings(),
    ):
        # a glyph that matplotlib's font lacks is found in the reader's fonts
        warnings.filterwarnings("ignore", r"Glyph \d+")
        ax.figure.savefig(file, format="svg", transparent=True)  # pyright: ignore
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _without_namespace(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _without_namespace(element.tag)
        attributes = [(_without_namespace(k), v) for k, v in element.attrib.items()]
        element.attrib = {k: _prefixed(k, v, name) for k, v in attributes}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _without_namespace(name: str) -> str:
    return name.rpartition("}")[2]


def _prefixed(key: str, value: str, name: str) -> str:
    """An attribute's value, with the prefix before an id or a reference to one."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}"
    return REFERENCE.sub(f"url(#{name}-", value)
