"""Pretrained diffusion models of images as densities of images."""

from discrete_itd.images.density import ImageDensity, compare_mse

__all__ = ["ImageDensity", "compare_mse"]
