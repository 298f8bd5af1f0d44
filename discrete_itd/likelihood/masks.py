r"""The time-free estimator of masks: log-probabilities of rows from predictions of hidden cells.

Let M be a random subset of the C columns, of a size that is uniform over 1, ..., C, and q the denoiser's posterior
where the cells of M are unknown and all others known. Then

.. math:: -\log P(x)
          = C\; \mathbb E_M \Bigl[\frac1{|M|} \sum_{j\in M} -\log q_j(x_j \mid x_{\setminus M})\Bigr] \qquad (18)

for an exact denoiser: a term of the chain rule in a random order of the columns has the columns after it hidden, each
equally often. The SNR of a cell is 0 or infinite, so this is the integral (3) along paths on which one column after
another becomes known, whose errors are cross-entropies, averaged over all orders.

Of any denoiser it is a valid code length, :math:`\sum_x e^{-s(x)} \le 1`, like eq. (5). It is the mean over orders
:math:`\sigma` of :math:`-\log P_\sigma(x)`, and each :math:`P_\sigma`, a product of conditionals, is normalised; so by
Jensen's inequality :math:`\sum_x e^{-s(x)} \le \sum_x \mathbb E_\sigma P_\sigma(x) = 1`. The log-mean-exp over orders,
eq. (6) on coordinate paths, is never longer, but takes C predictions an order.

References
----------
Jeon, Shin, Jeon, No, "Information-Theoretic Discrete Diffusion", NeurIPS 2025, arXiv:2510.24088, for the time-free
likelihood of masked diffusion (there with sizes drawn in proportion to 1 / |M|). Uria, Murray, Larochelle, "A deep and
tractable density estimator", ICML 2014, for (18) as a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.noise import RowNoise, draw_salt
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.likelihood.path import in_blocks
from discrete_itd.likelihood.standard_error import Estimate, paired_variance


@torch.no_grad()
def masks_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    *,
    baseline: Denoiser | None = None,
    n_points: int = 64,
    generator: torch.Generator,
    given: Tensor | None = None,
    batch_size: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Estimate:
    r"""Log-probabilities of rows by the predictions of hidden cells, eq. (18).

    Rows, ``generator``, ``given``, ``batch_size`` (here rows times subsets), ``progress`` and the result are as of
    :func:`~discrete_itd.likelihood.path.path_log_prob`.

    Parameters
    ----------
    baseline : Denoiser, optional
        Of independent columns: (18) is the difference from their log-probability, on the same subsets.
    n_points : int
        Subsets for each row, at least 4, an even number; their sizes are stratified, so that they are nearly uniform.

    Raises
    ------
    ValueError
        If ``n_points`` is below 4, or the denoiser has an order of its own: it predicts no cell from later ones.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> from discrete_itd.denoisers import SupportDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    >>> oracle = SupportDenoiser(book, x, torch.tensor([1.0, 3.0]))
    >>> masks_log_prob(oracle, x, n_points=8, generator=torch.Generator().manual_seed(0)).log_prob.exp()
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    if n_points < 4:
        raise ValueError(f"n_points must be at least 4, got {n_points}")
    if denoiser.own_order is not None:
        raise ValueError("a denoiser with an order of its own predicts no cell from later ones")
    book, salt = denoiser.codebook, draw_salt(generator)
    n_points += n_points % 2  # strata are compared in pairs
    fixed = torch.zeros_like(book.leading) if given is None else given

    def surprisal(rows: Tensor, hidden: Tensor) -> Tensor:
        known = ~rows.isnan() & ~hidden
        q = denoiser(*State.start(book, book.embed(rows), known))
        return -q.log_prob(rows.masked_fill(~hidden, math.nan)).double().sum(1)

    parts = [Estimate(x.new_zeros(0), x.new_zeros(0))]
    for rows in x.split(max(1, batch_size // n_points)):
        each = rows.repeat_interleave(n_points, 0)
        index = torch.arange(n_points, device=x.device).repeat(len(rows))
        noise, free = RowNoise(each, index, salt), ~each.isnan() & ~fixed
        u = (index + noise.uniform(0, 1)[:, 0]) / n_points
        n_free = free.sum(1)
        size = (u * n_free).long() + 1
        order = noise.uniform(1, x.shape[1]).masked_fill(~free, 2.0).argsort(1)
        hidden = free & (order.argsort(1) < size[:, None])
        nats = torch.cat(list(in_blocks(surprisal, each, hidden, batch_size=batch_size)))
        log_b = x.new_zeros(len(rows))
        if baseline is not None:
            own = baseline.log_factors(rows.masked_fill(fixed, math.nan)).double()
            nats, log_b = (
                nats + torch.where(hidden, own.repeat_interleave(n_points, 0), 0.0).sum(1),
                own.sum(1),
            )
        f = (n_free / size * nats).unflatten(0, (-1, n_points))  # (18)
        parts.append(Estimate(log_b - f.mean(1), paired_variance(f).sqrt()))
        if progress is not None:
            progress(len(rows))
    return Estimate(*(torch.cat(t) for t in zip(*parts, strict=True)))
