"""Candidates that fail, each in turn: the others go on without it, and a warning says which it was and why."""

import re

import numpy as np
import pytest
import torch
from fits import QUICK, chain, fit, mixed, plan, training_rows

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    CausalDenoiser,
    ForestDenoiser,
    MarginalDenoiser,
    MixtureDenoiser,
)
from discrete_itd.models import auto, networks
from discrete_itd.models.comparison import CandidateTable
from discrete_itd.recipes import (
    BayesNet,
    Best,
    Causal,
    Forest,
    Independent,
    Mixture,
    Tree,
)

TABLE = mixed(60)
SMALL = Mixture(32, n_points=32, max_steps=3)
OF_AUTO = {
    Tree: ("tree", BayesNetDenoiser),
    BayesNet: ("bayes net", BayesNetDenoiser),
    Forest: ("forest", ForestDenoiser),
    Causal: ("causal", CausalDenoiser),
    Mixture: ("mixture", MixtureDenoiser),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Mixtures are small, and there are two networks in the best model."""
    for module in (auto, networks):
        monkeypatch.setattr(module, "QUICK_MIXTURE", SMALL)
    monkeypatch.setattr(auto, "LARGE_MIXTURE", SMALL)
    monkeypatch.setitem(auto.NAMES, "best", Best(2))


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def labels(model):
    """The candidates by name, those of mixtures too."""
    return {part for c in model.candidates_["candidate"] for part in c.split(" + ")}


def without_numbers(own):
    """Code lengths of held-out rows are no numbers; those of a training are."""

    def log_prob(self, x, *constants):
        return (
            own(self, x, *constants)
            if torch.is_grad_enabled()
            else torch.full((len(x),), torch.nan)
        )

    return log_prob


@pytest.mark.parametrize(
    ("fit_fails", "evaluation_fails", "has_no_numbers"),
    [
        ((BayesNet, Causal), ForestDenoiser, MixtureDenoiser),
        ((Tree, Forest), MixtureDenoiser, CausalDenoiser),
    ],
)
def test_property_candidates_that_fail_are_left_out(
    monkeypatch, fit_fails, evaluation_fails, has_no_numbers
):
    """For lack of memory in their fit or on held-out rows, or without a code length."""
    names = {kind: name for name, kind in OF_AUTO.values()}
    reasons = {OF_AUTO[recipe][0]: "MemoryError: no room" for recipe in fit_fails}
    reasons[names[evaluation_fails]] = "OutOfMemoryError"
    reasons[names[has_no_numbers]] = "no finite code length"
    for recipe in fit_fails:
        monkeypatch.setattr(recipe, "fit", failing(MemoryError("no room")))
    monkeypatch.setattr(evaluation_fails, "log_prob", failing(torch.OutOfMemoryError("CUDA")))
    monkeypatch.setattr(has_no_numbers, "log_prob", without_numbers(has_no_numbers.log_prob))
    with pytest.warns(UserWarning, match="left out") as seen:
        model = DiffusionOutlierDetector(DiffusionDensity(**QUICK), false_alarm_rate=0.1).fit(TABLE)
    told = sorted(str(w.message) for w in seen if "left out" in str(w.message))
    for (label, reason), words in zip(sorted(reasons.items()), told, strict=True):
        assert re.match(f"{label} is left out.*{reason}", words)
    others = {name for name, _ in OF_AUTO.values()} - {*reasons}
    assert labels(model.density_) == {"independent", *others}
    assert np.isfinite(model.score_samples(TABLE)).all()


def test_a_candidate_whose_nats_are_impossible_is_left_out(monkeypatch):
    """Below the resolution of the numbers: of candidates that choose themselves; a member by name raises."""
    real = ForestDenoiser.log_prob
    monkeypatch.setattr(ForestDenoiser, "log_prob", lambda self, x: real(self, x) + 60.0)
    reason = "a ForestDenoiser has .* nats per held-out row: .* add up to more than one"
    with pytest.warns(UserWarning, match=f"^forest is left out, because it failed: .*{reason}"):
        model = fit(TABLE, "auto")
    assert "forest" not in labels(model)
    for named in ("forest", ["independent", "forest"]):
        with pytest.raises(ValueError, match=reason):
            fit(TABLE, named)


@pytest.mark.parametrize("recipe", [pytest.param(Mixture, marks=pytest.mark.slow), Causal])
def test_property_the_best_model_is_made_of_those_that_do_not_fail(monkeypatch, recipe):
    """A kind of network that fails is not tried again."""
    monkeypatch.setattr(recipe, "fit", failing(RuntimeError("defect")))
    with pytest.warns(UserWarning, match="is left out.*RuntimeError: defect") as seen:
        model = fit(TABLE, "best")
    assert len({str(w.message) for w in seen}) <= len(seen) <= 3
    kinds = (
        "independent",
        "tree",
        "bayes net",
        "forest",
        "mixture",
        "causal",
    )
    left_out = {str(w.message).split(" is left out")[0] for w in seen}
    assert {k.split(" no. ")[0] for k in labels(model)} == set(kinds) - left_out
    assert np.isfinite(model.score_samples(TABLE)).all()


@pytest.mark.parametrize("denoiser", ["auto", "best"])
def test_independent_columns_are_left_where_all_else_fails(monkeypatch, denoiser):
    for recipe in (Tree, BayesNet, Forest, Mixture, Causal):
        monkeypatch.setattr(recipe, "fit", failing(MemoryError()))
    with pytest.warns(UserWarning, match="is left out"):
        model = fit(TABLE, denoiser)
    assert isinstance(model.model_.denoiser, MarginalDenoiser)
    assert labels(model) == {"independent"}


@pytest.mark.parametrize("denoiser", ["forest", ["tree", "forest"], Causal(base="forest")])
@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_what_was_asked_for_by_name_raises(monkeypatch, denoiser, error):
    monkeypatch.setattr(Forest, "fit", failing(error("defect")))
    with pytest.raises(error, match="defect"):
        fit(chain(), denoiser)


@pytest.mark.parametrize("error", [SystemExit, OSError])
def test_what_ends_a_program_or_concerns_files_ends_the_fit(monkeypatch, error):
    monkeypatch.setattr(Forest, "fit", failing(error("ended")))
    with pytest.raises(error, match="ended"):
        fit(TABLE, "auto")


def test_a_companion_that_fails_is_left_out(monkeypatch):
    """The mixture beside a causal network, whose base then answers alone; and one that cannot be evaluated."""
    one = Causal(width=8, depth=1)
    monkeypatch.setattr(Mixture, "fit", failing(MemoryError()))
    with pytest.warns(UserWarning, match="^mixture is left out.*MemoryError"):
        model = fit(TABLE, one)
    assert not isinstance(model.model_.companion, MixtureDenoiser)


def test_a_companion_that_cannot_be_evaluated_is_left_out(monkeypatch):
    rows, how = training_rows(TABLE), plan()
    table = CandidateTable(rows)
    for recipe in (Independent(), Causal(width=8, depth=1, base="independent")):
        table.fit(recipe, how)
    defect = MarginalDenoiser.fit(rows.codebook, rows.x)
    monkeypatch.setattr(defect, "log_prob", failing(MemoryError()))
    table.companions = [defect]
    with pytest.warns(UserWarning, match="^a companion is left out.*MemoryError"):
        fitted = table.settle(table.candidates[1])
    assert fitted.companion is rows.marginals
