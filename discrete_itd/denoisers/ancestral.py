r"""Columns one after the other, in an order given: what exact denoisers share to explain and draw rows in one pass.

In a Bayesian network whose columns come in an order with parents first, :math:`P(x_j \mid x_i, i \text{ before } j)` is
a number of column j's own table, so that a row's factors are C look-ups and a draw is C draws of single cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import index_tensor
from discrete_itd.channel.levels import Levels
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import filled

if TYPE_CHECKING:
    from discrete_itd.denoisers.marginal import MarginalDenoiser


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


def shares_of_classes(
    log_weights: Tensor, own: Callable[[int], Tensor], orders: Sequence[Sequence[int]], n_rows: int
) -> Tensor:
    r"""How a mixture's log-probability grows as its columns are multiplied in one by one.

    Parameters
    ----------
    log_weights : Tensor, shape (Z,)
    own : callable
        From a column to each class's log-probability of its cells, (B, Z), nats; 0 where one is missing.
    orders : sequence of sequences of int, length C
        The result is the mean over them.
    n_rows : int
        B.

    Returns
    -------
    Tensor, shape (B, C), nats
        :math:`\log \sum_z r_z\, p_z(x_j)`, the classes weighted by their posterior r given the columns before j. The
        columns sum to :math:`\log \sum_z w_z \prod_j p_z(x_j)`.
    """
    total = log_weights.new_zeros(len(orders[0]), n_rows)
    for order in orders:
        log_class = log_weights
        for j in order:
            joint = log_class + own(j)
            log_class = torch.log_softmax(joint, 1)
            total[j] += joint.amax(1) - log_class.amax(1)  # what the largest term has lost
    return total.T / len(orders)


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
