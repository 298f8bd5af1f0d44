"""A reference density model that needs an optional package: UnmaskingTrees.

It takes and scores rows as the models of :mod:`tests.benchmarks.peers` do, by densities only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tests.benchmarks.peers import Cells


class Trees:
    """UnmaskingTrees (package utrees): one boosted classifier per column, any-order, scored in batches.

    The package's own ``score_samples`` goes row by row and gives a value outside the range of a leaf the density of
    that leaf, which adds up to more than one. Here the cells between the splits of its binary tree are tiled, and a
    thousandth of the mass is left for values outside of the training range and for unseen categories; the log of the
    mean probability over `n_orders` random orders is that of a mixture over orders.

    References
    ----------
    McCarter, "Unmasking Trees for Tabular Data", 2024, arXiv:2407.05593.
    """

    ODD = 1e-3

    def __init__(
        self, *, n_rows: int = 2000, duplicates: int = 5, n_orders: int = 4, seed: int = 0
    ) -> None:
        self.n_rows, self.duplicates, self.n_orders, self.seed = n_rows, duplicates, n_orders, seed

    def fit(self, rows: Cells) -> Trees:
        from sklearn.utils.validation import validate_data
        from utrees import KDIQuantizer, UnmaskingTrees

        if not hasattr(KDIQuantizer, "_validate_data"):  # a method that scikit-learn 1.6 deprecated
            KDIQuantizer._validate_data = lambda self, X, **how: validate_data(self, X, **how)
        index = np.random.default_rng(self.seed).permutation(len(rows))[: self.n_rows]
        kept = rows.take(index)
        x = _array(kept)  # missing: a number that is not one, a code below zero
        low, high, scale = np.nanmin(x, axis=0), np.nanmax(x, axis=0), np.nanstd(x, axis=0)
        self.spread = low, high, np.where(scale > 0, scale, 1.0)
        kinds = ["continuous"] * len(rows.widths) + ["categorical"] * len(rows.cardinalities)
        self.model = UnmaskingTrees(duplicate_K=self.duplicates, random_state=self.seed)
        self.model.fit(x, quantize_cols=kinds)
        return self

    def log_prob(self, rows: Cells) -> NDArray[np.float64]:
        x, random = _array(rows), np.random.default_rng(self.seed)
        n_columns, n_numbers = x.shape[1], len(rows.widths)
        scores = np.zeros((self.n_orders, len(x)))
        for score in scores:
            rank = random.permuted(np.tile(np.arange(n_columns), (len(x), 1)), axis=1)
            for j in range(n_columns):
                seen = np.where(rank < rank[:, [j]], x, np.nan).astype(np.float32)
                score += (
                    self._number(j, seen, x[:, j])
                    if j < n_numbers
                    else self._category(
                        j, seen, rows.codes[:, j - n_numbers], rows.cardinalities[j - n_numbers]
                    )
                )
        return logsumexp(scores, axis=0) - np.log(self.n_orders)

    def _category(self, j: int, seen: NDArray, code: NDArray, k: int) -> NDArray[np.float64]:
        mass = np.zeros((len(seen), k))
        if self.model.trees_[j] is None:  # constant in training
            mass[:, int(self.model.constant_vals_[j])] = 1.0
        else:
            known = self.model.encoders_[j].classes_.astype(int)
            mass[:, known] = self.model.trees_[j].predict_proba(seen)
        own = mass[np.arange(len(seen)), code]
        return np.log((1 - self.ODD) * own + self.ODD / k)

    def _number(self, j: int, seen: NDArray, z: NDArray) -> NDArray[np.float64]:
        low, high, scale = (part[j] for part in self.spread)
        inside = (z >= low) & (z <= high)
        log_density = np.full(len(z), np.log(self.ODD / 2 / scale))
        log_density -= np.maximum(low - z, z - high).clip(0) / scale  # exponential tails
        if inside.any():
            log_density[inside] = np.log1p(-self.ODD) + _tiled(
                self.model.trees_[j], seen[inside], z[inside], low, high
            )
        return log_density


def _tiled(tree, seen: NDArray, z: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """Log-density of a balanced tree of classifiers whose leaves fill [low, high], shape (N,)."""
    if tree.constant_val_ is not None:
        return np.full(len(z), -np.log(high - low))
    split = float(tree.quantizer_.bin_edges_[0][1])
    mass, right = tree.xgber_.predict_proba(seen), z >= split
    out = np.log(np.where(right, mass[:, 1], mass[:, 0]))
    for side, child, ends in (
        (~right, tree.left_child_, (low, split)),
        (right, tree.right_child_, (split, high)),
    ):
        if child is None:  # a leaf of the lowest level
            out[side] -= np.log(ends[1] - ends[0])
        elif side.any():
            out[side] += _tiled(child, seen[side], z[side], *ends)
    return out


def _array(rows: Cells) -> NDArray[np.float64]:
    codes = np.where(rows.codes < 0, np.nan, rows.codes)
    return np.concatenate([rows.numbers, codes], axis=1)
