"""Questions about part of a row: missing cells, given columns, distributions, filled cells, weights."""

import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from laws import make_denoiser, naive_autoregression, rounding

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.encoders import categories
from discrete_itd.recipes import Network
from tests.examples import float64, gappy, mixed_table, tiny

pytestmark = pytest.mark.single_precision

QUICK = {
    "denoiser": Network(width=16, depth=1, base="independent"),
    "max_steps": 25,
    "n_evaluations": 16,
    "random_state": 0,
}


TABLE = mixed_table(300)


@pytest.fixture(scope="module")
def model():
    """On a path that takes the columns in a fixed order: word, level, flag, size."""
    longer = {**QUICK, "schedule": CoordinateSchedule(4, (0, 2, 3, 1))}
    with float64():
        return DiffusionDensity(**longer).fit(TABLE)


@pytest.fixture(scope="module")
def knowing():
    """A mixture, which knows how columns depend on one another."""
    with float64():
        return DiffusionDensity(denoiser="mixture", random_state=0).fit(TABLE)


@pytest.fixture(scope="module")
def small_model():
    rng = np.random.default_rng(0)
    rows = tiny().sample(400, replace=True, weights=rng.random(12) ** 2, random_state=0)
    settings = {**QUICK, "handle_unknown": "error", "schedule": CoordinateSchedule(3, (0, 1, 2))}
    with float64():
        return DiffusionDensity(**settings).fit(rows)


# -- missing cells ---------------------------------------------------------------------------------


def test_a_missing_cell_is_left_out(model):
    rows = TABLE.dropna()[:1]
    for name in rows.columns:
        gap = rows.assign(**{name: None})
        shares = model.explain(gap)
        assert shares[name].isna().all()
        np.testing.assert_allclose(shares.sum(axis=1), -model.score_samples(gap), rtol=1e-9)
    nothing = model.log_prob(rows[:1].assign(**dict.fromkeys(rows.columns)))
    assert nothing.log_prob[0] == 0
    assert nothing.stderr[0] == 0


@pytest.mark.filterwarnings("ignore:column 'empty'")
@pytest.mark.parametrize("denoiser", ["bayes_net", "forest", "mixture"])
def test_exact_models_know_of_absent_cells_and_of_empty_columns(denoiser):
    """Whether an amount is there says what a row is; shares of columns add up; a column of nothing changes nothing."""
    rng, n = np.random.default_rng(2), 150
    joint = rng.random(n) < 0.4
    frame = pd.DataFrame(
        {
            "kind": np.where(joint, "joint", "single"),
            "amount": np.where(joint, rng.normal(90, 15, n).round(1), np.nan),
            "age": rng.normal(40, 9, n).round(),
        }
    )
    model, beside = (
        DiffusionDensity(denoiser=denoiser, max_steps=8, random_state=0).fit(X)
        for X in (frame, frame.assign(empty=np.nan))
    )
    scores = model.score_samples(frame)
    np.testing.assert_allclose(model.explain(frame).sum(axis=1), -scores, atol=1e-5)
    wrong = frame.assign(amount=np.where(joint, np.nan, 90.0))
    assert scores.mean() > model.score_samples(wrong).mean() + 0.1
    told, untold = (beside.score_samples(frame.assign(empty=v)) for v in (1.0, np.nan))
    np.testing.assert_allclose(told, untold, atol=1e-4)


def test_columns_and_rows_of_nothing():
    frame = TABLE.assign(empty=np.nan)
    frame.iloc[3] = None
    with pytest.warns(UserWarning, match="column 'empty'"):
        model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    scores = model.score_samples(frame)
    assert np.isfinite(scores).all()
    assert scores[3] == 0
    assert model.sample(4).shape == (4, 5)
    with (
        pytest.raises(ValueError, match="two rows with a cell that is not missing"),
        pytest.warns(UserWarning, match="every cell is missing"),
    ):
        DiffusionDensity().fit(pd.DataFrame({"a": [np.nan] * 4, "b": [None] * 4}))


# -- given columns ---------------------------------------------------------------------------------


def test_probabilities_of_one_column_are_its_conditional(model, small_model):
    rows = tiny()
    for name in rows.columns:
        proba = small_model.predict_proba(rows, name)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        rest = [n for n in rows.columns if n != name]
        conditional = np.exp(small_model.log_prob(rows, given=rest).log_prob)
        own = proba.to_numpy()[np.arange(12), proba.columns.get_indexer(rows[name])]
        np.testing.assert_allclose(own, conditional, atol=1e-9)
    rows = TABLE[:20]
    proba = model.predict_proba(rows, "word")
    assert list(proba.columns) == ["low", "mid", "top"]
    assert proba.index.equals(rows.index)
    pd.testing.assert_frame_equal(proba, model.predict_proba(rows.assign(word="odd"), "word"))
    assert list(model.predict_proba(rows).columns) == [False, True]
    with pytest.raises(ValueError, match="column 'size': continuous"):
        model.predict_proba(rows, "size")
    with pytest.raises(ValueError, match="column 'q': the model has no such column"):
        model.predict_proba(rows, "q")


def test_probabilities_of_pooled_categories(monkeypatch):
    monkeypatch.setattr(categories, "MOST_LEVELS", 30)
    monkeypatch.setattr(categories, "POOLED_BELOW", 4)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=500), "shop": rng.zipf(1.6, 500).clip(max=80).astype(str)}
    )
    how = {"column_types": {"shop": "nominal"}, "random_state": 0}
    model = DiffusionDensity(denoiser="tree", **how).fit(frame)
    shops = model.predict_proba(frame[:7], "shop")
    np.testing.assert_allclose(shops.sum(axis=1), 1)
    assert set(shops.columns) == set(frame["shop"])
    seen = frame["shop"].value_counts()
    rare = shops[seen.index[seen < 4]]
    assert rare.shape[1] > 3
    share = rare.to_numpy() / (seen[rare.columns] + 0.5).to_numpy()  # by smoothed frequencies
    np.testing.assert_allclose(share, share[:, :1].repeat(rare.shape[1], 1))
    assert np.isfinite(model.score_samples(frame.assign(x=1e9))).all()
    assert (
        model.score_samples(frame[:1].assign(x=50.0))
        < model.score_samples(frame[:1].assign(x=5.0)) - 3
    )


# -- models that know their probabilities ----------------------------------------------------------

EXACT = ["tree", "bayes_net", "mixture", "forest", "independent"]


@pytest.fixture(scope="module", params=EXACT)
def exact(request):
    """Of a mixed table with gaps, which it leaves out."""
    with float64():
        return DiffusionDensity(denoiser=request.param, n_evaluations=16, random_state=0).fit(TABLE)


@pytest.mark.parametrize("path", [None, IsotropicSchedule((0.5, 4.0)), CoordinateSchedule(2)])
@pytest.mark.parametrize("n_evaluations", [2, 16])
def test_shares_of_an_exact_score_add_up_to_it(exact, path, n_evaluations):
    """On whatever path rows are drawn."""
    rows = TABLE[:40]
    model = exact
    if path is not None:
        with float64():
            model = DiffusionDensity(denoiser=exact.denoiser, schedule=path, random_state=0).fit(
                TABLE
            )
    model = pickle.loads(pickle.dumps(model)).set_params(n_evaluations=n_evaluations)
    for known in (None, ["word"], ["size", "flag"]):
        shares = model.explain(rows, given=known)
        total = model.log_prob(rows, given=known).log_prob
        np.testing.assert_allclose(shares.sum(axis=1), -total, atol=1e-4)  # size: to 1e-5 of itself
        assert known is None or shares[known].isna().all(axis=None)


@pytest.mark.parametrize("unseen", ["smooth", "error"])
@pytest.mark.parametrize("missing", ["marginalise", "category"])
@pytest.mark.parametrize("denoiser", EXACT)
def test_all_rows_together_have_mass_one(denoiser, missing, unseen):
    """What can be seen: values that are there, categories never seen and, where that is a value, nothing."""
    with float64():
        model = DiffusionDensity(
            denoiser=denoiser,
            missing=missing,
            handle_unknown=unseen,
            n_evaluations=2,
            random_state=0,
        ).fit(gappy(500))
    odd, none = unseen == "smooth", missing == "category"
    values = {
        "a": [*"xyz"] + odd * ["odd"],
        "b": [0, 1] + odd * [77] + none * [None],
        "c": [False, True] + none * [None],
    }
    rows = pd.DataFrame(list(itertools.product(*values.values())), columns=list(values))
    rows = rows.astype({"b": "Int64", "c": "boolean"})
    p = np.exp(model.score_samples(rows))
    alike = np.exp(-model.rows(rows).log_volume.sum(1))  # 77 stands for all numbers never seen
    assert (p * alike).sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(model.explain(rows).sum(axis=1), -np.log(p), atol=1e-8)
    for known in (["a"], ["b"], ["c"], ["a", "c"]):
        conditional = np.exp(model.log_prob(rows, given=known).log_prob)
        conditional *= 1.0 if "b" in known else alike
        key = [rows[k].astype(str) for k in known]
        mass = pd.Series(conditional).groupby(key).sum()
        np.testing.assert_allclose(mass, 1, atol=1e-9)
    if missing == "category":
        seen = gappy(500)
        for name in ("b", "c"):
            share = p[rows[name].isna()].sum()
            assert share == pytest.approx(seen[name].isna().mean(), abs=0.03)


@pytest.mark.parametrize("kind", ["network", "stranger"])
@pytest.mark.parametrize(
    "known", [(), ("a",), ("b",), ("c",), ("a", "b"), ("b", "c"), ("a", "b", "c")]
)
def test_what_is_missing_is_told_by_what_is_given(dtype, kind, known):
    """log P(missing | given) + log P(values | missing, given), of any denoiser: one cell at a time, by hand."""
    rows = gappy(15)
    model = DiffusionDensity(denoiser="independent", missing="category", random_state=0).fit(rows)
    owner, inner = model.encoder_.owner.tolist(), model.model_
    book = inner.denoiser.codebook
    names = model.encoder_.names
    told = [j for j, column in enumerate(owner) if names[column] in known]
    missing = [j for j in book.leading.nonzero().flatten().tolist() if j not in told]
    n = len(owner)
    assert n == 3 + sum(c.indicator for c in model.encoder_.schema)
    values = [j for j in range(n) if j not in (*told, *missing)]
    denoiser = make_denoiser(kind, book, 1)
    order = (*told, *missing, *values)
    any_denoiser = replace(inner, denoiser=denoiser, schedule=CoordinateSchedule(n, order))
    x = model.rows(rows).x
    given = torch.tensor([j in told for j in range(n)], device=x.device)
    rank = torch.tensor(order).argsort()
    by_hand = torch.stack([naive_autoregression(denoiser, row, rank, told) for row in x])
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    got = any_denoiser.log_prob(x, 16, given=given)
    torch.testing.assert_close(got.log_prob.cpu(), by_hand.sum(1), **close)
    assert not got.stderr.any()
    shares = any_denoiser.attribution(x, 16, given=given).surprisal
    torch.testing.assert_close(shares.cpu(), -by_hand, **close)


# -- filling ---------------------------------------------------------------------------------------


def test_imputed_tables_keep_what_is_there(model):
    for method in ("median", "mean", "sample"):
        table = model.impute(TABLE, method=method, random_state=0)
        assert table.notna().all(axis=None)
        assert table.index.equals(TABLE.index)
        pd.testing.assert_series_equal(table.dtypes, TABLE.dtypes)
        pd.testing.assert_frame_equal(table.where(TABLE.notna()), TABLE.where(TABLE.notna()))
    one, other, again = (
        model.impute(TABLE, method="sample", random_state=seed) for seed in (0, 1, 0)
    )
    assert not one.equals(other)
    pd.testing.assert_frame_equal(one, again)
    complete = TABLE.dropna()
    pd.testing.assert_frame_equal(model.impute(complete), complete)
    with pytest.raises(
        ValueError, match=r"method must be one of \('median', 'mean', 'sample'\), got 'best'"
    ):
        model.impute(TABLE, method="best")


def test_imputation_knows_the_rest_of_the_row(knowing):
    truth = mixed_table(400, seed=9).dropna()
    gaps = truth.assign(word=None)
    right = (knowing.impute(gaps)["word"] == truth["word"]).mean()
    assert right > 0.85  # of three equally frequent words; the best possible is about 0.95
    numbers = knowing.impute(truth.assign(size=np.nan))["size"]
    assert (numbers - truth["size"]).std() < 0.5 * truth["size"].std()
    draws = [knowing.impute(gaps, method="sample", random_state=seed) for seed in range(20)]
    share = np.mean([d["word"] == truth["word"] for d in draws])
    assert 0.7 < share < right + 0.05


def test_samples_given_a_row(model, knowing, small_model):
    rows = model.sample(400, random_state=0, given={"word": "top"})
    assert (rows["word"] == "top").all()
    assert knowing.sample(400, random_state=0, given={"word": "top"})["size"].mean() > 3
    np.testing.assert_array_equal(
        rows.dtypes.to_numpy(), model.sample(2, random_state=0).dtypes.to_numpy()
    )
    again = model.sample(400, random_state=0, given=pd.Series({"word": "top", "size": np.nan}))
    pd.testing.assert_frame_equal(rows, again)
    with pytest.raises(
        ValueError, match=r"column 'word': unseen category 'tip' in given=;.*'top'$"
    ):
        model.sample(3, given=pd.DataFrame({"word": ["tip"]}))
    everything = TABLE.dropna()[:1].reset_index(drop=True)
    pd.testing.assert_frame_equal(model.sample(1, given=everything), everything)
    counts = small_model.sample(6000, random_state=0, given={"a": "z"}).groupby(["b", "c"]).size()
    p = np.exp(small_model.log_prob(tiny(), given=["a"]).log_prob)[8:]
    assert abs(counts.to_numpy() / 6000 - p).max() < 4 * 0.5 / math.sqrt(6000)
    with pytest.raises(ValueError, match="column 'q': named in given="):
        model.sample(1, given={"q": 1})
    with pytest.raises(ValueError, match="given must be one row, got 2"):
        model.sample(1, given=TABLE[:2])
    with pytest.raises(TypeError, match="given must be a mapping"):
        model.sample(1, given="top")
    with pytest.raises(ValueError, match="column 'a': unseen category 'w'"):
        small_model.sample(1, given={"a": "w"})
    for asked in ("> 3", (3, 9), range(3, 9)):
        with pytest.raises(ValueError, match=r"column 'size': .*draw more rows and keep those"):
            model.sample(1, given={"size": asked})


# -- interruptions ---------------------------------------------------------------------------------
