"""``discrete-itd score`` and ``watch``: rows of tables by a stored model.

Log-probabilities with alarms, discoveries and reasons; and martingales.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd.cli.folders import Tally, check_files, in_folder, run
from discrete_itd.cli.inputs import (
    Reader,
    about,
    check_given,
    kept_names,
    load_detector,
    load_model,
    reader_of,
)
from discrete_itd.cli.messages import UserError, note, plus_minus, say, shown
from discrete_itd.cli.tables import (
    Dialect,
    Source,
    check_out,
    same_file,
    save_whole,
    write_table,
)
from discrete_itd.detection import outside, thresholds
from discrete_itd.detection.answers import (
    DENSITY_OUTPUTS,
    answer_types,
    answers,
    density_of,
    detects,
)
from discrete_itd.detection.groups import named
from discrete_itd.detection.thresholds import Threshold, percent
from discrete_itd.detection.watch import DriftWatch
from discrete_itd.encoders import Rows
from discrete_itd.estimators import TOLERATED, large_errors
from discrete_itd.storage.files import locked
from discrete_itd.validation import warn

if TYPE_CHECKING:
    from discrete_itd.detection.answers import Estimator
    from discrete_itd.detection.detector import DiffusionOutlierDetector

OF_ALARMS = ("reasons", "discoveries", "false_alarm_rate")
LEVEL, SEED = 0.01, 0  # of a new watch


def score(args: argparse.Namespace) -> None:
    """Run the command."""
    check_files(args)
    if in_folder(args) and args.discoveries is not None:
        raise UserError(
            "--discoveries is over all rows of one table: give a file instead of a folder"
        )
    model = load_model(args.model)
    threshold = _threshold(args, model)
    check_given(args.given, density_of(model))
    if threshold is None and detects(model):
        note("with --given no alarms are raised: the threshold applies to whole rows")
    with reader_of(model, args) as reader:
        tally = run(args, reader, Scoring(args, model, threshold, reader))
    if not tally:  # a folder that was complete
        return
    n_rows = tally["rows"]
    if args.max_stderr is not None and tally["above"]:
        warn(large_errors(tally["above"], n_rows, "rows", args.max_stderr))
    mean = ""
    if n_rows:
        nats, spread = tally["nats"] / n_rows, math.nan
        if n_rows > 1:
            spread = max(0.0, tally["squares"] / n_rows - nats**2) / (n_rows - 1)
        mean = f", {plus_minus(nats, math.sqrt(spread))} per row on average (log-probability)"
    say(args.out, f"wrote {args.out}: {n_rows} rows{mean}")
    if threshold is not None and detects(model):
        for line in _of_alarms(args, model, threshold, tally):
            say(args.out, line)


def _threshold(args: argparse.Namespace, model: Estimator) -> Threshold | None:
    """The threshold of this run, None if no alarms are to be raised; a UserError names an option that does not fit."""
    given = [name for name in OF_ALARMS if getattr(args, name) is not None]
    options = [f"--{name.replace('_', '-')}" for name in given]
    if not detects(model):
        if options:
            raise UserError(
                f"{options[0]} needs a detector, as fit --detector makes; {args.model} is a density"
            )
        return None
    if args.given:
        if options:
            raise UserError(f"{options[0]} and --given: alarms are of whole rows; give one")
        return None
    rated = [option for option in options if option != "--reasons"]
    if rated and not len(model.calibration_scores_):
        raise UserError(f"{rated[0]}: {args.model} was fitted without calibration rows")
    if args.false_alarm_rate is None:
        return model.threshold_
    rate, rows_per_day = args.false_alarm_rate
    try:
        return model.threshold_at_rate(rate, rows_per_day=rows_per_day)
    except ValueError as error:
        raise UserError(f"--false-alarm-rate: {error}") from None


def _of_alarms(
    args: argparse.Namespace, detector: DiffusionOutlierDetector, threshold: Threshold, tally: Tally
) -> list[str]:
    """The guarantee and the result in lines, the last one about alarms."""
    n_rows, n_alarms, lines = tally["rows"], tally["alarm"], [str(threshold)]
    if args.discoveries is not None:
        what = f"at most {percent(args.discoveries)} of them are expected to be inliers"
        if detector.threshold_.contaminated:
            what = "the calibration rows hold anomalies, and only what is more anomalous is found"
        lines.append(f"{tally['discovery']} of {n_rows} rows are discoveries; {what}")
    rate = percent(threshold.false_alarm_rate)
    expected = f"expected among inliers: {rate}"
    if not threshold.n_calibration:
        expected = "the false-alarm rate is unknown without calibration rows"
    elif threshold is detector.threshold_ and detector.contamination != "auto":
        expected = f"expected if anomalies are as frequent as in the table of the fit: {rate}"
    others, n_unreadable = "rows", tally["unreadable"]
    if n_unreadable:
        others, n_rows = "other rows", n_rows - n_unreadable
    share = percent(n_alarms / max(1, n_rows))
    lines.append(f"{n_alarms} of {n_rows} {others} ({share}) raised an alarm; {expected}")
    if n_unreadable:
        lines.insert(
            -1, f"{n_unreadable} rows have an unreadable cell, an alarm that no rate counts"
        )
    schema = detector.density_.encoder_.schema
    n_outside = np.array([tally[f"outside {j}"] for j in range(len(schema))])
    if told := outside.sentence(n_outside, tally["rows"], schema):
        lines.insert(-1, told)
    return lines


class Scoring:
    """The :data:`~discrete_itd.cli.folders.Job` of ``score``; alarms are raised at the threshold, if there is one."""

    def __init__(
        self,
        args: argparse.Namespace,
        model: Estimator,
        threshold: Threshold | None,
        reader: Reader,
    ) -> None:
        self.reader, self._args = reader, args
        # with --given a detector is asked as a density is
        self._model = density_of(model) if threshold is None else model
        asked = ["score", "p_value", "alarm", "unreadable"] if threshold is not None else []
        if detects(self._model):
            asked += ["group_seen"] * bool(named(self._model.given))
            asked += ["reason"] * (args.reasons is not None)
        self._outputs = (*DENSITY_OUTPUTS, *asked, *["nats"] * args.explain)
        names = {str(name): name for name in self.reader.model.encoder_.names}
        self._how: dict[str, Any] = {
            "n_reasons": args.reasons or 1,
            "threshold": threshold,
            "given": [names[n] for n in args.given] or None,
            "max_stderr": args.max_stderr,
        }

    def __call__(
        self, source: Source, tally: Tally, name: str | None
    ) -> tuple[None, Iterator[pd.DataFrame]]:
        taken = ["discovery", *answer_types(self._model, self._outputs, self._args.reasons or 1)]
        keep = kept_names(source.path, source.names, self._args.keep, taken)
        frames = self._scored(source, keep, tally)
        if self._args.discoveries is not None:
            frames = _with_discoveries(frames, self._args.discoveries, tally)
        return None, frames

    def _scored(self, source: Source, keep: list[str], tally: Tally) -> Iterator[pd.DataFrame]:
        for chunk, rows in self.reader.read(source, keep=keep):
            with about(source.path), warnings.catch_warnings():
                # the one at the end counts all rows
                warnings.filterwarnings("ignore", ".* distinct rows have a standard error above")
                scores = answers(self._model, rows, self._outputs, **self._how)
            nats = scores["log_prob"].to_numpy()
            sums: dict[str, Any] = {
                "rows": len(rows),
                "nats": float(nats.sum()),
                "squares": float(nats @ nats),
            }
            if self._args.max_stderr is not None:
                above = scores["stderr"].to_numpy() > TOLERATED * self._args.max_stderr
                sums["above"] = int(above.sum())
            if "alarm" in scores:
                is_unreadable = rows.is_unreadable
                sums["alarm"] = int(scores["alarm"].to_numpy()[~is_unreadable].sum())
                sums["unreadable"] = int(is_unreadable.sum())
                sums |= {f"outside {j}": int(n) for j, n in enumerate(rows.is_outside.sum(0))}
            tally.update(sums)
            yield pd.concat([chunk[keep], scores], axis=1)


def _with_discoveries(
    frames: Iterable[pd.DataFrame], fdr: float, tally: Tally
) -> Iterator[pd.DataFrame]:
    """Frames with the column ``discovery`` after ``alarm``.

    Which rows are discoveries depends on all of them, so the frames wait in a temporary file for the last one.
    """
    counts, n_frames = pd.Series(dtype=float), 0  # by p-value
    with tempfile.TemporaryFile() as file:
        for frame in frames:
            pickle.dump(frame, file)
            counts = counts.add(frame["p_value"].value_counts(), fill_value=0)
            n_frames += 1
        n = counts.sort_index().astype(int)
        level = thresholds.discovery_level(n.index.to_numpy(dtype=float), n.to_numpy(), fdr)
        file.seek(0)
        for _ in range(n_frames):
            frame = pickle.load(file)  # written above, in a file without a name
            is_found = frame["p_value"] <= level
            tally["discovery"] += int(is_found.sum())
            frame.insert(frame.columns.get_loc("alarm") + 1, "discovery", is_found)
            yield frame


# -- watch ----------------------------------------------------------------------------------------


def watch(args: argparse.Namespace) -> int:
    """Run the command; 1 if an alarm was raised, now or in an earlier call."""
    if args.keep and args.out is None:
        raise UserError("--keep needs --out, to which columns are copied")
    save_whole(args.state, None)
    for path in (args.model, args.table):
        if same_file(args.state, path):
            raise UserError(f"{args.state}: --state is also read as another file")
    check_out(args.out, model=args.model, table=args.table, state=args.state)
    with locked(args.state):
        found = _watch(args)
    say(args.out, f"{shown(args.table)}: {found}")
    return int(found.alarm_ is not None)


def _watch(args: argparse.Namespace) -> DriftWatch:
    """The watch after the rows, whose state is written."""
    detector = load_detector(args)
    if not os.path.exists(args.state):
        level = LEVEL if args.level is None else args.level
        found = DriftWatch(detector, level=level, random_state=SEED)
    else:
        found = DriftWatch.load(args.state, detector)
        if args.level not in (None, found.level):
            raise UserError(
                f"--level: {args.state} is at level {found.level:g}, which does not change: its alarms would have no"
                " guarantee; use another file for a new watch"
            )
    with reader_of(detector, args) as reader:
        frames = _watched(found, reader.read_all(args.table, keep=args.keep), args.keep)
        if args.out is not None:
            write_table(args.out, frames, Dialect(for_spreadsheet=args.for_spreadsheet))
        for _ in frames:
            pass
    # last: a call that fails before can be repeated
    save_whole(args.state, found.save)
    return found


def _watched(
    found: DriftWatch, chunks: Iterable[tuple[str, pd.DataFrame, Rows]], keep: list[str]
) -> Iterator[pd.DataFrame]:
    """The columns to keep, and the results of the watch for the rows."""
    for path, chunk, rows in chunks:
        with about(path):
            table = found.update(rows)
        names = kept_names(path, list(chunk.columns), keep, list(table.columns))
        yield pd.concat([chunk[names].set_axis(table.index, axis=0), table], axis=1)
