"""All commands and options of the command line, with their help texts and the types of their values."""

from __future__ import annotations

import argparse
import codecs
import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from discrete_itd import __version__

# Copies of encoders.NOTATIONS and recipes.NAMES, so that --help need not import torch.
NOTATIONS = ("decimal-comma", "decimal-point", "day-first", "month-first")
DENOISERS = (
    "auto", "best", "network", "causal", "row_mixture", "independent", "tree", "mixture",
    "bayes_net", "forest",
)  # fmt: skip


class UserError(ValueError):
    """An error that the user can correct; its text is the one line that is printed."""


# -- help texts ------------------------------------------------------------------------------------

PACKED = (".gz", ".zip")
ENDINGS = f".csv, .tsv (also {', '.join(PACKED)}), .parquet"
ABOUT = """\
Log-probabilities with error bars for the rows of a table; imputation; new rows; anomalies. Logarithms are natural,
their unit is the nat: a row with one nat less is 2.7 times as rare. Surprisal is minus the log-probability.

try it:             discrete-itd demo
a table in hand:    discrete-itd check table.csv --out errors.csv --rows
                    discrete-itd rules table.csv
alarms on new rows: discrete-itd fit inliers.csv --out detector.safetensors --detector --drop id --clock date
                    discrete-itd score detector.safetensors new.csv --out scores.csv --reasons

fit ends with what it took for what: --drop leaves columns out, --clock names the date (or year, or number) by which
rows come, --column says the kind of any other; the wrong cells and odd rows of the table of the fit itself are those
of check.
"""
TABLES = f"""\
Tables are read according to the ending of their names: {ENDINGS}.
Empty cells are missing values. So are the words NA, N/A, NaN, NaT, null and None, in any case, but only
in columns whose other cells are all numbers, all True or False, or all dates; in a column of text they are values.
The encoding and the separator of a CSV, and which line is its header, are found by its beginning, with a note; --csv
says otherwise; impute writes what it fills in the same way. A row may end early, which leaves gaps.
Dates are ISO dates and times, like 2024-01-31 08:30. fit also reads text in which all cells are numbers, dates or
times of one notation, and the model remembers it: 5.067,14 EUR, 12.5 % or 3 km/h, 31.01.2024 or 31-Jan-24, 1 h 20 min.
Words that are not rare among many numbers are missing values. What could be read in two ways is read as in other
columns, or stays text. Notes say so, and name the option.
"""
STREAMS = """\
Tables of any size are read, and written, in chunks: memory does not grow with the number of rows. TABLE and FILE may
be -, the standard input and output, for a CSV; what the command says goes to stderr then.
If TABLE is a folder, each table in it gives one of the same name in the folder FILE, whole or not at all. The same
command again makes only what is not newer than its table and the model, by the same options.
"""


# -- types of values ------------------------------------------------------------------------------


def _number(
    wanted: str, accepts: Callable[[float], bool], convert: Callable[[str], Any] = float
) -> Callable[[str], Any]:
    """An option's type: the text converted to a number that must be accepted; ``wanted`` words the error."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
        return value

    return parse


positive = _number("a positive number", lambda value: value > 0)  # or infinity
finite = _number("a number", math.isfinite)
share = _number("between 0 and 1", lambda value: 0 < value < 1)
share_or_all = _number("between 0 and 1, or 1", lambda value: 0 < value <= 1)
count = _number("a whole number from 0 on", lambda value: 0 <= value < 2**32, int)
at_least_one = _number("a whole number from 1 on", lambda value: 1 <= value < 2**32, int)


def column_spec(text: str) -> tuple[str, dict[str, Any]]:
    """NAME=KIND as a name and a specification for the estimator's ``column_types``."""
    name, equals, what = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=KIND, got {text!r}")
    kind, colon, option = what.partition(":")
    spec: dict[str, Any] = {"notation": what} if what in NOTATIONS else {"kind": kind}
    if colon:
        spec["notation"] = option
    from discrete_itd.encoders import check_column_spec  # imports torch

    try:
        check_column_spec(name, spec)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, spec


def how_written(text: str) -> tuple[str, str]:
    """A key of ``--csv`` and its value."""
    key, _, value = text.partition("=")
    match key:
        case "sep":
            value = {"tab": "\t", "\\t": "\t"}.get(value, value)
            is_mark = len(value) == 1 and not value.isalnum() and value not in '"\r\n.'
            problem = "" if is_mark else f"sep must be one mark, like ; or tab, got {value!r}"
        case "encoding":
            try:
                value, problem = codecs.lookup(value).name, ""
            except LookupError:
                problem = f"unknown encoding {value!r}; names are like utf-8, cp1252 or utf-16"
        case "decimal":
            problem = "" if value in (".", ",") else f"decimal must be . or a comma, got {value!r}"
        case _:
            wanted = f"expected sep=, encoding=, decimal= or na=, got {text!r}"
            problem = "" if key == "na" else wanted
    if problem:
        raise argparse.ArgumentTypeError(problem)
    return key, value


def name_and_value(text: str) -> tuple[str, str]:
    """The name and the value of NAME=VALUE."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


# -- commands and their options -------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """Parser of the command line: it sets ``command`` to the command's name and raises UserError at invalid options."""
    layout = argparse.RawTextHelpFormatter
    parser = _Parser(prog="discrete-itd", description=ABOUT, formatter_class=layout)
    version = f"discrete-itd {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        texts: Any = {"description": command.description, "help": command.brief}
        sub = commands.add_parser(name, **texts, formatter_class=layout)
        sub.set_defaults(command=name)
        command.add_options(sub)
    return parser


# fmt: off
LIST: Any = {"action": "extend", "nargs": "+", "default": []}


def _add_fit(fit: argparse.ArgumentParser) -> None:
    add = fit.add_argument
    add("table", metavar="TABLE", help=f"training rows: {ENDINGS}; or a folder")
    add("--out", required=True, metavar="MODEL", help="file for the model")
    add("--column", **LIST, type=column_spec, metavar="NAME=KIND",
        help="kind of a column, see above; may be repeated")
    add("--drop", **LIST, metavar="NAME", help="columns to leave out; may be repeated")
    add("--clock", metavar="NAME", help="column by which rows come, like --column NAME=clock (default: found)")
    add("--groups", metavar="NAME",
        help="column that says which rows belong together, like those of a customer or copies of a\n"
        "record: they are held out together (left out of the model, unless --column gives its kind)")
    add("--missing", choices=("auto", "marginalise", "category"), default="auto",
        help="leave missing cells out of the probability (marginalise), or treat missing as\n"
        "a category; by default (auto) where gaps carry information about other cells")
    add("--denoiser", choices=DENOISERS, default="auto", metavar="NAME",
        help="model to fit: auto, the cheapest of several that are as good as the best\n"
        "(the default); best, the lowest nats for --max-time; causal, one network call a\n"
        "row; network, many calls along paths; tree, mixture, bayes_net,\n"
        "forest or independent, exact; row_mixture, several of them")
    add("--max-time", type=positive, metavar="S",
        help="maximum seconds of the fit (default: any)")
    add("--max-steps", type=count, default=6000, metavar="N",
        help="maximum number of training steps (default: %(default)s)")
    _add_csv(fit)
    _add_seed(fit, "makes the fit reproducible (default: random)")
    add = fit.add_argument_group("alarms").add_argument
    add("--detector", action="store_true", help="fit a detector, see above")
    add("--false-alarm-rate", type=share, metavar="RATE",
        help="share of inliers that may raise an alarm (default: 0.01)")
    add("--contamination", type=share, metavar="SHARE",
        help="share of anomalies in TABLE, like 0.02: score robustly, and raise alarms at this\n"
        "rate (default: all rows are inliers)")
    add("--given", **LIST, metavar="NAME",
        help="columns that define a row's stratum: score the other columns given these, and\n"
        "compare rows with calibration rows of their own stratum")


def _add_score(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_files(sub, "rows to score")
    add("--out", required=True, metavar="FILE", help=f"scores: {ENDINGS}; a folder, or -")
    _add_keep(sub, "the output")
    add("--explain", action="store_true",
        help="add nats_<column> for each column of the model: its share of -log_prob, or with a\n"
        "detector of -score")
    add = sub.add_argument_group("with a detector").add_argument
    add("--reasons", type=at_least_one, nargs="?", const=3, metavar="K",
        help="add, for rows that raise an alarm, reason: a sentence on the most suspicious cell and on\n"
        "others that are likely wrong, at most K (default: 3); reason_1, the column of the first,\n"
        "and reason_1_excess_nats, and so on")
    add("--false-alarm-rate", type=share, metavar="RATE",
        help="share of inliers that may raise an alarm, like 0.01 (default: as fitted)")


def _add_impute(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_files(sub, "rows to fill")
    add("--out", required=True, metavar="FILE", help=f"filled: {ENDINGS}; a folder, or -")
    add("--method", choices=("median", "mean", "sample"), default="median",
        help="numbers by their median (the default) or mean, and the most probable categories; or draws\n"
        "of the missing cells of a row from their joint distribution")
    _add_seed(sub, "makes draws reproducible (default: random)")


def _add_sample(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_model(sub)
    add("-n", type=at_least_one, required=True, metavar="N", help="number of rows")
    add("--given", **LIST, type=name_and_value, metavar="NAME=VALUE",
        help="condition on these values, which all rows get")
    add("--out", metavar="FILE", help=f"{ENDINGS}; or - (the default)")
    _add_seed(sub, "makes the rows reproducible (default: random)")


def _add_report(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_files(sub, "rows to report on")
    add("--out", required=True, metavar="FILE", help="the page, like report.html; or -")
    add("--inliers", metavar="TABLE", help="inliers on which targets are measured")
    add("--target-nats", type=finite, metavar="NATS",
        help="largest acceptable mean surprisal of inliers")
    add("--target-false-alarms", type=share, metavar="RATE",
        help="largest acceptable share of inliers that raise an alarm, like 0.01")
    add("--check", action="store_true", help="exit with code 1 unless all targets are met")
    _add_keep(sub, "the rows that are listed")


def _add_check(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("table", metavar="TABLE", help=f"table to check: {ENDINGS}; or -")
    add("--out", metavar="FILE", help=f"wrong cells: {ENDINGS}; or - (default: the first are printed)")
    add("--repair", metavar="FILE",
        help="also write TABLE with the expected values in the place of cells that are wrong with probability\n"
        ".9 or more, where that value is right with .9 or more; no second call changes these cells;\n"
        "blank lines, and quotation marks without need, are not copied")
    add("--review", metavar="FILE",
        help="with --repair, the cells that were named and not repaired (default: beside the repaired copy,\n"
        "like repaired.review.csv)")
    add("--report", metavar="FILE", help="also write a page on them, like errors.html; one of the files may be -")
    add("--rows", type=at_least_one, nargs="?", const=20, metavar="N",
        help="list the N oddest rows, too (default: 20), each by models that did not see it, with the\n"
        "cells to blame; takes as long as three fits")
    add("--min-probability", type=share, default=0.5, metavar="P",
        help="probability of being wrong from which a cell is named (default: %(default)s)")
    add("--expected-share", type=share, metavar="P",
        help="prior share of wrong cells in a column; of more cells that contradict their rows, most\n"
        "are taken for rightful exceptions (default: 0.01, and 0.03 of labels in --columns)")
    add("--columns", **LIST, metavar="NAME",
        help="judge these columns alone, labels by gradient boosting, too; like --columns species,island")
    add("--groups", metavar="NAME",
        help="column that says which rows belong together, like a customer: they do not support\n"
        "each other")
    _add_csv(sub)


def _add_rules(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("table", metavar="TABLE", help=f"table to learn from: {ENDINGS}; or -")
    add("--out", metavar="FILE",
        help="all rules: a table, or by its ending .sql (a CREATE TABLE), .py (pandera), .yaml (DQX);\n"
        "or - (default: the first are printed)")
    add("--new", metavar="TABLE", help="rows to check; the exit code is 1 if one breaks a rule")
    add("--broken", metavar="FILE", help=f"with --new, the broken rules of each row: {ENDINGS}; or -")
    add("--min-holds", type=share_or_all, default=0.98, metavar="P",
        help="least share of rows that follow a rule; 1 for no exceptions (default: %(default)s)")
    _add_csv(sub)


def _add_watch(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_files(sub, "rows to watch, in order", detector=True)
    add("--state", required=True, metavar="FILE",
        help="the state of the watch: continued from if it is there, and written at the end")
    add("--level", type=share, metavar="ALPHA",
        help="probability of any false alarm, however long the watch (default: 0.01)")
    add("--out", metavar="FILE",
        help=f"p-values and martingales of every row and column:\n{ENDINGS}; or -")
    _add_keep(sub, "--out")


def _add_drift(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_files(sub, "new rows", detector=True)
    add("--reference", metavar="TABLE",
        help="inliers that were not trained on, to compare the values of the columns, too")
    add("--out", metavar="FILE", help=f"what was found of each column: {ENDINGS}; or -")
    add("--check", action="store_true", help="exit with code 1 if there is drift")


def _add_model(sub: argparse.ArgumentParser, *, detector: bool = False) -> None:
    made = "fit --detector" if detector else "fit"
    sub.add_argument("model", metavar="MODEL", help=f"file written by {made}")


def _add_keep(sub: argparse.ArgumentParser, to: str) -> None:
    sub.add_argument("--keep", **LIST, metavar="NAME",
        help=f"columns of TABLE to copy to {to} as they are,\n"
        "like --keep id,amount; also ones that the model does not know")


def _add_files(sub: argparse.ArgumentParser, what: str, *, detector: bool = False) -> None:
    """Add MODEL, TABLE and the options on how a CSV is written."""
    _add_model(sub, detector=detector)
    sub.add_argument("table", metavar="TABLE", help=f"{what}: {ENDINGS}; a folder, or -")
    _add_csv(sub)


def _add_csv(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--csv", **LIST, type=how_written, metavar="KEY=VALUE",
        help="how a CSV is written: sep=';' or sep=tab between cells (default: what divides header and\n"
        "first row best); encoding=cp1252 (default: UTF-8, or what the beginning looks like);\n"
        "decimal=, (default: as in the model's columns; in fit, what all cells of a column have);\n"
        "na=-999, a cell that is missing, besides empty ones; may be repeated")


def _add_seed(sub: argparse.ArgumentParser, about: str) -> None:
    sub.add_argument("--seed", type=count, metavar="N", help=about)


class Command(NamedTuple):
    """A command: the module of the function that runs it, what adds its options, and its help texts."""

    module: str
    add_options: Callable[[argparse.ArgumentParser], object]
    brief: str
    description: str


COMMANDS = {
    "fit": Command("fitting", _add_fit, "learn the distribution of a table", f"""\
Learn the distribution of a table's rows, or of all tables in a folder, and write the model to a file. Of more than
400 000 rows, a uniform sample is fitted to.

A column of text becomes nominal: categories without an order. Numbers with few different values become ordinal:
categories that keep their order and distances. Other numbers, and dates, become continuous, with a density; but of the
date by which rows come, the clock, the week is given, and other dates count from it; without one, a column of years
that never fall is the clock. Numbers that are only names need --column shop=nominal. Identifiers and free text are left
out of the model, with a note, unless --column gives them a kind; codes of which other columns tell the first
characters, like postcodes, are known by these.

Kinds of columns for --column NAME=KIND: nominal, ordinal, continuous, clock or code; or how text writes numbers and
dates: decimal-comma, decimal-point, day-first, month-first, also continuous:day-first. What fit is told by --column and
by --csv na= and decimal= is part of the model, and need not be told to other commands.

With --detector the model also raises alarms: a fifth of the rows is held out to calibrate p-values and the threshold.
TABLE should then contain inliers only; if it contains anomalies, give their share with --contamination. With --given,
a row is compared with its own stratum, like sales with other sales of the same shop.

Ctrl-C, or SIGTERM, ends the fit and keeps the best model so far, and the exit code is 130; a second one ends the
command.

{TABLES}
examples:
  discrete-itd fit customers.csv --out customers.safetensors --drop id --column zip=nominal --max-time 120
  discrete-itd fit inliers.csv --out detector.safetensors --detector --false-alarm-rate 0.005
"""),
    "score": Command("scoring", _add_score, "log-probabilities of a table's rows", f"""\
Write the log-probability of each row: columns row (from 0, as pandas counts), log_prob (nats; anomalies have low
ones) and stderr, in the order of the table. It is the log-probability of the cells that are not missing. With
continuous columns it is a density, per unit of the column (per second for dates). Columns that the model does not know
are ignored; --keep copies columns of TABLE to the output, after the row.

MODEL may be a detector (fit --detector). There are then four more columns: score (nats; alarms are raised by a low
score), p_value (at most t with probability at most t for an inlier), alarm (True or False), and unreadable: the cells
that are no number or date in a column of these, like amount = '#REF!'. Such a cell counts for nothing, and its row
raises an alarm of that name, in addition to those whose rate is stated. With a detector of strata (fit --detector
--given) there is also stratum_seen, False for rows of a stratum that was not seen in training.

{STREAMS}
{TABLES}
examples:
  discrete-itd score customers.safetensors new.csv --out scores.csv --explain
  discrete-itd score detector.safetensors new.csv --out alarms.csv --reasons --keep id,amount
  zcat new.csv.gz | discrete-itd score customers.safetensors - --out - | head
"""),
    "impute": Command("filling", _add_impute, "fill a table's missing cells", f"""\
Fill each missing cell of a table with its most probable category, or its median if the column is numeric, given
the other cells of the row. Everything else stays as it is written, including columns that the model does not know, but
for blank lines and quotation marks without need; in Parquet made of a CSV, all columns are text.

{STREAMS}
{TABLES}
example:
  discrete-itd impute customers.safetensors new.csv --out full.csv
"""),
    "check": Command("reporting", _add_check, "wrong cells of a table, and what they should be", f"""\
Find the cells of a table that are probably wrong, by its other rows and the other cells of the row; no model is needed.
FILE has one line per cell: row (from 0, as pandas counts), column, value, expected, expected_probability,
probability_wrong and a sentence, the most probable error first; with --repair also repaired, True or False. The table
is read whole.

With --rows, models are fitted to parts of the table, and rank the rows of the other parts. Their cells are in the same
list, with found_by (errors, outliers or both) and the score of the row, in nats, lower for odder rows; rows that are
odd as a whole have a line without a column, at the end.

{TABLES}
example:
  discrete-itd check customers.csv --out errors.csv --repair repaired.csv --report errors.html
"""),
    "rules": Command("rules", _add_rules, "what a table obeys, and which new rows do not", f"""\
Find the rules that nearly all rows of a table follow: equations, keys, orders, implications, values, ranges, formats.
Half of the rows finds them, the other half judges them. FILE has one line per rule, the most useful first: rule, kind,
columns, support, exceptions, examples (rows from 0, as pandas counts), holds, holds_low and gain in nats a row.

{TABLES}
example:
  discrete-itd rules orders.csv --out rules.csv --new tomorrow.csv --broken broken.csv
"""),
    "sample": Command("filling", _add_sample, "draw new rows", """\
Draw new rows from the model, as CSV to the standard output or to a file.

example:
  discrete-itd sample customers.safetensors -n 10 --given country=Peru age=40
"""),
    "report": Command("reporting", _add_report, "an HTML report on a table", f"""\
Write a report on a table as one HTML page with figures that needs no network: whether targets are met, the most
anomalous rows with reasons, the surprisal of the rows, how much the columns explain each other, and whether longer
training would help.

Targets are compared with inliers that were not used for training: all rows of --inliers, or else of TABLE. A target is
met if the whole 95% interval of the measured value is at or below it, missed if the interval is above it, and otherwise
undecided. The last line printed is then pass, fail or undecided.

TABLE or the page may be -, the standard input or output. Rows are counted from 0, as pandas does.
Figures need pip install 'discrete-itd[plot]'.

{TABLES}
example:
  discrete-itd report customers.safetensors new.csv --out report.html --target-nats 12.5 --check
"""),
    "watch": Command("monitoring", _add_watch, "alarms once rows that arrive have changed", f"""\
Watch rows as they arrive, and raise an alarm once they are not exchangeable with the rows that the detector was
calibrated on: within their strata, if it was fitted with --given. Each call goes on from --state (some kB for each
column, however many rows); remove it to begin anew, like after an alarm and a new fit.

The probability that any martingale, of the rows or of a column, ever raises a false alarm is at most --level, however
many rows and calls. An alarm names the columns whose own martingale raised one. It stays: the exit code is 1 if one was
raised, in this call or before, else 0.

The columns of --out are row (from 1, over all calls), p_value, log10_martingale, alarm, unreadable, and for each column
of the model p_value_<column>, log10_martingale_<column> and alarm_<column>. The state is written after --out, whole or
not at all: a call that failed can be repeated. The tables of a folder are read in the order of their names.

{TABLES}
example:
  zcat today.csv.gz | discrete-itd watch detector.safetensors - --state watch.state --out watched.csv
"""),
    "drift": Command("monitoring", _add_drift, "whether a table has changed", f"""\
Compare a table with the rows that a detector was calibrated on: mean nats per row, nats by column, and with --reference
the values and the missing cells of each column. watch follows rows as they arrive instead.

{TABLES}
example:
  discrete-itd drift detector.safetensors january.csv --reference held_out.csv --check
"""),
    "describe": Command("fitting", _add_model, "what a model is: its card", """\
Print the card of a model, in Markdown: what it was fitted to, how well it predicts held-out rows, how it is
calibrated, what it costs and where it ends. It names columns, but none of their values.
"""),
    "demo": Command("demo", lambda _: None, "try it on files in the package", """\
Fit a detector to the orders of a tea shop, two raw files of the package, and find the wrong cells of new orders. Takes
half a minute and no network; model, scores and page go to a new folder among temporary files.
"""),
}
# fmt: on
