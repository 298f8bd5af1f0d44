"""Alarms on the command line: the options they need, discoveries, and what is said of them."""

from __future__ import annotations

import argparse
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.cli.tables import UserError
from discrete_itd.detection import conformal
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.groups import named
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.estimators import DiffusionDensity

TO_FIT = ("false_alarm_rate", "contamination", "calibration_fraction")
TO_SCORE = ("reasons", "discoveries", "false_alarm_rate", "alarms_per_day", "rows_per_day")


def settings_to_fit(args: argparse.Namespace) -> dict[str, Any]:
    """The detector's parameters among the options of ``fit``; UserError if options are incompatible."""
    settings: dict[str, Any] = dict(_given(args, TO_FIT))
    if args.given:
        settings["given"] = args.given
    if settings and not args.detector:
        raise UserError(f"{_option(next(iter(settings)))} needs --detector")
    if {"false_alarm_rate", "contamination"} <= settings.keys():
        raise UserError("--false-alarm-rate and --contamination both set the threshold: give one")
    if settings.get("contamination", 0) > 0.5:
        raise UserError(f"--contamination must be at most 0.5, got {args.contamination:g}")
    if args.detector and args.handle_unknown == "error":
        raise UserError("--handle-unknown error: a detector must score unseen values")
    return settings


@dataclass(frozen=True)
class Judge:
    """How ``score`` raises alarms.

    Parameters
    ----------
    detector : DiffusionOutlierDetector
    threshold : Threshold
        The threshold of this run, whatever the detector's own.
    fdr : float, optional
        False-discovery rate, if there is to be a ``discovery``.
    outputs : tuple of str
        What is asked of the detector besides ``log_prob`` and its error (:mod:`discrete_itd.detection.answers`).
    """

    detector: DiffusionOutlierDetector
    threshold: Threshold
    fdr: float | None = None
    outputs: tuple[str, ...] = ("score", "p_value", "alarm")

    @classmethod
    def asked(
        cls, args: argparse.Namespace, model: DiffusionDensity | DiffusionOutlierDetector
    ) -> Judge | None:
        """The judge that the options of ``score`` describe; None if no alarms are to be raised.

        Raises
        ------
        UserError
            Naming the option that is incompatible with the model or with another option.
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
        rated = [option for option in options if option != "--reasons"]
        if rated and not len(model.calibration_scores_):
            raise UserError(f"{rated[0]}: {args.model} was fitted without calibration rows")
        threshold = _threshold(args, model)
        grouped = ("group_seen",) if named(model.given) else ()
        reasons = ("reason",) if args.reasons is not None else ()
        return cls(model, threshold, args.discoveries, (*cls.outputs, *grouped, *reasons))

    def with_discoveries(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Frames with the column ``discovery`` after ``alarm``, if there is to be one.

        Which rows are discoveries depends on all of them, so the frames wait in a temporary file for the last one.
        """
        if self.fdr is None:
            yield from frames
            return
        counts: Counter[float] = Counter()
        with tempfile.TemporaryFile() as file:
            n_frames = 0
            for frame in frames:
                pickle.dump(frame, file)
                p, n = np.unique(frame["p_value"].to_numpy(), return_counts=True)
                counts.update(dict(zip(p.tolist(), n.tolist(), strict=True)))
                n_frames += 1
            found = sorted(counts.items())
            p, n = np.array([p for p, _ in found]), np.array([n for _, n in found], dtype=np.int64)
            level = conformal.discovery_level(p, n, self.fdr)
            file.seek(0)
            for _ in range(n_frames):
                frame = pickle.load(file)  # written above, in a file without a name
                place = frame.columns.get_loc("alarm") + 1
                frame.insert(place, "discovery", frame["p_value"] <= level)
                yield frame

    def summary(self, n_rows: int, n_alarms: int, n_discoveries: int) -> list[str]:
        """The guarantee and the result in lines, the last one about alarms."""
        lines = [str(self.threshold)]
        if self.fdr is not None:
            what = f"at most {_percent(self.fdr)} of them are expected to be inliers"
            if self.detector.threshold_.contaminated:
                what = (
                    "the calibration rows hold anomalies, and only what is more anomalous is found"
                )
            lines.append(f"{n_discoveries} of {n_rows} rows are discoveries; {what}")
        rate = _percent(self.threshold.false_alarm_rate)
        expected = f"expected among inliers: {rate}"
        if not self.threshold.n_calibration:
            expected = "the false-alarm rate is unknown without calibration rows"
        elif self.threshold is self.detector.threshold_ and self.detector.contamination != "auto":
            expected = f"expected if anomalies are as frequent as in the table of the fit: {rate}"
        return [
            *lines,
            f"{n_alarms} of {n_rows} rows ({_percent(n_alarms / max(1, n_rows))}) raised an alarm; {expected}",
        ]


def _threshold(args: argparse.Namespace, detector: DiffusionOutlierDetector) -> Threshold:
    """The threshold that the options of ``score`` ask for, or else the detector's."""
    rate, a_day, rows = args.false_alarm_rate, args.alarms_per_day, args.rows_per_day
    if rate is not None and a_day is not None:
        raise UserError("--false-alarm-rate and --alarms-per-day both set the threshold: give one")
    if a_day is not None:
        if rows is None:
            raise UserError("--alarms-per-day needs --rows-per-day")
    elif rate is None:
        if rows is not None:
            raise UserError("--rows-per-day needs --alarms-per-day or --false-alarm-rate")
        return detector.threshold_
    try:
        if a_day is not None and rows is not None:
            if a_day >= rows:
                raise ValueError(f"must be fewer than --rows-per-day {rows:g}, got {a_day:g}")
            return detector.threshold_at_rate(a_day / rows, rows_per_day=rows)
        assert rate is not None
        return detector.threshold_at_rate(rate, rows_per_day=rows)
    except ValueError as error:
        option = "--alarms-per-day" if rate is None else "--false-alarm-rate"
        raise UserError(f"{option}: {error}") from None


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, float]:
    """The options, of those with these names, that the user gave."""
    return {name: v for name in names if (v := getattr(args, name)) is not None}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
