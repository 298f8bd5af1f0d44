"""The structure of Bayesian networks and trees: the cost of a graph, its tables, and the search for one.

References
----------
Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. IT 14, 1968.
Heckerman, Geiger, Chickering, "Learning Bayesian networks", Machine Learning 20, 1995.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

MOST_CHANGES = 4000  # most changes of the graph in one search
LEAST_SHARE = 0.1  # rows that have the cells of an edge count tenfold at most: few that agree by chance would win
FREE = 2  # parameters of a context for each of its rows, at most: a key of many values may decide a column
MISSING = -(1 << 32)  # code of a missing cell: with others in a table, still a negative number
# candidate pseudo-counts by which a table is shrunk towards the table with fewer parents; the likeliest one is taken
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
LEAST_GAIN = 1e-6  # a change that gains fewer nats is rounding


def parents_first(parents: Sequence[Sequence[int]]) -> list[int]:
    """Columns, parents first; without those on a cycle."""
    children: list[list[int]] = [[] for _ in parents]
    for j, above in enumerate(parents):
        for p in above:
            children[p].append(j)
    left, order = [len(above) for above in parents], []
    ready = [j for j, n in enumerate(left) if not n]
    while ready:
        order += ready
        after = []
        for child in (c for j in ready for c in children[j]):
            left[child] -= 1
            if not left[child]:
                after.append(child)
        ready = sorted(after)
    return order


def elimination(
    parents: Sequence[Sequence[int]], sizes: Sequence[int]
) -> tuple[tuple[int, ...], int, int]:
    """An order in which to sum columns out, the numbers of the largest table on the way, and of all together.

    Greedy: the next column is the one with the smallest table.
    """
    near: list[set[int]] = [set() for _ in sizes]
    for j, above in enumerate(parents):
        family = {j, *above}
        for i in family:
            near[i] |= family - {i}
    order: list[int] = []
    largest, work = 1, 0
    cost = [math.prod(sizes[i] for i in near[j]) * size for j, size in enumerate(sizes)]
    waiting = [(own, j) for j, own in enumerate(cost)]
    heapq.heapify(waiting)
    while waiting:
        own, j = heapq.heappop(waiting)
        if own != cost[j]:  # queued again at another cost, or removed
            continue
        largest, work, cost[j] = max(largest, own), work + own, 0
        order.append(j)
        for i in near[j]:
            near[i] = (near[i] | near[j]) - {i, j}
        for i in near[j]:
            cost[i] = math.prod(sizes[k] for k in near[i]) * sizes[i]
            heapq.heappush(waiting, (cost[i], i))
    return tuple(order), largest, work


def coded(cells: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows (N, C) as columns of categories (C, N), ``MISSING`` where there is none."""
    return np.where(np.isnan(cells), MISSING, cells).T.astype(np.int64, order="C")


def family_counts(
    columns: NDArray[np.int64], sizes: Sequence[int], family: Sequence[int]
) -> NDArray[np.float64]:
    """Counts of each combination of a family's categories in :func:`coded` rows without gaps among them."""
    code = np.zeros(columns.shape[1], dtype=np.int64)
    for j in family:
        code *= sizes[j]
        code += columns[j]
    if (gaps := code < 0).any():
        code = code[~gaps]
    shape = [sizes[j] for j in family]
    return np.bincount(code, minlength=math.prod(shape)).astype(float).reshape(shape)


def nested_counts(
    cells: NDArray[np.float64], sizes: Sequence[int], families: Iterable[Sequence[int]]
) -> dict[tuple[int, ...], list[NDArray[np.float64]]]:
    """For each family, counts in rows (N, C) of its last column with the first of the others, the first two, to all."""
    nested = {
        (*above, j): [(*above[:n], j) for n in range(1, len(above) + 1)] for *above, j in families
    }
    columns = coded(cells)
    total = {f: family_counts(columns, sizes, f) for own in nested.values() for f in own}
    return {family: [total[f] for f in own] for family, own in nested.items()}


def smoothed_table(
    counts: Sequence[NDArray[np.float64]], alone: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probabilities of a column given its parents, smoothed by those given fewer.

    ``counts`` are from :func:`nested_counts`, ``alone`` (K,) are the marginal probabilities. Each step has the
    pseudo-count of ``STRENGTHS`` by which every row is likeliest given all others.
    """
    table = alone / alone.sum()
    for count in counts:
        rows, before, seen = count.sum(-1, keepdims=True), table[..., None, :], count > 0
        nats = []
        for strength in STRENGTHS:
            p = (count - 1 + strength * before) / np.maximum(rows - 1 + strength, strength)
            nats.append(-(count[seen] * np.log(p[seen])).sum())
        strength = STRENGTHS[int(np.argmin(nats))]
        table = (count + strength * before) / (rows + strength)
    return np.maximum(table, 1e-12)


class Counted:
    """Information of columns about one another, counted at the first request: searches with other penalties share it.

    ``cells`` (N, C) are NaN where missing; ``sizes`` are the C numbers of categories.
    """

    def __init__(self, cells: NDArray[np.float64], sizes: Sequence[int]) -> None:
        self.columns, self.sizes = coded(cells), sizes
        alone = [family_counts(self.columns, sizes, (j,)) for j in range(len(sizes))]
        self.n_seen = [int((count > 0).sum()) for count in alone]
        self._found: dict[tuple[int, frozenset[int], int], tuple[float, float, float]] = {}

    def gain(self, j: int, own: Sequence[int], i: int, price: float) -> float:
        """Nats that column ``i`` carries about ``j`` beyond parents ``own``, minus the price of the larger table.

        In the rows that have all these cells, scaled to all rows, at most by ``1 / LEAST_SHARE``.
        """
        key = j, frozenset(own), i
        if key not in self._found:
            self._found[key] = self._count((*own, i, j))
        nats, free, share = self._found[key]
        return (nats - price * free) / max(share, LEAST_SHARE)

    def _count(self, family: Sequence[int]) -> tuple[float, float, float]:
        """Nats, free parameters, and the share of the rows that have all the cells."""
        i, j = family[-2:]
        count = family_counts(self.columns, self.sizes, family)
        count = count.reshape(-1, self.sizes[i], self.sizes[j])
        total, fewer = count.sum(2), count.sum(1)
        nats = _x_log_x(count) - _x_log_x(total) - _x_log_x(fewer) + _x_log_x(fewer.sum(1))
        each = max(1, self.n_seen[j] - 1)
        free, less = (np.minimum(each, FREE * n).sum() for n in (total, fewer.sum(1)))
        return nats, float(free - less), float(count.sum()) / max(1, self.columns.shape[1])


class Search:
    """Hill climbing: the edge to add, drop or turn that improves a penalised likelihood most, until none does.

    A ``penalty`` of 1 is the Bayesian information criterion. Once ``is_over``, the search ends with its current graph.
    """

    def __init__(
        self,
        counted: Counted,
        penalty: float,
        most_parents: int,
        most_table: int,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counted, self.sizes, self.is_over = counted, counted.sizes, is_over
        # nats of one free number
        self.price = penalty * math.log(max(2, counted.columns.shape[1])) / 2
        self.most_parents, self.most_table = most_parents, most_table
        self.parents: list[tuple[int, ...]] = [() for _ in self.sizes]
        self.refused: set[tuple[int, int]] = set()  # edges that made elimination too expensive

    def gain(self, j: int, own: Sequence[int], i: int) -> float:
        """:meth:`Counted.gain` at the price of this search."""
        return self.counted.gain(j, own, i, self.price)

    def tree(self) -> list[tuple[int, ...]]:
        """The best graph in which no column has two parents (Chow and Liu), of edges whose gain exceeds their price."""
        gain = np.zeros((len(self.sizes),) * 2)
        for j in range(len(gain)):
            for i in range(j):
                if self._fits(j, i):
                    gain[i, j] = gain[j, i] = self.gain(j, (), i)
        return spanning_forest(gain)

    def climb(self, parents: Sequence[tuple[int, ...]] | None = None) -> list[tuple[int, ...]]:
        """The graph found from ``parents``, by default no edges: parents of every column, most informative first."""
        c = len(self.sizes)
        if parents is not None:
            self.parents = list(parents)
        gain = np.full((c, c), -np.inf)  # of adding i to the parents of j
        for j in range(c):
            self._price_edges(gain, j)
        for _ in range(MOST_CHANGES if c else 0):
            if self.is_over():
                break
            above = self._ancestors()
            best, change = LEAST_GAIN, None
            allowed = gain.copy()
            allowed[above.T] = -np.inf  # i → j closes a cycle if j is an ancestor of i
            i, j = np.unravel_index(int(allowed.argmax()), allowed.shape)
            if allowed[i, j] > best:
                best, change = float(allowed[i, j]), ("add", int(i), int(j))
            for j in range(c):
                for i in self.parents[j]:
                    fewer = tuple(p for p in self.parents[j] if p != i)
                    dropped = -self.gain(j, fewer, i)
                    if dropped > best:
                        best, change = dropped, ("drop", i, j)
                    cycle = any(above[i, p] for p in fewer)
                    if (j, i) in self.refused or cycle or not self._fits(i, j):
                        continue
                    turned = dropped + self.gain(i, self.parents[i], j)
                    if turned > best:
                        best, change = turned, ("turn", i, j)
            if change is None:
                break
            self._make(*change, gain)
        return [self._by_worth(j) for j in range(c)]

    def _fits(self, j: int, i: int) -> bool:
        """Whether the table of column ``j`` allows ``i`` as another parent."""
        family = (*self.parents[j], i, j)
        size = math.prod(self.sizes[f] for f in family)
        return len(family) <= self.most_parents + 1 and size <= self.most_table

    def _make(self, what: str, i: int, j: int, gain: NDArray[np.float64]) -> None:
        """Make a change, unless elimination would then cost too much."""
        before = list(self.parents)
        if what in ("drop", "turn"):
            self.parents[j] = tuple(p for p in self.parents[j] if p != i)
        if what == "add":
            self.parents[j] = (*self.parents[j], i)
        if what == "turn":
            self.parents[i] = (*self.parents[i], j)
        if what != "drop" and elimination(self.parents, self.sizes)[1] > self.most_table:
            self.parents = before
            self.refused.add((i, j) if what == "add" else (j, i))
        self._price_edges(gain, j)
        if what == "turn":
            self._price_edges(gain, i)

    def _price_edges(self, gain: NDArray[np.float64], j: int) -> None:
        """Gains of every column as another parent of column ``j``."""
        own = self.parents[j]
        gain[:, j] = -np.inf
        if self.is_over():
            return
        for i in range(len(self.sizes)):
            if i != j and i not in own and (i, j) not in self.refused and self._fits(j, i):
                gain[i, j] = self.gain(j, own, i)

    def _ancestors(self) -> NDArray[np.bool_]:
        """Whether the first is the second or one of its ancestors: (C, C)."""
        out = np.eye(len(self.sizes), dtype=bool)
        for j in parents_first(self.parents):
            for p in self.parents[j]:
                out[:, j] |= out[:, p]
        return out

    def _by_worth(self, j: int) -> tuple[int, ...]:
        """The parents of a column, each adding most to those before it."""
        left, out = list(self.parents[j]), ()
        while left:
            best = max(left, key=lambda i: self.gain(j, out, i))
            out = (*out, best)
            left.remove(best)
        return out


def _x_log_x(values: NDArray[np.float64]) -> float:
    return float((values * np.log(np.maximum(values, 1.0))).sum())


def spanning_forest(gain: NDArray[np.float64]) -> list[tuple[int, ...]]:
    """Parents in the tree of most gain (C, C), rooted in the middle so that it is shallow, of edges that gain."""
    n = len(gain)
    if n < 2:
        return [()] * n
    cost = gain.max() + 1 - gain
    np.fill_diagonal(cost, 0)
    tree = minimum_spanning_tree(cost)
    both = tree + tree.T
    end = breadth_first_order(both, 0, directed=False)[0][-1]
    order, above = breadth_first_order(both, end, directed=False)
    path = [order[-1]]
    while above[path[-1]] >= 0:
        path.append(above[path[-1]])
    above = breadth_first_order(both, path[len(path) // 2], directed=False)[1].tolist()
    return [(p,) if p >= 0 and gain[j, p] > LEAST_GAIN else () for j, p in enumerate(above)]
