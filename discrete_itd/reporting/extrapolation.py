r"""What more training would buy: a power law through the held-out nats of a training.

Learning curves of many models follow, over a good range, :math:`a + b\,s^{-c}` of the steps s (Hestness et al. 2017,
arXiv:1712.00409, section 3). Here a is the floor that more steps of the same training would approach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# of the power law; beyond, curves look alike on a training's range
EXPONENTS = np.geomspace(0.05, 4.0, 400)
FEWEST = 5  # evaluations, for three numbers and a residual
TRANSIENT = 0.1  # share of the steps, the first, left out where enough are left
FLAT = 2.0  # standard errors of the wiggle within which a curve has not risen


@dataclass(frozen=True)
class Extrapolation:
    """A power law through a learning curve, and what it says about longer training.

    Parameters
    ----------
    floor : float
        a, the nats that more and more steps approach.
    scale, exponent : float
        b and c.
    steps : int
        Steps of the training.
    factor : float
        How many times as long a training is asked about.
    gain, low, high : float
        Nats per row by which ``factor`` times the steps would do better, with a 95 % interval; never below 0.
    has_turned : bool
        Whether the best evaluation was long before the last: held-out rows had begun to suffer, and ``gain`` is 0.
    laws : ndarray, shape (B, 3)
        a, b, c of the bootstrap's curves.
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
        """Nats after ``steps`` steps, by the fitted law: same shape."""
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
    """Fit a power law to the held-out nats of a training by least squares.

    All evaluations are of the same held-out rows and noise: the standard errors in the history are common to all of
    them and move the curve as a whole. What blurs its shape is the scatter around the law, and that is what is drawn
    anew (a wild bootstrap, Wu 1986), each time for evaluations from another beginning on, since no law says where the
    curve begins to follow one. The interval is that of the law, and the law is a guess: a longer training
    would also lower its learning rate later, which no curve of a shorter one shows.

    Parameters
    ----------
    history : DataFrame
        With columns step and valid_nats, as ``DiffusionDensity.history_`` has them. Rows of step 0 and rows that are
        not finite are left out.
    factor : float
        Ask about so many times the steps; more than 1.
    n_bootstrap : int
        Curves for the interval.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Extrapolation, or None if there are too few evaluations

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
    scatter = (nats - fitted) * np.sqrt(n / (n - 3))  # three numbers are fitted
    random = np.random.default_rng(seed)
    drawn = fitted + scatter * random.choice([-1.0, 1.0], (n_bootstrap, n))
    begin = random.integers(0, max(1, min(n // 2, n - FEWEST) + 1), n_bootstrap)
    laws = _fit(steps, drawn, (np.arange(n) >= begin[:, None]).astype(float))
    # at the bottom and later: the best was not among the last, and the rise since is no wiggle
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

    a and b are linear given c, so c is the only thing to search for: no starting point and no local minimum.

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
    residual = -2 * slope * covariance + slope**2 * variance  # beyond the variance of nats
    best = residual.argmin(1)
    rows = np.arange(len(nats))
    b = slope[rows, best]
    return np.column_stack([mean_v[:, 0] - b * mean_u[rows, best], b, EXPONENTS[best]])
