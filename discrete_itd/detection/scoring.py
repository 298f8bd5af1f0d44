"""What counts as strange: nats by column, of which the detector's score is the sum."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.detection.kernel import KernelDensity, Widths
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import progress_bar

BLUR = 0.05  # a tenth of a column's standard deviation, in units of the core
USUAL_ROWS = 500  # drawn from the model, to know what a continuous column usually costs
ROUNDINGS = 1 << 12  # in sequence behind one score, at most: steps, layers, terms of sums
FEW_ROWS = 1000  # up to so many, columns alone count as much as dependence between categories


@dataclass(frozen=True)
class Scorer:
    r"""Nats by column of any row: a mean of two code lengths, the model's and a simpler one's.

    A mean of code lengths is one: :math:`\sum_x P(x)^w Q(x)^{1-w} \le 1` by Hölder's inequality, so a score is never
    too good in total.

    Parameters
    ----------
    density : DiffusionDensity
    weight : float
        Of the model's code length, w. The rest is that of ``kernel``, or of independent columns if there is none.
    blur : float
        Standard deviation, in units of the core, to which continuous values count as known to the model.
    floor : ndarray, shape (C,)
        Least nats of a column that count in the model's part; minus infinity where all do.
    kernel : KernelDensity, optional
    """

    density: DiffusionDensity
    weight: float
    blur: float
    floor: np.ndarray
    kernel: KernelDensity | None = None

    @classmethod
    def plain(cls, density: DiffusionDensity) -> Scorer:
        """Score by minus the log-probability."""
        return cls(density, 1.0, 0.0, np.full(len(density.encoder_.schema), -math.inf))

    @classmethod
    def pooled(cls, density: DiffusionDensity, train: Any, seed: int) -> Scorer:
        """Score numbers by distances, too, and categories by their columns alone the more, the fewer rows there are.

        Parameters
        ----------
        density : DiffusionDensity
            Fitted.
        train : DataFrame or array-like, shape (N, C)
            Rows it was fitted on, the centres of the kernel. If they are not known, there are none; the model's part is
            then the whole.
        seed : int
        """
        scorer, schema = cls.plain(density), density.encoder_.schema
        n = len(train)
        if all(c.kind == "nominal" for c in schema):
            return replace(scorer, weight=max(0.5, n / (n + FEW_ROWS))) if n else scorer
        scorer = replace(scorer, blur=BLUR)
        capped = np.array([c.kind == "continuous" for c in schema])
        if capped.any():
            usual = scorer.nats(density.sample(USUAL_ROWS, random_state=seed)).mean(axis=0)
            scorer.floor[capped] = usual.to_numpy()[capped]
        if not n:
            return scorer
        generator = torch.Generator().manual_seed(seed)
        kernel = KernelDensity.fit(base_of(density), density.rows(train).x, generator)
        return replace(scorer, weight=0.5, kernel=kernel)

    def score(self, X: Any) -> np.ndarray:
        """How strange each row is: the :func:`total` of :meth:`nats`, at less cost: float64, (N,)."""
        nats = self.weight * self._model_nats(X).to_numpy().sum(1)
        if self.weight < 1:
            unique, inverse, x, log_volume = self._encoded(X)
            with progress_bar(len(unique), "compare") as bar:
                other = (
                    self._alone(unique).sum(1)
                    if self.kernel is None
                    else -self.kernel.log_prob(unique, progress=bar.update)
                )
            volume = np.where(x.isnan().cpu().numpy(), 0.0, log_volume).sum(1)
            nats = nats + (1 - self.weight) * (other.cpu().numpy()[inverse] - volume)
        return nats

    def nats(self, X: Any) -> pd.DataFrame:
        """Nats by column: DataFrame of shape (N, C) with the index of X; a missing cell has none."""
        nats = self._model_nats(X)
        if self.weight == 1:
            return nats
        unique, inverse, x, log_volume = self._encoded(X)
        with progress_bar(len(unique), "compare") as bar:
            inner = (
                self._alone(unique)
                if self.kernel is None
                else self.kernel.nats(unique, progress=bar.update)
            )
        other = np.where(x.isnan().cpu().numpy(), 0.0, inner.cpu().numpy()[inverse] - log_volume)
        by_column = np.zeros(nats.shape)
        for j, column in enumerate(self.density.encoder_.owner):  # "it is missing" is of its column
            by_column[:, column] += other[:, j]
        return self.weight * nats + (1 - self.weight) * by_column

    def _model_nats(self, X: Any) -> pd.DataFrame:
        """The model's part, (N, C)."""
        density = self.density
        if self.blur:
            model = density.model_
            density = copy.copy(density)
            density.model_ = replace(model, denoiser=model.denoiser.smoothed(self.blur))
        nats = density.explain(X)
        if np.isneginf(self.floor).all():
            return nats
        return nats.clip(lower=self.floor, axis=1).where(nats != 0, 0.0)

    def _alone(self, x: Tensor) -> Tensor:
        """Nats of each cell in its column, (B, C')."""
        return -base_of(self.density).marginals().expand(len(x)).log_prob(x).double()

    def _encoded(self, X: Any) -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
        rows = self.density.rows(X)
        return rows.unique, rows.inverse, rows.x, rows.log_volume

    @property
    def rounding(self) -> float:
        """Bound on the rounding error of a score, relative to 1 + |score|.

        Denoiser calls of constant shape make equal rows equal to the last bit where this is tested, but no library of
        matrix products guarantees it. The relative error of n roundings is at most n times the unit roundoff of the
        floating type (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1).
        """
        return ROUNDINGS * torch.finfo(self.density.denoiser_.codebook.known_snr.dtype).eps / 2

    def none(self) -> pd.DataFrame:
        """The nats of no rows."""
        return pd.DataFrame(columns=pd.Index(self.density.encoder_.names), dtype=float)

    def to_tensors(self) -> dict[str, Tensor]:
        """All but the density."""
        how = torch.tensor([self.weight, self.blur], dtype=torch.float64)
        tensors = {"how": how, "floor": torch.tensor(self.floor)}
        if self.kernel is not None:
            tensors["kernel.centres"] = self.kernel.centres
            tensors["kernel.widths"] = torch.tensor(self.kernel.widths, dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(cls, density: DiffusionDensity, tensors: dict[str, Tensor]) -> Scorer:
        """The scorer of a density that :meth:`to_tensors` wrote.

        Raises
        ------
        LookupError, ValueError
            If the tensors are not what it writes.
        """
        schema, owner = density.encoder_.schema, density.encoder_.owner
        floor = tensors["floor"].numpy().astype(float)
        if floor.shape != (len(schema),) or not (floor < np.inf).all():
            raise ValueError("its floor is not what it should be")
        weight, blur = tensors["how"].tolist()
        if not (0 <= weight <= 1 and 0 <= blur < math.inf):
            raise ValueError(f"it scores with the weight {weight} and the blur {blur}")
        scorer = cls(density, weight, blur, floor)
        if "kernel.centres" not in tensors:
            return scorer
        centres, widths = tensors["kernel.centres"].double(), tensors["kernel.widths"].tolist()
        if centres.ndim != 2 or centres.shape[1] != len(owner) or not len(centres):
            raise ValueError(f"its kernel has centres of shape {tuple(centres.shape)}")
        if len(widths) != 3 or not all(0 < w < math.inf for w in widths) or widths[2] >= 1:
            raise ValueError("its kernel has widths that make no sense")
        kernel = KernelDensity(base_of(density), centres.to(density.device_), Widths(*widths))
        return replace(scorer, kernel=kernel)


def total(nats: pd.DataFrame) -> np.ndarray:
    """Sum of each row, (N,)."""
    return nats.to_numpy().sum(1)


def base_of(density: DiffusionDensity) -> MarginalDenoiser:
    """Independent columns of the rows that the density was fitted to."""
    return density.model_.marginals
