"""What users pass as a table, and what they get back: frames and arrays around the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel.noise import cell_bits
from discrete_itd.encoders.dtypes import is_category
from discrete_itd.encoders.table import TableEncoder


def one_row(given: Any, encoder: TableEncoder) -> pd.DataFrame:
    """A frame of one row and all columns of the encoder; missing where ``given`` says nothing.

    Raises
    ------
    ValueError, TypeError
        If it names another column, has several rows, or is neither a mapping nor a Series nor a frame.
    """
    names = encoder.names
    if isinstance(given, pd.DataFrame):
        if len(given) != 1:
            raise ValueError(f"given must be one row, got {len(given)}")
        row = given.reset_index(drop=True)
    elif isinstance(given, Mapping | pd.Series):
        row = pd.DataFrame({name: pd.Series([value]) for name, value in given.items()}, index=[0])
    else:
        raise TypeError(f"given must be a mapping, a Series or a frame of one row, got {given!r}")
    for name in row.columns:
        if name not in names:
            raise ValueError(f"column {name!r}: named in given=, but the model has no such column")
    rest = pd.DataFrame({n: [None] for n in names if n not in row.columns}, index=[0])
    return cast(pd.DataFrame, row.join(rest)[names])


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
    out = column.copy()
    if is_category(column.dtype):
        new = pd.Index(values.dropna().unique()).difference(column.cat.categories, sort=False)
        out = column.cat.add_categories(list(new)) if len(new) else out
    try:
        out[mask] = values.to_numpy()
    except (TypeError, ValueError):
        out = column.astype(object)
        out[mask] = values.to_numpy(dtype=object)
        out = out.infer_objects()
    return out


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
