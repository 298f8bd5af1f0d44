"""The discrete density peers of the benchmarks: distributions first, then better than independent columns."""

import itertools

import numpy as np
import pytest
import torch
from benchmarks import density_peers
from benchmarks.density_peers import PEERS, MaskedNetwork, Skipped, family_counts, timed_bic

pytestmark = pytest.mark.slow

SIZES = (2, 4, 3, 2)
ROWS = np.array(list(itertools.product(*map(range, SIZES))))
FAST = {
    "masked network": {"n_free": 2000, "dropouts": (0.0,)},
    "hidden Chow-Liu tree": {"n_hidden": (4,)},
    "UnmaskingTrees": {"first_rows": 60, "max_cells": 10_000},
}
PACKAGES = {
    "hill climbing": "pgmpy",
    "hidden Chow-Liu tree": "spflow",
    "UnmaskingTrees": "utrees",
}


def dependent(n_rows, seed):
    """A hidden class that decides nearly all; category 3 of column 1 never occurs."""
    random = np.random.default_rng(seed)
    hidden = random.integers(0, 6, (n_rows, 1))
    noise = np.where(random.random((n_rows, 4)) < 0.1, random.integers(0, 6, (n_rows, 4)), 0)
    return (hidden + noise) % 6 % [2, 3, 3, 2]


def fit(name, max_time=6.0):
    try:
        peer = PEERS[name](**FAST.get(name, {}))
        return peer.fit(dependent(600, 0), dependent(200, 1), SIZES, max_time)
    except Skipped as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def fitted():
    """The peers that were fitted so far, each once."""
    kept = {}
    return lambda name: kept[name] if name in kept else kept.setdefault(name, fit(name))


@pytest.mark.parametrize("name", PEERS)
def test_probabilities_add_up_to_one(fitted, name):
    log_prob = fitted(name).log_prob(ROWS)
    assert log_prob.shape == (len(ROWS),)
    assert log_prob.dtype == np.float64
    assert np.isfinite(log_prob).all()  # with a category that no training row has
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-5)  # networks are in float32


@pytest.mark.parametrize("name", PEERS)
def test_rows_are_scored_one_by_one(fitted, name):
    order = np.random.default_rng(0).permutation(len(ROWS))[:17]
    np.testing.assert_allclose(
        fitted(name).log_prob(ROWS[order]), fitted(name).log_prob(ROWS)[order], rtol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in PEERS if name != "independent"])
def test_dependence_is_found(fitted, name):
    test = dependent(500, 2)
    gain = fitted(name).log_prob(test).mean() - fitted("independent").log_prob(test).mean()
    assert gain > 0.4


@pytest.mark.parametrize("name", PEERS)
def test_what_was_chosen_is_said(fitted, name):
    assert fitted(name).n_parameters > 0
    assert fitted(name).note


@pytest.mark.parametrize("name", ["masked network", "hidden Chow-Liu tree"])
def test_one_step_of_a_descent_is_decided_by_the_seed(name):
    before = torch.random.get_rng_state()
    first = fit(name, 0.0)
    np.testing.assert_array_equal(first.log_prob(ROWS), fit(name, 0.0).log_prob(ROWS))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", PACKAGES)
def test_missing_package_is_said(monkeypatch, name):
    def absent(module, *_):
        raise ImportError(module)

    monkeypatch.setattr(density_peers.importlib, "import_module", absent)
    with pytest.raises(Skipped, match=PACKAGES[name]):
        PEERS[name]().fit(dependent(60, 0), dependent(20, 1), SIZES, 1.0)


@pytest.mark.parametrize("sizes", [SIZES, (3,), (1, 2, 1)])
def test_logits_see_earlier_columns_only(sizes):
    torch.manual_seed(0)
    network = MaskedNetwork(sizes, 64, 0.0).eval()
    rows = torch.tensor(list(itertools.product(*map(range, sizes))))
    assert network(rows).exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    starts = np.cumsum((0, *sizes))
    one_hot = torch.rand(sum(sizes), dtype=torch.float32)
    jacobian = torch.autograd.functional.jacobian(network.layers, one_hot)
    for j in range(len(sizes)):
        block = jacobian[starts[j] : starts[j + 1]]
        assert (block[:, starts[j] :] == 0).all()
        if j > 0 and sizes[j] > 1:
            assert (block[:, : starts[1]] != 0).any()


def test_size_of_the_masked_network():
    rows = np.random.default_rng(0).integers(0, 3, (64, 20))
    peer = PEERS["masked network"](n_free=20_000, dropouts=(0.0,)).fit(rows, rows, [3] * 20, 0.0)
    kept = sum(int(one.mask.sum()) + len(one.bias) for one in peer.network.layers[::3])
    assert peer.n_parameters == kept
    assert kept == pytest.approx(20_000, rel=0.1)


def test_fast_score_is_that_of_pgmpy():
    scores = pytest.importorskip("pgmpy.structure_score")
    pandas = pytest.importorskip("pandas")
    rows = dependent(300, 0)
    states = {j: list(range(k)) for j, k in enumerate(SIZES)}
    naive = scores.BIC(pandas.DataFrame(rows), states)
    fast = timed_bic(rows, SIZES, np.inf)
    for family in [(0,), (1, 0), (0, 3, 2), (2, 1)]:
        own = fast.local_score(family[0], family[1:])
        assert own == pytest.approx(naive.local_score(family[0], family[1:]), rel=1e-10)
    with pytest.raises(TimeoutError):
        timed_bic(rows, SIZES, 0.0).local_score(0, ())


@pytest.mark.parametrize("name", ["hill climbing", "UnmaskingTrees"])
def test_no_time_at_all_is_said(name):
    pytest.importorskip(PACKAGES[name])
    with pytest.raises(Skipped, match="4 columns"):
        PEERS[name]().fit(dependent(60, 0), dependent(20, 1), SIZES, 0.0)


def test_counts_of_a_family_against_counting():
    rows = dependent(50, 0)
    counts = family_counts(rows, (1, 3, 2), SIZES)
    assert counts.shape == (8, 3)
    for given, row in zip(itertools.product(range(4), range(2)), counts, strict=True):
        for k in range(3):
            assert row[k] == (rows[:, [1, 3, 2]] == [*given, k]).all(1).sum()
