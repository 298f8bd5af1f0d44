"""The command line: ``discrete-itd fit | score | impute | sample | report | demo``.

Each command reads files, calls :class:`~discrete_itd.estimators.DiffusionDensity` or
:class:`~discrete_itd.detection.detector.DiffusionOutlierDetector`, and writes complete files or none. An error of the
user's is one line on stderr, with exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from discrete_itd.cli import alarms
from discrete_itd.cli.demo import demo
from discrete_itd.cli.inputs import (
    about,
    check_given,
    density_of,
    given_row,
    load_density,
    load_model,
    read_all_for,
    read_for,
)
from discrete_itd.cli.messages import mean_nats, note, one_line, percent, plus_minus
from discrete_itd.cli.options import parse
from discrete_itd.cli.tables import (
    UserError,
    check_writable,
    ending,
    fill_as_written,
    is_parquet,
    read_cells_as_written,
    read_table,
    recognise,
    same_file,
    save_whole,
    write_table,
)
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders.streams import ParquetStream
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting import figures
from discrete_itd.reporting.findings import examine
from discrete_itd.reporting.page import render
from discrete_itd.reporting.sentences import VERDICTS, judgement


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0; 1 if ``report --check`` finds a target that is not met; 2 after an error of the user's; 130 after
        an interruption.
    """
    shown, code = set(), None

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:  # a second pass over the rows repeats its warnings
            note(str(message))
        shown.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        try:
            args = parse(sys.argv[1:] if argv is None else argv)
            code = COMMANDS[args.command](args)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, like head, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            print("discrete-itd: interrupted", file=sys.stderr)
            return 130
        except (UserError, ValueError, TypeError, OSError) as error:
            print(f"discrete-itd: error: {one_line(error)}", file=sys.stderr)
            return 2
    return code or 0


# -- commands -------------------------------------------------------------------------------------


def _fit(args: argparse.Namespace) -> None:
    settings = alarms.settings_to_fit(args)
    _check_out(args.out, table=args.table)
    if args.checkpoint is not None:
        check_writable(args.checkpoint)
        for path in (args.table, args.out):
            if same_file(args.checkpoint, path):
                raise UserError(f"{path}: also named in --checkpoint")
    column_types = dict(args.column)
    frame = _read_to_fit(args.table, column_types, args.drop)
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
    if args.detector and isinstance(frame, ParquetStream):
        raise UserError(f"{args.table}: a detector needs a table that fits in memory, in one file")
    if args.detector:
        model = DiffusionOutlierDetector(model, random_state=seed, **cast(Any, settings))
    start = time.perf_counter()
    warnings.filterwarnings("ignore", "training was interrupted")  # the note below says so
    about(args.table, lambda: model.fit(frame, checkpoint=args.checkpoint))
    elapsed = time.perf_counter() - start
    save_whole(args.out, model.save)
    if density_of(model).stopped_ == "interrupted":
        again = "" if args.checkpoint is None else "; the same command continues the training"
        note(f"training was interrupted: {args.out} is the best model so far{again}")
    print(f"{args.table}: {len(frame)} rows, {len(frame.columns)} columns\n")
    _print_fitted(model)
    print(f"wrote {args.out} in {elapsed:.1f} s")


def _read_to_fit(
    path: str, column_types: Mapping[str, Any], drop: Sequence[str]
) -> pd.DataFrame | ParquetStream:
    """The columns of a table to learn from, in their types; a folder of Parquet is read as it is needed."""
    kinds = {n: s if isinstance(s, str) else s["kind"] for n, s in column_types.items()}
    # read as text, a postal code keeps its leading zeros
    text = [n for n, kind in kinds.items() if kind == "nominal"]
    frame = _folder(path) if Path(path).is_dir() else read_table(path, text)
    names = [str(n) for n in frame.columns]
    for option, wanted in (("--column", column_types), ("--drop", drop)):
        for name in wanted:
            if name not in names:
                raise UserError(f"{path}: column {name!r}: named in {option}, but not there")
    for name in column_types:
        if name in drop:
            raise UserError(f"column {name!r}: named in both --column and --drop")
    kept = [n for n in frame.columns if str(n) not in drop]
    if not kept:
        raise UserError(f"{path}: no column is left")
    if isinstance(frame, ParquetStream):
        return ParquetStream(path, kept)
    frame = cast(pd.DataFrame, frame[kept])
    return frame if is_parquet(path) else recognise(frame, path, kinds)


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
    first, last = history.iloc[0], history.iloc[-1]
    best = history.loc[history["valid_nats"].idxmin()]
    print(f"training: {last['step']:.0f} steps ({model.stopped_}), best after {best['step']:.0f}")
    gain = first["valid_nats"] - best["valid_nats"]
    print(f"held-out rows: {gain:.3f} nats per row better than independent columns")
    # with densities or pooled categories, the history is not in the units of the table
    if all(not column.has_volume for column in model.encoder_.schema):
        for what, line in (("independent columns", first), ("model", best)):
            print(f"  {what:20} {plus_minus(line['valid_nats'], line['valid_stderr'])}")
    if isinstance(fitted, DiffusionOutlierDetector):
        if len(fitted.trimmed_):
            print(f"anomalies: {len(fitted.trimmed_)} rows left out of the training")
        print(f"threshold: {fitted.threshold_}")


def _score(args: argparse.Namespace) -> None:
    _check_out(args.out, is_table=True, model=args.model, table=args.table)
    model = load_model(args.model, args.device)
    density, judge = density_of(model), alarms.Judge.asked(args, model)
    names = {str(c.name): c.name for c in density.encoder_.schema}
    check_given(args.given, names)
    if judge is None and model is not density:
        note("with --given no alarms are raised: the threshold applies to whole rows")
    frame = read_all_for(density, args.table)
    rows = about(args.table, lambda: density.rows(frame))
    given = [names[n] for n in args.given] or None
    estimate = about(args.table, lambda: density.log_prob(rows, given, max_stderr=args.max_stderr))
    scores, shares, summary = pd.DataFrame(estimate._asdict()), None, []
    if judge is not None:
        judged = about(args.table, lambda: judge.judge(rows))
        scores, shares = scores.join(judged.columns), judged.nats
        summary = judge.summary(judged)
    elif args.explain:
        shares = about(args.table, lambda: density.explain(rows, given, max_stderr=args.max_stderr))
    if args.explain and shares is not None:
        scores = scores.join(shares.rename(columns=lambda name: f"nats_{name}"))
    save_whole(args.out, lambda path: write_table(scores, path, ending(args.out)))
    print(
        f"wrote {args.out}: {len(scores)} rows, {mean_nats(estimate.log_prob)} per row on average"
    )
    for line in summary:
        print(line)


def _impute(args: argparse.Namespace) -> None:
    _check_out(args.out, is_table=True, model=args.model, table=args.table)
    model = load_density(args.model, args.device)
    frame, _ = read_for(model, args.table)
    filled = about(
        args.table,
        lambda: model.impute(
            frame, method="sample" if args.draw else "mode", random_state=args.seed
        ),
    )
    as_written = not is_parquet(args.table) and not is_parquet(args.out)
    whole = read_cells_as_written(args.table) if as_written else read_table(args.table)
    known, n_filled = {str(c.name): c.name for c in model.encoder_.schema}, 0
    for column in whole.columns:
        if str(column) not in known:
            continue
        name = known[str(column)]
        values, gaps = cast(pd.Series, filled[name]), frame[name].isna().to_numpy()
        n_filled += int((values.notna().to_numpy() & gaps).sum())
        if as_written:
            values = fill_as_written(cast(pd.Series, whole[column]), gaps, values)
        whole[column] = values
    save_whole(args.out, lambda path: write_table(whole, path, ending(args.out)))
    print(f"wrote {args.out}: {len(whole)} rows, {n_filled} cells filled")


def _sample(args: argparse.Namespace) -> None:
    if args.out is not None:
        _check_out(args.out, is_table=True, model=args.model)
    model = load_density(args.model, args.device)
    given = given_row(model, dict(args.given)) if args.given else None
    rows = pd.DataFrame(model.sample(args.n, random_state=args.seed, given=given))
    rows.columns = [str(name) for name in rows.columns]
    if args.out is None:
        rows.to_csv(sys.stdout, index=False)
    else:
        save_whole(args.out, lambda path: write_table(rows, path, ending(args.out)))


def _report(args: argparse.Namespace) -> int:
    tables = {"table": args.table, "table of inliers": args.inliers}
    tables = {what: path for what, path in tables.items() if path is not None}
    _check_out(args.out, model=args.model, **tables)
    if args.check and args.target_nats is None and args.target_false_alarms is None:
        raise UserError("--check needs a target: --target-nats or --target-false-alarms")
    try:
        figures.new_axes()
    except ImportError as error:
        raise UserError(str(error)) from None
    model = load_model(args.model, args.device)
    density = density_of(model)
    if model is density and args.inliers is None and args.target_false_alarms is not None:
        raise UserError(
            "--target-false-alarms needs a threshold: give --inliers, from which one can be set"
        )
    frame, *inliers = (read_all_for(density, path) for path in tables.values())
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    found = about(
        " or ".join(tables.values()),
        lambda: examine(
            model,
            frame,
            inliers=inliers[0] if inliers else None,
            target_nats=args.target_nats,
            target_false_alarms=args.target_false_alarms,
            n_most_anomalous=args.most_anomalous,
        ),
    )
    page = render(found, title=f"Report on {args.table}" if args.title is None else args.title)
    save_whole(args.out, lambda path: path.write_text(page, encoding="utf-8"))
    n_alarms = "" if found.n_alarms is None else f", {found.n_alarms} alarms"
    print(f"wrote {args.out}: {found.n_rows} rows{n_alarms}")
    for verdict in found.verdicts:
        print(f"  {VERDICTS[verdict.passed].lower()}: {judgement(verdict, found)}")
    if found.verdicts:
        print(VERDICTS[found.passed].lower())
    return int(args.check and not found.passed)


def _check_out(out: str, *, is_table: bool = False, **sources: str) -> None:
    """Raise a UserError before the work, if ``out`` cannot be written or is one of the files to read."""
    if is_table:
        ending(out)
    check_writable(out)
    for what, path in sources.items():
        if same_file(out, path):
            raise UserError(f"{out}: --out is the {what} itself")


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "fit": _fit,
    "score": _score,
    "impute": _impute,
    "sample": _sample,
    "report": _report,
    "demo": demo,
}
