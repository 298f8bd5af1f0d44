"""``discrete-itd evaluate``: how well a model finds the anomalies of a table with labels."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import Reader, about, load_model
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.messages import note, say
from discrete_itd.cli.report import Stream
from discrete_itd.cli.streams import STANDARD, Table, write_stream
from discrete_itd.cli.tables import UserError
from discrete_itd.detection.answers import density_of
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.progress import stream_progress
from discrete_itd.reporting.statistics import (
    Interval,
    auroc_interval,
    precision_interval,
    share_interval,
)

# labels that need no --anomalies
POSITIVE, NEGATIVE = ("1", "1.0", "true"), ("0", "0.0", "false")


def evaluate(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.out not in (None, STANDARD):
        check_out(args.out, model=args.model, table=args.table)
    model = load_model(args.model, args.device)
    density = density_of(model)
    if args.label in map(str, density.encoder_.names):
        note(
            f"column {args.label!r} is part of the model, which has seen such labels: fit with --drop"
        )
    scores, labels, alarms = [], [], []
    with stream_progress(args.command) as bar:
        reader = Reader(density, bar.update)
        stream = Stream(
            reader, args.table, args.format or "csv", args.chunk_rows, Dialect.asked(args)
        )
        for path, chunk, rows in stream.chunks(all_used=True):
            if args.label not in chunk.frame:
                raise UserError(f"{path}: column {args.label!r}: named in --label, but not there")
            labels.append(_texts(path, chunk.frame, args.label))
            score = about(path, lambda rows=rows: model.score_samples(rows))
            scores.append(score)
            if isinstance(model, DiffusionOutlierDetector):
                alarms.append(model.predict(rows, scores=score) == -1)
    reader.tell()
    is_anomaly = _anomalies(args, np.concatenate(labels))
    alarm = np.concatenate(alarms) if alarms else None
    lines = measured(np.concatenate(scores), is_anomaly, alarm)
    if args.out is not None:
        write_stream(Table.named(args.out, args.format or "csv"), [pd.DataFrame(lines)])
    n = int(is_anomaly.sum())
    say(args.out or "", f"{args.table}: {len(is_anomaly)} rows, {n} anomalies; 95 % intervals")
    for line in lines:
        low, high = (f"{line[end]:.4g}" for end in ("low", "high"))
        say(args.out or "", f"  {line['measure']:26} {line['value']:.4g} ({low} to {high})")


def measured(
    scores: np.ndarray, is_anomaly: np.ndarray, alarm: np.ndarray | None
) -> list[dict[str, Any]]:
    """Measures of a ranking and, with a threshold, of alarms, with their 95 % intervals.

    Parameters
    ----------
    scores : ndarray, shape (N,)
        Inliers have higher ones.
    is_anomaly : ndarray of bool, shape (N,)
    alarm : ndarray of bool, shape (N,), optional

    Returns
    -------
    list of dict
        With measure, value, low and high.
    """
    found: dict[str, Interval] = {
        "AUROC": auroc_interval(-scores, is_anomaly),
        "average precision": precision_interval(-scores, is_anomaly),
    }
    if alarm is not None:
        n_alarms, hits = int(alarm.sum()), int((alarm & is_anomaly).sum())
        n_anomalies = int(is_anomaly.sum())
        n_inliers = len(alarm) - n_anomalies
        found["false alarms of inliers"] = share_interval(n_alarms - hits, n_inliers)
        found["alarms of anomalies"] = share_interval(hits, n_anomalies)
        if n_alarms:
            found["anomalies among alarms"] = share_interval(hits, n_alarms)
    return [{"measure": name, **interval._asdict()} for name, interval in found.items()]


def _texts(path: str, frame: pd.DataFrame, name: str) -> np.ndarray:
    """Labels as text."""
    labels = frame.iloc[:, list(map(str, frame.columns)).index(name)]
    missing = np.flatnonzero(labels.isna().to_numpy())
    if len(missing):
        row = labels.index[int(missing[0])]
        raise UserError(f"{path}: row {row}: column {name!r}: the label is missing")
    return labels.astype(object).map(str).to_numpy(dtype=object)


def _anomalies(args: argparse.Namespace, labels: np.ndarray) -> np.ndarray:
    """Which labels are those of anomalies."""
    known = sorted(set(labels))
    if args.anomalies:
        for label in args.anomalies:
            if label not in known:
                raise UserError(f"{label!r}: named in --anomalies, but no row has this label")
        is_anomaly = np.isin(labels, args.anomalies)
    elif all(label.lower() in POSITIVE + NEGATIVE for label in known):
        is_anomaly = np.isin(np.char.lower(labels.astype(str)), POSITIVE)
    else:
        raise UserError(
            f"column {args.label!r}: which of {', '.join(map(repr, known[:5]))} are anomalies? name them with"
            " --anomalies"
        )
    if is_anomaly.all() or not is_anomaly.any():
        raise UserError(f"column {args.label!r}: there must be both anomalies and inliers")
    return is_anomaly
