"""Fitting: every recipe on every kind of table; histories, schedules and the noise of training."""

import dataclasses
import functools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fits import TINY, chain, fit, mixed, nats, noise, split, watch
from sklearn.base import clone

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.encoders import ABSENT, TableEncoder
from discrete_itd.models import fitting
from discrete_itd.models.fitting import NOISY
from discrete_itd.models.model import split_evaluations
from discrete_itd.recipes import Causal, Forest, Mixture, Network
from discrete_itd.training.loop import TrainingPlan

EXACT = {
    "independent": "independent",
    "tree": "tree",
    "mixture": Mixture(2, n_points=64, max_steps=40),
    "bayes net": "bayes_net",
    "forest": Forest(2),
}
RECIPES = {
    **EXACT,
    "network": TINY,
    "on a mixture": dataclasses.replace(TINY, base=Mixture(2, n_points=64, max_steps=40)),
    "row mixture": [
        Causal(width=8, depth=1, base="tree"),
        Causal(width=8, depth=1, base="tree"),
        "tree",
        Mixture(2, n_points=64, max_steps=40),
    ],
    "one member": ["tree"],
}


@functools.cache
def fitted(name, **changes):
    """A model of the chain that several tests ask; they must not change it."""
    return fit(chain(), RECIPES[name], **changes)


# -- every recipe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_property_a_stored_model_is_the_model(tmp_path, name):
    """Scores and rows of a model that was saved or pickled are equal to the last bit."""
    rows, model = chain(), fitted(name)
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    assert not model.denoiser_.training
    model.save(tmp_path / "m")
    for other in (DiffusionDensity.load(tmp_path / "m"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.score_samples(rows), scores)
        pd.testing.assert_frame_equal(
            other.sample(5, random_state=1), model.sample(5, random_state=1)
        )
        assert other.denoiser == RECIPES[name]
        assert other.model_.stopped == model.model_.stopped
        assert other.model_.schedule == model.model_.schedule
        own, theirs = model.denoiser_.state_dict(), other.denoiser_.state_dict()
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[key], theirs[key]) for key in own)
        assert other.denoiser_.n_parameters == model.denoiser_.n_parameters > 0


@pytest.mark.parametrize("name", ["mixture", "row mixture"])
def test_property_the_same_fit_again_is_the_same_model(name):
    again = clone(fitted(name)).fit(chain())
    np.testing.assert_array_equal(again.explain(chain()), fitted(name).explain(chain()))


@pytest.mark.parametrize("name", EXACT)
def test_property_an_exact_denoiser_needs_no_training(name):
    rows, model = chain(), fitted(name)
    assert model.denoiser_.exact
    assert model.model_.stopped == "exact"
    _, held_out = split(model, rows)
    last = model.history_.iloc[-1]
    assert last["step"] == 0
    assert last["valid_nats"] == pytest.approx(nats(model.denoiser_, held_out))
    x = model.rows(rows).x
    estimate = model.log_prob(rows)
    # on the schedule that is chosen: the closed form, without error
    np.testing.assert_allclose(estimate.log_prob, model.denoiser_.log_prob(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(estimate.stderr, 0, atol=1e-4)


@pytest.mark.parametrize("base", [name for name in EXACT if name != "mixture"])
def test_property_an_untrained_network_is_its_base(base):
    rows = chain()
    network = Network(width=8, depth=1, base=EXACT[base])
    model = fit(rows, network, max_steps=0, schedule=CoordinateSchedule(5))
    x = model.rows(rows).x
    expected = fitted(base).denoiser_.log_prob(x)
    np.testing.assert_allclose(model.denoiser_.base.log_prob(x), expected)
    np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "denoiser", ["mixture", ["tree", "mixture"], Network(base="mixture"), Causal(base="mixture")]
)
def test_without_steps_a_mixture_is_refused_by_name(denoiser):
    with pytest.raises(ValueError, match="max_steps=0: the classes of a mixture"):
        fit(chain(), denoiser, max_steps=0)


def test_the_base_of_a_causal_network_is_independent_a_tree_or_a_bayesian_network():
    with pytest.raises(TypeError, match="base='forest': a ForestDenoiser cannot be that"):
        fit(chain(), Causal(base="forest"), max_steps=1)


def test_without_steps_the_best_is_exact():
    assert fit(mixed(), "best", max_steps=0).denoiser_.exact


@pytest.mark.filterwarnings("ignore:column 'a'. no value was seen in training")
@pytest.mark.parametrize("name", ["tree", "bayes_net", "mixture", "forest"])
def test_what_was_never_seen_keeps_its_mass_given_any_cells(name):
    """Good and Turing's, or half a row: no count says how it depends on other columns. Forests split by it as well."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 2000)
    b = np.where(rng.random(2000) < 0.9, a, rng.integers(0, 4, 2000))
    rows = pd.DataFrame({"a": a.astype(str), "b": b.astype(str)})
    alone = fit(rows, "independent").score_samples(pd.DataFrame({"a": ["new"], "b": [np.nan]}))
    new = pd.DataFrame({"a": "new", "b": [np.nan, *"0123"]}, dtype=object)
    model = fit(rows, {"mixture": Mixture(16, n_points=32, max_steps=5)}.get(name, name))
    nats = model.score_samples(new) - [0, *model.score_samples(new.assign(a=np.nan)[1:])]
    near = {"abs": 1.0 if name == "forest" else 5e-3}
    assert nats.tolist() == pytest.approx([alone[0]] * 5, **near)


# -- the history -----------------------------------------------------------------------------------


def test_the_marginals_are_of_the_training_rows():
    rows = noise(60)
    model = fit(rows, TINY, max_steps=0, validation_fraction=0.3)
    train_rows, held_out = split(model, rows)
    assert len(train_rows) + len(held_out) == len(rows)
    own = MarginalDenoiser.fit(
        model.denoiser_.codebook, train_rows, unseen_counts=model.encoder_.unseen_counts
    )
    torch.testing.assert_close(own.log_probs, model.model_.marginals.log_probs)


@pytest.mark.parametrize(
    "schedule", [None, pytest.param(IsotropicSchedule((0.5, 4.0)), marks=pytest.mark.slow)]
)
def test_training_is_never_worse_than_the_best_exact_base(schedule):
    rows = chain(400)
    network = dataclasses.replace(TINY, width=16)
    model = fit(rows, network, max_steps=40, schedule=schedule, validation_fraction=0.25)
    _, held_out = split(model, rows)
    history = model.history_
    alone, start, best = (
        history["valid_nats"].iloc[i] for i in (0, 1, history["valid_nats"].argmin())
    )
    assert history["step"].tolist()[:2] == [0, 0]
    assert best <= start
    # the first line is of independent columns: what the base saves is exact
    saved = nats(model.model_.marginals, held_out) - nats(model.denoiser_.base, held_out)
    assert alone - start == pytest.approx(saved)
    assert saved > 0
    # and the estimate from which training starts is about the base's closed form
    error = history["valid_stderr"].iloc[1]
    assert start == pytest.approx(nats(model.denoiser_.base, held_out), abs=4 * error)
    assert error < 0.7


def test_the_history_names_independent_columns_once():
    network = dataclasses.replace(TINY, base="independent")
    assert fit(chain(), network, max_steps=0).history_["step"].tolist() == [0]
    assert len(fitted("independent").history_) == 1
    model = fitted("tree")
    _, held_out = split(model, chain())
    expected = [nats(d, held_out) for d in (model.model_.marginals, model.denoiser_)]
    np.testing.assert_allclose(model.history_["valid_nats"], expected)


# -- schedules and the noise of training -----------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "changed"),
    [
        (None, {}),
        (CoordinateSchedule(5, (4, 2, 0, 1, 3)), {}),
        (IsotropicSchedule((1.0,)), NOISY),
    ],
    ids=str,
)
def test_training_keeps_to_the_noise_of_a_schedule_that_is_given(monkeypatch, schedule, changed):
    plans = watch(monkeypatch, lambda _, training: training, [fitting])
    fit(chain(), TINY, schedule=schedule, max_steps=1)
    (plan,) = plans
    expected = dataclasses.replace(TrainingPlan(), **changed)
    assert plan.isotropic == expected.isotropic


def test_default_schedules_have_paths_for_an_error():
    assert fit(chain(), TINY, n_evaluations=6).model_.schedule == CoordinateSchedule(3)
    whole = CoordinateSchedule(chain().shape[1])
    assert fit(chain(), RECIPES["tree"]).model_.schedule == whole


@pytest.mark.parametrize("n", [2, 5, 16, 128])
@pytest.mark.parametrize("columns", [["size"], ["size", "day"]])
def test_property_evaluations_of_both_stages_are_those_asked_for(columns, n):
    """With missingness indicators, at least two evaluations each, and together no more than n_evaluations."""
    rows = mixed().dropna()
    rows.loc[rows.index[::5], columns] = None
    book = TableEncoder.fit(rows, missing="category").codebook()
    n_steps, first, second = split_evaluations(n, book)
    assert 1 <= n_steps <= len(columns)
    used = n_steps * (1 if n_steps == 1 else max(2, first // n_steps))
    assert used + second <= max(n, 4)
    assert min(first, second) >= 2
    assert second >= n * (book.n_columns - len(columns)) // book.n_columns - 1


def test_property_a_cell_is_drawn_if_and_only_if_its_indicator_says_so():
    rows = mixed()
    model = fit(rows, TINY, missing="category")
    n, owner = rows.shape[1], model.encoder_.owner
    drawn = model.model_.draw(torch.full((200, len(owner)), torch.nan, dtype=torch.float64), 0)
    absent = drawn[:, n:] == ABSENT
    assert absent.any(0).all()
    assert torch.equal(drawn[:, owner[n:]].isnan(), absent)
    assert not drawn[:, n:].isnan().any()


# -- threads of Python -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.single_precision
@pytest.mark.parametrize("n_threads", [2, 4])
def test_property_a_fit_is_the_same_whatever_other_threads_fit(n_threads):
    """To the last bit, dropout among it: no random state is shared, and that of the process stays as it is."""
    recipes = (Causal(width=16, base="independent"), TINY, Mixture(64, n_points=64, max_steps=20))
    asked, rows = (recipes * 2)[:n_threads], mixed()
    before, start = torch.get_rng_state(), threading.Barrier(n_threads)

    def scores(recipe, wait=lambda: None):
        wait()
        return fit(rows, recipe, max_steps=6).score_samples(rows)

    with ThreadPoolExecutor(n_threads) as pool:
        together = [*pool.map(partial(scores, wait=start.wait), asked)]
    for recipe, found in zip(asked, together, strict=True):
        np.testing.assert_array_equal(found, scores(recipe))
    assert torch.equal(torch.get_rng_state(), before)
