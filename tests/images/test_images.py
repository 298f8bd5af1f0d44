"""Existing models on pictures, as their owners would use them."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from discrete_itd.images import ImageDensity
from discrete_itd.images.adapters import VariancePreserving
from discrete_itd.images.comparison import compare_mse, progress_of_training
from discrete_itd.images.pixels import Pixels
from discrete_itd.reporting.learning_curve import extrapolate
from tests.benchmarks.images import released

SCHEDULE = VariancePreserving.linear(200, 5e-4, 0.1)
OPTIONS = {"n_levels": 4, "prediction": "epsilon", "schedule": SCHEDULE, "n_knots": 8}


def pictures(n, seed=0):
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
        X, kind = pictures(2000)
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
    X, _ = pictures(400, seed=1)
    try:
        yield {n: ImageDensity.from_callable(trained(n), X, **OPTIONS) for n in (60, 600)}
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def test_pictures():
    return pictures(150, seed=2)[0]


def mean(estimate):
    return float(estimate.log_prob.mean())


@pytest.mark.usefixtures("dtype")
def test_scores(models, test_pictures):
    """Path and integral agree, are better than the variational bound and than independent pixels."""
    model = models[600]
    path, integral = model.log_prob(test_pictures, n_paths=8), model.integral(test_pictures)
    bound = model.variational_bound(test_pictures)
    base = model.denoiser.base
    independent = float(base.log_prob(model.encode(test_pictures)).mean())
    errors = [e.stderr.square().sum().sqrt() / len(test_pictures) for e in (path, integral)]
    assert abs(mean(path) - mean(integral)) < 4 * math.hypot(*errors) + 0.15
    assert mean(path) > independent + 0.3
    assert mean(path) > mean(bound)
    bits, error = model.bits_per_dim(path)
    assert bits == pytest.approx(-mean(path) / math.log(2) / 4)
    assert 0 < error < bits
    again = model.log_prob(test_pictures[5:7], n_paths=8)
    torch.testing.assert_close(again.log_prob, path.log_prob[5:7])  # a row's score is its own


@pytest.mark.usefixtures("dtype")
def test_the_procedure_released_with_the_paper(models, test_pictures):
    """The same code length, by a naive integral with unstratified points and no tails."""
    model, pictures = models[600], test_pictures[:40]
    x = model.encode(pictures)
    points = model.denoiser.codebook.embed(x)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.T)).clamp_min(1e-3)
    f = released(model.denoiser, x, eigenvalues, 1500, torch.Generator().manual_seed(0))
    theirs, ours = f.mean(0), -model.integral(pictures, n_points=512).log_prob
    error = math.hypot(float(f.mean(1).std()) / math.sqrt(1500), 0.05)
    assert float(theirs.mean()) == pytest.approx(float(ours.mean()), abs=4 * error)


@pytest.mark.usefixtures("dtype")
def test_samples_are_pictures(models):
    drawn = models[600].sample(300, random_state=0)
    np.testing.assert_array_equal(drawn, models[600].sample(300, random_state=0))
    assert (models[600].sample(20) != models[600].sample(20)).any()
    assert drawn.shape == (300, 1, 2, 2)
    assert drawn.dtype == np.uint8
    assert drawn.max() == 3
    flat = drawn.reshape(300, 4).astype(int)
    assert np.corrcoef(flat[:, 0], flat[:, 1])[0, 1] > 0.6
    assert np.corrcoef(flat[:, 0], flat[:, 3])[0, 1] < -0.6
    for n, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="n_samples"):
            models[600].sample(n)


@pytest.mark.usefixtures("dtype")
def test_tuning(models, test_pictures, tmp_path):
    """Held-out nats fall, the original is untouched, and a run that was ended is gone on with."""
    model, (X, _) = models[60], pictures(1200)
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    tuned = model.fine_tune(X, max_steps=150, learning_rate=2e-3, checkpoint=tmp_path / "run")
    assert all(torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())
    gain = tuned.integral(test_pictures).log_prob - model.integral(test_pictures).log_prob
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))
    nats = tuned.history.valid_nats
    assert nats.min() < nats.iloc[0]
    again = model.fine_tune(X, max_steps=150, learning_rate=2e-3, checkpoint=tmp_path / "run")
    torch.testing.assert_close(
        again.integral(test_pictures).log_prob, tuned.integral(test_pictures).log_prob
    )
    frozen = copy.deepcopy(model)
    frozen.denoiser.requires_grad_(False)  # as models are that are only used
    assert frozen.fine_tune(X, max_steps=1).history.step.max() == 1
    shown = model.fine_tune(X[:300], held_out=test_pictures, max_steps=1)
    expected = model.fine_tune(X[:300], max_steps=1).history.valid_nats.iloc[0]
    assert shown.history.valid_nats.iloc[0] != expected  # by the pictures that are given
    with pytest.raises(ValueError, match="another run"):
        model.fine_tune(X, max_steps=151, checkpoint=tmp_path / "run")


@pytest.mark.usefixtures("dtype")
def test_ensembles(models, test_pictures):
    """Never worse by much than the best member, and worth what the table says."""
    members = [models[60], models[600]]
    X, _ = pictures(400, seed=3)
    ensemble = ImageDensity.ensemble(members, X)
    nats = [-mean(m.log_prob(test_pictures, n_paths=8)) for m in (*members, ensemble)]
    assert nats[2] < min(nats[:2]) + 0.05
    table = ensemble.marginal_value(X)
    assert list(table.columns) == ["alone", "gain", "stderr", "weight", "parameters"]
    assert table.alone[1] < table.alone[0]
    assert table.gain[1] > table.gain[0]
    assert table.weight.sum() == pytest.approx(1)
    assert table.alone.to_numpy() == pytest.approx(nats[:2], abs=0.4)
    for question in (ensemble.variational_bound, ensemble.fine_tune):
        with pytest.raises(TypeError, match="members"):
            question(X)
    with pytest.raises(TypeError, match="no ensemble"):
        models[60].marginal_value(X)
    with pytest.raises(ValueError, match="at least one"):
        ImageDensity.ensemble([], X)
    with pytest.raises(ValueError, match="isotropic"):
        ensemble.denoiser.marginal_value(ensemble.encode(X), generator=torch.Generator())


@pytest.mark.usefixtures("dtype")
def test_curves(models, test_pictures):
    """The area between two curves is their difference in nats."""
    table = compare_mse({"better": models[600], "worse": models[60]}, test_pictures)
    assert (table.lost_better == 0).all()
    assert table.logsnr.is_monotonic_increasing
    area = table.lost_worse.sum()
    integrals = [-mean(models[n].integral(test_pictures)) for n in (60, 600)]
    assert area == pytest.approx(integrals[0] - integrals[1], abs=0.15 + 0.2 * abs(area))
    assert area > 0
    other = ImageDensity.from_callable(
        trained(1), test_pictures, **OPTIONS, value_range=(0.0, 1.0), n_steps=5, random_state=3
    )
    assert (other.n_steps, other.random_state) == (5, 3)
    for wrong, options, match in (
        ({}, {}, "no model"),
        ({"logsnr": models[60]}, {}, "axis"),
        ({"a": models[60]}, {"n_points": 1}, "n_points"),
        ({"a": models[60], "b": other}, {}, "'b'"),
    ):
        with pytest.raises(ValueError, match=match):
            compare_mse(wrong, test_pictures, **options)
    with pytest.raises(ValueError, match="two pictures"):
        compare_mse({"a": models[60]}, test_pictures[:1])


@pytest.mark.usefixtures("dtype")
def test_progress_of_training(test_pictures):
    X, _ = pictures(200, seed=1)
    steps = (10, 20, 40, 80, 160)
    saved = ((n, ImageDensity.from_callable(trained(n), X, **OPTIONS)) for n in steps)
    table = progress_of_training(saved, test_pictures[:60], n_points=32)
    assert table.step.tolist() == list(steps)
    assert table.valid_nats.iloc[-1] < table.valid_nats.iloc[0]
    law = extrapolate(table)
    assert law is not None
    assert 0 <= law.low <= law.gain <= law.high


@pytest.mark.usefixtures("dtype")
def test_information_of_a_class():
    """Two equal halves: about log 2 nats of all pixels together, and never less than nothing."""
    X, kind = pictures(300, seed=1)
    net = trained(900, n_classes=3, null_class=2)
    model = ImageDensity.from_callable(net, X, labels=kind, **OPTIONS, n_classes=2, null_class=2)
    X, kind = pictures(120, seed=2)
    told = model.information(X, kind)
    assert told.shape == X.shape
    assert (told >= 0).all()
    assert told.sum((1, 2, 3)).mean() == pytest.approx(math.log(2), abs=0.2)
    with_class = model.log_prob(X, kind)
    without = model.log_prob(X)
    gain = (with_class.log_prob - without.log_prob).mean()
    assert 0.3 < gain < 1.0  # the same, by the difference of two scores
    drawn = model.sample(100, labels=np.ones(100, dtype=int))
    assert drawn[:, 0, 0, 0].mean() > 2
    tuned = model.fine_tune(X, kind, max_steps=3)
    assert len(tuned.history)
    with pytest.raises(ValueError, match="no classes"):
        ImageDensity.from_callable(trained(1), X, **OPTIONS).information(X, kind)


@pytest.mark.usefixtures("dtype")
def test_density_of_continuous_pixels():
    """The integral against two baselines and the path agree on a density."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4)) * 0.3
    X = rng.multivariate_normal(np.zeros(4), a @ a.T + 0.05 * np.eye(4), size=700)
    noising = VariancePreserving.linear()
    inverse = torch.from_numpy(np.linalg.inv(a @ a.T + 0.05 * np.eye(4)))

    def clean(noisy, time):
        snr = noising.snr(time)[:, None]
        y = noisy.double() * (1 + snr).sqrt() * snr.sqrt()
        precision = inverse + snr[:, :, None] * torch.eye(4, dtype=torch.float64)
        return torch.linalg.solve(precision, y).to(noisy)

    model = ImageDensity.from_callable(clean, X[:400], prediction="sample", schedule=noising)
    assert model.pixels == Pixels((4,))
    test = X[400:]
    gaussian = model.gaussian(X[:400])
    independent, correlated = model.integral(test), model.integral(test, baseline=gaussian)
    assert mean(independent) == pytest.approx(mean(correlated), abs=0.05)
    assert correlated.stderr.mean() < independent.stderr.mean()  # a nearer baseline, less noise
    assert mean(model.log_prob(test)) == pytest.approx(mean(correlated), abs=0.1)
    few = model.gaussian(X[:400], rank=1)
    assert mean(model.integral(test, baseline=few)) == pytest.approx(mean(correlated), abs=0.05)
    with pytest.raises(ValueError, match="levels"):
        model.variational_bound(test)
    with pytest.raises(TypeError, match="plain function"):
        model.fine_tune(test)
    assert model.sample(3).shape == (3, 4)


@pytest.mark.usefixtures("dtype")
def test_bad_questions(models, test_pictures):
    model = models[60]
    with pytest.raises(ValueError, match="continuous pixels"):
        model.gaussian(test_pictures)
    with pytest.raises(ValueError, match="n_times"):
        model.variational_bound(test_pictures, n_times=1000)
    with pytest.raises(ValueError, match="variance"):
        model.variational_bound(test_pictures, variance="learned")
    with pytest.raises(ValueError, match="validation_fraction"):
        model.fine_tune(test_pictures, validation_fraction=1.0)
    with pytest.raises(ValueError, match="two held out"):
        model.fine_tune(test_pictures[:3])
    with pytest.raises(ValueError, match="no level"):
        model.log_prob(test_pictures + 1)
    with pytest.raises(TypeError, match="adapted"):
        ImageDensity(model.denoiser.base, test_pictures)
    with pytest.raises(ValueError, match="got none"):
        ImageDensity(model.denoiser, test_pictures[:0])
    for empty in (model.log_prob, model.integral, model.variational_bound):
        assert len(empty(test_pictures[:0]).log_prob) == 0
    assert model.variational_bound(test_pictures[:2], n_times=1).stderr.isnan().all()
    assert isinstance(model.history, pd.DataFrame)


def test_layouts():
    """Pictures come with or without their channel, or flat."""
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
