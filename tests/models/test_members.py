"""Ensembles: members, contributions, shared time, and interrupted fits."""

import dataclasses
import functools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fits import (
    QUICK,
    TINY,
    chain,
    fit,
    interrupt_at,
    nats,
    plan,
    split,
    training_rows,
    watch,
)

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import EnsembleDenoiser, MixtureDenoiser, NeuralDenoiser, TreeDenoiser
from discrete_itd.models import contract, members
from discrete_itd.models.fit_recipes import fit_recipe
from discrete_itd.recipes import Ensemble, Mixture, Network, Trees

TWO = [
    Network(width=8, depth=1, base="tree"),
    "tree",
    Network(width=6, depth=1, base="tree"),
]
LONG = {"max_steps": 12}


@functools.cache
def uninterrupted():
    return fit(chain(), TWO, **LONG)


def test_an_ensemble_is_no_worse_than_its_members_on_rows_that_weighed_them():
    rows = chain(400)
    model = fit(
        rows, ["tree", Mixture(4), "independent"], validation_fraction=0.3, n_evaluations=64
    )
    _, held_out = split(model, rows)
    own = [nats(d, held_out) for d in model.denoiser_.members]
    ours = -model.model_.log_prob(held_out, 64).log_prob.mean().item()
    assert ours <= min(own) + 0.02  # weights are fitted at a few shares, and interpolated between
    assert model.stopped_ == "exact"


def test_members_are_those_that_were_asked_for():
    wanted = [TINY, Network(width=8, depth=1), "tree", Mixture(2), TINY]
    model = fit(chain(), wanted)
    ensemble = model.denoiser_
    assert isinstance(ensemble, EnsembleDenoiser)
    kinds = [NeuralDenoiser, NeuralDenoiser, TreeDenoiser, MixtureDenoiser, NeuralDenoiser]
    assert [type(m) for m in ensemble.members] == kinds
    assert model.stopped_ == "max_steps"
    first, last = (ensemble.members[i].network.enter.weight for i in (0, 4))
    assert not torch.equal(first, last)
    # members share a base that is equal
    assert ensemble.members[0].base is ensemble.members[4].base


def test_the_contributions_of_members_are_reported():
    rows = chain(200)
    model = fit(rows, ["tree", "tree", Mixture(3), "independent", TINY], validation_fraction=0.3)
    table = model.marginal_contributions()
    assert table["member"].tolist() == [
        "tree 1",
        "tree 2",
        "mixture of 3",
        "independent",
        "network",
    ]
    assert list(table) == [
        "member", "alone", "gain", "stderr", "weight", "parameters", "fit_seconds", "call_ms",
        "call_share", "denoiser_calls",
    ]  # fmt: skip
    assert table["weight"].sum() == pytest.approx(1)
    assert table["call_share"].sum() == pytest.approx(1)
    assert (table[["parameters", "fit_seconds", "call_ms"]] > 0).all(axis=None)
    calls = model.n_evaluations * (table["call_share"] > 0)
    assert (table["denoiser_calls"] == calls).all()
    assert table["parameters"].tolist() == [m.n_parameters for m in model.denoiser_.members]
    assert abs(table["gain"][:2]).max() < 0.1  # one of two equal trees can go
    assert table["alone"].idxmin() != 3
    _, held_out = split(model, rows)
    for i in (0, 2, 3):  # alone: about the closed form on the held-out rows
        exact = nats(model.denoiser_.members[i], held_out)
        assert table["alone"][i] == pytest.approx(exact, rel=0.25)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.marginal_contributions(), table)
    again.n_evaluations = 3
    assert set(again.marginal_contributions()["denoiser_calls"]) <= {0, 3}
    with pytest.warns(FutureWarning, match="marginal_contributions"):
        pd.testing.assert_frame_equal(model.marginal_value(), table)


def test_only_an_ensemble_has_members():
    with pytest.raises(ValueError, match=r"marginal_contributions\(\) needs an ensemble"):
        fit(chain(), "tree").marginal_contributions()
    with pytest.raises(ValueError, match="not fitted"):
        DiffusionDensity(denoiser="ensemble").marginal_contributions()


def test_networks_of_an_ensemble_share_the_time(monkeypatch):
    times = watch(monkeypatch, lambda _, training: training.max_time, [contract])
    shares = []
    limited = plan(1, progress=lambda share, _: shares.append(share))
    limited.training = dataclasses.replace(limited.training, max_time=50.0)
    fit_recipe(Ensemble((TINY, Trees(), TINY)), training_rows(chain()), limited)
    # half for the first; it took none of it, so all is left for the second
    share = members.MEMBERS_SHARE * contract.TRAINING_SHARE * 50.0
    assert times == [pytest.approx(share / 2, rel=0.3), pytest.approx(share, rel=0.3)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert {0.5, 1.0} <= set(shares)


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [pytest.param(4, marks=pytest.mark.slow), 15])
def test_an_interrupted_ensemble_goes_on_to_the_same_result(tmp_path, monkeypatch, n):
    """In its first network or in its second; no file is left behind."""
    rows, whole = chain(), uninterrupted()
    file = tmp_path / "run"
    with monkeypatch.context() as patch:
        steps = interrupt_at(patch, n)
        with pytest.warns(UserWarning, match="training was interrupted"):
            part = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO}).fit(rows, checkpoint=file)
    assert len(steps) == n  # whoever ends the training of one network does not wait for the next
    assert part.stopped_ == "interrupted"
    assert np.isfinite(part.score_samples(rows)).all()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == (["run"] if n < 12 else ["run", "run.1"])
    on = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO}).fit(rows, checkpoint=file)
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(on.score_samples(rows), whole.score_samples(rows))
    for key, tensor in whole.denoiser_.state_dict().items():
        assert torch.equal(on.denoiser_.state_dict()[key], tensor), key
    costs = ["fit_seconds", "call_ms", "call_share"]
    pd.testing.assert_frame_equal(
        on.marginal_contributions().drop(columns=costs),
        whole.marginal_contributions().drop(columns=costs),
    )


def test_a_checkpoint_of_another_ensemble_is_refused(tmp_path, monkeypatch):
    rows = chain()
    interrupt_at(monkeypatch, 4)
    model = DiffusionDensity(**{**QUICK, **LONG, "denoiser": TWO})
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(rows, checkpoint=tmp_path / "run")
    model.set_params(denoiser=list(reversed(TWO)))
    with pytest.raises(ValueError, match="another run"):
        model.fit(rows, checkpoint=tmp_path / "run")
