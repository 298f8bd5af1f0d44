"""A row's surprisal under a kernel density: split by cell, and given the other rows under wide kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.channel.devices import add_at
from discrete_itd.denoisers import KernelDenoiser, MarginalDenoiser
from discrete_itd.denoisers.base import rows_at_once
from discrete_itd.denoisers.kernel import BATCH_PAIRS
from discrete_itd.denoisers.kernel_products import Centres, Evidence, Kernels, Widths, log_sum
from discrete_itd.likelihood import in_blocks

FAR = 3.0  # widths from the nearest centre, beyond which a value has no say in the centres' weights
COARSE = Widths(0.6, 1.2, 0.2)  # to find anomalies among training rows
COARSE_CENTRES = 2000  # more of them only cost time


@torch.no_grad()
def kernel_nats(
    kernel: KernelDenoiser,
    x: Tensor,
    progress: Callable[[int], object] | None = None,
    *,
    given: Tensor | None = None,
) -> Tensor:
    r"""Surprisal of each cell under a kernel density.

    Parameters
    ----------
    kernel : KernelDenoiser
    x : Tensor of float64, shape (B, C)
    progress : callable, optional
        Called with the number of rows done since the last call.
    given : Tensor of bool, shape (C,), optional
        Columns to condition on, none of them continuous.

    Returns
    -------
    Tensor of float64, shape (B, C)
        Nats; rows sum to :math:`-\log P(x)`. With :math:`w_i` the share of centre i in the sum, a cell has
        :math:`-\sum_i w_i \log k_j(x_j | c_{ij})`, its distance from the centres around the row, and an equal part
        of :math:`\sum_i w_i \log(n w_i)`, the scarcity of those centres. A missing cell has none. A number that is
        far from all centres does not enter the weights, or one wrong cell would raise the nats of the others; the
        remaining difference to :math:`-\log P(x)` is added to its own nats. With ``given``, the other cells sum to
        :math:`-\log P(x_{others} | x_{given})`, the surprisal under a kernel density whose centres weigh
        :math:`v_i`, the share of centre i in :math:`P(x_{given})`, and not 1/n; a given cell has none.
    """
    out = [x[:0]]
    for part in in_blocks(lambda rows: _nats(kernel, rows, given), x, batch_size=kernel.batch):
        out.append(part)
        if progress is not None:
            progress(len(part))
    return torch.cat(out)


def _nats(kernel: KernelDenoiser, x: Tensor, given: Tensor | None) -> Tensor:
    book, kernels, log_n = kernel.codebook, kernel.kernels, math.log(len(kernel.centres))
    evidence = kernels.known(x)
    features = kernels.features(evidence)
    codes = {v.column: kernels.log_codes(x[:, v.column], v.column) for v in book.vocabularies}
    of_codes = sum(codes.values(), x.new_zeros(1, 1))
    total = (kernels.centres.product(features) + of_codes).double()
    left = log_n - log_sum(total)  # (B,): -log P, and below what of it no cell has yet
    log_v = None  # of equal weights
    if given is not None:
        of_given = kernels.log_kernels(x.masked_fill(~given, math.nan)).double()
        left, log_v = log_sum(of_given) - log_sum(total), torch.log_softmax(of_given, 1)
    far = _far(kernel, evidence)  # (B, R)
    if far.any():
        near = kernels.features(evidence.without(far))
        total = (kernels.centres.product(near) + of_codes).double()
    log_w = torch.log_softmax(total, 1)
    w = log_w.exp()
    # a log-kernel is linear in the centre's features, so its mean over centres is that of their mean
    shares = torch.zeros_like(x)
    parts = zip(features, kernels.centres.features, kernels.centres.columns, strict=True)
    for own, theirs, columns in parts:
        add_at(shares, 1, columns, -(own * (w.to(own) @ theirs)).double())
    for column, log_kernels in codes.items():
        shares[:, column] -= (w * log_kernels).sum(1)
    there = (~x.isnan() if given is None else ~x.isnan() & ~given).double()
    shares = shares * there
    few = torch.special.xlogy(w, w).sum(1) + log_n
    if log_v is not None:
        few = (w * (log_w - log_v)).sum(1)
    # scarcity is shared equally; the remaining difference belongs to the far values, if there are any
    shares = shares + (few / there.sum(1).clamp_min(1.0))[:, None] * there
    to = torch.zeros_like(there).index_copy(1, book.reals, far.double())
    to = torch.where(far.any(1, keepdim=True), to, there)
    left = (left - shares.sum(1)) / to.sum(1).clamp_min(1.0)
    return shares + left[:, None] * to


def _far(kernel: KernelDenoiser, evidence: Evidence) -> Tensor:
    """Which values lie beyond ``FAR`` widths of every centre: (B, R)."""
    values, there = evidence.values, evidence.precision > 0
    out = torch.zeros_like(there)
    for r, column in enumerate(kernel.codebook.reals.tolist()):
        centres = kernel.kernels.centres.sorted_values(column)
        if not len(centres):
            continue
        value = values[:, r].contiguous()
        above = torch.searchsorted(centres, value).clamp(max=len(centres) - 1)
        gaps = [(value - centres[i]).abs() for i in (above, (above - 1).clamp_min(0))]
        out[:, r] = torch.minimum(*gaps) > FAR * kernel.widths.real
    return out & there


@torch.no_grad()
def outlyingness(base: MarginalDenoiser, x: Tensor, generator: torch.Generator) -> Tensor:
    """Surprisal of each row given the others under wide kernels: float64, (N,), nats.

    Under narrow kernels, anomalies that have neighbours among the rows look typical. Wide kernels avoid that
    (``python -m tests.benchmarks.robust``).

    Parameters
    ----------
    base : MarginalDenoiser
    x : Tensor of float64, shape (N, C)
    generator : torch.Generator
    """
    order = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    among = order[:COARSE_CENTRES]
    kernels = Kernels(base, Centres(base.codebook, x[among]), COARSE)
    own = torch.full((len(x),), -1, device=x.device)
    own[among] = torch.arange(len(among), device=x.device)
    out, step = [], rows_at_once(BATCH_PAIRS // len(among))
    for rows, itself in zip(x.split(step), own.split(step), strict=True):
        total = kernels.log_kernels(rows).double()
        is_centre = torch.nonzero(itself >= 0).flatten() if len(among) > 1 else itself[:0]
        total[is_centre, itself[is_centre]] = -math.inf
        n = total.new_full((len(rows),), len(among)).index_add(
            0, is_centre, -torch.ones_like(total[is_centre, 0])
        )
        out.append(n.log() - log_sum(total))
    return torch.cat(out)
