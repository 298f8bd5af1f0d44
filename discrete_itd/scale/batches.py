"""Scores of a stream of batches, pandas frames or Arrow's: one function of a batch, which every engine can run.

:class:`BatchScoring` holds the path of a model and no model, so it can be sent to any worker; the worker's process
reads the file once. Scores depend on the row and the model alone: they are those of the whole table to the last bit,
however it is divided into batches.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pandas as pd
from pandas.api.types import pandas_dtype

from discrete_itd.detection import outside
from discrete_itd.detection.answers import (
    answer_types,
    answers,
    checked_outputs,
    density_of,
)
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.storage.stored import load_one_of
from discrete_itd.validation import check_integer, warn

if TYPE_CHECKING:
    import pyarrow as pa

    from discrete_itd.detection.answers import Estimator
    from discrete_itd.encoders import Rows

NULLABLE = {  # pandas' dtypes of Arrow's integers and booleans
    name.lower(): pandas_dtype(name)
    for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
} | {"bool": pandas_dtype("boolean")}

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
        As in :meth:`DiffusionDensity.load`.

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
        return _score(self, *self._checked(), batch)[1]

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

        Warns
        -----
        UserWarning
            After the last batch, as a detector's ``predict`` does of many rows outside of training.
        """
        return self._over(*self._checked(), batches)

    def _over(
        self, model: Estimator, outputs: tuple[str, ...], batches: Iterable[Batch]
    ) -> Iterator[Batch]:
        schema = density_of(model).encoder_.schema
        n_rows, n_outside = 0, np.zeros(len(schema), dtype=np.int64)
        for batch in batches:
            rows, found = _score(self, model, outputs, batch)
            if rows is not None:
                n_rows, n_outside = n_rows + len(rows), n_outside + rows.is_outside.sum(0)
            yield found
        stated = {"alarm", "p_value", "reason"} & set(outputs)
        if stated and (told := outside.sentence(n_outside, n_rows, schema)):
            warn(told)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The Arrow schema of the results for batches with a schema; no row is scored."""
        return self(schema.empty_table()).schema

    def _checked(self) -> tuple[Estimator, tuple[str, ...]]:
        check_integer("n_reasons", self.n_reasons, 1)
        if isinstance(self.keep, str):
            raise TypeError(f"keep must be a list of names, got the string {self.keep!r}")
        model = self.model()
        return model, checked_outputs(model, self.outputs)


def _score(
    scoring: BatchScoring, model: Estimator, outputs: tuple[str, ...], batch: Any
) -> tuple[Rows | None, Any]:
    """The rows of a batch, None if there are none, and the results."""
    names = _names(batch)
    known = density_of(model).encoder_.names
    kept = list(range(len(names)))
    if scoring.keep is not None:
        for name in scoring.keep:
            if name not in names:
                raise ValueError(f"column {name!r}: named in keep=, but the batch lacks it")
        kept = [names.index(name) for name in scoring.keep]
    taken = answer_types(model, outputs, scoring.n_reasons)
    for name in {str(names[i]) for i in kept} & set(taken):
        raise ValueError(f"column {name!r}: also the name of an answer; leave it out of keep=")
    frame = _frame(batch, _positions_of_model(model, names)).set_axis(known, axis=1)
    rows = density_of(model).rows(frame.reset_index(drop=True)) if len(frame) else None
    return rows, _extended(batch, kept, answers(model, rows, outputs, n_reasons=scoring.n_reasons))


def _positions_of_model(model: Estimator, names: list) -> list[int]:
    """Positions of the model's columns in a batch: by name, or the name as a string, since Arrow has no other names.

    A ValueError names a column that is absent or occurs more than once.
    """
    encoder = density_of(model).encoder_
    known, texts = encoder.names, [str(name) for name in names]
    from_array = not hasattr(model, "feature_names_in_")
    fitting = len(texts) in (len(known), len(encoder.all_names))
    if from_array and fitting and not {str(n) for n in known} <= set(texts):
        return encoder.at_positions(pd.DataFrame(columns=range(len(texts))))
    for name in known:
        n = texts.count(str(name))
        if n != 1:
            what = "the batch lacks it" if not n else "the batch has several of this name"
            raise ValueError(f"column {name!r}: the model needs it, but {what}")
    return [texts.index(str(name)) for name in known]


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


def _frame(batch: Any, columns: Sequence[int]) -> pd.DataFrame:
    """Some columns of a batch, by position, as a frame."""
    if isinstance(batch, pd.DataFrame):
        return cast(pd.DataFrame, batch.iloc[:, list(columns)])
    import pyarrow as pa

    arrays: list[Any] = []
    for i in columns:
        array = batch.column(i)
        if pa.types.is_dictionary(array.type):  # its categories may be missing or repeated
            array = array.cast(array.type.value_type)
        is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        # each string is then parsed once, not in each cell
        arrays.append(array.dictionary_encode() if is_text else array)
    # nullable dtypes: with numpy's, a batch with a missing cell would hold other types than one without, and
    # integers beyond 2^53 other values
    return pa.table(arrays, names=[str(i) for i in columns]).to_pandas(
        types_mapper=lambda kind: NULLABLE.get(str(kind)), date_as_object=False
    )


def _extended(batch: Any, columns: Sequence[int], found: pd.DataFrame) -> Any:
    """A batch of the same type: some of its columns, by position, not copied, then the results, NaN as null."""
    if isinstance(batch, pd.DataFrame):  # the index stays
        return pd.concat([batch.iloc[:, list(columns)], found.set_axis(batch.index)], axis=1)
    import pyarrow as pa

    fields = [batch.schema.field(i) for i in columns]
    arrays: list[Any] = [batch.column(i) for i in columns]
    for name, values in found.items():
        kind = {"f": pa.float64(), "b": pa.bool_()}.get(values.dtype.kind, pa.string())
        array = pa.array(values, type=kind, from_pandas=True)
        # strings may be chunked, which a record batch cannot hold
        arrays.append(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        fields.append(pa.field(str(name), kind))
    return type(batch).from_arrays(arrays, schema=pa.schema(fields))


# -- models of a process ----------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _read(path: str, _stamp: tuple[int, ...], device: str, trusted: tuple[type, ...]) -> Estimator:
    """The model in a file; the stamp changes when the file does."""
    return read_model(path, device, trusted)


def read_model(
    path: str | os.PathLike[str], device: str = "auto", trusted: Sequence[type] = ()
) -> Estimator:
    """The density or the detector in a file."""
    classes = DiffusionDensity, DiffusionOutlierDetector
    return load_one_of(path, classes, device=device, trusted=trusted)
