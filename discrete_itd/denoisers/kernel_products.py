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

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import index_tensor
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import NARROW, row_product
from discrete_itd.denoisers.marginal import MarginalDenoiser

STRAY = 0.01  # probability with which a number on few levels is drawn from the marginal


def log_sum(values: Tensor) -> Tensor:
    """Log of the sum of exponentials in each row: (B, n), not all minus infinity, to (B,).

    Terms that are no normal number in units of the largest count as the least one: they change nothing, and arithmetic
    of subnormal numbers, which ``torch.logsumexp`` uses, is ten times slower.
    """
    top = values.amax(1, keepdim=True)
    least = 1 + math.log(torch.finfo(values.dtype).tiny)  # rounding must not make it subnormal
    return (values - top).clamp_min_(least).exp_().sum(1).log_() + top[:, 0]


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


def gaussian_mass(precision: Tensor, var: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""What Gaussians of variance ``var`` leave to evidence of some ``precision``, infinite for a known value.

    The two results, n and a, give the logarithm of the mass as :math:`-\tfrac12 (n + a (z - c)^2)`, with z the value
    and c the mean; of a known value it is the log-density.
    """
    known = precision.isinf()
    gamma = precision.masked_fill(known, 0.0)
    shrink = 1 + gamma * var
    norm = torch.where(known, 2 * math.pi * var, shrink).log()
    return norm, torch.where(known, 1 / var, gamma / shrink)


class Features(NamedTuple):
    """What rows, or centres, are to the product of both.

    Attributes
    ----------
    levels : Tensor, shape (B, P)
        A feature for each level, then for each low-cardinality or continuous column in which a centre's cell is
        missing; in the codebook's floating type.
    reals : Tensor of float64, shape (B, 3 R)
        Three for each continuous column: in double precision, as large parts of their products cancel.
    """

    levels: Tensor
    reals: Tensor


class Centres:
    """Training rows, or averages of them, as what other rows are multiplied with.

    Parameters
    ----------
    codebook : Codebook
    cells : Tensor, shape (n, C)
        NaN where a cell is missing.

    Attributes
    ----------
    cells : Tensor of float64, shape (n, C)
    gone : Tensor, shape (n, C)
        1 where the cell is missing.
    features : Features
        One-hot levels and missing cells; and for each value c of a continuous column 1, c and :math:`-c^2/2`, or zeros.
    columns : Features
        The column of each feature: int64, (P,) and (3 R,).
    with_gaps : Tensor of int64
        Low-cardinality and continuous columns in which a cell is missing.
    reals_with_gaps : bool
        Whether a continuous one is among them.
    codes : dict of int to pair of Tensor of int64, shapes (U,) and (n,)
        For each high-cardinality column its distinct codes, 0 for a missing cell, and which one each centre has.

    Notes
    -----
    The constructor looks at the cells, for which the host waits; nothing else does.
    """

    def __init__(self, codebook: Codebook, cells: Tensor) -> None:
        book, cells, like = codebook, cells.double(), codebook.known_snr
        is_gone = cells.isnan()
        self.cells, self.gone = cells, is_gone.to(like)
        self.finite = book.finite
        codes = cells[:, book.finite].nan_to_num(0.0).long()
        levels = like.new_zeros(len(cells), book.levels.n_points)
        levels.scatter_(1, book.levels.index_of(codes), 1 - self.gone[:, book.finite])
        self.n_levels = levels.shape[1]
        values = cells[:, book.reals].nan_to_num(0.0)
        told = torch.cat([book.finite, book.reals])
        with_gaps = told[is_gone[:, told].any(0)]
        self.features = Features(
            torch.cat([levels, self.gone[:, with_gaps]], 1),
            torch.cat([(~is_gone[:, book.reals]).double(), values, -0.5 * values.square()], 1),
        )
        self.columns = Features(
            torch.cat([book.finite[book.levels.level_column], with_gaps]),
            torch.cat([book.reals] * 3),
        )
        self.with_gaps, self.reals_with_gaps = with_gaps, bool(is_gone[:, book.reals].any())
        # which feature of the levels each centre has in each column, the one beyond the last if none
        last = self.n_levels + len(with_gaps)
        gaps = torch.arange(self.n_levels, last, device=cells.device)
        gap_of = torch.full((book.n_columns,), last, device=cells.device)
        gap_of[with_gaps] = gaps
        where = torch.where(is_gone, gap_of, last)
        where[:, book.finite] = torch.where(
            is_gone[:, book.finite], where[:, book.finite], book.levels.index_of(codes)
        )
        slot_column = torch.unique(torch.cat([book.finite, with_gaps]))
        self._slots = where[:, slot_column].contiguous()
        self._slots_of = places(slot_column.tolist())
        self._reals_of = places(book.reals.tolist() * 3)
        self.codes = {
            v.column: torch.unique(cells[:, v.column].nan_to_num(0.0).long(), return_inverse=True)
            for v in book.vocabularies
        }
        self._sorted: dict[int, Tensor] = {}

    def to(self, device: torch.device) -> Centres:
        """The same on another device."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(other, name, value.to(device))
        other.features = Features(*(t.to(device) for t in self.features))
        other.columns = Features(*(t.to(device) for t in self.columns))
        other.codes = {j: (c.to(device), at.to(device)) for j, (c, at) in self.codes.items()}
        other._sorted = {j: values.to(device) for j, values in self._sorted.items()}
        return other

    def __len__(self) -> int:
        return len(self.cells)

    def product(self, rows: Features, columns: Collection[int] | None = None) -> Tensor:
        """Products of features of rows with those of the centres, (B, n): of all columns, or of some.

        Of its levels a centre has one in each column, so the product of these is a sum of a few.
        """
        n, more = len(rows.levels), max(0, NARROW - len(rows.levels))  # see row_product
        slots, ours, theirs = self._slots, self.features.reals, rows.reals
        if columns is not None:
            own, real = (
                index_tensor(tuple(i for j in columns for i in of.get(j, ())), str(slots.device))
                for of in (self._slots_of, self._reals_of)
            )
            slots, ours, theirs = slots[:, own], ours[:, real], theirs[:, real]
        if slots.shape[1]:
            values = nn.functional.pad(rows.levels.T, (0, more, 0, 1))
            total = nn.functional.embedding_bag(slots, values, mode="sum")
        else:
            total = rows.levels.new_zeros(len(self), n + more)
        if ours.shape[1]:
            values = nn.functional.pad(theirs.T, (0, more))
            total += (ours @ values).to(total)
        return total[:, :n].T

    def by_level(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the centres (B, n) summed at each level, (B, T), and where the cell is missing, (B, F)."""
        levels = self.features.levels[:, : self.n_levels]
        share = share.to(levels)
        without = row_product(share, self.gone[:, self.finite])
        return row_product(share, levels).double(), without.double()

    def sorted_values(self, column: int) -> Tensor:
        """The cells of one column that are not missing, in increasing order."""
        if column not in self._sorted:
            cells = self.cells[:, column]
            self._sorted[column] = cells[~cells.isnan()].sort().values
        return self._sorted[column]


def places(columns: list[int]) -> dict[int, list[int]]:
    """Where each column is in a list of them."""
    found: dict[int, list[int]] = {}
    for i, j in enumerate(columns):
        found.setdefault(j, []).append(i)
    return found


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
    def line_kernels(self) -> list[tuple[int, Tensor, slice]]:
        """Columns of numbers on few levels: place among the finite, kernel (K, K) of value and centre, levels.

        A kernel is a Gaussian restricted to the levels, or with probability ``STRAY`` the marginal, which alone can be
        an unseen value, and is alone around an unseen value.
        """
        book = self.base.codebook
        found = []
        for j, points in enumerate(book.levels.columns):
            if points.kind != "line":
                continue
            where = book.levels.own(j)
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

    def features(self, evidence: Evidence) -> Features:
        """The features of rows, nats."""
        book, with_gaps = self.base.codebook, self.centres.with_gaps
        mass, alone = self.level_mass(evidence.levels)
        parts = [mass.log()]
        if len(with_gaps):
            every = mass.new_zeros(len(mass), book.n_columns)
            every[:, book.finite] = alone.log()
            every[:, book.reals] = evidence.reals
            parts.append(every[:, with_gaps])
        return Features(torch.cat(parts, 1).to(book.dtype), torch.cat(self._of_reals(evidence), 1))

    def _of_reals(self, evidence: Evidence) -> list[Tensor]:
        """The three features of each continuous column."""
        norm, a = gaussian_mass(evidence.precision, self.widths.real**2)
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
        total = self.centres.product(self.features(self.known(x)))
        for v in self.base.codebook.vocabularies:
            total = total + self.log_codes(x[:, v.column], v.column)
        return total

    def log_kernels_of(self, x: Tensor, features: Features, column: int) -> Tensor:
        """The part of one column in :meth:`log_kernels`, given the rows' features."""
        if any(v.column == column for v in self.base.codebook.vocabularies):
            return self.log_codes(x[:, column], column)
        return self.centres.product(features, (column,))

    def log_codes(self, cells: Tensor, column: int) -> Tensor:
        """Log-kernels of cells (B,) of a high-cardinality column, (B, n); 0 where a cell is missing."""
        lam, centres = self.widths.other, self.centres.cells[:, column]
        alone = self.log_marginal(cells, column)[:, None]
        own = alone + math.log(lam)
        same = torch.logaddexp(own, torch.full_like(own, math.log1p(-lam)))
        kernel = torch.where(cells[:, None] == centres, same, own)
        kernel = torch.where(centres.isnan(), alone, kernel)
        return kernel.masked_fill(cells.isnan()[:, None], 0.0).to(self.base.codebook.dtype)

    def log_marginal(self, cells: Tensor, column: int) -> Tensor:
        """Log-probability of cells (B,) in their column: float64, (B,), nats; 0 where it is missing."""
        rows = cells.new_full((len(cells), self.base.codebook.n_columns), math.nan)
        rows[:, column] = cells
        return self.marginals.expand(len(cells)).log_prob(rows)[:, column].double()
