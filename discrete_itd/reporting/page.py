"""A report on a model and a table, for people who decide: one HTML page that needs nothing but itself.

No script, no font, no picture is loaded: the pictures are inline SVG, and a content security policy forbids the
rest, should a cell of the table ever be taken for more than text.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting import figures, wording
from discrete_itd.reporting.findings import Findings, examine
from discrete_itd.reporting.markup import Markup, breakable, join, picture, table, tag
from discrete_itd.storage.files import write_whole

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
TITLE = "How surprising are these rows?"
LEVELS = (0.01, 0.05, 0.1)  # at which p-values are held against their promise
LONGEST = 300  # characters of a reason


def report(
    model: DiffusionDensity | DiffusionOutlierDetector,
    X: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    ordinary: Any = None,
    target_nats: float | None = None,
    target_false_alarms: float | None = None,
    title: str | None = None,
    n_strangest: int = 10,
    max_stderr: float | None = None,
) -> str | Path:
    """Write a report on a table: what a row costs, what is odd and why, and whether targets are met.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
        Fitted.
    X : DataFrame or array-like, shape (N, C)
        The rows to report on.
    out : path-like, optional
        A file for the page, written whole or not at all.
    ordinary, target_nats, target_false_alarms, n_strangest, max_stderr
        As of :func:`~discrete_itd.reporting.findings.examine`, which also gives the numbers without the page.
    title : str, optional
        The page's heading; a general one if it is empty.

    Returns
    -------
    str or Path
        The page; or, if ``out`` is given, its path.

    Raises
    ------
    ImportError
        If matplotlib is not installed, saying how to.
    OSError
        If ``out`` cannot be written.
    ValueError, TypeError, NotFittedError
        As of :func:`~discrete_itd.reporting.findings.examine`.
    """
    # what is not installed, and what cannot be written, is told before the long work
    figures.new_axes()
    if out is not None:
        _check_writable(out)
    found = examine(
        model,
        X,
        ordinary=ordinary,
        target_nats=target_nats,
        target_false_alarms=target_false_alarms,
        n_strangest=n_strangest,
        max_stderr=max_stderr,
    )
    page = render(found, title=title)
    if out is None:
        return page
    write_whole(out, lambda path: path.write_text(page, encoding="utf-8"))
    return Path(out)


def render(found: Findings, *, title: str | None = None, date: datetime.date | None = None) -> str:
    """The HTML page that says what was found.

    Parameters
    ----------
    found : Findings
    title : str, optional
    date : date, optional
        By default today.
    """
    title = title if title and title.strip() else TITLE
    date = datetime.date.today() if date is None else date
    sections = [
        ("learning", "Training", "Is it trained enough?", _learning(found)),
        ("scales", "Knowledge", "What the model knows", _scales(found)),
        ("scores", "Scores", "How surprising the rows are", _scores(found)),
        ("calibration", "p-values", "Can the p-values be trusted?", _calibration(found)),
        ("strangest", "Strangest rows", "The strangest rows, and why", _strangest(found)),
        ("columns", "Columns", "What columns tell of each other", _columns(found)),
        ("facts", "Facts", "Model, data and cost", _facts(found)),
        ("words", "Words", "What the words mean", _words(found)),
    ]
    links = [
        tag("li", tag("a", name, attributes={"href": f"#{key}"})) for key, name, *_ in sections
    ]
    day = tag("time", f"{date.day} {date:%B %Y}", attributes={"datetime": date.isoformat()})
    top = tag("p", f"{wording.count(found.n_rows, 'row')}, ", day, attributes={"class": "soft"})
    body = tag(
        "main",
        tag("header", tag("h1", title), top),
        _decision(found),
        tag("nav", tag("ul", *links), attributes={"aria-label": "Sections"}),
        *(_section(key, name, content) for key, _, name, content in sections),
    )
    page = tag("html", _head(title), tag("body", body), attributes={"lang": "en"})
    return f"<!doctype html>\n{page}\n"


def _head(title: str) -> Markup:
    style = files("discrete_itd.reporting").joinpath("page.css").read_text("utf-8")
    screen = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    return tag(
        "head",
        tag("meta", attributes={"charset": "utf-8"}),
        tag("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        tag("meta", attributes=screen),
        tag("link", attributes={"rel": "icon", "href": "data:,"}),  # or browsers ask a server
        tag("title", title),
        tag("style", Markup(style)),
    )


class _StopWriting(Exception):  # noqa: N818
    """There is a place for a file, and nothing to write yet."""


def _check_writable(out: str | os.PathLike[str]) -> None:
    """Raise the OSError that ``write_whole`` would; nothing is written."""

    def stop(_: Path) -> None:
        raise _StopWriting

    with contextlib.suppress(_StopWriting):
        write_whole(out, stop)


# -- sections -------------------------------------------------------------------------------------


def _decision(found: Findings) -> Markup:
    word = wording.VERDICTS[found.passed] if found.verdicts else "In short"
    lines = []
    for verdict in found.verdicts:
        own = wording.VERDICTS[verdict.passed]
        mark = tag("span", own, attributes={"class": f"word {own.lower()}"})
        lines.append(tag("li", mark, f": {wording.judgement(verdict, found)}."))
    nats = found.history["valid_nats"]
    tiles = [
        (f"{wording.capital(wording.a_row(found))} costs", *_cost(found)),
        (
            "Saved by seeing columns together",
            wording.nats(nats.iloc[0] - nats.min()),
            "per held-out row of training",
        ),
    ]
    if found.n_alarms is not None:
        share = wording.percent(found.n_alarms / found.n_rows)
        tiles.append(("Alarms", f"{found.n_alarms:,}", f"of {found.n_rows:,}, {share}"))
    if found.n_cells:
        top, median = wording.nats(found.surprisal.max()), f"{np.median(found.surprisal):.2f}"
        if found.is_plain:
            tiles.append(("The strangest row costs", top, f"the median row {median}"))
        else:
            other = f"the median row {median}, on the scale of the detector's score, not of the cost of a row"
            tiles.append(("The strangest row scores", top, other))
    cards = [
        tag("div", tag("dt", name), tag("dd", tag("b", value), " ", tag("span", note)))
        for name, value, note in tiles
    ]
    none = tag("p", "No target was set, so there is nothing to pass or fail.")
    attributes = {
        "id": "decision",
        "class": word.lower() if found.verdicts else "none",
        "aria-labelledby": "decision-title",
    }
    return tag(
        "section",
        tag("h2", word, attributes={"id": "decision-title"}),
        tag("ul", *lines) if lines else none,
        tag("dl", *cards, attributes={"class": "figures"}),
        attributes=attributes,
    )


def _cost(found: Findings) -> tuple[str, str]:
    """What a row costs, and what that amounts to."""
    if not found.n_ordinary_cells:
        return "Nothing", "all cells are missing, so there is nothing to cost"
    return wording.nats(found.nats.value), wording.odds(found)


def _learning(found: Findings) -> Markup:
    text = [wording.training(found), wording.prospect(found)]
    if not found.is_mass:
        text.append(
            "These nats are of standardised values; in the units of the columns all of them are higher or lower by"
            " the same number."
        )
    if max(found.history["step"]) == 0:
        return _paragraphs(text)
    ax = figures.new_axes()
    figures.draw_learning_curve(found.history, ax, ahead=found.ahead)
    label = "Held-out nats per row against the steps of training."
    return _pair(text, picture(ax, "learning", label))


def _scales(found: Findings) -> Markup:
    if found.curve is None:
        return _paragraphs(["This picture needs at least two rows."])
    if not found.n_ordinary_cells:
        return _paragraphs([wording.NOTHING])
    inner, outer = figures.area(found.curve)
    text = [
        "The model guesses rows seen through noise. On the left the noise hides everything, on the right the row is"
        " plain; the errors of the guesses in between, added up, are what a row costs.",
        f"The area between the curves, {wording.nats(outer - inner)}, is what the columns tell of each other and the"
        " model has learned.",
    ]
    if found.is_mass:
        text.append(
            f"The area under the lower curve, {wording.nats(inner)}, is the mean surprisal of a row, measured in"
            f" another way than the {wording.nats(found.nats.value)} above."
        )
    ax = figures.new_axes()
    figures.draw_mse_curve(found.curve, ax, is_mass=found.is_mass)
    label = "Error of the model's guess at each signal-to-noise ratio, and that of columns by themselves."
    return _pair(text, picture(ax, "scales", label))


def _scores(found: Findings) -> Markup:
    text = [*wording.scores(found), wording.alarms(found)]
    ax = figures.new_axes()
    figures.draw_scores(
        found.surprisal,
        ax,
        threshold=None if found.threshold is None else -found.threshold.offset,
        reference=found.reference,
        name=wording.score_name(found),
    )
    label = f"Histogram of the {wording.score_name(found)} of the rows."
    return _pair(text, picture(ax, "scores", label))


def _calibration(found: Findings) -> Markup:
    if found.p_values is None or found.reference is None:
        return _paragraphs(
            [wording.NO_THRESHOLD if found.threshold is None else wording.NO_CALIBRATION]
        )
    n, m = found.n_ordinary, len(found.reference)
    rows = []
    for level in LEVELS:
        share = float((found.p_values <= level).mean())
        low, high = (float(v[0]) for v in figures.promised_band(np.array([level]), n, m))
        between = f"{wording.percent(low)} to {wording.percent(high)}"
        rows.append((wording.percent(level), wording.percent(share), between))
    text = (
        wording.promise(found),
        table(
            "Rows with a p-value up to a level",
            ["level", "these rows", "95 % of tables"],
            rows,
            numbers=(1, 2),
        ),
    )
    ax = figures.new_axes()
    figures.draw_p_values(found.p_values, ax, n_calibration=m)
    return _pair(text, picture(ax, "p-values", "Share of rows with p-values up to each level."))


def _strangest(found: Findings) -> Markup:
    lines = found.strangest
    if not len(lines):
        return _paragraphs(["No rows were asked for."])
    has_p = bool(lines["p_value"].notna().any())
    head = [
        "row",
        "nats" if found.is_plain else "score",
        *(["p\N{NON-BREAKING HYPHEN}value"] if has_p else []),
        "why",
    ]
    rows = []
    for line in lines.to_dict("records"):
        reasons = (breakable(figures.shorten(reason, LONGEST)) for reason in line["why"])
        why = tag("ul", *(tag("li", reason) for reason in reasons))
        p = [wording.p_value(line["p_value"])] if has_p else []
        rows.append((breakable(figures.shorten(line["row"])), f"{line['nats']:.1f}", *p, why))
    return table(wording.strangest(found), head, rows, numbers=range(1, len(head) - 1))


def _columns(found: Findings) -> Markup:
    columns = found.columns.sort_values("nats", ascending=False, kind="stable")
    rows = []
    for column in columns.to_dict("records"):
        alone, given = column["nats"], column["nats_given_others"]
        told = alone - given
        share = f" ({told / alone:.0%})" if column["kind"] in figures.MASSES and alone > 0 else ""
        words = [breakable(figures.shorten(column["column"])), " ", tag("small", column["kind"])]
        rows.append((join(words), f"{alone:.2f}", f"{given:.2f}", f"{told:.2f}{share}"))
    text = (
        "A column that the others tell can be checked against them, and a gap in it can be filled."
    )
    if not found.is_mass:
        text += (
            " A continuous or binned column has a density: its nats may be below 0, and only what the others tell of it"
            " counts."
        )
    ax = figures.new_axes(figures.bars_size(len(columns)))
    figures.draw_columns(columns, ax)
    label = "Nats of each column: what the other columns tell of it, and what is its own."
    drawn = tag("figure", picture(ax, "columns", label))
    caption = f"Nats per {'ordinary row' if found.is_given else 'row of this table'}"
    head = ["column", "by itself", "given the others", "told by them"]
    numbers = table(caption, head, rows, numbers=(1, 2, 3))
    return join([tag("p", text), tag("div", drawn, numbers, attributes={"class": "pair"})])


def _facts(found: Findings) -> Markup:
    lines = [part for name, value in found.facts for part in (tag("dt", name), tag("dd", value))]
    return tag("dl", *lines, attributes={"class": "facts"})


def _words(found: Findings) -> Markup:
    words = wording.glossary(found)
    lines = [tag("div", tag("dt", word), tag("dd", meaning)) for word, meaning in words]
    return tag("dl", *lines, attributes={"class": "words"})


# -- parts ----------------------------------------------------------------------------------------


def _section(key: str, name: str, content: Markup) -> Markup:
    head = tag("h2", name, attributes={"id": f"{key}-title"})
    return tag("section", head, content, attributes={"id": key, "aria-labelledby": f"{key}-title"})


def _pair(text: Sequence[str], drawn: Markup) -> Markup:
    """Words beside a picture; below each other where there is no room."""
    words = tag("div", _paragraphs(text))
    return tag("div", words, tag("figure", drawn), attributes={"class": "pair"})


def _paragraphs(text: Sequence[str]) -> Markup:
    return join([t if isinstance(t, Markup) else tag("p", t) for t in text])
