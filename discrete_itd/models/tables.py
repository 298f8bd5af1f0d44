"""Tables to learn from, in memory or as a stream: their schema, and their rows divided for a fit."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.encoders import TableEncoder, is_polars
from discrete_itd.encoders.rows import read_rows
from discrete_itd.encoders.streams import RemainingStream, Stream, Survey, as_stream, survey
from discrete_itd.encoders.table import column_specs
from discrete_itd.models.contract import TrainingRows
from discrete_itd.models.splitting import Ints, count_units, hold_out, occurring
from discrete_itd.models.streaming import StreamedRows
from discrete_itd.progress import stage

# of a stream, kept in memory; of a wide table fewer rows
SAMPLE_ROWS, SAMPLE_CELLS = 150_000, 1 << 23
FEWEST_SAMPLED = 15_000
MOST_HELD = 3  # one row of so many in the sample is held out at most
MOST_VALID = 20_000  # held-out rows: every candidate is judged on all of them
# passes through a stream that a fit makes after the first, and the share of the time that is left that they may take
PASSES, READING_SHARE = 4, 0.25


class TrainingTable(Protocol):
    """A table with its schema."""

    @property
    def encoder(self) -> TableEncoder:
        """The schema."""
        ...

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """The rows with a cell that is not missing, some of them held out; a sample if there is no time to read all."""
        ...


@dataclass(frozen=True, eq=False)
class TableInMemory:
    """A table with its encoded rows ``x``, shape (N, C').

    Held-out rows are chosen at random, those of one of the ``units`` (N,) together if there are any:
    :mod:`discrete_itd.models.splitting`.
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
        x = self.x
        n = count_units(len(x), self.units)
        n_valid = min(max(1, round(validation_fraction * n)), n - 1, MOST_VALID)
        division = hold_out(len(x), self.units, n_valid, seed)
        x_valid, x = (x[torch.from_numpy(part)].to(device) for part in division)
        marginals = MarginalDenoiser.fit(
            self.encoder.codebook().to(device), x, unseen_counts=self.encoder.unseen_counts
        )
        return TrainingRows(marginals, x, x_valid, torch.Generator(device).manual_seed(seed))


@dataclass(frozen=True, eq=False)
class StreamedTable:
    """A table too large for memory, of which a sample is kept.

    Parameters
    ----------
    encoder : TableEncoder
    stream : Stream
    found : Survey
    salt : int
        Of the hashes by which rows were sampled.
    seconds : float
        That the first pass through the stream took.
    """

    encoder: TableEncoder
    stream: Stream
    found: Survey
    salt: int
    seconds: float = 0.0

    def training_rows(
        self,
        validation_fraction: float,
        seed: int,
        device: torch.device,
        time_left: float = math.inf,
    ) -> TrainingRows:
        """As the protocol has it; a third of the sample is held out at most, the rows with the smallest hashes."""
        found, order = self.found, np.argsort(self.found.hashes)
        n_valid = min(max(1, round(validation_fraction * found.n_rows)), MOST_VALID)
        n_valid = min(n_valid, len(order) // MOST_HELD)
        x = torch.from_numpy(self.encoder.transform(found.sample.iloc[order]).x)
        x_valid, x = (part[~part.isnan().all(1)].to(device) for part in (x[:n_valid], x[n_valid:]))
        if not len(x) or not len(x_valid):
            raise ValueError("almost all rows of the stream have no cell that is not missing")
        book, source, counts = self.encoder.codebook().to(device), None, None
        if PASSES * self.seconds <= READING_SHARE * time_left:
            rest = RemainingStream(self.stream, self.salt, int(found.hashes[order[n_valid - 1]]))
            source = StreamedRows(rest, self.encoder, device, found.n_rows - n_valid)
            counts = source.count(book)
        marginals = MarginalDenoiser.fit(
            book, x, unseen_counts=self.encoder.unseen_counts, counts=counts
        )
        generator = torch.Generator(device).manual_seed(seed)
        return TrainingRows(marginals, x, x_valid, generator, source)


class ReadTable(NamedTuple):
    """What was read of a user's table.

    Attributes
    ----------
    table : TrainingTable
    shown : Any
        The table itself or, of a stream, some rows: what scikit-learn takes names and numbers of columns from.
    is_frame : bool
        Whether it has names, or was an array.
    is_polars : bool
        Whether it is a polars frame.
    """

    table: TrainingTable
    shown: Any
    is_frame: bool
    is_polars: bool = False


def read_table(
    X: Any,
    estimator: Any,
    *,
    column_types: Mapping[Any, Any] | str | None,
    handle_unknown: str,
    missing: str,
    sample_weight: Any,
    groups: Any = None,
    seed: int,
) -> ReadTable:
    """The table in memory, or the stream, that a user gives to fit; a stream of few rows is read into memory.

    Parameters
    ----------
    X : table, array, path of Parquet or iterable of frames
    estimator : estimator
        Named in scikit-learn's errors.
    column_types, handle_unknown, missing
        Of :class:`discrete_itd.DiffusionDensity`.
    sample_weight : array-like of int, optional
    groups : array-like of labels, optional
    seed : int
        Of the sample of a stream.

    Raises
    ------
    ValueError, TypeError
        Naming the column or argument that is invalid.
    """
    stage("reading the table")
    start = time.perf_counter()
    stream, found, is_frame, polars = as_stream(X), None, True, False
    if stream is None:
        frame, is_frame = read_rows(X, estimator)
        polars, X = is_polars(X), frame if is_frame else X
    else:
        specs = partial(column_specs, columns=column_types)
        found = survey(stream, specs, sample_size, seed)
        X = frame = found.sample
    validate_data(type(estimator)(), X, skip_check_array=True)  # names that scikit-learn refuses
    if len(frame) < 2:
        raise ValueError(f"n_samples=1: at least two rows are needed, got {len(frame)}")
    if stream is not None and found is not None and not found.is_whole:
        refuse_stream(sample_weight=sample_weight, groups=groups)
        encoder = TableEncoder.from_observed(
            found.columns,
            column_specs(frame.columns, column_types),
            handle_unknown=handle_unknown,
            missing=missing,
            leave_out=True,
        )
        seconds = time.perf_counter() - start
        return ReadTable(StreamedTable(encoder, stream, found, seed, seconds), X, is_frame)
    repeated, units = occurring(sample_weight, groups, len(frame))
    if repeated is not None:
        frame = frame.iloc[repeated]
    encoder = TableEncoder.fit(
        frame,
        column_types,
        handle_unknown=handle_unknown,
        missing=missing,
        from_array=not is_frame,
        leave_out=True,
    )
    x = torch.from_numpy(encoder.transform(frame).x)
    there = ~x.isnan().all(1)
    x, units = x[there], None if units is None else units[there.numpy()]
    if count_units(len(x), units) < 2:
        what = "rows" if groups is None else "groups of rows"
        raise ValueError(f"at least two {what} with a cell that is not missing are needed")
    return ReadTable(TableInMemory(encoder, x, units), X, is_frame, polars)


def refuse_stream(**given: Any) -> None:
    """ValueError, if any of these arguments, one for each row of a table in memory, is given of a stream."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} needs a table in memory; X is a stream")


def sample_size(n_columns: int) -> int:
    """Rows of a stream that are kept in memory, those that may be held out among them."""
    return min(SAMPLE_ROWS, max(FEWEST_SAMPLED, SAMPLE_CELLS // n_columns))
