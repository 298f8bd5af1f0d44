r"""Cells that follow: the distribution of a denoiser in which a column's cell is given by others with a probability.

Let a column j, the *child*, follow from its parents in most rows: :math:`F_j(x_{pa})` are the numbers that it may then
have. With the columns in an order in which the children come last, each after its parents,

.. math:: p'(x_j \mid \text{before}) = w_j \frac{1[x_j \in F_j(x_{pa})]}{|F_j|} + (1 - w_j)\, p(x_j \mid \text{before}),
          \qquad (23)

with the factors p of the denoiser: a mass that is normalised whatever F and w are. A relation that does not count in a
row (a parent is missing, or F empty) has w = 0 there. An exact denoiser gives p as the ratio of two log-probabilities,
of one child more; a causal one has it where its own order has the child after its parents; a mixture of rows mixes the
masses of its members.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd.denoisers.base import Denoiser, filled
from discrete_itd.denoisers.row_mixture import RowMixtureDenoiser


class Relations(Protocol):
    """What a denoiser asks of K relations among columns; a child comes after the relations of its parents."""

    @property
    def children(self) -> tuple[int, ...]: ...

    @property
    def parents(self) -> tuple[tuple[int, ...], ...]: ...

    @property
    def shares(self) -> tuple[float, ...]: ...

    def log_terms(self, x: np.ndarray) -> np.ndarray:
        """log(w / |F|) where the child follows in rows (N, C), -inf where not, NaN where w = 0: (N, K), nats."""
        ...

    def nodes(self, x: np.ndarray, column: int) -> np.ndarray:
        """Cells (N, n) of a column with which relations hold beside the other cells of rows, and their neighbours."""
        ...


class FollowingDenoiser(Denoiser):
    """The mass (23) of a denoiser that scores rows in closed form.

    It is made from a fitted model's denoiser and relations where they are needed, and is not saved.

    Parameters
    ----------
    base : Denoiser
        With a closed form.
    relations : Relations
    """

    def __init__(self, base: Denoiser, relations: Relations) -> None:
        super().__init__(base.codebook)
        self.base, self.relations = base, relations
        self._members: list[FollowingDenoiser] = []
        if isinstance(base, RowMixtureDenoiser):
            members = [cast(Denoiser, member) for member in base.members]
            self._members = [FollowingDenoiser(member, relations) for member in members]

    @property
    def closed_form(self) -> bool:
        """True: (23)."""
        return True

    @property
    def row_work(self) -> int:
        return self.base.row_work

    @property
    def score_work(self) -> int:
        return self.base.score_work

    @property
    def independent_part(self):
        return self.base.independent_part

    @cached_property
    def _counting(self) -> list[int]:
        """The relations in whose factors the base has p."""
        order, children = self.base.own_order, self.relations.children
        if order is None:
            return list(range(len(children))) if self.base.exact else []
        return [
            k
            for k, (child, parents) in enumerate(zip(children, self.relations.parents, strict=True))
            if max(map(order.index, parents)) < order.index(child)
        ]

    def terms(self, x: Tensor) -> Tensor:
        """The logarithms of the first summands of (23), by row and relation, (B, K); NaN where w = 0."""
        return torch.from_numpy(self.relations.log_terms(x.cpu().numpy())).to(x)

    def without_followers(self, x: Tensor) -> Tensor:
        """Rows ``x`` (B, C) with the children that follow as missing cells."""
        out, follows = x.clone(), self.terms(x) > -math.inf
        for k, child in enumerate(self.relations.children):
            out[:, child] = out[:, child].masked_fill(follows[:, k], math.nan)
        return out

    def touching(self, cells: Tensor) -> Tensor:
        """Which relations have a column among the ``cells`` (B, C), or (C,): (B, K), or (K,)."""
        each = [
            cells[..., [*parents, child]].any(-1)
            for child, parents in zip(self.relations.children, self.relations.parents, strict=True)
        ]
        return torch.stack(each, -1)

    def log_prob(self, x: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Log-probability of rows ``x`` (B, C): (B,), float64, nats; relations ``left_out``, (B, K), do not count."""
        return self._log_prob(x, self._counted(x, left_out))

    def log_factors(self, x: Tensor, left_out: Tensor | None = None) -> Tensor:
        """The factors of :meth:`log_prob` in an order with the children last: float64, (B, C)."""
        return self._log_factors(x, self._counted(x, left_out))

    def _counted(self, x: Tensor, left_out: Tensor | None) -> Tensor:
        terms = self.terms(x)
        return terms if left_out is None else terms.masked_fill(left_out, math.nan)

    def _mixed(self, log_first: Tensor, log_p: Tensor, k: int) -> Tensor:
        """(23) by the logarithms of its first summand and of p, (n,)."""
        return torch.logaddexp(log_first, math.log1p(-self.relations.shares[k]) + log_p)

    def _own(self, terms: Tensor) -> Tensor:
        """The terms (B, K) of the relations that count in the base's factors."""
        own = torch.full_like(terms, math.nan)
        own[:, self._counting] = terms[:, self._counting]
        return own

    def _log_prob(self, x: Tensor, terms: Tensor) -> Tensor:
        if self._members:
            each = [m._log_prob(x, terms) for m in self._members]
            weights = cast(RowMixtureDenoiser, self.base).log_weights
            return torch.logsumexp(torch.stack(each, 1) + weights, 1)
        terms = self._own(terms)
        rows = (~terms.isnan()).any(1)
        if self.base.own_order is not None and bool(rows.any()):
            return self._log_factors(x, terms).sum(1)
        out = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        some, others = (torch.nonzero(t).flatten() for t in (rows, ~rows))
        if len(others):
            out[others] = self.base.log_prob(filled(x[others])).double()[: len(others)]
        if len(some):
            first, later = self._chain(x[some], terms[some])
            out[some] = first + later.sum(1)
        return out

    @property
    def members(self) -> list[tuple[FollowingDenoiser, float]]:
        """The members of a mixture of rows, with log-weights; else itself alone."""
        if not self._members:
            return [(self, 0.0)]
        weights = cast(RowMixtureDenoiser, self.base).log_weights.tolist()
        return list(zip(self._members, weights, strict=True))

    def unknown_children(self) -> list[list[int]]:
        """The children that are left out of the first, second, ... and last factor of an exact base: all to none."""
        children = list(self.relations.children)
        return [children[k:] for k in range(len(children) + 1)]

    def factors_of_children(self, log_probs: Sequence[Tensor], terms: Tensor) -> Tensor:
        """The factors (..., K) by log-probabilities (...) of rows without :meth:`unknown_children` and their terms."""
        factors = []
        for k, (before, after) in enumerate(itertools.pairwise(log_probs)):
            # what comes after cells that the base excludes is excluded
            p = torch.where(before.isneginf(), before, after - before)
            counts = ~terms[..., k].isnan()
            factors.append(torch.where(counts, self._mixed(terms[..., k], p, k), p))
        return torch.stack(factors, -1)

    def _chain(self, x: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (n,) of the cells of rows (n, C) outside the children, and the factors (n, K) of these."""
        log_probs = self.base.log_probs_before(filled(x), self.relations.children)[:, : len(x)]
        return log_probs[0], self.factors_of_children(log_probs.unbind(0), terms)

    def _log_factors(self, x: Tensor, terms: Tensor) -> Tensor:
        if self._members:
            return self._mixture_factors(x, terms)
        terms, out = self._own(terms), self.base.log_factors(x).double()
        some = torch.nonzero((~terms.isnan()).any(1)).flatten()
        if not len(some):
            return out
        children, rows = list(self.relations.children), x[some]
        if self.base.own_order is not None:
            for k, child in enumerate(children):
                counts = ~terms[:, k].isnan()
                out[:, child] = torch.where(
                    counts, self._mixed(terms[:, k], out[:, child], k), out[:, child]
                )
            return out
        first, factors = self._chain(rows, terms[some])
        known = rows.index_fill(1, torch.tensor(children, device=x.device), math.nan)
        each = self.base.log_factors(filled(known)).double()[: len(rows)]
        there = (~known.isnan()).to(each)  # factors add up to log_prob to rounding only
        each += ((first - each.sum(1)) / there.sum(1).clamp_min(1.0))[:, None] * there
        each[:, children] = factors
        out[some] = each
        return out

    def _mixture_factors(self, x: Tensor, terms: Tensor) -> Tensor:
        """Factors of the members averaged as by :meth:`RowMixtureDenoiser.log_factors`."""
        base = cast(RowMixtureDenoiser, self.base)
        known = {m.base: m._log_factors(x, terms) for m in self._members}
        return base.log_factors(x, known)

    def natural_order(self, generator: torch.Generator) -> list[int]:
        return with_children_last(self.base.natural_order(generator), self.relations)

    def guided(self, x: Tensor, columns: Tensor) -> Tensor:
        """Cells (n, M) of the ``columns`` (n,) with which relations hold beside the others of rows (n, C), else NaN."""
        parts, cells = [], x.cpu().numpy()
        each = columns.cpu().numpy()
        for j in np.unique(each).tolist():
            parts.append((each == j, self.relations.nodes(cells[each == j], j)))
        out = np.full((len(x), max((p.shape[1] for _, p in parts), default=0)), np.nan)
        for rows, nodes in parts:
            out[rows, : nodes.shape[1]] = nodes
        return torch.from_numpy(out).to(x)


def following(denoiser: Denoiser, relations: Relations | None) -> Denoiser:
    """The denoiser with the factors (23) of relations, if there are any and it has a closed form; else itself."""
    if relations is None or not relations.children or not denoiser.closed_form:
        return denoiser
    return FollowingDenoiser(denoiser, relations)


def with_children_last(order: Sequence[int], relations: Relations | None) -> list[int]:
    """An order of columns in which the children of relations come last, each after its parents."""
    rank = {} if relations is None else {j: k for k, j in enumerate(relations.children)}
    return sorted(order, key=lambda j: rank.get(j, -1))
