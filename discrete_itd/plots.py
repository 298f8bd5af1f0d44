"""Figures of a model: each function asks the model for numbers and draws them.

All functions draw on the matplotlib axes ``ax`` and return them. By default they make a new figure, ``ax.figure``,
which has ``savefig`` and is displayed by notebooks; pyplot is not used. matplotlib comes with
``pip install "discrete-itd[plot]"``.

Functions of a model raise a TypeError if they get anything else, and a NotFittedError if it is not fitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.groups import named
from discrete_itd.detection.watch import DriftWatch
from discrete_itd.encoders import as_frame, written
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting import figures
from discrete_itd.reporting.learning_curve import extrapolate
from discrete_itd.reporting.measurements import column_entropies, fitted, is_mass
from discrete_itd.validation import check_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Model = DiffusionDensity | DiffusionOutlierDetector

WATCH_SIZE = (4.8, 4.4)  # inches, with room for six lines of a legend


def plot_mse_curve(density: Model, X: Any, ax: Axes | None = None) -> Axes:
    """The denoising error at each signal-to-noise ratio.

    Of a table of categories, its area is the mean surprisal, equation (3); with densities only the area between the two
    curves has a meaning. A mixture of rows with a causal network has no curve: then it is that of ``companion_``, and
    says so.

    Parameters
    ----------
    density : DiffusionDensity or DiffusionOutlierDetector
        Fitted; for a detector, its density is drawn.
    X : DataFrame or array-like, shape (N, C)
        At least two held-out rows; the first thousand are used.
    ax : Axes, optional

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
    _, density = fitted(density)
    ax = figures.new_axes() if ax is None else ax
    curve = density.mse_curve(X)
    name = "model" if curve.attrs["scores_rows"] else "companion"
    figures.draw_mse_curve(curve, ax, is_mass=is_mass(density.encoder_), name=name)
    return ax


def plot_mse_comparison(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The denoising errors of several models at each signal-to-noise ratio, and the nats between them.

    Parameters
    ----------
    curve : DataFrame
        From :func:`discrete_itd.images.comparison.compare_mse`.
    ax : Axes, optional

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792, figure 1.

    Examples
    --------
    >>> curve = pd.DataFrame({"logsnr": [-1.0, 1.0], "a": [1.0, 0.5], "b": [0.9, 0.5], "lost_a": 0.0, "lost_b": 0.1})
    >>> ax = plot_mse_comparison(curve)
    >>> [label.get_text() for label in ax.get_legend().get_texts()]
    ['a', 'b: +0.20 nats']
    """
    if "logsnr" not in curve or not any(str(c).startswith("lost_") for c in curve.columns):
        raise ValueError("curve must come from discrete_itd.images.comparison.compare_mse")
    ax = figures.new_axes() if ax is None else ax
    figures.draw_mse_comparison(curve, ax)
    return ax


def plot_information(
    nats: np.ndarray, image: np.ndarray | None = None, ax: Axes | None = None
) -> Axes:
    """Information of a class about each pixel of an image, as a heat map over the image.

    Parameters
    ----------
    nats : ndarray, shape (H, W) or (channels, H, W)
        Of one image, from :meth:`discrete_itd.images.ImageDensity.information`; channels are summed.
    image : ndarray, same shape as nats, optional
    ax : Axes, optional

    References
    ----------
    Kong et al., "Interpretable diffusion via information decomposition", ICLR 2024, arXiv:2310.07972.

    Examples
    --------
    >>> ax = plot_information(np.ones((2, 2)))
    >>> len(ax.images)
    1
    """
    maps = []
    for values in (nats, image):
        values = None if values is None else np.asarray(values, dtype=float)
        if values is not None and values.ndim == 3:
            values = values.sum(0)
        if values is not None and values.ndim != 2:
            raise ValueError(f"one image has shape (H, W) or (channels, H, W), got {values.shape}")
        maps.append(values)
    ax = figures.new_axes() if ax is None else ax
    figures.draw_information(maps[0], ax, image=maps[1])
    return ax


def plot_learning_curve(
    density: Model | pd.DataFrame, ax: Axes | None = None, *, factor: float = 2.0
) -> Axes:
    """Held-out nats against the number of training steps, with a power law extrapolated to ``factor`` times as many.

    As in ``history_``, continuous columns are in standardised units.

    Parameters
    ----------
    density : DiffusionDensity or DiffusionOutlierDetector
        Fitted; for a detector, its density is drawn. Or a table from
        :func:`discrete_itd.images.comparison.progress_of_training`.
    ax : Axes, optional
    factor : float
        More than 1.

    Raises
    ------
    ValueError
        If nothing was trained step by step, as in an exact model.

    Examples
    --------
    >>> history = pd.DataFrame({"step": [1, 10, 100], "valid_nats": [3.0, 2.0, 1.5], "valid_stderr": 0.1})
    >>> ax = plot_learning_curve(history)
    >>> ax.get_xlabel()
    'training steps'
    """
    history = density if isinstance(density, pd.DataFrame) else fitted(density)[1].history_
    if not max(history["step"], default=0) > 0:
        raise ValueError(
            "no learning curve: the model is exact, or was given no training steps; score(X) of rows that were not"
            " fitted to says how good it is"
        )
    ax = figures.new_axes() if ax is None else ax
    figures.draw_learning_curve(history, ax, extrapolation=extrapolate(history, factor=factor))
    return ax


def plot_scores(detector: Model, X: Any, ax: Axes | None = None) -> Axes:
    """Histogram of minus ``score_samples`` of the rows, and the threshold of alarms.

    Parameters
    ----------
    detector : DiffusionOutlierDetector or DiffusionDensity
        Fitted; a density has no threshold.
    X : DataFrame or array-like, shape (N, C)
    ax : Axes, optional

    Raises
    ------
    ValueError
        If there are no rows.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.1, random_state=0).fit(frame)
    >>> ax = plot_scores(detector, frame)
    >>> ax.get_xlabel()
    'minus the score, nats'
    """
    fitted(detector)
    ax = figures.new_axes() if ax is None else ax
    surprisal, threshold, reference, name = -detector.score_samples(X), None, None, "surprisal"
    if not len(surprisal):
        raise ValueError("no rows to plot")
    if isinstance(detector, DiffusionOutlierDetector):
        name = "minus the score"
        if not detector.threshold_.group_offsets:  # else there is not one for all rows
            threshold = -detector.offset_
        if len(detector.calibration_scores_):
            reference = -detector.calibration_scores_
    figures.draw_scores(surprisal, ax, threshold=threshold, reference=reference, name=name)
    return ax


def plot_explanation(model: Model, row: Any, ax: Axes | None = None) -> Axes:
    """The surprisal of each cell of a row, the highest on top; for a detector, beside what is usual.

    Parameters
    ----------
    model : DiffusionOutlierDetector or DiffusionDensity
        Fitted.
    row : DataFrame or array-like, shape (1, C), or Series, shape (C,)
    ax : Axes, optional

    Raises
    ------
    ValueError, TypeError
        If it is not one row.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> ax = plot_explanation(model, frame[:1])
    >>> sorted(label.get_text()[:1] for label in ax.get_yticklabels())
    ['a', 'b']
    """
    detector, density = fitted(model)
    if isinstance(row, pd.Series):
        row = row.to_frame().T
    elif as_frame(row) is None and np.ndim(row) != 2:
        raise TypeError(
            "row must be a DataFrame or an array of one row, or a Series with a value for each column, got"
            f" {type(row).__name__}"
        )
    rows = density.rows(row)
    if len(rows) != 1:
        raise ValueError(f"row must be one row, got {len(rows)}")
    ax = figures.new_axes(figures.bars_size(rows.frame.shape[1])) if ax is None else ax
    usual, nats = None, model.explain(rows).iloc[0]
    if detector is not None and len(detector.calibration_nats_):
        usual = detector.calibration_nats_.mean()
        if named(detector.given):
            usual = nats - detector.explain(rows, relative=True).iloc[0]
    cells = zip(rows.frame.iloc[0], rows.encoder.schema, strict=True)
    values = [written(value, column) for value, column in cells]
    figures.draw_explanation(nats, ax, usual=usual, values=values)
    return ax


def plot_p_values(detector: DiffusionOutlierDetector, X: Any, ax: Axes | None = None) -> Axes:
    """The distribution of the p-values of inliers, with the band that calibrated p-values stay in.

    Parameters
    ----------
    detector : DiffusionOutlierDetector
        Fitted, with calibration rows.
    X : DataFrame or array-like, shape (N, C)
        Inliers that were not used to fit the detector.
    ax : Axes, optional

    Raises
    ------
    TypeError
        If it is not a detector: a density has no p-values.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.1, random_state=0).fit(frame)
    >>> ax = plot_p_values(detector, frame)
    >>> ax.get_xlabel()
    'p-value'
    """
    if fitted(detector)[0] is None:
        raise TypeError("p-values need a DiffusionOutlierDetector; a density has none")
    ax = figures.new_axes() if ax is None else ax
    n = len(detector.calibration_scores_)
    figures.draw_p_values(detector.p_values(X), ax, n_calibration=n)
    return ax


def plot_columns(density: Model, X: Any, ax: Axes | None = None) -> Axes:
    """The entropy of each column, and how much of it the other columns explain.

    Parameters
    ----------
    density : DiffusionDensity or DiffusionOutlierDetector
        Fitted; for a detector, its density is drawn.
    X : DataFrame or array-like, shape (N, C)
        Held-out rows; at most 500, spread over the table, are used.
    ax : Axes, optional

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> ax = plot_columns(model, frame)
    >>> ax.get_xlabel()
    'nats'
    """
    _, density = fitted(density)
    rows = density.rows(X)
    if not len(rows.x):
        raise ValueError("no rows to plot")
    columns = column_entropies(density, rows)
    ax = figures.new_axes(figures.bars_size(len(columns))) if ax is None else ax
    figures.draw_columns(columns, ax)
    return ax


def plot_watch(
    watch: DriftWatch, table: pd.DataFrame, ax: Axes | None = None, *, n_columns: int = 3
) -> Axes:
    """The martingales of a watch against the number of rows, and where they raise an alarm.

    Parameters
    ----------
    watch : DriftWatch
    table : DataFrame
        What :meth:`DriftWatch.update` returned, of one batch or, with ``pandas.concat``, of several.
    ax : Axes, optional
    n_columns : int
        How many columns to draw, up to 4: those whose martingales are highest in the table.

    Raises
    ------
    TypeError, ValueError
        If there is no watch, or the table is not of it.

    Examples
    --------
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.1, random_state=0).fit(frame)
    >>> watch = DriftWatch(detector)
    >>> ax = plot_watch(watch, watch.update(frame))
    >>> ax.get_xlabel()
    'rows watched'
    """
    if not isinstance(watch, DriftWatch):
        raise TypeError(f"watch must be a DriftWatch, got {type(watch).__name__}")
    check_integer("n_columns", n_columns, 0, 4)
    lines = watch.to_frame()
    names = {name: f"log10_martingale_{name}" for name in lines["column"][1:]}
    for name in ("row", "log10_martingale", *names.values()):
        if name not in table:
            raise ValueError(f"column {name!r}: table must come from this watch, and has none")
    columns = table[list(names.values())].set_axis(list(names), axis=1)
    loudest = columns.max().sort_values(ascending=False, kind="stable").index[:n_columns]
    ax = figures.new_axes(WATCH_SIZE) if ax is None else ax
    figures.draw_watch(
        table["row"].to_numpy(),
        table["log10_martingale"].to_numpy(),
        ax,
        threshold=lines["threshold"].iloc[0],
        columns=cast(pd.DataFrame, columns[loudest]),
        column_threshold=lines["threshold"].iloc[1],
    )
    return ax
