"""The trees of a mixture together: their nodes by depth, and the messages between them.

A node z C + j is column j of tree z. Messages are added as logarithms, and multiplied by the tables as probabilities
scaled by their largest entry.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from discrete_itd.channel.devices import add_at
from discrete_itd.channel.levels import KNOWN_NATS
from discrete_itd.denoisers.base import finite_log, row_product

# evidence of a level that a column does not have: finite, or differences would be NaN
NOWHERE = -4 * KNOWN_NATS


class TreeMessages(nn.Module):
    """Nodes sorted by their depth.

    Parameters
    ----------
    parents : Tensor of int64, shape (Z, C)
        The parent of every column in each tree; -1 for a root.

    Attributes
    ----------
    depth : int
        Edges between a root and the farthest node.
    parents_first : Tensor of int64, shape (Z, C)
        The columns of each tree in such an order.

    Raises
    ------
    ValueError
        If they are no trees.
    """

    parents_first: Tensor

    def __init__(self, parents: Tensor) -> None:
        super().__init__()
        self.n_trees, c = parents.shape
        self.n_columns = c
        flat = parents.cpu().numpy()
        if (flat >= c).any():
            raise ValueError(f"parents must be columns, from 0 to {c - 1}, or -1; got {flat.max()}")
        depth = np.where(flat < 0, 0, -1)
        for d in range(c):
            if (depth >= 0).all():
                break
            above = np.take_along_axis(depth, flat.clip(0), 1)
            depth = np.where((depth < 0) & (above == d), d + 1, depth)
        if (depth < 0).any():
            column = int((depth < 0).nonzero()[1][0])
            raise ValueError(f"parents must form trees: column {column} has no root above it")
        up = (flat + np.arange(self.n_trees)[:, None] * c).reshape(-1)
        node_depth = depth.reshape(-1)
        self.depth = int(node_depth.max(initial=0))
        kept = {"parents_first": depth.argsort(1, kind="stable")}
        for d in range(self.depth + 1):
            nodes = np.flatnonzero(node_depth == d)
            kept |= {f"_nodes_{d}": nodes, f"_up_{d}": up[nodes]}
        for name, data in kept.items():
            self.register_buffer(name, torch.tensor(data, device=parents.device), persistent=False)

    def _level(self, d: int) -> tuple[Tensor, Tensor]:
        """Nodes of depth ``d`` and their parents."""
        return getattr(self, f"_nodes_{d}"), getattr(self, f"_up_{d}")

    def gather(self, ell: Tensor, log_tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Messages from the leaves to the roots.

        Parameters
        ----------
        ell : Tensor, shape (B, C, K)
            Evidence of every category.
        log_tables : Tensor, shape (Z, C, K, K)
            Of a column's category (last) given its parent's; a root's rows are all the same.

        Returns
        -------
        belief : Tensor, shape (Z C, B, K)
            Evidence of each node and all below it.
        messages : Tensor, shape (Z C, B, K)
            Log-messages of each node to its parent's categories, up to a constant.
        log_tree : Tensor, shape (Z, B)
            Log-probability of the evidence in each tree.
        """
        z, c, tables = self.n_trees, self.n_columns, log_tables.exp().flatten(0, 1)
        # each column's own scale is taken out first: what is then left is small
        top = ell.amax(2)
        belief = (ell - top[:, :, None]).transpose(0, 1).repeat(z, 1, 1)
        messages = torch.zeros_like(belief)
        scale = top.sum(1).expand(z, -1).clone()  # (Z, B)
        for d in range(self.depth, 0, -1):
            nodes, up = self._level(d)
            own = belief[nodes]
            most = own.amax(2, keepdim=True)
            told = finite_log(row_product((own - most).exp(), tables[nodes].transpose(1, 2)))
            messages[nodes] = told
            add_at(belief, 0, up, told)
            add_at(scale, 0, nodes // c, most[:, :, 0])
        roots, _ = self._level(0)
        belief[roots] += log_tables.flatten(0, 1)[roots, 0][:, None].clamp_min(NOWHERE)
        add_at(scale, 0, roots // c, torch.logsumexp(belief[roots], 2))
        return belief, messages, scale

    def hand_down(self, belief: Tensor, messages: Tensor, log_tables: Tensor) -> Tensor:
        """Messages from the roots to the leaves: the log-posterior of every node, (Z C, B, K)."""
        roots, _ = self._level(0)
        tables = log_tables.exp().flatten(0, 1)
        belief[roots] = torch.log_softmax(belief[roots], 2)
        for d in range(1, self.depth + 1):
            nodes, up = self._level(d)
            # the parent's posterior without the message of this child
            others = torch.softmax(belief[up] - messages[nodes], 2)
            prior = finite_log(row_product(others, tables[nodes]))
            belief[nodes] = torch.log_softmax(belief[nodes] + prior, 2)
        return belief

    def marginals(self, log_tables: Tensor) -> Tensor:
        """The distribution of every column in each tree, if nothing is known: (Z, C, K), nats."""
        out = log_tables.flatten(0, 1)[:, 0].clone()
        for d in range(1, self.depth + 1):
            nodes, up = self._level(d)
            joint = out[up][:, :, None] + log_tables.flatten(0, 1)[nodes]
            out[nodes] = torch.logsumexp(joint, 1)
        return out.unflatten(0, (self.n_trees, self.n_columns))
