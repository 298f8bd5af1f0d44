"""One number, three ways: log-probabilities in closed form, along paths and by the integral, of a user's own table."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate

from discrete_itd import DiffusionDensity
from discrete_itd.channel import IsotropicSchedule
from discrete_itd.denoisers.base import ESTIMATORS
from discrete_itd.likelihood import integral_log_prob, path_log_prob
from discrete_itd.models.model import Model
from discrete_itd.recipes import Causal, Mixture, Network
from discrete_itd.training import pilot_quadrature
from tests.examples import float64, gappy, mixed_table

GUARANTEES = Path(__file__).parents[1] / "benchmarks" / "GUARANTEES.md"

pytestmark = pytest.mark.single_precision

NETWORK = Network(width=16, depth=1, base="independent")
CAUSAL = Causal(width=16, depth=1, base="independent")
SMALL = {
    "mixture": Mixture(64, n_points=64, max_steps=40),
    "causal": CAUSAL,
    "row_mixture": [CAUSAL, "tree"],
    "network": NETWORK,
}
TABLES = {"mixed": mixed_table(300), "categories": gappy(300)}
N_POINTS = 128  # noise levels of a row


def promises():
    """Lines of the guide's table: names of models, what each estimator gives, and whose the curve is."""
    lines = re.findall(r"^\| (`\".+) \|$", GUARANTEES.read_text(), re.MULTILINE)
    cells = [cells for line in lines if len(cells := line.split(" | ")) == 2 + len(ESTIMATORS)]
    return {
        name: (dict(zip(ESTIMATORS, line[1:-1], strict=True)), line[-1])
        for line in cells
        for name in re.findall(r'`"(\w+)"`', line[0])
    }


PROMISES = promises()


@cache
def fitted(name, table="mixed", missing="marginalise"):
    with float64():
        return DiffusionDensity(
            denoiser=SMALL.get(name, name),
            max_steps=20,
            missing=missing,
            n_evaluations=N_POINTS,
            random_state=0,
        ).fit(TABLES[table])


def few(table, n=8):
    return TABLES[table][:n]


def check_within_error(got, true):
    """The mean within 4 standard errors, every row within 6 and the error that the ends of the integral leave."""
    difference, error = got.log_prob - true, got.stderr
    assert abs(difference.mean()) < 4 * np.sqrt(np.square(error).sum()) / len(error) + 1e-4
    assert (np.abs(difference) < 6 * error + 1e-3).all()
    assert error.max() < 2


def test_the_guide_tells_of_every_kind_of_model():
    assert set(SMALL) | {"independent", "tree", "bayes_net"} == set(PROMISES)


@pytest.mark.parametrize(
    "missing", ["marginalise", pytest.param("category", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", PROMISES)
def test_every_line_of_the_guide_is_true(name, missing):
    """Of a table with gaps and a number."""
    model, rows = fitted(name, missing=missing), few("mixed")
    default = model.log_prob(rows)
    for estimator, promise in PROMISES[name][0].items():
        if promise == "–":
            with pytest.raises(ValueError, match=f"estimator='{estimator}': .* it has '.*' and"):
                model.log_prob(rows, estimator=estimator)
            continue
        got = model.log_prob(rows, estimator=estimator)
        if promise == "default":
            np.testing.assert_array_equal(got.log_prob, default.log_prob)
        elif promise == "equal":
            np.testing.assert_allclose(got.log_prob, default.log_prob, atol=1e-8)
            np.testing.assert_allclose(got.stderr, 0, atol=1e-8)
        elif promise == "within its error":
            check_within_error(got, default.log_prob)
            assert name == "independent" or got.stderr.max() > 1e-3
        else:
            assert promise == "another code length"
            assert np.isfinite(got.log_prob).all()


@pytest.mark.parametrize("missing", ["marginalise", "category"])
@pytest.mark.parametrize("name", ["bayes_net", "mixture"])
def test_given_columns_are_conditions_in_every_way(name, missing):
    model, rows, known = fitted(name, missing=missing), few("mixed"), ["word", "level"]
    true = model.log_prob(rows, known).log_prob
    path = model.log_prob(rows, known, estimator="path")
    np.testing.assert_allclose(path.log_prob, true, atol=1e-8)
    check_within_error(model.log_prob(rows, known, estimator="integral"), true)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match=r"estimator must be one of .*, got 'exact'"):
        fitted("tree").log_prob(few("mixed"), estimator="exact")


# -- the curve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "name",
    [n if n in ("tree", "causal") else pytest.param(n, marks=pytest.mark.slow) for n in PROMISES],
)
def test_the_area_under_a_curve_of_the_scorer_is_minus_the_score(name, table):
    """Of categories; with numbers, the area between the curves is the gain over independent columns."""
    model, rows = fitted(name, table), TABLES[table][:60]
    curve = model.mse_curve(rows, n_points=97)
    assert curve.attrs["scores_rows"] == (PROMISES[name][1] == "its own")
    scorer, other = (type(d).__name__ for d in (model.denoiser_, model.model_.companion))
    assert curve.attrs["model"] == (scorer if curve.attrs["scores_rows"] else other)
    if not model.denoiser_.closed_form or not curve.attrs["scores_rows"]:
        return
    height = 0.5 * np.exp(curve["logsnr"])
    step = np.gradient(curve["logsnr"])
    error = np.sqrt(np.square(height * step * curve["stderr"]).sum())
    if table == "categories":
        area, nats = integrate.trapezoid(height * curve["mse"], curve["logsnr"]), -model.score(rows)
    else:
        between = height * (curve["mse_independent"] - curve["mse"])
        area = integrate.trapezoid(between, curve["logsnr"])
        nats = model.score(rows) - fitted("independent").score(rows)
    assert abs(area - nats) < 4 * error + 0.01


# -- networks ----------------------------------------------------------------------------------------


def test_the_path_of_a_network_tends_to_its_integral():
    """On average over rows and single paths, of all columns at one SNR in many steps."""
    with float64():
        model: Model = fitted("network", "categories").model_
        x = torch.from_numpy(model.encoder.transform(TABLES["categories"]).x)
        generator = torch.Generator().manual_seed(0)
        quadrature = pilot_quadrature(model.marginals, x, generator)
        integral = integral_log_prob(
            model.denoiser,
            x,
            quadrature,
            baseline=model.marginals,
            n_points=64,
            generator=generator,
        )
        levels = torch.linspace(*quadrature.edges[[0, -1]].tolist(), 128).exp().tolist()
        path = path_log_prob(
            model.denoiser, x, IsotropicSchedule(tuple(levels)), n_paths=1, generator=generator
        )
    difference = (path.log_prob - integral.log_prob).numpy()
    error = difference.std() / np.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error + 0.01
    assert error < 0.1
    coordinates = model.log_prob(x, 64, estimator="path").log_prob
    assert (coordinates - integral.log_prob).abs().max() > 0  # but not what the default path scores


def test_a_curve_has_as_many_rows_as_can_be_paid_for(monkeypatch):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("xyz"), 300), "b": rng.normal(size=300)})
    model = DiffusionDensity(denoiser="forest", random_state=0).fit(frame)
    work = model.model_.curved.row_work + model.model_.curved.n_parameters
    monkeypatch.setattr("discrete_itd.estimators.CURVE_WORK", 3 * 20 * work)
    pd.testing.assert_frame_equal(
        model.mse_curve(frame, n_points=3), model.mse_curve(frame, n_points=3, max_rows=20)
    )
