"""Numbers that repeat: a new one is odd wherever it lies."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.detection.repeats import RARE, Repeats

SETTINGS = {"denoiser": "independent", "false_alarm_rate": 0.05, "random_state": 0}


def repeating(n=600, seed=0):
    """A column of forty numbers, of which no one else has any; one of all different ones; and a category."""
    random = np.random.default_rng(seed)
    numbers = np.random.default_rng(9).normal(size=40).round(6)
    return pd.DataFrame(
        {
            "repeating": numbers[random.integers(40, size=n)],
            "different": random.normal(size=n),
            "a": random.choice(["x", "y"], n),
        }
    )


@pytest.fixture(scope="module")
def fitted():
    return DiffusionOutlierDetector(**SETTINGS).fit(repeating())


def test_a_new_number_between_others_is_odd_and_named(fitted):
    new = repeating(20, seed=1)
    between = float(np.sort(new["repeating"].unique())[:2].mean())
    odd = new.assign(repeating=between)
    gap = fitted.score_samples(new) - fitted.score_samples(odd)
    alone = replace(fitted._scorer, repeats=None)
    seen, unseen = fitted.density_.rows(new), fitted.density_.rows(odd)
    p = fitted._scorer.repeats.p_new[0]
    assert np.allclose(gap, alone.score(seen) - alone.score(unseen) + math.log((1 - p) / p))
    nats = fitted.explain(odd)
    assert np.allclose(nats.sum(axis=1), -fitted.score_samples(odd))
    assert np.allclose(nats - alone.explain(unseen), [[-math.log(p), 0.0, 0.0]] * 20)
    reasons = fitted.reasons(odd, k=1)
    assert (reasons["column"] == "repeating").all()
    assert (fitted.p_values(odd) < 0.02).all()


def test_probabilities_of_new_numbers_are_those_of_good_and_turing():
    """Against fresh rows of the same numbers, over many tables."""
    truth = np.random.default_rng(0).zipf(1.6, size=(200, 2, 400)).astype(float)
    expected, met = [], []
    schema = DiffusionOutlierDetector(**SETTINGS).fit(repeating()).density_.encoder_.schema[:1]
    for train, fresh in truth:
        found = Repeats.of(schema, torch.tensor(train)[:, None])
        if found.seen:
            expected.append(found.p_new[0])
            met.append(np.mean(found.nats(torch.tensor(fresh)[:, None]) > -math.log(0.5)))
    assert len(met) > 150
    assert np.mean(expected) == pytest.approx(np.mean(met), abs=0.01)


def test_columns_of_different_numbers_and_given_ones_are_left_alone(fitted):
    assert list(fitted._scorer.repeats.seen) == [0]
    X = torch.tensor(repeating().to_numpy()[:, :2].astype(float))
    schema = fitted.density_.encoder_.schema[:2]
    assert list(Repeats.of(schema, X).seen) == [0]
    assert not Repeats.of(schema, X, left_out=(0,)).seen
    few_new = X.clone()
    few_new[: int(RARE * len(X)) + 1, 0] = X[: int(RARE * len(X)) + 1, 1]
    assert not Repeats.of(schema, few_new).seen
    missing = torch.full((1, 2), math.nan, dtype=torch.float64)
    assert (Repeats.of(schema, X).nats(missing) == 0).all()


def test_tomorrow_is_not_odd():
    days = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(600) % 30, unit="D")
    X = repeating().assign(day=days)
    detector = DiffusionOutlierDetector(**SETTINGS).fit(X)
    assert detector.density_.encoder_.schema[3].kind == "continuous"
    assert list(detector._scorer.repeats.seen) == [0]


def test_what_was_seen_is_saved(fitted, tmp_path):
    fitted.save(tmp_path / "d.safetensors")
    again = DiffusionOutlierDetector.load(tmp_path / "d.safetensors")
    new = repeating(30, seed=2).assign(repeating=0.123)
    assert np.array_equal(again.score_samples(new), fitted.score_samples(new))
    assert "adds nats in `repeating`: the file holds" in fitted.model_card()
    kept = fitted._scorer.repeats.to_tensors()
    with pytest.raises(LookupError):
        Repeats.from_tensors(3, {"repeats": kept["repeats"]})
    with pytest.raises(ValueError, match="shape"):
        Repeats.from_tensors(2, kept)
    with pytest.raises(ValueError, match="column 0"):
        Repeats.from_tensors(3, kept | {"repeats.0": torch.tensor([math.nan])})
