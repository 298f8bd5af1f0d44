r"""Split-conformal p-values of anomaly scores, and discoveries among a batch of rows.

Scores are higher for more typical rows. Given the scores :math:`S_1 \dots S_n` of inliers that took no part in the fit,
a new row with score s has the p-value

.. math:: p = \frac{1 + \#\{i : S_i \le s\}}{n + 1}. \qquad (7)

If the row is exchangeable with the calibration rows, :math:`P(p \le \alpha) \le \alpha` in finite samples, whatever the
model and the distribution, on average over calibration sets. Thresholds on p are in
:mod:`discrete_itd.detection.thresholds`.

Ties have one rule. Two scores are equal if they differ by no more than their rounding error, which ``rounding`` bounds
relative to 1 + |score|. Calibration scores that are equal to that of a row count as at least as extreme, so the p-value
is larger, never smaller; and an alarm is a score strictly below the threshold, a calibration score less its rounding
error (:func:`lowered`), so rows that are equal to it raise none. Where few rows are possible, many share a score: the
false-alarm rate is then below the one that was asked for, never above.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005: eq. (7) and its validity.
Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
arXiv:2104.08279: Benjamini-Hochberg on these p-values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from discrete_itd.validation import check_share

Scores = NDArray[np.float64]


def p_values(
    calibration: Scores, scores: Scores, *, two_sided: bool = False, rounding: float = 0.0
) -> Scores:
    """Conformal p-values (N,) of rows by their ``scores`` (N,), eq. (7), between 1 / (n + 1) and 1.

    ``calibration`` (n,) are scores of inliers that took no part in the fit, and ``rounding`` bounds the relative
    rounding error of scores (see the module). With ``two_sided`` a score may also be too high: the p-value is twice the
    smaller of those of both sides, at most 1, which is valid for each row by the union bound.

    Examples
    --------
    >>> p_values(np.arange(99.0), np.array([-1.0, 4.5, 200.0]))
    array([0.01, 0.06, 1.  ])
    >>> p_values(np.arange(99.0), np.array([-1.0, 49.0, 200.0]), two_sided=True)
    array([0.02, 1.  , 0.02])
    """
    low = _tail(calibration, scores, rounding)
    if not two_sided:
        return low
    return np.minimum(1.0, 2 * np.minimum(low, _tail(-calibration, -scores, rounding)))


def calibration_scores(detector: Any) -> Scores:
    """Scores of the calibration rows of a fitted detector; ValueError if there are none."""
    check_is_fitted(detector)
    if not len(detector.calibration_scores_):
        raise ValueError("there are no calibration rows: fit with calibration_fraction above 0")
    return detector.calibration_scores_


def lowered(calibration: Scores, rounding: float) -> Scores:
    """Calibration scores less their rounding error: a score below these is below the exact ones."""
    return calibration - np.where(np.isfinite(calibration), rounding * (1 + np.abs(calibration)), 0)


def _tail(calibration: Scores, scores: Scores, rounding: float) -> Scores:
    """Eq. (7), for low scores."""
    ordered, n = np.sort(lowered(calibration, rounding)), len(calibration)
    return (1 + np.searchsorted(ordered, scores, side="right")) / (n + 1)


def discoveries(p: Scores, fdr: float) -> NDArray[np.bool_]:
    """Rows (N,) of a batch to call anomalies, among which at most a share ``fdr`` is expected to be inliers.

    The procedure of Benjamini and Hochberg on the p-values ``p`` (N,) of the batch. One-sided conformal p-values share
    their calibration set, which makes them positively dependent in the way under which the procedure still controls the
    rate, if the inliers of the batch and the calibration rows are independent and identically distributed (Bates et al.
    2023, theorem 2; ties only enlarge p-values). For two-sided p-values see :func:`two_sided_discoveries`.
    """
    return p <= discovery_level(*np.unique(p, return_counts=True), fdr)


def discovery_level(p: Scores, counts: NDArray[np.integer], fdr: float) -> float:
    """The p-value up to which rows of a batch are :func:`discoveries`, minus infinity if none are.

    ``p`` (K,) are distinct p-values, increasing, and ``counts`` the number of rows with each.
    """
    fdr = check_share("fdr", fdr)
    found = np.flatnonzero(p * (counts.sum() / counts.cumsum()) <= fdr)
    return float(p[found[-1]]) if len(found) else -np.inf


def two_sided_discoveries(low: Scores, high: Scores, fdr: float) -> NDArray[np.bool_]:
    r"""Rows (N,) of a batch whose scores are too low or too high, of which at most ``fdr`` are expected to be inliers.

    The union of the :func:`discoveries` by the one-sided p-values ``low`` and ``high``, each at ``fdr / 2``: the
    theorem cited there applies to these; for two-sided p-values it is not known to hold. The share of false discoveries
    in the union is at most the sum of both, :math:`(V_1 + V_2)/|R_1 \cup R_2| \le V_1/|R_1| + V_2/|R_2|`.
    """
    fdr = check_share("fdr", fdr)
    return discoveries(low, fdr / 2) | discoveries(high, fdr / 2)
