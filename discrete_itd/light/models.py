"""Stored densities and detectors that score rows without torch."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import pandas as pd

from discrete_itd.detection import thresholds
from discrete_itd.detection.groups import Groups
from discrete_itd.detection.terms import rounding_of, row_scores, terms, weighted
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders import Rows, TableEncoder
from discrete_itd.encoders.frames import as_frame, check_unique_names, in_kind
from discrete_itd.encoders.rows import RowEstimate, check_array_like, ignored
from discrete_itd.light.densities import ColumnLayout, ForestScores, NotCoveredError, of_file
from discrete_itd.storage.files import (
    CLASS,
    AnyPath,
    building,
    content_digest,
    read_state,
)
from discrete_itd.storage.values import Like, ValueReader
from discrete_itd.validation import warn

if TYPE_CHECKING:
    from discrete_itd.estimators import DiffusionDensity

LEARNED_GAPS = 0.01  # as of models.model
BLOCK = 4096  # rows that are scored at once


def load(path: AnyPath) -> LightDensity | LightDetector:
    """Read a density or a detector that ``save`` wrote, to score rows without torch.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    LightDensity or LightDetector
        With the answers of the estimator in the file: scores are equal to rounding, p-values and alarms equal.

    Raises
    ------
    OSError, ValueError
        As :meth:`discrete_itd.DiffusionDensity.load`; and :class:`NotCoveredError`, which is a ValueError, if the model
        is none of independent columns, Bayesian networks, mixtures, forests, causal networks on the first two, and
        mixtures of these, or if a detector has ``given``: load it with the class that wrote it.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from discrete_itd import DiffusionOutlierDetector, light
    >>> coins = pd.DataFrame({"a": ["x", "y"] * 100, "b": ["u", "v"] * 100})
    >>> detector = DiffusionOutlierDetector(denoiser="tree", random_state=0, false_alarm_rate=0.05).fit(coins)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     detector.save(f"{folder}/coins.safetensors", card=False)
    ...     scorer = light.load(f"{folder}/coins.safetensors")
    >>> scorer.predict({"a": "x", "b": "v"})
    array([-1])
    >>> bool((scorer.p_values(coins) == detector.p_values(coins)).all())
    True
    """
    header, arrays = read_state(path, arrays=True)
    digest, refused = content_digest(path), None
    with building(os.fspath(path)):
        label = header.get(CLASS)
        kind = {"DiffusionDensity": LightDensity, "DiffusionOutlierDetector": LightDetector}.get(
            str(label)
        )
        if kind is None:
            raise ValueError(
                f"the file holds a {label}, not a DiffusionDensity or a DiffusionOutlierDetector"
            )
        try:
            return kind(header, ValueReader(arrays, {}), "", os.fspath(path), digest)
        except NotCoveredError as error:
            refused = error
    raise NotCoveredError(f"{os.fspath(path)}: {refused}")


def blocks(among: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of the rows ``among`` all (N,), at most :data:`BLOCK` at once."""
    rows = np.flatnonzero(among)
    yield from (rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK))


class LightDensity:
    """A stored :class:`~discrete_itd.DiffusionDensity`, as :func:`load` makes it.

    Rows with gaps that a causal network has not learned of are summed over by torch, which is imported at the first of
    them; the file must still be there.

    Attributes
    ----------
    encoder_ : TableEncoder
    """

    def __init__(
        self, data: Mapping[str, Any], source: ValueReader, name: str, path: str, digest: str
    ) -> None:
        self.path, self._digest = path, digest
        fitted = data["fitted"]
        model, at = fitted["model"], f"{name}fitted.model."
        self.encoder_ = cast(
            TableEncoder, source.read(TableEncoder, model["encoder"], f"{at}encoder")
        )
        self._is_frame = source.read(bool, fitted["is_frame"], f"{name}fitted.is_frame")
        if source.read(bool, fitted["has_names"], f"{name}fitted.has_names"):
            self.feature_names_in_ = np.asarray(self.encoder_.all_names, dtype=object)
        self.n_features_in_ = len(self.encoder_.all_names)
        of_marginals = source.tensors[f"{at}marginals.log_probs"]
        n = self.encoder_.n_columns
        leading = range(n, len(self.encoder_.owner))
        self.layout = ColumnLayout(self.encoder_.points, leading, of_marginals.dtype)
        self._density = of_file(model["denoiser"], source.tensors, f"{at}denoiser", self.layout)
        has_gaps = np.zeros(len(self.encoder_.owner), bool)
        if model["companion"] is None:
            has_gaps[:] = True
        for j, owner in enumerate(self.encoder_.owner):
            column = self.encoder_.schema[owner]
            has_gaps[j] |= column.n_missing >= LEARNED_GAPS * max(1, column.n_rows) or j in leading
        self._summed = ~has_gaps  # whose gaps the scorer does not take as they are

    # -- rows -------------------------------------------------------------------------------------

    @property
    def keeps_pace(self) -> bool:
        """Whether many rows take about as long as by the class that wrote the file."""
        return self._density.keeps_pace

    def rows(self, X: Any) -> Rows:
        """A table read and encoded, for several questions.

        Parameters
        ----------
        X : DataFrame, array-like, mapping or Rows, shape (N, C)
            A mapping is one row: a value for each column, None where it is missing.

        Raises
        ------
        ValueError, TypeError
            Naming the column that is absent or holds a value that the model cannot take.
        """
        encoder = self.encoder_
        if isinstance(X, Rows):
            return X.of(encoder)
        if isinstance(X, Mapping):
            X = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in X.items()})
        frame = as_frame(X)
        is_frame = frame is not None
        if frame is None:
            check_array_like(X)
            array = np.asarray(X)
            if array.ndim != 2:
                raise ValueError(
                    f"X must be a table or an array (N, C), got {array.ndim} dimensions"
                )
            frame = pd.DataFrame(array)
        else:
            check_unique_names(frame)
            frame = frame if frame is X else frame.reset_index(drop=True)
        by_name = is_frame and self._is_frame
        if by_name:
            self._check_names(frame)
        elif frame.shape[1] not in (encoder.n_columns, self.n_features_in_):
            raise ValueError(
                f"X has {frame.shape[1]} features, but the model is expecting {self.n_features_in_} features as input"
            )
        return Rows.read(frame, encoder, is_frame=is_frame, by_name=by_name)

    def _check_names(self, frame: pd.DataFrame) -> None:
        encoder = self.encoder_
        if frame.columns.tolist() == encoder.names:
            return
        for name in encoder.lacking(frame.columns):
            raise ValueError(f"column {name!r}: the model knows it, the table lacks it")
        known = [*encoder.all_names, *encoder.part_names]
        extra = frame.columns.difference(known, sort=False)
        if len(extra):
            warn(ignored(extra, frame.columns))

    # -- scores -----------------------------------------------------------------------------------

    def log_prob(
        self,
        X: Any,
        given: Iterable[Hashable] | None = None,
        *,
        max_stderr: float | None = None,
    ) -> RowEstimate:
        """As of :meth:`discrete_itd.DiffusionDensity.log_prob`; with ``given`` by torch."""
        rows = self.rows(X)
        if given is not None:
            return self.full.log_prob(rows, given, max_stderr=max_stderr)
        log_prob, stderr = np.zeros((2, len(rows)))
        by_torch = self.needs_torch(rows)
        if by_torch.any():
            found = self.full.log_prob(rows.take(by_torch), max_stderr=max_stderr)
            log_prob[by_torch], stderr[by_torch] = found.log_prob, found.stderr
        for some in blocks(~by_torch):
            log_prob[some] = self._density.log_prob(rows.cells[some]) + rows.log_volume[some].sum(1)
        return RowEstimate(log_prob, stderr)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-probability of each row: float64, shape (N,), nats; higher is more typical."""
        return self.log_prob(X).log_prob

    @in_kind
    def explain(
        self, X: Any, given: Iterable[Hashable] | None = None, *, max_stderr: float | None = None
    ) -> pd.DataFrame:
        """As of :meth:`discrete_itd.DiffusionDensity.explain`; with ``given`` by torch."""
        rows = self.rows(X)
        if given is not None:
            return self.full.explain(rows, given, max_stderr=max_stderr)
        nats = self.surprisal(rows) - rows.log_volume
        return rows.table(rows.by_column(np.where(np.isnan(rows.cells), np.nan, nats)))

    def surprisal(self, rows: Rows) -> np.ndarray:
        """Nats of each internal column, without the volume of its cell: (N, C')."""
        out, by_torch = np.zeros(rows.cells.shape), self.needs_torch(rows)
        if by_torch.any():
            model = self.full.model_
            x = rows.take(by_torch).of(model.encoder, model.device).x
            found = model.attribution(x, self.full.n_evaluations).surprisal
            out[by_torch] = found.detach().cpu().numpy()
        for some in blocks(~by_torch):
            out[some] = -self._density.log_factors(rows.cells[some])
        return out

    def needs_torch(self, rows: Rows) -> np.ndarray:
        """Which rows have gaps that only the model with torch sums out: bool, (N,)."""
        return np.any(np.isnan(rows.cells) & self._summed, axis=1)

    @cached_property
    def full(self) -> DiffusionDensity:
        """The estimator with torch, read from the file at its first use."""
        from discrete_itd.detection.detector import DiffusionOutlierDetector
        from discrete_itd.estimators import DiffusionDensity
        from discrete_itd.storage.stored import load_one_of

        if content_digest(self.path) != self._digest:
            raise ValueError(f"{self.path}: another model than when it was read")
        found = load_one_of(self.path, (DiffusionDensity, DiffusionOutlierDetector))
        return getattr(found, "density_", found)


class LightDetector:
    """A stored :class:`~discrete_itd.DiffusionOutlierDetector`, as :func:`load` makes it.

    Attributes
    ----------
    density_ : LightDensity
    threshold_ : Threshold
    offset_ : float
    calibration_scores_ : ndarray, shape (n,)
    """

    def __init__(
        self, data: Mapping[str, Any], source: ValueReader, name: str, path: str, digest: str
    ) -> None:
        fitted, at = data["fitted"], f"{name}fitted."

        def read(kind: Any, field: str) -> Any:
            return source.read(kind, fitted[field], at + field, sizes)

        sizes: dict[str, int] = {}
        if fitted["given"]:
            raise NotCoveredError("a detector with given= needs torch")
        self.density_ = LightDensity(fitted["density"], source, f"{at}density.", path, digest)
        encoder = self.density_.encoder_
        sizes |= {"C": encoder.n_columns, "C'": len(encoder.owner)}
        self.n_features_in_ = self.density_.n_features_in_
        if hasattr(self.density_, "feature_names_in_"):
            self.feature_names_in_ = self.density_.feature_names_in_
        self.given, self.contamination = None, data["parameters"]["contamination"]
        self._quantiles = read(Annotated[np.ndarray, Like("float64", "C'")], "quantiles")
        nats = read(Annotated[np.ndarray, Like("float64", "n", "C", gaps=True)], "nats")
        self._repeats = read(Annotated[np.ndarray, Like("bool", "n")], "repeats")
        self._weight, self._trees = read(float, "weight"), None
        if fitted["trees"] is not None:
            layout = self.density_.layout
            trees = of_file(fitted["trees"], source.tensors, f"{at}trees", layout)
            self._trees = cast(ForestScores, trees)
        self._weights = None
        if fitted["labels"] is not None:
            weights, kind = fitted["labels"]["weights"], Annotated[np.ndarray, Like("float64", "C")]
            self._weights = source.read(kind, weights, f"{at}labels.weights", sizes)
        nats = weighted(nats, self._weights)
        self._nats = pd.DataFrame(nats, columns=pd.Index(encoder.names))
        self._groups = Groups((), encoder.schema, np.zeros((len(nats), 0), np.int64), None, 1)
        self.calibration_scores_ = row_scores(nats)
        self.threshold_ = cast(Threshold, read(Threshold, "threshold"))
        self.offset_ = self.threshold_.offset
        eps = float(np.finfo(self.density_.layout.dtype).eps)
        self._rounding = rounding_of(eps, self._weights)

    @property
    def keeps_pace(self) -> bool:
        """Whether many rows take about as long as by the class that wrote the file."""
        return self.density_.keeps_pace

    def rows(self, X: Any) -> Rows:
        """As of :meth:`LightDensity.rows`."""
        return self.density_.rows(X)

    def _by_column(self, rows: Rows) -> np.ndarray:
        """The terms s of (12) times their weights (19), (N, C)."""
        nats = self.density_.surprisal(rows)
        if self._trees is not None:
            nats = nats + self._weight * (-self._trees.mean_log_factors(rows.cells) - nats)
        nats = np.where(np.isnan(rows.cells), np.nan, nats) - rows.log_volume
        return weighted(rows.by_column(terms(nats, self._quantiles)), self._weights)

    def score_samples(self, X: Any) -> np.ndarray:
        """The score (12) of each row: float64, shape (N,), nats; higher is more typical."""
        return row_scores(self._by_column(self.rows(X)))

    def decision_function(self, X: Any) -> np.ndarray:
        """Score above the threshold, shape (N,), nats: negative for rows that raise an alarm."""
        return self.score_samples(X) - self.offset_

    def predict(
        self, X: Any, *, scores: np.ndarray | None = None, threshold: Threshold | None = None
    ) -> np.ndarray:
        """-1 for rows that raise an alarm, 1 for the others: int, shape (N,)."""
        found = self.score_samples(X) if scores is None else scores
        return np.where(found < (threshold or self.threshold_).offset, -1, 1)

    def p_values(
        self, X: Any, *, two_sided: bool = False, scores: np.ndarray | None = None
    ) -> np.ndarray:
        """Conformal p-values (N,), as of :meth:`discrete_itd.DiffusionOutlierDetector.p_values`."""
        known = thresholds.calibration_scores(self)
        found = self.score_samples(X) if scores is None else scores
        return thresholds.p_values(known, found, two_sided=two_sided, rounding=self._rounding)

    def threshold_at_rate(
        self, rate: float, *, confidence: float | None = None, rows_per_day: float | None = None
    ) -> Threshold:
        """As of :meth:`discrete_itd.DiffusionOutlierDetector.threshold_at_rate`."""
        from dataclasses import replace

        known = thresholds.lowered(thresholds.calibration_scores(self), self._rounding)
        found = thresholds.at_rate(known, rate, confidence=confidence, rows_per_day=rows_per_day)
        found = replace(found, contaminated=self.threshold_.contaminated)
        return found.among(known, self._repeats)

    @in_kind
    def explain(self, X: Any = None) -> pd.DataFrame:
        """The score by column, the terms s of (12), shape (N, C); by default of the calibration rows."""
        if X is None:
            return self._nats.copy()
        rows = self.rows(X)
        return rows.table(self._by_column(rows))
