r"""Log-probabilities of stored models by numpy alone: those of :mod:`discrete_itd.denoisers`, without torch.

Each class is made of the data and the arrays of a file, and has the :meth:`~discrete_itd.denoisers.Denoiser.log_prob`
and :meth:`~discrete_itd.denoisers.Denoiser.log_factors` of the denoiser of the same kind, whose file has their
definitions and equations; sums are in float64. Letters of shapes are those of :mod:`discrete_itd.channel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from discrete_itd.channel.points import ColumnPoints, groups_of
from discrete_itd.storage.files import CLASS

LEAST_SHARE = 0.01  # as of denoisers.row_mixture
WIDE_SD = 2.0  # as of denoisers.marginal
SD, LEAST_SD, MOST_LOG_VARIANCE = 0.5, 5e-4, 8.0  # as of denoisers.neural
N_REGRESSED = 2  # as of denoisers.causal
ROWS = 32  # of one product of matrices
MOST_CLASSES = 512  # of a mixture whose many rows are not left to torch
MOST_WHITENED = 64  # patterns of known numbers whose factors are kept
CELLS = 1 << 20  # numbers that are computed at once
LOG_ROOT = 0.5 * math.log(2 * math.pi)
FAR = -30.0  # below it, the normal distribution function is computed by its asymptotic series

Arrays = Mapping[str, np.ndarray]


class NotCoveredError(ValueError):
    """The log-probability of some rows, or of a model, is not computed here."""


class ClosedForm(Protocol):
    """Log-probabilities of encoded rows ``x`` (B, C), float64, NaN where a cell is missing.

    ``keeps_pace`` says whether many rows take about as long as by torch.
    """

    @property
    def keeps_pace(self) -> bool: ...

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Of the known cells: (B,), nats."""
        ...

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        """Shares of the columns, (B, C), nats, 0 where a cell is missing."""
        ...


class ColumnLayout:
    """Where the levels of columns are stored, as of :class:`~discrete_itd.channel.Codebook`.

    ``leading`` are the missingness indicators among the columns, and ``dtype`` the floating type of the model.
    """

    def __init__(
        self, columns: Sequence[ColumnPoints], leading: Sequence[int], dtype: np.dtype
    ) -> None:
        self.columns, self.leading, self.dtype = tuple(columns), tuple(leading), dtype
        of = partial(self._of_kind, self.columns)
        self.finite, self.reals, self.high = of("simplex", "line"), of("real"), of("code")
        low = [self.columns[j] for j in self.finite]
        self.sizes = [c.n_points for c in low]
        self.n_points = sum(self.sizes)
        self._offset, self._stride = np.zeros((2, len(low)), np.int64)
        for g in groups_of(low):
            for position, j in enumerate(g.columns):
                self._offset[j] = g.level(position, 0)
                self._stride[j] = g.size if g.category_major else 1

    @property
    def levels(self) -> list[np.ndarray]:
        """The levels of each low-cardinality column, in the order of their codes."""
        places = zip(self._offset, self._stride, self.sizes, strict=True)
        return [first + step * np.arange(n) for first, step, n in places]

    @staticmethod
    def _of_kind(columns: Sequence[ColumnPoints], *kinds: str) -> np.ndarray:
        return np.array([j for j, c in enumerate(columns) if c.kind in kinds], dtype=np.int64)

    def codes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the low-cardinality cells, 0 where missing, and where they are missing: (B, C') each."""
        cells = x[:, self.finite]
        missing = np.isnan(cells)
        return np.where(missing, 0.0, cells).astype(np.int64), missing

    def level(self, x: np.ndarray) -> np.ndarray:
        """Levels of the low-cardinality cells, T where a cell is missing: int64, (B, C')."""
        codes, missing = self.codes(x)
        return np.where(missing, self.n_points, self._offset + codes * self._stride)

    def numbers(self, x: np.ndarray) -> np.ndarray:
        """The continuous cells (B, R), rounded as the model does."""
        return x[:, self.reals].astype(self.dtype)

    def both_ways(self, columns: Sequence[int]) -> list[list[int]]:
        """Some columns in the order of the table, and with all but the leading ones reversed."""
        first = [j for j in columns if j in self.leading]
        others = [j for j in columns if j not in self.leading]
        return [first + others, first + others[::-1]]


def of_file(data: Mapping[str, Any], arrays: Arrays, name: str, layout: ColumnLayout) -> ClosedForm:
    """The density of a stored denoiser, its JSON data and the arrays whose names begin with ``name``.

    :class:`NotCoveredError` if it is of another kind.
    """
    kind = KINDS.get(str(data.get(CLASS)))
    if kind is None:
        raise NotCoveredError(f"a {data.get(CLASS)} needs torch")
    own = {k.removeprefix(f"{name}."): a for k, a in arrays.items() if k.startswith(f"{name}.")}
    return kind(data, own, layout)


def _part(data: Any, arrays: Arrays, name: str, layout: ColumnLayout) -> Any:
    return None if data is None else of_file(data, arrays, name, layout)


def log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of the sum of exponentials."""
    top = values.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - top).sum(axis)) + top.squeeze(axis)


def log_normal(z: np.ndarray) -> np.ndarray:
    """Log-density of a standard normal variable."""
    return -0.5 * z * z - LOG_ROOT


def log_ndtr(z: np.ndarray) -> np.ndarray:
    """Logarithm of the distribution function of a standard normal variable."""
    erfc = np.vectorize(math.erfc, otypes=[float])
    out = np.where(z > 0, 0.0, -np.inf)  # at infinity
    near, far = np.isfinite(z) & (z > FAR), np.isfinite(z) & (z <= FAR)
    half = 0.5 * erfc(np.abs(z[near]) / math.sqrt(2))
    with np.errstate(divide="ignore"):
        out[near] = np.where(z[near] > 0, np.log1p(-half), np.log(half))
    inverse = 1 / z[far] ** 2
    series = np.log1p(-inverse * (1 - inverse * (3 - 15 * inverse)))
    out[far] = log_normal(z[far]) - np.log(-z[far]) + series
    return out


def log_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log-probability of a standard normal variable between bounds."""
    low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)
    most = log_ndtr(high)
    return most + np.log(-np.expm1(np.minimum(log_ndtr(low) - most, -1e-300)))


class MarginalScores:
    """Independent columns."""

    keeps_pace = True

    def __init__(self, data: Mapping[str, Any], arrays: Arrays, layout: ColumnLayout) -> None:
        self.layout = layout
        self._by_level = np.append(arrays["log_probs"].astype(float), 0.0)
        self.mixture = arrays["mixture"].astype(float)  # log-weights, means and variances (R, K)
        log_weight, mean, var = arrays["mixture"].astype(float)
        self._mean, self._precision = mean, 1 / var
        self._constant = log_weight - 0.5 * np.log(var) - LOG_ROOT
        self._high = [
            arrays[f"high_cardinality_{i}"].astype(float) for i in range(len(layout.high))
        ]

    @property
    def alone(self) -> list[np.ndarray]:
        """Log-probabilities (K,) of the levels of each low-cardinality column."""
        return [self._by_level[own] for own in self.layout.levels]

    def preceding(self, x: np.ndarray, rank: np.ndarray) -> list[np.ndarray]:
        """The same, whatever is known: (1, K)."""
        return [own[None] for own in self.alone]

    @property
    def fallback(self) -> MarginalScores:
        """Itself."""
        return self

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return self.log_factors(x).sum(1)

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        layout, out = self.layout, np.zeros(x.shape)
        out[:, layout.finite] = self._by_level[layout.level(x)]
        if len(layout.reals):
            z = layout.numbers(x)[:, :, None] - self._mean
            own = log_sum(self._constant - 0.5 * z * z * self._precision, 2)
            out[:, layout.reals] = np.where(np.isnan(own), 0.0, own)
        for j, own in zip(layout.high, self._high, strict=True):
            there = ~np.isnan(x[:, j])
            out[there, j] = own[x[there, j].astype(np.int64)]
        return out


def beside(fallback: MarginalScores | None, x: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Factors of all columns by the fallback, 0 for those of ``own``: (B, C)."""
    out = np.zeros(x.shape) if fallback is None else fallback.log_factors(x)
    out[:, own] = 0.0
    return out


class BayesNetScores:
    """A Bayesian network of the low-cardinality columns; rows in which a parent is missing are summed over it."""

    keeps_pace = True

    def __init__(self, data: Mapping[str, Any], arrays: Arrays, layout: ColumnLayout) -> None:
        self.layout = layout
        self.parents = [list(map(int, above)) for above in data["parents"]]
        self.fallback = _part(data["fallback"], arrays, "fallback", layout)
        sizes = layout.sizes
        shapes = [[sizes[p] for p in (*above, j)] for j, above in enumerate(self.parents)]
        stops = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        parts = np.split(arrays["log_probs"].astype(float), stops)
        self._tables = [t.reshape(shape) for t, shape in zip(parts, shapes, strict=True)]
        self._order = self._parents_first()

    def _parents_first(self) -> list[int]:
        order: list[int] = []
        while len(order) < len(self.parents):
            ready = [
                j
                for j, above in enumerate(self.parents)
                if j not in order and set(above) <= set(order)
            ]
            if not ready:
                raise ValueError("the graph has a cycle")
            order += ready
        return order

    def _looked_up(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-probability of each cell given its parents, where one of them is missing, and the cells: (B, C')."""
        codes, missing = self.layout.codes(x)
        own, unsure = np.zeros(codes.shape), np.zeros_like(missing)
        for j, (above, table) in enumerate(zip(self.parents, self._tables, strict=True)):
            own[:, j] = table[tuple(codes[:, p] for p in (*above, j))]
            unsure[:, j] = missing[:, above].any(1) & ~missing[:, j]
        return np.where(missing, 0.0, own), unsure, np.where(missing, -1, codes)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        own, unsure, cells = self._looked_up(x)
        out, gaps = own.sum(1), np.flatnonzero(unsure.any(1))
        out[gaps] = self._summed_out(cells[gaps], range(len(self.parents)))
        return out + beside(self.fallback, x, self.layout.finite).sum(1)

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        own, unsure, cells = self._looked_up(x)
        for i, j in enumerate(self._order):
            rows = np.flatnonzero(unsure[:, j])
            if len(rows):
                after, before = (self._summed_out(cells[rows], self._order[:n]) for n in (i + 1, i))
                own[rows, j] = after - before
        out = beside(self.fallback, x, self.layout.finite)
        out[:, self.layout.finite] = own
        return out

    def _summed_out(self, cells: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        """Log-probability of the cells (B, C') of columns closed under parents, those of -1 summed out: (B,)."""
        out = np.zeros(len(cells))
        patterns, inverse = np.unique(cells[:, list(columns)] < 0, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            rows = np.flatnonzero(inverse.ravel() == k)
            hidden = {j for j, is_hidden in zip(columns, pattern, strict=True) if is_hidden}
            for some in np.array_split(rows, 1 + len(rows) // 1024):
                out[some] = self._mass(cells[some], columns, hidden)
        return out

    @cached_property
    def alone(self) -> list[np.ndarray]:
        """Log-probabilities (K,) of the levels of each column, nothing known."""
        nothing = np.full((1, len(self.parents)), -1)
        above: dict[int, set[int]] = {}
        for j in self._order:
            above[j] = {j}.union(*(above[p] for p in self.parents[j]))
        return [
            self._mass(nothing, sorted(own, key=self._order.index), own - {j})[0]
            for j, own in sorted(above.items())
        ]

    def preceding(self, x: np.ndarray, rank: np.ndarray) -> list[np.ndarray]:
        """Log-probabilities (B, K) of each column given its parents, where they are known and of lower rank.

        Otherwise the column's marginal ones; ``rank`` (C',) is that of the low-cardinality columns in an order.
        """
        codes, missing = self.layout.codes(x)
        out = []
        for j, (above, table) in enumerate(zip(self.parents, self._tables, strict=True)):
            alone = np.any(missing[:, above], axis=1) | bool((rank[above] > rank[j]).any())
            own = table[tuple(codes[:, p] for p in above)] if above else table[None]
            out.append(np.where(alone[:, None], self.alone[j], own))
        return out

    def _mass(self, cells: np.ndarray, columns: Sequence[int], hidden: set[int]) -> np.ndarray:
        """The same where the ``hidden`` columns are missing in all rows.

        A column that is missing and not ``hidden`` keeps its axis: (B, K).
        """
        factors: list[
            tuple[tuple[int, ...], np.ndarray]
        ] = []  # scope, and log-values (B, K of each)
        rows = np.arange(len(cells))
        for j in columns:
            family = (*self.parents[j], j)
            scope = tuple(i for i in family if cells[0, i] < 0)
            axes = tuple(slice(None) if i in scope else cells[:, i] for i in family)
            table = self._tables[j][axes]
            if len(scope) == len(family):
                table = table[None]
            else:  # numpy puts the axis of rows first, unless known columns are neighbours
                first = [i for i, at in enumerate(axes) if not isinstance(at, slice)]
                if first[-1] - first[0] == len(first) - 1:
                    table = np.moveaxis(table, first[0], 0)
            factors.append((scope, table))
        left = set(hidden)
        while left:
            costs = {j: math.prod(self.layout.sizes[i] for i in _scope(factors, j)) for j in left}
            j = min(left, key=lambda i: (costs[i], i))
            if costs[j] * len(rows) > CELLS * 16:
                raise NotCoveredError("a large table")
            scope = (j, *sorted(_scope(factors, j) - {j}))
            joint: Any = 0.0
            for own, values in (f for f in factors if j in f[0]):
                joint = joint + _aligned(own, values, scope)
            factors = [f for f in factors if j not in f[0]]
            factors.append((scope[1:], log_sum(joint, 1)))
            left.remove(j)
        return sum((values for _, values in factors), np.zeros(len(rows)))


def _scope(factors: Sequence[tuple[tuple[int, ...], np.ndarray]], j: int) -> set[int]:
    return {i for scope, _ in factors if j in scope for i in scope}


def _aligned(own: tuple[int, ...], values: np.ndarray, scope: tuple[int, ...]) -> np.ndarray:
    """Values (B, K of each of ``own``) with an axis for each column of ``scope``."""
    there = [i for i in scope if i in own]
    values = np.moveaxis(values, [1 + own.index(i) for i in there], range(1, 1 + len(own)))
    return np.expand_dims(values, [1 + k for k, i in enumerate(scope) if i not in own])


class MixtureScores:
    """A mixture of products, or with numbers that depend on one another given the class."""

    def __init__(self, data: Mapping[str, Any], arrays: Arrays, layout: ColumnLayout) -> None:
        self.layout = layout
        self._fallback = _part(data["fallback"], arrays, "fallback", layout)
        self._log_weights = arrays["log_weights"].astype(float)
        log_probs = arrays["log_probs"]
        z = len(log_probs)
        self._by_level = np.concatenate([log_probs.T, np.zeros((1, z), log_probs.dtype)])
        self._mean = arrays["means"].astype(float)
        self._sd = np.sqrt(arrays["var"].astype(float))
        chol = arrays["chol"].astype(float)
        self._covariance = chol @ chol.swapaxes(1, 2) if chol.size else None
        reals = [*layout.reals] if self._mean.size else []
        self._whitened: dict[tuple[int, ...], np.ndarray] = {}
        self._own = np.array(sorted([*layout.finite, *reals]), dtype=np.int64)
        self._place = {j: i for i, j in enumerate(layout.finite.tolist())}
        self._real = {j: r for r, j in enumerate(layout.reals.tolist())}

    @property
    def _width(self) -> int:
        """Numbers of a row that are computed at once."""
        return len(self._log_weights) * (1 if self._covariance is None else 1 + len(self._real))

    @property
    def keeps_pace(self) -> bool:
        return self._width <= MOST_CLASSES

    def _batches(self, x: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        step = max(1, CELLS // 2 // self._width)
        for start in range(0, len(x), step):
            yield slice(start, start + step), x[start : start + step]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        out = beside(self._fallback, x, self._own).sum(1)
        for rows, some in self._batches(x):
            joint = self._log_weights[None]
            for own in self._cells(some, self._own.tolist()):
                joint = joint + own
            out[rows] += log_sum(joint, 1)
        return out

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        out = beside(self._fallback, x, self._own)
        for rows, some in self._batches(x):
            for order in self.layout.both_ways(self._own.tolist()) if len(self._own) else []:
                log_class = self._log_weights[None]
                for j, own in zip(order, self._cells(some, order), strict=True):
                    joint = log_class + own
                    step = log_sum(joint, 1)
                    out[rows, j] += 0.5 * step
                    log_class = joint - step[:, None]
        return np.where(np.isnan(x), 0.0, out)

    def _cells(self, x: np.ndarray, order: Sequence[int]) -> Iterator[np.ndarray]:
        """Log-probabilities (B, Z) of one column after the other given the class and the numbers before it."""
        level, numbers = self.layout.level(x), self.layout.numbers(x)
        dense = None
        if self._covariance is not None:
            dense = self._dense(numbers, [self._real[j] for j in order if j in self._real])
        for j in order:
            if j in self._place:
                yield self._by_level[level[:, self._place[j]]]
                continue
            r = self._real[j]
            if dense is not None:
                yield dense[r]
                continue
            z = (numbers[:, r, None] - self._mean[:, r]) / self._sd[:, r]
            own = log_normal(z) - np.log(self._sd[:, r])
            yield np.where(np.isnan(z), 0.0, own)

    def _dense(self, numbers: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """Log-densities (R, B, Z) of numbers given the class and those before them in an order, 0 where missing."""
        out = np.zeros((len(order), len(numbers), len(self._mean)))
        there = ~np.isnan(numbers)
        patterns, inverse = np.unique(there, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            known = [r for r in order if pattern[r]]
            if not known:
                continue
            rows = np.flatnonzero(inverse.ravel() == k)
            whiten = self._whitening(tuple(known))  # (Z, r, r)
            centred = [numbers[rows, r, None] - self._mean[:, r] for r in known]  # (B, Z) each
            for i, r in enumerate(known):
                # term by term: a row's sum is the same in any batch
                z = centred[0] * whiten[:, i, 0]
                for m in range(1, i + 1):
                    z += centred[m] * whiten[:, i, m]
                out[r, rows] = log_normal(z) + np.log(whiten[:, i, i])
        return out

    def _whitening(self, known: tuple[int, ...]) -> np.ndarray:
        """Inverse Cholesky factors (Z, r, r) of the numbers ``known``, in their order; kept for later rows."""
        if known not in self._whitened:
            if len(self._whitened) >= MOST_WHITENED:
                self._whitened.clear()
            factor = np.linalg.cholesky(self._covariance[:, known][:, :, known])  # pyright: ignore
            self._whitened[known] = np.linalg.inv(factor)
        return self._whitened[known]


class LeafPairs(NamedTuple):
    """Rows (B,) of a table and leaves (B, Tr), one of each tree; or leaves (P,) of rows ``row`` (P,), sorted by it."""

    rows: np.ndarray
    leaf: np.ndarray
    row: np.ndarray | None = None

    def cells(self, values: np.ndarray) -> np.ndarray:
        """Values of the rows (B, n) beside each leaf."""
        return values[:, None] if self.row is None else values[self.row]

    def log_total(self, values: np.ndarray) -> np.ndarray:
        """Logarithm of each row's sum of exponentials: (B, ...)."""
        return log_sum(values, 1) if self.row is None else log_totals(values, self.row)


def log_totals(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Logarithm of the sum of exponentials of ``values`` (P, ...) of each row, sorted, none without a value."""
    start = np.flatnonzero(np.diff(row, prepend=-1))
    top = np.maximum.reduceat(values, start)
    counts = np.diff(np.append(start, len(row)))
    return np.log(np.add.reduceat(np.exp(values - top.repeat(counts, 0)), start)) + top


class ForestScores:
    """A density forest (11), with products or Chow-Liu trees in its leaves."""

    keeps_pace = True

    def __init__(self, data: Mapping[str, Any], arrays: Arrays, layout: ColumnLayout) -> None:
        self.layout = layout
        self._fallback = _part(data["fallback"], arrays, "fallback", layout)
        self._own = np.array(sorted([*layout.finite, *layout.reals]), dtype=np.int64)
        self._log_shares = arrays["log_shares"].astype(float)
        column, rank = arrays["splits.column"].astype(np.int64), arrays["splits.rank"]
        self.n_trees, inner = len(rank), column >= 0
        nodes = np.arange(len(column))
        self._left = np.where(inner, self.n_trees + 2 * (inner.cumsum() - 1), nodes)
        if (
            len(nodes) != self.n_trees + 2 * inner.sum()
            or (self._left[inner] <= nodes[inner]).any()
        ):
            raise ValueError("the splits do not form trees")
        parent = np.full(len(nodes), -1)
        parent[self._left[inner]] = parent[self._left[inner] + 1] = nodes[inner]
        self._leaves = np.flatnonzero(~inner)
        self._leaf = np.full(len(nodes), -1)
        self._leaf[self._leaves] = np.arange(len(self._leaves))
        self._bound = np.where(inner, arrays["splits.threshold"], np.inf)
        # cells that splits compare: ranks of levels in each tree, then numbers
        self._rank = np.concatenate([rank, np.full((self.n_trees, 1), np.nan, rank.dtype)], 1)
        place = np.full(len(layout.columns), -1)
        place[layout.finite] = np.arange(len(layout.finite))
        place[layout.reals] = len(layout.finite) + np.arange(len(layout.reals))
        self._place = np.where(inner, place[column], 0)
        self._derive(column, parent, arrays, float(data["wide"]))

    def _derive(self, column: np.ndarray, parent: np.ndarray, arrays: Arrays, wide: float) -> None:
        """What follows from the parameters: boxes, weights and constants of the leaves."""
        layout, n_trees = self.layout, self.n_trees
        shape = len(column), len(layout.columns)
        shares, low, high = np.zeros(shape), np.full(shape, -np.inf), np.full(shape, np.inf)
        self._tree = np.arange(len(column))
        first, stop, self._depth = 0, n_trees, 1
        while True:  # one depth after the other
            n_inner = int((column[first:stop] >= 0).sum())
            if not n_inner:
                break
            first, stop = stop, stop + 2 * n_inner
            part = np.arange(first, stop)
            up, self._depth = parent[part], self._depth + 1
            self._tree[part] = self._tree[up]
            for values in (shares, low, high):
                values[part] = values[up]
            shares[part, column[up]] += self._log_shares[part]
            bound = arrays["splits.threshold"][up]
            is_first = part == self._left[up]
            high[part[is_first], column[up][is_first]] = bound[is_first]
            low[part[~is_first], column[up][~is_first]] = bound[~is_first]
        self._of_splits = shares[self._leaves]
        self._root = self._log_shares[self._tree[self._leaves]]
        with np.errstate(divide="ignore"):
            probs = np.log(arrays["probs"].astype(float))
        self._log_probs = np.concatenate([probs, np.zeros((len(probs), 1))], 1)
        self._mean, sd = arrays["means"].astype(float), np.sqrt(arrays["var"].astype(float))
        low, high = (bound[self._leaves][:, layout.reals] for bound in (low, high))
        mass = log_between((low - self._mean) / sd, (high - self._mean) / sd)
        self._inverse_sd = 1 / sd
        self._constant = math.log1p(-wide) - np.log(sd) - LOG_ROOT - mass
        self._wide = math.log(wide) - math.log(WIDE_SD) - log_between(low / WIDE_SD, high / WIDE_SD)
        self._trees = None
        if "trees.parents" in arrays:
            self._trees = LeafTreeScores(arrays["trees.parents"], arrays["trees.tables"])

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        out = beside(self._fallback, x, self._own).sum(1)
        for pairs in self._pairs(x):
            if self._trees is None or pairs.row is None:
                start, terms = self._terms(pairs, x)
                out[pairs.rows] += pairs.log_total(start + terms.sum(-1))
                continue
            own, leaf = x[pairs.rows], pairs.leaf
            codes, missing = self.layout.codes(own)
            joint = self._of_splits[leaf].sum(1) + self._root[leaf]
            joint += self._trees.log_mass(leaf, np.where(missing, -1, codes)[pairs.row])
            if len(self.layout.reals):
                numbers = self._number_cells(leaf, pairs.cells(self.layout.numbers(own)))
                joint += np.where(np.isnan(numbers), 0.0, numbers).sum(1)
            out[pairs.rows] += pairs.log_total(joint)
        return out

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        if self._trees is None:
            return self._factors(x, by_tree=False)
        out, gaps = np.zeros(x.shape), np.isnan(x[:, self._own]).any(1)
        out[~gaps] = self._factors(x[~gaps], by_tree=False)
        # a cell whose parent is missing has no factor of its own
        seen, before = np.full_like(x[gaps], np.nan), 0.0
        for j in self.layout.both_ways(range(x.shape[1]))[0] if gaps.any() else []:
            seen[:, j] = x[gaps, j]
            after = self.log_prob(seen)
            out[gaps, j], before = after - before, after
        return np.where(np.isnan(x), 0.0, out)

    def mean_log_factors(self, x: np.ndarray) -> np.ndarray:
        """The mean over the trees of the factors of each tree alone."""
        return self._factors(x, by_tree=True)

    def _factors(self, x: np.ndarray, *, by_tree: bool) -> np.ndarray:
        out, columns = beside(self._fallback, x, self._own), range(len(self.layout.columns))
        for pairs in self._pairs(x):
            start, terms = self._terms(pairs, x)
            if by_tree and pairs.row is None:
                out[pairs.rows] += terms.mean(1)
                continue
            total: Callable[[np.ndarray], np.ndarray] = pairs.log_total
            if by_tree and pairs.row is not None:
                tree = self._tree[self._leaves[pairs.leaf]]
                place = pairs.row * self.n_trees + tree
                sorting = np.argsort(place, kind="stable")
                start, terms = (start - self._root[pairs.leaf])[sorting], terms[sorting]
                total = partial(log_totals, row=place[sorting])
            for order in self.layout.both_ways(columns):
                totals = total(start[..., None] + terms[..., order].cumsum(-1))
                steps = np.diff(totals, axis=1, prepend=0.0)
                if by_tree:
                    steps = steps.reshape(-1, self.n_trees, len(order)).mean(1)
                out[pairs.rows[:, None], order] += steps / 2
        return np.where(np.isnan(x), 0.0, out)

    def _pairs(self, x: np.ndarray) -> Iterator[LeafPairs]:
        """Every row once, with the leaves that agree with its known cells."""
        cells = np.concatenate([self.layout.level(x), self.layout.numbers(x)], 1)
        gaps = np.isnan(x[:, self._own]).any(1)
        step = max(1, CELLS // (self.n_trees * (1 + x.shape[1])))
        rows = np.flatnonzero(~gaps)
        for some in (rows[i : i + step] for i in range(0, len(rows), step)):
            yield LeafPairs(some, self._descend(cells[some]))
        rows = np.flatnonzero(gaps)
        step = max(1, step // (16 if self._trees is None else 64))
        for some in (rows[i : i + step] for i in range(0, len(rows), step)):
            yield LeafPairs(some, *self._reached(cells[some]))

    def _values(self, cells: np.ndarray, row: np.ndarray, node: np.ndarray) -> np.ndarray:
        """What the splits of nodes compare: ranks of levels, or numbers, NaN where missing."""
        place = self._place[node]
        own, n_low = cells[row, place], len(self.layout.finite)
        if n_low:
            is_level = place < n_low
            at = self._tree[node[is_level]], own[is_level].astype(np.int64)
            own[is_level] = self._rank[at]
        return own

    def _descend(self, cells: np.ndarray) -> np.ndarray:
        """The leaf of each row in each tree, (B, Tr)."""
        n = len(cells)
        out = node = np.tile(np.arange(self.n_trees), n)
        row, at = np.arange(n).repeat(self.n_trees), None
        for _ in range(self._depth):
            on = self._left[node] != node  # a leaf is its own first child
            if not on.all():
                at = np.flatnonzero(on) if at is None else at[on]
                node, row = node[on], row[on]
            if not len(node):
                break
            node = self._left[node] + (self._values(cells, row, node) > self._bound[node])
            if at is None:
                out = node
            else:
                out[at] = node
        return self._leaf[out].reshape(n, self.n_trees)

    def _reached(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every leaf that agrees with the known cells of rows: leaf and row (P,), sorted by the row."""
        n = len(cells)
        node, row = np.tile(np.arange(self.n_trees), n), np.arange(n).repeat(self.n_trees)
        keys = []
        while len(node):
            is_leaf = self._left[node] == node
            keys.append(row[is_leaf] * len(self._leaves) + self._leaf[node[is_leaf]])
            node, row = node[~is_leaf], row[~is_leaf]
            value, bound, left = self._values(cells, row, node), self._bound[node], self._left[node]
            first, second = ~(value > bound), ~(value <= bound)
            node = np.concatenate([left[first], left[second] + 1])
            row = np.concatenate([row[first], row[second]])
        row, leaf = np.divmod(np.sort(np.concatenate(keys)), len(self._leaves))
        return leaf, row

    def _terms(self, pairs: LeafPairs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each leaf as far as missing cells decide on it, and that of each known cell."""
        layout, own, leaf = self.layout, x[pairs.rows], pairs.leaf
        terms, missing = self._of_splits[leaf], pairs.cells(np.isnan(own))
        start = self._root[leaf] + np.where(missing, terms, 0.0).sum(-1)
        if len(layout.finite):
            terms[..., layout.finite] += self._level_cells(
                leaf, pairs.cells(layout.level(own)), own
            )
        if len(layout.reals):
            numbers = pairs.cells(layout.numbers(own))
            terms[..., layout.reals] += self._number_cells(leaf, numbers)
        return start, np.where(missing, 0.0, terms)

    def _number_cells(self, leaf: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        numbers = numbers.astype(float)
        z = (numbers - self._mean[leaf]) * self._inverse_sd[leaf]
        far = log_normal(numbers / WIDE_SD) + self._wide[leaf]
        with np.errstate(invalid="ignore"):  # NaN where missing
            return np.logaddexp(self._constant[leaf] - 0.5 * z * z, far)

    def _level_cells(self, leaf: np.ndarray, level: np.ndarray, x: np.ndarray) -> np.ndarray:
        if self._trees is None:
            return self._log_probs[leaf[..., None], level]
        codes = self.layout.codes(x)[0][:, None]  # (B, 1, C'): a row has all its cells
        return self._trees.cells(leaf, np.broadcast_to(codes, (*leaf.shape, codes.shape[2])))


class LeafTreeScores:
    """Chow-Liu trees over the low-cardinality columns, one in each leaf: parents (L, C'), tables (L, C', K, K)."""

    def __init__(self, parents: np.ndarray, tables: np.ndarray) -> None:
        self._parents = np.maximum(parents.astype(np.int64), 0)
        with np.errstate(divide="ignore"):
            self._tables = np.log(tables.astype(float))
        # levels that each leaf may have, (L, C', K)
        self._there = np.any(np.isfinite(self._tables), axis=2)
        depth = np.where(parents < 0, 0, parents.shape[1])
        for d in range(1, parents.shape[1]):
            above = np.take_along_axis(depth, self._parents, 1)
            depth[(depth > d) & (above == d - 1)] = d
        self._order = np.argsort(depth, 1, kind="stable")

    def cells(self, leaf: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Log-probability of every known cell given its parent, (..., C')."""
        up = np.take_along_axis(codes, self._parents[leaf], -1)
        return self._tables[leaf[..., None], np.arange(codes.shape[-1]), up, codes]

    def log_mass(self, leaf: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Log-probability of the known cells (P, C'), those of -1 summed out, in leaves (P,): (P,)."""
        n, k = self._tables.shape[1:3]
        likely = (codes[..., None] < 0) | (codes[..., None] == np.arange(k))
        # of what lies below each column, (P, C', K)
        messages = np.where(np.logical_and(likely, self._there[leaf]), 0.0, -np.inf)
        at, order, parents = np.arange(len(leaf)), self._order[leaf], self._parents[leaf]
        message = np.zeros((len(leaf), k))  # to the parent
        for i in range(n - 1, -1, -1):
            j = order[:, i]
            message = log_sum(self._tables[leaf, j] + messages[at, j][:, None], 2)
            if i:
                messages[at, parents[at, j]] += message
        return message[:, 0]


class CausalScores:
    """A causal network (8) on independent columns or a Bayesian network, without high-cardinality columns."""

    keeps_pace = True

    def __init__(self, data: Mapping[str, Any], arrays: Arrays, layout: ColumnLayout) -> None:
        base = _part(data["base"], arrays, "base", layout)
        if not isinstance(base, MarginalScores | BayesNetScores) or len(layout.high):
            raise NotCoveredError("a CausalDenoiser on such a base needs torch")
        self.layout, self._base = layout, base
        order, n_columns = np.array(data["order"]["items"]), len(layout.columns)
        rank = np.argsort(order)
        self._rank = rank[layout.finite]
        self._low = [layout.columns[j] for j in layout.finite]
        # levels that have a feature and an output: all seen ones but the first, in the order of their storage
        codes = {
            int(level): (i, k)
            for i, own in enumerate(layout.levels)
            for k, level in enumerate(own)
            if 0 < k < self._low[i].n_levels
        }
        at = np.array([codes[level] for level in sorted(codes)], dtype=np.int64).reshape(-1, 2)
        self._fed_column, self._fed_code = at.T
        probs = [np.exp(own) for own in base.alone]
        start = np.array([probs[i][k] for i, k in at])
        seen = np.array([p[: c.n_levels].sum() for p, c in zip(probs, self._low, strict=True)])
        n_fed = np.bincount(self._fed_column, minlength=1)[self._fed_column]
        self._centre = start / seen[self._fed_column] if len(at) else start
        least = 0.1 * np.sqrt(n_fed)
        self._scale = 1 / np.maximum(np.sqrt(start * (1 - start) * n_fed), least)
        self._n_seen = np.array([c.n_levels for c in self._low])
        mixture = np.zeros((3, 0, 1)) if base.fallback is None else base.fallback.mixture
        self._mixture = mixture
        shares = np.exp(mixture[0, :, :-1])
        self._prior = shares / shares.sum(1, keepdims=True)
        self._middle = (self._prior * mixture[1, :, :-1]).sum(1)
        n = mixture.shape[2] - 1
        part = np.arange(n + N_REGRESSED if n else 0) % max(1, n)
        self._started = mixture[:, :, part].copy()
        self._started[0] -= np.log(np.bincount(part, minlength=1)[part])
        reals, fed = layout.reals, layout.finite[self._fed_column]
        features = np.concatenate([fed, reals.repeat(n), reals, np.arange(n_columns)])
        answers = rank[np.concatenate([fed, reals.repeat(3 * len(part))])]
        self._n_answers = len(answers)
        answers = answers if len(answers) else np.array([n_columns])
        self._network(arrays, rank[features], answers, n_columns)

    def _network(self, arrays: Arrays, features: np.ndarray, answers: np.ndarray, n: int) -> None:
        """The masked maps, of features and answers with ranks (F,) and (A,)."""
        width = len(arrays["network.enter.weight"])
        degree = np.arange(width) * max(1, n - 1) // width

        def masked(name: str, rank: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            weight, bias = (
                arrays[f"network.{name}.{end}"].astype(float) for end in ("weight", "bias")
            )
            return (weight * (rank <= most[:, None])).T.copy(), bias

        self._enter = masked("enter", features, degree)
        self._blocks = []
        while f"network.blocks.{len(self._blocks)}.0.weight" in arrays:
            i = len(self._blocks)
            self._blocks.append([masked(f"blocks.{i}.{k}", degree, degree) for k in (0, 1)])
        self._leave = masked("leave", degree, answers - 1)
        has_skip = "network.skip.weight" in arrays
        self._skip = masked("skip", features, answers - 1) if has_skip else None

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return self.log_factors(x).sum(1)

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        layout, out = self.layout, np.zeros(x.shape)
        answers = self._answers(x)[:, : self._n_answers]
        n_fed, (codes, missing) = len(self._fed_code), layout.codes(x)
        for i, prior in enumerate(self._base.preceding(x, self._rank)):
            seen = self._n_seen[i]
            logits = np.broadcast_to(prior[:, :seen], (len(x), seen)).copy()
            before = log_sum(logits, 1)
            own = np.flatnonzero(self._fed_column == i)
            logits[:, self._fed_code[own]] += answers[:, own]
            # the network moves probability among seen categories alone
            logits += (before - log_sum(logits, 1))[:, None]
            if self._low[i].open:
                unseen = np.broadcast_to(prior[:, seen:], (len(x), 1))
                logits = np.concatenate([logits, unseen], 1)
            own = np.take_along_axis(logits, codes[:, i, None], 1)[:, 0]
            out[:, layout.finite[i]] = np.where(missing[:, i], 0.0, own)
        if len(layout.reals):
            changes = answers[:, n_fed:].reshape(len(x), len(layout.reals), -1, 3)
            out[:, layout.reals] = self._densities(layout.numbers(x), np.moveaxis(changes, 3, 0))
        return np.where(np.isnan(x), 0.0, out)

    def _densities(self, numbers: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """Log-densities (B, R) of numbers in the mixtures that ``changes`` (3, B, R, K') make of those of the base."""
        (log_weight, mean, var), wide = self._started, self._mixture[:, :, -1:]
        moved = log_weight + changes[0]
        moved += np.log1p(-np.exp(wide[0])) - log_sum(moved, 2)[..., None]
        spread = MOST_LOG_VARIANCE * np.tanh(changes[2] / MOST_LOG_VARIANCE)
        var = np.maximum(var * np.exp(spread), LEAST_SD**2)
        cells = numbers[:, :, None].astype(float)
        z = cells - mean - SD * changes[1]
        parts = moved - 0.5 * (z * z / var + np.log(var)) - LOG_ROOT
        z = cells - wide[1]
        last = wide[0] - 0.5 * (z * z / wide[2] + np.log(wide[2])) - LOG_ROOT
        return log_sum(np.concatenate([parts, last], 2), 2)

    def _features(self, x: np.ndarray) -> np.ndarray:
        """As of ``ColumnFeatures.describe_cells``: (B, F)."""
        layout, (codes, missing) = self.layout, self.layout.codes(x)
        reliability = np.zeros(x.shape)
        seen = (codes < self._n_seen) & ~missing
        reliability[:, layout.finite] = seen
        is_level = (codes[:, self._fed_column] == self._fed_code) & ~missing[:, self._fed_column]
        parts = [(is_level - self._centre * seen[:, self._fed_column]) * self._scale]
        if len(layout.reals):
            values = layout.numbers(x).astype(float)
            known = ~np.isnan(values)
            values = np.where(known, values, 0.0)
            log_weight, mean, var = self._mixture
            z = values[:, :, None] - mean
            joint = log_weight - 0.5 * (z * z / var + np.log(var))
            shares = np.exp(joint - log_sum(joint, 2)[..., None]) * known[:, :, None]
            narrow = known - shares[:, :, -1]
            moved = (shares[:, :, :-1] - self._prior * narrow[:, :, None]) * 2
            parts += [moved.reshape(len(x), -1), (values - self._middle) * narrow / SD]
            reliability[:, layout.reals] = narrow
        return np.concatenate([*parts, reliability], 1)

    def _answers(self, x: np.ndarray) -> np.ndarray:
        """The outputs (B, A) of the network.

        Products are of one shape and in float64: of float32, the rounding of a row depends on its place in them.
        """
        features, n = self._features(x), len(x)
        padded = np.zeros((-(-n // ROWS) * ROWS, features.shape[1]))
        padded[:n] = features
        features = padded.reshape(-1, ROWS, features.shape[1])

        def mapped(part: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> np.ndarray:
            return values @ part[0] + part[1]

        h = mapped(self._enter, features)
        for first, second in self._blocks:
            h += mapped(second, np.maximum(mapped(first, np.maximum(h, 0)), 0))
        out = mapped(self._leave, np.maximum(h, 0))
        if self._skip is not None:
            out += mapped(self._skip, features)
        return out.reshape(len(padded), -1)[:n]


class RowMixtureScores:
    """A mixture of rows (10)."""

    def __init__(self, data: Mapping[str, Any], arrays: Arrays, layout: ColumnLayout) -> None:
        members = data["members"]["items"] if isinstance(data["members"], dict) else data["members"]
        self._members = [
            of_file(own, arrays, f"members.{i}", layout) for i, own in enumerate(members)
        ]
        weights = data["weights"]
        self._weights = weights["items"] if isinstance(weights, dict) else weights
        log_weights = np.log(np.array(self._weights, dtype=float))
        self._log_weights = log_weights - log_sum(log_weights, 0)

    @property
    def keeps_pace(self) -> bool:
        return all(member.keeps_pace for member in self._members)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        joint = np.stack([member.log_prob(x) for member in self._members], 1)
        return log_sum(joint + self._log_weights, 1)

    def log_factors(self, x: np.ndarray) -> np.ndarray:
        main = self._weights.index(max(self._weights))
        factors = self._members[main].log_factors(x)
        each = [factors.sum(1) if i == main else m.log_prob(x) for i, m in enumerate(self._members)]
        joint = np.stack(each, 1) + self._log_weights
        total = log_sum(joint, 1)
        r = np.exp(joint - total[:, None])
        r = np.where(r < LEAST_SHARE, 0.0, r)
        r /= r.sum(1, keepdims=True)
        mean = r[:, main, None] * factors
        for i, member in enumerate(self._members):
            rows = np.flatnonzero(r[:, i] > 0)
            if i != main and len(rows):
                mean[rows] += r[rows, i, None] * member.log_factors(x[rows])
        there = ~np.isnan(x)
        left = (total - mean.sum(1)) / np.maximum(there.sum(1), 1)
        return mean + left[:, None] * there


KINDS: dict[str, Callable[[Mapping[str, Any], Arrays, ColumnLayout], ClosedForm]] = {
    "MarginalDenoiser": MarginalScores,
    "BayesNetDenoiser": BayesNetScores,
    "MixtureDenoiser": MixtureScores,
    "ForestDenoiser": ForestScores,
    "CausalDenoiser": CausalScores,
    "RowMixtureDenoiser": RowMixtureScores,
}
