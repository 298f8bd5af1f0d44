r"""Training objectives: the noisy state of a row that a denoiser sees, and the loss of its posterior.

Each objective is a class that chooses the state of its rows (:meth:`Objective.show`) and computes the loss of the
posterior (:meth:`Objective.nats`), in nats per row. Each loss is an unbiased estimate of a code length. Missing cells
keep SNR zero and have no loss.

* :class:`Isotropic`: all columns at one SNR; of categories :math:`-\log P(x)` by the integral (3), of numbers the code
  length of their cells by the posterior.
* :class:`Masked`: a random subset of the columns known, the others unknown; there (3) has the closed form of a
  cross-entropy.

:class:`TrainingLoss` splits a batch between the objectives and calls the denoiser once for all of them.

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
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from discrete_itd.channel import Codebook, Posterior, Quadrature, State
from discrete_itd.denoisers.base import HUGE, Denoiser
from discrete_itd.progress import Deadline
from discrete_itd.training.config import TrainingPlan
from discrete_itd.training.row_sources import kept_constants

MAX_ROW_WEIGHT = 2.0  # bound on the weight of a row with missing cells, and on its inverse
EXACT_ROWS = 8192  # most rows of a validation in closed form: it must cost less than many steps
EVALUATED_DRAWS = 4096  # rows times repeats of one validation
EVALUATED_FLOATS = 1 << 26  # rows times floats of a row's posterior in one validation
PILOT_NUMBERS = 1 << 19  # the same in the pilot, by which noise levels are placed
N_CELLS = 64  # cells of the grid of logsnr
FEWEST_PILOT_ROWS = 4
LOWEST_SNR = 0.01
FEW_COORDS = 64  # with more, an isotropic denoiser learns something below the lowest SNR
HIGHEST_SNR = 100 / 2000  # of known_snr: an error of 3e-7 where categories are at distance one
REAL_SNR = 1000.0  # beyond it the evidence of a continuous column is hardly informative about other columns
REAL_HIGHEST_SNR = 16000.0  # an error of a sixtieth of a standard deviation
CUT_SHARE = 1e-5  # share of the density that is cut at either end


class Draws(NamedTuple):
    """Random numbers of B rows that determine their state."""

    coin: Tensor  # (B, 1), bool, fair; False where the table has no missingness indicators
    share: Tensor  # (B,), chance with which each cell is known; 0 unless the objective masks
    uniform: Tensor  # (B, C), in [0, 1)
    quantile: Tensor  # (B,), stratified in [0, 1); empty unless the objective is noisy


class View(NamedTuple):
    """B rows in the state that the denoiser sees."""

    x: Tensor  # (B, C), float64; NaN where a cell is missing or not scored
    known: Tensor  # (B, C), bool
    snr: Tensor  # (B, C)
    draws: Draws

    @property
    def asked(self) -> Tensor:
        """The scored cells, (B, C), float64; NaN elsewhere."""
        return self.x.masked_fill(self.known, math.nan)


class Objective:
    """State and loss of the rows of a part of a batch.

    ``masks``: a random subset of the cells is known, so that ``draws.share`` is drawn. ``noisy``: cells have a finite
    SNR, so that ``draws.quantile`` and Gaussian noise are drawn. ``splits``: half of the rows score the missingness
    indicators alone, so that ``draws.coin`` is drawn.
    """

    masks = noisy = splits = False

    def show(self, book: Codebook, x: Tensor, draws: Draws) -> View:
        """The state of rows ``x`` (B, C)."""
        raise NotImplementedError

    def nats(self, view: View, points: Tensor, posterior: Posterior) -> Tensor:
        """The loss of the posterior of a view, (B,); ``points`` (B, D) are those of the rows."""
        raise NotImplementedError


class Isotropic(Objective):
    """Columns at one SNR, drawn from an importance density; half the weighted squared error of categories, eq. (3).

    The squared error of a number does not depend on the width of its posterior: numbers have the log-density there.
    """

    noisy = True

    def __init__(self, quadrature: Quadrature) -> None:
        self.quadrature = quadrature

    def show(self, book: Codebook, x: Tensor, draws: Draws) -> View:
        known = book.leading & ~x.isnan()
        snr, _ = self.quadrature.points(draws.quantile)
        snr = snr.to(book.dtype)[:, None].expand(x.shape).masked_fill(known, math.inf)
        return View(x, known, snr.masked_fill(x.isnan(), 0.0), draws)

    def nats(self, view: View, points: Tensor, posterior: Posterior) -> Tensor:
        book = posterior.codebook
        free_of_charge = view.known | view.x.isnan()
        free_of_charge[:, book.reals] = True
        error = (points - posterior.mean()).square()
        error = error.masked_fill(book.per_coord(free_of_charge), 0.0).sum(1)
        _, weight = self.quadrature.points(view.draws.quantile)
        nats = 0.5 * weight.to(error) * error  # (3)
        if len(book.reals):
            nats = nats - posterior.log_prob(view.asked)[:, book.reals].sum(1)
        return nats


class Masked(Objective):
    r"""A random subset of the cells known, the others unknown; their cross-entropy.

    With u of C observed cells unknown, :math:`-\log P(x)` is (C + 1)/u times their cross-entropy, on average over
    subsets of which every size is equally likely: an autoregression averaged over orders.

    If ``balanced``, rows with missing cells are reweighted so that they count like complete rows with the same cells
    known. Without it they count more, because each of their few cells is more often among the first: an unbiased loss,
    but where cells are missing more often in some kinds of rows, the frequencies of these kinds are learned wrong.
    """

    masks = splits = True

    def __init__(self, *, balanced: bool = False) -> None:
        self.balanced = balanced

    def show(self, book: Codebook, x: Tensor, draws: Draws) -> View:
        x = x.masked_fill(draws.coin & ~book.leading, math.nan)
        given = book.leading & ~draws.coin & ~x.isnan()
        known = (draws.uniform < draws.share.to(draws.uniform)[:, None]) & ~x.isnan() | given
        snr = torch.zeros(x.shape, dtype=book.dtype, device=x.device)
        return View(x, known, snr.masked_fill(known, math.inf), draws)

    def nats(self, view: View, points: Tensor, posterior: Posterior) -> Tensor:
        book, missing = posterior.codebook, view.x.isnan()
        given = book.leading & ~view.draws.coin & ~missing
        n_unknown = (~view.known & ~missing).sum(1)
        n_cells = (~missing & ~given).sum(1)
        surprisal = -posterior.log_prob(view.asked).sum(1)
        if self.balanced and not book.has_leading:
            # A subset of all cells, kept only if it has no missing cell, has the same chance in all rows that have its
            # cells. Instead of being thrown away, rows are weighted with that chance.
            n_missing = missing.sum(1)
            relative = (1 - view.draws.share) ** (n_missing - n_missing.double().mean())
            n_cells, n_unknown = n_cells + n_missing, n_unknown + n_missing * (n_unknown > 0)
            relative = relative.clamp(1 / MAX_ROW_WEIGHT, MAX_ROW_WEIGHT)
            surprisal = surprisal * relative.to(surprisal)
        return surprisal * (n_cells + 1) / n_unknown.clamp_min(1) * (1 + book.has_leading)


class Loss(Protocol):
    """Training objective: nats of each row of a batch."""

    repeats: bool  # whether the result is random, so that an evaluation averages several

    def nats(
        self, denoiser: Denoiser, x: Tensor, generator: torch.Generator, *constants: Tensor
    ) -> Tensor:
        """Nats of each row of ``x`` (B, C), by way of the :meth:`~Denoiser.constants` of a closed form: (B,)."""
        ...


class TrainingLoss:
    """Nats of rows in random states: a batch is split between objectives and passed to the denoiser in one call.

    ``quadrature`` is the importance density over logsnr of the isotropic rows, ``shares`` those of isotropic and masked
    rows in a batch, ``balanced`` that of :class:`Masked`. ``parts`` lists the objectives in the order of their rows,
    the noisy ones first, with their shares of a batch; the last one gets the remaining rows.
    """

    repeats = True

    def __init__(
        self, quadrature: Quadrature, shares: tuple[float, float], *, balanced: bool = False
    ) -> None:
        objectives = Isotropic(quadrature), Masked(balanced=balanced)
        self.quadrature = quadrature
        self.parts: list[tuple[Objective, float]] = list(zip(objectives, shares, strict=True))

    def sizes(self, n: int) -> list[int]:
        """Rows of each objective in a batch of ``n``."""
        sizes, left = [], n
        for _, share in self.parts[:-1]:
            sizes.append(min(left, round(n * share)))
            left -= sizes[-1]
        return [*sizes, left]

    def nats(
        self,
        denoiser: Denoiser,
        x: Tensor,
        generator: torch.Generator,
        *constants: Tensor,
    ) -> Tensor:
        """Nats of each row of ``x`` (B, C) in a new random state: (B,)."""
        book, sizes = denoiser.codebook, self.sizes(len(x))
        points = book.embed(x)
        parts = [objective for objective, _ in self.parts]
        each = zip(parts, x.split(sizes), self._draw(book, x, sizes, generator), strict=True)
        views = [objective.show(book, rows, draws) for objective, rows, draws in each]
        n_noisy = sum(n for o, n in zip(parts, sizes, strict=True) if o.noisy)
        xi = torch.zeros_like(points)
        xi[:n_noisy].normal_(generator=generator)
        snr = torch.cat([view.snr for view in views])
        state = State.start(book, points).increment(book, points, snr, xi)
        posterior = denoiser(*state)
        out, done = [], 0
        for objective, view in zip(parts, views, strict=True):
            rows = slice(done, done + len(view.x))
            out.append(objective.nats(view, points[rows], posterior.rows(rows)))
            done = rows.stop
        return torch.cat(out)

    def _draw(
        self, book: Codebook, x: Tensor, sizes: list[int], generator: torch.Generator
    ) -> list[Draws]:
        """Random numbers of all objectives, drawn together, kind by kind."""
        device = x.device

        def stratified(n: int) -> Tensor:
            jitter = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
            order = torch.randperm(n, generator=generator, device=device)
            return (order + jitter) / max(n, 1)

        each = [(objective, n) for (objective, _), n in zip(self.parts, sizes, strict=True)]
        coins = [
            torch.rand(n, 1, generator=generator, device=device) < 0.5
            if objective.splits and book.has_leading
            else torch.zeros(n, 1, dtype=torch.bool, device=device)
            for objective, n in each
        ]
        # with a uniform share of known cells, every number of them is equally likely
        shares = [
            stratified(n) if o.masks else torch.zeros(n, dtype=torch.float64, device=device)
            for o, n in each
        ]
        uniform = torch.rand(x.shape, generator=generator, device=device, dtype=book.dtype)
        quantiles = [stratified(n if o.noisy else 0).clamp_max(1 - 1e-12) for o, n in each]
        return [Draws(*d) for d in zip(coins, shares, uniform.split(sizes), quantiles, strict=True)]


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
        return -denoiser.log_prob_from(x, *constants)


def losses(plan: TrainingPlan, quadrature: Quadrature | None) -> tuple[Loss, Loss]:
    """The loss of training and the one of evaluations: on the SNRs of a quadrature, or in closed form without one."""
    if quadrature is None:
        return ExactLoss(), ExactLoss()
    train = TrainingLoss(quadrature, plan.patterns, balanced=True)
    return train, TrainingLoss(quadrature, plan.judged)


class Evaluator:
    """Held-out nats in random states that are the same at every call, so that evaluations are comparable.

    ``x`` (N, C) are held-out rows, of which a wide table uses only the first; ``n_draws`` rows times repeats are
    evaluated in random states of the seed.
    """

    def __init__(self, loss: Loss, x: Tensor, seed: int, n_draws: int = EVALUATED_DRAWS) -> None:
        self._loss, self._x, self._seed = loss, x[:n_draws] if loss.repeats else x, seed
        self._repeats = max(1, min(8, n_draws // len(x))) if loss.repeats else 1
        self._kept: tuple[Tensor, ...] | None = None  # constants of the rows

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> Tensor:
        """Nats of each row that is used, float64."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        huge = denoiser.codebook.work >= HUGE
        most, size = (
            max(16 if huge else 512, EVALUATED_FLOATS // denoiser.row_work),
            16 if huge else 2048,
        )
        if not self._loss.repeats:
            return self._exact(denoiser, self._x[: min(most, EXACT_ROWS)], size).double()
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
            kept = self._kept
            own = denoiser.constants(x[rows]) if kept is None else [t[rows] for t in kept]
            nats.append(self._loss.nats(denoiser, x[rows], generator, *own))
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
    highest = torch.where(finite, book.known_snr * HIGHEST_SNR, REAL_HIGHEST_SNR)
    # many pixels together are informative at a lower SNR than one
    low = LOWEST_SNR * (min(1.0, FEW_COORDS / book.n_coords) if denoiser.isotropic else 1.0)
    ends = math.log(low), math.log(float(highest.max()))
    edges = torch.linspace(*ends, N_CELLS + 1, dtype=torch.float64, device=x.device)
    fewest = 32 if book.work < HUGE else FEWEST_PILOT_ROWS
    n_rows = max(fewest, min(512, PILOT_NUMBERS // denoiser.row_work))
    if seconds < math.inf:
        in_time = seconds / (N_CELLS * seconds_of_row(denoiser, x))
        n_rows = min(n_rows, max(FEWEST_PILOT_ROWS, int(in_time)))
    rows = x[torch.randint(len(x), (n_rows,), generator=generator, device=x.device)]
    points, missing = book.embed(rows), rows.isnan()
    known = book.leading & ~missing  # throughout, as in isotropic training
    start = State.start(book, points, known if book.has_leading else None)
    values = []
    for logsnr in (edges[1:] + edges[:-1]) / 2:
        gamma = torch.exp(logsnr).to(points)
        xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
        target = gamma.expand(start.snr.shape).masked_fill(missing, 0.0)
        target = torch.where(torch.isinf(start.snr), start.snr, target)
        state = start.add(book, start.increment(book, points, target, xi))
        # the error of a continuous column never vanishes: given its own evidence it falls as 1/snr
        damping = torch.where(finite, 1.0, (1 + gamma / REAL_SNR) ** -0.5)
        damping = damping.masked_fill(missing, 0.0)
        error = (points - denoiser(*state).mean()) * book.per_coord(damping)
        values.append(gamma.double() * error.square().sum(1).double().square().mean().sqrt())
    density = torch.stack(values).clamp_min(1e-300)  # constant columns have no error
    share = density / density.sum()
    first = torch.nonzero(share.cumsum(0) > CUT_SHARE).flatten()[0]
    last = torch.nonzero(share.flip(0).cumsum(0).flip(0) > CUT_SHARE).flatten()[-1]
    density = (0.9 * share + 0.1 / len(share))[first : last + 1]
    return Quadrature(edges[first : last + 2], density)
