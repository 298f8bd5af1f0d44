"""What training minimises: losses of SNR patterns, the pilot and the held-out evaluation."""

import math

import numpy as np
import pytest
import torch
from laws import BOOKS, line, make_book, random_oracle, simplex

from discrete_itd.channel import Quadrature
from discrete_itd.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser, NeuralDenoiser
from discrete_itd.patterns import Evaluator, Patterns, pilot_quadrature
from discrete_itd.training import TrainingPlan, seeded


def seeded_generator(seed, device):
    return torch.Generator(device).manual_seed(seed)


def short_plan(**kwargs):
    kwargs = {"max_steps": 150, "batch_size": 128, "learning_rate": 5e-3, "ema": 0.9} | kwargs
    return TrainingPlan(**kwargs)


def correlated_rows(n, seed, device):
    """Two columns that agree nine times in ten, and one that follows their sum."""
    rng = np.random.default_rng(seed)
    a = rng.integers(3, size=n)
    b = np.where(rng.random(n) < 0.9, a, rng.integers(3, size=n))
    c = np.where(rng.random(n) < 0.9, (a + b) % 2, rng.integers(2, size=n))
    return torch.tensor(np.stack([a, b, c], 1), device=device)


def make_network(rows, seed=0, dropout=0.0):
    book = Codebook([simplex(3), line(-1.2, 0.0, 1.2), simplex(2)]).to(rows.device)
    base = MarginalDenoiser.from_counts(book, rows)
    with seeded(seed, rows.device):
        return NeuralDenoiser(base, width=24, depth=1, dropout=dropout).to(rows.device)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.network.parameters()])


# -- the loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BOOKS))
@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.4, 0.6, 0.0)])
def test_losses_of_the_oracle_average_to_the_entropy(device, name, shares):
    book = make_book(name, device)
    oracle = random_oracle(book, np.random.default_rng(0), share=0.8)
    p = oracle.log_probs.double().exp()
    entropy = -(p * p.log()).sum().item()
    low, high = math.log(1e-3), math.log(60 * float(book.known_snr.max()) / 2000)
    wide = Quadrature(torch.tensor([low, high]), torch.ones(1)).to(device)
    pilot = pilot_quadrature(oracle, oracle.support, seeded_generator(0, device))
    means, errors = [], []
    for quadrature in (wide, pilot):
        patterns = Patterns(quadrature, shares)
        g = seeded_generator(1, device)
        pick = torch.multinomial(p, 60000, replacement=True, generator=g)
        x = oracle.support[pick]
        loss = patterns.loss(oracle, x, g).double()
        assert loss.shape == (len(x),)
        means.append(loss.mean().item())
        errors.append(loss.std().item() / math.sqrt(len(x)))
        # left of the quadrature at most γ_low ‖x - x̂_0‖²/2 is missing
        missing = quadrature.low * book.n_columns
        assert means[-1] == pytest.approx(entropy, abs=4 * errors[-1] + shares[0] * missing)
    if shares[0] == 1:
        assert errors[1] < errors[0]  # what the pilot is for
    assert max(errors) < 0.08


def test_hybrid_losses_average_to_the_nats_of_the_rest(device):
    """Every number u of unknown columns equally likely: Σ_u H(u random columns | the others)/(C + 1)."""
    book = make_book("simplex", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    support, p = oracle.support.cpu().numpy(), oracle.log_probs.double().exp().cpu().numpy()

    def entropy(columns):
        _, group = np.unique(support[:, columns], axis=0, return_inverse=True)
        q = np.bincount(group.ravel(), p)
        return -(q * np.log(q)).sum()

    expected = 0.0
    for known in range(8):
        held = [j for j in range(3) if known >> j & 1]
        chance = 1 / (4 * math.comb(3, len(held)))
        expected += chance * (entropy([0, 1, 2]) - (entropy(held) if held else 0.0))
    g = seeded_generator(1, device)
    pick = torch.multinomial(oracle.log_probs.exp(), 60000, replacement=True, generator=g)
    patterns = Patterns(Quadrature.logistic(1.5, 1.0, low=-6, high=5).to(device), (0.0, 0.0, 1.0))
    loss = patterns.loss(oracle, oracle.support[pick], g).double()
    stderr = loss.std().item() / math.sqrt(len(loss))
    assert loss.mean().item() == pytest.approx(expected, abs=4 * stderr + 0.005)
    assert stderr < 0.03


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_batches_of_any_size_have_a_loss(device, generator, n):
    rows = correlated_rows(n, 0, device)
    net = make_network(rows)
    quadrature = Quadrature.logistic(1.0, 1.0, low=-4, high=5).to(device)
    for shares in ((0.25, 0.6, 0.15), (0.5, 0.0, 0.5), (0.0, 0.0, 1.0), (0.5, 0.5, 0.0)):
        loss = Patterns(quadrature, shares).loss(net, rows, generator)
        assert loss.shape == (n,)
        assert loss.isfinite().all()
        assert (loss >= 0).all()


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
    evaluate = Evaluator(Patterns(quadrature, (0.5, 0.5, 0.0)), rows, seed=3)
    nats, stderr = evaluate(net)
    assert evaluate(net) == (nats, stderr)
    truth = -net.base.log_prob(rows).double().mean().item()
    assert nats == pytest.approx(truth, abs=5 * stderr)
    assert 0 < stderr < 0.3
