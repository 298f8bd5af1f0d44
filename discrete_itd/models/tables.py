"""Tables to learn from, in memory or as a stream: their schema, and the division of their rows for a fit.

Dependent rows stay on one side of the division. By default rows are treated as independent draws, so that a row is as
likely to be held out as any other, also one that is equal to others: held-out rows then repeat training rows as often
as new rows do. Where rows are not independent, because several belong to one customer or are copies of one record,
held-out rows would be too similar to training rows. A table does not show this: draws from a few patterns, and copies
of as many records, may be the same rows. It must be specified:

* With ``groups``, labels of the rows, groups are divided, all of equal probability whatever their sizes.
* With ``sample_weight``, each given row is a group of copies, unless ``groups`` unites several.

If groups are exchangeable (independent draws of customers, say), then the held-out ones and a new one are, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Hashable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data
from torch import Tensor

from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.encoders import TableEncoder, is_polars
from discrete_itd.encoders.rows import read_rows
from discrete_itd.encoders.streams import RemainingStream, Stream, Survey, as_stream, survey
from discrete_itd.encoders.table import column_specs
from discrete_itd.models.contract import TrainingRows
from discrete_itd.models.streaming import CountedTable, StreamedRows
from discrete_itd.progress import stage
from discrete_itd.validation import check_weights

Ints = NDArray[np.int64]

# of a stream, kept in memory; of a wide table fewer rows
SAMPLE_ROWS, SAMPLE_CELLS = 150_000, 1 << 23
FEWEST_SAMPLED = 15_000
MOST_HELD = 3  # at most one in so many rows of the sample is held out
MOST_VALID = 20_000  # held-out rows: every candidate is judged on all of them
# passes through a stream that a fit makes after the first, and the share of the time that is left that they may take
PASSES, READING_SHARE = 4, 0.25


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
        n_valid = min(max(1, round(validation_fraction * n)), n - 1, MOST_VALID)
        division = hold_out(len(x), self.units, n_valid, seed)
        x_valid, x = (x[torch.from_numpy(part)].to(device) for part in division)
        marginals = MarginalDenoiser.fit(
            self.encoder.codebook().to(device), x, unseen_counts=self.encoder.unseen_counts
        )
        return TrainingRows(marginals, x, x_valid, torch.Generator(device).manual_seed(seed))


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


TrainingTable = TableInMemory | StreamedTable | CountedTable


class ReadTable(NamedTuple):
    """A user's table after reading."""

    table: TrainingTable
    shown: Any  # the table or, of a stream, some rows, from which scikit-learn takes names and numbers of columns
    is_frame: bool  # whether it has names, or was an array
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
    """The table in memory, or the stream, that a user gives to ``fit``; a stream of few rows is read into memory.

    The arguments are those of :class:`discrete_itd.DiffusionDensity` and its ``fit``; the seed is that of the sample of
    a stream. A ValueError or TypeError names the column or argument that is invalid.
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
    learn = partial(
        TableEncoder.fit,
        columns=column_types,
        handle_unknown=handle_unknown,
        missing=missing,
        leave_out=True,
    )
    if stream is not None and found is not None and not found.is_whole:
        refuse_stream(sample_weight=sample_weight, groups=groups)
        encoder, seconds = learn(found.columns), time.perf_counter() - start
        return ReadTable(StreamedTable(encoder, stream, found, seed, seconds), X, is_frame)
    repeated, units = occurring(sample_weight, groups, len(frame))
    if repeated is not None:
        frame = frame.iloc[repeated]
    encoder = learn(frame, from_array=not is_frame)
    x = torch.from_numpy(encoder.transform(frame).x)
    there = ~x.isnan().all(1)
    x, units = x[there], None if units is None else units[there.numpy()]
    if count_units(len(x), units) < 2:
        what = "rows" if groups is None else "groups of rows"
        raise ValueError(f"at least two {what} with a cell that is not missing are needed")
    return ReadTable(TableInMemory(encoder, x, units), X, is_frame, polars)


def refuse_stream(**given: Any) -> None:
    """ValueError, if any of these arguments, one for each row of a table in memory, is given with a stream."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} needs a table in memory; X is a stream")


def sample_size(n_columns: int) -> int:
    """Rows of a stream that are kept in memory, including those that may be held out."""
    return min(SAMPLE_ROWS, max(FEWEST_SAMPLED, SAMPLE_CELLS // n_columns))


# -- which rows are held out -----


def occurring(sample_weight: Any, groups: Any, n_rows: int) -> tuple[Ints | None, Ints | None]:
    """Positions of the rows, each repeated by its weight (M,), and the number of the group of each of these (M,).

    The first is None without weights, the second if each row is a group by itself. ValueError or TypeError if weights
    or labels are not valid, or leave less than two groups.
    """
    repeats, labels = check_weights(sample_weight, n_rows), check_groups(groups, n_rows)
    rows, units = None, labels
    if repeats is not None:
        rows = np.repeat(np.arange(n_rows), repeats)
        units = rows if labels is None else labels[rows]
    if units is not None and (units == units[0]).all():
        what = "sample_weight leaves" if labels is None else "all rows are of"
        raise ValueError(
            f"{what} one {'row' if labels is None else 'group'}; at least two are needed"
        )
    return rows, units


def check_groups(groups: Any, n_rows: int) -> Ints | None:
    """Numbers for the labels of rows, int64 of shape (N,), equal for equal labels; None if there are none.

    TypeError if they are not a sequence, or one is not hashable; ValueError if they are not one for every row.
    """
    if groups is None:
        return None
    if isinstance(groups, str | bytes | Mapping | Set) or not isinstance(groups, Collection):
        raise TypeError(f"groups must hold a label for each row, got {groups!r}")
    shape = getattr(groups, "shape", (len(groups),))
    if tuple(shape) != (n_rows,):
        raise ValueError(f"groups.shape == {tuple(shape)}, expected {(n_rows,)}: one for every row")
    labels = np.empty(n_rows, dtype=object)
    labels[:] = list(groups)  # a label may be a tuple
    for i, label in enumerate(labels):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"groups: the label of row {i} is a {type(label).__name__}, not hashable"
            )
    numbers = pd.factorize(labels)[0]
    if (numbers < 0).any():
        i = int((numbers < 0).argmax())
        raise ValueError(f"groups: row {i} has no label, but {labels[i]!r}")
    return numbers.astype(np.int64)


def hold_out(n_rows: int, units: Ints | None, n_held: int, seed: int) -> tuple[Ints, Ints]:
    """Positions of the rows of ``n_held`` groups, and those of the others, in random order.

    Every choice of groups is equally likely. ``units`` (n_rows,) has the group of each row; by default its own.
    """
    random = np.random.RandomState(seed)
    order = random.permutation(n_rows)
    numbers = None if units is None else np.unique(units, return_inverse=True)[1]
    if numbers is None or numbers.max() + 1 == n_rows:
        return order[:n_held], order[n_held:]
    chosen = random.permutation(numbers.max() + 1)[:n_held]
    held = np.isin(numbers, chosen)[order]
    return order[held], order[~held]


def count_units(n_rows: int, units: Ints | None) -> int:
    """Number of groups to divide."""
    return n_rows if units is None else len(np.unique(units))


def one_of_each(held: Ints, units: Ints | None) -> Ints:
    """One position of each group among positions in random order, in the order of the table."""
    if units is not None:
        held = held[np.unique(units[held], return_index=True)[1]]
    return np.sort(held)
