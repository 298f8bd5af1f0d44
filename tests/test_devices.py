"""Steps of training, scoring and sampling never wait for the device: they run on torch's meta device, which has no
numbers to look at. And what they compute there in place of a look agrees with what they compute on the CPU.
"""

import math
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from discrete_itd import devices
from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, State
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.noise import RowNoise
from discrete_itd.denoisers import (
    RowMixtureDenoiser,
)
from discrete_itd.devices import resolve_device
from discrete_itd.likelihood.integral import error_and_tail, noisy_copies
from discrete_itd.likelihood.path import path_log_weights
from discrete_itd.likelihood.sampling import sample
from discrete_itd.models.decoder_mixture import LatentLoss, Mixture, MixtureFit
from discrete_itd.models.fitting import FitPlan
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.training.loop import Optimizer, Run, TrainingPlan
from tests.laws import (
    line,
    logistic,
    make_denoiser,
    random_causal,
    random_marginals,
    random_rows,
    random_trees,
    real,
    rounding,
    simplex,
)

META = torch.device("meta")
TABLES = {
    "categories": ([simplex(3), simplex(2), simplex(4, is_open=True), simplex(2)], ()),
    "mixed": ([real(), line(-0.8, 0.0, 0.9, is_open=True), simplex(3, is_open=True), real()], ()),
    "indicators": ([simplex(2), real(), simplex(3), line(-0.6, 0.7)], (0,)),
    "words": ([simplex(40, is_open=True), simplex(2), simplex(50), real()], ()),
    "numbers": ([real(), real(), real()], ()),
}
N_ROWS = 40  # no multiple of the rows of a block, nor of the steps of a random path


def build(kind, name):
    """A denoiser of random weights, used once on the CPU, where it may read what it needs."""
    columns, leading = TABLES[name]
    book, rng = Codebook(columns, leading), np.random.default_rng(0)
    x = random_rows(book, N_ROWS, rng, missing=0.15)
    if kind == "row mixture":
        members = [random_trees(book, rng, n_trees=2), random_causal(book, 0)]
        made = RowMixtureDenoiser(book, members, [0.4, 0.6])
    else:
        made = make_denoiser(kind, book)
    return made, x


KINDS = (
    "network", "marginals", "mixture", "correlated", "tree", "trees", "bayes_net", "forest", "oracle",
    "row mixture", "exact mixture", "causal on marginals", "causal on tree", "causal on bayes_net",
)  # fmt: skip
UNDEFINED = {
    "oracle": ("mixed", "indicators", "words", "numbers"),
    "correlated": ("categories", "words"),
}
CASES = [(k, t) for k in KINDS for t in TABLES if t not in UNDEFINED.get(k, ())]
LEARNED = [(k, t) for k, t in CASES if k == "network" or k.startswith("causal")]
# a forest counts the leaves that agree with rows
NEVER_WAIT = [(k, t) for k, t in CASES if k != "forest"]


def few(cases, quick):
    """All cases, those not named slow."""
    return [c if c in quick else pytest.param(*c, marks=pytest.mark.slow) for c in cases]


QUICK = [
    ("network", "words"),
    ("mixture", "categories"),
    ("causal on tree", "categories"),
]
QUICK_SCORES = [("network", "categories"), *QUICK[1:]]  # of numbers, the meta device takes seconds
QUICK_STEPS = [("network", "categories"), ("causal on tree", "words")]


class NothingWaits(TorchFunctionMode):
    """No tensor is made from numbers of the host, which would have to be copied to the device."""

    MAKERS = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in self.MAKERS, f"{func} copies numbers to the device"
        return func(*args, **(kwargs or {}))


class OnTheDevice(TorchDispatchMode):
    """Every tensor of more than one number is on the meta device, and none is indexed by a mask."""

    INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs))
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        host = [t for t in tensors if t.device != META and t.ndim]
        assert not host, f"{func} of a host tensor of shape {tuple(host[0].shape)}"
        if func.overloadpacket in self.INDEXED:
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            assert not masks, f"{func} by a mask, which has to be counted"
        return func(*args, **(kwargs or {}))


def twice(step):
    """Run a step, which may copy what it keeps; then once more under watch."""
    step()
    with NothingWaits(), OnTheDevice():
        return step()


def generator():
    return torch.Generator().manual_seed(1)


def state_of(denoiser, x):
    """Known, unknown, missing and noisy cells."""
    book = denoiser.codebook
    points = book.embed(x)
    kind = torch.arange(x.numel(), device=x.device).view(x.shape) % 3
    snr = torch.where(kind == 0, 0.0, torch.where(kind == 1, 1.7, math.inf)).to(points)
    snr = snr.masked_fill(x.isnan(), 0.0)
    noise = torch.sin(torch.arange(points.numel(), device=x.device)).view(points.shape)
    start = State.start(book, points)
    return start.add(book, start.increment(book, points, snr, noise.to(points)))


QUADRATURE = logistic(0.0, 1.0, low=-3.0, high=4.0)


# -- what is computed: on the meta device, and on the CPU with and without a look ----------------


def scores(denoiser, x):
    """Closed forms of rows, and the posterior of their states with all that may be asked of it."""
    state = state_of(denoiser, x)
    q = denoiser(*state)
    out = {"mean": q.mean(), "cells": q.log_prob(x), "update": q.update(*state).log_prob(x)}
    if denoiser.closed_form:
        out["rows"] = denoiser.log_prob(x)
    return out


def draws(denoiser, x):
    """Whole rows, and cells of rows in some states."""
    if denoiser.ancestral:
        denoiser.draw(len(x), generator())
    q = denoiser(*state_of(denoiser, x))
    q.sample(generator())


def paths(denoiser, x, quadrature):
    """Scores and samples along paths, and the terms of the integral."""
    n, out = x.shape[1], {}
    ordered = CoordinateSchedule(n, tuple(range(n))[::-1])
    for name, schedule in {"noise": IsotropicSchedule((0.4, 2.5)), "columns": ordered}.items():
        noise = RowNoise(x, torch.zeros(len(x), dtype=torch.int64, device=x.device), 0)
        steps = schedule.n_steps
        out[name] = path_log_weights(denoiser, x, schedule, noise, n_steps=steps)
        sample(denoiser, x, schedule, generator=generator(), n_steps=steps)
    each, noise, snr, _ = noisy_copies(x[:4], quadrature, 4, 3, 0)
    book = denoiser.codebook
    points = book.embed(each)
    start, target = State.start(book, points), snr.to(points)[:, None]
    xi = noise.normal(1, book.n_coords, points.dtype)
    target = target.masked_fill(each.isnan(), 0.0)
    state = start.add(book, start.increment(book, points, target, xi))
    out["integral"] = torch.stack(error_and_tail(denoiser(*state), each))
    return out


@pytest.mark.parametrize(("kind", "table"), few(NEVER_WAIT, QUICK_SCORES))
def test_scores_and_draws_do_not_wait_for_the_device(kind, table):
    denoiser, x = build(kind, table)
    with torch.no_grad():
        scores(denoiser, x)
        draws(denoiser, x)
        denoiser, x = denoiser.to(META), x.to(META)
        twice(lambda: (scores(denoiser, x), draws(denoiser, x)))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["mixed", "words"])
def test_paths_do_not_wait_for_the_device(table):
    denoiser, x = build("marginals", table)
    with torch.no_grad():
        denoiser, x, quadrature = (t.to(META) for t in (denoiser, x, QUADRATURE))
        twice(lambda: paths(denoiser, x, quadrature))


def training_run(kind, table, device):
    denoiser, x = build(kind, table)
    denoiser.train()
    for name, p in denoiser.named_parameters():
        p.requires_grad_(not name.startswith("base"))
    plan = TrainingPlan(batch_size=N_ROWS)
    denoiser, x = denoiser.to(device), x.repeat(8, 1).to(device)
    random = torch.Generator("cpu" if device == META else device).manual_seed(1)
    run = Run(denoiser, x, x, plan, random)
    run.use(None if denoiser.closed_form else QUADRATURE.to(device), 0)
    return run


@pytest.mark.parametrize(("kind", "table"), few(LEARNED, QUICK_STEPS))
def test_a_step_of_training_does_not_wait_for_the_device(kind, table):
    run = training_run(kind, table, META)
    run.make_step(0.5)  # draws the order of an epoch
    with NothingWaits(), OnTheDevice():
        run.make_step(0.5)
    assert run.step == 2


@pytest.mark.parametrize("table", ["mixed", pytest.param("words", marks=pytest.mark.slow)])
def test_a_step_of_a_decoder_does_not_wait_for_the_device(table):
    columns, leading = TABLES[table]
    book, rng = Codebook(columns, leading), np.random.default_rng(0)
    x = random_rows(book, N_ROWS, rng, missing=0.15)
    fitted_to = TrainingRows(random_marginals(book, rng), x, x, generator())
    recipe = Mixture(n_components=64, n_latent=2, n_points=64)
    fit = MixtureFit(recipe, fitted_to, FitPlan(TrainingPlan(), 0))
    network, meta = fit.network.to(META), x.to(META)
    optimizer = Optimizer(network.parameters(), 0.01, 1.0)
    rows, loss = network.constants(meta), LatentLoss(0.5)
    twice(lambda: optimizer.step(loss.nats(network, meta, generator(), *rows).mean(), 0.1))


# -- the same answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "table"), few(CASES, QUICK))
def test_without_a_look_answers_are_the_same(kind, table, monkeypatch, dtype):
    denoiser, x = build(kind, table)
    denoiser.eval()
    before = scores(denoiser, x)
    monkeypatch.setattr(devices, "static_shapes", lambda device: True)  # noqa: ARG005
    after = scores(denoiser, x)
    for name, expected in before.items():
        torch.testing.assert_close(after[name], expected, atol=rounding(dtype, 100), rtol=1e-6)


@pytest.mark.parametrize("table", ["mixed", pytest.param("words", marks=pytest.mark.slow)])
def test_without_a_look_paths_are_the_same(table, monkeypatch, dtype):
    denoiser, x = build("network", table)
    before = paths(denoiser, x, QUADRATURE)
    monkeypatch.setattr(devices, "static_shapes", lambda device: True)  # noqa: ARG005
    after = paths(denoiser, x, QUADRATURE)
    for name, expected in before.items():
        torch.testing.assert_close(after[name], expected, atol=rounding(dtype, 100), rtol=1e-6)


@pytest.mark.parametrize("table", ["mixed", "words"])
def test_without_a_look_a_loss_and_its_gradient_are_the_same(table, monkeypatch, dtype):
    """Also where a row more than needed starts a path."""
    found = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(devices, "static_shapes", lambda device: True)  # noqa: ARG005
        run = training_run("network", table, torch.device("cpu"))
        run.denoiser.eval()  # dropout would depend on the number of rows
        loss = run.loss.nats(run.denoiser, run.x[:N_ROWS], generator()).mean()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in run.parameters)])
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, atol=rounding(dtype, 100), rtol=1e-6)


# -- devices that are there --------------------------------------------------------------------------


AVAILABLE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
HERE = [torch.device(name) for name, there in AVAILABLE.items() if there]


@pytest.fixture(params=HERE or [None], ids=str)
def accelerator(request):
    """Each device but the CPU that this machine has, and which has the double precision that nats are added up in."""
    if request.param is None:
        pytest.skip("this machine has a CPU alone")
    if request.param.type == "mps":
        with pytest.raises(ValueError, match="float64"):
            resolve_device("mps")
        pytest.skip("it has no double precision, and is refused by name")
    return request.param


@contextmanager
def watched(device):
    """Whatever waits for a GPU raises."""
    assert device.type == "cuda"
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("kind", "table"), CASES if HERE else CASES[:1])
def test_scores_there_are_those_of_the_cpu(kind, table, accelerator, dtype):
    denoiser, x = build(kind, table)
    with torch.no_grad():
        before = scores(denoiser, x)
        denoiser, x = denoiser.to(accelerator), x.to(accelerator)
        scores(denoiser, x)  # copies what it keeps
        with watched(accelerator) if (kind, table) in NEVER_WAIT else nullcontext():
            after = scores(denoiser, x)
    for name, expected in before.items():
        close = {"atol": rounding(dtype, 1000), "rtol": 1e-5}
        torch.testing.assert_close(after[name].cpu(), expected, **close)


@pytest.mark.parametrize(("kind", "table"), LEARNED if HERE else LEARNED[:1])
def test_steps_of_training_there_do_not_wait(kind, table, accelerator):
    run = training_run(kind, table, accelerator)
    run.make_step(0.5)
    with watched(accelerator):
        run.make_step(0.5)
    assert bool(torch.stack(run.losses).isfinite().all())
