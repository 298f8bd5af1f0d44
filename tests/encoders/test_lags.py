"""Lags of a group's own rows: by a loop over rows, blind to later rows, and continued at the seam."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.encoders import GroupLags

NAMES = [f"{name}.{what}" for name in "yz" for what in ("lag1", "lag3", "mean4", "ratio3")]


def table(n=200, seed=0, start=0):
    """Rows of some groups in random order, some of one time, with gaps everywhere."""
    rng = np.random.default_rng(seed)
    date = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        rng.integers(start, start + 60, n), unit="D"
    )
    X = pd.DataFrame(
        {"a": rng.choice(["u", "v", None], n), "b": rng.integers(2, size=n), "date": date}
    )
    X["y"], X["z"] = rng.normal(size=n).round(2), rng.integers(9, size=n)
    X.loc[rng.random(n) < 0.1, "y"] = np.nan
    X.loc[rng.random(n) < 0.05, "date"] = pd.NaT
    return X.set_axis(rng.permutation(n) + 1000)


def lags(**parameters):
    settings = {
        "time": "date",
        "by": ["a", "b"],
        "lags": (1, 3),
        "means": (4,),
        "ratios": (3,),
    } | parameters
    return GroupLags(["y", "z"], **settings)


def naive(X, by=("a", "b")):
    """The same by a loop over rows."""
    out = []
    for _, row in X.iterrows():
        own = X
        for name in by:
            own = own[own[name].isna() if pd.isna(row[name]) else own[name] == row[name]]
        own = own[own["date"] < row["date"]].sort_values(["date", "y", "z"])
        line = []
        for name in ("y", "z"):
            cells = own[name].to_numpy(dtype=float)
            line += [cells[-k] if len(cells) >= k else np.nan for k in (1, 3)]
            line.append(pd.Series(cells[-4:]).mean())
            median = pd.Series(cells[-3:]).median()
            line.append(row[name] / median if median > 0 else np.nan)
        out.append(line)
    return np.array(out, dtype=float)


def test_property_lags_are_those_of_a_loop_over_rows():
    X = table()
    out = lags().fit_transform(X)
    assert out.columns.tolist() == [*X, *NAMES] == lags().fit(X).get_feature_names_out().tolist()
    pd.testing.assert_frame_equal(out[X.columns], X)
    np.testing.assert_allclose(out[NAMES], naive(X))
    alone = lags(by=()).fit_transform(X)
    np.testing.assert_allclose(alone[NAMES], naive(X, ()))


def test_property_later_rows_and_the_order_of_rows_change_nothing():
    X = table()
    fitted, rng = lags().fit(X[:0:-1]), np.random.default_rng(1)
    out, late = lags().fit(X).transform(X), X["date"] > pd.Timestamp("2024-01-31")
    changed = X.copy()
    changed.loc[late, ["y", "z"]] = rng.permutation(changed.loc[late, ["y", "z"]].to_numpy())
    changed.loc[late, "date"] += pd.Timedelta(days=9)
    for other in (changed, X[~late]):
        found = lags().fit(X).transform(other)
        pd.testing.assert_frame_equal(found[~late.reindex(found.index)], out[~late])
    order = rng.permutation(len(X))
    pd.testing.assert_frame_equal(fitted.transform(X.iloc[order]), out.iloc[order])


def test_property_a_new_table_continues_where_the_training_table_ends():
    X, new = table(), table(80, seed=1, start=60).reset_index(drop=True)
    fitted = lags().fit(X)
    whole = lags().fit_transform(pd.concat([X, new]))[len(X) :]
    pd.testing.assert_frame_equal(fitted.transform(new), whole[[*new, *NAMES]])
    recent = X[X["date"] >= "2024-02-15"]  # rows that it remembers are not counted twice
    both = fitted.transform(pd.concat([recent, new]))[len(recent) :]
    pd.testing.assert_frame_equal(both, fitted.transform(new))
    assert len(fitted.last_rows_) <= 6 * 4
    assert len(fitted.transform(new[:0])) == 0
    one = fitted.transform(new[new["date"] == new["date"].min()][:1])  # a row alone
    pd.testing.assert_frame_equal(one, fitted.transform(new).loc[one.index])
    for other in (pickle.loads(pickle.dumps(fitted)), clone(fitted).fit(X)):
        pd.testing.assert_frame_equal(other.transform(new), fitted.transform(new))


def test_groups_by_weekday_and_dates_as_text():
    days = pd.date_range("2024-01-01", periods=28)
    X = pd.DataFrame({"date": days.strftime("%d.%m.%Y"), "y": np.arange(28.0)})
    out = GroupLags("y", time="date", by="date.weekday").fit_transform(X)
    np.testing.assert_array_equal(out["y.lag1"], np.append([np.nan] * 7, np.arange(21.0)))
    frame = GroupLags("y", time="date", by="date.weekday").fit_transform(pl.from_pandas(X))
    assert isinstance(frame, pl.DataFrame)
    assert frame["y.lag1"].to_list()[7:] == list(range(21))


def test_columns_have_the_order_of_the_training_table_whatever_a_new_one_has():
    X = table().astype({"a": object})
    expected = lags().fit_transform(X)
    for form in ("pandas", "default"):  # scikit-learn names the columns by their places
        fitted = lags().set_output(transform=form).fit(X)
        found = fitted.transform(X[X.columns[::-1]].assign(more=1))
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(("parameters", "message"), [
    ({"by": ["no"]}, "column 'no': the table has no such column"),
    ({"time": "when"}, "column 'when'"),
    ({"time": "a"}, "column 'a'"),
    ({"lags": (0,)}, "lags"),
    ({"lags": (1, 1)}, "column 'y.lag1': the result would have it twice"),
    ({"lags": (), "means": (), "ratios": ()}, "nothing to add"),
])  # fmt: skip
def test_errors_name_column_or_parameter(parameters, message):
    with pytest.raises(ValueError, match=message):
        lags(**parameters).fit(table())
    with pytest.raises(TypeError, match="lags must be a sequence of int, got 1"):
        lags(lags=1).fit(table())
    with pytest.raises(ValueError, match=r"column 'y\.mean4': the result would have it twice"):
        lags().fit(table().assign(**{"y.mean4": 0}))
    with pytest.raises(TypeError, match="names of columns"):
        lags().fit(table().to_numpy())
    with pytest.raises(ValueError, match="column 'y': the table has no such column"):
        lags().fit(table()).transform(table().drop(columns="y"))


def test_a_pipeline_compares_a_row_with_the_last_rows_of_its_group():
    rng, n = np.random.default_rng(0), 300
    days, shop = pd.date_range("2022-01-01", periods=n), np.repeat(["a", "b"], n)
    level = np.concatenate([np.linspace(10, 40, n), np.linspace(90, 50, n)])  # trends cross
    sales = pd.DataFrame(
        {"shop": shop, "date": [*days, *days], "y": level + rng.normal(size=2 * n)}
    )
    steps = (
        GroupLags("y", time="date", by="shop", lags=(), means=(7,)),
        DiffusionOutlierDetector(given=["shop", "date.weekday"], denoiser="forest", random_state=0),
    )
    model = make_pipeline(*steps).fit(sales)
    new = pd.DataFrame({"shop": ["a", "b"], "date": "2022-10-28", "y": [40.0, 15.0]})
    assert model.predict(new).tolist() == [1, -1]
