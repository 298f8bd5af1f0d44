"""Candidates that fail, each in turn: the others go on without it, and a warning says which it was and why."""

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

TABLE = mixed(90)
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


@pytest.mark.parametrize("recipe", OF_AUTO)
def test_property_a_candidate_that_fails_is_left_out(monkeypatch, recipe):
    """In its fit, by a lack of memory, of the estimator's default and of the detector's; the others stay."""
    label, _ = OF_AUTO[recipe]
    monkeypatch.setattr(recipe, "fit", failing(MemoryError("no room")))
    density = DiffusionDensity(**QUICK)
    detectors = [DiffusionOutlierDetector(density, false_alarm_rate=0.1)] * (recipe is Forest)
    for estimator in (density, *detectors):
        with pytest.warns(
            UserWarning, match=rf"^{label} is left out.*MemoryError: no room$"
        ) as seen:
            model = estimator.fit(TABLE)
        assert sum("left out" in str(w.message) for w in seen) == 1
        assert np.isfinite(model.score_samples(TABLE)).all()
    others = {name for name, _ in OF_AUTO.values()} - {label}
    assert labels(getattr(model, "density_", model)) == {"independent", *others}


@pytest.mark.parametrize("denoiser", dict.fromkeys(kind for _, kind in OF_AUTO.values()))
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), None])
def test_property_a_candidate_that_cannot_be_evaluated_is_left_out(monkeypatch, denoiser, error):
    """On held-out rows, for lack of memory on the device, or because their code lengths are no numbers."""

    own = denoiser.log_prob

    def nan(self, x, *constants):
        if torch.is_grad_enabled():  # in a training
            return own(self, x, *constants)
        return x.new_full((len(x),), torch.nan)

    monkeypatch.setattr(denoiser, "log_prob", failing(error) if error else nan)
    reason = "OutOfMemoryError" if error else "no finite code length"
    with pytest.warns(UserWarning, match=f"is left out, because it failed: .*{reason}"):
        model = fit(TABLE, "auto")
    left = {name for name, kind in OF_AUTO.values() if kind is denoiser}
    assert labels(model) == {"independent", *(name for name, _ in OF_AUTO.values())} - left
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


@pytest.mark.parametrize("recipe", [Mixture, Causal])
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
