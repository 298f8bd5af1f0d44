"""Drawn rows look like training rows: their decimals, and if wanted their gaps."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.reading.frames import decimals_of, rounded

pytestmark = pytest.mark.single_precision
N = 1000


def table():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"cents": random.lognormal(size=N).round(2)})
    frame["tenths"] = np.float32(random.normal(size=N).round(1))
    frame["whole"] = random.integers(-500, 500, N).astype(float)
    frame["real"] = random.normal(size=N)
    frame["count"] = random.integers(0, 2000, N)
    frame["town"] = random.choice(["Bern", "Chur"], N)
    return frame.mask(random.random(frame.shape) < [0.3, 0.1, 0.0, 0.0, 0.15, 0.05])


TABLE = table()


@pytest.fixture(scope="module")
def model():
    kinds = {"tenths": "continuous"}
    return DiffusionDensity(denoiser="tree", column_types=kinds, random_state=0).fit(TABLE)


def decimals(values):
    return decimals_of(values.dropna().to_numpy(dtype=float), values.dtype)


def test_numbers_have_as_many_decimals_as_in_training(model, tmp_path):
    model.save(tmp_path / "m")
    for own in (model, DiffusionDensity.load(tmp_path / "m")):
        drawn = own.sample(N, random_state=0)
        found = {n: decimals(drawn[n]) for n in ("cents", "tenths", "whole", "real")}
        assert found == {"cents": 2, "tenths": 1, "whole": 0, "real": None}
    assert drawn["tenths"].dtype == np.float32
    assert decimals(model.impute(TABLE)["cents"]) == 2
    with pytest.raises(ValueError, match="decimals must be few, got 99"):
        replace(model.encoder_.schema[0], decimals=99)


@pytest.mark.parametrize("unit", [1, 0.01])
def test_a_frequent_number_is_drawn_as_often_as_its_mass_says(unit):
    """Of whole numbers, and of prices, many of them zero."""
    random = np.random.default_rng(0)
    amount = np.where(random.random(N) < 0.4, 0, random.negative_binomial(2, 0.005 * unit, N))
    amount = (amount * unit).round(2)
    frame = pd.DataFrame({"amount": amount, "town": random.choice(["Bern", "Chur"], N)})
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    mass = unit * np.exp(model.score_samples(pd.DataFrame({"amount": [0.0], "town": None})))[0]
    drawn = model.sample(4 * N, random_state=0)["amount"]
    assert (drawn == 0).mean() == pytest.approx(mass, abs=4 * np.sqrt(0.24 / (4 * N)))
    assert mass == pytest.approx((amount == 0).mean(), abs=0.05)


def test_a_frequent_number_off_a_lattice_has_nearly_all_of_its_share():
    random = np.random.default_rng(0)
    amount = np.where(random.random(N) < 0.4, 0, random.normal(size=N))
    frame = pd.DataFrame({"amount": amount, "town": random.choice(["Bern", "Chur"], N)})
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    assert model.sample(N, random_state=0)["amount"].abs().lt(1e-4).mean() > 0.3
    at, beside = model.score_samples(frame[:2].assign(amount=[0.0, 0.01], town=None))
    assert at > beside + 8


def test_decimals_are_those_that_are_written():
    for n in range(7):
        values = np.array([float(f"{v:.{n}f}") for v in np.linspace(-1234.5, 4321.0, 777)])
        assert decimals_of(values, values.dtype) == n
        np.testing.assert_array_equal(rounded(values, n), values)
    huge = np.array([1e300, -(2.0**60), 0.1 + 0.2])
    assert decimals_of(huge, huge.dtype) is None
    np.testing.assert_array_equal(rounded(huge, 6)[:2], huge[:2])


def test_gaps_are_as_frequent_as_in_training_unless_none_are_wanted(model):
    assert not model.sample(N, random_state=0, missing="none").isna().any(axis=None)
    drawn = model.sample(N, random_state=0, given={"town": "Bern"})
    wanted = TABLE.isna().mean()
    assert (drawn["town"] == "Bern").all()
    assert str(drawn["count"].dtype) in ("Int64", "float64")
    free = wanted.index != "town"
    error = np.sqrt(wanted * (1 - wanted) / N)
    assert (abs(drawn.isna().mean() - wanted)[free] <= 4 * error[free]).all()
    with pytest.raises(ValueError, match="missing must be one of"):
        model.sample(1, missing="some")


def test_gaps_that_are_part_of_the_model_are_drawn_by_it_and_filled_if_none_are_wanted():
    gaps = TABLE[["town", "count"]]
    model = DiffusionDensity(denoiser="tree", missing="category", random_state=0).fit(gaps)
    whole, drawn = (model.sample(200, random_state=1, missing=m) for m in ("none", "as_trained"))
    assert drawn.isna().any().all()
    assert whole.notna().all(axis=None)
    for name in gaps:
        there = drawn[name].notna()
        assert (whole[name][there] == drawn[name][there]).all()
