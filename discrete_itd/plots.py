"""Pictures of a model: each function asks it for numbers and draws them.

All take ``ax``, matplotlib axes to draw on, and return the axes; without, they make a figure of their own,
``ax.figure``, which has ``savefig`` and shows in a notebook. pyplot is never touched. matplotlib comes with
``pip install "discrete-itd[plot]"``.

What is no fitted model is a TypeError or a NotFittedError, where a model is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import as_frame
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting import figures
from discrete_itd.reporting.details import column_entropies, fitted, table_of
from discrete_itd.reporting.extrapolation import extrapolate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Model = DiffusionDensity | DiffusionOutlierDetector


def plot_mse_curve(density: Model, X: Any, ax: Axes | None = None) -> Axes:
    """The denoising error at each signal-to-noise ratio, whose area is the code length.

    Parameters
    ----------
    density : DiffusionDensity or DiffusionOutlierDetector
        Fitted; of a detector, its density.
    X : DataFrame or array-like, shape (N, C)
        Held-out rows, at least two; the first thousand are used.
    ax : Axes, optional

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792, figure 1.
    """
    _, density = fitted(density)
    ax = figures.new_axes() if ax is None else ax
    figures.draw_mse_curve(density.mse_curve(X), ax, is_mass=figures.is_mass(density.encoder_))
    return ax


def plot_mse_comparison(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The denoising errors of several models at each signal-to-noise ratio, with the nats between them.

    Parameters
    ----------
    curve : DataFrame
        From :func:`discrete_itd.images.comparison.compare_mse`.
    ax : Axes, optional

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792, figure 1.
    """
    if "logsnr" not in curve or not any(str(c).startswith("lost_") for c in curve.columns):
        raise ValueError("curve must be a table of discrete_itd.images.comparison.compare_mse")
    ax = figures.new_axes() if ax is None else ax
    figures.draw_mse_comparison(curve, ax)
    return ax


def plot_information(
    nats: np.ndarray, picture: np.ndarray | None = None, ax: Axes | None = None
) -> Axes:
    """What a class tells about every pixel of a picture: a heat map of nats, over the picture.

    Parameters
    ----------
    nats : ndarray, shape (H, W) or (channels, H, W)
        Of one picture, from :meth:`discrete_itd.images.ImageDensity.information`; channels are added up.
    picture : ndarray, of the same shape, optional
    ax : Axes, optional

    References
    ----------
    Kong et al., "Interpretable diffusion via information decomposition", ICLR 2024, arXiv:2310.07972.
    """
    maps = []
    for values in (nats, picture):
        values = None if values is None else np.asarray(values, dtype=float)
        if values is not None and values.ndim == 3:
            values = values.sum(0)
        if values is not None and values.ndim != 2:
            raise ValueError(
                f"one picture has shape (H, W) or (channels, H, W), got {values.shape}"
            )
        maps.append(values)
    ax = figures.new_axes() if ax is None else ax
    figures.draw_information(maps[0], ax, picture=maps[1])
    return ax


def plot_learning_curve(
    density: Model | pd.DataFrame, ax: Axes | None = None, *, factor: float = 2.0
) -> Axes:
    """Held-out nats against the steps of training, and a power law that goes on to ``factor`` times as many.

    The nats are those of ``history_``: of encoded cells, so without the change of unit of continuous columns.

    Parameters
    ----------
    density : DiffusionDensity or DiffusionOutlierDetector
        Fitted; of a detector, its density. Or a table of :func:`discrete_itd.images.comparison.progress_of_training`.
    ax : Axes, optional
    factor : float
        More than 1.
    """
    history = density if isinstance(density, pd.DataFrame) else fitted(density)[1].history_
    ax = figures.new_axes() if ax is None else ax
    ahead = extrapolate(history, factor=factor)
    figures.draw_learning_curve(history, ax, ahead=ahead)
    return ax


def plot_scores(detector: Model, X: Any, ax: Axes | None = None) -> Axes:
    """How surprising rows are, minus their ``score_samples``, and from where on a row is an alarm.

    Parameters
    ----------
    detector : DiffusionOutlierDetector or DiffusionDensity
        Fitted; a density has no threshold, and its histogram none.
    X : DataFrame or array-like, shape (N, C)
    ax : Axes, optional
    """
    fitted(detector)
    ax = figures.new_axes() if ax is None else ax
    surprisal, threshold, reference, name = -detector.score_samples(X), None, None, "surprisal"
    if isinstance(detector, DiffusionOutlierDetector):
        if detector.score_by != "log_prob":
            name = "minus the score"
        threshold = -detector.offset_
        if len(detector.calibration_scores_):
            reference = -detector.calibration_scores_
    figures.draw_scores(surprisal, ax, threshold=threshold, reference=reference, name=name)
    return ax


def plot_explanation(model: Model, row: Any, ax: Axes | None = None) -> Axes:
    """Why a row is odd: its nats by column, the largest on top; of a detector, with what is usual.

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
    """
    detector, density = fitted(model)
    if isinstance(row, pd.Series):
        row = row.to_frame().T
    elif as_frame(row) is None and np.ndim(row) != 2:
        raise TypeError(
            "row must be a DataFrame or an array of one row, or a Series with a value for each column, got"
            f" {type(row).__name__}"
        )
    frame = table_of(density, row)
    if len(frame) != 1:
        raise ValueError(f"row must be one row, got {len(frame)}")
    ax = figures.new_axes(figures.bars_size(frame.shape[1])) if ax is None else ax
    usual = None
    if detector is not None and len(detector.calibration_nats_):
        usual = detector.calibration_nats_.mean()
    figures.draw_explanation(model.explain(frame).iloc[0], ax, usual=usual, values=frame.iloc[0])
    return ax


def plot_p_values(detector: DiffusionOutlierDetector, X: Any, ax: Axes | None = None) -> Axes:
    """Whether p-values are what they promise: their distribution on ordinary rows, with the band that chance allows.

    Parameters
    ----------
    detector : DiffusionOutlierDetector
        Fitted, with calibration rows.
    X : DataFrame or array-like, shape (N, C)
        Ordinary rows that the detector has not seen.
    ax : Axes, optional

    Raises
    ------
    TypeError
        If it is no detector: a density has no p-values.
    """
    if fitted(detector)[0] is None:
        raise TypeError("p-values are those of a DiffusionOutlierDetector; a density has none")
    ax = figures.new_axes() if ax is None else ax
    n = len(detector.calibration_scores_)
    figures.draw_p_values(detector.p_values(X), ax, n_calibration=n)
    return ax


def plot_columns(density: Model, X: Any, ax: Axes | None = None) -> Axes:
    """The entropy of each column, and how much of it the other columns explain.

    Parameters
    ----------
    density : DiffusionDensity or DiffusionOutlierDetector
        Fitted; of a detector, its density.
    X : DataFrame or array-like, shape (N, C)
        Held-out rows; at most 500, spread over the table, are asked about.
    ax : Axes, optional
    """
    _, density = fitted(density)
    columns = column_entropies(density, X)
    ax = figures.new_axes(figures.bars_size(len(columns))) if ax is None else ax
    figures.draw_columns(columns, ax)
    return ax
