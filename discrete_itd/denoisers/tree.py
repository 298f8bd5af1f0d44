r"""Trees and mixtures of trees: exact denoisers by belief propagation, fitted by Chow and Liu's algorithm.

In a tree, every column depends on one other, its parent: :math:`P(x) = \prod_j P(x_j \mid x_{pa(j)})`. Messages with
the evidence (2) about every column, soft or hard, pass from the leaves to the root and back; each column's posterior is
then exact. In a mixture, each tree has its own messages, and is weighted by its probability of the evidence.

All trees of a mixture are processed together, as one forest: a step handles every column of one depth, for all rows.
Messages are added as logarithms, and multiplied by the tables as probabilities scaled by their largest entry.

References
----------
Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. IT 14, 1968.
Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988. Meilă & Jordan, "Learning with mixtures of trees",
JMLR 1, 2000.
"""

from __future__ import annotations

import math
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.levels import KNOWN_NATS
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Tensors,
    filled,
    row_product,
    rows_at_once,
    with_codebook,
)
from discrete_itd.denoisers.chow_liu import chow_liu
from discrete_itd.denoisers.marginal import MarginalDenoiser, check_fallback, fallback_log_prob
from discrete_itd.denoisers.mixture import LEAST_GAIN, PATIENCE, MixtureDenoiser, check_fit

CELLS = 1 << 24  # floats of the messages of one batch
# evidence of a level that a column does not have: finite, or differences would be NaN
NOWHERE = -4 * KNOWN_NATS
START_ROUNDS = 20  # rounds of the mixture of products that initialises a mixture of trees
MOST_LEVELS = 6000  # the largest number whose pairwise counts fit in memory


class TreeDenoiser(Denoiser):
    """Exact for a tree, or a mixture of trees, over the low-cardinality columns.

    Parameters
    ----------
    codebook : Codebook
    parents : Tensor of int64, shape (Z, C)
        The parent of every column in each tree, counted among the low-cardinality columns; -1 for a root.
    tables : Tensor, shape (Z, C, K, K)
        Probability of a column's category (last) given its parent's (next to last), K that of the widest column; of
        a root's, only the first row counts. Positive where both columns have the category; normalised here.
    weights : Tensor, shape (Z,), optional
        Probabilities of the trees; positive, normalised here.
    fallback : MarginalDenoiser, optional
        Independent columns, for continuous and high-cardinality columns.

    Raises
    ------
    ValueError
        If shapes disagree or numbers are not positive, if the parents are no trees, or if there are other columns
        and no ``fallback``.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> tables = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]]])
    >>> tree = TreeDenoiser(book, torch.tensor([[-1, 0]]), tables[None])
    >>> tree.log_prob(torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)).exp()
    tensor([0.4500, 0.1000])
    """

    exact = True
    parents: Tensor
    log_tables: Tensor
    log_weights: Tensor

    def __init__(
        self,
        codebook: Codebook,
        parents: Tensor,
        tables: Tensor,
        weights: Tensor | None = None,
        fallback: MarginalDenoiser | None = None,
    ) -> None:
        super().__init__(codebook)
        check_fallback(codebook, fallback)
        self.fallback = fallback
        levels, like = codebook.levels, codebook.known_snr
        c, k = levels.n_columns, levels.widest
        if parents.ndim != 2 or parents.shape[1] != c or tables.shape != (len(parents), c, k, k):
            raise ValueError(
                f"parents and tables must have the shapes (Z, {c}) and (Z, {c}, {k}, {k}),"
                f" got {tuple(parents.shape)} and {tuple(tables.shape)}"
            )
        weights = (torch.ones(len(parents)) if weights is None else weights).to(like)
        if weights.shape != (len(parents),) or not bool((weights > 0).all()):
            raise ValueError("weights must be positive numbers, one for each tree")
        parents, tables = parents.to(like.device), tables.to(like.device)
        self._make_levels(parents)
        there = levels.spread(tables.new_ones(1, levels.n_points), 0.0)[0]  # (C, K)
        root = (parents < 0)[:, :, None, None]
        logits = torch.where(root, tables[:, :, :1], tables).log()
        logits = logits.masked_fill(there[:, None] == 0, -torch.inf)
        # a parent's category that it does not have is never met, but must not give log 0
        never = ~root & (there[parents.clamp_min(0)] == 0)[..., None]
        log_tables = torch.log_softmax(torch.where(never, there.log()[:, None], logits), 3)
        if not bool((log_tables.isfinite() | (there[:, None] == 0)).all()):
            raise ValueError("tables must be positive")
        self.register_buffer("parents", parents)
        self.register_buffer("log_tables", log_tables.to(like))
        self.register_buffer("log_weights", torch.log_softmax(weights.log(), 0))

    def _make_levels(self, parents: Tensor) -> None:
        """Sort the columns of all trees, as nodes z C + j, by their depth."""
        z, c = parents.shape
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
        up = (flat + np.arange(z)[:, None] * c).reshape(-1)
        node_depth = depth.reshape(-1)
        self.depth = int(node_depth.max(initial=0))
        device = self.codebook.device
        for d in range(self.depth + 1):
            nodes = np.flatnonzero(node_depth == d)
            for name, data in ((f"_nodes_{d}", nodes), (f"_up_{d}", up[nodes])):
                self.register_buffer(name, torch.tensor(data, device=device), persistent=False)

    def _level(self, d: int) -> tuple[Tensor, Tensor]:
        """Nodes of depth ``d`` and their parents."""
        return getattr(self, f"_nodes_{d}"), getattr(self, f"_up_{d}")

    def smoothed(self, sd: float) -> TreeDenoiser:
        fallback = None if self.fallback is None else self.fallback.smoothed(sd)
        tables, weights = self.log_tables.exp(), self.log_weights.exp()
        return TreeDenoiser(self.codebook, self.parents, tables, weights, fallback)

    @property
    def score_work(self) -> int:
        return self.n_components * self.codebook.n_columns

    def config(self) -> dict[str, Any]:
        return {"fallback": self.fallback}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        tables, weights = tensors["log_tables"].exp(), tensors["log_weights"].exp()
        fallback = with_codebook(config["fallback"], codebook)
        return cls(codebook, tensors["parents"], tables, weights, fallback)

    @property
    def _tables(self) -> Tensor:
        """Tables of all nodes, as probabilities: (Z C, K, K)."""
        return self.log_tables.exp().flatten(0, 1)

    @property
    def n_components(self) -> int:
        """Number of trees Z."""
        return len(self.log_weights)

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        numbers = self.n_components * self.codebook.levels.n_columns * self.log_tables.shape[3]
        step = rows_at_once(CELLS // max(1, numbers))
        parts = [self._infer(part) for part in evidence.split(step)]
        log_mass, logits = zip(*parts, strict=True)
        return torch.cat(log_mass), torch.cat(logits)

    def _infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`infer`, for the rows of one batch."""
        levels = self.codebook.levels
        if not levels.n_columns:
            return evidence.sum(1), evidence
        # normalised: a term common to all trees would cost digits of their differences
        ell = levels.spread(levels.log_softmax(evidence), NOWHERE)
        belief, messages, log_tree = self._gather(ell)
        belief = self._hand_down(belief, messages)
        belief = belief.unflatten(0, (self.n_components, -1))  # (Z, C, B, K)
        if self.n_components == 1:
            belief = belief[0]
        else:
            weight = torch.log_softmax(log_tree + self.log_weights[:, None], 0)  # (Z, B)
            belief = torch.logsumexp(belief + weight[:, None, :, None], 0)
        log_mass = torch.logsumexp(log_tree + self.log_weights[:, None], 0)
        return log_mass + levels.logsumexp(evidence).sum(1), levels.gather(belief.transpose(0, 1))

    def _gather(self, ell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Messages from the leaves to the roots.

        Parameters
        ----------
        ell : Tensor, shape (B, C, K)
            Evidence of every category.

        Returns
        -------
        belief : Tensor, shape (Z C, B, K)
            Evidence of each node and all below it.
        messages : Tensor, shape (Z C, B, K)
            Log-messages of each node to its parent's categories, up to a constant.
        log_tree : Tensor, shape (Z, B)
            Log-probability of the evidence in each tree.
        """
        z, c = self.parents.shape
        tables = self._tables
        # each column's own scale is taken out first: what is then left is small
        top = ell.amax(2)
        belief = (ell - top[:, :, None]).transpose(0, 1).repeat(z, 1, 1)
        messages = torch.zeros_like(belief)
        scale = top.sum(1).expand(z, -1).clone()  # (Z, B)
        for d in range(self.depth, 0, -1):
            nodes, up = self._level(d)
            own = belief[nodes]
            most = own.amax(2, keepdim=True)
            told = row_product((own - most).exp(), tables[nodes].transpose(1, 2))
            told = told.clamp_min(torch.finfo(told.dtype).tiny).log()
            messages[nodes] = told
            belief.index_add_(0, up, told)
            scale.index_add_(0, nodes // c, most[:, :, 0])
        roots, _ = self._level(0)
        belief[roots] += self.log_tables.flatten(0, 1)[roots, 0][:, None].clamp_min(NOWHERE)
        scale.index_add_(0, roots // c, torch.logsumexp(belief[roots], 2))
        return belief, messages, scale

    def _hand_down(self, belief: Tensor, messages: Tensor) -> Tensor:
        """Messages from the roots to the leaves: the log-posterior of every node, (Z C, B, K)."""
        roots, _ = self._level(0)
        tables = self._tables
        belief[roots] = torch.log_softmax(belief[roots], 2)
        for d in range(1, self.depth + 1):
            nodes, up = self._level(d)
            # the parent's posterior without the message of this child
            others = torch.softmax(belief[up] - messages[nodes], 2)
            prior = row_product(others, tables[nodes])
            prior = prior.clamp_min(torch.finfo(prior.dtype).tiny).log()
            belief[nodes] = torch.log_softmax(belief[nodes] + prior, 2)
        return belief

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        book = self.codebook
        out = torch.logsumexp(self.log_joint(x), 1)
        return out + fallback_log_prob(self.fallback, x, book.finite)

    def log_joint(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) together with each tree: (B, Z), nats."""
        book = self.codebook
        cells = x[:, book.finite]
        z, c = self.parents.shape
        width = self.log_tables.shape[3]
        level = torch.arange(width, device=x.device)
        tree, column = torch.arange(z, device=x.device)[:, None], torch.arange(c, device=x.device)
        parts = []
        for rows in cells.split(rows_at_once(CELLS // max(1, z * c * width))):
            own = rows.nan_to_num(0.0).long()
            up = own[:, self.parents.clamp_min(0)]  # (B, Z, C)
            joint = self.log_tables[tree, column, up, own[:, None]].sum(2)
            gaps = filled(torch.nonzero(rows.isnan().any(1)).flatten())
            if len(gaps):
                some = rows[gaps][:, :, None]
                may_be = (some == level) | some.isnan()
                ell = torch.where(may_be, 0.0, NOWHERE).to(joint)
                joint[gaps] = self._gather(ell)[2].T
            parts.append(joint)
        return self.log_weights + torch.cat(parts)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        marginals: MarginalDenoiser,
        x: Tensor,
        *,
        n_components: int = 1,
        x_valid: Tensor | None = None,
        generator: torch.Generator | None = None,
        pseudo_count: float = 1.0,
        n_rounds: int = 30,
    ) -> TreeDenoiser:
        """The tree of maximum likelihood, or a mixture of trees by expectation maximisation.

        Parameters
        ----------
        marginals : MarginalDenoiser
            Independent columns of the same rows, the prior of the tables.
        x : Tensor of float64, shape (N, C)
            Rows, at least one; NaN where a cell is missing. A pair of columns is counted in the rows that have both.
        n_components : int
            Trees.
        x_valid : Tensor, shape (N', C), optional
            Held-out rows of a mixture, by default the rows themselves. The round with the best log-likelihood on them
            is kept. The fit ends early after ``PATIENCE`` rounds in a row that improve it by less than ``LEAST_GAIN``
            nats per row. One tree needs a single round.
        generator : torch.Generator, optional
            On the device of the rows; needed for more than one tree.
        pseudo_count : float
            Number of rows of independent columns added to every tree; positive.
        n_rounds : int
            Maximum number of rounds.

        Raises
        ------
        ValueError
            If the columns have more than ``MOST_LEVELS`` categories together, if there are no rows, no trees or no
            pseudo-counts, or no generator for more than one tree.
        """
        check_fit(x, n_components, pseudo_count)
        book = marginals.codebook
        if book.levels.n_points > MOST_LEVELS:
            raise ValueError(
                f"a tree needs pairwise counts of at most {MOST_LEVELS} categories; these columns have"
                f" {book.levels.n_points}"
            )
        fallback = marginals if len(book.finite) < book.n_columns else None
        if n_components == 1 or not len(book.finite):
            parent, table = chow_liu(marginals, x, None, pseudo_count)
            return cls(book, parent[None], table[None], None, fallback)
        if generator is None:
            raise ValueError("a mixture of trees needs a generator")
        start = MixtureDenoiser.fit(
            marginals, x, n_components=n_components, generator=generator,
            n_rounds=START_ROUNDS, with_reals=False,
        )  # fmt: skip
        joint = start.log_joint(x)
        best, best_nats, stale = None, math.inf, 0
        for _ in range(max(1, n_rounds)):
            r = torch.softmax(joint, 1)  # (N, Z)
            fits = [chow_liu(marginals, x, r[:, i], pseudo_count) for i in range(n_components)]
            parents, tables = (torch.stack(part) for part in zip(*fits, strict=True))
            model = cls(book, parents, tables, r.sum(0) + 0.5, fallback)
            nats = -float(model.log_prob(x if x_valid is None else x_valid).double().mean())
            stale = 0 if nats < best_nats - LEAST_GAIN else stale + 1
            if best is None or nats < best_nats:
                best, best_nats = model, nats
            if stale >= PATIENCE:
                break
            joint = model.log_joint(x)
        return cast(TreeDenoiser, best)
