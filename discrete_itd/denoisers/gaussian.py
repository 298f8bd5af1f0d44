"""Gaussians of any covariance, one in each class of a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from discrete_itd import devices
from discrete_itd.channel.codebook import REAL_KNOWN_SNR
from discrete_itd.channel.rounded_numbers import Intervals, NumberLines
from discrete_itd.denoisers.base import BLOCK, CACHED, LARGE, filled, row_product, rows_at_once
from discrete_itd.denoisers.marginal import NARROWEST_SD

Made = TypeVar("Made")

# Widths of cells in standard deviations. Below EVEN_CELL a density counts as constant, which errs by 2e-5 nats within
# 1 sd; below NARROW_CELL four derivatives are used, which errs by 1e-4 nats within 3 sd, 2e-4 of the nats within 30.
EVEN_CELL, NARROW_CELL = 0.02, 0.6
# Distances, over the root of two, beyond which an error function underflows: the tail of a Gaussian goes on from there
# by its exponent alone.
FARTHEST = {torch.float32: 9.0, torch.float64: 26.0}
ALONE = 4  # numbers for each class of a row that a computation of one column at a time leaves in the cache
FEW_GAPS = 8  # most missing cells of a row for the Kalman filter: more cost as much as a pattern of their own


class GivenEvidence(NamedTuple):
    """Coefficients, float64, of the posterior of U states as a function of their statistic t (R).

    ``mass`` (U, F, Z) are coefficients of :func:`monomials` of t: the log-probability of the evidence given the class.
    Means of the columns are ``gain @ t + offset``, (U, Z, R, R) and (U, Z, R); ``covariance`` is (U, Z, R, R).
    """

    mass: Tensor
    gain: Tensor
    offset: Tensor
    covariance: Tensor


class DenseGaussians:
    r"""Gaussians of continuous columns in each class of a mixture, with means (Z, R) and Cholesky factors (Z, R, R).

    In every class a number is a linear function of others, with an error; many classes together follow a curve. For
    evidence (2) about continuous columns, let :math:`D = \operatorname{diag}(\sqrt{\gamma_j})` and :math:`t_j = y_j /
    \sqrt{\gamma_j}`, or 1 and the value itself where the cell is known; N the diagonal matrix with 0 at known cells and
    1 elsewhere. Then t is Gaussian given the class, with mean :math:`D\mu_z` and covariance :math:`S_z = D \Sigma_z D +
    N`, which gives the mass that the class leaves to the evidence, and

    .. math:: \mathrm{E}[x \mid t, z] = \mu_z + \Sigma_z D S_z^{-1} (t - D\mu_z), \qquad
              \mathrm{Cov}[x \mid t, z] = \Sigma_z - \Sigma_z D S_z^{-1} D \Sigma_z.

    Both the mass, a quadratic function of t, and the mean, a linear one, are products of matrices for all rows of which
    the same cells are known to the same SNR.

    The log-mass (20) of recorded numbers follows a chain: each number's cell given the recorded numbers before it, in
    the order of the table. It is normalised for any pattern of known cells, and differs between orders by
    :math:`O((\delta/\sigma)^2)`. Where all cells of a row are narrow it is the density times their widths.

    References
    ----------
    Lauritzen & Wermuth, "Graphical models for associations between variables, some of which are qualitative and some
    quantitative", Annals of Statistics 17, 1989; Ghahramani & Jordan, "Supervised learning from incomplete data via an
    EM approach", NIPS 1993, for the fit to rows with missing cells.
    """

    def __init__(self, mean: Tensor, chol: Tensor) -> None:
        self.mean, self.chol = mean, chol
        self._kept: dict[Any, Any] = {}

    def covariance(self) -> Tensor:
        """Covariances of the continuous columns given each class: (Z, R, R), float64."""
        chol = self.chol.double()
        return chol @ chol.mT

    def blurred(self, lines: NumberLines) -> DenseGaussians:
        """The Gaussians of records: their cells add width²/12 to the variances (Sheppard).

        Of each column a class has one width, that of the cell at its mean: log-densities are then one product of
        matrices. They are nearly log-masses but for a term of the row, and too large by far where a class lies within
        one cell, so they serve to divide rows among classes alone.
        """
        var = lines.cells(self.mean).width.square() / 12
        return DenseGaussians(self.mean, cholesky(self.covariance() + torch.diag_embed(var)))

    def posterior(self, snr: Tensor) -> GivenEvidence:
        """Posterior of the classes and the continuous columns at SNRs (U, R) of the latter."""
        mean, covariance, known = self.mean.double(), self.covariance(), torch.isinf(snr)
        root = torch.where(known, 1.0, snr.double().sqrt())
        seen = root[:, None, :, None] * covariance * root[:, None, None, :]
        seen = seen + torch.diag_embed((~known).to(seen))[:, None]
        # no check that waits for the device: the matrix is positive definite
        factor = torch.linalg.cholesky_ex(seen).L
        precision = torch.cholesky_inverse(factor)
        shift = root[:, None] * mean  # (U, Z, R)
        linear = (precision @ shift[..., None])[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        n_known = known.sum(1, keepdim=True)
        constant = -log_det - 0.5 * ((shift * linear).sum(-1) + math.log(2 * math.pi) * n_known)
        gain = covariance * root[:, None, None, :] @ precision
        return GivenEvidence(
            quadratics(precision, linear, constant).mT,
            gain,
            mean - (gain @ shift[..., None])[..., 0],
            covariance - gain * root[:, None, None, :] @ covariance,
        )

    def _patterns(self, snr: Tensor, n_numbers: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Distinct SNRs (U, R) of rows (B, R), and the indices (U, n) of the rows that have them: U or n is 1.

        On a CPU U is 1 and n a multiple of a block, but rows with noise of their own have n = 1; elsewhere n is 1. For
        each class of a row so many numbers are computed, R by default.
        """
        at_once = rows_at_once(CACHED // (len(self.mean) * (n_numbers or self.mean.shape[1])))
        every = torch.arange(len(snr), device=snr.device)
        alone, shared = every, []
        if not devices.static_shapes(snr.device):
            if len(snr) > 1 and bool((snr == snr[:1]).all()):  # cheaper than sorting rows
                alone, shared = every[:0], [every]
            else:
                ways, way, n = snr.unique(dim=0, return_inverse=True, return_counts=True)
                single = (n == 1) & ((ways > 0) & ~torch.isinf(ways)).any(1)
                alone = torch.nonzero(single[way]).flatten()
                shared = [torch.nonzero(way == u).flatten() for u in (~single).nonzero().flatten()]
        if len(alone):
            for rows in alone.split(rows_at_once(at_once // snr.shape[1])):
                yield snr[rows], rows[:, None]
        for rows in shared:
            for some in filled(rows).split(at_once):
                yield snr[some[:1]], some[None]

    def evidence(self, y: Tensor, snr: Tensor, lines: NumberLines) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability (B, Z) of the evidence of states (B, R), and means and variances (B, R, Z) given it.

        Known numbers have the masses of their cells; noisy ones are taken as points, however coarse their lattice.
        """
        known = torch.isinf(snr)
        cells = lines.cells(y.masked_fill(~known, math.nan))
        mean, var = y.new_zeros(2, *snr.shape, len(self.mean))
        fit, few = y.new_zeros(len(y), len(self.mean)), torch.zeros_like(known[:, 0])
        for rows, missing in self._few_gaps(cells.width, (known | (snr == 0)).all(1)):
            some = Intervals(*(t[rows] for t in cells))
            few[rows] = True
            log_masses, *moments = self._given_known(some, missing)
            fit[rows] = log_masses.to(fit)
            mean[rows], var[rows] = y[rows, :, None], 1 / REAL_KNOWN_SNR
            mean[rows[:, None], missing], var[rows[:, None], missing] = (t.to(y) for t in moments)
        root = torch.where(known, 1.0, snr.double().sqrt())
        # where the root is 0, so is y
        t = y.double() / root.clamp_min(torch.finfo(root.dtype).tiny)

        def by_patterns(index: Tensor) -> Tensor:
            for ways, i in self._patterns(snr[index]):
                rows = index[i]
                posterior, t_rows, flat = self.posterior(ways), t[rows], rows.flatten()  # (U, n, R)
                fit.index_copy_(
                    0, flat, row_product(monomials(t_rows), posterior.mass).flatten(0, 1).to(fit)
                )
                after = torch.einsum("unj,uzij->uniz", t_rows, posterior.gain)
                after = after + posterior.offset.mT[:, None]
                mean.index_copy_(0, flat, after.flatten(0, 1).to(mean))
                new = posterior.covariance.diagonal(dim1=-2, dim2=-1).clamp_min(1 / REAL_KNOWN_SNR)
                var.index_copy_(0, flat, new.mT.to(var).repeat_interleave(rows.shape[1], 0))
            some = Intervals(*(part[index] for part in cells))
            return fit[index] + (self.log_masses(some) - self.log_densities(some.middle)).to(fit)

        return devices.replace_rows(fit, ~few, by_patterns), mean, var

    def _few_gaps(self, cells: Tensor, which: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of rows (n,) with the same small number m of missing cells, and the columns of these: (n, m).

        ``which`` (B,) masks rows of cells (B, R), NaN where missing. Where no shape may depend on data, there are none.
        """
        if devices.static_shapes(cells.device):
            return
        n_gaps = cells.isnan().sum(1).masked_fill(~which, 0)
        for m in n_gaps.unique().tolist():
            if 0 < m <= FEW_GAPS:
                n_numbers = len(self.mean) * max(self.mean.shape[1], m**2)
                at_once = max(BLOCK, rows_at_once(CACHED // n_numbers))
                for rows in torch.nonzero(n_gaps == m).flatten().split(at_once):
                    yield rows, torch.nonzero(cells[rows].isnan())[:, 1].view(-1, m)

    def _given_known(self, cells: Intervals, missing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-masses (n, Z) of cells (n, R), and means and variances (n, m, Z) of the ``missing`` columns (n, m).

        Where all cells of a row are narrow, by its density, and else by :meth:`_filtered`.
        """
        shape = *missing.shape, len(self.mean)
        fit = cells.width.new_zeros(shape[0], shape[2])
        mean, var = fit.new_zeros(shape), fit.new_zeros(shape)
        wide = (cells.width > self._narrowest).any(1)
        for rows in (torch.nonzero(wide).flatten(), torch.nonzero(~wide).flatten()):
            if not len(rows):
                continue
            some, gaps = Intervals(*(t[rows] for t in cells)), missing[rows]
            if bool(wide[rows[0]]):
                log_masses, mean[rows], var[rows] = self._filtered(
                    some, gaps, range(cells.width.shape[1])
                )
                fit[rows] = torch.stack(log_masses).sum(0)
                continue
            log_p, centre, swept = self._eliminated(some.middle.nan_to_num(0.0), gaps)
            fit[rows] = log_p + some.log_width().nan_to_num(0.0).sum(1)[:, None]
            for k, middle in enumerate(centre):
                mean[rows, k], var[rows, k] = middle, -swept[k, k]
        return fit, mean, var.clamp_min(1 / REAL_KNOWN_SNR)

    def _filtered(
        self, cells: Intervals, missing: Tensor, order: Sequence[int]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Log-masses, R of (n, Z), of cells (n, R), means and variances (n, m, Z) of the ``missing`` columns (n, m).

        All are float64. A column's standardised residual given all columns before it in an order is a linear function
        of these. So the missing cells are the state of a Kalman filter, whose observations are the known ones, column
        after column. Log-masses are 0 where a cell is missing.
        """
        (n, m), n_classes = missing.shape, len(self.mean)
        (affine, sd), width = self._whole_chain(order), cells.width.double()
        t = filled(cells.middle.double().nan_to_num(0.0))
        t = torch.cat([t, torch.ones_like(t[:, :1])], 1)
        mean, cov = t.new_zeros(n, m, n_classes), t.new_zeros(n, m, m, n_classes)
        log_masses = []
        has_state = False
        for r in order:
            row, k = (missing == r).nonzero().unbind(1)
            has_state = has_state or len(row) > 0
            if not has_state:  # no missing cell so far
                cell = (t @ affine[r][0])[:n], width[:, r, None], sd[r][0]
                log_masses.append(log_masses_in_classes(*cell, t.dtype).nan_to_num_(0.0))
                continue
            slope = affine[r][0, missing]  # of the residual on earlier missing cells: (n, m, Z)
            along = torch.zeros_like(mean)
            for i in range(m):
                along.addcmul_(cov[:, :, i], slope[:, i, None])
            z = (t @ affine[r][0])[:n] + (slope * mean).sum(1)
            var = 1 + (slope * along).sum(1)
            scale = var.sqrt()
            cell = z / scale, width[:, r, None], sd[r][0] * scale
            log_masses.append(log_masses_in_classes(*cell, t.dtype).nan_to_num_(0.0))
            recorded = width[:, r, None].nan_to_num(0.0) / sd[r][0]
            gain = (1 / (var + recorded.square() / 12)).index_fill(0, row, 0.0)[:, None]
            mean.addcmul_(along, z[:, None] * gain, value=-1.0)
            cov.addcmul_(along[:, :, None], (along * gain)[:, None], value=-1.0)
            if len(row):
                mean[row, k], across = -sd[r][0] * z[row], -sd[r][0] * along[row]
                cov[row, k], cov[row, :, k] = across, across
                cov[row, k, k] = sd[r][0].square() * var[row]
        var = cov.diagonal(dim1=1, dim2=2).mT.clamp_min(1 / REAL_KNOWN_SNR)
        return log_masses, mean, var

    def log_masses(self, cells: Intervals) -> Tensor:
        """Log-masses of cells (B, R), NaN where missing: (B, Z)."""
        n_real, missing = cells.width.shape[1], cells.width.isnan()
        out = self.mean.new_zeros(len(cells.width), len(self.mean))
        wide = cells.width > self._narrowest
        affine, sd = self._whole_chain()

        def as_densities(rows: Tensor) -> Tensor:
            middle, width = (part[filled(rows)] for part in cells)
            total = self.log_densities(middle)
            total = total.add_(Intervals(middle, width).log_width().nan_to_num(0.0).sum(1)[:, None])
            t = torch.cat([middle, torch.ones_like(middle[:, :1])], 1)
            for r in range(n_real):  # there is more in a wide cell of a complete row

                def with_cells(
                    i: Tensor, r: int = r, t: Tensor = t, total: Tensor = total
                ) -> Tensor:
                    z = row_product(filled(t[i]), affine[r][0])[: len(i)]
                    some = z, width[i, r, None], sd[r][0]
                    more = log_masses_in_classes(*some, out.dtype).double()
                    return total[i] + (more - log_densities_in_classes(*some))

                total = devices.replace_rows(total, wide[filled(rows), r], with_cells)
            return total.to(out)[: len(rows)]

        def chained(rows: Tensor) -> Tensor:
            some = Intervals(*(part[rows] for part in cells))
            return self._chained(some, range(n_real), (n_real,))[0]

        # the chain of all columns costs as much as what a third of them have beyond their densities
        by_chain = wide.any(1) & (missing.any(1) | (3 * wide.sum(1) > n_real))
        out = devices.replace_rows(out, ~by_chain, as_densities)
        return devices.replace_rows(out, by_chain, chained)

    def log_masses_before(self, cells: Intervals, later: Sequence[int | None]) -> Tensor:
        """Log-masses of cells (B, R) without the ``later`` ones, and as these join them one by one: (1 + K, B, Z).

        In a chain with these last; None stands for a step in which no number joins.
        """
        last = [r for r in later if r is not None]
        first = [r for r in range(cells.width.shape[1]) if r not in last]
        ends = [len(first)]
        for r in later:
            ends.append(ends[-1] + (r is not None))
        return self._chained(cells, first + last, ends)

    def _chained(self, cells: Intervals, order: Sequence[int], ends: Sequence[int]) -> Tensor:
        """Log-masses (S, B, Z) of the first cells (B, R) in an order, as many as each of ``ends`` says."""
        out = self.mean.new_zeros(len(ends), len(cells.width), len(self.mean))
        for rows, log_mass in self._chains(cells, order) if len(cells.width) else ():
            terms = (log_mass(r).nan_to_num_(0.0) for r in order)
            out[:, rows] = running_sums(terms, out.new_zeros(len(rows), out.shape[2]), ends)
        return out

    @cached_property
    def _narrowest(self) -> Tensor:
        """Widths (R,) above which a density is not constant in a cell, in the class with the narrowest Gaussian."""
        precision = self._quadratic[1].diagonal().amax(0)  # of each column given all others
        return EVEN_CELL * precision.clamp_max(REAL_KNOWN_SNR).rsqrt()

    def log_densities(self, cells: Tensor) -> Tensor:
        """Log-densities of cells (B, R), NaN where missing: (B, Z), float64."""
        cells = cells.double()
        t, many = cells.nan_to_num(0.0), torch.ones_like(cells[:, 0], dtype=torch.bool)
        out = t.new_zeros(len(t), len(self.mean))
        for rows, missing in self._few_gaps(cells, many):
            many[rows], out[rows] = False, self._eliminated(t[rows], missing)[0]

        def by_patterns(index: Tensor) -> Tensor:
            new = t.new_zeros(len(index), len(self.mean))
            for pattern, rows in self._patterns(
                torch.where(cells[index].isnan(), 0.0, math.inf), ALONE
            ):
                features = monomials(t[index[rows]])
                new.index_copy_(
                    0, rows.flatten(), row_product(features, self._mass(pattern)).flatten(0, 1)
                )
            return new

        return devices.replace_rows(out, many, by_patterns)

    @cached_property
    def _quadratic(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log-densities of complete rows: coefficients (F, Z), precisions (R, R, Z), these times the means (R, Z)."""
        whitening = self._whitening
        precision = whitening.mT @ whitening
        linear = (precision @ self.mean.double()[..., None])[..., 0]
        log_det = self.chol.double().diagonal(dim1=1, dim2=2).log().sum(1)
        constant = log_det + 0.5 * self.mean.shape[1] * math.log(2 * math.pi)
        constant = -constant - 0.5 * (self.mean * linear).sum(1)
        mass = quadratics(precision, linear, constant).T.contiguous()
        return mass, precision.permute(1, 2, 0).contiguous(), linear.T.contiguous()

    @cached_property
    def precisions(self) -> tuple[Tensor, Tensor]:
        """Precisions (Z, R, R), and these times the means (Z, R): float64."""
        _, precision, linear = self._quadratic
        return precision.permute(2, 0, 1).contiguous(), linear.T.contiguous()

    @cached_property
    def _whitening(self) -> Tensor:
        """Inverses of the Cholesky factors: (Z, R, R), float64."""
        one = torch.eye(self.mean.shape[1], dtype=torch.float64, device=self.mean.device)
        return torch.linalg.solve_triangular(self.chol.double(), one[None], upper=False)

    def _eliminated(
        self, t: Tensor, missing: Tensor
    ) -> tuple[Tensor, list[Tensor], dict[tuple[int, int], Tensor]]:
        """Log-densities (n, Z) of rows t (n, R), 0 in the ``missing`` columns (n, m), and the posterior of these.

        Means, m of (n, Z), and of each two of the m minus the covariance, (n, Z). The log-density of a complete row is
        quadratic: missing numbers are integrated out one by one, by the sweep operator (Beaton 1964).
        """
        m, n_real = missing.shape[1], t.shape[1]
        mass, precision, linear = self._quadratic
        log_p = row_product(monomials(filled(t)), mass)[: len(t)]
        pull = [torch.empty_like(log_p) for _ in range(m)]
        for i in range(m):
            for r in missing[:, i].unique().tolist():
                rows = torch.nonzero(missing[:, i] == r).flatten()
                product = row_product(filled(t[rows]), precision[r])[: len(rows)]
                pull[i].index_copy_(0, rows, linear[r] - product)
        pairs = precision.flatten(0, 1)
        swept = {
            (i, k): pairs.index_select(0, missing[:, i] * n_real + missing[:, k])
            for i in range(m)
            for k in range(i, m)
        }
        for k in range(m):
            inverse = swept[k, k].reciprocal()
            log_p.addcmul_(pull[k].square(), inverse, value=0.5).add_(inverse.log(), alpha=0.5)
            row = {i: swept[min(i, k), max(i, k)] for i in range(m) if i != k}
            slope = {i: value * inverse for i, value in row.items()}
            for i in row:
                pull[i].addcmul_(slope[i], pull[k], value=-1.0)
                for j in row:
                    if j >= i:
                        swept[i, j].addcmul_(slope[i], row[j], value=-1.0)
                swept[min(i, k), max(i, k)] = slope[i]
            pull[k].mul_(inverse)
            swept[k, k] = -inverse
        return log_p.add_(0.5 * m * math.log(2 * math.pi)), pull, swept

    def _mass(self, snr: Tensor) -> Tensor:
        """The ``mass`` of :meth:`posterior` without noisy cells; on a CPU kept for the next batch."""
        if not devices.static_shapes(snr.device) and bool(torch.isinf(snr).all()):
            return self._quadratic[0][None]
        return self._once(lambda: self.posterior(snr).mass, snr)

    def _once(self, make: Callable[[], Made], snr: Tensor, *order: int) -> Made:
        """Result of ``make`` for a pattern of known cells and an order, on a CPU kept for the next batch."""
        if devices.static_shapes(snr.device):
            return make()
        kept, key = self._kept, (order, *torch.isinf(snr[0]).tolist())
        if key not in kept:
            if (1 + len(kept)) * self.mean.numel() * self.mean.shape[1] > LARGE:
                kept.clear()
            kept[key] = make()
        return kept[key]

    def moments(
        self, cells: Tensor, divide: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Expected sums of cells (B, R), NaN where missing, and of their products, in each class: those of ``Sums``.

        ``divide`` maps rows (n,) and their log-densities (n, Z) to the shares (n, Z) of the classes, float64.
        """
        cells, (n_classes, n_real) = cells.double(), self.mean.shape
        t, many = cells.nan_to_num(0.0), torch.ones_like(cells[:, 0], dtype=torch.bool)
        lower = tuple(torch.tril_indices(n_real, n_real, device=cells.device))
        n_pairs = len(lower[0])
        first = t.new_zeros(n_classes, n_real)
        second, crossed = (
            first.new_zeros(*first.shape, n_real),
            t.new_zeros(n_real, n_real, n_classes),
        )
        known_sums = t.new_zeros(n_classes, n_pairs + n_real + 1)
        for rows, missing in self._few_gaps(cells, many):
            many[rows] = False
            log_p, mean, swept = self._eliminated(t[rows], missing)
            r = divide(rows, log_p)
            known_sums.addmm_(r.T, monomials(t[rows]))
            for k, expected in enumerate(mean):
                weighted, column = r * expected, missing[:, k]
                first.T.index_add_(0, column, weighted)
                for c in column.unique().tolist():
                    i = torch.nonzero(column == c).flatten()
                    crossed[c].addmm_(t[rows[i]].T, weighted[i])
                for j in range(k + 1):
                    products = (weighted * mean[j]).addcmul_(r, swept[j, k], value=-1.0)
                    products = products.mul_(0.5) if j == k else products
                    crossed.flatten(0, 1).index_add_(0, column * n_real + missing[:, j], products)

        def squares(sums: Tensor) -> Tensor:
            out = torch.zeros_like(second)
            out[:, lower[0], lower[1]] = out[:, lower[1], lower[0]] = sums[:, :n_pairs]
            return out

        rest = torch.nonzero(many).flatten()
        patterns, pattern = (~cells[rest].isnan()).unique(dim=0, return_inverse=True)
        for u, known in enumerate(patterns):
            snr = torch.where(known, math.inf, 0.0)[None]
            mass = self._mass(snr)[0]
            sums = known_sums if bool(known.all()) else torch.zeros_like(known_sums)
            for some in rest[pattern == u].split(rows_at_once(CACHED // (ALONE * n_classes))):
                features = monomials(t[some])
                sums.addmm_(divide(some, features @ mass).T, features)
            if sums is not known_sums:  # missing cells have expected values
                posterior = self.posterior(snr)
                gain, offset, n = posterior.gain[0], posterior.offset[0], sums[:, -1:]
                values = (gain @ sums[:, n_pairs:-1, None])[:, :, 0]
                both = outer(values, offset)
                second += gain @ squares(sums) @ gain.mT + both + both.mT
                second += n[:, :, None] * (outer(offset, offset) + posterior.covariance[0])
                first += values + n * offset
        crossed = (crossed + crossed.transpose(0, 1)).permute(2, 0, 1)
        return first + known_sums[:, n_pairs:-1], second + squares(known_sums) + crossed

    def in_order(self, cells: Intervals, order: Sequence[int]) -> Callable[[int], Tensor]:
        """A function from a column to log-masses (B, Z) of its cells, given the known ones before them in an order.

        They are meaningless where the cell is missing.
        """
        chains = list(self._chains(cells, order))

        def of_column(r: int) -> Tensor:
            if len(chains) == 1 and len(chains[0][0]) == len(cells.width):
                return chains[0][1](r)
            out = self.mean.new_empty(len(cells.width), len(self.mean))
            for rows, log_mass in chains:
                out.index_copy_(0, rows, log_mass(r))
            return out

        return of_column

    def _chains(
        self, cells: Intervals, order: Sequence[int]
    ) -> Iterator[tuple[Tensor, Callable[[int], Tensor]]]:
        """Rows (n,), and a function from a column to log-masses (n, Z) of their cells, meaningless where missing.

        Each cell is given the known ones before it in an order of the columns.
        """
        values, width = (t.double() for t in cells)
        place, many = (
            devices.index_tensor(tuple(order), str(values.device)),
            torch.ones_like(width[:, 0], dtype=torch.bool),
        )
        for rows, missing in self._few_gaps(width, many):
            some, many[rows] = Intervals(*(part[rows] for part in cells)), False
            terms = [term.to(self.mean) for term in self._filtered(some, missing, order)[0]]
            yield rows, lambda r, terms=terms: terms[order.index(r)]
        every = torch.arange(len(many), device=many.device)
        index = every if devices.static_shapes(many.device) else every[many]
        known = torch.where(values[index].isnan(), 0.0, math.inf)
        for ways, rows in self._patterns(known, ALONE) if len(index) else ():
            affine, sd = self._once(partial(self._standardising, ways, place), ways, *order)
            t = values[index[rows]].nan_to_num(0.0)
            t = torch.cat([t, torch.ones_like(t[..., :1])], -1)

            def log_mass(
                r: int,
                t: Tensor = t,
                place: Tensor = index[rows],
                affine: Tensor = affine,
                sd: Tensor = sd,
            ) -> Tensor:
                z, cell = row_product(t, affine[r]), width[:, r][place][..., None]
                return log_masses_in_classes(z, cell, sd[r], self.mean.dtype).flatten(0, 1)

            yield index[rows].flatten(), log_mass

    def leave_one_out(self, cells: Intervals) -> tuple[Tensor, Tensor]:
        """Means and variances (B, R, Z) of numbers given all other known cells (B, R) of their row, float64."""
        values, width = (t.double() for t in cells)
        means = values.new_zeros(*values.shape, len(self.mean))
        var, wide = torch.zeros_like(means), (width > self._narrowest).any(1)
        for ways, rows in self._patterns(torch.where(values.isnan(), 0.0, math.inf)):
            slopes, offset, new = self._once(partial(self._given_others, ways), ways, -1)
            t, flat = values[rows].nan_to_num(0.0), rows.flatten()
            after = (t @ slopes.flatten(2)).unflatten(2, offset.mT.shape[1:]) + offset.mT[:, None]
            new = new.mT[:, None].expand_as(after)
            if devices.any_true(wide[flat]):
                some = torch.arange(rows.shape[1], device=rows.device)
                if not devices.static_shapes(rows.device):
                    some = filled(torch.nonzero(wide[rows].any(0)).flatten())
                chain = self._in_chain(ways, t[:, some], width[rows[:, some]].nan_to_num(0.0))
                by_cells = (
                    wide[rows[:, some]][..., None, None] & torch.isinf(ways)[:, None, :, None]
                )
                after, new = (
                    old.index_copy(1, some, torch.where(by_cells, of_chain, old[:, some]))
                    for of_chain, old in zip(chain, (after, new), strict=True)
                )
            means.index_copy_(0, flat, after.flatten(0, 1))
            var.index_copy_(0, flat, new.flatten(0, 1))
        for rows, missing in self._few_gaps(width, wide):
            some = Intervals(*(t[rows] for t in cells))
            _, *moments = self._filtered(some, missing, range(values.shape[1]))
            means[rows[:, None], missing], var[rows[:, None], missing] = moments
        return means, var

    def _in_chain(self, snr: Tensor, values: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Moments (U, n, R, Z) of known numbers given the others, all recorded (U, n, R), in the order of the table.

        In the chain of :meth:`log_masses` the records after a number are evidence about it, with width²/12 more
        variance than the numbers that were rounded (Sheppard); those before it enter by their middles.
        """
        order = range(values.shape[2])
        place = devices.index_tensor(tuple(order), str(values.device))
        affine, sd = self._once(partial(self._standardising, snr, place), snr, *order)
        slopes, offset = affine.transpose(0, 1).tensor_split([len(order)], 2)  # (U, R, R or 1, Z)
        residual = (values[:, None] @ slopes + offset).transpose(1, 2)
        width = width[..., None] / sd[:, :, 0].transpose(0, 1)[:, None]
        known = torch.isinf(snr).double()[:, None, :, None]
        share = known / (1 + width.square() / 12)
        slope = slopes.diagonal(dim1=1, dim2=2).mT[:, None]  # its own cell is no evidence
        whole = known - share
        precision = slope.square() * whole
        pull = slope * whole * residual
        for k in order:  # residuals depend on no later column
            n = slice(k + 1)
            of_residual = slopes[:, None, k, n]
            pull[:, :, n].addcmul_(of_residual, (share[:, :, k] * residual[:, :, k])[:, :, None])
            precision[:, :, n].addcmul_(of_residual.square(), share[:, :, k, None])
        precision = precision.clamp_max(REAL_KNOWN_SNR)
        return values[..., None] - pull / precision, 1 / precision

    def _given_others(self, snr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes (U, R', R, Z) of columns on all other known ones R', offsets and variances (U, Z, R).

        Those of a known column follow from its row of the known columns' precision matrix.
        """
        mean, covariance = self.mean.double(), self.covariance()
        known = torch.isinf(snr).double()[:, None]  # (U, 1, R)
        seen = known[..., None] * covariance * known[..., None, :] + torch.diag_embed(1 - known)
        precision = torch.cholesky_inverse(torch.linalg.cholesky_ex(seen).L)
        diagonal = precision.diagonal(dim1=-2, dim2=-1)
        others = torch.diag_embed(torch.ones_like(diagonal)) - precision / diagonal[..., None]
        gain = covariance * known[..., None, :] @ precision * known[..., None, :]
        slopes = torch.where(known[..., None] > 0, others, gain)
        total = covariance.diagonal(dim1=-2, dim2=-1)
        var = torch.where(known > 0, 1 / diagonal, total - (gain * covariance).sum(-1))
        offset = mean - (slopes @ (known * mean)[..., None])[..., 0]
        return slopes.permute(0, 3, 2, 1).contiguous(), offset, var.clamp_min(1 / REAL_KNOWN_SNR)

    def _standardising(self, snr: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of cells and 1 to standardised residuals, (R, U, R + 1, Z), and standard deviations, (R, U, 1, Z).

        Each column is given the known ones before it in the order ``place``, by the Cholesky factor of the
        observations, whose leading part is the factor of the first columns.
        """
        mean, covariance = self.mean.double()[:, place], self.covariance()[:, place][:, :, place]
        known = torch.isinf(snr[:, place]).double()[:, None]  # (U, 1, R)
        if (
            not devices.static_shapes(snr.device)
            and bool(known.all())
            and bool((place.diff() > 0).all())
        ):
            var = self.chol.double().diagonal(dim1=1, dim2=2).square()
            scale = (var / var.clamp_min(1 / REAL_KNOWN_SNR)).sqrt()
            residual = self._whitening * scale[..., None]
            affine = torch.cat([residual, -(residual @ mean[..., None])], -1)
            sd = var.clamp_min(1 / REAL_KNOWN_SNR).sqrt().T
            return affine.permute(1, 2, 0)[:, None].contiguous(), sd[:, None, None]
        seen = known[..., None] * covariance * known[..., None, :] + torch.diag_embed(1 - known)
        factor = torch.linalg.cholesky_ex(seen).L
        whiten = torch.linalg.solve_triangular(
            factor, torch.diag_embed(known.expand(-1, len(mean), -1)), upper=False
        )
        loadings = (whiten @ covariance).triu(1)  # of a column on those before it
        slopes = loadings.mT @ whiten
        offset = mean - (slopes @ mean[..., None])[..., 0]
        var = covariance.diagonal(dim1=1, dim2=2) - loadings.square().sum(-2)
        back = place.argsort()
        slopes, offset = slopes[..., back, :][..., back], offset[..., back]
        var = var.clamp_min(1 / REAL_KNOWN_SNR)[..., back]
        residual = torch.eye(slopes.shape[-1], dtype=slopes.dtype, device=slopes.device) - slopes
        affine = torch.cat([residual, -offset[..., None]], -1) / var.sqrt()[..., None]
        sd = var.sqrt().mT.transpose(0, 1)
        return affine.permute(2, 0, 3, 1).contiguous(), sd[:, :, None]

    def _whole_chain(self, order: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`_standardising` where all cells are known, by default in the order of the table."""
        order = range(self.mean.shape[1]) if order is None else order
        every = torch.full_like(self.mean[:1], math.inf)
        place = devices.index_tensor(tuple(order), str(self.mean.device))
        return self._once(partial(self._standardising, every, place), every, *order)

    def draw(self, z: Tensor, xi: Tensor, lines: NumberLines) -> Tensor:
        """Middles of the cells (n, R) of draws of classes (n,) from standard normal numbers (n, R): float64.

        They follow the chain of :meth:`log_masses`: each number given the records before it.
        """
        affine, sd = self._whole_chain()
        out = torch.cat([torch.zeros_like(xi), torch.ones_like(xi[:, :1])], 1).double()
        for r in range(xi.shape[1]):
            column = devices.index_tensor((r,), str(xi.device))
            before = (out * affine[r][0].T[z]).sum(1)
            value = sd[r][0, 0, z] * (xi[:, r] - before)
            out[:, r] = lines.cells(lines.rounded(value[:, None], column), column).middle[:, 0]
        return out[:, :-1]

    def conditioned(self, free: Tensor, z: Tensor, cells: Tensor) -> Tensor:
        """Draws ``free`` (n, R) of classes (n,), moved to be draws given the known cells (n, R): float64.

        Matheron's rule: the posterior mean of their error, given that at the known cells, is added.
        """
        free = free.double()
        error, out = (cells - free).nan_to_num(0.0), torch.empty_like(free)
        for pattern, rows in self._patterns(torch.where(cells.isnan(), 0.0, math.inf)):
            u = torch.arange(len(pattern), device=z.device)[:, None]
            gain = self.posterior(pattern).gain[u, z[rows]]  # (U, n, R, R)
            moved = free[rows] + (gain @ error[rows][..., None])[..., 0]
            out.index_copy_(0, rows.flatten(), moved.flatten(0, 1))
        return out


def log_masses_in_classes(z: Tensor, width: Tensor, sd: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Log-masses (..., Z) in Gaussians of cells of widths (..., 1), float64, with standardised middles z (..., Z).

    The Gaussians have standard deviations ``sd`` (..., Z), all but whose last dimension may be 1. Relative to the
    density, cells of a width w in standard deviations have :math:`w^2 (z^2 - 1) / 24 - w^4 (z^4 + 4 z^2 - 2) / 2880`
    nats more, and far out about :math:`\log(\sinh(a) / a)` with a = w |z| / 2. Wide ones are differences of error
    functions. Rows whose cells are narrower in all classes than the next limit are spared the next step.
    """
    shape, far, half = z.shape, FARTHEST[dtype], math.sqrt(0.125)
    if sd.shape[:-1].numel() > 1:
        sd = sd.expand_as(z)
    z, sd, width = (t.flatten(0, -2) for t in (z.to(dtype), sd, width.expand(*shape[:-1], 1)))
    widest = (width / sd.amin(1, keepdim=True))[:, 0].nan_to_num(0.0)
    out = log_densities_in_classes(z, width, sd.to(dtype))
    scale, width = sd.reciprocal().to(dtype), width.to(dtype)

    def picked(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales = scale if len(scale) == 1 else scale.index_select(0, rows)
        z_rows, total = (t.index_select(0, rows) for t in (z, out))
        return z_rows, width.index_select(0, rows) * scales, total

    def bent(rows: Tensor) -> Tensor:
        z_rows, bend, total = picked(rows)
        bend = bend.square_().div_(24)
        # 2.5 (tilt - 1) has the first terms of log(sinh(a) / a), and is within a twentieth of it up to a = 20
        tilt = z_rows.square_().mul_(bend).mul_(0.8).add_(1).sqrt_()
        total = total.sub_(2.5).add_(bend).addcmul_(bend, bend, value=0.4)
        return total.add_(tilt, alpha=2.5).addcmul_(tilt, bend, value=-2.0)

    def with_wide(rows: Tensor) -> Tensor:
        middle, width_rows, total = picked(rows)
        # a steep ramp in place of a comparison, which takes as long as an error function
        is_wide = (width_rows - NARROW_CELL).mul_(1 / torch.finfo(dtype).eps).clamp_(0.0, 1.0)
        middle = middle.abs_().mul_(math.sqrt(0.5))
        low, high = middle.sub(width_rows, alpha=half), middle.add(width_rows, alpha=half)
        mass = torch.erfc(low).sub_(high.erfc_()).mul_(0.5)
        log_mass = mass.clamp_min_(math.erfc(far) / 2).log_()
        log_mass = log_mass.sub_(low.clamp_min_(far).square_().sub_(far**2))
        return total.lerp_(log_mass, is_wide)

    out = devices.replace_rows(out, widest > EVEN_CELL, bent)
    return devices.replace_rows(out, widest > NARROW_CELL, with_wide).view(shape)


def log_densities_in_classes(z: Tensor, width: Tensor, sd: Tensor) -> Tensor:
    """:func:`log_masses_in_classes` of cells in which the density is constant, of a width 0 the log-density."""
    # the logarithm first: a width in float64 may be too small for the type of z
    log_width = torch.where(width == 0, 1.0, width).log().to(z)
    return (log_width - (math.sqrt(2 * math.pi) * sd).log()).sub(z.square(), alpha=0.5)


def running_sums(terms: Iterable[Tensor], start: Tensor, ends: Sequence[int]) -> Tensor:
    """Sums of ``start`` and the first terms, as many as each of the S increasing ``ends`` says: (S, ...)."""
    total, sums = start, [start] * sum(end == 0 for end in ends)
    for n, term in enumerate(terms, 1):
        total = total + term
        sums += [total] * sum(end == n for end in ends)
    return torch.stack(sums) if sums else start[None][:0]


def monomials(t: Tensor) -> Tensor:
    """Products of each two numbers of t (..., R), the numbers, and 1: (..., F)."""
    i, j = torch.tril_indices(t.shape[-1], t.shape[-1], device=t.device)
    return torch.cat([t[..., i] * t[..., j], t, torch.ones_like(t[..., :1])], -1)


def quadratics(precision: Tensor, linear: Tensor, constant: Tensor) -> Tensor:
    """Coefficients (..., F) of :func:`monomials` in log-densities with these precisions (..., R, R)."""
    i, j = torch.tril_indices(*precision.shape[-2:], device=precision.device)
    return torch.cat(
        [torch.where(i == j, -0.5, -1.0) * precision[..., i, j], linear, constant[..., None]], -1
    )


def outer(a: Tensor, b: Tensor) -> Tensor:
    """Outer products of the rows of two tensors (Z, R): (Z, R, R)."""
    return a[:, :, None] * b[:, None, :]


def cholesky(covariance: Tensor) -> Tensor:
    """Cholesky factors of covariances (Z, R, R), widened so that no direction is narrower than ``NARROWEST_SD``.

    Where rounding of huge numbers leaves no factor, that of the variances alone is returned.
    """
    var = covariance.diagonal(dim1=1, dim2=2).clamp_min(0.0)
    widened = (1 + 1e-10) * var + NARROWEST_SD**2  # by more than the rounding
    factor, info = torch.linalg.cholesky_ex(torch.diagonal_scatter(covariance, widened, 0, 1, 2))
    return torch.where((info == 0)[:, None, None], factor, torch.diag_embed(widened.sqrt()))
