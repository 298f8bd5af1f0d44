"""Existing models as denoisers: properties that hold for any network, exactness in both limits, calibration."""

import copy
import math

import numpy as np
import pytest
import torch
from laws import (
    all_rows,
    integral_of,
    logistic,
    paths_of,
    random_oracle,
    seeded_generator,
    total_mass,
)
from scipy import stats
from torch import nn

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, State
from discrete_itd.images import ImageDensity, posteriors
from discrete_itd.images.conventions import VariancePreserving
from discrete_itd.images.layout import Pixels, pixel_marginals
from discrete_itd.images.posteriors import AdaptedDenoiser, tilted_posterior
from discrete_itd.likelihood import integral_log_prob, path_log_prob
from tests.images.noisings import linear

NOISINGS = {"linear": linear(), "few": VariancePreserving([0.99, 0.5, 0.3, 0.01])}


def from_callable(*args, **options):
    return ImageDensity.from_callable(*args, n_steps=1, **options).denoiser


class Wild(nn.Module):
    """A network of random weights, whose predictions are meaningless."""

    def __init__(self, n, seed=0, n_classes=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(n + 1 + n_classes, 16), nn.SiLU(), nn.Linear(16, n))
        self.n_classes = n_classes

    def forward(self, noisy, time, classes=None):
        flat = noisy.flatten(1)
        parts = [flat, time[:, None].to(flat) / 500]
        if self.n_classes:
            parts.append(nn.functional.one_hot(classes, self.n_classes).to(flat))
        return self.net(torch.cat(parts, 1)).view_as(noisy)


def oracle_network(oracle, noising):
    """The exact prediction of noise, for a distribution whose exact denoiser is known."""

    def epsilon(noisy, time):
        flat = noisy.flatten(1).to(oracle.codebook.known_snr)
        snr = noising.snr(time).to(flat)[:, None]
        z = flat * (1 + snr).sqrt()
        state = snr.sqrt() * z, snr.expand(-1, oracle.codebook.n_columns)
        return (z - snr.sqrt() * oracle(*state).mean()).view_as(noisy)

    return epsilon


def wild_model(device, pixels, noising="linear", prediction="epsilon", seed=0, **options):
    """An adapted random network with a random calibration."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(pixels.n_levels or 2, size=(30, pixels.n_pixels))).double()
    if pixels.n_levels is None:
        x = x + torch.from_numpy(rng.normal(size=x.shape))
    if pixels.n_classes:
        x = torch.cat([x, torch.from_numpy(rng.integers(pixels.n_classes, size=(30, 1)))], 1)
    network = Wild(pixels.n_pixels, seed, pixels.n_classes + ("null_class" in options))
    model = AdaptedDenoiser(
        network, NOISINGS[noising], prediction, pixels, pixel_marginals(pixels, x), **options
    )
    g = 5
    model.knots = torch.linspace(-4, 6, g).to(model.mean0)
    model.shrink = torch.from_numpy(rng.uniform(0, 1, (g, pixels.n_pixels))).to(model.mean0)
    model.ratio = torch.from_numpy(rng.uniform(0.2, 1, (g, pixels.n_pixels))).to(model.mean0)
    model.trust = torch.from_numpy(rng.uniform(0.5, 1.2, g)).to(model.mean0)
    model.tilt = torch.from_numpy(rng.choice([0.0, 0.3, 1.0], g)).to(model.mean0)
    return model.to(device).eval()


# -- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noising", "prediction"),
    [
        ("linear", "epsilon"),
        pytest.param("linear", "v_prediction", marks=pytest.mark.slow),
        ("few", "sample"),
    ],
)
def test_mass_of_paths_is_one_for_any_network(device, noising, prediction):
    """Property (6), by enumeration of all images."""
    pixels = Pixels((1, 1, 2), n_levels=4)
    model = wild_model(device, pixels, noising, prediction)
    rows = all_rows(model.codebook)
    estimate = paths_of(
        model, rows, IsotropicSchedule((0.3, 2.0, 9.0)), n_paths=1000, batch_size=1 << 14
    )
    mass, error = total_mass(estimate)
    assert mass == pytest.approx(1, abs=5 * error + 1e-6)
    assert error < 0.15
    marginal = model.base.log_prob(rows)
    assert (estimate.log_prob - marginal).abs().max() > 0.05  # the network matters


@pytest.mark.parametrize("noising", ["linear", pytest.param("few", marks=pytest.mark.slow)])
def test_code_of_the_integral_is_valid_for_any_network(device, noising):
    """Property (5), by enumeration of all images."""
    model = wild_model(device, Pixels((3,), n_levels=3), noising)
    rows = all_rows(model.codebook)
    s = integral_of(
        model,
        rows,
        logistic(0.5, 1.5, low=-8.0, high=6.0),
        n_points=2000,
        batch_size=1 << 14,
    )
    mass, error = total_mass(s)
    assert mass <= 1 + 5 * error
    assert s.log_prob.isfinite().all()


@pytest.mark.parametrize("n_levels", [None, 4])
def test_exact_at_both_ends(device, n_levels):
    """Without signal the posterior is the marginal, without noise certain; and before calibration, the base's."""
    pixels = Pixels((2, 2), n_levels=n_levels)
    model = wild_model(device, pixels)
    book = model.codebook
    rows = torch.tensor([[0.0, 1, 2, 3], [3.0, 3, 0, 0]], dtype=torch.float64, device=device)
    start = State.start(book, book.embed(rows))
    torch.testing.assert_close(model(*start).log_prob(rows), model.base(*start).log_prob(rows))
    known = State.start(book, book.embed(rows), torch.ones_like(rows, dtype=torch.bool))
    torch.testing.assert_close(model(*known).mean(), book.embed(rows))
    if n_levels is not None:
        assert model(*known).log_prob(rows).abs().max() < 1e-6
    fresh = AdaptedDenoiser(model.network, model.noising, "epsilon", pixels, model.base).to(device)
    xi = torch.ones_like(start.y)
    noisy = start.increment(book, book.embed(rows), torch.full_like(start.snr, 3.0), xi)
    torch.testing.assert_close(fresh(*noisy).mean(), fresh.base(*noisy).mean())
    assert not torch.allclose(model(*noisy).mean(), model.base(*noisy).mean())


# -- what is exact --------------------------------------------------------------------------------


def test_a_network_of_noise_levels():
    """By the lines of the docstring: of standard normal images, whose clean mean given noise is known."""
    low, high = 0.01, 20.0

    def s(t):
        return low * (high / low) ** (t / 199)

    def g(noisy, sigma):
        return noisy / (1 + sigma**2)

    model = from_callable(
        lambda z, t: g(z * (1 + s(t)[:, None] ** 2) ** 0.5, s(t)[:, None]),
        np.random.default_rng(0).normal(size=(50, 3)),
        prediction="sample",
        schedule=1 / (1 + s(torch.arange(200.0, dtype=torch.float64)) ** 2),
        n_knots=2,
    )
    snr = torch.tensor([[0.01], [0.4], [1.0], [900.0]]).to(model.mean0)
    y = snr * torch.tensor([[-1.0, 0.3, 2.0]]).to(snr)
    torch.testing.assert_close(model.denoised_mean(y, snr), y / (1 + snr), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("dtype")
def test_mass_of_a_discrete_oracle(device):
    """A network that knows the levels is as good as the oracle that it is."""
    pixels = Pixels((1, 2, 2), n_levels=3)
    book = pixels.codebook().to(device)
    oracle = random_oracle(book, np.random.default_rng(3))
    noising = linear(200, 5e-4, 0.1)
    p = oracle.log_probs.exp()
    draws = oracle.support[
        torch.multinomial(p, 1000, replacement=True, generator=seeded_generator(0, device))
    ]
    model = from_callable(
        oracle_network(oracle, noising), draws.cpu(), shape=(1, 2, 2), n_levels=3,
        prediction="epsilon", schedule=noising.alphas_cumprod, n_knots=12,
    )  # fmt: skip
    x = oracle.support.cpu()  # each row as often as it occurs
    p, truth = p.double().cpu(), oracle.log_probs.double().cpu()
    generator = seeded_generator(0, "cpu")
    levels = tuple(torch.linspace(-3, 4, 24).exp().tolist())
    path = path_log_prob(model, x, IsotropicSchedule(levels), n_paths=16, generator=generator)
    integral = integral_log_prob(
        model, x, logistic(1.0, 1.5, low=-6.0, high=5.0), n_points=512,
        generator=generator, batch_size=1 << 14,
    )  # fmt: skip
    independent = float((p * (truth - model.base.log_prob(x).double())).sum())
    for e in (path, integral):
        gap = float((p * (truth - e.log_prob)).sum())
        error = float((p * e.stderr).square().sum().sqrt())
        assert -4 * error < gap < 0.1 * independent + 4 * error
        assert error < 0.3 * independent


@pytest.mark.parametrize("n_levels", [2, 3, 9])
def test_the_tilted_posterior_has_the_predicted_mean(device, n_levels):
    """It has the predicted mean, and is an exponential tilt of the posterior without the network."""
    pixels = Pixels((2,), n_levels=n_levels)
    model = wild_model(device, pixels)
    book, rng = model.codebook, np.random.default_rng(0)
    for snr in (0.01, 3.0, 40.0):
        rows = torch.from_numpy(rng.integers(n_levels, size=(50, 2))).double().to(device)
        points = book.embed(rows)
        start = State.start(book, points)
        state = start.increment(
            book, points, torch.full_like(start.snr, snr), torch.zeros_like(points)
        )
        own = model.base(*state)
        guess = torch.from_numpy(rng.uniform(-0.95, 0.95, points.shape)).to(points).requires_grad_()
        q = tilted_posterior(pixels, own, guess, torch.ones_like(points))
        torch.testing.assert_close(q.mean(), guess, atol=2e-3, rtol=1e-3)
        # an exponential tilt: the log-ratio is linear in the level
        ratio = book.levels.spread((q.logits - own.categorical.logits), 0.0)
        if n_levels > 2:
            second = ratio.diff(dim=2).diff(dim=2)
            assert second.abs().max() < 1e-2 * (1 + ratio.abs().max())
        (slope,) = torch.autograd.grad(q.mean().sum(), guess)
        torch.testing.assert_close(slope, torch.ones_like(slope), atol=0.02, rtol=0.02)


# -- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_levels", [pytest.param(None, marks=pytest.mark.slow), 5])
def test_a_useless_network_is_ignored(n_levels):
    rng = np.random.default_rng(0)
    X = rng.integers(5, size=(300, 2, 2)) if n_levels else rng.normal(size=(300, 2, 2))
    model = from_callable(
        lambda noisy, _: torch.randn(noisy.shape), X, shape=(1, 2, 2), n_levels=n_levels,
        prediction="sample", schedule=linear().alphas_cumprod,
    )  # fmt: skip
    x = model.pixels.encode(X)
    levels = IsotropicSchedule((0.2, 1.0, 5.0))
    ours = paths_of(model, x, levels, n_paths=2)
    alone = model.base.log_prob(x).double()
    assert (alone - ours.log_prob).mean() < 0.15


def test_calibration_does_not_depend_on_batches(monkeypatch):
    """The same images in other batches give the same."""
    X = np.random.default_rng(0).integers(4, size=(60, 1, 2, 2))
    options = {
        "n_levels": 4,
        "prediction": "epsilon",
        "schedule": linear().alphas_cumprod,
        "n_knots": 6,
    }
    one = from_callable(Wild(4).double(), X, **options)
    monkeypatch.setattr(posteriors, "BATCH_CELLS", 7 * one.codebook.work)
    other = from_callable(Wild(4).double(), X, **options)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_marginals_of_pixels():
    """They add up, no level is impossible, and many rows have their own way."""
    rng = np.random.default_rng(0)
    for n_levels, n in ((2, 50), (17, 400), (256, 30)):
        pixels = Pixels((2,), n_levels=n_levels)
        x = torch.from_numpy(rng.binomial(n_levels - 1, 0.3, (n, 2))).double()
        q = pixel_marginals(pixels, x)
        p = pixels.codebook().levels.spread(q.log_probs.exp()[None], 0.0)[0]
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
        assert (p > 0).all()
        truth = stats.binom(n_levels - 1, 0.3).pmf(np.arange(n_levels))
        kl = (truth * (np.log(truth + 1e-300) - p[0].double().log().numpy())).sum()
        assert kl < (n_levels / n if n_levels < 256 else 0.3)


def test_properties_marginals_of_levels_seen_once_are_a_kernel_density():
    """Gaussian, with the width of Silverman's rule, beside one row that is uniform."""
    levels = 100 + np.sort(np.random.default_rng(0).permutation(60)[:25])
    q = pixel_marginals(Pixels((1,), n_levels=256), torch.from_numpy(levels)[:, None].double())
    width = 0.9 * levels.std() * len(levels) ** (-1 / 5)
    kernels = stats.norm.pdf(np.arange(256)[:, None], levels, width)
    expected = (kernels.sum(1) + 1 / 256) / (len(levels) + 1)
    np.testing.assert_allclose(
        q.log_probs.exp(), expected, rtol=0.01
    )  # a thousandth is not smoothed


# -- classes --------------------------------------------------------------------------------------


def test_classes_are_given_or_missing(device):
    pixels = Pixels((2,), n_levels=3, n_classes=2)
    model = wild_model(device, pixels, null_class=2)
    rows = torch.tensor([[0.0, 2, 0], [0.0, 2, 1], [0.0, 2, math.nan]], dtype=torch.float64).to(
        device
    )
    given = model.codebook.leading
    assert given.tolist() == [False, False, True]
    schedule = IsotropicSchedule((0.5, 4.0))
    options = {"n_paths": 200, "generator": seeded_generator(0, device), "given": given}
    log_p = path_log_prob(model, rows, schedule, **options).log_prob
    assert (log_p[:, None] - log_p).abs().flatten()[1] > 1e-3  # a class makes a difference
    every = all_rows(model.codebook)
    one = every[every[:, 2] == 1]
    mass, error = total_mass(path_log_prob(model, one, schedule, **{**options, "n_paths": 3000}))
    assert mass == pytest.approx(1, abs=5 * error + 1e-6)
    with pytest.raises(ValueError, match="class must be given or missing"):
        paths_of(model, rows, schedule)
    strict = wild_model(device, pixels)
    with pytest.raises(ValueError, match="needs a class"):
        path_log_prob(strict, rows, schedule, **options)
    path_log_prob(strict, rows[:2], schedule, **options)


def test_a_class_is_informative_without_signal(device):
    """What the network says at the least noise that was measured is what is believed at SNR 0."""
    pixels = Pixels((2,), n_levels=3, n_classes=2)
    model = wild_model(device, pixels, null_class=2)
    rows = torch.tensor([[0.0, 2, 0], [0.0, 2, 1], [0.0, 2, math.nan]], dtype=torch.float64).to(
        device
    )
    book = model.codebook
    start = State.start(book, book.embed(rows), book.leading & ~rows.isnan())
    here, alone = model(*start).mean()[:, :2], model.base(*start).mean()[:, :2]
    assert not torch.allclose(here[0], here[1])
    torch.testing.assert_close(here[2], alone[2])


def test_a_learned_variance_is_ignored():
    """Of twice as many channels the first half is the prediction."""
    X = np.random.default_rng(0).integers(2, size=(20, 1, 2, 2))
    options = {"n_levels": 2, "prediction": "epsilon", "schedule": [0.9, 0.5, 0.1], "n_knots": 2}
    plain = from_callable(lambda z, _: z / 2, X, **options)
    more = from_callable(lambda z, _: torch.cat([z / 2, z**2], 1), X, **options)
    torch.testing.assert_close(more.shrink, plain.shrink)


# -- bad input ------------------------------------------------------------------------------------


def test_states_that_an_image_model_does_not_take(device):
    model = wild_model(device, Pixels((2,), n_levels=3))
    rows = torch.tensor([[0.0, 2]], dtype=torch.float64, device=device)
    with pytest.raises(ValueError, match="one SNR for all pixels"):
        paths_of(model, rows, CoordinateSchedule(2))
    rows[0, 0] = math.nan
    with pytest.raises(ValueError, match="one SNR for all pixels"):
        paths_of(model, rows, IsotropicSchedule((1.0,)))


def test_wrong_networks_and_arguments():
    X = np.zeros((4, 1, 2, 2), dtype=int)
    good = {"prediction": "epsilon", "schedule": [0.9, 0.5, 0.1], "n_levels": 2}
    with pytest.raises(NotImplementedError, match="cannot be saved"):
        wild_model("cpu", Pixels((2,), n_levels=3)).config()
    cases = [
        (lambda z, _: z[:, 0], {}, ValueError, "shape of its input"),
        (lambda z, _: z.tolist(), {}, ValueError, "shape of its input"),
        (3, {}, TypeError, "must be callable"),
        (lambda z, _: z, {"prediction": "noise"}, ValueError, "prediction must be one of"),
        (lambda z, _: z, {"schedule": "linear"}, TypeError, "schedule must be"),
        (lambda z, _: z, {"schedule": [0.1, 0.5]}, ValueError, "decreasing"),
        (lambda z, _: z, {"n_levels": 1}, ValueError, "n_levels"),
        (lambda z, _: z, {"n_levels": 300}, ValueError, "n_levels"),
        (lambda z, _: z, {"value_range": (1.0, 0.0)}, ValueError, "low must be below"),
        (lambda z, _: z, {"shape": (3, 2, 2)}, ValueError, "shape"),
        (lambda z, _: z, {"labels": [0, 1, 2, 3]}, ValueError, "has no classes"),
        (lambda z, _: z, {"n_classes": 2, "labels": [0, 1, 2, 3]}, ValueError, "not a class"),
        (lambda z, _: z, {"n_classes": 2, "labels": [0, 1]}, ValueError, "one per image"),
        (lambda z, *_: z, {"n_classes": 2}, ValueError, "null_class"),
        (lambda z, _: z, {"null_class": 1}, ValueError, "model with classes"),
        (lambda z, *_: z, {"n_classes": 2, "null_class": 5}, ValueError, "from 0 to n_classes = 2"),
        (lambda z, _: z * math.nan, {}, ValueError, "not finite at time"),
        (lambda z, _: z, {"n_levels": 2.0}, TypeError, "n_levels must be an integer"),
        (lambda z, _: z, {"n_levels": None, "shape": (1, 2, 2)}, ValueError, "set n_levels"),
        (lambda z, _: z, {"random_state": None}, TypeError, "random_state"),
        (lambda z, _: z, {"n_knots": 2.5}, TypeError, "n_knots"),
        (lambda z, _: z, {"n_knots": 0}, ValueError, "n_knots"),
    ]
    for f, options, error, match in cases:
        with pytest.raises(error, match=match):
            from_callable(f, X, **{**good, **options})
    for bad, match in (
        (np.full((4, 1, 2, 2), 2), "pixel 0 of image 0 is 2"),
        (np.full((4, 1, 2, 2), 0.5), "not a level"),
        (np.full((4, 1, 2, 2), np.nan), "not finite"),
        (np.zeros((4, 1, 2, 2), dtype=object), "must be numbers"),
        (np.zeros((1, 1, 2, 2)), "at least two images"),
        (np.zeros((0, 1, 2, 2)), "at least two images"),
    ):
        with pytest.raises((ValueError, TypeError), match=match):
            from_callable(lambda z, _: z, bad, **good)


# -- diffusers ------------------------------------------------------------------------------------


def from_diffusers(*args, **options):
    return ImageDensity.from_diffusers(*args, n_steps=1, **options).denoiser


def small_unet(diffusers, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
            block_out_channels=(8, 8), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4, **options,
        ).float()  # fmt: skip


@pytest.fixture
def digits():
    from sklearn.datasets import load_digits

    return load_digits().images[:40].astype(int)


@pytest.mark.usefixtures("dtype")
def test_a_model_from_disk(tmp_path, digits):
    """As a user saves and loads it; the model is left as it was, and is what is asked."""
    diffusers = pytest.importorskip("diffusers")
    small_unet(diffusers).save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "scheduler")
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet").float()
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "scheduler")
    before = copy.deepcopy(unet.state_dict())
    model = from_diffusers(unet, scheduler, digits, n_levels=17, n_knots=3)
    assert all(torch.equal(v, before[k]) for k, v in unet.state_dict().items())
    assert model.prediction == "v_prediction"
    x = model.pixels.encode(digits[:3])
    clean = model.codebook.embed(x).float()
    time, noise = torch.tensor([10, 300, 900]), torch.randn(3, 64, dtype=torch.float32)
    noisy = scheduler.add_noise(clean, noise, time).view(3, 1, 8, 8)
    with torch.no_grad():
        answer = unet(noisy, time).sample.flatten(1)
    alpha = scheduler.alphas_cumprod[time][:, None]
    expected = alpha.sqrt() * noisy.flatten(1) - (1 - alpha).sqrt() * answer
    snr = model.noising.snr(time)[:, None].to(model.mean0)
    z = snr.sqrt() * clean + noise
    guess = model.denoised_mean((z * snr.sqrt()).to(model.mean0), snr).float()
    torch.testing.assert_close(guess, expected.clamp(-1, 1), atol=1e-3, rtol=1e-3)


def test_class_conditional_models_and_floating_types(digits):
    diffusers = pytest.importorskip("diffusers")
    unet = small_unet(diffusers, num_class_embeds=11)
    labels = np.arange(40) % 10
    model = from_diffusers(
        unet, diffusers.DDPMScheduler(), digits, labels=labels, n_levels=17, null_class=10,
        n_knots=2,
    )  # fmt: skip
    assert model.pixels.n_classes == 10
    x = model.pixels.encode(digits[:2], labels[:2])
    y, snr, classes, _ = model.noisy(x, torch.full((2, 1), 3.0), _noise(x))
    assert model.denoised_mean(y, snr, classes).dtype == y.dtype


def _noise(x):
    from discrete_itd.channel.noise import RowNoise

    return RowNoise(x, torch.zeros(len(x), dtype=torch.int64), 0)


def test_unsupported_diffusers_models(digits):
    diffusers = pytest.importorskip("diffusers")
    unet = small_unet(diffusers)
    ddpm = diffusers.DDPMScheduler()
    with pytest.raises(TypeError, match="alphas_cumprod"):
        from_diffusers(unet, diffusers.FlowMatchEulerDiscreteScheduler(), digits, n_levels=17)
    with pytest.raises(TypeError, match="from_callable"):
        from_diffusers(nn.Linear(2, 2), ddpm, digits, n_levels=17)
    with pytest.raises(ValueError, match="null_class"):
        from_diffusers(unet, ddpm, digits, n_levels=17, null_class=3)
    with pytest.raises(ValueError, match="shape"):
        from_diffusers(unet, ddpm, digits[:, :4], n_levels=17)
