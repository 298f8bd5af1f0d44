"""Batches in, batches out: the scores of the whole table to the last bit, whatever the batches and their kind."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection.answers import density_of
from discrete_itd.detection.reasons import NO_CELL
from discrete_itd.recipes import Network
from discrete_itd.scale import (
    DETECTOR_OUTPUTS,
    BatchScoring,
    batches,
)

pa = pytest.importorskip("pyarrow")

pytestmark = pytest.mark.single_precision

EVERYTHING = (*DETECTOR_OUTPUTS, "log_prob", "stderr", "nats")


def table(n=150, seed=0):
    """Columns of every family, most with missing cells, and two that no model knows."""
    random = np.random.default_rng(seed)
    level = random.integers(0, 3, n)
    frame = pd.DataFrame(
        {
            "key": np.arange(n) + 2**60,
            "whole": pd.array(level + 2**53, dtype="Int64"),
            "word": np.array(["red", "green", "blue"])[level],
            "truth": pd.array(level == random.integers(0, 3, n), dtype="boolean"),
            "kind": pd.Categorical.from_codes(random.integers(0, 2, n), ["u", "v"]),
            "size": random.normal(level, 0.3),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(level * 7, unit="D"),
            "note": [[i] for i in range(n)],
        }
    )
    for j, name in enumerate(("whole", "word", "truth", "kind", "size", "day")):
        frame.loc[random.permutation(n)[: 2 + j], name] = None
    frame.loc[n - 4 :, ["word", "size"]] = "odd", 9.0
    return frame


COLUMNS = ["whole", "word", "truth", "kind", "size", "day"]


@pytest.fixture(scope="module")
def models():
    known = table()[COLUMNS][:-4]
    network = Network(width=4, depth=1, base="independent")
    path = DiffusionDensity(denoiser=network, max_steps=2, n_evaluations=4, random_state=0)
    tree = DiffusionDensity(denoiser="tree", random_state=0)
    return {
        "density": path.fit(known),
        "detector": DiffusionOutlierDetector(tree, false_alarm_rate=0.1, random_state=0).fit(known),
    }


@pytest.fixture(scope="module")
def paths(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        model.save(folder / name)
    return {name: folder / name for name in models}


def reference(model, frame, n_reasons):
    """The same answers from the model's own methods, about the whole table at once."""
    X = frame[COLUMNS]
    estimate, nats = density_of(model).log_prob(X), model.explain(X)
    out = pd.DataFrame(estimate._asdict(), index=frame.index)
    if isinstance(model, DiffusionOutlierDetector):
        out["score"], out["p_value"] = model.score_samples(X), model.p_values(X)
        out["alarm"], out["unreadable"] = model.predict(X) == -1, None
        alarm = np.flatnonzero(out["alarm"])
        told = model.reasons(X.iloc[alarm].reset_index(drop=True), k=n_reasons)
        out["reason"] = pd.Series(None, index=out.index, dtype=object)
        for i, place in enumerate(alarm):
            lines = told[told["row"] == i]
            out.loc[place, "reason"] = ". ".join(lines["sentence"]) or NO_CELL
            for k, name, excess in zip(
                *(lines[c] for c in ("rank", "column", "excess_nats")), strict=True
            ):
                out.loc[place, f"reason_{k}"] = name
                out.loc[place, f"reason_{k}_excess_nats"] = excess
        for k in range(1, n_reasons + 1):
            out[f"reason_{k}"] = out.get(f"reason_{k}")
            out[f"reason_{k}_excess_nats"] = out.get(f"reason_{k}_excess_nats", np.nan)
    return out.join(nats.add_prefix("nats_"))


def cut(whole, kind, random):
    """The table in batches of random sizes, some of them empty and the last large."""
    ends = np.sort(random.integers(0, len(whole) // 2, 6))
    pieces = zip([0, *ends, ends[-1]], [*ends, ends[-1], len(whole)], strict=True)
    parts = [whole[a:b] for a, b in pieces]
    if kind == "frame":
        return parts
    tables = [pa.Table.from_pandas(p, schema=arrow_schema(whole)) for p in parts]
    return tables if kind == "table" else [
        t.combine_chunks().to_batches()[0] if len(t) else empty(t.schema) for t in tables
    ]  # fmt: skip


def empty(schema):
    return pa.RecordBatch.from_pylist([], schema=schema)


def arrow_schema(frame):
    return pa.Schema.from_pandas(frame, preserve_index=False)


def joined(parts):
    if isinstance(parts[0], pd.DataFrame):
        return pd.concat(parts)
    as_tables = [pa.Table.from_batches([p]) if isinstance(p, pa.RecordBatch) else p for p in parts]
    return pa.concat_tables(as_tables).to_pandas()


@pytest.mark.parametrize(
    ("name", "kind"), [("density", "table"), ("detector", "batch"), ("detector", "frame")]
)
def test_properties_answers_are_those_of_the_whole_table(models, paths, name, kind):
    frame = table().set_index(pd.Index(np.arange(150) % 7))  # labels repeat
    outputs = EVERYTHING if name == "detector" else ("stderr", "nats", "log_prob")
    wanted = reference(models[name], table(), 2)
    assert name == "density" or 4 <= wanted["alarm"].sum() < 40
    parts = cut(frame if kind == "frame" else table(), kind, np.random.default_rng(0))
    scored = list(BatchScoring(paths[name], outputs, n_reasons=2).over(parts))
    assert [(type(a), len(a)) for a in scored] == [(type(b), len(b)) for b in parts]
    got = joined(scored)
    assert list(got.columns[:8]) == list(frame.columns)
    assert got["key"].tolist() == frame["key"].tolist()
    assert kind != "frame" or got.index.equals(frame.index)
    for column, values in wanted.items():
        if column.endswith("excess_nats"):  # of conditionals: to rounding
            np.testing.assert_allclose(got[column], values.to_numpy(), rtol=1e-5)
            continue
        assert np.array_equal(
            got[column].to_numpy(object, na_value=None), values.to_numpy(object, na_value=None)
        ), column
    assert set(got.columns[8:]) == set(wanted.columns)


@pytest.mark.parametrize("name", ["density", "detector"])
def test_the_schema_is_known_without_scoring(paths, monkeypatch, name):
    parts = cut(table(), "batch", np.random.default_rng(2))
    schema = arrow_schema(table())
    scoring = BatchScoring(paths[name], keep=["note", "key"], n_reasons=9)
    scored, frames = list(scoring.over(parts)), list(scoring.over([table()[:0], table()]))
    monkeypatch.setattr(DiffusionDensity, "rows", None)  # nothing is encoded
    told = scoring.schema(schema)
    assert {str(batch.schema) for batch in scored} == {str(told)}
    assert told.names[:3] == ["note", "key", "log_prob" if name == "density" else "score"]
    assert name == "density" or told.names[-1] == "reason_6_excess_nats"  # of six columns
    assert frames[0].dtypes.equals(frames[1].dtypes)
    assert list(frames[0].columns) == told.names


def test_one_batch_is_taken_at_a_time(paths):
    taken = []

    def source():
        for i in range(3):
            taken.append(i)
            yield table(5, i)

    scored = BatchScoring(paths["density"]).over(source())
    assert taken == []
    for i, _ in enumerate(scored):
        assert taken == list(range(i + 1))


def test_a_process_reads_a_model_once_whoever_asks(paths, tmp_path, monkeypatch):
    path, read = tmp_path / "m", []
    path.write_bytes(paths["detector"].read_bytes())
    load = batches.read_model
    monkeypatch.setattr(batches, "read_model", lambda *a, **k: read.append(a) or load(*a, **k))
    scoring = BatchScoring(path, outputs=["score", "alarm", "nats"], keep=["key"])
    whole = scoring(table(60))
    assert len(pickle.dumps(scoring)) < 1000  # no model
    read.clear()
    batches._read.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        copies = [pickle.loads(pickle.dumps(scoring)) for _ in range(12)]
        parts = list(pool.map(lambda i: copies[i](table(60)[5 * i : 5 * i + 5]), range(12)))
    assert len(read) == 1
    pd.testing.assert_frame_equal(pd.concat(parts), whole, check_exact=True)
    path.write_bytes(paths["density"].read_bytes())
    os.utime(path, (0, 0))
    assert "log_prob" in BatchScoring(path)(table(3))
    assert len(read) == 2


def test_a_model_of_an_array_takes_columns_by_position(tmp_path):
    codes = np.random.default_rng(0).integers(0, 3, (60, 2))
    model = DiffusionDensity(denoiser="tree").fit(codes)
    model.save(tmp_path / "m")
    named = pa.table({"a": codes[:, 0], "b": codes[:, 1]})
    for batch in (named, named.to_pandas()):
        scored = BatchScoring(tmp_path / "m", ["log_prob"], keep=[])(batch)
        np.testing.assert_allclose(np.asarray(scored)[:, 0], model.score_samples(codes), rtol=1e-6)


def test_what_is_wrong_is_named(paths):
    for change, options, error, message in [
        ({"drop": "size"}, {}, ValueError, "column 'size': the model needs it, but the batch lacks it"),
        ({"drop": "size", "empty": True}, {}, ValueError, "column 'size': the model needs it"),
        ({"rename": "word"}, {}, ValueError, "column 'word': the model needs it, but the batch has several"),
        ({}, {"keep": ["id"]}, ValueError, "column 'id': named in keep=, but the batch lacks it"),
        ({}, {"keep": "key"}, TypeError, "keep must be a list of names, got the string 'key'"),
        ({}, {"outputs": "alarm"}, TypeError, "outputs must be a list of names, got the string 'alarm'"),
        ({}, {"outputs": ["alarm"]}, ValueError, "got 'alarm'; that needs a detector"),
        ({}, {"outputs": ["stderr", "stderr"]}, ValueError, "outputs repeat"),
        ({"rename": "stderr"}, {}, ValueError, "column 'stderr': also the name of an answer"),
        ({}, {"n_reasons": 0}, ValueError, "n_reasons"),
        ({"list": True}, {}, TypeError, "a batch must be a pandas DataFrame, or an Arrow .*, got list"),
    ]:  # fmt: skip
        batch = table(5)
        if "drop" in change:
            batch = batch.drop(columns=change["drop"])
        if "rename" in change:
            batch = batch.rename(columns={"note": change["rename"]})
        batch = [] if "list" in change else batch[:0] if "empty" in change else batch
        with pytest.raises(error, match=message):
            BatchScoring(paths["density"], **options)(batch)


def test_what_is_no_model_is_said_at_once(tmp_path):
    (tmp_path / "m").write_text("no model")
    with pytest.raises(ValueError, match=str(tmp_path / "m")):
        BatchScoring(tmp_path / "m").over([])
    with pytest.raises(OSError, match="none"):
        BatchScoring(tmp_path / "none").over([])


def test_dictionaries_of_any_values_are_read_as_their_cells(models, paths):
    """Those of Arrow may hold a null, or a value twice; pandas refuses both as categories."""
    rows = table()[COLUMNS]
    codes = pa.array([0, 1, 2, 3, None] * 30)
    words = pa.DictionaryArray.from_arrays(codes, pa.array(["red", None, "green", "red"]))
    batch = pa.Table.from_pandas(rows, preserve_index=False)
    batch = batch.set_column(batch.schema.get_field_index("word"), "word", words)
    found = BatchScoring(paths["density"], keep=[])(batch)
    plain = rows.assign(word=pd.Series(words.to_pylist(), dtype="str"))
    expected = models["density"].score_samples(plain)
    np.testing.assert_array_equal(found["log_prob"].to_numpy(), expected)
