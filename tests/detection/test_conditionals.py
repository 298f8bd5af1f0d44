"""Conditional distributions of cells: the probability of the row, normalised over the values of one by brute force."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_cell_conditionals import conflicts

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel import State
from discrete_itd.detection.cells import (
    assess,
    given_others,
    likely_errors,
    predictions,
)
from discrete_itd.recipes import Mixture

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


def mixed(seed=0):
    random = np.random.default_rng(seed)
    frame = nominal(seed)
    size = np.exp(random.normal(0, 0.4, N)) + 2.0 * (frame["a"] == "x")
    return frame.assign(size=size).drop(columns="c")


TABLES = {"nominal": nominal, "ordinal": ordinal, "mixed": mixed}
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
            own = found.set_index("expected")["probability"]
            assert set(own.index) == set(values)
            np.testing.assert_allclose(own[values], p[values], atol=1e-4)


def test_properties_continuous_columns_against_a_fine_grid(detectors):
    detector, table = detectors["mixed"], mixed(1)
    grid = np.exp(np.linspace(-4, 4, 6001))
    for i in (0, 1, 2):
        row = table[i : i + 1]
        mass = brute_force(detector, row, "size", grid) * grid
        cdf = np.cumsum(mass) / mass.sum()
        found = detector.expected(row, ["size"], k=None).iloc[0]
        told = [found["low"], found["expected"], found["high"]]
        np.testing.assert_allclose(np.interp(told, grid, cdf), [0.1, 0.5, 0.9], atol=0.01)
        for value in np.unique(table["a"]):  # and a category beside a number
            p = brute_force(detector, row, "a", np.unique(table["a"]))
            names = detector.expected(row, ["a"], k=None).set_index("expected")["probability"]
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
    work = rows_at_once * scorer.conditional.codebook.work
    monkeypatch.setattr("discrete_itd.detection.cells.BATCH_WORK", work)
    found = given_others(scorer, x, torch.ones_like(x, dtype=torch.bool)).log_prob(x)
    book = scorer.conditional.codebook
    for j in range(x.shape[1]):
        known = x.index_fill(1, torch.tensor([j]), float("nan"))
        alone = scorer.conditional(*State.start(book, book.embed(known), ~known.isnan()))
        torch.testing.assert_close(found[:, j], alone.log_prob(x)[:, j], atol=1e-5, rtol=1e-5)


def gaps(seed=0):
    """With missing cells whose being missing has a probability, and numbers among them."""
    frame = mixed(seed)
    frame.loc[::7, "size"] = None
    return frame.assign(b=frame["b"].mask(np.arange(N) % 9 == 0))


@pytest.fixture(scope="module")
def several(detectors):
    """Detectors of every kind of column, with and without gaps as a category."""
    density = DiffusionDensity(
        denoiser=Mixture(6), missing="category", n_evaluations=8, random_state=0
    )
    with_gaps = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0).fit(gaps())
    return [(with_gaps, gaps()), *((d, TABLES[kind]()) for kind, d in detectors.items())]


def one_by_one(scorer, row, log_volume, k, shift):
    """The wrong cells of a row (1, C'), each by the assessment of all cells of what is left of the row."""
    owner, found = torch.from_numpy(scorer.density.encoder_.owner), []
    passed_over, row = set(), row.clone()
    while len(found) < k:
        whole = assess(scorer, row)
        odds = whole.error_log_odds[0] + shift
        odds[[*passed_over, *(j for j, *_ in found)]] = -np.inf
        j = int(odds.argmax())
        if odds[j] <= 0:
            break
        nats, entropy = whole.given_others[0, j] - log_volume[j], whole.entropy[0, j]
        if nats - entropy < 0.05:
            passed_over.add(j)
            continue
        told = predictions(scorer, row, [j], None, 1)[1]
        found.append((j, odds[j], nats, entropy, [t[0, 0, 0] for t in told]))
        own = torch.nonzero(owner == j).flatten()
        row[:, own if row[0, j].isnan() else own[:1]] = torch.nan
    return found


def test_properties_wrong_cells_are_found_one_by_one(several):
    n_found = [0, 0]
    for detector, table in several:
        mixed = table[:20].reset_index(drop=True)
        for j, name in enumerate(table):  # cells of other rows, so that some are wrong
            mixed.loc[j::3, name] = table[name].iloc[-20:].iloc[::-1].to_numpy()[j::3]
        scorer, rows = detector._scorer, detector.density_.rows(mixed)
        shift = np.log(0.9 / 0.1 / table.shape[1])
        out = likely_errors(scorer, rows.x, rows.log_volume, 2, 0.9)
        for i in range(20):
            wanted = one_by_one(scorer, rows.x[i : i + 1], rows.log_volume[i], 2, shift)
            assert out.cells[i].tolist() == [j for j, *_ in wanted] + [-1] * (2 - len(wanted))
            assert np.isnan(out.probability[i, len(wanted) :]).all()
            for k, (_, odds, nats, entropy, expected) in enumerate(wanted):
                n_found[k] += 1
                assert out.probability[i, k] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)
                assert out.probability[i, k] > 0.5
                assert out.nats[i, k] == pytest.approx(nats, abs=1e-4)
                assert out.expected_nats[i, k] == pytest.approx(entropy, abs=1e-4)
                for own, other in zip((t[i, k] for t in out[-4:]), expected, strict=True):
                    assert own == other or own == pytest.approx(other, rel=1e-4, nan_ok=True)
    assert n_found[0] > 20
    assert n_found[1] > 3


def test_properties_conflicts_are_with_the_rival_that_explains_most(several):
    n_found = 0
    for detector, table in several:
        mixed = table[:8].assign(**{table.columns[0]: table.iloc[-8:, 0].to_numpy()})
        scorer, rows = detector._scorer, detector.density_.rows(mixed)
        out = likely_errors(scorer, rows.x, rows.log_volume, 1, 0.9)
        for i in np.flatnonzero(out.cells[:, 0] >= 0):
            gains = conflicts(scorer, rows.x[i : i + 1], out.cells[i, 0])
            assert out.conflict_nats[i, 0] == pytest.approx(max(*gains.values(), 0), abs=1e-4)
            if out.conflict_nats[i, 0] > 1e-3:
                n_found += 1
                assert gains[out.conflict[i, 0]] == pytest.approx(max(gains.values()), abs=1e-4)
    assert n_found > 5


# -- wide tables ----------------------------------------------------------------------------------

COLUMNS, KINDS = 24, 3


def chain(n, seed):
    """Categories, each mostly that of the column before; some cells missing, which has a probability."""
    random = np.random.default_rng(seed)
    codes = [random.integers(0, KINDS, n)]
    for _ in range(COLUMNS - 1):
        fresh = random.integers(0, KINDS, n)
        codes.append(np.where(random.random(n) < 0.95, codes[-1], fresh))
    frame = pd.DataFrame({f"c{j}": np.array(list("xyz"))[c] for j, c in enumerate(codes)})
    return frame.mask((random.random(frame.shape) < 0.1) & (np.arange(COLUMNS) % 5 == 0))


@pytest.fixture(scope="module")
def wide():
    density = DiffusionDensity(denoiser="tree", missing="category", random_state=0)
    return DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0).fit(
        chain(400, 0)
    )


def spoilt():
    """Rows with two wrong cells each, which are far from each other."""
    rows, truth = chain(12, 1), np.array([[i % 10 + 1, i % 10 + 12] for i in range(12)])
    next_one = {"x": "y", "y": "z", "z": "x"}
    for i, columns in enumerate(truth):
        for j in columns:
            rows.iloc[i, j] = next_one.get(rows.iloc[i, j - 1], "x")
    return rows, truth


def bound(monkeypatch, most, n_folds):
    monkeypatch.setattr("discrete_itd.detection.cells.MOST_CELLS", most)
    monkeypatch.setattr("discrete_itd.detection.cells.N_FOLDS", n_folds)


def test_properties_candidates_of_wide_tables_hold_the_reasons(wide, monkeypatch):
    """Reasons, conflicts and predictions are those that the search among all cells finds."""
    rows, truth = spoilt()
    whole = wide.reasons(rows), wide.expected(rows, k=2)
    found = {(row, int(name[1:])) for row, name in whole[0][["row", "column"]].to_numpy()}
    assert len(found & {(i, j) for i in range(12) for j in truth[i]}) > 12
    bound(monkeypatch, 10, 6)
    for own, other in zip((wide.reasons(rows), wide.expected(rows, k=2)), whole, strict=True):
        pd.testing.assert_frame_equal(own, other, rtol=1e-4)


def test_properties_questions_of_a_row_do_not_grow_with_the_square_of_columns(wide, monkeypatch):
    n_asked = 0

    def count(_, args):
        nonlocal n_asked
        n_asked += len(args[0])

    rows, _ = spoilt()
    hook = wide._scorer.conditional.register_forward_pre_hook(count)
    counts = {}
    for most in (COLUMNS, 5):
        bound(monkeypatch, most, 3)
        for name, ask in (("reasons", wide.reasons), ("expected", wide.expected)):
            n_asked = 0
            ask(rows, k=1)
            counts[name, most] = n_asked / len(rows)
    hook.remove()
    assert counts["expected", 5] <= 2 * (3 + 5 + 1)  # folds, candidates, prediction; indicators too
    assert counts["reasons", 5] <= 2 * (3 + 5 + 4)  # and what is in conflict with it
    for name in ("reasons", "expected"):
        assert counts[name, COLUMNS] > COLUMNS
