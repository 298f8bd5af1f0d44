"""Choosing among exact denoisers, and which of them a network corrects."""

import pytest
from fits import chain, mixed, noise, plan, training_rows

from discrete_itd.denoisers import BayesNetDenoiser
from discrete_itd.models import exact
from discrete_itd.models.exact import choose_base
from discrete_itd.recipes import Mixture, Trees

TREE, MARGINALS = "BayesNetDenoiser", "MarginalDenoiser"

# -- exact denoisers -------------------------------------------------------------------------------


def test_the_tree_is_smoothed_as_held_out_rows_ask():
    rows = training_rows(chain(200))
    tree = Trees().fit(rows, plan())
    fits = [
        BayesNetDenoiser.fit_tree(rows.marginals, rows.x, pseudo_count=a, penalty=exact.PENALTY)
        for a in exact.PSEUDO_COUNTS
    ]
    assert rows.held_out_nats(tree) == min(map(rows.held_out_nats, fits))
    assert Trees().fit(rows, plan()) is tree  # not fitted twice


def test_classes_are_as_many_as_held_out_rows_ask(monkeypatch):
    monkeypatch.setattr(exact, "FEWEST_CLASSES", 1)
    monkeypatch.setattr(exact, "CLASS_FACTOR", 3)
    rows = training_rows(chain(400, flip=0.02))
    some = Mixture().fit(rows, plan())
    assert some.n_components in (3, 9, 27)
    assert rows.held_out_nats(some) < rows.held_out_nats(rows.marginals)
    other = training_rows(noise(400))
    one, chosen = (m.fit(other, plan()) for m in (Mixture(1), Mixture()))
    assert other.held_out_nats(chosen) <= other.held_out_nats(one)
    assert Mixture(5).fit(rows, plan()).n_components == 5


def test_a_mixture_leaves_continuous_columns_independent_only_as_a_base():
    rows = training_rows(mixed())
    member, base = Mixture(2).fit(rows, plan()), Mixture(2).fit_base(rows, plan())
    assert member.means.shape[1] == 2
    assert base.means.shape[1] == 0
    rows = training_rows(chain())
    assert Mixture(2).fit(rows, plan()) is Mixture(2).fit_base(rows, plan())


# -- the base that predicts best -------------------------------------------------------------------


@pytest.mark.parametrize(("table", "depends"), [(chain(300), True), (noise(140), False)])
def test_auto_corrects_what_predicts_held_out_rows_best(table, depends):
    rows = training_rows(table)
    base = choose_base("auto", rows, plan(0))
    assert any(getattr(base, "parents", ())) == depends  # a tree without edges is independent
    tree = Trees().fit(rows, plan(0))
    assert rows.held_out_nats(base) <= min(map(rows.held_out_nats, (tree, rows.marginals)))


def test_a_table_too_wide_for_a_tree_does_without(monkeypatch):
    monkeypatch.setattr(exact, "TREE_TABLE", 10)
    rows = training_rows(chain())
    assert choose_base("auto", rows, plan(0)) is rows.marginals
