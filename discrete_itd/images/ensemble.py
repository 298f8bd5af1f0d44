r"""Ensembles of image models: convex combinations of denoisers whose weights depend on the SNR.

At every SNR the squared error is convex in :math:`\hat x`. So weights fitted there are never worse than the best member
on the images and the noise that fitted them, and the combination is itself a denoiser: (5) and (6) of
:mod:`discrete_itd.likelihood` hold for it.

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

import numpy as np
import torch
from scipy import optimize
from torch import Tensor, nn

from discrete_itd.channel import Quadrature
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.denoisers import Denoiser
from discrete_itd.denoisers.row_mixture import fit_weights
from discrete_itd.images.posteriors import interpolated
from discrete_itd.likelihood.integral import noisy_state

MOST_KNOTS = 9  # SNRs at which weights are fitted
KNOT_ROWS = 32  # images for each of them: every pixel carries information about the weights
BATCH = 512
MOST_CELLS = 1 << 18  # pixels to which the weights of one SNR are fitted


class EnsembleDenoiser(Denoiser):
    """A convex combination of denoisers.

    ``members`` are M denoisers with one codebook. ``weights`` (G, M) are their
    non-negative weights, normalised here, at increasing values of ``logsnr`` (G,); between these they are interpolated,
    beyond them constant. A ValueError if there is no member, the codebooks differ, or the weights do not fit.
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
        if weights.shape != (len(logsnr), len(members)) or not bool(
            (weights >= 0).all() & (weights.sum(1) > 0).all()
        ):
            raise ValueError(f"weights must be those of {len(members)} members at each SNR")
        if not bool((logsnr.diff() > 0).all()):
            raise ValueError("logsnr must increase")
        self.members = cast(list[Denoiser], nn.ModuleList(members))
        like = self.codebook.known_snr
        self.register_buffer("knots", (weights / weights.sum(1, keepdim=True)).to(like))
        self.register_buffer("logsnr", logsnr.to(like))

    def weights(self, snr: Tensor) -> Tensor:
        """Weights of the members, (B, M), at ``snr`` (B, C), the same for all columns but the leading ones."""
        log = snr[:, ~self.codebook.leading].log().mean(1)
        return interpolated(self.logsnr, self.knots, log)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        return mixed([member(y, snr) for member in self.members], self.weights(snr))

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

        At each of ``n_knots`` SNRs, by default one for ``KNOT_ROWS`` images, up to ``MOST_KNOTS``, the weights minimise
        the squared error of the mean times the SNR, its share of the code length (3). At the last one, the end of a
        noisy path, where errors almost vanish, they maximise the probability of the pixels.
        """
        if n_knots is None:
            n_knots = max(1, min(MOST_KNOTS, len(x) // KNOT_ROWS))
        edges = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), n_knots + 1)
        weights = []
        for i, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
            log_prob, grams = errors_at(members, x, (low, high), generator)
            weights.append(least(grams) if i < n_knots - 1 else fit_weights(log_prob))
        return cls(members, (edges[1:] + edges[:-1]) / 2, torch.stack(weights))


def errors_at(
    members: Sequence[Denoiser],
    x: Tensor,
    logsnr: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Errors of all M members on the same noisy images, at one random SNR for each.

    The logarithm of the SNR lies between two values; the class is known. Log-probabilities of each pixel under each
    member (n, M), nats; and for each image sums over the pixels of the products of two members' errors, times the SNR,
    (N, M, M): w' G w is the error of weights w. Both are float64.
    """
    book = members[0].codebook
    x = x[: max(32, MOST_CELLS // book.n_columns)]
    low, high = logsnr
    u = torch.rand(len(x), 1, generator=generator, device=x.device)
    snrs = (low + (high - low) * u).exp().split(BATCH)
    log_probs, grams = [], []
    for part, snr in zip(x.split(BATCH), snrs, strict=True):
        points = book.embed(part)
        options = {"generator": generator, "device": x.device, "dtype": points.dtype}
        xi = torch.randn(points.shape, **options)
        _, state, missing = noisy_state(book, part, snr, xi, book.leading)
        asked = ~missing.isnan()
        each = [member(*state) for member in members]
        log_probs.append(torch.stack([q.log_prob(part)[asked] for q in each], 1).double())
        of = book.per_coord(asked.to(points))
        errors = torch.stack([(points - q.mean()) * of for q in each]).double()
        errors = errors * snr.double().sqrt()
        grams.append(torch.einsum("mnd,knd->nmk", errors, errors))
    return torch.cat(log_probs), torch.cat(grams)


def least(grams: Tensor) -> Tensor:
    """Weights (M,) of least squared error: a quadratic problem on the simplex.

    The v >= 0 that minimises v' G v + (sum v - 1)^2, a problem of non-negative least squares, is proportional to the
    weights: scaling w by t leaves t^2 w' G w + (t - 1)^2, whose minimum over t increases with w' G w.
    """
    gram = grams.sum(0).cpu().numpy()
    size, turn = np.linalg.eigh(gram / max(gram.diagonal().max(), 1e-300))
    root = np.sqrt(size.clip(0))[:, None] * turn.T
    v, _ = optimize.nnls(np.vstack([root, np.ones(len(gram))]), np.eye(len(gram) + 1)[-1])
    return torch.as_tensor(v / v.sum()).to(grams)


def mixed(posteriors: Sequence[Posterior], weights: Tensor) -> Posterior:
    """The mixture of posteriors, column by column, with weights (B, M)."""
    first = posteriors[0]
    log_w = weights.log()  # -inf where a weight is 0
    if len(posteriors) == 1:
        return first
    logits = torch.stack([q.categorical.logits for q in posteriors], 1)  # (B, M, T)
    logits = torch.logsumexp(logits + log_w[:, :, None], 1)
    categorical = CategoricalPosterior(first.categorical.levels, logits)
    parts = [q.gaussian for q in posteriors if q.gaussian is not None]
    gaussian = GaussianPosterior.joined(parts, log_w) if parts else None
    return Posterior(first.codebook, categorical, gaussian)
