"""Columns in which many rows lie outside the range, or the categories, of the rows of the fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from discrete_itd.encoders import Column, Rows
from discrete_itd.validation import advice, warn

# Rows outside are many if they are FEWEST_OUTSIDE or more, and above the share MOST_OUTSIDE plus what the range leaves
# out by chance (LEFT_OUT training rows, or one for each category): next week's dates are, a few new categories are not.
MOST_OUTSIDE, LEFT_OUT, FEWEST_OUTSIDE = 0.03, 10, 10

_warns: ContextVar[bool] = ContextVar("_warns", default=True)  # False within untold


def many_outside(n_outside: np.ndarray, n_rows: int, schema: Sequence[Column]) -> np.ndarray:
    """Whether ``n_outside`` (C,) of ``n_rows`` rows outside a column's range are many: bool, (C,)."""
    n_known = np.array([max(1, column.n_rows - column.n_missing) for column in schema])
    by_chance = np.array(
        [max(LEFT_OUT, min(len(column.categories), column.codec.n_levels)) for column in schema]
    )
    return n_outside > np.maximum(FEWEST_OUTSIDE - 1, n_rows * (MOST_OUTSIDE + by_chance / n_known))


@contextmanager
def untold() -> Iterator[None]:
    """Within the block :func:`tell` does not warn: its rows are part of a larger table."""
    token = _warns.set(False)
    try:
        yield
    finally:
        _warns.reset(token)


def tell(rows: Rows) -> None:
    """Warn by :func:`sentence` if many of the rows are outside."""
    text = _warns.get() and sentence(rows.is_outside.sum(0), len(rows), rows.encoder.schema)
    if text:
        warn(text)


def sentence(n_outside: np.ndarray, n_rows: int, schema: Sequence[Column]) -> str | None:
    """A warning that the stated rate does not hold for many rows outside, with advice; None if they are not many."""
    many = np.flatnonzero(many_outside(n_outside, n_rows, schema))
    if not len(many):
        return None
    many = many[np.argsort(-n_outside[many], kind="stable")]
    columns = ", ".join(
        f"{schema[j].name!r} ({n_outside[j]:,} of {n_rows:,} rows)" for j in many[:3]
    )
    more = f" and {len(many) - 3} more" if len(many) > 3 else ""
    has_clock = any(column.kind == "clock" for column in schema)
    times = [schema[j].name for j in many if schema[j].family == "datetime" and not has_clock]
    instead = ""
    if times:
        how = advice(f"column_types={{{times[0]!r}: 'clock'}}", f"--column {times[0]}=clock")
        instead = f"model the weekday of {times[0]!r} in place of the date ({how}), "
    return (
        f"outside the range or the categories of training: columns {columns}{more}; the stated rate of false alarms"
        f" does not hold for such rows: {instead}compare within strata ({advice('given=', '--given')}), or fit again"
    )
