"""The command line: what it writes, what it says, and how it refuses."""

import builtins
import gzip
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, __version__, cli
from discrete_itd.cli import main


def table(n=40):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "colour": random.choice(["red", "blue", "NA", "None"], n),
            "size": random.integers(0, 4, n),
            "zip": random.choice(["01234", "98765"], n),
            "fresh": random.random(n) < 0.5,
        }
    )
    frame["id"] = range(n)
    return frame


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small networks."""

    class Quick(DiffusionDensity):
        def __init__(self, *, width=8, depth=1, n_calls=8, columns=None, unseen="smooth", max_steps=6000, max_time=None, validation_fraction=0.1, path="auto", tol=None, device="auto", random_state=None):  # fmt: skip # noqa: E501
            super().__init__(
                width=width, depth=depth, n_calls=n_calls, columns=columns, unseen=unseen,
                max_steps=max_steps, max_time=max_time, validation_fraction=validation_fraction,
                path=path, tol=tol, device=device, random_state=random_state,
            )  # fmt: skip

    Quick.__name__ = "DiffusionDensity"
    monkeypatch.setattr(cli, "DiffusionDensity", Quick)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    frame = table().drop(columns="id")
    DiffusionDensity(width=8, depth=1, max_steps=5, n_calls=8, random_state=0).fit(frame).save(path)
    return path.read_bytes()


@pytest.fixture
def place(tmp_path, monkeypatch, saved):
    """A folder with a table and a model, and we in it."""
    monkeypatch.chdir(tmp_path)
    table().to_csv("t.csv", index=False)
    (tmp_path / "m.safetensors").write_bytes(saved)
    return tmp_path


def run(line, code=0):
    assert main(line.split()) == code


FIT = "fit t.csv --out new.safetensors --max-steps 2 --seed 0 --drop id"


# -- fit ------------------------------------------------------------------------------------------


def test_fit(place, capsys):
    run(f"{FIT} --column zip=nominal size=nominal")
    out, err = capsys.readouterr()
    assert err == ""
    assert "t.csv: 40 rows, 4 columns" in out
    assert "path: " in out
    assert "independent columns" in out
    assert out.splitlines()[-1].startswith("wrote new.safetensors in ")
    model = DiffusionDensity.load(place / "new.safetensors")
    colour, size, zip_code, fresh = model.encoder_.schema
    assert colour.categories == ("NA", "None", "blue", "red")  # words, not missing cells
    assert (size.kind, size.categories) == ("nominal", ("0", "1", "2", "3"))
    assert zip_code.categories == ("01234", "98765")  # with its zero
    assert fresh.categories == (False, True)
    assert model.random_state == 0


def test_numbers_are_ordinal(place):
    run(FIT)
    kinds = {
        c.name: c.kind for c in DiffusionDensity.load(place / "new.safetensors").encoder_.schema
    }
    assert kinds == {"colour": "nominal", "size": "ordinal", "zip": "ordinal", "fresh": "nominal"}


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv", "t.TSV.bz2", "t.parquet"])
def test_kinds_of_tables(place, name):
    frame = table()
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
        frame.set_axis(range(100, 140), axis=0).to_parquet(name)
    else:
        frame.to_csv(name, index=False, sep="\t" if "tsv" in name.lower() else ",")
    run(f"fit {name} --out new.safetensors --max-steps 1 --max-time 5 --seed 0 --drop id zip")
    model = DiffusionDensity.load(place / "new.safetensors")
    assert model.encoder_.names == ["colour", "size", "fresh"]
    run(f"score new.safetensors {name} --out s.csv --explain")
    assert len(pd.read_csv("s.csv").dropna()) == 40


@pytest.mark.usefixtures("place")
def test_a_note_on_a_column_that_is_an_identifier(capsys):
    pd.DataFrame({"f": np.arange(30) / 7, "a": ["x", "y"] * 15}).to_csv("t.csv", index=False)
    run("fit t.csv --out new.safetensors --max-steps 1")
    err = capsys.readouterr().err
    assert err.startswith("discrete-itd: note: column 'f': 30 distinct numbers")
    assert err.count("\n") == 1


# -- score and sample -----------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
def test_score(capsys):
    frame = table()
    frame[["size", "id", "fresh", "zip", "colour"]].to_csv("turned.csv", index=False)
    run("score m.safetensors turned.csv --out s.csv")
    out, err = capsys.readouterr()
    assert err == "discrete-itd: note: turned.csv: ignoring 1 of 5 columns: id\n"
    assert out.startswith("wrote s.csv: 40 rows, -")
    scores = pd.read_csv("s.csv")
    assert list(scores.columns) == ["log_prob", "stderr"]
    model = DiffusionDensity.load("m.safetensors")
    estimate = model.log_prob(frame.drop(columns="id"))
    np.testing.assert_allclose(scores["log_prob"], estimate.log_prob, rtol=1e-5)
    np.testing.assert_allclose(scores["stderr"], estimate.stderr, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("place")
def test_explain_with_a_tolerance():
    pytest.importorskip("pyarrow")
    run("score m.safetensors t.csv --out s.parquet --explain --tol 0.001")
    scores = pd.read_parquet("s.parquet")
    parts = ["nats_colour", "nats_size", "nats_zip", "nats_fresh"]
    assert list(scores.columns) == ["log_prob", "stderr", *parts]
    np.testing.assert_allclose(scores[parts].sum(axis=1), -scores["log_prob"], rtol=1e-5)


@pytest.mark.usefixtures("place")
def test_cells_are_read_as_they_were_fitted():
    """A word among numbers, or numbers alone in a column of words, do not change the other cells."""
    table().to_csv("t.csv", index=False)
    run("score m.safetensors t.csv --out s.csv")
    whole = pd.read_csv("s.csv")["log_prob"]
    odd = table().astype({"size": object})
    odd.loc[3, "size"] = "large"
    odd.to_csv("odd.csv", index=False)
    run("score m.safetensors odd.csv --out s.csv")
    scores = pd.read_csv("s.csv")["log_prob"]
    assert scores[3] < whole[3] - 1
    np.testing.assert_allclose(scores.drop(3), whole.drop(3), rtol=1e-5)
    same_zip = table()[table()["zip"] == "01234"]
    same_zip.to_csv("zip.csv", index=False)
    run("score m.safetensors zip.csv --out s.csv")
    np.testing.assert_allclose(pd.read_csv("s.csv")["log_prob"], whole[same_zip.index], rtol=1e-5)


@pytest.mark.usefixtures("place")
def test_a_model_of_an_array():
    codes = np.random.default_rng(0).integers(0, 3, (20, 2))
    DiffusionDensity(width=4, depth=1, max_steps=1, n_calls=4).fit(codes).save("a.safetensors")
    pd.DataFrame(codes).to_csv("codes.csv", index=False)
    run("score a.safetensors codes.csv --out s.csv --explain")
    assert list(pd.read_csv("s.csv").columns) == ["log_prob", "stderr", "nats_0", "nats_1"]
    run("sample a.safetensors -n 2 --out rows.csv")
    assert list(pd.read_csv("rows.csv").columns) == ["0", "1"]


@pytest.mark.usefixtures("place")
def test_sample(capsys):
    run("sample m.safetensors -n 5 --seed 1")
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "colour,size,zip,fresh"
    assert len(lines) == 6
    run("sample m.safetensors -n 5 --seed 1 --out rows.csv.gz")
    assert capsys.readouterr().out == ""
    with gzip.open("rows.csv.gz", "rt") as file:
        assert file.read().splitlines() == lines
    run("score m.safetensors rows.csv.gz --out s.tsv")
    assert len(pd.read_csv("s.tsv", sep="\t")) == 5


def test_files_are_replaced(place):
    (place / "s.csv").write_text("old")
    (place / "new.safetensors").write_text("old")
    run("score m.safetensors t.csv --out s.csv")
    run(FIT)
    assert len(pd.read_csv("s.csv")) == 40
    DiffusionDensity.load("new.safetensors")
    assert not [name for name in os.listdir() if name.startswith(".")]


# -- demo, help, process --------------------------------------------------------------------------


def test_demo(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    load = cli.load_mushroom

    def some(**kwargs):
        X, y = load(**kwargs)
        return X[::40], y[::40]

    monkeypatch.setattr(cli, "load_mushroom", some)
    run("demo --max-time 0.2")
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("independent columns", "model", "AUROC", "five strangest rows", "fit ", "next: "):
        assert words in out
    assert out.count("nats: ") == 5
    assert os.listdir() == []


@pytest.mark.parametrize("command", ["", "fit", "score", "sample", "demo"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"discrete-itd {command or 'demo'}" in out
    assert max(map(len, out.splitlines())) <= 120
    if command == "fit":
        assert "--column zip=nominal" in out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"discrete-itd {__version__}\n"


def test_interruption(place, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.DiffusionDensity, "fit", interrupt)
    run(FIT, code=130)
    assert capsys.readouterr() == ("", "discrete-itd: interrupted\n")
    assert not (place / "new.safetensors").exists()


@pytest.mark.usefixtures("place")
def test_process():
    def process(*args):
        command = [sys.executable, "-m", "discrete_itd.cli", *args]
        root = os.path.dirname(os.path.dirname(cli.__file__))
        env = {**os.environ, "PYTHONPATH": root}
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    good = process("sample", "m.safetensors", "-n", "3")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.count("\n") == 4
    bad = process("score", "m.safetensors", "none.csv", "--out", "s.csv")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "discrete-itd: error: none.csv: No such file or directory\n"


# -- refusals -------------------------------------------------------------------------------------

SCORE = "score m.safetensors"
REFUSED = {
    "no command": ("", "required: COMMAND"),
    "no such command": ("learn t.csv", "invalid choice: 'learn'"),
    "no out": ("fit t.csv", "required: --out"),
    "no such option": (f"{FIT} --fast", "unrecognized arguments: --fast"),
    "missing table": ("fit none.csv --out o", "none.csv: No such file"),
    "folder as table": ("fit folder.csv --out o", "folder.csv: "),
    "unsupported ending": ("fit t.xlsx --out o", "t.xlsx: unsupported ending"),
    "no ending": ("fit t --out o", "t: unsupported ending"),
    "packed parquet": ("fit t.parquet.gz --out o", "unsupported ending"),
    "empty file": ("fit empty.csv --out o", "empty.csv: the table is empty"),
    "no rows": ("fit norows.csv --out o", "norows.csv: the table is empty"),
    "one row": ("fit onerow.csv --out o", "at least two rows"),
    "bytes": ("fit bytes.csv --out o", "bytes.csv: cannot be read as .csv"),
    "damaged gzip": ("fit damaged.csv.gz --out o", "damaged.csv.gz: "),
    "cut gzip": ("fit cut.csv.gz --out o", "cut.csv.gz: cannot be read"),
    "damaged parquet": ("fit damaged.parquet --out o", "damaged.parquet: cannot be read"),
    "long row": ("fit longrow.csv --out o", "longrow.csv: cannot be read"),
    "long rows": ("fit longrows.csv --out o", "longrows.csv: rows have more cells than the header"),
    "short row": ("fit shortrow.csv --out o", "shortrow.csv: column 'b': contains NaN"),
    "missing cells": ("fit gaps.csv --out o", "gaps.csv: column 'a': contains NaN"),
    "missing number": ("fit gaps.csv --drop a --out o", "gaps.csv: column 'n': contains NaN"),
    "column unknown": (f"{FIT} --column hue=nominal", "column 'hue': named in --column"),
    "column twice": (f"{FIT} --column id=nominal", "column 'id': named in both --column and"),
    "drop unknown": (f"{FIT} hue", "column 'hue': named in --drop"),
    "drop all": (f"{FIT} colour size zip fresh", "t.csv: no column is left"),
    "bad kind": (f"{FIT} --column zip=text", "column 'zip': kind must be nominal or ordinal"),
    "no kind": (f"{FIT} --column zip", "expected NAME=KIND, got 'zip'"),
    "bad time": (f"{FIT} --max-time -1", "--max-time: must be a positive number"),
    "bad time word": (f"{FIT} --max-time soon", "--max-time: must be a positive number"),
    "bad steps": (f"{FIT} --max-steps 2.5", "--max-steps: must be a whole number"),
    "bad seed": (f"{FIT} --seed 99999999999", "--seed: must be a whole number"),
    "bad unseen": (f"{FIT} --unseen drop", "--unseen: invalid choice: 'drop'"),
    "bad device": (f"{FIT} --device nonsense", "device must be 'auto' or a device of this machine"),
    "out in no folder": ("fit t.csv --out none/o", "none/o: cannot be written (no folder none)"),
    "out is a folder": ("fit t.csv --out folder.csv", "folder.csv: cannot be written"),
    "out is a device": (f"fit t.csv --out {os.devnull}", "not a regular file"),
    "out is the table": ("fit t.csv --out ./t.csv", "--out is the table itself"),
    "missing model": ("score none t.csv --out o.csv", "none: No such file"),
    "model is a table": ("score t.csv t.csv --out o.csv", "t.csv: not a model file"),
    "damaged model": ("score damaged t.csv --out o.csv", "damaged: "),
    "score ending": (f"{SCORE} t.csv --out o.txt", "o.txt: unsupported ending"),
    "score no folder": (f"{SCORE} t.csv --out none/o.csv", "cannot be written"),
    "score over model": ("score m.csv t.csv --out m.csv", "m.csv: --out is m.csv itself"),
    "score lacks": (f"{SCORE} lacks.csv --out o.csv", "lacks.csv: column 'size' (and 1 more): "),
    "score gaps": (f"{SCORE} gap.csv --out o.csv", "gap.csv: column 'colour': contains NaN"),
    "score closed": (f"{SCORE} closed.csv --out o.csv", "column 'fresh': unseen category 'maybe'"),
    "score no rows": (f"{SCORE} norows.csv --out o.csv", "norows.csv: the table is empty"),
    "bad tol": (f"{SCORE} t.csv --out o.csv --tol 0", "--tol: must be a positive number"),
    "sample none": ("sample m.safetensors -n 0", "-n: must be at least 1"),
    "sample word": ("sample m.safetensors -n many", "-n: must be a whole number"),
    "sample missing": ("sample none -n 1", "none: No such file"),
    "sample ending": ("sample m.safetensors -n 1 --out rows", "rows: unsupported ending"),
    "sample over model": ("sample m.csv -n 1 --out m.csv", "m.csv: --out is the model itself"),
}  # fmt: skip


@pytest.fixture
def odd_files(place, saved):
    frame = table().drop(columns="id")
    packed = gzip.compress(b"a,b\n" + b"x,1\n" * 9999)
    contents = {
        "empty.csv": b"",
        "norows.csv": b"a,b\n",
        "onerow.csv": b"a,b\nx,1\n",
        "bytes.csv": b"a,b\n\xff\xfe,1\n\xc3\x28,2\n",
        "damaged.csv.gz": b"a,b\nx,1\n",
        "cut.csv.gz": packed[: len(packed) // 2],
        "damaged.parquet": b"PAR1",
        "longrow.csv": b"a,b\nx,1\ny,2,3\n",
        "longrows.csv": b"a,b\nx,1,3\ny,2,3\n",
        "shortrow.csv": b"a,b\nx,1\ny\n",
        "gaps.csv": b"a,n\nx,1\n,\ny,2\n",
        "lacks.csv": frame[["colour", "zip"]].to_csv(index=False).encode(),
        "gap.csv": frame.assign(colour=["", *frame["colour"][1:]]).to_csv(index=False).encode(),
        "closed.csv": frame.assign(fresh=["maybe", *frame["fresh"][1:]])
        .to_csv(index=False)
        .encode(),
        "damaged": saved[:-1],
        "m.csv": saved,
    }
    for name, content in contents.items():
        (place / name).write_bytes(content)
    (place / "folder.csv").mkdir()
    return place


def snapshot(folder):
    return {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("line", "words"), REFUSED.values(), ids=REFUSED)
def test_refusals(odd_files, capsys, line, words):
    if "parquet" in line and "gz" not in line:
        pytest.importorskip("pyarrow")
    before = snapshot(odd_files)
    run(line, code=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("discrete-itd: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert snapshot(odd_files) == before


def test_a_failing_write_leaves_the_old_file(place, monkeypatch, capsys):
    (place / "s.csv").write_text("old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    before = snapshot(place)
    run("score m.safetensors t.csv --out s.csv", code=2)
    error = "discrete-itd: error: s.csv: cannot be written (No space left on device)\n"
    assert capsys.readouterr().err.splitlines(keepends=True)[-1] == error
    assert snapshot(place) == before


def test_parquet_without_pyarrow(place, monkeypatch, capsys):
    (place / "t.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(("pyarrow", "fastparquet")):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    run("fit t.parquet --out o", code=2)
    err = capsys.readouterr().err
    assert err.startswith("discrete-itd: error: t.parquet: cannot be read as .parquet (")
    assert err.count("\n") == 1


def test_a_header_that_repeats_a_name(place, capsys):
    (place / "twice.csv").write_text("a,a\nx,y\ny,x\n")
    run("fit twice.csv --out new.safetensors --max-steps 1", 2)
    assert "twice.csv: column 'a': the name repeats" in capsys.readouterr().err
    assert not (place / "new.safetensors").exists()
