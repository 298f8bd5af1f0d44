"""Classes of a mixture of products, refined by expectation maximisation with the mixture itself as prior.

A mixture with more classes than rows cannot be fitted class by class. Here every class keeps a number of rows of its
own former distribution, as a Dirichlet prior does: rows pull those classes a little that are near them. Held-out rows
choose the number of prior rows and end the rounds.

References
----------
Dempster, Laird & Rubin, JRSS B 39, 1977, section 3 for the prior.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.denoisers.base import held_out_nats
from discrete_itd.denoisers.mixture import MixtureDenoiser
from discrete_itd.denoisers.mixture_fit import LEAST_GAIN, Sums, expected_sums

PRIOR_ROWS = (1.0, 4.0, 16.0, 64.0)  # that each class keeps, among which held-out rows choose
ROUNDS = 16
LEAST_SHARE = 1e-2  # classes with less than this share of an equal weight are left out


@torch.no_grad()
def refine(
    model: MixtureDenoiser,
    x: Tensor,
    x_valid: Tensor,
    *,
    n_fixed: int = 0,
    left: Callable[[], float] = lambda: math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> MixtureDenoiser:
    """A mixture with the same classes, moved towards the rows where held-out rows agree.

    Parameters
    ----------
    model : MixtureDenoiser
    x, x_valid : Tensor of float64, shapes (N, C) and (N', C)
        Rows and held-out rows; NaN where a cell is missing.
    n_fixed : int
        Classes, the last ones, of which nothing but the weight changes.
    left, clock : callable
        Seconds that are left, and a clock: no round is begun that would likely take longer.

    Returns
    -------
    MixtureDenoiser
        Not worse on the held-out rows. Classes of negligible weight are kept: see :func:`pruned`.
    """
    start = clock()
    best, best_nats = model, held_out_nats(model, x_valid)
    # a round takes about twice as long as the evaluation of its rows
    needed = (clock() - start) * (2 * len(x) / len(x_valid) + len(PRIOR_ROWS))
    tried = PRIOR_ROWS
    for _ in range(ROUNDS):
        start = clock()
        if needed > left():
            break
        sums = expected_sums(best, x)
        made = [updated(model, sums, rows, n_fixed) for rows in tried]
        nats = [held_out_nats(m, x_valid) for m in made]
        gain, i = best_nats - min(nats), nats.index(min(nats))
        if gain > 0:
            best, best_nats = made[i], nats[i]
        if gain < LEAST_GAIN:
            break
        tried, needed = tried[i : i + 1], clock() - start
    return best


def updated(model: MixtureDenoiser, sums: Sums, prior_rows: float, n_fixed: int) -> MixtureDenoiser:
    """The mixture that has the sums, and of each class a number of rows of the prior ``model``."""
    levels = model.codebook.levels
    # one row more, spread evenly, so that no class is lost
    weights = sums.mass + 1 / len(sums.mass)
    prior = model.log_probs.exp()
    seen = levels.per_level(levels.sum(sums.counts))
    probs = (sums.counts + prior_rows * prior) / (seen + prior_rows)
    kept = len(weights) - n_fixed
    probs[kept:] = prior[kept:]
    if not model.has_reals:
        return MixtureDenoiser(model.codebook, weights, probs, fallback=model.fallback)
    old_mean, old_var = model.means.double(), model.var.double()
    n = sums.present + prior_rows
    mean = (sums.first + prior_rows * old_mean) / n
    square = sums.second - 2 * mean * sums.first + mean.square() * sums.present
    var = (square.clamp_min(0.0) + prior_rows * (old_var + (old_mean - mean).square())) / n
    mean[kept:], var[kept:] = old_mean[kept:], old_var[kept:]
    return MixtureDenoiser(model.codebook, weights, probs, mean, var, model.fallback)


def pruned(model: MixtureDenoiser, *, n_fixed: int = 0) -> MixtureDenoiser:
    """The mixture without classes of negligible weight; the last ``n_fixed`` ones are kept whatever their weight."""
    weights = model.log_weights.exp()
    kept = weights >= LEAST_SHARE / len(weights)
    kept[len(kept) - n_fixed :] = True
    gaussians = (model.means[kept], model.var[kept]) if model.has_reals else (None, None)
    probs = model.log_probs[kept].exp()
    return MixtureDenoiser(model.codebook, weights[kept], probs, *gaussians, model.fallback)
