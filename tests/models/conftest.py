"""Validations and pilots on few draws, so that the short fits of this folder are quick."""

import pytest

from discrete_itd.training import objective


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(objective, "VALIDATION_DRAWS", 256)
    monkeypatch.setattr(objective, "PILOT_CELLS", 1)
