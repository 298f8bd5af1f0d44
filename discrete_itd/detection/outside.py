"""Columns in which many rows lie outside the range, or the categories, of the rows of the fit."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import pandas as pd
from pandas.util import hash_array

from discrete_itd.encoders import Column, Rows, TableEncoder
from discrete_itd.reading.text import quoted
from discrete_itd.validation import advice, warn

# Rows outside are many if they are FEWEST_OUTSIDE or more, and above the share MOST_OUTSIDE plus what the range leaves
# out by chance (LEFT_OUT training rows, or one for each category): next week's dates are, a few new categories are not.
MOST_OUTSIDE, LEFT_OUT, FEWEST_OUTSIDE = 0.03, 10, 10
MOST_KEYS = 4_000_000  # rows of a stream whose keys are remembered: 32 MB

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
    """Warn by :func:`sentence` if many of the rows are outside, and of :class:`RepeatedKeys` that repeat."""
    if not _warns.get():
        return
    if text := sentence(rows.is_outside.sum(0), len(rows), rows.encoder.schema):
        warn(text)
    if rows.others is not None and rows.by_name:
        keys = RepeatedKeys(rows.encoder, rows.others.columns)
        keys.add(rows.others)
        if text := keys.sentence():
            warn(text)


class RepeatedKeys:
    """The values of columns that no two training rows had the same of, and that are no part of the model.

    Of each such column among the ``names`` of a table, the values of rows that are :meth:`add`-ed, as sorted hashes of
    the first ``MOST_KEYS``.
    """

    def __init__(self, encoder: TableEncoder, names: Collection[Hashable]) -> None:
        keys = [column.name for column in encoder.left_out if column.is_key]
        self._seen = {name: np.zeros(0, np.uint64) for name in keys if name in names}
        self._again = dict.fromkeys(self._seen, 0)
        self._first: dict[Hashable, str] = {}

    @property
    def names(self) -> list[Hashable]:
        """The columns."""
        return [*self._seen]

    def add(self, frame: pd.DataFrame) -> None:
        """Count the rows of a table, or its next part, whose values earlier ones have."""
        for name, seen in self._seen.items():
            texts = np.array([*map(str, frame[name].dropna())], dtype=object)
            hashes = hash_array(texts)  # pyright: ignore[reportCallIssue]
            place = np.searchsorted(seen, hashes).clip(max=max(0, len(seen) - 1))
            is_again = pd.Series(hashes).duplicated().to_numpy()
            if len(seen):
                is_again = is_again | (seen[place] == hashes)
            if is_again.any():
                self._first.setdefault(name, texts[is_again][0])
            self._again[name] += int(is_again.sum())
            if len(seen) < MOST_KEYS:
                together = np.concatenate([seen, np.sort(hashes[~is_again])])
                self._seen[name] = np.sort(together, kind="stable")  # merges two sorted parts

    def sentence(self) -> str | None:
        """A warning of the values that repeat; None if none does."""
        parts = [
            f"{name!r} ({self._again[name]:,} rows, the first with {quoted(text)})"
            for name, text in self._first.items()
        ]
        if not parts:
            return None
        return (
            "values that earlier rows have, though no two training rows had the same: "
            f"columns {', '.join(parts)}"
        )


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
