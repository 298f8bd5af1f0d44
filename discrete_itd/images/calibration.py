r"""How far the predictions of an adapted network err, measured on images by pixel and SNR.

Let d be the difference between the clean pixel and its mean given its own noisy value, and u that between the network's
prediction and the same mean. The prediction is shrunk towards that mean by :math:`s = E[du]/E[u^2]`, between 0 and 1,
and its error variance is :math:`v = v_g E(d - su)^2 / E d^2`, where :math:`v_g` is the variance given the pixel's own
value. Then, at every SNR, the scale of the network's evidence and the weight of the tilted posterior
(:mod:`discrete_itd.images.tilting`) are chosen that predict the pixels best.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import Posterior
from discrete_itd.images.adapted import AdaptedDenoiser
from discrete_itd.images.tilting import tilted_posterior

N_KNOTS = 24  # SNRs at which errors are measured
POOLED_ROWS = 32.0  # weight, in rows, of the error of all pixels in the estimate for one pixel
LEAST_RATIO = 1e-6  # of the network's error variance to that given the pixel's own value
SCALES = torch.arange(0, 11) / 8  # candidate scales of the network's evidence
TILTS = (0.0, 0.1, 0.5, 0.9, 1.0)  # candidate weights of the tilted posterior
BATCH_CELLS = 1 << 22  # posterior size of one batch
COST_CELLS = 1 << 24  # of all rows that choose a candidate

Kept = list[tuple[Tensor, Tensor, Tensor, Tensor]]  # rows, y, snr, predicted means of a batch


@torch.no_grad()
def calibrate(
    denoiser: AdaptedDenoiser,
    x: Tensor,
    *,
    generator: torch.Generator,
    n_knots: int = N_KNOTS,
    progress: Callable[[float], object] | None = None,
) -> AdaptedDenoiser:
    r"""Measure the errors of an adapted network's predictions, and set the denoiser's buffers accordingly.

    Parameters
    ----------
    denoiser : AdaptedDenoiser
        Is changed, and put in evaluation mode.
    x : Tensor of float64, shape (N, C)
        At least two images like those to be scored, best not the network's training images.
    generator : torch.Generator
    n_knots : int
        SNRs at which to measure, evenly spread on a logarithmic scale; positive.
    progress : callable, optional
        Called with the share done.

    Returns
    -------
    AdaptedDenoiser
        The same denoiser.
    """
    denoiser.eval()
    like, size, pixels = denoiser.mean0, denoiser.codebook.size, denoiser.pixels
    batches = x.split(max(4, min(256, BATCH_CELLS // size)))
    few = max(16, COST_CELLS // size)  # enough rows to choose between candidates
    gap = 2e-3 if pixels.n_levels is None else (pixels.high - pixels.low) / (pixels.n_levels - 1)
    low, high = math.log(1e-3 / float(denoiser.var0.sum())), math.log(100 / gap**2)
    knots = torch.linspace(low, high, n_knots, device=like.device, dtype=like.dtype)
    salt = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    shrinks, ratios, costs = [], [], []
    for i, logsnr in enumerate(knots.tolist()):
        shrink, ratio, kept = _errors(denoiser, batches, math.exp(logsnr), salt, i, few)
        shrinks.append(shrink)
        ratios.append(ratio)
        _set(denoiser, knots[i : i + 1], shrinks[-1:], ratios[-1:], like.new_ones(1))
        costs.append(_costs(denoiser, kept))
        if progress is not None:
            progress((i + 1) / n_knots)
    # where the network adds little, the cheapest candidate would be chance: neighbouring knots choose together
    cost = nn.functional.pad(torch.stack(costs, -1), (1, 1), mode="replicate")
    best = cost.unfold(2, 3, 1).sum(3).flatten(0, 1).argmin(0).to(like.device)  # (G,)
    _set(denoiser, knots, shrinks, ratios, SCALES.to(like)[best // len(TILTS)])
    denoiser.tilt = like.new_tensor(TILTS)[best % len(TILTS)]
    return denoiser


def _errors(
    denoiser: AdaptedDenoiser,
    batches: tuple[Tensor, ...],
    snr: float,
    salt: int,
    stream: int,
    few: int,
) -> tuple[Tensor, Tensor, Kept]:
    """Shrinkage and variance ratio by pixel at one SNR, (D,) each, and predictions of the first ``few`` rows."""
    like, kept, n = denoiser.mean0, [], 0
    dd, du, uu = 0.0, 0.0, 0.0
    for rows in batches:
        index = torch.arange(n, n + len(rows), device=rows.device)
        gamma = rows.new_full((len(rows), 1), snr)
        noise = RowNoise(rows, index, salt)
        y, gamma, classes, clean = denoiser.noisy(rows, gamma, noise, stream)
        mean = denoiser.denoised_mean(y, gamma, classes)
        own, _ = denoiser.own_moments(y, gamma)
        d, u = (clean - own).double(), (mean - own).double()
        dd, du, uu = dd + d.square().sum(0), du + (d * u).sum(0), uu + u.square().sum(0)
        if n < few:
            kept.append((rows, y, gamma, mean))
        n += len(rows)
    dd, du, uu = (torch.as_tensor(t, device=like.device) for t in (dd, du, uu))
    tiny = torch.finfo(torch.float64).tiny
    pooled = (du.sum() / uu.sum().clamp_min(tiny)).clamp(0, 1)
    raw = torch.where(uu > 0, du / uu.clamp_min(tiny), pooled)
    shrink = ((n * raw + POOLED_ROWS * pooled) / (n + POOLED_ROWS)).clamp(0, 1)
    left = dd - 2 * shrink * du + shrink**2 * uu
    common = left.sum() / dd.sum().clamp_min(tiny)
    raw = torch.where(dd > 0, left / dd.clamp_min(tiny), common)
    ratio = (n * raw + POOLED_ROWS * common) / (n + POOLED_ROWS)
    return shrink.to(like), ratio.clamp(LEAST_RATIO, 1).to(like), kept


def _set(
    denoiser: AdaptedDenoiser,
    knots: Tensor,
    shrink: list[Tensor],
    ratio: list[Tensor],
    trust: Tensor,
) -> None:
    """Set what was measured, without a tilted posterior."""
    denoiser.knots, denoiser.trust, denoiser.tilt = knots, trust, torch.zeros_like(trust)
    denoiser.shrink, denoiser.ratio = torch.stack(shrink), torch.stack(ratio)


def _costs(denoiser: AdaptedDenoiser, kept: Kept) -> Tensor:
    """Nats of the pixels at one SNR, for each scale of the evidence and each weight of the tilted posterior."""
    coords, n, book = denoiser.pixel_coords, denoiser.pixels.n_pixels, denoiser.codebook
    cost = denoiser.mean0.new_zeros(len(SCALES), len(TILTS), dtype=torch.float64)
    for rows, own, gamma, mean in kept:
        statistic, extra = denoiser.evidence(own, gamma, mean)
        cells = rows.clone()
        cells[:, n:] = math.nan
        y, snr = own.new_zeros(len(rows), book.n_coords), own.new_zeros(len(rows), book.n_columns)
        y[:, coords], snr[:, :n] = own, gamma
        tilted = None
        if denoiser.pixels.n_levels is not None:
            plain, shrink = denoiser.base(y, snr), denoiser.at_snr(denoiser.shrink, gamma)
            q = tilted_posterior(denoiser.pixels, plain, mean, shrink)
            tilted = Posterior(book, q).log_prob(cells)
        for i, scale in enumerate(SCALES.tolist()):
            q = denoiser.given_evidence(y, snr, scale * statistic, scale * extra)
            rounded = q.log_prob(cells)
            cost[i, 0] -= rounded.double().sum()
            if tilted is None:
                cost[i, 1:] = math.inf
                continue
            for j, share in enumerate(TILTS[1:], 1):
                mixed = torch.logaddexp(
                    math.log1p(-share) + rounded if share < 1 else rounded - math.inf,
                    math.log(share) + tilted,
                ).masked_fill(cells.isnan(), 0.0)
                cost[i, j] -= mixed.double().sum()
    return cost
