"""Files as programs of other countries and systems write them, and files without rows."""

import gzip
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.cli.tables import reading, write_table
from discrete_itd.reading.dialects import Dialect, found_encoding
from tests.examples import run

N = 300


def table():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"città": random.choice(["Forlì", "Åbo", "Köln, Süd"], N)})
    frame["price"] = random.lognormal(size=N).round(2)
    frame["size"] = random.choice([0.5, 1.5, 2.0], N)
    return frame


TABLE = table()
OTHER = {"sep": ";", "decimal": ",", "na_rep": "?"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("t.csv", index=False)
    TABLE.mask(TABLE.index.to_series() % 7 == 0).to_csv("gaps.csv", index=False)
    return tmp_path


def fit(table, options="", out="m"):
    run(f"fit {table} --out {out} --denoiser tree --seed 0 {options}")
    return DiffusionDensity.load(out)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a density and a detector of the table."""
    folder = tmp_path_factory.mktemp("fitted")
    TABLE.to_csv(folder / "t.csv", index=False)
    fit(folder / "t.csv", out=folder / "m")
    command = f"fit {folder / 't.csv'} --denoiser tree --seed 0 --out {folder / 'd'}"
    run(f"{command} --detector --false-alarm-rate 0.1")
    return folder


@pytest.fixture
def models(place, fitted):
    for name in "md":
        shutil.copy(fitted / name, name)
    return place


def error(capsys, line):
    run(line, code=2)
    return capsys.readouterr().err


def scores(model, rows=TABLE):
    return model.score_samples(rows)


def test_a_file_of_another_country_is_the_same_table(place, capsys):
    plain = fit("t.csv")
    TABLE.to_csv("de.csv", index=False, encoding="cp1252", **OTHER)
    options = "--csv sep=; decimal=, encoding=cp1252 na=?"
    other = fit("de.csv", options)
    for a, b in zip(other.encoder_.schema, plain.encoder_.schema, strict=True):
        assert a.na == ("?",)
        as_plain = replace(a, notation=None, text_dtype=None, na=())
        assert as_plain == replace(b, text_dtype=None)
    np.testing.assert_array_equal(scores(other), scores(plain))
    assert "give --csv decimal=." in error(capsys, "score m t.csv --out s.csv")
    run("score m t.csv --out s.csv --csv decimal=.")
    run(f"score m de.csv --out de_s.csv {options}")
    assert (place / "de_s.csv").read_bytes() == (place / "s.csv").read_bytes()
    run("score m de.csv --out again.csv --csv encoding=cp1252")  # the model knows the marks
    assert (place / "again.csv").read_bytes() == (place / "s.csv").read_bytes()
    run(f"report m de.csv --out r.html {options}")
    assert "300" in (place / "r.html").read_text()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_marks_and_byte_orders_are_found(capsys, encoding, mark, packed):
    plain = fit("t.csv")
    TABLE.to_csv(f"x.csv{packed}", index=False, sep=mark, encoding=encoding)
    found = fit(f"x.csv{packed}")
    assert f"x.csv{packed}: read with {mark!r} between cells" in capsys.readouterr().err
    np.testing.assert_array_equal(scores(found), scores(plain))


WORDS = {
    "cp1252": "temp °C|“x” – 5 €|m³/h|Þór Guðmundsson býr á Íslandi|"
    "Größe Müller|Élève à Orléans|mañana número 3º|Forlì è città|São Paulo ação|Ångström på smörgås",
    "cp1250": "Zażółć gęślą jaźń|žluťoučký kůň úpěl ódy|árvíztűrő tükörfúrógép|Constanţa, Timişoara",
    "cp1254": "İstanbul Şırnak ağaç|Şahin Yıldız|İzmir|DİYARBAKIR, IĞDIR|ışık",
    "cp1255": "שם תל אביב",
    "cp1256": "اسم القاهرة",
    "cp1251": "Москва, Samsung чёрный №5|Київ їжак",
    "cp1253": "Αθήνα είναι",
    "cp949": "서울 기온,℃ 2㎍/㎥",
    "gb18030": "北京市 订单|姓名，性别，年龄",
    "cp932": "東京都 カタカナ|氏名,部署",
}


@pytest.mark.filterwarnings("ignore:.*no UTF-8")
@pytest.mark.parametrize("encoding", WORDS)
def test_the_encoding_is_that_whose_letters_are_of_a_language(encoding):
    for text in WORDS[encoding].split("|"):
        assert found_encoding("t.csv", text.encode(encoding)) == encoding
        assert found_encoding("t.csv", text.encode()) == "utf-8"


@pytest.mark.parametrize(("encoding", "damage"), [("utf-8", b"\xff"), ("cp437", b"")])
def test_no_other_encoding_is_made_of_damaged_or_unknown_text(place, capsys, encoding, damage):
    cells = ["a,b", *["Größe,3", "été,4", "naïve,5"] * 20]
    (place / "x.csv").write_bytes("\n".join(cells).encode(encoding) + damage)
    assert "x.csv: cannot be read as .csv" in error(capsys, "fit x.csv --out m")


VALUES = {
    "gaps": "a,b,c\nunknown,unknown,x\n" + "1,2,x\n3,4,y\n" * 9,
    "few cells": "a,,,,\n" + "x,y,z,1,2\nx,y,z,3,4\n" * 9,
    "marks in text": "text\n" + "".join(f"a; {k}; c\n" for k in "hijklmnop"),
}


@pytest.mark.parametrize("text", VALUES.values(), ids=VALUES)
def test_rows_whose_cells_recur_are_no_headers(place, text):
    (place / "x.csv").write_text(text)
    with reading("x.csv", Dialect()) as source:
        n_rows = sum(map(len, source.chunks()))
    assert (source.names[0], n_rows) == (
        text[: text.index("\n")].split(",")[0],
        text.count("\n") - 1,
    )


def test_a_first_row_that_is_like_others_is_no_header(place):
    (place / "x.csv").write_text("x,3\n" + "y,4\nx,5\ny,3\n" * 9)
    said = pytest.warns(UserWarning, match="the first row, taken as the header, is like others")
    with said, reading("x.csv", Dialect()):
        pass


HEADS = {
    "a title": "Report of 2024\n\n",
    "a title with marks": "Account;12;;\n;;;\n",
    "a line for Excel": "sep=;\n",
    "nothing": "",
}
BELOW = {"nothing": "", "questions": "Which city?;How much?;How large?\n", "units": ";EUR;m²\n"}


@pytest.mark.filterwarnings("ignore:.*(header left out|between cells)")
@pytest.mark.parametrize("end", ["", ";"])
@pytest.mark.parametrize("below", BELOW.values(), ids=BELOW)
@pytest.mark.parametrize("above", HEADS.values(), ids=HEADS)
def test_properties_lines_around_the_header_are_no_rows_and_are_copied(place, above, below, end):
    header, *rows = TABLE.to_csv(index=False, sep=";").splitlines()
    text = above + header + "\n" + below + "".join(f"{row}{end}\n" for row in rows)
    (place / "x.csv").write_text(text)
    with reading("x.csv", Dialect()) as source:
        found = pd.concat(source.chunks())
    assert found.iloc[:, :3].reset_index(drop=True).equals(TABLE.astype("str").astype(object))
    assert found.iloc[:, 3:].isna().all(axis=None)
    write_table("y.csv", [found], source.dialect)
    assert (place / "y.csv").read_text() == text


@pytest.mark.usefixtures("place")
def test_a_column_alone_may_hold_any_mark(capsys):
    """A mark that divides the header, and not the rows, is part of a name."""
    pd.DataFrame({"a;b": TABLE["città"].str[:2]}).to_csv("one.csv", index=False)
    assert fit("one.csv").encoder_.names == ["a;b"]
    assert "between cells" not in capsys.readouterr().err


def test_names_that_repeat_are_numbered_and_written_as_they_were(place, capsys):
    header = "size,size.1,size,,size\n"
    (place / "twice.csv").write_text(header + "a,b,3.5,4,a\nb,a,1.5,4,b\n" * 20 + "b,,1.5,4,b\n")
    names = ["size", "size.1", "size.2", "Unnamed: 3", "size.3"]
    assert fit("twice.csv").encoder_.names == names
    said = capsys.readouterr().err
    assert "column 'size': the name repeats; column 3 is called 'size.2'" in said
    run("impute m twice.csv --out full.csv")
    assert (place / "full.csv").read_text() == (place / "twice.csv").read_text().replace(
        "b,,", "b,a,"
    )


@pytest.mark.filterwarnings("ignore:t.csv")
def test_rows_that_repeat_the_header_are_left_out_of_a_fit(place, capsys):
    plain, head, *rows = fit("t.csv"), *(place / "t.csv").read_text().splitlines(keepends=True)
    (place / "again.csv").write_text(
        head + "".join([*rows[:9], head, *rows[9:20], head, *rows[20:]])
    )
    np.testing.assert_array_equal(scores(fit("again.csv")), scores(plain))
    assert "again.csv: 2 rows repeat the header, and are left out" in capsys.readouterr().err
    (place / "twice.csv").write_text("a,a\nx,y\ny,x\n" * 20)
    fit("twice.csv")
    assert "twice.csv: 19 rows repeat the header" in capsys.readouterr().err
    cells = pd.array([None, 1] * 20, dtype="Int64")
    pd.DataFrame({"a": cells, "b": cells}).to_parquet("gaps.parquet")
    assert fit("gaps.parquet").encoder_.schema[0].n_missing == 20


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("other", "is_thousands"), [("1,5", True), ("1.5", False)])
def test_points_are_of_thousands_beside_decimal_commas(capsys, other, is_thousands):
    cells = [f"{i % 40 + 1}.{i:03}" for i in range(N)]
    frame = pd.DataFrame({"cells": cells, "other": other, "b": ["x", "y", "y"] * 100})
    frame.to_csv("points.csv", index=False, sep=";")
    column = fit("points.csv").encoder_.schema[0]
    assert column.codec.whole == is_thousands
    said = "read as decimal-comma, as other columns are" in capsys.readouterr().err
    assert said == is_thousands


def test_what_is_not_said_is_asked_for(place, capsys):
    latin = TABLE.to_csv(index=False).encode("cp1252")
    (place / "latin.csv").write_bytes(latin.replace("ö".encode("cp1252"), b"\x81"))
    assert "say what it is, like --csv encoding=cp1252" in error(capsys, "fit latin.csv --out m")
    (place / "two.csv").write_bytes(TABLE.to_csv(index=False).encode("utf-16-le"))
    fit("two.csv", "--csv encoding=utf-16-le")
    assert "latin.csv: cannot be read" in error(capsys, "score m latin.csv --out s.csv")
    TABLE.to_csv("de.csv", index=False, sep=";", decimal=",")
    capsys.readouterr()
    fit("de.csv", out="text")
    assert "column 'price'" not in capsys.readouterr().err  # all cells agree
    np.testing.assert_array_equal(scores(DiffusionDensity.load("text")), scores(fit("t.csv")))
    said = error(capsys, "score text t.csv --out s.csv")
    assert "column 'price': expected a number with a decimal comma, like '1234,5', got" in said
    run("score text t.csv --out s.csv --csv decimal=.")
    first = str(TABLE["price"][0]).replace(".", ",")
    said = error(capsys, "score m de.csv --out s.csv")
    assert f"row 0: column 'price': expected numbers, got '{first}'; if all" in said
    for options, words in {
        "--csv sep=ab": "sep must be one mark, like ; or tab, got 'ab'",
        "--csv encoding=klingon": "unknown encoding 'klingon'",
        "--csv decimal=x": "decimal must be . or a comma, got 'x'",
        "--csv mark=x": "expected sep=, encoding=, decimal= or na=, got 'mark=x'",
    }.items():
        assert words in error(capsys, f"fit t.csv --out m {options}")


@pytest.mark.usefixtures("models")
def test_a_filled_table_is_written_as_it_was():
    gaps = pd.read_csv("gaps.csv")
    run("impute m gaps.csv --out full.csv")
    full = pd.read_csv("full.csv")
    gaps.to_csv("de.csv", index=False, encoding="utf-16", **{**OTHER, "na_rep": ""})
    run("impute m de.csv --out de_full.csv --csv decimal=,")
    again = pd.read_csv("de_full.csv", sep=";", decimal=",", encoding="utf-16")
    pd.testing.assert_frame_equal(again, full)
    assert not full.isna().any(axis=None)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("fitted_to", ["numbers", "text"])
@pytest.mark.parametrize(("mark", "group"), [(",", "."), (".", ",")])
def test_property_thousands_are_grouped_whatever_the_model_was_fitted_to(mark, group, fitted_to):
    """A model of plain numbers, and one of text with a decimal comma, score 3.934,35 as 3934.35."""

    def as_text(frame, mark, group):
        def text(v):
            return "" if np.isnan(v) else f"{v:,.2f}".translate(str.maketrans(",.", group + mark))

        return frame.assign(price=frame["price"].map(text))

    table = TABLE.assign(price=TABLE["price"] * 1000)
    (table if fitted_to == "numbers" else as_text(table, ",", ".")).to_csv("t.csv", index=False)
    fit("t.csv")
    gaps = table.assign(price=table["price"].mask(table.index.to_series() % 7 == 0))
    gaps.to_csv("gaps.csv", index=False)
    as_text(gaps, mark, group).to_csv("x.csv", index=False)
    for command in ("score", "impute"):
        run(f"{command} m gaps.csv --out expected.csv --csv decimal=.")
        run(f"{command} m x.csv --out found.csv --csv decimal={mark}")
        expected, found = (pd.read_csv(f"{name}.csv") for name in ("expected", "found"))
        if command == "impute":
            plain = str.maketrans(dict.fromkeys(".,' ", "") | {mark: "."})
            found = found.assign(price=found["price"].str.translate(plain).astype(float))
        pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


# -- no rows ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("line", ["score m", "score d --reasons", "impute m"])
def test_a_table_without_rows_gives_one_without_rows(capsys, line, ending):
    write = {".csv": lambda f, p: f.to_csv(p, index=False), ".parquet": pd.DataFrame.to_parquet}
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}[ending]
    for name, frame in (("none", TABLE[:0]), ("some", TABLE[:3])):
        write[ending](frame.reset_index(drop=True), f"{name}{ending}")
        command, model, *options = line.split()
        run(" ".join([command, model, f"{name}{ending}", "--out", f"{name}.out{ending}", *options]))
    none, some = read(f"none.out{ending}"), read(f"some.out{ending}")
    assert (len(none), list(none.columns)) == (0, list(some.columns))
    assert "none.out" in capsys.readouterr().out


def test_a_file_of_nothing_has_no_columns(models, capsys):
    for text in ("", "\n\n"):
        (models / "zero.csv").write_text(text)
        assert "zero.csv: the table is empty" in error(capsys, "score m zero.csv --out s.csv")
    TABLE[:0].to_csv("none.csv", index=False)
    assert "none.csv: the table is empty" in error(capsys, "report m none.csv --out r.html")
    assert "none.csv: the table is empty" in error(capsys, "fit none.csv --out n")


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_filled_table_keeps_what_ends_its_rows(place, newline, packed):
    rows = ["size", '"no\te\n, 2"', "1.5", '"a\nb"', "", '"c\r\nd"', "2.0", "é"]
    text = newline.join(",".join(rows[i : i + 2]) for i in range(0, len(rows), 2)) + newline
    fit("t.csv", "--drop price --drop città")
    (place / f"x.csv{packed}").write_bytes(
        gzip.compress(text.encode()) if packed else text.encode()
    )
    run(f"impute m x.csv{packed} --out y.csv")
    expected = text.replace(f'{newline},"c', f'{newline}FILL,"c')
    filled = (place / "y.csv").read_bytes().decode()
    assert re.sub(r"(\d\.\d)(?=,\"c)", "FILL", filled) == expected


def test_a_tab_within_a_name_divides_nothing(place):
    def found(text, kind="csv"):
        (place / f"t.{kind}").write_bytes(text.encode())
        with reading(f"t.{kind}", Dialect()) as source:
            rows = pd.concat(source.chunks())
        return source.dialect.sep, list(rows.columns), rows.to_numpy().tolist()

    text = '"col\num",b,"tab\tx"," lead "\n1,2,3,4\n'
    for content in (text, text.replace("\n1", "\r\n1")):
        expected = (",", ["col\num", "b", "tab\tx", " lead "], [["1", "2", "3", "4"]])
        assert found(content) == expected
    with pytest.warns(UserWarning, match="read with ';' between cells"):
        assert found('"a,\n|b";c\n1;2\n') == (";", ["a,\n|b", "c"], [["1", "2"]])
    assert found("a;b\n1;2\n", "tsv")[:2] == ("\t", ["a;b"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1.5,2\n,3\ninf,4\n", "t.csv: column 'a': contains infinity"),
        ("a,b\n1,2\n", "t.csv: n_samples=1: at least two rows"),
        ("a,b\n" + ",\n" * 9, "t.csv: at least two rows with a cell"),
    ],
)
def test_what_cannot_be_learned_from_is_named(place, capsys, content, words):
    (place / "t.csv").write_text(content)
    assert words in error(capsys, "fit t.csv --out m")


@pytest.mark.parametrize(
    ("start", "option"), [(b"\n\r\n", ""), (b"\xef\xbb\xbf", "encoding=utf-8")]
)
def test_what_stands_before_the_header_is_no_row_and_no_name(models, start, option):
    (models / "odd.csv").write_bytes(start + (models / "t.csv").read_bytes())
    run(f"score m odd.csv --out odd.scores.csv{' --csv ' + option if option else ''}")
    run("score m t.csv --out scores.csv")
    assert (models / "odd.scores.csv").read_text().lstrip() == (models / "scores.csv").read_text()


def test_what_is_no_table_is_not_written_over_one(models, capsys):
    before = (models / "gaps.csv").read_bytes()
    for line, what in (
        ("report m t.csv --out gaps.csv", "gaps.csv: what is written is no table"),
        ("fit t.csv --out gaps.csv", "gaps.csv: what is written is no table"),
        ("fit t.csv --out -", "a model must be a file"),
    ):
        assert what in error(capsys, line)
    assert (models / "gaps.csv").read_bytes() == before
