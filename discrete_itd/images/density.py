"""Likelihood, tuning and ensembles of existing diffusion models, on pictures.

The way in is :meth:`ImageDensity.from_diffusers` or :meth:`ImageDensity.from_callable`. What a picture is to the
model is told by :class:`~discrete_itd.images.pixels.Pixels`; the rest are the parts that tables have, too: the estimators
of :mod:`discrete_itd.likelihood`, the training of :mod:`discrete_itd.training.train`, the ensembles of
:mod:`discrete_itd.denoisers.ensemble`.

Source: Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.denoisers import Denoiser, EnsembleDenoiser
from discrete_itd.denoisers.gaussian import GaussianDenoiser
from discrete_itd.images.adapted import AdaptedDenoiser
from discrete_itd.images.adapters import from_callable, from_diffusers
from discrete_itd.images.variational import variational_bound
from discrete_itd.likelihood import (
    Estimate,
    integral_log_prob,
    path_log_prob,
)
from discrete_itd.likelihood.information import pointwise_information
from discrete_itd.likelihood.sampling import sample
from discrete_itd.likelihood.schedule_search import place_steps
from discrete_itd.progress import progress_bar
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, TrainingPlan
from discrete_itd.training.objective import mean_and_error, pilot_quadrature
from discrete_itd.training.train import seeded, train

BATCH_CELLS = 1 << 22  # numbers of a posterior in one call
ISOTROPIC = (1.0, 0.0, 0.0)


class ImageDensity:
    """Log-probability of pictures from a denoiser of theirs.

    Parameters
    ----------
    denoiser : AdaptedDenoiser, or EnsembleDenoiser of such
    X : array-like
        Some hundred pictures like those to be scored: SNRs are chosen by them.
    labels : array-like of int, optional
        Their classes, if the model knows any.
    n_steps : int
        Steps of a path; each costs a network call per picture and path.
    batch_size : int, optional
        Pictures in one network call. By default as many as memory of some hundred MB takes.
    random_state : int
        Equal pictures get equal scores: the noise is that of the picture and this number.

    Attributes
    ----------
    denoiser : Denoiser
    pixels : Pixels
    quadrature : Quadrature
        Where on the axis of logsnr the code length is.
    schedule : IsotropicSchedule
        The steps of a path.
    history : DataFrame
        Of the last tuning, empty without one.

    Notes
    -----
    Equal pictures share their noise, too, so averages over a table of few different ones are less sure than they
    seem. Pickle and ``copy.deepcopy`` keep one whole, if the network can be pickled.
    All log-probabilities are in nats per picture. Of pixels with levels they are those of a normalised mass; of
    continuous pixels of a density per unit of the model's values.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        X: Any,
        *,
        labels: Any = None,
        n_steps: int = 32,
        batch_size: int | None = None,
        random_state: int = 0,
    ) -> None:
        members = list(denoiser.members) if isinstance(denoiser, EnsembleDenoiser) else [denoiser]
        pixels = [m.pixels for m in members if isinstance(m, AdaptedDenoiser)]
        if len(pixels) != len(members):
            raise TypeError("the denoiser must be an adapted one, or an ensemble of such")
        self.denoiser, self.pixels = denoiser.eval(), pixels[0]
        self.random_state, self.n_steps = random_state, n_steps
        self.batch_size = batch_size or max(16, min(512, BATCH_CELLS // denoiser.codebook.size))
        self.history = pd.DataFrame(columns=pd.Index(Evaluation._fields))
        x, generator = self.encode(X, labels), self.generator()
        if not len(x):
            raise ValueError("X must hold pictures to choose SNRs by, got none")
        self.quadrature = pilot_quadrature(denoiser, x, generator)
        (self.schedule,) = place_steps(denoiser, x, self.quadrature, [n_steps], generator=generator)

    @classmethod
    def from_diffusers(
        cls,
        model: Any,
        scheduler: Any,
        X: Any,
        *,
        n_steps: int = 32,
        batch_size: int | None = None,
        **options: Any,
    ) -> ImageDensity:
        """A diffusers model as it is.

        Parameters
        ----------
        model, scheduler, X, **options
            As of :func:`discrete_itd.images.adapters.from_diffusers`.
        n_steps, batch_size
            As of the class.
        """
        denoiser = from_diffusers(model, scheduler, X, **options)
        return cls._of(denoiser, X, n_steps, batch_size, options)

    @classmethod
    def from_callable(
        cls,
        f: Callable[..., Tensor],
        X: Any,
        *,
        n_steps: int = 32,
        batch_size: int | None = None,
        **options: Any,
    ) -> ImageDensity:
        """Any function that predicts.

        Parameters
        ----------
        f, X, **options
            As of :func:`discrete_itd.images.adapters.from_callable`.
        n_steps, batch_size
            As of the class.
        """
        return cls._of(from_callable(f, X, **options), X, n_steps, batch_size, options)

    @classmethod
    def _of(
        cls,
        denoiser: Denoiser,
        X: Any,
        n_steps: int,
        batch_size: int | None,
        options: dict[str, Any],
    ) -> ImageDensity:
        shared = {k: options[k] for k in ("labels", "random_state") if k in options}
        return cls(denoiser, X, n_steps=n_steps, batch_size=batch_size, **shared)

    # -- log-probabilities ------------------------------------------------------------------------

    def log_prob(
        self, X: Any, labels: Any = None, *, n_paths: int = 4, max_stderr: float | None = None
    ) -> Estimate:
        """Log-probability of each picture by the path estimator (6), with its standard error.

        Parameters
        ----------
        X : array-like
        labels : array-like of int, optional
            Classes to condition on.
        n_paths : int
            Of ``n_steps`` network calls each.
        max_stderr : float, optional
            Nats; pictures whose standard error is larger get more paths. As many again, with noise of their own, decide
            how many, so that densities still integrate to one.

        Returns
        -------
        Estimate
            float64, (N,), nats.
        """
        x, options = self.encode(X, labels), {"n_paths": n_paths, "max_stderr": max_stderr}
        return self._ask("scoring", path_log_prob, x, self.schedule, given=self.given(), **options)

    def integral(
        self,
        X: Any,
        labels: Any = None,
        *,
        baseline: Denoiser | None = None,
        n_points: int = 128,
    ) -> Estimate:
        """Log-probability of each picture by the integral (4) over SNR, against a baseline.

        Parameters
        ----------
        X, labels
            As of :meth:`log_prob`.
        baseline : Denoiser, optional
            By default independent pixels; :meth:`gaussian` gives one with the full covariance.
        n_points : int
            Noisy points per picture, a network call each.
        """
        options = {
            "baseline": self._first().base if baseline is None else baseline,
            "n_points": n_points,
            "given": self.given(),
        }
        x = self.encode(X, labels)
        return self._ask("integrating", integral_log_prob, x, self.quadrature, **options)

    def gaussian(self, X: Any, *, rank: int | None = None) -> GaussianDenoiser:
        """A Gaussian of continuous pixels with their full covariance, or its first ``rank`` directions, for (4)."""
        if self.pixels.n_levels is not None or self.pixels.n_classes:
            raise ValueError("a Gaussian baseline is of continuous pixels without a class")
        x = self.encode(X)
        return GaussianDenoiser.fit(self.denoiser.codebook, x, rank=rank).to(x.device)

    def variational_bound(
        self,
        X: Any,
        labels: Any = None,
        *,
        n_times: int | None = None,
        variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
    ) -> Estimate:
        """Minus the variational bound of the same network, by its own times.

        Parameters
        ----------
        X, labels
            As of :meth:`log_prob`.
        n_times, variance
            As of :func:`discrete_itd.images.variational.variational_bound`.
        """
        if not isinstance(self.denoiser, AdaptedDenoiser):
            raise TypeError("an ensemble has no variational bound; its members have")
        x, options = self.encode(X, labels), {"n_times": n_times, "variance": variance}
        return self._ask("variational bound", variational_bound, x, **options)

    def bits_per_dim(self, estimate: Estimate) -> tuple[float, float]:
        """Mean bits per pixel and channel of pictures, and the standard error over pictures.

        Of continuous pixels, the bits of a density.
        """
        mean, error = mean_and_error(-estimate.log_prob)
        unit = math.log(2) * self.pixels.n_pixels
        return mean / unit, error / unit

    def sample(
        self, n_samples: int = 1, *, labels: Any = None, random_state: int | None = None
    ) -> np.ndarray:
        """Draw pictures from the model that is scored.

        Parameters
        ----------
        n_samples : int
        labels : array-like of int, shape (n_samples,), optional
        random_state : int, optional
            None draws anew at every call.

        Returns
        -------
        ndarray, shape (n_samples, *shape)
            Levels, or values.
        """
        if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer):
            raise TypeError(f"n_samples must be an integer, got {n_samples!r}")
        if n_samples < 1:
            raise ValueError(f"n_samples must be positive, got {n_samples}")
        blank = self.encode(np.zeros((n_samples, *self.pixels.shape)), labels)
        start = blank.clone()
        start[:, : self.pixels.n_pixels] = math.nan
        left = torch.zeros_like(start, dtype=torch.bool)
        left[:, self.pixels.n_pixels :] = True
        generator = self.generator()
        if random_state is None:
            generator.seed()
        else:
            generator.manual_seed(random_state)
        drawn = sample(
            self.denoiser, start, self.schedule, generator=generator, left=left,
            batch_size=self.batch_size,
        )  # fmt: skip
        return self.pixels.decode(drawn)

    # -- better models ----------------------------------------------------------------------------

    def fine_tune(
        self,
        X: Any,
        labels: Any = None,
        *,
        held_out: Any = None,
        held_out_labels: Any = None,
        max_steps: int = 1000,
        max_time: float | None = None,
        learning_rate: float = 1e-4,
        batch_size: int = 64,
        validation_fraction: float = 0.1,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> ImageDensity:
        """Tune a copy of the network by the information-theoretic objective, the integral (3) of the denoising error.

        Parameters
        ----------
        X, labels
            Training pictures.
        held_out, held_out_labels : optional
            Other pictures, best such as the network has never seen: by their nats the best weights are kept, and on
            them guesses are calibrated anew. By default ``validation_fraction`` of ``X``; of pictures that the
            network was trained on they tell too much.
        max_steps : int
        max_time : float, optional
            Seconds.
        learning_rate : float
            Of AdamW, at the beginning; it falls to zero.
        batch_size : int
        validation_fraction : float
            Share of ``X`` that is held out, if no other pictures are.
        checkpoint : path-like, optional
            A file from which an interrupted tuning goes on.

        Returns
        -------
        ImageDensity
            The tuned one, its ``history`` nats against steps and seconds; this one is as before. Ctrl-C ends the tuning
            with the best weights so far.

        Raises
        ------
        TypeError
            If the model is an ensemble, or has no weights to tune.
        """
        if not isinstance(self.denoiser, AdaptedDenoiser):
            raise TypeError("tune the members of an ensemble one by one")
        if next(self.denoiser.parameters(), None) is None:
            raise TypeError("the network is a plain function, without weights to tune")
        if not 0 < validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
        x_train = self.encode(X, labels)
        if held_out is not None:
            x_valid = self.encode(held_out, held_out_labels)
        else:
            n = max(2, round(validation_fraction * len(x_train)))
            order = np.random.RandomState(self.random_state).permutation(len(x_train))
            x_valid, x_train = x_train[order[:n]], x_train[order[n:]]
        if min(len(x_train), len(x_valid)) < 2:
            raise ValueError(
                f"tuning needs two pictures to train on and two held out, got {len(x_train)} and {len(x_valid)}"
            )
        denoiser = copy.deepcopy(self.denoiser)
        if not any(p.requires_grad for p in denoiser.parameters()):
            denoiser.requires_grad_(True)  # it was frozen to be used
        plan = TrainingPlan(
            max_steps=max_steps,
            max_time=max_time,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=0.0,
            ema=0.995,
            patterns=ISOTROPIC,
            judged=ISOTROPIC,
        )
        with (
            progress_bar(1.0, "tuning", "{l_bar}{bar}| {elapsed}<{remaining}") as bar,
            seeded(self.random_state, x_train.device),
        ):
            report = train(
                denoiser,
                x_train,
                x_valid,
                plan,
                generator=self.generator(),
                progress=lambda done, _: bar.update(done - bar.n),
                checkpoint=None if checkpoint is None else Checkpoint(checkpoint),
            )
        denoiser.calibrate(x_valid, generator=self.generator(), n_knots=len(denoiser.knots))
        out = self._like(denoiser, x_valid)
        out.history = pd.DataFrame(report.history, columns=pd.Index(Evaluation._fields))
        return out

    @classmethod
    def ensemble(
        cls, members: Sequence[ImageDensity], X: Any, labels: Any = None, **options: Any
    ) -> ImageDensity:
        """A convex combination of models, whose weights depend on the SNR.

        Parameters
        ----------
        members : sequence of ImageDensity
            Of pictures of one shape, range and number of levels; their noise schedules may differ.
        X, labels
            Held-out pictures, by which weights are fitted.
        **options
            ``n_steps``, ``batch_size`` and ``random_state``.
        """
        if not members:
            raise ValueError("an ensemble needs at least one member")
        first = members[0]
        x = first.encode(X, labels)
        denoiser = EnsembleDenoiser.fit(
            [m.denoiser for m in members], x, first.quadrature, generator=first.generator()
        )
        return cls(denoiser, X, labels=labels, **options)

    def marginal_value(self, X: Any, labels: Any = None) -> pd.DataFrame:
        """What each member of an ensemble is worth: held-out nats with it and without it.

        Returns
        -------
        DataFrame
            A line a member: ``alone``, its own nats per picture by the integral (3) (of continuous pixels, but for a
            constant that all share); ``gain``, by how much more nats
            the others have without it, their weights fitted anew, and ``stderr`` of that; ``weight``; ``parameters``.
        """
        ensemble = self.denoiser
        if not isinstance(ensemble, EnsembleDenoiser):
            raise TypeError("one model alone is no ensemble")
        values = ensemble.marginal_value(
            self.encode(X, labels), generator=self.generator(), quadrature=self.quadrature
        )
        table = pd.DataFrame(values)
        return table.assign(parameters=[m.n_parameters for m in ensemble.members])

    # -- diagnostics ------------------------------------------------------------------------------

    def information(self, X: Any, labels: Any, *, n_points: int = 64) -> np.ndarray:
        r"""What the class says about every pixel of each picture, in nats: (N, \*shape), never negative.

        Kong et al. (ICLR 2024), arXiv:2310.07972: half the squared difference between the guesses with and without the
        class, over all SNRs. On average over pictures, and for an exact model, the sum over pixels is their mutual
        information with the class. The model must know what to do without a class (``null_class``).
        """
        if not self.pixels.n_classes:
            raise ValueError("the model knows no classes")
        x = self.encode(X, labels)
        informing = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
        informing[self.pixels.n_pixels :] = True
        nats = self._ask(
            "information", pointwise_information, x, informing, self.quadrature, n_points=n_points
        ).nats
        nats = nats[:, : self.pixels.n_pixels].cpu().numpy()
        return nats.reshape(-1, *self.pixels.shape)

    def encode(self, X: Any, labels: Any = None) -> Tensor:
        """Rows of pictures, on the device of the denoiser; see :meth:`discrete_itd.images.pixels.Pixels.encode`."""
        return self.pixels.encode(X, labels).to(self.denoiser.codebook.device)

    def _ask(self, what: str, f: Callable[..., Any], x: Tensor, *args: Any, **options: Any) -> Any:
        """What ``f`` says of the denoiser and rows, with this object's noise and batches and a bar of that name."""
        with progress_bar(len(x), what) as bar:
            return f(
                self.denoiser,
                x,
                *args,
                generator=self.generator(),
                batch_size=self.batch_size,
                progress=bar.update,
                **options,
            )

    def _first(self) -> AdaptedDenoiser:
        d = self.denoiser
        first = d.members[0] if isinstance(d, EnsembleDenoiser) else d
        assert isinstance(first, AdaptedDenoiser)
        return first

    def given(self) -> Tensor | None:
        """The class is given wherever it is not missing."""
        return self.denoiser.codebook.leading if self.pixels.n_classes else None

    def generator(self) -> torch.Generator:
        """The noise of every question, always the same."""
        device = self.denoiser.codebook.device
        return torch.Generator(device).manual_seed(self.random_state)

    def _like(self, denoiser: Denoiser, x: Tensor) -> ImageDensity:
        """Another denoiser with the same options, its SNRs chosen by encoded pictures."""
        labels = x[:, -1].cpu().numpy() if self.pixels.n_classes else None
        return ImageDensity(
            denoiser,
            self.pixels.decode(x),
            labels=None if labels is None or np.isnan(labels).any() else labels,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            random_state=self.random_state,
        )
