"""Tables and models in files, for the command line: read whole, written whole or not at all."""

from __future__ import annotations

import lzma
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pandas as pd

from discrete_itd.encoders import ColumnSchema
from discrete_itd.state import write_whole

PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
ENDINGS = ".csv, .tsv (also .gz, .bz2, .xz, .zip, .zst), .parquet"
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


def read_table(path: str, text: dict[str, type]) -> pd.DataFrame:
    """A table; of a CSV, the columns ``text`` as strings and nothing but empty cells as missing."""
    kind = ending(path)
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(
                    path,
                    sep="\t" if kind == ".tsv" else ",",
                    dtype=cast(dict, text),
                    index_col=False,
                    keep_default_na=False,
                    na_values=[""],
                    low_memory=False,  # one type per column
                )
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the table is empty") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: rows have more cells than the header") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as {kind} ({error})") from None
    if not len(frame) or not frame.shape[1]:
        raise UserError(f"{path}: the table is empty")
    if kind != ".parquet":  # pandas has renamed repeated names, so look at the header itself
        header = pd.read_csv(
            path, sep="\t" if kind == ".tsv" else ",", header=None, nrows=1, dtype=str
        )
        names = pd.Index(header.iloc[0].dropna())
        if not names.is_unique:
            raise UserError(f"{path}: column {names[names.duplicated()][0]!r}: the name repeats")
    names = frame.columns.map(str)
    if not names.is_unique:
        raise UserError(f"{path}: column {names[names.duplicated()][0]!r}: the name repeats")
    return frame.reset_index(drop=True)


def as_fitted(values: pd.Series, column: ColumnSchema) -> pd.Series:
    """Cells of a CSV column that is text only because some cell is no number (or no truth value)."""
    is_text = not isinstance(values.dtype, pd.CategoricalDtype) and (
        pd.api.types.is_string_dtype(values.dtype) or values.dtype == object
    )
    if not is_text or any(isinstance(c, str) for c in column.categories):
        return values
    if all(isinstance(c, bool) for c in column.categories):
        converted = values.map({"True": True, "False": False})
    else:
        converted = cast(pd.Series, pd.to_numeric(values, errors="coerce"))
    return converted.astype(object).where(converted.notna(), values)


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
    """Whether two paths are one file that exists."""
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)
