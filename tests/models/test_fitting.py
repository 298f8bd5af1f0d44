"""Fitting: every recipe on every table, bases and architectures chosen, ensembles weighed."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from discrete_itd import (
    CoordinateSchedule,
    DiffusionDensity,
    DiffusionOutlierDetector,
    IsotropicSchedule,
)
from discrete_itd.denoisers import (
    EnsembleDenoiser,
    ExactDenoiser,
    MarginalDenoiser,
    MixtureDenoiser,
    NeuralDenoiser,
    TreeDenoiser,
)
from discrete_itd.detection.scales import explain_scales
from discrete_itd.encoders import categories
from discrete_itd.models import candidates
from discrete_itd.models import fitting as module
from discrete_itd.models.fitting import JUDGED, PATTERNS, Fitter
from discrete_itd.recipes import Ensemble, Independent, Mixture, Network, Trees
from discrete_itd.reporting.findings import examine
from discrete_itd.reporting.page import render
from discrete_itd.training.config import TrainingPlan
from discrete_itd.training.loop import Run
from discrete_itd.training.train import train

TINY = Network("mlp", width=8, depth=1)
EXACT = {
    "independent": "independent",
    "tree": "tree",
    "trees": Trees(2),
    "mixture": Mixture(2),
    "bayes net": "bayes_net",
}
RECIPES = {
    **EXACT,
    "mlp": TINY,
    "on independent columns": dataclasses.replace(TINY, base="independent"),
    "on trees": dataclasses.replace(TINY, base=Trees(2)),
    "on a mixture": dataclasses.replace(TINY, base=Mixture(2)),
    "on a bayes net": dataclasses.replace(TINY, base="bayes_net"),
    "transformer": Network("transformer", width=8, depth=1),
    "ensemble": [
        Network("mlp", width=8, depth=1, base="tree"),
        Network("transformer", width=8, depth=1, base="tree"),
        "tree",
        Mixture(2),
    ],
    "one member": ["tree"],
}
QUICK = {"max_steps": 3, "n_evaluations": 8, "schedule": "coordinate", "random_state": 0}


def chain(n=120, seed=0, flip=0.1):
    """Four columns, each the one before but for a few; and one by itself."""
    rng = np.random.default_rng(seed)
    columns = {"a": rng.integers(0, 3, n)}
    for before, name in ("ab", "bc", "cd"):
        other = rng.integers(0, 3, n)
        columns[name] = np.where(rng.random(n) < flip, other, columns[before])
    frame = pd.DataFrame(columns).map("xyz".__getitem__)
    return frame.assign(alone=rng.choice(["u", "v"], n))


def noise(n=120, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: rng.choice(list("xyz"), n) for name in "abcd"})


def mixed(n=120, seed=0):
    """Reals beside categories, with gaps."""
    rng = np.random.default_rng(seed)
    frame = chain(n, seed)[["a", "b"]].assign(size=rng.normal(size=n), day=rng.normal(size=n))
    frame["size"] += frame["a"].map({"x": -3.0, "y": 0.0, "z": 3.0})
    return frame.mask(rng.random(frame.shape) < 0.15).assign(c=rng.choice(["u", "v"], n))


def numbers(n=120, seed=0):
    x = np.random.default_rng(seed).normal(size=n)
    return pd.DataFrame({"x": x, "y": x + 0.3 * np.random.default_rng(seed + 1).normal(size=n)})


def words(n=200, seed=0):
    """Columns of so many categories that they share the coordinates of a code, in the tests below."""
    rng = np.random.default_rng(seed)
    word = rng.integers(0, 30, n)
    return pd.DataFrame({"word": [f"w{i}" for i in word], "odd": np.array(["u", "v"])[word % 2]})


def fit(rows, denoiser, **changes):
    return DiffusionDensity(**{**QUICK, "denoiser": denoiser, **changes}).fit(rows)


def split(model, rows):
    """The encoded rows that were fitted, and those held out."""
    x = model.rows(rows).x
    order = np.random.RandomState(model.model_.seed).permutation(len(x))
    n_valid = round(model.validation_fraction * len(x))
    return x[order[n_valid:]], x[order[:n_valid]]


def nats(denoiser, x):
    return -denoiser.log_prob(x).double().mean().item()


def fitter(rows, *, max_steps=30, seed=0, n_valid=40):
    """A Fitter of rows, in the suite's floating type."""
    encoder_of = fit(rows, "independent").encoder_
    x = torch.from_numpy(encoder_of.transform(rows).x)
    marginals = MarginalDenoiser.fit(encoder_of.codebook(), x[n_valid:])
    return Fitter(
        marginals, x[n_valid:], x[:n_valid], TrainingPlan(max_steps=max_steps), seed,
        torch.Generator().manual_seed(seed), None, None,
    )  # fmt: skip


# -- every recipe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_fit_is_one_of_its_recipe_and_survives(tmp_path, name):
    """Scores, shares and rows of a model that was saved, pickled or fitted again: to the last bit."""
    rows = chain()
    model = fit(rows, RECIPES[name])
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    assert not model.denoiser_.training
    model.save(tmp_path / "m")
    for other in (
        DiffusionDensity.load(tmp_path / "m"),
        pickle.loads(pickle.dumps(model)),
        clone(model).fit(rows),
    ):
        np.testing.assert_array_equal(other.score_samples(rows), scores)
        np.testing.assert_array_equal(other.explain(rows), model.explain(rows))
        pd.testing.assert_frame_equal(
            other.sample(5, random_state=1), model.sample(5, random_state=1)
        )
        assert other.denoiser == RECIPES[name]
        assert other.stopped_ == model.stopped_
        assert other.schedule_ == model.schedule_
        own, theirs = model.denoiser_.state_dict(), other.denoiser_.state_dict()
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[key], theirs[key]) for key in own)
        assert other.denoiser_.n_parameters == model.denoiser_.n_parameters > 0


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_denoiser_needs_no_training(name):
    rows = chain()
    model = fit(rows, EXACT[name], schedule="auto")
    assert isinstance(model.denoiser_, ExactDenoiser)
    assert model.stopped_ == "exact"
    _, held_out = split(model, rows)
    last = model.history_.iloc[-1]
    assert last["step"] == 0
    assert last["valid_nats"] == pytest.approx(nats(model.denoiser_, held_out))
    x = model.rows(rows).x
    estimate = model.log_prob(rows)
    # on the path that is chosen: the closed form, without error
    np.testing.assert_allclose(estimate.log_prob, model.denoiser_.log_prob(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(estimate.stderr, 0, atol=1e-4)


@pytest.mark.parametrize("base", EXACT)
@pytest.mark.parametrize("architecture", ["mlp", "transformer"])
def test_an_untrained_network_is_its_base(base, architecture):
    rows = chain()
    network = Network(architecture, width=8, depth=1, base=EXACT[base])
    model = fit(rows, network, max_steps=0, schedule=CoordinateSchedule(5))
    exact = fit(rows, EXACT[base]).denoiser_
    x = model.rows(rows).x
    expected = exact.log_prob(x)
    np.testing.assert_allclose(model.denoiser_.base.log_prob(x), expected)
    np.testing.assert_allclose(model.score_samples(rows), expected, rtol=1e-6, atol=1e-6)


# -- tables ----------------------------------------------------------------------------------------

TABLES = {
    "reals": (mixed, {}),
    "only reals": (numbers, {}),
    "missing is a category": (mixed, {"missing": "category"}),
    "one column": (lambda: chain()[["a"]], {}),
    "two rows": (lambda: chain()[:2], {}),
    "constants": (lambda: chain().assign(b="x", alone="u"), {}),
}


@pytest.mark.parametrize(
    "name", ["trees", "mixture", "bayes net", "mlp", "on a mixture", "transformer", "ensemble"]
)
@pytest.mark.parametrize("table", TABLES)
def test_every_recipe_takes_every_table(tmp_path, name, table):
    make, parameters = TABLES[table]
    rows = make()
    model = fit(rows, RECIPES[name], max_steps=2, n_evaluations=4, **parameters)
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    model.save(tmp_path / "m")
    again = DiffusionDensity.load(tmp_path / "m")
    np.testing.assert_array_equal(again.score_samples(rows), scores)
    assert model.sample(3, random_state=0).shape == (3, rows.shape[1])
    assert model.impute(rows[:5]).shape == rows[:5].shape


@pytest.mark.parametrize("name", RECIPES)
def test_large_vocabularies_are_of_all_but_ensembles(tmp_path, monkeypatch, name):
    monkeypatch.setattr(categories, "MANY_CATEGORIES", 8)
    rows = words()
    if isinstance(RECIPES[name], list):
        with pytest.raises(ValueError, match="an ensemble takes no column of a large vocabulary"):
            fit(rows, RECIPES[name])
        return
    model = fit(rows, RECIPES[name], max_steps=2, n_evaluations=4)
    assert model.denoiser_.codebook.vocabularies
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(DiffusionDensity.load(tmp_path / "m").score_samples(rows), scores)


@pytest.mark.parametrize("name", ["trees", "mixture", "bayes net", "on a mixture", "ensemble"])
def test_a_detector_takes_every_density(tmp_path, name):
    """With numbers in the table: blurred, pooled with a kernel, explained, kept."""
    rows = mixed(200)
    density = DiffusionDensity(**{**QUICK, "denoiser": RECIPES[name], "n_evaluations": 4})
    model = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0).fit(rows)
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(model.explain(rows).sum(axis=1), -scores, rtol=1e-5, atol=1e-4)
    assert len(model.reasons(rows[:3])) > 0
    model.save(tmp_path / "m")
    again = DiffusionOutlierDetector.load(tmp_path / "m")
    np.testing.assert_array_equal(again.score_samples(rows), scores)


@pytest.mark.parametrize("name", ["tree", "mlp", "ensemble"])
def test_every_density_has_a_report(name):
    pytest.importorskip("matplotlib")
    rows = chain(200)
    model = fit(rows, RECIPES[name])
    page = str(render(examine(model, rows[:50])))
    assert f"{model.denoiser_.n_parameters:,} parameters" in page
    assert ("there was nothing to train" in page) == (name == "tree")
    split_by_scale = explain_scales(model, rows[:4], n_points=16)
    assert np.isfinite(split_by_scale.nats).all(axis=None)
    assert np.isfinite(model.mse_curve(rows[:20], n_points=5)).all(axis=None)


# -- the base --------------------------------------------------------------------------------------


def test_auto_corrects_what_predicts_held_out_rows_best():
    for rows in (chain(300), noise(60)):
        model = fit(rows, TINY, max_steps=0, validation_fraction=0.3)
        train_rows, held_out = split(model, rows)
        base = model.denoiser_.base
        candidates = [
            fit(rows, n, validation_fraction=0.3).denoiser_ for n in ("independent", "tree")
        ]
        alone, tree = (nats(c, held_out) for c in candidates)
        assert nats(base, held_out) <= min(alone, tree) + 1e-6
        assert (tree < alone) == (len(rows) == 300)  # of these tables, one each way
        if len(rows) == 60:
            assert type(base) is MarginalDenoiser
            assert torch.equal(base.log_probs, model.model_.marginals.log_probs)
        else:
            assert type(base) is not MarginalDenoiser
        # independent columns are still known, of the rows that were fitted
        assert len(train_rows) + len(held_out) == len(rows)
        own = MarginalDenoiser.fit(
            base.codebook, train_rows, unseen_counts=model.encoder_.unseen_counts
        )
        torch.testing.assert_close(own.log_probs, model.model_.marginals.log_probs)


def test_a_table_too_wide_for_a_tree_does_without(monkeypatch):
    monkeypatch.setattr(module, "MOST_TABLE", 10)
    assert type(fit(chain(), TINY, max_steps=0).denoiser_.base) is MarginalDenoiser


def test_the_tree_is_smoothed_as_held_out_rows_ask():
    made = fitter(chain(200))
    tree = made.exact(Trees())
    fits = [
        TreeDenoiser.fit(made.marginals, made.x, pseudo_count=a) for a in candidates.PSEUDO_COUNTS
    ]
    assert made.held_out(tree) == min(map(made.held_out, fits))
    assert made.exact(Trees()) is tree  # not fitted twice


def test_classes_are_as_many_as_held_out_rows_ask(monkeypatch):
    monkeypatch.setattr(candidates, "FEWEST_CLASSES", 1)
    monkeypatch.setattr(candidates, "CLASS_FACTOR", 3)
    made = fitter(chain(400, flip=0.02))
    some = made.exact(Mixture())
    assert some.n_components in (3, 9, 27)
    assert made.held_out(some) < made.held_out(made.marginals)
    other = fitter(noise(400))
    assert other.held_out(other.exact(Mixture())) <= other.held_out(other.exact(Mixture(1)))
    assert made.exact(Mixture(5)).n_components == 5


@pytest.mark.parametrize("path", ["coordinate", "isotropic"])
def test_training_is_never_worse_than_the_best_exact_base(path):
    rows = chain(400)
    network = dataclasses.replace(TINY, width=16)
    model = fit(rows, network, max_steps=60, schedule=path, validation_fraction=0.25)
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
    assert start == pytest.approx(nats(model.denoiser_.base, held_out), rel=0.1)


def test_the_history_of_independent_columns_is_not_doubled():
    network = dataclasses.replace(TINY, base="independent")
    history = fit(chain(), network, max_steps=0).history_
    assert history["step"].tolist() == [0]
    assert len(fit(chain(), "independent").history_) == 1
    rows = chain()
    model = fit(rows, "tree")
    _, held_out = split(model, rows)
    expected = [nats(d, held_out) for d in (model.model_.marginals, model.denoiser_)]
    np.testing.assert_allclose(model.history_["valid_nats"], expected)


# -- the path and the noise of training ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("auto", None),
        ("coordinate", "coordinate"),
        ("isotropic", "isotropic"),
        (CoordinateSchedule(2), "coordinate"),
        (CoordinateSchedule(5, (4, 2, 0, 1, 3)), "coordinate"),
        (IsotropicSchedule((1.0,)), None),
    ],
    ids=str,
)
def test_training_keeps_to_the_noise_of_a_path_that_is_given(monkeypatch, path, kind):
    plans = []

    def watched(denoiser, x, x_valid, plan, **kwargs):
        plans.append(plan)
        return train(denoiser, x, x_valid, plan, **kwargs)

    monkeypatch.setattr(module, "train", watched)
    fit(chain(), TINY, schedule=path, max_steps=1)
    (plan,) = plans
    default = TrainingPlan()
    assert plan.patterns == (PATTERNS[kind] if kind else default.patterns)
    assert plan.judged == (JUDGED[kind] if kind else default.judged)
    assert sum(plan.patterns) == pytest.approx(sum(plan.judged)) == 1


@pytest.mark.parametrize("name", ["tree", "mixture", "ensemble"])
def test_a_path_is_chosen_for_every_denoiser(name):
    table = fit(chain(), RECIPES[name], schedule="isotropic").schedule_table_
    assert len(table) > 1
    assert set(table["path"]) == {"isotropic"}
    assert table["nats"].is_monotonic_increasing


# -- the architecture ------------------------------------------------------------------------------


RACE = Network(base="independent")


@pytest.fixture
def track(monkeypatch):
    """Races on small tables, of small networks; what they and the trainings after them came to."""
    monkeypatch.setattr(module, "RACE_COLUMNS", (4, 5))
    monkeypatch.setattr(module, "RACE_ROWS", 90)
    monkeypatch.setattr(module, "RACE_SHARE", 1)
    monkeypatch.setattr(module, "RACE_STEPS", 8)
    monkeypatch.setattr(module, "DEFAULT_SIZE", {"mlp": (8, 1), "transformer": (4, 1)})
    runs = []

    def watched(denoiser, *args, **kwargs):
        report = train(denoiser, *args, **kwargs)
        best = min(e.valid_nats for e in report.history)
        runs.append((denoiser.architecture, args[2].max_steps, best))
        return report

    monkeypatch.setattr(module, "train", watched)
    return runs


def test_the_architecture_that_learns_more_is_trained(track):
    rows = chain()
    made = [fit(rows, RACE, max_steps=8) for _ in range(2)]
    assert track[:3] == track[3:]  # the same winner whenever it is asked
    (mlp, mlp_steps, mlp_nats), (other, steps, other_nats), (winner, _, _) = track[:3]
    assert (mlp, other) == ("mlp", "transformer")
    assert winner == ("mlp" if mlp_nats <= other_nats else "transformer")
    assert mlp_steps == 8
    assert steps >= 8
    for model in made:
        assert model.denoiser_.architecture == winner
        assert model.denoiser == RACE
    np.testing.assert_array_equal(*(m.score_samples(rows) for m in made))


@pytest.mark.usefixtures("track")
def test_what_learns_more_wins(monkeypatch):
    nats = {"mlp": 2.0, "transformer": 1.0}

    def told(denoiser, x, x_valid, plan, **kwargs):
        report = train(denoiser, x, x_valid, plan, **kwargs)
        line = report.history[-1]._replace(valid_nats=nats[denoiser.architecture])
        return dataclasses.replace(report, history=[line])

    monkeypatch.setattr(module, "train", told)
    assert fit(chain(), RACE, max_steps=8).denoiser_.architecture == "transformer"
    nats["transformer"] = 3.0
    assert fit(chain(), RACE, max_steps=8).denoiser_.architecture == "mlp"


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({"rows": chain(90)}, "mlp"),  # of which some are held out
        ({"rows": chain()[["a", "b", "c"]]}, "mlp"),
        ({"rows": chain().assign(more="u")}, "mlp"),
        ({"max_steps": 1}, "mlp"),
        ({"max_time": 30.0}, "mlp"),
        ({"denoiser": Network(width=8, base="tree")}, "mlp"),
        ({"denoiser": Network("transformer", base="tree")}, "transformer"),
    ],
    ids=[
        "few rows",
        "few columns",
        "many columns",
        "few steps",
        "little time",
        "of a size",
        "of a name",
    ],
)
def test_there_is_no_race_where_it_would_tell_little(track, changes, architecture):
    fit(**{"rows": chain(), "denoiser": RACE, "max_steps": 8, **changes})
    assert [run[0] for run in track] == [architecture]


@pytest.mark.usefixtures("track")
def test_a_race_is_part_of_the_time(monkeypatch):
    monkeypatch.setattr(module, "RACE_SHARE", 4)
    monkeypatch.setattr(module, "RACE_TIME", 1.0)
    plans, watched = [], module.train

    def noted(denoiser, x, x_valid, plan, **kwargs):
        plans.append(plan.max_time)
        return watched(denoiser, x, x_valid, plan, **kwargs)

    monkeypatch.setattr(module, "train", noted)
    fit(chain(), RACE, max_steps=8, max_time=20.0)
    assert plans == [5.0, 5.0, 10.0]


# -- the base of a network -------------------------------------------------------------------------

BASES = Network("mlp", width=8, depth=1)  # "auto": a tree, or independent columns after all


@pytest.fixture
def bases(monkeypatch):
    """Races of bases on small tables; the base, steps and time of every training."""
    monkeypatch.setattr(module, "RACE_ROWS", 90)
    monkeypatch.setattr(module, "BASE_SHARE", 4)
    monkeypatch.setattr(module, "BASE_STEPS", 8)
    monkeypatch.setattr(module, "DEFAULT_SIZE", {"mlp": (8, 1), "transformer": (4, 1)})
    runs = []

    def watched(denoiser, x, x_valid, plan, **kwargs):
        runs.append((type(denoiser.base).__name__, plan.max_steps, plan.max_time))
        return train(denoiser, x, x_valid, plan, **kwargs)

    monkeypatch.setattr(module, "train", watched)
    return runs


def prefer(monkeypatch, base):
    """Let the race be won by networks on one kind of base."""
    watched = module.train

    def told(denoiser, x, x_valid, plan, **kwargs):
        report = watched(denoiser, x, x_valid, plan, **kwargs)
        nats = 1.0 if isinstance(denoiser.base, base) else 2.0
        line = report.history[-1]._replace(valid_nats=nats)
        return dataclasses.replace(report, history=[line])

    monkeypatch.setattr(module, "train", told)


@pytest.mark.parametrize("base", [TreeDenoiser, MarginalDenoiser])
def test_the_base_from_which_a_network_learns_more_is_kept(bases, monkeypatch, base):
    prefer(monkeypatch, base)
    made = fit(chain(), BASES, max_steps=40)
    assert isinstance(made.denoiser_.base, base)
    assert made.denoiser_.width == 8
    tree, marginals = "TreeDenoiser", "MarginalDenoiser"
    assert bases == [(tree, 8, None), (marginals, 8, None), (base.__name__, 40, None)]


def test_bases_race_once_for_all_networks(bases, monkeypatch):
    prefer(monkeypatch, MarginalDenoiser)
    made = fit(chain(), [BASES, BASES, dataclasses.replace(BASES, base="tree")], max_steps=40)
    assert [len(bases), bases[0][1], bases[1][1]] == [5, 8, 8]
    kinds = [type(m.base) for m in made.denoiser_.members]
    assert kinds == [MarginalDenoiser, MarginalDenoiser, TreeDenoiser]


def test_a_race_of_bases_is_part_of_the_time(bases, monkeypatch):
    monkeypatch.setattr(module, "RACE_TIME", 1.0)
    fit(chain(), BASES, max_steps=8, max_time=20.0)
    assert [run[2] for run in bases] == [5.0, 5.0, 10.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": chain(90)},
        {"rows": chain()[["alone"]]},  # independent columns are the base without a race
        {"max_steps": 7},
        {"max_time": 30.0},
        {"denoiser": dataclasses.replace(BASES, base="tree")},
    ],
    ids=["few rows", "one column", "few steps", "little time", "a base"],
)
def test_bases_do_not_race_where_it_would_tell_little(bases, changes):
    fit(**{"rows": chain(), "denoiser": BASES, "max_steps": 8, **changes})
    assert len(bases) == 1


def test_an_interrupted_race_of_bases_ends_the_training(bases, monkeypatch):
    interrupt_at(monkeypatch, 3)
    fitted = fitter(chain(200), max_steps=40).fit(BASES)
    assert fitted.report.stopped == "interrupted"
    assert [run[1] for run in bases] == [8, 8, 0]


# -- ensembles -------------------------------------------------------------------------------------


def test_members_are_those_that_were_asked_for():
    model = fit(chain(), RECIPES["ensemble"])
    ensemble = model.denoiser_
    assert isinstance(ensemble, EnsembleDenoiser)
    kinds = [NeuralDenoiser, NeuralDenoiser, TreeDenoiser, MixtureDenoiser]
    assert [type(m) for m in ensemble.members] == kinds
    architectures = [m.architecture for m in ensemble.members[:2]]
    assert architectures == ["mlp", "transformer"]
    assert model.stopped_ == "max_steps"
    two = fit(chain(), [TINY, TINY]).denoiser_.members
    assert not torch.equal(two[0].network.enter.weight, two[1].network.enter.weight)
    # a list is the ensemble of its members
    same = fit(chain(), Ensemble(tuple(RECIPES["ensemble"])))
    np.testing.assert_array_equal(same.score_samples(chain()), model.score_samples(chain()))


def test_an_ensemble_of_exact_ones_is_made_without_training():
    model = fit(chain(), ["tree", Mixture(3), "independent"])
    assert model.stopped_ == "exact"
    assert len(model.marginal_value()) == 3


def test_an_ensemble_is_no_worse_than_its_members_on_rows_that_weighed_them():
    rows = chain(400)
    model = fit(
        rows, ["tree", Mixture(4), "independent"], validation_fraction=0.3, n_evaluations=64
    )
    _, held_out = split(model, rows)
    own = [nats(d, held_out) for d in model.denoiser_.members]
    ours = -model.model_.log_prob(held_out, 64).log_prob.mean().item()
    assert ours <= min(own) + 0.02  # weights are fitted at a few shares, and between them straight


def test_the_value_of_members_is_told():
    rows = chain(200)
    model = fit(rows, ["tree", "tree", Mixture(3), "independent", TINY], validation_fraction=0.3)
    table = model.marginal_value()
    assert table["member"].tolist() == ["tree 1", "tree 2", "mixture of 3", "independent", "mlp"]
    assert list(table) == [
        "member", "alone", "gain", "stderr", "weight", "parameters", "fit_seconds", "call_ms",
        "call_share", "denoiser_calls",
    ]  # fmt: skip
    assert table["weight"].sum() == pytest.approx(1)
    assert table["call_share"].sum() == pytest.approx(1)
    assert (table[["parameters", "fit_seconds", "call_ms"]] > 0).all(axis=None)
    assert (table["denoiser_calls"] == model.n_evaluations).all()
    assert table["parameters"].tolist() == [m.n_parameters for m in model.denoiser_.members]
    assert abs(table["gain"][:2]).max() < 0.1  # one of two equal trees can go
    assert table["alone"].idxmin() != 3
    _, held_out = split(model, rows)
    for i in (0, 2, 3):  # alone: about the closed form on the held-out rows
        exact = nats(model.denoiser_.members[i], held_out)
        assert table["alone"][i] == pytest.approx(exact, rel=0.25)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.marginal_value(), table)
    again.n_evaluations = 3
    assert (again.marginal_value()["denoiser_calls"] == 3).all()


def test_only_an_ensemble_has_members():
    with pytest.raises(ValueError, match="marginal_value is of an ensemble: fit with denoiser="):
        fit(chain(), "tree").marginal_value()
    with pytest.raises(ValueError, match="not fitted"):
        DiffusionDensity(denoiser="ensemble").marginal_value()


def test_networks_of_an_ensemble_share_the_time(monkeypatch):
    plans, shares = [], []

    def watched(denoiser, x, x_valid, plan, **kwargs):
        plans.append(plan)
        return train(denoiser, x, x_valid, plan, **kwargs)

    monkeypatch.setattr(module, "train", watched)
    made = fitter(chain())
    made.plan = dataclasses.replace(made.plan, max_time=50.0, max_steps=1)
    made.progress = lambda share, _: shares.append(share)
    made.fit(Ensemble((TINY, Trees(), TINY)))
    assert [p.max_time for p in plans] == [25.0, 25.0]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert {0.5, 1.0} <= set(shares)


# -- interrupted -----------------------------------------------------------------------------------

TWO = [
    Network("mlp", width=8, depth=1, base="tree"),
    "tree",
    Network("mlp", width=6, depth=1, base="tree"),
]
LONG = {"max_steps": 40}


def interrupt_at(monkeypatch, n):
    """KeyboardInterrupt at the n-th step of training from now on; later ones are taken."""
    steps, make_step = [], Run.make_step

    def interrupted(run, share):
        steps.append(run)
        if len(steps) == n:
            raise KeyboardInterrupt
        make_step(run, share)

    monkeypatch.setattr(Run, "make_step", interrupted)
    return steps


@pytest.mark.parametrize("n", [10, 45])
def test_an_interrupted_ensemble_goes_on_to_the_same_result(tmp_path, monkeypatch, n):
    """In its first network or in its second; no file is left behind."""
    rows = chain()
    whole = fit(rows, TWO, **LONG)
    file = tmp_path / "run"
    with monkeypatch.context() as patch:
        steps = interrupt_at(patch, n)
        with pytest.warns(UserWarning, match="training was interrupted"):
            part = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO}).fit(rows, checkpoint=file)
    assert len(steps) == n  # who ends the training of one network does not wait for the next
    assert part.stopped_ == "interrupted"
    assert np.isfinite(part.score_samples(rows)).all()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == (["run"] if n < 20 else ["run", "run.1"])
    on = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO}).fit(rows, checkpoint=file)
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(on.score_samples(rows), whole.score_samples(rows))
    for key, tensor in whole.denoiser_.state_dict().items():
        assert torch.equal(on.denoiser_.state_dict()[key], tensor), key
    costs = ["fit_seconds", "call_ms", "call_share"]
    pd.testing.assert_frame_equal(
        on.marginal_value().drop(columns=costs), whole.marginal_value().drop(columns=costs)
    )


def test_a_checkpoint_of_another_ensemble_is_refused(tmp_path, monkeypatch):
    rows = chain()
    interrupt_at(monkeypatch, 10)
    model = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO})
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(rows, checkpoint=tmp_path / "run")
    model.set_params(denoiser=list(reversed(TWO)))
    with pytest.raises(ValueError, match="the checkpoint is of another run"):
        model.fit(rows, checkpoint=tmp_path / "run")


def test_an_interrupted_race_ends_the_training(track, monkeypatch):
    steps = interrupt_at(monkeypatch, 3)
    fitted = fitter(chain(200), max_steps=8).fit(RACE)
    assert [run[0] for run in track[:2]] == ["mlp", "transformer"]
    assert fitted.report.stopped == "interrupted"
    assert [e.step for e in fitted.report.history][-1] == 0
    assert len({id(run) for run in steps}) == 2  # the other entrant has run, no training after that


def test_independent_columns_have_learned_nothing():
    made = fitter(chain())
    made.fit(Independent())
    assert not made.learned
    made.fit(Network("mlp", width=4, base="independent"))
    assert made.learned
