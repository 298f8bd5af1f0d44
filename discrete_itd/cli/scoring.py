"""``discrete-itd score``: log-probabilities of rows by a stored model, with alarms and reasons."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd.cli.inputs import (
    Job,
    Reader,
    Tally,
    about,
    check_detector,
    check_files,
    kept_names,
    load_model,
    reader_of,
    run,
)
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import Source, say
from discrete_itd.detection import outside
from discrete_itd.detection.answers import (
    DENSITY_OUTPUTS,
    answer_types,
    answers,
    density_of,
    detects,
)
from discrete_itd.detection.strata import named
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.statistics import count, percent
from discrete_itd.validation import warn

if TYPE_CHECKING:
    from discrete_itd.detection.answers import Estimator


def score(args: argparse.Namespace) -> None:
    """Run the command."""
    check_files(args)
    model = load_model(args.model)
    threshold = _threshold(args, model)
    with reader_of(model, args) as reader:
        tally = run(args, reader, _scoring(args, model, threshold, reader))
    if not tally:  # every output of the folder was up to date
        return
    n_rows = tally["rows"]
    average = f"{float(tally['nats']) / max(1, n_rows):.3f} nats per row on average"
    mean = f", {average} (log-probability)" if n_rows else ""
    say(args.out, f"wrote {args.out}: {count(n_rows, 'row')}{mean}")
    if threshold is not None:
        for line in _of_alarms(model, threshold, tally):
            say(args.out, line)


def _threshold(args: argparse.Namespace, model: Estimator) -> Threshold | None:
    """The alarm threshold, None for a density; UserError if an option needs a detector or calibration rows."""
    asked = {"--reasons": args.reasons, "--false-alarm-rate": args.false_alarm_rate}
    for option in [option for option, value in asked.items() if value is not None]:
        check_detector(model, args.model, option)
    if not detects(model):
        return None
    if args.false_alarm_rate is None:
        return model.threshold_
    if not len(model.calibration_scores_):
        raise UserError(f"--false-alarm-rate: {args.model} was fitted without calibration rows")
    try:
        return model.threshold_at_rate(args.false_alarm_rate)
    except ValueError as error:
        raise UserError(f"--false-alarm-rate: {error}") from None


def _of_alarms(model: Estimator, threshold: Threshold, tally: Tally) -> list[str]:
    """Lines on the threshold, cells outside the training range, unreadable rows, and last the number of alarms."""
    n_rows, n_unreadable, lines = tally["rows"], tally["unreadable"], [str(threshold)]
    schema = density_of(model).encoder_.schema
    n_outside = np.array([tally[f"outside {j}"] for j in range(len(schema))])
    if warning := outside.sentence(n_outside, n_rows, schema):
        lines.append(warning)
    if n_unreadable:
        lines.append(f"rows with an unreadable cell, an alarm that no rate counts: {n_unreadable}")
    n_others = n_rows - n_unreadable
    share, others = percent(tally["alarm"] / max(1, n_others)), "other " * bool(n_unreadable)
    return [*lines, f"{tally['alarm']} of {n_others} {others}rows ({share}) raised an alarm"]


def _scoring(
    args: argparse.Namespace, model: Estimator, threshold: Threshold | None, reader: Reader
) -> Job:
    """The job that scores one table in chunks; a detector raises alarms at the threshold."""
    asked, n_reasons = [], args.reasons or 1
    if detects(model):
        asked = ["score", "p_value", "alarm", "unreadable"]
        asked += ["stratum_seen"] * bool(named(model.given))
        asked += ["reason"] * (args.reasons is not None)
    outputs = (*DENSITY_OUTPUTS, *asked, *["nats"] * args.explain)

    def scored(source: Source, tally: Tally, _: str | None) -> Iterator[pd.DataFrame]:
        taken = ["row", *answer_types(model, outputs, n_reasons)]
        keep = kept_names(source.path, source.names, args.keep, taken)
        keys = outside.RepeatedKeys(
            density_of(model).encoder_, source.names if detects(model) else []
        )
        read = [*keep, *(str(name) for name in keys.names if name not in keep)]
        for chunk, rows in reader.read(source, keep=read):
            keys.add(chunk)
            with about(source.path):
                scores = answers(model, rows, outputs, n_reasons=n_reasons, threshold=threshold)
            sums: Any = {"rows": len(rows), "nats": scores["log_prob"].to_numpy().sum()}
            tally.update(sums)
            if "alarm" in scores:
                is_unreadable = rows.is_unreadable
                n_alarms = int(scores["alarm"].to_numpy()[~is_unreadable].sum())
                tally.update(alarm=n_alarms, unreadable=int(is_unreadable.sum()))
                tally.update({f"outside {j}": int(n) for j, n in enumerate(rows.is_outside.sum(0))})
            row = pd.Series(chunk.index, index=chunk.index, name="row")
            yield pd.concat([row, chunk[keep], scores], axis=1)
        if text := keys.sentence():
            warn(f"{source.path}: {text}")

    return scored
