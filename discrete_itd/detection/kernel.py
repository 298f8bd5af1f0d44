"""A row's surprisal under a kernel density: split by cell, and given the other rows under wide kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from discrete_itd.channel.devices import add_at
from discrete_itd.channel.posterior import GaussianPosterior, Posterior
from discrete_itd.denoisers import KernelDenoiser, MarginalDenoiser
from discrete_itd.denoisers.base import rows_at_once
from discrete_itd.denoisers.kernel import BATCH_PAIRS
from discrete_itd.denoisers.kernel_products import (
    Centres,
    Evidence,
    Features,
    Kernels,
    Widths,
    log_sum,
)
from discrete_itd.likelihood import in_blocks

FAR = 3.0  # widths from the nearest centre, beyond which a value has no say in the centres' weights
WRONG = 0.3  # odds that a cell is wrong; from 0.03 to 0.3 they make little difference
LEAST = 1e-12  # a probability that stands for less
MOST_KEPT = 16  # columns whose kernels are kept, for as many rows as the density asks at once
COARSE = Widths(0.6, 1.2, 0.2)  # to find anomalies among training rows
COARSE_CENTRES = 2000  # more of them only cost time


@torch.no_grad()
def kernel_nats(
    kernel: KernelDenoiser,
    x: Tensor,
    progress: Callable[[int], object] | None = None,
    *,
    given: Tensor | None = None,
    by_doubt: bool = True,
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
    by_doubt : bool
        Whether nats are divided as below. Otherwise the weights and distances are those of :math:`k_j` itself, and
        the rest is shared equally: the division of older files, with whose calibration nats such nats are compared.

    Returns
    -------
    Tensor of float64, shape (B, C)
        Nats; rows sum to :math:`-\log P(x)`. They are divided under kernels that expect wrong cells,
        :math:`\tilde k_j = k_j + \epsilon\, q_j`, with :math:`q_j` the distribution of a wrong cell
        (:func:`log_probs_alone`) and :math:`\epsilon` the odds ``WRONG``. With :math:`w_i` the share of centre i in
        :math:`\sum_i \prod_j \tilde k_j(x_j | c_{ij})`, a cell is wrong with probability
        :math:`r_j = \sum_i w_i\, \epsilon\, q_j(x_j) / \tilde k_j(x_j | c_{ij})`. It has its distance from the centres
        around the row, :math:`-\sum_i w_i \log \tilde k_j(x_j | c_{ij})`. What the row has beyond these distances is
        never negative, and is divided in proportion to :math:`-\log(1 - r_j)`.

        A missing cell has no nats. A number that is far from all centres counts as missing in those of the others, and
        what it adds to :math:`-\log P` is its own; several share it in proportion to their distances. With ``given``,
        the other cells sum to :math:`-\log P(x_{others} | x_{given})`; a given cell has no nats, and is taken to be
        right.

    Notes
    -----
    Where one cell of held-out rows was replaced, the largest nats, less those of inliers, are that cell's more often
    than under the division of older files (``python -m tests.benchmarks.explanations --methods "relative share"``).
    """
    # where kernels of many columns are kept, of fewer rows at once
    n_kept = len(kernel.codebook.reals) + len(kernel.codebook.vocabularies)
    batch = rows_at_once(kernel.batch * MOST_KEPT // max(MOST_KEPT, n_kept))
    out = [x[:0]]
    for part in in_blocks(lambda rows: _nats(kernel, rows, given, by_doubt), x, batch_size=batch):
        out.append(part)
        if progress is not None:
            progress(len(part))
    return torch.cat(out)


def _nats(kernel: KernelDenoiser, x: Tensor, given: Tensor | None, by_doubt: bool) -> Tensor:
    kernels, centres, book = kernel.kernels, kernel.kernels.centres, kernel.codebook
    evidence = kernels.known(x)
    codes = {v.column: kernels.log_codes(x[:, v.column], v.column) for v in book.vocabularies}
    start = math.log(len(centres))
    if given is not None:
        start = log_sum(kernels.log_kernels(x.masked_fill(~given, math.nan)).double())

    def nats_of(features: Features) -> Tensor:
        total = centres.product(features) + sum(codes.values())
        return start - log_sum(total.double())

    far = _far(kernel, evidence)  # (B, R)
    is_far = torch.zeros_like(x, dtype=torch.bool).index_copy(1, book.reals, far)
    near, features = x.masked_fill(is_far, math.nan), kernels.features(evidence.without(far))
    if by_doubt:
        distance, doubt, w = _doubted(kernel, near, features, codes, given)
    else:
        distance, doubt, w = _plain(kernel, features, codes)
    there = ~near.isnan() if given is None else ~near.isnan() & ~given
    nats = nats_of(features)
    shares = _divided(nats, distance, doubt, there)
    if far.any():
        features = kernels.features(evidence)
        parts = -features.reals * (w.double() @ centres.features.reals)
        distance = add_at(torch.zeros_like(x), 1, centres.columns.reals, parts)
        shares += _divided(nats_of(features) - nats, torch.zeros_like(x), distance, is_far)
    return shares


def _doubted(
    kernel: KernelDenoiser,
    x: Tensor,
    features: Features,
    codes: dict[int, Tensor],
    given: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Under kernels that expect wrong cells: distances and nats of being right, (B, C), and weights of centres, (B, n).

    ``features`` are those of rows ``x``, and ``codes`` the log-kernels of their high-cardinality columns.
    """
    kernels, centres, book = kernel.kernels, kernel.kernels.centres, kernel.codebook
    own, columns = features.levels, centres.columns.levels
    floor = (log_probs_alone(kernels.marginals, x)[1] + math.log(WRONG)).to(own)
    if given is not None:
        floor = floor.masked_fill(given, -math.inf)
    own = torch.logaddexp(own, floor[:, columns])
    total = centres.product(Features(own, features.reals), book.finite.tolist())
    kept = [*book.reals.tolist(), *(j for j in codes if given is None or not given[j])]
    total = (total + sum(codes[j] for j in codes if j not in kept)).contiguous()
    above = own.new_empty(len(kept), len(x), len(centres))  # log-kernels, relative to the floor
    for k, j in enumerate(kept):
        log_kernels = codes[j] if j in codes else centres.product(features, (j,))
        torch.sub(log_kernels, floor[:, j, None], out=above[k])
        above[k] = nn.functional.softplus(above[k].clamp_min_(math.log(LEAST)))
        total += above[k]
    w = torch.softmax(total, 1)
    # the kernel of a column with few levels is one of the row's features
    at = w @ centres.features.levels
    distance = add_at(torch.zeros_like(x), 1, columns, -(at * own).double())
    right = -(at * torch.expm1(floor[:, columns] - own)).double()
    right = add_at(torch.zeros_like(x), 1, columns, right)
    for k, j in enumerate(kept):
        distance[:, j] = -floor[:, j] - torch.linalg.vecdot(above[k], w)
        right[:, j] = -torch.linalg.vecdot(above[k].neg_().expm1_(), w)
    return distance, -right.clamp(LEAST, 1.0).log(), w


def _plain(
    kernel: KernelDenoiser, features: Features, codes: dict[int, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The same under the kernels themselves, all cells in equal doubt."""
    centres = kernel.kernels.centres
    total = centres.product(features) + sum(codes.values())
    w = torch.softmax(total.double(), 1)
    distance = w.new_zeros(len(w), kernel.codebook.n_columns)
    # a log-kernel is linear in the centre's features, so its mean over centres is that of their mean
    for own, theirs, columns in zip(features, centres.features, centres.columns, strict=True):
        add_at(distance, 1, columns, -(own * (w.to(own) @ theirs)).double())
    for j, log_kernels in codes.items():
        distance[:, j] -= (w * log_kernels).sum(1)
    return distance, torch.ones_like(distance), w


def _divided(total: Tensor, own: Tensor, by: Tensor, where: Tensor) -> Tensor:
    """Totals (B,) as cells' own numbers in some places, bool (B, C), and the rest in proportion to ``by``."""
    own, by = own.masked_fill(~where, 0.0), by.clamp_min(LEAST).masked_fill(~where, 0.0)
    rest = (total - own.sum(1)) / by.sum(1).clamp_min(LEAST)
    return own + rest[:, None] * by


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


def log_probs_alone(marginals: Posterior, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log-probability of each cell in its column, and if it is wrong: float64, (B, C) each, nats; 0 where missing.

    A wrong cell is drawn from :math:`\tfrac12\pi + \tfrac12 u`: half the time from the column's marginal
    :math:`\pi` (as when rows are mixed up), half the time from u, which is uniform over the categories, or the widest
    Gaussian of a number's marginal (as in a typing error).

    Parameters
    ----------
    marginals : Posterior
        Independent columns, one row.
    x : Tensor of float64, shape (B, C)
    """
    book = marginals.codebook
    alone = marginals.expand(len(x)).log_prob(x).double()
    log_uniform = torch.tensor([-math.log(c.n_points or 1) for c in book.columns]).to(x)
    uniform = log_uniform.expand(x.shape).clone()
    if marginals.gaussian is not None:
        q = marginals.gaussian
        widest = GaussianPosterior(*(t[:, :, -1:] for t in (q.log_weight, q.means, q.var)))
        uniform[:, book.reals] = widest.log_prob(x[:, book.reals].to(book.dtype)).double()
    wrong = torch.logaddexp(alone, uniform) - math.log(2)
    return alone, torch.where(x.isnan(), 0.0, wrong)


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
