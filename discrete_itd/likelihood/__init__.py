"""The I-MMSE estimator: log-probabilities of rows from a denoiser, and what else follows from them."""

from discrete_itd.likelihood.path import (
    Attribution,
    Estimate,
    attribute,
    combine,
    draw_salt,
    error_and_tail,
    in_blocks,
    integral_log_prob,
    mse_curve,
    path_attribution,
    path_log_prob,
    path_log_weights,
    squared_errors,
)

__all__ = [
    "Attribution",
    "Estimate",
    "attribute",
    "combine",
    "draw_salt",
    "error_and_tail",
    "in_blocks",
    "integral_log_prob",
    "mse_curve",
    "path_attribution",
    "path_log_prob",
    "path_log_weights",
    "squared_errors",
]
