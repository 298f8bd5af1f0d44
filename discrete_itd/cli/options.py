"""All commands and options of the command line, with their help texts.

A new option is one ``add_argument`` in the function of its command below; the command, in
:mod:`discrete_itd.cli.command`, finds its value in ``args``. The types of values are in
:mod:`discrete_itd.cli.option_types`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from discrete_itd import __version__
from discrete_itd.cli.descriptions import ABOUT, DEMO, FIT, IMPUTE, REPORT, SAMPLE, SCORE
from discrete_itd.cli.option_types import (
    amount,
    at_least_one,
    column_spec,
    count,
    finite,
    name_and_value,
    positive,
    share,
)
from discrete_itd.cli.tables import ENDINGS, UserError
from discrete_itd.deprecation import REMOVAL
from discrete_itd.recipes import NAMES

OLD_OPTIONS = {
    "--unseen": "--handle-unknown",
    "--tol": "--max-stderr",
    "--ordinary": "--inliers",
    "--strangest": "--most-anomalous",
}  # accepted with a note until the release REMOVAL


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The values of all options of a command, and ``command``, its name.

    Raises
    ------
    UserError
        If a command, an option or a value is not valid.

    Warns
    -----
    UserWarning
        If an option is given by its old name.
    """
    return make_parser().parse_args([_renamed(word) for word in argv])


def _renamed(word: str) -> str:
    """An old option by its new name; any other word as it is."""
    name, equals, value = word.partition("=")
    if name not in OLD_OPTIONS:
        return word
    new = OLD_OPTIONS[name]
    warnings.warn(f"{name} is called {new} now and will be removed in {REMOVAL}", stacklevel=2)
    return f"{new}{equals}{value}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; its result has the attribute ``command``, the command's name."""
    parser = _Parser(
        prog="discrete-itd", description=ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"discrete-itd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, about: str, brief: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, description=about, help=brief, formatter_class=argparse.RawTextHelpFormatter
        )
        sub.set_defaults(command=name)
        return sub

    _add_fit(command("fit", FIT, "learn the distribution of a table"))
    _add_score(command("score", SCORE, "log-probabilities of a table's rows"))
    _add_impute(command("impute", IMPUTE, "fill a table's missing cells"))
    _add_sample(command("sample", SAMPLE, "draw new rows"))
    _add_report(command("report", REPORT, "an HTML report on a table"))
    demo = command("demo", DEMO, "try it on a table in the package")
    _add_max_time(demo, 45.0, "45")
    return parser


def _add_fit(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("table", metavar="TABLE", help=f"rows to learn from: {ENDINGS}")
    fit.add_argument("--out", required=True, metavar="MODEL", help="file for the model")
    _add_list(
        fit,
        "--column",
        "NAME=KIND",
        "kind of a column, see above; may be repeated",
        type=column_spec,
    )
    _add_list(fit, "--drop", "NAME", "columns to leave out; may be repeated")
    fit.add_argument(
        "--missing",
        choices=("marginalise", "category"),
        default="marginalise",
        help="leave missing cells out of the probability (marginalise, the default), or treat\n"
        "missing as a category",
    )
    fit.add_argument(
        "--handle-unknown",
        type=lambda text: "error" if text == "raise" else text,  # the old name
        choices=("smooth", "error"),
        default="smooth",
        help="later, a category that is not in TABLE gets a small probability (smooth, the default)\n"
        "or is an error",
    )
    fit.add_argument(
        "--denoiser",
        choices=tuple(NAMES),
        default="auto",
        metavar="NAME",
        help="model to fit: auto, a network (the default); tree, trees, mixture,\n"
        "bayes_net or independent, exact and without training; or\n"
        "ensemble, several of them",
    )
    _add_max_time(fit, None, "any")
    fit.add_argument(
        "--max-steps",
        type=count,
        default=6000,
        metavar="N",
        help="maximum number of training steps (default: %(default)s)",
    )
    fit.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="keep the state of the training in FILE, and continue from it if it exists:\n"
        "repeat the command after a crash or Ctrl-C",
    )
    _add_seed(
        fit,
        "makes the fit reproducible (default: random; 0 with --detector and --checkpoint, so\n"
        "that the same rows are held out again)",
    )
    _add_device(fit)
    _add_detector(fit)


def _add_detector(fit: argparse.ArgumentParser) -> None:
    alarms = fit.add_argument_group("alarms")
    alarms.add_argument("--detector", action="store_true", help="fit a detector, see above")
    alarms.add_argument(
        "--false-alarm-rate",
        type=share,
        metavar="RATE",
        help="share of inliers that may raise an alarm (default: 0.01)",
    )
    alarms.add_argument(
        "--contamination",
        type=share,
        metavar="SHARE",
        help="share of anomalies in TABLE, like 0.02: train on the other rows, and raise alarms\n"
        "at this rate (default: all rows are inliers)",
    )
    alarms.add_argument(
        "--calibration-fraction",
        type=share,
        metavar="SHARE",
        help="share of the rows held out to calibrate p-values and threshold (default: 0.2)",
    )


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument("model", metavar="MODEL", help="file written by fit")
    score.add_argument("table", metavar="TABLE", help=f"rows to score: {ENDINGS}")
    score.add_argument("--out", required=True, metavar="FILE", help=f"scores: {ENDINGS}")
    _add_list(score, "--given", "NAME", "condition on these columns: log-probability of the others")
    score.add_argument(
        "--max-stderr",
        type=positive,
        metavar="NATS",
        help="spend up to 16 times as many evaluations on rows with a larger stderr",
    )
    score.add_argument(
        "--explain",
        action="store_true",
        help="add nats_<column> for each column of the model: its share of -log_prob, or with a\n"
        "detector of -score",
    )
    _add_device(score)
    alarms = score.add_argument_group("with a detector")
    alarms.add_argument(
        "--reasons",
        type=at_least_one,
        nargs="?",
        const=3,
        metavar="K",
        help="add reason, for rows that raise an alarm: a sentence on each of the K most anomalous\n"
        "cells (default: 3)",
    )
    alarms.add_argument(
        "--discoveries",
        type=share,
        metavar="FDR",
        help="add discovery (True or False): rows called anomalies such that the expected share of\n"
        "inliers among them is at most FDR, like 0.1 (Benjamini-Hochberg over TABLE)",
    )
    alarms.add_argument(
        "--false-alarm-rate",
        type=share,
        metavar="RATE",
        help="share of inliers that may raise an alarm (default: as fitted)",
    )
    alarms.add_argument(
        "--alarms-per-day",
        type=amount,
        metavar="N",
        help="acceptable number of false alarms, instead of --false-alarm-rate",
    )
    alarms.add_argument(
        "--rows-per-day",
        type=amount,
        metavar="N",
        help="number of rows scored per day; --alarms-per-day needs it",
    )


def _add_impute(impute: argparse.ArgumentParser) -> None:
    impute.add_argument("model", metavar="MODEL", help="file written by fit")
    impute.add_argument("table", metavar="TABLE", help=f"rows to fill: {ENDINGS}")
    impute.add_argument("--out", required=True, metavar="FILE", help=f"filled: {ENDINGS}")
    impute.add_argument(
        "--draw",
        action="store_true",
        help="draw the missing cells of a row from their joint distribution",
    )
    _add_seed(impute, "makes --draw reproducible (default: random)")
    _add_device(impute)


def _add_sample(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("model", metavar="MODEL", help="file written by fit")
    sample.add_argument("-n", type=at_least_one, required=True, metavar="N", help="number of rows")
    _add_list(
        sample,
        "--given",
        "NAME=VALUE",
        "condition on these values, which all rows get",
        name_and_value,
    )
    sample.add_argument("--out", metavar="FILE", help=f"{ENDINGS} (default: CSV on stdout)")
    _add_seed(sample, "makes the rows reproducible (default: random)")
    _add_device(sample)


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("model", metavar="MODEL", help="file written by fit")
    report.add_argument("table", metavar="TABLE", help=f"rows to report on: {ENDINGS}")
    report.add_argument("--out", required=True, metavar="FILE", help="the page, like report.html")
    report.add_argument("--inliers", metavar="TABLE", help="inliers on which targets are measured")
    report.add_argument(
        "--target-nats",
        type=finite,
        metavar="NATS",
        help="largest acceptable mean surprisal of inliers",
    )
    report.add_argument(
        "--target-false-alarms",
        type=share,
        metavar="RATE",
        help="largest acceptable share of inliers that raise an alarm, like 0.01",
    )
    report.add_argument(
        "--check", action="store_true", help="exit with code 1 unless all targets are met"
    )
    report.add_argument(
        "--most-anomalous",
        type=count,
        default=10,
        metavar="N",
        help="number of anomalous rows to list (default: %(default)s)",
    )
    report.add_argument("--title", metavar="TEXT", help="heading of the page")
    _add_device(report)


def _add_list(
    sub: argparse.ArgumentParser, option: str, metavar: str, about: str, type: Any = str
) -> None:
    sub.add_argument(
        option, action="extend", nargs="+", default=[], type=type, metavar=metavar, help=about
    )


def _add_max_time(sub: argparse.ArgumentParser, default: float | None, shown: str) -> None:
    about = f"maximum seconds of training (default: {shown})"
    sub.add_argument("--max-time", type=positive, default=default, metavar="S", help=about)


def _add_seed(sub: argparse.ArgumentParser, about: str) -> None:
    sub.add_argument("--seed", type=count, metavar="N", help=about)


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, ...")
