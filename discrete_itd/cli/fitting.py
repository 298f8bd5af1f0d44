"""``discrete-itd fit``: a model of a table and its card, and what was found in print; and ``describe``."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.cli.command import note, put
from discrete_itd.cli.inputs import about, groups_of, load_model, tables_of
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import (
    STANDARD,
    Dialect,
    EmptyTableError,
    check_out,
    ending,
    reading,
)
from discrete_itd.detection.answers import density_of
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Clock, TableEncoder
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import Deadline, deferred_interrupts
from discrete_itd.reading.columns import recognise, typed
from discrete_itd.reading.frames import holds_text, in_memory
from discrete_itd.reading.text import denotes_missing
from discrete_itd.storage.card import columns_table, facts
from discrete_itd.storage.values import check_card
from discrete_itd.validation import warn

TEXT_DTYPE: Any = pd.Series(["text"]).dtype  # of text: smaller than object, where pandas has it


def fit(args: argparse.Namespace) -> int:
    """Run the command; 130 if the fit was interrupted and the model is the best so far."""
    settings = _settings(args)
    if args.out == STANDARD:
        raise UserError("--out: a model must be a file, not -")
    check_out(args.out, is_table=False, table=args.table)
    check_card(args.out)
    column_types: dict[str, Any] = dict(args.column)
    if args.clock is not None:
        if args.clock in column_types:
            raise UserError(f"--clock and --column both say what {args.clock!r} is: give one")
        column_types[args.clock] = {"kind": "clock"}
    frame, groups = _read_to_fit(args, column_types)
    names = {str(n): n for n in frame.columns}
    model = DiffusionDensity(
        column_types={names.get(name, name): kind for name, kind in column_types.items()},
        missing=args.missing,
        denoiser=args.denoiser,
        max_steps=args.max_steps,
        max_time=args.max_time,
        random_state=args.seed,
    )
    if args.detector:
        model = DiffusionOutlierDetector(model, random_state=args.seed, **settings)
    clock = Deadline()
    warnings.filterwarnings("ignore", "training was interrupted")  # a note replaces it
    with about(args.table), deferred_interrupts() as interrupted:
        model.fit(frame, groups=groups)
    elapsed = clock.age
    model.save(args.out)
    if interrupted.is_set():
        note(f"the fit was interrupted: {args.out} is the best model so far")
    put(f"{args.table}: {len(frame)} rows, {len(frame.columns)} columns\n")
    _print_fitted(model)
    put(f"wrote {args.out} in {elapsed:.1f} s")
    return 130 * interrupted.is_set()


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The detector's parameters among the options; UserError if options are incompatible."""
    names = ("false_alarm_rate", "contamination", "given")
    settings = {name: v for name in names if (v := getattr(args, name)) not in (None, [])}
    if settings and not args.detector:
        raise UserError(f"--{next(iter(settings)).replace('_', '-')} needs --detector")
    if None not in (args.false_alarm_rate, args.contamination):
        raise UserError("--false-alarm-rate and --contamination both set the threshold: give one")
    if settings.get("contamination", 0) > 0.5:
        raise UserError(f"--contamination must be at most 0.5, got {args.contamination:g}")
    return settings


def _read_to_fit(
    args: argparse.Namespace, column_types: dict[str, Any]
) -> tuple[pd.DataFrame, pd.Series | None]:
    """The training columns in their types, and the group of each row if ``--groups`` names a column.

    Decimal marks and missing values of ``--csv`` are added to ``column_types``, which the model keeps.
    """
    path, dialect = args.table, Dialect.asked(args.csv)
    frame = as_written(path, dialect)
    is_csv = ending(next(iter(tables_of(path).values()))) != ".parquet"
    if is_csv:
        frame = _without_headers(frame, path)
    groups = groups_of(frame, path, args.groups)
    kept = [n for n in frame.columns if str(n) not in args.drop]
    if args.groups not in column_types:
        kept = [n for n in kept if str(n) != args.groups]
    if not kept:
        raise UserError(f"{path}: no column is left")
    names = {"--drop": frame.columns, "--clock": kept, "--column": kept, "--given": kept}
    for option, wanted in (
        ("--drop", args.drop),
        ("--clock", [] if args.clock is None else [args.clock]),
        ("--column", column_types),
        ("--given", args.given),
    ):
        for name in wanted:
            if name not in map(str, names[option]):
                raise UserError(
                    f"{path}: column {name!r}: named in {option}, but left out or not there"
                )
    frame = cast(pd.DataFrame, frame[kept])
    if is_csv:
        frame = typed_table(frame, path, column_types, dialect)
    return frame, groups


def _without_headers(frame: pd.DataFrame, path: str) -> pd.DataFrame:
    """The text of a CSV without rows that repeat the header, which concatenated files have."""
    names = [*map(str, frame.columns)]
    is_name = (frame == names) | (frame == [re.sub(r"\.\d+$", "", name) for name in names])
    is_header = is_name.all(axis=1)
    if len(names) == 1 or not is_header.any():
        return frame
    warn(f"{path}: {is_header.sum()} rows repeat the header, and are left out")
    return cast(pd.DataFrame, frame[~is_header]).reset_index(drop=True)


def as_written(path: str, dialect: Dialect) -> pd.DataFrame:
    """A table, or all in a folder: text of CSV or typed columns of Parquet; of very many rows a uniform sample."""
    files = tables_of(path)
    if len({ending(name) == ".parquet" for name in files}) > 1:
        raise UserError(f"{path}: fit reads folders of CSV or of Parquet, not of both")
    with about(path):
        return in_memory(_frames(path, files, dialect), seed=0)


def _frames(path: str, files: Mapping[str, str], dialect: Dialect) -> Iterator[Any]:
    """The rows of all files in chunks; no rows raise EmptyTableError, columns in names of folders alone a warning."""
    n_rows, held = 0, set[str]()
    for name, file in files.items():
        with reading(file, dialect) as source:
            folders = [part.partition("=")[0] for part in Path(name).parts[:-1] if "=" in part]
            held |= {*folders} - {*source.names}
            for chunk in source.as_stored():
                n_rows += len(chunk)
                yield chunk.astype(TEXT_DTYPE) if source.parquet is None else chunk
    if not n_rows:
        raise EmptyTableError(f"{path}: the table is empty")
    for column in sorted(held):
        warn(
            f"{path}: {column!r} stands in names of folders alone, and is left out; write it into the files"
        )


def typed_table(
    frame: pd.DataFrame, path: str, column_types: dict[str, Any], dialect: Dialect
) -> pd.DataFrame:
    """The text of a CSV, with columns of only numbers, truth values or ISO times converted to these types.

    Nominal columns stay text, and ordinal ones are never dates. A warning names words that are read as missing cells.
    """
    decimal = dialect.decimal
    if decimal is None and any(_has_commas(values) for _, values in frame.items()):
        decimal = ","  # the encoder reads numbers with points: it compares all columns
    cells, asked = {}, {",": "decimal-comma", ".": "decimal-point", None: None}[dialect.decimal]
    for name, values in frame.items():
        spec = {**column_types.get(str(name), {})}
        kind = spec.get("kind")
        if kind != "nominal" and "notation" not in spec:
            values, note, words = typed(values, decimal=decimal or ".", dates=kind != "ordinal")
            if note:
                warn(f"{path}: column {name!r}: {note}")
                spec["na"] = words
            is_number = values.dtype.kind in "if"
            if asked is not None and (is_number or _is_written(values, asked)):
                spec["notation"] = asked
        if dialect.na:
            spec["na"] = (*dialect.na, *spec.get("na", ()))
        if spec:
            column_types[str(name)] = spec
        cells[name] = values
    return pd.DataFrame(cells)


def _has_commas(values: pd.Series) -> bool:
    """Whether the first 50 texts of a column have one or two digits behind a comma: no mark of thousands."""
    texts = values.dropna().unique()[:50]
    return len(texts) > 0 and all(re.fullmatch(r"\D*[\d.]*\d,\d{1,2}\b\D*", text) for text in texts)


def _is_written(values: pd.Series, asked: Any) -> bool:
    """Whether a column's text is numbers in the notation asked for, or stands beside numbers."""
    if not holds_text(values):
        return False
    cell_counts = values.value_counts()
    if not all(isinstance(text, str) for text in cell_counts.index):
        return any(isinstance(cell, int | float) for cell in cell_counts.index)
    known = {text: n for text, n in cell_counts.items() if not denotes_missing(str(text))}
    texts, counts = [*map(str, known)], np.array([*known.values()])
    return bool(texts) and recognise(texts, counts, asked).notation is not None


def describe(args: argparse.Namespace) -> None:
    """Run the command ``describe``."""
    put(load_model(args.model).model_card())


def _print_fitted(fitted: DiffusionDensity | DiffusionOutlierDetector) -> None:
    """Print columns, training, gain, threshold and readings of a fitted model; its card has more."""
    model = density_of(fitted)
    put(columns_table(model.encoder_).to_string(index=False))
    known = facts(model.model_, model.n_evaluations)
    put("".join(f"\n{name}: {known[name]}" for name in ("training", "held-out rows")))
    if isinstance(fitted, DiffusionOutlierDetector):
        put(f"threshold: {fitted.threshold_}")
    put("\n" + "\n".join(_readings(model.encoder_)))


def _readings(encoder: TableEncoder) -> list[str]:
    """What a fit took its columns for, in six lines."""
    table = encoder.describe()
    names, kinds = table["column"].map(str), table["kind"].map(str)
    clock = "none (--clock NAME says which column rows come by)"
    if (times := encoder.times) is not None:
        given = cast(Clock, encoder.schema[times.clock].codec).given
        counted = _few([str(encoder.names[j]) for j in times.since])
        clock = f"{encoder.names[times.clock]}, whose {given} is given; counted from it: {counted}"
    is_out = kinds.str.startswith("left out")
    left_out = (names + " (" + kinds.str.removeprefix("left out: ") + ")")[is_out]
    lines = {
        "clock": clock,
        "left out": _few(left_out),
        "relations": _few(text for text in table["follows"] if text),
        "codes": _few(names[kinds == "code"]),
        "numbers and times in text": _few(
            names[(table["read"] != "") & ~is_out & (kinds != "code")]
        ),
        "gaps that are a value": _few(names[table["gaps"] == "a value"]),
    }
    return [f"{what}: {which}" for what, which in lines.items()]


def _few(texts: Iterable[str]) -> str:
    """The first four of some texts, and how many more there are."""
    listed = list(texts)
    more = f", and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more or "none"
