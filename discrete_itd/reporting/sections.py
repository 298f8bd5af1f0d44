"""The sections of a report: a function each, from the findings to the content that the page shows.

A new section is a function that returns a :class:`Section`, and its place in ``SECTIONS``. Numbers are computed in
:mod:`~discrete_itd.reporting.findings`, sentences are in :mod:`~discrete_itd.reporting.sentences`, and
``templates/page.html`` sets what a section holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from discrete_itd.reporting import figures, sentences
from discrete_itd.reporting.findings import Findings
from discrete_itd.reporting.svg import svg
from discrete_itd.reporting.text import nats, p_value, percent, shorten

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Parameters
    ----------
    caption : str
    head : sequence of str, length K
    rows : sequence of sequences, shape (R, K)
        Of text; the first may be a pair, a name and a remark, and the others may be tuples, shown as lists.
    numbers : collection of int
        Positions of the columns to align as numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | tuple[str, ...]]]
    numbers: Collection[int]


@dataclass(frozen=True)
class Section:
    """A section of the page. Text is escaped by the template.

    Parameters
    ----------
    key : str
        Its id on the page.
    name : str
        In the page's navigation.
    title : str
    paragraphs : sequence of str
    figure : Markup, optional
    table : Table, optional
    terms : sequence of (str, str)
        Names and values, or terms and definitions.
    """

    key: str
    name: str
    title: str
    paragraphs: Sequence[str] = ()
    figure: Markup | None = None
    table: Table | None = None
    terms: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Decision:
    """The head of the page: whether targets are met, and the most important numbers.

    Parameters
    ----------
    word : str
        "Pass", "Fail" or "Undecided"; without targets "In short".
    lines : sequence of (str, str)
        For each target the same word for it alone, and a sentence.
    tiles : sequence of (str, str, str)
        Name, number and remark.
    """

    word: str
    lines: Sequence[tuple[str, str]]
    tiles: Sequence[tuple[str, str, str]]


def decision(found: Findings) -> Decision:
    """Whether targets are met, and the most important numbers."""
    lines = [
        (sentences.VERDICTS[verdict.passed], f"{sentences.judgement(verdict, found)}.")
        for verdict in found.verdicts
    ]
    mean = nats(found.nats.value), sentences.odds(found)
    if not found.n_inlier_cells:
        mean = "None", "all cells are missing, so there is nothing to score"
    tiles = [
        (f"Mean surprisal of {sentences.an_inlier(found)}", *mean),
        ("Gain over independent columns", nats(found.gain), "per held-out row of training"),
    ]
    if found.n_alarms is not None:
        share = percent(found.n_alarms / found.n_rows)
        tiles.append(("Alarms", f"{found.n_alarms:,}", f"of {found.n_rows:,}, {share}"))
    if found.n_cells:
        top, median = nats(found.surprisal.max()), f"median {np.median(found.surprisal):.2f}"
        if not found.alarms.is_surprisal:
            median += "; on the scale of the detector's score, not of the surprisal"
        tiles.append((f"Highest {sentences.score_name(found)}", top, median))
    return Decision(sentences.VERDICTS[found.passed] if lines else "In short", lines, tiles)


def training(found: Findings) -> Section:
    """The learning curve and its extrapolation."""
    text = [sentences.training(found), sentences.longer_training(found)]
    if not found.is_mass:
        text.append(
            "These nats refer to standardised values; in the units of the columns all of them differ by the same"
            " constant."
        )
    figure = None
    if max(found.history["step"]) > 0:
        ax = figures.new_axes()
        figures.draw_learning_curve(found.history, ax, extrapolation=found.extrapolation)
        figure = svg(ax, "training", "Held-out nats per row against the number of training steps.")
    return Section("training", "Training", "Was training long enough?", text, figure)


def denoising(found: Findings) -> Section:
    """The denoising error at each signal-to-noise ratio."""
    head = "denoising", "Denoising", "What the model has learned"
    if found.curve is None or found.areas is None:
        return Section(*head, ["This figure needs at least two rows."])
    if not found.n_inlier_cells:
        return Section(*head, [sentences.ALL_MISSING])
    inner, outer = found.areas
    text = [
        "The model reconstructs rows to which Gaussian noise was added. At the left the noise hides the row, at the"
        " right there is almost none. The integral of the squared errors is the surprisal of a row.",
        f"The area between the curves, {nats(outer - inner)}, is what the model has learned about the dependence of"
        " columns.",
    ]
    if found.is_mass:
        text.append(
            f"The area under the lower curve, {nats(inner)}, is a second estimate of the mean surprisal of"
            f" {nats(found.nats.value)} above."
        )
    ax = figures.new_axes()
    figures.draw_mse_curve(found.curve, ax, is_mass=found.is_mass)
    label = (
        "Denoising error at each signal-to-noise ratio, of the model and of independent columns."
    )
    return Section(*head, text, svg(ax, "denoising", label))


def scores(found: Findings) -> Section:
    """The distribution of the scores, and the threshold."""
    name, threshold = sentences.score_name(found), found.alarms.threshold
    ax = figures.new_axes()
    figures.draw_scores(
        found.surprisal,
        ax,
        threshold=None if threshold is None else -threshold.offset,
        reference=found.alarms.reference,
        name=name,
    )
    text = [*sentences.scores(found), sentences.alarms(found)]
    figure = svg(ax, "scores", f"Histogram of the {name} of the rows.")
    return Section("scores", "Scores", "How surprising the rows are", text, figure)


def calibration(found: Findings) -> Section:
    """The distribution of the p-values of inliers."""
    head = "calibration", "p-values", "Are the p-values calibrated?"
    alarms, shares = found.alarms, found.alarms.calibration
    if shares is None or alarms.p_values is None or alarms.reference is None:
        none = sentences.NO_THRESHOLD if alarms.threshold is None else sentences.NO_CALIBRATION
        return Section(*head, [none])
    rows = [
        (percent(level), percent(share), f"{percent(low)} to {percent(high)}")
        for level, share, low, high in shares.itertuples(index=False)
    ]
    table = Table(
        "Rows with a p-value up to a level", ["level", "these rows", "95 % of tables"], rows, (1, 2)
    )
    ax = figures.new_axes()
    figures.draw_p_values(alarms.p_values, ax, n_calibration=len(alarms.reference))
    figure = svg(ax, "p-values", "Share of rows with a p-value up to each level.")
    return Section(*head, [sentences.calibration(found)], figure, table)


def anomalies(found: Findings) -> Section:
    """The most anomalous rows with reasons."""
    head = "anomalies", "Anomalies", "The most anomalous rows, and why"
    lines = found.most_anomalous
    if not len(lines):
        return Section(*head, ["No rows were requested."])
    has_p = bool(lines["p_value"].notna().any())
    names = ["row", "nats" if found.alarms.is_surprisal else "score"]
    names += ["p\N{NON-BREAKING HYPHEN}value"] if has_p else []
    rows = []
    for line in lines.to_dict("records"):
        p = [p_value(line["p_value"])] if has_p else []
        reasons = tuple(shorten(reason, LONGEST_REASON) for reason in line["reasons"])
        rows.append((shorten(line["row"]), f"{line['nats']:.1f}", *p, reasons))
    table = Table(sentences.most_anomalous(found), [*names, "reasons"], rows, range(1, len(names)))
    return Section(*head, table=table)


def columns(found: Findings) -> Section:
    """Each column's entropy, and what the other columns explain of it."""
    lines = found.columns.sort_values("nats", ascending=False, kind="stable")
    rows = []
    for line in lines.to_dict("records"):
        share = "" if np.isnan(line["share"]) else f" ({line['share']:.0%})"
        rows.append(
            (
                (shorten(line["column"]), line["kind"]),
                f"{line['nats']:.2f}",
                f"{line['nats_given_others']:.2f}",
                f"{line['explained']:.2f}{share}",
            )
        )
    text = "Errors and gaps in a column can be found and filled to the extent that the other columns explain it."
    if not found.is_mass:
        text += (
            " A continuous or binned column has a density: its nats can be negative, and only what the other columns"
            " explain is meaningful."
        )
    caption = f"Nats per {'inlier' if found.has_inliers else 'row of this table'}"
    head = ["column", "marginally", "given the others", "explained"]
    ax = figures.new_axes(figures.bars_size(len(lines)))
    figures.draw_columns(lines, ax)
    label = "Nats of each column: what the other columns explain, and what remains."
    return Section(
        "columns", "Columns", "How much columns explain each other", [text], svg(ax, "columns", label),
        Table(caption, head, rows, (1, 2, 3)),
    )  # fmt: skip


def facts(found: Findings) -> Section:
    """Facts about model, data and cost."""
    return Section("facts", "Facts", "Model, data and cost", terms=found.facts)


def glossary(found: Findings) -> Section:
    """The terms and what they mean."""
    return Section("glossary", "Glossary", "Glossary", terms=sentences.glossary(found))


SECTIONS: tuple[Callable[[Findings], Section], ...] = (
    training, denoising, scores, calibration, anomalies, columns, facts, glossary,
)  # fmt: skip
