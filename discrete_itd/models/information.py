r"""Entropy and mutual information of columns under a fitted model, row by row.

Of an exact model, and of a scorer whose marginals are summed out (13), they are differences of log-probabilities,

.. math:: h(a | c) = -\log P(a | c), \qquad i(a; b | c) = \log P(a | b, c) - \log P(a | c),

with the other columns unknown; of a network, i is the gap of two squared errors on the same noise (17).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.denoisers import Denoiser
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.likelihood.conditional import ConditionalDenoiser
from discrete_itd.likelihood.information import pointwise_information
from discrete_itd.models.model import MARGINAL, Model
from discrete_itd.training import pilot_quadrature

PAIRS_AT_ONCE = 1 << 22  # cells of the rows whose probabilities are asked for together


def log_prob_of(
    model: Model, x: Tensor, columns: Tensor, given: Tensor | None, n_evaluations: int
) -> Tensor:
    """Log-probability (N,) of the ``columns`` (C',) of rows ``x`` (N, C'), given others, all the rest unknown."""
    known = columns if given is None else columns | given
    rows, inverse = unique_rows(x.masked_fill(~known, math.nan))
    estimator = MARGINAL if sums_out(model) else None
    found = model.log_prob(rows, n_evaluations, given=given, estimator=estimator)
    return found.log_prob[torch.from_numpy(inverse).to(x.device)]


def sums_out(model: Model) -> bool:
    """Whether the model's own log-probabilities of some columns are those of all, with the others summed out."""
    return model.denoiser.exact or isinstance(model.conditional, ConditionalDenoiser)


def information_of_rows(
    model: Model,
    x: Tensor,
    about: Tensor,
    of: Tensor,
    given: Tensor | None,
    n_evaluations: int,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Nats (N,) that the columns ``about`` (C',) of rows ``x`` (N, C') say about the columns ``of``, given others."""
    if sums_out(model):
        both = about if given is None else about | given
        with_about = log_prob_of(model, x, of, both, n_evaluations)
        return with_about - log_prob_of(model, x, of, given, n_evaluations)
    generator = torch.Generator(model.device).manual_seed(model.seed)
    return pointwise_information(
        model.anywhere,
        x,
        about,
        pilot_quadrature(model.marginals, x, generator),
        informed=of,
        given=given,
        n_points=max(4, n_evaluations),
        generator=torch.Generator().manual_seed(model.seed),
        batch_size=model.posteriors_at_once(model.anywhere),
        progress=progress,
    ).gap


def pairwise_information(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Information of every two columns of the table, and standard errors: (C, C) each, the diagonal NaN.

    By the model's exact denoiser, the companion of a scorer that has one. ValueError if there is none.
    """
    denoiser = model.denoiser if model.denoiser.exact else model.anywhere
    if not denoiser.exact:
        raise ValueError("information of all pairs needs an exact model, or one with a companion")
    owner = torch.from_numpy(model.encoder.owner).to(x.device)
    n = model.encoder.n_columns
    masks = [owner == j for j in range(n)]
    alone = [_log_prob(denoiser, [x.masked_fill(~mask, math.nan)])[0] for mask in masks]
    value, error = x.new_full((2, n, n), math.nan).double()
    at_once = max(1, PAIRS_AT_ONCE // max(1, x.numel()))
    for j in range(n):
        for start in range(j + 1, n, at_once):
            others = range(start, min(n, start + at_once))
            pairs = [x.masked_fill(~(masks[j] | masks[k]), math.nan) for k in others]
            for k, both in zip(others, _log_prob(denoiser, pairs), strict=True):
                nats = both - alone[j] - alone[k]
                value[j, k] = value[k, j] = nats.mean()
                error[j, k] = error[k, j] = nats.std() / math.sqrt(len(nats))
    return value, error


@torch.no_grad()
def _log_prob(denoiser: Denoiser, tables: list[Tensor]) -> list[Tensor]:
    """Log-probabilities of the rows of some tables, equal rows computed once."""
    parts = [unique_rows(table) for table in tables]
    found = denoiser.log_prob(torch.cat([rows for rows, _ in parts])).double()
    each = found.split([len(rows) for rows, _ in parts])
    inverses = [torch.from_numpy(inverse).to(found.device) for _, inverse in parts]
    return [own[at] for own, at in zip(each, inverses, strict=True)]
