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
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.denoisers import Denoiser
from discrete_itd.detection.distributions import (
    Categorical,
    CellDistribution,
    GridDensity,
    Mixture,
    log_volume_at,
)
from discrete_itd.detection.kernel_conditionals import KernelConditionals
from discrete_itd.detection.scoring import Scorer
from discrete_itd.encoders.frames import unique_rows

MOST_POINTS = 4096  # of a grid
POINTS_PER_SD = 3  # of the narrowest Gaussian
TAIL = 1e-9  # of a column's marginal distribution beyond each end of its grid
MARGIN = 0.5  # beyond that, in standardised units (a column's standard deviation is 1/2)
CHUNK = 1 << 23  # rows times points times Gaussians at once


def ask(denoiser: Denoiser, states: Tensor) -> Posterior:
    """Posterior of rows (B, C') given their cells that are not NaN."""
    book = denoiser.codebook
    return denoiser(*State.start(book, book.embed(states), ~states.isnan()))


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
        return ask(self.scorer.denoiser, self._distinct[0])

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
        return self._levels(j)[self._distinct[1]]

    def _levels(self, j: int) -> Tensor:
        book, w = self._model.codebook, self.scorer.weight
        if w == 1:
            return self._model.column(j).double()
        if bool((book.finite == j).any()):
            return Posterior(book, self._categorical).column(j)
        pooled = w * self._model.column(j).double() + (1 - w) * self._other.column(j).double()
        return torch.log_softmax(pooled, 1)

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
            log_p = torch.cat(
                [
                    q.pick(lambda t, i=i: t[i]).log_prob(z.expand(len(i), -1))  # pyright: ignore
                    for i in parts
                ]
            )
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
