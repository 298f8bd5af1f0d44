"""Cells given the other cells of their rows, against enumeration and the model's own conditionals; and wrong ones."""

import dataclasses
import functools
import itertools
import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel import CoordinateSchedule, State
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.detection.cell_predictions import (
    NO_SLIPS,
    Cell,
    likely_errors,
    log_flat,
    predictions,
    spreads,
)
from discrete_itd.detection.reasons import expected, reasons
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import categories
from discrete_itd.likelihood.conditional import ConditionalDenoiser, given_others
from discrete_itd.recipes import Causal, Mixture, Network
from tests import examples
from tests.detection.cells import assess, cell_nats
from tests.examples import float64
from tests.support import SupportDenoiser

pytestmark = pytest.mark.single_precision

QUICK = {
    "denoiser": Network(width=16, depth=1, base="independent"),
    "max_steps": 20,
    "n_evaluations": 16,
    "random_state": 0,
}
FEW_STEPS = {**QUICK, "max_steps": 10, "schedule": CoordinateSchedule(2)}
LEVELS = {"a": ["x", "y", "z"], "b": ["u", "v"], "c": ["s", "t"]}
ROWS = pd.DataFrame(list(itertools.product(*LEVELS.values())), columns=list(LEVELS))


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


KINDS = {
    "size": "continuous",
    "count": "ordinal",
    "level": "ordinal",
}
TABLE = mixed_table()


@functools.cache
def mixed_model():
    """Fitted once for all tests of a process."""
    return DiffusionDensity(**QUICK, column_types=KINDS).fit(TABLE)


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
    density, p, _ = exact_density(seed)
    nats = cell_nats(density, ROWS)
    for j, name in enumerate(ROWS):
        given, entropy = conditional(p, j)
        np.testing.assert_allclose(nats.given_others[name], -np.log(given), rtol=1e-4)
        np.testing.assert_allclose(nats.entropy[name], entropy, atol=1e-4)
        flat = (1 - given) / len(LEVELS[name])
        n = density.encoder_.schema[j].n_rows  # one exception in as many rows
        odds = np.log(0.01 / 0.99 * flat / (given + flat / (n + 1)))
        np.testing.assert_allclose(nats.error_log_odds[name], odds, atol=1e-3)


def test_a_missing_cell_has_no_surprise_and_tells_nothing():
    density, p, _ = exact_density()
    rows = ROWS.assign(b=None)
    nats = cell_nats(density, rows)
    assert (nats.given_others["b"] == 0).all()
    assert (nats.entropy["b"] == 0).all()
    assert np.isneginf(nats.error_log_odds["b"]).all()
    pair = p.groupby([ROWS["a"], ROWS["c"]]).transform("sum")
    given = pair / p.groupby(ROWS["c"]).transform("sum")
    np.testing.assert_allclose(nats.given_others["a"], -np.log(given), rtol=1e-4)


# -- against the model's own conditionals ---------------------------------------------------------


def test_surprise_given_the_rest_is_the_conditional(model):
    rows = TABLE[:8]
    nats = cell_nats(model, rows)
    for name in rows:
        rest = model.log_prob(rows, given=[c for c in rows if c != name]).log_prob
        np.testing.assert_allclose(nats.given_others[name], -rest, atol=1e-4)


@pytest.mark.parametrize("name", ["size", "level", "word"])
def test_entropy_and_interval_against_a_grid(model, name):
    """Sums over a grid of all values, in the column's own unit."""
    for i in range(2):
        row = TABLE[i : i + 1]
        grid = {
            "size": np.exp(np.linspace(-9, 9, 2001)),
            "level": np.unique(TABLE["level"]),
            "word": np.array(["low", "mid", "top"]),
        }[name]
        log_p = conditional_on_grid(model, row, name, grid)
        weight = np.gradient(grid) if name == "size" else np.ones(len(grid))
        mass = np.exp(log_p) * weight
        assert abs(mass.sum() - 1) < 0.02  # the rest is that of unseen categories
        entropy = -(mass * log_p).sum()
        assert abs(cell_nats(model, row).entropy[name].iloc[0] - entropy) < 0.06
        told = expected(model, row, [name]).iloc[0]
        if name == "word":
            assert told["expected"] == grid[mass.argmax()]
            assert abs(told["expected_probability"] - mass.max() / mass.sum()) < 1e-4
            continue
        low, median, high = told["low"], told["expected"], told["high"]
        inside = mass[(grid >= low) & (grid <= high)].sum() / mass.sum()
        assert inside > 0.79
        assert abs(inside - told["expected_probability"]) < 0.01
        assert mass[grid <= median].sum() / mass.sum() > 0.49
        assert mass[grid >= median].sum() / mass.sum() > 0.49
        assert mass[grid < low].sum() / mass.sum() < 0.11
        assert mass[grid > high].sum() / mass.sum() < 0.11


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
    np.testing.assert_allclose(told["expected_probability"], sorted(p, reverse=True), atol=1e-4)


@pytest.mark.parametrize("n", [1200, 60])
def test_many_categories_and_pooled_ones(n, monkeypatch):
    monkeypatch.setattr(categories, "MOST_LEVELS", 1000 if n > 1000 else 40)
    rng = np.random.default_rng(0)
    shop = np.concatenate([np.arange(n), (rng.pareto(1.0, n) * 3).astype(int).clip(max=n - 1)])
    frame = pd.DataFrame({"shop": [f"s{k}" for k in shop], "big": shop > 9})
    monkeypatch.setattr(categories, "POOLED_BELOW", 1 if n > 1000 else 3)
    density = DiffusionDensity(**FEW_STEPS, column_types={"shop": "nominal"}).fit(frame)
    schema = density.encoder_.schema[0]
    assert schema.points.n_points == 1000 or n < 1000
    assert len(schema.codec.pooled) > 1
    rows = frame[-4:]
    nats = cell_nats(density, rows)
    rest = density.log_prob(rows, given=["big"]).log_prob
    np.testing.assert_allclose(nats.given_others["shop"], -rest, atol=1e-4)
    proba = density.predict_proba(rows, "shop").to_numpy()
    top = expected(density, rows, ["shop"])["expected_probability"].to_numpy().reshape(4, 3)
    np.testing.assert_allclose(top, -np.sort(-proba, axis=1)[:, :3], atol=1e-4)


def test_a_row_is_judged_alike_in_any_company(model):
    rows = TABLE[:15]
    whole = cell_nats(model, rows).error_log_odds
    np.testing.assert_allclose(cell_nats(model, rows[::-1]).error_log_odds[::-1], whole, atol=1e-4)
    np.testing.assert_allclose(cell_nats(model, rows[7:8]).error_log_odds, whole[7:8], atol=1e-4)


def test_batches_change_nothing(model, monkeypatch):
    x = model.rows(TABLE[:15]).x
    scorer = Scorer(model)
    whole = assess(scorer, x)
    monkeypatch.setattr(
        "discrete_itd.detection.cell_predictions.BATCH_WORK", 7 * model.denoiser_.codebook.work
    )
    parts = assess(scorer, x)
    np.testing.assert_allclose(parts.error_log_odds, whole.error_log_odds, atol=1e-4)


# -- the probability of the row, normalised by brute force; wrong cells ----------------------------

N = 240


def nominal(seed=0):
    random = np.random.default_rng(seed)
    a = random.choice(list("xyz"), N)
    b = np.where(random.random(N) < 0.8, a, random.choice(list("xyz"), N))
    return pd.DataFrame({"a": a, "b": b, "c": random.choice(list("uv"), N)})


def ordinal(seed=0):
    """With missing cells."""
    random = np.random.default_rng(seed)
    frame = nominal(seed).assign(level=random.integers(0, 6, N))
    frame.loc[::9, "b"] = None
    return frame


def mixed_rows(seed=0):
    random = np.random.default_rng(seed)
    frame = nominal(seed)
    size = np.exp(random.normal(0, 0.4, N)) + 2.0 * (frame["a"] == "x")
    return frame.assign(size=size).drop(columns="c")


TABLES = {"nominal": nominal, "ordinal": ordinal, "mixed": mixed_rows}
EXACT = {"nominal": "tree", "ordinal": "tree", "mixed": "independent"}


def fit(kind):
    density = DiffusionDensity(denoiser=EXACT[kind], n_evaluations=8, random_state=0)
    detector = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0)
    return detector.fit(TABLES[kind]())


@pytest.fixture(scope="module")
def detectors():
    return {kind: fit(kind) for kind in TABLES}


def brute_force(detector, row, column, values):
    """The probability of one row with each value of a cell, over their sum."""
    rows = pd.concat([row] * len(values), ignore_index=True).assign(**{column: values})
    log_p = detector.density_.score_samples(rows)
    return np.exp(log_p - np.logaddexp.reduce(log_p))


@pytest.mark.parametrize("kind", ["nominal", "ordinal"])
def test_properties_expected_is_the_normalised_probability(kind, detectors):
    detector, table = detectors[kind], TABLES[kind](1)
    for i in (0, 3, 9):  # the last with a missing cell
        row = table[i : i + 1]
        for column in table:
            values = np.unique(TABLES[kind]()[column].dropna())
            p = pd.Series(brute_force(detector, row, column, values), index=values)
            found = detector.expected(row, [column], k=None, n_values=len(values))
            own = found.set_index("expected")["expected_probability"]
            assert set(own.index) == set(values)
            np.testing.assert_allclose(own[values], p[values], atol=1e-4)


def test_properties_continuous_columns_against_a_fine_grid(detectors):
    detector, table = detectors["mixed"], mixed_rows(1)
    grid = np.exp(np.linspace(-4, 4, 2001))
    for i in (0, 1, 2):
        row = table[i : i + 1]
        mass = brute_force(detector, row, "size", grid) * grid
        cdf = np.cumsum(mass) / mass.sum()
        found = detector.expected(row, ["size"], k=None).iloc[0]
        told = [found["low"], found["expected"], found["high"]]
        np.testing.assert_allclose(np.interp(told, grid, cdf), [0.1, 0.5, 0.9], atol=0.01)
        for value in np.unique(table["a"]):  # and a category beside a number
            p = brute_force(detector, row, "a", np.unique(table["a"]))
            names = detector.expected(row, ["a"], k=None).set_index("expected")[
                "expected_probability"
            ]
            assert names[value] == pytest.approx(p["xyz".index(value)], abs=1e-4)


@pytest.mark.parametrize("kind", ["nominal", "mixed"])
@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
def test_questions_asked_together_have_the_answers_of_each(
    kind, detectors, monkeypatch, rows_at_once
):
    """A cell's distribution is the posterior of the model of the row without it, in whatever batches."""
    detector = detectors[kind]
    x = detector.density_.rows(TABLES[kind]()).x[:3]
    scorer = detector._scorer
    work = rows_at_once * scorer.model.conditional.codebook.work
    monkeypatch.setattr("discrete_itd.detection.cell_predictions.BATCH_WORK", work)
    found = given_others(scorer.model.anywhere, x, torch.ones_like(x, dtype=torch.bool)).log_prob(x)
    book = scorer.model.conditional.codebook
    for j in range(x.shape[1]):
        known = x.index_fill(1, torch.tensor([j]), float("nan"))
        alone = scorer.model.conditional(*State.start(book, book.embed(known), ~known.isnan()))
        torch.testing.assert_close(found[:, j], alone.log_prob(x)[:, j], atol=1e-5, rtol=1e-5)


def gaps(seed=0):
    """With missing cells whose being missing has a probability, and numbers among them."""
    frame = mixed_rows(seed)
    frame.loc[::7, "size"] = None
    return frame.assign(b=frame["b"].mask(np.arange(N) % 9 == 0))


@pytest.fixture(scope="module")
def several(detectors):
    """Detectors of every kind of column, with and without gaps as a category."""
    density = DiffusionDensity(
        denoiser=Mixture(6, n_points=64, max_steps=40),
        missing="category",
        n_evaluations=8,
        random_state=0,
    )
    with_gaps = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0).fit(gaps())
    return [(with_gaps, gaps()), *((d, TABLES[kind]()) for kind, d in detectors.items())]


def mixed_up(table):
    """Rows of the table with cells of others, so that some are wrong."""
    rows = table[:20].reset_index(drop=True)
    for j, name in enumerate(table):
        rows.loc[j::3, name] = table[name].iloc[-20:].iloc[::-1].to_numpy()[j::3]
    return rows


def conflicts(scorer, x, q, i, cells):
    """By how many nats cells of row i of x (N, C') conflict with one another, by the scores of four rows each."""
    row = x[i : i + 1]
    quantiles = spreads(scorer, q, torch.from_numpy(np.tile(cells, (len(x), 1))), x)
    own = {j: Cell.of(scorer, q, int(j), torch.tensor([i]), quantiles) for j in cells}
    one = {j: cell.put_into(row) for j, cell in own.items()}
    pairs = [*itertools.permutations(cells, 2)]
    both = [own[k].put_into(one[j]) for j, k in pairs]
    score = scorer.model.anywhere.log_prob(torch.cat([row, *one.values(), *both])).numpy()
    alone, gains = dict(zip(one, score[1:], strict=False)), {j: {j: 0.0} for j in cells}
    for (j, k), together in zip(pairs, score[len(one) + 1 :], strict=True):
        gains[j][k] = float(alone[j] + alone[k] - together - score[0])
    return gains


def test_properties_likely_errors_are_the_cells_above_even_odds(several, monkeypatch):
    """But for those that a more suspicious one explains; with the cell with which each conflicts most."""
    n_found, n_unlikely, n_conflicts, n_divided = [0, 0], 0, 0, 0
    for prior, (detector, table) in itertools.product((0.9, 0.02), several):
        monkeypatch.setattr("discrete_itd.detection.cell_predictions.WRONG_CELLS", prior)
        scorer, x = detector._scorer, detector.density_.rows(mixed_up(table)).x
        whole, found = (
            assess(scorer, x),
            likely_errors(scorer, x, np.zeros((len(x), len(scorer.schema))), NO_SLIPS, 2),
        )
        q = given_others(scorer.model.anywhere, x, torch.ones_like(x, dtype=torch.bool))
        for i in range(20):
            odds, wanted = whole.error_log_odds[i], []
            order = np.argsort(-odds, kind="stable")[:4]
            first = order[0]
            unlikely = (whole.given_others - whole.entropy)[i, first] >= 1  # nat
            gains = {}
            if odds[first] > 0 or unlikely:
                gains = conflicts(scorer, x, q, i, order[odds[order] > -np.inf])
            for rank, j in enumerate(order[: len(gains)]):
                others, log_p = 0.0, -whole.given_others[i, j]
                log_p += max([gains[j][b] for b in order[:rank]], default=0.0)
                for b in order[rank + 1 : len(gains)]:
                    right = np.logaddexp(log_p + gains[j][b], whole.exceptional[i, j])
                    if gains[j][b] >= 1 and whole.wrong[i, j] <= right:
                        deviates = np.logaddexp(whole.wrong[i, b], whole.exceptional[i, b])
                        others += np.exp(deviates + whole.given_others[i, b])
                right = np.logaddexp(log_p + np.log1p(others), whole.exceptional[i, j])
                told = whole.wrong[i, j] - right
                n_divided += told <= 0 < odds[j]
                is_named = unlikely or odds[j] > 0 if rank == 0 else min(told, odds[first]) > 0
                if is_named:
                    wanted.append((j, told))
            wanted.sort(key=lambda line: -line[1])
            n_unlikely += len(wanted) and wanted[0][1] <= 0
            own = found[found["row"] == i]
            assert own["cell"].tolist() == [j for j, _ in wanted[:2]]
            for k, ((j, told), line) in enumerate(
                zip(wanted, own.to_dict("records"), strict=False)
            ):
                n_found[k] += 1
                probability = 1 / (1 + np.exp(-told))
                assert line["probability_wrong"] == pytest.approx(probability, abs=1e-4)
                assert line["nats"] == pytest.approx(whole.given_others[i, j], abs=1e-4)
                assert line["expected_nats"] == pytest.approx(whole.entropy[i, j], abs=1e-4)
                expected = predictions(scorer, x[i : i + 1], [int(j)], None, 1)[1]
                for name, other in zip(expected._fields, expected, strict=True):
                    a, b = line[name], other[0, 0, 0]
                    assert a == b or a == pytest.approx(b, rel=1e-4, nan_ok=True)
                most = max(gains[j].values())
                assert line["conflict_nats"] == pytest.approx(most, abs=1e-3)
                if line["conflict_nats"] > 1e-2:
                    n_conflicts += 1
                    assert gains[j][line["conflict"]] == pytest.approx(most, abs=1e-3)
    counts = (
        n_found[0],
        n_unlikely,
        10 * n_found[1],
        2 * n_conflicts,
        4 * n_divided,
    )
    assert min(counts) > 15


@pytest.mark.parametrize(
    ("share", "exceptions"), [(0.02, 0.0), (0.3, 0.0), (0.05, 0.05), (0.02, 0.1)]
)
def test_properties_error_probabilities_are_calibrated(share, exceptions, monkeypatch):
    """Of a table that is known, in whose first column shares of cells have another value, wrongly and rightly."""
    density, p, _ = exact_density(3)
    random = np.random.default_rng(0)
    rows = ROWS.iloc[random.choice(len(ROWS), 20_000, p=p)].reset_index(drop=True)
    wrong = random.random(len(rows)) < share
    is_exception = random.random(len(rows)) < exceptions
    moved = np.where(wrong | is_exception, random.integers(1, 3, len(rows)), 0)
    codes = rows["a"].map("xyz".index) + moved
    scorer, x = Scorer(density), density.rows(rows.assign(a=np.array(list("xyz"))[codes % 3])).x

    def flat_over_others(scorer, x):
        return log_flat(scorer, x) + math.log(3 / 2)

    monkeypatch.setattr("discrete_itd.detection.cell_predictions.WRONG_CELLS", share)
    # two others of three values are equally likely
    monkeypatch.setattr("discrete_itd.detection.cell_predictions.log_flat", flat_over_others)
    scorer.shares = np.full(3, max(exceptions, 1e-9))
    probability = 1 / (1 + np.exp(-assess(scorer, x).error_log_odds[:, 0]))
    assert probability.mean() == pytest.approx(share, abs=0.01)
    for low, high in itertools.pairwise([0, 0.01, 0.05, 0.2, 0.5, 0.8, 1]):
        is_between = (probability >= low) & (probability < high)
        if is_between.sum() > 50:
            said = probability[is_between]
            error = 0.01 + 4 * np.sqrt((said * (1 - said)).mean() / len(said))
            assert wrong[is_between].mean() == pytest.approx(said.mean(), abs=error)


def rules(n, exceptions, seed):
    """Three columns that follow from a fourth, but for a share of cells that follow nothing."""
    random = np.random.default_rng(seed)
    key = random.integers(0, 8, n)
    columns = {"key": key} | {f"x{j}": (key * (2 * j + 1) + j) % 8 for j in range(3)}
    anything = random.integers(0, 8, (3, n))
    for values, name in zip(anything, ("x0", "x1", "x2"), strict=True):
        columns[name] = np.where(random.random(n) < exceptions, values, columns[name])
    return pd.DataFrame(columns).map("v{}".format)


@pytest.mark.parametrize("exceptions", [0.0, 0.03, 0.1])
def test_properties_right_exceptions_are_not_called_wrong(exceptions):
    """Where cells contradict the others rightly as often as one in a hundred does wrongly, none is likely wrong."""
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0)
    detector.fit(rules(2500, exceptions, 0))
    table = detector.reasons(rules(1000, exceptions, 1), k=2)
    called = table[table["probability_wrong"] > 0.5]
    assert len(called) <= 3
    broken = rules(100, 0.0, 2).assign(
        x1=lambda t: t["x1"].map(lambda v: "v7" if v < "v7" else "v0")
    )
    first = detector.reasons(broken, k=1)
    assert (first["column"] == "x1").mean() > 0.95
    is_called = (first["probability_wrong"] > 0.5).mean()
    assert is_called > 0.95 if exceptions == 0 else is_called < 0.05


def test_properties_of_two_copies_that_differ_neither_is_called_wrong():
    """Either may be; a third decides, and without an error no exception is measured."""
    word = np.random.default_rng(0).choice(list("abcdefgh"), 1500)
    pair, three = (pd.DataFrame(dict.fromkeys(names, word)) for names in ("ab", "abc"))
    for table, is_called in ((pair, False), (three, True)):
        detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(table)
        assert (detector._scorer.exceptions < 0.01).all()
        new = table[:20].assign(a=table["a"][:20].map(lambda v: "h" if v < "h" else "a"))
        first = detector.reasons(new, k=1).drop_duplicates("row")
        assert len(first) == 20
        assert ((first["probability_wrong"] > 0.5) == is_called).all()
        if is_called:
            assert (first["column"] == "a").all()


def test_properties_wrong_cells_are_even_over_levels_and_beyond_a_range():
    table = pd.DataFrame({"n": np.arange(40) % 20, "word": list("xyzx") * 10})
    density = DiffusionDensity(denoiser="tree", column_types={"n": "continuous"}, random_state=0)
    scorer = Scorer(density.fit(table))
    whole = pd.DataFrame({"n": np.arange(-4000, 4020), "word": "x"})
    f = log_flat(scorer, scorer.density.rows(whole).x).exp().numpy()
    assert f[:, 0].sum() == pytest.approx(1, abs=0.01)
    inside = whole["n"].between(1, 18)
    assert np.ptp(f[inside, 0]) < 1e-9
    assert f[inside, 0].sum() == pytest.approx(0.5, abs=0.07)
    assert np.allclose(f[:, 1], 1 / 4)  # three categories and one for others


def test_two_wrong_cells_that_are_far_from_each_other_are_both_named():
    """In a chain of columns, each mostly a copy of the one before; some cells missing, which has a probability."""
    n_columns = 24

    def chain(n, seed):
        random = np.random.default_rng(seed)
        codes = [random.integers(0, 3, n)]
        for _ in range(n_columns - 1):
            codes.append(np.where(random.random(n) < 0.95, codes[-1], random.integers(0, 3, n)))
        frame = pd.DataFrame({f"c{j}": np.array(list("xyz"))[c] for j, c in enumerate(codes)})
        return frame.mask((random.random(frame.shape) < 0.1) & (np.arange(n_columns) % 5 == 0))

    density = DiffusionDensity(denoiser="tree", missing="category", random_state=0)
    rows, truth = chain(12, 1), {(i, j) for i in range(12) for j in (i % 10 + 1, i % 10 + 12)}
    next_one = {"x": "y", "y": "z", "z": "x"}
    for i, j in truth:
        rows.iloc[i, j] = next_one.get(rows.iloc[i, j - 1], "x")
    found = reasons(density.fit(chain(400, 0)), rows)
    named = {(row, int(name[1:])) for row, name in found[["row", "column"]].to_numpy()}
    assert len(named & truth) > 12


# -- of a model that only scores rows --------------------------------------------------------------

WITH_GAPS = examples.mixed_table(400)
VALUES = {
    "word": ["low", "mid", "top"],
    "level": [0, 1, 2],
    "flag": [False, True],
    "size": [-0.3, 1.9, 4.5],
}


@cache
def causal(n_networks=1, missing="marginalise"):
    """A causal network, or a mixture of rows with two of them: neither marginalises."""
    recipe = Causal(width=16, depth=1, base="tree")
    denoiser = recipe if n_networks == 1 else [recipe] * n_networks
    with float64():
        model = DiffusionDensity(denoiser=denoiser, max_steps=15, missing=missing, random_state=0)
        return model.fit(WITH_GAPS)


@pytest.mark.parametrize("missing", ["marginalise", "category"])
@pytest.mark.parametrize("n_networks", [1, 2])
@pytest.mark.parametrize("name", VALUES)
def test_surprisals_given_the_others_differ_as_scores_do(name, n_networks, missing):
    """Whatever is missing elsewhere in the row, and of numbers as closely as a grid of their density allows."""
    model = causal(n_networks, missing)
    assert isinstance(model.model_.conditional, ConditionalDenoiser)
    rows, values = WITH_GAPS[:6], VALUES[name]
    every = pd.concat([rows] * len(values), ignore_index=True)
    column = pd.array(np.repeat(np.array(values, dtype=object), len(rows)), dtype=rows[name].dtype)
    every = every.assign(**{name: column})
    scores = model.score_samples(every).reshape(len(values), -1)
    nats = cell_nats(model, every).given_others[name].to_numpy().reshape(scores.shape)
    tolerance = 0.1 if name == "size" else 1e-8
    np.testing.assert_allclose(nats - nats[0], scores[0] - scores, atol=tolerance)
    if name == "size" or missing == "category":
        return
    if name == "level":  # whose unseen numbers are many
        total = np.exp(-nats).sum(0)
        assert ((total > 0.99) & (total < 1)).all()
        return
    unseen = 0.0
    if name != "flag":  # which knows only two values
        odd = rows.assign(**{name: pd.array(["odd"] * len(rows))})
        both = pd.concat(
            [rows, odd], ignore_index=True
        )  # a table of nothing but new values would be warned of
        unseen = np.exp(-cell_nats(model, both).given_others[name].to_numpy()[len(rows) :])
    np.testing.assert_allclose(np.exp(-nats).sum(0) + unseen, 1, atol=1e-8)


@pytest.mark.parametrize("kind", ["causal", "mixture"])
def test_a_number_however_far_out_is_the_first_reason_with_certainty(kind):
    """The distribution of errors has heavy tails, those of the models have not."""
    model, mixture = causal(), Mixture(4, n_points=64, max_steps=40)
    with float64():
        if kind == "mixture":
            model = DiffusionDensity(denoiser=mixture, random_state=0).fit(WITH_GAPS)
        table = reasons(model, WITH_GAPS.dropna()[:3].assign(size=[1e6, 1e18, -1e100]))
    first = table[table["rank"] == 1]
    assert first["column"].tolist() == ["size"] * 3
    assert (first["probability_wrong"] > 0.99).all()
    assert np.isfinite(first[["nats", "excess_nats", "conflict_nats"]].astype(float)).all(axis=None)
