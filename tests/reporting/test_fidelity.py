"""The comparison of drawn with real rows."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd import compare_tables
from discrete_itd.reporting import fidelity
from discrete_itd.reporting.fidelity import total_variation


def table(n, seed):
    """Two columns that depend on each other, one of numbers; another one; and gaps where the first is "c"."""
    random = np.random.default_rng(seed)
    kind, size = random.choice(list("abc"), n), random.choice([1, 2, 5], n)
    price = np.where(kind == "a", 10, 20) + random.normal(size=n).round(2)
    return pd.DataFrame({"kind": kind, "size": size, "price": np.where(kind == "c", np.nan, price)})


REAL, OTHERS = table(400, 0), table(400, 1)


@pytest.fixture
def without_classifier(monkeypatch):
    monkeypatch.setattr(fidelity, "_recognised", lambda *_: (0.5, 0.0))


def shuffled(rows, *columns):
    return rows.assign(**{c: rows[c].sample(frac=1, random_state=0).to_numpy() for c in columns})


@pytest.mark.parametrize(
    "others", [pytest.param(None, marks=pytest.mark.slow), OTHERS], ids=["halves", "others"]
)
def test_independent_columns_are_told_apart_and_other_real_rows_are_not(others):
    for drawn, low, high in ((table(400, 2), 0.42, 0.58), (shuffled(OTHERS, "kind"), 0.7, 1)):
        found = compare_tables(REAL, drawn, others, random_state=0)
        (auc, by_others), (error, _) = found.summary.to_numpy()[:2]
        assert low <= auc <= high
        assert abs(by_others - 0.5) < 0.08
        assert 0.01 < error < 0.04
    assert found.columns["distance_drawn"].max() < 0.2  # one by one they are as they were
    assert found.pairs.index[0] == ("kind", "price")
    drawn, real = found.pairs.iloc[0]
    assert drawn > 0.3 > real


@pytest.mark.slow
def test_the_error_of_the_auc_is_its_standard_deviation():
    random, found = np.random.default_rng(0), []
    for _ in range(8):
        real, drawn = random.normal(size=(2, 100, 1))
        found.append(fidelity._recognised(real, drawn + 1, np.array([False]), random))
    values, errors = np.array(found).T
    assert 0.5 < values.std(ddof=1) / errors.mean() < 2


@pytest.mark.usefixtures("without_classifier")
def test_gaps_are_a_value():
    real, other = (t.assign(kind=t["kind"].mask(t["size"] == 1)) for t in (REAL, OTHERS))
    drawn = other.fillna({"price": 15, "kind": real["kind"].mode()[0]})
    columns = compare_tables(real, drawn, random_state=0).columns
    assert {*columns.index[:2]} == {"price", "kind"}
    assert (columns["distance_drawn"][:2] > 0.25).all()
    assert (columns["gaps_drawn"] == 0).all()
    np.testing.assert_allclose(columns["gaps_real"], columns["gaps_others"], atol=0.1)


@pytest.mark.usefixtures("without_classifier")
def test_repeats_are_counted_beside_those_of_unseen_rows():
    drawn = pd.concat([REAL[:100], OTHERS.assign(size=7)])  # of 500 rows, 100 are copies
    assert compare_tables(REAL, drawn, OTHERS).summary.iloc[-1, 0] == 0.2
    assert compare_tables(REAL, OTHERS, drawn).summary.iloc[-1, 1] == 0.2
    once = REAL.assign(place=np.arange(400) / 7)
    paired = pd.concat([once[:80], once[:320]])
    assert compare_tables(paired, once).summary.iloc[-1].tolist() == [0.8, 0.4]


@pytest.mark.slow
def test_the_form_of_a_table_changes_nothing():
    polars = pytest.importorskip("polars")
    written = [
        t.assign(price=t["price"].map("£{:.2f}".format, na_action="ignore")) for t in (REAL, OTHERS)
    ]
    expected = compare_tables(REAL, OTHERS, random_state=0)
    both = written[0], polars.from_pandas(written[1])
    assert str(compare_tables(*both, random_state=0)) == str(expected)
    arrays = [t[["size", "price"]].to_numpy() for t in (REAL, OTHERS)]
    assert [*compare_tables(*arrays).columns.index] in ([0, 1], [1, 0])


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ValueError, match="drawn has 49 rows; a comparison needs 50"):
        compare_tables(REAL, OTHERS[:49])
    with pytest.raises(ValueError, match="column 'more': of drawn, real lacks it"):
        compare_tables(REAL, OTHERS.assign(more=1))


def test_total_variation_is_the_share_to_be_changed():
    kind = REAL["kind"]
    assert total_variation(kind, kind.replace("a", "z")) == pytest.approx((kind == "a").mean())
    assert total_variation([1, 1, 2, 3], [1, 1, 1, 1, 2, 2, 3, 3]) == 0
