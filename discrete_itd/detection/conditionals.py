r"""Conditional distributions of cells under the score that a detector returns.

A score is the logarithm of an unnormalised density of rows. With all other cells fixed, normalising it over the values
of one cell gives that cell's conditional distribution. The log-probability of the model gives the model's own
conditionals: one denoiser call with the cell unknown. The pooled score
:math:`w \log P(x) + (1 - w) \log Q(x)` (:mod:`discrete_itd.detection.scoring`) gives the normalised geometric mean

.. math:: q(x_j \mid x_{-j}) \propto P(x_j \mid x_{-j})^w\, Q(x_j \mid x_{-j})^{1 - w},

with Q the kernel density or independent columns, whose conditionals have a closed form. For a categorical column the
normalisation is a sum over its levels; for a continuous column it is a sum over an evenly spaced grid.

The result equals the normalised score exactly if the model is exact, and to the grid's accuracy for continuous columns,
with these exceptions:

* A network's posterior of a cell given all others need not equal the ratio of two of its path scores, so the two agree
  only as well as the network's conditionals agree with one another.
* The cap on the surprisal of continuous columns is applied to the conditional density of the cell in question. In the
  score it is applied to the cell's share, averaged along the path, and to the shares of the other columns too.
* Missingness indicators (``missing="category"``) are conditioned on the other indicators only, as in the score, where
  they come first. The score of a row also depends on the values given the indicators.

:func:`assess` compares every cell with the other cells of its row. Where missingness is modelled, a cell is a pair of
its missingness indicator and its value: the indicator is conditioned on the other indicators, the value on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.detection.distributions import (
    Categorical,
    CellDistribution,
    Expected,
    GridDensity,
    KernelConditionals,
    Mixture,
    log_volume_at,
    with_missing,
)
from discrete_itd.detection.scoring import Scorer
from discrete_itd.encoders import PRESENT
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.progress import progress_bar

MOST_POINTS = 4096  # of a grid
POINTS_PER_SD = 3  # of the narrowest Gaussian
TAIL = 1e-9  # of a column's marginal distribution beyond each end of its grid
MARGIN = 0.5  # beyond that, in standardised units (a column's standard deviation is 1/2)
CHUNK = 1 << 23  # rows times points times Gaussians at once
BATCH_WORK = 1 << 24  # rows times floats computed for each, in one call
LEAST = 1e-9  # the smallest probability that a float32 softmax can tell from zero


@dataclass(frozen=True)
class Conditionals:
    """Distributions of every cell of some rows given their known cells, under a score.

    Parameters
    ----------
    scorer : Scorer
    known : Tensor of float64, shape (B, C')
        Encoded rows; NaN where a cell is not conditioned on.
    """

    scorer: Scorer
    known: Tensor

    @cached_property
    def _distinct(self) -> tuple[Tensor, Tensor]:
        """Distinct rows (U, C') and for each row its place among them (B,): equal questions are asked once."""
        states, inverse = unique_rows(self.known)
        return states, torch.from_numpy(inverse).to(self.known.device)

    @cached_property
    def _model(self) -> Posterior:
        denoiser, states = self.scorer.conditional, self._distinct[0]
        book = denoiser.codebook
        return denoiser(*State.start(book, book.embed(states), ~states.isnan()))

    @cached_property
    def _other(self) -> Posterior | KernelConditionals:
        """The simpler member of the pool."""
        kernel, states = self.scorer.kernel, self._distinct[0]
        if kernel is None:
            return self.scorer.marginals.expand(len(states))
        return KernelConditionals(kernel, states)

    @cached_property
    def _categorical(self) -> CategoricalPosterior:
        """Of all columns with few levels."""
        own, w = self._model.categorical, self.scorer.weight
        if w == 1:
            return own
        other = self._other
        theirs = other.categorical.logits if isinstance(other, Posterior) else other.logits
        return CategoricalPosterior(own.levels, w * own.logits.double() + (1 - w) * theirs)

    def levels(self, j: int) -> Tensor:
        """Log-probabilities of the levels of internal column j, (B, K), nats; an unseen level, if any, comes last."""
        book, w = self._model.codebook, self.scorer.weight
        if w == 1:
            found = self._model.column(j).double()
        elif bool((book.finite == j).any()):
            found = Posterior(book, self._categorical).column(j)
        else:
            pooled = w * self._model.column(j).double() + (1 - w) * self._other.column(j).double()
            found = torch.log_softmax(pooled, 1)
        return found[self._distinct[1]]

    def cell(self, j: int) -> CellDistribution:
        """The distribution of the cells of column j (below C)."""
        column, inverse = self.scorer.schema[j], self._distinct[1]
        at = torch.nonzero(self._model.codebook.reals == j).flatten()
        if self._model.gaussian is None or not len(at):
            return Categorical(column, self.levels(j))
        q = self._model.gaussian.pick(lambda t: t[:, at].double())
        if self.scorer.weight == 1 and not np.isfinite(self.scorer.floor[j]):
            return Mixture(column, q.pick(lambda t: t[inverse]))
        grid = self._grid(j)
        on_grid = self._log_density(j, q, grid)
        at_value = q.pick(lambda t: t[inverse])
        return GridDensity(
            column, grid, on_grid[inverse], lambda v: self._log_density(j, at_value, v, True)
        )

    def _log_density(self, j: int, q: GaussianPosterior, z: Tensor, each: bool = False) -> Tensor:
        """Unnormalised log-density of continuous column j at points z (G,) of all distinct rows, (U, G).

        With ``each``, at one point of each row, z (B,): (B,).
        """
        w, column = self.scorer.weight, self.scorer.schema[j]
        n, k = len(q.means), q.means.shape[2]
        if each:
            log_p = q.log_prob(z[:, None])[:, 0]
        else:
            parts = torch.arange(n, device=z.device).split(max(1, CHUNK // (len(z) * k)))
            picked = ((q.pick(lambda t, i=i: t[i]), i) for i in parts)  # pyright: ignore
            log_p = torch.cat([some.log_prob(z.expand(len(i), -1)) for some, i in picked])
        if np.isfinite(self.scorer.floor[j]):
            log_volume = torch.from_numpy(log_volume_at(column, z.cpu().numpy())).to(z)
            log_p = torch.minimum(log_p, -float(self.scorer.floor[j]) - log_volume)
        if w == 1:
            return log_p
        other = self._other
        assert isinstance(other, KernelConditionals)  # continuous columns are pooled with a kernel
        if each:
            return w * log_p + (1 - w) * other.log_density_at(j, z, self._distinct[1])
        return w * log_p + (1 - w) * other.log_density(j, z)

    def _grid(self, j: int) -> Tensor:
        """Evenly spaced standardised values of continuous column j, (G,)."""
        marginals, scorer = self.scorer.marginals, self.scorer
        at = torch.nonzero(marginals.codebook.reals == j).flatten()
        assert marginals.gaussian is not None
        mixture = Mixture(scorer.schema[j], marginals.gaussian.pick(lambda t: t[:, at].double()))
        low, high = mixture.quantiles([TAIL, 1 - TAIL])[0].tolist()
        sd = scorer.smoothing_sd
        if scorer.kernel is not None:
            sd = min(sd, scorer.kernel.widths.real)
        width = high - low + 2 * MARGIN
        n = max(16, min(MOST_POINTS, round(POINTS_PER_SD * width / sd)))
        return torch.linspace(low - MARGIN, high + MARGIN, n).to(self.known)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each cell of rows x (B, C'), nats; 0 where it is NaN."""
        inverse = self._distinct[1]
        if self.scorer.weight == 1 and not np.isfinite(self.scorer.floor).any():
            return self._model.rows(inverse).log_prob(x).double()
        book = self._model.codebook
        out, cells = torch.zeros_like(x), x.nan_to_num(0.0)
        own = self._categorical.pick(lambda t: t[inverse])
        finite = own.log_prob(cells[:, book.finite].long()).double()
        out.index_copy_(1, book.finite, finite)
        for v in book.vocabularies:
            out[:, v.column] = self.levels(v.column).gather(1, cells[:, [v.column]].long())[:, 0]
        for j in book.reals.tolist():
            if not bool(x[:, j].isnan().all()):
                out[:, j] = self.cell(j).log_prob(cells[:, j])
        return out.masked_fill(x.isnan(), 0.0)


# -- cells against the other cells of their rows --------------------------------------------------


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


def _batches(scorer: Scorer, x: Tensor, what: str) -> Iterator[Tensor]:
    """Batches of rows whose posteriors fit into memory in full, under a progress bar."""
    most = BATCH_WORK // scorer.conditional.codebook.work
    step = max(1, min(scorer.density.model_.batch_size, most))
    if scorer.kernel is not None:
        step = min(step, scorer.kernel.batch)
    with progress_bar(len(x), what) as bar:
        for rows in x.split(step):
            yield rows
            bar.update(len(rows))


def _indicator_of(scorer: Scorer, j: int) -> int | None:
    """The internal column that is the missingness indicator of column ``j``, if there is one."""
    places = np.flatnonzero(scorer.density.encoder_.owner == j)
    return int(places[1]) if len(places) > 1 else None


def assess(scorer: Scorer, x: Tensor, n_values: int = 0) -> CellAssessment:
    r"""Every cell of encoded rows against the other cells of its row, computed a batch of rows at a time.

    Parameters
    ----------
    scorer : Scorer
        The score whose conditional distributions are used.
    x : Tensor of float64, shape (N, C')
    n_values : int
        How many predicted values to return for every cell; 0 for none.

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
    parts = []
    for rows in _batches(scorer, x, "cells"):
        parts.append(_assess_batch(scorer, rows, n_values))
    expected = [
        Expected(*map(np.concatenate, zip(*of_column, strict=True)))
        for of_column in zip(*(p.expected for p in parts), strict=True)
    ]
    given, entropy, marginal, odds = map(np.concatenate, zip(*(p[:4] for p in parts), strict=True))
    return CellAssessment(given, entropy, marginal, odds, expected)


@torch.no_grad()
def _assess_batch(scorer: Scorer, rows: Tensor, n_values: int) -> CellAssessment:
    encoder = scorer.density.encoder_
    marginal, log_wrong = _marginal_and_error(scorer, rows)
    shape = len(rows), encoder.n_columns
    given, entropy, log_odds = (torch.zeros(shape).to(rows) for _ in range(3))
    expected = []
    for j in range(encoder.n_columns):
        own = [place for place in (j, _indicator_of(scorer, j)) if place is not None]
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
    known = rows.masked_fill(~scorer.conditional.codebook.leading, math.nan)
    known[:, own[1]] = math.nan
    return Conditionals(scorer, known).levels(own[1])


def _value_distribution(scorer: Scorer, rows: Tensor, own: list[int]) -> CellDistribution:
    """Distribution of the cells of one column given the others, and given that they are present."""
    known = rows.clone()
    known[:, own[0]] = math.nan
    known[:, own[1:]] = PRESENT
    return Conditionals(scorer, known).cell(own[0])


def pairwise_changes(scorer: Scorer, x: Tensor) -> Iterator[np.ndarray]:
    r"""By how much each other cell changes a cell's surprisal: (B, C, C), nats, the last axis that of the other cell.

    :math:`\log P(x_j) - \log P(x_j \mid x_i)` of encoded rows ``x`` (N, C'), a batch of rows at a time.
    """
    return (_pairwise_batch(scorer, rows) for rows in _batches(scorer, x, "pairs"))


@torch.no_grad()
def _pairwise_batch(scorer: Scorer, x: Tensor) -> np.ndarray:
    encoder = scorer.density.encoder_
    leading = scorer.conditional.codebook.leading
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
        place = _indicator_of(scorer, i)
        if place is not None:
            add(i, alone_leading - log_prob([place], leading))
    out.diagonal(dim1=1, dim2=2).zero_()
    return out.cpu().numpy()
