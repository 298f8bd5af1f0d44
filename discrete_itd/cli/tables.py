"""Tables to learn from, read as a whole and typed; and files, written completely or not at all."""

from __future__ import annotations

import contextlib
import lzma
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pandas as pd

from discrete_itd.cli.bounded import opened
from discrete_itd.cli.cells import MISSING, is_text
from discrete_itd.cli.dialect import PLAIN, Dialect, head_of
from discrete_itd.cli.names import ENDINGS, PACKED
from discrete_itd.cli.names import UserError as UserError
from discrete_itd.encoders.categories import TRUTHS
from discrete_itd.encoders.plain_text import DATE
from discrete_itd.storage.files import NotWritten, stop_writing, write_whole
from discrete_itd.validation import warn

ZONE = r"(?:Z|[+-]\d\d:?\d\d)$"  # at the end of an ISO time
LEADING_ZERO = r"[+-]?0\d+$"
SCANNED_ROWS = 1 << 16  # in memory at once
DAMAGED = (ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ImportError)


class EmptyTableError(UserError):
    """A table without rows."""


def ending(path: str) -> str:
    """The format of a table according to its name: ".csv", ".tsv" or ".parquet"."""
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
    """Whether a table is stored with the types of its columns."""
    return ending(path) == ".parquet"


def read_table(path: str, text: Collection[str] = (), dialect: Dialect = PLAIN) -> pd.DataFrame:
    """A table; from a CSV with the columns ``text`` as strings, and only cells of the dialect as missing."""
    if is_parquet(path):
        frame = _read(path, lambda: pd.read_parquet(path))
        typed = _dates_of_objects
    else:
        decimal = dialect.decimal or "."
        frame = _read_csv(path, dialect, dtype=dict.fromkeys(text, str), decimal=decimal)
        codes = _with_leading_zeros(path, frame, dialect)
        if codes:
            own = _read_csv(path, dialect, dtype=str, usecols=codes)
            frame = frame.assign(**{name: own[name] for name in codes})
        typed = _typed
    return pd.DataFrame({name: typed(values) for name, values in frame.items()})


def _read_csv(path: str, dialect: Dialect, **options: Any) -> pd.DataFrame:
    dialect = dialect.found(path, ending(path), head_of(path))

    def read() -> pd.DataFrame:
        with warnings.catch_warnings(), opened(path, dialect) as (file, how):
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                file,
                index_col=False,
                low_memory=False,  # one type per column
                **how,
                **options,
            )

    frame = _read(path, read)
    # pandas renames repeated names, so the header itself is checked
    with opened(path, dialect) as (file, how):
        header = pd.read_csv(file, header=None, nrows=1, dtype=str, **how)
    check_names(path, pd.Index(header.iloc[0].dropna()))
    return frame


def _with_leading_zeros(path: str, frame: pd.DataFrame, dialect: Dialect) -> list[str]:
    """Names of the columns of whole numbers some of which begin with a zero, like postal codes: they are text."""
    whole = [
        str(name)
        for name, values in frame.items()
        if values.dtype.kind in "iu"
        or (values.dtype.kind == "f" and (values.dropna() % 1 == 0).all())
    ]
    found: set[str] = set()
    if whole:
        how: Any = dialect.found(path, ending(path), head_of(path)).as_options()
        cells = {"usecols": whole, "dtype": str, "chunksize": SCANNED_ROWS, "index_col": False}
        with pd.read_csv(path, **how, **cells) as parts:
            for part in parts:
                found |= {n for n in whole if part[n].str.match(LEADING_ZERO).fillna(False).any()}
    return [name for name in whole if name in found]


def _read(path: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that ``read`` returns, if it has rows, and names that differ as strings."""
    with damage_told(path, ending(path)):
        frame = read()
    if not len(frame) or not frame.shape[1]:
        raise EmptyTableError(f"{path}: the table is empty")
    check_names(path, frame.columns.map(str))
    return frame.reset_index(drop=True)


@contextlib.contextmanager
def damage_told(path: str, kind: str) -> Iterator[None]:
    """Turn errors of reading a table of some kind, like ".csv", into those of the user."""
    try:
        yield
    except pd.errors.EmptyDataError:
        raise EmptyTableError(f"{path}: the table is empty") from None
    except pd.errors.ParserError as error:
        raise UserError(f"{path}: {_in_words(str(error), kind)}") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: rows have more cells than the header") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeError as error:
        raise UserError(
            f"{path}: cannot be read as {kind} ({error}); say what it is, like --encoding cp1252"
        ) from None
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as {kind} ({error})") from None


def _in_words(error: str, kind: str) -> str:
    """What pandas' reader of CSV says, and where."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error):
        return f"line {found[2]}: {found[3]} cells, but {found[1]} in the header"
    if found := re.search(r"EOF inside string starting at row (\d+)", error):
        return f"line {int(found[1]) + 1}: a quotation mark opens a cell that does not end"
    return f"cannot be read as {kind} ({error})"


def check_names(path: str, names: pd.Index) -> None:
    """Raise a UserError if the name of a column repeats."""
    if not names.is_unique:
        raise UserError(f"{path}: column {names[names.duplicated()][0]!r}: the name repeats")


def _typed(values: pd.Series) -> pd.Series:
    """Integers and booleans as such, where missing cells have made them floats or objects."""
    if values.dtype == float and values.isna().any() and values.notna().any():
        with contextlib.suppress(TypeError, OverflowError):  # some are fractions, or infinite
            return values.astype("Int64")
    return values.astype("boolean") if _all_are(values, "boolean") else values


def _dates_of_objects(values: pd.Series) -> pd.Series:
    """Dates in a Parquet file, which pandas reads as objects, as times."""
    return pd.to_datetime(values) if _all_are(values, "date") else values


def _all_are(values: pd.Series, what: str) -> bool:
    return values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) == what


# -- types of text --------------------------------------------------------------------------------


def recognise(
    frame: pd.DataFrame, path: str, kinds: Mapping[str, str], dialect: Dialect = PLAIN
) -> pd.DataFrame:
    """The table of a CSV with typed columns where every cell is a number, a truth value, a date or a word like NA.

    Parameters
    ----------
    frame : DataFrame
        From :func:`read_table`.
    path : str
        Its file, for errors and warnings.
    kinds : mapping from name to kind
        The kinds of columns that the user has chosen. Text in a nominal column stays text, and in an ordinal column it
        is not a date.
    dialect : Dialect
        How numbers are written.

    Other text stays as it is, for the model to read (:mod:`discrete_itd.encoders.notation`).

    Warns
    -----
    UserWarning
        If words are taken as missing cells.
    """
    cells = {}
    for name, values in frame.items():
        kind = kinds.get(str(name))
        if is_text(values) and kind != "nominal":
            values = _recognised(values, f"{path}: column {name!r}", kind, dialect)
        cells[name] = values
    return pd.DataFrame(cells)


def _recognised(values: pd.Series, where: str, kind: str | None, dialect: Dialect) -> pd.Series:
    texts = values.dropna().astype(object)
    is_word = _is_missing(texts)
    words, texts = cast(pd.Series, texts[is_word]), cast(pd.Series, texts[~is_word])
    if not len(texts):
        return values
    for what, read in READINGS.items():
        if kind == "ordinal" and what == "dates":
            continue
        found = read(texts.map(dialect.number) if what == "numbers" else texts)
        if found.notna().all():
            if len(words):
                warn(
                    f"{where}: {', '.join(map(repr, words.unique()))} ({len(words)} cell{'s' * (len(words) > 1)})"
                    f" taken as missing, as all others are {what}"
                )
            return found.reindex(values.index)
    return values


def _is_missing(texts: pd.Series) -> pd.Series:
    return texts.str.lower().isin(MISSING)


def _numbers(texts: pd.Series) -> pd.Series:
    found = cast(pd.Series, pd.to_numeric(texts, errors="coerce"))
    if texts.str.match(LEADING_ZERO).any():  # codes
        return found.mask(found.notna())
    return found.astype("Int64") if found.dtype.kind == "i" else _typed(found)


def _truths(texts: pd.Series) -> pd.Series:
    return texts.map(TRUTHS).astype("boolean")


def _times(texts: pd.Series) -> pd.Series:
    """ISO dates and times; missing without a time zone if others have one."""
    zoned = texts.str.contains(ZONE)
    dates = texts.where(texts.str.match(DATE))
    found = pd.to_datetime(dates, format="ISO8601", errors="coerce", utc=bool(zoned.any()))
    return found if zoned.nunique() < 2 else found.mask(~zoned)


READINGS = {"numbers": _numbers, "truth values": _truths, "dates": _times}


# -- writing --------------------------------------------------------------------------------------


def save_whole(path: str, write: Callable[[Path], object]) -> None:
    """Write the file ``path`` with ``write``, completely or not at all."""
    try:
        write_whole(path, write)
    except (OSError, ImportError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({reason})") from None


def check_writable(path: str) -> None:
    """Raise the UserError of :func:`save_whole` before the work; nothing is written."""
    with contextlib.suppress(NotWritten):
        save_whole(path, stop_writing)


def same_file(a: str, b: str) -> bool:
    """Whether two paths are the same file, which need not exist."""
    return os.path.realpath(a) == os.path.realpath(b)
