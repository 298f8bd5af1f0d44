"""A column before its kind is known: seen whole in memory, or part by part in a stream."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.categories import check_truths, count_values
from discrete_itd.encoders.dtypes import (
    TIMES,
    PlainCells,
    Scalar,
    check_supported,
    comparable,
    family,
    has_time_zone,
    is_category,
    is_number,
    plain,
    read_cells,
)

MANY_NUMBERS = 256  # distinct integers; more are measurements


class Observed:
    """Data from which the kind of a column, its categories and its scale are inferred.

    Categories are counted exactly, part by part; numbers without a specified kind as long as they may turn out to be
    categories. Text among numbers or times is kept apart until :meth:`without_text` or :meth:`mixed` decides on it.
    ``text_dtype`` is that of a column of text whose parts come as categories, ``na`` text that is a missing cell.

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
        self._splits = kind not in ("nominal", "ordinal")  # text among numbers
        self.n_rows = self.n_missing = 0
        self.values = self.cells = np.zeros(0)
        self._counts: dict[Scalar, int] = {}
        self._measured = kind in ("continuous", "binned")  # numbers are no longer counted
        self._counted = kind in ("nominal", "ordinal")  # counted to the end
        self._integers = self._whole = True  # by type, and by value
        self._categories: pd.CategoricalDtype | None = None
        self._examples: dict[Any, pd.Series] = {}  # of each dtype, one cell
        self._found: set[str] = set()
        self._truths: set[bool] = set()  # whether categories are truth values
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
        part = comparable(part)
        self._add_dtype(part)
        cells = read_cells(part)
        is_text = text_among(cells.values)
        if self._na and is_text.any():
            cells = cells.without(is_text & np.isin(cells.values, list(self._na)))
            is_text = text_among(cells.values)
        self.n_rows += len(part)
        self.n_missing += int((cells.where < 0).sum())
        self._tally = None
        if self._splits and is_text.any() and not is_text.all() and not is_category(part.dtype):
            rest = cells.without(is_text)  # of one type, perhaps
            plainly = read_cells(pd.Series(rest.values, dtype=object)).values
            self._add(part, rest._replace(values=plainly))
            self._add(part, cells.without(~is_text))
        else:
            self._add(part, cells)
        return cells

    def _add(self, part: pd.Series, cells: PlainCells) -> None:
        """Add the cells of a part that are text, or those that are not."""
        values, own = cells.values, self._counts
        if not len(values):
            return
        if not len(self.values):
            self.values = values
        is_time = family(values.dtype) in TIMES
        number, are_texts = not is_time and is_number(values), bool(text_among(values).all())
        what = (
            "text" if are_texts else "times" if is_time else "numbers" if number else "other values"
        )
        self._found.add(what)
        if not are_texts:
            self._integers = self._integers and all_integers(values)
            self._whole = self._whole and (all_integers(values) or all_whole(values))
        if number and not (self._counted or self._measured or is_category(part.dtype)):
            new = [v for v in pd.unique(values)[: MANY_NUMBERS + 1].tolist() if v not in own]
            if len(own) + len(new) > MANY_NUMBERS:  # too many to be levels
                self._measured = True
                own.update(dict.fromkeys(new, 0))
        self._check_found()
        if is_time or (self._measured and number):
            return
        if is_category(part.dtype):
            counts = np.bincount(cells.where[cells.where >= 0], minlength=len(values))
            found = [plain(v) for v in values]
        else:
            found, counts = count_values(self.name, values)
        for category, count in zip(found, counts.tolist(), strict=True):
            own[category] = own.get(category, 0) + count
        self._truths |= {isinstance(c, bool) for c in found if not isinstance(c, str)}
        check_truths(self.name, self._truths)

    def keep(self, cells: PlainCells) -> None:
        """Take cells, all or those of the sample, as the values where these are measurements."""
        self.cells = cells.values[cells.where[cells.where >= 0]]
        if self._counts and not is_number(self.distinct):
            self.values = self.distinct
        elif len(cells.values):  # else what was seen first
            self.values = cells.values

    def as_read(self, found: np.ndarray, is_whole: bool) -> Observed:
        """The column as the numbers or times (K,) that the texts of :meth:`tally` are; missing ones are NaN or NaT.

        ``is_whole`` is whether whole numbers are integers.
        """
        texts, counts = self.tally()
        there = ~pd.isna(found)
        is_whole = is_whole and all_whole(found[there])
        values = found[there].astype(np.int64) if is_whole else found[there]
        read = Observed(self.name, text_dtype=pd.Int64Dtype() if is_whole else values.dtype)
        read.n_rows, read.n_missing = self.n_rows, self.n_missing + int(counts[~there].sum())
        read._integers, read._whole, read.text_dtype = is_whole, all_whole(values), self.dtype
        if family(values.dtype) not in TIMES:
            for value, count in zip(values.tolist(), counts[there].tolist(), strict=True):
                read._counts[value] = read._counts.get(value, 0) + count
        place = np.where(there, np.cumsum(there) - 1, -1)[pd.Index(texts).get_indexer(self.cells)]
        read.values = read.cells = values[place[place >= 0]]
        return read

    @property
    def is_mixed(self) -> bool:
        """Whether text stands among numbers or times, on which nobody has decided."""
        return self._splits and "text" in self._found and len(self._found) == 2

    def others(self) -> pd.Series:
        """The cells of a mixed column that are no text."""
        cells = pd.Series(
            self.cells[~text_among(self.cells)].tolist(), dtype=object
        ).infer_objects()
        return pd.Series(read_cells(cells).values) if cells.dtype == object else cells  # decimals

    def without_text(self, found: np.ndarray) -> Observed:
        """A mixed column with its texts (K,), those of :meth:`texts`, as numbers or times; NaN or NaT is missing."""
        texts, counts = self.texts()
        there, others = ~pd.isna(found), self.others()
        known = dict(zip(texts, pd.Series(found).astype(object), strict=True))
        is_whole = self._integers and all_whole(found[there]) if there.any() else self._integers
        if is_whole and family(others.dtype) not in TIMES:
            known = {t: int(v) for t, v in known.items() if not pd.isna(v)}
        cells = [known.get(c) if isinstance(c, str) else c for c in self.cells.tolist()]
        values = read_cells(pd.Series(cells, dtype=object)).values
        if values.dtype == object:
            with suppress(TypeError, OverflowError):
                values = values.astype(float)
        dtype = pd.Int64Dtype() if values.dtype == np.int64 else values.dtype
        read = Observed(
            self.name, text_dtype=others.dtype if has_time_zone(others.dtype) else dtype
        )
        read.n_rows, read.n_missing = self.n_rows, self.n_missing + int(counts[~there].sum())
        read._integers, read._measured = is_whole, self._measured
        read._whole = self._whole and (not there.any() or all_whole(found[there]))
        read.values = read.cells = values
        if "numbers" in self._found:
            for value, count in self._counts.items():
                value = known.get(value) if isinstance(value, str) else value
                if value is not None and value == value:
                    read._counts[value] = read._counts.get(value, 0) + count
        return read

    def as_categories(self) -> Observed:
        """A mixed column with numbers and text as categories; ValueError or TypeError naming it, if it has too many."""
        if not self._measured and "numbers" in self._found:
            return self
        if len(self.cells) < self.n_rows - self.n_missing:
            kinds = " and ".join(sorted(self._found))
            raise ValueError(
                f"column {self.name!r}: {kinds} in a stream; say what it is with column_types=, or clean it"
            )
        read = Observed(self.name)
        read._splits = False
        read.keep(read.add(pd.Series(self.cells, dtype=object)))
        read.n_rows, read.n_missing, read._examples = self.n_rows, self.n_missing, self._examples
        return read

    def texts(self) -> tuple[list[str], np.ndarray]:
        """The different texts among the values, and their counts."""
        found = {t: n for t, n in self._counts.items() if isinstance(t, str)}
        return list(found), np.array(list(found.values()), dtype=np.int64)

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
        found = self._found - {"text"} if self._splits else self._found
        late = self._measured and "numbers" in found and len(found) > 1
        if late or ("times" in found and len(found) > 1):
            kinds = " and ".join(sorted(found))
            raise ValueError(
                f"column {self.name!r}: {kinds} in different parts of the stream; say what it is with column_types=, or"
                " clean it"
            )


def text_among(values: np.ndarray) -> np.ndarray:
    """Which plain values are text, bool (P,)."""
    if values.dtype != object:
        return np.zeros(len(values), dtype=bool)
    return np.array([isinstance(v, str) for v in values], dtype=bool)


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
