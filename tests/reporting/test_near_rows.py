"""Drawn rows near one real row: copies are found, strangers are not, and the closed form is a refit without the row."""

import math

import numpy as np
import pandas as pd
import pytest

from discrete_itd import compare_tables, find_near_rows
from discrete_itd.reporting.near_rows import RowKernel, Scales, TermSums

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
    """P(x) of a new row, relative to independent columns, by loops over the rows and columns of a table with it."""
    total, whole = 0.0, np.vstack([rows, x])
    for row in rows:
        term = 1.0
        for j, (a, b) in enumerate(zip(x, row, strict=True)):
            cells = whole[:, j]
            known = cells[~np.isnan(cells)]
            same = np.isnan(cells) if math.isnan(a) else cells == a
            kernel = (a == b or (math.isnan(a) and math.isnan(b))) / same.mean()
            if not nominal[j] and not math.isnan(a) and not math.isnan(b):
                u, v = ((np.sum(known < c) + np.sum(known == c) / 2) / len(known) for c in (a, b))
                images = [v + 2 * i for i in range(-9, 10)] + [2 * i - v for i in range(-9, 10)]
                near = sum(math.exp(-abs(u - w) / scales.reach) for w in images) / 2 / scales.reach
                kernel = 0.9 * near * len(whole) / len(known) + 0.1 * kernel
            elif not nominal[j] and math.isnan(a) != math.isnan(b):
                kernel = 0.0
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
    found = TermSums.of(np.log(terms))
    assert found.nearest.tolist() == np.argmin(without, 1).tolist()
    assert found.total - np.log(50) == pytest.approx(np.log(terms.mean(1)))
    assert found.rest - np.log(49) == pytest.approx(np.min(without, 1))
    more = TermSums.of(np.log(terms[:, :-1])).plus(np.log(terms[:, -1]))
    assert more.nats == pytest.approx(found.nats)


def test_a_real_row_among_the_others_is_a_new_row_of_these():
    """Shares and ranks, and so terms, are those of the table without the row to which it comes as a new one."""
    rows = people(40, 0).assign(income=1.0)[["height", "weight"]].to_numpy()
    rows = np.column_stack([rows, np.random.default_rng(0).integers(5, size=40)]).astype(float)
    rows[:5, 1] = np.nan
    how = np.array([False, False, True]), Scales(0.1, 0.1)
    found = RowKernel(rows, *how).log_terms(rows, np.arange(40), 0)
    for i in range(40):
        alone = RowKernel(np.delete(rows, i, 0), *how).log_terms(rows[i : i + 1])[0]
        assert np.delete(found[i], i) == pytest.approx(alone)


def numbers(n, seed):
    random = np.random.default_rng(seed)
    return pd.DataFrame(random.normal(size=(n, 1)) + random.normal(size=(n, 5)) / 2)


def categories(n_levels):
    def drawn(n, seed):
        """Levels of which most are rare, and that often agree in all columns."""
        random = np.random.default_rng(seed)
        levels = (n_levels * random.random((n, 6)) ** 2).astype(int)
        return pd.DataFrame(np.where(random.random((n, 6)) < 0.4, levels[:, :1], levels)).astype(
            str
        )

    return drawn


def with_gaps(n, seed):
    frame = people(n, seed)
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < 0.2)


@pytest.mark.parametrize(("n", "n_tables"), [(50, 25), (200, 8)])
def test_strangers_are_as_near_as_they_are_to_be(n, n_tables):
    """Of fresh rows as many as the level, or fewer by ties, have a p-value at most that; a mean over tables."""
    kinds = [people, numbers, categories(3), categories(40), with_gaps]
    levels = np.array([0.02, 0.05, 0.1])
    shares = np.array(
        [
            (find_near_rows(kind(n, i), kind(80, i + 100))["p_value"].to_numpy() <= levels[:, None])
            for kind in kinds
            for i in range(n_tables)
        ]
    ).mean(-1)
    error = shares.std(0, ddof=1) / np.sqrt(len(shares))
    possible = np.floor(levels * (n + 1)) / (n + 1)
    assert (shares.mean(0) <= possible + 2 * error).all()
    assert (shares.mean(0) >= 0.5 * possible).all()


def test_copies_of_one_person_come_first_with_their_labels():
    real, drawn = people(400, 0), people(100, 1)
    real.index = [f"person {i}" for i in range(400)]
    drawn.iloc[:5] = real.iloc[20:25]
    drawn.loc[3:4, "c0"] = ["4", "5"]  # but for one cell
    drawn["extra"] = 0.0  # of each table, columns that both have
    found = find_near_rows(real.assign(extra=0.0), drawn)
    assert sorted(found.index[:5]) == [0, 1, 2, 3, 4]
    assert found.loc[range(5), "row"].tolist() == real.index[20:25].tolist()
    assert (found.loc[range(5), "p_value"] < 0.01).all()
    assert found["nats"].to_numpy() == pytest.approx(found["nats_with"] - found["nats_without"])
    assert found["nats"].is_monotonic_decreasing
    shuffled = find_near_rows(real.sample(frac=1, random_state=0).assign(extra=0.0), drawn[::-1])
    assert shuffled["row"].to_dict() == found["row"].to_dict()


KINDS = {
    "times": lambda t, _: {"start": t, "end": t + pd.Timedelta("2D")},
    "times of a zone": lambda t, _: {
        "start": t.tz_localize("Europe/Berlin"),
        "end": t.tz_localize("Europe/Berlin").tz_convert("UTC") + pd.Timedelta("1h"),
    },
    "dates in text": lambda t, _: {"start": t.strftime("%d.%m.%Y"), "end": t.strftime("%Y-%m-%d")},
    "a clock with gaps": lambda t, random: {
        "start": t.where(random.random(len(t)) > 0.1),
        "end": t + pd.to_timedelta(random.integers(99, size=len(t)), unit="h"),
    },
    "years": lambda t, random: {"year": t.year, "until": t.year + random.integers(9, size=len(t))},
    "durations and truths": lambda t, random: {
        "took": pd.to_timedelta(random.integers(9999, size=len(t)), unit="s"),
        "done": random.random(len(t)) < 0.3,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_found_beside_columns_of_any_kind(kind):
    """And are less near with the values of another row, of a year later; distances are those of the user's columns."""
    random = np.random.default_rng(0)
    times = pd.date_range("2021-02-01 06:00", periods=300, freq="97h")
    real = people(300, 0).assign(**KINDS[kind](times, random))
    others = people(300, 1).assign(**KINDS[kind](times + pd.Timedelta("52W"), random))
    drawn = pd.concat([real[40:43], others[100:150]], ignore_index=True)
    found = find_near_rows(real, drawn)
    assert found["row"].loc[range(3)].tolist() == [40, 41, 42]
    assert (found["p_value"].loc[range(3)] < 0.01).all()
    added = real.columns.difference(people(1, 0).columns)
    moved = find_near_rows(real, drawn.assign(**others.loc[40:92, [*added]].reset_index(drop=True)))
    assert (found["nats"].loc[range(3)] > moved["nats"].loc[range(3)]).all()
    columns = compare_tables(real, drawn, random_state=0).columns
    assert {*columns.index} == {*real}


def test_a_copy_and_its_real_row_owe_each_other_as_much():
    for real in (people(50, 0), numbers(50, 0), categories(3)(50, 0), categories(40)(50, 0)):
        least = find_near_rows(real, real)["p_value"].to_numpy().min()
        assert least == pytest.approx(2 / 51)


def test_a_row_that_two_persons_have_owes_little_to_either():
    real, drawn = people(400, 0), people(100, 1)
    drawn.iloc[0] = real.iloc[20]
    alone = find_near_rows(real, drawn).loc[0]
    twice = find_near_rows(pd.concat([real, real[20:21]], ignore_index=True), drawn).loc[0]
    assert alone["nats"] > 3
    assert twice["nats"] < math.log(2) + 0.1


def test_tables_that_do_not_fit_are_named():
    real = people(60, 0)
    with pytest.raises(ValueError, match="real has 49 rows; a comparison needs 50"):
        find_near_rows(real[:49], people(10, 1))
    assert find_near_rows(real, people(60, 1)[:1]).shape == (1, 5)
    assert find_near_rows(real, people(60, 1)[:0]).shape == (0, 5)
    with pytest.raises(ValueError, match="column 'c1': of drawn, real lacks it"):
        find_near_rows(real.drop(columns="c1"), real)
