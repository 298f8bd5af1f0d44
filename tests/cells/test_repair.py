"""Repairs: what is nearly certain is written, the rest is named, and what was repaired stays."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd import find_errors, repair_errors
from discrete_itd.cells import repair
from discrete_itd.cells.repair import SURE
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision


def orders(seed, *, n_wrong):
    """Towns, codes and prices that follow from one another, in several dtypes, and where cells were replaced."""
    random = np.random.default_rng(seed)
    k = random.integers(0, 8, 240)
    frame = pd.DataFrame(
        {
            "town": pd.Categorical(np.array([*"ABCDEFGH"])[k]),
            "code": (k + 50).astype(np.int16),
            "area": pd.array(100 * k, dtype="Int64"),
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(7 * k, "D"),
            "size": random.integers(0, 90, 240),
        },
        index=np.arange(240) // 2,  # two rows of each label
    )
    for j in range(4):
        rows = random.choice(240, n_wrong, replace=False)
        frame.isetitem(j, frame.iloc[:, j].reset_index(drop=True))
        frame.iloc[rows, j] = frame.iloc[(rows + 1) % 240, j].array
    return frame.set_axis(np.arange(240) // 2)


def test_property_named_cells_alone_change_to_what_is_expected_and_stay_so():
    n_repaired = n_left = 0
    for seed in range(2 * TIMES):
        table = orders(seed, n_wrong=4)
        before = table.copy()
        repaired, cells = repair_errors(table, min_probability=0.2)
        pd.testing.assert_frame_equal(table, before)
        pd.testing.assert_frame_equal(
            cells.drop(columns="repaired"), find_errors(table, min_probability=0.2)
        )
        assert (repaired.dtypes == table.dtypes).all()
        assert repaired.index.equals(table.index)
        done = cells[cells["repaired"]]
        assert (done[["probability_wrong", "expected_probability"]] >= SURE).all(axis=None)
        changed = (repaired.astype(object) != table.astype(object)).to_numpy()
        assert changed.sum() == len(done)
        old, new = (t.astype(object).to_numpy()[changed] for t in (table, repaired))
        assert sorted(map(str, old)) == sorted(map(str, done["value"]))
        assert sorted(map(str, new)) == sorted(map(str, done["expected"]))
        again = repair_errors(repaired).table.astype(object).to_numpy()
        assert (again[changed] == new).all()
        n_repaired, n_left = n_repaired + len(done), n_left + len(cells) - len(done)
    assert n_repaired
    assert n_left


def test_a_right_table_is_left_as_it_is():
    table = orders(0, n_wrong=0)
    pd.testing.assert_frame_equal(repair_errors(table).table, table)


def test_cells_that_would_be_repaired_again_or_do_not_fit_are_left(monkeypatch):
    """A judge who doubts whatever a holds, and expects a word and a gap among integers."""

    def judge(frame, **_):
        flipped = {"x": "y", "y": "x"}[frame["a"][0]]
        cells = [(0, "a", flipped), (0, "b", "word"), (1, "b", None), (1, "c", "z")]
        named = pd.DataFrame(cells, columns=["row", "column", "expected"])
        named = named[[True, True, True, frame["c"][1] == "v"]]
        return named.assign(expected_probability=0.95, probability_wrong=0.99)

    monkeypatch.setattr(repair, "find_errors", judge)
    table = pd.DataFrame({"a": ["x", "x"], "b": [1, 2], "c": ["u", "v"]})
    repaired, cells = repair_errors(table)
    assert cells["repaired"].tolist() == [False, False, False, True]
    pd.testing.assert_frame_equal(repaired, table.assign(c=["u", "z"]))
