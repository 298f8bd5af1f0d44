"""Choosing among exact denoisers, and which of them a network corrects."""

import dataclasses

import pytest
from fits import TINY, chain, fit, interrupt_at, mixed, noise, plan, training_rows, watch

from discrete_itd import recipes
from discrete_itd.denoisers import MarginalDenoiser, TreeDenoiser
from discrete_itd.models import bases as module
from discrete_itd.models import contract
from discrete_itd.models.contract import fit_recipe
from discrete_itd.recipes import Independent, Mixture, Network, Trees

TREE, MARGINALS = "TreeDenoiser", "MarginalDenoiser"

# -- exact denoisers -------------------------------------------------------------------------------


def test_the_tree_is_smoothed_as_held_out_rows_ask():
    rows = training_rows(chain(200))
    tree = Trees().fit(rows, plan())
    fits = [TreeDenoiser.fit(rows.marginals, rows.x, pseudo_count=a) for a in recipes.PSEUDO_COUNTS]
    assert rows.held_out_nats(tree) == min(map(rows.held_out_nats, fits))
    assert Trees().fit(rows, plan()) is tree  # not fitted twice


def test_classes_are_as_many_as_held_out_rows_ask(monkeypatch):
    monkeypatch.setattr(recipes, "FEWEST_CLASSES", 1)
    monkeypatch.setattr(recipes, "CLASS_FACTOR", 3)
    rows = training_rows(chain(400, flip=0.02))
    some = Mixture().fit(rows, plan())
    assert some.n_components in (3, 9, 27)
    assert rows.held_out_nats(some) < rows.held_out_nats(rows.marginals)
    other = training_rows(noise(400))
    one, chosen = (m.fit(other, plan()) for m in (Mixture(1), Mixture()))
    assert other.held_out_nats(chosen) <= other.held_out_nats(one)
    assert Mixture(5).fit(rows, plan()).n_components == 5


def test_a_mixture_leaves_continuous_columns_independent_only_as_a_base():
    rows = training_rows(mixed())
    member, base = Mixture(2).fit(rows, plan()), Mixture(2).fit_base(rows, plan())
    assert member.means.shape[1] == 2
    assert base.means.shape[1] == 0
    rows = training_rows(chain())
    assert Mixture(2).fit(rows, plan()) is Mixture(2).fit_base(rows, plan())


def test_independent_columns_have_learned_nothing():
    rows = training_rows(chain())
    assert not fit_recipe(Independent(), rows, plan()).learned
    assert fit_recipe(Trees(), rows, plan()).learned
    assert fit_recipe(Network(width=4, base="independent"), rows, plan()).learned


# -- the base that predicts best -------------------------------------------------------------------


@pytest.mark.parametrize(("table", "better"), [(chain(300), TREE), (noise(140), MARGINALS)])
def test_auto_corrects_what_predicts_held_out_rows_best(table, better):
    rows = training_rows(table)
    base, _ = TINY.choose_base(rows, plan(0))
    assert (base is rows.marginals) == (better == MARGINALS)
    tree = Trees().fit(rows, plan(0))
    assert rows.held_out_nats(base) <= min(map(rows.held_out_nats, (tree, rows.marginals)))


def test_a_table_too_wide_for_a_tree_does_without(monkeypatch):
    monkeypatch.setattr(module, "MOST_TABLE", 10)
    rows = training_rows(chain())
    assert TINY.choose_base(rows, plan(0))[0] is rows.marginals


# -- the base from which a network learns more -----------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    """Comparisons of bases on small tables."""
    monkeypatch.setattr(module, "COMPARED_ROWS", 90)
    monkeypatch.setattr(module, "BASE_SHARE", 4)
    monkeypatch.setattr(module, "BASE_STEPS", 8)


@pytest.fixture
def trained(short, monkeypatch):  # noqa: ARG001
    """The base, steps and time of every training."""
    return watch(monkeypatch, described, [module, contract])


def described(denoiser, training):
    return type(denoiser.base).__name__, training.max_steps, training.max_time


def preferring(base):
    """Held-out nats as if networks learned most from one kind of base."""

    def answer(denoiser, report):
        nats = 1.0 if isinstance(denoiser.base, base) else 2.0
        line = report.history[-1]._replace(valid_nats=nats)
        return dataclasses.replace(report, history=[line])

    return answer


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("base", [TreeDenoiser, MarginalDenoiser])
def test_the_base_from_which_a_network_learns_more_is_kept(monkeypatch, base):
    trained = watch(monkeypatch, described, [module, contract], preferring(base))
    made = TINY.fit(training_rows(chain(150)), plan(8))
    assert isinstance(made.base, base)
    assert made.width == 8
    assert trained == [(TREE, 2, None), (MARGINALS, 2, None), (base.__name__, 8, None)]


@pytest.mark.usefixtures("short")
def test_bases_are_compared_once_for_all_networks(monkeypatch):
    trained = watch(monkeypatch, described, [module, contract], preferring(MarginalDenoiser))
    made = fit(chain(), [TINY, TINY, dataclasses.replace(TINY, base="tree")], max_steps=8)
    assert [run[1] for run in trained] == [2, 2, 8, 8, 8]
    kinds = [type(m.base) for m in made.denoiser_.members]
    assert kinds == [MarginalDenoiser, MarginalDenoiser, TreeDenoiser]


def test_a_comparison_of_bases_is_part_of_the_time(trained, monkeypatch):
    monkeypatch.setattr(module, "COMPARED_TIME", 1.0)
    limited = plan(8)
    limited.training = dataclasses.replace(limited.training, max_time=20.0)
    TINY.fit(training_rows(chain(150)), limited)
    assert [run[2] for run in trained] == [5.0, 5.0, 10.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": chain(120)},
        {"rows": chain(150)[["alone"]]},  # independent columns are the base without a comparison
        {"max_steps": 7},
        {"max_time": 30.0},
        {"recipe": dataclasses.replace(TINY, base="tree")},
    ],
    ids=["few rows", "one column", "few steps", "little time", "a base"],
)
def test_bases_are_not_compared_where_it_would_say_little(trained, changes):
    wanted = {"rows": chain(150), "recipe": TINY, "max_steps": 8, "max_time": None, **changes}
    limited = plan(wanted["max_steps"])
    limited.training = dataclasses.replace(limited.training, max_time=wanted["max_time"])
    wanted["recipe"].fit(training_rows(wanted["rows"]), limited)
    assert len(trained) == 1


def test_an_interrupted_comparison_ends_the_training(trained, monkeypatch):
    interrupt_at(monkeypatch, 3)
    fitted = fit_recipe(TINY, training_rows(chain(200)), plan(40))
    assert fitted.report.stopped == "interrupted"
    assert [run[1] for run in trained] == [8, 8, 0]
