r"""The path estimator: log-probabilities of rows from a denoiser, step by step, and their standard errors.

A path draws y from x step by step and adds up by how much the denoiser, which knows about the other columns, predicts
better than each column's own evidence,

.. math:: \log W = \log q_0(x) + \sum_i [\log q_i(x) - \log (q_{i-1}\oplus\Delta_i)(x)]. \qquad (6)

W is an importance weight: E[W] is a normalised probability mass (a density, in the continuous columns) for every
network and schedule. A missing cell keeps SNR zero, so that this is the log-probability of the observed cells.

References
----------
Duncan, "On the calculation of mutual information", 1970, for the limit of many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from discrete_itd.channel import Schedule, State
from discrete_itd.channel.noise import RowNoise, draw_salt, row_hashes
from discrete_itd.channel.schedules import column_ranks, steps_needed
from discrete_itd.denoisers.base import Denoiser, in_blocks
from discrete_itd.statistics import CONFIDENCE


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


def path_log_weights(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    noise: RowNoise,
    given: Tensor | None = None,
    *,
    n_steps: int | None = None,
) -> Tensor:
    """One path per row of ``x`` (B, C): log W of (6), split by column, (B, C), float64, nats.

    A missing cell (NaN) keeps SNR zero: it is marginalised. Columns ``given`` (C,) are known from the start, except
    where they are missing; their log-weights are zero. ``noise`` is the noise of these rows' paths. ``n_steps`` is at
    least the number of steps that these rows need, by default ``steps_needed``, for which alone the host waits for the
    device.
    """
    book = denoiser.codebook
    points, missing = book.embed(x), x.isnan()
    known = torch.zeros_like(missing) if given is None else given & ~missing
    free = ~known & ~missing
    n_free = free.sum(1, keepdim=True)
    rank = column_ranks(schedule, noise.uniform(0, book.n_columns), free, known)
    if n_steps is None:
        n_steps = steps_needed(schedule, n_free)
    state = State.start(book, points, None if given is None else known)
    # where nothing is given, all rows start from one state
    posterior = (
        denoiser(state.y[:1], state.snr[:1]).expand(len(x)) if given is None else denoiser(*state)
    )
    log_w = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for step in range(1, n_steps + 1):
        target = torch.where(known, math.inf, schedule.snr(step, rank, n_free).to(points))
        target = target.masked_fill(missing, 0.0)
        xi = noise.normal(step, book.n_coords, points.dtype) if schedule.noisy else None
        new = state.increment(book, points, target, xi)
        # (6), its sum rearranged by steps: how a cell's own new evidence changes its posterior
        log_w += posterior.log_prob(x.masked_fill(new.snr == 0, math.nan))
        if schedule.noisy:
            noisy = (new.snr > 0) & ~torch.isinf(new.snr)
            log_w -= posterior.update(*new).log_prob(x.masked_fill(~noisy, math.nan))
        if step == n_steps and schedule.complete:
            return log_w  # log q_S(x) = 0: every cell is known
        state = state.add(book, new)
        known = torch.isinf(state.snr)
        posterior = denoiser(*state)
    return log_w + posterior.log_prob(x.masked_fill(known, math.nan))


def equal_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Index of each of U distinct rows of x (B, C), by hashes of 64 bits, (U,), and each row's among these, (B,)."""
    distinct, among = torch.unique(row_hashes(x), return_inverse=True)
    places = torch.arange(len(x), device=x.device)
    first = places.new_full((len(distinct),), len(x))
    return first.scatter_reduce_(0, among, places, "amin"), among


@torch.no_grad()
def path_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    *,
    n_paths: int = 4,
    generator: torch.Generator,
    given: Tensor | None = None,
    batch_size: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Attribution:
    """Log-probabilities of rows by the path estimator (6), and their split by column.

    ``-log_prob`` is in expectation above the model's true code length, and falls towards it as M grows. All results are
    float64, in nats.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.
    schedule : Schedule
        Of the cells that are neither given nor missing.
    n_paths : int
        Paths M of every row, at least 2 for a standard error; no more than the schedule has different ones.
    generator : torch.Generator
        Gives one number; with it, a row's noise depends on the row alone.
    given : Tensor of bool, shape (C,), optional
        Columns to condition on, where they are not missing: the result is log P(others | given).
    batch_size : int
        Rows times paths in one denoiser call; changes speed, not the answer.
    progress : callable, optional
        Called with the number of rows done since the last call.

    Raises
    ------
    ValueError
        If ``n_paths`` is not positive.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints, CoordinateSchedule
    >>> from discrete_itd.denoisers import BayesNetDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    >>> net = BayesNetDenoiser(book, [(), (0,)], [torch.tensor([0.25, 0.75]), torch.eye(2) + 1e-9])
    >>> generator = torch.Generator().manual_seed(0)
    >>> path_log_prob(net, x, CoordinateSchedule(2), generator=generator).log_prob.exp()
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    if n_paths < 1:
        raise ValueError(f"n_paths must be positive, got {n_paths}")
    salt = draw_salt(generator)
    # further paths would repeat the only one
    is_only = not schedule.noisy and (schedule.order is not None or schedule.n_steps == 1)
    n_paths = 1 if is_only else n_paths
    chunk = max(1, batch_size // n_paths)

    def call(part: Tensor, path: Tensor) -> Tensor:
        return path_log_weights(denoiser, part, schedule, RowNoise(part, path, salt), given)

    parts = []
    for rows in x.split(chunk):
        which = torch.arange(n_paths, device=x.device).repeat(len(rows))
        each = rows.repeat_interleave(n_paths, 0)
        log_w = torch.cat(list(in_blocks(call, each, which, batch_size=batch_size)))
        found = attribute(log_w.unflatten(0, (len(rows), n_paths)))
        if is_only:
            found = found._replace(stderr=torch.zeros_like(found.stderr))
        parts.append(found)
        if progress is not None:
            progress(len(rows))
    return Attribution(*(torch.cat(t) for t in zip(*parts, strict=True)))
