"""Train a denoiser on random states of rows, with early stopping on held-out nats."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, Report, TrainingPlan
from discrete_itd.training.loop import Run


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Set the global random state within the block and restore it afterwards.

    Initial weights and dropout have no other source of random numbers.
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
    """Fit a denoiser in place; it ends with the averaged weights that had the best validation.

    Parameters
    ----------
    denoiser : Denoiser
        On the device of the rows. Its weights at the call are the first candidate, so the result is never worse than
        they are on the validation rows.
    x, x_valid : Tensor of float64, shapes (N, C) and (N', C)
        Rows; NaN where a cell is missing.
    plan : TrainingPlan
    generator : torch.Generator
        On the device of the rows.
    progress : callable, optional
        Called with the share done and the latest evaluation.
    checkpoint : Checkpoint, optional
        Where to keep the state of the run; if one is kept there, the run continues from it. On the CPU it then ends as
        the uninterrupted run would have ended, to the last bit. Continuing sets the generator and the global random
        state, so call this function within :func:`seeded`. The file stays at the end, so that a repeated call
        returns at once; remove it when the model is saved.

    Returns
    -------
    Report
        After a KeyboardInterrupt, too: it ends the training early, with the best weights so far, and the checkpoint
        can be continued.

    Raises
    ------
    ValueError
        If the checkpoint is damaged or belongs to another run; the denoiser is unchanged then.
    OSError
        If the first state cannot be written. Later failures are warnings.

    Warns
    -----
    UserWarning
        If weights or loss diverged and training went on from an earlier state, or gave up.
    """
    run = Run(denoiser, x, x_valid, plan, generator, progress, checkpoint)
    report = run.report
    try:
        if not run.resume():
            run.begin()
        if not report.stopped:
            run.finish()
    except KeyboardInterrupt:
        if not report.history:
            raise  # there are no weights yet that could be kept
        report.stopped = "interrupted"
    run.average.restore(run.parameters.values())
    denoiser.eval()
    state = run.kept if report.stopped == "interrupted" else run.state_dict()
    if state:  # empty if interrupted before the first state was kept
        run.write(state)
    if report.rollbacks:
        last, times = report.rollbacks[-1], len(report.rollbacks)
        outcome = f"went on from step {last.good} with a smaller learning rate"
        if report.stopped == "diverged":
            outcome = "was given up"
        warnings.warn(
            f"training diverged at step {last.step} ({last.reason}) and {outcome}"
            + (f"; the last of {times} times" if times > 1 else ""),
            stacklevel=2,
        )
    return report
