"""Choosing among exact denoisers by held-out rows, with one-hot groups as single columns where that is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from discrete_itd.denoisers import Denoiser, OneHotDenoiser
from discrete_itd.models.contract import TrainingRows


def best_exact(
    candidates: Callable[[TrainingRows], Iterable[Denoiser]], rows: TrainingRows
) -> Denoiser:
    """The candidate that predicts held-out rows best.

    Parameters
    ----------
    candidates : callable
        Fits denoisers to the rows that it is given: the table as it is and, if there are one-hot groups, the table in
        which each of them is one column. In the latter, continuous columns are independent.
    rows : TrainingRows
    """
    best = min(candidates(rows), key=rows.held_out_nats)
    if rows.one_hot_groups is None or rows.merged is None:
        return best
    joined = [
        OneHotDenoiser(rows.one_hot_groups, inner, rows.marginals)
        for inner in candidates(rows.merged)
    ]
    return min([best, *joined], key=rows.held_out_nats)
