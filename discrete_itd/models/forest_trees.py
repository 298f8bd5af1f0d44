"""Random trees for density forests (11), grown by scikit-learn.

Only the splits come from here: a column and a threshold for each node. All probabilities are counted from the rows
afterwards (:mod:`discrete_itd.denoisers.forest_fit`), so that another library could grow the trees without changing the
definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers.forest import Splits

# random splits of a node, of which the best is taken, one of each of so many columns: a share of all, and at least; and
# random projections of the standardised cells and indicators of levels by which it is judged, new ones for every tree
CANDIDATE_SHARE, FEWEST_CANDIDATES, N_TARGETS = 0.35, 4, 8
LEAST_SPREAD = 1e-9  # a column is divided by its standard deviation, or by this if it is constant
MOST_DEPTH = 48  # of a tree; a few long branches would cost every row their time


def grow(
    book: Codebook,
    x: Tensor,
    *,
    n_trees: int,
    min_leaf: int,
    seed: int,
    tree: Tensor | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Splits:
    """Trees whose splits, the best of a few random ones, lower the variance of random projections of the rows.

    A missing cell of ``x`` (N, C) is filled, for growing only, with one that the column has in another row; an absent
    one lies below all others. Leaves have at least ``min_leaf`` rows. Each row is for the one tree ``tree`` (N,); by
    default all trees are grown on all rows. There are fewer than ``n_trees``, at least one, if the time ``is_over``
    before.
    """
    from sklearn.tree import (
        ExtraTreeRegressor,  # takes longer to import than a small table to score
    )

    rng = np.random.default_rng(seed)
    levels, finite, reals = book.levels, book.finite.tolist(), book.reals.tolist()
    used = sorted([*finite, *reals])
    n_candidates = max(FEWEST_CANDIDATES, math.ceil(CANDIDATE_SHARE * len(used)))
    table, absent = (t[:, used].cpu().numpy() for t in (x, book.is_absent(x)))
    indicators = set(book.indicator.values())
    trees, ranks = [], np.zeros((n_trees, levels.n_points))
    for t in range(n_trees):
        if trees and is_over():
            break
        cells = table if tree is None else table[tree.cpu().numpy() == t]
        missing = np.isnan(cells)
        is_absent = absent if tree is None else absent[tree.cpu().numpy() == t]
        view = np.zeros(cells.shape, dtype=np.float32)
        targets = np.zeros((len(cells), N_TARGETS))
        for i, j in enumerate(used):
            own, points = cells[:, i], book.columns[j]
            gaps = np.flatnonzero(missing[:, i])
            if len(gaps) == len(own):
                continue
            if len(gaps):
                own = own.copy()
                there = own[~missing[:, i]]
                # a cell of which nothing is known counts as present: it has a value below
                own[gaps] = 0.0 if j in indicators else rng.choice(there, len(gaps))
                # beside the least level: a box has a level of every column
                below = there.min() - there.std() if points.kind == "real" else 0.0
                own[missing[:, i] & is_absent[:, i]] = below
            weight = rng.standard_normal((max(1, points.n_points), N_TARGETS))
            if points.kind == "real":
                view[:, i] = own
                targets += np.outer(own / max(float(own.std()), LEAST_SPREAD), weight)
                continue
            order = np.arange(points.n_points)
            if points.kind == "simplex":
                order = rng.permutation(order)
            codes = own.astype(np.int64)
            ranks[t, levels.own(book.place[j])] = order
            view[:, i] = order[codes]
            targets += weight[codes]
        grown = ExtraTreeRegressor(
            max_features=min(n_candidates, len(used)),
            min_samples_leaf=min_leaf,
            max_depth=MOST_DEPTH,
            random_state=int(rng.integers(2**31 - 1)),
        )
        trees.append(grown.fit(view, targets, check_input=False).tree_)
    column, threshold = breadth_first(trees)
    column = np.where(column < 0, -1, np.array(used)[column.clip(0)])
    return Splits(book, *map(torch.from_numpy, (column, threshold, ranks[: len(trees)])))


def breadth_first(trees: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Columns (-1 at leaves) and thresholds of the nodes of scikit-learn's trees in the order of :class:`Splits`."""
    start = np.cumsum([0, *(tree.node_count for tree in trees)])
    left, right = (
        np.concatenate([getattr(tree, side) + at for tree, at in zip(trees, start, strict=False)])
        for side in ("children_left", "children_right")
    )
    column = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    level, order = start[:-1], []
    while len(level):
        order.append(level)
        inner = level[column[level] >= 0]
        level = np.stack([left[inner], right[inner]], 1).ravel()
    order = np.concatenate(order)
    is_leaf = column[order] < 0
    return np.where(is_leaf, -1, column[order]), np.where(is_leaf, 0.0, threshold[order])
