"""Columns that follow from others: found where they do, in whatever order, and nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.relation_search import find_relations
from discrete_itd.encoders.relations import (
    FORMS,
    INVERSES,
    ColumnTerm,
    Relation,
    Term,
    numbers_of,
)
from tests.laws import TIMES

N_ROWS = 1200


def planted(seed):
    """Columns of numbers, and those that follow from others by each form."""
    rng = np.random.default_rng(seed)

    def cents(values):
        return np.round(values + 1e-9, 2)

    quantity = 1.0 + rng.poisson(2, N_ROWS)
    price = cents(rng.lognormal(3, 0.6, N_ROWS))
    off, rate = (rng.choice(v, N_ROWS).astype(float) for v in ([0, 5, 10, 15], [5.5, 10, 20]))
    refund = cents(rng.exponential(3, N_ROWS) * (rng.random(N_ROWS) < 0.5))
    net = cents(quantity * price * (1 - off / 100))
    a, b, c, d = rng.integers(0, 80, (4, N_ROWS)).astype(float)
    start = rng.integers(0, 10**6, N_ROWS).astype(float)
    end = start + rng.integers(0, 6000, N_ROWS)
    mass, height = np.round(rng.normal(70, 12, N_ROWS), 1), np.round(rng.normal(170, 9, N_ROWS))
    base, one, share = rng.integers(1, 500, (3, N_ROWS)).astype(float)
    parents = {
        "quantity": quantity, "price": price, "off": off, "rate": rate, "refund": refund,
        "a": a, "b": b, "c": c, "d": d, "start": start, "end": end, "mass": mass,
        "height": height, "base": base, "one": one, "share": share,
    }  # fmt: skip
    children = {
        "net": (net, {"quantity", "price", "off"}),
        "gross": (cents(net * (1 + rate / 100)), {"net", "rate"}),
        "paid": (cents(base * one - refund), {"base", "one", "refund"}),
        "total": (a + b + c + d, {"a", "b", "c", "d"}),
        "minutes": (np.floor((end - start) / 60), {"start", "end"}),
        "pounds": (np.round(2.20462 * mass, 1), {"mass"}),
        "density": (np.round(share / height, 4), {"share", "height"}),
    }
    cells = parents | {name: values for name, (values, _) in children.items()}
    groups = {frozenset({name, *of}) for name, (_, of) in children.items()}
    return pd.DataFrame(cells), groups


def groups_of(relations, names):
    return {frozenset(names[j] for j in relation.columns) for relation in relations}


def with_wrong_rows(table, share, seed):
    """The table with a share of wrong rows, in each of which one cell is another one of its column."""
    rng, out = np.random.default_rng(seed), table.copy()
    wrong, of = rng.random(len(table)) < share, rng.integers(0, table.shape[1], len(table))
    for j, name in enumerate(table):
        rows = wrong & (of == j)
        out.loc[rows, name] = rng.permutation(table[name])[rows]
    return out


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_planted_relations_are_found_and_no_others(seed):
    table, groups = planted(seed)
    for wrong in (0.0, 0.05):
        x = with_wrong_rows(table, wrong, seed)
        assert groups_of(find_relations(x.to_numpy()), x.columns) == groups


def test_neither_the_order_of_rows_and_columns_nor_the_draws_matter():
    table, _ = planted(2)
    table = with_wrong_rows(table, 0.05, 2)
    rng = np.random.default_rng(0)
    other = table.iloc[rng.permutation(len(table)), rng.permutation(table.shape[1])]
    # proposed by other rows, too: their order by content alone would give the same draws
    known, again = find_relations(table.to_numpy()), find_relations(other.to_numpy(), seed=1)
    assert groups_of(again, list(other)) == groups_of(known, list(table))
    counts = {table.columns[r.child]: (r.n_follow, r.n_rows, r.constant) for r in known}
    assert {other.columns[r.child]: (r.n_follow, r.n_rows, r.constant) for r in again} == counts


def texts(columns, **kinds):
    table = pd.DataFrame(columns)
    return [r.text(list(table)) for r in find_relations(table.to_numpy(dtype=float), **kinds)]


@pytest.mark.parametrize("wrong", [0.0, 0.05])
def test_sums_of_products_quotients_and_constants_have_the_factors_they_were_made_with(wrong):
    rng = np.random.default_rng(11)
    amount = np.round(rng.lognormal(9, 0.6, N_ROWS), -2)
    months, rate = rng.choice([12, 24, 36, 48, 60], N_ROWS), rng.choice([3.9, 4.4, 5.9], N_ROWS)
    old, new = np.round(rng.lognormal(3, 0.4, (2, N_ROWS)), 2)
    area, price = rng.integers(20, 200, N_ROWS), np.round(rng.lognormal(2, 0.3, N_ROWS), 2)
    columns = {
        "amount": amount,
        "months": months,
        "rate": rate,
        "instalment": np.round(amount / months + amount * rate / 1200, 2),
        "old": old,
        "new": new,
        "growth": np.round(100 * (new - old) / old, 1),
        "area": area,
        "price": price,
        "cost": np.round(area * price + 35, 2),
        "other": np.round(rng.normal(size=N_ROWS), 2),
    }
    table = with_wrong_rows(pd.DataFrame(columns).astype(float), wrong, 11)
    relations = find_relations(table.to_numpy())
    assert {r.text(list(table)) for r in relations} == {
        "instalment = amount / months + amount × rate / 1200",
        "growth = 100 × new / old − 100",
        "cost = area × price + 35",
    }
    for relation in relations:
        assert relation.n_follow >= (1 - 1.1 * wrong) * N_ROWS
        for column in relation.columns:
            x = table.to_numpy()[relation.follows(table.to_numpy()) == 1]
            assert np.allclose(relation.solved(x, column), x[:, column], rtol=0.02, atol=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_factors_do_not_depend_on_a_few_amounts_a_hundred_times_as_large(seed):
    rng = np.random.default_rng(seed)
    amount = np.round(rng.lognormal(8, 0.9, 10 * N_ROWS), 2)
    months, rate = rng.choice([12, 24, 36, 60], amount.size), rng.choice([3.9, 4.4], amount.size)
    instalment = np.round(amount / months + amount * rate / 1200, 2)
    amount[rng.random(amount.size) < 0.01] *= 100
    assert texts({"amount": amount, "months": months, "rate": rate, "rent": instalment}) == [
        "rent = amount / months + amount × rate / 1200"
    ]


@pytest.mark.parametrize("share", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 0.8, 0.95])
@pytest.mark.parametrize("of", ["whole numbers", "tenths", "few rows", "no cents"])
def test_a_product_is_rounded_though_most_rows_are_exact(share, of):
    """Without a discount nothing is rounded; whatever the order of columns, beside running numbers or not."""
    rng = np.random.default_rng(int(100 * share))
    n, digits = 1500, 0 if of == "no cents" else 2
    quantity = rng.integers(1, 20, n) / (10 if of == "tenths" else 1)
    if of == "few rows":  # most of which occur several times
        quantity, price = rng.integers(1, 25, n) / 10, rng.choice([12.9, 15.5, 8.95, 3.4], n)
    else:
        price = rng.integers(100, 9999, n) / 10**digits
    off = np.where(rng.random(n) < share, 0, rng.choice([3, 5, 10], n))
    net = np.round(quantity * price * (1 - off / 100) + 1e-9, digits)
    columns = {"quantity": quantity, "price": price, "off": off, "net": net}
    for added in ({}, {"number": 50_001 + np.arange(n)}):
        table = pd.DataFrame(added | columns).astype(float)
        table = table.iloc[:, rng.permutation(table.shape[1])]
        (relation,) = find_relations(table.to_numpy())
        (term,) = relation.terms
        assert sorted(f.form for f in term.factors) == ["1-%", "x", "x"]
        assert table.columns[relation.child] == "net"
        assert (relation.n_follow, relation.half) == (n, 0.5 / 10**digits)


def test_a_relation_is_extended_by_what_its_misses_hold():
    rng = np.random.default_rng(6)
    main, other = rng.integers(0, 300, (2, 800))
    rare = rng.integers(1, 50, 800) * (rng.random(800) < 0.04)
    noise = {f"noise{k}": rng.integers(0, 300, 800) * (rng.random(800) < 0.1) for k in range(4)}
    table = {"main": main, "rare": rare, "all": main + 2 * rare, **noise}
    assert texts(table) in (["all = main + 2 × rare"], ["main = all − 2 × rare"])
    table = {"main": main, "other": other, "rare": rare, "all": main + other - rare, **noise}
    (relation,) = find_relations(pd.DataFrame(table).to_numpy(dtype=float))
    assert {*relation.columns} == {0, 1, 2, 3}


def test_columns_that_agree_in_most_rows_are_no_relation():
    rng = np.random.default_rng(7)
    built = rng.integers(0, 5000, 1000)
    later = built + rng.integers(1, 20, 1000) * (rng.random(1000) < 0.13)
    assert not texts({"built": built, "garage": later})
    staff, is_branch = rng.integers(1, 900, 1000), rng.random(1000) < 0.13
    fewer = staff - rng.integers(0, 300, 1000) * is_branch
    garage = np.where(is_branch, built + 7, built)
    # rows in which two pairs of columns agree follow sums and quotients of all four
    assert not texts({"built": built, "garage": garage, "staff": staff, "fewer": fewer})
    later = np.where(rng.random(1000) < 0.02, later, built)
    assert texts({"built": built, "copy": later}) in (["built = copy"], ["copy = built"])


def test_times_have_days_months_and_years_between_them():
    rng = np.random.default_rng(8)
    start = rng.integers(8000, 18000, 400) + rng.integers(0, 1440, 400) / 1440
    end = start + rng.integers(0, 4000, 400) + rng.integers(0, 1440, 400) / 1440
    days = [pd.to_datetime(t, unit="D") for t in (start, end)]
    months = [t.year * 12 + t.month for t in days]
    clocks = [t - t.to_period("M").to_timestamp() for t in days]
    full = months[1] - months[0] - (clocks[1] < clocks[0])
    children = {
        "days between = day(end) − day(start)": np.floor(end) - np.floor(start),
        "full days = end − start, rounded down": np.floor(end - start + 1e-9),
        "minutes = 1440 × (end − start)": np.rint((end - start) * 1440),
        "months = month(end) − month(start)": months[1] - months[0],
        "full months = months(end) − months(start), rounded down": full,
        "age = (months(end) − months(start)) / 12, rounded down": np.floor(full / 12),
        "year = year(end)": days[1].year,
    }
    for text, child in children.items():
        columns = {"start": start, "end": end, text.split(" = ")[0]: child}
        assert texts(columns, times=(0, 1)) == [text]


def test_the_sum_of_a_group_of_many_columns_is_found():
    rng = np.random.default_rng(9)
    group, other = rng.poisson(4, (2, 400, 20)).astype(float)
    x = np.column_stack([group, other, group.sum(1)])
    x[::20] = rng.permutation(x[::20])
    x[::20, -1] += 7  # wrong rows
    (relation,) = find_relations(x)
    assert {*relation.columns} == {*range(20), 40}
    assert relation.n_follow == 380


def test_a_solved_number_mends_the_row():
    table, _ = planted(3)
    x = table.to_numpy()
    for relation in find_relations(x):
        for column in relation.columns:
            solved = x.copy()
            solved[:, column] = relation.solved(x, column)
            known = np.isfinite(solved[:, column])
            assert known.mean() > 0.9
            child = solved[known, relation.child]
            assert np.allclose(relation.values(solved)[known], child, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parent_steps", [(), (0.5, 1.0)])
def test_the_lattice_points_that_are_open_are_those_that_follow(parent_steps):
    x = np.random.default_rng(0).integers(0, 40, (60, 3)) / 2
    x[::7, 1] = np.nan
    terms = (Term(0.37, (ColumnTerm(0), ColumnTerm(1))),)
    for half in (0.0, 0.05):
        relation = Relation(2, terms, 0.02, 0.1, 0.03, half, parent_steps, 0, 0)
        n_open, middle = relation.expected(x)
        lattice = 0.03 + 0.1 * np.arange(-300, 3000)
        cells = np.repeat(x[:, None], len(lattice), 1)
        cells[:, :, 2] = lattice
        follows = relation.follows(cells.reshape(-1, 3)).reshape(len(x), -1)
        assert np.array_equal(
            np.nansum(follows, axis=1), n_open
        )  # 1[x in F] / |F| has a sum of one
        assert n_open.max() >= (3 if parent_steps else half > 0)
        assert np.array_equal(np.isnan(middle), n_open == 0)
        some = n_open > 0
        x[:, 2] = middle
        assert (relation.follows(x)[some] == 1).all()
        assert (n_open[np.isnan(x[:, 1])] == 0).all()


def unrelated(seed):
    """Columns of several kinds, independent or correlated, with ties, copies of rows and gaps in some tables."""
    rng = np.random.default_rng(seed)
    n, n_columns = int(rng.choice([60, 100, 200, 400])), int(rng.integers(3, 9))
    correlation = rng.choice([0, 0.3, 0.6, 0.8, 0.9, 0.95])
    z = np.sqrt(correlation) * rng.normal(size=(n, 1))
    z = z + np.sqrt(1 - correlation) * rng.normal(size=(n, n_columns))
    u = stats.norm.cdf(z).clip(1e-9, 1 - 1e-9)
    prices = np.sort(np.round(rng.lognormal(2, 1, 20), 2))
    columns = []
    for z_j, u_j in zip(z.T, u.T, strict=True):
        kinds = [
            stats.poisson.ppf(u_j, rng.choice([0.3, 2, 30])),
            np.round(np.exp(3 + z_j), 2),
            np.round(50 + 10 * z_j, 1),
            prices[(u_j * 20).astype(int)],
            np.floor(1 + 5 * u_j),
            np.where(u_j < 0.8, 0, np.round(np.exp(z_j), 2)),
            np.round(500 + 100 * z_j),
            z_j,
            np.floor(100 * u_j) if rng.random() < 0.7 else np.full(n, 3.0),
        ]
        columns.append(kinds[rng.integers(len(kinds))])
    x = np.column_stack(columns)
    if rng.random() < 0.2:
        x = x[rng.integers(0, max(20, n // 10), n)]
    if rng.random() < 0.3:
        x[rng.random(x.shape) < 0.1] = np.nan
    return x


def test_unrelated_columns_have_no_relation():
    related = [seed for seed in range(20 * TIMES) if find_relations(unrelated(seed))]
    assert not related


def test_forms_have_inverses():
    x = np.array([0.5, 7.0, 40.0])
    for name, form in FORMS.items():
        assert np.allclose(form(INVERSES[name](form(x))), form(x))


def test_text_is_read_as_numbers():
    table, groups = planted(4)
    table = table[["quantity", "price", "off", "net"]]
    table = table.assign(price=[f"{p:.2f} €".replace(".", ",") for p in table["price"]])
    encoder = TableEncoder.fit(table).with_relations(table)
    (relation,) = encoder.relations
    assert groups_of([relation], list(table)) <= groups
    assert "in 1,200 of 1,200 rows" in encoder.describe()["follows"].iloc[relation.child]


def test_a_number_follows_from_text_with_its_digits():
    rng = np.random.default_rng(10)
    zone, other = rng.integers(1, 60, (2, 400))
    table = pd.DataFrame({"zone": zone, "code": [f"Z-{z:03d}" for z in zone], "other": other})
    encoder = TableEncoder.fit(table).with_relations(table)
    (relation,) = encoder.relations
    assert relation.text(encoder.names) == "zone = code"
    rows = pd.DataFrame({"zone": [7, 7], "code": ["Z-007", "Z-070"], "other": 1})
    assert relation.follows(numbers_of(rows, encoder.schema)).tolist() == [1, 0]


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((50, 3)),
        np.full((50, 3), np.nan),
        np.ones((2, 2)),
        np.column_stack([np.arange(50.0)] * 3),
        np.random.default_rng(0).choice([0, 1e300, -1e300, np.nan, 5e-324], (60, 4)),
    ],
)
def test_strange_columns_have_an_answer(x):
    for relation in find_relations(x):
        assert np.isin(relation.follows(x), [0, 1, np.nan]).any()
