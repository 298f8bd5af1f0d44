"""The anomaly score: nats by column, of which a row's score is minus the sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers import Denoiser, KernelDenoiser
from discrete_itd.denoisers.kernel import MOST_CENTRES
from discrete_itd.detection.classes import ClassConditionals, Classes, Grids, classes_of
from discrete_itd.detection.kernel import kernel_nats
from discrete_itd.detection.repeats import Repeats
from discrete_itd.detection.sparsity import Sparsity
from discrete_itd.encoders import Column
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.likelihood import in_blocks
from discrete_itd.models.model import Model
from discrete_itd.progress import progress_bar
from discrete_itd.threads import threads_for
from discrete_itd.validation import check_integer

T = TypeVar("T")

ROUNDINGS = 1 << 12  # bound on the number of consecutive roundings behind one score


@dataclass(eq=False)
class Scorer:
    r"""Nats by column of any row: a weighted mean of two code lengths, the model's and a simpler one's.

    Such a mean is a code length: :math:`\sum_x P(x)^w Q(x)^{1-w} \le 1` by Hölder's inequality.

    Parameters
    ----------
    density : DiffusionDensity
    weight : float
        Weight w of the model's code length. The other is that of ``kernel``, or of independent columns without one.
    smoothing_sd : float
        Continuous values are smoothed with Gaussian noise of this standard deviation in the model's part, in
        standardised units (the standard deviation of a column is 1/2).
    floor : ndarray, shape (C,)
        Lower bound of each column's nats in the model's part; minus infinity for none. What a column's factor has less
        is added to its nats, so that a very typical value cannot offset an anomalous one.
    own_shares : bool
        Whether the factors are always those of the model, as in older files. Otherwise they are those
        that cost least (:meth:`~discrete_itd.denoisers.Denoiser.log_prob_and_factors`).
    by_doubt : bool
        How the kernel density's nats are divided (:func:`~discrete_itd.detection.kernel.kernel_nats`): not so in
        older files, or their calibration nats would not compare.
    kernel : KernelDenoiser, optional
    repeats : Repeats, optional
        Says first whether each number is a new one, where numbers repeat (:mod:`discrete_itd.detection.repeats`).
    sparsity : Sparsity, optional
        Compares a row with others as sparse (:mod:`discrete_itd.detection.sparsity`); no code length then.
    given : tuple of int
        Positions of the columns to condition on: both code lengths are then of the other columns given these, the
        simpler one as a difference of two of its own.
    """

    density: DiffusionDensity
    weight: float
    smoothing_sd: float
    floor: np.ndarray
    kernel: KernelDenoiser | None = None
    repeats: Repeats | None = None
    sparsity: Sparsity | None = None
    given: tuple[int, ...] = ()
    own_shares: bool = False
    by_doubt: bool = True
    # what is known of rows, of a model with a number of evaluations
    _known: WeakKeyDictionary[Rows, tuple[Model, int, dict[str, Any]]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )
    # points on which conditional densities of continuous columns are normalised, and their log-volumes, by column
    grids: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)
    # of denoisers that are mixtures of products: their classes, and the densities of these on the grids
    _classes: dict[int, tuple[Denoiser, Classes | None, Grids]] = field(
        default_factory=dict, init=False, repr=False
    )
    # a model and the same with continuous values smoothed
    _smooth: tuple[Model, Model] | None = field(default=None, init=False, repr=False)

    @classmethod
    def plain(cls, density: DiffusionDensity, given: tuple[int, ...] = ()) -> Scorer:
        """The score that is the log-probability, of all columns or of those that are not given."""
        floor = np.full(len(density.encoder_.schema), -math.inf)
        return cls(density, 1.0, 0.0, floor, given=given)

    # -- scores ---------------------------------------------------------------------------------

    def nats(self, rows: Rows) -> pd.DataFrame:
        """Nats by column: DataFrame of shape (N, C) with the index of the table; 0 for a missing cell."""
        nats = self.weight * self._model_nats(rows)
        if self.weight < 1:
            other = self._other_nats(rows, by_cell=True) - rows.log_volume
            other = np.where(self._left_out(rows), 0.0, other)
            nats += (1 - self.weight) * rows.by_column(other)
        return nats if self._extra is None else nats + self._extra.nats(rows.x)

    def score(self, rows: Rows) -> np.ndarray:
        """Minus the row sums of :meth:`nats`, faster: float64, shape (N,); higher is more typical."""
        score = self.weight * self._model_score(rows)
        if self.weight < 1:
            volume = np.where(self._left_out(rows), 0.0, rows.log_volume).sum(1)
            score = score + (1 - self.weight) * (volume - self._other_nats(rows, by_cell=False))
        return score if self._extra is None else score - self._extra.nats(rows.x).sum(1)

    @property
    def _extra(self) -> Repeats | Sparsity | None:
        """What adds nats to the code lengths: the first of numbers, the second of categories, so never both."""
        return self.repeats or self.sparsity

    @torch.no_grad()
    def _other_nats(self, rows: Rows, *, by_cell: bool) -> np.ndarray:
        """Code lengths of the simpler member for encoded cells, (N, C'), or rows, (N,)."""
        x, kernel, given = rows.unique, self.kernel, self.given_cells

        def log_prob(some: Tensor) -> Tensor:
            assert kernel is not None
            found = kernel.log_prob(some).double()
            if given is not None:
                found = found - kernel.log_prob(some.masked_fill(~given, math.nan)).double()
            return found

        with progress_bar(len(x), "compare") as bar, threads_for(len(x)):
            if kernel is None:
                nats = -self.marginals.expand(len(x)).log_prob(x).double()
                nats = nats if given is None else nats.masked_fill(given, 0.0)
                nats = nats if by_cell else nats.sum(1)
            elif by_cell:
                nats = kernel_nats(kernel, x, bar.update, given=given, by_doubt=self.by_doubt)
            else:
                parts = [x.new_zeros(0)]
                for part in in_blocks(log_prob, x, batch_size=kernel.batch):
                    parts.append(-part)
                    bar.update(len(part))
                nats = torch.cat(parts)
        return nats.cpu().numpy()[rows.inverse]

    def _model_score(self, rows: Rows) -> np.ndarray:
        """Minus the row sums of the model's part, (N,): its log-probability where no column is capped."""
        if not self.model.answers(self.given_cells).closed_form or (
            self._capped and not self._quick
        ):
            # the path of a row is the same for both, so that shares cost no more than their sum
            return -np.ascontiguousarray(self._model_nats(rows).to_numpy()).sum(1)
        if not self._capped:
            return self._once(rows, self._log_prob)
        return self._once(rows, self._quick_factors)[0] - self._excess(rows).sum(1)

    def _log_prob(self, rows: Rows) -> np.ndarray:
        """Closed form of the model's log-probability of the cells, (N,)."""
        with progress_bar(len(rows.unique), "score") as bar:
            found = self.model.log_prob(
                rows.unique, self.density.n_evaluations, given=self.given_cells, progress=bar.update
            )
        volume = rows.log_volume
        if self.given_cells is not None:
            volume = np.where(self.given_cells.cpu().numpy(), 0.0, volume)
        return found.log_prob.cpu().numpy()[rows.inverse] + volume.sum(1)

    def _quick_factors(self, rows: Rows) -> tuple[np.ndarray, pd.DataFrame]:
        """The same, with the nats by column, (N, C), of the factors that cost least beside it."""
        with progress_bar(len(rows.unique), "score") as bar:
            found = self.model.log_prob_and_factors(rows.unique, bar.update)
        log_prob, factors = (t.cpu().numpy()[rows.inverse] for t in found)
        return log_prob + rows.log_volume.sum(1), rows.by_column(-factors - rows.log_volume)

    def _model_nats(self, rows: Rows) -> pd.DataFrame:
        """The model's part, (N, C)."""
        shares = self._once(rows, self._shares)
        return shares + self._excess(rows) if self._capped else shares

    def _shares(self, rows: Rows) -> pd.DataFrame:
        """The model's surprisal of each column, (N, C)."""
        with progress_bar(len(rows.unique), "explain") as bar:
            split = self.model.attribution(
                rows.unique, self.density.n_evaluations, given=self.given_cells, progress=bar.update
            )
        nats = split.surprisal.cpu().numpy()[rows.inverse] - rows.log_volume
        if self.given_cells is not None:
            nats = np.where(self.given_cells.cpu().numpy(), 0.0, nats)
        return rows.by_column(nats)

    def _excess(self, rows: Rows) -> np.ndarray:
        """What each column lacks to its lower bound, (N, C); a missing or given cell lacks nothing."""
        nats = self.capping_nats(rows).to_numpy()
        return np.ascontiguousarray(np.where(nats != 0, np.maximum(self.floor - nats, 0.0), 0.0))

    def capping_nats(self, rows: Rows) -> pd.DataFrame:
        """The nats by column, (N, C), that are held against the lower bounds."""
        if self._quick:
            return self._once(rows, self._quick_factors)[1]
        return self._once(rows, self._shares)

    @property
    def _capped(self) -> bool:
        return not bool(np.isneginf(self.floor).all())

    @property
    def _quick(self) -> bool:
        """Whether some factors cost little: those of the rows' own closed form, not of one that answers for it."""
        return self.given_cells is None and self.model.denoiser.closed_form and not self.own_shares

    def _once(self, rows: Rows, question: Callable[[Rows], T]) -> T:
        """What a method of this object says of rows, asked once unless the density has changed since."""
        model, n_evaluations = self.model, self.density.n_evaluations
        check_integer("n_evaluations", n_evaluations, 2)
        known = self._known.get(rows)
        if known is None or known[0] is not model or known[1] != n_evaluations:
            known = self._known[rows] = model, n_evaluations, {}
        name = question.__name__
        if name not in known[2]:
            known[2][name] = question(rows)
        return known[2][name]

    @property
    def rounding(self) -> float:
        """Bound on the rounding error of a score, relative to 1 + |score|.

        Denoiser calls of constant shape make scores of equal rows equal to the last bit where this is tested, but no
        library of matrix products guarantees it. The relative error of n roundings is at most n times the unit roundoff
        of the floating type (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1).
        """
        return ROUNDINGS * torch.finfo(self.density.denoiser_.codebook.known_snr.dtype).eps / 2

    # -- what is given ---------------------------------------------------------------------------

    @cached_property
    def given_cells(self) -> Tensor | None:
        """Which internal columns are given, (C',); None if none are."""
        if not self.given:
            return None
        mask = np.isin(self.density.encoder_.owner, self.given)
        return torch.from_numpy(mask).to(self.density.device_)

    def _left_out(self, rows: Rows) -> np.ndarray:
        """Which encoded cells have no code length, (N, C'): missing ones and given ones."""
        missing = rows.x.isnan()
        return (missing if self.given_cells is None else missing | self.given_cells).cpu().numpy()

    # -- its members ----------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The density's model as it is now, with continuous values smoothed."""
        model = self.density.model_
        if not self.smoothing_sd:
            return model
        if self._smooth is None or self._smooth[0] is not model:
            denoiser = model.denoiser.smoothed(self.smoothing_sd)
            companion = model.companion and model.companion.smoothed(self.smoothing_sd)
            self._smooth = model, replace(model, denoiser=denoiser, companion=companion)
        return self._smooth[1]

    @property
    def denoiser(self) -> Denoiser:
        """The model's denoiser that scores rows, with continuous values smoothed."""
        return self.model.denoiser

    @property
    def conditional(self) -> Denoiser:
        """The model's denoiser of conditional distributions, with continuous values smoothed."""
        return self.model.conditional

    @cached_property
    def marginals(self) -> Posterior:
        """Independent columns of the rows that the density was fitted to, one row."""
        return self.density.model_.marginals.marginals()

    def given_classes(self, denoiser: Denoiser, known: Tensor) -> ClassConditionals | None:
        """The conditionals of rows (U, C') whose known cells are no NaN, under a member that is a mixture of products.

        None if it is not.
        """
        which = int(denoiser is self.kernel)
        kept = self._classes.get(which)
        if kept is None or kept[0] is not denoiser:
            kept = self._classes[which] = denoiser, classes_of(denoiser), Grids()
        _, classes, grids = kept
        return None if classes is None else ClassConditionals(classes, known, grids)

    @property
    def schema(self) -> Sequence[Column]:
        """The columns of the table."""
        return self.density.encoder_.schema

    # -- storage --------------------------------------------------------------------------------

    def to_tensors(self) -> dict[str, Tensor]:
        """All but the density and what is given."""
        how = [self.weight, self.smoothing_sd, float(self.own_shares), float(self.by_doubt)]
        how = torch.tensor(how, dtype=torch.float64)
        tensors = {"how": how, "floor": torch.tensor(self.floor)}
        if self._extra is not None:
            tensors |= self._extra.to_tensors()
        if self.kernel is not None:
            tensors["kernel.centres"] = self.kernel.centres
            tensors["kernel.widths"] = torch.tensor(self.kernel.widths, dtype=torch.float64)
            tensors["kernel.n_averaged"] = torch.tensor([self.kernel.n_averaged])
        return tensors

    @classmethod
    def from_tensors(
        cls, density: DiffusionDensity, tensors: dict[str, Tensor], given: tuple[int, ...] = ()
    ) -> Scorer:
        """The scorer of a density that :meth:`to_tensors` wrote.

        Raises
        ------
        LookupError, ValueError
            If the tensors are malformed.
        """
        schema = density.encoder_.schema
        floor = tensors["floor"].numpy().astype(float)
        if floor.shape != (len(schema),) or not (floor < np.inf).all():
            raise ValueError(f"its floor is malformed, of shape {floor.shape}")
        weight, sd, *flags = tensors["how"].tolist()
        if not (0 < weight <= 1 and 0 <= sd < math.inf):
            raise ValueError(f"its score has weight {weight} and smoothing_sd {sd}")
        flags += [1.0, 0.0][len(flags) :]  # older files have fewer
        if not set(flags) <= {0.0, 1.0}:
            raise ValueError(f"its flags are {flags}")
        own, by_doubt = (flag != 0 for flag in flags)
        scorer = cls(density, weight, sd, floor, given=given, own_shares=own, by_doubt=by_doubt)
        if "repeats" in tensors:
            scorer = replace(scorer, repeats=Repeats.from_tensors(len(schema), tensors))
        if "sparsity" in tensors:
            if any(c.kind != "nominal" for c in schema):
                raise ValueError("its nats of sparse rows are those of categories")
            scorer = replace(scorer, sparsity=Sparsity.from_tensors(len(schema), tensors))
        if "kernel.centres" not in tensors:
            return scorer
        centres, widths = tensors["kernel.centres"].double(), tensors["kernel.widths"].tolist()
        base, centres = density.model_.marginals, centres.to(density.device_)
        averaged = tensors.get("kernel.n_averaged", torch.ones(1))  # older files hold rows
        if averaged.shape != (1,) or not 1 <= averaged.item() <= MOST_CENTRES:
            raise ValueError("its number of averaged rows is malformed")
        kernel = KernelDenoiser(base, centres, widths, int(averaged.item()))
        return replace(scorer, kernel=kernel)


def scorer_of(model: DiffusionDensity | Scorer) -> Scorer:
    """A scorer as it is, or that of a density's log-probability."""
    return model if isinstance(model, Scorer) else Scorer.plain(model)
