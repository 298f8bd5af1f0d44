"""The card of a model: what people should know of it, in Markdown, computed from the fitted model alone.

A card names the columns of the table, but none of their values. What the fit did not measure is not stated. The names
of columns, categories and files are made harmless here, by :func:`code` and :func:`inline`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from discrete_itd.reading.text import visible
from discrete_itd.statistics import count, percent, plus_minus

HEADING = "# Model card: "  # by which a card is known
MOST_RULES = 10
# no markup in any reading of Markdown, apart from links that readers make of bare addresses
NO_MARKUP = re.compile(
    r"(?!.*www\.)[A-Za-z0-9 .,;%±+()=-]*(?:(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])[A-Za-z0-9 .,;%±+()=-]*)*"
)


def model_card(estimator: Any, scorer: Any = None, rules: Sequence[str] = ()) -> str:
    """The card of a fitted ``DiffusionDensity``, or of a detector with its ``Scorer`` and what is guaranteed of it.

    Of the ``rules`` that the rows of the fit obey the first are listed.
    """
    from discrete_itd import __version__

    density = estimator if scorer is None else scorer.density
    model, of_columns = density.model_, "An `open` column has a level for values never seen."
    known, fitted = facts(model, density.n_evaluations), " ".join(repr(estimator).split())
    sections = {
        "Model": [f"* fitted as {code(fitted)}"],
        "Data": [of_columns, "", *table(columns_table(model.encoder))],
    }
    sections["Model"] += [f"* {name}: {inline(text)}" for name, text in known.items()]
    if model.candidates is not None:
        names = ["candidate", "nats", "behind", "stderr", "fit_seconds", "share", "chosen"]
        candidates = table(model.candidates[names].round(3))
        sections["Candidates"] = ["Nats are per held-out row.", "", *candidates]
    if rules:
        more = [f"* and {len(rules) - MOST_RULES} more"] if len(rules) > MOST_RULES else []
        sections["Rules"] = [*(f"* {code(text)}" for text in rules[:MOST_RULES]), *more]
    sections["Limits"] = [f"* {sentence}" for sentence in limits(model)]
    title = "density of the rows of a table"
    summary = (
        "A fitted `DiffusionDensity`: the log-probability of a row of the table below, in nats. Of continuous columns"
        " it is the logarithm of a density in the column's unit."
    )
    if scorer is not None:
        title = "detector of anomalous rows of a table"
        summary = (
            "A fitted `DiffusionOutlierDetector`: a score of each row in nats, a p-value, and an alarm below a"
            " threshold."
        )
        sections["Calibration"] = [f"* {text}" for text in _calibration(estimator, scorer)]
    parts = [f"{HEADING}{title}\n\n{summary} Made with discrete_itd {__version__}."]
    parts += ["\n".join([f"## {name}", "", *lines]) for name, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def facts(model: Any, n_evaluations: int) -> dict[str, str]:
    """What a fitted ``Model`` is, was fitted to and costs, by name: on its card, and on the page of a report."""
    held_out = model.held_out
    scale = ""
    if any(column.has_volume for column in model.encoder.schema):
        scale = " (on the encoded scale, without the volumes of pooled categories and units)"
    schema = model.encoder.schema
    kinds = Counter(column.kind for column in schema)
    cells, missing = (sum(getattr(c, name) for c in schema) for name in ("n_rows", "n_missing"))
    how = "in closed form, without error"
    if not model.denoiser.closed_form:
        how = f"by {n_evaluations} denoiser evaluations along paths, with a standard error"
    found = {
        "training rows": f"{schema[0].n_rows:,}, those held out for validation among them",
        "columns": f"{len(schema)}, of them {', '.join(f'{n} {kind}' for kind, n in kinds.items())}",
        "missing cells": f"{percent(missing / max(1, cells))} of the training table",
        "denoiser": f"{type(model.denoiser).__name__}, {model.denoiser.n_parameters:,} numbers",
        "rows are scored": how,
        "training": _training(model),
        "held-out rows": _gain(held_out),
        "nats of a held-out row": f"{plus_minus(held_out.nats, held_out.stderr)}, by independent columns"
        f" {plus_minus(held_out.independent, held_out.independent_stderr)}{scale}",
        "seed": str(model.seed),
    }
    if not math.isnan(model.fit_seconds):
        found["the fit took"] = f"{model.fit_seconds:.3g} s on {model.device.type}"
    if not math.isnan(model.microseconds):
        found["a score took"] = (
            f"{model.microseconds:.3g} microseconds per encoded row, on the machine of the fit"
        )
    return found


def _training(model: Any) -> str:
    """Steps of the training, and how it ended."""
    if model.stopped == "exact":
        return "none, in closed form"
    steps = model.history["step"]
    best, last = steps[model.history["valid_nats"].idxmin()], count(int(steps.iloc[-1]), "step")
    return f"{last} ({model.stopped}), the best after {best:,.0f}"


def _gain(found: Any) -> str:
    """How much better the model is than independent columns."""
    if found.n_rows < 2:
        return "one is too few to say how much better the model is than independent columns"
    return (
        f"{plus_minus(found.gain, found.gain_stderr)} per row better than independent columns (on"
        f" {count(found.n_rows, 'row')}; a nat is a factor of 2.7 in probability)"
    )


def columns_table(encoder: Any) -> Any:
    """The frame of ``encoder.describe()`` as text."""
    described = encoder.describe()
    numbers = described["categories"].map(lambda n: str(n or ""))
    return described.assign(categories=numbers, missing=described["missing"].map(percent))


def _calibration(detector: Any, scorer: Any) -> list[str]:
    given = [scorer.schema[j].name for j in scorer.given]
    n = len(detector.calibration_scores_)
    columns = f"the other columns given {', '.join(map(code, given))}" if given else "all columns"
    lines = [
        f"score: minus the nats of {columns} above those of rare but normal cells, (12); the mean of"
        f" {len(scorer.models)} models by the `share` of each"
    ]
    if scorer.weight:
        lines.append(f"{scorer.weight:.0%} of these nats are by trees of few training rows each")
    if scorer.distances is not None:
        n_groups = len(scorer.distances.means)
        lines.append(
            f"and how far its numbers are from the means of {n_groups} groups of rows of the fit"
        )
    lines.append(f"threshold: {detector.threshold_}")
    if not n:
        return [*lines, "there are no calibration rows: no p-values, and no guarantee of a rate"]
    least = f"the smallest p-value is {1 / (n + 1):.3g}"
    lines += [
        f"{n:,} calibration rows took no part in the fit; {least}",
        "p-values and rates hold for rows that are independent and follow the distribution of the calibration rows;"
        " `drift(X)` tests whether new rows do",
        "the file holds scores and nats by column of the calibration rows",
    ]
    if given:
        strata = detector.strata()
        lines.append(
            f"{strata['own'].sum():,} of {len(strata):,} strata have p-values and a threshold"
            " from their own calibration rows, the others from all; their rates hold only on average over strata"
        )
    return lines


def limits(model: Any) -> list[str]:
    """What a fitted ``Model`` does not promise, in sentences, names in spans of :func:`code`."""
    schema = model.encoder.schema
    lines = [
        "The probabilities hold for rows like the training rows. Nothing here says whether new rows are like them.",
        "Held-out rows chose the model, ended its training or weighed its parts, so nats of new rows are expected to"
        " be slightly higher; `-score(X)` measures them.",
        "The file holds no row of the training table, and no average of fewer than five: but categories and how often"
        " they occur, alone and together, and a model that may draw rows it was fitted to. That is no anonymisation.",
    ]
    if (times := model.encoder.times) is not None:
        clock, counted = schema[times.clock], [schema[j].name for j in times.since]
        also = f" Times that count from it: {listed(counted)}." if counted else ""
        lines.append(
            f"The {clock.codec.given} of {code(clock.name)}, by which rows come in time, is given and has no"
            f" probability: how many rows there are, and when, is not judged.{also}"
        )
    if prefixed := [c.name for c in schema if c.kind == "code" and not c.has_volume]:
        lines.append(
            f"Codes are known by their first characters in {listed(prefixed)}: the rest is given, and has no"
            " probability."
        )
    if not model.denoiser.closed_form:
        error = "too low in expectation, for anomalies by more than its standard error says"
        lines.append(f"A score is a Monte-Carlo estimate: {error}.")
    if model.companion is not None:
        lines.append(
            "Of one cell, conditional probabilities are by the model. Where several cells are unknown, its companion,"
            f" a `{type(model.companion).__name__}`, takes part in them; and it draws."
        )
    for what, denoiser in (("model", model.denoiser), ("companion", model.companion)):
        if denoiser is None or denoiser.independent:
            continue
        internal = torch.nonzero(denoiser.independent_columns).flatten().tolist()
        if alone := [j for j in internal if j < len(schema)]:
            lines.append(
                f"The {what}, a `{type(denoiser).__name__}`, has these columns independent of all others, so that"
                f" nothing explains them and they explain nothing: {listed([schema[j].name for j in alone])}."
            )
    if closed := [c.name for c in schema if c.has_levels and not c.open]:
        lines.append(f"A value never seen raises an error in: {listed(closed)}.")
    indicated = [c.name for c in schema if c.absent]
    value = f"; but it counts as a value in: {listed(indicated)}." if indicated else "."
    lines.append(
        f"A missing cell is left out of a row's score, so rows with many look more typical than complete ones{value}"
    )
    if any(c.has_volume for c in schema):
        units = "they depend on the units of the columns and may be above 0"
        lines.append(f"Scores contain log-densities: {units}.")
    if any(c.categories for c in schema):
        lines.append("The file holds the categories of the training table as they are.")
    if repeat := [str(c.name) for c in schema if c.codec.seen]:
        held = "the file holds the different numbers there"
        lines.append(f"A number never seen costs nats in {listed(repeat)}: {held}.")
    return lines


# -- Markdown -----------------------------------------------------------------------------------------


def code(text: object) -> str:
    """Any text as a span of code on one line, in which nothing is markup.

    What people would not see, like controls, changes of direction and spaces at the ends, is in Python escapes.

    Examples
    --------
    >>> code("a`b")
    '``a`b``'
    """
    shown = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if not shown or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def inline(text: object) -> str:
    """Any text on one line: as it is if there is no markup in it, else as code.

    Examples
    --------
    >>> inline("tree + mixture"), inline("<b>")
    ('tree + mixture', '`<b>`')
    """
    words = visible(text)
    return words if NO_MARKUP.fullmatch(words) else code(words)


def listed(names: Sequence[object], most: int = 10) -> str:
    """Names as text, the first few of many."""
    shown = ", ".join(map(code, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def table(frame: Any) -> list[str]:
    """The lines of a frame as a table."""
    rows = [list(frame.columns), *frame.itertuples(index=False)]
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return [lines[0], "|" + "---|" * frame.shape[1], *lines[1:]]


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    # a bar divides cells within code, too, unless there is a backslash, which is then not shown
    return inline(value).replace("\\|", "\\ |").replace("|", "\\|")
