"""Densities of single cells on a grid; other continuous cells keep their mixtures of Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from discrete_itd.channel.gaussian import CHUNK, POINTS, GaussianPosterior
from discrete_itd.channel.rounded_numbers import Intervals

BLOCK = 32  # rows
LEAST_DECAY = 1.0  # least slope of the tails, nats per unit of a standardised column


def _in_blocks(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Call a function of rows for a multiple of ``BLOCK`` rows, so that no row's rounding depends on others."""

    @wraps(function)
    def blocked(*rows: Tensor) -> Tensor:
        lacking = -len(rows[0]) % BLOCK if len(rows[0]) else 0
        whole = [torch.cat([t, t[-1:].expand(lacking, *t.shape[1:])]) for t in rows]
        return function(*whole)[: len(rows[0])]

    return blocked


class GridPosterior(GaussianPosterior):
    """Continuous columns some of whose cells have a log-density that is linear between the nodes of a grid.

    Beyond the outermost nodes the log-density continues linearly, but falls at least as :math:`e^{-|x|}`.

    Parameters
    ----------
    others : GaussianPosterior
        Distributions of all other cells of B rows and R columns; its components are the attributes of this posterior.
    place : Tensor of int64, shape (B, R)
        Which of the n grids belongs to the cell; -1 for cells without a grid.
    nodes : Tensor of float64, shape (n, G)
        Increasing in every row; equal nodes count once.
    log_density : Tensor of float64, shape (n, G)
        At the nodes, up to a constant of each grid, nats.
    normalised : bool
        Whether that constant is 0.

    Notes
    -----
    It answers about cells: it is neither updated by evidence nor drawn from.

    Examples
    --------
    >>> flat = GaussianPosterior(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    >>> nodes = torch.linspace(-8, 8, 401, dtype=torch.float64)[None]
    >>> q = GridPosterior(flat, torch.zeros(1, 1, dtype=torch.int64), nodes, -0.5 * nodes**2)
    >>> q.log_prob(torch.zeros(1, 1)).round(decimals=3), q.quantiles(torch.tensor([0.975])).round(decimals=2)
    (tensor([[-0.9190]]), tensor([[1.9600]], dtype=torch.float64))
    """

    def __init__(
        self,
        others: GaussianPosterior,
        place: Tensor,
        nodes: Tensor,
        log_density: Tensor,
        *,
        normalised: bool = False,
    ) -> None:
        parts = others.log_weight, others.means, others.var, *others.bounds
        super().__init__(*parts, normalised=True)
        self.others, self.place, self.nodes = others, place, nodes
        constant = 0.0 if normalised else log_total(nodes, log_density)[:, None]
        self.log_density = log_density - constant

    def _own(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, columns, nodes and log-densities of the cells that have a grid."""
        row, column = torch.nonzero(self.place >= 0).unbind(1)
        at = self.place[row, column]
        return row, column, self.nodes[at], self.log_density[at]

    def mean(self) -> Tensor:
        r"""The denoised values :math:`\hat x`, shape (B, R)."""
        out = self.others.mean()
        row, column, nodes, log_f = self._own()
        out[row, column] = _mean(nodes, log_f).to(out)
        return out

    def log_prob(self, middle: Tensor, width: Tensor | None = None) -> Tensor:
        """Log-mass of each cell (B, R), by the density at its middle: (B, R), nats."""
        cells = Intervals.at(middle) if width is None else Intervals(middle, width)
        out = self.others.log_prob(*cells)
        row, column, nodes, log_f = self._own()
        own = Intervals(*(t[row, column].double()[:, None] for t in cells))
        log_density = interpolated(nodes, log_f, own.middle)
        out[row, column] = (log_density + own.log_width())[:, 0].to(out)
        return out

    def quantiles(self, u: Tensor) -> Tensor:
        """Quantiles of one column at levels ``u`` (n,): float64, (B, n)."""
        return self._one_column(
            lambda q: q.quantiles(u),
            lambda nodes, log_f: grid_quantiles(nodes, log_f, u.to(nodes).expand(len(nodes), -1)),
        )

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """As of mixtures; on a grid at evenly spread quantiles."""

        def on_grid(nodes: Tensor, log_f: Tensor) -> Tensor:
            return function(_evenly_spread(nodes, log_f)).mean(1)

        return self._one_column(lambda q: q.expectation(function), on_grid)

    def entropy(self, cells: Callable[[Tensor], Intervals]) -> Tensor:
        """As of mixtures; on a grid at evenly spread quantiles."""

        def on_grid(nodes: Tensor, log_f: Tensor) -> Tensor:
            own = cells(_evenly_spread(nodes, log_f))
            return -(interpolated(nodes, log_f, own.middle) + own.log_width()).mean(1)

        return self._one_column(lambda q: q.entropy(cells), on_grid)

    def _one_column(
        self,
        of_others: Callable[[GaussianPosterior], Tensor],
        on_grid: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """A quantity of one column, computed for rows without a grid, and from nodes and log-densities of others."""
        place = self.place[:, 0]
        rows = torch.nonzero(place < 0).flatten()
        found = of_others(self.others.pick(lambda t: t[rows]))
        out = found.new_zeros(len(place), *found.shape[1:]).index_copy_(0, rows, found)
        for rows in torch.nonzero(place >= 0).flatten().split(CHUNK // POINTS):
            if len(rows):
                out[rows] = on_grid(self.nodes[place[rows]], self.log_density[place[rows]])
        return out

    def pick(self, rows: Callable[[Tensor], Tensor]) -> GridPosterior:
        """The posterior of the rows that ``rows`` selects from each tensor."""
        others, place = self.others.pick(rows), rows(self.place)
        return GridPosterior(others, place, self.nodes, self.log_density, normalised=True)


def _slopes(nodes: Tensor, log_f: Tensor) -> tuple[Tensor, Tensor]:
    """Decay left of the first node and right of the last one, nats per unit: (n, 1) each."""
    gap, step = nodes.diff(dim=1), log_f.diff(dim=1)
    slope = step / gap.clamp_min(torch.finfo(gap.dtype).tiny)
    left, right = slope[:, :1], -slope[:, -1:]
    return left.clamp_min(LEAST_DECAY), right.clamp_min(LEAST_DECAY)


def log_masses(nodes: Tensor, log_f: Tensor) -> Tensor:
    """Logarithm of the mass of the left tail, of each interval and of the right tail: (n, G) to (n, G + 1)."""
    left, right = _slopes(nodes, log_f)
    d = log_f.diff(dim=1).abs().clamp_min(1e-12)
    top = torch.maximum(log_f[:, 1:], log_f[:, :-1])
    inside = top + nodes.diff(dim=1).log() + (-torch.expm1(-d) / d).log()
    return torch.cat([log_f[:, :1] - left.log(), inside, log_f[:, -1:] - right.log()], 1)


@_in_blocks
def log_total(nodes: Tensor, log_f: Tensor) -> Tensor:
    """Logarithm of the integral of densities on grids: (n, G) to (n,)."""
    return torch.logsumexp(log_masses(nodes, log_f), 1)


def interpolated(nodes: Tensor, log_f: Tensor, values: Tensor) -> Tensor:
    """Log-densities on grids (n, G) at values (n, m): (n, m)."""
    left, right = _slopes(nodes, log_f)
    i = torch.searchsorted(nodes.contiguous(), values.contiguous(), right=True).clamp(
        1, nodes.shape[1] - 1
    )
    low, high, f_low, f_high = (t.gather(1, k) for t in (nodes, log_f) for k in (i - 1, i))
    share = (values - low) / (high - low).clamp_min(torch.finfo(nodes.dtype).tiny)
    inside = f_low + share.clamp(0, 1) * (f_high - f_low)
    inside = inside - left * (nodes[:, :1] - values).clamp_min(0.0)
    return inside - right * (values - nodes[:, -1:]).clamp_min(0.0)


@_in_blocks
def _mean(nodes: Tensor, log_f: Tensor) -> Tensor:
    """Means of densities on grids, (n,)."""
    left, right = _slopes(nodes, log_f)
    d = log_f.diff(dim=1)
    safe = torch.where(d.abs() < 1e-4, 1.0, d)
    share = torch.where(d.abs() < 1e-4, 0.5 + d / 12, -1 / torch.expm1(-safe) - 1 / safe)
    share = torch.where(d < -500, -1 / safe, share)  # expm1 overflows
    inside = nodes[:, :-1] + nodes.diff(dim=1) * share
    means = torch.cat([nodes[:, :1] - 1 / left, inside, nodes[:, -1:] + 1 / right], 1)
    return (log_masses(nodes, log_f).exp() * means).sum(1)


@_in_blocks
def grid_quantiles(nodes: Tensor, log_f: Tensor, u: Tensor) -> Tensor:
    """Quantiles of densities on grids at levels u (n, m): (n, m)."""
    left, right = _slopes(nodes, log_f)
    cdf = log_masses(nodes, log_f).exp().cumsum(1)
    cdf = cdf / cdf[:, -1:]
    i = torch.searchsorted(cdf, u.contiguous(), right=True).clamp_max(cdf.shape[1] - 1)
    before = torch.where(i > 0, cdf.gather(1, (i - 1).clamp_min(0)), 0.0)
    s = ((u - before) / (cdf.gather(1, i) - before).clamp_min(1e-300)).clamp(1e-15, 1 - 1e-15)
    k = (i - 1).clamp(0, nodes.shape[1] - 2)  # the interval, where it is one
    d = log_f.diff(dim=1).gather(1, k)
    down = torch.where(d.abs() < 1e-9, 1e-9, d.abs())
    # a falling density from its left end, a rising one from its right end
    back = torch.where(d < 0, s, 1 - s)
    t = -torch.log1p(back * torch.expm1(-down)) / down
    t = torch.where(d < 0, t, 1 - t)
    inside = nodes.gather(1, k) + nodes.diff(dim=1).gather(1, k) * t
    below = nodes[:, :1] + s.log() / left
    above = nodes[:, -1:] - torch.log1p(-s) / right
    return torch.where(i == 0, below, torch.where(i == nodes.shape[1], above, inside))


def _evenly_spread(nodes: Tensor, log_f: Tensor) -> Tensor:
    """Quantiles of densities on grids at ``POINTS`` levels: (n, POINTS)."""
    at = (torch.arange(POINTS, dtype=nodes.dtype, device=nodes.device) + 0.5) / POINTS
    return grid_quantiles(nodes, log_f, at.expand(len(nodes), -1))
