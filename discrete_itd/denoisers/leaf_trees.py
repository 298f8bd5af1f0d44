"""Chow-Liu trees over the low-cardinality columns, one in each leaf of a density forest.

Every leaf has a tree of its own, so messages pass through pairs of a row and a leaf: one step for each column, for all
pairs at once. Probabilities are scaled by their largest entry; the logarithm of the scale is added up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.levels import Levels

ROUNDING = 1e-4  # by which probabilities may fail to add up to one


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
        """As :meth:`log_mass`; what the columns below say of each (P, C', K); what each said, the last one first."""
        n, k = self.tables.shape[1:3]
        at, tiny = torch.arange(len(leaf), device=leaf.device), torch.finfo(like.dtype).tiny
        order, parents, tables = self._order[leaf], self.parents[leaf], self.tables.view(-1, k, k)
        below, sent = torch.ones_like(like), []
        log_mass = torch.zeros(len(leaf), dtype=torch.float64, device=leaf.device)
        for i in range(n - 1, 0, -1):
            j = order[:, i]
            up = parents[at, j]
            told = (tables[leaf * n + j] * (like[at, j] * below[at, j])[:, None]).sum(2)
            top = told.amax(1).clamp_min(tiny)
            told = told / top[:, None]
            log_mass += top.log()
            below[at, up] = below[at, up] * told
            sent.append(told)
        root = order[:, 0]
        mass = (tables[leaf * n + root][:, 0] * like[at, root] * below[at, root]).sum(1)
        return log_mass + mass.clamp_min(tiny).log(), below, sent

    def posteriors(self, leaf: Tensor, like: Tensor) -> Tensor:
        """Of every level given the other columns, divided by the probability of the column's own evidence: (P, C', K).

        Parameters
        ----------
        leaf : Tensor of int64, shape (P,)
        like : Tensor, shape (P, C', K)
            Likelihood of every level.
        """
        n, k = self.tables.shape[1:3]
        at, tiny = torch.arange(len(leaf), device=leaf.device), torch.finfo(like.dtype).tiny
        order, parents, tables = self._order[leaf], self.parents[leaf], self.tables.view(-1, k, k)
        _, below, sent = self._gathered(leaf, like)
        above, root = torch.zeros_like(like), order[:, 0]
        above[at, root] = tables[leaf * n + root][:, 0]
        for i, told in zip(range(1, n), reversed(sent), strict=True):
            j = order[:, i]
            up = parents[at, j]
            # the parent without what this column said
            others = above[at, up] * like[at, up] * below[at, up] / told.clamp_min(tiny)
            others = others / others.sum(1, keepdim=True).clamp_min(tiny)
            above[at, j] = (others[:, :, None] * tables[leaf * n + j]).sum(1)
        prior = above * below
        return prior / (prior * like).sum(2, keepdim=True).clamp_min(tiny)

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
