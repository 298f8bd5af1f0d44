"""What is seen of a column before it is known what the column is: of a series in memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
import pandas as pd

from discrete_itd.encoders.categories import tally
from discrete_itd.encoders.cells import Scalar, is_number, read_cells
from discrete_itd.encoders.dtypes import check_supported, family, is_category


class Observed(Protocol):
    """What the kind of a column, its categories and its scale are inferred from.

    Attributes
    ----------
    dtype : dtype
    n_rows, n_missing : int
        Cells, and how many of them are missing.
    values : ndarray, shape (P,)
        Plain values of the cells that are there, or of a uniform sample of them; of text in a stream, the different
        ones.
    cells : ndarray, shape (P',)
        Such values, of text too.
    """

    dtype: Any
    n_rows: int
    n_missing: int
    values: np.ndarray
    cells: np.ndarray

    @property
    def distinct(self) -> np.ndarray:
        """The different values of a column of numbers; if there are very many, some of them."""
        ...

    @property
    def all_integers(self) -> bool:
        """Whether all values are integers: by type, or by value in a column with gaps, which readers make floats."""
        ...

    def tally(self, name: Hashable) -> tuple[list[Scalar], np.ndarray]:
        """The categories of the column ``name``, in order, and how often each occurs.

        Those of a ``category`` dtype, used or not; else those of :func:`~discrete_itd.encoders.categories.tally`,
        which names the errors.
        """
        ...


class ObservedSeries:
    """A column in memory; ValueError, naming it, if its dtype is not supported."""

    def __init__(self, name: Hashable, series: pd.Series) -> None:
        self.dtype: Any = series.dtype
        check_supported(name, self.dtype)
        cells = read_cells(series)
        self.values, self._where = cells
        self.cells = self.values
        self.n_rows, self.n_missing = len(series), int((self._where < 0).sum())
        self._series = series

    @property
    def distinct(self) -> np.ndarray:
        return np.asarray(pd.unique(self.values))

    @property
    def all_integers(self) -> bool:
        return all_integers(self.values) or (self.n_missing > 0 and all_whole(self.values))

    def tally(self, name: Hashable) -> tuple[list[Scalar], np.ndarray]:
        if not is_category(self.dtype):
            return tally(name, self.values)
        codes = self._series.cat.codes.to_numpy()
        categories = self.dtype.categories.tolist()
        return categories, np.bincount(codes[codes >= 0], minlength=len(categories))


def all_integers(values: np.ndarray) -> bool:
    """Whether plain values are integers by type, not just by value."""
    return family(values.dtype) == "integer" or (
        values.dtype == object and all(isinstance(v, int | np.integer) for v in values)
    )


def all_whole(values: np.ndarray) -> bool:
    """Whether plain values are numbers without fractions; False if there are none.

    Examples
    --------
    >>> all_whole(np.array([1.0, 3.0])), all_whole(np.array([1.0, 2.5]))
    (True, False)
    """
    if not len(values) or not is_number(values):
        return False
    if values.dtype == object:
        return all(float(v).is_integer() for v in values)
    return bool((np.isfinite(values) & (np.floor(values) == values)).all())
