"""Conditional distributions under the score: the score, normalised over the values of one cell by brute force."""

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection.assessment import (
    assess,
    most_doubtful,
    pairwise_changes,
)
from discrete_itd.detection.conditionals import Conditionals
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


def fit(kind, score_by):
    density = DiffusionDensity(denoiser=EXACT[kind], n_evaluations=8, random_state=0)
    detector = DiffusionOutlierDetector(
        density, score_by=score_by, false_alarm_rate=0.1, random_state=0
    )
    return detector.fit(TABLES[kind]())


@pytest.fixture(scope="module")
def detectors():
    return {
        (kind, score_by): fit(kind, score_by)
        for kind in TABLES
        for score_by in ("anomaly", "log_prob")
    }


def brute_force(detector, row, column, values):
    """exp(score) of one row with each value of a cell, over their sum."""
    rows = pd.concat([row] * len(values), ignore_index=True).assign(**{column: values})
    score = detector.score_samples(rows)
    return np.exp(score - np.logaddexp.reduce(score))


@pytest.mark.parametrize("score_by", ["anomaly", "log_prob"])
@pytest.mark.parametrize("kind", ["nominal", "ordinal"])
def test_properties_expected_is_the_normalised_score(kind, score_by, detectors):
    detector, table = detectors[kind, score_by], TABLES[kind](1)
    for i in (0, 3, 9):  # the last with a missing cell
        row = table[i : i + 1]
        for column in table:
            values = np.unique(TABLES[kind]()[column].dropna())
            p = pd.Series(brute_force(detector, row, column, values), index=values)
            found = detector.expected(row, [column], k=None, n_values=len(values))
            own = found.set_index("expected")["probability"]
            assert set(own.index) == set(values)
            np.testing.assert_allclose(own[values], p[values], atol=1e-4)


def test_properties_the_mean_with_columns_differs_from_the_log_probability(detectors):
    """So the test above can tell them apart."""
    table = nominal(1)[:20]
    mean, plain = (
        detectors["nominal", s].expected(table, ["b"], k=None, n_values=1)["probability"]
        for s in ("anomaly", "log_prob")
    )
    assert np.abs(mean - plain).max() > 0.05


def test_properties_continuous_columns_against_a_fine_grid(detectors):
    """Under the log-density; caps and codes of the other score change no prediction."""
    detector, table = detectors["mixed", "log_prob"], mixed(1)
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
    own, plain = (
        detectors["mixed", s].expected(table[:20], k=None) for s in ("anomaly", "log_prob")
    )
    assert detectors["mixed", "anomaly"]._scorer.floor.max() > -np.inf
    pd.testing.assert_frame_equal(own, plain)


def test_properties_pairs_are_changes_of_the_conditional_of_the_score(detectors):
    """Of a row of which two cells are known: the score normalised over one of them, with and without the other."""
    detector, row = detectors["ordinal", "anomaly"], ordinal(1)[3:4].astype(object)
    pairs = detector.pairwise(row)
    for j, i in (("a", "b"), ("level", "a"), ("b", "level")):
        values = np.unique(ordinal()[j].dropna())
        at = list(values).index(row[j].iloc[0])
        alone = row.copy()
        alone.loc[:, [c for c in row if c != j]] = None
        both = alone.assign(**{i: row[i]})
        given, nothing = (brute_force(detector, r, j, values)[at] for r in (both, alone))
        change = pairs.xs(j, level="column")[i].iloc[0]
        assert change == pytest.approx(np.log(nothing / given), abs=2e-3)


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
def test_questions_asked_together_have_the_answers_of_each(detectors, monkeypatch, rows_at_once):
    detector = detectors["mixed", "anomaly"]
    x = detector.rows(TABLES["mixed"]()).x[:3]
    scorer = detector._scorer
    work = rows_at_once * scorer.conditional.codebook.work
    monkeypatch.setattr("discrete_itd.detection.conditionals.BATCH_WORK", work)
    questions = []
    for j in range(x.shape[1]):
        questions.append(x.index_fill(1, torch.tensor([j]), float("nan")))
    for known, found in zip(questions, Conditionals.of_each(scorer, questions), strict=True):
        alone = Conditionals(scorer, known)
        torch.testing.assert_close(found.log_prob(x), alone.log_prob(x), atol=1e-5, rtol=1e-5)


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
    return [(with_gaps, gaps()), *((d, TABLES[kind]()) for (kind, _), d in detectors.items())]


def test_properties_some_cells_are_judged_as_all_are(several):
    for detector, table in several:
        scorer, x = detector._scorer, detector.rows(table).x[:20]
        whole = assess(scorer, x, 1)
        odds, cells, found = most_doubtful(scorer, x, 2)
        np.testing.assert_allclose(odds, whole.error_log_odds, atol=2e-5)
        np.testing.assert_array_equal(cells, np.argsort(-odds, axis=1, kind="stable")[:, :2])
        for of_some, *of_all in zip(found, *whole.expected, strict=True):
            for (i, k), j in np.ndenumerate(cells):
                own, all_ = of_some[i, k], of_all[j][i, 0]
                assert own == all_ or own == pytest.approx(all_, rel=1e-4, nan_ok=True)
        pairs = np.concatenate(list(pairwise_changes(scorer, x)))
        some = np.concatenate(list(pairwise_changes(scorer, x, cells)))
        at = np.arange(20)[:, None], cells
        np.testing.assert_allclose(some[at], pairs[at], atol=2e-5)
        some[at] = 0.0
        assert not some.any()
