"""The detector's methods that explain: nats by column, reasons, predictions, conflicts, drift and robustness."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from discrete_itd.detection import conformal, drift, reasons, robustness
from discrete_itd.detection.drift import Drift
from discrete_itd.detection.groups import Groups
from discrete_itd.detection.scoring import Scorer
from discrete_itd.encoders.frames import in_kind, is_polars


class Explaining:
    """Mixin of detectors: diagnoses of the score that they return."""

    _scorer: Scorer
    _groups: Groups
    calibration_nats_: pd.DataFrame

    # -- reasons --------------------------------------------------------------------------------

    @in_kind
    def explain(self, X: Any, *, relative: bool = False) -> pd.DataFrame:
        """Nats by column: which columns make a row anomalous.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        relative : bool
            Whether to subtract the mean nats of the column over the calibration rows, with ``given`` over those that
            the row's p-value is of.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. Rows sum to minus the score, unless ``relative``. Columns of ``given`` have none.
        """
        check_is_fitted(self)
        rows = self._scorer.density.rows(X)
        nats = self._scorer.nats(rows)
        if relative:
            conformal.calibration_scores(self)
            nats = nats - self._groups.usual(self.calibration_nats_, self._groups.place(rows))
        return nats

    @in_kind
    def reasons(self, X: Any, *, k: int = 3) -> pd.DataFrame:
        """Why each row is anomalous: its cells that are more likely wrong than right.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        k : int
            Maximal number of cells per row.

        Returns
        -------
        DataFrame
            One line per cell, a row's most doubtful first: ``row``, ``rank``, ``column``, ``value``, ``nats``,
            ``expected_nats``, ``excess_nats``, ``error_probability``, ``expected``, ``probability``, ``low``, ``high``,
            ``conflict_column``, ``conflict_value``, ``conflict_nats``, and ``sentence``, the same in English, see
            :func:`discrete_itd.detection.reasons.reasons`. A row without a cell that is more likely wrong than right
            has no line, even if it raises an alarm: then it is the combination of its cells that is rare. With
            ``given``, no cell of a given column is named as a reason (it may be one in conflict), ``group_seen`` is
            that of :meth:`group_seen`, and where it is False, the first sentence says so.
        """
        check_is_fitted(self)
        rows, groups = self._scorer.density.rows(X), self._groups
        table = reasons.reasons(
            self._scorer, replace(rows, frame=rows.frame.reset_index(drop=True)), k
        )
        at = table["row"].to_numpy(dtype=np.int64)  # labels may repeat
        table["row"] = rows.index[at]
        if not groups.columns:
            return table
        unseen = groups.unseen(rows)
        text = [
            f"{unseen[i]}; {text}" if rank == 1 and unseen[i] else text
            for i, rank, text in zip(at, table["rank"], table["sentence"], strict=True)
        ]
        table.insert(len(table.columns) - 1, "group_seen", groups.seen(rows)[at])
        return table.assign(sentence=pd.Series(text, index=table.index, dtype=object))

    @in_kind
    def expected(
        self,
        X: Any,
        columns: Iterable[Hashable] | None = None,
        *,
        k: int | None = 3,
        n_values: int = 3,
    ) -> pd.DataFrame:
        """The values that the other cells of a row predict for its most doubtful cells.

        Probabilities are those of the score: its normalisation over the values of the cell
        (:mod:`discrete_itd.detection.conditionals` states where that is exact).

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        columns : names (positions, for an array) of columns, optional
            Columns to predict; by default all but those of ``given``.
        k : int, optional
            Only the k most doubtful of these cells in each row; None for all.
        n_values : int
            Number of predicted values per cell.

        Returns
        -------
        DataFrame
            One line per predicted value: ``row``, ``column``, ``value``, ``rank``, ``expected``, ``probability``,
            ``low``, ``high``, see :func:`discrete_itd.detection.reasons.expected`.
        """
        check_is_fitted(self)
        return reasons.expected(self._scorer, X, columns, k=k, n_values=n_values)

    @in_kind
    def pairwise(self, X: Any) -> pd.DataFrame:
        """By how much each other cell increases a cell's surprisal under the score.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)

        Returns
        -------
        DataFrame, shape (N C, C), nats
            Indexed by row and column; the entry of another column is the surprisal given that cell alone, minus the
            surprisal given nothing: positive where the other cell makes this one less probable. Row and column are
            columns of a polars frame.
        """
        check_is_fitted(self)
        found = reasons.pairwise(self._scorer, X)
        return found.reset_index() if is_polars(X) else found

    # -- change ---------------------------------------------------------------------------------

    def drift(self, X: Any, *, reference: Any = None, alpha: float = 0.05) -> Drift:
        """Whether a new batch follows the distribution of the calibration rows.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
            The batch.
        reference : DataFrame, array-like or Rows, optional
            Inliers that were not trained on, to compare the columns' own distributions with; by default only nats are
            compared. Also to tell columns that moved by themselves from those that depend on them: by default, rows
            drawn from the model take their place in this.
        alpha : float
            The significance level.

        Returns
        -------
        Drift
            ``print`` it; ``drifted``, ``drifted_columns``, ``dependent_columns`` and ``to_frame()`` give the same to a
            program.
        """
        n = len(conformal.calibration_scores(self))
        if n < 2:
            raise ValueError(
                f"drift needs at least two calibration rows, got {n}: fit to more rows, or with a larger"
                " calibration_fraction"
            )
        return drift.drift(
            self._scorer, X, self.calibration_nats_, reference=reference, alpha=alpha
        )

    def robustness(
        self,
        X: Any,
        y: Any = None,
        *,
        kind: Literal["noise", "missing"] = "noise",
        shares: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
        n_repeats: int = 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> pd.DataFrame:
        """Stability of the ranking by score when cells are corrupted or missing.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        y : array-like, shape (N,), optional
            1 for anomalies, 0 for inliers.
        kind : {"noise", "missing"}
            Whether a corrupted cell gets the value of the column in another row, drawn at random, or is missing.
        shares : sequence of float
            Probabilities with which a cell is corrupted.
        n_repeats : int
            Number of repetitions with each share.
        random_state : int, RandomState or None

        Returns
        -------
        DataFrame
            One line for every share and repetition, the first with a share of 0: ``kind``, ``share``, ``repeat``,
            ``spearman``, the rank correlation with the scores of the uncorrupted rows (NaN where there is none),
            ``top_1`` and ``top_5``, the share of the most anomalous 1 % and 5 % of rows that stay among them, and with
            ``y`` ``auroc``.

        Raises
        ------
        ValueError, TypeError
            If a share is not between 0 and 1, ``y`` lacks inliers or anomalies, or the table does not fit the model.
        """
        check_is_fitted(self)
        scorer = self._scorer
        return robustness.robustness(scorer, X, y, kind, shares, n_repeats, random_state)
