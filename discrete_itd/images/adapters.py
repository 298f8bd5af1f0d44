"""Existing diffusion models as denoisers of this library's channel.

A model keeps its network, its noise schedule and its kind of prediction. The result is a denoiser like any other, which
can be scored, combined with others and tuned; :class:`discrete_itd.images.ImageDensity` does so on images.

Source: Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.images.adapted import N_KNOTS, AdaptedDenoiser, calibrate
from discrete_itd.images.noising import PREDICTIONS, Noising, Preconditioned, VariancePreserving
from discrete_itd.images.pixels import Pixels
from discrete_itd.progress import progress_bar

__all__ = ["Preconditioned", "VariancePreserving", "described", "from_callable"]

BANDWIDTH = 0.9  # factor of Silverman's rule (1986) for the kernel that smooths levels
SHARES = (0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999)  # candidate weights of the smoothed levels

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
    n_knots: int = N_KNOTS,
    random_state: int = 0,
) -> AdaptedDenoiser:
    r"""Adapt a function that predicts the noise, the velocity or the clean image.

    Parameters
    ----------
    f : callable
        ``f(noisy, time)`` with images (B, \*shape) at the scale of the schedule and times (B,), and with classes (B,)
        as a third argument if ``n_classes`` is positive; returns a tensor of the shape of ``noisy``. Times are
        fractional where the SNR lies between those of the schedule. A module becomes part of the denoiser, and can be
        tuned; it is not copied, and is put in evaluation mode.
    X : array-like
        Some hundred images like those to be scored, preferably not the model's training images: the errors of its
        predictions are measured on them. Levels 0 ... n_levels - 1, or values in the model's units.
    prediction : {"epsilon", "v_prediction", "sample"}
        The noise, the velocity, or the clean image; see :class:`Preconditioned` for their meaning there.
    schedule : Noising or sequence of float
        :class:`VariancePreserving`, :class:`Preconditioned`, or :math:`\bar\alpha_t` of the times 0 ... T - 1.
    labels : array-like of int, optional
        Classes of ``X``; needed if the model has classes and no ``null_class``.
    shape : tuple of int, optional
        Shape of the model's input images. By default that of ``X``.
    n_levels : int, optional
        Levels of a pixel; pixels are continuous by default.
    value_range : tuple of float
        The model's values of the first and the last level.
    n_classes : int
        Number of the model's classes.
    null_class : int, optional
        Input of the model where the class is unknown.
    autocast : torch.dtype, optional
        Floating type of the network's arithmetic, like ``torch.bfloat16``.
    n_knots : int
        SNRs at which errors are measured; each costs one network evaluation per image of ``X``.
    random_state : int

    Raises
    ------
    ValueError, TypeError
        If a shape, level, class, prediction or schedule is invalid; the message names it.
    """
    if not callable(f):
        raise TypeError(f"f must be callable, got {type(f).__name__}")
    if isinstance(schedule, Sequence | Tensor | np.ndarray) and not isinstance(schedule, str):
        noising: Any = VariancePreserving(torch.as_tensor(schedule))
    else:
        noising = schedule
    if not isinstance(noising, Noising):
        raise TypeError(
            f"schedule must be a Noising or a sequence of alphas_cumprod, got {type(schedule).__name__}"
        )
    if shape is None:
        shape = tuple(X.shape[1:]) if hasattr(X, "shape") else tuple(torch.as_tensor(X).shape[1:])
    pixels = Pixels(tuple(shape), n_levels, *map(float, value_range), n_classes=n_classes)
    x = pixels.encode(X, labels)
    if len(x) < 2:
        raise ValueError(f"X must hold at least two images, to calibrate the model, got {len(x)}")
    for name, value in (("n_knots", n_knots), ("random_state", random_state)):
        if type(value) is not int:
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if n_knots < 1:
        raise ValueError(f"n_knots must be positive, got {n_knots}")
    weights = next(f.parameters(), None) if isinstance(f, nn.Module) else None
    device = torch.device("cpu") if weights is None else weights.device
    denoiser = AdaptedDenoiser(
        f,
        noising,
        prediction,
        pixels,
        pixel_marginals(pixels, x),
        null_class=null_class,
        autocast=autocast,
    ).to(device)
    generator = torch.Generator(device).manual_seed(random_state)
    with progress_bar(1.0, "calibrating", "{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        return calibrate(
            denoiser,
            x.to(device),
            generator=generator,
            n_knots=n_knots,
            progress=lambda done: bar.update(done - bar.n),
        )


def described(
    model: Any, scheduler: Any, null_class: int | None = None
) -> tuple[DiffusersNetwork, dict[str, Any]]:
    """A diffusers model as the function, and the arguments, of :func:`from_callable`.

    Parameters
    ----------
    model : UNet2DModel, or a module like it
        Called as ``model(sample, timestep, class_labels)``; ``in_channels`` and ``sample_size`` of its ``config``
        give the shape of images. It is not copied, and is put in evaluation mode. Its classes are its
        ``num_class_embeds``, less the null class if that is the last.
    scheduler : scheduler of diffusers
        One with ``alphas_cumprod`` (DDPM, DDIM, PNDM, Euler, Heun, DPM-Solver and others, linear or cosine), or one
        of EDM (``sigma_data``, ``sigma_min`` and ``sigma_max`` in its config). Only its noise levels are read.
    null_class : int, optional

    Raises
    ------
    TypeError
        If the model's config has no shape, the scheduler is of another kind, or its prediction type is unknown.
    ValueError
        If ``null_class`` is none of the model's.
    """
    config = getattr(model, "config", None)
    channels, size = (getattr(config, name, None) for name in ("in_channels", "sample_size"))
    if channels is None or size is None:
        raise TypeError(
            "the model's config must have in_channels and sample_size: give the UNet itself, not a pipeline; or use"
            " from_callable, which takes the shape"
        )
    n_classes = getattr(config, "num_class_embeds", None) or 0
    if null_class is not None and not 0 <= null_class < n_classes:
        raise ValueError(f"null_class must be one of the model's {n_classes}, got {null_class}")
    schedule = noising_of(scheduler)
    prediction = getattr(scheduler.config, "prediction_type", None)
    if prediction not in PREDICTIONS:
        raise TypeError(
            f"the scheduler's prediction_type must be one of {PREDICTIONS}, got {prediction!r}"
        )
    return DiffusersNetwork(model), {
        "prediction": prediction,
        "schedule": schedule,
        "shape": (channels, *((size, size) if isinstance(size, int) else size)),
        "n_classes": n_classes - (null_class is not None and null_class == n_classes - 1),
    }


def noising_of(scheduler: Any) -> Noising:
    """The noise of a diffusers scheduler; TypeError for an unsupported one."""
    config: Any = getattr(scheduler, "config", None)
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if getattr(config, "timestep_type", "discrete") == "continuous":
        raise TypeError(f"a {type(scheduler).__name__} with continuous times is not supported")
    if alphas is not None:
        return VariancePreserving(alphas)
    if all(hasattr(config, name) for name in ("sigma_data", "sigma_min", "sigma_max")):
        return Preconditioned(config.sigma_data, config.sigma_min, config.sigma_max)
    raise TypeError(
        f"a {type(scheduler).__name__} has neither alphas_cumprod nor the noise levels of EDM"
    )


class DiffusersNetwork(nn.Module):
    """A diffusers model as a function of noisy images, times and classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, time: Tensor, classes: Tensor | None = None) -> Tensor:
        like = next(self.model.parameters())
        given = {} if classes is None else {"class_labels": classes}
        time = time.to(torch.float32)
        return self.model(noisy.to(like.dtype), time, **given, return_dict=False)[0]


@torch.no_grad()
def pixel_marginals(pixels: Pixels, x: Tensor) -> MarginalDenoiser:
    """Marginal distributions of the pixels and the class, estimated from rows ``x`` (N, C).

    Levels: relative frequencies, mixed with kernel-smoothed ones in the proportion with the best leave-one-out
    log-likelihood. Continuous values: one Gaussian each. Classes: relative frequencies.
    """
    n, n_rows, book = pixels.n_pixels, len(x), pixels.codebook()
    classes = torch.zeros(0, dtype=torch.float64)
    if pixels.n_classes:
        column = x[:, n]
        known = column[~column.isnan()].long()
        classes = torch.bincount(known, minlength=pixels.n_classes) + 0.5
    if pixels.n_levels is None:
        cells = x[:, :n]
        var = cells.var(0, correction=0).clamp_min(1e-8)
        mixture = torch.stack([torch.zeros_like(var), cells.mean(0), var])[:, :, None]
        return MarginalDenoiser(book, classes, mixture)
    k = pixels.n_levels
    codes = x[:, :n].long()
    counts = torch.zeros(n, k, dtype=torch.float64)
    counts.scatter_add_(1, codes.T, torch.ones(n, n_rows, dtype=torch.float64))
    # a kernel whose width falls with the number of rows, and a little of the uniform distribution
    sd = codes.double().std(0, correction=0).mean()
    width = max(0.5, float(BANDWIDTH * sd * n_rows ** (-1 / 5)))
    at = torch.arange(k, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    uniform = 1 / (n_rows + 1) / k
    smooth = (counts @ kernel) * (n_rows / (n_rows + 1)) / n_rows + uniform
    # a row's own contribution is left out of its prediction
    own = kernel.diagonal() * (n_rows / (n_rows + 1)) / n_rows

    def nats(share: float) -> float:
        left = (1 - share) * (counts - 1).clamp_min(0) / max(1, n_rows - 1)
        left = left + share * (smooth - own).clamp_min(uniform)
        return -float((counts * left.log()).sum())

    best = min(SHARES, key=nats)
    probs = (1 - best) * counts / n_rows + best * smooth
    columns = [*probs, classes] if len(classes) else [*probs]
    wide = nn.utils.rnn.pad_sequence(columns, batch_first=True)
    return MarginalDenoiser(book, book.levels.gather(wide[None])[0])
