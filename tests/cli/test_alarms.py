"""Detectors on the command line: fitting one, its columns and options in score, its density in the other commands."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.cli import fitting, main, tables
from discrete_itd.detection import score
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import NO_CELL
from discrete_itd.encoders import TableEncoder
from discrete_itd.recipes import Network
from discrete_itd.storage.files import read_state, write_state
from tests import reported
from tests.examples import refused, run

pytestmark = pytest.mark.single_precision

FIT = "fit o.csv --out new --max-steps 20 --seed 3"
SCORE = "score d.safetensors t.csv"


def small(denoiser="auto", **settings):
    if denoiser == "auto":
        denoiser = Network(width=8, depth=1, base="independent")
    return DiffusionDensity(denoiser=denoiser, n_evaluations=8, **settings)


def rows():
    """Ordinary rows, then four odd ones."""
    return pd.concat([reported.table(40, 9), reported.odd()], ignore_index=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a density, a detector and tables."""
    folder = tmp_path_factory.mktemp("files")
    reported.density().save(folder / "m.safetensors")
    reported.detector().save(folder / "d.safetensors")
    rows().to_csv(folder / "t.csv", index=False)
    reported.table(100, 8).to_csv(folder / "o.csv", index=False)
    return folder


@pytest.fixture(autouse=True)
def place(files, tmp_path, monkeypatch):
    """A copy of the files, and we in it; networks are small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "DiffusionDensity", small)
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    return tmp_path


def scores(path="s.csv"):
    return pd.read_csv(path)


def loaded(path="d.safetensors"):
    return DiffusionOutlierDetector.load(path)


# -- fit ------------------------------------------------------------------------------------------


def test_fit_is_that_of_python(capsys):
    out, err = run(f"{FIT} --detector --false-alarm-rate 0.1 --denoiser tree", capsys)
    assert err == ""
    detector = loaded("new")
    wanted = {"false_alarm_rate": 0.1, "contamination": "auto"}
    assert {name: getattr(detector, name) for name in wanted} == wanted
    assert out.splitlines()[0] == "o.csv: 100 rows, 3 columns"
    assert f"threshold: {detector.threshold_}" in out.splitlines()
    assert out.splitlines()[-1].startswith("wrote new in ")
    assert "from 20 calibration rows" in out
    settings = {"false_alarm_rate": 0.1, "random_state": 3}
    density = small("tree", max_steps=20, random_state=3)
    same = DiffusionOutlierDetector(density, **settings).fit(reported.table(100, 8))
    np.testing.assert_array_equal(detector.calibration_scores_, same.calibration_scores_)
    run("score new t.csv --out s.csv", capsys)
    np.testing.assert_allclose(scores()["score"], same.score_samples(rows()), rtol=1e-5)


def test_contamination_is_a_share_of_the_rows(capsys):
    line = f"{FIT} --detector --contamination 0.2"
    out, _ = run(line, capsys)
    detector = loaded("new")
    assert detector.contamination == 0.2
    assert "anomalies among them" in out
    out, _ = run("score new o.csv --out s.csv", capsys)
    n = scores()["alarm"].sum()
    assert 0 < n < 50  # 4 of 20 calibration rows set the threshold
    assert out.splitlines()[-2:] == [
        str(detector.threshold_),
        f"{n} of 100 rows ({n} %) raised an alarm",
    ]


def test_groups_of_a_column_are_held_out_together(capsys):
    """Their labels are read as they are written, and modelled only if asked."""
    table = reported.table(100, 8)
    table.assign(customer=[f"{i:03d}" for i in np.arange(100) // 4]).to_csv("g.csv", index=False)
    line = "fit g.csv --out new --denoiser tree --seed 3 --groups customer"
    for more, n_columns in (
        ("", table.shape[1]),
        (" --column customer=nominal", table.shape[1] + 1),
    ):
        run(f"{line} --detector --false-alarm-rate 0.2{more}", capsys)
        detector = loaded("new")
        assert len(detector.calibration_scores_) == 5  # of 25 groups
        assert detector.n_features_in_ == n_columns
    direct = DiffusionOutlierDetector(
        small("tree", random_state=3), false_alarm_rate=0.2, random_state=3
    ).fit(table, groups=np.arange(100) // 4)
    Path("folder").mkdir()
    grouped = table.assign(customer=np.arange(100) // 4)
    for i in range(2):
        grouped[50 * i :][:50].to_parquet(f"folder/{i}.parquet")
    for where in ("g.csv", "folder"):
        run(f"{line} --detector --false-alarm-rate 0.2".replace("g.csv", where), capsys)
        np.testing.assert_array_equal(loaded("new").calibration_scores_, direct.calibration_scores_)
    _, err = run("fit g.csv --out new --groups shop", capsys, 2)
    assert "column 'shop': named in --groups, but not there" in err
    table.assign(customer=["a", None] * 50).to_csv("g.csv", index=False)
    _, err = run("fit g.csv --out new --groups customer", capsys, 2)
    assert "column 'customer': named in --groups, but missing in row 1" in err


def test_too_few_rows_for_the_rate_are_told(capsys):
    _, err = run(f"{FIT} --detector", capsys)
    assert err.startswith(
        "discrete-itd: note: false_alarm_rate=0.01 cannot be guaranteed by 20 cal"
    )
    assert err.count("\n") == 1


# -- score ----------------------------------------------------------------------------------------


def test_score_is_that_of_python(capsys):
    out, err = run(f"{SCORE} --out s.csv --explain", capsys)
    assert err == ""
    found, detector, X = scores(), reported.detector(), rows()
    nats = [f"nats_{name}" for name in X.columns]
    own = ["score", "p_value", "alarm", "unreadable"]
    assert list(found.columns) == ["row", "log_prob", "stderr", *own, *nats]
    assert found["row"].tolist() == list(range(44))
    assert found["unreadable"].isna().all()
    np.testing.assert_allclose(found["log_prob"], detector.density_.log_prob(X).log_prob, rtol=1e-5)
    np.testing.assert_allclose(found["score"], detector.score_samples(X), rtol=1e-5)
    np.testing.assert_array_equal(found["p_value"], detector.p_values(X))
    np.testing.assert_array_equal(found["alarm"], detector.predict(X) == -1)
    np.testing.assert_array_equal(
        found["alarm"], found["p_value"] <= detector.threshold_.false_alarm_rate + 1e-12
    )
    np.testing.assert_allclose(found[nats].sum(axis=1), -found["score"], rtol=1e-6)
    n = found["alarm"].sum()
    assert found["alarm"][-4:].all()
    assert out.splitlines()[1:] == [
        str(detector.threshold_),
        f"{n} of 44 rows ({100 * n / 44:.3g} %) raised an alarm",
    ]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("--false-alarm-rate 0.2", lambda d: d.threshold_at_rate(0.2)),
    ],
)
def test_another_threshold_for_this_run(place, capsys, options, wanted):
    before = (place / "d.safetensors").read_bytes()
    out, _ = run(f"{SCORE} --out s.csv {options}", capsys)
    threshold, found = wanted(reported.detector()), scores()
    assert out.splitlines()[1] == str(threshold)
    np.testing.assert_array_equal(found["alarm"], found["score"] < threshold.offset)
    np.testing.assert_array_equal(
        found["alarm"], found["p_value"] <= threshold.false_alarm_rate + 1e-12
    )
    run(f"{SCORE} --out own.csv", capsys)
    assert found["alarm"].sum() > scores("own.csv")["alarm"].sum()
    assert (place / "d.safetensors").read_bytes() == before


@pytest.mark.parametrize(("option", "k"), [("--reasons", 3), ("--reasons 1", 1)])
def test_reasons_of_rows_that_raise_an_alarm(capsys, option, k):
    run(f"{SCORE} --out s.csv {option} --false-alarm-rate 0.3", capsys)
    found = scores()
    alarm = found["alarm"]
    assert (found["reason"].notna() == alarm).all()
    table = reported.detector().reasons(rows()[alarm], k=k)
    by_row = table.set_index(["row", "rank"])
    assert not found.loc[~alarm, [f"reason_{i}" for i in range(1, k + 1)]].notna().any(axis=None)
    n_without = 0
    for row in found.index[alarm]:
        lines = table[table["row"] == row]
        assert found.at[row, "reason"] == (". ".join(lines["sentence"]) or NO_CELL)
        n_without += not len(lines)
        for i in range(1, k + 1):
            told = found.at[row, f"reason_{i}"], found.at[row, f"reason_{i}_excess_nats"]
            if (row, i) in by_row.index:
                line = by_row.loc[row, i]
                assert told == (line["column"], pytest.approx(line["excess_nats"], rel=1e-4))
            else:
                assert pd.isna(told[0])
                assert pd.isna(told[1])
    assert 0 < n_without < alarm.sum()


def test_every_row_is_scored_once(capsys, monkeypatch):
    scored, encoded = [], []
    attributions, encode = score.attributions, TableEncoder.readable

    def counted(models, asked):
        scored.append(len(asked.x))
        return attributions(models, asked)

    def counted_encoding(self, frame, *args):
        encoded.append(len(frame))
        return encode(self, frame, *args)

    monkeypatch.setattr(score, "attributions", counted)
    monkeypatch.setattr(TableEncoder, "readable", counted_encoding)
    run(f"{SCORE} --out s.csv --explain --reasons", capsys)
    assert scored == [
        len(pd.read_csv("t.csv").drop_duplicates())
    ]  # in one call, of the distinct rows
    assert encoded.count(44) == 1  # others are of the file that was loaded


def test_a_table_without_alarms(capsys):
    pytest.importorskip("pyarrow")
    ordinary = rows()[scores_of_rows() >= np.median(scores_of_rows())]
    ordinary.to_csv("t.csv", index=False)
    out, _ = run(f"{SCORE} --out s.parquet --reasons", capsys)
    found = pd.read_parquet("s.parquet")
    assert not found["alarm"].any()
    assert found["reason"].isna().all()
    assert out.splitlines()[-1].startswith(f"0 of {len(ordinary)} rows (0 %) raised an alarm")


def scores_of_rows():
    return reported.detector().score_samples(rows())


def with_keys():
    """The rows with columns that no model knows: one of them looks like a number, one has gaps and commas."""
    note = ["", "1,5", 'say "so"', None] * 11
    key = [f"{i:05}" for i in range(44)]
    return rows().assign(key=key, **{"a, b": note, "p_value": 1.0})


def test_kept_columns_are_copied_as_they_are(place, capsys, monkeypatch):
    """Of files, folders and pipes, in the order of the option, whatever the chunks; the answers are the same."""
    frame = with_keys()
    frame.to_csv("t.csv", index=False)
    run(f"{SCORE} --out plain.csv", capsys)
    command = f"{SCORE} --keep key,free".split()
    for n in (100, 7):
        monkeypatch.setattr(tables, "CHUNK_ROWS", n)
        assert main([*command, "a, b", "--out", "s.csv"]) == 0
        assert "key" not in capsys.readouterr().err  # that it is ignored
        kept = pd.read_csv("s.csv", dtype=str, keep_default_na=False)
        given = pd.read_csv("t.csv", dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(kept.iloc[:, 1:4], given[["key", "free", "a, b"]])
        pd.testing.assert_frame_equal(
            scores().drop(columns=["key", "free", "a, b"]), scores("plain.csv")
        )
    (place / "in").mkdir()
    frame[:30].to_csv("in/1.csv", index=False)
    frame[30:].to_csv("in/2.csv", index=False)
    run("score d.safetensors in --out out/ --keep key", capsys)
    assert pd.read_csv("out/2.csv", dtype=str)["key"].tolist() == frame["key"][30:].tolist()
    run("score d.safetensors in --out out/ --keep free", capsys)  # other options: made anew
    assert list(scores("out/1.csv"))[:3] == ["row", "free", "log_prob"]
    message = "column 'p_value': named in --keep, but also the name of an answer"
    assert message in run(f"{SCORE} --out s.csv --keep p_value", capsys, 2).err


def test_kept_columns_of_parquet_keep_their_types(capsys, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 5)
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    frame = with_keys()
    table = pa.Table.from_pandas(frame[list(rows())], preserve_index=False)
    extra = {
        "whole": pa.array([None] * 20 + [2**60] * 24, type=pa.int64()),
        "day": pa.array([None, 0] * 22, type=pa.date32()),
        "text": pa.array([None] * 30 + ["x"] * 14, type=pa.string()),
        "code": pa.array(["u", "v"] * 22).dictionary_encode(),
    }
    for name, column in extra.items():
        table = table.append_column(name, column)
    parquet.write_table(table, "t.parquet")
    run("score d.safetensors t.parquet --out s.parquet --keep whole,day,text", capsys)
    kept = parquet.read_table("s.parquet")
    assert kept.column_names[:5] == ["row", "whole", "day", "text", "log_prob"]
    for name in ("whole", "day", "text"):
        assert kept[name].to_pylist() == extra[name].to_pylist()
        assert kept.schema.field(name).type == extra[name].type
    run("score d.safetensors t.parquet --out s.csv --keep code,day", capsys)
    found = scores()
    assert found["code"].tolist() == ["u", "v"] * 22
    assert found["day"].dropna().unique().tolist() == ["1970-01-01"]
    frame[:20].to_csv("gaps.csv", index=False)
    run("score d.safetensors gaps.csv --out g.parquet --keep key,free", capsys)
    assert pd.read_parquet("g.parquet")["key"].tolist() == frame["key"][:20].tolist()


@functools.cache
def uncalibrated_detector():
    density = small("independent", random_state=0)
    detector = DiffusionOutlierDetector(density, calibration_fraction=0, random_state=0)
    return detector.fit(reported.table(100, 8))


@pytest.fixture
def uncalibrated(place):
    """A detector without calibration rows."""
    uncalibrated_detector().save("u")
    return place


@pytest.mark.usefixtures("uncalibrated")
def test_without_calibration_rows_there_are_no_p_values(capsys):
    out, _ = run("score u t.csv --out s.csv --reasons", capsys)
    found = scores()
    assert found["p_value"].isna().all()
    assert (found["reason"].notna() == found["alarm"]).all()
    np.testing.assert_array_equal(found["alarm"], loaded("u").predict(rows()) == -1)
    assert "set on rows used in the fit" in out


# -- the other commands ---------------------------------------------------------------------------


# -- refusals -------------------------------------------------------------------------------------

DENSITY = "score m.safetensors t.csv --out o2.csv"
DETECTOR = f"{SCORE} --out o2.csv"
REFUSED = {
    "fit rate": (f"{FIT} --false-alarm-rate 0.1", "--false-alarm-rate needs --detector"),
    "fit contamination": (f"{FIT} --contamination 0.1", "--contamination needs --detector"),
    "fit both": (
        f"{FIT} --detector --false-alarm-rate 0.1 --contamination 0.1",
        "--false-alarm-rate and --contamination both set the threshold",
    ),
    "fit too many": (f"{FIT} --detector --contamination 0.6", "--contamination must be at most 0.5, got 0.6"),
    "fit not ours": (f"{FIT} --reasons", "unrecognized arguments: --reasons"),
    "reasons": (
        f"{DENSITY} --reasons",
        "--reasons needs a detector, as fit --detector makes; m.safetensors is a density",
    ),
    "rate": (f"{DENSITY} --false-alarm-rate 0.1", "--false-alarm-rate needs a detector"),
    "too small a rate": (
        f"{DETECTOR} --false-alarm-rate 0.001",
        "--false-alarm-rate: false_alarm_rate=0.001: 200 calibration rows cannot guarantee so small",
    ),
    "no reasons": (f"{DETECTOR} --reasons 0", "--reasons: must be a whole number from 1 on"),
    "reasons of a word": (f"{DETECTOR} --reasons all", "--reasons: must be a whole number"),
    "no such column to keep": (f"{DETECTOR} --keep free,id", "column 'id': named in --keep, missing from the table"),
    "kept twice": (f"{DETECTOR} --keep free kind,free", "t.csv: column 'free': named in --keep, twice"),
    "watch keeps nothing": (
        "watch d.safetensors t.csv --state w --keep free", "--keep needs --out, to which columns are copied"
    ),
    "uncalibrated rate": ("score u t.csv --out o2.csv --false-alarm-rate 0.1", "--false-alarm-rate: u was fitted"),
    "other model": ("score other t.csv --out o2.csv", "other: the file holds a Oracle, not a DiffusionDensity or a"),
    "odd model": ("sample odd -n 1", "odd: the file holds a "),
    "over detector": ("impute d.csv t.csv --out d.csv", "d.csv: would be written over the model"),
}  # fmt: skip


def test_refusals(uncalibrated, capsys):
    header, tensors = read_state("d.safetensors")
    write_state("other", (header | {"class": "Oracle"}, tensors))
    write_state("odd", (header | {"class": ["Oracle"]}, tensors))
    (uncalibrated / "d.csv").write_bytes((uncalibrated / "d.safetensors").read_bytes())
    for line, words in REFUSED.values():
        refused(line, words, uncalibrated, capsys)
