"""Drawn rows near one real row: copies are found, strangers are not, and the closed form is a refit without the row."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from discrete_itd import find_near_rows
from discrete_itd.reporting.near_rows import RowKernel, Scales

pytestmark = pytest.mark.single_precision


def people(n, seed):
    """Categories that depend on a hidden one, two numbers that depend on each other, and a number with gaps."""
    random = np.random.default_rng(seed)
    kind, size = random.integers(4, size=n), random.normal(size=n)
    columns = {
        f"c{j}": np.where(random.random(n) < 0.6, kind, random.integers(4, size=n))
        for j in range(4)
    }
    frame = pd.DataFrame(columns).astype(str)
    frame["height"] = size + kind
    frame["weight"] = (10 * size + random.normal(size=n)).round()
    frame["income"] = np.where(random.random(n) < 0.1, np.nan, random.gamma(2, size=n))
    return frame


def naive_density(x, rows, nominal, scales):
    """P(x) of a row, relative to independent columns, by loops over rows and columns."""
    total = 0.0
    for row in rows:
        term = 1.0
        for j, (a, b) in enumerate(zip(x, row, strict=True)):
            cells = rows[:, j]
            known = cells[~np.isnan(cells)]
            if math.isnan(a):
                kernel = math.isnan(b) / max(np.isnan(cells).mean(), 1 / len(rows))
            else:
                kernel = (a == b) / max((cells == a).mean(), 1e-9)
            if not nominal[j] and not math.isnan(a) and not math.isnan(b):
                u, v = ((np.sum(known < c) + np.sum(known == c) / 2) / len(known) for c in (a, b))
                inside = 1 - (math.exp(-v / scales.reach) + math.exp((v - 1) / scales.reach)) / 2
                near = math.exp(-abs(u - v) / scales.reach) / (2 * scales.reach * inside)
                kernel = 0.9 * near * len(rows) / len(known) + 0.1 * kernel
            term *= scales.independence + (1 - scales.independence) * kernel
        total += term
    return total / len(rows)


def test_the_density_is_the_naive_one():
    random = np.random.default_rng(0)
    rows = np.column_stack([random.integers(3, size=30), random.integers(12, size=30)]).astype(
        float
    )
    rows[:4, 0] = rows[3:6, 1] = np.nan
    nominal, scales = np.array([True, False]), Scales(0.1, 0.2)
    kernel = RowKernel(rows, nominal, scales)
    found = kernel.log_terms(rows[:10])
    for x, terms in zip(rows[:10], found, strict=True):
        density = naive_density(x, rows, nominal, scales)
        assert np.exp(terms).mean() == pytest.approx(density)


def test_the_closed_form_is_a_mean_over_the_other_rows():
    """The nearest row is the one without which a row is least probable, of all that may be left out."""
    rows = people(60, 0)[["height", "weight"]].to_numpy()
    kernel = RowKernel(rows[10:], np.zeros(2, bool), Scales(0.1, 0.1))
    terms = np.exp(kernel.log_terms(rows[:10]))
    without = [[np.log(np.delete(t, i).mean()) for i in range(len(t))] for t in terms]
    nearest, with_all, least = kernel.nearest(rows[:10], np.full(10, -1))
    assert nearest.tolist() == np.argmin(without, 1).tolist()
    assert with_all == pytest.approx(np.log(terms.mean(1)))
    assert least == pytest.approx(np.min(without, 1))
    # of a row that is one of them, they are the others
    found = kernel.nearest(rows[10:13], np.arange(3))
    for i in range(3):
        others = RowKernel(rows[10:], np.zeros(2, bool), Scales(0.1, 0.1)).log_terms(
            rows[10 + i : 11 + i]
        )
        assert found[1][i] == pytest.approx(np.log(np.exp(np.delete(others, i)).mean()))
        assert found[0][i] == np.delete(np.arange(50), i)[np.delete(others, i).argmax()]


def test_strangers_are_as_near_as_they_are_to_be():
    p = find_near_rows(people(1000, 0), people(1000, 1))["p_value"]
    for level in (0.01, 0.1):
        low, high = binom.interval(0.9999, 1000, level)
        assert low / 2 <= (p <= level).sum() <= 2 * high


def test_copies_of_one_person_come_first_with_their_labels():
    real, drawn = people(400, 0), people(100, 1)
    real.index = [f"person {i}" for i in range(400)]
    drawn.iloc[:5] = real.iloc[20:25]
    drawn["extra"] = 0.0  # of each table, columns that both have
    found = find_near_rows(real.assign(extra=0.0), drawn)
    assert sorted(found.index[:5]) == [0, 1, 2, 3, 4]
    assert found.loc[range(5), "row"].tolist() == real.index[20:25].tolist()
    assert (found.loc[range(5), "p_value"] < 0.01).all()
    assert found["nats"].to_numpy() == pytest.approx(found["nats_with"] - found["nats_without"])
    assert found["nats"].is_monotonic_decreasing
    assert found["p_value"].is_monotonic_increasing
    shuffled = find_near_rows(real.sample(frac=1, random_state=0).assign(extra=0.0), drawn[::-1])
    assert shuffled["row"].to_dict() == found["row"].to_dict()


def test_a_row_that_two_persons_have_owes_little_to_either():
    real, drawn = people(400, 0), people(100, 1)
    drawn.iloc[0] = real.iloc[20]
    alone = find_near_rows(real, drawn).loc[0]
    twice = find_near_rows(pd.concat([real, real[20:21]], ignore_index=True), drawn).loc[0]
    assert alone["nats"] > 3
    assert twice["nats"] < math.log(2) + 0.1


def test_tables_that_do_not_fit_are_named():
    real = people(60, 0)
    with pytest.raises(ValueError, match="drawn has 10 rows; a comparison needs 50"):
        find_near_rows(real, people(10, 1))
    with pytest.raises(ValueError, match="column 'c1': of drawn, real lacks it"):
        find_near_rows(real.drop(columns="c1"), real)
