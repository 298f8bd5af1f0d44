"""Independent columns: the exact denoiser of the marginal distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.gaussian import log_mass
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
)
from discrete_itd.channel.rounded_numbers import NARROW, PEAK_WIDTH, Intervals, NumberLines
from discrete_itd.denoisers.base import LARGE, Config, Denoiser, Tensors, checked

SD = 0.5  # standard deviation to which continuous columns are scaled
WIDE_SD = 4 * SD  # standard deviation of a mixture's wide component, which holds outliers
# Least standard deviation of a component: FINEST_SD in a column by itself, NARROWEST_SD where it depends on other
# columns. Without a bound, the density of a repeated value would be infinite.
FINEST_SD, NARROWEST_SD = 0.002, 5e-4
PRIOR_ROWS = 2.0  # pseudo-count, in rows, of the prior variance of a component
# EM of a column runs at most EM_ROUNDS rounds on about EM_ROWS rows at most, sorted and divided into EM_GROUPS groups
# of neighbours.
EM_ROUNDS, EM_ROWS, EM_GROUPS = 60, 20000, 1024


class MarginalDenoiser(Denoiser):
    """Exact for independent columns: each column's Bayes posterior given its own evidence.

    Parameters
    ----------
    codebook : Codebook
    probs : Tensor, shape (T,)
        Marginal probability of every level; positive, normalised within every column here.
    mixture : Tensor, shape (3, R, K), optional
        Log-weights, means and variances of the mixture of Gaussians of every continuous column; its weights add up
        to one. The last component should be wide, for outliers.

    Raises
    ------
    ValueError
        If shapes do not fit the codebook, or probabilities or variances are not positive.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)])
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> MarginalDenoiser(book, torch.tensor([0.25, 0.75])).log_prob(x)
    tensor([-0.2877])
    """

    exact = True
    independent = True
    ancestral = True
    log_probs: Tensor
    mixture: Tensor

    def __init__(
        self,
        codebook: Codebook,
        probs: Tensor,
        mixture: Tensor | None = None,
    ) -> None:
        super().__init__(codebook)
        levels = codebook.levels
        probs = checked("probs", probs.to(codebook.known_snr), (levels.n_points,), positive=True)
        self.register_buffer("log_probs", levels.log_softmax(probs.log()[None])[0])
        mixture = torch.zeros(3, 0, 1) if mixture is None else mixture
        if mixture.ndim != 3 or mixture.shape[:2] != (3, len(codebook.reals)):
            raise ValueError(f"mixture must have shape (3, {len(codebook.reals)}, K)")
        _, means, var = mixture
        checked("the means of a mixture", means, tuple(means.shape))
        checked("the variances of a mixture", var, tuple(var.shape), positive=True)
        total = torch.logsumexp(mixture[0], 1)
        if not torch.allclose(total, torch.zeros_like(total), atol=1e-4):
            raise ValueError("the weights of a mixture must add up to one")
        self.register_buffer("mixture", mixture.to(codebook.known_snr))

    @property
    def score_work(self) -> int:
        return self.codebook.n_columns

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        return cls(codebook, tensors["log_probs"].exp(), tensors["mixture"], **config)

    @property
    def independent_part(self) -> MarginalDenoiser:
        return self

    @classmethod
    def fit(
        cls,
        codebook: Codebook,
        x: Tensor,
        *,
        pseudo_count: float = 0.5,
        unseen_counts: Sequence[float] | None = None,
    ) -> MarginalDenoiser:
        """Smoothed marginal distributions of the rows ``x`` (N, C), missing cells left out.

        ``pseudo_count`` is added to the count of every category; one half is the estimator of Krichevsky and Trofimov
        (1981). ``unseen_counts`` are added to the level of unseen categories of each column instead; by default it gets
        ``pseudo_count`` too. A continuous column gets a mixture of Gaussians by expectation maximisation, and one wide
        component with the weight of about one row.
        """
        levels = codebook.levels
        codes = x.cpu()[:, codebook.finite.cpu()]
        level = levels.index_of(codes.nan_to_num(0.0).long().to(codebook.device)).cpu()
        counts = torch.bincount(level[~codes.isnan()], minlength=levels.n_points).double()

        def unseen(j: int) -> float:
            return pseudo_count if unseen_counts is None else float(unseen_counts[j])

        added = torch.full((levels.n_points,), float(pseudo_count), dtype=torch.float64)
        where = levels.level_unseen.cpu()
        if bool(where.any()):
            column = codebook.finite.cpu()[levels.level_column.cpu()[where]]
            added[where] = torch.tensor([unseen(j) for j in column.tolist()], dtype=torch.float64)
        reals = x[:, codebook.reals.to(x.device)].to(codebook.device)
        mixture = fit_mixtures(reals, codebook.lines) if reals.shape[1] else None
        return cls(codebook, (counts + added).to(codebook.device), mixture)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        return self.marginals().expand(len(y)).update(y, snr)

    def reals_given(self, y: Tensor, snr: Tensor) -> GaussianPosterior | None:
        """The mixtures (B, R, K) of continuous columns given a state's evidence; noisy numbers count as points."""
        q = self.marginals().expand(len(y)).gaussian
        return None if q is None else q.update(*self.codebook.reals_of(y, snr), sums=False)

    def marginals(self) -> Posterior:
        book = self.codebook
        categorical = CategoricalPosterior(book.levels, self.log_probs[None], normalised=True)
        gaussian = GaussianPosterior(*self.mixture[:, None]) if len(book.reals) else None
        return Posterior(book, categorical, gaussian)

    def log_evidence_of_reals(self, y: Tensor, snr: Tensor) -> Tensor:
        """Log-probability of the evidence about the continuous columns: (B,), nats."""
        book, q = self.codebook, self.marginals().expand(len(y)).gaussian
        if q is None:
            return y.new_zeros(len(y))
        evidence = q.log_evidence(*book.reals_of(y, snr))
        return torch.logsumexp(q.log_weight + evidence, 2).sum(1)

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        log_mass = self.codebook.levels.logsumexp(self.log_probs + self.evidence(y, snr)).sum(1)
        return log_mass + self.log_evidence_of_reals(y, snr), self(y, snr)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.marginals().expand(len(x)).log_prob(x).sum(1)

    def log_factors(self, x: Tensor) -> Tensor:
        return self.marginals().expand(len(x)).log_prob(x)

    def components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(1), self.log_factors(x).to(x)[:, :, None]

    def preceding(self, x: Tensor, order: Sequence[int] | None = None) -> Posterior:
        return self.marginals().expand(len(x))

    def leave_one_out(self, x: Tensor, asked: Tensor) -> Posterior:
        return self.marginals().expand(len(x))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.marginals().expand(n).sample(generator)


def indicators(book: Codebook, x: Tensor) -> Tensor:
    """One-hot levels of rows ``x`` (B, C): (B, T), zero where a cell is missing."""
    out = book.known_snr.new_zeros(len(x), book.levels.n_points + 1)
    return out.scatter_(1, book.level_of(x), 1.0)[:, :-1]


@torch.no_grad()
def fit_mixtures(values: Tensor, lines: NumberLines | None = None) -> Tensor:
    """Mixtures of Gaussians of every column, by expectation maximisation.

    (3, R, K): log-weights, means and variances; the last component is the wide one. ``values`` (N, R) have mean about
    0 and standard deviation about one half, NaN where missing, and are points without ``lines``.
    """
    counts = (~values.isnan()).sum(0)
    values = values[:: max(1, len(values) // EM_ROWS)]
    n_narrow = max(1, min(7, int((len(values) / 16) ** 0.5)))
    step = max(1, LARGE // max(1, len(values), EM_GROUPS * n_narrow))
    columns = torch.arange(values.shape[1], device=values.device)
    parts = zip(values.split(step, 1), columns.split(step), strict=True)
    narrow = torch.cat([gaussian_mixtures(v, n_narrow, lines, indices) for v, indices in parts], 1)
    wide = 1 / (counts + 2.0).to(narrow)[:, None]
    narrow[0] += torch.log1p(-wide)
    last = torch.stack([wide.log(), torch.zeros_like(wide), torch.full_like(wide, WIDE_SD**2)])
    return torch.cat([narrow, last], 2)


def lacking(rows: Tensor) -> Tensor:
    """Average rows to add so that a component or class has five: else its mean might be a single row's cell."""
    return (5 - rows).clamp_min(0)


def grouped(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, means and variances, (M, R) each, of groups of neighbouring cells in the columns of ``values`` (N, R).

    There are at most ``EM_GROUPS``, so that a round of EM takes the same time for all tables.
    """
    present = ~values.isnan()
    if len(values) <= EM_GROUPS:
        return present.to(values), values.nan_to_num(0.0), torch.zeros_like(values)
    cells = values.sort(0)[0].nan_to_num(0.0)  # missing cells come last
    ends = torch.arange(EM_GROUPS + 1, device=values.device)[:, None] * present.sum(0) // EM_GROUPS
    powers = (torch.cat([c.new_zeros(1, c.shape[1]), c.cumsum(0)]) for c in (cells, cells.square()))
    first, second = (power.gather(0, ends).diff(dim=0) for power in powers)
    n = ends.diff(dim=0).to(values)
    mean = first / n.clamp_min(1)
    return n, mean, (second / n.clamp_min(1) - mean.square()).clamp_min(0.0)


def gaussian_mixtures(
    values: Tensor, n: int, lines: NumberLines | None = None, indices: Tensor | None = None
) -> Tensor:
    """Log-weights, means and variances (3, R, n) of the columns of ``values`` (N, R), without a wide component.

    They are the columns ``indices`` (R,) of ``lines``.
    """
    n_cells, filled, within = grouped(values)
    count = n_cells.sum(0).clamp_min(1).double()[:, None]
    centre = (n_cells * filled).sum(0)[:, None] / count
    square = (n_cells * ((filled - centre[:, 0]).square() + within)).sum(0)[:, None]
    total = (square / count).clamp_min(FINEST_SD**2)
    place = (torch.arange(n, device=values.device) + 0.5) / n
    quantile = (place / 2 + (1 - torch.cos(math.pi * place)) / 4).to(values)  # denser in the tails
    start = values.nanquantile(quantile, dim=0).T if len(values) else centre.expand(-1, n)
    mean = torch.where(start.isnan(), 0.0, start).clone()
    total = torch.where(n_cells.any(0)[:, None], total, SD**2)
    prior = total / n**2
    var = prior.expand(-1, n).clone()
    weight = torch.full_like(mean, 1 / n)
    if lines is not None and lines.have_steps and indices is not None:
        # a number with a component's share of the rows gets a component; half suffices if its neighbours have fewer
        for number in lines.opened_cells(indices, PEAK_WIDTH / (2 * n)):
            nearest = (mean - number).abs().argmin(1, keepdim=True)
            mean = mean.scatter(
                1, nearest, torch.where(number.isnan(), mean.gather(1, nearest), number)
            )
        width = lines.cells(mean, indices[:, None]).width.clamp_min(NARROW)
        far = (filled[:, :, None] - mean).abs() / width
        rows, around = ((n_cells[:, :, None] * (far < end)).sum(0) for end in (0.5, 1.5))
        again = nn.functional.pad(mean[:, 1:] == mean[:, :-1], (1, 0))
        share = rows * (1 + (2 * rows > around).to(rows)) * n
        rows = rows.masked_fill(again | (share < count), 0.0)
        peak = lines.peaks(mean, torch.zeros_like(mean), rows, indices[:, None]).to(var)
        var = torch.where(peak.isnan(), var, peak)
    cells = Intervals.at(filled) if lines is None else lines.cells(filled, indices)
    # wide cells get a component's mass, narrower ones its density
    wide = torch.nonzero((cells.width > 1e-3).any(0)).flatten()
    wide_cells = Intervals(*(t[:, wide].T[:, None] for t in cells))
    # (R, 1, M), beside components (R, K, 1): a softmax over a last axis of few would take ten times as long
    filled, within, n_cells = (t.T.contiguous()[:, None] for t in (filled, within, n_cells))
    for _ in range(EM_ROUNDS if n > 1 else 1):
        away = filled - mean[:, :, None]  # (R, K, M)
        spread = away.square().add_(within)
        log_r = spread * (-0.5 / var)[:, :, None] + (weight.log() - 0.5 * var.log())[:, :, None]
        if len(wide):
            log_p = log_mass(wide_cells, mean[wide, :, None], var[wide].sqrt()[:, :, None])
            log_r[wide] = weight[wide].log()[:, :, None] + log_p.to(log_r)
        r = torch.softmax(log_r, 1).mul_(n_cells)
        mass, moved, square = r.sum(2), (r * away).sum(2), (r * spread).sum(2)
        few = lacking(mass)
        weight = (mass + 0.5) / (mass + 0.5).sum(1, keepdim=True)
        shift = (moved + few * (centre - mean)) / (mass + 0.5 + few)
        mean = mean + shift
        square = (square - shift * (2 * moved - shift * mass)).clamp_min(0.0)  # about the new mean
        var = (square + (PRIOR_ROWS + few) * prior) / (mass + PRIOR_ROWS + few)
        var = var.clamp_min(FINEST_SD**2)
        if lines is not None and lines.have_steps and indices is not None:
            peak = lines.peaks(mean, square / mass.clamp_min(1), mass, indices[:, None]).to(var)
            var = torch.where(peak.isnan(), var, peak)
    return torch.stack([weight.log(), mean, var])
