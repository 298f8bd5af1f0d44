"""What training does, and what it leaves alone."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW, correlated_rows, line, seeded_generator, simplex
from torch import nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, NeuralDenoiser
from discrete_itd.progress import deferred_interrupts
from discrete_itd.training import (
    Evaluator,
    TrainingLoss,
    TrainingPlan,
    mean_and_error,
    pilot_quadrature,
    train,
)
from discrete_itd.training.loop import (
    EARLY_EVALUATIONS,
    Average,
    Optimizer,
    Run,
)


def short_plan(**kwargs):
    kwargs = {"max_steps": 150, "batch_size": 128, "learning_rate": 5e-3, "ema": 0.9} | kwargs
    return TrainingPlan(**kwargs)


def make_network(rows, seed=0, dropout=0.0, width=24):
    book = Codebook([simplex(3), line(-1.2, 0.0, 1.2), simplex(2)]).to(rows.device)
    base = MarginalDenoiser.fit(book, rows)
    sizes = {"width": width, "depth": 1, "dropout": dropout}
    return NeuralDenoiser(base, **sizes, generator=seeded_generator(seed, "cpu")).to(rows.device)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.network.parameters()])


# -- the loop --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("full_size")
def test_training_lowers_held_out_nats(device):
    rows, held_out = correlated_rows(1000, 0, device), correlated_rows(500, 1, device)
    net = make_network(rows)
    before = -net.base.log_prob(held_out).mean().item()
    calls = []
    report = train(
        net,
        rows,
        held_out,
        short_plan(),
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
    check = Evaluator(TrainingLoss(q, 0.5), held_out, seed=5)
    nats, stderr = mean_and_error(check(net))
    assert nats == pytest.approx(min(valid), abs=5 * stderr)


def test_same_seed_same_weights_and_untouched_globals(device):
    rows, held_out = correlated_rows(400, 0, device), correlated_rows(100, 1, device)

    def run(seed):
        net = make_network(rows, seed, dropout=0.2)
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


@pytest.mark.usefixtures("full_size")
def test_training_that_cannot_help_returns_the_start(device):
    """Held-out rows of which every gain on the training rows is a loss."""
    rows, held_out = correlated_rows(500, 0, device), correlated_rows(200, 1, device)
    held_out = held_out.clone()
    held_out[:, 1] = (held_out[:, 0] + 1) % 3
    net = make_network(rows)
    start = weights(net)
    plan = short_plan(max_steps=200, patience=3, n_validations=20, learning_rate=5.0, ema=0.1)
    report = train(net, rows, held_out, plan, generator=seeded_generator(0, device))
    valid = [line.valid_nats for line in report.history]
    assert min(valid) == valid[0]
    assert report.stopped == "no improvement"
    assert report.history[-1].step < 200
    assert torch.equal(weights(net), start)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def sleep(self, seconds):
        self.now += seconds


class Slow(Denoiser):
    """A network whose calls take 5 ms on a clock."""

    def __init__(self, inner, clock):
        super().__init__(inner.codebook)
        self.inner, self.clock = inner, clock

    def forward(self, y, snr):
        self.clock.sleep(0.005)
        return self.inner(y, snr)


def test_bounds_on_time_and_steps_are_kept(device, monkeypatch):
    rows, held_out = correlated_rows(200, 0, device), correlated_rows(50, 1, device)
    kwargs = {"n_validations": 4, "batch_size": 64}
    clock = Clock(monkeypatch)
    slow = Slow(make_network(rows), clock)
    plan = short_plan(max_steps=10**6, max_time=1.0, patience=10**6, **kwargs)
    report = train(slow, rows, held_out, plan, generator=seeded_generator(0, device))
    assert report.stopped == "max_time"
    assert 0.9 < report.history[-1].seconds == clock.now < 1.1
    seconds = [line.seconds for line in report.history]
    assert seconds == sorted(seconds)
    plan = short_plan(max_steps=7, max_time=1e6, **kwargs)
    slow = Slow(make_network(rows), clock)
    report = train(slow, rows, held_out, plan, generator=seeded_generator(0, device))
    assert report.stopped == "max_steps"
    assert report.history[-1].step == 7
    assert len(report.history) <= 6


@pytest.mark.slow
def test_slow_looks_leave_time_for_training(device, monkeypatch):
    """Where a look takes long, the next waits: a second is not spent on fifty of them."""
    quick, clock = Evaluator.__call__, Clock(monkeypatch)

    def slow(self, denoiser):
        clock.sleep(0.05)
        return quick(self, denoiser)

    monkeypatch.setattr(Evaluator, "__call__", slow)
    rows = correlated_rows(200, 0, device)
    plan = short_plan(max_steps=10**6, max_time=1.0, n_validations=50, patience=10**6)
    net = Slow(make_network(rows), clock)
    report = train(net, rows, rows, plan, generator=seeded_generator(0, device))
    early = sum(e.step in EARLY_EVALUATIONS for e in report.history)
    assert len(report.history) - early < 8


def test_few_rows_and_large_batches(device, generator):
    rows = correlated_rows(5, 0, device)
    plan = short_plan(max_steps=4, batch_size=64)
    report = train(make_network(rows), rows, rows[:1], plan, generator=generator)
    assert math.isfinite(report.history[-1].valid_nats)
    assert math.isnan(report.history[-1].valid_stderr)


def test_a_table_of_constants_trains_to_nothing(device, generator):
    rows = torch.zeros(20, 2, dtype=torch.float64, device=device)
    book = Codebook([simplex(1), line(0.3)]).to(device)
    net = NeuralDenoiser(MarginalDenoiser.fit(book, rows), width=8, depth=1).to(device)
    report = train(net, rows, rows, short_plan(max_steps=3), generator=generator)
    assert report.history[-1].valid_nats == 0


# -- what goes wrong ---------------------------------------------------------------------------------


def at_step(monkeypatch, change):
    """Have ``change(step, loss)`` replace the loss of every training step, counted from 1."""
    honest, steps = TrainingLoss.nats, [0]

    def loss(self, denoiser, x, generator):
        out = honest(self, denoiser, x, generator)
        if not torch.is_grad_enabled():
            return out  # a validation
        steps[0] += 1
        return change(steps[0], out)

    monkeypatch.setattr(TrainingLoss, "nats", loss)


def trained(device, dropout=0.0, progress=None, **kwargs):
    rows, held_out = correlated_rows(1000, 0, device), correlated_rows(500, 1, device)
    net, generator = make_network(rows, dropout=dropout), seeded_generator(0, device)
    return net, train(
        net, rows, held_out, short_plan(**kwargs), generator=generator, progress=progress
    )


def poisoned_gradient(step, loss):
    """From step 101, a loss that is right with a gradient that is not."""
    return loss + 0 * (0 * loss).sqrt() if step > 100 else loss


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda step, loss: loss * math.nan if step > 100 else loss, marks=pytest.mark.slow
        ),
        poisoned_gradient,
    ],
)
def test_a_step_into_nothing_ends_with_the_best(device, monkeypatch, change):
    at_step(monkeypatch, change)
    with pytest.warns(UserWarning, match="diverged: .* the best ones before are kept"):
        net, report = trained(device, max_steps=10_000, n_validations=100)
    assert report.stopped == "diverged"
    assert report.history[-1].step <= 100
    assert weights(net).isfinite().all()
    assert weights(net).abs().sum() > 0
    nats = [line.valid_nats for line in report.history]
    assert min(nats) < nats[0] - 0.2


def test_a_network_that_cannot_be_trained_stays_untrained(device, monkeypatch):
    at_step(monkeypatch, lambda _, loss: loss * math.nan)
    rows = correlated_rows(1000, 0, device)
    with pytest.warns(UserWarning, match="diverged"):
        net, report = trained(device)
    assert report.stopped == "diverged"
    assert torch.equal(weights(net), weights(make_network(rows)))


def test_nothing_but_numbers_becomes_the_best(device):
    average = Average(make_network(correlated_rows(50, 0, device)), 0.9)
    average.consider(2.0)
    for nats in (math.nan, -math.inf, math.inf):
        average.consider(nats)
    assert (average.best, average.stale) == (2.0, 3)


# -- the average ---------------------------------------------------------------------------------------


def counted_by_the_average(n_steps, decay):
    """How much the start and each step count in a moving average of weights: step t has the t-th unit vector."""
    model = torch.nn.ParameterList([torch.eye(n_steps + 1)[0]])
    average = Average(model, decay)
    for weights in torch.eye(n_steps + 1)[1:]:
        average.follow([torch.nn.Parameter(weights)])
    return average.weights[0]


@LAW
@given(st.integers(1, 60), st.floats(0.2, 0.9999))
def test_the_average_forgets_its_start_first(n_steps, decay):
    """It is a mean of all weights there were, in which later ones count more, and those of the start least."""
    counts = counted_by_the_average(n_steps, decay)
    assert counts.sum().item() == pytest.approx(1, abs=1e-5)
    assert (counts >= 0).all()
    assert (counts[1:] >= counts[:-1] * (1 - 1e-5)).all()
    assert counts[0] < 1 / (n_steps + 1)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_forgets_by_its_decay_at_last(decay):
    """Once there are so many steps that it looks back on a share of them only."""
    counts = counted_by_the_average(150, decay)
    last = counts[-20:]
    torch.testing.assert_close(last[:-1] / last[1:], torch.full_like(last[1:], decay))
    assert last[-1].item() == pytest.approx(1 - decay, rel=1e-5)


def test_a_plateau_goes_on_from_the_best(device, monkeypatch):
    """Whenever the rate was cut, the next step starts from the weights that validated best, and so does the average.

    They have as many evaluations as the first weights had to become better.
    """
    honest, last, starts = Run.make_step, [1.0], []
    plateau, evaluations = Run.plateau, []

    def counted(self):
        evaluations.append(len(self.report.history))
        plateau(self)

    def make_step(self, share):
        if self.cut < last[0]:
            best = self.average.best_weights
            ours = self.parameters, self.average.weights
            starts.append([all(map(torch.equal, w, best)) for w in ours])
        last[0] = self.cut
        honest(self, share)

    monkeypatch.setattr(Run, "plateau", counted)
    monkeypatch.setattr(Run, "make_step", make_step)
    _, report = trained(
        device, max_steps=150, n_validations=50, patience=2, learning_rate=0.3, ema=0.1
    )
    assert starts
    assert all(all(same) for same in starts)
    assert len(evaluations) > 1
    assert min(np.diff(evaluations)) >= 2
    valid = [line.valid_nats for line in report.history]
    assert min(valid) < valid[-1]  # there was something to go back from


@pytest.mark.parametrize("last_cut", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_a_late_plateau_is_the_end(device, monkeypatch, last_cut):
    shares, honest = [], Run.plateau

    def plateau(self):
        shares.append(self.done_share())
        honest(self)

    monkeypatch.setattr(Run, "plateau", plateau)
    monkeypatch.setattr("discrete_itd.training.loop.SMALLEST_CUT", 0.0)
    settings = {"patience": 2, "learning_rate": 0.3, "ema": 0.1}
    _, report = trained(device, max_steps=150, n_validations=50, last_cut=last_cut, **settings)
    assert report.stopped == "no improvement"
    assert [share > last_cut for share in shares] == [False] * (len(shares) - 1) + [True]


# -- interruptions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "progress"])
def test_an_interruption_keeps_the_best(device, monkeypatch, ctrl_c, where):
    def stop(step, loss=None):
        if step == 50:
            ctrl_c()
        return loss

    shown = []

    def show(_, line):
        if line.step >= 50 and not shown:
            ctrl_c()
            shown.append(line)

    if where == "loss":
        at_step(monkeypatch, stop)
    with deferred_interrupts():
        net, report = trained(device, max_steps=300, progress=show if where == "progress" else None)
    assert report.stopped == "interrupted"
    assert 30 < report.history[-1].step < 80
    assert not net.training
    held_out = correlated_rows(500, 1, device)
    nats = [line.valid_nats for line in report.history]
    assert min(nats) < nats[0] - 0.2
    q = pilot_quadrature(net, held_out, seeded_generator(0, device))
    evaluate = Evaluator(TrainingLoss(q, 0.5), held_out, seed=5)
    check, stderr = mean_and_error(evaluate(net))
    assert check == pytest.approx(min(nats), abs=5 * stderr)


def test_an_interruption_at_once_returns_the_start(device, ctrl_c):
    with deferred_interrupts():
        ctrl_c()
        net, report = trained(device)
    assert (report.stopped, len(report.history)) == ("interrupted", 1)
    assert torch.equal(weights(net), weights(make_network(correlated_rows(1000, 0, device))))


def test_a_second_interruption_is_obeyed(device, ctrl_c):
    def stop(*_):
        ctrl_c()
        ctrl_c()

    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        trained(device, progress=stop)


# -- the optimiser is torch's own, computed without its class --------------------------------------


def random_weights(dtype):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(n, 3, generator=generator, dtype=dtype)) for n in (4, 1, 1, 2)]


def three_steps(own, step):
    """Three steps on a loss that one weight has no part in."""
    for rate in (0.1, 0.01, 0.2):
        step(sum((p.sin() * rate).sum() for i, p in enumerate(own) if i != 2), rate)
    return [p.detach() for p in own]


def test_steps_are_those_of_torch(dtype):
    own, theirs = random_weights(dtype), random_weights(dtype)
    optimizer = Optimizer(own, 0.3, 0.1, betas := (0.8, 0.95))
    reference = torch.optim.AdamW(theirs, weight_decay=0.3, betas=betas, fused=True)
    norms = []

    def reference_step(loss, rate):
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(theirs, 0.1))
        reference.step()

    for p, q in zip(
        three_steps(own, optimizer.step), three_steps(theirs, reference_step), strict=True
    ):
        assert torch.equal(p, q)
    assert max(norms) > 0.1
    for i, q in enumerate(theirs):
        names = "exp_avg", "exp_avg_sq", "step"
        for name, tensor in zip(names, optimizer.moments[i], strict=True):
            assert torch.equal(reference.state[q].get(name, torch.zeros_like(tensor)), tensor)


def test_it_loads_no_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    own = random_weights(torch.float64)
    Optimizer(own, 0.1, 1.0).step(sum(p.sum() for p in own), 0.1)
    monkeypatch.delattr(torch.optim.Optimizer.add_param_group, "__dynamo_disable", raising=False)
    with pytest.raises(ImportError):  # as the class of torch does at its first use
        torch.optim.AdamW(own).step()
