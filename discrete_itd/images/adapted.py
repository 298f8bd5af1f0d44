r"""Existing diffusion models as denoisers: the network's prediction of the clean image, turned into a posterior.

A network predicts the mean :math:`\mu` of every pixel given the noisy image, but neither its error nor that a pixel has
a finite number of levels. Bayes' rule adds both. With a Gaussian prior :math:`N(m_0, v_0)` of the pixel, the pixel's
own noisy value alone gives the posterior :math:`N(\mu_g, v_g)`, :math:`v_g = 1/(1/v_0 + \gamma)`. If the network's
prediction has the error variance :math:`v \le v_g`, the information that it adds equals that of a second
observation with SNR :math:`\lambda` and statistic h,

.. math:: \lambda = 1/v - 1/v_g, \qquad h = \mu/v - \mu_g/v_g,

and the posterior is that of independent pixels given both observations,

.. math:: q_j(k) \propto \pi_{jk} \exp\ell_{jk}(y_j + h_j, \gamma + \lambda_j),

with :math:`\ell` of eq. (2): discrete where pixels have levels (in place of the soft rounding of Kong,
Brekelmans and Ver Steeg, ICLR 2023, arXiv:2302.03792), Gaussian where they are continuous. It is exact in both limits,
without noise and without signal.

The error variance v is measured on images, for each pixel and SNR (:mod:`discrete_itd.images.calibration`). Where a
prediction is worse than the pixel's own noisy value, it is shrunk towards the mean given that value.

This posterior rounds a prediction between two levels to the nearer one, which suits networks that do not model levels.
For a network that does, such a prediction means uncertainty between the two. So at every SNR the posterior is mixed
with a second one that has this mean (:mod:`discrete_itd.images.tilting`), in the proportion that predicts pixels best.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.images.noising import PREDICTIONS, Noising
from discrete_itd.images.pixels import Pixels
from discrete_itd.images.tilting import tilted_posterior


class AdaptedDenoiser(Denoiser):
    """A denoiser of images from a network that was trained elsewhere.

    Parameters
    ----------
    network : callable
        Takes noisy images (B, *shape), times (B,) and, if there are classes, those (B,); returns its prediction, of the
        images' shape. A module becomes a submodule of this one, and can be fine-tuned.
    noising : Noising
        The network's times and scales.
    prediction : {"epsilon", "v_prediction", "sample"}
        What the network predicts: the noise, the velocity, or the clean image.
    pixels : Pixels
        Layout of the images.
    marginals : MarginalDenoiser
        Marginal distributions of the pixels, and of the class.
    null_class : int, optional
        The class that the network is given where the class is unknown. A network of classes that has none can only be
        evaluated with the class given.
    autocast : torch.dtype, optional
        Floating type of the network's own arithmetic, like ``torch.bfloat16``.

    Raises
    ------
    ValueError
        If ``prediction``, ``marginals`` or ``null_class`` does not fit the rest.

    Notes
    -----
    The network has one noise level for the whole image, so this denoiser takes only states in which all pixels have one
    SNR, and the class is known or unknown.
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
        noising: Noising,
        prediction: str,
        pixels: Pixels,
        marginals: MarginalDenoiser,
        *,
        null_class: int | None = None,
        autocast: torch.dtype | None = None,
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
        self.null_class, self.autocast = null_class, autocast
        n, like = pixels.n_pixels, marginals.codebook.known_snr
        coords = torch.nonzero(self.codebook.coord_column < n).flatten()  # in the pixels' order
        self.register_buffer("pixel_coords", coords, persistent=False)
        mean, var = prior_moments(pixels, marginals, coords)
        # before calibration, the network's predictions have no weight
        zero = like.new_zeros(1)
        measured = {
            "mean0": mean,
            "var0": var.clamp_min(1e-12),
            "knots": zero,
            "shrink": like.new_zeros(1, n),
            "ratio": like.new_ones(1, n),
            "trust": zero.clone(),
            "tilt": zero.clone(),
        }
        for name, value in measured.items():
            self.register_buffer(name, value)

    def config(self) -> dict[str, Any]:
        """Raise TypeError: the network is foreign code, which cannot be described by plain data."""
        raise TypeError(
            f"an image model cannot be saved as plain data, since its network ({type(self.network).__name__}) is not"
            " part of this library: save the network by its own means and adapt it again, or pickle the whole"
        )

    @property
    def row_work(self) -> int:
        """Numbers computed per row, about, with a network that uses every weight for several pixels."""
        return self.codebook.work + sum(p.numel() for p in self.parameters()) // 4

    # -- the network's prediction -----------------------------------------------------------------

    def denoised_mean(self, y: Tensor, snr: Tensor, classes: Tensor | None = None) -> Tensor:
        r"""The clean image that the network predicts.

        Parameters
        ----------
        y : Tensor, shape (B, D)
            The pixels' statistic, :math:`\gamma x + w_\gamma`.
        snr : Tensor, shape (B, 1)
            Positive and finite. Beyond the range of the network's noise levels, the network gets the image at its
            actual SNR with the time of the nearest level.
        classes : Tensor of int64, shape (B,), optional

        Returns
        -------
        Tensor, shape (B, D)
            Within the range of the levels, where pixels have levels.

        Raises
        ------
        ValueError
            If the network's output has another shape or, in evaluation mode, is not finite.
        """
        noising, pixels = self.noising, self.pixels
        z = y * snr.rsqrt()
        time = noising.time(snr[:, 0].clamp(noising.low, noising.high)).to(z)
        noisy = noising.network_input(z, snr).unflatten(1, pixels.shape)
        context = (
            nullcontext() if self.autocast is None else torch.autocast(y.device.type, self.autocast)
        )
        with context:
            told = () if classes is None else (classes,)
            output = self.network(noisy, time, *told)
        channels = pixels.shape[0]
        if isinstance(output, Tensor) and output.shape[1:] == (2 * channels, *pixels.shape[1:]):
            output = output[:, :channels]  # the others are a variance that the network learned
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
        place = torch.log(snr[:, 0]).clamp(float(self.knots[0]), float(self.knots[-1]))
        if len(self.knots) == 1:
            return values.expand(len(snr), -1)
        at = torch.searchsorted(self.knots, place, right=True).clamp(1, len(self.knots) - 1) - 1
        step = (place - self.knots[at]) / (self.knots[at + 1] - self.knots[at])
        return torch.lerp(values[at], values[at + 1], step[:, None])

    def evidence(self, y: Tensor, snr: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        r"""The observation to which a predicted mean amounts: statistic h and SNR :math:`\lambda`, (B, D) each."""
        own, var = self.own_moments(y, snr)
        ratio = self.at_snr(self.ratio.log(), snr).exp()
        precision = self.at_snr(self.trust[:, None], snr) / var
        extra = precision * (1 / ratio - 1)
        return extra * own + precision / ratio * self.at_snr(self.shrink, snr) * (mean - own), extra

    def given_evidence(self, y: Tensor, snr: Tensor, statistic: Tensor, extra: Tensor) -> Posterior:
        """The posterior given the state and a second observation of the pixels, (B, D) each."""
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
            # a known class is informative even at SNR 0, where the network is evaluated at the smallest knot
            informed = torch.isinf(snr[:, n]) & (level == 0)
            level = torch.where(informed, self.knots[0].exp(), level)
        asked = torch.nonzero((level > 0) & ~torch.isinf(level)).flatten()
        if not len(asked):
            return self.base(y, snr)
        coords = self.pixel_coords
        own, gamma = y[asked][:, coords], level[asked, None]
        mean = self.denoised_mean(own, gamma, None if classes is None else classes[asked])
        statistic, extra = self.evidence(own, gamma, mean)
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
        """Add noise to rows, as :meth:`denoised_mean` takes them.

        Parameters
        ----------
        x : Tensor of float64, shape (B, C)
        snr : Tensor, shape (B, 1)
        noise : RowNoise
        stream : int
            Separates independent uses of the noise.

        Returns
        -------
        y, snr, classes, clean : Tensor
            Statistic (B, D), SNR (B, 1), classes (B,) or None, and the clean pixels (B, D).

        Raises
        ------
        ValueError
            If the network needs a class and a row has none.
        """
        clean = self.codebook.embed(x)[:, self.pixel_coords]
        snr = snr.to(clean)
        classes = None
        if self.pixels.n_classes:
            cells = x[:, self.pixels.n_pixels]
            classes = self._or_null(cells.nan_to_num(0.0).long(), ~cells.isnan())
        xi = noise.normal(stream, clean.shape[1], clean.dtype)
        return snr * clean + snr.sqrt() * xi, snr, classes, clean


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
