"""Streams: their parts, and the uniform sample that one pass takes."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from pyarrow.dataset import dataset
from scipy.stats import chisquare

from discrete_itd.encoders import TableEncoder
from discrete_itd.reading.frames import as_stream, in_memory

N = 600


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
            "count": np.where(late & (rng.random(N) < 0.1), np.nan, rng.integers(0, 9, N)),
            "whole": rng.integers(0, 5, N),
            "flag": np.where(late & (rng.random(N) < 0.1), None, rng.random(N) < 0.5),
            "code": rng.integers(0, 300, N),
            "size": rng.normal(size=N),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, N), "D"),
            "empty": np.full(N, np.nan),
        }
    )


def frames(frame, n_parts, seed=0):
    """A frame cut at random places, each part with the dtypes that it would have by itself."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(frame) + 1, n_parts - 1))
    parts = [frame.iloc[a:b] for a, b in pairwise([0, *cuts, len(frame)])]
    whole = [part.notna().all().get("count", False) for part in parts]
    parts = [
        part.astype({"count": int}) if own else part for part, own in zip(parts, whole, strict=True)
    ]
    return [part.infer_objects() for part in parts]


@pytest.mark.filterwarnings("ignore:column 'empty'")
@pytest.mark.parametrize("n_parts", [1, 2, 9])
def test_property_the_schema_of_a_stream_is_that_of_the_table(n_parts):
    whole = TableEncoder.fit(table()).schema
    assert TableEncoder.fit(in_memory(frames(table(), n_parts), 7)).schema == whole


@pytest.mark.filterwarnings("ignore:a uniform sample of 50 of 600 rows")
@pytest.mark.parametrize("n_parts", [2, 7])
def test_property_the_sample_is_uniform_and_in_order_whatever_the_parts(monkeypatch, n_parts):
    monkeypatch.setattr("discrete_itd.reading.frames.SAMPLE_ROWS", 50)
    frame, times = pd.DataFrame({"row": np.arange(N)}), np.zeros(N)
    for seed in range(40):
        rows = in_memory(frames(frame, n_parts, seed), seed)["row"]
        assert len(rows) == 50
        assert (np.diff(rows) > 0).all()
        if seed < 10:
            np.testing.assert_array_equal(rows, in_memory([frame], seed)["row"])
        times[rows] += 1
    assert chisquare(times.reshape(20, -1).sum(1)).pvalue > 1e-3


@pytest.mark.filterwarnings("ignore:a uniform sample of 50 of 600 rows")
def test_property_a_folder_of_parquet_is_read_row_for_row(tmp_path, monkeypatch):
    """In the order in which pandas reads its files, a sample too."""
    frame = table().drop(columns="flag").assign(row=np.arange(N))
    for i, part in enumerate(np.array_split(np.arange(N), 3)):
        frame.iloc[part].to_parquet(tmp_path / f"{i}.parquet", row_group_size=70)
    files = [pd.read_parquet(tmp_path / f"{i}.parquet") for i in range(3)]
    expected, batches = pd.concat(files, ignore_index=True), [*dataset(tmp_path).to_batches()]
    pd.testing.assert_frame_equal(in_memory(batches, 0), expected)
    monkeypatch.setattr("discrete_itd.reading.frames.SAMPLE_ROWS", 50)
    sample = in_memory(batches, 0)
    pd.testing.assert_frame_equal(sample, expected.iloc[sample["row"]].reset_index(drop=True))


def test_parts_that_do_not_fit_are_refused():
    for parts, words in [
        ([{"a": [1]}, {"b": [1]}], "column 'a': not in every frame"),
        ([{"a": []}], "0 sample"),
        ([{}, {}], "0 sample"),
    ]:
        with pytest.raises(ValueError, match=words):
            in_memory([pd.DataFrame(part) for part in parts], 0)
    # truth values do not become numbers
    rows = in_memory([pd.DataFrame({"a": [True]}), pd.DataFrame({"a": [3]})], 0)
    assert rows["a"].tolist() == [True, 3]
    assert rows["a"].map(type).nunique() == 2


def test_what_is_no_stream_is_refused():
    with pytest.raises(TypeError, match="frame 1 of the stream is a int"):
        in_memory([pd.DataFrame({"a": [1]}), 3], 0)
    for X in (
        [[1, 2]],
        "t.parquet",
        np.zeros((2, 2)),
        {"a": [1]},
        pd.DataFrame({"parts": [1]}),
        [],
        3,
    ):
        assert as_stream(X) is None
        assert in_memory(X, 0) is X
