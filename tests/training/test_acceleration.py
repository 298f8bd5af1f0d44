"""bfloat16 and compilation change the speed of a training, and its result no further than they say."""

import functools
import warnings

import numpy as np
import pytest
import torch

from discrete_itd.channel import Codebook
from discrete_itd.denoisers import NeuralDenoiser
from discrete_itd.recipes import Causal
from discrete_itd.training import TrainingPlan, train
from discrete_itd.training.config import NATS_TOLERANCE, accelerated
from discrete_itd.training.loop import seeded
from tests.laws import BOOKS, draw_rows, random_marginals, random_oracle

pytestmark = pytest.mark.single_precision


def trained(steps=8, **settings):
    """A small network's weights and held-out nats after a training."""
    book, rng = Codebook(BOOKS["mixed"]), np.random.default_rng(0)
    oracle = random_oracle(book, rng)
    x, x_valid = draw_rows(oracle, 400, rng), draw_rows(oracle, 200, rng)
    with seeded(0, torch.device("cpu")):
        net = NeuralDenoiser(random_marginals(book, rng), width=16, depth=1)
        plan = TrainingPlan(max_steps=steps, batch_size=64, n_validations=2, **settings)
        report = train(net, x, x_valid, plan, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([p.detach().flatten() for p in net.network.parameters()])
    return net, weights, report.history[-1].valid_nats


@functools.cache
def plainly_trained():
    return trained()


def test_bfloat16_touches_the_weights_and_hardly_the_nats():
    (_, exact, nats), (net, rounded, of_half) = plainly_trained(), trained(precision="bfloat16")
    assert not torch.equal(exact, rounded)
    assert rounded.dtype == exact.dtype
    assert abs(of_half - nats) < NATS_TOLERANCE
    assert "forward" not in vars(net.network)


def test_what_cannot_be_compiled_is_trained_without_and_one_warning(monkeypatch):
    def compiler(_function, **_options):
        def call(_features):
            raise RuntimeError("no compiler\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    with pytest.warns(UserWarning, match="without compilation: no compiler$") as seen:
        _, weights, _ = trained(compiled=True)
    assert len(seen) == 1
    assert torch.equal(weights, plainly_trained()[1])


@pytest.mark.slow
def test_compiled_steps_differ_by_rounding():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _, weights, nats = trained(compiled=True)
    if any("without compilation" in str(w.message) for w in seen):
        pytest.skip("nothing can be compiled here")
    _, exact, expected = plainly_trained()
    torch.testing.assert_close(weights, exact, atol=1e-3, rtol=1e-3)
    assert abs(nats - expected) < NATS_TOLERANCE


def test_unknown_settings_are_refused():
    net, _, _ = plainly_trained()
    with pytest.raises(ValueError, match="precision must be one of"):
        accelerated(net, TrainingPlan(precision="float8")).__enter__()
    with pytest.raises(ValueError, match="precision"):
        Causal(precision="float8").check()
    with pytest.raises(TypeError, match="compiled"):
        Causal(compiled=1).check()
    with accelerated(net, TrainingPlan(precision="bfloat16")):
        assert "forward" in vars(net.network)
    assert "forward" not in vars(net.network)
