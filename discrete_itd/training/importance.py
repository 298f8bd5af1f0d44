"""Where to train: an importance density over the SNR, from the errors of a denoiser on a few rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel import Quadrature, State
from discrete_itd.denoisers.base import Denoiser

PILOT_NUMBERS = 1 << 19  # rows times floats of a row's posterior
N_CELLS = 64  # cells of the grid of logsnr
LOWEST_SNR = 0.01
FEW_COORDS = (
    64  # coordinates beyond which an isotropic denoiser learns something below the lowest SNR
)
HIGHEST_SNR = 100 / 2000  # of known_snr: an error of 3e-7 where categories are at distance one
REAL_SNR = 1000.0  # beyond it the evidence of a continuous column says little about other columns
REAL_HIGHEST_SNR = 16000.0  # an error of a sixtieth of a standard deviation
TAIL = 1e-5  # share of the density that is cut at either end


def pilot_quadrature(denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Quadrature:
    r"""An importance density over logsnr for a table.

    The density is proportional to the root mean square of :math:`\gamma \|x - \hat x\|^2` on a grid, the choice of
    least variance, with a tenth spread evenly. The grid runs from where the channel carries no information to where
    no error is left.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor of float64, shape (N, C)
        Rows; some of them are used.
    generator : torch.Generator
    """
    book = denoiser.codebook
    finite = torch.ones(book.n_columns, dtype=torch.bool, device=x.device)
    finite[book.reals] = False
    highest = torch.where(finite, book.known_snr * HIGHEST_SNR, REAL_HIGHEST_SNR)
    # many pixels together show at a lower SNR what none shows alone
    low = LOWEST_SNR * (min(1.0, FEW_COORDS / book.n_coords) if denoiser.isotropic else 1.0)
    ends = math.log(low), math.log(float(highest.max()))
    edges = torch.linspace(*ends, N_CELLS + 1, dtype=torch.float64, device=x.device)
    n_rows = denoiser.pilot_rows(PILOT_NUMBERS)
    rows = x[torch.randint(len(x), (n_rows,), generator=generator, device=x.device)]
    points, missing = book.embed(rows), rows.isnan()
    known = book.leading & ~missing  # throughout, as in isotropic training
    start = State.start(book, points, known if book.has_leading else None)
    values = []
    with torch.no_grad():
        for logsnr in (edges[1:] + edges[:-1]) / 2:
            gamma = torch.exp(logsnr).to(points)
            xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
            target = gamma.expand(start.snr.shape).masked_fill(missing, 0.0)
            target = torch.where(torch.isinf(start.snr), start.snr, target)
            state = start.add(book, start.increment(book, points, target, xi))
            # the error of a continuous column never ends: its own evidence makes it fall as 1/snr
            damping = torch.where(finite, 1.0, (1 + gamma / REAL_SNR) ** -0.5)
            damping = damping.masked_fill(missing, 0.0)
            error = (points - denoiser(*state).mean()) * book.per_coord(damping)
            values.append(gamma.double() * error.square().sum(1).double().square().mean().sqrt())
    density = torch.stack(values).clamp_min(1e-300)  # constant columns leave no error at all
    share = density / density.sum()
    first = torch.nonzero(share.cumsum(0) > TAIL).flatten()[0]
    last = torch.nonzero(share.flip(0).cumsum(0).flip(0) > TAIL).flatten()[-1]
    density = (0.9 * share + 0.1 / len(share))[first : last + 1]
    return Quadrature(edges[first : last + 2], density)
