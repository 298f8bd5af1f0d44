"""Times and scales of existing diffusion models, by the schedulers they come from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discrete_itd.images.conventions import (
    PREDICTIONS,
    Preconditioned,
    VariancePreserving,
    noising_of,
)
from tests.images.noisings import linear

KINDS = {
    "linear": linear(),
    "few": VariancePreserving([0.99, 0.5, 0.3, 0.01]),
    "preconditioned": Preconditioned(),
    "other data": Preconditioned(sigma_data=1.3, sigma_min=0.01, sigma_max=20.0),
}


@pytest.mark.parametrize("name", KINDS)
@given(st.floats(0, 1))
def test_from_time_to_snr_and_back(name, share):
    noising = KINDS[name]
    low, high = math.log(noising.low), math.log(noising.high)
    snr = torch.tensor([math.exp(low + share * (high - low))], dtype=torch.float64)
    snr = snr.clamp(noising.low, noising.high)
    time = noising.time(snr)
    torch.testing.assert_close(noising.snr(time), snr, rtol=1e-9, atol=0)
    torch.testing.assert_close(noising.time(noising.snr(time)), time, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_beyond_the_range_is_an_error(name):
    noising = KINDS[name]
    for snr in (noising.low * 0.9, noising.high * 1.1, 0.0, math.nan):
        with pytest.raises(ValueError, match=r"SNR .* is outside the model's"):
            noising.time(torch.tensor([1.0, snr]))
    with pytest.raises(ValueError, match="outside the model's"):
        noising.snr(torch.tensor([5000.0]))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", KINDS)
def test_a_true_answer_gives_the_clean_row(name, prediction):
    """By the definitions of what is predicted, at the scale of the papers."""
    noising = KINDS[name]
    rng = np.random.default_rng(0)
    clean, noise = torch.from_numpy(rng.normal(size=(2, 40, 3)))
    share = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)[:, None]
    snr = (math.log(noising.low) * (1 - share) + math.log(noising.high) * share).exp()
    z = snr.sqrt() * clean + noise
    if isinstance(noising, VariancePreserving):
        alpha, sigma = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
        noisy = alpha * clean + sigma * noise
        answers = {"epsilon": noise, "sample": clean, "v_prediction": alpha * noise - sigma * clean}
    else:
        sigma, data = snr.rsqrt(), noising.sigma_data
        total = sigma**2 + data**2
        noisy = (clean + sigma * noise) / total.sqrt()
        skip, out = data**2 / total, sigma * data / total.sqrt()
        f = (clean - skip * (clean + sigma * noise)) / out
        answers = {"epsilon": f, "sample": clean, "v_prediction": -f}
    torch.testing.assert_close(noising.network_input(z, snr), noisy)
    guess = noising.denoised_mean(answers[prediction], z, snr, prediction)
    torch.testing.assert_close(guess, clean, rtol=1e-6, atol=1e-6)


def test_wrong_schedules():
    for alphas in ([], [0.5], [0.5, 0.6], [1.0, 0.5], [0.5, -0.1], [0.5, math.nan]):
        with pytest.raises(ValueError, match="alphas_cumprod must be"):
            VariancePreserving(alphas)
    for levels in ((0.5, 3.0, 2.0), (0.0, 0.1, 2.0), (0.5, 0.0, 2.0)):
        with pytest.raises(ValueError, match="noise levels"):
            Preconditioned(*levels)


def test_a_schedule_that_ends_in_noise_alone():
    for end in ([0.0], [1e-9, 0.0], [1e-9, 6e-8]):  # some write a small number for zero
        assert len(VariancePreserving([0.9, 0.5, *end]).alphas_cumprod) == 1 + len(end)


def test_schedulers_that_end_in_noise_alone():
    diffusers = pytest.importorskip("diffusers")
    for kind in ("DDPMScheduler", "EulerDiscreteScheduler"):
        noising = noising_of(getattr(diffusers, kind)(rescale_betas_zero_snr=True))
        assert len(noising.alphas_cumprod) == 999
    with pytest.raises(TypeError, match="continuous times"):
        noising_of(
            diffusers.EulerDiscreteScheduler(
                timestep_type="continuous", use_karras_sigmas=False, prediction_type="v_prediction"
            )
        )


# -- the schedulers of diffusers ------------------------------------------------------------------


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    "kind",
    ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"],
)
def test_schedulers_of_diffusers(kind, betas):
    """What they add to a picture, and what a network would be shown, at every hundredth time."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, kind)(beta_schedule=betas)
    noising = noising_of(scheduler)
    time = torch.arange(0, 1000, 100)
    snr = noising.snr(time)
    torch.testing.assert_close(noising.time(snr), time.double(), atol=1e-6, rtol=0)
    clean, noise = torch.randn(2, len(time), 3, generator=torch.Generator().manual_seed(0))
    plain = diffusers.DDPMScheduler(beta_schedule=betas)
    noisy = plain.add_noise(clean.float(), noise.float(), time)
    shown = noising.network_input(snr.sqrt()[:, None] * clean + noise, snr[:, None])
    torch.testing.assert_close(shown.float(), noisy, atol=1e-5, rtol=1e-4)
    velocity = plain.get_velocity(clean.float(), noise.float(), time).double()
    z = snr.sqrt()[:, None] * clean.double() + noise
    guess = noising.denoised_mean(velocity, z, snr[:, None], "v_prediction")
    torch.testing.assert_close(guess, clean.double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_preconditioning_of_diffusers(prediction):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction)
    noising = noising_of(scheduler)
    sigma = torch.tensor([0.01, 0.3, 1.0, 40.0], dtype=torch.float64)
    snr = (sigma**-2)[:, None]
    picture, answer = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    for i, s in enumerate(sigma):
        shown = scheduler.precondition_inputs(picture[i], s)
        torch.testing.assert_close(noising.network_input(picture / sigma[:, None], snr)[i], shown)
        time = scheduler.precondition_noise(s.item())
        torch.testing.assert_close(noising.time(snr[i]), torch.as_tensor([time]).double())
        expected = scheduler.precondition_outputs(picture[i], answer[i], s)
        guess = noising.denoised_mean(answer, picture / sigma[:, None], snr, prediction)[i]
        torch.testing.assert_close(guess, expected)


def test_other_schedulers_are_refused():
    diffusers = pytest.importorskip("diffusers")
    with pytest.raises(TypeError, match="FlowMatch"):
        noising_of(diffusers.FlowMatchEulerDiscreteScheduler())
