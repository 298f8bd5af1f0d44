r"""The points of a table: of each level of its columns, and of whole rows; what is known of them is a state.

A column is one of two kinds.

*Categories*: column :math:`j` has :math:`K_j` *levels* (its categories, and, where the column is open, one last level
for unseen categories). Each level is a point :math:`e_{jk}` with a single non-zero coordinate:

* ``"simplex"``: level :math:`k` has a coordinate of its own and the value :math:`1/\sqrt2`, so that any two
  categories are at distance one;
* ``"line"``: all levels share one coordinate and differ by its value; the level of the unseen has a
  coordinate of its own.

*Real*: a continuous column, whose one coordinate is the standardised value itself.

A row x is a tensor of float64 cells, one per column: the number of the level, or the standardised value; NaN where the
cell is missing. Its point has D coordinates: of the columns of categories, then the real ones.

One flat tensor holds all levels of all columns, columns of one shape side by side. A group of few categories is stored
category-major, (B, K, G), so that a softmax runs along a vectorised axis; a group of many is stored column-major,
(B, G, K). It is far faster than a scatter over ragged segments.

The letters of tensor shapes are listed in :mod:`discrete_itd.channel`; in :class:`Levels`, C and D are counted over the
columns of categories alone, and G over the columns of one group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from discrete_itd.channel.rounded_numbers import NumberLine, NumberLines
from discrete_itd.devices import index_tensor

VERTEX = 1 / math.sqrt(2)  # ‖e_k − e_l‖ = 1 for two vertices of the simplex
CATEGORY_MAJOR_UP_TO = (
    32  # most levels of a category-major group: of more, sums along the last axis are faster
)
KNOWN_NATS = 1000.0  # log-odds of a known cell against the nearest other level: exp(-1000) = 0
REAL_KNOWN_SNR = 1e10  # SNR of a known number: noise of 1e-5, finer than any learned density


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
        if self.kind not in ("simplex", "line"):
            raise ValueError(f"kind must be simplex, line or real, got {self.kind!r}")
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
        distance = 1.0
        if self.kind == "line":
            distances = [b - a for a, b in zip(self.levels, self.levels[1:], strict=False)]
            distances += [VERTEX] if self.open else []
            distance = min(distances, default=1.0)
        return 2 * KNOWN_NATS / distance**2


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
        """The group's part of ``values`` (B, T), as (B, K, G) or (B, G, K)."""
        flat = values[:, self.first_level : self.first_level + self.size * self.n_points]
        shape = (self.n_points, self.size) if self.category_major else (self.size, self.n_points)
        return flat.reshape(len(values), *shape)

    def places(self) -> Iterator[tuple[int, int]]:
        """Position of the column in the group, and category, of each level, in the order of storage."""
        if self.category_major:
            return ((position, k) for k in range(self.n_points) for position in range(self.size))
        return itertools.product(range(self.size), range(self.n_points))


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


class Levels(nn.Module):
    """Points of the columns on simplices and lines, and softmax, evidence and mean over them.

    All C ``columns`` are of kind "simplex" or "line"; there may be none.

    Attributes
    ----------
    n_columns, n_points, n_coords : int
        C, T and D.
    cardinalities : tuple of int, length C
        Levels of each column, the unseen one included.
    widest : int
        The largest of them.
    level_column, level_code : Tensor, shape (T,)
        The column of each level, and its category in that column.
    level_unseen : Tensor of bool, shape (T,)
        True at the levels of unseen categories.

    Examples
    --------
    >>> levels = Levels([ColumnPoints("simplex", 2), ColumnPoints("line", 3, levels=(-1.0, 0.0, 1.0))])
    >>> levels.n_columns, levels.n_points, levels.n_coords
    (2, 5, 3)
    >>> levels.embed(torch.tensor([[1, 2]]))
    tensor([[0.0000, 0.7071, 1.0000]])
    """

    level_column: Tensor
    level_code: Tensor
    level_unseen: Tensor
    level_coord: Tensor
    level_value: Tensor
    coord_column: Tensor
    known_snr: Tensor
    _offset: Tensor
    _stride: Tensor
    _grouped: Tensor
    _order: Tensor
    _place: Tensor
    _spread: Tensor

    def __init__(self, columns: Sequence[ColumnPoints]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self._groups = groups_of(self.columns)
        self.n_columns = len(self.columns)
        self.n_points = sum(c.n_points for c in self.columns)
        self.n_coords = sum(g.n_coords for g in self._groups)

        rows: list[tuple[int, int, int, float, bool]] = []
        offset, stride = [0] * self.n_columns, [1] * self.n_columns
        for g in self._groups:
            for i, (position, k) in enumerate(g.places()):
                j = g.columns[position]
                if k == 0:
                    offset[j], stride[j] = len(rows), g.size if g.category_major else 1
                unseen = k == self.columns[j].n_levels
                on_line = g.kind == "line"
                value = self.columns[j].levels[k] if on_line and not unseen else VERTEX
                inside = position + g.size * unseen if on_line else i
                rows.append((j, k, g.first_coord + inside, value, unseen))
        column, level, coord, value, is_unseen = (
            map(list, zip(*rows, strict=True)) if rows else [[]] * 5
        )
        coord_column = [j for _, j in sorted(set(zip(coord, column, strict=True)))]

        order = [j for g in self._groups for j in g.columns]
        self._sorted = order == sorted(order)

        def keep(name: str, data: list, dtype: torch.dtype | None = None) -> None:
            self.register_buffer(name, torch.tensor(data, dtype=dtype), persistent=False)

        keep("level_column", column, torch.int64)
        keep("level_code", level, torch.int64)
        keep("level_unseen", is_unseen, torch.bool)
        keep("level_coord", coord, torch.int64)
        keep("level_value", value, torch.get_default_dtype())
        keep("coord_column", coord_column, torch.int64)
        keep("known_snr", [c.known_snr for c in self.columns], torch.get_default_dtype())
        keep("_offset", offset, torch.int64)
        keep("_stride", stride, torch.int64)
        keep("_grouped", order, torch.int64)
        keep("_order", sorted(range(len(order)), key=order.__getitem__), torch.int64)
        self.any_open = any(is_unseen)
        self.cardinalities = tuple(c.n_points for c in self.columns)
        self.widest = widest = max(self.cardinalities, default=1)
        place = [self.n_points] * (self.n_columns * widest)  # n_points stands for no level
        for s in range(self.n_points):
            place[column[s] * widest + level[s]] = s
        keep("_place", place, torch.int64)
        keep("_spread", [c * widest + k for c, k in zip(column, level, strict=True)], torch.int64)
        self._own = [
            slice(first, first + step * points.n_points, step)
            for first, step, points in zip(offset, stride, self.columns, strict=True)
        ]

    def index_of(self, codes: Tensor) -> Tensor:
        """Index in T of each cell: codes (B, C) to (B, C)."""
        return self._offset + codes * self._stride

    def own(self, j: int) -> slice:
        """The slice of column ``j`` among all T levels, in the order of their codes."""
        return self._own[j]

    def embed(self, codes: Tensor) -> Tensor:
        """The encoded rows x: codes (B, C) to points (B, D)."""
        level = self.index_of(codes)
        x = self.level_value.new_zeros(len(codes), self.n_coords)
        return x.scatter_(1, self.level_coord[level], self.level_value[level])

    def at(self, values: Tensor, codes: Tensor) -> Tensor:
        """``values`` (B, T) at the row's category of each column: (B, C)."""
        return values.gather(1, self.index_of(codes))

    def per_level(self, values: Tensor) -> Tensor:
        """Repeat one value per column, (B, C), over the column's levels, (B, T)."""
        return values[:, self.level_column]

    def normalised(self, values: Tensor) -> Tensor:
        """``values`` (B, T) over their sum in each column."""
        return values / self.per_level(self.sum(values))

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """``values`` (B, T) by column: (B, C, K), with ``fill`` beyond the levels of columns with fewer than K."""
        padded = torch.cat([values, values.new_full((len(values), 1), fill)], 1)
        return padded[:, self._place].view(len(values), self.n_columns, self.widest)

    def gather(self, values: Tensor) -> Tensor:
        """Inverse of :meth:`spread`: the levels of ``values`` (B, C, K) as (B, T)."""
        return values.flatten(1)[:, self._spread]

    def by_shape(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For the columns of each shape, their numbers (G,), and ``values`` (B, T) of their levels: (G, B, K)."""
        return [
            (
                index_tensor(g.columns, str(values.device)),
                v.permute(2, 0, 1) if g.category_major else v.permute(1, 0, 2),
            )
            for g, v in self._views(values)
        ]

    def from_shapes(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        """Inverse of :meth:`by_shape`: (B, T), of parts (G, B, K) in its order; without any, like ``like`` (B, T)."""
        flat = [
            (v.permute(1, 2, 0) if g.category_major else v.permute(1, 0, 2)).flatten(1)
            for g, v in zip(self._groups, parts, strict=True)
        ]
        return _joined(flat, like)

    def log_softmax(self, logits: Tensor) -> Tensor:
        """Normalise (B, T) within every column, in nats."""
        parts = [torch.log_softmax(v, g.axis).flatten(1) for g, v in self._views(logits)]
        return _joined(parts, logits)

    def logsumexp(self, logits: Tensor) -> Tensor:
        """Logsumexp over each column's levels: (B, T) to (B, C)."""
        return self._in_order([torch.logsumexp(v, g.axis) for g, v in self._views(logits)], logits)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over each column's levels: (B, T) to (B, C)."""
        return self._in_order([v.sum(g.axis) for g, v in self._views(values)], values)

    def with_unseen(self, probs: Tensor, prior: Tensor) -> Tensor:
        """Probabilities (B, T): unseen levels as in the ``prior`` (B, T), seen levels scaled to the rest.

        Counts hold no unseen level: given any other cells its probability would nearly vanish.
        """
        unseen = prior.masked_fill(~self.level_unseen, 0.0)
        seen = probs.masked_fill(self.level_unseen, 0.0)
        tiny = torch.finfo(seen.dtype).tiny  # all seen levels may have probability zero
        scale = (1 - self.sum(unseen)).clamp_min(0.0) / self.sum(seen).clamp_min(tiny)
        return seen * self.per_level(scale) + unseen

    def below_peak(self, values: Tensor) -> Tensor:
        """Values (B, T) minus the maximum of each column."""
        parts = [(v - v.amax(g.axis, keepdim=True)).flatten(1) for g, v in self._views(values)]
        return _joined(parts, values)

    def argmax(self, values: Tensor) -> Tensor:
        """Code of the largest value of each column: (B, T) to (B, C)."""
        return self._in_order([v.max(g.axis)[1] for g, v in self._views(values)], values.long())

    def evidence(self, y: Tensor, snr: Tensor) -> Tensor:
        r"""Log-likelihood (B, T) of every category given the state, nats, up to a constant per column, eq. (2).

        ``y`` (B, D) is the sufficient statistic :math:`\gamma x + w_\gamma`, or the point itself where the SNR is
        infinite; ``snr`` (B, C) runs from 0 (nothing known) to infinity (the cell is known).
        """
        known = torch.isinf(snr)
        snr = torch.where(known, self.known_snr, snr)
        column = self.coord_column
        y = torch.where(known[:, column], y * self.known_snr[column], y)
        snr = snr if self._sorted else snr[:, self._grouped]
        parts = []
        for g in self._groups:
            flat = y[:, g.first_coord : g.first_coord + g.n_coords]
            if g.kind == "simplex":  # all points have one norm: γ‖e‖²/2 is a constant
                parts.append(flat * VERTEX)
                continue
            # −γ(y/γ − e)²/2 differs from ⟨y, e⟩ − γe²/2 by a constant and loses no digits at large γ
            gamma = snr[:, g.first_column : g.first_column + g.size]  # (B, G)
            centre = flat[:, : g.size] / gamma.clamp_min(torch.finfo(gamma.dtype).tiny)
            level = g.levels(self.level_value[None])  # (1, K, G) or (1, G, K)
            ell = -0.5 * gamma.unsqueeze(g.axis) * (centre.unsqueeze(g.axis) - level) ** 2
            if g.open:
                unseen = flat[:, g.size :] * VERTEX - gamma * (VERTEX**2 + centre**2) / 2
                ell = torch.cat(
                    [ell.narrow(g.axis, 0, g.n_points - 1), unseen.unsqueeze(g.axis)], g.axis
                )
            parts.append(ell.flatten(1))
        return _joined(parts, y)

    def mean(self, probs: Tensor) -> Tensor:
        r"""The mean point :math:`\hat x_j = \sum_k q_{jk} e_{jk}`: (B, T) to (B, D)."""
        parts = []
        for g, v in self._views(probs):
            if g.kind == "simplex":
                parts.append(v.flatten(1) * VERTEX)
                continue
            weighted = v * g.levels(self.level_value[None])
            seen = weighted.narrow(g.axis, 0, g.n_points - g.open).sum(g.axis)
            unseen = [weighted.select(g.axis, g.n_points - 1)] if g.open else []
            parts += [seen, *unseen]
        return _joined(parts, probs)

    def _views(self, values: Tensor) -> Iterator[tuple[LevelGroup, Tensor]]:
        return ((g, g.levels(values)) for g in self._groups)

    def _in_order(self, parts: list[Tensor], like: Tensor) -> Tensor:
        joined = _joined(parts, like)
        return joined if self._sorted else joined[:, self._order]


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    """The parts side by side; an empty tensor like ``like`` if there are none."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts, 1) if parts else like[:, :0]


class Codebook(nn.Module):
    """Points of a whole table.

    Parameters
    ----------
    columns : sequence of ColumnPoints, length C
    leading : sequence of int
        Columns that precede all others on every path: the missingness indicators.
    indicator : mapping of int to int, optional
        For some columns, their missingness indicator, at level 1 where their cell is absent and at level 0 elsewhere.

    Attributes
    ----------
    leading : Tensor of bool, shape (C,)
    n_columns, n_coords : int
        C and D.
    levels : Levels
        Columns of categories, with their numbers ``finite`` and the positions ``place`` of these.
    reals : Tensor of int64, shape (R,)
        Numbers of the continuous columns, whose coordinates are ``real_coords``.
    lines : NumberLines
        Their maps, and the cells of their numbers.
    coord_column : Tensor of int64, shape (D,)
        The column of each coordinate.
    work : int
        Floats of a row's posterior, to which its time and memory are proportional.

    Examples
    --------
    >>> book = Codebook([ColumnPoints("real"), ColumnPoints("simplex", 2)])
    >>> book.embed(torch.tensor([[0.3, 1.0]], dtype=torch.float64))
    tensor([[0.0000, 0.7071, 0.3000]])
    """

    finite: Tensor
    reals: Tensor
    coord_column: Tensor
    known_snr: Tensor
    leading: Tensor

    def __init__(
        self,
        columns: Sequence[ColumnPoints],
        leading: Sequence[int] = (),
        indicator: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        if not columns:
            raise ValueError("a table needs at least one column")
        self.columns = tuple(columns)
        self.n_columns = len(self.columns)

        def of_kind(*kinds: str) -> list[int]:
            return [j for j, c in enumerate(self.columns) if c.kind in kinds]

        finite, reals = of_kind("simplex", "line"), of_kind("real")
        self.levels = Levels([self.columns[j] for j in finite])
        self.lines = NumberLines([self.columns[j].line for j in reals])
        self.real_coords = slice(self.levels.n_coords, self.levels.n_coords + len(reals))
        self.n_coords = self.real_coords.stop
        self.has_leading = len(leading) > 0
        self.indicator = dict(indicator or {})
        self.place = {j: i for i, j in enumerate(finite)}
        coord_column = [finite[j] for j in self.levels.coord_column.tolist()] + reals

        def keep(name: str, data: list, dtype: torch.dtype) -> None:
            self.register_buffer(name, torch.tensor(data, dtype=dtype), persistent=False)

        keep("finite", finite, torch.int64)
        keep("reals", reals, torch.int64)
        keep("leading", [j in leading for j in range(self.n_columns)], torch.bool)
        keep("coord_column", coord_column, torch.int64)
        keep("known_snr", [c.known_snr for c in self.columns], torch.get_default_dtype())
        self.work = self.levels.n_points + 8 * len(reals)

    def in_order(self, columns: Iterable[int]) -> list[int]:
        """Columns in their order, but each indicator directly before its column."""
        columns = list(columns)
        column_of = {i: j for j, i in self.indicator.items() if j in columns}
        free = [j for j in columns if j not in column_of]
        before = {j: i for i, j in column_of.items() if i in columns}
        return [k for j in free for k in ([before[j], j] if j in before else [j])]

    def is_absent(self, x: Tensor) -> Tensor:
        """Which cells of rows ``x`` (B, C) are absent by their indicator: bool, (B, C)."""
        out = torch.zeros_like(x, dtype=torch.bool)
        for j, i in self.indicator.items():
            out[:, j] = x[:, i] == 1.0
        return out

    def unknown(self, x: Tensor) -> Tensor:
        """Which cells of rows ``x`` (B, C) are unknown, (B, C): neither known nor indicated as missing."""
        return x.isnan() & ~self.is_absent(x)

    @property
    def device(self) -> torch.device:
        """The device of the points."""
        return self.known_snr.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the points."""
        return self.known_snr.dtype

    def embed(self, x: Tensor) -> Tensor:
        """The points of rows ``x`` (B, C): (B, D). Where a cell is missing, an arbitrary finite point."""
        codes = x.nan_to_num(0.0)
        parts = [self.levels.embed(codes[:, self.finite].long())]
        if len(self.reals):
            parts.append(codes[:, self.reals].to(self.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def level_of(self, x: Tensor) -> Tensor:
        """Levels of the categories of rows ``x`` (B, C): int64, (B, C'), T where a cell is missing."""
        cells = x.index_select(1, self.finite)
        level = self.levels.index_of(cells.nan_to_num(0.0).long())
        return level.masked_fill_(cells.isnan(), self.levels.n_points)

    def reals_of(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Tensor, NumberLines]:
        """The statistic and the SNR of the continuous columns, (B, R) each, and their lines."""
        return y[:, self.real_coords], snr[:, self.reals], self.lines

    def known_cells(self, y: Tensor, snr: Tensor) -> Tensor:
        """The known cells of a state as rows (B, C), float64; NaN elsewhere."""
        x = torch.full(snr.shape, torch.nan, dtype=torch.float64, device=y.device)
        levels = self.levels.argmax(
            self.levels.evidence(y[:, : self.levels.n_coords], snr[:, self.finite])
        )
        x = x.index_copy(1, self.finite, levels.double())
        x = x.index_copy(1, self.reals, y[:, self.real_coords].double())
        return x.masked_fill(~torch.isinf(snr), torch.nan)

    def per_coord(self, values: Tensor) -> Tensor:
        """Repeat one value per column, (B, C), over the column's coordinates, (B, D)."""
        return values[:, self.coord_column]


class State(NamedTuple):
    """The evidence about B rows: ``y`` (B, D) and ``snr`` (B, C).

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> book = Codebook([ColumnPoints("real"), ColumnPoints("real")])
    >>> points = book.embed(torch.tensor([[0.3, -0.2]], dtype=torch.float64))
    >>> State.start(book, points, given=torch.tensor([[True, False]]))
    State(y=tensor([[0.3000, 0.0000]]), snr=tensor([[inf, 0.]]))
    """

    y: Tensor
    snr: Tensor

    @classmethod
    def start(cls, codebook: Codebook, points: Tensor, given: Tensor | None = None) -> State:
        """The state of rows ``points`` (B, D) with only the cells ``given`` (B, C) known, by default none."""
        snr = points.new_zeros(len(points), codebook.n_columns)
        if given is None:
            return cls(torch.zeros_like(points), snr)
        y = torch.where(codebook.per_coord(given), points, 0.0)
        return cls(y, snr.masked_fill(given, math.inf))

    def increment(
        self, codebook: Codebook, points: Tensor, snr: Tensor, xi: Tensor | None
    ) -> State:
        r"""The evidence :math:`(\Delta y, \delta)` that leads from this state to the SNRs ``snr``.

        ``xi`` (B, D) is standard normal noise; None where all increments are zero or infinite.
        """
        # known cells get no increment
        delta = torch.where(torch.isinf(self.snr), 0.0, snr - self.snr)
        finite = codebook.per_coord(torch.where(torch.isinf(delta), 0.0, delta))
        dy = finite * points if xi is None else finite * points + finite.sqrt() * xi
        return State(torch.where(codebook.per_coord(torch.isinf(delta)), points, dy), delta)

    def add(self, codebook: Codebook, new: State) -> State:
        """The state after an increment."""
        jumps = codebook.per_coord(torch.isinf(new.snr))
        return State(torch.where(jumps, new.y, self.y + new.y), self.snr + new.snr)
