"""Figures: each function draws numbers on matplotlib axes.

The colours are those of Okabe and Ito (2008), which readers with any kind of colour vision can distinguish, and no
information is conveyed by colour alone. pyplot and its global state are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from discrete_itd.reporting.learning_curve import TRANSIENT, Extrapolation
from discrete_itd.reporting.measurements import MASSES
from discrete_itd.reporting.statistics import curve_areas, half_error, p_value_band
from discrete_itd.reporting.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
INK, GREY, PALE = "#1f2933", "#6b7280", "#d5dae1"
SIZE = (4.8, 3.2)  # inches; small, so that the text is readable on the screen of a telephone
TAIL = 0.995  # share of the rows within a histogram's range; the others are in its last bar
MOST_BARS = 24  # of a bar chart; the last one is the sum of all other columns


def new_axes(size: tuple[float, float] = SIZE) -> Axes:
    """Axes of a new figure, ``axes.figure``, that is not registered in pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed, naming the extra to install.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "discrete-itd[plot]"') from error
    return Figure(figsize=size, layout="constrained").subplots()


def draw_mse_curve(
    curve: pd.DataFrame, ax: Axes, *, is_mass: bool = True, name: str = "model"
) -> None:
    """Half the denoising error times the SNR against log SNR, of the model and of independent columns.

    Parameters
    ----------
    curve : DataFrame
        From :meth:`~discrete_itd.DiffusionDensity.mse_curve`.
    ax : Axes
    is_mass : bool
        Whether all columns have probabilities, so that the areas are entropies.
    name : str
        What the curve is of.
    """
    x = curve["logsnr"].to_numpy()
    learned, independent = (half_error(curve, name) for name in ("mse", "mse_independent"))
    inner, outer = curve_areas(curve)
    words = ["independent columns", name]
    if is_mass:
        words = [f"{words[0]}: area {outer:.2f} nats", f"{name}: area {inner:.2f} nats"]
    ax.plot(x, independent, color=GREY, linestyle="--", linewidth=1.4, label=words[0])
    ax.plot(x, learned, color=BLUE, linewidth=2, label=words[1])
    ax.fill_between(x, learned, color=BLUE, alpha=0.15, linewidth=0)
    between = f"between them: {outer - inner:.2f} nats"
    ax.fill_between(x, learned, independent, color=ORANGE, alpha=0.25, linewidth=0, label=between)
    ax.set(xlabel="log SNR (less noise to the right)", ylabel="½ · SNR · squared error, nats")
    ax.set_ylim(0, None)
    _finish(ax, legend=True)


def draw_mse_comparison(curve: pd.DataFrame, ax: Axes) -> None:
    """Half the denoising error times the SNR of several models, and the nats between each and the first.

    Parameters
    ----------
    curve : DataFrame
        From :func:`discrete_itd.images.comparison.compare_mse`.
    ax : Axes
    """
    names = [c.removeprefix("lost_") for c in curve.columns if c.startswith("lost_")]
    x = curve["logsnr"].to_numpy()
    first = half_error(curve, names[0])
    colours = (BLUE, VERMILLION, ORANGE, SKY, INK, GREY)
    for i, name in enumerate(names):
        own, colour = half_error(curve, name), colours[i % len(colours)]
        lost = curve[f"lost_{name}"].sum()
        label = shorten(name) if not i else f"{shorten(name)}: {lost:+.2f} nats"
        ax.plot(x, own, color=colour, linewidth=2 if not i else 1.4, label=label)
        if i:
            ax.fill_between(x, first, own, color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="log SNR (less noise to the right)", ylabel="½ · SNR · squared error, nats")
    ax.set_ylim(0, None)
    _finish(ax, legend=True)


def draw_information(nats: np.ndarray, ax: Axes, *, image: np.ndarray | None = None) -> None:
    """Nats of each pixel as a heat map over the image.

    Parameters
    ----------
    nats : ndarray, shape (H, W)
    ax : Axes
    image : ndarray, shape (H, W), optional
    """
    opaque: float | np.ndarray = 1.0
    if image is not None:  # it shows through where there are few nats
        ax.imshow(image, cmap="gray_r", interpolation="nearest")
        opaque = 0.9 * np.clip(nats / max(float(nats.max()), 1e-12), 0.0, 1.0) ** 0.5
    shown = ax.imshow(nats, cmap="Oranges", alpha=opaque, vmin=0)
    ax.set(xticks=[], yticks=[], title=f"{nats.sum():.2f} nats")
    ax.figure.colorbar(shown, ax=ax, label="nats", fraction=0.05)


def draw_learning_curve(
    history: pd.DataFrame, ax: Axes, *, extrapolation: Extrapolation | None = None
) -> None:
    """Held-out nats against the number of training steps, and the power law that extrapolates them.

    Parameters
    ----------
    history : DataFrame
        ``history_`` of a fitted :class:`~discrete_itd.DiffusionDensity`.
    ax : Axes
    extrapolation : Extrapolation, optional
    """
    trained = history.loc[history["step"] > 0, ["step", "valid_nats", "valid_stderr"]]
    step, nats, stderr = trained.to_numpy(dtype=float).T
    stderr = np.nan_to_num(stderr)  # a single held-out row has none
    ax.errorbar(
        step, nats, stderr, fmt="o", color=BLUE, ecolor=SKY, markersize=3, elinewidth=0.7,
        label="held-out rows, ± standard error",
    )  # fmt: skip
    settled = step >= TRANSIENT * step.max(initial=0.0)
    if settled.any():  # the large decrease in the first steps would flatten the rest
        low, high = (nats - stderr)[settled].min(), (nats + stderr)[settled].max()
        if extrapolation is not None:
            low = min(
                low,
                float(
                    extrapolation.curve(np.array([extrapolation.factor * extrapolation.steps]))[0]
                ),
            )
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if extrapolation is not None:
        end = extrapolation.factor * extrapolation.steps
        steps = np.geomspace(max(1.0, TRANSIENT * extrapolation.steps), end, 100)
        later = steps >= extrapolation.steps
        ax.fill_between(
            steps[later], *extrapolation.band(steps[later]), color=ORANGE, alpha=0.3, linewidth=0
        )
        ax.plot(
            steps, extrapolation.curve(steps), color=VERMILLION, linestyle="--", linewidth=1.4,
            label="power law, extrapolated with 95 % interval",
        )  # fmt: skip
        ax.axvline(extrapolation.steps, color=GREY, linewidth=0.8, linestyle=":")
        ax.set_xlim(0, end * 1.02)
    ax.set(xlabel="training steps", ylabel="nats per row")
    _finish(ax, legend=True)


def draw_scores(
    surprisal: np.ndarray,
    ax: Axes,
    *,
    threshold: float | None = None,
    reference: np.ndarray | None = None,
    name: str = "surprisal",
) -> None:
    """Histogram of the rows' surprisal or score on a logarithmic scale, with the threshold of alarms.

    Parameters
    ----------
    surprisal : ndarray, shape (N,)
        Nats.
    ax : Axes
    threshold : float, optional
        Nats; rows above it raise an alarm. An infinite one is not drawn.
    reference : ndarray, shape (M,), optional
        Nats of the detector's calibration rows, drawn as an outline of the same area.
    name : str
        Of the quantity.
    """
    surprisal = np.asarray(surprisal, dtype=float)
    shown = surprisal if reference is None else np.append(surprisal, reference)
    low, high = shown.min(), max(np.quantile(v, TAIL) for v in (surprisal, shown))
    if threshold is not None and not np.isfinite(threshold):
        threshold = None
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    edges = np.linspace(low, high if high > low else low + 1, 51)
    is_cut = bool((shown > edges[-1]).any())
    counts = np.histogram(np.minimum(surprisal, edges[-1]), edges)[0]
    width, left = np.diff(edges), edges[:-1]
    ax.bar(left, counts, width, align="edge", color=SKY, edgecolor="white", linewidth=0.4)
    if threshold is not None:
        above = np.histogram(np.minimum(surprisal[surprisal > threshold], edges[-1]), edges)[0]
        n = int((surprisal > threshold).sum())
        words = f"alarm: {n:,} of {len(surprisal):,} rows ({n / len(surprisal):.1%})"
        ax.bar(
            left, above, width, align="edge", color=VERMILLION, edgecolor="white", linewidth=0.4,
            hatch="////", label=words,
        )  # fmt: skip
        ax.axvline(threshold, color=INK, linewidth=1.2, label=f"threshold {threshold:.2f} nats")
    if reference is not None:
        scaled = np.histogram(np.minimum(reference, edges[-1]), edges)[0]
        heights = scaled * len(surprisal) / len(reference)
        ax.stairs(heights, edges, color=GREY, linewidth=1.2, label="calibration rows, rescaled")
    ax.set_yscale("log")  # so that the few anomalies are visible beside the inliers
    ax.set_ylim(0.7, None)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_minor_formatter("")
    end = " (last bar: and above)" if is_cut else ""
    ax.set(xlabel=f"{name}, nats{end}", ylabel="rows")
    _finish(ax, legend=threshold is not None or reference is not None)


def draw_explanation(
    nats: pd.Series,
    ax: Axes,
    *,
    usual: pd.Series | None = None,
    values: Sequence[str] | None = None,
) -> None:
    """The surprisal of each cell of a row as bars, the highest on top.

    Parameters
    ----------
    nats : Series, length C
        By column; NaN where there is no bar.
    ax : Axes
    usual : Series, length C, optional
        Usual nats of the columns, drawn as marks on the bars.
    values : sequence of str, length C, optional
        Values of the row as text, for the labels.
    """
    heights = np.nan_to_num(nats.to_numpy(dtype=float))
    kept, rest = _longest(heights)
    labels = [str(nats.index[i]) for i in kept]
    if values is not None:
        labels = [f"{name} = {values[i]}" for i, name in zip(kept, labels, strict=True)]
    total, marks = heights[rest].sum(), None
    heights = heights[kept]
    if usual is not None:
        typical = np.nan_to_num(usual.to_numpy(dtype=float))
        marks = typical[kept]
    if len(rest):
        labels.append(f"{len(rest)} other columns")
        heights = np.append(heights, total)
        marks = None if marks is None else np.append(marks, typical[rest].sum())
    y = np.arange(len(heights))
    ax.barh(y, heights, color=BLUE, height=0.7)
    if marks is not None:
        ax.plot(
            marks, y, linestyle="none", marker="|", markersize=11, markeredgewidth=2,
            color=VERMILLION, label="usual for the column",
        )  # fmt: skip
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.invert_yaxis()
    ax.set(xlabel="nats")
    _name_bars(ax, y, labels)
    _finish(ax, legend=marks is not None, grid="x")


def draw_p_values(p_values: np.ndarray, ax: Axes, *, n_calibration: int | None = None) -> None:
    """Share of rows with a p-value up to each level, against its expected range.

    Parameters
    ----------
    p_values : ndarray, shape (N,)
        Of inliers that were used neither for training nor for calibration.
    ax : Axes
    n_calibration : int, optional
        Number of calibration rows; the fewer, the wider the band.
    """
    p = np.sort(np.asarray(p_values, dtype=float))
    n = len(p)
    level = np.linspace(0, 1, 201)
    low, high = p_value_band(level, n, n_calibration)
    ax.fill_between(
        level, low, high, color=PALE, linewidth=0, label="95 % range of calibrated p-values"
    )
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="expected share")
    ax.step(np.r_[0, p, 1], np.r_[0, np.arange(1, n + 1) / n, 1], where="post", color=BLUE,
            linewidth=1.8, label=f"these {n:,} rows")  # fmt: skip
    ax.set(xlabel="p-value", ylabel="share of rows at or below", xlim=(0, 1), ylim=(0, 1))
    _finish(ax, legend=True)


def draw_columns(columns: pd.DataFrame, ax: Axes) -> None:
    """Each column's entropy as a bar, split into what the other columns explain and what remains.

    Parameters
    ----------
    columns : DataFrame
        With columns column, kind, nats (marginal) and nats_given_others. A continuous or binned column has no entropy,
        only the part that the others explain is drawn.
    ax : Axes
    """
    alone, given = columns[["nats", "nats_given_others"]].to_numpy(dtype=float).T
    is_mass = columns["kind"].isin(MASSES).to_numpy()
    parts = np.stack([alone - given, np.where(is_mass, given, 0.0)]).clip(min=0)  # (2, C)
    kept, rest = _longest(parts.sum(0))
    labels = [f"{columns['column'].iloc[i]}{'' if is_mass[i] else ' (density)'}" for i in kept]
    if len(rest):
        labels.append(f"{len(rest)} other columns")
    explained, own = np.column_stack(
        [parts[:, kept], *([parts[:, rest].sum(1)] if len(rest) else [])]
    )
    y = np.arange(len(labels))
    ax.barh(y, explained, color=BLUE, height=0.7, label="explained by the other columns")
    ax.barh(y, own, left=explained, color=PALE, height=0.7, label="remaining")
    ax.invert_yaxis()
    ax.set(xlabel="nats")
    _name_bars(ax, y, labels)
    _finish(ax, legend=True, grid="x")


def draw_watch(
    row: np.ndarray,
    logs: np.ndarray,
    ax: Axes,
    *,
    threshold: float,
    columns: pd.DataFrame,
    column_threshold: float,
) -> None:
    """Logarithms of the martingale of whole rows, and of some columns, against the number of rows, with alarm lines.

    Parameters
    ----------
    row, logs : ndarray, shape (N,)
        Numbers of the rows, and logarithms to base 10.
    ax : Axes
    threshold, column_threshold : float
        Logarithms at which the martingale of whole rows, and that of a column, raises an alarm.
    columns : DataFrame, shape (N, at most 4)
        Logarithms of the martingales of columns.
    """
    styles = zip((VERMILLION, ORANGE, SKY, INK), ("--", "-.", ":", (0, (5, 1))), strict=True)
    for (name, values), (colour, style) in zip(columns.items(), styles, strict=False):
        # a name that begins with an underscore, or has a dollar sign, is shown all the same
        label = f"column {shorten(name)}".replace("$", r"\$")
        ax.plot(row, values, color=colour, linestyle=style, linewidth=1.4, label=label)
    ax.plot(row, logs, color=BLUE, linewidth=2, label="whole rows")
    for level, what, style in ((threshold, "rows", "-"), (column_threshold, "columns", "--")):
        ax.axhline(level, color=GREY, linestyle=style, linewidth=1, label=f"alarm for {what}")
    ax.set(xlabel="rows watched", ylabel="log10 of the martingale")
    _finish(ax, legend=True)


def bars_size(n_bars: int) -> tuple[float, float]:
    """Size in inches of a bar chart."""
    return SIZE[0], 0.9 + 0.23 * min(n_bars, MOST_BARS)


def _longest(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the bars to draw, longest first, and of those to sum in one bar."""
    order = np.argsort(-length, kind="stable")
    n = len(order) if len(order) <= MOST_BARS else MOST_BARS - 1
    return order[:n], order[n:]


def _name_bars(ax: Axes, y: np.ndarray, labels: Sequence[str]) -> None:
    ax.set_yticks(y, [shorten(text) for text in labels])
    for label in ax.get_yticklabels():
        # a dollar sign in a name or value does not begin a formula
        label.set_parse_math(False)
    ax.tick_params(axis="y", length=0)


def _finish(ax: Axes, *, legend: bool, grid: Literal["x", "y"] = "y") -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9.5)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
    ax.grid(axis=grid, color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    if legend:  # above the axes, where it covers nothing
        ax.legend(
            frameon=False, fontsize=9.5, labelcolor=INK, loc="lower left",
            bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, handlelength=1.6,
        )  # fmt: skip
