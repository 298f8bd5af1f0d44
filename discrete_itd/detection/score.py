r"""The anomaly score: nats of every column above the nats of rare but normal cells.

With the nats :math:`\ell_{mj}(x)` of column j under model m, which add up to the row's code length by the chain rule
(:meth:`~discrete_itd.denoisers.Denoiser.log_factors`; along paths the terms of the path (6)),

.. math:: s_{mj}(x) = \log\bigl(1 + e^{\ell_{mj}(x) - q_{mj}}\bigr)
                     - \log\bigl(1 + e^{\min \ell_{mj} - q_{mj}}\bigr), \qquad
          \mathrm{score} = -\sum_j s_j(x), \quad s_j = \sum_m v_m s_{mj}, \quad (12)

where :math:`q_{mj}` is the 0.95 quantile of :math:`\ell_{mj}` in rows that m draws; with C > 20 columns that at the
level 1 - 1/C, so that at most one cell of such a row is above it on average. The minimum is the least nats in the same
rows, to which smaller values are raised: the most typical cell, a missing one and every cell of a constant column
contribute 0. A typical cell contributes little, whether its column has masses or a density, so that very typical cells
cannot offset an anomalous one; a rare one contributes :math:`\ell_{mj} - q_{mj}`. But for the subtracted constant, with
:math:`p = e^{-\ell_{mj}}` and the flat probability :math:`\epsilon = e^{-q_{mj}}` of a wrong cell, :math:`s_{mj} =
-\log \frac{p}{p + \epsilon}`: minus the logarithm of the model's share in a cell of a contaminated distribution. A
value and its missingness indicator are two internal columns, each with its own q.

To this a detector adds how far a row is from those of the fit (:mod:`~discrete_itd.detection.distances`).

The models are the fitted one and, where it was chosen among candidates, its ``members``. Their shares v are in
proportion to :math:`e^{-L}`, L the nats of held-out rows: models that are a few tenths of a nat apart rank rows almost
equally well, and err in different rows. Given columns, the fitted model alone scores.

If anomalies are among the training rows, a model that fits these closely has learned them. With a share c of them the
nats are means of the nats of a model and of small density trees (11), each of which saw :data:`ROWS_OF_TREE` rows:

.. math:: \ell_j(x) = -(1 - w) \log p_j(x) - \frac{w}{Tr} \sum_t \log p_{tj}(x), \qquad w = \min(1/2, 5 c).

:math:`\sum_x e^{-\sum_j \ell_j(x)} \le 1` by Hölder's inequality: the geometric mean is a code length. In the
arithmetic one a tree whose few rows hold many of the anomalies would decide.

References
----------
Tukey, "A survey of sampling from contaminated distributions", Contributions to Probability and Statistics 1960.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.cells.slips import Vocabulary
from discrete_itd.denoisers.forest import ForestDenoiser, responsible
from discrete_itd.detection.distances import Distances
from discrete_itd.encoders import Column
from discrete_itd.encoders.relations import USUAL
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.exact import FEWEST_LEAF_ROWS, grow
from discrete_itd.models.model import Model, Question, attributions
from discrete_itd.progress import progress_bar
from discrete_itd.validation import check_integer

ROUNDINGS = 1 << 12  # bound on the number of consecutive roundings behind one score
DECIMALS = 4  # decimals of compared nats: equal rows of two tables may differ in further ones
STEP = 2.0**-32  # nats are multiples of it: up to a million, their sums are exact in any order
LEVEL = 0.95  # level of the quantile q in tables of few columns
# Rows drawn from a model to estimate q; fewer along paths, where a row takes up to a second.
TYPICAL_ROWS, TYPICAL_ALONG_PATHS = 500, 100
# Trees of few rows each, and the weight of their code lengths by the share of anomalies: chosen on the deciding tables,
# with anomalies among the training rows.
SMALL_TREES, ROWS_OF_TREE = 64, 64
WEIGHT_OF_SHARE, MOST_WEIGHT = 5.0, 0.5


@dataclass(eq=False)
class Scorer:
    """The score (12) of any row, by column.

    Of a fitted ``density``, given the columns at the positions ``given``. ``quantiles`` (M, 2, C') are the least nats
    and the q of every internal column under each of M models, by default computed at the first score; ``trees`` are
    :func:`small_trees`, whose code lengths are averaged with the code lengths of each model, with ``weight``.
    ``shares`` are :attr:`exceptions`, or a function that measures them when they are first asked for: scores do not
    depend on them.
    """

    density: DiffusionDensity
    given: tuple[int, ...] = ()
    quantiles: np.ndarray | None = None
    trees: ForestDenoiser | None = None
    weight: float = 0.0
    shares: np.ndarray | Callable[[], np.ndarray | None] | None = None
    distances: Distances | None = None
    # terms of rows by column, of a model with a number of evaluations
    _known: WeakKeyDictionary[Rows, tuple[Model, int, np.ndarray]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    def __reduce__(self) -> tuple:  # a copy knows no rows
        learned = self.quantiles, self.trees, self.weight, self.exceptions, self.distances
        return Scorer, (self.density, self.given, *learned)

    @property
    def exceptions(self) -> np.ndarray | None:
        """The shares (C,) of right cells that do not follow from the others of their rows.

        By these :mod:`discrete_itd.detection.cell_predictions` judges cells; None if no row out of the fit has shown
        them.
        """
        if callable(self.shares):
            self.shares = self.shares()
        return self.shares

    # -- scores ---------------------------------------------------------------------------------

    def explain(self, rows: Rows) -> pd.DataFrame:
        """The score by column: DataFrame of shape (N, C) with the index of the table, nats, not negative.

        NaN in given columns, and where a cell is missing and missingness is not modelled.
        """
        return rows.table(self.terms(rows).copy())

    def score(self, rows: Rows) -> np.ndarray:
        """Minus the row sums of :meth:`explain`, to the last bit: float64, shape (N,); higher is more typical."""
        return row_scores(self.terms(rows))

    def terms(self, rows: Rows) -> np.ndarray:
        """The terms s of (12), (N, C), computed once unless the density has changed since."""
        model, n_evaluations = self.model, self.density.n_evaluations
        check_integer("n_evaluations", n_evaluations, 2)
        known = self._known.get(rows)
        if known is None or known[0] is not model or known[1] != n_evaluations:
            if self.quantiles is None:
                self.quantiles = self.fitted_quantiles()
            shares, models = zip(*self.models, strict=True)
            every = self._nats(rows, *models)
            per_model = zip(shares, every, self.quantiles, strict=True)
            s = sum(share * terms(nats, q) for share, nats, q in per_model)
            s = s + self._broken(rows, [*zip(shares, every, strict=True)])
            if self.distances is not None:
                far = self.distances.terms(self.schema, rows.unique.cpu().double().numpy())
                s = s + far[rows.inverse]
            nats = rows.by_column(np.rint(s / STEP) * STEP)
            known = self._known[rows] = model, n_evaluations, nats
        return known[2]

    def _broken(self, rows: Rows, per_model: list[tuple[float, np.ndarray]]) -> np.ndarray | float:
        r"""Terms (N, C') of cells that break a relation (23) of their columns, by shares and nats of models; else 0.

        Such a cell has :math:`\ell'_{mj} = \ell_{mj} - \log(1 - w)` nats. One that follows has hardly any, so the least
        nats and the q of these are 0.
        """
        pairs = zip(rows.encoder.relations, rows.follows.T, strict=True)
        usual = [(r, f == 0) for r, f in pairs if r.share > USUAL and r.child not in self.given]
        if not usual:
            return 0.0
        terms = np.zeros_like(per_model[0][1])
        for relation, is_broken in usual:
            for share, nats in per_model:
                broken = nats[is_broken, relation.child] - np.log1p(-relation.share)
                terms[is_broken, relation.child] += share * (softplus(broken) - np.log(2))
        return terms

    def _nats(self, rows: Rows, *models: Model) -> list[np.ndarray]:
        """Nats of every internal column under each model, (N, C'); NaN where it is missing or given."""
        x, given = rows.unique, self.given_cells  # rows keep it: not to be made in inference mode
        with torch.inference_mode(), progress_bar(len(x), "explain") as bar:
            asked = Question(x, self.density.n_evaluations, given, bar.update)
            splits = attributions(models, asked)
            each = [split.surprisal for split in splits]
            if self.trees is not None:
                tree_nats = -self.trees.mean_log_factors(x)
                each = [nats + self.weight * (tree_nats - nats) for nats in each]
        absent = x.isnan() if given is None else x.isnan() | given
        each = [nats.masked_fill(absent, torch.nan).cpu().numpy() for nats in each]
        is_scored = np.array([column.codec.volume_is_scored for column in self.schema])
        volume = np.where(is_scored[rows.encoder.owner], rows.log_volume, 0.0)
        return [nats[rows.inverse] - volume for nats in each]

    def fitted_quantiles(self, typical: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """The least nats and the q of (12), (M, 2, C'), in the ``typical`` rows that each model draws.

        Both are 0 for a column that is missing in all of these rows, or given.
        """
        out = []
        for nats_of_model in self._typical() if typical is None else typical:
            columns = [nats[~np.isnan(nats)] for nats in nats_of_model.T]
            levels = 0.0, max(LEVEL, 1 - 1 / max(1, sum(len(n) > 0 for n in columns)))
            out.append([np.quantile(n, levels) if len(n) else (0.0, 0.0) for n in columns])
        return np.array(out).transpose(0, 2, 1)

    def _typical(self) -> list[np.ndarray]:
        """Nats (n, C') of rows that each of the M models draws, under this model."""
        seed = int(np.random.RandomState(self.model.seed).randint(2**31 - 1))
        encoder, device = self.model.encoder, self.model.device
        drawn = []
        for _, model in self.models:
            n_rows = TYPICAL_ROWS if model.denoiser.closed_form else TYPICAL_ALONG_PATHS
            shape = n_rows, len(encoder.owner)
            nothing = torch.full(shape, torch.nan, dtype=torch.float64, device=device)
            drawn.append(model.draw(nothing, seed).cpu().numpy())
        random = np.random.default_rng(seed)
        frame = encoder.write(encoder.inverse_transform(np.concatenate(drawn), rng=random))
        rows = Rows.read(frame, encoder, is_frame=True, by_name=True, device=device)
        ends = np.cumsum([0, *map(len, drawn)])
        return [
            self._nats(rows.take(np.arange(first, last)), model)[0]
            for (_, model), first, last in zip(self.models, ends[:-1], ends[1:], strict=True)
        ]

    def compare(self, cells: np.ndarray) -> None:
        """Add distances from the rows (N, C') of the fit, in random order, to the score, unless columns are given."""
        distances = None if self.given else Distances.of(self.schema, cells)
        if distances is None:
            return
        typical = self._typical()
        self.quantiles = self.fitted_quantiles(typical)
        of_models = zip(self.models, typical, self.quantiles, strict=True)
        sigma = sum(share * row_scores(terms(n, q)).std() for (share, _), n, q in of_models)
        part = len(distances.columns) / len(self.schema)
        self.distances = replace(distances, sigma=float(sigma * part))

    @property
    def rounding(self) -> float:
        """Bound on the rounding error of a score, relative to 1 + |score|.

        The error of n roundings is at most n times the unit roundoff (Higham, "Accuracy and Stability of Numerical
        Algorithms", 2002, section 3.1).
        """
        return ROUNDINGS * torch.finfo(self.model.denoiser.codebook.known_snr.dtype).eps / 2

    # -- model ---------------------------------------------------------------------------

    @cached_property
    def given_cells(self) -> Tensor | None:
        """Which internal columns are given, (C',); None if none are."""
        if not self.given:
            return None
        mask = np.isin(self.density.encoder_.owner, self.given)
        return torch.from_numpy(mask).to(self.density.model_.device)

    @cached_property
    def vocabularies(self) -> list[Vocabulary | None]:
        """The texts of each column of levels of text, with their counts in training; None for other columns."""
        marginals, out = self.model.marginals.marginals(), []
        for j, column in enumerate(self.schema):
            if not (column.is_text and column.has_levels and column.open):
                out.append(None)
                continue
            p = marginals.column(j)[0].double().exp().cpu().numpy()
            # less what smoothing added to the counts
            n_smoothed = column.n_rows - column.n_missing + len(p) / 2 + column.codec.unseen_count
            out.append(Vocabulary(column, (p * n_smoothed - 0.5)[: column.codec.n_levels]))
        return out

    @property
    def model(self) -> Model:
        """The density's model as it is now, without the factors (23) of columns that follow.

        The score (12) has terms of its own for cells that do not follow.
        """
        return self.density.model_.plain

    @property
    def models(self) -> tuple[tuple[float, Model], ...]:
        """The M models of (12), the fitted one first, with their shares v."""
        if self.given:
            return ((1.0, self.model),)
        return ((self.model.shares[0], self.model), *self.model.others)

    @property
    def schema(self) -> Sequence[Column]:
        """The columns of the table."""
        return self.density.encoder_.schema


def small_trees(density: DiffusionDensity, x: Tensor, seed: int) -> ForestDenoiser:
    """Density trees, each grown and counted on a few rows drawn for it.

    ``x`` (N, C') are the encoded rows that ``density`` was fitted to, or a sample of them; the trees are smoothed
    towards its independent columns.
    """
    base = density.model_.marginals
    book, random = base.codebook, np.random.default_rng(seed)
    rows = [random.permutation(len(x))[:ROWS_OF_TREE] for _ in range(SMALL_TREES)]
    cells = x[torch.from_numpy(np.concatenate(rows)).to(x.device)]
    tree = torch.arange(SMALL_TREES, device=x.device).repeat_interleave(len(rows[0]))
    seed = int(random.integers(2**31 - 1))
    splits = grow(book, cells, n_trees=SMALL_TREES, min_leaf=FEWEST_LEAF_ROWS, seed=seed, tree=tree)
    return responsible(splits, base, cells, tree)


def scorer_of(model: DiffusionDensity | Scorer) -> Scorer:
    """A scorer unchanged, or the scorer of a density."""
    return model if isinstance(model, Scorer) else Scorer(model)


def terms(nats: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """The terms s (12) of ``nats`` (N, C') under one model, whose least nats and q are ``quantiles`` (2, C')."""
    least, q = quantiles
    return softplus(np.maximum(nats, least) - q) - softplus(least - q)  # (12)


def softplus(z: np.ndarray) -> np.ndarray:
    """The logarithm of 1 + exp z."""
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def row_scores(nats: pd.DataFrame | np.ndarray) -> np.ndarray:
    """The scores (N,) of rows whose terms s of (12) are ``nats`` (N, C); NaN terms are ignored."""
    return 0.0 - np.nansum(np.asarray(nats, dtype=float), 1)
