"""Comparison of image models by SNR."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from discrete_itd.images import ImageDensity
from discrete_itd.likelihood import squared_errors


def compare_mse(
    models: dict[str, ImageDensity], X: Any, labels: Any = None, *, n_points: int = 33
) -> pd.DataFrame:
    """Denoising errors of several models on the same noise, by SNR, and the nats that each loses there.

    Parameters
    ----------
    models : dict from name to ImageDensity
        Models of images of one layout; the others are compared with the first.
    X, labels
        At least two held-out images.
    n_points : int
        Number of SNRs, evenly spread on a logarithmic scale.

    Returns
    -------
    DataFrame, shape (n_points, 1 + 3 M)
        ``logsnr``; and for each model its squared error, averaged over images, under its name; the nats that it loses
        to the first in the interval around that SNR, ``lost_<name>``, which sum to the area between the two curves; and
        their paired standard error, ``stderr_<name>``.
    """
    if not models:
        raise ValueError("models is empty")
    if n_points < 2:
        raise ValueError(f"n_points must be at least 2, got {n_points}")
    if "logsnr" in models:
        raise ValueError("a model cannot be named logsnr, the name of the axis")
    first = next(iter(models.values()))
    for name, model in models.items():
        if model.pixels != first.pixels:
            raise ValueError(f"model {name!r} has {model.pixels}, the first model {first.pixels}")
    x = first.encode(X, labels)
    if len(x) < 2:
        raise ValueError("standard errors need at least two images")
    ends = [m.quadrature.edges[[0, -1]].tolist() for m in models.values()]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    logsnr = torch.linspace(low, high, n_points, dtype=torch.float64)
    errors = squared_errors(
        [m.denoiser for m in models.values()],
        x,
        logsnr.exp(),
        generator=first.generator(),
        given=first.given(),
        batch_size=first.batch_size,
    ).cpu()
    width = torch.full_like(logsnr, float(logsnr[1] - logsnr[0]))
    width[[0, -1]] /= 2
    nats = 0.5 * (width * logsnr.exp())[:, None] * errors  # (M, n, N)
    columns: dict[str, Any] = {"logsnr": logsnr.numpy()}
    for i, name in enumerate(models):
        lost = nats[i] - nats[0]
        columns[name] = errors[i].mean(1).numpy()
        columns[f"lost_{name}"] = lost.mean(1).numpy()
        columns[f"stderr_{name}"] = (lost.std(1) / math.sqrt(lost.shape[1])).numpy()
    return pd.DataFrame(columns)
