"""Scores of a stream of batches, pandas frames or Arrow's: one function of a batch, which every engine can run.

:class:`BatchScoring` holds the path of a model and no model, so it can be sent to any worker; the worker's process
reads the file once. Scores depend on the row and the model alone: they equal the scores of the whole table to the last
bit, however it is divided into batches.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from discrete_itd.detection.answers import answer_types, answers, checked_outputs, density_of
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.storage.values import load_one_of
from discrete_itd.validation import check_integer

if TYPE_CHECKING:
    import pyarrow as pa

    from discrete_itd.detection.answers import Estimator

Batch = TypeVar("Batch")

_lock = threading.Lock()


@dataclass(frozen=True)
class BatchScoring:
    """Outputs to compute for each batch, and the model: a function of a batch that can be sent to workers.

    Parameters
    ----------
    model_path : path-like
        A file written by ``save`` of a :class:`DiffusionDensity` or a :class:`DiffusionOutlierDetector`, at a path that
        every worker can read, whatever its working folder.
    outputs : sequence of str, optional
        Results that become columns, in this order; by default "log_prob" and "stderr" for a density, "score",
        "p_value", "alarm", "unreadable" and "reason" for a detector.

        * "log_prob", "stderr": as in ``log_prob``.
        * "nats": ``nats_<column>`` for each column of the model, as in ``explain``.
        * "score", "p_value", "alarm": as in the detector's ``score_samples``, ``p_values`` and ``predict``. A detector
          without calibration rows has missing p-values.
        * "unreadable": the cells of the row that are no number or date in a column of these, which raise an alarm
          whatever the score; missing in other rows.
        * "reason": for rows that raise an alarm, the cells of the detector's ``reasons``: ``reason``, sentences
          about them, and ``reason_1``, the column of the first, ``reason_1_excess_nats`` and so on. All are missing in
          other rows, and the numbered ones where there are fewer cells; where there is none, ``reason`` says so.
    keep : sequence of column names, optional
        Columns of the input that are kept, before the results; by default all.
    n_reasons : int
        Maximal number of cells per reason.
    device : str
        Where the model is to run.
    trusted : tuple of type
        Classes that the file may name, as in :meth:`DiffusionDensity.load`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from discrete_itd import DiffusionDensity
    >>> frame = pd.DataFrame({"id": range(100), "a": ["x", "y"] * 50})
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "model.safetensors"
    >>> DiffusionDensity(denoiser="independent", random_state=0).fit(frame[["a"]]).save(path, card=False)
    >>> for batch in BatchScoring(path, keep=["id"]).over([frame[:3], frame[3:4]]):
    ...     print(list(batch), len(batch))
    ['id', 'log_prob', 'stderr'] 3
    ['id', 'log_prob', 'stderr'] 1
    >>> folder.cleanup()
    """

    model_path: str | os.PathLike[str]
    outputs: Sequence[str] | None = None
    keep: Sequence[Hashable] | None = None
    n_reasons: int = 1
    device: str = "cpu"
    trusted: tuple[type, ...] = ()

    def model(self) -> Estimator:
        """The model in this process, read at the first request and again if the file has changed.

        Threads that request it at the same time wait for one reading. It is shared and must not be changed. An OSError
        or ValueError if the file cannot be read as a model.
        """
        path = os.path.realpath(self.model_path)
        with _lock:
            status = os.stat(path)
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            return _read(path, stamp, self.device, tuple(self.trusted))

    def __call__(self, batch: Batch) -> Batch:
        """The results for one batch; see :meth:`over`."""
        return next(self.over([batch]))

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Score batches lazily, one after the other.

        Parameters
        ----------
        batches : iterable of DataFrame, RecordBatch or Table
            Sizes and types may differ; some may be empty. Columns are found by name, in any order; a model that was
            fitted to an array takes all columns by position.

        Returns
        -------
        iterator of DataFrame, RecordBatch or Table
            For each batch one of its type, with a row for each row: the columns to keep, then the results.

        Raises
        ------
        OSError, ValueError, TypeError
            At once, if the model cannot be read or does not have the outputs; with a batch, naming a column that is
            absent, holds a value that the model cannot take, or has the name of a result.
        """
        check_integer("n_reasons", self.n_reasons, 1)
        if isinstance(self.keep, str):
            raise TypeError(f"keep must be a list of names, got the string {self.keep!r}")
        model = self.model()
        outputs = checked_outputs(model, self.outputs)
        return (self._scored(model, outputs, batch) for batch in batches)

    def _scored(self, model: Estimator, outputs: tuple[str, ...], batch: Any) -> Any:
        names = _names(batch)
        for name in self.keep or ():
            if name not in names:
                raise ValueError(f"column {name!r}: named in keep=, but the batch lacks it")
        kept = [names.index(name) for name in (names if self.keep is None else self.keep)]
        taken = answer_types(model, outputs, self.n_reasons)
        for name in {str(names[i]) for i in kept} & set(taken):
            raise ValueError(f"column {name!r}: also the name of an answer; leave it out of keep=")
        frame = _read_columns(density_of(model), batch, names)
        rows = density_of(model).rows(frame) if len(frame) else None
        results = answers(model, rows, outputs, n_reasons=self.n_reasons)
        return _extended(batch, kept, results)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The Arrow schema of the results for batches with a schema; no row is scored."""
        return self(schema.empty_table()).schema


# -- batches of pandas and of Arrow -----------------------------------------------------------------


def _names(batch: Any) -> list:
    """The names of the columns of a batch; TypeError if it is not one."""
    if isinstance(batch, pd.DataFrame):
        return list(batch.columns)
    # an Arrow batch exists only if pyarrow has been imported
    if type(batch).__module__.partition(".")[0] == "pyarrow" and hasattr(batch, "select"):
        return batch.schema.names
    raise TypeError(
        f"a batch must be a pandas DataFrame, or an Arrow RecordBatch or Table, got {type(batch).__name__}"
    )


def _read_columns(density: DiffusionDensity, batch: Any, names: list) -> pd.DataFrame:
    """The columns that the model reads, under the model's names, as Arrow's names are all text.

    A model fitted to an array takes all columns by position. A ValueError names a column that is absent or repeats.
    """
    known = {str(column.name): column.name for column in density.encoder_.schema}
    texts = [str(name) for name in names]
    places = list(range(len(texts)))
    if hasattr(density, "feature_names_in_"):
        for text, name in known.items():
            n = texts.count(text)
            if n != 1:
                what = "the batch lacks it" if not n else "the batch has several of this name"
                raise ValueError(f"column {name!r}: the model needs it, but {what}")
        places = [texts.index(text) for text in known]
    if isinstance(batch, pd.DataFrame):
        frame = batch.iloc[:, places].reset_index(drop=True)
    else:
        import pyarrow as pa

        arrays = [batch.column(i) for i in places]
        # decode dictionaries: one may hold nulls, or a value twice
        arrays = [
            a.cast(a.type.value_type) if pa.types.is_dictionary(a.type) else a for a in arrays
        ]
        # Arrow's types do not depend on the nulls of the batch
        table = pa.table(arrays, names=[str(i) for i in places])
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    if hasattr(density, "feature_names_in_"):
        return frame.set_axis([*known.values()], axis=1)
    return frame.set_axis(range(len(places)), axis=1)


def _extended(batch: Any, columns: Sequence[int], results: pd.DataFrame) -> Any:
    """A batch of the same type: ``columns`` of it, by position, without a copy, then the results, NaN as null."""
    if isinstance(batch, pd.DataFrame):  # keep its index
        return pd.concat([batch.iloc[:, list(columns)], results.set_axis(batch.index)], axis=1)
    import pyarrow as pa

    fields = [batch.schema.field(i) for i in columns]
    arrays: list[Any] = [batch.column(i) for i in columns]
    for name, values in results.items():
        kind = {"f": pa.float64(), "b": pa.bool_()}.get(values.dtype.kind, pa.string())
        array = pa.array(values, type=kind, from_pandas=True)
        # a record batch cannot hold chunked arrays, as of strings
        arrays.append(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        fields.append(pa.field(str(name), kind))
    return type(batch).from_arrays(arrays, schema=pa.schema(fields))


# -- models of a process ----------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _read(path: str, _stamp: tuple[int, ...], device: str, trusted: tuple[type, ...]) -> Estimator:
    """The model in a file, cached until the file and hence its stamp changes."""
    return read_model(path, device, trusted)


def read_model(
    path: str | os.PathLike[str], device: str = "auto", trusted: Sequence[type] = ()
) -> Estimator:
    """The density or the detector in a file."""
    classes = DiffusionDensity, DiffusionOutlierDetector
    return load_one_of(path, classes, device=device, trusted=trusted)
