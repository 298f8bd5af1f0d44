"""A fitted model: the schema of a table, a denoiser of its rows, and the path on which they are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from discrete_itd.channel import CoordinateSchedule, Schedule
from discrete_itd.checkpoint import Checkpoint
from discrete_itd.denoisers import MarginalDenoiser, NeuralDenoiser
from discrete_itd.encoders import ABSENT, TableEncoder
from discrete_itd.likelihood import Attribution, Estimate, path_attribution, path_log_prob
from discrete_itd.patterns import pilot_quadrature
from discrete_itd.planning import choose_path, paths_within
from discrete_itd.records import Evaluation, TrainingPlan
from discrete_itd.sampling import sample
from discrete_itd.state import State, schedule_from_json, schedule_to_json
from discrete_itd.training import seeded, train
from discrete_itd.validation import check_schedule

EFFORT = 16  # with tol, a row may cost this many times n_calls
FEWEST_PATHS = 4  # with tol; fewer would not give a standard error to act on
BATCH_CELLS = 1 << 23  # rows times numbers of a posterior, in one denoiser call


@dataclass(frozen=True)
class Model:
    """What a fit has learned, and all that answers need.

    Parameters
    ----------
    encoder : TableEncoder
    denoiser : NeuralDenoiser
    schedule : Schedule
    seed : int
        Of the noise of scores.
    history : DataFrame
        One line per evaluation.
    path_table : DataFrame
        The paths tried.
    stopped : str
        Why training ended.
    """

    encoder: TableEncoder
    denoiser: NeuralDenoiser
    schedule: Schedule
    seed: int
    history: pd.DataFrame
    path_table: pd.DataFrame
    stopped: str

    @property
    def device(self) -> torch.device:
        """Where the denoiser lies."""
        return self.denoiser.codebook.device

    @property
    def batch_size(self) -> int:
        """Rows of one denoiser call, so that memory is bounded."""
        return max(16, min(2048, BATCH_CELLS // self.denoiser.codebook.size))

    def log_prob(
        self,
        x: Tensor,
        n_calls: int,
        *,
        tol: float | None = None,
        given: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Estimate:
        """Log-probabilities of encoded rows.

        Parameters
        ----------
        x : Tensor of float64, shape (N, C')
        n_calls : int
            Denoiser calls per row.
        tol : float, optional
            Nats; rows whose standard error is larger get up to ``EFFORT`` times as many calls.
        given : Tensor of bool, shape (C',), optional
            Columns to condition on.
        progress : callable, optional
            Called with the number of rows done since the last call.
        """
        parts = [
            path_log_prob(self.denoiser, **stage, progress=progress)
            for stage in self._stages(x, n_calls, tol, given)
        ]
        return Estimate(*_product(parts))

    def attribution(
        self,
        x: Tensor,
        n_calls: int,
        *,
        tol: float | None = None,
        given: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Attribution:
        """As :meth:`log_prob`, with each internal column's share."""
        parts = [
            path_attribution(self.denoiser, **stage, progress=progress)
            for stage in self._stages(x, n_calls, tol, given)
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
        return CoordinateSchedule(max(1, n_steps), self.schedule.order)

    def _stages(
        self, x: Tensor, n_calls: int, tol: float | None, given: Tensor | None
    ) -> list[dict[str, Any]]:
        """Arguments of the path estimator, for the conditional factors of which a row's probability is the product.

        What is missing comes first. If a value became known before its indicator, no mass would be left for
        "it is missing", and all masses together would be more than one.
        """
        indicators = self.denoiser.codebook.leading
        if not bool(indicators.any()):
            return [self._stage(x, self.schedule, n_calls, tol, given)]
        known = torch.zeros_like(indicators) if given is None else given
        told = x.masked_fill(~(indicators | known), math.nan)
        n_steps = min(int(indicators.sum()), max(1, n_calls // 2))
        return [
            self._stage(told, self._indicator_schedule(n_steps), n_calls, tol, given),
            self._stage(x, self.schedule, n_calls, tol, known | indicators),
        ]

    def _stage(
        self, x: Tensor, schedule: Schedule, n_calls: int, tol: float | None, given: Tensor | None
    ) -> dict[str, Any]:
        if given is not None:
            n_free = max(1, int((~given).sum()))
            if n_free == 1:  # one cell: its distribution is what the denoiser says, in one call
                schedule = CoordinateSchedule(1)
            elif isinstance(schedule, CoordinateSchedule):
                schedule = CoordinateSchedule(min(n_free, schedule.n_steps), schedule.order)
        n_paths = paths_within(n_calls, schedule)
        if tol is not None:  # start low: rows that need more will get more
            n_paths = min(n_paths, max(FEWEST_PATHS, paths_within(n_calls // 4, schedule)))
        return {
            "x": x,
            "schedule": schedule,
            "n_paths": n_paths,
            "max_paths": paths_within(EFFORT * n_calls, schedule),
            "tol": tol,
            "given": given,
            "generator": torch.Generator().manual_seed(self.seed),
            "batch_size": self.batch_size,
        }

    def to_state(self) -> State:
        """Plain JSON data and CPU tensors from which :meth:`from_state` makes an equal model."""
        tensors = {k: v.detach().cpu().clone() for k, v in self.denoiser.state_dict().items()}
        header = {
            "schema": self.encoder.to_list(),
            "schedule": schedule_to_json(self.schedule),
            "network": {"width": self.denoiser.width, "depth": self.denoiser.depth},
            "seed": self.seed,
            "history": self.history.to_dict("list"),
            "path_table": self.path_table.to_dict("list"),
            "stopped": self.stopped,
        }
        return header, tensors

    @classmethod
    def from_state(
        cls, header: dict[str, Any], tensors: dict[str, Tensor], device: torch.device
    ) -> Model:
        """The model that :meth:`to_state` wrote.

        Raises
        ------
        LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError
            If the data are not what it writes.
        """
        encoder = TableEncoder.from_list(header["schema"])
        schedule = schedule_from_json(header["schedule"])
        check_schedule(schedule, len(encoder.owner))
        if type(header["seed"]) is not int or not isinstance(header["stopped"], str):
            raise TypeError("seed and stopped are of the wrong type")
        with seeded(0, torch.device("cpu")):  # initial weights, which are replaced
            denoiser = NeuralDenoiser.from_tensors(encoder.codebook(), tensors, **header["network"])
        return cls(
            encoder=encoder,
            denoiser=denoiser.to(device).eval(),
            schedule=schedule,
            seed=header["seed"],
            history=pd.DataFrame(header["history"]),
            path_table=pd.DataFrame(header["path_table"]),
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


def _product(factors: Sequence[Estimate | Attribution]) -> tuple[Tensor, Tensor]:
    """Log-probability and standard error of a product of independent estimates."""
    log_prob = torch.stack([f.log_prob for f in factors]).sum(0)
    return log_prob, torch.stack([f.stderr for f in factors]).square().sum(0).sqrt()


def _seed_of_run(checkpoint: Checkpoint, seed: int, *, is_free: bool) -> int:
    """The seed of the run that a checkpoint is of, or this one, noted there, if it is new."""
    kept = checkpoint.note.setdefault("seed", seed)
    if type(kept) is not int or not 0 <= kept < 2**31:
        raise checkpoint.damaged(TypeError(f"seed {kept!r}"))
    if kept != seed and not is_free:
        raise ValueError(
            f"{checkpoint.path}: the checkpoint is of another run: random_state differs."
            " Repeat that run to go on with it, or remove the file to start anew"
        )
    return kept


def fit_model(
    encoder: TableEncoder,
    x: Tensor,
    plan: TrainingPlan,
    *,
    width: int,
    depth: int,
    validation_fraction: float,
    path: str | Schedule,
    n_calls: int,
    device: torch.device,
    random_state: int | np.random.RandomState | None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[float, Evaluation], object] | None = None,
) -> Model:
    """Train a denoiser on rows and choose the path on which to score.

    Parameters
    ----------
    encoder : TableEncoder
    x : Tensor of float64, shape (N, C')
        Encoded rows, each with a cell that is not missing; at least two.
    plan : TrainingPlan
    width, depth : int
        Of the network.
    validation_fraction : float
        Share of the rows held out to stop training and to choose the path.
    path : {"auto", "coordinate", "isotropic"} or Schedule
    n_calls : int
        Denoiser calls per row with which paths are compared.
    device : device
    random_state : int, RandomState or None
        The only source of randomness.
    checkpoint : Checkpoint, optional
        Where training is kept, to be resumed; its file stays.
    progress : callable, optional
        Called with the share done and the latest evaluation.
    """
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    if checkpoint is not None:
        seed = _seed_of_run(checkpoint, seed, is_free=random_state is None)
    n_valid = min(max(1, round(validation_fraction * len(x))), len(x) - 1)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(x)))
    x_valid, x = x[order[:n_valid]].to(device), x[order[n_valid:]].to(device)
    generator = torch.Generator(device).manual_seed(seed)
    marginals = MarginalDenoiser.fit(
        encoder.codebook().to(device), x, unseen_counts=encoder.unseen_counts
    )
    with seeded(seed, device):
        denoiser = NeuralDenoiser(marginals, width=width, depth=depth).to(device)
        report = train(
            denoiser,
            x,
            x_valid,
            plan,
            generator=generator,
            progress=progress,
            checkpoint=checkpoint,
        )
    table: list[tuple] = []
    if isinstance(path, str):
        if progress is not None:
            progress(1.0, report.history[-1])
        nats = [e.valid_nats for e in report.history]
        untrained = min(nats) == nats[0]  # all paths are equal then, and exact
        candidates = choose_path(
            denoiser,
            x,
            x_valid,
            pilot_quadrature(denoiser, x, generator),
            kind="coordinate" if untrained and path == "auto" else path,
            n_calls=n_calls,
            generator=generator,
        )
        path = candidates[0].schedule
        table = [(c.kind, c.schedule.n_steps, c.n_paths, c.nats, c.stderr) for c in candidates]
    return Model(
        encoder=encoder,
        denoiser=denoiser,
        schedule=path,
        seed=seed,
        history=pd.DataFrame(report.history, columns=pd.Index(Evaluation._fields)),
        path_table=pd.DataFrame(
            table, columns=pd.Index(["path", "steps", "paths", "nats", "stderr"])
        ),
        stopped=report.stopped,
    )
