"""Scores at scale: one function from batches to batches, thin wrappers for engines, and models kept in MLflow.

``batches`` scores Arrow or pandas batches by a model that each process loads once; its results are those of
:mod:`discrete_itd.detection.answers`. ``engines`` runs the same function on Dask, Ray Data and Spark; ``mlflow``
saves, logs and loads models as an MLflow flavour. The engines and MLflow are extras, imported when they are used.
"""

from discrete_itd.detection.answers import DENSITY_OUTPUTS, DETECTOR_OUTPUTS
from discrete_itd.scale.batches import BatchScoring, output_schema, score_batches
from discrete_itd.scale.engines import score_dask, score_ray, score_spark

__all__ = [
    "DENSITY_OUTPUTS",
    "DETECTOR_OUTPUTS",
    "BatchScoring",
    "output_schema",
    "score_batches",
    "score_dask",
    "score_ray",
    "score_spark",
]
