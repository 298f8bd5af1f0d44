r"""Conditional distributions of cells under the distribution that scores rows.

They are the model's own: one denoiser call with the cell unknown, or, of a model that scores complete rows and does not
marginalise, its log-probabilities normalised over the values of the cell, eq. (13) of
:mod:`discrete_itd.likelihood.conditional`, with the gaps of the row as they are scored. Of an exact model they are its
log-probability, normalised over the values of one cell, all other cells fixed, with these exceptions:

* What takes many unknown cells at once is asked of the exact companion of a model that does not marginalise: conflicts
  of pairs, which cells are candidates in wide tables, and the column whose dependence has changed.
* A network's posterior of a cell given all others need not equal the ratio of two of its path scores, so the two agree
  only as well as the network's conditionals agree with one another.
* Missingness indicators (``missing="category"``) are conditioned on the other indicators only, as in the score, where
  they come first. The score of a row also depends on the values given the indicators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    GridPosterior,
    Posterior,
)
from discrete_itd.detection.distributions import (
    Categorical,
    CellDistribution,
    Gridded,
    Mixture,
)
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.likelihood.conditional import COARSE, FINE, ConditionalDenoiser

BATCH_WORK = 1 << 24  # rows times floats computed for each, in one call


def most_rows(scorer: Scorer, numbers: int = 0) -> int:
    """Rows whose posteriors fit into memory in full, and so many numbers of each row."""
    most = BATCH_WORK // max(scorer.conditional.row_work, numbers)
    return max(1, min(scorer.density.model_.batch_size, most))


def by_enumeration(scorer: Scorer) -> bool:
    """Whether the model that scores is asked value by value, because it does not answer by itself."""
    return isinstance(scorer.conditional, ConditionalDenoiser)


def scores_of_row(scorer: Scorer) -> int:
    """Scores of the model that the distributions of all cells of a row cost: 0 if it answers by itself."""
    denoiser = scorer.conditional
    return denoiser.scores_of_row if isinstance(denoiser, ConditionalDenoiser) else 0


def together(scorer: Scorer, questions: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Questions of as many rows each, some of them at once, as memory allows."""
    step = max(1, most_rows(scorer) // max(1, len(questions[0])))
    return (list(questions[i : i + step]) for i in range(0, len(questions), step))


@dataclass(frozen=True)
class Conditionals:
    """Distributions of every cell of some rows given their known cells.

    Parameters
    ----------
    scorer : Scorer
    known : Tensor of float64, shape (B, C')
        Encoded rows; NaN where a cell is not conditioned on.
    whole : Conditionals, optional
        Those of more rows, of which these are the ones at ``places``.
    places : Tensor of int64, shape (B,), optional
    asked : Tensor of bool, shape (B, C'), optional
        The cells whose distributions are wanted, by default all that are not known. Where the model that scores is
        asked value by value, each is that given all other cells as they are scored: what else is not known is a gap.
    quick : bool
        Whether the denoiser that answers at every state is asked in any case (:attr:`Model.anywhere`): where the one
        that scores is asked value by value, a hundred times as fast.
    coarse : bool
        Whether densities of numbers may be off by 0.1 nats, where the model that scores is asked value by value.
    """

    scorer: Scorer
    known: Tensor
    whole: Conditionals | None = None
    places: Tensor | None = None
    asked: Tensor | None = None
    quick: bool = False
    coarse: bool = False

    def rows(self, places: Tensor) -> Conditionals:
        """Those of some of the rows, by their positions; the denoiser is not called again."""
        return Conditionals(self.scorer, self.known[places], self, places)

    @classmethod
    def of_each(
        cls,
        scorer: Scorer,
        questions: Sequence[Tensor],
        columns: Sequence[int] | None = None,
        *,
        quick: bool = False,
    ) -> Iterator[Conditionals]:
        """Those of several tensors ``known`` of as many rows, some of them in one call of the denoiser.

        As many as keep a call within the memory of :func:`most_rows`. Each may be about one of the ``columns`` only.
        """
        done = 0
        for some in together(scorer, questions):
            known, asked = torch.cat(some), None
            if columns is not None:
                own = torch.tensor(columns[done : done + len(some)], device=known.device)
                own = own.repeat_interleave(len(some[0]))[:, None]
                asked = torch.zeros_like(known, dtype=torch.bool).scatter_(1, own, True)
            done += len(some)
            whole = cls(scorer, known, asked=asked, quick=quick)
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
        model, states = self.scorer.model, self.distinct[0]
        denoiser = model.anywhere if self.quick else model.conditional
        if isinstance(denoiser, ConditionalDenoiser) and self.asked is not None:
            asked = torch.zeros_like(states).index_add_(0, self.distinct[1], self.asked.to(states))
            gaps = states.masked_fill(asked > 0, 0.0)
            if bool(
                (denoiser.unlearned_gaps(gaps) & ~(asked * denoiser.codebook.leading).any(1)).any()
            ):
                return denoiser.given(
                    states, asked > 0
                )  # such gaps are summed out of the score, too
            return denoiser.each(states, asked > 0, COARSE if self.coarse else FINE)
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
        if mixture is None or isinstance(mixture, GridPosterior):
            return mixture and mixture.pick(lambda t: t[:, at])
        return mixture.pick(lambda t: t[:, at].double())

    @cached_property
    def _categorical(self) -> CategoricalPosterior:
        """Of all columns with few levels."""
        if self.whole is None:
            return self.model.categorical
        places = self._picked[0]
        return self.whole._categorical.pick(lambda t: t[places])

    def levels(self, j: int) -> Tensor:
        """Log-probabilities of the levels of internal column j, (B, K), nats; an unseen level, if any, comes last."""
        book = self.scorer.conditional.codebook
        if bool((book.finite == j).any()):
            found = Posterior(book, self._categorical).column(j)
        else:
            found = torch.log_softmax(self.model.column(j).double(), 1)
        return found[self.distinct[1]]

    def cell(self, j: int) -> CellDistribution:
        """The distribution of the cells of column j (below C)."""
        column, inverse = self.scorer.schema[j], self.distinct[1]
        if column.kind != "continuous":
            return Categorical(column, self.levels(j))
        q = self.gaussian(j)
        assert q is not None
        if isinstance(q, GridPosterior):
            return Gridded(column, q.pick(lambda t: t[inverse]))
        return Mixture(column, q.pick(lambda t: t[inverse]))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each cell of rows x (B, C'), nats; 0 where it is NaN."""
        return self.model.rows(self.distinct[1]).log_prob(x).double()
