"""What rules state of rows, each kind one class: its words, which rows follow it, and itself as code."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

from discrete_itd.encoders.calendar import PARTS
from discrete_itd.encoders.clock import Unit, local_times
from discrete_itd.encoders.column import Column, written
from discrete_itd.encoders.relations import FLOAT_ERROR, ON_LATTICE, Relation, is_numeric
from discrete_itd.reading.frames import DAY, SECOND, time_zone
from discrete_itd.rules.cells import Floats, Ints, RuleCells, folded
from discrete_itd.rules.languages import Inexpressible, Language
from discrete_itd.storage.values import AnyFloat, Like

PlainValue = bool | int | float | str
# runs of characters of a format: a class or a character, and the least and the most of them
Shapes = tuple[tuple[tuple[str, int, int], ...], ...]
MOST_LISTED = 200  # values of a key that are listed in code
TIME_ERROR = 5  # decimals of a second to which times are known that are floats of days
MOST_LENGTHS = 16  # texts of different lengths that one format stands for, in languages without regular expressions

NOTATION = " (but for case, spaces and accents)"
UNQUOTED = r"\w[\w .+/:&%-]*(?<![ .])"  # a text that is read as one value without quotation marks


def value_text(value: Any) -> str:
    """A value as the text of a rule has it: in quotation marks where it could be read otherwise."""
    if isinstance(value, str):
        return value if re.fullmatch(UNQUOTED, value) else repr(value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def parts_of(
    cells: RuleCells, time: Hashable, parts: Sequence[str] = (*PARTS,)
) -> Iterator[tuple[str, Floats]]:
    """Some :data:`PARTS` of a column of times, each with its numbers (N,); NaN where there is none."""
    seconds = np.round(cells.numbers_of(time) * (DAY / SECOND), TIME_ERROR)
    zone = time_zone(cells.schema[cells.place(time)].dtype)
    times = local_times(seconds, Unit(1.0, 0.0), zone)
    for part in parts:
        yield part, PARTS[part](times).to_numpy(float, na_value=np.nan)


def in_order(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values as a rule lists them: numbers by size, then text."""
    return tuple(sorted(values, key=lambda v: (isinstance(v, str), v)))


class Statement:
    """The base class: a statement on the cells of a row, some of which may be missing."""

    kind: ClassVar[str]
    # whether a cell that is a text of no value breaks it
    needs_values: ClassVar[bool] = False

    @property
    def columns(self) -> tuple[Hashable, ...]:
        """The columns that it is about."""
        return (vars(self)["column"],)

    @property
    def text(self) -> str:
        """The statement in the words of the table."""
        raise NotImplementedError

    @property
    def consequent(self) -> Hashable | None:
        """The column that would follow by chance alone if it did not depend on the others; None of one column."""
        return None

    def follows(self, cells: RuleCells) -> Floats:
        """1 where a row follows, 0 where it does not, NaN where the statement says nothing of it; (N,)."""
        raise NotImplementedError

    def code(self, language: Language) -> str:
        """An expression of a language that is true where the row follows or the statement says nothing of it."""
        raise NotImplementedError

    def weaker(self) -> tuple[Statement, ...]:
        """Statements without one of several determinants, one of which could have been enough."""
        return ()

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys that it consists of."""
        return ()

    def fitted(self, cells: RuleCells, least: int = 2) -> Statement:
        """The statement with what it knows of values, each of ``least`` rows, learned from other rows."""
        return self

    def instead(self, cells: RuleCells, row: int) -> str:
        """Words on what would follow in a row that does not; empty if that is open."""
        return ""


@dataclass(frozen=True)
class OneOf(Statement):
    """A cell is one of some values; of ``(None,)``, it is missing."""

    column: Hashable
    values: tuple[Any, ...]
    needs_values = True

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "missing" if self.values == (None,) else "values"

    @property
    def text(self) -> str:
        if self.values == (None,):
            return f"{self.column} is missing"
        if len(self.values) == 1:
            return f"{self.column} = {value_text(self.values[0])}"
        return f"{self.column} in {{{', '.join(map(value_text, self.values))}}}"

    def follows(self, cells: RuleCells) -> Floats:
        codes = cells.codes_of(self.column)
        if self.values == (None,):
            return ((codes < 0) & ~cells.unreadable_of(self.column)).astype(float)
        holds = np.isin(codes, cells.places_of(self.column, self.values))
        return np.where(codes < 0, np.nan, holds)

    def code(self, language: Language) -> str:
        column = language.column(self.column)
        if self.values == (None,):
            return language.is_missing(column)
        return language.unless_missing([self.column], language.is_in(column, self.values))


@dataclass(frozen=True)
class Present(Statement):
    """A cell is not missing."""

    column: Hashable
    kind = "present"
    needs_values = True

    @property
    def text(self) -> str:
        return f"{self.column} is not missing"

    def follows(self, cells: RuleCells) -> Floats:
        is_there = (cells.codes_of(self.column) >= 0) | cells.unreadable_of(self.column)
        return is_there.astype(float)

    def code(self, language: Language) -> str:
        return language.negated(language.is_missing(language.column(self.column)))


@dataclass(frozen=True)
class Readable(Statement):
    """A cell is missing, or a value of its column: a number, a time or a truth value."""

    column: Hashable
    noun: str
    kind = "type"
    needs_values = True

    @classmethod
    def of(cls, column: Column) -> Readable | None:
        """The statement on a column; None of one that takes any text."""
        if not is_numeric(column) and not column.are_truths:
            return None
        noun = {"number": "number", "datetime": "time", "timedelta": "duration"}[column.family]
        return cls(column.name, "truth value" if column.are_truths else noun)

    @property
    def text(self) -> str:
        return f"{self.column} is a {self.noun}"

    def follows(self, cells: RuleCells) -> Floats:
        return np.where(cells.codes_of(self.column) < 0, np.nan, 1.0)

    def code(self, language: Language) -> str:
        raise Inexpressible("columns have types there")


Condition = OneOf | Present


@dataclass(frozen=True)
class Together(Statement):
    """Two conditions hold in the same rows."""

    left: Condition
    right: Condition
    kind = "implication"

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return (self.left.column, self.right.column)

    @property
    def text(self) -> str:
        return f"{self.left.text} exactly where {self.right.text}"

    @property
    def consequent(self) -> Hashable:
        return self.right.column

    def follows(self, cells: RuleCells) -> Floats:
        left, right = self.left.follows(cells), self.right.follows(cells)
        either = (left == 1) | (right == 1)
        return np.where(either & np.isfinite(left) & np.isfinite(right), left == right, np.nan)

    def code(self, language: Language) -> str:
        sides = (self.left.code(language), self.right.code(language))
        named = [s.column for s in (self.left, self.right) if s.kind == "values"]
        alike = language.either(language.both(*sides), language.both(*map(language.negated, sides)))
        return language.unless_missing(named, alike) if named else alike


@dataclass(frozen=True)
class Equation(Statement):
    """A column follows from others by arithmetic (23)."""

    relation: Relation
    names: tuple[Hashable, ...]
    kind = "equation"
    needs_values = True

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return tuple(self.names[j] for j in (self.relation.child, *self.relation.parents))

    @property
    def text(self) -> str:
        return self.relation.text([*map(str, self.names)])

    @property
    def consequent(self) -> Hashable:
        return self.names[self.relation.child]

    def follows(self, cells: RuleCells) -> Floats:
        # an off-lattice number, too, is compared as it is: the relation would round it
        relation, child = self.relation, cells.numbers[:, self.relation.child]
        with np.errstate(over="ignore", invalid="ignore"):
            apart = np.abs(child - relation.values(cells.numbers))
            room = relation.open_half(cells.numbers) + ON_LATTICE * relation.step
            return np.where(np.isfinite(apart), apart <= room + FLOAT_ERROR * np.abs(child), np.nan)

    def instead(self, cells: RuleCells, row: int) -> str:
        numbers, texts = cells.numbers[row : row + 1], [""] * len(self.names)
        if np.isnan(self.relation.values(numbers)[0]):
            return ""
        for j in self.relation.parents:
            value = cells.values_of(self.names[j])[cells.codes[row, j]]
            if (zone := time_zone(cells.schema[j].dtype)) is not None:  # levels are in UTC
                value = pd.Timestamp(value).tz_localize("UTC").tz_convert(zone)
            texts[j] = written(value, cells.schema[j])
        return self.relation.worked_out(texts, numbers, cells.schema)

    def code(self, language: Language) -> str:
        relation, terms, divisors = self.relation, list[str](), list[str]()
        tolerance = relation.half + ON_LATTICE * relation.step
        slopes = {f.column: abs(t.coefficient) for t in relation.terms for f in t.factors}
        is_sum = all(len(t.factors) == 1 and t.factors[0].form == "x" for t in relation.terms)
        for step, parent in zip(relation.parent_steps, relation.parents, strict=False):
            if step and not is_sum:
                raise Inexpressible("the rounding of its factors widens the tolerance")
            tolerance += step / 2 * slopes[parent]
        for term in relation.terms:
            text = repr(term.coefficient)
            for factor in term.factors:
                column = language.number(self.names[factor.column])
                match factor.form:
                    case "x":
                        text += f" * {column}"
                    case "1/x":
                        text += f" / {language.not_zero.format(column)}"
                        divisors.append(language.is_zero.format(column))
                    case "1+%" | "1-%":
                        text += f" * (1 {factor.form[1]} {column} / 100.0)"
                    case form:
                        raise Inexpressible(f"{form}() of a column")
            terms.append(text)
        child = language.number(self.names[relation.child])
        value = f"{' + '.join(terms)} + {relation.constant!r}"
        room = f"{tolerance!r} + {FLOAT_ERROR!r} * abs({child})"
        holds = f"abs({child} - ({value})) <= {room}"
        if divisors:  # a quotient by zero says nothing
            holds = language.either(*dict.fromkeys(divisors), holds)
        return language.unless_missing(self.columns, holds)


@dataclass(frozen=True)
class Order(Statement):
    """One number, or time, is not above another."""

    low: Hashable
    high: Hashable
    kind = "order"
    needs_values = True

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return (self.low, self.high)

    @property
    def text(self) -> str:
        return f"{self.low} ≤ {self.high}"

    @property
    def consequent(self) -> Hashable:
        return self.low

    def follows(self, cells: RuleCells) -> Floats:
        low, high = cells.numbers_of(self.low), cells.numbers_of(self.high)
        return np.where(np.isnan(low) | np.isnan(high), np.nan, low <= high)

    def code(self, language: Language) -> str:
        low, high = map(language.ordered, self.columns)
        if len({str(time_zone(language.dtypes[name])) for name in self.columns}) > 1:
            raise Inexpressible("they have different time zones")
        return language.unless_missing(self.columns, f"{low} <= {high}")


@dataclass(frozen=True)
class PartOfTime(Statement):
    """A column is a part of a time: its number, or with ``values`` the one that stands for this, where there is one."""

    time: Hashable
    column: Hashable
    part: str
    values: tuple[tuple[int, PlainValue], ...] | None = None
    kind = "part of a time"
    needs_values = True

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ValueError(f"a time has no {self.part!r}")

    @classmethod
    def fit(
        cls, time: Hashable, column: Hashable, part: str, cells: RuleCells, least: int = 2
    ) -> PartOfTime:
        """The statement with the values that most of ``least`` rows of a part have, if these are not its number."""
        ((_, parts),), codes = parts_of(cells, time, [part]), cells.codes_of(column)
        same = parts == cells.numbers_of(column)
        known = np.isfinite(parts) & (codes >= 0)
        if 2 * same.sum() > known.sum() or not known.any():
            return cls(time, column, part)
        numbers, place = np.unique(parts[known].astype(int), return_inverse=True)
        levels = cells.values_of(column)
        counts = np.bincount(
            place * len(levels) + codes[known], minlength=len(numbers) * len(levels)
        )
        counts = counts.reshape(len(numbers), -1)
        often = np.flatnonzero(counts.sum(1) >= least)
        usual = zip(numbers[often].tolist(), counts[often].argmax(1).tolist(), strict=True)
        return cls(time, column, part, tuple((number, levels[code]) for number, code in usual))

    def fitted(self, cells: RuleCells, least: int = 2) -> PartOfTime:
        return PartOfTime.fit(self.time, self.column, self.part, cells, least)

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return (self.time, self.column)

    @property
    def text(self) -> str:
        return f"{self.column} is the {self.part} of {self.time}"

    @property
    def consequent(self) -> Hashable:
        return self.column

    def follows(self, cells: RuleCells) -> Floats:
        ((_, parts),) = parts_of(cells, self.time, [self.part])
        numbers = cells.numbers_of(self.column)
        if self.values is None:
            return np.where(np.isnan(parts) | np.isnan(numbers), np.nan, parts == numbers)
        codes, expected = cells.codes_of(self.column), np.full(len(parts), -1)
        places = cells.places_of(self.column, [value for _, value in self.values])
        for (number, _), place in zip(self.values, places, strict=True):
            expected[parts == number] = place
        return np.where((expected == -1) | (codes < 0), np.nan, codes == expected)

    def instead(self, cells: RuleCells, row: int) -> str:
        ((_, (number,)),) = parts_of(cells.take(np.array([row])), self.time, [self.part])
        value = value_text(dict(self.values or ()).get(number, number))
        return "" if math.isnan(number) else f"the {self.part} of {self.time} is {value}"

    def code(self, language: Language) -> str:
        part = language.part(self.time, self.part)
        if self.values is None:
            holds = language.is_zero.format(f"({language.number(self.column)} - {part})")
            return language.unless_missing(self.columns, holds)
        column = language.column(self.column)
        cases = [
            language.either(
                language.negated(language.is_in(part, (number,))),
                language.is_in(column, (value,)),
            )
            for number, value in self.values
        ]
        return language.unless_missing(self.columns, language.both(*cases))


@dataclass(frozen=True)
class Range(Statement):
    """A number is between bounds, one of which may be open."""

    column: Hashable
    low: AnyFloat
    high: AnyFloat
    kind = "range"
    needs_values = True

    @property
    def text(self) -> str:
        if math.isinf(self.high):
            return f"{self.column} ≥ {self.low:.12g}"
        low = "" if math.isinf(self.low) else f"{self.low:.12g} ≤ "
        return f"{low}{self.column} ≤ {self.high:.12g}"

    def follows(self, cells: RuleCells) -> Floats:
        x = cells.numbers_of(self.column)
        return np.where(np.isnan(x), np.nan, (self.low <= x) & (x <= self.high))

    def code(self, language: Language) -> str:
        column, bounds = language.number(self.column), list[str]()
        if not math.isinf(self.low):
            bounds.append(f"{column} >= {self.low!r}")
        if not math.isinf(self.high):
            bounds.append(f"{column} <= {self.high!r}")
        return language.unless_missing([self.column], language.both(*bounds))


@dataclass(frozen=True)
class Step(Statement):
    """A number is a multiple of a step."""

    column: Hashable
    step: float
    kind = "step"
    needs_values = True

    @property
    def text(self) -> str:
        if self.step == 1:
            return f"{self.column} is a whole number"
        return f"{self.column} is a multiple of {self.step:.12g}"

    def follows(self, cells: RuleCells) -> Floats:
        x = cells.numbers_of(self.column)
        error = ON_LATTICE + FLOAT_ERROR * np.abs(x / self.step)
        return np.where(
            np.isnan(x), np.nan, np.abs(x / self.step - np.rint(x / self.step)) <= error
        )

    def code(self, language: Language) -> str:
        column = language.number(self.column)
        places = f"({column} / {float(self.step)!r})"
        room = f"{ON_LATTICE!r} + {FLOAT_ERROR!r} * abs({places})"
        holds = f"abs({places} - {language.nearest.format(places)}) <= {room}"
        return language.unless_missing([self.column], holds)


@dataclass(frozen=True)
class Format(Statement):
    """A text matches a regular expression; one that was found has the runs of its ``shapes``."""

    column: Hashable
    pattern: str
    shapes: Shapes = ()
    kind = "format"
    needs_values = True

    @classmethod
    def of(cls, column: Hashable, shapes: Shapes) -> Format:
        """The format with some shapes."""
        texts = list[str]()
        for shape in shapes:
            text = ""
            for mark, least, most in shape:
                length = f"{{{least}}}" if least == most else f"{{{least},{most}}}"
                text += (mark if len(mark) > 1 else re.escape(mark)) + length * (length != "{1}")
            texts.append(text)
        return cls(column, "|".join(texts), shapes)

    @property
    def text(self) -> str:
        return f"{self.column} matches {self.pattern}"

    def follows(self, cells: RuleCells) -> Floats:
        codes, pattern = cells.codes_of(self.column), re.compile(self.pattern)
        values = cells.values_of(self.column)
        holds = [isinstance(v, str) and bool(pattern.fullmatch(v)) for v in values]
        return np.where(codes < 0, np.nan, np.array([*holds, False])[codes])

    def code(self, language: Language) -> str:
        return language.unless_missing(
            [self.column], language.matches(self.column, self.pattern, self.globs)
        )

    def globs(self) -> list[str]:
        """The formats as patterns of GLOB, one for each combination of lengths."""
        texts = list[str]()
        if not self.shapes:
            raise Inexpressible("it is a regular expression")
        for shape in self.shapes:
            globs = [""]
            for mark, least, most in shape:
                one = mark if len(mark) > 1 else f"[{mark}]" if mark in "*?[" else mark
                globs = [t + one * n for t in globs for n in range(least, most + 1)]
                if len(texts) + len(globs) > MOST_LENGTHS:
                    raise Inexpressible("too many lengths")
            texts += globs
        return texts


@dataclass(frozen=True)
class Unique(Statement):
    """No two rows have the same values in some columns."""

    names: tuple[Hashable, ...]
    kind = "unique"

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return self.names

    @property
    def text(self) -> str:
        names = " and ".join(map(str, self.columns))
        return f"{names} {'are together' if len(self.columns) > 1 else 'is'} unique"

    @property
    def consequent(self) -> Hashable | None:
        return self.columns[-1] if len(self.columns) > 1 else None

    def follows(self, cells: RuleCells) -> Floats:
        joint = joint_codes([cells.codes_of(name) for name in self.columns])
        codes = pd.factorize(joint)[0]
        return np.where(joint < 0, np.nan, np.bincount(codes)[codes] == 1)

    def code(self, language: Language) -> str:
        return language.unique(self.columns)


def joint_codes(columns: Sequence[Ints]) -> Ints:
    """One code (N,) of several codes; -1 where one of them is missing."""
    joint, missing = np.zeros(len(columns[0]), np.int64), np.zeros(len(columns[0]), bool)
    for codes in columns:
        joint = joint * (codes.max(initial=0) + 1) + codes
        missing |= codes < 0
    return np.where(missing, -1, joint)


@dataclass(frozen=True, eq=False)
class Key(Statement):
    """One or two columns determine another one, by the most frequent value of each of their values.

    ``known`` (K, D) are codes of values of the determinants that two rows or more had, in order, and ``values`` (K,)
    the codes of what they determine: positions among the ``levels`` of each column. What is determined ``but_notation``
    is the text without case, spaces and accents.
    """

    determinants: tuple[Hashable, ...]
    column: Hashable
    known: Annotated[Ints, Like("int64", "K", "D")]
    values: Annotated[Ints, Like("int64", "K")]
    levels: tuple[Sequence[PlainValue], ...] = ()
    but_notation: bool = False
    kind = "key"

    @classmethod
    def fit(
        cls,
        determinants: tuple[Hashable, ...],
        column: Hashable,
        cells: RuleCells,
        least: int = 2,
        but_notation: bool = False,
    ) -> Key:
        """The key by the rows of a table, of the values of the determinants that ``least`` rows have."""
        codes = np.stack([cells.codes_of(name) for name in (*determinants, column)], 1)
        codes = codes[(codes >= 0).all(1)]
        if not len(codes):
            nothing = codes[:, :-1], codes[:, -1]
            return cls(determinants, column, *nothing, but_notation=but_notation)
        if but_notation:
            codes[:, -1] = cells.usual_spellings(column)[codes[:, -1]]
        _, rows, counts = np.unique(joint_codes([*codes.T]), return_index=True, return_counts=True)
        triples = codes[rows]
        is_first = np.append(True, (triples[1:, :-1] != triples[:-1, :-1]).any(1))
        group = np.cumsum(is_first) - 1
        most = np.lexsort((triples[:, -1], -counts, group))[np.flatnonzero(is_first)]
        often = np.bincount(group, counts) >= least
        levels = tuple(cells.values_of(name) for name in (*determinants, column))
        known, values = triples[most, :-1][often], triples[most, -1][often]
        return cls(determinants, column, known, values, levels, but_notation)

    @property
    def keys(self) -> tuple[Key, ...]:
        return (self,)

    @property
    def codes(self) -> Ints:
        """The codes of the determinants and of what they determine, (K, D + 1)."""
        return np.column_stack([self.known, self.values])

    def check_codes(self) -> None:
        """ValueError if there are codes of no level."""
        sizes = np.array([*map(len, self.levels)])
        is_shape = len(self.columns) == len(sizes) == self.known.shape[1] + 1
        if not is_shape or (self.codes < 0).any() or (self.codes >= sizes).any():
            raise ValueError(f"the key {self.text!r} has codes of no level")

    def fitted(self, cells: RuleCells, least: int = 2) -> Key:
        return Key.fit(self.determinants, self.column, cells, least, self.but_notation)

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return (*self.determinants, self.column)

    @property
    def text(self) -> str:
        verb = "determines" if len(self.determinants) == 1 else "determine"
        notation = NOTATION * self.but_notation
        return f"{' and '.join(map(str, self.determinants))} {verb} {self.column}{notation}"

    @property
    def consequent(self) -> Hashable:
        return self.column

    @property
    def node(self) -> Hashable:
        """What is determined: the column, or this but for notation."""
        return (NOTATION, self.column) if self.but_notation else self.column

    def is_same(self, value: Any, other: Any) -> bool:
        """Whether two values of the determined column are the same to it."""
        return value == other or (self.but_notation and folded(value) == folded(other))

    def expected(self, cells: RuleCells) -> Ints:
        """The codes (N,) that follow from the determinants; -1 where these are not known."""
        asked = np.stack([cells.codes_of(name) for name in self.determinants], 1)
        if not len(self.known):
            return np.full(len(asked), -1)
        base = np.maximum(asked.max(0, initial=0), self.known.max(0)) + 1
        joint = self.known @ np.append(base[1:], 1) if len(base) > 1 else self.known[:, 0]
        asked_codes = asked @ np.append(base[1:], 1) if len(base) > 1 else asked[:, 0]
        place = np.searchsorted(joint, asked_codes).clip(max=len(joint) - 1)
        is_known = (joint[place] == asked_codes) & (asked >= 0).all(1)
        return np.where(is_known, self.values[place], -1)

    def follows(self, cells: RuleCells) -> Floats:
        expected, codes = self.expected(cells), cells.codes_of(self.column)
        unknown = (expected < 0) | (codes < 0)
        if self.but_notation:
            usual = np.append(cells.usual_spellings(self.column), -1)
            expected, codes = usual[expected], usual[codes]
        return np.where(unknown, np.nan, expected == codes)

    def instead(self, cells: RuleCells, row: int) -> str:
        value = cells.values_of(self.column)[self.expected(cells.take(np.array([row])))[0]]
        given = [
            f"{name} = {value_text(cells.values_of(name)[cells.codes_of(name)[row]])}"
            for name in self.determinants
        ]
        return f"{self.column} = {value_text(value)} where {' and '.join(given)}"

    def weaker(self) -> tuple[Key, ...]:
        nothing = np.zeros((0, 1), np.int64)
        return tuple(
            replace(self, determinants=(name,), known=nothing, values=nothing, levels=())
            for name in self.determinants
            if len(self.determinants) > 1
        )

    def code(self, language: Language) -> str:
        if self.but_notation:
            raise Inexpressible("texts are compared by letter there")
        if len(self.known) > MOST_LISTED:
            raise Inexpressible(f"{len(self.known)} values would have to be listed")
        *of_determinants, of_column = self.levels
        columns, cases = [*map(language.column, self.determinants)], dict[Any, list[str]]()
        for known, value in zip(self.known.tolist(), self.values.tolist(), strict=True):
            parts = [
                language.is_in(column, (values[code],))
                for column, values, code in zip(columns, of_determinants, known, strict=True)
            ]
            cases.setdefault(of_column[value], []).append(language.both(*parts))
        determined = language.column(self.column)
        holds = [
            language.either(
                language.negated(language.either(*any_of)), language.is_in(determined, (v,))
            )
            for v, any_of in cases.items()
        ]
        return language.unless_missing(self.columns, language.both(*holds))


@dataclass(frozen=True, eq=False)
class OneToOne(Statement):
    """Two columns determine each other."""

    there: Key
    back: Key
    kind = "key"

    @property
    def keys(self) -> tuple[Key, ...]:
        return self.there, self.back

    @property
    def columns(self) -> tuple[Hashable, ...]:
        return self.there.columns

    @property
    def text(self) -> str:
        return f"{self.columns[0]} and {self.columns[1]} determine each other"

    @property
    def consequent(self) -> Hashable:
        return self.columns[1]

    def fitted(self, cells: RuleCells, least: int = 2) -> OneToOne:
        return OneToOne(self.there.fitted(cells, least), self.back.fitted(cells, least))

    def follows(self, cells: RuleCells) -> Floats:
        return np.fmin(self.there.follows(cells), self.back.follows(cells))

    def instead(self, cells: RuleCells, row: int) -> str:
        one = cells.take(np.array([row]))
        return (self.there if self.there.follows(one)[0] == 0 else self.back).instead(cells, row)

    def code(self, language: Language) -> str:
        return language.both(self.there.code(language), self.back.code(language))


@dataclass(frozen=True)
class Rule:
    """A statement on all rows, or on those that meet conditions.

    Parameters
    ----------
    statement : Statement
    given : tuple of Condition
        What holds in the rows that the rule speaks of.
    """

    statement: Statement
    given: tuple[Condition, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of the rule: of its statement, or "implication" of values under conditions."""
        is_value = isinstance(self.statement, OneOf | Present)
        return "implication" if self.given and is_value else self.statement.kind

    @property
    def columns(self) -> tuple[Hashable, ...]:
        """The columns of the conditions, then those of the statement."""
        return (*(c.column for c in self.given), *self.statement.columns)

    def tells(self, names: Collection[Hashable]) -> bool:
        """Whether it tells which values columns of some ``names`` have, or what follows from these values of theirs.

        What is between them and other columns, in an equation or an order, is no such rule.
        """
        if self.kind in ("equation", "order"):
            return {*self.columns} <= {*names}
        determinants = self.statement.determinants if isinstance(self.statement, Key) else ()
        is_told = not {*self.columns}.isdisjoint({*names} - {*determinants})
        return is_told and self.kind in ("values", "range", "implication", "key")

    @property
    def text(self) -> str:
        """The rule in the words of the table."""
        if not self.given:
            return self.statement.text
        return f"if {' and '.join(c.text for c in self.given)}: {self.statement.text}"

    def follows(self, cells: RuleCells) -> Floats:
        """1 where a row follows, 0 where it does not, NaN where the rule says nothing of it; (N,)."""
        follows = self.statement.follows(cells)
        if self.statement.needs_values:
            for name in self.statement.columns:
                follows = np.where(cells.unreadable_of(name), 0.0, follows)
        return np.where(meets(self.given, cells), follows, np.nan)

    def code(self, language: Language) -> str:
        """An expression of a language that is true where the row follows or the rule says nothing of it."""
        code = self.statement.code(language)
        if not self.given:
            return code
        met = [
            language.both(
                language.negated(language.is_missing(language.column(c.column))), c.code(language)
            )
            if c.kind == "values"
            else c.code(language)
            for c in self.given
        ]
        return language.either(language.negated(language.both(*met)), code)


def meets(given: Sequence[Condition], cells: RuleCells) -> Any:
    """Which rows (N,) meet all of some conditions."""
    met = np.ones(len(cells), bool)
    for condition in given:
        met &= condition.follows(cells) == 1
    return met
