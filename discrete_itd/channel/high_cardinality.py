"""The posterior of a high-cardinality column: computed only where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Vocabulary
from discrete_itd.channel.devices import replace_rows, rows_where
from discrete_itd.channel.levels import VERTEX

CODE_KNOWN_SNR = 2e5  # suffices for codes that lie at least a tenth of a unit apart
CHUNK_CELLS = 1 << 24  # rows times categories of one softmax


class VocabularyPosterior:
    r"""A distribution over the categories of a high-cardinality column, one for each of B rows.

    Its logits are :math:`\log\pi_k + \langle y, e_k\rangle - \gamma\|e_k\|^2/2 + f_k`, eq. (2), with :math:`f_k =
    \langle h, u_k\rangle` of a network; so the pair (y, h) of a few numbers is the whole posterior, and one matrix
    product normalises it exactly.

    Parameters
    ----------
    vocabulary : Vocabulary log_probs : Tensor, shape (K,) or (B, K), nats
        The prior, :math:`\log\pi`, shared or for each row.
    y, snr : Tensor, shapes (B, D_j) and (B,) h : Tensor, shape (B, r), optional u : Tensor, shape (n_levels, r),
    optional
        The network's vectors of the categories; it moves probability among the seen ones only.
    shared : bool
        Whether all rows are equal, so that one is computed for all.

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
        *,
        shared: bool = False,
    ) -> None:
        self.vocabulary, self.log_probs = vocabulary, log_probs
        self.y, self.snr, self.h, self.u, self.shared = y, snr, h, u, shared

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
            if self.shared:
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
            if self.shared:
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

    def pick(self, rows: Callable[[Tensor], Tensor], *, shared: bool) -> VocabularyPosterior:
        """The posterior of the rows that ``rows`` selects from each tensor."""
        h = None if self.h is None else rows(self.h)
        y, snr = rows(self.y), rows(self.snr)
        prior = self.log_probs if self.log_probs.ndim == 1 else rows(self.log_probs)
        return VocabularyPosterior(self.vocabulary, prior, y, snr, h, self.u, shared=shared)

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
