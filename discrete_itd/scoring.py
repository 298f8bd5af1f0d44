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
from discrete_itd.estimators import DiffusionDensity, _bar, _index
from discrete_itd.frames import unique_rows
from discrete_itd.kernel import KernelDensity, Widths

BLUR = 0.05  # a tenth of a column's standard deviation, in units of the core
USUAL_ROWS = 500  # drawn from the model, to know what a continuous column usually costs


@dataclass(frozen=True)
class Scorer:
    r"""Nats by column of any row.

    Of a table with numbers, the mean of two code lengths, the model's and a kernel density's. The mean of code
    lengths is one: :math:`\sum_x \sqrt{P(x) Q(x)} \le 1` by Cauchy and Schwarz.

    Parameters
    ----------
    density : DiffusionDensity
    blur : float
        Standard deviation, in units of the core, to which continuous values count as known.
    floor : ndarray, shape (C,)
        Least nats of a column that count in the model's part; minus infinity where all do.
    kernel : KernelDensity, optional
    """

    density: DiffusionDensity
    blur: float
    floor: np.ndarray
    kernel: KernelDensity | None = None

    @classmethod
    def plain(cls, density: DiffusionDensity) -> Scorer:
        """Score by minus the log-probability."""
        return cls(density, 0.0, np.full(len(density.encoder_.schema), -math.inf))

    @classmethod
    def pooled(cls, density: DiffusionDensity, train: Any, seed: int) -> Scorer:
        """Score tables with numbers by distances, too.

        Parameters
        ----------
        density : DiffusionDensity
            Fitted.
        train : DataFrame or array-like, shape (N, C)
            Rows it was fitted on, the centres of the kernel; there may be none, and then there is no kernel.
        seed : int
        """
        schema = density.encoder_.schema
        if all(c.kind == "nominal" for c in schema):
            return cls.plain(density)
        scorer = replace(cls.plain(density), blur=BLUR)
        capped = np.array([c.kind == "continuous" for c in schema])
        if capped.any():
            usual = scorer.nats(density.sample(USUAL_ROWS, random_state=seed)).mean(axis=0)
            scorer.floor[capped] = usual.to_numpy()[capped]
        if not len(train):
            return scorer
        x, _ = density.encode(train)
        generator = torch.Generator().manual_seed(seed)
        return replace(scorer, kernel=KernelDensity.fit(_base(density), x, generator))

    def nats(self, X: Any) -> pd.DataFrame:
        """Nats by column: DataFrame of shape (N, C) with the index of X; a missing cell has none."""
        density = self.density
        if self.blur:
            model = density.model_
            density = copy.copy(density)
            density.model_ = replace(model, denoiser=model.denoiser.blurred(self.blur))
        nats = density.explain(X)
        if not np.isneginf(self.floor).all():
            nats = nats.clip(lower=self.floor, axis=1).where(nats != 0, 0.0)
        if self.kernel is None:
            return nats
        x, log_volume = self.density.encode(X)
        unique, inverse = unique_rows(x)
        with _bar(len(unique), "compare") as bar:
            inner = self.kernel.nats(unique, progress=bar.update).cpu().numpy()[inverse]
        inner = np.where(x.isnan().cpu().numpy(), 0.0, inner - log_volume)
        owner = self.density.encoder_.owner
        by_column = np.zeros(nats.shape)
        for j, column in enumerate(owner):  # "it is missing" is of its column
            by_column[:, column] += inner[:, j]
        return (nats + pd.DataFrame(by_column, index=_index(X), columns=nats.columns)) / 2

    def none(self) -> pd.DataFrame:
        """The nats of no rows."""
        return pd.DataFrame(columns=pd.Index(self.density.encoder_.names), dtype=float)

    def to_tensors(self) -> dict[str, Tensor]:
        """All but the density."""
        blur = torch.tensor(self.blur, dtype=torch.float64)
        tensors = {"blur": blur, "floor": torch.tensor(self.floor)}
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
        blur = tensors["blur"].item()
        if not 0 <= blur < math.inf:
            raise ValueError(f"it blurs by {blur}")
        scorer = cls(density, blur, floor)
        if "kernel.centres" not in tensors:
            return scorer
        centres, widths = tensors["kernel.centres"].double(), tensors["kernel.widths"].tolist()
        if centres.ndim != 2 or centres.shape[1] != len(owner) or not len(centres):
            raise ValueError(f"its kernel has centres of shape {tuple(centres.shape)}")
        if len(widths) != 3 or not all(0 < w < math.inf for w in widths) or widths[2] >= 1:
            raise ValueError("its kernel has widths that make no sense")
        kernel = KernelDensity(_base(density), centres.to(density.device_), Widths(*widths))
        return replace(scorer, kernel=kernel)


def _base(density: DiffusionDensity) -> MarginalDenoiser:
    """The model of independent columns that the network corrects."""
    base = density.denoiser_.base
    assert isinstance(base, MarginalDenoiser)  # what fit makes
    return base
