"""Pictures of numbers: each function draws one onto matplotlib axes.

The colours are those of Okabe and Ito (2008), which readers with any kind of colour vision tell apart; nothing is told
by colour alone. pyplot, and with it its global state, is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from discrete_itd.encoders import TableEncoder
from discrete_itd.reporting.extrapolation import TRANSIENT, Extrapolation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
INK, GREY, PALE = "#1f2933", "#6b7280", "#d5dae1"
SIZE = (
    4.8,
    3.2,
)  # inches; small, so that the words are readable where the picture is as wide as a telephone
LONGEST = 27  # characters of a label
# controls but for tab and line feed, surrogates, what XML forbids, and marks that reverse the text after them
UNREADABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
TAIL = 0.995  # of a histogram's rows are shown where they are, the rest at its end
MASSES = ("nominal", "ordinal")  # kinds with an entropy; bins and continuous columns have densities
MOST_BARS = 24  # columns of a bar chart; the others are added up in one bar


def new_axes(size: tuple[float, float] = SIZE) -> Axes:
    """Axes of a figure of their own, ``axes.figure``, of which pyplot knows nothing.

    Raises
    ------
    ImportError
        If matplotlib is not installed, saying how to.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "discrete-itd[plot]"') from error
    return Figure(figsize=size, layout="constrained").subplots()


def is_mass(encoder: TableEncoder) -> bool:
    """Whether all columns of a table have probabilities, and none a density."""
    return all(column.kind in MASSES for column in encoder.schema)


def area(curve: pd.DataFrame) -> tuple[float, float]:
    """Areas, in nats, under half the error times the SNR: of the model, and of independent columns.

    Parameters
    ----------
    curve : DataFrame
        As :meth:`~discrete_itd.DiffusionDensity.mse_curve` returns it.
    """
    x = curve["logsnr"].to_numpy()
    learned, independent = (_half(curve, name) for name in ("mse", "mse_independent"))
    return float(np.trapezoid(learned, x)), float(np.trapezoid(independent, x))


def draw_mse_curve(curve: pd.DataFrame, ax: Axes, *, is_mass: bool = True) -> None:
    """Half the denoising error times the SNR against log SNR, of the model and of independent columns.

    Parameters
    ----------
    curve : DataFrame
        As :meth:`~discrete_itd.DiffusionDensity.mse_curve` returns it.
    ax : Axes
    is_mass : bool
        Whether the table has no continuous columns, so that the areas are entropies.
    """
    x = curve["logsnr"].to_numpy()
    learned, independent = (_half(curve, name) for name in ("mse", "mse_independent"))
    inner, outer = area(curve)
    words = ["columns by themselves", "model"]
    if is_mass:
        words = [f"{words[0]}: area {outer:.2f} nats", f"{words[1]}: area {inner:.2f} nats"]
    ax.plot(x, independent, color=GREY, linestyle="--", linewidth=1.4, label=words[0])
    ax.plot(x, learned, color=BLUE, linewidth=2, label=words[1])
    ax.fill_between(x, learned, color=BLUE, alpha=0.15, linewidth=0)
    between = f"between them: {outer - inner:.2f} nats"
    ax.fill_between(x, learned, independent, color=ORANGE, alpha=0.25, linewidth=0, label=between)
    ax.set(xlabel="log SNR (noise falls to the right)", ylabel="½ · SNR · squared error, nats")
    ax.set_ylim(0, None)
    _finish(ax, legend=True)


def draw_mse_comparison(curve: pd.DataFrame, ax: Axes) -> None:
    """Half the denoising error times the SNR of several models, and the nats between each and the first.

    Parameters
    ----------
    curve : DataFrame
        As :func:`discrete_itd.images.comparison.compare_mse` returns it.
    ax : Axes
    """
    names = [c.removeprefix("lost_") for c in curve.columns if c.startswith("lost_")]
    x = curve["logsnr"].to_numpy()
    first = _half(curve, names[0])
    colours = (BLUE, VERMILLION, ORANGE, SKY, INK, GREY)
    for i, name in enumerate(names):
        own, colour = _half(curve, name), colours[i % len(colours)]
        lost = curve[f"lost_{name}"].sum()
        label = shorten(name) if not i else f"{shorten(name)}: {lost:+.2f} nats"
        ax.plot(x, own, color=colour, linewidth=2 if not i else 1.4, label=label)
        if i:
            ax.fill_between(x, first, own, color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="log SNR (noise falls to the right)", ylabel="½ · SNR · squared error, nats")
    ax.set_ylim(0, None)
    _finish(ax, legend=True)


def draw_information(nats: np.ndarray, ax: Axes, *, picture: np.ndarray | None = None) -> None:
    """Nats by pixel as a heat map, over the picture itself.

    Parameters
    ----------
    nats : ndarray, shape (H, W)
    ax : Axes
    picture : ndarray, shape (H, W), optional
    """
    opaque: float | np.ndarray = 1.0
    if picture is not None:  # which is seen where there is little to tell
        ax.imshow(picture, cmap="gray_r", interpolation="nearest")
        opaque = 0.9 * np.clip(nats / max(float(nats.max()), 1e-12), 0.0, 1.0) ** 0.5
    shown = ax.imshow(nats, cmap="Oranges", alpha=opaque, vmin=0)
    ax.set(xticks=[], yticks=[], title=f"{nats.sum():.2f} nats")
    figure = ax.figure
    figure.colorbar(shown, ax=ax, label="nats", fraction=0.05)


def draw_learning_curve(
    history: pd.DataFrame, ax: Axes, *, ahead: Extrapolation | None = None
) -> None:
    """Held-out nats against the steps of training, and what a power law makes of longer training.

    Parameters
    ----------
    history : DataFrame
        ``history_`` of a fitted :class:`~discrete_itd.DiffusionDensity`.
    ax : Axes
    ahead : Extrapolation, optional
        The law to go on with.
    """
    trained = history.loc[history["step"] > 0]
    step, nats, stderr = trained[["step", "valid_nats", "valid_stderr"]].to_numpy(dtype=float).T
    ax.errorbar(
        step, nats, stderr, fmt="o", color=BLUE, ecolor=SKY, markersize=3, elinewidth=0.7,
        label="held-out rows, ± standard error",
    )  # fmt: skip
    settled = step >= TRANSIENT * step.max(initial=0.0)
    if settled.any():  # the fall of the first steps would flatten all that comes after
        low, high = (nats - stderr)[settled].min(), (nats + stderr)[settled].max()
        if ahead is not None:
            low = min(low, float(ahead.curve(np.array([ahead.factor * ahead.steps]))[0]))
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if ahead is not None:
        end = ahead.factor * ahead.steps
        steps = np.geomspace(max(1.0, TRANSIENT * ahead.steps), end, 100)
        later = steps >= ahead.steps
        ax.fill_between(
            steps[later], *ahead.band(steps[later]), color=ORANGE, alpha=0.3, linewidth=0
        )
        ax.plot(
            steps, ahead.curve(steps), color=VERMILLION, linestyle="--", linewidth=1.4,
            label="power law, with its 95 % interval ahead",
        )  # fmt: skip
        ax.axvline(ahead.steps, color=GREY, linewidth=0.8, linestyle=":")
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
    """Histogram of the rows' surprisal or score, on a logarithmic scale, with the threshold of alarms.

    Parameters
    ----------
    surprisal : ndarray, shape (N,)
        Nats.
    ax : Axes
    threshold : float, optional
        Nats; rows above are alarms. At infinity no row is one, and no threshold is drawn.
    reference : ndarray, shape (M,), optional
        Nats of the rows on which a detector is calibrated, drawn as an outline of the same area.
    name : str
        Of what is drawn.
    """
    surprisal = np.asarray(surprisal, dtype=float)
    shown = surprisal if reference is None else np.append(surprisal, reference)
    low, high = shown.min(), max(np.quantile(v, TAIL) for v in (surprisal, shown))
    if threshold is not None and not np.isfinite(threshold):  # no row is ever an alarm
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
        ax.stairs(
            heights, edges, color=GREY, linewidth=1.2, label="calibration rows, to the same scale"
        )
    ax.set_yscale("log")  # or the few that matter could not be seen beside the many
    ax.set_ylim(0.7, None)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_minor_formatter("")
    end = " (last bar: and beyond)" if is_cut else ""
    ax.set(xlabel=f"{name}, nats{end}", ylabel="rows")
    _finish(ax, legend=threshold is not None or reference is not None)


def draw_explanation(
    nats: pd.Series, ax: Axes, *, usual: pd.Series | None = None, values: pd.Series | None = None
) -> None:
    """A row's nats by column as bars, the largest on top.

    Parameters
    ----------
    nats : Series, length C
        By column; a missing one is left out.
    ax : Axes
    usual : Series, length C, optional
        What the columns usually cost, drawn as a mark across the bar.
    values : Series, length C, optional
        The row itself, for the labels.
    """
    cost = nats.to_numpy(dtype=float)
    kept, rest = _longest(cost)
    labels = [str(nats.index[i]) for i in kept]
    if values is not None:
        labels = [
            f"{name} = {_plain(values.iloc[i])}" for i, name in zip(kept, labels, strict=True)
        ]
    heights, marks = cost[kept], None
    if usual is not None:
        typical = usual.to_numpy(dtype=float)
        marks = typical[kept]
    if len(rest):
        labels.append(f"{len(rest)} other columns")
        heights = np.append(heights, cost[rest].sum())
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
    """How often p-values are below each level, against what they promise.

    Parameters
    ----------
    p_values : ndarray, shape (N,)
        Of ordinary rows that neither training nor calibration has seen.
    ax : Axes
    n_calibration : int, optional
        Rows to which they were compared, whose number makes the band a little wider.
    """
    p = np.sort(np.asarray(p_values, dtype=float))
    n = len(p)
    level = np.linspace(0, 1, 201)
    low, high = promised_band(level, n, n_calibration)
    ax.fill_between(
        level, low, high, color=PALE, linewidth=0, label="95 % of honest p-values, at each level"
    )
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="exactly as promised")
    ax.step(np.r_[0, p, 1], np.r_[0, np.arange(1, n + 1) / n, 1], where="post", color=BLUE,
            linewidth=1.8, label=f"these {n:,} rows")  # fmt: skip
    ax.set(xlabel="p-value", ylabel="share of rows at or below", xlim=(0, 1), ylim=(0, 1))
    _finish(ax, legend=True)


def promised_band(
    level: np.ndarray, n: int, n_calibration: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of n rows with p-values up to each level between which 95 % of tables lie, if all rows are ordinary.

    Parameters
    ----------
    level : ndarray, shape (L,)
    n : int
    n_calibration : int, optional
        If p-values are ranks among so many rows, the count is beta-binomial (Vovk 2012, arXiv:1209.2673, proposition
        2a); else binomial.
    """
    if n_calibration is None:
        counts = [stats.binom.ppf(q, n, level) for q in (0.025, 0.975)]
    else:
        rank = np.floor(level * (n_calibration + 1) + 1e-9)
        inside = (rank >= 1) & (rank <= n_calibration)
        k = np.where(inside, rank, 1)
        counts = []
        for q in (0.025, 0.975):
            count = stats.betabinom.ppf(q, n, k, n_calibration + 1 - k)
            counts.append(np.where(inside, count, np.where(rank < 1, 0, n)))
    return counts[0] / n, counts[1] / n


def draw_columns(columns: pd.DataFrame, ax: Axes) -> None:
    """Each column's entropy as a bar, split into what the other columns explain and what is its own.

    Parameters
    ----------
    columns : DataFrame
        column, kind, nats (by itself) and nats_given_others, one line per column. A continuous column has no entropy
        to split, only the part that the others explain.
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
    ax.barh(y, explained, color=BLUE, height=0.7, label="told by the other columns")
    ax.barh(y, own, left=explained, color=PALE, height=0.7, label="its own")
    ax.invert_yaxis()
    ax.set(xlabel="nats")
    _name_bars(ax, y, labels)
    _finish(ax, legend=True, grid="x")


def bars_size(n_bars: int) -> tuple[float, float]:
    """The size, in inches, of a chart with so many columns of a table."""
    return SIZE[0], 0.9 + 0.23 * min(n_bars, MOST_BARS)


def shorten(text: object, longest: int = LONGEST) -> str:
    """A name or value as one line of at most so many characters."""
    line = " ".join(readable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def readable(text: object) -> str:
    """A text without characters that no document may contain, or that turn the order of others around."""
    return UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def _half(curve: pd.DataFrame, name: str) -> np.ndarray:
    return 0.5 * np.exp(curve["logsnr"].to_numpy()) * curve[name].to_numpy()


def _longest(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the bars to draw, longest first, and of those to add up in one."""
    order = np.argsort(-length, kind="stable")
    n = len(order) if len(order) <= MOST_BARS else MOST_BARS - 1
    return order[:n], order[n:]


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _name_bars(ax: Axes, y: np.ndarray, labels: Sequence[str]) -> None:
    ax.set_yticks(y, [shorten(text) for text in labels])
    for label in ax.get_yticklabels():
        # names and values are the user's: a dollar sign begins no formula
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
    if legend:  # above the picture, where it covers nothing
        ax.legend(
            frameon=False, fontsize=9.5, labelcolor=INK, loc="lower left",
            bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, handlelength=1.6,
        )  # fmt: skip
