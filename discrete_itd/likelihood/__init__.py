"""The I-MMSE estimator: log-probabilities of rows from a denoiser, conditionals and samples.

Two estimators of the same quantity, :mod:`~discrete_itd.likelihood.path`, eq. (6), and
:mod:`~discrete_itd.likelihood.integral`, eqs. (3) and (4), with their error bars.

>>> import torch
>>> from discrete_itd.channel import Codebook, ColumnPoints, CoordinateSchedule
>>> from discrete_itd.denoisers import BayesNetDenoiser
>>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
>>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
>>> net = BayesNetDenoiser(book, [(), (0,)], [torch.tensor([0.25, 0.75]), torch.eye(2) + 1e-9])
>>> noise = torch.Generator().manual_seed(0)
>>> found = Attribution(*path_log_prob(net, x, CoordinateSchedule(2), generator=noise))
>>> found.surprisal.sum(1)  # nats
tensor([1.3863, 0.2877], dtype=torch.float64)
>>> squared_errors([net], x, torch.tensor([0.1, 1.0]), generator=noise).shape  # by denoiser, SNR and row
torch.Size([1, 2, 2])
>>> log_w = torch.log(torch.tensor([[[0.2], [0.4]]], dtype=torch.float64))  # by row, path and column
>>> combine(log_w[:, :, 0]) == Estimate(*attribute(log_w)[:2])
True
"""

from discrete_itd.likelihood.integral import integral_log_prob, squared_errors
from discrete_itd.likelihood.path import (
    Attribution,
    Estimate,
    attribute,
    combine,
    path_log_prob,
)

__all__ = [
    "Attribution",
    "Estimate",
    "attribute",
    "combine",
    "integral_log_prob",
    "path_log_prob",
    "squared_errors",
]
