"""Which columns' gaps carry information, and "absent" as a value of these."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.encoders import TableEncoder


def table(n, rng):
    kind = rng.integers(3, size=n)
    return pd.DataFrame(
        {
            "kind": np.array(["own", "rent", "let"])[kind],
            "price": np.exp(kind + 0.3 * rng.normal(size=n)),
            "colour": rng.choice(["red", "blue"], n),
            "size": np.round(kind + rng.normal(size=n), 2),
        }
    )


def absent(frame, **options):
    encoder = TableEncoder.fit(frame, missing="auto", **options)
    return [column.name for column in encoder.schema if column.absent]


def test_gaps_at_random_are_summed_out():
    """In nearly all draws; by chance, a column in forty would not be."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        frame = table(800, rng)
        found += absent(frame.mask(rng.random(frame.shape) < 0.2))
    assert len(found) <= 2


@pytest.mark.parametrize("by", ["a cell", "another gap", "a number"])
@pytest.mark.parametrize("name", ["price", "colour"])
def test_gaps_that_mean_something_are_values(by, name):
    rng = np.random.default_rng(0)
    frame = table(800, rng)
    gone = rng.random(800) < 0.3
    if by == "a cell":
        gone &= frame["kind"] == "let"
    elif by == "a number":
        gone &= frame["size"] > 1.5
    else:
        frame["other"] = rng.normal(size=800)
        frame.loc[gone, "other"] = np.nan
    frame.loc[gone, name] = np.nan
    found = absent(frame)
    assert found == ([name, "other"] if by == "another gap" else [name])
    assert not absent(frame, columns={c: {"missing": "marginalise"} for c in found})
    described = TableEncoder.fit(frame, missing="auto").describe().set_index("column")
    assert described["gaps"].eq("a value").sum() == len(found)


def test_properties_columns_of_many_categories_do_not_hide_what_predicts_a_gap():
    """By chance they predict the rows they were counted in better: as many nats are taken off as they have levels."""
    rng = np.random.default_rng(0)
    names = [f"noise {k}" for k in range(4)]
    frame = pd.DataFrame(rng.integers(31, size=(800, 4)).astype(str), columns=names)
    frame["paid"] = rng.choice(["yes", "no"], 800)
    frame["price"] = rng.normal(size=800)
    frame.loc[rng.random(800) < np.where(frame["paid"] == "yes", 0.18, 0.42), "price"] = np.nan
    assert absent(frame) == ["price"]
    assert not absent(frame.drop(columns="paid"))


@pytest.mark.parametrize("denoiser", ["tree", "forest", "independent"])
def test_properties_patterns_and_cells_sum_to_one(denoiser):
    """Over every category or none; a row in which it is not known is their sum, and has that probability."""
    rng = np.random.default_rng(1)
    frame = table(600, rng)[["kind", "colour"]]
    frame.loc[(frame["kind"] == "let") & (rng.random(600) < 0.6), "colour"] = None
    model = DiffusionDensity(denoiser=denoiser, random_state=0, handle_unknown="error").fit(frame)
    assert [c.absent for c in model.encoder_.schema] == [False, True]
    kinds, colours = ["own", "rent", "let"], ["red", "blue", None]
    every = pd.DataFrame([(k, c) for k in kinds for c in colours], columns=["kind", "colour"])
    p = np.exp(model.score_samples(every)).reshape(3, 3)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    known = np.exp(model.log_prob(every, given=["kind"]).log_prob).reshape(3, 3)
    np.testing.assert_allclose(known, p / p.sum(1, keepdims=True), rtol=1e-4)
    alone = np.exp(model.score_samples(model.rows(every[::3], ignore="colour")))
    np.testing.assert_allclose(alone, p.sum(1), rtol=1e-4)
    if denoiser == "tree":
        assert p[2, 2] > 0.4 * p[2].sum()
        assert p[0, 2] < 0.05 * p[0].sum()


@pytest.mark.parametrize("denoiser", ["tree", "forest"])
def test_properties_numbers_with_atoms_integrate_to_one(denoiser):
    """Over their values, or none; "there, but unknown" and "unknown whether" are sums and integrals of these."""
    rng = np.random.default_rng(4)
    frame = table(1200, rng)[["kind", "price"]]
    frame["rooms"] = np.where(frame["kind"] == "own", 3, 1) + rng.integers(2, size=1200)
    frame.loc[(frame["kind"] == "let") & (rng.random(1200) < 0.7), ["rooms", "price"]] = np.nan
    columns = {"rooms": {"kind": "ordinal", "categories": [1, 2, 3, 4]}}
    how = {"column_types": columns, "handle_unknown": "error", "random_state": 0}
    model = DiffusionDensity(denoiser=denoiser, **how).fit(frame)
    assert model.encoder_.owner.tolist() == [0, 1, 2, 1, 2]
    edges = np.exp(np.linspace(-4, 7, 1101))
    price = [*(edges[1:] / 2 + edges[:-1] / 2), np.nan]
    width = [*np.diff(edges), 1.0]
    kinds, rooms = ["own", "rent", "let"], [1, 2, 3, 4, np.nan]
    every = pd.DataFrame(
        [(k, v, r) for k in kinds for r in rooms for v in price], columns=["kind", "price", "rooms"]
    )
    x = model.rows(every).x
    p = np.exp(model.score_samples(every)).reshape(3, 5, -1) * width
    assert p.sum() == pytest.approx(1, abs=0.005)
    assert p[2, 4, -1] > 0.5 * p[2].sum()
    one = x[:: len(price)].clone()  # of each kind and number of rooms
    is_there = np.flatnonzero(model.encoder_.owner == 1)[1]
    one[:, 1] = np.nan
    for is_present, expected in ((0.0, p[..., :-1].sum(2)), (np.nan, p.sum(2))):
        one[:, is_there] = is_present
        got = np.exp(model.model_.log_prob(one, 2).log_prob.numpy()).reshape(3, 5)
        np.testing.assert_allclose(got, expected, rtol=0.02, atol=1e-4)


def test_answers_about_a_column_with_gaps_as_a_value():
    """Predictions and filled cells are categories; drawn rows have the gaps of the table."""
    rng = np.random.default_rng(2)
    frame = table(1500, rng)
    frame.loc[frame["kind"] == "let", ["colour", "price"]] = np.nan
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    probability = model.predict_proba(frame[:50], "colour")
    assert probability.columns.tolist() == ["blue", "red"]
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-9)
    for method in ("median", "sample"):
        filled = model.impute(frame[:200], method=method, random_state=0)
        assert filled.notna().all(axis=None)
        pd.testing.assert_frame_equal(filled.where(frame[:200].notna()), frame[:200])
    drawn = model.sample(2000, random_state=0)
    is_let = drawn["kind"] == "let"
    assert drawn.loc[is_let, "colour"].isna().mean() > 0.9
    assert drawn.loc[~is_let, ["colour", "price"]].isna().mean().max() < 0.05
    given = model.sample(500, given={"kind": "own"}, random_state=0)
    assert given["colour"].isna().mean() < 0.05


def test_unreadable_cells_are_neither_values_nor_gaps():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"a": rng.choice(["x", "y"], 400), "n": rng.normal(size=400).round(3)})
    frame.loc[frame["a"] == "y", "n"] = np.nan
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    asked = pd.DataFrame({"a": ["x", "x", "x"], "n": ["0.5", "#REF!", None]}, dtype=object)
    with pytest.warns(UserWarning, match="#REF!"):
        rows = model.rows(asked)
    assert model.encoder_.owner.tolist() == [0, 1, 1]
    assert np.isnan(rows.cells[:, 1:]).sum(1).tolist() == [0, 2, 1]
    there, unknown, gone = model.score_samples(rows)
    assert gone < unknown
    alone = model.score_samples(model.rows(asked[:1], ignore="n"))[0]
    assert unknown == pytest.approx(alone)
    assert there < alone
