"""Members of a mixture of rows: which there are, what each contributes, shared time, and interrupted fits."""

import pickle

import numpy as np
import pandas as pd
import pytest
from fits import QUICK, chain, fit, interrupt_at, nats, plan, split, training_rows, watch

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    MarginalDenoiser,
    MixtureDenoiser,
    RowMixtureDenoiser,
)
from discrete_itd.models import fitting
from discrete_itd.models.fitting import fit_recipe
from discrete_itd.recipes import Causal, Mixture, RowMixture, Tree

NETWORK = Causal(width=8, depth=0, base="independent")
TWO = [NETWORK, "independent", Causal(width=6, depth=0, base="independent")]
LONG = {"max_steps": 12}


def test_a_mixture_is_no_worse_than_its_members_on_rows_that_weighed_them():
    rows = chain(400, 6)
    model = fit(
        rows,
        ["tree", Mixture(4, n_points=64, max_steps=200), "independent"],
        validation_fraction=0.3,
    )
    _, held_out = split(model, rows)
    assert isinstance(model.denoiser_, RowMixtureDenoiser)
    assert model.denoiser_.exact
    own = [nats(d, held_out) for d in model.denoiser_.members]
    assert nats(model.denoiser_, held_out) <= min(own) + 1e-6
    assert model.model_.stopped == "exact"


def test_the_contributions_of_members_are_reported():
    """By hand: the weights of the others fitted anew."""
    rows = chain(400, 6)
    model = fit(
        rows,
        ["tree", Mixture(4, n_points=64, max_steps=200), "independent"],
        validation_fraction=0.3,
    )
    table = model.candidates_.set_index("candidate")
    kinds = {
        "tree": BayesNetDenoiser,
        "mixture": MixtureDenoiser,
        "independent": MarginalDenoiser,
    }
    members = list(model.denoiser_.members)
    parts = table[table["weight"] > 0]
    assert len(parts) == len(members) > 1
    assert parts["weight"].sum() == pytest.approx(1)
    _, held_out = split(model, rows)
    for i, member in enumerate(members):
        assert isinstance(member, kinds[parts.index[i]])
        assert parts["nats"].iloc[i] == pytest.approx(nats(member, held_out), rel=1e-5)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.candidates_, model.candidates_)


def test_networks_of_a_mixture_share_the_time(monkeypatch):
    times = watch(monkeypatch, lambda _, training: training.max_time, [fitting])
    fit_recipe(RowMixture((NETWORK, Tree(), NETWORK)), training_rows(chain()), plan(1, 50.0))
    # half for the first; it took none of it, so all is left for the second
    share = fitting.FITTING_SHARE * 50.0
    assert times == [pytest.approx(share / 2, rel=0.3), pytest.approx(share, rel=0.3)]


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("n", [4, 15])
def test_an_interrupted_mixture_is_a_model(monkeypatch, n):
    """In its first network or in its second: whoever ends the training of one does not wait for the next."""
    rows, steps = chain(), interrupt_at(monkeypatch, n)
    with pytest.warns(UserWarning, match="training was interrupted"):
        part = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO}).fit(rows)
    assert len(steps) == n
    assert part.model_.stopped == "interrupted"
    assert np.isfinite(part.score_samples(rows)).all()
