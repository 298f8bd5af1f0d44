r"""The integral estimator: log-probabilities of rows from a denoiser's squared error at every SNR.

.. math:: -\log P(x) = \tfrac12\int_0^\infty \mathbb E\|x-\hat x\|^2 d\gamma \qquad (3)

or, against a baseline b of known log-probability and on the same noise,

.. math:: -\log P(x) = -\log b(x)
          + \tfrac12\int_0^\infty \mathbb E[\|x-\hat x\|^2 - \|x-\hat x_b\|^2] d\gamma. \qquad (4)

A missing cell keeps SNR zero, so that this is the log-probability of the observed cells.

All columns climb through the SNRs together. For an exact denoiser every way from nothing known to everything known has
the same integral (Palomar and Verdú 2006). A causal denoiser predicts well only along its own order, one column after
another: there (3) is its closed form (8), and the error at an SNR is the sum over columns, each at this SNR with the
columns before it known.

The integral s(x) of *any* denoiser is a valid code length, :math:`\sum_x e^{-s(x)} \le 1`, eq. (5). For every
distribution q, :math:`\mathbb E_q s` is at least the integral of q's own minimum mean squared error, which is the
entropy H(q); so by Gibbs' variational principle :math:`\log \sum_x e^{-s(x)} = \max_q [H(q) - \mathbb E_q s] \le 0`.

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
Guo, Shamai, Verdú, "Mutual information and minimum mean-square error in Gaussian channels", 2005.
Palomar, Verdú, "Gradient of mutual information in linear vector Gaussian channels", 2006.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from discrete_itd.channel import Codebook, Posterior, Quadrature, State
from discrete_itd.channel.noise import RowNoise, draw_salt
from discrete_itd.denoisers.base import BLOCK, Denoiser, filled
from discrete_itd.likelihood.path import Estimate


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

    Rows, ``generator``, ``given``, ``batch_size`` (here rows times points), ``progress`` and the result are as of
    :func:`~discrete_itd.likelihood.path.path_log_prob`.

    Parameters
    ----------
    quadrature : Quadrature
        Importance density over logsnr; its ends bound the numerical part of the integral.
    baseline : Denoiser, optional
        A denoiser of known log-probability, seen through the same noise.
    n_points : int
        Noisy points per row, at least 4. One in sixteen of them (at least two) serves the right tail.

    Raises
    ------
    ValueError
        If ``n_points`` is below 4, or columns are given to a denoiser with an order of its own.

    Notes
    -----
    The tails are closed: left of the quadrature the denoiser is constant, :math:`\hat x_0`, with the integral
    :math:`\gamma_{low}\|x-\hat x_0\|^2/2`; right of it each column goes on from the posterior at :math:`\gamma_{high}`
    by its own evidence alone, with the integral :math:`-\mathbb E\log q(x | z_{high})`. Both are denoisers, so the
    whole remains a valid code, eq. (5). Against a baseline both tails of the baseline are subtracted.

    The standard error is from differences of neighbouring strata, on average not too small; but the integrand is
    skewed, so with few points intervals cover less than their nominal share.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> from discrete_itd.denoisers import BayesNetDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    >>> net = BayesNetDenoiser(book, [(), (0,)], [torch.tensor([0.25, 0.75]), torch.eye(2) + 1e-9])
    >>> generator = torch.Generator().manual_seed(0)
    >>> points = Quadrature(torch.tensor([-6.0, 6.0]), torch.ones(1))
    >>> estimate = integral_log_prob(net, x, points, n_points=2048, generator=generator)
    >>> bool(((estimate.log_prob.exp() - torch.tensor([0.25, 0.75])).abs() < 0.1).all())
    True
    """
    if n_points < 4:
        raise ValueError(f"n_points must be at least 4, got {n_points}")
    if given is not None and denoiser.own_order is not None:
        raise ValueError(
            "the integral along a denoiser's own order is of whole rows: given must be None"
        )
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
        each, noise, snr, weight = noisy_copies(rows, quadrature, n_points, n_inner, salt)
        xi = noise.normal(1, book.n_coords, book.dtype)
        start, state, asked = noisy_state(book, each, snr[:, None], xi, given)
        first = slice(None, None, n_points)  # of each row
        begin = State(start.y[first], start.snr[first])
        how = rows, asked, begin, state, batch_size
        error, tail, left = _measured(denoiser, *how)
        log_b = 0.0
        if baseline is not None:
            own = zip((error, tail, left), _measured(baseline, *how), strict=True)
            error, tail, left = (a - b for a, b in own)
            log_b = baseline.log_prob(rows)
            if given is not None:
                log_b = log_b - baseline.log_prob(rows.masked_fill(~given, math.nan))
        closed = (log_b - left * (quadrature.low / 2)).double()
        f = (0.5 * weight * error).unflatten(0, (-1, n_points))[:, :n_inner]  # (b, n)
        tail = tail.unflatten(0, (-1, n_points))[:, n_inner:]
        log_probs.append(closed - f.mean(1) - tail.mean(1))
        stderrs.append((paired_variance(f) + tail.var(1) / n_tail).sqrt())
        if progress is not None:
            progress(len(rows))
    return Estimate(torch.cat(log_probs), torch.cat(stderrs))


def noisy_state(
    book: Codebook, x: Tensor, snr: Tensor, xi: Tensor, given: Tensor | None = None
) -> tuple[State, State, Tensor]:
    """States of rows ``x`` (B, C) without and with noise ``xi`` (B, D), and the rows with the given cells missing.

    The columns ``given`` (C,) are known in both, where they are not missing; the other cells have ``snr`` (B, 1) in the
    second, missing cells 0.
    """
    points, missing = book.embed(x), x.isnan()
    known = torch.zeros_like(missing) if given is None else given & ~missing
    start = State.start(book, points, known)
    target = torch.where(known, math.inf, snr.to(points)).masked_fill(missing, 0.0)
    state = start.add(book, start.increment(book, points, target, xi))
    return start, state, x.masked_fill(known, math.nan)


def noisy_copies(
    rows: Tensor, quadrature: Quadrature, n_points: int, n_inner: int, salt: int
) -> tuple[Tensor, RowNoise, Tensor, Tensor]:
    """Copies (b n, C) of rows, their noise, and SNRs (b n,) stratified over a quadrature, with their weights.

    Of the ``n_points`` copies of a row the first ``n_inner`` are in the quadrature, the others at its upper end.
    """
    each = rows.repeat_interleave(n_points, 0)
    index = torch.arange(n_points, device=rows.device).repeat(len(rows))
    noise = RowNoise(each, index, salt)
    u = (index + noise.uniform(0, 1)[:, 0]) / n_inner
    snr, weight = quadrature.points(u.clamp_max(1 - 1e-12))
    return each, noise, torch.where(index < n_inner, snr, quadrature.high), weight


def _measured(
    denoiser: Denoiser,
    rows: Tensor,
    asked: Tensor,
    start: State,
    state: State,
    batch_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors and tails at n noisy states of each row, (b n,), and squared errors at its start, (b,)."""
    block = min(BLOCK, batch_size)  # the rounding of a row is the same in every batch
    n_points, begin = len(asked) // len(rows), _posterior(denoiser, rows, start, block)
    left, _ = error_and_tail(begin, asked[::n_points])
    if denoiser.own_order is not None:
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(n_points)
        return *error_and_tail(begin.rows(row).update(*state), asked), left
    parts = zip(*(t.split(batch_size) for t in (*state, asked)), strict=True)
    both = [error_and_tail(_posterior(denoiser, x, State(y, snr), block), x) for y, snr, x in parts]
    error, tail = (torch.cat(t) for t in zip(*both, strict=True))
    return error, tail, left


def _posterior(denoiser: Denoiser, x: Tensor, state: State, block: int = 1) -> Posterior:
    """The posterior of rows ``x`` (B, C) at their states, in one call of a multiple of ``block`` rows.

    If the denoiser has an order of its own, each column is at its SNR with the columns before it known.
    """
    if denoiser.own_order is not None:
        return denoiser.preceding(filled(x, block)).rows(slice(len(x))).update(*state)
    return denoiser(filled(state.y, block), filled(state.snr, block)).rows(slice(len(x)))


def error_and_tail(q: Posterior, x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and surprisal of the observed cells of rows ``x`` (B, C): (B,) each, float64."""
    book = q.codebook
    error = (book.embed(x) - q.mean()).masked_fill(book.per_coord(x.isnan()), 0.0)
    return error.double().square().sum(1), -q.log_prob(x).double().sum(1)


def paired_variance(f: Tensor) -> Tensor:
    """Variance of the mean of n stratified draws (b, n), from differences of neighbouring strata: (b,)."""
    n = f.shape[1] // 2 * 2
    pairs = f[:, :n].unflatten(1, (-1, 2)).diff(dim=2)
    return pairs.square().sum((1, 2)) / (f.shape[1] * max(1, n))


@torch.no_grad()
def squared_errors(
    denoisers: Sequence[Denoiser],
    x: Tensor,
    snr: Tensor,
    *,
    generator: torch.Generator,
    batch_size: int = 2048,
) -> Tensor:
    r"""Squared errors (M, n, N) of M denoisers of one codebook on the same noise, at each SNR: float64.

    The errors :math:`\|x - \hat x\|^2` are over the cells of ``x`` (N, C) that are not missing. Each row has its own
    noise, also where rows are equal; each of the positive ``snr`` (n,) applies to all columns. Half the area under the
    mean over rows, as a function of the SNR, is the mean code length (3). With an
    :attr:`~discrete_itd.denoisers.Denoiser.own_order`, each column has this SNR when those before it are known.
    """
    book = denoisers[0].codebook
    salt = draw_salt(generator)
    errors = torch.empty(len(denoisers), len(snr), len(x), dtype=torch.float64, device=x.device)
    for i, gamma in enumerate(snr.tolist()):
        done = 0
        for rows in x.split(batch_size):
            # the row number enters the noise, so that equal rows get independent noise and the standard error holds
            index = torch.arange(done, done + len(rows), device=x.device)
            xi = RowNoise(rows, index, salt).normal(i, book.n_coords, book.dtype)
            _, state, asked = noisy_state(book, rows, rows.new_tensor([[gamma]]), xi)
            for m, denoiser in enumerate(denoisers):
                error, _ = error_and_tail(_posterior(denoiser, rows, state), asked)
                errors[m, i, done : done + len(rows)] = error
            done += len(rows)
    return errors
