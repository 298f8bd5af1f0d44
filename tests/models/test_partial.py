"""Batches that arrive over time: the model is that of all rows so far."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from fits import chain, mixed
from sklearn.utils import check_random_state

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import BayesNetDenoiser, MarginalDenoiser
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.streams import position_hashes
from discrete_itd.models import training_tables
from discrete_itd.models.exact import PENALTY, PSEUDO_COUNTS
from discrete_itd.recipes import Forest


def grown(rows, sizes, denoiser="tree", **settings):
    model = DiffusionDensity(denoiser=denoiser, random_state=0, **settings)
    ends = np.cumsum([0, *sizes])
    for a, b in pairwise(ends):
        model.partial_fit(rows.iloc[a:b])
    return model


@pytest.mark.parametrize("kept", [10, 50_000])
def test_property_batches_add_up(monkeypatch, kept):
    """The tree of the counts of all rows that are not held out, however few of them are kept."""
    monkeypatch.setattr(training_tables, "KEPT_ROWS", kept)
    rows = mixed(600).assign(a=lambda t: t["a"].astype(pd.CategoricalDtype(list("xyz"))))
    model = grown(rows, [100, 1, 250, 249])
    hashes = (
        position_hashes(np.arange(600), int(check_random_state(0).randint(2**31 - 1))) / 2.0**64
    )
    held = (hashes < 0.1) & (hashes <= np.sort(hashes)[min(kept, 600) - 1])
    encoder = TableEncoder.fit(rows.iloc[:100])
    x = torch.from_numpy(encoder.transform(rows).x)
    x, x_valid = (part[~part.isnan().all(1)] for part in (x[~held], x[held]))
    assert model.encoder_.schema == encoder.schema
    marginals = MarginalDenoiser.fit(encoder.codebook(), x, unseen_counts=encoder.unseen_counts)
    torch.testing.assert_close(model.model_.marginals.log_probs, marginals.log_probs)
    trees = [
        BayesNetDenoiser.fit_tree(marginals, x, pseudo_count=a, penalty=PENALTY)
        for a in PSEUDO_COUNTS
    ]
    best = min(trees, key=lambda tree: -float(tree.log_prob(x_valid).mean()))
    if kept > 600:  # else the mixtures of Gaussians are of few rows, and may choose another
        torch.testing.assert_close(model.denoiser_.log_tables, best.log_tables)
    assert [t.shape for t in model.denoiser_.log_tables] == [t.shape for t in best.log_tables]


@pytest.mark.parametrize("kept", [400, 50_000])
def test_a_forest_of_batches(monkeypatch, kept):
    """As long as all rows are kept it does not matter how they came; then all are counted in the same trees."""
    monkeypatch.setattr(training_tables, "KEPT_ROWS", kept)
    rows = mixed(900).assign(a=lambda t: t["a"].astype(pd.CategoricalDtype(list("xyz"))))
    model = grown(rows, [300, 100, 200, 300], denoiser=Forest(3))
    counts = model._grown._leaves
    if kept > 900:
        assert counts is None
        once = grown(rows, [300, 600], denoiser=Forest(3))
        np.testing.assert_array_equal(model.score_samples(rows), once.score_samples(rows))
        return
    assert float(counts.rows.sum()) == pytest.approx(3 * model._grown._counts.n_rows)
    first = grown(rows, [900], denoiser=Forest(3))  # more rows at once than are kept
    total = float(first._grown._leaves.rows.sum())
    assert total == pytest.approx(3 * first._grown._counts.n_rows)
    nats = [-m.score_samples(rows).mean() for m in (model, first)]
    alone = -grown(rows, [300, 600], denoiser="independent").score_samples(rows).mean()
    assert max(nats) < alone


def test_new_categories_are_unseen():
    """They raise the probability of the unseen, or an error; declared ones are known."""
    first, later = pd.DataFrame({"a": ["x", "y"] * 50}), pd.DataFrame({"a": ["new", "x"] * 20})
    model = DiffusionDensity(denoiser="independent", random_state=0).partial_fit(first)
    before = model.score_samples(later)
    after = model.partial_fit(later).score_samples(later)
    assert after[0] > before[0] + 1
    assert after[0] == model.score_samples(pd.DataFrame({"a": ["another"]}))[0]
    declared = first.astype(pd.CategoricalDtype(["new", "x", "y"]))
    model = DiffusionDensity(denoiser="independent", random_state=0).partial_fit(declared)
    assert "new" in model.partial_fit(later).encoder_.schema[0].categories

    strict = DiffusionDensity(denoiser="tree", handle_unknown="error").partial_fit(first)
    scores = strict.score_samples(first)
    with pytest.raises(ValueError, match="column 'a': unseen category 'new'"):
        strict.partial_fit(later)
    np.testing.assert_array_equal(strict.score_samples(first), scores)
    assert strict.partial_fit(first).encoder_ is not None


def test_where_nothing_adds_up():
    rows = chain()
    with pytest.raises(AttributeError) as error:
        _ = DiffusionDensity(denoiser="causal").partial_fit
    assert "needs denoiser='independent', 'tree' or 'forest', whose counts" in str(
        error.value.__cause__
    )
    model = grown(rows, [60, 60])
    for other in (pickle.loads(pickle.dumps(model)), DiffusionDensity(denoiser="tree").fit(rows)):
        with pytest.raises(AttributeError) as error:
            other.partial_fit(rows)
        assert "continues what partial_fit began" in str(error.value.__cause__)
    assert hasattr(model, "partial_fit")
    assert not hasattr(model.fit(rows), "partial_fit")
    with pytest.raises(ValueError, match="feature names"):
        grown(rows, [60]).partial_fit(rows.drop(columns="a"))
    array = np.random.default_rng(0).integers(0, 3, (40, 2))
    counted = DiffusionDensity(denoiser="tree", random_state=0).partial_fit(array)
    assert counted.partial_fit(array[:5]).score_samples(array).shape == (40,)
