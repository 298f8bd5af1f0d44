"""Cells that are no number or date in columns of these: fits, and answers about rows that have them."""

import warnings

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch
from discrete_itd.scale.batches import BatchScoring

N = 500
SETTINGS = {"false_alarm_rate": 0.05, "random_state": 0}
RNG = np.random.default_rng(0)


def table(n=N):
    """Numbers, of which some are levels and depend on a shop, and dates; some cells are missing."""
    shop = RNG.choice(list("xyz"), n)
    level = np.where(shop == "x", 1, RNG.integers(1, 4, n))
    price = np.exp(RNG.normal(size=n) + level).round(2)
    day = pd.Timestamp("2028-01-01") + pd.to_timedelta(RNG.integers(0, 300, n), "D")
    frame = pd.DataFrame({"shop": shop, "level": level, "price": price, "day": day})
    frame.loc[RNG.random(n) < 0.1, "level"] = np.nan
    return frame


TABLE = table()
WORDS = {"price": "#REF!", "day": "?", "level": "N/C"}


def dirty(frame, *columns, at=0):
    """A table in which a row has words in some columns."""
    frame = frame.astype(dict.fromkeys(columns, object))
    for column in columns:
        frame.loc[frame.index[at], column] = WORDS[column]
    return frame


@pytest.fixture(scope="module", params=["marginalise", "category"])
def detector(request):
    density = DiffusionDensity(denoiser="tree", missing=request.param, random_state=0)
    return DiffusionOutlierDetector(density, **SETTINGS).fit(TABLE)


@pytest.mark.parametrize("denoiser", ["tree", "forest", "causal"])
def test_properties_value_and_missingness_are_summed_out(denoiser):
    settings = {"denoiser": denoiser, "missing": "category", "max_steps": 20, "random_state": 0}
    model = DiffusionDensity(**settings).fit(TABLE)
    rows = TABLE[:4]
    values = pd.array([*range(-300, 300), None], dtype="Int64")  # most of them unseen
    filled = pd.concat([rows] * len(values), ignore_index=True)
    filled = filled.assign(level=values.repeat(len(rows)))
    every = model.log_prob(filled).log_prob.reshape(len(values), len(rows))
    expected = np.logaddexp.reduce(every)
    how = {"estimator": "marginal"} if denoiser == "causal" else {}  # not of two models
    with pytest.warns(UserWarning, match=r"4 unreadable cells.*'level' 'N/C' \(4 times\)"):
        found = model.log_prob(rows.assign(level="N/C"), **how)
    if denoiser == "causal":  # which has not learned of an unknown indicator
        with pytest.warns(UserWarning, match="unreadable"):
            assert (model.log_prob(rows.assign(level="N/C")).stderr > 0).all()
    error = 4 * found.stderr + 1e-4
    assert (np.abs(found.log_prob - expected) < error).all()
    # and that is not the probability of a missing cell
    assert (np.abs(every[-1] - expected) > 0.1).all()


def test_an_unreadable_cell_is_an_alarm_and_no_evidence(detector):
    with pytest.warns(
        UserWarning, match=r"3 unreadable cells .*'level' 'N/C'; 'price' '#REF!'; 'day' '\?'"
    ):
        rows = detector.density_.rows(dirty(TABLE[:9], *WORDS))
    clean = TABLE[:9].astype({c: object for c in WORDS})
    clean.loc[0, [*WORDS]] = None
    nats = detector.explain(rows)
    assert nats.loc[0, [*WORDS]].isna().all()  # even where missingness has a probability
    others = detector.explain(clean)
    pd.testing.assert_frame_equal(nats[1:], others[1:])
    assert detector.score_samples(rows)[0] == -nats.loc[0].sum()
    assert detector.predict(rows)[0] == -1
    if detector.density_.missing == "marginalise":
        np.testing.assert_array_equal(detector.score_samples(rows), detector.score_samples(clean))
    np.testing.assert_array_equal(detector.predict(rows)[1:], detector.predict(clean)[1:])


def test_reasons_name_column_and_text(detector):
    with pytest.warns(UserWarning, match="unreadable"):
        found = detector.reasons(dirty(TABLE[:9], "price", "day", at=3), k=3)
    own = found[found["row"] == 3]
    assert own["rank"].tolist() == list(range(1, len(own) + 1))
    assert own["column"].tolist()[:2] == ["price", "day"]
    assert own["value"].tolist()[:2] == ["#REF!", "?"]
    assert own["sentence"].iloc[0] == "unreadable: price = '#REF!', expected numbers"
    clean = detector.reasons(TABLE[:9], k=3)
    pd.testing.assert_frame_equal(
        found[found["row"] != 3].reset_index(drop=True),
        clean[clean["row"] != 3].reset_index(drop=True),
        check_dtype=False,
    )


def test_watch_and_batches_name_it_too(detector, tmp_path):
    new = dirty(TABLE[:40], "price", at=7)
    new["price"] = new["price"].astype(str)  # as of a CSV
    with pytest.warns(UserWarning, match="1 unreadable cell"):
        found = DriftWatch(detector).update(new)
    assert found["unreadable"].dropna().to_dict() == {7: "price = '#REF!'"}
    detector.save(tmp_path / "model", card=False)
    with pytest.warns(UserWarning, match="1 unreadable cell"):
        batch = BatchScoring(tmp_path / "model", keep=[])(new)
    assert batch["unreadable"].dropna().to_dict() == {7: "price = '#REF!'"}
    assert batch.loc[7, "alarm"]
    assert batch.loc[7, "reason"].startswith("unreadable: price = '#REF!'")


def test_other_questions_take_it_for_unknown(detector):
    density, new = detector.density_, dirty(TABLE[:20], "price", at=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        filled = density.impute(new)
        assert filled["price"].astype(float).notna().all()
        assert filled["price"].tolist()[3:] == TABLE["price"].tolist()[3:20]
        detector.drift(new)
        assert detector.transform(new).shape == (20, 5)
        rows = density.rows(new)
        again = type(rows).concat([rows.take([2]), rows.take([0, 1])])
        assert again.is_unreadable.tolist() == [True, False, False]
        assert not rows.without("price").is_unreadable.any()
    with pytest.raises(ValueError, match="column 'price': expected numbers, got '#REF!'"):
        density.sample(given={"price": "#REF!"})
    with pytest.raises(ValueError, match="column 'price': contains infinity"):
        density.score_samples(TABLE[:3].assign(price=np.inf))
    assert np.isfinite(
        density.score_samples(TABLE[:3].assign(shop="#REF!"))
    ).all()  # a new category


def test_the_fit_says_once_what_it_left_out():
    new = dirty(dirty(TABLE, *WORDS, at=5), "price", at=6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = DiffusionOutlierDetector(denoiser="tree", **SETTINGS).fit(new)
    said = [str(w.message) for w in said]
    assert len(said) == 1
    assert said[0].startswith("4 unreadable cells taken as missing")
    assert "'price' '#REF!' (2 times)" in said[0]
    clean = DiffusionOutlierDetector(denoiser="tree", **SETTINGS).fit(TABLE)
    kinds = [column.kind for column in model.density_.encoder_.schema]
    assert kinds == [column.kind for column in clean.density_.encoder_.schema]


def test_words_for_missing_cells_are_remembered(tmp_path):
    marked = TABLE.astype({"price": object})
    marked.loc[marked.index[::9], "price"] = "k.A."
    model = DiffusionDensity(
        denoiser="tree", column_types={"price": {"na": "k.A."}}, random_state=0
    )
    model.fit(marked)
    assert model.encoder_.schema[2].kind == "continuous"
    model.save(tmp_path / "model", card=False)
    model = DiffusionDensity.load(tmp_path / "model")
    gap, word = TABLE[:9].assign(price=np.nan), TABLE[:9].assign(price="k.A.")
    np.testing.assert_array_equal(model.score_samples(word), model.score_samples(gap))
    assert model.impute(word)["price"].astype(float).notna().all()


def test_text_among_truth_values_does_not_stop_a_file():
    table = TABLE.assign(promo=np.arange(len(TABLE)) % 3 == 0)
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(table)
    new = table[:4].astype({"promo": object})
    new.loc[new.index[1], "promo"] = "#REF!"
    with pytest.warns(UserWarning, match=r"1 unreadable cell .*'promo' '#REF!'"):
        found = model.score_samples(new)
    new["promo"] = [True, None, "False", "true"]
    np.testing.assert_array_equal(found[:2], model.score_samples(new)[:2])
    with pytest.raises(ValueError, match="column 'promo': expected True or False, got 'yes'"):
        model.sample(given={"promo": "yes"})
