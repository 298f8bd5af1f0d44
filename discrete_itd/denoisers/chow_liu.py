"""Chow and Liu's algorithm: the tree of most mutual information.

References
----------
Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. IT 14, 1968.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor

from discrete_itd.denoisers.counts import mutual_information, sum_levels, sum_pairs
from discrete_itd.denoisers.marginal import MarginalDenoiser


def chow_liu(
    marginals: MarginalDenoiser, joint: Tensor, pseudo_count: float
) -> tuple[Tensor, Tensor]:
    """The tree of most mutual information: parents (C,) and tables (C, K, K).

    ``joint`` (T, T) are the :func:`~discrete_itd.denoisers.counts.pair_counts` of rows that may have weights.
    """
    levels = marginals.codebook.levels
    column, prior = levels.level_column, marginals.log_probs.exp().double()
    count = joint.diagonal()
    own = (count + pseudo_count * prior) / (sum_levels(count, levels)[column] + pseudo_count)
    pairs = sum_pairs(joint, levels)  # (C, C): rows that have both
    wide = pairs[column][:, column]
    both = (joint + pseudo_count * own[:, None] * own) / (wide + pseudo_count)
    information = mutual_information(both, levels)
    parent = _spanning_tree((information * (pairs + pseudo_count)).cpu().numpy())
    up = torch.tensor(parent, dtype=torch.int64, device=joint.device)
    width = levels.widest
    index = torch.arange(levels.n_points, device=joint.device)
    place = levels.spread(index[None], levels.n_points)[0]  # (C, K)
    padded = torch.ones(
        levels.n_points + 1, levels.n_points + 1, dtype=torch.float64, device=joint.device
    )
    padded[:-1, :-1] = both
    table = padded[place[up.clamp_min(0)][:, :, None], place[:, None, :]]  # joint, (C, K, K)
    single = torch.cat([own, own.new_ones(1)])[place]
    table = torch.where((up < 0)[:, None, None], single[:, None].expand(-1, width, -1), table)
    return up, table.clamp_min(1e-300)


def _spanning_tree(information: np.ndarray) -> Sequence[int]:
    """Parents in the tree of most information, hung up in the middle so that it is shallow; -1 for the root.

    The information of a pair is that of one row, times the rows that have both: what their edge gains.
    """
    n = len(information)
    if n < 2:
        return [-1] * n
    cost = information.max() + 1 - information
    np.fill_diagonal(cost, 0)
    tree = minimum_spanning_tree(cost)
    both = tree + tree.T
    end = breadth_first_order(both, 0, directed=False)[0][-1]
    order, above = breadth_first_order(both, end, directed=False)
    path = [order[-1]]
    while above[path[-1]] >= 0:
        path.append(above[path[-1]])
    middle = path[len(path) // 2]
    _, above = breadth_first_order(both, middle, directed=False)
    return np.where(above < 0, -1, above).tolist()
