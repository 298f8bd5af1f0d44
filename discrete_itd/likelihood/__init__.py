"""The I-MMSE estimator: log-probabilities of rows from a denoiser, conditionals and samples.

Two estimators of the same quantity, :mod:`~discrete_itd.likelihood.path`, eq. (6), and
:mod:`~discrete_itd.likelihood.integral`, eqs. (3) and (4); their error bars are in
:mod:`~discrete_itd.likelihood.standard_error`.
"""

from discrete_itd.likelihood.integral import error_and_tail, integral_log_prob, squared_errors
from discrete_itd.likelihood.path import in_blocks, path_log_prob, path_log_weights
from discrete_itd.likelihood.standard_error import Attribution, Estimate, attribute, combine

__all__ = [
    "Attribution",
    "Estimate",
    "attribute",
    "combine",
    "error_and_tail",
    "in_blocks",
    "integral_log_prob",
    "path_log_prob",
    "path_log_weights",
    "squared_errors",
]
