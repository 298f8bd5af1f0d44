"""Existing models of images, used as their owners would."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from discrete_itd.images import ImageDensity
from discrete_itd.images.layout import Pixels
from tests.benchmarks.images import released
from tests.images.noisings import linear

SCHEDULE = linear(200, 5e-4, 0.1)
OPTIONS = {
    "n_levels": 4,
    "prediction": "epsilon",
    "schedule": SCHEDULE.alphas_cumprod,
    "n_knots": 6,
    "n_steps": 10,
}


def images(n, seed=0):
    """Two pixels that agree but for noise, and two that are their mirror, in four levels; and the class of each."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n)
    first = np.where(kind == 1, rng.integers(2, 4, size=n), rng.integers(0, 2, size=n))
    wobble = (rng.random((n, 2)) < 0.1) * rng.choice([-1, 1], size=(n, 2))
    X = np.stack([first, first + wobble[:, 0], 3 - first + wobble[:, 1], 3 - first], 1)
    return X.clip(0, 3).reshape(n, 1, 2, 2), kind


class Net(nn.Module):
    """A small network of the noise, told the class or not."""

    def __init__(self, n_classes=0):
        super().__init__()
        self.n_classes = n_classes
        self.net = nn.Sequential(
            nn.Linear(4 + 3 + n_classes, 64),
            nn.SiLU(),
            nn.Linear(64, 64),
            nn.SiLU(),
            nn.Linear(64, 4),
        )

    def forward(self, noisy, time, classes=None):
        at = (time[:, None] / 200).to(noisy)
        parts = [noisy.flatten(1), at, (5 * at).sin(), (5 * at).cos()]
        if self.n_classes:
            parts.append(nn.functional.one_hot(classes, self.n_classes).to(noisy))
        return self.net(torch.cat(parts, 1)).view_as(noisy)


def trained(n_steps, n_classes=0, seed=0, null_class=None):
    """Trained as denoising diffusion models are, by the error of the noise at a random time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net(n_classes)
        X, kind = images(2000)
        clean = torch.from_numpy(X / 1.5 - 1).to(torch.get_default_dtype())
        kind = torch.from_numpy(kind)
        optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
        alphas = SCHEDULE.alphas_cumprod.to(clean)
        for _ in range(n_steps):
            pick, time = torch.randint(len(X), (128,)), torch.randint(200, (128,))
            noise, alpha = torch.randn(128, 1, 2, 2), alphas[time][:, None, None, None]
            classes = kind[pick]
            if null_class is not None:
                classes = classes.where(torch.rand(128) < 0.7, null_class)
            answer = net(alpha.sqrt() * clean[pick] + (1 - alpha).sqrt() * noise, time, classes)
            loss = (answer - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


@pytest.fixture(scope="module")
def models():
    """One hardly trained and one better, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    X, _ = images(250, seed=1)
    try:
        yield {n: ImageDensity.from_callable(trained(n), X, **OPTIONS) for n in (60, 400)}
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def held_out():
    return images(150, seed=2)[0]


def mean(estimate):
    return float(estimate.log_prob.mean())


@pytest.mark.usefixtures("dtype")
def test_scores(models, held_out):
    """Path and integral agree, and are better than independent pixels."""
    model = models[400]
    path, integral = model.log_prob(held_out, n_paths=4), model.integral(held_out, n_points=64)
    base = model.denoiser.base
    independent = float(base.log_prob(model.encode(held_out)).mean())
    errors = [np.sqrt((e.stderr**2).sum()) / len(held_out) for e in (path, integral)]
    assert abs(mean(path) - mean(integral)) < 4 * math.hypot(*errors) + 0.15
    assert mean(path) > independent + 0.3
    bits, error = model.bits_per_dim(path)
    assert bits == pytest.approx(-mean(path) / math.log(2) / 4)
    assert 0 < error < bits
    again = model.log_prob(held_out[5:7], n_paths=4)
    np.testing.assert_allclose(again.log_prob, path.log_prob[5:7])  # a row's score is its own


@pytest.mark.slow
@pytest.mark.usefixtures("dtype")
def test_the_procedure_released_with_the_paper(models, held_out):
    """The same code length, by a naive integral with unstratified points and no tails."""
    model, rows = models[400], held_out[:40]
    x = model.encode(rows)
    points = model.denoiser.codebook.embed(x)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.T)).clamp_min(1e-3)
    f = released(model.denoiser, x, eigenvalues, 1500, torch.Generator().manual_seed(0))
    theirs, ours = f.mean(0), -model.integral(rows, n_points=512).log_prob
    error = math.hypot(float(f.mean(1).std()) / math.sqrt(1500), 0.05)
    assert float(theirs.mean()) == pytest.approx(float(ours.mean()), abs=4 * error)


@pytest.mark.usefixtures("dtype")
def test_samples_are_images(models):
    drawn = models[400].sample(200, random_state=0)
    np.testing.assert_array_equal(drawn, models[400].sample(200, random_state=0))
    assert (models[400].sample(20) != models[400].sample(20)).any()
    assert drawn.shape == (200, 1, 2, 2)
    assert drawn.dtype == np.uint8
    assert drawn.max() == 3
    flat = drawn.reshape(200, 4).astype(int)
    assert np.corrcoef(flat[:, 0], flat[:, 1])[0, 1] > 0.6
    assert np.corrcoef(flat[:, 0], flat[:, 3])[0, 1] < -0.6
    for n, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="n_samples"):
            models[400].sample(n)


@pytest.mark.slow
@pytest.mark.usefixtures("dtype")
def test_tuning(models, held_out):
    """Held-out nats fall, and the original is unchanged."""
    model, (X, _) = models[60], images(300)
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    tuned = model.fine_tune(X, max_steps=40, learning_rate=3e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())
    gain = tuned.integral(held_out).log_prob - model.integral(held_out).log_prob
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))
    nats = tuned.history.valid_nats
    assert nats.min() < nats.iloc[0]
    frozen = copy.deepcopy(model)
    frozen.denoiser.requires_grad_(False)  # as models are that are only used
    own, given = (
        frozen.fine_tune(X[:60], held_out=held, max_steps=1).history for held in (None, X[60:80])
    )
    assert own.step.max() == 1
    assert given.valid_nats.iloc[0] != own.valid_nats.iloc[0]


@pytest.mark.usefixtures("dtype")
def test_ensembles(models, held_out):
    """Never worse by much than the best member."""
    members = [models[60], models[400]]
    X, _ = images(200, seed=3)
    ensemble = ImageDensity.ensemble(members, X)
    nats = [-mean(m.log_prob(held_out, n_paths=4)) for m in (*members, ensemble)]
    assert nats[2] < min(nats[:2]) + 0.05
    with pytest.raises(TypeError, match="members"):
        ensemble.fine_tune(X)
    with pytest.raises(ValueError, match="at least one"):
        ImageDensity.ensemble([], X)


@pytest.mark.usefixtures("dtype")
@pytest.mark.slow
def test_a_class_is_worth_its_entropy():
    """Two equal halves: about log 2 nats of all pixels together."""
    X, kind = images(300, seed=1)
    net = trained(600, n_classes=3, null_class=2)
    model = ImageDensity.from_callable(net, X, labels=kind, **OPTIONS, n_classes=2, null_class=2)
    X, kind = images(120, seed=2)
    with_class = model.log_prob(X, kind)
    without = model.log_prob(X)
    gain = (with_class.log_prob - without.log_prob).mean()
    assert 0.3 < gain < 1.0
    drawn = model.sample(100, labels=np.ones(100, dtype=int))
    assert drawn[:, 0, 0, 0].mean() > 2
    tuned = model.fine_tune(X[:50], kind[:50], max_steps=3)
    assert len(tuned.history)


@pytest.mark.slow
@pytest.mark.usefixtures("dtype")
def test_density_of_continuous_pixels():
    """Integral and path agree on a density, and with the truth."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4)) * 0.3
    X = rng.multivariate_normal(np.zeros(4), a @ a.T + 0.05 * np.eye(4), size=400)
    noising = linear()
    inverse = torch.from_numpy(np.linalg.inv(a @ a.T + 0.05 * np.eye(4)))

    def clean(noisy, time):
        snr = noising.snr(time)[:, None]
        y = noisy.double() * (1 + snr).sqrt() * snr.sqrt()
        precision = inverse + snr[:, :, None] * torch.eye(4, dtype=torch.float64)
        return torch.linalg.solve(precision, y).to(noisy)

    model = ImageDensity.from_callable(
        clean, X[:250], prediction="sample", schedule=noising.alphas_cumprod
    )
    assert model.pixels == Pixels((4,))
    test = X[250:]
    truth = stats.multivariate_normal(np.zeros(4), a @ a.T + 0.05 * np.eye(4)).logpdf(test).mean()
    assert mean(model.integral(test)) == pytest.approx(truth, abs=0.1)
    assert mean(model.log_prob(test)) == pytest.approx(truth, abs=0.1)
    with pytest.raises(TypeError, match="plain function"):
        model.fine_tune(test)
    assert model.sample(3).shape == (3, 4)


@pytest.mark.usefixtures("dtype")
def test_invalid_arguments(models, held_out):
    model = models[60]
    with pytest.raises(ValueError, match="two for validation"):
        model.fine_tune(held_out[:3])
    with pytest.raises(ValueError, match="not a level"):
        model.log_prob(held_out + 1)
    with pytest.raises(TypeError, match="AdaptedDenoiser"):
        ImageDensity(model.denoiser.base, held_out)
    with pytest.raises(ValueError, match="got none"):
        ImageDensity(model.denoiser, held_out[:0])
    for empty in (model.log_prob, model.integral):
        assert len(empty(held_out[:0]).log_prob) == 0
    assert isinstance(model.history, pd.DataFrame)


def test_layouts():
    """Images with or without their channel, or flat."""
    X = np.arange(8).reshape(2, 2, 2) % 4
    pixels = Pixels((1, 2, 2), n_levels=4)
    rows = pixels.encode(X)
    for same in (X[:, None], X.reshape(2, 4), torch.from_numpy(X), X.astype(np.uint8)):
        assert torch.equal(pixels.encode(same), rows)
    np.testing.assert_array_equal(pixels.decode(rows), X[:, None])
    with pytest.raises(ValueError, match="shape must be positive"):
        Pixels((0, 2))
    with pytest.raises(ValueError, match="n_classes"):
        Pixels((2,), n_classes=-1)
