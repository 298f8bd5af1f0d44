"""Batches that arrive over time: counts that add up, and bounded samples of the rows.

The first batch, with ``column_types``, fixes the schema: kinds, categories and scales. A category that comes later is
an unseen one: it counts for the level of unseen categories, whose probability grows with every such cell; or it raises
ValueError, with ``handle_unknown="error"``. Categories that are to be known without being in the first batch are
declared by a ``category`` dtype there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.denoisers.counts import CellCounts, pair_counts
from discrete_itd.denoisers.forest_fit import ForestCounts
from discrete_itd.denoisers.tree import MOST_LEVELS
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.streams import position_hashes
from discrete_itd.models.contract import TrainingRows
from discrete_itd.models.exact import Forest, Independent, Trees
from discrete_itd.training.rows import Batches

KEPT_ROWS = 50_000  # held-out rows, and training rows, that are kept at most
ADDITIVE = (Independent(), Trees())  # what is fitted from counts of cells and pairs alone


class CountedRows:
    """Training rows of which no more than their number and their pair counts (T, T) are known.

    And, for a forest, all of them in ``parts`` as long as they are few, then the counts in its leaves.
    """

    is_kept = False

    def __init__(
        self,
        n_rows: int,
        pairs: Tensor,
        parts: tuple[Tensor, ...] | None = None,
        leaves: ForestCounts | None = None,
    ) -> None:
        self.n_rows, self.leaves, self._pairs, self._parts = n_rows, leaves, pairs, parts

    def pair_counts(self, book: Codebook) -> Tensor:
        return self._pairs.to(book.device)

    def part(self, rank: int, size: int) -> CountedRows:
        return self

    def to(self, device: torch.device) -> CountedRows:
        return self

    def chunks(self) -> Iterator[Tensor]:
        if self._parts is None:
            raise ValueError("rows that were given to partial_fit cannot be read again")
        yield from self._parts

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> Batches:
        raise ValueError("rows that were given to partial_fit cannot be read again")


class CountedTable:
    """A table that grows: its counts, and a uniform sample of the rows held out and of the others.

    Parameters
    ----------
    encoder : TableEncoder
    seed : int
        Of the hashes of positions by which rows are held out and sampled.
    share : float
        Of the rows that are held out, as long as they are few.
    forest : Forest, optional
        Whose leaves are to be counted. Its trees are grown anew as long as all rows are kept.
    """

    def __init__(
        self, encoder: TableEncoder, seed: int, share: float, forest: Forest | None = None
    ) -> None:
        self._forest = forest
        self._leaves: ForestCounts | None = None
        self.encoder, self.seed, self.n_rows = encoder, seed, 0
        self._bound = np.uint64(share * 2.0**64)  # of the hashes of held-out rows
        book = encoder.codebook()
        self._book, self._counts = book, CellCounts(book)
        n = book.levels.n_points if book.levels.n_points <= MOST_LEVELS else 0  # a tree says why
        self._pairs = torch.zeros(n, n, dtype=torch.float64)
        none = np.zeros((0, len(encoder.owner)))
        self._held = none, np.zeros(0, np.uint64)
        self._sample = none, np.zeros(0, np.uint64)

    def add(self, frame: pd.DataFrame) -> None:
        """Add rows; ValueError or TypeError, and nothing is added, if one does not fit the schema."""
        x = self.encoder.transform(frame).x
        hashes = position_hashes(np.arange(self.n_rows, self.n_rows + len(x)), self.seed)
        self.n_rows += len(x)
        there = ~np.isnan(x).all(1)
        x, hashes = x[there], hashes[there]
        held = hashes < self._bound
        self._held, (more, own) = _smallest(self._held, (x[held], hashes[held]))
        x, hashes = np.concatenate([x[~held], more]), np.concatenate([hashes[~held], own])
        before, rows = (torch.from_numpy(part) for part in (self._sample[0], x))
        if self._forest and self._leaves is None and len(before) + len(x) > KEPT_ROWS:
            if len(before):  # all rows so far
                self._leaves = self._counted(before, (before,))
            else:
                self._leaves = self._counted(rows[hashes.argsort()[:KEPT_ROWS].copy()], ())
        self._sample, _ = _smallest(self._sample, (x, hashes))
        self._counts.add(rows)
        if self._leaves is not None:
            self._leaves.add(rows)
        if len(self._pairs):
            self._pairs += pair_counts(self._book, rows)

    def _counted(self, x: Tensor, parts: tuple[Tensor, ...]) -> ForestCounts:
        """Trees grown on rows ``x`` (N, C), with the counts of some parts."""
        assert self._forest is not None
        marginals = MarginalDenoiser.fit(self._book, x)
        source = CountedRows(len(x), self._pairs, parts)
        generator = torch.Generator().manual_seed(self.seed)
        return self._forest.counted(TrainingRows(marginals, x, x, generator, source))

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """The rows so far; ``validation_fraction`` is that of the first batch."""
        x, x_valid = (torch.from_numpy(part[0]).to(device) for part in (self._sample, self._held))
        if not len(x):
            raise ValueError("at least two rows with a cell that is not missing are needed")
        marginals = MarginalDenoiser.fit(
            self._book.to(device),
            x,
            unseen_counts=self.encoder.unseen_counts,
            counts=self._counts,
        )
        generator = torch.Generator(device).manual_seed(seed)
        # as long as no row is held out, by chance, training rows choose
        parts = (x,) if self._forest and self._leaves is None else None
        source = CountedRows(self._counts.n_rows, self._pairs, parts, self._leaves)
        return TrainingRows(marginals, x, x_valid if len(x_valid) else x, generator, source)


Kept = tuple[np.ndarray, np.ndarray]  # rows and their hashes


def _smallest(kept: Kept, new: Kept) -> tuple[Kept, Kept]:
    """The rows with the ``KEPT_ROWS`` smallest hashes among those kept and the new ones; and the others."""
    x, hashes = (np.concatenate(pair) for pair in zip(kept, new, strict=True))
    order = np.argsort(hashes)
    first, rest = order[:KEPT_ROWS], order[KEPT_ROWS:]
    return (x[first], hashes[first]), (x[rest], hashes[rest])
