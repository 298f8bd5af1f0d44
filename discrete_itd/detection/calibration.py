"""The steps of a detector's fit: checks, division of the rows, trimming of anomalies, and the first threshold."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.detection import thresholds
from discrete_itd.detection.conformal import Scores, lowered
from discrete_itd.detection.kernel import outlyingness
from discrete_itd.detection.scoring import Scorer
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.splitting import copies, equal_values, hold_out
from discrete_itd.storage.persistent import resolve_device
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


class Division(NamedTuple):
    """What the rows of a table are used for.

    Attributes
    ----------
    held, rest : ndarray
        Positions of the rows to calibrate on, each record once, and of those to fit to, in random order.
    records : ndarray of int, shape (N,)
        A number for each row of the table, the same for copies of one record.
    """

    held: Positions
    rest: Positions
    records: np.ndarray


def divide(frame: pd.DataFrame, fraction: float, seed: int) -> Division:
    """Divide the rows of a table at random."""
    n_held = min(MOST_HELD, round(fraction * len(frame)))
    if fraction and len(frame) > 2:
        n_held = min(max(1, n_held), len(frame) - 2)
    elif fraction and len(frame) == 2:
        n_held = 0
        warnings.warn("two rows leave none to calibrate on: no p-values", stacklevel=3)
    records = copies(equal_values(frame))
    held, rest = hold_out(records, n_held, seed)
    held = held[np.sort(np.unique(records[held], return_index=True)[1])]
    return Division(held, rest, records)


def trim(
    density: DiffusionDensity, table: Any, train: Positions, share: float, seed: int
) -> tuple[Positions, Positions]:
    """The training rows without the share of them that is most outlying, and the latter."""
    rows = take(table, train)
    is_frame = isinstance(rows, pd.DataFrame)
    frame = rows if is_frame else pd.DataFrame(rows)
    encoder = TableEncoder.fit(
        frame,
        density.column_types,
        handle_unknown="smooth",
        missing=density.missing,
        from_array=not is_frame,
    )
    x = torch.from_numpy(encoder.transform(frame).x).to(resolve_device(density.device))
    book = encoder.codebook().to(x.device)
    base = MarginalDenoiser.fit(book, x, unseen_counts=encoder.unseen_counts)
    generator = torch.Generator().manual_seed(seed)
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
