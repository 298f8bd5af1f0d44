"""Scores of the rows of a table in hand, each by a detector that was fitted to other rows.

A row that was fitted to has been learned: a gross error may score as typical, and rows that happened to be held out for
calibration score lowest. So the table is divided at random into ``FOLDS`` folds, groups as a whole, and the rows of
each are scored by a detector that was fitted to the others. It needs no calibration rows.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from discrete_itd.detection.division import check_density, encoded, schema_of, take
from discrete_itd.encoders import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.held_out import (
    DIVISION_SEED,
    Ints,
    Part,
    check_groups,
    count_units,
    in_order_of_content,
)
from discrete_itd.progress import fit_progress
from discrete_itd.reading.frames import read_rows
from discrete_itd.validation import seed_of

if TYPE_CHECKING:
    from discrete_itd.detection.detector import DiffusionOutlierDetector

FOLDS = 3


class Fold(NamedTuple):
    """Some rows of a table, their positions and scores (n,) in nats, and the detector that did not see them."""

    detector: DiffusionOutlierDetector
    rows: Rows
    at: Ints
    scores: np.ndarray


def out_of_fold(detector: DiffusionOutlierDetector, X: Any, groups: Any = None) -> list[Fold]:
    """The folds of a table in memory, scored by detectors with the settings of ``detector``.

    Warnings are those of the first fit. A ValueError or TypeError names the column or argument that is invalid.
    """
    check_density(detector.density, detector.denoiser)
    if isinstance(detector.density, FrozenEstimator):
        raise TypeError("density must not be frozen: rows are left out of its fit")
    seed = seed_of(detector.random_state)
    frame, is_frame = read_rows(X, detector)
    table, units = frame if is_frame else frame.to_numpy(), check_groups(groups, len(frame))
    n = count_units(len(frame), units)
    if n < 3:
        what = "rows" if units is None else "groups"
        raise ValueError(f"at least three {what} are needed, to leave one out, got n_samples={n}")
    n_folds = min(FOLDS, n)
    schema = schema_of(table, detector.density or DiffusionDensity())
    order, numbers = in_order_of_content(*encoded(frame, schema), units)
    fold_of = np.random.RandomState(DIVISION_SEED).permutation(n) % n_folds
    place, folds = np.empty(len(frame), np.int64), []
    place[order] = fold_of if numbers is None else fold_of[numbers]
    with fit_progress(getattr(detector.density, "max_time", None)) as watched:
        for i in range(n_folds):
            watched.share = (i + 0.9) / n_folds
            at, rest = (np.flatnonzero(part) for part in (place == i, place != i))
            one = cast(Any, clone(detector))
            one.set_params(calibration_fraction=0, random_state=seed)
            with warnings.catch_warnings():
                if folds:
                    warnings.simplefilter("ignore")
                rows = Part(take(table, rest), schema)
                one.fit(rows, groups=None if units is None else units[rest])
                rows = one.density_.rows(take(table, at)).labelled(frame.index[at])
                folds.append(Fold(one, rows, at, one.score_samples(rows)))
            if watched.deadline.interrupted:
                raise KeyboardInterrupt
    return folds


def in_order(folds: list[Fold], values: list[np.ndarray]) -> np.ndarray:
    """Values of the rows of each fold in the order of the table, (N,)."""
    return np.concatenate(values)[np.argsort(np.concatenate([fold.at for fold in folds]))]
