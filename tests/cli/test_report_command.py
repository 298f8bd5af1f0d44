"""The report of the command line: what it writes, says and returns."""

import re
import sys

import pandas as pd
import pytest

from discrete_itd.cli import tables
from discrete_itd.reporting import page as report_page
from discrete_itd.reporting.findings import examine
from discrete_itd.reporting.page import VERDICTS, judgement
from tests import reported
from tests.examples import refused, run


def frames():
    X = pd.concat([reported.table(40, 9), reported.odd()], ignore_index=True)
    return X.assign(id=range(44)), reported.table(100, 8)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with a density, a detector, a table and inliers."""
    monkeypatch.chdir(tmp_path)
    reported.density().save("m.safetensors")
    reported.detector().save("d.safetensors")
    for name, frame in zip(("t.csv", "o.csv"), frames(), strict=True):
        frame.to_csv(name, index=False)
    return tmp_path


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Pages without figures, which take most of the time."""
    monkeypatch.setattr(report_page, "_drawings", lambda _: {})


def page(path="r.html"):
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_a_report_of_a_density(capsys):
    out, err = run("report m.safetensors t.csv --out r.html", capsys)
    assert out == "wrote r.html: 44 rows\n"
    assert err == "discrete-itd: note: t.csv: ignoring 1 of 4 columns: id\n"
    text = page()
    assert "<h1>Report on t.csv</h1>" in text
    assert "No target was set" in text
    nats = -reported.density().score(frames()[0].drop(columns="id"))
    assert f"mean {nats:.2f} nats" in text


def test_rows_are_counted_as_pandas_does(capsys):
    run("report m.safetensors t.csv --out r.html", capsys)
    rows = re.findall(r'<th scope="row">(\d+)</th>', page().partition('id="anomalies"')[2])
    assert set(rows[:4]) == {"40", "41", "42", "43"}  # the last four


def test_columns_to_keep_are_shown(capsys):
    _, err = run("report d.safetensors t.csv --out r.html --keep id,free", capsys)
    assert err == ""  # a column that is kept is not ignored
    text = page()
    for row in re.findall(r'<th scope="row">(\d+)</th>', text.partition('id="anomalies"')[2])[:2]:
        assert f'<span>id <span class="value">{row}</span></span>' in text
    _, err = run("report d.safetensors t.csv --out r.html --keep nothing", capsys, 2)
    assert "column 'nothing': named in --keep, missing from the table" in err


def test_a_folder_is_reported_on_as_one_table(place, capsys, monkeypatch):
    (place / "in").mkdir()
    frame = frames()[0]
    for name, part in (("a.csv", frame[:20]), ("b.csv", frame[20:])):
        part.to_csv(place / "in" / name, index=False)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 9)
    for path in ("t.csv", "in"):
        run(f"report m.safetensors {path} --out r.html", capsys)
        text = page().replace("b.csv ", "")
        rows = re.findall(r'<th scope="row">(\d+)</th>', text.partition('id="anomalies"')[2])
        assert set(rows[:4]) == (
            {"40", "41", "42", "43"} if path == "t.csv" else {"20", "21", "22", "23"}
        )
        nats = -reported.density().score(frame.drop(columns="id"))
        assert f"mean {nats:.2f} nats" in text


@pytest.mark.parametrize("inliers", [False, True])
def test_a_report_of_a_detector_says_what_examine_finds(capsys, inliers):
    option = " --inliers o.csv" if inliers else ""
    targets = "--target-nats 3.9 --target-false-alarms 0.3"
    out, _ = run(f"report d.safetensors t.csv --out r.html {targets}{option}", capsys)
    X, held = frames()
    found = examine(
        reported.detector(),
        X.drop(columns="id"),
        inliers=held if inliers else None,
        target_nats=3.9,
        target_false_alarms=0.3,
    )
    assert out.splitlines() == [
        f"wrote r.html: 44 rows, {found.n_alarms} alarms",
        *(f"  {VERDICTS[v.passed].lower()}: {judgement(v, found)}" for v in found.verdicts),
        VERDICTS[found.passed].lower(),
    ]
    assert len(found.verdicts) == 2


@pytest.mark.parametrize(
    ("target", "last", "code"), [("99", "pass", 0), ("-99", "fail", 1), ("mean", "undecided", 1)]
)
def test_the_last_line_decides_and_check_returns_it(capsys, target, last, code):
    if target == "mean":
        target = str(-reported.density().score(frames()[1]))
    command = f"report m.safetensors o.csv --out r.html --target-nats={target}"
    assert run(command, capsys).out.splitlines()[-1] == last
    assert run(f"{command} --check", capsys, code).out.splitlines()[-1] == last
    assert f'class="{last}"' in page()


def test_what_is_wrong_is_one_line_and_no_file(place, capsys):
    frames()[0][["kind", "free"]].to_csv("bad.csv", index=False)
    for line, message in [
        ("m.safetensors t.csv --out t.csv", "t.csv: would be written over the table"),
        ("m.safetensors t.csv --out o.csv --inliers o.csv", "would be written over the table of inliers"),
        ("m.safetensors t.csv --out no/r.html", "no such folder"),
        ("t.csv t.csv --out r.html", "t.csv: "),
        ("m.safetensors gone.csv --out r.html", "gone.csv: "),
        ("m.safetensors t.csv --out r.html --check", "--check needs a target"),
        ("m.safetensors t.csv --out r.html --target-false-alarms 0.1", "--target-false-alarms needs a detector"),
        ("m.safetensors t.csv --out r.html --target-false-alarms 1", "must be between 0 and 1, got '1'"),
        ("m.safetensors t.csv --out r.html --target-nats inf", "must be a number, got 'inf'"),
        ("m.safetensors t.csv --out r.html --target-nats x", "must be a number, got 'x'"),
        ("m.safetensors bad.csv --out r.html", "bad.csv: column '<b>twin</b>'"),
    ]:  # fmt: skip
        refused(f"report {line}", message, place, capsys)


def test_without_matplotlib_it_says_what_to_install(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, err = run("report m.safetensors t.csv --out r.html", capsys, 2)
    assert 'pip install "discrete-itd[plot]"' in err
    assert not (place / "r.html").exists()
