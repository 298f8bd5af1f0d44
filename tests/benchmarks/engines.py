"""The same Parquet folder scored locally, on Dask, Ray Data and Spark: rows per second, overhead, equality to the bit.

    python -m tests.benchmarks.engines --rows 400000
    python -m tests.benchmarks.engines --rows 20000 --engines local dask

Needs the extras ``dask``, ``ray`` and ``spark`` (the last with Java 17 or later), and pgmpy for the table: rows
of the network "insurance" (27 columns) with a key, in 16 files. The model is an exact density of it. Each engine has
two workers and reads, scores and writes Parquet; ``nothing`` is the same job with a function that returns its input, so
the difference of the two is the time of scores, and the rest the engine's. Jobs run once before they are timed: the
first loads the library in each worker, which is listed by itself. ``local`` is one process and one thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.scale import BatchScoring
from tests.benchmarks.tables import machine, markdown
from tests.examples import recipe
from tests.networks import load_bayesian_network

WORKERS = 2
FILES = 16
BATCH = 1 << 14
TRAIN_ROWS = 20_000

Job = Callable[[bool, Path], None]  # whether to score, and where to write


@dataclass(frozen=True)
class Work:
    """A folder to score, and by what."""

    folder: Path
    scoring: BatchScoring

    @property
    def files(self) -> list[str]:
        return sorted(str(path) for path in self.folder.glob("*.parquet"))


# -- engines: each yields a job --------------------------------------------------------------------


@contextmanager
def local(work: Work) -> Iterator[Job]:
    """One process and one thread, file by file."""
    torch.set_num_threads(1)

    def job(scored: bool, out: Path) -> None:
        out.mkdir()
        for i, path in enumerate(work.files):
            with pq.ParquetFile(path) as file:
                batches = file.iter_batches(BATCH)
                parts = list(work.scoring.over(batches) if scored else batches)
            pq.write_table(pa.Table.from_batches(parts), out / f"{i}.parquet")

    yield job


@contextmanager
def dask(work: Work) -> Iterator[Job]:
    """A LocalCluster of two processes, one thread each."""
    import dask.dataframe
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):

        def job(scored: bool, out: Path) -> None:
            frame = dask.dataframe.read_parquet(work.files, split_row_groups=False)
            frame = (
                recipe("scale", "score_dask")(frame, work.scoring)
                if scored
                else frame.map_partitions(same)
            )
            frame.to_parquet(out, write_index=False)

        yield job


@contextmanager
def ray(work: Work) -> Iterator[Job]:
    """A local Ray with two actors, and a third slot so that reading does not wait for them."""
    import ray
    import ray.data

    ray.init(
        num_cpus=WORKERS + 1, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:

        def job(scored: bool, out: Path) -> None:
            rows = ray.data.read_parquet(str(work.folder))
            if scored:
                rows = recipe("scale", "score_ray")(rows, work.scoring, WORKERS)
            else:
                pool = ray.data.ActorPoolStrategy(min_size=1, max_size=WORKERS)
                rows = rows.map_batches(
                    Same, compute=pool, num_cpus=1, batch_size=BATCH, batch_format="pyarrow"
                )
            rows.write_parquet(str(out))

        yield job
    finally:
        ray.shutdown()


@contextmanager
def spark(work: Work) -> Iterator[Job]:
    """Spark's local mode with two cores."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers run this Python
    builder = SparkSession.builder.master(f"local[{WORKERS}]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:

        def job(scored: bool, out: Path) -> None:
            frame = session.read.parquet(*work.files)
            empty = frame.mapInArrow(all_same, frame.schema)
            frame = recipe("scale", "score_spark")(frame, work.scoring) if scored else empty
            frame.write.parquet(str(out))

        yield job
    finally:
        session.stop()


ENGINES = {"local": local, "dask": dask, "ray": ray, "spark": spark}


def same(batch):
    """The empty function."""
    return batch


class Same:
    """The empty function, of an actor."""

    def __call__(self, batch):
        return batch


def all_same(batches):
    """The empty function of a stream."""
    yield from batches


# -- measurement -----------------------------------------------------------------------------------


def main() -> None:
    """Print the table and the cost model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        work = prepared(Path(folder), options.rows)
        size = sum(os.path.getsize(path) for path in work.files)
        print(f"{options.rows} rows x 28 columns, {FILES} files, {size / 1e6:.1f} MB\n")
        lines, measured, truth = [], {}, None
        for name in options.engines:
            first, scored, nothing, answers = measure(name, work, Path(folder), options.repeats)
            truth = answers if truth is None else truth
            measured[name] = options.rows / scored
            lines.append(
                [
                    name,
                    f"{first:.1f}",
                    f"{scored:.2f}",
                    f"{nothing:.2f}",
                    f"{options.rows / scored:,.0f}",
                    f"{nothing / scored:.0%}",
                    "yes" if truth.equals(answers) else "NO",
                ]
            )
        columns = ["engine", "first job, s", "job, s", "nothing, s", "rows / s", "not scores"]
        print(markdown([*columns, "equal to the bit"], lines))
        print()
        print(markdown(["engine", *COSTS], [cost(n, lines, options.rows, size) for n in measured]))
        print(ASSUMPTIONS)


def prepared(folder: Path, n: int) -> Work:
    """The folder of Parquet files and the model."""
    network = load_bayesian_network("insurance")
    model = DiffusionDensity(denoiser="bayes_net", random_state=0)
    model.fit(network.sample(TRAIN_ROWS, random_state=0)).save(folder / "m.safetensors")
    rows = network.sample(n, random_state=1)
    rows.insert(0, "key", np.arange(n))
    (folder / "in").mkdir()
    for i, part in enumerate(np.array_split(np.arange(n), FILES)):
        rows.iloc[part].to_parquet(folder / "in" / f"{i:02}.parquet", index=False)
    return Work(folder / "in", BatchScoring(folder / "m.safetensors", keep=["key"]))


def measure(
    name: str, work: Work, folder: Path, repeats: int
) -> tuple[float, float, float, pd.DataFrame]:
    """Seconds of the first job, the least of a later one and of one that does nothing, and the answers by key."""
    out, seconds = folder / "out", {}
    with ENGINES[name](work) as job:
        for run, scored in [("first", True), *[(True, True), (False, False)] * repeats]:
            shutil.rmtree(out, ignore_errors=True)
            start = time.perf_counter()
            job(scored, out)
            seconds.setdefault(run, []).append(time.perf_counter() - start)
            if run == "first":
                answers = pd.concat(map(pd.read_parquet, sorted(out.rglob("*.parquet"))))
                answers = answers.sort_values("key", ignore_index=True)
                answers = answers[["key", "log_prob", "stderr"]]
    return seconds["first"][0], min(seconds[True]), min(seconds[False]), answers


# -- on paper --------------------------------------------------------------------------------------

ROWS, CORES, PRICE = 1e9, 100, 0.05
COSTS = ("µs per row and core", "s to start", "minutes", "core hours", "price", "GB to read")
ASSUMPTIONS = f"""
On paper: {ROWS:.0e} rows on {CORES} workers of one core each, like the two here.
* rows are independent, so the time of a job is (rows x seconds per row and core) / workers + the start of a worker;
  seconds per row and core = (time of a later job here x the cores that its workers had, 1 for local) / rows
* the start is the first job here less a later one: the library is imported and the model read once in each worker;
  where workers shared cores at that moment, as here, it is an upper bound
* all workers take an equal share; stragglers, failures and the queue of the cluster are left out
* storage delivers: each worker reads the bytes of its rows as Parquet, in the size per row measured here
* a core hour costs {PRICE:g} units of money; put in your own
"""


def cost(name: str, lines: list[list[str]], n: int, size: int) -> list[str]:
    """A line of the cost model, from the line of the measurement."""
    line = next(line for line in lines if line[0] == name)
    first, scored = float(line[1]), float(line[2])
    cores = 1 if name == "local" else min(WORKERS, len(os.sched_getaffinity(0)))
    per_row = scored * cores / n
    start = max(0.0, first - scored)
    seconds = ROWS * per_row / CORES + start
    hours = seconds * CORES / 3600
    return [
        name,
        f"{1e6 * per_row:.1f}",
        f"{start:.0f}",
        f"{seconds / 60:.1f}",
        f"{hours:.1f}",
        f"{PRICE * hours:.2f}",
        f"{size / n * ROWS / 1e9:.0f}",
    ]


if __name__ == "__main__":
    main()
