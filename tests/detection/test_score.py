"""The score (12): nats of every column above those of ordinary cells, and its row sums."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection import score
from discrete_itd.detection.reasons import reasons
from discrete_itd.detection.score import Scorer, small_trees, terms
from discrete_itd.models.exact import grow
from discrete_itd.models.model import parts_of
from discrete_itd.recipes import Causal, Forest, Mixture, Network, RowMixture
from discrete_itd.storage import files

pytestmark = pytest.mark.single_precision

RECIPES = {
    "independent": "independent",
    "tree": "tree",
    "bayes_net": "bayes_net",
    "mixture": Mixture(3, n_points=64, max_steps=40),
    "forest": Forest(n_trees=4),
    "causal": Causal(base="tree", width=8, depth=1),
    "row mixture": RowMixture(
        (Causal(base="independent", width=8, depth=1), Mixture(3, n_points=64, max_steps=40))
    ),
    "path": Network(width=8, depth=1, base="independent"),
    "members": "auto",
}


def table(n=160, seed=0):
    """Categories, counts and numbers; some cells missing, one whole row among them."""
    random = np.random.default_rng(seed)
    a = random.choice(["low", "high"], n)
    number = np.where(a == "low", -3.0, 3.0) + random.normal(0, 0.5, n)
    frame = pd.DataFrame({"a": a, "number": number, "count": random.poisson(3, n)})
    frame["other"] = random.normal(size=n).round(6) + 0.1 * frame["count"]
    frame.loc[::9, ["a", "other"]] = None
    frame.loc[3] = None
    return frame


def density(recipe, X=None, **settings):
    settings = {"missing": "marginalise", **settings}
    settings = {"max_steps": 10, "n_evaluations": 8, "random_state": 0, **settings}
    return DiffusionDensity(denoiser=recipe, **settings).fit(table() if X is None else X)


ALIKE = ("bayes_net", "row mixture", "path")  # as a tree, and as networks among other members


@pytest.fixture(
    scope="module",
    params=[pytest.param(r, marks=pytest.mark.slow) if r in ALIKE else r for r in RECIPES],
)
def detector(request):
    """Calibrated on other rows than those of the fit."""
    fitted = FrozenEstimator(density(RECIPES[request.param]))
    return DiffusionOutlierDetector(fitted, false_alarm_rate=0.1).fit(table(80, 1))


def term(nats, least, q):
    """The term s of (12)."""
    with np.errstate(invalid="ignore"):  # NaN where a cell is missing
        return np.logaddexp(0.0, np.maximum(nats, least) - q) - np.logaddexp(0.0, least - q)


def naive(scorer, X):
    """A loop over rows, models and internal columns, each row scored by itself."""
    rows, owner = scorer.density.rows(X), scorer.density.encoder_.owner
    out = np.full(X.shape, np.nan)
    for i, m in itertools.product(range(len(X)), range(len(scorer.models))):
        one, (share, model) = rows.take([i]), scorer.models[m]
        nats = model.attribution(one.x, scorer.density.n_evaluations).surprisal[0]
        for j, value in enumerate(one.x[0].tolist()):
            if not np.isnan(value):
                own = nats[j].item() - one.log_volume[0, j]
                s = share * term(own, *scorer.quantiles[m, :, j])
                out[i, owner[j]] = np.nansum([out[i, owner[j]], s])
    return out


def test_properties_columns_add_up_to_the_score_to_the_last_bit(detector):
    """In any order of summation, of new rows and of calibration rows, whose numbers are those of `explain`."""
    X = table(40, 2)
    nats, score = detector.explain(X), detector.score_samples(X)
    np.testing.assert_array_equal(nats.sum(axis=1), -score)
    backwards = [sum(row[::-1]) for row in nats.fillna(0.0).to_numpy().tolist()]
    np.testing.assert_array_equal(backwards, -score)
    pd.testing.assert_frame_equal(
        detector.explain(), detector.explain(table(80, 1)), check_exact=True
    )
    np.testing.assert_array_equal(
        detector.calibration_scores_, detector.score_samples(table(80, 1))
    )


def test_properties_nats_are_those_of_a_loop_over_rows_and_columns(detector):
    X = table(8, 3)
    X.loc[0, "number"] = 50.0
    X["count"] = X["count"].clip(upper=5)  # none is new
    nats, scorer = detector.explain(X), detector._scorer
    np.testing.assert_allclose(nats, naive(scorer, X), rtol=1e-4, atol=1e-4)
    assert nats.isna().equals(X.isna())
    assert not (nats < 0).any(axis=None)
    assert nats.loc[0, "number"] > 5
    alone = terms(scorer._nats(detector.density_.rows(X), scorer.model)[0], scorer.quantiles[0])
    own, (least, q) = detector.density_.explain(X), scorer.quantiles[0]
    assert own.isna().equals(X.isna())
    above = (own - q).clip(lower=0.0)
    assert not (alone < above - np.logaddexp(0, least - q) - 1e-4).any(axis=None)
    assert not (alone > above + np.log(2) + 1e-4).any(axis=None)


def test_properties_a_row_has_one_score_in_any_batch(detector):
    X, random = table(50, 4), np.random.default_rng(0)
    nats, order = detector.explain(X), random.permutation(50)
    pd.testing.assert_frame_equal(
        detector.explain(X.iloc[order]), nats.iloc[order], check_exact=True
    )
    for i in (0, 3, 17):
        pd.testing.assert_frame_equal(
            detector.explain(X[i : i + 1]), nats[i : i + 1], check_exact=True
        )


def test_properties_one_in_twenty_of_the_models_own_cells_is_above_the_quantile(detector):
    scorer = detector._scorer
    own = scorer.density.explain(scorer.density.sample(1000, random_state=5, missing="none"))
    above = (own - scorer.quantiles[0, 1] > 1e-4).mean()
    assert (above < 0.1).all()
    assert (above[["number", "other"]] > 0.02).all()
    np.testing.assert_array_equal(scorer.quantiles, Scorer(scorer.density).fitted_quantiles())


def test_properties_the_most_typical_cells_have_no_nats(detector):
    """As a missing cell has none; of several models the most typical cells differ."""
    own = detector.density_.sample(500, random_state=detector.density_.model_.seed, missing="none")
    assert (detector.explain(own).min() <= 1e-6 + 0.1 * (len(detector._scorer.models) > 1)).all()


def test_properties_no_value_of_a_constant_column_has_nats_but_another_one():
    frame = table(300).assign(constant="always")
    model = DiffusionOutlierDetector(density("tree", frame), false_alarm_rate=0.1).fit(frame)
    frame.loc[5, "constant"] = "never"
    nats = model.explain(frame)["constant"]
    assert nats[5] > 1
    assert (nats.drop(5) == 0).all()


def test_a_new_number_among_those_that_repeat_is_odd_and_named_and_no_row_drawn_has_one(tmp_path):
    random = np.random.default_rng(0)
    numbers = random.normal(size=40).round(6)
    columns = {"repeating": numbers[random.integers(40, size=600)], "a": random.choice(["x"], 600)}
    X = pd.DataFrame(columns | {"different": random.normal(size=600)})
    density = DiffusionDensity(
        column_types={"repeating": "continuous"}, denoiser="independent", random_state=0
    )
    model = DiffusionOutlierDetector(density, false_alarm_rate=0.05).fit(X)
    new = X[:20].assign(repeating=np.sort(numbers)[:2].mean())  # between two that were seen
    codec = model.density_.encoder_.schema[0].codec
    code, usual = (model.density_.rows(rows).log_volume[:, 0] for rows in (new, X))
    assert np.allclose(code - usual[:20], np.log(codec.p_new))
    assert (model.reasons(new, k=1)["column"] == "repeating").all()
    assert (model.p_values(new) < 0.05).mean() > 0.8
    assert set(model.density_.sample(100, random_state=0)["repeating"]) <= set(numbers)
    assert "costs nats in `repeating`: the file holds" in model.model_card()
    model.save(tmp_path / "d")
    again = DiffusionOutlierDetector.load(tmp_path / "d")
    assert np.array_equal(again.score_samples(new), model.score_samples(new))


@pytest.mark.parametrize("recipe", ["independent", "forest"])
def test_properties_a_number_is_the_odder_the_farther_it_is_from_all_levels(recipe):
    """New ones between the levels are all alike; beyond them, scores fall as the density does."""
    random = np.random.default_rng(0)
    X = pd.DataFrame(
        {"a": random.choice([0, 5, 10, 30, 60], 200), "b": random.choice([*"xy"], 200)}
    )
    fitted = DiffusionDensity(denoiser=recipe, random_state=0).fit(X)
    new = pd.DataFrame({"a": [0, 5, 10, 30, 60, 7, 31, 59, 61, 70, 100, 660, 10**6], "b": "x"})
    scores = Scorer(fitted).score(fitted.rows(new))
    assert scores[5] == scores[6] == scores[7]
    assert (np.diff(scores[8:]) < 0).all()
    assert scores[11] < scores[:8].min() - 1
    lost = np.diff(scores[9:])
    np.testing.assert_allclose(lost, np.diff(fitted.score_samples(new[9:])), rtol=0.1)
    wrong = reasons(fitted, new[9:], k=1)
    assert (wrong["column"] == "a").all()
    np.testing.assert_allclose(np.diff(wrong["nats"])[1:], -lost[1:], rtol=0.1)
    assert wrong["probability_wrong"].iloc[-1] > 0.99
    mirrored = Scorer(fitted).score(fitted.rows(new.assign(a=60 - new["a"])))
    np.testing.assert_allclose(mirrored[5:], scores[5:])


def test_properties_an_indicator_and_a_value_have_a_term_each():
    fitted = density("tree", missing="category")
    detector = DiffusionOutlierDetector(FrozenEstimator(fitted), false_alarm_rate=0.1).fit(table())
    X, scorer, owner = table(20, 6), detector._scorer, fitted.encoder_.owner
    nats = detector.explain(X)
    np.testing.assert_allclose(nats, naive(scorer, X), rtol=1e-4, atol=1e-4)
    assert not nats.isna().any(axis=None)  # a missing cell has a probability
    indicator = 4 + owner[4:].tolist().index(3)
    alone = -fitted.denoiser_.log_factors(fitted.rows(X).x)[:, indicator].numpy()
    alone = term(alone, *scorer.quantiles[0, :, indicator])
    is_missing = X["other"].isna().to_numpy()
    np.testing.assert_allclose(nats["other"][is_missing], alone[is_missing], atol=1e-5)
    assert (nats["other"] > alone)[~is_missing].all()
    drawn = fitted.rows(fitted.sample(500, random_state=fitted.model_.seed))
    own = (-fitted.denoiser_.log_factors(drawn.x).numpy() - drawn.log_volume)[:, 3]
    own = own[~drawn.x[:, 3].isnan().numpy()]  # missing cells have no nats
    assert 300 < len(own) < 500
    assert scorer.quantiles[0, :, 3] == pytest.approx(np.quantile(own, [0, 0.95]), abs=1e-5)


def test_properties_given_columns_have_no_nats():
    """And the others those given these, above the quantile of those given these."""
    fitted = density("tree")
    detector = DiffusionOutlierDetector(
        FrozenEstimator(fitted), given="a", false_alarm_rate=0.1
    ).fit(table(300, 1))
    X, (least, q) = table(30, 2), detector._scorer.quantiles[0]
    nats, own = detector.explain(X), fitted.explain(X, given=["a"])
    assert nats["a"].isna().all()
    assert nats.drop(columns="a").isna().equals(X.drop(columns="a").isna())
    assert own["a"].isna().all()
    np.testing.assert_allclose(nats, term(own, least, q), atol=1e-5)
    drawn = fitted.sample(500, random_state=fitted.model_.seed, missing="none")
    drawn = fitted.explain(drawn, given=["a"])
    np.testing.assert_allclose(q, drawn.quantile(0.95).fillna(0.0), atol=1e-5)


def test_properties_of_many_columns_at_most_one_cell_of_a_row_is_above_its_quantile():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 40))).add_prefix("x")
    scorer = Scorer(density("independent", X))
    own = scorer.density.explain(scorer.density.sample(2000, random_state=5))
    assert 0.7 < (own > scorer.fitted_quantiles()[0, 1]).sum(axis=1).mean() < 1.3


def test_properties_models_take_part_by_their_held_out_nats(tmp_path):
    """In proportion to exp(-nats), the chosen one once, mixtures that were not chosen not at all."""
    fitted = density("auto")
    model, found = fitted.model_, fitted.candidates_.set_index("candidate")
    kept, chosen = found[found["share"] > 0], found.index[found["chosen"]].item()
    assert kept["share"].sum() == pytest.approx(1)
    assert np.ptp(np.log(kept["share"]) + kept["nats"]) < 1e-5
    assert set(kept.index) <= {chosen, "forest", "mixture", "causal"}
    models = Scorer(fitted).models
    assert models[0] == (kept["share"][chosen], model)
    for (share, one), label in zip(models[1:], kept.index.drop(chosen), strict=True):
        assert share == kept["share"][label]
        # independent columns stand in for what was no better on held-out rows
        labels = {label} | (
            {"marginal"} if kept["nats"][label] >= found["nats"]["independent"] - 1e-6 else set()
        )
        kinds = [type(d).__name__.lower() for d in parts_of(one.denoiser)]
        assert any(part in kind for part in labels for kind in kinds)
    assert [share for share, _ in Scorer(fitted, given=(0,)).models] == [1.0]
    fitted.save(tmp_path / "d")
    header, tensors = files.read_state(tmp_path / "d")
    for wrong in ([0.5, 0.4], [*model.shares[:-1], -model.shares[-1]], []):
        header["fitted"]["model"]["shares"] = wrong
        files.write_state(tmp_path / "e", (header, tensors))
        with pytest.raises(ValueError, match="shares"):
            DiffusionDensity.load(tmp_path / "e")


@pytest.mark.parametrize("detector", ["members"], indirect=True)
def test_quantiles_are_kept(detector, tmp_path):
    detector.save(tmp_path / "d")
    again, X = DiffusionOutlierDetector.load(tmp_path / "d"), table(20, 7)
    pd.testing.assert_frame_equal(again.explain(X), detector.explain(X), check_exact=True)
    np.testing.assert_array_equal(again.calibration_scores_, detector.calibration_scores_)


# -- with anomalies among the training rows -------------------------------------------------------


@pytest.fixture(scope="module", params=[((), 0.04), (("a",), 0.1)])
def robust(request):
    """Told of a share of anomalies among the rows; by itself, and in strata."""
    given, share = request.param
    settings = {"contamination": share, "given": given or None, "random_state": 0}
    return DiffusionOutlierDetector(density(Forest(n_trees=4)), **settings).fit(table(300, 1))


def test_properties_robust_nats_are_means_of_two_members(robust):
    """Of the density and of each tree of few rows, before the quantile is subtracted; they add up to the last bit."""
    X, scorer, model = table(40, 2), robust._scorer, robust.density_
    weight = scorer.weight
    assert weight == 5 * robust.contamination
    drawn = model.rows(model.sample(500, random_state=model.model_.seed, missing="none"))
    rows = model.rows(X)
    given = list(robust.given or ())

    def mean(own, frame):
        trees = -scorer.trees.mean_log_factors(own.x).cpu().numpy() - own.log_volume
        # NaN where a cell is missing
        return (1 - weight) * model.explain(frame, given=given or None) + weight * trees

    least, q = mean(drawn, drawn.frame).quantile([0, 0.95]).fillna(0.0).to_numpy()
    nats, expected = robust.explain(X), term(mean(rows, X), least, q)
    if scorer.distances is not None:
        expected += scorer.distances.terms(scorer.schema, rows.cells)
    np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-4)
    assert nats[given].isna().all(axis=None)
    np.testing.assert_array_equal(nats.sum(axis=1), -robust.score_samples(X))
    for i in (0, 3, 17):
        pd.testing.assert_frame_equal(
            robust.explain(X[i : i + 1]), nats[i : i + 1], check_exact=True
        )


def test_the_trees_of_a_robust_score_are_kept_and_checked(robust, tmp_path):
    robust.save(tmp_path / "d")
    again, X = DiffusionOutlierDetector.load(tmp_path / "d"), table(20, 7)
    pd.testing.assert_frame_equal(again.explain(X), robust.explain(X), check_exact=True)
    header, tensors = files.read_state(tmp_path / "d")
    for wrong in ({"weight": 0.6}, {"weight": 0.0}, {"trees": None}):
        state = header | {"fitted": header["fitted"] | wrong}
        own = {
            k: t for k, t in tensors.items() if not (wrong == {"trees": None} and ".trees." in k)
        }
        files.write_state(tmp_path / "e", (state, own))
        with pytest.raises(ValueError, match=r"e: fitted.*weight"):
            DiffusionOutlierDetector.load(tmp_path / "e")


def test_properties_trees_of_few_rows_have_a_code_length():
    """All rows that there may be have a sum of at most 1, and the seed alone decides on the trees."""
    cells = [list(row) for row in itertools.product("xyz", "uv", "pqrs")]
    X = pd.DataFrame(cells + cells[:6] * 10, columns=list("abc"))
    fitted = density("independent", X)
    x = fitted.rows(X).x
    log_prob, again, other = (
        small_trees(fitted, x, seed).mean_log_factors(x).sum(1) for seed in (0, 0, 1)
    )
    assert 0.5 < float(log_prob[: len(cells)].exp().sum()) <= 1
    assert torch.equal(log_prob, again)
    assert not torch.allclose(log_prob, other)


def test_each_tree_of_few_rows_sees_rows_of_its_own(monkeypatch):
    seen = []

    def growing(book, x, *, tree, **how):
        seen.extend(x[tree == t, 0] for t in tree.unique())
        return grow(book, x, tree=tree, **how)

    monkeypatch.setattr(score, "grow", growing)
    X = pd.DataFrame({"a": np.arange(1000.0)})
    fitted = density("independent", X)
    small_trees(fitted, fitted.rows(X).x, 0)
    assert [len(x.unique()) for x in seen] == [score.ROWS_OF_TREE] * score.SMALL_TREES
    assert len({tuple(x.sort()[0].tolist()) for x in seen}) == score.SMALL_TREES


def test_terms_are_those_of_the_model_as_it_is_now():
    """After more rows were learned, rows are not scored by the model that was."""
    model = DiffusionDensity(denoiser="independent", random_state=0).partial_fit(table(100))
    scorer = Scorer(model)
    before = scorer.score(model.rows(table(20, 2)))
    model.partial_fit(table(300, 5))
    after = scorer.score(model.rows(table(20, 2)))
    assert np.abs(after - before).max() > 0.01


def test_no_leaf_of_a_tree_of_few_rows_is_one_of_them():
    """Not even where all cells of a row are numbers: the fewest rows of a leaf are five."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=list("abc"))
    fitted = density("independent", X)
    trees = small_trees(fitted, fitted.rows(X).x, 0)
    assert trees.n_trees == score.SMALL_TREES
    assert trees.splits.n_leaves <= score.SMALL_TREES * 64 // 5
    x = fitted.rows(X).x.to(trees.means)
    assert not (trees.means[:, None] == x).all(-1).any()


@pytest.mark.slow
def test_what_a_density_learns_of_a_cluster_of_anomalies_trees_of_few_rows_do_not():
    """Further rows of the cluster score lower in these, and so in the mean of both."""
    random = np.random.default_rng(0)

    def rows(n, n_odd):
        numbers = [random.normal(size=(n, 4)), 2.5 + 0.3 * random.normal(size=(n_odd, 4))]
        X = pd.DataFrame(np.concatenate(numbers), columns=list("abcd"))
        X["shop"] = random.choice(["x", "y"], len(X))
        return X.mask(random.random(X.shape) < 0.02)

    train, test = rows(600, 40), rows(400, 100)
    plain, robust = (
        DiffusionOutlierDetector(
            denoiser=Forest(n_trees=20), contamination=share, false_alarm_rate=0.1, random_state=0
        ).fit(train)
        for share in ("auto", 40 / 640)
    )
    is_odd = np.arange(500) >= 400
    trees = replace(robust._scorer, weight=1.0, quantiles=None)
    scores = (
        plain.score_samples(test),
        robust.score_samples(test),
        trees.score(robust.density_.rows(test)),
    )
    found = [roc_auc_score(is_odd, -score) for score in scores]
    assert found[0] < 0.4
    assert found[1] > found[0] + 0.15
    assert found[2] > 0.75
