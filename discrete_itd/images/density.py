"""Log-probability, fine-tuning and ensembles of existing diffusion models of images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from discrete_itd.denoisers import Denoiser
from discrete_itd.images.conventions import VariancePreserving, described
from discrete_itd.images.ensemble import EnsembleDenoiser
from discrete_itd.images.layout import Pixels, pixel_marginals
from discrete_itd.images.posteriors import BATCH_CELLS, N_KNOTS, AdaptedDenoiser, calibrate
from discrete_itd.likelihood import integral_log_prob, path_log_prob
from discrete_itd.likelihood.sampling import sample
from discrete_itd.progress import progress_bar
from discrete_itd.training import mean_and_error, pilot_quadrature
from discrete_itd.training.loop import Evaluation, TrainingPlan, train
from discrete_itd.validation import check_integer


class ImageEstimate(NamedTuple):
    """Log-probabilities of N images with their standard errors: two float64 arrays of shape (N,), in nats."""

    log_prob: np.ndarray
    stderr: np.ndarray


class ImageDensity:
    """Log-probability of images from a denoiser of images.

    Log-probabilities are nats per image: of pixels with levels, of a normalised probability mass; of continuous pixels,
    of a density per unit of the model's values. Equal images share their noise, so the standard error of a mean over
    few distinct images is too small. A model can be pickled and deep-copied if its network can.

    Parameters
    ----------
    denoiser : AdaptedDenoiser, or EnsembleDenoiser of AdaptedDenoisers
    X : array-like
        Some hundred images like those to be scored. The range of SNRs and the steps are chosen on them.
    labels : array-like of int, optional
        Classes of ``X``, if the model has classes.
    n_steps : int
        Steps of a path; each costs one network evaluation per image and path.
    batch_size : int, optional
        Images in one network evaluation; by default from 16 to 512, fewer where a posterior is large.
    random_state : int
        Seed of the noise, which otherwise depends on the image alone: equal images get equal scores.

    Attributes
    ----------
    denoiser, pixels : Denoiser, Pixels
        The model, and the layout of its images.
    quadrature, schedule : Quadrature, IsotropicSchedule
        Integration points over logsnr, and the steps of a path.
    history : DataFrame
        Training and validation nats of :meth:`fine_tune`; empty for a model that was not tuned.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(3, size=(20, 2, 2))  # of three levels
    >>> model = ImageDensity.from_callable(
    ...     lambda z, t: z, images, prediction="epsilon", schedule=np.linspace(0.99, 0.01, 20), n_levels=3, n_steps=2
    ... )
    >>> model.log_prob(images[:3], n_paths=2).log_prob.shape
    (3,)
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
        members: Any = denoiser.members if isinstance(denoiser, EnsembleDenoiser) else [denoiser]
        if not all(isinstance(member, AdaptedDenoiser) for member in members):
            raise TypeError("denoiser must be an AdaptedDenoiser, or an ensemble of such")
        self.denoiser, self.pixels = denoiser.eval(), members[0].pixels
        self._marginals = members[0].base
        self.n_steps, self.random_state = n_steps, random_state
        self.batch_size = batch_size or max(16, min(512, BATCH_CELLS // denoiser.codebook.work))
        self.history = pd.DataFrame(columns=pd.Index(Evaluation._fields))
        self._choose_steps(self.encode(X, labels))

    def _choose_steps(self, x: Tensor) -> None:
        """Choose the integration points and the steps of a path on encoded images."""
        if not len(x):
            raise ValueError("X must hold at least one image, got none")
        self.quadrature = pilot_quadrature(self.denoiser, x, self.generator())
        self.schedule = self.quadrature.schedule(self.n_steps)

    @classmethod
    def from_diffusers(
        cls, model: Any, scheduler: Any, X: Any, *, null_class: int | None = None, **options: Any
    ) -> ImageDensity:
        """Adapt a diffusers model, without changing its weights.

        ``model`` is a UNet2DModel, or a module like it, called as ``model(sample, timestep, class_labels)``;
        ``in_channels`` and ``sample_size`` of its ``config`` give the shape of images. It is not copied, and is put in
        evaluation mode. Its classes are its ``num_class_embeds``, less the null class if that is the last.
        ``scheduler`` is one with ``alphas_cumprod`` (DDPM, DDIM, PNDM, Euler, Heun, DPM-Solver and others, linear or
        cosine); only these are read. The other parameters are as in :meth:`from_callable`.

        A TypeError if the model's config has no shape, the scheduler is of another kind, or its prediction type is
        unknown; a ValueError if ``null_class`` is none of the model's.
        """
        network, arguments = described(model, scheduler, null_class)
        return cls.from_callable(network, X, null_class=null_class, **arguments, **options)

    @classmethod
    def from_callable(
        cls,
        f: Callable[..., Tensor],
        X: Any,
        *,
        prediction: Literal["epsilon", "v_prediction", "sample"],
        schedule: Sequence[float] | Tensor,
        labels: Any = None,
        shape: tuple[int, ...] | None = None,
        n_levels: int | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        n_classes: int = 0,
        null_class: int | None = None,
        n_knots: int = N_KNOTS,
        random_state: int = 0,
        **options: Any,
    ) -> ImageDensity:
        r"""Adapt a function that predicts the noise, the velocity or the clean image.

        Parameters
        ----------
        f : callable
            ``f(noisy, time)`` with images (B, \*shape) at the scale of the schedule and times (B,), and with classes
            (B,) as a third argument if ``n_classes`` is positive; returns a tensor of the shape of ``noisy``. Times are
            fractional where the SNR lies between two levels of the schedule. A module becomes part of the denoiser, and
            can be tuned; it is not copied, and is put in evaluation mode.
        X : array-like
            Some hundred images like those to be scored, preferably not the model's training images: the errors of its
            predictions are measured on them. Levels 0 ... n_levels - 1, or values in the model's units.
        prediction : {"epsilon", "v_prediction", "sample"}
            The noise, the velocity, or the clean image.
        schedule : sequence of float
            :math:`\bar\alpha_t` of the times 0 ... T - 1. A network ``g`` of images :math:`x + \sigma\varepsilon` and
            noise levels (Karras et al., NeurIPS 2022) that returns the clean image is ``lambda z, t: g(z * (1 + s(t) **
            2) ** 0.5, s(t))`` of "sample", with ``s = lambda t: low * (high / low) ** (t.view(-1, 1, 1, 1) / 199)``
            from the smallest level to the largest, of images (C, H, W), and ``1 / (1 +
            s(torch.arange(200.0).double()) ** 2).flatten()`` as the schedule.
        labels : array-like of int, optional
            Classes of ``X``; needed if the model has classes and no ``null_class``.
        shape : tuple of int, optional
            Shape of the model's input images. By default the shape of the images ``X``.
        n_levels : int, optional
            Levels of a pixel; pixels are continuous by default.
        value_range : tuple of float
            The model's values of the first and the last level.
        n_classes : int
            Number of the model's classes.
        null_class : int, optional
            Input of the model where the class is unknown.
        n_knots : int
            SNRs at which errors are measured; each costs one network evaluation per image of ``X``.
        random_state, options
            Parameters of :class:`ImageDensity`.

        Raises
        ------
        ValueError, TypeError
            If a shape, level, class, prediction or schedule is invalid; the message names it.
        """
        if not callable(f):
            raise TypeError(f"f must be callable, got {type(f).__name__}")
        if isinstance(schedule, str) or not isinstance(schedule, Sequence | Tensor | np.ndarray):
            raise TypeError(
                f"schedule must be a sequence of alphas_cumprod, got {type(schedule).__name__}"
            )
        if shape is None:
            shape = np.shape(X)[1:]
        pixels = Pixels(tuple(shape), n_levels, *map(float, value_range), n_classes=n_classes)
        x = pixels.encode(X, labels)
        if len(x) < 2:
            raise ValueError(
                f"X must hold at least two images, to calibrate the model, got {len(x)}"
            )
        check_integer("n_knots", n_knots, 1)
        check_integer("random_state", random_state, 0)
        weights = next(f.parameters(), None) if isinstance(f, nn.Module) else None
        device = torch.device("cpu") if weights is None else weights.device
        denoiser = AdaptedDenoiser(
            f, VariancePreserving(schedule), prediction, pixels, pixel_marginals(pixels, x),
            null_class=null_class,
        ).to(device)  # fmt: skip
        generator = torch.Generator(device).manual_seed(random_state)
        with progress_bar(1.0, "calibrating", "{l_bar}{bar}| {elapsed}<{remaining}") as bar:
            calibrate(
                denoiser, x.to(device), generator=generator, n_knots=n_knots,
                progress=lambda done: bar.update(done - bar.n),
            )  # fmt: skip
        return cls(denoiser, X, labels=labels, random_state=random_state, **options)

    def log_prob(self, X: Any, labels: Any = None, *, n_paths: int = 4) -> ImageEstimate:
        """Log-probability of each image, given its class if there are labels, by the path estimator (6).

        ``n_paths`` random paths take ``n_steps`` network evaluations each.
        """
        options = {"given": self.given(), "n_paths": n_paths}
        return ImageEstimate(*self._ask(path_log_prob, X, labels, self.schedule, **options)[:2])

    def integral(self, X: Any, labels: Any = None, *, n_points: int = 128) -> ImageEstimate:
        """Log-probability of each image by the integral (4) over SNR, relative to independent pixels.

        Each of the ``n_points`` integration points per image costs one network evaluation.
        """
        options = {"given": self.given(), "n_points": n_points, "baseline": self._marginals}
        return ImageEstimate(*self._ask(integral_log_prob, X, labels, self.quadrature, **options))

    def bits_per_dim(self, estimate: ImageEstimate) -> tuple[float, float]:
        """Mean bits per pixel and channel (for continuous pixels, of a density), and its standard error over images."""
        mean, error = mean_and_error(-torch.as_tensor(estimate.log_prob))
        unit = math.log(2) * self.pixels.n_pixels
        return mean / unit, error / unit

    def sample(
        self, n_samples: int = 1, *, labels: Any = None, random_state: int | None = None
    ) -> np.ndarray:
        r"""Draw images (n_samples, \*shape), uint8 levels or float64 values, of classes ``labels`` if given.

        Without ``random_state``, they are new ones at every call.
        """
        check_integer("n_samples", n_samples, 1)
        start = self.encode(np.zeros((n_samples, *self.pixels.shape)), labels)
        start[:, : self.pixels.n_pixels] = math.nan
        left = self.denoiser.codebook.leading.expand_as(start)  # the class is not drawn
        generator = self.generator(random_state)
        if random_state is None:
            generator.seed()
        options = {"generator": generator, "left": left, "batch_size": self.batch_size}
        return self.pixels.decode(sample(self.denoiser, start, self.schedule, **options))

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
    ) -> ImageDensity:
        """Tune a copy of the network by the information-theoretic objective, the integral (3) of the denoising error.

        Parameters
        ----------
        X, labels
            Training images.
        held_out, held_out_labels : optional
            Validation images, best not the network's training images: they choose the weights that are kept, and
            calibrate the predictions again. By default, a tenth of ``X`` is held out.
        max_steps, max_time
            Most training steps, and seconds.
        learning_rate : float
            Initial learning rate of AdamW; it decays to zero.
        batch_size : int

        Returns
        -------
        ImageDensity
            The tuned model, with its ``history``; this one is unchanged. Ctrl-C ends the tuning with the best weights
            so far. TypeError if the model is an ensemble, or its network has no weights.
        """
        if not isinstance(self.denoiser, AdaptedDenoiser):
            raise TypeError("an ensemble cannot be tuned: tune its members one by one")
        if next(self.denoiser.parameters(), None) is None:
            raise TypeError("the network is a plain function, without weights to tune")
        x_train = self.encode(X, labels)
        if held_out is None:
            n = max(2, round(0.1 * len(x_train)))
            order = np.random.RandomState(self.random_state).permutation(len(x_train))
            x_valid, x_train = x_train[order[:n]], x_train[order[n:]]
        else:
            x_valid = self.encode(held_out, held_out_labels)
        if min(len(x_train), len(x_valid)) < 2:
            raise ValueError(
                "tuning needs two images to train on and two for validation,"
                f" got {len(x_train)} and {len(x_valid)}"
            )
        denoiser = copy.deepcopy(self.denoiser)
        if not any(p.requires_grad for p in denoiser.parameters()):
            denoiser.requires_grad_(True)  # networks for inference are often frozen
        plan = TrainingPlan(
            max_steps=max_steps, max_time=max_time, batch_size=batch_size, learning_rate=learning_rate,
            weight_decay=0.0, ema=0.995, isotropic=1.0,
        )  # fmt: skip
        with progress_bar(1.0, "tuning", "{l_bar}{bar}| {elapsed}<{remaining}") as bar:
            report = train(
                denoiser, x_train, x_valid, plan, generator=self.generator(),
                progress=lambda done, _: bar.update(done - bar.n),
            )  # fmt: skip
        # a new generator: the noise of the calibration must not depend on when training stopped
        calibrate(denoiser, x_valid, generator=self.generator(), n_knots=len(denoiser.knots))
        tuned = copy.copy(self)
        tuned.denoiser, tuned._marginals = denoiser, denoiser.base
        tuned.history = pd.DataFrame(report.history, columns=pd.Index(Evaluation._fields))
        tuned._choose_steps(x_valid)
        return tuned

    @classmethod
    def ensemble(
        cls, members: Sequence[ImageDensity], X: Any, labels: Any = None, **options: Any
    ) -> ImageDensity:
        """Combine models with convex weights that depend on the SNR.

        The members are of images of one shape, range and number of levels; their noise schedules may differ. The
        weights are fitted to the validation images ``X``; ``options`` are parameters of :class:`ImageDensity`.
        """
        if not members:
            raise ValueError("an ensemble needs at least one member")
        first = members[0]
        x = first.encode(X, labels)
        denoiser = EnsembleDenoiser.fit(
            [m.denoiser for m in members], x, first.quadrature, generator=first.generator()
        )
        return cls(denoiser, X, labels=labels, **options)

    def encode(self, X: Any, labels: Any = None) -> Tensor:
        """Images as rows on the denoiser's device; see :meth:`discrete_itd.images.layout.Pixels.encode`."""
        return self.pixels.encode(X, labels).to(self.denoiser.codebook.device)

    def _ask(
        self, f: Callable[..., Any], X: Any, labels: Any, *args: Any, **options: Any
    ) -> list[np.ndarray]:
        """Results of ``f`` for the denoiser and images, with this object's noise and batch size, as arrays."""
        x = self.encode(X, labels)
        common = {"generator": self.generator(), "batch_size": self.batch_size, **options}
        with progress_bar(len(x), f.__name__.replace("_", " ")) as bar:
            parts = f(self.denoiser, x, *args, progress=bar.update, **common)
        return [part.cpu().numpy() for part in parts]

    def given(self) -> Tensor | None:
        """Columns to condition on where they are not missing: the class."""
        return self.denoiser.codebook.leading if self.pixels.n_classes else None

    def generator(self, seed: int | None = None) -> torch.Generator:
        """A generator of the noise, in the same state at every call; by default of ``random_state``."""
        device = self.denoiser.codebook.device
        return torch.Generator(device).manual_seed(self.random_state if seed is None else seed)
