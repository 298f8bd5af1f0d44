"""Reasons ask the distribution that scored: probabilities of values are scores normalised over the values of a cell."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "estimators"))
from test_questions import float64, mixed_table

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection.reasons import cell_nats, reasons
from discrete_itd.likelihood.conditional import ConditionalDenoiser
from discrete_itd.recipes import Causal, Mixture

pytestmark = pytest.mark.single_precision

TABLE = mixed_table(400)
VALUES = {
    "word": ["low", "mid", "top"],
    "level": [0, 1, 2],
    "flag": [False, True],
    "size": [-0.3, 1.9, 4.5],
}


@cache
def fitted(n_orders=1, missing="marginalise"):
    """A causal network, or a mixture of rows with two of them: neither marginalises."""
    recipe = Causal(n_orders, width=16, depth=1, base="tree")
    with float64():
        model = DiffusionDensity(denoiser=recipe, max_steps=150, missing=missing, random_state=0)
        return model.fit(TABLE)


@pytest.mark.parametrize("missing", ["marginalise", "category"])
@pytest.mark.parametrize("n_orders", [1, 2])
@pytest.mark.parametrize("name", VALUES)
def test_surprisals_given_the_others_differ_as_scores_do(name, n_orders, missing):
    """Whatever is missing elsewhere in the row, and of numbers as closely as a grid of their density allows."""
    model = fitted(n_orders, missing)
    assert isinstance(model.model_.conditional, ConditionalDenoiser)
    rows, values = TABLE[:6], VALUES[name]
    every = pd.concat([rows] * len(values), ignore_index=True)
    column = pd.array(np.repeat(np.array(values, dtype=object), len(rows)), dtype=rows[name].dtype)
    every = every.assign(**{name: column})
    scores = model.score_samples(every).reshape(len(values), -1)
    nats = cell_nats(model, every).given_others[name].to_numpy().reshape(scores.shape)
    tolerance = 0.1 if name == "size" else 1e-8
    np.testing.assert_allclose(nats - nats[0], scores[0] - scores, atol=tolerance)
    if name == "size" or missing == "category":
        return
    unseen = 0.0
    if name != "flag":  # which knows only two values
        odd = rows.assign(**{name: pd.array([{"word": "odd", "level": 77}[name]] * len(rows))})
        both = pd.concat(
            [rows, odd], ignore_index=True
        )  # a table of nothing but new values would be warned of
        unseen = np.exp(-cell_nats(model, both).given_others[name].to_numpy()[len(rows) :])
    np.testing.assert_allclose(np.exp(-nats).sum(0) + unseen, 1, atol=1e-8)


def test_a_density_of_a_number_given_the_others_integrates_to_one():
    model, row = fitted(), TABLE.dropna()[:1]
    size = np.linspace(-6, 12, 361)
    rows = row.loc[row.index.repeat(len(size))].assign(size=size).reset_index(drop=True)
    density = np.exp(-cell_nats(model, rows).given_others["size"])
    assert np.trapezoid(density, size) == pytest.approx(1, abs=0.01)


def test_what_reasons_predict_is_the_log_probability_normalised():
    table = TABLE[["word", "flag"]].assign(level=TABLE["level"].astype("category")).dropna()
    causal = DiffusionDensity(denoiser=Causal(width=16, depth=1), max_steps=100)
    detector = DiffusionOutlierDetector(causal, false_alarm_rate=0.1, random_state=0).fit(table)
    rows = table[:20].reset_index(drop=True)
    found = detector.expected(rows, ["word"], k=None, n_values=3)
    probability = found.pivot_table(index="row", columns="expected", values="probability")
    whole = [detector.density_.score_samples(rows.assign(word=value)) for value in probability]
    p = torch.softmax(torch.tensor(np.array(whole)), 0).T
    np.testing.assert_allclose(probability.to_numpy(), p, atol=1e-5)
    # and of the only cell in doubt, the reason has the most probable one
    odd = pd.DataFrame({"word": ["low"], "flag": [True], "level": rows["level"][:1]})
    for line in detector.reasons(odd).to_dict("records"):
        assert line["rank"] > 1 or line["column"] != "word" or line["expected"] in VALUES["word"]


@pytest.mark.parametrize("value", [1e6, 1e18, -1e100])
@pytest.mark.parametrize("denoiser", [Causal(width=16, depth=1, base="tree"), Mixture(4)])
def test_a_number_however_far_out_is_the_first_reason_with_certainty(denoiser, value):
    """The distribution of errors has heavy tails, those of the models have not."""
    with float64():
        model = DiffusionDensity(denoiser=denoiser, max_steps=60, random_state=0).fit(TABLE)
        table = reasons(model, TABLE.dropna()[:5].assign(size=value))
    first = table[table["rank"] == 1]
    assert first["column"].tolist() == ["size"] * 5
    assert (first["error_probability"] > 0.999).all()
    assert np.isfinite(first[["nats", "excess_nats", "conflict_nats"]].astype(float)).all(axis=None)
