"""All commands and options of the command line, with their help texts and the types of their values."""

from __future__ import annotations

import argparse
import codecs
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from discrete_itd import __version__
from discrete_itd.cli import descriptions
from discrete_itd.cli.descriptions import ENDINGS
from discrete_itd.cli.messages import UserError

# equal to encoders.NOTATIONS and recipes.NAMES, whose modules import torch
NOTATIONS = ("decimal-comma", "decimal-point", "day-first", "month-first")
DENOISERS = (
    "auto", "best", "network", "causal", "row_mixture", "independent", "tree", "mixture",
    "bayes_net", "forest",
)  # fmt: skip

# -- types of values ------------------------------------------------------------------------------


def _number(
    wanted: str, accepts: Callable[[float], bool], convert: Callable[[str], Any] = float
) -> Callable[[str], Any]:
    """A type of numbers that are accepted."""

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
count = _number("a whole number from 0 on", lambda value: 0 <= value < 2**32, int)
at_least_one = _number("a whole number from 1 on", lambda value: 1 <= value < 2**32, int)


def column_spec(text: str) -> tuple[str, dict[str, Any]]:
    """NAME=KIND as a name and a specification for the estimator's ``column_types``."""
    name, equals, what = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=KIND, got {text!r}")
    kind, colon, option = what.partition(":")
    spec: dict[str, Any] = {"notation": what} if what in NOTATIONS else {"kind": kind}
    from discrete_itd.encoders import check_column_spec  # imports torch

    try:
        if option in NOTATIONS:
            spec["notation"] = option
        elif colon and kind == "nominal":
            spec["min_count"] = _converted(int, option, "like nominal:10")
        elif colon:
            edges = "with edges like binned:0,18,65,120"
            spec["edges"] = [_converted(float, edge, edges) for edge in option.split(",")]
        check_column_spec(name, spec)
    except (ValueError, TypeError) as error:
        where = f"column {name!r}:"
        problem = str(error).removeprefix(where).strip()
        raise argparse.ArgumentTypeError(f"{where} {problem}") from None
    return name, spec


def _converted(to: Callable[[str], Any], text: str, wanted: str) -> Any:
    try:
        return to(text)
    except ValueError:
        raise ValueError(f"expected a kind {wanted}, got {text!r}") from None


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
    """The two sides of NAME=VALUE."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The values of all options of a command, and ``command``, its name; a UserError if one is not valid."""
    return make_parser().parse_args(argv)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


# -- commands and their options -------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    layout = argparse.RawTextHelpFormatter
    parser = _Parser(prog="discrete-itd", description=descriptions.ABOUT, formatter_class=layout)
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
    add("table", metavar="TABLE", help=f"training rows: {ENDINGS}, or a folder of Parquet")
    add("--out", required=True, metavar="MODEL", help="file for the model")
    add("--column", **LIST, type=column_spec, metavar="NAME=KIND",
        help="kind of a column, see above; may be repeated")
    add("--drop", **LIST, metavar="NAME", help="columns to leave out; may be repeated")
    add("--groups", metavar="NAME",
        help="column that says which rows belong together, like a customer: they are held out\n"
        "together (left out of the model, unless --column gives its kind)")
    add("--missing", choices=("auto", "marginalise", "category"), default="auto",
        help="leave missing cells out of the probability (marginalise), or treat missing as\n"
        "a category; by default (auto) where gaps carry information about other cells")
    add("--handle-unknown", choices=("smooth", "error"), default="smooth",
        help="later, a category that is not in TABLE gets a small probability (smooth, the default)\n"
        "or is an error")
    add("--denoiser", choices=DENOISERS, default="auto", metavar="NAME",
        help="model to fit: auto, the cheapest of several that are as good as the best\n"
        "(the default); best, the lowest nats for --max-time; causal, one network call a\n"
        "row; network, many calls along paths; tree, mixture, bayes_net\n"
        "or independent, exact; row_mixture, several of them")
    add("--max-time", type=positive, metavar="S",
        help="maximum seconds of the fit (default: any)")
    add("--max-steps", type=count, default=6000, metavar="N",
        help="maximum number of training steps (default: %(default)s)")
    _add_csv(fit)
    add("--device", default="auto",
        help="auto (the default), cpu, cuda, ...; other commands use a GPU if there is one, unless\n"
        "CUDA_VISIBLE_DEVICES= hides it")
    _add_seed(fit, "makes the fit reproducible (default: random)")
    add = fit.add_argument_group("alarms").add_argument
    add("--detector", action="store_true", help="fit a detector, see above")
    add("--false-alarm-rate", type=share, metavar="RATE",
        help="share of inliers that may raise an alarm (default: 0.01)")
    add("--contamination", type=share, metavar="SHARE",
        help="share of anomalies in TABLE, like 0.02: score robustly, and raise alarms at this\n"
        "rate (default: all rows are inliers)")
    add("--calibration-fraction", type=share, metavar="SHARE",
        help="share of the rows held out to calibrate p-values and threshold (default: 0.2)")
    add("--given", **LIST, metavar="NAME",
        help="columns that define a row's group: score the other columns given these, and\n"
        "compare rows with calibration rows of their own group; of a column of dates also\n"
        "date.hour, date.weekday and date.month")


def _add_score(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    _add_files(sub, "rows to score")
    add("--out", required=True, metavar="FILE", help=f"scores: {ENDINGS}; a folder, or -")
    add("--given", **LIST, metavar="NAME",
        help="condition on these columns: log-probability of the others")
    _add_keep(sub, "the output")
    add("--explain", action="store_true",
        help="add nats_<column> for each column of the model: its share of -log_prob, or with a\n"
        "detector of -score")
    add = sub.add_argument_group("with a detector").add_argument
    add("--reasons", type=at_least_one, nargs="?", const=3, metavar="K",
        help="add, for rows that raise an alarm, reason: a sentence on each of at most K cells that\n"
        "are more likely wrong than right (default: 3); reason_1, the column of the first, and\n"
        "reason_1_excess_nats, and so on")
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
    add("model", metavar="MODEL", help="file written by fit")
    add("-n", type=at_least_one, required=True, metavar="N", help="number of rows")
    add("--given", **LIST, type=name_and_value, metavar="NAME=VALUE",
        help="condition on these values, which all rows get")
    add("--missing", choices=("as_trained", "none"), default="as_trained",
        help="cells missing as often as in training (as_trained, the default), or complete\n"
        "rows (none)")
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
    add("--most-anomalous", type=count, default=10, metavar="N",
        help="number of anomalous rows to list (default: %(default)s)")
    _add_keep(sub, "the rows that are listed and to the download,")


def _add_check(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("table", metavar="TABLE", help=f"table to check: {ENDINGS}; or -")
    add("--out", required=True, metavar="FILE", help=f"wrong cells: {ENDINGS}; or -")
    add("--repair", metavar="FILE", help="also write TABLE with the expected values of these cells")
    add("--report", metavar="FILE", help="also write a page on them, like errors.html")
    add("--threshold", type=share, default=0.5, metavar="P",
        help="probability of being wrong above which a cell is named (default: %(default)s)")
    add("--groups", metavar="NAME",
        help="column that says which rows belong together, like a customer: they do not support\n"
        "each other")
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
    add("--alpha", type=share, default=0.05, metavar="LEVEL",
        help="level of significance (default: %(default)s)")
    add("--out", metavar="FILE", help=f"what was found of each column: {ENDINGS}; or -")
    add("--check", action="store_true", help="exit with code 1 if there is drift")


def _add_describe(describe: argparse.ArgumentParser) -> None:
    describe.add_argument("model", metavar="MODEL", help="file written by fit")


def _add_keep(sub: argparse.ArgumentParser, to: str) -> None:
    sub.add_argument("--keep", **LIST, metavar="NAME",
        help=f"columns of TABLE to copy to {to} as they are,\n"
        "like --keep id,amount; also ones that the model does not know")


def _add_files(sub: argparse.ArgumentParser, what: str, *, detector: bool = False) -> None:
    """MODEL and TABLE of a command, and how a CSV is written."""
    made = "fit --detector" if detector else "fit"
    sub.add_argument("model", metavar="MODEL", help=f"file written by {made}")
    sub.add_argument("table", metavar="TABLE", help=f"{what}: {ENDINGS}; a folder, or -")
    _add_csv(sub)


def _add_csv(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--csv", **LIST, type=how_written, metavar="KEY=VALUE",
        help="how a CSV is written: sep=';' or sep=tab between cells (default: a comma, or what divides\n"
        "a header without one); encoding=cp1252 (default: UTF-8, or what a byte order mark says);\n"
        "decimal=, (default: that of the model's columns; in fit, what all cells of a column have);\n"
        "na=-999, a cell that is missing, besides empty ones; may be repeated")


def _add_seed(sub: argparse.ArgumentParser, about: str) -> None:
    sub.add_argument("--seed", type=count, metavar="N", help=about)


class Command(NamedTuple):
    """A command: its texts, its options, and the module with the function of its name."""

    description: str
    brief: str
    add_options: Callable[[argparse.ArgumentParser], object]
    module: str


COMMANDS = {
    "fit": Command(descriptions.FIT, "learn the distribution of a table", _add_fit, "fitting"),
    "score": Command(descriptions.SCORE, "log-probabilities of a table's rows", _add_score, "scoring"),
    "impute": Command(descriptions.IMPUTE, "fill a table's missing cells", _add_impute, "filling"),
    "check": Command(descriptions.CHECK, "wrong cells of a table, and what they should be", _add_check, "checking"),
    "sample": Command(descriptions.SAMPLE, "draw new rows", _add_sample, "filling"),
    "report": Command(descriptions.REPORT, "an HTML report on a table", _add_report, "monitoring"),
    "watch": Command(descriptions.WATCH, "alarms once rows that arrive have changed", _add_watch, "scoring"),
    "drift": Command(descriptions.DRIFT, "whether a table has changed", _add_drift, "monitoring"),
    "describe": Command(descriptions.DESCRIBE, "what a model is: its card", _add_describe, "fitting"),
    "demo": Command(descriptions.DEMO, "try it on a table in the package", lambda _: None, "fitting"),
}
# fmt: on
