"""Fitting a model to rows: the denoiser that a recipe asks for, and the path on which to score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from discrete_itd.channel import CoordinateSchedule, Schedule
from discrete_itd.channel.noise import cell_bits
from discrete_itd.denoisers import (
    Denoiser,
    EnsembleDenoiser,
    ExactDenoiser,
    Joining,
    MarginalDenoiser,
    NeuralDenoiser,
)
from discrete_itd.denoisers.neural import ARCHITECTURES
from discrete_itd.denoisers.tree import MOST_LEVELS
from discrete_itd.encoders import TableEncoder
from discrete_itd.likelihood.schedule_search import Candidate, choose_path
from discrete_itd.models.candidates import fit_exact, held_out
from discrete_itd.models.members import MemberValue, member_names, seconds_of_call
from discrete_itd.models.model import Model
from discrete_itd.models.splitting import copies, hold_out
from discrete_itd.recipes import (
    BayesNet,
    Ensemble,
    Exact,
    Independent,
    Mixture,
    Network,
    Recipe,
    Trees,
    recipe,
)
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, Report, TrainingPlan
from discrete_itd.training.objective import mean_and_error, pilot_quadrature
from discrete_itd.training.train import seeded, train

MOST_TABLE = 1 << 24  # numbers of a tree's tables, beyond which "auto" does without
# the same of a Bayesian network as a base, which sums its columns out at every call
BASE_TABLE, BASE_WORK = 256, 1 << 13
BASE_COLUMNS = 64  # beyond which a search for one is not tried
DEFAULT_SIZE = {"mlp": (256, 3), "transformer": (64, 3)}
# where "auto" lets attention race: attention costs the square of the columns, and few rows teach it little
RACE_COLUMNS = (8, 64)
RACE_ROWS, RACE_TIME = 5000, 60.0  # at least; seconds, where training is bounded
# a thirtieth of the steps, at most so many, for one, and as many operations for the other; or a thirtieth of the time
RACE_SHARE, RACE_STEPS = 30, 200
# the same for the race of two bases: one that knows more at once may be one that a network does worse with in the end
BASE_SHARE, BASE_STEPS = 16, 400

# on what noise a network is trained and judged that is to be scored on one kind of path
PATTERNS = {"coordinate": (0.05, 0.9, 0.05), "isotropic": (0.6, 0.3, 0.1)}
JUDGED = {"coordinate": (0.0, 1.0, 0.0), "isotropic": (1.0, 0.0, 0.0)}

Progress = Callable[[float, Evaluation], object]


def fit_model(
    encoder: TableEncoder,
    x: Tensor,
    plan: TrainingPlan,
    *,
    denoiser: Recipe,
    validation_fraction: float,
    schedule: str | Schedule,
    n_evaluations: int,
    device: torch.device,
    random_state: int | np.random.RandomState | None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Model:
    """Fit a denoiser to rows and choose the path on which to score.

    Parameters
    ----------
    encoder : TableEncoder
    x : Tensor of float64, shape (N, C')
        Encoded rows, each with a cell that is not missing; at least two.
    plan : TrainingPlan
        Of networks; an ensemble's share the time, each may take all the steps. The patterns on which they are trained
        and judged are those of the path, where it is given.
    denoiser : Recipe
    validation_fraction : float
        Share of the rows held out to stop training, to weigh members and to choose the path; copies of a record stay
        together, see :mod:`discrete_itd.models.splitting`.
    schedule : {"auto", "coordinate", "isotropic"} or Schedule
    n_evaluations : int
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
    division = hold_out(copies(cell_bits(x).numpy()), n_valid, seed)
    x_valid, x = (x[torch.from_numpy(part)].to(device) for part in division)
    generator = torch.Generator(device).manual_seed(seed)
    marginals = MarginalDenoiser.fit(
        encoder.codebook().to(device), x, unseen_counts=encoder.unseen_counts
    )
    kind = "coordinate" if isinstance(schedule, CoordinateSchedule) else schedule
    if isinstance(kind, str) and kind in PATTERNS:
        plan = replace(plan, patterns=PATTERNS[kind], judged=JUDGED[kind])
    fitter = Fitter(marginals, x, x_valid, plan, seed, generator, checkpoint, progress)
    fitted = fitter.fit(denoiser)
    fitted.denoiser.eval()
    table: list[tuple] = []
    if isinstance(schedule, str):
        if progress is not None:
            progress(1.0, fitted.report.history[-1])
        if schedule == "auto" and isinstance(fitted.denoiser, ExactDenoiser):
            candidates = [exact_path(fitted.denoiser, x_valid)]
        else:
            candidates = choose_path(
                fitted.denoiser,
                x,
                x_valid,
                pilot_quadrature(fitted.denoiser, x, generator),
                kind="coordinate" if schedule == "auto" and not fitter.learned else schedule,
                n_evaluations=n_evaluations,
                generator=generator,
            )
        schedule = candidates[0].schedule
        table = [(c.kind, c.schedule.n_steps, c.n_paths, c.nats, c.stderr) for c in candidates]
    return Model(
        encoder=encoder,
        denoiser=fitted.denoiser,
        marginals=marginals,
        schedule=schedule,
        seed=seed,
        history=pd.DataFrame(fitted.report.history, columns=pd.Index(Evaluation._fields)),
        path_table=pd.DataFrame(
            table, columns=pd.Index(["path", "steps", "paths", "nats", "stderr"])
        ),
        members=pd.DataFrame(fitter.values, columns=pd.Index(MemberValue._fields)),
        stopped=fitted.report.stopped,
    )


@dataclass(frozen=True)
class Fitted:
    """A denoiser and how it came about."""

    denoiser: Denoiser
    report: Report
    seconds: float


class Fitter:
    """Makes denoisers of one set of rows by recipes."""

    def __init__(
        self,
        marginals: MarginalDenoiser,
        x: Tensor,
        x_valid: Tensor,
        plan: TrainingPlan,
        seed: int,
        generator: torch.Generator,
        checkpoint: Checkpoint | None,
        progress: Progress | None,
    ) -> None:
        self.marginals, self.x, self.x_valid, self.plan = marginals, x, x_valid, plan
        self.seed, self.generator = seed, generator
        self.checkpoint, self.progress = checkpoint, progress
        self.values: list[MemberValue] = []
        self.learned = False  # whether anything has been learned beyond independent columns
        self._bases: dict[tuple[Exact, bool], ExactDenoiser] = {}
        self._joining: list[Joining | None] = []  # one, when it has been looked for
        self._raced: ExactDenoiser | None = None
        self._n_networks, self._n_trained, self._interrupted = 1, 0, False

    def fit(self, wanted: Recipe) -> Fitted:
        """The denoiser of a recipe."""
        start = time.perf_counter()
        if isinstance(wanted, Ensemble):
            denoiser, report = self._ensemble(wanted)
        elif isinstance(wanted, Network):
            denoiser, report = self._network(wanted)
        else:
            denoiser = self.exact(wanted)
            lines = [self._line(d) for d in dict.fromkeys((self.marginals, denoiser))]
            report = Report(lines, stopped="exact")
            self.learned |= not isinstance(wanted, Independent)
        return Fitted(denoiser, report, time.perf_counter() - start)

    # -- exact ones ---------------------------------------------------------------------------------

    def exact(self, wanted: Exact, *, with_reals: bool = True) -> ExactDenoiser:
        """An exact denoiser; the same one whenever it is asked for again.

        Without ``with_reals`` it leaves continuous columns to the marginals, as the base of a network must.
        """
        # of the others it makes no difference
        with_reals |= not isinstance(wanted, Mixture) or not len(self.marginals.codebook.reals)
        key = wanted, with_reals
        if key not in self._bases:
            if not self._joining and not isinstance(wanted, Independent):
                self._joining.append(Joining.found(self.marginals.codebook, self.x))
            self._bases[key] = fit_exact(
                wanted,
                self.marginals,
                self.x,
                self.x_valid,
                self.generator,
                joining=self._joining[0] if self._joining else None,
                with_reals=with_reals,
            )
        return self._bases[key]

    def held_out(self, denoiser: ExactDenoiser) -> float:
        """Nats per held-out row in closed form."""
        return held_out(denoiser, self.x_valid)

    def _line(self, denoiser: ExactDenoiser) -> Evaluation:
        """The line of a history that is of an exact denoiser."""
        nats = mean_and_error(-denoiser.log_prob(self.x_valid))
        return Evaluation(0, 0.0, math.nan, math.nan, *nats)

    # -- networks -----------------------------------------------------------------------------------

    def _base(self, wanted: Network) -> ExactDenoiser:
        """What a network corrects."""
        if wanted.base != "auto":
            base = recipe(wanted.base)
            assert isinstance(base, Exact)  # which the check of recipes has seen to
            return self.exact(base, with_reals=False)
        return min(self._bases_tried(), key=self.held_out)

    def _bases_tried(self) -> list[ExactDenoiser]:
        """The bases among which "auto" chooses, the marginals first."""
        book = self.marginals.codebook
        widest = max(book.levels.cardinalities, default=1)
        n_points, n_table = book.levels.n_points, book.levels.n_columns * widest**2
        if book.levels.n_columns < 2 or n_points > MOST_LEVELS or n_table > MOST_TABLE:
            return [self.marginals]
        tried = [self.exact(kind, with_reals=False) for kind in (Independent(), Trees())]
        if book.levels.n_columns <= BASE_COLUMNS:
            net = self.exact(BayesNet(BASE_TABLE), with_reals=False)
            if getattr(net, "work", 0) <= BASE_WORK:
                tried.append(net)
        return tried

    def _network(self, wanted: Network) -> tuple[Denoiser, Report]:
        i, self._n_trained = self._n_trained, self._n_trained + 1
        plan, checkpoint = self.plan, self.checkpoint
        if plan.max_time is not None:
            plan = replace(plan, max_time=plan.max_time / self._n_networks)
        device, seed = self.x.device, (self.seed + i) % (2**31 - 1)
        with seeded(seed, device):
            base, raced = self._base(wanted), 0.0  # the share of the time that races took
            if self._may_race_bases(wanted, base):
                if self._raced is None:
                    self._raced = self._better_base(wanted, base, plan, i)
                    raced += 2 / BASE_SHARE
                base = self._raced
            if self._may_race(wanted, base):
                wanted = replace(wanted, architecture=self._winner(wanted, base, plan, i))
                raced += 2 / RACE_SHARE
            elif wanted.architecture == "auto":
                wanted = replace(wanted, architecture="mlp")
            if plan.max_time is not None:
                plan = replace(plan, max_time=plan.max_time * (1 - raced))
            denoiser = made_network(wanted, base).to(device)
            if self._interrupted:  # who ends the training of one means that of all
                plan, checkpoint = replace(plan, max_steps=0), None
            report = train(
                denoiser,
                self.x,
                self.x_valid,
                plan,
                # of its own: where one training was interrupted tells nothing to the next
                generator=torch.Generator(device).manual_seed(seed),
                progress=self._progress_of(i),
                checkpoint=None if checkpoint is None else checkpoint.part(i),
            )
        self._interrupted |= report.stopped == "interrupted"
        if self._interrupted:
            report.stopped = "interrupted"
        nats = [e.valid_nats for e in report.history]
        self.learned |= min(nats) < nats[0] or base is not self.marginals
        if base is not self.marginals:  # what the base saves is known exactly
            alone = self._line(self.marginals)
            saved = alone.valid_nats - self.held_out(base)
            report.history.insert(0, alone._replace(valid_nats=nats[0] + saved))
        return denoiser, report

    def _progress_of(self, i: int) -> Progress | None:
        """Progress of the i-th training as that of all."""
        if self.progress is None:
            return None
        show, n = self.progress, self._n_networks
        return lambda share, latest: show(min(1.0, (i + share) / n), latest)

    def _may_race(self, wanted: Network, base: Denoiser) -> bool:
        """Whether more than one architecture is worth trying."""
        book, (few, many) = base.codebook, RACE_COLUMNS
        return (
            wanted.architecture == "auto"
            and wanted.width is None
            and not book.vocabularies
            and few <= book.n_columns <= many
            and len(self.x) >= RACE_ROWS
            and self.plan.max_steps >= RACE_SHARE * RACE_STEPS // 4
            and (self.plan.max_time or math.inf) >= RACE_TIME
        )

    def _may_race_bases(self, wanted: Network, base: ExactDenoiser) -> bool:
        """Whether independent columns might be the better base, of those that "auto" may take."""
        return (
            wanted.base == "auto"
            and base is not self.marginals
            and len(self.x) >= RACE_ROWS
            and self.plan.max_steps >= BASE_SHARE * BASE_STEPS // 4
            and (self.plan.max_time or math.inf) >= RACE_TIME
        )

    def _better_base(
        self, wanted: Network, base: ExactDenoiser, plan: TrainingPlan, i: int
    ) -> ExactDenoiser:
        """The base, or independent columns if a network learns more from them at equal cost."""
        if wanted.architecture == "auto":
            wanted = replace(wanted, architecture="mlp")
        entrants = {
            name: made_network(wanted, b)
            for name, b in (("best", base), ("independent", self.marginals))
        }
        n_steps = min(BASE_STEPS, plan.max_steps // BASE_SHARE)
        won = self._race(
            f"base of network {i}", entrants, dict.fromkeys(entrants, n_steps), plan, BASE_SHARE
        )
        return base if won == "best" else self.marginals

    def _winner(self, wanted: Network, base: Denoiser, plan: TrainingPlan, i: int) -> str:
        """The architecture that learns more at equal cost."""
        entrants = {a: made_network(replace(wanted, architecture=a), base) for a in ARCHITECTURES}
        mlp, transformer = entrants.values()
        n_steps = min(RACE_STEPS, plan.max_steps // RACE_SHARE)
        fair = max(8, round(n_steps * operations(mlp) / operations(transformer)))
        steps = {"mlp": n_steps, "transformer": fair}
        return self._race(f"architecture of network {i}", entrants, steps, plan, RACE_SHARE)

    def _race(
        self,
        key: str,
        entrants: dict[str, NeuralDenoiser],
        steps: dict[str, int],
        plan: TrainingPlan,
        share: int,
    ) -> str:
        """Which of the entrants learns most in so many steps, or in that share of the time where it is bounded.

        A run that is resumed keeps to what was found before.
        """
        note = {} if self.checkpoint is None else self.checkpoint.note
        if key in note:
            return note[key]
        nats = {}
        for name, entrant in entrants.items():
            generator = torch.Generator(self.x.device).manual_seed(self.seed)
            short = replace(plan, max_steps=steps[name], n_validations=1)
            if plan.max_time is not None:
                short = replace(short, max_steps=plan.max_steps, max_time=plan.max_time / share)
            entrant.to(self.x.device)
            report = train(entrant, self.x, self.x_valid, short, generator=generator)
            self._interrupted |= report.stopped == "interrupted"
            nats[name] = min(e.valid_nats for e in report.history)
        note[key] = min(nats, key=lambda name: nats[name])
        return note[key]

    # -- ensembles ----------------------------------------------------------------------------------

    def _ensemble(self, wanted: Ensemble) -> tuple[Denoiser, Report]:
        if self.marginals.codebook.vocabularies:
            raise ValueError("an ensemble takes no column of a large vocabulary")
        members = [recipe(member) for member in wanted.members]
        self._n_networks = max(1, sum(isinstance(m, Network) for m in members))
        fits = [self.fit(member) for member in members]
        denoisers = [f.denoiser for f in fits]
        generator = torch.Generator(self.x.device).manual_seed(self.seed)
        quadrature = pilot_quadrature(denoisers[0], self.x, generator)
        ensemble = EnsembleDenoiser.fit(denoisers, self.x_valid, quadrature, generator=generator)
        reports = [f.report for f in fits if f.report.stopped != "exact"]
        report = reports[0] if reports else fits[0].report
        if self._interrupted:
            report.stopped = "interrupted"
        names = member_names(members)
        times = [seconds_of_call(d, self.x_valid) for d in denoisers]
        worth = ensemble.marginal_value(self.x_valid, generator=generator)
        paid = [seconds * heard for seconds, heard in zip(times, ensemble.heard, strict=True)]
        for i, fit in enumerate(fits):
            line = MemberValue(
                names[i], *worth[i], fit.denoiser.n_parameters, fit.seconds, 1e3 * times[i],
                paid[i] / sum(paid),
            )  # fmt: skip
            self.values.append(line)
        return ensemble, report


def exact_path(denoiser: ExactDenoiser, x_valid: Tensor) -> Candidate:
    """The one path that an exact denoiser needs: column by column, in any order."""
    n = denoiser.codebook.n_columns
    n_steps = 1 if isinstance(denoiser, MarginalDenoiser) else n
    schedule = CoordinateSchedule(n_steps)
    return Candidate("exact", schedule, 1, *mean_and_error(-denoiser.log_prob(x_valid)))


def made_network(wanted: Network, base: Denoiser) -> NeuralDenoiser:
    """The untrained network of a recipe whose architecture is decided."""
    width, depth = DEFAULT_SIZE[wanted.architecture]
    return NeuralDenoiser(
        base,
        architecture=wanted.architecture,
        width=width if wanted.width is None else wanted.width,
        depth=depth if wanted.depth is None else wanted.depth,
        dropout=wanted.dropout,
    )


def operations(denoiser: NeuralDenoiser) -> float:
    """Multiplications of a network for one row: every weight once, or once for each column that shares it."""
    n_columns = denoiser.codebook.n_columns
    own = sum(p.numel() for p in denoiser.network.parameters())
    if denoiser.architecture == "mlp":
        return float(own)
    shared = sum(
        p.numel() for name, p in denoiser.network.named_parameters() if name.startswith("blocks.")
    )
    attention = 2 * n_columns**2 * denoiser.width * denoiser.depth
    return float(own + (n_columns - 1) * shared + attention)


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
