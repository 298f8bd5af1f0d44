"""What users pass as a table, and what they get back: frames and arrays around the encoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import narwhals
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel.noise import cell_bits
from discrete_itd.encoders.categories import TRUTHS, WHOLE
from discrete_itd.encoders.cells import is_number, read_cells
from discrete_itd.encoders.dtypes import family, is_category

Answer = TypeVar("Answer", bound=Callable[..., Any])


def as_frame(X: Any) -> pd.DataFrame | None:
    """A pandas frame of any table that narwhals knows, collected if it is lazy; None if X is no table.

    Those of polars, pyarrow, Modin, DuckDB, Dask, Spark and others.

    Examples
    --------
    >>> as_frame([[1]]) is None, as_frame(pd.DataFrame({"a": [1]})).shape
    (True, (1, 1))
    """
    if isinstance(X, pd.DataFrame):
        return X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask is to move to a package of its own
        table = narwhals.from_native(X, pass_through=True)
        if isinstance(table, narwhals.LazyFrame):
            table = table.collect()
    if isinstance(table, narwhals.DataFrame):
        return table.to_pandas()
    frame = X.to_pandas() if hasattr(X, "to_pandas") else None  # record batches of Arrow
    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(type(X), "columns") or hasattr(X, "__dataframe__"):
        kind = f"{type(X).__module__}.{type(X).__qualname__}"
        raise TypeError(f"X is a {kind}, a table that narwhals does not know: convert it to pandas")
    return None


def is_table(X: Any) -> bool:
    """Whether X has columns of names, be it in memory or lazy."""
    return hasattr(type(X), "columns") or hasattr(type(X), "to_pandas")


def check_unique_names(frame: pd.DataFrame) -> None:
    """ValueError if a column's name is missing, occurs more than once, or is text that no file can hold.

    Examples
    --------
    >>> check_unique_names(pd.DataFrame({"a": [1], "b": [2]}))
    """
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"column {twice!r}: the name occurs more than once")
    for j, name in enumerate(frame.columns):
        if pd.api.types.is_scalar(name) and pd.isna(name):
            raise ValueError(
                f"column {j} from the left, beginning with 0: its name is missing, {name!r}"
            )
        if isinstance(name, str) and not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(f"column {name!r}: the name has half of a character") from None


def fill_cells(frame: pd.DataFrame, empty: np.ndarray, filled: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table with its empty cells filled.

    Parameters
    ----------
    frame : DataFrame, shape (N, C)
    empty : ndarray of bool, shape (N, C)
    filled : DataFrame, shape (n, C)
        The rows that have an empty cell, in their order.
    """
    columns = []
    for j in range(frame.shape[1]):
        column, mask = frame.iloc[:, j], empty[:, j]
        if mask.any():
            values = filled.iloc[:, j][mask[empty.any(1)]]
            column = _filled(column, mask, values)
        columns.append(column)
    return pd.concat(columns, axis=1).set_axis(frame.columns, axis=1)


def _filled(column: pd.Series, mask: np.ndarray, values: pd.Series) -> pd.Series:
    """The column with ``values`` where the mask is true, in its own dtype if that can hold them."""
    out, values = column.copy(), _as_there(values, column)
    if is_category(column.dtype):
        new = pd.Index(values.dropna().unique()).difference(column.cat.categories, sort=False)
        out = column.cat.add_categories(list(new)) if len(new) else out
    try:
        out[mask] = values.to_numpy()
    except (TypeError, ValueError, NotImplementedError):  # the last of Arrow's type of nothing
        out = column.astype(object)
        out[mask] = values.to_numpy(dtype=object)
        out = out.infer_objects()
    return out


def _as_there(values: pd.Series, column: pd.Series) -> pd.Series:
    """Numbers and truth values as text where the column has text, and text as these where it has them."""
    is_truth = family(values.dtype) == "boolean"
    there = pd.api.types.infer_dtype(column, skipna=True)
    if there == "string" and is_number(read_cells(values).values):
        return values.map(lambda v: str(int(v) if v == int(v) else v), na_action="ignore")
    if there in ("integer", "floating") and _is_whole_text(values):
        return values.map(int, na_action="ignore")
    if is_truth and there == "string":
        return values.map(str)
    if not is_truth and family(column.dtype) == "boolean" and values.isin(list(TRUTHS)).all():
        return values.map(TRUTHS).astype("boolean")
    return values


def _is_whole_text(values: pd.Series) -> bool:
    return all(isinstance(v, str) and WHOLE.fullmatch(v) for v in values.dropna())


def like(X: Any, table: pd.DataFrame) -> Any:
    """A table as a polars frame if X is one, else as it is; polars has no index, and names of columns are text."""
    return as_polars(table) if is_polars(X) and isinstance(table, pd.DataFrame) else table


def in_kind(method: Answer) -> Answer:
    """Decorate a method of a table X that returns a pandas frame, or several: a polars frame gets polars frames."""

    @wraps(method)
    def call(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, X, *args, **kwargs)
        return [like(X, f) for f in found] if isinstance(found, list) else like(X, found)

    return cast(Answer, call)


def is_polars(X: Any) -> bool:
    """Whether a table is a polars frame.

    Examples
    --------
    >>> is_polars(pd.DataFrame({"a": [1]}))
    False
    """
    return type(X).__module__.partition(".")[0] == "polars"


def to_pandas(table: Any) -> pd.DataFrame:
    """A frame of any kind, or an array, as a pandas frame."""
    frame = as_frame(table)
    return pd.DataFrame(table) if frame is None else frame


def as_polars(table: pd.DataFrame) -> Any:
    """A table as a polars frame, without its index; values of several types in one column become text."""
    import polars

    cells = {str(name): _of_one_type(values) for name, values in table.items()}
    return polars.from_pandas(pd.DataFrame(cells, index=table.index), include_index=False)


def _of_one_type(values: pd.Series) -> pd.Series:
    if values.dtype == object and pd.api.types.infer_dtype(values).startswith("mixed"):
        return values.map(str, na_action="ignore")
    return values


def as_dtype(values: pd.Series, dtype: Any) -> pd.Series:
    """Values in another dtype if that can hold them, else as they are."""
    if is_category(dtype) and not values.isin(dtype.categories).all():
        return values
    try:
        out = values.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return values
    same = out.astype(object).to_numpy() == values.astype(object).to_numpy()
    return out if bool(np.all(same)) else values


def unique_rows(x: Tensor) -> tuple[Tensor, np.ndarray]:
    """Distinct rows and, for every row, which of them it is: equal rows are scored once."""
    cells = np.ascontiguousarray(cell_bits(x).cpu().numpy())
    rows = cells.view(np.dtype((np.void, cells.dtype.itemsize * cells.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return x[torch.from_numpy(first).to(x.device)], inverse
