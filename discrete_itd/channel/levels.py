r"""The points of the levels of columns of categories, and the arithmetic on them.

Column :math:`j` has :math:`K_j` *levels* (its categories, and, where the column is open, one last level
for unseen categories). Each level is a point :math:`e_{jk}` with a single non-zero coordinate:

* ``"simplex"``: level :math:`k` has a coordinate of its own and the value :math:`1/\sqrt2`, so that any two
  categories are at distance one;
* ``"line"``: all levels share one coordinate and differ by its value; the level of the unseen has a
  coordinate of its own.

Layout: one flat tensor holds all levels of all columns, columns of one shape side by side. A group of few
categories is stored category-major, (B, K, G), so that a softmax runs along a vectorised axis; a
group of many is stored column-major, (B, G, K). It is far faster than a scatter over ragged segments
(``python -m tests.benchmarks.segments``).

Shapes use the letters of :mod:`discrete_itd.channel`, with C and D counted over these columns alone, and G
for the columns of one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from discrete_itd.channel.points import VERTEX, ColumnPoints, LevelGroup, groups_of
from discrete_itd.devices import index_tensor


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

        table: dict[int, tuple[int, int, int, float, bool]] = {}
        offset, stride = [0] * self.n_columns, [0] * self.n_columns
        for g in self._groups:
            for position, j in enumerate(g.columns):
                points = self.columns[j]
                offset[j] = g.level(position, 0)
                stride[j] = g.size if g.category_major else 1
                for k in range(g.n_points):
                    unseen = k == points.n_levels
                    value = points.levels[k] if g.kind == "line" and not unseen else VERTEX
                    table[g.level(position, k)] = j, k, g.coord(position, k), value, unseen
        rows = [table[s] for s in range(self.n_points)]
        column, level, coord, value, is_open = (
            map(list, zip(*rows, strict=True)) if rows else [[]] * 5
        )
        coord_column = [j for _, j in sorted(set(zip(coord, column, strict=True)))]

        order = [j for g in self._groups for j in g.columns]
        self._sorted = order == sorted(order)

        def keep(name: str, data: list, dtype: torch.dtype | None = None) -> None:
            self.register_buffer(name, torch.tensor(data, dtype=dtype), persistent=False)

        keep("level_column", column, torch.int64)
        keep("level_code", level, torch.int64)
        keep("level_unseen", is_open, torch.bool)
        keep("level_coord", coord, torch.int64)
        keep("level_value", value, torch.get_default_dtype())
        keep("coord_column", coord_column, torch.int64)
        keep("known_snr", [c.known_snr for c in self.columns], torch.get_default_dtype())
        keep("_offset", offset, torch.int64)
        keep("_stride", stride, torch.int64)
        keep("_grouped", order, torch.int64)
        keep("_order", sorted(range(len(order)), key=order.__getitem__), torch.int64)
        self.any_open = any(is_open)
        self.cardinalities = tuple(c.n_points for c in self.columns)
        self.widest = widest = max(self.cardinalities, default=1)
        place = [self.n_points] * (self.n_columns * widest)  # n_points: no level
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
        """The levels of column ``j`` among all T, in the order of their codes."""
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

        Counts say nothing of what was never counted: given any other cells it would nearly vanish.
        """
        unseen = prior.masked_fill(~self.level_unseen, 0.0)
        seen = probs.masked_fill(self.level_unseen, 0.0)
        tiny = torch.finfo(seen.dtype).tiny  # nothing else may be possible
        scale = (1 - self.sum(unseen)).clamp_min(0.0) / self.sum(seen).clamp_min(tiny)
        return seen * self.per_level(scale) + unseen

    def below_peak(self, values: Tensor) -> Tensor:
        """Values (B, T) minus the maximum of each column."""
        parts = [(v - v.amax(g.axis, keepdim=True)).flatten(1) for g, v in self._views(values)]
        return _joined(parts, values)

    def argmax(self, values: Tensor) -> Tensor:
        """Code of the largest value of each column: (B, T) to (B, C)."""
        return self._in_order([v.argmax(g.axis) for g, v in self._views(values)], values.long())

    def evidence(self, y: Tensor, snr: Tensor) -> Tensor:
        r"""Log-likelihood (B, T) of every category given the state, nats, up to a constant per column, eq. (2).

        ``y`` (B, D) is the sufficient statistic :math:`\gamma x + w_\gamma`, or the point itself where the SNR is
        infinite; ``snr`` (B, C) runs from 0 (nothing known) to infinity (the cell is known).
        """
        known = torch.isinf(snr)
        snr = torch.where(known, self.known_snr, snr)
        at = self.coord_column
        y = torch.where(known[:, at], y * self.known_snr[at], y)
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
                own = flat[:, g.size :] * VERTEX - gamma * (VERTEX**2 + centre**2) / 2
                ell = torch.cat(
                    [ell.narrow(g.axis, 0, g.n_points - 1), own.unsqueeze(g.axis)], g.axis
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
