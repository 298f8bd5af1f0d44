r"""The channel of writing errors (25): shares of wrong cells and of rightful exceptions, and flat values of both."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

# prior share of the cells that are wrong, in rows with an alarm and without
WRONG_CELLS = 0.01
LEAST_EXPECTED = 1e-6  # least share of wrong cells that may be expected
# EM runs N_ITERATIONS times, from a share SHARE of wrong cells that counts as much as SEEN cells
SEEN, SHARE, N_ITERATIONS = 50.0, 0.01, 100
# if errors explain a column by less than EVIDENCE nats better than none, probabilities are multiplied by UNPROVEN: none
# is above one half, but they keep their place among those of other columns (0.4 was chosen by the average precision of
# the tables that tests/benchmarks/cells.py calls unseen)
EVIDENCE, UNPROVEN = 4.0, 0.4


def error_share(p: Floats, flat: Floats, once: Floats) -> tuple[Floats, Floats]:
    """Probability (N,) of errors, of cells that count ``once`` (N,); weights of columns of ``p`` (N, E), and errors."""
    n = p.shape[1]
    weights = np.append(np.full(n, (1 - SHARE) / n), SHARE)
    every, prior = np.column_stack([p, flat]), SEEN * weights
    for _ in range(N_ITERATIONS):
        weights = weights * (every.T @ (once / (every @ weights))) + prior
        weights /= weights.sum()
    own = flat * weights[-1] / (every @ weights)
    log_right, mean = np.log1p(-np.minimum(own, 1 - 1e-12)), np.average(own, weights=once)
    gain = once.sum() * math.log1p(-mean) - once @ log_right
    return own if gain > EVIDENCE else UNPROVEN * own, weights


# Priors of the shares of errors, besides their mean, and of rightful exceptions, which half of the columns have, among
# the cells of a column: Beta distributions, on a grid. They were chosen on ten clean tables, generated exceptions and
# flights (`tests/benchmarks/cells.py`).
ERRORS, EXCEPTIONS, SHARES = 3.0, (0.5, 4.5), np.geomspace(1e-5, 0.999, 150)


def share_of_errors(n_deviating: float, n_cells: float, expected_share: float) -> float:
    r"""The share of errors among the cells that deviate from what the others of their rows make probable.

    The other ones are rightful exceptions: a share :math:`\pi` of errors and a share :math:`\epsilon` of exceptions
    deviate together, and how much of it is either is what their priors say.
    """
    errors, exceptions = (
        density / density.sum()
        for density in (
            SHARES * stats.beta.pdf(SHARES, ERRORS, ERRORS / expected_share - ERRORS),
            SHARES * stats.beta.pdf(SHARES, *EXCEPTIONS),
        )
    )
    both = np.minimum(SHARES[:, None] + np.append(0.0, SHARES), SHARES[-1])
    log_p = special.xlogy(n_deviating, both) + (n_cells - n_deviating) * np.log1p(-both)
    p = errors[:, None] * np.exp(log_p - log_p.max()) * np.append(1.0, exceptions)
    return float((p * SHARES[:, None] / both).sum() / p.sum())
