r"""Mixtures of products (latent class models): exact denoisers, refined by expectation maximisation.

Given a hidden class z the columns are independent. With :math:`L_{jk} = e^{\ell_{jk}}` the evidence (2) and
:math:`m_{zj} = \sum_k p_{zjk} L_{jk}` the mass that class z leaves to column j,

.. math:: r_z \propto w_z \prod_j m_{zj}, \qquad q_{jk} \propto L_{jk} \sum_z r_z\, p_{zjk} / m_{zj}.

Where every cell is either known or unknown, both are one matrix product. The continuous columns alone may depend on one
another given the class (:class:`~discrete_itd.denoisers.gaussian.DenseGaussians`).

References
----------
Lazarsfeld & Henry, "Latent Structure Analysis", 1968; Dempster, Laird, Rubin, JRSS B 39, 1977, for :func:`refine`.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from discrete_itd import devices
from discrete_itd.channel.codebook import Codebook, Levels
from discrete_itd.channel.gaussian import chosen, is_coarse, log_mass
from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.base import (
    BLOCK,
    CACHED,
    Completing,
    Config,
    Denoiser,
    Tensors,
    added,
    checked,
    cumulative,
    filled,
    finite_log,
    held_out_nats,
    inverse_cdf,
    log_sum_exp,
    row_product,
    rows_at_once,
)
from discrete_itd.denoisers.gaussian import (
    ALONE,
    EVEN_CELL,
    DenseGaussians,
    cholesky,
    log_masses_in_classes,
    outer,
)
from discrete_itd.denoisers.marginal import indicators, lacking

LEAST_ROUND_GAIN = 1e-3  # EM ends with the first round that gains fewer nats per row
MOST_DEPENDENT = 32  # most continuous columns that depend on one another in a class: work grows with their square
# Classes that stand for all where many draws of a row are scored: fewer make weights less even in shoppers with half of
# the cells missing, and more take longer.
SOME_CLASSES = 256
CLASS_PRIORS = (1.0, 4.0, 16.0, 64.0)  # weights, in rows, that EM tries for the prior of a class


class MixtureDenoiser(Denoiser):
    """Exact for a mixture of products: given a hidden class the columns, except perhaps the numbers, are independent.

    Parameters
    ----------
    codebook : Codebook
    weights : Tensor, shape (Z,)
        Probabilities of the hidden classes; positive, normalised here.
    probs : Tensor, shape (Z, T)
        Probability of every level given the class; positive.
    mean, var : Tensor, shape (Z, R), optional
        Gaussian of every continuous column given the class.
    chol : Tensor, shape (Z, R, R), optional
        Instead of ``var``: Cholesky factors, lower triangular, of the covariance of the continuous columns given the
        class.

    Raises
    ------
    ValueError
        If shapes disagree or numbers are not positive.

    Examples
    --------
    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> probs = torch.tensor([[0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9]])[:, [0, 2, 1, 3]]
    >>> mixture = MixtureDenoiser(book, torch.tensor([1.0, 1.0]), probs)
    >>> mixture.log_prob(torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)).exp()
    tensor([0.4100, 0.0900])
    """

    exact = True
    ancestral = True
    log_weights: Tensor
    log_probs: Tensor
    means: Tensor
    var: Tensor
    chol: Tensor

    def __init__(
        self,
        codebook: Codebook,
        weights: Tensor,
        probs: Tensor,
        mean: Tensor | None = None,
        var: Tensor | None = None,
        chol: Tensor | None = None,
    ) -> None:
        super().__init__(codebook)
        like, levels = codebook.known_snr, codebook.levels
        z, n_real = len(weights), len(codebook.reals)
        if chol is not None:
            if not n_real or mean is None or var is not None:
                raise ValueError("chol goes with R > 0 continuous columns, a mean and no var")
            chol = checked("chol", chol, (z, n_real, n_real)).tril()
            diagonal = chol.diagonal(dim1=1, dim2=2)
            checked("the diagonal of chol", diagonal, (z, n_real), positive=True)
            var = chol.square().sum(2)
        self.own_reals = n_real > 0
        weights = checked("weights", weights.to(like), (z,), positive=True)
        probs = checked("probs", probs.to(like), (z, levels.n_points), positive=True)
        mean = checked("mean", mean, (z, n_real))
        var = checked("var", var, (z, n_real), positive=True)
        self.register_buffer("log_weights", torch.log_softmax(weights.log(), 0))
        self.register_buffer("log_probs", levels.log_softmax(probs.log()))
        self.register_buffer("means", mean.to(like))
        self.register_buffer("var", var.to(like))
        self.register_buffer("chol", (torch.zeros(z, 0, 0) if chol is None else chol).to(like))
        self._kept: tuple[tuple[Tensor, ...], Tensor, Tensor, DenseGaussians | None] | None = None

    def _derived(self) -> tuple[Tensor, Tensor, DenseGaussians | None]:
        """Tensors derived from the parameters, kept until these are moved.

        They are log-probabilities by level, then of a missing cell, (T + 1, Z); :func:`quadratics`; :attr:`dense`.
        """
        parts = self.log_probs, self.means, self.chol
        if self._kept is None or any(map(operator.is_not, self._kept[0], parts)):
            with torch.inference_mode(False), torch.no_grad():
                by_level = torch.cat([parts[0].T, parts[0].new_zeros(1, self.n_components)])
                dense = DenseGaussians(*parts[1:]) if self.chol.numel() else None
                self._kept = parts, by_level, quadratics(self.means, self.var), dense
        return self._kept[1:]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._kept = None

    @property
    def dense(self) -> DenseGaussians | None:
        """The Gaussians of continuous columns that depend on one another given the class; None if they do not."""
        return self._derived()[2]

    @property
    def n_components(self) -> int:
        """Number of hidden classes Z."""
        return len(self.log_weights)

    @property
    def row_work(self) -> int:
        return self.codebook.work + 3 * self.n_components * self.means.shape[1] + self.chol.numel()

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:  # noqa: ARG003
        weights, probs = tensors["log_weights"].exp(), tensors["log_probs"].exp()
        spread = "chol" if tensors["chol"].numel() else "var"
        return cls(codebook, weights, probs, **{"mean": tensors["means"], spread: tensors[spread]})

    @property
    def _probs(self) -> list[tuple[Tensor, Tensor]]:
        """For each shape, the indices (G,) of its columns, and their probabilities (G, Z, K) by class."""
        return self.codebook.levels.by_shape(self.log_probs.exp())

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        book, (start, of_reals) = self.codebook, self._start(y, snr)
        log_class, logits = self._given_evidence(start, self.evidence(y, snr), snr[:, book.finite])
        gaussian, log_mass = None, log_sum_exp(log_class, 1)
        if self.own_reals:
            weight = torch.log_softmax(log_class, 1)[:, None, :]
            gaussian = of_reals(weight.expand(-1, len(book.reals), -1))
        return log_mass, Posterior(book, CategoricalPosterior(book.levels, logits), gaussian)

    def _start(
        self, y: Tensor, snr: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], GaussianPosterior]]:
        """Log-joint (B, Z) of classes and evidence of numbers; numbers' posterior as a function of class weights."""
        start, book = self.log_weights.expand(len(y), -1), self.codebook
        if not self.own_reals:
            return start, lambda weight: GaussianPosterior(weight, weight, weight)
        if self.dense is not None:
            fit, *moments = self.dense.evidence(*book.reals_of(y, snr))
            return start + fit, lambda weight: GaussianPosterior(weight, *moments, normalised=True)
        shape = (len(y), -1, -1)
        mean, var = self.means.T.expand(shape), self.var.T.expand(shape)  # (B, R, Z)
        prior = GaussianPosterior(torch.zeros_like(mean), mean, var, normalised=True)
        reals = book.reals_of(y, snr)
        fit, *moments = prior.given(*reals)

        def of_reals(weight: Tensor) -> GaussianPosterior:
            if not devices.any_true(is_coarse(*reals)):
                return GaussianPosterior(weight, *moments, normalised=True)
            return GaussianPosterior(weight - fit, mean, var, normalised=True).update(*reals)

        return start + fit.sum(1), of_reals

    def _given_evidence(
        self, start: Tensor, evidence: Tensor, snr: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-joint (B, Z) of classes and evidence, and logits of the levels; rows without noisy cells are cheaper."""
        if devices.static_shapes(snr.device):
            return self._noisy(start, evidence)
        hard = ((snr == 0) | torch.isinf(snr)).all(1)
        log_class = evidence.new_zeros(len(evidence), self.n_components)
        logits = torch.zeros_like(evidence)
        for mask, update in ((hard, self._known_or_not), (~hard, self._noisy)):
            if bool(mask.all()):
                log_class, logits = update(start, evidence, snr)
            elif bool(mask.any()):
                rows = filled(torch.nonzero(mask).flatten())
                log_class[rows], logits[rows] = update(start[rows], evidence[rows], snr[rows])
        return log_class, logits

    def _known_or_not(self, start: Tensor, evidence: Tensor, snr: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`_given_evidence` where no cell is noisy."""
        levels = self.codebook.levels
        known = levels.per_level(torch.isinf(snr).to(evidence))
        hot = (levels.log_softmax(evidence).exp() * known).round()  # (B, T): 1 at known categories
        log_class = start + row_product(hot, self.log_probs.T)
        prior = row_product(torch.softmax(log_class, 1), self.log_probs.exp())
        return log_class, finite_log(prior) + evidence

    def _noisy(
        self, start: Tensor, evidence: Tensor, snr: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`_given_evidence` of any evidence."""
        levels, probs, out = self.codebook.levels, self._probs, []
        step = rows_at_once(CACHED // max(1, self.n_components * levels.n_columns))
        for first, ell in zip(start.split(step), evidence.split(step), strict=True):
            log_class, masses = first, []
            for (_, ell_g), (_, p) in zip(levels.by_shape(ell), probs, strict=True):
                mass = row_product(ell_g.exp(), p.mT)  # (G, B, Z)
                masses.append(mass.clamp_min(torch.finfo(mass.dtype).tiny))
                log_class = log_class + added(masses[-1].log())
            share = torch.softmax(log_class, 1)
            pairs = zip(masses, probs, strict=True)
            prior = levels.from_shapes([row_product(share / m, p) for m, (_, p) in pairs], ell)
            out.append((log_class, finite_log(prior) + ell))
        log_class, logits = zip(*out, strict=True)
        return torch.cat(log_class), torch.cat(logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        step = rows_at_once(CACHED // max(self.n_components, self.codebook.levels.n_points))
        parts = [log_sum_exp(self.log_joint(rows), 1) for rows in x.split(step)]
        return torch.cat(parts)

    def log_joint(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) together with each class: (B, Z), nats."""
        book, out = self.codebook, self.joint_with_levels(x)
        if self.own_reals:
            out = out + self._log_masses(book.lines.cells(x[:, book.reals])).to(out)
        return out

    def joint_with_levels(self, x: Tensor) -> Tensor:
        """:meth:`log_joint` of the categories alone."""
        book, out = self.codebook, self.log_weights.expand(len(x), -1)
        if not len(book.finite):
            return out
        table = self._derived()[0]
        return out + nn.functional.embedding_bag(book.level_of(x), table, mode="sum")

    def log_probs_before(self, x: Tensor, last: Sequence[int]) -> Tensor:
        """As of every denoiser; numbers of the ``last`` columns come last in the chain of dependent ones."""
        n = self.n_components * (1 + len(last))
        step = rows_at_once(CACHED // max(n, self.codebook.levels.n_points))
        parts = [log_sum_exp(self._joints_before(rows, last), 2) for rows in x.split(step)]
        return torch.cat(parts, 1).double()

    def _joints_before(self, x: Tensor, last: Sequence[int]) -> Tensor:
        """:meth:`log_joint` of rows without the ``last`` columns, and as these join them one by one: (1 + K, B, Z)."""
        columns = torch.arange(x.shape[1], device=x.device)
        is_later = torch.isin(columns, devices.index_tensor((*last,), str(x.device)))
        dense = self.dense if self.own_reals else None
        joint = self.log_joint if dense is None else self.joint_with_levels
        joints = [joint(x.masked_fill(is_later, math.nan))]
        for j in last:  # independent given the class
            of_column = joint(x.masked_fill(columns != j, math.nan)) - self.log_weights
            joints.append(joints[-1] + of_column)
        out = torch.stack(joints)
        if dense is None:
            return out
        book = self.codebook
        place = {j: r for r, j in enumerate(book.reals.tolist())}
        cells = book.lines.cells(x[:, book.reals])
        return out + dense.log_masses_before(cells, [place.get(j) for j in last]).to(out)

    def _log_masses(self, cells: Intervals) -> Tensor:
        """:meth:`DenseGaussians.log_masses`."""
        if self.dense is not None:
            return self.dense.log_masses(cells)
        wide = cells.width > EVEN_CELL * self.var.amin(0).sqrt()
        even = Intervals(*(t.masked_fill(wide, math.nan) for t in cells))
        out = row_product(powers(even.middle), self._derived()[1])
        out = out + even.log_width().nan_to_num(0.0).sum(1, keepdim=True)
        for r in range(wide.shape[1]):

            def exactly(rows: Tensor, r: int = r, out: Tensor = out) -> Tensor:
                # rows repeat numbers whose cells are wide
                cell, i = devices.distinct(torch.stack([t[rows, r] for t in cells], 1))
                sd = self.var[:, r].double().sqrt()
                z = (cell[:, :1] - self.means[:, r].double()) / sd
                return out[rows] + log_masses_in_classes(z, cell[:, 1:], sd[None], out.dtype)[i]

            out = devices.replace_rows(out, wide[:, r], exactly)
        return out

    @torch.no_grad()
    def leave_one_out(self, x: Tensor, asked: Tensor) -> Posterior:
        """In closed form: a cell weights the classes by their joint probability with the row's other cells."""
        book, (rows, back) = self.codebook, self.by_gaps(x)
        step = max(BLOCK, rows_at_once(CACHED // (4 * self.n_components * book.n_columns)))
        parts = [self._left_out(some) for some in rows.split(step)]
        log_p, logits, *moments = (torch.cat(t)[back] for t in zip(*parts, strict=True))
        gaussian = None
        if self.own_reals:
            gaussian = GaussianPosterior(*moments, normalised=True)
        return Posterior(book, CategoricalPosterior(book.levels, logits), gaussian, log_p)

    def _left_out(self, x: Tensor) -> list[Tensor]:
        """Log-probabilities (B, C) of cells given the others, logits of levels, and the mixtures of numbers.

        It is computed in double, as the factor of an extreme cell is added and subtracted.
        """
        book, levels = self.codebook, self.codebook.levels
        log_p = self._derived()[0][book.level_of(x)].double()  # (B, F, Z)
        joint, moments, of_cells = self.log_weights + log_p.sum(1), [], x.new_zeros(x.shape)
        if self.own_reals:
            cells = book.lines.cells(x[:, book.reals])
            if self.dense is not None:
                mean, var = self.dense.leave_one_out(cells)
            else:
                mean, var = (t.T.double().expand(len(x), -1, -1) for t in (self.means, self.var))
            sd, (middle, width) = var.sqrt(), (t[:, :, None] for t in cells)
            log_p_reals = log_masses_in_classes((middle - mean) / sd, width, sd, joint.dtype)
            log_p_reals = log_p_reals.nan_to_num(0.0)
            log_p_row = log_p_reals.sum(1) if self.dense is None else self.dense.log_masses(cells)
            joint = joint + log_p_row
            weight = joint[:, None] - log_p_reals
            without = torch.logsumexp(weight, 2)
            moments = [t.to(self.means) for t in (weight - without[..., None], mean, var)]
            of_cells.index_copy_(1, book.reals, without)
        without = joint[:, None] - log_p
        of_cells.index_copy_(1, book.finite, torch.logsumexp(without, 2))
        of_cells = (torch.logsumexp(joint, 1)[:, None] - of_cells).masked_fill(x.isnan(), 0.0)
        share = torch.softmax(without, 2).to(self.log_probs)
        share = filled(share).transpose(0, 1)  # (F, B, Z)
        prior = [row_product(share[columns], p)[:, : len(x)] for columns, p in self._probs]
        return [of_cells, finite_log(levels.from_shapes(prior, joint.to(self.log_probs))), *moments]

    def _batches(self, x: Tensor) -> Sequence[Tensor]:
        """Batches of rows whose numbers for each class stay in a cache."""
        n = 2 if self.dense is None else ALONE
        return x.split(max(BLOCK, rows_at_once(CACHED // (n * self.n_components))))

    def _in_order(self, cells: Intervals, order: Sequence[int]) -> Callable[[int], Tensor]:
        """:meth:`DenseGaussians.in_order` of cells (B, R) in an order of all columns."""
        if self.dense is not None:
            place = {j: r for r, j in enumerate(self.codebook.reals.tolist())}
            return self.dense.in_order(cells, [place[j] for j in order if j in place])
        known = Intervals(*(t.nan_to_num(0.0) for t in cells))

        def of_column(r: int) -> Tensor:
            cell = Intervals(*(t[:, r, None] for t in known))
            return log_mass(cell, self.means[:, r], self.var[:, r].sqrt()).to(self.means)

        return of_column

    def _cells(self, x: Tensor, order: Sequence[int]) -> Callable[[int], Tensor]:
        """Function from a column to log-probabilities (B, Z) of its cells given the class and the numbers before.

        They are 0 where the cell is missing.
        """
        book, table = self.codebook, self._derived()[0]
        level, cells = book.level_of(x), book.lines.cells(x.index_select(1, book.reals))
        reals = (j for j, c in enumerate(book.columns) if c.kind == "real")
        places = {j: r for r, j in enumerate(reals)}
        densities, missing = self._in_order(cells, order), cells.width.isnan()
        has_gaps = devices.any_true(missing)

        def of_column(j: int) -> Tensor:
            if j in book.place:
                return table.index_select(0, level[:, book.place[j]])
            out = densities(places[j])
            return out.masked_fill(missing[:, places[j], None], 0.0) if has_gaps else out

        return of_column

    def log_factors(self, x: Tensor) -> Tensor:
        """In the order of the table."""
        order = self.codebook.in_order(range(self.codebook.n_columns))
        place, parts = devices.index_tensor(tuple(order), str(x.device)), []
        rows, back = self.by_gaps(x)
        for some in self._batches(rows):
            shares = shares_of_classes(self.log_weights, map(self._cells(some, order), order))
            out = shares.new_zeros(some.shape)
            parts.append(out.index_copy(1, place, shares.expand(len(some), -1)))
        return torch.cat(parts)[back].masked_fill(x.isnan(), 0.0)

    def by_gaps(self, x: Tensor) -> tuple[Tensor, Tensor | slice]:
        """Rows sorted by their pattern of missing numbers, and their places: a batch costs a product per pattern."""
        if self.dense is None or devices.static_shapes(x.device):
            return x, slice(None)
        missing = x[:, self.codebook.reals].isnan()
        if not bool((missing != missing[:1]).any()):
            return x, slice(None)
        order = missing.unique(dim=0, return_inverse=True)[1].argsort(stable=True)
        return x[order], order.argsort()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        book, shape = self.codebook, (n, self.codebook.n_columns)
        out = torch.zeros(shape, dtype=torch.float64, device=book.device)
        z = inverse_cdf(cumulative(self.log_weights).expand(n, -1), generator)
        categorical = CategoricalPosterior(book.levels, self.log_probs[z], normalised=True)
        codes = categorical.sample(generator)
        out.index_copy_(1, book.finite, codes.double())
        if self.own_reals:
            like, shape = self.means, (n, self.means.shape[1])
            xi = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
            dense, lines = self.dense, book.lines
            numbers = self._numbers(z, xi) if dense is None else dense.draw(z, xi, lines)
            out.index_copy_(1, book.reals, lines.rounded(numbers))
        return out

    def _numbers(self, z: Tensor, xi: Tensor) -> Tensor:
        """Continuous cells (n, R) of rows of classes ``z`` (n,) from standard normal numbers ``xi`` (n, R)."""
        mean = self.means[z].to(xi)
        if self.dense is not None:
            return mean + (self.chol[z].to(xi) @ xi[:, :, None])[:, :, 0]
        return mean + self.var[z].to(xi).sqrt() * xi

    def completing(self, x: Tensor, known: dict[Denoiser, Completing], salt: int) -> Completing:
        if self.codebook.indicator or devices.static_shapes(x.device):
            return super().completing(x, known, salt)
        return known.get(self) or known.setdefault(self, _CompletingClasses(self, x, salt))

    @torch.no_grad()
    def complete(self, x: Tensor, n_draws: int, salt: int) -> Tensor:
        """Draw a class given the known cells, then the missing cells given the class."""
        book, levels = self.codebook, self.codebook.levels
        out = x.repeat_interleave(n_draws, 0)
        noise = RowNoise(out, torch.arange(n_draws, device=x.device).repeat(len(x)), salt)
        u, z = noise.uniform(book.n_columns, 1).view(len(x), n_draws), []
        step = rows_at_once(CACHED // max(self.n_components, levels.n_points))
        for rows, u_rows in zip(x.split(step), u.split(step), strict=True):
            log_class = self.log_joint(filled(rows))[: len(rows)]
            z.append(chosen(log_class.double(), u_rows).flatten())
        which = torch.cat(z) if z else x.new_zeros(0).long()
        gaps = out.isnan()
        if self.own_reals and bool(gaps[:, book.reals].any()):
            v = torch.stack([noise.uniform(j, 2)[:, 1] for j in book.reals.tolist()], 1)
            drawn = self._numbers(which, torch.special.ndtri(v.clamp(1e-12, 1 - 1e-12)))
            cells = out[:, book.reals]
            if self.dense is not None:
                drawn = self.dense.conditioned(drawn, which, book.lines.cells(cells).middle)
            out[:, book.reals] = torch.where(cells.isnan(), book.lines.rounded(drawn), cells)
        for j in torch.nonzero(out.isnan().any(0)).flatten().tolist():
            rows = torch.nonzero(gaps[:, j]).flatten()
            logits = self.log_probs[:, levels.own(book.place[j])][which[rows]]
            out[rows, j] = chosen(logits.double(), noise.uniform(j, 2)[rows, 0]).double()
        return out.unflatten(0, (len(x), n_draws))


class _CompletingClasses(Completing):
    """By at most ``SOME_CLASSES`` classes of each row, drawn in even steps of their probability given its known cells.

    They have equal weights, or their own where there are no more classes. Scores of all completed rows add up to the
    exact probability of the known cells, whichever classes are drawn, and the mean of a score over the classes is
    exact: so a row drawn by them follows the mixture.

    Missing numbers of a class follow a chain from the last to the first, in which each is given the records after it
    and the middles of the known cells.
    """

    def __init__(self, mixture: MixtureDenoiser, x: Tensor, salt: int) -> None:
        super().__init__(mixture, x)
        self._mixture, n = mixture, min(mixture.n_components, SOME_CLASSES)
        every = torch.arange(len(x), device=x.device)
        u = RowNoise(x, torch.zeros_like(every), salt).uniform(mixture.codebook.n_columns + 2, 1)
        self.log_prob = x.new_zeros(len(x))
        self._classes = torch.arange(n, device=x.device).repeat(len(x), 1)
        self._log_shares = x.new_zeros(len(x), n)
        step = rows_at_once(CACHED // max(mixture.n_components, mixture.codebook.levels.n_points))
        for rows in every.split(step):
            joint = mixture.log_joint(filled(x[rows]))[: len(rows)].double()
            self.log_prob[rows] = joint.logsumexp(1)
            if n == mixture.n_components:
                self._log_shares[rows] = joint
            else:
                steps = (torch.arange(n, device=x.device) + u[rows]) / n
                self._classes[rows] = chosen(joint, steps)
        self._log_shares = self._log_shares.log_softmax(1)
        missing = x[:, mixture.codebook.reals].isnan()
        n_missing = missing.sum(1)
        self._sets = []  # rows (n,) with as many missing numbers, m, and the columns of these, (n, m)
        for m in n_missing.unique().tolist():
            some = torch.nonzero(n_missing == m).flatten()
            self._sets.append((some, torch.nonzero(missing[some])[:, 1].view(len(some), m)))

    def _moments(self, rows: Tensor, classes: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        """Means (n, K, m) of missing numbers (n, m) in classes (n, K), and Cholesky factors (n, K, m, m).

        They are float64; the factors are those of precisions given the known numbers, their transposes turn errors of
        the means into standard normal numbers.
        """
        mixture, columns = self._mixture, missing[:, None]
        if mixture.dense is None:
            sd = mixture.var[classes[:, :, None], columns].double().sqrt()
            return mixture.means[classes[:, :, None], columns].double(), torch.diag_embed(1 / sd)
        precision, linear = mixture.dense.precisions
        known = self._middles[rows].nan_to_num(0.0)
        of_missing = precision[classes[:, :, None], columns]  # (n, K, m, R)
        pull = linear[classes[:, :, None], columns] - (of_missing @ known[:, None, :, None])[..., 0]
        own = columns[:, :, None].expand(*of_missing.shape[:3], -1)
        factor = torch.linalg.cholesky_ex(of_missing.gather(3, own)).L
        return torch.cholesky_solve(pull[..., None], factor)[..., 0], factor

    @cached_property
    def _middles(self) -> Tensor:
        book = self._mixture.codebook
        return book.lines.cells(self.x[:, book.reals]).middle

    def draw(self, n_draws: int, salt: int) -> Tensor:
        mixture, book, x = self._mixture, self._mixture.codebook, self.x
        out = x.repeat_interleave(n_draws, 0)
        noise = RowNoise(out, torch.arange(n_draws, device=x.device).repeat(len(x)), salt)
        u = noise.uniform(book.n_columns, 1).view(len(x), n_draws)
        xi = [noise.uniform(j, 2)[:, 1] for j in book.reals.tolist()]
        xi = torch.stack(xi, 1).clamp(1e-12, 1 - 1e-12) if xi else x.new_zeros(len(out), 0)
        xi = torch.special.ndtri(xi).unflatten(0, (len(x), n_draws))
        which = self._classes.gather(1, chosen(self._log_shares, u))
        out = out.unflatten(0, (len(x), n_draws))
        for rows, missing in self._sets:
            at_once = max(1, CACHED // (n_draws * max(1, missing.shape[1] ** 2)))
            for part in torch.arange(len(rows)).split(at_once) if missing.shape[1] else ():
                some, columns = rows[part], missing[part]
                mean, factor = self._moments(some, which[some], columns)
                own = xi[some].gather(2, columns[:, None].expand(-1, n_draws, -1))
                error = torch.zeros_like(mean)
                for k in reversed(range(columns.shape[1])):
                    pull = own[:, :, k] - (factor[..., k + 1 :, k] * error[..., k + 1 :]).sum(-1)
                    value = mean[:, :, k] + pull / factor[..., k, k]
                    value = book.lines.rounded(value, columns[:, k, None])
                    out[some, :, book.reals[columns[:, k]]] = value
                    middle = book.lines.cells(value, columns[:, k, None]).middle
                    error[..., k] = middle - mean[:, :, k]
        out, which = out.flatten(0, 1), which.flatten()
        for j in torch.nonzero(x.isnan().any(0)).flatten().tolist():
            if j not in book.place:
                continue
            gaps = torch.nonzero(x[:, j].isnan()).flatten()
            rows = (gaps[:, None] * n_draws + torch.arange(n_draws)).flatten()
            logits = mixture.log_probs[:, book.levels.own(book.place[j])][which[rows]]
            out[rows, j] = chosen(logits.double(), noise.uniform(j, 2)[rows, 0]).double()
        return out.unflatten(0, (len(x), n_draws))

    def _log_joint(self, completions: Tensor) -> Tensor:
        mixture, book, n_draws = self._mixture, self._mixture.codebook, completions.shape[1]
        out = completions.new_zeros(completions.shape[:2])
        for rows, missing in self._sets:
            m = missing.shape[1]
            at_once = max(1, CACHED // (self._classes.shape[1] * max(4 * n_draws, m**2)))
            for part in torch.arange(len(rows)).split(at_once):
                some, columns = rows[part], missing[part]
                own, cells, unknown = self._classes[some], completions[some], self.x[some].isnan()
                total = self._log_shares[some][:, None].expand(-1, n_draws, -1).to(mixture.means)
                for j, i in book.place.items():
                    gaps = torch.nonzero(unknown[:, j]).flatten()
                    if len(gaps):
                        code, log_p = cells[gaps, :, j].long(), mixture.log_probs
                        more = log_p[:, book.levels.own(i)][own[gaps, None], code[:, :, None]]
                        total = total.index_add(0, gaps, more)
                if m:
                    total = total + self._of_numbers(some, own, columns, cells).to(total)
                out[some] = total.logsumexp(2).double()
        return out + self.log_prob[:, None]

    def _of_numbers(
        self, rows: Tensor, classes: Tensor, missing: Tensor, completions: Tensor
    ) -> Tensor:
        """Log-masses (n, M, K) of the ``missing`` numbers (n, m) of completions (n, M, C) in classes (n, K)."""
        book, (mean, factor) = self._mixture.codebook, self._moments(rows, classes, missing)
        own = book.reals[missing][:, None].expand(-1, completions.shape[1], -1)
        cells = book.lines.cells(completions.gather(2, own), missing[:, None])
        error, total = {}, 0.0
        for k in reversed(range(missing.shape[1])):
            error[k] = cells.middle[:, :, k, None] - mean[:, None, :, k]
            z = error[k] * factor[:, None, :, k, k]
            for i in range(k + 1, missing.shape[1]):
                z.addcmul_(error[i], factor[:, None, :, i, k])
            sd = 1 / factor[:, None, :, k, k]
            dtype = self._mixture.means.dtype
            total = total + log_masses_in_classes(z, cells.width[:, :, k, None], sd, dtype)
        return cast(Tensor, total)


def shares_of_classes(log_weights: Tensor, cells: Iterable[Tensor]) -> Tensor:
    r"""Increments of a mixture's log-probability as its columns are multiplied in one by one: (B, n), nats.

    :math:`\log \sum_z r_z\, p_z(x_j)`, the classes weighted by their posterior r given the columns before j, which sum
    to :math:`\log \sum_z w_z \prod_j p_z(x_j)`, with ``log_weights`` (Z,). ``cells`` are each class's log-probabilities
    of the cells of one column after the other, (B, Z), nats, 0 where one is missing.
    """
    log_class, steps = log_weights[None], []
    for log_p in cells:
        joint = log_class + log_p
        log_class = torch.log_softmax(joint, 1)
        # the log-sum, from the largest term before and after it is normalised
        steps.append(joint.amax(1) - log_class.amax(1))
    return torch.stack(steps, 1) if steps else log_weights.new_zeros(1, 0)


class Sums(NamedTuple):
    """Expected sums of rows in each class.

    ``mass`` (Z,) counts rows, ``counts`` (Z, T) cells of every level. ``first``, ``second`` and ``present``, float64
    (Z, R), are sums of numbers, of their squares, and numbers of present cells. In dense classes missing cells have
    expected values, ``second`` (Z, R, R) holds products, and ``present`` (Z, 1) counts rows.
    """

    mass: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor
    present: Tensor


def expected_sums(model: MixtureDenoiser, x: Tensor) -> Sums:
    """The sums over rows ``x`` (N, C), each divided among the classes by their posterior.

    That of dependent numbers is by their densities as records (:meth:`DenseGaussians.blurred`).
    """
    book, like, z = model.codebook, model.log_probs, model.n_components
    mass, counts = like.new_zeros(z), torch.zeros_like(like)

    def count(rows: Tensor, log_joint: Tensor) -> Tensor:
        r = torch.softmax(log_joint, 1)  # (B, Z)
        mass.add_(r.sum(0))
        if book.levels.n_points:
            counts.addmm_(r.T.to(like), indicators(book, rows))
        return r

    if model.dense is not None:
        blurred = model.dense.blurred(book.lines)
        moments = blurred.moments(
            x[:, book.reals],
            lambda i, log_p: count(x[i], log_p.add_(model.joint_with_levels(x[i]))),
        )
        return Sums(mass, counts, *moments, mass[:, None].double())
    reals: tuple[Tensor, ...] = ()
    for rows in x.split(max(1, CACHED // max(z, book.levels.n_points))):
        r = count(rows, model.log_joint(rows))
        second, first, present = (r.T.double() @ powers(rows[:, book.reals])).tensor_split(3, 1)
        new = first, second, present
        reals = tuple(map(torch.add, reals, new)) if reals else new
    return Sums(mass, counts, *reals)


def powers(cells: Tensor) -> Tensor:
    """Squares, values and presence of continuous cells (B, R): float64, (B, 3 R), zeros where one is NaN."""
    present, cells = (~cells.isnan()).double(), cells.double().nan_to_num(0.0)
    return torch.cat([cells.square(), cells, present], 1)


def quadratics(mean: Tensor, var: Tensor) -> Tensor:
    """Coefficients of :func:`powers`, float64 (3 R, Z), in the summed log-densities of Gaussians (Z, R)."""
    mean, var = mean.double(), var.double()
    constant = mean.square() / var + (2 * math.pi * var).log()
    return torch.cat([-0.5 / var, mean / var, -0.5 * constant], 1).T


def smoothed(levels: Levels, counts: Tensor, prior: Tensor, rows: float) -> Tensor:
    """Probabilities (Z, T) of levels by their ``counts`` (Z, T) and ``rows`` pseudo-rows of the ``prior``."""
    seen = levels.per_level(levels.sum(counts))
    rows_of_prior = rows + lacking(seen)
    return (counts + rows_of_prior * prior) / (seen + rows_of_prior)


@torch.no_grad()
def refine(
    model: MixtureDenoiser,
    x: Tensor,
    x_valid: Tensor,
    *,
    n_fixed: int = 0,
    left: Callable[[], float] = lambda: math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> MixtureDenoiser:
    """A mixture fitted further to rows ``x`` (N, C), not worse on held-out rows ``x_valid``.

    Every class keeps a number of rows of its former distribution, as a Dirichlet prior does (Dempster, Laird & Rubin
    1977, section 3), so that there may be more classes than rows. Held-out rows choose the number of prior rows and end
    the rounds. Of the last ``n_fixed`` classes only the weight changes. Classes of negligible weight are dropped. No
    round is begun that would likely take longer than the seconds ``left`` on the ``clock``.
    """
    start = clock()
    best, best_nats = model, held_out_nats(model, x_valid)
    needed = round_seconds(clock() - start, len(x), len(x_valid))
    tried = CLASS_PRIORS
    for _ in range(16):  # EM rounds
        start = clock()
        if needed > left():
            break
        sums = expected_sums(best, x)
        made = [updated(model, sums, rows, n_fixed) for rows in tried]
        nats = [held_out_nats(m, x_valid) for m in made]
        gain, i = best_nats - min(nats), nats.index(min(nats))
        if gain > 0:
            kept = weighty(made[i], n_fixed)  # a round's time is proportional to its classes
            best, model, best_nats = part(made[i], kept), part(model, kept), nats[i]
        if gain < LEAST_ROUND_GAIN:
            break
        tried, needed = tried[i : i + 1], clock() - start
    return best


def round_seconds(evaluation: float, n: int, n_valid: int) -> float:
    """Seconds of the first round, an upper bound for the others, from the seconds of one held-out evaluation."""
    return evaluation * (2 * n / n_valid + len(CLASS_PRIORS))  # EM takes twice as long per row


def updated(model: MixtureDenoiser, sums: Sums, prior_rows: float, n_fixed: int) -> MixtureDenoiser:
    """The M-step: the mixture with these sums, each class with ``prior_rows`` pseudo-rows of ``model``."""
    levels = model.codebook.levels
    # one pseudo-row, spread evenly, keeps every class
    weights = sums.mass + 1 / len(sums.mass)
    prior = model.log_probs.exp()
    probs = levels.with_unseen(smoothed(levels, sums.counts, prior, prior_rows), prior)
    kept = len(weights) - n_fixed
    probs[kept:] = prior[kept:]
    if not model.own_reals:
        return MixtureDenoiser(model.codebook, weights, probs)
    kept_rows = prior_rows + lacking(sums.present)
    old_mean, n = model.means.double(), sums.present + kept_rows
    mean = (sums.first + kept_rows * old_mean) / n
    moved = old_mean - mean
    if model.dense is not None:
        kind, old = "chol", model.chol.double()
        square = sums.second + sums.present[:, :, None] * outer(mean, mean)
        square = square - outer(mean, sums.first) - outer(sums.first, mean)
        prior_square = kept_rows[:, :, None] * (old @ old.mT + outer(moved, moved))
        spread = cholesky((square + prior_square) / n[:, :, None])
    else:
        kind, old = "var", model.var.double()
        square = sums.second - 2 * mean * sums.first + mean.square() * sums.present
        spread = (square.clamp_min(0.0) + kept_rows * (old + moved.square())) / n
    mean[kept:], spread[kept:] = old_mean[kept:], old[kept:]
    numbers = {"mean": mean, kind: spread}
    return MixtureDenoiser(model.codebook, weights, probs, **numbers)


def weighty(model: MixtureDenoiser, n_fixed: int) -> Tensor:
    """Classes to keep, (Z,) of bool: those with 1 % of an equal weight, and the last ``n_fixed``."""
    kept = model.log_weights >= math.log(0.01 / model.n_components)
    kept[model.n_components - n_fixed :] = True
    return kept


def part(model: MixtureDenoiser, kept: Tensor) -> MixtureDenoiser:
    """The mixture of some of the classes, (Z,) of bool."""
    if bool(kept.all()):
        return model
    weights, probs = model.log_weights[kept].exp(), model.log_probs[kept].exp()
    numbers = {}
    if model.own_reals:
        spread = {"chol": model.chol} if model.dense is not None else {"var": model.var}
        numbers = {name: t[kept] for name, t in ({"mean": model.means} | spread).items()}
    return MixtureDenoiser(model.codebook, weights, probs, **numbers)
