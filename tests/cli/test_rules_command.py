"""The command rules: what a table obeys, as a list or as code, and the new rows that do not."""

import sqlite3

import numpy as np
import pandas as pd
import pytest

from tests.examples import run

pytestmark = pytest.mark.single_precision


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    town = random.integers(0, 9, 300)
    frame = pd.DataFrame({"code": 100 + town, "town": [f"t{i}" for i in town]})
    frame["price"], frame["n"] = random.gamma(2, 50, 300).round(2), random.integers(1, 40, 300)
    frame["total"] = (frame["price"] * frame["n"]).round(2)
    frame.to_csv("t.csv", index=False)
    frame[:3].assign(total=[1, *frame["total"][1:3]]).to_csv("new.csv", index=False)
    return tmp_path


def test_rules_are_printed_and_new_rows_checked(place, capsys):
    run("rules t.csv --new new.csv --broken broken.csv", code=1)
    printed = capsys.readouterr().out
    assert "\n  total = price × n  (300 rows)\n" in printed
    assert "\n1 of 3 new rows break a rule; of right rows at most " in printed
    assert "\n  row 0: total = 1.00, but " in printed
    assert pd.read_csv(place / "broken.csv")["row"].tolist() == [0]
    run("rules t.csv --new t.csv")


@pytest.mark.usefixtures("place")
def test_rules_without_exceptions_are_asked_for_by_one(capsys):
    run("rules t.csv --min-holds 1")
    assert "total = price × n  (300 rows)" in capsys.readouterr().out


def test_rules_are_written_as_a_table_and_as_code(place, capsys):
    run("rules t.csv --out rules.csv")
    found = pd.read_csv("rules.csv")
    assert f"wrote rules.csv: {len(found)} rules of 300 rows" in capsys.readouterr().out
    assert "code, town" in found["columns"].tolist()
    for out in ("r.sql", "r.py", "r.yaml"):
        run(f"rules t.csv --out {out}")
        assert "price" in (place / out).read_text()
    base = sqlite3.connect(":memory:")
    base.execute((place / "r.sql").read_text())
    base.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--broken b.csv", "--broken needs --new"),
        ("--out t.csv", "would be written over the table"),
        ("--out t.txt", "t.txt"),
        ("--min-holds 2", "between 0 and 1"),
    ],
)
def test_options_that_make_no_sense(place, capsys, options, message):
    run(f"rules t.csv {options}", code=2)
    assert message in capsys.readouterr().err
    assert not (place / "t.txt").exists()
