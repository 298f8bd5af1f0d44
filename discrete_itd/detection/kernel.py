r"""A kernel density of rows, which measures the distance of a row to the nearest training rows.

.. math:: P(x) = \frac1n \sum_{i=1}^n \prod_j k_j(x_j \mid c_{ij})

with n training rows c as centres. The kernel of a continuous column is a Gaussian; that of an ordinal column is a
Gaussian restricted to its levels; that of a nominal column keeps the centre's category with probability
:math:`1 - \lambda` and otherwise draws from the column's marginal (Aitchison and Aitken). All are normalised, so P is.
A missing cell is left out; where a centre's cell is missing, its kernel is the marginal.

References
----------
Parzen, "On estimation of a probability density function and mode", 1962.
Aitchison, Aitken, "Multivariate binary discrimination by the kernel method", Biometrika 1976.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.channel.noise import cell_bits
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.denoisers.base import rows_at_once
from discrete_itd.likelihood import in_blocks
from discrete_itd.models.splitting import copies

MOST_CENTRES = 5000
LEFT_OUT = 1000  # centres on which widths are compared, by leave-one-out
OUTLIERS = 0.1  # assumed share of rows without neighbours, which would otherwise widen the kernels
BATCH_PAIRS = 1 << 20  # rows times centres at once
FAR = 3.0  # widths from the nearest centre, beyond which a value does not weigh the centres
STRAY = 0.01  # probability with which a number on few levels is drawn from the marginal
GRID = {
    "real": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
    "line": (0.05, 0.1, 0.2, 0.4, 0.8),
    "other": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
}


class Widths(NamedTuple):
    """Bandwidths.

    Attributes
    ----------
    real : float
        Standard deviation of the kernel of continuous columns, in standardised units (a column's own is 1/2).
    line : float
        That of ordinal columns, in units of twice the column's standard deviation.
    other : float
        Probability with which a category is drawn from the marginal.
    """

    real: float = 0.1
    line: float = 0.2
    other: float = 0.2


COARSE = Widths(0.6, 1.2, 0.2)  # to find anomalies among training rows


class _Pairs(NamedTuple):
    """Factors of rows in products with those of the centres, each (B, ...)."""

    levels: Tensor  # (B, T): log-kernel of each level as a centre
    alone: Tensor  # (B, C): log-probability of the cell alone, 0 where it is missing
    values: Tensor  # (B, R)
    there: Tensor  # (B, R): 1 where the value is not missing


@dataclass(frozen=True)
class KernelDensity:
    """A product-kernel density.

    Parameters
    ----------
    base : MarginalDenoiser
        The independent columns.
    centres : Tensor of float64, shape (n, C)
        Encoded rows; NaN where a cell is missing.
    widths : Widths
    """

    base: MarginalDenoiser
    centres: Tensor
    widths: Widths

    @classmethod
    def fit(cls, base: MarginalDenoiser, x: Tensor, generator: torch.Generator) -> KernelDensity:
        """Take training rows as centres, with the widths of the fewest leave-one-out nats.

        Parameters
        ----------
        base : MarginalDenoiser
        x : Tensor of float64, shape (N, C)
            Training rows; at most ``MOST_CENTRES`` of them are taken.
        generator : torch.Generator
        """
        order = torch.randperm(len(x), generator=generator).to(x.device)
        trial = cls(base, x[order[:MOST_CENTRES]], Widths())
        # a number for each centre, the same for copies of a record
        twins = copies(cell_bits(trial.centres).cpu().numpy())
        twins = torch.from_numpy(twins).to(x.device)
        kinds = {c.kind for c in base.codebook.columns}
        used = [kind for kind in ("real", "line") if kind in kinds]
        used += ["other"] if kinds & {"simplex", "code"} else []
        widths = Widths()
        for name in used * min(2, len(used)):  # one width after the other, twice
            tried = [widths._replace(**{name: value}) for value in GRID[name]]
            costs = [replace(trial, widths=w)._left_out(twins) for w in tried]
            widths = tried[costs.index(min(costs))]
        return replace(trial, widths=widths)

    def _left_out(self, twins: Tensor) -> float:
        """Mean nats of some of the centres, given all but their copies; those of rows like no other count less."""
        rows = self.centres[:LEFT_OUT]
        nats = -self._log_prob_of_centres(len(rows), twins)
        alone = self.marginals.expand(len(rows)).log_prob(rows).double().sum(1)
        outlier = math.log(OUTLIERS) + alone
        return float(-torch.logaddexp(math.log1p(-OUTLIERS) - nats, outlier).mean())

    @torch.no_grad()
    def _log_prob_of_centres(self, n: int, twins: Tensor | None = None) -> Tensor:
        """Log-probability of the first n centres, each given those of another number in ``twins``: (n,).

        By default every centre has a number of its own.
        """
        index = torch.arange(len(self.centres), device=self.centres.device)
        twins = index if twins is None else twins
        out = []
        for i in index[:n].split(self.batch):
            same = twins[i][:, None] == twins
            alone = same.all(1, keepdim=True)  # nothing but copies is left
            same = torch.where(alone, index[i][:, None] == index, same)
            out.append(self._log_prob(self.centres[i], left_out=same))
        return torch.cat(out)

    @classmethod
    def outlyingness(cls, base: MarginalDenoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        """Surprisal of each row given the others under wide kernels: float64, (N,), nats.

        Under narrow kernels, anomalies that have neighbours among the rows look typical. Wide kernels avoid that
        (``python -m tests.benchmarks.robust``).

        Parameters
        ----------
        base : MarginalDenoiser
        x : Tensor of float64, shape (N, C)
        generator : torch.Generator
        """
        order = torch.randperm(len(x), generator=generator).to(x.device)
        among, rest = order[:MOST_CENTRES], order[MOST_CENTRES:]
        model, out = cls(base, x[among], COARSE), x.new_empty(len(x))
        out[among] = -model._log_prob_of_centres(len(among))
        if len(rest):
            out[rest] = -model.log_prob(x[rest])
        return out

    @property
    def batch(self) -> int:
        """Rows at once, so that memory is bounded."""
        return rows_at_once(BATCH_PAIRS // len(self.centres))

    @torch.no_grad()
    def log_prob(self, x: Tensor, progress: Callable[[int], object] | None = None) -> Tensor:
        """Log-probability of rows, missing cells left out.

        Parameters
        ----------
        x : Tensor of float64, shape (B, C)
        progress : callable, optional
            Called with the number of rows done since the last call.

        Returns
        -------
        Tensor of float64, shape (B,), nats
        """
        return self._by_batch(self._log_prob, x, progress)

    @torch.no_grad()
    def nats(self, x: Tensor, progress: Callable[[int], object] | None = None) -> Tensor:
        r"""Surprisal of each cell.

        Parameters
        ----------
        x : Tensor of float64, shape (B, C)
        progress : callable, optional
            As of :meth:`log_prob`.

        Returns
        -------
        Tensor of float64, shape (B, C)
            Nats; rows sum to :math:`-\log P(x)`. With :math:`w_i` the share of centre i in the sum, a cell has
            :math:`-\sum_i w_i \log k_j(x_j | c_{ij})`, its distance from the centres around the row, and an equal part
            of :math:`\sum_i w_i \log(n w_i)`, the scarcity of those centres. A missing cell has none. A number that is
            far from all centres does not enter the weights, or one wrong cell would raise the nats of the others; the
            remaining difference to :math:`-\log P(x)` is added to its own nats.
        """
        return self._by_batch(self._nats, x, progress)

    def _by_batch(
        self, call: Callable[[Tensor], Tensor], x: Tensor, progress: Callable[[int], object] | None
    ) -> Tensor:
        out = []
        for part in in_blocks(call, x, batch_size=self.batch):
            out.append(part)
            if progress is not None:
                progress(len(part))
        return torch.cat(out)

    def _log_prob(self, x: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Of one batch; ``left_out`` (B, n) says which centres each row is to do without."""
        total = self._log_kernels(x, self._pairs(x))
        n = total.new_full((len(x),), len(self.centres))
        if left_out is not None and len(self.centres) > 1:
            n = (~left_out).sum(1).to(total)
            total = total.masked_fill(left_out, -math.inf)
        return torch.logsumexp(total, 1) - n.log()

    @torch.no_grad()
    def log_kernels(self, x: Tensor) -> Tensor:
        """Log-density of each row's known cells around each centre, (B, n), nats."""
        parts = x.split(self.batch)
        return torch.cat([self._log_kernels(part, self._pairs(part)) for part in parts])

    def _log_kernels(self, x: Tensor, q: _Pairs) -> Tensor:
        """Of each row at each centre, all columns together: (B, n)."""
        c, width = self._centres, self.widths.real
        scaled, at = q.values / width, c.values / width
        total = q.levels @ c.levels.T + q.alone @ self.centres.isnan().double().T
        squares = (q.there * scaled**2) @ c.there.T + q.there @ (c.there * at**2).T
        squares = squares - 2 * (q.there * scaled) @ (c.there * at).T
        total = total - squares.clamp_min(0.0) / 2 - self._log_norm * (q.there @ c.there.T)
        for v in self.base.codebook.vocabularies:
            total = total + self._log_codes(x, v.column, q.alone)
        return total

    @property
    def _log_norm(self) -> float:
        return math.log(self.widths.real * math.sqrt(2 * math.pi))

    def _nats(self, x: Tensor) -> Tensor:
        book, width = self.base.codebook, self.widths.real
        q, c = self._pairs(x), self._centres
        total, log_n = self._log_kernels(x, q), math.log(len(self.centres))
        left = log_n - torch.logsumexp(total, 1)  # (B,): to be shared out
        far = self._far(q)  # (B, R)
        if far.any():
            alone = q.alone.clone()
            alone[:, book.reals] = alone[:, book.reals].masked_fill(far, 0.0)
            total = self._log_kernels(x, q._replace(there=q.there * ~far, alone=alone))
        log_w = torch.log_softmax(total, 1)
        w = log_w.exp()
        shares = -q.alone * (w @ self.centres.isnan().double())
        column = book.finite[book.levels.level_column]
        shares = shares.index_add(1, column, -q.levels * (w @ c.levels))
        scaled, at = q.values / width, c.values / width
        squares = scaled**2 * (w @ c.there) - 2 * scaled * (w @ (c.there * at))
        squares = squares + w @ (c.there * at**2)
        inside = q.there * (squares.clamp_min(0.0) / 2 + self._log_norm * (w @ c.there))
        shares = shares.index_add(1, book.reals, inside)
        for v in book.vocabularies:
            shares[:, v.column] -= (w * self._log_codes(x, v.column, q.alone)).sum(1)
        there = (~x.isnan()).double()
        shares = shares * there
        few = torch.special.xlogy(w, w).sum(1) + log_n
        # how few neighbours there are is of all cells, what the far ones made worse or better is theirs
        shares = shares + (few / there.sum(1).clamp_min(1.0))[:, None] * there
        to = torch.zeros_like(there).index_copy(1, book.reals, far.double())
        to = torch.where(far.any(1, keepdim=True), to, there)
        left = (left - shares.sum(1)) / to.sum(1).clamp_min(1.0)
        return shares + left[:, None] * to

    def _far(self, q: _Pairs) -> Tensor:
        """Which values lie beyond ``FAR`` widths of every centre: (B, R)."""
        out = torch.zeros_like(q.there, dtype=torch.bool)
        for r in range(q.values.shape[1]):
            centres = self._centres.values[self._centres.there[:, r] > 0, r].sort().values
            if not len(centres):
                continue
            value = q.values[:, r].contiguous()
            above = torch.searchsorted(centres, value).clamp(max=len(centres) - 1)
            gaps = [(value - centres[i]).abs() for i in (above, (above - 1).clamp_min(0))]
            out[:, r] = torch.minimum(*gaps) > FAR * self.widths.real
        return out & (q.there > 0)

    @cached_property
    def _centres(self) -> _Pairs:
        """The centres, as what rows are multiplied with: levels are one-hot."""
        x, book = self.centres, self.base.codebook
        cells = x[:, book.finite]
        slot = book.levels.index_of(cells.nan_to_num(0.0).long())
        levels = x.new_zeros(len(x), book.levels.n_points)
        levels.scatter_(1, slot, (~cells.isnan()).double())
        reals = x[:, book.reals]
        return _Pairs(levels, x, reals.nan_to_num(0.0), (~reals.isnan()).double())

    @property
    def centre_levels(self) -> Tensor:
        """One-hot levels of the centres in the columns with few levels, (n, T); zero where a cell is missing."""
        return self._centres.levels

    def _pairs(self, x: Tensor) -> _Pairs:
        book, lam = self.base.codebook, self.widths.other
        layout, cells = book.levels, x[:, book.finite]
        alone = self.marginals.expand(len(x)).log_prob(x).double()  # (B, C)
        own = alone[:, book.finite]
        # a category: the same whatever the centre, but where it is the centre's own
        levels = layout.per_level(own + math.log(lam)).clone()
        same = torch.logaddexp(own + math.log(lam), torch.full_like(own, math.log1p(-lam)))
        at = layout.index_of(cells.nan_to_num(0.0).long())
        levels.scatter_(1, at, same)
        for j, kernel, where in self.line_kernels:
            levels[:, where] = kernel[cells[:, j].nan_to_num(0.0).long()]
        levels = levels.masked_fill(layout.per_level(cells.isnan()), 0.0)
        reals = x[:, book.reals]
        return _Pairs(levels, alone, reals.nan_to_num(0.0), (~reals.isnan()).double())

    @cached_property
    def marginals(self) -> Posterior:
        """Independent columns, one row."""
        return self.base.marginals()

    @cached_property
    def line_kernels(self) -> list[tuple[int, Tensor, Tensor]]:
        """Columns of numbers on few levels: place among the finite, log-kernel (K, K) of value and centre, levels."""
        book = self.base.codebook
        found = []
        for j, column in enumerate(book.finite.tolist()):
            points = book.columns[column]
            if points.kind != "line":
                continue
            where = torch.nonzero(book.levels.level_column == j).flatten()
            where = where[book.levels.level_code[where].argsort()]
            log_pi = self.marginals.column(column)[0].double()  # (K,)
            level = log_pi.new_tensor(points.levels)
            pi = log_pi[: points.n_levels].softmax(0)
            sd = (pi * (level - (pi * level).sum()) ** 2).sum().sqrt().clamp_min(1e-6)
            z = (level[:, None] - level[None]) / (2 * sd * self.widths.line)
            kernel = torch.full((len(log_pi), len(log_pi)), -math.inf).to(log_pi)
            near = torch.log_softmax(-0.5 * z**2, 0) + math.log1p(-STRAY)  # over values
            kernel[: points.n_levels, : points.n_levels] = near
            found.append((j, torch.logaddexp(kernel, log_pi[:, None] + math.log(STRAY)), where))
        return found

    def _log_codes(self, x: Tensor, column: int, alone: Tensor) -> Tensor:
        """Log-kernels of a high-cardinality column, (B, n); 0 where either is missing."""
        lam = self.widths.other
        own = alone[:, column, None] + math.log(lam)
        same = torch.logaddexp(own, torch.full_like(own, math.log1p(-lam)))
        cells, centres = x[:, column, None], self.centres[None, :, column]
        kernel = torch.where(cells == centres, same, own)
        return kernel.masked_fill(cells.isnan() | centres.isnan(), 0.0)
