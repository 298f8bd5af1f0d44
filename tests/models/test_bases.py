"""Choosing among exact denoisers, and which of them a network corrects."""

import numpy as np
import pandas as pd
import pytest
from fits import chain, mixed, noise, plan, training_rows

from discrete_itd.denoisers import BayesNetDenoiser
from discrete_itd.models import exact, networks
from discrete_itd.models.exact import choose_base
from discrete_itd.models.fitting import fit_recipe
from discrete_itd.recipes import Causal, Mixture, Network, Tree

TREE, MARGINALS = "BayesNetDenoiser", "MarginalDenoiser"

# -- exact denoisers -------------------------------------------------------------------------------


def test_the_tree_is_smoothed_as_held_out_rows_ask():
    rows = training_rows(chain(200))
    tree = Tree().fit(rows, plan())
    plain = BayesNetDenoiser.fit(rows.marginals, rows.x, most_parents=1)
    assert rows.held_out_nats(tree) <= rows.held_out_nats(plain)
    assert Tree().fit(rows, plan()) is tree  # not fitted twice


def test_a_mixture_is_a_base_of_categories_alone():
    few = Mixture(2, n_points=64, max_steps=5)
    with pytest.raises(ValueError, match="a mixture of continuous columns cannot be corrected"):
        few.fit_base(training_rows(mixed()), plan())
    rows = training_rows(chain())
    assert few.fit(rows, plan()) is few.fit_base(rows, plan())


# -- the base that predicts best -------------------------------------------------------------------


@pytest.mark.parametrize(("table", "depends"), [(chain(300), True), (noise(140), False)])
def test_auto_corrects_what_predicts_held_out_rows_best(table, depends):
    rows = training_rows(table)
    base = choose_base("auto", rows, plan(0))
    assert any(getattr(base, "parents", ())) == depends  # a tree without edges is independent
    tree = Tree().fit(rows, plan(0))
    assert rows.held_out_nats(base) <= min(map(rows.held_out_nats, (tree, rows.marginals)))


def test_a_table_too_wide_for_a_tree_does_without(monkeypatch):
    monkeypatch.setattr(exact, "MOST_COUNTED", 10)
    rows = training_rows(chain())
    assert choose_base("auto", rows, plan(0)) is rows.marginals


def test_a_causal_network_corrects_larger_tables_than_its_companion_sums_out():
    """28 columns, each of which follows from three before it but for a few rows."""
    rng, x = np.random.default_rng(0), np.zeros((1000, 28), dtype=int)
    for j in range(28):
        parents = rng.choice(j, min(j, 3), replace=False)
        context = sum(x[:, p] << i for i, p in enumerate(parents)) + np.zeros(len(x), dtype=int)
        x[:, j] = rng.random(len(x)) < rng.choice([0.05, 0.95], 2 ** len(parents))[context]
    rows = training_rows(pd.DataFrame(x).astype(str).add_prefix("c"), n_valid=200)
    fitted = fit_recipe(Causal(width=8), rows, plan(0))
    companion, base = fitted.companion, fitted.denoiser.base
    assert rows.held_out_nats(base) < rows.held_out_nats(companion)
    rows.x[0, 0] = float("nan")  # a larger network would sum out missing cells, too
    assert Causal().corrected(companion, rows, plan(0)) is companion


def test_wide_tables_have_a_network_as_their_base(monkeypatch):
    """Its tables are small where it sums columns out at every call of a network that conditions on all of them."""
    cells = np.random.default_rng(0).integers(2, size=(400, 70))
    cells[:, 5:25] = cells[:, :20] & cells[:, 40:60]
    rows = training_rows(pd.DataFrame(cells).add_prefix("c").astype(str))
    assert max(map(len, choose_base("auto", rows, plan(0)).parents)) > 1
    monkeypatch.setattr(networks, "BASE_WORK", 70 * 9)
    assert Network(8, 1).fit(rows, plan(1)).denoiser.base.work <= 70 * 9
