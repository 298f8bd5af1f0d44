r"""Bayesian networks, trees among them: exact denoisers by summing columns out, and their fits.

Every column depends on a few parents, :math:`P(x) = \prod_j P(x_j \mid x_{pa(j)})`; in a tree, on one at most. With
evidence :math:`\ell_{jk}`, eq. (2), about each column, columns are summed out one after the other, which gives
:math:`\log Z = \log \sum_x P(x) \prod_j e^{\ell_{jx_j}}`; its derivative with respect to :math:`\ell_{jk}` is the
posterior :math:`q_{jk}`. So one pass forth and one back give every posterior exactly.

What that costs grows with the largest table on the way, so edges that make it too large are not taken; in a tree it
belongs to one edge. Messages are kept as logarithms, for known cells that contradict one another leave less than the
smallest float; the last axis of a table is the batch, along which sums are fast.

References
----------
Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. IT 14, 1968.
Heckerman, Geiger, Chickering, "Learning Bayesian networks", Machine Learning 20, 1995, for the search. Pearl,
"Probabilistic Reasoning in Intelligent Systems", 1988; Dechter, "Bucket elimination", Artificial Intelligence 113,
1999; Darwiche, "A differential approach to inference in Bayesian networks", JACM 50, 2003, for the derivatives.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discrete_itd.channel.codebook import KNOWN_NATS, Codebook
from discrete_itd.channel.gaussian import chosen
from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import (
    BLOCK,
    LARGE,
    WIDENED,
    Config,
    Denoiser,
    Tensors,
    added,
    cumulative,
    filled,
    finite_log,
    held_out_nats,
    inverse_cdf,
    rows_at_once,
    with_codebook,
)
from discrete_itd.denoisers.graph_search import (
    Counted,
    Elimination,
    Search,
    coded,
    family_codes,
    greedy_order,
    parents_first,
)
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.devices import any_true, index_tensor, replace_rows

SEARCH_ROWS = 100_000  # rows on which edges are scored, at most
PENALTIES = (1.0, 0.5, 0.25)  # multiples of the BIC penalty, compared on held-out rows
# candidate pseudo-counts by which a table is shrunk towards the table with fewer parents; the likeliest one is taken
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class BayesNetDenoiser(Denoiser):
    """Exact for a Bayesian network over the columns of categories.

    Parameters
    ----------
    codebook : Codebook
    parents : sequence of sequences of int, length C
        The parents of every column, counted among the columns of categories.
    tables : sequence of Tensor, shape (K of each parent, ..., K of the column)
        Probabilities of the column's categories given its parents'; positive, normalised here.
    fallback : MarginalDenoiser, optional
        Independent columns, for continuous columns.
    order : sequence of int, optional
        The order in which columns are summed out; by default that in which each has the smallest table. Columns with
        one parent, below which there are only such, come first.

    Raises
    ------
    ValueError
        If the graph has a cycle, tables or the order do not fit, summing columns out takes more memory than there may
        be, or there are other columns and no ``fallback``.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> tables = torch.tensor([0.5, 0.5]), torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> net = BayesNetDenoiser(book, [(), (0,)], tables)
    >>> net.log_prob(torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)).exp()
    tensor([0.4500, 0.1000])
    """

    exact = True
    ancestral = True
    log_probs: Tensor
    _above: Tensor
    _stride: Tensor
    _first: Tensor
    _marginal: Tensor

    def __init__(
        self,
        codebook: Codebook,
        parents: Sequence[Sequence[int]],
        tables: Sequence[Tensor],
        fallback: MarginalDenoiser | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__(codebook)
        if len(codebook.finite) < codebook.n_columns and fallback is None:
            raise ValueError("continuous columns need a fallback")
        sizes = codebook.levels.cardinalities
        if len(parents) != len(sizes) or len(tables) != len(sizes):
            raise ValueError(f"a graph of {len(sizes)} columns is wanted, got {len(parents)}")
        self.fallback = fallback
        self.parents = tuple(tuple(map(operator.index, p)) for p in parents)
        logs, self._shapes = [], []
        for j, (above, table) in enumerate(zip(self.parents, tables, strict=True)):
            if not all(0 <= p < len(sizes) for p in above) or len({j, *above}) <= len(above):
                raise ValueError(f"column {j}: parents {above}")
            self._shapes.append(tuple(sizes[p] for p in (*above, j)))
            logs.append(torch.log_softmax(table.log(), -1))
            if table.shape != self._shapes[j] or not bool(logs[j].isfinite().all()):
                raise ValueError(
                    f"column {j}: its table must be positive and of the shape {self._shapes[j]}"
                )
        if len(parents_first(self.parents)) < len(sizes):
            raise ValueError("the graph has a cycle")
        if order is None:
            order = greedy_order(self.parents, sizes)
        if sorted(map(operator.index, order)) != list(range(len(sizes))):
            raise ValueError(f"order must hold each of {len(sizes)} columns once, got {order!r}")
        # columns with one parent, below which there are only such, are summed out first, long ones by a matrix product
        n_below = [0] * len(sizes)  # children that are not summed out first
        for p in (p for above in self.parents for p in above):
            n_below[p] += 1
        hanging: dict[int, None] = {}
        for j in reversed(parents_first(self.parents)):
            if len(self.parents[j]) == 1 and not n_below[j]:
                hanging[j] = None
                n_below[self.parents[j][0]] -= 1
        self.order = (*hanging, *(j for j in order if j not in hanging))
        elimination = Elimination(self.order, self.parents, sizes)
        self.work, (self.largest, _) = sum(elimination.cost), elimination.largest()
        if self.largest > LARGE:
            raise ValueError(f"summing columns out takes a table of {self.largest} numbers")
        numbers = torch.cat([t.flatten() for t in logs]) if logs else torch.zeros(0)
        self.register_buffer("log_probs", numbers.to(codebook.known_snr))
        self._by_product = {
            j
            for j in hanging
            # as probabilities: smaller ones vanish in a float
            if min(self._shapes[j]) >= WIDENED and float(self.log_tables[j].min()) > -60.0
        }
        shapes = [self._shapes[j] for j in self._by_product]
        self._floats = self.work - sum(math.prod(s) - sum(s) for s in shapes)  # of a row, in memory
        # where the row of each table that belongs to codes of the parents begins among all these numbers
        most = max(map(len, self.parents), default=0)
        above, stride = torch.zeros(2, most, len(sizes), dtype=torch.int64)
        for j, own in enumerate(self.parents):
            for i, p in enumerate(own):
                above[i, j], stride[i, j] = p, math.prod(self._shapes[j][i + 1 :])
        first = torch.tensor([0, *(t.numel() for t in logs)]).cumsum(0)[:-1]
        for name, places in (("_above", above), ("_stride", stride), ("_first", first)):
            self.register_buffer(name, places.to(codebook.device), persistent=False)
        # filled at first use, when the tables of a file are loaded
        self.register_buffer("_marginal", codebook.known_snr.new_zeros(0), persistent=False)

    @torch.no_grad()
    def _alone(self) -> Tensor:
        """Every column's marginal distribution: log-probabilities, (T,)."""
        if not len(self._marginal) and self.parents:
            with torch.inference_mode(False):
                self._marginal = self.marginals().categorical.logits[0]
        return self._marginal

    @property
    def log_tables(self) -> list[Tensor]:
        """Log-probabilities of every column given its parents: (K of each parent, ..., K of the column)."""
        parts = self.log_probs.split([math.prod(shape) for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    @property
    def score_work(self) -> int:
        return self.codebook.n_columns

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        sizes, parents = codebook.levels.cardinalities, config["parents"]
        shapes = [[sizes[p] for p in (*above, j)] for j, above in enumerate(parents)]
        parts = tensors["log_probs"].double().exp().split([math.prod(shape) for shape in shapes])
        tables = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return cls(
            codebook, parents, tables, with_codebook(config["fallback"], codebook), config["order"]
        )

    @property
    def _step(self) -> int:
        """Rows of one batch."""
        return rows_at_once(LARGE // max(1, self._floats))

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        book, levels, evidence = self.codebook, self.codebook.levels, self.evidence(y, snr)
        log_mass, logits = evidence.new_zeros(len(evidence)), evidence
        if levels.n_columns:
            parts = [self._given(part) for part in evidence.split(self._step)]
            log_mass, logits = (torch.cat(t) for t in zip(*parts, strict=True))
        categorical = CategoricalPosterior(levels, logits)
        if self.fallback is None:
            return log_mass, Posterior(book, categorical)
        log_mass = log_mass + self.fallback.log_evidence_of_reals(y, snr)
        return log_mass, Posterior(book, categorical, self.fallback(y, snr).gaussian)

    def _given(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (B,) of evidence (B, T), and the posterior logits of the levels."""
        levels = self.codebook.levels
        ell = levels.spread(evidence.detach(), -torch.inf).permute(1, 2, 0).contiguous()
        # the other levels of a known cell have probability zero
        ell = ell.masked_fill(ell < -KNOWN_NATS / 2, -torch.inf)
        log_mass, outside = self._derivatives(ell)
        q = (outside * ~ell.isneginf()).permute(2, 0, 1)
        return log_mass, finite_log(levels.gather(q))

    def _derivatives(self, ell: Tensor) -> tuple[Tensor, Tensor]:
        """The :meth:`_log_mass` of evidence (C, K, B), (B,), and its derivatives by the weights of all categories.

        A category that the evidence excludes has weight 0 and any other 1: in units of the row's probability, the
        derivative is the probability of the row with this category in place of the column's own evidence.
        """
        with torch.inference_mode(False), torch.enable_grad():
            weight = (~ell.isneginf()).to(ell).requires_grad_(True)
            log_mass = self._log_mass(ell, weight=weight)
            (outside,) = torch.autograd.grad(log_mass.sum(), weight)
        return log_mass.detach(), outside

    @torch.no_grad()
    def leave_one_out(self, x: Tensor, asked: Tensor) -> Posterior:
        """By the tables of a column and of its children; in rows with missing cells by derivatives (Darwiche 2003)."""
        levels, cells = self.codebook.levels, x[:, self.codebook.finite]
        logits = replace_rows(
            self._by_blankets(cells.nan_to_num(0.0).long()),
            cells.isnan().any(1),
            lambda gaps: self._by_derivatives(cells[gaps]),
        )
        return self._with_others(levels.log_softmax(logits).to(self.codebook.known_snr))

    def _by_blankets(self, codes: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, T) of each column's levels given the others' codes (B, C), in double."""
        levels, log_probs = self.codebook.levels, self.log_probs.double()
        row_of_table, _ = self._rows_of_tables(codes.double())
        entry = row_of_table + codes
        logits = log_probs[row_of_table[:, levels.level_column] + levels.level_code]
        for child, parents in enumerate(self.parents):
            for i, j in enumerate(parents):
                stride = math.prod(self._shapes[child][i + 1 :])
                other_codes = torch.arange(self._shapes[j][-1], device=codes.device) - codes[:, [j]]
                logits[:, levels.own(j)] += log_probs[entry[:, [child]] + stride * other_codes]
        return logits

    def _by_derivatives(self, cells: Tensor) -> Tensor:
        """The same with missing cells (B, C) summed out: in double, as odds are huge."""
        parts = filled(cells).split(self._step)
        each = [self._derivatives(self._certain(part).double())[1] for part in parts]
        outside = torch.cat([t.permute(2, 0, 1) for t in each])[: len(cells)]
        return finite_log(self.codebook.levels.gather(outside))

    def _log_mass(
        self,
        ell: Tensor,
        columns: frozenset[int] | None = None,
        kept: list[tuple[int, list[Factor]]] | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Log-probability of evidence (C, K, B), above -inf for some category of every column: (B,).

        If ``columns`` are given, only these, closed under parents, are summed out. Each column is appended to ``kept``
        in its turn, with the factors that it is summed out of. ``weight`` is 0 where the evidence is -inf, else 1.
        """
        weight = (~ell.isneginf()).to(ell) if weight is None else weight
        ell = ell.masked_fill(ell.isneginf(), 0.0)
        tables = [t.to(ell) for t in self.log_tables]
        others = [j for j in self.order if columns is None or j in columns]
        log_mass, factors = ell.new_zeros(ell.shape[2]), list[Factor]()
        for j in others:
            factors.append(((*self.parents[j], j), tables[j][..., None]))
            factors.append(((j,), ell[j, : tables[j].shape[-1]]))
        for j in others:
            mine = [f for f in factors if j in f[0]]
            factors = [f for f in factors if j not in f[0]]
            of_own = weight[j, : tables[j].shape[-1]]
            if kept is not None:
                kept.append((j, [*mine, ((j,), of_own.log())]))
            by_product = j in self._by_product
            summed = mine[1:] if by_product else mine  # without the table
            scope = (j, *sorted({i for own, _ in summed for i in own} - {j}))
            joint = ell.new_zeros(1)
            for own, values in sorted(summed, key=lambda f: len(f[0])):
                joint = joint + _aligned(own, values, scope)
            most, share = _shares(joint, _aligned((j,), of_own, scope), 0)
            if by_product:
                scope, left = (j, *self.parents[j]), (share.T @ tables[j].exp().T).T
                left = finite_log(left) + most
            else:
                left = added(share).log() + most[0]
            most = left.detach().reshape(math.prod(left.shape[:-1]), -1).amax(0)
            log_mass, left = log_mass + most, left - most  # preserves the digits of small numbers
            if scope[1:]:
                factors.append((scope[1:], left))
            else:
                log_mass = log_mass + left
        return log_mass

    def _with_others(self, logits: Tensor) -> Posterior:
        """A posterior of normalised ``logits`` (B, T), with the continuous columns as in the fallback."""
        categorical = CategoricalPosterior(self.codebook.levels, logits, normalised=True)
        if self.fallback is None:
            return Posterior(self.codebook, categorical)
        others = self.fallback.marginals().expand(len(logits))
        return Posterior(self.codebook, categorical, others.gaussian)

    def log_prob(self, x: Tensor) -> Tensor:
        """As of every denoiser: a product of entries of the tables, where no missing cell has to be summed out."""
        own, unsure = self._looked_up(x)
        finite, every = self.codebook.finite, range(len(self.parents))
        out = replace_rows(
            own.sum(1), unsure.any(1), lambda gaps: self._summed_out(x[gaps][:, finite], every)
        )
        if self.fallback is not None:
            out = out + self.fallback.log_prob(x.index_fill(1, finite, math.nan))
        return out

    def _summed_out(self, cells: Tensor, columns: Sequence[int]) -> Tensor:
        """Log-probability of the cells (B, C) of some columns, with all their ancestors: (B,)."""
        parts = filled(cells).split(self._step)
        log_mass = [self._log_mass(self._certain(part), frozenset(columns)) for part in parts]
        return torch.cat(log_mass)[: len(cells)]

    def _certain(self, cells: Tensor) -> Tensor:
        """Evidence (C, K, B) of rows (B, C): 0 for a known category, and for all where a cell is missing, else -inf."""
        codes = torch.arange(self.codebook.levels.widest, device=cells.device)[:, None]
        some = cells.T[:, None]  # (C, 1, B)
        may_be = (some == codes) | some.isnan()
        return torch.where(may_be, 0.0, -torch.inf).to(self.codebook.known_snr)

    def _rows_of_tables(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Offset of each column's row of its table among all numbers, and where a parent is missing: (B, C) each."""
        missing, codes = cells.isnan(), cells.nan_to_num(0.0).long()
        at, unsure = self._first.expand(codes.shape), torch.zeros_like(missing)
        for above, stride in zip(self._above, self._stride, strict=True):
            at = at + codes[:, above] * stride
            unsure = unsure | missing[:, above] & (stride > 0)
        return at, unsure

    def _looked_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of every category given its parents, and where one of them is missing: (B, C).

        A missing cell without observed descendants needs no sum: it has 0 and counts as having its parents.
        """
        cells = x[:, self.codebook.finite]
        at, unsure = self._rows_of_tables(cells)
        own = self.log_probs[at + cells.nan_to_num(0.0).long()]
        return own.masked_fill(cells.isnan(), 0.0), unsure & ~cells.isnan()

    def log_factors(self, x: Tensor) -> Tensor:
        """Factors in an order with parents first: entries of the tables, or where a parent is missing, differences."""
        own, unsure = self._looked_up(x)
        cells, order = x[:, self.codebook.finite], parents_first(self.parents)
        for i in torch.nonzero(unsure.any(0)[order]).flatten().tolist():
            rows = torch.nonzero(unsure[:, order[i]]).flatten()
            after, before = (self._summed_out(cells[rows], order[:n]) for n in (i + 1, i))
            own[rows, order[i]] = after - before
        if self.fallback is None:
            return own
        return self.fallback.log_factors(x).to(own).index_copy(1, self.codebook.finite, own)

    def preceding(self, x: Tensor, order: Sequence[int] | None = None) -> Posterior:
        """Given its parents if all are known and come first, else a column's marginal."""
        book, levels = self.codebook, self.codebook.levels
        assert order is not None
        place = {j: i for i, j in enumerate(order)}
        rank = index_tensor(tuple(place[j] for j in book.place), str(book.device))  # (C',)
        late = ((self._stride > 0) & (rank[self._above] > rank)).any(0)
        at, unsure = self._rows_of_tables(x[:, book.finite])
        # gather and index_select: an eighth of the time
        column = levels.level_column.expand(len(x), -1)
        place = at.gather(1, column) + levels.level_code
        logits = self.log_probs.index_select(0, place.flatten()).view(place.shape)
        if any_true(alone := unsure | late):
            logits = torch.where(alone.gather(1, column), self._alone(), logits)
        return self._with_others(logits)

    @torch.no_grad()
    def complete(self, x: Tensor, n_draws: int, salt: int) -> Tensor:
        """Columns are summed out, then drawn in the reverse order."""
        book, out = self.codebook, x.repeat_interleave(n_draws, 0)
        path = torch.arange(n_draws, device=x.device).repeat(len(x))
        noise, step = RowNoise(out, path, salt), max(BLOCK, self._step)
        finite = book.finite.tolist()
        for start in range(0, len(x), step):
            rows = x[start : start + step]
            kept: list[tuple[int, list[Factor]]] = []
            self._log_mass(self._certain(filled(rows)[:, book.finite]), kept=kept)
            these = slice(start * n_draws, (start + len(rows)) * n_draws)
            row = torch.arange(len(rows), device=x.device).repeat_interleave(n_draws)
            codes: dict[int, Tensor] = {}
            for j, factors in reversed(kept):
                logits = _at_codes(factors[0], j, codes, row)
                for factor in factors[1:]:
                    logits = logits + _at_codes(factor, j, codes, row)
                u = noise.uniform(finite[j], 1)[these, 0]
                codes[j] = chosen(logits.double(), u)
                out[these, finite[j]] = codes[j].double()
        if self.fallback is not None:
            others = self.fallback.marginals()
            for j in set(range(book.n_columns)) - set(finite):
                rows = torch.nonzero(out[:, j].isnan()).flatten()
                u, v = noise.uniform(j, 2)[rows].unbind(1)
                out[rows, j] = others.expand(len(rows)).at_uniform(j, u, v)
        return out.unflatten(0, (len(x), n_draws))

    def natural_order(self, generator: torch.Generator) -> list[int]:
        """Parents first."""
        finite = self.codebook.finite.tolist()
        above: list[set[int]] = [set() for _ in self.codebook.columns]
        for j, own in zip(finite, self.parents, strict=True):
            above[j] = {finite[p] for p in own}
        waiting = torch.randperm(len(above), generator=generator, device=generator.device).tolist()
        order: list[int] = []
        while waiting:
            ready = next(j for j in waiting if above[j].issubset(order))
            order.append(ready)
            waiting.remove(ready)
        return order

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        book, levels = self.codebook, self.codebook.levels
        codes = torch.zeros(n, levels.n_columns, dtype=torch.int64, device=book.device)
        tables = self.log_tables
        for j in parents_first(self.parents):
            cdf = cumulative(tables[j][..., : levels.columns[j].n_levels])
            above = tuple(codes[:, p] for p in self.parents[j])
            codes[:, j] = inverse_cdf(cdf[above] if above else cdf.expand(n, -1), generator)
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
        x_valid: Tensor | None = None,
        most_parents: int = 5,
        most_table: int = 1 << 13,
        most_pair: int = 0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Fit a graph by hill climbing, or the best tree if a column has one parent at most, and its tables.

        Parameters
        ----------
        marginals : MarginalDenoiser
            Independent columns of the same rows, the prior of the tables.
        x : Tensor of float64, shape (N, C)
            Rows; NaN where a cell is missing. A column and its parents are counted in the rows that have all of them.
        x_valid : Tensor, shape (N', C), optional
            Held-out rows to choose the penalty of edges and the start of the search (no edges or a tree); by default,
            the penalty of Schwarz's Bayesian criterion.
        most_table : int
            Floats of the largest table of an elimination.
        most_pair : int
            The same of a table of two columns, if that is more.
        is_over : callable
            Whether the search must end with its current graph.
        """
        book = marginals.codebook
        cells = x[:, book.finite].cpu().numpy()
        sizes = book.levels.cardinalities
        spread = book.levels.spread(marginals.log_probs.exp()[None], 0.0)[0].cpu().double().numpy()
        alone = [spread[j, :k] for j, k in enumerate(sizes)]
        fallback = marginals if len(book.finite) < book.n_columns else None
        counted = Counted(cells[:SEARCH_ROWS], sizes)
        search = Search(counted, most_parents, most_table, most_pair, is_over)
        penalties = PENALTIES if x_valid is not None else PENALTIES[:1]
        if most_parents == 1:  # for which no search is needed
            graphs = [(search.tree(penalty), None) for penalty in penalties]
        else:
            graphs = [*search.climb(penalties)]
            if x_valid is not None and not is_over():
                tree = search.tree(penalties[-1])
                graphs += [(tree, None), *search.climb(penalties, tree)]
        orders = {tuple(graph): order for graph, order in graphs}
        families = {(*above, j) for graph in orders for j, above in enumerate(graph)}
        nested = nested_counts(cells, sizes, families)
        tables = {
            (*above, j): torch.from_numpy(smoothed_table(counts, alone[j])).to(x.device)
            for (*above, j), counts in nested.items()
        }
        fits = [
            cls(
                book,
                graph,
                with_unseen([tables[*above, j] for j, above in enumerate(graph)], marginals),
                fallback,
                order,
            )
            for graph, order in orders.items()
        ]
        if x_valid is None:
            return fits[0]
        return min(fits, key=lambda net: held_out_nats(net, x_valid))


def with_unseen(tables: Sequence[Tensor], marginals: MarginalDenoiser) -> list[Tensor]:
    """Tables (..., K) in which unseen categories keep their marginal probability: see :meth:`Levels.with_unseen`."""
    levels, out = marginals.codebook.levels, list(tables)
    for j, c in enumerate(levels.columns):
        if c.open:
            alone = marginals.log_probs[levels.own(j)].to(tables[j]).exp()
            seen = tables[j][..., :-1]
            # positive if none was seen
            seen = seen * (alone[:-1].sum() / seen.sum(-1, keepdim=True))
            out[j] = torch.cat([seen, alone[-1].expand_as(seen[..., :1])], -1)
    return out


Factor = tuple[tuple[int, ...], Tensor]  # columns, and a table (K of each, B or 1) of logarithms


def _shares(values: Tensor, weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest of the ``values`` of positive ``weight``, and the weighted exponentials in units of its own.

    Linear in the weights, so that a weight of 0 has a derivative; that is finite in any message.
    """
    most = values.detach().masked_fill(weight == 0, -torch.inf).amax(dim, keepdim=True)
    farthest = 0.28 * math.log(torch.finfo(values.dtype).max)
    return most, weight * (values - most).clamp_max(farthest).exp()


def _at_codes(factor: Factor, j: int, codes: dict[int, Tensor], row: Tensor) -> Tensor:
    """A factor at rows (n,) of the batch and codes of all its columns but j: (n, K)."""
    own, values = factor
    others = [codes[i] for i in own if i != j]
    return values.movedim(own.index(j), -1)[
        (*others, row if values.shape[-1] > 1 else torch.zeros_like(row))
    ]


def _aligned(own: tuple[int, ...], values: Tensor, scope: tuple[int, ...]) -> Tensor:
    """A factor (K, ..., B or 1) over the columns ``own`` with one axis for each column of ``scope``."""
    order = sorted(range(len(own)), key=lambda i: scope.index(own[i]))
    values = values.permute(*order, -1)
    sizes = iter(values.shape)
    return values.reshape(*(next(sizes) if j in own else 1 for j in scope), -1)


# -- tables ----------------------------------------------------------------------------------------


def family_counts(
    columns: NDArray[np.int64], sizes: Sequence[int], family: Sequence[int]
) -> NDArray[np.float64]:
    """Counts of each combination of a family's categories in :func:`coded` rows without gaps among them."""
    code, shape = family_codes(columns, sizes, family), [sizes[j] for j in family]
    return np.bincount(code, minlength=math.prod(shape)).astype(float).reshape(shape)


def nested_counts(
    cells: NDArray[np.float64], sizes: Sequence[int], families: Iterable[Sequence[int]]
) -> dict[tuple[int, ...], list[NDArray[np.float64]]]:
    """For each family, counts in rows (N, C) of its last column with the first of the others, the first two, to all."""
    nested = {
        (*above, j): [(*above[:n], j) for n in range(1, len(above) + 1)] for *above, j in families
    }
    columns = coded(cells)
    total = {f: family_counts(columns, sizes, f) for own in nested.values() for f in own}
    return {family: [total[f] for f in own] for family, own in nested.items()}


def smoothed_table(
    counts: Sequence[NDArray[np.float64]], alone: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probabilities of a column given its parents, smoothed by those given fewer.

    ``counts`` are from :func:`nested_counts`, ``alone`` (K,) are the marginal probabilities. Each step has the
    pseudo-count of ``STRENGTHS`` by which every row is likeliest given all others.
    """
    table = alone / alone.sum()
    for count in counts:
        rows, before, seen = count.sum(-1, keepdims=True), table[..., None, :], count > 0
        n, n_rows, p_before = (np.broadcast_to(t, count.shape)[seen] for t in (count, rows, before))
        nats, strengths = np.zeros(len(STRENGTHS)), np.array(STRENGTHS)[:, None]
        for k in range(0, len(n), 4096):
            part = slice(k, k + 4096)
            p = (n[part] - 1 + strengths * p_before[part]) / np.maximum(
                n_rows[part] - 1 + strengths, strengths
            )
            nats -= (n[part] * np.log(p)).sum(1)
        strength = STRENGTHS[int(nats.argmin())]
        table = (count + strength * before) / (rows + strength)
    return np.maximum(table, 1e-12)
