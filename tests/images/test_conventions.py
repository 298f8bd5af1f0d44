"""Times and scales of existing diffusion models, by the schedulers they come from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discrete_itd.images.conventions import (
    PREDICTIONS,
    VariancePreserving,
    alphas_of,
)
from tests.images.noisings import linear

KINDS = {
    "linear": linear(),
    "few": VariancePreserving([0.99, 0.5, 0.3, 0.01]),
}


def ends(noising):
    """The smallest and the largest SNR."""
    return noising.snr(torch.tensor([len(noising.alphas_cumprod) - 1, 0]))


@pytest.mark.parametrize("name", KINDS)
@given(st.floats(0, 1))
def test_from_time_to_snr_and_back(name, share):
    noising = KINDS[name]
    low, high = ends(noising).log()
    snr = (low + share * (high - low)).exp()[None].clamp(*ends(noising))
    time = noising.time(snr)
    torch.testing.assert_close(noising.snr(time), snr, rtol=1e-9, atol=0)
    torch.testing.assert_close(noising.time(noising.snr(time)), time, rtol=1e-9, atol=1e-9)


def test_times_beyond_the_range_are_those_of_its_ends():
    noising = KINDS["few"]
    snr = ends(noising) * torch.tensor([0.5, 2.0])
    assert noising.time(snr).tolist() == [3.0, 0.0]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", KINDS)
def test_a_true_answer_gives_the_clean_row(name, prediction):
    """By the definitions of what is predicted, at the scale of the papers."""
    noising = KINDS[name]
    rng = np.random.default_rng(0)
    clean, noise = torch.from_numpy(rng.normal(size=(2, 40, 3)))
    share = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)[:, None]
    low, high = ends(noising).log()
    snr = (low * (1 - share) + high * share).exp()
    z = snr.sqrt() * clean + noise
    alpha, sigma = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    noisy = alpha * clean + sigma * noise
    answers = {"epsilon": noise, "sample": clean, "v_prediction": alpha * noise - sigma * clean}
    torch.testing.assert_close(noising.network_input(z, snr), noisy)
    guess = noising.denoised_mean(answers[prediction], z, snr, prediction)
    torch.testing.assert_close(guess, clean, rtol=1e-6, atol=1e-6)


def test_wrong_schedules():
    for alphas in ([], [0.5], [0.5, 0.6], [1.0, 0.5], [0.5, -0.1], [0.5, math.nan]):
        with pytest.raises(ValueError, match="alphas_cumprod must be"):
            VariancePreserving(alphas)


def test_a_schedule_that_ends_in_noise_alone():
    for end in ([0.0], [1e-9, 0.0], [1e-9, 6e-8]):  # some write a small number for zero
        assert len(VariancePreserving([0.9, 0.5, *end]).alphas_cumprod) == 1 + len(end)


def test_schedulers_that_end_in_noise_alone():
    diffusers = pytest.importorskip("diffusers")
    for kind in ("DDPMScheduler", "EulerDiscreteScheduler"):
        scheduler = getattr(diffusers, kind)(rescale_betas_zero_snr=True)
        noising = VariancePreserving(alphas_of(scheduler))
        assert len(noising.alphas_cumprod) == 999
    with pytest.raises(TypeError, match="continuous times"):
        alphas_of(
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
    noising = VariancePreserving(alphas_of(scheduler))
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


def test_other_schedulers_are_refused():
    diffusers = pytest.importorskip("diffusers")
    with pytest.raises(TypeError, match="FlowMatch"):
        alphas_of(diffusers.FlowMatchEulerDiscreteScheduler())
