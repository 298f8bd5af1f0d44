"""The search for the graph of a Bayesian network, and orders in which its columns are summed out.

References
----------
Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. IT 14, 1968.
Heckerman, Geiger, Chickering, "Learning Bayesian networks", Machine Learning 20, 1995, for hill climbing. Friedman,
Nachman, Pe'er, "Learning Bayesian network structure from massive datasets: the sparse candidate algorithm", UAI 1999.
Elidan & Gould, "Learning bounded treewidth Bayesian networks", JMLR 9, 2008, for edges that keep elimination cheap.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

Floats, Ints, Flags = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
Graph = Sequence[Sequence[int]]  # the parents of every column

LEAST_COMPLETE = 0.1  # rows that have the cells of an edge count tenfold at most: few that agree by chance would win
FREE = 2  # parameters of a context for each of its rows, at most: a key of many values may decide a column
ROUNDING_NATS = 1e-6  # a change that gains fewer nats is rounding
# Columns of at most NARROW levels, in tables of at most BIT_TABLE numbers, are counted by the bits that they have in
# common, all at once; others by a code of each row, one after the other. Both take equally long at about these sizes.
NARROW, BIT_TABLE = 16, 256
WORDS = 1 << 17  # words of bits compared at once: what a processor's cache holds
# Second parents of a column are sought among so many others, those of the largest gains as its only parent.
MOST_CANDIDATES = 256
# Of the edges that gain NEAR_BEST of the largest gain, at most MOST_NEAR, the one is taken that enlarges elimination
# least: 51.5 nats for 51.7, the mean of eight tables of 70 to 180 columns; about equal from .6 to .9
NEAR_BEST, MOST_NEAR = 0.8, 8
# What is too large in an order of elimination is tried in another one: ORDERS times and once more for each edge or, of
# more than ORDER_COLUMNS columns, whose orders take longer, accordingly fewer times. Without a limit nats are the same
# or .03 fewer (accidents), in twice the time; with one try after two edges mushroom has 11.6 nats for 11.3.
ORDERS, ORDER_COLUMNS = 64, 128
MOST_REFUSED = 32  # edges to a column that make elimination too expensive, after which it gets no other parents
MOST_KEPT = 1 << 22  # gains that are kept for other searches


# -- orders of elimination ---------------------------------------------------------------------------


def parents_first(parents: Graph) -> list[int]:
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


def greedy_order(
    parents: Graph, sizes: Sequence[int], most_pair: float = math.inf, most_table: float = math.inf
) -> tuple[int, ...]:
    """An order in which to sum columns out: next is always the column with the smallest table.

    It ends before a table of two columns with more than ``most_pair`` numbers, or one of more with ``most_table``.
    """
    near: list[set[int]] = [set() for _ in sizes]
    for j, above in enumerate(parents):
        family = {j, *above}
        for i in family:
            near[i] |= family - {i}
    order: list[int] = []
    size_of = sizes.__getitem__
    cost = [math.prod(map(size_of, near[j])) * size for j, size in enumerate(sizes)]
    waiting = [(size, j) for j, size in enumerate(cost)]
    heapq.heapify(waiting)
    while waiting:
        size, j = heapq.heappop(waiting)
        if size != cost[j]:  # queued again at another cost, or removed
            continue
        if size > most_pair or (size > most_table and len(near[j]) > 1):
            break
        cost[j] = 0
        order.append(j)
        for i in near[j]:
            near[i] = (near[i] | near[j]) - {i, j}
        for i in near[j]:
            cost[i] = math.prod(map(size_of, near[i])) * sizes[i]
            heapq.heappush(waiting, (cost[i], i))
    return tuple(order)


class Elimination:
    """Tables that arise when columns are summed out in a fixed ``order``, of which another family changes few.

    ``later`` holds for each place in the order the columns that are summed out afterwards and share the table of this
    one, as bits at their places; ``cost`` holds the numbers of the table.
    """

    def __init__(self, order: Sequence[int], parents: Graph, sizes: Sequence[int]) -> None:
        self.order, self._place = tuple(order), {j: place for place, j in enumerate(order)}
        self._sizes = [int(sizes[j]) for j in order]
        self.later, self.cost = [0] * len(order), list(self._sizes)
        for j, above in enumerate(parents):
            columns = 0
            for place in sorted((self._place[i] for i in (*above, j)), reverse=True):
                self.later[place] |= columns
                columns |= 1 << place
        for place, joint in enumerate(self.later):
            if joint:
                self.later[next_place(joint)] |= joint & (joint - 1)
                self.cost[place] *= self._numbers(joint)

    def _numbers(self, columns: int) -> int:
        """Combinations of the categories of columns."""
        numbers = 1
        while columns:
            last = columns.bit_length() - 1
            numbers *= self._sizes[last]
            columns ^= 1 << last
        return numbers

    def changes(
        self, family: Sequence[int], most_pair: float, most_table: float
    ) -> dict[int, tuple[int, int]] | None:
        """What a table of a ``family`` changes: for each place concerned the bits and the numbers of its table.

        None if a table of two columns would have more than ``most_pair`` numbers, or one of more ``most_table``.
        """
        places = sorted(self._place[j] for j in family)
        columns, more, changed = 0, dict[int, int](), dict[int, tuple[int, int]]()
        for place in reversed(places):
            more[place] = columns
            columns |= 1 << place
        while places:
            place = heapq.heappop(places)
            joint = self.later[place] | more[place]
            if joint == self.later[place]:
                continue
            cost, rest = (
                self.cost[place] * self._numbers(joint & ~self.later[place]),
                joint & (joint - 1),
            )
            if cost > (most_table if rest else most_pair):
                return None
            changed[place] = joint, cost
            following = next_place(joint)
            if following not in more:
                heapq.heappush(places, following)
            more[following] = more.get(following, 0) | rest
        return changed

    def growth(self, changes: dict[int, tuple[int, int]]) -> float:
        """Logarithm of the factors by which tables grow."""
        return sum(math.log(cost / self.cost[place]) for place, (_, cost) in changes.items())

    def update(self, changes: dict[int, tuple[int, int]]) -> None:
        """Make the changes of another family."""
        for place, (joint, cost) in changes.items():
            self.later[place], self.cost[place] = joint, cost

    def largest(self) -> tuple[int, int]:
        """Numbers of the largest table, and of the largest one of three columns or more."""
        tables = zip(self.later, self.cost, strict=True)
        joint = (cost for columns, cost in tables if columns & (columns - 1))
        return max(self.cost, default=1), max(joint, default=1)


def next_place(columns: int) -> int:
    """The first of some columns, given as bits: it shares its table with the others when it is summed out."""
    return (columns & -columns).bit_length() - 1


# -- counts ------------------------------------------------------------------------------------------


def coded(cells: Floats) -> Ints:
    """Rows (N, C) as columns of categories (C, N); where there is none a code negative in any table with others."""
    return np.where(np.isnan(cells), -(1 << 32), cells).T.astype(np.int64, order="C")


def family_codes(columns: Ints, sizes: Sequence[int], family: Sequence[int]) -> Ints:
    """A number for the combination of a family's categories in each :func:`coded` row without a gap there."""
    code = np.zeros(columns.shape[1], dtype=np.int64)
    for j in family:
        code *= sizes[j]
        code += columns[j]
    gaps = code < 0
    return code[~gaps] if gaps.any() else code


class Gains(NamedTuple):
    """What columns (C,) add to a family: nats, NaN where not counted, free parameters, and the share of complete rows.

    A row is complete if it has all cells of the larger family.
    """

    nats: Floats
    free: Floats
    share: Floats

    def at(self, price: float) -> Floats:
        """Nats less the ``price`` of the larger table, scaled to all rows, at most by ``1 / LEAST_COMPLETE``."""
        return (self.nats - price * self.free) / np.maximum(self.share, LEAST_COMPLETE)


class Counted:
    """Information of columns about one another, counted at the first request: searches with other penalties share it.

    Parameters
    ----------
    cells : array, shape (N, C)
        Codes; NaN where missing.
    sizes : sequence of int
        The C numbers of categories.
    """

    def __init__(self, cells: Floats, sizes: Sequence[int]) -> None:
        self.columns, self.sizes = coded(cells), np.array(sizes, dtype=np.int64)
        self.n_rows, n = self.columns.shape[1], np.arange(self.columns.shape[1] + 1)
        self._x_log_x = n * np.log(np.maximum(n, 1))
        levels = [np.unique(codes[codes >= 0]) for codes in self.columns]
        self.n_seen = np.array(list(map(len, levels)), dtype=np.int64)
        self._is_whole = np.asarray((self.columns >= 0).all(1))
        # the rows of each level of a narrow column, as bits of words: (levels, W)
        self._is_narrow = (self.n_seen > 0) & (self.n_seen <= NARROW)
        narrow = np.flatnonzero(self._is_narrow)
        bits = [as_bits(self.columns[j] == levels[j][:, None]) for j in narrow]
        self._bits = np.concatenate([*bits, as_bits(np.zeros((0, self.n_rows), dtype=bool))])
        self._first = np.zeros(len(self.sizes), dtype=np.int64)
        self._first[narrow] = np.cumsum(self.n_seen[narrow]) - self.n_seen[narrow]
        self._gains: dict[tuple[int, frozenset[int]], Gains] = {}

    def gains(self, j: int, parents: Sequence[int], wanted: Flags) -> Gains:
        """Of adding each of the ``wanted`` columns (C,), and maybe others, to the parents of ``j``."""
        key = j, frozenset(parents)
        if key not in self._gains:
            if len(self._gains) * len(self.sizes) > MOST_KEPT:
                self._gains = {pair: gains for pair, gains in self._gains.items() if not pair[1]}
            self._gains[key] = Gains(*np.full((3, len(self.sizes)), np.nan))
        gains = self._gains[key]
        columns, family = np.flatnonzero(wanted & np.isnan(gains.nats)), [*parents, j]
        if len(columns):
            n_table = math.prod(self.n_seen[family].tolist())
            by_bits = self._is_narrow[columns] & bool(self._is_narrow[family].all())
            by_bits &= self.n_seen[columns] <= BIT_TABLE // max(1, n_table)
            if by_bits.any():
                self._count_bits(j, parents, columns[by_bits], gains)
            for i in columns[~by_bits].tolist():
                self._count_codes(j, parents, i, gains)
        return gains

    def gain(self, j: int, parents: Sequence[int], i: int, price: float) -> float:
        """Nats that column ``i`` carries about ``j`` beyond its parents, less the price of the larger table."""
        gains = self.gains(j, parents, np.arange(len(self.sizes)) == i)
        return float(gains.at(price)[i])

    def _rows_of(self, j: int) -> NDArray[np.uint64]:
        return self._bits[self._first[j] : self._first[j] + self.n_seen[j]]

    def _count_bits(self, j: int, parents: Sequence[int], columns: Ints, gains: Gains) -> None:
        """Count the family of ``j`` with each of ``columns`` by the bits that rows have in common."""
        rows = self._rows_of(j)[None]  # (contexts, levels of j, W)
        for p in parents:
            rows = (self._rows_of(p)[:, None, None] & rows).reshape(-1, *rows.shape[1:])
            rows = rows[rows.any((1, 2))]
        n_levels, whole = self.n_seen[columns], self._is_whole[columns]
        start = np.cumsum(n_levels) - n_levels
        places = np.arange(n_levels.sum()) + np.repeat(self._first[columns] - start, n_levels)
        # the first level of a column without gaps has what the others leave
        is_counted = np.ones(len(places), dtype=bool)
        is_counted[start[whole]] = False
        bits = self._bits[places[is_counted]]
        total = np.bitwise_count(rows).sum(-1, dtype=np.int64)
        count = np.zeros((*total.shape, len(places)), dtype=np.int64)
        flat, step = rows.reshape(-1, 1, rows.shape[-1]), max(1, WORDS // max(1, bits.size))
        common = [
            np.bitwise_count(flat[k : k + step] & bits).sum(-1, dtype=np.uint32)
            for k in range(0, len(flat), step)
        ]
        if common:
            count[..., is_counted] = np.concatenate(common).reshape(*total.shape, -1)
        count[..., start[whole]] = total[..., None] - np.add.reduceat(count, start, 2)[..., whole]
        self._fill(j, columns, count, start, gains)

    def _count_codes(self, j: int, parents: Sequence[int], i: int, gains: Gains) -> None:
        """Count the family of ``j`` with one column by a code of each row."""
        family, sizes = (*parents, j, i), self.sizes.tolist()
        code = family_codes(self.columns, sizes, family)
        n_j, n_i, n_table = sizes[j], sizes[i], math.prod(sizes[column] for column in family)
        if n_table <= len(code):
            count = np.bincount(code, minlength=n_table).reshape(-1, n_j, n_i)
            self._fill(j, np.array([i]), count, np.array([0]), gains)
            return
        # most combinations have no row
        code, count = np.unique(code, return_counts=True)
        context, level_j, level_i = code // (n_i * n_j), code // n_i % n_j, code % n_i
        total, fewer, before = (
            np.bincount(np.unique(part, return_inverse=True)[1], count).astype(np.int64)
            for part in (context * n_i + level_i, context * n_j + level_j, context)
        )
        each = max(1, self.n_seen[j] - 1)
        terms = [self._x_log_x[n].sum() for n in (count, total, fewer, before)]
        free = [np.minimum(each, FREE * n).sum() for n in (total, before)]
        gains.nats[i] = terms[0] - terms[1] - terms[2] + terms[3]
        gains.free[i] = free[0] - free[1]
        gains.share[i] = count.sum() / max(1, self.n_rows)

    def _fill(self, j: int, columns: Ints, count: Ints, start: Ints, gains: Gains) -> None:
        """Gains of ``columns`` by counts (contexts, levels of j, levels); those of each column have a ``start``."""
        x_log_x, each = self._x_log_x, max(1, self.n_seen[j] - 1)
        total, fewer = count.sum(1), np.add.reduceat(count, start, 2)
        before = fewer.sum(1)
        of_levels = x_log_x[count].sum((0, 1)) - x_log_x[total].sum(0)
        of_columns = x_log_x[before].sum(0) - x_log_x[fewer].sum((0, 1))
        free = np.minimum(each, FREE * total).sum(0)
        gains.nats[columns] = np.add.reduceat(of_levels, start) + of_columns
        gains.free[columns] = np.add.reduceat(free, start) - np.minimum(each, FREE * before).sum(0)
        gains.share[columns] = before.sum(0) / max(1, self.n_rows)


def as_bits(rows: Flags) -> NDArray[np.uint64]:
    """Flags (..., N) as bits of words (..., W)."""
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % 64)]
    return np.packbits(np.pad(rows, padding), axis=-1).view(np.uint64)


# -- the search --------------------------------------------------------------------------------------


class Search:
    """Hill climbing: the edge to add or turn that improves a penalised likelihood most, until none does.

    A penalty of 1 is the Bayesian information criterion. Once ``is_over``, the search ends with its current graph. No
    table of an elimination has more than ``most_table`` numbers, of two columns ``most_pair``.
    """

    def __init__(
        self,
        counted: Counted,
        most_parents: int,
        most_table: int,
        most_pair: int = 0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counted, self.sizes, self.is_over = counted, counted.sizes, is_over
        self.most_parents, self.most_table = most_parents, most_table
        self.most_pair = max(most_pair, most_table)

    def tree(self, penalty: float) -> list[tuple[int, ...]]:
        """The best graph in which no column has two parents (Chow and Liu), of edges whose gain exceeds their price."""
        c = len(self.sizes)
        gain, price = np.zeros((c, c)), self._price(penalty)
        for j in range(1, c):
            wanted = (np.arange(c) < j) & (self.sizes <= self.most_pair // self.sizes[j])
            gain[j] = np.where(wanted, self.counted.gains(j, (), wanted).at(price), 0.0)
        return spanning_forest(gain + gain.T)

    def climb(
        self, penalties: Sequence[float], parents: Graph | None = None
    ) -> Iterator[tuple[list[tuple[int, ...]], tuple[int, ...]]]:
        """For each of falling penalties a graph, found from the one before, and an order to sum its columns out.

        The first one is found from ``parents``, by default from no edges.
        """
        c = len(self.sizes)
        self.parents = [tuple(above) for above in (parents or [()] * c)]
        sizes = self.sizes.tolist()
        order = greedy_order(self.parents, sizes)
        self.elimination = Elimination(order, self.parents, sizes)
        self.n_orders, self.order_price = float(ORDERS), max(1.0, c / ORDER_COLUMNS)
        self.changes = dict[tuple[int, ...], dict[int, tuple[int, int]] | None]()
        # edges (child, parent) that made elimination too expensive
        self.refused = np.eye(c, dtype=bool)
        self.candidate = np.ones((c, c), dtype=bool)
        self.gain = np.full((c, c), -np.inf)  # of adding the second to the parents of the first
        # the parents of each column, -1 for none, and what they are worth
        self.slots = np.full((c, max(1, self.most_parents)), -1)
        self.worth = np.full(self.slots.shape, np.inf)
        for penalty in penalties:
            if c:
                self.price = self._price(penalty)
                self._improve()
            yield list(self.parents), self.elimination.order

    def _improve(self) -> None:
        """Change the graph until no change improves it at the current price."""
        for j in range(len(self.sizes)):
            self._price_edges(j)
        self._find_ancestors()
        # gains in rows with gaps have no common sum: their changes might go on for ever
        for _ in range(4000 + 20 * len(self.sizes)):
            if self.is_over() or not self._step():
                break

    def _price(self, penalty: float) -> float:
        """Nats of one free parameter."""
        return penalty * math.log(max(2, self.counted.n_rows)) / 2

    def _step(self) -> bool:
        """Make the best change, or refuse it; False if none improves the graph."""
        j, gain = self._edge_to_add()
        i = int(self.best[j])
        changed = {j: (*self.parents[j], i)}
        child, slot = self._edge_to_turn(gain)
        is_turn = bool(self.turned[child, slot] > gain)
        if is_turn:
            j, i, gain = int(self.slots[child, slot]), child, self.turned[child, slot]
            fewer = tuple(p for p in self.parents[child] if p != j)
            changed = {j: (*self.parents[j], i), child: fewer}
        if gain <= ROUNDING_NATS:
            return False
        if not self._is_eliminated(changed, j):
            self._refuse(j, i)
            if is_turn:
                self.turned[child, slot] = -np.inf
            return True
        for column, above in changed.items():
            self.parents[column] = above
            self._price_edges(column)
        if is_turn:
            self._find_ancestors()
        else:
            self.descends[np.ix_(self.descends[:, j], self.descends[i])] = True
            self._choose(j)
            self._find_turns()
        return True

    def _edge_to_add(self) -> tuple[int, float]:
        """The column to which to add its best parent, and the gain."""
        while True:
            top = int(self.best_gain.argmax())
            gain = float(self.best_gain[top])
            if gain <= ROUNDING_NATS:
                return top, gain
            near = np.flatnonzero(self.best_gain >= NEAR_BEST * gain)
            near = near[np.argsort(-self.best_gain[near], kind="stable")][:MOST_NEAR].tolist()
            growth, is_late = dict[int, float](), False
            for j in near:
                i = int(self.best[j])
                if self.descends[i, j]:  # it would close a cycle by now
                    self._choose(j)
                    is_late = True
                elif (changes := self._changes((*self.parents[j], i, j))) is not None:
                    growth[j] = self.elimination.growth(changes)
                elif self.n_orders < self.order_price:
                    self._refuse(j, i)
                    is_late = True
            if not is_late:
                best = min(growth, key=growth.__getitem__, default=top)
                return best, float(self.best_gain[best])

    def _refuse(self, j: int, i: int) -> None:
        """Leave out column ``i`` as a parent of column ``j``, for it makes elimination too expensive."""
        self.refused[j, i], self.gain[j, i] = True, -np.inf
        if self.refused[j].sum() > MOST_REFUSED:
            self.refused[j], self.gain[j] = True, -np.inf
        self._choose(j)

    def _edge_to_turn(self, gain: float) -> tuple[int, int]:
        """The column and the slot of its parent whose edge gains most when turned, if more than ``gain``."""
        while True:
            child, slot = divmod(int(self.turned.argmax()), self.turned.shape[1])
            parent = self.slots[child, slot]
            # it closes a cycle if another parent descends from this one
            others = [p for p in self.parents[child] if p != parent]
            if self.turned[child, slot] <= gain or not self.descends[others, parent].any():
                return child, slot
            self.turned[child, slot] = -np.inf

    def _changes(self, family: tuple[int, ...]) -> dict[int, tuple[int, int]] | None:
        """What a family changes in the elimination; None if a table became too large."""
        if family not in self.changes:
            limits = self.most_pair, self.most_table
            self.changes[family] = self.elimination.changes(family, *limits)
        return self.changes[family]

    def _is_eliminated(self, changed: dict[int, tuple[int, ...]], j: int) -> bool:
        """Whether column ``j`` may have its changed parents, in this order of elimination or another one.

        What is taken from the parents of a column stays in the tables, until there is another order.
        """
        changes = self._changes((*changed[j], j))
        if changes is not None:
            self.elimination.update(changes)
        elif self.n_orders < self.order_price:
            return False
        else:
            self.n_orders -= self.order_price
            parents = [changed.get(column, above) for column, above in enumerate(self.parents)]
            sizes = self.sizes.tolist()
            order = greedy_order(parents, sizes, max(self.most_pair, *sizes), self.most_table)
            if len(order) < len(sizes):
                return False
            self.elimination = Elimination(order, parents, sizes)
        self.n_orders += 1
        self.changes.clear()
        return True

    def _price_edges(self, j: int) -> None:
        """Gains of every column as another parent of column ``j``, and what each parent is worth beside the others."""
        parents, c = list(self.parents[j]), len(self.sizes)
        self.gain[j], self.slots[j], self.worth[j] = -np.inf, -1, np.inf
        if self.is_over():
            return
        most = self.most_table if parents else self.most_pair
        wanted = self.sizes <= most // math.prod(self.sizes[[*parents, j]].tolist())
        wanted &= ~self.refused[j] & (len(parents) < self.most_parents)
        if parents:
            wanted &= self.candidate[j]
            wanted[parents] = False
        gains = self.counted.gains(j, parents, wanted).at(self.price)
        self.gain[j, wanted] = gains[wanted]
        if not parents and c > MOST_CANDIDATES:
            self.candidate[j] = (
                self.gain[j] >= np.partition(self.gain[j], -MOST_CANDIDATES)[-MOST_CANDIDATES]
            )
        self.slots[j, : len(parents)] = parents
        self.worth[j, : len(parents)] = [
            self.counted.gain(j, [p for p in parents if p != i], i, self.price) for i in parents
        ]

    def _choose(self, j: int) -> None:
        """The best parent to add to column ``j``."""
        gain = np.where(self.descends[:, j], -np.inf, self.gain[j])
        self.best[j] = gain.argmax()
        self.best_gain[j] = gain[self.best[j]]

    def _find_ancestors(self) -> None:
        """Whether the first is the second or descends from it, (C, C), and the best edges, in cycles or not."""
        self.descends = np.eye(len(self.sizes), dtype=bool)
        for j in parents_first(self.parents):
            for p in self.parents[j]:
                self.descends[j] |= self.descends[p]
        self.best, self.best_gain = self.gain.argmax(1), self.gain.max(1)
        self._find_turns()

    def _find_turns(self) -> None:
        """What is gained by turning the edge from each parent (C, slots), in cycles or not."""
        turned = self.gain[self.slots, np.arange(len(self.gain))[:, None]] - self.worth
        self.turned = np.where(self.slots >= 0, turned, -np.inf)


def spanning_forest(gain: Floats) -> list[tuple[int, ...]]:
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
    return [(p,) if p >= 0 and gain[j, p] > ROUNDING_NATS else () for j, p in enumerate(above)]
