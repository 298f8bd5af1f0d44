"""Columns that follow from others, in every answer of a density: masses, units, draws and filled cells."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.relations import ColumnTerm, Relation, Term
from discrete_itd.recipes import Causal

KINDS = "tree", ["tree", "independent"], Causal(width=8)
QUICK = [0, 1, pytest.param(2, marks=pytest.mark.slow)]  # of laws that hold whatever predicts


def orders(n, seed, wrong=0.02):
    """Orders whose total is quantity × price, and tax a tenth of the total, but for some wrong totals."""
    rng = np.random.default_rng(seed)
    quantity, price = 1 + rng.poisson(2, n), np.round(rng.lognormal(3, 0.6, n), 2)
    total = np.round(quantity * price, 2)
    total = np.where(rng.random(n) < wrong, np.round(total * 1.3, 2), total)
    tax = np.round(total / 10 + 1e-9, 2)
    kind = rng.choice(["a", "b", "c"], n)
    cells = {"kind": kind, "total": total, "quantity": quantity, "price": price, "tax": tax}
    return pd.DataFrame(cells)


@functools.cache
def fitted(which, unit=1.0):
    table = orders(600, 0)
    for name in ("total", "price", "tax"):
        table[name] = np.round(table[name] * unit, 2)
    model = DiffusionDensity(denoiser=KINDS[which], max_steps=15, random_state=0).fit(table)
    assert {r.child for r in model.encoder_.relations} == {1, 4}
    return model


def is_product(table):
    return np.isclose(table["total"], table["quantity"] * table["price"], atol=0.006)


@pytest.mark.parametrize("which", range(len(KINDS)))
def test_levels_add_up_to_one(which):
    """Masses of a small table of counts, enumerated, with levels for what was never seen; right and wrong equations."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, (2, 400))
    table = pd.DataFrame({"a": a, "b": b, "c": np.where(rng.random(400) < 0.05, 6 - a, a + b)})
    model = DiffusionDensity(denoiser=KINDS[which], max_steps=15, random_state=0).fit(table)
    schema, fit = model.encoder_.schema, model.model_
    assert all(column.has_levels for column in schema)
    sizes = [range(c.points.n_points) for c in schema]
    rows = torch.tensor([*itertools.product(*sizes)], dtype=torch.float64)
    for constant, half, n_follow in ((0.0, 0.0, 380), (2.0, 0.5, 300), (3.5, 1.0, 399)):
        terms = tuple(Term(1.0, (ColumnTerm(j),)) for j in (0, 1))
        relation = Relation(2, terms, constant, 1.0, 0.0, half, (), n_follow, 400)
        model.model_ = replace(fit, encoder=TableEncoder(schema, (), [relation]))
        mass = model.model_.log_prob(rows, 2).log_prob.exp().sum()
        assert float(mass) == pytest.approx(1, abs=1e-5)
        # whatever cell is asked for, its probabilities are ratios of these masses
        for column in table:
            probs = model.predict_proba(table[:3], column)
            at_values = [table[:3].assign(**{column: v}) for v in probs.columns]
            ratios = np.exp(np.array([model.score_samples(t) for t in at_values]).T)
            assert np.allclose(probs, ratios / ratios.sum(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("which", QUICK)
def test_a_row_does_not_depend_on_the_unit(which):
    euros, cents = fitted(which), fitted(which, 100.0)
    rows = orders(40, 1, wrong=0.3)
    in_cents = rows.assign(**{n: np.round(100 * rows[n]) for n in ("total", "price", "tax")})
    got = cents.score_samples(in_cents) + 3 * np.log(100)
    assert np.allclose(got, euros.score_samples(rows), atol=0.03)  # of a training of a network


@pytest.mark.parametrize("which", QUICK)
def test_shares_of_columns_add_up_and_a_child_that_follows_costs_little(which):
    model, rows = fitted(which), orders(60, 2)
    nats = model.explain(rows)
    assert np.allclose(nats.sum(axis=1), -model.score_samples(rows), atol=1e-4)
    alone = [model.score_samples(rows[i : i + 1])[0] for i in range(12)]
    assert np.array_equal(alone, model.score_samples(rows)[:12])
    follows = is_product(rows)
    share = next(r for r in model.encoder_.relations if r.child == 1).share
    # a density per unit: one cent of it
    assert np.allclose(nats["total"][follows] - np.log(0.01), -np.log(share), atol=0.05)
    for given in (["kind"], ["quantity", "total"], ["kind", "total", "price", "tax"]):
        model.explain(rows, given=given)


@pytest.mark.parametrize("which", range(2))
def test_without_a_parent_the_row_has_the_plain_mass(which):
    model, rows = fitted(which), orders(40, 3).assign(price=np.nan, total=np.nan)
    plain = model.model_.plain.log_prob(model.rows(rows).x, 2).log_prob.numpy()
    got = model.model_.log_prob(model.rows(rows).x, 2).log_prob.numpy()
    assert np.array_equal(got, plain)


def test_a_child_sums_to_the_mass_of_the_others():
    """The masses of all totals of a row, each a cent apart, add up to the row's without its total."""
    model, row = fitted(0), orders(1, 4).drop(columns="tax").assign(tax=np.nan)
    totals = np.round(np.arange(0.01, 400, 0.01), 2)
    rows = row.loc[[0] * len(totals)].assign(total=totals)
    mass = np.exp(model.score_samples(rows) + np.log(0.01)).sum()
    assert mass == pytest.approx(np.exp(model.score(row.assign(total=np.nan))), rel=1e-3)


@pytest.mark.parametrize("which", QUICK)
def test_draws_follow_as_often_as_the_table(which):
    model = fitted(which)
    drawn = model.sample(400, random_state=0)
    share = next(r for r in model.encoder_.relations if r.child == 1).share
    assert is_product(drawn).mean() > share - 0.03
    assert np.isclose(drawn["tax"], drawn["total"] / 10, atol=0.0051).mean() > 0.95
    assert np.array_equal(np.round(drawn["total"], 2), drawn["total"])
    drawn = model.sample(50, random_state=0, given={"quantity": 3, "price": 2.25})
    assert np.mean(drawn["total"] == 6.75) > share - 0.1
    drawn = model.sample(50, random_state=0, given={"quantity": 3, "total": 6.75})
    assert np.mean(drawn["price"] == 2.25) > share - 0.1


@pytest.mark.parametrize("method", ["median", "mean", "sample"])
def test_a_filled_total_is_the_product_and_a_filled_price_the_quotient(method):
    model, rows = fitted(0), orders(60, 5, wrong=0.0)
    share = 1.0 if method != "sample" else 0.8
    for gaps in (["total"], ["price"], ["quantity"], ["total", "tax"]):
        empty = rows.assign(**dict.fromkeys(gaps, np.nan))
        filled = model.impute(empty, method=method, random_state=0)
        apart = (filled.drop(columns="kind") - rows.drop(columns="kind")).abs()
        assert (apart.max(axis=1) < 0.011).mean() >= share  # halves of a cent are either
    alone = rows.assign(**dict.fromkeys(["total", "quantity", "price", "tax"], np.nan))
    filled = model.impute(alone, method=method, random_state=0)
    assert is_product(filled).mean() >= share - 0.1


@pytest.mark.parametrize("which", range(len(KINDS)))
def test_predictions_are_those_that_follow(which):
    model, rows = fitted(which), orders(6, 6, wrong=0.0)
    for column in ("total", "price", "tax"):
        middle = model.predict_quantiles(rows, column, 0.5)[0.5]
        assert np.allclose(middle, rows[column], atol=0.011)  # halves of a cent are either
        others = [name for name in rows if name != column]
        given = model.log_prob(rows, given=others).log_prob
        at_value = np.diag(model.predict_log_density(rows, column, rows[column]))
        assert np.allclose(given, at_value, atol=0.05)


def test_the_detector_asks_the_plain_model():
    model, rows = fitted(1), orders(40, 7)
    scorer = Scorer(model)
    assert scorer.model.scorer is model.model_.denoiser
    assert scorer.model is scorer.model  # terms are kept for one model
    (nats,) = scorer._nats(model.rows(rows), scorer.model)
    model_rows = model.rows(rows)
    plain = model.model_.plain.log_prob(model_rows.x, 2).log_prob.numpy()
    assert np.allclose(-nats.sum(1), plain + model_rows.log_volume.sum(1), atol=1e-5)


@pytest.mark.parametrize("which", range(2))
def test_a_column_of_no_relation_is_answered_by_what_the_others_follow_from(which):
    model, rows = fitted(which), orders(20, 8, wrong=0.3)
    probs = model.predict_proba(rows, "kind")
    scores = [model.score_samples(rows.assign(kind=kind)) for kind in probs.columns]
    ratios = np.exp(np.array(scores).T)
    assert np.allclose(probs, ratios / ratios.sum(1, keepdims=True), atol=0.01)


def test_text_with_a_number_in_it_is_a_parent_that_is_never_solved_for():
    rng = np.random.default_rng(0)
    pack, n_packs = rng.choice([6, 12, 20, 45, 60], 400), rng.integers(1, 60, 400)
    table = pd.DataFrame({"pack": [f"{p} pcs" for p in pack], "packs": n_packs})
    table["pieces"] = pack * n_packs
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(table)
    assert model.encoder_.related.children == (2,)
    filled = model.impute(table.assign(pieces=np.nan))
    assert np.mean(filled["pieces"] == table["pieces"]) > 0.99
    filled = model.impute(table.assign(pack=None))
    assert set(filled["pack"]) <= set(table["pack"])
    drawn = model.sample(200, random_state=0)
    assert set(drawn["pack"]) <= set(table["pack"])
    numbers = drawn["pack"].str.removesuffix(" pcs").astype(int)
    assert np.mean(drawn["pieces"] == numbers * drawn["packs"]) > 0.95


def test_dates_follow_from_one_another_and_from_days_in_whatever_week():
    rng = np.random.default_rng(0)
    ordered = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 200, 400)), "D")
    days = 1 + rng.poisson(4, 400)
    left = ordered + pd.to_timedelta(days, "D")
    table = pd.DataFrame({"ordered": ordered, "days": days, "left": left})
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(table)
    assert model.encoder_.times is not None
    assert len(model.encoder_.related.children) == 1
    rows, later = table[:30], table[:30].copy()
    for name in ("ordered", "left"):
        later[name] += pd.Timedelta(weeks=9)
    assert np.array_equal(model.score_samples(rows), model.score_samples(later))
    plain = model.model_.plain.log_prob(model.rows(rows).x, 2).log_prob.numpy()
    assert (
        model.model_.log_prob(model.rows(rows).x, 2).log_prob.numpy() > plain + 0.5
    ).mean() > 0.9
    for name in table:
        filled = model.impute(later.assign(**{name: pd.NaT if name != "days" else np.nan}))
        assert np.array_equal(filled[name], later[name])
    drawn = model.sample(200, random_state=0)
    assert np.mean((drawn["left"] - drawn["ordered"]).dt.days == drawn["days"]) > 0.97
