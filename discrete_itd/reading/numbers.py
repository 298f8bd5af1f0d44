r"""Text of numbers: money, percentages, decimal commas, units, words for powers of ten, bounds.

- Decimal mark: comma or point, the other one (or a space or an apostrophe) groups thousands. Each cell must be a number
  under one of the two, and under the other one not all cells may be different numbers: "1.234" alone is ambiguous,
  "1.234" beside "0.5" or "12.345,67" is not, nor is money like "$1,234" beside "$987" or less: thousands. A number that
  begins with a zero before another digit is a code. Negative numbers have their sign before or after them, or stand in
  parentheses.
- Units: one sign or code of a currency, a percent sign, or what else stands before or behind half of the numbers at
  least, like "km/h". "12,5 %" is the number 12.5, as "12,5" is beside it; a number with another unit is none of the
  column's. Words for powers of ten, "1.2M" beside "350K", are multiplied out where they differ; "294 K" beside "312.5"
  is ambiguous, as the "K" may be a unit. Whole numbers behind letters, "LH 4184", are codes.
- Bounds like "<0.5" and "90+" are the number that is the bound, "~40" is 40, "80-100" among numbers is 90.
- Text of nothing but plain whole numbers is not parsed, since text distinguishes categories from numbers in Python; a
  kind "continuous" reads it. With unreadable cells among them, these are the reason why it is text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from discrete_itd.reading.frames import decimals_of
from discrete_itd.reading.notation import Asked, Notation, Refusal, best_way
from discrete_itd.reading.text import (
    ASCII_DIGITS,
    FEW_VALUES,
    SPACES,
    WHOLE,
    digits_of,
    most_unreadable,
    quoted,
    western,
)
from discrete_itd.validation import advice, check_choice

# currencies, by their names
CURRENCIES = (
    "€ EUR", "£ GBP", "USD US$", "CAD C$", "AUD A$", "BRL R$", "CHF Fr.", "kr kr.", "PLN zł", "CZK Kč", "HUF Ft",
    "RON lei", "BGN лв. лв", "₹ Rs Rs. INR", "₺ TL TRY", "₽ руб. руб р. RUB", "₴ грн. грн UAH", "₩ 원 KRW", "CNY 元",
    "JPY 円", "EGP ج.م ج.م.", "SEK", "NOK", "DKK", "MXN", "ZAR", "NGN", "KES", "GHS", "AED", "SAR", "ILS", "THB", "IDR",
    "MYR", "VND", "SGD", "HKD", "TWD", "NZD", "ARS", "CLP",
)  # fmt: skip
SAME_UNIT = {name: names.split()[0] for names in CURRENCIES for name in names.split()}
UNITS = rf"(?:[%‰]|[^\W\d_]{{0,3}}[$¢£¥\u20a0-\u20cf]|{'|'.join(map(re.escape, sorted(SAME_UNIT, reverse=True)))})"
SAME_UNIT |= {sign: sign for sign in "$¢¥"}
SAME_UNIT |= {mark + dash: "" for mark in ".," for dash in "-–—"}  # whole amounts
# words for a power of ten behind a number
POWERS = {word: power for power, words in (
    (3, "k K tys. тыс. тыс Tsd. mil bin"), (4, "万 만"), (5, "lakh"), (7, "crore Cr"), (8, "億 亿 억"),
    (6, "M m mn mln млн млн. Mio. Mio Mill. milyon million millones"), (9, "B b bn mld mlrd млрд Mrd. Mrd billion"),
) for word in words.split()}  # fmt: skip
# text around the numbers of a column that is its own unit: "Nr. ", "EGP " before, "km/h", "°", "mm²" behind
SIGN = r"[^\x00-\x7f\w\s\u2010-\u2027]"  # of any script: °, €, ℃
BEFORE = re.compile(rf"[^\W\d_]{{1,3}}\.|[A-Z]{{1,3}}(?=[{SPACES}])")
BEHIND = re.compile(
    rf"(?:(?:[/$]|{SIGN})*[^\W\d_][^\s\d]{{0,9}}|{SIGN}[^\s\d]{{0,5}})[23]?|/\d{{1,3}}"
)
# before a number that is only a bound of what was measured, or about it; a plus sign behind it is one, too
BOUNDS = "<>≤≥~≈"
OPTIONS: dict[str, Asked] = {".": "decimal-point", ",": "decimal-comma"}
GROUPS = {".": SPACES + "'\u2019,", ",": SPACES + "'\u2019."}  # by the decimal mark
PYTHONS = {mark: str.maketrans(mark, ".", groups) for mark, groups in GROUPS.items()}
NEGATIVES = ("-{}", "({})", "{}-", "\u2212{}", "{}\u2212")  # how negative numbers are written
# cells that are bounds, or a range; grades
BOUNDED = re.compile(rf"\s*[{BOUNDS}].*|.*\d\+\s*|[^-–—]*\d\s?[-–—]\s?\d[^-–—]*")
RANGE = re.compile(r"(?P<low>[^-–—]*\d)\s?[-–—]\s?(?P<high>\d[^-–—]*)")
GRADE = re.compile(r"\d{1,2}[-+\u2212]?")
PHONE = re.compile(
    r"\+?(?:\d{2}[ .])?\d{3}(?:[ .]\d{3}){2,}"
)  # or an address; few numbers are all so long
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
# one number with anything around it, but for letters before it, as codes have them
ONE_NUMBER = re.compile(
    rf"((?:{UNITS}|[^\w+.,{BOUNDS}±(-])*)([-+]?(?:[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+)(?:[eE][-+]?[0-9]+)?)([^0-9<>+±]*)"
)


@dataclass(frozen=True)
class NumberNotation(Notation):
    """Notation of numbers.

    Parameters
    ----------
    decimal : {".", ","}, optional
        Decimal mark; None if no number of the training table has one: then numbers need to be the same with either.
    grouping, prefix, suffix : str
        Mark between thousands, and what stands before and after a number, like " €".
    pairs : bool
        Whether digits above thousands are in groups of two, like "12,34,567".
    places : int, optional
        Decimals of every number; None if they differ.
    negative : str
        Of a negative number, as in ``str.format``.
    powers : tuple of str
        Words for powers of ten behind the numbers, where they differ, the largest first.

    Examples
    --------
    >>> german = NumberNotation(decimal=",", grouping=".", suffix=" €", places=2)
    >>> german.read(["5.067,14 €", "12 €", "soon"])
    array([5067.14,   12.  ,     nan])
    >>> german.write(pd.Series([5067.14, None])).tolist()
    ['5.067,14 €', None]
    """

    decimal: str | None = "."
    grouping: str = ""
    prefix: str = ""
    suffix: str = ""
    pairs: bool = False
    places: int | None = None
    negative: str = "-{}"
    powers: tuple[str, ...] = ()

    family: ClassVar = "number"
    name: ClassVar = "number"
    plural: ClassVar = "numbers"

    def __post_init__(self) -> None:
        check_choice("decimal", self.decimal, (".", ",", None))
        check_choice("negative", self.negative, NEGATIVES)
        if self.places is not None and not 0 <= self.places < 99:
            raise ValueError(f"places must be a small number, got {self.places!r}")

    @classmethod
    def take(
        cls, texts: Sequence[str], counts: np.ndarray, asked: Asked | None, *, plain: bool
    ) -> NumberNotation | Refusal:
        marks = [mark for mark, option in OPTIONS.items() if asked in (None, option)]
        around = _around(texts, counts) if marks else cls()
        choice = best_way([replace(around, decimal=mark) for mark in marks], texts, counts)
        if isinstance(choice, Refusal):
            return choice
        known, n_cells = [*compress(texts, ~choice.is_bad)], counts[~choice.is_bad]
        if _are_labels(known, n_cells):
            return Refusal()
        unlike = texts[int(np.argmax(choice.differ))]
        if choice.is_either and choice.differ.any():
            if _is_grouped_money(known):
                grouped: Asked = "decimal-point" if "," in unlike else "decimal-comma"
                return cls.take(texts, counts, grouped, plain=plain)
            reason = f"numbers like {quoted(unlike)}, whose mark could be decimal or of thousands"
            return Refusal(reason, is_measure=True, options=(*OPTIONS.values(),))
        are_plain = not choice.is_bad.any() and all(map(WHOLE.fullmatch, known))
        if all(re.fullmatch(r"\(\d+\)", text.strip()) for text in known) or (  # of a list
            are_plain and not (plain or asked)
        ):
            return Refusal()
        notation = _written_as(known, n_cells, choice.way)
        if notation.are_two_scales(known):
            word = quoted(notation.powers[0].strip(SPACES))
            return Refusal(f"numbers with and without {word}", is_measure=True)
        is_bad = np.isnan(notation.read(texts))
        if counts[is_bad].sum() > most_unreadable(int(counts.sum())):
            affix = notation.prefix.strip(SPACES) or notation.suffix.strip(SPACES)
            own = next(text for text in known if affix in text)
            return in_two_units(own, texts[int(np.argmax(is_bad & ~choice.is_bad))])
        return replace(notation, decimal=None) if choice.is_either else notation

    def read(self, texts: Sequence[Any]) -> np.ndarray:
        if self.decimal is None:
            whole = [text.removesuffix(".0") for text in texts]  # as readers write them beside gaps
            found, other = (replace(self, decimal=mark).read(whole) for mark in ".,")
            return np.where(found == other, found, np.nan)
        return np.array([np.nan if unit else x for x, unit in map(self.value_of, texts)])

    def read_loosely(self, texts: Sequence[Any]) -> np.ndarray:
        return np.array([self.value_of(text)[0] for text in texts])

    def value_of(self, text: str) -> tuple[float, str]:
        """The number of a text, or the middle of two, and its unit, if not the column's; NaN if it has none."""
        text = western(text)
        match = self.pattern.fullmatch(text)
        if match is None:
            between = RANGE.fullmatch(text)
            ends = [self.value_of(between[end]) for end in ("low", "high")] if between else []
            if ends and 0 <= ends[0][0] < ends[1][0]:
                return (ends[0][0] + ends[1][0]) / 2, ends[1][1]
            return np.nan, ""
        signs = [match[part] for part in ("open", "sign", "inner", "after", "last") if match[part]]
        if len(signs) > 1 or bool(match["open"]) != bool(match["close"]):
            return np.nan, ""
        around = [mark for mark in (match["prefix"], match["suffix"]) if mark]
        own = {unit_of(self.prefix), unit_of(self.suffix), ""} if around else set()
        units = set(map(unit_of, around)) - own
        number = float(match["number"].translate(PYTHONS[self.decimal or "."]))
        if len(units) > 1 or (match["one"] and number != 1):
            return np.nan, ""
        if match["power"]:
            number = float(f"{number!r}e{POWERS[match['power'].strip(SPACES)]}")
        return -number if signs and signs != ["+"] else number, "".join(units)

    def write(self, values: pd.Series) -> pd.Series:
        """Numbers as text, of dtype object, rounded to their places; missing ones are None."""
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        places = self.places
        if places is None:
            places = decimals_of(numbers[~np.isnan(numbers)], np.dtype(float))
        texts = [None if np.isnan(v) else self._written(v, places) for v in numbers.tolist()]
        return pd.Series(texts, index=values.index, dtype=object)

    def _written(self, number: float, places: int | None) -> str:
        size, power = abs(number), ""
        if self.powers:
            scales = {word: 10.0 ** POWERS[word.strip(SPACES)] for word in self.powers if word}
            power = next((word for word, scale in scales.items() if size >= scale), self.powers[-1])
            size /= scales.get(power, 1.0)
        text = f"{size:,}" if places is None else f"{size:,.{places}f}"
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
    def way(self) -> Asked | None:
        return (
            OPTIONS[self.decimal] if self.decimal and (self.places != 0 or self.grouping) else None
        )

    @property
    def unit(self) -> str:
        """The one name of the unit, without spaces; empty without one."""
        return unit_of(self.prefix) or unit_of(self.suffix)

    @property
    def example(self) -> str:
        return quoted(self.write(pd.Series([1234.5 if self.places != 0 else 1234.0])).iloc[0])

    @property
    def mark(self) -> str:
        return {",": " with a decimal comma,", ".": " with a decimal point,", None: ","}[
            self.decimal
        ]

    def hint(self, text: str) -> str:
        """Explanation of a text that is a number with another unit or the other decimal mark."""
        units = {replace(self, decimal=mark).value_of(text)[1] for mark in self.decimal or ".,"}
        if units - {""}:
            return f", which is in {max(units)}" + (f", not in {self.unit}" if self.unit else "")
        other = "." if self.decimal == "," else ","
        if np.isnan(replace(self, decimal=other).read([text]))[0]:
            return ""
        return advice("", f"; if all numbers of this table are like it, give --csv decimal={other}")

    def are_two_scales(self, texts: Sequence[str]) -> bool:
        """Whether one word, like "K", would set its numbers far apart from those without: it may be a unit, too."""
        if len(self.powers) != 2 or self.powers[-1] or self.prefix or self.suffix:
            return False
        sizes, has_word = np.abs(self.read(texts)), [self.powers[0] in text for text in texts]
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
    found = [m for text in texts if (m := NumberNotation().pattern.fullmatch(western(text)))]
    has_unit = [bool({m["prefix"], m["suffix"]} - {None, "", "%"}) for m in found]
    alone = [len(m["number"]) for m in found if m["number"].isdecimal()]
    return len(found) == len(texts) and all(has_unit) and bool(alone) and max(alone) < 4


def unit_of(text: str) -> str:
    """The one name of a unit, without spaces."""
    found = text.strip()
    return SAME_UNIT.get(found, found)


def _around(texts: Sequence[str], counts: np.ndarray) -> NumberNotation:
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
    return NumberNotation(prefix=prefix, suffix=suffix, powers=tuple(sorted(words)))


def in_two_units(one: str, other: str) -> Refusal:
    """The refusal of a column with numbers of two units, by a text of each."""
    reason = f"numbers in different units, like {quoted(one)} and {quoted(other)}"
    return Refusal(reason, is_measure=True)


def with_a_unit(texts: Sequence[str], counts: np.ndarray) -> str:
    """The first text with the unit of texts that are numbers with one, but for few; else empty."""
    around = _around(texts, counts)
    read = [replace(around, decimal=mark).read(texts) for mark in ".,"]
    n_bad = min(counts[np.isnan(values)].sum() for values in read)
    are_codes = all(re.fullmatch(r"\d+[^\W\d_]", text) for text in texts)  # seats, "12A"
    if not around.unit or are_codes or n_bad > most_unreadable(int(counts.sum())):
        return ""
    return next(text for text in texts if around.unit in text)


def _written_as(texts: Sequence[str], counts: np.ndarray, own: NumberNotation) -> NumberNotation:
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
    return NumberNotation(
        decimal=own.decimal,
        grouping=next((m["group"] for m in found if m["group"]), ""),
        prefix=prefix,
        suffix=suffix,
        pairs=any(re.search(r",\d\d,", m["number"]) for m in found),
        places=max(fractions) if -1 not in fractions and (words or len(fractions) == 1) else None,
        negative=negative.most_common(1)[0][0] if negative else "-{}",
        powers=tuple(words[power] for power in sorted(words, reverse=True)),
        digits=digits_of(texts),
    )


class Form(NamedTuple):
    """How a text with one number is written, whatever stands around it: ``before``, behind, and its digits.

    ``unit`` is the currency before or behind it, by its first name; else the first letter behind it in lower case.
    """

    before: str
    behind: str
    number: str
    unit: str

    @classmethod
    def of(cls, text: str) -> Form | None:
        """The form of a text; None if it has no number, several, or letters before it that are no currency."""
        match = ONE_NUMBER.fullmatch(text.strip())
        if match is None:
            return None
        before, number, behind = match.groups()
        money = [SAME_UNIT[t] for side in (before, behind) if (t := side.strip()) in SAME_UNIT]
        unit = money or filter(str.isalpha, behind.casefold())
        return cls(before, behind, number, next(iter(unit), ""))
