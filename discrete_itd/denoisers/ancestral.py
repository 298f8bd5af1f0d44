r"""Columns one after the other, in an order given: what exact denoisers share to explain and draw rows in one pass.

In a Bayesian network whose columns come in an order with parents first, :math:`P(x_j \mid x_i, i \text{ before } j)` is
a number of column j's own table, so that a row's factors are C look-ups and a draw is C draws of single cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import index_tensor, replace_rows
from discrete_itd.channel.levels import Levels
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import filled

if TYPE_CHECKING:
    from discrete_itd.denoisers.marginal import MarginalDenoiser


MARGIN = 20.0  # nats by which a class that is left out stays behind the others
BLOCK = 1 << 16  # cells times classes whose logarithms are added up at once: they stay in a cache
MANY = 256  # columns whose product leaves the range of numbers in nearly every row


def ranks(codebook: Codebook, order: Tensor) -> Tensor:
    """The place of every low-cardinality column in an order (C,) of all, on the device of the codebook: (C',)."""
    place = {j: i for i, j in enumerate(order.tolist())}
    return index_tensor(tuple(place[j] for j in codebook.place), str(codebook.device))


def parents_first_order(
    codebook: Codebook, parents: Sequence[Sequence[int]], generator: torch.Generator
) -> Tensor:
    """A random order in which every column comes after its parents, then the leading ones moved to the front.

    Parameters
    ----------
    codebook : Codebook
    parents : sequence of sequences of int
        Of each low-cardinality column, counted among these; no cycle. Other columns have none.
    generator : torch.Generator

    Returns
    -------
    Tensor of int64, shape (C,)
        Parents still come first among the leading columns and among the others.
    """
    finite = codebook.finite.tolist()
    above: list[set[int]] = [set() for _ in codebook.columns]
    for j, own in zip(finite, parents, strict=True):
        above[j] = {finite[p] for p in own}
    waiting = torch.randperm(len(above), generator=generator, device=generator.device).tolist()
    order: list[int] = []
    while waiting:
        ready = next(j for j in waiting if above[j].issubset(order))
        order.append(ready)
        waiting.remove(ready)
    leading = codebook.leading.tolist()
    order.sort(key=lambda j: not leading[j])  # stable
    return torch.tensor(order, device=codebook.device)


def beside_fallback(
    codebook: Codebook, logits: Tensor, fallback: MarginalDenoiser | None
) -> Posterior:
    """A posterior of normalised ``logits`` (B, T), other columns independent as the ``fallback`` has them."""
    categorical = CategoricalPosterior(codebook.levels, logits, normalised=True)
    if fallback is None:
        return Posterior(codebook, categorical)
    others = fallback.marginals().expand(len(logits))
    return Posterior(codebook, categorical, others.gaussian, others.words)


def factors_beside(x: Tensor, own: Tensor, fallback: MarginalDenoiser | None) -> Tensor:
    """Factors (B, C) of rows ``x``, those of the low-cardinality columns, (B, C'), given."""
    if fallback is None:
        return own
    out = fallback.log_factors(x).to(own)
    return out.index_copy(1, fallback.codebook.finite, own)


def factors_by_difference(
    x: Tensor,
    wanted: Tensor,
    order: Sequence[int],
    log_prob: Callable[[Tensor, Sequence[int]], Tensor],
) -> Tensor:
    r"""Some factors as differences of log-probabilities, :math:`\log P(x_{\le j}) - \log P(x_{<j})`.

    Parameters
    ----------
    x : Tensor of float64, shape (B, C)
        Rows; NaN where a cell is missing.
    wanted : Tensor of bool, shape (B, C)
        Which factors; others are 0.
    order : sequence of int
        Columns.
    log_prob : callable
        Log-probabilities (B,) of rows whose cells outside some columns are missing, and these columns.

    Returns
    -------
    Tensor, shape (B, C), nats
    """
    out = x.new_zeros(x.shape)
    for i, j in enumerate(order):
        rows = torch.nonzero(wanted[:, j]).flatten()
        if not len(rows):
            continue
        upto = order[: i + 1]
        seen = torch.full_like(x[filled(rows)], torch.nan)
        seen[:, list(upto)] = x[filled(rows)][:, list(upto)]
        after = log_prob(seen, upto)
        seen[:, j] = torch.nan
        out[rows, j] = (after - log_prob(seen, upto))[: len(rows)].to(out)
    return out


def shares_of_classes(log_weights: Tensor, own: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    r"""How a mixture's log-probability grows as its columns are multiplied in one by one.

    Parameters
    ----------
    log_weights : Tensor, shape (Z,)
    own : Tensor, shape (C, B, Z), nats
        Each class's log-probability of each cell; 0 where it is missing.
    orders : sequence of sequences of int, length C
        The result is the mean over them.

    Returns
    -------
    Tensor, shape (C, B), nats
        :math:`\log \sum_z r_z\, p_z(x_j)`, the classes weighted by their posterior given the columns before j. Columns
        sum to :math:`\log \sum_z w_z \prod_j p_z(x_j)`.
    """
    if len(own) > MANY:
        return slow_shares_of_classes(log_weights, own, orders)
    peak = own.amax(2)  # (C, B)
    # not below the smallest normal number: others take ten times as long
    smallest = math.log(torch.finfo(own.dtype).tiny) + 1
    probs = (own - peak[:, :, None]).clamp_min_(smallest).exp_()
    out, least = torch.zeros_like(peak), own.new_zeros(own.shape[1])
    for order in orders:
        shares, total = log_weights.exp(), torch.zeros_like(least)
        for j in order:
            shares = shares * probs[j]
            step = shares.sum(1)
            shares /= step[:, None]  # small numbers keep their digits
            step = step.log()
            out[j] += step / len(orders)
            total += step
        least = torch.minimum(least, total)
    out += peak
    # a class whose share was too small for a number gains at most minus the total in the columns that follow
    far = ~(least > smallest + MARGIN)
    slow = replace_rows(
        out.T, far, lambda rows: slow_shares_of_classes(log_weights, own[:, rows], orders).T
    )
    return slow.T


def slow_shares_of_classes(
    log_weights: Tensor, own: Tensor, orders: Sequence[Sequence[int]]
) -> Tensor:
    """As :func:`shares_of_classes`, of rows of any probability: by sums of logarithms, a block of columns at once."""
    out = own.new_zeros(own.shape[:2])
    step = max(1, BLOCK // max(1, own[0].numel()))
    for order in orders:
        before = log_weights.double().expand(own.shape[1:])
        for some in torch.as_tensor(order, device=own.device).split(step):
            log_class = own[some].double()
            log_class[0] += before
            log_class = log_class.cumsum(0)
            totals = log_class.logsumexp(2)
            steps = totals.diff(dim=0, prepend=torch.zeros_like(totals[:1]))
            out[some] += steps.to(out) / len(orders)
            before = log_class[-1] - totals[-1, :, None]
    return out


def both_ways(columns: Sequence[int], leading: Sequence[int]) -> list[list[int]]:
    """Two orders of ``columns``: as they come, and with the others backwards; the ``leading`` ones come first.

    Columns are named by their place among them.
    """
    first = [i for i, j in enumerate(columns) if j in leading]
    others = [i for i, j in enumerate(columns) if j not in leading]
    return [first + others, first + others[::-1]]


# -- draws ------------------------------------------------------------------------------------------


def drawable(levels: Levels, allowed: Tensor | None) -> Tensor:
    """Which levels may be drawn, (T,): those ``allowed``, by default all but the unseen."""
    return ~levels.level_unseen if allowed is None else allowed


def cumulative(log_probs: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Cumulative probabilities along the last axis, of those ``allowed``, in double; the last one is 1."""
    log_probs = log_probs.double()
    if allowed is not None:
        log_probs = log_probs.masked_fill(~allowed, -torch.inf)
    p = torch.softmax(log_probs, -1).cumsum(-1)
    # without rounding, or the last level, though not allowed, could be drawn
    return p / p[..., -1:]


def inverse_cdf(cdf: Tensor, generator: torch.Generator) -> Tensor:
    """One draw for each row of cumulative probabilities (n, K): int64, (n,)."""
    shape = (len(cdf), 1)
    u = torch.rand(shape, generator=generator, device=cdf.device, dtype=cdf.dtype)
    return (u >= cdf).sum(1)
