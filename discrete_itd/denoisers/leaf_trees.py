"""Chow-Liu trees over the low-cardinality columns, one in each leaf of a density forest.

Every leaf has a tree of its own, so messages pass through pairs of a row and a leaf: one step for each column, for all
pairs at once. Messages are added as logarithms, and multiplied by the tables as probabilities scaled by their largest
entry.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.levels import Levels
from discrete_itd.denoisers.base import finite_log

ROUNDING = 1e-4  # by which probabilities may fail to add up to one
TINY = 1e-38  # probability that stands for less, so that nothing is divided by zero
NEVER = -1e6  # nats that stand for a probability of zero
MOST_NATS = 600.0  # by which other columns favour a level that a cell's own evidence excludes: exp of it is finite


class LeafTrees(nn.Module):
    """Trees of the columns in each leaf.

    Parameters
    ----------
    codebook : Codebook
    parents : Tensor of int64, shape (L, C')
        The parent of every low-cardinality column, counted among these; -1 for the one root of each leaf.
    tables : Tensor, shape (L, C', K, K)
        Probability of a column's level (last) given its parent's (next to last), of the root whatever that is. Rows add
        up to one, also those of levels that the parent does not have.
    inside : Tensor of bool, shape (L, C', K)
        The levels in the box of each leaf.

    Raises
    ------
    ValueError
        If these are no trees, or not positive within the boxes alone.
    """

    parents: Tensor
    tables: Tensor
    _order: Tensor
    _there: Tensor

    def __init__(self, codebook: Codebook, parents: Tensor, tables: Tensor, inside: Tensor) -> None:
        super().__init__()
        self._levels_of = codebook
        n, c, k = inside.shape
        if parents.shape != (n, c) or tables.shape != (n, c, k, k):
            raise ValueError(
                f"parents and tables must have the shapes ({n}, {c}) and ({n}, {c}, {k}, {k}), got"
                f" {tuple(parents.shape)} and {tuple(tables.shape)}"
            )
        is_root = parents < 0
        if bool((parents >= c).any()) or bool((is_root.sum(1) != 1).any()):
            raise ValueError("parents must be columns, with one root in each leaf")
        depth = torch.where(is_root, 0, c)
        for d in range(1, c):
            found = (depth == c) & (depth.gather(1, parents.clamp_min(0)) == d - 1)
            if not bool(found.any()):
                break
            depth = depth.masked_fill(found, d)
        if bool((depth == c).any()):
            raise ValueError("parents must form trees: a column has no root above it")
        fits = ((tables > 0) == inside[:, :, None]).all() & (tables >= 0).all()
        if not bool(fits & ((tables.sum(3) - 1).abs() < ROUNDING).all()):
            raise ValueError(
                "tables must be probabilities, positive in the boxes of the leaves alone"
            )
        self.register_buffer("parents", parents)
        self.register_buffer("tables", tables)
        self.register_buffer("_order", depth.argsort(dim=1, stable=True), persistent=False)
        there = codebook.levels.spread(
            codebook.known_snr.new_ones(1, codebook.levels.n_points), 0.0
        )
        self.register_buffer("_there", there[0], persistent=False)

    @property
    def _levels(self) -> Levels:
        return self._levels_of.levels

    def cells(self, leaf: Tensor, level: Tensor) -> Tensor:
        """Log-probability of every cell given its parent in leaves (...), of known levels (..., C'): (..., C')."""
        code = self._levels.level_code[level].expand(*leaf.shape, -1)
        up = code.gather(-1, self.parents[leaf].clamp_min(0))
        n, k = self.tables.shape[1:3]
        column = leaf[..., None] * n + torch.arange(n, device=leaf.device)
        return self.tables.view(-1)[(column * k + up) * k + code].log()

    def likelihoods(self, level: Tensor) -> Tensor:
        """1 at known levels (P, C'), everywhere where they are missing: (P, C', K)."""
        n_points, k = self._levels.n_points, self.tables.shape[3]
        code = self._levels.level_code[level.clamp_max(n_points - 1)]
        known = nn.functional.one_hot(code, k).to(self.tables)
        return torch.where((level == n_points)[..., None], self._there, known)

    def log_mass(self, leaf: Tensor, like: Tensor) -> Tensor:
        """Log-probability of likelihoods ``like`` (P, C', K) of the levels in leaves (P,): float64, (P,), nats."""
        return self._gathered(leaf, like)[0]

    def _gathered(self, leaf: Tensor, like: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """As :meth:`log_mass`; what the columns below say of each (P, C', K); what each said, the last one first.

        Both as logarithms: many columns below one may contradict each other by more than a product can hold.
        """
        n, k = self.tables.shape[1:3]
        at = torch.arange(len(leaf), device=leaf.device)
        order, parents, tables = self._order[leaf], self.parents[leaf], self.tables.view(-1, k, k)
        log_like = like.double().log()
        below, sent = torch.zeros_like(log_like), []
        log_mass = torch.zeros(len(leaf), dtype=torch.float64, device=leaf.device)
        for i in range(n - 1, 0, -1):
            j = order[:, i]
            own, top = scaled(log_like[at, j] + below[at, j])
            told = finite_log((tables[leaf * n + j] * own.to(like)[:, None]).sum(2)).double()
            log_mass += top
            below[at, parents[at, j]] += told
            sent.append(told)
        root = order[:, 0]
        own, top = scaled(log_like[at, root] + below[at, root])
        mass = (tables[leaf * n + root][:, 0] * own).sum(1)
        return log_mass + finite_log(mass) + top, below, sent

    def posteriors(self, leaf: Tensor, like: Tensor) -> Tensor:
        """Of every level given the other columns, divided by the probability of the column's own evidence: (P, C', K).

        Parameters
        ----------
        leaf : Tensor of int64, shape (P,)
        like : Tensor, shape (P, C', K)
            Likelihood of every level.

        Returns
        -------
        Tensor of float64, shape (P, C', K)
        """
        n, k = self.tables.shape[1:3]
        at = torch.arange(len(leaf), device=leaf.device)
        order, parents, tables = self._order[leaf], self.parents[leaf], self.tables.view(-1, k, k)
        _, below, sent = self._gathered(leaf, like)
        likely = like.double().log() + below
        above, root = torch.zeros_like(like), order[:, 0]
        above[at, root] = tables[leaf * n + root][:, 0]
        for i, told in zip(range(1, n), reversed(sent), strict=True):
            j = order[:, i]
            up = parents[at, j]
            # the parent without what this column said
            others, _ = scaled(above[at, up].double().log() + likely[at, up] - told)
            others = others / others.sum(1, keepdim=True).clamp_min(TINY)
            above[at, j] = (others.to(like)[:, :, None] * tables[leaf * n + j]).sum(1)
        _, top = scaled(likely)
        prior = above * (below - top[..., None]).clamp_max(MOST_NATS).exp()
        return prior / (prior * like).sum(2, keepdim=True).clamp_min(TINY)

    def draw(self, leaf: Tensor, allowed: Tensor, generator: torch.Generator) -> Tensor:
        """Codes (n, C') drawn in leaves (n,), each column given its parent, of levels ``allowed`` (C', K)."""
        n, k = self.tables.shape[1:3]
        at, out = torch.arange(len(leaf), device=leaf.device), torch.zeros_like(self.parents[leaf])
        for i in range(n):
            j = self._order[leaf, i]
            up = out[at, self.parents[leaf, j].clamp_min(0)]
            p = (self.tables.view(-1, k)[(leaf * n + j) * k + up] * allowed[j]).double().cumsum(1)
            u = torch.rand((len(leaf), 1), generator=generator, device=p.device, dtype=p.dtype)
            out[at, j] = (u * p[:, -1:] >= p).sum(1).clamp_max(k - 1)
        return out


def scaled(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials of logarithms (..., K), divided by the largest; and its logarithm (...)."""
    top = logs.amax(-1).clamp_min(NEVER)
    return (logs - top[..., None]).exp(), top
