"""The command check: wrong cells, a repaired copy in the notation of the table, and a page."""

from functools import partial

import numpy as np
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
        (7, "town"),
        (9, "code"),
        (13, "town"),
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
    assert pd.read_csv("errors.csv")["row"].tolist() == [7, 7]
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
        ("check t.csv --out e.csv --report - --repair -", "only one of --out"),
        ("check t.csv --repair r.csv --review r.csv", "written over the repaired copy"),
        ("check t.csv --out r.review.csv --repair r.csv", "written over the list of cells"),
        ("check t.csv --review r.csv", "--review needs --repair"),
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
def test_property_what_was_not_repaired_is_in_the_review_and_no_other_cell_changes():
    """And a second repair of the repaired copy changes none of its cells."""
    random, frame = np.random.default_rng(0), pd.DataFrame(TABLE)
    for column in ("town", "code", "area"):
        rows = random.choice(len(frame), 4, replace=False)
        frame.loc[rows[:3], column] = random.permutation(frame[column])[:3]
        frame.loc[rows[3:], column] += "?"
    frame.to_csv("two.csv", index=False)
    run("check two.csv --out errors.csv --repair two.new.csv --min-probability 0.1")
    run("check two.new.csv --repair again.csv")
    before, after, again = (
        pd.read_csv(f"{name}.csv", dtype=str) for name in ("two", "two.new", "again")
    )
    cells, review = pd.read_csv("errors.csv"), pd.read_csv("two.new.review.csv")
    pd.testing.assert_frame_equal(
        cells[~cells["repaired"]].drop(columns="repaired").reset_index(drop=True), review
    )
    changed = set(zip(*np.nonzero((before != after).to_numpy()), strict=True))
    repaired = cells[cells["repaired"]]
    places = zip(repaired["row"], before.columns.get_indexer(repaired["column"]), strict=True)
    assert set(places) == changed
    assert changed
    assert len(review)
    for i, j in changed:
        assert again.iat[i, j] == after.iat[i, j]


@pytest.mark.usefixtures("place")
def test_cells_and_odd_rows_are_one_list(monkeypatch, capsys):
    detector = DiffusionOutlierDetector(denoiser="tree")
    monkeypatch.setattr(reporting, "find_outliers", partial(find_outliers, detector=detector))
    run("check t.csv --out errors.csv --groups client --repair repaired.csv", capsys)
    alone = pd.read_csv("errors.csv", dtype={"value": str})
    out, _ = run("check t.csv --out lines.csv --rows --groups client --repair repaired.csv", capsys)
    lines = pd.read_csv("lines.csv", dtype={"value": str})
    assert lines["found_by"].isin(["errors", "outliers", "both"]).all()
    assert not lines.duplicated(["row", "column"]).any()
    assert lines.loc[lines["score"].notna(), "row"].nunique() == 20
    is_error = lines["found_by"] != "outliers"
    pd.testing.assert_frame_equal(
        lines.loc[is_error, [*alone]].sort_values(["row", "column"], ignore_index=True),
        alone.sort_values(["row", "column"], ignore_index=True),
    )
    assert lines["probability_wrong"].fillna(-1).is_monotonic_decreasing
    assert not lines.loc[~is_error, "repaired"].any()
    assert "client" not in set(lines["column"][~is_error])
    assert len(out.splitlines()) == 12
    written = pd.read_csv("t.csv", sep=";", dtype=str)
    for line in lines[~is_error & lines["value"].notna()].itertuples():
        assert line.value == written.loc[line.row, line.column]
    assert f"row {lines['row'][0]}: {lines['sentence'][0]}" in out.splitlines()[1]


def test_a_row_that_is_odd_as_a_whole_has_a_line_if_none_of_its_cells_is_named():
    columns = ["row", "column", "value", "expected", "expected_probability", "probability_wrong"]
    cells = pd.DataFrame([[3, "a", 1, 2, 0.9, 0.95], [5, "b", 1, None, 0.0, 0.6]], columns=columns)
    odd = pd.DataFrame(
        [[3, None, None, None, np.nan, np.nan], [3, "b", 4, 5, 0.8, 0.7], [5, "b", 1, 2, 0.5, 0.9],
         [6, None, None, None, np.nan, np.nan], [7, None, None, None, np.nan, np.nan]],
        columns=columns,
    ).assign(score=[-9.0, -9.0, -8.0, -6.0, -7.0], sentence="it is")  # fmt: skip
    lines = reporting.joined(cells.assign(sentence="it is"), odd)
    assert [*zip(lines["row"], lines["found_by"], lines["probability_wrong"].fillna(0), strict=True)] == [
        (3, "errors", 0.95), (3, "outliers", 0.7), (5, "both", 0.6), (7, "outliers", 0), (6, "outliers", 0)
    ]  # fmt: skip
    assert lines["score"].tolist() == [-9, -9, -8, -7, -6]


@pytest.mark.usefixtures("place")
def test_some_columns_alone_are_checked(capsys):
    run("check t.csv --out errors.csv --columns code,town --repair repaired.csv")
    assert set(pd.read_csv("errors.csv")["column"]) == {"code", "town"}
    run("check t.csv --out errors.csv --columns code")
    assert set(pd.read_csv("errors.csv")["column"]) == {"code"}
    capsys.readouterr()
    run("check t.csv --out errors.csv --columns size", code=2)
    assert "'size'" in capsys.readouterr().err
