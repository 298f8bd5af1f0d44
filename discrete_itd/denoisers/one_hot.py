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

import math
import operator
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.channel.devices import index_tensor
from discrete_itd.channel.levels import Levels
from discrete_itd.channel.points import KNOWN_NATS
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Tensors,
    drawable,
    finite_log,
    row_product,
    with_codebook,
)
from discrete_itd.denoisers.counts import CellCounts, indicators
from discrete_itd.denoisers.marginal import (
    MarginalDenoiser,
    beside_fallback,
    factors_beside,
    fallback_log_prob,
)

# evidence of an excluded category: finite, so that differences are no NaN
NOWHERE = -4 * KNOWN_NATS
MERGED_LEVELS = 6000  # of a table, and of the merged one: memory grows with their product
DETECTION_ROWS = 20_000  # groups are detected in at most so many rows
# bounds of the search for groups, a second or so each: products of two columns' cells, for which fewer rows of a wide
# table are counted; columns compared for runs; and numbers read for other groups
PRODUCTS, COMPARED, SEARCHED = 1 << 33, 1 << 17, 1 << 30
FEWEST_ROWS = 32  # with fewer, runs of neighbours are not groups
# of the rows, so few may have no column of a group on; and two on, relative to what independent columns have
TOLERANCE = 0.01
SURPRISE = 10.0  # nats by which a group's surprisal must exceed its price: by chance with exp(-10)
# a group is grown from each of so many columns and the best is taken; of more columns, from one
MOST_STARTS = 128


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
        # beyond the groups, each level is one of the merged table
        self.register_buffer("_same", groups.implies.argmax(1), persistent=False)

    def config(self) -> dict[str, Any]:
        groups = {"groups": self.groups.groups, "patterns": self.groups.patterns}
        return groups | {"inner": self.inner, "fallback": self.fallback}

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
        ell = levels.log_softmax(evidence)  # known levels have 0
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
        """Evidence of rows ``x`` (B, C) about the merged table: (B, T')."""
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
        """Distributions (B, K_j), nats, of the columns ``members`` of group i, each given those before it.

        ``logits`` (B, T') are of the merged table, given the known cells outside the group; ``cells`` (B, C) may be
        NaN.
        """
        merged = self.inner.codebook.levels.own(i)
        log_w, out = logits[:, merged], []  # of the patterns, and of "other"
        for j in members:
            levels = self.codebook.levels.own(j)
            patterns = self._implies[levels][:, merged][:, :-1].T
            table = torch.cat([patterns, self.fallback.log_probs[levels].exp()[None]])  # of "other"
            out.append(finite_log(row_product(torch.softmax(log_w, 1), table)))
            known = cells[:, j]
            fit = table.log().clamp_min(NOWHERE).T[known.nan_to_num(0.0).long()]
            log_w = log_w + fit.masked_fill(known.isnan()[:, None], 0.0)
        return out

    def log_factors(self, x: Tensor) -> Tensor:
        """One inference for each column of the merged table, not of the table."""
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
                factors = self._within(i, q, cells, group)
            else:
                factors = [q[:, self.inner.codebook.levels.own(i)]]
            for j, log_p in zip(group, factors, strict=True):
                out[:, j] = log_p.gather(1, codes[:, j, None])[:, 0]
            for j in group:
                seen[:, finite[j]] = x[:, finite[j]]
        out = factors_beside(x, out, self.fallback)
        return out.masked_fill(x.isnan(), 0.0)

    def preceding(self, x: Tensor, order: Tensor) -> Posterior:
        """By the inner denoiser's :meth:`preceding` of the merged table.

        A group's columns come one after the other. To other columns a group is known if its columns lie together in the
        order. A group with one of its patterns counts as that category, though "other" leaves a chance of these cells
        as well.
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
                logits[:, self.codebook.levels.own(j)] = log_p
        logits = self.codebook.levels.log_softmax(logits)
        return beside_fallback(self.codebook, logits, self.fallback)

    def natural_order(self, generator: torch.Generator) -> Tensor:
        """An order of the merged table, among which the columns outside of it are scattered."""
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
        for i, (group, ways, _) in enumerate(self.groups.on(book.device)):
            code, columns = merged[:, i].long(), book.finite[group]
            is_pattern = (code < len(ways))[:, None]
            drawn = ways.to(out)[code.clamp_max(len(ways) - 1)]
            out[:, columns] = torch.where(is_pattern, drawn, out[:, columns])
        others = index_tensor(self.groups.others, str(book.device))
        out[:, book.finite[others]] = merged[:, len(self.groups.groups) :]
        return out


class OneHotGroups:
    """The one-hot groups of a table, and the merged table.

    Parameters
    ----------
    codebook : Codebook
        Of the table.
    groups : sequence of sequences of int
        The columns of each group, counted among the low-cardinality ones; no column twice.
    patterns : sequence of sequences of sequences of int
        For each group, the patterns that are categories of the merged column: a code for each of the group's columns.

    Attributes
    ----------
    table : Codebook
        Of the table.
    codebook : Codebook
        Of the merged table: the merged columns, then the other low-cardinality columns.
    implies : Tensor, shape (T, T')
        1 where a level of the merged table implies a level of the table.
    membership : Tensor, shape (C, G)
        1 where a low-cardinality column is in a group.
    other_level : Tensor of int64, shape (G,)
        The level "other" of each merged column.

    Raises
    ------
    ValueError
        If groups overlap, patterns do not fit them, or there are too many categories.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> groups = OneHotGroups(book, [[0, 1]], [[[1, 0], [0, 1]]])
    >>> groups.encode(torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64))
    tensor([[1.],
            [2.]], dtype=torch.float64)
    """

    def __init__(
        self,
        codebook: Codebook,
        groups: Sequence[Sequence[int]],
        patterns: Sequence[Sequence[Sequence[int]]],
    ) -> None:
        levels, device = codebook.levels, codebook.device
        self.table = codebook
        index = operator.index
        self.groups = tuple(tuple(map(index, g)) for g in groups)
        self.patterns = tuple(tuple(tuple(map(index, p)) for p in group) for group in patterns)
        among = [j for g in self.groups for j in g]
        if len(set(among)) < len(among) or not all(0 <= j < levels.n_columns for j in among):
            raise ValueError(f"groups must not share columns, got {self.groups}")
        if len(self.patterns) != len(self.groups):
            raise ValueError("every group needs its patterns")
        sizes = levels.cardinalities
        for group, own in zip(self.groups, self.patterns, strict=True):
            fits = all(
                len(p) == len(group)
                and all(0 <= k < sizes[j] for j, k in zip(group, p, strict=True))
                for p in own
            )
            if not own or not fits or len(set(own)) < len(own):
                raise ValueError(f"the patterns of columns {group} do not fit them: {own}")
        self.others = tuple(j for j in range(levels.n_columns) if j not in set(among))
        columns = [ColumnPoints("simplex", len(own), open=True) for own in self.patterns]
        for j in self.others:
            points = levels.columns[j]
            columns.append(ColumnPoints("simplex", points.n_levels, open=points.open))
        self.codebook = merged = Codebook(columns).to(device, codebook.dtype)

        if max(levels.n_points, merged.levels.n_points) > MERGED_LEVELS:
            raise ValueError(f"a table with one-hot groups has at most {MERGED_LEVELS} categories")
        # which levels of the table each level of the merged one implies
        here, there = _level_numbers(levels), _level_numbers(merged.levels)  # (K, C), (K, C')
        implies = torch.zeros(levels.n_points, merged.levels.n_points, dtype=codebook.dtype)
        for i, (group, own) in enumerate(zip(self.groups, self.patterns, strict=True)):
            for p, pattern in enumerate(own):
                implies[here[list(pattern), list(group)], there[p, i]] = 1.0
        for i, j in enumerate(self.others, len(self.groups)):
            implies[here[: sizes[j], j], there[: sizes[j], i]] = 1.0
        membership = torch.zeros(levels.n_columns, len(self.groups), dtype=codebook.dtype)
        for i, group in enumerate(self.groups):
            membership[list(group), i] = 1.0
        other = [int(there[len(own), i]) for i, own in enumerate(self.patterns)]
        self.implies, self.membership = implies.to(device), membership.to(device)
        self.other_level = torch.tensor(other, dtype=torch.int64, device=device)
        self._on: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def on(self, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Columns (K,), patterns (P, K) and keys of codes (K,) of each group, int64, copied once to each device."""
        if str(device) not in self._on:
            generator = torch.Generator().manual_seed(0)
            self._on[str(device)] = [
                (
                    torch.tensor(group, device=device),
                    torch.tensor(own, device=device),
                    # sums of integers, which wrap around, tell patterns apart
                    torch.randint(2**62, (len(group),), generator=generator).to(device),
                )
                for group, own in zip(self.groups, self.patterns, strict=True)
            ]
        return self._on[str(device)]

    def encode(self, x: Tensor) -> Tensor:
        """Rows (N, C) as rows of the merged table (N, C'); NaN where a cell of a group is missing."""
        x = x[:, self.table.finite]
        out = x.new_empty(len(x), self.codebook.n_columns)
        for i, (group, ways, key) in enumerate(self.on(x.device)):
            cells = x[:, group]
            codes = cells.nan_to_num(0.0).long()
            same = (codes * key).sum(1, keepdim=True) == (ways * key).sum(1)  # (N, P)
            own = torch.where(same.any(1), same.long().argmax(1), len(ways)).to(x)
            out[:, i] = own.masked_fill(cells.isnan().any(1), torch.nan)
        out[:, len(self.groups) :] = x[:, index_tensor(self.others, str(x.device))]
        return out

    def marginals(
        self, marginals: MarginalDenoiser, x: Tensor, counts: CellCounts | None = None
    ) -> MarginalDenoiser:
        """Independent columns of the merged table, from its rows ``x`` (N, C') and the ``marginals`` of the table.

        ``counts`` are those of all rows, if ``x`` is a sample.
        """
        counted = MarginalDenoiser.fit(self.codebook, x, counts=counts).log_probs.exp()
        same = self.codebook.levels.level_column >= len(self.groups)
        probs = torch.where(same, marginals.log_probs.exp() @ self.implies, counted)
        return MarginalDenoiser(self.codebook, probs)

    @classmethod
    def detect(cls, codebook: Codebook, x: Tensor) -> OneHotGroups | None:
        """The one-hot groups in rows ``x`` (N, C); None if there are none."""
        if codebook.levels.n_points > MERGED_LEVELS:
            return None
        groups, patterns = [], []
        for group, on in exclusive_groups(codebook, x):
            off = [1 - on] * len(group)
            ways = [[*off[:i], on, *off[i + 1 :]] for i in range(len(group))]
            cells = x[:, codebook.finite[list(group)]]
            if bool((cells == 1 - on).all(1).any()):
                ways.append(off)
            groups.append(group)
            patterns.append(ways)
        return cls(codebook, groups, patterns) if groups else None


def _level_numbers(levels: Levels) -> Tensor:
    """The level of every category of every column: (K, C), on the CPU; meaningless beyond a column's last category."""
    codes = torch.arange(levels.widest, device=levels.known_snr.device)[:, None]
    return levels.index_of(codes.expand(-1, levels.n_columns)).cpu()


def exclusive_groups(codebook: Codebook, x: Tensor) -> list[tuple[tuple[int, ...], int]]:
    """Groups of binary columns of which hardly any row has more than one "on", and which category is "on".

    Columns are counted among the low-cardinality ones, increasing, in rows ``x`` (N, C), NaN where a cell is missing.

    "On" is the second of a column's categories; for columns that are in no group then, the first. The search begins
    with runs of neighbouring columns of which exactly one is on in almost every row. Among the others, a group starts
    with one column and grows by the column that has the largest surprisal of never being on together with the group, if
    columns were independent. Every column after the second needs a surprisal above the logarithm of the number of
    columns, the price of a choice among them, and the group as a whole one above all these prices by ``SURPRISE`` nats.
    """
    two = torch.tensor([c.n_levels == 2 for c in codebook.levels.columns], dtype=torch.bool)
    columns = torch.nonzero(two).flatten()
    n_rows = min(DETECTION_ROWS, PRODUCTS // max(1, len(columns)) ** 2)
    cells = x[:n_rows, codebook.finite[columns.to(x.device)]].cpu()
    groups: list[tuple[tuple[int, ...], int]] = []
    left = torch.ones(len(columns), dtype=torch.bool)
    for value in (1, 0):
        if int(left.sum()) < 2:
            break
        share, never, surprise = _exclusions(cells, value)
        found = _runs(share, never, left) if len(cells) >= FEWEST_ROWS else []
        found += _cliques(surprise, never, left)
        groups += [(tuple(sorted(columns[group].tolist())), value) for group in found]
    return groups


def _exclusions(cells: Tensor, value: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of columns of ``cells`` (N, C), of which one ``value`` is "on", in the rows that have the cells: three tensors.

    The share of rows with each on, (C,); which pairs are never on together, or in few rows, (C, C); for these, minus
    the logarithm of the Poisson probability of so few rows if columns were independent, (C, C), nats.
    """
    on, there = (cells == value).float(), (~cells.isnan()).float()
    pairs = (on, on), (there, there), (on, there)
    together, both, first = ((a.T @ b).double() for a, b in pairs)
    expected = first * first.T / both.clamp_min(1)
    few = together <= (TOLERANCE * torch.minimum(first, first.T)).clamp_min(1)
    few &= 4 * together <= expected
    never = ((together == 0) | few) & (both > 0)
    never.fill_diagonal_(False)
    excess = torch.special.xlogy(together, together / expected.clamp_min(1e-9))
    surprise = torch.where(never, expected - together + excess, 0.0)
    return together.diagonal() / both.diagonal().clamp_min(1), never, surprise


def _runs(share: Tensor, never: Tensor, left: Tensor) -> list[list[int]]:
    """Runs of neighbouring columns of which exactly one is on in almost every row; not ``left`` then."""
    columns, shares, runs, start = torch.nonzero(left).flatten().tolist(), share.tolist(), [], 0
    n_compared = 0
    while start < len(columns) and n_compared < COMPARED:
        run, covered = [], 0.0  # share of the rows in which a column of the run is on
        for j in columns[start:] if shares[columns[start]] else ():
            full = covered >= 1 - 1e-9 or covered + shares[j] > 1 + TOLERANCE / 10
            if full or not bool(never[j, run].all()):
                break
            run.append(j)
            covered += shares[j]
        n_compared += len(run)
        is_group = len(run) > 1 and covered >= 1 - TOLERANCE
        if is_group:
            runs.append(run)
            left[run] = False
        start += len(run) if is_group else 1
    return runs


def _cliques(surprise: Tensor, never: Tensor, left: Tensor) -> list[list[int]]:
    """Groups of columns no two of which are on together; not ``left`` then."""
    price = math.log(max(2, int(left.sum())))  # nats of a choice among the columns
    groups, n_read = [], 0
    while bool(left.any()) and n_read < SEARCHED:
        total = (surprise * left).sum(1).masked_fill(~left, 0.0)
        starts = torch.nonzero(total > SURPRISE).flatten()
        if len(starts) > MOST_STARTS:
            starts = total.argmax()[None]
        may = never & left
        grown = [_clique(start, surprise, may, price) for start in starts.tolist()]
        n_read += may.numel() + len(left) * sum(len(group) for _, group in grown)
        worth, best = max(grown, default=(0.0, []))
        if worth < SURPRISE:
            break
        groups.append(best)
        left[best] = False
    return groups


def _clique(start: int, surprise: Tensor, may: Tensor, price: float) -> tuple[float, list[int]]:
    """The group grown from one column, and the nats by which its surprisal exceeds its price."""
    group, worth, gain, free = [start], -price, surprise[start], may[start]
    while bool(free.any()):
        score = gain.masked_fill(~free, -1.0)
        j = int(score.argmax())
        # the first pair is exempt: in a large group it need not be improbable
        if score[j] < price and len(group) > 1:
            break
        group.append(j)
        worth += float(score[j]) - price
        free, gain = free & may[j], gain + surprise[j]
    return worth, group
