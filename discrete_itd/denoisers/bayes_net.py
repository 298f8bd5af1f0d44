r"""Bayesian networks: exact denoisers by variable elimination, learned by hill climbing.

Every column depends on a few parents, :math:`P(x) = \prod_j P(x_j \mid x_{pa(j)})`. With evidence
:math:`\ell_{jk}`, eq. (2), about each column, columns are summed out one after the other, which gives
:math:`\log Z = \log \sum_x P(x) \prod_j e^{\ell_{jx_j}}`; its derivative with respect to :math:`\ell_{jk}` is the
posterior :math:`q_{jk}`. So one pass forth and one back give every posterior exactly. What that costs grows with the
largest table on the way, so edges that make it too large are not taken. Tables are kept as logarithms, for known cells
that contradict one another leave less than the smallest float; their last axis is the batch, along which sums are fast.

References
----------
Heckerman, Geiger, Chickering, "Learning Bayesian networks", Machine Learning 20, 1995, for the search. Dechter, "Bucket
elimination", Artificial Intelligence 113, 1999; Darwiche, "A differential approach to inference in Bayesian networks",
JACM 50, 2003, for the derivatives.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.levels import KNOWN_NATS
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Tensors,
    filled,
    rows_at_once,
    with_codebook,
)
from discrete_itd.denoisers.marginal import MarginalDenoiser, check_fallback, fallback_log_prob
from discrete_itd.denoisers.structure_search import (
    Search,
    elimination,
    nested_counts,
    parents_first,
    smoothed_table,
)

CELLS = 1 << 24  # floats of all tables of an elimination, times rows, of one batch
MOST_TABLE = 1 << 13  # floats of the largest table of an elimination in a fit
LARGEST = 1 << 24  # the same for a graph that is given
MOST_PARENTS = 5
SEARCH_ROWS = 100_000  # rows on which edges are scored, at most
PENALTIES = (1.0, 0.5, 0.25)  # multiples of the BIC penalty, compared on held-out rows
# pseudo-counts of the table with fewer parents, compared likewise
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)


class BayesNetDenoiser(Denoiser):
    """Exact for a Bayesian network over the low-cardinality columns.

    Parameters
    ----------
    codebook : Codebook
    parents : sequence of sequences of int, length C
        The parents of every column, counted among the low-cardinality columns.
    tables : sequence of Tensor, shape (K of each parent, ..., K of the column)
        Probabilities of the column's categories given its parents'; positive, normalised here.
    fallback : MarginalDenoiser, optional
        Independent columns, for continuous and high-cardinality columns.

    Raises
    ------
    ValueError
        If the graph has a cycle, tables do not fit, summing columns out takes more memory than there may be, or there
        are other columns and no ``fallback``.

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

    def __init__(
        self,
        codebook: Codebook,
        parents: Sequence[Sequence[int]],
        tables: Sequence[Tensor],
        fallback: MarginalDenoiser | None = None,
    ) -> None:
        super().__init__(codebook)
        check_fallback(codebook, fallback)
        sizes = codebook.levels.cardinalities
        if len(parents) != len(sizes) or len(tables) != len(sizes):
            raise ValueError(f"a graph of {len(sizes)} columns is wanted, got {len(parents)}")
        self.fallback = fallback
        self.parents = tuple(tuple(map(operator.index, p)) for p in parents)
        for j, (above, table) in enumerate(zip(self.parents, tables, strict=True)):
            if not all(0 <= p < len(sizes) for p in above) or len({j, *above}) <= len(above):
                raise ValueError(f"column {j}: parents {above}")
            shape = tuple(sizes[p] for p in (*above, j))
            log_table = torch.log_softmax(table.log(), -1)
            if table.shape != shape or not bool(log_table.isfinite().all()):
                raise ValueError(f"column {j}: its table must be positive and of the shape {shape}")
            self.register_buffer(f"log_table_{j}", log_table.to(codebook.known_snr))
        if len(parents_first(self.parents)) < len(sizes):
            raise ValueError("the graph has a cycle")
        self.order, self.largest, self.work = elimination(self.parents, sizes)
        if self.largest > LARGEST:
            raise ValueError(f"summing columns out takes a table of {self.largest} numbers")

    @property
    def log_tables(self) -> list[Tensor]:
        """Log-probabilities of every column given its parents."""
        return [getattr(self, f"log_table_{j}") for j in range(len(self.parents))]

    def config(self) -> dict[str, Any]:
        return {"parents": [list(above) for above in self.parents], "fallback": self.fallback}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        parents = config["parents"]
        tables = [tensors[f"log_table_{j}"].exp() for j in range(len(parents))]
        return cls(codebook, parents, tables, with_codebook(config["fallback"], codebook))

    def smoothed(self, sd: float) -> BayesNetDenoiser:
        fallback = None if self.fallback is None else self.fallback.smoothed(sd)
        tables = [t.exp() for t in self.log_tables]
        return BayesNetDenoiser(self.codebook, self.parents, tables, fallback)

    @property
    def _step(self) -> int:
        """Rows of one batch."""
        return rows_at_once(CELLS // max(1, self.work))

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._infer(part) for part in evidence.split(self._step)]
        log_mass, logits = zip(*parts, strict=True)
        return torch.cat(log_mass), torch.cat(logits)

    def _infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`infer`, for the rows of one batch."""
        levels = self.codebook.levels
        if not levels.n_columns:
            return evidence.sum(1), evidence
        spread = levels.spread(evidence.detach(), -torch.inf)
        with torch.inference_mode(False), torch.enable_grad():
            top = spread.amax(2, keepdim=True)
            ell = spread - top
            # the other levels of a known cell have probability zero
            ell = ell.masked_fill(ell < -KNOWN_NATS / 2, -torch.inf).permute(1, 2, 0)
            ell = ell.clone(memory_format=torch.contiguous_format).requires_grad_(True)
            log_mass = self._log_mass(ell)
            (q,) = torch.autograd.grad(log_mass.sum(), ell)
        q = levels.gather(q.permute(2, 0, 1))
        log_mass = log_mass.detach() + top.sum((1, 2))
        return log_mass, q.clamp_min(torch.finfo(q.dtype).tiny).log()

    def _log_mass(self, ell: Tensor) -> Tensor:
        """Log-probability of evidence (C, K, B): (B,). Of every column some category has evidence above -inf."""
        factors: list[tuple[tuple[int, ...], Tensor]] = []
        for j, (above, table) in enumerate(zip(self.parents, self.log_tables, strict=True)):
            factors.append(((*above, j), table[..., None]))
            factors.append(((j,), ell[j, : table.shape[-1]]))
        log_mass = ell.new_zeros(ell.shape[2])
        for j in self.order:
            mine = [f for f in factors if j in f[0]]
            factors = [f for f in factors if j not in f[0]]
            scope = (j, *sorted({i for f in mine for i in f[0]} - {j}))
            joint = ell.new_zeros(1)
            for own, values in sorted(mine, key=lambda f: len(f[0])):
                joint = joint + _aligned(own, values, scope)
            left = torch.logsumexp(joint, 0)
            most = left.detach().reshape(math.prod(left.shape[:-1]), -1).amax(0)
            log_mass, left = log_mass + most, left - most  # small numbers keep their digits
            if scope[1:]:
                factors.append((scope[1:], left))
            else:
                log_mass = log_mass + left
        return log_mass

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        book, levels = self.codebook, self.codebook.levels
        cells = x[:, book.finite]
        out = torch.zeros(len(x), dtype=book.dtype, device=x.device)
        whole = ~cells.isnan().any(1)
        rows = cells[whole].long()
        total = out[whole]
        for j, (above, table) in enumerate(zip(self.parents, self.log_tables, strict=True)):
            total = total + table[tuple(rows[:, p] for p in (*above, j))]
        out[whole] = total
        gaps = filled(torch.nonzero(~whole).flatten())
        codes = torch.arange(levels.widest, device=x.device)[:, None]
        for part in gaps.split(self._step) if len(gaps) else ():
            some = cells[part].T[:, None]  # (C, 1, B)
            may_be = (some == codes) | some.isnan()
            out[part] = self._log_mass(torch.where(may_be, 0.0, -torch.inf).to(out))
        return out + fallback_log_prob(self.fallback, x, book.finite)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        marginals: MarginalDenoiser,
        x: Tensor,
        *,
        x_valid: Tensor | None = None,
        most_parents: int = MOST_PARENTS,
        most_table: int = MOST_TABLE,
    ) -> BayesNetDenoiser:
        """The graph that hill climbing finds, and its tables.

        Parameters
        ----------
        marginals : MarginalDenoiser
            Independent columns of the same rows, the prior of the tables.
        x : Tensor of float64, shape (N, C)
            Rows; NaN where a cell is missing. A column and its parents are counted in the rows that have all of them.
        x_valid : Tensor, shape (N', C), optional
            Held-out rows, on which the penalty of edges and the smoothing are chosen; by default, the penalty of the
            Bayesian information criterion (Schwarz) and a pseudo-count of one row.
        most_parents : int
        most_table : int
            Floats of the largest table of an elimination.

        Notes
        -----
        A table is smoothed by that of the same column without its last parent, and so on down to its marginal.
        """
        book = marginals.codebook
        cells = x[:, book.finite].cpu().numpy()
        sizes = book.levels.cardinalities
        spread = book.levels.spread(marginals.log_probs.exp()[None], 0.0)[0].cpu().double().numpy()
        alone = [spread[j, :k] for j, k in enumerate(sizes)]
        fallback = marginals if len(book.finite) < book.n_columns else None
        fits: list[BayesNetDenoiser] = []
        for penalty in PENALTIES if x_valid is not None else PENALTIES[:1]:
            graph = Search(cells[:SEARCH_ROWS], sizes, penalty, most_parents, most_table).climb()
            counts = [nested_counts(cells, sizes, (*above, j)) for j, above in enumerate(graph)]
            for strength in STRENGTHS if x_valid is not None else (1.0,):
                tables = [
                    torch.from_numpy(smoothed_table(own, prior, strength)).to(x.device)
                    for own, prior in zip(counts, alone, strict=True)
                ]
                fits.append(cls(book, graph, tables, fallback))
        if x_valid is None:
            return fits[0]
        return min(fits, key=lambda net: -float(net.log_prob(x_valid).double().mean()))


def _aligned(own: tuple[int, ...], values: Tensor, scope: tuple[int, ...]) -> Tensor:
    """A factor (K, ..., B or 1) over the columns ``own`` with one axis for each column of ``scope``."""
    order = sorted(range(len(own)), key=lambda i: scope.index(own[i]))
    values = values.permute(*order, -1)
    sizes = iter(values.shape)
    return values.reshape(*(next(sizes) if j in own else 1 for j in scope), -1)
