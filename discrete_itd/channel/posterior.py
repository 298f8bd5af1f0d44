r"""The posterior of a whole row: a product of one distribution per column.

Each family of columns has its own kind of distribution, all with the same operations: mean, log-probability, sample
and the Bayes update :math:`\oplus` by new evidence. A :class:`Posterior` puts the families of a table together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, Levels
from discrete_itd.channel.gaussian import GaussianPosterior, chosen
from discrete_itd.channel.noise import add_gumbel
from discrete_itd.channel.rounded_numbers import Intervals

__all__ = ["CategoricalPosterior", "GaussianPosterior", "Posterior"]


class CategoricalPosterior:
    """A categorical distribution over the levels of each column of categories.

    The ``logits`` (B, T), nats, are normalised within every column, unless they are ``normalised`` already.

    Attributes
    ----------
    logits : Tensor, shape (B, T)
        Log-probabilities, nats.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> levels = Levels([ColumnPoints("simplex", 2)])
    >>> q = CategoricalPosterior(levels, torch.zeros(1, 2))
    >>> q.log_prob(torch.tensor([[1]]))
    tensor([[-0.6931]])
    """

    def __init__(self, levels: Levels, logits: Tensor, *, normalised: bool = False) -> None:
        self.levels, self.logits = levels, logits if normalised else levels.log_softmax(logits)

    @property
    def probs(self) -> Tensor:
        """Probabilities, shape (B, T)."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x = \sum_k q_{jk} e_{jk}`, shape (B, D)."""
        return self.levels.mean(self.probs)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of each cell (int64 codes, (B, C)): (B, C), nats."""
        return self.levels.at(self.logits, codes)

    def update(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by evidence ``y`` (B, D) at ``snr`` (B, C), eq. (2)."""
        return CategoricalPosterior(self.levels, self.logits + self.levels.evidence(y, snr))

    def pick(self, rows: Callable[[Tensor], Tensor]) -> CategoricalPosterior:
        """The posterior of the rows that ``rows`` selects from each tensor."""
        return CategoricalPosterior(self.levels, rows(self.logits), normalised=True)

    def sample(self, generator: torch.Generator, *, allow_unseen: bool = False) -> Tensor:
        """One category per column: int64 codes, shape (B, C)."""
        scores = add_gumbel(self.logits, generator)
        if self.levels.any_open and not allow_unseen:
            scores = scores.masked_fill(self.levels.level_unseen, -torch.inf)
        return self.levels.argmax(scores)


class Posterior:
    """The distribution of a whole row, with independent columns.

    Parameters
    ----------
    codebook : Codebook
    categorical : CategoricalPosterior
        The columns of categories.
    gaussian : GaussianPosterior
        The continuous columns.
    log_p : Tensor, shape (B, C), optional
        Log-probabilities of the cells of the rows from which each cell was left out, if they are known already.

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
        log_p: Tensor | None = None,
    ) -> None:
        self.codebook = codebook
        self.categorical, self.gaussian = categorical, gaussian
        self.log_p = log_p

    @classmethod
    def mixed(cls, parts: Sequence[Posterior], log_weights: Tensor) -> Posterior:
        """The mixture of M posteriors, column by column, by log-weights (B, M, C), or (B, M, 1) for all columns."""
        book, w = parts[0].codebook, log_weights
        if w.shape[2] > 1:
            w = w[:, :, book.finite][:, :, book.levels.level_column]
        logits = torch.stack([q.categorical.logits for q in parts], 1) + w
        categorical = CategoricalPosterior(book.levels, torch.logsumexp(logits, 1))
        gaussians = [q.gaussian for q in parts if q.gaussian is not None]
        w = log_weights.expand(-1, -1, book.n_columns)[:, :, book.reals]
        return cls(book, categorical, GaussianPosterior.joined(gaussians, w) if gaussians else None)

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x`, shape (B, D)."""
        mean = self.categorical.mean()
        return mean if self.gaussian is None else torch.cat([mean, self.gaussian.mean()], 1)

    def log_prob(self, x: Tensor, numbers: Intervals | None = None) -> Tensor:
        """Log-probability of each cell of rows ``x`` (B, C): (B, C), nats; 0 where NaN.

        It is the log-mass of a number's cell (20) if the number was recorded on a lattice, else its log-density.
        ``numbers`` are the cells of the rows' numbers, if they are computed already.
        """
        book = self.codebook
        cells = x.nan_to_num(0.0)
        log_p = self.categorical.log_prob(cells[:, book.finite].long())
        if log_p.shape == x.shape:
            return log_p.masked_fill(x.isnan(), 0.0)
        out = log_p.new_zeros(x.shape).index_copy(1, book.finite, log_p)
        if self.gaussian is not None:
            numbers = numbers or book.lines.cells(cells[:, book.reals])
            out = out.index_copy(1, book.reals, self.gaussian.log_prob(*numbers).to(log_p))
        return out.masked_fill(x.isnan(), 0.0)

    def log_prob_left_out(self, x: Tensor, asked: Tensor) -> Tensor:
        """:meth:`log_prob` of rows ``x`` (B, C) at the cells ``asked`` (B, C), of which each was left out."""
        if self.log_p is not None:
            return self.log_p
        reals = self.codebook.reals
        if self.gaussian is None or bool(asked[:, reals].all()):
            return self.log_prob(x)
        row, real = torch.nonzero(asked[:, reals] & ~x[:, reals].isnan()).unbind(1)
        numbers = self.codebook.lines.cells(x[row, reals[real]][:, None], real[:, None])
        gaussian = self.gaussian.pick(lambda t: t[row, real][:, None])
        levels = Posterior(self.codebook, self.categorical).log_prob(x)
        return levels.index_put((row, reals[real]), gaussian.log_prob(*numbers)[:, 0].to(levels))

    def update(self, y: Tensor, snr: Tensor) -> Posterior:
        r"""The Bayes update :math:`q \oplus \Delta` by new evidence of every column about itself.

        ``y`` (B, D) is the increment of the statistic (the point itself where ``snr`` is infinite), ``snr`` (B, C) the
        increment of the SNR.
        """
        book = self.codebook
        categorical = self.categorical.update(y[:, : book.levels.n_coords], snr[:, book.finite])
        gaussian = self.gaussian
        if gaussian is not None:
            gaussian = gaussian.update(*book.reals_of(y, snr))
        return Posterior(book, categorical, gaussian)

    def expand(self, n: int) -> Posterior:
        """The posterior of one row repeated for ``n`` rows."""
        return self._pick(lambda t: t.expand(n, *t.shape[1:]))

    def rows(self, part: slice | Tensor) -> Posterior:
        """The posterior of some of the rows."""
        return self._pick(lambda t: t[part])

    def _pick(self, rows: Callable[[Tensor], Tensor]) -> Posterior:
        gaussian = None if self.gaussian is None else self.gaussian.pick(rows)
        log_p = None if self.log_p is None else rows(self.log_p)
        return Posterior(self.codebook, self.categorical.pick(rows), gaussian, log_p)

    def of_cells(self, place: Tensor) -> Posterior:
        """The posterior whose cell (i, j) comes from row ``place[i, j]``, (B, C), and column j."""
        book, levels = self.codebook, self.codebook.levels
        level = torch.arange(levels.n_points, device=place.device)
        logits = self.categorical.logits[place[:, book.finite][:, levels.level_column], level]
        gaussian, real_place = self.gaussian, place[:, book.reals]
        if gaussian is not None:
            real = torch.arange(real_place.shape[1], device=place.device)
            gaussian = gaussian.pick(lambda t: t[real_place, real])
        categorical = CategoricalPosterior(levels, logits, normalised=True)
        log_p = None if self.log_p is None else self.log_p.gather(0, place)
        return Posterior(book, categorical, gaussian, log_p)

    def with_cells(
        self, replacements: Iterable[tuple[Tensor, Tensor, Tensor | GaussianPosterior]]
    ) -> Posterior:
        """This posterior with other distributions of the cells at ``rows`` and ``columns`` (n,).

        These are log-probabilities (n, K) of the categories of one column, or densities of continuous cells.
        """
        book, logits, gaussian = self.codebook, self.categorical.logits.clone(), self.gaussian
        n, n_reals = len(logits), len(book.reals)
        # number of each continuous cell's density: first those of this posterior, by row, then the replacements
        place = torch.arange(n * n_reals, device=logits.device).view(n, n_reals)
        n_densities, densities = n * n_reals, []
        for rows, columns, cells in replacements:
            if isinstance(cells, Tensor):
                logits[rows, book.levels.own(book.place[int(columns[0])])] = cells.to(logits)
                continue
            new = torch.arange(len(rows), device=rows.device)
            place[rows, torch.searchsorted(book.reals, columns)] = n_densities + new
            n_densities, densities = n_densities + len(rows), [*densities, cells]
        if gaussian is not None and densities:
            gaussian = gaussian.pick(lambda t: t.to(densities[0].means)).with_cells(
                place, densities
            )
        return Posterior(book, CategoricalPosterior(book.levels, logits, normalised=True), gaussian)

    def sample(self, generator: torch.Generator, *, allow_unseen: bool = False) -> Tensor:
        """One value per cell: float64, shape (B, C).

        The level of unseen categories is drawn only if ``allow_unseen``.
        """
        book = self.codebook
        codes = self.categorical.sample(generator, allow_unseen=allow_unseen)
        out = torch.zeros(
            len(codes), book.n_columns, dtype=torch.float64, device=codes.device
        ).index_copy_(1, book.finite, codes.double())
        if self.gaussian is not None:
            numbers = book.lines.rounded(self.gaussian.sample(generator))
            out.index_copy_(1, book.reals, numbers)
        return out

    def column(self, j: int) -> Tensor:
        """Log-probabilities of the categories of column ``j``: (B, K), nats; the unseen one, if any, last."""
        book = self.codebook
        if j not in book.place:
            raise ValueError(f"column {j} has no categories")
        return self.categorical.logits[:, book.levels.own(book.place[j])].contiguous()

    def number(self, j: int, rows: slice | Tensor = slice(None)) -> GaussianPosterior:
        """The distribution of the continuous column ``j`` in some rows."""
        assert self.gaussian is not None
        index = torch.nonzero(self.codebook.reals == j).flatten()
        return self.gaussian.pick(lambda t: t[rows][:, index])

    def at_uniform(self, j: int, u: Tensor, v: Tensor) -> Tensor:
        """Draws (B,), float64, of column ``j`` by inverse distribution functions of uniform numbers ``u``, ``v`` (B,).

        In a continuous column ``u`` chooses the component and ``v`` the value within it.
        """
        index = torch.nonzero(self.codebook.reals == j).flatten()
        if not len(index):
            return chosen(self.column(j).double(), u).double()
        drawn = self.number(j).at_uniform(u[:, None], v[:, None])
        return self.codebook.lines.rounded(drawn, index)[:, 0]

    def mode(self) -> Tensor:
        """The most probable seen category of each cell, 0 in continuous columns: float64, (B, C)."""
        book, q = self.codebook, self.categorical
        codes = q.levels.argmax(q.logits.masked_fill(q.levels.level_unseen, -torch.inf))
        out = codes.new_zeros(len(codes), book.n_columns, dtype=torch.float64)
        return out.index_copy_(1, book.finite, codes.double())
