"""Cells of a table as rules read them: codes of values, and numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.util import hash_array

from discrete_itd.encoders.column import Column
from discrete_itd.encoders.relations import column_numbers, is_numeric
from discrete_itd.reading.frames import plain, text_among
from discrete_itd.reading.text import TRUTHS, number_of, whole_of

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]


class RuleCells:
    """The cells of a table, by column.

    Parameters
    ----------
    schema : sequence of Column, length C
    levels : list of Index, length C
        The different values of each column. Tables that share them have the same code for the same value.
    codes : array of int64, shape (N, C)
        Position of each cell in the levels of its column; -1 of a missing cell.
    numbers : array of float64, shape (N, C)
        Numbers, and times in days; NaN where there is none.
    unreadable : dict from positions of columns to arrays of bool, shape (N,)
        The cells that are texts of no value of their column; their codes are -1. Columns without any are left out.
    """

    def __init__(
        self,
        schema: Sequence[Column],
        levels: list[pd.Index],
        codes: Ints,
        numbers: Floats,
        values: dict[int, list[Any]] | None = None,
        unreadable: dict[int, Bools] | None = None,
    ) -> None:
        self.schema, self.levels, self.codes, self.numbers = schema, levels, codes, numbers
        self._places = {column.name: j for j, column in enumerate(schema)}
        self._values = dict[int, list[Any]]() if values is None else values
        self.unreadable = dict[int, Bools]() if unreadable is None else unreadable

    @classmethod
    def read(
        cls, frame: pd.DataFrame, schema: Sequence[Column], levels: list[pd.Index] | None = None
    ) -> RuleCells:
        """The cells of a table; those that are none of the given ``levels`` are added behind these."""
        codes = np.empty((len(frame), len(schema)), np.int64, order="F")
        numbers, merged = np.empty(codes.shape, order="F"), list[pd.Index]()
        unreadable = dict[int, Bools]()
        for j, column in enumerate(schema):
            if column.name not in frame.columns:
                raise ValueError(f"column {column.name!r}: the table has no such column")
            cells, words = column.readable(cast(pd.Series, frame[column.name]))
            if words is not None:
                unreadable[j] = np.asarray(pd.notna(words))
            level, distinct = pd.factorize(_typed(cells.values, column))
            index = pd.Index(distinct)
            if levels is not None:
                known = levels[j].get_indexer(index)
                new = index[known < 0]
                known[known < 0] = len(levels[j]) + np.arange(len(new))
                level, index = known[level], levels[j].append(new)
            codes[:, j] = np.append(level, -1)[cells.where]
            numbers[:, j] = column_numbers(column, cells)
            merged.append(index)
        return cls(schema, merged, codes, numbers, unreadable=unreadable)

    def __len__(self) -> int:
        return len(self.codes)

    def place(self, name: Hashable) -> int:
        """The position of a column."""
        return self._places[name]

    def codes_of(self, name: Hashable) -> Ints:
        """The codes (N,) of a column."""
        return self.codes[:, self._places[name]]

    def unreadable_of(self, name: Hashable) -> Bools:
        """The cells (N,) of a column that are texts of no value."""
        return self.unreadable.get(self._places[name], np.zeros(len(self), bool))

    def numbers_of(self, name: Hashable) -> Floats:
        """The numbers (N,) of a column."""
        return self.numbers[:, self._places[name]]

    def values_of(self, name: Hashable) -> list[Any]:
        """The different values of a column, in the order of their codes."""
        j = self._places[name]
        if j not in self._values:
            self._values[j] = [plain(value) for value in self.levels[j]]
        return self._values[j]

    def usual_spellings(self, name: Hashable) -> Ints:
        """Of each value of a column the code of the most frequent one that is the same text, see :func:`folded`."""
        codes, texts = self.codes_of(name), [folded(value) for value in self.values_of(name)]
        groups = pd.factorize(np.array(texts, object))[0]
        counts = np.bincount(codes[codes >= 0], minlength=len(groups))
        order = np.lexsort((-counts, groups))
        return order[np.searchsorted(groups[order], groups)]

    def places_of(self, name: Hashable, values: Sequence[Any]) -> Ints:
        """The codes of values of a column; -2 of those that it does not have."""
        index = self.levels[self._places[name]]
        places = [index.get_loc(value) if value in index else -2 for value in values]
        return np.array(places, np.int64)

    def take(self, rows: Ints | Bools) -> RuleCells:
        """The cells of some rows."""
        unreadable = {j: cells[rows] for j, cells in self.unreadable.items()}
        parts = self.codes[rows], self.numbers[rows], self._values, unreadable
        return RuleCells(self.schema, self.levels, *parts)

    def of(self, names: Sequence[Hashable]) -> RuleCells:
        """The cells of some columns alone."""
        places = [self._places[name] for name in dict.fromkeys(names)]
        return RuleCells(
            [self.schema[j] for j in places],
            [self.levels[j] for j in places],
            self.codes[:, places],
            self.numbers[:, places],
            unreadable={
                k: self.unreadable[j] for k, j in enumerate(places) if j in self.unreadable
            },
        )

    def shuffled(self, name: Hashable, order: Ints) -> RuleCells:
        """The cells with those of one column in another ``order`` (N,) of the rows."""
        j, codes, numbers = self._places[name], self.codes.copy(), self.numbers.copy()
        codes[:, j], numbers[:, j] = codes[order, j], numbers[order, j]
        unreadable = {k: c[order] if k == j else c for k, c in self.unreadable.items()}
        return RuleCells(self.schema, self.levels, codes, numbers, self._values, unreadable)

    def order_by_content(self) -> Ints:
        """The rows in an order at random that depends on what is in them alone."""
        keys = np.zeros(len(self), np.uint64)
        for column, index, codes in zip(self.schema, self.levels, self.codes.T, strict=True):
            texts = np.array([ascii(column.name), *map(ascii, index)], object)
            hashes = hash_array(texts)  # pyright: ignore[reportCallIssue, reportArgumentType]
            # an odd factor of each column: rows that have one another's cells in other columns differ
            keys += np.append(hashes[1:], hashes[:1])[codes] * (hashes[0] | np.uint64(1))
        order = np.argsort(keys, kind="stable")
        is_new = np.append(True, keys[order][1:] != keys[order][:-1])
        first = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
        copy = np.empty(len(self), np.uint64)  # the how manyth row with this content
        copy[order] = np.arange(len(self)) - first
        mixed = hash_array(keys ^ hash_array(copy))  # pyright: ignore[reportCallIssue, reportArgumentType]
        return np.argsort(mixed, kind="stable")


def folded(value: Any) -> Any:
    """A text without case, spaces and accents; any other value as it is."""
    if not isinstance(value, str):
        return value
    return re.sub(r"[\s\u0300-\u036f]", "", unicodedata.normalize("NFD", value.casefold()))


def _typed(values: Any, column: Column) -> Any:
    """Plain values of cells, text among levels of numbers or truths as these."""
    is_text = text_among(values)
    if not is_text.any() or not (column.are_truths or is_numeric(column)):
        return values
    if column.are_truths:
        typed = [TRUTHS.get(value, value) for value in values]
    else:
        typed = [whole_of(v, number_of(v)) if isinstance(v, str) else v for v in values]
    return pd.Series(typed, dtype=object).to_numpy()
