"""Pretrained diffusion models of images as densities of images."""

from discrete_itd.images.density import ImageDensity

__all__ = ["ImageDensity"]
