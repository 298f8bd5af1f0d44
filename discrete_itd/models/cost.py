"""What a model costs, as measured once, at the end of its fit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from discrete_itd.threads import most_threads

if TYPE_CHECKING:
    from discrete_itd.models.model import Model

TIMED_ROWS = 1024
TIMED_ROWS_OF_PATHS = 32
TIMED_EVALUATIONS = 2  # of a path, which costs in proportion to them


@dataclass(frozen=True)
class Cost:
    """Times on the machine of the fit.

    Attributes
    ----------
    fit_seconds : float
        Of the whole fit.
    microseconds : float
        Per encoded row scored in a batch; along paths for ``n_evaluations`` of the fit, extrapolated from few.
    n_rows : int
        Of the batch.
    n_threads : int
        That torch was allowed.
    """

    fit_seconds: float
    microseconds: float
    n_rows: int
    n_threads: int

    @classmethod
    def measure(cls, model: Model, x: Tensor, n_evaluations: int, start: float) -> Cost:
        """The cost of a model that was just fitted.

        Parameters
        ----------
        model : Model
        x : Tensor of float64, shape (N', C')
            Held-out rows, of which the first are scored.
        n_evaluations : int
        start : float
            When the fit began, by ``time.perf_counter``.
        """
        fit_seconds = time.perf_counter() - start
        closed = model.denoiser.closed_form
        x = x[: TIMED_ROWS if closed else TIMED_ROWS_OF_PATHS]
        model.log_prob(x[:1], TIMED_EVALUATIONS)  # what is computed at the first call only
        start = time.perf_counter()
        float(model.log_prob(x, TIMED_EVALUATIONS).log_prob.sum())  # waits for a GPU
        microseconds = 1e6 * (time.perf_counter() - start) / len(x)
        if not closed:
            microseconds *= n_evaluations / TIMED_EVALUATIONS
        return cls(fit_seconds, microseconds, len(x), most_threads())
