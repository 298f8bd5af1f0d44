r"""The I-MMSE estimator: log-probabilities of rows from a denoiser.

Two estimators of the same quantity:

* the *integral* over SNR of the squared denoising error,

  .. math:: -\log P(x) = \tfrac12\int_0^\infty \mathbb E\|x-\hat x\|^2 d\gamma \qquad (3)

  or, against a baseline b of known log-probability and on the same noise,

  .. math:: -\log P(x) = -\log b(x)
            + \tfrac12\int_0^\infty \mathbb E[\|x-\hat x\|^2 - \|x-\hat x_b\|^2] d\gamma; \qquad (4)

* the *path*, which draws y from x step by step and adds up by how much the denoiser's knowledge of the other
  columns beats each column's own evidence,

  .. math:: \log W = \log q_0(x) + \sum_i [\log q_i(x) - \log (q_{i-1}\oplus\Delta_i)(x)]. \qquad (6)

  W is an importance weight: E[W] is a normalised probability mass (a density, in the continuous columns) for every
  network and schedule.

A missing cell keeps SNR zero for ever, so both give the log-probability of what was observed.

Law (5): the integral s(x) of *any* denoiser is a valid code length, :math:`\sum_x e^{-s(x)} \le 1`. For every
distribution q, :math:`\mathbb E_q s` is at least the integral of q's own minimum mean squared error, which is the
entropy H(q); so by Gibbs' variational principle :math:`\log \sum_x e^{-s(x)} = \max_q [H(q) - \mathbb E_q s] \le 0`.

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792, for (3) and (4).
Guo, Shamai, Verdú, "Mutual information and minimum mean-square error in Gaussian channels", 2005; Duncan, "On the
calculation of mutual information", 1970, for the path in the limit of many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from discrete_itd.channel import Quadrature, Schedule, State, column_ranks, distinct_paths
from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import BLOCK, Denoiser, filled

MAX_ELEMENTS = 1 << 26  # of a tensor of log-weights by row, path and column
DECISION = 0x5EED  # tells the noise that decides on more paths from the noise that estimates
CONFIDENCE = 0.95  # of the interval of 1.96 standard errors to both sides


class Estimate(NamedTuple):
    """Log-probabilities with their standard errors: two float64 tensors of shape (N,), in nats.

    See :func:`combine` for what ``log_prob`` ± 1.96 ``stderr`` covers.
    """

    log_prob: Tensor
    stderr: Tensor


class Attribution(NamedTuple):
    """An estimate and its split by column: ``surprisal`` (N, C) sums over columns to ``-log_prob``."""

    log_prob: Tensor
    stderr: Tensor
    surprisal: Tensor


def draw_salt(generator: torch.Generator) -> int:
    """One number from the caller's generator, for all the row-keyed noise of a call."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))


def in_blocks(
    call: Callable[..., Tensor], x: Tensor, *more: Tensor, batch_size: int
) -> Iterator[Tensor]:
    """Results of ``call`` on batches of rows, none of which depends on how many other rows there are.

    Parameters
    ----------
    call : callable
        From rows of ``x`` and of each of ``more`` to a tensor with one row for each.
    x, *more : Tensor, shapes (N, ...)
    batch_size : int
        Rows of a call at most, up to a multiple of ``BLOCK``.

    Notes
    -----
    A matrix product of one row may sum in another order than one of many rows, and so round differently. Every call
    therefore gets a multiple of ``BLOCK`` rows (or of ``batch_size``, if smaller), filled up with copies of the last.
    """
    block = min(BLOCK, batch_size)
    size = batch_size // block * block
    for part in zip(*(t.split(size) for t in (x, *more)), strict=True):
        yield call(*(filled(t, block) for t in part))[: len(part[0])]


# -- the path (6) ---------------------------------------------------------------------------------


def path_log_weights(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    noise: RowNoise,
    given: Tensor | None = None,
) -> Tensor:
    """One path per row: log W of (6), split by column.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (B, C)
        Rows; NaN where a cell is missing, which keeps SNR zero for ever: it is marginalised.
    schedule : Schedule
    noise : RowNoise
        Noise of these rows' paths.
    given : Tensor of bool, shape (C,), optional
        Columns known from the start, except where they are missing; their cells get zeros.

    Returns
    -------
    Tensor, shape (B, C), float64, nats
    """
    book = denoiser.codebook
    points, missing = book.embed(x), x.isnan()
    known = torch.zeros_like(missing) if given is None else given & ~missing
    free = ~known & ~missing
    n_free = free.sum(1, keepdim=True)
    path = noise.path
    if schedule.orders is not None:
        # which orders a row gets is chance, so that E[W] is the mixture of all of them; none comes twice
        path = path + noise.offset(len(schedule.orders))
    rank = column_ranks(schedule, noise.uniform(0, book.n_columns), path, free, known)
    n_steps = schedule.n_steps
    if schedule.complete and not schedule.noisy:
        n_steps = min(
            n_steps, int(n_free.max()) if len(x) else 0
        )  # by then all cells of all rows are known
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
        # (6), its sum rearranged by steps: what a cell's own new evidence makes of what was believed
        log_w += posterior.log_prob(x.masked_fill(new.snr == 0, math.nan))
        if schedule.noisy:
            blurred = (new.snr > 0) & ~torch.isinf(new.snr)
            log_w -= posterior.update(*new).log_prob(x.masked_fill(~blurred, math.nan))
        if step == n_steps and schedule.complete:
            return log_w  # log q_S(x) = 0: every cell is known
        state = state.add(book, new)
        known = torch.isinf(state.snr)
        posterior = denoiser(*state)
    return log_w + posterior.log_prob(x.masked_fill(known, math.nan))


def combine(log_w: Tensor, distinct: int | None = None) -> Estimate:
    r"""Log-mean-exp over paths, and a standard error that covers it.

    Parameters
    ----------
    log_w : Tensor, shape (N, M), float64
        Log-weights; NaN where a row has fewer paths than others.
    distinct : int, optional
        How many different paths there are, if there is an end to them: a row that has them all has no error.

    Returns
    -------
    Estimate
        ``log_prob``, and ``stderr`` such that the interval of 1.96 ``stderr`` to both sides is meant to cover
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

    The 2/3 and the 4 were chosen on held-out rows of mushroom, adult and car; coverage there, on other tables and on
    anomalies is measured by ``python -m tests.benchmarks.promises coverage``. Anomalies are covered less often: where
    paths disagree by many nats, the few paths that explain the row best are rarely among those drawn, and no statistic
    of the others can tell. Of ``distinct`` paths drawn without replacement the error falls as
    :math:`\sqrt{1 - M / distinct}`.
    """
    there = ~log_w.isnan()
    m = there.sum(1).double()
    log_prob = log_w.masked_fill(~there, -torch.inf).logsumexp(1) - m.log()
    w = torch.exp(log_w - log_prob[:, None])  # mean 1
    mean = log_w.nan_to_num(0.0).sum(1) / m
    variance = torch.where(there, log_w - mean[:, None], 0.0).square().sum(1) / (m - 1)
    delta = (torch.where(there, w - 1, 0.0).square().sum(1) / (m - 1) / m).sqrt()
    chance = _student(m) * torch.maximum(delta, (variance / m).sqrt())
    bias = (mean + variance / 2 - log_prob).clamp_min(0.0) * (4 * delta).clamp_max(1.0)
    bias = torch.minimum(bias, 2 * variance.sqrt())
    stderr = chance + bias / float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    if distinct is not None:
        stderr = stderr * (1 - m / distinct).clamp_min(0.0).sqrt()
        stderr = stderr.masked_fill(m >= distinct, 0.0)
    return Estimate(log_prob, stderr)


def _student(m: Tensor) -> Tensor:
    """Student's quantile for the variance of M log-weights, over the Gaussian one: as ``m``, NaN for one path."""
    top = (1 + CONFIDENCE) / 2
    numbers, which = m.unique(return_inverse=True)
    n = numbers.cpu().numpy()
    freedom = np.where(n > 1, np.maximum(1.0, 2 / 3 * (n - 1)), np.nan)
    ratio = stats.t.ppf(top, freedom) / stats.norm.ppf(top)
    return torch.as_tensor(ratio).to(m)[which]


def attribute(log_w: Tensor, distinct: int | None = None) -> Attribution:
    r"""Split the log-mean-exp over paths by column, exactly.

    Parameters
    ----------
    log_w : Tensor, shape (N, M, C), float64
        Log-weights by column; NaN where a row has fewer paths.
    distinct : int, optional
        As of :func:`combine`.

    Notes
    -----
    Column j gets :math:`-\sum_m \lambda_m \log W_{mj}` with convex weights between uniform and proportional to W:
    the only mixture of the two for which the columns add up to the score.
    """
    total = log_w.sum(2)  # (N, M)
    estimate = combine(total, distinct)
    there = ~total.isnan()
    total = total.masked_fill(~there, 0.0)
    equal = there.double() / there.sum(1, keepdim=True)
    by_weight = torch.where(there, torch.exp(total - estimate.log_prob[:, None]), 0.0) * equal
    low, high = (equal * total).sum(1), (by_weight * total).sum(1)
    share = (estimate.log_prob - low) / (high - low)
    share = torch.where(high - low > 1e-9, share, 0.5).clamp(0, 1)[:, None]
    weights = share * by_weight + (1 - share) * equal
    surprisal = -(weights[:, :, None] * log_w.nan_to_num(0.0)).sum(1)
    return Attribution(*estimate, surprisal)


@torch.no_grad()
def path_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    *,
    n_paths: int = 4,
    generator: torch.Generator,
    max_stderr: float | None = None,
    max_paths: int = 256,
    given: Tensor | None = None,
    batch_size: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Estimate:
    """Log-probabilities of rows by the path estimator (6).

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.
    schedule : Schedule
        Of the cells that are neither given nor missing.
    n_paths : int
        Paths M of every row, at least 2 for a standard error.
    generator : torch.Generator
        Gives one number; with it, a row's noise depends on the row alone.
    max_stderr : float, optional
        Nats. Rows get twice as many paths each time, up to ``max_paths``, until their standard error is at most this.
        That is judged by as many paths again, with noise of their own, which take no part in the estimate: if the
        estimate's own paths decided when to stop, E[W] would not be P(x) any more, and masses would not add up to one.
    max_paths : int
        Bound on the paths of one row's estimate.
    given : Tensor of bool, shape (C,), optional
        Columns to condition on: the result is log P(others | given).
    batch_size : int
        Rows times paths in one denoiser call; changes speed, not the answer.
    progress : callable, optional
        Called with the number of rows done since the last call.

    Returns
    -------
    Estimate
        float64 tensors of shape (N,), nats. ``-log_prob`` is in expectation above the model's true code
        length, and falls towards it as M grows.

    Raises
    ------
    ValueError
        If ``n_paths``, ``max_paths`` or ``max_stderr`` is not positive.
    """
    parts = [
        combine(log_w, distinct_paths(schedule))
        for log_w in _adaptive_weights(
            denoiser,
            x,
            schedule,
            n_paths,
            generator,
            max_stderr,
            max_paths,
            given,
            batch_size,
            progress,
        )
    ]
    return Estimate(*(torch.cat(t) for t in zip(*parts, strict=True)))


@torch.no_grad()
def path_attribution(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    *,
    n_paths: int = 4,
    generator: torch.Generator,
    max_stderr: float | None = None,
    max_paths: int = 256,
    given: Tensor | None = None,
    batch_size: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Attribution:
    """As :func:`path_log_prob`, with each column's share of the surprisal: (6) is a sum over columns."""
    parts = [
        attribute(log_w, distinct_paths(schedule))
        for log_w in _adaptive_weights(
            denoiser, x, schedule, n_paths, generator, max_stderr, max_paths, given, batch_size, progress,
            by_column=True,
        )
    ]  # fmt: skip
    return Attribution(*(torch.cat(t) for t in zip(*parts, strict=True)))


def _adaptive_weights(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    n_paths: int,
    generator: torch.Generator,
    max_stderr: float | None,
    max_paths: int,
    given: Tensor | None,
    batch_size: int,
    progress: Callable[[int], object] | None,
    by_column: bool = False,
) -> Iterator[Tensor]:
    """Log-weights of chunks of rows: (b, M), or (b, M, C) by column, NaN where a row needed fewer paths."""
    if n_paths < 1 or max_paths < 1 or (max_stderr is not None and not max_stderr > 0):
        raise ValueError(
            f"n_paths, max_paths and max_stderr must be positive, got {n_paths}, {max_paths}, {max_stderr}"
        )
    salt = draw_salt(generator)
    most = n_paths if max_stderr is None else max(n_paths, max_paths)
    distinct = distinct_paths(schedule)
    if distinct is not None:  # more would be the same ones again
        n_paths, most = min(n_paths, distinct), min(most, distinct)
    chunk = max(1, batch_size // n_paths)
    if by_column:
        chunk = max(1, min(chunk, MAX_ELEMENTS // (most * x.shape[1])))

    def extended(log_w: Tensor, rows: Tensor, needy: Tensor, salt: int, by_column: bool) -> Tensor:
        """Twice as many paths of the needy rows, NaN for the others."""
        more = range(log_w.shape[1], min(2 * log_w.shape[1], most))
        extra = log_w.new_full((len(rows), len(more), *log_w.shape[2:]), torch.nan)
        extra[needy] = _paths(
            denoiser, rows[needy], schedule, more, salt, given, batch_size, by_column
        )
        return torch.cat([log_w, extra], 1)

    for rows in x.split(chunk):
        first = range(n_paths)
        log_w = _paths(denoiser, rows, schedule, first, salt, given, batch_size, by_column)
        if max_stderr is not None and n_paths < most:
            other = salt ^ DECISION
            judge = _paths(denoiser, rows, schedule, first, other, given, batch_size, False)
            while log_w.shape[1] < most:
                stderr = combine(judge, distinct).stderr
                needy = torch.nonzero(
                    ~(stderr <= max_stderr)
                ).flatten()  # an unknown error is not small
                if not len(needy):
                    break
                log_w = extended(log_w, rows, needy, salt, by_column)
                if log_w.shape[1] < most:  # else nothing is left to decide
                    judge = extended(judge, rows, needy, other, False)
        yield log_w
        if progress is not None:
            progress(len(rows))


def _paths(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    paths: range,
    salt: int,
    given: Tensor | None,
    batch_size: int,
    by_column: bool,
) -> Tensor:
    """The numbered paths of every row: (b, M) or (b, M, C)."""
    which = torch.tensor(paths, device=x.device).repeat(len(x))
    rows = x.repeat_interleave(len(paths), 0)

    def call(part: Tensor, path: Tensor) -> Tensor:
        log_w = path_log_weights(denoiser, part, schedule, RowNoise(part, path, salt), given)
        return log_w if by_column else log_w.sum(1)

    out = in_blocks(call, rows, which, batch_size=batch_size)
    return torch.cat(list(out)).unflatten(0, (len(x), len(paths)))


# -- the integral (3), (4) ------------------------------------------------------------------------


@torch.no_grad()
def integral_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    quadrature: Quadrature,
    *,
    baseline: Denoiser | None = None,
    n_points: int = 64,
    generator: torch.Generator,
    given: Tensor | None = None,
    batch_size: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Estimate:
    r"""Log-probabilities of rows by the integral over SNR, eq. (3), or (4) with a baseline.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.
    quadrature : Quadrature
        Importance density over logsnr; its ends are those of the numerical part of the integral.
    baseline : Denoiser, optional
        A denoiser of known log-probability, seen through the same noise.
    n_points : int
        Noisy points per row, at least 4. One in sixteen of them (at least two) serves the right tail.
    generator : torch.Generator
    given : Tensor of bool, shape (C,), optional
        Columns to condition on, where they are not missing: the result is log P(others | given).
    batch_size : int
        Rows times points in one denoiser call.
    progress : callable, optional
        Called with the number of rows done since the last call.

    Returns
    -------
    Estimate
        float64, (N,), nats. The standard error is from differences of neighbouring strata, on average not too
        small; but the integrand is skewed, so with few points intervals cover less than their nominal share.

    Notes
    -----
    The tails are closed: left of the quadrature the denoiser is constant, :math:`\hat x_0`, with the integral
    :math:`\gamma_{low}\|x-\hat x_0\|^2/2`; right of it each column goes on from the posterior at
    :math:`\gamma_{high}` by its own evidence alone, with the integral :math:`-\mathbb E\log q(x | z_{high})`. Both
    are denoisers, so the whole remains a valid code: :math:`\sum_x e^{\log P(x)} \le 1`, eq. (5). Against a
    baseline both tails of the baseline are subtracted.

    Raises
    ------
    ValueError
        If ``n_points`` is below 4.
    """
    if n_points < 4:
        raise ValueError(f"n_points must be at least 4, got {n_points}")
    book = denoiser.codebook
    salt = draw_salt(generator)
    if not len(x):
        return Estimate(x.new_zeros(0), x.new_zeros(0))
    n_tail = max(2, n_points // 16)
    n_tail += (n_points - n_tail) % 2  # strata are compared in pairs
    n_inner = n_points - n_tail
    quadrature = quadrature.to(x.device)
    log_probs, stderrs = [], []
    for rows in x.split(max(1, batch_size // n_points)):
        each = rows.repeat_interleave(n_points, 0)  # (b n, C)
        index = torch.arange(n_points, device=x.device).repeat(len(rows))
        noise = RowNoise(each, index, salt)
        u = (index + noise.uniform(0, 1)[:, 0]) / n_inner
        snr, weight = quadrature.points(u.clamp_max(1 - 1e-12))
        snr = torch.where(index < n_inner, snr, quadrature.high)
        points, known = book.embed(each), _given_cells(each, given)
        start = State.start(book, points, known)
        target = snr.to(points)[:, None].expand(-1, book.n_columns)
        target = target.masked_fill(each.isnan(), 0.0)
        if known is not None:
            target = target.masked_fill(known, math.inf)
        xi = noise.normal(1, book.n_coords, points.dtype)
        state = start.add(book, start.increment(book, points, target, xi))
        asked = each if known is None else each.masked_fill(known, math.nan)
        error, tail = _errors_and_tails(denoiser, state, asked, batch_size)
        first = slice(None, None, n_points)  # of each row
        at, begin = asked[first], State(start.y[first], start.snr[first])
        left, _ = error_and_tail(_at_start(denoiser, begin, known), at)
        log_b = 0.0
        if baseline is not None:
            b_error, b_tail = _errors_and_tails(baseline, state, asked, batch_size)
            error, tail, log_b = error - b_error, tail - b_tail, baseline.log_prob(rows)
            if known is not None:
                log_b = log_b - baseline.log_prob(rows.masked_fill(~known[first], math.nan))
            left = left - error_and_tail(_at_start(baseline, begin, known), at)[0]
        known = (log_b - left * (quadrature.low / 2)).double()
        f = (0.5 * weight * error).unflatten(0, (-1, n_points))[:, :n_inner]  # (b, n)
        tail = tail.unflatten(0, (-1, n_points))[:, n_inner:]
        log_probs.append(known - f.mean(1) - tail.mean(1))
        pairs = f[:, : n_inner // 2 * 2].unflatten(1, (-1, 2)).diff(dim=2)
        variance = pairs.square().sum((1, 2)) / n_inner**2
        variance = variance + tail.var(1) / n_tail
        stderrs.append(variance.sqrt())
        if progress is not None:
            progress(len(rows))
    return Estimate(torch.cat(log_probs), torch.cat(stderrs))


def _given_cells(x: Tensor, given: Tensor | None) -> Tensor | None:
    """The cells of rows that are known from the start, (B, C); None for none."""
    return None if given is None else given & ~x.isnan()


def _at_start(denoiser: Denoiser, start: State, known: Tensor | None) -> Posterior:
    """What a denoiser believes before there is noise; where nothing is given, all rows are alike."""
    if known is not None:
        return denoiser(*start)
    return denoiser(start.y[:1], start.snr[:1]).expand(len(start.y))


def _errors_and_tails(
    denoiser: Denoiser, state: State, x: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """:func:`error_and_tail` of states of rows, so many in one call."""
    parts = zip(*(t.split(batch_size) for t in (*state, x)), strict=True)
    told = [error_and_tail(denoiser(y, snr), rows) for y, snr, rows in parts]
    error, tail = (torch.cat(t) for t in zip(*told, strict=True))
    return error, tail


def error_and_tail(q: Posterior, x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and surprisal of the observed cells of rows: (B,) each, float64."""
    book = q.codebook
    error = (book.embed(x) - q.mean()).masked_fill(book.per_coord(x.isnan()), 0.0)
    return error.double().square().sum(1), -q.log_prob(x).double().sum(1)


@torch.no_grad()
def mse_curve(
    denoiser: Denoiser,
    x: Tensor,
    snr: Tensor,
    *,
    generator: torch.Generator,
    given: Tensor | None = None,
    batch_size: int = 2048,
) -> tuple[Tensor, Tensor]:
    r"""Mean squared error of a denoiser at each SNR: half the area under it is the code length (3).

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.
    snr : Tensor, shape (n,)
        Positive SNRs, the same for all columns.
    generator : torch.Generator
    given : Tensor of bool, shape (C,), optional
        Columns that are known throughout.
    batch_size : int
        Rows in one denoiser call.

    Returns
    -------
    mse, stderr : Tensor, shape (n,), float64
        Mean over rows of :math:`\|x - \hat x\|^2` over the observed cells, one noise a row, and its standard error.
    """
    errors = squared_errors(
        [denoiser], x, snr, generator=generator, given=given, batch_size=batch_size
    )[0]
    return errors.mean(1), errors.std(1) / math.sqrt(len(x))


@torch.no_grad()
def squared_errors(
    denoisers: Sequence[Denoiser],
    x: Tensor,
    snr: Tensor,
    *,
    generator: torch.Generator,
    given: Tensor | None = None,
    batch_size: int = 2048,
) -> Tensor:
    r"""Squared errors of several denoisers on the same noise, at each SNR.

    Parameters
    ----------
    denoisers : sequence of Denoiser, length M
        Of one codebook.
    x, snr, generator, given, batch_size
        As of :func:`mse_curve`.

    Returns
    -------
    Tensor, shape (M, n, N), float64
        :math:`\|x - \hat x\|^2` over the cells that are neither missing nor given.
    """
    book = denoisers[0].codebook
    salt = draw_salt(generator)
    errors = torch.empty(len(denoisers), len(snr), len(x), dtype=torch.float64, device=x.device)
    for i, gamma in enumerate(snr.tolist()):
        done = 0
        for rows in x.split(batch_size):
            # numbered, so that equal rows get independent noise and the standard error is honest
            index = torch.arange(done, done + len(rows), device=x.device)
            points, known = book.embed(rows), _given_cells(rows, given)
            start = State.start(book, points, known)
            xi = RowNoise(rows, index, salt).normal(i, book.n_coords, points.dtype)
            target = torch.full_like(start.snr, gamma).masked_fill(rows.isnan(), 0.0)
            asked = rows
            if known is not None:
                target, asked = (
                    target.masked_fill(known, math.inf),
                    rows.masked_fill(known, math.nan),
                )
            state = start.add(book, start.increment(book, points, target, xi))
            for m, denoiser in enumerate(denoisers):
                error, _ = error_and_tail(denoiser(*state), asked)
                errors[m, i, done : done + len(rows)] = error
            done += len(rows)
    return errors
