"""A column before its kind is known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.categories import count_values
from discrete_itd.encoders.dtypes import (
    TIMES,
    Scalar,
    check_supported,
    family,
    is_category,
    is_dictionary,
    is_number,
    plain,
    read_cells,
    text_among,
)
from discrete_itd.encoders.notation import EXACT, as_text

MANY_NUMBERS = 256  # distinct integers; more are measurements


class Observed:
    """Data from which the kind of a column, its categories and its scale are inferred.

    Parameters
    ----------
    name : hashable
    column : Series
    kind : str, optional
        As specified: numbers of an unspecified kind stay apart from text among them.
    na : sequence of str
        Text that is a missing cell.

    Attributes
    ----------
    n_rows, n_missing : int
        Cells, and how many of them are missing.
    cells : ndarray, shape (P,)
        Plain values of the cells that are there.
    text_dtype : dtype or None
        Of the text as which the column was read, see :meth:`as_read`.
    """

    text_dtype: Any = None

    def __init__(
        self,
        name: Hashable,
        column: pd.Series,
        kind: str | None = None,
        na: Sequence[str] = (),
    ) -> None:
        dtype: Any = column.dtype
        if is_dictionary(dtype):
            dtype = pd.ArrowDtype(dtype.pyarrow_dtype.value_type)
        self.name, self.dtype, self._kind = plain(name), dtype, kind
        check_supported(self.name, self.dtype)
        cells = read_cells(column)
        if na:
            cells = cells.without(text_among(cells.values) & np.isin(cells.values, list(na)))
        self._plain = cells
        self.cells = cells.values[cells.where[cells.where >= 0]]
        self.n_rows, self.n_missing = len(column), len(column) - len(self.cells)

    @cached_property
    def _others(self) -> np.ndarray:
        """The cells that are no text: of one type, perhaps."""
        is_text = text_among(self.cells)
        if not is_text.any():
            return self.cells
        return read_cells(pd.Series(self.cells[~is_text], dtype=object)).values

    @property
    def is_time(self) -> bool:
        """Whether the values that are no text are times."""
        return family(self._others.dtype) in TIMES

    @property
    def is_mixed(self) -> bool:
        """Whether text stands among numbers or times, on which nobody has decided."""
        if self._kind in ("nominal", "ordinal") or is_category(self.dtype):
            return False
        is_split = 0 < len(self._others) < len(self.cells)
        return is_split and (self.is_time or is_number(self._others))

    @property
    def n_distinct(self) -> int:
        """Number of different values among the cells."""
        return len(pd.unique(self.cells))

    @cached_property
    def all_integers(self) -> bool:
        """Whether all values are integers: by type, or by value in a column with gaps, which readers make floats."""
        by_type = family(self.dtype) != "float" and all_integers(self._others)
        return by_type or (self.n_missing > 0 and all_whole(self._others))

    @cached_property
    def tally(self) -> tuple[list[Scalar], np.ndarray]:
        """The categories, in order, numbers before text, and their counts.

        The categories of a ``category`` dtype, used or not; else the different values. A ValueError or TypeError names
        the column, if a value cannot be a category.
        """
        if is_category(self.dtype):
            categories = [plain(c) for c in self.dtype.categories]
            counts = np.bincount(self._plain.where[self._plain.where >= 0])
            found = dict(zip(map(plain, self._plain.values), counts.tolist(), strict=True))
        else:
            values, counts = count_values(self.name, self.cells)
            found = dict(zip(values, counts.tolist(), strict=True))
            categories = sorted(found, key=lambda c: (isinstance(c, str), c))
        return categories, np.array([found.get(c, 0) for c in categories], dtype=np.int64)

    def as_read(self, read: np.ndarray, is_whole: bool, text_dtype: Any) -> Observed:
        """The column as the numbers or times (K,) that the texts of :meth:`tally` are; missing ones are NaN or NaT.

        ``is_whole`` is whether whole numbers are integers.
        """
        texts, counts = self.tally
        there = ~pd.isna(read)
        is_whole = is_whole and all_whole(read[there]) and np.abs(read[there]).max() < EXACT
        values = read[there].astype(np.int64) if is_whole else read[there]
        place = np.where(there, np.cumsum(there) - 1, -1)[pd.Index(texts).get_indexer(self.cells)]
        known = pd.Series(values[place[place >= 0]], dtype=pd.Int64Dtype() if is_whole else None)
        column = Observed(self.name, known)
        column.n_rows, column.n_missing = self.n_rows, self.n_missing + int(counts[~there].sum())
        column.text_dtype = text_dtype
        return column

    def as_text(self, decimal: str) -> Observed:
        """A mixed column as one of text, its numbers with a decimal mark."""
        is_number = np.array([isinstance(v, int | float | np.number) for v in self.cells])
        texts = as_text(pd.Series(self.cells, dtype=object))
        texts = texts.mask(is_number, texts.str.replace(".", decimal, regex=False))
        column = Observed(self.name, texts, "nominal")
        column.n_rows, column.n_missing = self.n_rows, self.n_missing
        return column


def all_integers(values: np.ndarray) -> bool:
    """Whether plain values are integers by type, not just by value."""
    return family(values.dtype) == "integer" or (
        values.dtype == object and all(isinstance(v, int | np.integer) for v in values)
    )


def all_whole(values: np.ndarray) -> bool:
    """Whether plain values are numbers without fractions; False if there are none."""
    if not len(values) or not is_number(values):
        return False
    if values.dtype == object:
        return all(float(v).is_integer() for v in values)
    return bool((np.isfinite(values) & (np.floor(values) == values)).all())
