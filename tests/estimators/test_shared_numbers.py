"""A number that many rows share has its mass in every model, off the column's lattice too (20)."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector

N = 3000


def rain(random):
    """Half of the rows are exactly 0."""
    x = np.where(random.random(N) < 0.5, 0.0, random.lognormal(0.3, 0.5, N))
    log_p = math.log(0.5) + stats.lognorm(0.5, scale=math.exp(0.3)).logpdf(np.where(x, x, 1.0))
    return x, 0.0, 0.5, log_p


def favourite(random):
    """One price among smooth ones."""
    x = np.where(random.random(N) < 0.15, 9.99, 5 + random.gamma(2.0, 3.0, N))
    return x, 9.99, 0.15, math.log(0.85) + stats.gamma(2.0, loc=5, scale=3).logpdf(x)


def cents(random):
    """The same, rounded to cents, beside which the favourite is one of thousands."""
    x, number, share, log_p = favourite(random)
    return x.round(2), number, share, log_p


MODELS = ["independent", "tree", "forest", pytest.param("mixture", marks=pytest.mark.slow)]


@pytest.mark.parametrize("denoiser", MODELS)
@pytest.mark.parametrize("law", [rain, favourite, cents])
def test_a_number_of_many_rows_has_its_mass(law, denoiser):
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"x": law(random)[0], "word": random.choice(["a", "b"], N)})
    model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(frame)
    step = model.encoder_.schema[0].codec.step
    x, number, share, log_p = law(random)
    log_p = np.where(x == number, math.log(share) - math.log(step), log_p) - math.log(2)
    test = pd.DataFrame({"x": x, "word": random.choice(["a", "b"], N)})
    excess = log_p - model.score_samples(test)
    assert excess.mean() < 0.02 + 2 * excess.std() / math.sqrt(N)
    drawn = (model.sample(N, random_state=0)["x"] == number).mean()
    seen = (frame["x"] == number).mean()
    assert abs(drawn - seen) < 0.005 + 3 * math.sqrt(share * (1 - share) / N)


@pytest.mark.parametrize("denoiser", MODELS)
@pytest.mark.parametrize("numbers", [(9.99, 12.5), (9.98, 9.99)])
def test_masses_of_a_lattice_with_frequent_numbers_add_up_to_one(denoiser, numbers):
    """Two of them may be neighbours."""
    random = np.random.default_rng(2)
    x = (5 + random.gamma(2.0, 1.0, 1000)).round(2)
    for i, number in enumerate(numbers):
        x[300 * i : 300 * i + 200] = number
    frame = pd.DataFrame({"x": x, "word": np.where(random.random(1000) * 10 < x, "a", "b")})
    model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(frame)
    codec = model.encoder_.schema[0].codec
    assert [number for number, _ in codec.opened] == list(numbers)
    prices = np.arange(-2000, 8000) / 100
    assert codec.step == pytest.approx(0.01)
    rows = pd.DataFrame({"x": prices, "word": pd.Series([None] * len(prices), dtype=object)})
    total = np.exp(model.score_samples(rows)).sum() * codec.step
    assert 0.999 < total <= 1 + 1e-6


@pytest.mark.parametrize("denoiser", MODELS[:3])
@pytest.mark.parametrize(("n", "sign"), [(300, 1), (1500, -1)])
def test_counts_have_little_mass_beyond_the_end_where_they_are_densest(n, sign, denoiser):
    """Only the cell of the end gives a density of a wide range room to fall from its peak to nothing."""
    counts = sign * stats.nbinom(0.5, 0.001).rvs(n, random_state=3)
    model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(pd.DataFrame({"x": counts}))
    mass = np.exp(model.score_samples(pd.DataFrame({"x": -sign * np.arange(500)})))
    assert mass[1:].sum() < 0.04
    share = (counts == 0).mean()
    assert share / 2 < mass[0] < 2 * share


@pytest.mark.parametrize("denoiser", ["independent", "forest"])
def test_a_whole_number_far_beyond_all_others_is_stranger_than_a_new_one_among_them(denoiser):
    """Where many numbers are new: levels would not know how far away it is."""
    random = np.random.default_rng(0)
    days = random.choice(400, 250, replace=False)[random.integers(250, size=600)]
    days = pd.DataFrame({"days": days, "word": random.choice(["a", "b"], 600)})
    model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(days)
    among = min(set(range(100, 300)) - set(days["days"]))
    far = pd.DataFrame({"days": [among, 13_454], "word": ["a", "a"]})
    nats = -model.score_samples(far)
    assert nats[1] > nats[0] + 5


def test_predicted_numbers_are_what_impute_fills_in():
    """The number itself where it has the median and the lower end of the interval, not one beside it in its cell."""
    random = np.random.default_rng(3)
    x = np.where(random.random(400) < 0.7, 0.0, random.lognormal(0, 1, 400))
    frame = pd.DataFrame({"x": x, "word": random.choice(["a", "b"], 400)})
    density = DiffusionDensity(denoiser="tree")
    detector = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0)
    found = detector.fit(frame).expected(frame[:5]).query("column == 'x'")
    assert (found["expected"] == detector.density_.impute(frame[:5].assign(x=np.nan))["x"][0]).all()
    assert (found["expected"] == 0).all()
    assert (found["low"] == 0).all()


def test_leaves_of_many_columns_keep_the_share_of_a_frequent_number():
    """Few splits are by its column: it has a mass of its own in a leaf, beside the Gaussian of other numbers."""
    random, n = np.random.default_rng(0), 400
    word = random.choice(["a", "b"], n)
    is_zero = random.random(n) < np.where(word == "a", 0.8, 0.2)
    x = np.where(is_zero, 0.0, random.gamma(2.0, 50.0, n).round(2))
    noise = {f"n{i}": random.normal(size=n) for i in range(4)}
    codes = {f"c{i}": random.choice(list("pqrs"), n) for i in range(4)}
    frame = pd.DataFrame({"word": word, **noise, **codes, "x": x})
    model = DiffusionDensity(denoiser="forest", random_state=0).fit(frame)
    given = frame[:2].assign(**dict.fromkeys(frame, None)).astype(frame.dtypes)
    given["word"], zero = ["a", "b"], np.array([0.0, np.nan])
    rows = pd.concat([given.assign(x=value) for value in zero])
    log_p = model.score_samples(rows).reshape(2, 2)
    log_step = math.log(model.encoder_.schema[-1].codec.step)
    found = np.exp(log_p[0] + log_step)  # together with the word
    assert found.sum() == pytest.approx(is_zero.mean(), abs=0.03)
    given_word = found / np.exp(log_p[1])
    assert given_word[0] > given_word[1] + 0.15
