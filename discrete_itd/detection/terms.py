"""The arithmetic of the score (12) of :mod:`discrete_itd.detection.score`, without torch."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROUNDINGS = 1 << 12  # bound on the number of consecutive roundings behind one score
DECIMALS = 4  # of compared nats: further ones may differ between equal rows of two tables
STEP = 2.0**-32  # nats are multiples of it: up to a million, their sums are exact, in any order


def terms(nats: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """The terms s of (12), (N, C'), of nats of internal columns, whose least and q are ``quantiles`` (2, C')."""
    least, q = quantiles
    s = softplus(np.maximum(nats, least) - q) - softplus(least - q)  # (12)
    return np.rint(s / STEP) * STEP


def softplus(z: np.ndarray) -> np.ndarray:
    """The logarithm of 1 + exp z."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def row_scores(nats: pd.DataFrame | np.ndarray) -> np.ndarray:
    """The scores (N,) of rows whose terms s of (12) are ``nats`` (N, C); NaN terms are ignored."""
    return 0.0 - np.nansum(np.asarray(nats, dtype=float), 1)


def rounding_of(eps: float) -> float:
    """Bound on the rounding error of a score, relative to 1 + |score|, of a floating type with the spacing eps at 1.

    Denoiser calls of constant shape make scores of equal rows equal to the last bit where this is tested, but no
    library of matrix products guarantees it. The relative error of n roundings is at most n times the unit roundoff
    of the floating type (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1).
    """
    return ROUNDINGS * eps / 2
