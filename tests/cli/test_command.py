"""The command line: what it writes, what it says, and how it refuses."""

import builtins
import gzip
import os
import runpy
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from discrete_itd import (
    DiffusionDensity,
    DiffusionOutlierDetector,
    __version__,
    encoders,
    recipes,
)
from discrete_itd.cli import fitting, main
from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.cli.options import COMMANDS, DENOISERS, NOTATIONS
from discrete_itd.detection.score import Scorer
from discrete_itd.reading.dialects import Dialect
from discrete_itd.recipes import Network
from discrete_itd.reporting import page
from discrete_itd.training.loop import Run
from tests.examples import refused, run, snapshot

SMALL = Network(width=8, depth=1, base="independent")
TREE = {"denoiser": "tree"}


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


def mixed(n=60):
    """Every kind of column, as text with gaps and without."""
    random = np.random.default_rng(1)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 90, n), unit="D")
    frame = pd.DataFrame(
        {
            "note": [f"{i:04}" for i in range(n)],  # no model knows it
            "day": days.strftime("%Y-%m-%d"),
            "price": random.lognormal(size=n).round(2).astype(str),
            "age": random.integers(18, 90, n).astype(str),
            "city": random.choice(["Rome", "NA"], n),
            "member": random.choice(["true", "false"], n),
        }
    )
    gaps = frame.copy()
    for i, name in enumerate(["day", "price", "age", "city", "member"]):
        gaps.loc[[i, i + 10, i + 20], name] = ""
    gaps.loc[30, "price"] = "NA"
    return frame, gaps


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small networks."""

    def quick(denoiser="auto", **settings):
        return DiffusionDensity(
            denoiser=SMALL if denoiser == "auto" else denoiser, **{"n_evaluations": 8, **settings}
        )

    monkeypatch.setattr(fitting, "DiffusionDensity", quick)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    frame = table().drop(columns="id")
    DiffusionDensity(denoiser=SMALL, max_steps=5, n_evaluations=8, random_state=0).fit(frame).save(
        path
    )
    return path.read_bytes()


@pytest.fixture(scope="module")
def saved_mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    mixed()[1].to_csv(folder / "gaps.csv", index=False)
    settings = {**TREE, "random_state": 0}
    frame = as_written(str(folder / "gaps.csv"), Dialect()).drop(columns="note")
    with pytest.warns(
        UserWarning, match=r"^gaps.csv: column 'price': 'NA' \(1 cell\) taken as missing"
    ):
        frame = typed_table(frame, "gaps.csv", {}, Dialect())
    DiffusionDensity(column_types={"age": "continuous"}, **settings).fit(frame).save(folder / "x")
    return (folder / "x").read_bytes()


@pytest.fixture
def gaps(place, saved_mixed):
    """A folder with the mixed table, whole and with gaps, and a model of it."""
    for name, frame in zip(("whole.csv", "gaps.csv"), mixed(), strict=True):
        frame.to_csv(name, index=False)
    (place / "x.safetensors").write_bytes(saved_mixed)
    return place


@pytest.fixture
def place(tmp_path, monkeypatch, saved):
    """A folder with a table and a model, and we in it."""
    monkeypatch.chdir(tmp_path)
    table().to_csv("t.csv", index=False)
    (tmp_path / "m.safetensors").write_bytes(saved)
    return tmp_path


FIT = "fit t.csv --out new.safetensors --max-steps 2 --seed 0 --drop id"


# -- fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", pytest.param("csv", marks=pytest.mark.slow)])
def test_a_folder_is_fitted_like_its_rows_in_one_file(place, capsys, kind):
    (place / "rows").mkdir()
    for i in range(2):
        part = table().iloc[20 * i :][:20]
        getattr(part, f"to_{kind}")(f"rows/{i}.{kind}", index=False)
    getattr(table(), f"to_{kind}")(f"rows.{kind}", index=False)
    for source in ("rows", f"rows.{kind}"):
        run(f"fit {source} --out {source}.m --denoiser tree --seed 0 --drop id")
    assert f"rows: {len(table())} rows, {table().shape[1] - 1} columns" in capsys.readouterr().out
    models = [DiffusionDensity.load(f"{source}.m") for source in ("rows", f"rows.{kind}")]
    new = table().drop(columns="id")
    np.testing.assert_array_equal(*(model.score_samples(new) for model in models))
    run("fit rows --out detector --detector --denoiser tree --seed 0 --drop id")
    assert len(DiffusionOutlierDetector.load("detector").predict(new)) == len(new)
    for line, words in (
        (
            "fit rows --out x --drop nothing",
            "column 'nothing': named in --drop, but left out or not there",
        ),
        ("fit empty --out x", "empty: no tables in this folder"),
        (
            "fit both --out x",
            "both: fit reads folders of CSV or of Parquet, not of both",
        ),
        (
            "score t.csv m.safetensors --out s.csv",
            "t.csv: is a table, not a model as fit writes it; MODEL",
        ),
    ):
        (place / "empty").mkdir(exist_ok=True)
        (place / "both").mkdir(exist_ok=True)
        table().to_csv("both/a.csv")
        table().to_parquet("both/b.parquet")
        run(line, code=2)
        assert words in capsys.readouterr().err


def test_fit(place, capsys):
    run(f"{FIT} --column zip=nominal size=nominal")
    out, err = capsys.readouterr()
    assert err == ""
    assert "t.csv: 40 rows, 4 columns" in out
    assert " 0 % " in out
    assert "training: 2 steps (max_steps), the best after " in out
    assert "nats per row better than independent columns (on 4 rows; a nat is a factor" in out
    assert out.splitlines()[-1].startswith("wrote new.safetensors in ")
    model = DiffusionDensity.load(place / "new.safetensors")
    colour, size, zip_code, fresh = model.encoder_.schema
    assert colour.categories == ("NA", "None", "blue", "red")  # words, not missing cells
    assert (size.kind, size.categories) == ("nominal", ("0", "1", "2", "3"))
    assert zip_code.categories == ("01234", "98765")  # with its zero
    assert fresh.categories == (False, True)
    assert model.random_state == 0


@pytest.mark.usefixtures("place")
def test_a_single_held_out_row_is_too_few_to_say(capsys):
    table(5).to_csv("t.csv", index=False)
    run(f"{FIT} --denoiser independent")
    out = capsys.readouterr().out
    assert "held-out rows: one is too few to say how much better" in out
    assert "nats per row better" not in out


@pytest.mark.usefixtures("place")
def test_a_note_on_a_column_that_is_an_identifier(capsys):
    pd.DataFrame({"f": [f"k{i}" for i in range(100)], "a": ["x", "y"] * 50}).to_csv(
        "t.csv", index=False
    )
    run("fit t.csv --out new.safetensors --denoiser independent")
    run("describe new.safetensors")
    out, err = capsys.readouterr()
    assert err.startswith("discrete-itd: note: left out of the model: 'f' (identifiers); --column")
    assert err.count("\n") == 1
    assert "left out: identifiers" in out
    assert "nan" not in out


def test_every_kind(gaps, capsys):
    run("fit gaps.csv --out new --denoiser independent --seed 0 --drop note --missing category")
    out, err = capsys.readouterr()
    assert err == (
        "discrete-itd: note: gaps.csv: column 'price': 'NA' (1 cell) taken as missing,"
        " as all others are numbers\n"
    )
    lines = out.splitlines()[3:8]
    assert lines[1].endswith(" 'NA' taken as missing")
    assert [line.split()[: len(line.split("a value")[0].split()) + 2] for line in lines] == [
        ["day", "continuous", "False", "5", "%", "a", "value"],
        ["price", "continuous", "False", "6.67", "%", "a", "value"],
        ["age", "continuous", "False", "5", "%", "a", "value"],
        ["city", "nominal", "2", "True", "5", "%", "a", "value"],
        ["member", "nominal", "2", "False", "5", "%", "a", "value"],
    ]
    model = DiffusionDensity.load(gaps / "new")
    assert model.missing == "category"
    assert len(model.encoder_.owner) == 8  # of numbers, whether they are there


def test_kinds_and_their_options(gaps):
    run(
        "fit gaps.csv --out new --denoiser independent --drop note"
        " --column age=continuous price=ordinal --column city=nominal day=nominal"
    )
    day, price, age, city, member = DiffusionDensity.load(gaps / "new").encoder_.schema
    assert (day.kind, day.is_text) == ("nominal", True)
    assert [c.kind for c in (price, age, city)] == ["ordinal", "continuous", "nominal"]
    assert (member.kind, member.categories) == ("nominal", (False, True))
    run(
        "fit gaps.csv --out new --denoiser independent --drop note member"
        " --column age=ordinal price=continuous day=continuous city=ordinal"
    )
    kinds = [c.kind for c in DiffusionDensity.load(gaps / "new").encoder_.schema]
    assert kinds == ["continuous", "continuous", "ordinal", "ordinal"]


@pytest.mark.usefixtures("place")
def test_a_note_on_a_column_that_is_almost_one_of_numbers(capsys):
    cells = ["?", *map(str, range(29))] * 2
    pd.DataFrame({"n": cells, "a": ["x", "y"] * 30}).to_csv("t.csv", index=False)
    run("fit t.csv --out new.safetensors --denoiser independent")
    assert capsys.readouterr().err == (
        "discrete-itd: note: column 'n': '?' (2 cells) taken as missing, as all others are numbers;"
        " if '?' means something, say that it is text with --column n=nominal\n"
    )


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
    assert list(scores.columns) == ["row", "log_prob", "stderr"]
    model = DiffusionDensity.load("m.safetensors")
    estimate = model.log_prob(frame.drop(columns="id"))
    np.testing.assert_allclose(scores["log_prob"], estimate.log_prob, rtol=1e-5)
    np.testing.assert_allclose(scores["stderr"], estimate.stderr, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("place")
def test_a_note_is_told_once(capsys):
    table().drop(columns="id").assign(size=99).to_csv("odd.csv", index=False)
    run("score m.safetensors odd.csv --out s.csv --explain")  # two passes over the rows
    err = capsys.readouterr().err
    assert err.startswith("discrete-itd: note: column 'size': no value was seen in training")
    assert err.count("\n") == 1


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
    assert scores[3] > whole[3]  # of the other cells
    np.testing.assert_allclose(scores.drop(3), whole.drop(3), rtol=1e-5)
    same_zip = table()[table()["zip"] == "01234"]
    same_zip.to_csv("zip.csv", index=False)
    run("score m.safetensors zip.csv --out s.csv")
    np.testing.assert_allclose(pd.read_csv("s.csv")["log_prob"], whole[same_zip.index], rtol=1e-5)


@pytest.mark.usefixtures("gaps")
def test_missing_cells_are_left_out():
    """An empty cell, NA in a column of numbers and a column of nothing else: all are missing."""
    _, frame = mixed()
    run("score x.safetensors gaps.csv --out s.csv --explain")
    scores = pd.read_csv("s.csv")
    names = ["day", "price", "age", "city", "member"]
    missing = (frame[names] == "") | ((frame == "NA") & (frame.columns == "price"))[names]
    assert (scores[[f"nats_{n}" for n in names]].isna().to_numpy() == missing.to_numpy()).all()
    assert missing.to_numpy().sum() == 16
    frame.assign(price="", day="", member="", city="").to_csv("empty.csv", index=False)
    run("score x.safetensors empty.csv --out s.csv --explain")
    alone = pd.read_csv("s.csv")
    np.testing.assert_allclose(-alone["nats_age"].fillna(0.0), alone["log_prob"])


# -- impute ---------------------------------------------------------------------------------------


def test_impute(gaps, capsys):
    written, names = mixed()[1], ["note", "day", "price", "age", "city", "member"]
    run("impute x.safetensors gaps.csv --out full.csv")
    out, err = capsys.readouterr()
    assert (out, err) == ("wrote full.csv: 60 rows, 16 cells filled\n", "")
    full = pd.read_csv("full.csv", dtype=str, keep_default_na=False)
    assert list(full.columns) == names
    filled = (full != written).to_numpy()
    assert filled.sum() == 16
    assert (written.to_numpy()[filled] == "").sum() == 15  # and the NA among numbers
    assert not (full == "").to_numpy().any()
    assert full["day"].str.fullmatch(r"2024-0\d-\d\d").all()
    assert full["age"].str.fullmatch(r"\d\d").all()
    assert set(full["member"]) <= {"true", "false", "True", "False"}
    run("score x.safetensors full.csv --out s.csv")
    run("impute x.safetensors full.csv --out again.csv")
    assert "again.csv: 60 rows, 0 cells filled" in capsys.readouterr().out
    assert (gaps / "again.csv").read_text() == (gaps / "full.csv").read_text()
    run("impute x.safetensors gaps.csv --out means.csv --method mean")
    means = pd.read_csv("means.csv", dtype=str, keep_default_na=False)
    differ = (means != full).any()
    assert differ["price"]
    assert not differ[["note", "city", "member"]].any()  # categories


@pytest.mark.usefixtures("gaps")
def test_impute_columns_of_nothing():
    mixed()[0].assign(day="", price="", age="", member="").to_csv("gaps.csv", index=False)
    run("impute x.safetensors gaps.csv --out full.csv")
    full = pd.read_csv("full.csv", dtype=str)
    assert full["age"].str.fullmatch(r"\d\d").all()
    assert full["member"].isin(["True", "False"]).all()
    assert full["day"].str.startswith("2024-").all()


def test_impute_draws(gaps):
    for name, seed in (("a.tsv", 0), ("b.tsv", 0), ("c.tsv", 1)):
        run(f"impute x.safetensors gaps.csv --out {name} --method sample --seed {seed}")
    a, b, c = ((gaps / name).read_text() for name in ("a.tsv", "b.tsv", "c.tsv"))
    assert a == b != c


@pytest.mark.usefixtures("gaps")
def test_impute_parquet():
    pytest.importorskip("pyarrow")
    frame = mixed()[0].astype({"price": float, "age": int})
    frame["day"] = pd.to_datetime(frame["day"])
    gaps = frame.astype({"age": "Int64"})
    gaps.loc[3, ["age", "day", "price", "city"]] = None
    gaps.to_parquet("gaps.parquet")
    run("impute x.safetensors gaps.parquet --out again.parquet")
    again = pd.read_parquet("again.parquet")
    assert list(again.columns) == list(frame.columns)
    rest = frame.index != 3
    pd.testing.assert_frame_equal(again[rest], frame[rest], check_dtype=False)
    assert [again[name].dtype.kind for name in ("day", "price", "age")] == ["M", "f", "i"]
    assert again.loc[3].notna().all()


# -- sample ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
def test_a_fit_ends_with_what_it_took_for_what(capsys):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"year": rng.integers(1990, 2020, 200), "n": rng.integers(1, 9, 200)})
    frame["price"], frame["id"] = (
        rng.integers(100, 999, 200) / 100,
        [f"K{i:05}x" for i in range(200)],
    )
    frame["total"] = (frame["n"] * frame["price"]).round(2)
    frame["cost"] = [f"{x:.2f} EUR" for x in rng.gamma(3, 9, 200)]
    frame.to_csv("sums.csv", index=False)
    run("fit sums.csv --out sums.safetensors --denoiser tree --clock year")
    said = capsys.readouterr().out.splitlines()[-7:-1]
    assert said[0] == "clock: year, whose value is given; counted from it: none"
    assert said[1:4] == [
        "left out: id (identifiers)", "relations: total = n × price, in 200 of 200 rows", "codes: none",
    ]  # fmt: skip
    assert said[4:] == ["numbers and times in text: cost", "gaps that are a value: none"]
    for options, words in (
        ("--clock date", "'date': named in --clock"),
        ("--clock n --column n=nominal", "give one"),
    ):
        run(f"fit sums.csv --out x.safetensors {options}", code=2)
        assert words in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_a_model_of_an_array():
    codes = np.random.default_rng(0).integers(0, 3, (20, 2))
    DiffusionDensity(denoiser=SMALL, max_steps=1, n_evaluations=4).fit(codes).save("a.safetensors")
    pd.DataFrame(codes).to_csv("codes.csv", index=False)
    run("score a.safetensors codes.csv --out s.csv --explain")
    assert list(pd.read_csv("s.csv").columns) == ["row", "log_prob", "stderr", "nats_0", "nats_1"]
    run("sample a.safetensors -n 2 --out rows.csv")
    assert list(pd.read_csv("rows.csv").columns) == ["0", "1"]
    run("sample a.safetensors -n 2 --given 1=2 --out rows.csv")
    assert pd.read_csv("rows.csv")["1"].tolist() == [2, 2]
    pd.DataFrame({"1": [0, None], "x": ["a", "b"], "0": [None, 2]}).to_csv("gaps.csv", index=False)
    run("impute a.safetensors gaps.csv --out full.csv")
    assert pd.read_csv("full.csv").notna().all(axis=None)


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


@pytest.mark.usefixtures("gaps")
def test_sample_given(capsys):
    run(
        "sample x.safetensors -n 3 --seed 1 --given day=2024-02-29 price=2.5 age=40 --given member=true"
    )
    out, err = capsys.readouterr()
    assert err == ""
    rows = [line.split(",") for line in out.splitlines()]
    assert rows[0] == ["day", "price", "age", "city", "member"]
    assert {tuple(row[:3] + row[4:]) for row in rows[1:]} == {("2024-02-29", "2.5", "40", "true")}
    run("sample x.safetensors -n 2 --given city=Oslo", code=2)
    out, err = capsys.readouterr()
    known = "; known are, among others, 'NA', 'Rome'"
    assert err == f"discrete-itd: error: column 'city': unseen category 'Oslo' in given={known}\n"


# -- demo, help, process --------------------------------------------------------------------------


def test_demo(monkeypatch, tmp_path, capsys):
    """What a user types, its answers, and files in a folder of its own."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(fitting, "DiffusionDensity", lambda **how: DiffusionDensity(**how | TREE))
    monkeypatch.setattr(page, "_drawings", lambda _: {})
    run("demo")
    out = capsys.readouterr().out
    for words in ("threshold: ", "most anomalous", "$ discrete-itd report"):
        assert words in out
    for cell in ("packs = 120", "unit price = £49.00"):
        assert cell in out
    (folder,) = tmp_path.iterdir()
    assert {"tea.safetensors", "tea.csv", "tea.html"} <= {p.name for p in folder.iterdir()}


def test_help(capsys):
    for command in ["", *COMMANDS]:
        with pytest.raises(SystemExit) as end:
            main([*command.split(), "--help"])
        assert end.value.code == 0
        out = capsys.readouterr().out
        assert f"discrete-itd {command or 'demo'}" in out
        assert max(map(len, out.splitlines())) <= 120
        if command == "fit":
            assert "--column zip=nominal" in out


HELP = """
import contextlib, sys
from discrete_itd.cli import main
for line in (["--help"], ["fit", "--help"], ["--version"]):
    with contextlib.suppress(SystemExit):
        main(line)
main(["fit"])
sys.exit(str({"torch", "pandas", "numpy", "sklearn"} & set(sys.modules) or ""))
"""


def test_help_imports_no_torch():
    asked = process("-c", HELP)
    err = asked.communicate()[1]
    assert err.endswith("(see discrete-itd fit --help)\n\n")


SCORED = """
import sys
import discrete_itd
assert "torch" not in sys.modules
import torch, pandas, sklearn.base, sklearn.utils.validation
before = set(sys.modules)
from discrete_itd.cli import main
assert main("score m.safetensors t.csv --out s.csv".split()) == 0
for name in sys.modules.keys() - before:
    if name.partition(".")[0] not in sys.stdlib_module_names | {"discrete_itd"}:
        print(".".join(name.split(".")[:2]))
discrete_itd.DiffusionDensity, discrete_itd.DiffusionOutlierDetector, discrete_itd.ImageDensity
assert not {"diffusers", "matplotlib", "jinja2"} & sys.modules.keys()
from torch.optim import optimizer
assert not optimizer._global_optimizer_post_hooks
assert not optimizer._global_optimizer_pre_hooks
"""
BESIDE = {"safetensors", "tqdm", "pyarrow", "narwhals", "sklearn.frozen", "sklearn.utils"}


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_a_score_imports_little():
    """Beside torch, pandas and scikit-learn's base: no trees, no compiler, no plots; the package alone not even those.

    And no hook of ours runs after the steps of optimisers of others.
    """
    table().to_csv("t.csv", index=False)
    DiffusionDensity(denoiser="forest", random_state=0).fit(table()).save("m.safetensors")
    out, err = process("-c", SCORED).communicate()
    assert not err
    found = out.splitlines()[1:]
    assert [name for name in found if not {name, name.partition(".")[0]} & BESIDE] == []


def test_the_options_name_all_notations_and_denoisers():
    """Their names are repeated in a module that imports nothing."""
    assert (encoders.NOTATIONS, tuple(recipes.NAMES)) == (NOTATIONS, DENOISERS)


@pytest.mark.usefixtures("place")
def test_an_interrupted_calibration_keeps_the_model_and_says_so_in_its_exit_code(
    capsys, monkeypatch, ctrl_c
):
    real = Scorer.fitted_quantiles

    def interrupted(self, *typical):
        ctrl_c()
        return real(self, *typical)

    monkeypatch.setattr(Scorer, "fitted_quantiles", interrupted)
    run("fit t.csv --out new --detector --denoiser tree --drop id", code=130)
    assert "the fit was interrupted: new is the best model so far" in capsys.readouterr().err
    assert DiffusionOutlierDetector.load("new").density_.model_.stopped == "exact"


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"discrete-itd {__version__}\n"


def test_interruption(place, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionDensity, "fit", interrupt)
    run(FIT, code=130)
    assert capsys.readouterr() == ("", "discrete-itd: interrupted\n")
    assert not (place / "new.safetensors").exists()


def process(*command):
    root = os.path.dirname(os.path.dirname(os.path.dirname(fitting.__file__)))
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        # a suite in the background ignores interrupts, and its children would too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.usefixtures("place")
def test_the_package_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cli", *f"{SCORE} none.csv --out s.csv".split()])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("discrete_itd", run_name="__main__")
    assert end.value.code == 2
    missing = "discrete-itd: error: none.csv: No such file or directory\n"
    assert capsys.readouterr() == ("", missing)


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("place", "ctrl_c")
def test_a_signal_keeps_the_best_model(number, monkeypatch, capsys):
    """Of a training under way; what handles signals afterwards is what did before."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    make_step = Run.make_step

    def signalled(self, share):
        make_step(self, share)
        if self.step == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(Run, "make_step", signalled)
    table(60)[["colour", "fresh"]].to_csv("t.csv", index=False)
    run("fit t.csv --out new --denoiser causal --max-steps 1000000", code=130)
    out, err = capsys.readouterr()
    assert err == ("discrete-itd: note: the fit was interrupted: new is the best model so far\n")
    assert "steps (interrupted)" in out
    model = DiffusionDensity.load("new")
    assert model.model_.stopped == "interrupted"
    assert model.history_["step"].max() < 10
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


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
    "long row": ("fit longrow.csv --out o", "longrow.csv: line 3: 3 cells, but 2 in the header"),
    "long rows": ("fit longrows.csv --out o", "longrows.csv: line 2: 3 cells, but 2 in the header"),
    "column unknown": (f"{FIT} --column hue=nominal", "column 'hue': named in --column"),
    "column twice": (f"{FIT} --column id=nominal", "column 'id': named in --column, but left out"),
    "drop unknown": (f"{FIT} hue", "column 'hue': named in --drop"),
    "drop all": (f"{FIT} colour size zip fresh", "t.csv: no column is left"),
    "bad kind": (
        f"{FIT} --column zip=text",
        "column 'zip': kind must be one of ('nominal', 'ordinal', 'continuous', 'clock', 'code'), got 'text'",
    ),
    "option of none": (f"{FIT} --column zip=ordinal:3", "column 'zip': notation must be one of "),
    "words as numbers": (
        f"{FIT} --column colour=continuous",
        "t.csv: column 'colour': continuous needs numbers or dates, got ",
    ),
    "a word as number": ("fit word.csv --column b=continuous --out o", "or dates, got 'large'"),
    "bad missing": (f"{FIT} --missing drop", "--missing: invalid choice: 'drop'"),
    "no kind": (f"{FIT} --column zip", "expected NAME=KIND, got 'zip'"),
    "bad time": (f"{FIT} --max-time -1", "--max-time: must be a positive number"),
    "bad steps": (f"{FIT} --max-steps 2.5", "--max-steps: must be a whole number"),
    "bad seed": (f"{FIT} --seed 99999999999", "--seed: must be a whole number"),
    "bad denoiser": (f"{FIT} --denoiser grove", "--denoiser: invalid choice: 'grove'"),
    "out in no folder": ("fit t.csv --out none/o", "none/o: no such folder"),
    "out is a folder": ("fit t.csv --out folder.csv", "folder.csv: not a regular file"),
    "out is a device": (f"fit t.csv --out {os.devnull}", "not a regular file"),
    "out is the table": ("fit t.csv --out ./t.csv", "would be written over the table"),
    "card is no card": ("fit t.csv --out notes", "notes.md: is no card of a model"),
    "missing model": ("score none t.csv --out o.csv", "none: No such file"),
    "model is a table": ("score t.csv t.csv --out o.csv", "t.csv: is a table, not a model as fit writes it"),
    "damaged model": ("score damaged t.csv --out o.csv", "damaged: "),
    "score lacks": (f"{SCORE} lacks.csv --out o.csv", "lacks.csv: column 'size' (and 1 more): "),
    "score over table": (f"{SCORE} t.csv --out t.csv", "t.csv: would be written over the table"),
    "score a word": ("score x t.csv --out o.csv", "t.csv: column 'day' (and 4 more): "),
    "score no number": (
        "score x badprice.csv --out o.csv",
        "badprice.csv: row 0: column 'price': expected numbers, got '2,50'; if all numbers of this table are like",
    ),
    "score no rows": (f"{SCORE} norows.csv --out o.csv", "norows.csv: column 'colour' (and 3 more)"),
    "impute over table": ("impute x gaps.csv --out gaps.csv", "would be written over the table"),
    "impute no seed": ("impute x gaps.csv --out o.csv --method sample --seed x", "--seed: must be a whole"),
    "sample given": ("sample x -n 1 --given hue=1", "column 'hue': named in --given, but the model"),
    "sample no value": ("sample x -n 1 --given price=", "expected NAME=VALUE, got 'price='"),
    "sample bad number": ("sample x -n 1 --given price=much", "column 'price': expected numbers, got 'much'"),
    "sample bad date": ("sample x -n 1 --given day=2024-13-01", "column 'day': expected ISO dates"),
    "sample bad truth": ("sample x -n 1 --given member=yes", "column 'member': expected True or False, got 'yes'"),
    "sample missing given": ("sample x -n 1 --given price=NA", "'NA' in --given is a missing value"),
    "sample none": ("sample m.safetensors -n 0", "-n: must be a whole number from 1 on"),
    "sample over model": ("sample m.csv -n 1 --out m.csv", "m.csv: would be written over the model"),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory, saved, saved_mixed):
    """A folder with tables and models that are refused; no refusal changes it."""
    place, (whole, gaps) = tmp_path_factory.mktemp("odd"), mixed()
    frame = table().drop(columns="id")
    tables = {
        "t": table(),
        "gaps": gaps,
        "badprice": whole.assign(price="2,50"),
        "lacks": frame[["colour", "zip"]],
    }
    for name, content in tables.items():
        content.to_csv(place / f"{name}.csv", index=False)
    packed = gzip.compress(b"a,b\n" + b"x,1\n" * 9999)
    contents = {
        "empty.csv": b"",
        "norows.csv": b"a,b\n",
        "onerow.csv": b"a,b\nx,1\n",
        "bytes.csv": b"a,b\n\x81\x98\x8d,1\n\xc3\x28,2\n",
        "damaged.csv.gz": b"a,b\nx,1\n",
        "cut.csv.gz": packed[: len(packed) // 2],
        "damaged.parquet": b"PAR1",
        "longrow.csv": b"a,b\nx,1\ny,2,3\n",
        "longrows.csv": b"a,b\nx,1,3\ny,2,3\n",
        "word.csv": b"a,b\nx,1\ny,large\ny,large\nx,3\n",
        "x": saved_mixed,
        "damaged": saved[:-1],
        "m.safetensors": saved,
        "m.csv": saved,
        "notes.md": b"# Notes",
    }
    for name, content in contents.items():
        (place / name).write_bytes(content)
    (place / "folder.csv").mkdir()
    return place


def test_refusals(odd_folder, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(odd_folder)
    for line, words in REFUSED.values():
        refused(line, words, odd_folder, capsys)


def test_a_failing_write_leaves_the_old_file(place, monkeypatch, capsys):
    (place / "s.csv").write_text("old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("discrete_itd.cli.tables.as_text", fail)
    before = snapshot(place)
    run("score m.safetensors t.csv --out s.csv", code=2)
    error = "discrete-itd: error: s.csv: No space left on device\n"
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
