"""Denoisers that are exact for a distribution written down in full."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
    VocabularyPosterior,
)
from discrete_itd.denoisers.base import ExactDenoiser, row_product

MOST_NARROW = 7  # components fitted to a continuous column
ROWS_PER_COMPONENT = 16  # a short column gets fewer
WIDE_SD = 2.0  # of the component that catches outliers: four standard deviations of the column
FINEST_SD = 0.002  # of a component; a value that repeats would else get an infinite density
PRIOR_ROWS = 2.0  # by which a component's variance is drawn towards that of its share of the column
EM_ROUNDS, EM_ROWS, EM_CELLS = 60, 20000, 1 << 24


class MarginalDenoiser(ExactDenoiser):
    """Exact for independent columns: each column's Bayes posterior from its own evidence.

    Parameters
    ----------
    codebook : Codebook
    probs : Tensor, shape (T,)
        Marginal probability of every level; positive, normalised within every column here.
    mixture : Tensor, shape (3, R, K), optional
        Log-weights, means and variances of the mixture of Gaussians of every continuous column. The last component
        is meant to be wide and catch outliers.
    words : sequence of Tensor, shape (K_j,)
        Marginal probability of every category of every large vocabulary.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)])
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> MarginalDenoiser(book, torch.tensor([0.25, 0.75])).log_prob(x)
    tensor([-0.2877])
    """

    independent = True
    log_probs: Tensor
    mixture: Tensor

    def __init__(
        self,
        codebook: Codebook,
        probs: Tensor,
        mixture: Tensor | None = None,
        words: Sequence[Tensor] = (),
    ) -> None:
        super().__init__(codebook)
        levels = codebook.levels
        if probs.shape != (levels.n_points,) or not bool((probs > 0).all()):
            raise ValueError(f"probs must be {levels.n_points} positive numbers")
        logits = probs.to(codebook.known_snr).log()
        self.register_buffer("log_probs", levels.log_softmax(logits[None])[0])
        if mixture is None:
            mixture = torch.zeros(3, 0, 1)
        if mixture.ndim != 3 or mixture.shape[:2] != (3, len(codebook.reals)):
            raise ValueError(f"mixture must have shape (3, {len(codebook.reals)}, K)")
        if not bool((mixture[2] > 0).all()):
            raise ValueError("the variances of a mixture must be positive")
        self.register_buffer("mixture", mixture.to(codebook.known_snr))
        if [len(w) for w in words] != [v.n_points for v in codebook.vocabularies]:
            raise ValueError("words must hold one probability for each category")
        self.n_words = len(words)
        for i, p in enumerate(words):
            if not bool((p > 0).all()):
                raise ValueError("probabilities of words must be positive")
            self.register_buffer(f"words_{i}", (p / p.sum()).to(codebook.known_snr).log())

    @property
    def log_words(self) -> list[Tensor]:
        """Log-probabilities of every large vocabulary."""
        return [getattr(self, f"words_{i}") for i in range(self.n_words)]

    @classmethod
    def fit(
        cls,
        codebook: Codebook,
        x: Tensor,
        *,
        pseudo_count: float = 0.5,
        unseen_counts: Sequence[float] | None = None,
    ) -> MarginalDenoiser:
        """Smoothed marginals of the rows ``x`` (N, C), missing cells left out.

        A category's probability is proportional to its count plus ``pseudo_count``; one half is the estimator of
        Krichevsky and Trofimov (1981). The level of unseen categories gets nothing but the pseudo-count, or its
        entry of ``unseen_counts`` (one number a column) where given. A continuous column gets a mixture
        of Gaussians by expectation maximisation, and one wide component with the weight of one row.
        """
        levels, x = codebook.levels, x.cpu()

        def unseen(j: int) -> float:
            return pseudo_count if unseen_counts is None else float(unseen_counts[j])

        counts = torch.full((levels.n_points,), float(pseudo_count), dtype=torch.float64)
        finite = codebook.finite.cpu()
        where = levels.level_unseen.cpu()
        if bool(where.any()):
            column = finite[levels.level_column.cpu()[where]]
            counts[where] = torch.tensor([unseen(j) for j in column.tolist()], dtype=torch.float64)
        codes = x[:, finite]
        level = levels.index_of(codes.nan_to_num(0.0).long().to(codebook.device)).cpu()
        counts += torch.bincount(level[~codes.isnan()], minlength=levels.n_points)
        words = []
        for v in codebook.vocabularies:
            cells = x[:, v.column]
            count = torch.bincount(cells[~cells.isnan()].long(), minlength=v.n_points).double()
            count[: v.n_levels] += pseudo_count
            if v.open:
                count[-1] += unseen(v.column)
            words.append(count.to(codebook.device))
        reals = x[:, codebook.reals.cpu()].to(codebook.device)
        mixture = fit_mixtures(reals) if reals.shape[1] else None
        return cls(codebook, counts.to(codebook.device), mixture, words)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        book = self.codebook
        evidence = book.levels.evidence(y[:, : book.levels.n_coords], snr[:, book.finite])
        categorical = CategoricalPosterior(book.levels, self.log_probs + evidence)
        gaussian = None
        if len(book.reals):
            prior = GaussianPosterior(*self.mixture[:, None].expand(-1, len(y), -1, -1))
            gaussian = prior.update(y[:, book.real_coords], snr[:, book.reals])
        words = [
            VocabularyPosterior(v, p, y[:, v.coords], snr[:, v.column])
            for v, p in zip(book.vocabularies, self.log_words, strict=True)
        ]
        return Posterior(book, categorical, gaussian, words)

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.log_probs + evidence
        return self.codebook.levels.logsumexp(logits).sum(1), logits

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        return self.marginals().expand(len(x)).log_prob(x).sum(1)

    def blurred(self, sd: float) -> MarginalDenoiser:
        mixture = self.mixture.clone()
        mixture[2] += sd**2
        return MarginalDenoiser(
            self.codebook, self.log_probs.exp(), mixture, [w.exp() for w in self.log_words]
        )

    def marginals(self) -> Posterior:
        """What is believed of a row of which nothing is known, one row."""
        book = self.codebook
        y = torch.zeros(1, book.n_coords, dtype=book.dtype, device=book.device)
        snr = torch.zeros(1, book.n_columns, dtype=book.dtype, device=book.device)
        return self(y, snr)


@torch.no_grad()
def fit_mixtures(values: Tensor) -> Tensor:
    """Mixtures of Gaussians of every column, by expectation maximisation.

    Parameters
    ----------
    values : Tensor of float64, shape (N, R)
        About of mean 0 and standard deviation one half; NaN where missing.

    Returns
    -------
    Tensor, shape (3, R, K)
        Log-weights, means and variances; the last component is the wide one.
    """
    counts = (~values.isnan()).sum(0)
    values = values[:: max(1, len(values) // EM_ROWS)]
    n_narrow = int((len(values) // ROWS_PER_COMPONENT) ** 0.5) if len(values) else 1
    n_narrow = max(1, min(MOST_NARROW, n_narrow))
    step = max(1, EM_CELLS // max(1, len(values) * n_narrow))
    parts = [_em(v, n_narrow) for v in values.split(step, 1)]
    weight, mean, var = (torch.cat(p, 0) for p in zip(*parts, strict=True))  # (R, K)
    wide = 1 / (counts + 2.0).to(mean)[:, None]
    log_weight = torch.cat([weight.log() + torch.log1p(-wide), wide.log()], 1)
    mean = torch.cat([mean, torch.zeros_like(wide)], 1)
    var = torch.cat([var, torch.full_like(wide, WIDE_SD**2)], 1)
    return torch.stack([log_weight, mean, var])


def _em(values: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and variances (R, n) of the columns of ``values`` (N, R)."""
    there = ~values.isnan()
    filled = values.nan_to_num(0.0)
    count = there.sum(0).clamp_min(1).double()[:, None]
    centre = filled.sum(0)[:, None] / count
    total = (
        torch.where(there, filled - centre[:, 0], 0.0).square().sum(0)[:, None] / count
    ).clamp_min(FINEST_SD**2)
    quantile = (torch.arange(n, device=values.device) + 0.5) / n
    start = (
        values.nanquantile(quantile.to(values), dim=0).T if len(values) else centre.expand(-1, n)
    )
    mean = torch.where(start.isnan(), 0.0, start).clone()
    total = torch.where(there.any(0)[:, None], total, 0.25)
    prior = total / n**2
    var = prior.expand(-1, n).clone()
    weight = torch.full_like(mean, 1 / n)
    for _ in range(EM_ROUNDS if n > 1 else 1):
        z = (filled[:, :, None] - mean).square() / var  # (N, R, K)
        log_r = weight.log() - 0.5 * (z + var.log())
        r = torch.softmax(log_r, 2) * there[:, :, None]
        mass = r.sum(0)
        weight = (mass + 0.5) / (mass + 0.5).sum(1, keepdim=True)
        mean = ((r * filled[:, :, None]).sum(0) + 0.5 * mean) / (mass + 0.5)
        square = (r * (filled[:, :, None] - mean).square()).sum(0)
        var = (square + PRIOR_ROWS * prior) / (mass + PRIOR_ROWS)
        var = var.clamp_min(FINEST_SD**2)
    return weight, mean, var


class SupportDenoiser(ExactDenoiser):
    """Exact for a probability table over listed rows: the oracle of tests and documentation.

    Parameters
    ----------
    codebook : Codebook
        Of columns of few categories only.
    support : Tensor of float64, shape (R, C)
        The rows (codes) that can occur.
    probs : Tensor, shape (R,)
        Their probabilities; positive, normalised here.

    Notes
    -----
    A call costs B R (C + T) operations. Posterior probabilities below the smallest normal float are taken
    as that float, so that a row outside the support gets a finite, astronomically small probability.
    """

    support: Tensor
    log_probs: Tensor
    _indicator: Tensor

    def __init__(self, codebook: Codebook, support: Tensor, probs: Tensor) -> None:
        super().__init__(codebook)
        if support.ndim != 2 or support.shape[1] != codebook.n_columns:
            raise ValueError(f"support must have {codebook.n_columns} columns")
        if probs.shape != (len(support),) or not bool((probs > 0).all()):
            raise ValueError(f"probs must be {len(support)} positive numbers")
        if len(codebook.finite) != codebook.n_columns:
            raise ValueError("only columns of few categories have a table of rows")
        levels = codebook.levels.index_of(support.long())
        indicator = torch.zeros(len(support), codebook.levels.n_points, device=levels.device)
        indicator.scatter_(1, levels, 1.0)
        self.register_buffer("support", support)
        self.register_buffer("log_probs", (probs / probs.sum()).to(codebook.known_snr).log())
        self.register_buffer("_indicator", indicator.to(codebook.known_snr))

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        levels = self.codebook.levels
        _, logits = self.infer(levels.evidence(y, snr))
        return Posterior(self.codebook, CategoricalPosterior(levels, logits))

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.codebook.levels
        ell = levels.log_softmax(evidence)  # (B, T)
        # (B, R): Σ_j ℓ_j at the row's categories
        log_w = self.log_probs + row_product(ell, self._indicator.T)
        probs = row_product(torch.softmax(log_w, 1), self._indicator)
        log_mass = torch.logsumexp(log_w, 1) + levels.logsumexp(evidence).sum(1)
        return log_mass, probs.clamp_min(torch.finfo(probs.dtype).tiny).log()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C), missing cells left out: (B,), nats; -inf outside the support."""
        same = ((x[:, None] == self.support[None]) | x.isnan()[:, None]).all(2)
        return torch.where(same, self.log_probs, -torch.inf).logsumexp(1)


# -- columns that another model leaves to independent ones -----------------------------------------


def check_rest(codebook: Codebook, rest: MarginalDenoiser | None) -> None:
    """Raise a ValueError if a model of the columns of few categories lacks one of the others."""
    if len(codebook.finite) < codebook.n_columns and rest is None:
        raise ValueError("continuous columns and large vocabularies come from the rest")


def with_rest(
    book: Codebook,
    categorical: CategoricalPosterior,
    rest: MarginalDenoiser | None,
    y: Tensor,
    snr: Tensor,
) -> Posterior:
    """The posterior of all columns, those of few categories given."""
    if rest is None:
        return Posterior(book, categorical)
    others = rest(y, snr)
    return Posterior(book, categorical, others.gaussian, others.words)


def rest_log_prob(rest: MarginalDenoiser | None, x: Tensor, told: Tensor) -> Tensor | float:
    """Log-probability (B,) of the columns of rows ``x`` that are not ``told`` (column numbers)."""
    if rest is None:
        return 0.0
    return rest.log_prob(x.index_fill(1, told, float("nan")))
