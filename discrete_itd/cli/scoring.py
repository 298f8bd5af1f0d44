"""``discrete-itd score``: log-probabilities of the rows of tables, with alarms and reasons."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from discrete_itd.cli.alarms import TO_SCORE, Judge
from discrete_itd.cli.inputs import (
    Reader,
    about,
    check_given,
    kept_cells,
    kept_names,
    load_model,
)
from discrete_itd.cli.jobs import Files, run
from discrete_itd.cli.messages import note, plus_minus, say
from discrete_itd.cli.streams import Source, Table
from discrete_itd.cli.tables import UserError
from discrete_itd.cli.tally import Tally
from discrete_itd.detection.answers import (
    DENSITY_OUTPUTS,
    Model,
    answer_types,
    answers,
    density_of,
)
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Rows
from discrete_itd.models.scoring import TOLERATED, large_errors
from discrete_itd.validation import warn


def score(args: argparse.Namespace) -> None:
    """Run the command."""
    files = Files.asked(args)
    if files.in_folder and args.discoveries is not None:
        raise UserError(
            "--discoveries is over all rows of one table: give a file instead of a folder"
        )
    model = load_model(args.model, args.device)
    judge = Judge.asked(args, model)
    encoder = density_of(model).encoder_
    check_given(args.given, encoder)
    names = {str(name): name for name in encoder.names}
    if judge is None and isinstance(model, DiffusionOutlierDetector):
        note("with --given no alarms are raised: the threshold applies to whole rows")
    given = [names[n] for n in args.given] or None
    tally = run(args, files, lambda progress: Scoring(args, model, judge, given, progress))
    mean = plus_minus(tally.mean, tally.stderr)
    if args.max_stderr is not None and tally.counts["above"]:
        text = large_errors(tally.counts["above"], tally.n_rows, "rows", args.max_stderr)
        warn(text)
    mean = f", {mean} per row on average" if tally.n_rows else ""
    say(args.out, f"wrote {args.out}: {tally.n_rows} rows{mean}")
    if judge is not None:
        found = (tally.counts[name] for name in ("alarm", "discovery"))
        for line in judge.summary(tally.n_rows, *found):
            say(args.out, line)


class Scoring:
    """The job of ``score``.

    Parameters
    ----------
    args : Namespace
    model : DiffusionDensity or DiffusionOutlierDetector
    judge : Judge, optional
        Who raises alarms, if there are to be any.
    given : list of names, optional
        Of the columns to condition on.
    progress : callable
        Told of the number of rows done.
    """

    copies = False

    def __init__(
        self,
        args: argparse.Namespace,
        model: Model,
        judge: Judge | None,
        given: list[Any] | None,
        progress: Callable[[int], object],
    ) -> None:
        self.reader = Reader(density_of(model), progress)
        # with --given a detector is asked as a density is
        self._model = density_of(model) if judge is None else model
        self._args, self._judge, self._given = args, judge, given
        explained = ("nats",) if args.explain else ()
        self._outputs = (*DENSITY_OUTPUTS, *(() if judge is None else judge.outputs), *explained)
        self._answers = ["discovery", *answer_types(self._model, self._outputs, args.reasons or 1)]

    def options(self) -> Mapping[str, Any]:
        """What makes a difference to the scores, apart from the model."""
        names = ("given", "max_stderr", "explain", "keep", *TO_SCORE)
        return {name: getattr(self._args, name) for name in names}

    def outputs(
        self, source: Source, out: Table, tally: Tally, name: str | None
    ) -> tuple[None, Iterator[pd.DataFrame]]:
        """See :class:`~discrete_itd.cli.jobs.Job`."""
        self.reader.check(source)
        keep = kept_names(source.table.path, source.names, self._args.keep, self._answers)
        frames = self._scored(source, keep, tally)
        return None, self._counted(
            frames if self._judge is None else self._judge.with_discoveries(frames), tally
        )

    def _scored(self, source: Source, keep: list[str], tally: Tally) -> Iterator[pd.DataFrame]:
        chunks = self.reader.read(source, self._args.chunk_rows, keep=keep, may_be_empty=True)
        for chunk, rows in chunks:
            scores = about(source.table.path, lambda rows=rows: self._scores(rows))
            stderr, bound = scores["stderr"].to_numpy(), self._args.max_stderr
            n_above = 0 if bound is None else int((stderr > TOLERATED * bound).sum())
            tally.add(scores["log_prob"].to_numpy(), above=n_above)
            yield pd.concat([kept_cells(chunk, keep), scores], axis=1)

    def _counted(self, frames: Iterator[pd.DataFrame], tally: Tally) -> Iterator[pd.DataFrame]:
        for frame in frames:
            for name in ("alarm", "discovery"):
                if name in frame:
                    tally.counts[name] += int(frame[name].to_numpy().sum())
            yield frame

    def _scores(self, rows: Rows) -> pd.DataFrame:
        """The columns of the output, each row by itself."""
        with warnings.catch_warnings():
            # the one at the end counts all rows
            warnings.filterwarnings("ignore", ".* distinct rows have a standard error above")
            return answers(
                self._model,
                rows,
                self._outputs,
                n_reasons=self._args.reasons or 1,
                threshold=None if self._judge is None else self._judge.threshold,
                given=self._given,
                max_stderr=self._args.max_stderr,
            )
