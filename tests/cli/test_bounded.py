"""Rows of a CSV are bounded, however it is packed or written: memory is too. The bound is one of blocks."""

import codecs
import random

import pandas as pd
import pytest

from discrete_itd.cli import tables
from discrete_itd.cli.messages import UserError
from discrete_itd.cli.tables import Dialect, reading, write_table

LIMIT, BLOCK = 60, 8


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tables, "FEW_ROWS", 1)
    monkeypatch.setattr(tables, "LONGEST", LIMIT)
    monkeypatch.setattr(tables, "BLOCK", BLOCK)
    monkeypatch.setattr(tables, "HEAD_BYTES", 4)


def rows_of(text):
    """Lengths of the rows, by the rules of CSV one character after the other, and whether the last one is open."""
    lengths, quoted, start, blank, characters = [0], False, True, True, iter(range(len(text)))
    for i in characters:
        c = text[i]
        lengths[-1] += 1
        blank &= c == "\n"
        if quoted and text[i : i + 2] == '""':
            lengths[-1] += 1
            next(characters)
        elif quoted:
            quoted = c != '"'
        else:
            quoted, start = c == '"' and start, c == "\n"
            if c == "\n" and not blank:  # an empty line is read with the row after it
                lengths.append(0)
                blank = True
    return lengths, quoted


def read(path, dialect=Dialect()):  # noqa: B008
    with reading(str(path), dialect) as source:
        return pd.concat(source.chunks())


def test_a_row_is_too_long_if_its_cells_are(tmp_path):
    """Random marks, so that quotes are stray, doubled and open."""
    moments, found, path = random.Random(0), {True: 0, False: 0}, tmp_path / "t.csv"
    for _ in range(400):
        weights = [moments.random() ** 3 for _ in range(3)]
        text = "a\n" + "".join(moments.choices('a"\n', weights, k=moments.randrange(300)))
        path.write_bytes(text.encode())
        lengths, is_open = rows_of(text)
        if LIMIT - 2 * BLOCK < max(lengths) <= LIMIT + 2 * BLOCK:
            continue
        found[max(lengths) > LIMIT] += 1
        if max(lengths) > LIMIT:
            with pytest.raises(UserError, match=r"t.csv: row \d+: more than 60 char"):
                read(path)
        elif is_open:
            with pytest.raises(UserError, match=r"t.csv: line \d+: a quotation mark opens a cell"):
                read(path)
        else:
            read(path)
    assert min(found.values()) > 50


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_a_cell_without_an_end(tmp_path, ending, encoding):
    path = str(tmp_path / f"t{ending}")
    dialect = Dialect(",", encoding)
    for cell in ("x" * 500, "\n" * 500, '"' * 250):
        frame = pd.DataFrame({"a": ["1", "ü", cell], "b": "2"})
        write_table(path, [frame], dialect)
        with pytest.raises(UserError, match=rf"^{path}: row 3: more than 60 characters"):
            read(path, dialect)
        write_table(path, [frame.head(2)], dialect)
        assert read(path, dialect)["a"].tolist() == ["1", "ü"]


def test_a_header_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_COLUMNS", 9)
    path = tmp_path / "t.csv"
    path.write_bytes(codecs.BOM_UTF8 + b"a,b,c,d,e,f,g,h,i\n" + b"1,2,3,4,5,6,7,8,9\n" * 9)
    assert read(path).shape == (9, 9)
    path.write_text("a,b,c,d,e,f,g,h,i,j\n" + "1,2,3,4,5,6,7,8,9,0\n")
    with pytest.raises(UserError, match="line 1: more than 9 columns"):
        read(path)
