"""Properties of holding rows out: groups are whole, equally likely, and new to a fit; rows are draws without them."""

import functools

import numpy as np
import pandas as pd
import pytest
from fits import QUICK, chain, numbers
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW, TIMES, seeds
from scipy.stats import binom
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, cross_validate

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.encoders import TableEncoder
from discrete_itd.models.held_out import (
    check_groups,
    count_units,
    hold_out,
    in_order_of_content,
    one_of_each,
)
from discrete_itd.storage.values import flatten, unflatten
from tests.networks import load_bayesian_network

network = functools.cache(load_bayesian_network)


# -- the division ---------------------------------------------------------------------------------


@LAW
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 60), seeds)
def test_property_every_group_is_on_one_side(n, n_groups, n_held, seed):
    units = np.random.default_rng(seed).integers(0, n_groups, n)
    n_held = min(n_held, count_units(n, units))
    held, rest = hold_out(n, units, n_held, seed)
    assert sorted([*held, *rest]) == list(range(n))
    assert not set(units[held]) & set(units[rest])
    assert count_units(n, units[held]) == n_held
    one = one_of_each(held, units)
    assert sorted(units[one]) == sorted(set(units[held]))
    assert (np.diff(one) > 0).all()
    assert set(one) <= set(held)


@LAW
@given(st.integers(2, 40), seeds)
def test_property_the_order_of_rows_is_that_of_their_content(n, seed):
    """Whatever their order, that of the columns, the units and the names of levels."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": random.normal(size=n), "y": random.normal(size=n) ** 3})
    frame["kind"] = random.choice(list("aab"), n)
    groups = random.integers(0, 5, n)
    there = random.permutation(n)
    renamed = frame.assign(x=1000 * frame["x"], kind=frame["kind"].map({"a": "z", "b": "c"}))
    moved = renamed.iloc[there, random.permutation(3)]
    labels, positions = [], []
    for table, rows, units in ((frame, np.arange(n), groups), (moved, there, groups[there])):
        encoder = TableEncoder.fit(table, {"x": "continuous", "y": "continuous", "kind": "nominal"})
        order, numbers = in_order_of_content(encoder.transform(table).x, encoder.schema, units)
        positions.append(rows[order].tolist())
        labels.append(numbers.tolist())
    assert positions[0] == positions[1]
    assert labels[0] == labels[1]


NUMBERS = {
    "one column": lambda x: {"x": x},
    "one with outliers": lambda x: {"x": np.sinh(3 * x) ** 5},
    "with its exponential": lambda x: {"x": x, "y": np.exp(x)},
    "which rises while it falls": lambda x: {"x": x, "y": -(x**3)},
}


@pytest.mark.parametrize("columns", NUMBERS.values(), ids=NUMBERS)
def test_property_held_out_ranks_are_random(columns):
    """Even where the ranks of a table say nothing of its rows, or one says all: each rank is held out as often."""
    n, held, tables = 31, 7, 300
    random, times = np.random.default_rng(1), np.zeros(n)
    for _ in range(tables):
        x = random.normal(size=n)
        frame = pd.DataFrame(columns(x))
        encoder = TableEncoder.fit(frame, dict.fromkeys(frame, "continuous"))
        order, _ = in_order_of_content(encoder.transform(frame).x, encoder.schema)
        ranks = np.argsort(np.argsort(x, kind="stable"))
        times[ranks[order[hold_out(n, None, held)[0]]]] += 1
    chi2 = (
        ((times - tables * held / n) ** 2 / (tables * held / n * (1 - held / n))).sum()
        * (n - 1)
        / n
    )
    assert chi2 < 2 * n, times


def test_p_values_of_one_binary_column_are_valid():
    """Exactly, over all tables: where held-out rows depend on the number m of ones alone, and ones score lowest."""
    for n in (30, 40):
        n_held, held_ones = n // 5, []
        for m in range(n + 1):
            frame = pd.DataFrame({"x": np.where(np.arange(n) < m, "one", "two")})
            encoder = TableEncoder.fit(frame, {"x": "nominal"})
            order, _ = in_order_of_content(encoder.transform(frame).x, encoder.schema)
            held_ones.append((order[hold_out(n, None, n_held)[0]] < m).sum())
        share = np.linspace(0.02, 0.98, 97)[:, None]  # of ones, among the rows and of new ones
        p_of_table = binom.pmf(np.arange(n + 1), n, share)
        for k in range(n_held):  # a new one has p = (1 + k) / (1 + n_held), or less
            at_most = share[:, 0] * (p_of_table @ (np.array(held_ones) <= k))
            assert at_most.max() <= (1 + k) / (1 + n_held)


def test_without_groups_it_is_a_random_permutation():
    expected = np.random.RandomState(5).permutation(200)
    for units in (None, np.arange(200)[::-1]):  # groups of one row are none
        held, rest = hold_out(200, units, 20, 5)
        assert np.array_equal(np.concatenate([held, rest]), expected)
        assert np.array_equal(one_of_each(held, units), np.sort(held))


def test_property_groups_are_equally_likely_and_so_are_their_rows():
    """Whatever their sizes: 4 of 10 groups, and one row of each of these."""
    units = np.repeat(np.arange(10), [1, 1, 1, 1, 1, 5, 5, 5, 5, 5])
    held, ones = np.zeros(10), np.zeros(30)
    for seed in range(1000):
        positions = hold_out(30, units, 4, seed)[0]
        held[np.unique(units[positions])] += 1
        ones[one_of_each(positions, units)] += 1
    assert (np.abs(held / 1000 - 0.4) < 4 * (0.24 / 1000) ** 0.5).all()
    assert (np.abs(ones[5:] / 1000 - 0.08) < 4 * (0.08 * 0.92 / 1000) ** 0.5).all()


def test_labels_may_be_anything_that_is_hashable():
    labels = [("a", 1), "a", ("a", 1), 2.0, 2, pd.Timestamp("2026-01-01")]
    assert check_groups(labels, 6).tolist() == [0, 1, 0, 2, 2, 3]
    assert check_groups(pd.Series(["x", "y", "x"], index=[7, 8, 9]), 3).tolist() == [0, 1, 0]
    assert check_groups(np.array([5, 3, 5]), 3).tolist() == [0, 1, 0]
    assert check_groups(None, 3) is None


def test_groups_that_are_none_are_refused():
    for groups, error, message in [
        ("customer", TypeError, "groups must hold a label for each row, got 'customer'"),
        ({1, 2, 3}, TypeError, "a label for each row"),
        ([1, 2], ValueError, r"groups.shape == \(2,\), expected \(3,\)"),
        (np.ones((3, 1)), ValueError, r"groups.shape == \(3, 1\)"),
        ([1, None, 2], ValueError, "groups: row 1 has no label, but None"),
        ([1, 2, np.nan], ValueError, "groups: row 2 has no label, but nan"),
        ([1, [2], 3], TypeError, "groups: the label of row 1 is a list, not hashable"),
        ([4, 4, 4], ValueError, "all rows are of one group; at least two are needed"),
    ]:
        frame = pd.DataFrame({"a": list("xyz"), "b": list("uvu")})
        for model in (DiffusionDensity(denoiser="tree"), DiffusionOutlierDetector(denoiser="tree")):
            with pytest.raises(error, match=message):
                model.fit(frame, groups=groups)


def test_rows_of_one_group_alone_are_no_table():
    frame = pd.DataFrame({"a": ["x", "y", None]})
    with pytest.raises(ValueError, match="at least two groups of rows with a cell"):
        DiffusionDensity(denoiser="tree").fit(frame, groups=[1, 1, 2])


def test_a_stream_has_no_groups(monkeypatch):
    frame = pd.DataFrame({"a": list("xyzu") * 10})
    monkeypatch.setattr("discrete_itd.reading.frames.SAMPLE_ROWS", 10)
    for model in (DiffusionDensity(denoiser="tree"), DiffusionOutlierDetector(denoiser="tree")):
        with pytest.raises(ValueError, match="groups needs a table in memory; X is a stream"):
            model.fit([frame, frame], groups=np.arange(80))


# -- the density ----------------------------------------------------------------------------------


def test_the_density_holds_out_groups(monkeypatch):
    """Rows without a cell that is not missing are left out, and their labels with them."""
    parts = []

    def noted(n_rows, units, *how):
        found = hold_out(n_rows, units, *how)
        parts.append([units[part] for part in found])
        return found

    monkeypatch.setattr("discrete_itd.models.held_out.hold_out", noted)
    frame = pd.DataFrame({"a": list("xyz") * 40, "b": list("uvww") * 30})
    frame.iloc[5] = None
    groups = np.arange(120) // 4
    DiffusionDensity(denoiser="tree", random_state=0).fit(frame, groups=groups)
    held, rest = parts[0]
    assert len(held) + len(rest) == 119
    assert len(set(held)) == 3
    assert not set(held) & set(rest)


# -- the detector ---------------------------------------------------------------------------------


def settings(**others):
    return DiffusionOutlierDetector(denoiser="tree", random_state=0, **others)


def test_the_detector_calibrates_on_new_groups(monkeypatch):
    """None of the calibration rows, nor of those that the density holds out, is of a group that is fitted to."""
    fitted = []

    def noted(self, X, *rest, groups=None, **how):
        fitted.append((X.rows, groups))
        return fit(self, X, *rest, groups=groups, **how)

    fit = DiffusionDensity.fit
    monkeypatch.setattr(DiffusionDensity, "fit", noted)
    frame = chain(200).reset_index(drop=True)
    customers = np.array([f"customer {i}" for i in np.random.default_rng(0).permutation(200) // 5])
    model = settings(false_alarm_rate=0.2).fit(frame, groups=customers)
    X, groups = fitted[0]
    assert len(model.calibration_scores_) == 8
    fitted_to = set(customers[X.index])
    assert len(fitted_to) == 32 == len(set(groups))
    of_held = model.score_samples(frame[~np.isin(customers, list(fitted_to))])
    assert np.isin(model.calibration_scores_.round(6), of_held.round(6)).all()


def test_two_groups_leave_none_to_calibrate_on():
    frame = chain(20)
    with pytest.warns(UserWarning, match="two groups leave none to calibrate on"):
        model = settings().fit(frame, groups=np.arange(20) % 2)
    assert not len(model.calibration_scores_)


def test_a_frozen_density_is_calibrated_on_one_row_of_each_group():
    frame = chain(60)
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(chain(60, 1))
    model = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=0.2)
    assert len(model.fit(frame, groups=np.arange(60) % 15).calibration_scores_) == 15


def test_groups_are_routed():
    frame, groups = chain(90), np.arange(90) // 3
    model = DiffusionDensity(denoiser="tree", random_state=0)
    with config_context(enable_metadata_routing=True):
        asked = clone(model).set_fit_request(groups=True)
        how = {"cv": GroupKFold(3), "return_estimator": True, "params": {"groups": groups}}
        found = cross_validate(asked, frame, **how)
    for one, (train, test) in zip(
        found["estimator"], GroupKFold(3).split(frame, groups=groups), strict=True
    ):
        direct = clone(model).fit(frame.iloc[train], groups=groups[train])
        rows = frame.iloc[test]
        np.testing.assert_array_equal(one.score_samples(rows), direct.score_samples(rows))


@pytest.mark.parametrize("denoiser", ["tree", "forest"])
def test_the_order_of_the_rows_does_not_count(denoiser):
    random = np.random.default_rng(0)
    frame = numbers(150).assign(kind=random.choice(list("aab"), 150))
    there, groups = random.permutation(150), np.arange(150) // 2
    model = DiffusionOutlierDetector(
        DiffusionDensity(**QUICK, denoiser=denoiser), false_alarm_rate=0.1
    )
    for one, other in ((None, None), (groups, groups[there])):
        first = clone(model).fit(frame, groups=one)
        second = clone(model).fit(frame.iloc[there], groups=other)
        np.testing.assert_allclose(
            first.score_samples(frame), second.score_samples(frame), rtol=1e-6
        )
        np.testing.assert_allclose(
            np.sort(first.calibration_scores_), np.sort(second.calibration_scores_), rtol=1e-6
        )


def records(n, random):
    """Independent nominal rows."""
    hidden = random.integers(0, 4, n)
    columns = [np.where(random.random(n) < 0.6, hidden, random.integers(0, 6, n)) for _ in range(6)]
    return pd.DataFrame(np.stack(columns, 1)).astype(str).add_prefix("c")


def test_new_records_raise_as_many_alarms_as_stated():
    """Though those that were fitted to occur one to four times."""
    rates = []
    for seed in range(4 * TIMES):
        random = np.random.default_rng(seed)
        rows, times = records(500, random), random.integers(1, 5, 500)
        position = random.permutation(np.repeat(np.arange(500), times))
        model = settings(false_alarm_rate=0.05)
        model.fit(rows.iloc[position], groups=position)
        assert len(model.calibration_scores_) == 100
        rates.append((model.predict(records(2000, random)) < 0).mean())
    # k = 5 of 100 calibration scores: Beta(5, 96)
    spread = (0.05 * 0.95 / 102 / len(rates)) ** 0.5
    assert 0.02 < np.mean(rates) < 0.05 + 3 * spread


def test_the_rate_of_rows_that_equal_none_of_the_fit_is_stated(monkeypatch):
    """Where nothing says that rows are copies, it is what new records raise."""
    fitted = []
    fit = DiffusionDensity.fit

    def noted(self, X, *rest, **how):
        fitted.append(X.rows)
        return fit(self, X, *rest, **how)

    monkeypatch.setattr(DiffusionDensity, "fit", noted)
    stated, rates = [], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        rows, new = records(600, random), records(2000, random)
        position = random.permutation(np.repeat(np.arange(600), random.integers(1, 5, 600)))
        model = settings(false_alarm_rate=0.05).fit(rows.iloc[position].reset_index(drop=True))
        known = set(fitted[-1].itertuples(index=False, name=None))
        is_new = [row not in known for row in new.itertuples(index=False, name=None)]
        rates.append((model.predict(new[is_new]) < 0).mean())
        found = model.threshold_
        assert found.n_new == (~model._repeats).sum() < found.n_calibration
        stated.append(found.rate_if_new[0])
        low, rate, high = np.array(found.rate_if_new)[[1, 0, 2]]
        assert low <= rate <= high
        says = f"; of the {found.n_new} that equal no row of the fit, " in str(found)
        assert says == (low > found.false_alarm_rate)
    again = unflatten(DiffusionOutlierDetector, flatten(model))
    assert again.threshold_ == model.threshold_
    assert again.threshold_at_rate(0.05) == model.threshold_at_rate(0.05) == found
    assert np.mean(rates) > 0.055  # more than of all rows, and
    assert abs(np.mean(stated) - np.mean(rates)) < 3 * np.std(stated) / 6**0.5
    distinct = settings(false_alarm_rate=0.1).fit(pd.DataFrame({"x": np.arange(200.0) ** 1.1}))
    assert (distinct.threshold_.n_new, distinct.threshold_.rate_if_new) == (40, None)
