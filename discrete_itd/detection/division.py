"""Division of the rows of a detector's fit into training and calibration rows."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch

from discrete_itd.channel.noise import row_hashes
from discrete_itd.encoders.rows import read_rows
from discrete_itd.encoders.streams import (
    Positions,
    RemainingStream,
    Stream,
    Survey,
    as_stream,
    survey,
)
from discrete_itd.models.held_out import Ints, count_units, hold_out, occurring, one_of_each
from discrete_itd.models.training_tables import refuse_stream, sample_size
from discrete_itd.validation import warn

MOST_HELD = 20_000  # calibration rows: they determine a rate of 1 in 1000 to within a half


class Division(NamedTuple):
    """The division of the rows given to a fit.

    ``table`` are the rows in memory, all or a sample of a stream. ``held``, ``rest`` and ``train`` are positions in it:
    of the calibration rows, one of each group, in the order of the table; of the others, in random order; and of the
    training rows, in the order of the table. ``groups`` are the numbers of the groups of the rows of ``train``, None if
    each row is one by itself. ``source``, a table or stream with ``n_train`` rows, are the training data of the
    density.
    """

    table: Any
    held: Positions
    rest: Positions
    train: Positions
    groups: Ints | None
    source: Any
    n_train: int


def divide(
    X: Any,
    estimator: Any,
    *,
    fraction: float | None,
    seed: int,
    sample_weight: Any = None,
    groups: Any = None,
) -> Division:
    """Divide the rows of a table or stream at random.

    ``fraction`` of the rows, at most ``MOST_HELD``, are calibration rows, and of a stream at most half of its sample;
    None if the density is fitted already: then all are, at most ``MOST_HELD`` of a stream. ``sample_weight`` (N,), how
    often each row occurs, and ``groups`` (N,), labels of what each row belongs to, are not for streams. A ValueError or
    TypeError names the column or argument that is invalid; scikit-learn's errors name ``estimator``.
    """
    stream = as_stream(X)
    if stream is not None:
        found = survey(stream, None, sample_size, seed)
        if not found.is_whole:
            refuse_stream(sample_weight=sample_weight, groups=groups)
            return _divide_stream(stream, found, fraction, seed)
        X = found.sample
    frame, is_frame = read_rows(X, estimator)
    repeated, units = occurring(sample_weight, groups, len(frame))
    if repeated is not None:
        frame = cast(pd.DataFrame, frame.iloc[repeated])
    table = frame if is_frame else frame.to_numpy()
    none, n = np.zeros(0, dtype=np.int64), count_units(len(frame), units)
    if fraction is None:
        held = one_of_each(hold_out(len(frame), units, n, seed)[0], units)
        return Division(table, held, none, none, None, None, 0)
    n_held = min(MOST_HELD, round(fraction * n))
    if fraction and n > 2:
        n_held = min(max(1, n_held), n - 2)  # the density needs two rows, to hold out one
    elif fraction and n == 2:
        n_held, what = 0, "rows" if units is None else "groups"
        warn(f"two {what} leave none to calibrate on: no p-values")
    held, rest = hold_out(len(frame), units, n_held, seed)
    held, train = one_of_each(held, units), np.sort(rest)
    of_train = None if units is None else units[train]
    return Division(table, held, rest, train, of_train, take(table, train), len(train))


def _divide_stream(stream: Stream, found: Survey, fraction: float | None, seed: int) -> Division:
    """Divide by the hashes of positions: rows with the smallest are calibration rows, which the fit does not read."""
    order, none = np.argsort(found.hashes), np.zeros(0, dtype=np.int64)
    if fraction is None:
        held = np.sort(order[:MOST_HELD])
        return Division(found.sample, held, none, none, None, None, 0)
    n_held = min(MOST_HELD, round(fraction * found.n_rows), len(order) // 2)
    if fraction:
        n_held = max(1, n_held)
    source = stream
    if n_held:
        source = RemainingStream(stream, seed, int(found.hashes[order[n_held - 1]]))
    held, rest = np.sort(order[:n_held]), order[n_held:]
    train = np.sort(rest)
    return Division(found.sample, held, rest, train, None, source, found.n_rows - n_held)


def take(table: Any, which: Positions) -> Any:
    """Some rows of a frame or an array."""
    return table.iloc[which] if isinstance(table, pd.DataFrame) else table[which]


def repeats(x: torch.Tensor, parts: Division) -> np.ndarray:
    """Which calibration rows equal a training row, bool, (n,): none if not all training rows are known.

    ``x`` (N, C') are the encoded rows in memory.
    """
    if len(parts.train) < parts.n_train:
        return np.zeros(len(parts.held), dtype=bool)
    hashes = row_hashes(x).cpu().numpy()
    return np.isin(hashes[parts.held], hashes[parts.train])
