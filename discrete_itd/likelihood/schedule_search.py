r"""Search of schedules: the placement of the steps of a path, and a comparison of several schedules.

The expected code length of an isotropic path is a sum over its steps,

.. math:: -\log q_0(x) + \sum_i c(\gamma_{i-1}, \gamma_i), \qquad
          c(a, b) = \mathbb E[\log (q_a \oplus \Delta_{ab})(x) - \log q_b(x)],

so on a grid of SNRs the best S steps are a shortest path through the matrix c, found exactly by dynamic programming.
The matrix costs one denoiser call per grid point and row; the Bayes updates between two points need no call.

A coordinate path of fewer steps than columns treats the columns of one step as independent given those before. It loses
least if columns with much mutual information are in different steps, which is what *spread* orders achieve.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

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
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.noise import RowNoise, draw_salt
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.counts import mutual_information, pair_counts, sum_levels, sum_pairs
from discrete_itd.likelihood.path import path_log_prob

GRID = 48  # candidate SNRs of a step; half as many for a wide table
WIDE = 2000  # floats of a row's posterior beyond which a table is wide
PILOT_CELLS = 1 << 17  # rows times floats of a row's posterior, for the pilot
CHOICE_CELLS = 1 << 20  # the same, for comparing schedules
FEW_ROWS = 32  # least number for a comparison
TRIAL_ROWS = 4  # to estimate the time of a row
MOST_TRIED = 8  # candidates, a pilot included
RUN_OFF = 4  # factor of rows for the final comparison of the best two
MOST_STEPS = 64  # of one isotropic path
N_ORDERS = 64  # spread orders; fewer for a wide table
ORDER_NUMBERS = 1 << 15  # column numbers in all orders together
ORDER_ROWS = 20_000  # rows from which mutual information is estimated
ORDER_LEVELS = 4000  # levels of a table beyond which pairs are not counted
ORDER_NOISE = 0.5  # log-scale jitter added to mutual information, so that orders differ


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


@torch.no_grad()
def pairwise_information(codebook: Codebook, x: Tensor) -> Tensor:
    """Mutual information of every two low-cardinality columns of rows ``x`` (N, C): (C', C'), nats, 0 on the diagonal.

    From counts, with half a count spread over the table of each pair.
    """
    levels = codebook.levels
    joint = pair_counts(codebook, x[:ORDER_ROWS])
    column = levels.level_column
    size = sum_levels(joint.new_ones(len(joint)), levels)[column]  # of each level's column
    joint += 0.5 / (size[:, None] * size)
    joint /= sum_pairs(joint, levels)[column][:, column]  # one table a pair
    return mutual_information(joint, levels).clamp_min(0).fill_diagonal_(0)


def spread_orders(
    information: Tensor, n_orders: int, generator: torch.Generator
) -> tuple[tuple[int, ...], ...]:
    """Orders in which the next column has the least mutual information with those before it.

    ``information`` (C, C) is in nats. Each of the ``n_orders`` begins with a random column; jitter on the information
    makes them differ. The generator is on the CPU.
    """
    # with no information at all, the jitter decides
    information = information.double().cpu().clamp_min(1e-9)
    n = len(information)
    here = torch.randint(n, (n_orders,), generator=generator)
    shared = torch.full((n_orders, n), -torch.inf, dtype=torch.float64)  # with the columns before
    done = torch.zeros(n_orders, n, dtype=torch.bool)
    orders = []
    for _ in range(n):
        orders.append(here)
        done[torch.arange(n_orders), here] = True
        shared = torch.maximum(shared, information[here])
        noise = torch.randn(shared.shape, generator=generator, dtype=torch.float64)
        jittered = shared * torch.exp(ORDER_NOISE * noise)
        here = jittered.masked_fill(done, torch.inf).argmin(1)
    return tuple(map(tuple, torch.stack(orders, 1).tolist()))


def table_orders(
    codebook: Codebook, x: Tensor, generator: torch.Generator
) -> tuple[tuple[int, ...], ...] | None:
    """Spread orders of a table's columns; None if it has too many levels for counting pairs.

    Continuous and high-cardinality columns are given the mean information of the others.
    """
    if codebook.n_columns < 2 or not 2 <= codebook.levels.n_points <= ORDER_LEVELS:
        return None
    among = pairwise_information(codebook, x).cpu()
    n = codebook.n_columns
    information = torch.full((n, n), float(among.mean()), dtype=torch.float64)
    finite = codebook.finite.cpu()
    information[finite[:, None], finite] = among
    n_orders = max(4, min(N_ORDERS, ORDER_NUMBERS // n))
    return spread_orders(information, n_orders, generator)


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
    quadrature: Quadrature | Callable[[], Quadrature],
    *,
    kind: str,
    n_evaluations: int,
    generator: torch.Generator,
) -> Iterator[tuple[str, Schedule]]:
    """Names and schedules that allow two paths within ``n_evaluations``; parameters as in :func:`choose_path`."""
    book = denoiser.codebook
    n_columns = max(1, book.n_columns - int(book.leading.sum()))
    most = max(1, n_evaluations // 2)
    if kind != "isotropic":
        few = min(n_columns, max(1, most // 4))
        for n_steps in sorted({min(n_columns, most), few}):
            yield "coordinate", CoordinateSchedule(n_steps)
        # always the same orders, whatever the generator
        at_random = torch.Generator().manual_seed(n_columns)
        blocks = sorted({n for n in (few, max(1, most // 2)) if 1 < n < n_columns})
        orders = table_orders(book, x, at_random) if blocks and not book.has_leading else None
        for n_steps in blocks if orders is not None else ():
            spread = CoordinateSchedule(n_steps, orders)
            # as many orders as there are paths: then the score is exact
            orders_taken = cast(tuple, orders)[: paths_within(n_evaluations, spread)]
            yield "spread", CoordinateSchedule(n_steps, orders_taken)
    if kind != "coordinate":
        counts = sorted({max(1, min(most, MOST_STEPS) // 2**k) for k in range(3)})
        range_of_steps = quadrature() if callable(quadrature) else quadrature
        placed = place_steps(denoiser, x, range_of_steps, counts, generator=generator)
        for schedule in dict.fromkeys(placed):
            yield "isotropic", schedule


def choose_path(
    denoiser: Denoiser,
    x: Tensor,
    x_valid: Tensor,
    quadrature: Quadrature | Callable[[], Quadrature],
    *,
    kind: str = "auto",
    n_evaluations: int,
    generator: torch.Generator,
    max_rows: int = 256,
    seconds_left: Callable[[], float] = lambda: math.inf,
    ended: Callable[[], object] = lambda: None,
) -> list[Candidate]:
    """Schedules of about equal cost, compared on held-out rows; the best comes first.

    Parameters
    ----------
    denoiser : Denoiser x, x_valid : Tensor of float64, shapes (N, C) and (N', C)
        Training rows to place steps on, held-out rows to measure on.
    quadrature : Quadrature, or callable that returns it
        Called if an isotropic schedule is tried.
    kind : {"auto", "coordinate", "isotropic"}
        Kinds of schedules to try.
    n_evaluations : int
        Denoiser calls per row for each candidate: about steps times paths, with at least two paths.
    max_rows : int
        Most held-out rows used, fewer for a wide table. If the best two are close, they are compared on more.
    seconds_left : callable
        Once fewer are left than the slowest schedule took, no other is tried. If the time of ``TRIAL_ROWS`` rows shows
        that
        several schedules on ``FEW_ROWS`` would take longer, the first is taken, with the nats of the trial.
    ended : callable
        Called if schedules were left out for lack of time.
    """
    book = denoiser.codebook
    if kind == "auto" and book.vocabularies:
        # it computes a high-cardinality column once a path, an isotropic schedule at every step
        kind = "coordinate"
    max_rows = min(max_rows, max(FEW_ROWS, CHOICE_CELLS // denoiser.row_work))
    # a path scores the other columns given the missingness indicators
    given = book.leading if book.has_leading else None
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    tried = possible_paths(
        denoiser, x, quadrature, kind=kind, n_evaluations=n_evaluations, generator=generator
    )
    nats: dict[tuple[str, Schedule], Tensor] = {}

    def measure(candidate: tuple[str, Schedule], rows: Tensor) -> float:
        """Score rows with a candidate and add their nats; returns the seconds that it took."""
        began, noise = time.perf_counter(), torch.Generator().manual_seed(seed)
        n_paths = paths_within(n_evaluations, candidate[1])
        estimate = path_log_prob(
            denoiser, rows, candidate[1], n_paths=n_paths, given=given, generator=noise
        )
        nats[candidate] = torch.cat([nats.get(candidate, x.new_zeros(0)), -estimate.log_prob])
        return time.perf_counter() - began

    took = 0.0  # seconds of one candidate
    for candidate in tried:
        if nats and seconds_left() < took:
            ended()
            max_rows = 0
            break
        if not nats and seconds_left() < math.inf:
            per_row = measure(candidate, x_valid[:TRIAL_ROWS]) / len(x_valid[:TRIAL_ROWS])
            max_rows = min(max_rows, int(seconds_left() / (per_row * MOST_TRIED)))
            if max_rows < FEW_ROWS:
                ended()
                max_rows = 0
                break
            nats.clear()
        took = max(took, measure(candidate, x_valid[:max_rows]))
    best, *others = ranked = sorted(nats, key=lambda c: float(nats[c].mean()))
    more = x_valid[max_rows : RUN_OFF * max_rows] if seconds_left() > RUN_OFF * took else x[:0]
    if len(more) and others:
        gap = (nats[others[0]] - nats[best]).double()
        if gap.mean() < 3 * gap.std() / math.sqrt(len(gap)):
            for candidate in ranked[:2]:
                measure(candidate, more)
            ranked[:2] = sorted(ranked[:2], key=lambda c: float(nats[c].mean()))
    found = []
    for c in ranked:
        error = float(nats[c].std() / math.sqrt(len(nats[c]))) if len(nats[c]) > 1 else math.nan
        n_paths = paths_within(n_evaluations, c[1])
        found.append(Candidate(*c, n_paths, float(nats[c].mean()), error))
    return found
