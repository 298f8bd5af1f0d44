"""Exact denoisers by recipe: classes, smoothing and joined columns as held-out rows choose them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from discrete_itd.denoisers import (
    BayesNetDenoiser,
    ExactDenoiser,
    JoinedDenoiser,
    Joining,
    MarginalDenoiser,
    MixtureDenoiser,
    TreeDenoiser,
)
from discrete_itd.recipes import BayesNet, Exact, Independent, Mixture, Trees

MOST_CLASSES = 1024  # tried of a mixture of products
FEWEST_CLASSES, CLASS_FACTOR = 16, 4
PSEUDO_COUNTS = (0.3, 1.0, 3.0, 10.0)  # of a tree or of the classes of joined columns


def fit_exact(
    wanted: Exact,
    marginals: MarginalDenoiser,
    x: Tensor,
    x_valid: Tensor,
    generator: torch.Generator,
    *,
    joining: Joining | None = None,
    with_reals: bool = True,
) -> ExactDenoiser:
    """The exact denoiser of a recipe.

    Parameters
    ----------
    wanted : Exact
    marginals : MarginalDenoiser
        Independent columns of the same rows.
    x, x_valid : Tensor of float64, shapes (N, C) and (N', C)
        Rows to fit to and held-out rows, which choose; NaN where a cell is missing.
    generator : torch.Generator
        On the device of the rows.
    joining : Joining, optional
        Columns that exclude one another (:meth:`Joining.found`). Then it is fitted to the table as it is and to that
        in which they are joined, and what predicts held-out rows better is kept. A mixture of joined columns says
        nothing of continuous ones.
    with_reals : bool
        Whether a mixture may tell of continuous columns.
    """
    book = marginals.codebook
    # only a mixture has something to say of continuous columns
    untold = not len(book.finite) and not isinstance(wanted, Mixture)
    if isinstance(wanted, Independent) or untold:
        return marginals

    def nats(denoiser: ExactDenoiser) -> float:
        return held_out(denoiser, x_valid)

    plain = min(_fits(wanted, marginals, x, x_valid, generator, with_reals), key=nats)
    if joining is None:
        return plain
    rows, valid = joining.encode(x), joining.encode(x_valid)
    alone = joining.marginals(marginals, rows)
    joined = [
        JoinedDenoiser(joining, inner, marginals)
        for inner in _fits(wanted, alone, rows, valid, generator, False)
    ]
    return min([plain, *joined], key=nats)


def held_out(denoiser: ExactDenoiser, x_valid: Tensor) -> float:
    """Nats per held-out row in closed form."""
    return -float(denoiser.log_prob(x_valid).double().mean())


def _fits(
    wanted: Exact,
    marginals: MarginalDenoiser,
    x: Tensor,
    x_valid: Tensor,
    generator: torch.Generator,
    with_reals: bool,
) -> Iterator[ExactDenoiser]:
    """The denoisers of a recipe among which held-out rows choose."""
    if isinstance(wanted, Trees) and wanted.n_components == 1:
        for a in PSEUDO_COUNTS:
            yield TreeDenoiser.fit(marginals, x, pseudo_count=a)
    elif isinstance(wanted, Trees):
        yield TreeDenoiser.fit(
            marginals,
            x,
            n_components=min(wanted.n_components, len(x)),
            x_valid=x_valid,
            generator=generator,
        )
    elif isinstance(wanted, BayesNet):
        yield BayesNetDenoiser.fit(marginals, x, x_valid=x_valid, most_table=wanted.most_table)
    else:
        assert isinstance(wanted, Mixture)

        def mixture(n: int) -> MixtureDenoiser:
            return MixtureDenoiser.fit(
                marginals,
                x,
                n_components=n,
                x_valid=x_valid,
                generator=generator,
                with_reals=with_reals,
            )

        if wanted.n_components is not None:
            yield mixture(wanted.n_components)
            return
        best = held_out(first := mixture(FEWEST_CLASSES), x_valid)
        yield first
        n = FEWEST_CLASSES * CLASS_FACTOR
        while n <= min(MOST_CLASSES, len(x) // 4):
            larger = mixture(n)
            yield larger
            nats = held_out(larger, x_valid)
            if nats >= best:
                break
            best, n = nats, n * CLASS_FACTOR
