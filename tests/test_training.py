"""What training does, and what it leaves alone."""

import math
import time

import numpy as np
import pytest
import torch
from laws import line, simplex

from discrete_itd.codebook import Codebook
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, NeuralDenoiser
from discrete_itd.patterns import Evaluator, Patterns, pilot_quadrature
from discrete_itd.training import TrainingPlan, seeded, train


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


# -- the loop --------------------------------------------------------------------------------------


def test_training_lowers_held_out_nats(device):
    rows, held_out = correlated_rows(2000, 0, device), correlated_rows(1000, 1, device)
    net = make_network(rows)
    before = -net.base.log_prob(held_out).mean().item()
    calls = []
    report = train(
        net,
        rows,
        held_out,
        short_plan(max_steps=300),
        generator=seeded_generator(0, device),
        progress=lambda share, line: calls.append((share, line)),
    )
    valid = [line.valid_nats for line in report.history]
    assert report.history[0].step == 0
    assert valid[0] == pytest.approx(before, abs=4 * report.history[0].valid_stderr)
    assert min(valid) < valid[0] - 0.5
    assert [line for _, line in calls] == report.history
    shares = [share for share, _ in calls]
    assert shares == sorted(shares)
    assert not net.training
    # what is kept is what validated best: the same patterns on other rows agree
    q = pilot_quadrature(net, rows, seeded_generator(0, device))
    check = Evaluator(Patterns(q, (0.5, 0.5, 0.0)), held_out, seed=5)
    nats, stderr = check(net)
    assert nats == pytest.approx(min(valid), abs=5 * stderr)


def test_same_seed_same_weights_and_untouched_globals(device):
    rows, held_out = correlated_rows(400, 0, device), correlated_rows(100, 1, device)

    def run(seed):
        net = make_network(rows, seed, dropout=0.2)
        with seeded(seed, device):
            plan = short_plan(max_steps=20)
            report = train(net, rows, held_out, plan, generator=seeded_generator(seed, device))
        return weights(net), [line.valid_nats for line in report.history]

    torch.manual_seed(12)
    np_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = run(1)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], np_before)
    torch.rand(5)  # the global state does not matter
    again, other = run(1), run(2)
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], other[0])


def test_seeded_restores_the_state_even_after_an_error(device):
    torch.manual_seed(3)
    before = torch.get_rng_state()

    def fail():
        with seeded(1, device):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_training_that_cannot_help_returns_the_start(device):
    """Held-out rows of which every gain on the training rows is a loss."""
    rows, held_out = correlated_rows(500, 0, device), correlated_rows(200, 1, device)
    held_out = held_out.clone()
    held_out[:, 1] = (held_out[:, 0] + 1) % 3
    net = make_network(rows)
    start = weights(net)
    plan = short_plan(max_steps=400, patience=3, n_evaluations=40, learning_rate=5.0, ema=0.1)
    report = train(net, rows, held_out, plan, generator=seeded_generator(0, device))
    valid = [line.valid_nats for line in report.history]
    assert min(valid) == valid[0]
    assert report.stopped == "no improvement"
    assert report.history[-1].step < 400
    assert torch.equal(weights(net), start)


class Slow(Denoiser):
    """A network that takes its time."""

    def __init__(self, inner):
        super().__init__(inner.codebook)
        self.inner = inner

    def forward(self, y, snr):
        time.sleep(0.002)
        return self.inner(y, snr)


def test_bounds_on_time_and_steps_are_kept(device):
    rows, held_out = correlated_rows(200, 0, device), correlated_rows(50, 1, device)
    kwargs = {"n_evaluations": 4, "batch_size": 64}
    slow = Slow(make_network(rows))
    start = time.perf_counter()
    plan = short_plan(max_steps=10**6, max_time=1.0, **kwargs)
    report = train(slow, rows, held_out, plan, generator=seeded_generator(0, device))
    assert 0.9 < time.perf_counter() - start < 20
    assert report.stopped in ("max_time", "no improvement")
    assert report.history[-1].step < 1000
    seconds = [line.seconds for line in report.history]
    assert seconds == sorted(seconds)
    plan = short_plan(max_steps=7, max_time=1e6, **kwargs)
    report = train(make_network(rows), rows, held_out, plan, generator=seeded_generator(0, device))
    assert report.stopped == "max_steps"
    assert report.history[-1].step == 7
    assert len(report.history) <= 6


def test_few_rows_and_large_batches(device, generator):
    rows = correlated_rows(5, 0, device)
    plan = short_plan(max_steps=4, batch_size=64)
    report = train(make_network(rows), rows, rows[:1], plan, generator=generator)
    assert math.isfinite(report.history[-1].valid_nats)
    assert math.isnan(report.history[-1].valid_stderr)


def test_a_table_of_constants_trains_to_nothing(device, generator):
    rows = torch.zeros(20, 2, dtype=torch.int64, device=device)
    book = Codebook([simplex(1), line(0.3)]).to(device)
    net = NeuralDenoiser(MarginalDenoiser.from_counts(book, rows), width=8, depth=1).to(device)
    report = train(net, rows, rows, short_plan(max_steps=3), generator=generator)
    assert report.history[-1].valid_nats == 0
