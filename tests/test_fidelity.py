"""The scores of synthetic rows: perfect for the same table, as defined for others, and low where they should be."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import normalized_mutual_info_score

from tests.benchmarks.fidelity import (
    copies,
    detection,
    features,
    shape,
    total_variation,
    trend,
    utility,
    weighted_nmi,
)

NUMBERS = ["amount", "twice"]


def table(seed, n=600):
    random = np.random.default_rng(seed)
    amount = random.normal(size=n)
    town = np.where(amount + random.normal(size=n) > 0, "Bern", "Chur")
    code = random.integers(0, 3, n).astype(str)
    twice = 2 * amount + random.normal(size=n)
    return pd.DataFrame({"amount": amount, "twice": twice, "town": town, "code": code})


A, B = table(0), table(1)
SHUFFLED = A.apply(lambda c: c.sample(frac=1, random_state=len(c.name)).to_numpy())


@pytest.mark.parametrize("score", [shape, trend, weighted_nmi])
def test_the_same_table_is_perfect_in_any_order_of_rows_and_another_one_is_not(score):
    assert score(A, A[::-1].reset_index(drop=True), NUMBERS) == pytest.approx(1.0)
    assert 0.85 < score(A, B, NUMBERS) < 1.0


def test_shuffled_columns_keep_their_shape_and_lose_their_pairs():
    assert shape(A, SHUFFLED, NUMBERS) == 1.0
    assert trend(A, SHUFFLED, NUMBERS) < trend(A, B, NUMBERS) - 0.05
    assert weighted_nmi(A, SHUFFLED, NUMBERS) < weighted_nmi(A, B, NUMBERS) - 0.05


def test_weighted_nmi_is_that_of_scikit_learn_weighted():
    edges = {c: np.histogram_bin_edges(A[c], 10) for c in NUMBERS}

    def codes(frame):
        cut = {c: np.digitize(frame[c], np.nextafter(e, np.inf)) for c, e in edges.items()}
        for c, e in edges.items():  # outside of the real range is one more value
            cut[c][frame[c] == e[0]] = 1
            cut[c][(frame[c] < e[0]) | (frame[c] > e[-1])] = 99
        return frame.assign(**cut)

    parts = [codes(A), codes(B)]
    pairs = itertools.combinations(A.columns, 2)
    ours, theirs = np.array(
        [[normalized_mutual_info_score(f[a], f[b]) for f in parts] for a, b in pairs]
    ).T
    expected = 1 - np.average(abs(ours - theirs), weights=ours + theirs)
    assert weighted_nmi(A, B, NUMBERS) == pytest.approx(expected, abs=1e-12)


def test_detection_guesses_among_rows_of_one_distribution_and_sees_another():
    real = A[:400]
    same, other = detection(real, B[:400]), detection(real, SHUFFLED[:400])
    assert abs(same.aucs.mean() - 0.5) < 0.1
    assert same.score > 0.75
    assert other.aucs.mean() > 0.7
    assert other.score == pytest.approx(2 - 2 * other.aucs.mean())
    assert detection(real, real.sample(frac=1, replace=True)).score == 1.0  # it cannot see copies


def test_rows_that_keep_the_pairs_are_of_more_use():
    scores = [utility(f, table(2), "town", is_number=False) for f in (B, SHUFFLED)]
    assert scores[0] > 0.7 > 0.6 > scores[1]
    target = B.assign(amount=np.exp(B["amount"]))
    assert utility(target, target, "amount", is_number=True) < 0.4


def test_integers_as_text_are_numbers_and_other_text_is_one_hot():
    assert [*features(A)] == ["0 amount", "1 twice", "2 town=Bern", "2 town=Chur", "3 code"]
    assert total_variation(A["town"], A["town"].replace("Bern", "Thun")) == pytest.approx(
        (A["town"] == "Bern").mean()
    )


def test_copies_are_counted_whatever_the_dtype():
    mixed = pd.concat([A[:30], B[:10]])
    assert copies(A, mixed) == 0.75
    whole = pd.DataFrame({"n": [1, 2, 3]})
    assert copies(whole, whole.astype(float)) == 1.0
