"""What a pandas dtype is, and dtypes as plain data: the one place that tells dtypes apart."""

from __future__ import annotations

from typing import Any, Literal, TypeGuard, cast

import numpy as np
import pandas as pd
from pandas.api.types import pandas_dtype

Family = Literal["boolean", "integer", "float", "datetime", "timedelta", "category", "other"]
FAMILIES: dict[str, Family] = {
    "b": "boolean",
    "i": "integer",
    "u": "integer",
    "f": "float",
    "M": "datetime",
    "m": "timedelta",
}
TIMES = ("datetime", "timedelta")


def is_category(dtype: Any) -> TypeGuard[pd.CategoricalDtype]:
    """Whether it is pandas' ``category``."""
    return isinstance(dtype, pd.CategoricalDtype)


def family(dtype: Any) -> Family:
    """What the values of a dtype are, be it numpy's, nullable, sparse or of Arrow."""
    return "category" if is_category(dtype) else FAMILIES.get(dtype.kind, "other")


def is_dictionary(dtype: Any) -> bool:
    """Whether it is an Arrow dictionary, the categories of Arrow."""
    return isinstance(dtype, pd.ArrowDtype) and "dictionary" in str(dtype)


def time_unit(dtype: Any) -> str:
    """The unit, "s" to "ns", of a dtype of times."""
    if isinstance(dtype, pd.ArrowDtype):
        return getattr(dtype.pyarrow_dtype, "unit", "s")  # dates have none
    return dtype.unit if isinstance(dtype, pd.DatetimeTZDtype) else np.datetime_data(dtype)[0]


def has_time_zone(dtype: Any) -> bool:
    """Whether times of the dtype have a time zone."""
    zoned = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else dtype
    return getattr(zoned, "tz", None) is not None


def numpy_name(dtype: Any) -> str:
    """The name of the numpy dtype of numbers of that size."""
    if isinstance(dtype, pd.SparseDtype):
        return str(dtype.subtype)
    return str(getattr(dtype, "numpy_dtype", dtype))


def holding_missing(dtype: Any, any_missing: bool) -> Any:
    """The dtype, or its nullable counterpart if a cell is missing and numpy's dtype cannot represent that."""
    if any_missing and isinstance(dtype, np.dtype) and dtype.kind in "biu":
        name = dtype.newbyteorder("=").name
        return pandas_dtype(
            {"b": "boolean"}.get(dtype.kind) or name.replace("int", "Int").replace("uI", "UI")
        )
    return dtype


def check_supported(name: Any, dtype: Any) -> None:
    """ValueError, naming the column, if values of the dtype cannot be read or the dtype cannot be saved."""
    advice = None
    if isinstance(dtype, pd.PeriodDtype):
        advice = "convert it with .dt.to_timestamp() or to text"
    elif isinstance(dtype, pd.IntervalDtype):
        advice = "cut with labels=False, or give the numbers with kind='binned'"
    elif dtype.kind == "c":
        advice = "split it into its real and imaginary parts"
    elif not is_category(dtype):
        try:
            known = dtype_from_json(dtype_to_json(dtype)) == dtype
        except (TypeError, ValueError, LookupError):
            known = False
        advice = None if known else "convert it first"
    if advice is not None:
        raise ValueError(f"column {name!r}: values of dtype {dtype} are not supported; {advice}")


def dtype_to_json(dtype: Any) -> str | dict[str, Any]:
    """Plain data from which :func:`dtype_from_json` makes the dtype; its categories are not included."""
    if is_category(dtype):
        categories = dtype_to_json(dtype.categories.dtype)
        return {"categories": categories, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype):
        return {"string": str(dtype.storage), "nan": dtype.na_value is not pd.NA}
    if isinstance(dtype, pd.ArrowDtype):
        arrow: Any = dtype.pyarrow_dtype
        if str(arrow).startswith("dictionary"):
            kinds = {"arrow": str(arrow.value_type), "index": str(arrow.index_type)}
            return {**kinds, "ordered": bool(arrow.ordered)}
        return {"arrow": str(arrow)}
    return str(dtype)


def dtype_from_json(data: Any) -> Any:
    """The dtype that :func:`dtype_to_json` wrote, without categories.

    Raises
    ------
    TypeError, ValueError, LookupError
        If the data describe no dtype, or one of a package that is not installed.
    """
    if isinstance(data, str):
        return pandas_dtype(data)
    if "categories" in data:
        none = pd.Index([], dtype=dtype_from_json(data["categories"]))
        return pd.CategoricalDtype(none, ordered=data["ordered"])
    try:
        if "string" in data:
            missing = {"na_value": np.nan} if data["nan"] else {}
            return pd.StringDtype(data["string"], **missing)
        import pyarrow as pa

        if data["arrow"] in ("string", "date64[ms]"):  # pandas reads these names as something else
            arrow: Any = pa.type_for_alias(data["arrow"])
        else:
            arrow = cast(Any, pandas_dtype(f"{data['arrow']}[pyarrow]")).pyarrow_dtype
        if "index" in data:
            arrow = pa.dictionary(pa.type_for_alias(data["index"]), arrow, data["ordered"])
        return pd.ArrowDtype(arrow)
    except (ImportError, NotImplementedError) as error:
        raise ValueError(f"dtype {data!r}: {error}") from None
