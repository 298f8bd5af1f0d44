r"""The channel of writing errors (25): shares of wrong cells and of rightful exceptions, and flat values of both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

# prior share of the cells that are wrong, in rows with an alarm and without
WRONG_CELLS = 0.01
LEAST_EXPECTED = 1e-6  # least share of wrong cells that may be expected
# prior share of slips of the pen among the wrong cells of a column that can have them; the others are flat
SLIPS = 1 / 3
# factors by which a moved decimal point changes a number, which is on the lattice if it is NEAREST steps from it
POINTS, NEAREST = 10.0 ** np.array([-3, -2, -1, 1, 2, 3]), 1e-6
OFTEN_MOVED = np.array([1, 1, 4, 4, 1, 1]) / 12  # prior shares of these factors
# EM runs N_ITERATIONS times, from a share SHARE of wrong cells that counts as much as SEEN cells
SEEN, SHARE, N_ITERATIONS = 50.0, 0.01, 100
# if errors explain a column by less than EVIDENCE nats better than none, probabilities are multiplied by UNPROVEN: none
# is above one half, but they keep their place among those of other columns (0.4 was chosen by the average precision of
# the tables that tests/benchmarks/cells.py calls unseen)
EVIDENCE, UNPROVEN = 4.0, 0.4


def error_share(
    p: Floats, flat: Floats, once: Floats, n_prior: float = SEEN
) -> tuple[Floats, Floats]:
    """Probability (N,) of errors, of cells that count ``once`` (N,); weights of columns of ``p`` (N, E), and errors."""
    n = p.shape[1]
    weights = np.append(np.full(n, (1 - SHARE) / n), SHARE)
    every, prior = np.column_stack([p, flat]), n_prior * weights
    for _ in range(N_ITERATIONS):
        weights = weights * (every.T @ (once / (every @ weights))) + prior
        weights /= weights.sum()
    own = flat * weights[-1] / (every @ weights)
    log_right, mean = np.log1p(-np.minimum(own, 1 - 1e-12)), np.average(own, weights=once)
    gain = once.sum() * math.log1p(-mean) - once @ log_right
    return own if gain > EVIDENCE else UNPROVEN * own, weights


# Priors of the shares of errors, besides their mean, and of rightful exceptions, which half of the columns have, among
# the cells of a column: Beta distributions. They were chosen on ten clean tables, generated exceptions and flights
# (`tests/benchmarks/cells.py`). Exceptions of a part of a column beside those of the whole have the same distribution
# in a share of the parts, one of WITH_OWN.
ERRORS, EXCEPTIONS = 3.0, (0.5, 4.5)
WITH_OWN = np.array([0.0, 0.05, 0.15, 0.3, 0.5, 0.8])
RATES, OWN_RATES = np.geomspace(1e-5, 0.99, 80), np.geomspace(1e-4, 0.95, 40)  # grids
# Parts are tried from FEWEST_DEVIATING cells on. A column makes parts as probably as one in e^PARTS.
FEWEST_DEVIATING, PARTS = 5.0, 3.0
MOST_PARTS, MOST_TRIED = 1000, 2


def shares_of_errors(
    deviating: Floats, visible: Floats, parts: Sequence[Ints], expected_share: float
) -> Floats:
    r"""The share (N,) of errors among cells that deviate from what the others of their rows make probable: (25).

    The other ones are rightful exceptions. Errors have one share :math:`\pi` in all rows of a column; exceptions have a
    share of the whole column, and others of its parts. So a column that deviates in some parts only, and hardly in
    others, holds exceptions there, and what is common to all parts is divided by the priors of both shares.

    Parameters
    ----------
    deviating, visible : array of float, shape (N,)
        The probabilities that cells deviate, and that they would if they were wrong.
    parts : sequence of int arrays, shape (N,)
        Codes of other columns, whose values may be the parts; of these, that is taken which explains best where cells
        deviate, or none.
    expected_share : float
        The prior mean of :math:`\pi`.
    """
    n_deviating, n_cells = deviating.sum(), visible.sum()
    whole, log_evidence = _shares(np.array([[n_deviating], [n_cells]], dtype=float), expected_share)
    best = np.full(len(deviating), whole[0])
    if n_deviating < FEWEST_DEVIATING:
        return best
    gains = []
    for codes in parts:
        k, n = _counts(codes, deviating, visible)
        rate = n_deviating / n_cells
        gain = special.xlogy(k, k / np.maximum(n * rate, 1e-9)).sum()
        gain += special.xlogy(n - k, (n - k) / np.maximum(n * (1 - rate), 1e-9)).sum()
        gains.append(gain - (k > 0).sum() if 1 < len(k) <= MOST_PARTS else -math.inf)
    for j in np.argsort(gains)[::-1][:MOST_TRIED]:
        counts = _counts(parts[j], deviating, visible)
        of_parts, with_parts = _shares(counts, expected_share)
        with_parts -= PARTS + math.log(len(parts))
        if with_parts > log_evidence:
            best, log_evidence = of_parts[parts[j]], with_parts
    return best


def _counts(codes: Ints, *weights: Floats) -> Floats:
    """Sums (W, G) of weights (N,) over the rows of each code."""
    return np.stack([np.bincount(codes, weights=w).astype(float) for w in weights])


def _shares(counts: Floats, expected_share: float) -> tuple[Floats, float]:
    """The shares (G,) of errors among deviating cells of parts, (2, G) of these and of all, and the log-evidence."""
    pairs, of_part = np.unique(np.round(counts, 2), axis=1, return_inverse=True)
    n_alike = np.bincount(of_part.ravel())
    k, n = pairs[0], np.maximum(pairs[1], pairs[0])
    h = WITH_OWN if counts.shape[1] > 1 else WITH_OWN[:1]
    errors, exceptions, own = (
        density / density.sum()
        for density in (
            RATES * stats.beta.pdf(RATES, ERRORS, ERRORS / expected_share - ERRORS),
            RATES * stats.beta.pdf(RATES, *EXCEPTIONS),
            OWN_RATES * stats.beta.pdf(OWN_RATES, *EXCEPTIONS),
        )
    )
    # the prior of the common rate of errors and exceptions, and the share of errors in it
    rate = RATES[:, None] + np.append(0.0, RATES)
    prior = errors[:, None] * np.append(1.0, exceptions) / 2
    place = np.searchsorted(np.sqrt(RATES[1:] * RATES[:-1]), rate).ravel()
    common = np.bincount(place, prior.ravel(), len(RATES))
    of_errors = np.bincount(place, (prior * RATES[:, None] / rate).ravel(), len(RATES))
    of_errors /= np.maximum(common, 1e-300)

    def log_likelihood(rate: Floats) -> Floats:
        rate = np.minimum(rate, RATES[-1])[..., None]
        return special.xlogy(k, rate) + (n - k) * np.log1p(-rate)

    both = RATES[:, None] + OWN_RATES
    log_closed, log_open = log_likelihood(RATES), log_likelihood(both)  # (R, G), (R, E, G)
    top = np.maximum(log_closed, log_open.max(1))
    closed, each = np.exp(log_closed - top), np.exp(log_open - top[:, None]) * own[:, None]
    without, with_own = (1 - h)[:, None, None] * closed, h[:, None, None]
    likelihood = np.maximum(without + with_own * each.sum(1), 1e-300)  # (H, R, G)
    log_posterior = (np.log(likelihood) + top) @ n_alike + np.log(np.maximum(common, 1e-300))
    log_evidence = float(np.asarray(special.logsumexp(log_posterior))) - math.log(len(h))
    posterior = np.exp(log_posterior - log_posterior.max())
    is_common = (
        without + with_own * (each * (RATES[:, None] / both)[..., None]).sum(1)
    ) / likelihood
    shares = np.einsum("hr,r,hrg->g", posterior / posterior.sum(), of_errors, is_common)
    return shares[of_part.ravel()], log_evidence
