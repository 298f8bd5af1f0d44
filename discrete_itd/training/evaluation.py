"""What a denoiser is measured by: nats of held-out rows, and the SNRs at which its errors lie."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from discrete_itd.channel import Quadrature, State
from discrete_itd.denoisers.base import HUGE, Denoiser
from discrete_itd.training.objectives import Loss
from discrete_itd.training.rows import kept_constants

EXACT_ROWS = (
    8192  # of a validation in closed form, at most: a look must not cost what many steps do
)
DRAWS = 4096  # rows times repeats of one validation
NUMBERS = 1 << 26  # rows times floats of a row's posterior, of one validation
PILOT_NUMBERS = 1 << 19  # the same, of the pilot
N_CELLS = 64  # cells of the grid of logsnr
FEW_ROWS = 4  # of the pilot, where there is no time for more
LOWEST_SNR = 0.01
FEW_COORDS = 64  # with more, an isotropic denoiser learns something below the lowest SNR
HIGHEST_SNR = 100 / 2000  # of known_snr: an error of 3e-7 where categories are at distance one
REAL_SNR = 1000.0  # beyond it the evidence of a continuous column says little about other columns
REAL_HIGHEST_SNR = 16000.0  # an error of a sixtieth of a standard deviation
TAIL = 1e-5  # share of the density that is cut at either end


class Evaluator:
    """Held-out nats in random states that are the same at every call, so that evaluations compare.

    Parameters
    ----------
    loss : Loss
    x : Tensor of float64, shape (N, C)
        Held-out rows. Of a wide table only the first ones are used.
    seed : int
        Of the random states.
    n_draws : int
        Rows times repeats, in random states.
    """

    def __init__(self, loss: Loss, x: Tensor, seed: int, n_draws: int = DRAWS) -> None:
        self._loss, self._x, self._seed = loss, x[:n_draws] if loss.repeats else x, seed
        self._repeats = max(1, min(8, n_draws // len(x))) if loss.repeats else 1
        self._kept: tuple[Tensor, ...] | None = None  # constants of the rows

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> Tensor:
        """Nats of each row that is used: float64."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        huge = denoiser.codebook.work >= HUGE
        most, size = max(16 if huge else 512, NUMBERS // denoiser.row_work), 16 if huge else 2048
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
    """Seconds of a denoiser call for one row, from ``FEW_ROWS`` rows of x (N, C) of which nothing is known."""
    start = State.start(denoiser.codebook, denoiser.codebook.embed(x[:FEW_ROWS]), None)
    began = time.perf_counter()
    float(denoiser(*start).mean().sum())  # waits for a GPU
    return (time.perf_counter() - began) / len(start.y)


@torch.no_grad()
def pilot_quadrature(
    denoiser: Denoiser, x: Tensor, generator: torch.Generator, *, seconds: float = math.inf
) -> Quadrature:
    r"""An importance density over logsnr for a table.

    The density is proportional to the root mean square of :math:`\gamma \|x - \hat x\|^2` on a grid, the choice of
    least variance, with a tenth spread evenly. The grid runs from where the channel carries no information to where
    no error is left.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        Rows; some of them are used.
    generator : torch.Generator
    seconds : float
        In which it is to end, on fewer rows if need be, but at least ``FEW_ROWS``.
    """
    book = denoiser.codebook
    finite = torch.ones(book.n_columns, dtype=torch.bool, device=x.device)
    finite[book.reals] = False
    highest = torch.where(finite, book.known_snr * HIGHEST_SNR, REAL_HIGHEST_SNR)
    # many pixels together show at a lower SNR what none shows alone
    low = LOWEST_SNR * (min(1.0, FEW_COORDS / book.n_coords) if denoiser.isotropic else 1.0)
    ends = math.log(low), math.log(float(highest.max()))
    edges = torch.linspace(*ends, N_CELLS + 1, dtype=torch.float64, device=x.device)
    n_rows = denoiser.pilot_rows(PILOT_NUMBERS)
    if seconds < math.inf:
        in_time = seconds / (N_CELLS * seconds_of_row(denoiser, x))
        n_rows = min(n_rows, max(FEW_ROWS, int(in_time)))
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
        # the error of a continuous column never ends: its own evidence makes it fall as 1/snr
        damping = torch.where(finite, 1.0, (1 + gamma / REAL_SNR) ** -0.5)
        damping = damping.masked_fill(missing, 0.0)
        error = (points - denoiser(*state).mean()) * book.per_coord(damping)
        values.append(gamma.double() * error.square().sum(1).double().square().mean().sqrt())
    density = torch.stack(values).clamp_min(1e-300)  # constant columns leave no error at all
    share = density / density.sum()
    first = torch.nonzero(share.cumsum(0) > TAIL).flatten()[0]
    last = torch.nonzero(share.flip(0).cumsum(0).flip(0) > TAIL).flatten()[-1]
    density = (0.9 * share + 0.1 / len(share))[first : last + 1]
    return Quadrature(edges[first : last + 2], density)
