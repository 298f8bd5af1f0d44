r"""The distribution over a pixel's levels that has a given mean.

Among all such distributions, the one nearest in relative entropy to the posterior given the pixel's own noisy value is

.. math:: q_j(k) \propto \pi_{jk} \exp(\ell_{jk} + \eta_j e_k), \qquad \sum_k q_j(k) e_k = \mu_j,

an exponentially tilted one. For two levels it is the only one with this mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.images.pixels import Pixels

# Newton's method: steps, log-odds between neighbouring levels that bracket the solution, and the change to stop at
NEWTON_STEPS, REACH, CONVERGED = 24, 64.0, 1e-4


def tilted_posterior(
    pixels: Pixels, own: Posterior, mean: Tensor, shrink: Tensor
) -> CategoricalPosterior:
    """The posterior nearest to ``own`` whose means are predicted ones, shrunk towards those of ``own``.

    Parameters
    ----------
    pixels : Pixels
        With levels.
    own : Posterior
        Of B rows, given every pixel's own noisy value alone.
    mean : Tensor, shape (B, D)
        Predicted means; gradients flow through them.
    shrink : Tensor, shape (B, D)
        Weight of the predicted mean against that of ``own``, 0 to 1.

    Returns
    -------
    CategoricalPosterior
        Of B rows; columns other than pixels are as in ``own``.
    """
    levels_of, n = own.codebook.levels, pixels.n_pixels
    gap = (pixels.high - pixels.low) / ((pixels.n_levels or 2) - 1)
    wide = levels_of.spread(own.categorical.logits, -torch.inf)
    logits = wide[:, :n, : pixels.n_levels]
    levels = torch.linspace(pixels.low, pixels.high, logits.shape[2]).to(logits)
    own_mean = (logits.exp() * levels).sum(2)
    tiny = 1e-4 * gap
    target = (own_mean + shrink * (mean - own_mean)).clamp(pixels.low + tiny, pixels.high - tiny)
    eta = solve(logits, levels, target, gap)
    eta = eta + newton_step(logits, levels, target, gap, eta).clamp(-1 / gap, 1 / gap)  # gradient
    tilted = torch.log_softmax(logits + eta[:, :, None] * levels, 2)
    tilted = nn.functional.pad(tilted, (0, wide.shape[2] - logits.shape[2]))
    wide = torch.cat([tilted, wide[:, n:]], 1)
    return CategoricalPosterior(levels_of, levels_of.gather(wide), normalised=True)


def newton_step(logits: Tensor, levels: Tensor, target: Tensor, gap: float, eta: Tensor) -> Tensor:
    """Newton's step towards the tilt with the mean ``target``, from ``eta``: (B, D)."""
    p = torch.softmax(logits + eta[:, :, None] * levels, 2)
    mean = (p * levels).sum(2)
    var = (p * (levels - mean[:, :, None]) ** 2).sum(2)
    return (target - mean) / var.clamp_min(1e-6 * gap**2)


@torch.no_grad()
def solve(logits: Tensor, levels: Tensor, target: Tensor, gap: float) -> Tensor:
    """The tilt (B, D) with the mean ``target``, by Newton's method kept in a bracket by bisection."""
    # the start is exact if only the two levels next to the target have mass, as at low noise
    place = ((target - levels[0]) / gap).clamp(0, len(levels) - 1 - 1e-3)
    below = place.long()[:, :, None]
    odds = torch.logit(place - place.floor(), eps=1e-3)
    own_odds = (logits.gather(2, below + 1) - logits.gather(2, below))[:, :, 0]
    eta = (odds - own_odds) / gap
    low, high = eta - REACH / gap, eta + REACH / gap
    for _ in range(NEWTON_STEPS):
        move = newton_step(logits, levels, target, gap, eta)
        low, high = torch.where(move > 0, eta, low), torch.where(move < 0, eta, high)
        new, done = eta + move, move.abs() * gap < CONVERGED
        eta = torch.where(done | ((new > low) & (new < high)), new, (low + high) / 2)
        if bool(done.all()):
            break
    return eta
