"""Properties of holding rows out: no record is on both sides, and rows that are equal by chance are on both."""

import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW, seeds

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_bayesian_network
from discrete_itd.models.splitting import copies, equal_values, hold_out
from discrete_itd.recipes import Network


def leaked(codes, held, rest):
    """Share of the held-out rows that are also among the rest."""
    fitted = {tuple(row) for row in codes[rest].tolist()}
    return np.mean([tuple(row) in fitted for row in codes[held].tolist()])


network = functools.cache(load_bayesian_network)


def child(n, seed=0):
    return equal_values(network("child").sample(n, random_state=seed))


@LAW
@given(st.integers(1, 60), st.integers(0, 60), seeds)
def test_property_every_row_is_on_one_side(n, n_held, seed):
    random = np.random.default_rng(seed)
    codes = random.integers(0, random.integers(1, 9), (n, random.integers(1, 4)))
    held, rest = hold_out(copies(codes), n_held, seed)
    assert sorted([*held, *rest]) == list(range(n))
    together = copies(codes)
    if len(np.unique(together)) == 1:  # there is nothing else to fit to
        together = np.arange(n)
    assert not set(together[held]) & set(together[rest])
    for record in np.unique(together):  # only equal rows are copies of one record
        assert len(np.unique(codes[together == record], axis=0)) == 1
    if n_held == 0 or len(np.unique(together)) == 1:
        assert not len(held)
    else:
        largest = np.bincount(np.unique(together, return_inverse=True)[1]).max()
        assert 1 <= len(held) < n
        assert len(held) < n_held + largest


def test_without_equal_rows_it_is_a_random_permutation():
    codes = np.arange(200)[:, None]
    held, rest = hold_out(copies(codes), 20, 5)
    expected = np.random.RandomState(5).permutation(200)
    assert np.array_equal(np.concatenate([held, rest]), expected)


@pytest.mark.parametrize(
    "times",
    [
        pytest.param("10", marks=pytest.mark.slow),
        "random",
        pytest.param("some", marks=pytest.mark.slow),
    ],
)
def test_copies_of_records_are_on_one_side(times):
    """However often records are repeated, what is held out is new to the fit."""
    rows, random = child(300), np.random.default_rng(0)
    n = {
        "10": 10,
        "random": random.integers(1, 20, 300),
        "some": np.r_[[1] * 200, [8] * 100],
    }
    codes = np.repeat(rows, n[times], axis=0)
    natural = leaked(rows, *hold_out(copies(rows), 30, 0))
    records = copies(codes)
    shares = [leaked(codes, *hold_out(records, len(codes) // 10, seed)) for seed in range(5)]
    assert np.mean(shares) < 0.25 + natural
    by_row = np.array_split(np.random.default_rng(0).permutation(len(codes)), [len(codes) // 10])
    assert leaked(codes, *by_row) > 0.3  # and would not be by itself


@pytest.mark.parametrize("name", ["asia", "child"])
def test_rows_that_are_equal_by_chance_are_divided_one_by_one(name):
    codes = equal_values(network(name).sample(10_000, random_state=0))
    held, rest = hold_out(copies(codes), 1000, 0)
    order = np.random.RandomState(0).permutation(10_000)
    natural = leaked(codes, order[:1000], order[1000:])
    assert abs(leaked(codes, held, rest) - natural) < 0.05
    assert natural > 0.2


def test_property_every_record_is_equally_likely_to_be_held_out():
    """However many copies it has: held-out rows are like the others."""
    rows = child(250)
    codes = np.repeat(rows, np.r_[[1] * 200, [5] * 50], axis=0)
    records, heavy = copies(codes), np.arange(len(codes)) >= 200
    held = [hold_out(records, 45, seed)[0] for seed in range(200)]
    share = np.concatenate([heavy[part] for part in held]).mean()
    assert share == pytest.approx(heavy.mean(), abs=0.06)


@pytest.mark.parametrize("counts", [[5000, 4000, 1000], [550, 450], [5, 5], [30] * 20])
def test_round_counts_are_no_copies(counts):
    """A balanced table, or one of a few frequent patterns, is divided row by row."""
    codes = np.repeat(np.arange(len(counts)), counts)[:, None]
    records, n_held = copies(codes), len(codes) // 10
    held = np.stack(
        [
            np.bincount(codes[hold_out(records, n_held, seed)[0], 0], minlength=len(counts))
            for seed in range(40)
        ]
    )
    assert (held.sum(1) == n_held).all()
    expected = n_held * np.array(counts) / len(codes)
    assert (np.abs(held.mean(0) - expected) < 5 * np.sqrt(expected / 40) + 1e-9).all()


def test_wide_tables_are_divided_soon():
    """The models see few columns, whatever there are; copies are found all the same."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 2, (600, 400))
    codes = np.concatenate([codes, codes[:200]])
    records = copies(codes)
    assert np.array_equal(records[:200], records[600:])
    assert len(np.unique(records)) == 600


def test_frequent_patterns_are_on_both_sides():
    coins = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    held, rest = hold_out(copies(equal_values(coins)), 10, 0)
    assert len(held) == 10
    assert leaked(equal_values(coins), held, rest) == 1


def test_values_are_numbered_whatever_they_are():
    frame = pd.DataFrame({"a": [1.5, None, 1.5, None], "b": [(1,), (1,), [2], [2]]})
    codes = equal_values(frame)
    assert codes[0, 0] == codes[2, 0]
    assert codes[1, 0] == codes[3, 0] == -1
    assert len(np.unique(codes[:, 1])) == 4  # lists cannot be compared


def test_weights_do_not_flatter_the_held_out_rows():
    """A fit of ten copies of each row is about as good as one of the rows, and knows how good it is."""
    rows, test = (network("child").sample(n, random_state=i) for i, n in enumerate((300, 1000)))
    plain = DiffusionDensity(denoiser="bayes_net", random_state=0).fit(rows)
    weighted = DiffusionDensity(denoiser="bayes_net", random_state=0)
    weighted.fit(rows, sample_weight=np.full(300, 10))
    nats = -weighted.score(test)
    assert nats < -plain.score(test) + 1
    # 5 standard errors of a mean over 30 records
    claim = weighted.history_["valid_nats"].min()
    assert nats < claim + 5 * weighted.history_["valid_stderr"].iloc[-1] * np.sqrt(10)


def test_no_calibration_row_is_a_copy_of_a_training_row(monkeypatch):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(60, 2)), columns=["a", "b"])
    frame = pd.concat([frame] * 3, ignore_index=True)
    quick = DiffusionDensity(
        denoiser=Network(width=8, depth=1), max_steps=2, n_evaluations=4, random_state=0
    )
    settings = {"false_alarm_rate": 0.1, "random_state": 0}
    fitted_to, fit = [], DiffusionDensity.fit

    def watched(self, X, *args, **kwargs):
        fitted_to.append(X)
        return fit(self, X, *args, **kwargs)

    monkeypatch.setattr(DiffusionDensity, "fit", watched)
    detector = DiffusionOutlierDetector(quick, **settings).fit(frame)
    train = set(map(tuple, fitted_to[0].to_numpy().tolist()))
    assert len(detector.calibration_scores_) == 12  # each record once
    assert len(train) == 48
