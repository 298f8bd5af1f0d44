"""Filling cells: drawing from the model that is scored, best guesses, and the distribution of one cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from discrete_itd.channel import Schedule, State, column_ranks
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import BLOCK, Denoiser, filled


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    start: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator,
    left: Tensor | None = None,
    batch_size: int = 4096,
) -> Tensor:
    r"""Rows drawn from :math:`P_\theta`, whose mass the path estimator gives, given what is known of them.

    At each step a value is drawn for every column from the current posterior, and the channel shows the
    new evidence that this value would give; what is not known at the end is drawn from the last posterior.

    Parameters
    ----------
    denoiser : Denoiser
    start : Tensor of float64, shape (N, C)
        One row for each to be drawn; NaN in the cells to be filled, all of them for rows from nothing.
    schedule : Schedule
    generator : torch.Generator
        On the device of the denoiser.
    left : Tensor of bool, shape (N, C), optional
        Cells that stay as they are, missing or not; the missing ones tell nothing to the others.
    batch_size : int
        Rows in one denoiser call.

    Returns
    -------
    Tensor of float64, shape (N, C)
        The rows, filled. The level of unseen categories is never drawn.
    """
    if not len(start):
        return start
    if left is None:
        left = torch.zeros_like(start, dtype=torch.bool)
    parts = zip(start.split(batch_size), left.split(batch_size), strict=True)
    return torch.cat([_fill(denoiser, *part, schedule, generator) for part in parts])


def _fill(
    denoiser: Denoiser, x: Tensor, left: Tensor, schedule: Schedule, generator: torch.Generator
) -> Tensor:
    book = denoiser.codebook
    known = ~x.isnan()
    free = ~known & ~left
    missing = ~known & ~free
    n_free = free.sum(1, keepdim=True)
    uniform = torch.rand(x.shape, generator=generator, device=x.device)
    path = torch.randint(2**31, (len(x),), generator=generator, device=x.device)
    rank = column_ranks(schedule, uniform, path, free, known)
    n_steps = schedule.n_steps
    if schedule.complete and not schedule.noisy:
        n_steps = min(n_steps, int(n_free.max()))
    state = State.start(book, book.embed(x), known)
    for step in range(1, n_steps + 1):
        target = torch.where(known, math.inf, schedule.snr(step, rank, n_free).to(state.y))
        target = target.masked_fill(missing, 0.0)
        moved = (target > state.snr) & ~known
        x = torch.where(known, x, denoiser(*state).sample(generator, moved))
        points = book.embed(x)
        xi = None
        if schedule.noisy:
            xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
        state = state.add(book, state.increment(book, points, target, xi))
        known = torch.isinf(state.snr)
        if step == n_steps and schedule.complete:
            break
    else:
        x = torch.where(known, x, denoiser(*state).sample(generator, ~known))
    return x.masked_fill(missing, math.nan)


@torch.no_grad()
def best_guess(
    denoiser: Denoiser, x: Tensor, *, medians: Sequence[int] = (), batch_size: int = 2048
) -> Tensor:
    """Rows whose missing cells are filled one by one with what the denoiser expects, given the others.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        NaN in the cells to be filled.
    medians : sequence of int
        Columns of ordered categories to be filled with the median. Others of categories get the most
        probable one, continuous columns the mean.
    batch_size : int

    Returns
    -------
    Tensor of float64, shape (N, C)
    """
    out = []
    for rows, posterior in _beliefs(denoiser, x, batch_size):
        known = ~rows.isnan()
        guess = posterior.mode(~known)
        for j in medians:
            cdf = posterior.column(j).exp().cumsum(1)
            guess[:, j] = (cdf < 0.5 * cdf[:, -1:]).sum(1).double()
        out.append(torch.where(known, rows, guess))
    return torch.cat(out)


@torch.no_grad()
def column_distribution(
    denoiser: Denoiser, x: Tensor, column: int, *, batch_size: int = 2048
) -> Tensor:
    """Log-probabilities of one column's categories, given the rest of each row.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        The column itself is not looked at.
    column : int
        Of categories.
    batch_size : int

    Returns
    -------
    Tensor of float64, shape (N, K), nats
        The level of unseen categories, if there is one, is the last.
    """
    x = x.index_fill(1, torch.tensor([column], device=x.device), math.nan)
    return torch.cat([q.column(column).double() for _, q in _beliefs(denoiser, x, batch_size)])


def _beliefs(denoiser: Denoiser, x: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Posterior]]:
    """Batches of rows, and what the denoiser believes of them when all cells but the missing are known."""
    book = denoiser.codebook
    block = min(BLOCK, batch_size)
    for rows in x.split(batch_size // block * block):
        whole = filled(rows, block)  # so that no row's answer depends on how many there are
        posterior = denoiser(*State.start(book, book.embed(whole), ~whole.isnan()))
        yield rows, posterior.rows(slice(0, len(rows)))
