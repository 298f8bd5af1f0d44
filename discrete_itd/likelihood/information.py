r"""Pointwise information that some columns carry about the others, by row and column.

The denoised means of a noisy row with and without columns y differ by the information in y. Over all SNRs,

.. math:: \iota(x; y) = \tfrac12\int_0^\infty \mathbb E\,\|\hat x(z) - \hat x(z, y)\|^2 d\gamma,

which is not negative and a sum over the columns of x. For an exact denoiser its mean is the mutual information I(x; y):
the squared error without y is that with y plus this difference, so the two integrals (3) differ by it. Of a denoiser
that is not exact, the difference of the two squared errors on the same noise,

.. math:: \tfrac12\int_0^\infty \mathbb E\bigl[\|x-\hat x(z)\|^2 - \|x-\hat x(z, y)\|^2\bigr] d\gamma, \qquad (17)

is the difference of two code lengths (3), and can be negative in a row.

References
----------
Kong, Liu, Li, Yogatama, Ver Steeg, "Interpretable diffusion via information decomposition", ICLR 2024,
arXiv:2310.07972: the non-negative decomposition, pixel by pixel.
Yu, Shi, Kong, Jia, Ver Steeg, "MMG: mutual information estimation via the MMSE gap in diffusion", NeurIPS 2025,
arXiv:2509.20609: the estimator (17).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.channel import Quadrature
from discrete_itd.channel.noise import draw_salt
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.likelihood.integral import noisy_copies, noisy_state
from discrete_itd.likelihood.standard_error import paired_variance


class Information(NamedTuple):
    """Nats by column (N, C), zero in the columns that inform, and the standard error of a row's sum (N,).

    ``gap`` (N,) is the difference (17) of the squared errors, over the same columns and on the same noise.
    """

    nats: Tensor
    stderr: Tensor
    gap: Tensor
    gap_stderr: Tensor


@torch.no_grad()
def pointwise_information(
    denoiser: Denoiser,
    x: Tensor,
    informing: Tensor,
    quadrature: Quadrature,
    *,
    informed: Tensor | None = None,
    given: Tensor | None = None,
    n_points: int = 64,
    generator: torch.Generator,
    batch_size: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Information:
    """Information that the columns ``informing`` (C,) of each row of ``x`` (N, C) carry about its other columns.

    Or about those of them that are ``informed`` (C,), while the rest stays unknown. Missing cells neither inform nor
    are informed. The information is conditional on the columns ``given`` (C,). Each row has ``n_points`` noisy points,
    at least 4, with SNRs from the quadrature; each costs two denoiser calls. A call takes ``batch_size`` rows times
    points; ``progress`` is called with the number of rows done since its last call. A ValueError if no column informs,
    or none is left to be informed.
    """
    book = denoiser.codebook
    both = torch.zeros_like(informing) if given is None else given
    if informed is not None:
        if bool((informed & (informing | both)).any()):
            raise ValueError("a column cannot be informed by itself, or of what is given")
        x = x.masked_fill(~(informed | informing | both), math.nan)
    if not bool(informing.any()) or bool((informing | both).all()):
        raise ValueError("some columns must inform, and some must be left to be informed")
    if bool((informing & both).any()):
        raise ValueError("a column cannot both inform and be given")
    if n_points < 4:
        raise ValueError(f"n_points must be at least 4, got {n_points}")
    n_points += n_points % 2  # strata are compared in pairs
    salt, quadrature = draw_salt(generator), quadrature.to(x.device)
    parts: list[tuple[Tensor, ...]] = []
    for rows in x.split(max(1, batch_size // n_points)):
        each, noise, snr, weight = noisy_copies(rows, quadrature, n_points, n_points, salt)
        xi = noise.normal(1, book.n_coords, book.dtype)
        asked = ~each.isnan() & ~informing & ~both
        row = slice(None, None, n_points)  # the first point of each row
        means, first = [], []
        for known in (both, both | informing):
            seen = each.masked_fill(informing & ~known, math.nan)
            start, state, _ = noisy_state(book, seen, snr[:, None], xi, known)
            states = zip(*(t.split(batch_size) for t in state), strict=True)
            means.append(torch.cat([denoiser(*part).mean() for part in states]))
            first.append(denoiser(start.y[row], start.snr[row]).mean())

        def differences(pair: list[Tensor], points: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
            """Squared differences of the two means by column (b, C), and of their squared errors, summed (b,)."""
            all_three = (*pair, points)
            one, two, x = (t.double().masked_fill(~book.per_coord(asked), 0.0) for t in all_three)
            gap = ((two - one) * (2 * x - one - two)).sum(1)
            wide = one.new_zeros(asked.shape)
            return wide.index_add_(1, book.coord_column, (one - two).square()), gap

        points = book.embed(each)
        inner, gap = differences(means, points, asked)
        # left of the quadrature only y is known
        left, left_gap = differences(first, points[row], asked[row])
        f, gap = (
            (0.5 * w * t).unflatten(0, (-1, n_points))
            for w, t in ((weight[:, None], inner), (weight, gap))
        )
        low = quadrature.low / 2
        errors = (paired_variance(t).sqrt() for t in (f.sum(2), gap))
        parts.append((f.mean(1) + low * left, gap.mean(1) + low * left_gap, *errors))
        if progress is not None:
            progress(len(rows))
    if not parts:
        return Information(torch.zeros_like(x), *x.new_zeros(3, 0))
    nats, gap, stderr, gap_stderr = (torch.cat(t) for t in zip(*parts, strict=True))
    return Information(nats, stderr, gap, gap_stderr)
