r"""Noise of existing diffusion models: discrete times, scales, kinds of prediction.

A model indexes noise by a *time* of its own and takes inputs at a scale of its own. The channel indexes it by the SNR
:math:`\gamma` of :math:`z = \sqrt\gamma x + \varepsilon`, eq. (1). :class:`VariancePreserving` converts between time
and SNR, scales z to the network's input, and turns the network's output into the denoised mean of x.

References
----------
Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, arXiv:2006.11239.
Salimans, Ho, "Progressive distillation for fast sampling of diffusion models", ICLR 2022, arXiv:2202.00512, for v.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PREDICTIONS = ("epsilon", "v_prediction", "sample")  # kinds of prediction, in diffusers' words


class VariancePreserving:
    r"""Noise that keeps unit variance: :math:`\sqrt{\bar\alpha_t} x + \sqrt{1 - \bar\alpha_t} \varepsilon`.

    ``alphas_cumprod``, :math:`\bar\alpha_t` of the times 0 ... T - 1, are decreasing in (0, 1). Between two times the
    logarithm of the SNR is linear in time; SNRs outside the range get the time of its nearest end.
    Final zeros, of a schedule that ends in pure noise, are dropped.

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
            n -= 1  # some schedulers replace a final zero by a small number
        while n and float(alphas[n - 1]) == 0.0:
            n -= 1
        self.alphas_cumprod = alphas = alphas[:n]
        inside = bool(((alphas > 0) & (alphas < 1)).all())
        if n < 2 or not inside or not bool((alphas.diff() < 0).all()):
            raise ValueError(
                "alphas_cumprod must be at least two decreasing numbers between 0 and 1"
            )
        self._logsnr = torch.log(alphas) - torch.log1p(-alphas)

    def snr(self, time: Tensor) -> Tensor:
        """SNR at the model's times, same shape, float64."""
        times = np.arange(len(self._logsnr))
        logsnr = np.interp(time.detach().cpu().double().numpy(), times, self._logsnr.numpy())
        return torch.from_numpy(np.exp(logsnr)).to(time.device)

    def time(self, snr: Tensor) -> Tensor:
        """The model's time of each SNR, same shape, float64."""
        rising, times = self._logsnr.flip(0).numpy(), np.arange(len(self._logsnr))[::-1]
        logsnr = np.log(snr.detach().cpu().double().numpy())
        return torch.from_numpy(np.interp(logsnr, rising, times)).to(snr.device)

    def network_input(self, z: Tensor, snr: Tensor) -> Tensor:
        """The network's input, ``z`` (B, D) at ``snr`` (B, 1) at its scale: (B, D)."""
        return z * (1 + snr).rsqrt()

    def denoised_mean(self, output: Tensor, z: Tensor, snr: Tensor, prediction: str) -> Tensor:
        r"""The denoised mean :math:`\hat x` (B, D) given by the network's output."""
        if prediction == "epsilon":
            return (z - output) / snr.sqrt()
        if prediction == "v_prediction":
            noise = (1 + snr).rsqrt()
            return snr.sqrt() * noise * (noise * z) - noise * output
        return output


# -- diffusers ------------------------------------------------------------------------------------


def described(
    model: Any, scheduler: Any, null_class: int | None = None
) -> tuple[DiffusersNetwork, dict[str, Any]]:
    """The function and the arguments of :meth:`ImageDensity.from_callable` for a diffusers model."""
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
    alphas = alphas_of(scheduler)
    prediction = getattr(scheduler.config, "prediction_type", None)
    if prediction not in PREDICTIONS:
        raise TypeError(
            f"the scheduler's prediction_type must be one of {PREDICTIONS}, got {prediction!r}"
        )
    return DiffusersNetwork(model), {
        "prediction": prediction,
        "schedule": alphas,
        "shape": (channels, *((size, size) if isinstance(size, int) else size)),
        "n_classes": n_classes - (null_class is not None and null_class == n_classes - 1),
    }


def alphas_of(scheduler: Any) -> Tensor:
    r"""The :math:`\bar\alpha_t` of a diffusers scheduler; TypeError for one without them or with continuous times."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    timestep_type = getattr(getattr(scheduler, "config", None), "timestep_type", "discrete")
    if alphas is None or timestep_type == "continuous":
        raise TypeError(
            f"a {type(scheduler).__name__} has no alphas_cumprod, or continuous times: use from_callable"
        )
    return alphas


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
