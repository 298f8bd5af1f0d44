"""A report on a model and a table: one HTML page that needs no other file and no network.

No script, font or image is loaded: figures are within the page, user text is escaped, and a content security policy
forbids everything else.
"""

from __future__ import annotations

import base64
import datetime
import io
import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd import plots
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import times
from discrete_itd.devices import one_thread
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.plots import readable, shorten
from discrete_itd.reporting.findings import Findings, Verdict, examine
from discrete_itd.statistics import count, percent
from discrete_itd.storage.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.axes import Axes

CODE_SPAN = re.compile("(?<!`)(`+)(?!`)(.+?)(?<!`)\\1(?!`)")  # in Markdown
MOST_CELLS = 500  # most wrong cells that a page lists

VERDICTS = {True: "Pass", False: "Fail", None: "Undecided"}
CUT_SHORT = {
    "max_time": "Fit again with more time, a larger max_time: this fit was cut short, and other models may be better.",
    "interrupted": "Fit again without interrupting it: this model is the best so far.",
}


@one_thread
def report(
    model: DiffusionDensity | DiffusionOutlierDetector,
    X: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    inliers: Any = None,
    target_nats: float | None = None,
    target_false_alarms: float | None = None,
    title: str | None = None,
    n_most_anomalous: int = 10,
    keep: Sequence[Hashable] = (),
) -> str | Path:
    """Write a report on a table: its surprisal, its anomalies and their reasons, and whether targets are met.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
        Fitted.
    X : DataFrame or array-like, shape (N, C)
        The rows to report on.
    out : path-like, optional
        File for the page, written completely or not at all. By default the page is returned, else its path.
    title : str, optional
        Heading of the page; if it is empty, a general one.
    inliers, target_nats, target_false_alarms, n_most_anomalous, keep
        See :func:`~discrete_itd.reporting.findings.examine`, which returns the numbers without the page and names the
        other errors.

    Raises
    ------
    ImportError
        If matplotlib is not installed, naming the extra to install.
    OSError
        If ``out`` cannot be written.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> page = report(model, frame, title="Two columns")
    >>> page[:15], "Two columns" in page
    ('<!doctype html>', True)
    """
    # a missing package or folder is reported before the long computation
    plots.new_axes()
    if out is not None:
        write_whole(out, None)
    found = examine(
        model, X, inliers=inliers, target_nats=target_nats, target_false_alarms=target_false_alarms,
        n_most_anomalous=n_most_anomalous, keep=keep,
    )  # fmt: skip
    page = render(found, title=title)
    if out is None:
        return page
    write_whole(out, lambda path: path.write_text(page, encoding="utf-8"))
    return Path(out)


def render(found: Findings, *, title: str | None = None, date: datetime.date | None = None) -> str:
    """The HTML page of the findings, with today's date by default."""
    return _environment().get_template("page.html").render(
        title=title if title and title.strip() else "How surprising are these rows?",
        date=datetime.date.today() if date is None else date,
        found=found,
        drawings=_drawings(found),
    )  # fmt: skip


def errors_page(lines: pd.DataFrame, shape: tuple[int, int], *, title: str) -> str:
    """The HTML page of the cells of :func:`~discrete_itd.find_errors` in a table of some shape, and of its odd rows."""
    named = lines.query("probability_wrong >= 0.5")
    wrong = named["probability_wrong"].groupby(named["column"].map(str))
    by_column = [(name, len(p), p.sum()) for name, p in wrong]
    by_column.sort(key=lambda line: -line[1])
    texts = lines.head(MOST_CELLS).copy()
    is_cell, is_known = texts["column"].notna(), texts["expected_probability"] > 0
    for name, is_shown in (("column", is_cell), ("value", is_cell), ("expected", is_known)):
        texts[name] = texts[name].map(_shown).where(is_shown, "")
    for name, is_shown in (("expected_probability", is_known), ("probability_wrong", is_cell)):
        texts[name] = texts[name].map("{:.2f}".format).where(is_shown, "")
    return _environment().get_template("errors.html").render(
        title=title, date=datetime.date.today(), shape=shape, n=len(named), n_lines=len(lines),
        cells=list(texts.itertuples()), by_column=by_column,
    )  # fmt: skip


def _shown(value: Any) -> str:
    """A cell of a table as text, a missing one too."""
    return "(missing)" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)


def _drawings(found: Findings) -> dict[str, tuple[str, str]]:
    """The figures for which there are numbers, and their descriptions, by the section of the page that shows them."""
    scores = found.scores
    drawn = {
        "scores": (plots.plot_scores(scores), f"Histogram of the {scores.name} of the rows."),
        "columns": (
            plots.plot_columns(found.columns),
            "Nats of each column: what the other columns explain, and what remains.",
        ),
    }
    if found.information is not None:
        label = "Mutual information of every two columns, in nats."
        drawn["information"] = plots.plot_information_matrix(found.information), label
    if found.graph is not None and len(found.graph.edges):
        label = "Graph of the columns, each below its parents, with the nats of each edge."
        drawn["graph"] = plots.plot_graph(found.graph), label
    if found.alarms.p_values is not None:
        numbers = plots.PValues(found.alarms.p_values, len(scores.reference))
        label = "Share of rows with a p-value up to each level."
        drawn["calibration"] = plots.plot_p_values(numbers), label
    return {section: (picture(ax), label) for section, (ax, label) in drawn.items()}


def picture(ax: Axes) -> str:
    """The figure of matplotlib axes as the address of an image that holds all of it, in SVG whose text stays text."""
    import matplotlib

    file = io.BytesIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": ""}),
        warnings.catch_warnings(),
    ):
        # fall back on the reader's fonts for glyphs that matplotlib's font lacks
        warnings.filterwarnings("ignore", r"Glyph \d+")
        how: Any = {"format": "svg", "transparent": True, "metadata": {"Date": None}}
        ax.figure.savefig(file, **how)  # pyright: ignore
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("discrete_itd.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {f.__name__: f for f in (breakable, nats, p_value, percent, shorten, spans, times)}
    environment.filters |= {**filters, "counted": count, "median": np.median}
    environment.globals["words"] = sys.modules[__name__]
    environment.finalize = lambda value: readable(value) if type(value) is str else value
    return environment


def breakable(text: str) -> Markup:
    """Text in which long names may break after underscores and similar marks."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.findall(r"(?s).+?[_/|]+(?=\w)|.+", readable(text)))


def spans(text: str) -> Markup:
    """A sentence whose spans of code, as :func:`~discrete_itd.storage.card.code` makes them, are code."""
    from markupsafe import Markup, escape

    return Markup(CODE_SPAN.sub(r"<code>\2</code>", str(escape(readable(text)))))


# -- sentences that depend on many numbers; others are in the template ------------------------------


def nats(value: float) -> str:
    """A number of nats with two decimals, from a thousand on without."""
    return f"{value:.2f} nats" if abs(value) < 1000 else f"{value:,.0f} nats"


def p_value(p: float) -> str:
    """A p-value; empty if it is NaN."""
    return "" if math.isnan(p) else f"{p:.2g}"


# -- findings ---------------------------------------------------------------------------------


def an_inlier(found: Findings) -> str:
    """Name of one of the rows on which the model is measured."""
    return "an inlier" if found.has_inliers else "a row of this table"


def the_inliers(found: Findings) -> str:
    """Number and name of the rows on which the model is measured."""
    if found.has_inliers:
        return count(found.n_inliers, "inlier")
    return f"{count(found.n_inliers, 'row')} of this table"


def judgement(verdict: Verdict, found: Findings) -> str:
    """Measured value, target and conclusion, in one sentence without its full stop."""
    measured, target = verdict.measured, verdict.target
    if verdict.what == "nats":
        what = f"the mean surprisal of {an_inlier(found)} is {nats(measured.value)}{owners(found)}"
        if not found.n_inlier_cells:
            what = "all cells are missing, so there is nothing to score"
        between = f"{measured.low:.2f} to {measured.high:.2f}"
        wanted = f"at most {target:g} nats"
    else:
        n = round(measured.value * found.n_inliers)
        verb = "raises" if n == 1 else "raise"
        what = f"{n:,} of {the_inliers(found)} {verb} an alarm, {percent(measured.value)}"
        between = f"{percent(measured.low)} to {percent(measured.high)}"
        wanted = f"at most {percent(target)}"
    interval = f" (95 % interval {between})" if math.isfinite(measured.low) else ""
    more = ""
    if verdict.passed is None:
        more = f"; more {'rows' if found.n_inlier_cells else 'cells'} are needed to decide"
    return f"{what}{interval}, the target is {wanted}{more}"


def owners(found: Findings) -> str:
    """That a few rows own the mean surprisal, if they do."""
    if not found.n_top:
        return ""
    rows = count(found.n_top, "row")
    return f" (more than half of what it has above the median, {nats(found.median)}, is of {rows})"


def expectation(found: Findings) -> str:
    """How many alarms as many new inliers would raise."""
    threshold, expected = found.alarms.threshold, found.n_expected
    if threshold is None or expected is None:
        return "how many inliers raise one is unknown, as none were held out"
    whose = "rows like the calibration rows" if threshold.contaminated else "inliers"
    return (
        f"{found.n_rows:,} {whose} would raise about {expected.mean:.0f}"
        f" ({expected.low:.0f} to {expected.high:.0f} in 95 of 100 tables)"
    )


def blamed(found: Findings, by: str) -> list[tuple[str, int]]:
    """The columns of the alarms, or ("kind") what their cells break, with the number of rows, most frequent first."""
    columns, kinds = found.kinds["column"], found.kinds["kind"]
    names = [c or "no single column" for c in columns]
    if by == "kind":
        names = [f"{c} {kind}" if c else kind for c, kind in zip(columns, kinds, strict=True)]
    return Counter(names).most_common()


def longer_training(found: Findings) -> str:
    """Whether more training is worth it, by what the second half of the steps gained on held-out rows."""
    gain, again = found.late_gain, CUT_SHORT.get(found.stopped, "")
    if not found.was_trained:
        return again or (
            "If a target is missed, compare other models by candidates_, or fit denoiser='best' with more max_time."
        )
    if gain is None:
        said = "There are too few validations to say what longer training would gain."
    elif not gain > 0:
        said = (
            "The second half of the steps gained nothing on held-out rows: longer training of this kind would not help."
            " More rows or a smaller network might."
        )
    else:
        known = f"about {nats(gain)}" if gain >= 0.005 else "less than 0.01 nats"
        said = (
            f"The second half of the steps gained {known} per held-out row; twice as many steps, with a larger"
            " max_steps, would gain less than that."
        )
    return f"{said} {again}".rstrip()


# -- recommendations ----------------------------------------------------------------------------------

AFTER_VERDICT = {
    "nats": {
        True: "nothing, the model predicts well enough",
        False: "fit more rows, give more time or denoiser='best', and see below which columns remain unexplained",
        None: "measure on more rows",
    },
    "false alarms": {
        True: "use the threshold as it is",
        False: "set a lower threshold, or calibrate anew on recent inliers",
        None: "measure on more inliers",
    },
}


def after_calibration(found: Findings) -> str:
    """Recommendation about the p-values."""
    table = found.alarms.calibration
    assert table is not None
    share, low, high = table[["share", "low", "high"]].to_numpy().T
    if (share > high).any():
        return (
            "see whether these rows are inliers; if they are, calibrate anew on recent ones (the share of small"
            " p-values is above its range)"
        )
    if (share < low).any():
        return (
            "the p-values are valid, but larger than those of new inliers would be: see whether these rows were used"
            " for the fit (the share of small p-values is below its range)"
        )
    return "use the p-values as they are"


def after_alarms(found: Findings) -> str:
    """Recommendation about rows with alarms."""
    if found.has_many_alarms:
        return (
            "read a few of these rows; if they are no errors, the data have changed: see the columns in"
            " detector.drift(X) or discrete-itd drift, and fit anew"
        )
    return "check the rows in this order, the highest first, and correct or confirm the cells that are marked, if any"


def strongest(information: pd.DataFrame) -> list[tuple[str, str, float, float]]:
    """Two columns that share most, with nats and standard error; empty if no two clearly share any."""
    nats, stderr = information.to_numpy(), information.attrs["stderr"]
    sure = np.triu(np.where(nats > 2 * stderr, nats, 0.0), 1)
    j, k = np.unravel_index(sure.argmax(), sure.shape)
    names = [str(name) for name in information.columns]
    return [(names[j], names[k], nats[j, k], stderr[j, k])] if sure[j, k] > 0 else []
