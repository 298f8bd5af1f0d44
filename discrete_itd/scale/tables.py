"""Batches as engines hand them over: pandas frames, and Arrow record batches or tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa


class Kind(Protocol):
    """What is done with a batch of one kind."""

    def names(self, batch: Any) -> list:
        """The names of its columns."""
        ...

    def frame(self, batch: Any, columns: Sequence[int], rows: slice) -> pd.DataFrame:
        """Some of its columns and rows, by position, as a frame."""
        ...

    def extended(self, batch: Any, columns: Sequence[int], answers: pd.DataFrame) -> Any:
        """A batch of the same kind: some of its columns, by position, then those of ``answers``."""
        ...


class Pandas:
    """Frames; the index stays."""

    def names(self, batch: pd.DataFrame) -> list:
        return list(batch.columns)

    def frame(self, batch: pd.DataFrame, columns: Sequence[int], rows: slice) -> pd.DataFrame:
        return cast(pd.DataFrame, batch.iloc[rows, list(columns)])

    def extended(
        self, batch: pd.DataFrame, columns: Sequence[int], answers: pd.DataFrame
    ) -> pd.DataFrame:
        kept = batch.iloc[:, list(columns)]
        return pd.concat([kept, answers.set_axis(batch.index)], axis=1)


class Arrow:
    """Record batches and tables; kept columns are not copied, and NaN in an answer is null."""

    def names(self, batch: pa.RecordBatch | pa.Table) -> list:
        return batch.schema.names

    def frame(
        self, batch: pa.RecordBatch | pa.Table, columns: Sequence[int], rows: slice
    ) -> pd.DataFrame:
        import pyarrow as pa

        arrays: list[Any] = []
        for i in columns:
            array = batch.column(i).slice(rows.start, rows.stop - rows.start)
            if pa.types.is_dictionary(array.type):  # its values may be missing, or repeat
                array = array.cast(array.type.value_type)
            is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
            # each text is then read once, not in each cell
            arrays.append(array.dictionary_encode() if is_text else array)
        # nullable dtypes: with numpy's, a batch with a missing cell would hold other types than one without, and
        # integers beyond 2^53 other values
        return pa.table(arrays, names=[str(i) for i in columns]).to_pandas(
            types_mapper=_nullable().get, date_as_object=False
        )

    def extended(
        self, batch: pa.RecordBatch | pa.Table, columns: Sequence[int], answers: pd.DataFrame
    ) -> pa.RecordBatch | pa.Table:
        import pyarrow as pa

        fields = [batch.schema.field(i) for i in columns]
        arrays: list[Any] = [batch.column(i) for i in columns]
        for name, values in answers.items():
            kind = {"f": pa.float64(), "b": pa.bool_()}.get(values.dtype.kind, pa.string())
            array = pa.array(values, type=kind, from_pandas=True)
            # a column of text may come in chunks, which a record batch cannot hold
            arrays.append(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
            fields.append(pa.field(str(name), kind))
        return type(batch).from_arrays(arrays, schema=pa.schema(fields))


def kind_of(batch: Any) -> Kind:
    """What to do with a batch; TypeError if it is none."""
    if isinstance(batch, pd.DataFrame):
        return Pandas()
    # whoever has made an Arrow batch has imported pyarrow
    if type(batch).__module__.partition(".")[0] == "pyarrow" and hasattr(batch, "select"):
        return Arrow()
    raise TypeError(
        f"a batch must be a pandas DataFrame, or an Arrow RecordBatch or Table, got {type(batch).__name__}"
    )


@cache
def _nullable() -> dict[Any, Any]:
    """The nullable dtype of pandas for each of Arrow's whole numbers and truth values."""
    import pyarrow as pa

    sizes = (8, 16, 32, 64)
    whole = {
        getattr(pa, f"{sign.lower()}int{n}")(): getattr(pd, f"{sign}Int{n}Dtype")()
        for sign in ("", "U")
        for n in sizes
    }
    return {**whole, pa.bool_(): pd.BooleanDtype()}
