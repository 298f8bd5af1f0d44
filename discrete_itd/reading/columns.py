"""Columns of text, read by the first reader that takes them: dates, numbers, or times of day and durations.

A column of text is numbers or times if all its cells are, in one notation, but for one cell or five in a thousand
(:func:`most_unreadable`), which are unreadable; else it stays text. Each reader (:data:`READERS`) says in its file
which texts it takes. Here, what all have in common:

- Training takes unreadable cells for missing; in a new row both the value and whether it is missing are unknown, and
  summed out. :class:`~discrete_itd.encoders.rows.Rows` have their text, and a warning names it.
- Words like "NA" are missing cells where all others are numbers or times, and so are one to three words of any kind
  that are not rare, where there are more than twenty different numbers or times: "n/s", "Fel", "-". So are errors of
  spreadsheets that are no rarer, and dates that stand for none.
- Ambiguous text is not parsed: a warning is given once, and an option specifies the notation.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import compress
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from discrete_itd.reading.frames import holding_missing
from discrete_itd.reading.notation import NOTATIONS, Asked, Notation, Refusal
from discrete_itd.reading.numbers import BOUNDED, NumberNotation, in_two_units, with_a_unit
from discrete_itd.reading.text import (
    FEW_VALUES,
    ISO_DATE,
    LEADING_ZERO,
    MOST_NAMED,
    TRUTHS,
    WHOLE,
    denotes_missing,
    floats_of,
    most_unreadable,
    quoted,
    times_of,
)
from discrete_itd.reading.times import DateNotation, DurationNotation
from discrete_itd.validation import advice, warn_of_column

# the readers, and what a text is called that is nearly theirs; the first that takes a column reads it
READERS: dict[type[Notation], str] = {
    DateNotation: "dates",
    NumberNotation: "numbers",
    DurationNotation: "times of day or durations",
}
# text of a number with something before it, or behind it at a distance, or of several numbers with units
NUMBER_LIKE = re.compile(
    r"±\s*[-+]?\d+(?:[.,]\d+)?"
    r"|[-+]?\d+(?:[.,:]\d+)+\s?[^\W\d]{0,8}|[-+]?\d+\s[^\W\d]{1,8}|\d+\s?[^\W\d]{1,8}(?:\s\d+\s?[^\W\d]{1,8})+"
)
# errors of spreadsheets, and dates that stand for none
NO_VALUE = re.compile(r"#[^\W\d_]+(?:/[^\W_]+)?[!?]?")
NO_DATE = re.compile(
    r"0000-00-00.*|00[./-]00[./-](?:00)?00.*|[29]999[./-]12[./-]31.*|(?:31[./-]12|12/31)[./-][29]999.*"
)

MOST_GAP_WORDS = 6  # different words of a column of numbers or times that are missing cells


class Reading(NamedTuple):
    """Result of reading texts: their notation, or why they have none.

    ``gaps`` are the texts that are missing cells, ``words`` the unreadable ones and how often they occur, and ``notes``
    say what else was done to cells.
    """

    notation: Notation | None = None
    refusal: Refusal = Refusal()
    gaps: tuple[str, ...] = ()
    words: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()


def recognise(
    texts: Sequence[str], counts: np.ndarray, asked: Asked | None = None, *, plain: bool = False
) -> Reading:
    """The notation of different texts (K,), without words for missing cells, each of which occurs ``counts`` times.

    Few of the texts may be unreadable in it, see :func:`most_unreadable`. ``asked`` is the user's specification; with
    ``plain``, plain integers are numbers, too. The ``gaps`` are words that occur too often to be errors.
    """
    most = most_unreadable(int(counts.sum()))
    others = [text not in TRUTHS for text in texts]
    if len(texts) == 3 and sum(others) == 1 and counts[others].sum() <= most:
        word = texts[others.index(True)]
        return Reading(None, Refusal(f"truth values, but for {quoted(word)}", word))
    probe = texts[:: max(1, len(texts) // 50)]  # most columns of text have no digits
    if not any(any(map(str.isdigit, text)) for text in probe):
        return Reading(None, Refusal(unlike=texts[0]))
    unread: dict[str, np.ndarray] = {}
    for reader, what in READERS.items():
        answer = reader.take(texts, counts, asked, plain=plain)
        if isinstance(answer, Notation):
            return Reading(answer)
        if answer.unread is None:
            return Reading(None, answer)
        unread[what] = answer.unread
    what = min(unread, key=lambda name: counts[unread[name]].sum())
    is_bad = unread[what]
    words = np.flatnonzero(is_bad)[np.argsort(-counts[is_bad], kind="stable")[:MOST_GAP_WORDS]]
    words = words[counts[words] > most]
    is_kept = np.isin(np.arange(len(texts)), words, invert=True)
    are_few = counts[is_bad & is_kept].sum() <= most_unreadable(int(counts[is_kept].sum()))
    gaps = (*compress(texts, ~is_kept),)
    are_values = any(_is_value(word) or LEADING_ZERO.fullmatch(word) for word in gaps)
    if gaps and are_few and np.count_nonzero(~is_bad) > FEW_VALUES and not are_values:
        found = recognise([*compress(texts, is_kept)], counts[is_kept], asked, plain=True)
        if found.notation is not None:
            return found._replace(gaps=gaps)
    return Reading(None, _nearly(what, texts, counts, is_bad))


def _is_value(text: str) -> bool:
    """Whether a text is a number or a date in some notation."""
    ways = [DateNotation(day_first=True), DateNotation(day_first=False)]
    ways += [NumberNotation(decimal=mark) for mark in ".,"]
    return any(pd.notna(way.read_loosely([text]))[0] for way in ways)


def _nearly(what: str, texts: Sequence[str], counts: np.ndarray, is_bad: np.ndarray) -> Refusal:
    """The refusal of texts of which those that are not ``is_bad`` are of a kind; a reason if they are most."""
    total = counts.sum()
    share, other = 1 - counts[is_bad].sum() / total, texts[int(np.argmax(is_bad))]
    if what == "numbers" and len(texts) > FEW_VALUES and not is_bad.all():
        rows = ~is_bad, is_bad
        units = [with_a_unit([*compress(texts, own)], counts[own]) for own in rows]
        if all(units):
            return in_two_units(*units)
    is_plain = all(map(WHOLE.fullmatch, compress(texts, ~is_bad)))
    # the others are probably errors, or one word for missing cells
    is_nearly = share >= 0.9
    is_measure = not is_plain and bool(is_nearly or (is_bad.sum() == 1 and share > 0.5))
    if (is_measure or is_nearly) and not (is_plain and LEADING_ZERO.fullmatch(other)):
        but = quoted(other) if is_bad.sum() == 1 else f"text like {quoted(other)}"
        reason = f"{what}, but for {but} ({int(1000 * share) / 10:g}% are)"
        return Refusal(reason, other, is_measure)
    is_like = np.array([bool(NUMBER_LIKE.fullmatch(text.strip())) for text in texts])
    if len(texts) > FEW_VALUES and counts[is_like].sum() > total / 2:
        like = quoted(texts[int(np.argmax(is_like))])
        return Refusal(f"numbers or times, like {like}, which are not read", "", is_measure)
    return Refusal("", other, is_measure)


def read_texts(
    name: Hashable, texts: Sequence[str], counts: np.ndarray, asked: Asked | None, *, plain: bool
) -> tuple[Reading, np.ndarray] | None:
    """How the different texts (K,) of a column are read, and their values, if a reader takes them.

    None if all are words for missing cells. Warnings name words that are treated as missing cells, and bounds that are
    treated as numbers.
    """
    is_word = np.array([denotes_missing(text) for text in texts])
    is_error, is_far = (
        np.array([bool(kind.fullmatch(text)) for text in texts]) for kind in (NO_VALUE, NO_DATE)
    )
    if counts[is_error].sum() > most_unreadable(int(counts[~is_word].sum())):
        is_far |= is_error
    is_known = ~(is_word | is_far)
    if not is_known.any():
        return None
    plain = plain or bool(is_far.any())
    reading = recognise([*compress(texts, is_known)], counts[is_known], asked, plain=plain)
    notation = reading.notation
    if notation is None:
        return reading, np.zeros(0)
    gaps = (*reading.gaps, *compress(texts, is_far))
    is_gap = is_word | np.isin(texts, gaps)
    if is_gap.any():
        note = (
            f"{_cells(texts, counts, is_gap)} taken as missing, as all others are {notation.plural}"
        )
        if gaps:
            option = text_option(name)
            note += f"; if {quoted(gaps[0])} means something, say that it is text with {option}"
        topic = "words that may mean something" if gaps else "words for missing cells"
        warn_of_column(name, note, topic)
    values = np.where(is_gap, notation.read([""]), notation.read(texts))
    is_bound = np.array([bool(BOUNDED.fullmatch(text)) for text in texts]) & ~pd.isna(values)
    notes: list[str] = []
    if isinstance(notation, NumberNotation) and is_bound.any():
        what = "taken as the numbers that are the bounds, or between them"
        warn_of_column(name, f"{_cells(texts, counts, is_bound)} {what}", "bounds")
        notes.append(f"{_n_cells(int(counts[is_bound].sum()))} {what}")
    bad = np.flatnonzero(pd.isna(values) & ~is_gap)
    if len(bad):
        notes.append(f"{_n_cells(int(counts[bad].sum()))} unreadable, taken as missing")
    words = {texts[i]: int(counts[i]) for i in bad.tolist()}
    all_gaps = (*gaps, *compress(texts, is_gap & ~np.isin(texts, gaps)))
    return Reading(notation, gaps=all_gaps, words=words, notes=(*notes,)), values


def _n_cells(n: int) -> str:
    return f"{n} cell{'s' * (n > 1)}"


def _cells(texts: Sequence[str], counts: np.ndarray, chosen: np.ndarray) -> str:
    """The chosen ones of different texts (K,) for a note, with the number of their cells."""
    named = [quoted(text) for text in compress(texts, chosen)]
    return f"{first_of(named, ', ')} ({_n_cells(int(counts[chosen].sum()))})"


def first_of(parts: Sequence[str], mark: str) -> str:
    """The first parts of a list, and how many more there are."""
    more = f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else ""
    return mark.join(parts[:MOST_NAMED]) + more


def typed(
    cells: pd.Series, *, decimal: str = ".", dates: bool = True
) -> tuple[pd.Series, str, tuple[str, ...]]:
    """A column of text as plain numbers, booleans or ISO times if all of it is; else unchanged.

    Words like "NA" are missing among these; the second result says so, and the third are they. Few other texts, see
    :func:`most_unreadable`, stay text among numbers and times. With a decimal comma, plain numbers are integers.
    Numbers some of which begin with a zero, like postal codes, stay text.
    """
    codes, distinct = pd.factorize(cells)
    texts = pd.Series(distinct, dtype=object)
    is_word = texts.map(denotes_missing).to_numpy(dtype=bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    what, found = _plain(cast(pd.Series, texts[~is_word]), counts[~is_word], decimal, dates)
    if len(texts) and not what:
        return cells, "", ()
    any_missing = len(found) < len(texts) or bool((codes < 0).any())
    values = found.astype(holding_missing(found.dtype, any_missing)).reindex(codes)
    values = values.set_axis(cells.index)
    is_other = np.append(~is_word & ~texts.index.isin(found.index), False)[codes]
    if is_other.any():
        values = values.astype(object).where(~is_other, cells)
    words, n = (*texts[is_word],), int(counts[is_word].sum())
    named = f"{', '.join(map(repr, words))} ({_n_cells(n)})"
    return values, f"{named} taken as missing, as all others are {what}" if n else "", words


def _plain(
    texts: pd.Series, counts: np.ndarray, decimal: str, dates: bool
) -> tuple[str, pd.Series]:
    """The kind of texts (K,) in the notation of Python and ISO 8601, and the values of those that are of it.

    The kind is empty if the texts are mixed, but for few that are no numbers or dates in any notation.
    """
    most, numbers = most_unreadable(int(counts.sum())), floats_of(texts.to_numpy())
    none = "", pd.Series(dtype=float)

    def are_few(others: np.ndarray) -> bool:
        few = counts[others].sum() <= most and not others.all()
        return bool(few) and not any(map(_is_value, texts[others]))

    known = ~np.isnan(numbers)
    if are_few(~known) and not any(map(LEADING_ZERO.fullmatch, texts)):
        found = pd.Series(numbers[known], texts.index[known])
        if all(text.strip(" +-").isdecimal() for text in texts[known]):
            with suppress(OverflowError, ValueError):  # of more digits than Python reads
                found = cast(pd.Series, texts[known]).map(int).astype(np.int64)
        elif decimal == ",":
            return none
        return "numbers", found
    if len(texts) and texts.isin(TRUTHS).all():
        return "truth values", texts.map(TRUTHS).astype(bool)
    known = texts.str.match(ISO_DATE).to_numpy(dtype=bool)
    days = cast(pd.Series, texts[known])
    zoned = days.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$")
    is_plain = zoned.nunique() == 1 and not any(map(NO_DATE.match, days))
    if dates and is_plain and are_few(~known):
        dtype = pd.DatetimeTZDtype("us", "UTC") if zoned.iloc[0] else np.dtype("M8[us]")
        found = times_of(days.to_numpy(), dtype).set_axis(days.index)
        return none if found.isna().any() else ("dates", found)
    return none


def tell(name: Hashable, refusal: Refusal) -> None:
    """Warn that a column of text is ambiguous, naming the options that specify its notation."""
    reason, word = refusal.reason, refusal.unlike
    if refusal.options:
        kind = [way for way in NOTATIONS if way in refusal.options]
        python = " or ".join(f"column_types={{{name!r}: {{'notation': {way!r}}}}}" for way in kind)
        shell = " or ".join(f"--column {name}={way}" for way in kind)
        ways = f"say which, with {advice(python, shell)}"
    else:
        keeps = text_option(name)
        gap = advice(f"replace {quoted(word)} by None", f"give --csv {shlex.quote(f'na={word}')}")
        clean = f"{gap} where a cell is missing, clean it" if word else "make its cells alike"
        ways = f"{clean}, or say that it is text with {keeps}"
    topic = "either" if refusal.options else "nearly"
    warn_of_column(name, f"taken as text, though it looks like {reason}; {ways}", topic)


def settled(columns: Iterable[Notation | None], *, any_points: bool) -> set[Asked]:
    """The mark of numbers and the order of dates on which all columns of a table agree whose notation is known.

    ``any_points`` says that others have numbers with a decimal point.
    """
    ways: set[Any] = {column.way for column in columns if column is not None}
    ways |= {"decimal-point"} if any_points else set()
    pairs: list[set[Asked]] = [{*NOTATIONS[:2]}, {*NOTATIONS[2:]}]
    return {way for pair in pairs if len(pair & ways) == 1 for way in pair & ways}


def text_option(name: Hashable) -> str:
    """The option by which a column is text."""
    shell = shlex.quote(f"{name}=nominal")
    return advice(f"column_types={{{name!r}: 'nominal'}}", f"--column {shell}")
