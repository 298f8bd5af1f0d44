"""Text that is safe and short enough to print, and numbers as people read them."""

from __future__ import annotations

import math
import re

LONGEST = 27  # characters of a label in a figure
# control characters but for tab and line feed, surrogates, what XML forbids, and marks that reverse the text after them
UNREADABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def readable(text: object) -> str:
    """The text without characters that no document may contain, or that change the order of others."""
    return UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def shorten(text: object, longest: int = LONGEST) -> str:
    """The text on one line of at most ``longest`` characters."""
    line = " ".join(readable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def nats(value: float) -> str:
    """A number of nats with two decimals."""
    return f"{value:.2f} nats"


def count(n: int, what: str) -> str:
    """A number of things, with the plural where it is due."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """A share with as many digits as are needed to distinguish a small one from zero."""
    if 0 < share < 5e-5:
        return "<0.01 %"
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.3g} %"


def p_value(p: float) -> str:
    """A p-value; empty if it is NaN."""
    return "" if math.isnan(p) else f"{p:.2g}"


def seconds(duration: float) -> str:
    """A duration in seconds or minutes."""
    return f"{duration:.0f} s" if duration < 120 else f"{duration / 60:.0f} min"


def times(nats: float) -> str:
    r"""A difference of nats as a ratio of probabilities.

    Examples
    --------
    >>> times(0.0), times(4.39), times(12.0), times(100.0), times(-0.7)
    ('1.0 times', '81 times', '160\xa0000 times', '10^43 times', '0.5 times')
    """
    if abs(nats) > 14:
        return f"10^{round(nats / math.log(10))} times"
    ratio = math.exp(nats)
    if ratio < 10:
        return f"{ratio:.2g} times" if ratio < 1 else f"{ratio:.1f} times"
    return f"{round(ratio, 1 - math.floor(math.log10(ratio))):,.0f} times".replace(
        ",", "\N{NO-BREAK SPACE}"
    )
