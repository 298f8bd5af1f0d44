"""The distribution of one column given the others: densities against scores of rows, quantiles against densities."""

import itertools

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Causal, Forest, Mixture
from tests.examples import float64

EXACT = {
    "bayes_net": "bayes_net",
    "forest": Forest(2),
    "mixture": Mixture(16, n_latent=2, n_points=16, max_steps=20),
}
QUANTILES = [0.01, 0.1, 0.25, 0.5, 0.9, 0.99]


def table(n, seed=0):
    """One hidden level, and a column of each kind that follows it."""
    rng = np.random.default_rng(seed)
    k = rng.integers(3, size=n)
    days = pd.to_timedelta(20 * k + rng.integers(0, 30, n), unit="D")
    return pd.DataFrame(
        {
            "word": np.array(["low", "mid", "top"])[k],
            "cents": rng.normal(3.0 * k, 1.0).round(1),
            "real": np.where(rng.random(n) < 0.2, np.nan, rng.normal(k, 0.5)),
            "day": pd.Timestamp("2024-01-01") + days,
            "count": rng.poisson(2 + 3 * k),
            "grade": pd.Categorical.from_codes((k + rng.integers(0, 2, n)).clip(max=2), ["S", "M", "L"], ordered=True),
        },
        index=[f"row {i}" for i in range(n)],
    )  # fmt: skip


TABLE = table(300)
ROWS = TABLE[:8].assign(word=TABLE["word"][:8].mask([True] + 7 * [False]))
TYPES = {"cents": "continuous", "count": "ordinal"}
# more values than have any probability
GRIDS = {
    "cents": np.arange(-600, 1200) / 10,
    "real": np.linspace(-10, 10, 2001),
    "day": pd.date_range("2022-01-01", "2026-12-31"),
    "count": np.arange(0, 40),
    "grade": ["S", "M", "L"],
}
UNITS = {"cents": 0.1, "real": 0.01, "day": 86_400.0}  # seconds


@pytest.fixture(scope="module", params=EXACT)
def model(request):
    with float64():
        how = {"column_types": TYPES, "missing": "marginalise", "random_state": 0}
        return DiffusionDensity(denoiser=EXACT[request.param], **how).fit(TABLE)


def by_scores(model, row, column, values):
    """Log-probabilities of a row with each of some values, given its other cells."""
    rows = pd.concat([row] * len(values), ignore_index=True)
    cells = pd.Series(values, dtype=rows[column].dtype) if column == "grade" else values
    others = [c for c in rows if c != column]
    return model.log_prob(rows.assign(**{column: cells}), given=others).log_prob


@pytest.mark.parametrize("column", ["word", *GRIDS])
def test_property_a_density_is_that_of_scores_given_the_other_cells(model, column):
    """Of values never seen and far away, too. Of a mixture nearly: it takes others that are coarse for Gaussians."""
    values = [
        *TABLE[column].dropna()[:6],
        *GRIDS.get(column, ["new"])[:: len(GRIDS.get(column, "-")) // 8 or 1],
    ]
    found = model.predict_log_density(ROWS, column, values)
    assert found.index.equals(ROWS.index)
    assert found.columns.equals(pd.Index(values))
    for i in (0, 5):
        tolerance = 0.03 if isinstance(EXACT["mixture"], type(model.denoiser)) else 1e-6
        expected = by_scores(model, ROWS[i : i + 1], column, values)
        np.testing.assert_allclose(found.iloc[i], expected, rtol=tolerance, atol=tolerance)
    moved = ROWS.assign(**{column: ROWS[column].to_numpy()[::-1]})
    pd.testing.assert_frame_equal(found, model.predict_log_density(moved, column, values))


@pytest.mark.parametrize("column", ["word", "real"])
def test_property_where_gaps_are_a_value_a_cell_is_missing_or_has_a_density(column):
    missing = TABLE.assign(word=TABLE["word"].mask(np.arange(300) % 5 == 0))
    with float64():
        model = DiffusionDensity(denoiser=Forest(2), missing="category", random_state=0)
        model.fit(missing)
        row = missing.dropna()[:1]
        absent = np.exp(by_scores(model, row, column, [None])[0])
        value = row[column].item()
        density = model.predict_log_density(row, column, [value]).to_numpy()[0, 0]
        expected = by_scores(model, row, column, [value])[0]
    assert 1e-5 < absent < 0.999
    assert np.log1p(-absent) + density == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("column", GRIDS)
def test_property_quantiles_invert_the_sum_of_densities(model, column):
    mass = np.exp(model.predict_log_density(ROWS, column, GRIDS[column])) * UNITS.get(column, 1.0)
    total = mass.sum(axis=1)
    least = 0.9 if column == "count" else 0.98  # others are those never seen
    rounding = 0.02 if column == "real" else 2e-3  # of a sum for an integral
    assert ((total > least) & (total < 1 + rounding)).all()
    up_to = mass.cumsum(axis=1).div(total, axis=0).to_numpy()
    found = model.predict_quantiles(ROWS, column, QUANTILES)
    assert found.index.equals(ROWS.index)
    assert found.columns.tolist() == QUANTILES
    assert (found.dtypes == TABLE[column].dtype).all()
    grid = pd.Series(GRIDS[column]).astype(TABLE[column].dtype)
    for q in QUANTILES:
        place = np.stack([(grid <= v).sum() for v in found[q]]) - 1
        at = np.arange(len(ROWS))
        assert (up_to[at, place] > q - rounding).all()
        assert (up_to[at, place - 1] * (place > 0) < q + rounding).all()
    steps = itertools.pairwise(QUANTILES)
    assert all((found[low] <= found[high]).all() for low, high in steps)


def test_property_quantiles_of_levels_invert_predict_proba(model):
    for column in ("count", "grade"):
        proba = model.predict_proba(ROWS, column)
        up_to = proba.cumsum(axis=1)
        for q, values in model.predict_quantiles(ROWS, column, QUANTILES).items():
            assert values.tolist() == (up_to >= q).idxmax(axis=1).tolist()


@pytest.mark.parametrize("column", ["cents", "real", "day"])
def test_property_shares_of_draws_below_quantiles(model, column):
    drawn = model.sample(600, random_state=0, missing="none")
    found = model.predict_quantiles(drawn, column, [0.05, 0.3, 0.8])
    for q, values in found.items():
        error = 4 * np.sqrt(q * (1 - q) / len(drawn)) + 1e-3
        assert (drawn[column] <= values).mean() > q - error
        assert (drawn[column] < values).mean() < q + error


@pytest.mark.parametrize("column", ["fee", "step"])
def test_property_draws_beside_repeated_numbers_have_the_quantiles(column):
    """Where many rows share the least number, and where numbers off a lattice are seen again and again."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=400)
    values = {
        "fee": np.where(rng.random(400) < 0.3, 0.0, np.exp(rng.normal(kind, 1))),
        "step": np.exp(rng.normal(kind, 1).round(1)),
    }
    frame = pd.DataFrame({"kind": np.array(["a", "b", "c"])[kind], "value": values[column]})
    how = {"column_types": {"value": "continuous"}, "random_state": 0}
    model = DiffusionDensity(denoiser=Forest(4), **how).fit(frame)
    drawn = model.sample(2000, random_state=1, given={"kind": "a"})["value"]
    row = frame[frame["kind"] == "a"][:1]
    for q, value in model.predict_quantiles(row, "value", [0.02, 0.3, 0.6, 0.9]).iloc[0].items():
        error = 4 * np.sqrt(q * (1 - q) / len(drawn))
        assert (drawn <= value).mean() > q - error
        assert (drawn < value).mean() < q + error


def test_a_network_has_the_quantiles_of_its_own_scores():
    few = TABLE[["word", "cents", "count"]]
    model = DiffusionDensity(denoiser=Causal(width=8, depth=1), max_steps=5, random_state=0).fit(
        few[:150]
    )
    assert model.model_.companion is not None
    grid = GRIDS["cents"][400:1000]
    found, row = model.predict_quantiles(few[:1], "cents", QUANTILES), few[:1]
    scores = by_scores(model, row, "cents", grid)
    said = model.predict_log_density(row, "cents", grid).iloc[0]
    assert abs(np.exp(scores) - np.exp(said)).sum() * 0.1 < 0.02
    up_to = np.cumsum(np.exp(scores)) * 0.1
    for q, value in found.iloc[0].items():
        place = np.searchsorted(grid, value - 1e-9)
        assert up_to[place - 1] - 0.01 < q < up_to[place] + 0.01


def test_text_of_numbers_arrays_and_single_questions():
    frame = TABLE[["word"]].assign(price=[f"${v:,.2f}" for v in np.exp(TABLE["cents"])])
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    number = model.predict_quantiles(frame[:2], "price", 0.5).iloc[0, 0]
    middle = np.median(np.exp(TABLE["cents"]))
    assert abs(np.log(number / middle)) < 0.5
    text, plain = (
        model.predict_log_density(frame[:2], "price", [v]) for v in ("$1,234.50", 1234.5)
    )
    np.testing.assert_array_equal(text, plain)
    numbers = TABLE[["cents", "real"]].to_numpy()
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(numbers)
    assert model.predict_quantiles(numbers[:3], 1).shape == (3, 3)


def test_refusals(model):
    cases = [
        ("predict_quantiles", ("word",), "column 'word': nominal, .* no quantiles"),
        ("predict_quantiles", ("q",), "column 'q': the model has no such column"),
        ("predict_quantiles", ("cents", []), "quantiles must be at least one"),
        ("predict_quantiles", ("cents", [0.5, 1.0]), "quantiles must be between 0 and 1, got 1.0"),
        (
            "predict_log_density",
            ("cents", [1.0, None]),
            "column 'cents': values must not be missing",
        ),
        (
            "predict_log_density",
            ("cents", ["#REF!"]),
            "column 'cents': expected numbers, got '#REF!'",
        ),
    ]
    for method, arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            getattr(model, method)(ROWS, *arguments)


OWN_VALUES = {
    "decimals as text": ["0.0", "1.5"],
    "decimal commas": ["0,5", "1,5"],
    "money": ["$0.50", "$1,000.00"],
    "digits as text": ["007", "010"],
    "words": ["no", "yes"],
    "truths": [False, True],
    "whole numbers": [0, 1],
    "numbers": [0.0, 1.5],
}


@pytest.mark.parametrize("name", OWN_VALUES)
def test_probabilities_are_labelled_by_the_values_of_the_table(name):
    values = OWN_VALUES[name]
    table = pd.DataFrame({"label": values * 30, "x": ["u", "v", "w"] * 20})
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(table)
    labels = model.predict_proba(table, "label").columns.tolist()
    assert labels == values
    assert [*map(type, labels)] == [*map(type, values)]
