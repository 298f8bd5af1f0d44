"""Streams: parts of a table with positions, and what one pass finds out about it."""

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from discrete_itd.encoders import TableEncoder, categories
from discrete_itd.encoders.streams import (
    FrameStream,
    ParquetStream,
    RemainingStream,
    as_stream,
    position_hashes,
    survey,
)
from discrete_itd.encoders.table import column_specs

N = 600
SPECS = {"bin": {"kind": "binned", "edges": [0, 1, 2]}, "code": {"kind": "nominal", "min_count": 3}}


def table(seed=0):
    """A column of every kind; some are first missing, or rare, late in the table."""
    rng = np.random.default_rng(seed)
    late = np.arange(N) > N // 2
    words = rng.choice(list("xyz"), N).astype(object)
    words[-1] = "once"
    return pd.DataFrame(
        {
            "word": words,
            "grade": pd.Categorical(rng.choice(list("ba"), N), list("bca"), ordered=True),
            "colour": pd.Categorical(rng.choice(["red", "blue"], N)),
            "count": np.where(late & (rng.random(N) < 0.1), np.nan, rng.integers(0, 9, N)),
            "whole": rng.integers(0, 5, N),
            "flag": np.where(late & (rng.random(N) < 0.1), None, rng.random(N) < 0.5),
            "code": rng.integers(0, 300, N),
            "many": rng.integers(0, 10**6, N),
            "size": rng.normal(size=N),
            "bin": rng.exponential(size=N),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, N), "D"),
            "empty": np.full(N, np.nan),
        }
    )


def frames(frame, n_parts, seed=0):
    """A frame cut at random places, each part with the dtypes that it would have by itself."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(frame) + 1, n_parts - 1))
    ends = [0, *cuts, len(frame)]
    parts = [frame.iloc[a:b] for a, b in pairwise(ends)]
    whole = [part.notna().all().get("count", False) for part in parts]
    parts = [
        part.astype({"count": int}) if own else part for part, own in zip(parts, whole, strict=True)
    ]
    return [part.infer_objects() for part in parts]


def found(stream, n_sample, columns=SPECS):
    return survey(stream, partial(column_specs, columns=columns), lambda _: n_sample, 7)


def schema(survey_, columns=SPECS, **options):
    return TableEncoder.fit(survey_.columns, columns, **options).schema


@pytest.mark.filterwarnings("ignore:column 'empty'")
@pytest.mark.parametrize("n_parts", [1, 2, 9])
@pytest.mark.parametrize("missing", ["marginalise", "category"])
def test_property_the_schema_of_a_stream_is_that_of_the_table(monkeypatch, n_parts, missing):
    """Of counts always; of scales, bins and times if the sample is the table."""
    monkeypatch.setattr(categories, "MANY_CATEGORIES", 100)  # as "code" has
    monkeypatch.setattr(categories, "MOST_LEVELS", 50)
    whole = TableEncoder.fit(table(), SPECS, missing=missing).schema
    stream = FrameStream(frames(table(), n_parts))
    assert schema(found(stream, N), missing=missing) == whole
    small = schema(found(stream, 40), missing=missing)
    assert [(c.kind, c.dtype, c.n_missing) for c in small] == [
        (c.kind, c.dtype, c.n_missing) for c in whole
    ]
    for mine, theirs in zip(small, whole, strict=True):
        assert mine == theirs or theirs.name in ("many", "size", "bin", "day")


def test_categories_outside_the_sample_are_known():
    stream = FrameStream(frames(table()[["word", "size"]], 5))
    sampled = found(stream, 10, None)
    assert "once" not in sampled.sample["word"].tolist()
    assert "once" in schema(sampled, None)[0].categories


@pytest.mark.parametrize("n_parts", [1, 7])
def test_property_the_sample_is_of_the_smallest_hashes(n_parts):
    """Whatever the parts and their order: it depends on positions alone."""
    frame = pd.DataFrame({"row": np.arange(N)})
    hashes = position_hashes(np.arange(N), 7)
    assert len(set(hashes.tolist())) == N
    sampled = found(FrameStream(frames(frame, n_parts)), 50, None)
    assert set(sampled.sample["row"]) == set(np.argsort(hashes)[:50])
    np.testing.assert_array_equal(sampled.hashes, hashes[sampled.sample["row"]])
    rest = RemainingStream(FrameStream([frame]), 7, int(sampled.hashes.max()))
    (part,) = rest.parts()
    assert set(part.frame["row"]) == set(range(N)) - set(sampled.sample["row"])
    np.testing.assert_array_equal(part.frame["row"], part.positions)


def test_hashes_are_even():
    """Neighbouring positions fall evenly, whatever the seed."""
    for salt in (0, 1, 2**31 - 2):
        share = position_hashes(np.arange(20_000), salt) / 2.0**64
        assert chisquare(np.histogram(share, 20, (0, 1))[0]).pvalue > 1e-3


@pytest.mark.parametrize("shuffled", [False, True])
def test_property_parquet_is_read_row_for_row(tmp_path, shuffled):
    """Every row once, at the position at which pandas reads it; texts as categories of equal values."""
    frame = table().drop(columns="flag").assign(row=np.arange(N))
    for i, part in enumerate(np.array_split(np.arange(N), 3)):
        frame.iloc[part].to_parquet(tmp_path / f"{i}.parquet", row_group_size=70)
    (tmp_path / "_metadata.parquet").write_bytes(b"")
    stream = ParquetStream(tmp_path)
    assert stream.text_dtypes == {"word": pd.read_parquet(tmp_path / "0.parquet")["word"].dtype}
    parts = list(stream.parts(np.random.default_rng(0) if shuffled else None))
    order = np.concatenate([part.positions for part in parts])
    assert (np.diff(order) == 1).all() != shuffled
    read = pd.concat([part.frame.astype(stream.text_dtypes) for part in parts])
    np.testing.assert_array_equal(read["row"], order)
    expected = pd.concat([pd.read_parquet(f) for f in stream.files]).iloc[order]
    pd.testing.assert_frame_equal(read, expected.reset_index(drop=True).set_axis(read.index))
    few = ParquetStream(tmp_path, ["size", "word"])
    assert list(next(iter(few.parts())).frame) == ["size", "word"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([{"a": [1]}, {"b": [1]}], "column 'a': not in every frame"),
        ([{"a": list(range(300))}, {"a": ["x"] * 9}], "column 'a': numbers and text in different"),
        (
            [{"a": ["x"] * 20}, {"a": [pd.Timestamp(0)] * 20}],
            "column 'a': text and times in different",
        ),
        ([{"a": [True]}, {"a": [2]}], "column 'a': numbers and truth values in different parts"),
        ([{"a": pd.Categorical(["x"])}, {"a": ["x"]}], "column 'a': of dtype category in one part"),
        ([{"a": [1j]}], "column 'a': values of dtype complex128"),
        ([{"a": []}], "0 sample"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        TableEncoder.fit(
            found(FrameStream([pd.DataFrame(part) for part in parts]), 10, None).columns
        )


def test_what_is_no_stream_is_refused(tmp_path):
    with pytest.raises(TypeError, match="generator, which can be read once only"):
        as_stream(pd.DataFrame({"a": [i]}) for i in range(3))
    with pytest.raises(TypeError, match="frame 1 of the stream is a int"):
        list(FrameStream([pd.DataFrame({"a": [1]}), 3]).parts())
    with pytest.raises(FileNotFoundError, match="no such file"):
        as_stream(tmp_path / "absent.parquet")
    with pytest.raises(ValueError, match=r"no \.parquet file"):
        as_stream(tmp_path)
    (tmp_path / "year=2024").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "year=2024" / "p.parquet")
    with pytest.raises(ValueError, match="'year=2024' hold a column"):
        as_stream(tmp_path)
    pd.DataFrame({"b": [1]}).to_parquet(tmp_path / "year=2024" / "q.parquet")
    with pytest.raises(ValueError, match="column 'a': not in every file"):
        as_stream(tmp_path / "year=2024")
    for X in ([[1, 2]], np.zeros((2, 2)), {"a": [1]}, pd.DataFrame({"parts": [1]}), [], 3):
        assert as_stream(X) is None


def test_properties_few_words_in_any_part_leave_numbers_numbers():
    numbers = np.random.default_rng(0).normal(size=(N, 2)).round(3)
    days = list(pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N), "D"))
    frame = pd.DataFrame({"a": numbers[:, 0], "b": numbers[:, 1], "day": days}, dtype=object)
    for column, cells in (("a", [3, 500]), ("b", [N - 1]), ("day", [7])):
        frame.loc[cells, column] = "#REF!"
    clean = frame.replace("#REF!", None).infer_objects()
    with pytest.warns(
        UserWarning, match=r"4 unreadable .*'a' '#REF!' \(2 times\); 'b' '#REF!'; 'day'"
    ):
        whole = TableEncoder.fit(frame)
    assert [c.codec for c in whole.schema] == [c.codec for c in TableEncoder.fit(clean).schema]
    # as readers give them in parts: numbers, or all as text
    parts = [frame[:400].infer_objects(), frame[400:].astype({"a": "str"}).infer_objects()]
    for n_sample in (10**6, 300):
        with pytest.warns(UserWarning, match=r"4 unreadable .*'a' '#REF!' \(2 times\)"):
            encoder = TableEncoder.fit(found(FrameStream(parts), n_sample, None).columns)
        assert [c.kind for c in encoder.schema] == [c.kind for c in whole.schema]
        assert [c.n_missing for c in encoder.schema] == [2, 1, 1]
        cells, unreadable = encoder.readable(frame)
        assert np.flatnonzero(pd.notna(unreadable).any(1)).tolist() == [3, 7, 500, N - 1]
        np.testing.assert_array_equal(cells.x, encoder.transform(clean).x)
