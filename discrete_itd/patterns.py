r"""SNR patterns: on what noise a denoiser is trained and judged.

Every pattern's loss is in nats per row, and unbiased for what it estimates:

* *isotropic*: all columns at one SNR drawn from an importance density; :math:`-\log P(x)` by (3) with its weight;
* *masked*: a random subset of the columns known, every size equally likely, the rest unknown. Here
  (3) is closed: :math:`-\log P(x)` is (C + 1)/u times the cross-entropy of the u of C columns unknown, on
  average over subsets (an autoregression averaged over orders);
* *hybrid*: a random subset known and the rest at one SNR; (3) for the rest given the subset, which is what
  conditional questions and mixed paths need.

References
----------
Kong, Brekelmans, Ver Steeg, ICLR 2023, arXiv:2302.03792: eq. (3) of :mod:`discrete_itd.likelihood`.
Uria, Murray, Larochelle, "A deep and tractable density estimator", ICML 2014, for the masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel import Quadrature, State
from discrete_itd.denoisers.base import Denoiser

PILOT_CELLS = 1 << 19  # rows times slots of the pilot
VALIDATION_DRAWS = 4096  # rows times repeats of one validation


class Patterns:
    """Draws noisy states of rows and scores posteriors on them.

    Parameters
    ----------
    quadrature : Quadrature
        Importance density over logsnr for the isotropic and hybrid rows.
    shares : tuple of three floats
        Of isotropic, masked and hybrid rows.
    """

    def __init__(self, quadrature: Quadrature, shares: tuple[float, float, float]) -> None:
        self.quadrature = quadrature
        self.shares = shares

    def loss(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats of each row of ``x`` (B, C) on a fresh pattern: (B,), isotropic rows first, then hybrids."""
        book = denoiser.codebook
        n, device = len(x), x.device
        n_iso = round(n * self.shares[0])
        n_hybrid = min(n - n_iso, round(n * self.shares[2]))
        n_noisy = n_iso + n_hybrid
        points = book.embed(x)

        def stratified(count: int) -> Tensor:
            jitter = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
            order = torch.randperm(count, generator=generator, device=device)
            return (order + jitter) / max(count, 1)

        # if the share of known columns is uniform, every number of them is equally likely
        share = [
            x.new_zeros(n_iso, dtype=torch.float64),
            stratified(n_hybrid),
            stratified(n - n_noisy),
        ]
        draws = torch.rand(x.shape, generator=generator, device=device, dtype=points.dtype)
        known = draws < torch.cat(share).to(points)[:, None]  # (B, C)

        u = torch.cat([stratified(n_iso), stratified(n_hybrid)])
        gamma, weight = self.quadrature.points(u.clamp_max(1 - 1e-12))
        snr = points.new_zeros(n, book.n_columns)
        snr[:n_noisy] = gamma.to(points)[:, None]
        snr = snr.masked_fill_(known, math.inf)
        xi = torch.zeros_like(points)
        xi[:n_noisy].normal_(generator=generator)
        state = State.start(book, points).increment(book, points, snr, xi)

        posterior = denoiser(*state)
        error = (points - posterior.mean())[:n_noisy].square()
        error = torch.where(book.per_coord(known[:n_noisy]), 0.0, error).sum(1)
        unknown = (~known[n_noisy:]).sum(1)
        surprisal = -torch.where(known, 0.0, posterior.log_prob(x))[n_noisy:].sum(1)
        masked = surprisal * (x.shape[1] + 1) / unknown.clamp_min(1)
        return torch.cat([0.5 * weight.to(error) * error, masked])


def pilot_quadrature(denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Quadrature:
    r"""An importance density over logsnr for a table, from the errors of a denoiser on some of its rows.

    The density is proportional to the root mean square of :math:`\gamma \|x - \hat x\|^2` on a grid (the choice of
    least variance), with a tenth spread evenly. The grid runs from where the channel says nothing to
    where nothing is left to say.
    """
    book = denoiser.codebook
    # simplex: at distance one, SNR 100 leaves an error of 3e-7; a line needs more by the square of its gap
    high = math.log(100.0) + math.log(float(book.known_snr.max()) / 2000.0)
    edges = torch.linspace(math.log(0.01), high, 65, dtype=torch.float64, device=x.device)
    n_rows = max(32, min(512, PILOT_CELLS // book.n_slots))
    pick = torch.randint(len(x), (n_rows,), generator=generator, device=x.device)
    rows = x[pick]
    points = book.embed(rows)
    start = State.start(book, points)
    values = []
    with torch.no_grad():
        for logsnr in (edges[1:] + edges[:-1]) / 2:
            gamma = torch.exp(logsnr).to(points)
            xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
            state = start.increment(book, points, gamma.expand(start.snr.shape), xi)
            error = (points - denoiser(*state).mean()).square().sum(1).double()
            values.append(gamma.double() * error.square().mean().sqrt())
    density = torch.stack(values).clamp_min(1e-300)  # constant columns leave no error at all
    share = density / density.sum()
    informative = torch.nonzero(share.cumsum(0) > 1e-5).flatten()[0]
    last = torch.nonzero(share.flip(0).cumsum(0).flip(0) > 1e-5).flatten()[-1]
    density = (0.9 * share + 0.1 / len(share))[informative : last + 1]
    return Quadrature(edges[informative : last + 2], density)


class Evaluator:
    """Held-out nats on patterns that are the same at every call, so that evaluations compare."""

    def __init__(self, patterns: Patterns, x: Tensor, seed: int) -> None:
        self._patterns, self._x, self._seed = patterns, x, seed
        self._repeats = max(1, min(8, VALIDATION_DRAWS // len(x)))

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> tuple[float, float]:
        """Mean nats per row, and its standard error over rows."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        total = torch.zeros(len(self._x), dtype=torch.float64, device=self._x.device)
        for _ in range(self._repeats):
            order = torch.randperm(len(self._x), generator=generator, device=self._x.device)
            for part in order.split(2048):
                loss = self._patterns.loss(denoiser, self._x[part], generator).double()
                total.index_add_(0, part, loss)
        return mean_and_error(total / self._repeats)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of a vector and its standard error, NaN for fewer than two numbers."""
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error
