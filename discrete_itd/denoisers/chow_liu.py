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

from discrete_itd.channel.levels import Levels
from discrete_itd.denoisers.counts import mutual_information, sum_levels, sum_pairs
from discrete_itd.denoisers.marginal import MarginalDenoiser

LEAST_GAIN = 1e-9  # of an edge, nats; less is rounding


def chow_liu(
    marginals: MarginalDenoiser, joint: Tensor, pseudo_count: float, penalty: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The forest of most gain: parents (C,) and tables (C, K, K).

    Parameters
    ----------
    marginals : MarginalDenoiser
    joint : Tensor of float64, shape (T, T)
        The :func:`~discrete_itd.denoisers.counts.pair_counts` of rows that may have weights.
    pseudo_count : float
        Number of rows of independent columns that are added.
    penalty : float
        Nats by which each parameter of an edge lowers its gain, the mutual information in one row times the rows that
        have both. 0 is Chow and Liu's tree of maximum likelihood, 1 Akaike's criterion, which leaves out edges without
        gain: in few rows, columns of many categories seem to depend on one another whether they do or not.
    """
    levels = marginals.codebook.levels
    column, prior = levels.level_column, marginals.log_probs.exp().double()
    count = joint.diagonal()
    own = (count + pseudo_count * prior) / (sum_levels(count, levels)[column] + pseudo_count)
    pairs = sum_pairs(joint, levels)  # (C, C): rows that have both
    wide = pairs[column][:, column]
    both = (joint + pseudo_count * own[:, None] * own) / (wide + pseudo_count)
    gain = mutual_information(both, levels) * (pairs + pseudo_count)
    if penalty:
        gain = gain - penalty * _parameters(joint, levels)
    gain = gain.cpu().numpy()
    up = np.array(_spanning_tree(gain), dtype=np.int64)
    if penalty:
        up[gain[np.arange(len(up)), up] <= LEAST_GAIN] = -1
    up = torch.from_numpy(up).to(joint.device)
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


def _parameters(joint: Tensor, levels: Levels) -> Tensor:
    """Parameters that an edge adds, (C, C): (K - 1) (K' - 1) of the levels that occur, at most their pairs."""
    occurs = (joint > 0).double()
    own = sum_levels(occurs.diagonal(), levels) - 1
    most = torch.minimum(own[:, None] * own, sum_pairs(occurs, levels) - 1)
    return most.clamp_min(0)  # of columns that are never there together, too


def _spanning_tree(gain: np.ndarray) -> Sequence[int]:
    """Parents in the tree of most gain, hung up in the middle so that it is shallow; -1 for the root."""
    n = len(gain)
    if n < 2:
        return [-1] * n
    cost = gain.max() + 1 - gain
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
