"""Figures: each function draws one on the matplotlib axes ``ax`` and returns them.

By default the axes belong to a new figure, ``ax.figure``, which has ``savefig`` and is displayed by notebooks; pyplot
and its global state are not used. matplotlib comes with ``pip install "discrete-itd[plot]"``.

A figure of a model and rows is also drawn from its numbers alone, given in place of the model: the table of
``mse_curve``, :func:`column_entropies` or :func:`information_matrix`, ``history_``, :class:`RowScores` or
:class:`PValues`. Where a figure is of a density, the density of a detector is drawn. A function raises a TypeError if
the model is anything else, and a NotFittedError if it is not fitted.

The colours come from Okabe and Ito (2008), which readers with any kind of colour vision can distinguish, and no
information is conveyed by colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import integrate
from sklearn.utils.validation import check_is_fitted

from discrete_itd.detection.answers import density_of
from discrete_itd.detection.cell_predictions import nats_given_others
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.score import scorer_of
from discrete_itd.encoders import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.graph import ColumnGraph, column_graph
from discrete_itd.models.information import pairs_work, pairwise_information
from discrete_itd.statistics import p_value_band, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from discrete_itd.detection.answers import Estimator

BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
INK, GREY, PALE = "#1f2933", "#6b7280", "#d5dae1"
SIZE = (4.8, 3.2)  # inches; small, so that the text is readable on the screen of a telephone
MOST_BARS = 24  # most bars of a bar chart; the last one is the sum of all other columns
# Replaced in texts: control characters but tab and line feed, surrogates, what XML forbids, marks that reverse text.
UNREADABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
# Fewest and most rows over which a plot averages, where each row and column takes an evaluation: about a second.
FEWEST_AVERAGED, MOST_AVERAGED = 64, 500
MOST_MEASURED = 100  # most columns of a wide table whose entropy given all others is measured
MOST_SHADED, MOST_NUMBERED = 40, 14  # most columns of a matrix that is drawn; with numbers in it
MOST_EDGES = 40  # most edges of a graph that is drawn


class RowScores(NamedTuple):
    """Scores (N,) of rows, high for anomalies, and their name; the threshold; scores of calibration rows."""

    values: np.ndarray
    name: str = "surprisal"
    threshold: float = np.inf
    reference: np.ndarray = np.zeros(0)


class PValues(NamedTuple):
    """P-values (N,) of inliers, and the number of calibration rows among which they are ranks."""

    values: np.ndarray
    n_calibration: int


def fitted(model: Any, *X: Any) -> tuple[DiffusionOutlierDetector | None, DiffusionDensity]:
    """A fitted model as (detector, or None if it is a density; density).

    TypeError if it is neither, or if one of the rows ``X`` is None; NotFittedError if it is not fitted.
    """
    if not isinstance(model, DiffusionDensity | DiffusionOutlierDetector):
        raise TypeError(
            "the model must be a fitted DiffusionDensity or DiffusionOutlierDetector, got"
            f" {type(model).__name__}"
        )
    check_is_fitted(model)
    if any(rows is None for rows in X):
        raise TypeError(f"a figure of a {type(model).__name__} needs rows, got X=None")
    return None if isinstance(model, DiffusionDensity) else model, density_of(model)


def plot_mse_curve(model: Estimator | pd.DataFrame, X: Any = None, ax: Axes | None = None) -> Axes:
    """Half the denoising error times the SNR against log SNR, of the model and of independent columns.

    In a table of categories the area is the mean surprisal, equation (3); with densities only the area between the two
    curves has a meaning. A mixture of rows with a causal network has no curve: that of its companion is drawn then, and
    labelled so. ``X`` (N, C) are at least two held-out rows, of which the first thousand are used.

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792, figure 1.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> ax = plot_mse_curve(model, frame)
    >>> ax.get_xlabel()
    'log SNR (less noise to the right)'
    """
    curve = model if isinstance(model, pd.DataFrame) else fitted(model, X)[1].mse_curve(X)
    ax = new_axes() if ax is None else ax
    name = "model" if curve.attrs["scores_rows"] else "companion"
    x = curve["logsnr"].to_numpy()
    learned, independent = (half_error(curve, column) for column in ("mse", "mse_independent"))
    areas = curve_areas(curve)
    inner, outer = (f": area {area:.2f} nats" if curve.attrs["is_mass"] else "" for area in areas)
    ax.plot(
        x, independent, color=GREY, linestyle="--", linewidth=1.4,
        label=f"independent columns{outer}",
    )  # fmt: skip
    ax.plot(x, learned, color=BLUE, linewidth=2, label=f"{name}{inner}")
    ax.fill_between(x, learned, color=BLUE, alpha=0.15, linewidth=0)
    between = f"between them: {areas[1] - areas[0]:.2f} nats"
    ax.fill_between(x, learned, independent, color=ORANGE, alpha=0.25, linewidth=0, label=between)
    ax.set(xlabel="log SNR (less noise to the right)", ylabel="½ · SNR · squared error, nats")
    ax.set_ylim(0, None)
    return _finish(ax)


def half_error(curve: pd.DataFrame, name: str) -> np.ndarray:
    """Half the SNR times the squared error in column ``name`` of an ``mse_curve``: nats per unit of log SNR."""
    return 0.5 * np.exp(curve["logsnr"].to_numpy()) * curve[name].to_numpy()


def curve_areas(curve: pd.DataFrame) -> tuple[float, float]:
    """Areas in nats under :func:`half_error` of the model and of independent columns, equation (3)."""
    x, names = curve["logsnr"].to_numpy(), ("mse", "mse_independent")
    model, independent = (float(integrate.trapezoid(half_error(curve, name), x)) for name in names)
    return model, independent


def plot_scores(model: Estimator | RowScores, X: Any = None, ax: Axes | None = None) -> Axes:
    """Histogram of minus ``score_samples`` of rows ``X`` (N, C) on a logarithmic scale, and the threshold of alarms.

    A density has no threshold. The calibration rows of a detector are an outline of the same area. A ValueError if
    there are no rows.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.1, random_state=0).fit(frame)
    >>> ax = plot_scores(detector, frame)
    >>> ax.get_xlabel()
    'anomaly score, nats'
    """
    if not isinstance(model, RowScores):
        detector, density = fitted(model, X)
        if detector is None:
            model = RowScores(-density.score_samples(X))
        else:
            # strata have no common threshold
            threshold = np.inf if detector.threshold_.stratum_offsets else -detector.offset_
            scores = -detector.score_samples(X)
            model = RowScores(scores, "anomaly score", threshold, -detector.calibration_scores_)
    surprisal, name, threshold, reference = model
    if not len(surprisal):
        raise ValueError("no rows to plot")
    ax = new_axes() if ax is None else ax
    shown = np.append(surprisal, reference)
    # the last bar counts all rows above the range, too
    low, high = shown.min(), max(np.quantile(v, 0.995) for v in (surprisal, shown))
    if np.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    edges = np.linspace(low, high if high > low else low + 1, 51)
    is_cut = bool((shown > edges[-1]).any())

    def bars(values: np.ndarray, **style: Any) -> None:
        ax.hist(np.minimum(values, edges[-1]), edges, linewidth=0.4, edgecolor="white", **style)

    bars(surprisal, color=SKY)
    if np.isfinite(threshold):
        above = surprisal[surprisal > threshold]
        share = (
            f"{len(above):,} of {len(surprisal):,} rows ({percent(len(above) / len(surprisal))})"
        )
        bars(above, color=VERMILLION, hatch="////", label=f"alarm: {share}")
        ax.axvline(threshold, color=INK, linewidth=1.2, label=f"threshold {threshold:.2f} nats")
    if len(reference):
        counts = np.histogram(np.minimum(reference, edges[-1]), edges)[0]
        heights = counts * len(surprisal) / len(reference)
        ax.stairs(heights, edges, color=GREY, linewidth=1.2, label="calibration rows, rescaled")
    ax.set_yscale("log")  # so that the few anomalies are visible beside the inliers
    ax.set_ylim(0.7, None)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_minor_formatter("")
    end = " (last bar: and above)" if is_cut else ""
    ax.set(xlabel=f"{name}, nats{end}", ylabel="rows")
    return _finish(ax)


def plot_p_values(model: Estimator | PValues, X: Any = None, ax: Axes | None = None) -> Axes:
    """Share of inliers with a p-value up to each level, and the band in which calibrated p-values stay.

    ``X`` (N, C) are inliers that were not used to fit the detector; the fewer its calibration rows, the wider the band.
    A TypeError for a density, which has no p-values.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.1, random_state=0).fit(frame)
    >>> ax = plot_p_values(detector, frame)
    >>> ax.get_xlabel()
    'p-value'
    """
    if not isinstance(model, PValues):
        detector = fitted(model, X)[0]
        if detector is None:
            raise TypeError("p-values need a DiffusionOutlierDetector; a density has none")
        model = PValues(detector.p_values(X), len(detector.calibration_scores_))
    ax = new_axes() if ax is None else ax
    p, n, level = np.sort(model.values), len(model.values), np.linspace(0, 1, 201)
    low, high = p_value_band(level, n, model.n_calibration)
    ax.fill_between(
        level, low, high, color=PALE, linewidth=0, label="95 % range of calibrated p-values"
    )
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="expected share")
    ax.step(np.r_[0, p, 1], np.r_[0, np.arange(1, n + 1) / n, 1], where="post", color=BLUE,
            linewidth=1.8, label=f"these {n:,} rows")  # fmt: skip
    ax.set(xlabel="p-value", ylabel="share of rows at or below", xlim=(0, 1), ylim=(0, 1))
    return _finish(ax)


def plot_columns(model: Estimator | pd.DataFrame, X: Any = None, ax: Axes | None = None) -> Axes:
    """The entropy of each column, split into what the other columns explain and what remains.

    A continuous column has no entropy: only the part that the others explain is drawn. ``X`` (N, C) are
    held-out rows, of which at most 500, spread over the table, are used.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> ax = plot_columns(model, frame)
    >>> ax.get_xlabel()
    'nats'
    """
    if isinstance(model, pd.DataFrame):
        columns = model
    else:
        density = fitted(model, X)[1]
        columns = column_entropies(density, density.rows(X))
    alone, given = columns[["nats", "nats_given_others"]].to_numpy(dtype=float).T
    is_entropy = columns["is_mass"].to_numpy(dtype=bool)
    names = [
        f"{name}{'' if has_entropy else ' (density)'}"
        for name, has_entropy in zip(columns["column"], is_entropy, strict=True)
    ]
    explained, remaining = alone - given, np.where(is_entropy, given, 0.0)
    bars = pd.DataFrame(
        {"explained by the other columns": explained, "remaining": remaining}, index=pd.Index(names)
    ).clip(lower=0)
    bars = bars.iloc[np.argsort(-bars.sum(axis=1), kind="stable")]
    if len(bars) > MOST_BARS:
        rest = bars[MOST_BARS - 1 :]
        bars = pd.concat(
            [bars[: MOST_BARS - 1], rest.sum().to_frame(f"{len(rest)} other columns").T]
        )
    ax = new_axes((SIZE[0], 0.9 + 0.23 * len(bars))) if ax is None else ax
    places, left = np.arange(len(bars)), np.zeros(len(bars))
    for colour, (label, nats) in zip((BLUE, PALE), bars.items(), strict=True):
        ax.barh(places, nats, left=left, color=colour, height=0.7, label=str(label))
        left = left + nats.to_numpy()
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.invert_yaxis()
    ax.set(xlabel="nats")
    ax.set_yticks(places, [shorten(name) for name in bars.index])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name or value does not begin a formula
    ax.tick_params(axis="y", length=0)
    return _finish(ax, grid="x")


def column_entropies(density: DiffusionDensity, rows: Rows) -> pd.DataFrame:
    """Each column's mean surprisal, marginally and given all other columns, over at most 500 rows.

    Columns: column, kind, is_mass (whether its values have probabilities), nats, nats_given_others, explained (the
    difference) and share (explained relative to nats; NaN for a density and where nats is not positive). A missing
    cell counts as 0 nats. In a table of more than ``MOST_MEASURED`` columns, only those that the model explains most,
    by their shares of the score, are measured: the conditional distribution of each cell costs a posterior of the row.
    """
    if not len(rows):
        raise ValueError("no rows to plot")
    encoder, marginals = density.encoder_, density.model_.marginals
    columns, scorer = np.arange(encoder.n_columns), scorer_of(density)
    cells = len(columns) * min(MOST_MEASURED, len(columns))
    rows = _spread(rows, min((1 << 26) // cells, (1 << 27) // scorer.model.conditional.row_work))
    with torch.no_grad():
        log_prob = marginals.log_factors(rows.unique).double().cpu().numpy()[rows.inverse]
    table = rows.table(rows.by_column(-log_prob - rows.log_volume)).fillna(0.0)
    if len(columns) > MOST_MEASURED:
        explained = (table - density.explain(rows).fillna(0.0)).to_numpy().mean(0)
        columns = np.sort(np.argsort(-explained, kind="stable")[:MOST_MEASURED])
    nats = nats_given_others(scorer, rows.unique, columns.tolist())
    given = (nats[rows.inverse] - rows.log_volume[:, columns]).mean(0)
    alone = table.to_numpy()[:, columns].mean(0)
    schema = [encoder.schema[j] for j in columns]
    is_mass = np.array([column.has_masses for column in schema])
    share = np.divide(
        alone - given, alone, out=np.full(len(alone), np.nan), where=is_mass & (alone > 0)
    )
    return pd.DataFrame(
        {
            "column": [column.name for column in schema],
            "kind": [column.kind for column in schema],
            "is_mass": is_mass,
            "nats": alone,
            "nats_given_others": given,
            "explained": alone - given,
            "share": share,
        }
    )


def plot_information_matrix(
    model: Estimator | pd.DataFrame, X: Any = None, ax: Axes | None = None
) -> Axes:
    """The mutual information of every two columns, in nats, as shades; numbers where there is room for them.

    ``X`` (N, C) are held-out rows, of which at most 500, spread over the table, are used, or the table of
    :func:`information_matrix`. Of more than 40 columns, those are drawn that share most information with another one.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> [text.get_text() for text in plot_information_matrix(model, frame).texts]
    ['0.69', '0.69']
    """
    if not isinstance(model, pd.DataFrame):
        density = fitted(model, X)[1]
        model = information_matrix(density, density.rows(X))
    strongest = np.nanmax(np.where(np.isnan(model), -np.inf, model), axis=1)
    kept = np.sort(np.argsort(-strongest, kind="stable")[:MOST_SHADED])
    nats, names = model.to_numpy()[np.ix_(kept, kept)], [model.columns[j] for j in kept]
    side = 1.6 + 0.27 * len(names)
    ax = new_axes((side + 0.6, side)) if ax is None else ax
    most = max(np.nanmax(nats, initial=0.0), 0.05)  # smaller values are noise: no dark shade
    places, shades = range(len(names)), {"cmap": "Blues", "vmin": 0.0, "vmax": most}
    image = ax.pcolormesh(places, places, np.clip(nats, 0.0, None), shading="nearest", **shades)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    if len(names) > MOST_NUMBERED:
        ax.figure.colorbar(image, ax=ax, shrink=0.8)
    else:
        for (j, k), value in np.ndenumerate(nats):
            if not np.isnan(value):
                ink = "white" if value > 0.6 * most else INK
                ax.text(k, j, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    labels = [shorten(name) for name in names]
    ax.set_xticks(places, labels, rotation=90)
    ax.set_yticks(places, labels)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_parse_math(False)
    ax.tick_params(colors=INK, labelsize=9.5, length=0)
    ax.set_xlabel("mutual information of two columns, nats", color=INK)
    return ax


def information_matrix(density: DiffusionDensity, rows: Rows) -> pd.DataFrame:
    """Mutual information of every two columns in nats, over at most 500 rows: (C, C), the diagonal NaN.

    Rows that lack one of a pair's cells are left out; NaN if there are no others. ``attrs["stderr"]`` has the standard
    errors of the means over rows, in the same shape. An entry is the nats by which one column improves the prediction
    of the other, the mean of both ways, under the exact model, the scorer or its companion, as in
    :meth:`DiffusionDensity.mutual_information`. Of a large model fewer rows are used, at least 64.
    """
    if len(rows) < 2:
        raise ValueError(f"X has {len(rows)} rows; a mean with a standard error needs two")
    rows = _spread(rows, (1 << 29) // matrix_work(density))
    value, stderr = (t.cpu().numpy() for t in pairwise_information(density.model_, rows.x))
    names = density.encoder_.names
    matrix = pd.DataFrame(value, index=names, columns=names)
    matrix.attrs["stderr"] = stderr
    return matrix


def plot_graph(model: Estimator | ColumnGraph, X: Any = None, ax: Axes | None = None) -> Axes:
    """Which columns depend on which: the graph of rows ``X`` under a model, or one of :func:`~discrete_itd.find_graph`.

    Lines are as thick as their nats, which are written where there is room. Each column stands below its parents; those
    without an edge are left out, and of more than 40 edges the weakest.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> [text.get_text() for text in plot_graph(model, frame).texts][:2]
    ['b', 'a']
    """
    if not isinstance(model, ColumnGraph):
        density = fitted(model, X)[1]
        model = column_graph(density.model_, density.rows(X), density.n_evaluations)
    graph = ColumnGraph(model.columns, model.edges.head(MOST_EDGES))
    layers = graph.layers()
    place = _placed(layers, graph.edges)
    widest = max(map(len, layers), default=1)
    size = (max(SIZE[0], 1.25 * widest), max(1.6, 0.5 + 0.85 * len(layers)))
    ax = new_axes(size) if ax is None else ax
    most = max(graph.edges["nats"].max(), 0.05) if len(graph.edges) else 1.0
    box: Any = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": GREY}
    if place:
        ax.scatter(*zip(*place.values(), strict=True), s=1, color=GREY)
    labels = {
        name: ax.text(
            *xy, shorten(name, 16), ha="center", va="center", color=INK, fontsize=8.5, bbox=box,
            parse_math=False,
        )
        for name, xy in place.items()
    }  # fmt: skip
    for parent, child, nats in graph.edges[["parent", "child", "nats"]].itertuples(index=False):
        start, end = place[parent], place[child]
        is_long = start[1] - end[1] > 1  # bent around the layers between
        how: Any = {
            "arrowstyle": "-|>", "color": BLUE, "linewidth": 0.6 + 3.4 * nats / most, "alpha": 0.7,
            "patchA": labels[parent].get_bbox_patch(), "patchB": labels[child].get_bbox_patch(),
            "connectionstyle": f"arc3,rad={0.25 if is_long else 0}", "mutation_scale": 9,
        }  # fmt: skip
        ax.annotate("", end, start, arrowprops=how, zorder=0)
        if len(graph.edges) <= MOST_NUMBERED:
            x, y = np.array([0.4, 0.6]) @ [start, end]
            ax.text(x, y, f"{nats:.2f}", ha="center", va="center", color=INK, fontsize=8)
    ax.set(xlim=(-0.6, widest - 0.4), ylim=(-len(layers) + 0.4, 0.6))
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("nats by which a parent improves the prediction of its child", color=INK)
    return ax


def _placed(
    layers: list[list[Hashable]], edges: pd.DataFrame
) -> dict[Hashable, tuple[float, float]]:
    """Positions of columns: layers from above, in each of them columns in the order of the middles of their parents."""
    widest = max(map(len, layers), default=1)
    parents = {child: [*of["parent"]] for child, of in edges.groupby("child", sort=False)}
    place = dict[Hashable, tuple[float, float]]()
    for y, layer in enumerate(layers):
        near = [[place[p][0] for p in parents.get(name, ())] or [widest / 2] for name in layer]
        order = np.argsort([np.mean(x) for x in near], kind="stable")
        for rank, i in enumerate(order):
            place[layer[i]] = (rank + 0.5) * widest / len(layer) - 0.5, -float(y)
    return place


def _spread(rows: Rows, most: int) -> Rows:
    """At most ``most`` rows, but at least 64 and at most 500, spread over the table."""
    most = max(FEWEST_AVERAGED, min(MOST_AVERAGED, most))
    return rows.take(slice(None, None, -(-len(rows) // most)))


def matrix_work(density: DiffusionDensity) -> int:
    """Approximate number of floats computed for a row in :func:`information_matrix`."""
    return density.encoder_.n_columns * pairs_work(density.model_.anywhere)


def readable(text: object) -> str:
    """The text without characters that XML forbids or that change the direction of text."""
    return UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def shorten(text: object, longest: int = 27) -> str:
    """The text on one line of at most ``longest`` characters."""
    line = " ".join(readable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def new_axes(size: tuple[float, float] = SIZE) -> Axes:
    """Axes of a new figure; an ImportError without matplotlib names the extra to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "discrete-itd[plot]"') from error
    return Figure(figsize=size, layout="constrained").subplots()


def _finish(ax: Axes, *, grid: Literal["x", "y"] = "y") -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9.5)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
    ax.grid(axis=grid, color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.get_legend_handles_labels()[1]:  # above the axes, where it covers nothing
        ax.legend(
            frameon=False, fontsize=9.5, labelcolor=INK, loc="lower left",
            bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, handlelength=1.6,
        )  # fmt: skip
    return ax
