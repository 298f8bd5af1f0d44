r"""Which columns depend on which: a Bayesian network of the rows of any model, with the strength of each edge in nats.

The graph is found by hill climbing (Schwarz's Bayesian criterion) on levels of categories and bins of numbers; an edge
from column i to column j has the strength

.. math:: I(X_j; X_i | X_{pa(j) \setminus i})
          = \mathrm E[\log P(x_j | x_{pa(j)}) - \log P(x_j | x_{pa(j) \setminus i})]

under the fitted model, which needs no bins: the nats by which the parent improves the prediction of the child beside
its other parents. Edges that are not clearly above zero are taken away.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from discrete_itd.denoisers.graph_search import Counted, Search, parents_first
from discrete_itd.encoders import Column, Rows
from discrete_itd.models.information import log_prob_of, log_prob_of_sets, pairs_work
from discrete_itd.models.model import Model
from discrete_itd.reading.text import visible

if TYPE_CHECKING:
    import networkx

N_BINS = 5  # quantile bins of a number in the search for the graph
MOST_LEVELS = 30  # most levels of a category in the search; rarer ones are one level
MOST_PARENTS, MOST_TABLE = 3, 1 << 16  # of a column; numbers of the largest table of the search
# Fewest and most rows over which the strengths of edges are means: as many as a few seconds allow.
FEWEST_MEASURED, MOST_MEASURED, WORK = 200, 2000, 1 << 30
CLEAR, LEAST = 2.0, 1e-3  # standard errors above zero, and nats, of an edge that is kept


class Edge(NamedTuple):
    """A line of the edges of a graph."""

    parent: Hashable
    child: Hashable
    nats: float
    stderr: float


@dataclass(frozen=True)
class ColumnGraph:
    """A Bayesian network of the columns of a table, the result of :func:`discrete_itd.find_graph`.

    An arrow is no cause: many graphs with other arrows describe the same rows. Columns without a path between them are
    independent under the model; a column is independent of those that are not below it, given its parents.

    Attributes
    ----------
    columns : list
        Names of the columns.
    edges : DataFrame
        The strongest edge first: ``parent``, ``child``, ``nats`` and ``stderr``, the standard error of the mean over
        rows. ``nats`` is the mutual information of child and parent given the child's other parents.
    """

    columns: list[Hashable]
    edges: pd.DataFrame

    def _edges(self) -> list[Edge]:
        return [Edge(*line) for line in self.edges.itertuples(index=False)]

    def to_networkx(self) -> networkx.DiGraph:
        """The graph for networkx, all columns as nodes, with ``nats`` and ``stderr`` of each edge.

        Raises
        ------
        ImportError
            If networkx is not installed.
        """
        try:
            import networkx
        except ImportError as error:
            raise ImportError("to_networkx needs networkx: pip install networkx") from error
        graph = networkx.DiGraph()
        graph.add_nodes_from(self.columns)
        for edge in self._edges():
            graph.add_edge(edge.parent, edge.child, nats=edge.nats, stderr=edge.stderr)
        return graph

    def to_dot(self) -> str:
        """The graph in the language of Graphviz, with the nats of each edge and lines as thick as these."""
        place = {name: j for j, name in enumerate(self.columns)}
        most = self.edges["nats"].max() if len(self.edges) else 1.0
        lines = [f"  {j} [label={_quoted(name)}]" for name, j in place.items()]
        lines += [
            f'  {place[edge.parent]} -> {place[edge.child]} [label="{edge.nats:.2f}",'
            f" penwidth={0.5 + 3.5 * edge.nats / most:.1f}]"
            for edge in self._edges()
        ]
        return "\n".join(["digraph columns {", "  node [shape=box]", *lines, "}", ""])

    def layers(self) -> list[list[Hashable]]:
        """Columns with an edge by the longest path from a column without parents, each below all of its parents."""
        place = {name: j for j, name in enumerate(self.columns)}
        parents: list[list[int]] = [[] for _ in self.columns]
        for edge in self._edges():
            parents[place[edge.child]].append(place[edge.parent])
        depth = dict[int, int]()
        for j in parents_first(parents):
            depth[j] = max((depth[p] + 1 for p in parents[j]), default=0)
        has_edge = {j for j, above in enumerate(parents) if above} | {p for a in parents for p in a}
        rows: list[list[Hashable]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
        for j in sorted(has_edge):
            rows[depth[j]].append(self.columns[j])
        return [row for row in rows if row]


def _quoted(name: object) -> str:
    """A name as a string of Graphviz."""
    escaped = visible(name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def column_graph(model: Model, rows: Rows, n_evaluations: int) -> ColumnGraph:
    """The graph of rows under a model; see :func:`discrete_itd.find_graph`."""
    names, schema = rows.encoder.names, rows.encoder.schema
    codes = [_coded(c, rows.cells[:, j], rows.is_missing[:, j]) for j, c in enumerate(schema)]
    sizes = [int(of.max()) + 1 for of in codes]
    counted = Counted(np.stack(codes, 1).astype(float), sizes)
    search = Search(counted, MOST_PARENTS, MOST_TABLE)
    parents, _ = next(search.climb([1.0]))
    most = WORK // (len(rows.encoder.owner) * pairs_work(model.anywhere))
    most = max(FEWEST_MEASURED, min(MOST_MEASURED, most))
    strengths = Strengths(model, rows.take(slice(None, None, -(-len(rows) // most))), n_evaluations)
    edges = [
        (names[p], names[j], *strength)
        for j, above in strengths.of_clear({j: list(above) for j, above in enumerate(parents)})
        for p, strength in above.items()
    ]
    table = pd.DataFrame(edges, columns=pd.Index(Edge._fields))
    table = table.sort_values("nats", ascending=False, kind="stable", ignore_index=True)
    return ColumnGraph(list(names), table)


class Strengths:
    """Nats by which parents improve the prediction of columns, as means over rows."""

    def __init__(self, model: Model, rows: Rows, n_evaluations: int) -> None:
        self.model, self.x, self.n_evaluations = model, rows.x, n_evaluations
        self._owner = torch.from_numpy(rows.encoder.owner).to(rows.x.device)
        is_known = [
            ~rows.x[:, self._owner == j].isnan().all(1) for j in range(len(rows.encoder.schema))
        ]
        self._is_known = torch.stack(is_known, 1).cpu().numpy()
        # log-probabilities (N,) of the cells of sets of columns, and of a column given others
        self._of_sets = {frozenset[int](): np.zeros(len(rows))}
        self._of_column = dict[tuple[int, frozenset[int]], np.ndarray]()

    def of_clear(
        self, parents: dict[int, list[int]]
    ) -> Iterator[tuple[int, dict[int, tuple[float, float]]]]:
        """Each column, and its parents with nats and standard error, without those not clearly above zero.

        The weakest parent of a column is left out until all others are clearly above zero beside one another.
        """
        while parents := {j: above for j, above in parents.items() if above}:
            self._ask(parents)
            weakest = dict[int, int]()
            for j, above in parents.items():
                strength = {p: self._strength(j, above, p) for p in above}
                if all(nats > max(LEAST, CLEAR * error) for nats, error in strength.values()):
                    yield j, strength
                else:
                    weakest[j] = min(strength, key=lambda p: strength[p][0])
            parents = {j: [p for p in parents[j] if p != least] for j, least in weakest.items()}

    def _strength(self, child: int, parents: list[int], parent: int) -> tuple[float, float]:
        """Nats and standard error of one parent beside the others, over the rows with all of their cells."""
        family = frozenset(parents)
        gain = self._nats(child, family) - self._nats(child, family - {parent})
        gain = gain[self._is_known[:, [child, *parents]].all(1)]
        if len(gain) < 2:
            return 0.0, math.inf
        return float(gain.mean()), float(gain.std(ddof=1) / math.sqrt(len(gain)))

    def _nats(self, child: int, given: frozenset[int]) -> np.ndarray:
        """Log-probability (N,) of the cells of a column given those of others, unless they are missing."""
        if self.model.anywhere.exact:
            return self._of_sets[given | {child}] - self._of_sets[given]
        if (child, given) not in self._of_column:
            known = torch.isin(self._owner, torch.tensor(sorted(given), device=self._owner.device))
            of = self._owner == child
            nats = log_prob_of(self.model, self.x, of, known, self.n_evaluations)
            self._of_column[child, given] = nats
        return self._of_column[child, given]

    def _ask(self, parents: dict[int, list[int]]) -> None:
        """Compute what the strengths of all parents need of an exact model, at once."""
        given = {(j, frozenset(above) - {p}) for j, above in parents.items() for p in (*above, -1)}
        sets = {columns for j, of in given for columns in (of, of | {j})} - self._of_sets.keys()
        if self.model.anywhere.exact and sets:
            ordered = sorted(sets, key=sorted)
            nats = log_prob_of_sets(self.model, self.x, ordered).cpu().numpy()
            self._of_sets |= dict(zip(ordered, nats.T, strict=True))


def _coded(column: Column, cells: np.ndarray, is_missing: np.ndarray) -> np.ndarray[Any, Any]:
    """Levels of a category or bins of numbers (N,), most frequent ones of many; a missing cell is the last level."""
    is_missing = is_missing | np.isnan(cells)
    known = cells[~is_missing]
    code = np.zeros(len(cells), np.int64)
    if not len(known):
        return code
    levels, of = np.unique(known, return_inverse=True)
    if column.is_ordered and len(levels) > N_BINS:
        edges = np.unique(np.quantile(known, np.arange(1, N_BINS) / N_BINS))
        of = np.unique(np.searchsorted(edges, known, side="left"), return_inverse=True)[1]
    elif len(levels) > MOST_LEVELS:
        rank = np.empty(len(levels), np.int64)
        rank[np.argsort(-np.bincount(of), kind="stable")] = np.arange(len(levels))
        of = np.minimum(rank[of], MOST_LEVELS)
    code[~is_missing] = of
    code[is_missing] = int(of.max()) + 1
    return code
