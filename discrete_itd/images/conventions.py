r"""Noise conventions of existing diffusion models: discrete times, noise levels, preconditioning.

A model indexes noise by a *time* of its own and takes inputs at a scale of its own. The channel indexes it by the SNR
:math:`\gamma` of :math:`z = \sqrt\gamma x + \varepsilon`, eq. (1). A :class:`Noising` converts between time and SNR,
scales z to the network's input, and turns the network's output into the denoised mean of x.

References
----------
Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, arXiv:2006.11239.
Salimans, Ho, "Progressive distillation for fast sampling of diffusion models", ICLR 2022, arXiv:2202.00512, for v.
Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", NeurIPS 2022,
arXiv:2206.00364, table 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@runtime_checkable
class Noising(Protocol):
    """The noise that a model was trained with; ``low`` and ``high`` are its smallest and largest SNR."""

    low: float
    high: float

    def snr(self, time: Tensor) -> Tensor:
        """SNR at the model's times, same shape, float64; ValueError beyond the model's range."""
        ...

    def time(self, snr: Tensor) -> Tensor:
        """The model's time of each SNR, same shape, float64; ValueError beyond the model's range."""
        ...

    def network_input(self, z: Tensor, snr: Tensor) -> Tensor:
        """The network's input, ``z`` (B, D) at ``snr`` (B, 1) at its scale: (B, D)."""
        ...

    def denoised_mean(self, output: Tensor, z: Tensor, snr: Tensor, prediction: str) -> Tensor:
        r"""The denoised mean :math:`\hat x` (B, D) given by the network's output."""
        ...


class VariancePreserving:
    r"""Noise that keeps unit variance: :math:`\sqrt{\bar\alpha_t} x + \sqrt{1 - \bar\alpha_t} \varepsilon`.

    ``alphas_cumprod``, :math:`\bar\alpha_t` of the times 0 ... T - 1, are decreasing in (0, 1). Between two times the
    logarithm of the SNR is linear in time. Final zeros, of a schedule that ends in pure noise, are dropped.

    Examples
    --------
    >>> noising = VariancePreserving([0.9, 0.5, 0.1])
    >>> noising.snr(torch.tensor([0.0, 1.0, 2.0])).round(decimals=2).tolist()
    [9.0, 1.0, 0.11]
    >>> noising.time(torch.tensor([9.0, 3.0, 1.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def __init__(self, alphas_cumprod: Sequence[float] | Tensor) -> None:
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu().flatten()
        n = len(alphas)
        if n > 1 and float(alphas[n - 1]) < 1e-6 and bool(alphas[n - 1] >= alphas[n - 2]):
            n -= 1  # some schedulers replace a final zero
        while n and float(alphas[n - 1]) == 0.0:
            n -= 1
        self.alphas_cumprod = alphas = alphas[:n]
        inside = bool(((alphas > 0) & (alphas < 1)).all())
        if n < 2 or not inside or not bool((alphas.diff() < 0).all()):
            raise ValueError(
                "alphas_cumprod must be at least two decreasing numbers between 0 and 1"
            )
        self._logsnr = torch.log(alphas) - torch.log1p(-alphas)
        self.low, self.high = math.exp(self._logsnr[-1]), math.exp(self._logsnr[0])

    def snr(self, time: Tensor) -> Tensor:
        last = len(self._logsnr) - 1
        _within(time, 0.0, float(last), "time")
        where = np.arange(last + 1)
        logsnr = np.interp(time.detach().cpu().double().numpy(), where, self._logsnr.numpy())
        return torch.from_numpy(np.exp(logsnr)).to(time.device)

    def time(self, snr: Tensor) -> Tensor:
        _within(snr, self.low, self.high, "SNR")
        rising, where = self._logsnr.flip(0).numpy(), np.arange(len(self._logsnr))[::-1]
        logsnr = np.log(snr.detach().cpu().double().numpy())
        return torch.from_numpy(np.interp(logsnr, rising, where)).to(snr.device)

    def network_input(self, z: Tensor, snr: Tensor) -> Tensor:
        return z * (1 + snr).rsqrt()

    def denoised_mean(self, output: Tensor, z: Tensor, snr: Tensor, prediction: str) -> Tensor:
        if prediction == "epsilon":
            return (z - output) / snr.sqrt()
        if prediction == "v_prediction":
            noise = (1 + snr).rsqrt()
            return snr.sqrt() * noise * (noise * z) - noise * output
        return output


class Preconditioned:
    r"""Noise of any level :math:`\sigma = 1/\sqrt\gamma`, with the preconditioning of Karras et al. (2022), table 1.

    ``sigma_data`` is the standard deviation :math:`\sigma_d` of the data, as the model assumes it; ``sigma_min`` and
    ``sigma_max`` are its smallest and largest noise level. The network's input is :math:`(x + \sigma\varepsilon) /
    \sqrt{\sigma^2 + \sigma_d^2}` at the time :math:`\tfrac14 \ln\sigma`. Its raw output F, called "epsilon" here as in
    diffusers, gives the image :math:`c_{skip} (x + \sigma\varepsilon) + c_{out} F`; "v_prediction" denotes -F, and
    "sample" the image itself.
    """

    def __init__(
        self, sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0
    ) -> None:
        if not (sigma_data > 0 and 0 < sigma_min < sigma_max < math.inf):
            raise ValueError(
                f"noise levels must be positive and increase, got {sigma_data}, {sigma_min}, {sigma_max}"
            )
        self.sigma_data = sigma_data
        self.low, self.high = sigma_max**-2, sigma_min**-2

    def snr(self, time: Tensor) -> Tensor:
        snr = torch.exp(-8 * time.double())  # time is log(sigma) / 4
        _within(snr, self.low, self.high, "SNR")
        return snr

    def time(self, snr: Tensor) -> Tensor:
        _within(snr, self.low, self.high, "SNR")
        return -torch.log(snr.double()) / 8

    def network_input(self, z: Tensor, snr: Tensor) -> Tensor:
        return z * (1 + snr * self.sigma_data**2).rsqrt()  # c_in of x + sigma noise

    def denoised_mean(self, output: Tensor, z: Tensor, snr: Tensor, prediction: str) -> Tensor:
        if prediction == "sample":
            return output
        known = snr * self.sigma_data**2
        scale = self.sigma_data * (1 + known).rsqrt()
        sign = -1.0 if prediction == "v_prediction" else 1.0
        return known / (1 + known) * (z * snr.rsqrt()) + sign * scale * output


def _within(values: Tensor, low: float, high: float, what: str) -> None:
    """Raise ValueError if a value is outside a model's range by more than rounding."""
    slack = 1e-6 * max(abs(low), abs(high)) if what == "time" else 0.0
    bad = ~((values >= low * (1 - 1e-6) - slack) & (values <= high * (1 + 1e-6) + slack))
    if bool(bad.any()):
        value = float(values[bad].flatten()[0])
        raise ValueError(f"{what} {value:g} is outside the model's range, {low:g} to {high:g}")


# -- diffusers ------------------------------------------------------------------------------------


def described(
    model: Any, scheduler: Any, null_class: int | None = None
) -> tuple[DiffusersNetwork, dict[str, Any]]:
    """A diffusers model as the function, and the arguments, of :meth:`ImageDensity.from_callable`."""
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
