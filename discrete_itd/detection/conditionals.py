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
* What a score adds for new numbers (:mod:`discrete_itd.detection.repeats`) and for the number of unusual cells
  (:mod:`discrete_itd.detection.sparsity`) is left out: a value is predicted by the densities alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.detection.classes import ClassConditionals
from discrete_itd.detection.distributions import (
    Categorical,
    CellDistribution,
    GridDensity,
    Mixture,
    log_density_on,
    log_volume_at,
)
from discrete_itd.detection.scoring import Scorer
from discrete_itd.encoders.frames import unique_rows

MOST_POINTS = 4096  # of a grid
POINTS_PER_SD = 1.5  # of the narrowest Gaussian; sums over even steps converge exponentially fast
TAIL = 1e-9  # of a column's marginal distribution beyond each end of its grid
MARGIN = 0.5  # beyond that, in standardised units (a column's standard deviation is 1/2)
BATCH_WORK = 1 << 24  # rows times floats computed for each, in one call


def most_rows(scorer: Scorer) -> int:
    """Rows whose posteriors fit into memory in full."""
    most = BATCH_WORK // scorer.conditional.codebook.work
    most = min(scorer.density.model_.batch_size, most)
    return max(1, most if scorer.kernel is None else min(most, scorer.kernel.batch))


def together(scorer: Scorer, questions: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Questions of as many rows each, some of them at once, as memory allows."""
    step = max(1, most_rows(scorer) // max(1, len(questions[0])))
    return (list(questions[i : i + step]) for i in range(0, len(questions), step))


@dataclass(frozen=True)
class Conditionals:
    """Distributions of every cell of some rows given their known cells, under a score.

    Parameters
    ----------
    scorer : Scorer
    known : Tensor of float64, shape (B, C')
        Encoded rows; NaN where a cell is not conditioned on.
    whole : Conditionals, optional
        Those of more rows, of which these are the ones at ``places``.
    places : Tensor of int64, shape (B,), optional
    """

    scorer: Scorer
    known: Tensor
    whole: Conditionals | None = None
    places: Tensor | None = None

    def rows(self, places: Tensor) -> Conditionals:
        """Those of some of the rows, by their positions; the denoiser is not called again."""
        return Conditionals(self.scorer, self.known[places], self, places)

    @classmethod
    def of_each(cls, scorer: Scorer, questions: Sequence[Tensor]) -> Iterator[Conditionals]:
        """Those of several tensors ``known`` of as many rows, some of them in one call of the denoiser.

        As many as keep a call within the memory of :func:`most_rows`.
        """
        for some in together(scorer, questions):
            whole = cls(scorer, torch.cat(some))
            places = torch.arange(len(whole.known), device=whole.known.device)
            yield from map(whole.rows, places.split([len(known) for known in some]))

    @cached_property
    def distinct(self) -> tuple[Tensor, Tensor]:
        """Distinct rows (U, C') and for each row its place among them (B,): equal questions are asked once."""
        if self.whole is not None:
            return self.whole.distinct[0][self._picked[0]], self._picked[1]
        states, inverse = unique_rows(self.known)
        return states, torch.from_numpy(inverse).to(self.known.device)

    @cached_property
    def _picked(self) -> tuple[Tensor, Tensor]:
        """The distinct rows of the whole that occur here, (U,), and for each row its place among them, (B,)."""
        assert self.whole is not None
        return torch.unique(self.whole.distinct[1][self.places], return_inverse=True)

    @cached_property
    def model(self) -> Posterior:
        """The posterior of the distinct rows under the model."""
        if self.whole is not None:
            return self.whole.model.rows(self._picked[0])
        denoiser, states = self.scorer.conditional, self.distinct[0]
        book = denoiser.codebook
        return denoiser(*State.start(book, book.embed(states), ~states.isnan()))

    def gaussian(self, j: int) -> GaussianPosterior | None:
        """The posterior of column j of the distinct rows, if it is continuous: that of one column."""
        at = torch.nonzero(self.scorer.conditional.codebook.reals == j).flatten()
        if not len(at):
            return None
        if self.whole is not None:
            found, places = self.whole.gaussian(j), self._picked[0]
            return None if found is None else found.pick(lambda t: t[places])
        mixture = self.model.gaussian
        return None if mixture is None else mixture.pick(lambda t: t[:, at].double())

    @cached_property
    def own(self) -> ClassConditionals | None:
        """The same under the model, if it is a mixture of products of all columns."""
        if self.whole is not None:
            found = self.whole.own
            return None if found is None else found.rows(self._picked[0])
        return self.scorer.given_classes(self.scorer.conditional, self.distinct[0])

    @cached_property
    def other(self) -> Posterior | ClassConditionals:
        """The same under the simpler member of the pool."""
        kernel, states = self.scorer.kernel, self.distinct[0]
        if kernel is None:
            return self.scorer.marginals.expand(len(states))
        found = self.whole.other if self.whole is not None else None
        if isinstance(found, ClassConditionals):
            return found.rows(self._picked[0])
        found = self.scorer.given_classes(kernel, states)
        assert found is not None
        return found

    @cached_property
    def _categorical(self) -> CategoricalPosterior:
        """Of all columns with few levels."""
        if self.whole is not None:
            places = self._picked[0]
            return self.whole._categorical.pick(lambda t: t[places])
        w, levels = self.scorer.weight, self.scorer.conditional.codebook.levels
        if w == 1:
            return self.model.categorical
        own = self.model.categorical.logits.double() if self.own is None else self.own.logits
        other = self.other
        theirs = other.categorical.logits if isinstance(other, Posterior) else other.logits
        return CategoricalPosterior(levels, w * own + (1 - w) * theirs)

    def levels(self, j: int) -> Tensor:
        """Log-probabilities of the levels of internal column j, (B, K), nats; an unseen level, if any, comes last."""
        book, w = self.scorer.conditional.codebook, self.scorer.weight
        if bool((book.finite == j).any()):
            found = Posterior(book, self._categorical).column(j)
        else:
            found = w * self.model.column(j).double()
            if w < 1:
                found = found + (1 - w) * self.other.column(j).double()
            found = torch.log_softmax(found, 1)
        return found[self.distinct[1]]

    def cell(self, j: int) -> CellDistribution:
        """The distribution of the cells of column j (below C)."""
        column, inverse = self.scorer.schema[j], self.distinct[1]
        if column.kind != "continuous":
            return Categorical(column, self.levels(j))
        if self.scorer.weight == 1 and not np.isfinite(self.scorer.floor[j]):
            q = self.gaussian(j)
            assert q is not None
            return Mixture(column, q.pick(lambda t: t[inverse]))
        grid, log_volume = self._grid(j)
        on_grid = self._pooled(
            j, self._log_density(j, grid), log_volume, lambda c: c.log_density(j, grid)
        )

        def at(z: Tensor) -> Tensor:
            volume = torch.from_numpy(log_volume_at(column, z.cpu().numpy())).to(z)
            return self._pooled(
                j, self._log_density_at(j, z), volume, lambda c: c.log_density_at(j, z, inverse)
            )

        return GridDensity(column, grid, on_grid[inverse], at)

    def _log_density(self, j: int, z: Tensor) -> Tensor:
        """The model's log-density of column j at the points z (G,) of its grid, of the distinct rows: (U, G)."""
        if self.own is not None:
            return self.own.log_density(j, z)
        q = self.gaussian(j)
        assert q is not None
        return log_density_on(q, z)

    def _log_density_at(self, j: int, z: Tensor) -> Tensor:
        """The same at one point of each row, z (B,): (B,)."""
        inverse = self.distinct[1]
        if self.own is not None:
            return self.own.log_density_at(j, z, inverse)
        q = self.gaussian(j)
        assert q is not None
        return q.pick(lambda t: t[inverse]).log_prob(z[:, None])[:, 0]

    def _pooled(
        self,
        j: int,
        log_p: Tensor,
        log_volume: Tensor,
        of_kernel: Callable[[ClassConditionals], Tensor],
    ) -> Tensor:
        """Unnormalised log-densities of continuous column j from the model's, where the encoding has a log-volume."""
        w = self.scorer.weight
        if np.isfinite(self.scorer.floor[j]):
            log_p = torch.minimum(log_p, -float(self.scorer.floor[j]) - log_volume)
        if w == 1:
            return log_p
        other = self.other
        assert isinstance(other, ClassConditionals)  # continuous columns are pooled with a kernel
        return w * log_p + (1 - w) * of_kernel(other)

    def _grid(self, j: int) -> tuple[Tensor, Tensor]:
        """Evenly spaced standardised values of continuous column j, and their log-volume, (G,) each."""
        marginals, scorer = self.scorer.marginals, self.scorer
        if j in scorer.grids:
            return scorer.grids[j]
        at = torch.nonzero(marginals.codebook.reals == j).flatten()
        assert marginals.gaussian is not None
        mixture = Mixture(scorer.schema[j], marginals.gaussian.pick(lambda t: t[:, at].double()))
        low, high = mixture.quantiles([TAIL, 1 - TAIL])[0].tolist()
        sd = scorer.smoothing_sd
        if scorer.kernel is not None:
            sd = min(sd, scorer.kernel.widths.real)
        width = high - low + 2 * MARGIN
        n = max(16, min(MOST_POINTS, round(POINTS_PER_SD * width / sd)))
        grid = torch.linspace(low - MARGIN, high + MARGIN, n).to(self.known)
        volume = torch.from_numpy(log_volume_at(scorer.schema[j], grid.cpu().numpy()))
        return scorer.grids.setdefault(j, (grid, volume.to(grid)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each cell of rows x (B, C'), nats; 0 where it is NaN."""
        inverse = self.distinct[1]
        if self.scorer.weight == 1 and not np.isfinite(self.scorer.floor).any():
            return self.model.rows(inverse).log_prob(x).double()
        book = self.scorer.conditional.codebook
        out, cells = torch.zeros_like(x), x.nan_to_num(0.0)
        own = self._categorical.pick(lambda t: t[inverse])
        finite = own.log_prob(cells[:, book.finite].long()).double()
        out.index_copy_(1, book.finite, finite)
        for j in [v.column for v in book.vocabularies] + book.reals.tolist():
            there = torch.nonzero(~x[:, j].isnan()).flatten()
            if not len(there):
                continue
            asked = self if len(there) == len(x) else self.rows(there)
            out[there, j] = asked.cell(j).log_prob(cells[there, j])
        return out.masked_fill(x.isnan(), 0.0)
