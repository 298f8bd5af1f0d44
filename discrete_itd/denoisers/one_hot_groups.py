"""The one-hot groups of a table, and the merged table in which each group is one column."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.channel.devices import index_tensor
from discrete_itd.channel.levels import Levels
from discrete_itd.denoisers.counts import CellCounts
from discrete_itd.denoisers.exclusion import exclusive_groups
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.denoisers.patterns import match_patterns

MOST_LEVELS = 6000  # categories of a table and of the merged one: memory grows with their product


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

        if max(levels.n_points, merged.levels.n_points) > MOST_LEVELS:
            raise ValueError(f"a table with one-hot groups has at most {MOST_LEVELS} categories")
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
        self._on: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def on(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Columns (K,) and patterns (P, K) of each group, int64, copied once to each device."""
        if str(device) not in self._on:
            pairs = zip(self.groups, self.patterns, strict=True)
            self._on[str(device)] = [
                (torch.tensor(group, device=device), torch.tensor(own, device=device))
                for group, own in pairs
            ]
        return self._on[str(device)]

    def encode(self, x: Tensor) -> Tensor:
        """Rows (N, C) as rows of the merged table (N, C'); NaN where a cell of a group is missing."""
        x = x[:, self.table.finite]
        out = x.new_empty(len(x), self.codebook.n_columns)
        for i, (group, ways) in enumerate(self.on(x.device)):
            cells = x[:, group]
            codes = cells.nan_to_num(0.0).long()
            own = match_patterns(codes, ways).to(x)
            out[:, i] = own.masked_fill(cells.isnan().any(1), torch.nan)
        out[:, len(self.groups) :] = x[:, index_tensor(self.others, str(x.device))]
        return out

    def marginals(
        self, marginals: MarginalDenoiser, x: Tensor, counts: CellCounts | None = None
    ) -> MarginalDenoiser:
        """Independent columns of the merged table, from its rows ``x`` (N, C') and the ``marginals`` of the table.

        Columns outside the groups keep their marginal probabilities. ``counts``: of all rows, if ``x`` is a sample.
        """
        counted = MarginalDenoiser.fit(self.codebook, x, counts=counts).log_probs.exp()
        same = self.codebook.levels.level_column >= len(self.groups)
        probs = torch.where(same, marginals.log_probs.exp() @ self.implies, counted)
        return MarginalDenoiser(self.codebook, probs)

    @classmethod
    def detect(cls, codebook: Codebook, x: Tensor) -> OneHotGroups | None:
        """The one-hot groups in rows ``x`` (N, C); None if there are none."""
        if codebook.levels.n_points > MOST_LEVELS:
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
    """The level of every category of every column: (K, C), on the CPU; beyond a column's last, of no meaning."""
    codes = torch.arange(levels.widest, device=levels.known_snr.device)[:, None]
    return levels.index_of(codes.expand(-1, levels.n_columns)).cpu()
