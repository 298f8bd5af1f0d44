"""Relations among encoded cells: numbers as they were, F by enumeration, and times that are counted from a clock."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from discrete_itd.encoders import Continuous, TableEncoder
from discrete_itd.encoders.following import RelatedCells, RelatedColumn
from discrete_itd.encoders.relations import ColumnTerm, Relation, Term, numbers_of

RNG = np.random.default_rng(0)
COLUMNS = {
    "counts": RNG.poisson(3, 300),
    "list": RNG.choice([0.99, 1.49, 2.5, 10.0], 300),
    "cents": np.round(RNG.lognormal(3, 1, 300), 2),
    "floats": RNG.normal(size=300),
    "large": RNG.integers(0, 10**9, 300) * 10,
    "days": pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 900, 300), unit="D"),
    "seconds": pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 10**8, 300), unit="s"),
    "durations": pd.to_timedelta(RNG.integers(0, 5000, 300), unit="min"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_numbers_of_encoded_cells_are_those_of_the_table(name):
    table = pd.DataFrame({name: COLUMNS[name]})
    encoder = TableEncoder.fit(table)
    column, x = RelatedColumn(encoder.schema[0]), encoder.transform(table).x[:, 0]
    numbers = numbers_of(table, encoder.schema)[:, 0]
    assert np.allclose(column.read(x), numbers, rtol=1e-12, atol=1e-9)
    assert np.allclose(column.write(column.read(x)), x, rtol=1e-9, atol=1e-9)
    cells = column.cells(column.read(x))
    if name == "floats":
        assert np.allclose(cells, table[name], atol=1e-9)
    else:
        assert cells.tolist() == table[name].tolist()


@pytest.mark.parametrize("name", ["counts", "list", "cents", "days", "durations"])
def test_an_interval_has_the_numbers_of_the_column_in_it(name):
    table = pd.DataFrame({name: COLUMNS[name]})
    schema = TableEncoder.fit(table).schema
    column, numbers = RelatedColumn(schema[0]), numbers_of(table, schema)[:, 0]
    step = column.step
    middle = numbers + RNG.uniform(-2, 2, 300) * step
    half = RNG.choice([0.0, 0.5, 1.3, 2.0], 300) * step
    n, first, last = column.between(middle, half)
    every = np.unique(numbers)
    if not schema[0].has_levels:
        every = every.min() + step * np.arange(-5, round(np.ptp(every) / step) + 6)
    near = np.abs(every - middle[:, None]) <= half[:, None] + 1e-4 * step
    assert np.array_equal(n, near.sum(1))
    some = n > 0
    ends = [np.array([e[[0, -1][k]] for e in (every[row] for row in near[some])]) for k in (0, 1)]
    assert np.allclose([first[some], last[some]], ends)
    assert np.isnan(first[~some]).all()
    nearest = column.nearest(first[some])
    assert np.allclose(nearest, first[some])


@pytest.mark.parametrize("form", ["x", "day"])
def test_of_times_counted_from_a_clock_differences_alone_follow(form):
    """ordered is the clock, left and paid are counted from it; left = ordered + days."""
    ordered, days = COLUMNS["days"], RNG.integers(1, 40, 300)
    left = ordered + pd.to_timedelta(days, unit="D")
    table = pd.DataFrame({"ordered": ordered, "left": left, "days": days})
    plain = TableEncoder.fit(table)
    x = plain.transform(table).x
    codec = Continuous.fit(days.astype(float), True)
    schema = [plain.schema[0], replace(plain.schema[1], codec=codec), plain.schema[2]]
    x[:, 1] = codec.encode(days.astype(float))[0]

    def relation(child, *signs, form="x"):
        forms = [form if j < 2 else "x" for j in range(3)]
        terms = [Term(float(s), (ColumnTerm(j, forms[j]),)) for j, s in enumerate(signs) if s]
        return Relation(child, tuple(terms), 0.0, 1.0, 0.0, 0.0, (), 99, 100)

    follows = relation(1, 1, 0, 1, form=form)
    related = RelatedCells(schema, [follows], clock=0, counted=[1])
    assert np.allclose(related.log_terms(x)[:, 0], np.log(follows.share))
    x[:, 2] = np.roll(x[:, 2], 1)
    differs = np.roll(days, 1) != days
    assert np.array_equal(np.isneginf(related.log_terms(x)[:, 0]), differs)
    is_free = np.zeros((300, 3), bool)
    is_free[:, 1] = True
    wrong = table.assign(left=ordered)
    assert (related.settled(wrong, is_free)["left"] == left).all()
    is_free = np.zeros((300, 3), bool)
    is_free[:, 0] = True
    wrong = table.assign(ordered=pd.Timestamp("2024-01-01"))
    assert (related.settled(wrong, is_free)["ordered"] == ordered).all()
    # what follows from when the row was written, and the clock itself, are left out
    for other in (relation(2, 0, 1, 0), relation(0, 0, 2, -1), relation(2, 1, 1, 0)):
        assert not RelatedCells(schema, [other], clock=0, counted=[1]).relations
    assert RelatedCells(schema, [relation(2, -1, 1, 0)], clock=0, counted=[1]).relations
    # one that gives the clock is solved for the time that is counted from it
    (turned,) = RelatedCells(schema, [relation(0, 0, 1, -1)], clock=0, counted=[1]).relations
    assert np.array_equal(
        turned.values(numbers_of(table, schema)),
        relation(1, 1, 0, 1).values(numbers_of(table, schema)),
    )


def test_a_number_of_more_steps_than_floats_count_does_not_follow():
    table = pd.DataFrame({name: COLUMNS[name] for name in ("cents", "large")})
    table["sum"] = table["cents"] + table["large"]
    encoder = TableEncoder.fit(table)
    terms = (Term(1e296, (ColumnTerm(1), ColumnTerm(0))),)
    related = RelatedCells(encoder.schema, [Relation(2, terms, 0.0, 0.01, 0.0, 0.0, (), 9, 10)])
    x = encoder.transform(table).x
    for cells in (x, np.full_like(x, 32.0)):
        assert not np.isfinite(related.log_terms(cells)).any()
        assert related.nodes(cells, 0).shape == related.nodes(cells, 2).shape
