r"""The Gaussian channel: points of a table's columns, noise, schedules, quadratures and posteriors.

A row x is observed as :math:`z = \sqrt\gamma x + \varepsilon` with standard normal noise, eq. (1), where
:math:`\gamma` is the signal-to-noise ratio (SNR). The statistic :math:`y = \sqrt\gamma z` has independent increments
in :math:`\gamma`,

.. math:: \Delta y = \delta x + \sqrt\delta\, \xi, \qquad \xi \sim N(0, I),

so the pair (y, snr), with y of shape (B, D) and one SNR per column of shape (B, C), is sufficient for the row: it is
the state of the channel. Where the SNR is infinite the cell is known, and y holds its point; where it is zero, nothing
is known.

Letters of tensor shapes, here and in the whole core:

======  =============================================
letter  number of
======  =============================================
B, N    rows of a batch, rows of a table
C       columns
K       levels of one column, the unseen one included
T       levels of all columns of categories
R       continuous columns
D       coordinates
S, M    steps of a path, paths
======  =============================================

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
Guo, Shamai, Verdú, "Mutual information and minimum mean-square error in Gaussian channels", 2005.
"""

from discrete_itd.channel.codebook import Codebook, ColumnPoints, State
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.channel.schedules import (
    CoordinateSchedule,
    IsotropicSchedule,
    Quadrature,
    Schedule,
)

__all__ = [
    "CategoricalPosterior",
    "Codebook",
    "ColumnPoints",
    "CoordinateSchedule",
    "GaussianPosterior",
    "IsotropicSchedule",
    "Posterior",
    "Quadrature",
    "Schedule",
    "State",
]
