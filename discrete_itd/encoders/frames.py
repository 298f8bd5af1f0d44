"""Tables of any library as frames, and results for users: filled cells, and values as readable text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import narwhals
import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from discrete_itd.encoders.column import Column
from discrete_itd.encoders.dtypes import (
    decimals_of,
    is_category,
    plain,
)
from discrete_itd.encoders.notation import EXACT, Notation, quoted

if TYPE_CHECKING:
    from torch import Tensor

Answer = TypeVar("Answer", bound=Callable[..., Any])


def as_frame(X: Any) -> pd.DataFrame | None:
    """A pandas frame of any table that narwhals knows, collected if it is lazy; None if X is no table.

    Examples
    --------
    >>> as_frame([[1]]) is None, as_frame(pd.DataFrame({"a": [1]})).shape
    (True, (1, 1))
    """
    if isinstance(X, pd.DataFrame):
        return X
    kind = f"{type(X).__module__}.{type(X).__qualname__}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask is to move to a package of its own
            table = narwhals.from_native(X, pass_through=True)
            if isinstance(table, narwhals.LazyFrame):
                table = table.collect()
    except (AttributeError, ImportError, NotImplementedError) as error:  # of another release
        raise TypeError(
            f"X is a {kind}, which this release of narwhals does not read ({error}): convert it to pandas"
        ) from error
    if isinstance(table, narwhals.DataFrame):
        return table.to_pandas()
    frame = X.to_pandas() if hasattr(X, "to_pandas") else None  # record batches of Arrow
    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(type(X), "columns") or hasattr(X, "__dataframe__"):
        raise TypeError(f"X is a {kind}, a table that narwhals does not know: convert it to pandas")
    return None


def is_table(X: Any) -> bool:
    """Whether X has columns of names, be it in memory or lazy."""
    return hasattr(type(X), "columns") or hasattr(type(X), "to_pandas")


def check_unique_names(frame: pd.DataFrame) -> None:
    """ValueError if a column's name is missing, or occurs more than once."""
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"column {twice!r}: the name occurs more than once")
    for j, name in enumerate(frame.columns):
        if pd.api.types.is_scalar(name) and pd.isna(name):
            where = f"column {j} from the left, beginning with 0"
            raise ValueError(f"{where}: its name is missing, {name!r}")


def too_few(n_rows: int, n_columns: int) -> ValueError:
    """The error of a table without rows or columns, in scikit-learn's words."""
    return ValueError(
        f"Found array with {n_rows} sample(s) and {n_columns} feature(s) (shape=({n_rows}, {n_columns})) while a"
        " minimum of 1 is required."
    )


def fill_cells(frame: pd.DataFrame, empty: np.ndarray, filled: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table (N, C) with its empty cells filled from the rows that have one, in their order."""
    columns = []
    for j in range(frame.shape[1]):
        column, mask = frame.iloc[:, j], empty[:, j]
        values = filled.iloc[:, j][mask[empty.any(1)]]
        columns.append(_filled(column, mask, values) if mask.any() else column)
    return pd.concat(columns, axis=1).set_axis(frame.columns, axis=1)


def _filled(column: pd.Series, mask: np.ndarray, values: pd.Series) -> pd.Series:
    """The column with ``values`` where the mask is true, in its own dtype if that can hold them."""
    out = column.copy()
    if is_category(column.dtype):
        new = pd.Index(values.dropna().unique()).difference(column.cat.categories, sort=False)
        out = column.cat.add_categories(list(new))
    try:
        out[mask] = values.to_numpy()
    except (TypeError, ValueError, NotImplementedError):  # the last of Arrow's type of nothing
        out = column.astype(object)
        out[mask] = values.to_numpy(dtype=object)
        out = out.infer_objects()
    return out


def in_kind(method: Answer) -> Answer:
    """Decorate a method of a table X that returns a pandas frame: of a polars frame it returns one of polars."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, *args, **kwargs)
        X = args[0] if args else kwargs.get("X")
        return as_polars(found) if is_polars(X) and isinstance(found, pd.DataFrame) else found

    return cast(Answer, call)


def is_polars(X: Any) -> bool:
    """Whether a table is a polars frame."""
    return type(X).__module__.partition(".")[0] == "polars"


def to_pandas(table: Any) -> pd.DataFrame:
    """A frame of any kind, or an array, as a pandas frame."""
    frame = as_frame(table)
    return pd.DataFrame(table) if frame is None else frame


def as_polars(table: pd.DataFrame) -> Any:
    """A table as a polars frame, without its index; values of several types in one column become text."""
    import polars

    cells = {}
    for name, values in table.items():
        is_mixed = values.dtype == object and infer_dtype(values).startswith("mixed")
        cells[str(name)] = values.map(str, na_action="ignore") if is_mixed else values
    return polars.from_pandas(pd.DataFrame(cells, index=table.index), include_index=False)


def unique_rows(x: Tensor) -> tuple[Tensor, np.ndarray]:
    """Distinct rows and, for every row, the index of its distinct row: equal rows are scored once."""
    first, inverse = distinct(x.cpu().numpy())
    return x[first], inverse


def distinct(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position of each distinct row of float64 cells (N, C), (U,), and for every row the index of its own, (N,)."""
    if len(cells) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    # one bit pattern for 0 and -0, and for all NaNs
    cells = np.where(np.isnan(cells), np.nan, cells + 0.0)
    rows = cells.view(np.dtype((np.void, cells.dtype.itemsize * cells.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return first, inverse


SIGNIFICANT = 4  # digits of numbers that have more than a person writes, as in a computed column
LONGEST = 12  # digits of numbers that are never rounded, as a person or a till wrote them
SMALL = 1e-4  # below, and beyond exact integers, a power of ten is easier to read than zeros
DAY, MINUTE, SECOND = 86_400 * 10**9, 60 * 10**9, 10**9  # nanoseconds


def is_missing(value: Any) -> bool:
    """Whether a cell is missing."""
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def written(value: Any, column: Column | None = None) -> str:
    """A value as text, for people: "a missing cell" for a missing one.

    Parameters
    ----------
    value : scalar
        A cell of the table as the user has it, or as :meth:`Column.decode` gives it back.
    column : Column, optional
        Its numbers get as many decimals as they had in training, more only where the value itself has more; its times
        are as fine as they were. What was text is written as most of it was: "28.2.1999" becomes "28.02.1999".
        Categories stay as they are: digits of a nominal column are not grouped, as they may be a postal code.

    Examples
    --------
    >>> written(2361000.0), written(0.25), written(1999), written(None)
    ('2 361 000', '0.25', '1999', 'a missing cell')
    >>> written(pd.Timestamp("2024-01-31"))
    '2024-01-31'
    """
    value = plain(value)
    if is_missing(value):
        return "a missing cell"
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    is_text = isinstance(value, str | bool)
    if column is not None and column.notation is not None and not is_text:
        return str(_unrounded(column.notation, value).write(pd.Series([value])).iloc[0])
    step = 1 if column is None or column.family == "number" else column.step
    if isinstance(value, pd.Timestamp):
        return _time(value, step)
    if isinstance(value, pd.Timedelta | np.timedelta64):
        return str(pd.Timedelta(value)).removesuffix(" 00:00:00")
    if isinstance(value, str):  # what people would not see is in quotation marks
        return value if value and value.isprintable() and value == value.strip() else quoted(value)
    if is_text or not isinstance(value, int | float):
        return str(value)
    is_name = column is not None and column.kind == "nominal"
    return number(value, _decimals(column), grouped=not is_name)


def number(value: float, decimals: int | None = 0, *, grouped: bool = True) -> str:
    """A number as text, with at least so many ``decimals``, and more where it has more.

    Numbers with more than six decimals and twelve digits, which were computed, are rounded to four significant digits.
    ``grouped`` sets digits in groups of three, from five digits before the decimal mark on.

    Examples
    --------
    >>> number(25.0, 2), number(0.123456789, None), number(10667, grouped=False), number(3e20)
    ('25.00', '0.123456789', '10667', '3e+20')
    >>> number(1 / 3), number(10**400), number(-0.0), number(np.longdouble(1) / 3)
    ('0.3333', '1e+400', '0', '0.3333')
    """
    try:
        if not math.isfinite(value):
            return str(value)
        if not isinstance(value, int):
            value = float(value) or 0.0  # of any precision, and without a sign of zero
            # an integer is a float beside a gap, and is to be written alike
            value = int(value) if abs(value) <= EXACT and value.is_integer() else value
    except OverflowError:  # an integer that no float holds
        return f"{Decimal(value).normalize():.{SIGNIFICANT}g}"
    if isinstance(value, float) and not SMALL <= abs(value) <= EXACT and value:
        digits = len(Decimal(repr(float(value))).normalize().as_tuple().digits)
        return f"{value:.{digits if digits <= LONGEST else SIGNIFICANT}g}"
    own = _own_decimals(value)
    if own is None:
        before = math.floor(math.log10(abs(value))) + 1 if value else 1  # digits before the mark
        text = f"{value:.{max(0, SIGNIFICANT - before)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        own = max(decimals or 0, own)
        text = str(value) if isinstance(value, int) and not own else f"{value:.{own}f}"
    whole, mark, fraction = text.partition(".")
    if grouped and len(whole.lstrip("-")) > 4:
        whole = f"{int(whole):,}".replace(",", " ")
    return f"{whole}{mark}{fraction}"


def _own_decimals(value: float) -> int | None:
    """The decimals of a number; None if it has more than were plausibly written."""
    own = decimals_of(np.array([value], dtype=float), np.dtype(float))
    if own is None:
        parts = Decimal(repr(float(value))).normalize().as_tuple()
        own = -int(parts.exponent) if len(parts.digits) <= LONGEST else None
    return own


def _unrounded(notation: Notation, value: Any) -> Notation:
    """The notation with as many places as a value has, if these are more."""
    if notation.family != "number" or not math.isfinite(value):
        return notation
    own = _own_decimals(value)
    return notation if (own or 0) <= (notation.places or 0) else replace(notation, places=own)


def _decimals(column: Column | None) -> int | None:
    """The decimals that numbers of a column are written with."""
    if column is None or not column.categories:
        codec = getattr(column, "codec", None)
        return 0 if column is None or getattr(codec, "whole", False) else column.decimals
    numbers = [c for c in column.categories if isinstance(c, int | float)]
    return decimals_of(np.array(numbers, dtype=float), np.dtype(float)) if numbers else 0


def _time(value: pd.Timestamp, step: int) -> str:
    """A time, as fine as a column whose times lie on a grid of ``step`` nanoseconds, or as the time itself is."""
    if value == value.normalize() and (step == 1 or step >= DAY):
        return f"{value.date()}"
    for unit, digits in ((MINUTE, "minutes"), (SECOND, "seconds")):
        if step % unit == 0 and value.floor(f"{unit}ns") == value:
            return value.isoformat(sep=" ", timespec=digits)
    return str(value)
