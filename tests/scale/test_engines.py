"""Engines, by the recipes of the guide, give the answers of the model to the last bit."""

import os
import shutil
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.scale import BatchScoring
from tests.examples import levels, recipe

pytest.importorskip("pyarrow")

pytestmark = [
    pytest.mark.single_precision,
    pytest.mark.filterwarnings("ignore"),  # of the engines and what they import
]


def table(n=90):
    frame = levels(n).drop(columns="kind").assign(key=np.arange(n))
    frame.loc[::7, "word"] = None
    frame.loc[::5, "size"] = None
    frame.loc[n - 3 :, "word"] = "odd"
    return frame


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder of Parquet files, a detector's file, and the answers of the detector itself."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("job")
    frame = table()
    density = DiffusionDensity(denoiser="tree")
    detector = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0)
    X = frame.drop(columns="key")
    detector.fit(X[:-3]).save(folder / "m")
    (folder / "in").mkdir()
    for i in range(3):
        frame[30 * i : 30 * i + 30].to_parquet(folder / "in" / f"{i}.parquet", index=False)
    wanted = pd.DataFrame(
        {
            "key": frame["key"],
            "score": detector.score_samples(X),
            "p_value": detector.p_values(X),
            "alarm": detector.predict(X) == -1,
        }
    )
    return folder, wanted


def check(frame, wanted):
    """The answers of an engine are those of the model, and reasons are given for alarms alone."""
    got = frame.sort_values("key", ignore_index=True)
    others = ["unreadable", "reason", "reason_1", "reason_1_excess_nats"]
    assert list(got) == [*wanted, *others]
    for name, values in wanted.items():
        assert np.array_equal(got[name].to_numpy(), values.to_numpy()), name
    assert got["reason"].notna().tolist() == wanted["alarm"].tolist()
    assert wanted["alarm"].any()


def test_dask(job, monkeypatch):
    pytest.importorskip("dask.dataframe")
    import dask.dataframe

    folder, wanted = job
    monkeypatch.chdir(folder)
    rows = dask.dataframe.read_parquet(folder / "in")
    score_dask = recipe("scale", "score_dask")
    scored = score_dask(rows, BatchScoring(folder / "m", keep=["key"]))
    monkeypatch.chdir(folder / "in")  # workers have folders of their own
    got = scored.compute(scheduler="threads", num_workers=2)
    assert list(scored.columns) == list(got.columns)
    check(got, wanted)
    with pytest.raises(ValueError, match="column 'size': the model needs it"):
        score_dask(rows.drop(columns="size"), BatchScoring(folder / "m"))


@contextmanager
def dask_cluster(folder):
    pytest.importorskip("distributed")
    import dask.dataframe
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        rows = dask.dataframe.read_parquet(folder / "in", split_row_groups=False)
        yield lambda scoring: recipe("scale", "score_dask")(rows, scoring).compute()


@contextmanager
def local_ray(folder):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        rows = ray.data.read_parquet(str(folder / "in"))
        yield lambda scoring: recipe("scale", "score_ray")(rows, scoring, 2).to_pandas()
    finally:
        ray.shutdown()


@contextmanager
def local_spark(folder):
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("no Java")
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 20).getOrCreate()
    try:
        rows = session.read.parquet(str(folder / "in"))
        yield lambda scoring: recipe("scale", "score_spark")(rows, scoring).toPandas()
    finally:
        session.stop()


@pytest.mark.slow
@pytest.mark.parametrize("engine", [dask_cluster, local_ray, local_spark])
def test_workers_of_their_own(job, engine):
    folder, wanted = job
    with engine(folder) as score:
        check(score(BatchScoring(folder / "m", keep=["key"])), wanted)
