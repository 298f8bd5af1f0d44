"""Rows against their own stratum: conditional scores, p-values and offsets of strata, unseen strata, files."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.cli.command import main
from discrete_itd.recipes import Mixture

TREE = DiffusionDensity(denoiser="tree", random_state=0)
NET = DiffusionDensity(denoiser="bayes_net", random_state=0)


def sales(n=1500, seed=0):
    """Amounts in b are ten times those in a; d has few rows."""
    random = np.random.default_rng(seed)
    shop = random.choice(list("abcd"), n, p=[0.4, 0.36, 0.2, 0.04])
    amount = random.lognormal(0, 0.4, n) * np.where(shop == "b", 10.0, 1.0)
    paid = np.where(random.random(n) < 0.9, np.where(shop == "b", "card", "cash"), "voucher")
    return pd.DataFrame(
        {"shop": shop, "amount": amount, "paid": paid, "day": random.integers(5, size=n)}
    )


def nominal(n=1500, seed=0):
    """Of each stratum a or b other values are usual; and two columns define the stratum in test tables of two."""
    random = np.random.default_rng(seed)
    stratum = random.choice(list("ab"), n)
    x = np.where(random.random(n) < 0.97, stratum, np.where(stratum == "a", "b", "a"))
    return pd.DataFrame(
        {"stratum": stratum, "x": np.char.upper(x), "y": random.choice(list("uvw"), n)}
    )


def fit(X, density=TREE, **parameters):
    settings = {"given": "shop", "false_alarm_rate": 0.05, "random_state": 0, **parameters}
    return DiffusionOutlierDetector(density, **settings).fit(X)


@pytest.fixture(scope="module")
def fitted():
    return fit(sales(1800))


# -- the score ------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [TREE, NET], ids=["tree", "bayes_net"])
def test_properties_nats_are_differences_of_joint_log_probabilities(density):
    X = sales(600).assign(amount=lambda t: (t["amount"] > 3).map({True: "high", False: "low"}))
    X.loc[::7, "paid"] = None
    model = fit(X, density, given=["shop", "day"])
    joint = model.density_.log_prob(X).log_prob
    alone = model.density_.log_prob(X.assign(amount=None, paid=None)).log_prob
    nats = model.explain(X)
    least, q = model._scorer.quantiles[0]
    # (12), solved for the nats given the stratum
    own = np.log(np.expm1(nats + np.logaddexp(0, least - q))) + q
    np.testing.assert_allclose(own.sum(axis=1), alone - joint, atol=1e-4)
    assert nats[["shop", "day"]].isna().all(axis=None)


# -- p-values and alarms --------------------------------------------------------------------------


def naive_p(calibration, score, rounding):
    slack = rounding * (1 + abs(calibration))
    return (1 + sum(calibration - slack <= score)) / (len(calibration) + 1)


def naive_p_values(model, X, calibration, fewest):
    """Row by row: the calibration rows of its stratum, or all if these are too few."""
    out = []
    for shop, score in zip(X["shop"], model.score_samples(X), strict=True):
        own = model.calibration_scores_[(calibration["shop"] == shop).to_numpy()]
        own = own if len(own) >= fewest else model.calibration_scores_
        out.append(naive_p(own, score, model._scorer.rounding))
    return np.array(out)


def test_properties_p_values_are_those_of_the_stratum_or_of_all_rows():
    """Of a frozen density, whose calibration rows are those given."""
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(sales(600))
    calibration, X = sales(300, seed=1), sales(60, seed=2)
    X.loc[:1, "shop"] = "new"
    model = fit(calibration, FrozenEstimator(density))
    sizes = calibration["shop"].value_counts()
    assert sizes["d"] < 19 < sizes["c"]
    p = model.p_values(X)
    np.testing.assert_array_equal(p, naive_p_values(model, X, calibration, 19))
    assert np.array_equal(model.predict(X) == -1, model.decision_function(X) < 0)
    assert np.array_equal(model.predict(X) == -1, p <= 0.05)
    at = model.threshold_at_rate(0.1)
    assert np.array_equal(model.predict(X, threshold=at) == -1, p <= 0.1)
    found = model.strata()
    assert found["n_calibration"].to_dict() == sizes.to_dict()
    assert found["own"].to_dict() == {"a": True, "b": True, "c": True, "d": False}
    assert found.loc["d", "offset"] == model.offset_ != found.loc["a", "offset"]
    assert "3 strata have offsets of their own" in str(model.threshold_)
    n = sizes["d"]  # the smallest p-value of the stratum is 1 / (n + 1)
    for rate, is_own in ((1 / (n + 1), True), (1 / (n + 2), False)):
        model = fit(calibration, FrozenEstimator(density), false_alarm_rate=rate)
        assert model.strata().loc["d", "own"] == is_own


def test_a_smaller_rate_takes_all_rows_where_a_stratum_has_too_few(fitted):
    n = fitted.strata()["n_calibration"]
    assert n["c"] < 99 < n["a"]
    at = fitted.threshold_at_rate(0.01)
    offset = fitted._offsets(fitted.density_.rows(sales(50, seed=2).assign(shop="c")), at)
    assert (offset == at.offset).all()
    of_a = fitted.density_.rows(sales(50, seed=2).assign(shop="a"))
    assert (fitted._offsets(of_a, at) != at.offset).all()


def test_false_alarms_stay_within_the_budget_in_every_stratum():
    """Of repeated divisions: the mean rate of a stratum is at most the budget, but for chance."""
    new = nominal(3000, seed=100)
    new["y"] = np.where(new["stratum"] == "b", "u", new["y"])  # ties are many in b
    X = nominal(8000, seed=1)
    X["y"] = np.where(X["stratum"] == "b", "u", X["y"])
    random, alarms = np.random.default_rng(0), []
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(X[:1000])
    for _ in range(20):
        held = X[1000:].iloc[random.choice(7000, 300, replace=False)]
        model = fit(held, FrozenEstimator(density), given="stratum", false_alarm_rate=0.05)
        some = new.iloc[random.choice(3000, 150, replace=False)]
        alarms.append((model.predict(some) == -1).astype(int))
        alarms[-1] = pd.Series(alarms[-1]).groupby(some["stratum"].to_numpy()).agg(["sum", "size"])
    total = sum(alarms[1:], alarms[0])
    for stratum in "ab":
        assert total.loc[stratum, "sum"] <= stats.binom.ppf(0.999, total.loc[stratum, "size"], 0.05)


def test_a_row_that_is_typical_only_of_another_stratum_is_found_by_its_stratum():
    X, own = sales(), []
    odd = sales(400, seed=5).query("shop == 'b'").assign(shop="a", paid="cash")
    odd["amount"] = np.clip(odd["amount"], 8.0, 12.0)
    # whole rows, of a stratum column that the score cannot use: amounts of both strata are common
    without = DiffusionOutlierDetector(TREE, false_alarm_rate=0.05, random_state=0)
    without = without.fit(X.drop(columns=["shop", "paid"]))
    own = fit(X, DiffusionDensity(denoiser=Mixture(4, n_points=64, max_steps=40), random_state=0))
    assert (own.predict(odd) == -1).mean() > 0.95
    assert (without.predict(odd.drop(columns=["shop", "paid"])) == -1).mean() < 0.1
    reasons = own.reasons(odd[:20], k=4)
    assert (reasons["column"] != "shop").all()
    assert (reasons.loc[reasons["rank"] == 1, "column"] == "amount").mean() > 0.8
    alone = own.reasons(odd[:20].assign(paid=None), k=1)
    assert (alone["conflict_column"] == "shop").all()  # as what a cell conflicts with it is named
    assert len(alone) > 15


# -- strata that are new --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:outside the range or the categories")
def test_unseen_strata_are_flagged_and_compared_with_all_rows(fitted):
    X = sales(30, seed=6)
    X.loc[:9, "shop"] = "new"
    X.loc[10, "shop"] = None  # a stratum of its own, which no row was of
    seen = fitted.strata(X)["seen"]
    assert seen.tolist() == [False] * 11 + [True] * 19
    of_rows, of_strata = fitted.strata(X), fitted.strata()
    assert (of_rows["n_calibration"][:11] == 0).all()
    np.testing.assert_array_equal(
        of_rows["offset"], fitted._offsets(fitted.density_.rows(X), fitted.threshold_)
    )
    pd.testing.assert_frame_equal(
        of_rows[11:].reset_index(drop=True), of_strata.loc[X["shop"][11:]].reset_index(drop=True)
    )
    scores, all_scores = fitted.score_samples(X), np.sort(fitted.calibration_scores_)
    assert np.isfinite(scores).all()
    p = (1 + np.searchsorted(all_scores, scores[:11])) / (len(all_scores) + 1)
    np.testing.assert_allclose(fitted.p_values(X)[:11], p, atol=4.5 / len(all_scores))
    reasons = fitted.reasons(X, k=2)
    assert reasons["stratum_seen"].tolist() == seen[reasons["row"]].tolist()
    said = reasons["sentence"].str.startswith("no row with shop = new was seen in training; ")
    assert said.tolist() == ((reasons["row"] < 10) & (reasons["rank"] == 1)).tolist()
    assert not fitted.reasons(X[11:])["sentence"].str.contains("in training").any()


@pytest.mark.filterwarnings("ignore:outside the range or the categories")
def test_unseen_values_make_no_stratum_of_their_own_however_many_calibration_rows_have_one():
    """They are different strata, which a model cannot tell apart; a known one needs 1 / rate - 1 rows."""
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(sales(600))
    shops = {"a": 19, "b": 18, "new": 40, "other": 40, "c": 30}
    calibration = sales(sum(shops.values()), seed=1).assign(
        shop=np.repeat([*shops], [*shops.values()])
    )
    model = fit(calibration, FrozenEstimator(density))
    own = model.strata()["own"]
    assert own[["a", "b", "c"]].tolist() == [True, False, True]
    assert own.sum() == 2
    X = sales(30, seed=6).assign(shop=np.repeat(["new", "other", "a"], 10))
    np.testing.assert_array_equal(model.strata(X)["seen"], X["shop"] == "a")
    whole, own = model.calibration_scores_, model.calibration_scores_[:19]
    p = [naive_p(own if shop == "a" else whole, s, model._scorer.rounding)
         for shop, s in zip(X["shop"], model.score_samples(X), strict=True)]  # fmt: skip
    np.testing.assert_allclose(model.p_values(X), p)


def test_a_combination_is_new_though_its_values_are_known():
    X = nominal(600)
    X.loc[X["stratum"] == "a", "y"] = "u"
    model = fit(X, given=["stratum", "y"])
    new = pd.DataFrame({"stratum": ["a", "a", "b"], "x": "A", "y": ["u", "v", "v"]})
    assert model.strata(new)["seen"].tolist() == [True, False, True]
    assert model.strata().index.names == ["stratum", "y"]
    frozen = fit(X, FrozenEstimator(model.density_), given=["stratum", "y"])
    assert frozen.strata(new)["seen"].all()  # what it was fitted to is not known
    assert not frozen.strata(new.assign(y="new"))["seen"].any()


# -- other questions ------------------------------------------------------------------------------


def test_other_questions_are_of_the_stratum_too(fitted):
    X = sales(40, seed=7)
    table = fitted.expected(X[:2])
    assert set(table["column"]) == {"amount", "paid", "day"}
    assert set(fitted.expected(X[:2], "shop")["column"]) == {"shop"}
    assert not fitted.drift(sales(300, seed=8)).drifted
    assert fitted.discoveries(X).dtype == bool
    cost = fitted.threshold_at_cost(100.0, 1.0, anomalies=X[:5], prevalence=0.01)
    assert np.unique(fitted._offsets(fitted.density_.rows(X), cost)).tolist() == [cost.offset]
    assert "given `shop`" in fitted.model_card()
    with pytest.raises(ValueError, match="offsets of 3 strata"):
        fit(nominal(200), given="stratum").set_threshold(fitted.threshold_)


def test_the_command_fits_and_scores_by_strata(tmp_path, capsys):
    X = sales(600)
    X.to_csv(tmp_path / "in.csv", index=False)
    new = sales(40, seed=9)
    new.loc[0, "shop"] = "new"
    new.to_csv(tmp_path / "new.csv", index=False)
    file, out = tmp_path / "m.safetensors", tmp_path / "out.csv"
    fit = ["fit", tmp_path / "in.csv", "--out", file, "--denoiser", "tree", "--seed", 0]
    assert (
        main([*map(str, fit), "--detector", "--given", "shop", "--false-alarm-rate", "0.05"]) == 0
    )
    assert (
        main(["score", str(file), str(tmp_path / "new.csv"), "--out", str(out), "--reasons"]) == 0
    )
    found, model = pd.read_csv(out), DiffusionOutlierDetector.load(file)
    np.testing.assert_allclose(found["p_value"], model.p_values(new))
    np.testing.assert_array_equal(found["alarm"], model.predict(new) == -1)
    assert found["stratum_seen"].tolist() == [False] + [True] * 39
    assert main([*map(str, fit), "--detector", "--given", "no"]) == 2
    assert main([*map(str, fit), "--given", "shop"]) == 2
    assert "column 'no': named in --given" in capsys.readouterr().err


# -- the estimator --------------------------------------------------------------------------------


def test_strata_survive_files_and_copies(fitted, tmp_path):
    X = sales(50, seed=10)
    X.loc[0, "shop"] = "new"
    file = tmp_path / "m.safetensors"
    fitted.save(file)
    for again in (DiffusionOutlierDetector.load(file), pickle.loads(pickle.dumps(fitted))):
        for ask in ("score_samples", "p_values", "decision_function"):
            np.testing.assert_array_equal(getattr(again, ask)(X), getattr(fitted, ask)(X))
        for rows in (None, X):
            pd.testing.assert_frame_equal(again.strata(rows), fitted.strata(rows))
        assert again.given == "shop"
    assert clone(fitted).get_params()["given"] == "shop"


def test_without_strata_nothing_changes():
    X, new = sales(400), sales(40, seed=11)
    model = fit(X, given=None)
    assert len(model.strata()) == 0
    found = model.strata(new)
    assert found["seen"].all()
    assert not found["own"].any()
    assert (found["offset"] == model.offset_).all()
    assert (found["n_calibration"] == len(model.calibration_scores_)).all()
    np.testing.assert_array_equal(
        model.decision_function(new), model.score_samples(new) - model.offset_
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.p_values(new), model.p_values(new))
    assert "stratum_seen" not in model.reasons(new[:2])


def test_arrays_have_strata_by_position():
    X = nominal(400).apply(lambda c: pd.factorize(c, sort=True)[0]).to_numpy()
    named = fit(nominal(400), given=np.array(["stratum"]))  # an array of names is as good as a list
    model = fit(X, given=0)
    np.testing.assert_allclose(model.score_samples(X), named.score_samples(nominal(400)), atol=1e-5)


def test_contaminated_rows_and_none_to_calibrate_on():
    X = sales(600)
    model = fit(X, contamination=0.05)
    share = pd.Series(model.predict(X) == -1).groupby(X["shop"]).mean()
    assert share[["a", "b"]].between(0.005, 0.12).all()
    model = fit(X, calibration_fraction=0)
    assert not len(model.strata())
    assert np.unique(model._offsets(model.density_.rows(X), model.threshold_)).tolist() == [
        model.offset_
    ]


@pytest.mark.parametrize(("given", "message"), [
    ("no", "column 'no': named in given="),
    ("amount", "column 'amount': named in given=, but continuous"),
    (["shop", "amount", "paid", "day"], "column 'amount'"),
    (["shop", "paid"], "names all columns"),
])  # fmt: skip
def test_columns_that_define_no_stratum_are_refused_before_the_fit(given, message, monkeypatch):
    monkeypatch.setattr(DiffusionDensity, "fit", lambda *_, **__: pytest.fail("fitted"))
    X = sales(100)
    X = X[["shop", "paid"]] if "all" in message else X
    with pytest.raises(ValueError, match=message):
        fit(X, given=given)


TEXTS = {
    "dates": (
        [f"{day:%d.%m.%Y}" for day in pd.date_range("2020-01-01", periods=200)],
        "clock",
    ),
    "amounts": ([f"{n / 4:.2f} €" for n in range(200)], "continuous"),
    "names": ([f"c{n:x}" for n in range(200)], "looks like identifiers"),
}


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("name", TEXTS)
def test_text_is_refused_before_the_fit_for_what_the_fit_would_take_it_for(name, monkeypatch):
    monkeypatch.setattr(DiffusionDensity, "fit", lambda *_, **__: pytest.fail("fitted"))
    texts, message = TEXTS[name]
    X = pd.DataFrame({name: texts, "paid": ["x", "y"] * 100})
    with pytest.raises(ValueError, match=f"column '{name}': named in given=.*{message}"):
        fit(X, given=name)
