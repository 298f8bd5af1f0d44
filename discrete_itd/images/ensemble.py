r"""Ensembles of image models: convex combinations of denoisers whose weights depend on the SNR.

At every SNR the weights maximise the probability of clean pixels given noisy ones: on the images and the noise that
fitted them no member is better. The combination is itself a denoiser: (5) and (6) of :mod:`discrete_itd.likelihood`
hold for it.

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792: the error of an ensemble
chosen at each SNR bounds the code length, eq. (3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from discrete_itd.channel import Posterior, Quadrature
from discrete_itd.denoisers import Denoiser
from discrete_itd.denoisers.row_mixture import fit_weights
from discrete_itd.images.posteriors import interpolated
from discrete_itd.likelihood.integral import noisy_state

BATCH = 512  # images denoised in one call


class EnsembleDenoiser(Denoiser):
    """A convex combination of denoisers.

    ``members`` are M denoisers with one codebook. ``weights`` (G, M) are their
    weights at increasing values of ``logsnr`` (G,); between these they are interpolated, beyond them constant. A
    ValueError if there is no member, or the codebooks differ.
    """

    logsnr: Tensor
    knots: Tensor
    isotropic = True

    def __init__(self, members: Sequence[Denoiser], logsnr: Tensor, weights: Tensor) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        super().__init__(members[0].codebook)
        if any(member.codebook.columns != self.codebook.columns for member in members):
            raise ValueError("the members of an ensemble must be of images of one shape and range")
        self.members = cast(list[Denoiser], nn.ModuleList(members))
        like = self.codebook.known_snr
        self.register_buffer("knots", weights.to(like))
        self.register_buffer("logsnr", logsnr.to(like))

    def weights(self, snr: Tensor) -> Tensor:
        """Weights of the members, (B, M), at ``snr`` (B, C), the same for all columns but the leading ones."""
        log = snr[:, ~self.codebook.leading].log().mean(1)
        return interpolated(self.logsnr, self.knots, log)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        parts = [member(y, snr) for member in self.members]
        return Posterior.mixed(parts, self.weights(snr).log()[:, :, None])

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        members: Sequence[Denoiser],
        x: Tensor,
        quadrature: Quadrature,
        *,
        generator: torch.Generator,
        n_knots: int | None = None,
    ) -> EnsembleDenoiser:
        """Fit the weights to images ``x`` (N, C) on which no member was trained, over the range of the quadrature.

        They are fitted at ``n_knots`` SNRs, by default one for every 32 images, up to nine: each pixel is informative.
        """
        if n_knots is None:
            n_knots = max(1, min(9, len(x) // 32))
        edges = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), n_knots + 1)
        weights = [
            fit_weights(log_probs_at(members, x, ends, generator))
            for ends in itertools.pairwise(edges.tolist())
        ]
        return cls(members, (edges[1:] + edges[:-1]) / 2, torch.stack(weights))


def log_probs_at(
    members: Sequence[Denoiser],
    x: Tensor,
    logsnr: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Log-probabilities of clean pixels given noisy ones under each of M members: float64, (n, M), nats.

    All members get the same noisy images ``x`` (N, C), each at one random SNR whose logarithm lies in an interval; the
    class is known.
    """
    book = members[0].codebook
    x = x[: max(32, (1 << 18) // book.n_columns)]  # enough pixels to fit weights to
    low, high = logsnr
    u = torch.rand(len(x), 1, generator=generator, device=x.device)
    log_probs = []
    for part, snr in zip(x.split(BATCH), (low + (high - low) * u).exp().split(BATCH), strict=True):
        like = book.embed(part)
        xi = torch.randn(like.shape, generator=generator, device=x.device, dtype=like.dtype)
        _, state, missing = noisy_state(book, part, snr, xi, book.leading)
        each = [member(*state).log_prob(part)[~missing.isnan()] for member in members]
        log_probs.append(torch.stack(each, 1).double())
    return torch.cat(log_probs)
