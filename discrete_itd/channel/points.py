"""The points of one column, and the order in which the levels of many columns are stored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from discrete_itd.channel.rounded_numbers import NumberLine

VERTEX = 1 / math.sqrt(2)  # ‖e_k − e_l‖ = 1 for two vertices of the simplex
CATEGORY_MAJOR_UP_TO = 32  # levels; measured by tests.benchmarks.segments
KNOWN_NATS = 1000.0  # log-odds of a known cell against the nearest other level: exp(-1000) = 0
REAL_KNOWN_SNR = 1e10  # an error of 1e-5: finer than any density that can be learned


@dataclass(frozen=True)
class ColumnPoints:
    """The points of one column.

    Parameters
    ----------
    kind : {"simplex", "line", "real"}
        How the categories are placed. A real column has the real line itself and no categories.
    n_levels : int
        Number of categories, the unseen one not counted; 0 for a real column.
    open : bool
        Whether a last level stands for categories never seen.
    levels : tuple of float
        Coordinates of the categories on the line, strictly increasing; empty for other kinds.
    line : NumberLine
        How the numbers of a real column were recorded, by default as points.

    Examples
    --------
    >>> ColumnPoints("line", 3, levels=(-0.7, 0.0, 0.7)).n_points, ColumnPoints("simplex", 2, open=True).n_points
    (3, 3)
    """

    kind: Literal["simplex", "line", "real"]
    n_levels: int = 0
    open: bool = False
    levels: tuple[float, ...] = ()
    line: NumberLine = field(default_factory=NumberLine)

    def __post_init__(self) -> None:
        if self.kind == "real":
            if self.n_levels or self.open or self.levels:
                raise ValueError("a real column has no categories")
            return
        if self.n_levels < 1:
            raise ValueError(f"a column needs at least one category, got n_levels={self.n_levels}")
        if self.kind == "line" and len(self.levels) != self.n_levels:
            raise ValueError(f"{self.n_levels} levels announced, {len(self.levels)} given")
        ends = (-math.inf, *self.levels, math.inf)
        if not all(a < b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"levels must be finite and strictly increasing, got {self.levels}")

    @property
    def n_points(self) -> int:
        return self.n_levels + self.open

    @property
    def known_snr(self) -> float:
        """The finite SNR that replaces infinity: its posterior is certain to the precision of floats."""
        if self.kind == "real":
            return REAL_KNOWN_SNR
        gap = 1.0
        if self.kind == "line":
            gaps = [b - a for a, b in zip(self.levels, self.levels[1:], strict=False)]
            gaps += [VERTEX] if self.open else []
            gap = min(gaps, default=1.0)
        return 2 * KNOWN_NATS / gap**2


@dataclass(frozen=True)
class LevelGroup:
    """Columns of one kind and one number of levels, stored side by side."""

    kind: str
    n_points: int
    open: bool
    columns: tuple[int, ...]
    first_column: int
    first_level: int
    first_coord: int

    @property
    def size(self) -> int:
        return len(self.columns)

    @property
    def category_major(self) -> bool:
        return self.n_points <= CATEGORY_MAJOR_UP_TO

    @property
    def axis(self) -> int:
        return 1 if self.category_major else 2

    @property
    def n_coords(self) -> int:
        return self.size * (self.n_points if self.kind == "simplex" else 1 + self.open)

    def levels(self, values: Any) -> Any:
        """Its part of (B, T) as (B, K, G) or (B, G, K)."""
        flat = values[:, self.first_level : self.first_level + self.size * self.n_points]
        shape = (self.n_points, self.size) if self.category_major else (self.size, self.n_points)
        return flat.reshape(len(values), *shape)

    def level(self, position: int, k: int) -> int:
        """Index in T of category ``k`` of the group's column number ``position``."""
        inside = k * self.size + position if self.category_major else position * self.n_points + k
        return self.first_level + inside

    def coord(self, position: int, k: int) -> int:
        """Index in D of the one non-zero coordinate of that level."""
        if self.kind == "simplex":
            return self.first_coord + self.level(position, k) - self.first_level
        unseen = self.open and k == self.n_points - 1
        return self.first_coord + position + (self.size if unseen else 0)


def groups_of(columns: Sequence[ColumnPoints]) -> tuple[LevelGroup, ...]:
    """The columns by their kind and number of levels, in the order in which all levels are stored."""
    members: dict[tuple[str, int, bool], list[int]] = {}
    for j, c in enumerate(columns):
        members.setdefault((c.kind, c.n_points, c.open), []).append(j)
    groups, column, level, coord = [], 0, 0, 0
    for (kind, n_points, is_open), js in members.items():
        g = LevelGroup(kind, n_points, is_open, tuple(js), column, level, coord)
        groups.append(g)
        column, level, coord = column + g.size, level + g.size * g.n_points, coord + g.n_coords
    return tuple(groups)
