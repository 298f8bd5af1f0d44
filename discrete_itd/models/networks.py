"""Recipes of networks that correct an exact base, and the order in which a causal one conditions the columns.

Whatever the order, a network can in principle represent every distribution; but columns that follow from others, like
an instalment from amount, rate and months, are learned only if they come after these. The regressions that a network
starts from (:mod:`discrete_itd.denoisers.causal`) indicate this as well as the first steps of a training do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from discrete_itd.denoisers import CausalDenoiser, Denoiser, NeuralDenoiser
from discrete_itd.denoisers.bayes_net import BayesNetDenoiser
from discrete_itd.denoisers.causal import start_from_regressions
from discrete_itd.denoisers.following import with_children_last
from discrete_itd.denoisers.marginal import indicators
from discrete_itd.denoisers.neural import LONG, RANK
from discrete_itd.denoisers.row_mixture import RowMixtureDenoiser, fit_weights
from discrete_itd.models.comparison import CandidateModel, CandidateTable
from discrete_itd.models.decoder_mixture import Mixture
from discrete_itd.models.exact import BASE_TABLE, BASE_WORK, BayesNet, choose_base, exact_base
from discrete_itd.models.fitting import FitPlan, Fitted, Recipe
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.progress import stage
from discrete_itd.training import mean_and_error
from discrete_itd.training.loop import Evaluation, Report, TrainingPlan
from discrete_itd.validation import check_real

SIZES = {"width": (1, 1 << 16), "depth": (0, 1 << 16)}  # bounds of a network's parameters
MOST_WEIGHTS = 1 << 21  # most weights of the last map of a network that "auto" and "best" train
# Orders of the columns are compared on tables of at least FEWEST_COMPARED rows, by at most COMPARED_ROWS held-out rows.
FEWEST_COMPARED, COMPARED_ROWS = 1000, 2048
QUICK_MIXTURE = Mixture(2048, n_points=1024, max_steps=200)  # companion of a causal network
# More than MANY_ROWS rows of categories alone are learned by fewer steps of larger batches, at a higher rate and with
# less dropout. Where columns are continuous as well, this cost .02 nats (flights), .12 (mammography), more (shuttle).
MANY_ROWS = 3080
# Training cells for each weight of a linear map to the answers about levels, from which on a network has one. It gained
# .07 to .15 nats on binary tables of 60 to 100 cells a weight, and cost .01 and .27 with 10 and 5.
CELLS_OF_WEIGHT = 32
# Most floats of a table of the Bayesian network that a causal network corrects. It is conditioned on the columns before
# alone: no columns are summed out.
CORRECTED_TABLE = 1 << 20
ORDERS = "natural", "explained first", "numbers last"  # compared kinds of order, see order_of


@dataclass(frozen=True)
class Network(Recipe):
    """A neural network that corrects an exact base.

    Parameters
    ----------
    width, depth : int
        Hidden units and blocks of the residual network.
    dropout : float
        Share of hidden units dropped in training.
    base : "auto", or the name or recipe of an exact denoiser
        The model that the network corrects. "auto" takes the one that predicts held-out rows best among independent
        columns, a tree and a Bayesian network with small tables.

    Notes
    -----
    A base with many parameters fits its own training rows too well for the network to learn where it errs: mixtures
    with many classes are better members of a mixture of rows than bases.
    """

    width: int = 256
    depth: int = 3
    dropout: float = 0.1
    base: str | Recipe = "auto"
    trains = True
    name = "network"
    bounds: ClassVar = SIZES

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Fitted:
        """Choose the base, then train."""
        most_table = min(BASE_TABLE, BASE_WORK // max(1, rows.codebook.levels.n_columns))
        base = choose_base(self.base, rows, plan, BayesNet(max(1, most_table)))
        sizes = {"width": self.width, "depth": self.depth, "dropout": self.dropout}
        generator = torch.Generator().manual_seed(plan.network_seed)
        denoiser = NeuralDenoiser(base, **sizes, generator=generator).to(rows.device)
        report = plan.train(denoiser, rows)
        if base is not rows.marginals:
            # the history begins with independent columns: the base's gain has a closed form
            alone, stderr = mean_and_error(rows.held_out(rows.marginals))
            first = report.history[0].valid_nats + alone - rows.held_out_nats(base)
            report.history.insert(0, Evaluation(0, 0.0, math.nan, math.nan, first, stderr))
        return Fitted(denoiser, report)

    def check(self) -> Recipe:
        check_settings(self)
        return super().check()


@dataclass(frozen=True)
class Causal(Recipe):
    """A masked network that corrects an exact base along a random order of the columns: one call a score.

    Parameters
    ----------
    width, depth : int
        Hidden units and blocks of the network. By default the width is 128 or, with more than 50 000 cells, 256.
    dropout : float, optional
        Share of hidden units dropped in training. By default a quarter; a tenth for more than 3 080 rows of categories
        alone; 0 for tables of at least 10 000 rows with continuous columns, as dropout is noise in the predicted means.
    base : "auto", or the name or recipe of independent columns, a tree or a Bayesian network
        The model that the network corrects. "auto" takes the one that predicts held-out rows best among independent
        columns, a tree and a Bayesian network.

    Notes
    -----
    Where cells are missing, a network may be worse than the base that it corrects: then the model is the mixture of
    rows (10) of both. A network conditions each column on those before it only. Other conditional distributions, like
    imputation, need an exact denoiser of the same rows beside it: the base or, with continuous columns, the mixture of
    rows (10) of it and a :class:`Mixture`. No columns are summed out of what is corrected, so by default it may be a
    Bayesian network of larger tables than the base beside it.
    """

    width: int | None = None
    depth: int = 1
    dropout: float | None = None
    base: str | Recipe = "auto"
    trains = True
    name = "causal"
    bounds: ClassVar = SIZES

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Fitted:
        base = rows.once(("causal", self.base), lambda: self.chosen_base(rows, plan))
        # a quarter of the time is left to the mixture
        network_plan = plan.within(0.75) if asks_mixture(rows, plan) else plan
        denoiser, report = self.train_one(self.corrected(base, rows, plan), rows, network_plan)
        answers = rows.once(("companion", base), lambda: companion(base, rows, plan))
        return Fitted(never_worse(denoiser, base, rows), report, answers)

    def is_affordable(self, rows: TrainingRows) -> bool:
        """Whether a network of this table is small enough to be trained in a reasonable time."""
        book, n_components = rows.codebook, rows.marginals.mixture.shape[2]
        n_levels = sum(n if n <= LONG else RANK for n in book.levels.cardinalities)
        n_answers = n_levels + 3 * n_components * len(book.reals)
        return self._width(rows) * n_answers <= MOST_WEIGHTS

    def _width(self, rows: TrainingRows) -> int:
        return self.width or (128 if rows.x.numel() <= 50_000 else 256)

    def chosen_base(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        """The base that the network corrects; TypeError if it has no distributions given the preceding columns."""
        # no limit on its work: unlike the base of a Network, it only conditions on preceding columns
        base = choose_base(self.base, rows, plan)
        if type(base).preceding is Denoiser.preceding:
            raise TypeError(
                f"base={self.base!r}: a {type(base).__name__} cannot be that of a causal network,"
                " for it does not define preceding()"
            )
        return base

    def corrected(self, base: Denoiser, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        """The base of the network: a Bayesian network of larger tables, if it predicts held-out rows better.

        The exact ``base`` still answers questions for which columns are summed out. Where categories are missing, a
        larger network would have to sum them out in held-out rows, and its families often miss a parent.
        """
        cells = torch.cat([rows.x, rows.x_valid])[:, rows.codebook.finite]
        is_fitted = self.base == "auto" and isinstance(base, BayesNetDenoiser)
        if not is_fitted or not plan.time_left or bool(cells.isnan().any()):
            return base
        large = BayesNet(CORRECTED_TABLE)
        other = rows.attempt(large, large.label, lambda: large.fit_base(rows, plan.within(0.25)))
        return base if other is None else min(base, other, key=rows.held_out_nats)

    def train_one(
        self, base: Denoiser, rows: TrainingRows, plan: FitPlan
    ) -> tuple[CausalDenoiser, Report]:
        """A trained network and its report; the plan's seed determines its order."""
        # a new generator: the order must not depend on earlier fits
        generator = torch.Generator().manual_seed(plan.network_seed)
        natural = base.natural_order(generator)
        # index 0 for all networks: the result must not depend on which one requests it first
        seeds = replace(plan, index=0)
        kind = rows.once(("order", self, base), lambda: self.kind_of_order(base, rows, seeds))
        order = order_of(kind, natural, rows)
        denoiser = self.untrained(base, order, rows, plan.network_seed)
        report = plan.train(denoiser, rows, self.training(plan.training, rows))
        return denoiser.eval().requires_grad_(False), report

    def untrained(
        self,
        base: Denoiser,
        order: list[int],
        rows: TrainingRows,
        seed: int,
    ) -> CausalDenoiser:
        """The network before its training."""
        dropout, book = self.dropout, rows.codebook
        if dropout is None:
            is_large = len(rows.x) >= 10_000 and len(book.reals) > 0
            dropout = 0.0 if is_large else 0.1 if has_many_categories(rows) else 0.25
        generator = torch.Generator().manual_seed(seed)
        n_changed = int((~book.levels.level_unseen).sum()) - len(book.finite)  # changed levels
        n_weights = n_changed * (n_changed + book.n_columns)
        denoiser = CausalDenoiser(
            base,
            order,
            width=self._width(rows),
            depth=self.depth,
            dropout=dropout,
            maps_levels=CELLS_OF_WEIGHT * n_weights <= rows.x.numel(),
            generator=generator,
        ).to(rows.device)
        start_from_regressions(denoiser, rows.x)
        return denoiser

    def kind_of_order(self, base: Denoiser, rows: TrainingRows, plan: FitPlan) -> str:
        """The kind of order in which the regressions that a network starts from predict held-out rows best.

        It is "natural" unless another kind is better by more than a standard error. A few training steps would be no
        more informative than regressions, and many cost more than an order gains.
        """
        generator = torch.Generator().manual_seed(plan.network_seed)
        natural = base.natural_order(generator)
        orders: dict[tuple[int, ...], str] = {}
        for kind in ORDERS:
            orders.setdefault(tuple(order_of(kind, natural, rows)), kind)
        if len(orders) == 1 or len(rows.x) < FEWEST_COMPARED:
            return ORDERS[0]
        x, nats = rows.x_valid[:COMPARED_ROWS], {}
        for order, kind in orders.items():
            if nats and not plan.time_left:
                return ORDERS[0]
            with stage("comparing orders of the columns"), torch.no_grad():
                network = self.untrained(base, list(order), rows, plan.network_seed).eval()
                nats[kind] = -network.log_prob(x).double()
        best = min(nats, key=lambda kind: float(nats[kind].mean()))
        gain, error = mean_and_error(nats[ORDERS[0]] - nats[best])
        return best if gain > error else ORDERS[0]

    def training(self, training: TrainingPlan, rows: TrainingRows) -> TrainingPlan:
        """Training settings for a table: masked networks learn in fewer steps than others.

        Many rows of categories alone are learned by few steps of large batches; densities of numbers need more steps.
        """
        n_rows, batch_size = len(rows.x), 256
        steps = min(max(300, 25 * n_rows // batch_size), 800)
        made = replace(
            training,
            max_steps=min(training.max_steps, steps),
            batch_size=batch_size,
            learning_rate=8e-3,
            weight_decay=0.02,
            n_validations=20,
            patience=3,
        )
        if not has_many_categories(rows):
            return made
        steps, moments = min(training.max_steps, 400), (0.9, 0.98)
        rate = {"learning_rate": 1.2e-2, "betas": moments, "warmup": 20}
        return replace(made, max_steps=steps, batch_size=512, **rate)

    def check(self) -> Recipe:
        check_settings(self)
        return super().check()


def has_many_categories(rows: TrainingRows) -> bool:
    """Whether a table has more than MANY_ROWS rows, and no continuous columns."""
    return len(rows.x) > MANY_ROWS and not len(rows.codebook.reals)


def never_worse(denoiser: Denoiser, base: Denoiser, rows: TrainingRows) -> Denoiser:
    """A causal denoiser, or if its base predicts held-out rows better, the mixture of rows (10) of both.

    Given a missing parent, a base has no cheap distribution of the next column: the network starts from its marginal.
    """
    if rows.held_out_nats(denoiser) <= rows.held_out_nats(base):
        return denoiser
    members = [denoiser, base]
    weights = fit_weights(-torch.stack([rows.held_out(m) for m in members], 1))
    # main: the network that was asked for
    return RowMixtureDenoiser(rows.codebook, members, weights.clamp_min(1e-6), main=1)


def asks_mixture(rows: TrainingRows, plan: FitPlan) -> bool:
    """Whether a causal network needs a mixture as companion, because continuous columns are independent in a base."""
    return bool(len(rows.codebook.reals) and plan.training.max_steps and not plan.is_beside_mixture)


def companion(base: Denoiser, rows: TrainingRows, plan: FitPlan) -> Denoiser:
    """The exact denoiser for conditionals that a causal one lacks: the base, mixed with a mixture for numbers."""
    if plan.is_beside_mixture or not plan.time_left:
        return base

    def candidate(denoiser: Denoiser) -> CandidateModel:
        return CandidateModel(type(denoiser).__name__, denoiser, rows.held_out(denoiser), 0.0)

    exact = [candidate(base)]
    if asks_mixture(rows, plan):
        mixture = rows.attempt(
            QUICK_MIXTURE, "mixture", lambda: candidate(QUICK_MIXTURE.fit(rows, plan))
        )
        exact += [mixture] if mixture is not None else []
    return CandidateTable(rows).mixture(exact).denoiser


def check_settings(recipe: Network | Causal) -> None:
    """Raise an error if the dropout is no share of hidden units or the base not exact."""
    if (share := recipe.dropout) is not None or isinstance(recipe, Network):
        check_real("dropout", share)
        if not 0 <= cast(float, share) < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {share!r}")
    if recipe.base != "auto":
        exact_base(recipe.base)


def order_of(kind: str, natural: Sequence[int], rows: TrainingRows) -> list[int]:
    """An order of all columns, derived from a base's ``natural`` order, each indicator directly before its column.

    "explained first" begins with the categorical columns that explain an eighth or more of the variance of a continuous
    column, then the continuous columns, the least explained first; "numbers last" ends with the continuous columns.
    Columns that follow from others (23) come last in any of them.
    """
    book, place = rows.codebook, dict.fromkeys(natural, (0, 0.0))
    reals = book.reals.tolist()
    if kind == "numbers last":
        place |= dict.fromkeys(reals, (1, 0.0))
    if kind == "explained first":
        shares = rows.once("explained variance", lambda: explained_variance(rows))
        explaining = (shares >= 1 / 8).any(0)
        place |= dict.fromkeys(book.finite[explaining].tolist(), (-2, 0.0))
        explained = shares[:, explaining].sum(1).tolist()
        place |= {j: (-1, share) for j, share in zip(reals, explained, strict=True)}
    order = sorted(natural, key=place.__getitem__)
    return book.in_order(with_children_last(order, rows.relations))


def explained_variance(rows: TrainingRows) -> Tensor:
    """Share of the variance of each continuous column that each category column explains: (R, F).

    Rows count in which both cells are known. Shares are adjusted for the number of categories: noise explains nothing.
    """
    book, levels = rows.codebook, rows.codebook.levels
    x = rows.x[:: -(-len(rows.x) // 4096) or 1]
    y = x[:, book.reals]
    is_level = indicators(book, x).to(y)  # (N, T)
    known = (~y.isnan()).to(y)
    y = y.nan_to_num(0.0) - y.nanmean(0).nan_to_num(0.0) * known
    column = levels.level_column

    def by_column(values: Tensor) -> Tensor:
        """Sums (F, R) over the levels of each column."""
        return values.new_zeros(levels.n_columns, y.shape[1]).index_add(0, column, values)

    n, sums, squares = (is_level.T @ part for part in (known, y, y.square()))  # (T, R)
    n_rows, total = (
        by_column(n),
        by_column(squares) - by_column(sums).square() / by_column(n).clamp_min(1),
    )
    within = by_column(squares - sums.square() / n.clamp_min(1))
    freedom = n_rows - by_column((n > 0).to(n))
    unexplained = (within / freedom) / (total / (n_rows - 1))
    return (1 - unexplained).nan_to_num(0.0).clamp(0.0, 1.0).T
