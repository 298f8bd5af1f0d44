"""What the text of a CSV is taken for, and how long its rows may be."""

import contextlib
import io
import os
import resource
import socket
import sys
from pathlib import Path

import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.cli import main
from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.reading.dialects import Dialect


@pytest.fixture
def read(tmp_path):
    """The one column that a CSV with these cells has, the last cell an ``x`` of another column."""

    def read(cells, kind=None):
        path = tmp_path / "t.csv"
        pd.DataFrame({"c": cells, "other": "x"}).to_csv(path, index=False)
        frame = as_written(str(path), Dialect())
        return typed_table(
            frame, "t.csv", {} if kind is None else {"c": {"kind": kind}}, Dialect()
        )["c"]

    return read


KNOWN = {
    "whole numbers": (["1", "", "3"], "Int64", 1),
    "decimal numbers": (["1.5", "", "3"], "float64", 1),
    "truth": (["TRUE", "", "false"], "boolean", 1),
    "dates": (["2024-02-29", "", "1999-01-01"], "datetime64[us]", 1),
    "times": (["2024-02-29 12:00", "1999-01-01T00:00:00.25"], "datetime64[us]", 0),
    "zoned": (["2024-02-29T12:00Z", "2024-02-29 12:00:00+01:00"], "datetime64[us, UTC]", 0),
    "words": (["NA", "None", ""], "str", 1),
    "no such date": (["2024-02-30", "2024-02-29"], "str", 0),
    "some zones": (["2024-02-29T12:00Z", "2024-02-29T12:00"], "str", 0),
    "other dates": (["29.2.2024", "1.3.2024"], "str", 0),
    "numbers and truth": (["1", "True"], "str", 0),
}


def test_recognised(read):
    for cells, dtype, n_missing in KNOWN.values():
        values = read(cells)
        major = int(pd.__version__.split(".")[0])
        if major >= 3:  # names of text and units of time differ before
            assert str(values.dtype) == dtype
        else:
            assert (
                values.dtype.kind == pd.Series([], dtype=dtype.replace("str", "object")).dtype.kind
            )
        assert values.isna().sum() == n_missing


WORDS = {
    "numbers": (["1", "NA", "n/a", "2"], [1, None, None, 2]),
    "large integers": (["9007199254740993", "null"], [9007199254740993, None]),
    "truth": (["True", "None", "FALSE"], [True, None, False]),
    "dates": (["2024-02-29", "NaT", ""], [pd.Timestamp("2024-02-29"), None, None]),
}


@pytest.mark.parametrize(("cells", "expected"), WORDS.values(), ids=WORDS)
def test_words_for_missing(read, cells, expected):
    with pytest.warns(
        UserWarning, match=r"^t.csv: column 'c': '.+' \(\d cells?\) taken as missing"
    ):
        values = read(cells)
    assert [None if pd.isna(v) else v for v in values] == expected


def test_said_to_be(read):
    dates = ["2024-02-29", "2024-01-01"]
    assert read(dates, "ordinal").tolist() == dates
    assert read(["01", "NA"], "nominal").tolist() == ["01", "NA"]
    assert read(dates, "continuous").dtype.kind == "M"


@pytest.mark.parametrize(
    "command", ["score m {0} --out o.csv", "fit {0} --out o", "watch m {0} --state s"]
)
@pytest.mark.parametrize("name", ["pipe.csv", "pipe.parquet", "socket.csv", "device.csv"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    command, name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": list("xy") * 400})
    DiffusionOutlierDetector(DiffusionDensity(denoiser="tree"), random_state=0).fit(frame).save(
        "m", card=False
    )
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket.csv")
        os.mkfifo("pipe.csv")
        os.mkfifo("pipe.parquet")
        os.symlink(os.devnull, "device.csv")
        assert main(command.format(name).split()) == 2
    assert f"error: {name}: not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_control_no_terminal_and_fit_every_encoding(encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(
        {"ν\x1b[2J": list("xy") * 40, "z": list("pq") * 40, "\u202elog": range(80)}
    )
    frame.to_csv("\x1b]0;owned.csv", index=False)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert (
        main(
            [
                "fit",
                "\x1b]0;owned.csv",
                "--out",
                "m\x1b",
                "--denoiser",
                "tree",
                "--drop",
                "\u202elog",
            ]
        )
        == 0
    )
    assert main(["score", "m\x1b", "\x1b]0;owned.csv", "--out", "o\x1b.csv"]) == 0
    assert main(["score", "m\x1b", "\x1b[.csv", "--out", "o.csv"]) == 2
    for stream in (out, err):
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        assert not {"\x1b", "\u202e"} & set(text)
        assert "\\x1b" in text


def test_a_full_disk_ends_a_fit_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"a": list("xyz") * 60, "n": [-1.5, 2.5] * 90}).to_csv("t.csv", index=False)
    line = ["fit", "t.csv", "--out", "m", "--denoiser", "tree"]
    assert main(line) == 0
    before = Path("m").read_bytes()
    capsys.readouterr()
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, most[1]))
    try:
        assert main(line) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert capsys.readouterr().err == "discrete-itd: error: m: File too large\n"
    assert Path("m").read_bytes() == before
    assert sorted(os.listdir()) == ["m", "m.md", "t.csv"]
