"""Drawing rows from the model that is scored: the generative reading of the path (6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel import Schedule, State
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.likelihood import random_rank


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    n_samples: int,
    schedule: Schedule,
    *,
    generator: torch.Generator,
    batch_size: int = 4096,
) -> Tensor:
    r"""Rows drawn from :math:`P_\theta`, whose mass the path estimator gives.

    At each step a category is drawn for every column from the current posterior, and the channel shows the
    new evidence that this category would give; what is not known at the end is drawn from the last posterior.

    Parameters
    ----------
    denoiser : Denoiser
    n_samples : int
        N.
    schedule : Schedule
    generator : torch.Generator
        On the device of the denoiser.
    batch_size : int
        Rows in one denoiser call.

    Returns
    -------
    Tensor of int64, shape (N, C)
        Codes. The slot of unseen categories is never drawn.
    """
    book = denoiser.codebook
    device = book.slot_value.device
    out = []
    for n in [batch_size] * (n_samples // batch_size) + [n_samples % batch_size]:
        if n == 0:
            continue
        state = State.start(book, book.slot_value.new_zeros(n, book.n_coords))
        uniform = torch.rand(n, book.n_columns, generator=generator, device=device)
        rank = random_rank(uniform)
        posterior = denoiser(*state)
        codes = posterior.sample(generator)
        for step in range(1, schedule.n_steps + 1):
            xi = None
            if schedule.noisy:
                xi = torch.randn(
                    state.y.shape, generator=generator, device=device, dtype=state.y.dtype
                )
            target = torch.where(
                torch.isinf(state.snr), math.inf, schedule.snr(step, rank).to(state.y)
            )
            state = state.add(book, state.increment(book, book.embed(codes), target, xi))
            if step == schedule.n_steps and schedule.complete:
                break
            posterior = denoiser(*state)
            known = torch.isinf(state.snr)
            codes = torch.where(known, codes, posterior.sample(generator))
        out.append(codes)
    return (
        torch.cat(out) if out else torch.zeros(0, book.n_columns, dtype=torch.int64, device=device)
    )
