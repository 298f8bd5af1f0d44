"""The contract that every denoiser keeps."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from discrete_itd.codebook import Codebook
from discrete_itd.posterior import Posterior


class Denoiser(nn.Module):
    """A map from the state of the channel to a posterior over the clean row.

    Parameters
    ----------
    codebook : Codebook
        The points of the table's categories.

    Notes
    -----
    Any map is admissible: the score it leads to is a valid code length, law (5) of
    :mod:`discrete_itd.likelihood`, and its path a normalised probability mass (6). A better map gives
    shorter codes.
    """

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.codebook = codebook

    @abstractmethod
    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        """Posterior given the state ``y`` (B, D) and ``snr`` (B, C)."""
        raise NotImplementedError
