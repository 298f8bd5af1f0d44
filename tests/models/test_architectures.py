"""Which architecture a network has, if it may be any."""

import dataclasses

import pytest
from fits import chain, fit, interrupt_at, plan, training_rows, watch

from discrete_itd import recipes
from discrete_itd.models import architectures as module
from discrete_itd.models import bases, contract
from discrete_itd.models.contract import fit_recipe
from discrete_itd.recipes import Network

ANY = Network(base="independent")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Comparisons on small tables, of small networks."""
    monkeypatch.setattr(module, "FEWEST_COLUMNS", 4)
    monkeypatch.setattr(module, "MOST_COLUMNS", 5)
    monkeypatch.setattr(module, "SHARE", 1)
    monkeypatch.setattr(module, "STEPS", 8)
    monkeypatch.setattr(bases, "COMPARED_ROWS", 90)
    monkeypatch.setattr(recipes, "DEFAULT_SIZE", {"mlp": (8, 1), "transformer": (4, 1)})


def described(denoiser, training):
    return denoiser.architecture, training.max_steps, training.max_time


@pytest.fixture
def trained(monkeypatch):
    """Architecture, steps and time of every training."""
    return watch(monkeypatch, described, [bases, contract])


@pytest.mark.parametrize("better", ["mlp", "transformer"])
def test_the_architecture_that_learns_more_is_trained(monkeypatch, better):
    def answer(denoiser, report):
        nats = 1.0 if denoiser.architecture == better else 2.0
        line = report.history[-1]._replace(valid_nats=nats)
        return dataclasses.replace(report, history=[line])

    trained = watch(monkeypatch, described, [bases, contract], answer)
    assert fit(chain(), ANY, max_steps=8).denoiser_.architecture == better
    (mlp, mlp_steps, _), (other, steps, _), (winner, _, _) = trained
    assert (mlp, other, winner) == ("mlp", "transformer", better)
    assert mlp_steps == 8
    assert steps >= 8


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({"rows": chain(120)}, "mlp"),
        ({"rows": chain(150)[["a", "b", "c"]]}, "mlp"),
        ({"rows": chain(150).assign(more="u")}, "mlp"),
        ({"max_steps": 1}, "mlp"),
        ({"max_time": 30.0}, "mlp"),
        ({"recipe": Network(width=8, base="tree")}, "mlp"),
        ({"recipe": Network("transformer", base="tree")}, "transformer"),
    ],
    ids=["few rows", "few columns", "many columns", "few steps", "little time", "size", "name"],
)
def test_architectures_are_not_compared_where_it_would_say_little(trained, changes, architecture):
    wanted = {"rows": chain(150), "recipe": ANY, "max_steps": 8, "max_time": None, **changes}
    limited = plan(wanted["max_steps"])
    limited.training = dataclasses.replace(limited.training, max_time=wanted["max_time"])
    wanted["recipe"].fit(training_rows(wanted["rows"]), limited)
    assert [run[0] for run in trained] == [architecture]


def test_a_comparison_is_part_of_the_time(trained, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 4)
    monkeypatch.setattr(bases, "COMPARED_TIME", 1.0)
    limited = plan(8)
    limited.training = dataclasses.replace(limited.training, max_time=20.0)
    ANY.fit(training_rows(chain(150)), limited)
    assert [run[2] for run in trained] == [5.0, 5.0, 10.0]


def test_an_interrupted_comparison_ends_the_training(trained, monkeypatch):
    steps = interrupt_at(monkeypatch, 3)
    fitted = fit_recipe(ANY, training_rows(chain(200)), plan(8))
    assert [run[0] for run in trained[:2]] == ["mlp", "transformer"]
    assert fitted.report.stopped == "interrupted"
    assert fitted.report.history[-1].step == 0
    assert len({id(run) for run in steps}) == 2  # the other candidate has run, no training after
