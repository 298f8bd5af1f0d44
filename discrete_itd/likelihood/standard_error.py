"""Log-probabilities with their standard errors, from the log-weights of several paths."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

CONFIDENCE = 0.95  # of the interval of 1.96 standard errors to both sides


class Estimate(NamedTuple):
    """Log-probabilities with their standard errors: two float64 tensors of shape (N,), in nats.

    :func:`combine` defines the coverage of ``log_prob`` ± 1.96 ``stderr``.
    """

    log_prob: Tensor
    stderr: Tensor


class Attribution(NamedTuple):
    """An estimate and its split by column: ``surprisal`` (N, C) sums over columns to ``-log_prob``."""

    log_prob: Tensor
    stderr: Tensor
    surprisal: Tensor


def combine(log_w: Tensor) -> Estimate:
    r"""Log-mean-exp over paths, and a standard error that covers it.

    ``log_w`` (N, M) are float64 log-weights. The interval of 1.96 ``stderr`` to both sides is meant to cover
    :math:`\log P_\theta(x)` of (6) with 95 % confidence. With one path the error is unknown: NaN.

    Notes
    -----
    The standard error is the sum of two parts, with v the variance of the log-weights and l their log-mean-exp.

    * Chance: the larger of :math:`\sqrt{v/M}` and the error of the delta method :math:`s_\Delta`, which cannot exceed
      one nat. Where paths agree, so do the two. It is multiplied by Student's quantile over 1.96, since v is known
      from M paths only, with :math:`\max(1, 2(M-1)/3)` degrees of freedom, since log-weights have heavier tails than
      a Gaussian.
    * Bias: l is too low on average. If log-weights were Gaussian, :math:`\log P` would be their mean plus v/2. The
      difference to l counts as half-width, so it is divided by 1.96; multiplied by :math:`\min(1, 4 s_\Delta)`, since
      l is accurate whatever the distribution where :math:`s_\Delta` is small; and at most :math:`2 \sqrt{v}`, since
      the formula means nothing where paths are tens of nats apart.

    The 2/3 and the 4 were chosen on held-out rows of mushroom, adult and car; ``python -m tests.benchmarks.promises
    coverage`` measures the coverage. Anomalies are covered less often: where paths disagree by many nats, the few that
    explain the row best are rarely among those drawn.

    Examples
    --------
    >>> combine(torch.log(torch.tensor([[0.2, 0.4]], dtype=torch.float64))).log_prob.exp()
    tensor([0.3000], dtype=torch.float64)
    """
    m = log_w.shape[1]
    log_prob = log_w.logsumexp(1) - math.log(m)
    w = torch.exp(log_w - log_prob[:, None])  # mean 1
    mean = log_w.mean(1)
    variance = (log_w - mean[:, None]).square().sum(1) / (m - 1)
    delta = ((w - 1).square().sum(1) / (m - 1) / m).sqrt()
    top = (1 + CONFIDENCE) / 2
    gauss, student = stats.norm.ppf(top), stats.t.ppf(top, max(1.0, 2 / 3 * (m - 1)))
    chance = float(student / gauss) * torch.maximum(delta, (variance / m).sqrt())
    bias = (mean + variance / 2 - log_prob).clamp_min(0.0) * (4 * delta).clamp_max(1.0)
    bias = torch.minimum(bias, 2 * variance.sqrt())
    return Estimate(log_prob, chance + bias / float(gauss))


def paired_variance(f: Tensor) -> Tensor:
    """Variance of the mean of n stratified draws (b, n), from differences of neighbouring strata: (b,)."""
    n = f.shape[1] // 2 * 2
    pairs = f[:, :n].unflatten(1, (-1, 2)).diff(dim=2)
    return pairs.square().sum((1, 2)) / (f.shape[1] * max(1, n))


def attribute(log_w: Tensor) -> Attribution:
    r"""Split the log-mean-exp over paths by column, exactly.

    Column j gets :math:`-\sum_m \lambda_m \log W_{mj}` with convex weights between uniform and proportional to W: the
    only mixture of the two for which the columns add up to the score. ``log_w`` (N, M, C) are log-weights by column.
    """
    total = log_w.sum(2)  # (N, M)
    estimate = combine(total)
    equal = torch.full_like(total, 1 / total.shape[1])
    by_weight = torch.exp(total - estimate.log_prob[:, None]) * equal
    low, high = (equal * total).sum(1), (by_weight * total).sum(1)
    share = (estimate.log_prob - low) / (high - low)
    share = torch.where(high - low > 1e-9, share, 0.5).clamp(0, 1)[:, None]
    weights = share * by_weight + (1 - share) * equal
    surprisal = -(weights[:, :, None] * log_w).sum(1)
    return Attribution(*estimate, surprisal)
