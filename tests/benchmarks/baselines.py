"""Two reference density models on integer-coded tables, in plain numpy.

They are what a density estimator has to beat: columns taken one by one, and the best tree of pairs.
Rows are arrays of codes, shape (N, C); column j holds the integers 0, ..., K_j - 1, and
`cardinalities` lists K_1, ..., K_C. Log-probabilities are natural logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class IndependentColumns:
    """Every column by itself: P(x) = prod_j P(x_j).

    Parameters
    ----------
    alpha : float, default=0.5
        Pseudo-count added to every category; must be positive for unseen categories to be possible.

    Examples
    --------
    >>> model = IndependentColumns(alpha=0.0).fit([[0, 0], [0, 1]], [1, 2])
    >>> np.exp(model.log_prob([[0, 1]]))
    array([0.5])
    """

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = alpha

    def fit(self, codes: ArrayLike, cardinalities: Sequence[int]) -> IndependentColumns:
        """Count the categories of every column.

        Parameters
        ----------
        codes : array-like of int, shape (N, C)
            The training rows.
        cardinalities : sequence of int, length C
            Number of categories K_j of each column.

        Returns
        -------
        self : IndependentColumns
            With ``log_probs_``, one array of shape (K_j,) per column.
        """
        codes = _check(codes, cardinalities)
        self.cardinalities_ = list(cardinalities)
        self.log_probs_ = [
            _log_normalise(np.bincount(codes[:, j], minlength=k) + self.alpha)
            for j, k in enumerate(cardinalities)
        ]
        return self

    def log_prob(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Return the log-probability of each row, shape (N,), nats."""
        codes = _check(codes, self.cardinalities_)
        total = np.zeros(len(codes))
        for j, table in enumerate(self.log_probs_):
            total += table[codes[:, j]]
        return total


class ChowLiuTree:
    """The likeliest tree: P(x) = P(x_root) prod_j P(x_j | x_parent(j)).

    Among all trees, the one with the largest sum of pairwise mutual informations maximises the
    likelihood; the conditionals are then the (smoothed) relative frequencies.

    Parameters
    ----------
    alpha : float, default=0.5
        Pseudo-count added to every category of a column given each category of its parent. The
        mutual informations are those of the raw counts.

    References
    ----------
    Chow, Liu, "Approximating discrete probability distributions with dependence trees", IEEE
    Transactions on Information Theory 14(3), 1968.

    Examples
    --------
    >>> model = ChowLiuTree(alpha=0.0).fit([[0, 0], [0, 0], [1, 1], [1, 1]], [2, 2])
    >>> np.exp(model.log_prob([[0, 0], [1, 1]]))
    array([0.5, 0.5])
    """

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = alpha

    def fit(self, codes: ArrayLike, cardinalities: Sequence[int]) -> ChowLiuTree:
        """Find the tree and count along its edges.

        Parameters
        ----------
        codes : array-like of int, shape (N, C)
            The training rows.
        cardinalities : sequence of int, length C
            Number of categories K_j of each column.

        Returns
        -------
        self : ChowLiuTree
            With ``parents_``, shape (C,), -1 for the root (column 0), and ``log_tables_``, one
            array per column: shape (K_j,) for the root, (K_parent, K_j) for the others.
        """
        codes = _check(codes, cardinalities)
        self.cardinalities_ = list(cardinalities)
        starts = np.concatenate([[0], np.cumsum(cardinalities)])
        counts = _pair_counts(codes, starts)
        self.parents_ = _spanning_tree(_mutual_information(counts, starts, len(codes)))
        self.log_tables_ = []
        for j, parent in enumerate(self.parents_):
            child = slice(starts[j], starts[j + 1])
            table = (
                np.diag(counts[child, child])
                if parent < 0
                else counts[starts[parent] : starts[parent + 1], child]
            )
            self.log_tables_.append(_log_normalise(table + self.alpha))
        return self

    def log_prob(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Return the log-probability of each row, shape (N,), nats."""
        codes = _check(codes, self.cardinalities_)
        total = np.zeros(len(codes))
        for j, (parent, table) in enumerate(zip(self.parents_, self.log_tables_, strict=True)):
            total += table[codes[:, j]] if parent < 0 else table[codes[:, parent], codes[:, j]]
        return total


def _check(codes: ArrayLike, cardinalities: Sequence[int]) -> NDArray[np.intp]:
    """Return the codes as an integer array, or raise a ValueError that names the column."""
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] != len(cardinalities):
        raise ValueError(f"codes must have shape (N, {len(cardinalities)}), got {codes.shape}")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be integers, got {codes.dtype}")
    bad = ((codes < 0) | (codes >= np.asarray(cardinalities))).any(axis=0)
    if bad.any():
        j = int(bad.argmax())
        raise ValueError(f"column {j}: codes must lie in 0, ..., {cardinalities[j] - 1}")
    return codes.astype(np.intp)


def _log_normalise(counts: NDArray) -> NDArray[np.float64]:
    """Logarithm of the counts divided by their sum over the last axis.

    A context that never occurred, without pseudo-counts, gets the uniform distribution.
    """
    counts = np.asarray(counts, dtype=np.float64)
    counts = np.where(counts.sum(axis=-1, keepdims=True) > 0, counts, 1.0)
    with np.errstate(divide="ignore"):
        return np.log(counts / counts.sum(axis=-1, keepdims=True))


def _pair_counts(codes: NDArray[np.intp], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Counts of all pairs of categories, shape (T, T), T = sum_j K_j: the one-hot Gram matrix."""
    counts = np.zeros((starts[-1], starts[-1]))
    # float32 products are fast, and exact for counts up to 2**24; blocks keep them below.
    for first in range(0, len(codes), 65536):
        block = codes[first : first + 65536] + starts[:-1]
        one_hot = np.zeros((len(block), starts[-1]), dtype=np.float32)
        np.put_along_axis(one_hot, block, 1.0, axis=1)
        counts += one_hot.T @ one_hot
    return counts


def _mutual_information(
    counts: NDArray[np.float64], starts: NDArray[np.intp], n_rows: int
) -> NDArray[np.float64]:
    """Empirical mutual information of all pairs of columns, shape (C, C), nats."""
    joint = counts / n_rows
    marginal = np.diag(joint)
    # Where the joint is 0 the term is 0: put 1 under the logarithm.
    ratio = np.divide(joint, np.outer(marginal, marginal), out=np.ones_like(joint), where=joint > 0)
    terms = joint * np.log(ratio)
    return np.add.reduceat(np.add.reduceat(terms, starts[:-1], axis=0), starts[:-1], axis=1)


def _spanning_tree(weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Parents of the maximum spanning tree rooted in node 0, shape (C,); Prim's algorithm."""
    n_nodes = len(weights)
    parents = np.full(n_nodes, -1)
    best, best_from = weights[0].copy(), np.zeros(n_nodes, dtype=np.intp)
    best[0] = -np.inf  # in the tree
    outside = np.ones(n_nodes, dtype=bool)
    outside[0] = False
    for _ in range(n_nodes - 1):
        node = int(np.where(outside, best, -np.inf).argmax())
        parents[node] = best_from[node]
        outside[node] = False
        closer = outside & (weights[node] > best)
        best[closer], best_from[closer] = weights[node][closer], node
    return parents
