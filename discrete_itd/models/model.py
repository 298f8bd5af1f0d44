"""A fitted model: the schema of a table, a denoiser of its rows, and the schedule on which they are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel import Codebook, CoordinateSchedule, Schedule, check_schedule
from discrete_itd.denoisers import Denoiser, MarginalDenoiser
from discrete_itd.encoders import ABSENT, TableEncoder
from discrete_itd.likelihood import (
    Attribution,
    Estimate,
    in_blocks,
    path_attribution,
    path_log_prob,
)
from discrete_itd.likelihood.sampling import sample
from discrete_itd.likelihood.schedule_search import paths_within
from discrete_itd.storage.configs import (
    CLASS,
    denoiser_from_config,
    floating_type,
    schedule_from_config,
    to_config,
    within,
)
from discrete_itd.storage.files import State
from discrete_itd.storage.schema import building, check_fields, check_table
from discrete_itd.training.loop import seeded

EFFORT = 16  # with max_stderr, a row may take up to this many times n_evaluations
HEADER = {
    "schema": list,
    "schedule": dict,
    "denoiser": dict,
    "seed": int,
    "history": dict,
    "path_table": dict,
    "members": dict,
    "stopped": str,
}
BATCH_CELLS = 1 << 23  # rows times floats of a posterior, in one denoiser call


@dataclass(frozen=True)
class Model:
    """The result of a fit, with all that scoring, explaining and sampling need.

    Parameters
    ----------
    encoder : TableEncoder
    denoiser : Denoiser
    marginals : MarginalDenoiser
        Independent columns fitted to the same rows, for comparison.
    schedule : Schedule
    seed : int
        Seed of the random orders and the noise on which rows are scored.
    history : DataFrame
        One line per validation during training.
    schedule_table : DataFrame
        The schedules tried, the best first.
    members : DataFrame
        Marginal contribution and cost of each member of an ensemble; empty for another denoiser.
    stopped : str
        Why training ended.
    """

    encoder: TableEncoder
    denoiser: Denoiser
    marginals: MarginalDenoiser
    schedule: Schedule
    seed: int
    history: pd.DataFrame
    schedule_table: pd.DataFrame
    members: pd.DataFrame
    stopped: str

    @property
    def device(self) -> torch.device:
        """The device of the denoiser."""
        return self.denoiser.codebook.device

    @property
    def batch_size(self) -> int:
        """Rows in one denoiser call, such that memory is bounded."""
        return max(16, min(2048, BATCH_CELLS // self.denoiser.codebook.size))

    def log_prob(
        self,
        x: Tensor,
        n_evaluations: int,
        *,
        max_stderr: float | None = None,
        given: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Estimate:
        """Log-probabilities of encoded rows.

        Parameters
        ----------
        x : Tensor of float64, shape (N, C')
        n_evaluations : int
            Denoiser evaluations per row; with missingness indicators, those for the indicators and those for the other
            columns together (:func:`split_evaluations`).
        max_stderr : float, optional
            Nats. Rows with a larger standard error get up to ``EFFORT`` times as many evaluations: half of them decide
            how many the other half, the estimate, has.
        given : Tensor of bool, shape (C',), optional
            Columns to condition on.
        progress : callable, optional
            Called with the number of rows done since the last call.

        Notes
        -----
        An exact denoiser gives its closed form, with standard error 0.
        """
        if self.denoiser.exact:
            return self._exact(self.denoiser, x, given, progress)
        parts = [
            path_log_prob(self.denoiser, **stage, progress=progress)
            for stage in self._stages(x, n_evaluations, max_stderr, given)
        ]
        return Estimate(*_product(parts))

    @torch.no_grad()
    def _exact(
        self,
        denoiser: Denoiser,
        x: Tensor,
        given: Tensor | None,
        progress: Callable[[int], object] | None,
    ) -> Estimate:
        """Closed form of log P(x); with ``given``, minus the log-probability of the given cells."""

        def call(rows: Tensor) -> Tensor:
            log_prob = denoiser.log_prob(rows).double()
            if given is not None:
                log_prob -= denoiser.log_prob(rows.masked_fill(~given, math.nan)).double()
            return log_prob

        parts = [x.new_zeros(0)]
        for part in in_blocks(call, x, batch_size=self.batch_size):
            parts.append(part)
            if progress is not None:
                progress(len(part))
        log_prob = torch.cat(parts)
        return Estimate(log_prob, torch.zeros_like(log_prob))

    def attribution(
        self,
        x: Tensor,
        n_evaluations: int,
        *,
        max_stderr: float | None = None,
        given: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Attribution:
        """As :meth:`log_prob`, with the surprisal of each internal column."""
        parts = [
            path_attribution(self.denoiser, **stage, progress=progress)
            for stage in self._stages(x, n_evaluations, max_stderr, given)
        ]
        return Attribution(*_product(parts), torch.stack([p.surprisal for p in parts]).sum(0))

    def draw(self, start: Tensor, seed: int) -> Tensor:
        """Rows drawn given the cells of ``start`` (N, C') that are not NaN.

        A cell whose indicator says that it is missing stays NaN.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        columns = self.denoiser.codebook.leading.nonzero().flatten()
        left = None
        if len(columns):
            left = torch.ones_like(start, dtype=torch.bool)
            left[:, columns] = False
            start = sample(
                self.denoiser,
                start,
                self._indicator_schedule(len(columns)),
                left=left,
                generator=generator,
                batch_size=self.batch_size,
            )
            left = torch.zeros_like(left)
            owner = torch.from_numpy(self.encoder.owner).to(start.device)[columns]
            left[:, owner] = start[:, columns] == ABSENT
        return sample(
            self.denoiser,
            start,
            self.schedule,
            left=left,
            generator=generator,
            batch_size=self.batch_size,
        )

    def _indicator_schedule(self, n_steps: int) -> CoordinateSchedule:
        return CoordinateSchedule(max(1, n_steps), self.schedule.orders)

    def _stages(
        self, x: Tensor, n_evaluations: int, max_stderr: float | None, given: Tensor | None
    ) -> list[dict[str, Any]]:
        """Arguments of the path estimator for each of the conditional factors of a row's probability.

        Missingness indicators come first. If a value became known before its indicator, no mass would be left for
        "the cell is missing", and the total mass would exceed one.
        """
        book, schedule = self.denoiser.codebook, self.schedule
        indicators = book.leading
        exact = self.denoiser.exact and not self.denoiser.independent
        if exact:
            # one column a step, whatever was asked for: only so shares add up to the closed form
            schedule = CoordinateSchedule(len(indicators), schedule.orders)
        if not book.has_leading:
            return [self._stage(x, schedule, n_evaluations, max_stderr, given)]
        n_steps, first, second = split_evaluations(n_evaluations, book)
        if exact:
            n_steps = int(indicators.sum())
        known = torch.zeros_like(indicators) if given is None else given
        present = x.masked_fill(~(indicators | known), math.nan)
        if max_stderr is not None:
            max_stderr /= math.sqrt(2)  # variances of two factors add up
        return [
            self._stage(present, self._indicator_schedule(n_steps), first, max_stderr, given),
            self._stage(x, schedule, second, max_stderr, known | indicators),
        ]

    def _stage(
        self,
        x: Tensor,
        schedule: Schedule,
        n_evaluations: int,
        max_stderr: float | None,
        given: Tensor | None,
    ) -> dict[str, Any]:
        if given is not None:
            n_free = max(1, int((~given).sum()))
            if n_free == 1:  # one call gives the distribution of a single cell
                schedule = CoordinateSchedule(1)
            elif isinstance(schedule, CoordinateSchedule):
                schedule = CoordinateSchedule(min(n_free, schedule.n_steps), schedule.orders)
        # with a bound on the standard error, half of the evaluations decide how many the other half has
        effort = EFFORT * n_evaluations if max_stderr is None else EFFORT * n_evaluations // 2
        return {
            "x": x,
            "schedule": schedule,
            "n_paths": paths_within(n_evaluations, schedule),
            "max_paths": paths_within(effort, schedule),
            "max_stderr": max_stderr,
            "given": given,
            # the same for every row and call: a score depends on the row and the model alone
            "generator": torch.Generator().manual_seed(self.seed),
            "batch_size": self.batch_size,
        }

    def to_state(self) -> State:
        """Plain JSON data and CPU tensors from which :meth:`from_state` makes an equal model."""
        parts = {"denoiser": self.denoiser, "marginals": self.marginals}
        tensors = {
            f"{part}.{k}": v.detach().cpu().clone()
            for part, module in parts.items()
            for k, v in module.state_dict().items()
        }
        header = {
            "schema": self.encoder.to_list(),
            "schedule": to_config(self.schedule),
            "denoiser": to_config(self.denoiser),
            "seed": self.seed,
            "history": self.history.to_dict("list"),
            "path_table": self.schedule_table.to_dict("list"),
            "members": self.members.to_dict("list"),
            "stopped": self.stopped,
        }
        return header, tensors

    @classmethod
    def from_state(
        cls,
        header: dict[str, Any],
        tensors: dict[str, Tensor],
        device: torch.device,
        trusted: Iterable[type] = (),
    ) -> Model:
        """The model that :meth:`to_state` wrote; ValueError naming what is wrong if it did not.

        Parameters
        ----------
        header, tensors
            The state.
        device : torch.device
        trusted : iterable of type
            Classes of denoisers and schedules that the state may name besides those of the library.
        """
        check_fields(header, HEADER)
        with building("schema"):
            encoder = TableEncoder.from_list(header["schema"])
        with building("schedule"):
            schedule = schedule_from_config(header["schedule"], trusted)
            check_schedule(schedule, len(encoder.owner))
        own, base = within(tensors, "denoiser"), within(tensors, "marginals")
        with building("denoiser"):
            codebook = encoder.codebook().to(floating_type(own))
            with seeded(0, torch.device("cpu")):  # initial weights, which are replaced
                denoiser = denoiser_from_config(header["denoiser"], codebook, own, trusted)
        marginals = denoiser_from_config({CLASS: MarginalDenoiser.__name__}, codebook, base)
        assert isinstance(marginals, MarginalDenoiser)
        return cls(
            encoder=encoder,
            denoiser=denoiser.to(device).eval().requires_grad_(False),
            marginals=marginals.to(device),
            schedule=schedule,
            seed=header["seed"],
            history=pd.DataFrame(check_table(header["history"], "history")),
            schedule_table=pd.DataFrame(check_table(header["path_table"], "path_table")),
            members=pd.DataFrame(check_table(header["members"], "members")),
            stopped=header["stopped"],
        )

    def try_out(self) -> None:
        """Draw two rows and score them: what is wrong with a file in ways that no check foresees shows in use.

        Raises
        ------
        ValueError
            If the scores are no numbers; and whatever a model that makes no sense runs into.
        """
        shape = (2, len(self.encoder.owner))
        nothing = torch.full(shape, math.nan, dtype=torch.float64, device=self.device)
        rows = self.encoder.inverse_transform(self.draw(nothing, 0).cpu().numpy())
        cells = torch.from_numpy(self.encoder.transform(rows).x).to(self.device)
        if not bool(self.log_prob(cells, 2).log_prob.isfinite().all()):
            raise ValueError("the model scores its own rows with no number")


def split_evaluations(n_evaluations: int, codebook: Codebook) -> tuple[int, int, int]:
    """How a row's evaluations are divided between missingness indicators and the other columns.

    Parameters
    ----------
    n_evaluations : int
        For both together; at least two are used for each.
    codebook : Codebook

    Returns
    -------
    n_steps : int
        Steps in which the indicators become known.
    first, second : int
        Evaluations for the indicators, by their share of the columns, and what is left for the others.
    """
    n_indicators = int(codebook.leading.sum())
    if not n_indicators:
        return 0, 0, n_evaluations
    first = max(2, round(n_evaluations * n_indicators / codebook.n_columns))
    n_steps = min(n_indicators, first // 2)
    used = n_steps * paths_within(first, CoordinateSchedule(n_steps))
    return n_steps, first, max(2, n_evaluations - used)


def _product(factors: Sequence[Estimate | Attribution]) -> tuple[Tensor, Tensor]:
    """Log-probability and standard error of a product of independent estimates."""
    log_prob = torch.stack([f.log_prob for f in factors]).sum(0)
    return log_prob, torch.stack([f.stderr for f in factors]).square().sum(0).sqrt()
