r"""The variational bound of a discrete-time diffusion model of images, which the log-probability is compared with.

With T times, :math:`\alpha_t, \beta_t, \bar\alpha_t` of the noise schedule and :math:`\tilde\beta_t` the posterior's
variance,

.. math:: L = D(q(x_T|x) \| N(0, I)) + \sum_{t > 1} D(q(x_{t-1}|x_t, x) \| p(x_{t-1}|x_t)) - \log p(x | x_1),

the last with a Gaussian discretised onto the levels of a pixel.

References
----------
Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, arXiv:2006.11239, eqs. (5), (8), (10) and
(13).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from discrete_itd.channel.noise import RowNoise, draw_salt
from discrete_itd.images.posteriors import AdaptedDenoiser
from discrete_itd.likelihood import Estimate
from discrete_itd.likelihood.integral import paired_variance

TIMES = 100  # drawn per row by default, where the model has more


@torch.no_grad()
def variational_bound(
    denoiser: AdaptedDenoiser,
    x: Tensor,
    *,
    n_times: int | None = None,
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
    generator: torch.Generator,
    batch_size: int = 256,
) -> Estimate:
    r"""The variational bound of each row, (N,), float64, in nats, to compare with its log-probability.

    Only the network's prediction is used, not the calibration; it is conditioned on the class of ``x`` (N, C) where it
    is not missing. ``n_times`` times are drawn per row, at most ``TIMES`` by default; times with larger terms are drawn
    more often, and the first and the last term are always included. ``variance`` is that of a reverse step: the
    posterior's ("fixed_small"), or :math:`\beta_t`. A network evaluation takes ``batch_size`` rows times draws. The
    standard error is from differences of neighbouring draws, on average not too small; NaN for one draw.
    """
    noising, pixels = denoiser.noising, denoiser.pixels
    assert pixels.n_levels is not None
    bar = noising.alphas_cumprod.to(x.device)
    tilde, var, pull = _reverse_steps(bar, variance)
    last = len(bar) - 1
    n_times = min(TIMES, last) if n_times is None else n_times
    # a term is half the decrease of the SNR times a squared error of about 1 / (1 + SNR)
    light = torch.log1p(bar / (1 - bar))
    share = 0.9 * (light[:-1] - light[1:]) / (light[0] - light[-1]) + 0.1 / last
    quantile = share.cumsum(0)
    salt = draw_salt(generator)
    gap = (pixels.high - pixels.low) / (pixels.n_levels - 1)
    n_asked = n_times + 2  # the last step twice, for its standard error
    log_probs, stderrs = [], []
    for rows in x.split(max(1, batch_size // n_asked)):
        each = rows.repeat_interleave(n_asked, 0)
        index = torch.arange(n_asked, device=x.device).repeat(len(rows))
        noise = RowNoise(each, index, salt)
        u = (index + noise.uniform(0, 1)[:, 0]) / n_times
        t = 1 + torch.searchsorted(quantile, u).clamp_max(last - 1)
        t = t.masked_fill(index >= n_times, 0)
        y, gamma, classes, clean = denoiser.noisy(each, noising.snr(t)[:, None], noise)
        mean = denoiser.denoised_mean(y, gamma, classes)
        error = (mean - clean).double()
        ratio = (tilde / var)[t]
        step = 0.5 * pixels.n_pixels * (ratio - 1 - ratio.log())
        step = step + error.square().sum(1) * pull[t] ** 2 / (2 * var[t])
        sd = float(var[0].sqrt())
        last_step = _log_mass(clean.double(), mean.double(), sd, gap, pixels.low, pixels.high)
        step = torch.where(index >= n_times, -last_step, step).unflatten(0, (-1, n_asked))
        draws = share[(t - 1).clamp_min(0)].unflatten(0, (-1, n_asked))
        inner, final = step[:, :n_times] / draws[:, :n_times], step[:, n_times:]
        start = clean.double().unflatten(0, (-1, n_asked))[:, 0]
        end = 0.5 * (bar[-1] * (start.square() - 1) - torch.log1p(-bar[-1])).sum(1)
        log_probs.append(-(end + inner.mean(1) + final.mean(1)))
        of_times = paired_variance(inner) if n_times > 1 else inner[:, 0] * math.nan
        stderrs.append((of_times + final.var(1) / 2).sqrt())
    return Estimate(torch.cat(log_probs), torch.cat(stderrs))


def _reverse_steps(bar: Tensor, variance: str) -> tuple[Tensor, Tensor, Tensor]:
    """For each reverse step: the posterior's variance, the model's, and the weight of the prediction in the mean."""
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    beta = 1 - bar / before
    tilde = beta * (1 - before) / (1 - bar)
    tilde[0] = tilde[1]  # the last reverse step has noise, too
    var = tilde if variance == "fixed_small" else torch.cat([tilde[:1], beta[1:]])
    return tilde, var, before.sqrt() * beta / (1 - bar)


def _log_mass(x: Tensor, mean: Tensor, sd: float, gap: float, low: float, high: float) -> Tensor:
    """Log-mass of levels under a Gaussian, each from half a gap below to half a gap above, the ends open: (B,)."""
    above = ((x + gap / 2 - mean) / sd).masked_fill(x > high - gap / 2, math.inf)
    below = ((x - gap / 2 - mean) / sd).masked_fill(x < low + gap / 2, -math.inf)
    # in the tail, where both values are small and no digit is lost
    flip = below > 0
    above, below = torch.where(flip, -below, above), torch.where(flip, -above, below)
    big, small = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    return (big + torch.log1p(-torch.exp(small - big).clamp_max(1 - 1e-15))).sum(1)
