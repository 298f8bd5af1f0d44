"""Raw files: numbers, dates and a few words as people export them, by two commands without an option."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector
from tests.examples import run

pytestmark = pytest.mark.single_precision
N = 200


def euro(number):
    return f"{number:,.2f}".replace(",", "\u202f").replace(".", ",") + " €"


def raw(seed, gap=""):
    """Orders: money with a decimal comma and narrow spaces, dates of three formats, and levels."""
    rng = np.random.default_rng(seed)
    ordered = pd.Timestamp("2028-01-01") + pd.to_timedelta(rng.integers(0, 400_000, N), "min")
    sent = ordered + pd.to_timedelta(rng.integers(60, 9000, N), "min")
    amount = rng.lognormal(6, 1, N)
    frame = pd.DataFrame(
        {
            "ville": rng.choice(["Lyon", "LYON", "Nîmes"], N),
            "montant": [euro(x) for x in amount],
            "quantité": 1 + rng.poisson(2, N),
            "commande": ordered.strftime("%d/%m/%Y %H:%M"),
            "envoi": sent.strftime("%m/%d/%Y %I:%M %p"),
            "livraison": (sent + pd.Timedelta("2D")).strftime("%d/%m/%y"),
        },
        dtype=object,
    )
    frame.loc[rng.random(N) < 0.1, "montant"] = gap
    return frame


def write(frame, path):
    frame.to_csv(path, sep=";", index=False, encoding="utf-8-sig")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_commands_and_no_option(capsys):
    history, new = raw(0), raw(1)
    for column, word in {"montant": "#REF!", "quantité": "?", "commande": "N/C"}.items():
        history.loc[3, column] = new.loc[7, column] = word
    new.loc[9, "ville"] = "#REF!"  # a new category
    write(history, "history.csv")
    write(new, "new.csv")
    said = run("fit history.csv --detector --denoiser forest --out model --seed 0", capsys)
    assert said.err.count("unreadable") == 1
    assert "3 unreadable cells taken as missing" in said.err
    kinds = {"montant": "continuous", "commande": "clock"}
    kinds |= dict.fromkeys(("envoi", "livraison"), "continuous, since commande")
    for column, kind in kinds.items():
        assert f"{column} {kind}" in " ".join(said.out.split())
    assert "clock: commande, whose week is given; counted from it: envoi, livraison" in said.out
    assert "\\u202f" not in said.out + said.err
    said = run("score model new.csv --out s.csv --reasons", capsys)
    assert "'montant' '#REF!'; 'quantité' '?'; 'commande' 'N/C'" in said.err
    assert "rows with an unreadable cell, an alarm that no rate counts: 1" in said.out
    scores = pd.read_csv("s.csv")
    assert scores["unreadable"].dropna().to_dict() == {
        7: "montant = '#REF!'; quantité = '?'; commande = 'N/C'"
    }
    assert scores.loc[7, "alarm"]
    assert scores.loc[7, "reason"].startswith("unreadable: montant = '#REF!', expected a number")
    assert scores.loc[7, "reason_1"] == "montant"
    assert scores["score"].notna().all()
    n_others = int(scores["alarm"].sum()) - 1
    assert f"{n_others} of {N - 1} other rows" in said.out
    run("watch model new.csv --state w --out w.csv", capsys, 0)
    watched = pd.read_csv("w.csv")
    assert watched["unreadable"].notna().sum() == 1


@pytest.mark.slow
def test_what_the_fit_was_told_holds_for_every_command(capsys):
    history, new = raw(0, "k.A."), raw(1, "k.A.")
    for frame in (history, new):
        frame["quantité"] = frame["quantité"].map(str).replace("1", "k.A.")
    write(history, "history.csv")
    write(new, "new.csv")
    write(new.replace("k.A.", ""), "gaps.csv")
    options = "--csv na=k.A. decimal=, --column commande=day-first --denoiser tree --seed 0"
    run(f"fit history.csv --detector --out model {options}", capsys)
    model = DiffusionOutlierDetector.load("model")
    quantity = model.density_.encoder_.schema[2]
    assert (quantity.notation.decimal, quantity.na) == (",", ("k.A.",))
    answers = {}
    for name in ("new", "gaps"):
        run(f"score model {name}.csv --out s.csv", capsys)
        run(f"watch model {name}.csv --state {name} --out w.csv", capsys)
        run(f"drift model {name}.csv --out d.csv", capsys)
        run(f"impute model {name}.csv --out i.csv", capsys)
        run(f"report model {name}.csv --out {name}.html", capsys)
        answers[name] = [pd.read_csv(f"{x}.csv", sep=None, engine="python") for x in "swdi"]
        assert "k.A." not in Path("i.csv").read_text(encoding="utf-8-sig")
    for own, other in zip(*answers.values(), strict=True):
        pd.testing.assert_frame_equal(own, other)
    rows = pd.read_csv("new.csv", sep=";", dtype=str, keep_default_na=False)
    found = model.score_samples(rows)
    np.testing.assert_allclose(found, answers["gaps"][0]["score"], rtol=1e-5)
