r"""Weights of the score's columns, from rows that were checked: confirmed anomalies and false alarms.

With the terms :math:`s_j` of (12), checked rows and rows without a label, which count as inliers, give the log-odds of
an anomaly,

.. math:: \log \frac{P(\mathrm{anomaly} \mid x)}{P(\mathrm{inlier} \mid x)} = b + \sum_j w_j s_j(x), \qquad
    \mathrm{score} = -\sum_j w_j s_j(x), \quad (19)

whose :math:`w_j \ge 0` and b are the mode of their posterior: a logistic likelihood, :math:`w_j \sim N(1, 1)`, and
:math:`b \sim N(b_0, 1)`, where :math:`b_0 + \sum_j s_j = 0` at the false-alarm rate among the rows without a label.
Without labels all weights are 1, the score (12). A confirmed anomaly raises the weights of the columns in which it is
more improbable than inliers are, a false alarm lowers those in which it is improbable: one more label never moves the
log-odds (19) of its own row the wrong way, since the objective is convex.

p-values stay valid as the rows without a label are a third of the calibration rows, drawn at random and no longer
calibrated on: the weights are a function of these and of checked rows, and the other calibration rows are scored by
them as new rows are, so eq. (7) of :mod:`discrete_itd.detection.thresholds` holds for inliers that are exchangeable
with these. It holds exactly if rows were chosen to be checked whatever the calibration rows: the n lowest scores of a
day, say. If they are those below the threshold, they depend on one or two of the calibration rows.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005, section 4.1: inductive conformal predictors.
Das, Wong, Dietterich, Fern, Emmott, "Incorporating expert feedback into active anomaly discovery", ICDM 2016: weights
of a detector's parts, by checked alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.utils import check_consistent_length, column_or_1d

from discrete_itd.encoders.rows import read_rows
from discrete_itd.encoders.streams import as_stream
from discrete_itd.models.training_tables import refuse_stream
from discrete_itd.storage.values import Like

# of the calibration rows, those that count as inliers without a label: one in so many, and at most; on the deciding
# tables of tests.benchmarks.labels a half is no better, and training rows are worse
ONE_IN, MOST_UNLABELLED = 3, 1000
PRIVATE = "y: a differentially private detector takes no labels, as its weights would depend on single rows"


@dataclass(frozen=True, eq=False)
class Labels:
    """Terms s of (12) of L checked rows, and of U rows without a label, with the weights (19) of the C columns."""

    nats: Annotated[np.ndarray, Like("float64", "L", "C")]
    is_anomaly: Annotated[np.ndarray, Like("bool", "L")]
    unlabelled: Annotated[np.ndarray, Like("float64", "U", "C")]
    weights: Annotated[np.ndarray, Like("float64", "C")]

    def __post_init__(self) -> None:
        if (self.weights < 0).any():
            raise ValueError(f"weights hold {self.weights.min()}")

    @classmethod
    def none(cls, unlabelled: np.ndarray) -> Labels:
        """No checked row, and weights of 1."""
        n_columns = unlabelled.shape[1]
        return cls(np.zeros((0, n_columns)), np.zeros(0, bool), unlabelled, np.ones(n_columns))

    def with_rows(self, nats: np.ndarray, is_anomaly: np.ndarray, rate: float) -> Labels:
        """These, and further rows (L', C), NaN where a cell is missing; ``rate`` is the false-alarm rate."""
        nats = np.concatenate([self.nats, np.nan_to_num(nats)])
        is_anomaly = np.concatenate([self.is_anomaly, is_anomaly])
        weights, _ = log_odds(nats, is_anomaly, self.unlabelled, rate)
        return Labels(nats, is_anomaly, self.unlabelled, weights)


def log_odds(
    nats: np.ndarray, is_anomaly: np.ndarray, unlabelled: np.ndarray, rate: float
) -> tuple[np.ndarray, float]:
    """The weights w (C,) and b of (19)."""
    s = np.concatenate([unlabelled, nats])
    y = np.concatenate([np.zeros(len(unlabelled)), is_anomaly])
    prior = np.append(np.ones(s.shape[1]), -np.quantile(unlabelled.sum(1), 1 - rate))

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the logarithm of the posterior, but for a constant, and its gradient."""
        odds, away = s @ v[:-1] + v[-1], v - prior
        residual = expit(odds) - y
        value = (np.logaddexp(0, odds) - y * odds).sum() + away @ away / 2
        return value, np.append(residual @ s, residual.sum()) + away

    bounds = [(0, None)] * s.shape[1] + [(None, None)]
    found = minimize(loss, prior, jac=True, bounds=bounds, options={"maxiter": 1000}).x
    return found[:-1], float(found[-1])


def divide(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of n calibration rows that count as inliers without a label, and of those still calibrated on."""
    if n < 2:
        raise ValueError(f"labels need at least two calibration rows, got {n}")
    n_unlabelled = min(MOST_UNLABELLED, max(1, n // ONE_IN))
    order = np.random.RandomState(seed).permutation(n)
    return np.sort(order[:n_unlabelled]), np.sort(order[n_unlabelled:])


# -- arguments ---------------------------------------------------------------------------------------


def checked_labels(y: Any) -> np.ndarray:
    """Labels 0 and 1 as bool, (N,); ValueError naming another value and its row."""
    values = np.asarray(column_or_1d(y))
    for i, value in enumerate(values.tolist()):
        if isinstance(value, str) or value not in (0, 1):
            raise ValueError(f"y must hold 0 and 1 (a confirmed anomaly), got {value!r} in row {i}")
    return values.astype(bool)


def without_anomalies(
    X: Any, y: Any, estimator: Any, by_row: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """The rows of a table with label 0, those with label 1 (None if there are none), and arguments for the first.

    ``by_row`` are arguments with one value for each row, or None.
    """
    if y is None:
        return X, None, by_row
    if as_stream(X) is not None:
        refuse_stream(y=y)
    frame, is_frame = read_rows(X, estimator)
    is_anomaly = checked_labels(y)
    check_consistent_length(frame, is_anomaly, *by_row.values())
    if not is_anomaly.any():
        return X, None, by_row
    if is_anomaly.all():
        raise ValueError("y is 1 in all rows: there are no inliers to fit to")
    own = {}
    for name, values in by_row.items():
        own[name] = (
            None
            if values is None
            else [v for v, odd in zip(values, is_anomaly, strict=True) if not odd]
        )
    inliers, anomalies = frame[~is_anomaly], frame[is_anomaly]
    if not is_frame:
        inliers, anomalies = inliers.to_numpy(), anomalies.to_numpy()
    return inliers, anomalies, own
