"""Notes of copies of columns, and of categories that differ in case or spaces; text of cells as people read it."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.inference import copies
from discrete_itd.reading.text import SPACES, quoted
from tests.examples import run


def sales(n=400):
    """A table without copies: categories, repeated numbers, numbers that never repeat, and gaps."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "shop": random.choice(list("abcd"), n),
            "n": random.poisson(3.0, n),
            "kg": random.random(n),
        }
    )
    frame.loc[::7, "shop"] = None
    return frame.assign(g=random.random(n), same="x", rare=["y", *["z"] * (n - 1)])


@pytest.mark.parametrize("name", ["shop", "n", "kg"])
def test_property_recodings_are_copies_and_no_other_column_is(name):
    """Whatever the type and the order of columns; one row that differs, or another gap, makes them different."""
    frame = sales()
    assert copies(frame.items()) == []
    recoded = frame[name].rank(method="dense") if name == "n" else frame[name].astype("object")
    if name == "shop":
        recoded = pd.Series(
            "dbca".find(c) if isinstance(c, str) else None for c in frame["shop"]
        ).astype("Int64")
    with_copy = frame.assign(again=recoded)
    assert copies(with_copy[with_copy.columns[::-1]].items()) == [["again", name]]
    for changed in (recoded.iloc[1], None):
        other = recoded.copy()
        other.iloc[3] = changed
        if recoded.iloc[3] != changed:
            assert copies(frame.assign(again=other).items()) == []


def test_of_few_rows_columns_may_be_alike_by_chance():
    frame = pd.DataFrame({"a": list("xyxxyxyx"), "b": list("pqppqpqp")})
    assert copies(frame.items()) == []
    assert copies(pd.concat([frame] * 9).items()) == [["a", "b"]]


def test_the_fit_says_each_once(tmp_path, monkeypatch, capsys):
    frame = sales().assign(
        again=lambda t: t["kg"], code=lambda t: t["shop"].map(str.upper, "ignore")
    )
    town = np.where(np.arange(400) % 40 == 0, "PARIS", "Paris").astype(object)
    town[1:4] = "Paris\u202f", " Paris", "Lyon"
    frame["town"] = town
    with pytest.warns(UserWarning, match="copies|differ in case") as told:
        DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    copied, alike = sorted((str(w.message) for w in told), key=lambda m: "differ in case" in m)
    assert "'shop', 'code'; 'kg', 'again'; drop all but one" in copied
    assert "'town' 'Paris' = 'PARIS' = ' Paris' = 'Paris ' (12 rows of rarer ones)" in alike
    monkeypatch.chdir(tmp_path)
    frame.to_csv("t.csv", index=False)
    _, err = run("fit t.csv --out m --denoiser independent", capsys)
    assert err.count("copies of each other") == 1
    assert err.count("keep one and give --drop") == 1
    assert err.count("differ in case") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DiffusionDensity(denoiser="independent", random_state=0).fit(sales())
        frame = frame.drop(
            columns="town"
        )  # rows in which copies differ are what a detector looks for
        DiffusionOutlierDetector(denoiser="independent", false_alarm_rate=0.05, random_state=0).fit(
            frame
        )


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(SPACES)))
def test_property_text_is_quoted_as_it_is_printed(text):
    """Printable characters as they are, every space as a space, controls escaped; nothing else is changed."""
    shown = quoted(text)
    assert shown.isprintable()
    if all((c.isprintable() or c in SPACES) and c not in "'\\" for c in text):
        assert shown == f"'{text.translate(dict.fromkeys(map(ord, SPACES), ' '))}'"
    assert not set(shown) & set(SPACES[1:])
    assert quoted(3.5) == "3.5"


def test_errors_show_the_text_of_cells():
    frame = pd.DataFrame({"a": ["Évry", "Saint\u202fDenis"] * 20})
    encoder = TableEncoder.fit(frame, handle_unknown="error")
    with pytest.raises(ValueError, match="unseen category 'Aix en Ö'"):
        encoder.transform(pd.DataFrame({"a": ["Aix\u202fen\u00a0Ö"]}))
