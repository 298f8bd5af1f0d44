"""Drawn rows, imputed cells and the conditional distribution of one column, by a fitted model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from discrete_itd.encoders import PRESENT, Continuous, Rows, TableEncoder, plain
from discrete_itd.encoders.frames import (
    as_dtype,
    as_polars,
    fill_cells,
    in_kind,
    unique_rows,
)
from discrete_itd.likelihood.sampling import column_distribution, point_predictions
from discrete_itd.models.model import Model
from discrete_itd.threads import one_thread
from discrete_itd.validation import check_choice, check_integer, check_random_state

KNOWN_NAMED = 3  # categories that an error names


def _has_categories(estimator: FillingMixin) -> bool:
    """Whether a column of a fitted model has a table of probabilities."""
    check_is_fitted(estimator)
    return any(c.kind != "continuous" for c in estimator.model_.encoder.schema)


class FillingMixin:
    """Methods of an estimator with a fitted ``model_`` that draw rows and fill cells.

    Attributes
    ----------
    model_ : Model
    """

    model_: Model
    _is_frame: bool
    _is_polars: bool = False

    if TYPE_CHECKING:

        def rows(self, X: Any, *, ignore: Hashable | None = None) -> Rows: ...

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        given: Mapping[Any, Any] | pd.Series | pd.DataFrame | None = None,
        missing: Literal["none", "as_trained"] = "none",
    ) -> Any:
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
            None draws anew at every call.
        given : mapping, Series or frame of one row, optional
            Values of some columns; the others are drawn given these, and so are missing ones. A category that was not
            seen in training is a ValueError.

        missing : {"none", "as_trained"}
            Whether rows are complete, or cells are missing as often as in the training table: in each column by itself,
            whatever the values and the other gaps. Gaps that depend on these need ``missing="category"`` in the fit:
            they are part of the model then, and drawn in any case. Given cells stay.

        Returns
        -------
        DataFrame or ndarray, shape (n_samples, C)
            With the fitted names and dtypes, and numbers and dates as text where the training table wrote them so; a
            polars frame or an array if one was fitted. Never a category unseen in training. Numbers have as many
            decimals as in training, up to six. Where the numbers of a continuous column repeat, it is one that was
            seen; in other columns, draws next to a value with 20 training rows or more become this value, where
            hardly any training rows have others.
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        check_choice("missing", missing, ("none", "as_trained"))
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        frame = _draw(self.model_, int(n_samples), seed, given, missing == "as_trained")
        if not self._is_frame:
            return frame.to_numpy()
        return as_polars(frame) if self._is_polars else frame

    @in_kind
    def impute(
        self,
        X: Any,
        *,
        method: str = "mode",
        n_draws: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Fill missing cells by their conditional distribution given the other cells of the row.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        method : {"mode", "sample"}
            "mode" fills each cell by itself with its most probable category or expected number (in a binned column,
            the median); "sample" draws all missing cells of a row together. Where a row has one gap, both are of the
            model that scores; of several gaps, with the help of the ``model_.companion``, if there is one
            (:mod:`discrete_itd.likelihood.conditional`).
        n_draws : int
            With "sample", how many completed tables to draw.
        random_state : int, RandomState or None
            With "sample"; None draws anew at every call.

        Returns
        -------
        DataFrame or ndarray, shape (N, C), or a list of ``n_draws`` of these if there are several
            X without missing cells, but for columns that had no values in training; other cells, and columns that the
            model does not know, are unchanged. Here as everywhere, a polars frame gets a polars frame.
        """
        rows = self.rows(X)
        check_integer("n_draws", n_draws, 1)
        if method not in ("mode", "sample"):
            raise ValueError(f"method must be 'mode' or 'sample', got {method!r}")
        if method == "mode":
            if n_draws != 1:
                raise ValueError("n_draws needs method='sample': the mode is always the same")
            return _fill(self.model_, rows)
        random = check_random_state(random_state)
        seeds = [int(random.randint(2**31 - 1)) for _ in range(int(n_draws))]
        tables = [_fill(self.model_, rows, seed) for seed in seeds]
        return tables[0] if n_draws == 1 else tables

    @available_if(_has_categories)
    @one_thread
    @in_kind
    def predict_proba(self, X: Any, column: Hashable | None = None) -> pd.DataFrame:
        """Conditional distribution of one column given the other cells of each row, if the cell is not missing.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
            The values of the column itself are not read, and may be missing.
        column : name (position, for an array) of a column, optional
            Nominal, ordinal or binned; by default the last such column, where tables have their label.

        Returns
        -------
        DataFrame, shape (N, K)
            With the index of X; one column per category, or per interval of a binned column with the two tails beyond
            its edges. Rows sum to one: they are conditional on the cell being present and seen in training.
        """
        check_is_fitted(self)
        model, encoder = self.model_, self.model_.encoder
        j = _categorical_column(encoder, column)
        rows = self.rows(X, ignore=encoder.names[j])
        x = rows.x.clone()
        x[:, [c for c in range(encoder.n_columns, x.shape[1]) if encoder.owner[c] == j]] = PRESENT
        x[:, j] = 0.0  # rows that differ in this cell alone are one
        unique, inverse = unique_rows(x)
        size = model.posteriors_at_once(model.conditional)
        logits = column_distribution(model.conditional, unique, j, batch_size=size)
        probs = np.exp(logits.cpu().numpy())
        if encoder.schema[j].points.open:
            probs = probs[:, :-1]
        probs /= probs.sum(1, keepdims=True)
        values, level, share = encoder.schema[j].values()
        return pd.DataFrame(
            (probs[:, level] * share)[inverse], index=rows.index, columns=values, copy=False
        )


def _draw(model: Model, n_samples: int, seed: int, given: Any, gaps: bool) -> pd.DataFrame:
    """Rows drawn from the model, given the values of a row; with gaps or without."""
    encoder = model.encoder
    start = torch.full((1, len(encoder.owner)), torch.nan, dtype=torch.float64)
    present = np.zeros(encoder.n_columns, bool)
    row = None if given is None else encoder.one_row(given)
    if row is not None:
        start = torch.from_numpy(encoder.transform(row).x)
        _check_known(row, start[0].numpy(), encoder)
        present = ~start[0, : encoder.n_columns].isnan().numpy()
        start[:, ~present[encoder.owner]] = torch.nan
    cells = model.draw(start.expand(n_samples, -1).to(model.device), seed).cpu().numpy()
    random = np.random.default_rng(seed)
    if gaps:
        for j, column in enumerate(encoder.schema):
            if not column.indicator and not present[j]:
                share = column.n_missing / max(1, column.n_rows)
                cells[random.random(n_samples) < share, j] = np.nan
    frame = encoder.inverse_transform(cells, rng=random)
    if row is not None:  # the given values themselves, not the middle of their bins
        row, _ = encoder.read(row)
        for name in row.columns[present]:
            value = row[name].repeat(len(frame)).set_axis(frame.index)
            frame[name] = as_dtype(value, frame[name].dtype)
    return encoder.write(frame)


def _check_known(row: pd.DataFrame, x: np.ndarray, encoder: TableEncoder) -> None:
    """ValueError if the row has a category that was not seen in training: of such rows the model knows nothing."""
    for j, column in enumerate(encoder.schema):
        if column.open and x[j] == column.codec.n_levels:
            value, known = plain(row.iloc[0, j]), {str(c): c for c in column.categories}
            near = get_close_matches(str(value), list(known), 1) or list(known)[:KNOWN_NAMED]
            hint = f"; known are, among others, {', '.join(repr(known[n]) for n in near)}"
            raise ValueError(
                f"column {column.name!r}: unseen category {value!r} in given={hint if near else ''}"
            )


def _fill(model: Model, rows: Rows, seed: int | None = None) -> pd.DataFrame | np.ndarray:
    """The table with its missing cells filled by the mode of each, or by a joint draw if a seed is given."""
    empty, filled = fillings(model, rows, seed)
    frame = rows.frame
    if rows.texts is not None:  # text stays text
        columns = {c.name: c for c in rows.encoder.schema}
        frame, filled = frame.assign(), filled.assign()
        for name, texts in rows.texts.items():
            frame[name] = texts
            filled[name] = columns[name].as_text(cast(pd.Series, filled[name]))
    return rows.as_given(fill_cells(frame, empty, filled))


def fillings(model: Model, rows: Rows, seed: int | None = None) -> tuple[np.ndarray, pd.DataFrame]:
    """What missing cells are filled with.

    Parameters
    ----------
    model : Model
    rows : Rows, length N
    seed : int, optional
        Of a joint draw of the missing cells of each row; by default, each cell is filled by itself.

    Returns
    -------
    empty : ndarray of bool, shape (N, C)
        Which cells are missing.
    filled : DataFrame, shape (n, C)
        The rows that have a missing cell, filled, in the fitted dtypes.
    """
    encoder = rows.encoder
    x = rows.x.clone()
    x[:, encoder.n_columns :] = PRESENT  # a filled cell is present
    empty = x[:, : encoder.n_columns].isnan()
    incomplete = x[torch.nonzero(empty.any(1)).flatten()]
    if seed is None:
        binned = [j for j, c in enumerate(encoder.schema) if c.kind == "binned"]
        size = model.posteriors_at_once(model.conditional)
        filled = point_predictions(model.conditional, incomplete, medians=binned, batch_size=size)
    else:
        filled = model.draw(incomplete, seed)
    rng = None if seed is None else np.random.default_rng(seed)
    return empty.cpu().numpy(), encoder.inverse_transform(filled.cpu().numpy(), rng=rng)


def _categorical_column(encoder: TableEncoder, column: Hashable | None) -> int:
    """Position of a column with a table of probabilities, by default the last; ValueError if it has none."""
    if column is None:
        return max(j for j, c in enumerate(encoder.schema) if c.kind != "continuous")
    j = encoder.place_of(column)
    if isinstance(encoder.schema[j].codec, Continuous):
        raise ValueError(
            f"column {column!r}: continuous, so it has no table of probabilities;"
            " draw from it with impute(method='sample'), or fit it as 'binned'"
        )
    return j
