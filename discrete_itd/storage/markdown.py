"""Text of others within Markdown: the one place where names of columns, categories and files are made harmless."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

# no markup in any reading of Markdown, apart from links that readers make of bare addresses
PLAIN = re.compile(
    r"(?!.*www\.)[A-Za-z0-9 .,%+()=-]*(?:(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])[A-Za-z0-9 .,%+()=-]*)*"
)


def code(text: object) -> str:
    """Any text as a span of code on one line, in which nothing is markup.

    Characters that cannot be printed, like controls and changes of direction, are written as Python escapes.

    Examples
    --------
    >>> code("a`b")
    '``a`b``'
    """
    words = " ".join(str(text).split())
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in words
    )
    runs = re.findall("`+", shown)
    fence = "`" * (1 + max(map(len, runs), default=0))
    pad = " " if not shown or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def inline(text: object) -> str:
    """Any text on one line: as it is if there is no markup in it, else as code.

    Examples
    --------
    >>> inline("tree + mixture"), inline("<b>")
    ('tree + mixture', '`<b>`')
    """
    words = " ".join(str(text).split())
    return words if PLAIN.fullmatch(words) else code(words)


def table(frame: Any) -> list[str]:
    """The lines of a frame as a table."""
    rows = [list(frame.columns), *frame.itertuples(index=False)]
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return [lines[0], "|" + "---|" * frame.shape[1], *lines[1:]]


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    # a bar divides cells within code, too, unless there is a backslash, which is then not shown
    return inline(value).replace("\\|", "\\ |").replace("|", "\\|")
