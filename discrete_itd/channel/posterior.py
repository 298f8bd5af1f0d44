r"""The posterior of a whole row: a product of one distribution per column.

Each family of columns has its own kind of distribution, all with the same operations: mean, log-probability, sample
and the Bayes update :math:`\oplus` by new evidence. A :class:`Posterior` puts the families of a table together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.channel.categorical import CategoricalPosterior
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.gaussian import GaussianPosterior, chosen
from discrete_itd.channel.grid import GridPosterior
from discrete_itd.channel.high_cardinality import VocabularyPosterior

__all__ = [
    "CategoricalPosterior",
    "GaussianPosterior",
    "GridPosterior",
    "Posterior",
    "VocabularyPosterior",
]


class Posterior:
    """The distribution of a whole row, with independent columns.

    Parameters
    ----------
    codebook : Codebook categorical : CategoricalPosterior
        The low-cardinality columns.
    gaussian : GaussianPosterior or GridPosterior
        The continuous columns.
    high_cardinality : list of VocabularyPosterior
        The high-cardinality columns.

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)])
    >>> q = Posterior(book, CategoricalPosterior(book.levels, torch.tensor([[0.0, 1.0]])))
    >>> q.log_prob(torch.tensor([[1.0]], dtype=torch.float64))
    tensor([[-0.3133]])
    """

    def __init__(
        self,
        codebook: Codebook,
        categorical: CategoricalPosterior,
        gaussian: GaussianPosterior | None = None,
        high_cardinality: list[VocabularyPosterior] | None = None,
    ) -> None:
        self.codebook = codebook
        self.categorical, self.gaussian = categorical, gaussian
        self.high_cardinality = high_cardinality or []

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x`, shape (B, D)."""
        parts = [self.categorical.mean()]
        if self.gaussian is not None:
            parts.append(self.gaussian.mean())
        parts += [q.mean() for q in self.high_cardinality]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability, or log-density, of each cell of rows ``x`` (B, C): (B, C), nats; 0 where NaN."""
        book = self.codebook
        cells = x.nan_to_num(0.0)
        own = self.categorical.log_prob(cells[:, book.finite].long())
        if own.shape == x.shape:
            return own.masked_fill(x.isnan(), 0.0)
        out = own.new_zeros(x.shape).index_copy(1, book.finite, own)
        if self.gaussian is not None:
            values = cells[:, book.reals].to(own)
            out = out.index_copy(1, book.reals, self.gaussian.log_prob(values))
        for q in self.high_cardinality:
            j = q.vocabulary.column
            out[:, j] = q.log_prob(x[:, j])
        return out.masked_fill(x.isnan(), 0.0)

    def update(self, y: Tensor, snr: Tensor) -> Posterior:
        r"""The Bayes update :math:`q \oplus \Delta` by new evidence of every column about itself.

        ``y`` (B, D) is the increment of the statistic (the point itself where ``snr`` is infinite), ``snr`` (B, C) that
        of the SNR.
        """
        book = self.codebook
        categorical = self.categorical.update(y[:, : book.levels.n_coords], snr[:, book.finite])
        gaussian = self.gaussian
        if gaussian is not None:
            gaussian = gaussian.update(y[:, book.real_coords], snr[:, book.reals])
        high = [
            q.update(y[:, q.vocabulary.coords], snr[:, q.vocabulary.column])
            for q in self.high_cardinality
        ]
        return Posterior(book, categorical, gaussian, high)

    def expand(self, n: int) -> Posterior:
        """The posterior of one row repeated for ``n`` rows."""
        return self._pick(lambda t: t.expand(n, *t.shape[1:]), shared=True)

    def rows(self, part: slice | Tensor) -> Posterior:
        """The posterior of some of the rows."""
        return self._pick(lambda t: t[part], shared=False)

    def _pick(self, rows: Callable[[Tensor], Tensor], *, shared: bool) -> Posterior:
        gaussian = None if self.gaussian is None else self.gaussian.pick(rows)
        high = [q.pick(rows, shared=shared) for q in self.high_cardinality]
        return Posterior(self.codebook, self.categorical.pick(rows), gaussian, high)

    def sample(
        self, generator: torch.Generator, cells: Tensor | None = None, *, allow_unseen: bool = False
    ) -> Tensor:
        """One value per cell: float64, shape (B, C).

        The level of unseen categories is drawn only if ``allow_unseen``. Where ``cells`` (B, C) is false, the result is
        a draw or zero, whichever is cheaper.
        """
        book = self.codebook
        codes = self.categorical.sample(generator, allow_unseen=allow_unseen)
        out = torch.zeros(
            len(codes), book.n_columns, dtype=torch.float64, device=codes.device
        ).index_copy_(1, book.finite, codes.double())
        if self.gaussian is not None:
            out.index_copy_(1, book.reals, self.gaussian.sample(generator).double())
        for q in self.high_cardinality:
            j = q.vocabulary.column
            where = cells[:, j] if cells is not None else torch.ones_like(q.snr, dtype=torch.bool)
            out[:, j] = q.sample(generator, where, allow_unseen=allow_unseen)
        return out

    def column(self, j: int) -> Tensor:
        """Log-probabilities of the categories of column ``j``: (B, K), nats; the unseen one, if any, last."""
        book = self.codebook
        for q in self.high_cardinality:
            if q.vocabulary.column == j:
                return q.log_probs_of_all()
        if j not in book.place:
            raise ValueError(f"column {j} has no categories")
        return self.categorical.logits[:, book.levels.own(book.place[j])].contiguous()

    def at_uniform(self, j: int, u: Tensor, v: Tensor) -> Tensor:
        """Draws (B,), float64, of column ``j`` by inverse distribution functions of uniform numbers ``u``, ``v`` (B,).

        In a continuous column ``u`` chooses the component and ``v`` the value within it.
        """
        at = torch.nonzero(self.codebook.reals == j).flatten()
        if not len(at) or self.gaussian is None:
            return chosen(self.column(j).double(), u).double()
        return self.gaussian.pick(lambda t: t[:, at]).at_uniform(u[:, None], v[:, None])[:, 0]

    def mode(self, cells: Tensor) -> Tensor:
        """The most probable seen category of each cell, the mean of each continuous one: float64, (B, C).

        Where ``cells`` (B, C) is false, the result is arbitrary.
        """
        book, q = self.codebook, self.categorical
        codes = q.levels.argmax(q.logits.masked_fill(q.levels.level_unseen, -torch.inf))
        out = torch.zeros(cells.shape, dtype=torch.float64, device=cells.device)
        out.index_copy_(1, book.finite, codes.double())
        if self.gaussian is not None:
            out.index_copy_(1, book.reals, self.gaussian.mean().double())
        for q in self.high_cardinality:
            out[:, q.vocabulary.column] = q.mode(cells[:, q.vocabulary.column])
        return out
