"""Tables and models in files, for the command line: read whole, written whole or not at all."""

from __future__ import annotations

import lzma
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.encoders import Column
from discrete_itd.storage.files import write_whole

PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
ENDINGS = ".csv, .tsv (also .gz, .bz2, .xz, .zip, .zst), .parquet"
ABSENT = ("na", "n/a", "nan", "nat", "null", "none")  # in lower case
TRUTHS = {w: w.lower() == "true" for w in ("True", "TRUE", "true", "False", "FALSE", "false")}
ISO = (
    r"^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)
ALMOST = 0.9  # share of the cells; a column so near to numbers was likely meant to be one
EXACT = 2.0**53  # integers up to here are floats
DAMAGED = (ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ImportError)


class UserError(Exception):
    """Something the user can put right; its text is the one line they see."""


def ending(path: str) -> str:
    """The kind of table that a name announces: ".csv", ".tsv" or ".parquet"."""
    endings = [s.lower() for s in Path(path).suffixes]
    if endings and endings[-1] in PACKED:
        endings.pop()
        kinds = (".csv", ".tsv")
    else:
        kinds = (".csv", ".tsv", ".parquet")
    if not endings or endings[-1] not in kinds:
        raise UserError(f"{path}: unsupported ending; a table's name ends in {ENDINGS}")
    if endings[-1] == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet needs pyarrow: pip install 'discrete-itd[parquet]'")
    return endings[-1]


def is_parquet(path: str) -> bool:
    """Whether a name announces a table whose columns have types of their own."""
    return ending(path) == ".parquet"


def read_table(path: str, text: Collection[str] = ()) -> pd.DataFrame:
    """A table; of a CSV, the columns ``text`` as strings and nothing but empty cells as missing."""
    if is_parquet(path):
        frame = _read(path, lambda: pd.read_parquet(path))
        settled = _dates_of_objects
    else:
        frame = _read_csv(path, dtype=dict.fromkeys(text, str), na_values=[""])
        settled = _despite_missing
    return pd.DataFrame({name: settled(values) for name, values in frame.items()})


def read_cells_as_written(path: str) -> pd.DataFrame:
    """A CSV with every cell the string that it is; empty cells are empty strings."""
    return _read_csv(path, dtype=str, na_filter=False)


def _read_csv(path: str, **options: Any) -> pd.DataFrame:
    sep = "\t" if ending(path) == ".tsv" else ","

    def read() -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=sep,
                index_col=False,
                keep_default_na=False,
                low_memory=False,  # one type per column
                **options,
            )

    frame = _read(path, read)
    # pandas has renamed repeated names, so look at the header itself
    header = pd.read_csv(path, sep=sep, header=None, nrows=1, dtype=str)
    _check_names(path, pd.Index(header.iloc[0].dropna()))
    return frame


def _read(path: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What ``read`` returns, if it is a table with rows and with names that differ as strings."""
    try:
        frame = read()
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the table is empty") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: rows have more cells than the header") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as {ending(path)} ({error})") from None
    if not len(frame) or not frame.shape[1]:
        raise UserError(f"{path}: the table is empty")
    _check_names(path, frame.columns.map(str))
    return frame.reset_index(drop=True)


def _check_names(path: str, names: pd.Index) -> None:
    if not names.is_unique:
        raise UserError(f"{path}: column {names[names.duplicated()][0]!r}: the name repeats")


def _dates_of_objects(values: pd.Series) -> pd.Series:
    """Parquet's dates, which pandas reads as objects, as times."""
    return pd.to_datetime(values) if _infer(values) == "date" else values


def _despite_missing(values: pd.Series) -> pd.Series:
    """Whole numbers and truth values as such, where pandas has made others of them for the sake of empty cells."""
    if values.dtype == float and values.isna().any():
        numbers = values.dropna()
        if len(numbers) and (numbers.abs() <= EXACT).all() and (numbers % 1 == 0).all():
            return values.astype("Int64")
    return values.astype("boolean") if _infer(values) == "boolean" else values


def _infer(values: pd.Series) -> str:
    """What the cells of a column of objects all are; empty for another column."""
    return pd.api.types.infer_dtype(values, skipna=True) if values.dtype == object else ""


# -- what text spells -----------------------------------------------------------------------------


def recognise(frame: pd.DataFrame, path: str, kinds: Mapping[str, str]) -> pd.DataFrame:
    """The table of a CSV with what is spelled in its columns of text: dates, and what words like NA have hidden.

    Parameters
    ----------
    frame : DataFrame
        As :func:`read_table` has it.
    path : str
        Its file, for errors and warnings.
    kinds : mapping from name to kind
        What the user says of the columns. Text that is said to be nominal stays text, and text that
        is said to be ordinal is no date.

    Raises
    ------
    UserError
        Naming column and cell, if a column is said to be of numbers and is not.

    Warns
    -----
    UserWarning
        If words are taken as missing cells, or a few cells make text of a column.
    """
    cells = {}
    for name, values in frame.items():
        kind = kinds.get(str(name))
        if is_text(values) and kind != "nominal":
            values = _recognised(values, f"{path}: column {name!r}", kind)
        cells[name] = values
    return pd.DataFrame(cells)


def _recognised(values: pd.Series, where: str, kind: str | None) -> pd.Series:
    codes, texts = _distinct(values)
    counts = pd.Series(codes[codes >= 0]).value_counts().reindex(texts.index)
    absent = _absent(texts)
    if absent.all():
        return values
    shares = {}
    for what, read in READINGS.items():
        if kind == "ordinal" and what == "dates":
            continue
        found = read(texts[~absent])
        if found.notna().all():
            if absent.any():
                words = ", ".join(map(repr, texts[absent]))
                n = int(counts[absent].sum())
                warnings.warn(
                    f"{where}: {words} ({n} cell{'s' * (n > 1)}) taken as missing,"
                    f" as all others are {what}",
                    stacklevel=2,
                )
            return _spread(found.reindex(texts.index), codes)
        good = found.index[found.notna()]
        shares[what] = counts[good].sum() / counts[~absent].sum(), found[found.isna()].index[0]
    what = max(shares, key=lambda w: shares[w][0])
    share, odd = shares[what]
    if kind in ("continuous", "binned"):
        raise UserError(f"{where}: {kind} needs numbers or dates, got {texts[odd]!r}")
    if share >= ALMOST:
        warnings.warn(
            f"{where}: taken as text because of {texts[odd]!r}; {int(100 * share)}% of its cells are {what}",
            stacklevel=2,
        )
    return values


def as_fitted(values: pd.Series, column: Column) -> pd.Series:
    """Cells of text as the values that the column of a model has.

    A word among categories that are numbers stays: it is a value never seen.

    Raises
    ------
    ValueError
        Naming column and cell, if the column has no categories and the cell is no number or no date.
    """
    if values.dtype == float and values.isna().all():  # of no type: filled, it is of the fitted one
        return values.astype(object)
    if not is_text(values) or column.is_text:
        return values
    codes, texts = _distinct(values)
    if column.kind in ("nominal", "ordinal"):
        if not column.categories or any(isinstance(c, str) for c in column.categories):
            return values
        is_truth = all(isinstance(c, bool) for c in column.categories)
        found = (_truths if is_truth else _numbers)(texts)
    elif column.family == "number":
        found = _numbers(texts)
    elif column.family == "datetime":
        found = _times(texts, utc=True)
        if not isinstance(column.dtype, pd.DatetimeTZDtype):
            found = found.dt.tz_localize(None)
    else:
        found = pd.to_timedelta(texts, errors="coerce")
    bad = found.isna() & ~_absent(texts)
    if bad.any() and column.kind in ("continuous", "binned"):
        wanted = {"number": "a number", "datetime": "an ISO date or time, like 2024-01-31"}
        raise ValueError(
            f"column {column.name!r}: expected {wanted.get(column.family, 'a duration')}, got {texts[bad.idxmax()]!r}"
        )
    if bad.any():
        found = found.astype(object).where(~bad, texts)
    return _spread(found, codes)


def is_text(values: pd.Series) -> bool:
    """Whether a column holds strings, and is no ``category``."""
    if values.dtype == object:
        return _infer(values) == "string"
    is_category = isinstance(values.dtype, pd.CategoricalDtype)
    return not is_category and pd.api.types.is_string_dtype(values.dtype)


def _distinct(values: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """For each cell its position among the distinct texts, -1 if it is empty; and these texts."""
    codes, texts = pd.factorize(values)
    return codes, pd.Series(texts, dtype=object)


def _spread(found: pd.Series, codes: np.ndarray) -> pd.Series:
    """The column whose cells have the values ``found`` at ``codes``."""
    return _despite_missing(found.reindex(codes).reset_index(drop=True))


def _absent(texts: pd.Series) -> pd.Series:
    return texts.str.lower().isin(ABSENT)


def _numbers(texts: pd.Series) -> pd.Series:
    found = cast(pd.Series, pd.to_numeric(texts, errors="coerce"))
    return found.astype("Int64") if found.dtype.kind == "i" else found


def _truths(texts: pd.Series) -> pd.Series:
    return texts.map(TRUTHS).astype("boolean")


def _times(texts: pd.Series, utc: bool = False) -> pd.Series:
    """ISO dates and times; unless ``utc``, none if some have a time zone and others have not."""
    parts = texts.str.extract(ISO)
    zoned = parts["zone"].notna()
    found = pd.to_datetime(
        texts.where(parts["date"].notna()),
        format="ISO8601",
        errors="coerce",
        utc=utc or bool(zoned.any()),
    )
    return found if utc or zoned.nunique() < 2 else found.mask(~zoned)


READINGS = {"numbers": _numbers, "truth values": _truths, "dates": _times}


def fill_as_written(written: pd.Series, gaps: np.ndarray, filled: pd.Series) -> pd.Series:
    """A column of a CSV with ``filled`` spelled out where ``gaps`` is true, and all else as it was written."""
    values = cast(pd.Series, filled[gaps])
    spelled = values.astype(str).where(values.notna(), "")
    out = written.astype(object)
    out[gaps] = spelled.to_numpy(dtype=object)
    return out


# -- writing --------------------------------------------------------------------------------------


def write_table(frame: pd.DataFrame, path: Path, kind: str) -> None:
    """Write a table of the kind that :func:`ending` gave."""
    if kind == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == ".tsv" else ",")


def save_whole(path: str, write: Callable[[Path], object]) -> None:
    """Let ``write`` make the file ``path``, whole or not at all."""
    try:
        write_whole(path, write)
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({reason})") from None


def check_writable(path: str, *, table: bool = False) -> None:
    """UserError, before any work is done, if ``path`` is no place for a file."""
    if table:
        ending(path)
    folder = Path(path).parent
    if not folder.is_dir():
        raise UserError(f"{path}: cannot be written (no folder {folder})")
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(f"{path}: cannot be written (it is not a regular file)")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot be written (no permission in {folder})")


def same_file(a: str, b: str) -> bool:
    """Whether two paths are one file, be it there already or not."""
    if os.path.exists(a) and os.path.exists(b):
        return os.path.samefile(a, b)
    return os.path.realpath(a) == os.path.realpath(b)
