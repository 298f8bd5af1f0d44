"""Division of the rows of a detector's fit into training and calibration rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.frozen import FrozenEstimator

from discrete_itd.channel.noise import row_hashes
from discrete_itd.encoders import Column, TableEncoder
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.auto import recipe
from discrete_itd.models.held_out import (
    Ints,
    Part,
    check_groups,
    count_units,
    hold_out,
    in_order_of_content,
    infer_schema,
    one_of_each,
)
from discrete_itd.reading.frames import in_memory, read_rows
from discrete_itd.validation import warn

MOST_HELD = 20_000  # calibration rows: they determine a rate of 1 in 1000 to within a half


class Division(NamedTuple):
    """The division of the rows given to a fit.

    ``table`` are all rows, or a sample of a stream. ``held``, ``rest`` and ``train`` are positions in it: of the
    calibration rows, one of each group, in the order of the table; of the others, in random order; and of the training
    rows, in the order of the table. ``groups`` are the numbers of the groups of the training rows, None if each row is
    one by itself. ``schema`` is that of the table, or of one of which these are some rows; None if nothing is trained.
    """

    table: Any
    held: Ints
    rest: Ints
    train: Ints
    groups: Ints | None
    schema: TableEncoder | None = None


def check_density(density: Any, denoiser: Any) -> None:
    """TypeError or ValueError if a detector cannot use these parameters."""
    if denoiser is not None:
        recipe(denoiser)
        if density is not None:
            raise ValueError(
                "density and denoiser exclude each other: DiffusionDensity(denoiser=...)"
            )
    frozen = isinstance(density, FrozenEstimator)
    model = density.estimator if frozen else density
    if not isinstance(model, DiffusionDensity | None) or (frozen and model is None):
        raise TypeError(
            "density must be a DiffusionDensity, or a FrozenEstimator of one that is fitted,"
            f" got {type(model).__name__}"
        )
    if not frozen and model is not None and model.handle_unknown in ("error", "raise"):
        raise ValueError(
            "density has handle_unknown='error': a detector must score unseen values; use 'smooth'"
        )


def schema_of(table: Any, density: DiffusionDensity) -> TableEncoder:
    """The schema that a density infers from a table, a frame or an array."""
    frame, is_frame = read_rows(table, density)
    return infer_schema(frame, density, is_frame=is_frame)


def encoded(frame: pd.DataFrame, schema: TableEncoder) -> tuple[np.ndarray, Sequence[Column]]:
    """The rows (N, C') of a table as its own schema encodes them, and the columns."""
    return schema.readable(schema.named(frame))[0].x, schema.schema


def divide(
    X: Any, estimator: Any, *, fraction: float | None, seed: int, groups: Any = None
) -> Division:
    """Divide the rows of a table or stream at random, whatever their order.

    ``seed`` samples a stream. ``fraction`` of the rows, at most ``MOST_HELD``, are calibration rows; None if the
    density is fitted already: then all are. ``groups`` (N,), labels of what each row belongs to, are not for streams. A
    ValueError or TypeError names the column or argument that is invalid; scikit-learn's errors name ``estimator``.
    """
    schema = X.schema if isinstance(X, Part) else None
    X = X.rows if isinstance(X, Part) else X
    frame, is_frame = read_rows(in_memory(X, seed, groups), estimator)
    units = check_groups(groups, len(frame))
    table = frame if is_frame else frame.to_numpy()
    none, n = np.zeros(0, dtype=np.int64), count_units(len(frame), units)
    if fraction is None:
        held = one_of_each(hold_out(len(frame), units, n)[0], units)
        return Division(table, held, none, none, None, None)
    n_held = min(MOST_HELD, round(fraction * n))
    if fraction and n > 2:
        n_held = min(max(1, n_held), n - 2)  # the density needs two rows, to hold out one
    elif fraction and n == 2:
        n_held, what = 0, "rows" if units is None else "groups"
        warn(f"two {what} leave none to calibrate on: no p-values")
    with warnings.catch_warnings():
        # rows in which copies differ are what a detector looks for
        warnings.filterwarnings("ignore", "columns that are copies")
        schema = schema or schema_of(table, estimator.density or DiffusionDensity())
    order, numbers = in_order_of_content(*encoded(frame, schema), units)
    held, rest = (order[part] for part in hold_out(len(frame), numbers, n_held))
    held, train = one_of_each(held, units), np.sort(rest)
    units = None if units is None else units[train]
    return Division(table, held, rest, train, units, schema)


def take(table: Any, which: Ints) -> Any:
    """Some rows of a frame or an array."""
    return table.iloc[which] if isinstance(table, pd.DataFrame) else table[which]


def repeats(x: torch.Tensor, parts: Division) -> np.ndarray:
    """Which calibration rows equal a training row, bool, (n,), by the encoded rows ``x`` (N, C')."""
    hashes = row_hashes(x).cpu().numpy()
    return np.isin(hashes[parts.held], hashes[parts.train])
