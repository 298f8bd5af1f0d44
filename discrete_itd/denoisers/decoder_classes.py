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
from discrete_itd.denoisers.gaussian import cholesky, outer
from discrete_itd.denoisers.marginal import lacking
from discrete_itd.denoisers.mixture import MixtureDenoiser
from discrete_itd.denoisers.mixture_fit import LEAST_GAIN, Sums, expected_sums

# continuous columns that may depend on one another in a class: the work of a step grows with their square
MOST_DEPENDENT = 32
PRIOR_ROWS = (1.0, 4.0, 16.0, 64.0)  # that each class keeps, among which held-out rows choose
ROUNDS, EXPECTED_ROUNDS = 16, 4
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
        Not worse on the held-out rows, but for what the classes of negligible weight were worth, which are left out.
    """
    start = clock()
    best, best_nats = model, held_out_nats(model, x_valid)
    needed = round_seconds(clock() - start, len(x), len(x_valid))
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
            kept = weighty(made[i], n_fixed)  # a round takes time in proportion to its classes
            best, model, best_nats = part(made[i], kept), part(model, kept), nats[i]
        if gain < LEAST_GAIN:
            break
        tried, needed = tried[i : i + 1], clock() - start
    return best


def with_dependent_numbers(
    model: MixtureDenoiser,
    x: Tensor,
    x_valid: Tensor,
    *,
    left: Callable[[], float] = lambda: math.inf,
) -> MixtureDenoiser:
    """A mixture of products whose continuous columns then depend on one another in every class: refined to rows.

    Not worse on the held-out rows, see :func:`refine`. As it is unless there are two to ``MOST_DEPENDENT`` of them.
    """
    if not model.has_reals or not 1 < model.means.shape[1] <= MOST_DEPENDENT:
        return model
    weights, probs = model.log_weights.exp(), model.log_probs.exp()
    own = {"mean": model.means, "chol": torch.diag_embed(model.var.sqrt())}
    start = MixtureDenoiser(model.codebook, weights, probs, fallback=model.fallback, **own)
    return refine(start, x, x_valid, left=left)


def round_seconds(evaluation: float, n: int, n_valid: int) -> float:
    """Seconds of the first round, which the others do not exceed, by those of one evaluation of the held-out rows."""
    return evaluation * (2 * n / n_valid + len(PRIOR_ROWS))  # a row takes twice as long as in it


def seconds_of_rounds(evaluation: float, n: int, n_valid: int) -> float:
    """Seconds of the rounds that are expected, likewise."""
    return evaluation + EXPECTED_ROUNDS * round_seconds(evaluation, n, n_valid)


def updated(model: MixtureDenoiser, sums: Sums, prior_rows: float, n_fixed: int) -> MixtureDenoiser:
    """The mixture that has the sums, and of each class a number of rows of the prior ``model``."""
    levels = model.codebook.levels
    # one row more, spread evenly, so that no class is lost
    weights = sums.mass + 1 / len(sums.mass)
    prior = model.log_probs.exp()
    seen = levels.per_level(levels.sum(sums.counts))
    kept_rows = prior_rows + lacking(seen)
    probs = (sums.counts + kept_rows * prior) / (seen + kept_rows)
    kept = len(weights) - n_fixed
    probs[kept:] = prior[kept:]
    if not model.has_reals:
        return MixtureDenoiser(model.codebook, weights, probs, fallback=model.fallback)
    kept_rows = prior_rows + lacking(sums.present)
    old_mean, n = model.means.double(), sums.present + kept_rows
    mean = (sums.first + kept_rows * old_mean) / n
    moved = old_mean - mean
    if model.dense is not None:
        kind, old = "chol", model.chol.double()
        square = sums.second + sums.present[:, :, None] * outer(mean, mean)
        square = square - outer(mean, sums.first) - outer(sums.first, mean)
        prior_square = kept_rows[:, :, None] * (old @ old.mT + outer(moved, moved))
        spread = cholesky((square + prior_square) / n[:, :, None])
    else:
        kind, old = "var", model.var.double()
        square = sums.second - 2 * mean * sums.first + mean.square() * sums.present
        spread = (square.clamp_min(0.0) + kept_rows * (old + moved.square())) / n
    mean[kept:], spread[kept:] = old_mean[kept:], old[kept:]
    own = {"mean": mean, kind: spread}
    return MixtureDenoiser(model.codebook, weights, probs, fallback=model.fallback, **own)


def weighty(model: MixtureDenoiser, n_fixed: int) -> Tensor:
    """Which classes have a weight that is not negligible, (Z,) of bool; the last ``n_fixed`` ones always are kept."""
    kept = model.log_weights >= math.log(LEAST_SHARE / model.n_components)
    kept[model.n_components - n_fixed :] = True
    return kept


def part(model: MixtureDenoiser, kept: Tensor) -> MixtureDenoiser:
    """The mixture of some of the classes, (Z,) of bool."""
    if bool(kept.all()):
        return model
    weights, probs = model.log_weights[kept].exp(), model.log_probs[kept].exp()
    own = {name: tensor[kept] for name, tensor in model.gaussians.items()}
    return MixtureDenoiser(model.codebook, weights, probs, fallback=model.fallback, **own)
