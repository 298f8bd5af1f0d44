"""A column before its kind is known: seen whole in memory, or part by part in a stream."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.categories import count_values
from discrete_itd.encoders.dtypes import (
    TIMES,
    PlainCells,
    Scalar,
    check_supported,
    family,
    is_category,
    is_number,
    plain,
    read_cells,
    text_among,
)
from discrete_itd.encoders.notation import EXACT, as_text

MANY_NUMBERS = 256  # distinct integers; more are measurements


class Observed:
    """Data from which the kind of a column, its categories and its scale are inferred.

    Categories are counted exactly, part by part; numbers without a specified kind as long as they may turn out to be
    categories. Of a mixed column, the texts and the others are counted apart. ``text_dtype`` is that of a column of
    text whose parts come as categories, ``na`` text that is a missing cell.

    Attributes
    ----------
    n_rows, n_missing : int
        Cells, and how many of them are missing.
    cells : ndarray, shape (P,)
        Plain values of the cells that are there, or of a uniform sample of them.
    values : ndarray
        The same; of text and categories, the different ones.
    text_dtype : dtype or None
        Of the text as which the column was read, see :meth:`as_read`.
    """

    def __init__(
        self,
        name: Hashable,
        kind: str | None = None,
        text_dtype: Any = None,
        na: Sequence[str] = (),
    ) -> None:
        self.name, self._text_dtype, self._na = name, text_dtype, na
        self.n_rows = self.n_missing = 0
        self.values = self.cells = np.zeros(0)
        self._counts: dict[Scalar, int] = {}
        self._measured = kind in ("continuous", "binned")  # numbers are no longer counted
        self._counted = kind in ("nominal", "ordinal")  # counted to the end, text with the others
        self._integers = self._whole = True  # by type, and by value
        self._categories: pd.CategoricalDtype | None = None
        self._examples: dict[Any, pd.Series] = {}  # of each dtype, one cell
        self._found: set[str] = set()
        self._tally: tuple[list[Scalar], np.ndarray] | None = None
        self.text_dtype: Any = None

    @classmethod
    def whole(
        cls, name: Hashable, column: pd.Series, kind: str | None = None, na: Sequence[str] = ()
    ) -> Observed:
        """A column in memory; ValueError or TypeError, naming it, if it cannot be one of a table."""
        seen = cls(plain(name), kind, na=na)
        seen.keep(seen.add(column))
        return seen

    def add(self, part: pd.Series) -> PlainCells:
        """Add a part, and return its cells; a ValueError or TypeError names the column, if they do not fit."""
        self._add_dtype(part)
        cells = read_cells(part)
        is_text = text_among(cells.values)
        if self._na and is_text.any():
            cells = cells.without(is_text & np.isin(cells.values, list(self._na)))
            is_text = text_among(cells.values)
        self.n_rows += len(part)
        self.n_missing += int((cells.where < 0).sum())
        self._tally = None
        if is_category(part.dtype):
            counts = np.bincount(cells.where[cells.where >= 0], minlength=len(cells.values))
            self._add(cells.values, counts)
        elif self._counted or is_text.all() or not is_text.any():
            self._add(cells.values)
        else:
            others = pd.Series(cells.values[~is_text], dtype=object)  # of one type, perhaps
            self._add(read_cells(others).values)
            self._add(cells.values[is_text])
        return cells

    def _add(self, values: np.ndarray, counts: np.ndarray | None = None) -> None:
        """Add values that are all text, or none; those of a category dtype with their counts."""
        own, kind = self._counts, family(values.dtype)
        if not len(values):
            return
        if not len(self.values):
            self.values = values
        is_time, number = kind in TIMES, kind not in TIMES and is_number(values)
        if text_among(values).all():
            what = "text"
        else:
            self._integers = self._integers and all_integers(values)
            self._whole = self._whole and (all_integers(values) or all_whole(values))
            what = "times" if is_time else "numbers" if number else "other values"
            what = "truth values" if kind == "boolean" else what
        self._found.add(what)
        if number and counts is None and not (self._counted or self._measured):
            new = [v for v in pd.unique(values)[: MANY_NUMBERS + 1].tolist() if v not in own]
            if len(own) + len(new) > MANY_NUMBERS:  # too many to be levels
                self._measured = True
                own.update(dict.fromkeys(new, 0))
        self._check_found()
        if is_time or (self._measured and number):
            return
        if counts is None:
            found, counts = count_values(self.name, values)
        else:
            found = [plain(v) for v in values]
        for category, count in zip(found, counts.tolist(), strict=True):
            own[category] = own.get(category, 0) + count

    def keep(self, cells: PlainCells) -> None:
        """Take cells, all or those of the sample, as the values where these are measurements."""
        self.cells = cells.values[cells.where[cells.where >= 0]]
        if self._counts and not is_number(self.distinct):
            self.values = self.distinct
        elif len(cells.values):  # else what was seen first
            self.values = cells.values

    def as_read(self, found: np.ndarray, is_whole: bool, text_dtype: Any) -> Observed:
        """The column as the numbers or times (K,) that the texts of :meth:`tally` are; missing ones are NaN or NaT.

        ``is_whole`` is whether whole numbers are integers.
        """
        texts, counts = self.tally()
        there = ~pd.isna(found)
        is_whole = is_whole and all_whole(found[there]) and np.abs(found[there]).max() < EXACT
        values = found[there].astype(np.int64) if is_whole else found[there]
        read = Observed(self.name, text_dtype=pd.Int64Dtype() if is_whole else values.dtype)
        read.n_rows, read.n_missing = self.n_rows, self.n_missing + int(counts[~there].sum())
        read._integers, read._whole, read.text_dtype = is_whole, all_whole(values), text_dtype
        if family(values.dtype) not in TIMES:
            for value, count in zip(values.tolist(), counts[there].tolist(), strict=True):
                read._counts[value] = read._counts.get(value, 0) + count
        place = np.where(there, np.cumsum(there) - 1, -1)[pd.Index(texts).get_indexer(self.cells)]
        read.values = read.cells = values[place[place >= 0]]
        return read

    @property
    def is_mixed(self) -> bool:
        """Whether text stands among numbers or times, on which nobody has decided."""
        is_split = not self._counted and self._categories is None
        return is_split and self._found in ({"text", "numbers"}, {"text", "times"})

    @property
    def has_times(self) -> bool:
        """Whether values that are no text are times."""
        return "times" in self._found

    def as_text(self, decimal: str = ".") -> Observed:
        """A mixed column as one of text, its numbers with a decimal mark."""
        cells = pd.Series(self.cells, dtype=object)
        is_number = np.array([isinstance(v, int | float | np.number) for v in self.cells])
        texts = as_text(cells)
        read = self._again(texts.mask(is_number, texts.str.replace(".", decimal, regex=False)))
        for text, n in self._counts.items():
            if isinstance(text, str):  # perhaps more often than in the sample
                read._counts[text] = max(n, read._counts.get(text, 0))
        return read

    def as_categories(self) -> Observed:
        """A mixed column with numbers and text as categories; ValueError or TypeError naming it, if it has too many."""
        if not (self._measured or self.has_times):
            return self
        if len(self.cells) < self.n_rows - self.n_missing:
            raise self._refusal(self._found)
        return self._again(pd.Series(self.cells, dtype=object))

    def _again(self, cells: pd.Series) -> Observed:
        """The column with other cells, all counted."""
        read = Observed(self.name, "nominal")
        read.keep(read.add(cells))
        read.n_rows, read.n_missing = self.n_rows, self.n_missing
        return read

    @property
    def dtype(self) -> Any:
        if self._text_dtype is not None:
            return self._text_dtype
        if self._categories is not None:
            return self._categories
        return pd.concat(list(self._examples.values())).dtype

    @property
    def distinct(self) -> np.ndarray:
        """The different values that were counted; of very many numbers, some."""
        if family(self.dtype) == "float":
            return np.array(list(self._counts), dtype=float)
        return read_cells(pd.Series(list(self._counts), dtype=object)).values

    @property
    def n_categories(self) -> int:
        """Number of different values that are counted."""
        return len(self._counts)

    @property
    def all_integers(self) -> bool:
        """Whether all values are integers: by type, or by value in a column with gaps, which readers make floats."""
        by_type = self._integers and family(self.dtype) != "float"
        return by_type or (self._whole and self.n_missing > 0)

    def tally(self) -> tuple[list[Scalar], np.ndarray]:
        """The categories, in order, numbers before text, and their counts.

        Those of a ``category`` dtype, used or not; else the different values.
        """
        if self._tally is None:
            if self._categories is not None:
                categories = [plain(c) for c in self._categories.categories]
            else:
                categories = sorted(
                    (plain(v) for v in self.distinct), key=lambda c: (isinstance(c, str), c)
                )
            counts = [self._counts.get(c, 0) for c in categories]
            self._tally = categories, np.array(counts, dtype=np.int64)
        return self._tally

    def _add_dtype(self, part: pd.Series) -> None:
        """Remember the dtype of a part."""
        dtype: Any = part.dtype
        if self._text_dtype is not None:
            return
        known, where = self._categories, f"column {self.name!r}:"
        if (known is not None) != is_category(dtype) and (known is not None or self._examples):
            other = known or next(iter(self._examples))
            raise ValueError(f"{where} of dtype {other} in one part, {dtype} in another")
        if dtype not in self._examples and (len(part) or is_category(dtype)):
            check_supported(self.name, dtype)
        if is_category(dtype):
            if known is None:
                self._categories = dtype
            elif known != dtype:
                if known.ordered or dtype.ordered:
                    raise ValueError(f"{where} parts of the stream order categories differently")
                union = known.categories.union(dtype.categories, sort=False)
                self._categories = pd.CategoricalDtype(union)
        elif dtype not in self._examples and len(part):
            first = int(part.notna().to_numpy().argmax())
            self._examples[dtype] = part.iloc[first : first + 1]

    def _check_found(self) -> None:
        """ValueError if parts cannot belong to one column."""
        found = self._found if self._counted else self._found - {"text"}
        unlike = "times" in found or {"numbers", "truth values"} <= found
        if len(found) > 1 and (unlike or (self._measured and "numbers" in found)):
            raise self._refusal(found)

    def _refusal(self, found: set[str]) -> ValueError:
        """The error that parts hold values of different types."""
        return ValueError(
            f"column {self.name!r}: {' and '.join(sorted(found))} in different parts of the stream; say what it is with"
            " column_types=, or clean it"
        )


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
