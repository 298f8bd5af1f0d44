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
from discrete_itd.denoisers import Denoiser
from discrete_itd.detection.repeats import Repeats
from discrete_itd.detection.sparsity import MOST_ROWS, Sparsity, cells_of, is_sparse, is_uneven
from discrete_itd.encoders import Column
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.model import Model
from discrete_itd.progress import progress_bar
from discrete_itd.validation import check_integer

T = TypeVar("T")

TYPICAL_ROWS = 500  # drawn from the model, to estimate the mean surprisal of a continuous column
FEW_ROWS = 1000  # up to so many rows, independent columns weigh as much as the model of categories
ROUNDINGS = 1 << 12  # bound on the number of consecutive roundings behind one score


@dataclass(eq=False)
class Scorer:
    r"""Nats by column of any row: the model's, each density capped, and beside them what two codes add.

    Of nominal columns alone they are a weighted mean with the nats of independent columns. Such a mean is a code
    length: :math:`\sum_x P(x)^w Q(x)^{1-w} \le 1` by Hölder's inequality.

    Parameters
    ----------
    density : DiffusionDensity
    floor : ndarray, shape (C,)
        Lower bound of each column's nats; minus infinity for none. What a column's factor has less is added to its
        nats, so that a very typical value cannot offset an anomalous one. The factors are those that cost least
        (:meth:`~discrete_itd.denoisers.Denoiser.log_prob_and_factors`).
    weight : float
        Weight w of the model's code length in the mean; below 1 only where all columns are nominal.
    repeats : Repeats, optional
        Says first whether each number is a new one, where numbers repeat (:mod:`discrete_itd.detection.repeats`).
    sparsity : Sparsity, optional
        Compares a row with others as sparse (:mod:`discrete_itd.detection.sparsity`); no code length then.
    given : tuple of int
        Positions of the columns to condition on: nats are those of the other columns given these.
    """

    density: DiffusionDensity
    floor: np.ndarray
    weight: float = 1.0
    repeats: Repeats | None = None
    sparsity: Sparsity | None = None
    given: tuple[int, ...] = ()
    # what is known of rows, of a model with a number of evaluations
    _known: WeakKeyDictionary[Rows, tuple[Model, int, dict[str, Any]]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    @classmethod
    def plain(cls, density: DiffusionDensity, given: tuple[int, ...] = ()) -> Scorer:
        """The score that is the log-probability, of all columns or of those that are not given."""
        floor = np.full(len(density.encoder_.schema), -math.inf)
        return cls(density, floor, given=given)

    # -- scores ---------------------------------------------------------------------------------

    def nats(self, rows: Rows) -> pd.DataFrame:
        """Nats by column: DataFrame of shape (N, C) with the index of the table; 0 for a missing cell."""
        nats = self.weight * self._model_nats(rows)
        if self.weight < 1:
            nats += (1 - self.weight) * rows.by_column(self._other_nats(rows))
        return nats if self._extra is None else nats + self._extra.nats(rows.x)

    def score(self, rows: Rows) -> np.ndarray:
        """Minus the row sums of :meth:`nats`, faster: float64, shape (N,); higher is more typical."""
        score = self.weight * self._model_score(rows)
        if self.weight < 1:
            score = score - (1 - self.weight) * self._other_nats(rows).sum(1)
        return score if self._extra is None else score - self._extra.nats(rows.x).sum(1)

    @property
    def _extra(self) -> Repeats | Sparsity | None:
        """What adds nats to the code lengths: the first of numbers, the second of categories, so never both."""
        return self.repeats or self.sparsity

    def _other_nats(self, rows: Rows) -> np.ndarray:
        """Nats (N, C) of the cells of nominal columns in independent columns; 0 where missing or given."""
        x = rows.unique
        nats = -self.marginals.expand(len(x)).log_prob(x).double().cpu().numpy()[rows.inverse]
        missing = rows.x.isnan()
        left_out = missing if self.given_cells is None else missing | self.given_cells
        return np.where(left_out.cpu().numpy(), 0.0, nats - rows.log_volume)

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
                rows.unique,
                self.density.n_evaluations,
                given=self.given_cells,
                estimator=self._estimator,
                progress=bar.update,
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
                rows.unique,
                self.density.n_evaluations,
                given=self.given_cells,
                estimator=self._estimator,
                progress=bar.update,
            )
        nats = split.surprisal.cpu().numpy()[rows.inverse] - rows.log_volume
        if self.given_cells is not None:
            nats = np.where(self.given_cells.cpu().numpy(), 0.0, nats)
        return rows.by_column(nats)

    @property
    def _estimator(self) -> str | None:
        """How a question with given columns is answered: at once, by the companion if need be; None for the default."""
        closed = self.model.answers(self.given_cells).closed_form
        return "closed_form" if closed and self.given_cells is not None else None

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
        return self.given_cells is None and self.model.denoiser.closed_form

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

    # -- its members ----------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The density's model as it is now."""
        return self.density.model_

    @property
    def denoiser(self) -> Denoiser:
        """The model's denoiser that scores rows."""
        return self.model.denoiser

    @property
    def conditional(self) -> Denoiser:
        """The model's denoiser of conditional distributions."""
        return self.model.conditional

    @cached_property
    def marginals(self) -> Posterior:
        """Independent columns of the rows that the density was fitted to, one row."""
        return self.density.model_.marginals.marginals()

    @property
    def schema(self) -> Sequence[Column]:
        """The columns of the table."""
        return self.density.encoder_.schema

    # -- storage --------------------------------------------------------------------------------

    def to_tensors(self) -> dict[str, Tensor]:
        """All but the density and what is given."""
        tensors = {
            "weight": torch.tensor([self.weight], dtype=torch.float64),
            "floor": torch.tensor(self.floor),
        }
        return tensors if self._extra is None else tensors | self._extra.to_tensors()

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
        nominal = all(c.kind == "nominal" for c in schema)
        floor = tensors["floor"].numpy().astype(float)
        if floor.shape != (len(schema),) or not (floor < np.inf).all():
            raise ValueError(f"its floor is malformed, of shape {floor.shape}")
        weight = tensors["weight"].tolist()
        if len(weight) != 1 or not (0 < weight[0] <= 1 if nominal else weight[0] == 1):
            raise ValueError(f"its score has weight {weight}")
        scorer = cls(density, floor, weight[0], given=given)
        if "repeats" in tensors:
            scorer = replace(scorer, repeats=Repeats.from_tensors(len(schema), tensors))
        if "sparsity" in tensors:
            if not nominal:
                raise ValueError("its nats of sparse rows are those of categories")
            scorer = replace(scorer, sparsity=Sparsity.from_tensors(len(schema), tensors))
        return scorer


def fit_score(
    density: DiffusionDensity,
    train: Rows | None,
    seed: int,
    n_rows: int | None = None,
    given: tuple[int, ...] = (),
) -> Scorer:
    """The score of a fitted density that ranks anomalies best.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    train : Rows, optional
        The rows it was fitted on. If they are unknown, nothing is said of new numbers, of sparse rows, or of
        independent columns beside the model.
    seed : int
    n_rows : int, optional
        How many rows the density was fitted on, if ``train`` is a sample of them.
    given : tuple of int
        Positions of the columns to condition on.
    """
    scorer, schema = Scorer.plain(density, given), density.encoder_.schema
    if all(c.kind == "nominal" for c in schema):
        if train is None:
            return scorer
        n = n_rows or len(train)
        return among_as_sparse(replace(scorer, weight=max(0.5, n / (n + FEW_ROWS))), train, seed)
    capped = np.array([c.kind == "continuous" for c in schema])
    if capped.any():
        drawn = density.rows(density.sample(TYPICAL_ROWS, random_state=seed))
        typical = scorer.capping_nats(drawn)
        floor = np.where(capped, typical.mean(axis=0).to_numpy(), scorer.floor)
        scorer = replace(scorer, floor=floor)
    if train is None:
        return scorer
    repeats = Repeats.of(schema, train.x, given)
    return replace(scorer, repeats=repeats if repeats.seen else None)


def among_as_sparse(scorer: Scorer, train: Rows, seed: int) -> Scorer:
    """The score that compares a row of categories with as sparse ones, if training rows call for it; or itself."""
    if not scorer.model.answers(scorer.given_cells).closed_form:
        return scorer  # scores along paths cost too much
    order = np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]
    if not is_uneven(cells_of(train.x, len(scorer.schema))[order], scorer.given):
        return scorer  # most tables: nothing of them is scored
    some = train.take(np.sort(order))
    nats = -scorer.marginals.expand(len(some)).log_prob(some.x).double().cpu().numpy()
    nats = some.by_column(nats).to_numpy()
    cells = cells_of(some.x, nats.shape[1])
    if not is_sparse(cells, nats, scorer.given):
        return scorer
    return replace(scorer, sparsity=Sparsity.of(cells, scorer.score(some), scorer.given))


def scorer_of(model: DiffusionDensity | Scorer) -> Scorer:
    """A scorer as it is, or that of a density's log-probability."""
    return model if isinstance(model, Scorer) else Scorer.plain(model)
