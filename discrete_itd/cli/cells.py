"""Cells of text in the types of a model's columns.

What a cell is depends on its text and its column alone, never on other cells: a table in chunks is read as the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.cli.dialect import PLAIN, Dialect, has_decimal_comma
from discrete_itd.encoders import Column
from discrete_itd.encoders.categories import TRUTHS
from discrete_itd.encoders.dtypes import family
from discrete_itd.encoders.numeric import Bins, Continuous
from discrete_itd.encoders.plain_text import (
    EXACT,
    durations_of,
    floats_of,
    number_of,
    times_of,
    whole_of,
)

MISSING = ("na", "n/a", "nan", "nat", "null", "none")  # in lower case
WANTED = {"number": "a number", "datetime": "an ISO date or time, like 2024-01-31"}


def is_text(values: pd.Series) -> bool:
    """Whether a column contains strings and is no ``category``."""
    if values.dtype == object:
        return pd.api.types.infer_dtype(values, skipna=True) == "string"
    is_category = isinstance(values.dtype, pd.CategoricalDtype)
    return not is_category and pd.api.types.is_string_dtype(values.dtype)


def typed(values: pd.Series, column: Column, dialect: Dialect = PLAIN) -> pd.Series:
    """The cells of a column in the type of a model's column.

    Parameters
    ----------
    values : Series
        Text, with missing cells; a column of another type, as Parquet has them, stays as it is.
    column : Column
        A word like NA is a missing cell unless the column has categories of text. Another word among categories that
        are numbers or truth values stays as it is: it is an unseen value.
    dialect : Dialect
        How numbers are written.

    Raises
    ------
    ValueError
        Naming column and cell, if the column has no categories and the cell is neither a number nor a date.
    """
    if not is_text(values):
        return values
    if column.notation is not None:
        asked = dialect.decimal if column.notation.family == "number" else None
        if asked is not None:
            column = replace(column, notation=replace(column.notation, decimal=asked))
        return column.read(values)
    read = _reader(column, dialect)
    if read is None:
        return values
    present = values.notna().to_numpy()
    cells = values.to_numpy(dtype=object)[present]
    found = read(cells)
    where = np.full(len(present), -1)
    where[present] = np.arange(len(cells))
    return found.reindex(where).set_axis(values.index)


def _reader(column: Column, dialect: Dialect) -> Callable[[np.ndarray], pd.Series] | None:
    """How text becomes the values of a column; None if it stays text."""
    if isinstance(column.codec, Continuous | Bins):
        reads = {
            "number": _numbers,
            "datetime": lambda cells, column: times_of(cells, column.dtype),
            "timedelta": lambda cells, _: durations_of(cells),
        }
        read = reads[column.family]
        number = dialect.number if column.family == "number" else str
        return lambda cells: _checked(read(_each(number, cells), column), cells, column, dialect)
    if column.is_text or not column.categories:
        return None
    return lambda cells: _categories(cells, column, dialect)


def _each(number: Callable[[str], str], cells: np.ndarray) -> np.ndarray:
    """Cells with their numbers in Python's notation."""
    return cells if number is str else np.array([number(text) for text in cells], dtype=object)


def _checked(found: pd.Series, cells: np.ndarray, column: Column, dialect: Dialect) -> pd.Series:
    """What was read, if each cell that is missing in it is a word for that."""
    for text in cells[found.isna().to_numpy()]:
        if text.lower() not in MISSING:
            wanted = WANTED.get(column.family, "a duration")
            hint = ""
            if dialect.decimal is None and column.family == "number" and has_decimal_comma(text):
                hint = "; if this is a decimal comma, give --decimal ,"
            raise ValueError(f"column {column.name!r}: expected {wanted}, got {text!r}{hint}")
    return found


def _categories(cells: np.ndarray, column: Column, dialect: Dialect) -> pd.Series:
    """The categories as which cells are written, or numbers; else the text itself, or None for a missing cell."""
    categories = column.categories
    words = {c for c in categories if isinstance(c, str)}
    is_truth = all(isinstance(c, bool) for c in categories)
    is_float = all(isinstance(c, float) for c in categories)

    def value(text: str) -> Any:
        if text in words:
            return text
        if is_truth:
            found = TRUTHS.get(text)
        else:
            plain = dialect.number(text)
            number = number_of(plain)
            found = None if np.isnan(number) else number if is_float else whole_of(plain, number)
        if found is None and (words or text.lower() not in MISSING):
            return text
        return found

    known = {text: value(text) for text in set(cells)}
    return pd.Series([known[text] for text in cells], dtype=object)


def _numbers(cells: np.ndarray, column: Column) -> pd.Series:
    """Numbers as floats, whole ones as integers in a column of integers; NaN where there is none."""
    numbers = floats_of(cells)
    if family(column.dtype) != "integer":
        return pd.Series(numbers)
    known = numbers[~np.isnan(numbers)]
    if (np.abs(known) < EXACT).all() and (known == np.floor(known)).all():
        whole = pd.array(np.nan_to_num(numbers).astype(np.int64), dtype="Int64")
        whole[np.isnan(numbers)] = pd.NA
        return pd.Series(whole)
    pairs = zip(cells, numbers.tolist(), strict=True)
    return pd.Series(
        [None if np.isnan(x) else whole_of(text, x) for text, x in pairs], dtype=object
    )
