"""One column of a table: its dtype, and the map of its values to numbers of the core and back."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import pandas as pd

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.categories import Categories
from discrete_itd.encoders.cells import (
    MOST_DECIMALS,
    TIMES,
    PlainCells,
    Scalar,
    as_numbers,
    dtype_from_json,
    dtype_to_json,
    family,
    has_time_zone,
    holding_missing,
    holds_text,
    is_category,
    is_number,
    numpy_name,
    read_cells,
    restore_categories,
    restore_numbers,
    restore_times,
    rounded,
    time_intervals,
)
from discrete_itd.encoders.notation import Notation, as_text, is_missing, read_plainly
from discrete_itd.encoders.numeric import Bins, Continuous

Codec = Categories | Bins | Continuous
# of which a file has plain data
StoredDtype = Annotated[Any, (dtype_to_json, dtype_from_json)]
EXPECTED = {
    "number": "numbers",
    "datetime": "ISO dates or times, like 2024-01-31",
    "timedelta": "durations, like 1 days 02:00:00",
}
DAY = 86_400  # seconds
SUSPICIOUS_ROWS = 5  # this many unseen values and no known one are hardly chance


@dataclass(frozen=True)
class Column:
    """Schema of one of the user's columns.

    Parameters
    ----------
    name : str, int, float or bool
        The column's name; its position in an array.
    dtype : dtype
        In which values are given back.
    codec : Categories, Bins or Continuous
        Values to and from the core's numbers.
    n_rows, n_missing : int
        Cells in training, and how many of them were missing.
    indicator : bool
        Whether an internal column of its own says if a cell is missing.
    origin : int
        Seconds since 1970 (of a column of durations, since 0) from which a column of times counts.
    step : int
        Nanoseconds of the regular grid on which its times lie, and by which it counts.
    decimals : int, optional
        Of its fractional numbers, which are given back with as many; None if they have more than six.
    notation : Notation, optional
        How text of the column writes its numbers or times, which have the dtype ``dtype``.
    text_dtype : dtype, optional
        Of the column in the training table, if it was such text: drawn and filled cells are written as it is.

    Examples
    --------
    >>> column = Column("colour", np.dtype(object), Categories("nominal", ("blue", "red"), False), 2, 0)
    >>> column.encode(pd.Series(["red", None]))[0]
    array([ 1., nan])
    """

    name: Hashable
    dtype: StoredDtype
    codec: Codec
    n_rows: int
    n_missing: int
    indicator: bool = False
    origin: int = 0
    step: int = 1
    decimals: int | None = None
    notation: Notation | None = None
    text_dtype: StoredDtype | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.n_missing <= self.n_rows or self.step < 1:
            raise ValueError("counts and step must be positive")
        if self.decimals not in (None, *range(MOST_DECIMALS + 1)):
            raise ValueError(f"decimals must be few, got {self.decimals!r}")
        if is_category(self.dtype) and not len(self.dtype.categories):  # a file has them once
            names = pd.Index(list(self.categories), dtype=self.dtype.categories.dtype)
            vars(self)["dtype"] = pd.CategoricalDtype(names, self.dtype.ordered)

    @property
    def kind(self) -> str:
        """One of "nominal", "ordinal", "continuous", "binned"."""
        return self.codec.kind

    @property
    def categories(self) -> tuple[Scalar, ...]:
        """The values of a nominal or ordinal column; empty for the others."""
        return self.codec.categories

    @property
    def open(self) -> bool:
        """Whether a level stands for values that are none of the categories."""
        return self.codec.open

    @property
    def is_text(self) -> bool:
        """Whether the column has categories and all of them are text."""
        return bool(self.categories) and all(isinstance(c, str) for c in self.categories)

    @property
    def family(self) -> str:
        """Kind of the values if they are not categories: "number", "datetime" or "timedelta"."""
        found = family(self.dtype)
        return found if found in TIMES else "number"

    @property
    def has_days(self) -> bool:
        """Whether its times are dates: all lie at the beginning of a day, without a time zone."""
        is_date = self.family == "datetime" and not has_time_zone(self.dtype)
        return is_date and self.step % (DAY * 10**9) == 0 and self.origin % DAY == 0

    @cached_property
    def _takes_text(self) -> bool:
        """Whether text among its cells is parsed: as numbers or times, or as words for missing cells among numbers."""
        if self.notation is not None or not isinstance(self.codec, Categories):
            return True
        return bool(self.categories) and all(isinstance(c, int | float) for c in self.categories)

    @property
    def gives_numbers(self) -> bool:
        """Whether text of the column becomes numbers or times in a table that is read."""
        return self.notation is not None or not isinstance(self.codec, Categories)

    @property
    def has_volume(self) -> bool:
        """Whether log-volumes of cells differ from 0: a density, or categories that share a level."""
        return self.kind in ("continuous", "binned") or bool(getattr(self.codec, "pooled", ()))

    @property
    def points(self) -> ColumnPoints:
        """The points to which its levels or values are embedded."""
        return self.codec.points

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The categories or intervals, the level of each, and its share of the level's probability.

        A continuous column has none: TypeError.
        """
        if isinstance(self.codec, Continuous):
            raise TypeError(f"column {self.name!r}: continuous, without categories")
        index, level, share = self.codec.values()
        if isinstance(self.codec, Bins) and self.family != "number":
            index = time_intervals(self.codec.edges, self.dtype, self.origin, self.step)
        return index, level, share

    def read_cells(self, values: pd.Series | pd.Index | PlainCells) -> PlainCells:
        """The plain values of cells, with text parsed in the column's notation, or that of Python and ISO 8601.

        Text among categories is kept, except for words for missing cells among numbers. A ValueError names column and
        cell, if a text is neither a number or time of the column nor a word for a missing cell.
        """
        cells = values if isinstance(values, PlainCells) else read_cells(values)
        if not self._takes_text or cells.values.dtype != object:
            return cells
        is_text = np.array([isinstance(v, str) for v in cells.values], dtype=bool)
        if not is_text.any():
            return cells
        texts = cells.values[is_text].tolist()
        if self.gives_numbers:
            found = self._read_texts(texts)
            unread = pd.isna(found)
        else:
            found = cells.values[is_text]
            unread = np.array([is_missing(text) for text in texts])
        kept = np.ones(len(cells.values), dtype=bool)
        kept[np.flatnonzero(is_text)[unread]] = False
        known = found[~unread]
        if not is_text.all():  # some are numbers or times already
            own = read_cells(pd.Series(cells.values[~is_text], dtype=object)).values
            both = cells.values.copy()
            for where, part in ((is_text, found), (~is_text, own)):
                both[where] = pd.Series(part).astype(object).to_numpy()
            known = read_cells(pd.Series(both[kept], dtype=object)).values
        place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last for missing ones
        return PlainCells(known, place[cells.where])

    def _read_texts(self, texts: list[str]) -> np.ndarray:
        """Numbers or times, missing where a text is a word for that; ValueError for any other text."""
        notation = self.notation
        found = (
            read_plainly(texts, self.family, self.dtype)
            if notation is None
            else notation.read(texts)
        )
        for i in np.flatnonzero(pd.isna(found)):
            if is_missing(texts[i]):
                continue
            expected, hint = EXPECTED[self.family], ""
            if notation is not None:
                expected = notation.expected
            if self.family == "number" or notation is not None:
                hint = (notation or Notation()).hint(texts[i])
            raise ValueError(f"column {self.name!r}: expected {expected}, got {texts[i]!r}{hint}")
        if numpy_name(self.dtype) in ("float16", "float32"):  # 121.2 is what it has always been
            return found.astype(numpy_name(self.dtype)).astype(float)
        return found

    def read(self, values: pd.Series) -> pd.Series:
        """A column of a table, as numbers or times if it is text of these."""
        if not (self.gives_numbers and holds_text(values)):
            return values
        cells = self.read_cells(values)
        known, of_numbers = cells.values, self.family == "number"
        if not len(known):
            known = np.zeros(
                0, {"datetime": "M8[us]", "timedelta": "m8[us]"}.get(self.family, "f8")
            )
        elif not (is_number(known) if of_numbers else family(known.dtype) in TIMES):
            return values  # mixed with what the column does not take: its encoding names it
        missing = np.array([np.nan]) if of_numbers else np.full(1, "NaT", known.dtype)
        typed = np.concatenate((known, missing))[cells.where]
        return self._typed(pd.Series(typed, index=values.index, name=values.name))

    def _typed(self, values: pd.Series) -> pd.Series:
        """Numbers or times in the fitted dtype, or unchanged if it cannot represent them."""
        if has_time_zone(self.dtype):
            values = values.dt.tz_localize("UTC")
        try:
            out = values.astype(holding_missing(self.dtype, bool(values.isna().any())))
            if family(self.dtype) == "float":  # float32 has 121.2 as it has always had
                return out
            same = (out.astype(values.dtype) == values) | values.isna()
        except (TypeError, ValueError, OverflowError):
            return values
        return out if same.all() else values

    def is_written(self, values: pd.Series) -> bool:
        """Whether filled cells of a table's column are text.

        They are if others are, or if there are only gaps and the training table had text: readers make floats of gaps.
        """
        if not self.gives_numbers:
            return False
        was_text = self.notation is not None and self.text_dtype is not None
        return holds_text(values) or (was_text and bool(values.isna().all()))

    def as_text(self, values: pd.Series) -> pd.Series:
        """Numbers or times as text, in the column's notation or as Python and ISO 8601 write them."""
        if self.notation is not None:
            return self.notation.write(values)
        return as_text(values, days=self.has_days)

    def write(self, values: pd.Series) -> pd.Series:
        """Numbers or times as the training table wrote them, if that was text."""
        if self.notation is None or self.text_dtype is None:
            return values
        return self.notation.write(values).astype(self.text_dtype)

    def encode(self, values: pd.Series) -> tuple[np.ndarray, np.ndarray, bool]:
        """The core's numbers and log-volumes, float64, NaN and 0 where a cell is missing.

        The third result is whether all of several values are unseen, so that the dtype is probably wrong. Errors are
        those of :meth:`encode_values`.
        """
        cells = self.read_cells(values)
        x, log_volume = self.encode_values(cells)
        strange = bool(
            self.categories
            and self.open
            and np.count_nonzero(cells.where >= 0) >= SUSPICIOUS_ROWS
            and (x == self.codec.n_levels).all()
        )
        # one more, for the missing: index -1
        x, log_volume = np.concatenate((x, [np.nan])), np.concatenate((log_volume, [0.0]))
        return x[cells.where], log_volume[cells.where], strange

    def encode_values(self, cells: PlainCells) -> tuple[np.ndarray, np.ndarray]:
        """The core's numbers and log-volumes of the distinct values: float64, (P,) each.

        A ValueError or TypeError names the column, if a value is not of the column's kind, infinite, or unseen where
        that is refused.
        """
        if isinstance(self.codec, Categories):
            x, log_volume = self.codec.encode(self.name, cells)
        else:
            numbers = as_numbers(self.name, cells, self.family, self.origin, self.step)
            x, log_volume = self.codec.encode(numbers)
            if self.family != "number":
                log_volume -= math.log(self.step / 1e9)  # per second, not per step
        return x + 0.0, log_volume

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> pd.Series:
        """The cells of the core's numbers, in the fitted dtype."""
        values = self.codec.decode(x, rng)
        if isinstance(self.codec, Categories):
            return restore_categories(self.categories, values, self.dtype)
        if self.family != "number":
            return restore_times(values, self.dtype, self.origin, self.step)
        whole = self.codec.whole or family(self.dtype) == "integer"
        if isinstance(self.codec, Bins) and self.decimals is not None:
            near = rounded(np.where(np.isnan(values), 0.0, values), self.decimals)
            if family(self.dtype) == "float":  # as it will be read again
                near = near.astype(numpy_name(self.dtype)).astype(float)
            stays = self.codec.encode(near)[0] == x  # a value is in its bin
            values = np.where(stays, near, values)
            return restore_numbers(values, self.dtype, whole)
        return restore_numbers(values, self.dtype, whole, self.decimals)
