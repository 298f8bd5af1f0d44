"""Earlier rows of a row's own group as columns of the row: what a baseline over time compares it with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from discrete_itd.encoders.cells import as_numbers
from discrete_itd.encoders.frames import in_kind
from discrete_itd.encoders.rows import read_rows
from discrete_itd.encoders.table import TableEncoder
from discrete_itd.encoders.time_parts import read_part, source_of
from discrete_itd.validation import check_integer


class GroupLags(TransformerMixin, BaseEstimator):
    """Columns with the values that a row's group had in its earlier rows, for a step before a detector in a Pipeline.

    "turnover.lag1" is the turnover of the previous row of the same shop, "turnover.mean28" the mean of its previous 28
    rows, "turnover.ratio8" its turnover divided by the median of its previous 8 rows: a column in which shops of all
    sizes are alike, and in which an earlier anomaly has no echo. Lags count rows of the group, not days. A row sees
    rows that are strictly earlier: those of its own time and later ones change nothing, nor does the order of rows.

    Parameters
    ----------
    values : name of a column, or several
        Columns of numbers.
    time : name of a column
        Points in time, or numbers, by which the rows of a group are ordered.
    by : name of a column, or several, default=()
        Columns that define the group, among them parts of the time: with ``by=["shop", "date.weekday"]``, lag 1 is that
        of the shop on the same weekday before. A missing cell is a group of its own; by default, all rows are one.
    lags : sequence of int, default=(1,)
        Rows to go back, each a column.
    means : sequence of int, default=()
        Numbers of previous rows to average, each a column: over those that exist and have the value.
    ratios : sequence of int, default=()
        Numbers of previous rows of whose median the row's own value is a multiple, each a column; of positive medians.

    Attributes
    ----------
    last_rows_ : DataFrame
        The last rows of each group of the training table, where those of a new table continue. If a new table has rows
        of the same group and time, as the training table itself does, they replace these.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    There is NaN where no such row exists, and for a row without a time. A new table must have all rows since those of
    the fit: a row that is absent is not counted.

    Examples
    --------
    >>> days = pd.date_range("2024-01-01", periods=3)
    >>> sales = pd.DataFrame({"shop": list("aabb"), "date": days[[0, 1, 0, 1]], "turnover": [1.0, 2.0, 5.0, 6.0]})
    >>> lags = GroupLags("turnover", time="date", by="shop").fit(sales)
    >>> lags.transform(sales)["turnover.lag1"].tolist()
    [nan, 1.0, nan, 5.0]
    >>> lags.transform(pd.DataFrame({"shop": ["b"], "date": days[[2]], "turnover": [7.0]}))["turnover.lag1"].tolist()
    [6.0]
    """

    def __init__(
        self,
        values: Hashable | Sequence[Hashable],
        *,
        time: Hashable,
        by: Hashable | Sequence[Hashable] = (),
        lags: Sequence[int] = (1,),
        means: Sequence[int] = (),
        ratios: Sequence[int] = (),
    ) -> None:
        self.values = values
        self.time = time
        self.by = by
        self.lags = lags
        self.means = means
        self.ratios = ratios

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn how times and values are written, and remember the last rows of each group.

        Parameters
        ----------
        X : DataFrame, shape (N, C)
        y : ignored

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter that is invalid.
        """
        for name in ("lags", "means", "ratios"):
            if not isinstance(getattr(self, name), Iterable):
                raise TypeError(f"{name} must be a sequence of int, got {getattr(self, name)!r}")
            for k in getattr(self, name):
                check_integer(name, k, 1)
        if not self._reach:
            raise ValueError("lags, means and ratios are empty: there is nothing to add")
        frame = self._read(X)
        values, by = _names(self.values), _names(self.by)
        _check_names(frame, [self.time, *values])
        _check_names(frame, [name for name in by if not source_of(name, [self.time])])
        numbers = cast(pd.DataFrame, frame[[self.time, *values]])
        columns = TableEncoder.fit(numbers, "continuous").schema
        for column in columns[1:]:
            if column.family != "number":
                raise ValueError(f"column {column.name!r}: expected numbers, got {column.family}s")
        self._columns, self._values, self._by = columns, values, by
        names = pd.Index([*frame.columns, *self._new_names])
        for name in names[names.duplicated()]:
            raise ValueError(f"column {name!r}: the result would have it twice")
        rows = self._ordered(self._keyed(frame))
        self.last_rows_ = rows.groupby("group").tail(self._reach).drop(columns=["group", "row"])
        self.n_features_in_ = frame.shape[1]
        self.feature_names_in_ = np.asarray(frame.columns, dtype=object)
        return self

    @in_kind
    def transform(self, X: Any) -> pd.DataFrame:
        """The table with further columns, float64, V (L + M + R) of them for V values.

        The columns are those of the training table, by name and in its order; others are left out.
        """
        check_is_fitted(self)
        frame = self._read(X)
        _check_names(frame, self.feature_names_in_)
        frame = cast(pd.DataFrame, frame[list(self.feature_names_in_)])
        rows = self._ordered(pd.concat([self.last_rows_.assign(row=-1), self._keyed(frame)]))
        is_known = rows.groupby(["group", "time"])["row"].transform("max").to_numpy() >= 0
        rows = rows.loc[(rows["row"] >= 0) | ~is_known]
        group, time, row = (np.asarray(rows[key]) for key in ("group", "time", "row"))
        places = np.arange(len(rows))
        start = np.maximum.accumulate(np.where(_changes(group), places, 0))
        is_later = _changes(group) | _changes(time)
        before = np.maximum.accumulate(np.where(is_later, places, 0))  # the first row of its time
        out = {}
        for name, key in zip(self._values, _of_values(self._values), strict=True):
            cells = np.append(np.asarray(rows[key]), np.nan)
            earlier = [  # of each lag
                cells[np.where(before - k >= start, before - k, -1)]
                for k in range(1, self._reach + 1)
            ]
            found = {f"{name}.lag{k}": earlier[k - 1] for k in self.lags}
            for k in self.means:
                n = np.sum([~np.isnan(numbers) for numbers in earlier[:k]], axis=0)
                total = np.sum([np.nan_to_num(numbers) for numbers in earlier[:k]], axis=0)
                found[f"{name}.mean{k}"] = np.where(n, total / np.maximum(n, 1), np.nan)
            for k in self.ratios:
                median = _medians(np.array(earlier[:k]))
                ratio = cells[:-1] / np.where(median > 0, median, np.nan)
                found[f"{name}.ratio{k}"] = np.where(np.isinf(ratio), np.nan, ratio)
            for column, numbers in found.items():
                out[column] = np.full(len(frame), np.nan)
                out[column][row[row >= 0]] = numbers[row >= 0]
        return frame.assign(**out)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of the result: those of the training table, then the new ones."""
        check_is_fitted(self)
        return np.asarray([*self.feature_names_in_, *self._new_names], dtype=object)

    @property
    def _new_names(self) -> list[str]:
        return [
            f"{name}.{what}{k}"
            for name in self._values
            for what, ks in (("lag", self.lags), ("mean", self.means), ("ratio", self.ratios))
            for k in ks
        ]

    @property
    def _reach(self) -> int:
        """How many rows back any column looks."""
        return max([*self.lags, *self.means, *self.ratios], default=0)

    def _read(self, X: Any) -> pd.DataFrame:
        frame, is_frame = read_rows(X, self, fewest=0)
        if not is_frame:
            raise TypeError(f"X must be a table with names of columns, got a {type(X).__name__}")
        return frame

    def _keyed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows with a time: the cells of ``by``, "time" and values as numbers, and "row", the position in the table."""
        parts = {
            str(name): read_part(str(name), self._columns[0], cast(pd.Series, frame[self.time]))
            for name in self._by
            if name not in frame.columns
        }
        by = frame.assign(**parts)
        found = {f"by{j}": by[name].astype(object).to_numpy() for j, name in enumerate(self._by)}
        for key, column in zip(("time", *_of_values(self._values)), self._columns, strict=True):
            cells = column.read_cells(cast(pd.Series, frame[column.name]))
            numbers = as_numbers(column.name, cells, column.family, column.origin, column.step)
            found[key] = np.append(numbers, np.nan)[cells.where]
        rows = pd.DataFrame({**found, "row": np.arange(len(frame))})
        return rows.loc[rows["time"].notna()]

    def _ordered(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows by group, then time; of one time by their values, so that the order of the table does not matter."""
        by = [f"by{j}" for j in range(len(self._by))]
        group = rows.groupby(by, dropna=False, sort=False).ngroup() if by else 0
        keys = ["group", "time", *_of_values(self._values)]
        return rows.assign(group=group).sort_values(keys, ignore_index=True)


def _names(names: Any) -> list[Hashable]:
    is_one = isinstance(names, str) or not isinstance(names, Iterable)
    return [names] if is_one else list(dict.fromkeys(names))


def _check_names(frame: pd.DataFrame, names: Iterable[Hashable]) -> None:
    """ValueError naming the first column that a table lacks."""
    for name in names:
        if name not in frame.columns:
            raise ValueError(f"column {name!r}: the table has no such column")


def _of_values(values: Sequence[Hashable]) -> list[str]:
    """Keys of the columns of values, whatever their names are."""
    return [f"value{j}" for j in range(len(values))]


def _medians(values: np.ndarray) -> np.ndarray:
    """Medians of columns (K, N) over the values that are there, NaN without any: (N,)."""
    n = np.count_nonzero(~np.isnan(values), axis=0)
    ordered = np.sort(values, axis=0)  # NaN last
    middle = [
        np.take_along_axis(ordered, m[None], 0)[0]
        for m in (np.maximum(n - 1, 0) // 2, np.minimum(n // 2, len(values) - 1))
    ]
    return middle[0] / 2 + middle[1] / 2


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before, the first included: bool, (N,)."""
    out = np.ones(len(values), dtype=bool)
    out[1:] = values[1:] != values[:-1]
    return out
