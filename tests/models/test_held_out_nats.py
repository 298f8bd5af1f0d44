"""Nats of held-out rows: of the model and of independent columns, on the same rows, whatever was fitted."""

import math

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.models.model import HeldOut
from discrete_itd.recipes import Causal, Network
from discrete_itd.reporting.findings import examine
from discrete_itd.storage.values import flatten, unflatten

pytestmark = pytest.mark.single_precision

SMALL = {"width": 16, "depth": 1}
KINDS = {
    "independent": "independent",
    "tree": "tree",
    "causal on a tree": Causal(base="tree", **SMALL),
    "network on a tree": Network(base="tree", **SMALL),
    "auto": "auto",
}


def copies(n=800):
    """A column of four values, a copy of it, and a coin: independent columns are ln 4 behind."""
    random = np.random.default_rng(0)
    value = random.integers(0, 4, n)
    words = np.array(list("abcd"))[value]
    return pd.DataFrame({"a": words, "b": words, "c": random.choice(["u", "v"], n)})


@pytest.mark.parametrize("name", KINDS)
def test_the_gain_is_what_independent_columns_lack(name, tmp_path):
    settings = {"max_steps": 5, "n_evaluations": 16, "random_state": 0}  # 3 columns, one a step
    model = DiffusionDensity(denoiser=KINDS[name], **settings).fit(copies())
    found = model.model_.held_out
    true = 0.0 if name == "independent" else math.log(4)
    assert found.gain == pytest.approx(true, abs=0.1)
    assert found.independent == pytest.approx(2 * math.log(4) + math.log(2), abs=0.1)
    assert found.gain == found.independent - found.nats
    assert examine(model, copies(20), n_most_anomalous=0).gain == found.gain
    said = (
        f"{found.gain:.3f} ± {found.gain_stderr:.3f} nats per row better than independent columns"
    )
    assert said in model.model_card()
    model.save(tmp_path / "m")
    assert DiffusionDensity.load(tmp_path / "m").model_.held_out == found


def test_both_are_means_over_the_same_rows():
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(copies()).model_
    x = model.encoder.transform(copies(50)).x
    rows = model.denoiser.codebook.known_snr.new_tensor(x).double()
    found = HeldOut.measure(model, rows, 4)
    assert found.n_rows == 50
    own, alone = (-d.log_prob(rows).double() for d in (model.denoiser, model.marginals))
    assert (found.nats, found.independent) == pytest.approx(
        (float(own.mean()), float(alone.mean()))
    )
    assert found.gain_stderr == pytest.approx(float((alone - own).std()) / math.sqrt(50))
    assert math.isnan(HeldOut.measure(model, rows[:1], 4).stderr)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nats": math.inf}, "nats is inf"),
        ({"n_rows": 1.5}, "n_rows is 1.5"),
        ({"stderr": "0"}, "stderr is '0', of the wrong type"),
    ],
)
def test_what_no_model_wrote_is_refused(change, message):
    good = HeldOut(3, 1.0, 0.1, 2.0, math.nan, 0.1)
    data, tensors = flatten(good)
    assert repr(unflatten(HeldOut, (data, tensors))) == repr(good)
    with pytest.raises(ValueError, match=message):
        unflatten(HeldOut, (data | change, tensors))
