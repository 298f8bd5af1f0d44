"""What is believed of a cell given the rest, against enumeration and against the model's own conditionals."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.denoisers import MarginalDenoiser, SupportDenoiser
from discrete_itd.detection.cells import Cell, assess, given_others, mean_log_volume
from discrete_itd.detection.reasons import cell_nats, expected
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import Column
from discrete_itd.encoders.numeric import fit_bins
from discrete_itd.recipes import Network

pytestmark = pytest.mark.single_precision

QUICK = {
    "denoiser": Network(width=16, depth=1, base="independent"),
    "max_steps": 40,
    "n_evaluations": 16,
    "random_state": 0,
}
QUICK |= {"schedule": "coordinate"}
FEW_STEPS = {**QUICK, "max_steps": 10, "schedule": CoordinateSchedule(2)}
LEVELS = {"a": ["x", "y", "z"], "b": ["u", "v"], "c": ["s", "t"]}
ROWS = pd.DataFrame(list(itertools.product(*LEVELS.values())), columns=list(LEVELS))


def conflicts(scorer, x, column, n_rivals=4):
    """Of a row (1, C'), by how much each rival's predicted value decreases the surprisal of a cell: by column, nats.

    The rivals are the cells that are most likely wrong; of every question, all cells are asked again.
    """
    whole, every = assess(scorer, x), torch.ones_like(x, dtype=torch.bool)
    q, gains = given_others(scorer, x, every), {}
    for j in np.argsort(-whole.error_log_odds[0], kind="stable")[:n_rivals]:
        if j != column:
            told = Cell.of(scorer, q, int(j), torch.tensor([0])).put_into(x)
            change = whole.given_others - assess(scorer, told).given_others
            gains[int(j)] = change[0, column]
    return gains


def with_denoiser(density, denoiser, marginals=None):
    """The same model with another denoiser, and other independent columns."""
    changes = {"denoiser": denoiser} | ({} if marginals is None else {"marginals": marginals})
    density.model_ = dataclasses.replace(density.model_, **changes)
    return density


def exact_density(seed=0, **changes):
    """A density over three columns of categories that is a known table of probabilities, in the order of ROWS."""
    p = np.random.default_rng(seed).dirichlet([0.5] * len(ROWS)) + 0.002
    p /= p.sum()
    density = DiffusionDensity(
        **{**QUICK, "max_steps": 0, "handle_unknown": "error", "column_types": "nominal", **changes}
    ).fit(ROWS)
    book = density.encoder_.codebook()
    x = density.rows(ROWS).x
    oracle = SupportDenoiser(book, x, torch.tensor(p).to(book.dtype))
    marginals = [np.bincount(x[:, j].long(), weights=p) for j in range(3)]
    slots = torch.zeros(book.levels.n_points).to(book.dtype)
    for j, m in enumerate(marginals):
        codes = torch.zeros(len(m), 3, dtype=torch.int64)
        codes[:, j] = torch.arange(len(m))
        slots[book.levels.index_of(codes)[:, j]] = torch.tensor(m).to(book.dtype)
    density = with_denoiser(density, oracle, MarginalDenoiser(book, slots))
    return density, pd.Series(p), [marginals[j] for j in range(3)]


def conditional(p, j):
    """P(x_j | rest) of every row of ROWS, and the entropy of that distribution, by sums."""
    rest = [c for c in ROWS if c != ROWS.columns[j]]
    given = p / p.groupby([ROWS[c] for c in rest]).transform("sum")
    terms = -given * np.log(given)
    return given, terms.groupby([ROWS[c] for c in rest]).transform("sum")


def mixed_table(n=400, seed=0):
    """A skewed positive number, counts with many ties, a level of many numbers and two words."""
    rng = np.random.default_rng(seed)
    k = rng.integers(3, size=n)
    return pd.DataFrame(
        {
            "word": np.array(["low", "mid", "top"])[k],
            "size": np.exp(rng.normal(0.7 * k, 0.4)),
            "count": np.where(rng.random(n) < 0.4, 0, rng.poisson(3.0 + 4 * k)),
            "level": rng.integers(0, 15, n) + 5 * k,
            "flag": rng.random(n) < 0.2 + 0.3 * k,
        },
        index=[f"row {i}" for i in range(n)],
    )


KINDS = {"size": "continuous", "count": {"kind": "binned", "bins": 8}, "level": "ordinal"}
TABLE = mixed_table()


@functools.cache
def mixed_model():
    """Fitted once for all tests of a process."""
    return DiffusionDensity(**{**QUICK, "max_steps": 250}, column_types=KINDS).fit(TABLE)


@pytest.fixture(scope="module")
def model():
    return mixed_model()


def conditional_on_grid(model, row, name, grid):
    """Log-probability or -density in the column's unit of each value, given the rest of the row."""
    rows = pd.concat([row] * len(grid), ignore_index=True).assign(**{name: grid})
    return model.log_prob(rows, given=[c for c in rows if c != name]).log_prob


# -- against enumeration --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_cells_against_enumeration(seed):
    density, p, marginals = exact_density(seed)
    nats = cell_nats(density, ROWS)
    for j, name in enumerate(ROWS):
        given, entropy = conditional(p, j)
        own = marginals[j][[LEVELS[name].index(v) for v in ROWS[name]]]
        np.testing.assert_allclose(nats.given_others[name], -np.log(given), rtol=1e-4)
        np.testing.assert_allclose(nats.entropy[name], entropy, atol=1e-4)
        np.testing.assert_allclose(nats.marginal[name], -np.log(own), rtol=1e-4)
        wrong = 0.5 * own + 0.5 / len(LEVELS[name])
        doubt = np.log((1 - given) * wrong / given)
        np.testing.assert_allclose(nats.error_log_odds[name], doubt, atol=1e-3)


def test_the_mean_surprise_is_the_expected_one():
    density, p, _ = exact_density()
    nats = cell_nats(density, ROWS)
    for name in ROWS:
        assert math.isclose(p @ nats.given_others[name], p @ nats.entropy[name], rel_tol=1e-4)


def test_a_missing_cell_has_no_surprise_and_tells_nothing():
    density, p, _ = exact_density()
    rows = ROWS.assign(b=None)
    nats = cell_nats(density, rows)
    assert (nats.given_others["b"] == 0).all()
    assert (nats.entropy["b"] == 0).all()
    assert (nats.marginal["b"] == 0).all()
    assert np.isneginf(nats.error_log_odds["b"]).all()
    pair = p.groupby([ROWS["a"], ROWS["c"]]).transform("sum")
    given = pair / p.groupby(ROWS["c"]).transform("sum")
    np.testing.assert_allclose(nats.given_others["a"], -np.log(given), rtol=1e-4)


def test_doubt_finds_the_wrong_cell():
    """One cell in each row drawn from rows at large: the doubt ranks it above what the surprise alone says."""
    density, p, _ = exact_density(3)
    rng = np.random.default_rng(0)
    rows = ROWS.iloc[rng.choice(len(ROWS), 3000, p=p)].reset_index(drop=True)
    other = ROWS.iloc[rng.choice(len(ROWS), 3000, p=p)].reset_index(drop=True)
    column = rng.integers(3, size=3000)
    spoilt = rows.where(np.arange(3) != column[:, None], other)
    changed = (spoilt != rows).any(axis=1).to_numpy()
    nats = cell_nats(density, spoilt[changed])
    hits = [
        (t.to_numpy().argmax(1) == column[changed]).mean()
        for t in (nats.error_log_odds, nats.marginal)
    ]
    assert hits[0] > 0.45
    assert hits[0] > hits[1] + 0.05


# -- against the model's own conditionals ---------------------------------------------------------


def test_surprise_given_the_rest_is_the_conditional(model):
    rows = TABLE[:30]
    nats = cell_nats(model, rows)
    for name in rows:
        rest = model.log_prob(rows, given=[c for c in rows if c != name]).log_prob
        np.testing.assert_allclose(nats.given_others[name], -rest, atol=1e-4)


def test_the_marginals_are_those_of_independent_columns():
    untrained = DiffusionDensity(**{**QUICK, "max_steps": 0}, column_types=KINDS).fit(TABLE)
    rows = TABLE[:30]
    nats = cell_nats(untrained, rows)
    np.testing.assert_allclose(nats.marginal, untrained.explain(rows), atol=1e-4)
    np.testing.assert_allclose(nats.marginal, nats.given_others, atol=1e-4)


@pytest.mark.parametrize("name", ["size", "count", "level", "word"])
def test_entropy_and_interval_against_a_grid(model, name):
    """Sums over a grid of all values, in the column's own unit."""
    for i in range(2):
        row = TABLE[i : i + 1]
        grid = {
            "size": np.exp(np.linspace(-9, 9, 8001)),
            "count": np.arange(-150, 400),
            "level": np.unique(TABLE["level"]),
            "word": np.array(["low", "mid", "top"]),
        }[name]
        log_p = conditional_on_grid(model, row, name, grid)
        weight = np.gradient(grid) if name == "size" else np.ones(len(grid))
        mass = np.exp(log_p) * weight
        assert abs(mass.sum() - 1) < 0.02  # the rest is that of unseen categories
        entropy = -(mass * log_p).sum()
        assert abs(cell_nats(model, row).entropy[name].iloc[0] - entropy) < 0.03
        told = expected(model, row, [name]).iloc[0]
        if name == "word":
            assert told["expected"] == grid[mass.argmax()]
            assert abs(told["probability"] - mass.max() / mass.sum()) < 1e-4
            continue
        low, median, high = told["low"], told["expected"], told["high"]
        inside = mass[(grid >= low) & (grid <= high)].sum() / mass.sum()
        assert inside > 0.79
        if name == "count":  # of whole numbers, the ends are inside
            assert told["probability"] - 0.01 < inside
        else:
            assert abs(inside - told["probability"]) < 0.01
        assert mass[grid <= median].sum() / mass.sum() > 0.49
        assert mass[grid >= median].sum() / mass.sum() > 0.49
        assert mass[grid < low].sum() / mass.sum() < 0.11
        assert mass[grid > high].sum() / mass.sum() < 0.11


def test_the_likeliest_values_are_those_of_predict_proba(model):
    rows = TABLE[:20]
    told = expected(model, rows, ["word", "flag"])
    for name in ("word", "flag"):
        proba = model.predict_proba(rows, name)
        for label, lines in told[told["column"] == name].groupby("row"):
            own = proba.loc[label].sort_values(ascending=False)[:3]
            assert lines["expected"].tolist() == own.index.tolist()
            np.testing.assert_allclose(lines["probability"], own, atol=1e-4)
            assert lines["rank"].tolist() == list(range(1, len(own) + 1))


def test_times_are_told_as_times():
    rng = np.random.default_rng(0)
    hours = rng.integers(0, 5000, 300)
    frame = pd.DataFrame(
        {
            "when": pd.Timestamp("2021-03-01") + pd.to_timedelta(hours, unit="h"),
            "late": hours > 2500,
        }
    )
    for kind in ("continuous", {"kind": "binned", "bins": 6}):
        density = DiffusionDensity(**{**QUICK, "max_steps": 20}, column_types={"when": kind}).fit(
            frame
        )
        row = frame[:1]
        grid = pd.Timestamp("2020-06-01") + pd.to_timedelta(np.arange(0, 14000, 6), unit="h")
        log_p = conditional_on_grid(density, row, "when", grid)
        mass = np.exp(log_p) * 6 * 3600  # a density per second
        entropy = -(mass * log_p).sum() / mass.sum()
        assert abs(cell_nats(density, row).entropy["when"].iloc[0] - entropy) < 0.05
        told = expected(density, row, ["when"]).iloc[0]
        inside = mass[(grid >= told["low"]) & (grid <= told["high"])].sum() / mass.sum()
        assert abs(inside - 0.8) < 0.02


@pytest.mark.parametrize("whole", [True, False])
def test_mean_log_volumes_of_bins_against_sums(whole):
    """Of every slot, tails among them, from the density of its values one by one."""
    values = np.random.default_rng(0).geometric(0.1, 500) * 1.0
    codec = fit_bins(values, whole, edges=np.array([1.0, 2.0, 5.0, 12.0]))
    column = Column("n", np.dtype(float), codec, 500, 0)
    grid = np.arange(-900.0, 900.0) if whole else np.linspace(-900, 900, 3_600_001)
    slot, log_density = codec.encode(grid)
    mass = np.exp(log_density) * (1 if whole else grid[1] - grid[0])
    total = np.bincount(slot.astype(int), mass * log_density)
    assert np.allclose(np.bincount(slot.astype(int), mass), 1, atol=1e-3)
    np.testing.assert_allclose(mean_log_volume(column), total, atol=5e-3)


# -- the odd and the missing ----------------------------------------------------------------------


def test_missing_as_a_category():
    """All values of a cell and its being missing are one distribution."""
    rng = np.random.default_rng(1)
    a = rng.random(500) < 0.5
    gone = rng.random(500) < np.where(a, 0.7, 0.1)
    frame = pd.DataFrame({"a": a, "b": pd.Series(rng.choice(["u", "v"], 500)).mask(gone)})
    frame["c"] = pd.Series(rng.choice(["s", "t"], 500)).mask(gone & (rng.random(500) < 0.9))
    density = DiffusionDensity(**QUICK, missing="category", handle_unknown="error").fit(frame)
    rows = pd.DataFrame({"a": True, "b": ["u", "v", None], "c": None})
    nats = cell_nats(density, rows)
    p = np.exp(-nats.given_others["b"])
    assert math.isclose(p.sum(), 1, abs_tol=1e-5)
    np.testing.assert_allclose(nats.entropy["b"], -(p * np.log(p)).sum(), atol=1e-4)
    assert np.isfinite(nats.error_log_odds).all(axis=None)
    told = expected(density, rows[:1], ["b"])
    assert told["expected"].isna().tolist() == [True, False, False]  # c is missing: so is b
    np.testing.assert_allclose(told["probability"], sorted(p, reverse=True), atol=1e-4)
    alone = np.exp(-nats.marginal["b"])
    assert math.isclose(alone.sum(), 1, abs_tol=1e-5)


def test_an_unseen_category_is_doubted_most(model):
    rows = TABLE[:4].assign(word="odd")
    nats = cell_nats(model, rows)
    assert (nats.error_log_odds.idxmax(axis=1) == "word").all()
    assert (nats.given_others["word"] > 4).all()
    assert "odd" not in set(expected(model, rows, ["word"])["expected"])


@pytest.mark.parametrize("n", [1200, 60])
def test_many_categories_and_pooled_ones(n):
    rng = np.random.default_rng(0)
    shop = np.concatenate([np.arange(n), (rng.pareto(1.0, n) * 3).astype(int).clip(max=n - 1)])
    frame = pd.DataFrame({"shop": [f"s{k}" for k in shop], "big": shop > 9})
    columns = {"shop": {"kind": "nominal", "min_count": 1 if n > 1000 else 3}}
    density = DiffusionDensity(**FEW_STEPS, column_types=columns).fit(frame)
    schema = density.encoder_.schema[0]
    assert (schema.points.kind, len(schema.codec.pooled) > 1) == (
        ("code", False) if n > 1000 else ("simplex", True)
    )
    rows = frame[-4:]
    nats = cell_nats(density, rows)
    rest = density.log_prob(rows, given=["big"]).log_prob
    np.testing.assert_allclose(nats.given_others["shop"], -rest, atol=1e-4)
    proba = density.predict_proba(rows, "shop").to_numpy()
    seen = 1 - np.exp(density.log_prob(rows.assign(shop="odd"), given=["big"]).log_prob[:, None])
    p = np.concatenate([proba * seen, 1 - seen], 1)
    np.testing.assert_allclose(nats.entropy["shop"], -(p * np.log(p)).sum(1), atol=1e-3)
    top = expected(density, rows, ["shop"])["probability"].to_numpy().reshape(4, 3)
    np.testing.assert_allclose(top, -np.sort(-proba, axis=1)[:, :3], atol=1e-4)


def test_a_row_is_judged_alike_in_any_company(model):
    rows = TABLE[:40]
    whole = cell_nats(model, rows).error_log_odds
    np.testing.assert_allclose(cell_nats(model, rows[::-1]).error_log_odds[::-1], whole, atol=1e-4)
    np.testing.assert_allclose(cell_nats(model, rows[7:8]).error_log_odds, whole[7:8], atol=1e-4)


def test_batches_change_nothing(model, monkeypatch):
    x = model.rows(TABLE[:50]).x
    scorer = Scorer(model)
    whole = assess(scorer, x)
    monkeypatch.setattr(
        "discrete_itd.detection.cells.BATCH_WORK", 7 * model.denoiser_.codebook.work
    )
    parts = assess(scorer, x)
    np.testing.assert_allclose(parts.error_log_odds, whole.error_log_odds, atol=1e-4)
