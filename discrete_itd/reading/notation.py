r"""Notations of numbers and times in text: money, percentages, decimal commas, dates in other orders than ISO 8601.

A column of text is numbers or times if all its cells are, in one notation, but for one cell or five in a thousand
(:func:`most_unreadable`), which are unreadable; else it stays text. Rules, where cells could be read in several ways:

- Decimal mark: comma or point, the other one (or a space or an apostrophe) groups thousands. Each cell must be a number
  under one of the two, and under the other one not all cells may be different numbers: "1.234" alone is ambiguous,
  "1.234" beside "0.5" or "12.345,67" is not, nor is money like "$1,234" beside "$987" or less: thousands. A number that
  begins with a zero before another digit is a code. Negative numbers have their sign before or after them, or stand in
  parentheses.
- Units: one sign or code of a currency, a percent sign, or what else stands before or behind half of the numbers at
  least, like "km/h". "12,5 %" is the number 12.5, as "12,5" is beside it; a number with another unit is none of the
  column's. Words for powers of ten, "1.2M" beside "350K", are multiplied out where they differ; "294 K" beside "312.5"
  is ambiguous, as the "K" may be a unit. Whole numbers behind letters, "LH 4184", are codes.
- Dates: the year first, or day, month and year in one order for the whole column, with points, slashes, hyphens or
  the month's name, a weekday beside them. Both orders may fit only if they are the same dates. Several of these formats
  may be mixed, with or without a time of 24 or of twelve hours; all or none have a time zone.
- Training takes unreadable cells for missing; in a new row both the value and whether it is missing are unknown, and
  summed out. :class:`~discrete_itd.encoders.rows.Rows` have their text, and a warning names it.
- Words like "NA" are missing cells where all others are numbers or times, and so are one to three words of any kind
  that are not rare, where there are more than twenty different numbers or times: "n/s", "Fel", "-".
- Bounds like "<0.5" and "90+" are the number that is the bound, "~40" is 40, "80-100" among numbers is 90; a note
  says so.
- Text of nothing but plain whole numbers is not parsed, since text distinguishes categories from numbers in Python; a
  kind "continuous" reads it. With unreadable cells among them, these are the reason why it is text.

Ambiguous text is not parsed: a warning is given once, and an option specifies the notation.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from itertools import compress
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd

from discrete_itd.reading.frames import (
    EXACT_BELOW,
    decimals_of,
    holding_missing,
    time_unit,
    time_zone,
)
from discrete_itd.validation import advice, check_choice, warn, warn_of_column

Asked = Literal["decimal-comma", "decimal-point", "day-first", "month-first"]
NOTATIONS: tuple[Asked, ...] = ("decimal-comma", "decimal-point", "day-first", "month-first")
TRUTHS = {w: w.lower() == "true" for w in ("True", "TRUE", "true", "False", "FALSE", "false")}
GAP_WORDS = ("", "na", "n/a", "nan", "nat", "null", "none", "#n/a", "#na", "<na>")  # in lower case
# currencies, by their names
CURRENCIES = (
    "€ EUR", "£ GBP", "USD US$", "CAD C$", "AUD A$", "BRL R$", "CHF Fr.", "kr kr.", "PLN zł", "CZK Kč", "HUF Ft",
    "RON lei", "BGN лв. лв", "₹ Rs Rs. INR", "₺ TL TRY", "₽ руб. руб р. RUB", "₴ грн. грн UAH", "₩ 원 KRW", "CNY 元",
    "JPY 円", "EGP ج.م ج.م.", "SEK", "NOK", "DKK", "MXN", "ZAR", "NGN", "KES", "GHS", "AED", "SAR", "ILS", "THB", "IDR",
    "MYR", "VND", "SGD", "HKD", "TWD", "NZD", "ARS", "CLP",
)  # fmt: skip
SAME_UNIT = {name: names.split()[0] for names in CURRENCIES for name in names.split()}
UNITS = rf"(?:[%‰]|[^\W\d_]{{0,3}}[$¢£¥\u20a0-\u20cf]|{'|'.join(map(re.escape, sorted(SAME_UNIT, reverse=True)))})"
SAME_UNIT |= {mark + dash: "" for mark in ".," for dash in "-–—"}  # whole amounts
# words for a power of ten behind a number
POWERS = {word: power for power, words in (
    (3, "k K tys. тыс. тыс Tsd. mil bin"), (4, "万 만"), (5, "lakh"), (7, "crore Cr"), (8, "億 亿 억"),
    (6, "M m mn mln млн млн. Mio. Mio Mill. milyon million millones"), (9, "B b bn mld mlrd млрд Mrd. Mrd billion"),
) for word in words.split()}  # fmt: skip
SPACES = " \u00a0\u2007\u2009\u202f"  # those that do not break, or are narrow, among them
# text around the numbers of a column that is its own unit: "Nr. ", "EGP " before, "km/h", "°", "mm²" behind
SIGN = r"[^\x00-\x7f\w\s\u2010-\u2027]"  # of any script: °, €, ℃
BEFORE = re.compile(rf"[^\W\d_]{{1,3}}\.|[A-Z]{{1,3}}(?=[{SPACES}])")
BEHIND = re.compile(
    rf"(?:(?:[/$]|{SIGN})*[^\W\d_][^\s\d]{{0,9}}|{SIGN}[^\s\d]{{0,5}})[23]?|/\d{{1,3}}"
)
# before a number that is only a bound of what was measured, or about it; a plus sign behind it is one, too
BOUNDS = "<>≤≥~≈"
# of the day, of clocks of twelve hours
HALVES = (
    ("AM", "PM"), ("am", "pm"), ("a.m.", "p.m."), ("A.M.", "P.M."), ("Am", "Pm"), ("오전", "오후"), ("上午", "下午"),
    ("午前", "午後"), ("ص", "م"),
)  # fmt: skip
HALF = "|".join(re.escape(word) for pair in HALVES for word in pair)
FORE, HALF = rf"(?:(?P<fore>{HALF})[{SPACES}]?)?", rf"(?:[{SPACES}]?(?P<half>{HALF}))?"
# times of day, and durations, in hours, minutes and seconds or with words for days, hours, minutes and seconds
CLOCK = re.compile(
    rf"{FORE}(?P<H>\d{{1,3}}) ?[:h時시] ?(?P<M>[0-5]\d)(?:[:分](?P<S>[0-5]\d(?:[.,]\d+)?))?[分秒분]?{HALF}"
)
# of a part of a duration: years, months, weeks, days, hours, minutes, seconds
SECONDS = {"Y": 31_557_600, "B": 2_629_800, "W": 604_800, "D": 86_400, "H": 3600, "M": 60, "S": 1}
PARTS = {
    "Y": "y yrs? years? Jahre? ans? a[nñ]os? ann[oi] jaar lat rok lata yaş yıl лет года? [세살岁歳] سنة سنوات",
    "B": "mos? mths? months? Mon Monate? mois mes meses mesi mês maand mies ay мес 개월 个月 か月 شهر أشهر",
    "W": "w wks? weeks? Wochen? semaines? semanas? settiman[ae] we[ek]en tyg hafta нед 주 周 週 أسبوع",
    "D": "d days? Tage? j jours? días? dias? giorn[oi] dag dagen dni gün дн дней дня [天日일] يوم أيام",
    "H": "h hrs? hours? Std 時間 시간 [时時]", "M": "m mn mins? minutes? 分 분", "S": "s secs? seconds? 秒 초",
}  # fmt: skip
SPANS = CLOCK, re.compile("(?=.)" + "".join(
    rf"(?:(?P<{part}>\d+(?:[.,]\d+)?) ?(?:{words.replace(' ', '|')})\b\.?,? ?)?" for part, words in PARTS.items()
))  # fmt: skip
GROUPS = {".": SPACES + "'\u2019,", ",": SPACES + "'\u2019."}  # by the decimal mark
PYTHONS = {mark: str.maketrans(mark, ".", groups) for mark, groups in GROUPS.items()}
OTHER_DIGIT = re.compile(r"(?![0-9])\d")  # of a script other than ASCII
# characters of full width, and Arabic marks, as those of ASCII
SAME_CHARACTER = {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
SAME_CHARACTER |= dict(zip("٫٬٪", ".,%", strict=True))
OTHER_CHARACTER = re.compile(rf"{OTHER_DIGIT.pattern}|[{''.join(SAME_CHARACTER)}]")
ISO_DATE = r"\d{4}-\d\d-\d\d"  # at the start of an ISO date or time
TIME = (
    rf"(?: ?\((?P<v>[^\W\d_]{{1,4}})\))?(?:(?:T|,?[{SPACES}]|(?<=日)){FORE}(?P<H>\d{{1,2}}) ?[:.h時시] ?(?P<M>\d\d)"
    rf"(?:[:.分](?P<S>\d\d)(?:\.(?P<f>\d{{1,6}}))?)?[分秒분]?{HALF}(?P<zone> ?(?:Z|[+-]\d\d:?\d\d))?)?"
)
DAY = r"(?:(?P<w>[^\W\d_]{2,14})[.,]{0,2} )?"  # of the week, before a date, and in parentheses behind it
DATE = re.compile(
    DAY + r"(?:(?P<y>\d{4})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})"
    r"|(?P<a>\d{1,2})(?P<t>[-/.])(?P<b>\d{1,2})(?P=t)(?P<z>\d{4}|(?<=\d\d[-/.]\d\d[-/.])\d\d))"
    + TIME
)
# dates with words: of the year, month and day in Chinese, Japanese and Korean, of an emperor, and names of months
WORD, APART = r"(?P<word>[^\W\d_]{3,})\.?", r"[-/. ]*"
DATES = (
    DATE,
    re.compile(
        r"(?:(?P<y>\d{4}) ?[年년.]|(?P<era>[MTSHR]|明治|大正|昭和|平成|令和)(?P<n>\d{1,2}|元)[年.]) ?"
        r"(?P<m>\d{1,2}) ?[月월.] ?(?P<d>\d{1,2}) ?[日일.]?" + TIME
    ),
    re.compile(
        rf"{DAY}(?P<d>\d{{1,2}})(?:er|st|nd|rd|th)?{APART}(?:de )?{WORD}{APART}(?:de )?(?P<y>\d{{4}}|\d\d)(?: ?[гр]\.)?"
        + TIME
    ),
    re.compile(
        rf"{DAY}{WORD}{APART}(?P<d>\d{{1,2}})(?:st|nd|rd|th)?,?{APART}(?P<y>\d{{4}})" + TIME
    ),
    re.compile(rf"(?P<y>\d{{4}}){APART}{WORD}{APART}(?P<d>\d{{1,2}})\.?" + TIME),
)
# the year before the first, by the first letter of an emperor's era
ERAS = dict(zip("MTSHR明大昭平令", [1867, 1911, 1925, 1988, 2018] * 2, strict=True))
# how names of months begin, without accents: western Europe, Polish, Czech, Hungarian, Romanian, Finnish, Turkish,
# Indonesian, Russian, Ukrainian, Greek, Arabic
MONTHS = {name: k for k, names in enumerate((
    "jan ene gen ian sty oca led tam янв січ ιαν ينا", "feb fev lut sub uno hel фев лют φεβ فبر",
    "mar mrt maa bre мар бер μαρ مار", "apr avr abr kwi nis dub huh апр кві απρ ابر",
    "may mai mag mei maj kve tou маи мая тра μαι ماي", "jun juin giu iun cze haz cervn cerven cvn kes июн чер ιουν يون",
    "jul juil lug iul lip tem cervenc cervene cvc hei июл лип ιουλ يولي", "aug ago aou agu sie srp elo авг сер αυγ اغس",
    "sep set sze wrz eyl zar syy сен вер σεπ سبت", "oct okt out ott paz eki rij lok окт жов οκτ اكت",
    "nov noi lis kas marras ноя лис νοε نوف", "dec dez dic des gru ara pro jou дек гру δεκ ديس",
), 1) for name in names.split()}  # fmt: skip
ASCII_DIGITS = "0123456789"
NEGATIVES = ("-{}", "({})", "{}-", "\u2212{}", "{}\u2212")  # how negative numbers are written
UTC = "+00:00"  # at the end of the format of times with a zone, which are written in UTC
# text of a number with something before it, or behind it at a distance, or of several numbers with units
NUMBER_LIKE = re.compile(
    r"±\s*[-+]?\d+(?:[.,]\d+)?"
    r"|[-+]?\d+(?:[.,:]\d+)+\s?[^\W\d]{0,8}|[-+]?\d+\s[^\W\d]{1,8}|\d+\s?[^\W\d]{1,8}(?:\s\d+\s?[^\W\d]{1,8})+"
)
# cells that are bounds, or a range; grades
BOUNDED = re.compile(rf"\s*[{BOUNDS}].*|.*\d\+\s*|[^-–—]*\d\s?[-–—]\s?\d[^-–—]*")
RANGE = re.compile(r"(?P<low>[^-–—]*\d)\s?[-–—]\s?(?P<high>\d[^-–—]*)")
GRADE = re.compile(r"\d{1,2}[-+\u2212]?")
PHONE = re.compile(
    r"\+?(?:\d{2}[ .])?\d{3}(?:[ .]\d{3}){2,}"
)  # or an address; few numbers are all so long
# errors of spreadsheets, and dates that stand for none
NO_VALUE = re.compile(r"#[^\W\d_]+(?:/[^\W_]+)?[!?]?")
NO_DATE = re.compile(
    r"0000-00-00.*|00[./-]00[./-](?:00)?00.*|[29]999[./-]12[./-]31.*|(?:31[./-]12|12/31)[./-][29]999.*"
)
FEW_VALUES = 20  # different texts or numbers are categories, whatever they are like
WHOLE = re.compile(r"\s*\d+\s*", re.ASCII)
LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)  # of a code
CENTURY = 69  # two digits of a year from here on are of the last century, as POSIX has it


@dataclass(frozen=True)
class Notation:
    """Notation of the cells of a column.

    Parameters
    ----------
    family : {"number", "datetime", "timedelta"}
    decimal : {".", ","}, optional
        Decimal mark; None if no number of the training table has one: then numbers need to be the same with either.
    grouping, prefix, suffix : str
        Mark between thousands, and what stands before and after a number, like " €".
    pairs : bool
        Whether digits above thousands are in groups of two, like "12,34,567".
    places : int, optional
        Decimals of every number; None if they differ.
    day_first : bool, optional
        Order of dates that do not begin with the year; None if there are none.
    format : str
        Of dates, as in ``strftime``; of durations and times of day, as in ``str.format``, with the parts D, H, M and S.
    names : tuple of str
        The names of the months and of the days from Monday on, of a ``%B`` or ``%A``; empty where no date had one.
    negative : str
        Of a negative number, as in ``str.format``.
    powers : tuple of str
        Words for powers of ten behind the numbers, where they differ, the largest first.
    digits : str
        The digits from zero on, the point and the comma, where they are not those of ASCII.

    Examples
    --------
    >>> german = Notation(decimal=",", grouping=".", suffix=" €", places=2)
    >>> german.read(["5.067,14 €", "12 €", "soon"])
    array([5067.14,   12.  ,     nan])
    >>> german.write(pd.Series([5067.14, None])).tolist()
    ['5.067,14 €', None]
    """

    family: Literal["number", "datetime", "timedelta"] = "number"
    decimal: str | None = "."
    grouping: str = ""
    prefix: str = ""
    suffix: str = ""
    pairs: bool = False
    places: int | None = None
    day_first: bool | None = None
    format: str = ""
    names: tuple[str, ...] = ()
    negative: str = "-{}"
    powers: tuple[str, ...] = ()
    digits: str = ""

    def __post_init__(self) -> None:
        check_choice("decimal", self.decimal, (".", ",", None))
        check_choice("negative", self.negative, NEGATIVES)
        if self.places is not None and not 0 <= self.places < 99:
            raise ValueError(f"places must be a small number, got {self.places!r}")

    def read(self, texts: Sequence[Any]) -> np.ndarray:
        """The numbers (float64), times or durations (in microseconds) of texts; NaN or NaT for other texts."""
        if self.family == "timedelta":
            seconds = np.array([_seconds(text) for text in texts], dtype=float)
            return pd.to_timedelta(seconds, unit="s").as_unit("us").to_numpy()
        if self.family == "datetime":
            return _times(texts, self.day_first, self.format.endswith(UTC))
        if self.decimal is None:
            whole = [text.removesuffix(".0") for text in texts]  # as readers write them beside gaps
            found, other = (_numbers(whole, replace(self, decimal=mark)) for mark in ".,")
            return np.where(found == other, found, np.nan)
        return _numbers(texts, self)

    def write(self, values: pd.Series) -> pd.Series:
        """Numbers or times as text, of dtype object; missing ones are None.

        A time for which the format has no place is one of ISO 8601. Numbers are rounded to their places.
        """
        if self.family == "timedelta":
            seconds = values.dt.total_seconds()
            texts = [None if np.isnan(v) else _spelled(v, self.format) for v in seconds.tolist()]
        elif self.family == "datetime":
            texts = [None if pd.isna(v) else _formatted(v, self.format, self.names) for v in values]
        else:
            numbers = values.to_numpy(dtype=float, na_value=np.nan)
            digits = self.places
            if digits is None:
                digits = decimals_of(numbers[~np.isnan(numbers)], np.dtype(float))
            texts = [None if np.isnan(v) else self._written(v, digits) for v in numbers.tolist()]
        if self.digits and self.family != "number":
            own = str.maketrans(ASCII_DIGITS, self.digits[:10])
            texts = [text and text.translate(own) for text in texts]
        return pd.Series(texts, index=values.index, dtype=object)

    def _written(self, number: float, digits: int | None) -> str:
        size, power = abs(number), ""
        if self.powers:
            scales = {word: 10.0 ** POWERS[word.strip(SPACES)] for word in self.powers if word}
            power = next((word for word, scale in scales.items() if size >= scale), self.powers[-1])
            size /= scales.get(power, 1.0)
        text = f"{size:,}" if digits is None else f"{size:,.{digits}f}"
        if (self.powers or self.places is None) and "." in text:
            text = text.rstrip("0").rstrip(".")
        if self.pairs:
            whole, point, fraction = text.replace(",", "").partition(".")
            text = re.sub(r"(?<=\d)(?=(?:\d\d)*\d{3}$)", ",", whole) + point + fraction
        text = text.translate(str.maketrans({",": self.grouping, ".": self.decimal or "."}))
        if self.digits:
            text = text.translate(str.maketrans(f"{ASCII_DIGITS}.,", self.digits))
        text = f"{self.prefix}{text}{power}{self.suffix}"
        return self.negative.format(text) if number < 0 else text

    @property
    def is_plain(self) -> bool:
        """Whether it is the notation of Python and ISO 8601, without a time zone."""
        if self.family == "datetime":
            is_iso = self.day_first is None and self.format.startswith("%Y-%m-%d")
            return is_iso and "%I" not in self.format and not self.format.endswith(UTC)
        if self.family == "timedelta":
            return False
        others = self.grouping, self.prefix, self.suffix, self.powers, self.digits
        return self.decimal != "," and self.negative == "-{}" and not any(others)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Of a number: sign, unit, sign, number, unit; a unit is known, or the column's own. One has a singular."""
        before, behind = self.prefix.strip(SPACES), self.suffix.strip(SPACES)
        assert self.decimal is not None
        groups, mark = re.escape(GROUPS[self.decimal]), re.escape(self.decimal)
        units = rf"(?:{UNITS}|{mark}[-–—])"
        prefix, suffix = (
            f"(?:{re.escape(own)}|{units})" if own else units for own in (before, behind)
        )
        stems = [behind[:-k] for k in (1, 2) if len(behind) > k + 1 and behind[-k:].isalpha()]
        words = [*filter(None, (word.strip(SPACES) for word in self.powers))]
        one, power = ("|".join(map(re.escape, own)) or "(?!)" for own in (stems, words))
        return re.compile(
            rf"(?P<bound>[{BOUNDS}][{SPACES}]?)?"
            rf"(?P<open>\()?(?P<sign>[-+\u2212])?(?P<prefix>{prefix}[{SPACES}]*)?(?P<inner>[-+\u2212])?"
            rf"(?P<number>(?!0\d)(?:\d+"
            rf"|[1-9]\d{{0,2}}(?P<group>[{groups}])(?:(?:\d{{3}}(?P=group))*|(?<=,)(?:\d\d,)*)\d{{3}})"
            rf"(?P<fraction>{mark}\d+)?(?:[eE][-+]?\d+)?)(?P<power>[{SPACES}]?(?:{power}))?(?P<after>[-\u2212])?"
            rf"(?:(?P<suffix>[{SPACES}]*{suffix})|[{SPACES}]*(?P<one>{one}))?(?P<last>[-\u2212])?(?P<close>\))?"
            rf"(?P<more>\+)?"
        )

    @property
    def expected(self) -> str:
        """Description of a valid cell, for error messages."""
        if self.family == "datetime":
            return f"a date like {self.example}"
        if self.family == "timedelta":
            return f"a time like {self.example}"
        mark = {",": " with a decimal comma", ".": " with a decimal point", None: ""}[self.decimal]
        return f"a number{mark}, like {self.example}"

    def hint(self, text: str) -> str:
        """Explanation of a text that is a number with another unit or the other decimal mark."""
        if self.family != "number":
            return ""
        ways = {mark: replace(self, decimal=mark) for mark in ".,"}
        units = {_number(text, ways[mark])[1] for mark in self.decimal or ".,"} - {""}
        if units:
            own = _unit(self.prefix) or _unit(self.suffix)
            return f", which is in {units.pop()}" + (f", not in {own}" if own else "")
        other = "." if self.decimal == "," else ","
        if np.isnan(_numbers([text], ways[other]))[0]:
            return ""
        return advice("", f"; if all numbers of this table are like it, give --csv decimal={other}")

    @property
    def example(self) -> str:
        """A cell in this notation, in quotation marks."""
        if self.family == "timedelta":
            own = next(size for part, size in SECONDS.items() if f"{{{part}" in self.format)
            return quoted(_spelled(max(5415.0, 3.0 * (own > 3600) * own), self.format))
        if self.family == "datetime":
            month = next((k for k, name in enumerate(self.names[:12], 1) if name), 1)
            day = datetime(2028, month, 24)
            return quoted(_formatted(day, self.format or "%Y-%m-%d", self.names))
        return quoted(self.write(pd.Series([1234.5 if self.places != 0 else 1234.0])).iloc[0])


class Recognised(NamedTuple):
    """Result of recognising texts: a notation, or None and perhaps a sentence on what they resemble.

    ``unlike`` is then the text that is least like the others. ``is_measure`` says whether nearly all texts are dates,
    times of day, or numbers other than plain integers: measurements and no identifiers, however many differ. ``words``
    are the unreadable texts among numbers or times, and how often they occur, ``gaps`` those that occur too often to be
    errors, and are missing cells. ``either`` is "numbers" or "dates" if these have two marks or orders that fit.
    """

    notation: Notation | None
    note: str = ""
    unlike: str = ""
    is_measure: bool = False
    words: Mapping[str, int] = {}
    gaps: tuple[str, ...] = ()
    either: str = ""


Words = Mapping[Hashable, Mapping[str, int]]  # how often each unreadable text occurs, by column
MOST_GAP_WORDS = 6  # different words of a column of numbers or times that are missing cells
MOST_NAMED = 3  # most texts of a column, and most columns of one sort, that a warning names

_collected: ContextVar[dict[Hashable, Counter[str]] | None] = ContextVar("collected", default=None)


def most_unreadable(n_cells: int) -> int:
    """How many of ``n_cells`` of a column of numbers or times may be unreadable in training: one, or .5 %."""
    return min(max(1, int(0.005 * n_cells)), max(0, n_cells - 1) // 2)


def quoted(value: Any) -> str:
    """The value of a cell for people: text in quotation marks, with spaces of all kinds alike, controls escaped."""
    if not isinstance(value, str):
        return repr(value)
    return repr("".join(" " if unicodedata.category(c) == "Zs" else c for c in value))


def denotes_missing(text: str) -> bool:
    """Whether a text among numbers or times denotes a missing cell."""
    return text.strip().lower() in GAP_WORDS


def typed(cells: pd.Series, *, decimal: str = ".", dates: bool = True) -> tuple[pd.Series, str]:
    """A column of text as plain numbers, booleans or ISO times if all of it is; else unchanged.

    Words like "NA" are missing among these, and the second result names them, if any. Few other texts, see
    :func:`most_unreadable`, stay text among numbers and times. With a decimal comma, plain numbers are integers.
    Numbers some of which begin with a zero, like postal codes, stay text.
    """
    codes, distinct = pd.factorize(cells)
    texts = pd.Series(distinct, dtype=object)
    is_word = texts.map(denotes_missing).to_numpy(dtype=bool)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    what, found = _plain(cast(pd.Series, texts[~is_word]), counts[~is_word], decimal, dates)
    if len(texts) and not what:
        return cells, ""
    any_missing = len(found) < len(texts) or bool((codes < 0).any())
    values = found.astype(holding_missing(found.dtype, any_missing)).reindex(codes)
    values = values.set_axis(cells.index)
    is_other = np.append(~is_word & ~texts.index.isin(found.index), False)[codes]
    if is_other.any():
        values = values.astype(object).where(~is_other, cells)
    n = int(counts[is_word].sum())
    words = f"{', '.join(map(repr, texts[is_word]))} ({n} cell{'s' * (n > 1)})"
    return values, f"{words} taken as missing, as all others are {what}" if n else ""


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
        return bool(few) and not any(map(_is_any, texts[others]))

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


def _is_any(text: str) -> bool:
    """Whether a text is a number or a date in some notation."""
    return any(pd.notna(way([text]))[0] for ways in WAYS.values() for way in ways.values())


def recognise(
    texts: Sequence[str], counts: np.ndarray, asked: Asked | None = None, *, plain: bool = False
) -> Recognised:
    """The notation of different texts (K,), without words for missing cells, each of which occurs ``counts`` times.

    Few of the texts may be unreadable in it, see :func:`most_unreadable`. ``asked`` is the user's specification; with
    ``plain``, plain integers are numbers, too.
    """
    most, total = most_unreadable(int(counts.sum())), counts.sum()
    others = np.array([text not in TRUTHS for text in texts])
    if len(texts) == 3 and others.sum() == 1 and counts[others].sum() <= most:
        word = texts[int(np.argmax(others))]
        return Recognised(None, f"truth values, but for {quoted(word)}", word)
    probe = texts[:: max(1, len(texts) // 50)]  # most columns of text have no digits
    if not any(any(map(str.isdigit, text)) for text in probe):
        return Recognised(None, unlike=texts[0])
    unread = []
    for what, options in WAYS.items():
        ways = [way for name, way in options.items() if asked in (None, name)]
        if what == "numbers":
            marks = _marks(texts, counts)
            ways = [
                partial(way, own=replace(marks, decimal=way.keywords["own"].decimal))
                for way in ways
            ]
        if not ways:
            continue
        read = [_tried(way, texts, probe) for way in ways]
        bad = [pd.isna(found) for found in read]
        n_bad = [int(counts[b].sum()) for b in bad]
        k = int(np.argmin(n_bad))
        is_code = any(LEADING_ZERO.fullmatch(text) for text in compress(texts, bad[k]))
        if n_bad[k] > most or is_code:
            unread += [(what, b) for b in bad]
            continue
        there, way = ~bad[k], ways[k].keywords
        known, own = list(compress(texts, there)), counts[there]
        if what == "numbers" and _are_labels(known, own):
            return Recognised(None)
        alone = int(counts[there & bad[-1 - k]].sum())  # that only this order or mark reads
        n_others = int(counts[bad[k] & ~bad[-1 - k]].sum())
        differ, either = there & (read[0] != read[-1]), ""
        unlike = texts[int(np.argmax(differ))]
        # the order or mark alone reads ten times as many cells as the other one alone
        is_either = len(ways) == 2 and (alone < 10 * n_others or not alone)
        if what == "dates":
            notation = _of_dates(known, own, **way)
            if counts[np.isnat(notation.read(texts))].sum() > most:
                note = "times, some with a time zone and some without"
            elif not is_either or notation.day_first is None:
                return Recognised(notation)
            else:
                note = f"dates like {quoted(unlike)}, whose day and month could be either"
                either = what
        elif is_either and differ.any() and _is_grouped_money(known):
            return recognise(texts, counts, "decimal-point" if "," in unlike else "decimal-comma")
        elif is_either and differ.any():
            note = f"numbers like {quoted(unlike)}, whose mark could be decimal or of thousands"
            either = what
        elif all(re.fullmatch(r"\(\d+\)", text.strip()) for text in known) or not (  # of a list
            plain or asked or bad[k].any() or not all(map(WHOLE.fullmatch, known))
        ):
            return Recognised(None)
        else:
            notation = _of_numbers(known, own, **way)
            note = f"numbers with different units, like {quoted(known[0])}"
            if _are_two_scales(notation, known):
                note = f"numbers with and without {quoted(notation.powers[0].strip(SPACES))}"
            elif counts[np.isnan(notation.read(texts))].sum() <= most:
                return Recognised(replace(notation, decimal=None) if is_either else notation)
        return Recognised(None, note, is_measure=True, either=either)
    bad = np.isnan([_seconds(text) for text in texts])
    unread.append(("times of day or durations", bad))
    if asked is None and counts[bad].sum() <= most:
        is_few = np.count_nonzero(~bad) <= FEW_VALUES
        notation = None if is_few else _of_spans([*compress(texts, ~bad)], counts[~bad])
        return Recognised(notation, unlike=texts[0], is_measure=True)
    what, bad = min(unread, key=lambda way: counts[way[1]].sum())
    words = np.flatnonzero(bad)[np.argsort(-counts[bad], kind="stable")[:MOST_GAP_WORDS]]
    words = words[counts[words] > most]
    rest = np.isin(np.arange(len(texts)), words, invert=True)
    are_few = counts[bad & rest].sum() <= most_unreadable(int(counts[rest].sum()))
    if len(words) and are_few and np.count_nonzero(~bad) > FEW_VALUES:
        gaps = [*compress(texts, ~rest)]
        if not any(_is_any(word) or LEADING_ZERO.fullmatch(word) for word in gaps):
            found = recognise([*compress(texts, rest)], counts[rest], asked, plain=True)
            if found.notation is not None:
                return found._replace(gaps=(*gaps,))
    share, other = 1 - counts[bad].sum() / total, texts[int(np.argmax(bad))]
    is_plain = all(map(WHOLE.fullmatch, compress(texts, ~bad)))
    # the others are probably errors, or one word for missing cells
    is_nearly = share >= 0.9
    is_measure = not is_plain and bool(is_nearly or (bad.sum() == 1 and share > 0.5))
    if (is_measure or is_nearly) and not (is_plain and LEADING_ZERO.fullmatch(other)):
        but = quoted(other) if bad.sum() == 1 else f"text like {quoted(other)}"
        note = f"{what}, but for {but} ({int(1000 * share) / 10:g}% are)"
        return Recognised(None, note, other, is_measure)
    like = np.array([bool(NUMBER_LIKE.fullmatch(text.strip())) for text in texts])
    note = f"numbers or times, like {quoted(texts[int(np.argmax(like))])}, which are not read"
    is_like = len(texts) > FEW_VALUES and counts[like].sum() > total / 2
    return Recognised(None, note if is_like else "", "" if is_like else other, is_measure)


def _are_two_scales(notation: Notation, texts: Sequence[str]) -> bool:
    """Whether one word, like "K", would set its numbers far apart from those without: it may be a unit, too."""
    if len(notation.powers) != 2 or notation.powers[-1] or notation.prefix or notation.suffix:
        return False
    sizes, has_word = np.abs(notation.read(texts)), [notation.powers[0] in text for text in texts]
    small = sizes[np.logical_not(has_word) & (sizes > 0)]
    return len(small) > 0 and sizes[has_word].min() > 10 * small.max()


def _are_labels(texts: Sequence[str], counts: np.ndarray) -> bool:
    """Whether texts that could be numbers are ranges like "10-12", grades like "2-", or phone numbers."""
    ends = {text[-1].replace("\u2212", "-") for text in texts}
    if "-" in ends and (
        "+" in ends or (len(texts) <= FEW_VALUES and all(map(GRADE.fullmatch, texts)))
    ):
        return True
    if all(map(PHONE.fullmatch, texts)):
        return True
    is_range = np.array([bool(RANGE.fullmatch(text)) for text in texts])
    return 2 * counts[is_range].sum() > counts.sum()


def _is_grouped_money(texts: Sequence[str]) -> bool:
    """Whether texts that two marks fit are money in whole units: what has no mark is below a thousand."""
    found = [m for text in texts if (m := Notation().pattern.fullmatch(western(text)))]
    has_unit = [bool({m["prefix"], m["suffix"]} - {None, "", "%"}) for m in found]
    alone = [len(m["number"]) for m in found if m["number"].isdecimal()]
    return len(found) == len(texts) and all(has_unit) and bool(alone) and max(alone) < 4


def _tried(way: Callable[..., np.ndarray], texts: Sequence[str], probe: Sequence[str]) -> Any:
    """The values of the texts; all missing, if less than half of a probe of them has one."""
    few = len(probe) > 2 * np.count_nonzero(~pd.isna(way(probe)))
    return np.repeat(way([""]), len(texts)) if few else way(texts)


def tell(name: Hashable, found: Recognised) -> None:
    """Warn that a column of text is ambiguous, naming the options that specify its notation."""
    note, word = found.note, found.unlike
    if found.either:
        kind = NOTATIONS[2:] if found.either == "dates" else NOTATIONS[:2]
        python = " or ".join(f"column_types={{{name!r}: {{'notation': {way!r}}}}}" for way in kind)
        shell = " or ".join(f"--column {name}={way}" for way in kind)
        ways = f"say which, with {advice(python, shell)}"
    else:
        keeps = text_option(name)
        gap = advice(f"replace {quoted(word)} by None", f"give --csv {shlex.quote(f'na={word}')}")
        clean = f"{gap} where a cell is missing, clean it" if word else "make its cells alike"
        ways = f"{clean}, or say that it is text with {keeps}"
    topic = "either" if found.either else "nearly"
    warn_of_column(name, f"taken as text, though it looks like {note}; {ways}", topic)


def settled(columns: Iterable[Recognised], *, any_points: bool) -> dict[str, Asked]:
    """The mark of numbers and the order of dates on which all columns of a table agree whose notation is known.

    ``any_points`` says that others have numbers with a decimal point.
    """
    known = [found.notation for found in columns if found.notation is not None]
    marks = {n.decimal for n in known if n.family == "number" and (n.places != 0 or n.grouping)}
    marks = (marks | ({"."} if any_points else set())) - {None}
    orders = {n.day_first for n in known} - {None}
    of_numbers: dict[Any, Asked] = {",": "decimal-comma", ".": "decimal-point"}
    of_dates: dict[Any, Asked] = {True: "day-first", False: "month-first"}
    found = {"numbers": (marks, of_numbers), "dates": (orders, of_dates)}
    return {what: names[min(own)] for what, (own, names) in found.items() if len(own) == 1}


def text_option(name: Hashable) -> str:
    """The option by which a column is text."""
    shell = shlex.quote(f"{name}=nominal")
    return advice(f"column_types={{{name!r}: 'nominal'}}", f"--column {shell}")


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


def _unit(text: str) -> str:
    """The one name of a unit, without spaces."""
    found = text.strip()
    return SAME_UNIT.get(found, found)


def _marks(texts: Sequence[str], counts: np.ndarray) -> Notation:
    """What stands around numbers: text that is the unit of half of the cells at least, and words for powers of ten."""
    cells = [western(text) for text in texts]
    words: set[str] = set()
    if any(map(WITH_POWER.fullmatch, cells[:: max(1, len(cells) // 50)])):
        words = {m["power"] for cell in cells if (m := WITH_POWER.fullmatch(cell))}
    if len({POWERS[word] for word in words}) + any(cell[-1:].isdigit() for cell in cells) < 2:
        words.clear()  # a unit
    if all(len(word) == 1 and word.isascii() and word not in "kK" for word in words):
        words.clear()  # a code
    found: Counter[tuple[str, str]] = Counter()
    for cell, n in zip(cells, counts.tolist(), strict=True):
        if words:
            cell = WITH_POWER.sub(r"\g<number>\g<rest>", cell)
        if (match := AROUND.fullmatch(cell)) is None:
            continue
        before, behind = match["before"], match["behind"] or ""
        if behind[1:].isdecimal() and 2 * len(behind) < len(cell) + 1:  # "2023/24" is of no 24
            continue
        is_unit = BEFORE.match(before) if before else BEHIND.fullmatch(behind)
        if is_unit and (not before or not behind or BEHIND.fullmatch(behind)):
            found[before.strip(SPACES), behind] += n
    affixes, n = found.most_common(1)[0] if found else (("", ""), 0)
    # whole numbers behind letters are codes: "LH 4184"
    is_code = bool(affixes[0]) and not any(re.search(r"\d\D+\d", cell) for cell in cells)
    prefix, suffix = affixes if 2 * n >= counts.sum() and not is_code else ("", "")
    return Notation(prefix=prefix, suffix=suffix, powers=tuple(sorted(words)))


def western(text: str) -> str:
    """Text without spaces around it, with digits of any script, and full-width characters, as those of ASCII."""
    text = text.strip()
    if text.isascii():
        return text
    return OTHER_CHARACTER.sub(lambda c: SAME_CHARACTER.get(c[0]) or str(int(c[0])), text)


def _digits(texts: Sequence[str]) -> str:
    """The digits from zero on, point and comma, of texts most of whose digits are not those of ASCII; else empty."""
    text = "".join(texts)
    others = [] if text.isascii() else OTHER_DIGIT.findall(text)
    if 2 * len(others) <= sum(map(str.isdecimal, text)):
        return ""
    zero = ord(others[0]) - int(others[0])
    marks = (next((c for c in text if SAME_CHARACTER.get(c, c) == mark), mark) for mark in ".,")
    return "".join([*map(chr, range(zero, zero + 10)), *marks])


# a number with what stands before it, apart from its sign and a currency, and behind it
AROUND = re.compile(
    rf"(?:[{BOUNDS}][{SPACES}]?)?[-+(\u2212]?(?:{UNITS}[{SPACES}]*)?(?P<before>[^\d{SPACES}(+-]*[{SPACES}]?)[-+\u2212]?"
    rf"\d[\d.,'\u2019{SPACES}]*(?<=\d)[{SPACES}]*(?P<behind>[^\d{SPACES}%+)-][^\s)]*)?\)?"
)
# a number with a word for a power of ten
WITH_POWER = re.compile(
    rf"(?P<number>\D{{0,5}}\d[\d.,'\u2019{SPACES}]*)(?P<power>{'|'.join(map(re.escape, sorted(POWERS, reverse=True)))})"
    rf"(?P<rest>(?:[{SPACES}].*|[)+-]|{UNITS})?)"
)


def _numbers(texts: Sequence[str], own: Notation, *, any_unit: bool = False) -> np.ndarray:
    """The numbers of texts with or without the unit of a column, or with any known one; NaN for other texts."""
    found = [_number(text, own) for text in texts]
    return np.array([x if any_unit or not unit else np.nan for x, unit in found])


def _number(text: str, own: Notation) -> tuple[float, str]:
    """The number of a text, or the middle of two, and its unit, if that is not the column's; NaN if it has none."""
    text = western(text)
    match = own.pattern.fullmatch(text)
    if match is None:
        between = RANGE.fullmatch(text)
        ends = [_number(between[end], own) for end in ("low", "high")] if between else []
        if ends and 0 <= ends[0][0] < ends[1][0]:
            return (ends[0][0] + ends[1][0]) / 2, ends[1][1]
        return np.nan, ""
    signs = [match[part] for part in ("open", "sign", "inner", "after", "last") if match[part]]
    if len(signs) > 1 or bool(match["open"]) != bool(match["close"]):
        return np.nan, ""
    around = [mark for mark in (match["prefix"], match["suffix"]) if mark]
    units = (
        set(map(_unit, around)) - {_unit(own.prefix), _unit(own.suffix), ""} if around else set()
    )
    number = float(match["number"].translate(PYTHONS[own.decimal or "."]))
    if len(units) > 1 or (match["one"] and number != 1):
        return np.nan, ""
    if match["power"]:
        number = float(f"{number!r}e{POWERS[match['power'].strip(SPACES)]}")
    return -number if signs and signs != ["+"] else number, "".join(units)


def _of_numbers(texts: Sequence[str], counts: np.ndarray, own: Notation, **_: bool) -> Notation:
    """The notation of numbers that all match, with the unit of most of them."""
    matches = [own.pattern.fullmatch(western(text)) for text in texts]
    pairs = zip(matches, counts.tolist(), strict=True)
    found = {match: n for match, n in pairs if match is not None}  # without ranges
    marked: Counter[tuple[str, str]] = Counter()  # text before and after a number
    negative: Counter[str] = Counter()
    for match, count in found.items():
        if match["prefix"] or match["suffix"]:
            marked[match["prefix"] or "", match["suffix"] or ""] += count
        before, behind = match["sign"] or match["inner"], match["after"] or match["last"]
        if match["open"] or behind or before not in (None, "+"):
            form = "({})" if match["open"] else f"{{}}{behind}" if behind else f"{before}{{}}"
            negative[form] += count
    prefix, suffix = marked.most_common(1)[0][0] if marked else ("", "")
    fractions = {-1 if "e" in m["number"].lower() else len(m["fraction"] or ".") - 1 for m in found}
    words = {POWERS[word.strip(SPACES)]: word for m in found if (word := m["power"])}
    words |= {0: ""} if words and not all(m["power"] for m in found) else {}
    return Notation(
        decimal=own.decimal,
        grouping=next((m["group"] for m in found if m["group"]), ""),
        prefix=prefix,
        suffix=suffix,
        pairs=any(re.search(r",\d\d,", m["number"]) for m in found),
        places=max(fractions) if -1 not in fractions and (words or len(fractions) == 1) else None,
        negative=negative.most_common(1)[0][0] if negative else "-{}",
        powers=tuple(words[power] for power in sorted(words, reverse=True)),
        digits=_digits(texts),
    )


def _formatted(time: datetime, form: str, names: Sequence[str]) -> str:
    """A time in a ``strftime`` format, or in ISO 8601 if another time would be read from the text."""
    # what C writes otherwise, depending on the system and its language
    own = {"%Y": f"{time.year:04}", "%-d": time.day, "%-m": time.month, "%-H": time.hour}
    own |= {"%-I": (time.hour - 1) % 12 + 1}
    own |= {"%B": names[time.month - 1], "%A": names[12 + time.weekday()]} if names else {}
    own |= {f"{{p[{k}]}}": pair[time.hour >= 12] for k, pair in enumerate(HALVES)}
    codes = "|".join(map(re.escape, own))
    text = time.strftime(re.sub(codes, lambda code: str(own[code[0]]), form))
    if _time(text, form.rfind("d") < form.rfind("m"), None) == time:
        return text
    return time.isoformat(" ").removesuffix(" 00:00:00")


def _parts(text: str, patterns: Iterable[re.Pattern[str]]) -> re.Match[str] | None:
    """The parts of a date, or of a duration or time of day, by their names in :data:`DATES` or :data:`SPANS`."""
    text = western(text)
    return next(filter(None, (pattern.fullmatch(text) for pattern in patterns)), None)


def _hour(part: Mapping[str, Any]) -> int:
    """The hour of a clock of 24 hours; ValueError if one of twelve has no such hour."""
    hour, half = int(part.get("H") or 0), part.get("half") or part.get("fore")
    if not half:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + 12 * any(half == pm for _, pm in HALVES)


def _half(match: re.Match[str]) -> dict[str, str]:
    """The codes of words for a half of the day: in ``str.format``, the pair of which one is."""
    part = match.groupdict()
    word = part.get("half") or part.get("fore")
    k = next((k for k, pair in enumerate(HALVES) if word in pair), 0)
    return dict.fromkeys(("half", "fore"), f"{{p[{k}]}}")


def _seconds(text: str) -> float:
    """The seconds of a duration, or of a time of day since midnight; NaN for other text."""
    if (match := _parts(text, SPANS)) is None:
        return np.nan
    part = match.groupdict()
    with suppress(ValueError):
        part["H"] = part["H"] and _hour(part)
        known = [(part[name], size) for name, size in SECONDS.items() if part.get(name) is not None]
        return sum(float(str(number).replace(",", ".")) * size for number, size in known)
    return np.nan


def _of_spans(texts: Sequence[str], counts: np.ndarray) -> Notation:
    """The notation of durations or times of day: written as most with the same largest part, with zeros where any has.

    The formats of several largest parts, the longest first, are divided by "|".
    """
    found = [match for text in texts if (match := _parts(text, SPANS))]
    padded = {name for match in found for name in "HMS" if LEADING_ZERO.match(match[name] or "")}
    formats: dict[str, Counter[str]] = {name: Counter() for name in SECONDS}
    for match, n in zip(found, counts.tolist(), strict=True):
        codes = {name: f"{{{name}:02}}" if name in padded else f"{{{name}}}" for name in SECONDS}
        form = _form(match, codes | _half(match))
        formats[next(name for name in SECONDS if f"{{{name}" in form)][form] += n
    known = [own.most_common(1)[0][0] for own in formats.values() if own]
    return Notation("timedelta", format="|".join(known), digits=_digits(texts))


def _spelled(seconds: float, forms: str) -> str:
    """A duration or time of day as text, to the finest part of the first format that has a part as long."""
    for form in forms.split("|"):
        names = [name for name in SECONDS if f"{{{name}" in form]
        if abs(seconds) >= SECONDS[names[0]]:
            break
    rest = round(seconds / SECONDS[names[-1]])
    parts: dict[str, Any] = {}
    for name, larger in zip(names[::-1], [*names[-2::-1], ""], strict=True):
        size = SECONDS[larger] // SECONDS[name] if larger else max(rest, 0) + 1
        rest, parts[name] = divmod(rest, size)
    if "{p" in form:
        is_pm = parts["H"] % 24 >= 12
        parts["p"] = [pair[is_pm] for pair in HALVES]
        parts["H"] = (parts["H"] - 1) % 12 + 1
    return form.format(**parts)


def _month(word: str) -> int:
    """The month of a name or its abbreviation; 0 if it is none."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if c.isalpha())
    found = [(len(name), month) for name, month in MONTHS.items() if letters.startswith(name)]
    return max(found, default=(0, 0))[1]


def _times(texts: Sequence[str], day_first: bool | None, zoned: bool | None = None) -> np.ndarray:
    """The times of texts (datetime64[us]) with days before months or not; NaT for other texts.

    Those with a time zone are times of UTC; ``zoned`` is whether all or none have one.
    """
    return np.array([_time(text, day_first, zoned) for text in texts], dtype="datetime64[us]")


def _time(text: str, day_first: bool | None, zoned: bool | None) -> datetime | None:
    if (match := _parts(text, DATES)) is None:
        return None
    part = match.groupdict()
    zone = part["zone"]
    if (day_first is None and part.get("a")) or zoned not in (None, bool(zone)):
        return None
    month, day = part.get("m"), part["d"]
    if part.get("a"):
        month, day = (part["b"], part["a"]) if day_first else (part["a"], part["b"])
    digits = part.get("y") or part.get("z") or part["n"].replace("元", "1")
    year, month, day = int(digits), int(month or _month(part["word"])), int(day)
    if part.get("era"):
        year += ERAS[part["era"][0]]
    elif len(digits) == 2:
        year += 1900 if year >= CENTURY else 2000
    try:
        clock: Any = ()
        if part["H"]:
            fraction = int((part["f"] or "").ljust(6, "0"))
            clock = _hour(part), int(part["M"]), int(part["S"] or 0), fraction
        time = datetime(year, month, day, *clock)
        offset = datetime.strptime(zone.strip(), "%z").utcoffset() if zone else None
        return time - (offset or timedelta(0))
    except (ValueError, OverflowError):  # no such day
        return None


WAYS: dict[str, dict[Asked, partial[np.ndarray]]] = {
    "dates": {
        "day-first": partial(_times, day_first=True),
        "month-first": partial(_times, day_first=False),
    },
    "numbers": {
        "decimal-point": partial(_numbers, own=Notation(), any_unit=True),
        "decimal-comma": partial(_numbers, own=Notation(decimal=","), any_unit=True),
    },
}


def _of_dates(texts: Sequence[str], counts: np.ndarray, day_first: bool) -> Notation:
    """The notation of dates that all match: written as most of them are."""
    shapes: dict[str, tuple[str, int]] = {}  # texts with the same format, and how many there are
    for text, count in zip(texts, counts.tolist(), strict=True):
        shape = re.sub(r"\d", "1", re.sub(r"(?<!\d)0(?=\d)", "o", text))
        shapes[shape] = text, shapes.get(shape, ("", 0))[1] + count
    found = [(match, n) for text, n in shapes.values() if (match := _parts(text, DATES))]
    parts = [(name, text) for match, _ in found for name, text in match.groupdict().items() if text]
    short = {name for name, text in parts if name in "mdHab" and len(text) == 1}
    short -= {name for name, text in parts if text.startswith("0")}
    formats, names = Counter[str](), [Counter[str]() for _ in range(19)]
    for match, count in found:
        formats[date_format(match, day_first, short)] += count
        part, time = match.groupdict(), _time(match.string, day_first, None)
        if time and (word := part.get("word")):
            names[time.month - 1][word] += count
        if time and (word := part.get("w") or part.get("v")):
            names[12 + time.weekday()][word] += count
    n_zoned = sum(n for form, n in formats.items() if form.endswith(UTC))
    zoned = 2 * n_zoned > formats.total()
    return Notation(
        "datetime",
        day_first=day_first if any(match.groupdict().get("a") for match, _ in found) else None,
        # keeps the time
        format=max(formats, key=lambda f: (f.endswith(UTC) == zoned, "%M" in f, formats[f])),
        names=tuple(max(own, key=own.__getitem__, default="") for own in names)
        if any(names)
        else (),
        digits=_digits(texts),
    )


def date_format(match: re.Match[str], day_first: bool, short: Collection[str] = ()) -> str:
    """The format of a date, with what stands between its parts, of which some have no zero before them."""
    part = {name: text for name, text in match.groupdict().items() if text}
    if "era" in part:
        return "%Y-%m-%d"
    codes = {name: f"%{name}" for name in "mdHMSf"}
    codes |= {"word": "%B", "w": "%A", "v": "%A", "zone": UTC, "a": "%m", "b": "%d"}
    codes |= {name: "%Y" if len(part.get(name, "")) == 4 else "%y" for name in "yz"}
    codes |= {"a": "%d", "b": "%m"} if day_first else {}
    codes |= {"H": "%I", **_half(match)} if {"half", "fore"} & {*part} else {}
    codes |= {name: codes[name].replace("%", "%-") for name in short}
    return _form(match, codes)


def _form(match: re.Match[str], codes: Mapping[str, str]) -> str:
    """A text with the ``codes`` of its parts in their place."""
    form, end = "", 0
    for name in sorted((n for n in match.groupdict() if n in codes and match[n]), key=match.start):
        form += match.string[end : match.start(name)] + codes[name]
        end = match.end(name)
    return form + match.string[end : match.end()]


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
