r"""Where the network of a causal denoiser starts: at least squares, for continuous columns.

A number that follows from others by a sum, like an instalment from amount, rate and months on a logarithmic scale, is
found in closed form at once, and by gradients only after many steps. So some components of each continuous column
start as a linear regression on the features of the columns before it, with the mixture of Gaussians of its residuals on
rows apart. Their share of the mixture, by expectation maximisation on these rows, is bounded: the other components
start as in the base, for numbers that repeat are no matter of regression.
"""

from __future__ import annotations

import torch
from torch import Tensor

from discrete_itd.channel.posterior import GaussianPosterior
from discrete_itd.denoisers.causal import CausalDenoiser
from discrete_itd.denoisers.features import SD
from discrete_itd.denoisers.marginal import gaussian_mixtures

MOST_ROWS, MOST_FEATURES = 8192, 4096
FEWEST_ROWS = 32  # apart, with the column known
APART = 4  # one row of so many measures the residuals
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of squared weights, rows, among which rows apart choose
FAR = 4.0  # eight standard deviations of a column: further out values have no say
LEAST_SHARE, MOST_SHARE, ROUNDS = 0.01, 0.95, 50


@torch.no_grad()
def start_from_regressions(denoiser: CausalDenoiser, x: Tensor) -> None:
    """Set the untrained network of ``denoiser`` to regressions fitted to rows ``x`` (N, C).

    Without continuous columns, added components or the map from features to answers, or with too many features or too
    few rows, nothing is changed.
    """
    features, network, reals = denoiser.features, denoiser.network, denoiser.codebook.reals
    n_features, skip = len(features.feature_column), network.skip
    if skip is None or not features.sizes[1] or not features.n_added or n_features > MOST_FEATURES:
        return
    x = x[:: max(1, -(-len(x) // MOST_ROWS))]
    apart = torch.arange(len(x), device=x.device) % APART == 0
    y = x[:, reals]
    known = y.abs() < FAR  # false where missing
    by_rank = network.feature_rank.argsort(stable=True)
    heard = features.describe_cells(x).double()[:, by_rank]
    heard = torch.cat([heard.new_ones(len(x), 1), heard], 1)  # (N, 1 + F), in the order of columns
    first = heard[~apart]
    gram = first.T @ first
    products = first.T @ torch.where(known, y, 0.0)[~apart]
    # the squares are of all rows, the products of those with the cell
    products *= len(first) / known[~apart].sum(0).clamp_min(1)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    # the features that a column hears are the first ones: a part of the factor is their factor
    tried = [torch.linalg.cholesky_ex(gram + penalty * eye) for penalty in PENALTIES]
    factors = [factor for factor, failed in tried if not failed]
    if not factors:  # rounding of huge features
        return
    answers = torch.nonzero(torch.isin(features.answer_column, reals)).flatten()
    answers = answers.unflatten(0, (len(reals), -1, 3))  # (R, K', 3)
    n_heard = 1 + (network.feature_rank < network.answer_rank[answers[:, :1, 0]]).sum(1)
    y, heard_apart, known = y[apart], heard[apart], known[apart]
    places, weights, errors = [], [], []
    for i, n in enumerate(n_heard.tolist()):
        if n == 1 or int(known[:, i].sum()) < FEWEST_ROWS:
            continue
        own = products[:n, i : i + 1]
        fits = torch.cat([torch.cholesky_solve(own, factor[:n, :n]) for factor in factors], 1)
        error = y[:, i, None] - heard_apart[:, :n] @ fits
        error = torch.where(known[:, i, None], error, torch.nan)
        best = int(error.abs().nanmean(0).argmin())
        places.append(i)
        weights.append(fits[:, best])
        errors.append(error[:, best])
    if not places:
        return
    error, middle = torch.stack(errors, 1), torch.stack([w[0] for w in weights])
    added = gaussian_mixtures(error, features.n_added)  # (3, R', n_added)
    of_added = GaussianPosterior(*(t[None] for t in added)).log_prob(error)
    y = torch.where(known, y, torch.nan)
    of_base = features.base_mixture().log_prob(y)[:, places]
    shares = share_of_second(of_base, of_added).clamp(LEAST_SHARE, MOST_SHARE)
    added[1] += middle[:, None]
    for k, (i, own) in enumerate(zip(places, weights, strict=True)):
        network.leave.bias[answers[i]] = features.regressed(i, shares[k], added[:, k])
        shifts = answers[i, -features.n_added :, 1, None]
        skip.weight[shifts, by_rank[: len(own) - 1]] = (own[1:] / SD).to(skip.weight)


def share_of_second(first: Tensor, second: Tensor) -> Tensor:
    """Weights (R,) of the second of two densities in the mixtures that fit rows best, by their logarithms (N, R)."""
    share = torch.full_like(first[0], 0.5)
    for _ in range(ROUNDS):
        share = torch.sigmoid(second - first + torch.logit(share, 1e-9)).nanmean(0)
    return share
