"""Every cell of encoded rows against the other cells of its row: surprisal, entropy, log-odds of an error, prediction.

Where missingness is modelled (``missing="category"``), a cell is a pair of its missingness indicator and its value. As
in the score, the indicators come first: an indicator is conditioned on the other indicators, a value on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.posterior import GaussianPosterior
from discrete_itd.detection.conditionals import Conditionals
from discrete_itd.detection.distributions import CellDistribution, Expected, with_missing
from discrete_itd.detection.scoring import Scorer
from discrete_itd.encoders import PRESENT

BATCH_WORK = 1 << 24  # rows times floats computed for each, in one call
LEAST = 1e-9  # the smallest probability that a float32 softmax can tell from zero


class CellAssessment(NamedTuple):
    """Cells of encoded rows against the other cells of their rows: float64 arrays of shape (N, C), nats.

    All but ``entropy`` refer to encoded values, without the change of unit of continuous columns.

    Attributes
    ----------
    given_others : ndarray
        Minus log-probability of the cell given the others; 0 where it is missing.
    entropy : ndarray
        Expectation of that, in the column's unit; 0 where the cell is missing.
    marginal : ndarray
        Minus log-probability of the cell in its column, whatever the other cells; 0 where it is missing.
    error_log_odds : ndarray
        See :func:`assess`; minus infinity where the cell is missing.
    expected : list of Expected, length C
        Predictions from the other cells; empty if none were requested.
    """

    given_others: np.ndarray
    entropy: np.ndarray
    marginal: np.ndarray
    error_log_odds: np.ndarray
    expected: list[Expected]


def batches(scorer: Scorer, x: Tensor) -> Iterator[slice]:
    """Slices of rows whose posteriors fit into memory in full."""
    most = BATCH_WORK // scorer.denoiser.codebook.work
    step = max(1, min(scorer.density.model_.batch_size, most))
    if scorer.kernel is not None:
        step = min(step, scorer.kernel.batch)
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def indicator_of(scorer: Scorer, j: int) -> int | None:
    """The internal column that is the missingness indicator of column ``j``, if there is one."""
    places = np.flatnonzero(scorer.density.encoder_.owner == j)
    return int(places[1]) if len(places) > 1 else None


def assess(scorer: Scorer, x: Tensor, n_values: int = 0) -> Iterator[CellAssessment]:
    r"""Every cell of encoded rows against the other cells of its row, a batch of rows at a time.

    Parameters
    ----------
    scorer : Scorer
        The score whose conditional distributions are used.
    x : Tensor of float64, shape (N, C')
    n_values : int
        How many predicted values to return for every cell; 0 for none.

    Yields
    ------
    CellAssessment
        Of the next rows.

    Notes
    -----
    The log-odds of an error are, up to a constant that is the same for all cells, the log-odds that the cell is wrong.
    Suppose that a wrong cell holds a value drawn from :math:`c = \tfrac12\pi + \tfrac12 u`: half the time from the
    column's marginal :math:`\pi` (as when rows are mixed up), half the time from u, which is uniform over the
    categories, or the widest Gaussian of a number's marginal (as in a typing error). Then by Bayes' rule, with p the
    probability of the cell given the others,

    .. math:: \mathrm{log\ odds} = \log\frac{(1 - p(x_j))\,c(x_j)}{p(x_j)}.

    For a density, :math:`1 - p` is replaced by 1.
    """
    for part in batches(scorer, x):
        yield _assess_batch(scorer, x[part], n_values)


@torch.no_grad()
def _assess_batch(scorer: Scorer, rows: Tensor, n_values: int) -> CellAssessment:
    encoder = scorer.density.encoder_
    marginal, log_wrong = _marginal_and_error(scorer, rows)
    shape = len(rows), encoder.n_columns
    given, entropy, log_odds = (torch.zeros(shape).to(rows) for _ in range(3))
    expected = []
    for j in range(encoder.n_columns):
        own = [place for place in (j, indicator_of(scorer, j)) if place is not None]
        missing = rows[:, j].isnan()
        indicator = _indicator_levels(scorer, rows, own)
        cell = _value_distribution(scorer, rows, own)
        log_p = torch.where(missing, 0.0, cell.log_prob(rows[:, j].nan_to_num(0.0)))
        entropy[:, j] = torch.from_numpy(cell.entropy()).to(rows)
        if indicator is not None:
            log_p = log_p + indicator.gather(1, rows[:, own[1:]].long())[:, 0]
            of_indicator = -(indicator.exp() * indicator).sum(1)
            entropy[:, j] = of_indicator + indicator[:, int(PRESENT)].exp() * entropy[:, j]
        given[:, j] = -log_p
        others = (-torch.expm1(log_p)).clamp_min(LEAST).log()
        if cell.is_density:  # any other number might have been there
            others = torch.where(missing, others, 0.0)
        log_odds[:, j] = others - log_p + log_wrong[:, own].sum(1)
        if indicator is None:
            entropy[:, j] = entropy[:, j].masked_fill(missing, 0.0)
            log_odds[:, j] = log_odds[:, j].masked_fill(missing, -math.inf)
        if n_values:
            present = None if indicator is None else indicator[:, int(PRESENT)]
            expected.append(with_missing(cell.expected(n_values), present, n_values))
    owner = torch.from_numpy(encoder.owner).to(rows.device)
    alone = -torch.zeros_like(given).index_add(1, owner, marginal)
    own, mean, base, odds = (t.cpu().numpy() for t in (given, entropy, alone, log_odds))
    return CellAssessment(own, mean, base, odds, expected)


def _marginal_and_error(scorer: Scorer, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each internal cell in its column, and if it is wrong; 0 where it is missing: (B, C') each."""
    base = scorer.marginals
    book = base.codebook
    marginal = base.expand(len(rows)).log_prob(rows).double()
    log_uniform = torch.tensor([-math.log(c.n_points or 1) for c in book.columns]).to(rows)
    uniform = log_uniform.expand(rows.shape).clone()
    if base.gaussian is not None:
        q = base.gaussian
        widest = GaussianPosterior(*(t[:, :, -1:] for t in (q.log_weight, q.means, q.var)))
        uniform[:, book.reals] = widest.log_prob(rows[:, book.reals].to(book.dtype)).double()
    wrong = torch.logaddexp(marginal, uniform) - math.log(2)
    return marginal, torch.where(rows.isnan(), 0.0, wrong)


def _indicator_levels(scorer: Scorer, rows: Tensor, own: list[int]) -> Tensor | None:
    """Log-probabilities of present and missing given the other indicators, if missingness is modelled."""
    if len(own) == 1:
        return None
    known = rows.masked_fill(~scorer.denoiser.codebook.leading, math.nan)
    known[:, own[1]] = math.nan
    return Conditionals(scorer, known).levels(own[1])


def _value_distribution(scorer: Scorer, rows: Tensor, own: list[int]) -> CellDistribution:
    """Distribution of the cells of one column given the others, and given that they are present."""
    known = rows.clone()
    known[:, own[0]] = math.nan
    known[:, own[1:]] = PRESENT
    return Conditionals(scorer, known).cell(own[0])


@torch.no_grad()
def pairwise_changes(scorer: Scorer, x: Tensor) -> np.ndarray:
    r"""By how much each other cell changes a cell's surprisal: (B, C, C), nats, the last axis that of the other cell.

    :math:`\log P(x_j) - \log P(x_j \mid x_i)` of encoded rows ``x`` (B, C').
    """
    encoder = scorer.density.encoder_
    leading = scorer.denoiser.codebook.leading
    owner = torch.from_numpy(encoder.owner).to(x.device)
    out = torch.zeros(len(x), encoder.n_columns, encoder.n_columns).to(x)

    def log_prob(given: Sequence[int] | Tensor, of: Tensor) -> Tensor:
        """Log-probability of the cells of some columns, given others."""
        known = torch.full_like(x, math.nan)
        known[:, given] = x[:, given]
        return Conditionals(scorer, known).log_prob(x.masked_fill(~of, math.nan))

    def add(i: int, nats: Tensor) -> None:
        out[:, :, i] += torch.zeros_like(out[:, :, i]).index_add(1, owner, nats)

    before = torch.nonzero(leading).flatten()
    alone, alone_leading = log_prob(before, ~leading), log_prob([], leading)
    for i in range(encoder.n_columns):
        add(i, alone - log_prob([*before.tolist(), i], ~leading))
        place = indicator_of(scorer, i)
        if place is not None:
            add(i, alone_leading - log_prob([place], leading))
    out.diagonal(dim1=1, dim2=2).zero_()
    return out.cpu().numpy()
