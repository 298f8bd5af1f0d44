"""Training rows that are read from a stream as they are needed, or arrive over time.

Held-out rows and the sample are the rows with the smallest hashes of their positions, so that every pass leaves the
same rows out. Batches are drawn from a buffer, into which row groups come in random order. A training that needs fewer
rows than there are reads all of the table, but takes only some of it, chosen by hashes as well.

| what | is fitted to |
|---|---|
| categories, marginals, a single tree, tables of a Bayesian network | counts of all rows |
| networks, mixtures of products | batches of all rows |
| scales, bins, grids of times, mixtures of Gaussians | a uniform sample, see :mod:`discrete_itd.models.tables` |
| graph of a Bayesian network, several trees, decoder mixtures | the same sample |
| weights, schedules and one-hot groups | the same sample |

A stream that is not longer than the sample is read into memory. Where ``max_time`` leaves no time for several passes,
the model is fitted to the sample alone.

Batches that arrive over time (``partial_fit``) are not read again: counts of them add up, and bounded samples are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.denoisers.bayes_net import MOST_LEVELS
from discrete_itd.denoisers.counts import CellCounts, pair_counts, pair_counts_of
from discrete_itd.denoisers.forest_fit import ForestCounts
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.streams import EVEN, RemainingStream, position_hashes
from discrete_itd.models.contract import TrainingRows
from discrete_itd.models.exact import Forest, Independent, Trees
from discrete_itd.training.rows import Batches

BUFFER_CELLS = 1 << 21  # from which batches are drawn
FEWEST_BUFFERED = 8  # batches, of a wide table
SPARE = 1.1  # rows of an epoch that takes a part of the table, as a multiple of those needed
EVERY = 2.0**64
KEPT_ROWS = 50_000  # held-out rows, and training rows, that are kept at most
ADDITIVE = (Independent(), Trees())  # fitted from counts of cells and pairs alone


class StreamedRows:
    """The encoded rows of a stream of ``n_read`` rows, as a :class:`~discrete_itd.training.rows.RowSource`.

    As soon as they are counted, ``n_rows`` is the number of those with a cell that is not missing.
    """

    is_kept = True

    def __init__(
        self, stream: RemainingStream, encoder: TableEncoder, device: torch.device, n_read: int
    ) -> None:
        self.stream, self.encoder, self.device = stream, encoder, device
        self._n_read = self.n_rows = n_read
        self._rank, self._size = 0, 1  # of the process that it is for

    def count(self, book: Codebook) -> CellCounts:
        """The counts of all cells."""
        counts = CellCounts.of(book, self.chunks())
        self.n_rows = counts.n_rows
        return counts

    def pair_counts(self, book: Codebook) -> Tensor:
        return pair_counts_of(book, self.chunks())

    def chunks(self) -> Iterator[Tensor]:
        for x in self.encoded():
            yield x.to(self.device)

    def part(self, rank: int, size: int) -> StreamedRows:
        """The rows of some row groups, or every ``size``-th row of a stream without them: then all rows are read.

        Also of a stream in which many rows have no cell, perhaps all of a row group.
        """
        if size > self.n_rows:
            return self
        own, shards = copy.copy(self), [self.stream.shard(r, size) for r in range(size)]
        numbers = [0 if shard is None else sum(map(len, shard.positions())) for shard in shards]
        if not all(numbers) or self.n_rows < EVEN * self._n_read:
            own.n_rows, own._rank, own._size = self.n_rows // size, rank, size
        else:
            own.stream = cast(RemainingStream, shards[rank])
            own._n_read, own.n_rows = numbers[rank], numbers[rank] * self.n_rows // self._n_read
        return own

    def to(self, device: torch.device) -> StreamedRows:
        moved = copy.copy(self)
        moved.device = device
        return moved

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> StreamedBatches:
        return StreamedBatches(self, size, generator, n_batches)

    def encoded(
        self, rng: np.random.Generator | None = None, share: float = 1.0
    ) -> Iterator[Tensor]:
        """Parts of the table: (B, C') on the CPU.

        ``rng`` gives the order of the parts, and chooses rows, each with the probability ``share``. ValueError after
        the last part, if the stream has another number of rows than before.
        """
        n_read = 0
        salt = 0 if rng is None else int(rng.integers(2**62))
        for part in self.stream.parts(rng):
            n_read += len(part.frame)
            if self._size > 1:
                part = part.take(part.positions % self._size == self._rank)
            if share < 1:
                part = part.take(position_hashes(part.positions, salt) < np.uint64(share * EVERY))
            if len(part.frame):
                x = torch.from_numpy(self.encoder.transform(part.frame).x)
                yield x[~x.isnan().all(1)]
        if n_read != self._n_read:
            raise ValueError(
                f"the stream gave {self._n_read} training rows at first, {n_read} later: it must give the same rows"
                " every time it is read"
            )


class StreamedBatches:
    """Batches of equal size without end, ``n_batches`` at most, drawn from a bounded buffer that the stream refills.

    Remaining rows at the end of an epoch are dropped; a batch has no more rows than there are.
    """

    def __init__(
        self, source: StreamedRows, size: int, generator: torch.Generator, n_batches: int
    ) -> None:
        size = min(size, source.n_rows)
        self._source, self._size, self._generator = source, size, generator
        needed = (SPARE * n_batches + FEWEST_BUFFERED) * size
        self._share = min(1.0, needed / source.n_rows)
        n_columns = len(source.encoder.owner)
        self._n_buffered = max(FEWEST_BUFFERED * size, BUFFER_CELLS // n_columns)
        self._before, self._position = generator.get_state(), 0
        self._epoch: Iterator[Tensor] = iter(())

    def __next__(self) -> Tensor:
        batch = next(self._epoch, None)
        while batch is None:  # an epoch of few rows, chosen by chance, may have no batch
            self._begin()
            batch = next(self._epoch, None)
            if batch is None and self._share == 1:
                raise ValueError("a process has no row with a cell that is not missing")
        self._position += 1
        return batch.to(self._source.device)

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch, in batches."""
        return {"position": self._position, "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place in an epoch, up to which the stream is read again."""
        self._generator.set_state(state["before"])
        self._before, self._position = state["before"], 0
        self._epoch = iter(())
        if state["position"]:
            self._begin()
        for _ in range(state["position"]):
            if next(self._epoch, None) is None:
                raise ValueError(f"an epoch has fewer than {state['position']} batches")
        self._position = state["position"]

    def _begin(self) -> None:
        self._before, self._position = self._generator.get_state(), 0
        device = self._generator.device
        seed = torch.randint(2**62, (1,), generator=self._generator, device=device)
        self._epoch = self._shuffled(np.random.default_rng(int(seed)))

    def _shuffled(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """The batches of one epoch."""
        n_given = 0
        buffer = torch.zeros(0, len(self._source.encoder.owner), dtype=torch.float64)
        for x in self._source.encoded(rng, self._share):
            buffer = torch.cat([buffer, x])
            n_out = (len(buffer) - self._n_buffered) // self._size * self._size
            if n_out > 0:
                buffer = buffer[torch.from_numpy(rng.permutation(len(buffer)))]
                yield from buffer[:n_out].split(self._size)
                n_given += n_out
                buffer = buffer[n_out:].clone()
        order = torch.from_numpy(rng.permutation(len(buffer)))
        if not n_given and 0 < len(order) < self._size and self._share == 1:  # as of a short table
            order = order.repeat(-(-self._size // len(order)))
        for rows in order.split(self._size):
            if len(rows) == self._size:
                yield buffer[rows]


class CountedRows:
    """Training rows of which only their number and their pair counts (T, T) are known.

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

    Rows are held out, a ``share`` of them as long as they are few, and sampled by hashes of their positions. Of a
    ``forest``, leaves are counted; its trees are grown anew as long as all rows are kept.
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


def _smallest(*parts: tuple[np.ndarray, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of two parts, rows and their hashes each: those with the ``KEPT_ROWS`` smallest hashes, and the others."""
    x, hashes = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    order = np.argsort(hashes)
    return [(x[at], hashes[at]) for at in (order[:KEPT_ROWS], order[KEPT_ROWS:])]
