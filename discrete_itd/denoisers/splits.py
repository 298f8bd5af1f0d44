"""The splits of a density forest: which leaves agree with what is known of a row.

The nodes of all trees are stored breadth first, the roots at the front, and both children of a node side by side. So
the columns of the nodes describe the shape: the children of the i-th node that is no leaf, counted from 0, are the
nodes ``n_trees + 2 i`` and ``n_trees + 2 i + 1``. A cell that is at most the threshold goes to the first child.

A level of a low-cardinality column is compared by its rank, which each tree orders in its own way: a threshold is then
a random subset of the levels, and the part of a column that belongs to a node is an interval.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook

FEWER = 0.75  # share of the pairs still on their way at which those that have arrived are set aside

Values = Callable[[Tensor, Tensor], Tensor]  # of rows (P,) at nodes (P,)
# whether rows (P,) go to the second child of nodes (P,), given where they go by their cells, and whether these are
# missing; called once for each depth
Choose = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Splits(nn.Module):
    """Trees of splits, without probabilities.

    Parameters
    ----------
    codebook : Codebook
    column : Tensor of int64, shape (M,)
        The column by which each node is split; -1 at leaves.
    threshold : Tensor, shape (M,)
        Of the rank of a level, or of the standardised number; anything finite at leaves.
    rank : Tensor, shape (n_trees, T)
        The rank of every level in each tree.

    Attributes
    ----------
    n_trees, n_nodes, n_leaves : int
        Tr, M and L.
    left, parent : Tensor of int64, shape (M,)
        The first child of every node, a leaf's own number; the node above, -1 for a root.
    leaf : Tensor of int64, shape (M,)
        Number of a leaf among the leaves; -1 at other nodes.
    leaves : Tensor of int64, shape (L,)
        The nodes that are leaves.
    tree : Tensor of int64, shape (M,)
        The tree of every node.
    depths : list of slice
        The nodes of each depth, the roots first.

    Raises
    ------
    ValueError
        If the columns do not describe trees, or are not low-cardinality or continuous ones.
    """

    column: Tensor
    threshold: Tensor
    rank: Tensor
    left: Tensor
    parent: Tensor
    leaf: Tensor
    leaves: Tensor
    tree: Tensor
    _is_real: Tensor
    _place: Tensor
    _bound: Tensor
    _finite_place: Tensor

    def __init__(self, codebook: Codebook, column: Tensor, threshold: Tensor, rank: Tensor) -> None:
        super().__init__()
        device, n_columns = codebook.device, codebook.n_columns
        self.codebook = codebook
        if rank.ndim != 2 or not len(rank) or rank.shape[1] != codebook.levels.n_points:
            raise ValueError(
                f"rank must have the shape (trees, {codebook.levels.n_points}), got {tuple(rank.shape)}"
            )
        if column.ndim != 1 or threshold.shape != column.shape:
            raise ValueError("column and threshold must be vectors of the same length")
        self.n_trees, self.n_nodes = len(rank), len(column)
        column = column.cpu().long()
        inner = column >= 0
        if self.n_nodes != self.n_trees + 2 * int(inner.sum()):
            raise ValueError(
                f"{self.n_trees} trees with {int(inner.sum())} splits have another number of nodes than {self.n_nodes}"
            )
        place = torch.full((n_columns,), -1)  # of a column among those of its family
        for family in (codebook.finite.cpu(), codebook.reals.cpu()):
            place[family] = torch.arange(len(family))
        if bool((column >= n_columns).any()) or bool((place[column[inner]] < 0).any()):
            raise ValueError("splits must be by low-cardinality or continuous columns")
        if not bool(threshold.isfinite().all() & rank.isfinite().all()):
            raise ValueError("thresholds and ranks must be finite")
        numbers = torch.arange(self.n_nodes)
        left = torch.where(inner, self.n_trees + 2 * (inner.cumsum(0) - 1), numbers)
        if bool((left[inner] <= numbers[inner]).any()):
            raise ValueError("the splits do not form trees: a node comes after its children")
        parent = torch.full((self.n_nodes,), -1)
        parent[left[inner]] = parent[left[inner] + 1] = numbers[inner]
        self.depths, start, stop, tree = [], 0, self.n_trees, numbers.clone()
        while start < stop:
            self.depths.append(slice(start, stop))
            if start:
                tree[start:stop] = tree[parent[start:stop]]
            start, stop = stop, stop + 2 * int(inner[start:stop].sum())
        leaves = numbers[~inner]
        self.n_leaves = len(leaves)
        leaf = torch.full((self.n_nodes,), -1).index_copy_(0, leaves, torch.arange(len(leaves)))
        is_real = torch.zeros(n_columns, dtype=torch.bool)
        is_real[codebook.reals.cpu()] = True
        self.register_buffer("column", column.to(device))
        self.register_buffer("threshold", threshold.to(codebook.known_snr))
        self.register_buffer("rank", rank.to(codebook.known_snr))
        finite = torch.full((n_columns,), -1)
        finite[codebook.finite.cpu()] = torch.arange(len(codebook.finite))
        derived = {
            "_finite_place": finite,
            "left": left,
            "parent": parent,
            "leaves": leaves,
            "leaf": leaf,
            "tree": tree,
        }
        derived |= {
            "_is_real": is_real[column] & inner,
            "_place": place[column].masked_fill(~inner, 0),
        }
        derived["_bound"] = threshold.cpu().masked_fill(~inner, torch.inf).to(codebook.dtype)
        for name, data in derived.items():
            self.register_buffer(name, data.to(device), persistent=False)

    def place(self, column: Tensor) -> Tensor:
        """Place of columns (P,) among those of few categories; -1 for others."""
        return self._finite_place[column]

    def places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (B, C') of the low-cardinality cells of rows ``x`` (B, C), T where missing, and numbers (B, R)."""
        return self.codebook.level_of(x), x[:, self.codebook.reals].to(self.rank)

    def values(self, level: Tensor, reals: Tensor) -> Values:
        """Cells to be compared with thresholds, from their :meth:`places`: NaN where missing."""
        n_points, width = self.rank.shape[1], level.shape[1]
        ranks = nn.functional.pad(self.rank, (0, 1), value=torch.nan).flatten()
        flat = level.flatten()

        def of_level(row: Tensor, node: Tensor, place: Tensor) -> Tensor:
            return ranks[self.tree[node] * (n_points + 1) + flat[row * width + place]]

        return self._either(of_level, reals, width)

    def ranges(self, may_be: Tensor, reals: Tensor) -> tuple[Values, Values]:
        """The least and the largest values of cells of which the possible levels (B, T) are known, and numbers."""
        levels, n_rows = self.codebook.levels, len(may_be)
        width = levels.n_columns
        may_be = levels.spread(may_be, False)  # (B, C', K)
        ranks = levels.spread(self.rank, 0.0)[:, None]
        least, most = (
            torch.stack([getattr(torch.where(may_be, own, end), way)(2) for own in ranks]).flatten()
            for end, way in ((torch.inf, "amin"), (-torch.inf, "amax"))
        )

        def made(table: Tensor) -> Values:
            def of_level(row: Tensor, node: Tensor, place: Tensor) -> Tensor:
                return table[(self.tree[node] * n_rows + row) * width + place]

            return self._either(of_level, reals, width)

        return made(least), made(most)

    def _either(
        self, of_level: Callable[[Tensor, Tensor, Tensor], Tensor], reals: Tensor, width: int
    ) -> Values:
        """Values of cells of both families, from those of levels at a row, a node and a column's place."""

        def value(row: Tensor, node: Tensor) -> Tensor:
            place = self._place[node]
            if not reals.shape[1]:
                return of_level(row, node, place)
            if not width:
                return reals[row, place]
            is_real = self._is_real[node]
            own = of_level(row, node, place.masked_fill(is_real, 0))
            return torch.where(is_real, reals[row, place.masked_fill(~is_real, 0)], own)

        return value

    def descend(self, value: Values, n_rows: int, choose: Choose | None = None) -> Tensor:
        """The leaf of every row in each tree: (B, Tr).

        Parameters
        ----------
        value : callable
            Of :meth:`values`.
        n_rows : int
        choose : callable, optional
            Which child is taken where the cell is missing; needed if any is.
        """
        device = self.column.device
        node = torch.arange(self.n_trees, device=device).repeat_interleave(n_rows)
        row = torch.arange(n_rows, device=device).repeat(self.n_trees)
        out, at = node, None  # where all pairs are, and which of them are on their way
        for _ in self.depths:
            left = self.left[node]
            on = left != node  # a leaf is its own first child
            n = int(on.sum())
            if n < FEWER * len(node):
                out = node if at is None else out.index_copy_(0, at, node)
                kept = torch.nonzero(on).flatten()
                at = kept if at is None else at[kept]
                node, row, left, on = node[kept], row[kept], left[kept], on[kept]
            if not n:
                break
            cell = value(row, node)
            right = cell > self._bound[node]  # never at a leaf
            if choose is not None:
                right = choose(row, node, right, cell.isnan()) & on
            node = left + right
        out = node if at is None else out.index_copy_(0, at, node)
        return self.leaf[out].view(self.n_trees, n_rows).T.contiguous()

    def reach(self, low: Values, high: Values, n_rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Every leaf that agrees with what is known of a row.

        Parameters
        ----------
        low, high : callable
            The least and the largest value that a row's cell may have; NaN if it may have any.
        n_rows : int

        Returns
        -------
        row, leaf : Tensor of int64, shape (P,)
            Sorted by the row, then by the leaf.
        counts : Tensor of int64, shape (B,)
            Leaves of each row, at least one.
        """
        device = self.column.device
        node = torch.arange(self.n_trees, device=device).repeat(n_rows)
        row = torch.arange(n_rows, device=device).repeat_interleave(self.n_trees)
        keys = []
        while len(node):
            is_leaf = self.column[node] < 0
            keys.append(row[is_leaf] * self.n_leaves + self.leaf[node[is_leaf]])
            row, node = row[~is_leaf], node[~is_leaf]
            threshold, left = self.threshold[node], self.left[node]
            first, second = ~(low(row, node) > threshold), ~(high(row, node) <= threshold)
            node = torch.cat([left[first], left[second] + 1])
            row = torch.cat([row[first], row[second]])
        key = torch.cat(keys).sort()[0]
        row = key.div(self.n_leaves, rounding_mode="floor")
        return row, key % self.n_leaves, torch.bincount(row, minlength=n_rows)

    def boxes(self) -> tuple[Tensor, Tensor]:
        """The interval of every column in each node, lower end excluded: (M, C) twice, infinite without a bound."""
        low = self.rank.new_full((self.n_nodes, self.codebook.n_columns), -torch.inf)
        high = -low
        for part in self.depths[1:]:
            up = self.parent[part]
            low[part], high[part] = low[up], high[up]
            node = torch.arange(part.start, part.stop, device=up.device)
            is_second = node != self.left[up]
            for bound, which in ((high, ~is_second), (low, is_second)):
                above = up[which]
                bound[node[which], self.column[above]] = self.threshold[above]
        return low, high

    def sums(self, of_leaves: Tensor) -> Tensor:
        """What leaves (L, ...) add up to in every node: (M, ...)."""
        out = of_leaves.new_zeros(self.n_nodes, *of_leaves.shape[1:])
        out[self.leaves] = of_leaves
        for part, below in zip(self.depths[-2::-1], self.depths[:0:-1], strict=True):
            inner = torch.nonzero(self.column[part] >= 0).flatten() + part.start
            out[inner] = out[below].unflatten(0, (-1, 2)).sum(1, dtype=out.dtype)
        return out

    def first(self, n_trees: int) -> tuple[Splits, Tensor]:
        """The first trees alone; and for each leaf its number among theirs (L,), -1 for those of other trees."""
        kept = torch.nonzero(self.tree < n_trees).flatten()
        parts = self.column[kept], self.threshold[kept], self.rank[:n_trees]
        splits = Splits(self.codebook, *parts)
        new = torch.full_like(self.leaf, -1).index_copy_(0, kept, splits.leaf)
        return splits, new[self.leaves]

    def cut(self, is_inner: Tensor) -> tuple[Splits, Tensor]:
        """The trees without the splits of some nodes, and of all below them.

        Parameters
        ----------
        is_inner : Tensor of bool, shape (M,)
            Whether a node stays split, if all above it do.

        Returns
        -------
        splits : Splits
        leaf : Tensor of int64, shape (L,)
            For each leaf of these trees, the leaf of the new ones in which it lies.
        """
        top = torch.arange(
            self.n_nodes, device=self.column.device
        )  # the node that a node ends up in
        is_inner = is_inner & (self.column >= 0)
        for part in self.depths[1:]:
            up = self.parent[part]
            top[part] = torch.where(is_inner[top[up]] & (top[up] == up), top[part], top[up])
        kept = torch.nonzero(top == torch.arange(self.n_nodes, device=top.device)).flatten()
        column = self.column[kept].masked_fill(~is_inner[kept], -1)
        threshold = self.threshold[kept].masked_fill(column < 0, 0.0)
        splits = Splits(self.codebook, column, threshold, self.rank)
        new = torch.full_like(top, -1).index_copy_(0, kept, splits.leaf)
        return splits, new[top[self.leaves]]
