"""Validations and pilots on few draws, so that the short fits of this folder are quick."""

import pytest

from discrete_itd.training import evaluation


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(evaluation, "DRAWS", 256)
    monkeypatch.setattr(evaluation, "PILOT_NUMBERS", 1)
