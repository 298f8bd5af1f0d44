"""The ranking of rows when cells are corrupted or missing."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_drift import QUICK, TRAIN, fitted, rows

from discrete_itd import DiffusionDensity
from discrete_itd.detection import robustness as module
from discrete_itd.detection.robustness import corrupted

pytestmark = pytest.mark.single_precision


def robustness(model, X, y=None, *, kind="noise", shares=(0.05, 0.4), n_repeats=3):
    return module.robustness(model, X, y, kind, shares, n_repeats, random_state=0)


@functools.cache
def batch():
    """Rows of which a tenth are odd."""
    table, y = rows(150, 20), np.arange(150) < 15
    table.loc[y, "word"] = np.random.default_rng(0).permutation(table["word"][y])
    table.loc[y, "size"] = 9.0
    return table, y


@pytest.mark.parametrize("kind", ["noise", "missing"])
def test_a_ranking_falls_apart_with_its_cells(kind):
    model, (table, y) = fitted()[0], batch()
    found = robustness(model, table, y, kind=kind, shares=(0.05, 0.9), n_repeats=2)
    assert found["share"].tolist() == [0, 0.05, 0.05, 0.9, 0.9]
    assert found["repeat"].tolist() == [0, 0, 1, 0, 1]
    assert (found["kind"] == kind).all()
    first, mean = found.iloc[0], found.groupby("share").mean(numeric_only=True)
    np.testing.assert_allclose(first[["spearman", "top_1", "top_5"]].astype(float), 1)
    scores = model.score_samples(table)
    assert first["auroc"] == pytest.approx(roc_auc_score(y, -scores))
    assert 0.6 < mean.loc[0.05, "spearman"] < 1
    assert mean.loc[0.05, "spearman"] > mean.loc[0.9, "spearman"]
    assert mean.loc[0.05, "top_5"] > mean.loc[0.9, "top_5"]
    assert first["auroc"] > 0.9 > mean.loc[0.9, "auroc"]


def test_the_numbers_are_those_of_their_definitions(monkeypatch):
    """Against a table spoilt by hand: one column is lost."""
    model, (table, y) = fitted()[0], batch()

    def without_size(rows, share, *_):
        return model.rows(table.assign(size=np.nan)) if share else rows

    monkeypatch.setattr("discrete_itd.detection.robustness.corrupted", without_size)
    line = robustness(model, table, y, kind="missing", shares=[0.5], n_repeats=1).iloc[1]
    before, after = model.score_samples(table), model.score_samples(table.assign(size=np.nan))
    assert np.isclose(line["spearman"], stats.spearmanr(before, after)[0])
    kept = set(np.argsort(before)[:8]) & set(np.argsort(after)[:8])
    assert line["top_5"] == len(kept) / 8
    assert line["auroc"] == roc_auc_score(y, -after)


def test_noise_comes_from_the_column_in_other_rows():
    model, (table, _) = fitted()[0], batch()
    rows = model.rows(table)
    x, volume = rows.x.cpu().numpy(), rows.log_volume
    noisy = corrupted(rows, 0.3, "noise", np.random.RandomState(0))
    values = noisy.x.cpu().numpy()[:, 1]
    assert 0.2 < (values != x[:, 1]).mean() < 0.4
    pairs = set(zip(x[:, 1], volume[:, 1], strict=True))
    assert all(p in pairs for p in zip(values, noisy.log_volume[:, 1], strict=True))
    lossy = corrupted(rows, 0.3, "missing", np.random.RandomState(0))
    left, gone = lossy.x.cpu().numpy(), lossy.x.isnan().cpu().numpy()
    assert (lossy.log_volume[gone] == 0).all()
    assert 0.25 < gone.mean() < 0.35
    np.testing.assert_array_equal(left[~gone], x[~gone])
    numbered = replace(rows, x=torch.arange(150.0).double()[:, None] + 0 * rows.x)
    other = corrupted(numbered, 1, "noise", np.random.RandomState(0))
    assert bool((other.x != numbered.x).all())


def test_indicators_go_with_their_cells():
    gone = np.random.default_rng(0).random(600) < 0.3
    model = DiffusionDensity(**{**QUICK, "max_steps": 0}, missing="category").fit(
        TRAIN.assign(word=TRAIN["word"].mask(gone))
    )
    rows = model.rows(TRAIN[:60].assign(word=TRAIN["word"][:60].mask(gone[:60])))
    for kind in ("noise", "missing"):
        x = corrupted(rows, 0.5, kind, np.random.RandomState(0)).x.numpy()
        np.testing.assert_array_equal(np.isnan(x[:, 0]), x[:, 5] == 1)
    assert len(robustness(model, rows, kind="missing", shares=[0.2], n_repeats=1)) == 2


def test_one_row_and_wrong_arguments():
    model, (table, y) = fitted()[0], batch()
    one = robustness(model, table[:1], shares=[0.5], n_repeats=1)
    assert one["spearman"].isna().all()
    assert one["top_1"].tolist() == [1, 1]
    assert "auroc" not in one
    with pytest.raises(ValueError, match="kind must be 'noise' or 'missing', got 'x'"):
        robustness(model, table, kind="x")
    with pytest.raises(ValueError, match=r"shares must be between 0 and 1, got \[1\.5\]"):
        robustness(model, table, shares=[1.5])
    with pytest.raises(TypeError, match="shares must be a sequence of numbers"):
        robustness(model, table, shares=["a"])
    with pytest.raises(TypeError, match="shares must be a sequence"):
        robustness(model, table, shares=0.1)
    with pytest.raises(ValueError, match="y must hold both 0"):
        robustness(model, table, np.zeros(150))
    with pytest.raises(ValueError, match="one label for each of the 150 rows"):
        robustness(model, table, y[:4])
    with pytest.raises(ValueError, match="n_repeats must be at least 1"):
        robustness(model, table, n_repeats=0)
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        robustness(model, pd.DataFrame(table[:0]))
