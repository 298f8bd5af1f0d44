"""Existing diffusion models as denoisers of this library's channel.

A model is taken as it is: its network, its noise schedule, and what it predicts. The result is a denoiser like any
other, so its likelihood, an ensemble of several, and tuning it by the information-theoretic objective are those of all
denoisers; :class:`discrete_itd.images.ImageDensity` does them on pictures.

Source: Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.images.adapted import AdaptedDenoiser
from discrete_itd.images.noising import Noising, Preconditioned, VariancePreserving
from discrete_itd.images.pixels import Pixels
from discrete_itd.progress import progress_bar

__all__ = ["Preconditioned", "VariancePreserving", "from_callable", "from_diffusers"]

BANDWIDTH = 0.9  # of levels that are smoothed, by the rule of Silverman (1986)
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999)  # of smoothed levels in a marginal

Prediction = Literal["epsilon", "v_prediction", "sample"]


def from_callable(
    f: Callable[..., Tensor],
    X: Any,
    *,
    prediction: Prediction,
    schedule: Noising | Sequence[float] | Tensor,
    labels: Any = None,
    shape: tuple[int, ...] | None = None,
    n_levels: int | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    n_classes: int = 0,
    null_class: int | None = None,
    autocast: torch.dtype | None = None,
    n_knots: int = 24,
    random_state: int = 0,
) -> AdaptedDenoiser:
    r"""Make a denoiser of any function that predicts noise, velocity or the clean picture.

    Parameters
    ----------
    f : callable
        ``f(noisy, time)`` with pictures (B, \*shape) at the scale of the schedule and times (B,), or with
        classes (B,) as a third argument if ``n_classes`` says that there are any; gives a tensor like ``noisy``.
        Times lie between those of the schedule where the SNR does: they are fractional numbers. A
        module becomes part of the denoiser, and can be tuned; it is not copied, and put in evaluation mode.
    X : array-like
        Some hundred pictures like those to be scored, best not those that the model learned: on them it is measured how
        far its guesses err. Levels 0 ... n_levels - 1, or values in the model's units.
    prediction : {"epsilon", "v_prediction", "sample"}
        The noise, the velocity, or the clean picture; for what they mean to a :class:`Preconditioned` model, see there.
    schedule : Noising or sequence of float
        :class:`VariancePreserving`, :class:`Preconditioned`, or :math:`\bar\alpha_t` of the times 0 ... T - 1.
    labels : array-like of int, optional
        Classes of ``X``; needed if the model knows classes and has no ``null_class``.
    shape : tuple of int, optional
        Of one picture, as the model takes it. By default that of ``X``.
    n_levels : int, optional
        Grey levels; pixels are continuous by default.
    value_range : tuple of float
        The model's values of the first and the last level.
    n_classes : int
        Classes that the model knows.
    null_class : int, optional
        What the model is told where the class is unknown.
    autocast : torch.dtype, optional
        Floating type of the network's arithmetic, like ``torch.bfloat16``.
    n_knots : int
        SNRs at which errors are measured; each costs a call for every picture of ``X``.
    random_state : int

    Raises
    ------
    ValueError, TypeError
        If a shape, level, class, prediction or schedule is not possible; it is named.
    """
    if not callable(f):
        raise TypeError(f"f must be callable, got {type(f).__name__}")
    if isinstance(schedule, Sequence | Tensor | np.ndarray) and not isinstance(schedule, str):
        noising: Any = VariancePreserving(torch.as_tensor(schedule))
    else:
        noising = schedule
    if not all(hasattr(noising, name) for name in ("low", "high", "time", "shown", "guess")):
        raise TypeError(
            f"schedule must be a Noising or a sequence of alphas_cumprod, got {type(schedule).__name__}"
        )
    if shape is None:
        shape = tuple(X.shape[1:]) if hasattr(X, "shape") else tuple(torch.as_tensor(X).shape[1:])
    pixels = Pixels(tuple(shape), n_levels, *map(float, value_range), n_classes=n_classes)
    x = pixels.encode(X, labels)
    if len(x) < 2:
        raise ValueError(
            f"X must hold at least two pictures to calibrate the model by, got {len(x)}"
        )
    for name, value in (("n_knots", n_knots), ("random_state", random_state)):
        if type(value) is not int:
            raise TypeError(f"{name} must be an integer, got {value!r}")
    device = next(f.parameters()).device if _has_parameters(f) else torch.device("cpu")
    denoiser = AdaptedDenoiser(
        _with_classes(f, n_classes),
        noising,
        prediction,
        pixels,
        pixel_marginals(pixels, x),
        null_class=null_class,
        autocast=autocast,
    ).to(device)
    generator = torch.Generator(device).manual_seed(random_state)
    with progress_bar(1.0, "calibrating", "{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        return denoiser.calibrate(
            x.to(device),
            generator=generator,
            n_knots=n_knots,
            progress=lambda done: bar.update(done - bar.n),
        )


def from_diffusers(
    model: Any,
    scheduler: Any,
    X: Any,
    *,
    labels: Any = None,
    n_levels: int | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    null_class: int | None = None,
    autocast: torch.dtype | None = None,
    n_knots: int = 24,
    random_state: int = 0,
) -> AdaptedDenoiser:
    """Make a denoiser of a diffusers model, without changing its weights.

    Parameters
    ----------
    model : UNet2DModel, or a module like it
        Called as ``model(sample, timestep, class_labels)``; ``in_channels`` and ``sample_size`` of its ``config``
        give the shape of pictures. It is used where it lies, not copied, and put in evaluation mode.
    scheduler : scheduler of diffusers
        One with ``alphas_cumprod`` (DDPM, DDIM, PNDM, Euler, Heun, DPM-Solver and others, linear or cosine), or one
        of EDM (``sigma_data``, ``sigma_min`` and ``sigma_max`` in its config). It is read, not run.
    X, labels, n_levels, value_range, null_class, autocast, n_knots, random_state
        As of :func:`from_callable`. The classes are those of the model's ``num_class_embeds``, less the null class if
        that is the last.

    Raises
    ------
    TypeError
        If the scheduler is of another kind, or what it predicts is unknown.
    ValueError
        As of :func:`from_callable`.
    """
    config = getattr(model, "config", None)
    channels = _entry(config, "in_channels", "the model's config")
    size = _entry(config, "sample_size", "the model's config")
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    n_classes = getattr(config, "num_class_embeds", None) or 0
    if null_class is not None and not 0 <= null_class < n_classes:
        raise ValueError(f"null_class must be one of the model's {n_classes}, got {null_class}")
    if null_class is not None and null_class == n_classes - 1:
        n_classes -= 1
    schedule = noising_of(scheduler)
    prediction = getattr(scheduler.config, "prediction_type", None)
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise TypeError(
            f"the scheduler predicts {prediction!r}, which is none of epsilon, v_prediction and sample"
        )
    return from_callable(
        DiffusersNetwork(model),
        X,
        prediction=prediction,
        schedule=schedule,
        labels=labels,
        shape=(channels, height, width),
        n_levels=n_levels,
        value_range=value_range,
        n_classes=n_classes,
        null_class=null_class,
        autocast=autocast,
        n_knots=n_knots,
        random_state=random_state,
    )


def noising_of(scheduler: Any) -> Noising:
    """The noise of a diffusers scheduler; TypeError for one that is not understood."""
    config: Any = getattr(scheduler, "config", None)
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if getattr(config, "timestep_type", "discrete") == "continuous":
        raise TypeError(f"a {type(scheduler).__name__} with continuous times is not understood")
    if alphas is not None:
        return VariancePreserving(alphas)
    if all(hasattr(config, name) for name in ("sigma_data", "sigma_min", "sigma_max")):
        return Preconditioned(config.sigma_data, config.sigma_min, config.sigma_max)
    raise TypeError(
        f"a {type(scheduler).__name__} has neither alphas_cumprod nor the noise levels of EDM"
    )


class DiffusersNetwork(nn.Module):
    """A diffusers model as a function of noisy pictures, times and classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, time: Tensor, classes: Tensor | None = None) -> Tensor:
        like = next(self.model.parameters())
        given = {} if classes is None else {"class_labels": classes}
        return self.model(noisy.to(like.dtype), time.to(torch.float32), **given, return_dict=False)[
            0
        ]


class _Plain(nn.Module):
    """A function that knows no classes, as one that is told None."""

    def __init__(self, f: Callable[..., Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, noisy: Tensor, time: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.f(noisy, time) if classes is None else self.f(noisy, time, classes)


def _with_classes(f: Callable[..., Tensor], n_classes: int) -> Any:
    return f if isinstance(f, DiffusersNetwork) or n_classes else _Plain(f)


def _has_parameters(f: Any) -> bool:
    return isinstance(f, nn.Module) and next(f.parameters(), None) is not None


def _entry(config: Any, name: str, where: str) -> Any:
    value = getattr(config, name, None)
    if value is None:
        raise TypeError(
            f"{where} has no {name}: give the UNet itself, not a pipeline; or use from_callable, which is told"
            " the shape"
        )
    return value


@torch.no_grad()
def pixel_marginals(pixels: Pixels, x: Tensor) -> MarginalDenoiser:
    """What is known of every pixel without the others, from rows ``x`` (N, C).

    Levels: the share of rows that have each, mixed with the same smoothed by a kernel, in the proportion that predicts
    a row left out best. Continuous values: one Gaussian. Classes: their shares.
    """
    n, n_rows, book = pixels.n_pixels, len(x), pixels.codebook()
    classes = torch.zeros(0, dtype=torch.float64)
    if pixels.n_classes:
        column = x[:, n]
        told = column[~column.isnan()].long()
        classes = torch.bincount(told, minlength=pixels.n_classes) + 0.5
    if pixels.n_levels is None:
        cells = x[:, :n]
        var = cells.var(0, correction=0).clamp_min(1e-8)
        mixture = torch.stack([torch.zeros_like(var), cells.mean(0), var])[:, :, None]
        return MarginalDenoiser(book, classes, mixture)
    k = pixels.n_levels
    codes = x[:, :n].long()
    counts = torch.zeros(n, k, dtype=torch.float64)
    counts.scatter_add_(1, codes.T, torch.ones(n, n_rows, dtype=torch.float64))
    # smooth over levels, the finer the more rows, and over all levels a little
    sd = codes.double().std(0, correction=0).mean()
    width = max(0.5, float(BANDWIDTH * sd * n_rows ** (-1 / 5)))
    at = torch.arange(k, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    uniform = 1 / (n_rows + 1) / k
    smooth = (counts @ kernel) * (n_rows / (n_rows + 1)) / n_rows + uniform
    own = (
        kernel.diagonal() * (n_rows / (n_rows + 1)) / n_rows
    )  # of a row itself, which it must not see
    best, best_nats = 0.5, math.inf
    for share in SHARES[1:]:
        left = (1 - share) * (counts - 1).clamp_min(0) / max(1, n_rows - 1)
        left = left + share * (smooth - own).clamp_min(uniform)
        nats = -float((counts * left.log()).sum())
        if nats < best_nats:
            best, best_nats = share, nats
    probs = (1 - best) * counts / n_rows + best * smooth
    flat = book.levels.gather(_padded(probs, classes, book.levels.widest)[None])[0]
    return MarginalDenoiser(book, flat)


def _padded(probs: Tensor, classes: Tensor, widest: int) -> Tensor:
    """Probabilities of the pixels (D, K) and of the class, column by column: (C, widest)."""
    parts = [probs] if not len(classes) else [probs, classes[None]]
    return torch.cat([nn.functional.pad(p, (0, widest - p.shape[1])) for p in parts])
