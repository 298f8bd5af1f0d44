"""What the command line understands: commands, options, their help, and the values that they take."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import discrete_itd
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
from discrete_itd.recipes import NAMES

ABOUT = """\
Log-probabilities, in nats and with error bars, for the rows of a table; what is missing filled in; new rows.

try it:             discrete-itd demo
with your table:    discrete-itd fit table.csv --out model.safetensors
                    discrete-itd score model.safetensors table.csv --out scores.csv
with alarms:        discrete-itd fit ordinary.csv --out detector.safetensors --detector
                    discrete-itd score detector.safetensors new.csv --out scores.csv --reasons
"""
TABLES = f"""\
Tables are read by the ending of their names: {ENDINGS}.
Empty cells are missing values. So are the words NA, N/A, NaN, NaT, null and None, in any case, but only
in columns whose other cells are all numbers, all True or False, or all dates; in a column of text they are words.
Dates are ISO dates and times: 2024-01-31, 2024-01-31 08:30, 2024-01-31T08:30:00.5+01:00.
"""
FIT = f"""\
Learn the distribution of a table's rows and write the model to a file.

A column of text becomes nominal: categories without an order. Numbers with few different values become
ordinal: categories that keep their order and distances. Other numbers, and dates, become continuous, with a density.
Numbers that are only names, like a postal code, need --column zip=nominal, which also keeps their leading zeros.
True and False are a nominal column with just these two.

Kinds of columns for --column NAME=KIND:
  nominal      nominal:10 pools the categories that occur fewer than 10 times
  ordinal
  continuous
  binned       a density that is constant within 32 bins of about equal counts;
               binned:16 makes 16 of them, binned:0,18,65,120 says where they begin and end

A missing cell is left out of its row's probability; with --missing category, that a cell is missing is itself
something to learn, in the columns where cells are missing.

With --detector the model also raises alarms. Some rows are held out of the training, and their scores tell how few
ordinary rows are as strange as a new one, and set the threshold. TABLE should then hold ordinary rows; if some of them
are anomalies, say with --contamination what share. The file serves all other commands, too.

Ctrl-C ends the training and keeps the model that it has; a second one ends the command.

{TABLES}
examples:
  discrete-itd fit customers.csv --out customers.safetensors --drop id --column zip=nominal --max-time 120
  discrete-itd fit customers.csv --out customers.safetensors --column age=binned:0,18,65,120 --checkpoint run
  discrete-itd fit ordinary.csv --out detector.safetensors --detector --false-alarm-rate 0.005
"""
SCORE = f"""\
Write the log-probability of each row: columns log_prob (nats; lower is stranger) and stderr, in the order
of the table. It is that of the cells that are there. With continuous or binned columns it is a density, per unit of
the column (per second, of dates). Columns that the model does not know are ignored.

MODEL may be a detector (fit --detector). There are then three more columns: score (nats; lower is stranger; by it
alarms are raised), p_value (an ordinary row has one of t or less with a chance of at most t) and alarm (True or
False). The last line printed says how many rows raised an alarm, and what share of ordinary rows is expected to.
With --given there is none of this, as a threshold is one of whole rows.

{TABLES}
examples:
  discrete-itd score customers.safetensors new.csv --out scores.csv --explain
  discrete-itd score customers.safetensors new.csv --out scores.csv --given country city
  discrete-itd score detector.safetensors new.csv --out alarms.csv --reasons
  discrete-itd score detector.safetensors new.csv --out alarms.csv --alarms-per-day 5 --rows-per-day 20000
  discrete-itd score detector.safetensors new.csv --out alarms.csv --discoveries 0.1
"""
IMPUTE = f"""\
Fill the missing cells of a table with what the rest of their row makes probable: each with the most probable
category, or the expected number. All else is as it was, also columns that the model does not know.

{TABLES}
examples:
  discrete-itd impute customers.safetensors new.csv --out full.csv
  discrete-itd impute customers.safetensors new.csv --out full.csv --draw --seed 0
"""
SAMPLE = """\
Draw new rows from the model, as CSV on the standard output or into a file.

examples:
  discrete-itd sample customers.safetensors -n 1000 --seed 0 --out synthetic.csv
  discrete-itd sample customers.safetensors -n 10 --given country=Peru age=40
"""
REPORT = f"""\
Write a report on a table as one HTML page, with pictures and no need of a network: what a row costs, whether
targets are met, whether longer training would help, which rows are strangest and why, what the columns tell of each
other.

Targets are held against ordinary rows that the model has not learned from: those of --ordinary, or else all of TABLE.
They are met if the whole 95% interval of what is measured is at or below them, missed if it is above, and else
undecided. The last line printed is then pass, fail or undecided. For a model without a threshold, one half of the
--ordinary rows sets one, at the rate of --target-false-alarms or 1%, and the other half tries it.

Rows are counted from 1, without the header. Pictures need pip install 'discrete-itd[plot]'.

{TABLES}
examples:
  discrete-itd report customers.safetensors new.csv --out report.html --ordinary held_out.csv
  discrete-itd report customers.safetensors new.csv --out report.html --target-nats 12.5 --check
"""
DEMO = """\
Learn what edible mushrooms look like from a table in the package, then see how strange poisonous ones are.
Takes about a minute; needs no network and writes no file.

example:
  discrete-itd demo --max-time 20
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has the attribute ``command``, the command's name."""
    parser = _Parser(
        prog="discrete-itd", description=ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--version", action="version", version=f"discrete-itd {discrete_itd.__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, about: str, brief: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, description=about, help=brief, formatter_class=argparse.RawTextHelpFormatter
        )
        sub.set_defaults(command=name)
        return sub

    _add_fit(command("fit", FIT, "learn a table"))
    _add_score(command("score", SCORE, "log-probabilities of a table's rows"))
    _add_impute(command("impute", IMPUTE, "fill a table's missing cells"))
    _add_sample(command("sample", SAMPLE, "draw new rows"))
    _add_report(command("report", REPORT, "a page on a table, for people who decide"))
    demo = command("demo", DEMO, "see it at work on a bundled table")
    _add_max_time(demo, 45.0, "45")
    return parser


def _add_fit(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("table", metavar="TABLE", help=f"rows to learn from: {ENDINGS}")
    fit.add_argument("--out", required=True, metavar="MODEL", help="file for the model")
    _add_list(
        fit,
        "--column",
        "NAME=KIND",
        "what a column is, see above; may be repeated",
        type=column_spec,
    )
    _add_list(fit, "--drop", "NAME", "columns to leave out; may be repeated")
    fit.add_argument(
        "--missing",
        choices=("marginalise", "category"),
        default="marginalise",
        help="a missing cell tells nothing (marginalise, the default), or is a value like others\n"
        "(category)",
    )
    fit.add_argument(
        "--unseen",
        choices=("smooth", "raise"),
        default="smooth",
        help="later, a category not in TABLE gets a small probability (smooth, the default)\n"
        "or is an error (raise)",
    )
    fit.add_argument(
        "--denoiser",
        choices=tuple(NAMES),
        default="auto",
        metavar="NAME",
        help="what is fitted: auto, a network (the default); mlp or transformer, such a network;\n"
        "tree, trees, mixture, bayes_net or independent, exact and without training; or\n"
        "ensemble, several of them",
    )
    _add_max_time(fit, None, "any")
    fit.add_argument(
        "--max-steps",
        type=count,
        default=6000,
        metavar="N",
        help="training steps at most (default: %(default)s)",
    )
    fit.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="keep the state of the training in FILE; if it is there already, go on from it:\n"
        "repeat the command after a crash or Ctrl-C",
    )
    _add_seed(
        fit,
        "makes the fit repeatable (default: random; with --detector and --checkpoint 0, for\n"
        "the same rows to be held out again)",
    )
    _add_device(fit)
    alarms = fit.add_argument_group("alarms")
    alarms.add_argument("--detector", action="store_true", help="learn to raise alarms, see above")
    alarms.add_argument(
        "--false-alarm-rate",
        type=share,
        metavar="RATE",
        help="share of ordinary rows that may raise an alarm (default: 0.01)",
    )
    alarms.add_argument(
        "--contamination",
        type=share,
        metavar="SHARE",
        help="so many of the rows of TABLE are anomalies, like 0.02: learn from the others, and\n"
        "raise alarms at this rate (default: all are ordinary)",
    )
    alarms.add_argument(
        "--calibration-fraction",
        type=share,
        metavar="SHARE",
        help="share of the rows to hold out for p-values and the threshold (default: 0.2)",
    )


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument("model", metavar="MODEL", help="a file that fit wrote")
    score.add_argument("table", metavar="TABLE", help=f"rows to score: {ENDINGS}")
    score.add_argument("--out", required=True, metavar="FILE", help=f"scores: {ENDINGS}")
    _add_list(score, "--given", "NAME", "log-probability of the other columns given these")
    score.add_argument(
        "--max-stderr",
        "--tol",
        type=positive,
        metavar="NATS",
        help="spend up to 16 times as long on rows whose stderr is larger; half of that decides how long",
    )
    score.add_argument(
        "--explain",
        action="store_true",
        help="add nats_<column> for every column of the model: its share of -log_prob,\n"
        "or with a detector of -score",
    )
    _add_device(score)
    alarms = score.add_argument_group("with a detector")
    alarms.add_argument(
        "--reasons",
        type=at_least_one,
        nargs="?",
        const=3,
        metavar="K",
        help="add reason, for rows that raise an alarm: a sentence on each of the K strangest\n"
        "cells (default: 3)",
    )
    alarms.add_argument(
        "--discoveries",
        type=share,
        metavar="FDR",
        help="add discovery (True or False): rows to call anomalies together, so that about this\n"
        "share of them at most is ordinary, like 0.1 (Benjamini-Hochberg over all of TABLE)",
    )
    alarms.add_argument(
        "--false-alarm-rate",
        type=share,
        metavar="RATE",
        help="share of ordinary rows that may raise an alarm (default: as it was fitted)",
    )
    alarms.add_argument(
        "--alarms-per-day",
        type=amount,
        metavar="N",
        help="false alarms that can be looked into, instead of --false-alarm-rate",
    )
    alarms.add_argument(
        "--rows-per-day",
        type=amount,
        metavar="N",
        help="rows that come; --alarms-per-day needs it",
    )


def _add_impute(impute: argparse.ArgumentParser) -> None:
    impute.add_argument("model", metavar="MODEL", help="a file that fit wrote")
    impute.add_argument("table", metavar="TABLE", help=f"rows to fill: {ENDINGS}")
    impute.add_argument("--out", required=True, metavar="FILE", help=f"filled: {ENDINGS}")
    impute.add_argument(
        "--draw",
        action="store_true",
        help="draw the missing cells of a row together, at random, instead of the most probable",
    )
    _add_seed(impute, "makes --draw repeatable (default: random)")
    _add_device(impute)


def _add_sample(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("model", metavar="MODEL", help="a file that fit wrote")
    sample.add_argument("-n", type=at_least_one, required=True, metavar="N", help="number of rows")
    _add_list(
        sample,
        "--given",
        "NAME=VALUE",
        "values that all rows have; the rest given these",
        name_and_value,
    )
    sample.add_argument("--out", metavar="FILE", help=f"{ENDINGS} (default: CSV on stdout)")
    _add_seed(sample, "makes the rows repeatable (default: random)")
    _add_device(sample)


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("model", metavar="MODEL", help="a file that fit wrote")
    report.add_argument("table", metavar="TABLE", help=f"rows to report on: {ENDINGS}")
    report.add_argument("--out", required=True, metavar="FILE", help="the page, like report.html")
    report.add_argument("--ordinary", metavar="TABLE", help="ordinary rows to measure targets on")
    report.add_argument(
        "--target-nats",
        type=finite,
        metavar="NATS",
        help="an ordinary row should cost no more than this on average",
    )
    report.add_argument(
        "--target-false-alarms",
        type=share,
        metavar="RATE",
        help="no larger share of ordinary rows should raise an alarm, like 0.01",
    )
    report.add_argument(
        "--check", action="store_true", help="exit with code 1 unless all targets are met"
    )
    report.add_argument(
        "--strangest",
        type=count,
        default=10,
        metavar="N",
        help="how many of the strangest rows to list (default: %(default)s)",
    )
    report.add_argument("--title", metavar="TEXT", help="the page's heading")
    _add_device(report)


def _add_list(
    sub: argparse.ArgumentParser, option: str, metavar: str, about: str, type: Any = str
) -> None:
    sub.add_argument(
        option, action="extend", nargs="+", default=[], type=type, metavar=metavar, help=about
    )


def _add_max_time(sub: argparse.ArgumentParser, default: float | None, shown: str) -> None:
    about = f"seconds of training at most (default: {shown})"
    sub.add_argument("--max-time", type=positive, default=default, metavar="S", help=about)


def _add_seed(sub: argparse.ArgumentParser, about: str) -> None:
    sub.add_argument("--seed", type=count, metavar="N", help=about)


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, ...")
