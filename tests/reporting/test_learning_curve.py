"""The power law through a learning curve."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd.statistics import FEWEST, extrapolate

STEPS = np.arange(100, 4001, 100)


def history(nats, steps=STEPS):
    return pd.DataFrame({"step": steps, "valid_nats": nats})


@pytest.mark.parametrize(
    ("floor", "scale", "exponent"), [(8.0, 30.0, 0.5), (-3.0, 200.0, 1.0), (0.0, 5.0, 0.2)]
)
@pytest.mark.parametrize("factor", [1.5, 2.0, 8.0])
def test_a_known_power_law_is_recovered(floor, scale, exponent, factor):
    extrapolation = extrapolate(history(floor + scale * STEPS**-exponent), factor=factor)
    gain = scale * 4000**-exponent * (1 - factor**-exponent)
    assert extrapolation.gain == pytest.approx(gain, rel=0.01)  # exponents are sought on a grid
    assert extrapolation.low <= extrapolation.gain <= extrapolation.high
    assert extrapolation.curve(STEPS) == pytest.approx(floor + scale * STEPS**-exponent, abs=0.05)
    assert not extrapolation.has_turned


def test_the_interval_covers_the_gain_of_noisy_power_laws():
    truth = 30 * 4000**-0.7 * (1 - 2**-0.7)
    hits, widths = 0, []
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(STEPS))
        extrapolation = extrapolate(history(8 + 30 * STEPS**-0.7 + noise))
        hits += extrapolation.low <= truth <= extrapolation.high
        widths.append(extrapolation.high - extrapolation.low)
    assert hits >= 17
    assert np.mean(widths) < 4 * truth  # and it says something


def test_more_noise_makes_a_wider_interval():
    noise = np.random.default_rng(0).normal(0, 1, len(STEPS))
    widths = []
    for scale in (0.001, 0.02):
        extrapolation = extrapolate(history(8 + 30 * STEPS**-0.7 + scale * noise))
        widths.append(extrapolation.high - extrapolation.low)
    assert widths[1] > 2 * widths[0]


def test_a_shift_of_all_nats_changes_nothing_but_the_floor():
    nats = 8 + 30 * STEPS**-0.7 + np.random.default_rng(1).normal(0, 0.01, len(STEPS))
    extrapolation, shifted = extrapolate(history(nats)), extrapolate(history(nats - 100))
    assert shifted.gain == pytest.approx(extrapolation.gain)
    assert shifted.laws[0, 0] == pytest.approx(extrapolation.laws[0, 0] - 100)


def test_a_flat_curve_promises_nothing():
    extrapolation = extrapolate(history(np.full(len(STEPS), 7.0)))
    assert (extrapolation.gain, extrapolation.low, extrapolation.high) == pytest.approx(
        (0, 0, 0), abs=1e-9
    )


def test_a_curve_that_turned_promises_nothing_but_may_be_wrong():
    nats = 8 + 30 * STEPS**-0.7
    nats[20:] += np.linspace(0, 2, 20)
    extrapolation = extrapolate(history(nats))
    assert extrapolation.has_turned
    assert extrapolation.gain == extrapolation.low == 0


def test_the_band_holds_the_curve_and_its_gain_ends_there():
    noise = np.random.default_rng(2).normal(0, 0.02, len(STEPS))
    extrapolation = extrapolate(history(8 + 30 * STEPS**-0.7 + noise))
    low, high = extrapolation.band(np.array([4000, 8000]))
    curve = extrapolation.curve(np.array([4000, 8000]))
    assert (low < curve).all()
    assert (curve < high).all()
    assert curve[0] - curve[1] == pytest.approx(extrapolation.gain)


def test_the_first_and_the_unfinished_evaluations_are_left_out():
    nats = 8 + 30 * STEPS**-0.7
    odd = history(np.r_[1e6, nats, np.nan], np.r_[0, STEPS, 4100])
    assert extrapolate(odd).gain == pytest.approx(extrapolate(history(nats)).gain)


@pytest.mark.parametrize("n", range(FEWEST))
def test_too_few_evaluations_say_nothing(n):
    assert extrapolate(history(np.arange(n, dtype=float), STEPS[:n])) is None
    assert extrapolate(history(9 - STEPS[:FEWEST] / 1e3, STEPS[:FEWEST])) is not None


def test_it_is_the_same_every_time():
    nats = 8 + 30 * STEPS**-0.7 + np.random.default_rng(3).normal(0, 0.02, len(STEPS))
    assert extrapolate(history(nats)).high == extrapolate(history(nats)).high


@pytest.mark.parametrize("factor", [1.0, 0.5, float("nan")])
def test_a_factor_that_is_no_prolongation_is_refused(factor):
    with pytest.raises(ValueError, match="factor must be more than 1"):
        extrapolate(history(8 + 30 * STEPS**-0.7), factor=factor)
