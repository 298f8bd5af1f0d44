"""How close drawn rows come to training rows, where the answer is known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Forest
from discrete_itd.reporting.findings import examine
from discrete_itd.reporting.synthetic import closeness
from discrete_itd.statistics import auroc_interval


def table(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return (
        pd.DataFrame(rng.integers(3, size=(n, 12)).astype(str))
        .rename(columns=str)
        .assign(v=rng.normal(size=n))
    )


TRAIN, NEW = table(400, 0), table(300, 1)
INDEPENDENT = DiffusionDensity(denoiser="independent", random_state=0).fit(TRAIN)


def compared(model, train=TRAIN):
    return closeness(model, model.rows(train), model.rows(NEW))


def test_a_model_that_knows_no_row_is_at_one_half():
    found = compared(INDEPENDENT)
    assert found.n == 300
    assert found.copies.value == found.new_copies.value == 0
    assert found.nearer.low < 0.5 < found.nearer.high
    assert found.membership.low < 0.5 < found.membership.high


def test_copies_are_found(monkeypatch):
    def copied(n, random_state, **_):
        return TRAIN.sample(n, replace=True, random_state=random_state).reset_index(drop=True)

    monkeypatch.setattr(INDEPENDENT, "sample", copied)
    found = compared(INDEPENDENT)
    assert found.copies.value == 1
    assert found.nearer.value > 0.8  # 300 of the 400 rows are compared


def test_ties_count_half():
    frame = pd.DataFrame({"a": ["x", "y"] * 50})
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    found = closeness(model, model.rows(frame), model.rows(frame[:60]))
    assert found.nearer.value == 0.5
    assert found.copies.value == found.new_copies.value == 1


def test_membership_of_rows_that_a_model_has_learned_by_heart():
    close = DiffusionDensity(denoiser=Forest(8, min_leaf=5), random_state=0).fit(TRAIN)
    assert compared(close).membership.low > 0.55


def test_a_report_has_the_numbers_where_it_has_the_training_rows():
    lines = dict(examine(INDEPENDENT, NEW, train=TRAIN).facts)
    assert lines["exact copies"].startswith("0.0% of 300 drawn rows")
    assert "AUROC 0." in lines["membership"]
    assert "nearest record" not in dict(examine(INDEPENDENT, NEW).facts)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="0 sample"):
        compared(INDEPENDENT, TRAIN[:0])


def test_the_area_is_covered_as_often_as_it_says():
    random = np.random.default_rng(0)
    truth, covered, repeats = 0.9214, 0, 300  # of two Gaussians two standard deviations apart
    for _ in range(repeats):
        is_positive = np.arange(90) < 30
        score = random.normal(size=90) + 2 * is_positive
        interval = auroc_interval(score, is_positive)
        assert interval.value == pytest.approx(roc_auc_score(is_positive, score))
        covered += interval.low <= truth <= interval.high
    assert 0.91 <= covered / repeats <= 0.99


def test_a_perfect_ranking_is_not_known_to_be_one():
    is_positive = np.arange(40) < 10
    area = auroc_interval(is_positive.astype(float), is_positive)
    assert area.value == area.high == 1
    assert 0.8 < area.low < 0.99
