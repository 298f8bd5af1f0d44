"""The second view of the score: how far the numbers of a row are from those of the rows of the fit."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, rankdata
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.detection.distances import GROUP, halved, knots_of, normal_scores, squares
from discrete_itd.detection.score import row_scores, terms

pytestmark = pytest.mark.single_precision
NUMBERS = ["x", "few", "y", "is_new"]


def table(n=300, seed=0):
    """Numbers, some missing, whole numbers with few values, truth values, and text."""
    random = np.random.default_rng(seed)
    x = random.normal(size=n).round(2)
    frame = pd.DataFrame({"x": x, "few": random.integers(0, 4, n), "y": x + random.normal(size=n)})
    frame["word"], frame["is_new"] = random.choice(["a", "b"], n), random.random(n) < 0.3
    frame.loc[::11, "y"] = np.nan
    return frame


def detector(X, **settings):
    settings = {"denoiser": "independent", "false_alarm_rate": 0.1, "random_state": 0, **settings}
    return DiffusionOutlierDetector(**settings).fit(X)


@pytest.fixture(scope="module")
def fitted():
    return detector(table())


def test_property_normal_scores_are_those_of_ranks():
    numbers = np.random.default_rng(0).gamma(1.0, size=(3000, 1))
    numbers[:300] = 0.5
    ranks = (rankdata(numbers[:, 0]) - 0.5) / len(numbers)
    found = normal_scores(numbers, knots_of(numbers))[:, 0]
    is_inside = (ranks > 0.01) & (ranks < 0.99)
    assert np.abs(found - norm.ppf(ranks))[is_inside].max() < 0.2
    assert (np.diff(found[np.argsort(numbers[:, 0])]) >= 0).all()


def test_property_groups_divide_the_rows_and_none_is_smaller():
    scores = np.random.default_rng(0).normal(size=(997, 3))
    groups = halved(scores, np.arange(997))
    assert sorted(np.concatenate(groups)) == list(range(997))
    assert {*map(len, groups)} <= set(range(GROUP, 2 * GROUP))
    # members are near each other
    spread = np.mean([scores[group].var(0).sum() for group in groups])
    assert spread < scores.var(0).sum() / 4


def test_property_a_term_is_that_of_a_loop_over_rows_and_means(fitted):
    new = table(25, seed=1)
    new.loc[3, "x"], new.loc[4, NUMBERS[:3]] = 40.0, [np.nan, 1, np.nan]
    scorer = fitted._scorer
    far = scorer.distances
    without = DiffusionOutlierDetector(FrozenEstimator(fitted.density_), false_alarm_rate=0.1)
    added = fitted.explain(new) - without.fit(table()).explain(new)
    encoded = pd.DataFrame(fitted.density_.rows(new).cells[:, :5], columns=new.columns)
    numbers = encoded.assign(few=new["few"], is_new=new["is_new"].astype(float))[NUMBERS]
    for i, row in enumerate(numbers.to_numpy(float)):
        u = normal_scores(row[None], far.knots)[0]
        parts = min(((u - mean) ** 2 for mean in far.means), key=lambda square: square.sum())
        parts = parts * ~np.isnan(row) * len(row) / (~np.isnan(row)).sum()
        z = max(0.0, (parts.sum() - far.usual[0]) / far.usual[1])
        expected = far.sigma * math.asinh(z) * parts / parts.sum()
        np.testing.assert_allclose(added.loc[i, NUMBERS].fillna(0.0), expected, atol=1e-6)
    drawn = zip(scorer.models, scorer._typical(), scorer.quantiles, strict=True)
    deviation = sum(share * row_scores(terms(nats, q)).std() for (share, _), nats, q in drawn)
    assert far.sigma == pytest.approx(deviation * len(NUMBERS) / new.shape[1])
    assert (added["word"] == 0).all()
    assert added.loc[3, "x"] == added["x"].max() > 0.2
    np.testing.assert_array_equal(fitted.explain(new).sum(axis=1), -fitted.score_samples(new))


def test_property_rows_of_the_fit_are_not_compared_with_their_own_group():
    scores = np.random.default_rng(0).normal(size=(40, 2))
    means = scores[::10] + 0.01
    own = np.repeat(np.arange(4), 10)
    found = squares(scores, means, own).sum(1)
    for i in range(40):
        others = [((scores[i] - means[k]) ** 2).sum() for k in range(4) if k != own[i]]
        assert found[i] == pytest.approx(min(others))


def test_property_only_the_order_of_numbers_counts():
    """Another unit changes no term."""
    X, new = table(), table(30, seed=1)
    terms = []
    for factor in (1.0, 1000.0):
        found = detector(X.assign(y=X["y"] * factor))
        rows = found.density_.rows(new.assign(y=new["y"] * factor))
        far = found._scorer.distances
        terms.append(far.terms(found._scorer.schema, rows.cells) / far.sigma)
    np.testing.assert_allclose(*terms, atol=1e-4)


def test_property_a_row_off_the_others_is_far_though_each_of_its_cells_is_usual():
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 600)
    line = pd.DataFrame({"x": x, "y": x + 0.05 * random.normal(size=600)})
    off = pd.DataFrame({"x": [0.5], "y": [-0.5]})
    # independent columns find this row as usual as others
    found = detector(line)
    without = DiffusionOutlierDetector(FrozenEstimator(found.density_), false_alarm_rate=0.1)
    assert 3 * found.p_values(off) < 0.2 < without.fit(line).p_values(off)


def test_distances_are_saved_and_said_and_there_are_none_without_numbers_or_with_given(
    fitted, tmp_path
):
    new = table(10, seed=2)
    fitted.save(tmp_path / "detector")
    loaded = DiffusionOutlierDetector.load(tmp_path / "detector")
    np.testing.assert_array_equal(loaded.score_samples(new), fitted.score_samples(new))
    assert f"{len(fitted._scorer.distances.means)} groups of rows" in fitted.model_card()
    for alone in (
        detector(table(), given="word"),
        detector(table()[["word"]]),
        detector(table().assign(x=1.0, few=2, y=0.5, is_new=True)),
    ):
        assert alone._scorer.distances is None


def test_property_rows_that_equal_each_other_leave_finite_terms_and_ties_have_one_score():
    """The mean of five equal floats is none of them, by an ulp."""
    random = np.random.default_rng(0)
    k = random.integers(0, 4, 700)
    X = pd.DataFrame({"size": np.arange(1, 5)[k], "price": np.array([4.9, 7.3, 11.1, 15.2])[k]})
    new = pd.DataFrame({"size": [1, 1], "price": [4.9, 7.3]})
    for seed in range(4):
        scores = detector(X, random_state=seed).score_samples(new)
        assert -1e4 < scores[1] < scores[0] - 0.1
    for value in (0.1, 0.42785769953):
        numbers = np.r_[np.full(900, value), random.normal(size=100)][:, None]
        knots = knots_of(numbers)
        assert (knots[0, 0] == value).sum() == 1
    huge = pd.DataFrame({"h": random.choice([1e308, -1.5e308, 1.7e308], 400), "x": k[:400] * 1.0})
    assert detector(huge)._scorer.distances is not None


def test_property_a_column_of_few_known_cells_is_left_out_and_no_knot_is_of_fewer_than_five():
    X = table(2000)
    X["rare"] = np.nan
    X.loc[[5, 6], "rare"] = [1234.5, 1235.5]
    found = detector(X)._scorer
    names = [found.schema[j].name for j in found.distances.columns]
    assert names == NUMBERS
