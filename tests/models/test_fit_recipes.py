"""Recipes fitted side by side: the fits are those of one process, and what happens elsewhere is known here."""

import pickle
import warnings

import pytest
import torch
from fits import chain, plan, training_rows

from discrete_itd.denoisers import CausalDenoiser
from discrete_itd.models import contract
from discrete_itd.models.contract import FitPlan, SharedRun
from discrete_itd.models.fit_recipes import fit_recipe, fit_recipes
from discrete_itd.recipes import Best, Causal, Mixture, RowMixture, Trees
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, Report, TrainingPlan
from discrete_itd.training.distributed import Results, Team

SMALL = {"width": 8, "depth": 1}
RECIPES = [
    Causal(3, **SMALL),
    RowMixture((Trees(), Causal(2, **SMALL), Mixture(4), Causal(base="independent", **SMALL))),
    Best(4),
]


class Two(Team):
    """The parts of a task are done here, the second by what arrives of it in another process."""

    size = 2

    def __init__(self):
        self.n_shared = 0

    def each(self, task):
        self.n_shared += 1
        elsewhere = pickle.loads(pickle.dumps(task))
        return Results([task.do(0, 2), pickle.loads(pickle.dumps(elsewhere.do(1, 2)))])


def by(team, steps=20, **options):
    return plan(steps, run=SharedRun(team=team), **options)


def held_out(recipe, how):
    rows = training_rows(chain(300))
    fitted = fit_recipe(recipe, rows, how)
    if fitted.denoiser.closed_form:
        return rows.held_out(fitted.denoiser), fitted
    return fitted.denoiser.state_dict(), fitted


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_the_fits_are_those_of_one_process(recipe):
    team, alone, two = Two(), by(Team()), None
    one, fit = held_out(recipe, alone)
    other, shared = held_out(recipe, two := by(team))
    torch.testing.assert_close(other, one, atol=0, rtol=0)
    assert team.n_shared
    assert two.learned == alone.learned
    kept = [(line.step, line.valid_nats) for line in fit.report.history]
    assert [(line.step, line.valid_nats) for line in shared.report.history] == kept
    for name in ("members", "candidates"):
        tables = getattr(alone, name), getattr(two, name)
        if tables[0] is not None:
            label = tables[0].columns[0]
            assert list(tables[1][label]) == list(tables[0][label])
            number = tables[0].columns[1]
            assert list(tables[1][number]) == list(tables[0][number])


def test_what_networks_have_in_common_is_there_once():
    rows, how = training_rows(chain(300)), by(Two())
    mixture = fit_recipe(Causal(4, **SMALL), rows, how).denoiser
    bases = {id(member.base) for member in mixture.members}
    assert len(bases) == 1
    assert bases <= {id(d) for d in rows.denoisers()}


class TogetherError(Exception):
    pass


def test_with_more_processes_than_networks_each_is_trained_by_all():
    class Together(Two):
        def start(self, *_):
            raise TogetherError

    with pytest.raises(TogetherError):
        fit_recipe(
            RowMixture((Trees(), Causal(**SMALL))), training_rows(chain(300)), by(Together())
        )


def test_the_time_of_a_process_is_shared_by_its_networks(monkeypatch):
    """The first has a network of the first recipe, and two of the third; the second has two of the second."""
    seen = {}

    def train(*args, **_):
        seen[tuple(args[0].order)] = args[3].max_time
        return Report([Evaluation(0, 0.0, 0.0, 0.0, 0.0, 0.0)])

    monkeypatch.setattr(contract, "train", train)
    monkeypatch.setattr(FitPlan, "time_left", property(lambda _: 6.0))
    how = by(Two())
    how.training = TrainingPlan(max_time=6.0)
    recipes = [Causal(n, base="independent", **SMALL) for n in (1, 2, 2)]
    list(fit_recipes(recipes, training_rows(chain(60)), how.of_members(recipes)))
    whole = 6.0
    wanted = [
        whole / 3,
        whole / 2,
        whole / 1,
        whole / 2,
        whole / 1,
    ]  # 0, then 2: 2 left, 1; 1: 2, 1
    assert sorted(seen.values()) == pytest.approx(sorted(wanted))


def test_what_happens_elsewhere_is_known(monkeypatch, tmp_path):
    """Warnings, an interruption and a failure of the other process; and its checkpoint, which is removed at the end."""
    train, what = contract.train, "warn"

    def trained(*args, **options):
        report = train(*args, **options)
        if options["checkpoint"] is not None and options["checkpoint"].path.name == "run.1":
            if what == "warn":
                warnings.warn("diverged", UserWarning, stacklevel=1)
            if what == "interrupt":
                report.stopped = "interrupted"
            if what == "fail":
                raise ValueError("no")
        return report

    monkeypatch.setattr(contract, "train", trained)
    recipe, rows = Causal(2, **SMALL), training_rows(chain(300))
    how = by(Two(), checkpoint=Checkpoint(tmp_path / "run"))
    how.checkpoint.note["seed"] = 7
    with pytest.warns(UserWarning, match="diverged"):
        first = rows.held_out(fit_recipe(recipe, rows, how).denoiser)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.1"]
    what = "go on"  # both are at their ends already
    how = by(Two(), checkpoint=Checkpoint(tmp_path / "run"))
    rows = training_rows(chain(300))
    assert torch.equal(rows.held_out(fit_recipe(recipe, rows, how).denoiser), first)
    how.checkpoint.remove()
    assert not list(tmp_path.iterdir())
    what = "interrupt"
    how = by(Two(), checkpoint=Checkpoint(tmp_path / "run"))
    list(fit_recipes([Causal(**SMALL)] * 2, rows, how.of_networks(2)))
    assert how.run.interrupted
    what = "fail"
    with pytest.raises(ValueError, match="no"):
        fit_recipe(recipe, rows, by(Two(), checkpoint=Checkpoint(tmp_path / "run")))


def test_files_of_members_with_several_networks_are_removed(tmp_path):
    two = RowMixture((Causal(2, **SMALL), Causal(2, base="independent", **SMALL)))
    how = by(Two(), checkpoint=Checkpoint(tmp_path / "run"))
    fit_recipe(two, training_rows(chain(300)), how)
    assert len(list(tmp_path.iterdir())) == 4
    how.checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_the_seed_is_kept_before_another_process_keeps_anything(tmp_path):
    class Ended(Two):
        def each(self, task):
            raise KeyboardInterrupt

    how = by(Ended(), checkpoint=Checkpoint(tmp_path / "run"))
    how.checkpoint.note["seed"] = 7
    with pytest.raises(KeyboardInterrupt):
        fit_recipe(Causal(2, **SMALL), training_rows(chain(300)), how)
    again = Checkpoint(tmp_path / "run")
    assert again.note == {"seed": 7}
    assert again.found({"any": {}}) is None


def test_members_that_were_there_before_an_interruption_make_a_model(monkeypatch):
    fit_base = Trees.fit_base

    def interrupted(recipe, rows, plan):
        if plan.index == 1:
            raise KeyboardInterrupt
        return fit_base(recipe, rows, plan)

    monkeypatch.setattr(Trees, "fit_base", interrupted)
    members = tuple(Causal(base=base, **SMALL) for base in ("independent", Trees()))
    how = by(Two())
    fitted = fit_recipe(RowMixture(members), training_rows(chain(300)), how)
    assert fitted.report.stopped == "interrupted"
    assert isinstance(fitted.denoiser, CausalDenoiser)
