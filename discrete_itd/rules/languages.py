"""Expressions of other languages: SQL, as SQLite and DuckDB both have it, and pandas."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from discrete_itd.encoders.column import Column
from discrete_itd.reading.frames import family, time_zone

SQL_PARTS = {
    part: f"CAST(strftime('{letters}', {{}}) AS INTEGER)"
    for part, letters in {
        "year": "%Y", "month": "%m", "day": "%d", "day of the year": "%j", "hour": "%H", "year and month": "%Y%m",
    }.items()
} | {
    "quarter": "round((CAST(strftime('%m', {}) AS INTEGER) + 1) / 3.0)",
    "weekday": "((CAST(strftime('%w', {}) AS INTEGER) + 6) % 7)",
}  # fmt: skip
PANDAS_PARTS = {
    "year": "{}.dt.year", "quarter": "{}.dt.quarter", "month": "{}.dt.month", "week": "{}.dt.isocalendar().week",
    "day": "{}.dt.day", "day of the year": "{}.dt.day_of_year", "weekday": "{}.dt.day_of_week", "hour": "{}.dt.hour",
    "year and month": "(100 * {0}.dt.year + {0}.dt.month)",
}  # fmt: skip


class Inexpressible(ValueError):  # noqa: N818
    """A rule that a language cannot say; the text is the reason."""


class Language:
    """How a language writes what statements are made of.

    Parameters
    ----------
    schema : mapping from names to Column
        Of the table as the rules read it.
    dtypes : mapping from names to dtypes
        Of the table as it is.
    """

    marks: ClassVar[tuple[str, str, str]]  # of "and", "or" and "not"
    parts: Mapping[str, str]  # of a time
    # a missing cell, one of some values, the nearest whole number, a number that is not zero, and one that is
    missing: ClassVar[str]
    is_one_of: ClassVar[str]
    nearest: ClassVar[str]
    not_zero: ClassVar[str]
    is_zero: ClassVar[str]

    def __init__(self, schema: Mapping[Hashable, Column], dtypes: Mapping[Hashable, Any]) -> None:
        self.schema, self.dtypes = schema, dtypes

    def column(self, name: Hashable) -> str:
        """A column."""
        raise NotImplementedError

    def literal(self, value: Any) -> str:
        """A value."""
        raise NotImplementedError

    def matches(self, name: Hashable, pattern: str, globs: Callable[[], list[str]]) -> str:
        """Whether a text matches a regular expression, or one of the patterns of GLOB that say the same."""
        raise NotImplementedError

    def unique(self, names: Sequence[Hashable]) -> str:
        """Whether no other row has the same cells."""
        raise NotImplementedError

    def is_missing(self, column: str) -> str:
        """Whether a cell is missing."""
        return self.missing.format(column)

    def is_in(self, column: str, values: Sequence[Any]) -> str:
        """Whether a cell is one of some values."""
        return self.is_one_of.format(column, ", ".join(map(self.literal, values)))

    def both(self, *parts: str) -> str:
        """Whether all parts hold, of which there are some."""
        if not parts:
            raise Inexpressible("it knows no values")
        return f"({self.marks[0].join(f'({part})' for part in parts)})"

    def either(self, *parts: str) -> str:
        """Whether some part holds."""
        return f"({self.marks[1].join(f'({part})' for part in parts)})"

    def negated(self, part: str) -> str:
        """Whether a part does not hold."""
        return f"({self.marks[2]}({part}))"

    def unless_missing(self, names: Sequence[Hashable], part: str) -> str:
        """Whether a part holds, or one of some cells is missing."""
        return self.either(*(self.is_missing(self.column(n)) for n in dict.fromkeys(names)), part)

    def number(self, name: Hashable) -> str:
        """A column that holds numbers as such."""
        return self._of_family(name, "integer", "float")

    def ordered(self, name: Hashable) -> str:
        """A column whose cells have the order of their numbers or times."""
        return self._of_family(name, "integer", "float", "datetime", "timedelta")

    def part(self, name: Hashable, part: str) -> str:
        """A part of a column of times, as a number."""
        column = self._of_family(name, "datetime")
        if time_zone(self.dtypes[name]) is not None or part not in self.parts:
            raise Inexpressible(f"there is no {part} of times there, or {name} has a time zone")
        return self.parts[part].format(column)

    def _of_family(self, name: Hashable, *families: str) -> str:
        if family(self.dtypes[name]) not in families:
            raise Inexpressible(f"{name} is text")
        return self.column(name)

    def is_short(self, name: Hashable) -> bool:
        """Whether a column has floats of 32 bits."""
        return str(self.dtypes[name]).lower() == "float32"

    def check_plain(self, *names: Hashable) -> None:
        """Raise :class:`Inexpressible` where text was read as something else, or numbers stand for missing cells."""
        for name in names:
            column = self.schema[name]
            if column.notation is not None or column.na or column.codes:
                raise Inexpressible(f"{name} has a notation of its own")


def namesakes(names: Iterable[Hashable]) -> set[Hashable]:
    """The names that are the same as others to SQL, which does not tell upper case from lower case."""
    names = [*names]
    counts = Counter(str(name).lower() for name in names)
    return {name for name in names if counts[str(name).lower()] > 1}


def is_storable(text: str) -> bool:
    """Whether a text can be in a query and in a file: without NUL and halves of characters."""
    return not re.search("[\x00\ud800-\udfff]", text)


def is_name(text: str) -> bool:
    """Whether SQL can name a column so."""
    return bool(text) and is_storable(text)


class SQL(Language):
    """SQL as SQLite and DuckDB both have it, or as Spark has it."""

    marks = " AND ", " OR ", "NOT "
    missing, is_one_of, nearest, not_zero = "{} IS NULL", "{} IN ({})", "round({})", "nullif({}, 0)"
    is_zero = "{} = 0"

    def __init__(
        self, schema: Mapping[Hashable, Column], dtypes: Mapping[Hashable, Any], spark: bool = False
    ) -> None:
        super().__init__(schema, dtypes)
        self.spark = spark
        self.parts = {} if spark else SQL_PARTS
        self.namesakes = namesakes(schema)

    def column(self, name: Hashable) -> str:
        self.check_plain(name)
        if name in self.namesakes:
            raise Inexpressible(f"another column has the name {name} but for upper case")
        if not is_name(str(name)):
            raise Inexpressible(f"SQL cannot name {str(name)!r}")
        mark = "`" if self.spark else '"'
        return mark + str(name).replace(mark, 2 * mark) + mark

    def _of_family(self, name: Hashable, *families: str) -> str:
        if self.is_short(name):
            raise Inexpressible(f"{name} has floats of 32 bits")
        return super()._of_family(name, *families)

    def literal(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).upper()
        if isinstance(value, int | float):
            return repr(value)
        if not isinstance(value, str):
            raise Inexpressible("times are listed")
        if not is_storable(value):
            raise Inexpressible("a value has a character that SQL does not have")
        value = value.replace("\\", "\\\\") if self.spark else value
        return "'" + value.replace("'", "\\'" if self.spark else "''") + "'"

    def matches(self, name: Hashable, pattern: str, globs: Callable[[], list[str]]) -> str:
        column = self.column(name)
        if self.spark:
            return f"{column} RLIKE {self.literal(f'^({pattern})$')}"
        return self.either(*(f"{column} GLOB {self.literal(glob)}" for glob in globs()))

    def unique(self, names: Sequence[Hashable]) -> str:
        raise Inexpressible("uniqueness is no property of a row")


class Pandas(Language):
    """Expressions of a pandas frame ``t``."""

    marks = " & ", " | ", "~"
    missing, is_one_of, nearest, not_zero = "{}.isna()", "{}.isin([{}])", "({}).round()", "{}"
    is_zero = "{} == 0"
    parts = PANDAS_PARTS

    def column(self, name: Hashable) -> str:
        self.check_plain(name)
        return f"t[{name!r}]"

    def _of_family(self, name: Hashable, *families: str) -> str:
        column = super()._of_family(name, *families)
        # rules read floats of 32 bits as the decimals that they show
        return column + ".astype('float32').astype(str).astype(float)" * self.is_short(name)

    def literal(self, value: Any) -> str:
        if not isinstance(value, str | int | float):
            raise Inexpressible("times are listed")
        return repr(value)

    def matches(self, name: Hashable, pattern: str, globs: Callable[[], list[str]]) -> str:
        return f"{self.column(name)}.astype(str).str.fullmatch({pattern!r})"

    def unique(self, names: Sequence[Hashable]) -> str:
        self.check_plain(*names)
        columns = [*names]
        return f"t[{columns!r}].isna().any(axis=1) | ~t.duplicated({columns!r}, keep=False)"
