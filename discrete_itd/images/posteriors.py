r"""Existing diffusion models as denoisers: the network's prediction of the clean image, turned into a posterior.

A network predicts the mean :math:`\mu` of every pixel given the noisy image, but neither its error nor that a pixel has
a finite number of levels. Bayes' rule adds both. With a Gaussian prior :math:`N(m_0, v_0)` of the pixel, the pixel's
own noisy value alone gives the posterior :math:`N(\mu_g, v_g)`, :math:`v_g = 1/(1/v_0 + \gamma)`. If the network's
prediction has the error variance :math:`v \le v_g`, the prediction adds as much information as a second observation
with SNR :math:`\lambda` and statistic h,

.. math:: \lambda = 1/v - 1/v_g, \qquad h = \mu/v - \mu_g/v_g,

and the posterior is that of independent pixels given both observations,

.. math:: q_j(k) \propto \pi_{jk} \exp\ell_{jk}(y_j + h_j, \gamma + \lambda_j),

with :math:`\ell` of eq. (2): discrete where pixels have levels (in place of the soft rounding of Kong,
Brekelmans and Ver Steeg, ICLR 2023, arXiv:2302.03792), Gaussian where they are continuous. It is exact in both limits,
without noise and without signal.

The error variance v is measured on images, for each pixel and SNR (:func:`calibrate`): let d be the difference
between the clean pixel and its mean given its own noisy value, and u that between the network's prediction and the same
mean. The prediction is shrunk towards that mean by :math:`s = E[du]/E[u^2]`, between 0 and 1, and
:math:`v = v_g E(d - su)^2 / E d^2`. Then, at every SNR, the scale of the network's evidence is chosen that predicts
pixels best.

This posterior rounds a prediction between two levels to the nearer one, which suits networks that do not model levels.
For a network that does, such a prediction means uncertainty between the two. So at every SNR the posterior is mixed
with a second one that has this mean, in the proportion that predicts pixels best: among all distributions over levels
with the mean, the one nearest in relative entropy to the posterior given the pixel's own noisy value,

.. math:: q_j(k) \propto \pi_{jk} \exp(\ell_{jk} + \eta_j e_k), \qquad \sum_k q_j(k) e_k = \mu_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.images.conventions import PREDICTIONS, VariancePreserving
from discrete_itd.images.layout import Pixels

N_KNOTS = 24  # SNRs at which errors are measured
POOLED_ROWS = 32.0  # weight, in rows, of the error of all pixels in the estimate for one pixel
SCALES = torch.arange(0, 11) / 8  # candidate scales of the network's evidence
TILTS = (0.0, 0.1, 0.5, 0.9, 1.0)  # candidate weights of the tilted posterior
BATCH_CELLS = 1 << 22  # most floats of the posteriors of one batch

Kept = list[tuple[Tensor, Tensor, Tensor, Tensor]]  # per batch: rows, y, snr, predicted means


class AdaptedDenoiser(Denoiser):
    """A denoiser of images from a network that was trained elsewhere.

    The network has one noise level for the whole image, so this denoiser needs states in which all pixels have one SNR,
    and the class is known or unknown.

    Parameters
    ----------
    network : callable
        Maps noisy images (B, *shape), times (B,) and, if there are classes, those (B,) to a prediction of the images'
        shape. A module becomes a submodule of this one, and can be fine-tuned.
    noising : VariancePreserving
        The network's times and scales.
    prediction : {"epsilon", "v_prediction", "sample"}
        The network predicts the noise, the velocity, or the clean image.
    pixels, marginals : Pixels, MarginalDenoiser
        Layout of the images, and marginal distributions of the pixels and of the class.
    null_class : int, optional
        Input of the network where the class is unknown. A class-conditional network without one can only be evaluated
        with the class given.
    """

    mean0: Tensor
    var0: Tensor
    pixel_coords: Tensor
    knots: Tensor
    shrink: Tensor
    ratio: Tensor
    trust: Tensor
    tilt: Tensor

    isotropic = True

    def __init__(
        self,
        network: Callable[..., Tensor],
        noising: VariancePreserving,
        prediction: str,
        pixels: Pixels,
        marginals: MarginalDenoiser,
        *,
        null_class: int | None = None,
    ) -> None:
        super().__init__(marginals.codebook)
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {prediction!r}")
        if pixels.columns != marginals.codebook.columns:
            raise ValueError("marginals must be those of images of the same layout as pixels")
        if null_class is not None and not (
            pixels.n_classes and type(null_class) is int and 0 <= null_class <= pixels.n_classes
        ):
            raise ValueError(
                f"null_class must be an integer from 0 to n_classes = {pixels.n_classes} of a model with classes,"
                f" got {null_class!r}"
            )
        self.network, self.noising, self.prediction = network, noising, prediction
        self.pixels, self.base = pixels, marginals
        self.null_class = null_class
        n, like = pixels.n_pixels, marginals.codebook.known_snr
        coords = torch.nonzero(self.codebook.coord_column < n).flatten()  # in the pixels' order
        self.register_buffer("pixel_coords", coords, persistent=False)
        mean, var = prior_moments(pixels, marginals, coords)
        self.register_buffer("mean0", mean)
        self.register_buffer("var0", var.clamp_min(1e-12))
        self.register_buffer("shrink", like.new_zeros(1, n))
        self.register_buffer("ratio", like.new_ones(1, n))
        for name in ("knots", "trust", "tilt"):  # before calibration, predictions have no weight
            self.register_buffer(name, like.new_zeros(1))

    @property
    def row_work(self) -> int:
        """Approximate floats computed per row, by a network that uses each weight for several pixels."""
        return self.codebook.work + sum(p.numel() for p in self.parameters()) // 4

    # -- the network's prediction -----------------------------------------------------------------

    def denoised_mean(self, y: Tensor, snr: Tensor, classes: Tensor | None = None) -> Tensor:
        r"""The clean image (B, D) that the network predicts; within the range of the levels, where pixels have levels.

        ``y`` (B, D) is the pixels' statistic, :math:`\gamma x + w_\gamma`, ``snr`` (B, 1) positive and finite. Beyond
        the range of the network's noise levels, the network gets the image at its actual SNR with the time of the
        nearest level. A ValueError if the network's output has another shape or, in evaluation mode, is not finite.
        """
        noising, pixels = self.noising, self.pixels
        z = y * snr.rsqrt()
        time = noising.time(snr[:, 0]).to(z)
        noisy = noising.network_input(z, snr).unflatten(1, pixels.shape)
        output = self.network(noisy, time, *(() if classes is None else (classes,)))
        channels = pixels.shape[0]
        if isinstance(output, Tensor) and output.shape[1:] == (2 * channels, *pixels.shape[1:]):
            output = output[:, :channels]  # the others are a learned variance
        if not isinstance(output, Tensor) or output.shape != noisy.shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the network must return a tensor of the shape of its input, {tuple(noisy.shape)}, got {got}"
            )
        mean = noising.denoised_mean(output.to(z).flatten(1), z, snr, self.prediction)
        if not self.training and not bool(mean.isfinite().all()):
            bad = int((~mean.isfinite()).any(1).nonzero()[0])
            raise ValueError(
                f"the network's output is not finite at time {float(time[bad]):g}, SNR {float(snr[bad]):g}"
            )
        # the nearest point of a convex set that contains x is never farther from x
        return mean.clamp(pixels.low, pixels.high) if pixels.n_levels is not None else mean

    def own_moments(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of every pixel given its own noisy value alone: (B, D) each."""
        var = 1 / (1 / self.var0 + snr)
        return var * (self.mean0 / self.var0 + y), var

    def at_snr(self, values: Tensor, snr: Tensor) -> Tensor:
        """Interpolate measurements at the knots, (G, n), at SNRs (B, 1): (B, n)."""
        return interpolated(self.knots, values, torch.log(snr[:, 0]))

    def evidence(self, y: Tensor, snr: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        r"""The second observation equivalent to a predicted mean: statistic h and SNR :math:`\lambda`, (B, D) each."""
        m_g, var = self.own_moments(y, snr)
        ratio = self.at_snr(self.ratio.log(), snr).exp()
        precision = self.at_snr(self.trust[:, None], snr) / var
        extra = precision * (1 / ratio - 1)
        return extra * m_g + precision / ratio * self.at_snr(self.shrink, snr) * (mean - m_g), extra

    def given_evidence(self, y: Tensor, snr: Tensor, statistic: Tensor, extra: Tensor) -> Posterior:
        """The posterior given the state and a second observation of the pixels, h and λ, (B, D) each."""
        n = self.pixels.n_pixels
        y, snr = y.clone(), snr.clone()
        y[:, self.pixel_coords] += statistic
        snr[:, :n] += extra
        return self.base(y, snr)

    # -- the posterior ----------------------------------------------------------------------------

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        n = self.pixels.n_pixels
        level = snr[:, 0]
        if not bool((snr[:, :n] == level[:, None]).all()):
            raise ValueError(
                "an image model has one SNR for all pixels: use an isotropic schedule, and neither missing nor given"
                " pixels"
            )
        classes = self._classes(y, snr)
        if self.pixels.n_classes and len(self.knots) > 1:
            # a known class is informative even at SNR 0: the network is evaluated at the smallest knot there
            informed = torch.isinf(snr[:, n]) & (level == 0)
            level = torch.where(informed, self.knots[0].exp(), level)
        asked = torch.nonzero((level > 0) & ~torch.isinf(level)).flatten()
        if not len(asked):
            return self.base(y, snr)
        coords = self.pixel_coords
        y_pixels, gamma = y[asked][:, coords], level[asked, None]
        mean = self.denoised_mean(y_pixels, gamma, None if classes is None else classes[asked])
        statistic, extra = self.evidence(y_pixels, gamma, mean)
        every = torch.zeros_like(y[:, : len(coords)])
        rounded = self.given_evidence(
            y, snr, every.index_copy(0, asked, statistic), every.index_copy(0, asked, extra)
        )
        share = self.at_snr(self.tilt[:, None], gamma)
        if self.pixels.n_levels is None or not bool((share > 0).any()):
            return rounded
        plain = self.base(y[asked], snr[asked])
        tilted = tilted_posterior(self.pixels, plain, mean, self.at_snr(self.shrink, gamma))
        both = torch.logaddexp(
            torch.log1p(-share) + rounded.categorical.logits[asked], share.log() + tilted.logits
        )
        logits = rounded.categorical.logits.index_copy(0, asked, both)
        levels = self.codebook.levels
        return Posterior(self.codebook, CategoricalPosterior(levels, logits, normalised=True))

    def _classes(self, y: Tensor, snr: Tensor) -> Tensor | None:
        """The class of each row, the null class where it is unknown; None for a model without classes."""
        if not self.pixels.n_classes:
            return None
        given = snr[:, self.pixels.n_pixels]
        known = torch.isinf(given)
        if not bool((known | (given == 0)).all()):
            raise ValueError(
                "the class must be given or missing: an image model does not predict it"
            )
        coords = torch.nonzero(self.codebook.coord_column == self.pixels.n_pixels).flatten()
        return self._or_null(y[:, coords].argmax(1), known)

    def _or_null(self, classes: Tensor, known: Tensor) -> Tensor:
        """Classes, the null class where they are unknown; ValueError without a null class."""
        if self.null_class is not None:
            return classes.where(known, self.null_class)
        if not bool(known.all()):
            raise ValueError(
                "the network needs a class: give labels of all images, or the null_class that it was trained with for"
                " images without one"
            )
        return classes

    def noisy(
        self, x: Tensor, snr: Tensor, noise: RowNoise, stream: int = 1
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Add noise to rows ``x`` (B, C) at ``snr`` (B, 1): the arguments of :meth:`denoised_mean`, and clean pixels.

        ``stream`` separates independent uses of the noise. A ValueError if the network needs a class and a row has
        none.
        """
        clean = self.codebook.embed(x)[:, self.pixel_coords]
        snr = snr.to(clean)
        classes = None
        if self.pixels.n_classes:
            cells = x[:, self.pixels.n_pixels]
            classes = self._or_null(cells.nan_to_num(0.0).long(), ~cells.isnan())
        xi = noise.normal(stream, clean.shape[1], clean.dtype)
        return snr * clean + snr.sqrt() * xi, snr, classes, clean


def interpolated(knots: Tensor, values: Tensor, points: Tensor) -> Tensor:
    """``values`` (G, n) at increasing ``knots`` (G,), interpolated at ``points`` (B,); constant beyond: (B, n)."""
    if len(knots) == 1:
        return values.expand(len(points), -1)
    points = points.clamp(float(knots[0]), float(knots[-1]))
    left = torch.searchsorted(knots, points, right=True).clamp(1, len(knots) - 1) - 1
    step = (points - knots[left]) / (knots[left + 1] - knots[left])
    return torch.lerp(values[left], values[left + 1], step[:, None])


@torch.no_grad()
def prior_moments(
    pixels: Pixels, marginals: MarginalDenoiser, coords: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of every pixel before anything is observed: (D,) each."""
    like = marginals.codebook.known_snr
    prior = marginals(like.new_zeros(1, marginals.codebook.n_coords), like.new_zeros(1, len(like)))
    mean = prior.mean()[0, coords]
    if pixels.n_levels is None:
        assert prior.gaussian is not None
        second = prior.gaussian.log_weight.exp() * (prior.gaussian.var + prior.gaussian.means**2)
        return mean, second.sum(2)[0] - mean**2
    levels = torch.linspace(pixels.low, pixels.high, pixels.n_levels).to(like)
    probs = marginals.codebook.levels.spread(prior.categorical.probs, 0.0)[0, : pixels.n_pixels]
    return mean, (probs[:, : len(levels)] * (levels - mean[:, None]) ** 2).sum(1)


@torch.no_grad()
def calibrate(
    denoiser: AdaptedDenoiser,
    x: Tensor,
    *,
    generator: torch.Generator,
    n_knots: int = N_KNOTS,
    progress: Callable[[float], object] | None = None,
) -> AdaptedDenoiser:
    """Measure the errors of an adapted network's predictions, and set the denoiser's buffers accordingly.

    The denoiser is changed, put in evaluation mode and returned. ``x`` (N, C) are at least two images like those to be
    scored, preferably not the network's training images. Errors are measured at ``n_knots`` SNRs, evenly spread on a
    logarithmic scale. ``progress`` is called with the share done.
    """
    denoiser.eval()
    like, size, pixels = denoiser.mean0, denoiser.codebook.work, denoiser.pixels
    batches = x.split(max(4, min(256, BATCH_CELLS // size)))
    few = max(16, (1 << 24) // size)  # enough rows to choose between candidates
    step = 2e-3 if pixels.n_levels is None else (pixels.high - pixels.low) / (pixels.n_levels - 1)
    low, high = math.log(1e-3 / float(denoiser.var0.sum())), math.log(100 / step**2)
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
    # costs are summed over neighbouring knots: where the network adds little, the best at one knot would be random
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
    """Shrinkage and variance ratio by pixel at one SNR, (D,) each, and predictions for the first ``few`` rows."""
    like, kept, n = denoiser.mean0, [], 0
    dd, du, uu = 0.0, 0.0, 0.0
    for rows in batches:
        index = torch.arange(n, n + len(rows), device=rows.device)
        gamma = rows.new_full((len(rows), 1), snr)
        noise = RowNoise(rows, index, salt)
        y, gamma, classes, clean = denoiser.noisy(rows, gamma, noise, stream)
        mean = denoiser.denoised_mean(y, gamma, classes)
        mean_alone, _ = denoiser.own_moments(y, gamma)
        d, u = (clean - mean_alone).double(), (mean - mean_alone).double()
        dd, du, uu = dd + d.square().sum(0), du + (d * u).sum(0), uu + u.square().sum(0)
        if n < few:
            kept.append((rows, y, gamma, mean))
        n += len(rows)
    dd, du, uu = (torch.as_tensor(t, device=like.device) for t in (dd, du, uu))
    tiny = torch.finfo(torch.float64).tiny
    pooled = (du.sum() / uu.sum().clamp_min(tiny)).clamp(0, 1)
    raw = torch.where(uu > 0, du / uu.clamp_min(tiny), pooled)
    shrink = ((n * raw + POOLED_ROWS * pooled) / (n + POOLED_ROWS)).clamp(0, 1)
    residual = dd - 2 * shrink * du + shrink**2 * uu
    common = residual.sum() / dd.sum().clamp_min(tiny)
    raw = torch.where(dd > 0, residual / dd.clamp_min(tiny), common)
    ratio = (n * raw + POOLED_ROWS * common) / (n + POOLED_ROWS)
    return shrink.to(like), ratio.clamp(1e-6, 1).to(like), kept


def _set(
    denoiser: AdaptedDenoiser,
    knots: Tensor,
    shrink: list[Tensor],
    ratio: list[Tensor],
    trust: Tensor,
) -> None:
    """Set the measured buffers; the tilted posterior gets weight 0."""
    denoiser.knots, denoiser.trust, denoiser.tilt = knots, trust, torch.zeros_like(trust)
    denoiser.shrink, denoiser.ratio = torch.stack(shrink), torch.stack(ratio)


def _costs(denoiser: AdaptedDenoiser, kept: Kept) -> Tensor:
    """Nats of the pixels at one SNR, for each scale of the evidence and each weight of the tilted posterior."""
    coords, n, book = denoiser.pixel_coords, denoiser.pixels.n_pixels, denoiser.codebook
    cost = denoiser.mean0.new_zeros(len(SCALES), len(TILTS), dtype=torch.float64)
    for rows, obs, gamma, mean in kept:
        statistic, extra = denoiser.evidence(obs, gamma, mean)
        cells = rows.clone()
        cells[:, n:] = math.nan
        y, snr = obs.new_zeros(len(rows), book.n_coords), obs.new_zeros(len(rows), book.n_columns)
        y[:, coords], snr[:, :n] = obs, gamma
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


def tilted_posterior(
    pixels: Pixels, plain: Posterior, mean: Tensor, shrink: Tensor
) -> CategoricalPosterior:
    """The posterior of B rows nearest to ``plain`` with predicted means ``mean`` (B, D), shrunk towards its means.

    ``plain`` is the posterior given every pixel's own noisy value alone, of ``pixels`` with levels; ``shrink`` (B, D)
    is the weight of the predicted mean, 0 to 1. Gradients flow through the means. Columns other than pixels are as in
    ``plain``.
    """
    levels_of, n = plain.codebook.levels, pixels.n_pixels
    step = (pixels.high - pixels.low) / ((pixels.n_levels or 2) - 1)
    wide = levels_of.spread(plain.categorical.logits, -torch.inf)
    logits = wide[:, :n, : pixels.n_levels]
    levels = torch.linspace(pixels.low, pixels.high, logits.shape[2]).to(logits)
    old_mean = (logits.exp() * levels).sum(2)
    tiny = 1e-4 * step
    target = (old_mean + shrink * (mean - old_mean)).clamp(pixels.low + tiny, pixels.high - tiny)
    eta = solve(logits, levels, target, step)
    # this step carries the gradient
    eta = eta + newton_step(logits, levels, target, step, eta).clamp(-1 / step, 1 / step)
    tilted = torch.log_softmax(logits + eta[:, :, None] * levels, 2)
    tilted = nn.functional.pad(tilted, (0, wide.shape[2] - logits.shape[2]))
    wide = torch.cat([tilted, wide[:, n:]], 1)
    return CategoricalPosterior(levels_of, levels_of.gather(wide), normalised=True)


def newton_step(logits: Tensor, levels: Tensor, target: Tensor, step: float, eta: Tensor) -> Tensor:
    """Newton's step towards the tilt with the mean ``target``, from ``eta``: (B, D)."""
    p = torch.softmax(logits + eta[:, :, None] * levels, 2)
    mean = (p * levels).sum(2)
    var = (p * (levels - mean[:, :, None]) ** 2).sum(2)
    return (target - mean) / var.clamp_min(1e-6 * step**2)


@torch.no_grad()
def solve(logits: Tensor, levels: Tensor, target: Tensor, step: float) -> Tensor:
    """The tilt (B, D) with the mean ``target``, by Newton's method kept in a bracket by bisection."""
    # the start is exact where only the two levels next to the target have mass, as at low noise
    position = ((target - levels[0]) / step).clamp(0, len(levels) - 1 - 1e-3)
    below = position.long()[:, :, None]
    odds = torch.logit(position - position.floor(), eps=1e-3)
    plain_odds = (logits.gather(2, below + 1) - logits.gather(2, below))[:, :, 0]
    eta = (odds - plain_odds) / step
    low, high = eta - 64 / step, eta + 64 / step  # log-odds between neighbouring levels
    for _ in range(24):
        move = newton_step(logits, levels, target, step, eta)
        low, high = torch.where(move > 0, eta, low), torch.where(move < 0, eta, high)
        new, done = eta + move, move.abs() * step < 1e-4
        eta = torch.where(done | ((new > low) & (new < high)), new, (low + high) / 2)
        if bool(done.all()):
            break
    return eta
