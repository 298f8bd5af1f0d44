"""Output of the command: notes, errors, results and numbers; importing it needs neither torch nor pandas."""

from __future__ import annotations

import math
import sys
from typing import TextIO

from discrete_itd.progress import harmless

STANDARD = "-"  # the standard input or output, in place of a file's name


class UserError(ValueError):
    """An error that the user can correct; its text is the one line that is printed."""


def note(text: str) -> None:
    """Print a remark on stderr, on one line."""
    put(f"discrete-itd: note: {' '.join(text.split())}", sys.stderr)


def put(text: str, file: TextIO | None = None) -> None:
    """Print a text, by default on the standard output.

    Names and values in it may be anybody's: see :func:`~discrete_itd.progress.harmless`.
    """
    file = sys.stdout if file is None else file
    if file is not None:  # it is not closed
        print(harmless(text, file), file=file)


def shown(table: str) -> str:
    """The path of a table, or what stands for the standard input."""
    return "the standard input" if table == STANDARD else table


def say(out: str | None, text: str) -> None:
    """Print a result: on stderr if ``out`` is the standard output, where the table goes."""
    put(text, sys.stderr if out == STANDARD else sys.stdout)


def counted_rows(n: int) -> str:
    """A number of rows in words."""
    return f"{n} row{'s' * (n != 1)}"


def one_line(error: Exception) -> str:
    """The text of an error on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def percent(share: float) -> str:
    """A share in percent, distinct from 0 if it is; nothing if it is not known."""
    if math.isnan(share):
        return ""
    return "<0.1%" if 0 < share < 5e-4 else f"{share:.1%}"
