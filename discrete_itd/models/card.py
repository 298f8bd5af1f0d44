"""The card of a model: what people should know of it, in Markdown, computed from the fitted model alone.

A card names the columns of the table, but none of their values. What the fit did not measure is not stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from discrete_itd.models.cost import TIMED_EVALUATIONS
from discrete_itd.models.model import Model
from discrete_itd.storage import markdown

MOST_COLUMNS = 1000  # listed one by one
NOT_EXACT = "by {calls} denoiser evaluations along paths, with a standard error"

Lines = list[str]


def density_card(estimator: Any, model: Model, n_evaluations: int) -> str:
    """The card of a density.

    Parameters
    ----------
    estimator : DiffusionDensity
        Whose parameters are listed.
    model : Model
        What it has fitted.
    n_evaluations : int
        Denoiser evaluations per row, if it is scored along paths.
    """
    return document(
        "Model card: density of the rows of a table",
        "A fitted `DiffusionDensity`: the log-probability of a row of the table below, in nats. Of continuous columns"
        " it is the logarithm of a density in the column's unit.",
        model_section(estimator, model, n_evaluations),
        data_section(model),
        held_out_section(model),
        cost_section(model, n_evaluations),
        limits_section(model),
    )


def document(title: str, summary: str, *sections: Lines) -> str:
    """Markdown of a title, a summary and sections."""
    from discrete_itd import __version__

    parts = [[f"# {title}", "", f"{summary} Made with discrete_itd {__version__}."], *sections]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def model_section(estimator: Any, model: Model, n_evaluations: int) -> Lines:
    """What the model is: parameters, denoiser, how a row is scored, and the models it was chosen from."""
    closed = model.denoiser.closed_form
    how = "in closed form, without error" if closed else NOT_EXACT.format(calls=n_evaluations)
    lines = [
        "## Model",
        "",
        f"* fitted as {markdown.code(repr(estimator))}",
        f"* denoiser: `{type(model.denoiser).__name__}`, {model.denoiser.n_parameters:,} numbers",
        f"* rows are scored {how}",
        f"* seed {model.seed}; the fit ended by: {markdown.inline(model.stopped)}",
    ]
    if model.companion is not None:
        lines.append(
            f"* a companion, a `{type(model.companion).__name__}`, proposes values of unknown cells, and answers"
            " what this model cannot"
        )
    if model.candidates is not None:
        names = ["candidate", "nats", "behind", "stderr", "microseconds", "fit_seconds", "chosen"]
        table = model.candidates[names].round(3)
        lines += [
            "",
            "It was chosen among these (nats per held-out row):",
            "",
            *markdown.table(table),
        ]
    return lines


def data_section(model: Model) -> Lines:
    """The training table: its size and schema."""
    schema, described = model.encoder.schema, model.encoder.describe()
    cells, missing = (sum(getattr(c, name) for c in schema) for name in ("n_rows", "n_missing"))
    lines = [
        "## Data",
        "",
        f"{schema[0].n_rows:,} training rows (those held out for validation among them), {len(schema)} columns,"
        f" {missing / max(1, cells):.1%} of the cells missing. `categories` counts categories or bins; an `open` column"
        " has a level for values never seen.",
        "",
        *markdown.table(
            described[:MOST_COLUMNS].assign(
                missing=described["missing"].map("{:.1%}".format, na_action="ignore").fillna("")
            )
        ),
    ]
    if len(described) > MOST_COLUMNS:
        lines += ["", f"and {len(described) - MOST_COLUMNS} more columns"]
    return lines


def held_out_section(model: Model) -> Lines:
    """Nats on the rows that the fit held out."""
    found, unit = model.held_out, "per held-out row"
    if any(column.has_volume for column in model.encoder.schema):
        unit += " on the encoded scale: without the volumes of bins, pooled categories and units"
    return [
        "## Held-out nats",
        "",
        f"* the model: {plus_minus(found.nats, found.stderr)} {unit}",
        f"* independent columns: {plus_minus(found.independent, found.independent_stderr)} {unit}",
        f"* the model is better by {plus_minus(found.gain, found.gain_stderr)} per row, on {found.n_rows:,} rows",
        "* the same rows chose the model, ended its training or weighed its parts, so nats of new rows are expected to"
        " be slightly higher; `-score(X)` measures them",
    ]


def cost_section(model: Model, n_evaluations: int) -> Lines:
    """Time of the fit and of a score, as far as they are known."""
    cost, how = model.cost, "in closed form"
    if cost is None:
        return ["## Cost", "", "* not measured: the model was fitted by an earlier release"]
    if not model.denoiser.closed_form:
        how = f"by {n_evaluations} evaluations, extrapolated from {TIMED_EVALUATIONS}"
    return [
        "## Cost",
        "",
        f"* the fit: {cost.fit_seconds:.3g} s on `{model.device.type}`",
        f"* a score: {cost.microseconds:.3g} µs per encoded row {how}, in a batch of {cost.n_rows:,} rows with at most"
        f" {cost.n_threads} threads, on the machine of the fit",
    ]


def limits_section(model: Model) -> Lines:
    """What the numbers do not mean."""
    schema = model.encoder.schema
    lines = [
        "## Limits",
        "",
        "* The probabilities are those of rows like the training rows. Nothing here says whether new rows are like"
        " them.",
        "* The file holds no row of the training table, and no average of fewer than five: but categories and how often"
        " they occur, alone and together, and a model that may draw rows it was fitted to. That is no anonymisation.",
    ]
    if not model.denoiser.closed_form:
        lines.append(
            "* A score is a Monte-Carlo estimate: too low in expectation, for anomalies by more than its standard error"
            " says."
        )
    if model.companion is not None:
        lines.append(
            "* Of one cell, conditional probabilities are those of the model. Where several cells are unknown, the"
            " companion, another model, takes part in them; and it draws."
        )
    for what, denoiser in (("model", model.denoiser), ("companion", model.companion)):
        if denoiser is None or denoiser.independent:
            continue
        alone = torch.nonzero(denoiser.independent_columns).flatten().tolist()
        if alone:
            names = listed([str(schema[j].name) for j in alone])
            lines.append(
                f"* The {what}, a `{type(denoiser).__name__}`, has these columns independent of all others, so that"
                f" nothing explains them and they explain nothing: {names}."
            )
    closed = [str(c.name) for c in schema if c.kind in ("nominal", "ordinal") and not c.open]
    if closed:
        lines.append(f"* A value never seen raises an error in: {listed(closed)}.")
    indicated = [str(c.name) for c in schema if c.indicator]
    plain = "A missing cell is left out of a row's score, so rows with many look more typical than complete ones"
    lines.append(
        f"* {plain}"
        + (f"; but it counts as a value in: {listed(indicated)}." if indicated else ".")
    )
    if any(c.has_volume for c in schema):
        lines.append(
            "* Scores contain log-densities: they depend on the units of the columns and may be above 0."
        )
    if any(c.categories for c in schema):
        lines.append("* The file holds the categories of the training table as they are.")
    return lines


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names as text, the first few of many."""
    shown = ", ".join(map(markdown.code, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def plus_minus(mean: float, stderr: float) -> str:
    """A mean in nats with its standard error, if there is one."""
    return f"{mean:.3f} nats" + ("" if math.isnan(stderr) else f" ± {stderr:.3f}")
