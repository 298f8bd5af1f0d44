"""What Bayesian networks, each fitted to the rows of other folds, say of cells given all other cells of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas.util import hash_array, hash_pandas_object

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers import BayesNetDenoiser, MarginalDenoiser

Floats, Ints = NDArray[np.float64], NDArray[np.int64]

# values that the networks tell apart: at most so many of a column, each in so many rows; the others are one level
MOST_LEVELS, LEAST_ROWS = 50, 5
FOLDS, HELD_OUT = 3, 5  # of the rows to fit to, one in HELD_OUT chooses the graph
MOST_TABLE, ROWS_AT_ONCE = 1024, 4096


class ColumnCells(NamedTuple):
    """The cells of a column as codes (N,), with their probabilities (N,) alone, and the least they may have."""

    codes: Ints
    alone: Floats
    least: Floats


class CellNetwork:
    """Probabilities of cells given all others, or all but one, by networks that have not seen their rows.

    Parameters
    ----------
    columns : mapping of int to ColumnCells
        By their numbers in the table.
    fold : array of int, shape (N,)
        Of each row, below ``FOLDS``.
    """

    def __init__(self, columns: Mapping[int, ColumnCells], fold: Ints) -> None:
        self.columns, self._fold = list(columns), fold
        levels, self._share, self._least = (np.zeros((len(fold), len(columns))) for _ in range(3))
        for k, j in enumerate(self.columns):
            codes, alone, self._least[:, k] = columns[j]
            often, levels[:, k] = _, level = frequent_levels(codes)
            share = np.where(level == len(often), alone / np.bincount(level)[level] * len(fold), 1)
            self._share[:, k] = np.minimum(share, 1)
        self._x = torch.from_numpy(levels)
        book = Codebook([ColumnPoints("simplex", int(c) + 1) for c in levels.max(0)])
        self._networks = []
        for f in range(FOLDS):
            rows = torch.from_numpy(np.flatnonzero(fold != f))
            is_held = torch.arange(len(rows)) % HELD_OUT == 0
            x, x_valid = self._x[rows[~is_held]], self._x[rows[is_held]]
            marginals = MarginalDenoiser.fit(book, x)
            self._networks.append(
                BayesNetDenoiser.fit(marginals, x, x_valid=x_valid, most_table=MOST_TABLE)
            )
        self._whole, self._best = self._asked(np.arange(len(fold)))
        self._at, self._without = np.zeros(len(fold), np.int64), dict[int, Floats]()

    def _posteriors(
        self, rows: Ints, without: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, Posterior]]:
        """Positions among rows, their levels, and the posterior of each cell given the others, but for one column."""
        for f, network in enumerate(self._networks):
            of_fold = torch.from_numpy(np.flatnonzero(self._fold[rows] == f))
            for at in of_fold.split(ROWS_AT_ONCE) if len(of_fold) else ():
                x = self._x[torch.from_numpy(rows)[at]]
                given = x.clone()
                if without is not None:
                    given[:, without] = torch.nan
                asked = torch.ones_like(x, dtype=torch.bool)
                yield at, x.long(), network.leave_one_out(given, asked)

    def _asked(self, rows: Ints, without: int | None = None) -> tuple[Floats, Ints]:
        """The probabilities (n, K) of cells given the others, but for one column, and the most probable levels."""
        p, best = (
            np.zeros((len(rows), len(self.columns))),
            np.zeros((len(rows), len(self.columns)), np.int64),
        )
        for at, x, posterior in self._posteriors(rows, without):
            for k in range(len(self.columns)):
                log_p = posterior.column(k).double()
                p[at, k] = log_p.gather(1, x[:, k : k + 1])[:, 0].exp()
                best[at, k] = log_p.argmax(1)
        return np.maximum(p * self._share[rows], self._least[rows]), best

    def levels(self, column: int) -> Floats:
        """The probabilities (N, L) of the frequent levels of a column and, last, of its other cells together."""
        k = self.columns.index(column)
        p = np.zeros((len(self._fold), int(self._x[:, k].max()) + 1))
        for at, _, posterior in self._posteriors(np.arange(len(p))):
            p[at] = posterior.column(k).double().exp()[:, : p.shape[1]]
        return p

    def cells(self, column: int) -> tuple[Floats, Ints]:
        """The probability (N,) of the cells of a column, and codes (N,) of the most probable values."""
        k = self.columns.index(column)
        return self._whole[:, k], self._best[:, k]

    def ask(self, rows: Ints) -> None:
        """Ask for the cells of rows, of which :meth:`given` then knows the answers, without each column."""
        self._at[rows] = np.arange(len(rows))
        self._without = {i: self._asked(rows, k)[0] for k, i in enumerate(self.columns)}

    def given(self, column: int, rows: Ints, without: int) -> Floats:
        """The probability (n,) of the cells of a column given all others but one."""
        k = self.columns.index(column)
        found = self._without.get(without)
        return self._whole[rows, k] if found is None else found[self._at[rows], k]

    def against(self, column: int, rows: Ints, other: int) -> NDArray[np.bool_]:
        """Whether cells (n,) of a column were more probable without another cell of their rows."""
        return self.given(column, rows, other) > self.given(column, rows, -1)


def frequent_levels(codes: Ints) -> tuple[Ints, Ints]:
    """The frequent codes of a column, the L most frequent ones, and which each cell (N,) has, L if another one."""
    counts = np.bincount(codes)
    often = np.argsort(-counts, kind="stable")[:MOST_LEVELS]
    often = often[counts[often] >= LEAST_ROWS]
    level = np.full(len(counts), len(often))
    level[often] = np.arange(len(often))
    return often, level[codes]


def content_keys(frame: pd.DataFrame) -> NDArray[np.uint64]:
    """A key (N,) of what is in each row, whatever the order of the columns."""
    keys = np.zeros(len(frame), np.uint64)
    names = np.array([ascii(name) for name in frame.columns], object)
    of_names = hash_array(names)  # pyright: ignore
    for of_name, (_, cells) in zip(of_names, frame.items(), strict=True):
        # an odd factor of each column: rows that have one another's cells in other columns differ
        of_cells = hash_pandas_object(cells.map(ascii), index=False).to_numpy()  # pyright: ignore
        keys += of_cells * (of_name | np.uint64(1))
    return keys


def folds(keys: NDArray[np.uint64], unit: Ints, n_folds: int = FOLDS) -> Ints:
    """A fold (N,) for each row, one for those of a unit, by ``keys`` (N,) of what is in them, whatever their order."""
    of_unit = np.zeros(int(unit.max()) + 1, keys.dtype)
    np.add.at(of_unit, unit, keys)
    rank = np.empty(len(of_unit), np.int64)
    rank[np.argsort(of_unit, kind="stable")] = np.arange(len(of_unit))
    return rank[unit] % n_folds
