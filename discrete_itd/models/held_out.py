"""Nats of the rows that a fit held out, under the model and under independent columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from discrete_itd.storage.stored import AnyFloat
from discrete_itd.training import mean_and_error

if TYPE_CHECKING:
    from discrete_itd.models.model import Model

MOST_ROWS = 256  # scored along paths; a closed form scores all of them
PATH_WORK = 1 << 20  # rows times numbers of a denoiser call beyond which fewer are, but at least 32


@dataclass(frozen=True)
class HeldOut:
    """Mean code lengths of held-out rows, in nats per encoded row (without ``log_volume``).

    Attributes
    ----------
    n_rows : int
        On which they were measured, the same ones for both.
    nats, stderr : float
        Of the model, as it scores rows, and the standard error over rows (NaN for one row).
    independent, independent_stderr : float
        Of independent columns fitted to the same training rows.
    gain_stderr : float
        Standard error of :attr:`gain`, over rows.
    """

    n_rows: int
    nats: float
    stderr: AnyFloat
    independent: float
    independent_stderr: AnyFloat
    gain_stderr: AnyFloat

    @property
    def gain(self) -> float:
        """Nats per row by which the model is better than independent columns."""
        return self.independent - self.nats

    @classmethod
    def measure(
        cls, model: Model, x: Tensor, n_evaluations: int, n_rows: int | None = None
    ) -> HeldOut:
        """The nats of a model that was just fitted.

        Parameters
        ----------
        model : Model
        x : Tensor of float64, shape (N', C')
            Held-out rows, N' at least 1.
        n_evaluations : int
            Per row, if the model scores along paths.
        n_rows : int, optional
            Of them at most, if it does.
        """
        if not model.denoiser.closed_form:
            most = min(MOST_ROWS, max(32, PATH_WORK // model.denoiser.row_work))
            x = x[: min(most, n_rows or most)]
        nats = -model.log_prob(x, n_evaluations).log_prob.double()
        independent = nats
        if model.denoiser is not model.marginals:
            independent = -model.marginals.log_prob(x).double()
        pairs = [mean_and_error(t) for t in (nats, independent, independent - nats)]
        return cls(len(x), *pairs[0], *pairs[1], pairs[2][1])


UNMEASURED = HeldOut(0, *[math.nan] * 5)  # of a model whose fit has not ended
