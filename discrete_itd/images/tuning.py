"""Fine-tuning of an adapted network by the information-theoretic objective."""

from __future__ import annotations

import copy
import os

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.images.adapted import AdaptedDenoiser
from discrete_itd.images.calibration import calibrate
from discrete_itd.progress import progress_bar
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, TrainingPlan
from discrete_itd.training.loop import seeded, train

ISOTROPIC = (1.0, 0.0)  # shares of the loss's patterns: all pixels have one SNR


def fine_tune(
    denoiser: AdaptedDenoiser,
    x_train: Tensor,
    x_valid: Tensor | None,
    *,
    validation_fraction: float,
    max_steps: int,
    max_time: float | None,
    learning_rate: float,
    batch_size: int,
    checkpoint: str | os.PathLike[str] | None,
    random_state: int,
) -> tuple[AdaptedDenoiser, Tensor, pd.DataFrame]:
    """Tune a copy of the network by the integral (3) of the denoising error, and calibrate it again.

    The parameters are those of :meth:`discrete_itd.images.ImageDensity.fine_tune`, with images as rows (N, C).

    Returns
    -------
    tuned : AdaptedDenoiser
        The original is not changed.
    x_valid : Tensor of float64, shape (N, C)
        The validation rows, drawn from ``x_train`` if none were given.
    history : DataFrame
        Training and validation nats by step.

    Raises
    ------
    TypeError
        If the network has no weights.
    ValueError
        If ``validation_fraction`` is not in (0, 1), or there are fewer than two rows of a kind.
    """
    if next(denoiser.parameters(), None) is None:
        raise TypeError("the network is a plain function, without weights to tune")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    if x_valid is None:
        n = max(2, round(validation_fraction * len(x_train)))
        order = np.random.RandomState(random_state).permutation(len(x_train))
        x_valid, x_train = x_train[order[:n]], x_train[order[n:]]
    if min(len(x_train), len(x_valid)) < 2:
        raise ValueError(
            "tuning needs two images to train on and two for validation,"
            f" got {len(x_train)} and {len(x_valid)}"
        )

    denoiser = copy.deepcopy(denoiser)
    if not any(p.requires_grad for p in denoiser.parameters()):
        denoiser.requires_grad_(True)  # frozen networks are common where nothing is trained
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
        seeded(random_state, x_train.device),
    ):
        report = train(
            denoiser,
            x_train,
            x_valid,
            plan,
            generator=torch.Generator(x_train.device).manual_seed(random_state),
            progress=lambda done, _: bar.update(done - bar.n),
            checkpoint=None if checkpoint is None else Checkpoint(checkpoint),
        )
    # its own: the noise of the calibration must not depend on when training stopped
    generator = torch.Generator(x_train.device).manual_seed(random_state)
    calibrate(denoiser, x_valid, generator=generator, n_knots=len(denoiser.knots))
    return denoiser, x_valid, pd.DataFrame(report.history, columns=pd.Index(Evaluation._fields))
