r"""Entropy and mutual information of columns under a fitted model: means over rows, with standard errors.

Of an exact model, and of a scorer whose marginals are summed out (13), they are sums of log-probabilities of some
columns of the rows, all others unknown,

.. math:: H(A | C) = \mathrm E[\log P(c) - \log P(a, c)], \qquad
          I(A; B | C) = \mathrm E[\log P(a, b, c) - \log P(a, c) - \log P(b, c) + \log P(c)];

of a network, I is the mean gap of two squared errors on the same noise (17).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.denoisers import Denoiser
from discrete_itd.denoisers.base import filled
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.likelihood import Estimate
from discrete_itd.likelihood.conditional import ConditionalDenoiser
from discrete_itd.likelihood.information import pointwise_information
from discrete_itd.models.model import FEWEST_POINTS, MARGINAL, Model
from discrete_itd.training import pilot_quadrature


@dataclass(frozen=True)
class Term:
    """A number of each row (N,), nats, and the variance that the mean has besides that between rows.

    Equal rows have one estimate: the more of them, the less its own error averages out.
    """

    nats: Tensor
    variance: float

    @classmethod
    def of(cls, x: Tensor, columns: Tensor, estimate: Callable[[Tensor], Estimate]) -> Term:
        """From an estimate of distinct rows, after all but some columns (C',) of rows ``x`` (N, C') are masked."""
        rows, inverse = unique_rows(x.masked_fill(~columns, math.nan))
        nats, stderr = estimate(rows)
        n = np.bincount(inverse, minlength=len(rows))
        shared = torch.from_numpy(n * (n - 1.0) / len(x) ** 2).to(nats)
        extra = (shared * stderr.double().square()).nansum()
        return cls(nats.double()[torch.from_numpy(inverse).to(nats.device)], float(extra))

    def __add__(self, other: Term) -> Term:
        return Term(self.nats + other.nats, self.variance + other.variance)

    def __neg__(self) -> Term:
        return Term(-self.nats, self.variance)


def log_prob_of(
    model: Model, x: Tensor, columns: Tensor, given: Tensor, n_evaluations: int
) -> Term:
    """Log-probability of the ``columns`` (C',) of rows ``x`` (N, C'), given others, all the rest unknown."""
    if not sums_out(model):
        known = given if bool(given.any()) else None
        ask = partial(model.log_prob, n_evaluations=n_evaluations, given=known)
        return Term.of(x, columns | given, ask)

    def joint(known: Tensor) -> Term:
        return Term.of(
            x, known, partial(model.log_prob, n_evaluations=n_evaluations, estimator=MARGINAL)
        )

    return joint(columns | given) + -joint(given) if bool(given.any()) else joint(columns)


def sums_out(model: Model) -> bool:
    """Whether the model's own log-probabilities of some columns are those of all, with the others summed out."""
    return model.denoiser.exact or isinstance(model.conditional, ConditionalDenoiser)


def information_of(
    model: Model,
    x: Tensor,
    about: Tensor,
    of: Tensor,
    given: Tensor,
    n_evaluations: int,
    progress: Callable[[int], object] | None = None,
) -> Term:
    """Nats that the columns ``about`` (C',) of rows ``x`` (N, C') carry about the columns ``of``, given others.

    By a network, ``FEWEST_POINTS`` SNRs for each row: equal rows share theirs.
    """
    if sums_out(model):
        with_about = log_prob_of(model, x, of, about | given, n_evaluations)
        return with_about + -log_prob_of(model, x, of, given, n_evaluations)
    denoiser, generator = model.anywhere, torch.Generator(model.device).manual_seed(model.seed)
    quadrature = pilot_quadrature(model.marginals, x, generator)

    def gap(of: Tensor, given: Tensor) -> Callable[[Tensor], Estimate]:
        def estimate(rows: Tensor) -> Estimate:
            found = pointwise_information(
                denoiser, rows, about, quadrature, informed=of, given=given,
                n_points=FEWEST_POINTS * len(x) // len(rows),
                generator=torch.Generator().manual_seed(model.seed),
                batch_size=model.posteriors_at_once(denoiser), progress=progress,
            )  # fmt: skip
            return Estimate(found.gap, found.gap_stderr)

        return estimate

    # a value is not known before its missingness indicator: these come first, by the chain rule
    first = of & denoiser.codebook.leading
    parts = [(first, given), (of & ~first, given | first)]
    terms = [Term.of(x, about | a | b, gap(a, b)) for a, b in parts if bool(a.any())]
    return sum(terms[1:], terms[0])


def pairwise_information(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Information of every two columns of the table, and standard errors: (C, C) each, the diagonal NaN.

    The nats by which the distribution of each column's cell given the other column's is better than without, both ways
    alike in an exact model, and averaged: one posterior for each distinct value of a column.
    """
    denoiser, owner = model.anywhere, torch.from_numpy(model.encoder.owner).to(x.device)
    if model.denoiser.exact:
        denoiser = model.denoiser
    n, leading = model.encoder.n_columns, denoiser.codebook.leading
    late = [k for k in range(n) if bool((leading & (owner == k)).any())]

    def surprisal(known: Tensor) -> Tensor:
        """Of every cell given the columns ``known`` (C',), and its own missingness indicator: (N, C')."""
        out = _surprisal(denoiser, x, known, model.posteriors_at_once(denoiser))
        for k in late:
            own = owner == k
            after = known | (own & leading)
            values = own & ~leading
            out[:, values] = _surprisal(denoiser, x, after, model.posteriors_at_once(denoiser))[
                :, values
            ]
        return out

    alone = surprisal(torch.zeros_like(leading))
    nats = x.new_zeros(n, n, len(x)).double()
    for j in range(n):
        gain = alone - surprisal(owner == j)
        nats[j].index_add_(0, owner, gain.T)
    nats = (nats + nats.transpose(0, 1)) / 2
    nats.diagonal().fill_(math.nan)
    return nats.mean(2), nats.std(2) / math.sqrt(len(x))


@torch.no_grad()
def _surprisal(denoiser: Denoiser, x: Tensor, known: Tensor, size: int) -> Tensor:
    """Surprisal (N, C') of the cells of rows given the cells of some columns (C',): zero in these and in gaps."""
    states, inverse = unique_rows(x.masked_fill(~known, math.nan))
    which, book = torch.from_numpy(inverse).to(x.device), denoiser.codebook
    asked, out = x.masked_fill(known, math.nan), torch.zeros_like(x)
    for i, rows in enumerate(states.split(size)):
        own = filled(rows)
        q = denoiser(*State.start(book, book.embed(own), ~own.isnan()))
        of = torch.nonzero(which // size == i).flatten()
        for some in of.split(size):
            out[some] = -q.rows(which[some] - i * size).log_prob(asked[some]).to(out)
    return out
