"""A fitted model: the schema of a table, a denoiser of its rows, and the schedule on which they are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any, cast

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel import Codebook, CoordinateSchedule, Schedule
from discrete_itd.channel.schedules import check_schedule
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, RowMixtureDenoiser
from discrete_itd.denoisers.base import ESTIMATORS, in_blocks
from discrete_itd.denoisers.following import FollowingDenoiser, following
from discrete_itd.denoisers.row_mixture import factors_of_each
from discrete_itd.devices import threads_for
from discrete_itd.encoders import ABSENT, TableEncoder
from discrete_itd.encoders.rows import unique_rows
from discrete_itd.likelihood import (
    Attribution,
    Estimate,
    integral_log_prob,
    path_log_prob,
)
from discrete_itd.likelihood.conditional import ConditionalDenoiser
from discrete_itd.likelihood.sampling import sample
from discrete_itd.storage.values import AnyFloat, Unbuilt
from discrete_itd.training import mean_and_error, pilot_quadrature
from discrete_itd.validation import check_choice

POSTERIOR_FLOATS = 1 << 23  # most floats of the posteriors of one denoiser call


@dataclass(frozen=True)
class HeldOut:
    """Mean code lengths of ``n_rows`` held-out rows, in nats per encoded row (without ``log_volume``).

    ``independent`` is the code length under independent columns fitted to the same training rows. Standard errors are
    over rows (NaN for one row); ``gain_stderr`` is the standard error of :attr:`gain`.
    """

    n_rows: int
    nats: float
    stderr: AnyFloat
    independent: float
    independent_stderr: AnyFloat
    gain_stderr: AnyFloat

    @property
    def gain(self) -> float:
        return self.independent - self.nats

    @classmethod
    def measure(
        cls, model: Model, x: Tensor, n_evaluations: int, n_rows: int | None = None
    ) -> HeldOut:
        """Nats of held-out rows ``x`` (N', C'), at most ``n_rows`` of them if the model scores along paths.

        Along paths at most 256 rows are scored, or 32 if the model computes many floats for a row.
        """
        if not model.denoiser.closed_form:
            most = min(256, max(32, (1 << 20) // model.denoiser.row_work))
            x = x[: min(most, n_rows or most)]
        nats = -model.log_prob(x, n_evaluations).log_prob.double()
        independent = nats
        if model.denoiser is not model.marginals:
            independent = -model.marginals.log_prob(x).double()
        pairs = [mean_and_error(t) for t in (nats, independent, independent - nats)]
        return cls(len(x), *pairs[0], *pairs[1], pairs[2][1])


def columns_of(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns of a table as lists, which a file can hold."""
    return {str(name): table[name].tolist() for name in table}


def table_of(columns: Any) -> pd.DataFrame:
    """The table whose columns a file holds; ValueError if they are no lists of one length, of numbers and text."""
    if not isinstance(columns, dict) or not all(isinstance(v, list) for v in columns.values()):
        raise ValueError("no mapping of lists")
    if any(isinstance(cell, list | dict) for column in columns.values() for cell in column):
        raise ValueError("its cells must be numbers or text")
    return pd.DataFrame(columns)


StoredTable = Annotated[pd.DataFrame, (columns_of, table_of)]


@dataclass(frozen=True, eq=False)
class Question:
    """The arguments of :meth:`Model.log_prob`."""

    x: Tensor
    n_evaluations: int
    given: Tensor | None = None
    progress: Callable[[int], object] | None = None

    def show(self, n_done: int) -> None:
        if self.progress is not None:
            self.progress(n_done)


@dataclass(frozen=True)
class Model:
    """The result of a fit: what scoring, explaining and sampling need.

    Parameters
    ----------
    encoder : TableEncoder
    denoiser : Denoiser
        Scores, explains and draws rows.
    marginals : MarginalDenoiser
        Independent columns fitted to the same rows, for comparison.
    schedule : Schedule
    seed : int
        Seed of the random orders and the noise on which rows are scored.
    history : DataFrame
        One line per validation during training.
    candidates : DataFrame or None
        Nats and costs of the compared models, and their parts in the chosen one.
    stopped : str
        Why training ended.
    companion : Denoiser, optional
        Exact denoiser beside one whose only closed form is the score of complete rows; see :attr:`conditional`.
    members : tuple of Denoiser
        Further denoisers in the anomaly score, besides the members of a ``denoiser`` that is a mixture of rows.
    shares : tuple of float
        Weights in the anomaly score, adding up to one: of the denoiser and, unless (1.0,), its members and ``members``.
    held_out : HeldOut
    fit_seconds : float
        Duration of the whole fit.
    microseconds : float
        Time in which a held-out row was scored, by independent columns too, on the machine of the fit.
    """

    encoder: TableEncoder
    denoiser: Denoiser
    marginals: MarginalDenoiser
    schedule: Schedule
    seed: int
    history: StoredTable
    stopped: str
    candidates: StoredTable | None = None
    companion: Denoiser | None = None
    members: tuple[Denoiser, ...] = ()
    shares: tuple[float, ...] = (1.0,)
    held_out: HeldOut = HeldOut(0, *[math.nan] * 5)
    fit_seconds: AnyFloat = math.nan
    microseconds: AnyFloat = math.nan

    @classmethod
    def from_fields(
        cls,
        encoder: TableEncoder,
        denoiser: Unbuilt,
        marginals: Unbuilt,
        companion: Unbuilt | None,
        members: tuple[Unbuilt, ...],
        shares: tuple[float, ...],
        **fields: Any,
    ) -> Model:
        """The model of a file, whose denoisers are functions from a codebook."""
        check_schedule(fields["schedule"], len(encoder.owner))
        book = encoder.codebook().to(marginals.dtype)
        independent, exact = marginals(book), None if companion is None else companion(book)
        assert isinstance(independent, MarginalDenoiser)
        scorer, others = denoiser(book), tuple(member(book) for member in members)
        if exact is not None:  # a part that equals the companion is called once, as one object
            exact = next((d for d in (*parts_of(scorer), *others) if d.equals(exact)), exact)
        how = {"companion": exact, "members": others, "shares": shares}
        model = cls(encoder, scorer, independent, **how, **fields)
        n = len(parts_of(model.denoiser)) + len(members)
        if len(shares) not in (1, n) or not math.isclose(sum(shares), 1) or min(shares) < 0:
            raise ValueError(f"shares of {n} denoisers are {shares}")
        return model

    def to(self, device: torch.device) -> Model:
        parts = {name: getattr(self, name) for name in ("denoiser", "marginals", "companion")}
        parts = {k: None if p is None else p.to(device) for k, p in parts.items()}
        return replace(self, **parts, members=tuple(m.to(device) for m in self.members))

    @cached_property
    def plain(self) -> Model:
        """The model without the factors (23) of columns that follow, which has the nats of the anomaly score."""
        if not self.encoder.relations:
            return self
        return replace(self, encoder=self.encoder.with_only(()))

    @cached_property
    def scorer(self) -> Denoiser:
        """The denoiser with the factors (23) of columns that follow, if it scores in closed form and there are any."""
        return following(self.denoiser, self.encoder.related)

    @cached_property
    def others(self) -> tuple[tuple[float, Model], ...]:
        """The other models in the anomaly score, of one denoiser each, with their shares."""
        parts = *parts_of(self.denoiser), *self.members
        alone = replace(self, members=(), shares=(1.0,))
        return tuple(
            (share, replace(alone, denoiser=d, companion=None if d.exact else self.anywhere))
            for d, share in zip(parts[1:], self.shares[1:], strict=False)
            if share
        )

    @cached_property
    def conditional(self) -> Denoiser:
        """The denoiser for conditional distributions: the scorer, if it has them in closed form.

        Else it enumerates the scorer's conditionals (13), with the exact denoiser or the companion as proposal.
        """
        scorer, exact = self.scorer, self.anywhere
        if not exact.exact or scorer.exact or not scorer.closed_form:
            return self.anywhere
        learned = [self.denoiser.exact for _ in self.encoder.schema]
        learned = (
            learned
            if self.denoiser.exact
            else [
                c.n_missing >= 0.01 * max(1, c.n_rows) and not c.informative
                for c in self.encoder.schema
            ]
        )
        has_gaps = [learned[j] for j in self.encoder.owner.tolist()]
        return ConditionalDenoiser(scorer, exact, has_gaps)

    def conditional_of(self, x: Tensor, column: int) -> tuple[Denoiser, Tensor]:
        """The denoiser for the distribution of a column given the other cells of rows ``x`` (N, C'), and these rows.

        A column of no relation (23) has the posterior of an exact model without the cells that follow: they say nothing
        besides what they follow from, but for the 1 - w of them that would have been as they are anyway.
        """
        scorer = self.scorer
        if not self.denoiser.exact or not isinstance(scorer, FollowingDenoiser):
            return self.conditional, x
        if column in self.encoder.related.columns:
            return self.conditional, x
        return self.plain.conditional, scorer.without_followers(x)

    @property
    def anywhere(self) -> Denoiser:
        """The denoiser for any state, noisy ones included: the companion, if there is one."""
        return self.companion or self.denoiser

    @property
    def of_any_columns(self) -> Model:
        """The model for probabilities of some columns alone: this one, or its companion if it has one.

        A scorer with a companion sums cells out by sampling, whose error is not known well enough for the entropy of a
        few columns where many are left out. Columns that follow have no factors (23) of their own, for the mass of some
        columns is then no sum over the others.
        """
        return replace(self.plain, denoiser=self.anywhere, companion=None)

    @property
    def curved(self) -> Denoiser:
        """The denoiser whose error at every SNR is plotted: the scorer, or its companion if it has no integral.

        A mixture of rows with a member that is not exact has no integral.
        """
        has = "integral" in self.denoiser.estimators
        if not has or (isinstance(self.denoiser, RowMixtureDenoiser) and not self.denoiser.exact):
            return self.anywhere
        return self.denoiser

    @property
    def device(self) -> torch.device:
        return self.denoiser.codebook.device

    @property
    def batch_size(self) -> int:
        return max(16, min(2048, POSTERIOR_FLOATS // self.denoiser.codebook.work))

    def posteriors_at_once(self, denoiser: Denoiser) -> int:
        """Most rows whose posteriors one call of a denoiser computes, so that memory is bounded."""
        return max(16, min(self.batch_size, POSTERIOR_FLOATS // denoiser.row_work))

    def log_prob(
        self,
        x: Tensor,
        n_evaluations: int,
        *,
        given: Tensor | None = None,
        estimator: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Estimate:
        """Log-probabilities of encoded rows ``x`` (N, C'), float64; a closed form has standard error 0.

        Parameters
        ----------
        n_evaluations : int
            Denoiser evaluations per row along paths; with missingness indicators, those for the indicators and those
            for the other columns together (:func:`split_evaluations`). For the integral, noise levels of a row.
        given : Tensor of bool, shape (C',), optional
            Columns to condition on.
        estimator : {"closed_form", "path", "integral", "marginal"}, optional
            By default the first that the denoiser has; with ``given``, "marginal" where the scorer is not exact; any
            other is the companion's. ValueError if the denoiser that answers does not have it.
        progress : callable, optional
            Called with the number of rows done since the last call.
        """
        asked = Question(x, n_evaluations, given, progress)
        if isinstance(self.conditional, ConditionalDenoiser):
            is_exact = self.denoiser.exact
            by_scores = given is not None and estimator is None and not is_exact
            # of a single column, the distribution that follows from the scores of its values (13)
            if is_exact and given is not None and estimator in (None, "marginal"):
                by_scores = len(set(self.encoder.owner[~given.cpu().numpy()])) == 1
            if by_scores or (estimator == "marginal" and not is_exact):
                return self._marginal(self.conditional, asked)
            if estimator is None and not is_exact:
                return Estimate(*self._in_batches(self.conditional.score, self.denoiser, asked))
        exact, denoiser = self.anywhere, self.scorer
        if given is not None:
            denoiser = following(exact, self.encoder.related)
        if estimator == "marginal" and exact.exact:
            estimator = "closed_form"
        if estimator is not None:
            check_choice("estimator", estimator, (*ESTIMATORS, "marginal"))
            if estimator not in denoiser.estimators:
                raise ValueError(missing_estimator(estimator, denoiser))
        return self._estimate(estimator or denoiser.estimators[0], denoiser, asked)

    def attribution(
        self,
        x: Tensor,
        n_evaluations: int,
        *,
        given: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Attribution:
        """:meth:`log_prob` with the surprisal of each internal column; with ``given`` by the companion, if any."""
        return attributions([self], Question(x, n_evaluations, given, progress))[0]

    def _attribution(self, asked: Question) -> Attribution:
        """:meth:`attribution` along paths, or with some columns given."""
        denoiser = self.denoiser if asked.given is None else self.anywhere
        if denoiser.closed_form:
            return self._chain(following(denoiser, self.encoder.related), asked)
        with self._threads(denoiser, asked.x):
            parts = self._of_paths(denoiser, asked)
        return Attribution(*_product(parts), torch.stack([p.surprisal for p in parts]).sum(0))

    def _threads(self, denoiser: Denoiser, x: Tensor) -> AbstractContextManager[None]:
        return threads_for(min(len(x), self.batch_size) * denoiser.score_work)

    def _in_batches(
        self, call: Callable[[Tensor], tuple[Tensor, ...]], denoiser: Denoiser, asked: Question
    ) -> tuple[Tensor, ...]:
        parts = []
        with self._threads(denoiser, asked.x):
            for rows in asked.x.split(self.batch_size):
                parts.append(call(rows))
                asked.show(len(rows))
        return tuple(torch.cat(t) for t in zip(*parts, strict=True))

    def _in_blocks(
        self, call: Callable[[Tensor], Tensor], denoiser: Denoiser, asked: Question
    ) -> Tensor:
        """Results of a function of rows, float64, computed in whole blocks: they do not depend on the other rows."""
        size = self.batch_size

        def rounded(rows: Tensor) -> tuple[Tensor]:
            return (torch.cat(list(in_blocks(call, rows, batch_size=size))).double(),)

        return self._in_batches(rounded, denoiser, asked)[0]

    # -- closed forms ---------------------------------------------------------------------------

    @torch.no_grad()
    def _closed_form(self, denoiser: Denoiser, asked: Question) -> Estimate:
        """Closed form of log P(x); with ``given``, minus the log-probability of the given cells.

        Given columns come first: relations (23) of which the child is given do not count.
        """
        given, plain, children = asked.given, denoiser, None
        if isinstance(denoiser, FollowingDenoiser):
            plain, children = denoiser.base, list(denoiser.relations.children)

        def call(rows: Tensor) -> Tensor:
            if given is None:
                return denoiser.log_prob(rows).double()
            left_out = () if children is None else (given[children].expand(len(rows), -1),)
            log_prob = denoiser.log_prob(rows, *left_out).double()
            return log_prob - plain.log_prob(rows.masked_fill(~given, math.nan)).double()

        log_p = self._in_blocks(call, denoiser, asked)
        return Estimate(log_p, torch.zeros_like(log_p))

    def _chain(self, denoiser: Denoiser, asked: Question) -> Attribution:
        r"""The chain rule in one order of the columns that are not given, in closed form.

        A column has :math:`\log P(x_{\le j} | x_{given}) - \log P(x_{< j} | x_{given})`; the last known cell has the
        rest of the whole.
        """
        x, known = asked.x, cast(Tensor, asked.given).clone()
        whole = self._closed_form(denoiser, asked)
        if self.denoiser.exact:
            whole = self.log_prob(x, asked.n_evaluations, given=asked.given)
        order = denoiser.natural_order(torch.Generator().manual_seed(self.seed))
        order = [j for j in order if not known[j]]
        out, before = torch.zeros_like(x), torch.zeros_like(whole.log_prob)
        for j in order[:-1]:
            known[j] = True
            part = replace(asked, x=x.masked_fill(~known, math.nan), progress=None)
            after = self._closed_form(denoiser, part).log_prob.where(~x[:, j].isnan(), before)
            out[:, j], before = after - before, after
        if order:
            missing = x[:, order].isnan()
            last = len(order) - 1 - (~missing).flip(1).long().argmax(1, keepdim=True)
            column = torch.tensor(order, device=x.device)[last]
            out.scatter_add_(1, column, (whole.log_prob - before)[:, None])
        return Attribution(*whole, -out)

    # -- conditionals of a scorer that is not exact (13) ----------------------------------------

    def _marginal(self, conditional: ConditionalDenoiser, asked: Question) -> Estimate:
        """Log-probability of the known cells under the scorer; with ``given``, conditional on the given ones (13).

        With ``given``, missing cells whose missingness the scorer has learned stay missing in both terms.
        """
        x, given = asked.x, asked.given
        gaps = torch.zeros_like(x) if given is None else conditional.learned_gaps(x).to(x)
        left_out = None
        if given is not None and isinstance(self.scorer, FollowingDenoiser):
            # of several columns, the given ones come first: there a parent that is not given is missing
            n_open = len(set(self.encoder.owner[~given.cpu().numpy()]))
            is_given = given[list(self.scorer.relations.children)] & (n_open > 1)
            left_out = is_given & self.scorer.touching(~given)

        def estimate(x: Tensor, gaps: Tensor) -> Estimate:
            parts = [Estimate(x.new_zeros(0), x.new_zeros(0))]
            for rows, row_gaps in zip(
                x.split(self.batch_size), gaps.split(self.batch_size), strict=True
            ):
                n_draws = asked.n_evaluations
                how = {"gaps": row_gaps > 0, "left_out": left_out}
                parts.append(conditional.marginal(rows, n_draws, self.seed, **how))
            return Estimate(*(torch.cat(t) for t in zip(*parts, strict=True)))

        with self._threads(self.denoiser, x):
            every = estimate(x, gaps)
            asked.show(len(x))
            if given is None:
                return every
            both = torch.cat([x.masked_fill(~given, math.nan), gaps], 1)
            states, inverse = unique_rows(both)  # many rows share their given cells
            part = estimate(*states.chunk(2, 1))
            part = Estimate(*(t[torch.from_numpy(inverse).to(t.device)] for t in part))
        stderr = (every.stderr.square() + part.stderr.square()).sqrt()
        return Estimate(every.log_prob - part.log_prob, stderr)

    # -- paths and integrals --------------------------------------------------------------------

    def _estimate(self, estimator: str, denoiser: Denoiser, asked: Question) -> Estimate:
        if estimator == "closed_form":
            return self._closed_form(denoiser, asked)
        if isinstance(denoiser, RowMixtureDenoiser) and not denoiser.exact:
            # it has no posterior at noisy states: the estimates of its members are mixed (10)
            later = replace(asked, progress=None)
            each = [
                self._estimate(estimator, cast(Denoiser, member), later if i else asked)
                for i, member in enumerate(denoiser.members)
            ]
            joint = torch.stack([e.log_prob for e in each], 1) + denoiser.log_weights
            stderr = torch.softmax(joint, 1) * torch.stack([e.stderr for e in each], 1)
            return Estimate(joint.logsumexp(1), stderr.square().sum(1).sqrt())
        with self._threads(denoiser, asked.x):
            if estimator == "integral":
                parts = [self._integral(denoiser, part) for part in factors(denoiser, asked)]
            else:
                parts = self._of_paths(denoiser, asked)
        return Estimate(*_product(parts))

    def _integral(self, denoiser: Denoiser, asked: Question) -> Estimate:
        """The integral (4) relative to independent columns on the same noise; (3) for independent categories."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        # drawn rows, not the scored ones: a score is a function of the row alone
        rows = self.marginals.draw(512, generator)
        plain = denoiser.independent and not len(denoiser.codebook.reals)
        return integral_log_prob(
            denoiser,
            asked.x,
            pilot_quadrature(self.marginals, rows, generator),
            baseline=None if plain else self.marginals,
            n_points=max(asked.n_evaluations, 8),  # strata are compared in pairs
            generator=torch.Generator().manual_seed(self.seed),
            given=asked.given,
            batch_size=self.posteriors_at_once(denoiser),
            progress=asked.progress,
        )

    def _of_paths(self, denoiser: Denoiser, asked: Question) -> list[Attribution]:
        """The path estimates (6) of :func:`factors`."""
        parts, numbers, schedules = factors(denoiser, asked), [asked.n_evaluations], [self.schedule]
        if denoiser.own_order is not None:
            schedules = [CoordinateSchedule(asked.x.shape[1], denoiser.own_order)]
        elif len(parts) > 1:
            n_steps, *numbers = split_evaluations(asked.n_evaluations, denoiser.codebook)
            if denoiser.exact:  # one indicator a step: a path along coordinates is the closed form
                n_steps = int(denoiser.codebook.leading.sum())
            schedules = [self._indicator_schedule(n_steps), self.schedule]
        return [
            self._path(denoiser, schedule, replace(part, n_evaluations=n))
            for part, n, schedule in zip(parts, numbers, schedules, strict=True)
        ]

    def _path(self, denoiser: Denoiser, schedule: Schedule, asked: Question) -> Attribution:
        """The path estimate on a schedule, shortened by the given columns."""
        given = asked.given
        if given is not None:
            n_free = max(1, int((~given).sum()))
            if n_free == 1:  # one call gives the distribution of a single cell
                schedule = CoordinateSchedule(1)
            elif isinstance(schedule, CoordinateSchedule):
                schedule = CoordinateSchedule(min(n_free, schedule.n_steps), schedule.order)
        return path_log_prob(
            denoiser,
            asked.x,
            schedule,
            n_paths=max(2, asked.n_evaluations // schedule.n_steps),
            given=given,
            # one seed for every row and call: a score depends on the row and the model alone
            generator=torch.Generator().manual_seed(self.seed),
            batch_size=self.posteriors_at_once(denoiser),
            progress=asked.progress,
        )

    def _indicator_schedule(self, n_steps: int) -> CoordinateSchedule:
        return CoordinateSchedule(max(1, n_steps), self.schedule.order)

    # -- draws ----------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, start: Tensor, seed: int) -> Tensor:
        """Rows drawn given the cells of ``start`` (N, C') that are not NaN, by the :attr:`plain` model.

        A cell that is missing by its indicator stays NaN. Cells that follow from others are those of
        :meth:`~discrete_itd.encoders.following.RelatedCells.settled`, in the rows decoded.
        """
        generator, conditional = (
            torch.Generator(self.device).manual_seed(seed),
            self.plain.conditional,
        )
        columns = self.denoiser.codebook.leading.nonzero().flatten()
        owner = torch.from_numpy(self.encoder.owner).to(start.device)[columns]
        if self.denoiser.ancestral and bool(start.isnan().all()):
            sizes = map(len, start.split(self.batch_size))
            x = torch.cat([self.denoiser.draw(n, generator) for n in sizes])
            x[:, owner] = x[:, owner].masked_fill(x[:, columns] == ABSENT, math.nan)
            return x
        if isinstance(conditional, ConditionalDenoiser):
            return conditional.draw_unknown(start, seed)
        drawn = partial(
            sample,
            self.anywhere,
            generator=generator,
            batch_size=self.posteriors_at_once(self.anywhere),
        )
        if not len(columns):
            return drawn(start, self.schedule)
        left = torch.ones_like(start, dtype=torch.bool)
        left[:, columns] = False
        start = drawn(start, self._indicator_schedule(len(columns)), left=left)
        left = torch.zeros_like(left)
        left[:, owner] = start[:, columns] == ABSENT
        return drawn(start, self.schedule, left=left)

    def try_out(self) -> None:
        """Draw two rows and score them, to find defects of a file that no other check finds.

        A ValueError if the scores are not numbers; an invalid model may raise other errors.
        """
        shape = (2, len(self.encoder.owner))
        nothing = torch.full(shape, math.nan, dtype=torch.float64, device=self.device)
        rows = self.encoder.inverse_transform(self.draw(nothing, 0).cpu().numpy())
        cells = torch.from_numpy(self.encoder.transform(rows).x).to(self.device)
        for model in (self, *(model for _, model in self.others)):
            if not bool(model.log_prob(cells, 2).log_prob.isfinite().all()):
                raise ValueError("the model scores its own rows with no number")


def parts_of(denoiser: Denoiser) -> tuple[Denoiser, ...]:
    """The denoiser, and the members of a mixture of rows."""
    inner = denoiser.members if isinstance(denoiser, RowMixtureDenoiser) else ()
    return (denoiser, *(cast(Denoiser, member) for member in inner))


@torch.no_grad()
def attributions(models: Sequence[Model], asked: Question) -> list[Attribution]:
    """:meth:`Model.attribution` of several models of one table; each member of mixtures of rows is called once."""
    if asked.given is not None or not all(model.denoiser.closed_form for model in models):
        return [model._attribution(asked) for model in models]
    x, first, out = asked.x, models[0], []
    call = partial(factors_of_each, [model.scorer for model in models])
    for model, row_factors in zip(
        models, first._in_blocks(call, first.denoiser, asked).unbind(1), strict=True
    ):
        stderr = row_factors.new_zeros(len(x))
        if not model.denoiser.exact and isinstance(model.conditional, ConditionalDenoiser):
            row_factors, stderr = model.conditional.factors(x, row_factors)
        out.append(Attribution(row_factors.sum(1), stderr, -row_factors))
    return out


def missing_estimator(estimator: str, denoiser: Denoiser) -> str:
    """Message that a denoiser does not have an estimator, and which ones it has."""
    why = "has no closed form"
    if denoiser.closed_form:
        why = "scores rows by a closed form that is not the integral of its error at noisy rows"
    those = " and ".join(map(repr, denoiser.estimators))
    return f"estimator={estimator!r}: a {type(denoiser).__name__} {why}; it has {those}"


def factors(denoiser: Denoiser, asked: Question) -> list[Question]:
    """Questions about the conditional factors of a row's probability: missingness indicators come first.

    If a value became known before its indicator, no mass would be left for "the cell is missing", and the total mass
    would exceed one. In a denoiser's own order each indicator stands directly before its column.
    """
    book, given = denoiser.codebook, asked.given
    if not book.has_leading or denoiser.own_order is not None:
        return [asked]
    known = torch.zeros_like(book.leading) if given is None else given
    present = asked.x.masked_fill(~(book.leading | known), math.nan)
    return [replace(asked, x=present), replace(asked, given=known | book.leading)]


def split_evaluations(n_evaluations: int, codebook: Codebook) -> tuple[int, int, int]:
    """Division of a row's evaluations between missingness indicators and the other columns, at least two for each.

    Returned are the steps in which the indicators become known, the evaluations for these, by their share of the
    columns, and the evaluations for the others.
    """
    n_indicators = int(codebook.leading.sum())
    if not n_indicators:
        return 0, 0, n_evaluations
    first = max(2, round(n_evaluations * n_indicators / codebook.n_columns))
    n_steps = min(n_indicators, first // 2)
    used = n_steps * (1 if n_steps == 1 else max(2, first // n_steps))
    return n_steps, first, max(2, n_evaluations - used)


def _product(factors: Sequence[Estimate | Attribution]) -> tuple[Tensor, Tensor]:
    log_prob = torch.stack([f.log_prob for f in factors]).sum(0)
    return log_prob, torch.stack([f.stderr for f in factors]).square().sum(0).sqrt()
