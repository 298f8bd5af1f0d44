r"""Entropy and mutual information of columns under a fitted model: means over rows, with standard errors.

Entropies are sums of log-probabilities of some columns of the rows, all others unknown,

.. math:: H(A | C) = \mathrm E[\log P(c) - \log P(a, c)], \qquad
          I(A; B | C) = \mathrm E[\log P(a, b, c) - \log P(a, c) - \log P(b, c) + \log P(c)],

in closed form by an exact model, the scorer or its companion; for a network along paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd.denoisers import Denoiser, ForestDenoiser, RowMixtureDenoiser
from discrete_itd.encoders.rows import unique_rows
from discrete_itd.models.model import Model

PAIRED_FLOATS = 1 << 22  # most log-probabilities, of cells in components, in memory at once
SETS_ROWS = 1 << 12  # rows of which a model without components is asked at once


def log_prob_of(
    model: Model, x: Tensor, columns: Tensor, given: Tensor, n_evaluations: int
) -> np.ndarray:
    """Log-probability (N,) of ``columns`` (C',) of rows ``x`` (N, C') given the ``given`` ones, the rest unknown."""
    known = given if bool(given.any()) else None
    rows, inverse = unique_rows(x.masked_fill(~(columns | given), math.nan))
    estimate = model.of_any_columns.log_prob(rows, n_evaluations, given=known)
    return estimate.log_prob.cpu().numpy()[inverse]


@torch.no_grad()
def pairwise_information(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mutual information of every two columns of the table, and standard errors: (C, C) each, the diagonal NaN.

    The exact model, the scorer or its companion, is used. A network predicts each column given the other one, and the
    mean of both directions counts. Means are over the rows that have both columns, NaN if there are none.
    """
    denoiser = model.anywhere
    owner = torch.from_numpy(model.encoder.owner).to(x.device)
    nats = _log_pairs(denoiser, x, owner, model.posteriors_at_once(denoiser))
    alone = nats.diagonal(dim1=1, dim2=2)
    nats = nats - alone[:, :, None] - alone[:, None]
    nats.diagonal(dim1=1, dim2=2).fill_(math.nan)
    known = nats.new_zeros(nats.shape[:2]).index_add_(1, owner, (~x.isnan()).to(nats)) > 0
    nats = nats.where(known[:, :, None] & known[:, None], math.nan)
    n, mean = (~nats.isnan()).sum(0), nats.nanmean(0)
    return mean, ((nats - mean).square().nansum(0) / (n - 1) / n).sqrt()


@torch.no_grad()
def log_prob_of_sets(model: Model, x: Tensor, sets: Sequence[frozenset[int]]) -> Tensor:
    """Log-probabilities (N, n) of the cells that rows ``x`` (N, C') have in each of n sets of the table's columns.

    The exact model, the scorer or its companion, is used; its components are computed once for all sets.
    """
    owner = torch.from_numpy(model.encoder.owner).tolist()
    masks = torch.tensor([[j in columns for j in owner] for columns in sets], device=x.device)
    return _log_sets(model.anywhere, x, masks)


def _log_sets(denoiser: Denoiser, x: Tensor, masks: Tensor) -> Tensor:
    """Log-probabilities (N, n) of the cells of the internal columns of each mask (n, C')."""
    if isinstance(denoiser, RowMixtureDenoiser):
        weights = denoiser.log_weights.double().tolist()
        each = zip(weights, denoiser.members, strict=True)
        return torch.stack([w + _log_sets(cast(Denoiser, m), x, masks) for w, m in each]).logsumexp(
            0
        )
    found = denoiser.components(x[:1])
    parts = []
    if found is not None:
        for rows in x.split(max(1, PAIRED_FLOATS // found[1].numel())):
            weights, cells = cast(tuple[Tensor, Tensor], denoiser.components(rows))
            each = [(weights + cells[:, mask].sum(1)).logsumexp(1) for mask in masks]
            parts.append(torch.stack(each, 1))
        return torch.cat(parts)
    for mask in masks:
        rows, inverse = unique_rows(x.masked_fill(~mask, math.nan))
        log_prob = torch.cat([denoiser.log_prob(part) for part in rows.split(SETS_ROWS)])
        parts.append(log_prob[torch.from_numpy(inverse).to(x.device)])
    return torch.stack(parts, 1)


def pairs_work(denoiser: Denoiser) -> int:
    """Approximate number of floats computed for a row and a column in :func:`pairwise_information`."""
    if isinstance(denoiser, RowMixtureDenoiser):
        return sum(pairs_work(cast(Denoiser, member)) for member in denoiser.members)
    if isinstance(denoiser, ForestDenoiser):
        return 40 * denoiser.splits.n_leaves  # masses of truncated cells cost more than products
    return max(denoiser.row_work, denoiser.score_work)


def _log_pairs(denoiser: Denoiser, x: Tensor, owner: Tensor, size: int) -> Tensor:
    """Joint log-probability (N, n, n) of the cells of every two columns; on the diagonal that of one column.

    ``owner`` (C',) are the columns to which internal columns belong. Posteriors of ``size`` rows are computed at once.
    """
    if isinstance(denoiser, RowMixtureDenoiser):
        weights = denoiser.log_weights.double().tolist()
        each = zip(weights, denoiser.members, strict=True)
        return torch.stack(
            [w + _log_pairs(cast(Denoiser, m), x, owner, size) for w, m in each]
        ).logsumexp(0)
    n = int(owner.max()) + 1
    components = denoiser.components(x[:1])
    if components is not None:
        parts = []
        for rows in x.split(max(1, PAIRED_FLOATS // components[1].numel())):
            weights, cells = cast(tuple[Tensor, Tensor], denoiser.components(rows))
            log_p = cells.new_zeros(len(rows), n, cells.shape[2]).index_add_(1, owner, cells)
            top = log_p.amax(2)
            shares = (log_p - top[:, :, None]).exp()
            pairs = ((shares * weights.exp()) @ shares.mT).log() + top[:, :, None] + top[:, None]
            alone = (shares @ weights.exp()).log() + top
            pairs.diagonal(dim1=1, dim2=2).copy_(alone)
            parts.append(pairs)
        return torch.cat(parts)
    leading = denoiser.codebook.leading

    def log_prob(known: Tensor) -> Tensor:
        """Log-probability (N, n) of every column given internal columns ``known`` (C',); indicators come first."""
        each = _log_prob(denoiser, x, known, size)
        for k in owner[leading].unique().tolist():
            values = (owner == k) & ~leading
            after = _log_prob(denoiser, x, known | ((owner == k) & leading), size)
            each[:, values] = after[:, values]
        return each.new_zeros(len(x), n).index_add_(1, owner, each)

    alone = log_prob(torch.zeros_like(leading))
    pairs = torch.stack([alone[:, [j]] + log_prob(owner == j) for j in range(n)], 1)
    pairs = (pairs + pairs.mT) / 2
    pairs.diagonal(dim1=1, dim2=2).copy_(alone)
    return pairs


def _log_prob(denoiser: Denoiser, x: Tensor, known: Tensor, size: int) -> Tensor:
    """Log-probability (N, C') of a row's cells given the ``known`` columns (C',): zero for these and missing ones."""
    states, inverse = unique_rows(x.masked_fill(~known, math.nan))
    which = torch.from_numpy(inverse).to(x.device)
    unknown, out = x.masked_fill(known, math.nan), torch.zeros_like(x)
    for i, rows in enumerate(states.split(size)):
        q = denoiser.given(rows)
        for some in torch.nonzero(which // size == i).flatten().split(size):
            out[some] = q.rows(which[some] - i * size).log_prob(unknown[some]).to(out)
    return out
