"""Entropy and mutual information of columns: by enumeration, by laws, and where the truth is known."""

import math
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import digamma, gammaln

from discrete_itd import DiffusionDensity
from discrete_itd.plots import information_matrix, plot_information_matrix
from discrete_itd.recipes import BayesNet, Causal, Mixture, Network

pytestmark = pytest.mark.single_precision

NAMES = list("abcd")
DENOISERS = {
    "bayes_net": BayesNet(),
    "mixture": Mixture(4, n_points=64, max_steps=40),
    "forest": "forest",
    "members": [BayesNet(), Mixture(4, n_points=64, max_steps=40)],
}


def categories(n, seed=0):
    """A fork of two dependent columns, a copy with errors, and an independent one."""
    rng = np.random.default_rng(seed)
    a = rng.integers(3, size=n)
    b = np.where(rng.random(n) < 0.7, a, rng.integers(3, size=n))
    c = np.where(rng.random(n) < 0.8, b > 0, rng.integers(2, size=n)).astype(int)
    return pd.DataFrame(np.stack([a, b, c, rng.integers(2, size=n)], 1), columns=NAMES).astype(str)


@cache
def fitted(name):
    return DiffusionDensity(denoiser=DENOISERS[name], random_state=0).fit(categories(1500))


@cache
def network(kind, **options):
    recipe = {"network": Network, "causal": Causal}[kind](width=32, depth=1)
    return DiffusionDensity(
        denoiser=recipe, max_steps=120, n_evaluations=64, random_state=0, **options
    ).fit(categories(1500))


def joint(model):
    """The probability of every row of categories seen in training, as an array."""
    values = [c.categories for c in model.encoder_.schema]
    grid = pd.MultiIndex.from_product(values, names=NAMES).to_frame(index=False)
    p = np.exp(model.score_samples(grid)).reshape([len(v) for v in values])
    assert p.sum() == pytest.approx(1, abs=0.01)  # the rest is unseen
    return p / p.sum()


def entropy(p, columns):
    """Of some columns of an array of probabilities."""
    p = p.sum(tuple(j for j, name in enumerate(NAMES) if name not in columns))
    return float(-(p * np.log(p)).sum())


def close(found, truth, slack=0.0):
    assert abs(found.value - truth) < 4 * found.stderr + slack, (found, truth)
    assert 0 <= found.stderr < 0.1


@pytest.mark.parametrize("name", [*DENOISERS, "causal"])
def test_draws_have_the_information_of_the_sum_over_all_rows(name):
    model = network(name) if name == "causal" else fitted(name)
    p, seed = joint(model), 0
    for about, of, given in (("a", "b", ""), ("a", "c", "b"), ("ab", "c", ""), ("b", "acd", "")):
        parts = entropy(p, about + given) + entropy(p, of + given)
        truth = parts - entropy(p, about + of + given) - entropy(p, given)
        found = model.mutual_information(list(about), list(of), list(given), random_state=seed)
        close(found, truth, 5e-3)  # of unseen categories, which are not drawn
        close(
            model.entropy(list(of), list(given), random_state=seed),
            entropy(p, of + given) - entropy(p, given),
            5e-3,
        )


@pytest.mark.parametrize("name", DENOISERS)
def test_laws_of_information_hold_on_the_same_rows(name):
    model, rows = fitted(name), categories(600, seed=1)

    def info(*columns, given=None):
        return model.mutual_information(*columns, given, X=rows)

    both, one, other = info(["a", "c"], "b"), info("a", "b"), info("c", "b", given="a")
    assert both.value == pytest.approx(one.value + other.value, abs=1e-5)
    assert info("b", "a").value == pytest.approx(one.value, abs=1e-5)
    loss = model.entropy("a", X=rows).value - model.entropy("a", "b", X=rows).value
    assert loss == pytest.approx(one.value, abs=1e-5)
    more = info("a", ["b", "c", "d"])
    assert one.value <= more.value + 4 * (one.stderr + more.stderr)
    assert info("a").value == pytest.approx(more.value, abs=1e-5)
    assert info("a", "d").value == pytest.approx(0, abs=0.02)
    assert model.entropy(X=rows).value == pytest.approx(-model.score(rows), abs=1e-5)


def test_gaps_without_a_probability_leave_their_rows_out():
    """A row adds no zero: of columns with gaps at random, the information is that of the rows that have both."""
    model, rows = fitted("bayes_net"), categories(600, seed=1).astype(object)
    for name in "ab":
        rows.loc[np.random.default_rng(ord(name)).random(600) < 0.5, name] = None
    rows["d"] = None
    rows, both = rows[:400], rows[:400].dropna(subset=["a", "b"])
    matrix = information_matrix(model, model.rows(rows))
    found = model.mutual_information("a", "b", X=rows)
    assert found == pytest.approx(model.mutual_information("a", "b", X=both), abs=1e-6)
    assert matrix.loc["a", "b"] == pytest.approx(found.value, abs=1e-5)
    assert matrix.attrs["stderr"][0, 1] == pytest.approx(found.stderr, abs=1e-5)
    assert matrix["d"].isna().all()
    assert len(plot_information_matrix(matrix).texts) == 6
    alone, given = model.entropy("a", X=rows), model.entropy("a", "b", X=rows)
    assert alone == pytest.approx(model.entropy("a", X=rows.dropna(subset="a")), abs=1e-6)
    assert given == pytest.approx(model.entropy("a", "b", X=both), abs=1e-6)
    with pytest.raises(ValueError, match="X has 0 rows with these cells"):
        model.mutual_information("a", "d", X=rows)


def generated(n, seed, n_levels):
    """Levels of shares that fall to a few in a thousand, a copy with errors, gaps, and numbers that depend on them."""
    rng = np.random.default_rng(seed)
    a = np.minimum(rng.geometric(0.4, n), n_levels) - 1
    b = np.where(rng.random(n) < 0.6, a, rng.integers(n_levels, size=n))
    price = rng.lognormal(a / 3, 0.5).round(2)
    frame = pd.DataFrame({"a": a, "b": b, "c": rng.integers(3, size=n)}).astype(str)
    frame = frame.assign(price=price, total=(1.2 * price * rng.integers(1, 4, n)).round(2))
    for name, gap in (("b", a == 1), ("price", b == 0)):
        frame[name] = frame[name].mask(rng.random(n) < np.where(gap, 0.3, 0.05))
    return frame


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_properties_answers_that_cannot_be_are_not_given(seed):
    """A network of complete rows: entropies from 0 to log K, information from 0 to the smaller entropy, near counts."""
    n_levels = 4 + 4 * seed
    recipe = Causal(width=32, depth=1)
    how = {"max_steps": 80, "missing": "marginalise", "random_state": 0}
    model = DiffusionDensity(denoiser=recipe, **how).fit(generated(800, seed, n_levels))
    assert not model.denoiser_.exact
    many, nominal = generated(20_000, seed + 10, n_levels), list("abc")

    def counted(columns):
        shares = many[columns].dropna().value_counts(normalize=True)
        return float(-(shares * np.log(shares)).sum())

    for rows in (None, generated(1000, seed + 20, n_levels)):
        how = {"X": rows, "random_state": 0}
        most = {name: model.entropy(name, **how) for name in nominal}
        for name, found in most.items():
            close(found, counted([name]), 0.05)
            assert 0 <= found.value < math.log(many[name].nunique()) + 3 * found.stderr
        for one, two in (*combinations(nominal, 2), ("a", "price"), ("c", "total")):
            found = model.mutual_information(one, two, **how)
            assert found.stderr < 0.1
            least = min(most[name].value for name in (one, two) if name in most)
            assert -3 * found.stderr - 0.02 < found.value < least + 3 * found.stderr
    both = many[["a", "b"]].dropna()
    parts = [both[c].value_counts(normalize=True) for c in "ab"]
    truth = sum(float(-(p * np.log(p)).sum()) for p in parts) - counted(["a", "b"])
    found = model.mutual_information(
        "a", "b", X=rows
    )  # of the table, but for what the fit has missed
    assert truth / 2 < found.value < truth + 4 * found.stderr


def correlated(n, rng, rho=0.75):
    return rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)


def student(n, rng, df=3.0):
    """A bivariate Student distribution of uncorrelated columns."""
    return rng.normal(size=(n, 2)) / np.sqrt(rng.chisquare(df, n) / df)[:, None]


def additive(n, rng, sd=0.4):
    """One of three numbers, and the same with Gaussian noise."""
    a = rng.integers(3, size=n)
    return np.stack([a, a + rng.normal(scale=sd, size=n)], 1)


def additive_information(sd=0.4):
    """The entropy of the sum less that of the noise."""
    grid = np.linspace(-3, 5, 20_001)
    p = stats.norm.pdf(grid[:, None], np.arange(3), sd).mean(1)
    return np.trapezoid(-p * np.log(p), grid) - stats.norm(0, sd).entropy()


def student_information(df):
    """Two entropies of Student's distribution less that of the pair (Guerrero-Cusumano 1996)."""

    def h(d):
        of_gammas = gammaln(d / 2) - gammaln((df + d) / 2) + gammaln(df / 2) - gammaln(d / 2)
        slope = digamma((df + d) / 2) - digamma(df / 2)
        return of_gammas + d / 2 * math.log(df * math.pi) + (df + d) / 2 * slope

    assert h(1) == pytest.approx(stats.t(df).entropy())
    return 2 * h(1) - h(2)


NUMBERS = {
    "correlated Gaussians": (correlated, -0.5 * math.log(1 - 0.75**2)),
    "Student": (student, student_information(3.0)),
    "additive noise": (additive, additive_information()),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_known_information(name):
    draw, truth = NUMBERS[name]
    rng = np.random.default_rng(0)
    fit, held_out = (pd.DataFrame(draw(n, rng), columns=["a", "b"]) for n in (4000, 2000))
    model = DiffusionDensity(denoiser=Mixture(32, n_points=64, max_steps=40), random_state=0).fit(
        fit
    )
    found = model.mutual_information("a", "b", X=held_out)
    close(found, truth)
    assert found.value > 3 * found.stderr


def test_gaps_are_part_of_the_information_where_they_have_a_probability():
    """A column that is missing where another one is large: the gap itself informs."""
    rng = np.random.default_rng(0)
    a = rng.integers(2, size=1500)
    b = np.where(a == 1, "none", rng.choice(["u", "v"], 1500))
    frame = pd.DataFrame({"a": a.astype(str), "b": b}).replace("none", None)
    for denoiser in ("tree", Network(width=32, depth=1)):
        model = DiffusionDensity(
            denoiser=denoiser, missing="category", max_steps=150, random_state=0
        ).fit(frame)
        for found in (
            model.mutual_information("a", "b", X=frame),
            model.mutual_information("b", "a", X=frame),
        ):
            close(found, math.log(2), 0.05)
        matrix = information_matrix(model, model.rows(frame[:500]))
        assert matrix.loc["a", "b"] == pytest.approx(math.log(2), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DENOISERS, "network"])
def test_the_matrix_has_the_information_of_each_pair(name):
    model, rows = network(name) if name == "network" else fitted(name), categories(400, seed=1)
    matrix = information_matrix(model, model.rows(rows))
    assert list(matrix.index) == list(matrix.columns) == NAMES
    assert np.isnan(np.diag(matrix)).all()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    stderr = matrix.attrs["stderr"]
    for j, one in enumerate(NAMES):
        for k, two in enumerate(NAMES[:j]):
            found = model.mutual_information(one, two, X=rows)
            if name == "network":
                assert abs(matrix.iloc[j, k] - found.value) < 4 * found.stderr
                continue
            assert matrix.iloc[j, k] == pytest.approx(found.value, abs=1e-5)
            assert stderr[j, k] == pytest.approx(found.stderr, abs=1e-5)


def test_gaps_with_a_probability_are_in_the_matrix_as_in_each_pair():
    """A value counts given that it is not missing."""
    rng, frame = np.random.default_rng(2), categories(1500).astype(object)
    for name, other in ("ab", "bc"):
        frame.loc[rng.random(1500) < np.where(frame[other] == "0", 0.5, 0.1), name] = None
    model = DiffusionDensity(
        denoiser=Mixture(8, n_points=64, max_steps=40), missing="category", random_state=0
    ).fit(frame)
    rows = frame[:300]
    matrix = information_matrix(model, model.rows(rows))
    for pair in ("ab", "ac", "cb"):
        found = model.mutual_information(*pair, X=rows)
        assert matrix.loc[pair[0], pair[1]] == pytest.approx(found.value, abs=1e-5)


def test_bad_questions_name_the_column():
    model, rows = fitted("bayes_net"), categories(10)
    with pytest.raises(ValueError, match="'e': named in about="):
        model.mutual_information("e", X=rows)
    with pytest.raises(ValueError, match="column 'a': in about= and in of="):
        model.mutual_information(["b", "a"], ["a", "c"], X=rows)
    with pytest.raises(ValueError, match="column 'c': in of= and in given="):
        model.mutual_information("a", ["b", "c"], "c", X=rows)
    with pytest.raises(ValueError, match="column 'a': in about= and in given="):
        model.mutual_information("a", given=["a"], X=rows)
    with pytest.raises(ValueError, match="column 'b': in columns= and in given="):
        model.entropy(["a", "b"], "b", X=rows)
    with pytest.raises(ValueError, match="about names no column"):
        model.mutual_information([], X=rows)
    with pytest.raises(ValueError, match="of names no column"):
        model.mutual_information("a", [], X=rows)
    with pytest.raises(ValueError, match="given name all columns: none is left"):
        model.mutual_information(["a", "b"], given=["c", "d"], X=rows)
    with pytest.raises(ValueError, match="X has 1 rows"):
        model.entropy(X=rows[:1])
    with pytest.raises(ValueError, match="n_rows"):
        model.entropy(n_rows=1)
    with pytest.raises(ValueError, match="1 rows"):
        information_matrix(model, model.rows(rows[:1]))
