"""The contract that every denoiser keeps."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import Posterior

HUGE = 1 << 16  # numbers of a posterior of one row, so many that a few rows tell all
BLOCK = 32  # rows of a call come in multiples of this, so that none depends on how many others there are
NARROW = 16  # columns of a matrix up to which a product's rows may be summed in different orders


def filled(x: Tensor, block: int = BLOCK) -> Tensor:
    """Rows, the last of them repeated until their number is a multiple of ``block``: (N, ...) to (N', ...).

    A matrix product sums in another order, and so rounds otherwise, when it has one row than when it has many.
    """
    lacking = -len(x) % block if len(x) else 0
    return torch.cat([x, x[-1:].expand(lacking, *x.shape[1:])]) if lacking else x


def row_product(x: Tensor, w: Tensor) -> Tensor:
    """``x @ w``, every row of which depends on that row of ``x`` alone: (..., B, K) and (..., K, N) to (..., B, N).

    Where N is small, libraries sum the rows of one product in different orders, by their place; so zeros widen w.
    """
    n = w.shape[-1]
    return (x @ nn.functional.pad(w, (0, max(0, NARROW - n))))[..., :n]


def rows_at_once(n: int) -> int:
    """The largest power of two that is at most n, at least 1: parts of this size cut no :data:`BLOCK` unevenly."""
    return 1 << max(0, n.bit_length() - 1)


class Denoiser(nn.Module):
    """A map from the state of the channel to a posterior over the clean row.

    Parameters
    ----------
    codebook : Codebook
        The points of the table's categories.

    Attributes
    ----------
    isotropic : bool
        Whether it takes only states in which all columns but the leading ones have the same SNR.
    independent : bool
        Whether its columns are independent, so that one step of a path gives the closed form.

    Notes
    -----
    Any map is admissible: the score it leads to is a valid code length, law (5) of
    :mod:`discrete_itd.likelihood`, and its path a normalised probability mass (6). A better map gives
    shorter codes.
    """

    isotropic: bool = False
    independent: bool = False

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.codebook = codebook

    @abstractmethod
    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        """Posterior given the state ``y`` (B, D) and ``snr`` (B, C)."""
        raise NotImplementedError

    def blurred(self, sd: float) -> Denoiser:
        """The same denoiser, to which continuous values have a Gaussian error of ``sd``.

        Every factor of the coordinate path is blurred and stays a density, so its mass stays one; what is
        finer than ``sd``, like a value that repeats, is not rewarded any more. Units are those of the core, in which a
        column's standard deviation is 1/2. A denoiser of continuous columns says here what that means to it.
        """
        if len(self.codebook.reals):
            raise NotImplementedError(
                f"a {type(self).__name__} of continuous columns is not blurred"
            )
        return self

    @property
    def row_work(self) -> int:
        """Numbers that are worked out for a row's posterior, about, which time is proportional to."""
        return self.codebook.work

    def pilot_rows(self, n_numbers: int) -> int:
        """Rows of a pilot that may work out so many numbers: some tens, of pictures of many levels a few."""
        fewest = 32 if self.codebook.work < HUGE else 4
        return max(fewest, min(512, n_numbers // self.row_work))

    @property
    def n_parameters(self) -> int:
        """Numbers that make it the denoiser it is."""
        tensors = self.state_dict().values()
        return sum(t.numel() for t in tensors if t.is_floating_point())


class ExactDenoiser(Denoiser):
    """A denoiser that is the exact posterior of a distribution, whose log-probability it has in closed form.

    On a path through known and unknown cells alone (6) gives this log-probability to rounding, whatever the order; the
    integral (3) gives it within its error, a noisy path in the limit of many steps.
    """

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        raise NotImplementedError

    @abstractmethod
    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        r"""What evidence about the columns of few categories says, whatever it comes from.

        Parameters
        ----------
        evidence : Tensor, shape (B, T)
            Log-likelihood of every level, finite, nats.

        Returns
        -------
        log_mass : Tensor, shape (B,)
            Log-probability of the evidence, :math:`\log \sum_x P(x) \prod_j e^{\ell_j(x_j)}`, nats.
        logits : Tensor, shape (B, T)
            Posterior of every level, up to a constant per column.
        """
        raise NotImplementedError
