"""Laws of the clock (24): the way back, whole weeks, one mass, and what is no clock."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.calendar import dates_of_parts

WEEK, DAY = pd.Timedelta("7D"), pd.Timedelta("1D")
CLOCKS = {  # first time, step, and number of steps of the whole table
    "days": (pd.Timestamp("2023-03-01"), pd.Timedelta("1D"), 200),
    "minutes": (pd.Timestamp("2023-03-01"), pd.Timedelta("1min"), 300_000),
    "seconds with a zone": (
        pd.Timestamp("2023-09-01", tz="Europe/Berlin"),
        pd.Timedelta("1s"),
        2e7,
    ),
    "hours of two days": (pd.Timestamp("2023-03-01"), pd.Timedelta("1h"), 48),
}


def table(kind="minutes", n=200, seed=0):
    """Rows in the order of ``when``, with its weekday, a later time, a time of birth, an amount, and gaps."""
    rng = np.random.default_rng(seed)
    first, step, n_steps = CLOCKS[kind]
    when = pd.Series(first + np.sort(rng.integers(0, int(n_steps), n)) * step)
    later = (when + pd.to_timedelta(rng.gamma(2, 300, n).round(), "min")).dt.floor(step)
    born = pd.Timestamp("1960-01-01", tz=first.tz) + rng.integers(0, 20_000, n) * pd.Timedelta("1D")
    frame = pd.DataFrame({"day": when.dt.day_name(), "later": later, "when": when, "born": born})
    frame["amount"] = rng.integers(0, 100, n) / 4
    for column in ("later", "when"):
        frame.loc[rng.integers(0, n, 5), column] = pd.NaT
    return frame


@pytest.mark.parametrize("kind", CLOCKS)
def test_decoding_undoes_encoding_and_whole_weeks_change_no_cell(kind):
    frame = table(kind)
    encoder = TableEncoder.fit(frame)
    assert encoder.times is not None
    assert encoder.names[encoder.times.clock] == "when"
    assert [encoder.names[j] for j in encoder.times.since] == ["later"]
    cells, _, clock, _ = encoder.readable(frame)
    back = encoder.inverse_transform(cells.x, frame.index, clock=clock)
    there = back["later"].notna()  # a time in a row without a clock is given
    np.testing.assert_array_equal(~there, frame["later"].isna() | frame["when"].isna())
    assert_frame_equal(back[there], frame[there])
    moved = frame.assign(later=frame["later"] + 3 * WEEK, when=frame["when"] + 3 * WEEK)
    if frame["when"].dt.tz is None:  # else hours of summer move
        np.testing.assert_array_equal(encoder.transform(moved).x, cells.x)


def test_text_numbers_of_seconds_and_times_are_one_clock():
    frame = table("minutes")[["day", "when", "amount"]].dropna().reset_index(drop=True)
    seconds = (frame["when"] - pd.Timestamp(0)) // pd.Timedelta("1s")
    others = [frame["when"].dt.strftime("%d/%m/%Y %H:%M"), seconds, 1000 * seconds]
    x = TableEncoder.fit(frame).transform(frame).x
    for when in others:
        other = frame.assign(when=when)
        encoder = TableEncoder.fit(other)
        cells, _, clock, _ = encoder.readable(other)
        np.testing.assert_array_equal(cells.x[:, :2], x[:, :2])
        if when is not others[0]:
            back = encoder.inverse_transform(cells.x, clock=clock)
            assert back["when"].tolist() == when.tolist()


def test_the_mass_of_a_week_is_one():
    days = table("days")[["when"]].dropna()
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(days)
    week = pd.DataFrame({"when": pd.date_range("2023-06-05", periods=7, freq="D")})
    log_mass = model.score_samples(week) + np.log(86_400)  # densities of times are per second
    assert np.exp(log_mass).sum() == pytest.approx(1 - 0.5 / (len(days) + 0.5 + 3.5), abs=0.01)


def test_a_far_clock_is_rarer_than_any_row():
    frame = table("minutes")[["when", "amount"]].dropna()
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    far = model.score_samples(frame.assign(when=pd.Timestamp("2204-06-01 10:00")))
    assert (far < model.score_samples(frame).min() - 10).all()


def test_what_is_no_clock_stays_a_number():
    rng = np.random.default_rng(0)
    frame = table("days")[["day", "when", "amount"]]
    mixed = frame.iloc[rng.permutation(len(frame))]
    assert TableEncoder.fit(mixed).times is None  # one time, not in the order of the rows
    assert TableEncoder.fit(frame, {"when": "continuous"}).times is None
    assert TableEncoder.fit(mixed, {"when": "clock"}).times is not None
    assert TableEncoder.fit(frame.assign(when=np.sort(rng.normal(size=len(frame))))).times is None
    with pytest.raises(ValueError, match="column 'amount': a clock needs two times"):
        TableEncoder.fit(frame, {"amount": "clock"})
    two = frame.assign(then=frame["when"])
    with pytest.raises(ValueError, match="column 'then': a table has one clock, and 'when' is one"):
        TableEncoder.fit(two, {"when": "clock", "then": "clock"})


def test_serial_numbers_that_grow_with_the_clock_are_left_out():
    frame = table("minutes")
    frame["invoice"] = 7_000 + np.arange(len(frame)) // 3 * 2
    with pytest.warns(UserWarning, match=r"left out of the model: 'invoice' \(part of the clock\)"):
        encoder = TableEncoder.infer(frame, leave_out=True)
    assert [c.name for c in encoder.left_out] == ["invoice"]
    assert encoder.names[encoder.times.clock] == "when"


@pytest.mark.filterwarnings("ignore:left out of the model")
@pytest.mark.parametrize("n_weeks", [26, 80, 120])
def test_what_a_later_row_has_another_of_is_left_out(n_weeks):
    rng, n = np.random.default_rng(0), 2000
    when = pd.Series(pd.Timestamp("2022-10-03") + np.sort(rng.integers(0, 7 * n_weeks, n)) * DAY)
    rank, regime = np.arange(n), np.arange(n) > 900
    moving = {
        "serial": 7000 + rank // 3, "ticket": [f"T{k // 9}" for k in rank], "kilometres": rank**1.5 / 7,
        "season": "S" + ((when - when.min()) // (8 * WEEK)).astype(str), "mistyped": rank // 100,
    }  # fmt: skip
    returning = {
        "month": when.dt.month,
        "name": when.dt.month_name().str[:3],
        "week": when.dt.isocalendar().week,
    }
    returning["day"] = (when - 5 * DAY / 24).dt.day  # in another time zone
    staying = {
        "weekday": when.dt.day_name(), "kind": rank % 3, "tax": np.where(regime, 19, 16), "amount": rng.gamma(2, 9, n),
        "price": 100 + rank / n + rng.normal(size=n), "rare": rank == 1500, "trend": rank + 9 * rng.normal(size=n),
        "one": 1,
    }  # fmt: skip
    frame = pd.DataFrame({"when": when, **moving, **returning, **staying})
    frame.loc[rng.integers(0, n, 3), "mistyped"] = 1
    expected = {*moving} | ({*returning} if n_weeks < 100 else set())
    encoder = TableEncoder.infer(frame, leave_out=True)
    assert {c.name for c in encoder.left_out} == expected
    assert {c.why for c in encoder.left_out} == {"part of the clock"}
    parts = frame.drop(columns="when").assign(year=when.dt.year, day=when.dt.day)
    encoder = TableEncoder.infer(parts, leave_out=True)  # a date in three columns
    assert {c.name for c in encoder.left_out} | {"year"} == expected | {"year"}
    mixed = frame.assign(**{name: rng.permutation(frame[name]) for name in frame if name != "when"})
    mixed = mixed.drop(columns=["serial", "ticket"])  # identifiers
    assert not TableEncoder.infer(mixed, leave_out=True).left_out


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_property_dates_of_rows_in_order_are_found_in_columns_of_their_parts(data):
    """Any first day and length, either order, any order of columns, typing errors in one row of 300, beside others."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, n_days = data.draw(st.integers(300, 900)), data.draw(st.integers(65, 900))
    first = pd.Timestamp("2001-01-01") + data.draw(st.integers(0, 9000)) * DAY
    n_days = min(n_days, n // 2)
    when = pd.DatetimeIndex(first + np.sort(rng.permutation(np.arange(n) % n_days)) * DAY)
    when = when[::-1] if data.draw(st.booleans()) else when
    dated = {"year": when.year, "month": when.month, "day": when.day}
    dated = {name: np.array(part, float) for name, part in dated.items()}
    dated["day"][n // 2] = 29.0  # February's errors are dates of no month
    dated["month"][n // 3] = np.nan
    if 130 < n_days < 330 and data.draw(st.booleans()):
        del dated["year"]
    others = {
        "grade": rng.integers(1, 6, n),
        "age": rng.integers(1, 32, n),
        "place": np.arange(n) % 12 + 1,
    }
    columns = [*dated.values(), *(part.astype(float) for part in others.values())]
    found = dates_of_parts([columns[j] for j in rng.permutation(len(columns))])
    is_same = np.ones(n, bool)
    is_same[[n // 2, n // 3]] = False
    apart = found[is_same] - when[is_same]
    assert found[n // 3] is pd.NaT
    assert "year" not in dated or (apart == pd.Timedelta(0)).all()
    np.testing.assert_array_equal(found[is_same].strftime("%m-%d"), when[is_same].strftime("%m-%d"))
    mixed = rng.permutation(n)
    assert dates_of_parts([part[mixed] for part in columns]) is None


def test_rows_of_an_experiment_have_no_dates():
    """Blocks and their plots within one year or three grow with the rows as months and days do."""
    for n_plots, n_blocks in ((12, 4), (28, 4), (31, 4), (28, 3), (30, 3)):
        block, plot = np.divmod(np.arange(n_blocks * n_plots), n_plots)
        columns = [part + 1.0 for part in (block, plot)]
        assert dates_of_parts(columns) is None
        if n_plots != 28:
            assert dates_of_parts([*columns, np.full(len(plot), 2019.0)]) is None
    assert dates_of_parts([]) is dates_of_parts([np.full(50, 3.0)]) is None


PERIODS = {
    "month": lambda t: t.strftime("%Y-%m"), "month first": lambda t: t.strftime("%m/%Y"),
    "month in words": lambda t: t.strftime("%b %Y"), "number of a month": lambda t: 100 * t.year + t.month,
    "number of a day": lambda t: 10_000 * t.year + 100 * t.month + t.day, "week": lambda t: t.strftime("%G-W%V"),
    "quarter": lambda t: [f"Q{q} {year}" for q, year in zip(t.quarter, t.year, strict=True)],
    "fiscal quarter": lambda t: [f"FY{y % 100} Q{q}" for q, y in zip(t.quarter, t.year, strict=True)],
    "season": lambda t: [f"FY{y % 100}/{y % 100 + 1}" for y in t.year - (t.month < 7)],
    "long season": lambda t: [f"{y}-{y % 100 + 1}" for y in t.year - (t.month < 7)],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:left out of the model")
@pytest.mark.parametrize("written", PERIODS)
def test_periods_in_the_order_of_rows_are_part_of_the_clock(written):
    when = pd.date_range("2022-03-05", periods=1200, freq="9h")
    frame = pd.DataFrame({"period": PERIODS[written](when), "month": when.month})
    frame["amount"] = np.random.default_rng(0).gamma(2, 9, 1200)
    for rows in (frame, frame[::-1].reset_index(drop=True)):
        left_out = TableEncoder.infer(rows, leave_out=True).left_out
        assert {c.name: c.why for c in left_out if c.name != "month"} == {
            "period": "part of the clock"
        }
        assert ("month" in written or "day" in written) <= (len(left_out) == 2)
    mixed = TableEncoder.infer(frame.sample(frac=1, random_state=0), leave_out=True)
    assert "part of the clock" not in {c.why for c in mixed.left_out}


SORTED = [
    "{0}-{1}", "{0}/{1}", "§ {0}, {1}", "grade {0}/{1}", "Room 19{0}", "Model 20{0} 3", "Marchese 20{0}", "ISO 16{0}",
    "{0}-{1} k", "20{0} mm",
]  # fmt: skip


@pytest.mark.parametrize("written", SORTED)
def test_sorted_names_with_numbers_are_no_periods(written):
    names = [written.format(10 + i // 100, 11 + i // 100) for i in range(1200)]
    frame = pd.DataFrame({"name": names, "amount": np.random.default_rng(0).gamma(2, 9, 1200)})
    assert not TableEncoder.infer(frame, leave_out=True).left_out


@pytest.mark.filterwarnings("ignore:left out of the model")
@pytest.mark.parametrize("first", [1600, 1650, 2190])
def test_years_of_other_centuries_are_read(first):
    row = np.arange(1200)
    parts = pd.DataFrame({"year": first + row // 12, "month": row % 12 + 1, "day": row % 28 + 1})
    codes = [100 * parts["year"] + parts["month"], "ISO " + parts["year"].astype(str)]
    for frame in (parts, *(pd.DataFrame({"code": code}) for code in codes)):
        TableEncoder.infer(frame.assign(amount=row % 7 + row / 9), leave_out=True)


@pytest.mark.parametrize("zone", [None, "America/Chicago"])
def test_years_count_from_the_year_of_the_clock(zone):
    when = pd.Series(pd.date_range("2020-03-01", "2024-02-20", periods=700, tz=zone)).dt.round(
        "min"
    )
    season = when.dt.year - (when.dt.month < 7)
    frame = pd.DataFrame({"year": when.dt.year, "when": when, "season": season})
    frame["built"] = np.random.default_rng(0).integers(1900, 2020, 700)
    frame["edition"] = 2021
    for first in (frame, frame.iloc[:140], frame.assign(year=frame["year"].astype(float))):
        encoder = TableEncoder.fit(first.reset_index(drop=True))
        since = {encoder.names[j] for j in encoder.times.since}
        assert since == {"year"} if len(first) == 140 else {"year", "season"}
        encoded = encoder.encoded(first)
        lags = encoded.cells.x[:, encoder.place_of("year")]
        assert len(np.unique(lags)) == 1
        back = encoder.inverse_transform(encoded.cells.x, first.index, clock=encoded.clock)
        assert_frame_equal(back, first)
        later = first.assign(year=first["year"] + 4, when=first["when"] + pd.DateOffset(years=4))
        later = encoder.transform(later[later["when"].dt.month > 2]).x
        assert (later[:, encoder.place_of("year")] == lags[0]).all()


def test_rows_in_the_order_of_years_have_them_for_their_clock():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"month": rng.integers(1, 13, 600), "year": np.arange(600) // 60 + 1998})
    frame["amount"] = np.round(rng.gamma(2, 40, 600), 2)
    for rows in (frame, frame[::-1].reset_index(drop=True)):
        encoder = TableEncoder.fit(rows)
        assert encoder.names[encoder.times.clock] == "year"
        assert encoder.schema[encoder.times.clock].codec.given == "value"
        encoded = encoder.encoded(rows)
        back = encoder.inverse_transform(encoded.cells.x, clock=encoded.clock)
        assert_frame_equal(back, rows)
        assert (encoder.refit(rows.iloc[::2]).transform(rows).x[:, 1] == 0).all()
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    score = model.score_samples(frame)
    for years, is_known in ((9, True), (200, False)):
        later = model.score_samples(frame.assign(year=frame["year"] + years))
        assert (later == score).all() == is_known
    assert model.sample(99, random_state=0)["year"].isin(frame["year"]).all()
    frame["share"] = rng.random(600)
    assert not TableEncoder.infer(frame, leave_out=True).left_out
    panel = frame.assign(year=1998 + np.arange(600) % 10)  # of sixty firms
    assert TableEncoder.fit(panel).times is None
    assert TableEncoder.fit(panel, {"year": "clock"}).times is not None
    assert TableEncoder.fit(frame, {"year": "continuous"}).times is None
    assert TableEncoder.fit(frame.assign(year=frame["year"] // 9 * 9)).times is not None  # two
    assert TableEncoder.fit(frame.assign(year=1998)).times is None
    batch = frame.assign(year=3 + np.arange(600) // 20)  # any whole numbers, if declared
    assert TableEncoder.fit(batch).times is None
    encoder = TableEncoder.fit(batch, {"year": "clock"})
    x = encoder.transform(batch.assign(year=batch["year"] + 20)).x
    np.testing.assert_array_equal(x, encoder.transform(batch).x)


def test_days_and_hours_are_those_of_the_zone_all_year():
    def office(first, last):
        hours = pd.date_range(first, last, freq="h", tz="Europe/Berlin")
        hours = hours[(hours.hour >= 9) & (hours.hour < 17)]
        return pd.DataFrame(
            {"when": hours, "day": hours.day_name(), "n": np.arange(len(hours)) % 7}
        )

    summer, winter = office("2024-04-05", "2024-09-30"), office("2024-11-04", "2025-02-28")
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(summer)
    found = [model.score_samples(rows) for rows in (summer, winter)]
    assert found[1].min() > found[0].min() - 0.1
    nights = [pd.DataFrame({"when": days, "day": days.day_name()}) for days in (
        pd.date_range("2023-11-01", "2024-03-25", tz="Europe/Berlin"),
        pd.date_range("2024-04-02", "2024-09-30", tz="Europe/Berlin"),
    )]  # fmt: skip
    for first in range(3):  # whatever the origin of the steps
        encoder = TableEncoder.fit(nights[0].iloc[first:])
        x = np.concatenate([encoder.transform(rows).x for rows in nights])
        assert len(np.unique(x, axis=0)) == 7
    drawn = model.sample(300, random_state=0)["when"].dt
    assert drawn.hour.between(9, 16).mean() > 0.95


@pytest.fixture(scope="module")
def fitted():
    frame = table("minutes", n=900)
    half = frame.iloc[:600]
    return frame, DiffusionOutlierDetector(
        DiffusionDensity(denoiser="tree", random_state=0), random_state=0
    ).fit(half)


def test_later_rows_raise_the_stated_alarms_and_wrong_times_more(fitted):
    frame, detector = fitted
    new = frame.iloc[600:].dropna()
    right = detector.score_samples(new)
    assert (detector.predict(new) == -1).mean() < 0.05  # 1 % is stated
    for column, value in {
        "when": pd.Timestamp("2204-06-01 10:00"),
        "later": pd.Timestamp("2204-06-01 10:00"),
    }.items():
        wrong = detector.score_samples(new.assign(**{column: value}))
        assert (wrong < right).all()
        few = new.head(9).assign(**{column: value})
        assert (detector.predict(few) == -1).all()
        assert (wrong < np.quantile(right, 0.02)).mean() > 0.9
        reason = detector.reasons(new.head(2).assign(**{column: value}), k=1)
        assert reason["column"].tolist() == [column] * 2
    moved = new.assign(when=new["when"] + 9 * WEEK, later=new["later"] + 9 * WEEK)
    np.testing.assert_array_equal(detector.score_samples(moved), right)


def test_answers_are_times_of_their_rows(fitted):
    frame, detector = fitted
    model, new = detector.density_, frame.iloc[600:].dropna().head(20)
    drawn = model.sample(200, random_state=0)
    assert (drawn["later"] >= drawn["when"]).mean() > 0.9
    assert drawn["later"].notna().mean() > 0.97
    assert 0 < drawn["when"].isna().mean() < 0.03
    drawn = drawn.dropna()
    assert drawn["when"].between(frame["when"].min() - WEEK, frame["when"].max() + WEEK).all()
    quantiles = model.predict_quantiles(new, "later")
    assert ((quantiles[0.05] >= new["when"]) & (quantiles[0.95] <= new["when"] + WEEK)).all()
    expected = detector.expected(new, ["later", "when"])
    rows = new.loc[expected["row"]]
    away = pd.to_datetime(expected["expected"]).to_numpy() - rows["when"].to_numpy()
    assert (np.abs(away) < WEEK).all()
    given = model.sample(50, given={"later": new["later"].iloc[0]}, random_state=0)
    assert (given["later"] == new["later"].iloc[0]).all()
    assert (np.abs(given["when"] - given["later"]) < WEEK / 2).mean() > 0.95
    assert "The week of" in model.model_card()
    days = model.predict_proba(new, "when").idxmax(axis=1)
    assert (days == new["day"]).all()
    for column in ("later", "when"):
        filled = model.impute(new.assign(**{column: pd.NaT}))
        assert (np.abs(filled[column] - new["when"]) < 2 * WEEK).all()
        lacking = model.rows(new.assign(**{column: pd.NaT})).is_missing
        assert lacking.sum(0).tolist() == [20 * (name == column) for name in new]
        other = "when" if column == "later" else "later"
        assert_frame_equal(filled[[other]], new[[other]])
    far = new.assign(when=new["when"] + pd.DateOffset(years=180), later=pd.NaT)
    assert (np.abs(model.impute(far)["later"] - far["when"]) < WEEK).all()
    for column, question in {"later": "predict_quantiles", "when": "predict_proba"}.items():
        with pytest.raises(ValueError, match=f"column '{column}': .* see {question}"):
            model.predict_log_density(new, column, [new[column].iloc[0]])


def test_the_expected_time_is_of_the_row_s_week_and_at_its_hour_if_that_is_usual():
    rng, n = np.random.default_rng(0), 600
    week, day, minute = rng.integers(0, 30, n), rng.integers(0, 5, n), rng.integers(540, 1020, n)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.sort(1440 * (7 * week + day) + minute), "min"
    )
    frame = pd.DataFrame({"when": when, "is_friday": when.day_name() == "Friday"})
    density = DiffusionDensity(denoiser="tree", random_state=0)
    detector = DiffusionOutlierDetector(density, random_state=0).fit(frame)
    night, noon = pd.Timestamp("2024-09-04 03:10"), pd.Timestamp("2024-09-04 12:05")  # Wednesday
    wrong = pd.DataFrame({"when": [night, noon], "is_friday": True})
    found = detector.expected(wrong, ["when"], n_values=1)["expected"].tolist()
    assert found[1] == noon + 2 * DAY
    assert found[0].normalize() == found[1].normalize()
    assert 9 <= found[0].hour < 17
