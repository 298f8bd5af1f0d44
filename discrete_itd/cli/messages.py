"""Output of the command: notes, errors, results and numbers; importing it needs neither torch nor pandas."""

from __future__ import annotations

import math
import sys

STANDARD = "-"  # the standard input or output, in place of a file's name


class UserError(ValueError):
    """An error that the user can correct; its text is the one line that is printed."""


def note(text: str) -> None:
    """Print a remark on stderr, on one line."""
    print(f"discrete-itd: note: {' '.join(text.split())}", file=sys.stderr)


def shown(table: str) -> str:
    """The path of a table, or what stands for the standard input."""
    return "the standard input" if table == STANDARD else table


def say(out: str | None, text: str) -> None:
    """Print a result: on stderr if ``out`` is the standard output, where the table goes."""
    print(text, file=sys.stderr if out == STANDARD else sys.stdout)


def one_line(error: Exception) -> str:
    """The text of an error on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def plus_minus(mean: float, stderr: float) -> str:
    """A mean in nats with its standard error, if there is one."""
    return f"{mean:.3f} nats" if math.isnan(stderr) else f"{mean:.3f} ± {stderr:.3f} nats"


def percent(share: float) -> str:
    """A share in percent, distinct from 0 if it is; nothing if it is not known."""
    if math.isnan(share):
        return ""
    return "<0.1%" if 0 < share < 5e-4 else f"{share:.1%}"
