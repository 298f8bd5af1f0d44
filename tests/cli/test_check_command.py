"""The command check: wrong cells, a repaired copy in the notation of the table, and a page."""

from functools import partial

import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector, find_outliers
from discrete_itd.cli import reporting
from tests.examples import run

pytestmark = pytest.mark.single_precision
TABLE = {
    "town": ["Bonn", "Köln", "Ulm"] * 80,
    "code": ["53.113", "50.667", "89.073"] * 80,
    "area": ["0228", "0221", "0731"] * 80,
    "client": [f"c{i // 6}" for i in range(240)],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(TABLE)
    frame.to_csv("clean.csv", index=False, sep=";")
    frame.loc[7, "town"] = "Ulm"
    frame.loc[9, "code"] = None
    frame.loc[13, "town"] = "<b>"
    frame.to_csv("t.csv", index=False, sep=";")
    frame[:0].to_csv("none.csv", index=False, sep=";")
    return tmp_path


@pytest.mark.usefixtures("place")
def test_repairs_give_the_clean_table(capsys):
    run("check t.csv --out errors.csv --repair repaired.csv --report page.html")
    assert "3 of 960 cells are probably wrong; 3 repaired, 0 left" in capsys.readouterr().out
    errors = pd.read_csv("errors.csv")
    assert set(zip(errors["row"], errors["column"], strict=True)) == {
        (8, "town"),
        (10, "code"),
        (14, "town"),
    }
    with open("clean.csv", "rb") as clean, open("repaired.csv", "rb") as repaired:
        assert repaired.read() == clean.read()
    with open("page.html", encoding="utf-8") as file:
        page = file.read()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "(missing)" in page


@pytest.mark.usefixtures("place")
def test_of_two_cells_that_contradict_each_other_none_is_repaired(capsys):
    frame = pd.DataFrame(TABLE)[["town", "code"]]
    frame.loc[7, "town"] = "Ulm"
    frame.assign(empty=None).rename(columns={"empty": ""}).to_csv("two.csv", index=False)
    run("check two.csv --out errors.csv --repair repaired.csv")
    assert pd.read_csv("errors.csv")["row"].tolist() == [8, 8]
    assert "0 repaired, 2 left" in capsys.readouterr().out
    with open("two.csv", "rb") as table, open("repaired.csv", "rb") as repaired:
        assert repaired.read() == table.read()


@pytest.mark.usefixtures("place")
def test_parquet_and_groups():
    pytest.importorskip("pyarrow")
    pd.read_csv("t.csv", sep=";", dtype=str).to_parquet("t.parquet", index=False)
    run("check t.parquet --out errors.csv --repair repaired.parquet --groups client")
    assert len(pd.read_csv("errors.csv")) == 3
    pd.testing.assert_frame_equal(
        pd.read_parquet("repaired.parquet").astype(object), pd.DataFrame(TABLE).astype(object)
    )


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("check t.csv --out t.csv", "t.csv: would be written over the table"),
        ("check t.csv --out e.csv --repair t.csv", "t.csv: would be written over the table"),
        ("check t.csv --out e.csv --repair e.csv", "written over the list of cells"),
        ("check t.csv --out e.csv --groups firm", "column 'firm'"),
        ("check no.csv --out e.csv", "no.csv"),
        ("check none.csv --out e.csv", "none.csv: the table is empty"),
        ("check t.csv --out e.csv --min-probability 2", "--min-probability"),
        ("check t.csv --out - --repair -", "only one of --out"),
        ("check t.csv --out e.csv --report - --rows -", "only one of --out"),
    ],
)
def test_refusals(command, error, capsys):
    run(command, code=2)
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(("option", "name"), [("--repair", "r.csv"), ("--report", "r.html")])
def test_any_of_the_outputs_may_be_the_standard_output(place, capfdbinary, option, name):
    run(f"check t.csv --out e.csv {option} {name}")
    capfdbinary.readouterr()
    run(f"check t.csv --out e.csv {option} -")
    output, remarks = capfdbinary.readouterr()
    assert output == (place / name).read_bytes()
    assert b"wrote e.csv" in remarks


@pytest.mark.usefixtures("place")
def test_rows_are_ranked_by_models_that_did_not_see_them(monkeypatch):
    detector = DiffusionOutlierDetector(denoiser="tree")
    monkeypatch.setattr(reporting, "find_outliers", partial(find_outliers, detector=detector))
    run("check t.csv --out errors.csv --rows odd.csv --groups client")
    odd = pd.read_csv("odd.csv", dtype={"value": str})
    assert odd["score"].is_monotonic_increasing
    assert odd["row"].nunique() == 20
    assert odd["row"].isin([8, 14])[:2].all()
    assert "client" not in set(odd["column"])
    run("check t.csv --out errors.csv --rows errors.csv", code=2)
