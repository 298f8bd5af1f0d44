r"""One-hot groups: an exact denoiser of a table from one of the table in which each group is a single column.

Tables often encode a categorical column as one binary column per category, of which one is "on" in each row. A model
whose columns are independent given a hidden class or a parent represents such a group poorly. In the *merged* table,
each group is one column whose categories are the patterns of the group, and the same models fit well.

The evidence (2) of a pattern is the sum of that of its cells. The merged column has one more category, "other", for all
remaining patterns; given it, the cells of the group are independent. With q' the posterior of the merged column and a
marginal probability m,

.. math:: q_{jk} = \sum_{p:\, p_j = k} q'_p + q'_{other}\, m_{jk} e^{\ell_{jk}} \big/ \sum_l m_{jl} e^{\ell_{jl}}.

This is exact, and a normalised mass over all rows of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import index_tensor
from discrete_itd.channel.levels import KNOWN_NATS
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.ancestral import beside_fallback, drawable, factors_beside
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Tensors,
    finite_log,
    row_product,
    with_codebook,
)
from discrete_itd.denoisers.counts import indicators
from discrete_itd.denoisers.marginal import MarginalDenoiser, fallback_log_prob
from discrete_itd.denoisers.one_hot_groups import OneHotGroups

# evidence of an excluded category: finite, so that differences are no NaN
NOWHERE = -4 * KNOWN_NATS


class OneHotDenoiser(Denoiser):
    """Exact for a table with one-hot groups, given an exact denoiser of the merged table.

    Parameters
    ----------
    groups : OneHotGroups
    inner : Denoiser
        Exact, of the codebook of the merged table.
    fallback : MarginalDenoiser
        Independent columns of the table: for patterns that are not categories of a merged column, and for
        continuous and high-cardinality columns.

    Raises
    ------
    ValueError
        If ``inner`` is not exact or not a denoiser of the merged table.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> groups = OneHotGroups(book, [[0, 1]], [[[1, 0], [0, 1]]])
    >>> from discrete_itd.denoisers import MarginalDenoiser
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> fallback = MarginalDenoiser.fit(book, x)
    >>> denoiser = OneHotDenoiser(groups, groups.marginals(fallback, groups.encode(x)), fallback)
    >>> denoiser.log_prob(x[:1]).exp() > fallback.log_prob(x[:1]).exp()
    tensor([True])
    """

    exact = True
    _implies: Tensor
    _membership: Tensor
    _other_level: Tensor
    _same: Tensor

    def __init__(self, groups: OneHotGroups, inner: Denoiser, fallback: MarginalDenoiser) -> None:
        super().__init__(fallback.codebook)
        if not inner.exact or inner.codebook.columns != groups.codebook.columns:
            raise ValueError("inner must be an exact denoiser of the merged table")
        self.groups, self.inner, self.fallback = groups, inner, fallback
        self.ancestral = inner.ancestral
        for name in ("implies", "membership", "other_level"):
            self.register_buffer(f"_{name}", getattr(groups, name), persistent=False)
        self._make_places()

    def _make_places(self) -> None:
        """The levels of every column of both tables, and the level of the merged table that each one is."""
        levels, merged = self.codebook.levels, self.groups.codebook.levels
        kept = {f"_own_{j}": levels.level_column == j for j in range(levels.n_columns)}
        kept |= {f"_merged_{i}": merged.level_column == i for i in range(merged.n_columns)}
        kept = {name: torch.nonzero(where).flatten() for name, where in kept.items()}
        # beyond the groups, each level is one of the merged table
        kept["_same"] = self._implies.argmax(1)
        for name, places in kept.items():
            self.register_buffer(name, places, persistent=False)

    def config(self) -> dict[str, Any]:
        return {
            "groups": self.groups.groups,
            "patterns": self.groups.patterns,
            "inner": self.inner,
            "fallback": self.fallback,
        }

    @classmethod
    def from_config(
        cls,
        config: Config,
        codebook: Codebook,
        tensors: Tensors,  # noqa: ARG003 - all of them are those of its parts
    ) -> Self:
        groups = OneHotGroups(codebook, config["groups"], config["patterns"])
        inner = with_codebook(config["inner"], groups.codebook)
        return cls(groups, inner, with_codebook(config["fallback"], codebook))

    @property
    def work(self) -> int:
        """The inner denoiser's count of operations per row; 0 if it has none."""
        return getattr(self.inner, "work", 0)

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.codebook.levels
        ell = levels.log_softmax(evidence)  # what is known has 0
        log_mass, logits = self.inner.infer(self._merged(ell))
        q = self.inner.codebook.levels.log_softmax(logits).exp()
        alone = levels.log_softmax(self.fallback.log_probs + ell).exp()
        own = row_product(q[:, self._other_level], self._membership.T)
        q = row_product(q, self._implies.T) + levels.per_level(own) * alone
        log_mass = log_mass + levels.logsumexp(evidence).sum(1)
        return log_mass, finite_log(q)

    def _merged(self, evidence: Tensor) -> Tensor:
        """Evidence about the merged table: (B, T) to (B, T')."""
        out = row_product(evidence, self._implies)
        own = self.codebook.levels.logsumexp(self.fallback.log_probs + evidence)
        out[:, self._other_level] = row_product(own, self._membership)
        return out

    def _evidence(self, x: Tensor) -> Tensor:
        """What rows ``x`` (B, C) say of the merged table: (B, T')."""
        book = self.codebook
        missing = x[:, book.finite].isnan().to(book.dtype)
        possible = indicators(book, x) + book.levels.per_level(missing)
        return self._merged(NOWHERE * (1 - possible))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        book = self.codebook
        log_mass, _ = self.inner.infer(self._evidence(x))
        return log_mass + fallback_log_prob(self.fallback, x, book.finite)

    def _within(
        self, i: int, logits: Tensor, cells: Tensor, members: Sequence[int]
    ) -> list[Tensor]:
        """Distributions of the columns of a group one after the other, each given those before it.

        Parameters
        ----------
        i : int
            The group.
        logits : Tensor, shape (B, T')
            Of the merged table, given what is known besides the group.
        cells : Tensor, shape (B, C)
            NaN where a cell is not known.
        members : sequence of int
            The columns of the group in their order.

        Returns
        -------
        list of Tensor, shape (B, K_j), nats
        """
        merged = getattr(self, f"_merged_{i}")
        log_w, out = logits[:, merged], []  # of the patterns, and of "other"
        for j in members:
            levels = getattr(self, f"_own_{j}")
            table = self._implies[levels][:, merged].T.contiguous()
            is_other = (merged == self._other_level[i])[:, None]
            table = torch.where(is_other, self.fallback.log_probs[levels].exp(), table)
            out.append(finite_log(row_product(torch.softmax(log_w, 1), table)))
            known = cells[:, j]
            told = table.log().clamp_min(NOWHERE).T[known.nan_to_num(0.0).long()]
            log_w = log_w + told.masked_fill(known.isnan()[:, None], 0.0)
        return out

    def log_factors(self, x: Tensor) -> Tensor:
        """As the base class has it: one inference for each column of the merged table, not of the table."""
        book, finite = self.codebook, [*self.codebook.place]
        leading = book.leading_columns
        groups = list(enumerate([*self.groups.groups, *((j,) for j in self.groups.others)]))
        groups.sort(key=lambda pair: not all(finite[j] in leading for j in pair[1]))
        cells = x[:, book.finite]
        codes = cells.nan_to_num(0.0).long()
        seen, out = torch.full_like(x, torch.nan), torch.zeros_like(cells, dtype=book.dtype)
        for i, group in groups:
            q = self.inner.codebook.levels.log_softmax(self.inner.infer(self._evidence(seen))[1])
            if i < len(self.groups.groups):
                told = self._within(i, q, cells, group)
            else:
                told = [q[:, getattr(self, f"_merged_{i}")]]
            for j, log_p in zip(group, told, strict=True):
                out[:, j] = log_p.gather(1, codes[:, j, None])[:, 0]
            for j in group:
                seen[:, finite[j]] = x[:, finite[j]]
        out = factors_beside(x, out, self.fallback)
        return out.masked_fill(x.isnan(), 0.0)

    def preceding(self, x: Tensor, order: Tensor) -> Posterior:
        """As the base class has it, by that of the merged table.

        A group's columns come one after the other, each given the patterns that agree with those before it. To other
        columns a group is known if its columns lie together in the order. A group with one of its patterns counts as
        that category, though "other" leaves a chance of these cells as well.
        """
        groups, merged = self.groups.groups, self.groups.encode(x)
        at = {j: i for i, j in enumerate(order.tolist())}
        place = [at[j] for j in self.codebook.place]
        first = [min(place[j] for j in g) for g in groups] + [place[j] for j in self.groups.others]
        for i, group in enumerate(groups):
            if max(place[j] for j in group) - first[i] >= len(group):
                merged[:, i] = torch.nan
        by_first = index_tensor(tuple(sorted(range(len(first)), key=first.__getitem__)), "cpu")
        q = self.inner.preceding(merged, by_first).categorical.logits
        logits, cells = q[:, self._same], x[:, self.codebook.finite]
        for i, group in enumerate(groups):
            members = sorted(group, key=lambda j: place[j])
            for j, log_p in zip(members, self._within(i, q, cells, members), strict=True):
                logits[:, getattr(self, f"_own_{j}")] = log_p
        logits = self.codebook.levels.log_softmax(logits)
        return beside_fallback(self.codebook, logits, self.fallback)

    def natural_order(self, generator: torch.Generator) -> Tensor:
        """As the base class has it: in an order of the merged table, in which others are scattered."""
        book, finite = self.codebook, self.codebook.finite.tolist()
        columns = [*self.groups.groups, *((j,) for j in self.groups.others)]
        order = [
            [finite[j] for j in columns[i]] for i in self.inner.natural_order(generator).tolist()
        ]

        def shuffled(n: int) -> list[int]:
            return torch.randperm(n, generator=generator, device=generator.device).tolist()

        others = [j for j in range(book.n_columns) if j not in set(finite)]
        for j in others:
            order.insert(shuffled(len(order) + 1)[0], [j])
        leading = book.leading.tolist()
        flat = [group[i] for group in order for i in shuffled(len(group))]
        return torch.tensor(sorted(flat, key=lambda j: not leading[j]), device=book.device)

    def draw(self, n: int, generator: torch.Generator, *, allowed: Tensor | None = None) -> Tensor:
        book = self.codebook
        may_be = drawable(book.levels, allowed)
        # "other" implies no level
        patterns = ~((self._implies > 0) & ~may_be[:, None]).any(0)
        merged = self.inner.draw(n, generator, allowed=patterns)
        out = self.fallback.draw(n, generator, allowed=allowed)
        for i, (group, ways) in enumerate(self.groups.on(book.device)):
            code, columns = merged[:, i].long(), book.finite[group]
            is_pattern = (code < len(ways))[:, None]
            drawn = ways.to(out)[code.clamp_max(len(ways) - 1)]
            out[:, columns] = torch.where(is_pattern, drawn, out[:, columns])
        others = index_tensor(self.groups.others, str(book.device))
        out[:, book.finite[others]] = merged[:, len(self.groups.groups) :]
        return out
