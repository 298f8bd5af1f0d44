"""Confidence intervals, areas under curves, and the predicted gain of longer training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import integrate, optimize, special, stats

LEVEL = 0.95  # of all intervals
N_RESAMPLES = 400  # of a bootstrap
# of power laws; beyond, curves cannot be distinguished within the range of a training run
EXPONENTS = np.geomspace(0.05, 4.0, 400)
FEWEST = 5  # validations: three parameters, and residuals
TRANSIENT = 0.1  # share of the steps at the start, left out if enough validations remain
FLAT = 2.0  # a curve has turned if it has risen by this many standard deviations of its scatter


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of values of shape (N,) and its interval by Student's t; the whole line if N is 1."""
    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * stats.sem(values) if n > 1 else np.inf
    return Interval(mean, mean - float(half), mean + float(half))


def share_interval(count: int, n: int) -> Interval:
    """The share of ``count`` in n and its interval by Clopper and Pearson: coverage is at least 95 % for every n."""
    low, high = stats.binomtest(count, n).proportion_ci(LEVEL)
    return Interval(count / n, float(low), float(high))


def auroc_interval(score: np.ndarray, is_positive: np.ndarray) -> Interval:
    r"""The area under the ROC curve of a score that is higher for positives, and its interval.

    The interval holds the areas from which the measured one is at most 1.96 standard errors away. It has a length also
    where all positives are above all others.

    References
    ----------
    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 2006, method 5.
    """
    m, n = int(is_positive.sum()), int((~is_positive).sum())
    u = stats.mannwhitneyu(score[is_positive], score[~is_positive]).statistic
    area = float(u / (m * n))
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))

    def beyond(theta: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (area - theta) ** 2 - z**2 * theta * (1 - theta) * spread / (m * n)

    # at 0 and 1 themselves the variance is 0
    low = optimize.brentq(beyond, 0.0, min(area, 1 - 1e-9)) if area > 0 else 0.0
    high = optimize.brentq(beyond, max(area, 1e-9), 1.0) if area < 1 else 1.0
    return Interval(area, float(cast(float, low)), float(cast(float, high)))


def p_value_band(level: np.ndarray, n: int, n_calibration: int) -> tuple[np.ndarray, np.ndarray]:
    """Range of the share of n inliers with a p-value up to each level (L,), in 95 % of tables: two arrays (L,).

    As p-values are ranks among ``n_calibration`` rows, the count is beta-binomial (Vovk 2012, arXiv:1209.2673,
    proposition 2a).
    """
    quantiles = 0.5 - LEVEL / 2, 0.5 + LEVEL / 2
    rank = np.floor(level * (n_calibration + 1) + 1e-9).astype(int)
    ranks, place = np.unique(np.clip(rank, 1, n_calibration), return_inverse=True)
    log_factorial = special.gammaln(np.arange(1, n + n_calibration + 2))
    counts = []
    for k in ranks:  # all parameters are integers, so a table does: scipy's quantiles take seconds
        ways, others = log_factorial[k - 1 : k + n], log_factorial[n_calibration - k :][: n + 1]
        log_p = ways + others[::-1] - log_factorial[: n + 1] - log_factorial[n::-1]
        below = np.exp(log_p - special.logsumexp(log_p)).cumsum()
        counts.append(np.searchsorted(below, quantiles).clip(max=n))
    count = np.array(counts).T[:, place]
    low, high = np.where(rank < 1, 0, np.where(rank > n_calibration, n, count)) / n
    return low, high


def half_error(curve: pd.DataFrame, name: str) -> np.ndarray:
    """Half the SNR times the squared error in column ``name`` of an ``mse_curve``: nats per unit of log SNR."""
    return 0.5 * np.exp(curve["logsnr"].to_numpy()) * curve[name].to_numpy()


def curve_areas(curve: pd.DataFrame) -> tuple[float, float]:
    """Areas in nats under :func:`half_error` of the model and of independent columns, equation (3)."""
    x, names = curve["logsnr"].to_numpy(), ("mse", "mse_independent")
    own, independent = (float(integrate.trapezoid(half_error(curve, name), x)) for name in names)
    return own, independent


# -- learning curves ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extrapolation:
    r"""A power law fitted to a learning curve, and the gain that it predicts for ``factor`` times as many ``steps``.

    Many learning curves follow :math:`a + b\,s^{-c}` of the number of steps s over a wide range (Hestness et al. 2017,
    arXiv:1712.00409, section 3). ``laws`` (1 + B, 3) holds a, b, c of the fitted curve and of B bootstrapped ones.
    ``gain`` is the decrease of the nats per row, never below 0, with the 95 % interval ``low`` to ``high``.
    ``has_turned`` says that the best validation was long before the last, so that the model overfits; ``gain`` is then
    0.
    """

    laws: np.ndarray
    steps: int
    factor: float
    gain: float
    low: float
    high: float
    has_turned: bool

    def curves(self, steps: np.ndarray) -> np.ndarray:
        """Nats after each number of steps (S,), by each law: shape (1 + B, S)."""
        a, b, c = self.laws.T[:, :, None]
        return a + b * np.asarray(steps, dtype=float) ** -c

    def curve(self, steps: np.ndarray) -> np.ndarray:
        """Nats after each number of steps by the fitted power law."""
        return self.curves(steps)[0]

    def band(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of the curve at steps of shape (S,): two arrays of that shape."""
        low, high = np.quantile(self.curves(steps)[1:], [0.025, 0.975], axis=0)
        return low, high


def extrapolate(
    history: pd.DataFrame, *, factor: float = 2.0, seed: int = 0
) -> Extrapolation | None:
    """Fit a power law to the held-out nats of a training run by least squares; None with fewer than five validations.

    ``history`` is like ``DiffusionDensity.history_``; rows with step 0 and rows that are not finite are left out.
    Longer training has ``factor`` times as many steps; a factor of at most 1 is a ValueError.

    All validations use the same held-out rows and noise, so their standard errors shift the curve as a whole and are
    not used. The interval comes from a wild bootstrap (Wu 1986) of the residuals, each time with another first
    validation, since it is unknown where the curve begins to follow the power law. It does not cover errors of the
    power law itself: longer training would also lower the learning rate later, which a shorter run cannot show.
    """
    if not factor > 1:
        raise ValueError(f"factor must be more than 1, got {factor!r}")
    steps, nats = history[["step", "valid_nats"]].to_numpy(dtype=float).T
    keep = (steps > 0) & np.isfinite(nats)
    settled = keep & (steps >= TRANSIENT * steps[keep].max(initial=0.0))
    keep = settled if settled.sum() >= FEWEST else keep
    steps, nats = steps[keep], nats[keep]
    n, end = len(steps), steps.max(initial=0.0)
    if n < FEWEST:
        return None
    law = _fit(steps, nats[None], np.ones((1, n)))
    fitted = law[0, 0] + law[0, 1] * steps ** -law[0, 2]
    scatter = (nats - fitted) * np.sqrt(n / (n - 3))  # three parameters are fitted
    random = np.random.default_rng(seed)
    drawn = fitted + scatter * random.choice([-1.0, 1.0], (N_RESAMPLES, n))
    begin = random.integers(0, max(1, min(n // 2, n - FEWEST) + 1), N_RESAMPLES)
    laws = np.append(law, _fit(steps, drawn, np.arange(n) >= begin[:, None]), axis=0)
    # the best is not in the last quarter, and the rise since exceeds the scatter
    noise = np.sqrt(np.mean(scatter**2))
    has_turned = bool(nats.argmin() < n - 1 - n // 4 and nats[-1] - nats.min() > FLAT * noise)
    _, b, c = laws.T
    gains = b * end**-c * (1 - factor**-c)
    low, high = np.quantile(gains, [0.025, 0.975])
    gain, low = (0.0, 0.0) if has_turned else (float(gains[0]), float(min(low, gains[0])))
    high = float(max(high, gains[0]))
    return Extrapolation(laws, int(end), float(factor), gain, low, high, has_turned)


def _fit(steps: np.ndarray, nats: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least squares a + b s^-c with b >= 0: shape (B, 3), of nats and weights of shape (B, S).

    Given c the fit is linear in a and b, so a grid search over c needs no starting point and has no local minimum.
    """
    u = steps[None] ** -EXPONENTS[:, None]  # (E, S)
    weights = weights / weights.sum(1, keepdims=True)
    mean_u, mean_v = weights @ u.T, (weights * nats).sum(1, keepdims=True)  # (B, E), (B, 1)
    covariance = (weights * (nats - mean_v)) @ u.T  # (B, E)
    variance = weights @ (u**2).T - mean_u**2
    slope = np.clip(covariance / np.maximum(variance, np.finfo(float).tiny), 0.0, None)
    best = (slope * (slope * variance - 2 * covariance)).argmin(1)  # of the squared residual
    rows = np.arange(len(nats))
    b = slope[rows, best]
    return np.column_stack([mean_v[:, 0] - b * mean_u[rows, best], b, EXPONENTS[best]])
