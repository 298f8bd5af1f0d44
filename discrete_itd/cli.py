"""The command line: ``discrete-itd fit | score | sample | demo``.

Every command reads files, calls :class:`~discrete_itd.estimators.DiffusionDensity` and writes whole files or
none. What a user can put right comes back as one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import discrete_itd
from discrete_itd.datasets import load_mushroom
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.encoders import KINDS
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.tables import (
    ENDINGS,
    UserError,
    as_fitted,
    check_writable,
    ending,
    read_table,
    same_file,
    save_whole,
    write_table,
)

DEMO_CALLS = 64  # network evaluations per row: enough for two decimals

ABOUT = """\
Log-probabilities, in nats and with error bars, for the rows of a table of categories.

try it:             discrete-itd demo
with your table:    discrete-itd fit table.csv --out model.safetensors
                    discrete-itd score model.safetensors table.csv --out scores.csv
"""
TABLES = f"""\
Tables are read by the ending of their names: {ENDINGS}.
Empty cells are missing values, which no command takes; words like NA and None are categories like any other.
"""
FIT = f"""\
Learn the distribution of a table's rows and write the model to a file.

A column of text becomes nominal: categories without an order. A column of whole or broken numbers becomes
ordinal: its values keep their order and distances. Numbers that are only names, like a postal code, need
--column zip=nominal, which also keeps their leading zeros. True and False are a nominal column with just these two.
{TABLES}
example:
  discrete-itd fit customers.csv --out customers.safetensors --drop id --column zip=nominal --max-time 120
"""
SCORE = f"""\
Write the log-probability of each row: columns log_prob (nats; lower is stranger) and stderr, in the order
of the table. Columns that the model does not know are ignored.
{TABLES}
example:
  discrete-itd score customers.safetensors new.csv --out scores.csv --explain
"""
SAMPLE = """\
Draw new rows from the model, as CSV on the standard output or into a file.

example:
  discrete-itd sample customers.safetensors -n 1000 --seed 0 --out synthetic.csv
"""
DEMO = """\
Learn what edible mushrooms look like from a table in the package, then see how strange poisonous ones are.
Takes about a minute; needs no network and writes no file.

example:
  discrete-itd demo --max-time 20
"""


Result = TypeVar("Result")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, 2 after an error of the user's, 130 after an interruption.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_, **__: _note(str(message))
        try:
            args = _parser().parse_args(argv)
            args.run(args)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, like head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            print("discrete-itd: interrupted", file=sys.stderr)
            return 130
        except (UserError, ValueError, TypeError, OSError) as error:
            print(f"discrete-itd: error: {_one_line(error)}", file=sys.stderr)
            return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="discrete-itd", description=ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--version", action="version", version=f"discrete-itd {discrete_itd.__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], about: str, brief: str):
        sub = commands.add_parser(
            name, description=about, help=brief, formatter_class=argparse.RawTextHelpFormatter
        )
        sub.set_defaults(run=run)
        return sub

    def device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, ...")

    fit = command("fit", _fit, FIT, "learn a table")
    fit.add_argument("table", metavar="TABLE", help=f"rows to learn from: {ENDINGS}")
    fit.add_argument("--out", required=True, metavar="MODEL", help="file for the model")
    fit.add_argument(
        "--column",
        action="extend",
        nargs="+",
        default=[],
        type=_column,
        metavar="NAME=KIND",
        help=f"what a column is, {' or '.join(KINDS)}; may be repeated",
    )
    fit.add_argument(
        "--drop",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns to leave out; may be repeated",
    )
    fit.add_argument(
        "--max-time", type=_positive, metavar="S", help="seconds of training at most (default: any)"
    )
    fit.add_argument(
        "--max-steps",
        type=_count,
        default=6000,
        metavar="N",
        help="training steps at most (default: %(default)s)",
    )
    fit.add_argument(
        "--seed", type=_count, metavar="N", help="makes the fit repeatable (default: random)"
    )
    fit.add_argument(
        "--unseen",
        choices=("smooth", "raise"),
        default="smooth",
        help="later, a category not in TABLE gets a small probability (smooth, the default)\n"
        "or is an error (raise)",
    )
    device(fit)

    score = command("score", _score, SCORE, "log-probabilities of a table's rows")
    score.add_argument("model", metavar="MODEL", help="a file that fit wrote")
    score.add_argument("table", metavar="TABLE", help=f"rows to score: {ENDINGS}")
    score.add_argument("--out", required=True, metavar="FILE", help=f"scores: {ENDINGS}")
    score.add_argument(
        "--tol",
        type=_positive,
        metavar="NATS",
        help="spend up to 16 times as long on rows whose stderr is larger",
    )
    score.add_argument(
        "--explain",
        action="store_true",
        help="add nats_<column> for every column of the model: its share of -log_prob",
    )
    device(score)

    sample = command("sample", _sample, SAMPLE, "draw new rows")
    sample.add_argument("model", metavar="MODEL", help="a file that fit wrote")
    sample.add_argument("-n", type=_rows, required=True, metavar="N", help="number of rows")
    sample.add_argument("--out", metavar="FILE", help=f"{ENDINGS} (default: CSV on stdout)")
    sample.add_argument(
        "--seed", type=_count, metavar="N", help="makes the rows repeatable (default: random)"
    )
    device(sample)

    demo = command("demo", _demo, DEMO, "see it at work on a bundled table")
    demo.add_argument(
        "--max-time",
        type=_positive,
        default=45.0,
        metavar="S",
        help="seconds of training at most (default: 45)",
    )
    return parser


# -- commands -------------------------------------------------------------------------------------


def _fit(args: argparse.Namespace) -> None:
    columns = dict(args.column)
    check_writable(args.out)
    if same_file(args.out, args.table):
        raise UserError(f"{args.out}: --out is the table itself")
    # read as text, the zeros at the head of a postal code stay
    frame = read_table(args.table, {n: str for n, kind in columns.items() if kind == "nominal"})
    names = [str(n) for n in frame.columns]
    for option, wanted in (("--column", columns), ("--drop", args.drop)):
        for name in wanted:
            if name not in names:
                raise UserError(f"{args.table}: column {name!r}: named in {option}, but not there")
    for name in columns:
        if name in args.drop:
            raise UserError(f"column {name!r}: named in both --column and --drop")
    frame = frame[[n for n in frame.columns if str(n) not in args.drop]]
    if not frame.shape[1]:
        raise UserError(f"{args.table}: no column is left")
    model = DiffusionDensity(
        columns={n: columns[str(n)] for n in frame.columns if str(n) in columns},
        unseen=args.unseen,
        max_steps=args.max_steps,
        max_time=args.max_time,
        device=args.device,
        random_state=args.seed,
    )
    start = time.perf_counter()
    _about(args.table, lambda: model.fit(frame))
    elapsed = time.perf_counter() - start
    save_whole(args.out, model.save)

    print(f"{args.table}: {len(frame)} rows, {frame.shape[1]} columns\n")
    print(model.encoder_.describe().to_string(index=False))
    path = model.path_table_.iloc[0]
    first = model.history_.iloc[0]
    best = model.history_.loc[model.history_["valid_nats"].idxmin()]
    print(f"\npath: {path['path']}, {path['steps']} steps, {path['paths']} paths per row")
    print("held-out nats per row (fewer are better):")
    for what, line in (("independent columns", first), (f"after {best['step']:.0f} steps", best)):
        print(f"  {what:20} {_pm(line['valid_nats'], line['valid_stderr'])}")
    print(f"wrote {args.out} in {elapsed:.1f} s")


def _score(args: argparse.Namespace) -> None:
    check_writable(args.out, table=True)
    for path in (args.model, args.table):
        if same_file(args.out, path):
            raise UserError(f"{args.out}: --out is {path} itself")
    model = DiffusionDensity.load(args.model, device=args.device)
    if args.tol is not None:
        model.set_params(tol=args.tol)
    schema = model.encoder_.schema
    text = {str(c.name): str for c in schema if all(isinstance(v, str) for v in c.categories)}
    frame = read_table(args.table, text)
    place = {str(name): i for i, name in enumerate(frame.columns)}
    absent = [str(c.name) for c in schema if str(c.name) not in place]
    if absent:
        many = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise UserError(
            f"{args.table}: column {absent[0]!r}{many}: the model knows it, the table lacks it"
        )
    extra = len(frame.columns) - len(schema)
    if extra:
        known = {str(c.name) for c in schema}
        which = ", ".join(n for n in place if n not in known)
        _note(f"{args.table}: ignoring {extra} of {len(frame.columns)} columns: {which}")
    cells = {c.name: as_fitted(frame.iloc[:, place[str(c.name)]], c) for c in schema}
    frame = pd.DataFrame(cells)

    estimate = _about(args.table, lambda: model.log_prob(frame))
    scores = pd.DataFrame(estimate._asdict())
    if args.explain:
        shares = _about(args.table, lambda: model.explain(frame))
        scores = scores.join(shares.rename(columns=lambda name: f"nats_{name}"))
    save_whole(args.out, lambda path: write_table(scores, path, ending(args.out)))
    print(f"wrote {args.out}: {len(scores)} rows, {_nats(estimate.log_prob)} per row on average")


def _sample(args: argparse.Namespace) -> None:
    if args.out is not None:
        check_writable(args.out, table=True)
        if same_file(args.out, args.model):
            raise UserError(f"{args.out}: --out is the model itself")
    model = DiffusionDensity.load(args.model, device=args.device)
    rows = pd.DataFrame(model.sample(args.n, random_state=args.seed))
    rows.columns = [str(name) for name in rows.columns]
    if args.out is None:
        rows.to_csv(sys.stdout, index=False)
    else:
        save_whole(args.out, lambda path: write_table(rows, path, ending(args.out)))


def _demo(args: argparse.Namespace) -> None:
    X, y = load_mushroom(return_X_y=True)
    edible, poisonous = X.loc[y == "edible"], X.loc[y == "poisonous"]
    order = np.random.RandomState(0).permutation(len(edible))
    n_train = round(0.8 * len(edible))
    train, held_out = edible.iloc[order[:n_train]], edible.iloc[order[n_train:]]
    print(f"mushroom table: {len(X)} rows, {X.shape[1]} columns, the label left out")
    print(
        f"learning {len(train)} edible rows; to score: {len(held_out)} other edible and"
        f" {len(poisonous)} poisonous ones",
        flush=True,
    )
    start = time.perf_counter()
    model = DiffusionDensity(max_time=args.max_time, n_calls=DEMO_CALLS, random_state=0).fit(train)
    fitted = time.perf_counter()
    rows = pd.concat([held_out, poisonous])
    surprisal = -model.score_samples(rows)
    scored = time.perf_counter()
    codes = torch.from_numpy(model.encoder_.transform(held_out)).to(model.device_)
    base = cast(MarginalDenoiser, model.denoiser_.base)
    independent = -base.log_prob(codes).double().cpu().numpy()
    strange = np.arange(len(rows)) >= len(held_out)

    print("\nnats per held-out edible row (fewer are better):")
    print(f"  independent columns  {_nats(independent)}")
    print(f"  model                {_nats(surprisal[~strange])}")
    auroc = roc_auc_score(strange, surprisal)
    print(f"poisonous against edible rows by -log_prob: AUROC {auroc:.4f}, no label was seen")

    worst = np.argsort(-surprisal, kind="stable")[:5]
    shares = model.explain(rows.iloc[worst])
    print("\nthe five strangest rows, and the columns that explain them most:")
    for i, (index, split) in zip(worst, shares.iterrows(), strict=True):
        top = split.nlargest(3)
        why = ", ".join(f"{n}={rows.at[index, n]} ({v:.1f})" for n, v in top.items())
        print(f"  row {index}, {y.loc[index]}, {surprisal[i]:.1f} nats: {why}")
    print(
        f"\nfit {fitted - start:.1f} s, scored {len(rows)} rows in {scored - fitted:.1f} s"
        f" on {model.device_}"
    )
    print(
        "next: discrete-itd fit YOUR_TABLE.csv --out model.safetensors &&"
        " discrete-itd score model.safetensors YOUR_TABLE.csv --out scores.csv --explain"
    )


# -- words ----------------------------------------------------------------------------------------


def _about(path: str, call: Callable[[], Result]) -> Result:
    """The result of ``call``; what is wrong with a table is told with the table's name."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}" if "column" in str(error) else str(error)) from error


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _note(text: str) -> None:
    print(f"discrete-itd: note: {' '.join(text.split())}", file=sys.stderr)


def _nats(values: np.ndarray) -> str:
    """Mean and standard error over rows."""
    spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return _pm(float(values.mean()), float(spread))


def _pm(mean: float, stderr: float) -> str:
    return f"{mean:.3f} ± {stderr:.3f} nats"


def _column(text: str) -> tuple[str, str]:
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=KIND, got {text!r}")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(
            f"column {name!r}: kind must be {' or '.join(KINDS)}, got {kind!r}"
        )
    return name, kind


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def _rows(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("must be at least 1, got '0'")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
