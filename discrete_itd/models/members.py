"""What the members of an ensemble are worth and cost: the lines of the table by which one decides on one more."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.denoisers import Denoiser
from discrete_itd.recipes import BayesNet, Mixture, Network, Recipe, Trees


class MemberValue(NamedTuple):
    """A line of the table that says what every member of an ensemble is worth.

    Attributes
    ----------
    member : str
    alone, gain, stderr : float
        Held-out nats per row of this member alone; by how much the ensemble's are more without it, and the standard
        error.
    weight : float
        Mean weight.
    parameters : int
    fit_seconds : float
    call_ms : float
        Milliseconds of one denoiser call of a thousand rows.
    call_share : float
        Share of the time of the ensemble's calls; zero of a member that nowhere has a weight, and is not called.
    """

    member: str
    alone: float
    gain: float
    stderr: float
    weight: float
    parameters: int
    fit_seconds: float
    call_ms: float
    call_share: float


@torch.no_grad()
def seconds_of_call(
    denoiser: Denoiser, x: Tensor, *, n_rows: int = 1000, repeats: int = 3
) -> float:
    """Seconds of a denoiser call of so many rows, half of whose cells are known: the fastest of a few."""
    book = denoiser.codebook
    rows = x[torch.arange(n_rows, device=x.device) % len(x)]
    known = torch.arange(book.n_columns, device=x.device) % 2 == 0
    told = known & ~rows.isnan()
    points = book.embed(rows)
    y = torch.where(book.per_coord(told), points, 0.0)
    snr = torch.zeros(rows.shape, dtype=points.dtype, device=x.device).masked_fill(told, math.inf)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        float(denoiser(y, snr).categorical.logits.sum())  # which waits for a GPU
        times.append(time.perf_counter() - start)
    return min(times)


def member_names(members: Iterable[Recipe]) -> list[str]:
    """Short names of the members of an ensemble, numbered where they are alike."""
    plain = []
    for m in members:
        n = getattr(m, "n_components", None)
        if isinstance(m, Network):
            plain.append("network" if m.architecture == "auto" else m.architecture)
        elif isinstance(m, Trees):
            plain.append("tree" if n == 1 else f"{n} trees")
        elif isinstance(m, Mixture):
            plain.append("mixture" if n is None else f"mixture of {n}")
        else:
            plain.append("bayes net" if isinstance(m, BayesNet) else "independent")
    return [
        f"{name} {plain[:i].count(name) + 1}" if plain.count(name) > 1 else name
        for i, name in enumerate(plain)
    ]
