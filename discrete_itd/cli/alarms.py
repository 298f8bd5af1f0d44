"""Alarms on the command line: the options they need, and a table's rows with p-values, alarms and reasons."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from discrete_itd.cli.tables import UserError
from discrete_itd.detection import conformal, reasons
from discrete_itd.detection.conformal import Threshold
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.scoring import total
from discrete_itd.estimators import DiffusionDensity

TO_FIT = ("false_alarm_rate", "contamination", "calibration_fraction")
TO_SCORE = ("reasons", "discoveries", "false_alarm_rate", "alarms_per_day", "rows_per_day")


def settings_to_fit(args: argparse.Namespace) -> dict[str, float]:
    """What the options of ``fit`` say of the detector; UserError if they make no sense together."""
    settings = _given(args, TO_FIT)
    if settings and not args.detector:
        raise UserError(f"{_option(next(iter(settings)))} needs --detector")
    if {"false_alarm_rate", "contamination"} <= settings.keys():
        raise UserError("--false-alarm-rate and --contamination both set the threshold: give one")
    if settings.get("contamination", 0) > 0.5:
        raise UserError(f"--contamination must be at most 0.5, got {args.contamination:g}")
    if args.detector and args.handle_unknown == "error":
        raise UserError(
            "--handle-unknown error: a detector cannot do it; unseen values are what it is for"
        )
    return settings


@dataclass(frozen=True)
class Judged:
    """What a detector says of a table's rows.

    Attributes
    ----------
    columns : DataFrame, shape (N, ...)
        ``score``, ``p_value`` (missing, of a detector without calibration rows) and ``alarm``; if asked for
        ``discovery`` and ``reason``, which is missing where there is no alarm.
    nats : DataFrame, shape (N, C)
        By column of the detector; rows sum to minus the score.
    """

    columns: pd.DataFrame
    nats: pd.DataFrame


@dataclass(frozen=True)
class Judge:
    """How ``score`` is to raise alarms.

    Parameters
    ----------
    detector : DiffusionOutlierDetector
    threshold : Threshold
        Of this run, whatever the detector's own.
    fdr : float, optional
        False-discovery rate, if there is to be a ``discovery``.
    n_reasons : int, optional
        Cells to tell of, if there is to be a ``reason``.
    """

    detector: DiffusionOutlierDetector
    threshold: Threshold
    fdr: float | None = None
    n_reasons: int | None = None

    @classmethod
    def asked(
        cls, args: argparse.Namespace, model: DiffusionDensity | DiffusionOutlierDetector
    ) -> Judge | None:
        """What the options of ``score`` ask for; None if no alarms are to be raised.

        Raises
        ------
        UserError
            Naming the option that the model, or another option, does not go with.
        """
        options = [_option(name) for name in _given(args, TO_SCORE)]
        if isinstance(model, DiffusionDensity):
            if options:
                raise UserError(
                    f"{options[0]} needs a detector, as fit --detector makes; {args.model} is a density"
                )
            return None
        if args.given:
            if options:
                raise UserError(f"{options[0]} and --given: alarms are of whole rows; give one")
            return None
        if options and not len(model.calibration_scores_):
            raise UserError(f"{options[0]}: {args.model} was fitted without calibration rows")
        return cls(model, _threshold(args, model), args.discoveries, args.reasons)

    def judge(self, frame: pd.DataFrame) -> Judged:
        """The rows of a table, each scored once.

        Parameters
        ----------
        frame : DataFrame, shape (N, C)
            With an index that does not repeat.

        Raises
        ------
        ValueError, TypeError
            Naming the column, if it holds what the model cannot take.
        """
        nats, calibration = self.detector.explain(frame), self.detector.calibration_scores_
        score = -total(nats)
        p = np.full(len(score), np.nan)
        if len(calibration):
            p = conformal.p_values(calibration, score, rounding=self.detector.rounding_)
        alarm = score < self.threshold.offset
        columns = pd.DataFrame({"score": score, "p_value": p, "alarm": alarm}, index=frame.index)
        if self.fdr is not None:
            columns["discovery"] = conformal.discoveries(p, self.fdr)
        if self.n_reasons is not None:
            told = _sentences(self.detector, frame.loc[alarm], nats.loc[alarm], self.n_reasons)
            columns["reason"] = told.reindex(frame.index)
        return Judged(columns, nats)

    def summary(self, judged: Judged) -> list[str]:
        """What was promised and what was found, in lines; the last is on alarms."""
        columns, n = judged.columns, len(judged.columns)
        lines = [str(self.threshold)]
        if self.fdr is not None:
            lines.append(
                f"{columns['discovery'].to_numpy().sum()} of {n} rows are discoveries; of these at most"
                f" {_percent(self.fdr)} are expected to be ordinary"
            )
        n_alarms = int(columns["alarm"].to_numpy().sum())
        rate = _percent(self.threshold.false_alarm_rate)
        promise = f"promised for ordinary rows: {rate}"
        if not self.threshold.n_calibration:
            promise = "nothing was promised, without calibration rows"
        elif self.threshold is self.detector.threshold_ and self.detector.contamination != "auto":
            promise = f"of the calibration rows, anomalies among them: {rate}"
        return [
            *lines,
            f"{n_alarms} of {n} rows ({_percent(n_alarms / n)}) raised an alarm; {promise}",
        ]


def _threshold(args: argparse.Namespace, detector: DiffusionOutlierDetector) -> Threshold:
    """The threshold that the options of ``score`` ask for, or else the detector's."""
    rate, a_day, rows = args.false_alarm_rate, args.alarms_per_day, args.rows_per_day
    if rate is not None and a_day is not None:
        raise UserError("--false-alarm-rate and --alarms-per-day both set the threshold: give one")
    if a_day is not None:
        if rows is None:
            raise UserError("--alarms-per-day needs --rows-per-day")
        if a_day >= rows:
            raise UserError(
                f"--alarms-per-day must be below --rows-per-day, got {a_day:g} of {rows:g}"
            )
    elif rate is None:
        if rows is not None:
            raise UserError("--rows-per-day needs --alarms-per-day or --false-alarm-rate")
        return detector.threshold_
    try:
        return detector.threshold(false_alarm_rate=rate, alarms_per_day=a_day, rows_per_day=rows)
    except ValueError as error:
        option = "--alarms-per-day" if rate is None else "--false-alarm-rate"
        raise UserError(f"{option}: {error}") from None


def _sentences(
    detector: DiffusionOutlierDetector, frame: pd.DataFrame, nats: pd.DataFrame, k: int
) -> pd.Series:
    """The reasons of each row in one text, with the index of the rows that have some."""
    if not len(frame):
        return pd.Series(dtype="string")
    usual = detector.calibration_nats_
    told = reasons.reasons(detector.density_, frame, usual, k, explain=lambda _: nats)
    sentences = pd.Series(
        [reasons.sentence(line) for line in told.to_dict("records")],
        index=told["row"],
        dtype="string",
    )
    return cast(pd.Series, sentences.groupby(level=0).agg("; ".join))


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, float]:
    """The options, of those with these names, that the user gave."""
    return {name: v for name in names if (v := getattr(args, name)) is not None}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
