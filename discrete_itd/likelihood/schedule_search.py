r"""Search of schedules: the placement of the steps of a path, and a comparison of several schedules.

The expected code length of an isotropic path is a sum over its steps,

.. math:: -\log q_0(x) + \sum_i c(\gamma_{i-1}, \gamma_i), \qquad
          c(a, b) = \mathbb E[\log (q_a \oplus \Delta_{ab})(x) - \log q_b(x)],

so on a grid of SNRs the best S steps are a shortest path through the matrix c, found exactly by dynamic programming.
The matrix costs one denoiser call per grid point and row; the Bayes updates between two points need no call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.channel import (
    CoordinateSchedule,
    IsotropicSchedule,
    Quadrature,
    Schedule,
    State,
    distinct_paths,
)
from discrete_itd.channel.noise import RowNoise, draw_salt
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.likelihood.path import path_log_prob

GRID = 48  # candidate SNRs of a step; half as many for a wide table
WIDE = 2000  # floats of a row's posterior beyond which a table is wide
PILOT_CELLS = 1 << 17  # rows times floats of a row's posterior, for the pilot
CHOICE_CELLS = 1 << 20  # the same, for comparing schedules
FEW_ROWS = 32  # least number for a comparison
TRIAL_ROWS = 4  # to estimate the time of a row
MOST_TRIED = 8  # candidates, a pilot included
MOST_STEPS = 64  # of one isotropic path


@torch.no_grad()
def step_costs(denoiser: Denoiser, x: Tensor, snrs: Tensor, generator: torch.Generator) -> Tensor:
    """Mean nats c(a, b) of every step between two of n increasing positive SNRs, over rows ``x`` (B, C): float64.

    Entry (a, b), a < b, of the result (n + 1, n + 1) is the cost of the step from the a-th SNR to the b-th, with 0 the
    start (SNR zero); infinite for a >= b. Missingness indicators are known throughout.
    """
    book = denoiser.codebook
    noise = RowNoise(x, torch.zeros_like(x[:, 0], dtype=torch.int64), draw_salt(generator))
    points, known = book.embed(x), book.leading & ~x.isnan()
    x = x.masked_fill(known, math.nan)  # (B, C): the scored cells
    states = [State.start(book, points, known)]
    for i, snr in enumerate(snrs.tolist()):
        target = torch.where(x.isnan(), states[-1].snr, snr)
        xi = noise.normal(i + 1, book.n_coords, points.dtype)
        states.append(states[-1].add(book, states[-1].increment(book, points, target, xi)))
    posteriors = [denoiser(*state) for state in states]

    def mean_log_prob(q: Posterior) -> Tensor:
        return q.log_prob(x).double().sum(1).mean()

    costs = torch.full((len(states),) * 2, math.inf, dtype=torch.float64, device=x.device)
    for b in range(1, len(states)):
        own = mean_log_prob(posteriors[b])
        for a in range(b):
            more = (states[b].snr - states[a].snr).masked_fill(known, 0.0)
            updated = posteriors[a].update(states[b].y - states[a].y, more)
            costs[a, b] = mean_log_prob(updated) - own
    return costs.cpu()


def cheapest_steps(costs: Tensor, n_steps: int) -> list[int]:
    """Grid points of the best path of at most ``n_steps`` steps through costs (n + 1, n + 1), from 0 to any point."""
    best = torch.full((len(costs),), math.inf, dtype=costs.dtype)
    best[0] = 0.0
    steps: list[tuple[Tensor, Tensor]] = []  # totals, and their predecessors
    for _ in range(n_steps):
        best, source = (best[:, None] + costs).min(0)
        steps.append((best, source))
    n = min(range(n_steps), key=lambda i: float(steps[i][0].min()))
    path = [int(steps[n][0].argmin())]
    for _, source in steps[n:0:-1]:
        path.append(int(source[path[-1]]))
    return path[::-1]


def place_steps(
    denoiser: Denoiser,
    x: Tensor,
    quadrature: Quadrature,
    n_steps: list[int],
    *,
    generator: torch.Generator,
) -> list[IsotropicSchedule]:
    """The isotropic schedule of least expected code length for each largest number of steps.

    A pilot on some of the training rows ``x`` (N, C) measures the costs, on a grid over the range of the quadrature.
    """
    n_rows = denoiser.pilot_rows(PILOT_CELLS)
    pick = torch.randint(len(x), (n_rows,), generator=generator, device=generator.device)
    n_grid = GRID if denoiser.row_work <= WIDE else GRID // 2
    grid = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), n_grid).exp()
    costs = step_costs(denoiser, x[pick.to(x.device)], grid, generator)
    return [
        IsotropicSchedule(tuple(grid[i - 1].item() for i in cheapest_steps(costs, n)))
        for n in n_steps
    ]


class Candidate(NamedTuple):
    """A schedule, its number of paths, and its nats per row on held-out rows."""

    kind: str
    schedule: Schedule
    n_paths: int
    nats: float
    stderr: float


def paths_within(n_evaluations: int, schedule: Schedule) -> int:
    """Number of paths M within a budget of calls per row: at least two, unless the schedule has only one."""
    within = max(2, n_evaluations // schedule.n_steps)
    return min(within, distinct_paths(schedule) or within)


def possible_paths(
    denoiser: Denoiser,
    x: Tensor,
    quadrature: Callable[[], Quadrature],
    *,
    kind: str,
    n_evaluations: int,
    generator: torch.Generator,
) -> Iterator[tuple[str, Schedule]]:
    """Names and schedules that allow two paths within ``n_evaluations``; parameters as in :func:`choose_path`."""
    book = denoiser.codebook
    most = max(1, n_evaluations // 2)
    if kind != "isotropic":
        n_columns = max(1, book.n_columns - int(book.leading.sum()))
        for n_steps in sorted({min(n_columns, most), min(n_columns, max(1, most // 4))}):
            yield "coordinate", CoordinateSchedule(n_steps)
    if kind != "coordinate":
        counts = sorted({max(1, min(most, MOST_STEPS) // 2**k) for k in range(3)})
        placed = place_steps(denoiser, x, quadrature(), counts, generator=generator)
        for schedule in dict.fromkeys(placed):
            yield "isotropic", schedule


def choose_path(
    denoiser: Denoiser,
    x: Tensor,
    x_valid: Tensor,
    quadrature: Callable[[], Quadrature],
    *,
    kind: str = "auto",
    n_evaluations: int,
    generator: torch.Generator,
    max_rows: int = 256,
    seconds_left: Callable[[], float] = lambda: math.inf,
    ended: Callable[[], object] = lambda: None,
) -> list[Candidate]:
    """Schedules of about equal cost, compared on held-out rows; the best comes first.

    Steps are placed on training rows ``x`` (N, C), over the range of ``quadrature``, which is called if an isotropic
    schedule is tried. At most ``max_rows`` of the held-out rows ``x_valid`` measure each candidate, fewer for a wide
    table; it may take ``n_evaluations`` denoiser calls per row, about steps times paths, with at least two paths.
    ``kind`` is "auto", "coordinate" or "isotropic". If the time of ``TRIAL_ROWS`` rows shows that several schedules on
    ``FEW_ROWS`` would take longer than ``seconds_left``, the first is taken, with the nats of the trial, and ``ended``
    is called.
    """
    book = denoiser.codebook
    if kind == "auto" and book.vocabularies:
        # it computes a high-cardinality column once a path, an isotropic schedule at every step
        kind = "coordinate"
    max_rows = min(max_rows, max(FEW_ROWS, CHOICE_CELLS // denoiser.row_work))
    # a path scores the other columns given the missingness indicators
    given = book.leading if book.has_leading else None
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))

    def measured(kind: str, schedule: Schedule, rows: Tensor) -> Candidate:
        n_paths, noise = paths_within(n_evaluations, schedule), torch.Generator().manual_seed(seed)
        how = {"n_paths": n_paths, "given": given, "generator": noise}
        nats = -path_log_prob(denoiser, rows, schedule, **how).log_prob
        error = float(nats.std() / math.sqrt(len(nats))) if len(nats) > 1 else math.nan
        return Candidate(kind, schedule, n_paths, float(nats.mean()), error)

    tried = possible_paths(
        denoiser, x, quadrature, kind=kind, n_evaluations=n_evaluations, generator=generator
    )
    found = []
    for name, schedule in tried:
        if not found and seconds_left() < math.inf:
            began = time.perf_counter()
            trial = measured(name, schedule, x_valid[:TRIAL_ROWS])
            per_row = (time.perf_counter() - began) / min(TRIAL_ROWS, len(x_valid))
            max_rows = min(max_rows, int(seconds_left() / (per_row * MOST_TRIED)))
            if max_rows < FEW_ROWS:
                ended()
                return [trial]
        found.append(measured(name, schedule, x_valid[:max_rows]))
    return sorted(found, key=lambda c: c.nats)
