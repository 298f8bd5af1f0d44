"""Streams: any chunks give what one gives, and a folder that was begun is finished."""

import csv
import io
import os
import random
import shutil
import signal
import sys
import time
import zipfile

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.cli import inputs, main, tables
from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import reading, write_table
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.progress import progress_bar, stream_progress
from discrete_itd.reading.dialects import Dialect
from discrete_itd.storage.files import locked
from tests.examples import Terminal, run

pytestmark = pytest.mark.single_precision

N = 24


def cells(n, seed, odd=False):
    """A table of text with every kind of column; ``odd``, with gaps, words, unseen values and other spellings."""
    rng = np.random.default_rng(seed)
    day = rng.integers(0, 60, n)
    age, code = rng.integers(18, 400, n), rng.integers(1, 5, n)
    frame = pd.DataFrame(
        {
            "note": [f"{i:03}" for i in range(n)],
            "day": (pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D")).strftime("%Y-%m-%d"),
            "at": (pd.Timestamp("2024-01-01") + pd.to_timedelta(day * 7919, unit="s")).strftime("%Y-%m-%d %H:%M:%S"),
            "price": (rng.normal(size=n) + day / 30).round(3).astype(str),
            "age": age.astype(str),
            "code": code.astype(str),
            "half": (code / 2).astype(str),
            "city": rng.choice(["Rome", "NA", "1"], n),
            "ok": np.where(day > 30, "True", "False"),
        }
    )  # fmt: skip
    if not odd:
        return frame
    words = {
        "day": ["", "NaT", "2024-02-01T10:00:00+02:00", "1999-12-31", "9999-12-31"],
        "at": [
            "",
            "null",
            "2024-01-01",
            "2024-01-01T10:00:00.25Z",
            "2024-01-01T10:00:00.123456789",
        ],
        "price": ["", "NA", "3", "1e2", " 2.50", "-0.0"],
        "age": ["", "n/a", "2.5", "17", "9007199254740993", "31.0"],
        "code": ["", "none", "9", "two", "2.0", "2.5", "True"],
        "half": ["", "nan", "3", "1", "x"],
        "city": ["", "none", "Oslo", "nan", "1.0", 'é,\n"'],
        "ok": ["", "NA", "true", "FALSE"],
    }
    for name, others in words.items():
        where = rng.random(n) < 0.4
        frame.loc[where, name] = rng.choice(others, where.sum())
    frame.iloc[n // 2, 1:] = ""
    return frame


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a detector, and tables."""
    folder = tmp_path_factory.mktemp("streams")
    cells(300, 0).to_csv(folder / "train.csv", index=False)
    frame = as_written(str(folder / "train.csv"), Dialect())
    frame = typed_table(frame, "train", {"city": {"kind": "nominal"}}, Dialect())
    density = DiffusionDensity(
        denoiser="tree",
        column_types={"half": "ordinal"},
        random_state=0,
    )
    detector = DiffusionOutlierDetector(density, false_alarm_rate=0.2, random_state=0)
    detector.fit(frame.drop(columns="note")).save(folder / "d")
    cells(N, 1, odd=True).to_csv(folder / "odd.csv", index=False)
    return folder


@pytest.fixture
def place(files, tmp_path, monkeypatch):
    """A folder, and we in it; ``d`` is a detector and ``odd.csv`` a table."""
    monkeypatch.chdir(tmp_path)
    for name in ("d", "odd.csv"):
        os.symlink(files / name, name)
    return tmp_path


# -- any chunks -------------------------------------------------------------------------------------

slow = pytest.mark.slow
CHUNKS = {
    "score d odd.csv --explain": (13,),
    "impute d odd.csv": (5,),
    "impute d odd.csv --method sample --seed 3": (7,),
}
CASES = [(command, n) for command, sizes in CHUNKS.items() for n in sizes]
REASONS, EXPLAIN = "score d odd.csv --reasons 2", "score d odd.csv --explain"
SLOW = [(command, 1) for command in (*CHUNKS, REASONS, EXPLAIN)]


@pytest.mark.parametrize(
    ("command", "n"), [*CASES, *(pytest.param(*case, marks=slow) for case in SLOW)]
)
def test_chunks_of_any_size_give_the_same_bytes(place, capsys, monkeypatch, command, n):
    run(f"{command} --out whole.csv")
    _, notes = capsys.readouterr()
    monkeypatch.setattr(tables, "CHUNK_ROWS", n)
    run(f"{command} --out parts.csv")
    assert (place / "parts.csv").read_bytes() == (place / "whole.csv").read_bytes()
    assert capsys.readouterr().err == notes


@pytest.mark.usefixtures("place")
def test_chunks_of_parquet_give_the_same_tables(capsys, monkeypatch):
    pytest.importorskip("pyarrow")
    typed = cells(N, 1, odd=True)
    typed["age"] = pd.to_numeric(typed["age"], errors="coerce").round().astype("Int64")
    typed["ok"] = typed["ok"].map({"True": True, "False": False}).astype("boolean")
    typed["day"] = pd.to_datetime(cells(N, 1)["day"]).dt.date
    typed["at"] = pd.to_datetime(cells(N, 1)["at"]).where(typed["at"] != "")
    typed["city"] = typed["city"].astype("category")
    typed["price"] = pd.to_numeric(typed["price"], errors="coerce").astype("float32")
    typed = typed.replace({"code": {"two": "2", "True": "1"}, "half": {"x": "1"}})
    for name in ("code", "half", "note"):
        typed[name] = typed[name].replace("", None)
    typed.to_parquet("odd.parquet", row_group_size=10)
    for command, kinds in {"score d": ["parquet"], "impute d": ["parquet", "csv"]}.items():
        for kind in kinds:
            read = pd.read_parquet if kind == "parquet" else pd.read_csv
            run(f"{command} odd.parquet --out whole.{kind}")
            with monkeypatch.context() as patch:
                patch.setattr(tables, "CHUNK_ROWS", 13)
                run(f"{command} odd.parquet --out parts.{kind}")
            pd.testing.assert_frame_equal(read(f"parts.{kind}"), read(f"whole.{kind}"))
    full = pd.read_parquet("whole.parquet")
    assert list(full.columns) == list(typed.columns)
    assert full.drop(columns="note").notna().all(axis=None)
    narrow = typed.assign(age=typed["age"].clip(upper=100).astype("Int8"))
    narrow.to_parquet("narrow.parquet")  # too narrow for what its gaps are filled with
    run("impute d narrow.parquet --out wider.parquet")
    wider = pd.read_parquet("wider.parquet")["age"]
    assert (wider[narrow["age"].notna()] == narrow["age"].dropna()).all()
    assert wider.max() > 127
    kept = typed["age"].notna()
    assert (full["age"][kept] == typed["age"][kept]).all()
    assert {n: str(t) for n, t in full.dtypes.items() if n in ("age", "price", "city", "ok")} == {
        "age": "Int64", "price": "float32", "city": "category", "ok": "boolean",
    }  # fmt: skip
    capsys.readouterr()


@pytest.mark.usefixtures("place")
def test_text_stays_text_in_parquet(capsys, monkeypatch):
    pytest.importorskip("pyarrow")
    cells(N, 1).mask(np.random.default_rng(0).random((N, 9)) < 0.2).to_csv("gaps.csv", index=False)
    run("impute d gaps.csv --out full.csv")
    monkeypatch.setattr(tables, "CHUNK_ROWS", 8)
    run("impute d gaps.csv --out full.parquet")
    full = pd.read_parquet("full.parquet")
    text = pd.read_csv("full.csv", dtype=str, keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(full, text)
    capsys.readouterr()


BAD = {
    "infinite": ("impute", N, "price", "inf", "contains infinity"),
    "infinite score": ("score", 19, "price", "inf", "contains infinity"),
}  # fmt: skip


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("command", "n", "column", "cell", "words"), BAD.values(), ids=BAD)
def test_the_first_bad_cell_is_named_and_nothing_is_written(
    capsys, monkeypatch, command, n, column, cell, words
):
    frame = cells(N, 1, odd=True)
    frame.loc[[19, 21], column] = cell
    frame.loc[21, "price"] = "worse"
    frame.to_csv("bad.csv", index=False)
    monkeypatch.setattr(tables, "CHUNK_ROWS", n)
    run(f"{command} d bad.csv --out o.csv", code=2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"discrete-itd: error: bad.csv: column '{column}': {words}"
    assert sorted(os.listdir()) == ["bad.csv", "d", "odd.csv"]


@pytest.mark.usefixtures("place")
def test_what_was_never_seen_is_told_once(capsys, monkeypatch):
    cells(12, 1).assign(code="7").to_csv("new.csv", index=False)
    for n in (4, 12):
        monkeypatch.setattr(tables, "CHUNK_ROWS", n)
        run("score d new.csv --out s.csv")
        notes = capsys.readouterr().err
        assert "discrete-itd: note: new.csv: ignoring 1 of 9 columns: note\n" in notes
        assert notes.count("column 'code': no value was seen in training") == (n > 4)


# -- kinds of files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.CSV.zip"])
def test_a_table_is_read_as_it_was_written(tmp_path, name):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": ["x", None, 'é\n,\t"\r'] * 5, "b": list(map(str, range(15)))})
    path = str(tmp_path / name)
    write_table(path, [frame[:4], frame[4:9], frame[9:]])
    with reading(path, Dialect()) as source:
        chunks = list(source.chunks(n_rows=7))
    assert [(c.index[0], len(c)) for c in chunks] == [(0, 7), (7, 7), (14, 1)]
    read = pd.concat(chunks)
    assert read.index.tolist() == list(range(15))
    pd.testing.assert_frame_equal(read.reset_index(drop=True).astype("str"), frame)


UNREADABLE = [
    (b"", "the table is empty"),
    (b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells, but 2 in the header"),
    (b'a,b\n1,2\n1,"x\n1,2\n', "line 3: a quotation mark opens a cell that does not end"),
    (bytes(range(256)) * 3, "cannot be read as .csv ('utf-8' codec"),
    (b"a,b\n1,\x81\n", "cannot be read as .csv ('utf-8' codec"),
]


@pytest.mark.parametrize(("content", "words"), UNREADABLE)
def test_what_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error, reading(str(path), Dialect()) as source:
        list(source.chunks())
    assert words in str(error.value)


def test_a_zip_holds_one_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, "a\n1\n")
    with pytest.raises(UserError, match=r"2 files in the \.zip, not one"):
        reading(str(tmp_path / "t.csv.zip"), Dialect()).__enter__()


def test_one_run_at_a_time_writes_in_a_folder(folder, capsys):
    (folder / "out").mkdir()
    with locked(folder / "out" / inputs.MADE_BY):
        run("score d in --out out", code=2)
        assert "out: another run writes in this folder" in capsys.readouterr().err
        assert not contents(folder / "out")
    run("score d in --out out")
    capsys.readouterr()


def test_rows_that_end_early_have_gaps(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,c\n1\n\n2,3\n4,5,6\n")
    with reading(str(tmp_path / "t.csv"), Dialect()) as source:
        (chunk,) = source.chunks()
    assert chunk.fillna("-").to_numpy().tolist() == [["1", "-", "-"], ["2", "3", "-"], list("456")]


# -- standard input and output ----------------------------------------------------------------------


class Piped(io.TextIOWrapper):
    """A standard input with some content."""

    def __init__(self, content):
        super().__init__(io.BufferedReader(io.BytesIO(content)))


def test_through_pipes(place, capfdbinary, monkeypatch):
    run("score d odd.csv --out s.csv")
    said, _ = capfdbinary.readouterr()
    content = (place / "odd.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", Piped(content))
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    run("score d - --out -")
    out, err = capfdbinary.readouterr()
    assert out == (place / "s.csv").read_bytes()
    assert err.endswith(said.replace(b"s.csv", b"-"))


WAYS = {
    "score": "score d {} --out {}",
    "watch": "watch d {} --out {} --state state",
    "drift": "drift d {} --out {}",
    "report": "report d {} --out {}",
}


@pytest.mark.parametrize(
    "command", [pytest.param(w, marks=slow) if w == "report" else w for w in WAYS]
)
def test_property_a_pipe_and_a_folder_are_read_like_a_file(place, monkeypatch, capsys, command):
    """A CSV by name, by the standard input, and its halves in a folder: one answer."""
    if command == "report":
        pytest.importorskip("matplotlib")
    frame = cells(80, 1)
    frame.to_csv("t.csv", index=False)
    (place / "half").mkdir()
    for i in range(2):
        frame[40 * i :][:40].to_csv(f"half/{i}.csv", index=False)
    found = []
    for table in ("t.csv", "-", "half"):
        monkeypatch.setattr(sys, "stdin", Piped((place / "t.csv").read_bytes()))
        out = "out" if (command, table) == ("score", "half") else "out.csv"
        out = "out.html" if command == "report" else out
        assert main(WAYS[command].format(table, out).split()) in (0, 1)
        said = capsys.readouterr().out.splitlines()
        if command == "report":
            found.append([line for line in said if "wrote" in line])
            assert (
                f"Report on {'the standard input' if table == '-' else table}"
                in (place / out).read_text()
            )
        elif out == "out":
            found.append(pd.concat(map(pd.read_csv, ("out/0.csv", "out/1.csv")), ignore_index=True))
            found[-1]["row"] = range(80)  # in each file from 0
        else:
            found.append(pd.read_csv(out))
        (place / "state").unlink(missing_ok=True)
    same = pd.testing.assert_frame_equal if command != "report" else np.testing.assert_equal
    same(found[1], found[0])
    same(found[2], found[0])


@pytest.mark.usefixtures("place")
def test_a_closed_input_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    run("score d - --out s.csv", code=2)
    assert capsys.readouterr().err == "discrete-itd: error: -: the standard input is closed\n"
    monkeypatch.setattr(sys, "stdin", Piped(b""))
    run("score d - --out s.csv", code=2)
    assert capsys.readouterr().err == "discrete-itd: error: -: the table is empty\n"
    assert not os.path.exists("s.csv")


def test_one_bar_tells_of_rows_per_second(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with stream_progress("score") as bar:
        assert not bar.disable
        assert progress_bar(9, "explain").disable
        bar.total = 100
        bar.update(50)
        assert "50.0/100 [" in str(bar)
        assert " rows/s]" in str(bar)
    with progress_bar(9, "explain") as alone:
        assert not alone.disable


def forked(line, stdout=os.devnull):
    """A process of its own that runs a command; its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = stdout if isinstance(stdout, int) else os.open(stdout, os.O_WRONLY)
        os.dup2(output, 1)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w")  # noqa: SIM115
        code = main(line.split())
        sys.stderr.flush()
        os._exit(code)
    finally:
        os._exit(99)


def ended(pid):
    """The exit code of a process, or minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_reader_that_has_gone_ends_the_command_quietly(place, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 3)
    ours, theirs = os.pipe()
    os.close(ours)
    assert ended(forked("score d odd.csv --out -", theirs)) == 141
    os.close(theirs)
    assert "note" in (place / "stderr").read_text()  # of the column that is ignored
    assert (place / "stderr").read_text().count("\n") == 1


# -- folders ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(place):
    """A folder ``in`` with tables of several kinds."""
    pytest.importorskip("pyarrow")
    (place / "in" / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.csv", "b.tsv.gz", "sub/c.csv")):
        sep = "\t" if "tsv" in name else ","
        cells(12, i, odd=True).to_csv(place / "in" / name, index=False, sep=sep)
    frame = pd.read_csv(place / "in/a.csv", dtype=str, keep_default_na=False, na_values=[""])
    frame.to_parquet(place / "in/p.parquet", row_group_size=5)
    (place / "in" / "README.txt").write_text("not a table")
    (place / "in" / "_SUCCESS").write_text("")
    return place


def contents(path):
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and inputs.MADE_BY not in p.name
    }


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_in_names_of_folders_is_said_to_be_left_out(tmp_path, kind, recwarn):
    rows = pd.DataFrame({"a": [1, 2], "day": [5, 5]})
    (tmp_path / "year=2024" / "day=5").mkdir(parents=True)
    write_table(str(tmp_path / "year=2024" / "day=5" / f"t.{kind}"), [rows])
    assert list(as_written(str(tmp_path), Dialect())) == ["a", "day"]
    (said,) = (str(w.message) for w in recwarn)  # of the file's own column nothing
    assert "'year' stands in names of folders" in said


def test_a_folder_gives_a_folder(folder, capsys):
    run("score d in --out out")
    out, err = capsys.readouterr()
    assert "note: in: ignoring 1 files that are no tables, like README.txt" in err
    assert "out: 4 files\nwrote out: 48 rows, " in out
    assert list(contents(folder / "out")) == ["a.csv", "b.tsv.gz", "p.parquet", "sub/c.csv"]
    run("score d in/a.csv --out a.csv")
    assert (folder / "a.csv").read_bytes() == (folder / "out/a.csv").read_bytes()
    whole = pd.read_csv("a.csv")
    pd.testing.assert_frame_equal(pd.read_parquet("out/p.parquet"), whole, check_dtype=False)


def test_a_carriage_return_stays_within_its_cell(place):
    frame = cells(3, 1).assign(city=["a\rb", "c\r\nd", "e"])
    with open("returns.csv", "w", newline="") as file:
        frame.to_csv(file, index=False, quoting=csv.QUOTE_ALL)
    run("impute d returns.csv --out same.csv")
    for name in ("returns.csv", "same.csv"):
        with reading(str(place / name), Dialect()) as source:
            (chunk,) = source.chunks()
            assert chunk["city"].tolist() == ["a\rb", "c\r\nd", "e"]


def test_a_table_that_has_become_empty_leaves_no_scores(folder, capsys):
    run("score d in --out out")
    table = folder / "in/a.csv"
    table.write_text("")
    run("score d in --out out")
    assert "a.csv: the table is empty: left out" in capsys.readouterr().err
    assert list(contents(folder / "out")) == ["b.tsv.gz", "p.parquet", "sub/c.csv"]


def test_what_is_complete_is_not_made_again(folder, capsys):
    def made(line="score d in --out out"):
        before = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*") if p.is_file()}
        run(line)
        capsys.readouterr()
        after = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*") if p.is_file()}
        names = (str(p.relative_to(folder / "out")) for p, t in after.items() if before.get(p) != t)
        return sorted(n for n in names if n != inputs.MADE_BY)

    assert len(made()) == 4
    assert made() == []
    run("score d in --out out")
    assert capsys.readouterr().out == "out: 4 files, 4 of them complete before\n"
    expected = contents(folder / "out")
    (folder / "out/sub/c.csv").unlink()
    assert made() == ["sub/c.csv"]
    cells(12, 9, odd=True).to_csv("in/a.csv", index=False)  # another table
    assert made() == ["a.csv"]
    shutil.copy2("in/p.parquet", "old.parquet")
    os.utime("old.parquet", (0, 0))
    os.replace("old.parquet", "in/p.parquet")  # another table that is older
    assert made() == ["p.parquet"]
    # other options, another model, other tables of these names, or a key that was spoilt
    shutil.copytree("in", "other")
    DiffusionOutlierDetector.load("d").density_.save("e")
    for what in ("e in", "e other"):
        line = f"score {what} --out out --explain"
        assert len(made(line)) == 4
        assert made(line) == []
    key = folder / "out" / inputs.MADE_BY
    for text in ("\0", key.read_text()[:-9]):
        key.write_text(text)
        assert len(made(line)) == 4
    assert contents(folder / "out").keys() == expected.keys()


@slow
def test_draws_of_a_folder_are_the_same_again(folder, capsys):
    shutil.copy("in/sub/c.csv", "in/sub/b.csv")
    run("impute d in/sub --out out --method sample --seed 1")
    first = contents(folder / "out")
    assert first["b.csv"] != first["c.csv"]
    (folder / "out/c.csv").unlink()
    run("impute d in/sub --out out --method sample --seed 1")
    assert contents(folder / "out") == first
    capsys.readouterr()


@pytest.mark.usefixtures("folder")
def test_folders_that_are_refused(capsys):
    for line, words in {
        "score d in --out in/out": "--out and the folder of tables must lie apart",
        "score d in --out in": "--out and the folder of tables must lie apart",
        "score d in --out odd.csv": "--out must be a folder, as the table is one",
        "score d - --out out/": "--out is a folder, but the table is -",
        "score d in/sub/../README.txt --out out/": "unsupported ending",
    }.items():
        run(line, code=2)
        out, err = capsys.readouterr()
        assert words in err, line
        assert out == ""
    assert sorted(os.listdir()) == ["d", "in", "odd.csv"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_kill_at_any_moment_loses_nothing(folder, capsys):
    line = "impute d in --out out"
    start = time.monotonic()
    run(line.replace("--out out", "--out expected"))
    seconds = time.monotonic() - start
    expected, moments, before = contents(folder / "expected"), random.Random(0), {}

    def is_left(name):  # by a kill; removed a day later
        return os.path.basename(name).startswith(".")

    for sent in (signal.SIGKILL, signal.SIGINT):
        pid = forked(line)
        time.sleep(moments.uniform(0, seconds))
        os.kill(pid, sent)
        assert ended(pid) in (0, -signal.SIGKILL, 130)
        found = contents(folder / "out") if (folder / "out").exists() else {}
        assert {n: c for n, c in found.items() if not is_left(n)}.items() <= expected.items()
        assert sent == signal.SIGKILL or not [n for n in found if is_left(n) and n not in before]
        before = found
    run(line)
    found = contents(folder / "out")
    assert {n: c for n, c in found.items() if not is_left(n)} == expected
    capsys.readouterr()
