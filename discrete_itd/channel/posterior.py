r"""The posterior of a whole row: a product of one distribution per column.

Each family of columns has its own kind of distribution, all with the same operations: mean, log-probability, sample
and the Bayes update :math:`\oplus` by new evidence. A :class:`Posterior` puts the families of a table together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, Vocabulary
from discrete_itd.channel.devices import replace_rows, rows_where
from discrete_itd.channel.gaussian import GaussianPosterior, chosen
from discrete_itd.channel.grid import GridPosterior
from discrete_itd.channel.levels import Levels
from discrete_itd.channel.noise import add_gumbel
from discrete_itd.channel.points import VERTEX

__all__ = [
    "CategoricalPosterior",
    "GaussianPosterior",
    "GridPosterior",
    "Posterior",
    "VocabularyPosterior",
]

CODE_KNOWN_SNR = 2e5  # suffices for codes that lie at least a tenth of a unit apart
CHUNK_CELLS = 1 << 24  # rows times categories of one softmax


class CategoricalPosterior:
    """A categorical distribution over the levels of each low-cardinality column.

    The ``logits`` (B, T), nats, are normalised within every column, unless they are ``normalised`` already; given
    their logsumexp ``log_total`` (B, C), only when they are needed.

    Examples
    --------
    >>> from discrete_itd.channel.points import ColumnPoints
    >>> levels = Levels([ColumnPoints("simplex", 2)])
    >>> q = CategoricalPosterior(levels, torch.zeros(1, 2))
    >>> q.log_prob(torch.tensor([[1]]))
    tensor([[-0.6931]])
    """

    def __init__(
        self,
        levels: Levels,
        logits: Tensor,
        *,
        normalised: bool = False,
        log_total: Tensor | None = None,
    ) -> None:
        self.levels = levels
        if not normalised and log_total is None:
            logits = levels.log_softmax(logits)
        self._logits, self._log_total = logits, log_total

    @property
    def logits(self) -> Tensor:
        """Log-probabilities, shape (B, T), nats."""
        if self._log_total is not None:
            self._logits = self._logits - self.levels.per_level(self._log_total)
            self._log_total = None
        return self._logits

    @property
    def probs(self) -> Tensor:
        """Probabilities, shape (B, T)."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x = \sum_k q_{jk} e_{jk}`, shape (B, D)."""
        return self.levels.mean(self.probs)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of each cell (int64 codes, (B, C)): (B, C), nats."""
        own = self.levels.at(self._logits, codes)
        return own if self._log_total is None else own - self._log_total

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


class VocabularyPosterior:
    r"""A distribution over the categories of a high-cardinality column, computed only where it is needed.

    Its logits are :math:`\log\pi_k + \langle y, e_k\rangle - \gamma\|e_k\|^2/2 + f_k`, eq. (2), with :math:`f_k =
    \langle h, u_k\rangle` of a network; so the pair (y, h) of a few numbers is the whole posterior, and one matrix
    product normalises it exactly.

    Parameters
    ----------
    vocabulary : Vocabulary
    log_probs : Tensor, shape (K,) or (B, K), nats
        The prior, :math:`\log\pi`, shared or for each row.
    y, snr : Tensor, shapes (B, D_j) and (B,)
    h, u : Tensor, shapes (B, r) and (n_levels, r), optional
        A network's output, and its vectors of the categories; it moves probability among the seen ones only.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> vocabulary = Vocabulary(ColumnPoints("code", 3), column=0, first_coord=0)
    >>> nothing = torch.zeros(1, 32)
    >>> q = VocabularyPosterior(vocabulary, torch.log(torch.tensor([0.5, 0.3, 0.2])), nothing, nothing[:, 0])
    >>> q.log_prob(torch.tensor([1.0], dtype=torch.float64)).exp()
    tensor([0.3000])
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        log_probs: Tensor,
        y: Tensor,
        snr: Tensor,
        h: Tensor | None = None,
        u: Tensor | None = None,
    ) -> None:
        self.vocabulary, self.log_probs = vocabulary, log_probs
        self.y, self.snr, self.h, self.u = y, snr, h, u

    @property
    def _is_one_row(self) -> bool:
        """Whether all rows are one, expanded: it is then computed for all."""
        own = [self.y, self.snr] + ([] if self.h is None else [self.h])
        own += [self.log_probs] * (self.log_probs.ndim > 1)
        return all(t.stride(0) == 0 for t in own)

    @classmethod
    def joined(cls, parts: Sequence[VocabularyPosterior]) -> VocabularyPosterior:
        """Concatenate the rows of several posteriors of the same column."""
        first = parts[0]
        prior, h = first.log_probs, first.h
        if prior.ndim > 1:
            prior = torch.cat([q.log_probs for q in parts])
        if h is not None:
            h = torch.cat([q.h for q in parts if q.h is not None])
        y, snr = torch.cat([q.y for q in parts]), torch.cat([q.snr for q in parts])
        return cls(first.vocabulary, prior, y, snr, h, first.u)

    def _bases(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of the numbered rows, and log prior plus evidence (2) of each category, without a network: (b, K)."""
        n, codes = self.vocabulary.n_levels, self.vocabulary.codes
        for part in rows.split(max(1, CHUNK_CELLS // len(codes))):
            known = torch.isinf(self.snr[part])
            y = self.y[part] * torch.where(known, CODE_KNOWN_SNR, 1.0)[:, None]
            gamma = torch.where(known, CODE_KNOWN_SNR, self.snr[part])[:, None]
            prior = self.log_probs if self.log_probs.ndim == 1 else self.log_probs[part]
            base = torch.addmm(prior, y, codes.T)
            yield part, torch.cat([base[:, :n] - gamma * (VERTEX**2 / 2), base[:, n:]], 1)

    def log_evidence(self) -> Tensor:
        """Log-likelihood (B,) of the evidence under the prior, nats, up to a constant that depends on it alone.

        Where the cell is known it is the log-prior of its category. Rows without evidence cost nothing on a CPU.
        """

        def compute(rows: Tensor) -> Tensor:
            parts = []
            for i, q in self._bases(rows):
                at, p = q.argmax(1), self.log_probs
                known = p[at] if p.ndim == 1 else p[i, at]
                parts.append(torch.where(torch.isinf(self.snr[i]), known, torch.logsumexp(q, 1)))
            return torch.cat(parts)

        return replace_rows(torch.zeros_like(self.snr), self.snr > 0, compute)

    def _logits(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of the numbered rows, and their normalised logits (b, K)."""
        n = self.vocabulary.n_levels
        for part, base in self._bases(rows):
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
        """Log-probability of each cell (float64 codes, (B,)), nats; 0 where it is NaN, which costs nothing on a CPU."""
        codes = cells.nan_to_num(0.0).long()

        def compute(asked: Tensor) -> Tensor:
            if self._is_one_row:
                _, q = next(self._logits(asked[:1]))
                return q[0, codes[asked]]
            parts = [q.gather(1, codes[i, None])[:, 0] for i, q in self._logits(asked)]
            return torch.cat(parts)

        return replace_rows(self.y.new_zeros(len(cells)), ~cells.isnan(), compute)

    def log_probs_of_all(self) -> Tensor:
        """Log-probabilities of all categories, (B, K), nats."""
        rows = torch.arange(len(self.y), device=self.y.device)
        return torch.cat([q for _, q in self._logits(rows)])

    def mode(self, cells: Tensor) -> Tensor:
        """The most probable seen category where ``cells`` (B,) is true: float64 codes, (B,); arbitrary elsewhere."""
        out = torch.zeros(len(self.y), dtype=torch.float64, device=self.y.device)
        for part, logits in self._logits(rows_where(cells)):
            out[part] = logits[:, : self.vocabulary.n_levels].argmax(1).double()
        return out

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x`, shape (B, D_j); where the cell is known, the point itself."""
        codes, out = self.vocabulary.codes, self.y
        noisy = ~torch.isinf(self.snr)
        if self.h is None:  # where nothing is known, the mean is that of the prior
            prior = self.log_probs.exp() @ codes
            out = torch.where((self.snr == 0)[:, None], prior, out)
            noisy = noisy & (self.snr > 0)

        def compute(rows: Tensor) -> Tensor:
            if self._is_one_row:
                _, q = next(self._logits(rows[:1]))
                return (q.exp() @ codes).expand(len(rows), -1)
            return torch.cat([q.exp() @ codes for _, q in self._logits(rows)])

        return replace_rows(out, noisy, compute)

    def update(self, y: Tensor, snr: Tensor) -> VocabularyPosterior:
        """The Bayes update by evidence ``y`` (B, D_j) at ``snr`` (B,)."""
        y = torch.where(torch.isinf(snr)[:, None], y, self.y + y)
        return VocabularyPosterior(
            self.vocabulary, self.log_probs, y, self.snr + snr, self.h, self.u
        )

    def pick(self, rows: Callable[[Tensor], Tensor]) -> VocabularyPosterior:
        """The posterior of the rows that ``rows`` selects from each tensor."""
        h = None if self.h is None else rows(self.h)
        prior = self.log_probs if self.log_probs.ndim == 1 else rows(self.log_probs)
        return VocabularyPosterior(self.vocabulary, prior, rows(self.y), rows(self.snr), h, self.u)

    def sample(self, generator: torch.Generator, cells: Tensor, *, allow_unseen: bool) -> Tensor:
        """One category where ``cells`` (B,) is true: float64 codes, (B,); arbitrary elsewhere."""
        out = torch.zeros(len(self.y), dtype=torch.float64, device=self.y.device)
        for part, logits in self._logits(rows_where(cells)):
            if self.vocabulary.open and not allow_unseen:
                logits = logits[:, : self.vocabulary.n_levels]
            probs = torch.softmax(logits.double(), 1)
            u = torch.rand(
                len(part), 1, generator=generator, device=probs.device, dtype=probs.dtype
            )
            code = torch.searchsorted(probs.cumsum(1), u, right=True)[:, 0]
            out[part] = code.clamp_max(probs.shape[1] - 1).double()
        return out


class Posterior:
    """The distribution of a whole row, with independent columns.

    Parameters
    ----------
    codebook : Codebook
    categorical : CategoricalPosterior
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
        return self._pick(lambda t: t.expand(n, *t.shape[1:]))

    def rows(self, part: slice | Tensor) -> Posterior:
        """The posterior of some of the rows."""
        return self._pick(lambda t: t[part])

    def _pick(self, rows: Callable[[Tensor], Tensor]) -> Posterior:
        gaussian = None if self.gaussian is None else self.gaussian.pick(rows)
        high = [q.pick(rows) for q in self.high_cardinality]
        return Posterior(self.codebook, self.categorical.pick(rows), gaussian, high)

    def of_cells(self, place: Tensor) -> Posterior:
        """The posterior whose cell (i, j) is that of row ``place[i, j]``, (B, C), in column j."""
        book, levels = self.codebook, self.codebook.levels
        level = torch.arange(levels.n_points, device=place.device)
        logits = self.categorical.logits[place[:, book.finite][:, levels.level_column], level]
        gaussian, at = self.gaussian, place[:, book.reals]
        if gaussian is not None:
            real = torch.arange(at.shape[1], device=place.device)
            gaussian = gaussian.pick(lambda t: t[at, real])
        high = [
            q.pick(lambda t, own=place[:, q.vocabulary.column]: t[own])
            for q in self.high_cardinality
        ]
        categorical = CategoricalPosterior(levels, logits, normalised=True)
        return Posterior(book, categorical, gaussian, high)

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
        """The most probable seen category of each cell, 0 in continuous columns: float64, (B, C).

        Where ``cells`` (B, C) is false, the result is arbitrary.
        """
        book, q = self.codebook, self.categorical
        codes = q.levels.argmax(q.logits.masked_fill(q.levels.level_unseen, -torch.inf))
        out = torch.zeros(cells.shape, dtype=torch.float64, device=cells.device)
        out.index_copy_(1, book.finite, codes.double())
        for q in self.high_cardinality:
            out[:, q.vocabulary.column] = q.mode(cells[:, q.vocabulary.column])
        return out
