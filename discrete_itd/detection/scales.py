"""A row's surprise by scale: what is strange about it coarsely, and what in its details."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel import Quadrature, State
from discrete_itd.channel.noise import RowNoise
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.likelihood import draw_salt, error_and_tail
from discrete_itd.models.model import Model
from discrete_itd.progress import progress_bar
from discrete_itd.training.objective import pilot_quadrature
from discrete_itd.validation import check_integer

PILOT_ROWS = 512  # drawn from the model, to see on which scales a table has structure


class ScaleNats(NamedTuple):
    """A row's surprise by scale.

    Attributes
    ----------
    nats : DataFrame, shape (N, 1 + n_bands)
        "independent", then one column for each band of logsnr, coarse to fine; where "it is missing" is a value, a
        column "missing" before them. Rows sum to an estimate of the minus log-probability.
    stderr : ndarray, shape (N,), nats
        Standard error of that sum.
    """

    nats: pd.DataFrame
    stderr: np.ndarray


@torch.no_grad()
def explain_scales(
    density: DiffusionDensity,
    X: Any,
    n_bands: int = 6,
    *,
    edges: Sequence[float] | None = None,
    n_points: int = 16,
) -> ScaleNats:
    r"""A row's surprise split by scale: what is strange about it coarsely, and what in its details.

    Each band of logsnr holds its part of the integral (4) of :mod:`discrete_itd.likelihood`,
    :math:`\tfrac12\int E[\|x - \hat x\|^2 - \|x - \hat x_b\|^2] d\gamma`, with b the independent columns: by how much
    the other columns make the row more (positive) or less surprising there. Low SNR is coarse: what can be told of the
    row when every cell is blurred; high SNR is fine: what only shows when all other cells are almost certain.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)
    n_bands : int
        Number of bands, with about equal shares of what there is to tell of independent columns.
    edges : sequence of float, optional
        The logsnr of the ends of the bands instead, increasing, at least two.
    n_points : int
        Noisy rows per row and band, even.

    Returns
    -------
    ScaleNats
        The outermost bands hold the tails of the integral, in closed form. The noise is a function of the row: so
        is the split. The sum differs from :meth:`DiffusionDensity.log_prob` by its error, and, in as far as the
        network's posteriors at different SNRs contradict one another, in truth.

    Raises
    ------
    ValueError
        If ``edges`` are not increasing, or ``n_points`` is odd.

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792, for the integral.
    """
    check_integer("n_bands", n_bands, 1)
    check_integer("n_points", n_points, 2)
    if n_points % 2:
        raise ValueError(f"n_points must be even, got {n_points}")
    model, rows = density.model_, density.rows(X)
    x, inverse, index, log_volume = rows.unique, rows.inverse, rows.index, rows.log_volume
    leading = model.denoiser.codebook.leading
    if edges is None:
        quadrature = _own_quadrature(density)
    else:
        try:
            marks = torch.tensor([float(e) for e in edges], dtype=torch.float64)
        except (TypeError, ValueError):
            raise TypeError(f"edges must be a sequence of numbers, got {edges!r}") from None
        if len(marks) < 2 or not bool((marks.diff() > 0).all() & marks.isfinite().all()):
            raise ValueError(f"edges must be at least two increasing numbers, got {edges}")
        n_bands = len(marks) - 1
        quadrature = Quadrature(marks, 1 / marks.diff())  # every band has the same mass
    quadrature = quadrature.to(model.device)
    salt = draw_salt(torch.Generator().manual_seed(model.seed))
    led = model.log_prob(x.masked_fill(~leading, math.nan), density.n_evaluations)
    split, variance = [], []
    with progress_bar(len(x), "scales") as bar:
        for part in x.split(max(1, model.batch_size // n_points)):
            nats, var = _bands(model, part, quadrature, n_bands, n_points, salt)
            split.append(nats)
            variance.append(var)
            bar.update(len(part))
    nats = torch.cat(split).cpu().numpy()[inverse]
    nats[:, 0] -= log_volume.sum(1)
    between = [f"{float(e):.1f}" for e in _ends(quadrature, n_bands)[1:-1]]
    names = [f"{a} to {b}" for a, b in itertools.pairwise(between)]
    names = [f"below {between[0]}", *names, f"above {between[-1]}"] if between else ["all"]
    table = pd.DataFrame(nats, index=index, columns=pd.Index(["independent", *names]))
    if bool(leading.any()):
        table.insert(0, "missing", -led.log_prob.cpu().numpy()[inverse])
    stderr = (torch.cat(variance) + led.stderr.square()).sqrt()
    return ScaleNats(table, stderr.cpu().numpy()[inverse])


def _own_quadrature(density: DiffusionDensity) -> Quadrature:
    """Of the model alone, whatever the rows: where independent columns have errors in rows drawn from it."""
    model = density.model_
    nothing = torch.full((PILOT_ROWS, len(density.encoder_.owner)), math.nan, dtype=torch.float64)
    drawn = model.draw(nothing.to(model.device), model.seed)
    generator = torch.Generator(model.device).manual_seed(model.seed)
    return pilot_quadrature(model.marginals, drawn, generator)


def _ends(quadrature: Quadrature, n_bands: int) -> Tensor:
    """The logsnr of the ends of bands of equal mass, (n_bands + 1,)."""
    share = torch.arange(n_bands + 1, dtype=torch.float64, device=quadrature.edges.device) / n_bands
    return quadrature.points(share)[0].log()


def _bands(
    model: Model,
    x: Tensor,
    quadrature: Quadrature,
    n_bands: int,
    n_points: int,
    salt: int,
) -> tuple[Tensor, Tensor]:
    """Nats (b, 1 + n_bands) of rows (b, C'), given their leading cells, and the variance of the sum (b,)."""
    denoiser, base = model.denoiser, model.marginals
    book = denoiser.codebook
    rows = x.repeat_interleave(n_points, 0)  # (b n, C')
    index = torch.arange(n_points, device=x.device).repeat(len(x))
    noise = RowNoise(rows, index, salt)
    known = book.leading & ~rows.isnan()
    points, asked = book.embed(rows), rows.masked_fill(book.leading, math.nan)
    start = State.start(book, points, known)

    def beyond(state: State) -> tuple[Tensor, Tensor]:
        """By how much the squared error, and the surprise, is larger than the baseline's: (b, n) each."""
        ours, theirs = (error_and_tail(d(*state), asked) for d in (denoiser, base))
        error, tail = (a - b for a, b in zip(ours, theirs, strict=True))
        return error.unflatten(0, (-1, n_points)), tail.unflatten(0, (-1, n_points))

    out = torch.zeros(len(x), 1 + n_bands).to(x)
    own = base(*start).log_prob(asked).double().sum(1)
    out[:, 0] = -own.unflatten(0, (-1, n_points))[:, 0]
    # left of the bands the denoisers are constant
    out[:, 1] += 0.5 * quadrature.low * beyond(start)[0][:, 0]
    variance = torch.zeros_like(out[:, 0])
    for band in range(n_bands + 1):
        u = (band + (index + noise.uniform(2 * band, 1)[:, 0]) / n_points) / n_bands
        snr, weight = quadrature.points(u.clamp_max(1 - 1e-12))
        if band == n_bands:  # right of the bands each column goes on alone
            snr = torch.full_like(snr, quadrature.high)
        target = torch.where(known, math.inf, snr.to(points)[:, None])
        target = target.masked_fill(rows.isnan(), 0.0)
        xi = noise.normal(2 * band + 1, book.n_coords, points.dtype)
        error, f = beyond(start.add(book, start.increment(book, points, target, xi)))
        if band < n_bands:
            f = 0.5 / n_bands * weight.unflatten(0, (-1, n_points)) * error
        out[:, min(band, n_bands - 1) + 1] += f.mean(1)
        # strata that are neighbours differ by little but their noise; those of the tail are alike
        variance += f.unflatten(1, (-1, 2)).diff(dim=2).square().sum((1, 2)) / n_points**2
    return out, variance
