"""Laws of the judges: errors have one share in a column, near functions a spread."""

import numpy as np
import pandas as pd

from discrete_itd import find_errors
from discrete_itd.cells.channel import shares_of_errors


def test_property_errors_that_are_even_over_the_parts_are_no_exceptions_and_others_are():
    """What deviates in one half only is as frequent as in both, but errors would be in both."""
    random = np.random.default_rng(0)
    n = 6000
    half, noise = random.integers(0, 2, n), random.integers(0, 5, n)
    for n_deviating in (30, 60):
        in_one, in_both = np.zeros(n), np.zeros(n)
        in_one[random.choice(np.flatnonzero(half == 1), n_deviating, replace=False)] = 1
        in_both[random.choice(n, n_deviating, replace=False)] = 1
        one, both = (
            shares_of_errors(deviating, np.ones(n), [noise, half], 0.01)
            for deviating in (in_one, in_both)
        )
        whole = shares_of_errors(in_both, np.ones(n), [], 0.01)
        assert one[half == 1].max() < 0.5 < 0.9 < one[half == 0].min()
        assert np.array_equal(both, whole)


def test_property_the_share_of_errors_falls_with_what_deviates_and_rises_with_the_expected_share():
    visible = np.ones(1000)
    shares = np.array(
        [
            [shares_of_errors(np.full(1000, k / 1000), visible, [], e)[0] for k in (1, 10, 50, 300)]
            for e in (0.003, 0.01, 0.1)
        ]
    )
    assert (np.diff(shares, axis=1) < 0).all()
    assert (np.diff(shares, axis=0) > 0).all()
    assert ((shares > 0) & (shares < 1)).all()


def test_property_a_near_function_is_silent_where_it_holds_and_names_what_it_makes_improbable():
    """z = x² ± .01 and a day up to three days after another one: one cell of the pair is wrong, or the other."""
    random = np.random.default_rng(0)
    n, swapped = 2000, random.choice(2000, 20, replace=False)
    x, day = random.normal(size=n), random.integers(0, 400, n)
    first = pd.Timestamp("2024-01-01")
    clean = pd.DataFrame(
        {
            "x": x.round(3),
            "z": (x**2 + random.normal(0, 0.01, n)).round(3),
            "ordered": first + pd.to_timedelta(day, "D"),
            "sent": first + pd.to_timedelta(day + random.integers(0, 4, n), "D"),
            "group": random.choice(list("abc"), n),
        }
    )
    assert not len(find_errors(clean))
    for pair in (["x", "z"], ["ordered", "sent"]):
        dirty = clean.copy()
        dirty.loc[swapped, pair[1]] = clean[pair[1]].to_numpy()[random.permutation(swapped)]
        found = find_errors(dirty)
        assert found["row"].isin(swapped).mean() > 0.9
        assert found["row"].isin(swapped).sum() > len(swapped)
        assert set(found["column"]) <= set(pair)


def test_numbers_beyond_all_scale_have_an_answer():
    """A number of 300 digits, numbers that underflow, and columns that are nearly constant, without a warning."""
    random = np.random.default_rng(0)
    x, is_rare = random.normal(size=200), random.random(200) < 0.03
    for z in (
        np.where(is_rare, 1e300, x),
        np.where(is_rare, -1e308, x),
        x * 1e-300,
        np.where(random.random(200) < 0.8, 0.0, x),
    ):
        found = find_errors(pd.DataFrame({"x": x, "z": z}), min_probability=0.01)
        assert found["probability_wrong"].between(0, 1).all()


def test_half_characters_have_an_answer_beside_other_text():
    texts = ["é", "e\u0301", "ß", "\u200b", "", "\N{GRINNING FACE}", "\ud800", "x"]
    frame = pd.DataFrame({"text": pd.Series(texts * 20, dtype=object), "key": [*range(8)] * 20})
    assert find_errors(frame)["probability_wrong"].between(0.5, 1).all()
