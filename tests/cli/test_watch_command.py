"""The watch of the command line: that of Python, over any number of calls; its exit codes and errors."""

import io
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from discrete_itd import DriftWatch
from discrete_itd.cli import main, tables
from discrete_itd.storage.files import locked
from tests.detection.test_watch import detector, table
from tests.examples import refused, run

pytestmark = pytest.mark.single_precision

WATCH = "watch d.safetensors"


def quiet():
    return table(300, 8)


def changed():
    return table(200, 9).assign(free="x", id=range(200))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    detector().save(folder / "d.safetensors", card=False)
    detector().density_.save(folder / "m.safetensors", card=False)
    quiet().to_csv(folder / "a.csv", index=False)
    changed().to_csv(folder / "b.csv", index=False)
    return folder


@pytest.fixture(autouse=True)
def place(files, tmp_path, monkeypatch):
    """A copy of the files, and we in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_calls_go_on_from_each_other(capsys, monkeypatch):
    watch = DriftWatch(detector(), level=0.05, random_state=0)
    wanted = watch.update(quiet()).reset_index(drop=True).assign(unreadable=float("nan"))
    out, err = run(f"{WATCH} a.csv --state w --level 0.05 --out a.out.csv", capsys)
    assert (out, err) == (f"a.csv: {watch}\n", "")
    assert "no alarm at level 0.05" in out
    pd.testing.assert_frame_equal(pd.read_csv("a.out.csv"), wanted)
    wanted = watch.update(changed().drop(columns="id")).reset_index(drop=True)
    wanted["unreadable"] = float("nan")
    monkeypatch.setattr(tables, "CHUNK_ROWS", 30)
    out, err = run(f"{WATCH} b.csv --state w --out b.out.csv", capsys, 1)
    assert out == f"b.csv: {watch}\n"
    assert "500 rows watched" in out
    assert f"first in row {watch.alarm_.row}: columns 'free'" in out
    assert err == "discrete-itd: note: b.csv: ignoring 1 of 4 columns: id\n"
    pd.testing.assert_frame_equal(pd.read_csv("b.out.csv"), wanted)
    run(f"{WATCH} a.csv --state w --level 0.05", capsys, 1)  # an alarm stays


def test_standard_input_and_output(capsys, monkeypatch):
    text = io.TextIOWrapper(io.BufferedReader(io.BytesIO(quiet().to_csv(index=False).encode())))
    monkeypatch.setattr(sys, "stdin", text)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert main(f"{WATCH} - --state w --out -".split()) == 0
    sys.stdout.seek(0)
    found = pd.read_csv(sys.stdout)
    assert found["row"].tolist() == list(range(1, 301))
    assert capsys.readouterr().err.startswith("the standard input: 300 rows watched; ")


def test_a_folder_is_watched_in_order(place, capsys):
    (place / "days").mkdir()
    for name in ("a.csv", "b.csv"):
        shutil.copy(name, place / "days" / name)
    run(f"{WATCH} days --state w", capsys, 1)
    for name, code in (("a.csv", 0), ("b.csv", 1)):
        run(f"{WATCH} {name} --state v", capsys, code)
    assert Path("w").read_bytes() == Path("v").read_bytes()


def test_what_is_wrong_is_one_line_and_no_file(place, capsys):
    quiet().drop(columns="twin").to_csv("bad.csv", index=False)
    shutil.copy("d.safetensors", "d2.safetensors")
    detector(1).save("e.safetensors", card=False)
    DriftWatch(detector()).save("old")
    for line, message in [
        ("watch d.safetensors a.csv", "--state"),
        ("watch m.safetensors a.csv --state w", "watch needs a detector"),
        ("watch d.safetensors bad.csv --state w", "bad.csv: column 'twin'"),
        ("watch d.safetensors a.csv --state a.csv", "a.csv: --state is also read"),
        ("watch d.safetensors a.csv --state w.csv --out w.csv", "written over the state"),
        ("watch d.safetensors a.csv --state no/w", "no/w: no such folder"),
        ("watch d.safetensors a.csv --state d2.safetensors", "holds a model, not the state"),
        ("watch d.safetensors a.csv --state old --level 0.02", "--level: old is at level 0.01"),
        ("watch e.safetensors a.csv --state old", "old: the watch is of another detector"),
        ("watch d.safetensors a.csv --state w --level 1", "must be between 0 and 1, got '1'"),
    ]:
        refused(line, message, place, capsys)


def test_two_calls_do_not_write_one_state(place, capsys):
    with locked("w"):
        refused(f"{WATCH} a.csv --state w", "w: another run is writing it", place, capsys)
        run(f"{WATCH} a.csv --state v", capsys)
    out, _ = run(f"{WATCH} a.csv --state w", capsys)
    assert "300 rows watched" in out
