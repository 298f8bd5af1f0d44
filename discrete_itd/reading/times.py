"""Text of dates and times of day, and of durations.

- Dates: the year first, or day, month and year in one order for the whole column, with points, slashes, hyphens or
  the month's name, a weekday beside them. Both orders may fit only if they are the same dates. Several of these formats
  may be mixed, with or without a time of 24 or of twelve hours; all or none have a time zone.
- Durations and times of day: hours, minutes and seconds, or words for these, for days, weeks, months and years.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from discrete_itd.reading.notation import Asked, Notation, Refusal, best_way
from discrete_itd.reading.text import (
    FEW_VALUES,
    LEADING_ZERO,
    SPACES,
    digits_of,
    most_unreadable,
    quoted,
    western,
)

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
UTC = "+00:00"  # at the end of the format of times with a zone, which are written in UTC
CENTURY = 69  # two digits of a year from here on are of the last century, as POSIX has it
ORDERS: dict[bool, Asked] = {True: "day-first", False: "month-first"}


@dataclass(frozen=True)
class DateNotation(Notation):
    """Notation of dates and times.

    Parameters
    ----------
    day_first : bool, optional
        Order of dates that do not begin with the year; None if there are none.
    format : str
        As in ``strftime``.
    names : tuple of str
        The names of the months and of the days from Monday on, of a ``%B`` or ``%A``; empty where no date had one.
    """

    day_first: bool | None = None
    format: str = ""
    names: tuple[str, ...] = ()

    family: ClassVar = "datetime"
    name: ClassVar = "date"
    plural: ClassVar = "dates"

    @classmethod
    def take(
        cls, texts: Sequence[str], counts: np.ndarray, asked: Asked | None, **_: bool
    ) -> DateNotation | Refusal:
        orders = [order for order, option in ORDERS.items() if asked in (None, option)]
        choice = best_way([cls(day_first=order) for order in orders], texts, counts)
        if isinstance(choice, Refusal):
            return choice
        known = [*compress(texts, ~choice.is_bad)]
        notation = _written_as(known, counts[~choice.is_bad], choice.way.day_first)
        if counts[np.isnat(notation.read(texts))].sum() > most_unreadable(int(counts.sum())):
            reason = "times, some with a time zone and some without"
            return Refusal(reason, is_measure=True)
        if choice.is_either and notation.day_first is not None:
            unlike = quoted(texts[int(np.argmax(choice.differ))])
            reason = f"dates like {unlike}, whose day and month could be either"
            return Refusal(reason, is_measure=True, options=(*ORDERS.values(),))
        return notation

    def read(self, texts: Sequence[Any]) -> np.ndarray:
        """The times of texts (datetime64[us]); NaT for other texts, and where all or none must have a time zone.

        Those with a time zone are times of UTC.
        """
        return self._read(texts, self.format.endswith(UTC))

    def read_loosely(self, texts: Sequence[Any]) -> np.ndarray:
        return self._read(texts, None)

    def _read(self, texts: Sequence[Any], zoned: bool | None) -> np.ndarray:
        times = [_time(text, self.day_first, zoned) for text in texts]
        return np.array(times, dtype="datetime64[us]")

    def write(self, values: pd.Series) -> pd.Series:
        """Times as text, of dtype object; missing ones are None, those for which the format has no place ISO 8601."""
        texts = [None if pd.isna(v) else _formatted(v, self.format, self.names) for v in values]
        return self.in_digits(texts, values.index)

    @property
    def is_plain(self) -> bool:
        is_iso = self.day_first is None and self.format.startswith("%Y-%m-%d")
        return is_iso and "%I" not in self.format and not self.format.endswith(UTC)

    @property
    def way(self) -> Asked | None:
        return None if self.day_first is None else ORDERS[self.day_first]

    @property
    def example(self) -> str:
        month = next((k for k, name in enumerate(self.names[:12], 1) if name), 1)
        day = datetime(2028, month, 24)
        return quoted(_formatted(day, self.format or "%Y-%m-%d", self.names))


@dataclass(frozen=True)
class DurationNotation(Notation):
    """Notation of durations and times of day.

    Parameters
    ----------
    format : str
        As in ``str.format``, with the parts of :data:`SECONDS`; several, of which the first that has a part as long as
        the duration is taken, are divided by "|".
    """

    format: str = ""

    family: ClassVar = "timedelta"
    name: ClassVar = "time"
    plural: ClassVar = "times"

    @classmethod
    def take(
        cls, texts: Sequence[str], counts: np.ndarray, asked: Asked | None, **_: bool
    ) -> DurationNotation | Refusal:
        is_bad = np.array([np.isnan(_seconds(text)) for text in texts])
        if asked is not None or counts[is_bad].sum() > most_unreadable(int(counts.sum())):
            return Refusal(unread=is_bad)
        if np.count_nonzero(~is_bad) <= FEW_VALUES:
            return Refusal(unlike=texts[0], is_measure=True)
        return _spans_written_as([*compress(texts, ~is_bad)], counts[~is_bad])

    def read(self, texts: Sequence[Any]) -> np.ndarray:
        seconds = np.array([_seconds(text) for text in texts], dtype=float)
        return pd.to_timedelta(seconds, unit="s").as_unit("us").to_numpy()

    def write(self, values: pd.Series) -> pd.Series:
        seconds = values.dt.total_seconds()
        texts = [None if np.isnan(v) else _spelled(v, self.format) for v in seconds.tolist()]
        return self.in_digits(texts, values.index)

    @property
    def is_plain(self) -> bool:
        return False

    @property
    def example(self) -> str:
        longest = next(size for part, size in SECONDS.items() if f"{{{part}" in self.format)
        return quoted(_spelled(max(5415.0, 3.0 * (longest > 3600) * longest), self.format))


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


def _spans_written_as(texts: Sequence[str], counts: np.ndarray) -> DurationNotation:
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
    return DurationNotation(digits_of(texts), "|".join(known))


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


def month_named(word: str) -> int:
    """The month of a name or its abbreviation; 0 if it is none."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if c.isalpha())
    found = [(len(name), month) for name, month in MONTHS.items() if letters.startswith(name)]
    return max(found, default=(0, 0))[1]


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
    year, month, day = int(digits), int(month or month_named(part["word"])), int(day)
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


def _written_as(texts: Sequence[str], counts: np.ndarray, day_first: bool) -> DateNotation:
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
    return DateNotation(
        day_first=day_first if any(match.groupdict().get("a") for match, _ in found) else None,
        # keeps the time
        format=max(formats, key=lambda f: (f.endswith(UTC) == zoned, "%M" in f, formats[f])),
        names=tuple(max(own, key=own.__getitem__, default="") for own in names)
        if any(names)
        else (),
        digits=digits_of(texts),
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
