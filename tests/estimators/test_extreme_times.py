"""Times of every unit, the earliest and latest ones too: a model that is saved can be loaded and asked."""

import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from discrete_itd import DiffusionDensity
from discrete_itd.reading.frames import (
    DAY,
    NANOSECONDS,
    restore_times,
    time_grid,
    times_to_steps,
)
from tests.laws import FEW_EXAMPLES

pytestmark = pytest.mark.single_precision
LEAST, MOST = -(2**63) + 1, 2**63 - 1  # ticks of a time: one less is NaT
UNITS = st.sampled_from([*NANOSECONDS])
KINDS = st.sampled_from(["datetime64", "timedelta64"])
TICKS = st.one_of(
    st.integers(LEAST, MOST),
    st.integers(-(10**6), 10**6),
    st.sampled_from([LEAST, LEAST + 1, MOST - 1, MOST]),
    st.integers(LEAST // DAY + 1, MOST // DAY).map(lambda n: n * DAY),
)
YEAR_1678 = int(pd.Timestamp("1678-01-01").value)


@given(KINDS, UNITS, st.lists(TICKS, min_size=1, max_size=6))
@example("datetime64", "ns", [YEAR_1678, 0])
@example("datetime64", "ns", [LEAST, 0, MOST])
@example("timedelta64", "s", [LEAST, MOST])
def test_times_come_back_from_steps(kind, unit, ticks):
    """But for digits of the distance from the earliest one that no float has, and beyond the years of calendars."""
    times, tick = np.array(ticks).astype(f"{kind}[{unit}]"), NANOSECONDS[unit]
    origin, step = time_grid(times)
    back = restore_times(times_to_steps(times, origin, step), times.dtype, origin, step)
    high = (MOST - 4095) * tick // 10**9  # seconds
    low = -high
    if kind == "datetime64":
        low, high = max(low, -62_104_060_800), min(high, 253_339_228_800)
    for new, old in zip(back.to_numpy().astype(np.int64).tolist(), ticks, strict=True):
        wanted = min(max(old * tick, low * 10**9), high * 10**9)
        is_within = low * 10**9 + step < wanted < high * 10**9 - step
        n_lost = abs(wanted - origin * 10**9) * 2.0**-51
        assert abs(new * tick - wanted) <= n_lost + (0 if is_within else step + 4096 * 10**9)


@FEW_EXAMPLES
@given(KINDS, UNITS, st.booleans(), st.lists(TICKS, min_size=1, max_size=3))
@example("datetime64", "ns", False, [YEAR_1678])
@example("datetime64", "ns", True, [LEAST])
@example("datetime64", "us", False, [LEAST, MOST])
@example("timedelta64", "ms", False, [LEAST])
def test_a_saved_model_of_any_times_is_loaded_and_asked(kind, unit, is_zoned, ticks):
    start = int(np.datetime64("2024-01-01", unit).astype(np.int64))
    usual = [start + 10**9 // NANOSECONDS[unit] * 3600 * hour for hour in range(17)]
    times = pd.Series(np.array(usual + ticks).astype(f"{kind}[{unit}]"))
    if is_zoned and kind == "datetime64":
        times = times.dt.tz_localize("UTC")
    table = pd.DataFrame(
        {"time": times, "word": ["x", "y"] * (len(times) // 2) + ["x"] * (len(times) % 2)}
    )
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(table)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/m")
        loaded = DiffusionDensity.load(f"{folder}/m")
    drawn = model.sample(9, random_state=0)
    pd.testing.assert_frame_equal(loaded.sample(9, random_state=0), drawn)
    assert drawn["time"].dtype == times.dtype
    gaps = table.assign(time=times.where(table["word"] == "x"))
    for method in ("median", "mean", "sample"):
        assert loaded.impute(gaps, method=method, random_state=0).notna().all(axis=None)
    assert np.isfinite(loaded.score_samples(table)).all()
