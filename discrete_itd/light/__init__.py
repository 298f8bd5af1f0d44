"""Scores of stored models without torch: :func:`load` reads what ``save`` of a density or a detector wrote.

A service that scores single rows, or a worker of an engine, needs neither torch nor scikit-learn for it, starts within
half a second and takes a quarter of the memory. The command's ``score`` and ``watch``, and
:class:`~discrete_itd.scale.BatchScoring`, use it by themselves where it has the answers and many rows
take about as long (``keeps_pace``), the command for small files in any case.
"""

from discrete_itd.light.densities import NotCoveredError
from discrete_itd.light.models import LightDensity, LightDetector, load

__all__ = ["LightDensity", "LightDetector", "NotCoveredError", "load"]
