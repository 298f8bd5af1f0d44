"""A recipe, a denoiser and a schedule that the library does not know go wherever its own go."""

import functools
import pickle

import numpy as np
import pandas as pd
import pytest
from fits import chain, fit, nats
from foreign import DoublingSchedule, Given, Linear, LinearDenoiser
from sklearn.base import clone

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Network, Tree, recipe

TRUSTED = [Linear, LinearDenoiser, DoublingSchedule]
SCHEDULE = DoublingSchedule(5)


@functools.cache
def fitted(denoiser=None, schedule=None):
    denoiser = Linear() if denoiser is None else denoiser
    wanted = list(denoiser) if isinstance(denoiser, tuple) else denoiser
    return fit(chain(300), wanted, max_steps=60, schedule=schedule)


def test_a_foreign_denoiser_is_trained_and_answers_every_question():
    rows, model = chain(300), fitted()
    assert isinstance(model.denoiser_, LinearDenoiser)
    start, best = model.history_["valid_nats"].iloc[0], model.history_["valid_nats"].min()
    assert best < start
    assert model.score(rows) > -nats(model.model_.marginals, model.rows(rows).x)
    scores = model.score_samples(rows)
    np.testing.assert_allclose(model.explain(rows).sum(axis=1), -scores, rtol=1e-6)
    assert model.sample(10, random_state=0).isin(["x", "y", "z", "u", "v"]).all(axis=None)
    assert model.impute(rows.mask(rows == "x")).notna().all(axis=None)
    assert model.predict_proba(rows, "a").sum(axis=1).to_numpy() == pytest.approx(1)


def test_a_recipe_of_ones_own_is_a_value():
    assert recipe(Linear()) == Linear() != Linear(Tree())
    unfitted = clone(DiffusionDensity(denoiser=Linear(Tree())))
    assert unfitted.denoiser == Linear(Tree())
    again = clone(fitted()).fit(chain(300))
    np.testing.assert_array_equal(again.score_samples(chain()), fitted().score_samples(chain()))
    with pytest.raises(ValueError, match="base must be 'auto' or an exact denoiser, got Linear"):
        recipe(Network(base=Linear()))


def test_a_denoiser_with_given_weights_needs_no_training():
    rows, model = chain(300), fitted(Given())
    assert model.model_.stopped == "exact"
    x = model.rows(rows).x
    expected = model.model_.marginals.log_prob(x)
    np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-5)
    first, own = model.history_["valid_nats"]
    assert own == pytest.approx(first)


def test_a_member_of_a_mixture_needs_a_closed_form():
    with pytest.raises(TypeError, match="Linear: its denoiser has no closed form"):
        fitted((Linear(), "tree"))


@pytest.mark.parametrize(
    ("denoiser", "schedule"),
    [
        (Linear(), None),
        (Linear(Tree()), SCHEDULE),
        ("tree", SCHEDULE),
    ],
    ids=str,
)
def test_property_a_stored_model_is_the_model(tmp_path, denoiser, schedule):
    rows, model = chain(), fitted(denoiser, schedule)
    model.save(tmp_path / "m")
    for other in (
        DiffusionDensity.load(tmp_path / "m", trusted=TRUSTED),
        pickle.loads(pickle.dumps(model)),
    ):
        np.testing.assert_array_equal(other.score_samples(rows), model.score_samples(rows))
        pd.testing.assert_frame_equal(
            other.sample(5, random_state=1), model.sample(5, random_state=1)
        )
        assert other.denoiser == model.denoiser
        assert other.model_.schedule == model.model_.schedule
    with pytest.raises(ValueError, match="trusted="):
        DiffusionDensity.load(tmp_path / "m")


def test_property_on_a_foreign_schedule_masses_add_up_to_one():
    model = fitted(Linear(), SCHEDULE)
    assert model.model_.schedule == SCHEDULE
    every = pd.MultiIndex.from_product([list("xyz")] * 4 + [["u", "v"]]).to_frame(index=False)
    rows = every.set_axis(list(chain()), axis=1)
    estimate = model.log_prob(rows)
    mass = np.exp(estimate.log_prob)
    error = np.sqrt(np.square(mass * estimate.stderr).sum())
    assert mass.sum() == pytest.approx(1, abs=5 * error + 0.01)
