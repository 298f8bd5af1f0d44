r"""A kernel density of the rows of a table: a mixture of products with one class for each training row, or for a few.

.. math:: P(x) = \frac1n \sum_{i=1}^n \prod_j k_j(x_j \mid c_{ij})

with n training rows c, or averages of them (:mod:`discrete_itd.denoisers.kernel_centres`), as centres. The kernel of a
continuous column is a Gaussian. That of an ordinal column is a Gaussian restricted to its levels, mixed with a
hundredth of the column's marginal. That of a nominal or high-cardinality column keeps the centre's category with
probability :math:`1 - \lambda` and otherwise draws from the marginal (Aitchison and Aitken). All are normalised, so P
is. A missing cell is left out; where a centre's cell is missing, its kernel is the marginal.

References
----------
Parzen, "On estimation of a probability density function and mode", 1962.
Aitchison, Aitken, "Multivariate binary discrimination by the kernel method", Biometrika 1976.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import index_tensor
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.denoisers.ancestral import inverse_cdf
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Tensors,
    rows_at_once,
    with_codebook,
)
from discrete_itd.denoisers.kernel_centres import averages
from discrete_itd.denoisers.kernel_codes import CodeKernels
from discrete_itd.denoisers.kernel_products import (
    Centres,
    Evidence,
    Kernels,
    Widths,
    gaussian_mass,
    log_sum,
)
from discrete_itd.denoisers.kernel_widths import best_widths
from discrete_itd.denoisers.marginal import MarginalDenoiser

MOST_CENTRES = 5000
BATCH_PAIRS = 1 << 20  # rows times centres at once
TINY = 1e-300  # stands for no probability


class KernelDenoiser(Denoiser):
    """The exact denoiser of a kernel density.

    Parameters
    ----------
    base : MarginalDenoiser
        The independent columns, whose codebook is that of the denoiser.
    centres : Tensor, shape (n, C)
        Encoded rows; NaN where a cell is missing.
    widths : sequence of float
        The bandwidths, as in :class:`Widths`.
    n_averaged : int
        Of how many training records each centre is the average; 1 if it is one of them.

    Raises
    ------
    ValueError
        If there is no centre, one does not fit the codebook, a width is not positive, the last is not below 1, or
        ``n_averaged`` is below 1.

    Notes
    -----
    A log-probability adds up one number for each centre and column, three products if the column is continuous. The
    posterior of a continuous column has one component for each centre, so :meth:`forward` needs memory for rows times
    continuous columns times n.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    >>> kernel = KernelDenoiser(MarginalDenoiser.fit(book, x), x, Widths(other=0.2))
    >>> kernel.log_prob(torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)).exp()
    tensor([0.4100, 0.0900])
    """

    exact = True
    ancestral = True
    centres: Tensor

    def __init__(
        self,
        base: MarginalDenoiser,
        centres: Tensor,
        widths: Sequence[float],
        n_averaged: int = 1,
    ) -> None:
        book = base.codebook
        super().__init__(book)
        if centres.ndim != 2 or centres.shape[1] != book.n_columns or not len(centres):
            raise ValueError(
                f"centres must have shape (n, {book.n_columns}), got {tuple(centres.shape)}"
            )
        points = torch.tensor([float(c.n_points or math.inf) for c in book.columns])
        codes = centres.new_tensor([c.kind != "real" for c in book.columns]) > 0
        wrong = (centres < 0) | (centres >= points.to(centres)) | (centres != centres.floor())
        if bool((wrong & codes & ~centres.isnan()).any()):
            raise ValueError("centres hold numbers that are no categories")
        if len(widths) != 3 or not all(0 < w < math.inf for w in widths) or not widths[2] < 1:
            raise ValueError(f"widths must be three positive numbers, the last below 1: {widths}")
        if n_averaged < 1:
            raise ValueError(f"n_averaged must be at least 1, got {n_averaged}")
        self.base, self.widths, self.n_averaged = base, Widths(*widths), n_averaged
        self.register_buffer("centres", centres.to(book.known_snr))
        self._made: Kernels | None = None

    @property
    def kernels(self) -> Kernels:
        """The kernels of all centres, computed in double precision and kept.

        The first time the host looks at the centres, and waits for the device.
        """
        made, book = self._made, self.codebook
        if made is None or made.centres.gone.dtype != book.dtype:
            made = Kernels(self.base, Centres(book, self.centres), self.widths)
        elif made.centres.cells.device != book.device:
            made = Kernels(self.base, made.centres.to(book.device), self.widths)
        self._made = made
        return made

    @property
    def independent_part(self) -> MarginalDenoiser:
        return self.base

    @property
    def batch(self) -> int:
        """Rows at once, so that memory is bounded."""
        return rows_at_once(BATCH_PAIRS // len(self.centres))

    @property
    def row_work(self) -> int:
        return self.codebook.work + len(self.centres) * (1 + 3 * len(self.codebook.reals))

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        base: MarginalDenoiser,
        x: Tensor,
        generator: torch.Generator,
        records: Tensor | None = None,
        n_averaged: int = 1,
    ) -> KernelDenoiser:
        """Take training rows, or averages of them, as centres, with the widths of the fewest leave-one-out nats.

        Parameters
        ----------
        base : MarginalDenoiser
        x : Tensor of float64, shape (N, C)
            Training rows; at most ``MOST_CENTRES`` of them are taken.
        generator : torch.Generator
        records : Tensor of int64, shape (N,), optional
            A number for each row, the same for copies of one record: a row is predicted from other records. By default
            each is a record of its own.
        n_averaged : int
            Of how many records near one another each centre is the average; the widths are those of the rows.
        """
        order = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
        order = order[:MOST_CENTRES]
        kernels = Kernels(base, Centres(base.codebook, x[order]), Widths())
        numbers = order if records is None else records.to(x.device)[order]
        widths = best_widths(kernels, numbers)
        if n_averaged == 1:
            return cls(base, x[order], widths)
        centres = averages(replace(kernels, widths=widths), n_averaged, numbers)
        return cls(base, centres, widths, n_averaged)

    # -- as a distribution ----------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C), missing cells left out: (B,), nats."""
        log_n = math.log(len(self.centres))
        parts = [log_sum(self.kernels.log_kernels(some)) for some in x.split(self.batch)]
        return torch.cat(
            [self.centres.new_zeros(0), *((p - log_n).to(self.centres) for p in parts)]
        )

    def log_factors(self, x: Tensor) -> Tensor:
        parts = [self._log_factors(some) for some in x.split(self.batch)]
        return torch.cat([self.centres.new_zeros(x[:0].shape), *parts])

    def _log_factors(self, x: Tensor) -> Tensor:
        kernels, out = self.kernels, self.centres.new_zeros(x.shape)
        features = kernels.features(kernels.known(x))
        log_w = self.centres.new_full((len(x), len(self.centres)), -math.log(len(self.centres)))
        before = log_w.new_zeros(len(x))
        for j in self.codebook.leading_first:
            log_w += kernels.log_kernels_of(x, features, j)
            after = log_sum(log_w)
            out[:, j], before = after - before, after
        return out.masked_fill(x.isnan(), 0.0)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        kernels, book = self.kernels, self.codebook
        columns = [*book.place]
        # a centre by the probability that none of its cells is drawn unseen
        log_seen = self._log_seen()
        pick = torch.multinomial(log_seen.softmax(0), n, replacement=True, generator=generator)
        centre = kernels.centres.cells[pick]
        # 0 is no level of unseen categories, for a column has at least one other
        last = tuple(c.n_levels if c.open else 0 for c in book.columns)
        last = index_tensor(last, str(pick.device))
        unseen = (last > 0) & (centre == last)
        unseen_share = self._unseen_share()
        keep = (1 - self.widths.other) / (1 - self.widths.other * unseen_share)
        uniform = torch.rand(n, book.n_columns, generator=generator, device=pick.device)
        kept = (uniform.double() < keep) & ~centre.isnan() & ~unseen
        alone = kernels.marginals.expand(n).sample(generator, ~kept)
        out = torch.where(kept, centre, alone)
        for j, kernel, _ in kernels.line_kernels:
            column = columns[j]
            cells = centre[:, column]
            probs = kernel[: book.columns[column].n_levels, cells.nan_to_num(0.0).long()].T
            drawn = inverse_cdf(probs.cumsum(1) / probs.sum(1, keepdim=True), generator)
            drawn = drawn.clamp_max(probs.shape[1] - 1).double()
            out[:, column] = torch.where(cells.isnan(), out[:, column], drawn)
        if len(book.reals):
            near = centre[:, book.reals]
            noise = torch.randn(
                near.shape, generator=generator, device=near.device, dtype=near.dtype
            )
            near = near + self.widths.real * noise
            out[:, book.reals] = torch.where(near.isnan(), out[:, book.reals], near)
        return out

    def _unseen_share(self) -> Tensor:
        """Marginal probability of the unseen level of each column, zero where there is none: float64, (C,)."""
        book, marginals = self.codebook, self.kernels.marginals
        share = torch.zeros(book.n_columns, dtype=torch.float64, device=book.device)
        for j, c in enumerate(book.columns):
            if c.open:
                share[j] = marginals.column(j)[0, -1].double().exp()
        return share

    def _log_seen(self) -> Tensor:
        """Log-probability that no cell is unseen, of each centre: (n,)."""
        kernels, levels, lam = self.kernels, self.codebook.levels, self.widths.other
        nothing = kernels.known(kernels.centres.cells[:1] * math.nan)
        seen = (~levels.level_unseen).double()[None]
        total = kernels.centres.product(kernels.features(nothing._replace(levels=seen)))
        total, share = total[0], self._unseen_share()
        for v in self.codebook.vocabularies:
            cells, p = kernels.centres.cells[:, v.column], share[v.column]
            is_unseen = v.open & (cells == v.n_levels)
            of_centre = torch.where(is_unseen, lam * (1 - p), 1 - lam * p)
            total = total + torch.where(cells.isnan(), 1 - p, of_centre).log()
        return total

    # -- as a denoiser --------------------------------------------------------------------------

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        book, kernels = self.codebook, self.kernels
        ell = book.levels.evidence(y[:, : book.levels.n_coords], snr[:, book.finite]).double()
        prior = None
        if len(book.reals):
            prior = self.base(y, snr).gaussian
        evidence = self._evidence(ell, y, snr)
        features = kernels.features(evidence)
        total = kernels.centres.product(features)
        codes = [
            CodeKernels(
                v,
                log_prior,
                kernels.centres.cells[:, v.column],
                kernels.centres.codes[v.column],
                self.widths.other,
                y[:, v.coords],
                snr[:, v.column],
            )
            for v, log_prior in zip(book.vocabularies, self.base.log_words, strict=True)
        ]
        for c in codes:
            total = total + c.log_mass()
        log_share = torch.log_softmax(total, 1)
        share = log_share.exp()
        logits = self._log_prior(evidence.levels, share) + ell
        categorical = CategoricalPosterior(book.levels, logits.to(y))
        gaussian = None
        if prior is not None:
            gaussian = self._gaussian(prior, log_share, evidence).pick(lambda t: t.to(y))
        return Posterior(book, categorical, gaussian, [c.posterior(share) for c in codes])

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        book, kernels, ell = self.codebook, self.kernels, evidence.double()
        norm = book.levels.logsumexp(ell)
        nothing = kernels.known(ell.new_full((len(ell), book.n_columns), math.nan))
        likelihood = (ell - book.levels.per_level(norm)).exp()
        features = kernels.features(nothing._replace(levels=likelihood))
        total = kernels.centres.product(features) - math.log(len(self.centres))
        log_mass = log_sum(total) + norm.sum(1)
        logits = self._log_prior(likelihood, torch.softmax(total, 1)) + ell
        return log_mass.to(evidence), logits.to(evidence)

    def _evidence(self, ell: Tensor, y: Tensor, snr: Tensor) -> Evidence:
        book = self.codebook
        likelihood = (ell - book.levels.per_level(book.levels.logsumexp(ell))).exp()
        gamma, values = snr[:, book.reals].double(), y[:, book.real_coords].double()
        values = torch.where(gamma.isinf(), values, values / gamma.clamp_min(TINY))
        alone = values
        if len(book.reals):
            log_weight, mean, var = self.base.mixture[:, None].double()
            # the evidence that each component of the marginal leaves, as a centre of its own variance
            norm, a = gaussian_mass(gamma[..., None], var)
            fit = -0.5 * (norm + a * (values[..., None] - mean).square())
            alone = torch.logsumexp(torch.log_softmax(log_weight, 2) + fit, 2)
        return Evidence(likelihood, values, gamma, alone)

    def _log_prior(self, likelihood: Tensor, share: Tensor) -> Tensor:
        """Log-probability of each level given the other columns, up to a constant per column: (B, T)."""
        kernels = self.kernels
        mass, alone = kernels.level_mass(likelihood)
        at_level, without = kernels.centres.by_level(share)
        return kernels.levels_given(at_level / mass, without / alone).clamp_min(TINY).log()

    def _gaussian(
        self, prior: GaussianPosterior, log_share: Tensor, evidence: Evidence
    ) -> GaussianPosterior:
        """One component for each centre; where a cell is missing, those of the marginal."""
        reals, var, known = self.codebook.reals, self.widths.real**2, evidence.precision.isinf()
        centres = self.kernels.centres
        gamma = torch.where(known, self.codebook.known_snr[reals].double(), evidence.precision)
        shrink = (1 + gamma * var)[:, :, None]
        cells = centres.cells[:, reals].T  # (R, n)
        own = (gamma * evidence.values)[:, :, None]
        means = (cells.nan_to_num(0.0) + var * own) / shrink
        weight = log_share[:, None].masked_fill(cells.isnan(), -math.inf)
        spread = (var / shrink).expand_as(means)
        if not centres.reals_with_gaps:
            return GaussianPosterior(weight, means, spread)
        gone = log_share[:, None].masked_fill(~cells.isnan(), -math.inf).logsumexp(2, keepdim=True)
        parts = (
            (weight, gone + prior.log_weight.double()),
            (means, prior.means.double()),
            (spread, prior.var.double()),
        )
        return GaussianPosterior(*(torch.cat(pair, 2) for pair in parts))

    def smoothed(self, sd: float) -> KernelDenoiser:
        widths = self.widths._replace(real=math.hypot(self.widths.real, sd))
        return KernelDenoiser(self.base.smoothed(sd), self.centres, widths, self.n_averaged)

    # -- saving ---------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        return {"base": self.base, "widths": list(self.widths), "n_averaged": self.n_averaged}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        base = with_codebook(config["base"], codebook)
        return cls(base, tensors["centres"], config["widths"], config.get("n_averaged", 1))
