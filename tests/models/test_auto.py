"""Choosing among candidates, mixtures of rows, and what answers questions that the chosen model cannot."""

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import TINY, chain, mixed, noise, plan, training_rows
from sklearn.tree import ExtraTreeRegressor

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import (
    CausalDenoiser,
    NeuralDenoiser,
    RowMixtureDenoiser,
)
from discrete_itd.denoisers.forest import ForestCounts
from discrete_itd.denoisers.graph_search import Search
from discrete_itd.models import exact, networks
from discrete_itd.models.comparison import CandidateTable
from discrete_itd.models.decoder_mixture import LatentLoss
from discrete_itd.models.fitting import FitPlan, fit_recipe
from discrete_itd.recipes import (
    Auto,
    Best,
    Causal,
    Forest,
    Independent,
    Mixture,
    Network,
    RowMixture,
    Tree,
)
from discrete_itd.training.loop import TRIAL_STEPS, Run
from discrete_itd.training.objectives import Evaluator

QUICK = {"max_steps": 30, "random_state": 0}


@pytest.mark.parametrize("table", [pytest.param(chain, marks=pytest.mark.slow), mixed])
def test_auto_takes_the_cheapest_of_those_as_good_as_the_best(table):
    how = plan()
    fitted = fit_recipe(Auto(), training_rows(table(200)), how)
    lines = fitted.candidates
    assert lines["chosen"].sum() == 1
    assert lines["behind"].min() == pytest.approx(0.0, abs=1e-12)
    near = lines[lines["behind"] <= lines["stderr"]]
    chosen = lines[lines["chosen"]].iloc[0]
    assert chosen["behind"] <= chosen["stderr"]
    assert chosen["work"] == near["work"].min()
    nats = training_rows(table(200)).held_out_nats(fitted.denoiser)
    assert nats == pytest.approx(chosen["nats"], rel=1e-5)
    assert (fitted.companion is None) == fitted.denoiser.exact


def test_the_networks_of_the_best_are_of_all_kinds_in_turn(monkeypatch):
    kinds = tuple(Causal(base="independent", width=width) for width in (4, 8))
    monkeypatch.setattr("discrete_itd.models.auto.VARIED", kinds)
    seen, train_one = [], Causal.train_one

    def watched(self, base, rows, plan):
        seen.append((self, plan.network_seed))
        return train_one(self, base, rows, plan)

    monkeypatch.setattr(Causal, "train_one", watched)
    fit_recipe(Best(5), training_rows(chain(200)), plan(1))
    assert [kind for kind, _ in seen] == [*kinds, *kinds, kinds[0]]
    assert len({seed for _, seed in seen}) == 5


def test_what_is_cheap_is_fitted_before_what_is_not():
    how = plan()
    fitted = fit_recipe(Auto(), training_rows(mixed(120)), how)
    labels = [label for label in fitted.candidates["candidate"] if " + " not in label]
    assert labels == ["independent", "tree", "bayes net", "forest", "mixture", "causal"]


def test_the_best_mixes_all_families():
    how = plan(1)
    fitted = fit_recipe(Best(1), training_rows(mixed(200)), how)
    kinds = {"bayes net", "forest", "forest no. 2", "causal", "mixture"}
    assert kinds <= set(fitted.candidates["candidate"])
    assert fitted.companion is not None
    assert fitted.companion.exact
    # networks beside a mixture need none of their own to answer questions
    nested = [m for m in fitted.companion.modules() if isinstance(m, RowMixtureDenoiser)]
    assert len(nested) <= 1


def test_without_steps_only_exact_models_are_fitted():
    how = plan(0)
    fitted = fit_recipe(Auto(), training_rows(chain(200)), how)
    assert fitted.denoiser.exact
    labels = [label for label in fitted.candidates["candidate"] if " + " not in label]
    assert labels == ["independent", "tree", "bayes net", "forest"]


def test_what_was_not_fitted_in_time_is_named(monkeypatch):
    """In one warning, and in the reason for which the fit ended, whatever was chosen."""
    monkeypatch.setattr(FitPlan, "time_left", property(lambda _: 0.0))
    text = "max_time=5 left no time for tree, bayes net, forest, mixture, causal: nothing was learned of"
    with pytest.warns(UserWarning, match=text) as caught:
        model = DiffusionDensity(max_time=5, random_state=0).fit(chain(200))
    assert len(caught) == 1
    assert model.denoiser_.independent
    assert model.model_.stopped == "max_time"


def slowly(monkeypatch, seconds):
    """Let every step of a causal network seem to take so long; what passed in all."""
    past, real, make_step = [0.0], time.perf_counter, Run.make_step

    def slow(self, share):
        make_step(self, share)
        if isinstance(self.denoiser, CausalDenoiser):
            past[0] += seconds

    monkeypatch.setattr(Run, "make_step", slow)
    monkeypatch.setattr("time.perf_counter", lambda: real() + past[0])
    return past


def test_calls_of_a_denoiser_are_within_the_time(monkeypatch):
    """Pilot, steps and nats on held-out rows take what is left, not what they would."""
    past, real, forward = [0.0], time.perf_counter, NeuralDenoiser.forward

    def slow(self, y, snr):
        past[0] += 0.01 * len(y)
        return forward(self, y, snr)

    monkeypatch.setattr(NeuralDenoiser, "forward", slow)
    monkeypatch.setattr("time.perf_counter", lambda: real() + past[0])
    how = {"denoiser": TINY, "max_time": 60, "max_steps": 40, "random_state": 0}
    DiffusionDensity(**how).fit(chain(300))
    assert past[0] < 75  # of four rows, of which nothing is known, at least


def test_a_training_that_was_ended_is_named(monkeypatch):
    """Even if the model that was chosen is another one; and ended it was before the time was over."""
    past = slowly(monkeypatch, 1.0)
    of_network = Causal.training
    monkeypatch.setattr(Causal, "training", lambda *how: replace(of_network(*how), patience=99))
    text = (
        r"max_time=100 ended the training of a causal network after \d\d of 300 steps: a longer fit"
    )
    with pytest.warns(UserWarning, match=text) as caught:
        model = DiffusionDensity(max_time=100, random_state=0).fit(noise(200))
    assert len(caught) == 1
    assert model.model_.stopped == "max_time"
    assert model.denoiser_.exact
    assert 80 < past[0] < 100


def test_what_has_no_time_to_be_judged_is_not_begun(monkeypatch):
    """Its first steps show how long it would take; it is no candidate."""
    past, how = slowly(monkeypatch, 10.0), plan(3000, max_time=200.0)
    fitted = fit_recipe(Auto(), training_rows(chain(200)), how)
    assert how.left_out == ["causal network"]
    assert past[0] == 10.0 * TRIAL_STEPS
    assert "causal" not in set(fitted.candidates["candidate"])
    assert fitted.denoiser.exact


def test_property_a_forest_ends_in_time(monkeypatch):
    """At least one tree; a half of the time is for its trees, and no more is tried than the other half allows."""
    past = [0.0]

    def slow(kind, name, seconds):
        real = getattr(kind, name)

        def done(self, *args, **options):
            past[0] += seconds(self)
            return real(self, *args, **options)

        monkeypatch.setattr(kind, name, done)

    slow(ExtraTreeRegressor, "fit", lambda _: 1.0)
    slow(ForestCounts, "add", lambda counts: 0.5 * counts.splits.n_trees)
    slow(ForestCounts, "probs", lambda counts: 2.0 * counts.splits.n_trees)
    monkeypatch.setattr("time.perf_counter", lambda: past[0])
    table, trees = chain(200), {}
    for max_time in (1.0, 9.0, 20.0, 70.0, 1e4, None):
        past[0] = 0.0
        how = plan(0, max_time=max_time)
        forest = fit_recipe(Forest(), training_rows(table), how).denoiser
        trees[max_time] = forest.splits.n_trees
        assert bool(how.cut) == (max_time not in (1e4, None))
        assert past[0] <= max(max_time or 1e4, 3.5)  # what one tree takes
    assert trees == {1.0: 1, 9.0: 1, 20.0: 3, 70.0: 12, 1e4: 32, None: 32}


def test_a_network_has_the_time_that_a_mixture_leaves(monkeypatch):
    """The mixture takes a quarter at most; the network whatever is left then."""
    shares = {}

    def watched(kind):
        fit = kind.fit

        def fitted(self, rows, plan):
            shares.setdefault(kind, plan.time_left)
            return fit(self, rows, plan)

        monkeypatch.setattr(kind, "fit", fitted)

    for kind in (Mixture, Causal):
        watched(kind)
    fit_recipe(Auto(), training_rows(chain(200)), plan(3, max_time=600.0))
    assert list(shares) == [Mixture, Causal]
    assert shares[Mixture] == pytest.approx(600 * 0.95 / 4, rel=0.05)
    assert shares[Causal] == pytest.approx(600 * 0.95, rel=0.05)  # for the mixture took little


@pytest.mark.parametrize(
    ("recipe", "table"),
    [pytest.param(Auto(), mixed, marks=pytest.mark.slow), (Causal(width=8), chain)],
)
def test_a_bound_that_is_larger_than_a_fit_needs_changes_nothing(monkeypatch, recipe, table):
    """By a clock that each step of a mixture, or a network, and each validation takes a second of."""
    monkeypatch.setattr(networks, "FEWEST_COMPARED", 0)  # orders are compared, too
    past = [0.0]

    def slow(kind, name):
        real = getattr(kind, name)

        def done(*args):
            past[0] += 1.0
            return real(*args)

        monkeypatch.setattr(kind, name, done)

    slow(Run, "make_step")
    slow(Evaluator, "__call__")
    monkeypatch.setattr("time.perf_counter", lambda: past[0])
    monkeypatch.setattr("discrete_itd.models.networks.QUICK_MIXTURE", Mixture(64, max_steps=60))
    monkeypatch.setattr("discrete_itd.models.auto.QUICK_MIXTURE", Mixture(64, max_steps=60))
    rows = table(200)
    found = []
    for max_time in (None, 1.0):
        if max_time is not None:
            max_time = 4 * past[0]
        past[0], how = 0.0, plan(150, max_time=max_time)
        fitted = fit_recipe(recipe, training_rows(rows), how)
        assert not how.cut
        assert not how.left_out
        found.append((fitted, fitted.companion, fitted.candidates))
    (free, asked, lines), (bound, asked_too, lines_too) = found
    assert (free.report is None) == (bound.report is None)
    if free.report is not None:  # the model that was chosen was trained
        steps, steps_too = (
            [(e.step, e.valid_nats) for e in f.report.history] for f in (free, bound)
        )
        assert steps == steps_too
        assert free.report.stopped == bound.report.stopped
    x = training_rows(rows).x_valid
    assert torch.equal(free.denoiser.log_prob(x), bound.denoiser.log_prob(x))
    if asked is not None:
        assert torch.equal(asked.log_prob(x), asked_too.log_prob(x))
    if lines is not None:
        assert list(lines["nats"]) == list(lines_too["nats"])


def test_a_network_that_would_be_huge_is_left_out(monkeypatch):
    monkeypatch.setattr("discrete_itd.models.networks.MOST_WEIGHTS", 100)
    how = plan()
    fitted = fit_recipe(Auto(), training_rows(chain(200)), how)
    assert "causal" not in set(fitted.candidates["candidate"])
    assert not how.left_out


@pytest.mark.parametrize("table", [chain, mixed])
def test_the_companion_of_a_causal_network_is_no_worse_than_a_forest_or_its_base(table):
    rows, how = training_rows(table(300)), plan(3)
    fitted = fit_recipe(Causal(width=8, depth=0), rows, how)
    parts = [Forest().fit(rows, how), Causal().chosen_base(rows, how)]
    assert fitted.companion.exact
    least = min(map(rows.held_out_nats, parts))
    assert rows.held_out_nats(fitted.companion) <= least + 1e-4


@pytest.mark.parametrize("recipe", [Network(width=8), RowMixture([Causal(width=8)] * 3), Best(2)])
def test_a_fit_without_time_still_makes_a_model(recipe, monkeypatch):
    monkeypatch.setattr(FitPlan, "time_left", property(lambda _: 0.0))
    how, rows = plan(max_time=5.0), training_rows(chain(150))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        denoiser = fit_recipe(recipe, rows, how).denoiser
    assert bool(rows.held_out(denoiser).isfinite().all()) if denoiser.closed_form else True


def test_beside_gaps_a_causal_network_is_not_worse_than_its_base():
    """Given a missing parent, a tree sums it out; the network starts from the column's marginal."""
    table = chain(600).mask(np.random.default_rng(0).random((600, 5)) < 0.3)
    rows = training_rows(table, n_valid=200)
    recipe = Causal(width=8, depth=0, base="tree")
    base, fitted = recipe.chosen_base(rows, plan(2)), fit_recipe(recipe, rows, plan(2)).denoiser
    assert rows.held_out_nats(fitted) <= rows.held_out_nats(base) + 1e-3


def test_members_of_one_name_are_told_apart():
    how, rows = plan(), training_rows(chain(300))
    two = RowMixture((Tree(), Independent(), Independent()))
    fitted = fit_recipe(two, rows, how)
    denoiser = fitted.denoiser
    labels = list(fitted.candidates["candidate"])
    assert len(set(labels)) == len(labels)
    chosen = fitted.candidates.set_index("candidate")["chosen"]
    assert (
        fitted.candidates.loc[chosen.to_numpy(), "nats"].item() == fitted.candidates["nats"].min()
    )
    assert rows.held_out_nats(denoiser) == pytest.approx(fitted.candidates["nats"].min())


def test_every_network_has_a_seed_of_its_own(monkeypatch):
    seen = watch(monkeypatch, lambda self: self.network_seed)
    recipe = RowMixture((Causal(width=4, depth=0),) * 3)
    fit_recipe(recipe, training_rows(chain(100)), plan(2))
    assert len(set(seen)) == len(seen) == 3


def watch(monkeypatch, what):
    seen, train = [], FitPlan.train

    def watched(self, *args):
        seen.append(what(self))
        return train(self, *args)

    monkeypatch.setattr(FitPlan, "train", watched)
    return seen


@pytest.mark.parametrize(
    "where",
    [
        (Search, "_step"),
        (LatentLoss, "nats"),
        (Run, "make_step"),
        (CandidateTable, "settle"),
    ],
)
def test_an_interruption_anywhere_leaves_the_best_so_far(monkeypatch, ctrl_c, where):
    """In the search for a graph, a mixture, a network, and among those that are there; nothing is begun afterwards."""
    kind, name = where
    calls, real = [], getattr(kind, name)

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 1:
            ctrl_c()
        return real(*args)

    monkeypatch.setattr(kind, name, interrupted)
    with pytest.warns(UserWarning, match="training was interrupted: the model is the best so far"):
        model = DiffusionDensity(**QUICK).fit(chain(200))
    assert model.model_.stopped == "interrupted"
    assert len(calls) == 1
    labels = set(model.candidates_["candidate"])
    assert "causal" in labels or kind is not CandidateTable
    assert "mixture" in labels or kind is Search
    assert np.isfinite(model.score_samples(chain(20))).all()


@pytest.mark.parametrize("when", [1, 3])
def test_after_an_interruption_a_forest_grows_no_tree_and_counts_no_row(monkeypatch, ctrl_c, when):
    """At its first tree, or at the third: there are those that were grown, over rows with gaps, too."""
    grown, real = [], exact.random_trees

    def interrupted(*args, **how):
        for tree in real(*args, **how):
            grown.append(tree)
            if len(grown) == when:
                ctrl_c()
            yield tree

    monkeypatch.setattr(exact, "random_trees", interrupted)
    frame = chain(300)
    frame.iloc[::3, 0] = None
    with pytest.warns(UserWarning, match="training was interrupted"):
        model = DiffusionDensity(denoiser="forest", random_state=0).fit(frame)
    assert len(grown) == model.model_.denoiser.n_trees == when
    assert np.isfinite(model.score_samples(frame)).all()
