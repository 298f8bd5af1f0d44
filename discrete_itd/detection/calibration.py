"""The steps of a detector's fit: checks, division of the rows, trimming of anomalies, and the first threshold."""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from discrete_itd.detection import thresholds
from discrete_itd.detection.conformal import Scores, lowered
from discrete_itd.detection.kernel import outlyingness
from discrete_itd.detection.scoring import Scorer
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.splitting import copies, equal_values, hold_out
from discrete_itd.validation import check_share

MOST_HELD = 20_000  # calibration rows, which determine a rate of 1 in 1000 to within a half; more only cost time
SEEN_ROWS = 2000  # rows that set the threshold where none are held out

Positions = np.ndarray  # of rows in the table given to fit, int64


def check_density(density: Any) -> None:
    """TypeError or ValueError if a detector cannot use this as its ``density``."""
    frozen = isinstance(density, FrozenEstimator)
    own = density.estimator if frozen else density
    if not isinstance(own, DiffusionDensity | None) or (frozen and own is None):
        raise TypeError(
            "density must be a DiffusionDensity, or a FrozenEstimator of one that is fitted,"
            f" got {type(own).__name__}"
        )
    if not frozen and own is not None and own.handle_unknown in ("error", "raise"):
        raise ValueError(
            "density has handle_unknown='error': a detector must score unseen values; use 'smooth'"
        )


def check_contamination(contamination: Any) -> float | None:
    """The share of anomalies among the rows to be fitted; None for "auto"."""
    if isinstance(contamination, str):
        if contamination != "auto":
            raise ValueError(f"contamination must be 'auto' or a share, got {contamination!r}")
        return None
    share = check_share("contamination", contamination)
    if share > 0.5:
        raise ValueError(f"contamination must be at most 0.5, got {share!r}")
    return share


def unfitted(density: DiffusionDensity | None, seed: int) -> DiffusionDensity:
    """The density to be fitted, with a seed if it has none of its own."""
    own = DiffusionDensity() if density is None else cast(DiffusionDensity, clone(density))
    if own.random_state is None:
        own.set_params(random_state=seed)
    return own


def divide(frame: pd.DataFrame, fraction: float, seed: int) -> tuple[Positions, Positions]:
    """Positions of the rows to calibrate on, each record once, and of those to fit to, in random order."""
    n_held = min(MOST_HELD, round(fraction * len(frame)))
    if fraction and len(frame) > 2:
        n_held = min(max(1, n_held), len(frame) - 2)
    elif fraction and len(frame) == 2:
        n_held = 0
        warnings.warn("two rows leave none to calibrate on: no p-values", stacklevel=3)
    records = copies(equal_values(frame))
    held, rest = hold_out(records, n_held, seed)
    return held[np.sort(np.unique(records[held], return_index=True)[1])], rest


def trim(
    density: DiffusionDensity, table: Any, train: Positions, share: float, seed: int
) -> tuple[Positions, Positions]:
    """The training rows without the share of them that is most outlying, and the latter."""
    independent = cast(DiffusionDensity, clone(density))  # for its schema and its marginals
    independent.set_params(denoiser="independent", n_evaluations=2, schedule="coordinate")
    rows = take(table, train)
    independent.fit(rows)
    generator = torch.Generator().manual_seed(seed)
    x, base = independent.rows(rows).x, independent.model_.marginals
    outlying = outlyingness(base, x, generator).cpu().numpy()
    n_kept = max(2, len(train) - round(share * len(train)))
    kept = np.sort(train[np.argsort(outlying, kind="stable")[:n_kept]])
    return kept, np.setdiff1d(train, kept)


def take(table: Any, which: Positions) -> Any:
    """Some rows of a frame or an array."""
    return table.iloc[which] if isinstance(table, pd.DataFrame) else table[which]


def first_threshold(
    scorer: Scorer, scores: Scores, seen: Rows, rate: float, share: float | None
) -> Threshold:
    """The threshold of a fit.

    Parameters
    ----------
    scorer : Scorer
    scores : ndarray, shape (n,)
        Of the calibration rows.
    seen : Rows
        Rows of the fit that count if there is a ``share`` or no calibration row.
    rate : float
        False-alarm rate.
    share : float, optional
        Share of anomalies among calibration rows and ``seen`` together, which are to raise an alarm.
    """
    if share is None and len(scores):
        # no alarm may come of rounding
        return thresholds.at_lowest_rate(lowered(scores, scorer.rounding), rate)
    both = np.concatenate([scores, scorer.score(seen)]) if len(seen) else scores
    offset = np.quantile(both, rate if share is None else share)
    if (both == offset).any():
        offset = lowered(np.asarray(offset), scorer.rounding)
    return thresholds.at_offset(scores, float(offset))
