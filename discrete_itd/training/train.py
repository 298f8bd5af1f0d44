"""Training: denoising regression on random patterns, with held-out nats to stop it and a running average to keep."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, Report, Rollback, TrainingPlan
from discrete_itd.training.loop import Run

__all__ = ["Checkpoint", "Evaluation", "Report", "Rollback", "TrainingPlan", "seeded", "train"]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global random state from ``seed`` within the block, as before after it.

    Initial weights and dropout know no other source of randomness.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def train(
    denoiser: Denoiser,
    x: Tensor,
    x_valid: Tensor,
    plan: TrainingPlan,
    *,
    generator: torch.Generator,
    progress: Callable[[float, Evaluation], object] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Report:
    """Fit a denoiser in place; it ends with the averaged weights that validated best.

    Parameters
    ----------
    denoiser : Denoiser
        Lies on the device of the rows. Its weights at the call are the first candidate, so the result
        is never worse than they are on the validation rows.
    x, x_valid : Tensor, shapes (N, C) and (N', C)
        Rows; NaN where a cell is missing.
    plan : TrainingPlan
    generator : torch.Generator
        On the device of the rows.
    progress : callable, optional
        Called with the share done and the latest evaluation.
    checkpoint : Checkpoint, optional
        Where to keep the state of the run, and from where to go on if one is kept there. A run that goes on
        ends as it would have ended, on the CPU to the last bit; its generator and the global random state
        are set, so call it within :func:`seeded`. The file stays when all is done, and whoever asks for the
        same run again gets the result at once: remove it when that is safe.

    Returns
    -------
    Report
        Of an interrupted run too: KeyboardInterrupt ends it early, with the best weights so far, and the
        checkpoint can go on.

    Raises
    ------
    ValueError
        If the checkpoint is damaged or that of another run; nothing is changed then.
    OSError
        If the first state cannot be written. Later ones that cannot are warned of.

    Warns
    -----
    UserWarning
        If weights or loss went astray and training went on from sound ones, or gave up.
    """
    run = Run(denoiser, x, x_valid, plan, generator, progress, checkpoint)
    report = run.report
    try:
        if not run.resume():
            run.begin()
        if not report.stopped:
            run.go_on()
    except KeyboardInterrupt:
        if not report.history:
            raise  # nothing has been made yet that could be kept
        report.stopped = "interrupted"
    run.average.restore(run.parameters)
    denoiser.eval()
    state = run.kept if report.stopped == "interrupted" else run.state()
    if state[0]:  # else interrupted before the first was kept
        run.write(state)
    if report.rollbacks:
        last = report.rollbacks[-1]
        times = len(report.rollbacks)
        outcome = (
            "was given up"
            if report.stopped == "diverged"
            else f"went on from step {last.good} with a smaller learning rate"
        )
        warnings.warn(
            f"training diverged at step {last.step} ({last.reason}) and {outcome}"
            + (f"; the last of {times} times" if times > 1 else ""),
            stacklevel=2,
        )
    return report
