"""Scores at scale: Arrow or pandas batches, engines (Dask, Ray Data, Spark) that run the same function, and MLflow."""

from discrete_itd.detection.answers import DENSITY_OUTPUTS, DETECTOR_OUTPUTS
from discrete_itd.scale.batches import BatchScoring
from discrete_itd.scale.engines import score_dask, score_ray, score_spark

__all__ = [
    "DENSITY_OUTPUTS",
    "DETECTOR_OUTPUTS",
    "BatchScoring",
    "score_dask",
    "score_ray",
    "score_spark",
]
