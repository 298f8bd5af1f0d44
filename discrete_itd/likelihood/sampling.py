"""Filling cells: joint samples from the scored model, point predictions, and the distribution of one column."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import Schedule, State
from discrete_itd.channel.posterior import Posterior
from discrete_itd.channel.schedules import column_ranks, steps_needed
from discrete_itd.denoisers.base import BLOCK, Denoiser, cumulative, filled
from discrete_itd.likelihood.conditional import ConditionalDenoiser

Map = Callable[[np.ndarray], np.ndarray]


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    start: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator,
    left: Tensor | None = None,
    n_steps: int | None = None,
    batch_size: int = 4096,
) -> Tensor:
    r"""Rows drawn from :math:`P_\theta`, the distribution that the path estimator (6) scores, given the known cells.

    At each step a value of every column is drawn from the current posterior, and the state gets the evidence that this
    value would give. Cells that are still unknown at the end are drawn from the last posterior. ``start`` (N, C) has
    one row per sample, NaN in the cells to be drawn; the cells ``left`` (N, C) stay as they are, those that are missing
    are marginalised. The level of unseen categories is never drawn. ``generator`` is on the device of the denoiser, and
    ``batch_size`` rows go into one denoiser call. ``n_steps`` is at least the number of steps that these rows need, by
    default ``steps_needed``, for which alone the host waits for the device.
    """
    left = torch.zeros_like(start, dtype=torch.bool) if left is None else left
    if len(start) > batch_size:
        how = {"generator": generator, "n_steps": n_steps, "batch_size": batch_size}
        parts = zip(start.split(batch_size), left.split(batch_size), strict=True)
        return torch.cat([sample(denoiser, x, schedule, left=own, **how) for x, own in parts])
    x = start
    book = denoiser.codebook
    known = ~x.isnan()
    free = ~known & ~left
    missing = ~known & ~free
    n_free = free.sum(1, keepdim=True)
    uniform = torch.rand(x.shape, generator=generator, device=x.device)
    rank = column_ranks(schedule, uniform, free, known)
    n_steps = steps_needed(schedule, n_free) if n_steps is None else n_steps
    state = State.start(book, book.embed(x), known)
    for step in range(1, n_steps + 1):
        target = torch.where(known, math.inf, schedule.snr(step, rank, n_free).to(state.y))
        target = target.masked_fill(missing, 0.0)
        x = torch.where(known, x, denoiser(*state).sample(generator))
        points = book.embed(x)
        xi = None
        if schedule.noisy:
            xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
        state = state.add(book, state.increment(book, points, target, xi))
        known = torch.isinf(state.snr)
        if step == n_steps and schedule.complete:
            break
    else:
        x = torch.where(known, x, denoiser(*state).sample(generator))
    return x.masked_fill(missing, math.nan)


@torch.no_grad()
def point_predictions(
    denoiser: Denoiser,
    x: Tensor,
    *,
    ordered: Collection[int] = (),
    means: Mapping[int, tuple[Map, Map]] | None = None,
    batch_size: int = 2048,
) -> Tensor:
    """Rows ``x`` (N, C) whose missing cells are filled one by one by point predictions given the known cells.

    Continuous columns, and columns of ``ordered`` levels, get the median, other columns the most probable category
    seen in training. A column of ``means`` gets the mean of its cells in another unit: of two functions of arrays (n,)
    the first gives the numbers of encoded cells, the second the encoded cell that stands for a number.
    """
    out, book, means = x.clone(), denoiser.codebook, means or {}
    numbers = sorted({*ordered, *means, *book.reals.tolist()})
    for rows, posterior in _posteriors(denoiser, x, batch_size):
        missing = x[rows].isnan()
        filling = posterior.mode()
        for j in numbers:
            own = torch.nonzero(missing[:, j]).flatten()
            if len(own):
                filling[own, j] = _center(posterior, j, own, means.get(j))
        out[rows] = torch.where(missing, filling, x[rows])
    return out


def _center(posterior: Posterior, j: int, rows: Tensor, unit: tuple[Map, Map] | None) -> Tensor:
    """Medians of column j in some rows (n,), or means in a unit: float64, (n,)."""
    book, median = posterior.codebook, torch.tensor([0.5])
    if j not in book.place:
        q = posterior.number(j, rows)
        if unit is None:
            return q.quantiles(median)[:, 0]
        mean = q.expectation(lambda z: _mapped(unit[0], z))
    else:
        n_levels = book.columns[j].n_levels
        log_p = posterior.column(j)[rows, :n_levels].double()
        if unit is None:
            return level_quantiles(log_p, median)[:, 0]
        mean = (torch.softmax(log_p, 1) * _mapped(unit[0], torch.arange(n_levels).to(log_p))).sum(1)
    return _mapped(unit[1], mean)


def _mapped(function: Map, values: Tensor) -> Tensor:
    """A function of arrays (n,) at values of any shape."""
    found = function(values.cpu().numpy().ravel())
    return torch.from_numpy(found).to(values).view(values.shape)


def level_quantiles(log_p: Tensor, u: Tensor) -> Tensor:
    """Quantiles ``u`` (n,) of ordered levels of logits (B, K), the first up to which the probability is u: (B, n)."""
    cdf, u = cumulative(log_p), u.to(log_p.device, torch.float64)
    return torch.searchsorted(cdf, u.expand(len(cdf), -1).contiguous()).double()


@torch.no_grad()
def of_column(
    denoiser: Denoiser,
    x: Tensor,
    column: int,
    ask: Callable[[Posterior], Tensor],
    *,
    batch_size: int = 2048,
) -> Tensor:
    """Answers (N, n), float64, of a function of posteriors: of a column given the other cells of rows ``x`` (N, C)."""
    x = x.index_fill(1, torch.tensor([column], device=x.device), math.nan)
    parts = [(rows, ask(q).double()) for rows, q in _posteriors(denoiser, x, batch_size, column)]
    rows, answers = (torch.cat(t) for t in zip(*parts, strict=True))
    return answers[rows.argsort()]


def _posteriors(
    denoiser: Denoiser, x: Tensor, batch_size: int, column: int | None = None
) -> Iterator[tuple[Tensor, Posterior]]:
    """Row numbers and their posteriors, of all columns or of one, given the cells that are not missing."""
    book, places = denoiser.codebook, torch.arange(len(x), device=x.device)
    if isinstance(denoiser, ConditionalDenoiser):
        asked = book.unknown(x)
        if column is not None:
            asked &= torch.arange(x.shape[1], device=x.device) == column
        alone = denoiser.is_alone(x, asked)
        for rows in places[alone].split(denoiser.rows_at_once):
            if len(rows):
                yield rows, denoiser.each(x[rows], asked[rows])
        places = places[~alone]
    block = min(BLOCK, batch_size)
    for rows in places.split(batch_size // block * block):
        whole = filled(x[rows], block)  # a row's rounding does not depend on the number of rows
        posterior = denoiser(*State.start(book, book.embed(whole), ~whole.isnan()))
        yield rows, posterior.rows(slice(0, len(rows)))
