r"""What longer training would gain: a power law fitted to the held-out nats of a training run.

Many learning curves follow :math:`a + b\,s^{-c}` of the number of steps s over a wide range (Hestness et al. 2017,
arXiv:1712.00409, section 3). Here a is the limit of infinitely many steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# of the power law; beyond, curves cannot be distinguished within the range of a training run
EXPONENTS = np.geomspace(0.05, 4.0, 400)
FEWEST = 5  # validations, for three parameters and a residual
TRANSIENT = 0.1  # share of the steps at the start, left out if enough validations remain
FLAT = 2.0  # standard deviations of the scatter by which a curve must rise to have turned


@dataclass(frozen=True)
class Extrapolation:
    """A power law fitted to a learning curve, and the gain of longer training that it predicts.

    Parameters
    ----------
    floor : float
        a, the limit of the nats.
    scale, exponent : float
        b and c.
    steps : int
        Steps of the training run.
    factor : float
        The longer training that is asked about has ``factor`` times as many steps.
    gain, low, high : float
        Decrease of the nats per row by longer training, with a 95 % interval; never below 0.
    has_turned : bool
        Whether the best validation was long before the last, so that the model overfits; ``gain`` is then 0.
    laws : ndarray, shape (B, 3)
        a, b, c of the bootstrapped curves.
    """

    floor: float
    scale: float
    exponent: float
    steps: int
    factor: float
    gain: float
    low: float
    high: float
    has_turned: bool
    laws: np.ndarray

    def curve(self, steps: np.ndarray) -> np.ndarray:
        """Nats after each number of steps by the fitted power law, same shape."""
        return self.floor + self.scale * np.asarray(steps, dtype=float) ** -self.exponent

    def band(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of the curve at steps of shape (S,): two arrays of that shape."""
        a, b, c = self.laws.T[:, :, None]
        low, high = np.quantile(
            a + b * np.asarray(steps, dtype=float) ** -c, [0.025, 0.975], axis=0
        )
        return low, high


def extrapolate(
    history: pd.DataFrame, *, factor: float = 2.0, n_bootstrap: int = 400, seed: int = 0
) -> Extrapolation | None:
    """Fit a power law to the held-out nats of a training run by least squares.

    All validations use the same held-out rows and noise, so their standard errors shift the curve as a whole and are
    not used. The interval comes from a wild bootstrap (Wu 1986) of the residuals, each time with another first
    validation, since it is unknown where the curve begins to follow the power law. It does not cover errors of the
    power law itself: longer training would also lower the learning rate later, which a shorter run cannot show.

    Parameters
    ----------
    history : DataFrame
        With columns step and valid_nats, like ``DiffusionDensity.history_``. Rows with step 0 and rows that are
        not finite are left out.
    factor : float
        Longer training has ``factor`` times as many steps; more than 1.
    n_bootstrap : int
        Number of bootstrapped curves.
    seed : int
        Random seed of the bootstrap.

    Returns
    -------
    Extrapolation, or None if there are fewer than five validations

    Raises
    ------
    ValueError
        If ``factor`` is not more than 1.

    Examples
    --------
    >>> steps = np.arange(100, 3001, 100)
    >>> law = extrapolate(pd.DataFrame({"step": steps, "valid_nats": 8 + 40 * steps**-0.5}))
    >>> round(law.gain, 2), round(40 * 3000**-0.5 - 40 * 6000**-0.5, 2)
    (0.21, 0.21)
    """
    if not factor > 1:
        raise ValueError(f"factor must be more than 1, got {factor!r}")
    steps, nats = (history[name].to_numpy(dtype=float) for name in ("step", "valid_nats"))
    keep = (steps > 0) & np.isfinite(nats)
    steps, nats = steps[keep], nats[keep]
    settled = steps >= TRANSIENT * steps.max(initial=0.0)
    if settled.sum() >= FEWEST:
        steps, nats = steps[settled], nats[settled]
    n = len(steps)
    if n < FEWEST:
        return None
    law = _fit(steps, nats[None], np.ones((1, n)))[0]
    fitted = law[0] + law[1] * steps ** -law[2]
    scatter = (nats - fitted) * np.sqrt(n / (n - 3))  # three parameters are fitted
    random = np.random.default_rng(seed)
    drawn = fitted + scatter * random.choice([-1.0, 1.0], (n_bootstrap, n))
    begin = random.integers(0, max(1, min(n // 2, n - FEWEST) + 1), n_bootstrap)
    laws = _fit(steps, drawn, (np.arange(n) >= begin[:, None]).astype(float))
    # the best is not in the last quarter, and the rise since exceeds the scatter
    noise = np.sqrt(np.mean(scatter**2))
    has_turned = bool(nats.argmin() < n - 1 - n // 4 and nats[-1] - nats.min() > FLAT * noise)
    end = steps[-1]
    gains = np.append(law[None], laws, axis=0)
    gains = gains[:, 1] * end ** -gains[:, 2] * (1 - factor ** -gains[:, 2])
    low, high = np.quantile(gains, [0.025, 0.975])
    gain = gains[0]
    return Extrapolation(
        floor=float(law[0]),
        scale=float(law[1]),
        exponent=float(law[2]),
        steps=int(end),
        factor=float(factor),
        gain=0.0 if has_turned else float(gain),
        low=0.0 if has_turned else float(min(low, gain)),
        high=float(max(high, gain)),
        has_turned=has_turned,
        laws=laws,
    )


def _fit(steps: np.ndarray, nats: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least squares a + b s^-c with b >= 0.

    Given c the fit is linear in a and b, so c is found by a grid search, without starting point or local minimum.

    Parameters
    ----------
    steps : ndarray, shape (S,)
    nats, weights : ndarray, shape (B, S)

    Returns
    -------
    ndarray, shape (B, 3)
    """
    u = steps[None] ** -EXPONENTS[:, None]  # (E, S)
    total = weights.sum(1, keepdims=True)  # (B, 1)
    mean_u = weights @ u.T / total  # (B, E)
    mean_v = (weights * nats).sum(1, keepdims=True) / total  # (B, 1)
    covariance = (weights * (nats - mean_v)) @ u.T / total  # (B, E)
    variance = weights @ (u**2).T / total - mean_u**2
    slope = np.clip(covariance / np.maximum(variance, np.finfo(float).tiny), 0.0, None)
    residual = (
        -2 * slope * covariance + slope**2 * variance
    )  # without the variance of nats, a constant
    best = residual.argmin(1)
    rows = np.arange(len(nats))
    b = slope[rows, best]
    return np.column_stack([mean_v[:, 0] - b * mean_u[rows, best], b, EXPONENTS[best]])
