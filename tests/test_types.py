"""Types of answers, as pyright sees them (``.ci/run``) and as they are: a frame of polars for one, else of pandas."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type, get_args

import pandas as pd
import pytest

pytest.importorskip("polars")
import polars as pl

from discrete_itd import (
    DiffusionDensity,
    DiffusionOutlierDetector,
    find_errors,
    find_outliers,
    recipes,
)
from discrete_itd.models.auto import Name

pytestmark = pytest.mark.single_precision
ROWS = {"town": ["Bonn", "Köln", "Ulm"] * 20, "code": [53, 50, 89] * 20}


def test_answers_for_pandas():
    table = pd.DataFrame(ROWS)
    model = DiffusionDensity(missing="category", denoiser="tree", max_steps=0, random_state=0)
    model = assert_type(model.fit(table), DiffusionDensity)
    detector = DiffusionOutlierDetector(model, contamination="auto", false_alarm_rate=0.1)
    detector = assert_type(detector.fit(table), DiffusionOutlierDetector)
    drawn = assert_type(model.sample(3), pd.DataFrame | Any)  # as the table that was fitted
    answers = [
        drawn,
        assert_type(model.explain(table), pd.DataFrame),
        assert_type(model.impute(table, method="mean"), pd.DataFrame),
        assert_type(model.predict_proba(X=table, column="town"), pd.DataFrame),
        assert_type(model.predict_quantiles(table, "code"), pd.DataFrame),
        assert_type(model.predict_log_density(table, "code", [50]), pd.DataFrame),
        assert_type(detector.reasons(table, k=1), pd.DataFrame),
        assert_type(detector.strata(), pd.DataFrame),
        assert_type(find_errors(table, min_probability=0.9), pd.DataFrame),
        assert_type(find_outliers(table, detector, k=1), pd.DataFrame),
    ]
    assert {*map(type, answers)} == {pd.DataFrame}
    grown = DiffusionDensity(denoiser=["tree", recipes.Independent()]).partial_fit(table)
    assert isinstance(assert_type(grown, DiffusionDensity), DiffusionDensity)


def test_answers_for_polars():
    table = pl.DataFrame(ROWS)
    model = DiffusionDensity(denoiser=recipes.Tree(), random_state=0).fit(table)
    detector = DiffusionOutlierDetector(model, contamination=0.1).fit(table)
    drawn = model.sample(3)
    answers = [
        drawn,
        assert_type(model.explain(table), pl.DataFrame),
        assert_type(model.impute(table, method="mean"), pl.DataFrame),
        assert_type(model.predict_proba(X=table, column="town"), pl.DataFrame),
        assert_type(model.predict_quantiles(table, "code"), pl.DataFrame),
        assert_type(model.predict_log_density(table, "code", [50]), pl.DataFrame),
        assert_type(detector.reasons(table, k=1), pl.DataFrame),
        assert_type(find_errors(table, min_probability=0.9), pl.DataFrame),
        assert_type(find_outliers(table, detector, k=1), pl.DataFrame),
    ]
    assert {*map(type, answers)} == {pl.DataFrame}


def test_other_choices_are_errors():
    table = pd.DataFrame(ROWS)
    with pytest.raises(ValueError, match="missing must be"):
        DiffusionDensity(missing="drop").fit(table)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="denoiser must be"):
        DiffusionDensity(denoiser="trees").fit(table)  # pyright: ignore[reportArgumentType]
    with pytest.raises((TypeError, ValueError), match="contamination"):
        DiffusionOutlierDetector(contamination="few").fit(table)  # pyright: ignore[reportArgumentType]
    assert {*get_args(Name)} == {*recipes.NAMES}
