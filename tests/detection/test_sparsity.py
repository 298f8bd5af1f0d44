"""Sparse rows: a row is compared with rows that have as many unusual cells."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection.sparsity import Sparsity, expected, is_sparse, unusual, usual_cells

SETTINGS = {"denoiser": "independent", "false_alarm_rate": 0.05, "random_state": 0}
N_COLUMNS = 40


def baskets(n=3000, seed=0, *, odd=False):
    """Some baskets are fuller than others; odd ones hold as many things, but any of them."""
    random = np.random.default_rng(seed)
    popular = np.linspace(-4.0, 0.0, N_COLUMNS)
    full = random.normal(scale=1.5, size=(n, 1))
    bought = random.random((n, N_COLUMNS)) < 1 / (1 + np.exp(1 - popular - full))
    if odd:
        bought = random.permuted(bought, axis=1)
    return pd.DataFrame(np.where(bought, "1", "0"), columns=[f"c{j}" for j in range(N_COLUMNS)])


@pytest.fixture(scope="module")
def fitted():
    return DiffusionOutlierDetector(**SETTINGS).fit(baskets())


def test_odd_baskets_are_found_among_those_as_full(fitted):
    normal, odd = baskets(1000, seed=1), baskets(1000, seed=1, odd=True)
    both, is_odd = pd.concat([normal, odd]), np.repeat([0, 1], 1000)
    rows, plain = fitted.rows(both), replace(fitted._scorer, sparsity=None)
    found = [roc_auc_score(is_odd, -s) for s in (fitted._scorer.score(rows), plain.score(rows))]
    assert found[0] > found[1] + 0.15


def test_the_nats_of_a_row_sum_to_its_score_and_are_those_expected_of_as_full_ones(fitted):
    rows = fitted.rows(baskets(200, seed=2))
    scorer, plain = fitted._scorer, replace(fitted._scorer, sparsity=None)
    nats = scorer.nats(rows)
    assert np.allclose(nats.sum(axis=1), -scorer.score(rows))
    added = (nats - plain.nats(rows)).to_numpy()
    of = unusual(rows.x.numpy(), scorer.sparsity.usual)
    assert (added[~of & (of.any(1, keepdims=True))] == 0).all()
    for s in np.unique(of.sum(1)):  # one correction for all rows as full
        assert np.ptp(added[of.sum(1) == s].sum(1)) < 1e-9


def test_the_fullest_rows_are_no_odder_than_their_number_is_rare(fitted):
    rows = fitted.rows(baskets(20_000, seed=5))
    scores = fitted._scorer.score(rows)
    s = unusual(rows.x.numpy(), fitted._scorer.sparsity.usual).sum(1)
    rare = -np.log(np.maximum(np.bincount(s), 1) / len(s))
    for k in (22, 25, 28):  # few training rows have as many
        near = np.abs(s - k) <= 1
        assert scores.mean() - scores[near].mean() < rare[k] + 2.0


def test_expected_scores_are_means_over_rows_with_as_many_unusual_cells():
    random = np.random.default_rng(0)
    s = random.binomial(6, 0.4, 5000)
    s[:3] = 20  # alone: the next ones count, too
    scores = 5.0 - 2.0 * s + random.normal(size=5000)
    mean, log_p = expected(s, scores, 31)
    for k in range(6):
        assert mean[k] == pytest.approx(scores[s == k].mean())
        assert np.exp(log_p[k]) == pytest.approx((s == k).mean())
    assert np.allclose(mean[20:], 5.0 - 2.0 * np.arange(20, 31), atol=2.0)
    assert (np.diff(log_p[20:]) <= 0).all()


def test_by_the_law_of_total_expectation_the_mean_changes_by_the_entropy_of_the_number():
    random = np.random.default_rng(1)
    cells, scores = random.integers(2, size=(4000, 5)).astype(float), random.normal(size=4000)
    sparsity = Sparsity.of(cells, scores)
    p = np.bincount(unusual(cells, usual_cells(cells)).sum(1)) / 4000
    added = sparsity.nats(torch.from_numpy(cells)).sum(1)
    assert added.mean() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-6)


def test_tables_whose_scores_say_more_are_left_alone(fitted):
    assert fitted._scorer.sparsity is not None
    random = np.random.default_rng(2)
    table = pd.DataFrame({c: random.choice(list("xyz"), 1000) for c in "abcde"})
    table["f"] = table["a"]
    assert DiffusionOutlierDetector(**SETTINGS).fit(table)._scorer.sparsity is None
    copies = np.repeat(random.integers(2, size=(500, 1)), 8, axis=1).astype(float)
    for cells, nats in ((np.zeros((50, 4)), np.zeros((50, 4))), (copies, copies)):
        assert not is_sparse(cells, nats)


def test_missing_and_given_cells_are_not_counted():
    cells = np.array([[0.0, 1.0, np.nan], [0.0, 0.0, 2.0], [1.0, 1.0, 2.0]])
    usual = usual_cells(cells, left_out=(1,))
    assert np.array_equal(usual, [0.0, np.nan, 2.0], equal_nan=True)
    assert unusual(cells, usual).sum(1).tolist() == [0, 0, 1]
    found = Sparsity.of(cells, np.arange(3.0), left_out=(1,)).nats(torch.from_numpy(cells))
    assert (found[:, 1] == 0).all()
    assert found[0, 2] == 0


def test_missing_cells_may_be_categories():
    table = baskets().mask(np.random.default_rng(3).random((3000, N_COLUMNS)) < 0.01)
    density = DiffusionDensity(denoiser="independent", missing="category")
    model = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0).fit(table)
    assert model._scorer.sparsity is not None
    assert np.allclose(model.explain(table[:50]).sum(axis=1), -model.score_samples(table[:50]))


def test_it_is_saved_and_damage_is_named(fitted, tmp_path):
    fitted.save(tmp_path / "d")
    new = baskets(100, seed=3)
    loaded = DiffusionOutlierDetector.load(tmp_path / "d")
    assert "a score is no log-probability" in " ".join(loaded.model_card().split())
    assert np.array_equal(loaded.score_samples(new), fitted.score_samples(new))
    tensors = fitted._scorer.sparsity.to_tensors()
    for name, wrong in (("sparsity", "nan"), ("sparsity", "short"), ("sparsity.usual", "short")):
        damaged = dict(tensors)
        damaged[name] = tensors[name] * np.nan if wrong == "nan" else tensors[name][..., :-1]
        with pytest.raises(ValueError, match="sparse rows"):
            Sparsity.from_tensors(N_COLUMNS, damaged)
