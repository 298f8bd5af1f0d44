"""A report on a model and a table: one HTML page that needs no other file and no network.

No script, font or image is loaded: figures are inline SVG, user text is escaped, and a content security policy forbids
everything else.
"""

from __future__ import annotations

import datetime
import io
import math
import os
import re
import warnings
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from discrete_itd import plots
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import times
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.plots import readable, shorten
from discrete_itd.reporting import sentences
from discrete_itd.reporting.findings import Findings, examine
from discrete_itd.reporting.sentences import count, nats, p_value
from discrete_itd.statistics import percent
from discrete_itd.storage.files import write_whole
from discrete_itd.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.axes import Axes

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
TITLE = "How surprising are these rows?"
REFERENCE = re.compile(r"[(\"]#(\w+)")  # a reference to the id of an element of a figure
MOST_CELLS = 500  # most wrong cells that a page lists
PARTS = re.compile(r".+?[_/|]+(?=\w)|.+", re.DOTALL)


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
        title=title if title and title.strip() else TITLE,
        policy=POLICY,
        date=datetime.date.today() if date is None else date,
        found=found,
        drawings=_drawings(found),
    )  # fmt: skip


def errors_page(found: pd.DataFrame, shape: tuple[int, int], *, title: str) -> str:
    """The HTML page of cells found by :func:`~discrete_itd.find_errors` in a table of some shape."""
    lines = found.assign(value=found["value"].map(_shown), expected=found["expected"].map(_shown))
    wrong = found["probability_wrong"].groupby(found["column"].map(str))
    by_column = [(name, len(p), p.sum()) for name, p in wrong]
    by_column.sort(key=lambda line: -line[1])
    return _environment().get_template("errors.html").render(
        title=title, policy=POLICY, date=datetime.date.today(), shape=shape, n=len(found),
        cells=list(lines[:MOST_CELLS].itertuples()), by_column=by_column,
    )  # fmt: skip


def _shown(value: Any) -> str:
    """A cell of a table as text, a missing one too."""
    return "(missing)" if value is None or value != value else str(value)


def _drawings(found: Findings) -> dict[str, Markup]:
    """The figures by the section of the page that shows them, without those for which there are no numbers."""
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
    if found.alarms.p_values is not None:
        numbers = plots.PValues(found.alarms.p_values, len(scores.reference))
        label = "Share of rows with a p-value up to each level."
        drawn["calibration"] = plots.plot_p_values(numbers), label
    return {section: svg(ax, section, label) for section, (ax, label) in drawn.items()}


def svg(ax: Axes, name: str, label: str) -> Markup:
    """The figure of matplotlib axes as an ``<svg>`` element whose text stays text, described to screen readers.

    ``name`` is the salt of all ids in the figure, so that several fit on one page.
    """
    import matplotlib
    from markupsafe import Markup

    file = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        # fall back on the reader's fonts for glyphs that matplotlib's font lacks
        warnings.filterwarnings("ignore", r"Glyph \d+")
        ax.figure.savefig(file, format="svg", transparent=True)  # pyright: ignore
    root = ElementTree.fromstring(file.getvalue().encode())
    used = set(REFERENCE.findall(file.getvalue()))  # other ids, as "axes_1", are of any figure
    for element in root.iter():
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.attrib = {k: v for k, v in attributes.items() if k != "id" or v in used}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


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
    filters = {f.__name__: f for f in (breakable, nats, p_value, percent, shorten, times)}
    environment.filters |= {**filters, "counted": count, "median": np.median}
    environment.globals |= {"words": sentences, "infinity": math.inf}
    environment.finalize = lambda value: readable(value) if type(value) is str else value
    return environment


def breakable(text: str) -> Markup:
    """Text in which long names may break after underscores and similar marks."""
    from markupsafe import Markup

    return Markup("<wbr>").join(PARTS.findall(readable(text)))
