"""Judges of the cells of a column, and which of them has the say: keys, networks, single other columns."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from discrete_itd.cells.counts import OFTEN, conditional, count_others, joined_codes, share_alone
from discrete_itd.cells.judgement import Judged
from discrete_itd.cells.keys import DEPENDS, by_votes, explained
from discrete_itd.cells.network import CellNetwork, ColumnCells, folds
from discrete_itd.cells.others import by_mixture, probability_missing
from discrete_itd.cells.spread import near_functions
from discrete_itd.cells.views import MOST_CANDIDATES, MOST_CONTEXTS, Aspect, ColumnViews, Context
from discrete_itd.reading.text import FEW_VALUES

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
FEWEST_UNITS = 50  # fewest rows, or groups of these, from which networks are fitted


def network_of(
    views: list[ColumnViews], keys: NDArray[np.uint64], unit: Ints
) -> CellNetwork | None:
    """Networks of the columns that have several frequent values, unless these are very many or the rows few."""
    codes = [(view.bins or view.values).codes for view in views]
    often = [j for j, c in enumerate(codes) if (np.bincount(c) >= OFTEN).sum() > 1]
    if len(np.unique(unit)) < FEWEST_UNITS or not 1 < len(often) <= MOST_CANDIDATES:
        return None
    columns = dict[int, ColumnCells]()
    for j in often:
        alone, _ = share_alone(codes[j], unit)
        # n other rows of a value cannot tell that it is rarer beside some cells than 1 / (n + 1) of it alone
        columns[j] = ColumnCells(codes[j], alone, alone / (1 + count_others(codes[j], unit)))
    return CellNetwork(columns, folds(keys, unit))


def judge(
    view: Aspect,
    bins: Aspect | None,
    others: list[Context],
    unit: Ints,
    expected_share: float,
    network: CellNetwork | None = None,
    column: int = -1,
) -> Judged:
    """The cells of a column in one view, by the ``others`` of its row, or by a network of which it is ``column``."""
    alone, _ = share_alone(view.codes, unit)
    of = others if view.n_levels > 1 else []
    given = [conditional(view.codes, other.values.codes, alone, unit) for other in of]
    shares = [explained(view, o.values, alone, *p) for o, p in zip(of, given, strict=True)]
    order = np.argsort(-np.array(shares), kind="stable").tolist()
    keys = [k for k in order if shares[k] >= DEPENDS][:MOST_CONTEXTS]
    every, binned = [], bins or view
    if bins is not None:
        alone, _ = share_alone(bins.codes, unit)
    for other, (p, _) in zip(of, given, strict=True):
        if bins is not None or other.bins is not other.values:
            p, _ = conditional(binned.codes, other.bins.codes, alone, unit)
        every.append((other.column, other.bins.codes, p))
    parts = [o.bins.codes for o in of if not o.is_pattern]
    near = [] if bins is None else near_functions(bins, of, unit)
    mixed = by_mixture(view, binned, every, parts, unit, expected_share, near)
    if network is not None and column in network.columns and bins is None:
        p, best = network.cells(column)
        told = by_mixture(view, view, [(column, best, p)], parts, unit, expected_share)
        rows = np.arange(len(unit))
        if np.log(told.without(rows, -1) / mixed.without(rows, -1)).mean() > 0:
            columns = [i for i in network.columns if i != column]
            mixed = told._replace(
                columns=columns,
                without=partial(network.given, column),
                against=partial(network.against, column),
            )
    if not keys or mixed.is_function:
        return mixed
    # what the other columns say in rows of another key, and of another unit
    best, columns = of[keys[0]].values, {of[k].column for k in keys}
    n_units, n_keys = int(unit.max()) + 1, int(best.codes.max()) + 1
    links = np.where(best.absent, unit, n_units + best.codes)
    graph = sparse.coo_array((np.ones(len(unit)), (unit, links)), shape=(n_units + n_keys,) * 2)
    apart = sparse.csgraph.connected_components(graph)[1][unit]
    alone, _ = share_alone(view.codes, apart)
    rest = [
        (o.column, o.values.codes, conditional(view.codes, o.values.codes, alone, apart)[0])
        for o in of
        if o.column not in columns
    ]
    weak = by_mixture(view, view, rest, [], apart, expected_share)
    ratio = weak.without(np.arange(len(unit)), -1) / np.maximum(weak.flat, alone)
    # with a second column the best key may leave one value open; cells without one are pairs of their own
    pairs = [
        joined_codes(best.codes, o.values.codes + o.values.absent * (1 + unit))
        for o in of
        if o.column not in columns and not o.is_pattern and o.values.n_levels <= FEW_VALUES
    ]
    of_keys = [(of[k], given[k][0]) for k in keys]
    missing = probability_missing(view, of, unit)
    return by_votes(view, of_keys, pairs, parts, ratio, mixed, missing, unit, expected_share)
