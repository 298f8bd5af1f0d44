r"""Trees and mixtures of trees: exact denoisers by belief propagation, fitted by Chow and Liu's algorithm.

In a tree, every column depends on one other, its parent: :math:`P(x) = \prod_j P(x_j \mid x_{pa(j)})`. Messages with
the evidence (2) about every column, soft or hard, pass from the leaves to the root and back; each column's posterior is
then exact. In a mixture, each tree has its own messages, and is weighted by its probability of the evidence.

All trees of a mixture are processed together: a step handles every column of one depth, for all rows.
Messages are added as logarithms, and multiplied by the tables as probabilities scaled by their largest entry.

References
----------
Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. IT 14, 1968.
Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988. Meilă & Jordan, "Learning with mixtures of trees",
JMLR 1, 2000.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import replace_rows
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.ancestral import (
    beside_fallback,
    both_ways,
    cumulative,
    drawable,
    factors_beside,
    factors_by_difference,
    inverse_cdf,
    parents_first_order,
    ranks,
    shares_of_classes,
)
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Tensors,
    filled,
    finite_log,
    held_out_nats,
    rows_at_once,
    with_codebook,
)
from discrete_itd.denoisers.chow_liu import chow_liu
from discrete_itd.denoisers.counts import pair_counts
from discrete_itd.denoisers.marginal import MarginalDenoiser, check_fallback, fallback_log_prob
from discrete_itd.denoisers.mixture import MixtureDenoiser
from discrete_itd.denoisers.mixture_fit import LEAST_GAIN, PATIENCE, check_fit
from discrete_itd.denoisers.tree_messages import NOWHERE, TreeMessages

CELLS = 1 << 24  # floats of the messages of one batch
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
    ancestral = True
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
        self.messages = TreeMessages(parents)
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
    def n_components(self) -> int:
        """Number of trees Z."""
        return len(self.log_weights)

    @property
    def _step(self) -> int:
        """Rows of one batch."""
        numbers = self.n_components * self.codebook.levels.n_columns * self.log_tables.shape[3]
        return rows_at_once(CELLS // max(1, numbers))

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._infer(part) for part in evidence.split(self._step)]
        log_mass, logits = zip(*parts, strict=True)
        return torch.cat(log_mass), torch.cat(logits)

    def _infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`infer`, for the rows of one batch."""
        levels = self.codebook.levels
        if not levels.n_columns:
            return evidence.sum(1), evidence
        # normalised: a term common to all trees would cost digits of their differences
        ell = levels.spread(levels.log_softmax(evidence), NOWHERE)
        belief, messages, log_tree = self.messages.gather(ell, self.log_tables)
        belief = self.messages.hand_down(belief, messages, self.log_tables)
        belief = belief.unflatten(0, (self.n_components, -1))  # (Z, C, B, K)
        if self.n_components == 1:
            belief = belief[0]
        else:
            weight = torch.log_softmax(log_tree + self.log_weights[:, None], 0)  # (Z, B)
            belief = torch.logsumexp(belief + weight[:, None, :, None], 0)
        log_mass = torch.logsumexp(log_tree + self.log_weights[:, None], 0)
        return log_mass + levels.logsumexp(evidence).sum(1), levels.gather(belief.transpose(0, 1))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        book = self.codebook
        out = torch.logsumexp(self.log_joint(x), 1)
        return out + fallback_log_prob(self.fallback, x, book.finite)

    def log_joint(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) together with each tree: (B, Z), nats."""
        return self._joint(x[:, self.codebook.finite])

    def _joint(self, cells: Tensor) -> Tensor:
        """The same of low-cardinality cells (B, C) alone."""
        level = torch.arange(self.log_tables.shape[3], device=cells.device)
        parts = []
        for rows in cells.split(self._step):
            own, unsure = self._cells(rows)

            def summed(gaps: Tensor, rows: Tensor = rows, like: Tensor = own) -> Tensor:
                some = rows[filled(gaps)][:, :, None]
                may_be = (some == level) | some.isnan()
                ell = torch.where(may_be, 0.0, NOWHERE).to(like)
                return self.messages.gather(ell, self.log_tables)[2].T[: len(gaps)]

            parts.append(replace_rows(own.sum(2), unsure.flatten(1).any(1), summed))
        return self.log_weights + torch.cat(parts)

    def _log_mass_of(self, cells: Tensor, _: Sequence[int]) -> Tensor:
        return torch.logsumexp(self._joint(cells), 1)

    def _cells(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of every cell (B, C) given its parent in each tree, and where that is missing: (B, Z, C).

        A missing cell below which nothing is seen needs no sum: 0 and no such place.
        """
        missing, codes = cells.isnan()[:, None], cells.nan_to_num(0.0).long()
        z, c = (torch.arange(n, device=cells.device) for n in self.parents.shape)
        at = self.parents.clamp_min(0)
        own = self.log_tables[z[:, None], c, codes[:, at], codes[:, None]]
        unsure = missing[:, 0][:, at] & (self.parents >= 0)
        return own.masked_fill(missing, 0.0), unsure & ~missing

    def log_factors(self, x: Tensor) -> Tensor:
        """As the base class has it for one tree: from the root on, each column given its parent.

        The host looks, and waits for the device, whether a parent of a known cell is missing.

        In a mixture, the share of a column is its log-probability given its parent in each tree, the trees weighted by
        their posterior given such shares of the columns before it; the mean over the order of the table and its
        reverse, leading columns first. A row goes to the base class if the parent of a known cell is missing in a tree.
        """
        book, n_trees = self.codebook, self.n_components
        orders, parts, gaps = both_ways([*book.place], book.leading_columns), [], []
        for cells in x[:, book.finite].split(self._step):
            own, unsure = self._cells(cells)
            if n_trees > 1:
                gaps.append(unsure.flatten(1).any(1))
                parts.append(shares_of_classes(self.log_weights, own.permute(2, 0, 1), orders).T)
            elif bool(unsure.any()):
                order = self.messages.parents_first[0].tolist()
                told = factors_by_difference(cells, unsure[:, 0], order, self._log_mass_of)
                parts.append(torch.where(unsure[:, 0], told.to(own), own[:, 0]))
            else:
                parts.append(own[:, 0])
        out = factors_beside(x, torch.cat(parts), self.fallback)
        if n_trees > 1:
            rows = torch.nonzero(torch.cat(gaps)).flatten()
            if len(rows):
                out[rows] = super().log_factors(x[rows]).to(out)
        return out.masked_fill(x.isnan(), 0.0)

    def preceding(self, x: Tensor, order: Tensor) -> Posterior:
        """As the base class has it, in each tree given the parent if it is known and comes first, else unconditional.

        The trees are weighted by the product of these probabilities of the cells before the column.
        """
        book, levels = self.codebook, self.codebook.levels
        rank = ranks(book, order)
        late = rank[self.parents.clamp_min(0)] > rank  # (Z, C)
        by_rank = rank.argsort()
        alone = self.messages.marginals(self.log_tables)[:, :, None]
        # one more row of each table, for where nothing is known of the parent
        tables, none = torch.cat([self.log_tables, alone], 2).exp(), self.log_tables.shape[2]
        z, c = (torch.arange(n, device=x.device) for n in self.parents.shape)
        at, parts = self.parents.clamp_min(0), []
        for rows in x[:, book.finite].split(self._step):
            missing, codes = rows.isnan(), rows.nan_to_num(0.0).long()
            up = codes[:, at].masked_fill(missing[:, at] | late, none)
            told = tables[z[:, None], c, up]  # (B, Z, C, K)
            own = told.gather(3, codes[:, None, :, None].expand(-1, len(z), -1, 1))[..., 0]
            own = own.masked_fill(missing[:, None], 1.0).log()[:, :, by_rank]
            before = torch.cat([torch.zeros_like(own[:, :, :1]), own[:, :, :-1]], 2).cumsum(2)
            weight = torch.softmax(before + self.log_weights[:, None], 1)
            weight = torch.empty_like(weight).index_copy(2, by_rank, weight)
            prior = (told * weight[..., None]).sum(1) if len(z) > 1 else told[:, 0]
            parts.append(levels.gather(prior))
        logits = levels.log_softmax(finite_log(torch.cat(parts)))
        return beside_fallback(book, logits, self.fallback)

    def natural_order(self, generator: torch.Generator) -> Tensor:
        """As the base class has it: parents first in one of the trees, drawn at random."""
        which = torch.randint(self.n_components, (1,), generator=generator, device=generator.device)
        parents = [[p] if p >= 0 else [] for p in self.parents[int(which)].tolist()]
        return parents_first_order(self.codebook, parents, generator)

    def draw(self, n: int, generator: torch.Generator, *, allowed: Tensor | None = None) -> Tensor:
        book, levels = self.codebook, self.codebook.levels
        z = inverse_cdf(cumulative(self.log_weights).expand(n, -1), generator)
        may_be = levels.spread(drawable(levels, allowed)[None], fill=False)[0]  # (C, K)
        cdf = cumulative(self.log_tables, may_be[:, None])
        codes = torch.zeros(n, levels.n_columns, dtype=torch.int64, device=book.device)
        for columns in self.messages.parents_first.T:  # the next column of each tree
            j = columns[z][:, None]
            up = self.parents[z].gather(1, j).clamp_min(0)
            rows = cdf[z, j[:, 0], codes.gather(1, up)[:, 0]]
            codes.scatter_(1, j, inverse_cdf(rows, generator)[:, None])
        if self.fallback is None:
            return codes.double()
        return self.fallback.draw(n, generator).index_copy(1, book.finite, codes.double())

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
        counts: Tensor | None = None,
        penalty: float = 0.0,
        is_over: Callable[[], bool] = lambda: False,
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
        counts : Tensor, shape (T, T), optional
            The :func:`~discrete_itd.denoisers.counts.pair_counts` of the rows, for one tree, if they are known.
        penalty : float
            Of each parameter of an edge of one tree, nats; see :func:`~discrete_itd.denoisers.chow_liu.chow_liu`.
        is_over : callable
            Asked before each tree of a mixture; where it is true, the fit ends with the best round, or if none is
            complete, with one tree.

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
            counts = pair_counts(book, x) if counts is None else counts
            parent, table = chow_liu(marginals, counts, pseudo_count, penalty)
            return cls(book, parent[None], table[None], None, fallback)
        if generator is None:
            raise ValueError("a mixture of trees needs a generator")
        start = MixtureDenoiser.fit(
            marginals, x, n_components=n_components, generator=generator,
            n_rounds=START_ROUNDS, with_reals=False, is_over=is_over,
        )  # fmt: skip
        joint = start.log_joint(x)
        best, best_nats, stale = None, math.inf, 0
        for _ in range(max(1, n_rounds)):
            r, fits = torch.softmax(joint, 1), []  # (N, Z)
            for i in range(n_components):
                if is_over():
                    break
                fits.append(chow_liu(marginals, pair_counts(book, x, r[:, i]), pseudo_count))
            if len(fits) < n_components:
                break
            parents, tables = (torch.stack(part) for part in zip(*fits, strict=True))
            model = cls(book, parents, tables, r.sum(0) + 0.5, fallback)
            nats = held_out_nats(model, x if x_valid is None else x_valid)
            stale = 0 if nats < best_nats - LEAST_GAIN else stale + 1
            if best is None or nats < best_nats:
                best, best_nats = model, nats
            if stale >= PATIENCE:
                break
            joint = model.log_joint(x)
        if best is None:
            return cls.fit(marginals, x, pseudo_count=pseudo_count)
        return best
