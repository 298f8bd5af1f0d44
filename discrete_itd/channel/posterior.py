r"""What a denoiser believes about every column of a row: a product of one distribution per column.

Each family of columns has its own kind of distribution, all with the same four operations (mean, log-probability,
sample and the Bayes update :math:`\oplus` by new evidence); a :class:`Posterior` puts the families of a table
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, Vocabulary
from discrete_itd.channel.levels import REAL_KNOWN_SNR, VERTEX, Levels

Pick = Callable[[Tensor], Tensor]

CODE_KNOWN_SNR = 2e5  # codes lie a tenth of a unit apart or more
CHUNK_CELLS = 1 << 24  # rows times words of one softmax over a vocabulary


class CategoricalPosterior:
    r"""A product of categorical distributions over levels.

    Parameters
    ----------
    levels : Levels
    logits : Tensor, shape (B, T), nats
        Normalised within every column by the constructor.
    normalised : bool
        Whether they already are.

    Examples
    --------
    >>> from discrete_itd.channel.levels import ColumnPoints
    >>> levels = Levels([ColumnPoints("simplex", 2)])
    >>> q = CategoricalPosterior(levels, torch.zeros(1, 2))
    >>> q.log_prob(torch.tensor([[1]]))
    tensor([[-0.6931]])
    """

    def __init__(self, levels: Levels, logits: Tensor, *, normalised: bool = False) -> None:
        self.levels = levels
        self.logits = logits if normalised else levels.log_softmax(logits)

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

    def pick(self, rows: Pick) -> CategoricalPosterior:
        """The posterior of other rows, ``rows`` of each tensor."""
        return CategoricalPosterior(self.levels, rows(self.logits), normalised=True)

    def sample(self, generator: torch.Generator, *, allow_unseen: bool = False) -> Tensor:
        """One category per column: int64 codes, shape (B, C)."""
        scores = self.logits + _gumbel(self.logits.shape, self.logits, generator)
        if self.levels.any_open and not allow_unseen:
            scores = scores.masked_fill(self.levels.level_unseen, -torch.inf)
        return self.levels.argmax(scores)


class GaussianPosterior:
    r"""A product of mixtures of Gaussians, one mixture for every continuous column.

    Parameters
    ----------
    log_weight, mean, var : Tensor, shape (B, R, K)
        Of the K components of each column; the weights are normalised by the constructor.
    normalised : bool
        Whether they already are.

    Notes
    -----
    One component is the Gaussian posterior of the mathematics. The Bayes update of a mixture is a mixture of as many
    components again: with evidence :math:`y = \delta x + \sqrt\delta\xi` and c = y/δ,

    .. math:: \mu \to \frac{\mu + vy}{1 + \delta v}, \quad v \to \frac{v}{1 + \delta v}, \quad
              \log w \to \log w - \tfrac12\log(1 + \delta v) - \frac{\delta(\mu - c)^2}{2(1 + \delta v)}.

    Examples
    --------
    >>> zero = torch.zeros(1, 1, 1)
    >>> q = GaussianPosterior(zero, zero, zero + 1.0).update(torch.tensor([[3.0]]), torch.tensor([[2.0]]))
    >>> q.mean(), q.var.flatten()
    (tensor([[1.]]), tensor([0.3333]))
    """

    def __init__(
        self, log_weight: Tensor, mean: Tensor, var: Tensor, *, normalised: bool = False
    ) -> None:
        self.log_weight = log_weight if normalised else torch.log_softmax(log_weight, 2)
        self.means, self.var = mean, var

    def mean(self) -> Tensor:
        r"""The denoised values :math:`\hat x`, shape (B, R)."""
        return (self.log_weight.exp() * self.means).sum(2)

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-density at each cell (B, R): (B, R), nats."""
        z = (values[:, :, None] - self.means).square() / self.var
        return torch.logsumexp(
            self.log_weight - 0.5 * (z + torch.log(2 * math.pi * self.var)), dim=2
        )

    def update(self, y: Tensor, snr: Tensor) -> GaussianPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by evidence ``y`` and ``snr``, both (B, R)."""
        known = torch.isinf(snr)
        snr = torch.where(known, REAL_KNOWN_SNR, snr)
        y = torch.where(known, y * REAL_KNOWN_SNR, y)
        centre = (y / snr.clamp_min(torch.finfo(snr.dtype).tiny))[:, :, None]
        y, snr = y[:, :, None], snr[:, :, None]
        shrink = 1 + snr * self.var
        # where snr is 0, so is y, and the centre
        log_weight = (
            self.log_weight - 0.5 * shrink.log() - 0.5 * snr * (self.means - centre) ** 2 / shrink
        )
        return GaussianPosterior(
            log_weight, (self.means + self.var * y) / shrink, self.var / shrink
        )

    def pick(self, rows: Pick) -> GaussianPosterior:
        """The posterior of other rows, ``rows`` of each tensor."""
        parts = self.log_weight, self.means, self.var
        return GaussianPosterior(*map(rows, parts), normalised=True)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One value per column, shape (B, R)."""
        pick = (
            self.log_weight + _gumbel(self.log_weight.shape, self.log_weight, generator)
        ).argmax(2, keepdim=True)
        xi = torch.randn(
            self.means.shape[:2],
            generator=generator,
            device=self.means.device,
            dtype=self.var.dtype,
        )
        return self.means.gather(2, pick)[:, :, 0] + self.var.gather(2, pick)[:, :, 0].sqrt() * xi


class VocabularyPosterior:
    r"""A distribution over a large vocabulary, worked out only where it is asked for.

    Its logits are :math:`\log\pi_k + \langle y, e_k\rangle - \gamma\|e_k\|^2/2 + f_k`, eq. (2), with
    :math:`f_k = \langle h, u_k\rangle` of a network; so the pair (y, h) of a few numbers is the whole posterior, and
    one matrix product normalises it exactly.

    Parameters
    ----------
    vocabulary : Vocabulary
    log_probs : Tensor, shape (K,), nats
        The prior, :math:`\log\pi`.
    y : Tensor, shape (B, D_j)
    snr : Tensor, shape (B,)
    h : Tensor, shape (B, r), optional
    u : Tensor, shape (n_levels, r), optional
        The network's words, those of the unseen level left out: it moves mass among the seen only.
    shared : bool
        Whether all rows are one and the same, so that one need be worked out only.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        log_probs: Tensor,
        y: Tensor,
        snr: Tensor,
        h: Tensor | None = None,
        u: Tensor | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self.vocabulary, self.log_probs = vocabulary, log_probs
        self.y, self.snr, self.h, self.u, self.shared = y, snr, h, u, shared

    def _logits(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of the numbered rows, and their normalised logits (b, K)."""
        n, codes = self.vocabulary.n_levels, self.vocabulary.codes
        for part in rows.split(max(1, CHUNK_CELLS // len(codes))):
            known = torch.isinf(self.snr[part])
            y = self.y[part] * torch.where(known, CODE_KNOWN_SNR, 1.0)[:, None]
            gamma = torch.where(known, CODE_KNOWN_SNR, self.snr[part])[:, None]
            base = torch.addmm(self.log_probs, y, codes.T)
            base = torch.cat([base[:, :n] - gamma * (VERTEX**2 / 2), base[:, n:]], 1)
            if self.h is None or self.u is None:
                yield part, torch.log_softmax(base, 1)
                continue
            seen = torch.log_softmax(base[:, :n] + self.h[part] @ self.u.T, 1)
            if self.vocabulary.open:
                split = torch.log_softmax(
                    torch.stack([torch.logsumexp(base[:, :n], 1), base[:, n]], 1), 1
                )
                seen = torch.cat([seen + split[:, :1], split[:, 1:]], 1)
            yield part, seen

    def log_prob(self, cells: Tensor) -> Tensor:
        """Log-probability of each cell (float64 codes, (B,)), nats; 0 where it is NaN, at no cost."""
        out = self.y.new_zeros(len(cells))
        asked = torch.nonzero(~cells.isnan()).flatten()
        if self.shared and len(asked):
            _, q = next(self._logits(asked[:1]))
            return out.index_copy(0, asked, q[0, cells[asked].long()])
        parts = [q.gather(1, cells[i, None].long())[:, 0] for i, q in self._logits(asked)]
        return out.index_copy(0, asked, torch.cat(parts)) if parts else out

    def log_probs_of_all(self) -> Tensor:
        """Log-probabilities of all categories, (B, K), nats: as large as the vocabulary."""
        rows = torch.arange(len(self.y), device=self.y.device)
        parts = [q for _, q in self._logits(rows)]
        return torch.cat(parts) if parts else self.y.new_zeros(0, self.vocabulary.n_points)

    def mode(self, cells: Tensor) -> Tensor:
        """The most probable seen category where ``cells`` (B,) is true: float64 codes, (B,); 0 elsewhere."""
        out = torch.zeros(len(self.y), dtype=torch.float64, device=self.y.device)
        for part, logits in self._logits(torch.nonzero(cells).flatten()):
            out[part] = logits[:, : self.vocabulary.n_levels].argmax(1).double()
        return out

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x`, shape (B, D_j); where the cell is known, the point itself."""
        codes, out = self.vocabulary.codes, self.y
        blurred = ~torch.isinf(self.snr)
        if self.h is None:  # where nothing is known, the mean is that of the prior
            prior = self.log_probs.exp() @ codes
            out = torch.where((self.snr == 0)[:, None], prior, out)
            blurred = blurred & (self.snr > 0)
        rows = torch.nonzero(blurred).flatten()
        if self.shared and len(rows):
            _, q = next(self._logits(rows[:1]))
            return (q.exp() @ codes).expand(len(out), -1)
        parts = [q.exp() @ codes for _, q in self._logits(rows)]
        return out.index_copy(0, rows, torch.cat(parts)) if parts else out

    def update(self, y: Tensor, snr: Tensor) -> VocabularyPosterior:
        """The Bayes update by evidence ``y`` (B, D_j) at ``snr`` (B,)."""
        y = torch.where(torch.isinf(snr)[:, None], y, self.y + y)
        return VocabularyPosterior(
            self.vocabulary, self.log_probs, y, self.snr + snr, self.h, self.u
        )

    def pick(self, rows: Pick, *, shared: bool) -> VocabularyPosterior:
        """The posterior of other rows, ``rows`` of each tensor."""
        h = None if self.h is None else rows(self.h)
        y, snr = rows(self.y), rows(self.snr)
        return VocabularyPosterior(
            self.vocabulary, self.log_probs, y, snr, h, self.u, shared=shared
        )

    def sample(self, generator: torch.Generator, cells: Tensor, *, allow_unseen: bool) -> Tensor:
        """One category where ``cells`` (B,) is true: float64 codes, (B,); 0 elsewhere."""
        out = torch.zeros(len(self.y), dtype=torch.float64, device=self.y.device)
        for part, logits in self._logits(torch.nonzero(cells).flatten()):
            if self.vocabulary.open and not allow_unseen:
                logits = logits[:, : self.vocabulary.n_levels]
            probs = torch.softmax(logits.double(), 1)
            u = torch.rand(
                len(part), 1, generator=generator, device=probs.device, dtype=probs.dtype
            )
            word = torch.searchsorted(probs.cumsum(1), u, right=True)[:, 0]
            out[part] = word.clamp_max(probs.shape[1] - 1).double()
        return out


class Posterior:
    """The distribution of a whole row, column by column independent.

    Parameters
    ----------
    codebook : Codebook
    categorical : CategoricalPosterior
        Of the columns of few categories.
    gaussian : GaussianPosterior
        Of the continuous columns.
    words : list of VocabularyPosterior
        Of the columns of many categories.
    """

    def __init__(
        self,
        codebook: Codebook,
        categorical: CategoricalPosterior,
        gaussian: GaussianPosterior | None = None,
        words: list[VocabularyPosterior] | None = None,
    ) -> None:
        self.codebook = codebook
        self.categorical, self.gaussian, self.words = categorical, gaussian, words or []

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x`, shape (B, D)."""
        parts = [self.categorical.mean()]
        if self.gaussian is not None:
            parts.append(self.gaussian.mean())
        parts += [q.mean() for q in self.words]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability, or log-density, of each cell of rows ``x`` (B, C): (B, C), nats; 0 where NaN."""
        book = self.codebook
        cells = x.nan_to_num(0.0)
        own = self.categorical.log_prob(cells[:, book.finite].long())
        if self.gaussian is not None or self.words:
            out = own.new_zeros(x.shape).index_copy(1, book.finite, own)
            if self.gaussian is not None:
                values = cells[:, book.reals].to(own)
                out = out.index_copy(1, book.reals, self.gaussian.log_prob(values))
            for q in self.words:
                column = torch.tensor([q.vocabulary.column], device=x.device)
                own = q.log_prob(x[:, q.vocabulary.column])
                out = out.index_copy(1, column, own[:, None])
        else:
            out = own
        return out.masked_fill(x.isnan(), 0.0)

    def update(self, y: Tensor, snr: Tensor) -> Posterior:
        r"""The Bayes update :math:`q \oplus \Delta` by new evidence of every column about itself.

        Parameters
        ----------
        y : Tensor, shape (B, D)
            Increment of the statistic (the point itself where ``snr`` is infinite).
        snr : Tensor, shape (B, C)
            Increment of the SNR.
        """
        book = self.codebook
        categorical = self.categorical.update(y[:, : book.levels.n_coords], snr[:, book.finite])
        gaussian = self.gaussian
        if gaussian is not None:
            gaussian = gaussian.update(y[:, book.real_coords], snr[:, book.reals])
        words = [
            q.update(y[:, q.vocabulary.coords], snr[:, q.vocabulary.column]) for q in self.words
        ]
        return Posterior(book, categorical, gaussian, words)

    def expand(self, n: int) -> Posterior:
        """One row's posterior for ``n`` rows."""
        return self._pick(lambda t: t.expand(n, *t.shape[1:]), shared=True)

    def rows(self, part: slice | Tensor) -> Posterior:
        """The posterior of some of the rows."""
        return self._pick(lambda t: t[part], shared=False)

    def _pick(self, rows: Pick, *, shared: bool) -> Posterior:
        gaussian = None if self.gaussian is None else self.gaussian.pick(rows)
        words = [q.pick(rows, shared=shared) for q in self.words]
        return Posterior(self.codebook, self.categorical.pick(rows), gaussian, words)

    def sample(
        self,
        generator: torch.Generator,
        cells: Tensor | None = None,
        *,
        allow_unseen: bool = False,
    ) -> Tensor:
        """One value per cell: float64, shape (B, C).

        The level of unseen categories names no value; it is drawn only if asked for. Where ``cells`` (B, C) is false,
        the result is a draw or zero, whichever is cheaper.
        """
        book = self.codebook
        codes = self.categorical.sample(generator, allow_unseen=allow_unseen)
        out = torch.zeros(
            len(codes), book.n_columns, dtype=torch.float64, device=codes.device
        ).index_copy_(1, book.finite, codes.double())
        if self.gaussian is not None:
            out.index_copy_(1, book.reals, self.gaussian.sample(generator).double())
        for q in self.words:
            j = q.vocabulary.column
            where = cells[:, j] if cells is not None else torch.ones_like(q.snr, dtype=torch.bool)
            out[:, j] = q.sample(generator, where, allow_unseen=allow_unseen)
        return out

    def column(self, j: int) -> Tensor:
        """Log-probabilities of the categories of column ``j``: (B, K), nats; that of the unseen, if any, last."""
        book = self.codebook
        for q in self.words:
            if q.vocabulary.column == j:
                return q.log_probs_of_all()
        at = torch.nonzero(book.finite == j).flatten()
        if not len(at):
            raise ValueError(f"column {j} has no categories")
        levels = torch.nonzero(book.levels.level_column == at).flatten()
        return self.categorical.logits[:, levels[book.levels.level_code[levels].argsort()]]

    def mode(self, cells: Tensor) -> Tensor:
        """The most probable seen category of each cell, the mean of each continuous one: float64, (B, C).

        Where ``cells`` (B, C) is false, anything.
        """
        book, q = self.codebook, self.categorical
        codes = q.levels.argmax(q.logits.masked_fill(q.levels.level_unseen, -torch.inf))
        out = torch.zeros(cells.shape, dtype=torch.float64, device=cells.device)
        out.index_copy_(1, book.finite, codes.double())
        if self.gaussian is not None:
            out.index_copy_(1, book.reals, self.gaussian.mean().double())
        for q in self.words:
            out[:, q.vocabulary.column] = q.mode(cells[:, q.vocabulary.column])
        return out


def _gumbel(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator, device=like.device)
    return -torch.log(-torch.log(uniform.clamp_(1e-12, 1 - 1e-7))).to(like)
