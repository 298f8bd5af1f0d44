"""The widths of a kernel density: those by which each row is best predicted from the others."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from discrete_itd.denoisers.kernel_products import Kernels, Widths, log_sum

LEFT_OUT = 1000  # centres on which widths are compared, by leave-one-out
OUTLIERS = 0.1  # assumed share of rows without neighbours, which would otherwise widen the kernels
GRID = {
    "real": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
    "line": (0.05, 0.1, 0.2, 0.4, 0.8),
    "other": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
}
SWEEPS = 2  # over the widths, one after the other


def best_widths(kernels: Kernels, twins: Tensor) -> Widths:
    """The widths of the fewest leave-one-out nats.

    Parameters
    ----------
    kernels : Kernels
    twins : Tensor of int64, shape (n,)
        A number for each centre: a row is predicted by the centres of other numbers.
    """
    kinds = {c.kind for c in kernels.base.codebook.columns}
    used = [kind for kind in ("real", "line") if kind in kinds]
    used += ["other"] if kinds & {"simplex", "code"} else []
    widths, tried = kernels.widths, dict[str, Widths]()
    for name in used * min(SWEEPS, len(used)):
        if tried.get(name) == widths:
            continue  # nothing has changed since
        trials = [widths._replace(**{name: value}) for value in GRID[name]]
        nats = _left_out(replace(kernels, widths=widths), name, trials, twins)
        widths = trials[int(nats.argmin())]
        tried[name] = widths
    return widths


def _left_out(kernels: Kernels, name: str, trials: list[Widths], twins: Tensor) -> Tensor:
    """Mean nats of some of the centres given the others for each trial; those of rows like no other count less."""
    rows = kernels.centres.cells[:LEFT_OUT]
    alone = kernels.marginals.expand(len(rows)).log_prob(rows).double().sum(1)
    hidden, left = _hidden(torch.arange(len(rows), device=rows.device), twins)
    fixed = _part(kernels, rows, name, of_others=True).masked_fill_(hidden, -math.inf)
    nats = []
    for widths in trials:
        total = _part(replace(kernels, widths=widths), rows, name).add_(fixed)
        log_p = log_sum(total).double() - left.log()
        either = torch.logaddexp(math.log1p(-OUTLIERS) + log_p, math.log(OUTLIERS) + alone)
        nats.append(-either.mean())
    return torch.stack(nats)


def _hidden(rows: Tensor, twins: Tensor) -> tuple[Tensor, Tensor]:
    """Which centres the numbered ones (b,) are not to be predicted by, (b, n), and how many are left, (b,)."""
    same = twins[rows][:, None] == twins
    alone = same.all(1, keepdim=True)  # nothing but copies is left
    index = torch.arange(len(twins), device=twins.device)
    same = torch.where(alone, rows[:, None] == index, same)
    if len(twins) == 1:
        same = torch.zeros_like(same)
    return same, (~same).sum(1).double()


def _part(kernels: Kernels, x: Tensor, name: str, *, of_others: bool = False) -> Tensor:
    """Log-kernels (B, n) of the columns whose width has this name, or of all others."""
    book = kernels.base.codebook
    kinds = {"simplex": "other", "code": "other", "line": "line", "real": "real"}
    mine = {j for j, c in enumerate(book.columns) if (kinds[c.kind] == name) != of_others}
    total = kernels.centres.product(kernels.features(kernels.known(x)), mine)
    for v in book.vocabularies:
        if v.column in mine:
            total = total + kernels.log_codes(x[:, v.column], v.column)
    return total
