"""A Gaussian distribution of all continuous columns together, with its full covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from discrete_itd.channel import devices
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.levels import REAL_KNOWN_SNR
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.denoisers.base import Config, Denoiser, Tensors

# columns: with more, covariances of single rows would cost more than a wait for a GPU
MOST_STATIC = 128
LEAST_VARIANCE = 1e-8  # of a direction, as a share of the largest


class GaussianDenoiser(Denoiser):
    r"""Exact for a multivariate Gaussian :math:`N(m, V \Lambda V^\top + \sigma^2 (I - VV^\top))`.

    The baseline of the continuous density (4): with all directions V the full covariance, with the first few a
    probabilistic principal component analysis.

    Parameters
    ----------
    codebook : Codebook
        Of continuous columns alone.
    mean : Tensor, shape (C,)
    directions : Tensor, shape (C, r)
        Orthonormal columns V.
    variances : Tensor, shape (r,)
        Positive, :math:`\Lambda`.
    residual : float
        Positive variance of all directions orthogonal to these.

    Notes
    -----
    On a device other than the CPU a batch is computed without a look at it, a covariance for every row, up to
    ``MOST_STATIC`` columns; with more, the host waits and looks whether rows are whole and share an SNR.

    References
    ----------
    Kong, Brekelmans, Ver Steeg, ICLR 2023, arXiv:2302.03792, eq. (10), for the baseline.
    Tipping, Bishop, "Probabilistic principal component analysis", JRSS B 1999, for few directions.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("real")] * 2)
    >>> gauss = GaussianDenoiser(book, torch.zeros(2), torch.eye(2), torch.ones(2))
    >>> round(gauss.log_prob(torch.zeros(1, 2, dtype=torch.float64)).item(), 4)  # -log(2 pi)
    -1.8379
    """

    exact = True
    own_reals = True
    ancestral = True
    mean0: Tensor
    directions: Tensor
    variances: Tensor
    residual: Tensor

    def __init__(
        self,
        codebook: Codebook,
        mean: Tensor,
        directions: Tensor,
        variances: Tensor,
        residual: float = 1.0,
    ) -> None:
        super().__init__(codebook)
        n = codebook.n_columns
        if len(codebook.reals) != n:
            raise ValueError("a Gaussian is of continuous columns alone")
        if mean.shape != (n,) or directions.shape != (n, len(variances)):
            raise ValueError(f"mean and directions must be of {n} columns")
        if not bool((variances > 0).all()) or not residual > 0:
            raise ValueError("variances must be positive")
        self.register_buffer("mean0", mean.double())
        self.register_buffer("directions", directions.double())
        self.register_buffer("variances", variances.double())
        self.register_buffer("residual", torch.tensor(float(residual), dtype=torch.float64))

    @classmethod
    def fit(cls, codebook: Codebook, x: Tensor, *, rank: int | None = None) -> GaussianDenoiser:
        """A Gaussian for rows ``x`` (N, C), all cells there, its covariance drawn to a sphere where rows are few.

        Parameters
        ----------
        codebook : Codebook
        x : Tensor of float64, shape (N, C)
            At least two.
        rank : int, optional
            Directions of most variance to keep; the others share one variance. By default all, at most N - 1.

        Notes
        -----
        Eigenvalues are shrunk towards their mean by as much as Chen, Wiesel, Eldar and Hero, "Shrinkage algorithms for
        MMSE covariance estimation", IEEE Trans. Signal Processing 2010, find best for Gaussian rows; their terms in
        2/C are left out, as in ``sklearn.covariance.oas``.
        """
        if len(x) < 2:
            raise ValueError(f"a Gaussian is fitted to at least two rows, got {len(x)}")
        if rank is not None and rank < 0:
            raise ValueError(f"rank must not be negative, got {rank}")
        mean = x.mean(0)
        _, s, vt = torch.linalg.svd(x - mean, full_matrices=False)
        variances = s.square() / len(x)
        total, n = variances.sum(), x.shape[1]
        square, sphere = variances.square().sum() / n**2, (total / n) ** 2  # means over a matrix
        apart = (len(x) + 1) * (square - sphere / n)
        share = ((square + sphere) / apart.clamp_min(1e-300)).clamp_max(1) if n > 1 else 0.0
        variances = (1 - share) * variances + share * total / n
        least = LEAST_VARIANCE * float(variances.max()) + torch.finfo(torch.float64).tiny
        r = min(n, len(x) - 1) if rank is None else min(rank, n, len(variances))
        left = (total - variances[:r].sum()) / max(1, n - r)
        return cls(
            codebook, mean, vt[:r].T, variances[:r].clamp_min(least), max(float(left), least)
        )

    def config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        mean, directions = tensors["mean0"], tensors["directions"]
        residual = float(tensors["residual"])
        eye = torch.eye(directions.shape[1], dtype=directions.dtype)
        if not torch.allclose(directions.T @ directions, eye, atol=1e-6):
            raise ValueError("directions are not orthonormal: its density does not add up to one")
        return cls(codebook, mean, directions, tensors["variances"], residual, **config)

    def covariance(self) -> Tensor:
        """The covariance matrix, (C, C)."""
        v = self.directions
        eye = torch.eye(len(v), dtype=v.dtype, device=v.device)
        return self.residual * eye + (v * (self.variances - self.residual)) @ v.T

    def log_prob(self, x: Tensor) -> Tensor:
        missing = x.isnan()
        if self._looks and bool(missing.any()):
            pairs = zip(x, ~missing, strict=True)
            return torch.stack([self._of_cells(row, there) for row, there in pairs])
        whole = self._log_prob_of_whole(x)
        if self._looks:
            return whole
        return torch.where(missing.any(1), self.log_factors(x).sum(1), whole)

    @property
    def _looks(self) -> bool:
        """Whether the numbers of a batch decide how it is computed.

        On a device other than the CPU that means waiting, but with many columns less than the general way.
        """
        return not devices.static_shapes(self.mean0.device) or len(self.mean0) > MOST_STATIC

    def _log_prob_of_whole(self, x: Tensor) -> Tensor:
        """Log-density of rows without missing cells."""
        r = x - self.mean0
        c = r @ self.directions
        within, n = c.square() / self.variances, x.shape[1] - len(self.variances)
        beyond = (r.square().sum(1) - c.square().sum(1)).clamp_min(0) / self.residual
        logdet = self.variances.log().sum() + n * self.residual.log()
        return -0.5 * (within.sum(1) + beyond + logdet + x.shape[1] * math.log(2 * math.pi))

    def _of_cells(self, row: Tensor, there: Tensor) -> Tensor:
        """Log-density of some of the cells."""
        at = torch.nonzero(there).flatten()
        if not len(at):
            return row.new_zeros(())
        inside = torch.distributions.MultivariateNormal(
            self.mean0[at], self.covariance()[at][:, at], validate_args=False
        )
        return inside.log_prob(row[at])

    def _in_order(self, x: Tensor, order: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean and variance of every column given the known cells before it: (B, C), in double.

        Rows with the same cells missing share the variances, and one pass over the columns.
        """
        if not self._looks:
            return self._row_by_row(x, order)
        mean, var = torch.empty_like(x), torch.empty_like(x)
        ways, way = (~x.isnan()).unique(dim=0, return_inverse=True)
        for i, there in enumerate(ways.tolist()):
            rows = torch.nonzero(way == i).flatten()
            now, covariance = self.mean0.repeat(len(rows), 1), self.covariance()
            for j in order:
                own = covariance[j, j].clamp_min(1 / REAL_KNOWN_SNR)
                mean[rows, j], var[rows, j] = now[:, j], own
                if there[j]:
                    told = covariance[j] / own
                    now = now + (x[rows, j] - now[:, j])[:, None] * told
                    covariance = covariance - torch.outer(covariance[j], told)
        return mean, var

    def _row_by_row(self, x: Tensor, order: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As :meth:`_in_order`, with a covariance for each row."""
        mean, var = torch.empty_like(x), torch.empty_like(x)
        now, covariance = self.mean0.repeat(len(x), 1), self.covariance().repeat(len(x), 1, 1)
        for j in order:
            own = covariance[:, j, j].clamp_min(1 / REAL_KNOWN_SNR)
            mean[:, j], var[:, j] = now[:, j], own
            there = ~x[:, j, None].isnan()
            told = (covariance[:, j] / own[:, None]).masked_fill(~there, 0.0)
            now = now + (x[:, j] - now[:, j]).nan_to_num(0.0)[:, None] * told
            covariance = covariance - covariance[:, j, :, None] * told[:, None]
        return mean, var

    def preceding(self, x: Tensor, order: Tensor) -> Posterior:
        """As the base class has it, exactly; rows with other cells missing take passes of their own."""
        book, like = self.codebook, self.codebook.known_snr
        mean, var = (t.to(like)[:, :, None] for t in self._in_order(x, order.tolist()))
        gaussian = GaussianPosterior(torch.zeros_like(mean), mean, var)
        return Posterior(
            book, CategoricalPosterior(book.levels, like.new_zeros(len(x), 0)), gaussian
        )

    def log_factors(self, x: Tensor) -> Tensor:
        mean, var = self._in_order(x, self.codebook.leading_first)
        out = -0.5 * ((x - mean).square() / var + (2 * math.pi * var).log())
        return out.masked_fill(x.isnan(), 0.0)

    def draw(self, n: int, generator: torch.Generator, *, allowed: Tensor | None = None) -> Tensor:
        like, v = self.mean0, self.directions
        shape = (n, len(like))
        xi = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        within = xi @ v
        beyond = self.residual.sqrt() * (xi - within @ v.T)
        return like + beyond + (within * self.variances.sqrt()) @ v.T

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        return evidence.new_zeros(len(evidence)), evidence

    def log_evidence(self, y: Tensor, snr: Tensor) -> Tensor:
        gamma, r, factor, _ = self._seen(y, snr)
        half = torch.linalg.solve_triangular(factor, r[:, :, None], upper=False)[:, :, 0]
        logdet = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        known = torch.where(torch.isinf(snr), 0.5 * (gamma / (2 * math.pi)).log(), 0.0).sum(1)
        return known - 0.5 * half.square().sum(1) - logdet

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        level = snr[:, :1]
        same = self._looks and bool(((snr == level) & ~torch.isinf(level)).all())
        mean, var = self._isotropic(y, level) if same else self._any(y, snr)
        book = self.codebook
        parts = torch.zeros_like(y), mean.to(y), var.to(y)
        gaussian = GaussianPosterior(*(t[:, :, None] for t in parts))
        return Posterior(book, CategoricalPosterior(book.levels, y.new_zeros(len(y), 0)), gaussian)

    def _isotropic(self, y: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances where all columns have one SNR: of the independent directions."""
        gamma, v = level.double(), self.directions
        r = y.double() - gamma * self.mean0  # of independent noise of variance gamma
        own, residual = (t / (1 + gamma * t) for t in (self.variances, self.residual))
        c = r @ v
        mean = self.mean0 + residual * r + ((own - residual) * c) @ v.T
        return mean, residual + (own - residual) @ v.square().T

    def _any(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Tensor]:
        """The same for any SNRs, from the covariance of what is seen."""
        _, r, factor, told = self._seen(y, snr)
        mean = self.mean0 + (told @ torch.cholesky_solve(r[:, :, None], factor))[:, :, 0]
        half = torch.linalg.solve_triangular(factor, told.mT, upper=False)
        var = self.covariance().diagonal() - half.square().sum(1)
        return mean, var.clamp_min(1 / REAL_KNOWN_SNR)

    def _seen(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """SNRs (B, C), observations with noise of variance one, the factor of their covariance, and that with x."""
        known = torch.isinf(snr)
        gamma = torch.where(known, REAL_KNOWN_SNR, snr).double()
        y = torch.where(known, y.double() * REAL_KNOWN_SNR, y.double())
        root, covariance = gamma.sqrt(), self.covariance()
        seen = root[:, :, None] * covariance * root[:, None, :]
        seen = seen + torch.eye(len(covariance), dtype=seen.dtype, device=seen.device)
        told = covariance * root[:, None, :]  # (B, C, C)
        factor = torch.linalg.cholesky_ex(seen).L  # positive definite: no need to ask the device
        r = (y - gamma * self.mean0) / root.clamp_min(torch.finfo(root.dtype).tiny)
        return gamma, r.masked_fill(gamma == 0, 0.0), factor, told
