"""The command line: ``discrete-itd fit | score | impute | sample | report | demo``.

Every command reads files, calls :class:`~discrete_itd.estimators.DiffusionDensity` or a detector of anomalies, and
writes whole files or none. What a user can put right comes back as one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from discrete_itd.cli import alarms
from discrete_itd.cli.arguments import make_parser
from discrete_itd.cli.inputs import (
    about,
    check_given,
    density_of,
    given_row,
    load_density,
    load_model,
    read_all_for,
    read_for,
)
from discrete_itd.cli.tables import (
    UserError,
    check_writable,
    ending,
    fill_as_written,
    is_parquet,
    read_cells_as_written,
    read_table,
    recognise,
    same_file,
    save_whole,
    write_table,
)
from discrete_itd.datasets import load_mushroom
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting import figures
from discrete_itd.reporting.findings import examine
from discrete_itd.reporting.page import render
from discrete_itd.reporting.wording import VERDICTS, judgement

DEMO_CALLS = 64  # network evaluations per row: enough for two decimals


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, 1 if ``report --check`` finds a target not met, 2 after an error of the user's, 130 after
        an interruption.
    """
    shown, code = set(), None

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:  # two passes over the rows have the same to say
            _note(str(message))
        shown.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note
        try:
            args = make_parser().parse_args(argv)
            code = COMMANDS[args.command](args)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, like head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            print("discrete-itd: interrupted", file=sys.stderr)
            return 130
        except (UserError, ValueError, TypeError, OSError) as error:
            print(f"discrete-itd: error: {_one_line(error)}", file=sys.stderr)
            return 2
    return code or 0


# -- commands -------------------------------------------------------------------------------------


def _fit(args: argparse.Namespace) -> None:
    columns, settings = dict(args.column), alarms.settings_to_fit(args)
    _check_out(args.out, table=args.table)
    if args.checkpoint is not None:
        check_writable(args.checkpoint)
        for path in (args.table, args.out):
            if same_file(args.checkpoint, path):
                raise UserError(f"{path}: also named in --checkpoint")
    kinds = {n: spec if isinstance(spec, str) else spec["kind"] for n, spec in columns.items()}
    # read as text, the zeros at the head of a postal code stay
    frame = read_table(args.table, [n for n, kind in kinds.items() if kind == "nominal"])
    names = [str(n) for n in frame.columns]
    for option, wanted in (("--column", columns), ("--drop", args.drop)):
        for name in wanted:
            if name not in names:
                raise UserError(f"{args.table}: column {name!r}: named in {option}, but not there")
    for name in columns:
        if name in args.drop:
            raise UserError(f"column {name!r}: named in both --column and --drop")
    frame = frame.drop(columns=[n for n in frame.columns if str(n) in args.drop])
    if not frame.shape[1]:
        raise UserError(f"{args.table}: no column is left")
    if not is_parquet(args.table):
        frame = recognise(frame, args.table, kinds)
    seed = args.seed
    if seed is None and args.detector and args.checkpoint is not None:
        seed = 0  # to go on, the command must hold out the same rows again
    model = DiffusionDensity(
        column_types={n: columns[str(n)] for n in frame.columns if str(n) in columns},
        missing=args.missing,
        handle_unknown="error" if args.unseen == "raise" else args.unseen,
        denoiser=args.denoiser,
        max_steps=args.max_steps,
        max_time=args.max_time,
        device=args.device,
        random_state=seed,
    )
    detector = None
    if args.detector:
        detector = DiffusionOutlierDetector(model, random_state=seed, **cast(Any, settings))
    fitted = detector or model
    start = time.perf_counter()
    # said here in the words of the command line
    warnings.filterwarnings("ignore", "training was interrupted")
    about(args.table, lambda: fitted.fit(frame, checkpoint=args.checkpoint))
    elapsed = time.perf_counter() - start
    save_whole(args.out, fitted.save)
    model = density_of(fitted)
    if model.stopped_ == "interrupted":
        again = "" if args.checkpoint is None else "; the same command goes on with the training"
        _note(f"training was interrupted: {args.out} is the best model so far{again}")

    print(f"{args.table}: {len(frame)} rows, {frame.shape[1]} columns\n")
    formatters: dict[str | int, Callable] = {
        "missing": _percent,
        "categories": lambda n: str(n or ""),
    }
    print(model.encoder_.describe().to_string(index=False, formatters=formatters))
    path = model.schedule_table_.iloc[0]
    print(f"\npath: {path['path']}, {path['steps']} steps, {path['paths']} paths per row")
    _print_training(model, frame)
    if detector is not None:
        if len(detector.trimmed_):
            print(f"anomalies: {len(detector.trimmed_)} rows left out of the training")
        print(f"threshold: {detector.threshold_}")
    print(f"wrote {args.out} in {elapsed:.1f} s")


def _print_training(model: DiffusionDensity, frame: pd.DataFrame) -> None:
    first = model.history_.iloc[0]
    best = model.history_.loc[model.history_["valid_nats"].idxmin()]
    last = model.history_.iloc[-1]
    print(f"training: {last['step']:.0f} steps ({model.stopped_}), best after {best['step']:.0f}")
    # a density in the units of the columns differs from that of the encoded cells, which training sees; a gain does not
    print(
        "held-out rows: the model needs"
        f" {first['valid_nats'] - best['valid_nats']:.3f} nats per row less than independent columns"
    )
    if not model.encoder_.transform(frame).log_volume.any():
        for what, line in (("independent columns", first), ("model", best)):
            print(f"  {what:20} {_pm(line['valid_nats'], line['valid_stderr'])}")


def _score(args: argparse.Namespace) -> None:
    _check_out(args.out, is_table=True, model=args.model, table=args.table)
    model = load_model(args.model, args.device)
    density, judge = density_of(model), alarms.Judge.asked(args, model)
    names = {str(c.name): c.name for c in density.encoder_.schema}
    check_given(args.given, names)
    if judge is None and model is not density:
        _note("with --given no alarms are raised: a threshold is one of whole rows")
    frame = read_all_for(density, args.table)
    given = [names[n] for n in args.given] or None
    estimate = about(args.table, lambda: density.log_prob(frame, given, max_stderr=args.max_stderr))
    scores, shares, told = pd.DataFrame(estimate._asdict()), None, []
    if judge is not None:
        judged = about(args.table, lambda: judge.judge(frame))
        scores, shares, told = scores.join(judged.columns), judged.nats, judge.summary(judged)
    elif args.explain:
        shares = about(
            args.table, lambda: density.explain(frame, given, max_stderr=args.max_stderr)
        )
    if args.explain and shares is not None:
        scores = scores.join(shares.rename(columns=lambda name: f"nats_{name}"))
    save_whole(args.out, lambda path: write_table(scores, path, ending(args.out)))
    print(f"wrote {args.out}: {len(scores)} rows, {_nats(estimate.log_prob)} per row on average")
    for line in told:
        print(line)


def _impute(args: argparse.Namespace) -> None:
    _check_out(args.out, is_table=True, model=args.model, table=args.table)
    model = load_density(args.model, args.device)
    frame, _ = read_for(model, args.table)
    filled = about(
        args.table,
        lambda: model.impute(
            frame, method="sample" if args.draw else "mode", random_state=args.seed
        ),
    )
    as_written = not is_parquet(args.table) and not is_parquet(args.out)
    whole = read_cells_as_written(args.table) if as_written else read_table(args.table)
    known, n_filled = {str(c.name): c.name for c in model.encoder_.schema}, 0
    for column in whole.columns:
        if str(column) not in known:
            continue
        name = known[str(column)]
        values, gaps = cast(pd.Series, filled[name]), frame[name].isna().to_numpy()
        n_filled += int((values.notna().to_numpy() & gaps).sum())
        if as_written:
            values = fill_as_written(cast(pd.Series, whole[column]), gaps, values)
        whole[column] = values
    save_whole(args.out, lambda path: write_table(whole, path, ending(args.out)))
    print(f"wrote {args.out}: {len(whole)} rows, {n_filled} cells filled")


def _sample(args: argparse.Namespace) -> None:
    if args.out is not None:
        _check_out(args.out, is_table=True, model=args.model)
    model = load_density(args.model, args.device)
    given = given_row(model, dict(args.given)) if args.given else None
    rows = pd.DataFrame(model.sample(args.n, random_state=args.seed, given=given))
    rows.columns = [str(name) for name in rows.columns]
    if args.out is None:
        rows.to_csv(sys.stdout, index=False)
    else:
        save_whole(args.out, lambda path: write_table(rows, path, ending(args.out)))


def _report(args: argparse.Namespace) -> int:
    tables = {"table": args.table, "table of ordinary rows": args.ordinary}
    tables = {what: path for what, path in tables.items() if path is not None}
    _check_out(args.out, model=args.model, **tables)
    if args.check and args.target_nats is None and args.target_false_alarms is None:
        raise UserError("--check needs a target: --target-nats or --target-false-alarms")
    try:
        figures.new_axes()
    except ImportError as error:
        raise UserError(str(error)) from None
    model = load_model(args.model, args.device)
    density = density_of(model)
    if model is density and args.ordinary is None and args.target_false_alarms is not None:
        raise UserError(
            "--target-false-alarms needs a threshold: give ordinary rows to set one by, with --ordinary"
        )
    frame, *ordinary = (read_all_for(density, path) for path in tables.values())
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    found = about(
        " or ".join(tables.values()),
        lambda: examine(
            model,
            frame,
            ordinary=ordinary[0] if ordinary else None,
            target_nats=args.target_nats,
            target_false_alarms=args.target_false_alarms,
            n_strangest=args.strangest,
        ),
    )
    page = render(found, title=f"Report on {args.table}" if args.title is None else args.title)
    save_whole(args.out, lambda path: path.write_text(page, encoding="utf-8"))
    alarms = "" if found.n_alarms is None else f", {found.n_alarms} of them alarms"
    print(f"wrote {args.out}: {found.n_rows} rows{alarms}")
    for verdict in found.verdicts:
        print(f"  {VERDICTS[verdict.passed].lower()}: {judgement(verdict, found)}")
    if found.verdicts:
        print(VERDICTS[found.passed].lower())
    return int(args.check and not found.passed)


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
    model = DiffusionDensity(max_time=args.max_time, n_evaluations=DEMO_CALLS, random_state=0).fit(
        train
    )
    fitted = time.perf_counter()
    rows = pd.concat([held_out, poisonous])
    surprisal = -model.score_samples(rows)
    scored = time.perf_counter()
    cells = model.encoder_.transform(held_out)
    x = torch.from_numpy(cells.x).to(model.device_)
    log_prob = model.model_.marginals.log_prob(x).double().cpu().numpy()
    independent = -log_prob - cells.log_volume.sum(1)
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "fit": _fit,
    "score": _score,
    "impute": _impute,
    "sample": _sample,
    "report": _report,
    "demo": _demo,
}

# -- tables and models ----------------------------------------------------------------------------


def _check_out(out: str, *, is_table: bool = False, **sources: str) -> None:
    """UserError, before any work is done, if ``out`` cannot be written or is one of the files to read."""
    check_writable(out, table=is_table)
    for what, path in sources.items():
        if same_file(out, path):
            raise UserError(f"{out}: --out is the {what} itself")


# -- words ----------------------------------------------------------------------------------------


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


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 5e-4 else f"{share:.1%}"


def _pm(mean: float, stderr: float) -> str:
    return f"{mean:.3f} nats" if np.isnan(stderr) else f"{mean:.3f} ± {stderr:.3f} nats"


if __name__ == "__main__":
    sys.exit(main())
