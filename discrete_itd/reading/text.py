"""Cells of text: characters of any script, words for missing cells, and what Python and ISO 8601 read and write."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.reading.frames import EXACT_BELOW, time_unit, time_zone
from discrete_itd.validation import warn

SPACES = " \u00a0\u2007\u2009\u202f"  # those that do not break, or are narrow, among them
ASCII_DIGITS = "0123456789"
OTHER_DIGIT = re.compile(r"(?![0-9])\d")  # of a script other than ASCII
# characters of full width, and Arabic marks, as those of ASCII
SAME_CHARACTER = {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
SAME_CHARACTER |= dict(zip("٫٬٪", ".,%", strict=True))
OTHER_CHARACTER = re.compile(rf"{OTHER_DIGIT.pattern}|[{''.join(SAME_CHARACTER)}]")
TRUTHS = {w: w.lower() == "true" for w in ("True", "TRUE", "true", "False", "FALSE", "false")}
GAP_WORDS = ("", "na", "n/a", "nan", "nat", "null", "none", "#n/a", "#na", "<na>")  # in lower case
WHOLE = re.compile(r"\s*\d+\s*", re.ASCII)
HIDDEN_SPACE = re.compile(r"(?<![^ ]) | \Z")  # at an end, or beside another one
LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)  # of a code
ISO_DATE = r"\d{4}-\d\d-\d\d"  # at the start of an ISO date or time
MOST_NAMED = 3  # most texts of a column, and most columns of one sort, that a warning names
FEW_VALUES = 20  # different texts or numbers are categories, whatever they are like

Words = Mapping[Hashable, Mapping[str, int]]  # how often each unreadable text occurs, by column

_collected: ContextVar[dict[Hashable, Counter[str]] | None] = ContextVar("collected", default=None)


def most_unreadable(n_cells: int) -> int:
    """How many of ``n_cells`` of a column of numbers or times may be unreadable in training: one, or .5 %."""
    return min(max(1, int(0.005 * n_cells)), max(0, n_cells - 1) // 2)


def quoted(value: Any) -> str:
    """The value of a cell for people: text in quotation marks, with spaces of all kinds alike, controls escaped."""
    if not isinstance(value, str):
        return repr(value)
    return repr("".join(" " if unicodedata.category(c) == "Zs" else c for c in value))


def visible(text: object) -> str:
    r"""Any text on one line, as itself but for what people would not see, which is written as Python escapes.

    Single spaces between words are seen; controls, changes of direction and all other spaces are not. So different
    texts without backslashes stay different.

    Examples
    --------
    >>> print(visible("a b"), visible(" x"), visible("a  b"), visible("a\n"))
    a b \x20x a \x20b a\n
    """
    escaped = (
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text)
    )
    return HIDDEN_SPACE.sub(r"\\x20", "".join(escaped))


def denotes_missing(text: str) -> bool:
    """Whether a text among numbers or times denotes a missing cell."""
    return text.strip().lower() in GAP_WORDS


def western(text: str) -> str:
    """Text without spaces around it, with digits of any script, and full-width characters, as those of ASCII."""
    text = text.strip()
    if text.isascii():
        return text
    return OTHER_CHARACTER.sub(lambda c: SAME_CHARACTER.get(c[0]) or str(int(c[0])), text)


def digits_of(texts: Sequence[str]) -> str:
    """The digits from zero on, point and comma, of texts most of whose digits are not those of ASCII; else empty."""
    text = "".join(texts)
    others = [] if text.isascii() else OTHER_DIGIT.findall(text)
    if 2 * len(others) <= sum(map(str.isdecimal, text)):
        return ""
    zero = ord(others[0]) - int(others[0])
    marks = (next((c for c in text if SAME_CHARACTER.get(c, c) == mark), mark) for mark in ".,")
    return "".join([*map(chr, range(zero, zero + 10)), *marks])


def read_plainly(texts: Sequence[str], family: str, dtype: Any) -> np.ndarray:
    """Values of texts in plain notation: float64, datetime64 (of UTC) or timedelta64; missing for other texts."""
    cells = np.array(texts, dtype=object)
    if family == "number":
        return floats_of(cells)
    if family == "timedelta":  # "1 days 02:00:00", but no number without a unit
        has_unit = np.array([bool(np.isnan(number_of(text))) for text in texts], dtype=bool)
        found = pd.to_timedelta(pd.Series(cells, dtype=object).where(has_unit), errors="coerce")
        return found.to_numpy()
    times = times_of(cells, dtype)
    return (times.dt.tz_convert(None) if time_zone(times.dtype) else times).to_numpy()


def floats_of(cells: np.ndarray) -> np.ndarray:
    """The numbers of texts; NaN for other texts."""
    together = "".join(cells)
    if together.isascii() and "_" not in together:
        with suppress(ValueError):  # a word among them
            return cells.astype(float)
    return np.array([number_of(text) for text in cells], dtype=float)


def number_of(text: str) -> float:
    """The number of a text, correctly rounded; NaN for other text."""
    if not text.isascii() or "_" in text:  # Python's own notation, not used in tables
        return np.nan
    try:
        return float(text)
    except ValueError:
        return np.nan


def whole_of(text: str, number: float) -> int | float:
    """The number as an integer if it is whole, exact even where floats are not."""
    if abs(number) < EXACT_BELOW:
        return int(number) if number == int(number) else number
    try:
        return int(text)
    except ValueError:
        return number


def times_of(cells: np.ndarray, dtype: Any) -> pd.Series:
    """The ISO dates and times of texts, with a time zone if the dtype has one (then UTC); NaT for other texts."""
    texts = pd.Series(cells, dtype=object)
    dates = texts.where(texts.str.match(ISO_DATE))
    # microseconds hold every year; pandas would choose a unit for all cells together
    unit = "ns" if time_unit(dtype) == "ns" else "us"
    try:
        found = pd.to_datetime(dates, format="ISO8601", errors="coerce", utc=True).dt.as_unit(unit)
    except pd.errors.OutOfBoundsDatetime:
        found = pd.Series(pd.NaT, index=dates.index, dtype=f"datetime64[{unit}, UTC]")
    for i in np.flatnonzero((found.isna() & dates.notna()).to_numpy()):
        with suppress(ValueError, OverflowError):
            found.iloc[i] = pd.to_datetime(dates.iloc[i], format="ISO8601", utc=True).as_unit(unit)
    return found if time_zone(dtype) else found.dt.tz_localize(None)


def as_text(values: pd.Series, *, days: bool = False) -> pd.Series:
    """Cells as a CSV has them, each by itself; with ``days``, times at the beginning of a day as dates."""
    # as Python's floats, small ones would have digits of their rounding
    if values.dtype.kind == "f":
        numbers = values.to_numpy()
        is_float = numbers.dtype == np.dtype(float)
        cells = map(repr, numbers.tolist()) if is_float else numbers.astype(str).tolist()
    else:
        cells = map(str, values.astype(object).tolist())
    texts = [cell if known else None for cell, known in zip(cells, values.notna(), strict=True)]
    if days:
        texts = [t and t.removesuffix(" 00:00:00") for t in texts]
    return pd.Series(texts, index=values.index, dtype=object)


@contextmanager
def collected() -> Iterator[dict[Hashable, Counter[str]]]:
    """Within the block, unreadable cells are counted by column and text, and nobody is warned of them."""
    found: dict[Hashable, Counter[str]] = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def tell_unreadable(words: Words, hints: Mapping[Hashable, str], *, fitted: bool = False) -> None:
    """Warn of unreadable cells, in one sentence, if there are any; ``hints`` explain the first text of a column.

    ``fitted`` says that they are of the training table.
    """
    if not words:
        return
    into = _collected.get()
    if into is not None:
        for name, counts in words.items():
            into.setdefault(name, Counter()).update(counts)
        return
    parts = []
    for name, counts in words.items():
        often = Counter(counts).most_common()
        texts = [quoted(text) + (f" ({n} times)" if n > 1 else "") for text, n in often]
        if len(texts) > MOST_NAMED:
            texts[MOST_NAMED:] = [f"{len(texts) - MOST_NAMED} other texts"]
        parts.append(f"{name!r} {', '.join(texts)}{hints.get(name, '')}")
    n = sum(sum(counts.values()) for counts in words.values())
    cells = f"{n} unreadable cell{'s' * (n > 1)}"
    what = "left out of the answers, as the columns are of numbers, dates or truth values"
    if fitted:
        what = "taken as missing, as all others of the column are numbers or dates"
    warn(f"{cells} {what}: {'; '.join(parts)}")
