"""Laws of continuous columns: there and back, slopes, masses that sum to one, far-out values."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.stats import skew, yeojohnson

from discrete_itd.channel.gaussian import log_mass
from discrete_itd.channel.rounded_numbers import NumberLines, bend
from discrete_itd.encoders import Continuous, numeric
from discrete_itd.encoders.numeric import (
    LARGEST,
    find_lattice,
    fit_continuous,
    numbers_seen,
)
from discrete_itd.storage.values import flatten, unflatten

ORDINARY = st.floats(-1e6, 1e6).map(lambda v: round(v, 3))
ANY = st.floats(allow_nan=False, allow_infinity=False)
LATTICE = 1e-6, 0.0  # step and origin
POWERS = st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.5, 2.0])


@st.composite
def maps(draw):
    return Continuous(
        False,
        draw(st.floats(-1e3, 1e3)),
        draw(st.floats(1e-2, 1e3)),
        draw(POWERS),
        draw(st.floats(-2, 2)),
        draw(st.floats(0.1, 10)),
        *LATTICE,
    )


@given(st.lists(ORDINARY, min_size=1, max_size=30), st.lists(ORDINARY, min_size=1, max_size=5))
def test_continuous_there_and_back(train, values):
    codec = fit_continuous(np.array(train), False)
    values = np.array(values + train)
    back = codec.decode(codec.encode(values)[0])
    atol = 1e-9 * (codec.scale + abs(codec.center))
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=atol)


@given(maps(), st.one_of(st.floats(-50, 50), st.floats(-1e5, 1e5)))
@example(Continuous(False, 0.0, 1.0, 0.0, 0.0, 1.0, *LATTICE), 999.0)
@example(
    Continuous(False, 0.0, 1.0, 2.0, 0.0, 1.0, *LATTICE), 1001.0
)  # either side of where the tail begins
@example(Continuous(False, 0.0, 1.0, 0.5, 0.0, 1.0, *LATTICE), -1e5)
def test_a_cell_has_the_ends_of_what_would_have_been_recorded_as_its_number(codec, u):
    """And the width that the step and the slope say, where it is narrow."""
    assume(abs(abs(u) - 1000) > 0.5)  # the second derivative jumps there
    x = codec.center + codec.scale * u
    z, log_volume = codec.encode(np.array([x]))
    assert log_volume == -math.log(codec.step)
    for step in (codec.step, 0.3 * codec.scale):
        lines = NumberLines([replace(codec, step=step).line])
        ends = codec.scaled(np.array([x - step / 2, x + step / 2]))
        middle, width = (t.item() for t in lines.cells(torch.from_numpy(z)[:, None]))
        assert middle == pytest.approx(ends.mean(), rel=1e-7, abs=1e-7)
        error = 1e-9 / step * max(1.0, abs(x)) + 1e-6
        # where the step is below the rounding of x, both ends are one float
        assert abs(width - np.diff(ends).item()) <= error * width + 1e-12


@given(st.lists(ANY, min_size=1, max_size=20), st.lists(ANY, min_size=1, max_size=20))
@example([0.0, 1e-300, 2e-300], [1e300, -LARGEST, LARGEST])
@example([LARGEST, -LARGEST, 0.0], [1.0])
@example([0.0] * 9 + [1e308, -1e308], [5e-324])
@example([5e-324, 0.0], [LARGEST])
def test_every_finite_number_has_a_finite_image_and_slope(train, values):
    codec = fit_continuous(np.array(train), False)
    values = np.unique(np.array(values + train))
    z, log_volume = codec.encode(values)
    assert np.isfinite(z).all()
    assert np.isfinite(log_volume).all()
    assert (np.diff(z) >= 0).all()
    assert np.abs(codec.encode(np.array(train))[0]).max() <= 0.51 * math.sqrt(len(train)) + 1e-9
    assert np.isfinite((z.astype(np.float32) / np.float32(1 + 1e9)) ** 2).all()
    assert np.isfinite(codec.decode(z)).all()


@given(maps(), st.lists(ANY, min_size=2, max_size=9), st.floats(-6, 6))
@example(Continuous(False, 1e308, 1e308, 0.0, 0.0, 1e3, *LATTICE), [LARGEST, -LARGEST], 0.0)
def test_every_real_number_comes_from_a_finite_one(codec, far, near):
    x = codec.decode(np.sort(far))
    assert np.isfinite(x).all()
    assert (x[1:] >= x[:-1]).all()
    x = codec.decode(np.array([near]))
    if abs(x[0]) < 1e300:  # a number further out has none of its own
        np.testing.assert_allclose(codec.encode(x)[0], near, rtol=1e-6, atol=1e-6)


SHAPES = {
    "normal": lambda rng, n: rng.normal(3, 2, n),
    "lognormal": lambda rng, n: np.exp(2 * rng.normal(size=n)),
    "negative lognormal": lambda rng, n: -np.exp(2 * rng.normal(size=n)),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.8, 0.0, rng.normal(size=n)),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "tiny": lambda rng, n: 1e-300 * rng.normal(size=n),
    "huge": lambda rng, n: 1e300 * rng.normal(size=n),
    "constant": lambda _, n: np.full(n, 7.25),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("n", [50, 20_001])
def test_mean_zero_and_standard_deviation_one_half(shape, n):
    values = shape(np.random.default_rng(0), n)
    codec = fit_continuous(values, False)
    z, _ = codec.encode(values)
    np.testing.assert_allclose(z.mean(), 0.0, atol=1e-9)
    np.testing.assert_allclose(z.std(), 0.0 if shape is SHAPES["constant"] else 0.5, atol=1e-9)
    np.testing.assert_allclose(codec.decode(z), values, rtol=1e-9, atol=1e-9 * codec.scale)


@pytest.mark.parametrize("n", [500, 30_000])
def test_the_power_makes_skewed_values_symmetric_and_leaves_normal_ones_alone(n):
    rng = np.random.default_rng(1)
    assert abs(fit_continuous(rng.normal(5, 3, n), False).power - 1) <= 0.15
    values = np.exp(rng.normal(size=n))
    codec = fit_continuous(values, False)
    assert codec.power < 0.6
    assert abs(skew(codec.encode(values)[0])) < 0.8 < skew(values)
    assert fit_continuous(-values, False).power == pytest.approx(2 - codec.power)


def test_the_density_of_a_continuous_column_integrates_to_one():
    values = np.exp(np.random.default_rng(2).normal(size=400))
    codec = fit_continuous(values, False)
    assert codec.p_new == 0
    grid = codec.decode(np.linspace(-5, 5, 20_001))
    assert np.trapezoid(density(codec, grid), grid) == pytest.approx(1.0, abs=1e-4)


def density(codec, values):
    """Of numbers that are N(0, 1/4) in the core."""
    z, log_volume = codec.encode(values)
    cells = NumberLines([codec.line]).cells(torch.from_numpy(z)[:, None])
    zero = torch.zeros((), dtype=torch.float64)
    return np.exp(log_mass(cells, zero, zero + 0.5)[:, 0].numpy() + log_volume)


def repeating(n=2000, k=300):
    """Zipf's frequencies of lognormal numbers, some of which occur once."""
    random = np.random.default_rng(3)
    numbers = np.exp(random.normal(size=k)).round(3)
    return random.choice(numbers, n, p=1 / np.arange(1, k + 1) / (1 / np.arange(1, k + 1)).sum())


def test_where_numbers_repeat_new_ones_have_their_share_of_the_density():
    values = repeating()
    codec = replace(fit_continuous(values, False), opened=())
    assert 0.02 < codec.p_new < 0.1
    z = np.linspace(-5, 5, 20_001)
    grid = codec.decode(z)  # none of them was seen
    assert np.trapezoid(density(codec, grid), grid) == pytest.approx(codec.p_new, abs=1e-5)
    z, log_volume = codec.encode(values)
    np.testing.assert_allclose(log_volume, -math.log(codec.step))
    assert codec.mean_new_nats == pytest.approx(codec.p_new * codec.new_nats(grid[:1])[0])
    assert codec.new_nats(np.array([math.nan])) == 0


def test_draws_are_the_nearest_number_seen_and_those_seen_stay():
    values, rng = repeating(), np.random.default_rng(0)
    codec = fit_continuous(values, False)
    z = rng.normal(scale=0.5, size=3000)
    drawn, smooth = codec.decode(z, rng), codec.decode(z)
    seen = np.array(codec.seen)
    np.testing.assert_array_equal(drawn, seen[abs(smooth[:, None] - seen).argmin(1)])
    np.testing.assert_array_equal(codec.decode(codec.encode(values)[0], rng), values)
    assert np.isnan(codec.decode(np.array([math.nan]), rng)).all()


@pytest.mark.parametrize("far", [0.0, -5000.0])
@pytest.mark.parametrize("n_shared", [3, 30])
def test_no_draw_is_beyond_a_shared_end_or_far_beyond_the_range(far, n_shared):
    """However wide a component is: the tails of the line reach to the largest floats."""
    rng = np.random.default_rng(0)
    values = np.append(rng.gamma(2.0, 30.0, 600).round(2) + 1, np.full(n_shared, far))
    codec = fit_continuous(values, False)
    drawn = codec.decode(rng.normal(scale=5.0, size=3000), rng)
    reach = 4 * np.ptp(values)
    assert drawn.max() > values.max()
    assert drawn.max() <= values.max() + reach
    assert drawn.min() >= far - (reach if n_shared < 5 else 0)
    np.testing.assert_allclose(codec.decode(codec.encode(values)[0], rng), values, rtol=1e-9)


@pytest.mark.parametrize("whole", [False, True])
def test_no_number_in_training_is_too_far_to_be_drawn(whole):
    rng = np.random.default_rng(0)
    for n in (*range(1, 14), 200):
        values = rng.choice([-5.0, 0.0, 1.0, 2.0, 7.0, 100.0, 1e6], n)
        codec = fit_continuous(values, whole)
        np.testing.assert_allclose(codec.settled(values), values, rtol=1e-6)


def test_the_probability_of_a_new_number_is_that_of_good_and_turing():
    """Against fresh values of the same numbers, few of their lattice, over many columns."""
    rng = np.random.default_rng(0)
    numbers, p = rng.permutation(10**6)[:600] + 0.0, 1 / np.arange(1, 601)
    truth = rng.choice(numbers, (80, 2, 1500), p=p / p.sum())
    expected, met = [], []
    for train, fresh in truth:
        codec = fit_continuous(train, False)
        if codec.seen:
            expected.append(codec.p_new)
            met.append(np.mean(codec.new_nats(codec.encode(fresh)[0]) > -math.log(0.5)))
    assert len(met) > 60
    assert np.mean(expected) == pytest.approx(np.mean(met), abs=0.015)


def test_a_column_in_time_or_of_different_numbers_has_no_new_ones():
    values = repeating()
    assert fit_continuous(values, False, in_time=True).seen == ()
    values[: len(values) // 5] = np.arange(len(values) // 5)
    assert numbers_seen(values, 0.001) == ((), 0.0)


def test_neighbours_on_a_lattice_and_a_few_peaks_are_what_a_density_has():
    """Counts, also with many zeros: which new ones come, their masses say."""
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(1.5, 0.02, 5000) + 0.0
    for values in (counts, np.where(rng.random(5000) < 0.5, 0.0, 300 + counts)):
        assert fit_continuous(values, True).seen == ()
    assert fit_continuous(np.rint(7.3 * counts), True).seen


LATTICES = {
    "cents": (lambda rng: rng.normal(20, 8, 500).round(2), 0.01, 0.0),
    "ends in 99": (lambda rng: rng.integers(1, 40, 500) + 0.99, 1.0, 0.99),
    "fives, one in a thousand not": (lambda rng: np.r_[5.0 * rng.integers(0, 900, 2000), 3], 5, 0),
    "inches in centimetres": (lambda rng: 2.54 * rng.integers(1, 300, 500), 2.54, 0.0),
    "float32 once": (lambda rng: rng.normal(size=500).round(2).astype("f4"), 0.01, 0.0),
    "sums of floats": (lambda rng: 0.1 + 0.2 * rng.integers(0, 99, 500), 0.2, 0.1),
    "one number": (lambda _: np.full(9, 7.25), 0.01, 0.0),
    "one whole number": (lambda _: np.full(9, 37.0), 1.0, 0.0),
    "mostly zero": (lambda rng: rng.poisson(0.01, 4000) * 10.0, 10.0, 0.0),
    "large": (lambda rng: 1e12 + rng.integers(0, 10**6, 500), 1.0, 0.0),
}


def test_the_lattice_is_the_largest_step_of_nearly_all_numbers():
    for values, step, origin in LATTICES.values():
        values = np.asarray(values(np.random.default_rng(1)), float)
        found, start = find_lattice(values)
        assert found == pytest.approx(step, rel=1e-9)
        assert (start - origin) / step == pytest.approx(round((start - origin) / step), abs=1e-9)


def test_numbers_without_a_lattice_have_the_least_difference_as_step():
    values = np.random.default_rng(1).normal(size=300)
    assert find_lattice(values) == (np.diff(np.sort(values)).min(), None)


def test_draws_are_numbers_of_the_lattice():
    codec = fit_continuous(np.random.default_rng(2).integers(1, 4000, 300) + 0.5, False)
    assert not codec.seen
    rng = np.random.default_rng(0)
    drawn = codec.decode(rng.normal(scale=0.5, size=900), rng)
    np.testing.assert_allclose(drawn % 1, 0.5)


MAP = False, 0.0, 1.0, 1.0, 0.0, 1.0, *LATTICE
WRONG = {
    "scale": lambda: Continuous(False, 0.0, 0.0, *MAP[3:]),
    "power": lambda: Continuous(False, 0.0, 1.0, 2.5, *MAP[4:]),
    "step": lambda: Continuous(*MAP[:6], 0.0, 0.0),
    "seen": lambda: Continuous(*MAP, seen=(1.0, 0.0), p_new=0.1),
    "seen, but none new": lambda: Continuous(*MAP, seen=(1.0,)),
    "new, but none seen": lambda: Continuous(*MAP, p_new=0.1),
}


def test_numbers_of_a_file_are_finite_floats():
    data, _ = flatten(Continuous(*MAP, (1.0,), 0.1))
    assert isinstance(unflatten(Continuous, (data | {"center": 3}, {})).center, float)
    for field, value in (("center", math.nan), ("seen", [10**400]), ("seen", [True, 2.0])):
        with pytest.raises(ValueError, match=f"^{field}"):
            unflatten(Continuous, (data | {field: value}, {}))


def test_impossible_parameters_are_refused():
    for make in WRONG.values():
        with pytest.raises(ValueError, match=r"must be"):
            make()


def test_the_map_is_yeo_and_johnsons_for_all_powers_at_once():
    w = np.array([-1e6, -2.5, -0.0, 0.0, 0.3, 40.0])
    at_once = bend(torch.from_numpy(w), numeric.POWERS[:, None]).numpy()
    for power, row in zip(numeric.POWERS.tolist(), at_once, strict=True):
        np.testing.assert_allclose(row, yeojohnson(w, power), rtol=1e-12)
