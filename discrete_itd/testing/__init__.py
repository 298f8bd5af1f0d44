r"""Property checks for your own parts: :func:`check_denoiser` and :func:`check_schedule`.

The library's own denoisers and schedules pass the same checks. Each raises an AssertionError that says which
property does not hold, or returns the names of those that do.

**Your own denoiser** is a class with ``forward``, which returns a posterior, and ``config``, by which it is
saved. Whatever the posterior, the score is a normalised log-probability, eq. (6); a better one gives shorter codes.

>>> import numpy as np
>>> import torch
>>> from discrete_itd.channel import CategoricalPosterior, Codebook, ColumnPoints, Posterior
>>> from discrete_itd.denoisers import Denoiser, MarginalDenoiser
>>> class Smoothed(Denoiser):
...     "The posterior of another denoiser, mixed with a uniform distribution."
...     def __init__(self, codebook, base, weight):
...         super().__init__(codebook)
...         self.base, self.weight = base, weight
...     def forward(self, y, snr):
...         levels, q = self.codebook.levels, self.base(y, snr).categorical
...         uniform = levels.log_softmax(torch.zeros_like(q.logits)).exp()
...         mixed = (1 - self.weight) * q.probs + self.weight * uniform
...         return Posterior(self.codebook, CategoricalPosterior(levels, mixed.log()))
>>> book = Codebook([ColumnPoints("simplex", 3), ColumnPoints("simplex", 2)])
>>> rows = torch.tensor([[0, 1], [2, 0], [2, 1]], dtype=torch.float64)
>>> check_denoiser(Smoothed(book, MarginalDenoiser.fit(book, rows), 0.1), trusted=[Smoothed])
['shapes', 'posterior_sums_to_one', 'repeatable', 'row_alone', 'path_sums_to_one', 'stored']

Rows and states for tests of your own are made by these:

>>> rng = np.random.default_rng(0)
>>> y, snr = states_of_every_kind(book, rng)  # unknown, known and noisy cells
>>> len(all_rows(book)), random_rows(book, 3, rng, missing=0.4).shape, snr.shape
(6, torch.Size([3, 2]), torch.Size([9, 2]))

A recipe makes an estimator fit it: ``DiffusionDensity(denoiser=SmoothedCounts())``.

>>> from dataclasses import dataclass
>>> import pandas as pd
>>> from discrete_itd import DiffusionDensity
>>> from discrete_itd.recipes import Recipe
>>> @dataclass(frozen=True)
... class SmoothedCounts(Recipe):
...     weight: float = 0.1
...     def fit(self, rows, plan):
...         return Smoothed(rows.codebook, rows.marginals, self.weight)
>>> frame = pd.DataFrame({"a": list("xyxxyz") * 9, "b": list("uvvuvv") * 9})
>>> model = DiffusionDensity(denoiser=SmoothedCounts(), random_state=0).fit(frame)
>>> type(model.denoiser_).__name__, model.score_samples(frame).shape
('Smoothed', (54,))

**Your own schedule** has the methods of :class:`discrete_itd.channel.Schedule`.

>>> @dataclass(frozen=True)
... class Halves:
...     "Half of the columns become known, then the others."
...     n_columns: int
...     n_steps, noisy, complete, orders = 2, False, True, None
...     def snr(self, step, rank, n_free):
...         known = 2 * rank < step * n_free
...         return torch.zeros(rank.shape).masked_fill(known & (step > 0), torch.inf)
>>> check_schedule(Halves(5), 5)
['climbs', 'row_alone', 'stored']
>>> model.set_params(schedule=Halves(2)).fit(frame).model_.schedule
Halves(n_columns=2)
"""

from discrete_itd.testing.denoisers import check_denoiser
from discrete_itd.testing.properties import (
    all_rows,
    check_schedule,
    random_rows,
    states_of_every_kind,
)

__all__ = ["all_rows", "check_denoiser", "check_schedule", "random_rows", "states_of_every_kind"]
