"""How fast a network is trained, not what is learned: bfloat16 and ``torch.compile``.

Both touch the network alone. Its features, what its answers change, nats and sums stay as they are, and so do the
weights, the optimiser and every validation. With bfloat16 an answer is rounded to 8 bits; compiled, it differs by
rounding. Held-out nats after a training agree within ``NATS_TOLERANCE``. Speeds on a GPU are unmeasured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.config import PRECISIONS, TrainingPlan
from discrete_itd.validation import warn

NATS_TOLERANCE = 0.05  # nats per row, between trainings that differ in these settings alone
# dropout takes the random numbers that it takes without compilation
COMPILER_OPTIONS: dict[str, str | int | bool | Callable] = {"fallback_random": True}


@contextmanager
def accelerated(denoiser: Denoiser, plan: TrainingPlan) -> Iterator[None]:
    """Within the block, the ``network`` of a denoiser, if it has one, computes as the plan says.

    Warns
    -----
    UserWarning
        Once, if the network cannot be compiled, as without a C++ compiler: it is then trained without.

    Raises
    ------
    ValueError
        If the plan names an unknown precision.
    """
    if plan.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {plan.precision!r}")
    network = getattr(denoiser, "network", None)
    if not isinstance(network, nn.Module) or (plan.precision == "float32" and not plan.compiled):
        yield
        return
    forward = compiled_or_not(network.forward) if plan.compiled else network.forward

    def fast(features: Tensor) -> Tensor:
        half = plan.precision == "bfloat16"
        with torch.autocast(features.device.type, torch.bfloat16, enabled=half):
            return forward(features).to(features.dtype)

    network.forward = fast
    try:
        yield
    finally:
        del network.forward  # that of its class is seen again


def compiled_or_not(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of features compiled; or as it is, with a warning, if a first call or its gradient fails."""
    compiled = torch.compile(forward, options=COMPILER_OPTIONS)
    chosen: list[Callable[[Tensor], Tensor]] = []

    def call(features: Tensor) -> Tensor:
        if not chosen:
            try:
                with torch.random.fork_rng(), torch.enable_grad():
                    compiled(features.detach()).sum().backward()
                chosen.append(compiled)
            except Exception as error:  # whatever a compiler raises: there is no common class
                reason = (str(error).strip() or type(error).__name__).split("\n")[0]
                warn(f"the network is trained without compilation: {reason}")
                chosen.append(forward)
        return chosen[0](features)

    return call
