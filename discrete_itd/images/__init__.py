"""Diffusion models of images that exist already, as densities of images."""

from discrete_itd.images.density import ImageDensity

__all__ = ["ImageDensity"]
