"""The points of a whole table: the coordinates of each column, and the map from rows to points.

A column is one of two kinds:

* *categories*: levels on a simplex or a line (:mod:`discrete_itd.channel.levels`);
* *real*: a continuous column, whose one coordinate is the standardised value itself.

A row x is a tensor of float64 cells, one per column: the number of the level, or the standardised value;
NaN where the cell is missing. Its point has D coordinates: of the columns of categories, then the real ones. The
letters of tensor shapes are listed in :mod:`discrete_itd.channel`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from discrete_itd.channel.levels import Levels
from discrete_itd.channel.points import ColumnPoints
from discrete_itd.channel.rounded_numbers import NumberLines

__all__ = ["Codebook", "ColumnPoints", "State"]


class Codebook(nn.Module):
    """Points of a whole table.

    Parameters
    ----------
    columns : sequence of ColumnPoints, length C
    leading : sequence of int
        Columns that precede all others on every path: the missingness indicators.
    indicator : mapping of int to int, optional
        For some columns, the one that indicates by its level 1 that their cell is absent, by 0 that it is there.

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

        def of(*kinds: str) -> list[int]:
            return [j for j, c in enumerate(self.columns) if c.kind in kinds]

        finite, reals = of("simplex", "line"), of("real")
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
        """The part (B, R) of a state that is of continuous columns, and their lines."""
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
        # known cells stay as they are
        delta = torch.where(torch.isinf(self.snr), 0.0, snr - self.snr)
        finite = codebook.per_coord(torch.where(torch.isinf(delta), 0.0, delta))
        dy = finite * points if xi is None else finite * points + finite.sqrt() * xi
        return State(torch.where(codebook.per_coord(torch.isinf(delta)), points, dy), delta)

    def add(self, codebook: Codebook, new: State) -> State:
        """The state after an increment."""
        jumps = codebook.per_coord(torch.isinf(new.snr))
        return State(torch.where(jumps, new.y, self.y + new.y), self.snr + new.snr)
