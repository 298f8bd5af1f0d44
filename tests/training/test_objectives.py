"""What training minimises: losses of SNR patterns, the pilot and the held-out evaluation."""

import math

import numpy as np
import pytest
import torch
from laws import (
    BOOKS,
    WIDER_BOOKS,
    WITH_REALS,
    correlated_rows,
    line,
    logistic,
    make_book,
    mixture_draws,
    random_mixture,
    random_network,
    random_oracle,
    random_rows,
    seeded_generator,
    simplex,
)

from discrete_itd.channel import Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, NeuralDenoiser
from discrete_itd.training import Evaluator, TrainingLoss, mean_and_error, pilot_quadrature

pytestmark = pytest.mark.usefixtures("full_size")


def make_network(rows):
    book = Codebook([simplex(3), line(-1.2, 0.0, 1.2), simplex(2)]).to(rows.device)
    return (
        NeuralDenoiser(MarginalDenoiser.fit(book, rows), width=24, depth=1).to(rows.device).eval()
    )


# -- the loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BOOKS))
@pytest.mark.parametrize("share", [1.0, 0.0, 0.4])
def test_losses_of_the_oracle_average_to_the_entropy(device, name, share):
    book = make_book(name, device)
    oracle = random_oracle(book, np.random.default_rng(0), share=0.8)
    p = oracle.log_probs.double().exp()
    entropy = -(p * p.log()).sum().item()
    low, high = math.log(1e-3), math.log(60 * float(book.known_snr.max()) / 2000)
    wide = Quadrature(torch.tensor([low, high]), torch.ones(1)).to(device)
    pilot = pilot_quadrature(oracle, oracle.support, seeded_generator(0, device))
    means, errors = [], []
    for quadrature in (wide, pilot):
        patterns = TrainingLoss(quadrature, share)
        g = seeded_generator(1, device)
        pick = torch.multinomial(p, 60000, replacement=True, generator=g)
        x = oracle.support[pick]
        loss = patterns.nats(oracle, x, g).double()
        assert loss.shape == (len(x),)
        means.append(loss.mean().item())
        errors.append(loss.std().item() / math.sqrt(len(x)))
        # left of the quadrature at most γ_low ‖x - x̂_0‖²/2 is missing
        missing = quadrature.low * book.n_columns
        assert means[-1] == pytest.approx(entropy, abs=4 * errors[-1] + share * missing)
    if share == 1:
        assert errors[1] < errors[0]  # what the pilot is for
    assert max(errors) < 0.08


SHARES = {"isotropic": 1.0, "masked": 0.0}


def excess(patterns, denoiser, rows, truth, device):
    """By how much the loss is above the truth on average, and the standard error."""
    loss = patterns.nats(denoiser, rows, seeded_generator(1, device)).double()
    difference = loss - truth
    return difference.mean().item(), difference.std().item() / math.sqrt(len(rows))


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("name", ["one real", "only reals", "reals and levels"])
def test_masked_losses_of_the_mixture_oracle_average_to_the_entropy(device, name, missing):
    """Of the observed cells."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 8000, rng)
    rows[torch.tensor(rng.random(rows.shape) < missing, device=device)] = math.nan
    truth = -oracle.log_prob(rows).double()
    pilot = pilot_quadrature(oracle, rows[:1000], seeded_generator(0, device))
    patterns = TrainingLoss(pilot, SHARES["masked"])
    mean, stderr = excess(patterns, oracle, rows, truth, device)
    assert abs(mean) < 4 * stderr < 0.8


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    ("pattern", "name", "leading"),
    [("masked", "reals and levels", [3, 0]), ("isotropic", "mixed", [2, 0])],
)
def test_leading_columns_come_first(device, pattern, name, leading, missing):
    """Masked rows: -log P of all; isotropic ones: of the others given these."""
    book = Codebook(make_book(name, "cpu").columns, leading=leading).to(device)
    rng = np.random.default_rng(0)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 8000, rng)
    rows[torch.tensor(rng.random(rows.shape) < missing, device=device)] = math.nan
    truth = -oracle.log_prob(rows).double()
    if pattern == "isotropic":
        truth = truth + oracle.log_prob(rows.masked_fill(~book.leading, math.nan)).double()
    pilot = pilot_quadrature(oracle, rows[:1000], seeded_generator(0, device))
    mean, stderr = excess(TrainingLoss(pilot, SHARES[pattern]), oracle, rows, truth, device)
    below = pilot.low * len(book.finite) if pattern == "isotropic" else 0.0
    assert -below - 4 * stderr < mean < 4 * stderr
    assert stderr < (0.05 if pattern != "masked" else 0.2)


@pytest.mark.parametrize("leading", [(), (1, 4)])
@pytest.mark.parametrize("pattern", sorted(SHARES))
def test_no_pattern_shows_a_missing_cell(device, pattern, leading):
    """Nor does one leave a cell blurred that it takes for known."""
    book = Codebook(make_book("all kinds", "cpu").columns, leading=leading).to(device)
    net, states = random_network(book, 0), []

    class Watching(Denoiser):
        def forward(self, y, snr):
            states.append((y, snr))
            return net(y, snr)

    for i in range(30):  # one row, so that all states are this row's
        rows = random_rows(book, 1, np.random.default_rng(i), missing=0.5)
        quadrature = logistic(1.0, 1.0, low=-4, high=5).to(device)
        states.clear()
        TrainingLoss(quadrature, SHARES[pattern]).nats(
            Watching(book), rows, seeded_generator(i, device)
        )
        assert states
        for y, snr in states:
            gone = rows.isnan().expand(snr.shape)
            assert not snr[gone].any()
            assert not y[book.per_coord(gone)].any()
            known = book.per_coord(torch.isinf(snr))
            assert torch.equal(y[known], book.embed(rows).expand(y.shape)[known])


@pytest.mark.parametrize("pattern", sorted(SHARES))
@pytest.mark.parametrize("name", ["open", *WIDER_BOOKS])
def test_gradients_are_those_of_finite_differences(device, name, pattern):
    """On the same noise: no part of the loss is held fixed by mistake."""
    torch.set_default_dtype(torch.float64)
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.2).requires_grad_(True)
    net.base.requires_grad_(False)
    rows = random_rows(book, 40, np.random.default_rng(0), missing=0.2)
    quadrature = logistic(1.0, 1.0, low=-4, high=5).to(device)
    patterns = TrainingLoss(quadrature, SHARES[pattern])

    def loss():
        return patterns.nats(net, rows, seeded_generator(1, device)).mean()

    weights = [p for p in net.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss(), weights)
    direction = [torch.randn(p.shape, generator=seeded_generator(2, device)) for p in weights]
    slope = sum(float((g * d.to(g)).sum()) for g, d in zip(grads, direction, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for p, d in zip(weights, direction, strict=True):
                p.add_(step * d.to(p))
            values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("pattern", sorted(SHARES))
def test_the_loss_of_a_real_column_knows_the_width_of_its_posterior(device, pattern):
    """The squared error at one SNR hardly does: the true width costs least."""
    book = make_book("only reals", device)
    noise = seeded_generator(0, device)
    rows = 0.5 * torch.randn(10000, 2, generator=noise, device=device).double()
    quadrature = Quadrature(torch.tensor([0.1, 1000.0]).log(), torch.ones(1)).to(device)
    patterns = TrainingLoss(quadrature, SHARES[pattern])

    def normal(var):
        mixture = torch.tensor([0.0, 0.0, var], device=device)[:, None, None].expand(3, 2, 1)
        return MarginalDenoiser(book, torch.ones(0, device=device), mixture)

    losses = {}
    for var in (0.1, 0.25, 0.6):
        losses[var] = patterns.nats(normal(var), rows, seeded_generator(1, device)).double()
    for var in (0.1, 0.6):
        more = losses[var] - losses[0.25]
        assert more.mean() > 4 * more.std() / math.sqrt(len(more))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("name", sorted(WIDER_BOOKS))
def test_batches_of_tables_of_any_kind_have_a_loss(device, generator, name, n):
    """With absurd values, and rows of nothing but gaps, which cost nothing."""
    book = make_book(name, device)
    net = random_network(book, 0)
    rows = random_rows(book, n, np.random.default_rng(0), missing=0.3)
    quadrature = logistic(1.0, 1.0, low=-4, high=5).to(device)
    everything = torch.full_like(rows, math.nan)
    for share in (0.25, 1.0, 0.0):
        patterns = TrainingLoss(quadrature, share)
        assert patterns.nats(net, rows, generator).shape == (n,)
        assert patterns.nats(net, rows, generator).isfinite().all()
        if n:
            assert patterns.nats(net, everything, generator).abs().max() < 1e-4
        absurd = rows.clone()
        absurd[:, book.reals] = 1e6
        assert patterns.nats(net, absurd, generator).isfinite().all()


@pytest.mark.parametrize(
    "name",
    [
        "all kinds",
        *(pytest.param(n, marks=pytest.mark.slow) for n in WIDER_BOOKS if n != "all kinds"),
    ],
)
def test_the_pilot_of_any_table_is_a_range(device, generator, name):
    book = make_book(name, device)
    net = random_network(book, 0)
    for missing in (0.0, 0.5, 1.0):
        rows = random_rows(book, 50, np.random.default_rng(0), missing=missing)
        quadrature = pilot_quadrature(net, rows, generator)
        assert 0 < quadrature.low < quadrature.high < math.inf
        if missing < 1 and name in WITH_REALS:
            assert quadrature.low < 0.3
            assert quadrature.high > 500


def test_pilot_covers_the_information(device, generator):
    for name in BOOKS:
        book = make_book(name, device)
        oracle = random_oracle(book, np.random.default_rng(0))
        quadrature = pilot_quadrature(oracle, oracle.support, generator)
        assert quadrature.low < 0.05
        start = oracle(
            torch.zeros(1, book.n_coords, device=device),
            torch.zeros(1, book.n_columns, device=device),
        )
        x = book.embed(oracle.support)
        snr = torch.full((len(x), book.n_columns), quadrature.high, device=device)
        left = (x - oracle(book.per_coord(snr) * x, snr).mean()).square().sum(1)
        assert left.max() < 1e-3 * (x - start.mean()).square().sum(1).max()


def test_evaluations_compare(device, generator):
    rows = correlated_rows(300, 0, device)
    net = make_network(rows)
    quadrature = pilot_quadrature(net, rows, generator)
    evaluate = Evaluator(TrainingLoss(quadrature, 0.5), rows, seed=3)
    nats, stderr = mean_and_error(evaluate(net))
    assert mean_and_error(evaluate(net)) == (nats, stderr)
    truth = -net.base.log_prob(rows).double().mean().item()
    assert nats == pytest.approx(truth, abs=5 * stderr)
    assert 0 < stderr < 0.3
