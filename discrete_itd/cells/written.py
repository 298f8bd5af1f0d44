"""How the cells of a column are written, and what those mean that are written otherwise than its others.

A column has one notation. Numbers have one text before and after them, or none where several compete (*12.0 oz*, *12.0
oz.*, *12.0 ounce*), but for the sign of another currency, which is no notation; dates have one order of day, month and
year. A missing cell is empty: it is no word among numbers, no number far from all others (-1, 999) that many rows
share, and not sometimes a word and sometimes empty. Codes of one width keep their leading zeros; where most cells are
numbers, or have one format, few are something else. Text has no characters that were lost, escaped or read in another
encoding, and does not end with the value of an empty cell of its row.
"""

from __future__ import annotations

import html
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.cells.spelling import edits
from discrete_itd.encoders.numeric import OFTEN, SEVERAL, gap_codes
from discrete_itd.reading.columns import recognise
from discrete_itd.reading.frames import read_cells
from discrete_itd.reading.numbers import SAME_UNIT, Form, NumberNotation
from discrete_itd.reading.text import GAP_WORDS, LEADING_ZERO, number_of
from discrete_itd.reading.times import DATE, DateNotation, DurationNotation, date_format

Floats, Ints = NDArray[np.float64], NDArray[np.int64]

CERTAIN = 0.95  # probability that a cell with a wrong notation is wrong, and that the value read from it is right
# probability that the text proposed for one with lost characters is right, and that an empty cell stands for the word
# or number that its column has for missing cells: it may also be a value that nobody wrote down
GUESSED = 0.5
MEASURES = 0.9  # least share of readable cells from which a column is one of numbers or dates
INFINITE = {"inf", "-inf", "infinity"}
# words for missing cells among numbers, and among text
WORDS = {*GAP_WORDS, *INFINITE, *"-?.", "--", "n.a.", "unknown", "missing"}
WORDS_OF_TEXT = WORDS - INFINITE - {"", ".", "na", "none"}
# Numbers for missing cells should be empty up to this share of the cells; words for these among text should be the most
# frequent one up to this share of the missing cells (in open columns the others have .2 to .5 of these, or .02).
RARELY = 0.1
# Affixes are mere notation if numbers do not depend on them: if this is as likely, or they explain so little of ranks.
LEAST_P, LITTLE = 0.001, 0.01
MOST_MARKS = 0.2  # share of texts with a mark that no letter has, from which these are no errors
# A text is wrong with probability LIKELY if its format is that of less than ODD of the cells, where STRICT of them have
# one, or USUAL of them one that is an edit away (chosen on movies and five tables of open government data).
STRICT, USUAL, ODD = 0.9, 0.7, 0.05
# At most MOST_WORDS last words of a cell may be the value of another column, with probability LIKELY at least.
MOST_WORDS, LIKELY = 3, 0.9
ESCAPED = re.compile(r"&#?\w+;|(?<=[^\W\d])''(?=[^\W\d])")  # characters as HTML or SQL have them
PADDED = re.compile(r"(?<![.,])0\d")  # a number that is filled up with zeros
LOST = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8ff]")
MARK = re.compile("[\u0300-\u036f]")

# what is meant, and the probability that it is right, by the code of a cell
Meant = dict[int, tuple[Any, float]]


class Written(NamedTuple):
    """Cells (N,) as their column writes them; the probabilities that they are not, and that this is what is meant."""

    meant: pd.Series
    wrong: Floats
    right: Floats

    def taken(self, rows: Ints) -> Written:
        """The cells of some rows."""
        return Written(self.meant.iloc[rows], self.wrong[rows], self.right[rows])


def as_written(cells: pd.Series) -> Written:
    """What is meant by the cells of a column, by their own writing."""
    out = Written(cells, np.zeros(len(cells)), np.zeros(len(cells)))
    if cells.dtype.kind in "bmM":
        return out
    try:
        codes, distinct = pd.factorize(cells.astype(object))
        values, counts = np.asarray(distinct, object), np.bincount(codes[codes >= 0])
        n_empty = int((codes < 0).sum())
        is_text = np.array([isinstance(value, str) for value in values], bool)
        numbers = _numbers(np.where(is_text, np.nan, values))
    except (TypeError, OverflowError):  # the schema refuses these, if this does not
        read_cells(cells)
        return out
    texts, found = np.flatnonzero(is_text), Meant()
    if len(texts):
        n_numbers = int(counts[~np.isnan(numbers)].sum())
        of_texts = _of_texts(values[texts].tolist(), counts[texts], n_numbers, n_empty)
        found = {int(texts[i]) if i >= 0 else i: meant for i, meant in of_texts.items()}
        read = [found.get(i, (values[i],))[0] for i in texts.tolist()]
        numbers[texts] = _numbers(np.array(read, dtype=object))
    found = {**_codes(numbers, values, counts, n_empty), **found}
    if not found:
        return out
    meant = np.append(values, np.array([None], object))
    wrong, right = np.zeros(len(meant)), np.zeros(len(meant))
    for i, (value, p) in found.items():
        meant[i], wrong[i], right[i] = value, p if i < 0 else CERTAIN if p else LIKELY, p
    new = pd.Series(meant[codes], index=cells.index, name=cells.name, dtype=object)
    if cells.dtype.kind in "iuf":
        new = new.astype(float)
    return Written(new, wrong[codes], right[codes])


def _numbers(values: NDArray[np.object_]) -> Floats:
    """The numbers among values, in plain notation if text; NaN for others."""
    return np.array(pd.to_numeric(pd.Series(values, dtype=object), errors="coerce"), float)


def _codes(numbers: Floats, values: NDArray[np.object_], counts: Ints, n_empty: int) -> Meant:
    """Numbers among different values (K,) that stand for missing cells, or empty cells where numbers mostly do."""
    finite = np.flatnonzero(np.isfinite(numbers))
    n_cells = counts.sum() + n_empty
    found: Meant = {int(i): (None, CERTAIN) for i in np.flatnonzero(np.isinf(numbers))}
    order = finite[np.argsort(numbers[finite])]
    if len(order) <= SEVERAL or counts[order].sum() < MEASURES * counts.sum():
        return found
    codes = gap_codes(numbers[order], counts[order])
    if numbers[order[0]] == -1 and numbers[order[1]] >= 0 and counts[order[0]] >= OFTEN:
        codes.append(-1.0)
    for i in order[np.isin(numbers[order], codes)].tolist():
        if counts[i] <= max(RARELY * n_cells, n_empty):
            found[i] = None, CERTAIN
        elif n_empty:
            found[-1] = values[i], GUESSED
    return found


def _of_texts(texts: Sequence[str], counts: Ints, n_numbers: int, n_empty: int) -> Meant:
    """What is meant by different texts (K,), beside numbers, and by empty cells (-1)."""
    words = [text.strip().lower() for text in texts]
    forms = {i: form for i, text in enumerate(texts) if (form := Form.of(text))}
    of_unit = Counter[str]()
    for i, form in forms.items():
        of_unit[form.unit] += int(counts[i])
    unit = max(of_unit, key=lambda u: (u > "", of_unit[u]), default="")
    amounts = {i for i, form in forms.items() if form.unit and form.unit in SAME_UNIT.values()}
    forms = {i: form for i, form in forms.items() if form.unit in ("", unit)}
    if counts[[i for i, form in forms.items() if LEADING_ZERO.match(form.number)]].sum() >= OFTEN:
        forms = {}  # codes
    days = _days(texts, counts)
    is_word = np.array([word in WORDS for word in words])
    seldom = 2 * counts <= counts.sum() + n_numbers + n_empty  # else it is the column's own word
    gaps: Meant = {i: (None, CERTAIN) for i in np.flatnonzero(is_word & seldom).tolist()}
    others = [*itertools.compress(texts, ~is_word)]
    own = recognise(others, counts[~is_word]).notation if others else None
    has_powers = isinstance(own, NumberNotation) and own.powers
    if isinstance(own, DurationNotation) or has_powers:
        return gaps  # "3 months" beside "45 years", "350K" beside "1.2M"
    are_read = [] if own is None else np.flatnonzero(~pd.isna(own.read(texts))).tolist()
    if codes := _with_zeros(texts, counts):
        return gaps | codes
    least = max(MEASURES * (n_numbers + counts[~is_word].sum()), 1)
    are_days = counts[list(days)].sum() >= least  # first, as 31.01.2024 could be a number
    numbers = set[int]() if are_days else {*forms, *are_read, *amounts}
    found = _unlike(texts, np.where(is_word, 0, counts), numbers, n_numbers)
    if are_days:
        return found | gaps | _in_one_order(days, counts)
    if n_numbers + counts[list(forms)].sum() >= least:
        return found | gaps | _in_one_form(forms, counts, n_numbers)
    for i, text in enumerate(texts):
        if LOST.search(text):
            found[i] = LOST.sub("", _without_marks(text)), GUESSED
        elif not text.isascii():
            with suppress(UnicodeError):
                found[i] = text.encode("cp1252").decode(), CERTAIN
    for change, p in ((_without_marks, GUESSED), (_unescaped, CERTAIN)):
        new = {i: (t, p) for i, text in enumerate(texts) if (t := change(text)) != text}
        if counts[list(new)].sum() <= MOST_MARKS * counts.sum():
            found = new | found
    gap = Counter({i: int(counts[i]) for i, word in enumerate(words) if word in WORDS_OF_TEXT})
    gap[-1] = n_empty
    most = max(gap, key=lambda i: (gap[i], -i))
    # A word that is used more often beside empty cells, or another word, says something else: it is a level.
    if gap.total() - gap[most] <= RARELY * gap.total() and gap.total() < counts.sum() + n_empty:
        value = None if most < 0 else texts[most]
        found |= {
            i: (value, GUESSED if i < 0 else CERTAIN) for i, n in gap.items() if i != most and n
        }
    return found


def _without_marks(text: str) -> str:
    """The text without marks above and below letters that no letter has."""
    return text if text.isascii() else MARK.sub("", unicodedata.normalize("NFC", text))


def _unescaped(text: str) -> str:
    """The text without the escapes of HTML, and with single apostrophes."""
    return ESCAPED.sub(lambda m: "'" if m[0] == "''" else html.unescape(m[0]), text)


def pattern(text: str) -> str:
    """The classes of the characters of a text, with repetitions once: upper and lower case, digits, and the others.

    Examples
    --------
    >>> pattern("St. Mary's, Ward 12"), pattern("12.0 oz")
    ("Aa. Aa'a, Aa 9", '9.9 a')
    """
    return re.sub(r"(.)\1+", r"\1", _classes(text), flags=re.DOTALL)


def _classes(text: str) -> str:
    return "".join(
        "A" if c.isupper() else "a" if c.isalpha() else "9" if c.isdigit() else c for c in text
    )


def _unlike(texts: Sequence[str], counts: Ints, numbers: Set[int], n_bare: int) -> Meant:
    """Rare texts of a format that hardly any other has, where most are ``numbers`` or have one format."""
    n, at = counts.sum() + n_bare, np.flatnonzero(counts).tolist()
    padded = Counter[int]()
    for i in at:
        for k, run in enumerate(re.finditer(r"\d+", texts[i])):
            if PADDED.match(texts[i], run.start()):
                padded[k] += int(counts[i])
    # digits belong to a format from the first number on that is filled up with zeros
    first = min((k for k, n_padded in padded.items() if n_padded >= ODD * n), default=math.inf)
    formats = {i: "" if i in numbers else _format(texts[i].strip(), first) for i in at}
    share = Counter({"": n_bare / n}) if n_bare else Counter[str]()
    for i, form in formats.items():
        share[form] += counts[i] / n
    usual = max(share, key=share.__getitem__, default="")
    if len(at) <= SEVERAL or share[usual] < USUAL or (usual and "9" not in usual):
        return {}
    is_strict = share[usual] >= STRICT
    return {
        i: (texts[i], 0.0)
        for i, form in formats.items()
        if share[form] < ODD and counts[i] < OFTEN and (is_strict or edits(form, usual) < 2)
    }


def _format(text: str, first: float) -> str:
    """The classes of the characters of a text; numbers before the ``first`` of a fixed width have one digit."""
    k = itertools.count()
    return re.sub("9+", lambda run: run[0] if next(k) >= first else "9", _classes(text))


def _with_zeros(texts: Sequence[str], counts: Ints) -> Meant:
    """Codes of fewer digits than most, which begin with a zero where they have as many."""
    digits = {i: text for i, text in enumerate(texts) if text.isdecimal()}
    n_digits = Counter[int]()
    for i, text in digits.items():
        n_digits[len(text)] += int(counts[i])
    own, n = max(n_digits.items(), key=lambda w: w[1], default=(0, 0))
    zeros = [i for i, text in digits.items() if text[0] == "0" and own > 1]
    if n < USUAL * counts.sum() or counts[zeros].sum() < OFTEN:
        return {}
    if any(len(texts[i]) < own for i in zeros):
        return {}
    return {i: (text.zfill(own), CERTAIN) for i, text in digits.items() if len(text) < own}


def _in_one_form(forms: Mapping[int, Form], counts: Ints, n_bare: int) -> Meant:
    """Numbers in another form than their column's, as the column writes them, by their code."""
    of_form = Counter({("", ""): n_bare})
    for i, form in forms.items():
        of_form[form[:2]] += int(counts[i])
    own, n = max(of_form.items(), key=lambda f: f[1])
    if n == of_form.total():
        return {}
    numbers, weight = [form.number for form in forms.values()], counts[list(forms)]
    notation = recognise(numbers, weight, plain=True).notation
    values = _numbers(np.array(numbers, object)) if notation is None else notation.read(numbers)
    if not _are_notation(forms.values(), values, weight):
        return {}
    own = own if 2 * n > of_form.total() else ("", "")
    bare = {form.number for form in forms.values() if form[:2] == own}
    are_plain, found = bool(np.isfinite([*map(number_of, bare)]).all()), Meant()
    for (i, form), value in zip(forms.items(), values, strict=True):
        if form[:2] != own:
            is_new = are_plain and form.number not in bare and np.isfinite(value)
            found[i] = own[0] + (f"{value:.12g}" if is_new else form.number) + own[1], CERTAIN
    return found


def _are_notation(forms: Iterable[Form], numbers: Floats, counts: Ints) -> bool:
    """Whether numbers do not depend on what stands around them, as they would if units had a meaning."""
    of: dict[tuple[str, str], list[float]] = {}
    for form, number, count in zip(forms, numbers.tolist(), counts.tolist(), strict=True):
        if np.isfinite(number):
            of.setdefault((form.before, form.behind), []).extend([number] * count)
    n, k = sum(map(len, of.values())), len(of)
    if k < 2 or len({v for values in of.values() for v in values}) < 2:
        return True
    statistic, p = stats.kruskal(*of.values())
    return p > LEAST_P or (statistic - k + 1) / max(n - k, 1) < LITTLE


def _days(texts: Sequence[str], counts: Ints) -> dict[int, tuple[re.Match[str], bool]]:
    """Dates, without the time of day, and whether they have the day before the month: if in doubt, as most others."""
    found, n = dict[int, tuple[re.Match[str], bool | None]](), Counter[bool | None]()
    for i, text in enumerate(map(str.strip, texts)):
        if match := DATE.fullmatch(text):
            day_first = False
            if match["a"]:
                a, b = int(match["a"]), int(match["b"])
                # where points divide dates, the day is first everywhere
                day_first = a > 12 if max(a, b) > 12 else True if match["t"] == "." else None
                n[day_first] += int(counts[i])
            date = DATE.fullmatch(text, 0, match.end("d" if match["y"] else "z"))
            found[i] = date or match, day_first
    most = n[True] > n[False]
    return {i: (date, most if own is None else own) for i, (date, own) in found.items()}


def _in_one_order(days: Mapping[int, tuple[re.Match[str], bool]], counts: Ints) -> Meant:
    """Dates in another form than most of their column, as most are written, by their code."""
    formats, of = {i: date_format(*day) for i, day in days.items()}, Counter[str]()
    for i, form in formats.items():
        of[form] += int(counts[i])
    own, n = max(of.items(), key=lambda f: f[1])
    if 2 * n <= of.total():
        return {}
    found, notation = Meant(), DateNotation(format=own)
    for i, (date, day_first) in days.items():
        if formats[i] != own:
            time = pd.Series(DateNotation(day_first=day_first).read([date[0]]))
            if time.notna().all():  # there is such a day
                found[i] = notation.write(time)[0] + date.string[date.end() :], CERTAIN
    return found


def moved(columns: Sequence[Written]) -> list[Written]:
    """The columns where cells end with the value of an empty cell of the same row, as *Ulm BW* beside an empty state.

    Such a value belongs there as far as cells seldom end with a value of the other column where that is not empty.
    """
    out = list(columns)
    ends = [_ends(column.meant) for column in columns]
    last = [{end for parts in distinct for _, end in parts} for _, distinct in ends]
    for k, to in enumerate(columns):
        is_empty = to.meant.isna().to_numpy()
        known = {cell for cell in to.meant[~is_empty] if isinstance(cell, str)}
        for j, (codes, distinct) in enumerate(ends if is_empty.any() else ()):
            if last[j].isdisjoint(known):
                continue
            at = {i: part for i, parts in enumerate(distinct) for part in parts if part[1] in known}
            hit = np.isin(codes, list(at)) & (j != k)
            rates = [(hit[rows].sum() + 0.5) / (rows.sum() + 1) for rows in (~is_empty, is_empty)]
            p, rows = 1 - rates[0] / rates[1], np.flatnonzero(hit & is_empty)
            if p >= LIKELY:
                for place, part in ((j, 0), (k, 1)):
                    meant = out[place].meant.astype(object).copy()
                    meant.iloc[rows] = [at[i][part] for i in codes[rows].tolist()]
                    out[place] = out[place]._replace(meant=meant)
                    out[place].wrong[rows] = out[place].right[rows] = p
    return out


def _ends(cells: pd.Series) -> tuple[Ints, list[list[tuple[str, str]]]]:
    """Codes (N,) of cells, and each different text divided at one of its last MOST_WORDS spaces or commas."""
    texts = [cell if isinstance(cell, str) else None for cell in cells]
    codes, distinct = pd.factorize(np.array(texts, object))
    out = []
    for text in distinct:
        at = [match.span() for match in re.finditer(r",? +|,", text)][-MOST_WORDS:]
        out.append([(text[:a], text[b:]) for a, b in at if a and b < len(text)])
    return codes, out
