"""Scores at scale: a function of Arrow or pandas batches, which Dask, Ray Data, Spark and MLflow run by recipes.

The recipes are in the guide's page on large tables.
"""

from discrete_itd.detection.answers import DENSITY_OUTPUTS, DETECTOR_OUTPUTS
from discrete_itd.scale.batches import BatchScoring

__all__ = ["DENSITY_OUTPUTS", "DETECTOR_OUTPUTS", "BatchScoring"]
