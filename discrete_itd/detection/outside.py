"""Columns in which many rows lie outside the range, or the categories, of the rows of the fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from discrete_itd.encoders import Column, Rows
from discrete_itd.validation import advice, warn

# Rows outside are many if they exceed the share SHARE plus what the range leaves out by chance (LEFT_OUT training rows,
# or one for each category), and FEWEST rows: dates of the next week are, a few new categories are not.
SHARE, LEFT_OUT, FEWEST = 0.03, 10, 10

_is_told: ContextVar[bool] = ContextVar("is_told", default=True)


def many_outside(n_outside: np.ndarray, n_rows: int, schema: Sequence[Column]) -> np.ndarray:
    """In which columns ``n_outside`` (C,) of some rows are many: bool, (C,)."""
    known = np.array([max(1, column.n_rows - column.n_missing) for column in schema])
    by_chance = np.array([max(LEFT_OUT, len(column.categories)) for column in schema])
    return n_outside > np.maximum(FEWEST - 1, n_rows * (SHARE + by_chance / known))


@contextmanager
def untold() -> Iterator[None]:
    """Within the block nobody is warned of rows outside, as they are part of more."""
    token = _is_told.set(False)
    try:
        yield
    finally:
        _is_told.reset(token)


def tell(rows: Rows) -> None:
    """Warn in the words of :func:`sentence`, if many of the rows are outside."""
    told = _is_told.get() and sentence(rows.is_outside.sum(0), len(rows), rows.encoder.schema)
    if told:
        warn(told)


def sentence(n_outside: np.ndarray, n_rows: int, schema: Sequence[Column]) -> str | None:
    """What many rows outside mean for the stated rate, and what to do; None if there are not many."""
    many = np.flatnonzero(many_outside(n_outside, n_rows, schema))
    if not len(many):
        return None
    many = many[np.argsort(-n_outside[many], kind="stable")]
    columns = ", ".join(
        f"{schema[j].name!r} ({n_outside[j]:,} of {n_rows:,} rows)" for j in many[:3]
    )
    more = f" and {len(many) - 3} more" if len(many) > 3 else ""
    times = [schema[j].name for j in many if schema[j].family == "datetime"]
    instead = f"model the weekday of {times[0]!r} in place of the date, " if times else ""
    return (
        f"outside the range or the categories of training: columns {columns}{more}; the stated rate of false alarms"
        f" does not hold for such rows: {instead}compare within groups ({advice('given=', '--given')}), or fit again"
    )
