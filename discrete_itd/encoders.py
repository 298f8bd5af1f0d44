"""Columns of a table <-> category codes <-> points: the schema of a table.

A :class:`TableEncoder` looks at a pandas frame, decides what each column is, and maps rows to integer codes
and back. What a column becomes:

=============================  =========  =====================================================
dtype                          kind       categories
=============================  =========  =====================================================
category                       nominal    those of the dtype, used or not
ordered category               ordinal    those of the dtype, equally spaced
string, object                 nominal    the distinct values
bool                           nominal    False and True, nothing else is possible
integer, float                 ordinal    the distinct values, at their own distances
any column of a numpy array    nominal    the distinct values: the array is taken to hold codes
=============================  =========  =====================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from pandas.api import types

from discrete_itd.codebook import Codebook, ColumnPoints

Kind = Literal["nominal", "ordinal"]
Scalar = str | int | float | bool
KINDS = ("nominal", "ordinal")
MANY_CATEGORIES = 1000
SUSPICIOUS_ROWS = 5  # so many unseen values and no seen one are hardly chance
FINEST_GAP = 1e-3  # in standard deviations; closer levels are spaced by rank


@dataclass(frozen=True)
class ColumnSchema:
    """What one column is, and how it goes to codes and back.

    Parameters
    ----------
    name : hashable
        The column's name; its position in an array.
    kind : {"nominal", "ordinal"}
    categories : tuple of str, int, float or bool
        In the order of their codes 0 ... K - 1.
    open : bool
        Whether code K stands for a value that is none of these.
    levels : tuple of float
        Points of an ordinal column's categories on the line.
    dtype : str
        The pandas dtype in which values are given back.
    ordered : bool
        Whether a ``category`` dtype is ordered.
    category_dtype : str
        The dtype of the categories of a ``category`` dtype; pandas' own choice if empty.
    """

    name: Hashable
    kind: Kind
    categories: tuple[Scalar, ...]
    open: bool
    levels: tuple[float, ...]
    dtype: str
    ordered: bool = False
    category_dtype: str = ""

    @property
    def points(self) -> ColumnPoints:
        """The points of the categories."""
        kind = "simplex" if self.kind == "nominal" else "line"
        return ColumnPoints(kind, len(self.categories), self.open, self.levels)

    def encode(self, values: pd.Series) -> np.ndarray:
        """Codes of the values, int64; that of an unseen value is K.

        Raises
        ------
        ValueError
            If a value is missing, or is unseen and the column is closed.
        TypeError
            If a value cannot be a category, like a list.
        """
        _refuse_missing(self.name, values)
        index = _index(self.categories)
        if isinstance(values.dtype, pd.CategoricalDtype):
            # look up each category once, not each cell
            codes = index.get_indexer(list(values.cat.categories))[values.cat.codes.to_numpy()]
        else:
            cells = values.to_numpy()
            if types.is_bool_dtype(values.dtype) != types.is_bool_dtype(index.dtype):
                cells = cells.astype(object)  # pandas would match True with 1 or refuse
            try:
                codes = index.get_indexer(cells)
            except TypeError:
                raise _no_category(self.name, values) from None
        codes = codes.astype(np.int64)
        unseen = codes < 0
        if unseen.any():
            if not self.open:
                first = values.iloc[int(unseen.argmax())]
                raise ValueError(f"column {self.name!r}: unseen category {plain(first)!r}")
            codes[unseen] = len(self.categories)
        return codes

    def decode(self, codes: np.ndarray, index: pd.Index | None = None) -> pd.Series:
        """The values of codes, in the fitted dtype; that of an unseen value is missing."""
        codes = np.where(codes < len(self.categories), codes, -1)
        if self.dtype == "category":
            names = pd.Index(list(self.categories), dtype=self.category_dtype or None)
            dtype = pd.CategoricalDtype(names, ordered=self.ordered)
            cells = pd.Categorical.from_codes(codes, dtype=dtype)
            return pd.Series(cells, index=index, name=self.name)
        cells = pd.Series(list(self.categories), dtype=self.dtype)
        missing = codes < 0
        cells = cells.take(np.where(missing, 0, codes)).reset_index(drop=True)
        if missing.any():
            cells = cells.astype(object).mask(missing, None)
        cells.index = pd.RangeIndex(len(codes)) if index is None else index
        return cells.rename(self.name)


class TableEncoder:
    """The schema of a table: one :class:`ColumnSchema` per column.

    Parameters
    ----------
    schema : sequence of ColumnSchema

    Examples
    --------
    >>> frame = pd.DataFrame({"colour": ["red", "blue", "red"], "size": [3, 1, 2]})
    >>> encoder = TableEncoder.fit(frame)
    >>> encoder.transform(frame)
    array([[1, 2],
           [0, 0],
           [1, 1]])
    >>> encoder.inverse_transform(encoder.transform(frame)).equals(frame)
    True
    """

    def __init__(self, schema: Sequence[ColumnSchema]) -> None:
        self.schema = tuple(schema)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        columns: Mapping[Any, str] | str | None = None,
        *,
        unseen: str = "smooth",
        integers: Kind = "ordinal",
    ) -> TableEncoder:
        """Decide what each column is.

        Parameters
        ----------
        frame : DataFrame, shape (N, C)
        columns : mapping from name to kind, or one kind for all, optional
            Overrides what the dtypes say; kinds are "nominal" and "ordinal".
        unseen : {"smooth", "raise"}
            Whether a column gets a slot for values never seen. Boolean columns never do.
        integers : {"nominal", "ordinal"}
            The kind of numeric columns that ``columns`` does not name.

        Raises
        ------
        ValueError
            Naming the column, if a kind or name is unknown, names repeat, or values are missing or infinite.
        TypeError
            Naming the column, if values are of a type that is no category.
        """
        if unseen not in ("smooth", "raise"):
            raise ValueError(f"unseen must be 'smooth' or 'raise', got {unseen!r}")
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise ValueError(f"column {twice!r}: the name occurs more than once")
        if isinstance(columns, str):
            columns = dict.fromkeys(frame.columns, columns)
        columns = dict(columns or {})
        for name, kind in columns.items():
            if name not in frame.columns:
                raise ValueError(
                    f"column {name!r}: named in columns=, but the table has no such column"
                )
            if kind not in KINDS:
                raise ValueError(f"column {name!r}: kind must be one of {KINDS}, got {kind!r}")
        return cls(
            [
                _infer(n, _column(frame, n), columns.get(n), unseen == "smooth", integers)
                for n in frame.columns
            ]
        )

    @property
    def names(self) -> list:
        """Names of the columns."""
        return [c.name for c in self.schema]

    def codebook(self) -> Codebook:
        """The points of all columns."""
        return Codebook([c.points for c in self.schema])

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Codes, int64, shape (N, C); the frame's columns are found by name, its order does not matter."""
        codes = np.empty((len(frame), len(self.schema)), dtype=np.int64)
        for j, column in enumerate(self.schema):
            values = _column(frame, column.name)
            codes[:, j] = column.encode(values)
            if len(codes) >= SUSPICIOUS_ROWS and (codes[:, j] == len(column.categories)).all():
                warnings.warn(
                    f"column {column.name!r}: no value was seen in training (dtype {values.dtype}, fitted as"
                    f" {column.dtype}); is the type the same?",
                    stacklevel=4,
                )
        return codes

    def inverse_transform(self, codes: np.ndarray, index: pd.Index | None = None) -> pd.DataFrame:
        """The table of the codes, with the fitted names and dtypes."""
        cells = {c.name: c.decode(codes[:, j], index) for j, c in enumerate(self.schema)}
        return pd.DataFrame(cells, columns=pd.Index(self.names), index=index)

    def describe(self) -> pd.DataFrame:
        """One line per column: kind, number of categories, whether open, dtype."""
        rows = [(c.name, c.kind, len(c.categories), c.open, c.dtype) for c in self.schema]
        return pd.DataFrame(rows, columns=["column", "kind", "categories", "open", "dtype"])

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON data from which :meth:`from_list` makes an equal encoder."""
        return [asdict(c) for c in self.schema]

    @classmethod
    def from_list(cls, data: Sequence[Mapping[str, Any]]) -> TableEncoder:
        """The encoder that :meth:`to_list` wrote."""
        return cls(
            [
                ColumnSchema(
                    **{**c, "categories": tuple(c["categories"]), "levels": tuple(c["levels"])}
                )
                for c in data
            ]
        )


def _infer(
    name: Hashable, values: pd.Series, kind: str | None, is_open: bool, integers: Kind
) -> ColumnSchema:
    if not isinstance(plain(name), Scalar):
        raise TypeError(
            f"column {name!r}: a column's name must be a string or a number, got a {type(name).__name__}"
        )
    _refuse_missing(name, values)
    dtype, ordered = values.dtype, False
    if isinstance(dtype, pd.CategoricalDtype):
        categories = [plain(c) for c in dtype.categories]
        ordered = bool(dtype.ordered)
        inferred = "ordinal" if ordered else "nominal"
    elif types.is_bool_dtype(dtype):
        categories, inferred, is_open = [False, True], "nominal", False
    elif types.is_integer_dtype(dtype) or types.is_float_dtype(dtype):
        cells = values.to_numpy()
        if not np.isfinite(cells.astype(float)).all():
            raise ValueError(f"column {name!r}: contains infinity")
        categories = [plain(c) for c in np.unique(cells)]
        inferred = integers
        if types.is_float_dtype(dtype) and len(categories) > max(20, len(values) // 2):
            warnings.warn(
                f"column {name!r}: {len(categories)} distinct numbers in {len(values)} rows are taken as"
                " categories; cut a continuous column into bins first (pandas.cut with labels=False)",
                stacklevel=5,
            )
    elif types.is_string_dtype(dtype) or types.is_object_dtype(dtype):
        try:
            categories = [plain(c) for c in pd.unique(values)]
        except TypeError:  # a value without a hash
            raise _no_category(name, values) from None
        if all(isinstance(c, Scalar) for c in categories):
            categories.sort(key=lambda c: (isinstance(c, str), c))
        inferred = "nominal"
    else:
        raise ValueError(f"column {name!r}: values of dtype {dtype} are not supported")
    if not categories:
        raise ValueError(f"column {name!r}: no value to learn the categories from")
    if not all(isinstance(c, Scalar) for c in categories):
        raise _no_category(name, categories)
    if len(categories) > MANY_CATEGORIES:
        warnings.warn(
            f"column {name!r}: {len(categories)} categories will make the model large and slow;"
            " group the rare ones, or drop the column if it is an identifier",
            stacklevel=5,
        )
    kind = inferred if kind is None else kind
    numeric = not isinstance(dtype, pd.CategoricalDtype) and all(
        isinstance(c, int | float) for c in categories
    )
    levels: tuple[float, ...] = ()
    if kind == "ordinal":
        positions = (
            np.array(categories, float) if numeric else np.arange(len(categories), dtype=float)
        )
        if not np.isfinite(positions).all():
            raise ValueError(f"column {name!r}: contains infinity")
        codes = _index(categories).get_indexer(list(values))
        levels = line_levels(positions, np.bincount(codes, minlength=len(categories)))
    is_category = isinstance(dtype, pd.CategoricalDtype)
    return ColumnSchema(
        name=plain(name),
        kind="ordinal" if kind == "ordinal" else "nominal",
        categories=tuple(categories),
        open=is_open,
        levels=levels,
        dtype="category" if is_category else str(dtype),
        ordered=ordered,
        category_dtype=str(dtype.categories.dtype) if is_category else "",
    )


def line_levels(positions: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Where ordinal categories lie on the line.

    Parameters
    ----------
    positions : ndarray, shape (K,)
        Increasing finite numbers.
    counts : ndarray, shape (K,)
        How often each occurs.

    Returns
    -------
    tuple of float
        The positions, centred, with standard deviation one half, as two equally likely categories at unit distance
        have; shrunk if two neighbours would otherwise be further apart than one. Numbers so uneven
        that neighbours nearly touch are replaced by their ranks.
    """
    if len(positions) == 1:
        return (0.0,)
    weights = (counts + 0.5) / (counts + 0.5).sum()

    def standardised(values: np.ndarray) -> np.ndarray:
        values = values / values[-1]  # or the squares of very large numbers are no floats
        centred = values - weights @ values
        return 0.5 * centred / np.sqrt(weights @ centred**2)

    ranks = np.arange(len(positions), dtype=float)
    spread = positions / 2 - positions[0] / 2
    if np.diff(spread).min() <= 0:  # integers beyond 2^53 may be one float
        spread = ranks
    levels = standardised(spread)
    if np.diff(levels).min() < FINEST_GAP:
        levels = standardised(ranks)
    return tuple((levels / max(1.0, np.diff(levels).min())).tolist())


def _column(frame: pd.DataFrame, name: Hashable) -> pd.Series:
    return cast(pd.Series, frame[name])


def _refuse_missing(name: Hashable, values: pd.Series) -> None:
    missing = int(values.isna().sum())
    if missing:
        raise ValueError(
            f"column {name!r}: contains NaN or another missing value in {missing} of {len(values)} rows;"
            " fill them or make them a category first"
        )


def _index(categories: Sequence[Scalar]) -> pd.Index:
    """The categories to look codes up in."""
    # left to itself, pandas makes floats of integers mixed with floats, and large ones fall together
    mixed = len({type(c) for c in categories}) > 1
    return pd.Index(list(categories), dtype=object if mixed else None)


def _no_category(name: Hashable, values: Iterable[Any]) -> TypeError:
    """The error that names the first of the values that is neither string nor number."""
    odd = next((v for v in map(plain, values) if not isinstance(v, Scalar)), None)
    return TypeError(
        f"column {name!r}: argument must be a string or a number, got {odd!r} of type {type(odd).__name__};"
        " convert it first"
    )


def plain(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
