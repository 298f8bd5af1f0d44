"""Tables to learn from, in memory, as a stream or as batches over time, and the rows of them that recipes get.

:mod:`~discrete_itd.models.held_out` divides the rows of a table in memory.

Of a stream, held-out rows and a uniform sample are the rows with the smallest hashes of their positions, so that every
pass leaves the same rows out. Batches are drawn from a buffer, into which row groups come in random order. A training
that needs fewer rows than there are reads all of the table, but takes only some of it, chosen by hashes as well.

==================================================================  ===================
what                                                                is fitted to
==================================================================  ===================
categories, marginals, a single tree, tables of a Bayesian network  counts of all rows
networks                                                            batches of all rows
scales, bins, grids of times, mixtures of Gaussians                 the sample
graph of a Bayesian network, mixtures of products, weights          the sample
==================================================================  ===================

A stream that is not longer than the sample is read into memory. Where ``max_time`` leaves no time for several passes,
the model is fitted to the sample alone. Of batches that arrive over time (``partial_fit``), as many rows are kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.denoisers.cell_counts import CellCounts
from discrete_itd.denoisers.private_forest import PrivateFit, fit_private
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.frames import is_polars
from discrete_itd.encoders.notation import most_unreadable
from discrete_itd.encoders.rows import read_rows
from discrete_itd.encoders.streams import (
    RemainingStream,
    Stream,
    Survey,
    as_stream,
    position_hashes,
    survey,
)
from discrete_itd.encoders.table import column_specs
from discrete_itd.models.contract import TrainingRows
from discrete_itd.models.forest import Forest
from discrete_itd.models.held_out import Ints, count_units, hold_out, occurring
from discrete_itd.progress import Deadline
from discrete_itd.training.row_sources import RowSource
from discrete_itd.validation import warn

# So many rows of a stream are kept in memory; of a wide table as many as have SAMPLE_CELLS cells, or FEWEST_SAMPLED.
SAMPLE_ROWS, SAMPLE_CELLS = 150_000, 1 << 23
FEWEST_SAMPLED = 15_000
# Every candidate is judged on all held-out rows: these are the most, and of a sample at most one row in three.
MOST_HELD_OUT = 20_000
FEWEST_SAMPLED_PER_HELD = 3
# After the sample is drawn, a fit reads the stream about four times more, if that takes a quarter of the time left.
PASSES, READING_SHARE = 4, 0.25
# Batches of a stream are drawn from a buffer of so many cells; of a wide table, of at least eight batches.
BUFFER_CELLS = 1 << 21
FEWEST_BUFFERED = 8
SPARE_ROWS = 1.1  # an epoch that needs a part of the table takes this multiple of it
N_HASHES = 2.0**64  # how many values the hash of a position can have
# Where a private model takes the place of a table, so many rows are drawn from it to fit to, and as many to hold out.
PRIVATE_ROWS = 2000


def rows_to_fit(
    encoder: TableEncoder,
    x: Tensor,
    x_valid: Tensor,
    seed: int,
    device: torch.device,
    *,
    counts: CellCounts | None = None,
    source: RowSource | None = None,
) -> TrainingRows:
    """Encoded rows for recipes, with independent columns of the ``counts`` of all rows, or of ``x``."""
    book, x = encoder.codebook().to(device), x.to(device)
    marginals = MarginalDenoiser.fit(book, x, unseen_counts=encoder.unseen_counts, counts=counts)
    generator = torch.Generator(device).manual_seed(seed)
    summed_out = tuple(j for j, c in enumerate(encoder.schema) if c.informative)
    return TrainingRows(marginals, x, x_valid.to(device), generator, source, summed_out)


@dataclass(frozen=True, eq=False)
class TableInMemory:
    """A table with its encoded rows ``x``, shape (N, C').

    Held-out rows are chosen at random, those of one of the ``units`` (N,) together if there are any.
    """

    encoder: TableEncoder
    x: Tensor
    units: Ints | None = None

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """The rows with a cell that is not missing, some of them held out."""
        x = self.x
        n = count_units(len(x), self.units)
        n_valid = min(max(1, round(validation_fraction * n)), n - 1, MOST_HELD_OUT)
        division = hold_out(len(x), self.units, n_valid, seed)
        x_valid, x = (x[torch.from_numpy(part)] for part in division)
        return rows_to_fit(self.encoder, x, x_valid, seed, device)


@dataclass(frozen=True, eq=False)
class StreamedTable:
    """A table too large for memory, of which a sample is kept."""

    encoder: TableEncoder
    stream: Stream
    found: Survey
    salt: int  # of the hashes by which rows were sampled
    seconds: float = 0.0  # that the first pass through the stream took

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """The rows of the stream, or of the sample if there is no time to read all.

        A third of the sample is held out at most, the rows with the smallest hashes.
        """
        found, order = self.found, np.argsort(self.found.hashes)
        n_valid = min(max(1, round(validation_fraction * found.n_rows)), MOST_HELD_OUT)
        n_valid = min(n_valid, len(order) // FEWEST_SAMPLED_PER_HELD)
        x = torch.from_numpy(self.encoder.readable(found.sample.iloc[order])[0].x)
        x_valid, x = (part[~part.isnan().all(1)] for part in (x[:n_valid], x[n_valid:]))
        if not len(x) or not len(x_valid):
            raise ValueError("almost all rows of the stream have no cell that is not missing")
        source, counts = None, None
        if PASSES * self.seconds <= READING_SHARE * time_left:
            rest = RemainingStream(self.stream, self.salt, int(found.hashes[order[n_valid - 1]]))
            source = StreamedRows(rest, self.encoder, device, found.n_rows - n_valid)
            counts = source.count(self.encoder.codebook().to(device))
        return rows_to_fit(self.encoder, x, x_valid, seed, device, counts=counts, source=source)


class GrowingTable:
    """A table that grows by batches: its encoded rows, or a uniform sample of ``SAMPLE_ROWS`` of them.

    Rows are sampled, and held out, by hashes of their positions, so that it does not matter how they were divided into
    batches.
    """

    def __init__(self, encoder: TableEncoder, seed: int) -> None:
        self.encoder, self.seed, self.n_rows = encoder, seed, 0
        self._x, self._positions = np.zeros((0, len(encoder.owner))), np.zeros(0, np.int64)

    def add(self, frame: pd.DataFrame) -> None:
        """Add rows; ValueError or TypeError, and nothing is added, if one does not fit the schema."""
        (x, _), unreadable = self.encoder.readable(frame)
        self._check_few(frame, unreadable)
        there = np.flatnonzero(~np.isnan(x).all(1))
        positions = np.concatenate([self._positions, self.n_rows + there])
        self.n_rows += len(x)
        kept = np.sort(np.argsort(position_hashes(positions, self.seed))[:SAMPLE_ROWS])
        self._x, self._positions = np.concatenate([self._x, x[there]])[kept], positions[kept]

    def _check_few(self, frame: pd.DataFrame, unreadable: np.ndarray | None) -> None:
        """ValueError if more cells of a column are unreadable than in a table of the first rows; else a warning."""
        if unreadable is None:
            return
        for j, texts in enumerate(unreadable.T):
            bad, name = np.flatnonzero(pd.notna(texts)), self.encoder.names[j]
            if len(bad) > most_unreadable(int(np.sum(frame[name].notna().to_numpy()))):
                raise ValueError(self.encoder.schema[j].refusal(texts[bad[0]]))
        if self.n_rows:
            self.encoder.tell_unreadable(unreadable)

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """The rows so far."""
        n = len(self._x)
        if n < 2:
            raise ValueError("at least two rows with a cell that is not missing are needed")
        n_valid = min(max(1, round(validation_fraction * n)), n - 1, MOST_HELD_OUT)
        order = np.argsort(position_hashes(self._positions, self.seed + 1))
        x_valid, x = (torch.from_numpy(self._x[np.sort(p)]) for p in np.split(order, [n_valid]))
        return rows_to_fit(self.encoder, x, x_valid, seed, device)


@dataclass(frozen=True, eq=False)
class PrivateTable:
    """A private forest in place of a table, whose rows are not kept: what a fit reads are rows drawn from it."""

    encoder: TableEncoder
    recipe: Forest
    fitted: PrivateFit

    @classmethod
    def of(
        cls, encoder: TableEncoder, x: Tensor, recipe: Forest, seed: int, secret: bool
    ) -> PrivateTable:
        """The forest of encoded rows (N, C'); not ``secret`` noise follows from the seed."""
        random_bytes = os.urandom if secret else np.random.default_rng([seed, 16]).bytes
        assert recipe.epsilon is not None
        how = recipe.epsilon, recipe.n_trees, seed, random_bytes
        fitted = fit_private(encoder.codebook(), x, *how)
        numbers = zip(encoder.schema, fitted.n_missing, strict=False)
        schema = [replace(c, n_rows=fitted.n_rows, n_missing=n) for c, n in numbers]
        return cls(TableEncoder(schema), recipe, fitted)

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """Drawn rows, for which the fit of the recipe is done already."""
        generator = torch.Generator(device).manual_seed(seed)
        forest, marginals = self.fitted.forest.to(device), self.fitted.marginals.to(device)
        x, x_valid = forest.draw(2 * PRIVATE_ROWS, generator).split(PRIVATE_ROWS)
        rows = TrainingRows(marginals, x, x_valid, generator)
        rows.once(self.recipe, lambda: forest)
        return rows


TrainingTable = TableInMemory | StreamedTable | GrowingTable | PrivateTable


class ReadTable(NamedTuple):
    """A user's table after reading."""

    table: TrainingTable
    shown: Any  # the table or, of a stream, some rows, from which scikit-learn takes names and numbers of columns
    is_frame: bool  # whether it has names, or was an array
    is_polars: bool = False


def read_table(
    X: Any,
    estimator: Any,
    reading: dict[str, Any],
    *,
    sample_weight: Any,
    groups: Any = None,
    seed: int,
    private: Forest | None = None,
) -> ReadTable:
    """The table in memory, or the stream, that a user gives to ``fit``; a stream of few rows is read into memory.

    ``reading`` are arguments of :meth:`TableEncoder.fit`, the others those of the ``fit`` of an estimator;
    the seed is that of the sample of a stream, and of a forest that is fitted as a ``private`` one. A ValueError or
    TypeError names the column or argument that is invalid.
    """
    if private is not None:
        return _read_privately(X, estimator, reading, private, seed, sample_weight, groups)
    clock = Deadline()
    stream, found, is_frame, polars = as_stream(X), None, True, False
    if stream is None:
        frame, is_frame = read_rows(X, estimator)
        polars, X = is_polars(X), frame if is_frame else X
    else:
        specs = partial(column_specs, columns=reading["columns"])
        found = survey(stream, specs, sample_size, seed)
        X = frame = found.sample
    validate_data(type(estimator)(), X, skip_check_array=True)  # names that scikit-learn refuses
    if len(frame) < 2:
        raise ValueError(f"n_samples=1: at least two rows are needed, got {len(frame)}")
    learn = partial(TableEncoder.fit, **reading)
    if stream is not None and found is not None and not found.is_whole:
        refuse_stream(sample_weight=sample_weight, groups=groups)
        encoder = learn(found.columns)
        encoder = encoder.with_informative_gaps(frame, reading["columns"], reading["missing"])
        seconds = clock.age
        return ReadTable(StreamedTable(encoder, stream, found, seed, seconds), X, is_frame)
    repeated, units = occurring(sample_weight, groups, len(frame))
    if repeated is not None:
        frame = frame.iloc[repeated]
    encoder = learn(frame, from_array=not is_frame)
    x = torch.from_numpy(encoder.readable(frame)[0].x)
    there = ~x.isnan().all(1)
    x, units = x[there], None if units is None else units[there.numpy()]
    if count_units(len(x), units) < 2:
        what = "rows" if groups is None else "groups of rows"
        raise ValueError(f"at least two {what} with a cell that is not missing are needed")
    return ReadTable(TableInMemory(encoder, x, units), X, is_frame, polars)


def _read_privately(
    X: Any,
    estimator: Any,
    reading: dict[str, Any],
    private: Forest,
    seed: int,
    sample_weight: Any,
    groups: Any,
) -> ReadTable:
    """:func:`read_table` for a private forest: no row decides on anything but noisy counts."""
    if as_stream(X) is not None:
        raise ValueError("epsilon needs a table in memory; X is a stream")
    if sample_weight is not None or groups is not None:
        raise ValueError("epsilon is the privacy of single rows: no sample_weight, no groups")
    secret = estimator.random_state is None
    if not secret:
        warn(
            "the noise of a private fit follows from random_state: the model is private only for whoever cannot know"
            " or guess it; fit with random_state=None before you give the model away"
        )
    frame, is_frame = read_rows(X, estimator)
    polars, X = is_polars(X), frame if is_frame else X
    validate_data(type(estimator)(), X, skip_check_array=True)
    reading = {k: v for k, v in reading.items() if k != "leave_out"}
    encoder = TableEncoder.declared(frame.columns, **reading)
    x = torch.from_numpy(encoder.transform(frame).x)
    return ReadTable(PrivateTable.of(encoder, x, private, seed, secret), X, is_frame, polars)


def refuse_stream(**given: Any) -> None:
    """ValueError, if any of these arguments, one for each row of a table in memory, is given with a stream."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} needs a table in memory; X is a stream")


def sample_size(n_columns: int) -> int:
    """Rows of a stream that are kept in memory, including those that may be held out."""
    return min(SAMPLE_ROWS, max(FEWEST_SAMPLED, SAMPLE_CELLS // n_columns))


# -- rows of a stream, and counts of rows -----


class StreamedRows:
    """The encoded rows of a stream of ``n_read`` rows, as a :class:`~discrete_itd.training.row_sources.RowSource`.

    As soon as they are counted, ``n_rows`` is the number of those with a cell that is not missing.
    """

    def __init__(
        self, stream: RemainingStream, encoder: TableEncoder, device: torch.device, n_read: int
    ) -> None:
        self.stream, self.encoder, self.device = stream, encoder, device
        self._n_read = self.n_rows = n_read

    def count(self, book: Codebook) -> CellCounts:
        counts = CellCounts.of(book, self.chunks())
        self.n_rows = counts.n_rows
        return counts

    def chunks(self) -> Iterator[Tensor]:
        for x in self.encoded():
            yield x.to(self.device)

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> Iterator[Tensor]:
        return streamed_batches(self, size, generator, n_batches)

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
            if share < 1:
                part = part.take(
                    position_hashes(part.positions, salt) < np.uint64(share * N_HASHES)
                )
            if len(part.frame):
                x = torch.from_numpy(self.encoder.readable(part.frame)[0].x)
                yield x[~x.isnan().all(1)]
        if n_read != self._n_read:
            raise ValueError(
                f"the stream gave {self._n_read} training rows at first, {n_read} later: it must give the same rows"
                " every time it is read"
            )


def streamed_batches(
    source: StreamedRows, size: int, generator: torch.Generator, n_batches: int
) -> Iterator[Tensor]:
    """Batches of equal size without end, ``n_batches`` at most, drawn from a bounded buffer that the stream refills.

    Remaining rows at the end of an epoch are dropped; a batch has no more rows than there are. ValueError if no row has
    a cell.
    """
    size = min(size, source.n_rows)
    share = min(1.0, (SPARE_ROWS * n_batches + FEWEST_BUFFERED) * size / source.n_rows)
    n_buffered = max(FEWEST_BUFFERED * size, BUFFER_CELLS // len(source.encoder.owner))
    while True:
        seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
        has_any = False  # an epoch of few rows, chosen by chance, may have no batch
        for batch in _epoch(source, size, share, n_buffered, np.random.default_rng(int(seed))):
            has_any = True
            yield batch.to(source.device)
        if not has_any and share == 1:
            raise ValueError("there is no row with a cell that is not missing")


def _epoch(
    source: StreamedRows, size: int, share: float, n_buffered: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Batches of a share of the rows, each of them once."""
    n_given = 0
    buffer = torch.zeros(0, len(source.encoder.owner), dtype=torch.float64)
    for x in source.encoded(rng, share):
        buffer = torch.cat([buffer, x])
        n_out = (len(buffer) - n_buffered) // size * size
        if n_out > 0:
            buffer = buffer[torch.from_numpy(rng.permutation(len(buffer)))]
            yield from buffer[:n_out].split(size)
            n_given += n_out
            buffer = buffer[n_out:].clone()
    order = torch.from_numpy(rng.permutation(len(buffer)))
    if not n_given and 0 < len(order) < size and share == 1:  # as of a short table
        order = order.repeat(-(-size // len(order)))
    for rows in order.split(size):
        if len(rows) == size:
            yield buffer[rows]
