"""One table, one schema: whichever reader has made a frame of it."""

import io
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest

from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.encoders import TableEncoder, as_frame
from discrete_itd.reading.dialects import Dialect
from discrete_itd.reading.frames import in_memory

N = 600


def written():
    """A CSV of all kinds, with gaps in most columns."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "few": rng.integers(0, 5, N),
            "levels": rng.integers(0, 90, N) ** 3,
            "many": rng.integers(0, 10**6, N),
            "whole, no gap": rng.integers(0, 90, N) ** 3,
            "real": rng.normal(size=N).round(3),
            "real, no gap": rng.normal(size=N).round(3),
            "name": rng.choice(["x", "y", "z"], N),
        }
    )
    gaps = rng.random(table.shape) < 0.02
    gaps[:, [name.endswith("no gap") for name in table]] = False
    return table.astype(str).mask(gaps, "").to_csv(index=False)


TEXT = written()


def by_command(folder):
    path = folder / "table.csv"
    path.write_text(TEXT)
    return typed_table(as_written(str(path), Dialect()), str(path), {}, Dialect())


def as_objects(_):
    frame = pd.read_csv(io.StringIO(TEXT), dtype_backend="numpy_nullable")
    return frame.astype(object).where(frame.notna(), None)


def by_arrow(_):
    csv = pytest.importorskip("pyarrow.csv")
    how = csv.ConvertOptions(strings_can_be_null=True)
    return csv.read_csv(io.BytesIO(TEXT.encode()), convert_options=how)


def by_duckdb(folder):
    duckdb = pytest.importorskip("duckdb")
    (folder / "table.csv").write_text(TEXT)
    return duckdb.read_csv(str(folder / "table.csv"))


def by_dask(_):
    dask = pytest.importorskip("dask.dataframe")
    return dask.from_pandas(pd.read_csv(io.StringIO(TEXT)), npartitions=3)


READERS = {
    "pandas": lambda _: pd.read_csv(io.StringIO(TEXT)),
    "nullable": lambda _: pd.read_csv(io.StringIO(TEXT), dtype_backend="numpy_nullable"),
    "arrow": lambda _: pd.read_csv(io.StringIO(TEXT), dtype_backend="pyarrow"),
    "polars": lambda _: pl.read_csv(io.StringIO(TEXT)),
    "polars lazy": lambda _: pl.read_csv(io.StringIO(TEXT)).lazy(),
    "pyarrow": by_arrow,
    "duckdb": by_duckdb,
    "dask": by_dask,
    "objects": as_objects,
    "command": by_command,
}


def essence(encoder):
    return [(c.name, c.kind, c.codec, c.n_missing) for c in encoder.schema]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """The table by a reader, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("t")
    return cache(lambda name: READERS[name](folder))


@pytest.fixture(scope="module")
def usual(frames):
    encoder = TableEncoder.fit(frames("pandas"))
    kinds = ["ordinal", "ordinal", "continuous", "ordinal", "continuous", "continuous", "nominal"]
    assert [c.kind for c in encoder.schema] == kinds
    assert encoder.schema[2].codec.whole
    return encoder


@pytest.mark.parametrize(
    "name",  # the import of Dask takes seconds
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "dask")) for n in READERS],
)
def test_properties_schema_does_not_depend_on_the_reader(name, frames, usual):
    frame = as_frame(frames(name))
    encoder = TableEncoder.fit(frame)
    assert essence(encoder) == essence(usual)
    # and every model takes the rows of every other reader
    x, log_volume = usual.transform(frame)
    np.testing.assert_array_equal(x, encoder.transform(as_frame(frames("pandas"))).x)
    np.testing.assert_array_equal(log_volume, encoder.transform(frame).log_volume)


@pytest.mark.parametrize("name", ["pandas", "nullable", "objects"])
@pytest.mark.parametrize("size", [37, 251])
def test_properties_schema_does_not_depend_on_the_parts_of_a_stream(name, size, frames, usual):
    frame = frames(name)
    parts = [frame[i : i + size] for i in range(0, N, size)]
    if name == "pandas":  # each part as its own cells would be read
        parts = [pd.read_csv(io.StringIO(part.to_csv(index=False))) for part in parts]
    encoder = TableEncoder.fit(in_memory(parts, 0))
    assert essence(encoder) == essence(usual)


@pytest.mark.parametrize("n_numbers", [5, 40])
def test_numbers_that_differ_by_a_rounding_are_one(n_numbers):
    """Of a file that keeps numbers as float32, or sums of decimals: in columns of few and of many numbers."""
    values = np.arange(1, n_numbers + 1) ** 2 / 10  # most of their lattice is left out
    encoder = TableEncoder.fit(pd.DataFrame({"v": np.tile(values, 60)}), handle_unknown="smooth")
    asked = [
        values,
        values.astype(np.float32),
        values + np.spacing(values),
        values + 1e-4 * (values > 0.1),
    ]
    exact, single, summed, new = (encoder.transform(pd.DataFrame({"v": v})) for v in asked)
    for near in (single, summed):
        np.testing.assert_allclose(near.x, exact.x, atol=1e-5)
        np.testing.assert_allclose(near.log_volume, exact.log_volume, atol=1e-5)
    unseen = (new.x == encoder.schema[0].codec.n_levels) | (new.log_volume < exact.log_volume - 1)
    assert unseen[:, 0].tolist() == [False] + [True] * (n_numbers - 1)


def test_whole_numbers_that_are_one_as_float32_stay_apart():
    ids = np.array([2.0**24, 2.0**24 + 1, 0.5])
    encoder = TableEncoder.fit(
        pd.DataFrame({"v": np.tile(ids[[0, 2]], 60)}), handle_unknown="smooth"
    )
    x = encoder.transform(pd.DataFrame({"v": ids})).x[:, 0]
    assert (x == encoder.schema[0].codec.n_levels).tolist() == [False, True, False]
