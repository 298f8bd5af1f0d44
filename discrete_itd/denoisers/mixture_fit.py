"""Expectation maximisation of mixtures of products, of large tables by parts.

References
----------
Dempster, Laird, Rubin, JRSS B 39, 1977; Cappé & Moulines, "On-line expectation-maximization", JRSS B 71, 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from discrete_itd.denoisers.base import held_out_nats
from discrete_itd.denoisers.counts import indicators
from discrete_itd.denoisers.marginal import FINEST_SD, PRIOR_ROWS, MarginalDenoiser, lacking

if TYPE_CHECKING:
    from discrete_itd.denoisers.mixture import MixtureDenoiser

CELLS = 1 << 20  # rows times classes, or levels, of one batch: more do not fit in a cache
EM_ROWS = 1 << 16  # rows of one round: with a larger table, each round draws a part of it
# a class starts as this share of one row of the table, the remainder being the marginals
START_SHARE = 0.3
PATIENCE = 3  # evaluations in a row without improvement before a fit ends
LOOK_ROUNDS = 4  # rounds between two evaluations on held-out rows
LEAST_GAIN = 1e-3  # nats per row that count as an improvement


class Sums(NamedTuple):
    """What rows are expected to add up to in each class.

    Attributes
    ----------
    mass : Tensor, shape (Z,)
        Rows.
    counts : Tensor, shape (Z, T)
        Cells of every level.
    first, second, present : Tensor of float64, shape (Z, R)
        Values of the continuous columns, their squares, and the number of cells that are not missing. Where these
        columns depend on one another given the class, expected values stand for missing cells: ``second`` holds their
        products, (Z, R, R), and ``present`` the rows, (Z, 1).
    """

    mass: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor
    present: Tensor


def expectation_maximisation(
    made: Callable[[Tensor, Tensor, Tensor, Tensor], MixtureDenoiser],
    marginals: MarginalDenoiser,
    x: Tensor,
    x_valid: Tensor | None,
    n_components: int,
    generator: torch.Generator,
    pseudo_count: float,
    n_rounds: int,
    draw: Callable[[], Tensor] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> MixtureDenoiser:
    """The fit of :meth:`discrete_itd.denoisers.MixtureDenoiser.fit`, where the arguments are described.

    ``made`` makes a mixture of weights, probabilities, means and variances.
    """
    check_fit(x, n_components, pseudo_count)
    book = marginals.codebook
    prior = marginals.log_probs.exp()
    pick = torch.randint(len(x), (n_components,), generator=generator, device=x.device)
    ones = indicators(book, x[pick])
    there = book.levels.per_level(book.levels.sum(ones))
    probs = torch.where(there > 0, (1 - START_SHARE) * prior + START_SHARE * ones, prior)
    weights = torch.full((n_components,), 1 / n_components, device=x.device).to(probs)
    cells = x[:, book.reals].double()
    middle = cells.nanmean(0).nan_to_num(0.0)
    total = (cells - middle).square().nanmean(0).nan_to_num(0.25).clamp_min(FINEST_SD**2)
    mean = torch.where(cells[pick].isnan(), middle, cells[pick])
    prior_var = total / min(n_components, 16)
    var = total.expand_as(mean) / 4

    def some() -> Tensor:
        return x[torch.randint(len(x), (EM_ROWS,), generator=generator, device=x.device)]

    if draw is None and len(x) > EM_ROWS:
        draw = some
    model = best = made(weights, probs, mean, var)
    best_nats, stale = math.inf, 0
    sums: Sums | None = None
    for i in range(n_rounds):
        if x_valid is not None and i and i % LOOK_ROUNDS == 0:
            nats = held_out_nats(model, x_valid)
            stale = 0 if nats < best_nats - LEAST_GAIN else stale + 1
            if nats < best_nats:
                best, best_nats = model, nats
            if stale >= PATIENCE:
                break
        if i and is_over():
            break
        new = expected_sums(model, x if draw is None else draw())
        if draw is not None and sums is not None:
            rate = (i + 1.0) ** -0.7
            new = Sums(*((1 - rate) * old + rate * s for old, s in zip(sums, new, strict=True)))
        sums = new
        mass, counts, first, second, present = sums
        weights = mass + 0.5
        observed = book.levels.per_level(book.levels.sum(counts))
        few = pseudo_count + lacking(observed)
        probs = (counts + few * prior) / (observed + few)
        few = lacking(present)
        mean = (first + (0.5 + few) * middle) / (present + 0.5 + few)
        square = second - 2 * mean * first + mean.square() * present
        var = (square + (PRIOR_ROWS + few) * prior_var) / (present + PRIOR_ROWS + few)
        var = var.clamp_min(FINEST_SD**2)
        model = made(weights, probs, mean, var)
    if x_valid is None or held_out_nats(model, x_valid) < best_nats:
        return model
    return best


def expected_sums(model: MixtureDenoiser, x: Tensor) -> Sums:
    """The sums over rows ``x`` (N, C), each divided among the classes by their posterior."""
    book, like, z = model.codebook, model.log_probs, model.n_components
    sums = like.new_zeros(z), torch.zeros_like(like)
    reals: tuple[Tensor, ...] = ()
    for rows in x.split(max(1, CELLS // max(z, book.levels.n_points))):
        r = torch.softmax(model.log_joint(rows), 1)  # (B, Z)
        sums[0].add_(r.sum(0))
        if book.levels.n_points:
            sums[1].addmm_(r.T, indicators(book, rows))
        new = model.moments(rows, r)
        reals = tuple(map(torch.add, reals, new)) if reals else new
    return Sums(*sums, *reals)


def powers(cells: Tensor) -> Tensor:
    """Squares, values and presence of continuous cells (B, R), NaN where missing: (B, 3 R), zeros there.

    In double: variances, and squared distances from a class, are differences of large sums of them.
    """
    there, cells = (~cells.isnan()).double(), cells.double().nan_to_num(0.0)
    return torch.cat([cells.square(), cells, there], 1)


def quadratics(mean: Tensor, var: Tensor) -> Tensor:
    """What :func:`powers` are multiplied by, float64 (3 R, Z), for the log-densities of Gaussians (Z, R), added up."""
    mean, var = mean.double(), var.double()
    constant = mean.square() / var + (2 * math.pi * var).log()
    return torch.cat([-0.5 / var, mean / var, -0.5 * constant], 1).T


def check_fit(x: Tensor, n_components: int, pseudo_count: float) -> None:
    """Refuse to fit to no rows, with no classes or no pseudo-counts."""
    if not len(x):
        raise ValueError("a mixture is fitted to at least one row")
    if n_components < 1 or not pseudo_count > 0:
        raise ValueError(
            f"n_components and pseudo_count must be positive, got {n_components}, {pseudo_count}"
        )
