r"""Predicted gain of longer training: a power law fitted to the held-out nats of a training run.

Many learning curves follow :math:`a + b\,s^{-c}` of the number of steps s over a wide range (Hestness et al. 2017,
arXiv:1712.00409, section 3). Here a is the limit of infinitely many steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# of the power law; beyond, curves cannot be distinguished within the range of a training run
EXPONENTS = np.geomspace(0.05, 4.0, 400)
FEWEST = 5  # validations: three parameters, and residuals
TRANSIENT = 0.1  # share of the steps at the start, left out if enough validations remain
FLAT = 2.0  # a curve has turned if it has risen by this many standard deviations of its scatter
N_BOOTSTRAP = 400


@dataclass(frozen=True)
class Extrapolation:
    """A power law fitted to a learning curve, and the gain that it predicts for ``factor`` times as many ``steps``.

    ``laws`` (1 + B, 3) holds a, b, c of the fitted curve and of B bootstrapped ones. ``gain`` is the decrease of the
    nats per row, never below 0, with the 95 % interval ``low`` to ``high``. ``has_turned`` says that the best
    validation was long before the last, so that the model overfits; ``gain`` is then 0.
    """

    laws: np.ndarray
    steps: int
    factor: float
    gain: float
    low: float
    high: float
    has_turned: bool

    def curves(self, steps: np.ndarray) -> np.ndarray:
        """Nats after each number of steps, by each law: shape (1 + B, S)."""
        a, b, c = self.laws.T[:, :, None]
        return a + b * np.asarray(steps, dtype=float) ** -c

    def curve(self, steps: np.ndarray) -> np.ndarray:
        """Nats after each number of steps by the fitted power law, same shape."""
        return self.curves(steps)[0]

    def band(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of the curve at steps of shape (S,): two arrays of that shape."""
        low, high = np.quantile(self.curves(steps)[1:], [0.025, 0.975], axis=0)
        return low, high


def extrapolate(
    history: pd.DataFrame, *, factor: float = 2.0, seed: int = 0
) -> Extrapolation | None:
    """Fit a power law to the held-out nats of a training run by least squares; None with fewer than five validations.

    ``history`` has columns step and valid_nats, like ``DiffusionDensity.history_``; rows with step 0 and rows that are
    not finite are left out. Longer training has ``factor`` times as many steps; a factor of at most 1 is a ValueError.

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
    drawn = fitted + scatter * random.choice([-1.0, 1.0], (N_BOOTSTRAP, n))
    begin = random.integers(0, max(1, min(n // 2, n - FEWEST) + 1), N_BOOTSTRAP)
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
