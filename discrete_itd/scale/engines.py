"""Batch scoring on engines: Dask, Ray Data and Spark. Each is an extra of that name.

A worker gets the path of the model and loads it once; where workers do not share the file system, copy the file to the
same path on each first. A worker refuses a file with another content. Engines run a worker for every core, so torch
uses one thread in each, unless ``n_threads`` is set.

Results are evaluated lazily. An ImportError names the extra that is missing; errors about the model, and with Dask and
Spark about the columns, are those of :meth:`~discrete_itd.scale.BatchScoring.over`, and raised at once.
"""

# the packages are extras: types are checked where they are not installed, too
# pyright: reportMissingImports=false

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from discrete_itd.scale.batches import BatchScoring

if TYPE_CHECKING:
    import dask.dataframe
    import pyarrow as pa
    import pyspark.sql
    import ray.data


def score_dask(frame: dask.dataframe.DataFrame, scoring: BatchScoring) -> dask.dataframe.DataFrame:
    """The frame with results, by partitions.

    Examples
    --------
    >>> import pandas as pd
    >>> import tempfile
    >>> from pathlib import Path
    >>> from discrete_itd import DiffusionDensity
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50})
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "model.safetensors"
    >>> DiffusionDensity(denoiser="independent", random_state=0).fit(frame).save(path, card=False)
    >>> import dask.dataframe
    >>> scored = score_dask(dask.dataframe.from_pandas(frame, npartitions=2), BatchScoring(path))
    >>> scored.compute().shape
    (100, 3)
    >>> folder.cleanup()
    """
    _need("dask")
    from dask.dataframe.dispatch import make_meta

    scoring = scoring.pinned(n_threads=1)
    return frame.map_partitions(scoring, meta=scoring(make_meta(frame)))


def score_ray(
    dataset: ray.data.Dataset,
    scoring: BatchScoring,
    *,
    n_workers: int,
    batch_size: int | None = 1 << 14,
) -> ray.data.Dataset:
    """The dataset with results, by a pool of actors.

    Parameters
    ----------
    dataset : ray.data.Dataset
    scoring : BatchScoring
    n_workers : int
        Largest number of actors; each uses a core and keeps the model. The pool starts with one: while actors hold all
        cores nothing can read the rows that they wait for.
    batch_size : int, optional
        Rows at once; None for the blocks of the dataset.
    """
    _need("ray")
    from ray.data import ActorPoolStrategy

    scoring = scoring.pinned(n_threads=1)
    scoring.model()  # errors of the model are raised here, not by a worker
    return dataset.map_batches(
        Actor,
        fn_constructor_args=(scoring,),
        compute=ActorPoolStrategy(min_size=1, max_size=n_workers),
        num_cpus=1,
        batch_size=batch_size,
        batch_format="pyarrow",
    )


def score_spark(frame: pyspark.sql.DataFrame, scoring: BatchScoring) -> pyspark.sql.DataFrame:
    """The frame with results, by ``mapInArrow``."""
    _need("pyspark", "spark")
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    scoring = scoring.pinned(n_threads=1)
    schema = from_arrow_schema(scoring.schema(to_arrow_schema(frame.schema)))
    return frame.mapInArrow(scoring.over, schema)


class Actor:
    """A worker of Ray, which loads the model when it starts."""

    def __init__(self, scoring: BatchScoring) -> None:
        self.scoring = scoring
        scoring.model()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.scoring(batch)


def _need(package: str, extra: str | None = None) -> None:
    """Raise an ImportError that names the extra, if a package is not installed."""
    if find_spec(package) is None:
        name = extra or package
        raise ImportError(f"{package} is not installed: pip install 'discrete-itd[{name}]'")
