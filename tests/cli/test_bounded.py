"""Rows of a CSV are bounded, however it is packed or written: memory is too."""

import codecs
import io
import random

import pandas as pd
import pytest

from discrete_itd.cli import bounded
from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.streams import Table, reading, write_stream
from discrete_itd.cli.tables import UserError, read_table

LIMIT, BLOCK = 60, 8


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bounded, "LONGEST_ROW", LIMIT)
    monkeypatch.setattr(bounded, "BLOCK", BLOCK)


def rows_of(text):
    """Lengths of the rows, by the rules of CSV one character after the other."""
    lengths, quoted, start, characters = [0], False, True, iter(range(len(text)))
    for i in characters:
        c = text[i]
        lengths[-1] += 1
        if quoted and text[i : i + 2] == '""':
            lengths[-1] += 1
            next(characters)
        elif quoted:
            quoted = c != '"'
        else:
            quoted, start = c == '"' and start, c in ",\n\r"
            if c in "\n\r":
                lengths.append(0)
    return lengths


def through(text, sep=","):
    stream = io.BytesIO(text.encode())
    with bounded.opened("t", Dialect(sep, "utf-8"), stream) as (file, _):
        return file.read().decode()


def test_a_row_is_too_long_if_its_cells_are():
    """Random marks, so that quotes are stray, doubled, open, and cut by blocks."""
    moments, told = random.Random(0), {True: 0, False: 0}
    for _ in range(1200):
        weights = [moments.random() ** 3 for _ in range(5)]
        text = "".join(moments.choices('a",\n\r', weights, k=moments.randrange(300)))
        longest = max(rows_of(text))
        if LIMIT < longest <= LIMIT + 2 * BLOCK:  # the bound is one of blocks
            continue
        told[longest > LIMIT] += 1
        if longest > LIMIT:
            with pytest.raises(UserError, match=r"^t: line \d+: a row of more than 60 bytes"):
                assert through(text) == 0, (text, longest)
        else:
            assert through(text) == text
    assert min(told.values()) > 100


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_a_cell_without_an_end(tmp_path, ending, encoding):
    path = str(tmp_path / f"t{ending}")
    for cell in ("x" * 500, "\n" * 500, '""' * 250):
        frame = pd.DataFrame({"a": ["1", "ü", cell], "b": "2"})
        dialect = Dialect(",", encoding)
        write_stream(Table(path, ".csv", dialect=dialect), [frame])
        with pytest.raises(UserError, match=rf"^{path}: line 4: a row of more than 60 bytes"):
            read_table(path, dialect=dialect)
        with (
            pytest.raises(UserError, match=rf"^{path}: line 4: "),
            reading(Table(path, ".csv", dialect=dialect)) as source,
        ):
            list(source.take(2, None))
        write_stream(Table(path, ".csv", dialect=dialect), [frame.head(2)])
        assert read_table(path, dialect=dialect)["a"].tolist() == ["1", "ü"]


def test_a_header_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_COLUMNS", 9)
    path = tmp_path / "t.csv"
    path.write_bytes(codecs.BOM_UTF8 + b"a,b,c,d,e,f,g,h,i\n" + b"1,2,3,4,5,6,7,8,9\n" * 9)
    assert read_table(str(path)).shape == (9, 9)
    path.write_text("a,b,c,d,e,f,g,h,i,j\n" + "1,2,3,4,5,6,7,8,9,0\n")
    with pytest.raises(UserError, match="line 1: more than 9 columns"):
        read_table(str(path))
