"""Noise of models that tests and benchmarks evaluate."""

import numpy as np
import torch

from discrete_itd.images.conventions import VariancePreserving


def linear(n_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> VariancePreserving:
    r"""The schedule of Ho, Jain and Abbeel: :math:`\beta_t` linear from ``first`` to ``last``."""
    return VariancePreserving(torch.from_numpy(np.cumprod(1 - np.linspace(first, last, n_steps))))
