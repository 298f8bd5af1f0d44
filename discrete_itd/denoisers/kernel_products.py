r"""Kernels of rows at all centres of a kernel density at once, as a product of two matrices.

The logarithm of the mass that a centre :math:`c_i` leaves to the evidence about a row,
:math:`\sum_j \log \int k_j(x \mid c_{ij})\,e^{\ell_j(x)}dx`, is a sum over columns of terms
:math:`\phi(\ell_j)^\top \psi(c_{ij})`. A categorical column has a term for each level, whose :math:`\psi` is one at the
centre's level; a continuous column, for a Gaussian of variance :math:`s^2` and evidence :math:`(y, \gamma)`, has

.. math:: -\tfrac12\log(1 + \gamma s^2) - \tfrac12 a z^2 + (az)c - \tfrac12 a c^2, \qquad
          a = \gamma / (1 + \gamma s^2),\ az = y / (1 + \gamma s^2);

a centre whose cell is missing has the logarithm of the mass that the marginal leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import row_product
from discrete_itd.denoisers.marginal import MarginalDenoiser

STRAY = 0.01  # probability with which a number on few levels is drawn from the marginal


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


class Evidence(NamedTuple):
    """What is known of B rows, apart from their high-cardinality columns; float64.

    Attributes
    ----------
    levels : Tensor, shape (B, T)
        Likelihood of every level, at most one in each column; 1 where nothing is known.
    values, precision : Tensor, shape (B, R)
        Of continuous columns: the statistic y over its SNR, and the SNR; infinite where the value is known, zero where
        nothing is.
    reals : Tensor, shape (B, R)
        Log-probability of the values in their columns, whatever the centre; 0 where nothing is known.
    """

    levels: Tensor
    values: Tensor
    precision: Tensor
    reals: Tensor

    def without(self, values: Tensor) -> Evidence:
        """The same where some of the continuous values, bool (B, R), are not known."""
        rest = (t.masked_fill(values, 0.0) for t in self[1:])
        return Evidence(self.levels, *rest)


class Centres:
    """Training rows as what the features of other rows are multiplied with.

    Parameters
    ----------
    codebook : Codebook
    cells : Tensor, shape (n, C)
        NaN where a cell is missing.

    Attributes
    ----------
    cells : Tensor of float64, shape (n, C)
    levels : Tensor of float64, shape (n, T)
        One-hot; zero where a cell is missing.
    gone, known : Tensor of float64, shape (n, C)
        1 where the cell is missing, or is not.
    table : Tensor of float64, shape (P, n)
        One line for each feature of a row: T levels, three for each continuous column, and one for each column in which
        a cell is missing.
    column : Tensor of int64, shape (P,)
        The column of each feature.
    with_gaps : Tensor of int64
        The columns in which a cell is missing, high-cardinality ones left out.
    """

    def __init__(self, codebook: Codebook, cells: Tensor) -> None:
        book, cells = codebook, cells.double()
        gone = cells.isnan()
        self.cells, self.gone, self.known = cells, gone.double(), (~gone).double()
        finite = cells[:, book.finite].nan_to_num(0.0).long()
        self.levels = cells.new_zeros(len(cells), book.levels.n_points)
        self.levels.scatter_(1, book.levels.index_of(finite), self.known[:, book.finite])
        values, there = cells[:, book.reals].nan_to_num(0.0), self.known[:, book.reals]
        told = torch.cat([book.finite, book.reals])
        self.with_gaps = told[gone[:, told].any(0)]
        parts = [self.levels, there, values, -0.5 * values.square(), self.gone[:, self.with_gaps]]
        self.table = torch.cat(parts, 1).T.contiguous()
        levels = book.finite[book.levels.level_column]
        self.column = torch.cat([levels, *[book.reals] * 3, self.with_gaps])
        self.is_gap = torch.zeros_like(self.column, dtype=torch.bool)
        self.is_gap[len(self.column) - len(self.with_gaps) :] = True
        self._sorted: dict[int, Tensor] = {}
        self._finite = book.finite

    def __len__(self) -> int:
        return len(self.cells)

    def by_level(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the centres (B, n) summed at each level, (B, T), and where the cell is missing, (B, F)."""
        return row_product(share, self.levels), row_product(share, self.gone[:, self._finite])

    def sorted_values(self, column: int) -> Tensor:
        """The cells of one column that are not missing, in increasing order."""
        if column not in self._sorted:
            cells = self.cells[:, column]
            self._sorted[column] = cells[~cells.isnan()].sort().values
        return self._sorted[column]


@dataclass(frozen=True)
class Kernels:
    """The kernels of all centres.

    Parameters
    ----------
    base : MarginalDenoiser
        The independent columns.
    centres : Centres
    widths : Widths
    """

    base: MarginalDenoiser
    centres: Centres
    widths: Widths

    @cached_property
    def marginals(self) -> Posterior:
        """Independent columns, one row."""
        return self.base.marginals()

    @cached_property
    def prior(self) -> Tensor:
        """Marginal probability of every level: float64, shape (1, T)."""
        logits = self.marginals.categorical.logits.double()
        return self.base.codebook.levels.log_softmax(logits).exp()

    @cached_property
    def line_kernels(self) -> list[tuple[int, Tensor, Tensor]]:
        """Columns of numbers on few levels: place among the finite, kernel (K, K) of value and centre, levels.

        A kernel is a Gaussian restricted to the levels, or with probability ``STRAY`` the marginal, which alone can be
        an unseen value, and is alone around an unseen value.
        """
        book = self.base.codebook
        found = []
        for j, points in enumerate(book.levels.columns):
            if points.kind != "line":
                continue
            where = torch.nonzero(book.levels.level_column == j).flatten()
            where = where[book.levels.level_code[where].argsort()]
            pi = self.prior[0, where]  # (K,)
            level = pi.new_tensor(points.levels)
            seen = pi[: points.n_levels] / pi[: points.n_levels].sum()
            sd = (seen * (level - (seen * level).sum()) ** 2).sum().sqrt().clamp_min(1e-6)
            z = (level[:, None] - level[None]) / (2 * sd * self.widths.line)
            kernel = pi[:, None].expand(-1, len(pi)).clone()
            near = torch.softmax(-0.5 * z**2, 0)  # over values
            inside = kernel[: points.n_levels, : points.n_levels]
            inside.mul_(STRAY).add_(near, alpha=1 - STRAY)
            kernel[points.n_levels :, : points.n_levels] *= STRAY
            found.append((j, kernel, where))
        return found

    # -- evidence -------------------------------------------------------------------------------

    def known(self, x: Tensor) -> Evidence:
        """The evidence of rows ``x`` (B, C) whose cells are known, or missing."""
        book = self.base.codebook
        cells, values = x[:, book.finite], x[:, book.reals]
        gone = cells.isnan()
        levels = book.levels.per_level(gone).double()
        at = book.levels.index_of(cells.nan_to_num(0.0).long())
        levels.scatter_(1, at, 1.0)
        precision = torch.full_like(values, math.inf).masked_fill(values.isnan(), 0.0)
        reals = values
        if len(book.reals):
            gaussian = self.marginals.expand(len(x)).gaussian
            assert gaussian is not None
            reals = gaussian.log_prob(values.nan_to_num(0.0).to(book.dtype)).double()
            reals = reals.masked_fill(values.isnan(), 0.0)
        return Evidence(levels, values.nan_to_num(0.0), precision, reals)

    def level_mass(self, likelihood: Tensor) -> tuple[Tensor, Tensor]:
        """The mass that a centre at each level leaves to the likelihood (B, T), (B, T), and the marginal, (B, F)."""
        book, lam = self.base.codebook, self.widths.other
        alone = book.levels.sum(likelihood * self.prior)
        mass = (1 - lam) * likelihood + lam * book.levels.per_level(alone)
        for _, kernel, where in self.line_kernels:
            mass[:, where] = row_product(likelihood[:, where], kernel)
        return mass, alone

    def features(self, evidence: Evidence) -> Tensor:
        """What a row is to the lines of the centres' table: float64, shape (B, P), nats."""
        book, centres = self.base.codebook, self.centres
        mass, alone = self.level_mass(evidence.levels)
        parts = [mass.log()]
        if len(book.reals):
            parts += self._of_reals(evidence)
        if len(centres.with_gaps):
            every = evidence.values.new_zeros(len(mass), book.n_columns)
            every[:, book.finite] = alone.log()
            every[:, book.reals] = evidence.reals
            parts.append(every[:, centres.with_gaps])
        return torch.cat(parts, 1)

    def _of_reals(self, evidence: Evidence) -> list[Tensor]:
        """The three features of each continuous column."""
        var, gamma, known = self.widths.real**2, evidence.precision, evidence.precision.isinf()
        shrink = 1 + torch.where(known, 0.0, gamma) * var
        a = torch.where(known, 1 / var, gamma / shrink)
        norm = torch.where(known, math.log(2 * math.pi * var), shrink.log())
        return [-0.5 * (norm + a * evidence.values.square()), a * evidence.values, a]

    def levels_given(self, at_level: Tensor, without: Tensor) -> Tensor:
        """The sum of the centres' kernels, given their weights by level and without the cell: (B, T)."""
        levels, lam = self.base.codebook.levels, self.widths.other
        broad = levels.per_level(lam * levels.sum(at_level) + without)
        out = (1 - lam) * at_level + self.prior * broad
        for j, kernel, where in self.line_kernels:
            missing = self.prior[:, where] * without[:, j, None]
            out[:, where] = row_product(at_level[:, where], kernel.T) + missing
        return out

    # -- kernels --------------------------------------------------------------------------------

    def log_kernels(self, x: Tensor) -> Tensor:
        """Log-density of each row's known cells around each centre, (B, n), nats."""
        total = self.log_total(self.features(self.known(x)))
        for v in self.base.codebook.vocabularies:
            total = total + self.log_codes(x[:, v.column], v.column)
        return total

    def log_total(self, features: Tensor) -> Tensor:
        """Log-mass of each centre given the features of rows, high-cardinality columns left out: (B, n), nats."""
        return row_product(features, self.centres.table)

    def log_kernels_of(self, x: Tensor, features: Tensor, column: int) -> Tensor:
        """The part of one column in :meth:`log_kernels`, given the rows' features."""
        if any(v.column == column for v in self.base.codebook.vocabularies):
            return self.log_codes(x[:, column], column)
        own = torch.nonzero(self.centres.column == column).flatten()
        return row_product(features[:, own], self.centres.table[own])

    def log_codes(self, cells: Tensor, column: int) -> Tensor:
        """Log-kernels of cells (B,) of a high-cardinality column, (B, n); 0 where a cell is missing."""
        lam, centres = self.widths.other, self.centres.cells[:, column]
        alone = self.log_marginal(cells, column)[:, None]
        own = alone + math.log(lam)
        same = torch.logaddexp(own, torch.full_like(own, math.log1p(-lam)))
        kernel = torch.where(cells[:, None] == centres, same, own)
        kernel = torch.where(centres.isnan(), alone, kernel)
        return kernel.masked_fill(cells.isnan()[:, None], 0.0)

    def log_marginal(self, cells: Tensor, column: int) -> Tensor:
        """Log-probability of cells (B,) in their column: float64, (B,), nats; 0 where it is missing."""
        rows = cells.new_full((len(cells), self.base.codebook.n_columns), math.nan)
        rows[:, column] = cells
        return self.marginals.expand(len(cells)).log_prob(rows)[:, column].double()
