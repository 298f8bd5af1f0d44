"""``discrete-itd report``: a page on a table by a stored model; and ``check``: its wrong cells, without one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.cells.errors import find_errors
from discrete_itd.cells.repair import Repaired, repair_errors
from discrete_itd.cli.inputs import (
    about,
    check_detector,
    groups_of,
    kept_names,
    load_model,
    reader_of,
)
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import (
    STANDARD,
    Dialect,
    EmptyTableError,
    check_out,
    ending,
    reading,
    say,
    shown,
    standard_output,
    write_table,
)
from discrete_itd.detection.outliers import find_outliers
from discrete_itd.encoders import Rows
from discrete_itd.plots import new_axes
from discrete_itd.reading.columns import recognise
from discrete_itd.reading.frames import holds_text
from discrete_itd.reporting.findings import Findings, examine
from discrete_itd.reporting.page import VERDICTS, errors_page, judgement, render
from discrete_itd.statistics import count
from discrete_itd.storage.files import write_whole

SHOWN = 10  # most lines of the list of cells that are printed


def report(args: argparse.Namespace) -> int:
    """Run the command; 1 if targets are to be met and are not."""
    sources = {"model": args.model, "table": args.table, "table_of_inliers": args.inliers}
    check_out(args.out, is_table=False, **sources)
    if args.inliers == STANDARD:
        raise UserError("--inliers: must be a file, not -")
    if args.check and args.target_nats is None and args.target_false_alarms is None:
        raise UserError("--check needs a target: --target-nats or --target-false-alarms")
    new_axes()  # or an ImportError
    found = _examined(args)
    _write_page(args.out, render(found, title=f"Report on {shown(args.table)}"))
    n_alarms = "" if found.n_alarms is None else f", {count(found.n_alarms, 'alarm')}"
    say(args.out, f"wrote {args.out}: {count(found.n_rows, 'row')}{n_alarms}")
    for verdict in found.verdicts:
        say(args.out, f"  {VERDICTS[verdict.passed].lower()}: {judgement(verdict, found)}")
    if found.verdicts:
        say(args.out, VERDICTS[found.passed].lower())
    return int(args.check and not found.passed)


def _write_page(out: str, page: str) -> None:
    """Write a page, which may be the standard output."""
    if out == STANDARD:
        standard_output().write(page.encode())
    else:
        write_whole(out, lambda path: path.write_bytes(page.encode()))


def _examined(args: argparse.Namespace) -> Findings:
    """Findings on the table and the inliers."""
    model = load_model(args.model)
    if args.target_false_alarms is not None:
        check_detector(model, args.model, "--target-false-alarms")
    rows, keep = [], []
    with reader_of(model, args) as reader:
        for path, chunk, part in reader.read_all(args.table, keep=args.keep):
            keep = kept_names(path, list(chunk.columns), args.keep)
            rows.append(replace(part, others=chunk[keep].set_axis(part.index)))
        inliers = None if args.inliers is None else reader.whole(args.inliers)
    with about(" or ".join(path for path in (args.table, args.inliers) if path is not None)):
        return examine(
            model,
            Rows.concat(rows),
            inliers=inliers,
            target_nats=args.target_nats,
            target_false_alarms=args.target_false_alarms,
            keep=keep,
        )


# -- check ---------------------------------------------------------------------------------------


def check(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.review is not None and args.repair is None:
        raise UserError("--review needs --repair")
    review = args.review
    if review is None and args.repair not in (None, STANDARD):
        review = _review_beside(args.repair)
    sources = {"table": args.table}
    outputs = {"list_of_cells": args.out, "repaired_copy": args.repair, "cells_to_review": review}
    for what, out in outputs.items():
        check_out(out, **sources)
        sources[what] = out
    check_out(args.report, is_table=False, **sources)
    is_piped = [*outputs.values(), args.report].count(STANDARD)
    if is_piped > 1:
        raise UserError("only one of --out, --repair, --review and --report can be -")
    with reading(args.table, Dialect.asked(args.csv)) as source:
        frame, dialect, schema = pd.concat(source.chunks()), source.dialect, source.schema
    if not len(frame):
        raise EmptyTableError(f"{args.table}: the table is empty")
    groups = groups_of(frame, args.table, args.groups)
    columns = kept_names(args.table, list(frame.columns), args.columns, option="--columns")
    search = repair_errors if args.repair is not None else find_errors
    with about(args.table):
        found: Any = search(
            frame,
            columns=columns or None,
            min_probability=args.min_probability,
            groups=groups,
            expected_share=args.expected_share,
        )
        repaired, cells = found if isinstance(found, Repaired) else (None, found)
        lines, summary = cells, f"{len(cells)} of {frame.size} cells are probably wrong"
        if args.rows is not None:
            rest = frame if groups is None else frame.drop(columns=groups.name)
            odd = find_outliers(rest, n_rows=args.rows, groups=groups, random_state=0)
            lines = joined(cells, _in_notation(odd, rest))
            summary += f", beside the {count(len(set(odd['row'])), 'oddest row')}"
    if args.out is not None:
        write_table(args.out, [lines])
        summary = summary if args.out == STANDARD else f"wrote {args.out}: {summary}"
    if args.repair is not None and repaired is not None:
        write_table(args.repair, [repaired], dialect, schema)
        n_repaired = int(cells["repaired"].sum())
        summary += f"; {n_repaired} repaired, {len(cells) - n_repaired} left"
    if review is not None:
        write_table(review, [lines.query("not repaired").drop(columns="repaired")])
        summary += f" for review in {review}"
    if args.report is not None:
        title = f"Cells of {shown(args.table)} to check"
        _write_page(args.report, errors_page(lines, frame.shape, title=title))
    to = STANDARD if is_piped else None
    say(to, summary)
    if args.out is None or not is_piped:
        for line in lines.head(SHOWN).to_dict("records"):
            p = line["probability_wrong"]
            say(
                to,
                f"  {'    ' if pd.isna(p) else f'{p:.2f}'}  row {line['row']}: {line['sentence']}",
            )
        if len(lines) > SHOWN:
            say(to, f"  and {len(lines) - SHOWN} more")


def _review_beside(path: str) -> str:
    """The file with the cells to review beside a repaired copy: ``a.b.review.csv.gz`` beside ``a.b.csv.gz``."""
    endings = path[path.lower().rindex(ending(path)) :]
    return f"{path.removesuffix(endings)}.review{endings}"


def _in_notation(odd: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of :func:`~discrete_itd.find_outliers` as a table of text writes them, expected values too."""
    odd = odd.astype({"value": object, "expected": object})
    for name, lines in odd.groupby("column"):
        texts = cast(pd.Series, frame[name].dropna())
        if not holds_text(texts):
            continue
        odd.loc[lines.index, "value"] = np.asarray(frame.loc[lines["row"], name])
        counts = texts.value_counts()
        notation = recognise([*map(str, counts.index)], np.asarray(counts)).notation
        expected = cast(pd.Series, lines["expected"].dropna().infer_objects())
        if notation is not None and expected.dtype.kind in "ifmM":
            odd.loc[expected.index, "expected"] = np.asarray(notation.write(expected))
    return odd


def joined(cells: pd.DataFrame, odd: pd.DataFrame) -> pd.DataFrame:
    """The cells of :func:`~discrete_itd.find_errors` and of :func:`~discrete_itd.find_outliers` in one table.

    A cell that both name has the line of the first one; ``found_by`` is "errors", "outliers" or "both", and ``score``
    that of the row, if it is one of the oddest. Rows without a suspicious cell, odd as a whole, come last.
    """
    of_cells, of_odd = ([*zip(t["row"], t["column"], strict=True)] for t in (cells, odd))
    scores = dict(zip(odd["row"], odd["score"], strict=True))
    by_both = pd.Index(of_cells).isin(of_odd)
    cells = cells.assign(
        found_by=np.where(by_both, "both", "errors"), score=[scores.get(i) for i in cells["row"]]
    )
    is_listed = pd.Index(of_odd).isin(of_cells)
    is_listed |= np.asarray(odd["column"].isna() & odd["row"].isin(cells["row"]))
    more = odd[~is_listed].assign(found_by="outliers")
    if "repaired" in cells:
        more = more.assign(repaired=False)
    names = [*cells.columns.drop("sentence"), "sentence"]
    lines = pd.concat([t[[*cells]] for t in (cells, more) if len(t)] or [cells])
    order = np.lexsort([np.asarray(lines["score"], float), -lines["probability_wrong"]])  # NaN last
    return lines.iloc[order].reset_index(drop=True).reindex(columns=names)
