r"""Training objectives: the noisy state of a row that a denoiser sees, and the loss of its posterior.

Each kind of rows is a class that chooses their state and computes the loss of the posterior, in nats per row: an
unbiased estimate of a code length; numbers in isotropic rows have minus their log-probability. Missing cells keep SNR
zero and have no loss.

* :class:`IsotropicRows`: all columns at one SNR; categories have :math:`-\log P(x)` by the integral (3).
* :class:`MaskedRows`: a random subset of the columns known, the others unknown; there (3) has the closed form of a
  cross-entropy.

:class:`TrainingLoss` splits a batch between the two and calls the denoiser once for both.

Missingness indicators (``codebook.leading``) precede the other columns on every path. Isotropic rows therefore score
the other columns given the indicators. Half of the masked rows score the indicators alone, the other half the other
columns given the indicators.

A denoiser with a closed form is trained by :class:`ExactLoss` instead.

References
----------
Kong, Brekelmans, Ver Steeg, ICLR 2023, arXiv:2302.03792: eq. (3) of :mod:`discrete_itd.likelihood`.
Uria, Murray, Larochelle, "A deep and tractable density estimator", ICML 2014, for the masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from discrete_itd.channel import Codebook, Posterior, Quadrature, State
from discrete_itd.denoisers.base import LARGE, Denoiser
from discrete_itd.progress import Deadline

HUGE = 1 << 16  # posterior size (floats per row) above which a few pilot rows suffice
EVALUATED_DRAWS = 4096  # most rows × repeats of one validation
PILOT_NUMBERS = 1 << 19  # most floats of the posteriors in the pilot, which places noise levels
N_CELLS = 64  # cells of the pilot's grid of logsnr
FEWEST_PILOT_ROWS = 4  # fewest rows of the pilot

Constants = Callable[[Tensor], tuple[Tensor, ...]]  # :meth:`Denoiser.constants` of rows (n, C)


def stratified(x: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers, one for each row of ``x``, spread evenly over [0, 1) in random order: float64."""
    n = len(x)
    jitter = torch.rand(n, generator=generator, device=x.device, dtype=torch.float64)
    order = torch.randperm(n, generator=generator, device=x.device)
    return ((order + jitter) / max(n, 1)).clamp_max(1 - 1e-12)


class IsotropicRows:
    """Rows ``x`` (B, C) with all columns at one ``snr``, which is drawn from an importance density.

    The loss of categories is half the weighted squared error, eq. (3). A number's squared error does not depend on the
    width of its posterior, so its loss is minus its log-probability.
    """

    def __init__(
        self, book: Codebook, x: Tensor, quadrature: Quadrature, generator: torch.Generator
    ) -> None:
        known, missing = book.leading & ~x.isnan(), x.isnan()
        snr, self.weight = quadrature.points(stratified(x, generator))
        snr = snr.to(book.dtype)[:, None].expand(x.shape).masked_fill(known, math.inf)
        self.snr, self.free_of_charge = snr.masked_fill(missing, 0.0), known | missing
        self.x = x

    def nats(self, points: Tensor, posterior: Posterior) -> Tensor:
        """The loss (B,) of the rows' posterior; ``points`` (B, D) are their embeddings."""
        book = posterior.codebook
        free_of_charge = self.free_of_charge.index_fill(1, book.reals, True)
        error = (points - posterior.mean()).square()
        error = error.masked_fill(book.per_coord(free_of_charge), 0.0).sum(1)
        nats = 0.5 * self.weight.to(error) * error  # (3)
        if len(book.reals):
            cells = self.x.masked_fill(self.free_of_charge, math.nan)
            nats = nats - posterior.log_prob(cells)[:, book.reals].sum(1)
        return nats


class MaskedRows:
    r"""Rows ``x`` (B, C) of which a random subset of the cells is known, the others unknown; their cross-entropy.

    With u of C observed cells unknown, :math:`-\log P(x)` is (C + 1)/u times their cross-entropy, on average over
    subsets of which every size is equally likely: an autoregression averaged over orders.
    """

    def __init__(self, book: Codebook, x: Tensor, generator: torch.Generator) -> None:
        coin = torch.zeros_like(x[:, :1], dtype=torch.bool)
        if book.has_leading:
            coin = torch.rand(len(x), 1, generator=generator, device=x.device) < 0.5
        # with a uniform share, every number of known cells is equally likely
        share = stratified(x, generator)
        uniform = torch.rand(x.shape, generator=generator, device=x.device, dtype=book.dtype)
        self.x = x = x.masked_fill(coin & ~book.leading, math.nan)
        self.given = book.leading & ~coin & ~x.isnan()
        self.known = (uniform < share.to(uniform)[:, None]) & ~x.isnan() | self.given
        self.snr = torch.zeros_like(uniform).masked_fill(self.known, math.inf)

    def nats(self, posterior: Posterior) -> Tensor:
        """The loss (B,) of their posterior."""
        book, missing = posterior.codebook, self.x.isnan()
        n_unknown = (~self.known & ~missing).sum(1)
        n_cells = (~missing & ~self.given).sum(1)
        surprisal = -posterior.log_prob(self.x.masked_fill(self.known, math.nan)).sum(1)
        return surprisal * (n_cells + 1) / n_unknown.clamp_min(1) * (1 + book.has_leading)


class Loss(Protocol):
    """Training objective: nats of each row of a batch."""

    repeats: bool  # whether the result is random, so that an evaluation averages repeats

    def nats(
        self, denoiser: Denoiser, x: Tensor, generator: torch.Generator, *constants: Tensor
    ) -> Tensor:
        """Nats (B,) of each row of ``x`` (B, C); ``constants`` are the :meth:`~Denoiser.constants` of a closed form."""
        ...


class TrainingLoss:
    """Nats of rows in random states: a batch is split between two kinds and passed to the denoiser in one call.

    ``quadrature`` is the importance density over logsnr of the isotropic rows, ``isotropic`` their share in a batch.
    """

    repeats = True

    def __init__(self, quadrature: Quadrature, isotropic: float) -> None:
        self.quadrature, self.isotropic = quadrature, isotropic

    def nats(
        self,
        denoiser: Denoiser,
        x: Tensor,
        generator: torch.Generator,
        *constants: Tensor,
    ) -> Tensor:
        """Nats of each row of ``x`` (B, C) in a new random state: (B,)."""
        book, n = denoiser.codebook, round(len(x) * self.isotropic)
        isotropic = IsotropicRows(book, x[:n], self.quadrature, generator)
        masked = MaskedRows(book, x[n:], generator)
        points = book.embed(x)
        xi = torch.zeros_like(points)
        xi[:n].normal_(generator=generator)
        snr = torch.cat([isotropic.snr, masked.snr])
        posterior = denoiser(*State.start(book, points).increment(book, points, snr, xi))
        return torch.cat(
            [
                isotropic.nats(points[:n], posterior.rows(slice(0, n))),
                masked.nats(posterior.rows(slice(n, None))),
            ]
        )


class ExactLoss:
    """Nats of rows by the closed form of the denoiser itself, like (8): a code length without noise."""

    repeats = False

    def nats(
        self,
        denoiser: Denoiser,
        x: Tensor,
        generator: torch.Generator,
        *constants: Tensor,
    ) -> Tensor:
        """Nats of each row of ``x`` (B, C): (B,)."""
        return -denoiser.log_prob(x, *constants)


@torch.no_grad()
def kept_constants(constants: Constants, x: Tensor) -> tuple[Tensor, ...] | None:
    """The constants of rows ``x`` (N, C), or None if they are too large to be kept."""
    one = constants(x[:1])
    if len(x) * sum(t.numel() for t in one) > LARGE:
        return None
    parts = [constants(rows) for rows in x.split(1 << 14)]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def constants_at(
    rows: Tensor, x: Tensor, constants: Constants, kept: tuple[Tensor, ...] | None
) -> tuple[Tensor, ...]:
    """The constants of some rows of ``x`` (N, C), computed now unless they are ``kept``."""
    if kept is None:
        return constants(x[rows])
    return tuple(t.index_select(0, rows) for t in kept)


class Evaluator:
    """Held-out nats in random states that are the same at every call, so that evaluations are comparable.

    ``x`` (N, C) are held-out rows, the first of which suffice in a wide table; ``n_draws`` is the number of rows times
    repeats in random states, which ``seed`` determines.
    """

    def __init__(self, loss: Loss, x: Tensor, seed: int, n_draws: int = EVALUATED_DRAWS) -> None:
        self._loss, self._x, self._seed = loss, x[:n_draws] if loss.repeats else x, seed
        self._repeats = max(1, min(8, n_draws // len(x))) if loss.repeats else 1
        self._kept: tuple[Tensor, ...] | None = None  # constants of the rows, once computed

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> Tensor:
        """Nats of each row that is used, float64."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        fewest, size = (16, 16) if denoiser.codebook.work >= HUGE else (512, 2048)
        most = max(fewest, (1 << 26) // denoiser.row_work)  # bounds the floats computed
        if not self._loss.repeats:
            # an evaluation must cost less than many steps
            return self._exact(denoiser, self._x[: min(most, 8192)], size).double()
        x = self._x[:most]
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(self._repeats):
            order = torch.randperm(len(x), generator=generator, device=x.device)
            for part in order.split(size):
                nats = self._loss.nats(denoiser, x[part], generator).double()
                total.index_add_(0, part, nats)
        return total / self._repeats

    def _exact(self, denoiser: Denoiser, x: Tensor, size: int) -> Tensor:
        """Nats of each row in closed form."""
        generator, nats = torch.Generator(x.device), []
        if self._kept is None:
            self._kept = kept_constants(denoiser.constants, x)
        for rows in torch.arange(len(x), device=x.device).split(size):
            row_constants = constants_at(rows, x, denoiser.constants, self._kept)
            nats.append(self._loss.nats(denoiser, x[rows], generator, *row_constants))
        return torch.cat(nats)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of a vector and its standard error; the error is NaN for fewer than two numbers."""
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error


@torch.no_grad()
def seconds_of_row(denoiser: Denoiser, x: Tensor) -> float:
    """Seconds of a denoiser call per row, measured with a few of x (N, C) without known cells."""
    points = denoiser.codebook.embed(x[:FEWEST_PILOT_ROWS])
    start = State.start(denoiser.codebook, points, None)
    clock = Deadline()
    float(denoiser(*start).mean().sum())  # waits for a GPU
    return clock.age / len(start.y)


@torch.no_grad()
def pilot_quadrature(
    denoiser: Denoiser, x: Tensor, generator: torch.Generator, *, seconds: float = math.inf
) -> Quadrature:
    r"""An importance density over logsnr for a table, from some of its rows ``x`` (N, C).

    The density is proportional to the root mean square of :math:`\gamma \|x - \hat x\|^2` on a grid, the choice of
    least variance, with a tenth spread evenly. The grid runs from where the channel carries no information to where no
    error is left. Fewer rows are used to keep within ``seconds``, but at least ``FEWEST_PILOT_ROWS``.
    """
    book = denoiser.codebook
    finite = torch.ones(book.n_columns, dtype=torch.bool, device=x.device)
    finite[book.reals] = False
    # SNRs of errors of 3e-7 for categories at distance one, of a sixtieth of a standard deviation for numbers
    highest = torch.where(finite, book.known_snr * 0.05, 16_000.0)
    # many pixels together are informative at a lower SNR than one
    low = 0.01 * (min(1.0, 64 / book.n_coords) if denoiser.isotropic else 1.0)
    ends = math.log(low), math.log(float(highest.max()))
    edges = torch.linspace(*ends, N_CELLS + 1, dtype=torch.float64, device=x.device)
    fewest = 32 if book.work < HUGE else FEWEST_PILOT_ROWS
    n_rows = max(fewest, min(512, PILOT_NUMBERS // denoiser.row_work))
    if seconds < math.inf:
        in_time = seconds / (N_CELLS * seconds_of_row(denoiser, x))
        n_rows = min(n_rows, max(FEWEST_PILOT_ROWS, int(in_time)))
    rows = x[torch.randint(len(x), (n_rows,), generator=generator, device=x.device)]
    points, missing = book.embed(rows), rows.isnan()
    known = book.leading & ~missing  # indicators are known, as in isotropic training
    start = State.start(book, points, known if book.has_leading else None)
    values = []
    for logsnr in (edges[1:] + edges[:-1]) / 2:
        gamma = torch.exp(logsnr).to(points)
        xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
        target = gamma.expand(start.snr.shape).masked_fill(missing, 0.0)
        target = torch.where(torch.isinf(start.snr), start.snr, target)
        state = start.add(book, start.increment(book, points, target, xi))
        # The error of a continuous column given its own evidence falls as 1/snr: beyond an SNR of 1000 it is damped, as
        # it is hardly informative about other columns
        damping = torch.where(finite, 1.0, (1 + gamma / 1000) ** -0.5)
        damping = damping.masked_fill(missing, 0.0)
        error = (points - denoiser(*state).mean()) * book.per_coord(damping)
        values.append(gamma.double() * error.square().sum(1).double().square().mean().sqrt())
    density = torch.stack(values).clamp_min(1e-300)  # constant columns have no error
    share = density / density.sum()
    kept = (share.cumsum(0) > 1e-5) & (share.flip(0).cumsum(0).flip(0) > 1e-5)
    first, last = torch.nonzero(kept).flatten()[[0, -1]].tolist()
    density = (0.9 * share + 0.1 / len(share))[first : last + 1]
    return Quadrature(edges[first : last + 2], density)
