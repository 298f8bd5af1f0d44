"""``discrete-itd fit``: a model of a table, its card, and what was found, in print."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.cli import alarms
from discrete_itd.cli.cells import is_text
from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import about
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.messages import note, percent, plus_minus
from discrete_itd.cli.tables import (
    UserError,
    check_writable,
    is_parquet,
    read_table,
    recognise,
    same_file,
    save_whole,
)
from discrete_itd.detection.answers import density_of
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders.notation import is_missing
from discrete_itd.encoders.notation import recognise as recognise_notation
from discrete_itd.encoders.streams import ParquetStream
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.storage.persistent import card_path
from discrete_itd.training.checkpoint import Checkpoint


def fit(args: argparse.Namespace) -> int:
    """Run the command; 130 if the training was interrupted and the model is the best so far."""
    settings = alarms.settings_to_fit(args)
    check_out(args.out, table=args.table)
    if args.checkpoint is not None:
        check_writable(args.checkpoint)
        for path in (args.table, args.out):
            if same_file(args.checkpoint, path):
                raise UserError(f"{path}: also named in --checkpoint")
    column_types = dict(args.column)
    dialect = Dialect.asked(args)
    frame, groups = _read_to_fit(args.table, column_types, args.drop, args.groups, dialect)
    if isinstance(frame, pd.DataFrame):
        _remember(frame, column_types, dialect)
    seed = args.seed
    if seed is None and args.detector and args.checkpoint is not None:
        seed = 0  # a run that continues must hold out the same rows
    model = DiffusionDensity(
        column_types={n: column_types[str(n)] for n in frame.columns if str(n) in column_types},
        missing=args.missing,
        handle_unknown=args.handle_unknown,
        denoiser=args.denoiser,
        max_steps=args.max_steps,
        max_time=args.max_time,
        device=args.device,
        random_state=seed,
    )
    if args.detector:
        names = {str(n): n for n in frame.columns}
        for name in args.given:
            if name not in names:
                raise UserError(f"{args.table}: column {name!r}: named in --given, but not there")
        if args.given:
            settings["given"] = [names[name] for name in args.given]
        model = DiffusionOutlierDetector(model, random_state=seed, **settings)
    start = time.perf_counter()
    warnings.filterwarnings("ignore", "training was interrupted")  # the note below says so
    saved = Checkpoint.of(args.checkpoint)
    about(args.table, lambda: model.fit(frame, groups=groups, checkpoint=saved))
    elapsed = time.perf_counter() - start
    save_whole(args.out, lambda path: model.save(path, card=False))
    card = model.model_card()
    save_whole(
        card_path(args.out), lambda path: path.write_bytes(card.encode(errors="backslashreplace"))
    )
    is_interrupted = density_of(model).stopped_ == "interrupted"
    if is_interrupted:
        again = "" if args.checkpoint is None else "; the same command continues the training"
        note(f"training was interrupted: {args.out} is the best model so far{again}")
    elif saved is not None:
        saved.remove()  # and not before the model is saved: a kill in between loses no training
    print(f"{args.table}: {len(frame)} rows, {len(frame.columns)} columns\n")
    _print_fitted(model)
    print(f"wrote {args.out} in {elapsed:.1f} s")
    return 130 * is_interrupted


def _read_to_fit(
    path: str,
    column_types: Mapping[str, Any],
    drop: Sequence[str],
    group: str | None,
    dialect: Dialect,
) -> tuple[pd.DataFrame | ParquetStream, pd.Series | None]:
    """The columns of a table to learn from, in their types, and the groups of its rows.

    A folder of Parquet is read as it is needed. The column of groups is left out unless its kind is given.
    """
    kinds = {n: s if isinstance(s, str) else s.get("kind") for n, s in column_types.items()}
    # read as text, a postal code keeps its leading zeros
    text = [n for n, kind in kinds.items() if kind == "nominal"]
    text += [group] if group is not None and group not in kinds else []
    frame = _folder(path) if Path(path).is_dir() else read_table(path, text, dialect)
    names = [str(n) for n in frame.columns]
    of_groups = [] if group is None else [group]
    for option, wanted in (("--column", column_types), ("--drop", drop), ("--groups", of_groups)):
        for name in wanted:
            if name not in names:
                raise UserError(f"{path}: column {name!r}: named in {option}, but not there")
    for name in column_types:
        if name in drop:
            raise UserError(f"column {name!r}: named in both --column and --drop")
    left_out = {*drop, *(n for n in of_groups if n not in column_types)}
    kept = [n for n in frame.columns if str(n) not in left_out]
    if not kept:
        raise UserError(f"{path}: no column is left")
    if isinstance(frame, ParquetStream):
        if group is not None:
            raise UserError(f"{path}: --groups needs a table in memory, not a folder")
        return ParquetStream(path, kept), None
    groups = None if group is None else cast(pd.Series, frame.iloc[:, names.index(group)])
    if groups is not None and groups.isna().any():
        row = int(groups.isna().to_numpy().argmax()) + 1
        raise UserError(f"{path}: column {group!r}: named in --groups, but missing in row {row}")
    frame = cast(pd.DataFrame, frame[kept])
    for name, values in frame.items():
        if values.dtype.kind == "f":
            infinite = np.isinf(values.to_numpy(float, na_value=np.nan))
            if infinite.any():
                row = int(infinite.argmax()) + 1
                raise UserError(f"{path}: row {row}: column {name!r}: contains infinity")
    if is_parquet(path):
        return frame, groups
    # text whose notation the user names is read in that
    named = {n for n, spec in column_types.items() if isinstance(spec, dict) and "notation" in spec}
    others = cast(pd.DataFrame, frame[[n for n in kept if n not in named]])
    text = recognise(others, path, kinds, dialect)
    return pd.DataFrame({n: text[n] if n in text else frame[n] for n in kept}), groups


def _remember(frame: pd.DataFrame, column_types: dict[str, Any], dialect: Dialect) -> None:
    """Add to the specifications the decimal mark that was asked for, so that the model knows it."""
    if dialect.decimal is None:
        return
    asked = "decimal-comma" if dialect.decimal == "," else "decimal-point"
    for name, values in frame.items():
        spec = column_types.get(str(name))
        spec = {"kind": spec} if isinstance(spec, str) else dict(spec or {})
        if spec.get("kind") == "nominal" or "notation" in spec:
            continue
        if is_text(values):
            texts = [text for text in map(str, values.dropna().unique()) if not is_missing(text)]
            if not texts or recognise_notation(texts, np.ones(len(texts)), asked).notation is None:
                continue
        elif values.dtype.kind != "f":
            continue
        column_types[str(name)] = {**spec, "notation": asked}


def _folder(path: str) -> ParquetStream:
    """The Parquet files of a folder."""
    try:
        return ParquetStream(path)
    except ImportError as error:
        raise UserError(str(error)) from None


def _print_fitted(fitted: DiffusionDensity | DiffusionOutlierDetector) -> None:
    """Columns, schedule, training and threshold of a fitted model."""
    model = density_of(fitted)
    formatters: dict[str | int, Callable] = {
        "missing": percent,
        "categories": lambda n: str(n or ""),
    }
    print(model.encoder_.describe().to_string(index=False, formatters=formatters))
    best = model.schedule_table_.iloc[0]
    print(f"\nschedule: {best['path']}, {best['steps']} steps, {best['paths']} paths per row")
    history = model.history_
    best, last = history.loc[history["valid_nats"].idxmin()], history.iloc[-1]
    print(f"training: {last['step']:.0f} steps ({model.stopped_}), best after {best['step']:.0f}")
    held_out = model.model_.held_out
    gain = (
        f"{plus_minus(held_out.gain, held_out.gain_stderr)} per row better than independent columns"
    )
    if held_out.n_rows < 2:
        gain = "one is too few to say how much better the model is than independent columns"
    print(f"held-out rows: {gain}" + f" (on {held_out.n_rows} rows)" * (held_out.n_rows > 1))
    # with densities or pooled categories, these nats are not in the units of the table
    if all(not column.has_volume for column in model.encoder_.schema):
        independent = plus_minus(held_out.independent, held_out.independent_stderr)
        print(f"  {'independent columns':20} {independent}")
        print(f"  {'model':20} {plus_minus(held_out.nats, held_out.stderr)}")
    if isinstance(fitted, DiffusionOutlierDetector):
        if len(fitted.trimmed_):
            print(f"anomalies: {len(fitted.trimmed_)} rows left out of the training")
        print(f"threshold: {fitted.threshold_}")
