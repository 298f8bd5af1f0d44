r"""The Gaussian channel in SNR time: noise, schedules and quadratures.

A row x is seen through :math:`z = \sqrt\gamma x + \varepsilon`, eq. (1). In SNR time the statistic
:math:`y = \sqrt\gamma z = \gamma x + w_\gamma` has independent increments,

.. math:: \Delta y = \delta x + \sqrt\delta\, \xi, \qquad \xi \sim N(0, I),

so the pair (y, snr), with y of shape (B, D) and one SNR per column of shape (B, C), is the whole state.
An infinite SNR means "known", and y then holds the point itself; zero means "nothing known".

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
Guo, Shamai, Verdú, "Mutual information and minimum mean-square error in Gaussian channels", 2005.
"""

from discrete_itd.channel.codebook import Codebook, Vocabulary
from discrete_itd.channel.levels import ColumnPoints
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
    VocabularyPosterior,
)
from discrete_itd.channel.quadrature import Quadrature
from discrete_itd.channel.schedules import (
    CoordinateSchedule,
    HybridSchedule,
    IsotropicSchedule,
    Schedule,
    check_schedule,
    column_ranks,
    distinct_paths,
)
from discrete_itd.channel.state import State

__all__ = [
    "CategoricalPosterior",
    "Codebook",
    "ColumnPoints",
    "CoordinateSchedule",
    "GaussianPosterior",
    "HybridSchedule",
    "IsotropicSchedule",
    "Posterior",
    "Quadrature",
    "Schedule",
    "State",
    "Vocabulary",
    "VocabularyPosterior",
    "check_schedule",
    "column_ranks",
    "distinct_paths",
]
